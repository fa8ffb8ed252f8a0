"""Whether a history is what it claims to be: its chain, its sums, its verdicts, its tables; nothing is changed here.

The journal is checked record by record and stops at the first that is bad; the tables are derived anew and compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gridgov import flows
from gridgov.amounts import LIMIT, plain
from gridgov.decide import SETTLEMENTS, decide, overridden, reversed_, settled
from gridgov.errors import BadInput, Damaged
from gridgov.export import SEALED, SHADOWED
from gridgov.journal import (
    ENTRY_KINDS,
    START,
    Close,
    Decision,
    Flow,
    Genesis,
    JournalRecord,
    Override,
    Reversal,
    Settlement,
    seal,
)
from gridgov.model import BOUNDARY, Code, Kind, LedgerEntry, Outcome, Proposal, Seen, Violation
from gridgov.outcome import Outcomes
from gridgov.replay import follow
from gridgov.source import GridSource, Source, defined_views
from gridgov.state import State
from gridgov.tables import Run, tables

if TYPE_CHECKING:
    from gridgov.grid import Grid

CHECKS = {
    "chain": "records whose digest, number and time follow from the one before",
    "head": "the last record is the head that was noted",
    "conservation": "records after which every resource sums to 0 and nobody is below 0 or what holds reserve",
    "ids": "ledger entries numbered without a gap",
    "idempotency": "decisions made once, holds settled once, requests answered once",
    "flows": "flows that follow from what was requested",
    "closes": "epochs whose close carries the right balances",
    "verdicts": "proposals and settlements that come to the same when judged again",
    "seals": "columns that no record implies, and that are as they were written",
    "tables": "rows of the export, or of the grid, that follow from the journal",
    "views": "views of the export that say what this version's do",
    "guards": "triggers and privileges that keep what a grid recorded from being changed",
}
"""What is checked, in order; the words say what is counted."""

OF_JOURNAL = tuple(CHECKS)[: list(CHECKS).index("seals")]
"""The checks that are made record by record."""

KEYS: dict[str, tuple[str, ...]] = {
    "runs": (), "actors": ("actor",), "resources": ("resource",), "epochs": ("epoch",),
    "balances": ("epoch", "actor", "resource"), "flows": ("seq", "actor", "resource"), "proposals": ("proposal_id",),
    "transfers": ("proposal_id", "seq"), "ledger": ("id",), "journal": ("seq",),
}  # fmt: skip
"""By table that the journal implies, the columns that name a row."""


@dataclass(frozen=True)
class Check:
    """One check: how many of `CHECKS[name]` were found good, and the first that was not."""

    name: str
    count: int
    failure: str | None = None
    skipped: bool = False


@dataclass(frozen=True)
class Report:
    """What was checked, the head of the journal, and what was found first."""

    checks: tuple[Check, ...]
    seq: int
    digest: str

    @property
    def first(self) -> str | None:
        """The first failure, or None."""
        return next((check.failure for check in self.checks if check.failure is not None), None)

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return self.first is None

    def document(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        checks = [
            {
                "name": check.name,
                "counts": CHECKS[check.name],
                "count": check.count,
                "result": "failed" if check.failure is not None else "skipped" if check.skipped else "passed",
                **({} if check.failure is None else {"failure": check.failure}),
            }
            for check in self.checks
        ]
        head = {"seq": self.seq, "digest": self.digest}
        return {"passed": self.passed, "first": self.first, "head": head, "checks": checks}


class Bad(Exception):
    """What did not hold; never leaves this module. `check` is set where several are made at once."""

    def __init__(self, message: str, check: str = "") -> None:
        super().__init__(message)
        self.check = check


def verify(source: Source, expect_head: str | None = None) -> Report:
    """Checks a history and says what was found; `expect_head` is `SEQ:DIGEST`, noted elsewhere.

    Every column of every table of an export is either derived from the journal and compared (tables), or sealed by a
    digest when it was written (seals). What is only sealed is shown when damaged, but could be forged together with its
    seal: of runs, what names and times it (scenario, description, overrides, proposers, status, error, horizon,
    commons, interaction counts, started_at, seconds, version, form); who harvests; prices, baselines, interactions and
    files; and what shadows proposed. Its views are compared with this version's. `state_moved`, and what a stale
    proposer had seen, are taken from the journal's word. The journal itself is tamper-evident up to a head that was
    noted elsewhere.

    Of a grid, every column of journal, ledger, actors, resources and balances is derived anew and compared; what
    shadows proposed is judged again on the state that it was judged on; interactions, shadows and requests are compared
    with their digests (but usage and latency, which are under none). Its migrations were compared when it was opened.
    `keys` and `outbox_acks` follow from nothing.
    Raises BadInput where `expect_head` has another form. Complexity: O(records + entries + balances).
    """
    head = _noted(expect_head)
    audit = _GridAudit(source.grid) if isinstance(source, GridSource) else Audit()
    audit.journal(source, head)
    audit.beside(source)
    checks = tuple(
        Check(name, audit.counts.get(name, 0), audit.failures.get(name), name not in audit.counts) for name in CHECKS
    )
    return Report(checks, audit.state.seq, audit.state.digest.hex())


def _noted(expect_head: str | None) -> tuple[int, str] | None:
    if expect_head is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,17}):([0-9a-fA-F]{64})", expect_head)
    if found is None:
        raise BadInput(f"{expect_head!r} is no head; write it as SEQ:DIGEST, a number and 64 hex digits")
    return int(found[1]), found[2].lower()


# --- the journal, record by record ------------------------------------------------------------------------------------


class Audit:
    """Folds a journal and checks each step; holds what was counted and what failed, by check."""

    def __init__(self) -> None:
        self.state = State()
        self.records: list[JournalRecord] = []
        self.entries: list[LedgerEntry] = []
        self.counts: dict[str, int] = {}
        self.failures: dict[str, str] = {}
        self._decided: dict[str, int] = {}
        self._requests: dict[str, int] = {}

    def run(self, check: str, steps: Iterable[int]) -> None:
        """Counts what the steps of a check found good, up to the first that is not."""
        self.counts[check] = 0
        try:
            for good in steps:
                self.counts[check] += good
        except (Bad, Damaged) as error:
            self.failures[check] = str(error)

    def journal(self, source: Source, head: tuple[int, str] | None) -> None:
        """Checks every record, up to the first that is bad."""
        self.counts = dict.fromkeys(OF_JOURNAL, 0)
        if head is None:
            del self.counts["head"]
        seen = head is None
        try:
            for record in source.records():
                self.counts["chain"] += 1
                self._record(record)
                if head is not None and record.seq == head[0]:
                    if record.digest.hex() != head[1]:
                        raise Bad(f"journal record {record.seq}: its digest is not the one that was noted", "head")
                    self.counts["head"], seen = 1, True
            if not seen:
                raise Bad(f"the journal ends with record {self.state.seq}, before the head that was noted", "head")
        except Bad as bad:
            self.failures[bad.check] = str(bad)
        except Damaged as damaged:
            self.failures["chain"] = str(damaged)

    def _record(self, record: JournalRecord) -> None:
        """Checks one record against the state before it, and the state after it."""
        where = f"journal record {record.seq} ({record.kind}, epoch {record.epoch})"
        state, payload = self.state, record.payload
        if record.seq > 1 and record.epoch != state.epoch:
            raise Bad(f"{where}: the open epoch is {state.epoch}", "chain")
        if seal(START, record.seq, record.epoch, record.at, payload).body != record.body:
            raise Bad(f"{where}: its body is not the canonical text of what it says", "chain")
        try:
            self._once(record, where)
            if type(payload) is Decision:
                self._decision(payload, where)
            elif type(payload) is Override or type(payload) is Reversal:
                self._by_hand(payload, where)
            elif type(payload) is Settlement:
                self._settlement(payload, where)
            elif type(payload) is Flow:
                self._flow(payload, where)
            elif type(payload) is Close:
                self._close(payload, where)
            entries = follow(state, record)
        except (
            ArithmeticError,
            AssertionError,
            AttributeError,
            BadInput,
            LookupError,
            TypeError,
            ValueError,
        ) as error:
            raise Bad(
                f"{where}: does not follow from the state before ({type(error).__name__}: {error})", "chain"
            ) from None
        self._balances(entries, where, whole=type(payload) is Close or type(payload) is Genesis)
        self.take(record, entries)

    def take(self, record: JournalRecord, entries: Sequence[LedgerEntry]) -> None:
        """Keeps what was found good."""
        self.records.append(record)
        self.entries += entries

    def beside(self, source: Source) -> None:
        """Checks what is kept beside the journal, where the journal is good."""
        if source.connection is not None and not self.failures:
            self.run("seals", _seals(source))
            if not self.failures:
                self.run("tables", _tables(source, self.records, self.entries))
            if not self.failures:
                self.run("views", _views(source))

    def _decision(self, decision: Decision, where: str) -> None:
        known = self._decided.setdefault(decision.proposal_id, self.state.seq + 1)
        if known <= self.state.seq:
            raise Bad(
                f"{where}: proposal {decision.proposal_id} was decided before, in record {known}",
                "idempotency",
            )
        self.counts["idempotency"] += 1
        if decision.outcome is Outcome.MALFORMED or decision.outcome is Outcome.UNAVAILABLE:
            if decision.transfers or decision.violations or decision.entries or not decision.fault:
                raise Bad(f"{where}: is {decision.outcome}, and says more, or less, than its fault", "verdicts")
            return
        found = _judged(self.state, decision)
        if found != decision:
            raise Bad(f"{where}: proposal {decision.proposal_id} {_unlike(decision, found)}", "verdicts")
        self.counts["verdicts"] += 1

    def _settlement(self, settlement: Settlement, where: str) -> None:
        if settlement.proposal_id not in self.state.holds:
            raise Bad(
                f"{where}: nothing is held under {settlement.proposal_id}, or it was settled before",
                "idempotency",
            )
        self.counts["idempotency"] += 1
        if settlement.decision not in SETTLEMENTS:
            raise Bad(f"{where}: {settlement.decision!r} settles nothing", "verdicts")
        found = settled(self.state, settlement.proposal_id, settlement.decision)
        found = found._replace(**_who(settlement))
        if found != settlement:
            raise Bad(f"{where}: the hold of {settlement.proposal_id} {_unlike(settlement, found)}", "verdicts")
        self.counts["verdicts"] += 1

    def _by_hand(self, act: Override | Reversal, where: str) -> None:
        try:
            found = self._by_hand_again(act)
        except BadInput as error:
            raise Bad(f"{where}: could not be done ({error})", "verdicts") from None
        found = found._replace(**_who(act))
        if found != act:
            raise Bad(f"{where}: {_unlike(act, found)}", "verdicts")
        self.counts["verdicts"] += 1

    def _by_hand_again(self, act: Override | Reversal) -> Override | Reversal:
        """What it comes to when it is judged again."""
        if isinstance(act, Override):
            return overridden(self.state, act.transfers, "", "")
        taken = [self.entries[id_ - 1] for id_ in act.reverses if 0 < id_ <= len(self.entries)]
        return reversed_(self.state, taken, "", "", act.proposal_id)

    def _once(self, record: JournalRecord, where: str) -> None:
        """Checks that the request of an act is answered once."""
        request = getattr(record.payload, "request", "")
        known = self._requests.setdefault(request, record.seq) if request else record.seq
        if known != record.seq:
            raise Bad(f"{where}: request {request} was answered before, in record {known}", "idempotency")
        self.counts["idempotency"] += bool(request)

    def _flow(self, flow: Flow, where: str) -> None:
        if flow.read_for is not None and not 0 < flow.read_for < self.state.epoch:
            raise Bad(f"{where}: is late for epoch {flow.read_for}, and epoch {self.state.epoch} is open", "flows")
        requests = [flows.Request(r.actor, r.resource, r.requested) for r in flow.readings]
        if flow.kind == "need":
            found = flows.need(self.state, flow.name, requests)
        else:
            kind = ENTRY_KINDS[flow.kind]
            apply = flows.give if kind is Kind.PRODUCE or kind is Kind.GROW else flows.take
            found = apply(self.state, kind, flow.name, requests)
        for said, right in zip(flow.readings, found.readings, strict=True):
            if said != right:
                raise Bad(
                    f"{where}: {flow.kind} {flow.name} of {said.actor} applied {said.applied} {said.resource} as entry "
                    f"{said.entry}; what follows is {right.applied} as entry {right.entry} (minor units)",
                    "flows",
                )
        self.counts["flows"] += 1

    def _close(self, close: Close, where: str) -> None:
        state = self.state
        if close.entries != state.entries:
            raise Bad(f"{where}: says {close.entries} entries; there are {state.entries}", "closes")
        for resource, held in state.balances.items():
            others = sum(amount for actor, amount in held.items() if actor != BOUNDARY)
            if close.boundary.get(resource) != -others:
                raise Bad(
                    f"{where}: the boundary has {close.boundary.get(resource)} {resource}; all others have {others} "
                    f"(minor units)",
                    "closes",
                )
        self.counts["closes"] += 1

    def _balances(self, entries: Sequence[LedgerEntry], where: str, *, whole: bool) -> None:
        """Invariants after a record: of whom it touched, and at a close of all."""
        state = self.state
        for number, entry in enumerate(entries, start=len(self.entries) + 1):
            if entry.id != number:
                raise Bad(f"{where}: makes entry {entry.id} where {number} is next", "ids")
            if not 0 < entry.amount < LIMIT:
                raise Bad(
                    f"{where}: entry {entry.id} moves {entry.amount} {entry.resource} (minor units)",
                    "conservation",
                )
        self.counts["ids"] += len(entries)
        touched = {(actor, e.resource) for e in entries for actor in (e.actor_from, e.actor_to)}
        if whole:
            touched = {(actor, resource) for resource, held in state.balances.items() for actor in held}
        for actor, resource in sorted(touched):
            balance, kept = state.balance(actor, resource), state.reserved[resource].get(actor, 0)
            if actor != BOUNDARY and (balance < kept or kept < 0 or balance >= LIMIT):
                shown, scale = state.resources[resource], state.resources[resource].scale
                raise Bad(
                    f"{where}: leaves {actor} with {plain(balance, scale)} {shown.unit} of {resource}, "
                    f"{plain(kept, scale)} of it reserved",
                    "conservation",
                )
        for resource, held in state.balances.items() if whole else ():
            if sum(held.values()):
                raise Bad(f"{where}: {resource} sums to {sum(held.values())}, not 0 (minor units)", "conservation")
        self.counts["conservation"] += 1


def _judged(state: State, decision: Decision) -> Decision:
    """What the proposal comes to when it is judged on this state: as what was seen, the journal's word is taken."""
    seen = state.seen
    first = decision.violations[0] if decision.violations else None
    if first is not None and first.code is Code.STALE_WORLD_STATE and isinstance(first.actual, int):
        seen = seen._replace(**{"epoch" if first.path == "epoch" else "constraints_seq": first.actual})
    if decision.state_moved:
        seen = Seen(seen.epoch, seen.constraints_seq, -1)
    transfers = decision.effective
    proposal = Proposal(decision.proposal_id, decision.proposer, decision.n, transfers, decision.reasoning, seen)
    return decide(state, proposal, None if decision.granted is None else decision.transfers)


def _who(act: Settlement | Override | Reversal) -> dict[str, Any]:
    """Who did it, why, and in which request: for this the journal's word is taken."""
    return {key: getattr(act, key) for key in ("operator", "reason", "request", "input")}


def _unlike(said: Outcomes, found: Outcomes) -> str:
    """In which field what was recorded is not what follows."""
    for key, one in said._asdict().items():
        other = getattr(found, key)
        if one != other:
            return f"has {key} {_shown(one)}; judged again it is {_shown(other)}"
    raise AssertionError("they are alike")


def _shown(value: Any) -> str:
    if isinstance(value, tuple) and value and isinstance(value[0], Violation):
        return ", ".join(f"{v.code} at {v.path}" if v.path else v.code for v in value)
    return str(value) if value or value == 0 else "none"


# --- the rows of a grid -----------------------------------------------------------------------------------------------


class _GridAudit(Audit):
    """Compares the rows of a grid with what its records imply, as these go by; keeps no record."""

    def __init__(self, grid: Grid) -> None:
        from gridgov.grid_tables import Tables

        super().__init__()
        self._grid = grid
        self._rows = Tables(grid)

    def take(self, record: JournalRecord, entries: Sequence[LedgerEntry]) -> None:
        """Takes the rows that follow from a record, and compares a page of them at a time."""
        self.entries += entries
        self._rows.take(record, entries, self.state)
        if self._rows.full:
            self._compare(self._rows.page())

    def beside(self, source: Source) -> None:
        """Compares what is left, and checks what keeps it from being changed."""
        from gridgov.grid_tables import guards, interactions

        self._compare(self._rows.page() if self.failures else self._rows.finish(self.state))
        self.run("seals", interactions(self._grid))
        self.run("guards", guards(self._grid))

    def _compare(self, steps: Iterable[int]) -> None:
        """Counts the rows that are right, up to the first that is not."""
        if "tables" not in self.failures:
            before = self.counts.get("tables", 0)
            self.run("tables", steps)
            self.counts["tables"] += before


# --- the tables of an export ------------------------------------------------------------------------------------------


def _tables(source: Source, records: Sequence[JournalRecord], entries: Sequence[LedgerEntry]) -> Iterator[int]:
    """Compares every row that the journal implies with the one that is stored; yields how many are right."""
    run_id = source.run_id
    assert run_id is not None
    derived = Run(run_id, "", "", (), (), "", records, entries, 0)
    seen = dict.fromkeys(KEYS, 0)
    for table, rows in tables(derived):
        if table in KEYS:
            _compare(source, table, rows, seen[table])
            seen[table] += rows.num_rows
            yield rows.num_rows
    counts = [("count_decided" if table in SHADOWED else "count", table) for table in seen]
    for table, found in source.each(counts):
        if found != seen[table]:
            raise Bad(
                f"{source.path}: {table} has {found} rows that the journal should imply; it implies {seen[table]}"
            )


def _compare(source: Source, table: str, rows: Any, offset: int) -> None:
    """Compares rows, from the offset on, with those that are stored; raises Bad at the first that differs."""
    names = [name for name in rows.column_names if name not in SEALED.get(table, ())]
    found = source.difference(table, rows, names, offset)
    if found is None:
        return
    right, stored = found
    row = ", ".join(f"{key} {right[key]}" for key in KEYS[table]) or "its one row"
    if stored is None:
        raise Bad(f"{source.path}: {table} lacks the row of {row}")
    name = next(name for name in names if right[name] != stored[name])
    raise Bad(
        f"{source.path}: {table}, {row}: column {name} is {_brief(stored[name])}; "
        f"the journal implies {_brief(right[name])}"
    )


def _views(source: Source) -> Iterator[int]:
    """Compares what the views say, of which the metrics are read; yields how many are right."""
    stored = source.views()
    for name, sql in defined_views().items():
        if stored.get(name) != sql:
            raise Bad(f"{source.path}: the view {name} is not the one that this version of gridgov writes")
        yield 1


def _brief(value: Any) -> str:
    text = "NULL" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _seals(source: Source) -> Iterator[int]:
    """Compares the seals of the columns that no record implies; yields how many are right."""
    stored = dict.fromkeys((*KEYS, *SEALED, "seals"))
    for table, run_id in source.each([("unknown_run", table) for table in stored]):
        raise Bad(f"{source.path}: {table}, column run_id: there is no run {run_id}")
    written: dict[tuple[str, str], list[Any]] = {}
    for table, column, *rest in source.rows("seals"):
        if (table, column) in written:
            raise Bad(f"{source.path}: seals: there are two of {table}, column {column}")
        written[table, column] = rest
    for (table, column), rest in source.sealed().items():
        if written.pop((table, column), None) != rest:
            raise Bad(f"{source.path}: {table}, column {column}: is not what was written")
        yield 1
    for table, column in written:
        raise Bad(f"{source.path}: {table}, column {column}: its rows, or those that they belong to, are gone")
