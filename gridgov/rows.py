"""Records and entries as the rows that Postgres is sent; whose they are and where they go is known elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from gridgov.amounts import plain
from gridgov.journal import Decision, Genesis, JournalRecord, Payload, Registration
from gridgov.model import BOUNDARY, LedgerEntry, Resource, uuid5
from gridgov.wire import timestamp

Pair = tuple[str, str]
"""An actor and a resource."""

NULL = "\\N"

actor_id = lru_cache(maxsize=65536)(uuid5)
time_of = lru_cache(maxsize=1024)(timestamp)


@lru_cache(maxsize=65536)
def escaped(text: str) -> str:
    """A text as COPY reads it; the few that come again and again."""
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def array(texts: Iterable[str]) -> str:
    """An array as Postgres reads it; several times as fast as the driver's own."""
    return f"{{{','.join(texts)}}}"


@lru_cache(maxsize=65536)
def quoted(text: str) -> str:
    """Any text as an element of an array."""
    inner = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inner}"'


def hexed(data: bytes) -> str:
    """Bytes as COPY reads them."""
    return f"\\\\x{data.hex()}"


class Statement(NamedTuple):
    """What is sent at once: a query by its name, what each COPY in it takes, its values, and the rows it must touch."""

    name: str
    data: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    touched: int | None = None


def _transposed(lines: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Columns, each an array as Postgres reads it."""
    return tuple(array(column) for column in zip(*lines, strict=True))


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
        proposal_id = outcome = request = NULL
        if type(payload) is Decision:
            proposal_id, outcome = payload.proposal_id, payload.outcome.value
        else:
            proposal_id, outcome, request = (NULL if own is None else own for own in about(payload))
            if type(payload) is Genesis or type(payload) is Registration:
                self.know(payload, record.seq)
        at, body = time_of(record.at), record.body
        if "\\" in body:
            body = body.replace("\\", "\\\\")
        self.journal.append(
            f"{record.seq}\t{record.epoch}\t{record.kind}\t{at}\t{proposal_id}\t{outcome}\t{request}\t{body}\t{hexed(record.digest)}\n"
        )
        moved = self.moved
        for id_, proposed, giver, taker, resource, amount, _, seq, epoch, kind in entries:
            self.ledger.append(
                f"{id_}\t{proposed or NULL}\t{actor_id(giver)}\t{actor_id(taker)}\t{escaped(resource)}\t"
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
            actors = [(actor_id(k), quoted(k), quoted(own[0]), str(own[1])) for k, own in self.actors.items()]
            found.append(Statement("add_actors", values=_transposed(actors)))
        if self.resources:
            resources = [(quoted(name), quoted(unit), str(scale)) for name, unit, scale in self.resources]
            found.append(Statement("add_resources", values=_transposed(resources)))
        there = [pair for pair, by in self.moved.items() if by and pair in listed]
        new = [pair for pair in self.moved if pair not in listed]
        for name, pairs in (("move_balances", there), ("add_balances", new)):
            if pairs:
                moved = [(actor_id(a), quoted(r), plain(self.moved[a, r], scales[r])) for a, r in pairs]
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
