-- What the pages of runs ask of an export. `$run` is the run; a filter that is NULL filters nothing. {names} are filled in
-- by `runs.query`: identifiers and whole numbers, which cannot be parameters. Amounts are DOUBLE here: they are shown.
-- Pages have no ORDER BY: rows come in the order in which they were inserted (`preserve_insertion_order`), and to sort
-- what is in order already would read all of it.

-- name: described
SELECT
    r.run_id, r.scenario, r.seed, r.proposers, r.overrides, r.status, r.error, r.epochs, r.horizon, r.entries,
    r.recorded, r.synthetic, r.started_at, r.seconds
FROM runs AS r ORDER BY r.rowid

-- name: counted
SELECT run_id, outcome, count(*) AS count FROM proposals WHERE role <> 'shadow' GROUP BY ALL

-- name: served
-- As `self_sufficiency` and `regret` of metrics_run, for the resource that is needed most.
SELECT
    f.run_id, arg_max(f.resource, f.demanded) AS resource,
    max_by(CAST(f.served AS DOUBLE) / nullif(CAST(f.demanded AS DOUBLE), 0), f.demanded) AS share,
    max_by(
        CAST(b.bound_served - f.served AS DOUBLE) / nullif(CAST(b.bound_served - b.none_served AS DOUBLE), 0), f.demanded
    ) AS regret
FROM (
    SELECT run_id, resource, sum(requested) AS demanded, sum(applied) AS served
    FROM flows WHERE kind = 'consume' GROUP BY ALL
) AS f
LEFT JOIN baselines AS b ON b.run_id = f.run_id AND b.resource = f.resource
GROUP BY f.run_id

-- name: info
SELECT * FROM runs WHERE run_id = $run

-- name: resources
SELECT resource, unit, scale FROM resources WHERE run_id = $run ORDER BY resource_no

-- name: actors
SELECT actor, type, joined_epoch, frozen FROM actors WHERE run_id = $run ORDER BY actor_no

-- name: epoch
SELECT epoch, starts_at, ends_at, seq, entries, collapsed FROM epochs WHERE run_id = $run AND epoch = $epoch

-- name: balances_at
-- Everybody's balances at the close of an epoch, in the order of registration; who had not joined is left out.
SELECT b.actor, a.type, b.resource, CAST(b.amount AS DOUBLE) AS amount
FROM balances AS b
JOIN actors AS a ON a.run_id = b.run_id AND a.actor = b.actor
JOIN resources AS r ON r.run_id = b.run_id AND r.resource = b.resource
WHERE b.run_id = $run AND b.epoch = $epoch AND a.joined_epoch <= $epoch
ORDER BY a.actor_no, r.resource_no

-- name: most_moved
-- The actors whose balances moved most; the boundary is none of them.
SELECT actor FROM balances
WHERE run_id = $run AND resource = $resource AND actor <> 'grid'
GROUP BY actor ORDER BY max(amount) - min(amount) DESC, actor LIMIT {most}

-- name: balances_over
-- Every {step}th epoch and the last one.
SELECT epoch, actor, CAST(amount AS DOUBLE) AS amount FROM balances
WHERE run_id = $run AND resource = $resource AND list_contains($actors, actor)
AND (epoch % {step} = 0 OR epoch = $last) ORDER BY actor, epoch

-- name: held_over
-- What all actors but the boundary have together.
SELECT epoch, -CAST(amount AS DOUBLE) AS amount FROM balances
WHERE run_id = $run AND resource = $resource AND actor = 'grid' AND (epoch % {step} = 0 OR epoch = $last) ORDER BY epoch

-- name: one_over
SELECT epoch, CAST(amount AS DOUBLE) AS amount FROM balances
WHERE run_id = $run AND resource = $resource AND actor = $actor
AND (epoch % {step} = 0 OR epoch = $last) ORDER BY epoch

-- name: flows_over
-- Sums over {step} epochs each; 0 where there was nothing, so that no line is drawn over a gap.
WITH moved AS (
    SELECT
        epoch,
        CASE kind WHEN 'produce' THEN 'produced' WHEN 'grow' THEN 'grown' WHEN 'spill' THEN 'spilled' ELSE 'served' END
            AS what,
        CAST(applied AS DOUBLE) AS amount
    FROM flows WHERE run_id = $run AND resource = $resource AND kind <> 'need' AND epoch > 0
    UNION ALL
    SELECT epoch, 'unmet', CAST(requested - applied AS DOUBLE) FROM flows
    WHERE run_id = $run AND resource = $resource AND kind = 'consume'
    UNION ALL
    SELECT epoch, 'given', CAST(amount AS DOUBLE) FROM ledger
    WHERE run_id = $run AND resource = $resource AND kind = 'transfer'
),
summed AS (
    SELECT 1 + (epoch - 1) // {step} * {step} AS epoch, what, sum(amount) AS amount FROM moved GROUP BY ALL
),
every AS (
    SELECT 1 + (epoch - 1) // {step} * {step} AS epoch, what
    FROM epochs CROSS JOIN (SELECT DISTINCT what FROM summed) WHERE run_id = $run AND epoch > 0 GROUP BY ALL
)
SELECT e.epoch, e.what, coalesce(s.amount, 0.0) AS amount
FROM every AS e LEFT JOIN summed AS s ON s.epoch = e.epoch AND s.what = e.what ORDER BY e.what, e.epoch

-- name: outcomes_over
SELECT 1 + (epoch - 1) // {step} * {step} AS epoch, outcome, count(*) AS count
FROM proposals WHERE run_id = $run AND role <> 'shadow' GROUP BY ALL ORDER BY epoch, outcome

-- name: refusals
SELECT code, count(*) AS count, count(DISTINCT proposal_id) AS proposals
FROM violations WHERE run_id = $run
AND proposal_id NOT IN (SELECT proposal_id FROM proposals WHERE run_id = $run AND role = 'shadow')
GROUP BY code ORDER BY count DESC, code

-- name: faults
SELECT outcome, fault, count(*) AS count FROM proposals
WHERE run_id = $run AND role <> 'shadow' AND fault IS NOT NULL GROUP BY ALL ORDER BY count DESC, fault

-- name: giving
-- Who gave to whom in executed proposals, the strongest first.
SELECT
    actor_from AS giver, actor_to AS taker, CAST(sum(amount) AS DOUBLE) AS amount, count(*) AS transfers
FROM ledger
WHERE run_id = $run AND resource = $resource AND kind = 'transfer' AND epoch BETWEEN $first AND $last
GROUP BY ALL ORDER BY sum(amount) DESC, giver, taker

-- name: proposals_count
SELECT count(*) AS count FROM proposals AS p WHERE {proposals_where}

-- name: proposals_page
SELECT
    p.epoch, p.proposer, p.n, p.role, p.outcome, p.transfers, p.violations, p.reasoning, p.fault, p.detail, p.settlement,
    CAST(p.proposal_id AS VARCHAR) AS proposal_id
FROM proposals AS p WHERE {proposals_where} LIMIT {limit} OFFSET {offset}

-- name: proposals_where
p.run_id = $run
AND ($outcome IS NULL OR p.outcome = $outcome)
AND ($proposer IS NULL OR p.proposer = $proposer)
AND ($first IS NULL OR p.epoch >= $first)
AND ($last IS NULL OR p.epoch <= $last)
AND ($code IS NULL OR contains(p.violations, '"code":"' || $code || '"'))
AND (
    $actor IS NULL OR p.proposal_id IN (
        SELECT t.proposal_id FROM transfers AS t WHERE t.run_id = $run AND (t.actor_from = $actor OR t.actor_to = $actor)
    )
)
AND (
    $find IS NULL OR contains(lower(p.reasoning), lower($find)) OR contains(lower(p.detail), lower($find))
    OR starts_with(CAST(p.proposal_id AS VARCHAR), lower($find))
)

-- name: proposers
SELECT DISTINCT proposer FROM proposals WHERE run_id = $run ORDER BY proposer LIMIT 500

-- name: asked
-- What was asked for by some proposals.
SELECT
    CAST(proposal_id AS VARCHAR) AS proposal_id, actor_from, actor_to, resource,
    CAST(amount AS DOUBLE) AS amount, amount_text
FROM transfers WHERE run_id = $run AND list_contains(CAST($ids AS UUID[]), proposal_id) ORDER BY rowid

-- name: ledger_count
SELECT count(*) AS count FROM ledger AS l WHERE {ledger_where}

-- name: ledger_page
SELECT
    l.id, l.epoch, l.executed_at, l.kind, l.actor_from, l.actor_to, l.resource, CAST(l.amount AS DOUBLE) AS amount,
    CAST(l.proposal_id AS VARCHAR) AS proposal_id, l.metadata, l.seq
FROM ledger AS l WHERE {ledger_where} LIMIT {limit} OFFSET {offset}

-- name: ledger_where
l.run_id = $run
AND ($kind IS NULL OR l.kind = $kind)
AND ($resource IS NULL OR l.resource = $resource)
AND ($first IS NULL OR l.epoch >= $first)
AND ($last IS NULL OR l.epoch <= $last)
AND ($actor IS NULL OR l.actor_from = $actor OR l.actor_to = $actor)
AND ($find IS NULL OR contains(lower(l.metadata), lower($find)) OR CAST(l.id AS VARCHAR) = $find)

-- name: journal_count
SELECT count(*) AS count FROM journal AS j WHERE {journal_where}

-- name: journal_page
SELECT j.seq, j.epoch, j.kind, j.recorded_at, left(j.body, 400) AS body, j.digest
FROM journal AS j WHERE {journal_where} LIMIT {limit} OFFSET {offset}

-- name: journal_where
j.run_id = $run
AND ($kind IS NULL OR j.kind = $kind)
AND ($first IS NULL OR j.epoch >= $first)
AND ($last IS NULL OR j.epoch <= $last)
AND ($find IS NULL OR contains(lower(j.body), lower($find)) OR starts_with(j.digest, lower($find)))

-- name: journal_kinds
SELECT DISTINCT kind FROM journal WHERE run_id = $run ORDER BY kind

-- name: record
SELECT seq, epoch, kind, recorded_at, body, digest FROM journal WHERE run_id = $run AND seq = $seq

-- name: interactions_count
SELECT count(*) AS count FROM interactions WHERE run_id = $run

-- name: interactions_total
SELECT
    coalesce(model_answered, model_asked, origin) AS model, origin, count(*) AS calls, sum(tokens_in) AS tokens_in,
    sum(tokens_out) AS tokens_out, sum(tokens_thought) AS tokens_thought, CAST(sum(cost) AS DOUBLE) AS cost,
    median(latency_ms) AS latency_ms
FROM interactions WHERE run_id = $run GROUP BY ALL ORDER BY calls DESC, model

-- name: interactions_page
SELECT
    i.epoch, i.proposer, i.n, i.origin, coalesce(i.model_answered, i.model_asked) AS model, i.status, i.finish_reason,
    i.tokens_in, i.tokens_out, i.tokens_thought, CAST(i.cost AS DOUBLE) AS cost, i.latency_ms, i.attempts, i.called_at,
    i.prompt, CAST(i.proposal_id AS VARCHAR) AS proposal_id
FROM interactions AS i WHERE i.run_id = $run LIMIT {limit} OFFSET {offset}

-- name: metrics
SELECT m.metric, m.resource, r.unit, m.value FROM metrics_run AS m
LEFT JOIN resources AS r ON r.run_id = m.run_id AND r.resource = m.resource
WHERE m.run_id = $run ORDER BY r.resource_no NULLS FIRST, m.metric

-- name: metrics_actor
SELECT * EXCLUDE (run_id) FROM metrics_actor WHERE run_id = $run AND resource = $resource LIMIT {limit}

-- name: comments
SELECT table_name, column_name, comment FROM duckdb_columns()
WHERE database_name = 'x' AND starts_with(table_name, 'metrics_') AND comment IS NOT NULL

-- name: scenario
SELECT name, decode(content) AS content FROM files WHERE run_id = $run AND starts_with(name, 'scenario:') LIMIT 1

-- name: files
SELECT name, size, digest FROM files WHERE run_id = $run ORDER BY name

-- name: baselines
SELECT
    b.resource, r.unit, CAST(b.none_served AS DOUBLE) AS none_served, CAST(b.bound_served AS DOUBLE) AS bound_served,
    b.note
FROM baselines AS b LEFT JOIN resources AS r ON r.run_id = b.run_id AND r.resource = b.resource
WHERE b.run_id = $run ORDER BY r.resource_no

-- name: decided
-- The record of a proposal, the epoch that it is of, and the last record that tells its story: its settlement's, or its own.
SELECT epoch, seq, role, coalesce(settled_seq, seq) AS until FROM proposals
WHERE run_id = $run AND proposal_id = TRY_CAST($proposal AS UUID) LIMIT 1

-- name: begun
-- Which records the state of a grid at the close of an epoch depends on, but balances: who there is, the rules in force;
-- and the holds that were open then.
SELECT seq FROM journal
WHERE run_id = $run AND epoch <= $epoch
AND kind IN ('genesis', 'registration', 'constraints', 'control', 'activation')
UNION ALL
SELECT p.seq FROM proposals AS p
WHERE p.run_id = $run AND p.held AND p.epoch <= $epoch AND (p.settled_epoch IS NULL OR p.settled_epoch > $epoch)

-- name: records_at
SELECT body, digest FROM journal WHERE run_id = $run AND seq IN (SELECT unnest($seqs)) ORDER BY seq

-- name: balances_then
-- Balances at the close of an epoch, in millionths of a unit.
SELECT actor, resource, CAST(amount * 1000000 AS HUGEINT) AS millionths
FROM balances WHERE run_id = $run AND epoch = $epoch

-- name: used
-- Which of these actors ever gave or received what, until the close of an epoch.
SELECT DISTINCT actor_from AS actor, resource FROM ledger
WHERE run_id = $run AND epoch <= $epoch AND list_contains($actors, actor_from)
UNION
SELECT DISTINCT actor_to AS actor, resource FROM ledger
WHERE run_id = $run AND epoch <= $epoch AND list_contains($actors, actor_to)

-- name: records_between
SELECT body, digest FROM journal WHERE run_id = $run AND seq > $after AND seq <= $until ORDER BY seq
