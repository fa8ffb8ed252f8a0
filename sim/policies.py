"""Proposers made of code: the baselines that a model is measured against; they judge and append nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from heapq import heapify, heappop, heappush

from gridgov.amounts import plain
from gridgov.model import BOUNDARY, Transfer
from gridgov.propose import Answer, Context
from gridgov.state import State
from sim.draws import draw

TRANSFERS_MAX = 10_000
"""Most transfers that `greedy` puts into one proposal, so that a tiny max_transfer can't make it endless."""

NOTHING = Answer((), "")


class Policy:
    """A proposer whose answer is a function of what it is shown."""

    def __init__(self, answer: Callable[[Context], Answer]) -> None:
        self.propose = answer

    def rounds(self, epoch: int) -> int | None:
        """As many as the scenario says."""
        return None


def none(context: Context) -> Answer:
    """Never proposes anything: what actors manage alone."""
    return NOTHING


def random(seed: int) -> Callable[[Context], Answer]:
    """One transfer between two distinct nodes, all drawn; the amount uniform in [1 minor unit, 1.2 x max_transfer].

    Where nobody is of type `node`, anyone but the boundary may be drawn; where max_transfer is unlimited, what the
    sender has available stands in for it.
    """
    nodes: list[str] = []
    known = 0

    def answer(context: Context) -> Answer:
        nonlocal nodes, known
        state = context.state
        if known != len(state.actors):
            known = len(state.actors)
            nodes = [a.id for a in state.actors.values() if a.type == "node"]
            if len(nodes) < 2:
                nodes = [a.id for a in state.actors.values() if a.id != BOUNDARY]
        if len(nodes) < 2:
            return NOTHING
        resources = list(state.resources)
        round_ = context.round
        bits = draw(seed, round_.epoch, round_.proposer, f"random/{round_.n}")
        bits, first = divmod(bits, len(nodes))
        bits, second = divmod(bits, len(nodes) - 1)
        bits, which = divmod(bits, len(resources))
        giver, taker, resource = nodes[first], nodes[second + (second >= first)], resources[which]
        limit = state.constraints.max_transfer
        most = limit.of(giver, resource) if limit is not None else None
        if most is None:
            most = state.available(giver, resource)
        return Answer((Transfer(giver, taker, resource, 1 + bits % max(1, most * 6 // 5)),), "drawn by chance")

    return answer


def greedy(context: Context) -> Answer:
    """Moves from the largest surplus to the largest deficit until either is gone, within the limits.

    surplus = available - need - minimum of the sender; deficit = need - balance; ties by registration order; as many
    transfers as it takes, each at most max_transfer, each sender within its quota. O(transfers x log actors).
    """
    state, constraints = context.state, context.state.constraints
    room = TRANSFERS_MAX
    if constraints.max_transfers_per_proposal is not None:
        room = min(room, constraints.max_transfers_per_proposal)
    transfers: list[Transfer] = []
    said: list[str] = []
    for resource in state.resources:
        if resource not in state.needs:
            continue
        found = _match(state, resource, context.mandate, room - len(transfers))
        transfers += found
        if found:
            said.append(_reason(state, resource, found))
    return Answer(tuple(transfers), "; ".join(said))


def _match(state: State, resource: str, mandate: frozenset[str] | None, room: int) -> list[Transfer]:
    """The transfers of one resource: both sides are heaps of (-amount, registration order, actor)."""
    constraints, needs = state.constraints, state.needs[resource]
    surpluses: list[tuple[int, int, str]] = []
    deficits: list[tuple[int, int, str]] = []
    for order, actor in enumerate(state.actors):
        if actor == BOUNDARY or actor in state.frozen:
            continue
        need = needs.get(actor, 0)
        deficit = need - state.balance(actor, resource)
        if deficit > 0:
            deficits.append((-deficit, order, actor))
        elif mandate is None or actor in mandate:
            least = (constraints.min_balance.of(actor, resource) or 0) if constraints.min_balance else 0
            surplus = state.available(actor, resource) - need - least
            if surplus > 0:
                surpluses.append((-surplus, order, actor))
    heapify(surpluses)
    heapify(deficits)
    found: list[Transfer] = []
    left = {actor: _quota_left(state, actor, resource) for _, _, actor in surpluses}
    while surpluses and deficits and len(found) < room:
        surplus, giver_order, giver = heappop(surpluses)
        most = _most(state, giver, resource, -surplus, left[giver])
        if most <= 0:
            continue
        deficit, taker_order, taker = heappop(deficits)
        amount = min(most, -deficit)
        found.append(Transfer(giver, taker, resource, amount))
        left[giver] = None if left[giver] is None else left[giver] - amount  # type: ignore[operator]
        if surplus + amount:
            heappush(surpluses, (surplus + amount, giver_order, giver))
        if deficit + amount:
            heappush(deficits, (deficit + amount, taker_order, taker))
    return found


def hasty(context: Context) -> Answer:
    """Fills the three largest gaps from the three largest surpluses, in tenths of a unit, rounded as people round.

    What a planner in a hurry might say, and now and then a tenth too much: a source of synthetic replies.
    """
    state = context.state
    transfers: list[Transfer] = []
    for resource, needs in state.needs.items():
        tenth = max(1, 10 ** (state.resources[resource].scale - 1))
        spare = {a: state.available(a, resource) - needs.get(a, 0) for a in state.actors if a != BOUNDARY}
        givers = sorted((a for a in spare if spare[a] > 0), key=lambda a: -spare[a])[:3]
        takers = sorted((a for a in spare if spare[a] < 0), key=lambda a: spare[a])[:3]
        for giver, taker in zip(givers, takers, strict=False):
            amount = round(Fraction(_most(state, giver, resource, spare[giver], -spare[taker]), tenth)) * tenth
            if amount:
                transfers.append(Transfer(giver, taker, resource, amount))
    said = ", ".join(f"{t.actor_from} can spare it for {t.actor_to}" for t in transfers)
    return Answer(tuple(transfers), said or "nobody both lacks and can spare")


def _quota_left(state: State, actor: str, resource: str) -> int | None:
    quota = state.constraints.epoch_quota.of(actor, resource) if state.constraints.epoch_quota else None
    return None if quota is None else quota - state.sent[resource].get(actor, 0)


def _most(state: State, giver: str, resource: str, surplus: int, quota: int | None) -> int:
    limit = state.constraints.max_transfer.of(giver, resource) if state.constraints.max_transfer else None
    return min(bound for bound in (surplus, limit, quota) if bound is not None)


def _reason(state: State, resource: str, found: list[Transfer]) -> str:
    total = sum(t.amount for t in found if isinstance(t.amount, int))
    about = state.resources[resource]
    givers, takers = len({t.actor_from for t in found}), len({t.actor_to for t in found})
    return (
        f"{plain(total, about.scale)} {about.unit} of {resource} from {givers} with most to spare to {takers} in need"
    )


class Commons:
    """How much an actor may ask of a shared pool."""

    def __init__(self, pool: str, resource: str, harvesters: int) -> None:
        self.pool, self.resource, self.harvesters = pool, resource, harvesters

    def ask(self, context: Context, amount: int, why: str) -> Answer:
        """A transfer of this much from the pool to the actor that is asked."""
        if amount <= 0 or context.actor is None:
            return Answer((), why)
        return Answer((Transfer(self.pool, context.actor, self.resource, amount),), why)

    def take(self, amount: int) -> Callable[[Context], Answer]:
        """Always asks the same."""
        return lambda context: self.ask(context, amount, "takes what it always takes")

    def take_max(self, context: Context) -> Answer:
        """Asks all that the pool has and the limits let one ask."""
        state, constraints = context.state, context.state.constraints
        least = constraints.min_balance.of(self.pool, self.resource) or 0 if constraints.min_balance else 0
        there = state.available(self.pool, self.resource) - least
        quota = _quota_left(state, self.pool, self.resource)
        return self.ask(context, _most(state, self.pool, self.resource, there, quota), "takes all it can")

    def sustainable(self, context: Context) -> Answer:
        """Asks its share of what grows back: floor(floor(pool / 2) / harvesters), in minor units."""
        share = context.state.balance(self.pool, self.resource) // 2 // self.harvesters
        return self.ask(context, share, "takes its share of what grows back")


class Planned:
    """Plays transfers that were planned beforehand, in the first round of each epoch."""

    def __init__(self, plan: Mapping[int, tuple[Transfer, ...]]) -> None:
        self.plan = plan

    def rounds(self, epoch: int) -> int | None:
        """As many as the scenario says."""
        return None

    def propose(self, context: Context) -> Answer:
        """What the plan says for this epoch."""
        if context.round.n > 1 or not self.plan.get(context.round.epoch):
            return NOTHING
        return Answer(self.plan[context.round.epoch], "the plan that serves most with perfect foresight")


PLAIN: dict[str | None, Callable[[Context], Answer]] = {"none": none, "greedy": greedy, "hasty": hasty}
"""The policies that need nothing but what they are shown."""
