"""A finished run as tables: what its records and entries, and what was put in, come to in columns; no file is touched.

The tables and their columns are in `sql/export_schema.sql`. What the journal implies is derived part by part, so that
memory does not grow with the run; `export` writes the parts into a file.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from hashlib import sha256
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gridgov import arrow
from gridgov.amounts import LIMIT, SCALE_MAX, plain, plain_decimal, to_minor
from gridgov.errors import BadInput
from gridgov.journal import Close, Decision, Flow, Genesis, JournalRecord, Registration, Settlement
from gridgov.ledger import metadata
from gridgov.model import (
    Actor,
    LedgerEntry,
    Outcome,
    Resource,
    Transfer,
    Violation,
    uuid5,
)
from gridgov.replay import Columns, balances_every, columns
from gridgov.wire import microseconds

FORM = 2
"""Version of the form of an export; a reader refuses one that it does not know."""

Ints = NDArray[np.int64]

ROWS = 1 << 17
"""About so many rows are built and handed over at once, so that memory does not grow with a run."""

_LINES = 4096
"""The same for interactions, each of which holds a prompt and a reply."""


class Commons(NamedTuple):
    """A shared pool: below `collapse_below` (minor units) at a close it has collapsed; who harvests it."""

    actor: str
    resource: str
    collapse_below: int
    harvesters: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """All that an export holds of one run.

    Attributes:
        proposers: plain JSON values: name, kind, role, actor, mandate and what else defines each.
        started_at: microseconds since 1970 (UTC), or None where nobody said.
        records: the journal, from the genesis on.
        entries: the ledger entries that the records made.
        prices: by resource, the price of each epoch 1.. in millionths of the currency for one unit. Shape (epochs,).
        horizon: epochs that were planned.
        baselines: by resource, (served by none, bound, note), minor units; None where it is not known.
        alone: by resource, what each actor that needs it is served where nobody proposes anything, minor units.
        interactions: plain values with the keys epoch, proposer, n, proposal_id, origin, request_key, model_asked,
            model_answered, status, finish_reason, prompt, prompt_digest, tokens_in, tokens_out, tokens_thought, cost,
            latency_ms, attempts, at (text as `wire.timestamp` writes it), line, digest; what is absent or None is NULL.
        recorded, synthetic: how many interactions a model gave, and how many no model ever gave.
        shadows: (epoch, decision) of what was judged, but never applied.
        files: by name, the content of every file that the run was made from.
    """

    run_id: str
    scenario: str
    description: str
    overrides: Sequence[str]
    proposers: Sequence[Mapping[str, Any]]
    version: str
    records: Sequence[JournalRecord]
    entries: Sequence[LedgerEntry]
    horizon: int
    status: str = "complete"
    error: str | None = None
    started_at: int | None = None
    seconds: float | None = None
    prices: Mapping[str, Ints] = field(default_factory=dict)
    commons: Commons | None = None
    baselines: Mapping[str, tuple[int | None, int | None, str]] = field(default_factory=dict)
    alone: Mapping[str, Sequence[tuple[str, int]]] = field(default_factory=dict)
    interactions: Sequence[Mapping[str, Any]] = ()
    recorded: int = 0
    synthetic: int = 0
    shadows: Sequence[tuple[int, Decision]] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def head_digest(self) -> str:
        """64 hex: the digest of the last journal record."""
        return self.records[-1].digest.hex()

    @property
    def size(self) -> tuple[int, int]:
        """How many records and entries it has."""
        return len(self.records), len(self.entries)

    def slices(self, builder: Builder) -> Iterator[Slice]:
        """The rows that the records and their entries add."""
        for part in _slices(self.records, self.entries):
            yield from builder.add(*part)


# --- columns ----------------------------------------------------------------------------------------------------------


def decimals(minor: Ints, factor: Ints | int) -> pa.Array:
    """DECIMAL(38,6) of whole numbers times factors of at most 10**6 that broadcast; exact, in order, no objects."""
    words = np.empty((*minor.shape, 2), np.int64)
    low, high = words[..., 0], words[..., 1]
    most = max(-int(minor.min(initial=0)), int(minor.max(initial=0)))
    if most * int(np.max(factor, initial=1)) < 2**63:
        np.multiply(minor, factor, out=low)
        np.right_shift(low, 63, out=high)
    else:  # in two halves, of which the higher takes what the lower carries
        below = (minor & 0xFFFFFFFF) * factor
        above = (minor >> 32) * factor + (below >> 32)
        np.bitwise_or(above << 32, below & 0xFFFFFFFF, out=low)
        np.right_shift(above, 32, out=high)
    return pa.Array.from_buffers(pa.decimal128(38, SCALE_MAX), minor.size, [None, pa.py_buffer(words)])


def as_ints(values: Sequence[int]) -> Ints:
    """Whole numbers as an array."""
    return np.array(values, np.int64)


def exact_decimals(values: Sequence[int | None], scale: int = SCALE_MAX) -> pa.Array:
    """DECIMAL(38, scale) of whole numbers of its last place, None as NULL; what has more than 38 digits is NULL too."""
    fit = [value if value is not None and abs(value) < 10**38 else None for value in values]
    data = b"".join((value or 0).to_bytes(16, "little", signed=True) for value in fit)
    valid = np.packbits(np.array([value is not None for value in fit], np.bool_), bitorder="little")
    buffers = [pa.py_buffer(valid), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.decimal128(38, scale), len(values), buffers)


def _millionths(amount: int | Decimal, scale: int) -> int | None:
    """An amount as it was asked for, in millionths of a unit; None where it is finer than that, or absurd."""
    if isinstance(amount, int):
        return int(amount * 10 ** (SCALE_MAX - scale))
    found = to_minor(amount, SCALE_MAX)
    return None if found is None or abs(found) >= 10**38 else found


class Names(NamedTuple):
    """What codes stand for: actors in order of registration (the boundary included), resources in their order."""

    actors: tuple[Actor, ...]
    resources: tuple[Resource, ...]
    joined: tuple[int, ...]
    frozen: frozenset[str]

    @property
    def factor(self) -> Ints:
        """Millionths of a unit in a minor unit, by resource. Shape (resources,)."""
        return np.array([10 ** (SCALE_MAX - resource.scale) for resource in self.resources], np.int64)

    @property
    def scales(self) -> dict[str, Resource]:
        """Resources by name."""
        return {resource.name: resource for resource in self.resources}


def names_of(records: Sequence[JournalRecord]) -> Names:
    """Who and what a journal knows."""
    genesis = records[0].payload
    assert isinstance(genesis, Genesis), "a journal begins with its genesis"
    joined = {actor.id: (actor, 0) for actor in genesis.actors}
    frozen: dict[str, bool] = {}
    for record in records:
        if record.kind == "registration":
            payload = record.payload
            assert isinstance(payload, Registration)
            for actor in payload.actors:
                joined[actor.id] = (actor, joined[actor.id][1] if actor.id in joined else record.epoch)
            frozen.update(payload.frozen)
    actors = tuple(actor for actor, _ in joined.values())
    still = frozenset(actor for actor, is_frozen in frozen.items() if is_frozen)
    return Names(actors, genesis.resources, tuple(epoch for _, epoch in joined.values()), still)


# --- tables -----------------------------------------------------------------------------------------------------------

Slice = tuple[str, pa.Table]
"""The name of a table, and some of its rows, in the order in which they are stored, without the column run_id."""


def tables(run: Run) -> Iterator[Slice]:
    """Every table of an export but its seals, in slices of bounded size.

    What the journal implies comes of `records` and `entries` alone. Complexity: O(records + entries + balances).
    """
    builder = Builder(names_of(run.records))
    yield from run.slices(builder)
    yield from builder.finish()
    yield from builder.shadows(run)
    yield from builder.few(run)


def _slices(
    records: Sequence[JournalRecord], entries: Sequence[LedgerEntry]
) -> Iterator[tuple[Sequence[JournalRecord], Sequence[LedgerEntry]]]:
    """Runs of records with the entries that they made, each of about `ROWS` rows."""
    start, weight, used = 0, 0, 0
    for end, record in enumerate(records, start=1):
        payload = record.payload
        weight += len(payload.readings) if type(payload) is Flow else 1
        if weight >= ROWS or end == len(records):
            last = bisect_right(entries, record.seq, key=attrgetter("seq"))
            yield records[start:end], entries[used:last]
            start, weight, used = end, 0, last


BOUNDARY_MAX = 2**63 - 1
"""Most minor units that all actors together may have of a resource, for a run to be exported."""


class Builder:
    """Derives the tables of a run, part by part as it goes on. `names` says who there is: nobody else may join.

    The rows of one table come in the same order whatever the parts are. Proposals wait for the settlement of their
    holds, and so do those after them, because their final outcome is part of their row.
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self._actors = [actor.id for actor in names.actors]
        self._resources = names.scales
        self._carried = np.zeros((len(names.actors), len(names.resources)), np.int64)
        self._open = columns((), self._actors, list(self._resources))
        self._epoch = 0
        self._closed = 0
        self._waiting: list[Decided] = []
        self._held: dict[str, int] = {}
        self._proposers: dict[str, str] = {}
        self._closes: list[JournalRecord] = []

    def add(self, records: Sequence[JournalRecord], entries: Sequence[LedgerEntry]) -> Iterator[Slice]:
        """The rows that these records, the next ones, and the entries that they made add."""
        closes = [record for record in records if record.kind == "close"]
        ledger = columns(entries, self._actors, list(self._resources))
        yield from self.move(ledger, closes[-1].epoch if closes else self._epoch - 1 if self._epoch else 0)
        origins = self._origin(records)
        if entries:
            yield "ledger", self._ledger(entries, ledger, origins, records[0].seq)
        yield "journal", _journal(records)
        yield from self.say(records)

    def move(self, ledger: Columns, last: int) -> Iterator[Slice]:
        """The balances up to the close of an epoch, given the entries that are next: all those until then."""
        for chunk in self._balances(ledger, last):
            yield "balances", chunk

    def say(self, records: Sequence[JournalRecord]) -> Iterator[Slice]:
        """The flows and proposals of the next records."""
        closes = [record for record in records if record.kind == "close"]
        for close in closes:
            _check_held(close)
        self._closes += closes
        flows = [record for record in records if record.kind == "flow"]
        if flows:
            yield "flows", self._flows(flows)
        self._decide(records)
        yield from self._decided(min(self._held.values(), default=len(self._waiting)))

    def finish(self) -> Iterator[Slice]:
        """The rows that nothing can change any more."""
        yield from self._decided(len(self._waiting))

    def shadows(self, run: Run) -> Iterator[Slice]:
        """The rows of what was judged, but never applied; they follow those that the journal implies."""
        for start in range(0, len(run.shadows), ROWS):
            shadows = [Decided(epoch, decision) for epoch, decision in run.shadows[start : start + ROWS]]
            yield from _proposals(shadows, self._resources, "shadow")

    def few(self, run: Run) -> Iterator[Slice]:
        """The tables of a few rows, and what was put in."""
        yield "epochs", _epochs(run.records[0], self._closes)
        names = names_of(run.records)
        yield from _set_up(run, names, len(self._closes))
        yield from _given(run, names)

    def _balances(self, ledger: Columns, last: int) -> Iterator[pa.Table]:
        """Dense balances at the close of each epoch up to the last one, in order of epoch, actor and resource."""
        ledger = Columns(*ledger[:2], *(np.concatenate(pair) for pair in zip(self._open[2:], ledger[2:], strict=True)))
        cells = self._carried.size
        step = max(1, 4 * ROWS // max(1, cells))
        actor = np.repeat(np.arange(len(self._actors), dtype=np.int32), len(ledger.resources))
        resource = np.tile(np.arange(len(ledger.resources), dtype=np.int32), len(self._actors))
        used = 0
        for first in range(self._epoch, last + 1, step):
            until = min(first + step - 1, last)
            count = until - first + 1
            end = int(np.searchsorted(ledger.epoch, until, "right"))
            part = _part(ledger, used, end)
            found = balances_every(part._replace(epoch=part.epoch - first), until - first) + self._carried
            self._carried, used = found[-1], end
            yield arrow.table(
                {
                    "epoch": np.repeat(np.arange(first, until + 1, dtype=np.int32), cells),
                    "actor": arrow.coded(np.tile(actor, count), self._actors),
                    "resource": arrow.coded(np.tile(resource, count), ledger.resources),
                    "amount": decimals(found, self.names.factor),
                }
            )
        self._epoch = max(self._epoch, last + 1)
        self._open = _part(ledger, used, len(ledger.epoch))

    def _ledger(self, entries: Sequence[LedgerEntry], ledger: Columns, origins: Sequence[str], first: int) -> pa.Table:
        """The entries, each with the proposer or the flow that it comes from."""
        ids, proposals, _, _, _, _, at, seqs, _, kinds = zip(*entries, strict=True)
        texts = list(dict.fromkeys(origins))
        code = {text: i for i, text in enumerate(texts)}
        origin = np.fromiter(map(code.__getitem__, origins), np.int32, len(origins))
        seq = np.array(seqs, np.int64)
        return arrow.table(
            {
                "id": np.array(ids, np.int64),
                "proposal_id": arrow.texts(proposals),
                "actor_from": arrow.coded(ledger.actor_from, ledger.actors),
                "actor_to": arrow.coded(ledger.actor_to, ledger.actors),
                "resource": arrow.coded(ledger.resource, ledger.resources),
                "amount": decimals(ledger.amount, self.names.factor[ledger.resource]),
                "executed_at": arrow.times(at),
                "metadata": arrow.coded(origin[seq - first], texts),
                "epoch": ledger.epoch.astype(np.int32),
                "kind": arrow.texts(kinds),
                "seq": seq,
            }
        )

    def _origin(self, records: Sequence[JournalRecord]) -> list[str]:
        """For each record, the metadata of its entries."""
        found = []
        for record in records:
            payload = record.payload
            if type(payload) is Decision and payload.outcome is Outcome.HELD:
                self._proposers[payload.proposal_id] = payload.proposer
            found.append(metadata(payload, self._proposers.__getitem__))
        return found

    def _flows(self, records: Sequence[JournalRecord]) -> pa.Table:
        """The readings of flow records, one row each."""
        payloads = [record.payload for record in records if type(record.payload) is Flow]
        counts = [len(flow.readings) for flow in payloads]
        readings = chain.from_iterable(flow.readings for flow in payloads)
        actors, resources, requested, applied, entries = zip(*readings, strict=True)
        place = {name: i for i, name in enumerate(self._resources)}
        code = np.fromiter(map(place.__getitem__, resources), np.int64, len(resources))
        factor = self.names.factor[code]
        of = arrow.numbers(np.repeat(np.arange(len(payloads)), counts))
        return arrow.table(
            {
                "epoch": np.repeat(np.array([r.epoch for r in records], np.int32), counts),
                "actor": arrow.texts(actors),
                "resource": arrow.coded(code, list(self._resources)),
                "kind": arrow.texts([flow.kind for flow in payloads]).take(of),
                "requested": decimals(np.array(requested, np.int64), factor),
                "applied": decimals(np.array(applied, np.int64), factor),
                "name": arrow.texts([flow.name for flow in payloads]).take(of),
                "seq": np.repeat(np.array([r.seq for r in records], np.int64), counts),
                "entry_id": arrow.ints(entries),
            }
        )

    def _decide(self, records: Sequence[JournalRecord]) -> None:
        """Queues decisions, and joins settlements to those that were held."""
        waiting = self._waiting
        for record in records:
            payload = record.payload
            if type(payload) is Decision:
                if payload.outcome is Outcome.HELD:
                    self._held[payload.proposal_id] = len(waiting)
                waiting.append(Decided(record.epoch, payload, record))
            elif type(payload) is Settlement:
                place = self._held.pop(payload.proposal_id)
                waiting[place] = waiting[place]._replace(settled=record, end=payload)

    def _decided(self, count: int) -> Iterator[Slice]:
        """The rows of the first decisions that wait."""
        if count:
            some, self._waiting = self._waiting[:count], self._waiting[count:]
            self._held = {proposal_id: place - count for proposal_id, place in self._held.items()}
            yield from _proposals(some, self._resources)


def _check_held(record: JournalRecord) -> None:
    """Raises BadInput where the boundary has more than a column of balances holds; of others there is a limit."""
    assert type(record.payload) is Close
    for resource, amount in record.payload.boundary.items():
        if abs(amount) > BOUNDARY_MAX:
            raise BadInput(
                f"epoch {record.epoch}: all together have 2**63 minor units or more of {resource}, more than a run "
                f"file holds; give {resource} a smaller scale, or the actors less of it"
            )


def _part(ledger: Columns, start: int, end: int) -> Columns:
    return Columns(ledger.actors, ledger.resources, *(array[start:end] for array in ledger[2:]))


def _journal(records: Sequence[JournalRecord]) -> pa.Table:
    return arrow.table(
        {
            "seq": np.array([r.seq for r in records], np.int64),
            "epoch": np.array([r.epoch for r in records], np.int32),
            "kind": arrow.texts([r.kind for r in records]),
            "recorded_at": arrow.times([r.at for r in records]),
            "body": arrow.texts([r.body for r in records]),
            "digest": arrow.texts([r.digest.hex() for r in records]),
        }
    )


def _epochs(genesis: JournalRecord, closes: Sequence[JournalRecord]) -> pa.Table:
    payload = genesis.payload
    assert type(payload) is Genesis
    opening = sum(1 for _, _, amount in payload.opening if amount)
    closed = [close.payload for close in closes if type(close.payload) is Close]
    ends = [genesis.at, *(close.at for close in closes)]
    return arrow.table(
        {
            "epoch": np.array([0, *(close.epoch for close in closes)], np.int32),
            "starts_at": arrow.times([genesis.at, *ends[:-1]]),
            "ends_at": arrow.times(ends),
            "seq": np.array([genesis.seq, *(close.seq for close in closes)], np.int64),
            "entries": np.array([opening, *(said.entries for said in closed)], np.int64),
            "collapsed": arrow.flags([False, *(said.collapsed for said in closed)]),
            "digest": arrow.texts([genesis.digest.hex(), *(close.digest.hex() for close in closes)]),
        }
    )


# --- proposals and their transfers ------------------------------------------------------------------------------------


class Decided(NamedTuple):
    """A decision with its epoch, its record (None for a shadow's), and the record that settled its hold, if any."""

    epoch: int
    decision: Decision
    record: JournalRecord | None = None
    settled: JournalRecord | None = None
    end: Settlement | None = None


def _proposals(some: Sequence[Decided], resources: Mapping[str, Resource], role: str = "active") -> Iterator[Slice]:
    """The rows of two tables: proposals and their transfers."""
    epochs, said, records, settled, ends = zip(*some, strict=True)
    (
        ids,
        proposers,
        n,
        inputs,
        transfers,
        reasoning,
        outcomes,
        found,
        entries,
        granted,
        until,
        moved,
        faults,
        details,
    ) = zip(*said, strict=True)
    if any(ends):
        outcomes = tuple(d.outcome if e is None else e.outcome for d, e in zip(said, ends, strict=True))
        found = tuple(d.violations if e is None else e.violations for d, e in zip(said, ends, strict=True))
        entries = tuple(d.entries if e is None else e.entries for d, e in zip(said, ends, strict=True))
    epoch = np.array(epochs, np.int32)
    identity = arrow.texts(ids)
    yield (
        "proposals",
        arrow.table(
            {
                "epoch": epoch,
                "proposal_id": identity,
                "proposer": arrow.texts(proposers),
                "outcome": arrow.texts(outcomes),
                "violations": arrow.texts(_violations(found, resources)),
                "reasoning": arrow.texts(reasoning),
                "n": np.array(n, np.int32),
                "role": arrow.coded(np.zeros(len(some), np.int32), [role]),
                "transfers": np.fromiter(map(len, transfers), np.int32, len(some)),
                "seq": arrow.ints([record and record.seq for record in records]),
                "decided_at": arrow.times([record and record.at for record in records]),
                "input": arrow.texts(inputs),
                "state_moved": arrow.flags(moved),
                "held": arrow.flags([epoch is not None for epoch in until]),
                "held_until": arrow.ints(until, pa.int32()),
                "settlement": arrow.texts([end and end.decision for end in ends]),
                "settled_epoch": arrow.ints([record and record.epoch for record in settled], pa.int32()),
                "settled_seq": arrow.ints([record and record.seq for record in settled]),
                "fault": arrow.texts([fault or None for fault in faults]),
                "detail": arrow.texts([detail or None for detail in details]),
            }
        ),
    )
    if any(transfers):
        asked = _transfers(transfers, granted, entries, resources)
        of = np.repeat(np.arange(len(some)), np.fromiter(map(len, transfers), np.int64, len(some)))
        yield "transfers", arrow.table({"epoch": epoch[of], "proposal_id": identity.take(arrow.numbers(of)), **asked})


def _violations(found: Sequence[tuple[Violation, ...]], resources: Mapping[str, Resource]) -> list[str]:
    """The violations of each proposal as JSON text in units."""
    suffix = {
        name: f',"resource":{json.dumps(name)},"unit":{json.dumps(resource.unit, ensure_ascii=False)}}}'
        for name, resource in resources.items()
    }
    texts = []
    for violations in found:
        parts = []
        for code, path, limit, actual, of in violations:
            text = f'{{"code":"{code.value}","path":"{path}"'
            scale = resources[of].scale if of is not None else 0
            for key, value in (("limit", limit), ("actual", actual)):
                if isinstance(value, int):  # a number where a float64 holds it, as in `amounts.to_json`
                    shown = plain(value, scale)
                    text += f',"{key}":{shown}' if -LIMIT < value < LIMIT else f',"{key}":"{shown}"'
                elif value is not None:
                    text += f',"{key}":{json.dumps(value, ensure_ascii=False)}'
            parts.append(text + (suffix[of] if of is not None else "}"))
        texts.append(f"[{','.join(parts)}]" if parts else "[]")
    return texts


def _transfers(
    transfers: Sequence[tuple[Transfer, ...]],
    granted: Sequence[tuple[int | Decimal, ...] | None],
    entries: Sequence[tuple[int, ...]],
    resources: Mapping[str, Resource],
) -> dict[str, Any]:
    """What was asked for, one row for each transfer, and the entry that applied it."""
    lengths = np.fromiter(map(len, transfers), np.int64, len(transfers))
    givers, takers, names, amounts = zip(*chain.from_iterable(transfers), strict=True)
    scales = [resources[name].scale if name in resources else 0 for name in names]
    asked = _asked(amounts, scales)
    shares = pa.nulls(len(names), asked.type)
    if any(granted):
        given = chain.from_iterable(g or (None,) * len(t) for g, t in zip(granted, transfers, strict=True))
        shares = exact_decimals([None if g is None else _millionths(g, s) for g, s in zip(given, scales, strict=True)])
    unfit: list[str | None] = [None] * len(names)
    if asked.null_count:
        unfit = [
            plain_decimal(amounts[i]) if missing else None for i, missing in enumerate(asked.is_null().to_pylist())
        ]
    made = chain.from_iterable(e or (None,) * len(t) for e, t in zip(entries, transfers, strict=True))
    return {
        "seq": (np.arange(len(names)) - np.repeat(np.cumsum(lengths) - lengths, lengths)).astype(np.int32),
        "actor_from": arrow.texts(givers),
        "actor_to": arrow.texts(takers),
        "resource": arrow.texts(names),
        "amount": asked,
        "granted": shares,
        "amount_text": arrow.texts(unfit),
        "entry_id": arrow.ints(list(made)),
    }


def _asked(amounts: Sequence[int | Decimal], scales: Sequence[int]) -> pa.Array:
    """Amounts as they were asked for; NULL where six decimals and 32 digits cannot hold one."""
    whole = [amount for amount in amounts if isinstance(amount, int)]
    if len(whole) == len(amounts) and max(map(abs, whole)) < _FIT:
        factor = np.array([10 ** (SCALE_MAX - scale) for scale in range(SCALE_MAX + 1)], np.int64)
        return decimals(np.array(whole, np.int64), factor[np.array(scales)])
    return exact_decimals([_millionths(amount, scale) for amount, scale in zip(amounts, scales, strict=True)])


_FIT = 2**62


# --- what the journal does not imply ----------------------------------------------------------------------------------


def _set_up(run: Run, names: Names, epochs: int) -> Iterator[Slice]:
    """The tables of one row for a run, an actor or a resource."""
    harvesters = run.commons.harvesters if run.commons is not None else ()
    yield (
        "actors",
        arrow.table(
            {
                "actor": arrow.texts(actor.id for actor in names.actors),
                "uuid": arrow.texts(uuid5(actor.id) for actor in names.actors),
                "type": arrow.texts(actor.type for actor in names.actors),
                "actor_no": np.arange(len(names.actors), dtype=np.int32),
                "joined_epoch": arrow.ints(names.joined),
                "frozen": arrow.flags([actor.id in names.frozen for actor in names.actors]),
                "harvester": arrow.flags([actor.id in harvesters for actor in names.actors]),
            }
        ),
    )
    yield (
        "resources",
        arrow.table(
            {
                "resource": arrow.texts(resource.name for resource in names.resources),
                "unit": arrow.texts(resource.unit for resource in names.resources),
                "scale": arrow.ints(resource.scale for resource in names.resources),
                "resource_no": np.arange(len(names.resources), dtype=np.int32),
                "priced": arrow.flags([resource.name in run.prices for resource in names.resources]),
            }
        ),
    )
    yield "runs", _runs(run, names, epochs)


def _runs(run: Run, names: Names, epochs: int) -> pa.Table:
    genesis, commons = run.records[0].payload, run.commons
    assert isinstance(genesis, Genesis)
    scale = names.scales[commons.resource].scale if commons is not None else 0
    return arrow.table(
        {
            "scenario": arrow.texts([run.scenario]),
            "description": arrow.texts([run.description]),
            "seed": exact_decimals([genesis.seed], 0),
            "overrides": arrow.texts([json.dumps(list(run.overrides), ensure_ascii=False)]),
            "proposers": arrow.texts([json.dumps([dict(p) for p in run.proposers], ensure_ascii=False)]),
            "status": arrow.texts([run.status]),
            "error": arrow.texts([run.error]),
            "head_digest": arrow.texts([run.head_digest]),
            "horizon": arrow.ints([run.horizon]),
            "epochs": arrow.ints([epochs]),
            "records": arrow.ints([run.size[0]]),
            "entries": arrow.ints([run.size[1]]),
            "start": arrow.times([genesis.start]),
            "epoch_length_us": arrow.ints([genesis.epoch_length]),
            "commons_actor": arrow.texts([commons and commons.actor]),
            "commons_resource": arrow.texts([commons and commons.resource]),
            "collapse_below": exact_decimals([commons and _millionths(commons.collapse_below, scale)]),
            "harvesters": arrow.ints([commons and len(commons.harvesters)]),
            "recorded": arrow.ints([run.recorded]),
            "synthetic": arrow.ints([run.synthetic]),
            "started_at": arrow.times([run.started_at]),
            "seconds": arrow.floats([run.seconds]),
            "version": arrow.texts([run.version]),
            "form": arrow.ints([FORM]),
        }
    )


_small = partial(arrow.ints, kind=pa.int32())

INTERACTION: dict[str, Callable[[Iterable[Any]], pa.Array]] = {
    "epoch": _small, "proposer": arrow.texts, "n": _small, "proposal_id": arrow.texts, "origin": arrow.texts,
    "request_key": arrow.texts, "model_asked": arrow.texts, "model_answered": arrow.texts, "status": arrow.texts,
    "finish_reason": arrow.texts, "prompt": arrow.texts, "prompt_digest": arrow.texts, "tokens_in": arrow.ints,
    "tokens_out": arrow.ints, "tokens_thought": arrow.ints, "latency_ms": arrow.floats, "attempts": _small,
    "line": arrow.texts, "digest": arrow.texts,
}  # fmt: skip
"""The keys of an interaction that are columns, each with what builds it; `cost` and `at` are converted."""

_COST = Decimal("1e-12")


def _given(run: Run, names: Names) -> Iterator[Slice]:
    """Prices, baselines, interactions and files: what was put in, and no record implies."""
    for resource, prices in run.prices.items():
        count = len(prices)
        epochs = np.arange(1, count + 1, dtype=np.int32)
        texts = arrow.coded(np.zeros(count, np.int32), [resource])
        yield (
            "prices",
            arrow.table({"epoch": epochs, "resource": texts, "price": decimals(np.asarray(prices), 1)}),
        )
    if run.baselines:
        scales = [names.scales[resource].scale for resource in run.baselines]
        none, bound, notes = zip(*run.baselines.values(), strict=True)
        served = {
            key: exact_decimals([v if v is None else _millionths(v, s) for v, s in zip(values, scales, strict=True)])
            for key, values in (("none_served", none), ("bound_served", bound))
        }
        yield "baselines", arrow.table({"resource": arrow.texts(run.baselines), **served, "note": arrow.texts(notes)})
    for resource, served_alone in run.alone.items():
        if served_alone:
            who, amounts = zip(*served_alone, strict=True)
            minor, factor = as_ints(amounts), 10 ** (SCALE_MAX - names.scales[resource].scale)
            texts = arrow.coded(np.zeros(len(who), np.int32), [resource])
            served_each = decimals(minor, factor)
            yield "alone", arrow.table({"actor": arrow.texts(who), "resource": texts, "served": served_each})
    for start in range(0, len(run.interactions), _LINES):
        yield "interactions", _interactions(run.interactions[start : start + _LINES])
    for name, content in run.files.items():
        digest = sha256(content).hexdigest()
        row = {"name": arrow.texts([name]), "size": arrow.ints([len(content)]), "digest": arrow.texts([digest])}
        yield "files", arrow.table({**row, "content": arrow.blobs([content])})


def _interactions(some: Sequence[Mapping[str, Any]]) -> pa.Table:
    rows = [{**one, "status": None if one.get("status") is None else str(one["status"])} for one in some]
    found = {key: build(row.get(key) for row in rows) for key, build in INTERACTION.items()}
    costs = [row.get("cost") for row in rows]
    times = [row.get("at") for row in rows]
    exact = [None if cost is None else Decimal(str(cost)).quantize(_COST) for cost in costs]
    found["cost"] = exact_decimals([None if one is None else int(one.scaleb(12)) for one in exact], 12)
    found["called_at"] = arrow.times([None if at is None else microseconds(at) for at in times])
    return arrow.table(found)
