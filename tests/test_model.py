"""The values that the parts hand to each other: their names, their order and the ids that are derived."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridgov import model
from gridgov.model import Code, Kind, Limit, Outcome, Round, Transfer, uuid5


def test_codes_stand_in_order_of_precedence():
    assert [code.value for code in Code] == [
        "paused",
        "stale_world_state",
        "too_many_transfers",
        "unknown_actor",
        "frozen_actor",
        "boundary_actor",
        "not_permitted",
        "unknown_resource",
        "same_actor",
        "non_positive_amount",
        "precision",
        "out_of_range",
        "max_transfer",
        "insufficient_balance",
        "min_balance",
        "epoch_quota",
        "hold_rejected",
        "hold_expired",
    ]


def test_outcomes_and_kinds_are_those_of_the_vocabulary():
    assert [outcome.value for outcome in Outcome] == [
        "executed",
        "rejected",
        "held",
        "noop",
        "malformed",
        "unavailable",
    ]
    assert [kind.value for kind in Kind] == [
        "genesis",
        "transfer",
        "produce",
        "grow",
        "consume",
        "spill",
        "override",
        "reversal",
    ]
    assert (model.BOUNDARY, model.BOUNDARY_TYPE) == ("grid", "boundary")


@given(st.text())
def test_ids_are_those_of_the_standard_library(name):
    namespace = uuid.uuid5(uuid.NAMESPACE_DNS, "gridgov")
    assert namespace == model.NAMESPACE
    assert uuid5(name) == str(uuid.uuid5(namespace, name))


def test_ids_never_change():
    assert uuid5("actor-1") == "ab97571e-c037-5bcd-b3a6-118a6fe33345"
    assert Round(42, "planner", 1).proposal_id == "8698e6c0-5058-55c0-baba-fb8660dc9149"


def test_each_round_has_its_own_id():
    rounds = [Round(epoch, name, n) for epoch in (1, 11) for name in ("a", "1/a", "a/1") for n in (1, 11)]
    assert len({one.proposal_id for one in rounds}) == len(rounds)
    assert len({str(uuid.UUID(one.proposal_id)) for one in rounds}) == len(rounds)


@pytest.mark.parametrize(
    ("actor", "resource", "found"),
    [("a", "energy", 1), ("a", "water", 20), ("b", "energy", 10), ("b", "credits", None), ("c", "energy", 0)],
)
def test_most_specific_limit_wins(actor, resource, found):
    limit = Limit({"energy": 10, "water": 20}, {"a": {"energy": 1}, "c": {"energy": 0}})
    assert limit.of(actor, resource) == found


def test_limit_without_actors_is_that_of_the_resource():
    limit = Limit({"energy": 10}, {})
    assert (limit.of("a", "energy"), limit.of("a", "water")) == (10, None)


def test_values_are_frozen():
    for value in (Transfer("a", "b", "energy", 1), Round(1, "p", 1), Limit({}, {})):
        with pytest.raises(AttributeError):
            value.__setattr__(value._fields[0], "x")
