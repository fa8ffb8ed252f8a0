"""The command line for tests, in this process and as a `gridgov up` of its own: `pytest_plugins = ["tests.commands"]`.

PYTEST_DONT_REWRITE: a test module may import this one before pytest does.
"""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from gridgov import cli

pytest_plugins = ["tests.databases"]

ROOT = Path(__file__).parent.parent
GRIDGOV = [sys.executable, "-c", "from gridgov.cli import main; main()"]
GIFT = {"transfers": [{"from": "actor-1", "to": "actor-2", "resource": "energy", "amount": 12.5}], "reasoning": "share"}
ID = "11111111-1111-4111-8111-111111111111"


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Said]


@pytest.fixture
def gridgov(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs one command in this process, with a run store of its own."""
    monkeypatch.setenv("GRIDGOV_RUNS", str(tmp_path / "runs"))

    def run(*args: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["gridgov", *map(str, args)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run


def one_line(said: Said, code: int) -> str:
    """The error of a command that failed as it should: one line, no traceback."""
    assert said.code == code, said
    assert said.err.count("\n") == 1 and "Traceback" not in said.err, said.err
    return str(said.err)


@pytest.fixture
def home(place, postgres, monkeypatch):
    """Where the Postgres of our own is for this test."""
    monkeypatch.setenv("GRIDGOV_HOME", str(place))
    monkeypatch.setenv("GRIDGOV_RUNS", str(place / "runs"))
    return place


class Up:
    """A `gridgov up` that runs: its address and what it printed."""

    def __init__(self, process, lines):
        self.process, self.lines = process, lines
        self.url = re.search(r"^app +(\S+)", "\n".join(lines), re.M)[1]
        found = re.search(r"^key +(gridgov_\S+)", "\n".join(lines), re.M)
        self.key = found and found[1]

    def client(self, key=None):
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {key or self.key}"}, timeout=30)

    def propose(self, key=None, proposal_id=ID, proposal=None):
        with self.client(key) as client:
            return client.post("/v1/proposals", json={"proposal_id": proposal_id, "proposal": proposal or GIFT})


@contextmanager
def up(*options):
    """Runs `gridgov up` until the end of the block, and then as Ctrl-C ends it; no dashboard unless asked for."""
    pages = () if "--dashboard-port" in options else ("--no-dashboard",)
    process = subprocess.Popen(
        [*GRIDGOV, "up", "--port", "0", *pages, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    lines = []
    try:
        while not lines or not lines[-1].startswith("app"):
            line = process.stdout.readline()
            assert line, process.stderr.read()
            lines.append(line.rstrip())
        yield Up(process, lines)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
            assert process.returncode == 0, err
            assert out.splitlines()[-1] == "stopped"
            assert "Traceback" not in err
    finally:
        process.kill()
        process.communicate()
