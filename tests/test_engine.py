"""The engine against an oracle that shares no code with it, step by step; and what only a story can show."""

from collections import Counter
from decimal import Decimal
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gridgov import replay, wire
from gridgov.amounts import to_minor
from gridgov.decide import decide
from gridgov.engine import Engine, Metered
from gridgov.errors import BadInput, Conflict
from gridgov.flows import Request
from gridgov.journal import Activation, Close, ConstraintsChange, Genesis, Once, Registration, by_request, decode
from gridgov.ledger import MemoryLedger
from gridgov.model import (
    Actor,
    AutoPause,
    Code,
    Constraints,
    Kind,
    Limit,
    Malformed,
    Outcome,
    Proposal,
    Resource,
    Seen,
    Transfer,
    Unavailable,
    Violation,
    uuid5,
)
from gridgov.state import State
from tests import strategies
from tests.oracle import GRID, Ask, Clash, Never, Oracle, TooMuch
from tests.strategies import FOUNDERS, LATER, PROPOSERS, RESOURCES, SCALES
from tests.test_ledger import LEDGERS

ACTORS = (GRID, *FOUNDERS)
RECORD_KINDS = {"decision": "proposal"}
"""What the journal calls facts that the oracle calls otherwise."""


def in_units(minor, resource):
    return Fraction(minor, 10 ** SCALES[resource])


def both(asked):
    """An ask as a transfer of the engine's and as one of the oracle's."""
    giver, taker, resource, amount = asked
    units = strategies.units(amount, SCALES.get(resource, 0)) if isinstance(amount, int) else amount
    minor = to_minor(units, SCALES[resource]) if resource in SCALES else None
    transfer = Transfer(giver, taker, resource, units if minor is None else minor)
    return transfer, Ask(giver, taker, resource, Fraction(units))


def pointer(path):
    """An oracle's path, written as the engine writes it."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def told(violation):
    """A violation of the engine's with its amounts in units, to be compared with the oracle's."""

    def value(found):
        if isinstance(found, str) and violation.path.endswith("amount"):
            return Fraction(Decimal(found))
        if isinstance(found, int) and violation.resource is not None:
            return in_units(found, violation.resource)
        return found

    return violation.code.value, violation.path, value(violation.limit), value(violation.actual)


def expected(faults):
    return [(fault.code, pointer(fault.path), fault.limit, fault.actual) for fault in faults]


class GridMachine(RuleBasedStateMachine):
    """Does to an engine and to an oracle the same, and compares all that can be seen after every step."""

    ledgers = LEDGERS["memory"]()
    met: ClassVar[Counter] = Counter()

    def __init__(self):
        super().__init__()
        self.ledger = self.ledgers.empty()
        self.engine = Engine(self.ledger)
        self.oracle = None
        self.shadow = State()
        self.chained = replay.chain(self._lines())
        self.checked = 0
        self.entries_checked = 0
        self.inputs = []
        self.looks = []
        self.closed = {}

    def _lines(self):
        seq = 0
        while True:
            record = self.records[seq]
            seq += 1
            yield record.body, record.digest

    def now(self):
        """Mostly later, sometimes earlier than the last time."""
        return 1_000_000 + 10 * len(self.oracle.past) - 25 * (len(self.oracle.past) % 3)

    def constraints(self, found):
        return wire.constraints_from_json(found, RESOURCES, (*FOUNDERS, LATER))

    @initialize(constraints=strategies.constraints_in_units, opening=strategies.openings)
    def genesis(self, constraints, opening):
        actors = [("grid", "boundary"), *((name, "node") for name in FOUNDERS)]
        units = [(actor, resource, in_units(n, resource)) for actor, resource, n in opening]
        self.oracle = Oracle(actors, SCALES, constraints, units, 1_000_000)
        genesis = Genesis(
            7,
            1_000_000,
            3_600_000_000,
            tuple(Actor(*actor) for actor in actors),
            tuple(RESOURCES.values()),
            self.constraints(constraints),
            opening,
            {"note": "⚡"},
        )
        self.engine.append(genesis, 1_000_000)

    # --- proposals ----------------------------------------------------------------------------------------------------

    def _seen(self, which):
        if which is None:
            return None
        return self.oracle.look() if which == 0 else self.looks[max(0, len(self.looks) - which)]

    @rule(
        proposer=st.sampled_from(PROPOSERS),
        asks=st.lists(strategies.asks, max_size=4),
        seen=st.sampled_from((None, 0, 0, 0, 2, 6)),
        reasoning=st.sampled_from(("", "because")),
    )
    def propose(self, proposer, asks, seen, reasoning):
        pairs = [both(asked) for asked in asks]
        self._propose(proposer, pairs, self._seen(seen), reasoning)

    @rule(asks=st.lists(strategies.plain_asks, min_size=1, max_size=3))
    def propose_plainly(self, asks):
        if self.oracle.paused():
            self.resume()
        self._propose("planner", [both(asked) for asked in asks], None, "")

    @rule(ask=strategies.plain_asks, others=st.lists(strategies.asks, max_size=1))
    def propose_anew(self, ask, others):
        if self.oracle.paused():
            self.resume()
        self._propose("self", [both(asked) for asked in (ask, *others)], self.oracle.look(), "anew")

    def _propose(self, proposer, pairs, seen, reasoning):
        id_ = uuid5(str(len(self.inputs)))
        self.inputs.append((id_, proposer, pairs, reasoning))
        self._ask(id_, proposer, pairs, seen, reasoning, fresh=True)

    def _ask(self, id_, proposer, pairs, seen, reasoning, fresh):
        at = self.now()
        transfers = tuple(transfer for transfer, _ in pairs)
        proposal = Proposal(id_, proposer, 1, transfers, reasoning, Seen(*seen) if seen else None)
        foreseen = decide(self.engine.state, proposal)
        decision = self.engine.propose(proposal, at)
        fact = self.oracle.propose(id_, proposer, [ask for _, ask in pairs], reasoning, at, seen)
        if fresh:
            assert decision == foreseen
        self._same_decision(decision, fact)

    def _same_decision(self, decision, fact):
        assert decision.outcome == fact.what["outcome"]
        assert [told(violation) for violation in decision.violations] == expected(fact.what["faults"])
        assert list(decision.entries) == [entry.id for entry in fact.entries]
        assert decision.held_until == fact.what["until"]
        assert decision.state_moved == fact.what["state_moved"]

    @rule(
        proposer=st.sampled_from(PROPOSERS),
        asks=st.lists(st.tuples(strategies.plain_asks, st.integers(0, 8)), min_size=1, max_size=2),
    )
    def ration(self, proposer, asks):
        """An allocation grants a part of what is asked for, perhaps nothing."""
        at, id_ = self.now(), uuid5(str(len(self.inputs)))
        asked = [both(ask) for ask, _ in asks]
        granted = [both((*ask[:3], min(ask[3], ask[3] * part // 4))) for ask, part in asks]
        self.inputs.append((id_, proposer, asked, "rationed"))
        decision = self.engine.propose(
            Proposal(id_, proposer, 1, tuple(t for t, _ in granted), "rationed"),
            at,
            asked=tuple(t for t, _ in asked),
        )
        shares = [ask for _, ask in granted]
        fact = self.oracle.propose(id_, proposer, [a for _, a in asked], "rationed", at, granted=shares)
        self._same_decision(decision, fact)
        assert [in_units(t.amount, t.resource) for t in decision.effective] == [a.amount for a in shares]

    @rule(proposer=st.sampled_from(PROPOSERS), fault=strategies.faults)
    def fail(self, proposer, fault):
        at, id_ = self.now(), uuid5(str(len(self.inputs)))
        decision = self.engine.fail(id_, proposer, 1, fault, at)
        outcome, said = self._said(fault)
        self._same_decision(decision, self.oracle.fail(id_, proposer, outcome, said, at))
        assert (decision.fault, decision.detail) == (fault[0], fault.detail)
        self.inputs.append((id_, proposer, fault, None))

    @staticmethod
    def _said(fault):
        return ("malformed", fault.raw) if isinstance(fault, Malformed) else ("unavailable", fault.kind)

    @precondition(lambda self: self.inputs)
    @rule(index=st.integers(0, 50), seen=st.sampled_from((None, 0, 6)))
    def repeat(self, index, seen):
        """The same again under the same id: the decision of the first time, and no record."""
        id_, proposer, said, reasoning = self.inputs[index % len(self.inputs)]
        if reasoning is not None:
            self._ask(id_, proposer, said, self._seen(seen), reasoning, fresh=False)
        else:
            decision = self.engine.fail(id_, proposer, 1, said, self.now())
            self._same_decision(decision, self.oracle.fail(id_, proposer, *self._said(said), self.now()))

    @precondition(lambda self: self.inputs)
    @rule(index=st.integers(0, 50), asks=st.lists(strategies.plain_asks, max_size=1), fault=strategies.faults)
    def repeat_with_other_input(self, index, asks, fault):
        """Something else under an id that was used; now and then it is the same after all."""
        id_, proposer, _, _ = self.inputs[index % len(self.inputs)]
        pairs = [both(asked) for asked in asks]
        proposal = Proposal(id_, proposer, 1, tuple(t for t, _ in pairs), "")
        try:
            self.oracle.propose(id_, proposer, [ask for _, ask in pairs], "", self.now())
        except Clash:
            with pytest.raises(Conflict, match=id_):
                self.engine.propose(proposal, self.now())
        else:
            self.engine.propose(proposal, self.now())
        try:
            self.oracle.fail(id_, proposer, *self._said(fault), self.now())
        except Clash:
            with pytest.raises(Conflict, match=id_):
                self.engine.fail(id_, proposer, 1, fault, self.now())
        else:
            self.engine.fail(id_, proposer, 1, fault, self.now())

    @precondition(lambda self: self.oracle.holds())
    @rule(index=st.integers(0, 9), decision=st.sampled_from(("approve", "approve", "reject")))
    def settle(self, index, decision):
        holds, at = self.oracle.holds(), self.now()
        id_ = holds[index % len(holds)].what["id"]
        settlement = self.engine.settle(id_, decision, at, "operator", "reason")
        self._same_settlement(settlement, self.oracle.settle(id_, decision, at))
        with pytest.raises(BadInput, match=id_):
            self.engine.settle(id_, decision, at)

    def _same_settlement(self, settlement, fact):
        assert settlement.proposal_id == fact.what["id"]
        assert settlement.decision == fact.what["decision"]
        assert settlement.outcome == fact.what["outcome"]
        assert [told(violation) for violation in settlement.violations] == expected(fact.what["faults"])
        assert list(settlement.entries) == [entry.id for entry in fact.entries]

    # --- flows and time -----------------------------------------------------------------------------------------------

    @rule(kind=st.sampled_from((Kind.PRODUCE, Kind.GROW)), requests=st.lists(strategies.requests(60), max_size=3))
    def give(self, kind, requests):
        at = self.now()
        try:
            fact = self.oracle.give(kind.value, "sun", self._asked(requests), at)
        except TooMuch:
            with pytest.raises(BadInput, match="15 digits"):
                self.engine.give(kind, "sun", [Request(*request) for request in requests], at)
        else:
            self._same_flow(self.engine.give(kind, "sun", [Request(*request) for request in requests], at), fact)

    @rule(requests=st.lists(strategies.requests(40), max_size=3))
    def need(self, requests):
        at = self.now()
        flow = self.engine.need("load", [Request(*request) for request in requests], at)
        self._same_flow(flow, self.oracle.need("load", self._asked(requests), at))

    @rule(requests=st.lists(strategies.requests(25), max_size=3))
    def consume(self, requests):
        at = self.now()
        flow = self.engine.take("load", [Request(*request) for request in requests], at)
        self._same_flow(flow, self.oracle.take("consume", "load", self._asked(requests), at))

    @rule(storage=st.lists(strategies.requests(100), max_size=3, unique_by=lambda request: request[:2]))
    def spill(self, storage):
        at = self.now()
        flow = self.engine.spill({(actor, resource): most for actor, resource, most in storage}, at)
        most = {(actor, resource): in_units(n, resource) for actor, resource, n in storage}
        self._same_flow(flow, self.oracle.spill(most, at))

    def _asked(self, requests):
        return [(actor, resource, in_units(amount, resource)) for actor, resource, amount in requests]

    def _same_flow(self, flow, fact):
        assert (flow.kind, flow.name) == (fact.what["kind"], fact.what["name"])
        readings = [
            (r.actor, r.resource, in_units(r.requested, r.resource), in_units(r.applied, r.resource))
            for r in flow.readings
        ]
        assert readings == fact.what["readings"]
        assert [r.entry for r in flow.readings if r.entry is not None] == [entry.id for entry in fact.entries]

    @precondition(lambda self: len(self.looks) % 3 == 0)
    @rule(epochs=st.integers(1, 2), expire=st.sampled_from((True, True, False)))
    def close(self, epochs, expire):
        for _ in range(epochs):
            self._close(expire)

    @precondition(lambda self: self.oracle.holds())
    @rule()
    def close_until_a_hold_expires(self):
        waiting = self.oracle.holds()[0]
        while waiting in self.oracle.holds():
            self._close(True)

    def _close(self, expire):
        at = self.now()
        if expire:
            settlements, facts = self.engine.expire(at), self.oracle.expire(at)
            assert len(settlements) == len(facts)
            for settlement, fact in zip(settlements, facts, strict=True):
                self._same_settlement(settlement, fact)
        self.closed[self.oracle.epoch()] = {r: dict(held) for r, held in self.engine.state.balances.items()}
        record, fact = self.engine.close(at), self.oracle.close(at)
        payload: Any = record.payload
        assert payload.entries == fact.what["entries"]
        assert {r: in_units(n, r) for r, n in payload.boundary.items()} == fact.what["boundary"]

    # --- people -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.looks) % 6 == 0)
    @rule(constraints=strategies.constraints_in_units)
    def constrain(self, constraints):
        at = self.now()
        self.engine.constrain(self.constraints(constraints), at, "operator", "reason")
        self.oracle.constrain(constraints, at)

    @precondition(lambda self: len(self.looks) % 4 == 0)
    @rule(joins=st.booleans(), frozen=strategies.freezings, mandates=strategies.mandates)
    def register(self, joins, frozen, mandates):
        at = self.now()
        joining = [(LATER, "node")] if joins and not self.oracle.known(LATER) else []
        actors = tuple(Actor(*actor) for actor in joining)
        self.engine.register(Registration(actors, frozen, mandates, "operator", "reason"), at)
        self.oracle.register(joining, frozen, mandates, at)

    @precondition(lambda self: len(self.looks) % 8 == 0)
    @rule()
    def pause(self):
        at = self.now()
        self.engine.pause(at, "operator", "reason")
        self.oracle.control(True, at)

    @precondition(lambda self: self.oracle.paused())
    @rule()
    def resume(self):
        at = self.now()
        self.engine.resume(at, "operator", "reason")
        self.oracle.control(False, at)

    @rule(asks=st.lists(strategies.asks, max_size=2), others=st.lists(strategies.plain_asks, max_size=2))
    def override(self, asks, others):
        """A transfer by hand; sent twice, it counts once."""
        at, pairs = self.now(), [both(asked) for asked in (*others, *asks)]
        transfers, once = tuple(transfer for transfer, _ in pairs), self._once()
        try:
            fact = self.oracle.override([ask for _, ask in pairs], at)
        except Never:
            with pytest.raises(BadInput):
                self.engine.override(transfers, at, "operator", "reason", once=once)
            return
        self._same_by_hand(lambda: self.engine.override(transfers, at, "operator", "reason", once=once), fact, once)

    @precondition(lambda self: self.oracle.entries())
    @rule(back=st.lists(st.integers(0, 30), min_size=1, max_size=2, unique=True))
    def reverse(self, back):
        """Entries of the last are taken back; sent twice, that counts once."""
        at, there = self.now(), self.ledger.entries()
        found = [there[len(there) - 1 - n] for n in back if n < len(there)]
        once = self._once()
        try:
            fact = self.oracle.reverse([entry.id for entry in found], at)
        except Never:
            with pytest.raises(BadInput):
                self.engine.reverse(found, at, "operator", "reason", once=once)
            return
        self._same_by_hand(lambda: self.engine.reverse(found, at, "operator", "reason", once=once), fact, once)

    def _once(self):
        return Once(uuid5(f"request/{len(self.oracle.past)}"), "00" * 32)

    def _same_by_hand(self, ask, fact, once):
        record = ask()
        payload: Any = record.payload
        assert ask() == record == self.ledger.answered(by_request(once.request))
        assert (record.seq, record.kind, payload.outcome) == (fact.seq, fact.kind, fact.what["by_hand"])
        assert [told(violation) for violation in payload.violations] == expected(fact.what["faults"])
        assert list(payload.entries) == [entry.id for entry in fact.entries]
        with pytest.raises(Conflict, match="other things"):
            self.engine.pause(record.at, "operator", "reason", once=once._replace(input="11" * 32))

    # --- what holds after every step ----------------------------------------------------------------------------------

    @invariant()
    def agree(self):
        if self.oracle is None:
            return
        self.ledger.commit()
        self.records = list(self.ledger.records())
        self._same_records()
        self._same_entries()
        self._same_balances()
        self._same_everything_else()
        self._same_replayed()
        self.looks.append(self.oracle.look())

    def _same_records(self):
        assert len(self.records) == len(self.oracle.past)
        for record, fact in zip(self.records[self.checked :], self.oracle.past[self.checked :], strict=True):
            assert record.kind == RECORD_KINDS.get(fact.kind, fact.kind)
            assert (record.seq, record.epoch, record.at) == (fact.seq, fact.epoch, fact.at)
            assert decode(record.body, record.digest) == record

    def _same_entries(self):
        entries = self.ledger.entries()[self.entries_checked :]
        shown = [
            (*entry[:5], in_units(entry.amount, entry.resource), *entry[6:9], entry.kind.value) for entry in entries
        ]
        assert shown == [tuple(entry) for entry in self.oracle.entries()[self.entries_checked :]]
        self.entries_checked += len(entries)

    def _same_balances(self):
        state, oracle = self.engine.state, self.oracle
        for resource in SCALES:
            assert sum(state.balances[resource].values()) == 0
            for actor in (*ACTORS, LATER):
                balance, reserved = state.balance(actor, resource), state.reserved[resource].get(actor, 0)
                assert in_units(balance, resource) == oracle.balance(actor, resource)
                assert in_units(reserved, resource) == oracle.reserved(actor, resource)
                assert in_units(state.available(actor, resource), resource) == oracle.available(actor, resource)
                assert actor == GRID or 0 <= reserved <= balance < 10**15

    def _same_everything_else(self):
        state, oracle = self.engine.state, self.oracle
        assert state.seen == Seen(*oracle.look())
        assert list(state.holds) == [fact.what["id"] for fact in oracle.holds()]
        world = state.world_state()
        assert (world.epoch, world.at, world.paused) == (oracle.epoch(), oracle.past[-1].at, oracle.paused())
        assert [(view.id, view.type) for view in world.actors] == oracle.actors()
        for view in world.actors:
            assert set(view.balances) == oracle.listed(view.id)
            assert {r: in_units(n, r) for r, n in view.needs.items()} == oracle.needs(view.id)
            assert view.frozen == oracle.frozen(view.id)
            for resource, amount in view.balances.items():
                assert in_units(amount, resource) == oracle.balance(view.id, resource)
                sent = state.sent[resource].get(view.id, 0)
                assert in_units(sent, resource) == oracle.sent(view.id, resource)

    def _same_replayed(self):
        for record in self.records[self.checked :]:
            fold_entries = replay.fold(self.shadow, next(self.chained))
            assert list(fold_entries) == [e for e in self.ledger.entries() if e.seq == record.seq]
        self.checked = len(self.records)
        same_state(self.shadow, self.engine.state)

    def teardown(self):
        if self.oracle is not None:
            self._count()
            self._whole_journal()
            self._in_columns()
        self.ledgers.drop(self.ledger)

    def _count(self):
        """Notes what has come up, so that it shows when the machine no longer reaches something."""
        for fact in self.oracle.past:
            self.met[fact.what.get("decision", ""), fact.what.get("outcome", fact.kind)] += 1
            self.met[fact.kind, fact.what.get("by_hand", "")] += 1
            self.met.update(fault.code for fault in fact.what.get("faults", ()))
        self.met["steps"] += len(self.looks)

    def _whole_journal(self):
        lines = [(record.body, record.digest) for record in self.records]
        same_state(replay.replay(replay.chain(lines)), self.engine.state)
        same_state(Engine(self.ledgers.again(self.ledger)).state, self.engine.state)
        for epoch, balances in self.closed.items():
            assert replay.replay(self.records, epoch=epoch).balances == balances

    def _in_columns(self):
        actors, resources = (*ACTORS, LATER), tuple(SCALES)
        ledger = replay.columns(self.ledger.entries(), actors, resources)
        last = self.engine.state.epoch
        every = replay.balances_every(ledger, last)
        closed = {**self.closed, last: self.engine.state.balances}
        for epoch, balances in closed.items():
            table = [[balances[resource].get(actor, 0) for resource in resources] for actor in actors]
            assert np.array_equal(every[epoch], table)
            assert np.array_equal(replay.balances_at(ledger, epoch), table)
        assert np.array_equal(replay.balances_at(ledger), every[-1])


def same_state(one, other):
    for name in State.__slots__:
        assert getattr(one, name) == getattr(other, name), name


def test_agrees_with_the_oracle_at_every_step():
    GridMachine.met.clear()
    examples = 2 * settings.default.max_examples
    run_state_machine_as_test(GridMachine, settings=settings(stateful_step_count=50, max_examples=examples))
    met = GridMachine.met
    assert met["steps"] > 20 * examples
    wanted = {code.value for code in Code} | {("", outcome.value) for outcome in Outcome}
    wanted |= {("approve", "executed"), ("reject", "rejected"), ("expire", "rejected")}
    wanted |= {(kind, outcome) for kind in ("override", "reversal") for outcome in ("executed", "rejected")}
    unmet = wanted - set(met)
    assert len(unmet) <= 2, f"what is rare may be missed in a short search, but not this much: {unmet}"


# --- stories ----------------------------------------------------------------------------------------------------------

WATTS = Resource("energy", "kWh", 0)


def engine_with(start=1_000, **limits):
    """Three actors with 100 each; limits by name, in minor units."""
    found: dict[str, Any] = {
        name: Limit({"energy": value}, {}) if name in wire.LIMITS else value for name, value in limits.items()
    }
    engine = Engine(MemoryLedger())
    actors = (Actor("grid", "boundary"), Actor("a", "node"), Actor("b", "node"), Actor("c", "node"))
    opening = tuple((name, "energy", 100) for name in "abc")
    engine.append(Genesis(1, start, 10, actors, (WATTS,), Constraints(**found), opening, {}), start)
    return engine


def ask(engine, id_, *transfers, seen=None, reasoning="", asked=None):
    """Proposes transfers given as `ab 30`: from, to and how much."""
    return engine.propose(
        Proposal(id_, "planner", 1, read(*transfers), reasoning, seen), 1_001, asked=asked and read(*asked)
    )


def read(*transfers):
    return tuple(Transfer(text[0], text[1], "energy", int(text[3:])) for text in transfers)


def codes(decided):
    return [violation.code.value for violation in decided.violations]


def balances(engine):
    return [engine.state.balance(name, "energy") for name in "abc"]


def kinds(engine):
    return [record.kind for record in engine.ledger.records()]


def test_reserves_the_most_that_a_held_proposal_draws():
    engine = engine_with(hold_above=20, hold_epochs=2)
    held = ask(engine, "1", "ab 30", "ba 25", "ab 10", "bc 90")
    assert (held.outcome, held.held_until, held.entries) == (Outcome.HELD, 3, ())
    assert engine.state.reserved == {"energy": {"a": 30, "b": 75}}
    assert balances(engine) == [100, 100, 100]
    assert codes(ask(engine, "2", "ac 71")) == ["insufficient_balance"]
    assert ask(engine, "3", "bc 20").outcome is Outcome.EXECUTED
    assert codes(ask(engine, "4", "bc 6")) == ["insufficient_balance"]


def test_reserves_nothing_of_one_who_only_passes_on():
    engine = engine_with(hold_above=20)
    ask(engine, "1", "ab 30", "bc 30")
    assert engine.state.reserved == {"energy": {"a": 30}}


def test_holds_add_up_and_are_settled_one_by_one():
    engine = engine_with(hold_above=20)
    ask(engine, "1", "ab 30")
    ask(engine, "2", "ab 40")
    assert engine.state.reserved == {"energy": {"a": 70}}
    assert codes(ask(engine, "3", "ab 31")) == ["insufficient_balance"]
    engine.settle("1", "reject", 1_002)
    assert engine.state.reserved == {"energy": {"a": 40}}
    assert engine.settle("2", "approve", 1_002).entries == (4,)
    assert engine.state.reserved == {"energy": {}}
    assert balances(engine) == [60, 140, 100]


def test_approval_makes_the_entries_of_the_held_proposal():
    engine = engine_with(hold_above=20)
    ask(engine, "1", "ab 30", "bc 10")
    engine.close(1_010)
    settlement = engine.settle("1", "approve", 1_011, "ann", "needed")
    assert (settlement.outcome, settlement.operator, settlement.reason) == (Outcome.EXECUTED, "ann", "needed")
    made = engine.ledger.entries()[3:]
    assert [(e.id, e.proposal_id, e.actor_from, e.actor_to, e.amount, e.epoch) for e in made] == [
        (4, "1", "a", "b", 30, 2),
        (5, "1", "b", "c", 10, 2),
    ]
    assert {e.kind for e in made} == {Kind.TRANSFER}


def test_approval_counts_in_the_quota_of_its_own_epoch():
    engine = engine_with(hold_above=20, epoch_quota=50)
    ask(engine, "1", "ab 30")
    engine.close(1_010)
    assert ask(engine, "2", "ab 21", "ab 5").outcome is Outcome.HELD
    ask(engine, "3", "ab 10", "ab 11")
    assert codes(engine.settle("1", "approve", 1_011)) == ["epoch_quota"]
    assert engine.settle("2", "approve", 1_011).outcome is Outcome.EXECUTED
    assert codes(ask(engine, "4", "ab 4")) == ["epoch_quota"]


def test_approval_judges_by_the_constraints_in_force():
    engine = engine_with(hold_above=20)
    ask(engine, "1", "ab 30")
    limit = Limit({"energy": 29}, {})
    engine.constrain(Constraints(max_transfer=limit, hold_above=limit), 1_002)
    settlement = engine.settle("1", "approve", 1_003)
    assert (settlement.outcome, codes(settlement)) == (Outcome.REJECTED, ["max_transfer"])
    assert engine.state.reserved == {"energy": {}}
    assert balances(engine) == [100, 100, 100]


def test_approval_is_refused_where_an_actor_was_frozen_since():
    engine = engine_with(hold_above=20)
    ask(engine, "1", "ab 30")
    engine.register(Registration((), {"b": True}), 1_002)
    assert codes(engine.settle("1", "approve", 1_003)) == ["frozen_actor"]


def test_approval_asks_neither_for_a_pause_nor_for_what_was_seen():
    engine = engine_with(hold_above=20)
    ask(engine, "1", "ab 30", seen=engine.state.seen)
    engine.close(1_010)
    engine.pause(1_011, "ann", "maintenance")
    assert engine.settle("1", "approve", 1_012).outcome is Outcome.EXECUTED


def test_approved_transfers_are_those_that_were_granted():
    engine = engine_with(hold_above=20)
    held = ask(engine, "1", "ab 30", asked=("ab 60",))
    assert (held.granted, held.transfers, held.effective) == ((30,), read("ab 60"), read("ab 30"))
    engine.settle("1", "approve", 1_003)
    assert balances(engine) == [70, 130, 100]


@pytest.mark.parametrize(
    ("decision", "code", "limit"), [("reject", Code.HOLD_REJECTED, None), ("expire", Code.HOLD_EXPIRED, 25)]
)
def test_refused_hold_says_why(decision, code, limit):
    engine = engine_with(hold_above=20)
    ask(engine, "1", "ab 30")
    settlement = engine.settle("1", decision, 1_003)
    assert (settlement.outcome, settlement.operator, settlement.reason) == (Outcome.REJECTED, "", "")
    assert settlement.entries == ()
    assert settlement.violations == (Violation(code, "", limit, 1),)
    assert engine.state.holds == {}


def test_hold_is_settled_once():
    engine = engine_with(hold_above=20)
    ask(engine, "1", "ab 30")
    engine.settle("1", "approve", 1_003)
    for id_ in ("1", "2"):
        with pytest.raises(BadInput, match=f"no proposal {id_} is held"):
            engine.settle(id_, "approve", 1_004)


def test_hold_is_settled_in_one_of_three_ways():
    engine = engine_with(hold_above=20)
    ask(engine, "1", "ab 30")
    with pytest.raises(BadInput, match="approve, reject, expire"):
        engine.settle("1", "aprove", 1_003)
    assert list(engine.state.holds) == ["1"]


def test_hold_expires_as_many_epochs_later_as_was_said_when_it_was_made():
    engine = engine_with(hold_above=20, hold_epochs=2)
    ask(engine, "1", "ab 30")
    engine.constrain(Constraints(hold_above=Limit({"energy": 20}, {}), hold_epochs=1), 1_002)
    ask(engine, "2", "ab 31")
    expired = []
    for _ in range(3):
        expired.append([settlement.proposal_id for settlement in engine.expire(1_003)])
        engine.close(1_003)
    assert expired == [[], ["2"], ["1"]]


def test_neither_consumed_nor_spilled_is_what_is_reserved():
    engine = engine_with(hold_above=20)
    ask(engine, "1", "ab 70")
    flow = engine.take("load", [Request("a", "energy", 90), Request("a", "energy", 5)], 1_002)
    assert [reading.applied for reading in flow.readings] == [30, 0]
    engine.give(Kind.PRODUCE, "pv", [Request("a", "energy", 20)], 1_003)
    flow = engine.spill({("a", "energy"): 40, ("b", "energy"): 100}, 1_004)
    assert [tuple(reading) for reading in flow.readings] == [("a", "energy", 50, 20, 6)]
    assert engine.settle("1", "approve", 1_005).outcome is Outcome.EXECUTED
    assert balances(engine) == [0, 170, 100]


def test_noop_is_no_transfers_and_nothing_wrong():
    engine = engine_with()
    assert ask(engine, "1").outcome is Outcome.NOOP
    assert engine.state.holds == {}
    engine.pause(1_002, "ann", "why")
    assert codes(ask(engine, "2")) == ["paused"]


def test_same_input_again_gets_the_decision_of_then():
    engine = engine_with(hold_above=20)
    first = ask(engine, "1", "ab 30", reasoning="because")
    engine.settle("1", "approve", 1_002)
    engine.pause(1_003, "ann", "why")
    before = kinds(engine)
    assert ask(engine, "1", "ab 30", reasoning="because", seen=Seen(9, 9, 9)) is first
    assert kinds(engine) == before


@pytest.mark.parametrize(
    ("transfers", "reasoning"),
    [(("ab 31",), ""), (("ba 30",), ""), (("ab 30", "ab 30"), ""), ((), ""), (("ab 30",), "?")],
)
def test_other_input_under_a_used_id_is_refused_and_leaves_no_trace(transfers, reasoning):
    engine = engine_with(max_transfer=10)
    assert ask(engine, "1", "ab 30").outcome is Outcome.REJECTED
    with pytest.raises(Conflict, match=r"proposal 1 .* other input \(rejected\)"):
        ask(engine, "1", *transfers, reasoning=reasoning)
    assert kinds(engine) == ["genesis", "proposal"]


def test_what_was_asked_is_the_input_not_what_was_granted():
    engine = engine_with()
    first = ask(engine, "1", "ab 30", asked=("ab 60",))
    assert ask(engine, "1", "ab 20", asked=("ab 60",)) is first
    with pytest.raises(Conflict):
        ask(engine, "1", "ab 30")


def test_a_rejection_is_final_for_its_id():
    engine = engine_with()
    assert codes(ask(engine, "1", "ab 101")) == ["insufficient_balance"]
    engine.give(Kind.PRODUCE, "pv", [Request("a", "energy", 50)], 1_002)
    assert codes(ask(engine, "1", "ab 101")) == ["insufficient_balance"]
    assert ask(engine, "2", "ab 101").outcome is Outcome.EXECUTED


def test_reply_that_was_no_proposal_is_recorded_and_final():
    engine = engine_with()
    fault = Malformed("not_finished", "SAFETY", b'{"reasoning":"","transfers":[]}')
    first = engine.fail("1", "planner", 2, fault, 1_001)
    assert (first.outcome, first.n, first.fault, first.detail) == (Outcome.MALFORMED, 2, "not_finished", "SAFETY")
    assert (first.transfers, first.reasoning, first.violations, first.entries) == ((), "", (), ())
    assert engine.fail("1", "planner", 2, fault, 1_002) is first
    with pytest.raises(Conflict):
        ask(engine, "1")
    with pytest.raises(Conflict):
        engine.fail("1", "planner", 2, Malformed("not_finished", "SAFETY", b"{}"), 1_002)
    with pytest.raises(Conflict):
        engine.fail("1", "planner", 2, Unavailable(fault.raw.decode(), ""), 1_002)


def test_proposer_that_failed_is_recorded_and_a_later_reply_refused():
    engine = engine_with()
    first = engine.fail("1", "planner", 1, Unavailable("quota", "429"), 1_001)
    assert (first.outcome, first.fault, first.detail) == (Outcome.UNAVAILABLE, "quota", "429")
    assert engine.fail("1", "planner", 1, Unavailable("quota", "429 again"), 1_002) is first
    with pytest.raises(Conflict):
        ask(engine, "1", "ab 1")


def test_flags_a_proposal_before_which_balances_moved():
    engine = engine_with()
    seen = engine.state.seen
    assert not ask(engine, "1", "ab 1", seen=seen).state_moved
    moved = ask(engine, "2", "ab 1", seen=seen)
    assert (moved.outcome, moved.state_moved) == (Outcome.EXECUTED, True)
    assert not ask(engine, "3", "ab 1").state_moved


def test_deciding_alone_changes_nothing():
    engine = engine_with(hold_above=20)
    for transfers in (("ab 10",), ("ab 30",), ("ab 101",), ()):
        proposal = Proposal("1", "planner", 1, read(*transfers), "")
        before = [repr(getattr(engine.state, name)) for name in State.__slots__]
        decided = decide(engine.state, proposal)
        assert [repr(getattr(engine.state, name)) for name in State.__slots__] == before
        assert engine_with(hold_above=20).propose(proposal, 1_001) == decided


def test_takes_no_mandate_that_the_journal_does_not_know():
    engine = engine_with()
    with pytest.raises(AssertionError):
        engine.propose(Proposal("1", "planner", 1, read("ab 1"), "", mandate=frozenset("a")), 1_001)
    assert kinds(engine) == ["genesis"]


# --- allocations ------------------------------------------------------------------------------------------------------


def test_share_of_nothing_is_a_want_of_balance():
    engine = engine_with()
    decision = ask(engine, "1", "ab 0", "ac 5", asked=("ab 60", "ac 10"))
    assert decision.outcome is Outcome.REJECTED
    assert decision.violations == (Violation(Code.INSUFFICIENT_BALANCE, "transfers[0].amount", 0, 60, "energy"),)
    assert decision.granted == (0, 5)


def test_share_of_nothing_behind_ten_others_is_found_where_it_is():
    engine = engine_with()
    asked = ("ab 1",) * 11 + ("ab 2",)
    decision = ask(engine, "1", *("ab 1",) * 11, "ab 0", asked=asked)
    assert [(v.path, v.actual) for v in decision.violations] == [("transfers[11].amount", 2)]


def test_asking_for_what_no_minor_units_express_stays_what_it_is():
    engine = engine_with()
    asked = (Transfer("a", "b", "energy", Decimal("0.5")),)
    decision = engine.propose(Proposal("1", "planner", 1, read("ab 0"), ""), 1_001, asked=asked)
    assert (codes(decision), decision.granted) == (["non_positive_amount"], (0,))


def test_asking_for_nothing_stays_what_it_is():
    engine = engine_with()
    assert codes(ask(engine, "1", "ab 0", "ac 5", asked=("ab 0", "ac 10"))) == ["non_positive_amount"]
    assert codes(ask(engine, "2", "ab -1", asked=("ab -1",))) == ["non_positive_amount"]


def test_pause_comes_before_a_share_of_nothing():
    engine = engine_with()
    engine.pause(1_000, "ann", "why")
    assert codes(ask(engine, "1", "ab 0", asked=("ab 60",))) == ["paused"]


def test_granting_all_is_as_if_there_were_no_allocation():
    engine = engine_with()
    decision = ask(engine, "1", "ab 10", asked=("ab 10",))
    assert (decision.granted, decision.outcome, decision.held_until) == (None, Outcome.EXECUTED, None)


# --- pausing by itself ------------------------------------------------------------------------------------------------


def controls(engine):
    found: list[Any] = [r.payload for r in engine.ledger.records() if r.kind == "control"]
    return [(payload.operator, payload.paused, payload.reason) for payload in found]


def test_pauses_after_so_many_refused_in_a_row():
    engine = engine_with(auto_pause=AutoPause(refused_in_a_row=3))
    ask(engine, "1", "ab 101")
    ask(engine, "2", "ab 1")
    ask(engine, "3", "ab 101")
    engine.fail("4", "planner", 1, Malformed("truncated", "", b"{"), 1_002)
    engine.fail("5", "planner", 1, Unavailable("quota", ""), 1_002)
    assert not engine.state.paused
    ask(engine, "6", "ab 101")
    assert engine.state.paused
    assert controls(engine) == [("auto-pause", True, "3 refused in a row")]
    assert codes(ask(engine, "7", "ab 1")) == ["paused"]


def test_pauses_once():
    engine = engine_with(auto_pause=AutoPause(refused_in_a_row=1))
    for n in range(3):
        ask(engine, f"{n}", "ab 101")
    assert controls(engine) == [("auto-pause", True, "1 refused in a row")]


@pytest.mark.parametrize("between", [(), ("ab 1",), ("ab 30",)])
def test_row_of_refusals_ends_with_anything_else(between):
    engine = engine_with(auto_pause=AutoPause(refused_in_a_row=2), hold_above=20)
    ask(engine, "1", "ab 101")
    ask(engine, "2", *between)
    ask(engine, "3", "ab 101")
    assert not engine.state.paused
    ask(engine, "4", "ab 101")
    assert engine.state.paused


def test_pauses_after_so_many_unavailable_in_a_row():
    engine = engine_with(auto_pause=AutoPause(unavailable_in_a_row=2))
    for n, transfers in enumerate(((), ("ab 101",), ("ab 1",))):
        engine.fail(f"{n}-failed", "planner", 1, Unavailable("quota", ""), 1_002)
        ask(engine, f"{n}", *transfers)
        assert not engine.state.paused
    engine.fail("4", "planner", 1, Unavailable("quota", ""), 1_002)
    engine.fail("5", "planner", 1, Unavailable("transport", ""), 1_002)
    assert controls(engine) == [("auto-pause", True, "2 unavailable in a row")]


def test_pauses_where_more_than_so_much_moved_in_an_epoch():
    engine = engine_with(auto_pause=AutoPause(moved_per_epoch={"energy": 50}))
    ask(engine, "1", "ab 30", "ba 20")
    assert not engine.state.paused
    engine.close(1_003)
    ask(engine, "2", "ab 30", "ba 20")
    assert not engine.state.paused
    ask(engine, "3", "bc 1")
    assert controls(engine) == [("auto-pause", True, "more than the limit of energy moved in one epoch")]


def test_pauses_where_an_approval_moves_too_much():
    engine = engine_with(auto_pause=AutoPause(moved_per_epoch={"energy": 50}), hold_above=20)
    ask(engine, "1", "ab 51")
    assert not engine.state.paused
    engine.settle("1", "approve", 1_003)
    assert engine.state.paused


def test_flows_and_the_unlimited_never_pause():
    engine = engine_with(auto_pause=AutoPause(moved_per_epoch={}))
    engine.give(Kind.PRODUCE, "pv", [Request("a", "energy", 500)], 1_002)
    engine.take("load", [Request("a", "energy", 500)], 1_002)
    ask(engine, "1", "ab 99")
    assert not engine.state.paused


def test_resuming_starts_the_counts_anew():
    engine = engine_with(auto_pause=AutoPause(refused_in_a_row=2, unavailable_in_a_row=2))
    ask(engine, "1", "ab 101")
    engine.fail("2", "planner", 1, Unavailable("quota", ""), 1_002)
    engine.pause(1_003, "ann", "why")
    engine.resume(1_004, "ann", "why not")
    ask(engine, "3", "ab 101")
    assert not engine.state.paused
    assert controls(engine) == [("ann", True, "why"), ("ann", False, "why not")]


# --- the journal ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [Request("a", "energy", -1), Request("nobody", "energy", 1)])
def test_needs_that_the_edge_should_have_refused_are_a_bug(request_):
    engine = engine_with()
    with pytest.raises(AssertionError):
        engine.need("load", [request_], 1_001)
    assert kinds(engine) == ["genesis"]


def test_genesis_is_epoch_0_and_opens_epoch_1():
    engine = engine_with()
    (genesis,) = engine.ledger.records()
    assert (genesis.seq, genesis.epoch, genesis.at, engine.state.epoch) == (1, 0, 1_000, 1)
    assert [tuple(entry) for entry in engine.ledger.entries()] == [
        (i, None, "grid", name, "energy", 100, 1_000, 1, 0, Kind.GENESIS) for i, name in enumerate("abc", start=1)
    ]


def test_time_never_goes_back():
    engine = engine_with(start=5_000)
    ask(engine, "1", "ab 1")
    engine.close(6_000)
    engine.pause(5_500, "ann", "why")
    assert [record.at for record in engine.ledger.records()] == [5_000, 5_000, 6_000, 6_000]
    assert [entry.at for entry in engine.ledger.entries()] == [5_000] * 4


def test_time_may_be_before_1970():
    engine = engine_with(start=-5_000)
    engine.close(-4_000)
    lines = [(record.body, record.digest) for record in engine.ledger.records()]
    assert [record.at for record in replay.chain(lines)] == [-5_000, -4_000]


def test_constraints_change_tells_who_and_why_where_somebody_said():
    engine = engine_with()
    rules = Constraints(hold_epochs=2)
    engine.constrain(rules, 1_002)
    engine.constrain(rules, 1_002, "ann", "drought")
    found = [record.payload for record in engine.ledger.records()][1:]
    assert found == [ConstraintsChange(rules, "", ""), ConstraintsChange(rules, "ann", "drought")]


def test_close_makes_everything_durable():
    class Counted(MemoryLedger):
        commits: ClassVar[list] = []

        def commit(self):
            self.commits.append(len(list(self.records())))

    ledger = Counted()
    engine = Engine(ledger)
    for payload in [record.payload for record in engine_with().ledger.records()]:
        engine.append(payload, 1_000)
    assert ledger.commits == []
    engine.close(1_001)
    assert ledger.commits == [2], "the close itself as well"


def test_close_tells_the_last_entry_and_the_boundary():
    engine = engine_with()
    engine.give(Kind.GROW, "fish", [Request("a", "energy", 7)], 1_002)
    record = engine.close(1_010, collapsed=True)
    assert (record.epoch, record.payload) == (1, Close(4, {"energy": -307}, True))
    assert engine.close(1_020).payload == Close(4, {"energy": -307}, False)
    assert engine.state.epoch == 3


def test_flow_of_nobody_is_no_record():
    engine = engine_with()
    engine.give(Kind.PRODUCE, "pv", [], 1_001)
    engine.need("load", [], 1_001)
    engine.take("load", [], 1_001)
    engine.spill({("a", "energy"): 100}, 1_001)
    assert kinds(engine) == ["genesis"]


def test_text_that_has_no_bytes_is_refused_before_anything_changes():
    engine = engine_with()
    before = [repr(getattr(engine.state, name)) for name in State.__slots__]
    with pytest.raises(UnicodeEncodeError):
        ask(engine, "1", "ab 1", reasoning="\ud800")
    assert kinds(engine) == ["genesis"]
    assert [repr(getattr(engine.state, name)) for name in State.__slots__] == before


def test_registration_adds_freezes_and_says_what_may_be_moved():
    engine = engine_with()
    engine.register(Registration((Actor("d", "town"),), {"a": True}, {"planner": ("b",)}, "ann", "why"), 1_001)
    assert codes(ask(engine, "1", "ad 1")) == ["frozen_actor"]
    assert codes(ask(engine, "2", "cd 1")) == ["not_permitted"]
    assert ask(engine, "3", "bd 1").outcome is Outcome.EXECUTED
    engine.register(Registration((), {"a": False, "b": True}, {"planner": None}), 1_002)
    assert ask(engine, "4", "ad 1").outcome is Outcome.EXECUTED
    assert codes(ask(engine, "5", "bd 1")) == ["frozen_actor"]
    engine.register(Registration((), {"d": True}), 1_003)
    assert codes(ask(engine, "6", "bd 1")) == ["frozen_actor"], "whoever was frozen stays so"
    assert codes(ask(engine, "7", "ac 1")) == []


# --- by hand ----------------------------------------------------------------------------------------------------------

ONCE = Once(uuid5("one request"), "ab" * 32)


def gift(amount, actor_from="a", actor_to="b"):
    return Transfer(actor_from, actor_to, "energy", amount)


def test_override_binds_no_limit_no_freeze_and_no_pause():
    engine = engine_with(max_transfer=5, epoch_quota=5, min_balance=90, hold_above=1)
    engine.register(Registration((), {"a": True}), 1_001)
    engine.pause(1_001, "ann", "why")
    record: Any = engine.override((gift(100),), 1_002, "ann", "a debt")
    assert record.payload.outcome is Outcome.EXECUTED
    assert engine.ledger.entries()[-1][5:] == (100, 1_002, record.seq, 1, Kind.OVERRIDE)
    assert (engine.state.balance("a", "energy"), engine.state.balance("b", "energy")) == (0, 200)
    assert (engine.state.sent, engine.state.moved) == ({"energy": {}}, {})


def test_override_spends_nothing_that_a_hold_reserves():
    engine = engine_with(hold_above=50)
    engine.propose(Proposal("1", "planner", 1, (gift(60),), ""), 1_001)
    record: Any = engine.override((gift(41),), 1_002, "ann", "why")
    assert [v.code for v in record.payload.violations] == [Code.INSUFFICIENT_BALANCE]
    assert (record.payload.outcome, record.payload.entries) == (Outcome.REJECTED, ())


def test_override_is_all_or_nothing_and_passes_on():
    engine = engine_with()
    assert engine.override((gift(100), gift(200, "b", "c")), 1_001, "ann", "why").payload.outcome is Outcome.EXECUTED
    before = {name: dict(held) for name, held in engine.state.balances.items()}
    assert (
        engine.override((gift(1, "c", "a"), gift(1, "b", "a")), 1_002, "ann", "why").payload.outcome is Outcome.REJECTED
    )
    assert engine.state.balances == before


@pytest.mark.parametrize(
    ("transfer", "words", "path"),
    [
        (gift(0), "0 kWh is not above 0", "amount"),
        (gift(Decimal("0.5")), "0.5 has more than 0 decimals", "amount"),
        (gift(10**15), "beyond what can be held", "amount"),
        (gift(1, "nobody"), "there is no actor nobody", "from"),
        (gift(1, "a", "grid"), "grid is the boundary", "to"),
        (gift(1, "a", "a"), "a would send to itself", "to"),
        (Transfer("a", "b", "gold", 1), "there is no resource gold", "resource"),
    ],
)
def test_override_of_what_can_never_be_is_refused_and_leaves_no_record(transfer, words, path):
    engine = engine_with()
    with pytest.raises(BadInput, match=words) as refused:
        engine.override((gift(1), transfer), 1_001, "ann", "why")
    assert refused.value.path == ("transfers", 1, path)
    assert engine.state.seq == 1
    with pytest.raises(BadInput, match="nothing to move"):
        engine.override((), 1_001, "ann", "why")


def test_takes_back_a_whole_proposal_once():
    engine = engine_with()
    proposal = Proposal("1", "planner", 1, (gift(100), gift(150, "b", "c")), "")
    engine.propose(proposal, 1_001)
    made = list(engine.ledger.entries()[-2:])
    record: Any = engine.reverse(made, 1_002, "ann", "a mistake", proposal_id="1")
    assert record.payload.reverses == (5, 4)
    assert record.payload.transfers == (gift(150, "c", "b"), gift(100, "b", "a"))
    assert engine.state.balances["energy"] == {"grid": -300, "a": 100, "b": 100, "c": 100}
    assert engine.state.reversed == {4: record.seq, 5: record.seq}
    with pytest.raises(Conflict, match=f"entry 5 was taken back before, by record {record.seq}"):
        engine.reverse(made, 1_003, "ann", "again")
    with pytest.raises(BadInput, match="takes another one back"):
        engine.reverse([engine.ledger.entries()[-1]], 1_003, "ann", "again")
    with pytest.raises(BadInput, match="nothing to take back"):
        engine.reverse([], 1_003, "ann", "again")


def test_taking_back_may_fail_on_todays_balances_and_be_tried_again():
    engine = engine_with()
    engine.propose(Proposal("1", "planner", 1, (gift(100),), ""), 1_001)
    gone = engine.ledger.entries()[-1]
    engine.propose(Proposal("2", "planner", 2, (gift(150, "b", "c"),), ""), 1_001)
    refused: Any = engine.reverse([gone], 1_002, "ann", "a mistake").payload
    assert (refused.outcome, [v.code for v in refused.violations]) == (Outcome.REJECTED, [Code.INSUFFICIENT_BALANCE])
    engine.override((gift(50, "c", "b"),), 1_003, "ann", "for that")
    assert engine.reverse([gone], 1_004, "ann", "a mistake").payload.outcome is Outcome.EXECUTED


def test_takes_back_what_a_meter_said():
    engine = engine_with()
    engine.meter(
        "meter", [Metered("produce", "a", "energy", 40), Metered("consume", "b", "energy", 30)], 1_001, epoch=1
    )
    engine.reverse(engine.ledger.entries()[-2:], 1_002, "ann", "the meter was broken")
    assert engine.state.balances["energy"] == {"grid": -300, "a": 100, "b": 100, "c": 100}


@pytest.mark.parametrize(
    "ask",
    [
        lambda engine, once: engine.pause(1_002, "ann", "why", once=once),
        lambda engine, once: engine.resume(1_002, "ann", "why", once=once),
        lambda engine, once: engine.constrain(Constraints(), 1_002, "ann", "why", once=once),
        lambda engine, once: engine.register(Registration((Actor("d", "node"),)), 1_002, once=once),
        lambda engine, once: engine.activate(Activation("p", "m", "cd" * 32), 1_002, once=once),
        lambda engine, once: engine.override((gift(1),), 1_002, "ann", "why", once=once),
        lambda engine, once: engine.reverse([engine.ledger.entries()[0]], 1_002, "ann", "why", once=once),
        lambda engine, once: engine.meter("m", [Metered("need", "a", "energy", 1)], 1_002, epoch=1, once=once),
        lambda engine, once: engine.settle("1", "approve", 1_002, "ann", "why", once=once),
    ],
)
def test_same_request_counts_once_and_another_under_its_id_is_refused(ask):
    engine = engine_with(hold_above=50)
    engine.propose(Proposal("1", "planner", 1, (gift(60),), ""), 1_001)
    first = ask(engine, ONCE)
    seq = engine.state.seq
    assert ask(engine, ONCE) == first
    with pytest.raises(Conflict, match="asked for other things"):
        ask(engine, ONCE._replace(input="cd" * 32))
    assert engine.state.seq == seq
    assert engine.ledger.answered(by_request(uuid5("another"))) is None


def test_id_of_a_request_is_no_id_of_a_proposal():
    engine = engine_with()
    engine.pause(1_001, "ann", "why", once=ONCE)
    engine.resume(1_002, "ann", "why")
    assert engine.propose(Proposal(ONCE.request, "planner", 1, (), ""), 1_003).outcome is Outcome.NOOP
    taken = uuid5("a proposal")
    engine.propose(Proposal(taken, "planner", 2, (), ""), 1_004)
    assert engine.pause(1_005, "ann", "why", once=Once(taken, "ab" * 32)).payload.paused


# --- meters, prompts --------------------------------------------------------------------------------------------------


def test_meter_readings_are_served_in_order_and_late_ones_marked():
    engine = engine_with()
    readings = [
        Metered("consume", "a", "energy", 150),
        Metered("need", "b", "energy", 9),
        Metered("produce", "a", "energy", 60),
    ]
    flows: Any = [record.payload for record in engine.meter("meter", readings, 1_001, epoch=1, once=ONCE)]
    assert [(flow.kind, flow.read_for) for flow in flows] == [("produce", None), ("need", None), ("consume", None)]
    assert flows[2].readings[0].applied == 150
    assert engine.state.needs == {"energy": {"b": 9}}
    engine.close(1_002)
    [late] = engine.meter("meter", readings[:1], 1_003, epoch=1)
    assert (late.epoch, late.payload.read_for, late.payload.readings[0].applied) == (2, 1, 10)


@pytest.mark.parametrize(
    ("reading", "epoch", "words", "path"),
    [
        (Metered("produce", "a", "energy", 1), 2, "epoch 2 is not there yet; epoch 1 is open", ("epoch",)),
        (Metered("produce", "a", "energy", 1), 0, "epoch 0", ("epoch",)),
        (Metered("spill", "a", "energy", 1), 1, "'spill' is not read", ("readings", 1, "kind")),
        (Metered("produce", "x", "energy", 1), 1, "no actor x", ("readings", 1, "actor")),
        (Metered("produce", "grid", "energy", 1), 1, "no actor grid", ("readings", 1, "actor")),
        (Metered("need", "a", "gold", 1), 1, "no resource gold", ("readings", 1, "resource")),
        (Metered("produce", "a", "energy", 10**15), 1, "15 digits", ()),
        (Metered("need", "a", "energy", 10**15), 1, "15 digits", ()),
        (None, 1, "no reading", ("readings",)),
    ],
)
def test_refuses_readings_that_cannot_be_and_records_none_of_them(reading, epoch, words, path):
    engine = engine_with()
    readings = [] if reading is None else [Metered("produce", "a", "energy", 1), reading]
    with pytest.raises(BadInput, match=words) as refused:
        engine.meter("meter", readings, 1_001, epoch=epoch)
    assert refused.value.path == path
    assert engine.state.seq == 1


def test_prompt_in_force_is_the_last_that_was_activated_in_its_role():
    engine = engine_with()
    engine.activate(Activation("old", "m", "ab" * 32, operator="ann", reason="first"), 1_001)
    engine.activate(Activation("bold", "m", "ab" * 32, "shadow"), 1_002)
    engine.activate(Activation("new", "m", "cd" * 32), 1_003)
    assert {role: active.prompt for role, active in engine.state.active.items()} == {"active": "new", "shadow": "bold"}
    engine.activate(Activation("", "", "", "shadow"), 1_004)
    assert list(engine.state.active) == ["active"]


def test_resuming_counts_what_is_moved_anew():
    engine = engine_with(auto_pause=AutoPause(moved_per_epoch={"energy": 50}))
    engine.propose(Proposal("1", "planner", 1, (gift(60),), ""), 1_001)
    assert engine.state.paused
    engine.resume(1_002, "ann", "it is fine")
    engine.propose(Proposal("2", "planner", 2, (gift(10),), ""), 1_003)
    assert not engine.state.paused
    engine.propose(Proposal("3", "planner", 3, (gift(10, "b", "c"), gift(31, "b", "a")), ""), 1_004)
    assert engine.state.paused
