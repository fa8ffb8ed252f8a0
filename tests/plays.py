"""Plays scenarios for tests, in memory, without an export; no test lives here."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from gridgov.journal import Decision, Flow, Settlement
from sim.launch import seats
from sim.loading import load, loads
from sim.runner import Result, Runner
from sim.world import World

SCENARIOS = Path(__file__).parent.parent / "scenarios"


def play(name: str, *sets: str, proposer: str | None = None, epochs: int | None = None) -> Result:
    """Plays a scenario of the repository."""
    scenario = load(SCENARIOS / f"{name}.yaml", sets, epochs=epochs, proposer=proposer)
    world = World(scenario)
    return Runner(scenario, world, seats(scenario, world)).run()


def play_text(text: str, *sets: str, proposer: str | None = None, folder: Path = SCENARIOS) -> Result:
    """Plays a scenario that a test wrote."""
    scenario = loads(text, "test.yaml", lambda file: folder / file, sets, proposer=proposer)
    world = World(scenario)
    return Runner(scenario, world, seats(scenario, world)).run()


def decisions(result: Result) -> list[Decision]:
    """Every decision, in order."""
    return [r.payload for r in result.engine.ledger.records() if isinstance(r.payload, Decision)]


def settlements(result: Result) -> list[Settlement]:
    """Every settlement, in order."""
    return [r.payload for r in result.engine.ledger.records() if isinstance(r.payload, Settlement)]


def flows(result: Result, kind: str) -> list[tuple[int, Flow]]:
    """Every flow of a kind with its epoch, in order."""
    records = result.engine.ledger.records()
    return [(r.epoch, r.payload) for r in records if isinstance(r.payload, Flow) and r.payload.kind == kind]


def served(result: Result, resource: str) -> tuple[int, int]:
    """What was demanded and what was served of a resource, in minor units."""
    readings = [r for _, flow in flows(result, "consume") for r in flow.readings if r.resource == resource]
    return sum(r.requested for r in readings), sum(r.applied for r in readings)


def outcomes(result: Result) -> Counter[str]:
    """How often each outcome was decided at first."""
    return Counter(decision.outcome.value for decision in decisions(result))
