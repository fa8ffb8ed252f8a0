-- Which making of actors, resources and balances is in force. {grid} is the schema, and first in the search path.

CREATE SEQUENCE generation MINVALUE 0 START 0;
COMMENT ON SEQUENCE generation IS 'Moves on when actors, resources and balances are made anew: who holds a state loads it';

GRANT SELECT ON generation TO gridgov_app, gridgov_read;
GRANT SELECT ON interactions_id_seq TO gridgov_read;
