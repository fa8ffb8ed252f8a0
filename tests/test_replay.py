"""The fold, the chain and the columns: the same past comes to the same state, and a changed one is found."""

import hashlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridgov.engine import Engine
from gridgov.errors import Damaged
from gridgov.flows import Request
from gridgov.journal import START, Close, Control, Genesis, Registration, seal
from gridgov.ledger import MemoryLedger
from gridgov.model import Actor, Constraints, Kind, LedgerEntry, Limit, Proposal, Resource, Transfer
from gridgov.replay import balances_at, balances_every, chain, columns, fold, replay
from gridgov.state import State
from tests import strategies

BIG = 10**15 - 1


@pytest.fixture(scope="module")
def engine():
    """Three epochs: one of each kind of record, two of some."""
    made = Engine(MemoryLedger())
    actors = (Actor("grid", "boundary"), Actor("a", "node"), Actor("b", "node"))
    limits = Constraints(hold_above=Limit({"energy": 50}, {}))
    opening = (("a", "energy", 100), ("b", "energy", 0))
    made.append(Genesis(1, 1_000, 10, actors, (Resource("energy", "kWh", 0),), limits, opening, {}), 1_000)
    made.give(Kind.PRODUCE, "pv", [Request("a", "energy", 10), Request("b", "energy", 20)], 1_001)
    made.propose(Proposal("1", "p", 1, (Transfer("a", "b", "energy", 5), Transfer("b", "a", "energy", 1)), ""), 1_002)
    made.propose(Proposal("2", "p", 2, (Transfer("a", "b", "energy", 60),), ""), 1_003)
    made.close(1_004)
    made.register(Registration((Actor("c", "node"),)), 1_005)
    made.settle("2", "approve", 1_006)
    made.take("load", [Request("b", "energy", 1_000)], 1_007)
    made.close(1_008)
    made.pause(1_009, "ann", "why")
    made.constrain(limits, 1_010)
    return made


@pytest.fixture
def records(engine):
    return list(engine.ledger.records())


@pytest.fixture
def lines(records):
    return [(record.body, record.digest) for record in records]


def chained_anew(bodies):
    """Bodies with digests that are right: what somebody would do who rewrites a tail."""
    previous, found = START, []
    for body in bodies:
        previous = hashlib.sha256(b"gridgov/1\n" + previous + body.encode()).digest()
        found.append((body, previous))
    return found


def same_state(one, other):
    return all(getattr(one, name) == getattr(other, name) for name in State.__slots__)


# --- record by record -------------------------------------------------------------------------------------------------


def test_records_come_to_the_state_that_the_engine_has(engine, records, lines):
    assert same_state(replay(records), engine.state)
    assert same_state(replay(chain(lines)), engine.state)


def test_each_record_makes_the_entries_that_the_ledger_has(engine, records):
    state = State()
    made: list[LedgerEntry] = []
    for record in records:
        entries = fold(state, record)
        assert {entry.seq for entry in entries} <= {record.seq}
        made += entries
    assert made == list(engine.ledger.entries())
    assert [entry.id for entry in made] == list(range(1, 8))
    assert [entry.epoch for entry in made] == [0, 1, 1, 1, 1, 2, 2]


def test_no_record_at_all_comes_to_the_empty_state():
    assert same_state(replay([]), State())


@pytest.mark.parametrize(
    ("epoch", "balances"),
    [
        (0, {"grid": -100, "a": 100, "b": 0}),
        (1, {"grid": -130, "a": 106, "b": 24}),
        (2, {"grid": -46, "a": 46, "b": 0}),
    ],
)
def test_replays_to_the_close_of_an_epoch(records, epoch, balances):
    state = replay(records, epoch=epoch)
    assert state.balances == {"energy": balances}
    assert (state.epoch, state.world_state(epoch).epoch) == (epoch + 1, epoch)


@pytest.mark.parametrize(("entry", "seq"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 7), (7, 8)])
def test_replays_to_the_record_that_made_an_entry(records, entry, seq):
    assert replay(records, entry=entry).seq == seq


@pytest.mark.parametrize("where", [{"epoch": 3}, {"entry": 8}, {"epoch": -1}, {"entry": 0}])
def test_replay_to_what_never_was_is_an_error(records, where):
    with pytest.raises(KeyError, match=str(*where.values())):
        replay(records, **where)


# --- the chain --------------------------------------------------------------------------------------------------------


def found_at(lines):
    """The number of the record that the chain says is wrong; None where all is well."""
    try:
        list(chain(lines))
    except Damaged as damaged:
        return int(str(damaged).removeprefix("journal record ").partition(":")[0])
    return None


def test_chain_gives_the_records_themselves(records, lines):
    assert list(chain(lines)) == records
    assert list(chain([])) == []


def test_chain_gives_each_record_before_it_asks_for_the_next(lines):
    assert [record.seq for record, _ in zip(chain(iter(lines)), range(3), strict=False)] == [1, 2, 3]


@pytest.mark.parametrize("index", range(11))
def test_finds_a_changed_body(lines, index):
    body, kept = lines[index]
    for changed in (
        body.replace("energy", "enerqy"),
        body[:-1] + " }",
        body.replace('"at":1', '"at":2', 1),
        body + "\n",
    ):
        if changed != body:
            assert found_at([*lines[:index], (changed, kept), *lines[index + 1 :]]) == index + 1


@pytest.mark.parametrize("index", range(11))
def test_finds_a_changed_digest(lines, index):
    body, kept = lines[index]
    for changed in (kept[:-1] + bytes([kept[-1] ^ 1]), kept[:-1], b"", START):
        assert found_at([*lines[:index], (body, changed), *lines[index + 1 :]]) == index + 1


@pytest.mark.parametrize("index", range(10))
def test_finds_a_record_that_was_cut_out(lines, index):
    assert found_at([*lines[:index], *lines[index + 1 :]]) == index + 1


@pytest.mark.parametrize("index", range(11))
def test_finds_a_record_that_was_put_in(lines, index):
    assert found_at([*lines[: index + 1], lines[index], *lines[index + 1 :]]) == index + 2
    other = seal(lines[index][1], index + 2, 1, 2_000, Control(True))
    put_in = [*lines[: index + 1], (other.body, other.digest), *lines[index + 1 :]]
    assert found_at(put_in) == (index + 3 if index < 10 else None), "one at the end is a record like any other"


@pytest.mark.parametrize("index", range(10))
def test_finds_records_that_were_swapped(lines, index):
    swapped = [*lines[:index], lines[index + 1], lines[index], *lines[index + 2 :]]
    assert found_at(swapped) == index + 1


@pytest.mark.parametrize("index", range(1, 11))
def test_does_not_find_a_tail_that_was_cut_off(engine, lines, index):
    """Nothing inside a chain tells how long it should be: that takes a head that was noted outside."""
    assert found_at(lines[:index]) is None
    assert list(chain(lines[:index]))[-1].digest != engine.state.digest


def test_does_not_find_a_tail_that_was_rewritten(lines):
    bodies = [body.replace('"reason":"why"', '"reason":"because"') for body, _ in lines]
    rewritten = chained_anew(bodies)
    assert found_at(rewritten) is None
    assert rewritten[-1] != lines[-1]


@pytest.mark.parametrize("index", range(1, 11))
def test_finds_a_wrong_number_though_digests_are_right(lines, index):
    bodies = [body for body, _ in lines]
    assert found_at(chained_anew([*bodies[:index], *bodies[index + 1 :]])) == (index + 1 if index < 10 else None)
    assert found_at(chained_anew([*bodies[:index], bodies[index - 1], *bodies[index:]])) == index + 1


def test_says_which_number_a_record_gives_itself(lines):
    bodies = [body for body, _ in lines]
    with pytest.raises(Damaged, match=r"^journal record 3: says that it is number 4$"):
        list(chain(chained_anew([*bodies[:2], bodies[3]])))


def test_finds_time_that_goes_back_though_digests_are_right(lines):
    bodies = [body for body, _ in lines]
    bodies[4] = bodies[4].replace('"at":1004', '"at":1002')
    with pytest.raises(Damaged, match=r"^journal record 5: its time goes back$"):
        list(chain(chained_anew(bodies)))
    bodies[4] = bodies[4].replace('"at":1002', '"at":1003')
    assert found_at(chained_anew(bodies)) is None


@pytest.mark.parametrize(
    "body",
    [
        "",
        "nonsense",
        "[" * 100_000,
        '{"at":"x","epoch":1,"kind":"control","payload":{"paused":true},"seq":4}',
        '{"at":1003,"epoch":1,"kind":"registration","payload":{"actors":[],"mandates":[]},"seq":4}',
        '{"at":1003,"epoch":1,"kind":"proposal","payload":{"transfers":[{"amount":"x","from":"","resource":"","to":""}]},'
        '"seq":4}',
        '{"at":1003,"epoch":1,"kind":"genesis","payload":{},"seq":4}',
    ],
)
def test_finds_what_is_no_record_though_digests_are_right(lines, body):
    bodies = [body for body, _ in lines]
    with pytest.raises(Damaged, match=r"^journal record 4: its body is no record \("):
        list(chain(chained_anew([*bodies[:3], body, *bodies[4:]])))


def test_finds_text_that_has_no_bytes(lines):
    assert found_at([*lines[:3], ("\ud800", lines[3][1]), *lines[4:]]) == 4


def test_first_record_is_the_genesis(records):
    close = seal(START, 1, 0, 0, Close(0, {}))
    assert found_at([(close.body, close.digest)]) == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.floats() | st.sampled_from(("", "a", "energy", "close")),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(("a", "from")), inner, max_size=2),
    max_leaves=4,
)


@given(st.integers(0, 10), st.data())
def test_whatever_a_rewritten_record_says_is_either_read_or_named(engine, index, data):
    """Any value in any place of any record, with digests that are right: no other error than Damaged comes out."""
    bodies = [record.body for record in engine.ledger.records()]
    body: Any = json.loads(bodies[index])
    holder, key = body, data.draw(st.sampled_from(sorted(body)))
    while isinstance(holder[key], dict | list) and holder[key] and data.draw(st.booleans()):
        holder = holder[key]
        key = data.draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
    holder[key] = data.draw(json_values)
    lines = chained_anew([*bodies[:index], json.dumps(body), *bodies[index + 1 :]])
    assert found_at(lines) in (None, index + 1, index + 2)


# --- columns ----------------------------------------------------------------------------------------------------------


def naive(entries, actors, resources, epoch=None):
    """Balances by adding up, one entry after the other, in Python's own integers."""
    found = {(actor, resource): 0 for actor in actors for resource in resources}
    for entry in entries:
        if epoch is None or entry.epoch <= epoch:
            found[entry.actor_from, entry.resource] -= entry.amount
            found[entry.actor_to, entry.resource] += entry.amount
    return [[found[actor, resource] for resource in resources] for actor in actors]


@given(st.one_of(strategies.ledgers(), strategies.ledgers(100)))
def test_columns_come_to_what_adding_up_comes_to(ledger):
    actors, resources, entries = ledger
    table = columns(entries, actors, resources)
    assert balances_at(table).tolist() == naive(entries, actors, resources)
    for epochs in (0, 2, 4, 6):
        every = balances_every(table, epochs)
        assert every.shape == (epochs + 1, len(actors), len(resources))
        assert every.dtype == np.int64
        for epoch in range(epochs + 1):
            assert every[epoch].tolist() == naive(entries, actors, resources, epoch)
            assert balances_at(table, epoch).tolist() == naive(entries, actors, resources, epoch)


@pytest.mark.parametrize(
    ("amount", "count"),
    [(BIG, 1), (BIG, 9), (BIG, 10), (BIG, 1_001), (2**40 + 1, 2**13), (2**40 - 1, 2**13), (1, 10_001)],
)
def test_columns_are_exact_where_a_float_would_not_be(amount, count):
    """Sums beyond 2**53, some of them odd, which no float64 could hold."""
    entries = [
        LedgerEntry(i, None, "grid", "ab"[i % 2], "energy", amount - (i % 3 == 0), 0, i, i % 4, Kind.PRODUCE)
        for i in range(1, count + 1)
    ]
    entries.sort(key=lambda entry: entry.epoch)
    table = columns(entries, ("grid", "a", "b"), ("energy",))
    assert balances_at(table).tolist() == naive(entries, ("grid", "a", "b"), ("energy",))
    assert balances_every(table, 3)[-1].tolist() == naive(entries, ("grid", "a", "b"), ("energy",))


def test_columns_hold_codes_of_actors_and_resources():
    entries = [LedgerEntry(1, None, "grid", "b", "water", 7, 0, 1, 3, Kind.GENESIS)]
    table = columns(entries, ("grid", "a", "b"), ("energy", "water"))
    assert (table.actors, table.resources) == (("grid", "a", "b"), ("energy", "water"))
    found = [table.actor_from, table.actor_to, table.resource, table.amount, table.epoch]
    assert [column.tolist() for column in found] == [[0], [2], [1], [7], [3]]
    assert {column.dtype for column in found} == {np.dtype(np.int64)}


def test_empty_ledger_has_balances_of_0():
    table = columns([], ("grid", "a"), ("energy", "water"))
    assert balances_at(table).tolist() == [[0, 0], [0, 0]]
    assert balances_every(table, 2).tolist() == [[[0, 0], [0, 0]]] * 3


def test_columns_agree_with_the_fold_at_every_close(engine, records):
    table = columns(engine.ledger.entries(), ("grid", "a", "b", "c"), ("energy",))
    every = balances_every(table, 2)
    for epoch in range(3):
        held = replay(records, epoch=epoch).balances["energy"]
        assert every[epoch].ravel().tolist() == [held.get(actor, 0) for actor in ("grid", "a", "b", "c")]
