"""What the environment may set, read in this one place; nothing else reads the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Settings(NamedTuple):
    """The settings in force; the README has the same table."""

    runs: Path
    """`GRIDGOV_RUNS`: the folder of the run store."""

    home: Path
    """`GRIDGOV_HOME`: the folder of the Postgres of our own."""

    database_url: str | None
    """`GRIDGOV_DATABASE_URL`: the Postgres of the grid; None means one of our own, see `embedded`."""

    grid: str
    """`GRIDGOV_GRID`: the schema of the grid in it."""

    api_url: str
    """`GRIDGOV_API_URL`: where the app is called."""

    api_key: str | None
    """`GRIDGOV_API_KEY`: the key that it is called with."""

    public_url: str | None
    """`GRIDGOV_PUBLIC_URL`: where people open what a link names; None is where the app is called."""

    gemini_api_key: str | None
    """`GEMINI_API_KEY`: the key that Gemini is asked with."""

    gemini_base_url: str | None
    """`GRIDGOV_GEMINI_BASE_URL`: where Gemini is asked; None is at Google."""

    n8n: Path
    """`GRIDGOV_N8N`: where `make n8n` installs n8n, outside of the project."""

    linear_url: str | None
    """`GRIDGOV_LINEAR_URL`: where Linear's GraphQL API is called; None is at Linear."""

    linear_api_key: str | None
    """`LINEAR_API_KEY`: the key that Linear is called with."""

    webhook_token: str | None
    """`GRIDGOV_WEBHOOK_TOKEN`: what whoever starts n8n's loop from outside has to know."""

    meter_secret: str | None
    """`GRIDGOV_METER_SECRET`: what meters sign their readings with."""

    prices: Path | None
    """`GRIDGOV_PRICES`: a table of prices in place of the project's, see `gemini.prices`."""


def _home(data: str | None) -> Path:
    """Where a user's data go; root's server runs as another user, who cannot enter root's home."""
    if os.geteuid() == 0:
        return Path("/var/lib/gridgov")
    return (Path(data) if data else Path.home() / ".local" / "share") / "gridgov"


def _cache(cache: str | None) -> Path:
    """Where a user's caches go."""
    return Path(cache) if cache else Path.home() / ".cache"


def load() -> Settings:
    """The settings of this process's environment."""
    given = os.environ.get
    return Settings(
        runs=Path(given("GRIDGOV_RUNS") or "runs"),
        home=Path(given("GRIDGOV_HOME") or _home(given("XDG_DATA_HOME"))),
        database_url=given("GRIDGOV_DATABASE_URL") or None,
        grid=given("GRIDGOV_GRID") or "main",
        api_url=(given("GRIDGOV_API_URL") or "http://127.0.0.1:8080").rstrip("/"),
        api_key=given("GRIDGOV_API_KEY") or None,
        public_url=(given("GRIDGOV_PUBLIC_URL") or "").rstrip("/") or None,
        gemini_api_key=given("GEMINI_API_KEY") or None,
        gemini_base_url=given("GRIDGOV_GEMINI_BASE_URL") or None,
        n8n=Path(given("GRIDGOV_N8N") or _cache(given("XDG_CACHE_HOME")) / "gridgov" / "n8n-2.41.1"),
        linear_url=given("GRIDGOV_LINEAR_URL") or None,
        linear_api_key=given("LINEAR_API_KEY") or None,
        webhook_token=given("GRIDGOV_WEBHOOK_TOKEN") or None,
        meter_secret=given("GRIDGOV_METER_SECRET") or None,
        prices=None if not (prices := given("GRIDGOV_PRICES")) else Path(prices),
    )
