"""What the tables of a grid must hold, derived anew from its records, beside what they hold; nothing is changed here.

Rows are compared page by page while the records go by, so that memory does not grow with the journal. Whatever differs
is named by table, row and column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gridgov.amounts import plain
from gridgov.errors import Damaged
from gridgov.grid import Grid, Row, kept
from gridgov.journal import Decision, Genesis, JournalRecord, Registration
from gridgov.ledger import metadata
from gridgov.model import LedgerEntry, Outcome, uuid5
from gridgov.postgres import APP, PAGE, READ, about, migrations
from gridgov.state import State

_WIDTH = 80
_FIRST, _LAST = -(2**63), 2**63 - 1
"""The numbers that a row can have at most: one that nothing implies may have any."""


class Tables:
    """Compares the rows of a grid with what its records imply, as they are folded one after the other."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._journal: list[Row] = []
        self._ledger: list[Row] = []
        self._records = self._entries = 0
        self._joined: dict[str, int] = {}
        self._proposers: dict[str, str] = {}

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
    """Compares the interactions with their digests and with the order of the decisions; yields how many are right.

    Each belongs to another decision, and they were numbered in the order of these. Usage and latency are under no
    digest, and an interaction that is gone leaves nothing that could tell of it. Raises Damaged.
    """
    before = (0, 0)
    for page in grid.exchanges():
        for row in page:
            where = f"{grid.name}: interactions, id {row['id']}"
            exchange = kept(row)
            if str(exchange.at) != row["at"] or exchange.digest != row["digest"]:
                raise Damaged(f"{where}: column digest is not that of the row's other columns")
            if row["seq"] is None:
                raise Damaged(f"{where}: column proposal_id is {row['proposal_id']}, which was never decided about")
            if row["seq"] <= before[0]:
                raise Damaged(
                    f"{where}: column id is above {before[1]}, whose proposal was decided "
                    f"{'as well' if row['seq'] == before[0] else 'later'}"
                )
            before = (row["seq"], row["id"])
        yield len(page)


# --- what keeps it so -------------------------------------------------------------------------------------------------

_ROW, _STATEMENT = 1 + 2 + 8 + 16, 2 + 8 + 16 + 32
"""Types of triggers as Postgres codes them: for each row; before; DELETE, UPDATE, TRUNCATE."""

TRIGGERS = {(table, f"{table}{name}"): kind for table in ("journal", "ledger")
            for name, kind in (("_row_stays", _ROW), ("_stays", _STATEMENT))}  # fmt: skip
"""The triggers that refuse every change, by table and name."""

GRANTS: Mapping[tuple[str, str], set[str]] = {
    (APP, "journal"): {"SELECT", "INSERT"},
    (APP, "ledger"): {"SELECT", "INSERT"},
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
