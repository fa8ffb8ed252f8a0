"""What the pages of runs read: files as they are now, the figures of the commands, progress of other processes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from dashboard import beside, definitions, history, run_views, runs
from gridgov import progress
from gridgov.diff import diff
from gridgov.errors import BadInput, Damaged
from gridgov.explain import explain
from gridgov.export import metrics
from gridgov.source import open_source
from tests.stores import HOSTILE, played

pytest_plugins = ["tests.commands", "tests.stores"]

ROOT = Path(__file__).parent.parent
NOW = 1_800_000_000.0
NO_FILTER = dict.fromkeys(("outcome", "proposer", "first", "last", "code", "actor", "find"))


def every(store):
    """Every complete run of the store."""
    listed, left = runs.listing(store.folder, 1_000)
    assert left == 0
    return [
        runs.locate(store.folder, runs.named(found, row["run_id"]))
        for found in listed
        for row in found.runs
        if row["status"] != "failed"
    ]


def proposals(ref, **filters):
    fill = {"limit": 1_000, "offset": 0}
    return runs.rows(ref, "proposals_page", fill=fill, **{**NO_FILTER, **filters})


# --- figures are those of the commands --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "epochs"), [("week", (0, 1, 14, 40, 60)), ("fishery", (0, 1)), ("everything", (0, 1, 2))]
)
def test_balances_at_an_epoch_are_those_of_replay(store, gridgov, name, epochs):
    ref = runs.locate(store.folder, getattr(store, name))
    about = runs.about(ref)
    for epoch in epochs:
        found = run_views.balance_rows(runs.rows(ref, "balances_at", epoch=epoch), about)
        world = gridgov("replay", ref.file.path, "--epoch", epoch, "--json").json
        assert [row["actor"] for row in found] == [actor["id"] for actor in world["actors"]]
        for row, actor in zip(found, world["actors"], strict=True):
            assert {**dict.fromkeys(about.units, 0), **actor["balances"]} == {key: row[key] for key in about.units}


def test_story_of_every_proposal_is_that_of_explain(store):
    told = 0
    for ref in every(store):
        ids = [row["proposal_id"] for row in proposals(ref)]
        step = max(1, len(ids) // 12)
        with open_source(ref.source, store.folder) as source:
            for one in ids[::step] + ids[-2:]:
                assert history.story(ref, one) == explain(source, one), (ref.name, one)
                told += 1
    assert told > 100


def test_story_of_a_record_that_was_changed_is_refused(store, tmp_path):
    path = tmp_path / "x.duckdb"
    shutil.copy(store.folder / f"{store.week}.duckdb", path)
    with duckdb.connect(str(path)) as connection:
        ((seq, one),) = connection.execute(
            "SELECT seq, CAST(proposal_id AS VARCHAR) FROM proposals WHERE outcome = 'executed' LIMIT 1"
        ).fetchall()
        connection.execute(
            'UPDATE journal SET body = replace(body, \'"reasoning":"\', \'"reasoning":"x\') WHERE seq = ?', [seq]
        )
    with pytest.raises(Damaged, match=f"journal record {seq} does not follow"):
        history.story(runs.locate(tmp_path, "x.duckdb"), one)


def test_list_has_the_figures_of_the_metrics(store):
    listed, _ = runs.listing(store.folder, 1_000)
    seen = 0
    for found in listed:
        for row in found.runs:
            if row["status"] == "failed":
                continue
            known: dict = dict(metrics(Path(found.file.path), row["run_id"]))
            assert runs.accepted(row["counts"]) == known["acceptance_rate"]
            if row["needed"] is not None:
                assert row["served"] == pytest.approx(known["self_sufficiency"][row["needed"]])
                assert row["regret"] == pytest.approx(known["regret"][row["needed"]])
                seen += 1
    assert seen > 3


def test_every_metric_of_a_run_is_explained(store):
    for ref in every(store):
        for row in runs.rows(ref, "metrics"):
            assert definitions.METRICS[row["metric"]].means.endswith("."), row["metric"]


def test_filters_of_proposals_agree_with_what_they_say(store):
    ref = runs.locate(store.folder, store.everything)
    for row in proposals(ref):
        codes = [one["code"] for one in json.loads(row["violations"])]
        for filters in (
            {"outcome": row["outcome"]},
            {"proposer": row["proposer"], "first": row["epoch"], "last": row["epoch"]},
            {"find": row["proposal_id"][:8].upper()},
            *({"code": code} for code in codes),
        ):
            ids = [other["proposal_id"] for other in proposals(ref, **filters)]
            assert row["proposal_id"] in ids
            [count] = runs.rows(ref, "proposals_count", **{**NO_FILTER, **filters})
            assert count["count"] == len(ids)
    assert proposals(ref, find="nobody ever said this") == []


def test_flows_are_0_where_nothing_was(store):
    ref = runs.locate(store.folder, store.seed)
    found = runs.rows(ref, "flows_over", fill={"step": 1}, resource="energy")
    given_in = [row["epoch"] for row in found if row["what"] == "given"]
    assert given_in == list(range(1, runs.about(ref).epochs + 1))


@given(st.integers(0, 200_000), st.integers(1, 8))
def test_lines_never_have_more_points_than_a_chart_may(epochs, lines):
    wide = runs.step(epochs, lines)
    shown = len({*range(0, epochs + 1, wide), epochs})
    assert shown * lines <= runs.POINTS_MAX
    assert wide == 1 or (epochs + 2) * lines > runs.POINTS_MAX - lines, "no more is left out than must be"


def test_every_query_is_used():
    code = "".join(path.read_text("utf-8") for path in (ROOT / "dashboard").rglob("*.py"))
    for name in re.findall(r"^-- name: (\w+)", runs.SQL.read_text("utf-8"), re.M):
        stem = re.sub(r"_(count|page|where)$", "", name)
        assert f'"{name}"' in code or (stem != name and f'"{stem}"' in code), name


# --- files as they are ------------------------------------------------------------------------------------------------


def test_file_that_was_replaced_is_read_anew(store, tmp_path):
    path = tmp_path / "x.duckdb"
    shutil.copy(store.folder / f"{store.week}.duckdb", path)
    first = runs.locate(tmp_path, "x.duckdb")
    assert runs.about(first).info["scenario"] == "community-week"
    shutil.copy(store.folder / f"{store.seed}.duckdb", tmp_path / "new")
    (tmp_path / "new").replace(path)
    second = runs.locate(tmp_path, "x.duckdb")
    assert runs.about(second).info["scenario"] == "seed"
    assert runs.rows(second, "info")[0]["scenario"] == "seed"
    with pytest.raises(BadInput, match="replaced just now"):
        runs.rows(first, "resources")


def test_file_that_is_being_written_or_damaged_is_named_and_hides_no_other(store, tmp_path):
    for name in ("whole", "busy", "cut", "foreign"):
        shutil.copy(store.folder / f"{store.seed}.duckdb", tmp_path / f"{name}.duckdb")
    (tmp_path / "cut.duckdb").write_bytes((tmp_path / "cut.duckdb").read_bytes()[:5_000])
    (tmp_path / "foreign.duckdb").unlink()
    with duckdb.connect(str(tmp_path / "foreign.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    writer = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "busy.duckdb")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert writer.stdout.readline() == b"open\n"
        found = {one.name: one for one in runs.listing(tmp_path, 100)[0]}
    finally:
        writer.stdin.close()
        writer.wait()
        writer.stdout.close()
    assert found["whole.duckdb"].error == "" and len(found["whole.duckdb"].runs) == 1
    assert "somebody is writing it" in found["busy.duckdb"].error
    assert "damaged or cut off" in found["cut.duckdb"].error
    assert found["foreign.duckdb"].error


def test_open_run_can_still_be_published_again_and_deleted(store, gridgov, tmp_path):
    folder = tmp_path / "runs"
    said = gridgov("run", ROOT / "scenarios" / "seed.yaml", "--json").json
    ref = runs.locate(folder, said["run_id"])
    assert runs.rows(ref, "info")
    assert gridgov("run", ROOT / "scenarios" / "seed.yaml", "--json").json["run_id"] == said["run_id"]
    (folder / f"{said['run_id']}.duckdb").unlink()
    with pytest.raises(BadInput, match="no such run"):
        runs.locate(folder, said["run_id"])


def test_run_is_found_by_id_by_its_beginning_and_in_a_file_of_many(store):
    whole = runs.locate(store.folder, store.week)
    assert whole.run_id == store.week and whole.name == store.week
    assert runs.locate(store.folder, store.week[:7]).run_id == store.week
    many = runs.opened(store.folder, store.sweep)
    inside = next(row["run_id"] for row in many.runs if row["status"] == "complete")
    ref = runs.locate(store.folder, f"{store.sweep}/{inside}")
    assert ref.run_id == inside and ref.name == f"{store.sweep}/{inside}"
    assert runs.locate(store.folder, inside) == ref
    with pytest.raises(BadInput, match="choose one"):
        runs.locate(store.folder, store.sweep)
    with pytest.raises(BadInput, match="no such run"):
        runs.locate(store.folder, "fedcba9876543210")
    with pytest.raises(BadInput, match="first 4 characters"):
        runs.locate(store.folder, store.week[:2])


@pytest.mark.parametrize("name", ["../x.duckdb", "{tmp}/x.duckdb", "many/../../x.duckdb", "link.duckdb", "*", "many/*"])
def test_name_leads_out_of_no_folder(store, tmp_path, name):
    shutil.copy(store.folder / f"{store.seed}.duckdb", tmp_path / "x.duckdb")
    folder = tmp_path / "runs"
    (folder / "many").mkdir(parents=True)
    (folder / "link.duckdb").symlink_to(tmp_path / "x.duckdb")
    for find in (runs.locate, runs.opened):
        with pytest.raises(BadInput):
            find(folder, name.format(tmp=tmp_path))


def test_only_so_many_files_are_read_at_once(store, tmp_path):
    for n in range(5):
        shutil.copy(store.folder / f"{store.seed}.duckdb", tmp_path / f"{n}.duckdb")
    found, left = runs.listing(tmp_path, 2)
    assert (len(found), left) == (2, 3)
    found, left = runs.listing(tmp_path, 2)
    assert (len(found), left) == (4, 1)


# --- runs beside runs -------------------------------------------------------------------------------------------------


def test_sweep_has_a_mean_for_each_side_and_value(store):
    found = runs.opened(store.folder, store.sweep)
    assert sum(row["status"] == "failed" for row in found.runs) == 12
    swept = beside.swept(found.file)
    assert swept.keys["constraints.max_transfer.water"] == ("10", "40")
    assert swept.sides == ("greedy", "none")
    metric = ("self_sufficiency", "water")
    shown = beside.curves(found.file, "constraints.max_transfer.water", metric, (), 1_000)
    assert shown.numeric and len(shown.points) == len(swept.rows) == 24
    for mean in shown.means:
        own = [p["value"] for p in shown.points if (p["x"], p["side"]) == (mean["x"], mean["side"])]
        assert mean["n"] == len(own) == 6 and mean["mean"] == pytest.approx(sum(own) / 6)
        assert max(own) == min(own) if mean["low"] is None else mean["low"] <= mean["mean"] <= mean["high"]
    [held] = {
        m["n"] for m in beside.curves(found.file, "seed", metric, (("constraints.max_transfer.water", "10"),), 9).means
    }
    assert held == 1
    few = beside.curves(found.file, "constraints.max_transfer.water", metric, (), 10)
    assert len(few.points) <= 10 and few.left_out == 24 - len(few.points) and few.means == shown.means


def test_where_two_runs_part_is_what_diff_says(store):
    a, b = (runs.locate(store.folder, name) for name in (store.week, store.none))
    with open_source(a.source, store.folder) as one, open_source(b.source, store.folder) as other:
        assert beside.parted(a, b) == diff(one, other)
    assert beside.parted(a, a).identical


# --- under way --------------------------------------------------------------------------------------------------------

SAID = {"kind": "run", "scenario": "seed", "seed": 1, "proposers": "planner", "what": "epochs"}


def test_progress_is_told_now_and_then_and_taken_away(tmp_path):
    clock = iter([NOW, NOW, NOW + 0.1, NOW + 1, NOW + 2]).__next__
    with progress.Telling(tmp_path, "abc", 10, SAID, clock) as told:
        assert [one.done for one in progress.read(tmp_path, NOW)] == [0]
        told.tell(3)
        assert [one.done for one in progress.read(tmp_path, NOW)] == [0], "too soon"
        told.tell(5, 2)
        [one] = progress.read(tmp_path, NOW + 1)
        assert (one.name, one.done, one.total, one.failed, one.alive) == ("abc", 5, 10, 2, True)
        assert one.left_s == pytest.approx(1.0)
    assert list(tmp_path.iterdir()) == []


def test_progress_is_taken_away_after_a_failure_too(tmp_path):
    with pytest.raises(ZeroDivisionError), progress.Telling(tmp_path, "abc", 10, SAID, lambda: NOW):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_progress_never_makes_a_folder_and_needs_none(tmp_path):
    with progress.Telling(tmp_path / "none", "abc", 10, SAID, lambda: NOW) as told:
        told.tell(1)
    assert list(tmp_path.iterdir()) == []


def test_progress_of_a_killed_process_says_so(tmp_path):
    code = (
        "import os, signal, sys, time; from pathlib import Path; from gridgov.progress import Telling\n"
        "with Telling(Path(sys.argv[1]), 'abc', 10, {'kind': 'sweep'}, time.time):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    [one] = progress.read(tmp_path, NOW)
    assert one.name == "abc" and not one.alive


def test_progress_of_another_machine_is_believed_for_a_while(tmp_path):
    said = {**SAID, "host": "elsewhere", "pid": 1, "started_at": NOW, "updated_at": NOW, "done": 1, "total": 2}
    (tmp_path / "abc.progress.json").write_text(json.dumps(said))
    assert progress.read(tmp_path, NOW + 60)[0].alive
    assert not progress.read(tmp_path, NOW + 3_600)[0].alive


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": "x", "host": 1}', "\udcff", "x" * 70_000])
def test_file_that_says_no_progress_is_left_out(tmp_path, text):
    (tmp_path / "abc.progress.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert progress.read(tmp_path, NOW) == []


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("run", "community-week.yaml", "--epochs", "30"), ("run", "community-week", "1", "planner", "epochs", 30)),
        (
            ("sweep", "drought.yaml", "--epochs", "3", "--seeds", "0:3", "--jobs", "1"),
            ("sweep", "drought", "3 seeds", "as written", "runs", 3),
        ),
    ],
)
def test_command_says_how_far_it_has_come(gridgov, tmp_path, monkeypatch, command, expected):
    folder, seen = tmp_path / "runs", []
    folder.mkdir()
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    tell = progress.Telling.tell

    def telling(self, done, failed=0):
        tell(self, done, failed)
        seen.extend(progress.read(folder, 0.0))

    monkeypatch.setattr(progress.Telling, "tell", telling)
    name, scenario, *rest = command
    said = gridgov(name, ROOT / "scenarios" / scenario, *rest, "--json")
    assert said.code == 0, said
    kinds = {(one.kind, one.scenario, one.seed, one.proposers, one.what, one.total) for one in seen}
    assert kinds == {expected}
    assert [one.done for one in seen] == sorted(one.done for one in seen) and seen[-1].done == expected[-1]
    assert progress.read(folder, 0.0) == [], "it is taken away"
    if name == "run":
        assert {one.name for one in seen} == {said.json["run_id"]}, "the file has the name of the run"


# --- pages, without a browser -----------------------------------------------------------------------------------------


def page(monkeypatch, folder, name, **params):
    """A page of the dashboard over a folder of runs, drawn once."""
    monkeypatch.setenv("GRIDGOV_RUNS", str(folder))
    code = f"from dashboard.pages import {name}\n{name}.show()"
    found = AppTest.from_string(code, default_timeout=120)
    for key, value in params.items():
        found.query_params[key] = value
    found.run()
    assert [one.value for one in found.exception] == []
    return found


def said(found):
    """All texts of a page."""
    parts = [*found.markdown, *found.caption, *found.text, *found.info, *found.warning, *found.error, *found.code]
    return "\n".join(str(one.value) for one in [*parts, *found.subheader, *found.success])


VIEWS = ["Overview", "Who gave to whom", "Proposals", "Ledger", "Journal", "Model calls", "Metrics", "Scenario"]


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_of_every_run_is_drawn(store, monkeypatch, view):
    some = [runs.locate(store.folder, name) for name in (store.everything, store.week, store.evil, store.fishery)]
    for ref in some:
        found = page(monkeypatch, store.folder, "run", run=ref.name, view=view)
        assert "cannot be shown" not in said(found), (ref.name, view)


def test_list_says_what_was_changed_in_each_run(store, monkeypatch):
    rows = page(monkeypatch, store.folder, "runs").dataframe[0].value.to_dict("records")
    assert {row["changed"] for row in rows if row["scenario"] == "by-hand"} == {"constraints.max_transfer=45"}
    assert {row["changed"] for row in rows if row["scenario"] == "seed"} == {""}


def test_slider_shows_another_epoch(store, monkeypatch):
    found = page(monkeypatch, store.folder, "run", run=store.week, epoch="14")
    assert "Epoch 14 closed" in said(found)
    found.slider[0].set_value(40).run()
    assert "Epoch 40 closed" in said(found)


def test_run_that_failed_is_shown_with_its_error(store, monkeypatch):
    many = runs.opened(store.folder, store.sweep)
    failed = next(row for row in many.runs if row["status"] == "failed")
    found = page(monkeypatch, store.folder, "run", run=f"{store.sweep}/{failed['run_id']}")
    assert "This run failed" in found.error[0].value and "nonsense" in found.error[0].value
    listed = page(monkeypatch, store.folder, "sweeps", file=store.sweep)
    assert "12 runs failed" in said(listed)


def test_run_under_way_shows_how_far_it_has_come(store, monkeypatch, tmp_path):
    with progress.Telling(tmp_path, "fedcba9876543210", 100, SAID, lambda: NOW):
        found = page(monkeypatch, tmp_path, "run", run="fedcba9876543210")
        assert "as soon as it is complete" in said(found)
        assert "There is no such run" not in said(found)
        page(monkeypatch, tmp_path, "runs")
        page(monkeypatch, tmp_path, "sweeps")


@pytest.mark.parametrize("name", ["runs", "run", "compare", "sweeps"])
def test_empty_store_says_what_to_type(monkeypatch, tmp_path, name):
    assert "gridgov " in said(page(monkeypatch, tmp_path / "nothing", name))


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("run", {"run": "fedcba9876543210"}),
        ("run", {"run": "../../etc/passwd.duckdb"}),
        ("run", {"run": "x", "epoch": "-5", "view": "Nothing"}),
        ("compare", {"runs": "fedcba9876543210,,x"}),
        ("sweeps", {"file": "../x.duckdb"}),
        ("sweeps", {"file": "x"}),
    ],
)
def test_address_of_nothing_says_so(store, monkeypatch, name, params):
    found = page(monkeypatch, store.folder, name, **params)
    assert "cannot be shown" in said(found)


def test_compare_sets_no_regret_beside_another_ones_best(store, monkeypatch, tmp_path):
    other = played("community-week", tmp_path, "constraints.epoch_quota.energy=0.3", epochs=24)
    same = played("community-week", tmp_path, epochs=24)
    none = played("community-week", tmp_path, epochs=24, proposer="policy:none")
    for chosen, comparable in ((f"{same},{other}", False), (f"{same},{none}", True)):
        found = page(monkeypatch, tmp_path, "compare", runs=chosen)
        [row] = [row for row in found.dataframe[0].value.to_dict("records") if row["metric"] == "regret"]
        assert (row["better"] == "lower") is comparable
        assert ("Not comparable" in row["means"]) is not comparable


def test_compare_shows_where_two_part_and_the_statistics(store, monkeypatch):
    found = page(monkeypatch, store.folder, "compare", runs=f"{store.week},{store.none}")
    assert "They part at record" in said(found) and "Compared: `proposers`" in said(found)
    same = page(monkeypatch, store.folder, "compare", runs=f"{store.week},{store.week[:9]}")
    assert "Choose another run" in said(same)
    many = page(monkeypatch, store.folder, "compare", runs=store.sweep)
    assert "12 runs failed and are left out" in said(many)


def test_untrusted_text_is_no_markdown(store, monkeypatch):
    ref = runs.locate(store.folder, store.evil)
    one = proposals(ref, outcome="executed")[0]["proposal_id"]
    found = page(monkeypatch, store.folder, "run", run=store.evil, view="Proposals", proposal=one)
    assert HOSTILE in [block.value for block in found.code]
    read = [*found.markdown, *found.caption, *found.info, *found.warning, *found.error]
    assert not [block.value for block in read if "**bold**" in str(block.value)]


def test_process_that_reads_runs_writes_nothing(store):
    before = {path: path.stat().st_mtime_ns for path in store.folder.rglob("*")}
    for ref in every(store)[:3]:
        runs.rows(ref, "metrics")
    assert {path: path.stat().st_mtime_ns for path in store.folder.rglob("*")} == before
    assert not os.path.exists(".tmp")
