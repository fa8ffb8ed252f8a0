"""Small worlds that tests play by hand, over the real engine; no expectation lives here."""

import json
from decimal import Decimal
from itertools import count

import numpy as np

from gridgov import __version__
from gridgov.decide import decide, faulted
from gridgov.engine import Engine, Metered
from gridgov.flows import Request
from gridgov.journal import Activation, Genesis, Once, Registration
from gridgov.ledger import MemoryLedger
from gridgov.model import (
    BOUNDARY,
    BOUNDARY_TYPE,
    Actor,
    Constraints,
    Kind,
    Limit,
    Malformed,
    Proposal,
    Resource,
    Round,
    Transfer,
    Unavailable,
    uuid5,
)
from gridgov.tables import Commons, Run

START = 1_740_744_000_000_000  # 2025-02-28T12:00:00Z
HOUR = 3_600_000_000


class World:
    """An engine over a memory ledger, and the small words to play it with; amounts are minor units."""

    def __init__(self, actors, resources, constraints, opening, *, seed=1, scenario=None):
        self.ledger = MemoryLedger()
        self.engine = Engine(self.ledger)
        self.resources = resources
        everyone = (Actor(BOUNDARY, BOUNDARY_TYPE), *(Actor(name, kind) for name, kind in actors.items()))
        lines = tuple((actor, name, amount) for actor, held in opening.items() for name, amount in held.items())
        genesis = Genesis(seed, START, HOUR, everyone, resources, constraints, lines, scenario or {})
        self.engine.append(genesis, START)
        self.rounds = {}

    @property
    def state(self):
        return self.engine.state

    @property
    def at(self):
        return START + (self.state.epoch - 1) * HOUR

    def propose(self, *transfers, proposer="planner", reasoning="because", asked=None):
        """Proposes (from, to, resource, amount) in the proposer's next round of this epoch."""
        round_ = self.round(proposer)
        proposal = Proposal(
            round_.proposal_id,
            proposer,
            round_.n,
            tuple(Transfer(*one) for one in transfers),
            reasoning,
            self.state.seen,
        )
        wanted = None if asked is None else tuple(Transfer(*one) for one in asked)
        return self.engine.propose(proposal, self.at, asked=wanted)

    def fail(self, fault, proposer="planner"):
        round_ = self.round(proposer)
        return self.engine.fail(round_.proposal_id, proposer, round_.n, fault, self.at)

    def round(self, proposer):
        n = next(self.rounds.setdefault((self.state.epoch, proposer), count(1)))
        return Round(self.state.epoch, proposer, n)

    def produce(self, resource, amounts, name="pv"):
        self.engine.give(Kind.PRODUCE, name, self.requests(resource, amounts), self.at)

    def grow(self, resource, amounts, name="growth"):
        self.engine.give(Kind.GROW, name, self.requests(resource, amounts), self.at)

    def need(self, resource, amounts, name="load"):
        self.engine.need(name, self.requests(resource, amounts), self.at)

    def consume(self, resource, amounts, name="load"):
        self.engine.take(name, self.requests(resource, amounts), self.at)

    def spill(self, storage):
        self.engine.spill(storage, self.at)

    def requests(self, resource, amounts):
        return [Request(actor, resource, amount) for actor, amount in amounts.items()]

    def close(self, *, collapsed=False):
        self.engine.expire(self.at)
        self.engine.close(self.at + HOUR, collapsed=collapsed)

    def run(self, **given):
        """The run as it stands; `given` are other fields of it."""
        records = list(self.ledger.records())
        found = {
            "run_id": "0123456789abcdef",
            "scenario": "by-hand",
            "description": "played by a test",
            "overrides": ["constraints.max_transfer=45"],
            "proposers": [{"name": "planner", "kind": "policy", "policy": "greedy"}],
            "version": __version__,
            "records": records,
            "entries": list(self.ledger.entries()),
            "horizon": self.state.epoch - 1,
            "started_at": START,
            "seconds": 0.5,
        }
        return Run(**{**found, **given})


def limit(resources, units):
    """The same limit in units for every resource."""
    return Limit({resource.name: units * 10**resource.scale for resource in resources}, {})


def seed_world(**constraints):
    """The world of the seed design: two nodes, three resources, max_transfer 50, min_balance 10."""
    resources = (Resource("energy", "kWh", 0), Resource("water", "l", 0), Resource("credits", "credit", 2))
    rules = Constraints(**{"max_transfer": limit(resources, 50), "min_balance": limit(resources, 10), **constraints})
    opening = {"actor-1": {"energy": 100, "water": 50}, "actor-2": {"energy": 80, "water": 120}}
    return World({"actor-1": "node", "actor-2": "node"}, resources, rules, opening)


def fishery(ask, rounds=12, n=5):
    """GovSim's fishery without its talk: all ask at once, are granted shares, and it grows before each harvest."""
    fishers = [f"fisher-{i}" for i in range(1, n + 1)]
    fish = Resource("fish", "t", 0)
    actors = {"pool": "commons", **dict.fromkeys(fishers, "fisher")}
    world = World(actors, (fish,), Constraints(min_balance=limit((fish,), 0)), {"pool": {"fish": 100}})
    for epoch in range(1, rounds + 1):
        pool = world.state.balance("pool", "fish")
        world.grow("fish", {"pool": min(pool, 100 - pool)})
        pool = world.state.balance("pool", "fish")
        asked = ask(pool, n, epoch)
        for fisher, (wanted, share) in zip(fishers, shares(asked, pool, n), strict=True):
            if wanted:
                transfers = [("pool", fisher, "fish", share)]
                world.propose(*transfers, proposer=fisher, asked=[("pool", fisher, "fish", wanted)])
        collapsed = world.state.balance("pool", "fish") < 5
        world.close(collapsed=collapsed)
        if collapsed:
            break
    run = world.run(horizon=rounds, commons=Commons("pool", "fish", 5, tuple(fishers)))
    return world, run


def shares(asked, pool, n):
    """(asked, granted) of each: all of it, or a proportional share, the first ones getting what rounding leaves."""
    asked = [asked] * n if isinstance(asked, int) else list(asked)
    total = sum(asked)
    if total <= pool:
        return [(one, one) for one in asked]
    granted = [one * pool // total for one in asked]
    for i in range(pool - sum(granted)):
        granted[i] += 1
    return list(zip(asked, granted, strict=True))


def homes(seed=1):
    """Two homes for two hours, kWh to the Wh: PV, load that is not all met, storage, one gift and one refusal."""
    energy, credits = Resource("energy", "kWh", 3), Resource("credits", "credit", 2)
    rules = Constraints(max_transfer=Limit({"energy": 1500}, {}), min_balance=limit((energy, credits), 0))
    opening = {"home-1": {"energy": 0, "credits": 10_000}, "home-2": {"energy": 250, "credits": 10_000}}
    world = World({"home-1": "node", "home-2": "node"}, (energy, credits), rules, opening, seed=seed)
    world.produce("energy", {"home-1": 2000})
    world.need("energy", {"home-1": 700, "home-2": 1500})
    world.propose(("home-1", "home-2", "energy", 1000))
    world.propose(("home-1", "home-2", "energy", 1501))
    world.consume("energy", {"home-1": 700, "home-2": 1500})
    world.spill({("home-1", "energy"): 200, ("home-2", "energy"): 200})
    world.close()
    world.produce("energy", {"home-1": 100})
    world.need("energy", {"home-1": 700, "home-2": 1300})
    world.propose()
    world.consume("energy", {"home-1": 700, "home-2": 1300})
    world.spill({("home-1", "energy"): 200, ("home-2", "energy"): 200})
    world.close()
    return world


def everything():
    """A run with rows in every table of an export: holds, shadows, faults, an allocation, somebody who joins, files."""
    world = seed_world(hold_above=Limit({"water": 30}, {}), hold_epochs=2)
    engine = world.engine
    world.produce("energy", {"actor-1": 20}, name="pv")
    world.need("energy", {"actor-1": 5, "actor-2": 200}, name="load")
    world.propose(("actor-1", "actor-2", "energy", 30), ("actor-2", "actor-1", "energy", 1))
    approved = world.propose(("actor-2", "actor-1", "water", 35), proposer="second")
    expired = world.propose(("actor-2", "actor-1", "water", 31), proposer="third")
    world.propose(("actor-1", "actor-2", "energy", 60), ("actor-1", "nobody", "energy", 1))
    world.propose(("actor-1", "actor-2", "gold", Decimal("1.5")), ("actor-1", "actor-2", "water", Decimal("1e-9")))
    world.propose(("actor-1", "actor-2", "energy", 3), asked=(("actor-1", "actor-2", "energy", 7),), proposer="second")
    world.propose(proposer="idle")
    world.fail(Malformed("not_pure_json", "at 0: ```", b"```"))
    world.fail(Unavailable("quota", "429"))
    world.consume("energy", {"actor-1": 5, "actor-2": 200}, name="load")
    world.spill({("actor-1", "energy"): 50})
    world.close()
    engine.settle(approved.proposal_id, "approve", world.at, "ops", "fine")
    joins = Registration((Actor("actor-3", "plant"),), {"actor-3": True}, operator="ops", reason="new")
    engine.register(joins, world.at)
    world.close()
    engine.pause(world.at, "ops", "storm")
    world.propose(("actor-1", "actor-2", "energy", 1))
    engine.resume(world.at, "ops", "over")
    engine.constrain(world.state.constraints._replace(max_transfers_per_proposal=1), world.at, "ops", "smaller")
    world.propose(("actor-1", "actor-2", "energy", 1), ("actor-1", "actor-2", "energy", 1))
    world.close()
    assert expired.proposal_id not in world.state.holds
    by_hand = (Transfer("actor-1", "actor-2", "energy", 2), Transfer("actor-2", "actor-1", "water", 1))
    engine.override(by_hand, world.at, "ops", "as agreed", once=Once(uuid5("by hand"), "ab" * 32))
    engine.override(by_hand[:1] * 90, world.at, "ops", "too much")
    engine.reverse(world.engine.ledger.entries()[-2:], world.at, "ops", "a mistake")
    engine.activate(Activation("propose_transfer", "gemini-3.8-flash", "cd" * 32, operator="ops"), world.at)
    engine.meter("meter", [Metered("produce", "actor-1", "energy", 4)], world.at, epoch=1)
    world.propose(("actor-2", "actor-1", "water", 31), proposer="third")
    world.close()
    shadow = Proposal(
        Round(1, "shade", 1).proposal_id, "shade", 1, (Transfer("actor-2", "actor-1", "energy", 500),), "bold"
    )
    shadows = [
        (1, decide(world.state, shadow)),
        (2, faulted(Round(2, "shade", 1).proposal_id, "shade", 1, Malformed("no_answer", "empty", b""))),
    ]
    given = {
        "shadows": shadows,
        "prices": {"energy": np.array([200_000, 300_001, 250_000, 0])},
        "baselines": {"energy": (100, None, "too large"), "water": (0, 35, "")},
        "alone": {"energy": (("actor-1", 60), ("actor-2", 0)), "water": ()},
        "commons": Commons("actor-1", "energy", 5, ("actor-2",)),
        "interactions": [interaction(approved), interaction(expired) | {"cost": None, "at": None}],
        "recorded": 1,
        "synthetic": 1,
        "files": {"scenario.yaml": b"name: by-hand\n", "data/load.csv": bytes(range(256))},
        "error": "none to speak of",
    }
    return world, world.run(**given)


def interaction(decision):
    """An exchange with a model, as a run hands it to its export."""
    body = '{"transfers": []}'
    return {
        "epoch": 1,
        "proposer": decision.proposer,
        "n": decision.n,
        "proposal_id": decision.proposal_id,
        "origin": "synthetic",
        "request_key": "ab" * 32,
        "model_asked": "gemini-3.8-flash",
        "model_answered": "gemini-3.8-flash",
        "status": 200,
        "finish_reason": "STOP",
        "prompt": "plan",
        "prompt_digest": "cd" * 32,
        "tokens_in": 900,
        "tokens_out": 40,
        "tokens_thought": 7,
        "cost": "0.0000125",
        "latency_ms": 812,
        "attempts": 2,
        "at": "2025-02-28T12:00:01.5Z",
        "line": json.dumps({"body": body, "user": "what now?"}),
        "digest": "ef" * 32,
    }
