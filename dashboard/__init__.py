"""The dashboard: pages over production, by the API alone, and over runs, from their files."""
