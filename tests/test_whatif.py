"""History is judged again under other terms; each expectation is worked out by hand, and nothing changes by itself."""

import json
from decimal import Decimal
from fractions import Fraction

import pytest

from gridgov.errors import BadInput
from gridgov.export import export, write_journal
from gridgov.journal import Decision
from gridgov.model import Limit, Proposal, Transfer, uuid5
from gridgov.rejudge import rejudge
from gridgov.source import open_source
from gridgov.verify import verify
from gridgov.whatif import Fate, First, Measure, Moved, Terms, run_of
from sim.launch import launch
from sim.loading import constraints_edit, load
from tests import grids, worlds
from tests.plays import SCENARIOS, play

pytest_plugins = ["tests.commands"]

ROUNDS = [
    {
        "epoch": n,
        "transfers": [{"from": giver, "to": taker, "resource": "energy", "amount": amount}],
        "reasoning": f"P{n}",
    }
    for n, (giver, taker, amount) in enumerate(
        [("actor-1", "actor-2", 50), ("actor-2", "actor-1", 45), ("actor-2", "actor-1", 45)], start=1
    )
]


@pytest.fixture
def asked(tmp_path):
    """Judges a history again: records, a run that was played, or an export."""

    def ask(history, *sets, **terms):
        path = tmp_path / "history.jsonl"
        records = history.engine.ledger.records() if hasattr(history, "engine") else history
        write_journal(path, records)
        with open_source(str(path), tmp_path) as source:
            found = rejudge(source, changes(*sets, **terms))
        json.dumps(found.document(), allow_nan=False)
        audited(found, tmp_path)
        return found

    return ask


def changes(*sets, **terms):
    return Terms(constraints_edit(sets) if sets else None, said=tuple(sets), **terms)


def audited(found, folder):
    """What would have been is a history that holds, whatever was changed."""
    path = folder / "counterfactual.jsonl"
    write_journal(path, found.engine.ledger.records())
    with open_source(str(path), folder) as source:
        assert verify(source).first is None


@pytest.fixture
def three(tmp_path):
    """The run of the seed's world in which all three proposals are executed."""
    fixture = tmp_path / "three.jsonl"
    fixture.write_text("".join(json.dumps(line) + "\n" for line in ROUNDS))
    return lambda *sets: play("seed", *sets, proposer=f"fixture:{fixture}", epochs=3)


# --- nothing changes by itself ----------------------------------------------------------------------------------------

SAME = {
    "seed": [],
    "hostile": [],
    "commons-fishery": [],
    "fishery-shocks": [],
    "community-week": [],
    "community-year": ["epochs=30"],
    "drought": [],
}
"""Every scenario of the repository, and how much of it."""

VARIED = {
    "shadows": ("seed", ["proposers=[{kind: policy, policy: random}, {kind: policy, policy: greedy, role: shadow}]"]),
    "collapse": ("commons-fishery", ["proposers.fisher.policy=take_max"]),
    "rationed at random": ("commons-fishery", ["proposers.fisher.policy=take_max", "decisions.allocation=random"]),
    "holds expire": ("drought", ["holds=expire"]),
    "holds rejected": ("drought", ["holds=reject"]),
    "paused": ("drought", ["constraints.auto_pause.moved_per_epoch=150"]),
}


def test_every_scenario_is_here():
    assert set(SAME) == {path.stem for path in SCENARIOS.glob("*.yaml")}


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("terms", [{}, {"from_epoch": 3}, {"scale": {}}], ids=["all", "later", "scaled"])
def test_a_what_if_that_changes_nothing_changes_nothing(asked, name, terms):
    nothing_changes(asked(play(name, *SAME[name]), **terms))


@pytest.mark.parametrize("name", VARIED)
def test_nothing_changes_with_holds_allocation_shadows_and_collapse(asked, name):
    scenario, sets = VARIED[name]
    played = play(scenario, *sets)
    nothing_changes(asked(played))
    if name == "collapse":
        assert played.collapsed is not None
    if name == "paused":
        assert any(r.kind == "control" for r in played.engine.ledger.records())


@pytest.mark.parametrize("name", SAME)
def test_constraints_that_are_written_anew_are_the_same(asked, name):
    """The same limit, set to what it is, is read and written without a loss."""
    played = play(name, *SAME[name])
    found = asked(played, "constraints.max_transfers_per_proposal=1000")
    assert (found.changed, found.records, found.first, found.balances, found.metrics) == ([], {}, None, [], [])


def nothing_changes(found):
    assert (found.changed, found.records, found.first) == ([], {}, None)
    assert (found.balances, found.metrics) == ([], [])
    assert found.head == found.head_was
    assert found.document()["identical"] is True


def test_nothing_changes_in_what_people_did(asked):
    _, run = worlds.everything()
    nothing_changes(asked(run.records))
    nothing_changes(asked(run.records, from_epoch=2))


# --- the seed's world -------------------------------------------------------------------------------------------------


def test_one_limit_refuses_one_directly_and_another_as_a_knock_on(asked, three):
    played = three()
    decided = [r.payload for r in played.engine.ledger.records() if isinstance(r.payload, Decision)]
    assert [d.outcome for d in decided] == ["executed"] * 3
    assert [played.engine.state.balance(f"actor-{n}", "energy") for n in (1, 2)] == [140_000, 40_000]

    found = asked(played, "constraints.max_transfer=45")
    first, third = found.changed
    assert (first.proposal_id, first.cause, first.codes) == (decided[0].proposal_id, "direct", ("max_transfer",))
    assert (third.proposal_id, third.cause) == (decided[2].proposal_id, "knock_on")
    assert third.would_be == Fate("rejected", None, ("insufficient_balance",))
    assert found.first[:4] == (2, 1, "proposal", decided[0].proposal_id)
    assert "50 kWh is above 45 kWh" in found.first.why
    assert found.balances == [Moved("actor-1", "energy", 140, 145), Moved("actor-2", "energy", 40, 35)]
    assert found.metrics == [Measure("acceptance_rate", None, 1.0, 1 / 3)]
    said = found.document()["decisions"]
    assert (said["total"], said["changed"], said["accepted_to_refused"]) == (3, 2, 2)
    assert said["by_code"] == {"direct": {"max_transfer": 1}, "knock_on": {"insufficient_balance": 1}}


def test_terms_hold_from_their_epoch_on(asked, three):
    found = asked(three(), "constraints.max_transfer=44", from_epoch=2)
    assert [(c.epoch, c.cause, c.codes) for c in found.changed] == [
        (2, "direct", ("max_transfer",)),
        (3, "direct", ("max_transfer",)),
    ]
    kinds = [record.kind for record in found.engine.ledger.records()]
    assert kinds == ["genesis", "proposal", "close", "constraints", "proposal", "close", "proposal", "close"]
    assert found.balances == [Moved("actor-1", "energy", 140, 50), Moved("actor-2", "energy", 40, 130)]


def test_a_limit_of_one_actor_binds_that_actor(asked, three):
    found = asked(three(), "constraints.max_transfer.actors.actor-2.energy=44.5")
    assert [c.epoch for c in found.changed] == [2, 3]


def test_what_was_refused_may_be_accepted(asked, three):
    played = three("constraints.max_transfer=45")
    found = asked(played, "constraints.max_transfer=50")
    assert [(c.was.outcome, c.would_be.outcome, c.cause) for c in found.changed] == [
        ("rejected", "executed", "direct"),
        ("rejected", "executed", "knock_on"),
    ]
    assert found.document()["decisions"]["refused_to_accepted"] == 2
    assert found.transitions == {"rejected -> executed": 2}


def test_a_direct_change_is_counted_by_the_rule_that_changed(asked):
    """The second breaks the changed rule, and lacks what the first would have brought: it is direct, by that rule."""
    world = worlds.seed_world()
    world.propose(("actor-1", "actor-2", "water", 40))
    world.propose(("actor-2", "actor-1", "water", 49))
    world.propose(("actor-2", "actor-1", "water", 48))
    world.propose(("actor-2", "actor-1", "water", 49))  # of 63, and 10 have to stay: refused then, and now
    world.propose(("actor-2", "actor-1", "water", 20))
    world.close()
    found = asked(world.ledger.records(), "constraints.max_transfer=39", "constraints.min_balance.water=100")
    assert [(c.cause, c.codes) for c in found.changed[:2]] == [
        ("direct", ("max_transfer", "min_balance")),
        ("direct", ("max_transfer",)),
    ]
    assert found.changed[1].would_be.codes == ("max_transfer", "min_balance")


def test_a_proposal_is_left_out(asked, three):
    played = three()
    [first, *_] = [r.payload for r in played.engine.ledger.records() if isinstance(r.payload, Decision)]
    found = asked(played, drop=(first.proposal_id[:8],))
    assert found.changed[0][2:7] == (first.proposal_id, "planner", Fate("executed", None, ()), None, "direct")
    assert [c.cause for c in found.changed] == ["direct", "knock_on"]
    assert found.transitions == {"executed -> dropped": 1, "executed -> rejected": 1}


def test_a_frozen_actor_neither_gives_nor_takes(asked, three):
    found = asked(three(), freeze=("actor-2",), from_epoch=3)
    [changed] = found.changed
    assert (changed.epoch, changed.cause, changed.codes) == (3, "direct", ("frozen_actor",))


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        ({"drop": ("12345678",)}, "--drop 12345678: no proposal has this id"),
        ({"freeze": ("actor-9",)}, "--freeze actor-9: there is no such actor; there are actor-1, actor-2"),
        ({"scale": {"pv": Fraction(1)}}, "--scale pv: there is no such flow; there are none"),
        ({"from_epoch": 5}, "has epochs 1 to 3"),
    ],
)
def test_what_history_does_not_have_is_refused(asked, three, terms, says):
    with pytest.raises(BadInput, match=says):
        asked(three(), **terms)


# --- flows, holds, people ---------------------------------------------------------------------------------------------


def test_a_flow_is_scaled_and_what_it_served_follows(asked):
    found = asked(worlds.homes().ledger.records(), scale={"pv": Fraction(1, 2)})
    first = found.first
    assert first == First(
        2, 1, "flow", None, "pv: 2 kWh of 2 kWh for home-1", "pv: 1 kWh of 1 kWh for home-1", "direct",
        "the flow is scaled by 1/2",
    )  # fmt: skip
    # hour 1: home-1 gives all of its 1 kWh and goes without 0.7; hour 2: it has 0.05 instead of 0.2 kept and 0.1
    assert Measure("unmet", "energy", 1.95, 2.9) in found.metrics


def test_less_storage_is_spilled_where_the_genesis_says_it(asked):
    played = play("community-week", "epochs=30")
    found = asked(played, "constraints.max_transfer=0.1")
    storage = played.scenario.storage
    state = found.engine.state
    assert all(state.balance(*key) <= most for key, most in storage.items())
    spilled = [r for r in found.engine.ledger.records() if r.kind == "flow" and r.payload.kind == "spill"]
    assert spilled


def test_new_holds_expire_and_old_ones_are_settled_as_people_decided(asked):
    world = worlds.seed_world(hold_above=Limit({"water": 30}, {}), hold_epochs=2)
    approved = world.propose(("actor-2", "actor-1", "water", 35))
    world.close()
    world.engine.settle(approved.proposal_id, "approve", world.at, "ops", "fine")
    later = world.propose(("actor-2", "actor-1", "water", 25))
    for _ in range(4):
        world.close()
    looser = asked(world.ledger.records(), "constraints.hold_above=40")
    [changed] = looser.changed
    assert (changed.was, changed.would_be) == (Fate("held", "executed", ()), Fate("executed", None, ()))
    assert looser.balances == [] and looser.records == {"proposal": 1, "settlement": 1}
    tighter = asked(world.ledger.records(), "constraints.hold_above.water=20")
    [changed] = tighter.changed
    assert changed.proposal_id == later.proposal_id
    assert changed.was == Fate("executed", None, ())
    assert changed.would_be == Fate("held", "rejected", ("hold_expired",))
    assert any("nobody decides" in note for note in tighter.notes)


def test_a_shorter_wait_ends_a_hold_before_it_is_approved(asked):
    world = worlds.seed_world(hold_above=Limit({"water": 30}, {}), hold_epochs=5)
    held = world.propose(("actor-2", "actor-1", "water", 35))
    for _ in range(3):
        world.close()
    world.engine.settle(held.proposal_id, "approve", world.at, "ops", "fine")
    world.close()
    found = asked(world.ledger.records(), "constraints.hold_epochs=1")
    [changed] = found.changed
    assert (changed.was.final, changed.would_be.final, changed.cause) == ("executed", "rejected", "direct")


def test_a_pause_that_the_engine_makes_itself_is_made_anew(asked, three):
    found = asked(three("constraints.max_transfer=45"), "constraints.auto_pause={refused_in_a_row: 1}")
    assert found.first.kind == "control" and found.first.would_be == "paused by itself"
    assert [(c.epoch, c.would_be.codes, c.cause) for c in found.changed] == [
        (2, ("paused",), "knock_on"),
        (3, ("paused",), "knock_on"),
    ]
    assert any("paused" in note for note in found.notes)


def test_a_reversal_takes_back_what_was_made_here_or_is_left_out(asked):
    world = worlds.seed_world()
    world.propose(("actor-1", "actor-2", "water", 1))
    wrong = world.propose(("actor-2", "actor-1", "water", 45))
    world.engine.reverse(world.ledger.entries()[-1:], world.at, "ops", "a mistake", wrong.proposal_id)
    world.close()
    first, *_ = (r.payload for r in world.ledger.records() if isinstance(r.payload, Decision))
    shifted = asked(world.ledger.records(), drop=(first.proposal_id,))
    assert shifted.records == {"proposal": 1}
    assert shifted.engine.state.balance("actor-2", "water") == 120
    gone = asked(world.ledger.records(), "constraints.max_transfer=40")
    assert gone.records == {"proposal": 1, "reversal": 1}
    assert gone.balances == []
    assert gone.notes == ["1 reversals of history have nothing here to act on, and are left out"]


def test_of_two_alike_the_one_that_was_taken_back_is_taken_back(asked):
    world = worlds.seed_world()
    world.propose(("actor-1", "actor-2", "energy", 1))
    world.propose(("actor-1", "actor-2", "water", 1), ("actor-1", "actor-2", "water", 7))
    world.engine.reverse(world.ledger.entries()[-1:], world.at, "ops", "a mistake")
    world.close()
    first, *_ = (r.payload for r in world.ledger.records() if isinstance(r.payload, Decision))
    found = asked(world.ledger.records(), drop=(first.proposal_id,))
    assert found.records == {"proposal": 1}
    assert found.engine.state.balance("actor-1", "water") == 49


def test_what_came_too_late_still_does(asked):
    """Stale for the epoch, and for constraints that had changed: a proposer's past is not judged anew."""
    world = worlds.seed_world()
    old = world.state.seen
    world.engine.constrain(world.state.constraints._replace(max_transfers_per_proposal=9), world.at, "ops", "x")
    gift = (Transfer("actor-1", "actor-2", "water", 1),)
    world.engine.propose(Proposal(uuid5("a"), "planner", 7, gift, "", old), world.at)
    world.close()
    world.engine.propose(Proposal(uuid5("b"), "planner", 7, gift, "", old), world.at)
    world.propose(("actor-1", "actor-2", "water", 40))
    world.close()
    nothing_changes(asked(world.ledger.records()))
    found = asked(world.ledger.records(), "constraints.max_transfer=39", from_epoch=2)
    assert [c.codes for c in found.changed] == [("max_transfer",)]
    decided = [r.payload for r in found.engine.ledger.records() if isinstance(r.payload, Decision)]
    assert [d.violations[0].code for d in decided] == ["stale_world_state", "stale_world_state", "max_transfer"]


def test_a_hold_that_nobody_ended_in_time_stays(asked):
    world = worlds.seed_world(hold_above=Limit({"water": 30}, {}), hold_epochs=1)
    world.propose(("actor-2", "actor-1", "water", 35))
    for _ in range(3):
        world.engine.close(world.at + worlds.HOUR)
    nothing_changes(asked(world.ledger.records()))


def test_a_transfer_by_hand_stays(asked):
    world = worlds.seed_world()
    world.propose(("actor-1", "actor-2", "water", 40))
    world.engine.override((Transfer("actor-2", "actor-1", "water", 150),), world.at, "ops", "back")
    world.close()
    found = asked(world.ledger.records(), "constraints.max_transfer=30")
    assert found.records == {"proposal": 1, "override": 1}
    assert [moved[:2] for moved in found.balances] == [("actor-1", "water"), ("actor-2", "water")]


def test_a_commons_that_collapses_earlier_ends_there(asked):
    found = asked(play("commons-fishery"), scale={"spawning": Fraction(0)})
    assert found.ended == 2  # of 100 fish half is taken twice, and none grows
    assert found.unreached == 5 * 10


def test_a_change_of_constraints_in_history_keeps_what_is_set(asked):
    """Half-way the drought's operator tightens max_transfer to 110: what is set here holds before and after."""
    found = asked(play("drought"), "constraints.max_transfer=80")
    limits = [r.payload.constraints.max_transfer.of("reservoir", "water")
              for r in found.engine.ledger.records() if r.kind in ("genesis", "constraints")]  # fmt: skip
    assert limits == [800, 800]


# --- an export, and the command ---------------------------------------------------------------------------------------


def test_the_command_compares_all_metrics_and_keeps_the_counterfactual(gridgov, three, tmp_path):
    three()
    run = gridgov("run", SCENARIOS / "drought.yaml", "--json").json
    out = tmp_path / "what-if.duckdb"
    said = gridgov("whatif", run["run_id"], "--set", "constraints.max_transfer=60", "--json", "--out", out)
    assert said.code == 0, said
    kept = gridgov("verify", out, "--json")
    assert kept.code == 0 and kept.json["head"]["digest"] == said.json["head_digest"]["would_be"]
    names = {measure["metric"] for measure in said.json["metrics"]}
    assert {"acceptance_rate", "self_sufficiency", "served_share_min"} <= names
    assert "regret" not in names
    page = gridgov("whatif", run["run_id"], "--set", "constraints.max_transfer=60").out
    assert "The first record that changes" in page and "Metrics that differ" in page


def test_an_export_that_changes_nothing_changes_nothing(tmp_path):
    path = launch(load(SCENARIOS / "drought.yaml", epochs=50), out=tmp_path).summary.export
    with open_source(path, tmp_path) as source:
        nothing_changes(rejudge(source, Terms()))


def test_production_is_judged_again(server, gridgov, tmp_path):
    """A grid with everything in it: nothing changes by itself, and what changes is kept as a run that verifies."""
    url = server.url(server.template("asked-again", grids.play))
    with open_source("postgres", tmp_path, (url, grids.GRID)) as source:
        nothing_changes(rejudge(source, Terms()))
        found = rejudge(source, changes("constraints.max_transfer=1"))
        assert found.changed and found.run_id is None
        audited(found, tmp_path)
        path = export(run_of(source, found), tmp_path)
    assert gridgov("verify", path).code == 0


def test_the_command_says_what_is_wrong(gridgov, tmp_path):
    path = export(worlds.homes().run(), tmp_path)
    for options, says in (
        (["--set", "seed=3"], "--set seed=3: found the key seed"),
        (["--set", "constraints.max_transfer=much"], "--set constraints.max_transfer=much: expected a number"),
        (["--set", "constraints.max_transfer.actors.home-9.energy=1"], "unknown actor 'home-9'"),
        (["--scale", "pv"], "--scale pv: expected FLOW=F"),
        (["--scale", "pv=-1"], "--scale pv=-1: expected FLOW=F"),
        (["--out", "x.csv"], "--out x.csv: expected a file that ends in"),
    ):
        said = gridgov("whatif", path, *options)
        assert said.code == 2 and said.err.count("\n") == 1 and says in said.err, said


def test_an_edit_reads_back_what_it_does_not_change():
    world = worlds.seed_world(hold_epochs=7, epoch_quota=Limit({"water": 3}, {"actor-1": {"credits": 12345}}))
    found, resources = world.state.constraints, world.state.resources
    edit = constraints_edit(["constraints.max_transfer.actors.actor-1.credits=0.25", "constraints.min_balance=null"])
    made = edit(found, resources, world.state.actors)
    assert made.max_transfer == Limit(found.max_transfer.by_resource, {"actor-1": {"credits": 25}})
    assert made.min_balance == Limit(dict.fromkeys(resources, 0), {})
    assert made[2:] == found[2:]
    assert Decimal("0.25") * 100 == 25
