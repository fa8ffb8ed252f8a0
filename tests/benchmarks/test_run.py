"""A whole run beside Mesa on the same model: 100 actors, 3 resources, 10 one-transfer proposals x 1,000 epochs."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import mesa
import pytest

from sim.launch import Launched, launch
from sim.loading import load
from tests.benchmarks.side_by_side import compare

ACTORS, EPOCHS, PROPOSALS, OPENING, LIMIT = 100, 1_000, 10, 1_000_000, 50_000
RESOURCES = ("energy", "water", "credits")

SCENARIO = """
name: benchmark
seed: 1
epochs: 1000
start: "2025-01-01T00:00:00Z"
epoch_length: 1h
resources: {energy: {unit: kWh, scale: 3}, water: {unit: m3, scale: 3}, credits: {unit: credit, scale: 3}}
constraints: {max_transfer: 50, min_balance: 0}
actors: [{id: "a-{n}", count: 100, type: node, balances: {energy: 1000, water: 1000, credits: 1000}}]
proposers: [{kind: policy, policy: random, proposals_per_epoch: 10}]
"""


class Holder(mesa.Agent):
    """An agent with three balances."""

    def __init__(self, model: mesa.Model) -> None:
        super().__init__(model)
        self.energy = self.water = self.credits = OPENING


class Exchange(mesa.Model):
    """The same draws, rules and final balances as the scenario, without a ledger, a digest or an export."""

    def __init__(self) -> None:
        super().__init__()
        self.holders = [Holder(self) for _ in range(ACTORS)]
        self.datacollector = mesa.DataCollector(agent_reporters={name: name for name in RESOURCES})
        self.epoch = 0

    def step(self) -> None:
        """Ten drawn transfers, each applied where it breaks no limit; then every agent reports."""
        self.epoch += 1
        for n in range(1, PROPOSALS + 1):
            key = f"gridgov/draw/1\n1\n{self.epoch}\nrandom\nrandom/{n}"
            bits = int.from_bytes(hashlib.sha512(key.encode()).digest(), "big")
            bits, first = divmod(bits, ACTORS)
            bits, second = divmod(bits, ACTORS - 1)
            bits, which = divmod(bits, len(RESOURCES))
            giver, taker = self.holders[first], self.holders[second + (second >= first)]
            amount, name = 1 + bits % (LIMIT * 6 // 5), RESOURCES[which]
            if amount <= LIMIT and getattr(giver, name) >= amount:
                setattr(giver, name, getattr(giver, name) - amount)
                setattr(taker, name, getattr(taker, name) + amount)
        self.datacollector.collect(self)


def run_mesa() -> Exchange:
    model = Exchange()
    for _ in range(EPOCHS):
        model.step()
    return model


@pytest.mark.benchmark
def test_run_beside_mesa_with_agent_reporters(tmp_path: Path) -> None:
    path = tmp_path / "benchmark.yaml"
    path.write_text(SCENARIO)
    scenario = load(path)
    count = 0

    def ours() -> Launched:
        nonlocal count
        count += 1
        return launch(scenario, out=tmp_path / str(count))

    result = ours()
    model = run_mesa()
    state = result.result.engine.state
    for name in RESOURCES:
        assert [state.balance(f"a-{i + 1}", name) for i in range(ACTORS)] == [getattr(h, name) for h in model.holders]
    compare("run, chained and exported / Mesa with agent reporters", ours, run_mesa)


@pytest.mark.benchmark
def test_a_year_of_17_homes(tmp_path: Path) -> None:
    scenario = load(Path(__file__).parents[2] / "scenarios" / "community-year.yaml")
    start = time.perf_counter()
    summary = launch(scenario, out=tmp_path).summary
    size = Path(summary.export).stat().st_size / 1e6
    print(
        f"\ncommunity-year under greedy, {summary.entries:,} ledger entries, exported ({size:.0f} MB): "
        f"{time.perf_counter() - start:.1f} s"
    )
