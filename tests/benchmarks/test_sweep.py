"""Many runs beside Mesa's `batch_run` of the same model; two workers beside one; memory over 2,000 runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mesa
import pytest

from sim.parts import Job
from sim.sweep import Plan, Swept, Workers, sweep
from tests.benchmarks.side_by_side import seconds
from tests.benchmarks.test_run import EPOCHS, SCENARIO, Exchange

RUNS = 20
SMALL = Path(__file__).parents[2] / "scenarios" / "drought.yaml"


class Seeded(Exchange):
    """The model of `test_run`, as `batch_run` wants it: it gives a seed to each run, and nothing is drawn from it."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()


def mesa_batch(processes: int) -> None:
    """`batch_run` of 20 runs; `max_steps` is one less, since it makes `max_steps + 1` steps."""
    mesa.batch_run(
        Seeded,
        parameters={"seed": range(RUNS)},
        number_processes=processes,
        max_steps=EPOCHS - 1,
        data_collection_period=1,
        display_progress=False,
    )


@pytest.mark.benchmark
def test_20_runs_beside_mesa_batch_run_and_two_workers_beside_one(tmp_path: Path) -> None:
    path = tmp_path / "benchmark.yaml"
    path.write_text(SCENARIO)
    job = Job(SCENARIO, str(path), None, "", "", 0)
    found: dict[int, Swept] = {}
    taken: dict[tuple[str, int], float] = {}
    for workers in (1, 2):

        def ours(workers: int = workers) -> None:
            found[workers] = sweep(job, Plan(seeds=range(RUNS)).cells(), tmp_path / str(workers), Workers(workers))

        taken["ours", workers] = seconds(ours)
        taken["mesa", workers] = seconds(lambda workers=workers: mesa_batch(workers))
    assert [one.head for one in found[1].runs] == [one.head for one in found[2].runs]
    for workers in (1, 2):
        ours_s, mesa_s = taken["ours", workers], taken["mesa", workers]
        print(
            f"\n20 runs x 1,000 epochs, {workers} worker(s), chained, one DuckDB file: {ours_s:.1f} s; Mesa's "
            f"batch_run with agent reporters, no ledger, rows in memory: {mesa_s:.1f} s; ratio {ours_s / mesa_s:.2f}"
        )
    print(
        f"two workers beside one: {taken['ours', 1] / taken['ours', 2]:.2f} times as fast; Mesa's: "
        f"{taken['mesa', 1] / taken['mesa', 2]:.2f} times"
    )


MEMORY = """
import sys
from pathlib import Path
from sim.parts import Job
from sim.sweep import Plan, Workers, sweep
path, out, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
job = Job(path.read_text("utf-8"), str(path), 5, "", "", 0)
swept = sweep(job, Plan(seeds=range(count)).cells(), out, Workers(1))
assert not swept.failed
status = Path("/proc/self/status").read_text()  # ru_maxrss would be that of whoever began this process
print(int(status.partition("VmHWM:")[2].split()[0]) / 1024, swept.seconds)
"""


@pytest.mark.benchmark
def test_2000_small_runs_take_the_memory_of_200(tmp_path: Path) -> None:
    figures = {}
    for count in (200, 2_000):
        command = [sys.executable, "-c", MEMORY, str(SMALL), str(tmp_path / str(count)), str(count)]
        said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=SMALL.parents[1])
        figures[count] = [float(figure) for figure in said.stdout.split()]
    for count, (memory, took) in figures.items():
        print(f"\n{count:,} runs of 5 epochs, one worker: {memory:.0f} MB at most, {took:.1f} s")
    assert figures[2_000][0] < 1.25 * figures[200][0]
