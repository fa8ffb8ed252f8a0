"""A finished run becomes one immutable DuckDB file, with its metrics as views; nothing is decided or folded here.

The tables and their columns are in `sql/export_schema.sql`, the metrics in `sql/export_views.sql`. `tables` derives the
rows, `Store` writes them under another name and renames the file when it is complete.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Self

import duckdb
import pyarrow as pa

from gridgov import arrow
from gridgov.amounts import json_number
from gridgov.errors import BadInput, Damaged
from gridgov.journal import JournalRecord
from gridgov.tables import (
    FORM,
    INTERACTION,
    Builder,
    Commons,
    Run,
    Slice,
    as_ints,
    decimals,
    exact_decimals,
    names_of,
    tables,
)

__all__ = [  # what `tables` derives may be asked for here, too
    "FORM", "INTERACTION", "SEALED", "SHADOWED", "Builder", "Commons", "Metrics", "Number", "Run", "Seal", "Seals",
    "Slice", "Store", "Writer", "as_ints", "attach", "blank", "complete", "decimals", "do", "exact_decimals", "export",
    "first_line", "is_locked", "metrics", "names_of", "query", "seals", "tables", "write_journal", "write_texts",
]  # fmt: skip

SQL = Path(__file__).parent / "sql"

_COMMITTED = 1 << 20
"""Rows after which what was stored is committed: it takes memory until then, and nobody sees the file in any case."""

_LAYOUT = "ROW_GROUP_SIZE 8192, BLOCK_SIZE 131072"
"""Small row groups are packed while later rows are built, and left unread by who asks for one epoch."""

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

    def rows(self) -> pa.Table:
        """The rows of the table `seals`."""
        on, column, count, digest = zip(*self, strict=True)
        named = {"table_name": arrow.texts(on), "column_name": arrow.texts(column)}
        return arrow.table({**named, "row_count": arrow.ints(count), "digest": arrow.texts(digest)})


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
    """One run on its way into its file: the store's worker stores rows in a scratch file while later ones are built."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.path = store.scratch / "unfinished.duckdb"
        self._pending = deque([store.worker.submit(self._begin)])
        self._seals = Seals()
        self._uncommitted = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Undoes what was not finished."""
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
        for table, rows in self._sealed(run):
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

    def _sealed(self, run: Run) -> Iterator[Slice]:
        """All rows of a run; what no record implies is sealed on its way."""
        builder = Builder(names_of(run.records))
        yield from run.slices(builder)
        yield from builder.finish()
        for table, rows in builder.shadows(run):
            self._seal(table, rows, rows.column_names)
            yield table, rows
        for table, rows in builder.few(run):
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
        _insert(self.store.connection, run_id, "seals", self._seals.rows())
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
            number = json_number(exact)
        if resource is None:
            found[name] = number
        else:
            of = found.setdefault(name, {})
            assert isinstance(of, dict)
            of[resource] = number
    return found
