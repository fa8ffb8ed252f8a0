"""What history would have come to under other terms: what is changed, what is found, and it as a run; see `rejudge`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from typing import Any, NamedTuple

from gridgov import __version__
from gridgov.amounts import to_minor
from gridgov.engine import Engine
from gridgov.journal import Decision, JournalRecord, canonical
from gridgov.model import Constraints, Outcome, Resource
from gridgov.source import Source
from gridgov.tables import Commons, Run, as_ints

Json = dict[str, Any]

DIRECT, KNOCK_ON = "direct", "knock_on"

Edit = Callable[[Constraints, Mapping[str, Resource], Collection[str]], Constraints]
"""Other constraints in place of those given; resources and actors are who and what there is."""


class Terms(NamedTuple):
    """What is changed, from an epoch on.

    `edit` makes the constraints in force of those that were; `drop` are ids of proposals (or their first characters)
    that were never made, whenever that was; `freeze` are actors; `scale` multiplies the requests of flows by name.
    `said` is all of it in the words in which it was asked for.
    """

    edit: Edit | None = None
    from_epoch: int = 1
    drop: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    scale: Mapping[str, Fraction] = {}
    said: tuple[str, ...] = ()


class Fate(NamedTuple):
    """What came of a proposal: the outcome, of a hold what it was settled to (None: not at all), and the codes."""

    outcome: str
    final: str | None
    codes: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        """Whether its transfers were applied in the end."""
        return (self.final or self.outcome) == Outcome.EXECUTED.value

    @property
    def told(self) -> str:
        """The outcome, and of a hold what it was settled to: `held, then executed`."""
        return self.outcome if self.final is None else f"{self.outcome}, then {self.final}"


class Changed(NamedTuple):
    """A proposal of which something else would have come. `seq` is its record in history, `would_be` None: dropped.

    `cause` is `direct` where the changed terms themselves, on the state as it was, judge it otherwise; else `knock_on`:
    it breaks (or keeps) the same rules as before, but balances, holds or a pause differ by then. `codes` are the rules
    that it breaks on one side only; where there is none, `held`, or those of both sides; `dropped` if it is left out.
    Of a direct change they are those of the terms on the state as it was: what else `would_be` breaks is left to it.
    """

    seq: int
    epoch: int
    proposal_id: str
    proposer: str
    was: Fate
    would_be: Fate | None
    cause: str
    codes: tuple[str, ...]
    why: str


class First(NamedTuple):
    """The first record that changes: its seq in history and what it is; `why` in words."""

    seq: int
    epoch: int
    kind: str
    proposal_id: str | None
    was: str
    would_be: str
    cause: str
    why: str


class Moved(NamedTuple):
    """A balance at the end that differs, in units; None where one side never had it."""

    actor: str
    resource: str
    was: int | float | None
    would_be: int | float | None


class Measure(NamedTuple):
    """A metric at the end that differs; None where it is undefined."""

    metric: str
    resource: str | None
    was: Any
    would_be: Any


@dataclass(frozen=True)
class WhatIf:
    """History beside what it would have been.

    Attributes:
        decisions: how many rounds history has; `unreached` of them come after the end of the counterfactual.
        changed: proposals with another outcome, in their order, or refused (in the end) by other rules.
        records: records that change, by kind: those of history that differ, or are missing, and new ones.
        first: the first of them.
        balances, metrics: what differs at the end.
        ended: the epoch in which the commons collapses here and not in history, else None.
        notes: what a person should know to read this rightly, one sentence each.
        head, head_was: digests of the last records; the same where nothing changes at all.
        engine: the counterfactual itself.
    """

    source: str
    run_id: str | None
    terms: Terms
    decisions: int
    unreached: int
    changed: list[Changed]
    records: dict[str, int]
    first: First | None
    balances: list[Moved]
    metrics: list[Measure]
    ended: int | None
    notes: list[str]
    head_was: str
    head: str
    engine: Engine

    @property
    def transitions(self) -> dict[str, int]:
        """How many proposals went from which outcome to which: of a hold, what it was settled to."""
        ways = (f"{_last(c.was)} -> {'dropped' if c.would_be is None else _last(c.would_be)}" for c in self.changed)
        return dict(Counter(ways).most_common())

    def by_code(self, cause: str) -> dict[str, int]:
        """How many proposals changed for this cause, by code; one that breaks two rules counts for each."""
        return dict(Counter(code for c in self.changed if c.cause == cause for code in c.codes).most_common())

    def count(self, cause: str) -> int:
        """How many proposals changed for this cause."""
        return sum(c.cause == cause for c in self.changed)

    def with_metrics(self, metrics: list[Measure]) -> WhatIf:
        """The same with other metrics: those of two exports."""
        return WhatIf(**{**vars(self), "metrics": metrics})

    def document(self) -> Json:
        """All of it as plain JSON values."""
        accepted = [(c.was.accepted, c.would_be is not None and c.would_be.accepted) for c in self.changed]
        return {
            "source": self.source,
            "run_id": self.run_id,
            "changes": list(self.terms.said),
            "from_epoch": self.terms.from_epoch,
            "identical": not self.records,
            "decisions": {
                "total": self.decisions,
                "changed": len(self.changed),
                "direct": self.count(DIRECT),
                "knock_on": self.count(KNOCK_ON),
                "unreached": self.unreached,
                "accepted_to_refused": sum(was and not now for was, now in accepted),
                "refused_to_accepted": sum(now and not was for was, now in accepted),
                "transitions": self.transitions,
                "by_code": {cause: self.by_code(cause) for cause in (DIRECT, KNOCK_ON)},
            },
            "records": self.records,
            "first": None if self.first is None else self.first._asdict(),
            "changed": [_item(c) for c in self.changed],
            "balances": [moved._asdict() for moved in self.balances],
            "metrics": [measure._asdict() for measure in self.metrics],
            "ended": self.ended,
            "notes": self.notes,
            "head_digest": {"was": self.head_was, "would_be": self.head},
        }


def _last(fate: Fate) -> str:
    return fate.outcome if fate.final is None else f"{fate.outcome}, {fate.final}"


def _item(changed: Changed) -> Json:
    would_be = None if changed.would_be is None else changed.would_be._asdict()
    return {**changed._asdict(), "was": changed.was._asdict(), "would_be": would_be}


def measures(
    was: Mapping[tuple[str, str | None], Any], would_be: Mapping[tuple[str, str | None], Any]
) -> list[Measure]:
    """The metrics that differ, in their order."""
    return [
        Measure(*key, was.get(key), would_be.get(key))
        for key in {**was, **would_be}
        if was.get(key) != would_be.get(key)
    ]


# --- as a run ---------------------------------------------------------------------------------------------------------


def run_of(source: Source, found: WhatIf) -> Run:
    """The counterfactual as a run of its own, to be exported: its history's prices, commons and files, nobody asked.

    Its run_id is 16 hex of sha256 over the heads of both and over what was changed; `overrides` begin with
    `whatif=SOURCE`. What is best possible under these terms is not known, so that its regret is NULL.
    """
    info, records = source.info, list(found.engine.ledger.records())
    said = {"whatif": found.head_was, "from_epoch": found.terms.from_epoch, "changes": list(found.terms.said)}
    overrides = [f"whatif={source.run_id or source.path}", *found.terms.said]
    proposers = [one for one in json.loads(info.get("proposers") or "[]") if one.get("role") != "shadow"]
    return Run(
        run_id=sha256(canonical({**said, "head": found.head}).encode()).hexdigest()[:16],
        scenario=info.get("scenario") or str(source.path),
        description=info.get("description") or "",
        overrides=[*overrides, *json.loads(info.get("overrides") or "[]")],
        proposers=proposers or _proposers(records),
        version=__version__,
        records=records,
        entries=found.engine.ledger.entries(),
        horizon=info.get("horizon") or found.engine.state.epoch - 1,
        prices=prices_of(source),
        commons=commons_of(source, found.engine.state.resources),
        files=source.files(),
    )


def _proposers(records: Sequence[JournalRecord]) -> list[Json]:
    """Who proposed, by name, where nothing else is known of them."""
    names = dict.fromkeys(r.payload.proposer for r in records if isinstance(r.payload, Decision))
    return [{"name": name, "kind": "recorded", "role": "active"} for name in names]


def prices_of(source: Source) -> dict[str, Any]:
    """The prices of a run, by resource: 1e-6 currency per unit for each epoch, int64. Shape (epochs,)."""
    found: dict[str, list[int]] = {}
    for resource, millionths in source.rows("prices"):
        found.setdefault(resource, []).append(millionths)
    return {resource: as_ints(listed) for resource, listed in found.items()}


def commons_of(source: Source, resources: Mapping[str, Resource]) -> Commons | None:
    """The commons of a run, where it has one."""
    info = source.info
    if not info.get("commons_actor"):
        return None
    resource = info["commons_resource"]
    below = to_minor(info["collapse_below"] or 0, resources[resource].scale)
    assert below is not None, "it came from minor units"
    return Commons(info["commons_actor"], resource, below, tuple(actor for (actor,) in source.rows("harvesters")))


def compared(was: Mapping[str, Any], would_be: Mapping[str, Any]) -> list[Measure]:
    """The metrics of two exports that differ; those beside a baseline have none under other terms, and are left out."""
    sides = []
    for metrics in (was, would_be):
        flat: dict[tuple[str, str | None], Any] = {}
        for name, value in metrics.items():
            if name not in ("regret", "worse_off"):
                flat |= (
                    {(name, key): own for key, own in value.items()}
                    if isinstance(value, Mapping)
                    else {(name, None): value}
                )
        sides.append(flat)
    return measures(*sides)
