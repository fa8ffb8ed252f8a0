"""What a ledger is to the engine, and the one that lives in memory; nothing is decided here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from gridgov.journal import Decision, JournalRecord
from gridgov.model import LedgerEntry


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

    def decision(self, proposal_id: str) -> Decision | None:
        """What was decided under this id, or None."""


class MemoryLedger:
    """A ledger in memory: what simulations run on."""

    def __init__(self) -> None:
        self._records: list[JournalRecord] = []
        self._entries: list[LedgerEntry] = []
        self._decisions: dict[str, Decision] = {}

    def append(self, record: JournalRecord, entries: Sequence[LedgerEntry]) -> None:
        """Takes the record that follows the last one, with its entries."""
        assert record.seq == len(self._records) + 1, "records come in order, without gaps"
        self._records.append(record)
        self._entries += entries
        payload = record.payload
        if type(payload) is Decision:
            self._decisions[payload.proposal_id] = payload

    def commit(self) -> None:
        """Nothing is more durable than memory here."""

    def records(self) -> Iterator[JournalRecord]:
        """All records, in order of seq."""
        return iter(self._records)

    def entries(self) -> Sequence[LedgerEntry]:
        """All entries, in order of id."""
        return self._entries

    def decision(self, proposal_id: str) -> Decision | None:
        """What was decided under this id, or None."""
        return self._decisions.get(proposal_id)
