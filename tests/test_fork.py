"""A fork goes on from another run's state: with nothing changed it is the same, else what was changed differs."""

import json
from dataclasses import replace

import duckdb
import numpy as np
import pytest

from gridgov.errors import BadInput, CassetteMiss, Damaged
from gridgov.export import export
from gridgov.journal import START, canonical, digest
from gridgov.replay import replay
from gridgov.source import open_source
from gridgov.verify import verify
from sim.bound import plan, problem_of
from sim.fork import forked, place, reopened
from sim.launch import launch
from sim.loading import load, loads
from sim.optimal import Problem, solve
from sim.reproduce import reproduce
from sim.scenario import Since
from sim.stubs.gemini import Stub
from sim.world import World
from tests import worlds
from tests.plays import SCENARIOS

pytest_plugins = ["tests.commands"]


@pytest.fixture
def fork(tmp_path):
    """Forks an export; the launched fork."""

    def made(path, epoch, *sets, **given):
        folder = tmp_path / "files"
        folder.mkdir(exist_ok=True)
        with open_source(str(path), tmp_path) as source:
            found = forked(source, epoch, folder, sets, **given)
        return launch(found.scenario, out=tmp_path / "forks", past=found.past)

    return made


def parent(tmp_path, name, *sets, **given):
    return launch(load(SCENARIOS / f"{name}.yaml", sets, **given), out=tmp_path / "parents")


def records(launched):
    return list(launched.result.engine.ledger.records())


def verified(path, folder):
    with open_source(str(path), folder) as source:
        report = verify(source)
    assert report.first is None
    return report


COLLAPSING = (
    "proposers.fisher={name: fisher, kind: policy, policy: take, amount: 14, actors: 'fisher-{n}', "
    "mandate: [self, lake]}"
)

PARENTS: dict[str, tuple] = {
    "seed": ("seed", [], {}, [0, 4]),
    "fishery": ("commons-fishery", [], {}, [0, 5]),
    "collapsing fishery": ("commons-fishery", [COLLAPSING], {}, [0, 1]),
    "holds that are approved": ("drought", [], {}, [0, 44, 46]),
    "holds that expire": ("drought", ["holds=expire"], {}, [47]),
    "a cassette of failures": ("hostile", [], {}, [0, 30]),
    "a policy instead": ("hostile", [], {"proposer": "policy:random"}, [7]),
    "another seed and horizon": ("drought", [], {"seed": 5, "epochs": 24}, [11]),
    "at random": ("commons-fishery", ["proposers.fisher.policy=take_max", "decisions={order: simultaneous, "
                  "allocation: random}", "commons.collapse_below=0"], {}, [3]),
}  # fmt: skip


@pytest.mark.parametrize("name", PARENTS)
def test_with_nothing_changed_a_fork_is_its_parent(fork, tmp_path, name):
    scenario, sets, given, epochs = PARENTS[name]
    played = parent(tmp_path, scenario, *sets, **given)
    for epoch in epochs:
        found = fork(played.summary.export, epoch)
        assert found.summary.head == played.summary.head
        assert found.summary.run_id != played.summary.run_id
        assert [r.digest for r in records(found)] == [r.digest for r in records(played)]
        verified(found.summary.export, tmp_path)
        with open_source(found.summary.export, tmp_path) as source:
            assert json.loads(source.info["overrides"]) == [f"fork={played.summary.run_id}@{epoch}", *sets]
            assert source.info["seed"] == played.summary.seed


def test_what_the_last_proposals_came_to_is_remembered(fork, tmp_path):
    """A recorded run whose prompts show history: asked the same, the cassette knows every answer."""
    tape = tmp_path / "tape.jsonl"
    sets = ["proposers=[{kind: policy, policy: greedy, context: {history: 3}}]", "holds=approve", "epochs=60"]
    launch(load(SCENARIOS / "drought.yaml", sets), out=tmp_path, record=tape)
    played = parent(tmp_path, "drought", *sets, proposer=f"cassette:{tape}")
    found = fork(played.summary.export, 50)
    assert found.summary.head == played.summary.head
    assert found.summary.fork == {
        "parent": played.summary.run_id, "epoch": 50, "same_requests": 10, "new_requests": 0,
    }  # fmt: skip
    with open_source(found.summary.export, tmp_path) as source:
        kept = list(source.named("interactions"))
    assert [row["epoch"] for row in kept] == list(range(1, 61))
    with pytest.raises(CassetteMiss, match="the constraints differ"):
        fork(played.summary.export, 50, "constraints.max_transfer=60")


def test_shadows_are_taken_over_with_what_they_remember(fork, tmp_path):
    shadow = (
        "proposers=[{kind: policy, policy: greedy, context: {history: 3}}, "
        "{name: s, kind: policy, policy: random, role: shadow, context: {history: 5}}]"
    )
    played = parent(tmp_path, "drought", shadow, epochs=30)
    found = fork(played.summary.export, 29)
    assert found.summary.head == played.summary.head
    assert found.result.shadows == played.result.shadows
    pasts = [[list(seat.history) for seat in one.result.seats] for one in (played, found)]
    assert pasts[0] == pasts[1]
    assert [len(past) for past in pasts[0]] == [3, 5]
    verified(found.summary.export, tmp_path)


def test_constraints_change_with_the_next_epoch_and_stay_changed(fork, tmp_path):
    """Half-way, on day 45, the drought's operator sets 110: what the fork sets holds before and after."""
    played = parent(tmp_path, "drought")
    found = fork(played.summary.export, 20, "constraints.max_transfer=60")
    one, other = records(played), records(found)
    close = next(i for i, r in enumerate(one) if r.kind == "close" and r.epoch == 20)
    assert [r.digest for r in one[: close + 1]] == [r.digest for r in other[: close + 1]]
    assert (other[close + 1].kind, other[close + 1].epoch) == ("constraints", 21)
    changes = [(r.epoch, r.payload.constraints.max_transfer.of("town-1", "water")) for r in other
               if r.kind == "constraints"]  # fmt: skip
    assert changes == [(21, 600), (45, 600)]
    assert found.summary.head != played.summary.head
    rivers = [[r.body.partition('"readings"')[2].partition("entry")[0] for r in some if r.kind == "flow"
               and r.payload.name == "river" and r.payload.kind == "produce"] for some in (one, other)]  # fmt: skip
    assert [len(some) for some in rivers] == [90, 90]
    verified(found.summary.export, tmp_path)


def test_flows_and_the_horizon_change_after_the_fork_alone(fork, tmp_path):
    played = parent(tmp_path, "drought", epochs=30)
    found = fork(played.summary.export, 10, "flows.river.amount=0", "flows.river.noise=null", "epochs=40")
    produced = [r.epoch for r in records(found) if r.kind == "flow" and r.payload.name == "river"]
    assert max(produced) == 10
    assert found.summary.epochs == 40
    longer = parent(tmp_path, "drought", epochs=40)
    assert fork(played.summary.export, 29, epochs=40).result.engine.state.balances == (
        longer.result.engine.state.balances
    )


def test_another_proposer_goes_on_under_its_name(fork, tmp_path):
    played = parent(tmp_path, "community-week", epochs=24)
    found = fork(played.summary.export, 12, proposer="policy:none")
    said = [(r.epoch, r.payload.outcome.value) for r in records(found) if r.kind == "proposal"]
    assert {outcome for epoch, outcome in said if epoch > 12} == {"noop"}
    assert {outcome for epoch, outcome in said if epoch <= 12} != {"noop"}
    assert found.summary.baselines["energy"].bound is None
    verified(found.summary.export, tmp_path)


def test_a_fork_is_made_again_from_its_export_alone_and_forked_in_turn(fork, tmp_path):
    played = parent(tmp_path, "drought")
    first = fork(played.summary.export, 20, "constraints.max_transfer=60", proposer="policy:random")
    again = fork(first.summary.export, 20)
    assert again.summary.head == first.summary.head
    second = fork(first.summary.export, 60, "constraints.max_transfer=50", "flows.demand.amount=80")
    limits = [(e, c.max_transfer.of("town-1", "water")) for e, c in second.result.scenario.constraints]
    assert limits == [(1, 1500), (21, 600), (45, 600), (61, 500)]
    assert fork(second.summary.export, 60).summary.head == second.summary.head
    assert fork(second.summary.export, 85).summary.head == second.summary.head


def test_prices_of_the_past_stay(fork, tmp_path):
    text = (SCENARIOS / "drought.yaml").read_text() + "\nprices: {water: {amount: 2}}\n"
    played = launch(loads(text, "x.yaml", lambda f: SCENARIOS / f, epochs=6), out=tmp_path)
    found = fork(played.summary.export, 4, "prices.water.amount=3")
    with open_source(found.summary.export, tmp_path) as source:
        assert [n for _, n in source.rows("prices")] == [2_000_000] * 4 + [3_000_000] * 2


def test_mandates_of_a_changed_proposer_are_registered(fork, tmp_path):
    played = parent(tmp_path, "drought", epochs=12)
    found = fork(played.summary.export, 6, "proposers=[{name: planner, kind: policy, policy: greedy, "
                 "actors: reservoir}, {kind: policy, policy: none}]")  # fmt: skip
    registered = [r for r in records(found) if r.kind == "registration"]
    assert [(r.epoch, r.payload.mandates) for r in registered] == [(7, {"planner/reservoir": ("reservoir",)})]
    verified(found.summary.export, tmp_path)


@pytest.mark.parametrize(
    ("epoch", "sets", "given", "says"),
    [
        (9, (), {}, "ends with epoch 9; choose an epoch from 0 to 8"),
        (10, (), {}, "ends with epoch 9"),
        (3, ("seed=2",), {}, "--set seed: a fork keeps what its parent began with"),
        (3, ("actors.actor-1.balances.energy=1",), {}, "--set opening"),
        (3, ("constraints.max_transfer=x",), {}, "--set constraints.max_transfer=x: expected a number"),
        (3, ("colour=x",), {}, "--set colour=x"),
        (3, (), {"epochs": 3}, "would end with epoch 3, before it begins"),
        (3, (), {"proposer": "policy:nobody"}, "--proposer policy:nobody"),
    ],
)
def test_what_cannot_be_is_refused(fork, tmp_path, epoch, sets, given, says):
    path = parent(tmp_path, "seed").summary.export
    with pytest.raises(BadInput, match=says):
        fork(path, epoch, *sets, **given)


def served_after(launched, epoch):
    """What is served after an epoch, in minor units."""
    flows = [(r.epoch, r.payload) for r in records(launched) if r.kind == "flow" and r.payload.kind == "consume"]
    return sum(one.applied for at, flow in flows if at > epoch for one in flow.readings)


def test_a_plan_from_the_beginning_goes_on_where_nothing_differs(fork, tmp_path):
    played = parent(tmp_path, "community-week", epochs=30, proposer="policy:optimal")
    same = fork(played.summary.export, 20)
    assert same.summary.head == played.summary.head and "after=20" not in same.result.scenario.overrides


def test_the_best_is_planned_from_the_state_at_the_fork_over_what_is_left(fork, tmp_path):
    """Its plan is played as it is, and serves what the programme says, solved here from the balances alone."""
    path = parent(tmp_path, "community-week", epochs=36).summary.export
    greedy, best = fork(path, 15, "constraints.max_transfer.energy=0.3"), None
    for given in ({"proposer": "policy:optimal"}, {"proposer": "policy:optimal", "epochs": 34}):
        best = fork(path, 15, "constraints.max_transfer.energy=0.3", **given)
        assert [r.digest for r in records(best) if r.epoch <= 15] == [
            r.digest for r in records(greedy) if r.epoch <= 15
        ]
        assert best.summary.outcomes["rejected"] == 0 and best.summary.outcomes["executed"] > 0
        scenario, names = best.result.scenario, [actor.id for actor in best.result.scenario.actors]
        whole = problem_of(World(scenario), "energy")
        held = replay(r for r in records(best) if r.epoch <= 15).balances["energy"]
        opening = np.array([held[name] for name in names], np.int64)
        rest = {name: getattr(whole, name)[15:] for name in ("produced", "demanded", "minimum", "quota")}
        assert served_after(best, 15) == solve(Problem(opening, storage=whole.storage, **rest)).served_total
        verified(best.summary.export, tmp_path)
    later = fork(path, 15, "constraints.max_transfer.energy=0.3", proposer="policy:optimal")
    assert served_after(later, 15) >= served_after(greedy, 15)


def test_a_plan_since_a_fork_is_made_again_and_goes_on(fork, tmp_path):
    path = parent(tmp_path, "community-week", epochs=30).summary.export
    best = fork(path, 15, proposer="policy:optimal")
    assert best.result.scenario.overrides == ("after=15",)
    for epoch in (15, 22):  # made again from its export alone; and forked in turn, where its plan must not be another
        assert fork(best.summary.export, epoch).summary.head == best.summary.head
    earlier = fork(best.summary.export, 10)
    assert earlier.result.scenario.overrides[-1] == "after=10"
    assert fork(earlier.summary.export, 20).summary.head == earlier.summary.head
    changed = fork(best.summary.export, 20, "constraints.epoch_quota.energy=0.5")
    assert fork(changed.summary.export, 24).summary.head == changed.summary.head != best.summary.head
    with open_source(best.summary.export, tmp_path) as source:
        (tmp_path / "again").mkdir()
        assert reproduce(source, tmp_path / "again").same


def test_nothing_is_planned_where_it_would_not_be_known_what_comes_of_it(tmp_path):
    world = World(load(SCENARIOS / "community-week.yaml", epochs=12))
    for hindered in ("proposals wait for approval", "the grid is paused"):
        world.scenario = replace(world.scenario, since=Since(4, {}, hindered))
        with pytest.raises(BadInput, match=f"no plan for energy: {hindered}; choose another policy"):
            plan(world)


def test_a_past_whose_chain_is_right_and_in_which_a_record_follows_from_nothing_is_damage(fork, tmp_path):
    path = parent(tmp_path, "community-week", epochs=30).summary.export
    with duckdb.connect(str(path)) as connection:
        previous, forged = START, 0
        for seq, body in connection.execute("SELECT seq, body FROM journal ORDER BY seq").fetchall():
            said = json.loads(body)
            if not forged and said["payload"].get("outcome") == "executed":
                forged, said["payload"]["entries"] = seq, []
            text = canonical(said)
            previous = digest(previous, text)
            connection.execute("UPDATE journal SET body = ?, digest = ? WHERE seq = ?", [text, previous.hex(), seq])
        connection.execute("UPDATE runs SET head_digest = ?", [previous.hex()])
    for proposer in (None, "policy:optimal"):
        with pytest.raises(Damaged, match=f"journal record {forged} .*does not follow from the state before"):
            fork(path, 20, proposer=proposer)


def test_only_a_run_with_its_scenario_is_forked(fork, tmp_path):
    path = export(worlds.homes().run(), tmp_path)
    with pytest.raises(BadInput, match="holds no scenario"):
        fork(path, 1)
    for text in ("run", "run@", "@3", "run@x", "run@-1"):
        with pytest.raises(BadInput, match="expected RUN@EPOCH"):
            place(text)
    assert place("a@b.duckdb@12") == ("a@b.duckdb", 12)


def test_a_fork_is_judged_again_and_what_would_have_been_is_not_forked(gridgov, tmp_path):
    run = gridgov("run", SCENARIOS / "drought.yaml", "--epochs", "30", "--json").json
    fork = gridgov("run", "--fork", f"{run['run_id']}@10", "--set", "actors.town-{n}.storage.water=400", "--json").json
    same = gridgov("whatif", fork["run_id"], "--json").json
    assert same["identical"] and same["head_digest"]["would_be"] == fork["head_digest"]
    out = tmp_path / "other.duckdb"
    assert gridgov("whatif", fork["run_id"], "--set", "constraints.max_transfer=50", "--out", out).code == 0
    said = gridgov("run", "--fork", f"{out}@3")
    assert said.code == 2 and "fork that run" in said.err


def test_a_run_is_reopened_from_its_export_alone(tmp_path):
    tape = SCENARIOS / "cassettes" / "hostile.jsonl"
    for given in ({}, {"proposer": "policy:none"}, {"proposer": f"cassette:{tape}"}):
        played = parent(tmp_path, "hostile", epochs=20, **given)
        with open_source(played.summary.export, tmp_path) as source:
            found = reopened(source, tmp_path)
        assert found.resolved() == played.result.scenario.resolved()
        assert launch(found, out=tmp_path / "again").summary.run_id == played.summary.run_id


# --- the command, and a live model ------------------------------------------------------------------------------------


def test_the_command_forks_a_run_of_the_store(gridgov):
    run = gridgov("run", SCENARIOS / "drought.yaml", "--json").json
    same = gridgov("run", "--fork", f"{run['run_id']}@40", "--json")
    assert same.code == 0, same
    assert same.json["head_digest"] == run["head_digest"]
    assert same.json["metrics"]["regret"] == {"water": None}
    page = gridgov("run", "--fork", f"{run['run_id'][:8]}@40", "--set", "holds=reject")
    assert page.code == 1 and f"a fork of {run['run_id']} after epoch 40" in page.out
    for options, says in (
        ((), "there is nothing to run"),
        (("--fork", f"{run['run_id']}@90"), "ends with epoch 90"),
        ((SCENARIOS / "seed.yaml", "--fork", f"{run['run_id']}@9"), "leave out"),
        (("--fork", f"{run['run_id']}@9", "--seed", "3"), "keeps the seed"),
    ):
        said = gridgov("run", *options)
        assert said.code == 2 and said.err.count("\n") == 1 and says in said.err, said


def test_only_what_really_differs_is_asked_again(gridgov, monkeypatch, tmp_path):
    monkeypatch.setenv("GEMINI_API_KEY", "MARKED-0123456789-abcdefghijklmnop")
    live = ("--proposer", "gemini:gemini-3.8-flash", "--json")
    with Stub() as stub:
        monkeypatch.setenv("GRIDGOV_GEMINI_BASE_URL", stub.url)
        run = gridgov("run", SCENARIOS / "community-week.yaml", "--epochs", "12", *live).json
        assert stub.count == 12
        same = gridgov("run", "--fork", f"{run['run_id']}@6", "--json").json
        assert stub.count == 12, "nothing was asked again"
        assert same["head_digest"] == run["head_digest"]
        assert (same["fork"]["same_requests"], same["fork"]["new_requests"]) == (6, 0)
        changed = gridgov("run", "--fork", f"{run['run_id']}@6", "--set", "constraints.max_transfer.energy=0.3",
                          "--json").json  # fmt: skip
        assert stub.count == 18
        assert (changed["fork"]["same_requests"], changed["fork"]["new_requests"]) == (0, 6)
        assert changed["calls"]["made"] == 6
    monkeypatch.delenv("GEMINI_API_KEY")
    assert gridgov("run", "--fork", f"{run['run_id']}@3", "--json").json["head_digest"] == run["head_digest"]
    said = gridgov("run", "--fork", f"{run['run_id']}@3", "--set", "constraints.max_transfer.energy=0.3")
    assert said.code == 3 and "there is no key" in said.err
