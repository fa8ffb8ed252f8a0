"""The working state: what can be read off it, and what a hold would reserve."""

import copy
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridgov.amounts import LIMIT
from gridgov.engine import Engine
from gridgov.flows import Request
from gridgov.journal import START, Genesis, Registration
from gridgov.ledger import MemoryLedger
from gridgov.model import (
    Actor,
    ActorView,
    Constraints,
    Kind,
    LedgerEntry,
    Limit,
    Proposal,
    Resource,
    Seen,
    Transfer,
    WorldState,
)
from gridgov.state import State, copied, drawdown, room
from tests import strategies
from tests.oracle import Ask, drawn

ENERGY, WATER = Resource("energy", "kWh", 3), Resource("water", "m3", 0)
LIMITS = Constraints(hold_above=Limit({"energy": 50}, {}))


@pytest.fixture
def engine():
    made = Engine(MemoryLedger())
    actors = (Actor("grid", "boundary"), Actor("b", "town"), Actor("a", "node"))
    opening = (("a", "energy", 100), ("a", "water", 0), ("b", "energy", 7))
    made.append(Genesis(1, 1_000, 10, actors, (ENERGY, WATER), LIMITS, opening, {}), 1_000)
    return made


def test_new_state_is_before_everything():
    state = State()
    assert (state.seq, state.digest, state.at, state.seen) == (0, START, 0, Seen(0, 0, 0))
    assert state.world_state() == WorldState(0, 0, (), (), Constraints(), False)


def test_balance_is_0_where_nothing_was_declared(engine):
    assert [engine.state.balance(name, "energy") for name in ("a", "b", "grid", "nobody")] == [100, 7, -107, 0]
    assert engine.state.balance("b", "water") == 0


def test_available_is_the_balance_less_what_is_reserved(engine):
    engine.propose(Proposal("1", "p", 1, (Transfer("a", "b", "energy", 60),), ""), 1_001)
    assert engine.state.balance("a", "energy") == 100
    assert engine.state.available("a", "energy") == 40
    assert engine.state.available("b", "energy") == 7
    assert engine.state.available("b", "water") == 0


def test_what_is_seen_is_the_epoch_the_rules_and_the_last_entry(engine):
    assert engine.state.seen == Seen(1, 1, 2)
    engine.constrain(LIMITS, 1_001)
    engine.take("load", [Request("a", "energy", 1)], 1_002)
    engine.close(1_003)
    assert engine.state.seen == Seen(2, 2, 3)


def test_world_state_leaves_the_boundary_out_and_lists_what_was_declared_or_used(engine):
    engine.need("load", [Request("a", "energy", 30), Request("a", "energy", 3), Request("b", "water", 2)], 1_001)
    engine.register(Registration((), {"b": True}), 1_002)
    shown = WorldState(
        1,
        1_002,
        (
            ActorView("b", "town", {"energy": 7}, {"water": 2}, True),
            ActorView("a", "node", {"energy": 100, "water": 0}, {"energy": 33}, False),
        ),
        (ENERGY, WATER),
        LIMITS,
        False,
    )
    assert engine.state.world_state() == shown
    engine.give(Kind.PRODUCE, "rain", [Request("b", "water", 5)], 1_003)
    assert engine.state.world_state().actors[0].balances == {"energy": 7, "water": 5}


def test_needs_are_those_of_the_open_epoch(engine):
    engine.need("load", [Request("a", "energy", 30)], 1_001)
    engine.close(1_002)
    assert [view.needs for view in engine.state.world_state().actors] == [{}, {}]


def test_world_state_says_whether_it_is_paused_and_which_epoch_was_asked_for(engine):
    engine.pause(1_001, "ann", "why")
    engine.close(1_002)
    assert (engine.state.world_state().epoch, engine.state.world_state().paused) == (2, True)
    assert engine.state.world_state(1).epoch == 1
    assert engine.state.world_state(0).epoch == 0


def test_entries_take_from_one_what_they_give_to_another():
    state = State()
    state.balances = {"energy": {"a": 5}, "water": {}}
    entries = [
        LedgerEntry(8, None, "a", "b", "energy", 7, 0, 1, 1, Kind.TRANSFER),
        LedgerEntry(9, None, "b", "a", "energy", 1, 0, 1, 1, Kind.TRANSFER),
        LedgerEntry(10, None, "grid", "a", "water", 3, 0, 2, 1, Kind.PRODUCE),
    ]
    state.apply(entries)
    assert state.balances == {"energy": {"a": -1, "b": 6}, "water": {"grid": -3, "a": 3}}
    assert state.entries == 10


@given(st.lists(strategies.plain_asks, max_size=8))
def test_drawdown_is_the_most_that_is_out_at_any_point(asks):
    found = drawdown(Transfer(*ask) for ask in asks)
    naive = drawn([Ask(giver, taker, resource, Fraction(amount)) for giver, taker, resource, amount in asks])
    assert found == naive


@given(st.lists(strategies.plain_asks, max_size=8))
def test_drawdown_is_just_enough_for_all_of_it(asks):
    transfers = [Transfer(*ask) for ask in asks]
    balances = dict(drawdown(transfers))
    lowest = dict(balances)
    for giver, taker, resource, amount in transfers:
        balances[giver, resource] = balances.get((giver, resource), 0) - int(amount)
        balances[taker, resource] = balances.get((taker, resource), 0) + int(amount)
        for account in ((giver, resource), (taker, resource)):
            lowest[account] = min(lowest.get(account, 0), balances[account])
    assert set(lowest.values()) <= {0}


def test_room_is_what_is_left_below_16_digits(engine):
    assert room(engine.state, "a", "energy") == LIMIT - 1 - 100
    assert room(engine.state, "b", "water") == LIMIT - 1


def test_copy_stays_as_it_is_when_the_other_goes_on(engine):
    engine.register(Registration(frozen={"b": True}), 1_000)
    kept = copied(engine.state)
    before = {name: copy.deepcopy(getattr(kept, name)) for name in State.__slots__}
    assert before == {name: getattr(engine.state, name) for name in State.__slots__}
    engine.register(Registration((Actor("c", "node"),), frozen={"b": False, "a": True}), 1_000)
    engine.need("load", [Request("b", "energy", 5)], 1_000)
    engine.give(Kind.PRODUCE, "pv", [Request("b", "energy", 3)], 1_000)
    engine.propose(Proposal("p", "planner", 1, (Transfer("b", "a", "energy", 60),), ""), 1_000)
    assert {name: getattr(kept, name) for name in State.__slots__} == before
    assert engine.state.frozen == {"a"}
    assert engine.state.balance("b", "energy") == 10
