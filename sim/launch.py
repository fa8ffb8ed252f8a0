"""Puts a run together: a scenario's proposers, the ledger, the baselines, the export; what is played is in `runner`."""

from __future__ import annotations

import gc
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib.metadata import version
from operator import eq, ge, le
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import duckdb
import numpy as np

from gridgov import __version__, export
from gridgov.cassette import Interaction, other_models, read
from gridgov.engine import Engine
from gridgov.errors import BadInput, Damaged
from gridgov.journal import Decision, JournalRecord, Settlement, canonical
from gridgov.ledger import Ledger, MemoryLedger
from gridgov.model import Outcome
from gridgov.propose import Proposer
from gridgov.replay import Ints, follow
from gridgov.source import open_source
from gridgov.state import State
from gridgov.tables import Commons, Run
from gridgov.verify import verify
from sim import policies
from sim.bound import Baseline, baselines, demanded, plan
from sim.live import Live
from sim.loading import load
from sim.report import Summary
from sim.runner import Result, Runner, Seat, genesis_of
from sim.scenario import Expectation, Scenario, Speaker
from sim.tape import Tape
from sim.world import World

P = TypeVar("P", Decision, Settlement)


class Past(NamedTuple):
    """What a fork takes over of its parent, up to the close of an epoch: see `fork`.

    `records` are the parent's until then; `interactions` are all of the parent's, as an export keeps them; `prices` are
    its prices. Shape (epochs,), 1e-6 currency.
    """

    run_id: str
    epoch: int
    records: Sequence[JournalRecord]
    shadows: Sequence[tuple[int, Decision]]
    interactions: Sequence[Mapping[str, Any]]
    prices: Mapping[str, Ints]

    @property
    def name(self) -> str:
        """The parent's state that the fork begins with, as `--fork` names it."""
        return f"{self.run_id}@{self.epoch}"

    @property
    def before(self) -> list[Mapping[str, Any]]:
        """The interactions until the fork."""
        return [row for row in self.interactions if row["epoch"] <= self.epoch]

    def fill(self, ledger: Ledger) -> None:
        """Takes the records over, as they are, into an empty ledger. Raises Damaged where one follows from nothing."""
        state = State()
        for record in self.records:
            ledger.append(record, follow(state, record))
        ledger.commit()

    def asked(self, used: Sequence[Interaction]) -> dict[str, Any]:
        """How many requests after the fork were made by the parent too, and how many really differ."""
        keys = {row["request_key"] for row in self.interactions if row["epoch"] > self.epoch}
        same = sum(one.request_key in keys for one in used)
        return {"parent": self.run_id, "epoch": self.epoch, "same_requests": same, "new_requests": len(used) - same}


class Launched(NamedTuple):
    """A run that was played and exported: what is said of it, and the run itself, still in memory."""

    summary: Summary
    result: Result


def launch(  # noqa: PLR0913 - keywords, one for each thing that may differ
    scenario: Scenario,
    *,
    out: Path,
    record: Path | None = None,
    progress: Callable[[int], None] | None = None,
    now: datetime | None = None,
    bound: bool = False,
    world: World | None = None,
    known: Mapping[str, Baseline] | None = None,
    ledger: Ledger | None = None,
    live: Live | None = None,
    past: Past | None = None,
) -> Launched:
    """Plays a scenario and exports it into a folder; nothing is published before the run is complete.

    Args:
        out: The run store; `<run_id>.duckdb` is written there, or kept where it is complete already.
        record: Where to write all answers as a cassette; those of a policy are synthetic.
        progress: Is told of every closed epoch.
        bound: Whether the best that was possible is worth any time.
        now: When the run started, for the export only.
        live: How models are asked, where the scenario has a live one; what they say is recorded.
        ledger: Where the run is kept while it is played, empty; by default in memory.
        past: What the run goes on from, where it is a fork; its bound is not looked for.
        world, known: The scenario's world and baselines, where the caller has them already.

    Raises:
        BadInput: The scenario, a file of it, or what is in the way of the export is wrong.
        ProposerFailed: A proposer failed and was told to stop the run at that; what was recorded stays.
    """
    started = time.perf_counter()
    world = World(scenario) if world is None else world
    asked = [speaker.name for speaker in scenario.speakers if speaker.kind == "gemini"]
    if asked and (live is None or record is None):
        raise BadInput(f"proposer {asked[0]}: a live model needs a key and a recording; set GEMINI_API_KEY")
    tape = Tape(scenario, record, live if asked else None)
    with export.Store(out) as store:  # opened before the run: it makes itself ready while the run goes on
        with tape, collector_off():
            ledger, shadows = MemoryLedger() if ledger is None else ledger, () if past is None else past.shadows
            if past is not None:
                past.fill(ledger)
            result = Runner(scenario, world, seats(scenario, world, tape), ledger, shadows).run(progress)
        if known is None:
            known = baselines(world, at_any_cost=bound) if past is None else _unbounded(world)
        run = exported(result, tape, known, now, time.perf_counter() - started)
        if past is not None:
            run = _forked(run, past, scenario, now if tape.live is not None else None)
        path = _published(store, run)
        metrics = store.metrics(path)
    _check_bound(run, metrics, path)
    summary = _summary(result, tape, run, known, path, metrics, time.perf_counter() - started)
    if past is not None:
        summary = summary._replace(fork=past.asked(tape.used()))
    return Launched(summary, result)


def _published(store: export.Store, run: Run) -> Path:
    """The run's file: written, or kept where it is there already and still what it was. Raises Damaged, BadInput."""
    there = store.folder / f"{run.run_id}.duckdb"
    known = there.exists()
    try:
        path = store.write(run)
    except duckdb.Error as error:
        raise BadInput(f"{there}: cannot be written ({export.first_line(error)}); make room, or choose --out") from None
    if known:
        with open_source(str(path), store.folder) as source:
            report = verify(source)
        if not report.passed:
            raise Damaged(f"{path}: is there already, and not what it was ({report.first}); delete it and run again")
    return path


def _check_bound(run: Run, metrics: Mapping[str, Any], path: Path) -> None:
    """Raises BadInput where a file that was kept lacks the bound that was asked for."""
    regret = metrics.get("regret") or {}
    for resource, (none, bound, _) in run.baselines.items():
        if bound is not None and bound != none and regret.get(resource) is None:
            raise BadInput(
                f"{path}: is there already, made without --bound; delete it, or name another folder with --out"
            )


@contextmanager
def collector_off() -> Iterator[None]:
    """Nothing that a run makes refers back to itself, so looking for cycles would only cost time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


# --- proposers --------------------------------------------------------------------------------------------------------


def seats(scenario: Scenario, world: World, tape: Tape | None = None) -> list[Seat]:
    """The scenario's proposers at their places, in order. Raises BadInput where one can't be."""
    tape = Tape(scenario, None) if tape is None else tape
    return [Seat(speaker, _proposer(speaker, scenario, world, tape)) for speaker in scenario.speakers]


def _proposer(speaker: Speaker, scenario: Scenario, world: World, tape: Tape) -> Proposer:
    if speaker.kind == "policy":
        return tape.recorded(_policy(speaker, scenario, world), speaker)
    if speaker.kind == "fixture":
        return tape.recorded(tape.fixture(speaker), speaker)
    return tape.replayed(speaker) if speaker.kind == "cassette" else tape.asked(speaker)


def _policy(speaker: Speaker, scenario: Scenario, world: World) -> Proposer:
    if speaker.policy in policies.PLAIN:
        return policies.Policy(policies.PLAIN[speaker.policy])
    if speaker.policy == "random":
        return policies.Policy(policies.random(scenario.seed))
    if speaker.policy == "optimal":
        active = [other for other in scenario.speakers if other.role != "shadow"]
        if len(active) > 1 or speaker.mandate is not None or speaker.role == "shadow":
            raise BadInput("policy optimal plans for everyone: it must be the only active proposer, with no mandate")
        return policies.Planned(plan(world))
    commons = scenario.commons
    assert commons is not None, "checked with the scenario"
    pool = policies.Commons(commons.actor, commons.resource, len(harvesters(scenario)))
    if speaker.policy == "take":
        assert speaker.amount is not None, "checked with the scenario"
        return policies.Policy(pool.take(speaker.amount))
    return policies.Policy(pool.take_max if speaker.policy == "take_max" else pool.sustainable)


def harvesters(scenario: Scenario) -> tuple[str, ...]:
    """The actors that a proposer speaks for, in order: who takes from the commons."""
    spoken = {speaker.actor for speaker in scenario.speakers if speaker.role != "shadow"}
    return tuple(actor.id for actor in scenario.actors if actor.id in spoken)


# --- the export -------------------------------------------------------------------------------------------------------


def run_id(scenario: Scenario, genesis: str, started: datetime | None = None) -> str:
    """16 hex of sha256 over what determines a run: genesis, proposers, and what their files hold.

    `started` is in it where a live model answers, which no input determines.
    """
    said = {"genesis": genesis, "proposers": identities(scenario)}
    if started is not None:
        said["started"] = started.isoformat()
    return hashlib.sha256(canonical(said).encode()).hexdigest()[:16]


def foreseen(scenario: Scenario, started: datetime | None = None) -> str:
    """The id that a run of a scenario will have, before it is played; `started` as in `run_id`."""
    engine = Engine(MemoryLedger())
    engine.append(genesis_of(scenario), scenario.start_at)
    return run_id(scenario, next(iter(engine.ledger.records())).body, started)


def identities(scenario: Scenario) -> list[dict[str, Any]]:
    """What defines the proposers of a scenario, as `runs.proposers` has it."""
    return [_identity(scenario, speaker) for speaker in scenario.speakers]


def _identity(scenario: Scenario, speaker: Speaker) -> dict[str, Any]:
    """What defines a proposer: its file by content, not by name."""
    found = {key: value for key, value in speaker._asdict().items() if key not in ("file", "path")}
    if speaker.file is not None:
        found["file"] = scenario.content_digest(speaker.file)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


def exported(result: Result, tape: Tape, known: Mapping[str, Baseline], now: datetime | None, seconds: float) -> Run:
    """All that is kept of a finished run; `known` are its baselines, `now` when it was started, for the export only."""
    scenario = result.scenario
    records = list(result.engine.ledger.records())
    commons = None
    if scenario.commons is not None:
        below = scenario.commons.collapse_below or 0
        commons = Commons(scenario.commons.actor, scenario.commons.resource, below, harvesters(scenario))
    return Run(
        run_id=run_id(scenario, records[0].body, now if tape.live is not None else None),
        scenario=scenario.name,
        description=scenario.description,
        overrides=scenario.overrides,
        proposers=identities(scenario),
        version=__version__,
        records=records,
        entries=result.engine.ledger.entries(),
        horizon=scenario.epochs,
        started_at=None if now is None else (now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1),
        seconds=seconds,
        prices=result.world.prices,
        commons=commons,
        baselines={resource: (baseline.none, baseline.bound, baseline.note) for resource, baseline in known.items()},
        alone={resource: baseline.alone for resource, baseline in known.items()},
        interactions=tape.rows(),
        recorded=tape.counts()["recorded"],
        synthetic=tape.counts()["synthetic"],
        shadows=result.shadows,
        files={
            f"scenario:{Path(scenario.file).name}": scenario.source.encode(),
            **scenario.contents,
            **_solved(scenario),
        },
    )


SOLVER = "solver:scipy"
"""Among the files of a run that policy `optimal` planned: the version of scipy, whose solver found the plan."""


def solver() -> str:
    """The version of scipy that is installed."""
    return version("scipy")


def _solved(scenario: Scenario) -> dict[str, bytes]:
    planned = any(speaker.policy == "optimal" for speaker in scenario.speakers)
    return {SOLVER: f"{solver()}\n".encode()} if planned else {}


def _unbounded(world: World) -> dict[str, Baseline]:
    """A fork begins where its parent has come to, and no baseline does."""
    return {resource: Baseline(None, None, "it is a fork; its parent has one") for resource in demanded(world)}


def _forked(run: Run, past: Past, scenario: Scenario, started: datetime | None) -> Run:
    """The run as a fork, with what happened before in it; see `fork` for what identifies it."""
    said: dict[str, Any] = {
        "fork": past.run_id,
        "epoch": past.epoch,
        "head": past.records[-1].digest.hex(),
        "scenario": scenario.resolved(),
        "proposers": list(run.proposers),
    }
    if started is not None:
        said["started"] = started.isoformat()
    before = past.before
    origins = Counter(row["origin"] for row in before)
    return replace(
        run,
        run_id=hashlib.sha256(canonical(said).encode()).hexdigest()[:16],
        overrides=[f"fork={past.name}", *run.overrides],
        interactions=[*before, *run.interactions],
        recorded=run.recorded + origins["recorded"],
        synthetic=run.synthetic + origins["synthetic"],
        prices={name: _spliced(past.prices.get(name), prices, past.epoch) for name, prices in run.prices.items()},
    )


def _spliced(was: Ints | None, now: Ints, epoch: int) -> Ints:
    """The prices of the parent until an epoch, and then those of now."""
    return now if was is None else np.concatenate([was[:epoch], now[epoch:]])


# --- what is said -----------------------------------------------------------------------------------------------------


def outcomes(result: Result) -> tuple[Counter[str], Counter[str]]:
    """How often each outcome, and each violation code, came about; a settled hold counts as what it was settled to."""
    final: dict[str, Decision | Settlement] = {}
    for record in result.engine.ledger.records():
        if isinstance(record.payload, Decision | Settlement):
            final[record.payload.proposal_id] = record.payload
    counted = Counter(said.outcome.value for said in final.values())
    codes = Counter(violation.code.value for said in final.values() for violation in said.violations)
    return counted, codes


def payloads(result: Result, kind: type[P]) -> Iterator[P]:
    """What the records of one kind say, in order."""
    return (r.payload for r in result.engine.ledger.records() if isinstance(r.payload, kind))


def faults(result: Result) -> dict[str, Counter[str]]:
    """Why there was no proposal, by outcome (malformed, unavailable)."""
    found: dict[str, Counter[str]] = {}
    for decision in payloads(result, Decision):
        if decision.fault:
            found.setdefault(decision.outcome.value, Counter())[decision.fault] += 1
    return found


def _example(result: Result) -> str | None:
    """A proposal worth a look: the first that was refused, else the first that was applied."""
    made = list(payloads(result, Decision))
    wanted = (Outcome.REJECTED, Outcome.HELD, Outcome.MALFORMED, Outcome.EXECUTED)
    return next((d.proposal_id for outcome in wanted for d in made if d.outcome is outcome), None)


def _summary(
    result: Result,
    tape: Tape,
    run: Run,
    known: Mapping[str, Baseline],
    path: Path,
    metrics: Mapping[str, Any],
    seconds: float,
) -> Summary:
    scenario, state = result.scenario, result.engine.state
    counted, codes = outcomes(result)
    return Summary(
        run_id=run.run_id,
        scenario=scenario.name,
        description=scenario.description,
        seed=scenario.seed,
        proposers=run.proposers,
        epochs=result.epochs,
        horizon=scenario.epochs,
        entries=state.entries,
        outcomes=counted,
        violations=codes,
        metrics=metrics,
        baselines=known,
        resources={resource.name: resource for resource in scenario.resources},
        interactions=tape.counts(),
        other_models=other_models(tape.used()),
        expectations=[expected(expectation, metrics) for expectation in scenario.expect],
        faults=faults(result),
        settled=Counter(s.decision for s in payloads(result, Settlement)),
        example=_example(result),
        unused=tape.unused(),
        unplayed=tape.unplayed(result.epochs),
        calls=tape.calls(),
        head=result.head_digest,
        export=str(path),
        seconds=seconds,
    )


ALIASES = {"loss_of_load_probability": "loss_of_load_probability_max"}
"""Metrics of each actor, and the figure of them all that an expectation means."""


def expected(expectation: Expectation, metrics: Mapping[str, Any]) -> tuple[str, bool]:
    """An expectation in words with what was found, and whether it held; an undefined metric holds nothing."""
    found = metrics.get(ALIASES.get(expectation.metric, expectation.metric))
    if isinstance(found, Mapping):
        defined = [resource for resource, value in found.items() if value is not None]
        found = found.get(expectation.resource or (defined[0] if len(defined) == 1 else None))
    about = expectation.metric + (f" of {expectation.resource}" if expectation.resource else "")
    value = None if found is None else Decimal(str(found))
    found_all: list[tuple[str, bool]] = []
    tests: tuple[tuple[str, int | Decimal | None, Callable[[Decimal, Decimal], bool]], ...] = (
        ("at least", expectation.at_least, ge),
        ("at most", expectation.at_most, le),
        ("exactly", expectation.equals, eq),
    )
    for words, wanted, holds in tests:
        if wanted is not None:
            found_all.append((f"{words} {wanted}", value is not None and holds(value, Decimal(wanted))))
    shown = "undefined" if value is None else f"{value:.6g}"
    return f"{about} {' and '.join(said for said, _ in found_all)}: {shown}", all(held for _, held in found_all)


def used_of(scenario: Path, cassette: Path) -> list[Interaction]:
    """The interactions of a cassette that a scenario asks for. Raises CassetteMiss where one is missing.

    The proposers that play this file play it. Where none does, those do whose replies it holds and those that ask a
    model, or else all that are active; the others answer as the scenario says.
    """
    loaded, recorded = load(scenario), read(cassette)
    if not any(speaker.path is not None and speaker.path.samefile(cassette) for speaker in loaded.speakers):
        active = [speaker for speaker in loaded.speakers if speaker.role != "shadow"]
        held = {one.round.proposer for one in recorded.interactions}
        playing = [speaker.name for speaker in active if speaker.name in held or speaker.kind == "gemini"]
        playing = playing or [speaker.name for speaker in active]
        loaded = replace(
            loaded,
            speakers=tuple(
                speaker._replace(kind="cassette", path=cassette) if speaker.name in playing else speaker
                for speaker in loaded.speakers
            ),
        )
    world, tape = World(loaded), Tape(loaded)
    with collector_off():
        Runner(loaded, world, seats(loaded, world, tape)).run()
    return tape.used()
