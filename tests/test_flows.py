"""The phases that no proposal moves: what is requested, and what of it is applied."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridgov.errors import BadInput
from gridgov.flows import Request, give, need, spill, take
from gridgov.journal import Reading
from gridgov.model import Actor, Kind, Resource
from gridgov.state import State


def state(reserved=(), **balances):
    """A state of energy at scale 3; entries 1 to 10 were made."""
    found = State()
    found.entries, found.epoch = 10, 4
    found.actors = {name: Actor(name, "node") for name in ("grid", "a", "b", "c")}
    found.resources = {"energy": Resource("energy", "kWh", 3)}
    found.balances = {"energy": {"grid": 0, **balances}}
    found.reserved = {"energy": dict(reserved)}
    return found


def asked(*lines):
    return [Request(name, "energy", amount) for name, amount in lines]


def readings(flow):
    """(actor, requested, applied, entry) of each."""
    return [(r.actor, r.requested, r.applied, r.entry) for r in flow.readings]


@pytest.mark.parametrize("kind", [Kind.PRODUCE, Kind.GROW])
def test_gives_all_of_it(kind):
    flow = give(state(a=5), kind, "pv", asked(("a", 7), ("b", 0), ("a", 1), ("c", 2)))
    assert (flow.kind, flow.name) == (kind, "pv")
    assert readings(flow) == [("a", 7, 7, 11), ("b", 0, 0, None), ("a", 1, 1, 12), ("c", 2, 2, 13)]


def test_gives_up_to_15_digits_and_not_one_more():
    nearly = 10**15 - 5
    assert readings(give(state(a=nearly), Kind.PRODUCE, "pv", asked(("a", 4)))) == [("a", 4, 4, 11)]
    for lines in ([("a", 5)], [("a", 4), ("b", 1), ("a", 1)]):
        with pytest.raises(BadInput, match=r"epoch 4, flow pv: 0\.00[15] more energy would take a's balance"):
            give(state(a=nearly), Kind.PRODUCE, "pv", asked(*lines))


def test_needs_move_nothing():
    flow = need(state(), "load", asked(("a", 7), ("b", 0)))
    assert (flow.kind, flow.name) == ("need", "load")
    assert flow.readings == (Reading("a", "energy", 7, 0, None), Reading("b", "energy", 0, 0, None))


def test_needs_are_of_15_digits_at_most_all_together():
    before = state()
    before.needs = {"energy": {"a": 10**15 - 5}}
    assert need(before, "load", asked(("a", 4))).readings[0].requested == 4
    for lines in ([("a", 5)], [("a", 4), ("a", 1)], [("b", 10**15)]):
        with pytest.raises(BadInput, match="would need energy of more than 15 digits"):
            need(before, "load", asked(*lines))


def test_takes_what_is_there_and_leaves_the_rest_unmet():
    flow = take(state(a=5, b=9), Kind.CONSUME, "load", asked(("a", 7), ("b", 9), ("c", 1), ("b", 0)))
    assert (flow.kind, flow.name) == (Kind.CONSUME, "load")
    assert readings(flow) == [("a", 7, 5, 11), ("b", 9, 9, 12), ("c", 1, 0, None), ("b", 0, 0, None)]


def test_takes_no_unit_twice():
    flow = take(state(a=5), Kind.CONSUME, "load", asked(("a", 3), ("a", 3), ("a", 3)))
    assert readings(flow) == [("a", 3, 3, 11), ("a", 3, 2, 12), ("a", 3, 0, None)]


def test_leaves_what_is_reserved():
    flow = take(state({"a": 3, "b": 9}, a=5, b=9), Kind.CONSUME, "load", asked(("a", 7), ("b", 1)))
    assert readings(flow) == [("a", 7, 2, 11), ("b", 1, 0, None)]


def test_takes_below_any_minimum():
    assert readings(take(state(a=5), Kind.CONSUME, "load", asked(("a", 5)))) == [("a", 5, 5, 11)]


def test_spills_what_is_above_storage():
    storage = {("a", "energy"): 5, ("b", "energy"): 5, ("c", "energy"): 0}
    flow = spill(state(a=7, b=5, c=1), storage)
    assert (flow.kind, flow.name) == (Kind.SPILL, "spill")
    assert readings(flow) == [("a", 2, 2, 11), ("c", 1, 1, 12)]


def test_spills_nothing_that_is_reserved():
    flow = spill(state({"a": 6, "b": 7}, a=7, b=7), {("a", "energy"): 5, ("b", "energy"): 5})
    assert readings(flow) == [("a", 2, 1, 11), ("b", 2, 0, None)]


@pytest.mark.parametrize("lines", [[("a", -1)], [("nobody", 1)]])
def test_what_the_edge_should_have_refused_is_a_bug(lines):
    with pytest.raises(AssertionError):
        give(state(a=5), Kind.PRODUCE, "pv", asked(*lines))
    with pytest.raises(AssertionError):
        take(state(a=5), Kind.CONSUME, "load", asked(*lines))


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 60)),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40)), max_size=6),
)
def test_nobody_is_taken_below_what_is_reserved(balances, lines):
    reserved = {name: amount // 3 for name, amount in balances.items()}
    flow = take(state(reserved, **balances), Kind.CONSUME, "load", asked(*lines))
    for name in "abc":
        there = balances.get(name, 0) - reserved.get(name, 0)
        wanted = sum(amount for who, amount in lines if who == name)
        assert sum(reading.applied for reading in flow.readings if reading.actor == name) == min(there, wanted)
    made = [reading.entry for reading in flow.readings if reading.applied]
    assert made == list(range(11, 11 + len(made)))
    assert all(reading.entry is None for reading in flow.readings if not reading.applied)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), max_size=5))
def test_requests_come_back_as_readings_in_order(lines):
    readings = need(state(), "load", asked(*lines)).readings
    assert [(reading.actor, reading.requested) for reading in readings] == lines
