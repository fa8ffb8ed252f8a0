"""Grid Governance Engine: an AI proposes, deterministic code decides, an append-only ledger remembers."""

__version__ = "0.1.0"
