"""A finished run becomes one immutable DuckDB file, with its metrics as views; nothing is decided or folded here.

The tables and their columns are in `sql/export_schema.sql`, the metrics in `sql/export_views.sql`. `tables` derives the
tables from a run in columns, `Store` writes them under another name and renames the file when it is complete.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from hashlib import sha256
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, Self

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gridgov.amounts import LIMIT, SCALE_MAX, plain, plain_decimal, to_minor
from gridgov.engine import Engine
from gridgov.errors import BadInput, Damaged
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

SQL = Path(__file__).parent / "sql"

_UNIT = 10**SCALE_MAX
"""Amounts are stored in millionths of a unit: DECIMAL(38,6)."""

_ROWS = 1 << 17
"""About so many rows are built and handed over at once, so that memory does not grow with a run."""

_COMMITTED = 1 << 20
"""Rows after which what was stored is committed: it takes memory until then, and nobody sees the file in any case."""

_LINES = 4096
"""The same for interactions, each of which holds a prompt and a reply."""

_LAYOUT = "ROW_GROUP_SIZE 8192, BLOCK_SIZE 131072"
"""Small row groups are packed while a run goes on, and little is left for the end; smaller blocks pack badly."""

_TURN = 0.0005
"""Seconds after which a thread that computes lets another go on, while a run is written."""

_OLD = 24 * 3600
"""Seconds after which a folder that a killed writer left is taken away."""


@cache
def _queries() -> dict[str, str]:
    """The queries of `sql/export_queries.sql`, by name."""
    _, *parts = (SQL / "export_queries.sql").read_text("utf-8").split("-- name: ")
    return {name: text.strip() for name, _, text in (part.partition("\n") for part in parts)}


def query(name: str, **identifiers: str) -> str:
    """The SQL of a query by its name, with its identifiers filled in."""
    return _queries()[name].format(**identifiers)


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

    def slices(self, builder: Builder, seq: int = 0, entries: int = 0) -> Iterator[Slice]:
        """The rows that the records after a seq, and the entries after an id, add."""
        for part in _slices(self.records[seq:], self.entries[entries:]):
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


def _times(at: Iterable[int] | Ints) -> pa.Array:
    """Microseconds since 1970 as timestamps."""
    return pa.array(np.fromiter(at, np.int64), pa.timestamp("us"))


def _texts(values: Iterable[str | None]) -> pa.Array:
    return pa.array(list(values), pa.string())


def _ints(values: Iterable[int | None]) -> pa.Array:
    return pa.array(list(values), pa.int64())


def _coded(codes: NDArray[Any], names: Sequence[str]) -> pa.Array:
    """Text by its place in a list of names."""
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(names, pa.string()))


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
    """Runs of records with the entries that they made, each of about `_ROWS` rows."""
    start, weight, used = 0, 0, 0
    for end, record in enumerate(records, start=1):
        payload = record.payload
        weight += len(payload.readings) if type(payload) is Flow else 1
        if weight >= _ROWS or end == len(records):
            last = bisect_right(entries, record.seq, key=attrgetter("seq"))
            yield records[start:end], entries[used:last]
            start, weight, used = end, 0, last


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
        self._closes += [record for record in records if record.kind == "close"]
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
        for start in range(0, len(run.shadows), _ROWS):
            shadows = [Decided(epoch, decision) for epoch, decision in run.shadows[start : start + _ROWS]]
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
        step = max(1, 4 * _ROWS // max(1, cells))
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
            yield pa.table(
                {
                    "epoch": np.repeat(np.arange(first, until + 1, dtype=np.int32), cells),
                    "actor": _coded(np.tile(actor, count), self._actors),
                    "resource": _coded(np.tile(resource, count), ledger.resources),
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
        return pa.table(
            {
                "id": np.array(ids, np.int64),
                "proposal_id": pa.array(proposals, pa.string()),
                "actor_from": _coded(ledger.actor_from, ledger.actors),
                "actor_to": _coded(ledger.actor_to, ledger.actors),
                "resource": _coded(ledger.resource, ledger.resources),
                "amount": decimals(ledger.amount, self.names.factor[ledger.resource]),
                "executed_at": _times(at),
                "metadata": _coded(origin[seq - first], texts),
                "epoch": ledger.epoch.astype(np.int32),
                "kind": pa.array(kinds, pa.string()),
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
        of = pa.array(np.repeat(np.arange(len(payloads)), counts))
        return pa.table(
            {
                "epoch": np.repeat(np.array([r.epoch for r in records], np.int32), counts),
                "actor": pa.array(actors, pa.string()),
                "resource": _coded(code, list(self._resources)),
                "kind": pa.array([flow.kind for flow in payloads], pa.string()).take(of),
                "requested": decimals(np.array(requested, np.int64), factor),
                "applied": decimals(np.array(applied, np.int64), factor),
                "name": pa.array([flow.name for flow in payloads], pa.string()).take(of),
                "seq": np.repeat(np.array([r.seq for r in records], np.int64), counts),
                "entry_id": pa.array(entries, pa.int64()),
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


def _part(ledger: Columns, start: int, end: int) -> Columns:
    return Columns(ledger.actors, ledger.resources, *(array[start:end] for array in ledger[2:]))


def _journal(records: Sequence[JournalRecord]) -> pa.Table:
    return pa.table(
        {
            "seq": np.array([r.seq for r in records], np.int64),
            "epoch": np.array([r.epoch for r in records], np.int32),
            "kind": pa.array([r.kind for r in records], pa.string()),
            "recorded_at": _times([r.at for r in records]),
            "body": pa.array([r.body for r in records], pa.string()),
            "digest": pa.array([r.digest.hex() for r in records], pa.string()),
        }
    )


def _epochs(genesis: JournalRecord, closes: Sequence[JournalRecord]) -> pa.Table:
    payload = genesis.payload
    assert type(payload) is Genesis
    opening = sum(1 for _, _, amount in payload.opening if amount)
    closed = [close.payload for close in closes if type(close.payload) is Close]
    ends = [genesis.at, *(close.at for close in closes)]
    return pa.table(
        {
            "epoch": np.array([0, *(close.epoch for close in closes)], np.int32),
            "starts_at": _times([genesis.at, *ends[:-1]]),
            "ends_at": _times(ends),
            "seq": np.array([genesis.seq, *(close.seq for close in closes)], np.int64),
            "entries": np.array([opening, *(said.entries for said in closed)], np.int64),
            "collapsed": pa.array([False, *(said.collapsed for said in closed)]),
            "digest": pa.array([genesis.digest.hex(), *(close.digest.hex() for close in closes)]),
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
    identity = pa.array(ids, pa.string())
    yield (
        "proposals",
        pa.table(
            {
                "epoch": epoch,
                "proposal_id": identity,
                "proposer": pa.array(proposers, pa.string()),
                "outcome": pa.array(outcomes, pa.string()),
                "violations": pa.array(_violations(found, resources), pa.string()),
                "reasoning": pa.array(reasoning, pa.string()),
                "n": np.array(n, np.int32),
                "role": _coded(np.zeros(len(some), np.int32), [role]),
                "transfers": np.fromiter(map(len, transfers), np.int32, len(some)),
                "seq": pa.array([record and record.seq for record in records], pa.int64()),
                "decided_at": pa.array([record and record.at for record in records], pa.timestamp("us")),
                "input": pa.array(inputs, pa.string()),
                "state_moved": pa.array(moved),
                "held": pa.array([epoch is not None for epoch in until]),
                "held_until": pa.array(until, pa.int32()),
                "settlement": pa.array([end and end.decision for end in ends], pa.string()),
                "settled_epoch": pa.array([record and record.epoch for record in settled], pa.int32()),
                "settled_seq": pa.array([record and record.seq for record in settled], pa.int64()),
                "fault": pa.array([fault or None for fault in faults], pa.string()),
                "detail": pa.array([detail or None for detail in details], pa.string()),
            }
        ),
    )
    if any(transfers):
        asked = _transfers(transfers, granted, entries, resources)
        of = np.repeat(np.arange(len(some)), np.fromiter(map(len, transfers), np.int64, len(some)))
        yield "transfers", pa.table({"epoch": epoch[of], "proposal_id": identity.take(pa.array(of)), **asked})


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
        for place in np.flatnonzero(np.array(asked.is_null())).tolist():
            unfit[place] = plain_decimal(amounts[place])
    made = chain.from_iterable(e or (None,) * len(t) for e, t in zip(entries, transfers, strict=True))
    return {
        "seq": (np.arange(len(names)) - np.repeat(np.cumsum(lengths) - lengths, lengths)).astype(np.int32),
        "actor_from": pa.array(givers, pa.string()),
        "actor_to": pa.array(takers, pa.string()),
        "resource": pa.array(names, pa.string()),
        "amount": asked,
        "granted": shares,
        "amount_text": pa.array(unfit, pa.string()),
        "entry_id": pa.array(list(made), pa.int64()),
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
        pa.table(
            {
                "actor": _texts(actor.id for actor in names.actors),
                "uuid": _texts(uuid5(actor.id) for actor in names.actors),
                "type": _texts(actor.type for actor in names.actors),
                "actor_no": np.arange(len(names.actors), dtype=np.int32),
                "joined_epoch": _ints(names.joined),
                "frozen": pa.array([actor.id in names.frozen for actor in names.actors]),
                "harvester": pa.array([actor.id in harvesters for actor in names.actors]),
            }
        ),
    )
    yield (
        "resources",
        pa.table(
            {
                "resource": _texts(resource.name for resource in names.resources),
                "unit": _texts(resource.unit for resource in names.resources),
                "scale": _ints(resource.scale for resource in names.resources),
                "resource_no": np.arange(len(names.resources), dtype=np.int32),
                "priced": pa.array([resource.name in run.prices for resource in names.resources]),
            }
        ),
    )
    yield "runs", _runs(run, names, epochs)


def _runs(run: Run, names: Names, epochs: int) -> pa.Table:
    genesis, commons = run.records[0].payload, run.commons
    assert isinstance(genesis, Genesis)
    scale = names.scales[commons.resource].scale if commons is not None else 0
    return pa.table(
        {
            "scenario": _texts([run.scenario]),
            "description": _texts([run.description]),
            "seed": exact_decimals([genesis.seed], 0),
            "overrides": _texts([json.dumps(list(run.overrides), ensure_ascii=False)]),
            "proposers": _texts([json.dumps([dict(p) for p in run.proposers], ensure_ascii=False)]),
            "status": _texts([run.status]),
            "error": _texts([run.error]),
            "head_digest": _texts([run.head_digest]),
            "horizon": _ints([run.horizon]),
            "epochs": _ints([epochs]),
            "records": _ints([run.size[0]]),
            "entries": _ints([run.size[1]]),
            "start": _times([genesis.start]),
            "epoch_length_us": _ints([genesis.epoch_length]),
            "commons_actor": _texts([commons and commons.actor]),
            "commons_resource": _texts([commons and commons.resource]),
            "collapse_below": exact_decimals([commons and _millionths(commons.collapse_below, scale)]),
            "harvesters": _ints([commons and len(commons.harvesters)]),
            "recorded": _ints([run.recorded]),
            "synthetic": _ints([run.synthetic]),
            "started_at": pa.array([run.started_at], pa.timestamp("us")),
            "seconds": pa.array([run.seconds], pa.float64()),
            "version": _texts([run.version]),
            "form": _ints([FORM]),
        }
    )


INTERACTION: dict[str, pa.DataType] = {
    "epoch": pa.int32(), "proposer": pa.string(), "n": pa.int32(), "proposal_id": pa.string(), "origin": pa.string(),
    "request_key": pa.string(), "model_asked": pa.string(), "model_answered": pa.string(), "status": pa.string(),
    "finish_reason": pa.string(), "prompt": pa.string(), "prompt_digest": pa.string(), "tokens_in": pa.int64(),
    "tokens_out": pa.int64(), "tokens_thought": pa.int64(), "latency_ms": pa.float64(), "attempts": pa.int32(),
    "line": pa.string(), "digest": pa.string(),
}  # fmt: skip
"""The keys of an interaction that are columns as they are; `cost` and `at` are converted."""

_COST = Decimal("1e-12")


def _given(run: Run, names: Names) -> Iterator[Slice]:
    """Prices, baselines, interactions and files: what was put in, and no record implies."""
    for resource, prices in run.prices.items():
        count = len(prices)
        epochs = np.arange(1, count + 1, dtype=np.int32)
        texts = _coded(np.zeros(count, np.int32), [resource])
        yield (
            "prices",
            pa.table({"epoch": epochs, "resource": texts, "price": decimals(np.asarray(prices), 1)}),
        )
    if run.baselines:
        scales = [names.scales[resource].scale for resource in run.baselines]
        none, bound, notes = zip(*run.baselines.values(), strict=True)
        served = {
            key: exact_decimals([v if v is None else _millionths(v, s) for v, s in zip(values, scales, strict=True)])
            for key, values in (("none_served", none), ("bound_served", bound))
        }
        yield "baselines", pa.table({"resource": _texts(run.baselines), **served, "note": _texts(notes)})
    for resource, served_alone in run.alone.items():
        if served_alone:
            who, amounts = zip(*served_alone, strict=True)
            minor, factor = as_ints(amounts), 10 ** (SCALE_MAX - names.scales[resource].scale)
            texts = _coded(np.zeros(len(who), np.int32), [resource])
            yield "alone", pa.table({"actor": _texts(who), "resource": texts, "served": decimals(minor, factor)})
    for start in range(0, len(run.interactions), _LINES):
        yield "interactions", _interactions(run.interactions[start : start + _LINES])
    for name, content in run.files.items():
        digest = sha256(content).hexdigest()
        row = {"name": [name], "size": [len(content)], "digest": [digest], "content": [content]}
        yield "files", pa.table(row)


def _interactions(some: Sequence[Mapping[str, Any]]) -> pa.Table:
    rows = [{**one, "status": None if one.get("status") is None else str(one["status"])} for one in some]
    found = {key: pa.array([row.get(key) for row in rows], kind) for key, kind in INTERACTION.items()}
    costs = [row.get("cost") for row in rows]
    times = [row.get("at") for row in rows]
    exact = [None if cost is None else Decimal(str(cost)).quantize(_COST) for cost in costs]
    found["cost"] = pa.array(exact, pa.decimal128(38, 12))
    found["called_at"] = pa.array([None if at is None else microseconds(at) for at in times], pa.timestamp("us"))
    return pa.table(found)


# --- the file ---------------------------------------------------------------------------------------------------------

SEALED: dict[str, tuple[str, ...]] = {
    "runs": (
        "scenario", "description", "overrides", "proposers", "status", "error", "horizon", "commons_actor",
        "commons_resource", "collapse_below", "harvesters", "recorded", "synthetic", "started_at", "seconds", "version",
        "form",
    ),
    "actors": ("harvester",),
    "resources": ("priced",),
    "prices": ("epoch", "resource", "price"),
    "baselines": ("resource", "none_served", "bound_served", "note"),
    "alone": ("actor", "resource", "served"),
    "interactions": (*INTERACTION, "cost", "called_at"),
    "files": ("name", "size", "digest", "content"),
}  # fmt: skip
"""By table, the columns that the journal does not imply."""

SHADOWED = ("proposals", "transfers")
"""The tables that hold shadows too; no record implies a shadow's rows, so all their columns are sealed."""


class Seal(NamedTuple):
    """A digest of the values of one column in their order: shows damage, proves nothing against a forger."""

    table: str
    column: str
    rows: int
    digest: str


class Seals:
    """Seals of columns, while their rows come by."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Any] = {}
        self._rows: Counter[tuple[str, str]] = Counter()

    def add(self, table: str, column: str, values: Sequence[Any]) -> None:
        """Takes the next values of a column."""
        sha = self._found.setdefault((table, column), sha256())
        self._rows[table, column] += len(values)
        for value in values:
            data = value if isinstance(value, bytes) else str(value).encode()
            sha.update(b"-" if value is None else b"%d:%b" % (len(data), data))

    def __iter__(self) -> Iterator[Seal]:
        for (table, column), sha in self._found.items():
            yield Seal(table, column, self._rows[table, column], sha.hexdigest())


def do(connection: duckdb.DuckDBPyConnection, sql: str, values: Mapping[str, Any] | None = None) -> list[Any]:
    """Runs SQL to its end and returns the rows of the last statement."""
    rows: list[Any] = connection.execute(sql, values).fetchall()
    return rows


def seals(connection: duckdb.DuckDBPyConnection, run_id: str) -> Seals:
    """Seals of every column that the journal does not imply, as it is stored, of the tables that have rows."""
    found = Seals()
    asked = [(table, query("sealed", columns=", ".join(keys), table=table)) for table, keys in SEALED.items()]
    asked += [(table, query("sealed_shadows", table=table)) for table in SHADOWED]
    for table, sql in asked:
        cursor = connection.execute(sql, {"run": run_id})
        names = [column[0] for column in cursor.description or ()]
        while rows := cursor.fetchmany(4096):
            for name, values in zip(names, zip(*rows, strict=True), strict=True):
                found.add(table, name, values)
    return found


class Store:
    """A folder of runs, one immutable file each; to be closed, or used as a context manager.

    The database that writes is made in the background as soon as the store is opened: opened before a run, it is ready
    when the run is over.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.scratch = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
        except OSError as error:
            raise BadInput(
                f"{folder}: cannot be written to ({error.strerror}); name another folder with --out"
            ) from None
        self.worker = ThreadPoolExecutor(1, "export")
        self._ready = self.worker.submit(self._prepare)
        _clean(folder, self.scratch)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The database that writes, once it is ready."""
        return self._ready.result()

    def close(self) -> None:
        """Ends the store; what was not finished is gone."""
        self.worker.shutdown(wait=True, cancel_futures=True)
        if not self._ready.cancelled() and self._ready.exception() is None:
            self.connection.close()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _prepare(self) -> duckdb.DuckDBPyConnection:
        """A database in memory that writes the files."""
        threads = min(4, os.cpu_count() or 1)
        connection = duckdb.connect(config={"threads": threads, "checkpoint_threshold": "1KB"})
        do(connection, "SET fsync_mode = 'NONE'")  # once, at the end
        blank()
        return connection

    def metrics(self, path: Path) -> Metrics:
        """The metrics of the one run in a file; see `metrics`."""
        attach(self.connection, path, "looked_at", "READ_ONLY")
        try:
            return _metrics(self.connection, None, "looked_at.")
        finally:
            do(self.connection, "DETACH looked_at")

    def write(self, run: Run) -> Path:
        """Writes a finished run and returns the path of its file; see `Writer.finish`."""
        with Writer(self) as writer:
            return writer.finish(run)


class Writer:
    """One run on its way into its file. It may be fed while the run goes on: then little is left to do at the end.

    The store's worker stores rows in a file of the store's scratch folder.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.path = store.scratch / "unfinished.duckdb"
        self._pending = deque([store.worker.submit(self._begin)])
        self._builder: Builder | None = None
        self._seals = Seals()
        self._fed = (0, 0, 0)
        self._uncommitted = 0

    def __enter__(self) -> Self:
        """From here to the end, threads take turns more often, so that a busy run does not starve the worker."""
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(min(self._interval, _TURN))
        return self

    def __exit__(self, *_: object) -> None:
        """Undoes what was not finished."""
        sys.setswitchinterval(self._interval)
        self._stop()

    def _stop(self) -> None:
        if self._pending:
            for one in self._pending:
                one.cancel()
            self._pending.clear()
            self.store.connection.interrupt()
        self.store.worker.submit(self._drop).result()

    def _begin(self) -> None:
        connection = self.store.connection
        self.path.write_bytes(blank())
        attach(connection, self.path, "x")
        do(connection, "BEGIN")

    def _drop(self) -> None:
        connection = self.store.connection
        with suppress(duckdb.Error):  # nothing to undo
            do(connection, "ROLLBACK")
        if do(connection, query("attached"), {"database": "x"}):
            do(connection, "DETACH x")
        self.path.unlink(missing_ok=True)

    @property
    def fed(self) -> int:
        """The last record that was taken while the run went on."""
        return self._fed[0]

    def feed(self, run_id: str, engine: Engine) -> None:
        """Takes what the engine's ledger has come to, once that is enough to be worth it; returns at once.

        Nothing depends on whether, or how often, it is called.
        """
        state, (seq, entries, epoch) = engine.state, self._fed
        weight = (state.epoch - epoch) * len(state.actors) * len(state.resources) + state.seq - seq
        if weight + state.entries - entries < _ROWS // 2:
            return
        records = tuple(islice(engine.ledger.records(), seq, None))
        made = engine.ledger.entries()[entries:]
        if self._builder is None:
            self._builder = Builder(names_of(records))
        self._fed = (state.seq, state.entries, state.epoch)
        self._pending.append(self.store.worker.submit(self._take, run_id, list(self._builder.add(records, made))))

    def _take(self, run_id: str, slices: Iterable[Slice]) -> None:
        for table, rows in slices:
            _insert(self.store.connection, run_id, table, rows)
            self._uncommitted += rows.num_rows
            if self._uncommitted >= _COMMITTED:
                do(self.store.connection, "COMMIT; BEGIN")
                self._uncommitted = 0

    def finish(self, run: Run, path: Path | None = None) -> Path:
        """Writes `<run_id>.duckdb`, or a path given, and returns it; a complete file that holds this run is kept.

        The file appears under its name when it is complete, or never. Raises Damaged where a file of this name is not
        what it was, BadInput where it holds another run.
        """
        path = path or self.store.folder / f"{run.run_id}.duckdb"
        if path.exists():
            self._stop()
            return _keep(self.store.connection, path, run)
        self._wait(0)
        for table, rows in self._rest(run):
            self._pending.append(self.store.worker.submit(self._take, run.run_id, [(table, rows)]))
            self._wait(4)
        self._pending.append(self.store.worker.submit(self._end, run.run_id))
        self._wait(0)
        try:
            os.link(self.path, path)
        except FileExistsError:
            return _keep(self.store.connection, path, run)
        except OSError:  # a file system without links
            self.path.rename(path)
        return path

    def _rest(self, run: Run) -> Iterator[Slice]:
        """The rows that were not taken while the run went on; what no record implies is sealed on its way."""
        names = names_of(run.records)
        if self._builder is None or self._builder.names.actors != names.actors:
            if self._builder is not None:  # somebody joined: what was stored lacks them
                self.store.worker.submit(self._drop).result()
                self.store.worker.submit(self._begin).result()
                self._fed = (0, 0, 0)
            self._builder = Builder(names)
        seq, entries, _ = self._fed
        yield from run.slices(self._builder, seq, entries)
        yield from self._builder.finish()
        for table, rows in self._builder.shadows(run):
            self._seal(table, rows, rows.column_names)
            yield table, rows
        for table, rows in self._builder.few(run):
            self._seal(table, rows, SEALED.get(table, ()))
            yield table, rows

    def _seal(self, table: str, rows: pa.Table, names: Sequence[str]) -> None:
        for name in names:
            self._seals.add(table, name, rows[name].to_pylist())

    def _wait(self, most: int) -> None:
        """Waits until no more than so many tasks are pending; raises what one of them raised."""
        while len(self._pending) > most:
            self._pending[0].result()
            self._pending.popleft()

    def _end(self, run_id: str) -> None:
        """Stores the seals, and all of it for good."""
        on, column, count, digest = zip(*self._seals, strict=True)
        rows = {"table_name": on, "column_name": column, "row_count": count, "digest": digest}
        _insert(self.store.connection, run_id, "seals", pa.table(rows))
        do(self.store.connection, "COMMIT; DETACH x")
        with self.path.open("r+b") as file:
            os.fsync(file.fileno())


@cache
def blank() -> bytes:
    """A file with the tables and views of an export, and no row. Made once: 200 comments take longer than most runs."""
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
        path = Path(folder) / "empty"
        attach(connection, path, "empty")
        do(connection, "USE empty; BEGIN")
        for name in ("export_schema.sql", "export_views.sql"):
            do(connection, (SQL / name).read_text("utf-8"))
        do(connection, "COMMIT; USE memory; DETACH empty")
        return path.read_bytes()


def attach(connection: duckdb.DuckDBPyConnection, path: Path, name: str, options: str = _LAYOUT) -> None:
    """Attaches a file under a name."""
    quoted = str(path).replace("'", "''")
    do(connection, f"ATTACH '{quoted}' AS {name} ({options})")


def _keep(connection: duckdb.DuckDBPyConnection, path: Path, run: Run) -> Path:
    """Keeps a file that holds this run, complete; else says what is wrong with it, and what to do."""
    advice = "delete it and start again, or name another place with --out"
    try:
        attach(connection, path, "kept", "READ_ONLY")
        try:
            head, rows = complete(connection, run.run_id, "kept")
        finally:
            do(connection, "DETACH kept")
    except duckdb.Error as error:
        if is_locked(error):
            raise BadInput(f"{path}: another process is writing it; try again when it is done") from None
        raise Damaged(f"{path}: is there already, and damaged ({first_line(error)}); {advice}") from None
    if head is not None and head != run.head_digest:
        raise BadInput(
            f"{path}: is there already, with another head ({head[:16]}..., this run's is {run.head_digest[:16]}...); "
            f"{advice}"
        )
    if head is None or rows != run.size:
        raise Damaged(f"{path}: is there already, and not complete; {advice}")
    return path


def _insert(connection: duckdb.DuckDBPyConnection, run_id: str, table: str, rows: pa.Table) -> None:
    connection.register("batch", rows)
    do(connection, query("insert", table=table), {"run": run_id})
    connection.unregister("batch")


def first_line(error: BaseException) -> str:
    """What a database's error says, on one line without its hints."""
    return " ".join(str(error).strip().split("\n")[0].split())


def is_locked(error: duckdb.Error) -> bool:
    """Whether a file could not be opened because somebody has it open for writing."""
    return "lock on file" in str(error) or "different configuration" in str(error) or "already attached" in str(error)


def complete(connection: duckdb.DuckDBPyConnection, run_id: str, database: str) -> tuple[str | None, tuple[int, int]]:
    """The head of a stored run (None where it is not the journal's) and its records and entries; reads every block."""
    for (table,) in do(connection, query("table_names"), {"database": database}):
        do(connection, query("read_every_block", database=database, table=table))
    [(head, digest, *counts)] = do(connection, query("head", database=database), {"run": run_id})
    return (head if head == digest else None), (counts[0], counts[1])


def _clean(folder: Path, own: Path) -> None:
    """Takes away what killed writers left here, once it is a day older than what was made just now."""
    now = own.stat().st_mtime
    for left in folder.glob(".writing-*"):
        with suppress(FileNotFoundError):  # another writer was faster
            if now - left.stat().st_mtime > _OLD:
                shutil.rmtree(left, ignore_errors=True)


def export(run: Run, folder: Path) -> Path:
    """Writes one run to a folder; see `Store.write`."""
    with Store(folder) as store:
        return store.write(run)


def write_journal(path: Path, records: Iterable[JournalRecord]) -> int:
    """Writes a journal as JSON lines {"body", "digest"} and returns how many; the file appears complete, or never."""
    lines = ({"body": record.body, "digest": record.digest.hex()} for record in records)
    return write_texts(path, (json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def write_texts(path: Path, texts: Iterable[str]) -> int:
    """Writes texts one after the other and returns how many; the file appears complete, or never. Raises BadInput."""
    count = 0
    try:
        handle, name = tempfile.mkstemp(prefix=".writing-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror})") from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            for text in texts:
                file.write(text)
                count += 1
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
    return count


# --- metrics ----------------------------------------------------------------------------------------------------------

Number = int | float | None
Metrics = dict[str, Number | dict[str, Number]]


def metrics(source: Path | duckdb.DuckDBPyConnection, run_id: str | None = None) -> Metrics:
    """The metrics of a run, by name: a number, or a number for each resource; None where it is undefined.

    Amounts are exact where a float64 holds them, whole ones are int. A file of many runs needs a run_id.
    """
    if isinstance(source, Path):
        with duckdb.connect(str(source), read_only=True) as connection:
            return _metrics(connection, run_id)
    return _metrics(source, run_id)


def _metrics(connection: duckdb.DuckDBPyConnection, run_id: str | None, database: str = "") -> Metrics:
    found: Metrics = {}
    for name, resource, value, exact in do(connection, query("metrics", database=database), {"run": run_id}):
        number: Number = value
        if exact is not None:
            number = int(exact) if exact == exact.to_integral_value() else float(exact)
        if resource is None:
            found[name] = number
        else:
            of = found.setdefault(name, {})
            assert isinstance(of, dict)
            of[resource] = number
    return found
