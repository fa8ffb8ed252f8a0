"""A grid in Postgres becomes an export like that of a run: its rows pass in columns, and never all at once.

Ledger and journal are copied as they are stored, over ADBC; only what else follows from the journal is built anew.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_manager import Error, OperationalError
from adbc_driver_postgresql import StatementOptions, dbapi

from gridgov import __version__, arrow
from gridgov.auth import SHADOW
from gridgov.errors import BadInput, Damaged, GridgovError, Unreachable
from gridgov.export import Store, Writer
from gridgov.grid import Asides, Exchanges, Grid
from gridgov.journal import Decision, Genesis, JournalRecord, Registration, canonical
from gridgov.model import uuid5
from gridgov.postgres import READ
from gridgov.queries import query
from gridgov.replay import Columns, chain
from gridgov.tables import Builder, Run, Slice, decimals

BATCH = 1 << 23
"""About so many bytes are read at once."""

Progress = Callable[[int, int], None]
"""Is told how many records and entries were handed over, and how many there are."""

Batches = Iterator[pa.RecordBatch]

_ADVICE = "run `gridgov verify postgres`"


def export_grid(url: str, grid: str, out: Path, progress: Progress | None = None) -> Path:
    """Writes a grid, as it is now, to a DuckDB file as `export.Writer` writes a run; returns its path.

    The file appears under its name when it is complete, or never; one that holds this very history is kept. Its run_id
    depends on the grid's name and genesis alone, and its scenario is the grid's name. Raises BadInput where the file is
    there and is another, or the grid has no genesis; Damaged where the journal is no chain, or a row of the ledger no
    entry. Memory: some batches, the decisions since a hold that is not settled, and one epoch's entries.
    """
    if out.suffix != ".duckdb":
        raise BadInput(f"{out}: expected a name that ends in .duckdb")
    with Grid(url, grid) as opened:
        run = _run(opened, progress)
        with Store(out.parent) as store, Writer(store) as writer, _uncollected():
            return writer.finish(run, out)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Decoded records hold no cycles, and to look for some in them again and again takes a quarter of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _run(opened: Grid, progress: Progress | None) -> GridRun:
    """The grid as a run. Its rows are append-only: up to this head, they stay what they are."""
    head, known = opened.head(), opened.known()
    if head is None:
        raise BadInput(f"{opened.name}: has no genesis, nothing was recorded yet")
    if not known or type(known[0].payload) is not Genesis:
        raise Damaged(f"{opened.name}: the journal does not begin with a genesis; {_ADVICE}")
    scales = {(resource.name, resource.scale) for resource in known[0].payload.resources}
    if set(opened.rows("scales")) != scales:
        raise Damaged(f"{opened.name}: resources are not those of the genesis; {_ADVICE}")
    identity = canonical({"genesis": known[0].body, "grid": opened.grid})
    exchanges = Exchanges(opened)
    listed: list[dict[str, Any]] = []
    return GridRun(
        run_id=hashlib.sha256(identity.encode()).hexdigest()[:16],
        scenario=opened.grid,
        description=f"grid {opened.grid} in Postgres, up to journal record {head.seq}",
        overrides=(),
        proposers=listed,
        version=__version__,
        records=known,
        entries=(),
        horizon=opened.closed(),
        status="open",
        started_at=known[0].at,
        interactions=exchanges,
        recorded=len(exchanges) - exchanges.synthetic,
        synthetic=exchanges.synthetic,
        shadows=Asides(opened),
        aside=[name for (name,) in opened.rows("shadow_proposers")],
        url=opened.url,
        head=(head.digest.hex(), head.seq, opened.rows("last_entry")[0][0]),
        listed=listed,
        progress=progress,
    )


@dataclass(frozen=True, kw_only=True)
class GridRun(Run):
    """A grid as a run: `records` are only those that say who and what there is, and `entries` are none.

    Attributes:
        head: digest and seq of the last record, and the id of the last entry.
        listed: what `proposers` is as well; they are only known when the last record has passed.
        aside: names of the shadows.
    """

    url: str
    head: tuple[str, int, int]
    listed: list[dict[str, Any]] = field(default_factory=list)
    progress: Progress | None = None
    aside: Sequence[str] = ()

    @property
    def head_digest(self) -> str:
        """64 hex: the digest of the last journal record."""
        return self.head[0]

    @property
    def size(self) -> tuple[int, int]:
        """How many records and entries it has."""
        return self.head[1:]

    def slices(self, builder: Builder) -> Iterator[Slice]:
        """The rows of journal and ledger as they are stored, and what follows from them."""
        with _session(self.url, self.scenario, self.size) as stream:
            yield from self._moved(builder, stream("stream_ledger"))
            yield from self._said(builder, stream("stream_journal"))

    def _moved(self, builder: Builder, batches: Batches) -> Iterator[Slice]:
        """The ledger, and the balances that follow from it."""
        codes = _Codes(builder, self._name)
        count, closed, last = 0, self.horizon, self.size[1]
        for batch in batches:
            rows = pa.table(batch)
            ledger = codes.columns(rows)
            count += rows.num_rows
            yield from builder.move(ledger, closed if count == last else min(int(ledger.epoch[-1]) - 1, closed))
            yield "ledger", _ledger(rows, ledger, builder)
            self._tell(count)
        if count != last:
            raise Damaged(f"{self._name}: ledger has {count} rows up to id {last}; {_ADVICE}")
        if not count:
            yield from builder.move(codes.none(), closed)

    def _said(self, builder: Builder, batches: Batches) -> Iterator[Slice]:
        """The journal, and the flows and proposals in it."""
        mandates: dict[str, Sequence[str] | None] = {}
        for record in self.records:
            if type(record.payload) is Registration:
                mandates.update(record.payload.mandates)
        listed: dict[str, None] = {}
        count = 0
        for rows, records in _checked(batches, self._name):
            for record in records:
                if type(record.payload) is Decision:
                    listed[record.payload.proposer] = None
            yield "journal", _journal(rows)
            yield from builder.say(records)
            count += len(records)
            self._tell(self.size[1] + count)
        if count != self.size[0]:
            raise Damaged(f"{self._name}: journal has {count} records up to record {self.size[0]}; {_ADVICE}")
        roles = {**dict.fromkeys(listed, "active"), **dict.fromkeys(self.aside, "shadow")}
        for name, role in roles.items():
            mandate = mandates.get(name.removesuffix(SHADOW) if role == "shadow" else name)
            self.listed.append({"name": name, "kind": "client", "role": role, "mandate": mandate})

    @property
    def _name(self) -> str:
        return f"postgres:{self.scenario}"

    def _tell(self, count: int) -> None:
        if self.progress is not None:
            self.progress(count, sum(self.size))


# --- rows that pass in columns ----------------------------------------------------------------------------------------


@contextmanager
def _session(url: str, grid: str, size: tuple[int, int]) -> Iterator[Callable[[str], Batches]]:
    """What gives the rows of a query by its name, up to so many records and entries, one query after the other."""
    name = f"postgres:{grid}"
    with _told(name), closing(dbapi.connect(url, autocommit=True)) as session, closing(session.cursor()) as cursor:
        cursor.execute(query("stream_session"), (READ, grid, *map(str, size)))
        cursor.fetchall()
        cursor.adbc_statement.set_options(**{StatementOptions.BATCH_SIZE_HINT_BYTES.value: str(BATCH)})

        def stream(name: str) -> Batches:
            cursor.execute(query(name))
            return (batch for batch in cursor.fetch_record_batch() if batch.num_rows)

        yield stream


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Turns what the driver raises into an error of ours."""
    try:
        yield
    except (Error, OSError, pa.ArrowException) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if isinstance(error, OperationalError | OSError):
            raise Unreachable(f"{name}: the database gave no answer ({said}); try again") from None
        raise GridgovError(f"{name}: the database refuses to be read ({said})") from None


class _Codes:
    """The places of actors and resources in an export, for the rows of a ledger."""

    def __init__(self, builder: Builder, name: str) -> None:
        self._name = name
        self._actors = [actor.id for actor in builder.names.actors]
        self._resources = [resource.name for resource in builder.names.resources]
        self._ids = arrow.texts(map(uuid5, self._actors))
        in_order = sorted(self._resources)
        self._place = np.array([self._resources.index(name) for name in in_order], np.int64)

    def columns(self, rows: pa.Table) -> Columns:
        """Rows of `stream_ledger` in codes and minor units. Raises Damaged where one is no entry."""
        giver, taker = (pc.index_in(rows[name], value_set=self._ids) for name in ("actor_from", "actor_to"))
        for column in (giver, taker, rows["place"], rows["minor"]):
            if column.null_count:
                id_ = rows["id"].filter(column.is_null())[0].as_py()
                raise Damaged(f"{self._name}: row {id_} of ledger is no ledger entry; {_ADVICE}")
        place = self._place[rows["place"].to_numpy() - 1]
        values = (giver, taker, place, rows["minor"], rows["epoch"])
        return Columns(
            tuple(self._actors), tuple(self._resources), *(np.asarray(value).astype(np.int64) for value in values)
        )

    def none(self) -> Columns:
        """No entry."""
        return Columns(tuple(self._actors), tuple(self._resources), *(np.zeros(0, np.int64) for _ in range(5)))


def _ledger(rows: pa.Table, ledger: Columns, builder: Builder) -> pa.Table:
    """Rows of `stream_ledger` as those of an export."""
    return pa.table(
        {
            **{name: rows[name] for name in ("id", "proposal_id", "metadata", "epoch", "kind", "seq")},
            "actor_from": arrow.coded(ledger.actor_from, ledger.actors),
            "actor_to": arrow.coded(ledger.actor_to, ledger.actors),
            "resource": arrow.coded(ledger.resource, ledger.resources),
            "amount": decimals(ledger.amount, builder.names.factor[ledger.resource]),
            "executed_at": rows["executed_at"].cast(pa.timestamp("us")),
        }
    )


def _checked(batches: Batches, name: str) -> Iterator[tuple[pa.RecordBatch, list[JournalRecord]]]:
    """Rows of `stream_journal` with their records, whose chain goes on from one batch to the next. Raises Damaged."""
    passing: list[pa.RecordBatch] = []

    def lines() -> Iterator[tuple[str, bytes]]:
        for batch in batches:
            passing[:] = [batch]
            yield from zip(batch["body"].to_pylist(), map(bytes.fromhex, batch["digest"].to_pylist()), strict=True)

    records: list[JournalRecord] = []
    try:
        for record in chain(lines()):
            records.append(record)
            if len(records) == passing[0].num_rows:
                yield passing[0], records
                records = []
    except Damaged as error:
        raise Damaged(f"{name}: {error}") from None


def _journal(rows: pa.RecordBatch) -> pa.Table:
    """Rows of `stream_journal` as those of an export."""
    found = {key: rows[key] for key in ("seq", "epoch", "kind", "body", "digest")}
    return pa.table({**found, "recorded_at": rows["at"].cast(pa.timestamp("us"))})
