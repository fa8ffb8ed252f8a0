"""What the engine may rely on in any ledger: one contract, run on each."""

from itertools import count
from typing import Any

import pytest

from gridgov.engine import Engine
from gridgov.flows import Request
from gridgov.journal import START, Close, Control, Genesis, seal
from gridgov.ledger import MemoryLedger
from gridgov.model import (
    Actor,
    Constraints,
    Kind,
    LedgerEntry,
    Limit,
    Malformed,
    Outcome,
    Proposal,
    Resource,
    Transfer,
    Unavailable,
)
from gridgov.postgres import PostgresLedger, drop, migrate

pytest_plugins = ["tests.databases"]


class MemoryLedgers:
    """Ledgers in memory; opened again, it is the same one."""

    needs = ()

    def empty(self):
        """A new ledger with nothing in it."""
        return MemoryLedger()

    def again(self, ledger):
        """What another process would open after this one committed and went away."""
        return ledger

    def drop(self, ledger):
        """The ledger is no longer needed."""


class PostgresLedgers:
    """Ledgers in Postgres, each in a schema of its own, all in one database of the session."""

    needs = ("server",)
    numbers = count(1)

    def __init__(self, server):
        self.url = server.url(server.template("ledgers", str))
        self.opened = []

    def empty(self):
        """A new ledger with nothing in it."""
        grid = f"ledger_{next(self.numbers)}"
        migrate(self.url, grid)
        return self.open(grid)

    def open(self, grid):
        """Another session on a grid."""
        self.opened.append(PostgresLedger(self.url, grid))
        return self.opened[-1]

    def again(self, ledger):
        """What another process would open after this one committed and went away."""
        return self.open(ledger.grid)

    def drop(self, ledger):
        """The ledger is no longer needed."""
        for opened in self.opened:
            opened.close()
        drop(self.url, ledger.grid)


LEDGERS: dict[str, Any] = {"memory": MemoryLedgers, "postgres": PostgresLedgers}
"""A new kind of ledger is added here, and has the whole contract and the engine's machine to pass."""

GENESIS = Genesis(
    1,
    1_000,
    60_000_000,
    (Actor("grid", "boundary"), Actor("a", "node"), Actor("b", "node")),
    (Resource("energy", "kWh", 3),),
    Constraints(hold_above=Limit({"energy": 500}, {})),
    (("a", "energy", 1000), ("b", "energy", 0)),
    {},
)


@pytest.fixture(params=sorted(LEDGERS))
def ledgers(request):
    kind = LEDGERS[request.param]
    return kind(*map(request.getfixturevalue, kind.needs))


@pytest.fixture
def ledger(ledgers):
    made = ledgers.empty()
    yield made
    ledgers.drop(made)


def proposal(id_, *amounts):
    return Proposal(id_, "planner", 1, tuple(Transfer("a", "b", "energy", n) for n in amounts), "because")


def outcomes(engine):
    """One decision of each outcome, by outcome."""
    engine.append(GENESIS, 1_000)
    found = [
        engine.propose(proposal("00000000-0000-5000-8000-000000000001", 100, 200), 1_001),
        engine.propose(proposal("00000000-0000-5000-8000-000000000002", 5000), 1_002),
        engine.propose(proposal("00000000-0000-5000-8000-000000000003", 600), 1_003),
        engine.propose(proposal("00000000-0000-5000-8000-000000000004"), 1_004),
        engine.fail("00000000-0000-5000-8000-000000000005", "p", 1, Malformed("truncated", "at 7", b"{"), 1_005),
        engine.fail("00000000-0000-5000-8000-000000000006", "p", 1, Unavailable("quota", "429"), 1_006),
    ]
    return {decision.outcome: decision for decision in found}


def test_empty_ledger_has_nothing(ledger):
    assert list(ledger.records()) == []
    assert list(ledger.entries()) == []
    assert ledger.answered("00000000-0000-5000-8000-000000000001") is None


def test_keeps_records_and_entries_in_order(ledgers, ledger):
    first = seal(START, 1, 0, 1_000, GENESIS)
    entry = LedgerEntry(1, None, "grid", "a", "energy", 1000, 1_000, 1, 0, Kind.GENESIS)
    second = seal(first.digest, 2, 1, 1_001, Control(True, "someone", "why not"))
    third = seal(second.digest, 3, 1, 1_002, Close(1, {"energy": -1000}))
    ledger.append(first, (entry,))
    ledger.append(second, ())
    ledger.commit()
    ledger.append(third, ())
    ledger.commit()
    for opened in (ledger, ledgers.again(ledger)):
        assert list(opened.records()) == [first, second, third]
        assert list(opened.records()) == [first, second, third], "they can be read again"
        assert list(opened.entries()) == [entry]


def test_refuses_a_record_that_does_not_follow_the_last(ledger):
    first = seal(START, 1, 0, 1_000, GENESIS)
    with pytest.raises(AssertionError, match="in order"):
        ledger.append(seal(START, 2, 0, 1_000, GENESIS), ())
    ledger.append(first, ())
    for seq in (1, 3):
        with pytest.raises(AssertionError, match="in order"):
            ledger.append(seal(first.digest, seq, 1, 1_001, Control(True)), ())
    ledger.commit()
    assert list(ledger.records()) == [first]


def test_finds_the_decision_of_each_outcome_by_its_id(ledgers, ledger):
    found = outcomes(Engine(ledger))
    ledger.commit()
    assert set(found) == set(Outcome)
    for opened in (ledger, ledgers.again(ledger)):
        for decision in found.values():
            assert opened.answered(decision.proposal_id).payload == decision
        assert opened.answered("00000000-0000-5000-8000-000000000009") is None


def test_decision_under_an_id_stays_the_first_after_its_hold_is_settled(ledgers, ledger):
    engine = Engine(ledger)
    held = outcomes(engine)[Outcome.HELD]
    engine.settle(held.proposal_id, "approve", 1_010, "op", "fine")
    ledger.commit()
    assert ledgers.again(ledger).answered(held.proposal_id).payload == held


def test_engine_goes_on_where_another_left_off(ledgers, ledger):
    engine = Engine(ledger)
    outcomes(engine)
    engine.give(Kind.PRODUCE, "pv", [Request("a", "energy", 50)], 1_010)
    engine.close(1_020)
    resumed = Engine(ledgers.again(ledger))
    for name in type(engine.state).__slots__:
        assert getattr(resumed.state, name) == getattr(engine.state, name), name
    record = resumed.append(Control(True, "op", "maintenance"), 1_030)
    assert (record.seq, record.epoch) == (10, 2)
