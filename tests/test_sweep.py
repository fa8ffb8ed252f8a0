"""Many runs: the same digests whoever plays them, resumed after any end, in one file that every command reads."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from gridgov.errors import BadInput
from sim import collect
from sim.live import paced
from sim.parts import Cell, Job, work
from sim.stubs.gemini import Stub
from sim.sweep import Plan, Workers, checked, seeds_of, shard_of, sweep, varied
from tests.commands import one_line
from tests.plays import SCENARIOS, play

pytest_plugins = ["tests.commands"]

DROUGHT = SCENARIOS / "drought.yaml"
WEEK = SCENARIOS / "community-week.yaml"


def job(path=DROUGHT, epochs=6):
    return Job(path.read_text("utf-8"), str(path), epochs, "", "", 0)


def heads(swept):
    return [one.head for one in swept.runs]


# --- which runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("k=a,b,c", ["a", "b", "c"]),
        ("k=5", ["5"]),
        ('k="a,b",c', ['"a,b"', "c"]),
        ("k={p: 1, q: 2},3", ["{p: 1, q: 2}", "3"]),
        ("k=[1,2]", ["[1,2]"]),
        ("k=[1,2],[3]", ["[1,2]", "[3]"]),
    ],
)
def test_values_are_split_at_commas_outside_quotes_and_brackets(text, values):
    assert varied(text) == ("k", values)


@pytest.mark.parametrize("text", ["k", "=1", "k=", "k=1,,2", "k=[1,2", 'k="a', "k=1,1"])
def test_refuses_a_list_of_values_that_is_none(text):
    with pytest.raises(BadInput, match="--set"):
        varied(text)


def test_seeds_end_before_the_last_number():
    assert seeds_of("0:20") == list(range(20))
    assert seeds_of("7") == [7]
    assert seeds_of("1,4:6") == [1, 4, 5]
    for text in ("", "5:5", "a", "3:1", "1,1", "-1"):
        with pytest.raises(BadInput, match="--seeds"):
            seeds_of(text)


def test_lists_are_multiplied_and_paired_only_when_asked():
    sets = [("a", ["1", "2"]), ("b", ["3", "4"])]
    assert len(Plan(sets, [0, 1], ["x", "y"]).cells()) == 16
    assert Plan(sets, zipped=True).settings() == [("a=1", "b=3"), ("a=2", "b=4")]
    with pytest.raises(BadInput, match="a has 2, b has 3"):
        Plan([("a", ["1", "2"]), ("b", ["3", "4", "5"])], zipped=True).settings()


def test_shards_are_all_runs_each_once():
    plan = Plan([], range(10), ["x", "y", "z"])
    parts = [plan._replace(shard=shard_of(f"{i}/4")).cells() for i in range(1, 5)]
    assert sorted(cell for part in parts for cell in part) == plan.cells()
    assert {len(part) for part in parts} <= {7, 8}
    for text in ("0/4", "5/4", "3", "a/b"):
        with pytest.raises(BadInput, match="--shard"):
            shard_of(text)


def test_refuses_replicates_of_what_a_seed_controls():
    with pytest.raises(BadInput, match="the same runs again"):
        checked(job(), Plan(replicates=3))


@pytest.mark.parametrize(
    "plan",
    [
        Plan([("seed", ["1", "2"])], [1]),
        Plan([("a", ["1"]), ("a", ["2"])]),
        Plan([("constraints.max_transferr", ["1", "2"])]),
        Plan([("constraints.max_transfer", ["1", "2"])], zipped=True),
        Plan(proposers=["policy:gredy"]),
    ],
)
def test_refuses_at_once_what_could_never_run(plan):
    with pytest.raises(BadInput):
        checked(job(), plan)


# --- digests ----------------------------------------------------------------------------------------------------------


def test_one_worker_and_two_come_to_the_digests_of_single_runs(tmp_path):
    plan = Plan([("constraints.hold_epochs", ["1", "3"])], [0, 1, 2], ["policy:greedy", "policy:random"])
    one = sweep(job(), plan.cells(), tmp_path / "one", Workers(1))
    two = sweep(job(), plan.cells(), tmp_path / "two", Workers(2))
    assert heads(one) == heads(two) and len(set(heads(one))) == one.distinct == 12
    assert one.path.name == two.path.name == f"{one.sweep_id}.duckdb"
    sets = ["constraints.hold_epochs=1", "seed=0"]
    assert heads(one)[1] == play("drought", *sets, proposer="policy:random", epochs=6).head_digest
    stored = [{run.run_id: run.head for run in collect.ended(swept.path)} for swept in (one, two)]
    assert stored[0] == stored[1] == {run.run_id: run.head for run in one.runs}
    assert not (tmp_path / "one" / ".parts").exists()


@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None and os.environ.get("CI") != "true", reason="Ray is an extra: make extras"
)
def test_ray_comes_to_the_same_digests(tmp_path):
    cells = Plan(seeds=[0, 1, 2]).cells()
    one = sweep(job(), cells, tmp_path / "one", Workers(1))
    assert heads(sweep(job(), cells, tmp_path / "ray", Workers(ray=""))) == heads(one)


def test_says_how_to_install_ray(gridgov, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install gridgov[ray]" in one_line(gridgov("sweep", DROUGHT, "--seeds", "0:2", "--ray"), 2)


def test_every_table_is_that_of_a_single_export(gridgov, tmp_path):
    alone = gridgov("run", WEEK, "--epochs", 20, "--out", tmp_path / "alone", "--json").json
    said = gridgov("sweep", WEEK, "--epochs", 20, "--jobs", 1, "--out", tmp_path / "many", "--json").json
    assert [run["run_id"] for run in said["runs"]] == [alone["run_id"]]
    one, many = (duckdb.connect(str(path), read_only=True) for path in (alone["export"], said["export"]))
    tables = [name for (name,) in one.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
    for table in tables:
        free = {"runs": "EXCLUDE (started_at, seconds)", "seals": "EXCLUDE (digest)"}.get(table, "")
        sql = f"SELECT * {free} FROM {table} ORDER BY ALL"
        assert many.execute(sql).fetchall() == one.execute(sql).fetchall(), table
    one.close()
    many.close()


def test_every_command_reads_a_run_of_the_file(gridgov, tmp_path):
    said = gridgov("sweep", DROUGHT, "--seeds", "0:2", "--epochs", 60, "--jobs", 1, "--out", tmp_path, "--json").json
    source = f"{said['export']}#{said['runs'][1]['run_id']}"
    assert gridgov("verify", source, "--json").json["passed"]
    assert gridgov("replay", source, "--json").json["epoch"] == 61
    gridgov("sweep", DROUGHT, "--seeds", "0:2", "--epochs", 5, "--jobs", 1)
    [listed] = gridgov("runs", "--json").json
    assert listed["runs"] == 2 and listed["failed"] == 0 and "error" not in listed
    assert "2 runs" in gridgov("runs").out
    assert gridgov("diff", source, f"{said['export']}#{said['runs'][0]['run_id']}", "--json").code == 0


# --- what is there already --------------------------------------------------------------------------------------------


def test_second_time_plays_nothing_and_more_seeds_only_those(gridgov, tmp_path):
    first = gridgov("sweep", DROUGHT, "--seeds", "0:4", "--epochs", 5, "--jobs", 1, "--out", tmp_path, "--json").json
    before = Path(first["export"]).stat().st_mtime_ns
    again = gridgov("sweep", DROUGHT, "--seeds", "0:4", "--epochs", 5, "--jobs", 1, "--out", tmp_path, "--json").json
    assert again["known"] == 4 and again["export"] == first["export"]
    assert Path(first["export"]).stat().st_mtime_ns == before
    more = gridgov("sweep", DROUGHT, "--seeds", "0:6", "--epochs", 5, "--jobs", 1, "--out", tmp_path, "--json").json
    assert more["known"] == 4 and more["export"] != first["export"]
    assert [run["head_digest"] for run in more["runs"]][:4] == [run["head_digest"] for run in first["runs"]]


def test_failed_run_is_a_row_and_stops_no_other(gridgov, tmp_path):
    said = gridgov(
        *("sweep", DROUGHT, "--set", "constraints.max_transfer=50,-1", "--seeds", "0:2", "--epochs", 5),
        *("--jobs", 1, "--out", tmp_path, "--json"),
    )
    assert said.code == 1 and "2 of 4 runs failed" in said.err
    assert [run["status"] for run in said.json["runs"]] == ["complete", "complete", "failed", "failed"]
    with duckdb.connect(said.json["export"], read_only=True) as connection:
        rows = connection.execute("SELECT seed, error, head_digest FROM runs WHERE status = 'failed'").fetchall()
    assert [(seed, head) for seed, _, head in rows] == [(0, None), (1, None)]
    assert all("-1 is below 0" in error for _, error, _ in rows)


def test_cells_that_mean_the_same_are_one_run(tmp_path):
    swept = sweep(job(), Plan([("constraints.max_transfer", ["50", "50.0"])]).cells(), tmp_path, Workers(1))
    assert len(swept.runs) == 2 and swept.distinct == 1


def test_a_bug_in_one_run_is_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr("sim.parts.Runner.run", lambda self: 1 / 0)
    [one] = work(job()._replace(parts=str(tmp_path)), [Cell(0, (), 1, None)]).done
    assert "this is a bug in gridgov" in one.error


# --- shards -----------------------------------------------------------------------------------------------------------


def test_merged_shards_are_the_whole(gridgov, tmp_path):
    common = ("sweep", DROUGHT, "--seeds", "0:5", "--epochs", 5, "--jobs", 1, "--json")
    whole = gridgov(*common, "--out", tmp_path / "whole").json
    shards = [gridgov(*common, "--out", tmp_path / "s", "--shard", f"{i}/2").json["export"] for i in (1, 2)]
    out = tmp_path / "merged.duckdb"
    assert gridgov("merge", *shards, shards[0], "--out", out, "--json").json["runs"] == 5
    assert {(r.run_id, r.head) for r in collect.ended(out)} == {
        (run["run_id"], run["head_digest"]) for run in whole["runs"]
    }
    assert gridgov("verify", f"{out}#{whole['runs'][4]['run_id']}", "--json").json["passed"]


def test_merge_refuses_one_run_with_two_digests(gridgov, tmp_path):
    said = gridgov(
        "sweep", DROUGHT, "--seeds", "0:2", "--epochs", 5, "--jobs", 1, "--out", tmp_path / "a", "--json"
    ).json
    other = tmp_path / "b.duckdb"
    shutil.copy(said["export"], other)
    with duckdb.connect(str(other)) as connection:
        connection.execute("UPDATE runs SET head_digest = 'ff' || substr(head_digest, 3)")
    out = tmp_path / "merged.duckdb"
    assert "verify both" in one_line(gridgov("merge", said["export"], other, "--out", out), 2)
    assert not out.exists()


# --- live models ------------------------------------------------------------------------------------------------------


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setenv("GEMINI_API_KEY", "MARKED-0123456789-abcdefghijklmnop")
    with Stub() as stub:
        monkeypatch.setenv("GRIDGOV_GEMINI_BASE_URL", stub.url)
        yield stub


LIVE = ("sweep", WEEK, "--epochs", 3, "--proposer", "gemini:gemini-3.8-flash", "--replicates", 2, "--json")


def test_live_runs_share_a_budget_and_go_on_without_paying_twice(gridgov, stub, tmp_path):
    stopped = gridgov(*LIVE, "--out", tmp_path, "--max-calls", 4)
    assert "1 of 2 runs are left; start again to go on" in one_line(stopped, 3)
    assert stub.count == 4
    said = gridgov(*LIVE, "--out", tmp_path, "--max-calls", 4).json
    assert stub.count == 6 and said["known"] == 1 and said["distinct"] == 2
    assert len({run["head_digest"] for run in said["runs"]}) == 1  # the stub answers alike: two runs of one history
    assert gridgov(*LIVE, "--out", tmp_path).json["known"] == 2 and stub.count == 6


def test_live_runs_have_one_worker(gridgov, stub, tmp_path):
    assert "one worker" in one_line(gridgov(*LIVE, "--out", tmp_path, "--jobs", 2), 2)
    assert "none is asked" in one_line(gridgov("sweep", WEEK, "--rate", 5), 2)


def test_paced_asks_evenly():
    clock, asked = [0.0], []

    def sleep(seconds):
        clock[0] += seconds

    ask: Any = paced(lambda request: asked.append((request, clock[0])), 30, lambda: clock[0], sleep)
    for request in range(3):
        ask(request)
    clock[0] += 10
    ask(3)
    assert asked == [(0, 0.0), (1, 2.0), (2, 4.0), (3, 14.0)]
