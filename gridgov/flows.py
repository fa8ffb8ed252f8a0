"""The phases of an epoch that no proposal moves: produce, grow, needs, consume, spill; nothing is appended here.

Each function turns what is requested into readings: what is applied of it, given the state. The boundary gives what is
produced and takes what is consumed or spilled. What holds reserve is neither consumed nor spilled.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from gridgov.amounts import LIMIT, plain
from gridgov.errors import BadInput
from gridgov.journal import Flow, Reading
from gridgov.model import Kind
from gridgov.state import State, room


class Request(NamedTuple):
    """What one actor is to produce, grow, need or consume of a resource, in minor units."""

    actor: str
    resource: str
    amount: int


def give(state: State, kind: Kind, name: str, requests: Iterable[Request]) -> Flow:
    """Produce or grow: boundary to actor, all of it. Raises BadInput where a balance would outgrow 15 digits."""
    entry = state.entries
    given: dict[tuple[str, str], int] = {}
    readings = []
    for actor, resource, amount in requests:
        _check(state, actor, amount)
        given[actor, resource] = given.get((actor, resource), 0) + amount
        if given[actor, resource] > room(state, actor, resource):
            scale = state.resources[resource].scale
            raise BadInput(
                f"epoch {state.epoch}, flow {name}: {plain(amount, scale)} more {resource} would take {actor}'s "
                f"balance beyond 15 digits; produce less, or give the resource a smaller scale"
            )
        entry += 1 if amount else 0
        readings.append(Reading(actor, resource, amount, amount, entry if amount else None))
    return Flow(kind, name, tuple(readings))


def _check(state: State, actor: str, amount: int) -> None:
    assert amount >= 0, "checked where it came in"
    assert actor in state.actors, "checked where it came in"


def need(state: State, name: str, requests: Iterable[Request]) -> Flow:
    """Demands announced before the proposals; nothing moves. Raises BadInput where they come to over 15 digits."""
    needed: dict[tuple[str, str], int] = {}
    readings = []
    for actor, resource, amount in requests:
        _check(state, actor, amount)
        before = needed.get((actor, resource), state.needs.get(resource, {}).get(actor, 0))
        needed[actor, resource] = before + amount
        if before + amount >= LIMIT:
            raise BadInput(f"epoch {state.epoch}, flow {name}: {actor} would need {resource} of more than 15 digits")
        readings.append(Reading(actor, resource, amount, 0, None))
    return Flow("need", name, tuple(readings))


def take(state: State, kind: Kind, name: str, requests: Iterable[Request]) -> Flow:
    """Consume or spill: actor to boundary, as much as is available; the rest is unmet."""
    entry = state.entries
    taken: dict[tuple[str, str], int] = {}
    readings = []
    for actor, resource, amount in requests:
        _check(state, actor, amount)
        before = taken.get((actor, resource), 0)
        applied = min(amount, state.available(actor, resource) - before)
        taken[actor, resource] = before + applied
        entry += 1 if applied else 0
        readings.append(Reading(actor, resource, amount, applied, entry if applied else None))
    return Flow(kind, name, tuple(readings))


def spill(state: State, storage: dict[tuple[str, str], int]) -> Flow:
    """What actors hold above their storage leaves them, but for what is reserved; actors below it have no reading."""
    over = (
        Request(actor, resource, state.balance(actor, resource) - capacity)
        for (actor, resource), capacity in storage.items()
    )
    return take(state, Kind.SPILL, "spill", [request for request in over if request.amount > 0])
