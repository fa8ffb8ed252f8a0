"""Files of runs: found, opened read-only and asked; nothing is drawn here, and nothing is ever written.

A file that is complete never changes, so an answer is kept by the file's name, inode, size and time. Each version of a
file is attached to a database of its own in memory: one that is replaced at the same path is opened anew.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from gridgov.errors import BadInput, Damaged, GridgovError
from gridgov.source import reading
from gridgov.tables import FORM

SQL = Path(__file__).parent / "sql" / "runs.sql"

OPEN_MAX = 8
"""So many files are kept open."""

PAGE_ROWS = 100
"""Rows of a table that is paged."""

POINTS_MAX = 2_000
"""Points that a chart may have."""

START = 4
"""The fewest first characters that stand for a run id."""

Row = dict[str, Any]


class File(NamedTuple):
    """One version of a file: its path, and its inode, size in bytes and time of change in nanoseconds."""

    path: str
    stamp: tuple[int, int, int]

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.stamp[1]

    @property
    def changed_at(self) -> float:
        """When it was written, in seconds since 1970."""
        return self.stamp[2] / 1e9


class Ref(NamedTuple):
    """One run of one version of a file. `name` is what leads to it: in addresses, and as `run` of the pages."""

    file: File
    run_id: str
    name: str

    @property
    def source(self) -> str:
        """What the command line calls it."""
        return f"{self.file.path}#{self.run_id}"


def file_at(path: Path) -> File:
    """The file as it is now. Raises BadInput where there is none."""
    try:
        found = path.stat()
    except OSError as error:
        raise BadInput(f"{path.name}: there is no such file ({error.strerror}); it was moved or deleted") from None
    return File(str(path), (found.st_ino, found.st_size, found.st_mtime_ns))


# --- open files -------------------------------------------------------------------------------------------------------

_open: OrderedDict[File, duckdb.DuckDBPyConnection] = OrderedDict()
_lock = threading.Lock()


@cache
def _queries() -> dict[str, str]:
    _, *parts = SQL.read_text("utf-8").split("-- name: ")
    return {name: text.strip() for name, _, text in (part.partition("\n") for part in parts)}


def query(name: str, **filled: str | int) -> str:
    """The SQL of a query by its name, with identifiers and whole numbers filled in."""
    named = _queries()
    return named[name].format(**{key: text for key, text in named.items() if key.endswith("_where")}, **filled)


def _attached(file: File) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"temp_directory": tempfile.gettempdir()})
    try:
        quoted = file.path.replace("'", "''")
        with reading(Path(file.path)):
            connection.execute(f"ATTACH '{quoted}' AS x (READ_ONLY)")
        if file_at(Path(file.path)) != file:
            raise BadInput(f"{Path(file.path).name}: it was replaced just now; load the page again")
    except BaseException:
        connection.close()
        raise
    return connection


def _cursor(file: File) -> duckdb.DuckDBPyConnection:
    """A cursor of its own on a file: cursors may be used by several threads at once."""
    with _lock:
        connection = _open.pop(file, None)
        if connection is None:
            for other in [one for one in _open if one.path == file.path]:
                _open.pop(other).close()
            connection = _attached(file)
        _open[file] = connection
        while len(_open) > OPEN_MAX:
            _open.popitem(last=False)[1].close()
        found = connection.cursor()
    found.execute("USE x")
    return found


def rows(ref: Ref, name: str, *, fill: Mapping[str, str | int] | None = None, **values: Any) -> list[Row]:
    """Rows of a query by its name. Raises BadInput or Damaged where the file cannot be read."""
    sql, given = _filled(ref, name, fill, values)
    with reading(Path(ref.file.path)), closing(_cursor(ref.file)) as cursor:
        cursor.execute(sql, given)
        keys = [column[0] for column in cursor.description or ()]
        return [dict(zip(keys, row, strict=True)) for row in cursor.fetchall()]


def table(ref: Ref, name: str, *, fill: Mapping[str, str | int] | None = None, **values: Any) -> pa.Table:
    """The same in columns, for a chart."""
    sql, given = _filled(ref, name, fill, values)
    with reading(Path(ref.file.path)), closing(_cursor(ref.file)) as cursor:
        return cursor.sql(sql, params=given).to_arrow_table()


def _filled(
    ref: Ref, name: str, fill: Mapping[str, str | int] | None, values: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The SQL of a query, and of the values those that are in it."""
    sql = query(name, **(fill or {}))
    given = {"run": ref.run_id, **values}
    return sql, {key: value for key, value in given.items() if f"${key}" in sql}


# --- which runs there are ---------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """What a file holds: one run, many, or nothing that can be read.

    Attributes:
        runs: its runs in their order, see `described`; the failed ones too.
        error: why it cannot be read; "" where it can.
    """

    file: File
    name: str
    runs: tuple[Row, ...]
    error: str = ""

    @property
    def many(self) -> bool:
        """Whether it is a file of many runs."""
        return len(self.runs) > 1


def files(folder: Path) -> list[Path]:
    """The files of runs of a folder and of the folders in it, the newest first; those in the making are left out."""
    found = [*folder.glob("*.duckdb"), *folder.glob("[!.]*/*.duckdb")]
    times: dict[Path, float] = {}
    for path in found:
        try:
            times[path] = path.stat().st_mtime
        except OSError:  # deleted since it was seen
            continue
    return sorted(times, key=lambda path: (-times[path], str(path)))


def listing(folder: Path, most: int) -> tuple[list[Found], int]:
    """What there is, the newest first, and how many files are left: at most so many are read for the first time."""
    found: list[Found] = []
    left = 0
    for path in files(folder):
        try:
            file = file_at(path)
        except BadInput:
            continue
        name = str(path.relative_to(folder))
        if file not in _known:
            if most <= 0:
                left += 1
                continue
            most -= 1
            _known[file] = _read(file)
        runs, error = _known[file]
        found.append(Found(file, name, runs, error))
    return found, left


_known: dict[File, tuple[tuple[Row, ...], str]] = {}


def _read(file: File) -> tuple[tuple[Row, ...], str]:
    """The runs of a file, or why it cannot be read."""
    try:
        connection = _attached(file)
        try:
            with reading(Path(file.path)):
                connection.execute("USE x")
                return tuple(_described(connection)), ""
        finally:
            connection.close()
    except GridgovError as error:
        return (), str(error)


def _described(connection: duckdb.DuckDBPyConnection) -> Iterator[Row]:
    """Each run with its outcomes and what was served: `counts`, `served` (share), `needed` (resource), `regret`."""
    named: dict[str, list[Row]] = {}
    for name in ("described", "counted", "served"):
        cursor = connection.execute(query(name))
        keys = [column[0] for column in cursor.description or ()]
        named[name] = [dict(zip(keys, row, strict=True)) for row in cursor.fetchall()]
    counts: dict[str, Counter[str]] = {}
    for row in named["counted"]:
        counts.setdefault(row["run_id"], Counter())[row["outcome"]] = row["count"]
    served = {row["run_id"]: row for row in named["served"]}
    for row in named["described"]:
        own = served.get(row["run_id"], {})
        yield {
            **row,
            "who": who(row["proposers"]),
            "counts": dict(counts.get(row["run_id"], {})),
            "needed": own.get("resource"),
            "served": own.get("share"),
            "regret": own.get("regret"),
        }


def accepted(counts: Mapping[str, int]) -> float | None:
    """The share of decisions that were executed, as the metric acceptance_rate; None where nothing was decided."""
    decided = sum(counts.get(name, 0) for name in ("executed", "rejected", "held", "malformed"))
    return counts.get("executed", 0) / decided if decided else None


def who(proposers: str | None) -> str:
    """Proposers in short: `planner (greedy), careful (gemini, shadow)`; one for each actor is `5 fisher (take)`."""
    counted: Counter[tuple[str, str]] = Counter()
    for one in json.loads(proposers or "[]"):
        by = str(one.get("policy") or one.get("kind") or "")
        name = str(one.get("name", "?")).partition("/")[0]
        counted[name, (by or name) + (", shadow" if one.get("role") == "shadow" else "")] += 1
    parts = []
    for (name, by), count in counted.items():
        many = f"{count:,} " if count > 1 else ""
        parts.append(f"{many}{name} ({by})" if by != name else f"{many}{name}")
    return ", ".join(parts[:3]) + (f" and {len(parts) - 3} more" if len(parts) > 3 else "")


# --- one run by its name ----------------------------------------------------------------------------------------------


def named(found: Found, run_id: str) -> str:
    """What leads to a run: its id, where its file is named after it; else the file, and the run in it."""
    if found.name == f"{run_id}.duckdb":
        return run_id
    return f"{found.name}/{run_id}" if found.many else found.name


def locate(folder: Path, name: str) -> Ref:
    """The run that a name leads to: an id or its first characters, a file of one run, or a file and a run in it.

    Only what is in the folder is ever opened. Raises BadInput or Damaged.
    """
    before, ending, rest = name.partition(".duckdb")
    if ending:
        return _chosen(opened(folder, before + ending), rest.strip("/"))
    if "/" not in name:
        for path in (folder / f"{name}.duckdb", *folder.glob(f"[!.]*/{_plain(name)}.duckdb")):
            if path.is_file():
                return _chosen(opened(folder, str(path.relative_to(folder))), "")
    return _searched(folder, name)


def _plain(name: str) -> str:
    """A name without what a pattern would read as more than itself."""
    return "".join(sign for sign in name if sign.isalnum() or sign in "-_ ")


def opened(folder: Path, name: str) -> Found:
    """The file of this name in a folder. Raises BadInput where it is none of these, Damaged where it is not whole."""
    path = folder / name
    if path.suffix != ".duckdb" or not path.resolve().is_relative_to(folder.resolve()):
        raise BadInput(f"{name}: only files of runs in {folder} are shown")
    file = file_at(path)
    if file not in _known:
        _known[file] = _read(file)
    runs, error = _known[file]
    if error:
        raise Damaged(error)
    if not runs:
        raise BadInput(f"{name}: holds no run")
    return Found(file, name, runs)


def _chosen(found: Found, run_id: str) -> Ref:
    ids = [row["run_id"] for row in found.runs]
    if not run_id and found.many:
        raise BadInput(f"{found.name}: holds {len(ids)} runs; choose one of them on the page Sweeps")
    if run_id and run_id not in ids:
        raise BadInput(f"{found.name}: holds no run {run_id}")
    chosen = run_id or ids[0]
    return Ref(found.file, chosen, named(found, chosen))


def _searched(folder: Path, name: str) -> Ref:
    """By the first characters of a file's name, else of a run in any file."""
    if len(name) < START:
        raise BadInput(f"{name}: a run is named by its id, of which the first {START} characters are enough")
    listed, _ = listing(folder, 1_000_000)
    pairs = [(found, row["run_id"]) for found in listed for row in found.runs if row["run_id"].startswith(name)]
    whole = {run_id for _, run_id in pairs}
    if len(whole) > 1:
        raise BadInput(f"{name}: {len(whole)} runs begin so; give more of the id")
    if not pairs:
        raise BadInput(f"{name}: there is no such run in {folder}; the page Runs lists those that there are")
    found, run_id = min(pairs, key=lambda pair: (pair[0].many, pair[0].name))
    return Ref(found.file, run_id, named(found, run_id))


# --- what is asked of every run ---------------------------------------------------------------------------------------


class About(NamedTuple):
    """What a run says of itself: the row of `runs`, its resources and its actors, the boundary included."""

    info: Row
    units: dict[str, str]
    scales: dict[str, int]
    actors: tuple[str, ...]

    @property
    def epochs(self) -> int:
        """Epochs that were closed."""
        return int(self.info["epochs"] or 0)

    @property
    def people(self) -> list[str]:
        """The actors but the boundary."""
        return [actor for actor in self.actors if actor != "grid"]


@lru_cache(maxsize=256)
def about(ref: Ref) -> About:
    """What a run says of itself. Raises BadInput where it failed, or is of another form."""
    [info] = rows(ref, "info")
    if info.get("form") != FORM and info.get("status") != "failed":
        raise BadInput(
            f"{ref.name}: was written in form {info.get('form')} by gridgov {info.get('version')}, and this version "
            f"reads form {FORM}; run it again, or read it with the version that wrote it"
        )
    resources = rows(ref, "resources")
    return About(
        info,
        {row["resource"]: row["unit"] for row in resources},
        {row["resource"]: row["scale"] for row in resources},
        tuple(row["actor"] for row in rows(ref, "actors")),
    )


@lru_cache(maxsize=512)
def kept(ref: Ref, name: str, fill: tuple[tuple[str, str | int], ...] = (), *values: tuple[str, Any]) -> list[Row]:
    """As `rows`, kept: for what is asked again and again. Lists among the values are tuples."""
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in values}
    return rows(ref, name, fill=dict(fill), **plain)


@lru_cache(maxsize=256)
def kept_table(ref: Ref, name: str, fill: tuple[tuple[str, str | int], ...] = (), *values: tuple[str, Any]) -> pa.Table:
    """As `table`, kept."""
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in values}
    return table(ref, name, fill=dict(fill), **plain)


def step(epochs: int, lines: int = 1) -> int:
    """Every how many epochs there is a point, so that so many lines have no more than `POINTS_MAX` together."""
    return epochs // (POINTS_MAX // lines - 1) + 1
