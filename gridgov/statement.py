"""An actor's statement of account: what it had, got, gave and has left in a time, from any history; nothing is printed.

A history is folded record by record (`of_source`); a grid in Postgres is asked for sums (`of_grid`), which costs O(what
was recorded since the beginning of that time). Both come to the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from gridgov.amounts import LIMIT, json_number, plain, plain_decimal, to_json
from gridgov.errors import BadInput, Damaged
from gridgov.journal import Flow, Genesis, JournalRecord, Registration
from gridgov.model import BOUNDARY, Actor, Kind, Resource, uuid5
from gridgov.reader import Ask, Reading
from gridgov.replay import follow
from gridgov.state import State
from gridgov.statement_rows import GIVEN, RECEIVED
from gridgov.wire import known, microseconds, timestamp

if TYPE_CHECKING:
    from gridgov.source import Source

Json = dict[str, Any]

_DAY_US = 86_400_000_000
_NEVER = 2**62


class Period(NamedTuple):
    """A time from `since` (inclusive) to `until` (exclusive), in microseconds since 1970."""

    since: int
    until: int


ALWAYS = Period(-_NEVER, _NEVER)
"""A whole history."""


@dataclass
class Account:
    """One resource of an actor, in minor units. `came` and `left` are by kind, `received` and `given` by counterparty.

    Invariant: `opening + sum(came) - sum(left) = closing`. `cost` is None where no price is known.
    """

    resource: Resource
    opening: int = 0
    closing: int = 0
    came: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    received: Counter[str] = field(default_factory=Counter)
    given: Counter[str] = field(default_factory=Counter)
    transfers: Counter[tuple[str, str]] = field(default_factory=Counter)
    announced: int = 0
    demanded: int = 0
    served: int = 0
    cost: Decimal | None = None

    def move(self, kind: str, came: bool, other: str, amount: int, count: int = 1) -> None:
        """Takes down that so much came from another, or left to it."""
        side, name = (self.came, RECEIVED) if came else (self.left, GIVEN)
        if kind != Kind.TRANSFER.value:
            side[kind] += amount
            return
        side[name] += amount
        (self.received if came else self.given)[other] += amount
        self.transfers[name, other] += count

    def read(self, kind: str, requested: int, applied: int) -> None:
        """Takes down what was announced as needed, and what of a demand was served."""
        if kind == "need":
            self.announced += requested
        elif kind == Kind.CONSUME.value:
            self.demanded += requested
            self.served += applied


class Statement(NamedTuple):
    """A statement; `head` is the last record that was looked at: seq, digest, at. None where there was none."""

    actor: str
    type: str
    frozen: bool
    source: str
    period: Period
    head: tuple[int, str, int] | None
    accounts: list[Account]
    notes: list[str]

    def document(self) -> Json:
        """All of it as plain JSON values; amounts in units. See `views.StatementAnswer`."""
        since, until = (None if abs(at) >= _NEVER else timestamp(at) for at in self.period)
        head = None if self.head is None else dict(zip(("seq", "digest"), self.head[:2], strict=True))
        return {
            "actor": self.actor,
            "type": self.type,
            "frozen": self.frozen,
            "source": self.source,
            "since": since,
            "until": until,
            "head": None if head is None or self.head is None else {**head, "at": timestamp(self.head[2])},
            "accounts": [_account_json(account) for account in self.accounts],
            "notes": self.notes,
        }


# --- a time, as people write it ---------------------------------------------------------------------------------------


def month(text: str) -> Period:
    """The time of a month such as 2026-11. Raises BadInput."""
    try:
        first = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        raise BadInput(f"{text!r} is no month; write it as 2026-11", ("month",)) from None
    later = (
        first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1) if first.year < 9999 else None
    )
    return Period(_us(first), _NEVER if later is None else _us(later))


def period(month_: str | None, since: str | None, until: str | None) -> Period | None:
    """The time that is asked for; None where nothing says which. Raises BadInput where it is none, or empty."""
    if month_ is not None:
        if since is not None or until is not None:
            raise BadInput("say either a month, or from when until when", ("month",))
        return month(month_)
    if since is None and until is None:
        return None
    found = Period(
        -_NEVER if since is None else _moment(since, "from"), _NEVER if until is None else _moment(until, "until")
    )
    if found.since >= found.until:
        raise BadInput("the time ends before it begins", ("until",))
    return found


def _moment(text: str, where: str) -> int:
    """A day such as 2026-11-30 (its beginning), or a time such as 2026-11-30T12:00:00Z."""
    return microseconds(f"{text}T00:00:00Z" if len(text) == len("2026-11-30") else text, (where,))


def _us(at: datetime) -> int:
    since = at - datetime(1970, 1, 1, tzinfo=UTC)
    return since.days * _DAY_US + since.seconds * 1_000_000 + since.microseconds


# --- from a history, record by record ---------------------------------------------------------------------------------


def of_source(source: Source, actor: str, when: Period = ALWAYS) -> Statement:
    """The statement of an actor from a history. Raises BadInput where it has no such actor, Damaged.

    Cost is sum over epochs of what of a demand was not served x the price of that epoch, as `metrics_actor` has it.
    Complexity: O(records).
    """
    return statements_of(source, [actor], when)[0]


def statements_of(source: Source, actors: list[str] | None = None, when: Period = ALWAYS) -> list[Statement]:
    """The statements of these actors (None: of everyone, the boundary too), in one pass; see `of_source`."""
    found = _Folding(when, _prices(source))
    for record in source.records():
        found.take(record)
    for actor in actors or ():
        known(actor, found.actors, "actor", ("actor",))
    told = [found.statement(actor, str(source.path)) for actor in (found.actors if actors is None else actors)]
    for statement in told:
        check(statement)
    return told


class _Folding:
    """Accounts by actor and resource, while a history goes by; who and what there is, whenever it comes."""

    def __init__(self, when: Period, prices: Mapping[str, list[int]]) -> None:
        self.when, self._prices = when, prices
        self.actors: dict[str, Actor] = {}
        self._resources: dict[str, Resource] = {}
        self._state = State()
        self._head: tuple[int, str, int] | None = None
        self._opening: dict[tuple[str, str], int] | None = None
        self._accounts: dict[tuple[str, str], Account] = {}

    def take(self, record: JournalRecord) -> None:
        """Takes down what a record moved, and what was read, if it is of this time."""
        payload = record.payload
        if isinstance(payload, Genesis | Registration):
            self.actors |= {actor.id: actor for actor in payload.actors}
        if isinstance(payload, Genesis):
            self._resources = {resource.name: resource for resource in payload.resources}
        if record.at >= self.when.until:
            return
        if record.at >= self.when.since:
            self._begin()
        entries = follow(self._state, record)
        self._head = (record.seq, record.digest.hex(), record.at)
        if record.at < self.when.since:
            return
        for entry in entries:
            giver, taker, kind = entry.actor_from, entry.actor_to, entry.kind.value
            self._of(giver, entry.resource).move(kind, False, taker, entry.amount)
            self._of(taker, entry.resource).move(kind, True, giver, entry.amount)
        if isinstance(payload, Flow):
            self._read(payload, record.epoch)

    def _begin(self) -> None:
        """What is there now is what there was at first."""
        if self._opening is None:
            held = self._state.balances
            self._opening = {(actor, name): own[actor] for name, own in held.items() for actor in own}

    def _of(self, actor: str, resource: str) -> Account:
        account = self._accounts.get((actor, resource))
        if account is None:
            opening = (self._opening or {}).get((actor, resource), 0)
            account = self._accounts[actor, resource] = Account(self._resources[resource], opening)
        return account

    def _read(self, flow: Flow, epoch: int) -> None:
        for reading in flow.readings:
            account = self._of(reading.actor, reading.resource)
            account.read(flow.kind, reading.requested, reading.applied)
            own = self._prices.get(reading.resource, ())
            if flow.kind == Kind.CONSUME.value and 1 <= epoch <= len(own):
                unmet = Decimal(reading.requested - reading.applied)
                account.cost = (account.cost or Decimal()) + unmet * own[epoch - 1]

    def statement(self, actor: str, source: str) -> Statement:
        """The statement of an actor, once all records were taken."""
        self._begin()
        accounts = []
        for name, resource in self._resources.items():
            account = self._of(actor, name)
            account.closing = self._state.balances.get(name, {}).get(actor, 0)
            if actor != BOUNDARY and self._prices.get(name):
                account.cost = (account.cost or Decimal()).scaleb(-resource.scale - 6)
            accounts.append(account)
        frozen = actor in self._state.frozen
        return Statement(actor, self.actors[actor].type, frozen, source, self.when, self._head, accounts, [])


def _prices(source: Source) -> dict[str, list[int]]:
    """Prices of a run by resource: 1e-6 currency per unit, for each epoch from 1."""
    found: dict[str, list[int]] = {}
    for resource, millionths in source.rows("prices"):
        found.setdefault(resource, []).append(millionths)
    return found


# --- from a grid, in sums ---------------------------------------------------------------------------------------------


def of_grid(reader: Reading, actor: str, when: Period = ALWAYS) -> Statement:
    """The statement of an actor from a grid, as of one moment; a grid knows no prices. Raises BadInput, Damaged.

    Complexity: in the database, one look at each entry since the beginning of that time and each flow within it.
    """
    frozen = reader.look(lambda state: actor in state.frozen)
    found = reader.at_one_moment(lambda ask: _asked(ask, actor, frozen, when, f"postgres:{reader.pool.grid}"))
    check(found)
    return found


def span(ask: Ask, when: Period) -> tuple[int, int, int, int]:
    """The last record and entry before a time, and the last of it: (seq, seq, entry, entry); 0 where there is none."""
    seqs = []
    for at in when:
        if abs(at) < _NEVER:
            seqs.append(ask("record_before", at=timestamp(at))[0]["seq"])
        else:
            seqs.append(0 if at < 0 else ask("last_seq")[0]["seq"])
    entries = [ask("entry_before", seq=seq)[0]["id"] for seq in seqs]
    return seqs[0], seqs[1], entries[0], entries[1]


def _asked(ask: Ask, actor: str, frozen: bool, when: Period, source: str) -> Statement:
    named = ask("actor_named", actor=uuid5(actor))
    if not named:
        known(actor, [row["key"] for row in ask("actor_keys")], "actor", ("actor",))
    after, until, first, last = span(ask, when)
    accounts = {}
    for row in ask("balances_of", actor=uuid5(actor)):
        resource = Resource(row["resource"], row["unit"], row["scale"])
        amount = _minor(row["amount"], resource)
        accounts[resource.name] = Account(resource, amount, amount)
    for row in ask("moved_of", actor=uuid5(actor), after=first, until=last):
        account = accounts[row["resource"]]
        amount = _minor(row["amount"], account.resource)
        signed = amount if row["came"] else -amount
        account.opening -= signed
        if row["later"]:
            account.closing -= signed
        else:
            account.move(row["kind"], row["came"], row["other"] or "?", amount, row["count"])
    for row in ask("readings_of", actor=actor, after=after, until=until):
        accounts[row["resource"]].read(row["kind"], int(row["requested"]), int(row["applied"]))
    head = None
    if until:
        (row,) = ask("moment_of", seq=until)
        head = (until, row["digest"].hex(), round(row["at"].timestamp() * 1_000_000))
    return Statement(actor, named[0]["type"], frozen, source, when, head, list(accounts.values()), [])


def _minor(amount: Decimal, resource: Resource) -> int:
    minor = amount.scaleb(resource.scale)
    if minor != minor.to_integral_value():
        raise Damaged(f"{plain_decimal(amount)} is no amount of {resource.name}; run `gridgov verify postgres`")
    return int(minor)


def check(statement: Statement) -> None:
    """Raises Damaged where a statement does not add up, or someone but the boundary was below zero."""
    for account in statement.accounts:
        closing = account.opening + account.came.total() - account.left.total()
        below = statement.actor != BOUNDARY and min(account.opening, account.closing) < 0
        if closing != account.closing or below:
            scale, name = account.resource.scale, account.resource.name
            opens, comes, closes = (plain(each, scale) for each in (account.opening, closing, account.closing))
            raise Damaged(
                f"the statement of {statement.actor} in {name} does not add up: from {opens} it comes to {comes}, and "
                f"closes with {closes}; run `gridgov verify`"
            )


# --- a statement, as programs and people read it ----------------------------------------------------------------------


def _amount(minor: int, scale: int) -> int | float | str:
    """A JSON number, or plain text where a number would not be exact."""
    return to_json(minor, scale) if abs(minor) < LIMIT else plain(minor, scale)


def _account_json(account: Account) -> Json:
    scale = account.resource.scale

    def sides(found: Mapping[str, int]) -> Json:
        return {kind: _amount(amount, scale) for kind, amount in sorted(found.items()) if amount}

    def parties(name: str, found: Mapping[str, int]) -> list[Json]:
        ranked = sorted(found.items(), key=lambda each: (-each[1], each[0]))
        return [
            {"actor": other, "amount": _amount(amount, scale), "transfers": account.transfers[name, other]}
            for other, amount in ranked
        ]

    needs = {"announced": account.announced, "demanded": account.demanded, "served": account.served}
    needs["unmet"] = account.demanded - account.served
    return {
        "resource": account.resource.name,
        "unit": account.resource.unit,
        "scale": scale,
        "opening": _amount(account.opening, scale),
        "in": sides(account.came),
        "in_total": _amount(account.came.total(), scale),
        "out": sides(account.left),
        "out_total": _amount(account.left.total(), scale),
        "closing": _amount(account.closing, scale),
        "given": parties(GIVEN, account.given),
        "received": parties(RECEIVED, account.received),
        "needs": {key: _amount(amount, scale) for key, amount in needs.items()},
        "cost": None if account.cost is None else json_number(account.cost),
    }
