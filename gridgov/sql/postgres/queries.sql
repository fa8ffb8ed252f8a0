-- What is asked of a grid, by name. %(names)s are parameters, and $1 where rows are written; the grid's schema is first
-- in the search path.

-- ---------------------------------------------------------------- sessions and migrations

-- name: session
SELECT
    set_config('search_path', quote_ident(%(grid)s) || ', pg_temp', false),
    set_config('timezone', 'UTC', false),
    set_config('bytea_output', 'hex', false),
    set_config('idle_in_transaction_session_timeout', %(idle)s, false),
    set_config('statement_timeout', %(patience)s, false),
    -- What is acknowledged must be on disk, even where the server was set to promise less.
    set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), false)

-- name: role
SELECT set_config('role', %(role)s, false)

-- name: applied
SELECT
    name, digest,
    seal = sha256(convert_to(name || ' ' || encode(digest, 'hex') || ' ' || (extract(epoch FROM applied_at) * 1000000)::bigint, 'UTF8'))
FROM meta

-- name: migrating
SELECT pg_advisory_xact_lock(7453013612411547495)

-- name: schema
CREATE SCHEMA IF NOT EXISTS {grid}

-- name: drop
DROP SCHEMA IF EXISTS {grid} CASCADE

-- name: path
SELECT set_config('search_path', quote_ident(%(grid)s) || ', pg_temp', true)

-- name: meta
CREATE TABLE IF NOT EXISTS meta (
    name text PRIMARY KEY,
    digest bytea NOT NULL CHECK (octet_length(digest) = 32),
    applied_at timestamptz NOT NULL,
    seal bytea NOT NULL CHECK (octet_length(seal) = 32)
);
COMMENT ON TABLE meta IS 'One row for each migration that was applied';
COMMENT ON COLUMN meta.name IS 'Its file, without the ending';
COMMENT ON COLUMN meta.digest IS 'sha256 of the file';
COMMENT ON COLUMN meta.applied_at IS 'When';
COMMENT ON COLUMN meta.seal IS 'sha256 of name, digest in hex and applied_at in microseconds, with spaces between';

-- name: roles
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'gridgov_app') THEN
        CREATE ROLE gridgov_app NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL; -- somebody else made it at the same moment
END
$$;
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'gridgov_read') THEN
        CREATE ROLE gridgov_read NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END
$$;
DO $$
BEGIN
    SET LOCAL ROLE gridgov_app;
    SET LOCAL ROLE gridgov_read;
    RESET ROLE;
EXCEPTION WHEN insufficient_privilege THEN
    GRANT gridgov_app, gridgov_read TO CURRENT_USER; -- who made the roles may, from Postgres 16 on, not act as them
END
$$

-- name: record_migration
INSERT INTO meta (name, digest, applied_at, seal)
SELECT
    name, digest, applied_at,
    sha256(convert_to(name || ' ' || encode(digest, 'hex') || ' ' || (extract(epoch FROM applied_at) * 1000000)::bigint, 'UTF8'))
FROM (SELECT %(name)s::text AS name, %(digest)s::bytea AS digest, clock_timestamp() AS applied_at) AS applied

-- ---------------------------------------------------------------- one batch

-- name: begin
-- Three statements, so that the head is read after the lock was given.
BEGIN;
SELECT pg_advisory_xact_lock('journal'::regclass::oid::bigint);
SELECT coalesce(j.seq, 0), j.digest, g.last_value
FROM generation AS g
LEFT JOIN LATERAL (SELECT seq, digest FROM journal ORDER BY seq DESC LIMIT 1) AS j ON true

-- name: tip
SELECT coalesce(j.seq, 0), j.digest, g.last_value
FROM generation AS g
LEFT JOIN LATERAL (SELECT seq, digest FROM journal ORDER BY seq DESC LIMIT 1) AS j ON true

-- name: generation
SELECT last_value FROM generation

-- name: remade
-- It is seen at once, and so moves on twice: before the commit for whoever waits for the lock, and after it for whoever
-- loaded in between.
SELECT nextval('generation')

-- name: snapshot
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY

-- name: commit
COMMIT

-- name: rollback
ROLLBACK

-- name: copy_journal
COPY journal (seq, epoch, kind, at, proposal_id, outcome, request_id, body, digest) FROM STDIN

-- name: copy_journal_and_ledger
COPY journal (seq, epoch, kind, at, proposal_id, outcome, request_id, body, digest) FROM STDIN;
COPY ledger (id, proposal_id, actor_from, actor_to, resource, amount, executed_at, metadata, seq, epoch, kind)
FROM STDIN

-- name: copy_interactions
COPY interactions (proposal_id, request_key, at, request, status, body, about, usage, latency_ms, digest) FROM STDIN

-- name: add_resources
INSERT INTO resources (name, unit, scale) SELECT * FROM unnest($1::text[], $2::text[], $3::smallint[])

-- name: add_actors
INSERT INTO actors (id, key, type, seq) SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[])
ON CONFLICT (id) DO UPDATE SET type = excluded.type

-- name: add_balances
INSERT INTO balances (actor, resource, amount) SELECT * FROM unnest($1::uuid[], $2::text[], $3::numeric[])

-- name: move_balances
UPDATE balances AS b SET amount = b.amount + moved.amount
FROM unnest($1::uuid[], $2::text[], $3::numeric[]) AS moved (actor, resource, amount)
WHERE b.actor = moved.actor AND b.resource = moved.resource

-- name: clear_balances
DELETE FROM balances

-- name: clear_actors
DELETE FROM actors

-- name: clear_resources
DELETE FROM resources

-- name: answered
SELECT proposal_id::text, body, digest FROM journal
WHERE kind = 'proposal' AND proposal_id = ANY(%(ids)s::uuid[])
UNION ALL
SELECT 'request ' || request_id, body, digest FROM journal
WHERE request_id = ANY(%(ids)s::uuid[])

-- name: settlement
SELECT body, digest FROM journal WHERE kind = 'settlement' AND proposal_id = %(id)s

-- name: record
SELECT body, digest FROM journal WHERE seq = %(seq)s

-- name: digest_of
SELECT digest FROM journal WHERE seq = %(seq)s

-- ---------------------------------------------------------------- the journal and the ledger, in order

-- name: records
SELECT seq, body, digest FROM journal WHERE seq > %(after)s ORDER BY seq LIMIT %(limit)s

-- name: since
SELECT seq, body, digest, (SELECT last_value FROM generation) AS generation
FROM journal WHERE seq >= %(seq)s ORDER BY seq LIMIT %(limit)s

-- name: entries
SELECT
    l.id, l.proposal_id::text, f.key, t.key, l.resource, l.amount * ('1e' || r.scale)::numeric,
    (extract(epoch FROM l.executed_at) * 1000000)::bigint, l.seq, l.epoch, l.kind
FROM ledger AS l
LEFT JOIN actors AS f ON f.id = l.actor_from
LEFT JOIN actors AS t ON t.id = l.actor_to
LEFT JOIN resources AS r ON r.name = l.resource
WHERE l.id > %(after)s ORDER BY l.id LIMIT %(limit)s

-- name: some
SELECT
    l.id, l.proposal_id::text, f.key, t.key, l.resource, l.amount * ('1e' || r.scale)::numeric,
    (extract(epoch FROM l.executed_at) * 1000000)::bigint, l.seq, l.epoch, l.kind
FROM ledger AS l
LEFT JOIN actors AS f ON f.id = l.actor_from
LEFT JOIN actors AS t ON t.id = l.actor_to
LEFT JOIN resources AS r ON r.name = l.resource
WHERE l.id = ANY(%(ids)s::bigint[]) ORDER BY l.id

-- name: actor_keys
SELECT key FROM actors

-- name: scales
SELECT name, scale FROM resources

-- name: copy_columns
-- Resources by their place in order of name, from 1; what is unknown or beyond its scale is NULL, and is found by its
-- size. There is no join, so that the rows come in order of the index.
COPY (
    SELECT
        actor_from, actor_to, place,
        CASE
            WHEN scale(amount) <= (ARRAY(SELECT r.scale FROM resources AS r ORDER BY r.name COLLATE "C"))[place]
            THEN amount * (ARRAY(SELECT ('1e' || r.scale)::numeric FROM resources AS r ORDER BY r.name COLLATE "C"))[place]
        END::bigint,
        epoch
    FROM (
        SELECT
            id, actor_from, actor_to, amount, epoch,
            array_position(ARRAY(SELECT r.name FROM resources AS r ORDER BY r.name COLLATE "C"), resource) AS place
        FROM ledger
    ) AS l
    ORDER BY id
) TO STDOUT (FORMAT BINARY)

-- ---------------------------------------------------------------- the state, without its history

-- name: head
SELECT body, digest FROM journal ORDER BY seq DESC LIMIT 1

-- name: last_close
SELECT body, digest FROM journal WHERE kind = 'close' ORDER BY seq DESC LIMIT 1

-- name: genesis
SELECT body, digest FROM journal WHERE kind = 'genesis'

-- name: close_of
SELECT body, digest FROM journal WHERE kind = 'close' AND epoch = %(epoch)s

-- name: last_entry
SELECT coalesce(max(id), 0) AS id FROM ledger

-- name: standing
-- The records that still say something, in order: who there is, what is in force, what is needed, what is held.
SELECT body, digest FROM (
    SELECT seq, body, digest FROM journal WHERE kind = 'genesis'
    UNION ALL
    SELECT seq, body, digest FROM journal
    WHERE kind IN ('registration', 'reversal', 'activation') AND seq <= %(until)s
    UNION ALL
    (
        SELECT seq, body, digest FROM journal WHERE kind = 'constraints' AND seq <= %(until)s
        ORDER BY seq DESC LIMIT 1
    )
    UNION ALL
    (SELECT seq, body, digest FROM journal WHERE kind = 'control' AND seq <= %(until)s ORDER BY seq DESC LIMIT 1)
    UNION ALL
    SELECT seq, body, digest FROM journal
    WHERE kind = 'flow' AND seq > %(closed)s AND seq <= %(until)s AND body LIKE '%%"kind":"need"%%'
    UNION ALL
    SELECT seq, body, digest FROM holds WHERE %(holds)s
) AS found
ORDER BY seq

-- name: in_a_row
-- How many were refused, and how many were unavailable, since anything ended the row.
WITH ended AS MATERIALIZED (
    SELECT seq FROM journal
    WHERE kind = 'control' OR (kind = 'proposal' AND outcome IN ('executed', 'held', 'noop'))
    ORDER BY seq DESC LIMIT 1
),
trail AS MATERIALIZED (
    SELECT seq, outcome FROM journal
    WHERE kind = 'proposal' AND seq > (SELECT coalesce(max(seq), 0) FROM ended)
)
SELECT
    count(*) FILTER (WHERE outcome <> 'unavailable') AS refused,
    count(*) FILTER (WHERE seq > (SELECT coalesce(max(seq), 0) FROM trail WHERE outcome <> 'unavailable')) AS unavailable
FROM trail

-- name: balances
SELECT a.key, b.resource, b.amount * ('1e' || r.scale)::numeric
FROM balances AS b JOIN actors AS a ON a.id = b.actor JOIN resources AS r ON r.name = b.resource

-- name: moved
SELECT s.resource, s.amount * ('1e' || r.scale)::numeric
FROM (
    SELECT resource, sum(amount) AS amount FROM ledger
    WHERE id > %(after)s AND kind = 'transfer'
    AND seq > (SELECT coalesce(max(j.seq), 0) FROM journal AS j WHERE j.kind = 'control')
    GROUP BY resource
) AS s
JOIN resources AS r ON r.name = s.resource

-- name: sent
SELECT a.key, s.resource, s.amount * ('1e' || r.scale)::numeric
FROM (
    SELECT actor_from, resource, sum(amount) AS amount FROM ledger
    WHERE id > %(after)s AND kind = 'transfer' GROUP BY actor_from, resource
) AS s
JOIN actors AS a ON a.id = s.actor_from JOIN resources AS r ON r.name = s.resource

-- name: balances_at
SELECT a.key, s.resource, s.amount * ('1e' || r.scale)::numeric
FROM (
    SELECT m.actor, m.resource, sum(m.amount) AS amount
    FROM (
        SELECT actor_to AS actor, resource, amount FROM ledger WHERE id <= %(until)s
        UNION ALL
        SELECT actor_from, resource, -amount FROM ledger WHERE id <= %(until)s
    ) AS m
    GROUP BY m.actor, m.resource
) AS s
JOIN actors AS a ON a.id = s.actor JOIN resources AS r ON r.name = s.resource

-- ---------------------------------------------------------------- pages and what is handed on

-- name: proposals_page
SELECT * FROM proposals
WHERE seq > %(after)s
AND (%(outcome)s::text IS NULL OR outcome = %(outcome)s)
AND (%(proposer)s::text IS NULL OR proposer = %(proposer)s)
AND (%(epoch)s::integer IS NULL OR epoch = %(epoch)s)
ORDER BY seq LIMIT %(limit)s

-- name: proposal
SELECT * FROM proposals WHERE proposal_id = %(proposal_id)s

-- name: ledger_page
SELECT
    l.id, l.proposal_id, f.key AS actor_from, t.key AS actor_to, l.resource, l.amount, l.executed_at, l.metadata,
    l.seq, l.epoch, l.kind
FROM (
    SELECT * FROM ledger
    WHERE id > %(after)s
    AND (%(actor)s::uuid IS NULL OR actor_from = %(actor)s OR actor_to = %(actor)s)
    AND (%(resource)s::text IS NULL OR resource = %(resource)s)
    AND (%(kind)s::text IS NULL OR kind = %(kind)s)
    AND (%(epoch)s::integer IS NULL OR epoch = %(epoch)s)
    ORDER BY id LIMIT %(limit)s
) AS l
LEFT JOIN actors AS f ON f.id = l.actor_from
LEFT JOIN actors AS t ON t.id = l.actor_to
ORDER BY l.id

-- name: journal_page
SELECT seq, epoch, kind, at, body, digest FROM journal
WHERE seq > %(after)s AND (%(kind)s::text IS NULL OR kind = %(kind)s)
ORDER BY seq LIMIT %(limit)s

-- name: proposals_back
SELECT * FROM proposals
WHERE seq < %(before)s AND seq > %(after)s
AND (%(outcome)s::text IS NULL OR outcome = %(outcome)s)
AND (%(proposer)s::text IS NULL OR proposer = %(proposer)s)
AND (%(epoch)s::integer IS NULL OR epoch = %(epoch)s)
AND (%(code)s::text IS NULL OR strpos(violations::text, '"code":"' || %(code)s || '"') > 0)
AND (%(text)s::text IS NULL OR strpos(
    lower(concat_ws(' ', proposal_id::text, proposer, reasoning, transfers::text, violations::text, fault, detail)),
    lower(%(text)s)
) > 0)
ORDER BY seq DESC LIMIT %(limit)s

-- name: ledger_back
SELECT
    l.id, l.proposal_id, f.key AS actor_from, t.key AS actor_to, l.resource, l.amount, l.executed_at, l.metadata,
    l.seq, l.epoch, l.kind
FROM (
    SELECT * FROM ledger
    WHERE id < %(before)s AND id > %(after)s
    AND (%(actor)s::uuid IS NULL OR actor_from = %(actor)s OR actor_to = %(actor)s)
    AND (%(resource)s::text IS NULL OR resource = %(resource)s)
    AND (%(kind)s::text IS NULL OR kind = %(kind)s)
    AND (%(epoch)s::integer IS NULL OR epoch = %(epoch)s)
    ORDER BY id DESC LIMIT %(limit)s
) AS l
LEFT JOIN actors AS f ON f.id = l.actor_from
LEFT JOIN actors AS t ON t.id = l.actor_to
ORDER BY l.id DESC

-- name: journal_back
SELECT seq, epoch, kind, at, body, digest FROM journal
WHERE seq < %(before)s AND seq > %(after)s
AND (%(kind)s::text IS NULL OR kind = %(kind)s)
AND (%(epoch)s::integer IS NULL OR epoch = %(epoch)s)
AND (%(text)s::text IS NULL OR strpos(lower(body), lower(%(text)s)) > 0)
ORDER BY seq DESC LIMIT %(limit)s

-- name: epoch_between
-- The records of an epoch are those after the first number, up to the second.
SELECT
    coalesce((SELECT seq FROM journal WHERE kind = 'close' AND epoch = %(epoch)s::integer - 1), 0) AS low,
    coalesce((SELECT seq FROM journal WHERE kind = 'close' AND epoch = %(epoch)s), 9223372036854775807) AS high

-- name: by_request
SELECT seq, epoch, kind, at, body, digest FROM journal WHERE request_id = %(request)s::uuid

-- name: outbox_days
-- The days with an outcome that was not handed on yet.
SELECT DISTINCT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day FROM outbox
WHERE at >= %(after)s::timestamptz + interval '1 day'
ORDER BY day LIMIT %(limit)s

-- name: outbox_between
SELECT seq FROM outbox WHERE seq > %(low)s AND seq <= %(high)s ORDER BY seq LIMIT %(limit)s

-- name: outcomes_counted
SELECT outcome, count(*) FROM journal WHERE seq > %(low)s AND seq <= %(high)s AND outcome IS NOT NULL GROUP BY outcome

-- name: synthetic_between
SELECT count(DISTINCT j.proposal_id) FROM journal AS j JOIN interactions AS i ON i.proposal_id = j.proposal_id
WHERE j.seq > %(low)s AND j.seq <= %(high)s AND j.outcome IS NOT NULL AND i.about LIKE '%%"origin":"synthetic"%%'

-- name: outcomes_between
-- Those that need a person come first.
SELECT body, digest FROM journal WHERE seq > %(low)s AND seq <= %(high)s AND outcome IS NOT NULL
ORDER BY outcome IN ('executed', 'noop'), seq LIMIT %(limit)s

-- name: outbox_page
SELECT * FROM outbox WHERE seq > %(after)s ORDER BY seq LIMIT %(limit)s

-- name: last_outcome
SELECT seq, at FROM journal WHERE kind = 'proposal' ORDER BY seq DESC LIMIT 1

-- name: is_outcome
SELECT 1 FROM journal WHERE seq = %(seq)s AND outcome IS NOT NULL

-- name: acknowledge
-- `up_to` spares the outbox from looking at what was handed on long ago: it is the record before the first that is
-- still to be handed on, or the head of the journal. Records are numbered in order of commit, so none comes in below it.
INSERT INTO outbox_acks (seq, up_to, reference, acked_at)
SELECT
    %(seq)s,
    coalesce(
        (SELECT o.seq - 1 FROM outbox AS o WHERE o.seq <> %(seq)s ORDER BY o.seq LIMIT 1),
        (SELECT max(j.seq) FROM journal AS j)
    ),
    %(reference)s, %(at)s::timestamptz
ON CONFLICT (seq) DO NOTHING

-- name: epochs_page
SELECT * FROM epochs ORDER BY seq

-- ---------------------------------------------------------------- keys

-- name: add_key
INSERT INTO keys (id, name, digest, scopes, mandate, created_at)
VALUES (%(id)s, %(name)s, %(digest)s, %(scopes)s::text[], %(mandate)s::text[], %(at)s::timestamptz)
ON CONFLICT DO NOTHING
RETURNING id

-- name: keys
SELECT id, name, scopes, mandate, created_at, revoked_at FROM keys ORDER BY created_at, id

-- name: key
SELECT id, name, digest, scopes, mandate, revoked_at IS NOT NULL FROM keys WHERE id = %(id)s

-- name: revoke_key
UPDATE keys SET revoked_at = coalesce(revoked_at, %(at)s::timestamptz) WHERE id = %(key)s OR name = %(key)s
RETURNING id

-- ---------------------------------------------------------------- what the app asks

-- name: decided
SELECT body, digest FROM journal WHERE kind = 'proposal' AND proposal_id = ANY(%(ids)s::uuid[])
ORDER BY seq DESC LIMIT %(limit)s

-- name: balances_as_of
-- What is there now, less what came after an entry: only those entries are looked at.
SELECT a.key, b.resource, (b.amount - coalesce(m.amount, 0)) * ('1e' || r.scale)::numeric
FROM unnest(%(actors)s::uuid[], %(resources)s::text[]) AS asked (actor, resource)
JOIN balances AS b ON b.actor = asked.actor AND b.resource = asked.resource
JOIN actors AS a ON a.id = b.actor
JOIN resources AS r ON r.name = b.resource
LEFT JOIN (
    SELECT x.actor, x.resource, sum(x.amount) AS amount
    FROM (
        SELECT actor_to AS actor, resource, amount FROM ledger
        WHERE id > %(after)s AND actor_to = ANY(%(actors)s::uuid[])
        UNION ALL
        SELECT actor_from, resource, -amount FROM ledger
        WHERE id > %(after)s AND actor_from = ANY(%(actors)s::uuid[])
    ) AS x
    GROUP BY x.actor, x.resource
) AS m ON m.actor = b.actor AND m.resource = b.resource

-- name: moved_between
SELECT l.seq, f.key, t.key, l.resource, l.amount * ('1e' || r.scale)::numeric
FROM ledger AS l
JOIN actors AS f ON f.id = l.actor_from
JOIN actors AS t ON t.id = l.actor_to
JOIN resources AS r ON r.name = l.resource
WHERE l.id > %(after)s AND l.id <= %(until)s
AND (l.actor_from = ANY(%(actors)s::uuid[]) OR l.actor_to = ANY(%(actors)s::uuid[]))
ORDER BY l.id DESC

-- name: outbox_lag
SELECT count(*) FROM (SELECT seq FROM outbox ORDER BY seq LIMIT %(most)s) AS found

-- ---------------------------------------------------------------- shadows, and requests that were handed out

-- name: shadows_lock
SELECT pg_advisory_xact_lock('shadows'::regclass::oid::bigint)

-- name: last_shadow
SELECT id, digest FROM shadows ORDER BY id DESC LIMIT 1

-- name: shadow
SELECT
    id, proposal_id::text, epoch, proposer, n, seq, (extract(epoch FROM at) * 1000000)::bigint, body, prompt, model,
    request_key, seen, exchange, digest
FROM shadows WHERE proposal_id = %(proposal_id)s::uuid

-- name: shadows_of
SELECT
    id, proposal_id::text, epoch, proposer, n, seq, (extract(epoch FROM at) * 1000000)::bigint, body, prompt, model,
    request_key, seen, exchange, digest
FROM shadows WHERE proposal_id = ANY(%(ids)s::uuid[]) ORDER BY id DESC LIMIT %(limit)s

-- name: shadows_page
SELECT
    id, proposal_id::text, epoch, proposer, n, seq, (extract(epoch FROM at) * 1000000)::bigint, body, prompt, model,
    request_key, seen, exchange, digest
FROM shadows
WHERE id > %(after)s
AND (%(outcome)s::text IS NULL OR body::json ->> 'outcome' = %(outcome)s)
AND (%(proposer)s::text IS NULL OR proposer = %(proposer)s)
AND (%(epoch)s::integer IS NULL OR epoch = %(epoch)s)
ORDER BY id LIMIT %(limit)s

-- name: add_shadow
INSERT INTO shadows (
    id, proposal_id, epoch, proposer, n, seq, at, body, prompt, model, request_key, seen, exchange, digest
)
VALUES (
    %(id)s, %(proposal_id)s, %(epoch)s, %(proposer)s, %(n)s, %(seq)s, %(at)s::timestamptz, %(body)s, %(prompt)s,
    %(model)s, %(request_key)s, %(seen)s, %(exchange)s, %(digest)s
)

-- name: add_request
INSERT INTO requests (request_key, at, body, about, digest)
VALUES (%(request_key)s, %(at)s::timestamptz, %(body)s, %(about)s, %(digest)s)
ON CONFLICT (request_key) DO NOTHING

-- name: request
SELECT body, about FROM requests WHERE request_key = %(request_key)s

-- name: holds_at
-- What was held after a record: what was settled later counts, what was held later does not.
SELECT j.body, j.digest FROM journal AS j
WHERE j.kind = 'proposal' AND j.outcome = 'held' AND j.seq <= %(until)s
AND NOT EXISTS (
    SELECT FROM journal AS s WHERE s.kind = 'settlement' AND s.proposal_id = j.proposal_id AND s.seq <= %(until)s
)
ORDER BY j.seq

-- name: balances_then
-- What is there now, less what came after an entry, and whether anything did.
SELECT a.key, b.resource, (b.amount - coalesce(m.amount, 0)) * ('1e' || r.scale)::numeric, m.actor IS NOT NULL
FROM balances AS b
JOIN actors AS a ON a.id = b.actor
JOIN resources AS r ON r.name = b.resource
LEFT JOIN (
    SELECT x.actor, x.resource, sum(x.amount) AS amount
    FROM (
        SELECT actor_to AS actor, resource, amount FROM ledger WHERE id > %(after)s
        UNION ALL
        SELECT actor_from, resource, -amount FROM ledger WHERE id > %(after)s
    ) AS x
    GROUP BY x.actor, x.resource
) AS m ON m.actor = b.actor AND m.resource = b.resource

-- name: used_before
-- One scan of the ledger: asked only about what is at 0 then, was never declared, and moved later.
SELECT p.actor::text, p.resource
FROM unnest(%(actors)s::uuid[], %(resources)s::text[]) AS p (actor, resource)
WHERE EXISTS (
    SELECT FROM ledger AS l
    WHERE l.id <= %(until)s AND l.resource = p.resource AND (l.actor_from = p.actor OR l.actor_to = p.actor)
)

-- name: sent_between
SELECT a.key, s.resource, s.amount * ('1e' || r.scale)::numeric
FROM (
    SELECT actor_from, resource, sum(amount) AS amount FROM ledger
    WHERE id > %(after)s AND id <= %(until)s AND kind = 'transfer' GROUP BY actor_from, resource
) AS s
JOIN actors AS a ON a.id = s.actor_from JOIN resources AS r ON r.name = s.resource

-- name: seq_shown
-- The first record after which so many entries, these constraints and this epoch were what there was.
SELECT greatest(
    %(constraints_seq)s,
    CASE WHEN %(entries)s = 0 THEN 1 ELSE (SELECT l.seq FROM ledger AS l WHERE l.id = %(entries)s) END,
    CASE
        WHEN %(epoch)s = 1 THEN 1
        ELSE (SELECT j.seq FROM journal AS j WHERE j.kind = 'close' AND j.epoch = %(epoch)s - 1)
    END
)
WHERE (%(entries)s = 0 OR EXISTS (SELECT FROM ledger AS l WHERE l.id = %(entries)s))
AND (%(epoch)s = 1 OR EXISTS (SELECT FROM journal AS j WHERE j.kind = 'close' AND j.epoch = %(epoch)s - 1))
AND EXISTS (SELECT FROM journal AS j WHERE j.seq = %(constraints_seq)s)

-- name: close_before
SELECT body, digest FROM journal WHERE kind = 'close' AND seq <= %(until)s ORDER BY seq DESC LIMIT 1

-- ---------------------------------------------------------------- a grid as a history: read as a whole, and checked

-- name: unhurried
-- Who reads a whole history may stop in mid-transaction: it holds no lock.
SELECT set_config('idle_in_transaction_session_timeout', '0', false)

-- name: kept_journal
SELECT
    seq, epoch, kind, trim_scale(extract(epoch FROM at) * 1000000)::text AS at, proposal_id::text, outcome,
    request_id::text
FROM journal WHERE seq > %(after)s AND seq <= %(until)s ORDER BY seq LIMIT %(limit)s

-- name: kept_ledger
SELECT
    id, proposal_id::text, actor_from::text, actor_to::text, resource, trim_scale(amount)::text AS amount,
    trim_scale(extract(epoch FROM executed_at) * 1000000)::text AS executed_at, metadata::text AS metadata, seq, epoch, kind
FROM ledger WHERE id > %(after)s AND id <= %(until)s ORDER BY id LIMIT %(limit)s

-- name: kept_actors
SELECT id::text, key, type, seq FROM actors

-- name: kept_resources
SELECT name, unit, scale FROM resources

-- name: kept_balances
SELECT actor::text, resource, trim_scale(amount)::text AS amount FROM balances

-- name: kept_interactions
-- With the record that decided the proposal that each was for, or the row of the shadow.
SELECT
    i.id, i.proposal_id::text, i.request_key, trim_scale(extract(epoch FROM i.at) * 1000000)::text AS at, i.request,
    i.status, i.body, i.about, i.usage, i.latency_ms, i.digest, j.seq, j.body AS decision,
    s.id AS shadow, s.epoch AS shadow_epoch, s.body AS shadowed, s.exchange
FROM interactions AS i
LEFT JOIN journal AS j ON j.kind = 'proposal' AND j.proposal_id = i.proposal_id
LEFT JOIN shadows AS s ON s.proposal_id = i.proposal_id
WHERE i.id > %(after)s ORDER BY i.id LIMIT %(limit)s

-- name: interactions_of
SELECT
    i.id, i.proposal_id::text, i.request_key, trim_scale(extract(epoch FROM i.at) * 1000000)::text AS at, i.request,
    i.status, i.body, i.about, i.usage, i.latency_ms, i.digest, j.seq, j.body AS decision,
    s.id AS shadow, s.epoch AS shadow_epoch, s.body AS shadowed, s.exchange
FROM interactions AS i
LEFT JOIN journal AS j ON j.kind = 'proposal' AND j.proposal_id = i.proposal_id
LEFT JOIN shadows AS s ON s.proposal_id = i.proposal_id
WHERE i.proposal_id = %(proposal_id)s::uuid ORDER BY i.id DESC LIMIT 1

-- name: replies_of
-- What there is to say about the last exchange for each of these proposals.
SELECT DISTINCT ON (proposal_id) proposal_id::text, about
FROM interactions WHERE proposal_id = ANY (%(ids)s::uuid[]) ORDER BY proposal_id, id DESC

-- name: kept_shadows
SELECT
    id, proposal_id::text, epoch, proposer, n, seq, trim_scale(extract(epoch FROM at) * 1000000)::text AS at, body, prompt,
    model, request_key, seen, exchange, digest, exchange IS NULL OR EXISTS (
        SELECT FROM interactions AS i WHERE i.proposal_id = shadows.proposal_id AND i.digest = exchange
    ) AS whole
FROM shadows WHERE id > %(after)s ORDER BY id LIMIT %(limit)s

-- name: judged_shadows
-- In the order of the records after which they were judged.
SELECT
    id, proposal_id::text, epoch, proposer, n, seq, trim_scale(extract(epoch FROM at) * 1000000)::text AS at, body, prompt,
    model, request_key, seen, exchange, digest
FROM shadows WHERE (seq, id) > (%(seq)s, %(after)s) ORDER BY seq, id LIMIT %(limit)s

-- name: shadow_said
SELECT epoch, body FROM shadows WHERE proposal_id::text = %(proposal_id)s

-- name: count_shadows
SELECT count(*) FROM shadows

-- name: shadow_proposers
SELECT DISTINCT proposer FROM shadows ORDER BY proposer

-- name: kept_requests
SELECT
    request_key, trim_scale(extract(epoch FROM at) * 1000000)::text AS at, body, about, digest
FROM requests WHERE request_key > %(after)s ORDER BY request_key LIMIT %(limit)s

-- name: count_interactions
SELECT count(*), count(*) FILTER (WHERE about LIKE '%"origin":"synthetic"%') FROM interactions

-- name: known_actors
-- The records that say who and what there is.
SELECT body, digest FROM journal WHERE kind IN ('genesis', 'registration') ORDER BY seq

-- name: guards
SELECT
    c.relname, t.tgname, t.tgenabled::text, t.tgtype, t.tgqual IS NULL AND t.tgattr = '' AS always,
    p.proname, p.pronamespace = c.relnamespace AS own, p.prosrc
FROM pg_catalog.pg_trigger AS t
JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
WHERE t.tgrelid IN ('journal'::regclass, 'ledger'::regclass, 'shadows'::regclass, 'requests'::regclass)
AND NOT t.tgisinternal

-- name: privileges
-- Who may do what: of a whole table, or of any column of it.
SELECT r.role, c.relname, p.privilege
FROM pg_catalog.pg_class AS c
CROSS JOIN unnest(ARRAY['gridgov_app', 'gridgov_read']) AS r (role)
CROSS JOIN unnest(
    ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']
) AS p (privilege)
WHERE c.relnamespace = (SELECT j.relnamespace FROM pg_catalog.pg_class AS j WHERE j.oid = 'journal'::regclass)
AND c.relkind IN ('r', 'v', 'm', 'p')
AND CASE
    WHEN p.privilege IN ('DELETE', 'TRUNCATE', 'TRIGGER') THEN has_table_privilege(r.role, c.oid, p.privilege)
    ELSE has_any_column_privilege(r.role, c.oid, p.privilege)
END

-- name: stream_ledger
-- Resources by their place in order of name, from 1; an amount beyond its scale, in minor units, is NULL.
SELECT
    id, proposal_id::text AS proposal_id, actor_from::text AS actor_from, actor_to::text AS actor_to, place,
    CASE
        WHEN scale(trim_scale(amount)) <= (ARRAY(SELECT r.scale FROM resources AS r ORDER BY r.name COLLATE "C"))[place]
        THEN amount * (ARRAY(SELECT ('1e' || r.scale)::numeric FROM resources AS r ORDER BY r.name COLLATE "C"))[place]
    END::bigint AS minor,
    executed_at, metadata::text AS metadata, epoch, kind, seq
FROM (
    SELECT
        *, array_position(ARRAY(SELECT r.name FROM resources AS r ORDER BY r.name COLLATE "C"), resource) AS place
    FROM ledger WHERE id <= current_setting('gridgov.entries')::bigint
) AS l
ORDER BY id

-- name: stream_journal
SELECT seq, epoch, kind, at, body, encode(digest, 'hex') AS digest
FROM journal WHERE seq <= current_setting('gridgov.seq')::bigint ORDER BY seq

-- name: stream_session
-- For a session whose COPYs cannot take parameters: how far they go is set beforehand.
SELECT
    set_config('role', $1, false), set_config('search_path', quote_ident($2) || ', pg_temp', false),
    set_config('timezone', 'UTC', false), set_config('client_encoding', 'UTF8', false),
    set_config('gridgov.seq', $3, false), set_config('gridgov.entries', $4, false)

-- ---------------------------------------------------------------- the server

-- name: server
SELECT current_setting('server_version_num')::integer AS version, clock_timestamp() AS now

-- name: activations
SELECT body, digest FROM journal WHERE kind = 'activation' ORDER BY seq

-- name: writable
SELECT
    NOT pg_is_in_recovery() AND NOT current_setting('transaction_read_only')::boolean
    AND has_table_privilege('gridgov_app', 'journal', 'INSERT')
    AND has_table_privilege('gridgov_app', 'ledger', 'INSERT') AS writable

-- name: last_exchange
SELECT last_value FROM interactions_id_seq

-- ---------------------------------------------------------------- what a person looks at

-- name: last_seq
SELECT coalesce(max(seq), 0) AS seq FROM journal

-- name: record_before
-- The last record before a time, 0 where there is none. Numbers have no gaps and times never go back, so it is looked
-- for by halves: twenty-three rows of five million, and no index of times.
WITH RECURSIVE search AS (
    SELECT 0::bigint AS low, (SELECT coalesce(max(seq), 0) + 1 FROM journal) AS high
    UNION ALL
    SELECT
        CASE WHEN m.at < %(at)s::timestamptz THEN m.seq ELSE s.low END,
        CASE WHEN m.at < %(at)s::timestamptz THEN s.high ELSE m.seq END
    FROM search AS s
    CROSS JOIN LATERAL (SELECT j.seq, j.at FROM journal AS j WHERE j.seq = (s.low + s.high) / 2) AS m
    WHERE s.high - s.low > 1
)
SELECT max(low) AS seq FROM search

-- name: entry_before
-- The last entry that a record or those before it made, 0 where there is none: looked for by halves, as above.
WITH RECURSIVE search AS (
    SELECT 0::bigint AS low, (SELECT coalesce(max(id), 0) + 1 FROM ledger) AS high
    UNION ALL
    SELECT
        CASE WHEN m.seq <= %(seq)s THEN m.id ELSE s.low END,
        CASE WHEN m.seq <= %(seq)s THEN s.high ELSE m.id END
    FROM search AS s
    CROSS JOIN LATERAL (SELECT l.id, l.seq FROM ledger AS l WHERE l.id = (s.low + s.high) / 2) AS m
    WHERE s.high - s.low > 1
)
SELECT max(low) AS id FROM search

-- name: moment_of
SELECT at, digest FROM journal WHERE seq = %(seq)s

-- name: tallied
-- How many records of which kind came to what, by step of so many seconds; of a hold, what it was settled to.
SELECT
    date_bin(make_interval(secs => %(step)s), j.at, 'epoch'::timestamptz) AS at, j.kind,
    CASE
        WHEN j.kind = 'proposal' AND j.outcome = 'held' THEN coalesce(
            (SELECT s.outcome FROM journal AS s WHERE s.kind = 'settlement' AND s.proposal_id = j.proposal_id), 'held'
        )
        ELSE j.outcome
    END AS outcome,
    count(*) AS count
FROM journal AS j
WHERE j.seq > %(after)s AND j.seq <= %(until)s
GROUP BY 1, 2, 3

-- name: refused_codes
-- How many of the last refusals broke each rule. As in `tallied`, a hold that was refused in the end counts when it
-- was proposed.
SELECT v.found ->> 'code' AS code, count(DISTINCT r.seq) AS count
FROM (
    (
        SELECT seq, body FROM journal
        WHERE kind = 'proposal' AND outcome = 'rejected' AND seq > %(after)s AND seq <= %(until)s
        ORDER BY seq DESC LIMIT %(most)s
    )
    UNION ALL
    (
        SELECT j.seq, s.body FROM journal AS j
        INNER JOIN journal AS s ON s.kind = 'settlement' AND s.proposal_id = j.proposal_id AND s.outcome = 'rejected'
        WHERE j.kind = 'proposal' AND j.outcome = 'held' AND j.seq > %(after)s AND j.seq <= %(until)s
        ORDER BY j.seq DESC LIMIT %(most)s
    )
    ORDER BY seq DESC LIMIT %(most)s
) AS r
CROSS JOIN LATERAL json_array_elements(r.body::json -> 'payload' -> 'violations') AS v (found)
GROUP BY 1
ORDER BY 2 DESC, 1

-- name: held_now
SELECT seq, epoch, at, body, digest FROM holds ORDER BY seq LIMIT %(most)s

-- name: last_constraints
SELECT body, digest FROM journal WHERE kind IN ('constraints', 'genesis') AND kind <> 'proposal' ORDER BY seq DESC LIMIT 1

-- name: paused_since
-- The first pause since the last time that it was resumed; none while it runs.
SELECT body, digest FROM journal
WHERE kind = 'control' AND seq > (
    SELECT coalesce(max(c.seq), 0) FROM journal AS c
    WHERE c.kind = 'control' AND c.body::json -> 'payload' ->> 'paused' = 'false'
)
ORDER BY seq LIMIT 1

-- name: last_decision
SELECT seq, at, proposal_id::text AS proposal_id, outcome FROM journal WHERE kind = 'proposal' ORDER BY seq DESC LIMIT 1

-- name: oldest_waiting
SELECT seq, at FROM outbox ORDER BY seq LIMIT 1

-- name: sums
-- Of each resource: how many but the boundary have a balance, what they have, and what the boundary has.
SELECT
    r.name AS resource, r.unit, r.scale, count(a.id) AS actors,
    coalesce(sum(b.amount) FILTER (WHERE a.id IS NOT NULL), 0) AS total,
    coalesce(sum(b.amount) FILTER (WHERE a.id IS NULL), 0) AS boundary
FROM resources AS r
LEFT JOIN balances AS b ON b.resource = r.name
LEFT JOIN actors AS a ON a.id = b.actor AND a.type <> 'boundary'
GROUP BY r.name, r.unit, r.scale

-- name: changed_since
-- By how much each balance changed since an entry: the boundary's, and of every resource those that changed most.
SELECT c.actor, c.resource, c.change, c.amount, c.boundary
FROM (
    SELECT
        a.key AS actor, m.resource, m.change, b.amount, a.type = 'boundary' AS boundary,
        row_number() OVER (PARTITION BY m.resource, a.type = 'boundary' ORDER BY abs(m.change) DESC, a.key) AS place
    FROM (
        SELECT x.actor, x.resource, sum(x.amount) AS change
        FROM (
            SELECT actor_to AS actor, resource, amount FROM ledger WHERE id > %(after)s
            UNION ALL
            SELECT actor_from, resource, -amount FROM ledger WHERE id > %(after)s
        ) AS x
        GROUP BY x.actor, x.resource
    ) AS m
    JOIN actors AS a ON a.id = m.actor
    JOIN balances AS b ON b.actor = m.actor AND b.resource = m.resource
    WHERE m.change <> 0
) AS c
WHERE c.place <= %(most)s
ORDER BY c.place, c.resource

-- name: transferred_since
SELECT resource, sum(amount) AS amount FROM ledger WHERE id > %(after)s AND kind = 'transfer' GROUP BY resource

-- name: balances_of
SELECT r.name AS resource, r.unit, r.scale, coalesce(b.amount, 0) AS amount
FROM resources AS r LEFT JOIN balances AS b ON b.resource = r.name AND b.actor = %(actor)s::uuid

-- name: actor_named
SELECT key, type FROM actors WHERE id = %(actor)s::uuid

-- name: moved_of
-- What came to an actor and what left it since an entry: by kind, of executed proposals by whom, and whether it was
-- after the end of the time that is asked for.
SELECT
    s.resource, s.kind, s.came, o.key AS other, s.later, s.amount, s.count
FROM (
    SELECT
        l.resource, l.kind, l.actor_to = %(actor)s::uuid AS came,
        CASE WHEN l.actor_to = %(actor)s::uuid THEN l.actor_from ELSE l.actor_to END AS other,
        l.id > %(until)s AS later, sum(l.amount) AS amount, count(*) AS count
    FROM ledger AS l
    WHERE l.id > %(after)s AND (l.actor_from = %(actor)s::uuid OR l.actor_to = %(actor)s::uuid)
    GROUP BY 1, 2, 3, 4, 5
) AS s
LEFT JOIN actors AS o ON o.id = s.other

-- name: readings_of
-- What meters read of an actor in records, in minor units, by resource and kind of flow.
SELECT
    r.found ->> 1 AS resource, j.body::json -> 'payload' ->> 'kind' AS kind,
    sum((r.found ->> 2)::numeric)::text AS requested, sum((r.found ->> 3)::numeric)::text AS applied
FROM journal AS j
CROSS JOIN LATERAL json_array_elements(j.body::json -> 'payload' -> 'readings') AS r (found)
WHERE j.kind = 'flow' AND j.kind <> 'proposal' AND j.seq > %(after)s AND j.seq <= %(until)s
AND r.found ->> 0 = %(actor)s
GROUP BY 1, 2

-- name: balance_steps
-- By how much a balance moved in each step in which it did, and when last.
SELECT
    max(executed_at) AS at, sum(CASE WHEN actor_to = %(actor)s::uuid THEN amount ELSE -amount END) AS change
FROM ledger
WHERE id > %(after)s AND id <= %(until)s AND resource = %(resource)s
AND (actor_from = %(actor)s::uuid OR actor_to = %(actor)s::uuid)
GROUP BY date_bin(make_interval(secs => %(step)s), executed_at, 'epoch'::timestamptz)
ORDER BY 1

-- name: count_calls
SELECT count(*) AS calls FROM interactions

-- name: calls
-- The last exchanges with models, the newest first, and what came of the round that each was for; `broken` is the body of
-- a decision that names broken rules.
SELECT
    i.proposal_id::text AS proposal_id, i.at, i.usage, i.latency_ms, a.prompt, a.model_asked, a.model_answered, a.origin,
    a.seen, a.components ->> 'prompt' AS digest, d.outcome, d.broken,
    s.epoch AS shadow_epoch, s.proposer AS shadow, s.n AS shadow_n, s.body AS shadowed, s.seen AS shadow_seen
FROM (SELECT * FROM interactions ORDER BY id DESC LIMIT %(most)s) AS i
CROSS JOIN LATERAL json_to_record(i.about::json) AS a (
    prompt text, model_asked text, model_answered text, origin text, seen text, components json
)
LEFT JOIN LATERAL (
    SELECT
        CASE WHEN j.body NOT LIKE '%%"violations":[]%%' THEN j.body END AS broken,
        CASE
            WHEN j.outcome = 'held' THEN coalesce(
                (SELECT e.outcome FROM journal AS e WHERE e.kind = 'settlement' AND e.proposal_id = j.proposal_id),
                'held'
            )
            ELSE j.outcome
        END AS outcome
    FROM journal AS j WHERE j.kind = 'proposal' AND j.proposal_id = i.proposal_id LIMIT 1
) AS d ON true
LEFT JOIN LATERAL (SELECT * FROM shadows AS h WHERE h.proposal_id = i.proposal_id LIMIT 1) AS s ON true
ORDER BY i.id DESC

-- name: final_outcomes
SELECT
    j.proposal_id::text AS proposal_id,
    CASE
        WHEN j.outcome = 'held' THEN coalesce(
            (SELECT e.outcome FROM journal AS e WHERE e.kind = 'settlement' AND e.proposal_id = j.proposal_id), 'held'
        )
        ELSE j.outcome
    END AS outcome,
    (j.body::json -> 'payload' -> 'transfers')::text AS transfers
FROM journal AS j WHERE j.kind = 'proposal' AND j.proposal_id = ANY(%(ids)s::uuid[])

-- name: reversals_of
-- The records that took some of these entries back.
SELECT body, digest FROM journal
WHERE kind = 'reversal' AND kind <> 'proposal' AND outcome = 'executed' AND seq = ANY(%(seqs)s::bigint[]) ORDER BY seq

-- name: acked
SELECT reference, acked_at FROM outbox_acks WHERE seq = %(seq)s
