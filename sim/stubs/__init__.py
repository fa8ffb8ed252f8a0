"""Stand-ins for the services that gridgov talks to, for tests and for trying things out."""
