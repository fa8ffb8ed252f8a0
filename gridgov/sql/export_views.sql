-- The violations one by one, and the metrics of an exported run. Sums are exact decimals; only the last ratio is a DOUBLE. What is undefined is NULL,
-- never 0 or NaN. Shadows count nowhere. The boundary has no metrics; the commons has no part in gini and jain.

CREATE VIEW violations AS
WITH listed AS (
    SELECT run_id, epoch, proposal_id, seq AS record, unnest(from_json(violations, '["JSON"]')) AS found,
        generate_subscripts(from_json(violations, '["JSON"]'), 1) - 1 AS seq
    FROM proposals WHERE violations <> '[]'
)
SELECT
    run_id, epoch, proposal_id, seq,
    found ->> 'code' AS code,
    found ->> 'path' AS path,
    found ->> 'resource' AS resource,
    found ->> 'limit' AS limit_value,
    found ->> 'actual' AS actual_value
FROM listed ORDER BY run_id, record, seq;

COMMENT ON VIEW violations IS 'One row for each rule that a proposal broke, or that the settlement of its hold broke';
COMMENT ON COLUMN violations.run_id IS 'The run';
COMMENT ON COLUMN violations.epoch IS 'The epoch in which the proposal was decided';
COMMENT ON COLUMN violations.proposal_id IS 'The proposal';
COMMENT ON COLUMN violations.seq IS 'Place in the list of violations, from 0';
COMMENT ON COLUMN violations.code IS 'Which rule';
COMMENT ON COLUMN violations.path IS 'Where in the proposal';
COMMENT ON COLUMN violations.resource IS 'The resource of which limit and actual are amounts; NULL where they are none';
COMMENT ON COLUMN violations.limit_value IS 'The limit, in units where it is an amount; NULL where the rule has none';
COMMENT ON COLUMN violations.actual_value IS 'What was found, in units where it is an amount';

CREATE VIEW metrics_epoch AS
WITH
moved AS (
    SELECT
        run_id, epoch, resource,
        sum(applied) FILTER (kind = 'produce') AS produced,
        sum(applied) FILTER (kind = 'grow') AS grown,
        sum(requested) FILTER (kind = 'consume') AS demanded,
        sum(applied) FILTER (kind = 'consume') AS served,
        sum(applied) FILTER (kind = 'spill') AS spilled
    FROM flows
    GROUP BY run_id, epoch, resource
),
sent AS (
    SELECT run_id, epoch, resource, sum(amount) AS transferred, count(*) AS transfers
    FROM ledger WHERE kind = 'transfer' GROUP BY run_id, epoch, resource
),
decided AS (
    SELECT
        run_id, epoch,
        count(*) AS proposals,
        count(*) FILTER (outcome = 'executed') AS executed,
        count(*) FILTER (outcome = 'rejected') AS rejected,
        count(*) FILTER (outcome = 'held') AS held,
        count(*) FILTER (outcome = 'noop') AS noop,
        count(*) FILTER (outcome = 'malformed') AS malformed,
        count(*) FILTER (outcome = 'unavailable') AS unavailable
    FROM proposals WHERE role <> 'shadow' GROUP BY run_id, epoch
),
ranked AS (
    SELECT
        b.run_id, b.epoch, b.resource, b.amount,
        CAST(b.amount * CAST(pow(10, r.scale) AS BIGINT) AS HUGEINT) AS minor,
        row_number() OVER (PARTITION BY b.run_id, b.epoch, b.resource ORDER BY b.amount) AS i,
        count(*) OVER (PARTITION BY b.run_id, b.epoch, b.resource) AS n
    FROM balances AS b
    JOIN actors AS a ON a.run_id = b.run_id AND a.actor = b.actor AND a.type <> 'boundary'
    JOIN resources AS r ON r.run_id = b.run_id AND r.resource = b.resource
    JOIN runs ON runs.run_id = b.run_id AND b.actor IS DISTINCT FROM runs.commons_actor
),
shared AS (
    SELECT
        run_id, epoch, resource,
        CAST(sum((2 * i - n - 1) * amount) AS DOUBLE) / nullif(CAST(any_value(n) * sum(amount) AS DOUBLE), 0) AS gini,
        pow(CAST(sum(minor) AS DOUBLE), 2)
        / nullif(any_value(n) * CAST(sum(minor * minor) AS DOUBLE), 0) AS jain
    FROM ranked GROUP BY run_id, epoch, resource
)
SELECT
    e.run_id, e.epoch, r.resource,
    coalesce(moved.produced, 0) AS produced,
    coalesce(moved.grown, 0) AS grown,
    coalesce(moved.demanded, 0) AS demanded,
    coalesce(moved.served, 0) AS served,
    coalesce(moved.demanded, 0) - coalesce(moved.served, 0) AS unmet,
    coalesce(moved.spilled, 0) AS spilled,
    coalesce(sent.transferred, 0) AS transferred,
    coalesce(sent.transfers, 0) AS transfers,
    p.price,
    CAST((coalesce(moved.demanded, 0) - coalesce(moved.served, 0)) * p.price AS DECIMAL(38, 12)) AS import_cost,
    coalesce(decided.proposals, 0) AS proposals,
    coalesce(decided.executed, 0) AS executed,
    coalesce(decided.rejected, 0) AS rejected,
    coalesce(decided.held, 0) AS held,
    coalesce(decided.noop, 0) AS noop,
    coalesce(decided.malformed, 0) AS malformed,
    coalesce(decided.unavailable, 0) AS unavailable,
    shared.gini,
    shared.jain
FROM epochs AS e
JOIN resources AS r ON r.run_id = e.run_id
LEFT JOIN moved ON moved.run_id = e.run_id AND moved.epoch = e.epoch AND moved.resource = r.resource
LEFT JOIN sent ON sent.run_id = e.run_id AND sent.epoch = e.epoch AND sent.resource = r.resource
LEFT JOIN decided ON decided.run_id = e.run_id AND decided.epoch = e.epoch
LEFT JOIN prices AS p ON p.run_id = e.run_id AND p.epoch = e.epoch AND p.resource = r.resource
LEFT JOIN shared ON shared.run_id = e.run_id AND shared.epoch = e.epoch AND shared.resource = r.resource
ORDER BY e.run_id, e.epoch, r.resource_no;

COMMENT ON VIEW metrics_epoch IS 'One row for each epoch from 0 and resource; proposals and outcomes are those of the epoch, whatever the resource';
COMMENT ON COLUMN metrics_epoch.run_id IS 'The run';
COMMENT ON COLUMN metrics_epoch.epoch IS 'The epoch; 0 for the opening';
COMMENT ON COLUMN metrics_epoch.resource IS 'The resource';
COMMENT ON COLUMN metrics_epoch.produced IS 'What was produced, in units';
COMMENT ON COLUMN metrics_epoch.grown IS 'What grew, in units';
COMMENT ON COLUMN metrics_epoch.demanded IS 'What was to be consumed, in units';
COMMENT ON COLUMN metrics_epoch.served IS 'What was consumed, in units';
COMMENT ON COLUMN metrics_epoch.unmet IS 'demanded - served, in units';
COMMENT ON COLUMN metrics_epoch.spilled IS 'What storage could not hold, in units';
COMMENT ON COLUMN metrics_epoch.transferred IS 'What executed proposals moved, in units';
COMMENT ON COLUMN metrics_epoch.transfers IS 'Number of transfers that executed proposals made';
COMMENT ON COLUMN metrics_epoch.price IS 'Price of one unit; NULL where there is none';
COMMENT ON COLUMN metrics_epoch.import_cost IS 'unmet x price; NULL where there is no price';
COMMENT ON COLUMN metrics_epoch.proposals IS 'Number of rounds, shadows left out';
COMMENT ON COLUMN metrics_epoch.executed IS 'Number of proposals that were executed';
COMMENT ON COLUMN metrics_epoch.rejected IS 'Number of proposals that were rejected';
COMMENT ON COLUMN metrics_epoch.held IS 'Number of proposals that are held and not settled';
COMMENT ON COLUMN metrics_epoch.noop IS 'Number of rounds in which nothing was proposed, on purpose';
COMMENT ON COLUMN metrics_epoch.malformed IS 'Number of replies that were no proposal';
COMMENT ON COLUMN metrics_epoch.unavailable IS 'Number of rounds without any answer; no decisions';
COMMENT ON COLUMN metrics_epoch.gini IS 'sum of (2i - n - 1) x_(i) / (n sum of x), over balances at the close but the commons; NULL where all are 0';
COMMENT ON COLUMN metrics_epoch.jain IS '(sum of x)^2 / (n sum of x^2), over the same balances; NULL where all are 0';

CREATE VIEW metrics_actor AS
WITH
facts AS (
    SELECT run_id, epoch, actor, resource, kind, requested, applied, NULL AS giver FROM flows WHERE kind <> 'need'
    UNION ALL
    SELECT run_id, epoch, actor_from, resource, 'given', NULL, amount, NULL FROM ledger WHERE kind = 'transfer'
    UNION ALL
    SELECT run_id, epoch, actor_to, resource, 'received', NULL, amount, actor_from FROM ledger WHERE kind = 'transfer'
),
came AS (
    SELECT
        f.run_id, f.actor, f.resource,
        sum(f.applied) FILTER (f.kind = 'produce') AS produced,
        sum(f.applied) FILTER (f.kind = 'grow') AS grown,
        sum(f.requested) FILTER (f.kind = 'consume') AS demanded,
        sum(f.applied) FILTER (f.kind = 'consume') AS served,
        sum(f.applied) FILTER (f.kind = 'spill') AS spilled,
        sum(f.applied) FILTER (f.kind = 'given') AS given,
        sum(f.applied) FILTER (f.kind = 'received') AS received,
        sum(f.applied) FILTER (
            f.kind = 'received' AND f.giver = runs.commons_actor AND f.resource = runs.commons_resource
        ) AS gain,
        count(DISTINCT f.epoch) FILTER (f.kind = 'consume' AND f.applied < f.requested) AS epochs_unmet,
        sum(CAST((f.requested - f.applied) * p.price AS DECIMAL(38, 12))) FILTER (f.kind = 'consume') AS import_cost
    FROM facts AS f
    JOIN runs ON runs.run_id = f.run_id
    LEFT JOIN prices AS p ON p.run_id = f.run_id AND p.epoch = f.epoch AND p.resource = f.resource
    GROUP BY f.run_id, f.actor, f.resource
)
SELECT
    a.run_id, a.actor, r.resource,
    coalesce(c.produced, 0) AS produced,
    coalesce(c.grown, 0) AS grown,
    coalesce(c.demanded, 0) AS demanded,
    coalesce(c.served, 0) AS served,
    coalesce(c.demanded, 0) - coalesce(c.served, 0) AS unmet,
    coalesce(c.spilled, 0) AS spilled,
    CAST(c.served AS DOUBLE) / nullif(CAST(c.demanded AS DOUBLE), 0) AS served_share,
    CASE WHEN c.demanded > 0 THEN CAST(c.epochs_unmet AS DOUBLE) / nullif(runs.epochs, 0) END
        AS loss_of_load_probability,
    coalesce(c.given, 0) AS given,
    coalesce(c.received, 0) AS received,
    CASE WHEN r.priced THEN coalesce(c.import_cost, 0) END AS import_cost,
    CASE WHEN a.harvester AND r.resource = runs.commons_resource THEN coalesce(c.gain, 0) END AS gain,
    b.amount AS balance,
    alone.served AS served_alone
FROM actors AS a
JOIN runs ON runs.run_id = a.run_id
JOIN resources AS r ON r.run_id = a.run_id
LEFT JOIN came AS c ON c.run_id = a.run_id AND c.actor = a.actor AND c.resource = r.resource
LEFT JOIN alone ON alone.run_id = a.run_id AND alone.actor = a.actor AND alone.resource = r.resource
LEFT JOIN balances AS b
    ON b.run_id = a.run_id AND b.epoch = runs.epochs AND b.actor = a.actor AND b.resource = r.resource
WHERE a.type <> 'boundary'
ORDER BY a.run_id, a.actor_no, r.resource_no;

COMMENT ON VIEW metrics_actor IS 'One row for each actor but the boundary, and resource, over the whole run';
COMMENT ON COLUMN metrics_actor.run_id IS 'The run';
COMMENT ON COLUMN metrics_actor.actor IS 'Key of the actor';
COMMENT ON COLUMN metrics_actor.resource IS 'The resource';
COMMENT ON COLUMN metrics_actor.produced IS 'What it produced, in units';
COMMENT ON COLUMN metrics_actor.grown IS 'What grew with it, in units';
COMMENT ON COLUMN metrics_actor.demanded IS 'What it was to consume, in units';
COMMENT ON COLUMN metrics_actor.served IS 'What it consumed, in units';
COMMENT ON COLUMN metrics_actor.unmet IS 'demanded - served, in units';
COMMENT ON COLUMN metrics_actor.spilled IS 'What its storage could not hold, in units';
COMMENT ON COLUMN metrics_actor.served_share IS 'served / demanded; NULL where it demanded nothing';
COMMENT ON COLUMN metrics_actor.loss_of_load_probability IS 'Share of all epochs in which some of its demand was unmet; NULL where it demanded nothing';
COMMENT ON COLUMN metrics_actor.given IS 'What it gave in executed proposals, in units';
COMMENT ON COLUMN metrics_actor.received IS 'What it received in executed proposals, in units';
COMMENT ON COLUMN metrics_actor.import_cost IS 'Sum over epochs of unmet x price; NULL where the resource has no price';
COMMENT ON COLUMN metrics_actor.gain IS 'R_i: what it was granted of the commons, in units; NULL where it harvests none';
COMMENT ON COLUMN metrics_actor.balance IS 'Its balance at the end, in units';
COMMENT ON COLUMN metrics_actor.served_alone IS
    'What it is served where nobody proposes anything, in units; NULL where that is not known';

CREATE VIEW metrics_run AS
WITH
ranked AS (  -- by what it has, and by its gain, each from the least to the most; the commons has no part in n and i
    SELECT
        m.*, runs.commons_resource, r.scale,
        m.actor IS DISTINCT FROM runs.commons_actor AS counts,
        row_number() OVER held AS i,
        count(*) OVER (PARTITION BY m.run_id, m.resource, m.actor IS DISTINCT FROM runs.commons_actor) AS n,
        row_number() OVER (PARTITION BY m.run_id, m.resource ORDER BY m.gain NULLS LAST) AS gain_i,
        count(m.gain) OVER (PARTITION BY m.run_id, m.resource) AS gain_n
    FROM metrics_actor AS m
    JOIN runs ON runs.run_id = m.run_id
    JOIN resources AS r ON r.run_id = m.run_id AND r.resource = m.resource
    WINDOW held AS (
        PARTITION BY m.run_id, m.resource, m.actor IS DISTINCT FROM runs.commons_actor ORDER BY m.balance
    )
),
totals AS (
    SELECT
        run_id, resource,
        sum(produced) AS produced, sum(grown) AS grown, sum(demanded) AS demanded, sum(served) AS served,
        sum(unmet) AS unmet, sum(spilled) AS spilled, sum(given) AS transferred, sum(import_cost) AS import_cost,
        min(served_share) AS served_share_min, max(loss_of_load_probability) AS loss_of_load_probability_max,
        CAST(sum((2 * i - n - 1) * balance) FILTER (counts) AS DOUBLE)
        / nullif(CAST(sum(n * balance) FILTER (counts) AS DOUBLE), 0) AS gini,
        -- in minor units, whose squares no decimal overflows
        pow(CAST(sum(CAST(balance * CAST(pow(10, scale) AS BIGINT) AS HUGEINT)) FILTER (counts) AS DOUBLE), 2)
        / nullif(
            any_value(n) FILTER (counts)
            * CAST(
                sum(
                    CAST(balance * CAST(pow(10, scale) AS BIGINT) AS HUGEINT)
                    * CAST(balance * CAST(pow(10, scale) AS BIGINT) AS HUGEINT)
                ) FILTER (counts) AS DOUBLE
            ), 0
        ) AS jain,
        sum(CASE WHEN served_alone > served THEN served_alone - served WHEN served_alone IS NOT NULL THEN 0 END)
            AS worse_off,
        sum(gain) AS gain,
        -- 1 - sum of abs(R_i - R_j) / (2 n sum of R), as one ratio; that sum over all pairs is twice that of
        -- (2i - n - 1) R_(i)
        CAST(sum((2 * gain_n + 1 - 2 * gain_i) * gain) AS DOUBLE) / nullif(CAST(sum(gain_n * gain) AS DOUBLE), 0)
            AS equality
    FROM ranked GROUP BY run_id, resource
),
decided AS (
    SELECT
        run_id,
        CAST(count(*) FILTER (outcome = 'executed') AS DOUBLE)
        / nullif(count(*) FILTER (outcome IN ('executed', 'rejected', 'held', 'malformed')), 0) AS acceptance_rate,
        count(*) FILTER (held) AS waited
    FROM proposals WHERE role <> 'shadow' GROUP BY run_id
),
pool AS (  -- the commons at each close; and what a harvest found, after growth
    SELECT
        b.run_id, b.epoch, b.amount,
        lag(b.amount) OVER (PARTITION BY b.run_id ORDER BY b.epoch) + coalesce(f.gained, 0) AS found
    FROM runs
    JOIN balances AS b
        ON b.run_id = runs.run_id AND b.actor = runs.commons_actor AND b.resource = runs.commons_resource
    LEFT JOIN (
        SELECT run_id, epoch, actor, resource, sum(applied) AS gained
        FROM flows WHERE kind IN ('produce', 'grow') GROUP BY run_id, epoch, actor, resource
    ) AS f ON f.run_id = b.run_id AND f.epoch = b.epoch AND f.actor = b.actor AND f.resource = b.resource
),
taken AS (  -- what each was granted of the commons in each epoch; who was granted nothing has no row
    SELECT l.run_id, l.epoch, l.actor_to, CAST(pow(10, any_value(r.scale)) AS BIGINT) AS scale, sum(l.amount) AS granted
    FROM ledger AS l
    JOIN runs
        ON runs.run_id = l.run_id AND runs.commons_actor = l.actor_from AND runs.commons_resource = l.resource
    JOIN actors AS a ON a.run_id = l.run_id AND a.actor = l.actor_to AND a.harvester
    JOIN resources AS r ON r.run_id = l.run_id AND r.resource = l.resource
    WHERE l.kind = 'transfer' GROUP BY l.run_id, l.epoch, l.actor_to
),
commons AS (
    SELECT
        pool.run_id,
        coalesce(min(pool.epoch) FILTER (pool.epoch > 0 AND pool.amount < runs.collapse_below), any_value(runs.horizon))
            AS survival_time,
        -- twice T f(0), since f(0) is half of what there was at first
        any_value(runs.horizon) * (any_value(pool.amount) FILTER (pool.epoch = 0)) AS sustainable,
        -- f(t) = floor(floor(pool / 2) / n), in minor units
        CAST(
            count(*) FILTER (
                CAST(t.granted * t.scale AS HUGEINT) > CAST(pool.found * t.scale AS HUGEINT) // 2 // runs.harvesters
            ) AS DOUBLE
        ) / nullif(any_value(runs.harvesters) * any_value(runs.epochs), 0) AS over_usage
    FROM pool
    JOIN runs ON runs.run_id = pool.run_id
    LEFT JOIN taken AS t ON t.run_id = pool.run_id AND t.epoch = pool.epoch
    GROUP BY pool.run_id
),
by_resource AS (
    SELECT
        t.run_id, t.resource,
        unnest([
            {'metric': 'produced', 'exact': CAST(t.produced AS DECIMAL(38, 12)), 'value': NULL::DOUBLE},
            {'metric': 'grown', 'exact': CAST(t.grown AS DECIMAL(38, 12)), 'value': NULL},
            {'metric': 'demanded', 'exact': CAST(t.demanded AS DECIMAL(38, 12)), 'value': NULL},
            {'metric': 'served', 'exact': CAST(t.served AS DECIMAL(38, 12)), 'value': NULL},
            {'metric': 'unmet', 'exact': CAST(t.unmet AS DECIMAL(38, 12)), 'value': NULL},
            {'metric': 'spilled', 'exact': CAST(t.spilled AS DECIMAL(38, 12)), 'value': NULL},
            {'metric': 'transferred', 'exact': CAST(t.transferred AS DECIMAL(38, 12)), 'value': NULL},
            {'metric': 'worse_off', 'exact': CAST(t.worse_off AS DECIMAL(38, 12)), 'value': NULL},
            {'metric': 'import_cost', 'exact': CAST(t.import_cost AS DECIMAL(38, 12)), 'value': NULL},
            {
                'metric': 'self_sufficiency', 'exact': NULL::DECIMAL(38, 12),
                'value': CAST(t.served AS DOUBLE) / nullif(CAST(t.demanded AS DOUBLE), 0)
            },
            {
                'metric': 'self_consumption', 'exact': NULL::DECIMAL(38, 12),
                'value': CAST(t.served AS DOUBLE) / nullif(CAST(t.produced AS DOUBLE), 0)
            },
            {'metric': 'served_share_min', 'exact': NULL::DECIMAL(38, 12), 'value': t.served_share_min},
            {'metric': 'loss_of_load_probability_max', 'exact': NULL::DECIMAL(38, 12), 'value': t.loss_of_load_probability_max},
            {'metric': 'gini', 'exact': NULL::DECIMAL(38, 12), 'value': t.gini},
            {'metric': 'jain', 'exact': NULL::DECIMAL(38, 12), 'value': t.jain},
            {
                -- 1 - (served - none) / (bound - none), as one ratio
                'metric': 'regret', 'exact': NULL::DECIMAL(38, 12),
                'value': CAST(b.bound_served - t.served AS DOUBLE)
                / nullif(CAST(b.bound_served - b.none_served AS DOUBLE), 0)
            }
        ]) AS found
    FROM totals AS t
    LEFT JOIN baselines AS b ON b.run_id = t.run_id AND b.resource = t.resource
),
by_run AS (
    SELECT
        runs.run_id, NULL AS resource,
        unnest([
            {'metric': 'acceptance_rate', 'exact': NULL::DECIMAL(38, 12), 'value': decided.acceptance_rate},
            {'metric': 'waited', 'exact': CAST(coalesce(decided.waited, 0) AS DECIMAL(38, 12)), 'value': NULL},
            {'metric': 'survival_time', 'exact': CAST(c.survival_time AS DECIMAL(38, 12)), 'value': NULL},
            {
                'metric': 'survival_rate', 'exact': NULL::DECIMAL(38, 12),
                'value': CASE WHEN c.survival_time >= runs.horizon THEN 1.0 WHEN c.survival_time IS NOT NULL THEN 0.0 END
            },
            {'metric': 'gain', 'exact': CAST(t.gain AS DECIMAL(38, 12)), 'value': NULL},
            {
                -- 1 - max(0, T f(0) - sum of R) / (T f(0)), as one ratio
                'metric': 'efficiency', 'exact': NULL::DECIMAL(38, 12),
                'value': CAST(least(c.sustainable, 2 * t.gain) AS DOUBLE) / nullif(CAST(c.sustainable AS DOUBLE), 0)
            },
            {'metric': 'equality', 'exact': NULL::DECIMAL(38, 12), 'value': t.equality},
            {'metric': 'over_usage', 'exact': NULL::DECIMAL(38, 12), 'value': c.over_usage}
        ]) AS found
    FROM runs
    LEFT JOIN decided ON decided.run_id = runs.run_id
    LEFT JOIN commons AS c ON c.run_id = runs.run_id
    LEFT JOIN totals AS t ON t.run_id = runs.run_id AND t.resource = runs.commons_resource
)
SELECT
    run_id, found.metric AS metric, resource, coalesce(CAST(found.exact AS DOUBLE), found.value) AS value,
    found.exact AS exact
FROM (FROM by_resource UNION ALL FROM by_run);

COMMENT ON VIEW metrics_run IS 'One row for each metric of a run, and resource where it has one; undefined is NULL';
COMMENT ON COLUMN metrics_run.run_id IS 'The run';
COMMENT ON COLUMN metrics_run.metric IS 'Name of the metric';
COMMENT ON COLUMN metrics_run.resource IS 'The resource; NULL for a metric of the run';
COMMENT ON COLUMN metrics_run.value IS 'The figure; NULL where it is undefined';
COMMENT ON COLUMN metrics_run.exact IS 'The figure as an exact decimal, where it is no ratio';
