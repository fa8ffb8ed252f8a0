-- One grid: its tables, its views, and who may do what. {grid} is its schema, and first in the search path.

-- ---------------------------------------------------------------- what is recorded, and never changed

CREATE TABLE journal (
    seq bigint PRIMARY KEY,
    epoch integer NOT NULL,
    kind text NOT NULL,
    at timestamptz NOT NULL,
    proposal_id uuid,
    outcome text,
    request_id uuid,
    body text NOT NULL,
    digest bytea NOT NULL CHECK (octet_length(digest) = 32)
);
COMMENT ON TABLE journal IS 'One row for each step of the total order; the truth from which all else follows';
COMMENT ON COLUMN journal.seq IS 'Number of the record, from 1, without gaps, in order of commit';
COMMENT ON COLUMN journal.epoch IS 'The epoch that was open';
COMMENT ON COLUMN journal.kind IS
    'genesis, registration, constraints, flow, proposal, settlement, override, reversal, activation, close or control';
COMMENT ON COLUMN journal.at IS 'When it was recorded; never goes back';
COMMENT ON COLUMN journal.proposal_id IS
    'The proposal that it decides, settles or takes back as a whole; NULL where there is none';
COMMENT ON COLUMN journal.outcome IS
    'What became of that proposal, override or reversal; NULL for the other kinds';
COMMENT ON COLUMN journal.request_id IS 'The request that it answers and that counts once; NULL where there is none';
COMMENT ON COLUMN journal.body IS 'Canonical JSON of the record, amounts in minor units; the other columns follow from it';
COMMENT ON COLUMN journal.digest IS 'sha256 of "gridgov/1", a line feed, the digest of the record before, and the body';

-- One decision and one settlement for each id, whatever a program does.
CREATE UNIQUE INDEX journal_decisions ON journal (proposal_id) WHERE kind = 'proposal';
CREATE UNIQUE INDEX journal_settlements ON journal (proposal_id) WHERE kind = 'settlement';
CREATE UNIQUE INDEX journal_requests ON journal (request_id) WHERE request_id IS NOT NULL;
-- The others are few: the last constraints, control or close, and the flows of an epoch, are found at once.
CREATE INDEX journal_others ON journal (kind, seq) WHERE kind <> 'proposal';
CREATE UNIQUE INDEX journal_closes ON journal (epoch) WHERE kind = 'close';
CREATE INDEX journal_holds ON journal (seq) WHERE kind = 'proposal' AND outcome = 'held';

CREATE TABLE ledger (
    id bigint PRIMARY KEY,
    proposal_id uuid,
    actor_from uuid NOT NULL,
    actor_to uuid NOT NULL,
    resource text NOT NULL,
    amount numeric NOT NULL CHECK (amount > 0),
    executed_at timestamptz NOT NULL,
    metadata jsonb NOT NULL,
    seq bigint NOT NULL,
    epoch integer NOT NULL,
    kind text NOT NULL
);
COMMENT ON TABLE ledger IS 'One row for each applied transfer; balances are sums of it';
COMMENT ON COLUMN ledger.id IS 'Number of the entry, from 1, without gaps, in order of commit';
COMMENT ON COLUMN ledger.proposal_id IS 'The proposal that asked for it; NULL where there was none';
COMMENT ON COLUMN ledger.actor_from IS 'Who gave: actors.id';
COMMENT ON COLUMN ledger.actor_to IS 'Who got: actors.id';
COMMENT ON COLUMN ledger.resource IS 'What: resources.name';
COMMENT ON COLUMN ledger.amount IS 'How much, exact, in units of the resource';
COMMENT ON COLUMN ledger.executed_at IS 'When it was recorded';
COMMENT ON COLUMN ledger.metadata IS 'The proposer, the flow or the operator that it comes from';
COMMENT ON COLUMN ledger.seq IS 'The journal record that made it: journal.seq';
COMMENT ON COLUMN ledger.epoch IS 'The epoch that was open; 0 is the genesis';
COMMENT ON COLUMN ledger.kind IS 'genesis, transfer, produce, grow, consume, spill, override or reversal';

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of %.%: what is recorded is never changed', tg_op, tg_table_schema, tg_table_name
        USING ERRCODE = 'restrict_violation', HINT = 'Append a reversal or an override instead.';
END
$$;

CREATE TRIGGER ledger_row_stays BEFORE UPDATE OR DELETE ON ledger
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER journal_row_stays BEFORE UPDATE OR DELETE ON journal
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER journal_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON journal
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- They fire for a session in replica mode, too.
ALTER TABLE ledger ENABLE ALWAYS TRIGGER ledger_row_stays;
ALTER TABLE ledger ENABLE ALWAYS TRIGGER ledger_stays;
ALTER TABLE journal ENABLE ALWAYS TRIGGER journal_row_stays;
ALTER TABLE journal ENABLE ALWAYS TRIGGER journal_stays;

-- ---------------------------------------------------------------- what follows from it, kept up to date

CREATE TABLE actors (
    id uuid PRIMARY KEY,
    key text NOT NULL UNIQUE,
    type text NOT NULL,
    seq bigint NOT NULL
);
COMMENT ON TABLE actors IS 'Who takes part; follows from the journal';
COMMENT ON COLUMN actors.id IS 'uuid5 of the key';
COMMENT ON COLUMN actors.key IS 'Name in the journal, such as actor-1; grid is the boundary';
COMMENT ON COLUMN actors.type IS 'Any word; boundary for the one through which resources enter and leave';
COMMENT ON COLUMN actors.seq IS 'The journal record that first registered it';

CREATE TABLE resources (
    name text PRIMARY KEY,
    unit text NOT NULL,
    scale smallint NOT NULL CHECK (scale BETWEEN 0 AND 6)
);
COMMENT ON TABLE resources IS 'What is shared; follows from the genesis';
COMMENT ON COLUMN resources.name IS 'Name in the journal';
COMMENT ON COLUMN resources.unit IS 'Unit that amounts are counted in';
COMMENT ON COLUMN resources.scale IS 'Decimal places: a minor unit is 10^-scale of a unit';

CREATE TABLE balances (
    actor uuid NOT NULL REFERENCES actors,
    resource text NOT NULL REFERENCES resources,
    amount numeric NOT NULL,
    PRIMARY KEY (actor, resource),
    -- The boundary is uuid5 of grid.
    CONSTRAINT nobody_below_zero CHECK (amount >= 0 OR actor = 'c60963e0-81b0-5a99-a21b-cea7c7598388')
) WITH (fillfactor = 50);
COMMENT ON TABLE balances IS 'Who has what; sums of ledger. A row exists once the balance was declared or used';
COMMENT ON COLUMN balances.actor IS 'actors.id';
COMMENT ON COLUMN balances.resource IS 'resources.name';
COMMENT ON COLUMN balances.amount IS 'How much, exact, in units of the resource';

-- ---------------------------------------------------------------- what is kept beside it

CREATE TABLE interactions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    proposal_id uuid NOT NULL,
    request_key text NOT NULL,
    at timestamptz NOT NULL,
    request bytea NOT NULL,
    status integer,
    body bytea NOT NULL,
    about text NOT NULL,
    usage text,
    latency_ms bigint,
    digest bytea NOT NULL CHECK (octet_length(digest) = 32)
);
CREATE INDEX interactions_of_proposal ON interactions (proposal_id);
COMMENT ON TABLE interactions IS 'One row for each exchange with a model';
COMMENT ON COLUMN interactions.id IS 'Number of the exchange';
COMMENT ON COLUMN interactions.proposal_id IS 'The round that it was for';
COMMENT ON COLUMN interactions.request_key IS 'Digest of what was asked: the same key is the same question';
COMMENT ON COLUMN interactions.at IS 'When the model was called';
COMMENT ON COLUMN interactions.request IS 'Body of the request as it was rendered';
COMMENT ON COLUMN interactions.status IS 'HTTP status of the reply; NULL where none came';
COMMENT ON COLUMN interactions.body IS 'Body of the reply as it came, unread';
COMMENT ON COLUMN interactions.about IS 'Canonical JSON of the rest of its cassette line';
COMMENT ON COLUMN interactions.usage IS 'JSON: tokens by kind, as the reply says';
COMMENT ON COLUMN interactions.latency_ms IS 'Milliseconds from request to reply';
COMMENT ON COLUMN interactions.digest IS 'sha256 over the exchange, but for usage and latency';

CREATE TABLE keys (
    id text PRIMARY KEY,
    name text NOT NULL UNIQUE,
    digest bytea NOT NULL,
    scopes text[] NOT NULL,
    mandate text[],
    created_at timestamptz NOT NULL,
    revoked_at timestamptz
);
COMMENT ON TABLE keys IS 'Who may call the API, and what for';
COMMENT ON COLUMN keys.id IS 'The part of the key that is no secret';
COMMENT ON COLUMN keys.name IS 'Who it was made for; the name in the journal';
COMMENT ON COLUMN keys.digest IS 'Digest of the secret part';
COMMENT ON COLUMN keys.scopes IS 'read, propose, operate';
COMMENT ON COLUMN keys.mandate IS 'Keys of the actors whose balances it may move; NULL is everyone';
COMMENT ON COLUMN keys.created_at IS 'When it was made';
COMMENT ON COLUMN keys.revoked_at IS 'When it was revoked; NULL while it is good';

CREATE TABLE outbox_acks (
    seq bigint PRIMARY KEY,
    up_to bigint NOT NULL,
    reference text NOT NULL,
    acked_at timestamptz NOT NULL
);
CREATE INDEX outbox_acks_up_to ON outbox_acks (up_to);
COMMENT ON TABLE outbox_acks IS 'Outcomes that were handed on, each once';
COMMENT ON COLUMN outbox_acks.seq IS 'The journal record whose outcome it is';
COMMENT ON COLUMN outbox_acks.up_to IS 'Every outcome up to this record had been handed on by then';
COMMENT ON COLUMN outbox_acks.reference IS 'What it became where it was handed to, such as the id of an issue';
COMMENT ON COLUMN outbox_acks.acked_at IS 'When this was acknowledged';

-- ---------------------------------------------------------------- views over the journal

CREATE VIEW proposals AS
SELECT
    j.seq, j.epoch, j.proposal_id, p.proposer, p.n, coalesce(s.outcome, j.outcome) AS outcome, j.at AS decided_at,
    p.transfers, p.granted, p.reasoning, p.violations, p.entries, p.input, coalesce(p.state_moved, false) AS state_moved,
    j.outcome = 'held' AS held, p.held_until, s.body::json -> 'payload' ->> 'decision' AS settlement,
    s.epoch AS settled_epoch, s.seq AS settled_seq, p.fault, p.detail, j.digest
FROM journal AS j
CROSS JOIN LATERAL json_to_record(j.body::json -> 'payload') AS p (
    proposer text, n integer, transfers json, granted json, reasoning text, violations json, entries json,
    input text, state_moved boolean, held_until integer, fault text, detail text
)
LEFT JOIN journal AS s ON j.outcome = 'held' AND s.kind = 'settlement' AND s.proposal_id = j.proposal_id
WHERE j.kind = 'proposal';
COMMENT ON VIEW proposals IS 'One row for each round, with its final outcome; amounts are minor units, as in the journal';

CREATE VIEW holds AS
SELECT j.seq, j.epoch, j.proposal_id, j.at, j.body, j.digest
FROM journal AS j
WHERE j.kind = 'proposal' AND j.outcome = 'held'
AND NOT EXISTS (SELECT FROM journal AS s WHERE s.kind = 'settlement' AND s.proposal_id = j.proposal_id);
COMMENT ON VIEW holds IS 'Proposals that wait for a person';

CREATE VIEW epochs AS
SELECT
    j.epoch, j.seq, j.at AS closed_at, (j.body::json -> 'payload' ->> 'entries')::bigint AS entries,
    j.body::json -> 'payload' -> 'boundary' AS boundary,
    coalesce((j.body::json -> 'payload' ->> 'collapsed')::boolean, false) AS collapsed, j.digest
FROM journal AS j
WHERE j.kind IN ('genesis', 'close');
COMMENT ON VIEW epochs IS
    'One row for each epoch that is over; 0 is the genesis. entries is the last ledger id, NULL for the genesis';

CREATE VIEW constraints AS
SELECT
    j.seq, j.epoch, j.at, j.body::json -> 'payload' -> 'constraints' AS constraints,
    coalesce(j.body::json -> 'payload' ->> 'operator', '') AS operator,
    coalesce(j.body::json -> 'payload' ->> 'reason', '') AS reason
FROM journal AS j
WHERE j.kind IN ('genesis', 'constraints');
COMMENT ON VIEW constraints IS 'The constraints from each record on that set them; amounts are minor units';

CREATE VIEW outbox AS
SELECT j.seq, j.epoch, j.at, j.kind, j.proposal_id, j.outcome, j.body, j.digest
FROM journal AS j
WHERE j.outcome IS NOT NULL
AND j.seq > (SELECT coalesce(max(a.up_to), 0) FROM outbox_acks AS a)
AND NOT EXISTS (SELECT FROM outbox_acks AS a WHERE a.seq = j.seq);
COMMENT ON VIEW outbox IS 'Outcomes that were not handed on yet';

-- ---------------------------------------------------------------- who may do what

GRANT USAGE ON SCHEMA {grid} TO gridgov_app, gridgov_read;
GRANT SELECT ON ALL TABLES IN SCHEMA {grid} TO gridgov_app, gridgov_read;
REVOKE ALL ON keys FROM gridgov_read;
GRANT INSERT ON journal, ledger, interactions, outbox_acks TO gridgov_app;
GRANT INSERT, UPDATE ON actors, balances TO gridgov_app;
GRANT INSERT ON resources TO gridgov_app;
GRANT INSERT, UPDATE ON keys TO gridgov_app;
