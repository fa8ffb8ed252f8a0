"""The grid in Postgres: migrations, one total order, group commit, reads at any size; nothing is decided here.

The only module that knows the driver. All SQL is in `sql/postgres`: numbered migrations, and queries by name.

A batch is one transaction: take the grid's advisory lock, read the head of the journal, fold what others wrote since,
run what was asked for in memory, COPY its rows, COMMIT, and only then answer. So there is one order, whoever writes.
"""

from __future__ import annotations

import hashlib
import logging
import re
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, lru_cache, partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult

from gridgov.amounts import plain
from gridgov.engine import Engine
from gridgov.errors import BadInput, Damaged, GridgovError
from gridgov.journal import (
    NOT_A_RECORD,
    START,
    Close,
    Decision,
    Genesis,
    JournalRecord,
    Payload,
    Registration,
    answers,
    by_request,
    decode,
    digest,
    encode,
)
from gridgov.ledger import metadata
from gridgov.model import BOUNDARY, Kind, LedgerEntry, Resource, Seen, WorldState, uuid5
from gridgov.prompt import exact_json
from gridgov.replay import Columns, chain, fold
from gridgov.state import State
from gridgov.wire import Json, timestamp, world_state_json

APP = "gridgov_app"
"""The role that writes: it may add to the journal and the ledger, and change nothing there."""

READ = "gridgov_read"
"""The role that reads."""

BATCH = 512
"""Most commands that share a commit."""

RECENT = 10_000
"""So many decisions are kept at hand: who asks again mostly does so soon."""

RUSH_MS = 1
"""In a rush, how long the writer waits for the server before it looks for commands."""

SHARED_S = 5.0
"""After somebody else wrote, how long the writer runs nothing ahead of the lock."""

PATIENCE_S = 10.0
"""How long a command waits for a database that went away."""

CLOSE_S = 30.0
"""How long the writer may take to finish what it took on."""

CONNECT_S = 5
SILENT_MS = 15_000
"""A server that says nothing for so long is gone."""

READ_MS = 20_000
"""How long a question to the database may take where somebody waits for the answer."""

RETRY_S = 0.1
IDLE_MS = 10_000
"""The server ends a session that stops in mid-transaction for so long: it would hold the lock against all others."""

PAGE = 5_000
"""Rows that are fetched at once."""

SEARCHED = 1_000
"""So many records at most are looked through for the moment at which somebody looked."""

MISSED = 20_000
"""Above so many records that others wrote, the state is loaded anew instead of folded on."""

SQL = Path(__file__).parent / "sql" / "postgres"

Connection = psycopg.Connection[tuple[Any, ...]]
T = TypeVar("T")

_reports = logging.getLogger(__name__)
_GRID = re.compile(r"(?!pg_|information_schema$)[a-z][a-z0-9_-]{0,62}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Unreachable(GridgovError):
    """The database gave no answer; the message says whether what was asked for may have been recorded."""

    exit_code = 3


class Misplaced(BadInput):
    """The database is not as this version needs it: not migrated, without the roles, or without their rights."""


@cache
def _queries() -> dict[str, str]:
    _, *parts = (SQL / "queries.sql").read_text("utf-8").split("-- name: ")
    return {name: text.strip() for name, _, text in (part.partition("\n") for part in parts)}


def query(name: str) -> str:
    """The SQL of a query by its name."""
    return _queries()[name]


@cache
def migrations() -> dict[str, str]:
    """The migrations by name, in order."""
    return {path.stem: path.read_text("utf-8") for path in sorted(SQL.glob("[0-9]*.sql"))}


def _sha(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


# --- sessions and migrations ------------------------------------------------------------------------------------------


def connect(url: str, grid: str, role: str = APP, patience_ms: int = 0) -> Connection:
    """A session in a grid's schema, acting as a role. Raises BadInput or Unreachable, saying what to do.

    `patience_ms` is how long a statement may take, 0 for ever.
    """
    connection = _connect(url, grid)
    with _closed_on_failure(connection), _told(f"acting as {role}"):
        connection.execute(query("role"), {"role": role})
        _set_up(connection, grid, patience_ms)
        _check_migrated(connection, grid)
    return connection


def session_variables(url: str) -> dict[str, str]:
    """What libpq's programs are told by the environment, in place of an address. Raises BadInput where it is none."""
    try:
        found = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise _no_address() from None
    names = {"dbname": "PGDATABASE", "user": "PGUSER", "password": "PGPASSWORD", "host": "PGHOST", "port": "PGPORT"}
    return {names.get(key, f"PG{key.replace('_', '').upper()}"): str(value) for key, value in found.items()}


def _no_address() -> BadInput:
    """Without what was given: it may hold a password."""
    return BadInput(
        "GRIDGOV_DATABASE_URL is no address of a Postgres database; write postgresql://user:password@host/database"
    )


def _set_up(connection: Connection, grid: str, patience_ms: int = 0, idle_ms: int | None = None) -> None:
    values = {"grid": grid, "idle": str(IDLE_MS if idle_ms is None else idle_ms), "patience": str(patience_ms)}
    connection.execute(query("session"), values)


@contextmanager
def _closed_on_failure(connection: Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _connect(url: str, grid: str) -> Connection:
    if not _GRID.fullmatch(grid):
        raise BadInput(f"{grid!r} is no name for a grid; use up to 63 of a-z, 0-9, _ and -, a letter first")
    try:
        return psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=CONNECT_S,
            tcp_user_timeout=SILENT_MS,
            fallback_application_name="gridgov",
        )
    except psycopg.OperationalError as error:
        raise Unreachable(
            f"the database cannot be reached ({_line(error)}); start it, or check GRIDGOV_DATABASE_URL"
        ) from None
    except psycopg.ProgrammingError:
        raise _no_address() from None


def _line(error: BaseException) -> str:
    """The first line of what the driver says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _told(doing: str) -> Iterator[None]:
    """Turns what the driver raises into an error of ours."""
    try:
        yield
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidParameterValue) as error:
        raise Misplaced(f"{doing}: the database refuses it ({_line(error)}); run `gridgov migrate`, and grant the "
                        f"roles {APP} and {READ} to the user of GRIDGOV_DATABASE_URL") from None  # fmt: skip
    except psycopg.OperationalError as error:
        raise Unreachable(f"{doing}: the database gave no answer ({_line(error)}); try again") from None
    except psycopg.Error as error:
        raise Misplaced(f"{doing}: the database refuses it ({_line(error)}); run `gridgov doctor`") from None


def _check_migrated(connection: Connection, grid: str) -> None:
    try:
        applied = connection.execute(query("applied")).fetchall()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege):
        raise Misplaced(f"there is no grid {grid} in this database; run `gridgov migrate`") from None
    if missing := _missing(applied, grid):
        raise Misplaced(f"grid {grid} lacks {', '.join(missing)}; run `gridgov migrate`")


def _missing(applied: Iterable[tuple[Any, ...]], grid: str) -> list[str]:
    """Migrations to be applied, given what meta says. Raises BadInput where those that were are not ours."""
    there = set()
    for name, found, sealed in applied:
        there.add(name)
        if name not in migrations():
            raise BadInput(f"grid {grid} has {name}, which this version does not know; use the version that added it")
        if _sha(migrations()[name]) != found:
            raise BadInput(f"grid {grid}: {name} was applied with other content; migrations are never edited")
        if not sealed:
            raise BadInput(f"grid {grid}: what meta says of {name} was changed (its seal does not fit)")
    return [name for name in migrations() if name not in there]


def migrate(url: str, grid: str) -> list[str]:
    """Makes or updates the schema of a grid and returns the migrations that it took; none the second time.

    All in one transaction, under a lock: who comes at the same time waits, and then has nothing to do. The roles
    `gridgov_app` and `gridgov_read` are made where they are missing. Raises BadInput or Unreachable.
    """
    with _connect(url, grid) as connection, _told(f"migrating grid {grid}"), connection.transaction():
        connection.execute(query("migrating"))
        connection.execute(query("roles"))
        connection.execute(_placed(query("schema"), grid))
        connection.execute(query("path"), {"grid": grid})
        connection.execute(query("meta"))
        taken = _missing(connection.execute(query("applied")).fetchall(), grid)
        for name in taken:
            connection.execute(_placed(migrations()[name], grid))
            connection.execute(query("record_migration"), {"name": name, "digest": _sha(migrations()[name])})
    return taken


def drop(url: str, grid: str) -> None:
    """Takes away a grid with all that it holds: for the schema of a run, never for a production grid."""
    with _connect(url, grid) as connection, _told(f"dropping grid {grid}"):
        connection.execute(_placed(query("drop"), grid))


def _placed(text: str, grid: str) -> sql.Composed:
    """SQL with the schema's identifier in place."""
    return sql.SQL(text).format(grid=sql.Identifier(grid))


@contextmanager
def _snapshot(connection: Connection) -> Iterator[None]:
    """All reads within see one moment."""
    connection.execute(query("snapshot"))
    try:
        yield
    finally:
        if connection.info.transaction_status is not TransactionStatus.UNKNOWN:
            connection.execute(query("rollback"))


# --- the journal and the ledger, read ---------------------------------------------------------------------------------


def lines(connection: Connection, after: int = 0) -> Iterator[tuple[str, bytes]]:
    """Bodies and digests of the journal in order, after a seq, unchecked: see `replay.chain`."""
    while True:
        rows = connection.execute(query("records"), {"after": after, "limit": PAGE}).fetchall()
        for _, body, found in rows:
            yield body, found
        if len(rows) < PAGE:
            return
        after = rows[-1][0]


def records_after(connection: Connection, seq: int = 0) -> Iterator[JournalRecord]:
    """Committed records in order, after a seq; their chain is not checked."""
    for body, found in lines(connection, seq):
        yield _decoded(body, found)


def _decoded(body: str, found: bytes) -> JournalRecord:
    try:
        return decode(body, found)
    except NOT_A_RECORD as error:
        raise Damaged(f"the journal holds a body that is no record ({error}); run `gridgov verify postgres`") from None


def entries_after(connection: Connection, id_: int = 0) -> Iterator[LedgerEntry]:
    """Committed entries in order, after an id. Raises Damaged where a row is no entry."""
    while True:
        rows = connection.execute(query("entries"), {"after": id_, "limit": PAGE}).fetchall()
        for row in rows:
            yield _entry(row)
        if len(rows) < PAGE:
            return
        id_ = rows[-1][0]


def _entry(row: tuple[Any, ...]) -> LedgerEntry:
    number, proposal_id, giver, taker, resource, amount, at, seq, epoch, kind = row
    try:
        minor = int(amount)
        entry = LedgerEntry(number, proposal_id, giver, taker, resource, minor, at, seq, epoch, Kind(kind))
    except (TypeError, ValueError):
        raise Damaged(f"row {number} of ledger is no ledger entry; run `gridgov verify postgres`") from None
    if minor != amount or giver is None or taker is None:
        raise Damaged(f"row {number} of ledger is no ledger entry; run `gridgov verify postgres`")
    return entry


_SIZES = (16, 16, 4, 8, 4)
_ROW = np.dtype(
    [("fields", ">i2")]
    + [(f"{name}{i}", kind) for i, size in enumerate(_SIZES) for name, kind in (("size", ">i4"), ("value", f"V{size}"))]
)
_HEADER, _TRAILER = 19, 2
"""What Postgres sends in COPY's binary form for two UUIDs, an int4, an int8 and an int4, and bytes around all rows."""


def columns(connection: Connection) -> Columns:
    """The whole ledger in columns of int64 minor units, in order of id, for `replay.balances_at` and the like.

    Actors and resources are in order of name. Memory: about 200 bytes for each entry while it is read.
    Raises Damaged where a row has an unknown actor or resource, or an amount beyond its scale.
    """
    with _snapshot(connection):
        actors = sorted(key for (key,) in connection.execute(query("actor_keys")))
        resources = sorted(name for name, _ in connection.execute(query("scales")))
        data = _copied_out(connection, "copy_columns")
    count, rest = divmod(len(data) - _HEADER - _TRAILER, _ROW.itemsize)
    rows = np.frombuffer(data, _ROW, count if not rest else 0, _HEADER)
    if rest or not all((rows[f"size{i}"] == size).all() for i, size in enumerate(_SIZES)):
        raise Damaged("a row of ledger is no ledger entry; run `gridgov verify postgres`")
    giver, taker = (_places(rows[name], actors) for name in ("value0", "value1"))
    resource, amount, epoch = (
        rows[f"value{i}"].copy().view(f">i{_SIZES[i]}").astype(np.int64) for i in range(2, len(_SIZES))
    )
    return Columns(tuple(actors), tuple(resources), giver, taker, resource - 1, amount, epoch)


def _copied_out(connection: Connection, name: str) -> bytes:
    """All that a COPY sends, at three times the speed of the driver's own loop."""
    pg, parts = connection.pgconn, list[bytes]()
    pg.send_query(query(name).encode())
    while (result := _finished(connection, _next_result(pg))) is not None:
        if result.status == ExecStatus.COPY_OUT:
            while (found := pg.get_copy_data(1))[0] >= 0:
                if found[0]:
                    parts.append(bytes(found[1]))
                else:
                    _wait(pg)
                    pg.consume_input()
        elif result.status != ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(result)
    return b"".join(parts)


def _places(found: NDArray[np.void], actors: Sequence[str]) -> NDArray[np.int64]:
    """The places of actors given by their ids. Raises Damaged where one is unknown."""
    halves = np.dtype([("high", ">u8"), ("low", ">u8")])
    known = np.array([bytes.fromhex(uuid5(key).replace("-", "")) for key in actors], "V16").view(halves)
    order = np.argsort(known["high"])
    asked = found.copy().view(halves)
    places: NDArray[np.int64] = order[
        np.searchsorted(known["high"], asked["high"], sorter=order).clip(max=len(actors) - 1)
    ]
    if (known[places] != asked).any():
        raise Damaged("a row of ledger has an unknown actor; run `gridgov verify postgres`")
    return places


# --- the state, without its history -----------------------------------------------------------------------------------


def load_state(connection: Connection) -> State:
    """The state that folding the whole journal would come to, from what still stands and from the balances.

    The caller holds the lock, or a snapshot. Complexity: O(actors x resources + registrations + holds + needs of the
    open epoch), and one scan of the open epoch's entries in the database; never O(journal). Raises Damaged where the
    balances do not sum to 0.
    """
    state = State()
    head = _one(connection, "head")
    if head is None:
        return state
    close = _one(connection, "last_close")
    closed, before = (close.seq, close.payload.entries) if close and type(close.payload) is Close else (0, 0)
    _stand(connection, state, {"until": head.seq, "closed": closed, "holds": True})
    state.seq, state.digest, state.at = head.seq, head.digest, head.at
    state.epoch = head.epoch + (head.kind in ("genesis", "close"))
    (state.entries,) = _row(connection, "last_entry")
    state.refused_in_a_row, state.unavailable_in_a_row = _row(connection, "in_a_row")
    state.balances = _amounts(state, connection.execute(query("balances")))
    state.sent = _amounts(state, connection.execute(query("sent"), {"after": before}))
    state.moved = {name: int(moved) for name, moved in connection.execute(query("moved"), {"after": before})}
    for name, held in state.balances.items():
        if sum(held.values()):
            raise Damaged(f"the balances of {name} sum to {sum(held.values())} minor units, not to 0; "
                          f"run `gridgov verify postgres`")  # fmt: skip
    return state


def state_at(connection: Connection, epoch: int) -> State:
    """What a WorldState shows of the close of an epoch, 0 for the genesis; holds and what was sent are left out.

    Complexity: one scan of the entries until then, in the database. Raises BadInput where the epoch has not closed.
    """
    state = State()
    with _snapshot(connection):
        end = _one(connection, "close_of", epoch=epoch) if epoch else _one(connection, "genesis")
        if end is None:
            raise BadInput(f"epoch {epoch} has not closed yet")
        _stand(connection, state, {"until": end.seq, "closed": end.seq, "holds": False})
        if type(end.payload) is Close:
            state.entries, declared = end.payload.entries, state.balances
            found = _amounts(state, connection.execute(query("balances_at"), {"until": end.payload.entries}))
            state.balances = {name: dict.fromkeys(held, 0) | found[name] for name, held in declared.items()}
    state.seq, state.digest, state.at, state.epoch = end.seq, end.digest, end.at, end.epoch + 1
    return state


def state_after(connection: Connection, seq: int) -> State:
    """The state right after a journal record, but for what no judgement of a proposal looks at.

    The caller holds a snapshot. Complexity: as `load_state`, and O(entries since, or until then: whichever are fewer).
    Raises Damaged.
    """
    state = State()
    close = _one(connection, "close_before", until=seq)
    closed, before = (close.seq, close.payload.entries) if close and type(close.payload) is Close else (0, 0)
    _stand(connection, state, {"until": seq, "closed": closed, "holds": False})
    for body, found in connection.execute(query("holds_at"), {"until": seq}):
        record = _decoded(body, found)
        state.epoch = record.epoch
        fold(state, record)
    head = _one(connection, "record", seq=seq)
    if head is None:
        raise Damaged(f"the journal has no record {seq}; run `gridgov verify postgres`")
    state.seq, state.digest, state.at = head.seq, head.digest, head.at
    state.epoch = head.epoch + (head.kind in ("genesis", "close"))
    state.entries = _entry_as_of(connection, seq)
    if state.entries < _row(connection, "last_entry")[0] // 2:
        declared_ = state.balances
        moved = _amounts(state, connection.execute(query("balances_at"), {"until": state.entries}))
        state.balances = {name: dict.fromkeys(held, 0) | moved[name] for name, held in declared_.items()}
    else:
        state.balances = _balances_then(connection, state)
    between = {"after": before, "until": state.entries}
    state.sent = _amounts(state, connection.execute(query("sent_between"), between))
    return state


def _balances_then(connection: Connection, state: State) -> dict[str, dict[str, int]]:
    """Balances as they were after the state's last entry: those of now, less what came after it."""
    listed = {(actor, name) for name, held in state.balances.items() for actor in held}
    rows = connection.execute(query("balances_then"), {"after": state.entries}).fetchall()
    unsure = [(a, name) for a, name, amount, since in rows if since and not amount and (a, name) not in listed]
    ids = {(_actor_id(actor), name): (actor, name) for actor, name in unsure}
    which = {"actors": _array(a for a, _ in ids), "resources": _array(_quoted(name) for _, name in ids)}
    used = connection.execute(query("used_before"), {**which, "until": state.entries}).fetchall() if ids else []
    unused = set(unsure) - {ids[actor, name] for actor, name in used}
    return _amounts(state, (row[:3] for row in rows if row[:2] not in unused))


def _stand(connection: Connection, state: State, which: dict[str, Any]) -> None:
    """Folds the records that still say something; what they leave out of a State is filled in after this."""
    for body, found in connection.execute(query("standing"), which):
        record = _decoded(body, found)
        state.epoch = record.epoch
        fold(state, record)


def _one(connection: Connection, name: str, **values: Any) -> JournalRecord | None:
    row = connection.execute(query(name), values).fetchone()
    return None if row is None else _decoded(*row)


def _row(connection: Connection, name: str) -> tuple[Any, ...]:
    row = connection.execute(query(name)).fetchone()
    assert row is not None, "an aggregate has a row"
    return row


def _amounts(state: State, rows: Iterable[tuple[Any, ...]]) -> dict[str, dict[str, int]]:
    """Minor units by resource and actor."""
    found: dict[str, dict[str, int]] = {name: {} for name in state.resources}
    for actor, resource, amount in rows:
        minor = int(amount)
        if minor != amount or resource not in found:
            raise Damaged(f"the balance of {actor} in {resource} is no amount of it; run `gridgov verify postgres`")
        found[resource][actor] = minor
    return found


Taken = Callable[[JournalRecord, Sequence[LedgerEntry]], None]
"""Is told of each record that others wrote."""


def follow(connection: Connection, state: State, generation: int, taken: Taken | None = None) -> bool:
    """Folds what was committed since into the state; False where it has to be loaded anew.

    That is where so much was committed, or where the balances were made anew since: theirs is another generation.

    Raises Damaged where the journal does not go on from where the state is; the state is then good for nothing.
    """
    rows = connection.execute(query("since"), {"seq": state.seq, "limit": MISSED + 1}).fetchall()
    if rows and rows[0][3] != generation:
        return False
    if state.seq and (not rows or rows[0][:3:2] != (state.seq, state.digest)):
        raise Damaged(f"journal record {state.seq} is not what it was; run `gridgov verify postgres`")
    if len(rows) > MISSED:
        return False
    for _, body, found, _ in rows[1:] if state.seq else rows:
        record = _decoded(body, found)
        if digest(state.digest, body) != found or record.seq != state.seq + 1:
            raise Damaged(f"journal record {record.seq} does not follow from the one before")
        entries = fold(state, record)
        if taken is not None:
            taken(record, entries)
    return True


# --- rows to be written -----------------------------------------------------------------------------------------------

Pair = tuple[str, str]
"""An actor and a resource."""

_NULL = "\\N"


@lru_cache(maxsize=65536)
def _copied(text: str) -> str:
    """A text as COPY reads it; the few that come again and again."""
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


_actor_id = lru_cache(maxsize=65536)(uuid5)
_time = lru_cache(maxsize=1024)(timestamp)


def _array(texts: Iterable[str]) -> str:
    """An array as Postgres reads it; several times as fast as the driver's own."""
    return f"{{{','.join(texts)}}}"


@lru_cache(maxsize=65536)
def _quoted(text: str) -> str:
    """Any text as an element of an array."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _hex(data: bytes) -> str:
    return f"\\\\x{data.hex()}"


# --- what was shown ---------------------------------------------------------------------------------------------------

_SEEN = re.compile(r"(\d{1,9})-(\d{1,18})-(\d{1,18})-[0-9a-f]{32}", re.ASCII)


def seen_of(shown: str) -> Seen:
    """What a world_state_digest says was seen. Raises BadInput where it is none."""
    match = _SEEN.fullmatch(shown)
    if match is None:
        raise BadInput("this is no world_state_digest; send the one of GET /v1/context", ("world_state_digest",))
    return Seen(int(match[1]), int(match[2]), int(match[3]))


def digest_of(seen: Seen, world: Json) -> str:
    """The world_state_digest: what was seen, and a digest of how it looked."""
    sha = hashlib.sha256(exact_json(world).encode()).hexdigest()
    return f"{seen.epoch}-{seen.constraints_seq}-{seen.entries}-{sha[:32]}"


def shown_by(state: State) -> str:
    """The world_state_digest of who looks now. Complexity: O(balances)."""
    return digest_of(state.seen, world_state_json(state.world_state()))


def copied(state: State) -> State:
    """A state that stays as it is when the other goes on. Complexity: O(balances)."""
    found = State()
    for name in State.__slots__:
        value = getattr(state, name)
        if isinstance(value, dict):
            value = {key: dict(own) if isinstance(own, dict) else own for key, own in value.items()}
        setattr(found, name, set(value) if isinstance(value, set) else value)
    return found


def state_shown(connection: Connection, shown: str) -> State | None:
    """The state whose world_state_digest this is; None where it is not found, or more than one could be meant.

    Complexity: as `state_after`, and up to `SEARCHED` records. Raises BadInput where it is no world_state_digest.
    """
    seen = seen_of(shown)
    with _snapshot(connection):
        first = connection.execute(query("seq_shown"), seen._asdict()).fetchone()
        if first is None or first[0] is None:
            return None
        state, found = state_after(connection, first[0]), list[State]()
        rows = connection.execute(query("records"), {"after": first[0], "limit": SEARCHED}).fetchall()
        following = (_decoded(body, digest_) for _, body, digest_ in rows)
        while state.seen == seen:
            if shown_by(state) == shown:
                found.append(copied(state))
            record = next(following, None)
            if record is None:
                break
            fold(state, record)
    alike = all(state.reserved == found[0].reserved and state.mandates == found[0].mandates for state in found)
    return found[-1] if found and alike else None


# --- exchanges, shadows and requests ----------------------------------------------------------------------------------


class Interaction(NamedTuple):
    """One exchange with a model, to be kept beside the decision that it led to. `about` is canonical JSON."""

    proposal_id: str
    request_key: str
    at: int
    request: bytes
    status: int | None
    body: bytes
    about: str
    usage: str | None = None
    latency_ms: int | None = None

    @property
    def digest(self) -> bytes:
        """sha256 over all but usage and latency, each part with its length."""
        parts = (self.proposal_id, self.request_key, str(self.at), str(self.status), self.about)
        sha = hashlib.sha256(b"gridgov-exchange/1\n")
        for part in (*(text.encode() for text in parts), self.request, self.body):
            sha.update(b"%d:" % len(part) + part)
        return sha.digest()

    def line(self) -> str:
        """The row as COPY reads it."""
        fields = (
            self.proposal_id, _copied(self.request_key), _time(self.at), _hex(self.request),
            _NULL if self.status is None else str(self.status), _hex(self.body), _copied(self.about),
            _NULL if self.usage is None else _copied(self.usage),
            _NULL if self.latency_ms is None else str(self.latency_ms), _hex(self.digest),
        )  # fmt: skip
        return "\t".join(fields) + "\n"


class Shadow(NamedTuple):
    """What a shadow proposed, and what would have become of it; `body` is the decision's canonical JSON.

    It was judged on the state after the record `seq`. `seen` is the world_state_digest that it was shown; `exchange`
    is the digest of the interaction that it came of. `id` and `digest` are given when it is added.
    """

    proposal_id: str
    epoch: int
    proposer: str
    n: int
    seq: int
    at: int
    body: str
    prompt: str
    model: str
    request_key: str
    seen: str
    exchange: bytes | None
    id: int = 0
    digest: bytes = b""

    @property
    def decision(self) -> Decision:
        """What would have become of it. Raises Damaged where the body is none."""
        return shadow_decision(self.body)

    def sealed(self, id_: int, previous: bytes) -> Shadow:
        """The row of this number, after the one with that digest."""
        parts = [str(part).encode() for part in (id_, *self[:11])]
        sha = hashlib.sha256(b"gridgov-shadow/1\n" + previous)
        for part in (*parts, self.exchange or b""):
            sha.update(b"%d:" % len(part) + part)
        return self._replace(id=id_, digest=sha.digest())


def shadow_decision(body: str) -> Decision:
    """The decision whose canonical JSON this is. Raises Damaged."""
    try:
        payload = decode(f'{{"at":0,"epoch":0,"kind":"proposal","payload":{body},"seq":0}}', b"").payload
        assert type(payload) is Decision, "this kind has no other"
        if encode(payload) != body:
            raise ValueError("not in its canonical form")
    except NOT_A_RECORD as error:
        raise Damaged(f"a body of shadows is no decision ({error}); run `gridgov verify postgres`") from None
    return payload


class Handed(NamedTuple):
    """A request as it was handed out: its key, when, its body, and canonical JSON of what there is to say about it."""

    request_key: str
    at: int
    body: bytes
    about: str

    @property
    def digest(self) -> bytes:
        """sha256 over all of it, each part with its length."""
        sha = hashlib.sha256(b"gridgov-handed/1\n")
        for part in (self.request_key.encode(), str(self.at).encode(), self.body, self.about.encode()):
            sha.update(b"%d:" % len(part) + part)
        return sha.digest()


class Statement(NamedTuple):
    """What is sent at once: a query by its name, what each COPY in it takes, its values, and the rows it must touch."""

    name: str
    data: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    touched: int | None = None


def _transposed(lines: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Columns, each an array as Postgres reads it."""
    return tuple(_array(column) for column in zip(*lines, strict=True))


class Rows:
    """What one transaction writes: lines as COPY reads them, and what they change in actors, resources and balances."""

    def __init__(self) -> None:
        self.journal: list[str] = []
        self.ledger: list[str] = []
        self.interactions: list[str] = []
        self.actors: dict[str, tuple[str, int]] = {}
        self.resources: list[Resource] = []
        self.moved: dict[Pair, int] = {}

    def add(self, record: JournalRecord, entries: Sequence[LedgerEntry], scales: dict[str, int], origin: str) -> None:
        """Takes a record and its entries; `origin` is the metadata of these, as COPY reads it."""
        payload = record.payload
        proposal_id = outcome = request = _NULL
        if type(payload) is Decision:
            proposal_id, outcome = payload.proposal_id, payload.outcome.value
        else:
            proposal_id, outcome, request = (_NULL if own is None else own for own in about(payload))
            if type(payload) is Genesis or type(payload) is Registration:
                self.know(payload, record.seq)
        at, body = _time(record.at), record.body
        if "\\" in body:
            body = body.replace("\\", "\\\\")
        self.journal.append(
            f"{record.seq}\t{record.epoch}\t{record.kind}\t{at}\t{proposal_id}\t{outcome}\t{request}\t{body}\t{_hex(record.digest)}\n"
        )
        moved = self.moved
        for id_, proposed, giver, taker, resource, amount, _, seq, epoch, kind in entries:
            self.ledger.append(
                f"{id_}\t{proposed or _NULL}\t{_actor_id(giver)}\t{_actor_id(taker)}\t{_copied(resource)}\t"
                f"{plain(amount, scales[resource])}\t{at}\t{origin}\t{seq}\t{epoch}\t{kind.value}\n"
            )
            moved[giver, resource] = moved.get((giver, resource), 0) - amount
            moved[taker, resource] = moved.get((taker, resource), 0) + amount

    def know(self, payload: Genesis | Registration, seq: int) -> None:
        """Takes who and what there is from now on."""
        for actor in payload.actors:
            _, first = self.actors.get(actor.id, ("", seq))
            self.actors[actor.id] = (actor.type, first)
        if type(payload) is Genesis:
            self.resources += payload.resources
            self.moved |= dict.fromkeys(declared(payload), 0)

    def statements(self, scales: dict[str, int], listed: set[Pair]) -> list[Statement]:
        """What writes all of it, in order; `listed` are the balances that have a row."""
        found = []
        if self.ledger:
            found.append(Statement("copy_journal_and_ledger", ("".join(self.journal), "".join(self.ledger))))
        elif self.journal:
            found.append(Statement("copy_journal", ("".join(self.journal),)))
        if self.interactions:
            found.append(Statement("copy_interactions", ("".join(self.interactions),)))
        if self.actors:
            actors = [(_actor_id(k), _quoted(k), _quoted(own[0]), str(own[1])) for k, own in self.actors.items()]
            found.append(Statement("add_actors", values=_transposed(actors)))
        if self.resources:
            resources = [(_quoted(name), _quoted(unit), str(scale)) for name, unit, scale in self.resources]
            found.append(Statement("add_resources", values=_transposed(resources)))
        there = [pair for pair, by in self.moved.items() if by and pair in listed]
        new = [pair for pair in self.moved if pair not in listed]
        for name, pairs in (("move_balances", there), ("add_balances", new)):
            if pairs:
                moved = [(_actor_id(a), _quoted(r), plain(self.moved[a, r], scales[r])) for a, r in pairs]
                found.append(Statement(name, values=_transposed(moved), touched=len(moved)))
        return found


def about(payload: Payload) -> tuple[str | None, str | None, str | None]:
    """The columns of `journal` that follow from a payload: proposal_id, outcome and request_id."""
    outcome = getattr(payload, "outcome", None)
    request = getattr(payload, "request", "") or None
    return getattr(payload, "proposal_id", None), None if outcome is None else outcome.value, request


def declared(genesis: Genesis) -> list[Pair]:
    """The balances that are listed from the start, at 0 as well."""
    return [(BOUNDARY, name) for name, _, _ in genesis.resources] + [line[:2] for line in genesis.opening]


_LOOK_AGAIN_MS = 1_000

Steps = Generator[None, None, PGresult | None]
"""Goes on with each `next` as far as it can without waiting for the server, and returns the last result.

This is how a batch is written while the next one is run, in one thread: two would wait for each other's interpreter.
"""


def _execution(pg: PGconn, statement: Statement) -> Steps:
    """Sends a statement. Raises what the server says, and Damaged where it touches other rows than it must."""
    text = query(statement.name).encode()
    if statement.values:
        pg.send_query_params(text, [value.encode() for value in statement.values])
    else:
        pg.send_query(text)
    last, data = None, iter(statement.data)
    while (result := (yield from _next_result(pg))) is not None:
        if result.status == ExecStatus.COPY_IN:
            pg.put_copy_data(next(data).encode())
            pg.put_copy_end()
        elif result.status in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
            last = result
        else:
            raise psycopg.errors.error_from_result(result)
    if statement.touched is not None and last is not None and last.command_tuples != statement.touched:
        raise Damaged(f"{last.command_tuples} balances were moved instead of {statement.touched}; "
                      f"run `gridgov verify postgres`")  # fmt: skip
    return last


def _next_result(pg: PGconn) -> Steps:
    while pg.flush():
        pg.consume_input()  # it may be waiting until we read
        yield
    pg.consume_input()
    while pg.is_busy():
        yield
        pg.consume_input()
    return pg.get_result()


def _wait(pg: PGconn, timeout_ms: int | None = None) -> None:
    """Until the server says something, or takes more, or so much time has passed; whoever waits looks again.

    Nobody waits longer than a while at once: a wake-up that got lost was seen to cost minutes, and so costs a second.
    """
    poll = select.poll()
    poll.register(pg.socket, select.POLLIN | (select.POLLOUT if pg.flush() else 0))
    poll.poll(_LOOK_AGAIN_MS if timeout_ms is None else timeout_ms)


def _finished(connection: Connection, steps: Steps) -> PGresult | None:
    """Goes on to the end, and returns the last result."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: PGresult | None = done.value
            return result
        _wait(connection.pgconn)


def _uuids(ids: Iterable[str]) -> list[str]:
    """The ids of proposals and requests, as the database knows both."""
    return [id_ for id_ in (own.removeprefix(by_request("")) for own in ids) if _UUID.fullmatch(id_)]


class _Desk:
    """Where an engine's records wait for their transaction: the Ledger that it sees, and how its rows are written.

    `listed` are the balances that have a row. `decided` is what this batch decided, `sent` what the one before did that
    Postgres still writes, `recent` what was committed last; `assumed` is an id that is taken to be new: if it is not,
    the database refuses the batch.
    """

    def __init__(self, connection: Connection, seq: int, scales: dict[str, int], listed: set[Pair]) -> None:
        self.connection = connection
        self.seq = seq
        self.scales = scales
        self.listed = listed
        self.rows = Rows()
        self.decided: dict[str, JournalRecord] = {}
        self.sent: dict[str, JournalRecord] = {}
        self.recent: dict[str, JournalRecord] = {}
        self.known: dict[str, JournalRecord | None] = {}
        self.assumed: str | None = None
        self.transit: _Transit | None = None

    def append(self, record: JournalRecord, entries: Sequence[LedgerEntry]) -> None:
        """Takes the record that follows the last one, with its entries; it counts once committed."""
        assert record.seq == self.seq + 1, "records come in order, without gaps"
        payload = record.payload
        if type(payload) is Genesis:
            self.scales = {resource.name: resource.scale for resource in payload.resources}
        id_ = answers(record)
        if id_ is not None:
            self.decided[id_] = record
        self.rows.add(record, entries, self.scales, _copied(metadata(payload, self._proposer)))
        self.seq = record.seq

    def _proposer(self, proposal_id: str) -> str:
        held = self.answered(proposal_id)
        assert held is not None and type(held.payload) is Decision, "only what is held is settled"
        return held.payload.proposer

    def commit(self) -> None:
        """The batch commits for all."""

    def records(self) -> Iterator[JournalRecord]:
        """Nothing: the engine of a batch starts from a state that was loaded."""
        return iter(())

    def entries(self) -> Sequence[LedgerEntry]:
        """Nothing, see `records`."""
        return ()

    def answered(self, id_: str) -> JournalRecord | None:
        """The record that this id led to, or None; what was not asked for with `look_up` costs a query."""
        found = self.decided.get(id_) or self.sent.get(id_) or self.recent.get(id_)
        if found is not None:
            return found
        if id_ not in self.known:
            if id_ == self.assumed:
                return None
            self.look_up([id_])
        return self.known[id_]

    def look_up(self, ids: Sequence[str]) -> None:
        """Reads what these ids led to, all at once."""
        if self.transit is not None:
            self.transit.finish()  # it has the connection
        self.known |= dict.fromkeys(ids)
        asked = _uuids(ids)
        if asked:
            for id_, body, found in self.connection.execute(query("answered"), {"ids": _array(asked)}):
                if id_ in self.known:
                    self.known[id_] = _decoded(body, found)

    def taken(self, record: JournalRecord, entries: Sequence[LedgerEntry]) -> None:
        """Notes what another wrote."""
        if type(record.payload) is Genesis:
            self.scales = {resource.name: resource.scale for resource in record.payload.resources}
            self.listed.update(declared(record.payload))
        for entry in entries:
            self.listed.add((entry.actor_from, entry.resource))
            self.listed.add((entry.actor_to, entry.resource))
        self.seq = record.seq

    def pass_on(self) -> list[Statement]:
        """What writes all rows; the desk is then free for the next batch."""
        rows, self.rows = self.rows, Rows()
        self.sent, self.decided, self.known = self.decided, {}, {}
        found = rows.statements(self.scales, self.listed)
        self.listed |= rows.moved.keys()
        return found

    def written(self) -> None:
        """What was passed on is committed."""
        self.recent |= self.sent
        self.sent = {}
        while len(self.recent) > RECENT:
            del self.recent[next(iter(self.recent))]


class PostgresLedger(_Desk):
    """The grid's ledger for one engine alone: each commit is one transaction. For many threads, see `Writer`.

    Another writer is found at the next commit, which then raises Damaged; nothing is ever mixed.
    """

    def __init__(self, url: str, grid: str) -> None:
        connection = connect(url, grid)
        self.grid = grid
        with _closed_on_failure(connection), _snapshot(connection):
            self.head = _head(connection)
            scales: dict[str, int] = dict(connection.execute(query("scales")).fetchall())
            listed = {(actor, resource) for actor, resource, _ in connection.execute(query("balances"))}
        super().__init__(connection, self.head[0], scales, listed)

    def append(self, record: JournalRecord, entries: Sequence[LedgerEntry]) -> None:
        """Takes the record that follows the last one, with its entries; it counts once committed."""
        super().append(record, entries)
        self._last = record.digest

    def commit(self) -> None:
        """Makes everything that was appended durable, all of it or nothing. Raises Damaged or Unreachable."""
        if self.rows.journal:
            with _told("appending to the ledger"):
                try:
                    found, _ = _begin(self.connection)
                    if found != self.head:
                        raise Damaged(f"somebody else writes to this grid: its head is record {found[0]}, "
                                      f"not {self.head[0]}; run one at a time")  # fmt: skip
                    for statement in self.pass_on():
                        _finished(self.connection, _execution(self.connection.pgconn, statement))
                except BaseException:
                    _roll_back(self.connection)
                    raise
                self.connection.execute(query("commit"))
            self.head = (self.seq, self._last)
            self.written()

    def records(self) -> Iterator[JournalRecord]:
        """All committed records, in order of seq."""
        return records_after(self.connection)

    def entries(self) -> Sequence[LedgerEntry]:
        """All committed entries, in order of id."""
        return list(entries_after(self.connection))

    def close(self) -> None:
        """Lets go of the database; what was not committed is lost."""
        self.connection.close()


def rebuild(url: str, grid: str) -> int:
    """Makes actors, resources and balances anew from the journal, and returns the seq that they are as of.

    For the owner of the schema, not for the app's role. Raises Damaged where the journal is no chain: nothing is
    changed then. Complexity: O(journal), under the lock.
    """
    with _connect(url, grid) as connection, _told(f"rebuilding grid {grid}"):
        _set_up(connection, grid, idle_ms=0)
        _check_migrated(connection, grid)
        _begin(connection)
        state, rows = State(), Rows()
        for record in chain(lines(connection)):
            fold(state, record)
            if type(record.payload) is Genesis or type(record.payload) is Registration:
                rows.know(record.payload, record.seq)
        rows.moved = {(actor, name): held for name, own in state.balances.items() for actor, held in own.items()}
        scales = {name: resource.scale for name, resource in state.resources.items()}
        for name in ("clear_balances", "clear_actors", "clear_resources"):
            connection.execute(query(name))
        for statement in rows.statements(scales, set()):
            _finished(connection, _execution(connection.pgconn, statement))
        connection.execute(query("remade"))
        connection.execute(query("commit"))
        connection.execute(query("remade"))
    return state.seq


def _head(connection: Connection) -> tuple[int, bytes]:
    record = _one(connection, "head")
    return (0, START) if record is None else (record.seq, record.digest)


def _begin(connection: Connection) -> tuple[tuple[int, bytes], int]:
    """Begins a batch: takes the lock, and returns the head (seq, digest) and the generation as they are under it."""
    cursor = connection.execute(query("begin"))
    while cursor.nextset():
        pass
    row = cursor.fetchone()
    assert row is not None, "the generation is always there"
    seq, digest_, generation = row
    return (seq, digest_ or START), generation


def _roll_back(connection: Connection) -> None:
    if not connection.broken:
        with suppress(psycopg.OperationalError):
            connection.execute(query("rollback"))


# --- group commit -----------------------------------------------------------------------------------------------------


class Call(Generic[T]):
    """A command on its way: what it is, and its answer once that is durable."""

    __slots__ = ("_done", "_error", "_value", "command", "interaction", "proposal_id")

    def __init__(
        self, command: Callable[[Engine], T], proposal_id: str | None, interaction: Interaction | None
    ) -> None:
        self.command = command
        self.proposal_id = proposal_id
        self.interaction = interaction
        self._value: T | None = None
        self._error: Exception | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def result(self, timeout_s: float | None = None) -> T:
        """What the command returned, or raised; waits until that is durable. Raises Unreachable after the timeout."""
        if not self._done.acquire(timeout=-1 if timeout_s is None else timeout_s):
            raise Unreachable("no answer yet; it may be recorded, so ask again under the same id")
        self._done.release()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    def answer(self, value: T | None, error: Exception | None) -> None:
        """Gives the answer, once."""
        self._value, self._error = value, error
        self._done.release()


Calls = Sequence[Call[Any]]
Answer = tuple[Any, Exception | None]
Answers = list[Answer]


class Committed(NamedTuple):
    """What a batch came to: how many commands it answered, how many records they made, and how long it took."""

    commands: int
    records: int
    seconds: float
    seq: int
    entries: int


class _Session:
    """A connection, and the engine that is as far as the database was when it last looked."""

    def __init__(self, url: str, grid: str) -> None:
        self.connection = connect(url, grid)
        with _closed_on_failure(self.connection), _snapshot(self.connection):
            self.desk, self.engine = self._load()

    def _load(self) -> tuple[_Desk, Engine]:
        """An engine that is where the database is."""
        (self.generation,) = _row(self.connection, "generation")
        state = load_state(self.connection)
        scales = {name: resource.scale for name, resource in state.resources.items()}
        listed = {(actor, resource) for resource, held in state.balances.items() for actor in held}
        desk = _Desk(self.connection, state.seq, scales, listed)
        engine = Engine(desk)
        engine.state = state
        return desk, engine

    def run(self, calls: Calls) -> _Batch:
        """Begins a batch, runs its commands in order, and writes what they appended; all but the commit."""
        head, generation = _begin(self.connection)
        state, same = self.engine.state, generation == self.generation
        if same and head == (state.seq, state.digest):
            pass
        elif not same or not follow(self.connection, state, generation, self.desk.taken):
            self.desk, self.engine = self._load()
        ids = [call.proposal_id for call in calls if call.proposal_id is not None]
        self.desk.look_up(ids)
        spoilt: dict[int, Exception] = {}
        while (batch := self._all(calls, spoilt)) is None:
            self.desk, self.engine = self._load()
            self.desk.look_up(ids)
        for statement in self.desk.pass_on():
            _finished(self.connection, _execution(self.connection.pgconn, statement))
        return batch

    def _all(self, calls: Calls, spoilt: dict[int, Exception]) -> _Batch | None:
        """Runs all but those that spoilt the engine before; None where another one does."""
        batch = _Batch(self.engine.state)
        for place, call in enumerate(calls):
            if place in spoilt:
                batch.add(call, (None, spoilt[place]))
                continue
            try:
                batch.add(call, self.answer(call))
            except _Spoilt as error:
                spoilt[place] = error.cause
                return None
        return batch.sealed(self.engine.state)

    def answer(self, call: Call[Any]) -> Answer:
        """Runs one command. Raises _Spoilt where it failed and the engine is no longer where it was before."""
        before = self.desk.seq
        try:
            value = call.command(self.engine)
        except (psycopg.Error, _Overtaken):
            raise
        except Exception as error:  # noqa: BLE001 - whatever a command raises is for its caller
            if self.desk.seq != before or not isinstance(error, GridgovError):
                raise _Spoilt(error) from None
            return None, error
        if call.interaction is not None and self.desk.seq != before:
            self.desk.rows.interactions.append(call.interaction.line())
        return value, None

    def holds(self, seq: int, digest_: bytes) -> bool:
        """Whether this record is committed; waits for whoever still holds the lock."""
        try:
            _begin(self.connection)
            row = self.connection.execute(query("digest_of"), {"seq": seq}).fetchone()
        finally:
            _roll_back(self.connection)
        return row is not None and row[0] == digest_

    def commit(self, batch: _Batch) -> None:
        """Makes the batch durable; one without records has nothing to wait for."""
        self.connection.execute(query("commit" if batch.records else "rollback"))
        self.desk.written()


class _Spoilt(Exception):
    """A command failed half way, for this cause: what it did cannot be undone, only done without."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


class _Overtaken(Exception):
    """Somebody else wrote before this batch did, which was run without knowing it."""


class _Batch:
    """Commands that were run, what they came to, and between which records: (seq, digest)."""

    def __init__(self, state: State) -> None:
        self.begun = time.perf_counter()
        self.calls: list[Call[Any]] = []
        self.answers: Answers = []
        self.base = self.head = (state.seq, state.digest)
        self.entries = state.entries

    def add(self, call: Call[Any], answer: Answer) -> None:
        """Takes a command that was run."""
        self.calls.append(call)
        self.answers.append(answer)

    def sealed(self, state: State) -> Self:
        """No more commands come."""
        self.head, self.entries = (state.seq, state.digest), state.entries
        return self

    @property
    def records(self) -> int:
        """How many records its commands made."""
        return self.head[0] - self.base[0]


def _as_sent(seq: int, digest_: bytes, generation: int) -> tuple[bytes | None, ...]:
    """The head of a journal, and the generation, as the server writes them."""
    return b"%d" % seq, b"\\x" + digest_.hex().encode() if seq else None, b"%d" % generation


class _Transit:
    """A batch that Postgres writes while the next one is run.

    It was run before the lock was taken: if the head is not where it began, somebody else was faster. A batch without
    records is only looked after: what it answers must be as of a head that still is one.
    """

    def __init__(self, connection: Connection, batch: _Batch, statements: list[Statement], generation: int) -> None:
        self.batch = batch
        self._generation = generation
        self.committing = self.done = False
        self._pg = connection.pgconn
        self._statements = statements
        self._steps: Steps | None = self._all()
        self._failure: Exception | None = None

    def _all(self) -> Steps:
        head = yield from _execution(self._pg, Statement("begin" if self.batch.records else "tip"))
        assert head is not None, "a query has a result"
        found = tuple(head.get_value(0, column) for column in range(3))
        if found != _as_sent(*self.batch.base, self._generation):
            raise _Overtaken
        for statement in self._statements:
            yield from _execution(self._pg, statement)
        if self.batch.records:
            self.committing = True
            yield from _execution(self._pg, Statement("commit"))
        return None

    def poll(self) -> bool:
        """Goes on as far as it can without waiting; whether it is done. Raises _Overtaken, or as the server does."""
        if self._steps is not None:
            try:
                next(self._steps)
            except StopIteration:
                self._steps, self.done = None, True
            except Exception as error:
                self._steps, self._failure = None, error
                raise
        if self._failure is not None:
            raise self._failure  # a command may have taken it for its own
        return self.done

    def wait(self, timeout_ms: int | None) -> bool:
        """Waits until the server says something, or for a while, and polls."""
        if self._steps is not None:
            _wait(self._pg, timeout_ms)
        return self.poll()

    def finish(self) -> None:
        """Goes on to the end."""
        while not self.poll():
            _wait(self._pg)


class Writer:
    """Runs commands of many threads on one engine, in one order, several to a commit.

    A command is a function of the engine. It may be run more than once before its answer is given, and so does nothing
    but through the engine. What it raises goes to its caller alone and leaves no trace. An answer is given only once
    it is durable; where a connection is lost in mid-commit, the journal says what became of it.
    """

    def __init__(
        self,
        url: str,
        grid: str,
        *,
        batch: int = BATCH,
        patience_s: float = PATIENCE_S,
        on_commit: Callable[[Committed], None] | None = None,
    ) -> None:
        """Loads the state and starts the one thread that writes. Raises BadInput or Unreachable."""
        self._url, self._grid = url, grid
        self._batch, self._patience_s, self._on_commit = batch, patience_s, on_commit
        self._queue: SimpleQueue[Call[Any] | None] = SimpleQueue()
        self._entrance = threading.Lock()
        self._closing = threading.Event()
        self._alone_from = 0.0
        self._session: _Session | None = _Session(url, grid)
        self._thread = threading.Thread(target=self._serve, name=f"gridgov-writer-{grid}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(
        self,
        command: Callable[[Engine], T],
        proposal_id: str | None = None,
        interaction: Interaction | None = None,
    ) -> T:
        """Runs a command and returns what it returns, once that is durable; see `enqueue`."""
        return self.enqueue(command, proposal_id, interaction).result()

    def enqueue(
        self,
        command: Callable[[Engine], T],
        proposal_id: str | None = None,
        interaction: Interaction | None = None,
    ) -> Call[T]:
        """Puts a command in the queue. Commands of one thread are run in their order.

        `proposal_id` is the id that it will decide about, if any: what was decided under it is then looked up with
        those of the whole batch. `interaction` is kept if the command appends something. Raises Unreachable where the
        writer is closed.
        """
        call = Call(command, proposal_id, interaction)
        with self._entrance:
            if self._closing.is_set():
                raise Unreachable("the writer is closed, nothing was recorded; ask again when it is back")
            self._queue.put(call)
        return call

    def close(self) -> None:
        """Takes no more commands, finishes those that it took, and lets go of the database."""
        with self._entrance:
            if not self._closing.is_set():
                self._closing.set()
                self._queue.put(None)
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            _reports.error("the database gives no answer; what was not acknowledged may be recorded or not")

    def _serve(self) -> None:
        """The thread: what comes to an idle writer is run under the lock; in a rush, ahead of it."""
        more = True
        while more:
            calls, more = self._take(self._batch)
            if calls:
                self._settle(calls)
            while more and not self._queue.empty() and self._session and time.monotonic() >= self._alone_from:
                more = self._rush(self._session)
        self._drop()

    def _take(self, most: int, wait: bool = True) -> tuple[list[Call[Any]], bool]:
        """What is in the queue, waiting for the first; and whether more may come."""
        calls: list[Call[Any]] = []
        while len(calls) < most and (wait or not self._queue.empty()):
            call = self._queue.get()
            if call is None:
                return calls, False
            calls.append(call)
            wait = False
        return calls, True

    def _rush(self, session: _Session) -> bool:
        """Runs commands while Postgres writes those before them, until there are none; whether more may come.

        The engine is then ahead of the database. Whatever goes wrong, all that is unanswered is settled anew, from what
        is committed.
        """
        desk, more = session.desk, True
        batch, fresh = _Batch(session.engine.state), deque[Call[Any]]()
        try:
            while True:
                if more:
                    calls, more = self._take(self._batch - len(batch.calls), wait=False)
                    fresh.extend(calls)
                while fresh:
                    desk.assumed = fresh[0].proposal_id
                    batch.add(fresh[0], session.answer(fresh[0]))
                    fresh.popleft()
                    if desk.transit is not None and not len(fresh) & 3 and desk.transit.poll():
                        self._arrived(session)
                desk.assumed = None
                if desk.transit is None and not batch.calls:
                    return more
                if desk.transit is None:
                    batch.sealed(session.engine.state)
                    desk.transit = _Transit(session.connection, batch, desk.pass_on(), session.generation)
                    batch = _Batch(session.engine.state)
                    desk.transit.poll()
                elif desk.transit.wait(RUSH_MS if more and len(batch.calls) < self._batch else None):
                    self._arrived(session)
        except Exception as error:  # noqa: BLE001 - `_settle` finds out what it is, command by command
            self._recover(session, error, [*batch.calls, *fresh])
            return more

    def _arrived(self, session: _Session) -> None:
        """The batch in transit is committed."""
        transit, session.desk.transit = session.desk.transit, None
        assert transit is not None, "asked for only where there is one"
        session.desk.written()
        self._answer(transit.batch)

    def _recover(self, session: _Session, error: Exception, others: list[Call[Any]]) -> None:
        """Settles what a rush left unanswered, those in transit first."""
        transit, sent = session.desk.transit, None
        if transit is not None and isinstance(error, _Spoilt):
            try:
                transit.finish()
            except Exception as failure:  # noqa: BLE001 - as in `_rush`
                error = failure
        if isinstance(error, _Overtaken):
            self._alone_from = time.monotonic() + SHARED_S
        if transit is not None and transit.done:
            self._arrived(session)
            transit = None
        elif transit is not None and transit.committing and _lost(session.connection, error):
            sent = transit.batch
        self._drop()
        if transit is not None:
            self._settle(transit.batch.calls, sent)
        if others:
            self._settle(others)

    def _settle(self, calls: Calls, sent: _Batch | None = None) -> None:
        """Answers commands, whatever happens; see `_persist`."""
        try:
            self._answer(self._persist(calls, sent))
            return
        except psycopg.Error as error:
            self._drop()
            if len(calls) > 1 and isinstance(error, psycopg.DataError | psycopg.IntegrityError):
                for call in calls:  # one of them is at fault: the others must not suffer
                    self._settle([call])
                return
            ours = isinstance(error, psycopg.DataError | psycopg.IntegrityError)
            kind = GridgovError if ours else Unreachable
            failure: Exception = kind(f"the database refuses to record it ({_line(error)}); nothing was recorded")
        except Exception as error:  # noqa: BLE001 - every caller is answered, and the thread lives on
            self._drop()
            failure = error
        for call in calls:
            call.answer(None, failure)

    def _answer(self, batch: _Batch) -> None:
        """Gives the answers of a batch that is committed."""
        for call, (value, error) in zip(batch.calls, batch.answers, strict=True):
            call.answer(value, error)
        if self._on_commit is not None:
            seconds = time.perf_counter() - batch.begun
            try:
                self._on_commit(Committed(len(batch.calls), batch.records, seconds, batch.head[0], batch.entries))
            except Exception:  # noqa: BLE001 - whoever watches must not stop who writes
                _reports.exception("on_commit failed")

    def _persist(self, calls: Calls, sent: _Batch | None) -> _Batch:
        """Runs and commits a batch; goes on after the connection was lost, for as long as patience lasts.

        `sent` is the batch whose COMMIT was sent and not answered. Raises Unreachable when patience ends, and what the
        database raises where it refuses the batch.
        """
        until = time.monotonic() + self._patience_s
        while True:
            try:
                if self._session is None:
                    self._session = _Session(self._url, self._grid)
                session = self._session
                if sent is not None and session.holds(*sent.head):
                    return sent
                sent = None
                sent = batch = session.run(calls)
                session.commit(batch)
                return batch
            except (psycopg.Error, Unreachable) as error:
                lost = self._session is None or _lost(self._session.connection, error)
                self._drop()
                if not lost:
                    raise  # the database says that this batch was not recorded
                _reports.warning("the connection was lost%s: %s", " in a commit" if sent else "", _line(error))
                if time.monotonic() >= until:
                    raise _given_up(sent is not None, error) from None
                time.sleep(RETRY_S)
            except GridgovError as error:
                if sent is not None:
                    raise _given_up(True, error) from None
                raise

    def _drop(self) -> None:
        """Forgets the engine, which may be ahead of what is committed."""
        session, self._session = self._session, None
        if session is not None:
            session.connection.close()


def _lost(connection: Connection, error: Exception) -> bool:
    """Whether the session is over, so that what became of its transaction is not known from it."""
    severity = error.diag.severity_nonlocalized if isinstance(error, psycopg.Error) else None
    return connection.broken or severity in ("FATAL", "PANIC")


def _given_up(sent: bool, error: Exception) -> Unreachable:
    if sent:
        return Unreachable(f"the database went away while it recorded this ({_line(error)}); "
                           f"it may be recorded, so ask again under the same id")  # fmt: skip
    return Unreachable(f"the database cannot be reached ({_line(error)}); nothing was recorded, ask again later")


# --- reading ----------------------------------------------------------------------------------------------------------


class Pool:
    """Sessions of one role in one grid: made when needed, kept for the next, no more than `size` at once."""

    def __init__(self, url: str, grid: str, role: str = READ, size: int = 8) -> None:
        self.url, self.grid, self.role = url, grid, role
        self._places = threading.BoundedSemaphore(size)
        self._idle: deque[Connection] = deque()

    def ask(self, question: Callable[[Connection], T]) -> T:
        """What a question to the database comes to; asked once more where the session turns out to be dead.

        So it must be one that can be asked twice. Raises BadInput or Unreachable.
        """
        with self._places, _told("reading"):
            for connection in self._sessions():
                try:
                    return question(connection)
                except psycopg.OperationalError:
                    if not connection.broken:
                        raise
                finally:
                    self._put(connection)
            fresh = connect(self.url, self.grid, self.role, READ_MS)
            try:
                return question(fresh)
            finally:
                self._put(fresh)

    def _sessions(self) -> Iterator[Connection]:
        """Those that were kept."""
        while True:
            try:
                yield self._idle.pop()
            except IndexError:
                return

    def _put(self, connection: Connection) -> None:
        if connection.info.transaction_status is TransactionStatus.IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Lets go of the sessions that are not in use."""
        for connection in self._sessions():
            connection.close()


class Ask(Protocol):
    """Rows of a query by its name, each by column."""

    def __call__(self, name: str, **values: Any) -> list[dict[str, Any]]:
        """The rows."""


class Reader:
    """A grid as it is committed, for many threads: what it shows was durable when it was asked, whoever wrote it.

    It keeps a state and folds on what is new, so that a look costs the same after 5 million entries as after none.
    """

    def __init__(self, url: str, grid: str, size: int = 8) -> None:
        self.pool = Pool(url, grid, READ, size)
        self._lock = threading.Lock()
        self._state: State | None = None
        self._generation = 0
        self._shown: tuple[int, WorldState] | None = None

    def look(self, question: Callable[[State], T]) -> T:
        """What a question about the state comes to; it must neither change nor keep the state."""
        with self._lock:
            return question(self._current())

    def _current(self) -> State:
        state, self._state = self._state, None  # whatever goes wrong on the way, the next look starts anew
        if state is None or not self.pool.ask(partial(follow, state=state, generation=self._generation)):
            state, self._generation = self.pool.ask(_loaded)
            self._shown = None
        self._state = state
        return state

    def world_state(self, epoch: int | None = None) -> WorldState:
        """The WorldState of now, or as it was at the close of an epoch. Raises BadInput where that has not closed."""
        if epoch is not None:
            at_close = self.pool.ask(lambda connection: state_at(connection, epoch))
            return at_close.world_state(epoch)
        with self._lock:
            state = self._current()
            if self._shown is None or self._shown[0] != state.seq:
                self._shown = (state.seq, state.world_state())
            return self._shown[1]

    def answered(self, id_: str) -> JournalRecord | None:
        """The record that this id led to, or None: the decision of a proposal, or what a request came to."""
        asked = _uuids([id_])
        rows = self.pool.ask(lambda c: c.execute(query("answered"), {"ids": _array(asked)}).fetchall()) if asked else []
        return next((_decoded(body, found) for own, body, found in rows if own == id_), None)

    def record(self, seq: int) -> JournalRecord | None:
        """The record of this number, or None."""
        rows = self.pool.ask(lambda c: c.execute(query("record"), {"seq": seq}).fetchall())
        return next((_decoded(body, found) for body, found in rows), None)

    def entries(self, ids: Sequence[int]) -> list[LedgerEntry]:
        """The entries of these ids that there are, in order."""
        asked = _array(map(str, ids))
        return [_entry(row) for row in self.pool.ask(lambda c: c.execute(query("some"), {"ids": asked}).fetchall())]

    def entries_of(self, proposal_id: str) -> list[LedgerEntry]:
        """The entries that a proposal made, in order; none where it made none."""
        if not _UUID.fullmatch(proposal_id):
            return []
        decided = self.answered(proposal_id)
        settled = self.pool.ask(lambda c: c.execute(query("settlement"), {"id": proposal_id}).fetchall())
        records = [*([] if decided is None else [decided]), *(_decoded(*row) for row in settled)]
        made = [getattr(record.payload, "entries", ()) for record in records]
        return self.entries([id_ for ids in made for id_ in ids])

    def rows(self, name: str, **values: Any) -> list[dict[str, Any]]:
        """Rows of a query by its name, each by column."""

        return self.pool.ask(lambda connection: _by_column(connection.execute(query(name), values)))

    def at_one_moment(self, question: Callable[[Ask], T]) -> T:
        """What a question comes to whose parts are all asked of the same moment; it must be one to be asked twice."""

        def asked(connection: Connection) -> T:
            with _snapshot(connection):
                return question(lambda name, **values: _by_column(connection.execute(query(name), values)))

        return self.pool.ask(asked)

    def close(self) -> None:
        """Lets go of the database."""
        self.pool.close()


def _by_column(cursor: psycopg.Cursor[tuple[Any, ...]]) -> list[dict[str, Any]]:
    keys = [column.name for column in cursor.description or ()]
    return [dict(zip(keys, row, strict=True)) for row in cursor]


def acknowledge(connection: Connection, seq: int, reference: str, at: int) -> None:
    """Notes that an outcome was handed on, as what, and when; the second time changes nothing.

    Raises BadInput where that record is no outcome.
    """
    if connection.execute(query("is_outcome"), {"seq": seq}).fetchone() is None:
        raise BadInput(f"journal record {seq} is no outcome; acknowledge what the outbox lists")
    connection.execute(query("acknowledge"), {"seq": seq, "reference": reference, "at": timestamp(at)})


def _loaded(connection: Connection) -> tuple[State, int]:
    with _snapshot(connection):
        return load_state(connection), _row(connection, "generation")[0]


# --- what the app asks ------------------------------------------------------------------------------------------------


def decided(connection: Connection, ids: Sequence[str], limit: int) -> list[JournalRecord]:
    """The decisions about these proposals, the last first, no more than `limit`."""
    rows = connection.execute(query("decided"), {"ids": _array(ids), "limit": limit}).fetchall()
    return [_decoded(*row) for row in rows]


def settlement_of(connection: Connection, proposal_id: str) -> JournalRecord | None:
    """The record that ended this hold, or None."""
    return _one(connection, "settlement", id=proposal_id)


def close_of(connection: Connection, epoch: int) -> JournalRecord | None:
    """The record that closed this epoch, or None."""
    return _one(connection, "close_of", epoch=epoch)


def history(connection: Connection, since: int, most: int) -> tuple[State, list[JournalRecord], bool]:
    """The state at a time (microseconds), the records from then on, the last `most` of them, and whether that is all.

    Complexity: as `state_after`, and O(records from then on, no more than `most`).
    """
    with _snapshot(connection):
        (head,) = connection.execute(query("last_seq")).fetchone() or (0,)
        (before,) = connection.execute(query("record_before"), {"at": timestamp(since)}).fetchone() or (0,)
        begun = max(1, before)
        first = max(begun, head - most)
        state = state_after(connection, first)
        rows = connection.execute(query("records"), {"after": first, "limit": most}).fetchall()
    return state, [_decoded(body, found) for _, body, found in rows], first == begun


def stood(connection: Connection, seq: int) -> State:
    """The state right after a journal record, see `state_after`, in a snapshot of its own."""
    with _snapshot(connection):
        return state_after(connection, seq)


def balances_after(connection: Connection, asked: Sequence[tuple[int, Sequence[Pair]]]) -> list[dict[Pair, int]]:
    """What was there right after each record: (seq, pairs) in order of seq, minor units; unlisted pairs are absent.

    Complexity: O(entries since the first of the records), so that what is recent costs little.
    """
    pairs = sorted({pair for _, own in asked for pair in own})
    if not pairs:
        return [{} for _ in asked]
    actors = _array(_actor_id(actor) for actor, _ in pairs)
    with _snapshot(connection):
        first, last = (_entry_as_of(connection, asked[place][0]) for place in (0, -1))
        which = {"actors": actors, "resources": _array(_quoted(name) for _, name in pairs), "after": last}
        rows = connection.execute(query("balances_as_of"), which).fetchall()
        between = {"after": first, "until": last, "actors": actors}
        moves = connection.execute(query("moved_between"), between).fetchall() if last > first else []
    held = {(actor, resource): int(amount) for actor, resource, amount in rows}
    found: list[dict[Pair, int]] = []
    moves.reverse()
    for seq, own in reversed(asked):
        while moves and moves[-1][0] > seq:
            _, giver, taker, resource, amount = moves.pop()
            for pair, by in (((giver, resource), amount), ((taker, resource), -amount)):
                if pair in held:
                    held[pair] += int(by)
        found.append({pair: held[pair] for pair in own if pair in held})
    found.reverse()
    return found


def _entry_as_of(connection: Connection, seq: int) -> int:
    row = connection.execute(query("entry_before"), {"seq": seq}).fetchone()
    return 0 if row is None else int(row[0])


# --- shadows and requests ---------------------------------------------------------------------------------------------


def _shadow(row: tuple[Any, ...]) -> Shadow:
    id_, *rest, digest_ = row
    return Shadow._make((*rest, id_, digest_))


def add_shadow(connection: Connection, shadow_: Shadow, interaction: Interaction | None) -> Shadow:
    """Adds a row with its exchange, one at a time and durably; what was there under its id before stays, and is it."""
    with connection.transaction():
        connection.execute(query("shadows_lock"))
        known = shadow(connection, shadow_.proposal_id)
        if known is not None:
            return known
        last = connection.execute(query("last_shadow")).fetchone() or (0, START)
        added = shadow_._replace(exchange=None if interaction is None else interaction.digest)
        added = added.sealed(last[0] + 1, last[1])
        connection.execute(query("add_shadow"), {**added._asdict(), "at": timestamp(added.at)})
        if interaction is not None:
            with connection.cursor().copy(query("copy_interactions").encode()) as copy:
                copy.write(interaction.line())
    return added


def shadow(connection: Connection, proposal_id: str) -> Shadow | None:
    """What a shadow proposed under this id, or None."""
    row = connection.execute(query("shadow"), {"proposal_id": proposal_id}).fetchone()
    return None if row is None else _shadow(row)


def shadows_of(connection: Connection, ids: Sequence[str], limit: int) -> list[Shadow]:
    """What shadows proposed under these ids, the last first, no more than `limit`."""
    return [_shadow(row) for row in connection.execute(query("shadows_of"), {"ids": _array(ids), "limit": limit})]


def shadows_page(connection: Connection, **asked: Any) -> list[Shadow]:
    """What shadows proposed, in order of id: after, limit, and outcome, proposer and epoch, None for all."""
    return [_shadow(row) for row in connection.execute(query("shadows_page"), asked)]


def last_shadow(connection: Connection) -> int:
    """The number of the last row, 0 where there is none."""
    row = connection.execute(query("last_shadow")).fetchone()
    return 0 if row is None else int(row[0])


def keep_request(connection: Connection, handed: Handed) -> None:
    """Keeps a request that is handed out; the second time changes nothing."""
    values = {**handed._asdict(), "at": timestamp(handed.at), "digest": handed.digest}
    connection.execute(query("add_request"), values)


def request(connection: Connection, request_key: str) -> tuple[bytes, str] | None:
    """Body and `about` of a request that was handed out, or None."""
    return connection.execute(query("request"), {"request_key": request_key}).fetchone()


# --- keys -------------------------------------------------------------------------------------------------------------


class Key(NamedTuple):
    """A row of keys; `digest` is the sha256 of its secret."""

    id: str
    name: str
    digest: bytes
    scopes: tuple[str, ...]
    mandate: tuple[str, ...] | None
    revoked: bool = False


def add_key(connection: Connection, key_: Key, at: str) -> bool:
    """Adds a key; False where its name was used before."""
    mandate = None if key_.mandate is None else list(key_.mandate)
    values = {"id": key_.id, "name": key_.name, "digest": key_.digest, "scopes": list(key_.scopes), "mandate": mandate}
    return connection.execute(query("add_key"), {**values, "at": at}).fetchone() is not None


def key(connection: Connection, id_: str) -> Key | None:
    """The key with this id, or None."""
    row = connection.execute(query("key"), {"id": id_}).fetchone()
    if row is None:
        return None
    found, name, digest_, scopes, mandate, revoked = row
    return Key(found, name, digest_, tuple(scopes), None if mandate is None else tuple(mandate), revoked)


def keys(connection: Connection) -> list[tuple[Any, ...]]:
    """All keys: (id, name, scopes, mandate, created_at, revoked_at), oldest first."""
    return connection.execute(query("keys")).fetchall()


def revoke_key(connection: Connection, key_: str, at: str) -> bool:
    """Ends a key by its id or name; False where there is none."""
    return connection.execute(query("revoke_key"), {"key": key_, "at": at}).fetchone() is not None
