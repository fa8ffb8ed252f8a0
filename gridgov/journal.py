"""What a journal record says, its one canonical text, and its digest; nothing is decided or folded here.

A record's body is the canonical JSON of {at, epoch, kind, payload, seq}: UTF-8, sorted keys, no spaces, amounts as
integers in minor units, other decimals as plain text. Its digest is sha256("gridgov/1\\n" + previous digest + body).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from json.encoder import encode_basestring as _quote
from typing import Any, NamedTuple

from gridgov.amounts import plain_decimal
from gridgov.model import (
    Actor,
    AutoPause,
    Code,
    Constraints,
    Kind,
    Limit,
    Outcome,
    Resource,
    Transfer,
    Violation,
)

START = bytes(32)
"""What stands for the previous digest of the first record."""

_TAG = hashlib.sha256(b"gridgov/1\n")


def digest(previous: bytes, body: str) -> bytes:
    """The 32 bytes that chain this body to the record before it."""
    sha = _TAG.copy()
    sha.update(previous)
    sha.update(body.encode())
    return sha.digest()


def canonical(value: Any) -> str:
    """The canonical JSON of plain values: sorted keys, no spaces, UTF-8.

    Decimals become plain text. Raises TypeError for floats, other types, and keys that are not text.
    """
    _check_plain(value)
    return _dumps(value)


def _check_plain(value: Any) -> None:
    if isinstance(value, dict):
        for key, own in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{type(key).__name__} is no key in canonical JSON")
            _check_plain(own)
    elif isinstance(value, list | tuple):
        for own in value:
            _check_plain(own)
    elif value is not None and not isinstance(value, str | int | Decimal):
        raise TypeError(f"{type(value).__name__} has no canonical form")


def _dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain)


def _plain(value: Any) -> str:
    assert isinstance(value, Decimal), "checked before, or written by the encoders below"
    return plain_decimal(value)


class Genesis(NamedTuple):
    """The first record: who and what there is, the rules, and the opening balances (in order, zeros included)."""

    seed: int
    start: int
    epoch_length: int
    actors: tuple[Actor, ...]
    resources: tuple[Resource, ...]
    constraints: Constraints
    opening: tuple[tuple[str, str, int], ...]
    scenario: dict[str, Any]


class Once(NamedTuple):
    """A request that counts once, however often it is delivered: its id (a UUID), and 64 hex of what it asks."""

    request: str
    input: str


class Registration(NamedTuple):
    """Actors that join, actors that are frozen or thawed, and what each proposer may move (None: everything)."""

    actors: tuple[Actor, ...] = ()
    frozen: Mapping[str, bool] = {}
    mandates: Mapping[str, tuple[str, ...] | None] = {}
    operator: str = ""
    reason: str = ""
    request: str = ""
    input: str = ""


class ConstraintsChange(NamedTuple):
    """From here on these constraints, and no others, are in force."""

    constraints: Constraints
    operator: str = ""
    reason: str = ""
    request: str = ""
    input: str = ""


class Reading(NamedTuple):
    """One actor's part of a flow: what was requested, what was applied, and the entry that applied it."""

    actor: str
    resource: str
    requested: int
    applied: int
    entry: int | None


class Flow(NamedTuple):
    """One named flow of an epoch. `kind` is an entry kind, or `need`: a demand announced before the proposals.

    `read_for` is the epoch that late readings were for: it was closed when they came.
    """

    kind: str
    name: str
    readings: tuple[Reading, ...]
    read_for: int | None = None
    request: str = ""
    input: str = ""


class Decision(NamedTuple):
    """One round and its outcome. `transfers` were asked for; `granted`, where it differs, was judged and applied."""

    proposal_id: str
    proposer: str
    n: int
    input: str
    transfers: tuple[Transfer, ...]
    reasoning: str
    outcome: Outcome
    violations: tuple[Violation, ...] = ()
    entries: tuple[int, ...] = ()
    granted: tuple[int | Decimal, ...] | None = None
    held_until: int | None = None
    state_moved: bool = False
    fault: str = ""
    detail: str = ""

    @property
    def effective(self) -> tuple[Transfer, ...]:
        """The transfers as granted: what was judged, and applied where the outcome is executed."""
        if self.granted is None:
            return self.transfers
        return tuple(t._replace(amount=a) for t, a in zip(self.transfers, self.granted, strict=True))


class Settlement(NamedTuple):
    """The end of a hold: approve, reject or expire, and what that came to."""

    proposal_id: str
    decision: str
    outcome: Outcome
    violations: tuple[Violation, ...] = ()
    entries: tuple[int, ...] = ()
    operator: str = ""
    reason: str = ""
    request: str = ""
    input: str = ""


class Override(NamedTuple):
    """Transfers that a person made by hand, and what that came to: executed or rejected, all or nothing."""

    transfers: tuple[Transfer, ...]
    outcome: Outcome
    violations: tuple[Violation, ...] = ()
    entries: tuple[int, ...] = ()
    operator: str = ""
    reason: str = ""
    request: str = ""
    input: str = ""


class Reversal(NamedTuple):
    """Entries that a person took back, newest first, and what that came to. `transfers` move each amount back.

    `proposal_id` is the proposal that is reversed as a whole, None where single entries are.
    """

    proposal_id: str | None
    reverses: tuple[int, ...]
    transfers: tuple[Transfer, ...]
    outcome: Outcome
    violations: tuple[Violation, ...] = ()
    entries: tuple[int, ...] = ()
    operator: str = ""
    reason: str = ""
    request: str = ""
    input: str = ""


class Activation(NamedTuple):
    """From here on this prompt and this model, in this role: `active` proposes, `shadow` is only judged.

    `digest` is that of the prompt with its includes. An empty model ends the role.
    """

    prompt: str
    model: str
    digest: str
    role: str = "active"
    operator: str = ""
    reason: str = ""
    request: str = ""
    input: str = ""


class Close(NamedTuple):
    """The end of an epoch: the last entry's id, and the boundary's balances, which mirror the sum of all others."""

    entries: int
    boundary: dict[str, int]
    collapsed: bool = False


class Control(NamedTuple):
    """Pause or resume: while paused, every proposal is refused."""

    paused: bool
    operator: str = ""
    reason: str = ""
    request: str = ""
    input: str = ""


Payload = (
    Genesis
    | Registration
    | ConstraintsChange
    | Flow
    | Decision
    | Settlement
    | Override
    | Reversal
    | Activation
    | Close
    | Control
)

Act = Registration | ConstraintsChange | Flow | Settlement | Override | Reversal | Activation | Control
"""What may carry the id of a request that counts once."""


class JournalRecord(NamedTuple):
    """One step of the total order. `payload` is what `body` says; `digest` chains `body` to the record before."""

    seq: int
    epoch: int
    kind: str
    at: int
    payload: Payload
    body: str
    digest: bytes


def answers(record: JournalRecord) -> str | None:
    """What `Ledger.answered` finds it by: the id of the proposal that it decides, or `by_request` of its request."""
    payload = record.payload
    if type(payload) is Decision:
        return payload.proposal_id
    request = getattr(payload, "request", "")
    return by_request(request) if request else None


def by_request(request: str) -> str:
    """What a request is found by: never the id of a proposal, which anybody may choose."""
    return f"request {request}"


# --- encoding ---------------------------------------------------------------------------------------------------------

_key = lru_cache(maxsize=65536)(_quote)
"""The JSON text of a key that comes again and again: an actor, a resource, a proposer."""


def _limit(limit: Limit | None) -> dict[str, Any] | None:
    if limit is None:
        return None
    return {"by_actor": limit.by_actor, "by_resource": limit.by_resource}


def constraints_payload(constraints: Constraints) -> dict[str, Any]:
    """The constraints as plain JSON values; the inverse of `constraints_from`."""
    found = {
        "max_transfer": _limit(constraints.max_transfer),
        "min_balance": _limit(constraints.min_balance),
        "epoch_quota": _limit(constraints.epoch_quota),
        "hold_above": _limit(constraints.hold_above),
        "max_transfers_per_proposal": constraints.max_transfers_per_proposal,
        "hold_epochs": constraints.hold_epochs,
        "auto_pause": constraints.auto_pause._asdict() if constraints.auto_pause else None,
    }
    return {key: value for key, value in found.items() if value is not None}


def constraints_from(payload: dict[str, Any]) -> Constraints:
    """The constraints that `constraints_payload` wrote."""
    found: dict[str, Any] = dict(payload)
    for key in ("max_transfer", "min_balance", "epoch_quota", "hold_above"):
        if key in found:
            found[key] = Limit(found[key]["by_resource"], found[key]["by_actor"])
    if "auto_pause" in found:
        found["auto_pause"] = AutoPause(**found["auto_pause"])
    return Constraints(**found)


def _violation(violation: Violation) -> dict[str, Any]:
    return {key: value for key, value in violation._asdict().items() if value is not None}


def violations_text(violations: tuple[Violation, ...]) -> str:
    """The canonical JSON of violations; what is absent is left out."""
    parts = []
    for code, path, limit, actual, resource in violations:
        text = f'"code":"{code}"'
        if actual is not None:
            text = f'"actual":{_quote(actual) if type(actual) is str else actual},{text}'
        if limit is not None:
            text += f',"limit":{_quote(limit) if type(limit) is str else limit}'
        text += f',"path":{_key(path)}'
        if resource is not None:
            text += f',"resource":{_key(resource)}'
        parts.append(f"{{{text}}}")
    return f"[{','.join(parts)}]"


def _violation_from(payload: dict[str, Any]) -> Violation:
    return Violation(**{**payload, "code": Code(payload["code"])})


def transfers_text(transfers: tuple[Transfer, ...]) -> str:
    """The canonical JSON of transfers: whole numbers are minor units, text is a decimal that did not fit."""
    parts = []
    for actor_from, actor_to, resource, amount in transfers:
        text = amount if type(amount) is int else _quote(plain_decimal(amount))
        parts.append(f'{{"amount":{text},"from":{_key(actor_from)},"resource":{_key(resource)},"to":{_key(actor_to)}}}')
    return f"[{','.join(parts)}]"


def input_digest(transfers: str, reasoning: str) -> str:
    """64 hex of sha256 over the canonical JSON of {reasoning, transfers}, both given as JSON text."""
    return hashlib.sha256(f'{{"reasoning":{reasoning},"transfers":{transfers}}}'.encode()).hexdigest()


def proposal_digest(transfers: tuple[Transfer, ...], reasoning: str) -> str:
    """The input digest of a proposal: same id and same digest is the same request again."""
    return input_digest(transfers_text(transfers), _quote(reasoning))


def _decision(decision: Decision) -> str:
    """The canonical payload of a decision, written by hand because it is most of the journal."""
    parts = []
    if decision.detail:
        parts.append(f'"detail":{_quote(decision.detail)}')
    parts.append(f'"entries":[{",".join(map(str, decision.entries))}]')
    if decision.fault:
        parts.append(f'"fault":{_quote(decision.fault)}')
    if decision.granted is not None:
        parts.append(f'"granted":{_dumps(decision.granted)}')
    if decision.held_until is not None:
        parts.append(f'"held_until":{decision.held_until}')
    parts.append(
        f'"input":"{decision.input}","n":{decision.n},"outcome":"{decision.outcome}",'
        f'"proposal_id":{_quote(decision.proposal_id)},"proposer":{_key(decision.proposer)},'
        f'"reasoning":{_quote(decision.reasoning)}'
    )
    if decision.state_moved:
        parts.append('"state_moved":true')
    parts.append(f'"transfers":{transfers_text(decision.transfers)}')
    parts.append(f'"violations":{violations_text(decision.violations)}')
    return f"{{{','.join(parts)}}}"


def _genesis(payload: Genesis) -> dict[str, Any]:
    return {
        **payload._asdict(),
        "constraints": constraints_payload(payload.constraints),
        "actors": [actor._asdict() for actor in payload.actors],
        "resources": [resource._asdict() for resource in payload.resources],
    }


def _act(payload: Act) -> dict[str, Any]:
    """The fields of an act; those of a request that counts once, and what is not late, are absent where empty."""
    found = payload._asdict()
    for key in ("read_for", "request", "input"):
        if key in found and not found[key]:
            del found[key]
    return found


def _registration(payload: Registration) -> dict[str, Any]:
    return {**_act(payload), "actors": [actor._asdict() for actor in payload.actors]}


def _constraints_change(payload: ConstraintsChange) -> dict[str, Any]:
    return {**_act(payload), "constraints": constraints_payload(payload.constraints)}


def _settlement(payload: Settlement) -> dict[str, Any]:
    return {**_act(payload), "violations": [_violation(v) for v in payload.violations]}


def _by_hand(payload: Override | Reversal) -> dict[str, Any]:
    violations = [_violation(v) for v in payload.violations]
    return {**_act(payload), "transfers": [_transfer(t) for t in payload.transfers], "violations": violations}


def _transfer(transfer: Transfer) -> dict[str, Any]:
    actor_from, actor_to, resource, amount = transfer
    assert type(amount) is int, "what could never be made is not recorded"
    return {"amount": amount, "from": actor_from, "resource": resource, "to": actor_to}


KINDS: dict[type, str] = {
    Genesis: "genesis",
    Registration: "registration",
    ConstraintsChange: "constraints",
    Flow: "flow",
    Decision: "proposal",
    Settlement: "settlement",
    Override: "override",
    Reversal: "reversal",
    Activation: "activation",
    Close: "close",
    Control: "control",
}

_ENCODE: dict[str, Callable[[Any], dict[str, Any]]] = {
    "genesis": _genesis,
    "registration": _registration,
    "constraints": _constraints_change,
    "flow": _act,
    "settlement": _settlement,
    "override": _by_hand,
    "reversal": _by_hand,
    "activation": _act,
    "control": _act,
}


def encode(payload: Payload) -> str:
    """The canonical JSON of a payload."""
    if type(payload) is Decision:
        return _decision(payload)
    kind = KINDS[type(payload)]
    if type(payload) is Genesis:
        _check_plain(payload.scenario)
    return _dumps(_ENCODE[kind](payload) if kind in _ENCODE else payload._asdict())


def seal(previous: bytes, seq: int, epoch: int, at: int, payload: Payload) -> JournalRecord:
    """The record that follows the one whose digest is `previous`."""
    kind = KINDS[type(payload)]
    body = f'{{"at":{at},"epoch":{epoch},"kind":"{kind}","payload":{encode(payload)},"seq":{seq}}}'
    return JournalRecord(seq, epoch, kind, at, payload, body, digest(previous, body))


# --- decoding ---------------------------------------------------------------------------------------------------------


def _amount(value: int | str) -> int | Decimal:
    return value if isinstance(value, int) else Decimal(value)


def _transfers_from(payload: dict[str, Any]) -> tuple[Transfer, ...]:
    return tuple(Transfer(t["from"], t["to"], t["resource"], _amount(t["amount"])) for t in payload["transfers"])


def _judged_from(payload: dict[str, Any]) -> dict[str, Any]:
    """What judging came to, in each payload that says so."""
    return {
        "outcome": Outcome(payload["outcome"]),
        "violations": tuple(_violation_from(v) for v in payload["violations"]),
        "entries": tuple(payload["entries"]),
    }


def _decision_from(payload: dict[str, Any]) -> Decision:
    granted = payload.get("granted")
    return Decision(
        **{
            **payload,
            **_judged_from(payload),
            "transfers": _transfers_from(payload),
            "granted": None if granted is None else tuple(_amount(a) for a in granted),
        }
    )


def _genesis_from(payload: dict[str, Any]) -> Genesis:
    return Genesis(
        **{
            **payload,
            "actors": tuple(Actor(**actor) for actor in payload["actors"]),
            "resources": tuple(Resource(**resource) for resource in payload["resources"]),
            "constraints": constraints_from(payload["constraints"]),
            "opening": tuple(tuple(line) for line in payload["opening"]),
        }
    )


def _registration_from(payload: dict[str, Any]) -> Registration:
    mandates = {name: None if m is None else tuple(m) for name, m in payload["mandates"].items()}
    actors = tuple(Actor(**actor) for actor in payload["actors"])
    return Registration(**{**payload, "actors": actors, "mandates": mandates})


def _flow_from(payload: dict[str, Any]) -> Flow:
    return Flow(**{**payload, "readings": tuple(Reading(*reading) for reading in payload["readings"])})


def _settlement_from(payload: dict[str, Any]) -> Settlement:
    return Settlement(**{**payload, **_judged_from(payload)})


def _override_from(payload: dict[str, Any]) -> Override:
    return Override(**{**payload, **_judged_from(payload), "transfers": _transfers_from(payload)})


def _reversal_from(payload: dict[str, Any]) -> Reversal:
    reverses = tuple(payload["reverses"])
    transfers = _transfers_from(payload)
    return Reversal(**{**payload, **_judged_from(payload), "transfers": transfers, "reverses": reverses})


_DECODE: dict[str, Callable[[dict[str, Any]], Payload]] = {
    "genesis": _genesis_from,
    "registration": _registration_from,
    "constraints": lambda p: ConstraintsChange(**{**p, "constraints": constraints_from(p["constraints"])}),
    "flow": _flow_from,
    "proposal": _decision_from,
    "settlement": _settlement_from,
    "override": _override_from,
    "reversal": _reversal_from,
    "activation": lambda p: Activation(**p),
    "close": lambda p: Close(**p),
    "control": lambda p: Control(**p),
}

ENTRY_KINDS = {kind.value: kind for kind in Kind}
"""From the kind of a flow to the kind of its entries; `need` has none."""


NOT_A_RECORD = (ArithmeticError, AttributeError, KeyError, TypeError, ValueError, RecursionError)
"""What `decode` raises where a body is no record: it reads what nobody may have written."""


def decode(body: str, digest_: bytes) -> JournalRecord:
    """The record whose body this is; raises one of `NOT_A_RECORD` where it isn't one."""
    found = json.loads(body)
    if not all(type(found[key]) is int for key in ("at", "epoch", "seq")):
        raise TypeError("at, epoch and seq are whole numbers")
    if (found["kind"] == "genesis") != (found["seq"] == 1):
        raise ValueError("the first record is the genesis, and no other")
    payload = _DECODE[found["kind"]](found["payload"])
    return JournalRecord(found["seq"], found["epoch"], found["kind"], found["at"], payload, body, digest_)
