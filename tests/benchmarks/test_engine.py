"""The engine alone, and what an epoch costs as the ledger grows."""

from __future__ import annotations

import hashlib
from functools import partial
from statistics import median

import pytest

from gridgov.engine import Engine
from gridgov.journal import Genesis
from gridgov.ledger import MemoryLedger
from gridgov.model import BOUNDARY, Actor, Constraints, Limit, Proposal, Resource, Round, Transfer
from tests.benchmarks.side_by_side import compare, seconds

ACTORS = tuple(f"a-{n}" for n in range(1, 101))
RESOURCES = ("energy", "water", "credits")


def engine() -> Engine:
    actors = (Actor(BOUNDARY, "boundary"), *(Actor(name, "node") for name in ACTORS))
    limit = Limit(dict.fromkeys(RESOURCES, 50_000), {})
    constraints = Constraints(max_transfer=limit, min_balance=Limit(dict.fromkeys(RESOURCES, 0), {}))
    opening = tuple((name, resource, 1_000_000) for name in ACTORS for resource in RESOURCES)
    resources = tuple(Resource(name, "unit", 3) for name in RESOURCES)
    made = Engine(MemoryLedger())
    made.append(Genesis(1, 0, 3_600_000_000, actors, resources, constraints, opening, {}), 0)
    return made


def proposals(count: int, epoch: int = 1) -> list[Proposal]:
    found = []
    for n in range(count):
        bits = int.from_bytes(hashlib.sha256(f"{epoch}/{n}".encode()).digest(), "big")
        bits, first = divmod(bits, 100)
        bits, second = divmod(bits, 99)
        bits, which = divmod(bits, 3)
        transfer = Transfer(ACTORS[first], ACTORS[second + (second >= first)], RESOURCES[which], 1 + bits % 60_000)
        found.append(Proposal(Round(epoch, "p", n).proposal_id, "p", n, (transfer,), "drawn by chance"))
    return found


def hand_written(asked: list[Proposal]) -> None:
    """The least that any engine must do: judge, move, remember, chain."""
    balances = {(name, resource): 1_000_000 for name in ACTORS for resource in RESOURCES}
    ledger: list[tuple[str, bytes]] = []
    digest = bytes(32)
    for proposal in asked:
        giver, taker, resource, amount = proposal.transfers[0]
        assert isinstance(amount, int)
        if amount <= 50_000 and balances[giver, resource] >= amount:
            balances[giver, resource] -= amount
            balances[taker, resource] += amount
        line = f"{len(ledger)} {proposal.id} {giver} {taker} {resource} {amount}"
        digest = hashlib.sha256(digest + line.encode()).digest()
        ledger.append((line, digest))


@pytest.mark.benchmark
def test_engine_alone() -> None:
    asked = proposals(60_000)

    def ours() -> None:
        made = engine()
        for proposal in asked:
            made.propose(proposal, 1)

    best = min(seconds(ours) for _ in range(5))
    print(f"\n{len(asked) / best:,.0f} one-transfer proposals a second, chained, best of 5")
    compare("60,000 proposals / a hand-written loop with a chained list", ours, lambda: hand_written(asked), times=5)


def propose(made: Engine, batch: list[Proposal]) -> None:
    for proposal in batch:
        made.propose(proposal, 1)


@pytest.mark.benchmark
def test_cost_of_an_epoch_is_flat_as_the_ledger_grows() -> None:
    made = engine()
    batches = [proposals(1_000, epoch) for epoch in range(1, 103)]
    times = []
    for batch in batches:
        times.append(seconds(partial(propose, made, batch)))
        made.close(1)
    early, late = median(times[1:12]), median(times[-11:])
    print(f"\nepoch at 1 to 11 thousand proposals {1000 * early:.1f} ms, at 92 to 102 thousand {1000 * late:.1f} ms, "
          f"ratio {late / early:.2f}")  # fmt: skip
