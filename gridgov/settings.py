"""What the environment may set, read in this one place; nothing else reads the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Settings(NamedTuple):
    """The settings in force; the README has the same table."""

    runs: Path
    """`GRIDGOV_RUNS`: the folder of the run store."""

    database_url: str | None
    """`GRIDGOV_DATABASE_URL`: the Postgres of the grid; None means one of our own, see `embedded`."""

    grid: str
    """`GRIDGOV_GRID`: the schema of the grid in it."""

    api_url: str
    """`GRIDGOV_API_URL`: where the app is called."""

    api_key: str | None
    """`GRIDGOV_API_KEY`: the key that it is called with."""

    public_url: str
    """`GRIDGOV_PUBLIC_URL`: where people open what a link names."""


def load() -> Settings:
    """The settings of this process's environment."""
    given = os.environ.get
    api_url = (given("GRIDGOV_API_URL") or "http://127.0.0.1:8080").rstrip("/")
    return Settings(
        runs=Path(given("GRIDGOV_RUNS") or "runs"),
        database_url=given("GRIDGOV_DATABASE_URL") or None,
        grid=given("GRIDGOV_GRID") or "main",
        api_url=api_url,
        api_key=given("GRIDGOV_API_KEY") or None,
        public_url=(given("GRIDGOV_PUBLIC_URL") or api_url).rstrip("/"),
    )
