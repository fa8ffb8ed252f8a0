"""A grid as it is committed, asked by many threads: now, at a close, by id, or several things of one moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from gridgov.journal import JournalRecord
from gridgov.model import LedgerEntry, WorldState
from gridgov.queries import Cursor, Session, query, snapshot
from gridgov.rows import array
from gridgov.standing import catch_up, load_state, state_at
from gridgov.state import State
from gridgov.stored import UUID, answered_by, decoded, entry_of, row_by, uuids

T = TypeVar("T")


class Sessions(Protocol):
    """Where sessions in a grid come from; `postgres.Pool` is one."""

    grid: str

    def ask(self, question: Callable[[Session], T]) -> T:
        """What a question to the database comes to; it must be one that can be asked twice."""

    def close(self) -> None:
        """Lets go of them."""


class Ask(Protocol):
    """Rows of a query by its name, each by column."""

    def __call__(self, name: str, **values: Any) -> list[dict[str, Any]]:
        """The rows."""


class Reading:
    """A grid as it is committed, for many threads: what it shows was durable when it was asked, whoever wrote it.

    It keeps a state and folds on what is new, so that a look costs the same after 5 million entries as after none.
    """

    def __init__(self, pool: Sessions) -> None:
        self.pool = pool
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
        if state is None or not self.pool.ask(partial(catch_up, state=state, generation=self._generation)):
            state, self._generation = self.pool.ask(_loaded)
            self._shown = None
        self._state = state
        return state

    def world_state(self, epoch: int | None = None) -> WorldState:
        """The WorldState of now, or as it was at the close of an epoch. Raises BadInput where that has not closed."""
        if epoch is not None:
            at_close = self.pool.ask(lambda session: state_at(session, epoch))
            return at_close.world_state(epoch)
        with self._lock:
            state = self._current()
            if self._shown is None or self._shown[0] != state.seq:
                self._shown = (state.seq, state.world_state())
            return self._shown[1]

    def answered(self, id_: str) -> JournalRecord | None:
        """The record that this id led to, or None: the decision of a proposal, or what a request came to."""
        asked = uuids([id_])
        found = self.pool.ask(lambda session: answered_by(session, asked)) if asked else []
        return next((record for own, record in found if own == id_), None)

    def record(self, seq: int) -> JournalRecord | None:
        """The record of this number, or None."""
        rows = self.pool.ask(lambda c: c.execute(query("record"), {"seq": seq}).fetchall())
        return next((decoded(body, found) for body, found in rows), None)

    def entries(self, ids: Sequence[int]) -> list[LedgerEntry]:
        """The entries of these ids that there are, in order."""
        asked = array(map(str, ids))
        return [entry_of(row) for row in self.pool.ask(lambda c: c.execute(query("some"), {"ids": asked}).fetchall())]

    def entries_of(self, proposal_id: str) -> list[LedgerEntry]:
        """The entries that a proposal made, in order; none where it made none."""
        if not UUID.fullmatch(proposal_id):
            return []
        decided = self.answered(proposal_id)
        settled = self.pool.ask(lambda c: c.execute(query("settlement"), {"id": proposal_id}).fetchall())
        records = [*([] if decided is None else [decided]), *(decoded(*row) for row in settled)]
        made = [getattr(record.payload, "entries", ()) for record in records]
        return self.entries([id_ for ids in made for id_ in ids])

    def rows(self, name: str, **values: Any) -> list[dict[str, Any]]:
        """Rows of a query by its name, each by column."""
        return self.pool.ask(lambda session: _by_column(session.execute(query(name), values)))

    def at_one_moment(self, question: Callable[[Ask], T]) -> T:
        """What a question comes to whose parts are all asked of the same moment; it must be one to be asked twice."""

        def asked(session: Session) -> T:
            with snapshot(session):
                return question(lambda name, **values: _by_column(session.execute(query(name), values)))

        return self.pool.ask(asked)

    def close(self) -> None:
        """Lets go of the database."""
        self.pool.close()


def _by_column(cursor: Cursor) -> list[dict[str, Any]]:
    keys = [column.name for column in cursor.description or ()]
    return [dict(zip(keys, row, strict=True)) for row in cursor]


def _loaded(session: Session) -> tuple[State, int]:
    with snapshot(session):
        return load_state(session), row_by(session, "generation")[0]
