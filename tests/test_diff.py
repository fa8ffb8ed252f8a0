"""Two runs are compared by what was put in, where they part, and what they came to."""

import json

import pytest

from gridgov.diff import Change, changes, diff, flat, shown
from gridgov.export import export, write_journal
from gridgov.model import Limit
from gridgov.source import open_source
from tests import worlds


@pytest.fixture
def compared(tmp_path):
    """Exports two runs and compares them."""

    def compare(one, other):
        paths = [export(run, tmp_path / name) for name, run in (("a", one), ("b", other))]
        with open_source(str(paths[0]), tmp_path) as a, open_source(str(paths[1]), tmp_path) as b:
            found = diff(a, b)
        json.dumps(found.document(), allow_nan=False)
        return found

    return compare


def play(amount=5, *, closes=2, **constraints):
    world = worlds.seed_world(**constraints)
    world.propose(("actor-1", "actor-2", "water", 3))
    world.close()
    world.propose(("actor-1", "actor-2", "water", amount))
    for _ in range(closes - 1):
        world.close()
    return world


def test_the_same_run_twice_is_identical(compared):
    found = compared(play().run(), play().run())
    assert found.identical
    assert found.parting is None
    assert found.set_up == found.balances == found.metrics == []
    assert found.document()["identical"] is True


def test_names_the_first_record_that_differs_and_the_key(compared):
    found = compared(play(5).run(), play(7).run())
    assert not found.identical
    assert found.set_up == []
    assert found.parting.seq == 4
    assert found.parting.a["transfers"] == [{"from": "actor-1", "to": "actor-2", "resource": "water", "amount": 5}]
    assert found.parting.differs == [Change("transfers[0].amount", 5, 7)]
    assert found.balances == [Change("actor-1.water", 42, 40), Change("actor-2.water", 128, 130)]
    assert Change("transferred.water", 8, 10) in found.metrics
    assert {change.key.partition(".")[0] for change in found.metrics} == {"transferred", "gini", "jain"}


def test_counts_what_came_after_by_outcome_and_code(compared):
    found = compared(play(5).run(), play(51).run())
    assert found.parting.differs == [
        Change("outcome", "executed", "rejected"),
        Change("transfers[0].amount", 5, 51),
        Change("violations", [], None),
        Change("violations[0].code", None, "max_transfer"),
        Change("violations[0].path", None, "transfers[0].amount"),
        Change("violations[0].limit", None, 50),
        Change("violations[0].actual", None, 51),
        Change("violations[1].code", None, "insufficient_balance"),
        Change("violations[1].path", None, "transfers[0].amount"),
        Change("violations[1].limit", None, 47),
        Change("violations[1].actual", None, 51),
    ]
    assert found.a.outcomes == {"executed": 2}
    assert found.b.outcomes == {"executed": 1, "rejected": 1}
    assert found.b.violations == {"max_transfer": 1, "insufficient_balance": 1}
    assert (found.a.entries, found.b.entries) == (6, 5)


def test_other_constraints_that_change_no_decision_are_no_parting(compared):
    one = play()
    other = play(max_transfer=Limit({"energy": 50, "water": 40, "credits": 5000}, {}))
    found = compared(one.run(), other.run())
    assert not found.identical
    assert found.parting is None
    assert set(found.set_up) == {
        Change("constraints[1].max_transfer", 50, None),
        Change("constraints[1].max_transfer.energy", None, 50),
        Change("constraints[1].max_transfer.water", None, 40),
        Change("constraints[1].max_transfer.credits", None, 50),
    }
    assert found.balances == found.metrics == []


def test_another_opening_is_found_in_the_set_up_and_not_in_every_record(compared):
    def world(credits):
        resources = worlds.seed_world().resources
        opening = {"actor-1": {"energy": 9, "credits": credits}, "actor-2": {"energy": 0}}
        played = worlds.World({"actor-1": "a", "actor-2": "b"}, resources, worlds.Constraints(), opening)
        played.propose(("actor-1", "actor-2", "energy", 4))
        played.close()
        return played.run()

    found = compared(world(0), world(250))
    assert found.set_up == [Change("opening.actor-1.credits", 0, 2.5)]
    assert found.parting is None
    assert found.balances == [Change("actor-1.credits", 0, 2.5), Change("grid.credits", 0, -2.5)]


def test_another_seed_that_changes_nothing_is_found_in_the_set_up(compared):
    found = compared(worlds.homes(seed=1).run(), worlds.homes(seed=2).run())
    assert found.set_up == [Change("seed", 1, 2)]
    assert found.parting is None
    assert not found.identical


def test_reads_the_resolved_scenario_where_there_is_one(compared):
    def world(storage, until, name):
        scenario = {
            "epochs": 3,
            "storage": [["actor-1", "credits", storage]],
            "constraints": [{"epoch": 1, "hold_epochs": 24}, {"epoch": until, "hold_epochs": 24}],
            "flows": [{"name": name, "noise": None}, {"name": "load", "noise": {"width": "1.5"}}],
        }
        resources = worlds.seed_world().resources
        return worlds.World({"actor-1": "node"}, resources, worlds.Constraints(), {}, scenario=scenario).run()

    assert set(compared(world(100, 2, "pv"), world(250, 3, "wind")).set_up) == {
        Change("storage.actor-1.credits", 1, 2.5),
        Change("constraints[2].epoch", 2, None),
        Change("constraints[3].epoch", None, 3),
        Change("flows[pv].name", "pv", None),
        Change("flows[wind].name", None, "wind"),
    }


def test_a_run_that_ends_early_parts_where_it_ends(compared):
    found = compared(play(closes=2).run(), play(closes=4).run())
    assert found.parting.a is None
    assert found.parting.b == {"kind": "close", "epoch": 3, "collapsed": False}
    assert found.parting.differs == [Change("kind", None, "close")]
    assert (found.a.epochs, found.b.epochs) == (2, 4)


def test_records_of_other_kinds_part_by_kind(compared):
    one, other = play(), play()
    one.propose(("actor-1", "actor-2", "water", 1))
    other.produce("energy", {"actor-1": 2})
    found = compared(one.run(), other.run())
    assert found.parting.differs == [Change("kind", "proposal", "flow")]
    assert found.parting.b["readings"] == {"actor-1.energy": {"requested": 2, "applied": 2}}


def test_every_kind_of_record_can_be_shown():
    world, run = worlds.everything()
    resources = {resource.name: resource for resource in world.resources}
    said = {record.kind: shown(record, resources) for record in run.records}
    json.dumps(said)
    assert said["settlement"]["violations"][0]["code"] == "hold_expired"
    assert said["constraints"]["constraints"]["max_transfers_per_proposal"] == 1
    assert said["control"]["reason"] == "over"
    assert said["registration"]["operator"] == "ops"
    assert said["close"] == {"kind": "close", "epoch": 4, "collapsed": False}


def test_compares_an_export_with_a_journal_by_what_both_have(tmp_path):
    run = play().run()
    path = export(run, tmp_path)
    write_journal(tmp_path / "a.jsonl", run.records)
    with open_source(str(path), tmp_path) as a, open_source(str(tmp_path / "a.jsonl"), tmp_path) as b:
        found = diff(a, b)
    assert found.identical
    assert found.set_up == found.metrics == []
    assert found.b.run_id is None


def test_what_runs_say_of_themselves_is_part_of_the_set_up(compared):
    one = play().run(proposers=[{"name": "planner", "policy": "greedy"}], overrides=["a=1"])
    other = play().run(proposers=[{"name": "planner", "policy": "none"}], overrides=["a=1", "b=2"])
    assert set(compared(one, other).set_up) == {
        Change("run.overrides[1]", None, "b=2"),
        Change("run.proposers[planner].policy", "greedy", "none"),
    }


def test_balances_that_only_one_side_has_are_none_on_the_other(compared):
    one, other = play(), play()
    other.produce("credits", {"actor-1": 125})
    other.produce("credits", {"actor-2": 5})
    found = compared(one.run(), other.run())
    assert found.balances == [
        Change("actor-1.credits", None, 1.25),
        Change("actor-2.credits", None, 0.05),
        Change("grid.credits", 0, -1.3),
    ]


def test_flat_keys_go_by_what_names_the_items():
    document = {"actors": [{"id": "a", "n": 1}, {"id": "b", "n": 2}], "xs": [1, [2]], "same": [{"id": 1}, {"id": 1}]}
    assert dict(flat(document)) == {
        "actors[a].id": "a",
        "actors[a].n": 1,
        "actors[b].id": "b",
        "actors[b].n": 2,
        "xs[0]": 1,
        "xs[1][0]": 2,
        "same[0].id": 1,
        "same[1].id": 1,
    }
    assert changes({"a": []}, {"a": {}}) == [Change("a", [], {})]
