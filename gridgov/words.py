"""Broken rules as sentences, one for each code: the same in prompts, on the command line and in reports."""

from __future__ import annotations

from collections.abc import Mapping

from gridgov.amounts import plain
from gridgov.model import Code, Resource, Violation

WORDS = {
    Code.PAUSED: "the grid is paused, and nothing moves until a person resumes it",
    Code.STALE_WORLD_STATE: "it was made for epoch {actual}, and epoch {limit} is open",
    Code.TOO_MANY_TRANSFERS: "it has {actual} transfers, and {limit} are the most",
    Code.UNKNOWN_ACTOR: "there is no actor {actual}",
    Code.FROZEN_ACTOR: "{actual} is frozen",
    Code.BOUNDARY_ACTOR: "{actual} is the boundary, which no proposal may move",
    Code.NOT_PERMITTED: "the proposer may not move what {actual} has",
    Code.UNKNOWN_RESOURCE: "there is no resource {actual}",
    Code.SAME_ACTOR: "{actual} would send to itself",
    Code.NON_POSITIVE_AMOUNT: "{actual} is not above 0",
    Code.PRECISION: "{actual} has more than {limit} decimals",
    Code.OUT_OF_RANGE: "{actual} is beyond what can be held, {limit}",
    Code.MAX_TRANSFER: "{actual} is above {limit}, the most that one transfer may move",
    Code.INSUFFICIENT_BALANCE: "{actual} is more than the {limit} that the sender has available",
    Code.MIN_BALANCE: "it would leave the sender {actual}, below the minimum of {limit}",
    Code.EPOCH_QUOTA: "the sender would have sent {actual} in this epoch, above its quota of {limit}",
    Code.HOLD_REJECTED: "a person rejected it while it was held",
    Code.HOLD_EXPIRED: "nobody approved it while it was held, until epoch {limit}",
}
"""A sentence for each code; limit and actual with their unit, where they are amounts."""


def words(violation: Violation, resources: Mapping[str, Resource]) -> str:
    """One broken rule as a sentence for a person, as `transfers[0]: 60 l is above 50 l, the most that ...`."""
    limit, actual = (_value(value, violation, resources) for value in (violation.limit, violation.actual))
    place, _, _ = violation.path.partition(".")
    where = f"{place}: " if place.startswith("transfers[") else ""
    sentence = WORDS[violation.code]
    if violation.code is Code.STALE_WORLD_STATE and violation.path != "epoch":
        sentence = "the constraints have changed since it was made (by record {limit}; it knew record {actual})"
    return where + sentence.format(limit=limit, actual=actual)


def _value(value: int | str | None, violation: Violation, resources: Mapping[str, Resource]) -> str:
    resource = resources.get(violation.resource) if violation.resource is not None else None
    if resource is None:
        return str(value)
    return f"{plain(value, resource.scale) if isinstance(value, int) else value} {resource.unit}"
