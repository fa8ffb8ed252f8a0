"""The fold: from records to the state they come to, one by one, or all at once in columns; nothing is decided here.

The same `fold` moves the state in production, in a simulation and in a replay, so that they can't differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gridgov import typed
from gridgov.errors import Damaged
from gridgov.journal import (
    ENTRY_KINDS,
    NOT_A_RECORD,
    START,
    Activation,
    Close,
    ConstraintsChange,
    Control,
    Decision,
    Flow,
    Genesis,
    JournalRecord,
    Override,
    Payload,
    Registration,
    Reversal,
    Settlement,
    decode,
    digest,
)
from gridgov.model import BOUNDARY, Kind, LedgerEntry, Outcome, Transfer
from gridgov.state import Hold, State, drawdown

# --- record by record -------------------------------------------------------------------------------------------------


def entries_of(state: State, record: JournalRecord) -> tuple[LedgerEntry, ...]:
    """The ledger entries that a record makes; `state` is that before the record (a settlement needs its hold)."""
    payload = record.payload
    if type(payload) is Decision:
        if payload.outcome is not Outcome.EXECUTED:
            return ()
        return _transfer_entries(record, payload.proposal_id, payload.effective, payload.entries)
    if type(payload) is Flow:
        return _flow_entries(record, payload)
    if type(payload) is Settlement:
        if payload.outcome is not Outcome.EXECUTED:
            return ()
        held = state.holds[payload.proposal_id].decision
        return _transfer_entries(record, payload.proposal_id, held.effective, payload.entries)
    if type(payload) is Override or type(payload) is Reversal:
        if payload.outcome is not Outcome.EXECUTED:
            return ()
        kind = Kind.OVERRIDE if type(payload) is Override else Kind.REVERSAL
        return _transfer_entries(record, None, payload.transfers, payload.entries, kind)
    if type(payload) is Genesis:
        given = [line for line in payload.opening if line[2]]
        return tuple(
            LedgerEntry(i, None, BOUNDARY, actor, resource, amount, record.at, record.seq, 0, Kind.GENESIS)
            for i, (actor, resource, amount) in enumerate(given, start=1)
        )
    return ()


def _transfer_entries(
    record: JournalRecord,
    proposal_id: str | None,
    transfers: tuple[Transfer, ...],
    ids: tuple[int, ...],
    kind: Kind = Kind.TRANSFER,
) -> tuple[LedgerEntry, ...]:
    at, seq, epoch = record.at, record.seq, record.epoch
    return tuple(
        [
            LedgerEntry(i, proposal_id, giver, taker, resource, amount, at, seq, epoch, kind)  # type: ignore[arg-type]
            for i, (giver, taker, resource, amount) in zip(ids, transfers, strict=True)
        ]
    )


def _flow_entries(record: JournalRecord, flow: Flow) -> tuple[LedgerEntry, ...]:
    at, seq, epoch = record.at, record.seq, record.epoch
    kind = ENTRY_KINDS.get(flow.kind)
    if kind is Kind.PRODUCE or kind is Kind.GROW:
        return tuple(
            LedgerEntry(r.entry, None, BOUNDARY, r.actor, r.resource, r.applied, at, seq, epoch, kind)
            for r in flow.readings
            if r.entry is not None
        )
    if kind is None:
        return ()
    return tuple(
        LedgerEntry(r.entry, None, r.actor, BOUNDARY, r.resource, r.applied, at, seq, epoch, kind)
        for r in flow.readings
        if r.entry is not None
    )


def fold(state: State, record: JournalRecord) -> tuple[LedgerEntry, ...]:
    """Moves the state by one record and returns the record's entries. Complexity: O(what the record says)."""
    entries = entries_of(state, record)
    payload = record.payload
    state.seq, state.digest, state.at = record.seq, record.digest, record.at
    if type(payload) is Decision:
        _fold_decision(state, payload, entries)
    elif type(payload) is Flow:
        state.apply(entries)
        if payload.kind == "need":
            for reading in payload.readings:
                needs = state.needs.setdefault(reading.resource, {})
                needs[reading.actor] = needs.get(reading.actor, 0) + reading.requested
    elif type(payload) is Close:
        state.epoch += 1
        state.needs = {}
        state.moved = {}
        state.sent = {name: {} for name in state.resources}
    elif type(payload) is Settlement:
        _fold_settlement(state, payload, entries)
    elif type(payload) is Genesis:
        _fold_genesis(state, payload, record.seq, entries)
    else:
        _fold_rare(state, payload, record.seq, entries)
    return entries


def follow(state: State, record: JournalRecord) -> tuple[LedgerEntry, ...]:
    """As `fold`, for a record that anybody may have written: raises Damaged where it cannot follow from this state."""
    payload = record.payload
    try:
        entries = fold(state, record)
    except (*NOT_A_RECORD, LookupError, AssertionError) as error:
        raise _astray(record, f"{type(error).__name__}: {error}") from None
    for entry in entries:
        if type(entry.amount) is not int:
            raise _astray(record, f"{entry.amount} {entry.resource} is no whole number of minor units")
    for actor in _named(payload, entries):
        if actor not in state.actors:
            raise _astray(record, f"there is no actor {actor}")
    if type(payload) is Genesis or type(payload) is ConstraintsChange:
        fault = typed.unknown_resource(payload.constraints, state.resources)
        if fault is not None:
            raise _astray(record, f"there is no resource {fault[2]}")
    return entries


def _named(payload: Payload, entries: Iterable[LedgerEntry]) -> Iterator[str]:
    """The actors whose balances a record says something of."""
    for entry in entries:
        yield entry.actor_from
        yield entry.actor_to
    if type(payload) is Flow:
        yield from (reading.actor for reading in payload.readings)
    elif type(payload) is Genesis:
        yield from (actor for actor, _, _ in payload.opening)


def _astray(record: JournalRecord, why: str) -> Damaged:
    return Damaged(f"journal record {record.seq} ({record.kind}) does not follow from the state before ({why})")


def _fold_rare(state: State, payload: Payload, seq: int, entries: tuple[LedgerEntry, ...]) -> None:
    """What people do."""
    if type(payload) is ConstraintsChange:
        state.constraints, state.constraints_seq = payload.constraints, seq
    elif type(payload) is Control:
        state.paused = payload.paused
        state.refused_in_a_row = state.unavailable_in_a_row = 0
        state.moved = {}
    elif type(payload) is Override:
        state.apply(entries)
    elif type(payload) is Reversal:
        state.apply(entries)
        if payload.outcome is Outcome.EXECUTED:
            state.reversed.update(dict.fromkeys(payload.reverses, seq))
    elif type(payload) is Activation:
        _fold_activation(state, payload)
    else:
        assert type(payload) is Registration
        state.actors.update({actor.id: actor for actor in payload.actors})
        state.mandates.update({name: None if m is None else frozenset(m) for name, m in payload.mandates.items()})
        state.frozen.update(actor for actor, frozen in payload.frozen.items() if frozen)
        state.frozen.difference_update(actor for actor, frozen in payload.frozen.items() if not frozen)


def _fold_activation(state: State, activation: Activation) -> None:
    if activation.model:
        state.active[activation.role] = activation
    else:
        state.active.pop(activation.role, None)


def _fold_genesis(state: State, genesis: Genesis, seq: int, entries: tuple[LedgerEntry, ...]) -> None:
    state.actors = {actor.id: actor for actor in genesis.actors}
    state.resources = {resource.name: resource for resource in genesis.resources}
    state.balances = {name: {BOUNDARY: 0} for name in state.resources}
    state.reserved = {name: {} for name in state.resources}
    state.sent = {name: {} for name in state.resources}
    state.constraints, state.constraints_seq = genesis.constraints, seq
    for actor, resource, _ in genesis.opening:
        state.balances[resource].setdefault(actor, 0)
    state.apply(entries)
    state.epoch = 1


def _fold_decision(state: State, decision: Decision, entries: tuple[LedgerEntry, ...]) -> None:
    outcome = decision.outcome
    if outcome is Outcome.EXECUTED:
        _fold_transfers(state, entries)
        state.refused_in_a_row = state.unavailable_in_a_row = 0
        return
    if outcome is Outcome.UNAVAILABLE:
        state.unavailable_in_a_row += 1
        return
    state.unavailable_in_a_row = 0
    if outcome is Outcome.REJECTED or outcome is Outcome.MALFORMED:
        state.refused_in_a_row += 1
        return
    state.refused_in_a_row = 0
    if outcome is Outcome.HELD:
        hold = Hold(decision, state.epoch, drawdown(decision.effective))
        state.holds[decision.proposal_id] = hold
        for (actor, resource), amount in hold.reserved.items():
            reserved = state.reserved[resource]
            reserved[actor] = reserved.get(actor, 0) + amount


def release(state: State, proposal_id: str) -> Hold:
    """Ends a hold: what it reserved is available again."""
    hold = state.holds.pop(proposal_id)
    for (actor, resource), amount in hold.reserved.items():
        reserved = state.reserved[resource]
        reserved[actor] -= amount
        if not reserved[actor]:
            del reserved[actor]
    return hold


def _fold_settlement(state: State, settlement: Settlement, entries: tuple[LedgerEntry, ...]) -> None:
    release(state, settlement.proposal_id)
    _fold_transfers(state, entries)


def _fold_transfers(state: State, entries: tuple[LedgerEntry, ...]) -> None:
    state.apply(entries)
    for entry in entries:
        sent = state.sent[entry.resource]
        sent[entry.actor_from] = sent.get(entry.actor_from, 0) + entry.amount
        state.moved[entry.resource] = state.moved.get(entry.resource, 0) + entry.amount


def chain(lines: Iterable[tuple[str, bytes]]) -> Iterator[JournalRecord]:
    """Records from their bodies and digests, each checked against the one before: digest, seq and time.

    Raises Damaged at the first record that was changed, cut out, put in or moved; the message names it.
    """
    previous = START
    at: int | None = None
    for seq, (body, found) in enumerate(lines, start=1):
        where = f"journal record {seq}"
        try:
            if digest(previous, body) != found:
                raise Damaged(f"{where}: its digest does not follow from the record before and its body")
            record = decode(body, found)
            typed.check(record)
        except NOT_A_RECORD as error:
            raise Damaged(f"{where}: its body is no record ({type(error).__name__}: {error})") from None
        if record.seq != seq:
            raise Damaged(f"{where}: says that it is number {record.seq}")
        if at is not None and record.at < at:
            raise Damaged(f"{where}: its time goes back")
        previous, at = found, record.at
        yield record


def replay(records: Iterable[JournalRecord], *, epoch: int | None = None, entry: int | None = None) -> State:
    """The state at the end of the records, at the close of an epoch, or after the record that made an entry.

    Raises KeyError where the records never come to that epoch or entry.
    """
    if (epoch is not None and epoch < 0) or (entry is not None and entry < 1):
        raise KeyError(entry if entry is not None else epoch)
    state = State()
    for record in records:
        follow(state, record)
        if entry is not None and state.entries >= entry:
            return state
        if epoch is not None and state.epoch > epoch:
            return state
    if entry is not None or epoch is not None:
        raise KeyError(entry if entry is not None else epoch)
    return state


# --- all at once ------------------------------------------------------------------------------------------------------

Ints = NDArray[np.int64]


class Columns(NamedTuple):
    """A ledger in columns, in order of id. Shapes: all (entries,); codes index `actors` and `resources`."""

    actors: tuple[str, ...]
    resources: tuple[str, ...]
    actor_from: Ints
    actor_to: Ints
    resource: Ints
    amount: Ints
    epoch: Ints


def columns(entries: Sequence[LedgerEntry], actors: Sequence[str], resources: Sequence[str]) -> Columns:
    """The entries as arrays. Complexity: O(entries), about a microsecond each."""
    actor_code = {actor: i for i, actor in enumerate(actors)}
    resource_code = {resource: i for i, resource in enumerate(resources)}
    count = len(entries)

    def array(values: Iterable[int]) -> Ints:
        return np.fromiter(values, np.int64, count)

    return Columns(
        tuple(actors),
        tuple(resources),
        array(actor_code[e.actor_from] for e in entries),
        array(actor_code[e.actor_to] for e in entries),
        array(resource_code[e.resource] for e in entries),
        array(e.amount for e in entries),
        array(e.epoch for e in entries),
    )


def _sums(index: Ints, amount: Ints, size: int) -> Ints:
    """Exact sums by index: float64 bins hold whole numbers exactly below 2**53, so larger amounts go in halves."""
    if not amount.size:
        return np.zeros(size, np.int64)
    if int(amount.max()) * amount.size < 2**53:
        return np.bincount(index, amount, size).astype(np.int64)
    low, high = amount & 0x3FFFFFF, amount >> 26
    return np.bincount(index, low, size).astype(np.int64) + (np.bincount(index, high, size).astype(np.int64) << 26)


def balances_at(ledger: Columns, epoch: int | None = None) -> Ints:
    """Balances at the close of an epoch, or after all entries. Shape (actors, resources), minor units."""
    width = len(ledger.resources)
    size = len(ledger.actors) * width
    end = len(ledger.epoch) if epoch is None else int(np.searchsorted(ledger.epoch, epoch, "right"))
    resource, amount = ledger.resource[:end], ledger.amount[:end]
    given = _sums(ledger.actor_from[:end] * width + resource, amount, size)
    taken = _sums(ledger.actor_to[:end] * width + resource, amount, size)
    return (taken - given).reshape(-1, width)


def balances_every(ledger: Columns, epochs: int) -> Ints:
    """Balances at the close of every epoch 0..epochs. Shape (epochs + 1, actors, resources), minor units.

    Entries of later epochs are left out. Complexity: O(entries + epochs x actors x resources).
    """
    end = int(np.searchsorted(ledger.epoch, epochs, "right"))
    epoch, resource, amount = ledger.epoch[:end], ledger.resource[:end], ledger.amount[:end]
    width = len(ledger.resources)
    cells = len(ledger.actors) * width
    base = epoch * cells + resource
    size = (epochs + 1) * cells
    change = _sums(base + ledger.actor_to[:end] * width, amount, size)
    change -= _sums(base + ledger.actor_from[:end] * width, amount, size)
    return np.cumsum(change.reshape(epochs + 1, len(ledger.actors), width), axis=0)
