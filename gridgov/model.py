"""The frozen values that the parts hand to each other; no rule, no I/O and no state lives here.

Amounts are `int` minor units (see `amounts`), times are microseconds since 1970 (UTC), actors and resources are keys.
"""

from __future__ import annotations

import hashlib
import uuid
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

BOUNDARY = "grid"
"""The one actor through which resources enter and leave; the only one whose balances may be below zero."""

BOUNDARY_TYPE = "boundary"

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "gridgov")
"""The namespace of every id that the project derives: `uuid5(NAMESPACE, "actor-1")` is actor-1's."""

_SEEDED = hashlib.sha1(NAMESPACE.bytes, usedforsecurity=False)


def uuid5(name: str) -> str:
    """Text of `uuid.uuid5(NAMESPACE, name)` (RFC 9562, section 5.5), four times as fast as the library's."""
    sha = _SEEDED.copy()
    sha.update(name.encode())
    text = sha.hexdigest()
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}"


class Outcome(StrEnum):
    """What became of a round. `unavailable` is no decision and is counted apart."""

    EXECUTED = "executed"
    REJECTED = "rejected"
    HELD = "held"
    NOOP = "noop"
    MALFORMED = "malformed"
    UNAVAILABLE = "unavailable"


class Kind(StrEnum):
    """Why a ledger entry exists."""

    GENESIS = "genesis"
    TRANSFER = "transfer"
    PRODUCE = "produce"
    GROW = "grow"
    CONSUME = "consume"
    SPILL = "spill"
    OVERRIDE = "override"
    REVERSAL = "reversal"


class Code(StrEnum):
    """Every way to break a rule, in order of precedence. `validate` defines each."""

    # of the proposal: the first of these ends the check
    PAUSED = "paused"
    STALE_WORLD_STATE = "stale_world_state"
    TOO_MANY_TRANSFERS = "too_many_transfers"
    # of a transfer: the first of these ends that transfer's check
    UNKNOWN_ACTOR = "unknown_actor"
    FROZEN_ACTOR = "frozen_actor"
    BOUNDARY_ACTOR = "boundary_actor"
    NOT_PERMITTED = "not_permitted"
    UNKNOWN_RESOURCE = "unknown_resource"
    SAME_ACTOR = "same_actor"
    NON_POSITIVE_AMOUNT = "non_positive_amount"
    PRECISION = "precision"
    OUT_OF_RANGE = "out_of_range"
    # of a transfer: all that hold
    MAX_TRANSFER = "max_transfer"
    INSUFFICIENT_BALANCE = "insufficient_balance"
    MIN_BALANCE = "min_balance"
    EPOCH_QUOTA = "epoch_quota"
    # of a hold that was not approved
    HOLD_REJECTED = "hold_rejected"
    HOLD_EXPIRED = "hold_expired"


class Actor(NamedTuple):
    """A participant; `type` is any word, `boundary` for the one system actor."""

    id: str
    type: str


class Resource(NamedTuple):
    """Something that is shared: its unit, and its scale (decimal places, 0 to 6)."""

    name: str
    unit: str
    scale: int


class Transfer(NamedTuple):
    """An amount of one resource from one actor to another.

    `amount` is in minor units where it could be expressed so; it is a Decimal in units where it could not
    (unknown resource, too many decimals, absurdly large), and then the validator refuses it.
    """

    actor_from: str
    actor_to: str
    resource: str
    amount: int | Decimal


class Seen(NamedTuple):
    """What a proposer had before it: the open epoch, the constraints' journal seq, and the last entry's id."""

    epoch: int
    constraints_seq: int
    entries: int


class Proposal(NamedTuple):
    """Zero or more transfers, all or nothing, with reasoning.

    `seen` is what the proposer had before it, None where nobody said; `mandate` is whose balances it may move where
    that is not registered in the journal (a shadow's), else None.
    """

    id: str
    proposer: str
    n: int
    transfers: tuple[Transfer, ...]
    reasoning: str
    seen: Seen | None = None
    mandate: frozenset[str] | None = None


class Malformed(NamedTuple):
    """A reply that was no proposal: its code (see `reply`), where and what was found, and the raw reply."""

    code: str
    detail: str
    raw: bytes


class Unavailable(NamedTuple):
    """A proposer that failed: kind is quota, transport, auth or config. Never a decision."""

    kind: str
    detail: str


class Violation(NamedTuple):
    """One broken rule: its code, the path in the proposal, the limit and the actual value.

    Where `resource` is set, whole numbers are minor units of it; else counts or text.
    """

    code: Code
    path: str
    limit: int | str | None = None
    actual: int | str | None = None
    resource: str | None = None


class Verdict(NamedTuple):
    """The validator's answer: no violations, or all that were found; `hold` says that a person must approve."""

    violations: tuple[Violation, ...]
    hold: bool


class LedgerEntry(NamedTuple):
    """One applied transfer, a row of `ledger`. `proposal_id` is None where there was none."""

    id: int
    proposal_id: str | None
    actor_from: str
    actor_to: str
    resource: str
    amount: int
    at: int
    seq: int
    epoch: int
    kind: Kind


class Limit(NamedTuple):
    """A limit in minor units: by resource, and by actor and resource, which wins. What is absent is unlimited."""

    by_resource: dict[str, int]
    by_actor: dict[str, dict[str, int]]

    def of(self, actor: str, resource: str) -> int | None:
        """The limit that binds this actor as the sender of this resource, or None."""
        if self.by_actor:
            own = self.by_actor.get(actor)
            if own is not None and resource in own:
                return own[resource]
        return self.by_resource.get(resource)


class AutoPause(NamedTuple):
    """When the engine pauses by itself: so many refused or unavailable in a row, more than this moved in an epoch."""

    refused_in_a_row: int | None = None
    unavailable_in_a_row: int | None = None
    moved_per_epoch: dict[str, int] | None = None


class Constraints(NamedTuple):
    """The rules in force, limits in minor units. `min_balance` is always there, 0 where nobody declared it."""

    max_transfer: Limit | None = None
    min_balance: Limit | None = None
    epoch_quota: Limit | None = None
    hold_above: Limit | None = None
    max_transfers_per_proposal: int | None = None
    hold_epochs: int = 24
    auto_pause: AutoPause | None = None


class Round(NamedTuple):
    """One turn of one proposer; `n` counts from 1 within the epoch."""

    epoch: int
    proposer: str
    n: int

    @property
    def proposal_id(self) -> str:
        """The id of what is proposed in this round: the same in every ledger, never chosen by a model."""
        return uuid5(f"{self.epoch}/{self.proposer}/{self.n}")


class ActorView(NamedTuple):
    """One actor as proposers and people see it: balances, and the needs announced for the open epoch."""

    id: str
    type: str
    balances: dict[str, int]
    needs: dict[str, int]
    frozen: bool


class WorldState(NamedTuple):
    """The snapshot of a grid that proposers and people see, without the boundary; derived, never the truth."""

    epoch: int
    at: int
    actors: tuple[ActorView, ...]
    resources: tuple[Resource, ...]
    constraints: Constraints
    paused: bool = False
