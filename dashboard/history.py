"""The story of one proposal of a run, told from the close of the epoch before it: as fast in a run of any size.

What `gridgov explain` folds from the genesis on is here put together of the rows that an export has of it: who there
is, the rules in force, the holds that were open, and the balances at that close.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from dashboard.runs import Ref, Row, rows
from gridgov.amounts import SCALE_MAX
from gridgov.errors import BadInput, Damaged
from gridgov.explain import explain
from gridgov.journal import NOT_A_RECORD, JournalRecord, decode, digest
from gridgov.replay import fold
from gridgov.source import open_source
from gridgov.state import State


@lru_cache(maxsize=64)
def story(ref: Ref, proposal_id: str) -> dict[str, Any]:
    """What a proposal saw, said, how it was judged, what it moved; see `explain.Story`.

    Raises BadInput where there is no such proposal, Damaged where the records do not follow from each other.
    Complexity: O(actors + records of its epoch, or of those until its hold was settled).
    """
    found = rows(ref, "decided", proposal=proposal_id)
    if not found:
        raise BadInput(f"{ref.name}: there is no proposal {proposal_id}")
    place = found[0]
    state = before(ref, place["epoch"])
    after = state.seq
    shadow = place["seq"] is None
    records = iter(()) if shadow else _records(ref, after, place["until"], state.digest)
    with open_source(ref.source, Path()) as source:
        return explain(source, proposal_id, (state, records))


def before(ref: Ref, epoch: int) -> State:
    """The state at the close of the epoch before, without what no page shows: how often was refused in a row, and what
    was reversed."""
    [close] = rows(ref, "epoch", epoch=epoch - 1)
    state = State()
    begun = [row["seq"] for row in rows(ref, "begun", epoch=epoch - 1)]
    for record in _decoded(rows(ref, "records_at", seqs=begun)):
        fold(state, record)
    state.balances = _balances(ref, epoch - 1, state)
    opened = rows(ref, "records_between", after=close["seq"] - 1, until=close["seq"])
    for record in _decoded(opened):
        state.seq, state.digest, state.at = record.seq, record.digest, record.at
    state.epoch, state.entries = epoch, close["entries"]
    state.needs, state.moved, state.sent = {}, {}, {name: {} for name in state.resources}
    return state


def _balances(ref: Ref, epoch: int, state: State) -> dict[str, dict[str, int]]:
    """Balances at a close, in minor units; those at 0 only where they were declared, as in `state`, or used."""
    listed = {name: dict.fromkeys(held, 0) for name, held in state.balances.items()}
    empty: set[tuple[str, str]] = set()
    for row in rows(ref, "balances_then", epoch=epoch):
        actor, name = row["actor"], row["resource"]
        amount, rest = divmod(row["millionths"], 10 ** (SCALE_MAX - state.resources[name].scale))
        if rest:
            raise Damaged(f"{ref.name}: the balance of {actor} in epoch {epoch} has more decimals than {name} has")
        if amount or actor in listed[name]:
            listed[name][actor] = amount
        else:
            empty.add((actor, name))
    if empty:
        for row in rows(ref, "used", epoch=epoch, actors=sorted({actor for actor, _ in empty})):
            if (row["actor"], row["resource"]) in empty:
                listed[row["resource"]][row["actor"]] = 0
    return listed


def _decoded(found: list[Row]) -> Iterator[JournalRecord]:
    for row in found:
        yield decode(row["body"], bytes.fromhex(row["digest"]))


def _records(ref: Ref, after: int, until: int, previous: bytes) -> Iterator[JournalRecord]:
    """The records after one, each checked against the one before."""
    for seq, row in enumerate(rows(ref, "records_between", after=after, until=until), start=after + 1):
        own = bytes.fromhex(row["digest"])
        try:
            if digest(previous, row["body"]) != own:
                raise Damaged(f"{ref.name}: journal record {seq} does not follow from the record before and its body")
            yield decode(row["body"], own)
        except NOT_A_RECORD as error:
            raise Damaged(f"{ref.name}: journal record {seq} is no record ({type(error).__name__})") from None
        previous = own
