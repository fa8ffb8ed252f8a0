"""How well one proposal serves the open epoch, beside the best that any could: exact, in minor units; nothing moves.

The step: what is proposed is applied (or reserved, where it is held), then everyone consumes what it announced to need,
as far as what it has available goes. What is produced, stored and needed later plays no part.

Why the best has a closed form: within one resource, a unit that leaves what an actor needs itself serves nobody more.
So at most `spare` can be moved to any use: of each actor that may send, what it has available beyond its need, at most
down to its minimum, and at most its quota. At most `lack` can be used: what actors need beyond what they have. Moving
min(spare, lack) breaks no other rule, because a transfer above `max_transfer` or `hold_above` can be split. Where
`max_transfers_per_proposal` forbids to split that often, the best is at most what so many of the largest pieces come
to; that bound is never below the best, and is the best itself where it does not bind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

from gridgov.journal import Decision
from gridgov.model import BOUNDARY, Limit, Outcome
from gridgov.state import State, drawdown


class Step(NamedTuple):
    """One resource in one step, minor units: what is needed; what is served alone, by the decision, and at best."""

    needed: int
    alone: int
    served: int
    best: int


def steps(state: State, decision: Decision, mandate: frozenset[str] | None = None) -> dict[str, Step]:
    """The step of each resource that somebody announced to need; `state` is that before the decision."""
    found = {}
    for resource, needs in state.needs.items():
        needed = sum(needs.values())
        if needed:
            alone = _served(state, resource, {})
            served = _served(state, resource, _changes(decision, resource))
            found[resource] = Step(needed, alone, served, alone + _gain(state, resource, mandate))
    return found


def regret(of: Iterable[Step]) -> float | None:
    """What was not served of the needs, though it could have been: (best - served) / needed, the mean over resources.

    0 is the best that one proposal could do; doing nothing has the regret (best - alone) / needed, so it does not win
    wherever something could be gained; what does harm has more. None where nobody announced a need.
    """
    shares = [Fraction(step.best - step.served, step.needed) for step in of]
    return float(sum(shares) / len(shares)) if shares else None


def _changes(decision: Decision, resource: str) -> dict[str, int]:
    """How what actors have available changes by a decision."""
    changed: dict[str, int] = {}
    if decision.outcome is Outcome.EXECUTED:
        for giver, taker, of, amount in decision.effective:
            if of == resource:
                assert type(amount) is int
                changed[giver] = changed.get(giver, 0) - amount
                changed[taker] = changed.get(taker, 0) + amount
    elif decision.outcome is Outcome.HELD:
        changed = {actor: -amount for (actor, of), amount in drawdown(decision.effective).items() if of == resource}
    return changed


def _served(state: State, resource: str, changed: dict[str, int]) -> int:
    needs = state.needs[resource]
    return sum(min(need, state.available(actor, resource) + changed.get(actor, 0)) for actor, need in needs.items())


def _gain(state: State, resource: str, mandate: frozenset[str] | None) -> int:
    """How much more than alone can be served."""
    if state.paused:
        return 0
    needs = state.needs[resource]
    spare: list[tuple[int, int | None]] = []
    lacks: list[int] = []
    for actor in state.actors:
        if actor == BOUNDARY or actor in state.frozen:
            continue
        beyond = state.available(actor, resource) - needs.get(actor, 0)
        if beyond < 0:
            lacks.append(-beyond)
        elif mandate is None or actor in mandate:
            spare.append(_spare(state, actor, resource, beyond))
    most = min(sum(amount for amount, _ in spare), sum(lacks))
    count = state.constraints.max_transfers_per_proposal
    if count is None:
        return most
    pieces = [piece for _, piece in spare]
    largest = None if None in pieces or not pieces else max(piece for piece in pieces if piece is not None)
    return min(most, _largest(spare, count), _largest([(lack, largest) for lack in lacks], count))


def _spare(state: State, actor: str, resource: str, beyond: int) -> tuple[int, int | None]:
    """What the actor may send without going short, and the most of it in one transfer (None: all of it)."""
    constraints = state.constraints
    least = _of(constraints.min_balance, actor, resource) or 0
    quota = _of(constraints.epoch_quota, actor, resource)
    amount = min(beyond, max(0, state.available(actor, resource) - least))
    if quota is not None:
        amount = min(amount, max(0, quota - state.sent[resource].get(actor, 0)))
    limits = (_of(constraints.max_transfer, actor, resource), _of(constraints.hold_above, actor, resource))
    piece = min((limit for limit in limits if limit is not None), default=None)
    return (0 if piece == 0 else amount), piece


def _of(limit: Limit | None, actor: str, resource: str) -> int | None:
    return None if limit is None else limit.of(actor, resource)


def _largest(amounts: list[tuple[int, int | None]], count: int) -> int:
    """What the `count` largest pieces come to, when each amount is cut into pieces of its own most."""
    total = 0
    for size, times in sorted(_pieces(amounts), reverse=True):
        taken = min(times, count)
        total, count = total + size * taken, count - taken
    return total


def _pieces(amounts: list[tuple[int, int | None]]) -> Iterator[tuple[int, int]]:
    """Sizes of pieces, and how many there are of each."""
    for amount, most in amounts:
        if most is None:
            yield amount, 1
        elif most:
            yield most, amount // most
            yield amount % most, 1
