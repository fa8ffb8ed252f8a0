-- What is asked of a grid, by name. %(names)s are parameters, and $1 where rows are written; the grid's schema is first
-- in the search path.

-- ---------------------------------------------------------------- sessions and migrations

-- name: session
SELECT
    set_config('search_path', quote_ident(%(grid)s) || ', pg_temp', false),
    set_config('timezone', 'UTC', false),
    set_config('bytea_output', 'hex', false),
    set_config('idle_in_transaction_session_timeout', %(idle)s, false),
    -- What is acknowledged must be on disk, even where the server was set to promise less.
    set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), false)

-- name: role
SELECT set_config('role', %(role)s, false)

-- name: applied
SELECT name, digest FROM meta

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
    applied_at timestamptz NOT NULL
);
COMMENT ON TABLE meta IS 'One row for each migration that was applied';
COMMENT ON COLUMN meta.name IS 'Its file, without the ending';
COMMENT ON COLUMN meta.digest IS 'sha256 of the file';
COMMENT ON COLUMN meta.applied_at IS 'When';

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
INSERT INTO meta (name, digest, applied_at) VALUES (%(name)s, %(digest)s, clock_timestamp())

-- ---------------------------------------------------------------- one batch

-- name: begin
-- Three statements, so that the head is read after the lock was given.
BEGIN;
SELECT pg_advisory_xact_lock('journal'::regclass::oid::bigint);
SELECT seq, digest FROM journal ORDER BY seq DESC LIMIT 1

-- name: tip
SELECT seq, digest FROM journal ORDER BY seq DESC LIMIT 1

-- name: snapshot
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY

-- name: commit
COMMIT

-- name: rollback
ROLLBACK

-- name: copy_journal
COPY journal (seq, epoch, kind, at, proposal_id, outcome, body, digest) FROM STDIN

-- name: copy_journal_and_ledger
COPY journal (seq, epoch, kind, at, proposal_id, outcome, body, digest) FROM STDIN;
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

-- name: decisions
SELECT proposal_id::text, body, digest FROM journal
WHERE kind = 'proposal' AND proposal_id = ANY(%(ids)s::uuid[])

-- name: digest_of
SELECT digest FROM journal WHERE seq = %(seq)s

-- ---------------------------------------------------------------- the journal and the ledger, in order

-- name: records
SELECT seq, body, digest FROM journal WHERE seq > %(after)s ORDER BY seq LIMIT %(limit)s

-- name: since
SELECT seq, body, digest FROM journal WHERE seq >= %(seq)s ORDER BY seq LIMIT %(limit)s

-- name: entries
SELECT
    l.id, l.proposal_id::text, f.key, t.key, l.resource, l.amount * ('1e' || r.scale)::numeric,
    (extract(epoch FROM l.executed_at) * 1000000)::bigint, l.seq, l.epoch, l.kind
FROM ledger AS l
LEFT JOIN actors AS f ON f.id = l.actor_from
LEFT JOIN actors AS t ON t.id = l.actor_to
LEFT JOIN resources AS r ON r.name = l.resource
WHERE l.id > %(after)s ORDER BY l.id LIMIT %(limit)s

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
SELECT coalesce(max(id), 0) FROM ledger

-- name: standing
-- The records that still say something, in order: who there is, what is in force, what is needed, what is held.
SELECT body, digest FROM (
    SELECT seq, body, digest FROM journal WHERE kind = 'genesis'
    UNION ALL
    SELECT seq, body, digest FROM journal WHERE kind = 'registration' AND seq <= %(until)s
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
    count(*) FILTER (WHERE outcome <> 'unavailable'),
    count(*) FILTER (WHERE seq > (SELECT coalesce(max(seq), 0) FROM trail WHERE outcome <> 'unavailable'))
FROM trail

-- name: balances
SELECT a.key, b.resource, b.amount * ('1e' || r.scale)::numeric
FROM balances AS b JOIN actors AS a ON a.id = b.actor JOIN resources AS r ON r.name = b.resource

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
