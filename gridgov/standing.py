"""The state of a grid without its history: of now, at a close, after any record, and folded on from where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gridgov.errors import BadInput, Damaged
from gridgov.journal import Close, JournalRecord, digest
from gridgov.model import LedgerEntry
from gridgov.queries import Session, query, snapshot
from gridgov.replay import fold, follow
from gridgov.rows import Pair, actor_id, array, quoted
from gridgov.state import State
from gridgov.stored import decoded, entry_as_of, record_by, row_by
from gridgov.wire import timestamp

MISSED = 20_000
"""Above so many records that others wrote, the state is loaded anew instead of folded on."""

Taken = Callable[[JournalRecord, Sequence[LedgerEntry]], None]
"""Is told of each record that others wrote."""


def load_state(session: Session) -> State:
    """The state that folding the whole journal would come to, from what still stands and from the balances.

    The caller holds the lock, or a snapshot. Complexity: O(actors x resources + registrations + holds + needs of the
    open epoch), and one scan of the open epoch's entries in the database; never O(journal). Raises Damaged where the
    balances do not sum to 0.
    """
    state = State()
    head = record_by(session, "head")
    if head is None:
        return state
    close = record_by(session, "last_close")
    closed, before = (close.seq, close.payload.entries) if close and type(close.payload) is Close else (0, 0)
    _stand(session, state, {"until": head.seq, "closed": closed, "holds": True})
    state.seq, state.digest, state.at = head.seq, head.digest, head.at
    state.epoch = head.epoch + (head.kind in ("genesis", "close"))
    (state.entries,) = row_by(session, "last_entry")
    state.refused_in_a_row, state.unavailable_in_a_row = row_by(session, "in_a_row")
    state.balances = _amounts(state, session.execute(query("balances")))
    state.sent = _amounts(state, session.execute(query("sent"), {"after": before}))
    state.moved = {name: int(moved) for name, moved in session.execute(query("moved"), {"after": before})}
    for name, held in state.balances.items():
        if sum(held.values()):
            raise Damaged(f"the balances of {name} sum to {sum(held.values())} minor units, not to 0; "
                          f"run `gridgov verify postgres`")  # fmt: skip
    return state


def state_at(session: Session, epoch: int) -> State:
    """What a WorldState shows of the close of an epoch, 0 for the genesis; holds and what was sent are left out.

    Complexity: one scan of the entries until then, in the database. Raises BadInput where the epoch has not closed.
    """
    state = State()
    with snapshot(session):
        end = record_by(session, "close_of", epoch=epoch) if epoch else record_by(session, "genesis")
        if end is None:
            raise BadInput(f"epoch {epoch} has not closed yet")
        _stand(session, state, {"until": end.seq, "closed": end.seq, "holds": False})
        if type(end.payload) is Close:
            state.entries, declared = end.payload.entries, state.balances
            found = _amounts(state, session.execute(query("balances_at"), {"until": end.payload.entries}))
            state.balances = {name: dict.fromkeys(held, 0) | found[name] for name, held in declared.items()}
    state.seq, state.digest, state.at, state.epoch = end.seq, end.digest, end.at, end.epoch + 1
    return state


def state_after(session: Session, seq: int) -> State:
    """The state right after a journal record, but for what no judgement of a proposal looks at.

    The caller holds a snapshot. Complexity: as `load_state`, and O(entries since, or until then: whichever are fewer).
    Raises Damaged.
    """
    state = State()
    close = record_by(session, "close_before", until=seq)
    closed, before = (close.seq, close.payload.entries) if close and type(close.payload) is Close else (0, 0)
    _stand(session, state, {"until": seq, "closed": closed, "holds": False})
    for body, found in session.execute(query("holds_at"), {"until": seq}):
        record = decoded(body, found)
        state.epoch = record.epoch
        fold(state, record)
    head = record_by(session, "record", seq=seq)
    if head is None:
        raise Damaged(f"the journal has no record {seq}; run `gridgov verify postgres`")
    state.seq, state.digest, state.at = head.seq, head.digest, head.at
    state.epoch = head.epoch + (head.kind in ("genesis", "close"))
    state.entries = entry_as_of(session, seq)
    if state.entries < row_by(session, "last_entry")[0] // 2:
        declared_ = state.balances
        moved = _amounts(state, session.execute(query("balances_at"), {"until": state.entries}))
        state.balances = {name: dict.fromkeys(held, 0) | moved[name] for name, held in declared_.items()}
    else:
        state.balances = _balances_then(session, state)
    between = {"after": before, "until": state.entries}
    state.sent = _amounts(state, session.execute(query("sent_between"), between))
    return state


def _balances_then(session: Session, state: State) -> dict[str, dict[str, int]]:
    """Balances as they were after the state's last entry: those of now, less what came after it."""
    listed = {(actor, name) for name, held in state.balances.items() for actor in held}
    rows = session.execute(query("balances_then"), {"after": state.entries}).fetchall()
    unsure = [(a, name) for a, name, amount, since in rows if since and not amount and (a, name) not in listed]
    ids = {(actor_id(actor), name): (actor, name) for actor, name in unsure}
    which = {"actors": array(a for a, _ in ids), "resources": array(quoted(name) for _, name in ids)}
    used = session.execute(query("used_before"), {**which, "until": state.entries}).fetchall() if ids else []
    unused = set(unsure) - {ids[actor, name] for actor, name in used}
    return _amounts(state, (row[:3] for row in rows if row[:2] not in unused))


def _stand(session: Session, state: State, which: dict[str, Any]) -> None:
    """Folds the records that still say something; what they leave out of a State is filled in after this."""
    for body, found in session.execute(query("standing"), which):
        record = decoded(body, found)
        state.epoch = record.epoch
        fold(state, record)


def _amounts(state: State, rows: Iterable[tuple[Any, ...]]) -> dict[str, dict[str, int]]:
    """Minor units by resource and actor."""
    found: dict[str, dict[str, int]] = {name: {} for name in state.resources}
    for actor, resource, amount in rows:
        minor = int(amount)
        if minor != amount or resource not in found:
            raise Damaged(f"the balance of {actor} in {resource} is no amount of it; run `gridgov verify postgres`")
        found[resource][actor] = minor
    return found


def catch_up(session: Session, state: State, generation: int, taken: Taken | None = None) -> bool:
    """Folds what was committed since into the state; False where it has to be loaded anew.

    That is where so much was committed, or where the balances were made anew since: theirs is another generation.

    Raises Damaged where the journal does not go on from where the state is; the state is then good for nothing.
    """
    rows = session.execute(query("since"), {"seq": state.seq, "limit": MISSED + 1}).fetchall()
    if rows and rows[0][3] != generation:
        return False
    if state.seq and (not rows or rows[0][:3:2] != (state.seq, state.digest)):
        raise Damaged(f"journal record {state.seq} is not what it was; run `gridgov verify postgres`")
    if len(rows) > MISSED:
        return False
    for _, body, found, _ in rows[1:] if state.seq else rows:
        record = decoded(body, found)
        if digest(state.digest, body) != found or record.seq != state.seq + 1:
            raise Damaged(f"journal record {record.seq} does not follow from the one before")
        entries = follow(state, record)
        if taken is not None:
            taken(record, entries)
    return True


def history(session: Session, since: int, most: int) -> tuple[State, list[JournalRecord], bool]:
    """The state at a time (microseconds), the records from then on, the last `most` of them, and whether that is all.

    Complexity: as `state_after`, and O(records from then on, no more than `most`).
    """
    with snapshot(session):
        (head,) = session.execute(query("last_seq")).fetchone() or (0,)
        (before,) = session.execute(query("record_before"), {"at": timestamp(since)}).fetchone() or (0,)
        begun = max(1, before)
        first = max(begun, head - most)
        state = state_after(session, first)
        rows = session.execute(query("records"), {"after": first, "limit": most}).fetchall()
    return state, [decoded(body, found) for _, body, found in rows], first == begun


def stood(session: Session, seq: int) -> State:
    """The state right after a journal record, see `state_after`, in a snapshot of its own."""
    with snapshot(session):
        return state_after(session, seq)


def balances_after(session: Session, asked: Sequence[tuple[int, Sequence[Pair]]]) -> list[dict[Pair, int]]:
    """What was there right after each record: (seq, pairs) in order of seq, minor units; unlisted pairs are absent.

    Complexity: O(entries since the first of the records), so that what is recent costs little.
    """
    pairs = sorted({pair for _, own in asked for pair in own})
    if not pairs:
        return [{} for _ in asked]
    actors = array(actor_id(actor) for actor, _ in pairs)
    with snapshot(session):
        first, last = (entry_as_of(session, asked[place][0]) for place in (0, -1))
        which = {"actors": actors, "resources": array(quoted(name) for _, name in pairs), "after": last}
        rows = session.execute(query("balances_as_of"), which).fetchall()
        between = {"after": first, "until": last, "actors": actors}
        moves = session.execute(query("moved_between"), between).fetchall() if last > first else []
    held = {(actor, resource): int(amount) for actor, resource, amount in rows}
    found: list[dict[Pair, int]] = []
    moves.reverse()
    for seq, own in reversed(asked):
        while moves and moves[-1][0] > seq:
            _, giver, taker, resource, amount = moves.pop()
            for pair, by in (((giver, resource), amount), ((taker, resource), -amount)):
                if pair in held:
                    held[pair] += int(by)
        found.append({pair: held[pair] for pair in own if pair in held})
    found.reverse()
    return found
