"""The working state of a grid: what the fold of its records has come to; no rule and no I/O lives here.

`replay.fold` alone changes a State. Everyone else reads it.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

from gridgov.amounts import LIMIT
from gridgov.journal import START, Activation, Decision
from gridgov.model import (
    BOUNDARY,
    Actor,
    ActorView,
    Constraints,
    LedgerEntry,
    Resource,
    Seen,
    Transfer,
    WorldState,
)


class Hold(NamedTuple):
    """A held proposal: what was decided, and what it reserves of whom, in minor units by (actor, resource)."""

    decision: Decision
    epoch: int
    reserved: dict[tuple[str, str], int]


class State:
    """Balances and everything else that a decision depends on, in minor units, by resource and then actor.

    A balance is listed once it was declared or used, also at 0. `reserved` is what holds keep back: it is part of the
    balance, and is not spent, consumed or spilled. `sent` and `moved` count the open epoch's transfers, by sender
    and by resource. `reversed` has the record that took an entry back, by entry; `active` the prompt and model in
    force, by role.
    """

    __slots__ = (
        "active", "actors", "at", "balances", "constraints", "constraints_seq", "digest", "entries", "epoch",
        "frozen", "holds", "mandates", "moved", "needs", "paused", "refused_in_a_row", "reserved", "resources",
        "reversed", "sent", "seq", "unavailable_in_a_row",
    )  # fmt: skip

    def __init__(self) -> None:
        self.seq = 0
        self.digest = START
        self.at = 0
        self.epoch = 0
        self.entries = 0
        self.actors: dict[str, Actor] = {}
        self.resources: dict[str, Resource] = {}
        self.balances: dict[str, dict[str, int]] = {}
        self.reserved: dict[str, dict[str, int]] = {}
        self.sent: dict[str, dict[str, int]] = {}
        self.moved: dict[str, int] = {}
        self.needs: dict[str, dict[str, int]] = {}
        self.constraints = Constraints()
        self.constraints_seq = 0
        self.frozen: set[str] = set()
        self.mandates: dict[str, frozenset[str] | None] = {}
        self.holds: dict[str, Hold] = {}
        self.reversed: dict[int, int] = {}
        self.active: dict[str, Activation] = {}
        self.paused = False
        self.refused_in_a_row = 0
        self.unavailable_in_a_row = 0

    def balance(self, actor: str, resource: str) -> int:
        """What the actor has of the resource."""
        return self.balances[resource].get(actor, 0)

    def available(self, actor: str, resource: str) -> int:
        """What the actor may spend: its balance less what is reserved by holds."""
        return self.balances[resource].get(actor, 0) - self.reserved[resource].get(actor, 0)

    @property
    def seen(self) -> Seen:
        """What a proposer who looks now has before it."""
        return Seen(self.epoch, self.constraints_seq, self.entries)

    def apply(self, entries: Iterable[LedgerEntry]) -> None:
        """Moves the balances; every entry takes from one actor what it gives to another, so each sum stays 0."""
        for entry in entries:
            balances = self.balances[entry.resource]
            balances[entry.actor_from] = balances.get(entry.actor_from, 0) - entry.amount
            balances[entry.actor_to] = balances.get(entry.actor_to, 0) + entry.amount
            self.entries = entry.id

    def world_state(self, epoch: int | None = None) -> WorldState:
        """The snapshot that proposers and people see: of the open epoch, or labelled as the one asked for."""
        views = tuple(
            ActorView(
                actor.id,
                actor.type,
                {name: held[actor.id] for name, held in self.balances.items() if actor.id in held},
                {name: needs[actor.id] for name, needs in self.needs.items() if actor.id in needs},
                actor.id in self.frozen,
            )
            for actor in self.actors.values()
            if actor.id != BOUNDARY
        )
        shown = self.epoch if epoch is None else epoch
        resources = tuple(self.resources.values())
        return WorldState(shown, self.at, views, resources, self.constraints, self.paused)


def copied(state: State) -> State:
    """A state that stays as it is when the other goes on. Complexity: O(balances)."""
    found = State()
    for name in State.__slots__:
        value = getattr(state, name)
        if isinstance(value, dict):
            value = {key: dict(own) if isinstance(own, dict) else own for key, own in value.items()}
        setattr(found, name, set(value) if isinstance(value, set) else value)
    return found


def drawdown(transfers: Iterable[Transfer]) -> dict[tuple[str, str], int]:
    """The most that transfers, in their order, draw of each (actor, resource) at any point, in minor units.

    This is what a hold reserves: enough that the transfers can be made later, whatever else happens.
    """
    net: dict[tuple[str, str], int] = {}
    most: dict[tuple[str, str], int] = {}
    for actor_from, actor_to, resource, amount in transfers:
        assert not isinstance(amount, Decimal), "only what the validator passed is held"
        giver, taker = (actor_from, resource), (actor_to, resource)
        net[giver] = net.get(giver, 0) + amount
        net[taker] = net.get(taker, 0) - amount
        most[giver] = max(most.get(giver, 0), net[giver])
    return {key: amount for key, amount in most.items() if amount}


def room(state: State, actor: str, resource: str) -> int:
    """How much more the actor can be given before its balance reaches `LIMIT`."""
    return LIMIT - 1 - state.balance(actor, resource)
