"""Keys: who may call the API and what for, made, listed, revoked and recognised; no secret is kept, and no HTTP known.

A key is `gridgov_<id>_<secret>`. The secret has 256 bits and is kept as its sha256 only, so it is shown once, when the
key is made. Its mandate stands in the journal too, under the key's name: a replay knows it without the keys.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections.abc import Collection, Iterable
from functools import partial
from typing import Any, NamedTuple

from gridgov import beside
from gridgov.beside import Key
from gridgov.engine import Engine
from gridgov.errors import BadInput
from gridgov.journal import Registration
from gridgov.model import BOUNDARY
from gridgov.postgres import APP, Pool, Writer
from gridgov.wire import known, timestamp

SCOPES = {
    "read": frozenset({"read"}),
    "propose": frozenset({"read", "propose"}),
    "operate": frozenset({"read", "propose", "operate"}),
}
"""What each scope allows: the later ones imply the earlier."""

PLANNER = "planner"
"""The proposer whose rounds all keys without a mandate share."""

SHADOW = "/shadow"
"""What follows the name of a proposer in that of the shadow beside it."""

RESERVED = frozenset({PLANNER, BOUNDARY})
"""Names that no key may have, besides those of shadows."""

NAME_MAX = 100
FRESH_S = 2.0
"""So long a key is taken for what it was: a revoked one stops within this time."""

REMEMBERED = 1_000
"""So many keys are kept at hand."""

_KEY = re.compile(r"gridgov_([0-9a-f]{16})_([A-Za-z0-9_-]{43})", re.ASCII)


class Caller(NamedTuple):
    """Who calls: the key's name, what it may do, and whose balances it may move (None: everyone's)."""

    name: str
    scopes: frozenset[str]
    mandate: frozenset[str] | None = None


class KeyView(NamedTuple):
    """A key as it is listed; its secret is not in it."""

    id: str
    name: str
    scopes: tuple[str, ...]
    mandate: tuple[str, ...] | None
    created_at: str
    revoked_at: str | None


def check_name(name: str, what: str = "name", path: tuple[str | int, ...] = ()) -> None:
    """Raises BadInput where this is no name of a key or an actor."""
    if not 1 <= len(name) <= NAME_MAX or name != name.strip() or not name.isprintable():
        raise BadInput(f"{name!r} is no {what}: use 1 to {NAME_MAX} visible characters, no space first or last", path)


class Keys:
    """The keys of a grid, for many threads."""

    def __init__(self, url: str, grid: str, fresh_s: float = FRESH_S) -> None:
        self._pool = Pool(url, grid, APP, 2)
        self._fresh_s = fresh_s
        self._known: dict[str, tuple[float, Key | None]] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Lets go of the database."""
        self._pool.close()

    # --- made, listed, revoked ----------------------------------------------------------------------------------------

    def create(
        self,
        name: str,
        scopes: Iterable[str],
        at: int,
        *,
        mandate: Collection[str] | None = None,
        writer: Writer | None = None,
        operator: str = "",
        reason: str = "",
    ) -> str:
        """Makes a key and returns it; nobody can ask for it again. Names are unique for ever.

        With a mandate (keys of actors), a writer is needed: it journals whose balances this name may move, before
        anybody has the key. Raises BadInput where the name is taken or reserved, or a scope or an actor unknown.
        """
        check_name(name)
        if name in RESERVED or name.endswith(SHADOW):
            raise BadInput(f"{name!r} is the grid's own name for a proposer; name the key after who uses it")
        given = sorted(set(scopes))
        for scope in given:
            known(scope, SCOPES, "scope", ())
        if not given:
            raise BadInput(f"a key needs a scope: {', '.join(SCOPES)}")
        own = None if mandate is None else tuple(sorted(set(mandate)))
        if own is not None and "operate" in given:
            raise BadInput("who operates acts on the whole grid; leave out --mandate, or the scope operate")
        if own is not None:
            assert writer is not None, "a mandate is journaled"
            writer.submit(partial(_check_mandate, own))
        id_, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        digest = hashlib.sha256(secret.encode()).digest()
        added = self._pool.ask(lambda c: beside.add_key(c, Key(id_, name, digest, tuple(given), own), timestamp(at)))
        if not added:
            raise BadInput(f"there is, or was, a key named {name!r}; names are never used again, so choose another")
        if own is not None and writer is not None:
            registration = Registration(mandates={name: own}, operator=operator, reason=reason or "a key was made")
            writer.submit(lambda engine: engine.register(registration, at))
        return f"gridgov_{id_}_{secret}"

    def listing(self) -> list[KeyView]:
        """All keys that ever were, oldest first."""
        return [_view(row) for row in self._pool.ask(beside.keys)]

    def revoke(self, name_or_id: str, at: int) -> KeyView:
        """Ends a key, by its name or its id; the second time changes nothing. Raises BadInput where there is none."""
        if not self._pool.ask(lambda c: beside.revoke_key(c, name_or_id, timestamp(at))):
            raise BadInput(f"there is no key {name_or_id!r}; `gridgov keys list` shows those that there are")
        with self._lock:
            self._known.clear()
        return next(view for view in self.listing() if name_or_id in (view.id, view.name))

    # --- recognised ---------------------------------------------------------------------------------------------------

    def at_hand(self, header: str | None) -> bool:
        """Whether `caller` answers without asking the database."""
        match = _match(header)
        if match is None:
            return True
        with self._lock:
            found = self._known.get(match[1])
        return found is not None and time.monotonic() < found[0]

    def caller(self, header: str | None) -> Caller | None:
        """Who calls with this Authorization header; None where it is no good key. Raises Unreachable."""
        match = _match(header)
        if match is None:
            return None
        key = self._key(match[1])
        digest = hashlib.sha256(match[2].encode()).digest()
        if key is None or not hmac.compare_digest(digest, key.digest) or key.revoked:
            return None
        scopes = frozenset[str]().union(*(SCOPES.get(scope, frozenset()) for scope in key.scopes))
        return Caller(key.name, scopes, None if key.mandate is None else frozenset(key.mandate))

    def _key(self, id_: str) -> Key | None:
        now = time.monotonic()
        with self._lock:
            until, key = self._known.get(id_, (0.0, None))
        if now < until:
            return key
        key = self._pool.ask(lambda connection: beside.key(connection, id_))
        with self._lock:
            self._known.pop(id_, None)
            self._known[id_] = (now + self._fresh_s, key)
            while len(self._known) > REMEMBERED:
                del self._known[next(iter(self._known))]
        return key


def _match(header: str | None) -> re.Match[str] | None:
    """The parts of the key in an Authorization header."""
    scheme, _, credentials = (header or "").partition(" ")
    return _KEY.fullmatch(credentials.strip()) if scheme.lower() == "bearer" else None


def _check_mandate(mandate: tuple[str, ...], engine: Engine) -> None:
    for actor in mandate:
        if actor not in engine.state.actors or actor == BOUNDARY:
            raise BadInput(f"there is no actor {actor!r} that a mandate could name; register it first")


def _view(row: tuple[Any, ...]) -> KeyView:
    id_, name, scopes, mandate, created, revoked = row
    times = [None if moment is None else moment.isoformat().replace("+00:00", "Z") for moment in (created, revoked)]
    return KeyView(id_, name, tuple(scopes), None if mandate is None else tuple(mandate), times[0] or "", times[1])
