"""The only rules: (state, constraints, proposal) -> Verdict. No I/O, no clock, no randomness, and nothing is raised.

Codes stand in `model.Code` in order of precedence. To add a rule: a code there, a check here, a row in the table test.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from gridgov.amounts import LIMIT, exponent, plain_decimal
from gridgov.model import BOUNDARY, Code, Constraints, Proposal, Transfer, Verdict, Violation
from gridgov.state import State

Moved = dict[tuple[str, str], int]
"""By (actor, resource), minor units."""


def validate(state: State, constraints: Constraints, proposal: Proposal, *, settling: bool = False) -> Verdict:
    """Judges a proposal: every rule that it breaks, or none; and whether a person must approve it.

    Transfers are checked in order against a running state: one that passes moves it (its receiver can send it on),
    one that violates does not. With `settling`, a hold is being approved: a person decides, so neither a pause, nor
    what the proposer had seen, nor `hold_above` counts; everything else is judged as it stands today.
    Complexity: O(transfers).
    """
    found = _of_proposal(state, constraints, proposal, settling)
    if found is not None:
        return Verdict((found,), False)
    mandate = proposal.mandate if proposal.mandate is not None else state.mandates.get(proposal.proposer)
    violations: list[Violation] = []
    net: Moved = {}
    sent: Moved = {}
    hold = False
    for index, transfer in enumerate(proposal.transfers):
        actor_from, actor_to, resource, amount = transfer
        fault = _of_transfer(state, mandate, net, index, transfer)
        if fault is not None:
            violations.append(fault)
            continue
        assert type(amount) is int
        broken = _of_limits(state, constraints, net, sent, index, transfer)
        if broken:
            violations += broken
            continue
        giver, taker = (actor_from, resource), (actor_to, resource)
        net[giver] = net.get(giver, 0) - amount
        net[taker] = net.get(taker, 0) + amount
        sent[giver] = sent.get(giver, 0) + amount
        if constraints.hold_above is not None and not settling:
            threshold = constraints.hold_above.of(actor_from, resource)
            hold = hold or (threshold is not None and amount > threshold)
    return Verdict(tuple(violations), hold and not violations)


def validate_by_hand(state: State, transfers: Sequence[Transfer], *, reversing: bool = False) -> tuple[Violation, ...]:
    """Judges what a person moves by hand: every rule that it breaks. No limit, mandate, freeze or pause binds it.

    It must be possible all the same: known actors, a whole amount above 0, and the sender must have it available.
    With `reversing`, an entry is taken back: it may lead through the boundary, which may go below 0.
    In order and against a running state, as `validate`. Complexity: O(transfers).
    """
    violations: list[Violation] = []
    net: Moved = {}
    for index, transfer in enumerate(transfers):
        actor_from, actor_to, resource, amount = transfer
        fault = _of_transfer(state, None, net, index, transfer, bound=False, boundary=reversing)
        if fault is not None:
            violations.append(fault)
            continue
        assert type(amount) is int
        available = state.available(actor_from, resource) + net.get((actor_from, resource), 0)
        if amount > available and actor_from != BOUNDARY:
            path = f"transfers[{index}].amount"
            violations.append(Violation(Code.INSUFFICIENT_BALANCE, path, available, amount, resource))
            continue
        for actor, change in ((actor_from, -amount), (actor_to, amount)):
            net[actor, resource] = net.get((actor, resource), 0) + change
    return tuple(violations)


def _of_proposal(state: State, constraints: Constraints, proposal: Proposal, settling: bool) -> Violation | None:
    """The first rule that the proposal breaks as a whole."""
    if not settling:
        if state.paused:
            return Violation(Code.PAUSED, "")
        seen = proposal.seen
        if seen is not None:
            if seen.epoch != state.epoch:
                return Violation(Code.STALE_WORLD_STATE, "epoch", state.epoch, seen.epoch)
            if seen.constraints_seq != state.constraints_seq:
                return Violation(Code.STALE_WORLD_STATE, "constraints", state.constraints_seq, seen.constraints_seq)
    most = constraints.max_transfers_per_proposal
    if most is not None and len(proposal.transfers) > most:
        return Violation(Code.TOO_MANY_TRANSFERS, "transfers", most, len(proposal.transfers))
    return None


def _of_transfer(
    state: State,
    mandate: frozenset[str] | None,
    net: Moved,
    index: int,
    transfer: Transfer,
    *,
    bound: bool = True,
    boundary: bool = False,
) -> Violation | None:
    """The first rule that ends this transfer's check. Who is not `bound` may move what is frozen."""
    actor_from, actor_to, resource, amount = transfer
    actors = state.actors
    if actor_from not in actors or actor_to not in actors:
        return _at_actor(Code.UNKNOWN_ACTOR, index, transfer, actor_from not in actors)
    if bound and state.frozen and (actor_from in state.frozen or actor_to in state.frozen):
        return _at_actor(Code.FROZEN_ACTOR, index, transfer, actor_from in state.frozen)
    if not boundary and (actor_from == BOUNDARY or actor_to == BOUNDARY):
        return _at_actor(Code.BOUNDARY_ACTOR, index, transfer, actor_from == BOUNDARY)
    if mandate is not None and actor_from not in mandate:
        return _at_actor(Code.NOT_PERMITTED, index, transfer, True)
    if resource not in state.resources:
        return Violation(Code.UNKNOWN_RESOURCE, f"transfers[{index}].resource", None, resource)
    if actor_from == actor_to:
        return _at_actor(Code.SAME_ACTOR, index, transfer, False)
    if type(amount) is not int:
        return _unfit(state, index, resource, amount)
    if amount <= 0:
        return Violation(Code.NON_POSITIVE_AMOUNT, f"transfers[{index}].amount", None, amount, resource)
    reached = state.balances[resource].get(actor_to, 0) + net.get((actor_to, resource), 0) + amount
    if amount >= LIMIT or (reached >= LIMIT and actor_to != BOUNDARY):
        actual = amount if amount >= LIMIT else reached
        return Violation(Code.OUT_OF_RANGE, f"transfers[{index}].amount", LIMIT - 1, actual, resource)
    return None


def _at_actor(code: Code, index: int, transfer: Transfer, sender: bool) -> Violation:
    """A violation that points at the sender or at the receiver."""
    side, actor = ("from", transfer.actor_from) if sender else ("to", transfer.actor_to)
    return Violation(code, f"transfers[{index}].{side}", None, actor)


def _unfit(state: State, index: int, resource: str, amount: int | Decimal) -> Violation:
    """What is wrong with an amount that minor units of its resource could not express."""
    assert isinstance(amount, Decimal)
    path, text, scale = f"transfers[{index}].amount", plain_decimal(amount), state.resources[resource].scale
    if amount < 0:
        return Violation(Code.NON_POSITIVE_AMOUNT, path, None, text)
    if exponent(amount) < -scale:
        return Violation(Code.PRECISION, path, scale, text)
    return Violation(Code.OUT_OF_RANGE, path, LIMIT - 1, text, resource)


def _of_limits(
    state: State, constraints: Constraints, net: Moved, sent: Moved, index: int, transfer: Transfer
) -> list[Violation]:
    """Every limit that this transfer breaks."""
    actor, _, resource, amount = transfer
    assert type(amount) is int
    key = (actor, resource)
    path = "transfers[{}].amount"
    broken: list[Violation] = []
    most = constraints.max_transfer.of(actor, resource) if constraints.max_transfer is not None else None
    if most is not None and amount > most:
        broken.append(Violation(Code.MAX_TRANSFER, path.format(index), most, amount, resource))
    available = state.balances[resource].get(actor, 0) - state.reserved[resource].get(actor, 0) + net.get(key, 0)
    least = (constraints.min_balance.of(actor, resource) or 0) if constraints.min_balance is not None else 0
    if amount > available:
        broken.append(Violation(Code.INSUFFICIENT_BALANCE, path.format(index), available, amount, resource))
    elif available - amount < least:
        broken.append(Violation(Code.MIN_BALANCE, path.format(index), least, available - amount, resource))
    quota = constraints.epoch_quota.of(actor, resource) if constraints.epoch_quota is not None else None
    if quota is not None:
        total = state.sent[resource].get(actor, 0) + sent.get(key, 0) + amount
        if total > quota:
            broken.append(Violation(Code.EPOCH_QUOTA, path.format(index), quota, total, resource))
    return broken
