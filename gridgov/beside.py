"""What is kept beside the journal: exchanges with models, shadows, requests handed out, keys, acknowledgements."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from gridgov.errors import BadInput, Damaged
from gridgov.journal import NOT_A_RECORD, START, Decision, decode, encode
from gridgov.queries import Session, query
from gridgov.rows import NULL, array, escaped, hexed, time_of
from gridgov.wire import timestamp

# --- exchanges and shadows --------------------------------------------------------------------------------------------


class Interaction(NamedTuple):
    """One exchange with a model, to be kept beside the decision that it led to. `about` is canonical JSON."""

    proposal_id: str
    request_key: str
    at: int
    request: bytes
    status: int | None
    body: bytes
    about: str
    usage: str | None = None
    latency_ms: int | None = None

    @property
    def digest(self) -> bytes:
        """sha256 over all but usage and latency, each part with its length."""
        parts = (self.proposal_id, self.request_key, str(self.at), str(self.status), self.about)
        sha = hashlib.sha256(b"gridgov-exchange/1\n")
        for part in (*(text.encode() for text in parts), self.request, self.body):
            sha.update(b"%d:" % len(part) + part)
        return sha.digest()

    def line(self) -> str:
        """The row as COPY reads it."""
        fields = (
            self.proposal_id, escaped(self.request_key), time_of(self.at), hexed(self.request),
            NULL if self.status is None else str(self.status), hexed(self.body), escaped(self.about),
            NULL if self.usage is None else escaped(self.usage),
            NULL if self.latency_ms is None else str(self.latency_ms), hexed(self.digest),
        )  # fmt: skip
        return "\t".join(fields) + "\n"


class Shadow(NamedTuple):
    """What a shadow proposed, and what would have become of it; `body` is the decision's canonical JSON.

    It was judged on the state after the record `seq`. `seen` is the world_state_digest that it was shown; `exchange`
    is the digest of the interaction that it came of. `id` and `digest` are given when it is added.
    """

    proposal_id: str
    epoch: int
    proposer: str
    n: int
    seq: int
    at: int
    body: str
    prompt: str
    model: str
    request_key: str
    seen: str
    exchange: bytes | None
    id: int = 0
    digest: bytes = b""

    @property
    def decision(self) -> Decision:
        """What would have become of it. Raises Damaged where the body is none."""
        return shadow_decision(self.body)

    def sealed(self, id_: int, previous: bytes) -> Shadow:
        """The row of this number, after the one with that digest."""
        parts = [str(part).encode() for part in (id_, *self[:11])]
        sha = hashlib.sha256(b"gridgov-shadow/1\n" + previous)
        for part in (*parts, self.exchange or b""):
            sha.update(b"%d:" % len(part) + part)
        return self._replace(id=id_, digest=sha.digest())


def shadow_decision(body: str) -> Decision:
    """The decision whose canonical JSON this is. Raises Damaged."""
    try:
        payload = decode(f'{{"at":0,"epoch":0,"kind":"proposal","payload":{body},"seq":0}}', b"").payload
        assert type(payload) is Decision, "this kind has no other"
        if encode(payload) != body:
            raise ValueError("not in its canonical form")
    except NOT_A_RECORD as error:
        raise Damaged(f"a body of shadows is no decision ({error}); run `gridgov verify postgres`") from None
    return payload


def _shadow(row: tuple[Any, ...]) -> Shadow:
    id_, *rest, digest_ = row
    return Shadow._make((*rest, id_, digest_))


def add_shadow(session: Session, shadow_: Shadow, interaction: Interaction | None) -> Shadow:
    """Adds a row with its exchange, one at a time and durably; what was there under its id before stays, and is it."""
    with session.transaction():
        session.execute(query("shadows_lock"))
        known = shadow(session, shadow_.proposal_id)
        if known is not None:
            return known
        last = session.execute(query("last_shadow")).fetchone() or (0, START)
        added = shadow_._replace(exchange=None if interaction is None else interaction.digest)
        added = added.sealed(last[0] + 1, last[1])
        session.execute(query("add_shadow"), {**added._asdict(), "at": timestamp(added.at)})
        if interaction is not None:
            with session.cursor().copy(query("copy_interactions").encode()) as copy:
                copy.write(interaction.line())
    return added


def shadow(session: Session, proposal_id: str) -> Shadow | None:
    """What a shadow proposed under this id, or None."""
    row = session.execute(query("shadow"), {"proposal_id": proposal_id}).fetchone()
    return None if row is None else _shadow(row)


def shadows_of(session: Session, ids: Sequence[str], limit: int) -> list[Shadow]:
    """What shadows proposed under these ids, the last first, no more than `limit`."""
    return [_shadow(row) for row in session.execute(query("shadows_of"), {"ids": array(ids), "limit": limit})]


def shadows_page(session: Session, **asked: Any) -> list[Shadow]:
    """What shadows proposed, in order of id: after, limit, and outcome, proposer and epoch, None for all."""
    return [_shadow(row) for row in session.execute(query("shadows_page"), asked)]


def last_shadow(session: Session) -> int:
    """The number of the last row, 0 where there is none."""
    row = session.execute(query("last_shadow")).fetchone()
    return 0 if row is None else int(row[0])


# --- requests and acknowledgements ------------------------------------------------------------------------------------


class Handed(NamedTuple):
    """A request as it was handed out: its key, when, its body, and canonical JSON of what there is to say about it."""

    request_key: str
    at: int
    body: bytes
    about: str

    @property
    def digest(self) -> bytes:
        """sha256 over all of it, each part with its length."""
        sha = hashlib.sha256(b"gridgov-handed/1\n")
        for part in (self.request_key.encode(), str(self.at).encode(), self.body, self.about.encode()):
            sha.update(b"%d:" % len(part) + part)
        return sha.digest()


def keep_request(session: Session, handed: Handed) -> None:
    """Keeps a request that is handed out; the second time changes nothing."""
    values = {**handed._asdict(), "at": timestamp(handed.at), "digest": handed.digest}
    session.execute(query("add_request"), values)


def request(session: Session, request_key: str) -> tuple[bytes, str] | None:
    """Body and `about` of a request that was handed out, or None."""
    return session.execute(query("request"), {"request_key": request_key}).fetchone()


def acknowledge(session: Session, seq: int, reference: str, at: int) -> None:
    """Notes that an outcome was handed on, as what, and when; the second time changes nothing.

    Raises BadInput where that record is no outcome.
    """
    if session.execute(query("is_outcome"), {"seq": seq}).fetchone() is None:
        raise BadInput(f"journal record {seq} is no outcome; acknowledge what the outbox lists")
    session.execute(query("acknowledge"), {"seq": seq, "reference": reference, "at": timestamp(at)})


# --- keys -------------------------------------------------------------------------------------------------------------


class Key(NamedTuple):
    """A row of keys; `digest` is the sha256 of its secret."""

    id: str
    name: str
    digest: bytes
    scopes: tuple[str, ...]
    mandate: tuple[str, ...] | None
    revoked: bool = False


def add_key(session: Session, key_: Key, at: str) -> bool:
    """Adds a key; False where its name was used before."""
    mandate = None if key_.mandate is None else list(key_.mandate)
    values = {"id": key_.id, "name": key_.name, "digest": key_.digest, "scopes": list(key_.scopes), "mandate": mandate}
    return session.execute(query("add_key"), {**values, "at": at}).fetchone() is not None


def key(session: Session, id_: str) -> Key | None:
    """The key with this id, or None."""
    row = session.execute(query("key"), {"id": id_}).fetchone()
    if row is None:
        return None
    found, name, digest_, scopes, mandate, revoked = row
    return Key(found, name, digest_, tuple(scopes), None if mandate is None else tuple(mandate), revoked)


def keys(session: Session) -> list[tuple[Any, ...]]:
    """All keys: (id, name, scopes, mandate, created_at, revoked_at), oldest first."""
    return session.execute(query("keys")).fetchall()


def revoke_key(session: Session, key_: str, at: str) -> bool:
    """Ends a key by its id or name; False where there is none."""
    return session.execute(query("revoke_key"), {"key": key_, "at": at}).fetchone() is not None
