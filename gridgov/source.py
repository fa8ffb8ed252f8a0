"""Where a history comes from: an export, a run of the store, a journal or a ledger in a file, a grid."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import duckdb
from pyarrow.types import is_dictionary, is_string

from gridgov.amounts import SCALE_MAX
from gridgov.errors import BadInput, Damaged, GridgovError
from gridgov.export import SQL, Metrics, do, first_line, is_locked, metrics, query, seals
from gridgov.foreign import journal
from gridgov.journal import JournalRecord
from gridgov.model import Kind, LedgerEntry, WorldState
from gridgov.replay import chain, follow, replay
from gridgov.state import State
from gridgov.tables import FORM

if TYPE_CHECKING:
    from gridgov.grid import Grid

_FETCH = 4096
_SHOWN = 8
_START = 4
"""The fewest first characters that stand for a run id."""


class Source:
    """A history: a journal, and whatever else was kept with it. To be closed, or used as a context manager.

    Attributes:
        path: the file.
        connection: the open export; None for a journal in a file.
        info: the row of `runs`, by column; empty for a journal, which says nothing of its run.
    """

    def __init__(self, path: Path, connection: duckdb.DuckDBPyConnection | None, info: dict[str, Any]) -> None:
        self.path = path
        self.connection = connection
        self.info = info

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file."""
        if self.connection is not None:
            self.connection.close()

    @property
    def run_id(self) -> str | None:
        """The run, or None for a journal."""
        return self.info.get("run_id")

    def rows(self, name: str, identifiers: Mapping[str, str] | None = None, **values: Any) -> Iterator[tuple[Any, ...]]:
        """Rows of a query by its name, see `export.query`; none for a journal. Raises Damaged."""
        if self.connection is not None:
            with reading(self.path):
                yield from _fetched(self._asked(name, identifiers or {}, values))

    def each(self, asked: Iterable[tuple[str, str]]) -> list[tuple[Any, ...]]:
        """Rows of queries of the same columns, each by its name and its table, at once."""
        assert self.connection is not None, "only an export has tables"
        sql = " UNION ALL ".join(query(name, table=table) for name, table in asked)
        with reading(self.path):
            return do(self.connection.cursor(), sql, {"run": self.run_id} if "$run" in sql else None)

    def named(self, name: str, **values: Any) -> Iterator[dict[str, Any]]:
        """Rows of a query, each by column; see `rows`."""
        if self.connection is not None:
            with reading(self.path):
                cursor = self._asked(name, {}, values)
                keys = [column[0] for column in cursor.description or ()]
                for row in _fetched(cursor):
                    yield dict(zip(keys, row, strict=True))

    def _asked(self, name: str, identifiers: Mapping[str, str], values: Mapping[str, Any]) -> duckdb.DuckDBPyConnection:
        assert self.connection is not None, "only an export is asked"
        sql = query(name, **identifiers)
        run = {"run": self.run_id} if "$run" in sql else {}
        return self.connection.cursor().execute(sql, {**run, **values})

    def lines(self) -> Iterator[tuple[str, bytes]]:
        """Bodies and digests in their order, unchecked. Raises Damaged where a line has another form."""
        if self.connection is None:
            yield from _lines(self.path)
            return
        for number, (body, digest) in enumerate(self.rows("journal"), start=1):
            yield _line(body, digest, f"{self.path}: journal record {number}")

    def records(self) -> Iterator[JournalRecord]:
        """The records, each checked against the one before, and the last against the run's head. Raises Damaged."""
        record = None
        try:
            for record in chain(self.lines()):
                yield record
        except Damaged as error:
            raise error if str(self.path) in str(error) else Damaged(f"{self.path}: {error}") from None
        head = self.info.get("head_digest")
        if record is None:
            raise Damaged(f"{self.path}: the journal has no record")
        if head is not None and record.digest.hex() != head:
            raise Damaged(f"{self.path}: the journal ends with record {record.seq}, which is not runs.head_digest")

    def world_states(self) -> Iterator[WorldState]:
        """The WorldState at the close of every epoch, from 0."""
        state = State()
        for record in self.records():
            follow(state, record)
            if record.kind == "genesis" or record.kind == "close":
                yield state.world_state(record.epoch)

    def world_state(self, epoch: int | None = None, entry: int | None = None) -> WorldState:
        """The WorldState at the end, at the close of an epoch, or after the record that made a ledger entry.

        Raises BadInput where the history never comes to that epoch or entry. Complexity: O(records).
        """
        try:
            return replay(self.records(), epoch=epoch, entry=entry).world_state(epoch)
        except KeyError:
            last = replay(self.records())
        asked = f"epoch {epoch}" if epoch is not None else f"entry {entry}"
        raise BadInput(
            f"{self.path} has no {asked}: it has epochs 0 to {last.epoch - 1} and entries 1 to {last.entries}"
        )

    def entries(self) -> list[LedgerEntry] | None:
        """The ledger as it was stored; None for a journal, which has none. Raises Damaged where a row is no entry."""
        if self.connection is None:
            return None
        found = []
        for place, row in enumerate(self.rows("ledger"), start=1):
            id_, proposal_id, giver, taker, resource, millionths, scale, at, seq, epoch, kind = row
            try:
                amount, rest = divmod(millionths, 10 ** (SCALE_MAX - scale))
                entry = LedgerEntry(id_, proposal_id, giver, taker, resource, amount, at, seq, epoch, Kind(kind))
            except (TypeError, ValueError):
                rest = 1
            if rest or None in entry[2:]:
                raise Damaged(f"{self.path}: row {place} of ledger (id {id_}) is no ledger entry")
            found.append(entry)
        return found

    def files(self) -> dict[str, bytes]:
        """The files that the run was made from, by name. Raises Damaged where one is not what it was."""
        found = {}
        for name, digest, content in self.rows("files"):
            if content is None or sha256(content).hexdigest() != digest:
                raise Damaged(f"{self.path}: the file {name} in it is not what it was")
            found[name] = content
        return found

    def difference(
        self, table: str, rows: Any, names: Sequence[str], offset: int
    ) -> tuple[dict[str, Any], dict[str, Any] | None] | None:
        """The first of some rows that is not stored as it should be, from an offset on, and what is stored instead.

        `rows` is an Arrow table, of which the columns `names` are compared. None where all are alike.
        """
        assert self.connection is not None, "only an export has tables"
        right = rows.select(names)
        texts = [is_string(kind) or is_dictionary(kind) for kind in right.schema.types]
        columns = ", ".join(f"CAST({n} AS VARCHAR) AS {n}" if text else n for n, text in zip(names, texts, strict=True))
        sql = query("stored", columns=columns, table=table, count=str(rows.num_rows), offset=str(offset))
        with reading(self.path):
            stored = self.connection.sql(sql, params={"run": self.run_id}).to_arrow_table()
        right = right.cast(stored.schema)
        if right.equals(stored):
            return None
        good, bad = 0, right.num_rows
        while bad - good > 1:  # the first good rows are alike, the first bad are not
            middle = (good + bad) // 2
            alike = right.slice(0, middle).equals(stored.slice(0, middle))
            good, bad = (middle, bad) if alike else (good, middle)
        [one] = right.slice(good, 1).to_pylist()
        other = stored.slice(good, 1).to_pylist()
        return one, other[0] if other else None

    def views(self) -> dict[str, str]:
        """The SQL of each view of an export, by name, as the database writes it."""
        assert self.connection is not None, "only an export has views"
        with reading(self.path):
            return _views(self.connection)

    def sealed(self) -> dict[tuple[str, str], list[Any]]:
        """By table and column, count and digest of what no record implies, as it is now; see `export.seals`."""
        assert self.connection is not None, "only an export is sealed"
        with reading(self.path):
            return {(table, column): rest for table, column, *rest in seals(self.connection, self.info["run_id"])}

    def metrics(self) -> Metrics:
        """The metrics of the run, see `export.metrics`; none for a journal."""
        if self.connection is None:
            return {}
        with reading(self.path):
            return metrics(self.connection.cursor(), self.run_id)


class GridSource(Source):
    """A grid in Postgres, as it was when it was opened.

    What the journal does not say of a run (`info`, tables, files, metrics), a grid does not have: `export_grid` makes
    an export of it, which does.
    """

    def __init__(self, grid: Grid) -> None:
        super().__init__(Path(grid.name), None, {})
        self.grid = grid

    def close(self) -> None:
        """Lets go of the database."""
        self.grid.close()

    def lines(self) -> Iterator[tuple[str, bytes]]:
        """Bodies and digests in their order, unchecked."""
        return self.grid.lines()

    def world_state(self, epoch: int | None = None, entry: int | None = None) -> WorldState:
        """As that of any source; now, and at the close of an epoch, it is had without the journal, as of now."""
        from gridgov.postgres import Reader

        if self.grid.head() is None:
            raise BadInput(f"{self.path}: has no genesis, nothing was recorded yet")
        if entry is not None:
            return super().world_state(epoch, entry)
        reader = Reader(self.grid.url, self.grid.grid, size=1)
        try:
            return reader.world_state(epoch)
        finally:
            reader.close()

    def entries(self) -> list[LedgerEntry]:
        """The ledger as it is stored. Raises Damaged where a row is no entry."""
        return self.grid.entries()

    def named(self, name: str, **values: Any) -> Iterator[dict[str, Any]]:
        """Rows of a query, each by column; a grid knows interactions and shadows, of what is asked of an export."""
        from gridgov.grid import exported

        table = {"shadow": "proposals", "shadow_transfers": "transfers"}.get(name)
        if table is not None:
            yield from self.grid.shadow(values["proposal"]).get(table, ())
        row = self.grid.exchange(values["proposal"]) if name == "interaction" else None
        if row is not None:
            found = exported(row)
            yield {**found, "called_at": found.pop("at")}


class LedgerSource(Source):
    """The ledger of somebody else in a CSV file; see `foreign`.

    Attributes:
        note: what had to be assumed of it; "" where nothing was.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, None, {})
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                found = journal(file, str(path))
        except UnicodeDecodeError:
            raise BadInput(f"{path}: is not UTF-8; expected a ledger as CSV") from None
        except OSError as error:
            raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
        self.note = found.note
        self._records = found.records

    def lines(self) -> Iterator[tuple[str, bytes]]:
        """Bodies and digests in their order."""
        return ((record.body, record.digest) for record in self._records)


@cache
def defined_views() -> dict[str, str]:
    """The SQL of each view that an export of this version has, by name, as the database writes it."""
    with duckdb.connect() as connection:
        for name in ("export_schema.sql", "export_views.sql"):
            for statement in connection.extract_statements((SQL / name).read_text("utf-8")):
                if statement.type is duckdb.StatementType.CREATE:  # the others are 200 comments
                    connection.execute(statement)
        return _views(connection)


def _views(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    (name,) = do(connection, "SELECT current_database()")[0]
    return dict(do(connection, query("views"), {"database": name}))


def _fetched(cursor: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while rows := cursor.fetchmany(_FETCH):
        yield from rows


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Says in one line what is wrong with a file that the database cannot read."""
    try:
        yield
    except duckdb.Error as error:
        if is_locked(error):
            raise BadInput(f"{path}: somebody is writing it; try again when that is done") from None
        raise Damaged(f"{path}: cannot be read, it is damaged or cut off ({first_line(error)})") from None


def write_parquet(source: Source, folder: Path) -> int:
    """Writes the tables of a run as NAME.parquet into a new folder, and returns how many; it appears whole, or never.

    Raises BadInput where the source is no export, or the folder is there already.
    """
    if source.connection is None:
        raise BadInput(f"{source.path}: only a .duckdb export, and `postgres`, has tables")
    if folder.exists():
        raise BadInput(f"{folder}: is there already; choose another folder")
    with reading(source.path):
        (name,) = do(source.connection, "SELECT current_database()")[0]
        tables = [table for (table,) in do(source.connection, query("table_names"), {"database": name})]
    try:
        part = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
    except OSError as error:
        raise BadInput(f"{folder}: cannot be written ({error.strerror})") from None
    try:
        for table in tables:
            with reading(source.path):
                sql = query("whole", table=table)
                rows = source.connection.sql(sql, params={"run": source.run_id})
                rows.write_parquet(str(part / f"{table}.parquet"))
        part.chmod(0o755)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return len(tables)


def open_source(text: str, runs: Path, database: tuple[str, str] | None = None) -> Source:
    """Opens a history: a file (export, journal, CSV ledger) or a run of the store by id; `PATH#RUN_ID` where are many.

    `postgres` is the grid of `database`, its address and the grid's name. Raises BadInput where there is none, Damaged
    where it is not what it was, Unreachable where the database gives no answer.
    """
    if text == "postgres":
        return _grid(database)
    path, run_id = Path(text), None
    if not path.is_file() and "#" in text:
        name, _, run_id = text.rpartition("#")
        path = Path(name)
    if not path.is_file():
        path = _stored(text if run_id is None else str(path), runs)
    if path.suffix == ".jsonl":
        return Source(path, None, {})
    if path.suffix == ".csv":
        return LedgerSource(path)
    if path.suffix != ".duckdb":
        raise BadInput(f"{path}: expected a .duckdb export, a .jsonl journal, a .csv ledger or the id of a run")
    return _export(path, run_id)


def _grid(database: tuple[str, str] | None) -> GridSource:
    if database is None:
        raise BadInput("postgres: no database is known; set GRIDGOV_DATABASE_URL, or start one with `gridgov up`")
    from gridgov.grid import Grid

    return GridSource(Grid(*database))


def stored(runs: Path) -> list[dict[str, Any]]:
    """The runs of a store, newest first: run_id, scenario, seed, proposers, head_digest and file, or its error.

    A file of many runs is one row: its name, scenario, file, and how many `runs` there are and `failed`.
    """
    found = []
    for path in sorted(runs.glob("*.duckdb"), key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            with open_source(str(path), runs) as source:
                row = {key: source.info[key] for key in ("run_id", "scenario", "seed", "proposers", "head_digest")}
        except GridgovError as error:
            row = _many(path) or {"run_id": path.stem, "error": str(error)}
        found.append({**row, "file": str(path)})
    return found


def _many(path: Path) -> dict[str, Any] | None:
    """What is said of a file of many runs; None where it is none."""
    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            [(scenario, runs, failed)] = do(connection, query("many_runs"))
    except duckdb.Error:
        return None
    return {"run_id": path.stem, "scenario": scenario, "runs": runs, "failed": failed} if runs > 1 else None


def _stored(text: str, runs: Path) -> Path:
    """The file of a run in the store, by its id."""
    path = runs / f"{text}.duckdb"
    if path.is_file():
        return path
    if Path(text).suffix in (".duckdb", ".jsonl", ".csv") or "/" in text:
        raise BadInput(f"{text}: there is no such file")
    known = sorted(runs.glob("*.duckdb"), key=lambda file: file.stat().st_mtime, reverse=True)
    near = [file for file in known if len(text) >= _START and file.stem.startswith(text)]
    if len(near) == 1:
        return near[0]
    if not known:
        raise BadInput(f"{text}: no such file, and no run in {runs}, which holds none; run a scenario first")
    listed = ", ".join(file.stem for file in known[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
    raise BadInput(f"{text}: no such file, and no run in {runs}, which holds {listed}")


def _export(path: Path, run_id: str | None) -> Source:
    """Opens an export and chooses its run."""
    with reading(path):
        connection = duckdb.connect(str(path), read_only=True)
        try:
            return Source(path, connection, _info(path, connection, run_id))
        except BaseException:
            connection.close()
            raise


def _info(path: Path, connection: duckdb.DuckDBPyConnection, run_id: str | None) -> dict[str, Any]:
    (name,) = do(connection, "SELECT current_database()")[0]
    if ("runs",) not in do(connection, query("table_names"), {"database": name}):
        raise BadInput(f"{path}: is a DuckDB file, but no export of gridgov; it has no table runs")
    rows = do(connection, query("runs"))
    keys = [column[0] for column in connection.description or ()]
    if not {"run_id", "form", "head_digest"} <= set(keys):
        raise BadInput(f"{path}: is a DuckDB file, but no export of gridgov; its table runs is another")
    found = {str(row[keys.index("run_id")]): dict(zip(keys, row, strict=True)) for row in rows}
    if run_id is None and len(found) > 1:
        listed = ", ".join(list(found)[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
        raise BadInput(f"{path}: holds {len(found)} runs; choose one as {path}#RUN_ID: {listed}")
    if run_id is None and not found:
        raise Damaged(f"{path}: holds no run; its table runs is empty")
    if run_id is not None and run_id not in found:
        raise BadInput(f"{path}: holds no run {run_id}, but {', '.join(list(found)[:_SHOWN]) or 'none'}")
    info = found[run_id] if run_id is not None else next(iter(found.values()))
    if info.get("form") != FORM:
        raise BadInput(
            f"{path}: was written in form {info.get('form')} by gridgov {info.get('version')}, and this version reads "
            f"form {FORM}; move it away and run it again, or read it with the version that wrote it"
        )
    return info


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """The lines of a journal in a file."""
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, text in enumerate(file, start=1):
                where = f"{path}: line {number}"
                if not text.endswith("\n"):
                    raise Damaged(f"{where} is cut off: it has no end")
                try:
                    found = json.loads(text)
                except (ValueError, RecursionError):
                    raise Damaged(f"{where} is no JSON") from None
                if not isinstance(found, dict) or set(found) != {"body", "digest"}:
                    raise Damaged(f'{where} is no journal record; expected {{"body": ..., "digest": ...}}')
                yield _line(found["body"], found["digest"], where)
    except UnicodeDecodeError:
        raise Damaged(f"{path}: is no journal; it is not UTF-8") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None


def _line(body: Any, digest: Any, where: str) -> tuple[str, bytes]:
    """A body and its digest, if that is what they are."""
    try:
        if isinstance(body, str) and len(digest) == 64:
            return body, bytes.fromhex(digest)
    except (TypeError, ValueError):
        pass
    raise Damaged(f"{where} has no body with a digest of 64 hex digits")
