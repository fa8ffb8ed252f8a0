"""A history as a Beancount file, so that `bean-check`, which nobody here wrote, checks it; nothing is read or written.

Form: https://beancount.github.io/docs/beancount_language_syntax.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import date, timedelta

from gridgov.errors import BadInput
from gridgov.journal import Decision, Flow, JournalRecord, Settlement
from gridgov.model import BOUNDARY, Actor, LedgerEntry, Resource
from gridgov.replay import follow
from gridgov.state import State

FIRST_DAY = date(2000, 1, 1)
"""The day of the genesis; epoch n is n days later."""

EQUITY, ACTORS = "Equity:Grid", "Assets:Actors:"

EPOCHS_MAX = (date.max - FIRST_DAY).days - 1
"""As many epochs as there are days."""

_COMMODITY_MAX = 24
"""The longest name of a commodity that all versions of Beancount take."""

_RESERVED = {"TRUE", "FALSE", "NULL"}
"""Words that cannot be commodities."""

_HEADER = """\
; A ledger of gridgov as a Beancount file: `bean-check` confirms conservation and every balance.
; Beancount knows days: {first} is the genesis, and epoch n is n days later, however long an epoch is.
; An amount has all decimals of its resource, so that no difference is tolerated.
; One transaction for each record that moved something, two postings for each entry of the ledger; what was refused
; moved nothing and is not here. `balance` is at the start of a day: the close of the epoch of the day before.
; Actors and resources are the metadata `actor` and `resource` of their accounts and commodities.
option "title" "gridgov"
option "inferred_tolerance_default" "*:0"
"""


def beancount(records: Iterable[JournalRecord]) -> Iterator[str]:
    """The lines of the file, each with its end, from the genesis on.

    Balances of all actors and resources, the boundary's too, follow the close of every epoch, and the last record.
    Raises BadInput where there are more epochs than days. Complexity: O(entries + epochs x actors x resources).
    """
    writer = _Writer()
    yield _HEADER.format(first=FIRST_DAY)
    for record in records:
        yield from writer.take(record)
    yield from writer.finish()


class _Writer:
    """Follows the records, and knows what each actor and resource is called."""

    def __init__(self) -> None:
        self.state = State()
        self.accounts: dict[str, str] = {BOUNDARY: EQUITY}
        self.commodities: dict[str, str] = {}
        self._taken = {EQUITY, *_RESERVED}
        self._balanced = True

    def take(self, record: JournalRecord) -> Iterator[str]:
        """What a record adds."""
        if record.epoch > EPOCHS_MAX:
            raise BadInput(f"epoch {record.epoch}: a Beancount file has a day for each epoch, and at most {EPOCHS_MAX}")
        entries = follow(self.state, record)
        day = FIRST_DAY + timedelta(days=record.epoch)
        for resource in self.state.resources.values():
            if resource.name not in self.commodities:
                yield self._commodity(resource, day)
        for actor in self.state.actors.values():
            if actor.id not in self.accounts or record.kind == "genesis":
                yield self._account(actor, day)
        if entries:
            yield from self._transaction(record, entries, day)
        self._balanced = record.kind in {"genesis", "close"}
        if self._balanced:
            yield from self._balances(day + timedelta(days=1))

    def finish(self) -> Iterator[str]:
        """The balances of an epoch that is still open."""
        if not self._balanced:
            yield from self._balances(FIRST_DAY + timedelta(days=self.state.epoch + 1))

    def _commodity(self, resource: Resource, day: date) -> str:
        text = re.sub(r"[^A-Z0-9'._-]", "-", resource.name.upper())
        text = text if "A" <= text[0] <= "Z" else f"X{text}"
        self.commodities[resource.name] = name = self._unused(text, _COMMODITY_MAX)
        return f"\n{day} commodity {name}\n  resource: {_text(resource.name)}\n  unit: {_text(resource.unit)}\n"

    def _account(self, actor: Actor, day: date) -> str:
        if actor.id not in self.accounts:
            text = re.sub(r"[^A-Za-z0-9-]", "-", actor.id)
            text = text[0].upper() + text[1:] if text[0] != "-" else f"X{text}"
            self.accounts[actor.id] = self._unused(ACTORS + text)
        return f"\n{day} open {self.accounts[actor.id]}\n  actor: {_text(actor.id)}\n  type: {_text(actor.type)}\n"

    def _unused(self, text: str, most: int | None = None) -> str:
        """The text, cut to its length, with a number where another one has it, or where it must not end so."""
        name, number = text[:most], 2
        while name in self._taken or not name[-1].isalnum():
            end = f"-{number}"
            name = (text if most is None else text[: most - len(end)]) + end
            number += 1
        self._taken.add(name)
        return name

    def _transaction(self, record: JournalRecord, entries: Iterable[LedgerEntry], day: date) -> Iterator[str]:
        payload = record.payload
        who, what = "", record.kind
        if isinstance(payload, Decision):
            who = payload.proposer
        elif isinstance(payload, Flow):
            who, what = payload.name, payload.kind
        elif isinstance(payload, Settlement):
            what = payload.decision
        yield f"\n{day} * {_text(who)} {_text(what)}\n  seq: {record.seq}\n  digest: {_text(record.digest.hex())}\n"
        proposal = getattr(payload, "proposal_id", None)
        if proposal is not None:
            yield f"  proposal: {_text(proposal)}\n"
        for entry in entries:
            name, scale = self.commodities[entry.resource], self.state.resources[entry.resource].scale
            for actor, minor in ((entry.actor_from, -entry.amount), (entry.actor_to, entry.amount)):
                yield f"  {self.accounts[actor]}  {_amount(minor, scale)} {name}\n    entry: {entry.id}\n"

    def _balances(self, day: date) -> Iterator[str]:
        yield "\n"
        for actor in self.state.actors:
            for resource in self.state.resources.values():
                amount = _amount(self.state.balance(actor, resource.name), resource.scale)
                yield f"{day} balance {self.accounts[actor]}  {amount} ~ 0 {self.commodities[resource.name]}\n"


def _amount(minor: int, scale: int) -> str:
    """In units, with all decimals: Beancount tolerates half of the last digit that is written, unless it says `~ 0`."""
    whole, fraction = divmod(abs(minor), 10**scale)
    return f"{'-' if minor < 0 else ''}{whole}{f'.{fraction:0{scale}d}' if scale else ''}"


def _text(text: str) -> str:
    """A string of Beancount."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
