-- The tables of an exported run: one grain each, and a comment on every column. Amounts are exact decimals in units,
-- times are UTC, actor columns hold keys. Views follow in export_views.sql.

CREATE TABLE runs (
    run_id VARCHAR, scenario VARCHAR, description VARCHAR, seed HUGEINT, overrides VARCHAR, proposers VARCHAR,
    status VARCHAR, error VARCHAR, head_digest VARCHAR, horizon INTEGER, epochs INTEGER, records BIGINT,
    entries BIGINT, start TIMESTAMP, epoch_length_us BIGINT, commons_actor VARCHAR, commons_resource VARCHAR,
    collapse_below DECIMAL(38, 6), harvesters INTEGER, recorded BIGINT, synthetic BIGINT, started_at TIMESTAMP, seconds DOUBLE,
    version VARCHAR, form INTEGER
);
COMMENT ON TABLE runs IS 'One row for each run in this file: what was run, by whom, and how it ended';
COMMENT ON COLUMN runs.run_id IS 'The run: 16 hex derived from genesis, proposers and data (and the start, for live models)';
COMMENT ON COLUMN runs.scenario IS 'Name of the scenario';
COMMENT ON COLUMN runs.description IS 'What the scenario says of itself';
COMMENT ON COLUMN runs.seed IS 'Seed of every draw';
COMMENT ON COLUMN runs.overrides IS 'JSON list of the KEY=VALUE overrides of the scenario';
COMMENT ON COLUMN runs.proposers IS 'JSON list of the proposers: name, kind, role, actor, mandate and what else defines them';
COMMENT ON COLUMN runs.status IS 'How the run ended';
COMMENT ON COLUMN runs.error IS 'Why it did not end as planned; NULL where it did';
COMMENT ON COLUMN runs.head_digest IS '64 hex: digest of the last journal record; two runs with the same head are the same run';
COMMENT ON COLUMN runs.horizon IS 'Epochs that were planned';
COMMENT ON COLUMN runs.epochs IS 'Epochs that were closed';
COMMENT ON COLUMN runs.records IS 'Number of journal records';
COMMENT ON COLUMN runs.entries IS 'Number of ledger entries';
COMMENT ON COLUMN runs.start IS 'Time at which epoch 1 begins (UTC)';
COMMENT ON COLUMN runs.epoch_length_us IS 'Length of an epoch in microseconds';
COMMENT ON COLUMN runs.commons_actor IS 'The actor that holds the commons; NULL where there is none';
COMMENT ON COLUMN runs.commons_resource IS 'The resource of the commons; NULL where there is none';
COMMENT ON COLUMN runs.collapse_below IS 'The commons has collapsed once it closes below this, in units';
COMMENT ON COLUMN runs.harvesters IS 'Number of actors that harvest the commons; NULL where there is none';
COMMENT ON COLUMN runs.recorded IS 'Number of interactions that were recorded from a model';
COMMENT ON COLUMN runs.synthetic IS 'Number of interactions that no model ever gave: made by a policy or by hand';
COMMENT ON COLUMN runs.started_at IS 'Time at which the run was started (UTC); NULL where nobody said';
COMMENT ON COLUMN runs.seconds IS 'Seconds that the run took';
COMMENT ON COLUMN runs.version IS 'Version of gridgov that wrote it';
COMMENT ON COLUMN runs.form IS 'Version of the form of this file';

CREATE TABLE actors (
    run_id VARCHAR, actor VARCHAR, uuid UUID, type VARCHAR, actor_no INTEGER, joined_epoch INTEGER, frozen BOOLEAN,
    harvester BOOLEAN
);
COMMENT ON TABLE actors IS 'One row for each actor, the boundary included, in order of registration';
COMMENT ON COLUMN actors.run_id IS 'The run';
COMMENT ON COLUMN actors.actor IS 'Key of the actor, such as actor-1';
COMMENT ON COLUMN actors.uuid IS 'uuid5(uuid5(NAMESPACE_DNS, gridgov), key)';
COMMENT ON COLUMN actors.type IS 'Any word; boundary for the one actor through which resources enter and leave';
COMMENT ON COLUMN actors.actor_no IS 'Place in the order of registration, from 0';
COMMENT ON COLUMN actors.joined_epoch IS 'Epoch in which the actor was registered; 0 for the genesis';
COMMENT ON COLUMN actors.frozen IS 'Whether the actor was frozen at the end';
COMMENT ON COLUMN actors.harvester IS 'Whether the actor harvests the commons';

CREATE TABLE resources (
    run_id VARCHAR, resource VARCHAR, unit VARCHAR, scale INTEGER, resource_no INTEGER, priced BOOLEAN
);
COMMENT ON TABLE resources IS 'One row for each resource, in the order of the scenario';
COMMENT ON COLUMN resources.run_id IS 'The run';
COMMENT ON COLUMN resources.resource IS 'Name of the resource';
COMMENT ON COLUMN resources.unit IS 'Unit of its amounts';
COMMENT ON COLUMN resources.scale IS 'Decimal places of its amounts, 0 to 6';
COMMENT ON COLUMN resources.resource_no IS 'Place in the order of the scenario, from 0';
COMMENT ON COLUMN resources.priced IS 'Whether it has a price';

CREATE TABLE epochs (
    run_id VARCHAR, epoch INTEGER, starts_at TIMESTAMP, ends_at TIMESTAMP, seq BIGINT, entries BIGINT,
    collapsed BOOLEAN, digest VARCHAR
);
COMMENT ON TABLE epochs IS 'One row for each closed epoch; epoch 0 is the genesis';
COMMENT ON COLUMN epochs.run_id IS 'The run';
COMMENT ON COLUMN epochs.epoch IS 'The epoch, from 0';
COMMENT ON COLUMN epochs.starts_at IS 'When it began: the close of the epoch before (UTC)';
COMMENT ON COLUMN epochs.ends_at IS 'When it was closed (UTC)';
COMMENT ON COLUMN epochs.seq IS 'Journal record that closed it';
COMMENT ON COLUMN epochs.entries IS 'Last ledger entry at its close';
COMMENT ON COLUMN epochs.collapsed IS 'Whether the commons had collapsed at its close';
COMMENT ON COLUMN epochs.digest IS '64 hex: digest of the record that closed it';

CREATE TABLE balances (run_id VARCHAR, epoch INTEGER, actor VARCHAR, resource VARCHAR, amount DECIMAL(38, 6));
COMMENT ON TABLE balances IS
    'One row for each epoch, actor and resource, without gaps: balances at the close, the boundary included; sums are 0';
COMMENT ON COLUMN balances.run_id IS 'The run';
COMMENT ON COLUMN balances.epoch IS 'The epoch at whose close it was so; 0 for the opening balances';
COMMENT ON COLUMN balances.actor IS 'Key of the actor';
COMMENT ON COLUMN balances.resource IS 'The resource';
COMMENT ON COLUMN balances.amount IS 'Balance in units; 0 where nothing was declared or used; below 0 for the boundary only';

CREATE TABLE flows (
    run_id VARCHAR, epoch INTEGER, actor VARCHAR, resource VARCHAR, kind VARCHAR, requested DECIMAL(38, 6),
    applied DECIMAL(38, 6), name VARCHAR, seq BIGINT, entry_id BIGINT
);
COMMENT ON TABLE flows IS 'One row for each reading: what an actor was to produce, grow, need, consume or spill, and did';
COMMENT ON COLUMN flows.run_id IS 'The run';
COMMENT ON COLUMN flows.epoch IS 'The epoch';
COMMENT ON COLUMN flows.actor IS 'Key of the actor';
COMMENT ON COLUMN flows.resource IS 'The resource';
COMMENT ON COLUMN flows.kind IS 'produce or grow (boundary to actor), consume or spill (actor to boundary), need (moves nothing)';
COMMENT ON COLUMN flows.requested IS 'What was requested, in units';
COMMENT ON COLUMN flows.applied IS 'What was applied, in units; requested less applied of a consume is unmet';
COMMENT ON COLUMN flows.name IS 'Name of the flow';
COMMENT ON COLUMN flows.seq IS 'Journal record that holds it';
COMMENT ON COLUMN flows.entry_id IS 'Ledger entry that applied it; NULL where nothing moved';

CREATE TABLE proposals (
    run_id VARCHAR, epoch INTEGER, proposal_id UUID, proposer VARCHAR, outcome VARCHAR, violations VARCHAR,
    reasoning VARCHAR, n INTEGER, role VARCHAR, transfers INTEGER, seq BIGINT, decided_at TIMESTAMP,
    input VARCHAR USING COMPRESSION uncompressed,
    state_moved BOOLEAN, held BOOLEAN, held_until INTEGER, settlement VARCHAR, settled_epoch INTEGER,
    settled_seq BIGINT, fault VARCHAR, detail VARCHAR
);
COMMENT ON TABLE proposals IS 'One row for each round of each proposer, with its final outcome';
COMMENT ON COLUMN proposals.run_id IS 'The run';
COMMENT ON COLUMN proposals.epoch IS 'The epoch in which it was decided';
COMMENT ON COLUMN proposals.proposal_id IS 'Id of the proposal, derived from the round or given by a client';
COMMENT ON COLUMN proposals.proposer IS 'Name of the proposer';
COMMENT ON COLUMN proposals.outcome IS
    'executed, rejected, held (never settled), noop, malformed or unavailable; once a hold is settled, what it came to';
COMMENT ON COLUMN proposals.violations IS
    'JSON list of the broken rules: code, path, limit and actual in units of the resource';
COMMENT ON COLUMN proposals.reasoning IS 'What the proposer gave as its reasons';
COMMENT ON COLUMN proposals.n IS 'Which round of this proposer in this epoch, from 1';
COMMENT ON COLUMN proposals.role IS 'active, or shadow: judged, never applied and counted in no metric';
COMMENT ON COLUMN proposals.transfers IS 'Number of transfers that were asked for';
COMMENT ON COLUMN proposals.seq IS 'Journal record that holds it; NULL for a shadow';
COMMENT ON COLUMN proposals.decided_at IS 'When it was decided (UTC); NULL for a shadow';
COMMENT ON COLUMN proposals.input IS '64 hex: digest of what was proposed; the same id with other input is refused';
COMMENT ON COLUMN proposals.state_moved IS 'Whether balances had moved since the proposer saw them';
COMMENT ON COLUMN proposals.held IS 'Whether it was held for a person to approve';
COMMENT ON COLUMN proposals.held_until IS 'Epoch with which the hold expires; NULL where it was not held';
COMMENT ON COLUMN proposals.settlement IS 'approve, reject or expire; NULL where no hold was settled';
COMMENT ON COLUMN proposals.settled_epoch IS 'Epoch in which the hold was settled';
COMMENT ON COLUMN proposals.settled_seq IS 'Journal record that settled the hold';
COMMENT ON COLUMN proposals.fault IS 'Why it is malformed or unavailable; NULL for a proposal';
COMMENT ON COLUMN proposals.detail IS 'Where and what was wrong with the reply; NULL for a proposal';

CREATE TABLE transfers (
    run_id VARCHAR, epoch INTEGER, proposal_id UUID, seq INTEGER, actor_from VARCHAR, actor_to VARCHAR,
    resource VARCHAR, amount DECIMAL(38, 6), granted DECIMAL(38, 6), amount_text VARCHAR, entry_id BIGINT
);
COMMENT ON TABLE transfers IS 'One row for each transfer that was asked for, whatever became of it';
COMMENT ON COLUMN transfers.run_id IS 'The run';
COMMENT ON COLUMN transfers.epoch IS 'The epoch in which it was asked for';
COMMENT ON COLUMN transfers.proposal_id IS 'The proposal';
COMMENT ON COLUMN transfers.seq IS 'Place in the proposal, from 0 as in the paths of violations';
COMMENT ON COLUMN transfers.actor_from IS 'Key of the sender, as it was asked for';
COMMENT ON COLUMN transfers.actor_to IS 'Key of the receiver, as it was asked for';
COMMENT ON COLUMN transfers.resource IS 'The resource, as it was asked for';
COMMENT ON COLUMN transfers.amount IS 'Amount asked for, in units; NULL where six decimals and 32 digits cannot hold it';
COMMENT ON COLUMN transfers.granted IS 'What an allocation granted of it, in units; NULL where none decided';
COMMENT ON COLUMN transfers.amount_text IS 'The exact amount as text, where amount is NULL';
COMMENT ON COLUMN transfers.entry_id IS 'Ledger entry that applied it; NULL where none did';

CREATE TABLE ledger (
    run_id VARCHAR, id BIGINT, proposal_id UUID, actor_from VARCHAR, actor_to VARCHAR, resource VARCHAR,
    amount DECIMAL(38, 6), executed_at TIMESTAMP, metadata VARCHAR, epoch INTEGER, kind VARCHAR, seq BIGINT
);
COMMENT ON TABLE ledger IS 'One row for each applied transfer, in order; balances are the sum of it';
COMMENT ON COLUMN ledger.run_id IS 'The run';
COMMENT ON COLUMN ledger.id IS 'Id of the entry, from 1 without gaps';
COMMENT ON COLUMN ledger.proposal_id IS 'The proposal that asked for it; NULL where there was none';
COMMENT ON COLUMN ledger.actor_from IS 'Key of the actor who gave';
COMMENT ON COLUMN ledger.actor_to IS 'Key of the actor who received';
COMMENT ON COLUMN ledger.resource IS 'The resource';
COMMENT ON COLUMN ledger.amount IS 'Amount in units, above 0';
COMMENT ON COLUMN ledger.executed_at IS 'When it was applied (UTC)';
COMMENT ON COLUMN ledger.metadata IS 'JSON: the proposer or the flow that it comes from';
COMMENT ON COLUMN ledger.epoch IS 'The epoch';
COMMENT ON COLUMN ledger.kind IS 'genesis, transfer, produce, grow, consume, spill, override or reversal';
COMMENT ON COLUMN ledger.seq IS 'Journal record that made it';

CREATE TABLE journal (
    run_id VARCHAR, seq BIGINT, epoch INTEGER, kind VARCHAR, recorded_at TIMESTAMP,
    body VARCHAR USING COMPRESSION zstd, digest VARCHAR USING COMPRESSION uncompressed
);
COMMENT ON TABLE journal IS 'One row for each record of the total order; every other table but those given follows from it';
COMMENT ON COLUMN journal.run_id IS 'The run';
COMMENT ON COLUMN journal.seq IS 'Number of the record, from 1 without gaps';
COMMENT ON COLUMN journal.epoch IS 'The open epoch; 0 for the genesis';
COMMENT ON COLUMN journal.kind IS 'genesis, registration, constraints, flow, proposal, settlement, close or control';
COMMENT ON COLUMN journal.recorded_at IS 'Time of the record (UTC)';
COMMENT ON COLUMN journal.body IS 'Canonical JSON of the record, amounts in minor units; what the digest is taken of';
COMMENT ON COLUMN journal.digest IS '64 hex: sha256 of the form, the digest before and the body';

CREATE TABLE interactions (
    run_id VARCHAR, epoch INTEGER, proposer VARCHAR, n INTEGER, proposal_id UUID, origin VARCHAR, request_key VARCHAR,
    model_asked VARCHAR, model_answered VARCHAR, status VARCHAR, finish_reason VARCHAR, prompt VARCHAR,
    prompt_digest VARCHAR, tokens_in BIGINT, tokens_out BIGINT, tokens_thought BIGINT, cost DECIMAL(38, 12),
    latency_ms DOUBLE, attempts INTEGER, called_at TIMESTAMP, line VARCHAR, digest VARCHAR
);
COMMENT ON TABLE interactions IS 'One row for each exchange with a model, as it was replayed or recorded';
COMMENT ON COLUMN interactions.run_id IS 'The run';
COMMENT ON COLUMN interactions.epoch IS 'The epoch';
COMMENT ON COLUMN interactions.proposer IS 'Name of the proposer';
COMMENT ON COLUMN interactions.n IS 'Which round of this proposer in this epoch, from 1';
COMMENT ON COLUMN interactions.proposal_id IS 'The proposal that the reply was read as';
COMMENT ON COLUMN interactions.origin IS 'recorded, edited or synthetic (no model ever gave it)';
COMMENT ON COLUMN interactions.request_key IS 'Digest of what was asked: the same key is the same question';
COMMENT ON COLUMN interactions.model_asked IS 'Model that was asked';
COMMENT ON COLUMN interactions.model_answered IS 'Model that says it answered';
COMMENT ON COLUMN interactions.status IS 'HTTP status of the reply';
COMMENT ON COLUMN interactions.finish_reason IS 'Why the model stopped';
COMMENT ON COLUMN interactions.prompt IS 'Name of the prompt';
COMMENT ON COLUMN interactions.prompt_digest IS 'Digest of the prompt with its includes';
COMMENT ON COLUMN interactions.tokens_in IS 'Tokens of the request';
COMMENT ON COLUMN interactions.tokens_out IS 'Tokens of the reply';
COMMENT ON COLUMN interactions.tokens_thought IS 'Tokens of thoughts';
COMMENT ON COLUMN interactions.cost IS 'Cost in the currency of the price table';
COMMENT ON COLUMN interactions.latency_ms IS 'Milliseconds from request to reply';
COMMENT ON COLUMN interactions.attempts IS 'How often it was tried';
COMMENT ON COLUMN interactions.called_at IS 'When the model was called (UTC)';
COMMENT ON COLUMN interactions.line IS 'The whole line of the cassette: the request, the raw reply and all about it';
COMMENT ON COLUMN interactions.digest IS 'Digest of the line';

CREATE TABLE prices (run_id VARCHAR, epoch INTEGER, resource VARCHAR, price DECIMAL(38, 6));
COMMENT ON TABLE prices IS 'One row for each epoch and resource that has a price';
COMMENT ON COLUMN prices.run_id IS 'The run';
COMMENT ON COLUMN prices.epoch IS 'The epoch, from 1';
COMMENT ON COLUMN prices.resource IS 'The resource';
COMMENT ON COLUMN prices.price IS 'Price of one unit in that epoch, in the currency of the data';

CREATE TABLE baselines (
    run_id VARCHAR, resource VARCHAR, none_served DECIMAL(38, 6), bound_served DECIMAL(38, 6), note VARCHAR
);
COMMENT ON TABLE baselines IS 'One row for each resource for which it is known what doing nothing serves, and what could be served';
COMMENT ON COLUMN baselines.run_id IS 'The run';
COMMENT ON COLUMN baselines.resource IS 'The resource';
COMMENT ON COLUMN baselines.none_served IS 'Demand served where nobody proposes anything, in units';
COMMENT ON COLUMN baselines.bound_served IS 'Most demand that perfect foresight could serve, in units; NULL where that is not known';
COMMENT ON COLUMN baselines.note IS 'How the bound was found, or why there is none';

CREATE TABLE alone (run_id VARCHAR, actor VARCHAR, resource VARCHAR, served DECIMAL(38, 6));
COMMENT ON TABLE alone IS 'One row for each actor that needs a resource: how much of it is served where nobody proposes anything';
COMMENT ON COLUMN alone.run_id IS 'The run';
COMMENT ON COLUMN alone.actor IS 'Key of the actor';
COMMENT ON COLUMN alone.resource IS 'The resource';
COMMENT ON COLUMN alone.served IS 'Demand served where nobody proposes anything, in units';

CREATE TABLE files (run_id VARCHAR, name VARCHAR, size BIGINT, digest VARCHAR, content BLOB);
COMMENT ON TABLE files IS 'One row for each file that the run was made from; enough to run it again';
COMMENT ON COLUMN files.run_id IS 'The run';
COMMENT ON COLUMN files.name IS 'Path of the file, relative to the scenario';
COMMENT ON COLUMN files.size IS 'Bytes';
COMMENT ON COLUMN files.digest IS '64 hex: sha256 of the content';
COMMENT ON COLUMN files.content IS 'The content';

CREATE TABLE seals (run_id VARCHAR, table_name VARCHAR, column_name VARCHAR, row_count BIGINT, digest VARCHAR);
COMMENT ON TABLE seals IS
    'One row for each column that the journal does not imply: a digest that shows damage to it (no proof against a forger)';
COMMENT ON COLUMN seals.run_id IS 'The run';
COMMENT ON COLUMN seals.table_name IS 'The table';
COMMENT ON COLUMN seals.column_name IS 'The column';
COMMENT ON COLUMN seals.row_count IS 'Number of values under this seal';
COMMENT ON COLUMN seals.digest IS '64 hex: sha256 of the values in their order';
