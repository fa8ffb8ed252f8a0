"""What the tables of a grid must hold, derived anew from its records, beside what they hold; nothing is changed here.

Rows are compared page by page while the records go by, so that memory does not grow with the journal. Whatever differs
is named by table, row and column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gridgov.amounts import plain
from gridgov.auth import SHADOW
from gridgov.beside import Handed, Shadow
from gridgov.decide import decide, faulted
from gridgov.errors import BadInput, Damaged
from gridgov.grid import EXCHANGES, Grid, Row, kept, moment, request_of, shadow_of
from gridgov.journal import NOT_A_RECORD, START, Decision, Genesis, JournalRecord, Registration, encode, proposal_digest
from gridgov.ledger import metadata
from gridgov.model import LedgerEntry, Malformed, Outcome, Proposal, Round, Seen, Unavailable, uuid5
from gridgov.postgres import APP, READ
from gridgov.propose import Answer
from gridgov.queries import PAGE, migrations
from gridgov.rows import about
from gridgov.shown import seen_of, shown_by
from gridgov.state import State

_WIDTH = 80
_FIRST, _LAST = -(2**63), 2**63 - 1
"""The numbers that a row can have at most: one that nothing implies may have any."""


# --- what would be decided of a shadow --------------------------------------------------------------------------------

Given = Answer | Malformed | Unavailable


def input_of(given: Given) -> str:
    """The digest of what was proposed, as a decision has it."""
    if isinstance(given, Answer):
        return proposal_digest(given.transfers, given.reasoning)
    return faulted("", "", 0, given).input


def judged_aside(state: State, round_: Round, given: Given, shown: str | None) -> Decision:
    """What would be decided of a shadow's round on a state; it makes no entries.

    `shown` is None where this is the state that it was shown; else the world_state_digest of that one, empty where
    nobody said. It may move what the proposer beside it may. Raises BadInput where `shown` is no world_state_digest.
    """
    id_, (epoch, proposer, n) = round_.proposal_id, round_
    if not isinstance(given, Answer):
        return faulted(id_, proposer, n, given)
    seen = state.seen if shown is None else Seen(epoch, state.constraints_seq, state.entries)
    if shown:
        seen = seen_of(shown)
    mandate = state.mandates.get(proposer.removesuffix(SHADOW))
    made = decide(state, Proposal(id_, proposer, n, given.transfers, given.reasoning, seen, mandate))
    return made._replace(entries=(), state_moved=shown is not None)


class _Asides:
    """Judges the rows of `shadows` again, as the records go by after which they were judged."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._coming = self._rows()
        self._next = next(self._coming, None)
        self._good = 0
        self._wrong = ""

    def _rows(self) -> Iterator[Shadow]:
        """In the order of these records, page by page."""
        last, full = (_FIRST, _FIRST), True
        while full:
            columns, rows = self._grid.page("judged_shadows", seq=last[0], after=last[1], limit=PAGE)
            for row in rows:
                found = shadow_of(dict(zip(columns, row, strict=True)))
                last = (found.seq, found.id)
                yield found
            full = len(rows) == PAGE

    def take(self, seq: int, state: State) -> None:
        """Judges those of a record, after which the state is this, up to the first that is wrong."""
        while self._next is not None and self._next.seq <= seq and not self._wrong:
            shadow, self._next = self._next, next(self._coming, None)
            self._wrong = _unlike(shadow, state) if shadow.seq == seq else _no_record(shadow)
            self._good += not self._wrong

    def done(self) -> int:
        """How many were right since. Raises Damaged where one was not."""
        if self._wrong:
            raise Damaged(f"{self._grid.name}: {self._wrong}")
        good, self._good = self._good, 0
        return good

    def finish(self) -> int:
        """The same, when no more records come."""
        if self._next is not None and not self._wrong:
            self._wrong = _no_record(self._next)
        return self.done()


def _no_record(shadow: Shadow) -> str:
    return f"shadows, proposal_id {shadow.proposal_id}: column seq is {shadow.seq}, and the journal has no such record"


def _unlike(shadow: Shadow, state: State) -> str:
    """In which column a row is not what follows from the state that it was judged on; empty where in none."""
    where = f"shadows, proposal_id {shadow.proposal_id}: column"
    round_ = Round(shadow.epoch, shadow.proposer, shadow.n)
    if round_.proposal_id != shadow.proposal_id or not shadow.proposer.endswith(SHADOW):
        return f"{where} proposal_id is not that of epoch {round_.epoch}, proposer {round_.proposer}, n {round_.n}"
    try:
        said = shadow.decision
        right = said._replace(proposal_id=round_.proposal_id, proposer=round_.proposer, n=round_.n, entries=())
        if said.outcome is not Outcome.MALFORMED and said.outcome is not Outcome.UNAVAILABLE:
            shown = shadow.seen if said.state_moved else None
            right = judged_aside(state, round_, Answer(said.transfers, said.reasoning), shown)
            if shown is None and shown_by(state) != shadow.seen:
                return f"{where} seen is {_brief(shadow.seen)}; what there was is {shown_by(state)}"
    except (BadInput, Damaged, AssertionError, *NOT_A_RECORD) as error:
        return f"{where} body or seen is none ({type(error).__name__}: {error})"
    return "" if right == said else f"{where} body is {_brief(shadow.body)}; judged again it is {_brief(encode(right))}"


# --- what records imply -----------------------------------------------------------------------------------------------


class Tables:
    """Compares the rows of a grid with what its records imply, as they are folded one after the other."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._journal: list[Row] = []
        self._ledger: list[Row] = []
        self._records = self._entries = 0
        self._joined: dict[str, int] = {}
        self._proposers: dict[str, str] = {}
        self._asides = _Asides(grid)

    def take(self, record: JournalRecord, entries: Sequence[LedgerEntry], state: State) -> None:
        """Takes the next record and its entries, after which the state is this."""
        payload = record.payload
        if type(payload) is Decision and payload.outcome is Outcome.HELD:
            self._proposers[payload.proposal_id] = payload.proposer
        elif type(payload) is Genesis or type(payload) is Registration:
            for actor in payload.actors:
                self._joined.setdefault(actor.id, record.seq)
        proposal_id, outcome, request_id = about(payload)
        self._journal.append((record.seq, record.epoch, record.kind, str(record.at), proposal_id, outcome, request_id))
        if entries:
            origin = metadata(payload, self._proposers.__getitem__)
            self._ledger += (_entry(entry, origin, state) for entry in entries)
        self._asides.take(record.seq, state)

    @property
    def full(self) -> bool:
        """Whether there is a page to be compared."""
        return len(self._journal) >= PAGE or len(self._ledger) >= PAGE

    def page(self) -> Iterator[int]:
        """Compares the rows of records that were taken since; yields how many are right.

        Raises Damaged at the first that is not.
        """
        journal, self._journal = self._journal, []
        ledger, self._ledger = self._ledger, []
        yield self._page("journal", journal, self._records)
        yield self._page("ledger", ledger, self._entries)
        self._records += len(journal)
        self._entries += len(ledger)
        yield self._asides.done()

    def _page(self, table: str, rows: Sequence[Row], after: int) -> int:
        """Compares rows numbered from `after` + 1 with those that are kept there."""
        first, last = after or _FIRST, after + len(rows)
        columns, there = self._grid.page(f"kept_{table}", after=first, until=last, limit=len(rows) + 1)
        if there != rows:
            self._name(table, columns, rows, there, 1)
        return len(rows)

    def finish(self, state: State) -> Iterator[int]:
        """Compares the rest: what must follow no more, and the tables that tell of now; yields how many are right."""
        yield from self.page()
        for table, after in (("journal", self._records), ("ledger", self._entries)):
            columns, more = self._grid.page(f"kept_{table}", after=after, until=_LAST, limit=1)
            if more:
                self._surplus(table, columns, more[0], 1)
        actors = [(uuid5(actor.id), actor.id, actor.type, self._joined[actor.id]) for actor in state.actors.values()]
        yield self._whole("actors", actors, 1)
        yield self._whole("resources", [tuple(resource) for resource in state.resources.values()], 1)
        balances = [
            (uuid5(actor), name, plain(amount, state.resources[name].scale))
            for name, held in state.balances.items()
            for actor, amount in held.items()
        ]
        yield self._whole("balances", balances, 2)
        yield self._asides.finish()

    def _whole(self, table: str, rows: Sequence[Row], keys: int) -> int:
        """Compares all rows of a table of which the first so many columns are the key, in whatever order they are."""
        columns, there = self._grid.page(f"kept_{table}")
        own, other = sorted(rows, key=lambda row: row[:keys]), sorted(there, key=lambda row: row[:keys])
        if own != other:
            self._name(table, columns, own, other, keys)
        return len(own)

    def _name(self, table: str, columns: Sequence[str], rows: Sequence[Row], there: Sequence[Row], keys: int) -> None:
        """Says which row differs; both are in order of their keys."""
        found = {row[:keys]: row for row in there}
        for row in rows:
            stored = found.pop(row[:keys], None)
            if stored is None:
                raise Damaged(f"{self._grid.name}: {table} lacks the row of {_key(columns, row, keys)}")
            for column, right, is_ in zip(columns, row, stored, strict=True):
                if right != is_:
                    raise Damaged(
                        f"{self._grid.name}: {table}, {_key(columns, row, keys)}: column {column} is {_brief(is_)}; "
                        f"the journal implies {_brief(right)}"
                    )
        for row in found.values():
            self._surplus(table, columns, row, keys)

    def _surplus(self, table: str, columns: Sequence[str], row: Row, keys: int) -> None:
        raise Damaged(
            f"{self._grid.name}: {table} has a row of {_key(columns, row, keys)}, which the journal does not imply"
        )


def _entry(entry: LedgerEntry, origin: str, state: State) -> Row:
    return (
        entry.id, entry.proposal_id, uuid5(entry.actor_from), uuid5(entry.actor_to), entry.resource,
        plain(entry.amount, state.resources[entry.resource].scale), str(entry.at), origin, entry.seq, entry.epoch,
        entry.kind.value,
    )  # fmt: skip


def _key(columns: Sequence[str], row: Row, keys: int) -> str:
    return ", ".join(f"{column} {_brief(value)}" for column, value in zip(columns[:keys], row, strict=False))


def _brief(value: Any) -> str:
    text = "NULL" if value is None else str(value)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


# --- what no record implies -------------------------------------------------------------------------------------------


def interactions(grid: Grid) -> Iterator[int]:
    """Compares interactions, shadows and requests with their digests; yields how many are right. Raises Damaged.

    Each interaction belongs to another decision, or to another row of shadows, and they were numbered in the order of
    these. Usage and latency are under no digest; an interaction of a decision, or a request, that is gone leaves
    nothing that could tell of it.
    """
    yield from _shadows(grid)
    yield from _requests(grid)
    before = {"seq": (0, 0), "shadow": (0, 0)}
    last = grid.last_exchange()
    for page in grid.exchanges():
        for row in page:
            where = f"{grid.name}: interactions, id {row['id']}"
            exchange = kept(row)
            if str(exchange.at) != row["at"] or exchange.digest != row["digest"]:
                raise Damaged(f"{where}: column digest is not that of the row's other columns")
            kind = "seq" if row["seq"] is not None else "shadow"
            if row[kind] is None:
                raise Damaged(f"{where}: column proposal_id is {row['proposal_id']}, which was never decided about")
            if row[kind] <= before[kind][0]:
                raise Damaged(
                    f"{where}: column id is above {before[kind][1]}, whose proposal was decided "
                    f"{'as well' if row[kind] == before[kind][0] else 'later'}"
                )
            if kind == "shadow" and row["exchange"] != row["digest"]:
                raise Damaged(f"{where}: is not the exchange that its row of shadows names")
            before[kind] = (row[kind], row["id"])
            if row["id"] > last:
                raise Damaged(f"{where}: column id is above {last}, the last that was given")
        yield len(page)


def _shadows(grid: Grid) -> Iterator[int]:
    """Compares shadows with their digests, each of which goes on from the one before."""
    number, previous, full = 0, START, True
    while full:
        columns, rows = grid.page("kept_shadows", after=number or _FIRST, limit=PAGE)
        for values in rows:
            row = dict(zip(columns, values, strict=True))
            found, number = shadow_of(row), number + 1
            where = f"{grid.name}: shadows, id {found.id}"
            if str(found.at) != row["at"] or found.sealed(number, previous)[-2:] != (found.id, found.digest):
                raise Damaged(f"{where}: column digest is not that of the row's other columns after row {number - 1}")
            if not row["whole"]:
                raise Damaged(f"{where}: column exchange names an interaction that is gone")
            previous = found.digest
        yield len(rows)
        full = len(rows) == PAGE


def _requests(grid: Grid) -> Iterator[int]:
    """Compares requests with their digests, and their keys with what they ask."""
    after, full = "", True
    while full:
        columns, rows = grid.page("kept_requests", after=after, limit=EXCHANGES)
        for values in rows:
            row = dict(zip(columns, values, strict=True))
            after, where = row["request_key"], f"{grid.name}: requests, request_key {_brief(row['request_key'])}"
            handed = Handed(after, moment(row["at"]), row["body"], row["about"])
            if str(handed.at) != row["at"] or handed.digest != row["digest"]:
                raise Damaged(f"{where}: column digest is not that of the row's other columns")
            asked = request_of(row["body"], row["about"])
            if asked is None or asked.request_key != after:
                raise Damaged(f"{where}: is not the key of what its body and about ask")
        yield len(rows)
        full = len(rows) == EXCHANGES


# --- what keeps it so -------------------------------------------------------------------------------------------------

_ROW, _STATEMENT = 1 + 2 + 8 + 16, 2 + 8 + 16 + 32
"""Types of triggers as Postgres codes them: for each row; before; DELETE, UPDATE, TRUNCATE."""

TRIGGERS = {(table, f"{table}{name}"): kind for table in ("journal", "ledger", "shadows", "requests")
            for name, kind in (("_row_stays", _ROW), ("_stays", _STATEMENT))}  # fmt: skip
"""The triggers that refuse every change, by table and name."""

GRANTS: Mapping[tuple[str, str], set[str]] = {
    (APP, "journal"): {"SELECT", "INSERT"},
    (APP, "ledger"): {"SELECT", "INSERT"},
    (APP, "shadows"): {"SELECT", "INSERT"},
    (APP, "requests"): {"SELECT", "INSERT"},
    (READ, "journal"): {"SELECT"},
    (READ, "ledger"): {"SELECT"},
    (READ, "keys"): set(),
}
"""By role and table, exactly what it may do."""

NEVER = {APP: {"DELETE", "TRUNCATE", "TRIGGER", "REFERENCES"}}
"""What a role may do with no table at all; the one that reads may do nothing but that."""

_SOURCE = re.compile(r"CREATE (?:OR REPLACE )?FUNCTION refuse_change\(\).*?AS \$\$(.*?)\$\$", re.DOTALL)


def guards(grid: Grid) -> Iterator[int]:
    """Checks that triggers and privileges still keep what is recorded from being changed; yields how many do.

    Raises Damaged at the first that does not. The owner of the schema can take them away, and put them back: what it
    did in between is for the other checks to find.
    """
    source = [text for migration in migrations().values() for text in _SOURCE.findall(migration)][-1]
    there = {(table, name): rest for table, name, *rest in grid.rows("guards")}
    for (table, name), kind in TRIGGERS.items():
        found = there.pop((table, name), None)
        where = f"{grid.name}: {table}, trigger {name}"
        if found is None:
            raise Damaged(f"{where}: is gone")
        if found != ["A", kind, True, "refuse_change", True, source]:
            raise Damaged(f"{where}: is disabled, or not what the migrations made")
        yield 1
    for table, name in there:
        raise Damaged(f"{grid.name}: {table}, trigger {name}: is not of the migrations")
    may: dict[tuple[str, str], set[str]] = {key: set() for key in GRANTS}
    for role, table, privilege in grid.rows("privileges"):
        may.setdefault((role, table), set()).add(privilege)
    for (role, table), found_ in may.items():
        allowed = GRANTS.get((role, table))
        if allowed is None:
            allowed = {"SELECT"} if role == READ else found_ - NEVER[role]
        if too_many := found_ - allowed:
            raise Damaged(f"{grid.name}: {table}: {role} may {_list(too_many)}, and must not")
        if missing := GRANTS.get((role, table), set()) - found_:
            raise Damaged(f"{grid.name}: {table}: {role} may not {_list(missing)}, and must")
        yield 1


def _list(privileges: set[str]) -> str:
    return ", ".join(sorted(privileges))
