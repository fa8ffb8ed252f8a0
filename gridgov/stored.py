"""Records and entries as Postgres has them: read back, and found damaged where a row is none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gridgov.errors import Damaged
from gridgov.journal import NOT_A_RECORD, JournalRecord, by_request, decode
from gridgov.model import Kind, LedgerEntry, uuid5
from gridgov.queries import PAGE, Session, query
from gridgov.replay import Columns
from gridgov.rows import array

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def uuids(ids: Iterable[str]) -> list[str]:
    """The ids of proposals and requests, as the database knows both."""
    return [id_ for id_ in (own.removeprefix(by_request("")) for own in ids) if UUID.fullmatch(id_)]


def lines(session: Session, after: int = 0) -> Iterator[tuple[str, bytes]]:
    """Bodies and digests of the journal in order, after a seq, unchecked: see `replay.chain`."""
    while True:
        rows = session.execute(query("records"), {"after": after, "limit": PAGE}).fetchall()
        for _, body, found in rows:
            yield body, found
        if len(rows) < PAGE:
            return
        after = rows[-1][0]


def records_after(session: Session, seq: int = 0) -> Iterator[JournalRecord]:
    """Committed records in order, after a seq; their chain is not checked."""
    for body, found in lines(session, seq):
        yield decoded(body, found)


def decoded(body: str, found: bytes) -> JournalRecord:
    """The record of a body and its digest. Raises Damaged where it is none."""
    try:
        return decode(body, found)
    except NOT_A_RECORD as error:
        raise Damaged(f"the journal holds a body that is no record ({error}); run `gridgov verify postgres`") from None


def entries_after(session: Session, id_: int = 0) -> Iterator[LedgerEntry]:
    """Committed entries in order, after an id. Raises Damaged where a row is no entry."""
    while True:
        rows = session.execute(query("entries"), {"after": id_, "limit": PAGE}).fetchall()
        for row in rows:
            yield entry_of(row)
        if len(rows) < PAGE:
            return
        id_ = rows[-1][0]


def entry_of(row: tuple[Any, ...]) -> LedgerEntry:
    """The entry of a row of the queries `entries` and `some`. Raises Damaged where it is none."""
    number, proposal_id, giver, taker, resource, amount, at, seq, epoch, kind = row
    try:
        minor = int(amount)
        entry = LedgerEntry(number, proposal_id, giver, taker, resource, minor, at, seq, epoch, Kind(kind))
    except (TypeError, ValueError):
        raise Damaged(f"row {number} of ledger is no ledger entry; run `gridgov verify postgres`") from None
    if minor != amount or giver is None or taker is None:
        raise Damaged(f"row {number} of ledger is no ledger entry; run `gridgov verify postgres`")
    return entry


_SIZES = (16, 16, 4, 8, 4)
_ROW = np.dtype(
    [("fields", ">i2")]
    + [(f"{name}{i}", kind) for i, size in enumerate(_SIZES) for name, kind in (("size", ">i4"), ("value", f"V{size}"))]
)
_HEADER, _TRAILER = 19, 2
"""What Postgres sends in COPY's binary form for two UUIDs, an int4, an int8 and an int4, and bytes around all rows."""


def columns_of(data: bytes, actors: Sequence[str], resources: Sequence[str]) -> Columns:
    """What the query `copy_columns` sends; actors and resources in order of name. Raises Damaged."""
    count, rest = divmod(len(data) - _HEADER - _TRAILER, _ROW.itemsize)
    rows = np.frombuffer(data, _ROW, count if not rest else 0, _HEADER)
    if rest or not all((rows[f"size{i}"] == size).all() for i, size in enumerate(_SIZES)):
        raise Damaged("a row of ledger is no ledger entry; run `gridgov verify postgres`")
    giver, taker = (_places(rows[name], actors) for name in ("value0", "value1"))
    resource, amount, epoch = (
        rows[f"value{i}"].copy().view(f">i{_SIZES[i]}").astype(np.int64) for i in range(2, len(_SIZES))
    )
    return Columns(tuple(actors), tuple(resources), giver, taker, resource - 1, amount, epoch)


def _places(found: NDArray[np.void], actors: Sequence[str]) -> NDArray[np.int64]:
    """The places of actors given by their ids. Raises Damaged where one is unknown."""
    halves = np.dtype([("high", ">u8"), ("low", ">u8")])
    known = np.array([bytes.fromhex(uuid5(key).replace("-", "")) for key in actors], "V16").view(halves)
    order = np.argsort(known["high"])
    asked = found.copy().view(halves)
    places: NDArray[np.int64] = order[
        np.searchsorted(known["high"], asked["high"], sorter=order).clip(max=len(actors) - 1)
    ]
    if (known[places] != asked).any():
        raise Damaged("a row of ledger has an unknown actor; run `gridgov verify postgres`")
    return places


def record_by(session: Session, name: str, **values: Any) -> JournalRecord | None:
    """The one record that a query finds, or None."""
    row = session.execute(query(name), values).fetchone()
    return None if row is None else decoded(*row)


def row_by(session: Session, name: str) -> tuple[Any, ...]:
    """The row that a query always has."""
    row = session.execute(query(name)).fetchone()
    assert row is not None, "an aggregate has a row"
    return row


def answered_by(session: Session, ids: Sequence[str]) -> list[tuple[str, JournalRecord]]:
    """What proposals and requests led to, by their ids, which are `uuids`; those that led to nothing are left out."""
    rows = session.execute(query("answered"), {"ids": array(ids)}).fetchall()
    return [(id_, decoded(body, found)) for id_, body, found in rows]


def decided(session: Session, ids: Sequence[str], limit: int) -> list[JournalRecord]:
    """The decisions about these proposals, the last first, no more than `limit`."""
    rows = session.execute(query("decided"), {"ids": array(ids), "limit": limit}).fetchall()
    return [decoded(*row) for row in rows]


def settlement_of(session: Session, proposal_id: str) -> JournalRecord | None:
    """The record that ended this hold, or None."""
    return record_by(session, "settlement", id=proposal_id)


def close_of(session: Session, epoch: int) -> JournalRecord | None:
    """The record that closed this epoch, or None."""
    return record_by(session, "close_of", epoch=epoch)


def entry_as_of(session: Session, seq: int) -> int:
    """The last entry that a record or those before it made, 0 where there is none."""
    row = session.execute(query("entry_before"), {"seq": seq}).fetchone()
    return 0 if row is None else int(row[0])
