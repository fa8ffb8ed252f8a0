"""A grid in Postgres as it is at one moment: its journal and its rows are read, not judged; nothing is written here."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

from gridgov.beside import Interaction, Shadow, shadow_decision
from gridgov.cassette import Interaction as Recorded
from gridgov.errors import Damaged, GridgovError, Unreachable
from gridgov.journal import NOT_A_RECORD, Decision, JournalRecord, canonical, decode
from gridgov.model import LedgerEntry, Round
from gridgov.postgres import READ, Connection, connect
from gridgov.prompt import Request, digest
from gridgov.queries import query
from gridgov.stored import entries_after, lines
from gridgov.wire import timestamp

EXCHANGES = 256
"""Interactions that are fetched at once: each holds a prompt and a reply."""

_LINE = "gridgov-interaction/1\n"
"""What the digest of a cassette's line begins with."""

_MOMENT = re.compile(r"-?[0-9]{1,16}")

Row = tuple[Any, ...]


class Grid:
    """A session that sees a grid as it was when it was opened, however long it reads. To be closed.

    Raises BadInput where there is no such grid, or its migrations are not ours; Unreachable where nobody answers.
    """

    def __init__(self, url: str, grid: str) -> None:
        self.url = url
        self.name = f"postgres:{grid}"
        self.grid = grid
        self._connection: Connection = connect(url, grid, READ)
        try:
            with self._told():
                self._connection.execute(query("unhurried"))
                self._connection.execute(query("snapshot"))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the database."""
        self._connection.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turns what the driver raises into an error of ours."""
        connection = self._connection
        try:
            yield
        except connection.Error as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if isinstance(error, connection.OperationalError):
                raise Unreachable(f"{self.name}: the database gave no answer ({said}); try again") from None
            raise GridgovError(f"{self.name}: the database refuses to be read ({said})") from None

    def rows(self, name: str, **values: Any) -> list[Row]:
        """All rows of a query by its name."""
        with self._told():
            return self._connection.execute(query(name), values or None).fetchall()

    def page(self, name: str, **values: Any) -> tuple[list[str], list[Row]]:
        """The columns of a query by its name, and its rows."""
        with self._told():
            cursor = self._connection.execute(query(name), values or None)
            return [column.name for column in cursor.description or ()], cursor.fetchall()

    def head(self) -> JournalRecord | None:
        """The last record, or None. Raises Damaged where it is no record."""
        return next(iter(self._records("head")), None)

    def known(self) -> list[JournalRecord]:
        """The genesis and the registrations: who and what there is. Raises Damaged where one is no record."""
        return self._records("known_actors")

    def closed(self) -> int:
        """The last epoch that was closed, 0 where none was. Raises Damaged where its record is none."""
        return next((record.epoch for record in self._records("last_close")), 0)

    def _records(self, name: str) -> list[JournalRecord]:
        try:
            return [decode(body, found) for body, found in self.rows(name)]
        except NOT_A_RECORD as error:
            raise Damaged(
                f"{self.name}: the journal holds a body that is no record ({error}); run `gridgov verify postgres`"
            ) from None

    def lines(self) -> Iterator[tuple[str, bytes]]:
        """Bodies and digests of the journal in their order, unchecked."""
        with self._told():
            yield from lines(self._connection)

    def entries(self) -> list[LedgerEntry]:
        """The ledger as it is stored. Raises Damaged where a row is no entry."""
        with self._told():
            return list(entries_after(self._connection))

    def exchanges(self) -> Iterator[list[dict[str, Any]]]:
        """The interactions in their order, each by column, page by page; see `kept_interactions`."""
        after, full = -(2**63), True
        while full:
            keys, rows = self.page("kept_interactions", after=after, limit=EXCHANGES)
            if rows:
                yield [dict(zip(keys, row, strict=True)) for row in rows]
                after = rows[-1][0]
            full = len(rows) == EXCHANGES

    def last_exchange(self) -> int:
        """The last number that an interaction was given."""
        return int(self.page("last_exchange")[1][0][0])

    def exchange(self, proposal_id: str) -> dict[str, Any] | None:
        """The last interaction for a proposal, by column, or None."""
        keys, rows = self.page("interactions_of", proposal_id=proposal_id)
        return dict(zip(keys, rows[0], strict=True)) if rows else None

    def shadow(self, proposal_id: str) -> dict[str, list[dict[str, Any]]]:
        """What a shadow proposed under this id, as the rows of an export by table; none where there is no such."""
        from gridgov.tables import Builder, Run, names_of

        _, rows = self.page("shadow_said", proposal_id=proposal_id)
        if not rows:
            return {}
        known, asides = self.known(), [(epoch, shadow_decision(body)) for epoch, body in rows]
        run = Run("", "", "", (), (), "", known, (), 0, shadows=asides)
        return {table: found.to_pylist() for table, found in Builder(names_of(known)).shadows(run)}


def moment(text: str) -> int:
    """A time as it is stored; 0 where it is none, which the digest then betrays."""
    return int(text) if _MOMENT.fullmatch(text) else 0


def shadow_of(row: Mapping[str, Any]) -> Shadow:
    """What a row of `shadows` holds."""
    return Shadow(**{key: row[key] for key in Shadow._fields if key != "at"}, at=moment(row["at"]))


def request_of(body: bytes, about: str) -> Request | None:
    """The request that was handed out with this body, and this to be said about it; None where it is none."""
    told = _object(about)
    try:
        asked = json.loads(body)
        (user,), (system,) = asked["contents"][0]["parts"], asked["systemInstruction"]["parts"]
        schema = asked["generationConfig"]["responseJsonSchema"]
        texts = {"prompt": told["prompt"], "model": told["model_asked"], "system": system["text"], "user": user["text"]}
        parts = {key: told[key] for key in ("parameters", "components", "sample")}
        found = Request(schema=schema, **texts, **parts)
        return found if found.request_key else None
    except (AttributeError, LookupError, TypeError, ValueError):
        return None


def kept(row: Mapping[str, Any]) -> Interaction:
    """The interaction that a row holds; one whose time is none is given the time 0, which its digest then betrays."""
    at = moment(row["at"])
    return Interaction(
        row["proposal_id"], row["request_key"], at, row["request"], row["status"], row["body"], row["about"],
        row["usage"], row["latency_ms"],
    )  # fmt: skip


# --- interactions, as an export keeps them ----------------------------------------------------------------------------


def exported(row: Mapping[str, Any]) -> dict[str, Any]:
    """An interaction of a grid as `tables.Run` takes it; what its row does not say is absent.

    `line` is that of a cassette. Where the row says too little for one, it is all that the row says, with a digest of
    it, and `request` in it is the body of the request.
    """
    about, usage = _object(row["about"]), _object(row["usage"])
    found = recorded(row)
    if found is not None:
        return {**found.row(), "proposal_id": row["proposal_id"]}
    said, decision = _line(row, about, usage), _decision(row)
    return {
        "epoch": None if decision is None else decision[0],
        "proposer": None if decision is None else decision[1].proposer,
        "n": None if decision is None else decision[1].n,
        "proposal_id": row["proposal_id"],
        "origin": about.get("origin", "recorded"),
        "request_key": row["request_key"],
        "status": row["status"],
        **{key: about.get(key) for key in ("model_asked", "model_answered", "finish_reason", "prompt", "cost")},
        "tokens_in": usage.get("prompt"),
        "tokens_out": usage.get("answer"),
        "tokens_thought": usage.get("thoughts"),
        "latency_ms": row["latency_ms"],
        "attempts": about.get("attempts", 1),
        "at": said["at"],
        "line": canonical(said),
        "digest": said["digest"],
    }


def recorded(row: Mapping[str, Any]) -> Recorded | None:
    """The interaction as a cassette has it; None where the row says too little."""
    about, usage = _object(row["about"]), _object(row["usage"])
    optional = ("failure", "model_answered", "finish_reason", "attempts", "cost", "price_table", "sdk", "supersedes")
    try:
        asked = json.loads(row["request"])
        return Recorded(
            origin=about.get("origin", "recorded"),
            request_key=row["request_key"],
            **{key: about[key] for key in ("sample", "components", "prompt", "model_asked", "parameters")},
            round=Round(**about["round"]),
            user=asked["contents"][0]["parts"][0]["text"],
            system=asked["systemInstruction"]["parts"][0]["text"],
            status=row["status"],
            body=row["body"],
            at=timestamp(kept(row).at),
            usage=usage,
            latency_ms=row["latency_ms"],
            **{key: about[key] for key in optional if key in about},
        )
    except (LookupError, TypeError, ValueError):
        return None


def _object(text: str | None) -> dict[str, Any]:
    """A JSON object, empty where the text is none."""
    try:
        found = json.loads(text or "{}", parse_float=str)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _decision(row: Mapping[str, Any]) -> tuple[int, Decision] | None:
    """The epoch and the decision of what an interaction was for: that of a record, or a shadow's."""
    body = row["decision"]
    try:
        if body is None and row.get("shadowed") is not None:
            return row["shadow_epoch"], shadow_decision(row["shadowed"])
        record = None if body is None else decode(body, b"")
    except (Damaged, *NOT_A_RECORD):
        return None
    return (record.epoch, record.payload) if record is not None and type(record.payload) is Decision else None


def _line(row: Mapping[str, Any], about: Mapping[str, Any], usage: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values of an interaction's line, with its digest."""
    found = {
        **about,
        "request_key": row["request_key"],
        "at": timestamp(kept(row).at),
        "status": row["status"],
        "usage": dict(usage) or None,
        "latency_ms": row["latency_ms"],
        **_text("body", row["body"]),
        **_text("request", row["request"]),
    }
    found = {key: value for key, value in found.items() if value is not None and key != "digest"}
    return {**found, "digest": digest(_LINE + canonical(found))}


def _text(key: str, data: bytes) -> dict[str, str]:
    """Bytes as text where they are UTF-8, else in base64 under another key."""
    try:
        return {key: data.decode()}
    except UnicodeDecodeError:
        return {f"{key}_base64": base64.b64encode(data).decode()}


class Exchanges(Sequence[dict[str, Any]]):
    """The interactions of a grid as `tables.Run` takes them: fetched when they are asked for, in order, once."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._after = -(2**63)
        ((self._count, self.synthetic),) = grid.rows("count_interactions")

    def __len__(self) -> int:
        return int(self._count)

    def __getitem__(self, part: Any) -> Any:
        assert isinstance(part, slice), "asked for slice by slice"
        count = len(range(*part.indices(len(self))))
        keys, rows = self._grid.page("kept_interactions", after=self._after, limit=count)
        if rows:
            self._after = rows[-1][0]
        return [exported(dict(zip(keys, row, strict=True))) for row in rows]


class Asides(Sequence[tuple[int, Decision]]):
    """What shadows proposed, as `tables.Run` takes it: fetched when it is asked for, in order, once."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._after = -(2**63)
        ((self._count,),) = grid.rows("count_shadows")

    def __len__(self) -> int:
        return int(self._count)

    def __getitem__(self, part: Any) -> Any:
        assert isinstance(part, slice), "asked for slice by slice"
        count = len(range(*part.indices(len(self))))
        keys, rows = self._grid.page("kept_shadows", after=self._after, limit=count)
        found = [shadow_of(dict(zip(keys, row, strict=True))) for row in rows]
        if found:
            self._after = found[-1].id
        return [(shadow.epoch, shadow.decision) for shadow in found]
