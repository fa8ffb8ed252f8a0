"""History judged again under other terms, record by record; nobody is asked, nothing is sent or kept.

What was proposed and what was requested is held fixed, and what follows from it is worked out by the engine of
production over a ledger in memory. A different proposer is no what-if: see a fork, or a backtest.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from operator import attrgetter
from typing import Any

from gridgov import flows
from gridgov.amounts import plain, round_half_even, to_json
from gridgov.decide import decide, settled
from gridgov.engine import Engine
from gridgov.errors import BadInput
from gridgov.journal import (
    ENTRY_KINDS,
    Close,
    ConstraintsChange,
    Control,
    Decision,
    Flow,
    Genesis,
    JournalRecord,
    Once,
    Override,
    Reading,
    Registration,
    Reversal,
    Settlement,
    constraints_from,
    constraints_payload,
)
from gridgov.ledger import MemoryLedger
from gridgov.model import BOUNDARY, Code, Constraints, Kind, LedgerEntry, Outcome, Proposal, Resource, Seen, Violation
from gridgov.replay import follow
from gridgov.source import Source
from gridgov.state import State, copied
from gridgov.whatif import DIRECT, KNOCK_ON, Changed, Fate, First, Moved, Terms, WhatIf, measures
from gridgov.words import words

OPERATOR = "what-if"
"""Who changes the constraints and freezes actors here."""

AUTO = "auto-pause"
"""The operator of a pause that the engine makes by itself."""

_PREFIX = 4
"""The fewest first characters that stand for a proposal's id."""


def rejudge(source: Source, terms: Terms) -> WhatIf:
    """Judges a history again under other terms, record by record.

    Held fixed: proposals as they were asked (where an allocation granted less, the amounts granted), replies that were
    no proposals, the requested amounts of flows (of growth too: as much as grew then), settlements that people decided,
    overrides, pauses and resumes by people, registrations, activations, and when epochs closed. A change of constraints
    in history stays, with the edit applied on top. What a proposer had seen is taken from the journal's word.
    Worked out anew: every verdict, what flows could apply, what is spilled where the genesis says the storage, when a
    hold expires (one that history does not have is settled by nobody), auto-pause, and the collapse of a commons.
    Left out: a settlement where nothing is held, a reversal of entries that were never made; both are counted.

    Raises BadInput where the terms name what is not there, Damaged where the history is not what it was.
    Complexity: O(records + entries), about three times a replay.
    """
    made = _Rejudging(source, terms)
    for record in source.records():
        made.take(record)
    return made.found()


def rejudge_since(source: Source, opening: State, records: Iterable[JournalRecord], constraints: Constraints) -> WhatIf:
    """Judges the records that follow a state again, under these constraints whatever history changes them to.

    As `rejudge`, but that what came before the opening stays as it was; `opening` moves on with history. Auto-pause
    counts from the opening on. Complexity: O(records + entries).
    """
    made = _Onward(
        source, Terms(edit=lambda *_: constraints, from_epoch=opening.epoch), Engine(MemoryLedger()), opening
    )
    for record in records:
        made.take(record)
    return made.found()


# --- what is counted --------------------------------------------------------------------------------------------------


class _Tally:
    """Figures of one side, by resource in minor units, and final outcomes by proposal."""

    def __init__(self) -> None:
        self.final: dict[str, Outcome] = {}
        self.sums: dict[str, Counter[str]] = {"produce": Counter(), "consume": Counter(), "demand": Counter()}

    def flow(self, flow: Flow) -> None:
        applied, demanded = self.sums.get(flow.kind), self.sums["demand"]
        if applied is None:
            return
        for reading in flow.readings:
            applied[reading.resource] += reading.applied
            if flow.kind == "consume":
                demanded[reading.resource] += reading.requested

    def metrics(self, resources: Mapping[str, Resource]) -> dict[tuple[str, str | None], Any]:
        """Those metrics of `export_views.sql` that the journal alone gives, by the same formulas."""
        counted = Counter(self.final.values())
        judged = sum(counted[o] for o in (Outcome.EXECUTED, Outcome.REJECTED, Outcome.HELD, Outcome.MALFORMED))
        found: dict[tuple[str, str | None], Any] = {
            ("acceptance_rate", None): counted[Outcome.EXECUTED] / judged if judged else None
        }
        for name, resource in resources.items():
            produced, served, demanded = (self.sums[key][name] for key in ("produce", "consume", "demand"))
            found["served", name] = to_json(served, resource.scale)
            found["unmet", name] = to_json(demanded - served, resource.scale)
            found["self_sufficiency", name] = served / demanded if demanded else None
            found["self_consumption", name] = served / produced if produced else None
        return found


@dataclass
class _Case:
    """A proposal that changes, while it may still be settled on either side."""

    seq: int
    epoch: int
    decision: Decision
    cause: str
    why: str
    was: Fate
    would_be: Fate | None
    codes: tuple[str, ...] | None = None

    def changed(self) -> Changed:
        return Changed(
            self.seq,
            self.epoch,
            self.decision.proposal_id,
            self.decision.proposer,
            self.was,
            self.would_be,
            self.cause,
            _between(self.was, self.would_be) if self.codes is None else self.codes,
            self.why,
        )


def _between(was: Fate, would_be: Fate | None) -> tuple[str, ...]:
    """The codes of one side only; else that it is held, or no longer; else those that both have."""
    if would_be is None:
        return ("dropped",)
    only = [c for c in was.codes if c not in would_be.codes] + [c for c in would_be.codes if c not in was.codes]
    held = Outcome.HELD.value
    return tuple(only) or ((held,) if held in (was.outcome, would_be.outcome) else would_be.codes)


def _fate(said: Decision | Settlement) -> Fate:
    """Of a decision, or of a hold and the settlement that ends it."""
    codes = dict.fromkeys(violation.code.value for violation in said.violations)
    if isinstance(said, Decision):
        return Fate(said.outcome.value, None, tuple(codes) or ((said.fault,) if said.fault else ()))
    return Fate(Outcome.HELD.value, said.outcome.value, tuple(codes))


def _rules(violations: tuple[Violation, ...]) -> list[tuple[Code, str]]:
    return [(violation.code, violation.path) for violation in violations]


def _unlike(one: Decision | Settlement, other: Decision | Settlement) -> bool:
    """Whether another outcome, or other broken rules, were found."""
    return one.outcome is not other.outcome or (
        one.violations != other.violations and _rules(one.violations) != _rules(other.violations)
    )


# --- history, record by record ----------------------------------------------------------------------------------------


@dataclass
class _Rejudging:
    """Two states side by side: history's, and what it would have been; each record of history moves both."""

    source: Source
    terms: Terms
    engine: Engine = field(default_factory=lambda: Engine(MemoryLedger()))
    history: State = field(default_factory=State)
    begun: bool = False
    ended: int | None = None

    def __post_init__(self) -> None:
        self.entries: list[LedgerEntry] = []
        self.tallies = _Tally(), _Tally()
        self.cases: dict[str, _Case] = {}
        self.records: Counter[str] = Counter()
        self.first: First | None = None
        self.constraints_seq: dict[int, int] = {}
        self.seqs: dict[int, int] = {}
        self.scaled: set[str] = set()
        self.dropped: dict[str, set[str]] = {want: set() for want in terms_of(self.terms.drop)}
        self.pause: JournalRecord | None = None
        self.storage: dict[tuple[str, str], int] | None = None
        self.commons: dict[str, Any] | None = None
        self.spilled = False
        self.lost: Counter[str] = Counter()
        self.unreached = 0
        self.flow_names: set[str] = set()

    def take(self, record: JournalRecord) -> None:
        """Moves both sides by a record of history."""
        payload = record.payload
        if self.ended is None:
            if type(payload) is Genesis:
                self._genesis(record, payload)
            else:
                self._begin()
                self._new_pause(record)
                before = self.engine.state.seq
                self._again(record)
                if self.engine.state.seq > before:
                    self.seqs[record.seq] = before + 1
        elif type(payload) is Decision:
            self.unreached += 1
        self._tally(payload, self.tallies[0])
        self.entries += follow(self.history, record)

    def _tally(self, payload: object, tally: _Tally) -> None:
        if type(payload) is Decision or type(payload) is Settlement:
            tally.final[payload.proposal_id] = payload.outcome
        elif type(payload) is Flow:
            tally.flow(payload)

    def _again(self, record: JournalRecord) -> None:
        """What this record of history would have been."""
        payload, at = record.payload, record.at
        if type(payload) is Decision:
            self._decision(record, payload)
        elif type(payload) is Flow:
            self._flow(record, payload)
        elif type(payload) is Settlement:
            self._settlement(record, payload)
        elif type(payload) is Close:
            self._close(record, payload)
        elif type(payload) is ConstraintsChange:
            made = self.engine.append(payload._replace(constraints=self._edited(payload.constraints)), at)
            self.constraints_seq[record.seq] = made.seq
        elif type(payload) is Registration:
            self.engine.append(self._registration(payload), at)
        elif type(payload) is Control:
            self._control(record, payload)
        elif type(payload) is Override or type(payload) is Reversal:
            self._by_hand(record, payload)
        else:
            self.engine.append(payload, at)

    def _note(self, record: JournalRecord, was: str, would_be: str, cause: str, why: str, kind: str = "") -> None:
        """Counts a record that changes, and keeps the first."""
        self.records[kind or record.kind] += 1
        if self.first is None:
            self._first(record, was, would_be, cause, why, kind)

    def _first(self, record: JournalRecord, was: str, would_be: str, cause: str, why: str, kind: str = "") -> None:
        proposal = getattr(record.payload, "proposal_id", None)
        self.first = First(record.seq, record.epoch, kind or record.kind, proposal, was, would_be, cause, why)

    # --- the terms ------------------------------------------------------------------------------------------------

    def _edited(self, constraints: Constraints) -> Constraints:
        if self.terms.edit is None or not self.begun:
            return constraints
        return self.terms.edit(constraints, self.engine.state.resources, self.engine.state.actors)

    def _genesis(self, record: JournalRecord, genesis: Genesis) -> None:
        """The first record; from epoch 1, the terms are part of it."""
        edit, said = self.terms.edit, genesis.scenario
        if self.terms.from_epoch <= 1 and edit is not None:
            resources = {resource.name: resource for resource in genesis.resources}
            actors = [actor.id for actor in genesis.actors]
            genesis = genesis._replace(constraints=edit(genesis.constraints, resources, actors))
            if said.get("constraints"):
                steps = []
                for step in said["constraints"]:
                    own = constraints_from({key: value for key, value in step.items() if key != "epoch"})
                    steps.append({"epoch": step["epoch"], **constraints_payload(edit(own, resources, actors))})
                genesis = genesis._replace(scenario={**said, "constraints": steps})
        made = self.engine.append(genesis, record.at)
        self.constraints_seq[record.seq] = self.seqs[record.seq] = made.seq
        overrides = str(self.source.info.get("overrides") or "")
        if '"fork=' not in overrides:  # of a fork, the genesis does not say what was in force after it
            self._declared(genesis)
        if self.terms.from_epoch <= 1:
            self._begin()

    def _declared(self, genesis: Genesis) -> None:
        """Storage and commons, where the genesis has its scenario."""
        self.commons = genesis.scenario.get("commons")
        if "storage" in genesis.scenario:
            place = {actor.id: i for i, actor in enumerate(genesis.actors)}
            rank = {resource.name: i for i, resource in enumerate(genesis.resources)}
            listed = sorted(genesis.scenario["storage"], key=lambda line: (place[line[0]], rank[line[1]]))
            self.storage = {(actor, resource): amount for actor, resource, amount in listed}

    def _begin(self) -> None:
        """Puts the terms in force once their epoch is open."""
        state, terms = self.engine.state, self.terms
        if self.begun or state.epoch < terms.from_epoch:
            return
        self.begun = True
        reason = "; ".join(terms.said)
        if terms.from_epoch > 1:
            edited = self._edited(state.constraints)
            if edited != state.constraints:
                self.engine.constrain(edited, state.at, OPERATOR, reason)
        frozen = {actor: True for actor in terms.freeze if actor in state.actors and actor not in state.frozen}
        if frozen:
            self.engine.register(Registration(frozen=frozen, operator=OPERATOR, reason=reason), state.at)

    def _registration(self, payload: Registration) -> Registration:
        """Who is frozen stays so, and is from the moment of joining."""
        if not self.begun or not self.terms.freeze:
            return payload
        frozen = {actor: on for actor, on in payload.frozen.items() if on or actor not in self.terms.freeze}
        frozen |= {actor.id: True for actor in payload.actors if actor.id in self.terms.freeze}
        return payload._replace(frozen=frozen)

    # --- proposals ------------------------------------------------------------------------------------------------

    def _decision(self, record: JournalRecord, old: Decision) -> None:
        if self._is_dropped(old):
            why = "it is left out"
            self.cases[old.proposal_id] = _Case(record.seq, record.epoch, old, DIRECT, why, _fate(old), None)
            self._note(record, self._told(old), "left out", DIRECT, why)
            return
        state = self.engine.state
        before = state.seq
        if old.fault:
            new = self.engine._append_decision(old, record.at)
        else:
            asked = None if old.granted is None else old.transfers
            new = self.engine.propose(_proposal(old, self._seen(state, old)), record.at, asked=asked)
        self._tally(new, self.tallies[1])
        if state.seq > before + 1:
            self.pause = record
        if _unlike(old, new):
            judged = self._on_history(lambda was: self._judged(was, old))
            self._case(record, old, old, new, judged)

    def _judged(self, was: State, old: Decision) -> Decision:
        asked = None if old.granted is None else old.transfers
        return decide(was, _proposal(old, self._seen(was, old, in_history=True)), asked)

    def _is_dropped(self, decision: Decision) -> bool:
        found = False
        for want, matched in self.dropped.items():
            if decision.proposal_id == want or (len(want) >= _PREFIX and decision.proposal_id.startswith(want)):
                matched.add(decision.proposal_id)
                found = True
        return found

    def _seen(self, state: State, old: Decision, *, in_history: bool = False) -> Seen:
        """What the proposer had before it, on the journal's word: stale stays stale, moved stays moved."""
        seen = state.seen
        first = old.violations[0] if old.violations else None
        if first is not None and first.code is Code.STALE_WORLD_STATE and isinstance(first.actual, int):
            if first.path == "epoch":
                seen = seen._replace(epoch=first.actual)
            else:
                known = first.actual if in_history else self.constraints_seq.get(first.actual, first.actual)
                seen = seen._replace(constraints_seq=known)
        return seen._replace(entries=-1) if old.state_moved else seen

    def _on_history(self, judge: Callable[[State], Any]) -> Any:
        """What the terms of now say on the state as it was: constraints and frozen actors are those of now."""
        state, now = self.history, self.engine.state
        kept = state.constraints, state.frozen
        state.constraints = now.constraints
        state.frozen = state.frozen | (set(self.terms.freeze) if self.begun else set())
        try:
            return judge(state)
        finally:
            state.constraints, state.frozen = kept

    def _case(
        self,
        record: JournalRecord,
        decision: Decision,
        old: Decision | Settlement,
        new: Decision | Settlement,
        judged: Decision | Settlement | None,
    ) -> None:
        """Takes down that something else comes of a proposal; `judged` is what the terms say on the state as it was."""
        cause = DIRECT if judged is not None and _unlike(old, judged) else KNOCK_ON
        direct = judged if cause == DIRECT else None
        why = self._why(old, new, cause, direct is None or not _unlike(direct, new))
        known = self.cases.get(decision.proposal_id)
        if known is None:
            was, would_be = _fate(old), _fate(new)
            codes = None if direct is None else _between(was, _fate(direct))
            self.cases[decision.proposal_id] = _Case(
                record.seq, record.epoch, decision, cause, why, was, would_be, codes
            )
        self.records[record.kind] += 1
        if self.first is None:
            self._first(record, self._told(old), self._told(new), cause, why)

    def _told(self, said: Decision | Settlement) -> str:
        """An outcome in words, with the rules that it broke."""
        broken = "; ".join(words(violation, self.engine.state.resources) for violation in said.violations)
        prefix = "" if isinstance(said, Decision) else f"{said.decision}: "
        return f"{prefix}{said.outcome.value}{f' ({broken})' if broken else ''}"

    def _why(self, old: Decision | Settlement, new: Decision | Settlement, cause: str, alone: bool = True) -> str:
        """Why this comes of it, in words; not `alone`: the terms change it on the state as it was to something else."""
        if not alone:
            head = "the changed terms themselves, and the state differs by then"
        elif cause == DIRECT:
            head = "the changed terms themselves, on the state as it was"
        else:
            head = "the terms alone would not have changed it, but the state differs by then"
        gained = [v for v in new.violations if v.code not in {own.code for own in old.violations}]
        lost = [v for v in old.violations if v.code not in {own.code for own in new.violations}]
        resources = self.engine.state.resources
        if gained:
            return f"{head}: {words(gained[0], resources)}"
        if lost:
            return f"{head}: no longer so: {words(lost[0], resources)}"
        if new.outcome is Outcome.HELD:
            return f"{head}: it waits for a person's approval"
        return f"{head}: it waits for nobody's approval" if old.outcome is Outcome.HELD else head

    # --- holds ----------------------------------------------------------------------------------------------------

    def _settlement(self, record: JournalRecord, old: Settlement) -> None:
        state, pid = self.engine.state, old.proposal_id
        if old.decision == "expire":
            self._spill_once()
        held = state.holds.get(pid)
        case = self.cases.get(pid)
        if case is not None and case.was.final is None and case.was.outcome == Outcome.HELD.value:
            case.was = _fate(old)
        if held is None or (old.decision == "expire" and not _due(held.decision, state.epoch)):
            self.lost["settlement"] += held is None
            if held is None:
                self._note(record, self._told(old), "nothing to settle", KNOCK_ON, "nothing is held under this id")
            return
        decision = self.history.holds[pid].decision
        judged = self._on_history(lambda was: settled(was, pid, old.decision))
        once = Once(old.request, old.input) if old.request else None
        before = state.seq
        new = self.engine.settle(pid, old.decision, record.at, old.operator, old.reason, once)
        self._tally(new, self.tallies[1])
        if state.seq > before + 1:
            self.pause = record
        if case is not None and case.would_be is not None:
            case.would_be = _fate(new)
        if _unlike(old, new):
            self._case(record, decision, old, new, judged)

    def _expire(self, record: JournalRecord) -> None:
        """Ends the holds whose time is over, but for those that history, too, left waiting beyond it."""
        state = self.engine.state
        for pid, hold in list(state.holds.items()):
            same = self.history.holds.get(pid)
            if not _due(hold.decision, state.epoch):
                continue
            if same is not None and same.decision.held_until == hold.decision.held_until:
                continue
            before = state.seq
            new = self.engine.settle(pid, "expire", state.at)
            self._tally(new, self.tallies[1])
            if state.seq > before + 1:
                self.pause = record
            case, would_be = self.cases.get(pid), _fate(new)
            why, cause = "its hold expires with this epoch", KNOCK_ON if self.cases.get(pid) else DIRECT
            if case is not None and case.would_be is not None:
                case.would_be, case.why = would_be, f"{case.why}; nobody decides, and the hold expires"
            elif case is None and same is not None:  # history's hold is open: it waits longer there
                was = Fate(Outcome.HELD.value, None, ())
                self.cases[pid] = _Case(record.seq, record.epoch, hold.decision, cause, why, was, would_be)
            self._note(record, "not there", self._told(new), cause, why, "settlement")

    # --- flows and time -------------------------------------------------------------------------------------------

    def _flow(self, record: JournalRecord, old: Flow) -> None:
        self.flow_names.add(old.name)
        if old.kind == Kind.SPILL.value and self.storage is not None:
            new = self.engine.spill(self.storage, record.at)
            self.spilled = True
        else:
            requests = [flows.Request(r.actor, r.resource, r.requested) for r in old.readings]
            by = self.terms.scale.get(old.name) if self.begun else None
            if by is not None:
                self.scaled.add(old.name)
                requests = [r._replace(amount=round_half_even(r.amount * by)) for r in requests]
                requests = [r for r in requests if r.amount]
            new = self._flown(old, requests)
            if new.readings:
                self.engine.append(new, record.at)
        self._tally(new, self.tallies[1])
        was, would_be = ([reading[:4] for reading in flow.readings] for flow in (old, new))
        if was != would_be:
            scaled = old.name in self.terms.scale and self.begun
            why = f"the flow is scaled by {self.terms.scale[old.name]}" if scaled else "the state differs by then"
            self._note(record, *self._amounts(old, new), DIRECT if scaled else KNOCK_ON, why)

    def _flown(self, old: Flow, requests: list[flows.Request]) -> Flow:
        state = self.engine.state
        if old.kind == "need":
            new = flows.need(state, old.name, requests)
        else:
            kind = ENTRY_KINDS[old.kind]
            apply = flows.give if kind is Kind.PRODUCE or kind is Kind.GROW else flows.take
            new = apply(state, kind, old.name, requests)
        return new._replace(read_for=old.read_for, request=old.request, input=old.input)

    def _amounts(self, old: Flow, new: Flow) -> tuple[str, str]:
        """The first reading that differs, on both sides, in units."""
        sides = [{(r.actor, r.resource): r for r in flow.readings} for flow in (old, new)]
        keys = list({**sides[0], **sides[1]})

        def same(key: tuple[str, str]) -> bool:
            return all(
                getattr(sides[0].get(key), name, None) == getattr(sides[1].get(key), name, None)
                for name in ("requested", "applied")
            )

        key = next((key for key in keys if not same(key)), keys[0])
        one, other = (self._reading(old, key, side.get(key)) for side in sides)
        return one, other

    def _reading(self, flow: Flow, key: tuple[str, str], reading: Reading | None) -> str:
        actor, name = key
        resource = self.engine.state.resources[name]
        requested, applied = (reading.requested, reading.applied) if reading is not None else (0, 0)
        amounts = [f"{plain(amount, resource.scale)} {resource.unit}" for amount in (applied, requested)]
        if flow.kind == "need":
            return f"{flow.name}: {actor} needs {amounts[1]}"
        return f"{flow.name}: {amounts[0]} of {amounts[1]} for {actor}"

    def _spill_once(self) -> None:
        """Spills where history did not, at the end of the epoch."""
        if self.storage and not self.spilled:
            self.spilled = True
            new = self.engine.spill(self.storage, self.engine.state.at)
            if new.readings:
                self.records["flow"] += 1
                self._tally(new, self.tallies[1])

    def _close(self, record: JournalRecord, old: Close) -> None:
        state = self.engine.state
        self._spill_once()
        self.spilled = False
        if state.holds:
            self._expire(record)
            self._new_pause(record)
        collapsed = old.collapsed
        if self.commons is not None and self.commons["collapse_below"] is not None:
            left = state.balance(self.commons["actor"], self.commons["resource"])
            collapsed = left < self.commons["collapse_below"]
        self.engine.close(record.at, collapsed=collapsed)
        if collapsed != old.collapsed:
            one, other = ("the commons collapses" if on else "it goes on" for on in (old.collapsed, collapsed))
            self._note(record, one, other, KNOCK_ON, "what is left of the commons differs by then")
            self.ended = state.epoch - 1 if collapsed else None

    # --- what people did ------------------------------------------------------------------------------------------

    def _control(self, record: JournalRecord, old: Control) -> None:
        """Pauses and resumes of people stay; the engine makes its own."""
        if not (old.paused and old.operator == AUTO):
            self.engine.append(old, record.at)

    def _new_pause(self, record: JournalRecord) -> None:
        """Compares a pause that the engine just made, or did not make, with the next record of history."""
        payload = record.payload
        recorded = type(payload) is Control and payload.paused and payload.operator == AUTO
        made, self.pause = self.pause, None
        if made is not None and not recorded:
            self._note(made, "not paused", "paused by itself", KNOCK_ON, "a limit of auto_pause is reached", "control")
        elif made is None and recorded:
            why = "the grid is paused already" if self.engine.state.paused else "no limit of auto_pause is reached"
            self._note(record, "paused by itself", "not paused", KNOCK_ON, why)

    def _by_hand(self, record: JournalRecord, old: Override | Reversal) -> None:
        once = Once(old.request, old.input) if old.request else None
        who = record.at, old.operator, old.reason
        try:
            if isinstance(old, Override):
                new = self.engine.override(old.transfers, *who, once).payload
            else:
                entries = [twin for id_ in old.reverses if (twin := self._twin(id_)) is not None]
                new = self.engine.reverse(entries, *who, old.proposal_id, once).payload
        except BadInput as error:
            self.lost[record.kind] += 1
            self._note(record, old.outcome.value, "left out", KNOCK_ON, f"it could not be done: {error}")
            return
        assert isinstance(new, Override | Reversal)
        if (new.outcome, new.transfers) != (old.outcome, old.transfers):
            self._note(record, old.outcome.value, new.outcome.value, KNOCK_ON, "the state differs by then")

    def _twin(self, id_: int) -> LedgerEntry | None:
        """What stands here for an entry of history: of the same record, from and to the same, in the same order."""
        entry = self.entries[id_ - self.entries[0].id]
        seq = self.seqs.get(entry.seq)
        if seq is None:
            return None
        own = _made_by(self.entries, entry.seq, entry)
        others = _made_by(self.engine.ledger.entries(), seq, entry)
        place = own.index(entry)
        return others[place] if place < len(others) else None

    # --- the end --------------------------------------------------------------------------------------------------

    def found(self) -> WhatIf:
        """Everything that was found. Raises BadInput where the terms name what history does not have."""
        self._check()
        if self.pause is not None:
            self._note(self.pause, "not paused", "paused by itself", KNOCK_ON, "a limit of auto_pause is reached",
                       "control")  # fmt: skip
        state = self.engine.state
        measured = [tally.metrics(state.resources) for tally in self.tallies]
        return WhatIf(
            source=str(self.source.path),
            run_id=self.source.run_id,
            terms=self.terms,
            decisions=len(self.tallies[0].final),
            unreached=self.unreached,
            changed=sorted(
                (c.changed() for c in self.cases.values() if c.was != c.would_be), key=lambda each: each.seq
            ),
            records=dict(self.records),
            first=self.first,
            balances=_balances(self.history, state),
            metrics=measures(*measured),
            ended=self.ended,
            notes=self._notes(),
            head_was=self.history.digest.hex(),
            head=state.digest.hex(),
            engine=self.engine,
        )

    def _check(self) -> None:
        terms, state = self.terms, self.history
        if not self.begun:
            raise BadInput(f"--from-epoch {terms.from_epoch}: {self.source.path} has epochs 1 to {state.epoch - 1}")
        for actor in terms.freeze:
            if actor not in state.actors or actor == BOUNDARY:
                raise BadInput(f"--freeze {actor}: there is no such actor; there are {_few(state.actors)}")
        for flow in terms.scale:
            if flow not in self.flow_names:
                raise BadInput(f"--scale {flow}: there is no such flow; there are {_few(self.flow_names) or 'none'}")
        for want, matched in self.dropped.items():
            if len(matched) != 1:
                how = (
                    "no proposal has this id" if not matched else f"{len(matched)} proposals begin so; give more of it"
                )
                raise BadInput(f"--drop {want}: {how}")

    def _notes(self) -> list[str]:
        state, notes = self.engine.state, []
        granted = sum(
            type(r.payload) is Decision and r.payload.granted is not None for r in self.engine.ledger.records()
        )
        if granted:
            notes.append(f"{granted:,} proposals had been granted shares; they are judged by the amounts granted then")
        waiting = sum(c.would_be is not None and c.would_be.outcome == "held" and c.was.outcome != "held"
                      for c in self.cases.values())  # fmt: skip
        if waiting:
            notes.append(f"{waiting:,} proposals are held that history applied or refused: nobody decides, they expire")
        for kind, count in self.lost.items():
            notes.append(f"{count:,} {kind}s of history have nothing here to act on, and are left out")
        if self.ended is not None:
            notes.append(f"the commons collapses in epoch {self.ended}: what history has after it is left out")
        if state.paused and not self.history.paused:
            notes.append("it ends paused, by itself, and nobody resumes it: what came later is refused")
        if any(e.kind is Kind.GROW for e in self.entries) and self.records:
            notes.append("growth is as much as history had, whatever the balance that grows")
        return notes


class _Later(MemoryLedger):
    """A ledger in memory that goes on from a record: what was before it is elsewhere."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._after = after

    def append(self, record: JournalRecord, entries: Sequence[LedgerEntry]) -> None:
        """Takes the record that follows the last one, with its entries."""
        super().append(record._replace(seq=record.seq - self._after), entries)


@dataclass
class _Onward(_Rejudging):
    """History from a state on, under the terms from the first record on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.begun = True
        self.before = self.history.entries
        self.engine.ledger, self.engine.state = _Later(self.history.seq), copied(self.history)
        self.engine.state.constraints = self._edited(self.history.constraints)

    def _by_hand(self, record: JournalRecord, old: Override | Reversal) -> None:
        if isinstance(old, Reversal):  # `transfers` move each entry back, in the order of `reverses`
            self.taken_back = dict(zip(old.reverses, old.transfers, strict=True))
        super()._by_hand(record, old)

    def _twin(self, id_: int) -> LedgerEntry | None:
        """What was made before the opening is the same on both sides."""
        if id_ > self.before:
            return super()._twin(id_)
        giver, taker, resource, amount = self.taken_back[id_]
        assert type(amount) is int, "an entry is exact"
        return LedgerEntry(id_, None, taker, giver, resource, amount, self.history.at, 0, 0, Kind.TRANSFER)


def _made_by(entries: Sequence[LedgerEntry], seq: int, like: LedgerEntry) -> list[LedgerEntry]:
    """The entries of one record that lead from and to the same, of the same resource."""
    by_seq, way = attrgetter("seq"), attrgetter("actor_from", "actor_to", "resource")
    some = entries[bisect_left(entries, seq, key=by_seq) : bisect_right(entries, seq, key=by_seq)]
    return [entry for entry in some if way(entry) == way(like)]


def terms_of(drop: Collection[str]) -> tuple[str, ...]:
    """Each id once, in lower case, as ids are written."""
    return tuple(dict.fromkeys(one.lower() for one in drop))


def _few(names: Collection[str]) -> str:
    shown = [name for name in names if name != BOUNDARY]
    return ", ".join(sorted(shown)[:8]) + (", ..." if len(shown) > 8 else "")


def _due(decision: Decision, epoch: int) -> bool:
    return decision.held_until is not None and epoch >= decision.held_until


def _proposal(old: Decision, seen: Seen) -> Proposal:
    return Proposal(old.proposal_id, old.proposer, old.n, old.effective, old.reasoning, seen)


def _balances(was: State, would_be: State) -> list[Moved]:
    """Balances that differ, the largest difference first, the boundary's last."""
    found = []
    for name, resource in was.resources.items():
        one, other = was.balances[name], would_be.balances[name]
        for actor in {**one, **other}:
            if one.get(actor) != other.get(actor):
                by = abs((one.get(actor) or 0) - (other.get(actor) or 0))
                shown = (to_json(side[actor], resource.scale) if actor in side else None for side in (one, other))
                rank = (actor == BOUNDARY, -Decimal(by).scaleb(-resource.scale))
                found.append((rank, Moved(actor, name, *shown)))
    return [moved for _, moved in sorted(found, key=lambda each: each[0])]
