"""What the dashboard asks of a grid, each question answered by one read as of one moment; nothing is changed here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gridgov import beside, explain, gemini, standing, stored
from gridgov.auth import Caller
from gridgov.errors import Unreachable
from gridgov.gemini import Prices
from gridgov.grid import exported
from gridgov.journal import Decision, JournalRecord, Reversal, Settlement, decode
from gridgov.model import BOUNDARY, Outcome, Resource, uuid5
from gridgov.outcome import Outcomes, Pair, touched
from gridgov.pages import NotThere
from gridgov.reader import Ask
from gridgov.service import Service
from gridgov.state import State
from gridgov.statement import Period, month, of_grid, period, span
from gridgov.summary import HOUR_US, LISTED, Summary, in_units, micro, moment, of_minor
from gridgov.versions import versions
from gridgov.whatif import Changed
from gridgov.wire import Json, constraints_from_json, timestamp

MOVES = 2_000
"""Most points of a balance over time."""

PREVIEW_DAYS = 7
PREVIEW_RECORDS = 5_000
"""So far back at most, and so many records, a change of constraints is tried on."""


class Overview:
    """The questions that the pages of the dashboard ask, over the service of a grid."""

    def __init__(self, service: Service, prices: Prices | None = None) -> None:
        """`prices` are what models cost; None: the project's own."""
        self.service, self.reader, self._prices = service, service.reader, prices
        self.grid = service.reader.pool.grid

    def me(self, caller: Caller) -> Json:
        """Whose key this is, and what it may do."""
        mandate = None if caller.mandate is None else sorted(caller.mandate)
        scopes = [scope for scope in ("read", "propose", "operate") if scope in caller.scopes]
        return {"name": caller.name, "scopes": scopes, "mandate": mandate, "grid": self.grid}

    def actors(self) -> Json:
        """Everyone but the boundary, with what each has and what is reserved by holds; and the resources there are."""

        def question(state: State) -> Json:
            resources = [resource._asdict() for resource in state.resources.values()]
            return {"items": [_actor(state, id_) for id_ in state.actors if id_ != BOUNDARY], "resources": resources}

        _ = self.service.resources  # there is a genesis
        return {**self.reader.look(question), "next": None}

    # --- an actor -----------------------------------------------------------------------------------------------------

    def _known(self, actor: str) -> None:
        _ = self.service.resources  # there is a genesis
        if not self.reader.look(lambda state: actor in state.actors):
            raise NotThere(f"there is no actor {actor}")

    def _period(self, during: str | None, since: str | None, until: str | None) -> Period:
        """The time that is asked for; the month of now where nothing says which."""
        found = period(during, since, until)
        return found if found is not None else month(timestamp(self.service.now())[:7])

    def statement(
        self, actor: str, during: str | None = None, since: str | None = None, until: str | None = None
    ) -> Json:
        """What an actor had, got, gave and has left. Raises NotThere, or BadInput where the time is none."""
        self._known(actor)
        return of_grid(self.reader, actor, self._period(during, since, until)).document()

    def balances(
        self, actor: str, resource: str, during: str | None = None, since: str | None = None, until: str | None = None
    ) -> Json:
        """A balance over time, at most `MOVES` points. Raises NotThere, or BadInput where the time is none."""
        self._known(actor)
        own = self.service.resources.get(resource)
        if own is None:
            raise NotThere(f"there is no resource {resource}")
        when = self._period(during, since, until)
        return self.reader.at_one_moment(lambda ask: self._balances(ask, actor, own, when))

    def _balances(self, ask: Ask, actor: str, resource: Resource, when: Period) -> Json:
        begin = ask("moment_of", seq=1)[0]["at"]
        first, last = max(when.since, micro(begin)), min(when.until, self.service.now())
        seconds = max(1, (last - first) // 1_000_000)
        step = -(-seconds // (MOVES - 1))  # rounded up; a step that is cut in two by the beginning makes one more
        _, _, after, until = span(ask, when)
        asked = {"actor": uuid5(actor), "resource": resource.name, "after": after, "until": until, "step": step}
        moves = ask("balance_steps", **asked)
        later = ask("moved_of", actor=uuid5(actor), after=after, until=until)
        now = next(row["amount"] for row in ask("balances_of", actor=uuid5(actor)) if row["resource"] == resource.name)
        held = now - sum(row["amount"] if row["came"] else -row["amount"]
                         for row in later if row["resource"] == resource.name)  # fmt: skip
        points, opening = [], held
        for move in moves:
            held += move["change"]
            points.append({"at": moment(move["at"]), "balance": in_units(held)})
        about = {"resource": resource.name, "unit": resource.unit, "scale": resource.scale, "step_seconds": step}
        times = {"since": timestamp(first), "until": timestamp(max(first, last))}
        return {"actor": actor, **about, **times, "opening": in_units(opening), "points": points}

    # --- today --------------------------------------------------------------------------------------------------------

    def summary(self, hours: int = 24) -> Json:
        """All that the page Today needs, as of one moment; see `views.SummaryAnswer`. `hours` is 1 to `HOURS_MAX`."""
        resources = self.service.resources
        now = self.service.now()
        return self.reader.at_one_moment(lambda ask: Summary(ask, resources, self.grid, now, hours).found())

    # --- prompts ------------------------------------------------------------------------------------------------------

    def prompts(self) -> Json:
        """What came of each version of what models were asked; see `views.PromptsAnswer`."""
        _ = self.service.resources  # there is a genesis
        own = self._prices or gemini.prices()
        return self.reader.at_one_moment(lambda ask: versions(ask, own))

    # --- constraints, tried on ----------------------------------------------------------------------------------------

    def tried(self, constraints: Any) -> Json:
        """What a dry run of a change of constraints adds: `preview`, or null and what `preview_failed`."""
        try:
            return {"preview": self.preview(constraints)}
        except Unreachable as error:  # the dry run itself has its answer
            return {"preview": None, "preview_failed": str(error)}

    def preview(self, constraints: Any) -> Json | None:
        """The last days judged again under other constraints; see `views.PREVIEW`. None where nothing was proposed.

        What history had before that stays as it was; after it balances go their own way, as in `gridgov whatif`.
        """
        from gridgov.rejudge import rejudge_since
        from gridgov.source import Source

        now = self.service.now()
        since = now - PREVIEW_DAYS * 24 * HOUR_US
        opening, records, complete = self.reader.pool.ask(lambda c: standing.history(c, since, PREVIEW_RECORDS))
        begun = max(since, opening.at) if complete or not records else records[0].at
        proposals = sum(type(record.payload) is Decision for record in records)
        if not proposals:
            return None
        new = constraints_from_json(constraints, opening.resources, opening.actors)
        found = rejudge_since(Source(Path(f"postgres:{self.grid}"), None, {}), opening, records, new)
        lost = [c for c in found.changed if c.was.accepted and c.would_be is not None and not c.would_be.accepted]
        held = [c for c in lost if _would_wait(c)]
        refused = [c for c in lost if not _would_wait(c)]
        gained = [c for c in found.changed if not c.was.accepted and c.would_be is not None and c.would_be.accepted]
        changed = [_changed(c._asdict()) for c in found.changed[:LISTED]]
        return {
            "days": PREVIEW_DAYS,
            "since": timestamp(begun),
            "until": timestamp(now),
            "complete": complete,
            "records": len(records),
            "proposals": proposals,
            "would_refuse": len(refused),
            "would_hold": len(held),
            "would_accept": len(gained),
            "direct": found.count("direct"),
            "knock_on": found.count("knock_on"),
            "by_code": dict(Counter(code for c in refused for code in _codes(c)).most_common()),
            "first": None if not changed else {k: v for k, v in changed[0].items() if k not in ("proposer", "codes")},
            "changed": changed,
            "notes": found.notes,
        }

    # --- the story of a proposal --------------------------------------------------------------------------------------

    def story(self, proposal_id: str) -> Json:
        """A proposal's whole story; see `views.StoryAnswer`. Raises NotThere.

        Complexity: as `standing.state_after`: what is recent costs little.
        """
        record = self.reader.answered(proposal_id)
        if record is None or not isinstance(record.payload, Decision):
            return self._story_aside(proposal_id)
        ask = self.reader.pool.ask
        rows = self.reader.rows("interactions_of", proposal_id=proposal_id)
        exchange = None if not rows else explain.exchange_of(_called(rows[0]))
        state, decision = ask(lambda c: standing.stood(c, record.seq - 1)), record.payload
        had = _touched(state, decision, None)
        told = explain.decided(state, record, decision, exchange)
        last = record
        settlement = ask(lambda c: stored.settlement_of(c, proposal_id))
        if settlement is not None and isinstance(settlement.payload, Settlement):
            state, last = ask(lambda c: standing.stood(c, settlement.seq - 1)), settlement
            had = _touched(state, settlement.payload, decision)
            told["settled"] = explain.settled(state, settlement, settlement.payload)
            told["outcome"] = told["settled"]["judged"]["outcome"]
        told["seen"] |= _asked_with(rows)
        balances = {pair: (before, state.balance(*pair)) for pair, before in had.items()}
        outcome = self.service.outcome(last, record, balances)
        told |= {"digest": record.digest.hex(), "url": outcome["url"], "reversed": self.reversed(outcome["entries"])}
        return told | {"linear": self._issue(outcome["linear"], last)}

    def _story_aside(self, proposal_id: str) -> Json:
        """The story of what a shadow proposed: it was judged on what it was shown, and moved nothing."""
        found = self.service.proposal(proposal_id)
        shadow = self.reader.pool.ask(lambda c: beside.shadow(c, proposal_id))
        if shadow is None:
            raise NotThere(f"there is no proposal {proposal_id}")
        rows = self.reader.rows("interactions_of", proposal_id=proposal_id)
        exchange = None if not rows else explain.exchange_of(_called(rows[0]))
        state = self.reader.pool.ask(lambda c: standing.stood(c, shadow.seq))
        record = JournalRecord(0, shadow.epoch, "proposal", shadow.at, shadow.decision, "", b"")
        told = explain.told(state, record, shadow.decision, exchange)
        told["seen"] |= _asked_with(rows)
        told["seen"]["world_state_digest"] = shadow.seen or told["seen"]["world_state_digest"]
        told |= {"seq": None, "shadow": True, "digest": None, "url": None, "settled": None, "reversed": []}
        return {**told, "moved": {"entries": [], "balances": found["balances"]}, "linear": None}

    def reversed(self, entries: Sequence[int]) -> list[Json]:
        """The records that took some of these entries back, in order."""
        seqs = self.reader.look(lambda state: sorted({state.reversed[e] for e in entries if e in state.reversed}))
        if not seqs:
            return []
        rows = self.reader.rows("reversals_of", seqs=seqs)
        found = []
        for record in (decode(row["body"], row["digest"]) for row in rows):
            payload = record.payload
            assert isinstance(payload, Reversal), "asked for reversals only"
            found.append(
                {
                    "seq": record.seq,
                    "at": timestamp(record.at),
                    "operator": payload.operator,
                    "reason": payload.reason,
                    "outcome": payload.outcome.value,
                    "reverses": list(payload.reverses),
                    "entries": list(payload.entries),
                }
            )
        return found

    def _issue(self, linear: Json | None, last: JournalRecord) -> Json | None:
        """The issue of an outcome, and as what it was handed on."""
        if linear is None:
            return None
        rows = self.reader.rows("acked", seq=last.seq)
        acked = {"reference": rows[0]["reference"], "at": moment(rows[0]["acked_at"])} if rows else None
        return {**linear, "acknowledged": acked}


def _touched(state: State, payload: Outcomes, held: Decision | None) -> dict[Pair, int]:
    """What those have that an outcome names, in minor units."""
    named = touched(payload, held)
    return {pair: state.balance(*pair) for pair in named if pair[0] in state.actors and pair[1] in state.resources}


def _actor(state: State, id_: str) -> Json:
    """An actor as it is listed."""
    actor, resources = state.actors[id_], state.resources
    held = {name: own[id_] for name, own in state.balances.items() if id_ in own}
    kept = {name: own[id_] for name, own in state.reserved.items() if own.get(id_)}
    return {
        "id": id_,
        "uuid": uuid5(id_),
        "type": actor.type,
        "frozen": id_ in state.frozen,
        "balances": {name: of_minor(minor, resources[name]) for name, minor in held.items()},
        "reserved": {name: of_minor(minor, resources[name]) for name, minor in kept.items()},
    }


def _would_wait(changed: Changed) -> bool:
    """Whether a proposal would wait for a person; also one that expired, if history never held it: nobody was asked."""
    would_be, held = changed.would_be, Outcome.HELD.value
    return would_be is not None and would_be.outcome == held and (would_be.final is None or changed.was.outcome != held)


def _codes(changed: Changed) -> tuple[str, ...]:
    """The rules that a proposal would break."""
    return () if changed.would_be is None else changed.would_be.codes


def _changed(item: Json) -> Json:
    """A proposal that a preview finds changed, as it is listed."""
    found = {key: item[key] for key in ("seq", "epoch", "proposal_id", "proposer", "cause", "why")}
    was, would_be = item["was"], item["would_be"]
    found["was"] = was.told
    found["would_be"] = "left out" if would_be is None else would_be.told
    return {**found, "codes": list(item["codes"])}


def _called(row: Json) -> Json:
    """An interaction as an export has it."""
    found = exported(row)
    return {**found, "called_at": found.pop("at")}


def _asked_with(rows: Sequence[Json]) -> Json:
    """The prompt and the world_state_digest that an interaction says, null where it says none."""
    about = json.loads(rows[0]["about"]) if rows else {}
    name, digest = about.get("prompt"), about.get("components", {}).get("prompt")
    return {"prompt": {"name": name, "digest": digest} if name else None, "world_state_digest": about.get("seen")}
