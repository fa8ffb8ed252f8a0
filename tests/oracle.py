"""What the engine must do, told a second time: naive on purpose, and sharing no code with what it checks.

What happened is a list of facts. Balances, reservations, quotas and everything else are counted anew from that list
whenever they are asked for. Amounts are Fractions in units, constraints are in the form that scenarios write them in.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

GRID = "grid"
DIGITS = 15

STOPPING = ("rejected", "malformed")
"""Outcomes that count as refused when the engine considers pausing by itself."""


class Clash(Exception):
    """An id was used before, with other input."""


class Never(Exception):
    """What a person asks for could not be done on any day, or must not be done again."""


class TooMuch(Exception):
    """A balance would need more digits than there may be."""


class Entry(NamedTuple):
    """One applied transfer."""

    id: int
    proposal_id: str | None
    giver: str
    taker: str
    resource: str
    amount: Fraction
    at: int
    seq: int
    epoch: int
    kind: str


class Ask(NamedTuple):
    """One transfer that is asked for, in units."""

    giver: str
    taker: str
    resource: str
    amount: Fraction


class Fault(NamedTuple):
    """One broken rule; limit and actual in units where they are amounts."""

    code: str
    path: tuple
    limit: Any = None
    actual: Any = None


@dataclass(frozen=True)
class Fact:
    """One step of the total order."""

    seq: int
    epoch: int
    at: int
    kind: str
    what: dict = field(default_factory=dict)
    entries: tuple = ()


def drawn(asks):
    """The most that asks, in order, take out of each (actor, resource) at any point."""
    most: dict = {}
    for end in range(1, len(asks) + 1):
        for ask in asks[:end]:
            account = (ask.giver, ask.resource)
            taken = sum(a.amount for a in asks[:end] if (a.giver, a.resource) == account)
            given = sum(a.amount for a in asks[:end] if (a.taker, a.resource) == account)
            if taken - given > most.get(account, 0):
                most[account] = taken - given
    return most


class Oracle:
    """A grid as the sum of its past."""

    def __init__(self, actors, scales, constraints, opening, at):
        self.scales = dict(scales)
        self.past = []
        moves = [(GRID, actor, resource, amount, "genesis", None) for actor, resource, amount in opening]
        what = {"actors": list(actors), "constraints": constraints, "declared": [o[:2] for o in opening]}
        self._note("genesis", at, what, moves)

    def _note(self, kind, at, what, moves=()):
        """Adds a fact, never earlier than the last one; moves of nothing make no entry."""
        seq, epoch = len(self.past) + 1, self.epoch()
        at = max([at, *(fact.at for fact in self.past)])
        entries, count = [], len(self.entries())
        for giver, taker, resource, amount, why, proposal_id in moves:
            if amount:
                count += 1
                entries.append(Entry(count, proposal_id, giver, taker, resource, amount, at, seq, epoch, why))
        self.past.append(Fact(seq, epoch, at, kind, what, tuple(entries)))
        return self.past[-1]

    # --- what the past comes to ---------------------------------------------------------------------------------------

    def facts(self, kind):
        return [fact for fact in self.past if fact.kind == kind]

    def entries(self):
        return [entry for fact in self.past for entry in fact.entries]

    def epoch(self):
        """The open epoch; 0 is the genesis alone."""
        return len(self.facts("close")) + 1 if self.past else 0

    def actors(self):
        """Everybody but the boundary, in order of registration."""
        found = list(self.past[0].what["actors"])
        for fact in self.facts("registration"):
            found += fact.what["actors"]
        return [(name, kind) for name, kind in found if name != GRID]

    def known(self, actor):
        return actor == GRID or actor in [name for name, _ in self.actors()]

    def frozen(self, actor):
        said = [f.what["frozen"][actor] for f in self.facts("registration") if actor in f.what["frozen"]]
        return bool(said) and said[-1]

    def mandate(self, proposer):
        """Whose balances the proposer may move; None is everybody's."""
        said = [f.what["mandates"][proposer] for f in self.facts("registration") if proposer in f.what["mandates"]]
        return said[-1] if said else None

    def paused(self):
        said = self.facts("control")
        return bool(said) and said[-1].what["paused"]

    def constraints(self):
        return [fact.what["constraints"] for fact in self.past if "constraints" in fact.what][-1]

    def look(self):
        """What a proposer who looks now has seen: epoch, seq of the constraints, last entry."""
        ruled = [fact.seq for fact in self.past if "constraints" in fact.what][-1]
        return self.epoch(), ruled, len(self.entries())

    def limit(self, name, actor, resource):
        """The most specific limit; None is no limit, but the least balance is 0 where nobody said."""
        absent = Fraction(0) if name == "min_balance" else None
        value = self.constraints().get(name)
        if value is None:
            return absent
        if not isinstance(value, dict):
            return Fraction(value)
        own = value.get("actors", {}).get(actor, {})
        for said in (own.get(resource), value.get(resource), value.get("default")):
            if said is not None:
                return Fraction(said)
        return absent

    def most(self, resource):
        """The most that an amount or a balance may be: as many nines as there are digits."""
        return Fraction(10**DIGITS - 1, 10 ** self.scales[resource])

    def balance(self, actor, resource):
        mine = [e for e in self.entries() if e.resource == resource]
        return sum((e.amount for e in mine if e.taker == actor), Fraction(0)) - sum(
            e.amount for e in mine if e.giver == actor
        )

    def listed(self, actor):
        """The resources of which the actor's balance was declared or used."""
        used = {r for a, r in self.past[0].what["declared"] if a == actor}
        return used | {e.resource for e in self.entries() if actor in (e.giver, e.taker)}

    def holds(self):
        """The decisions that wait for a person, oldest first."""
        settled = {fact.what["id"] for fact in self.facts("settlement")}
        return [f for f in self.facts("decision") if f.what["outcome"] == "held" and f.what["id"] not in settled]

    def reserved(self, actor, resource, without=None):
        return sum(
            (drawn(hold.what["granted"]).get((actor, resource), Fraction(0)))
            for hold in self.holds()
            if hold.what["id"] != without
        )

    def available(self, actor, resource):
        return self.balance(actor, resource) - self.reserved(actor, resource)

    def sent(self, actor, resource):
        """What proposals have taken from the actor in the open epoch."""
        return sum((e.amount for e in self._moved_now() if e.giver == actor and e.resource == resource), Fraction(0))

    def moved(self, resource):
        """What proposals have moved of the resource in the open epoch, since anyone paused or resumed."""
        since = max((fact.seq for fact in self.facts("control")), default=0)
        return sum((e.amount for e in self._moved_now() if e.resource == resource and e.seq > since), Fraction(0))

    def _moved_now(self):
        epoch = self.epoch()
        return [entry for entry in self.entries() if entry.epoch == epoch and entry.kind == "transfer"]

    def needs(self, actor):
        """What the actor was said to need in the open epoch."""
        found: dict = {}
        epoch = self.epoch()
        for fact in self.facts("flow"):
            if fact.what["kind"] == "need" and fact.epoch == epoch:
                for name, resource, requested, _ in fact.what["readings"]:
                    if name == actor:
                        found[resource] = found.get(resource, 0) + requested
        return found

    # --- rules --------------------------------------------------------------------------------------------------------

    def judge(self, proposer, asks, seen=None, approving=None):
        """Every rule that the asks break; `approving` is the id of the hold that a person approves."""
        whole = self._whole(asks, seen, approving)
        if whole:
            return [whole]
        found: list = []
        passed: list = []
        for index, ask in enumerate(asks):
            here = self._ending(proposer, passed, index, ask) or self._limits(passed, index, ask, approving)
            found += here
            if not here:
                passed.append(ask)
        return found

    def _whole(self, asks, seen, approving):
        if approving is None:
            if self.paused():
                return Fault("paused", ())
            epoch, ruled, _ = self.look()
            if seen is not None and seen[0] != epoch:
                return Fault("stale_world_state", ("epoch",), epoch, seen[0])
            if seen is not None and seen[1] != ruled:
                return Fault("stale_world_state", ("constraints",), ruled, seen[1])
        most = self.constraints().get("max_transfers_per_proposal")
        if most is not None and len(asks) > most:
            return Fault("too_many_transfers", ("transfers",), most, len(asks))
        return None

    def _ending(self, proposer, passed, index, ask):
        """The first of the rules that end a transfer's check, as a list of none or one."""
        for code, at_sender, at_receiver in (
            ("unknown_actor", not self.known(ask.giver), not self.known(ask.taker)),
            ("frozen_actor", self.frozen(ask.giver), self.frozen(ask.taker)),
            ("boundary_actor", ask.giver == GRID, ask.taker == GRID),
        ):
            if at_sender:
                return [Fault(code, ("transfers", index, "from"), None, ask.giver)]
            if at_receiver:
                return [Fault(code, ("transfers", index, "to"), None, ask.taker)]
        mandate = self.mandate(proposer)
        if mandate is not None and ask.giver not in mandate:
            return [Fault("not_permitted", ("transfers", index, "from"), None, ask.giver)]
        if ask.resource not in self.scales:
            return [Fault("unknown_resource", ("transfers", index, "resource"), None, ask.resource)]
        if ask.giver == ask.taker:
            return [Fault("same_actor", ("transfers", index, "to"), None, ask.taker)]
        return self._amount(passed, index, ask)

    def _amount(self, passed, index, ask):
        path = ("transfers", index, "amount")
        if ask.amount <= 0:
            return [Fault("non_positive_amount", path, None, ask.amount)]
        scale = self.scales[ask.resource]
        if (ask.amount * 10**scale).denominator != 1:
            return [Fault("precision", path, scale, ask.amount)]
        most = self.most(ask.resource)
        if ask.amount > most:
            return [Fault("out_of_range", path, most, ask.amount)]
        after = self._running(passed, ask.taker, ask.resource) + ask.amount
        if after > most:
            return [Fault("out_of_range", path, most, after)]
        return []

    def _running(self, passed, actor, resource):
        """The actor's balance as if what passed had been made."""
        now = self.balance(actor, resource)
        for ask in passed:
            if ask.resource == resource:
                now += ask.amount * ((ask.taker == actor) - (ask.giver == actor))
        return now

    def _limits(self, passed, index, ask, approving):
        """All the limits that a transfer breaks."""
        account, path, found = (ask.giver, ask.resource), ("transfers", index, "amount"), []
        most = self.limit("max_transfer", *account)
        if most is not None and ask.amount > most:
            found.append(Fault("max_transfer", path, most, ask.amount))
        available = self._running(passed, *account) - self.reserved(*account, without=approving)
        least = self.limit("min_balance", *account)
        if ask.amount > available:
            found.append(Fault("insufficient_balance", path, available, ask.amount))
        elif available - ask.amount < least:
            found.append(Fault("min_balance", path, least, available - ask.amount))
        quota = self.limit("epoch_quota", *account)
        after = self.sent(*account) + ask.amount
        after += sum(a.amount for a in passed if (a.giver, a.resource) == account)
        if quota is not None and after > quota:
            found.append(Fault("epoch_quota", path, quota, after))
        return found

    def _must_wait(self, asks):
        limits = [(ask.amount, self.limit("hold_above", ask.giver, ask.resource)) for ask in asks]
        return any(above is not None and amount > above for amount, above in limits)

    # --- what happens -------------------------------------------------------------------------------------------------

    def propose(self, id_, proposer, asks, reasoning, at, seen=None, granted=None):
        """The fact that decides the proposal; the earlier one where the same was asked under the same id.

        What is judged is what an allocation granted of the asks, where there was one.
        """
        earlier = self._earlier(id_, ("proposal", tuple(asks), reasoning))
        if earlier:
            return earlier
        judged = tuple(asks if granted is None else granted)
        faults = [self._starving(fault, asks, judged) for fault in self.judge(proposer, judged, seen)]
        if faults:
            outcome = "rejected"
        elif not judged:
            outcome = "noop"
        else:
            outcome = "held" if self._must_wait(judged) else "executed"
        what = {
            "id": id_,
            "input": ("proposal", tuple(asks), reasoning),
            "proposer": proposer,
            "outcome": outcome,
            "faults": faults,
            "granted": judged,
            "state_moved": seen is not None and seen[2] != len(self.entries()),
            "until": self.epoch() + self.constraints().get("hold_epochs", 24) if outcome == "held" else None,
        }
        return self._decide(what, at, judged if outcome == "executed" else ())

    @staticmethod
    def _starving(fault, asks, granted):
        """Nothing granted of something asked for is no amount that is wrong, but a want of balance."""
        if fault.code == "non_positive_amount":
            asked, share = asks[fault.path[1]].amount, granted[fault.path[1]].amount
            if share == 0 and asked != 0:
                return Fault("insufficient_balance", fault.path, Fraction(0), asked)
        return fault

    def fail(self, id_, proposer, outcome, said, at):
        """The fact that a reply was no proposal, or that there was none."""
        earlier = self._earlier(id_, (outcome, said))
        if earlier:
            return earlier
        what = {"id": id_, "input": (outcome, said), "proposer": proposer, "outcome": outcome, "faults": []}
        return self._decide({**what, "granted": (), "state_moved": False, "until": None}, at, ())

    def _earlier(self, id_, said):
        for fact in self.facts("decision"):
            if fact.what["id"] == id_:
                if fact.what["input"] != said:
                    raise Clash(id_)
                return fact
        return None

    def _decide(self, what, at, asks):
        fact = self._note("decision", at, what, [(*ask, "transfer", what["id"]) for ask in asks])
        self._pause_by_itself(at)
        return fact

    def _pause_by_itself(self, at):
        rules = self.constraints().get("auto_pause") or {}
        if rules and not self.paused() and self._too_much(rules):
            self._note("control", at, {"paused": True})

    def _too_much(self, rules):
        refused, unavailable = self._in_a_row()
        if rules.get("refused_in_a_row") is not None and refused >= rules["refused_in_a_row"]:
            return True
        if rules.get("unavailable_in_a_row") is not None and unavailable >= rules["unavailable_in_a_row"]:
            return True
        most = rules.get("moved_per_epoch")
        for resource in self.scales if most is not None else ():
            limit = most.get(resource, most.get("default")) if isinstance(most, dict) else most
            if limit is not None and self.moved(resource) > limit:
                return True
        return False

    def _in_a_row(self):
        """How many of the last decisions since the last resume were refused, and how many replies were missing."""
        since = [i for i, f in enumerate(self.past) if f.kind == "control" and not f.what["paused"]]
        outcomes = [f.what["outcome"] for f in self.past[since[-1] if since else 0 :] if f.kind == "decision"]
        refused = unavailable = 0
        for outcome in outcomes:
            if outcome == "unavailable":
                unavailable += 1
            else:
                unavailable = 0
                refused = refused + 1 if outcome in STOPPING else 0
        return refused, unavailable

    def settle(self, id_, decision, at):
        """The fact that ends a hold; None where nothing is held under this id."""
        held = [fact for fact in self.holds() if fact.what["id"] == id_]
        if not held:
            return None
        asks, faults = held[0].what["granted"], []
        if decision == "approve":
            faults = self.judge(held[0].what["proposer"], asks, approving=id_)
        else:
            code = {"reject": "hold_rejected", "expire": "hold_expired"}[decision]
            until = held[0].what["until"] if decision == "expire" else None
            faults = [Fault(code, (), until, self.epoch())]
        what = {"id": id_, "decision": decision, "faults": faults}
        what["outcome"] = "rejected" if faults else "executed"
        fact = self._note("settlement", at, what, [(*a, "transfer", id_) for a in (() if faults else asks)])
        self._pause_by_itself(at)
        return fact

    def expire(self, at):
        """The facts that end the holds whose time is over."""
        due = [fact.what["id"] for fact in self.holds() if fact.what["until"] <= self.epoch()]
        return [self.settle(id_, "expire", at) for id_ in due]

    def give(self, kind, name, requests, at):
        """Produce or grow. Raises TooMuch where somebody's balance would need more than 15 digits."""
        given: dict = {}
        for actor, resource, amount in requests:
            given[actor, resource] = given.get((actor, resource), 0) + amount
            if self.balance(actor, resource) + given[actor, resource] > self.most(resource):
                raise TooMuch(actor, resource)
        readings = [(*request, request[2]) for request in requests]
        moves = [(GRID, actor, resource, amount, kind, None) for actor, resource, amount in requests]
        return self._flow(kind, name, readings, at, moves)

    def need(self, name, requests, at):
        """Demands announced: nothing moves."""
        readings = [(*request, Fraction(0)) for request in requests]
        return self._flow("need", name, readings, at)

    def take(self, kind, name, requests, at):
        """Consume: what is there and not reserved; the rest is unmet."""
        readings: list = []
        taken: dict = {}
        for actor, resource, amount in requests:
            there = self.available(actor, resource) - taken.get((actor, resource), 0)
            applied = min(amount, there)
            taken[actor, resource] = taken.get((actor, resource), 0) + applied
            readings.append((actor, resource, amount, applied))
        moves = [(actor, GRID, resource, applied, kind, None) for actor, resource, _, applied in readings]
        return self._flow(kind, name, readings, at, moves)

    def _flow(self, kind, name, readings, at, moves=()):
        """The fact of a flow, which is no part of the past where nobody was asked for anything."""
        what = {"kind": kind, "name": name, "readings": readings}
        return self._note("flow", at, what, moves) if readings else Fact(0, self.epoch(), at, "flow", what)

    def spill(self, storage, at):
        """What is above storage leaves, but for what is reserved."""
        over = [(a, r, self.balance(a, r) - most) for (a, r), most in storage.items()]
        return self.take("spill", "spill", [request for request in over if request[2] > 0], at)

    def close(self, at):
        """Ends the open epoch."""
        totals = {r: self.balance(GRID, r) for r in self.scales}
        return self._note("close", at, {"entries": len(self.entries()), "boundary": totals})

    def constrain(self, constraints, at):
        return self._note("constraints", at, {"constraints": constraints})

    def register(self, actors, frozen, mandates, at):
        return self._note("registration", at, {"actors": list(actors), "frozen": frozen, "mandates": mandates})

    def control(self, paused, at):
        return self._note("control", at, {"paused": paused})

    # --- by hand ------------------------------------------------------------------------------------------------------

    def override(self, asks, at):
        """The fact that a person moved something, or could not for want of balance. Raises Never where it can't be."""
        if not asks:
            raise Never
        short, passed = [], []
        for index, ask in enumerate(asks):
            wrong = not self.known(ask.giver) or not self.known(ask.taker) or GRID in (ask.giver, ask.taker)
            if wrong or ask.resource not in self.scales or ask.giver == ask.taker or self._amount(passed, index, ask):
                raise Never
            self._weigh(index, ask, passed, short)
        return self._by_hand("override", asks, short, at, {})

    def reverse(self, ids, at):
        """The fact that entries were taken back, newest first, or could not be. Raises Never where they must not be."""
        known = {entry.id: entry for entry in self.entries()}
        back = {id_ for fact in self.facts("reversal") if not fact.what["faults"] for id_ in fact.what["reverses"]}
        found = [known[id_] for id_ in sorted(ids, reverse=True)]
        if not found or any(entry.kind == "reversal" or entry.id in back for entry in found):
            raise Never
        asks = [Ask(entry.taker, entry.giver, entry.resource, entry.amount) for entry in found]
        short, passed = [], []
        for index, ask in enumerate(asks):
            over = [] if ask.taker == GRID else self._amount(passed, index, ask)
            if over:
                short += over
            else:
                self._weigh(index, ask, passed, short)
        return self._by_hand("reversal", asks, short, at, {"reverses": [entry.id for entry in found]})

    def _weigh(self, index, ask, passed, short):
        """Whether the giver has it available, after what passed."""
        there = self._running(passed, ask.giver, ask.resource) - self.reserved(ask.giver, ask.resource)
        if ask.giver != GRID and ask.amount > there:
            short.append(Fault("insufficient_balance", ("transfers", index, "amount"), there, ask.amount))
        else:
            passed.append(ask)

    def _by_hand(self, kind, asks, faults, at, also):
        what = {**also, "faults": faults, "by_hand": "rejected" if faults else "executed"}
        return self._note(kind, at, what, [(*ask, kind, None) for ask in (() if faults else asks)])
