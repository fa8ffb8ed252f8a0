"""The bound is a bound, and `optimal` reaches it: on random worlds with storage, minimum and quota."""

from __future__ import annotations

import random

import pytest

from gridgov.errors import BadInput
from sim.bound import baselines, plan
from sim.loading import load, loads
from sim.world import World
from tests.plays import SCENARIOS, outcomes, play, play_text, served

WORLDS = 300

GROWTH = "  - {name: interest, kind: grow, actors: home-1, resource: energy, factor: 1.1}\n\n"


def linear_world(seed: int) -> str:
    """A small scenario that has a linear programme; a third of them with a minimum above 0."""
    draw = random.Random(seed)
    actors, epochs, scale = draw.randint(2, 5), draw.randint(2, 7), draw.choice([0, 1])
    lines = [
        f"name: linear-{seed}",
        f"epochs: {epochs}",
        'start: "2025-01-01T00:00:00Z"',
        "epoch_length: 1h",
        f"resources: {{energy: {{unit: kWh, scale: {scale}}}}}",
        "constraints:",
        f"  min_balance: {draw.choice([0, 0, draw.randint(1, 8)])}",
    ]
    if draw.random() < 0.7:
        lines.append(f"  epoch_quota: {draw.randint(1, 15)}")
    if draw.random() < 0.5:
        lines.append(f"  max_transfer: {draw.randint(1, 10)}")
    lines.append("actors:")
    for i in range(actors):
        storage = draw.choice(["", f", storage: {{energy: {draw.randint(0, 20)}}}"])
        lines.append(f"  - {{id: a-{i}, balances: {{energy: {draw.randint(0, 15)}}}{storage}}}")
    lines.append("flows:")
    for i in range(actors):
        for kind in ("produce", "consume"):
            every, first = draw.randint(1, 3), draw.randint(1, 2)
            lines.append(
                f"  - {{name: {kind}-{i}, kind: {kind}, actors: a-{i}, resource: energy, from: {first}, "
                f"every: {every}, amount: {draw.randint(0, 12)}, noise: {{uniform: {draw.randint(0, 6)}}}}}"
            )
    lines.append("proposers: [{kind: policy, policy: none}]")
    return "\n".join(lines)


@pytest.mark.parametrize("batch", range(6))
def test_no_policy_serves_more_than_the_bound_and_optimal_serves_it(batch: int) -> None:
    for seed in range(batch * WORLDS // 6, (batch + 1) * WORLDS // 6):
        text = linear_world(seed)
        world = World(loads(text, f"linear-{seed}.yaml", lambda file: SCENARIOS / file))
        found = baselines(world)["energy"]
        assert found.bound is not None, found.note
        met = {
            p: served(play_text(text, proposer=f"policy:{p}"), "energy")[1]
            for p in ("none", "greedy", "random", "hasty")
        }
        assert met["none"] == found.none, seed
        assert max(met.values()) <= found.bound, (seed, met)
        best = play_text(text, proposer="policy:optimal")
        assert served(best, "energy")[1] == found.bound, seed
        assert set(outcomes(best)) <= {"executed", "noop"}, "every planned transfer is allowed"


@pytest.mark.parametrize(
    ("name", "sets", "reason"),
    [
        ("drought", [], "hold_above"),
        ("community-week", ["constraints.max_transfers_per_proposal=3"], "max_transfers_per_proposal"),
        ("community-week", ["constraints.auto_pause={refused_in_a_row: 3}"], "auto_pause"),
    ],
)
def test_optimal_is_refused_with_the_reason_where_there_is_no_linear_programme(
    name: str, sets: list[str], reason: str
) -> None:
    text = (SCENARIOS / f"{name}.yaml").read_text()
    world = World(loads(text, name, lambda file: SCENARIOS / file, sets))
    with pytest.raises(BadInput, match=reason):
        plan(world)
    (found,) = baselines(world).values()
    assert found.none is not None and found.bound is None and reason in found.note


def test_alone_is_what_a_run_without_proposals_serves_each() -> None:
    for seed in range(40):
        text = linear_world(seed)
        world = World(loads(text, f"linear-{seed}.yaml", lambda file: SCENARIOS / file))
        found = baselines(world)["energy"]
        consumed: dict[str, int] = {}
        for entry in play_text(text).engine.ledger.entries():
            if entry.kind == "consume":
                consumed[entry.actor_from] = consumed.get(entry.actor_from, 0) + entry.amount
        assert {actor: own for actor, own in found.alone if own} == consumed
        assert sum(own for _, own in found.alone) == found.none


def test_optimal_plans_nothing_where_nobody_consumes_anything() -> None:
    world = World(load(SCENARIOS / "seed.yaml"))
    assert baselines(world) == {} and plan(world) == {}


def test_optimal_is_refused_where_a_resource_grows() -> None:
    text = (SCENARIOS / "community-week.yaml").read_text().replace("prices:", GROWTH + "prices:")
    world = World(loads(text, "grown", lambda file: SCENARIOS / file))
    assert baselines(world)["energy"].none is None
    with pytest.raises(BadInput, match="grows"):
        plan(world)


def test_optimal_is_refused_beside_other_proposers() -> None:
    with pytest.raises(BadInput, match="only active proposer"):
        play("community-week", "proposers=[{kind: policy, policy: optimal}, {kind: policy, policy: greedy}]")


def test_optimal_follows_changes_of_limits() -> None:
    sets = ("changes=[{epoch: 5, until: 40, set: {constraints.epoch_quota.energy: 0}}]",)
    result = play("community-week", *sets, proposer="policy:optimal", epochs=72)
    assert set(outcomes(result)) <= {"executed", "noop"}
    epochs = {entry.epoch for entry in result.engine.ledger.entries() if entry.kind == "transfer"}
    assert not epochs & set(range(5, 41)) and epochs & set(range(41, 73))
