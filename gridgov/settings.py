"""What the environment may set, read in this one place; nothing else reads the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Settings(NamedTuple):
    """The settings in force; the README has the same table."""

    runs: Path
    """`GRIDGOV_RUNS`: the folder of the run store."""


def load() -> Settings:
    """The settings of this process's environment."""
    return Settings(runs=Path(os.environ.get("GRIDGOV_RUNS") or "runs"))
