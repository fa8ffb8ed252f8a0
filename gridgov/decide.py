"""What would be decided as things stand: of a proposal, a hold, a transfer by hand, a reversal; nothing is appended.

`engine` appends what these return; a dry run shows it; `verify` compares it with what was recorded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from gridgov.errors import BadInput, Conflict
from gridgov.journal import Decision, Override, Reversal, Settlement, proposal_digest
from gridgov.model import (
    Code,
    Kind,
    LedgerEntry,
    Malformed,
    Outcome,
    Proposal,
    Transfer,
    Unavailable,
    Verdict,
    Violation,
)
from gridgov.state import State
from gridgov.validate import validate, validate_by_hand
from gridgov.words import words

SETTLEMENTS = ("approve", "reject", "expire")
"""The ways in which a hold ends."""


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


def settled(state: State, proposal_id: str, decision: str, operator: str = "", reason: str = "") -> Settlement:
    """What settling a hold would come to as things stand; nothing is appended. See `Engine.settle`."""
    if decision not in SETTLEMENTS:
        raise BadInput(f"{decision!r} settles nothing; expected one of: {', '.join(SETTLEMENTS)}")
    if proposal_id not in state.holds:
        raise BadInput(f"no proposal {proposal_id} is held; it may have been settled already")
    hold = state.holds[proposal_id]
    if decision == "approve":
        held = hold.decision
        proposal = Proposal(held.proposal_id, held.proposer, held.n, held.effective, held.reasoning)
        violations = _judge_released(state, hold.reserved, proposal).violations
    else:
        code = Code.HOLD_EXPIRED if decision == "expire" else Code.HOLD_REJECTED
        limit = hold.decision.held_until if decision == "expire" else None
        violations = (Violation(code, "", limit, state.epoch),)
    outcome, entries = _applied(state, violations, len(hold.decision.transfers))
    return Settlement(proposal_id, decision, outcome, violations, entries, operator, reason)


def _judge_released(state: State, reserved: dict[tuple[str, str], int], proposal: Proposal) -> Verdict:
    """Judges a held proposal as if its own reservation were released already."""
    for (actor, resource), amount in reserved.items():
        state.reserved[resource][actor] -= amount
    verdict = validate(state, state.constraints, proposal, settling=True)
    for (actor, resource), amount in reserved.items():
        state.reserved[resource][actor] += amount
    return verdict


def _applied(state: State, violations: tuple[Violation, ...], count: int) -> tuple[Outcome, tuple[int, ...]]:
    """Executed with the next so many entries, or rejected with none."""
    if violations:
        return Outcome.REJECTED, ()
    return Outcome.EXECUTED, tuple(range(state.entries + 1, state.entries + 1 + count))


def overridden(state: State, transfers: tuple[Transfer, ...], operator: str, reason: str) -> Override:
    """What moving by hand would come to as things stand; nothing is appended. See `Engine.override`."""
    if not transfers:
        raise BadInput("there is nothing to move; name at least one transfer", ("transfers",))
    violations = validate_by_hand(state, transfers)
    for violation in violations:
        if violation.code is not Code.INSUFFICIENT_BALANCE:
            raise BadInput(words(violation, state.resources), ("transfers", *_place(violation.path)))
    outcome, entries = _applied(state, violations, len(transfers))
    return Override(transfers, outcome, violations, entries, operator, reason)


def _place(path: str) -> tuple[str | int, ...]:
    """Keys and indexes of `transfers[0].amount` below `transfers`."""
    index, _, field = path.removeprefix("transfers[").partition("].")
    return int(index), field


def reversed_(
    state: State, entries: Sequence[LedgerEntry], operator: str, reason: str, proposal_id: str | None = None
) -> Reversal:
    """What taking entries back would come to as things stand; nothing is appended. See `Engine.reverse`."""
    if not entries:
        raise BadInput("it made no entries, so there is nothing to take back")
    newest = sorted(entries, key=lambda entry: entry.id, reverse=True)
    for entry in newest:
        if entry.kind is Kind.REVERSAL:
            raise BadInput(f"entry {entry.id} takes another one back; make a transfer by hand instead")
        if entry.id in state.reversed:
            raise Conflict(f"entry {entry.id} was taken back before, by record {state.reversed[entry.id]}")
    transfers = tuple(Transfer(e.actor_to, e.actor_from, e.resource, e.amount) for e in newest)
    violations = validate_by_hand(state, transfers, reversing=True)
    outcome, made = _applied(state, violations, len(transfers))
    ids = tuple(entry.id for entry in newest)
    return Reversal(proposal_id, ids, transfers, outcome, violations, made, operator, reason)


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
