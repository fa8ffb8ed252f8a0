"""What a batch is before the database sees it: commands and their answers, and the desk where records wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, Self, TypeVar

from gridgov.beside import Interaction
from gridgov.engine import Engine
from gridgov.errors import Unreachable
from gridgov.journal import Decision, Genesis, JournalRecord, answers
from gridgov.ledger import metadata
from gridgov.model import LedgerEntry
from gridgov.rows import Pair, Rows, Statement, declared, escaped
from gridgov.state import State
from gridgov.stored import uuids

RECENT = 10_000
"""So many decisions are kept at hand: who asks again mostly does so soon."""

T = TypeVar("T")

Search = Callable[[Sequence[str]], Iterable[tuple[str, JournalRecord]]]
"""Asks the database what ids led to: those that led to anything, with the record."""


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


class Committed(NamedTuple):
    """What a batch came to: how many commands it answered, how many records they made, and how long it took."""

    commands: int
    records: int
    seconds: float
    seq: int
    entries: int


class Batch:
    """Commands that were run, what they came to, and between which records: (seq, digest)."""

    def __init__(self, state: State) -> None:
        self.begun = time.perf_counter()
        self.calls: list[Call[Any]] = []
        self.answers: list[Answer] = []
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


class Desk:
    """Where an engine's records wait for their transaction: the Ledger that it sees, and how its rows are written.

    `listed` are the balances that have a row. `decided` is what this batch decided, `sent` what the one before did that
    Postgres still writes, `recent` what was committed last, `known` what was looked up. `assumed` is an id that is
    taken to be new: if it is not, the database refuses the batch.
    """

    def __init__(self, search: Search, seq: int, scales: dict[str, int], listed: set[Pair]) -> None:
        self._search = search
        self.seq = seq
        self.scales = scales
        self.listed = listed
        self.rows = Rows()
        self.decided: dict[str, JournalRecord] = {}
        self.sent: dict[str, JournalRecord] = {}
        self.recent: dict[str, JournalRecord] = {}
        self.known: dict[str, JournalRecord | None] = {}
        self.assumed: str | None = None

    def append(self, record: JournalRecord, entries: Sequence[LedgerEntry]) -> None:
        """Takes the record that follows the last one, with its entries; it counts once committed."""
        assert record.seq == self.seq + 1, "records come in order, without gaps"
        payload = record.payload
        if type(payload) is Genesis:
            self.scales = {resource.name: resource.scale for resource in payload.resources}
        id_ = answers(record)
        if id_ is not None:
            self.decided[id_] = record
        self.rows.add(record, entries, self.scales, escaped(metadata(payload, self._proposer)))
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
        self.known |= dict.fromkeys(ids)
        asked = uuids(ids)
        if asked:
            self.known |= {id_: record for id_, record in self._search(asked) if id_ in self.known}

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
