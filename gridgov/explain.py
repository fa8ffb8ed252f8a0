"""The story of one proposal: what was seen, said, judged, moved and settled, as plain values; nothing is printed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from gridgov.amounts import json_number, to_json, to_minor
from gridgov.errors import BadInput
from gridgov.journal import Decision, JournalRecord, Settlement
from gridgov.model import Code, LedgerEntry, Outcome, Resource, Violation
from gridgov.replay import follow
from gridgov.state import State
from gridgov.wire import decision_json, timestamp, violation_json, world_state_json
from gridgov.words import words

if TYPE_CHECKING:
    from gridgov.source import Source

Json = dict[str, Any]

_UUID, _START = 36, 4
"""Characters of a proposal id, and the fewest that stand for it."""

Story = dict[str, Any]
"""Plain JSON values:

    proposal_id, epoch, proposer, n, outcome (the final one), seq, at, shadow
    seen     world_state: as it was when the proposal was judged; moved_since: whether balances had moved since the
             proposer looked; interaction: what is kept of the exchange with a model, with request and reply, or None
    said     transfers and reasoning, or fault; raw: the text of the reply, where one is kept
    judged   outcome, violations (each with its words), and granted, where an allocation decided
    moved    entries, and balances: actor, resource, before, after, of everyone they touched
    settled  None, or how its hold ended: seq, epoch, at, decision, operator, reason, and judged and moved as above
"""


Begun = tuple[State, Iterable[JournalRecord]]
"""The state at the close of an epoch before a proposal, and the records from there on: all that its story needs."""


def explain(source: Source, proposal_id: str, begun: Begun | None = None) -> Story:
    """Tells a proposal's story from its history; from its beginning, unless it is given where to begin.

    Raises BadInput where there is no such proposal, Damaged where the history is not what it was.
    Complexity: O(records up to the proposal, or to the settlement of its hold).
    """
    wanted = proposal_id if begun is not None else _whole(source, proposal_id.strip().lower())
    state, records = begun if begun is not None else (State(), source.records())
    story, example = None, None
    for record in records:
        payload = record.payload
        if isinstance(payload, Decision) and payload.proposal_id == wanted:
            story = decided(state, record, payload, _interaction(source, wanted))
            if payload.outcome is not Outcome.HELD:
                return story
        elif story is not None and isinstance(payload, Settlement) and payload.proposal_id == wanted:
            story["settled"] = settled(state, record, payload)
            story["outcome"] = payload.outcome.value
            return story
        else:
            follow(state, record)
            example = payload.proposal_id if isinstance(payload, Decision) and example is None else example
    if story is None:
        story = _shadow(source, wanted, None if begun is None else state)
    if story is None:
        hint = f"its first is {example}" if example is not None else "it has none"
        raise BadInput(f"{source.path}: there is no proposal {proposal_id}; {hint}")
    return story


def _whole(source: Source, start: str) -> str:
    """The one proposal id that begins so, where there is exactly one; else what was given."""
    if len(start) >= _UUID or len(start) < _START:
        return start
    found = {r.payload.proposal_id for r in source.records() if isinstance(r.payload, Decision)}
    near = [each for each in found if each.startswith(start)]
    return near[0] if len(near) == 1 else start


def told(state: State, record: JournalRecord, decision: Decision, interaction: Json | None) -> Story:
    """What was seen, said and judged, on the state as it was before the record; nothing is moved."""
    resources = state.resources
    seen: Json = {
        "world_state": world_state_json(state.world_state()),
        "moved_since": decision.state_moved,
        "interaction": interaction,
    }
    asked = decision_json(decision, resources)
    said = {key: asked[key] for key in ("transfers", "reasoning", "fault") if key in asked}
    judged = {
        "outcome": decision.outcome.value,
        "violations": in_words(decision.violations, resources),
        **({"granted": asked["granted"]} if "granted" in asked else {}),
        **({"held_until": decision.held_until} if decision.held_until is not None else {}),
    }
    return {
        "proposal_id": decision.proposal_id,
        "epoch": record.epoch,
        "proposer": decision.proposer,
        "n": decision.n,
        "outcome": decision.outcome.value,
        "seq": record.seq,
        "at": timestamp(record.at),
        "shadow": False,
        "seen": seen,
        "said": {**said, "raw": _reply(interaction)},
        "judged": judged,
        "moved": {"entries": [], "balances": []},
        "settled": None,
    }


def decided(state: State, record: JournalRecord, decision: Decision, interaction: Json | None) -> Story:
    """The story up to the decision; folds its record."""
    return told(state, record, decision, interaction) | {"moved": _moved(state, record)}


def settled(state: State, record: JournalRecord, settlement: Settlement) -> Json:
    """How a hold ended; folds its record."""
    return {
        "seq": record.seq,
        "epoch": record.epoch,
        "at": timestamp(record.at),
        "decision": settlement.decision,
        "operator": settlement.operator,
        "reason": settlement.reason,
        "judged": {
            "outcome": settlement.outcome.value,
            "violations": in_words(settlement.violations, state.resources),
        },
        "moved": _moved(state, record),
    }


def _moved(state: State, record: JournalRecord) -> Json:
    """Folds a record; its entries, and the balances that they touched before and after."""
    before = {name: dict(held) for name, held in state.balances.items()}
    entries = follow(state, record)
    touched = {(actor, entry.resource): None for entry in entries for actor in (entry.actor_from, entry.actor_to)}
    balances = []
    for actor, name in touched:
        scale = state.resources[name].scale
        left = {"before": before[name].get(actor, 0), "after": state.balance(actor, name)}
        amounts = {key: to_json(minor, scale) for key, minor in left.items()}
        balances.append({"actor": actor, "resource": name, **amounts})
    return {"entries": [_entry(entry, state.resources) for entry in entries], "balances": balances}


def _entry(entry: LedgerEntry, resources: Mapping[str, Resource]) -> Json:
    return {
        "id": entry.id,
        "from": entry.actor_from,
        "to": entry.actor_to,
        "resource": entry.resource,
        "amount": to_json(entry.amount, resources[entry.resource].scale),
    }


# --- what no record holds ---------------------------------------------------------------------------------------------


def _interaction(source: Source, proposal_id: str) -> Json | None:
    """What the export keeps of the exchange with a model, with the line as JSON."""
    return next((exchange_of(row) for row in source.named("interaction", proposal=proposal_id)), None)


def exchange_of(row: Mapping[str, Any]) -> Json:
    """What a row of an export's interactions says, with the line as JSON."""
    found = {key: _plain(value) for key, value in row.items() if value is not None}
    with suppress(ValueError):
        found["line"] = json.loads(found.get("line") or "null")
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat() + "Z"
    return value if isinstance(value, str | int | float) else str(value)


def _reply(interaction: Json | None) -> str | None:
    """The raw text of a reply, as the line has it."""
    line = interaction.get("line") if interaction is not None else None
    found = line.get("body") if isinstance(line, dict) else None
    return found if isinstance(found, str) else None


def _shadow(source: Source, proposal_id: str, begun: State | None) -> Story | None:
    """The story of what a shadow proposed: no record holds it, so what it saw is how its epoch began."""
    for row in source.named("shadow", proposal=proposal_id):
        state = begun if begun is not None else _began(source, row["epoch"])
        asked = [
            {"from": t["actor_from"], "to": t["actor_to"], "resource": t["resource"], "amount": _amount(t)}
            for t in source.named("shadow_transfers", proposal=proposal_id)
        ]
        violations = [_violation(one, state.resources) for one in json.loads(row["violations"], parse_float=Decimal)]
        interaction = _interaction(source, proposal_id)
        fault = {} if row["fault"] is None else {"fault": {"code": row["fault"], "detail": row["detail"] or ""}}
        return {
            "proposal_id": proposal_id,
            **{key: row[key] for key in ("epoch", "proposer", "n", "outcome")},
            "seq": None,
            "at": None,
            "shadow": True,
            "seen": {
                "world_state": world_state_json(state.world_state()),
                "moved_since": row["state_moved"],
                "interaction": interaction,
            },
            "said": {"transfers": asked, "reasoning": row["reasoning"], **fault, "raw": _reply(interaction)},
            "judged": {"outcome": row["outcome"], "violations": in_words(violations, state.resources)},
            "moved": {"entries": [], "balances": []},
            "settled": None,
        }
    return None


def _began(source: Source, epoch: int) -> State:
    """The state as an epoch began."""
    state = State()
    for record in source.records():
        if record.seq > 1 and state.epoch >= epoch:
            break
        follow(state, record)
    return state


def _amount(transfer: Json) -> int | float | str:
    amount = transfer["amount"]
    if amount is None:
        return str(transfer["amount_text"])
    return json_number(amount)


def _violation(found: Json, resources: Mapping[str, Resource]) -> Violation:
    """A violation as the export writes it, in minor units again."""
    resource = found.get("resource")
    scale = resources[resource].scale if resource is not None else 0
    limit, actual = (
        to_minor(value, scale) if isinstance(value, int | Decimal) else value
        for value in (found.get("limit"), found.get("actual"))
    )
    return Violation(Code(found["code"]), found["path"], limit, actual, resource)


# --- words ------------------------------------------------------------------------------------------------------------


def in_words(violations: Sequence[Violation], resources: Mapping[str, Resource]) -> list[Json]:
    """Violations in units, each with its words."""
    return [{**violation_json(v, resources), "words": words(v, resources)} for v in violations]
