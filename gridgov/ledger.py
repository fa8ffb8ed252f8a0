"""What a ledger is to the engine, and the one that lives in memory; nothing is decided here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Protocol

from gridgov.journal import Decision, Flow, JournalRecord, Override, Payload, Reversal, Settlement, answers
from gridgov.model import LedgerEntry


def metadata(payload: Payload, proposer_of: Callable[[str], str]) -> str:
    """Where the entries of a record come from, as JSON; `proposer_of` knows who proposed what was held."""
    if type(payload) is Decision:
        return _metadata("proposer", payload.proposer)
    if type(payload) is Flow:
        return _metadata("flow", payload.name, payload.read_for)
    if type(payload) is Settlement:
        return _metadata("proposer", proposer_of(payload.proposal_id))
    if type(payload) is Override or type(payload) is Reversal:
        return _metadata("operator", payload.operator)
    return "{}"


@lru_cache(maxsize=65536)
def _metadata(key: str, name: str, read_for: int | None = None) -> str:
    late = {} if read_for is None else {"read_for": read_for}
    return json.dumps({key: name, **late}, ensure_ascii=False)


class Ledger(Protocol):
    """An append-only journal with its entries: what was appended and committed is never changed or lost."""

    def append(self, record: JournalRecord, entries: Sequence[LedgerEntry]) -> None:
        """Takes the record that follows the last one, with its entries; it counts once committed."""

    def commit(self) -> None:
        """Makes everything that was appended durable, all of it or nothing."""

    def records(self) -> Iterator[JournalRecord]:
        """All committed records, in order of seq."""

    def entries(self) -> Sequence[LedgerEntry]:
        """All committed entries, in order of id."""

    def answered(self, id_: str) -> JournalRecord | None:
        """The record that this led to, or None: the id of a proposal, or `journal.by_request` of a request."""


class MemoryLedger:
    """A ledger in memory: what simulations run on."""

    def __init__(self) -> None:
        self._records: list[JournalRecord] = []
        self._entries: list[LedgerEntry] = []
        self._answered: dict[str, JournalRecord] = {}

    def append(self, record: JournalRecord, entries: Sequence[LedgerEntry]) -> None:
        """Takes the record that follows the last one, with its entries."""
        assert record.seq == len(self._records) + 1, "records come in order, without gaps"
        self._records.append(record)
        self._entries += entries
        id_ = answers(record)
        if id_ is not None:
            self._answered[id_] = record

    def commit(self) -> None:
        """Nothing is more durable than memory here."""

    def records(self) -> Iterator[JournalRecord]:
        """All records, in order of seq."""
        return iter(self._records)

    def entries(self) -> Sequence[LedgerEntry]:
        """All entries, in order of id."""
        return self._entries

    def answered(self, id_: str) -> JournalRecord | None:
        """The record that this id led to, or None."""
        return self._answered.get(id_)
