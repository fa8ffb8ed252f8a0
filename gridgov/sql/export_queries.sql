-- What is asked of an export besides its metrics. {names} are filled in by `export.query`: identifiers, which cannot be
-- parameters. `$run` is the run.

-- name: insert
INSERT INTO x.{table} BY NAME SELECT $run AS run_id, * FROM batch

-- name: sealed
SELECT {columns} FROM {table} WHERE run_id = $run

-- name: sealed_shadows
SELECT * EXCLUDE (run_id) FROM {table} WHERE run_id = $run
AND proposal_id IN (SELECT proposal_id FROM proposals WHERE run_id = $run AND role = 'shadow')

-- name: seals
SELECT table_name, column_name, row_count, digest FROM seals WHERE run_id = $run

-- name: read_every_block
SELECT bit_xor(hash(t)) FROM {database}.{table} AS t

-- name: table_names
SELECT table_name FROM duckdb_tables() WHERE database_name = $database

-- name: views
SELECT view_name, sql FROM duckdb_views() WHERE database_name = $database AND NOT internal

-- name: attached
SELECT 1 FROM duckdb_databases() WHERE database_name = $database

-- name: head
SELECT
    (SELECT head_digest FROM {database}.runs WHERE run_id = $run LIMIT 1) AS head,
    (SELECT max_by(digest, seq) FROM {database}.journal WHERE run_id = $run) AS digest,
    (SELECT count(*) FROM {database}.journal WHERE run_id = $run) AS records,
    (SELECT count(*) FROM {database}.ledger WHERE run_id = $run) AS entries

-- name: metrics
SELECT m.metric, m.resource, m.value, m.exact FROM {database}metrics_run AS m
LEFT JOIN {database}resources AS r ON r.run_id = m.run_id AND r.resource = m.resource
WHERE $run IS NULL OR m.run_id = $run ORDER BY r.rowid NULLS LAST, m.metric

-- name: runs
SELECT * FROM runs

-- name: journal
SELECT body, digest FROM journal WHERE run_id = $run ORDER BY seq

-- name: ledger
SELECT
    l.id, CAST(l.proposal_id AS VARCHAR) AS proposal_id, l.actor_from, l.actor_to, l.resource,
    CAST(l.amount * 1000000 AS HUGEINT) AS millionths, r.scale, epoch_us(l.executed_at) AS at, l.seq, l.epoch, l.kind
FROM ledger AS l
LEFT JOIN resources AS r ON r.run_id = l.run_id AND r.resource = l.resource
WHERE l.run_id = $run ORDER BY l.id

-- name: files
SELECT name, digest, content FROM files WHERE run_id = $run

-- name: prices
SELECT resource, CAST(price * 1000000 AS BIGINT) AS millionths FROM prices WHERE run_id = $run ORDER BY resource, epoch

-- name: harvesters
SELECT actor FROM actors WHERE run_id = $run AND harvester ORDER BY actor_no

-- name: interactions
SELECT * EXCLUDE (run_id, called_at), epoch_us(called_at) AS called_us
FROM interactions WHERE run_id = $run ORDER BY rowid

-- name: interaction
SELECT * EXCLUDE (run_id) FROM interactions
WHERE run_id = $run AND proposal_id = TRY_CAST($proposal AS UUID) ORDER BY rowid DESC LIMIT 1

-- name: shadow
SELECT epoch, proposer, n, outcome, reasoning, violations, state_moved, fault, detail FROM proposals
WHERE run_id = $run AND proposal_id = TRY_CAST($proposal AS UUID) AND role = 'shadow'

-- name: shadows
SELECT
    epoch, CAST(proposal_id AS VARCHAR) AS proposal_id, proposer, n, input, outcome, reasoning, violations, held_until,
    state_moved, fault, detail
FROM proposals WHERE run_id = $run AND role = 'shadow' AND epoch <= $epoch ORDER BY rowid

-- name: shadow_entries
SELECT entry_id FROM transfers
WHERE run_id = $run AND proposal_id = TRY_CAST($proposal AS UUID) AND entry_id IS NOT NULL ORDER BY seq

-- name: shadow_transfers
SELECT actor_from, actor_to, resource, amount, amount_text FROM transfers
WHERE run_id = $run AND proposal_id = TRY_CAST($proposal AS UUID) ORDER BY seq

-- name: unknown_run
SELECT '{table}' AS name, coalesce(run_id, 'NULL') AS run_id FROM {table}
WHERE run_id IS NULL OR run_id NOT IN (SELECT run_id FROM runs)

-- name: count
SELECT '{table}' AS name, count(*) AS rows FROM {table} WHERE run_id = $run

-- name: count_decided
SELECT '{table}' AS name, count(*) AS rows FROM {table} WHERE run_id = $run
AND proposal_id NOT IN (SELECT proposal_id FROM proposals WHERE run_id = $run AND role = 'shadow')

-- name: stored
-- Rows come in the order in which they were inserted (`preserve_insertion_order`).
SELECT {columns} FROM {table} WHERE run_id = $run LIMIT {count} OFFSET {offset}

-- name: load_parts
INSERT INTO x.{table} BY NAME SELECT * FROM read_parquet($files) WHERE list_contains($runs, run_id)

-- name: load_whole_parts
INSERT INTO x.{table} BY NAME SELECT * FROM read_parquet($files)

-- name: load_file
INSERT INTO x.{table} BY NAME SELECT * FROM {database}.{table} WHERE list_contains($runs, run_id)

-- name: load_failed
INSERT INTO x.runs BY NAME SELECT * FROM batch

-- name: whole
SELECT * FROM {table} WHERE run_id = $run ORDER BY rowid

-- name: many_runs
SELECT any_value(scenario) AS scenario, count(*) AS runs, count(*) FILTER (status = 'failed') AS failed FROM runs

-- name: ended
SELECT run_id, head_digest, status, form FROM {database}.runs

-- name: compared
SELECT
    r.run_id, r.scenario, r.seed, r.overrides, r.proposers, r.status, r.error, r.head_digest,
    r.horizon, r.epochs, r.recorded, r.synthetic, r.form, j.digest AS genesis
FROM runs AS r
LEFT JOIN journal AS j ON j.run_id = r.run_id AND j.seq = 1

-- name: compared_files
SELECT run_id, name, digest FROM files ORDER BY ALL

-- name: compared_metrics
SELECT run_id, metric, resource, value FROM metrics_run WHERE value IS NOT NULL

-- name: compared_outcomes
SELECT run_id, outcome, count(*) AS proposals FROM proposals WHERE role <> 'shadow' GROUP BY ALL
