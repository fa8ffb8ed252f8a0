"""propose -> validate -> append: the one place where something is decided and becomes a record.

Effects are injected: the ledger that remembers, and the time of each call. The engine reads no clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from gridgov import flows
from gridgov.errors import BadInput, Conflict
from gridgov.journal import (
    Close,
    ConstraintsChange,
    Control,
    Decision,
    Flow,
    Genesis,
    JournalRecord,
    Payload,
    Registration,
    Settlement,
    proposal_digest,
    seal,
)
from gridgov.ledger import Ledger
from gridgov.model import (
    BOUNDARY,
    Code,
    Constraints,
    Kind,
    Malformed,
    Outcome,
    Proposal,
    Transfer,
    Unavailable,
    Verdict,
    Violation,
)
from gridgov.replay import fold
from gridgov.state import State
from gridgov.validate import validate

SETTLEMENTS = ("approve", "reject", "expire")
"""The ways in which a hold ends."""


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
        known = self.ledger.decision(decision.proposal_id)
        if known is None or known.input == decision.input:
            return known
        raise Conflict(
            f"proposal {known.proposal_id} was decided before with other input ({known.outcome}); "
            f"a new proposal needs a new id"
        )

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

    # --- what people, meters and time do --------------------------------------------------------------------------

    def settle(self, proposal_id: str, decision: str, at: int, operator: str = "", reason: str = "") -> Settlement:
        """Ends a hold once: `approve` judges it anew as of now without `hold_above`; `reject` and `expire` refuse it.

        Raises BadInput where nothing is held under this id.
        """
        state = self.state
        if decision not in SETTLEMENTS:
            raise BadInput(f"{decision!r} settles nothing; expected one of: {', '.join(SETTLEMENTS)}")
        if proposal_id not in state.holds:
            raise BadInput(f"no proposal {proposal_id} is held; it may have been settled already")
        hold = state.holds[proposal_id]
        if decision == "approve":
            held = hold.decision
            proposal = Proposal(held.proposal_id, held.proposer, held.n, held.effective, held.reasoning)
            verdict = self._judge_released(hold.reserved, proposal)
        else:
            code = Code.HOLD_EXPIRED if decision == "expire" else Code.HOLD_REJECTED
            limit = hold.decision.held_until if decision == "expire" else None
            verdict = Verdict((Violation(code, "", limit, state.epoch),), False)
        executed = not verdict.violations
        first = state.entries + 1
        settlement = Settlement(
            proposal_id,
            decision,
            Outcome.EXECUTED if executed else Outcome.REJECTED,
            verdict.violations,
            tuple(range(first, first + len(hold.decision.transfers))) if executed else (),
            operator,
            reason,
        )
        self.append(settlement, at)
        self._auto_pause(at)
        return settlement

    def _judge_released(self, reserved: dict[tuple[str, str], int], proposal: Proposal) -> Verdict:
        """Judges a held proposal as if its own reservation were released already."""
        state = self.state
        for (actor, resource), amount in reserved.items():
            state.reserved[resource][actor] -= amount
        verdict = validate(state, state.constraints, proposal, settling=True)
        for (actor, resource), amount in reserved.items():
            state.reserved[resource][actor] += amount
        return verdict

    def expire(self, at: int) -> list[Settlement]:
        """Ends every hold whose time is over with this epoch."""
        due = [pid for pid, hold in self.state.holds.items() if _due(hold.decision, self.state.epoch)]
        return [self.settle(pid, "expire", at) for pid in due]

    def give(self, kind: Kind, name: str, requests: Iterable[flows.Request], at: int) -> Flow:
        """Produces or grows; see `flows.give`."""
        return self._flow(flows.give(self.state, kind, name, requests), at)

    def need(self, name: str, requests: Iterable[flows.Request], at: int) -> Flow:
        """Announces demands; see `flows.need`."""
        flow = flows.need(name, requests)
        assert all(r.requested >= 0 and r.actor in self.state.actors for r in flow.readings), "checked where it came in"
        return self._flow(flow, at)

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

    def constrain(self, constraints: Constraints, at: int, operator: str = "", reason: str = "") -> None:
        """Puts other constraints in force."""
        self.append(ConstraintsChange(constraints, operator, reason), at)

    def register(self, registration: Registration, at: int) -> None:
        """Adds actors, freezes or thaws them, or says what a proposer may move."""
        self.append(registration, at)

    def pause(self, at: int, operator: str, reason: str) -> None:
        """Refuses every proposal from here on."""
        self.append(Control(True, operator, reason), at)

    def resume(self, at: int, operator: str, reason: str) -> None:
        """Judges proposals again."""
        self.append(Control(False, operator, reason), at)


def outcome_of(verdict: Verdict, proposal: Proposal) -> Outcome:
    """What a verdict makes of a proposal."""
    if verdict.violations:
        return Outcome.REJECTED
    if not proposal.transfers:
        return Outcome.NOOP
    return Outcome.HELD if verdict.hold else Outcome.EXECUTED


def decide(state: State, proposal: Proposal, asked: tuple[Transfer, ...] | None = None) -> Decision:
    """What would be decided of a proposal as things stand; nothing is appended. See `Engine.propose`."""
    transfers = proposal.transfers if asked is None else asked
    verdict = validate(state, state.constraints, proposal)
    if asked is not None:
        verdict = verdict._replace(violations=tuple(_shortfall(v, proposal, asked) for v in verdict.violations))
    outcome = outcome_of(verdict, proposal)
    first = state.entries + 1
    return Decision(
        proposal.id,
        proposal.proposer,
        proposal.n,
        proposal_digest(transfers, proposal.reasoning),
        transfers,
        proposal.reasoning,
        outcome,
        verdict.violations,
        tuple(range(first, first + len(transfers))) if outcome is Outcome.EXECUTED else (),
        None if transfers == proposal.transfers else tuple([t.amount for t in proposal.transfers]),
        state.epoch + state.constraints.hold_epochs if outcome is Outcome.HELD else None,
        proposal.seen is not None and proposal.seen.entries != state.entries,
    )


def _shortfall(violation: Violation, proposal: Proposal, asked: tuple[Transfer, ...]) -> Violation:
    """A share of 0 is not what was asked for: there was not enough."""
    if violation.code is not Code.NON_POSITIVE_AMOUNT:
        return violation
    index = int(violation.path.removeprefix("transfers[").partition("]")[0])
    wanted = asked[index].amount
    if proposal.transfers[index].amount == wanted or not isinstance(wanted, int):
        return violation
    return violation._replace(code=Code.INSUFFICIENT_BALANCE, limit=0, actual=wanted)


def faulted(proposal_id: str, proposer: str, n: int, fault: Malformed | Unavailable) -> Decision:
    """The record of a reply that was no proposal, or that there was none; nothing is appended."""
    if isinstance(fault, Malformed):
        outcome, given = Outcome.MALFORMED, fault.raw
    else:
        outcome, given = Outcome.UNAVAILABLE, fault.kind.encode()
    digest = hashlib.sha256(f"{outcome}\n".encode() + given).hexdigest()
    return Decision(proposal_id, proposer, n, digest, (), "", outcome, fault=fault[0], detail=fault.detail)


def _due(decision: Decision, epoch: int) -> bool:
    return decision.held_until is not None and epoch >= decision.held_until
