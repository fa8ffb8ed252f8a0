"""Makes a run of millions of ledger entries, through the real engine and exporter: what the dashboard is timed with.

    python -m tests.benchmarks.large_run OUT.duckdb [ENTRIES]

100 actors, 3 resources, 1,000 epochs; each proposal has five transfers, about one in ten proposals is refused.
"""

from __future__ import annotations

import gc
import hashlib
import sys
from pathlib import Path

from gridgov.engine import Engine
from gridgov.export import Store, Writer
from gridgov.journal import Genesis
from gridgov.ledger import MemoryLedger
from gridgov.model import BOUNDARY, Actor, Constraints, Kind, Limit, Proposal, Resource, Round, Transfer
from gridgov.tables import Run

ACTORS = tuple(f"home-{n}" for n in range(1, 101))
RESOURCES = (Resource("energy", "kWh", 3), Resource("water", "m3", 3), Resource("credits", "credit", 2))
EPOCHS = 1_000
ENTRIES = 5_000_000
TRANSFERS = 5
HOUR = 3_600_000_000
PROPOSERS = ("planner", "market", "council")
REASONS = ("home-{0} is short", "the price is high; home-{0} waits", "home-{0} stored enough for the night")


def drawn(epoch: int, n: int) -> Proposal:
    """One proposal, by chance: five transfers, of which one in fifty is above the limit."""
    draws = hashlib.sha512(f"{epoch}/{n}".encode()).digest()
    transfers = []
    for place in range(TRANSFERS):
        bits = int.from_bytes(draws[place * 12 : place * 12 + 12], "big")
        bits, first = divmod(bits, 100)
        bits, second = divmod(bits, 99)
        bits, which = divmod(bits, 3)
        bits, wild = divmod(bits, 50)
        amount = 1 + bits % 900 + (50_000 if wild == 0 else 0)
        transfers.append(Transfer(ACTORS[first], ACTORS[second + (second >= first)], RESOURCES[which].name, amount))
    who = PROPOSERS[n % 3]
    return Proposal(Round(epoch, who, n + 1).proposal_id, who, n + 1, tuple(transfers), REASONS[n % 3].format(n % 100))


def play(engine: Engine, entries: int) -> None:
    """Plays all epochs."""
    actors = (Actor(BOUNDARY, "boundary"), *(Actor(name, "node") for name in ACTORS))
    names = [resource.name for resource in RESOURCES]
    limits = Constraints(max_transfer=Limit(dict.fromkeys(names, 50_000), {}))
    opening = tuple((name, resource, 1_000_000) for name in ACTORS for resource in names)
    engine.append(Genesis(1, 0, HOUR, actors, RESOURCES, limits, opening, {}), 0)
    flows = 2 * len(ACTORS)
    proposals = max(1, round((entries / EPOCHS - flows) / (TRANSFERS * 0.9)))
    for epoch in range(1, EPOCHS + 1):
        at = (epoch - 1) * HOUR
        light = 400 + (epoch * 37) % 300
        engine.give(Kind.PRODUCE, "pv", [(name, "energy", light) for name in ACTORS], at)
        for n in range(proposals):
            engine.propose(drawn(epoch, n), at)
        engine.take("load", [(name, "energy", 450 + (epoch * 91 + i * 7) % 200) for i, name in enumerate(ACTORS)], at)
        engine.close(at + HOUR)


def make(path: Path, entries: int = ENTRIES) -> Path:
    """Writes the run and returns its path. Raises BadInput where another file is in the way."""
    engine = Engine(MemoryLedger())
    run_id = hashlib.sha256(f"large {entries}".encode()).hexdigest()[:16]
    gc.disable()
    try:
        play(engine, entries)
        with Store(path.parent) as store, Writer(store) as writer:
            records = list(engine.ledger.records())
            run = Run(
                run_id=run_id,
                scenario="large",
                description=f"about {entries:,} ledger entries, drawn by chance",
                overrides=(),
                proposers=[
                    {"name": name, "kind": "policy", "policy": "random", "role": "active"} for name in PROPOSERS
                ],
                version="benchmark",
                records=records,
                entries=engine.ledger.entries(),
                horizon=EPOCHS,
                started_at=0,
                seconds=0.0,
            )
            return writer.finish(run, path)
    finally:
        gc.enable()


if __name__ == "__main__":
    print(make(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else ENTRIES))
