"""What the dashboard's questions are answered with over HTTP, as forms with examples; nothing is looked up here.

Amounts are in units, times are UTC text, ages are seconds, shares are between 0 and 1. What is unknown is null.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from gridgov.forms import ROUND_ID

Json = dict[str, Any]

_NO_OUTCOMES = {"executed": 0, "rejected": 0, "held": 0, "noop": 0, "malformed": 0, "unavailable": 0}
_TRANSFER = {"from": "home-1", "to": "home-2", "resource": "energy", "amount": 12.5}
_AT = "2026-11-22T12:00:00Z"

_ME: Json = {"name": "mia", "scopes": ["read", "operate"], "mandate": None, "grid": "main"}


class MeAnswer(BaseModel):
    """Whose key this is: its name in the journal, its scopes, whom it may move for (null: everyone), its grid."""

    model_config = ConfigDict(title="Me", json_schema_extra={"examples": [_ME]})

    name: str
    scopes: list[Literal["read", "propose", "operate"]]
    mandate: list[str] | None
    grid: str


_WINDOW: Json = {
    "since": "2026-11-21T12:00:00Z", "until": _AT, "records": 61, "total": 24,
    "outcomes": {**_NO_OUTCOMES, "executed": 21, "rejected": 2, "held": 1},
    "overrides": 0, "reversals": 1, "entries": 44,
}  # fmt: skip

_SUMMARY: Json = {
    "as_of": _AT, "grid": "main",
    "head": {"seq": 812, "digest": "9f" * 32, "at": "2026-11-22T11:59:58Z"},
    "entries": 1201, "epoch": 42,
    "paused": {"since": "2026-11-22T11:00:00Z", "seq": 801, "operator": "mia", "reason": "storm"},
    "window": {**_WINDOW, "hours": 24, "complete": True}, "before": _WINDOW,
    "refused": {"total": 2, "looked_at": 2, "by_code": {"max_transfer": 2}},
    "held": {"count": 1, "items": [
        {"proposal_id": ROUND_ID, "seq": 790, "epoch": 41, "proposer": "planner", "at": "2026-11-22T10:00:00Z",
         "age_seconds": 7200, "held_until": 65, "epochs_left": 23, "transfers": [_TRANSFER], "reasoning": "…"},
    ]},
    "in_a_row": {"refused": 0, "unavailable": 0},
    "last_outcome": {"seq": 811, "proposal_id": ROUND_ID, "outcome": "executed", "at": _AT, "age_seconds": 4.2},
    "outbox": {"lag": 3, "capped": False, "oldest": {"seq": 805, "at": _AT, "age_seconds": 61.0}},
    "conservation": {"ok": True, "sums": {"energy": 0}},
    "resources": [
        {"resource": "energy", "unit": "kWh", "scale": 3, "actors": 17, "total": 812.4, "boundary": -812.4,
         "change": 14.2, "reserved": 20, "transferred": 310.5},
    ],
    "changes": [{"actor": "home-1", "resource": "energy", "before": 40, "after": 27.5, "change": -12.5}],
    "constraints": {"seq": 700, "epoch": 30, "at": _AT, "operator": "mia", "reason": "winter",
                    "constraints": {"max_transfer": {"energy": 50}, "min_balance": 0}},
    "prompts": {"active": {"prompt": "propose_transfer", "prompt_digest": "ab" * 32, "model": "gemini-3.8-flash",
                           "seq": 2, "since": _AT, "operator": "mia", "reason": "backtested", "default": False},
                "shadow": {"prompt": "propose_fair", "prompt_digest": "cd" * 32, "model": "gemini-3.8-flash",
                           "seq": 3, "since": _AT, "operator": "mia", "reason": "to compare", "default": False}},
    "series": {"step_seconds": 3600, "points": [{"at": "2026-11-22T11:00:00Z", **_NO_OUTCOMES, "executed": 3}]},
}  # fmt: skip


class SummaryAnswer(BaseModel):
    """All that the page Today needs, as of one moment.

    `window` is the last so many hours, `before` as many before them (null where the window is not complete). Each
    proposal counts once, with what it came to in the end: `held` still waits. Where a window has more records than are
    looked at, `complete` is false and `since` is the time of the first that was. `refused.by_code` counts a proposal
    for each rule that it broke, over the last `looked_at` refused ones; like `outcomes`, by when it was proposed.
    `paused` is null while the grid runs.
    `held.items` are the 20 oldest; `epochs_left` is null where they wait without end. `total` is what all actors but
    the boundary have; `change` by how much that moved in the window; `transferred` what executed proposals moved in it.
    `changes` are the 20 largest, by resource in turn. `conservation.ok`: all balances of each resource, the
    boundary's too, sum to 0. `prompts.active.default`: nobody activated it. `series` has at most 200 points, oldest
    first, empty ones as zeros, of the time at which proposals were decided.
    """

    model_config = ConfigDict(title="Summary", json_schema_extra={"examples": [_SUMMARY]})

    as_of: str
    grid: str
    head: Json
    entries: int
    epoch: int
    paused: Json | None
    window: Json
    before: Json | None
    refused: Json
    held: Json
    in_a_row: dict[str, int]
    last_outcome: Json | None
    outbox: Json
    conservation: Json
    resources: list[Json]
    changes: list[Json]
    constraints: Json
    prompts: dict[str, Json | None]
    series: Json


_STATEMENT: Json = {
    "actor": "home-1", "type": "node", "frozen": False, "source": "postgres:main",
    "since": "2026-11-01T00:00:00Z", "until": "2026-12-01T00:00:00Z",
    "head": {"seq": 812, "digest": "9f" * 32, "at": _AT},
    "accounts": [
        {
            "resource": "energy", "unit": "kWh", "scale": 3, "opening": 100,
            "in": {"produce": 14, "received": 3}, "in_total": 17,
            "out": {"consume": 7.5, "given": 12.5}, "out_total": 20, "closing": 97,
            "given": [{"actor": "home-2", "amount": 12.5, "transfers": 1}],
            "received": [{"actor": "home-3", "amount": 3, "transfers": 2}],
            "needs": {"announced": 8, "demanded": 8, "served": 7.5, "unmet": 0.5},
            "cost": None,
        },
    ],
    "notes": [],
}  # fmt: skip


class StatementAnswer(BaseModel):
    """What an actor had, got, gave and has left, from `since` (inclusive) to `until` (exclusive).

    For each resource `opening + in_total - out_total = closing`, checked. `in` and `out` are by kind: genesis, produce,
    grow, received (executed proposals), override, reversal; consume, spill, given, override, reversal; those of 0 are
    left out. `given` and `received` are executed proposals by counterparty, largest first. Of needs, `announced` is
    what was said before proposals were made, `demanded` what was to be consumed, `served` what was. `cost` is what the
    unmet rest costs, where prices are known (in runs), else null.
    """

    model_config = ConfigDict(title="Statement", json_schema_extra={"examples": [_STATEMENT]})

    actor: str
    type: str
    frozen: bool
    source: str
    since: str
    until: str
    head: Json
    accounts: list[Json]
    notes: list[str]


_HISTORY: Json = {
    "actor": "home-1", "resource": "energy", "unit": "kWh", "scale": 3, "since": "2026-11-01T00:00:00Z",
    "until": _AT, "step_seconds": 3600, "opening": 100, "points": [{"at": "2026-11-22T11:00:00Z", "balance": 97}],
}  # fmt: skip


class BalancesAnswer(BaseModel):
    """A balance over time: at most 2,000 points, each the balance at the end of a step in which it moved.

    Between points it stays as it was: draw a step line, from `opening` at `since`.
    """

    model_config = ConfigDict(title="Balances", json_schema_extra={"examples": [_HISTORY]})

    actor: str
    resource: str
    unit: str
    scale: int
    since: str
    until: str
    step_seconds: int
    opening: float
    points: list[Json]


_PROMPTS: Json = {
    "items": [
        {
            "role": "active", "prompt": "propose_transfer", "prompt_digest": "ab" * 32, "model": "gemini-3.8-flash",
            "in_force": True, "activated": _AT, "first": _AT, "last": _AT, "calls": 120,
            "outcomes": {**_NO_OUTCOMES, "executed": 110, "rejected": 8, "unavailable": 2}, "acceptance": 0.932,
            "by_code": {"max_transfer": 8},
            "tokens": {"prompt": 1800.5, "answer": 120, "thoughts": 300, "counted": 118},
            "latency_ms": {"mean": 1830.0, "median": 1700.0, "p95": 3100.0, "counted": 118},
            "cost": {"currency": "USD", "total": 0.231, "mean": 0.0019, "counted": 118},
            "regret": None, "agreement": None, "synthetic": 0, "other_models": {},
        },
        {
            "role": "shadow", "prompt": "propose_fair", "prompt_digest": "cd" * 32, "model": "gemini-3.8-flash",
            "in_force": True, "activated": _AT, "first": _AT, "last": _AT, "calls": 40,
            "outcomes": {**_NO_OUTCOMES, "executed": 39, "rejected": 1}, "acceptance": 0.975, "by_code": {},
            "tokens": None, "latency_ms": None, "cost": None, "regret": None, "synthetic": 0,
            "other_models": {"gemini-3.5-flash": 2},
            "agreement": {"compared": 40, "same_outcome": 36, "same_transfers": 20,
                          "only_active_accepted": 1, "only_shadow_accepted": 3, "on_same_state": 40},
        },
    ],
    "calls": 160, "looked_at": 160,
    "notes": ["regret is not known in production: `gridgov backtest postgres` works it out"],
}  # fmt: skip


class PromptsAnswer(BaseModel):
    """Each version of what was asked: prompt, its digest, model and role, those in force first, then the last used.

    `acceptance` is executed / (executed + rejected + held + malformed), null where there was none of these. Tokens,
    latency and cost are over the calls that say so. `agreement` is a shadow's: of the rounds that both answered, how
    often the outcome (or every transfer, too) was the same. `other_models` counts the calls that another model answered
    than was asked, by its name. `regret` needs the best that was possible, which production does not know: null. Of
    more than `looked_at` calls, those are the last.
    """

    model_config = ConfigDict(title="Prompts", json_schema_extra={"examples": [_PROMPTS]})

    items: list[Json]
    calls: int
    looked_at: int
    notes: list[str]


_STORY: Json = {
    "proposal_id": ROUND_ID, "epoch": 42, "proposer": "planner", "n": 1, "outcome": "executed", "seq": 812,
    "at": _AT, "shadow": False, "digest": "9f" * 32, "url": "http://127.0.0.1:8080/ledger?entry=1201",
    "seen": {"world_state": {"epoch": 42, "timestamp": _AT, "actors": [], "resources": ["energy"], "constraints": {}},
             "world_state_digest": f"42-1-1200-{'9f' * 16}", "moved_since": False,
             "prompt": {"name": "propose_transfer", "digest": "ab" * 32},
             "interaction": {"model_asked": "gemini-3.8-flash", "model_answered": "gemini-3.8-flash", "status": 200,
                             "usage": {"prompt": 1800}, "latency_ms": 1700, "request": {}, "request_key": "9f" * 32}},
    "said": {"transfers": [_TRANSFER], "reasoning": "…", "raw": "{…}"},
    "judged": {"outcome": "executed", "violations": []},
    "moved": {"entries": [{"id": 1201, **_TRANSFER}],
              "balances": [{"actor": "home-1", "resource": "energy", "before": 40, "after": 27.5}]},
    "settled": None,
    "reversed": [{"seq": 815, "at": _AT, "operator": "mia", "reason": "wrong meter", "outcome": "executed",
                  "reverses": [1201], "entries": [1205]}],
    "linear": {"issue_id": ROUND_ID, "title": "Executed: …", "description": "…", "priority": 4,
               "acknowledged": {"reference": "GRID-17", "at": _AT}},
}  # fmt: skip


class StoryAnswer(BaseModel):
    """A proposal's whole story, as `gridgov explain postgres ID --json` tells it, and what came of it since.

    `seen.world_state` is the state on which it was judged; `seen.world_state_digest` of what its proposer was shown,
    where that is known; `seen.interaction` what was kept of the exchange with a model, `said.raw` its reply as it came.
    `settled`: how its hold ended (decision, operator, reason, judged, moved). `reversed`: each record that took some of
    its entries back. `linear.acknowledged`: as what its issue was handed on, null while it waits.
    """

    model_config = ConfigDict(title="Story", json_schema_extra={"examples": [_STORY]}, extra="allow")

    proposal_id: str
    epoch: int
    proposer: str
    n: int
    outcome: str
    seq: int | None
    at: str | None
    digest: str | None
    shadow: bool
    url: str | None
    seen: Json
    said: Json
    judged: Json
    moved: Json
    settled: Json | None
    reversed: list[Json]
    linear: Json | None


PREVIEW: Json = {
    "days": 7, "since": "2026-11-15T12:00:00Z", "until": _AT, "complete": True, "records": 401, "proposals": 168,
    "would_refuse": 14, "would_hold": 0, "would_accept": 2, "direct": 15, "knock_on": 1,
    "by_code": {"max_transfer": 14},
    "first": {"seq": 512, "epoch": 33, "proposal_id": ROUND_ID, "was": "executed", "would_be": "rejected",
              "cause": "direct", "why": "the changed terms themselves, on the state as it was: …"},
    "changed": [{"seq": 512, "epoch": 33, "proposal_id": ROUND_ID, "proposer": "planner", "was": "executed",
                 "would_be": "rejected", "cause": "direct", "codes": ["max_transfer"], "why": "…"}],
    "notes": [],
}  # fmt: skip
"""What `PUT /v1/constraints?dry_run=true` adds as `preview`: the last days judged again under the new constraints.

Of so many `proposals`, `would_refuse` were executed and would be refused, `would_hold` were executed and would wait for
a person, `would_accept` were not executed and would be. `direct`: the constraints themselves, on the state as it was;
`knock_on`: balances differ by then. `changed` has the first 20. Where there are more records than are looked at,
`complete` is false and `since` is the time of the first that was. Null where nothing was proposed yet.
"""
