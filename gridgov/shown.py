"""What a proposer was shown: its digest, and the state that it was of, found again."""

from __future__ import annotations

import hashlib
import re

from gridgov.errors import BadInput
from gridgov.model import Seen
from gridgov.prompt import exact_json
from gridgov.queries import Session, query, snapshot
from gridgov.replay import fold
from gridgov.standing import state_after
from gridgov.state import State, copied
from gridgov.stored import decoded
from gridgov.wire import Json, world_state_json

SEARCHED = 1_000
"""So many records at most are looked through for the moment at which somebody looked."""

_SEEN = re.compile(r"(\d{1,9})-(\d{1,18})-(\d{1,18})-[0-9a-f]{32}", re.ASCII)


def seen_of(shown: str) -> Seen:
    """What a world_state_digest says was seen. Raises BadInput where it is none."""
    match = _SEEN.fullmatch(shown)
    if match is None:
        raise BadInput("this is no world_state_digest; send the one of GET /v1/context", ("world_state_digest",))
    return Seen(int(match[1]), int(match[2]), int(match[3]))


def digest_of(seen: Seen, world: Json) -> str:
    """The world_state_digest: what was seen, and a digest of how it looked."""
    sha = hashlib.sha256(exact_json(world).encode()).hexdigest()
    return f"{seen.epoch}-{seen.constraints_seq}-{seen.entries}-{sha[:32]}"


def shown_by(state: State) -> str:
    """The world_state_digest of who looks now. Complexity: O(balances)."""
    return digest_of(state.seen, world_state_json(state.world_state()))


def state_shown(session: Session, shown: str) -> State | None:
    """The state whose world_state_digest this is; None where it is not found, or more than one could be meant.

    Complexity: as `state_after`, and up to `SEARCHED` records. Raises BadInput where it is no world_state_digest.
    """
    seen = seen_of(shown)
    with snapshot(session):
        first = session.execute(query("seq_shown"), seen._asdict()).fetchone()
        if first is None or first[0] is None:
            return None
        state, found = state_after(session, first[0]), list[State]()
        rows = session.execute(query("records"), {"after": first[0], "limit": SEARCHED}).fetchall()
        following = (decoded(body, digest_) for _, body, digest_ in rows)
        while state.seen == seen:
            if shown_by(state) == shown:
                found.append(copied(state))
            record = next(following, None)
            if record is None:
                break
            fold(state, record)
    alike = all(state.reserved == found[0].reserved and state.mandates == found[0].mandates for state in found)
    return found[-1] if found and alike else None
