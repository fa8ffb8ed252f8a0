"""Whether a record holds what its annotations say; for histories that anybody may have written. No rule lives here.

A chain that is right shows that nobody changed a record since, not that it was one: whoever writes a journal from the
beginning can chain anything. What a record means is `replay`'s, whether it is right is `verify`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from gridgov.amounts import SCALE_MAX
from gridgov.journal import NOT_A_RECORD, Genesis, JournalRecord, constraints_from
from gridgov.model import Code, Constraints, Limit, Outcome

FIRST, LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The microseconds at which year 1 begins, and year 9999 ends."""

_SURROGATE = re.compile(r"(?<!\\)(?:\\\\)*\\u[dD][89a-fA-F]")

_WHOLE_MAX = 10**40
"""Larger numbers mean nothing here, and could not be shown."""

_WORDS: dict[type, str] = {int: "a whole number", str: "text", bool: "true or false", Decimal: "a number"}

_Fault = tuple[str, str, Any]
"""Where, what was expected, what was found."""

_Check = Callable[[Any], _Fault | None]


def check(record: JournalRecord) -> None:
    """Raises ValueError where a record holds anything but what its kind says it holds, with the place."""
    payload = record.payload
    if not FIRST <= record.at <= LAST:
        raise ValueError(f"at is {record.at}; expected a time of the years 1 to 9999")
    if "\\u" in record.body and _SURROGATE.search(record.body):
        raise ValueError("found half of a surrogate pair; expected text")
    kind: Any = type(payload)
    fault = _checked(kind)(payload)
    if fault is None and type(payload) is Genesis:
        fault = _scales(payload) or _resolved(payload)
    if fault is not None:
        place, expected, found = fault
        raise ValueError(f"payload{place} is {_brief(found)}; expected {expected}")


def _brief(found: Any) -> str:
    text = repr(found)
    return text if len(text) <= 40 else f"{text[:37]}..."


@cache
def _checked(hint: Any) -> _Check:
    """The check of an annotation: of a class, `X | None`, `tuple[X, ...]`, `tuple[X, Y]` or `dict[str, X]`."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return _plain
    if origin in (Union, UnionType):
        return _either(args)
    if origin is tuple:
        return _many(args[0]) if args[-1] is Ellipsis else _row(args)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(args[1])
    if issubclass(hint, tuple):
        return _fields(hint)
    return _exactly(hint)


def _exactly(kind: type) -> _Check:
    expected = _WORDS.get(kind, kind.__name__)

    def of(value: Any) -> _Fault | None:
        if type(value) is not kind or (isinstance(value, Decimal) and not value.is_finite()):
            return "", expected, value
        if isinstance(value, int) and not -_WHOLE_MAX < value < _WHOLE_MAX:
            return "", "a whole number of at most 40 digits", value
        return None

    return of


def _either(kinds: tuple[Any, ...]) -> _Check:
    checks = [_checked(kind) for kind in kinds if kind is not NoneType]
    absent = NoneType in kinds

    def of(value: Any) -> _Fault | None:
        if value is None and absent:
            return None
        fault = None
        for each in checks:
            fault = each(value)
            if fault is None:
                return None
        return fault

    return of


def _many(kind: Any) -> _Check:
    each = _checked(kind)

    def of(value: Any) -> _Fault | None:
        if type(value) is not tuple:
            return "", "a list", value
        for place, own in enumerate(value):
            fault = each(own)
            if fault is not None:
                return f"[{place}]{fault[0]}", *fault[1:]
        return None

    return of


def _row(kinds: tuple[Any, ...]) -> _Check:
    checks = [_checked(kind) for kind in kinds]

    def of(value: Any) -> _Fault | None:
        if type(value) is not tuple or len(value) != len(checks):
            return "", f"a list of {len(checks)}", value
        for place, (each, own) in enumerate(zip(checks, value, strict=True)):
            fault = each(own)
            if fault is not None:
                return f"[{place}]{fault[0]}", *fault[1:]
        return None

    return of


def _mapping(kind: Any) -> _Check:
    each = _checked(kind)

    def of(value: Any) -> _Fault | None:
        if not isinstance(value, dict):
            return "", "a mapping", value
        for key, own in value.items():
            fault = each(own)
            if fault is not None:
                return f".{key}{fault[0]}", *fault[1:]
        return None

    return of


def _fields(kind: type) -> _Check:
    """The check of a NamedTuple. What has been found good once is known by the types of its fields."""
    checks = [(name, _checked(hint)) for name, hint in get_type_hints(kind).items()]
    known: dict[tuple[type, ...], tuple[list[int], list[tuple[int, _Check]]]] = {}

    def of(value: Any) -> _Fault | None:
        kinds = tuple(map(type, value))
        if kinds in known and _good(value, *known[kinds]):
            return None
        for name, each in checks:  # that it is one, `decode` saw to
            fault = each(getattr(value, name))
            if fault is not None:
                return f".{name}{fault[0]}", *fault[1:]
        others = [(place, checks[place][1]) for place, kind in enumerate(kinds) if kind not in _WHOLLY]
        known[kinds] = [place for place, kind in enumerate(kinds) if kind is int], others
        return None

    return of


def _good(value: tuple[Any, ...], numbers: Iterable[int], others: Iterable[tuple[int, _Check]]) -> bool:
    """Whether numbers are of sensible size, and what has parts is good; of the other fields the types said enough."""
    for place in numbers:
        if not -_WHOLE_MAX < value[place] < _WHOLE_MAX:
            return False
    return all(each(value[place]) is None for place, each in others)


_WHOLLY = {str, int, bool, NoneType, Code, Outcome}
"""The types of which every value is as good as another, but for the size of a number."""


def _plain(value: Any) -> _Fault | None:
    """What canonical JSON may hold: no other number than whole ones."""
    if isinstance(value, dict):
        return _mapping(Any)(value)
    if isinstance(value, list):
        return _many(Any)(tuple(value))
    return ("", "a whole number or text", value) if isinstance(value, float) else None


# --- what a genesis says of itself ------------------------------------------------------------------------------------


def _scales(genesis: Genesis) -> _Fault | None:
    """Scales are the decimal places that there are."""
    for place, resource in enumerate(genesis.resources):
        if not 0 <= resource.scale <= SCALE_MAX:
            return f".resources[{place}].scale", f"0 to {SCALE_MAX}", resource.scale
    return None


def _resolved(genesis: Genesis) -> _Fault | None:
    """Of the scenario in a genesis, what others read: opening, storage, the limits of every epoch, and the commons."""
    said = genesis.scenario
    actors, names = {actor.id for actor in genesis.actors}, {resource.name for resource in genesis.resources}
    for key in ("opening", "storage"):
        lines = _frozen(said.get(key, []))
        fault = _checked(tuple[tuple[str, str, int], ...])(lines)
        if fault is not None:
            return f".scenario.{key}{fault[0]}", *fault[1:]
        for place, (actor, name, _) in enumerate(lines):
            if actor not in actors or name not in names:
                return f".scenario.{key}[{place}]", "an actor and a resource that there are", lines[place]
    steps = said.get("constraints", [])
    for place, step in enumerate(steps if isinstance(steps, list) else [steps]):
        fault = _step(step, names)
        if fault is not None:
            return f".scenario.constraints[{place}]{fault[0]}", *fault[1:]
    commons = said.get("commons")
    if commons is not None:
        fault = _checked(dict[str, str | int | None])(commons)
        if fault is not None or commons.get("actor") not in actors or commons.get("resource") not in names:
            return ".scenario.commons", "an actor and a resource that there are", commons
    return None


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _step(step: Any, names: Collection[str]) -> _Fault | None:
    """Constraints, and from which epoch on they are in force."""
    if not isinstance(step, dict) or type(step.get("epoch")) is not int:
        return "", "constraints and their epoch", step
    try:
        found = constraints_from({key: value for key, value in step.items() if key != "epoch"})
    except NOT_A_RECORD:
        return "", "constraints and their epoch", step
    return _checked(Constraints)(found) or unknown_resource(found, names)


def unknown_resource(constraints: Constraints, names: Collection[str]) -> _Fault | None:
    """Where constraints, which hold what they say, limit a resource that there is not."""
    tables: dict[str, Mapping[str, int]] = {}
    for key, limit in constraints._asdict().items():
        if isinstance(limit, Limit):
            tables[key] = limit.by_resource
            tables |= {f"{key}.{actor}": own for actor, own in limit.by_actor.items()}
    if constraints.auto_pause is not None:
        tables["auto_pause"] = constraints.auto_pause.moved_per_epoch or {}
    for place, table in tables.items():
        for name in table:
            if name not in names:
                return f".{place}", "limits of resources that there are", name
    return None
