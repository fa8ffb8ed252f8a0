"""The ledger of somebody else, as CSV, turned into a journal in memory, so that it can be replayed and re-judged.

Columns are those of `ledger`: id, proposal_id, actor_from, actor_to, resource, amount, executed_at; epoch and kind too
where they are there, and metadata, seq and run_id, which are not read. In order of id:

- `grid` is the boundary (or its UUID, as Postgres has it): what comes from it is produced (or grown), what goes to it
  is consumed (or spilled). Rows between others are transfers: those of one proposal_id are one executed proposal, a row
  without one is a proposal of its own. A proposal_id that is no UUID becomes one, `uuid5` of its text.
- Rows of kind genesis, which come first, are the opening balances. Without any they are not known: each actor begins
  with as little as makes the ledger possible, and the note says so.
- Without a column epoch, each day (UTC) is an epoch, from that of the first row on.
- A resource has as many decimals as the row with the most has. There are no constraints: nobody knows them.
"""

from __future__ import annotations

import csv
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import NamedTuple

from gridgov import flows
from gridgov.amounts import LIMIT, SCALE_MAX, exponent, to_minor
from gridgov.engine import Engine
from gridgov.errors import BadInput
from gridgov.journal import Genesis, JournalRecord
from gridgov.ledger import MemoryLedger
from gridgov.model import (
    BOUNDARY,
    BOUNDARY_TYPE,
    Actor,
    Constraints,
    Kind,
    Outcome,
    Proposal,
    Resource,
    Transfer,
    uuid5,
)
from gridgov.wire import microseconds

NEEDED = ("id", "proposal_id", "actor_from", "actor_to", "resource", "amount", "executed_at")
ALSO = ("epoch", "kind", "metadata", "seq", "run_id")

PROPOSER, UNIT_DAY = "ledger", 86_400_000_000
"""Who proposed, as nobody says; and an epoch in microseconds where days are epochs."""

_EPOCHS_MAX = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_AMOUNT = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,2})?")
_KINDS = tuple(kind.value for kind in Kind)
_GRID = uuid5(BOUNDARY)
_GIVEN, _TAKEN = (Kind.GENESIS, Kind.PRODUCE, Kind.GROW), (Kind.CONSUME, Kind.SPILL)
"""What comes from the boundary, and what goes to it."""


class Row(NamedTuple):
    """One entry of the ledger, with the line where it is; `amount` is in units, `at` in microseconds."""

    line: int
    id: int
    proposal_id: str
    actor_from: str
    actor_to: str
    resource: str
    amount: Decimal
    at: int
    epoch: int
    kind: str


class Foreign(NamedTuple):
    """The journal, and what had to be assumed; "" where nothing was."""

    records: list[JournalRecord]
    note: str


def journal(lines: Iterable[str], name: str) -> Foreign:
    """The journal of a CSV file, given as its lines; `name` is what errors call it.

    Raises BadInput with line and column where a row is no entry, or cannot follow those before it.
    """
    rows = _ordered(list(_rows(lines, name)), name)
    scales: dict[str, int] = {}
    for row in rows:
        scales[row.resource] = max(scales.get(row.resource, 0), -exponent(row.amount))
    for row in rows:
        if _minor(row, scales) >= LIMIT:
            raise BadInput(
                f"{name}: line {row.line}, amount: has more than 15 digits, with the decimals of {row.resource}"
            )
    first = next((i for i, row in enumerate(rows) if row.kind != Kind.GENESIS), len(rows))
    opening, assumed = _opening(rows, first, scales)
    for (actor, resource), amount in opening.items():
        if amount >= LIMIT:
            raise BadInput(f"{name}: {actor} would begin with more than 15 digits of {resource}; expected less")
    names = {actor: None for row in rows for actor in (row.actor_from, row.actor_to) if actor != BOUNDARY}
    actors = (Actor(BOUNDARY, BOUNDARY_TYPE), *(Actor(each, "actor") for each in names))
    resources = tuple(Resource(each, each, scale) for each, scale in scales.items())
    start = rows[0].at - rows[0].at % UNIT_DAY
    engine = Engine(MemoryLedger())
    lines_of = tuple((actor, resource, amount) for (actor, resource), amount in opening.items())
    engine.append(Genesis(0, start, UNIT_DAY, actors, resources, Constraints(), lines_of, {}), start)
    _play(engine, rows[first:], scales, name)
    return Foreign(list(engine.ledger.records()), f"{name}: {assumed}" if assumed else "")


def _rows(lines: Iterable[str], name: str) -> Iterator[Row]:
    """The rows as they are written, each checked by itself."""
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, [])
        missing = [column for column in NEEDED if column not in header]
        other = [column for column in header if column not in NEEDED + ALSO]
        if missing or other or len(set(header)) < len(header):
            found = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(other) or 'a column twice'}"
            if len(header) == 1:
                found = "is one cell"  # tabs or semicolons
            raise BadInput(f"{name}: line 1: the header {found}; expected, between commas, {', '.join(NEEDED)}, and "
                           f"also: {', '.join(ALSO)}")  # fmt: skip
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise BadInput(
                    f"{name}: line {reader.line_num}: {len(cells)} cells; expected {len(header)} as in line 1"
                )
            yield _row(dict(zip(header, cells, strict=True)), reader.line_num, name)
    except csv.Error as error:
        raise BadInput(f"{name}: line {reader.line_num}: is no CSV ({error})") from None


def _row(cells: dict[str, str], line: int, name: str) -> Row:
    return _Cells(cells, f"{name}: line {line}").row(line)


class _Cells:
    """The cells of one row by column; each method reads some of them, or raises BadInput."""

    def __init__(self, cells: dict[str, str], where: str) -> None:
        self.cells, self.where = cells, where

    def bad(self, column: str, expected: str) -> BadInput:
        found = self.cells.get(column, "")[:80]
        return BadInput(f"{self.where}, {column}: found {found!r}; expected {expected}")

    def row(self, line: int) -> Row:
        giver, taker = self.actor("actor_from"), self.actor("actor_to")
        if giver == taker:
            raise self.bad("actor_to", "another actor than actor_from")
        proposal_id = self.cells["proposal_id"]
        with suppress(ValueError):  # one id, however it is written
            proposal_id = str(uuid.UUID(proposal_id))
        id_, epoch = self.number("id"), self.number("epoch") if "epoch" in self.cells else -1
        resource, amount, at = self.name("resource"), self.amount(), self.at()
        return Row(line, id_, proposal_id, giver, taker, resource, amount, at, epoch, self.kind(giver, taker))

    def name(self, column: str) -> str:
        if not _NAME.fullmatch(self.cells[column]):
            raise self.bad(column, "letters, digits, - _ . and :, at most 64")
        return self.cells[column]

    def actor(self, column: str) -> str:
        found = self.name(column)
        return BOUNDARY if found.lower() == _GRID else found

    def number(self, column: str) -> int:
        text = self.cells[column]
        if not (text.isascii() and text.isdigit()) or len(text) > 18:
            raise self.bad(column, "a whole number")
        return int(text)

    def amount(self) -> Decimal:
        text = self.cells["amount"]
        try:
            amount = Decimal(text if _AMOUNT.fullmatch(text) else "x")
        except InvalidOperation:
            raise self.bad("amount", "a number above 0, as 12.5") from None
        if amount <= 0 or exponent(amount) < -SCALE_MAX:
            raise self.bad("amount", f"a number above 0 with at most {SCALE_MAX} decimals")
        if amount >= LIMIT:
            raise self.bad("amount", "a number of at most 15 digits")
        return amount

    def at(self) -> int:
        text = self.cells["executed_at"].strip()
        try:
            return microseconds(text if re.search(r"(Z|[+-]\d\d(:?\d\d)?)$", text[10:]) else f"{text}Z")
        except BadInput:
            raise self.bad("executed_at", "a time in UTC, as 2025-02-28T12:00:00Z") from None

    def kind(self, giver: str, taker: str) -> str:
        kind = self.cells.get("kind", "")
        if kind and kind not in _KINDS:
            raise self.bad("kind", f"one of: {', '.join(_KINDS)}")
        if (kind in _GIVEN and giver != BOUNDARY) or (kind in _TAKEN and taker != BOUNDARY):
            column = "actor_from" if kind in _GIVEN else "actor_to"
            raise self.bad(column, f"{BOUNDARY}, because the kind is {kind}")
        if kind == Kind.TRANSFER and BOUNDARY in {giver, taker}:
            raise self.bad("kind", f"another kind, because {BOUNDARY} takes part")
        return kind


def _ordered(rows: list[Row], name: str) -> list[Row]:
    """The rows in order of id, each with its epoch; time and epochs never go back, and what is genesis comes first."""
    if not rows:
        raise BadInput(f"{name}: has no row; expected at least one entry below the header")
    rows.sort(key=lambda row: row.id)
    for one, other in pairwise(rows):
        where = f"{name}: line {other.line}"
        if one.id == other.id:
            raise BadInput(f"{where}, id: found {other.id} again (first on line {one.line}); expected another id")
        if other.at < one.at:
            raise BadInput(f"{where}, executed_at: is before that of line {one.line}, whose id is smaller")
    day = rows[0].at // UNIT_DAY
    rows = [row if row.epoch >= 0 else row._replace(epoch=_day(row, day)) for row in rows]
    for row in rows:
        if row.epoch == 0 and row.kind != Kind.GENESIS:
            raise BadInput(f"{name}: line {row.line}, epoch: found 0, which is the genesis; expected 1 or more")
        if row.epoch > _EPOCHS_MAX:
            raise BadInput(f"{name}: line {row.line}, epoch or executed_at: is epoch {row.epoch:,}, of {_EPOCHS_MAX:,}")
    for one, other in pairwise(rows):
        where = f"{name}: line {other.line}"
        if other.epoch < one.epoch:
            raise BadInput(f"{where}, epoch: is before that of line {one.line}, whose id is smaller")
        if other.kind == Kind.GENESIS and one.kind != Kind.GENESIS:
            raise BadInput(f"{where}, kind: found genesis after others; expected opening balances to come first")
    return rows


def _day(row: Row, first: int) -> int:
    return 0 if row.kind == Kind.GENESIS else row.at // UNIT_DAY - first + 1


def _minor(row: Row, scales: dict[str, int]) -> int:
    minor = to_minor(row.amount, scales[row.resource])
    assert minor is not None, "the scale is that of the row with the most decimals"
    return minor


def _opening(rows: Sequence[Row], first: int, scales: dict[str, int]) -> tuple[dict[tuple[str, str], int], str]:
    """What each begins with, and what is said of it: from the rows of the genesis, else as little as is possible."""
    opening: dict[tuple[str, str], int] = {}
    for row in rows[:first]:
        opening[row.actor_to, row.resource] = opening.get((row.actor_to, row.resource), 0) + _minor(row, scales)
    if first:
        return opening, ""
    held: dict[tuple[str, str], int] = {}
    for row in rows:
        minor = _minor(row, scales)
        for actor, by in ((row.actor_from, -minor), (row.actor_to, minor)):
            key = actor, row.resource
            held[key] = held.get(key, 0) + by
            if actor != BOUNDARY and held[key] < -opening.get(key, 0):
                opening[key] = -held[key]
    said = f"opening balances are not in it; {len(opening)} are assumed, as little as makes the ledger possible"
    return opening, said if opening else ""


def _play(engine: Engine, rows: Sequence[Row], scales: dict[str, int], name: str) -> None:
    """Appends what the rows say, and closes every epoch."""
    place, n = 0, 0
    known: set[str] = set()
    while place < len(rows):
        row = rows[place]
        where = f"{name}: line {row.line}"
        while engine.state.epoch < row.epoch:
            engine.close(engine.state.at)
            n = 0
        end = place + 1
        if BOUNDARY in {row.actor_from, row.actor_to}:
            _flow(engine, row, _minor(row, scales), where)
        else:
            while end < len(rows) and _goes_on(row, rows[end]):
                end += 1
            if row.proposal_id and row.proposal_id in known:
                raise BadInput(f"{where}, proposal_id: {row.proposal_id} was ended by other rows; expected one block")
            known.add(row.proposal_id)
            n += 1
            _propose(engine, rows[place:end], scales, n, where)
        place = end
    engine.close(engine.state.at)


def _goes_on(row: Row, other: Row) -> bool:
    """Whether another row is of the same proposal."""
    between = BOUNDARY not in {other.actor_from, other.actor_to}
    return bool(row.proposal_id) and (row.proposal_id, row.epoch) == (other.proposal_id, other.epoch) and between


def _flow(engine: Engine, row: Row, amount: int, where: str) -> None:
    if row.actor_from == BOUNDARY:
        kind = Kind.GROW if row.kind == Kind.GROW else Kind.PRODUCE
        try:
            flow = flows.give(engine.state, kind, kind.value, [flows.Request(row.actor_to, row.resource, amount)])
        except BadInput as error:
            raise BadInput(f"{where}, amount: {error}") from None
    else:
        kind = Kind.SPILL if row.kind == Kind.SPILL else Kind.CONSUME
        available = engine.state.available(row.actor_from, row.resource)
        if amount > available:
            raise BadInput(f"{where}, amount: found {row.amount}; {row.actor_from} has less {row.resource} by then")
        flow = flows.take(engine.state, kind, kind.value, [flows.Request(row.actor_from, row.resource, amount)])
    engine.append(flow, row.at)


def _propose(engine: Engine, rows: Sequence[Row], scales: dict[str, int], n: int, where: str) -> None:
    first = rows[0]
    transfers = tuple(Transfer(row.actor_from, row.actor_to, row.resource, _minor(row, scales)) for row in rows)
    id_ = _uuid(first.proposal_id or f"entry {first.id}")
    said = f"proposal {first.proposal_id}" if first.proposal_id and first.proposal_id != id_ else ""
    decision = engine.propose(Proposal(id_, PROPOSER, n, transfers, said), rows[-1].at)
    if decision.outcome is not Outcome.EXECUTED:
        broken = decision.violations[0]
        index = int(re.sub(r"\D", "", broken.path) or 0)
        row = rows[index]
        raise BadInput(
            f"{where.rpartition(' ')[0]} {row.line}, amount: found {row.amount}; what the rows before it leave does "
            f"not allow it ({broken.code})"
        )


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return uuid5(f"ledger/{text}")
