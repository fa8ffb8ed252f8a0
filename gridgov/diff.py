"""Where two runs part, and what differs after; it compares and counts, and prints nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import zip_longest
from typing import Any, NamedTuple

from gridgov.amounts import to_decimal, to_json
from gridgov.journal import (
    Close,
    ConstraintsChange,
    Control,
    Decision,
    Flow,
    Genesis,
    JournalRecord,
    Payload,
    Registration,
    Settlement,
    constraints_from,
)
from gridgov.model import BOUNDARY, Resource
from gridgov.replay import follow
from gridgov.source import Source
from gridgov.state import State
from gridgov.wire import constraints_json, decision_json, timestamp, violation_json

Json = dict[str, Any]


class Change(NamedTuple):
    """A key that differs, with both values; None where one side lacks it. Amounts are in units."""

    key: str
    a: Any
    b: Any


class Parting(NamedTuple):
    """The first record after the genesis that differs: what each says (None: it ended before), and the keys."""

    seq: int
    a: Json | None
    b: Json | None
    differs: list[Change]


@dataclass(frozen=True)
class Side:
    """What one run came to. `outcomes` are final: a settled hold counts as what it was settled to."""

    source: str
    run_id: str | None
    head_digest: str
    records: int
    entries: int
    epochs: int
    outcomes: dict[str, int]
    violations: dict[str, int]


@dataclass(frozen=True)
class Diff:
    """Two runs compared.

    Attributes:
        identical: both have the same head, so that every record is the same.
        set_up: what was put in and differs: the resolved scenario and the seed, and what runs say of themselves.
        parting: the first record that differs, or None where what happened is the same throughout.
        balances: final balances that differ, the largest difference first; the boundary's last.
        metrics: metrics that differ, as `name` or `name.resource`.
    """

    identical: bool
    a: Side
    b: Side
    set_up: list[Change]
    parting: Parting | None
    balances: list[Change]
    metrics: list[Change]

    def document(self) -> Json:
        """The comparison as plain JSON values."""
        found = {
            "identical": self.identical,
            "a": vars(self.a),
            "b": vars(self.b),
            "set_up": [change._asdict() for change in self.set_up],
            "parting": None,
            "balances": [change._asdict() for change in self.balances],
            "metrics": [change._asdict() for change in self.metrics],
        }
        if self.parting is not None:
            differs = [change._asdict() for change in self.parting.differs]
            found["parting"] = {**self.parting._asdict(), "differs": differs}
        return found


def diff(a: Source, b: Source) -> Diff:
    """Compares two runs record by record.

    The n-th records are the same where kind, epoch and payload are; time, entry ids and the boundary's balances follow
    from what came before, and are left out, so that a difference in the set-up is not found again in every record.
    Raises Damaged where one is not what it was. Complexity: O(records).
    """
    sides = _Playing(a), _Playing(b)
    set_up: list[Change] = []
    parting = None
    for one, other in zip_longest(a.records(), b.records()):
        for side, record in zip(sides, (one, other), strict=True):
            if record is not None:
                side.play(record)
        if one is not None and other is not None and one.seq == 1:
            set_up = changes(_set_up(one), _set_up(other))
        elif parting is None and _same(one) != _same(other):
            parting = _part(sides, one, other)
    first, second = sides
    exports = a.connection is not None and b.connection is not None
    return Diff(
        first.state.digest == second.state.digest,
        first.side(),
        second.side(),
        set_up + (changes(_said(a), _said(b)) if exports else []),
        parting,
        _balances(first.state, second.state),
        changes(a.metrics(), b.metrics()) if exports else [],
    )


class _Playing:
    """One run while it is played: its state, and its final outcomes."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.state = State()
        self.final: dict[str, Decision | Settlement] = {}

    def play(self, record: JournalRecord) -> None:
        follow(self.state, record)
        if isinstance(record.payload, Decision | Settlement):
            self.final[record.payload.proposal_id] = record.payload

    def side(self) -> Side:
        state, ends = self.state, self.final.values()
        return Side(
            str(self.source.path),
            self.source.run_id,
            state.digest.hex(),
            state.seq,
            state.entries,
            state.epoch - 1,
            dict(Counter(end.outcome.value for end in ends).most_common()),
            dict(Counter(v.code.value for end in ends for v in end.violations).most_common()),
        )


def _same(record: JournalRecord | None) -> object:
    """What of a record has to be the same: what follows from earlier records is left out."""
    if record is None:
        return None
    payload: Payload = record.payload
    if isinstance(payload, Decision | Settlement):
        payload = payload._replace(entries=())
    elif isinstance(payload, Flow):
        payload = payload._replace(readings=tuple(reading._replace(entry=None) for reading in payload.readings))
    elif isinstance(payload, Close):
        payload = Close(0, {}, payload.collapsed)
    return record.kind, record.epoch, payload


def _part(sides: Sequence[_Playing], one: JournalRecord | None, other: JournalRecord | None) -> Parting:
    """What each run says at the record at which they part."""
    first, second = (
        None if record is None else shown(record, side.state.resources)
        for side, record in zip(sides, (one, other), strict=True)
    )
    seq = next(record.seq for record in (one, other) if record is not None)
    if first is None or second is None or first["kind"] != second["kind"]:
        kinds = [said and said["kind"] for said in (first, second)]
        return Parting(seq, first, second, [Change("kind", *kinds)])
    return Parting(seq, first, second, changes(first, second))


# --- what is compared, as plain values in units -----------------------------------------------------------------------


def shown(record: JournalRecord, resources: Mapping[str, Resource]) -> Json:
    """A record as people read it: amounts in units, without what follows from earlier records."""
    payload = record.payload
    found: Json = {"kind": record.kind, "epoch": record.epoch}
    if isinstance(payload, Decision):
        found |= decision_json(payload, resources)
        del found["entries"]
    elif isinstance(payload, Flow):
        found |= {"flow": payload.kind, "name": payload.name}
        found["readings"] = {
            f"{r.actor}.{r.resource}": {
                key: to_json(amount, resources[r.resource].scale)
                for key, amount in (("requested", r.requested), ("applied", r.applied))
            }
            for r in payload.readings
        }
    elif isinstance(payload, Settlement):
        found |= {key: value for key, value in payload._asdict().items() if key != "entries"}
        found["violations"] = [violation_json(v, resources) for v in payload.violations]
    elif isinstance(payload, ConstraintsChange):
        found |= {**payload._asdict(), "constraints": constraints_json(payload.constraints, resources)}
    elif isinstance(payload, Close):
        found["collapsed"] = payload.collapsed
    elif isinstance(payload, Control | Registration):
        found |= payload._asdict()
    return found


def _set_up(record: JournalRecord) -> Json:
    """What was put into a run: its resolved scenario, or else its genesis."""
    genesis = record.payload
    assert isinstance(genesis, Genesis), "a journal begins with its genesis"
    resources = {resource.name: resource for resource in genesis.resources}
    said = json.loads(record.body)["payload"]
    found = said.pop("scenario") or {**said, "constraints": [{"epoch": 1, **said["constraints"]}]}
    found = {"seed": genesis.seed, **found}
    if "constraints" in found:
        found["constraints"] = [_in_units(each, resources) for each in found["constraints"]]
    for key in ("opening", "storage"):
        if key in found:
            found[key] = {f"{actor}.{name}": to_json(n, resources[name].scale) for actor, name, n in found[key]}
    found["start"] = timestamp(genesis.start)
    return found


def _said(source: Source) -> Json:
    """What a run says of itself."""
    run: Json = {key: source.info.get(key) for key in ("scenario", "version")}
    return {"run": run | {key: json.loads(source.info[key] or "[]") for key in ("overrides", "proposers")}}


def _in_units(constraints: Json, resources: Mapping[str, Resource]) -> Json:
    own = {key: value for key, value in constraints.items() if key != "epoch"}
    return {"epoch": constraints["epoch"], **constraints_json(constraints_from(own), resources)}


def _balances(a: State, b: State) -> list[Change]:
    """Final balances that differ; what one side does not know at all is None."""
    found: list[tuple[bool, Decimal, Change]] = []
    for name in {**a.resources, **b.resources}:
        sides = [(s.balances.get(name, {}), s.resources[name].scale if name in s.resources else 0) for s in (a, b)]
        for actor in {**sides[0][0], **sides[1][0]}:
            one, other = (to_decimal(held[actor], scale) if actor in held else None for held, scale in sides)
            if one != other:
                shown = (to_json(held[actor], scale) if actor in held else None for held, scale in sides)
                by = abs((one or Decimal()) - (other or Decimal()))
                found.append((actor == BOUNDARY, -by, Change(f"{actor}.{name}", *shown)))
    return [change for _, _, change in sorted(found, key=lambda each: each[:2])]


# --- flat keys --------------------------------------------------------------------------------------------------------


def changes(a: Any, b: Any) -> list[Change]:
    """The keys of two documents whose values differ, in their order; lists go by what names their items."""
    first, second = dict(flat(a)), dict(flat(b))
    return [
        Change(key, first.get(key), second.get(key)) for key in {**first, **second} if first.get(key) != second.get(key)
    ]


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a document by their dotted keys; an empty container is a leaf."""
    if isinstance(value, Mapping) and value:
        for key, own in value.items():
            yield from flat(own, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple) and value:
        for label, own in zip(_labels(value), value, strict=True):
            yield from flat(own, f"{path}[{label}]")
    else:
        yield path, value


def _labels(items: Sequence[Any]) -> list[str]:
    """What names each item of a list: its id, name or epoch where all have one of their own, else its place."""
    for key in ("id", "name", "epoch"):
        found = [str(item[key]) for item in items if isinstance(item, Mapping) and key in item]
        if len(set(found)) == len(items):
            return found
    return [str(place) for place in range(len(items))]
