"""The JSON forms of model values, in units: WorldState, constraints, proposals, violations; no I/O lives here.

Reading takes JSON values whose numbers are int or Decimal (never float); writing gives values that `json.dumps` takes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from difflib import get_close_matches
from typing import Any

from gridgov.amounts import LIMIT, exponent, plain, plain_decimal, to_json, to_minor
from gridgov.errors import BadInput
from gridgov.journal import Decision
from gridgov.model import AutoPause, Constraints, Limit, Resource, Transfer, Violation, WorldState

Json = dict[str, Any]
Path = tuple[str | int, ...]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

LIMITS = ("max_transfer", "min_balance", "epoch_quota", "hold_above")
"""The constraints that are limits in amounts, each by resource and actor."""


def timestamp(at: int) -> str:
    """Microseconds since 1970 as `2025-02-28T12:00:00Z`, with as many decimals as it takes."""
    moment = _EPOCH + timedelta(microseconds=at)
    return moment.replace(tzinfo=None).isoformat() + "Z"


def microseconds(text: Any, path: Path = ()) -> int:
    """The inverse of `timestamp`; raises BadInput where the text is no time in UTC."""
    if not isinstance(text, str):
        raise BadInput(f"{text!r} is no time; write it as 2025-02-28T12:00:00Z", path)
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        moment = None
    if moment is None or moment.utcoffset() != timedelta(0):
        raise BadInput(f"{text!r} is no time; write it as 2025-02-28T12:00:00Z", path)
    return (moment - _EPOCH) // timedelta(microseconds=1)


# --- amounts and constraints, read -----------------------------------------------------------------------------------


def number(value: Any, path: Path, of: str = "") -> None:
    """Raises BadInput where a value is no number, or below 0."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise BadInput(f"expected a number{of}, not {value!r}", path)
    if value < 0:
        raise BadInput(f"{plain_decimal(value)} is below 0; amounts are 0 or more", path)


def declared(value: Any, resource: Resource, path: Path) -> int:
    """A declared amount in minor units: a number, not below 0, exact, below 15 digits; else BadInput says which."""
    number(value, path, f" of {resource.unit}")
    minor = to_minor(value, resource.scale)
    if minor is None and exponent(Decimal(value)) < -resource.scale:
        raise BadInput(
            f"{plain_decimal(value)} has more decimals than {resource.name} (scale {resource.scale}); "
            f"round it, or raise the scale",
            path,
        )
    if minor is None or minor >= LIMIT:
        raise BadInput(f"{plain_decimal(value)} {resource.unit} is out of range: 15 digits at most", path)
    return minor


def _mapping(value: Any, path: Path, expected: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadInput(f"expected {expected}, not {value!r}", path)
    return value


def known(name: Any, names: Collection[str], what: str, path: Path) -> None:
    """Raises BadInput where a name is none of those that there are; it says which come near."""
    if isinstance(name, str) and name in names:
        return
    near = get_close_matches(str(name), names, 1)
    listed = ", ".join(list(names)[:8]) + (", ..." if len(names) > 8 else "")
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of: {listed}"
    raise BadInput(f"unknown {what} {name!r}; {hint}", path)


def limit(value: Any, resources: Mapping[str, Resource], actors: Collection[str], path: Path) -> Limit:
    """A limit: a number, or {default: n, <resource>: n, actors: {<actor>: {<resource>: n}}}; the most specific wins."""
    if not isinstance(value, Mapping):
        return Limit({name: declared(value, resource, path) for name, resource in resources.items()}, {})
    by_resource: dict[str, int] = {}
    by_actor: dict[str, dict[str, int]] = {}
    if "default" in value:
        number(value["default"], (*path, "default"))
        others = {name: resource for name, resource in resources.items() if name not in value}
        by_resource = {n: declared(value["default"], r, (*path, "default")) for n, r in others.items()}
    for name, found in value.items():
        if name == "actors":
            for actor, own in _mapping(found, (*path, name), "{<actor>: {<resource>: n}}").items():
                known(actor, actors, "actor", (*path, name, actor))
                by_actor[actor] = _own_limits(own, resources, (*path, name, actor))
        elif name != "default":
            known(name, resources, "resource", (*path, name))
            by_resource[name] = declared(found, resources[name], (*path, name))
    return Limit(by_resource, by_actor)


def _own_limits(value: Any, resources: Mapping[str, Resource], path: Path) -> dict[str, int]:
    """The limits of one actor."""
    own = _mapping(value, path, "{<resource>: n}")
    for resource in own:
        known(resource, resources, "resource", (*path, resource))
    return {resource: declared(n, resources[resource], (*path, resource)) for resource, n in own.items()}


def _count(value: Any, least: int, path: Path) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 10**9:
        raise BadInput(f"expected a whole number from {least}, not {value!r}", path)
    return value


def _auto_pause(value: Any, resources: Mapping[str, Resource], path: Path) -> AutoPause:
    found: Json = {}
    for key, own in _mapping(value, path, "a mapping").items():
        where = (*path, key)
        known(key, AutoPause._fields, "key", where)
        if key == "moved_per_epoch":
            found[key] = limit(own, resources, (), where).by_resource
        else:
            found[key] = _count(own, 1, where)
    return AutoPause(**found)


def constraints_from_json(
    value: Any, resources: Mapping[str, Resource], actors: Collection[str], path: Path = ("constraints",)
) -> Constraints:
    """Constraints in units, as scenarios and WorldStates write them. Raises BadInput with the path of what is wrong."""
    found: Json = {}
    for key, own in _mapping(value, path, "a mapping").items():
        where = (*path, key)
        known(key, Constraints._fields, "constraint", where)
        if key in LIMITS:
            found[key] = limit(own, resources, actors, where)
        elif key == "auto_pause":
            found[key] = _auto_pause(own, resources, where)
        else:
            found[key] = _count(own, 0 if key == "max_transfers_per_proposal" else 1, where)
    least = Limit(dict.fromkeys(resources, 0), {})
    if "min_balance" in found:
        least = Limit({**least.by_resource, **found["min_balance"].by_resource}, found["min_balance"].by_actor)
    return Constraints(**{**found, "min_balance": least})


# --- written ----------------------------------------------------------------------------------------------------------


def _amounts(found: Mapping[str, int], resources: Mapping[str, Resource]) -> Json:
    return {name: to_json(minor, resources[name].scale) for name, minor in found.items()}


def limit_json(found: Limit, resources: Mapping[str, Resource]) -> Any:
    """A limit in units: one number where every resource has the same and no actor its own."""
    by_resource = _amounts(found.by_resource, resources)
    values = set(by_resource.values())
    if not found.by_actor and len(values) == 1 and len(by_resource) == len(resources):
        return values.pop()
    own = {actor: _amounts(limits, resources) for actor, limits in found.by_actor.items()}
    return {**by_resource, "actors": own} if own else by_resource


def constraints_json(found: Constraints, resources: Mapping[str, Resource]) -> Json:
    """The constraints in force, in units; what is unlimited is absent."""
    shown: Json = {key: limit_json(own, resources) for key in LIMITS if (own := getattr(found, key)) is not None}
    if found.max_transfers_per_proposal is not None:
        shown["max_transfers_per_proposal"] = found.max_transfers_per_proposal
    if found.hold_above is not None:
        shown["hold_epochs"] = found.hold_epochs
    if found.auto_pause is not None:
        pause = {key: value for key, value in found.auto_pause._asdict().items() if value is not None}
        if found.auto_pause.moved_per_epoch is not None:
            pause["moved_per_epoch"] = _amounts(found.auto_pause.moved_per_epoch, resources)
        shown["auto_pause"] = pause
    return shown


def world_state_json(world: WorldState) -> Json:
    """The WorldState of the seed design; `needs`, `frozen` and `paused` only where there are any."""
    resources = {resource.name: resource for resource in world.resources}
    actors = []
    for view in world.actors:
        actor: Json = {"id": view.id, "type": view.type, "balances": _amounts(view.balances, resources)}
        if view.needs:
            actor["needs"] = _amounts(view.needs, resources)
        if view.frozen:
            actor["frozen"] = True
        actors.append(actor)
    found: Json = {
        "epoch": world.epoch,
        "timestamp": timestamp(world.at),
        "actors": actors,
        "resources": list(resources),
        "constraints": constraints_json(world.constraints, resources),
    }
    return {**found, "paused": True} if world.paused else found


def _amount_json(value: int | Decimal, resource: Resource | None) -> Any:
    if isinstance(value, Decimal):
        return plain_decimal(value)
    if resource is None:
        return value
    return to_json(value, resource.scale) if abs(value) < LIMIT else plain(value, resource.scale)


def transfer_json(transfer: Transfer, resources: Mapping[str, Resource]) -> Json:
    """A transfer in units; an amount that minor units could not express is its plain text."""
    return {
        "from": transfer.actor_from,
        "to": transfer.actor_to,
        "resource": transfer.resource,
        "amount": _amount_json(transfer.amount, resources.get(transfer.resource)),
    }


def violation_json(violation: Violation, resources: Mapping[str, Resource]) -> Json:
    """A violation with limit and actual in units of its resource, where they are amounts."""
    found: Json = {"code": violation.code.value, "path": violation.path}
    resource = resources.get(violation.resource) if violation.resource is not None else None
    for key, value in (("limit", violation.limit), ("actual", violation.actual)):
        if value is not None:
            found[key] = value if isinstance(value, str) else _amount_json(value, resource)
    return found


def decision_json(decision: Decision, resources: Mapping[str, Resource]) -> Json:
    """A decision as people and programs read it."""
    found: Json = {
        "proposal_id": decision.proposal_id,
        "proposer": decision.proposer,
        "n": decision.n,
        "outcome": decision.outcome.value,
        "transfers": [transfer_json(t, resources) for t in decision.transfers],
        "reasoning": decision.reasoning,
        "violations": [violation_json(v, resources) for v in decision.violations],
        "entries": list(decision.entries),
    }
    if decision.granted is not None:
        found["granted"] = [transfer_json(t, resources) for t in decision.effective]
    if decision.held_until is not None:
        found["held_until"] = decision.held_until
    if decision.state_moved:
        found["state_moved"] = True
    if decision.fault:
        found["fault"] = {"code": decision.fault, "detail": decision.detail}
    return found
