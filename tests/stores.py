"""A folder with real runs, for tests of the dashboard: made once for a module; no test lives here.

PYTEST_DONT_REWRITE: a test module may import this one before pytest does.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from gridgov.export import export
from sim.launch import launch
from sim.loading import load
from sim.parts import Job
from sim.sweep import Plan, Workers, sweep
from tests import worlds
from tests.plays import SCENARIOS

HOSTILE = "**bold** <script>alert(1)</script> [link](http://evil.example) $x^2$ :red[red] :smile: `code`"
"""What a model may give as its reasons."""


def played(name: str, folder: Path, *sets: str, **given) -> str:
    """Plays a scenario of the repository into a folder, and returns the run's id."""
    return launch(load(SCENARIOS / f"{name}.yaml", sets, **given), out=folder).summary.run_id


def hostile(folder: Path) -> str:
    """A run whose proposer's reasons are hostile."""
    lines = [
        {"epoch": 1, "transfers": [gift("actor-1", "actor-2", 5)], "reasoning": HOSTILE},
        {"epoch": 1, "transfers": [gift("actor-1", "actor-2", 500)], "reasoning": HOSTILE},
    ]
    path = folder / "hostile.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    run = played("seed", folder, proposer=f"fixture:{path}")
    path.unlink()
    return run


def gift(giver: str, taker: str, amount: float) -> dict:
    return {"from": giver, "to": taker, "resource": "energy", "amount": amount}


def swept(folder: Path) -> str:
    """A sweep over a limit, seeds and proposers, some of whose runs fail; returns its file's name."""
    path = SCENARIOS / "drought.yaml"
    job = Job(path.read_text("utf-8"), str(path), 12, "", "", 0)
    plan = Plan(
        [("constraints.max_transfer.water", ["10", "40", "nonsense"])], range(6), ["policy:greedy", "policy:none"]
    )
    return sweep(job, plan.cells(), folder, Workers(jobs=1)).path.name


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The folder, and the names of what is in it."""
    folder = tmp_path_factory.mktemp("store")
    (folder / "many").mkdir()
    return SimpleNamespace(
        folder=folder,
        seed=played("seed", folder),
        week=played("community-week", folder, epochs=60),
        none=played("community-week", folder, epochs=60, proposer="policy:none"),
        fishery=played("commons-fishery", folder, proposer="policy:take_max"),
        drought=played("drought", folder, epochs=40),
        evil=hostile(folder),
        everything=export(worlds.everything()[1], folder).stem,
        sweep="many/" + swept(folder / "many"),
    )
