-- What shadows proposed, and the requests that were handed out. {grid} is the schema, and first in the search path.

CREATE TABLE shadows (
    proposal_id uuid PRIMARY KEY,
    id bigint NOT NULL UNIQUE,
    epoch integer NOT NULL,
    proposer text NOT NULL,
    n integer NOT NULL,
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    body text NOT NULL,
    prompt text NOT NULL,
    model text NOT NULL,
    request_key text NOT NULL,
    seen text NOT NULL,
    exchange bytea CHECK (octet_length(exchange) = 32),
    digest bytea NOT NULL CHECK (octet_length(digest) = 32)
);
CREATE INDEX shadows_seq ON shadows (seq, id);
COMMENT ON TABLE shadows IS 'One row for each round of a shadow: judged, and never applied';
COMMENT ON COLUMN shadows.proposal_id IS 'Id of the round, derived from epoch, proposer and n';
COMMENT ON COLUMN shadows.id IS 'Number of the row, from 1, without gaps, in order of commit';
COMMENT ON COLUMN shadows.epoch IS 'The epoch of the round';
COMMENT ON COLUMN shadows.proposer IS 'Name of the shadow: that of the proposer beside which it stands, and /shadow';
COMMENT ON COLUMN shadows.n IS 'Which round of this epoch, from 1';
COMMENT ON COLUMN shadows.seq IS 'It was judged on the state after this journal record: journal.seq';
COMMENT ON COLUMN shadows.at IS 'When it was judged';
COMMENT ON COLUMN shadows.body IS 'Canonical JSON of the decision, amounts in minor units; it made no entries';
COMMENT ON COLUMN shadows.prompt IS 'Name of the prompt that it was asked with; empty where nobody said';
COMMENT ON COLUMN shadows.model IS 'Model that was asked; empty where nobody said';
COMMENT ON COLUMN shadows.request_key IS 'The request that it answers: requests.request_key; empty where nobody said';
COMMENT ON COLUMN shadows.seen IS 'The world_state_digest of what it was shown; empty where nobody said';
COMMENT ON COLUMN shadows.exchange IS 'interactions.digest of the exchange that it came of; NULL where there was none';
COMMENT ON COLUMN shadows.digest IS 'sha256 over the digest of the row before and all other columns';

CREATE TABLE requests (
    request_key text PRIMARY KEY,
    at timestamptz NOT NULL,
    body bytea NOT NULL,
    about text NOT NULL,
    digest bytea NOT NULL CHECK (octet_length(digest) = 32)
);
COMMENT ON TABLE requests IS 'One row for each request to a model that was handed out';
COMMENT ON COLUMN requests.request_key IS 'Digest of what is asked; follows from body and about';
COMMENT ON COLUMN requests.at IS 'When it was first handed out';
COMMENT ON COLUMN requests.body IS 'Body of the request as it was rendered';
COMMENT ON COLUMN requests.about IS 'Canonical JSON: round, prompt, model, parameters, digests of the parts, what was seen';
COMMENT ON COLUMN requests.digest IS 'sha256 over all other columns';

-- ---------------------------------------------------------------- never changed, as the journal

CREATE TRIGGER shadows_row_stays BEFORE UPDATE OR DELETE ON shadows
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER shadows_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON shadows
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER requests_row_stays BEFORE UPDATE OR DELETE ON requests
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER requests_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON requests
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE shadows ENABLE ALWAYS TRIGGER shadows_row_stays;
ALTER TABLE shadows ENABLE ALWAYS TRIGGER shadows_stays;
ALTER TABLE requests ENABLE ALWAYS TRIGGER requests_row_stays;
ALTER TABLE requests ENABLE ALWAYS TRIGGER requests_stays;

GRANT SELECT ON shadows, requests TO gridgov_app, gridgov_read;
GRANT INSERT ON shadows, requests TO gridgov_app;
