"""propose -> validate -> append: the one place where something is decided and becomes a record.

Effects are injected: the ledger that remembers, and the time of each call. The engine reads no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

from gridgov import flows
from gridgov.decide import decide, faulted, overridden, reversed_, settled
from gridgov.errors import BadInput, Conflict
from gridgov.journal import (
    Act,
    Activation,
    Close,
    ConstraintsChange,
    Control,
    Decision,
    Flow,
    Genesis,
    JournalRecord,
    Once,
    Payload,
    Registration,
    Settlement,
    by_request,
    seal,
)
from gridgov.ledger import Ledger
from gridgov.model import (
    BOUNDARY,
    Constraints,
    Kind,
    LedgerEntry,
    Malformed,
    Proposal,
    Transfer,
    Unavailable,
    uuid5,
)
from gridgov.replay import fold
from gridgov.state import State

METERED = ("produce", "need", "consume")
"""What a meter reads, in the order in which it is recorded: what was produced is there to be consumed."""


class Metered(NamedTuple):
    """One reading of a meter: its kind is one of `METERED`, its amount in minor units."""

    kind: str
    actor: str
    resource: str
    amount: int


class Engine:
    """Decides, appends and folds, one step after the other, over one ledger.

    Invariants after every record: for each resource the balances of all actors sum to 0; no actor but the boundary is
    below 0; what holds reserve of an actor is no more than its balance. `state` is read by everyone, changed by no one.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.state = State()
        for record in ledger.records():
            fold(self.state, record)

    def append(self, payload: Payload, at: int) -> JournalRecord:
        """Seals the payload as the next record, folds it and hands it to the ledger. Time never goes back."""
        state = self.state
        if type(payload) is Genesis:
            record = seal(state.digest, 1, 0, at, payload)
        else:
            record = seal(state.digest, state.seq + 1, state.epoch, max(at, state.at), payload)
        entries = fold(state, record)
        self.ledger.append(record, entries)
        return record

    # --- what the AI asks -----------------------------------------------------------------------------------------

    def propose(self, proposal: Proposal, at: int, *, asked: tuple[Transfer, ...] | None = None) -> Decision:
        """Judges a proposal and applies it, all or nothing; the same id and input again gets the recorded decision.

        `asked` is what was asked for where an allocation granted less: what is judged and applied is the proposal.
        Raises Conflict where the id was used with other input.
        """
        assert proposal.mandate is None, "a mandate that counts is registered, so that a replay knows it"
        decision = decide(self.state, proposal, asked)
        return self._again(decision) or self._append_decision(decision, at)

    def fail(self, proposal_id: str, proposer: str, n: int, fault: Malformed | Unavailable, at: int) -> Decision:
        """Records a reply that was no proposal, or that there was none. Raises Conflict as `propose` does."""
        decision = faulted(proposal_id, proposer, n, fault)
        return self._again(decision) or self._append_decision(decision, at)

    def _again(self, decision: Decision) -> Decision | None:
        """What was decided before under the same id, if anything."""
        record = self.ledger.answered(decision.proposal_id)
        return None if record is None else again(record, decision)

    def _append_decision(self, decision: Decision, at: int) -> Decision:
        self.append(decision, at)
        self._auto_pause(at)
        return decision

    def _auto_pause(self, at: int) -> None:
        """Pauses where too much was refused, failed or moved; a person resumes."""
        state, limits = self.state, self.state.constraints.auto_pause
        if limits is None or state.paused:
            return
        refused, failed = limits.refused_in_a_row, limits.unavailable_in_a_row
        if refused is not None and state.refused_in_a_row >= refused:
            self.pause(at, "auto-pause", f"{state.refused_in_a_row} refused in a row")
        elif failed is not None and state.unavailable_in_a_row >= failed:
            self.pause(at, "auto-pause", f"{state.unavailable_in_a_row} unavailable in a row")
        else:
            for resource, most in (limits.moved_per_epoch or {}).items():
                if state.moved.get(resource, 0) > most:
                    self.pause(at, "auto-pause", f"more than the limit of {resource} moved in one epoch")
                    return

    # --- what people do: each with who and why, and once, however often it is asked ----------------------------------

    def _act(self, payload: Act, at: int, once: Once | None) -> JournalRecord:
        """Appends an act, or returns the record of the same request; Conflict where that asked for other things."""
        if once is None:
            return self.append(payload, at)
        known = self.ledger.answered(by_request(once.request))
        if known is None:
            return self.append(payload._replace(request=once.request, input=once.input), at)
        return _same(known, once)

    def settle(
        self, proposal_id: str, decision: str, at: int, operator: str = "", reason: str = "", once: Once | None = None
    ) -> Settlement:
        """Ends a hold once: `approve` judges it anew as of now without `hold_above`; `reject` and `expire` refuse it.

        Raises BadInput where nothing is held under this id.
        """
        known = None if once is None else self.ledger.answered(by_request(once.request))
        if once is not None and known is not None:
            return cast(Settlement, _same(known, once).payload)
        record = self._act(settled(self.state, proposal_id, decision, operator, reason), at, once)
        self._auto_pause(at)
        return cast(Settlement, record.payload)

    def override(
        self, transfers: tuple[Transfer, ...], at: int, operator: str, reason: str, once: Once | None = None
    ) -> JournalRecord:
        """Moves by hand, all or nothing, whatever the constraints; rejected where a sender has too little today.

        Raises BadInput where a transfer could never be made: an unknown actor, the boundary, an amount of 0.
        """
        return self._once(once) or self._act(overridden(self.state, transfers, operator, reason), at, once)

    def reverse(
        self,
        entries: Sequence[LedgerEntry],
        at: int,
        operator: str,
        reason: str,
        proposal_id: str | None = None,
        once: Once | None = None,
    ) -> JournalRecord:
        """Takes entries back with new ones, all or nothing; rejected where today's balances do not allow it.

        Raises Conflict where one was taken back before, BadInput where one is a reversal itself.
        """
        return self._once(once) or self._act(reversed_(self.state, entries, operator, reason, proposal_id), at, once)

    def _once(self, once: Once | None) -> JournalRecord | None:
        """What the same request led to before, if anything. Raises Conflict where it asked for other things."""
        known = None if once is None else self.ledger.answered(by_request(once.request))
        return None if once is None or known is None else _same(known, once)

    def constrain(
        self, constraints: Constraints, at: int, operator: str = "", reason: str = "", once: Once | None = None
    ) -> JournalRecord:
        """Puts other constraints in force."""
        return self._act(ConstraintsChange(constraints, operator, reason), at, once)

    def register(self, registration: Registration, at: int, once: Once | None = None) -> JournalRecord:
        """Adds actors, freezes or thaws them, or says what a proposer may move."""
        return self._act(registration, at, once)

    def activate(self, activation: Activation, at: int, once: Once | None = None) -> JournalRecord:
        """Puts a prompt and a model in force."""
        return self._act(activation, at, once)

    def pause(self, at: int, operator: str, reason: str, once: Once | None = None) -> JournalRecord:
        """Refuses every proposal from here on."""
        return self._act(Control(True, operator, reason), at, once)

    def resume(self, at: int, operator: str, reason: str, once: Once | None = None) -> JournalRecord:
        """Judges proposals again; what was counted for `auto_pause` counts no more."""
        return self._act(Control(False, operator, reason), at, once)

    # --- what meters and time do --------------------------------------------------------------------------------------

    def meter(
        self, name: str, readings: Sequence[Metered], at: int, *, epoch: int, once: Once | None = None
    ) -> list[JournalRecord]:
        """Records what a meter read in an epoch, one record for each kind; in the open epoch, and marked where late.

        Raises BadInput where the epoch is yet to come or a reading can't be, with the path to it.
        """
        marked = {kind: None if once is None else once._replace(request=_of_kind(once, kind)) for kind in METERED}
        known = [record for mark in marked.values() if (record := self._once(mark)) is not None]
        if known:
            return known
        self._check_metered(readings, epoch)
        read_for = epoch if epoch < self.state.epoch else None
        asked = {
            kind: [flows.Request(r.actor, r.resource, r.amount) for r in readings if r.kind == kind] for kind in METERED
        }
        # What can be refused is found out before anything is recorded; only then is it known what can be consumed.
        produced = flows.give(self.state, Kind.PRODUCE, name, asked["produce"])
        needed = flows.need(self.state, name, asked["need"])
        made = []
        for kind, mark in marked.items():
            flow = produced if kind == "produce" else needed
            if kind == "consume":
                flow = flows.take(self.state, Kind.CONSUME, name, asked[kind])
            if flow.readings:
                made.append(self._act(flow._replace(read_for=read_for), at, mark))
        return made

    def _check_metered(self, readings: Sequence[Metered], epoch: int) -> None:
        state = self.state
        if not 1 <= epoch <= state.epoch:
            raise BadInput(f"epoch {epoch} is not there yet; epoch {state.epoch} is open", ("epoch",))
        if not readings:
            raise BadInput("there is no reading; send at least one", ("readings",))
        for index, reading in enumerate(readings):
            if reading.kind not in METERED:
                raise BadInput(f"{reading.kind!r} is not read; expected one of: {', '.join(METERED)}",
                               ("readings", index, "kind"))  # fmt: skip
            if reading.actor not in state.actors or reading.actor == BOUNDARY:
                raise BadInput(f"there is no actor {reading.actor} with a meter", ("readings", index, "actor"))
            if reading.resource not in state.resources:
                raise BadInput(f"there is no resource {reading.resource}", ("readings", index, "resource"))

    def expire(self, at: int) -> list[Settlement]:
        """Ends every hold whose time is over with this epoch."""
        due = [pid for pid, hold in self.state.holds.items() if _due(hold.decision, self.state.epoch)]
        return [self.settle(pid, "expire", at) for pid in due]

    def give(self, kind: Kind, name: str, requests: Iterable[flows.Request], at: int) -> Flow:
        """Produces or grows; see `flows.give`."""
        return self._flow(flows.give(self.state, kind, name, requests), at)

    def need(self, name: str, requests: Iterable[flows.Request], at: int) -> Flow:
        """Announces demands; see `flows.need`."""
        return self._flow(flows.need(self.state, name, requests), at)

    def take(self, name: str, requests: Iterable[flows.Request], at: int) -> Flow:
        """Consumes; see `flows.take`."""
        return self._flow(flows.take(self.state, Kind.CONSUME, name, requests), at)

    def spill(self, storage: dict[tuple[str, str], int], at: int) -> Flow:
        """Takes what is above storage; see `flows.spill`."""
        return self._flow(flows.spill(self.state, storage), at)

    def _flow(self, flow: Flow, at: int) -> Flow:
        if flow.readings:
            self.append(flow, at)
        return flow

    def close(self, at: int, *, collapsed: bool = False) -> JournalRecord:
        """Closes the open epoch and opens the next."""
        state = self.state
        boundary = {resource: held[BOUNDARY] for resource, held in state.balances.items()}
        record = self.append(Close(state.entries, boundary, collapsed), at)
        self.ledger.commit()
        return record


def again(record: JournalRecord, decision: Decision) -> Decision:
    """What a proposal came to before, where it is the same again. Raises Conflict where it is another one."""
    known = record.payload
    assert type(known) is Decision, "a proposal's id leads to its decision"
    if known.input == decision.input:
        return known
    raise Conflict(
        f"proposal {known.proposal_id} was decided before with other input ({known.outcome}); "
        f"a new proposal needs a new id"
    )


def _same(known: JournalRecord, once: Once) -> JournalRecord:
    """The record that the same request led to. Raises Conflict where that asked for other things."""
    if getattr(known.payload, "input", "") == once.input:
        return known
    raise Conflict(f"this request was made before, and asked for other things (record {known.seq}); use a new key")


def _of_kind(once: Once, kind: str) -> str:
    """The request of one kind of readings, of those that came together."""
    return uuid5(f"{once.request}/{kind}")


def _due(decision: Decision, epoch: int) -> bool:
    return decision.held_until is not None and epoch >= decision.held_until
