"""The grid in Postgres: sessions, migrations, one total order, group commit; nothing is decided here.

The only importer of the driver. All SQL is in `sql/postgres`, and asked for by name (`queries`); what is written
is made in `rows`, what is read becomes records and states in `stored` and `standing`.

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
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, Self, TypeVar

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult

from gridgov.batch import Answer, Batch, Call, Calls, Committed, Desk
from gridgov.beside import Handed, Interaction, Key, Shadow
from gridgov.engine import Engine
from gridgov.errors import BadInput, Damaged, GridgovError, Misplaced, Unreachable
from gridgov.journal import START, Genesis, JournalRecord, Registration
from gridgov.model import LedgerEntry
from gridgov.queries import migrations, query, snapshot
from gridgov.reader import Ask, Reading
from gridgov.replay import Columns, chain, follow
from gridgov.rows import Rows, Statement, array
from gridgov.standing import catch_up, load_state
from gridgov.state import State
from gridgov.stored import answered_by, columns_of, decoded, entries_after, lines, record_by, records_after, row_by

__all__ = [  # what lives below and belongs to what is here may be asked for here, too
    "APP", "READ", "Ask", "Committed", "Connection", "Handed", "Interaction", "Key", "Misplaced", "Pool",
    "PostgresLedger", "Reader", "Shadow", "Unreachable", "Writer", "columns", "connect", "drop", "entries_after",
    "lines", "load_state", "migrate", "migrations", "query", "rebuild", "records_after", "session_variables",
]  # fmt: skip

APP = "gridgov_app"
"""The role that writes: it may add to the journal and the ledger, and change nothing there."""

READ = "gridgov_read"
"""The role that reads."""

BATCH = 512
"""Most commands that share a commit."""

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

LOOK_AGAIN_MS = 1_000
"""Nobody waits longer for the server at once: a wake-up that got lost was seen to cost minutes, and so costs this."""

Connection = psycopg.Connection[tuple[Any, ...]]
T = TypeVar("T")

_reports = logging.getLogger(__name__)
_GRID = re.compile(r"(?!pg_|information_schema$)[a-z][a-z0-9_-]{0,62}")


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
            client_encoding="UTF8",
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


# --- what the server is sent ------------------------------------------------------------------------------------------

Steps = Generator[None, None, PGresult | None]
"""Goes on with each `next` as far as it can without waiting for the server, and returns the last result.

This is how a batch is written while the next one is run, in one thread: two would wait for each other's interpreter.
"""


def _execution(pg: PGconn, statement: Statement, prepared: Collection[str] = ()) -> Steps:
    """Sends a statement. Raises what the server says, and Damaged where it touches other rows than it must."""
    values = [value.encode() for value in statement.values]
    if statement.name in prepared:
        pg.send_query_prepared(statement.name.encode(), values)
    elif values:
        pg.send_query_params(query(statement.name).encode(), values)
    else:
        pg.send_query(query(statement.name).encode())
    last, data = None, iter(statement.data)
    while (result := (yield from _next_result(pg))) is not None:
        if result.status == ExecStatus.COPY_IN:
            pg.put_copy_data(next(data).encode())
            pg.put_copy_end()
        elif result.status in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
            last = result
        else:
            yield from _drained(pg)
            raise psycopg.errors.error_from_result(result)
    if statement.touched is not None and last is not None and last.command_tuples != statement.touched:
        raise Damaged(f"{last.command_tuples} balances were moved instead of {statement.touched}; "
                      f"run `gridgov verify postgres`")  # fmt: skip
    return last


def _preparation(pg: PGconn, name: str) -> Steps:
    """Has the server plan a query once; where it has one parameter, that may be written as the driver does."""
    pg.send_prepare(name.encode(), re.sub(r"%\(\w+\)s", "$1", query(name)).encode())
    result = yield from _next_result(pg)
    assert result is not None, "a statement has a result"
    yield from _drained(pg)
    if result.status != ExecStatus.COMMAND_OK:
        raise psycopg.errors.error_from_result(result)
    return result


def _drained(pg: PGconn) -> Steps:
    """Takes what else the server says, up to its end: only then is a session free for the next statement."""
    with suppress(psycopg.OperationalError):  # one that is over says no more; why, was said before
        while (yield from _next_result(pg)) is not None:
            pass
    return None


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
    """Until the server says something, or takes more, or so much time has passed; whoever waits looks again."""
    poll = select.poll()
    poll.register(pg.socket, select.POLLIN | (select.POLLOUT if pg.flush() else 0))
    poll.poll(LOOK_AGAIN_MS if timeout_ms is None else timeout_ms)


def _finished(connection: Connection, steps: Steps) -> PGresult | None:
    """Goes on to the end, and returns the last result."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: PGresult | None = done.value
            return result
        _wait(connection.pgconn)


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
            _finished(connection, _drained(pg))
            raise psycopg.errors.error_from_result(result)
    return b"".join(parts)


def columns(connection: Connection) -> Columns:
    """The whole ledger in columns of int64 minor units, in order of id, for `replay.balances_at` and the like.

    Actors and resources are in order of name. Memory: about 200 bytes for each entry while it is read.
    Raises Damaged where a row has an unknown actor or resource, or an amount beyond its scale.
    """
    with snapshot(connection):
        actors = sorted(key for (key,) in connection.execute(query("actor_keys")))
        resources = sorted(name for name, _ in connection.execute(query("scales")))
        data = _copied_out(connection, "copy_columns")
    return columns_of(data, actors, resources)


# --- the ledger of one engine -----------------------------------------------------------------------------------------


class PostgresLedger(Desk):
    """The grid's ledger for one engine alone: each commit is one transaction. For many threads, see `Writer`.

    Another writer is found at the next commit, which then raises Damaged; nothing is ever mixed.
    """

    def __init__(self, url: str, grid: str) -> None:
        self.grid = grid
        self.connection = connection = connect(url, grid)
        with _closed_on_failure(connection), snapshot(connection):
            self.head = _head(connection)
            scales: dict[str, int] = dict(connection.execute(query("scales")).fetchall())
            listed = {(actor, resource) for actor, resource, _ in connection.execute(query("balances"))}
        super().__init__(partial(answered_by, connection), self.head[0], scales, listed)
        self._unwritten: list[Statement] = []

    def append(self, record: JournalRecord, entries: Sequence[LedgerEntry]) -> None:
        """Takes the record that follows the last one, with its entries; it counts once committed."""
        super().append(record, entries)
        self._last = record.digest

    def commit(self) -> None:
        """Makes everything that was appended durable, all of it or nothing. Raises Damaged or Unreachable.

        What was refused is asked for again at the next commit: what came after it cannot do without.
        """
        if self.rows.journal or self._unwritten:
            with _told("appending to the ledger"):
                try:
                    found, _ = _begin(self.connection)
                    if found != self.head:
                        raise Damaged(f"somebody else writes to this grid: its head is record {found[0]}, "
                                      f"not {self.head[0]}; run one at a time")  # fmt: skip
                    sent = self.sent
                    self._unwritten += self.pass_on()
                    self.sent = sent | self.sent
                    for statement in self._unwritten:
                        _finished(self.connection, _execution(self.connection.pgconn, statement))
                except BaseException:
                    _roll_back(self.connection)
                    raise
                self.connection.execute(query("commit"))
            self.head, self._unwritten = (self.seq, self._last), []
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

    For the owner of the schema, not for the app's role. Raises Damaged where the journal is no chain, or a record of
    it cannot follow: nothing is changed then. Complexity: O(journal), under the lock.
    """
    with _connect(url, grid) as connection, _told(f"rebuilding grid {grid}"):
        _set_up(connection, grid, idle_ms=0)
        _check_migrated(connection, grid)
        _begin(connection)
        state, rows = State(), Rows()
        for record in chain(lines(connection)):
            follow(state, record)
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
    record = record_by(connection, "head")
    return (0, START) if record is None else (record.seq, record.digest)


def _begin(connection: Connection) -> tuple[tuple[int, bytes], int]:
    """Begins a batch: takes the lock, and returns the head (seq, digest) and the generation as they are under it."""
    found = _finished(connection, _execution(connection.pgconn, Statement("begin")))
    assert found is not None, "the generation is always there"
    seq, digest_, generation = (_value(found, 0, column) for column in range(3))
    return (int(seq), _bytes(digest_) or START), int(generation)


def _value(result: PGresult, row: int, column: int) -> str:
    """A value as the server writes it; empty for NULL."""
    return (result.get_value(row, column) or b"").decode()


def _bytes(text: str) -> bytes:
    """Bytes as the server writes them: the hex of each, after a mark."""
    return bytes.fromhex(text[2:])


def _roll_back(connection: Connection) -> None:
    if not connection.broken:
        with suppress(psycopg.OperationalError):
            connection.execute(query("rollback"))


# --- group commit -----------------------------------------------------------------------------------------------------


PREPARED = ("answered", "move_balances")
"""What each batch asks and is the same but for its values: a session's server plans it once."""


class _Session:
    """A connection, and the engine that is as far as the database was when it last looked."""

    def __init__(self, url: str, grid: str) -> None:
        self.connection = connect(url, grid)
        self.connection.prepare_threshold = None  # else the driver, at a ROLLBACK, drops all that is prepared: ours too
        self.transit: _Transit | None = None
        with _closed_on_failure(self.connection):
            for name in PREPARED:
                self._finish(_preparation(self.connection.pgconn, name))
            with snapshot(self.connection):
                self.desk, self.engine = self._load()

    def _load(self) -> tuple[Desk, Engine]:
        """An engine that is where the database is."""
        (self.generation,) = row_by(self.connection, "generation")
        state = load_state(self.connection)
        scales = {name: resource.scale for name, resource in state.resources.items()}
        listed = {(actor, resource) for resource, held in state.balances.items() for actor in held}
        desk = Desk(self._search, state.seq, scales, listed)
        engine = Engine(desk)
        engine.state = state
        return desk, engine

    def _search(self, ids: Sequence[str]) -> list[tuple[str, JournalRecord]]:
        if self.transit is not None:
            self.transit.finish()  # it has the connection
        found = self._execute(Statement("answered", values=(array(ids),)))
        rows = [[_value(found, row, column) for column in range(3)] for row in range(found.ntuples)]
        return [(id_, decoded(body, _bytes(digest_))) for id_, body, digest_ in rows]

    def _execute(self, statement: Statement) -> PGresult:
        return self._finish(_execution(self.connection.pgconn, statement, PREPARED))

    def _finish(self, steps: Steps) -> PGresult:
        last = _finished(self.connection, steps)
        assert last is not None, "each statement has a result"
        return last

    def run(self, calls: Calls) -> Batch:
        """Begins a batch, runs its commands in order, and writes what they appended; all but the commit."""
        head, generation = _begin(self.connection)
        state, same = self.engine.state, generation == self.generation
        if same and head == (state.seq, state.digest):
            pass
        elif not same or not catch_up(self.connection, state, generation, self.desk.taken):
            self.desk, self.engine = self._load()
        ids = [call.proposal_id for call in calls if call.proposal_id is not None]
        self.desk.look_up(ids)
        spoilt: dict[int, Exception] = {}
        while (batch := self._all(calls, spoilt)) is None:
            self.desk, self.engine = self._load()
            self.desk.look_up(ids)
        for statement in self.desk.pass_on():
            self._execute(statement)
        return batch

    def _all(self, calls: Calls, spoilt: dict[int, Exception]) -> Batch | None:
        """Runs all but those that spoilt the engine before; None where another one does."""
        batch = Batch(self.engine.state)
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

    def commit(self, batch: Batch) -> None:
        """Makes the batch durable; one without records has nothing to wait for."""
        self._execute(Statement("commit" if batch.records else "rollback"))
        self.desk.written()


class _Spoilt(Exception):
    """A command failed half way, for this cause: what it did cannot be undone, only done without."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


class _Overtaken(Exception):
    """Somebody else wrote before this batch did, which was run without knowing it."""


def _as_sent(seq: int, digest_: bytes, generation: int) -> tuple[bytes | None, ...]:
    """The head of a journal, and the generation, as the server writes them."""
    return b"%d" % seq, b"\\x" + digest_.hex().encode() if seq else None, b"%d" % generation


class _Transit:
    """A batch that Postgres writes while the next one is run.

    It was run before the lock was taken: if the head is not where it began, somebody else was faster. A batch without
    records is only looked after: what it answers must be as of a head that still is one.
    """

    def __init__(self, connection: Connection, batch: Batch, statements: list[Statement], generation: int) -> None:
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
            yield from _execution(self._pg, statement, PREPARED)
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
        batch, fresh = Batch(session.engine.state), deque[Call[Any]]()
        try:
            while True:
                if more:
                    calls, more = self._take(self._batch - len(batch.calls), wait=False)
                    fresh.extend(calls)
                while fresh:
                    desk.assumed = fresh[0].proposal_id
                    batch.add(fresh[0], session.answer(fresh[0]))
                    fresh.popleft()
                    if session.transit is not None and not len(fresh) & 3 and session.transit.poll():
                        self._arrived(session)
                desk.assumed = None
                if session.transit is None and not batch.calls:
                    return more
                if session.transit is None:
                    batch.sealed(session.engine.state)
                    session.transit = _Transit(session.connection, batch, desk.pass_on(), session.generation)
                    batch = Batch(session.engine.state)
                    session.transit.poll()
                elif session.transit.wait(RUSH_MS if more and len(batch.calls) < self._batch else None):
                    self._arrived(session)
        except Exception as error:  # noqa: BLE001 - `_settle` finds out what it is, command by command
            self._recover(session, error, [*batch.calls, *fresh])
            return more

    def _arrived(self, session: _Session) -> None:
        """The batch in transit is committed."""
        transit, session.transit = session.transit, None
        assert transit is not None, "asked for only where there is one"
        session.desk.written()
        self._answer(transit.batch)

    def _recover(self, session: _Session, error: Exception, others: list[Call[Any]]) -> None:
        """Settles what a rush left unanswered, those in transit first."""
        transit, sent = session.transit, None
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

    def _settle(self, calls: Calls, sent: Batch | None = None) -> None:
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

    def _answer(self, batch: Batch) -> None:
        """Gives the answers of a batch that is committed."""
        for call, (value, error) in zip(batch.calls, batch.answers, strict=True):
            call.answer(value, error)
        if self._on_commit is not None:
            seconds = time.perf_counter() - batch.begun
            try:
                self._on_commit(Committed(len(batch.calls), batch.records, seconds, batch.head[0], batch.entries))
            except Exception:  # noqa: BLE001 - whoever watches must not stop who writes
                _reports.exception("on_commit failed")

    def _persist(self, calls: Calls, sent: Batch | None) -> Batch:
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


class Reader(Reading):
    """A grid as it is committed, for many threads, over sessions of its own."""

    def __init__(self, url: str, grid: str, size: int = 8) -> None:
        super().__init__(Pool(url, grid, READ, size))
