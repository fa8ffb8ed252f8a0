"""What came of each version of what models were asked: prompt, digest, model and role; nothing is changed here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from statistics import fmean
from typing import NamedTuple

from gridgov.auth import SHADOW
from gridgov.cassette import differs
from gridgov.gemini import Prices
from gridgov.model import Outcome, Round
from gridgov.prompt import load
from gridgov.reader import Ask
from gridgov.service import ACTIVE, MODEL, PROMPT
from gridgov.summary import activations, in_units, moment
from gridgov.wire import Json, timestamp

CALLS = 10_000
"""So many of the last exchanges with models are looked at."""

ACCEPTED = Outcome.EXECUTED.value
JUDGED = ("executed", "rejected", "held", "malformed")
"""What an acceptance is a share of: a round that proposed nothing, or got no answer, is none of it."""

NO_REGRET = "regret is not known in production: `gridgov backtest postgres` works it out for a prompt or a model"


class _Version(NamedTuple):
    """What a model was asked with."""

    role: str
    prompt: str
    digest: str
    model: str


class _Pair(NamedTuple):
    """A round that a shadow answered too: both outcomes, and whether transfers and what was shown were the same."""

    own: str
    other: str
    same_transfers: bool
    same_state: bool


class _Uses:
    """What came of a version."""

    def __init__(self) -> None:
        self.calls = self.synthetic = 0
        self.other_models = Counter[str]()
        self.first = self.last = ""
        self.outcomes, self.codes = Counter[str](), Counter[str]()
        self.tokens: list[Json] = []
        self.latencies: list[int] = []
        self.costs: list[Decimal] = []
        self.activated: str | None = None
        self.in_force = False
        self.pairs: list[_Pair] = []

    def take(self, row: Json, prices: Prices) -> None:
        """Takes down one exchange with a model, the newest first."""
        at = moment(row["at"])
        self.calls += 1
        self.synthetic += row["origin"] == "synthetic"
        self.first, self.last = at, self.last or at
        if row["origin"] != "synthetic" and differs(row["model_asked"], row["model_answered"]):
            self.other_models[row["model_answered"]] += 1
        usage = json.loads(row["usage"] or "{}")
        if usage:
            self.tokens.append(usage)
            cost = _price(prices, row["model_answered"] or row["model_asked"] or "", tuple(usage.items()), at[:10])
            if cost is not None:
                self.costs.append(cost)
        if row["latency_ms"] is not None:
            self.latencies.append(row["latency_ms"])

    def judge(self, outcome: str, violations: Sequence[Json]) -> None:
        """Takes down what came of a round."""
        self.outcomes[outcome] += 1
        self.codes.update({violation["code"] for violation in violations})

    def told(self, version: _Version) -> Json:
        """A version as it is listed."""
        judged = sum(self.outcomes[outcome] for outcome in JUDGED)
        total = sum(self.costs, Decimal())
        money = {"currency": "USD", "total": in_units(total), "counted": len(self.costs)}
        return {
            "role": version.role,
            "prompt": version.prompt or None,
            "prompt_digest": version.digest or None,
            "model": version.model or None,
            "in_force": self.in_force,
            "activated": self.activated,
            "first": self.first or None,
            "last": self.last or None,
            "calls": self.calls,
            "outcomes": {outcome.value: self.outcomes[outcome.value] for outcome in Outcome},
            "acceptance": self.outcomes[ACCEPTED] / judged if judged else None,
            "by_code": dict(self.codes.most_common()),
            "tokens": self._tokens(),
            "latency_ms": self._latency(),
            "cost": {**money, "mean": float(total / len(self.costs))} if self.costs else None,
            "regret": None,
            "synthetic": self.synthetic,
            "other_models": dict(self.other_models.most_common()),
            "agreement": self._agreement() if version.role != ACTIVE else None,
        }

    def _tokens(self) -> Json | None:
        if not self.tokens:
            return None
        kinds = ("prompt", "answer", "thoughts")
        return {kind: fmean(own.get(kind, 0) for own in self.tokens) for kind in kinds} | {"counted": len(self.tokens)}

    def _latency(self) -> Json | None:
        if not self.latencies:
            return None
        ranked = sorted(self.latencies)
        places = {"median": 0.5, "p95": 0.95}
        shares = {name: ranked[min(len(ranked) - 1, int(share * len(ranked)))] for name, share in places.items()}
        return {"mean": fmean(ranked), **shares, "counted": len(ranked)}

    def _agreement(self) -> Json:
        """How a shadow compares with what was decided in the same rounds."""
        pairs = self.pairs
        return {
            "compared": len(pairs),
            "same_outcome": sum(pair.own == pair.other for pair in pairs),
            "same_transfers": sum(pair.same_transfers for pair in pairs),
            "only_active_accepted": sum(pair.other == ACCEPTED != pair.own for pair in pairs),
            "only_shadow_accepted": sum(pair.own == ACCEPTED != pair.other for pair in pairs),
            "on_same_state": sum(pair.same_state for pair in pairs),
        }


def versions(ask: Ask, prices: Prices) -> Json:
    """What came of each version of what models were asked; see `views.PromptsAnswer`."""
    rows = ask("calls", most=CALLS)
    found = _uses(rows, _beside(ask, rows), prices)
    _put_in_force(ask, found)
    ranked = sorted(found.items(), key=lambda each: each[1].last, reverse=True)
    ranked.sort(key=lambda each: (not each[1].in_force, each[0].role))
    return {
        "items": [uses.told(version) for version, uses in ranked],
        "calls": int(ask("count_calls")[0]["calls"]),
        "looked_at": len(rows),
        "notes": [NO_REGRET] if found else [],
    }


@lru_cache(maxsize=4096)
def _price(prices: Prices, model: str, usage: tuple[tuple[str, int], ...], day: str) -> Decimal | None:
    priced = prices.price(model, dict(usage), day)
    return None if priced is None else Decimal(priced[0])


def _uses(rows: Sequence[Json], beside: Mapping[str, Json], prices: Prices) -> dict[_Version, _Uses]:
    """What came of each version, of the last exchanges, the newest first."""
    found: dict[_Version, _Uses] = {}
    seen = {row["proposal_id"]: row["seen"] for row in rows}
    judged: set[str] = set()
    for row in rows:
        id_, aside = row["proposal_id"], row["shadow"] is not None
        asked = (row[key] or "" for key in ("prompt", "digest", "model_asked"))
        uses = found.setdefault(_Version("shadow" if aside else ACTIVE, *asked), _Uses())
        uses.take(row, prices)
        if id_ in judged:
            continue  # a reply that was sent again is one more call, and no more decisions
        judged.add(id_)
        if not aside:
            if row["outcome"] is not None:
                uses.judge(row["outcome"], json.loads(row["broken"])["payload"]["violations"] if row["broken"] else ())
            continue
        decision = json.loads(row["shadowed"])
        uses.judge(decision["outcome"], decision["violations"])
        other = beside.get(id_)
        if other is not None:
            alike = decision["transfers"] == json.loads(other["transfers"])
            same_state = seen.get(other["proposal_id"]) == row["shadow_seen"] != ""
            uses.pairs.append(_Pair(decision["outcome"], other["outcome"], alike, same_state))
    return found


def _beside(ask: Ask, rows: Sequence[Json]) -> dict[str, Json]:
    """What was decided in the rounds that shadows answered too, by the shadow's id."""
    ids = {}
    for row in rows:
        if row["shadow"] is not None:
            own = Round(row["shadow_epoch"], row["shadow"].removesuffix(SHADOW), row["shadow_n"]).proposal_id
            ids[own] = row["proposal_id"]
    found = ask("final_outcomes", ids=list(ids)) if ids else []
    return {ids[row["proposal_id"]]: row for row in found}


def _put_in_force(ask: Ask, versions: dict[_Version, _Uses]) -> None:
    """Says which versions were activated, and which are in force; those that were never asked are listed, too.

    Where none was activated, the one that is asked by default is in force.
    """
    force: dict[str, _Version] = {}
    for record, activation in activations(ask):
        if not activation.model:
            force.pop(activation.role, None)
            continue
        version = _Version(activation.role, activation.prompt, activation.digest, activation.model)
        versions.setdefault(version, _Uses()).activated = timestamp(record.at)
        force[activation.role] = version
    if ACTIVE not in force:
        default = _Version(ACTIVE, PROMPT, load(PROMPT).digest, MODEL)
        if default in versions:
            force[ACTIVE] = default
    for version in force.values():
        versions[version].in_force = True
