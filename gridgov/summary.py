"""What an operator needs to know of the last hours of a grid, put together within one snapshot; nothing is changed.

Beside millions of entries a summary costs what its window holds: where that begins is found by halves in the numbers of
records, and the rest is summed by the database. Amounts are in units, times are text, ages are seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from gridgov.amounts import LIMIT, json_number, plain_decimal
from gridgov.journal import Activation, Control, Decision, JournalRecord, decode
from gridgov.model import Outcome, Resource
from gridgov.pages import LAG_MAX
from gridgov.reader import Ask
from gridgov.service import ACTIVE, MODEL, PROMPT
from gridgov.state import drawdown
from gridgov.wire import Json, constraints_json, decision_json, timestamp

HOUR_US = 3_600_000_000
HOURS_MAX = 744
"""The longest window: 31 days."""

RECORDS = 200_000
"""A window has no more records than so many, the last ones."""

REFUSALS = 5_000
"""So many of the last refusals are looked at for the rules that they broke."""

LISTED = 20
"""Most items of a list."""

HOLDS = 10_000
STEPS_S = (300, 3_600, 14_400)
"""Steps of a series, in seconds: the shortest that comes to no more than `POINTS` points."""

POINTS = 200

# --- amounts and times ------------------------------------------------------------------------------------------------


def in_units(amount: Decimal | int) -> int | float | str:
    """A JSON number; plain text where a number would not be exact."""
    amount = Decimal(amount)
    if abs(amount) >= LIMIT:
        return plain_decimal(amount)
    return json_number(amount)


def of_minor(minor: int, resource: Resource) -> int | float | str:
    return in_units(Decimal(minor).scaleb(-resource.scale))


def moment(at: datetime) -> str:
    return at.replace(tzinfo=None).isoformat() + "Z"


def micro(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000)


# --- today ------------------------------------------------------------------------------------------------------------


class _Window(NamedTuple):
    """Records after one and until another, and the time that they are of: all of it, if they are `complete`."""

    after: int
    until: int
    since: int
    to: int
    complete: bool = True


class Summary:
    """One summary, being put together within one snapshot; `now` is in microseconds."""

    def __init__(self, ask: Ask, resources: Mapping[str, Resource], grid: str, now: int, hours: int) -> None:
        self.ask, self.resources, self.grid, self.now, self.hours = ask, resources, grid, now, hours
        self.step = next(step for step in STEPS_S if hours * 3_600 / step < POINTS)

    def found(self) -> Json:
        """The summary."""
        (head,) = self.ask("head")
        record = decode(head["body"], head["digest"])
        window, before = self._windows(record.seq)
        tallied = self._tallied(window)
        told = self._told(window, tallied)
        entry = self.ask("entry_before", seq=window.after)[0]["id"]
        holds = self._holds()
        return {
            "as_of": timestamp(self.now),
            "grid": self.grid,
            "head": {"seq": record.seq, "digest": record.digest.hex(), "at": timestamp(record.at)},
            "entries": self.ask("last_entry")[0]["id"],
            "epoch": record.epoch + (record.kind in ("genesis", "close")),
            "paused": self._paused(),
            "window": {**told, "hours": self.hours, "complete": window.complete},
            "before": None if before is None else self._told(before, self._tallied(before)),
            "refused": self._refused(window, told["outcomes"][Outcome.REJECTED.value]),
            "held": self._held(holds, record.epoch + (record.kind in ("genesis", "close"))),
            "in_a_row": self._in_a_row(),
            "last_outcome": self._last_outcome(),
            "outbox": self._outbox(),
            **self._balances(entry, holds),
            "constraints": self._constraints(),
            "prompts": self._active(),
            "series": self._series(window, tallied),
        }

    def _age(self, at: datetime | int) -> float:
        """Seconds since then; 0 where the database is ahead of this clock."""
        then = at if isinstance(at, int) else micro(at)
        return max(0.0, round((self.now - then) / 1e6, 3))

    # --- what came of proposals ---------------------------------------------------------------------------------------

    def _before(self, at: int) -> int:
        return int(self.ask("record_before", at=timestamp(at))[0]["seq"])

    def _windows(self, head: int) -> tuple[_Window, _Window | None]:
        """The window and the one before it; None where the window itself is not looked at as a whole."""
        since = self.now - self.hours * HOUR_US
        after = self._before(since)
        if head - after > RECORDS:
            after = head - RECORDS
            begin = micro(self.ask("moment_of", seq=after + 1)[0]["at"])
            return _Window(after, head, begin, self.now, complete=False), None
        earlier = since - self.hours * HOUR_US
        first = self._before(earlier)
        before = _Window(first, after, earlier, since) if after - first <= RECORDS else None
        return _Window(after, head, since, self.now), before

    def _tallied(self, window: _Window) -> list[Json]:
        return self.ask("tallied", after=window.after, until=window.until, step=self.step)

    def _told(self, window: _Window, tallied: list[Json]) -> Json:
        """What a window holds: outcomes of proposals, and how many records of which kind."""
        outcomes, kinds = Counter[str](), Counter[str]()
        for row in tallied:
            kinds[row["kind"]] += row["count"]
            if row["kind"] == "proposal":
                outcomes[row["outcome"]] += row["count"]
        first, last = (self.ask("entry_before", seq=seq)[0]["id"] for seq in (window.after, window.until))
        return {
            "since": timestamp(window.since),
            "until": timestamp(window.to),
            "records": kinds.total(),
            "total": outcomes.total(),
            "outcomes": {outcome.value: outcomes[outcome.value] for outcome in Outcome},
            "overrides": kinds["override"],
            "reversals": kinds["reversal"],
            "entries": last - first,
        }

    def _refused(self, window: _Window, total: int) -> Json:
        """The rules that were broken by what counts as rejected in `outcomes`.

        Both count a proposal by when it was proposed, also one that was held and refused later.
        """
        rows = self.ask("refused_codes", after=window.after, until=window.until, most=REFUSALS)
        by_code = {row["code"]: row["count"] for row in rows}
        return {"total": total, "looked_at": min(total, REFUSALS), "by_code": by_code}

    def _series(self, window: _Window, tallied: list[Json]) -> Json:
        """Outcomes of proposals by the time at which they were decided; a point for every step, empty ones too."""
        step = self.step * 1_000_000
        first, last = window.since // step * step, window.to // step * step
        points = {at: dict.fromkeys((o.value for o in Outcome), 0) for at in range(first, last + 1, step)}
        for row in tallied:
            at = micro(row["at"])
            if row["kind"] == "proposal" and at in points:
                points[at][row["outcome"]] += row["count"]
        return {"step_seconds": self.step, "points": [{"at": timestamp(at), **own} for at, own in points.items()]}

    def _last_outcome(self) -> Json | None:
        return next(({**row, "at": moment(row["at"]), "age_seconds": self._age(row["at"])}
                     for row in self.ask("last_decision")), None)  # fmt: skip

    def _in_a_row(self) -> dict[str, int]:
        return self.ask("in_a_row")[0]

    # --- what needs somebody ------------------------------------------------------------------------------------------

    def _paused(self) -> Json | None:
        for row in self.ask("paused_since"):
            record = decode(row["body"], row["digest"])
            assert isinstance(record.payload, Control), "asked for controls only"
            who = {"operator": record.payload.operator, "reason": record.payload.reason}
            return {"since": timestamp(record.at), "seq": record.seq, **who}
        return None

    def _holds(self) -> list[JournalRecord]:
        return [decode(row["body"], row["digest"]) for row in self.ask("held_now", most=HOLDS)]

    def _held(self, holds: list[JournalRecord], epoch: int) -> Json:
        items = []
        for record in holds[:LISTED]:
            decision = record.payload
            assert isinstance(decision, Decision), "only decisions hold"
            until = decision.held_until
            told = decision_json(decision, self.resources)
            items.append(
                {
                    "proposal_id": decision.proposal_id,
                    "seq": record.seq,
                    "epoch": record.epoch,
                    "proposer": decision.proposer,
                    "at": timestamp(record.at),
                    "age_seconds": self._age(record.at),
                    "held_until": until,
                    "epochs_left": None if until is None else max(0, until - epoch),
                    "transfers": told["transfers"],
                    "reasoning": decision.reasoning,
                }
            )
        return {"count": len(holds), "items": items}

    def _outbox(self) -> Json:
        lag = int(self.ask("outbox_lag", most=LAG_MAX)[0]["count"])
        oldest = next(({"seq": row["seq"], "at": moment(row["at"]), "age_seconds": self._age(row["at"])}
                       for row in self.ask("oldest_waiting")), None)  # fmt: skip
        return {"lag": lag, "capped": lag >= LAG_MAX, "oldest": oldest}

    # --- what there is ------------------------------------------------------------------------------------------------

    def _balances(self, entry: int, holds: list[JournalRecord]) -> Json:
        """Conservation, sums by resource and what changed most, after an entry."""
        reserved = Counter[str]()
        for record in holds:
            assert isinstance(record.payload, Decision), "only decisions hold"
            for (_, name), minor in drawdown(record.payload.effective).items():
                reserved[name] += minor
        moved = {row["resource"]: row["amount"] for row in self.ask("transferred_since", after=entry)}
        rows = self.ask("changed_since", after=entry, most=LISTED)
        change = {row["resource"]: -row["change"] for row in rows if row["boundary"]}
        found = {row["resource"]: row for row in self.ask("sums")}
        sums = {name: found[name]["total"] + found[name]["boundary"] for name in self.resources}
        return {
            "conservation": {
                "ok": not any(sums.values()),
                "sums": {name: in_units(own) for name, own in sums.items()},
            },
            "resources": [
                {
                    **{key: found[name][key] for key in ("resource", "unit", "scale", "actors")},
                    "total": in_units(found[name]["total"]),
                    "boundary": in_units(found[name]["boundary"]),
                    "change": in_units(change.get(name, Decimal())),
                    "reserved": of_minor(reserved[name], resource),
                    "transferred": in_units(moved.get(name, Decimal())),
                }
                for name, resource in self.resources.items()
            ],
            "changes": [
                {
                    "actor": row["actor"],
                    "resource": row["resource"],
                    "before": in_units(row["amount"] - row["change"]),
                    "after": in_units(row["amount"]),
                    "change": in_units(row["change"]),
                }
                for row in [row for row in rows if not row["boundary"]][:LISTED]
            ],
        }

    # --- what is in force ---------------------------------------------------------------------------------------------

    def _constraints(self) -> Json:
        """The constraints in force, and who set them, when and why."""
        (row,) = self.ask("last_constraints")
        record = decode(row["body"], row["digest"])
        payload: Any = record.payload  # of a genesis, nobody in particular
        who = {key: getattr(payload, key, "") for key in ("operator", "reason")}
        found = {"seq": record.seq, "epoch": record.epoch, "at": timestamp(record.at), **who}
        return {**found, "constraints": constraints_json(payload.constraints, self.resources)}

    def _active(self) -> dict[str, Json | None]:
        """Prompt and model in force, by role; where nobody activated one, what is asked by default."""
        default: Json = {"prompt": PROMPT, "prompt_digest": None, "model": MODEL, "seq": None, "since": None}
        found: dict[str, Json | None] = {
            ACTIVE: {**default, "operator": "", "reason": "", "default": True},
            "shadow": None,
        }
        for record, activation in activations(self.ask):
            if not activation.model:
                found[activation.role] = None if activation.role != ACTIVE else found[ACTIVE]
                if activation.role == ACTIVE:
                    found[ACTIVE] = {**default, "operator": "", "reason": "", "default": True}
                continue
            found[activation.role] = {
                "prompt": activation.prompt,
                "prompt_digest": activation.digest,
                "model": activation.model,
                "seq": record.seq,
                "since": timestamp(record.at),
                "operator": activation.operator,
                "reason": activation.reason,
                "default": False,
            }
        return found


def activations(ask: Ask) -> list[tuple[JournalRecord, Activation]]:
    """The records that put a prompt and a model in force, in order."""
    records = [decode(row["body"], row["digest"]) for row in ask("activations")]
    return [(record, record.payload) for record in records if isinstance(record.payload, Activation)]
