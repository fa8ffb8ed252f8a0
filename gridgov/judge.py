"""What the validator would say: a WorldState and a proposal in JSON -> outcome and violations; nothing is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from gridgov.amounts import SCALE_MAX
from gridgov.decide import outcome_of
from gridgov.errors import BadInput
from gridgov.model import BOUNDARY, BOUNDARY_TYPE, Actor, Malformed, Outcome, Proposal, Resource
from gridgov.reply import parse_client
from gridgov.state import State
from gridgov.validate import validate
from gridgov.wire import Json, Path, constraints_from_json, declared, known, microseconds, violation_json

JUDGE = "judge"
"""The name under which a proposal is judged here."""

_WORLD = ("epoch", "timestamp", "actors", "resources", "constraints", "scales", "paused", "mandate")
_ACTOR = ("id", "type", "balances", "needs", "frozen", "reserved")


def judge(state_text: str, proposal_text: str) -> Json:
    """The verdict as `{outcome, violations}`; raises BadInput where the state is wrong.

    A proposal that is none has the outcome `malformed`, and `fault` says why.
    """
    state = read_state(state_text)
    found = parse_client(proposal_text, state.resources)
    if isinstance(found, Malformed):
        fault = {"code": found.code, "detail": found.detail}
        return {"outcome": Outcome.MALFORMED.value, "violations": [], "fault": fault}
    proposal_id, answer = found
    proposal = Proposal(proposal_id or "", JUDGE, 1, answer.transfers, answer.reasoning)
    verdict = validate(state, state.constraints, proposal)
    return {
        "outcome": outcome_of(verdict, proposal).value,
        "violations": [violation_json(violation, state.resources) for violation in verdict.violations],
    }


def _refuse(text: str) -> Any:
    raise BadInput(f"the state has a {text}, which is no number in JSON")


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadInput("the state has a key twice in one object")
    return found


def read_state(text: str) -> State:
    """The working state of a WorldState in JSON; optional extras: scales, paused, mandate, an actor's reserved.

    Amounts are at scale 6 unless `scales` says otherwise. Raises BadInput with the path of what is wrong.
    """
    try:
        world = json.loads(text, parse_float=Decimal, parse_constant=_refuse, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the state is no JSON: {error}") from None
    if not isinstance(world, dict):
        raise BadInput("the state is no JSON object; expected a WorldState")
    for key in world:
        known(key, _WORLD, "key", (key,))
    state = State()
    _read_resources(state, world)
    _read_actors(state, world.get("actors"))
    epoch = world.get("epoch", 1)
    if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 0:
        raise BadInput(f"expected a whole number, not {epoch!r}", ("epoch",))
    state.epoch = epoch
    if "timestamp" in world:
        state.at = microseconds(world["timestamp"], ("timestamp",))
    state.paused = _flag(world, "paused", ())
    state.constraints = constraints_from_json(world.get("constraints", {}), state.resources, state.actors)
    if "mandate" in world:
        mandate = _list(world["mandate"], ("mandate",))
        for i, actor in enumerate(mandate):
            known(actor, state.actors, "actor", ("mandate", i))
        state.mandates[JUDGE] = frozenset(mandate)
    return state


def _list(value: Any, path: Path) -> list[Any]:
    if not isinstance(value, list):
        raise BadInput(f"expected a list, not {value!r}", path)
    return value


def _name(value: Any, path: Path) -> str:
    if not isinstance(value, str) or not value:
        raise BadInput(f"expected a name, not {value!r}", path)
    return value


def _flag(found: Mapping[str, Any], key: str, path: Path) -> bool:
    value = found.get(key, False)
    if not isinstance(value, bool):
        raise BadInput(f"expected true or false, not {value!r}", (*path, key))
    return value


def _read_resources(state: State, world: Json) -> None:
    names = [_name(name, ("resources", i)) for i, name in enumerate(_list(world.get("resources"), ("resources",)))]
    scales = world.get("scales", {})
    if not isinstance(scales, dict):
        raise BadInput(f"expected {{<resource>: n}}, not {scales!r}", ("scales",))
    for name, scale in scales.items():
        known(name, names, "resource", ("scales", name))
        if not isinstance(scale, int) or isinstance(scale, bool) or not 0 <= scale <= SCALE_MAX:
            raise BadInput(f"expected a whole number from 0 to {SCALE_MAX}, not {scale!r}", ("scales", name))
    for name in names:
        if name in state.resources:
            raise BadInput(f"resource {name!r} is there twice", ("resources",))
        state.resources[name] = Resource(name, "units", scales.get(name, SCALE_MAX))
        state.balances[name] = {BOUNDARY: 0}
        state.reserved[name] = {}
        state.sent[name] = {}


def _read_actors(state: State, actors: Any) -> None:
    state.actors[BOUNDARY] = Actor(BOUNDARY, BOUNDARY_TYPE)
    for i, actor in enumerate(_list(actors, ("actors",))):
        path: Path = ("actors", i)
        if not isinstance(actor, dict):
            raise BadInput(f"expected an object, not {actor!r}", path)
        for key in actor:
            known(key, _ACTOR, "key", (*path, key))
        name = _name(actor.get("id"), (*path, "id"))
        if name in state.actors:
            raise BadInput(f"actor {name!r} is there twice", (*path, "id"))
        state.actors[name] = Actor(name, _name(actor.get("type", "node"), (*path, "type")))
        if _flag(actor, "frozen", path):
            state.frozen.add(name)
        for key, held in (("balances", state.balances), ("reserved", state.reserved)):
            amounts = actor.get(key, {})
            if not isinstance(amounts, dict):
                raise BadInput(f"expected {{<resource>: n}}, not {amounts!r}", (*path, key))
            for resource, amount in amounts.items():
                where = (*path, key, resource)
                known(resource, state.resources, "resource", where)
                held[resource][name] = declared(amount, state.resources[resource], where)
