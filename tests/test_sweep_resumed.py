"""Sweeps that end before their time: their workers are gone, what they did is kept, and the next start goes on."""

import json
import os
import signal
import subprocess
import time

import pytest

from tests.commands import GRIDGOV
from tests.plays import SCENARIOS, play

pytest_plugins = ["tests.commands"]

DROUGHT = SCENARIOS / "drought.yaml"


def begun(out, count=40):
    """A sweep with two workers, once some of it is written down; its process leads a group of its own."""
    command = [*GRIDGOV, "sweep", str(DROUGHT), "--seeds", f"0:{count}", "--jobs", "2", "--out", str(out), "--json"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not list((out / ".parts").glob("[!.]*")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    return process


def gone(group):
    """Whether nobody of a process group is left, soon."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_goes_on_where_it_ended_and_its_workers_are_gone(gridgov, tmp_path, how):
    out = tmp_path / "out"
    process = begun(out)
    if how is signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does it: all of them hear it
    else:
        process.send_signal(how)
    _, err = process.communicate(timeout=30)
    assert gone(process.pid)
    assert list(out.glob("*.duckdb")) == []
    if how is signal.SIGINT:
        assert process.returncode == 130 and "Traceback" not in err, err
        assert "of 40 runs are done and kept; the same command goes on" in err
    done = {run for part in (out / ".parts").glob("[!.]*") for run in json.loads((part / "runs.json").read_text())}
    again = gridgov("sweep", DROUGHT, "--seeds", "0:40", "--jobs", 1, "--out", out, "--json").json
    assert again["known"] == len(done) > 0 and again["failed"] == 0
    whole = {run["run_id"]: run["head_digest"] for run in again["runs"]}
    some = sorted(done)[0]
    seed = next(run["seed"] for run in again["runs"] if run["run_id"] == some)
    assert whole[some] == play("drought", f"seed={seed}").head_digest
