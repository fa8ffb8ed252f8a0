"""A run is made again from its export alone; where it is not the same, what changed is named."""

import json
from hashlib import sha256

import duckdb
import pytest

from sim import launch, reproduce
from sim.stubs.gemini import Stub
from tests import worlds
from tests.commands import one_line
from tests.plays import SCENARIOS

pytest_plugins = ["tests.commands"]

RUNS: dict[str, tuple] = {
    "seed": ("seed",),
    "overrides, seed and horizon": (
        "drought", "--set", "constraints.max_transfer=60", "--seed", "5", "--epochs", "30", "--set", "holds=approve"),
    "a cassette of failures": ("hostile",),
    "a cassette instead": ("hostile", "--proposer", f"cassette:{SCENARIOS / 'cassettes' / 'hostile.jsonl'}"),
    "a random policy": ("commons-fishery", "--set", "proposers.fisher.policy=take_max", "--set",
                        "decisions={order: simultaneous, allocation: random}"),
    "data and a plan": ("community-week", "--epochs", "6", "--proposer", "policy:optimal"),
}  # fmt: skip


def run(gridgov, name, *options):
    said = gridgov("run", SCENARIOS / f"{name}.yaml", *options, "--json")
    assert said.json, said
    return said.json


def edit(path, sql, *values):
    with duckdb.connect(str(path)) as connection:
        return connection.execute(sql, values).fetchall()


@pytest.mark.parametrize("name", RUNS)
def test_run_is_the_same_again_from_its_export_alone(gridgov, tmp_path, monkeypatch, name):
    made = run(gridgov, *RUNS[name])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*"))
    said = gridgov("reproduce", made["run_id"][:8])
    assert said.code == 0, said
    assert f"same head digest {made['head_digest']}" in said.out
    assert sorted(tmp_path.rglob("*")) == before, "it leaves nothing"
    told = gridgov("reproduce", made["export"], "--json").json
    assert (told["same"], told["inputs"], told["parting"]) == (True, [], None)
    assert told["records"] == told["same_records"] > 0


def test_run_of_a_sweep_and_a_fork_are_the_same_again(gridgov, tmp_path):
    swept = gridgov("sweep", SCENARIOS / "drought.yaml", "--seeds", "0:2", "--epochs", "20", "--jobs", "1", "--json")
    for one in swept.json["runs"]:
        told = gridgov("reproduce", f"{swept.json['export']}#{one['run_id']}", "--json").json
        assert told["same"] and told["found"] == one["head_digest"]
    assert "choose one as" in one_line(gridgov("reproduce", swept.json["export"]), 2)
    shadow = (
        "proposers=[{kind: policy, policy: greedy, context: {history: 3}}, {name: s, kind: policy, policy: random, "
        "role: shadow, context: {history: 5}}]"
    )
    parent = run(gridgov, "drought", "--epochs", "30", "--set", shadow)
    changes = ("--set", "constraints.max_transfer=60", "--proposer", "policy:random")
    first = gridgov("run", "--fork", f"{parent['run_id']}@12", *changes, "--json").json
    second = gridgov("run", "--fork", f"{first['run_id']}@20", "--set", "flows.demand.amount=80", "--json").json
    for parents in (parent, first):
        (tmp_path / "runs" / f"{parents['run_id']}.duckdb").unlink()
    told = gridgov("reproduce", second["run_id"], "--json").json
    assert told["same"] and told["fork"] == f"{first['run_id']}@20"
    assert told["found"] == second["head_digest"]


@pytest.fixture
def live(gridgov, monkeypatch):
    """A run that a live model answered, and its fork; nobody answers any more."""
    monkeypatch.setenv("GEMINI_API_KEY", "MARKED-0123456789-abcdefghijklmnop")
    model = ("--proposer", "gemini:gemini-3.8-flash")
    with Stub() as stub:
        monkeypatch.setenv("GRIDGOV_GEMINI_BASE_URL", stub.url)
        made = run(gridgov, "community-week", "--epochs", "6", *model)
        setting = ("--set", "constraints.max_transfer.energy=0.3")
        fork = gridgov("run", "--fork", f"{made['run_id']}@3", *setting, "--json").json
        assert stub.count == 9
    monkeypatch.delenv("GEMINI_API_KEY")
    monkeypatch.delenv("GRIDGOV_GEMINI_BASE_URL")
    return made, fork


def test_live_model_answers_what_it_said_then(gridgov, live):
    for made in live:
        told = gridgov("reproduce", made["run_id"], "--json").json
        assert told["same"] and told["found"] == made["head_digest"]


def test_reply_that_is_missing_is_named(gridgov, live):
    made, _ = live
    edit(made["export"], "DELETE FROM interactions WHERE epoch = 4")
    said = gridgov("reproduce", made["run_id"], "--json")
    assert said.code == 1 and said.err.count("\n") == 1
    assert "has no reply for epoch 4, planner, round 1: this round was not recorded" in said.json["failed"]
    parting = said.json["parting"]
    assert (parting["seq"], parting["a"]["epoch"], parting["b"]) == (said.json["same_records"] + 1, 4, None)
    edit(made["export"], "DELETE FROM interactions")
    said = gridgov("reproduce", made["run_id"])
    assert said.code == 1 and "holds no reply of gemini-3.8-flash" in said.err


def test_other_software_is_named(gridgov, live, monkeypatch):
    """What is another version now is said, whether or not it made a difference."""
    made, _ = live
    edit(made["export"], "UPDATE interactions SET prompt_digest = 'x'")
    monkeypatch.setattr(reproduce, "__version__", "9.9")
    told = gridgov("reproduce", made["run_id"], "--json").json
    assert told["same"]
    assert [(one["name"], one["was"]) for one in told["inputs"]] == [
        ("gridgov", "0.1.0"), ("prompt propose_transfer", "x")]  # fmt: skip
    planned = run(gridgov, *RUNS["data and a plan"])
    monkeypatch.setattr(reproduce, "solver", lambda: "0.0")
    told = gridgov("reproduce", planned["run_id"], "--json").json
    [solver] = [one for one in told["inputs"] if one["name"] == "the solver (scipy)"]
    assert (solver["was"], solver["now"]) == (launch.solver(), "0.0")


def test_file_that_is_not_what_it_was_is_named(gridgov):
    made = run(gridgov, "drought", "--epochs", "20")
    [(name, content)] = edit(made["export"], "SELECT name, content FROM files WHERE name LIKE 'scenario:%'")
    other = content.replace(b"amount: ", b"amount: 1", 1)
    assert other != content
    edit(made["export"], "UPDATE files SET content = ? WHERE name = ?", other, name)
    assert f"the file {name} in it is not what it was" in one_line(gridgov("reproduce", made["run_id"]), 1)
    edit(made["export"], "UPDATE files SET digest = ? WHERE name = ?", sha256(other).hexdigest(), name)
    said = gridgov("reproduce", made["run_id"], "--json")
    assert said.code == 1 and not said.json["same"]
    assert said.json["same_records"] == 0
    assert any(one["key"].startswith("flows") for one in said.json["set_up"])
    assert said.json["parting"]["seq"] > 1
    page = gridgov("reproduce", made["run_id"])
    assert f"recorded {made['head_digest']}" in page.out and said.json["set_up"][0]["key"] in page.err


def test_scenario_that_is_refused_now_is_no_crash(gridgov):
    made = run(gridgov, "seed")
    edit(made["export"], "UPDATE runs SET overrides = ?", json.dumps(["colour=x"]))
    said = gridgov("reproduce", made["run_id"])
    assert said.code == 1 and "--set colour=x" in said.err and said.err.count("\n") == 1


def test_changed_journal_is_not_called_the_same(gridgov):
    made = run(gridgov, "seed")
    edit(made["export"], "UPDATE journal SET body = replace(body, ':3}', ': 3}') WHERE seq = 3")
    assert "record 3" in one_line(gridgov("reproduce", made["run_id"]), 1)
    made = run(gridgov, "seed", "--seed", "2")
    edit(made["export"], "UPDATE runs SET head_digest = ?", "0" * 64)
    assert "is not runs.head_digest" in one_line(gridgov("reproduce", made["run_id"]), 1)


def test_only_what_was_played_is_played_again(gridgov, tmp_path):
    from gridgov.export import export

    made = run(gridgov, "seed")
    assert gridgov("export", made["run_id"], "--out", tmp_path / "x.jsonl").code == 0
    out = tmp_path / "other.duckdb"
    assert gridgov("whatif", made["run_id"], "--set", "constraints.max_transfer=45", "--out", out).code == 0
    by_hand = export(worlds.homes().run(), tmp_path)
    for source, says in (
        (tmp_path / "x.jsonl", "only a run can be made again"),
        (out, "name that run"),
        (by_hand, "holds no scenario"),
    ):
        assert says in one_line(gridgov("reproduce", source), 2)
