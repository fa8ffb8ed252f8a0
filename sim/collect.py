"""Many runs in one DuckDB file: the one writer that loads the parts of a sweep, and files that are there already.

The file has the tables and views of an export, so every command reads a run of it as PATH#RUN_ID. It appears under its
name when it is complete, or never.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Self

import duckdb
import pyarrow as pa

from gridgov import export
from gridgov.errors import BadInput, Damaged, GridgovError
from gridgov.export import attach, do, first_line, query
from gridgov.source import reading
from gridgov.tables import FORM
from sim.parts import COMPLETE, FAILED, runs_of


class Ended(NamedTuple):
    """How a stored run ended; `head` is None for one that failed."""

    run_id: str
    head: str | None
    status: str


def sweep_id(runs: Collection[str]) -> str:
    """16 hex that name a file of these runs."""
    return sha256("\n".join(sorted(runs)).encode()).hexdigest()[:16]


def ended(path: Path) -> list[Ended]:
    """How the runs of a file ended. Raises BadInput or Damaged where it is no export of this form."""
    with reading(path), duckdb.connect(str(path), read_only=True) as connection:
        [(name,)] = do(connection, "SELECT current_database()")
        if ("runs",) not in do(connection, query("table_names"), {"database": name}):
            raise BadInput(f"{path}: is a DuckDB file, but no export of gridgov; it has no table runs")
        rows = do(connection, query("ended", database=f'"{name}"'))
    if any(form != FORM for *_, form in rows):
        raise BadInput(f"{path}: was written by another version of gridgov; run it again with this one")
    return [Ended(*row[:3]) for row in rows]


def known(folder: Path) -> dict[str, Path]:
    """The complete runs that a folder has already, each with a file of it; what cannot be read is left out."""
    found = {}
    for path in sorted(folder.glob("*.duckdb")):
        try:
            found.update({one.run_id: path for one in ended(path) if one.status == COMPLETE})
        except GridgovError:
            continue
    return found


class Gathering:
    """A file of many runs on its way, in the scratch folder of a store; the parts come in any order."""

    def __init__(self, store: export.Store) -> None:
        self.store = store
        self.path = store.scratch / "collected.duckdb"
        self.runs: dict[str, str] = {}

    def __enter__(self) -> Self:
        self.path.write_bytes(export.blank())
        attach(self._connection, self.path, "x")
        self._tables = [name for (name,) in do(self._connection, query("table_names"), {"database": "x"})]
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # what is still loading is for nothing
            self._connection.interrupt()
            self.store.worker.submit(self._drop).result()
        if do(self._connection, query("attached"), {"database": "x"}):
            do(self._connection, "DETACH x")
        self.path.unlink(missing_ok=True)

    def _drop(self) -> None:
        with suppress(duckdb.Error):  # nothing to undo
            do(self._connection, "ROLLBACK")

    @property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        return self.store.connection

    def parts(self, wanted: Mapping[Path, Sequence[str]]) -> None:
        """Takes these runs of parts, by folder, those left out that are here already. Raises Damaged."""
        new = {folder: self._new(runs) for folder, runs in wanted.items()}
        folders = [folder for folder, runs in new.items() if runs]
        chosen = [run for runs in new.values() for run in runs]
        if not folders:
            return
        whole = all(runs_of(folder).keys() == set(new[folder]) for folder in folders)
        name, values = ("load_whole_parts", {}) if whole else ("load_parts", {"runs": chosen})
        with reading(folders[0].parent):
            do(self._connection, "BEGIN")
            for table in self._tables:
                files = [str(file) for folder in folders if (file := folder / f"{table}.parquet").exists()]
                if files:
                    do(self._connection, query(name, table=table), {"files": files, **values})
            do(self._connection, "COMMIT")

    def file(self, path: Path, runs: Sequence[str]) -> None:
        """Takes these runs of another file, those left out that are here already. Raises Damaged."""
        wanted = self._new(runs)
        if not wanted:
            return
        with reading(path):
            attach(self._connection, path, "other", "READ_ONLY")
            try:
                for table in self._tables:
                    sql = query("load_file", table=table, database="other")
                    do(self._connection, sql, {"runs": wanted})
            finally:
                do(self._connection, "DETACH other")

    def _new(self, runs: Sequence[str]) -> list[str]:
        wanted = [run for run in runs if run not in self.runs]
        self.runs.update(dict.fromkeys(wanted, COMPLETE))
        return wanted

    def failed(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Takes the rows of `runs` of what failed."""
        rows = [row for row in rows if row["run_id"] not in self.runs]
        if rows:
            self.runs.update({row["run_id"]: FAILED for row in rows})
            values = [{**row, "seed": None if row["seed"] is None else str(row["seed"])} for row in rows]
            self._connection.register("batch", pa.Table.from_pylist(values))
            do(self._connection, query("load_failed"))
            self._connection.unregister("batch")

    def finish(self, path: Path) -> Path:
        """Publishes the file under a name, in place of what has it; returns the name."""
        try:
            do(self._connection, "DETACH x")
            with self.path.open("r+b") as file:
                os.fsync(file.fileno())
            self.path.replace(path)
        except duckdb.Error as error:
            raise Damaged(f"{path}: cannot be written ({first_line(error)}); make room, or choose --out") from None
        return path


def merge(files: Sequence[Path], out: Path) -> dict[str, str]:
    """Writes the runs of several files into one and returns how each ended, by run.

    A run that is in several files is taken once; one that failed, only where none has it complete. Raises BadInput
    where two files have different heads for one run: they are not the same code, or one is not what it was.
    """
    if any(path.resolve() == out.resolve() for path in files):
        raise BadInput(f"--out {out}: is one of the files to merge; name another")
    chosen: dict[str, tuple[Ended, Path]] = {}
    for path in files:
        for one in ended(path):
            before = chosen.get(one.run_id)
            if before is None or (before[0].status != COMPLETE and one.status == COMPLETE):
                chosen[one.run_id] = one, path
            elif one.status == COMPLETE and one.head != before[0].head:
                raise BadInput(
                    f"{path}: run {one.run_id} ends with {str(one.head)[:16]}..., and in {before[1]} with "
                    f"{str(before[0].head)[:16]}...; verify both, and leave one out"
                )
    with export.Store(out.parent) as store, Gathering(store) as made:
        for path in files:
            made.file(path, [run for run, (_, where) in chosen.items() if where == path])
        made.finish(out)
    return {run: one.status for run, (one, _) in chosen.items()}
