"""The rules, as a table: a row for each violation code, for each precedence and for what passes."""

from decimal import Decimal
from typing import NamedTuple

import pytest

from gridgov import wire
from gridgov.engine import Engine
from gridgov.journal import Genesis, Registration
from gridgov.ledger import MemoryLedger
from gridgov.model import Actor, Code, Limit, Proposal, Resource, Seen, Transfer, Violation
from gridgov.validate import validate

RESOURCES = {
    "energy": Resource("energy", "kWh", 0),
    "water": Resource("water", "m3", 0),
    "credits": Resource("credits", "credit", 2),
}
ACTORS = ("actor-1", "actor-2", "actor-3")
OPENING = (
    ("actor-1", "energy", 100),
    ("actor-1", "water", 50),
    ("actor-2", "energy", 80),
    ("actor-2", "water", 120),
    ("actor-3", "credits", 10**15 - 100),
    ("actor-1", "credits", 1000),
)
SEED = {"max_transfer": 50, "min_balance": 10}
FREE: dict = {}
NOTHING: dict = {}
TOP = 10**15 - 1


def world(constraints, *, frozen=(), mandate=None, paused=False):
    """The seed design's world, with a third actor that has nearly as many credits as there may be."""
    engine = Engine(MemoryLedger())
    genesis = Genesis(
        1,
        0,
        1,
        (Actor("grid", "boundary"), *(Actor(name, "node") for name in ACTORS)),
        tuple(RESOURCES.values()),
        wire.constraints_from_json(constraints, RESOURCES, ACTORS),
        OPENING,
        {},
    )
    engine.append(genesis, 0)
    if frozen or mandate is not None:
        engine.register(Registration((), dict.fromkeys(frozen, True), {"planner": mandate}), 0)
    if paused:
        engine.pause(0, "operator", "reason")
    return engine


def judged(engine, *transfers, seen=None, settling=False):
    state = engine.state
    proposal = Proposal("id", "planner", 1, tuple(Transfer(*t) for t in transfers), "", seen)
    return validate(state, state.constraints, proposal, settling=settling)


def said(violation):
    """A violation in one line: code, path, actual, limit, resource, as far as it has them."""
    code, path, limit, actual, resource = violation
    parts = [code, f" at {path}" if path else "", "" if actual is None else f": {actual}"]
    parts += ["" if limit is None else f", limit {limit}", "" if resource is None else f" {resource}"]
    return "".join(parts)


def violations(engine, *transfers, **how):
    return [said(violation) for violation in judged(engine, *transfers, **how).violations]


class Row(NamedTuple):
    """What is asked of which world, and every violation that it gets."""

    name: str
    constraints: dict
    transfers: list
    expected: list
    world: dict = NOTHING
    seen: Seen | None = None


E12 = ("actor-1", "actor-2", "energy")
W12 = ("actor-1", "actor-2", "water")
C12 = ("actor-1", "actor-2", "credits")
STALE = Seen(0, 1, 0)
STALE_RULES = Seen(1, 0, 0)

ONE_EACH = [
    Row("paused", SEED, [], ["paused"], {"paused": True}),
    Row("stale_world_state: its epoch has closed", SEED, [], ["stale_world_state at epoch: 0, limit 1"], {}, STALE),
    Row(
        "stale_world_state: the constraints changed since",
        SEED,
        [(*E12, 1)],
        ["stale_world_state at constraints: 0, limit 1"],
        {},
        STALE_RULES,
    ),
    Row(
        "too_many_transfers",
        {"max_transfers_per_proposal": 1},
        [(*E12, 1), (*E12, 1)],
        ["too_many_transfers at transfers: 2, limit 1"],
    ),
    Row(
        "too_many_transfers: none are allowed",
        {"max_transfers_per_proposal": 0},
        [(*E12, 1)],
        ["too_many_transfers at transfers: 1, limit 0"],
    ),
    Row(
        "unknown_actor: sender",
        SEED,
        [("nobody", "actor-2", "energy", 1)],
        ["unknown_actor at transfers[0].from: nobody"],
    ),
    Row(
        "unknown_actor: receiver",
        SEED,
        [("actor-1", "nobody", "energy", 1)],
        ["unknown_actor at transfers[0].to: nobody"],
    ),
    Row(
        "unknown_actor: both, the sender is named",
        SEED,
        [("x", "y", "energy", 1)],
        ["unknown_actor at transfers[0].from: x"],
    ),
    Row(
        "unknown_actor: zero-width",
        SEED,
        [("actor-1\u200b", "actor-2", "energy", 1)],
        ["unknown_actor at transfers[0].from: actor-1\u200b"],
    ),
    Row(
        "unknown_actor: homoglyph",
        SEED,
        [("act\u043er-1", "actor-2", "energy", 1)],
        ["unknown_actor at transfers[0].from: act\u043er-1"],
    ),
    Row(
        "unknown_actor: padded",
        SEED,
        [("actor-1", " actor-2", "energy", 1)],
        ["unknown_actor at transfers[0].to:  actor-2"],
    ),
    Row(
        "unknown_actor: other case",
        SEED,
        [("Actor-1", "actor-2", "energy", 1)],
        ["unknown_actor at transfers[0].from: Actor-1"],
    ),
    Row(
        "frozen_actor: sender",
        SEED,
        [(*E12, 1)],
        ["frozen_actor at transfers[0].from: actor-1"],
        {"frozen": ["actor-1"]},
    ),
    Row(
        "frozen_actor: receiver",
        SEED,
        [(*E12, 1)],
        ["frozen_actor at transfers[0].to: actor-2"],
        {"frozen": ["actor-2"]},
    ),
    Row(
        "boundary_actor: sender",
        SEED,
        [("grid", "actor-2", "energy", 1)],
        ["boundary_actor at transfers[0].from: grid"],
    ),
    Row(
        "boundary_actor: receiver",
        SEED,
        [("actor-1", "grid", "energy", 1)],
        ["boundary_actor at transfers[0].to: grid"],
    ),
    Row("not_permitted", SEED, [(*E12, 1)], ["not_permitted at transfers[0].from: actor-1"], {"mandate": ("actor-2",)}),
    Row(
        "not_permitted: nothing is", SEED, [(*E12, 1)], ["not_permitted at transfers[0].from: actor-1"], {"mandate": ()}
    ),
    Row(
        "unknown_resource",
        SEED,
        [("actor-1", "actor-2", "gold", 1)],
        ["unknown_resource at transfers[0].resource: gold"],
    ),
    Row("same_actor", SEED, [("actor-1", "actor-1", "energy", 1)], ["same_actor at transfers[0].to: actor-1"]),
    Row("non_positive_amount: zero", SEED, [(*E12, 0)], ["non_positive_amount at transfers[0].amount: 0 energy"]),
    Row("non_positive_amount: negative", SEED, [(*E12, -5)], ["non_positive_amount at transfers[0].amount: -5 energy"]),
    Row(
        "non_positive_amount: negative and vast",
        SEED,
        [(*E12, Decimal("-1E+50"))],
        ["non_positive_amount at transfers[0].amount: -1E50"],
    ),
    Row("precision", SEED, [(*C12, Decimal("0.001"))], ["precision at transfers[0].amount: 0.001, limit 2"]),
    Row("precision: tiny", SEED, [(*E12, Decimal("1E-400"))], ["precision at transfers[0].amount: 1E-400, limit 0"]),
    Row(
        "out_of_range: amount",
        FREE,
        [(*E12, 10**15)],
        ["out_of_range at transfers[0].amount: 1000000000000000, limit 999999999999999 energy"],
    ),
    Row(
        "out_of_range: vast",
        FREE,
        [(*E12, Decimal("1E+50"))],
        ["out_of_range at transfers[0].amount: 1E50, limit 999999999999999 energy"],
    ),
    Row(
        "out_of_range: the receiver's balance",
        FREE,
        [("actor-1", "actor-3", "credits", 100)],
        ["out_of_range at transfers[0].amount: 1000000000000000, limit 999999999999999 credits"],
    ),
    Row(
        "max_transfer", {"max_transfer": 50}, [(*E12, 51)], ["max_transfer at transfers[0].amount: 51, limit 50 energy"]
    ),
    Row(
        "insufficient_balance", FREE, [(*W12, 51)], ["insufficient_balance at transfers[0].amount: 51, limit 50 water"]
    ),
    Row(
        "insufficient_balance: of what was never declared",
        FREE,
        [("actor-2", "actor-1", "credits", 1)],
        ["insufficient_balance at transfers[0].amount: 1, limit 0 credits"],
    ),
    Row("min_balance", {"min_balance": 10}, [(*W12, 41)], ["min_balance at transfers[0].amount: 9, limit 10 water"]),
    Row("epoch_quota", {"epoch_quota": 50}, [(*E12, 51)], ["epoch_quota at transfers[0].amount: 51, limit 50 energy"]),
]

PRECEDENCE = [
    Row("paused before stale_world_state", SEED, [], ["paused"], {"paused": True}, STALE),
    Row(
        "stale_world_state before too_many_transfers",
        {"max_transfers_per_proposal": 0},
        [(*E12, 1)],
        ["stale_world_state at epoch: 0, limit 1"],
        {},
        STALE,
    ),
    Row(
        "a closed epoch before changed constraints",
        SEED,
        [],
        ["stale_world_state at epoch: 0, limit 1"],
        {},
        Seen(0, 0, 0),
    ),
    Row(
        "too_many_transfers before unknown_actor",
        {"max_transfers_per_proposal": 0},
        [("nobody", "actor-2", "energy", 1)],
        ["too_many_transfers at transfers: 1, limit 0"],
    ),
    Row(
        "unknown_actor before frozen_actor",
        SEED,
        [("actor-1", "nobody", "energy", 1)],
        ["unknown_actor at transfers[0].to: nobody"],
        {"frozen": ["actor-1"]},
    ),
    Row(
        "frozen_actor before boundary_actor",
        SEED,
        [("grid", "actor-2", "energy", 1)],
        ["frozen_actor at transfers[0].to: actor-2"],
        {"frozen": ["actor-2"]},
    ),
    Row(
        "boundary_actor before not_permitted",
        SEED,
        [("actor-1", "grid", "energy", 1)],
        ["boundary_actor at transfers[0].to: grid"],
        {"mandate": ("actor-2",)},
    ),
    Row(
        "boundary_actor before not_permitted, as the sender",
        SEED,
        [("grid", "actor-1", "energy", 1)],
        ["boundary_actor at transfers[0].from: grid"],
        {"mandate": ()},
    ),
    Row(
        "not_permitted before unknown_resource",
        SEED,
        [("actor-1", "actor-2", "gold", 1)],
        ["not_permitted at transfers[0].from: actor-1"],
        {"mandate": ()},
    ),
    Row(
        "unknown_resource before same_actor",
        SEED,
        [("actor-1", "actor-1", "gold", 1)],
        ["unknown_resource at transfers[0].resource: gold"],
    ),
    Row(
        "same_actor before non_positive_amount",
        SEED,
        [("actor-1", "actor-1", "energy", 0)],
        ["same_actor at transfers[0].to: actor-1"],
    ),
    Row(
        "non_positive_amount before precision",
        SEED,
        [(*C12, Decimal("-0.001"))],
        ["non_positive_amount at transfers[0].amount: -0.001"],
    ),
    Row(
        "non_positive_amount before out_of_range",
        SEED,
        [(*E12, -(10**15))],
        ["non_positive_amount at transfers[0].amount: -1000000000000000 energy"],
    ),
    Row(
        "precision before out_of_range",
        SEED,
        [(*C12, Decimal("1000000000000000.001"))],
        ["precision at transfers[0].amount: 1000000000000000.001, limit 2"],
    ),
    Row(
        "out_of_range where the decimals fit",
        SEED,
        [(*C12, Decimal("1" + "0" * 44 + ".01"))],
        [f"out_of_range at transfers[0].amount: 1{'0' * 45}1E-2, limit {TOP} credits"],
    ),
    Row(
        "precision before max_transfer",
        SEED,
        [(*C12, Decimal("60.001"))],
        ["precision at transfers[0].amount: 60.001, limit 2"],
    ),
    Row(
        "out_of_range before max_transfer",
        SEED,
        [(*E12, 10**15)],
        ["out_of_range at transfers[0].amount: 1000000000000000, limit 999999999999999 energy"],
    ),
    Row(
        "the amount's range before the receiver's",
        FREE,
        [("actor-1", "actor-3", "credits", 10**15)],
        ["out_of_range at transfers[0].amount: 1000000000000000, limit 999999999999999 credits"],
    ),
    Row(
        "max_transfer, insufficient_balance, epoch_quota together",
        {"max_transfer": 50, "epoch_quota": 55, "min_balance": 10},
        [(*W12, 60)],
        [
            "max_transfer at transfers[0].amount: 60, limit 50 water",
            "insufficient_balance at transfers[0].amount: 60, limit 50 water",
            "epoch_quota at transfers[0].amount: 60, limit 55 water",
        ],
    ),
    Row(
        "max_transfer, min_balance, epoch_quota together",
        {"max_transfer": 40, "epoch_quota": 44, "min_balance": 10},
        [(*W12, 45)],
        [
            "max_transfer at transfers[0].amount: 45, limit 40 water",
            "min_balance at transfers[0].amount: 5, limit 10 water",
            "epoch_quota at transfers[0].amount: 45, limit 44 water",
        ],
    ),
    Row(
        "insufficient_balance instead of min_balance",
        {"min_balance": 10},
        [(*W12, 51)],
        ["insufficient_balance at transfers[0].amount: 51, limit 50 water"],
    ),
]

RUNNING = [
    Row(
        "each transfer has its own violations",
        SEED,
        [(*W12, 41), ("nobody", "actor-1", "water", 1), (*E12, 51)],
        [
            "min_balance at transfers[0].amount: 9, limit 10 water",
            "unknown_actor at transfers[1].from: nobody",
            "max_transfer at transfers[2].amount: 51, limit 50 energy",
        ],
    ),
    Row(
        "what is received can be sent on",
        FREE,
        [("actor-2", "actor-1", "water", 120), ("actor-1", "actor-3", "water", 170)],
        [],
    ),
    Row(
        "but not before it is received",
        FREE,
        [("actor-1", "actor-3", "water", 170), ("actor-2", "actor-1", "water", 120)],
        [
            "insufficient_balance at transfers[0].amount: 170, limit 50 water",
        ],
    ),
    Row(
        "what violates doesn't move",
        {"max_transfer": 100},
        [("actor-2", "actor-1", "water", 120), ("actor-1", "actor-2", "water", 51)],
        [
            "max_transfer at transfers[0].amount: 120, limit 100 water",
            "insufficient_balance at transfers[1].amount: 51, limit 50 water",
        ],
    ),
    Row(
        "what violates uses up no quota",
        {"epoch_quota": 50},
        [(*E12, 60), (*E12, 50)],
        ["epoch_quota at transfers[0].amount: 60, limit 50 energy"],
    ),
    Row(
        "what is sent is gone for the next",
        FREE,
        [(*W12, 30), (*W12, 21)],
        ["insufficient_balance at transfers[1].amount: 21, limit 20 water"],
    ),
    Row(
        "a minimum binds after all of it",
        {"min_balance": 10},
        [(*W12, 40), (*W12, 1)],
        ["min_balance at transfers[1].amount: 9, limit 10 water"],
    ),
    Row(
        "a quota counts what was received on the way, too",
        {"epoch_quota": 60},
        [(*W12, 50), ("actor-2", "actor-1", "water", 50), (*W12, 11)],
        [
            "epoch_quota at transfers[2].amount: 61, limit 60 water",
        ],
    ),
    Row(
        "the receiver's range counts what it got before",
        FREE,
        [("actor-1", "actor-3", "credits", 60), ("actor-1", "actor-3", "credits", 40)],
        [
            "out_of_range at transfers[1].amount: 1000000000000000, limit 999999999999999 credits",
        ],
    ),
    Row(
        "a receiver that sent has room again",
        FREE,
        [("actor-3", "actor-1", "credits", 60), ("actor-1", "actor-3", "credits", 159)],
        [],
    ),
]

PASSES = [
    Row("nothing at all", SEED, [], []),
    Row("what leaves exactly the minimum", SEED, [(*W12, 40)], []),
    Row("exactly the maximum", {"max_transfer": 51}, [(*E12, 51)], []),
    Row("exactly the balance", FREE, [(*W12, 50)], []),
    Row("exactly the quota", {"epoch_quota": 50}, [(*E12, 50)], []),
    Row("exactly as many transfers as there may be", {"max_transfers_per_proposal": 2}, [(*E12, 1), (*E12, 1)], []),
    Row("exactly the range", FREE, [("actor-1", "actor-3", "credits", 99)], []),
    Row(
        "the range of one who has none yet",
        FREE,
        [("actor-1", "actor-3", "credits", 99), ("actor-3", "actor-2", "credits", TOP)],
        [],
    ),
    Row("one minor unit", {"min_balance": {"credits": Decimal("9.99")}}, [(*C12, 1)], []),
    Row("what was seen is still so", SEED, [(*E12, 1)], [], {}, Seen(1, 1, 6)),
    Row("balances moved in between: no violation", SEED, [(*E12, 1)], [], {}, Seen(1, 1, 0)),
    Row("a mandate", SEED, [(*E12, 1)], [], {"mandate": ("actor-1",)}),
    Row("a frozen bystander", SEED, [(*E12, 1)], [], {"frozen": ["actor-3"]}),
    Row(
        "an actor's own limit",
        {"max_transfer": {"default": 1, "energy": 2, "actors": {"actor-1": {"energy": 50}}}},
        [(*E12, 50)],
        [],
    ),
    Row("a minimum that only others have", {"min_balance": {"actors": {"actor-2": {"water": 50}}}}, [(*W12, 50)], []),
    Row("a limit of another resource", {"max_transfer": {"water": 1}}, [(*E12, 100)], []),
]

LIMITS = [
    Row(
        "the receiver's limit doesn't count",
        {"max_transfer": {"actors": {"actor-2": {"energy": 1}}}},
        [(*E12, 100)],
        [],
    ),
    Row(
        "the resource's limit before the default",
        {"max_transfer": {"default": 100, "energy": 2}},
        [(*E12, 3)],
        ["max_transfer at transfers[0].amount: 3, limit 2 energy"],
    ),
    Row(
        "the default where nothing else is said",
        {"max_transfer": {"default": 2, "water": 100}},
        [(*E12, 3)],
        ["max_transfer at transfers[0].amount: 3, limit 2 energy"],
    ),
    Row(
        "the actor's limit before the resource's",
        {"min_balance": {"energy": 0, "actors": {"actor-1": {"energy": 100}}}},
        [(*E12, 1)],
        ["min_balance at transfers[0].amount: 99, limit 100 energy"],
    ),
    Row(
        "an actor's limit of another resource",
        {"epoch_quota": {"default": 2, "actors": {"actor-1": {"water": 100}}}},
        [(*E12, 3)],
        ["epoch_quota at transfers[0].amount: 3, limit 2 energy"],
    ),
    Row(
        "a limit in units",
        {"max_transfer": {"credits": Decimal("0.05")}},
        [(*C12, 6)],
        ["max_transfer at transfers[0].amount: 6, limit 5 credits"],
    ),
    Row(
        "a minimum in units",
        {"min_balance": {"credits": Decimal("9.99")}},
        [(*C12, 2)],
        ["min_balance at transfers[0].amount: 998, limit 999 credits"],
    ),
]

TABLE = [*ONE_EACH, *PRECEDENCE, *RUNNING, *PASSES, *LIMITS]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_finds_every_violation_and_no_other(row):
    verdict = judged(world(row.constraints, **row.world), *row.transfers, seen=row.seen)
    assert [said(violation) for violation in verdict.violations] == row.expected
    assert not verdict.hold


def test_names_of_rows_are_used_once():
    assert len({row.name for row in TABLE}) == len(TABLE)


def test_each_code_has_a_row():
    rows = {row.expected[0].partition(" ")[0] for row in ONE_EACH}
    assert rows == {code.value for code in Code} - {"hold_rejected", "hold_expired"}


def test_minimum_is_0_where_nobody_said():
    engine = world(FREE)
    for least in (None, Limit({}, {}), Limit({}, {"actor-2": {"energy": 50}})):
        constraints = engine.state.constraints._replace(min_balance=least)
        proposal = Proposal("id", "planner", 1, (Transfer(*E12, 100),), "")
        assert validate(engine.state, constraints, proposal) == ((), False)


def test_a_verdict_says_what_the_model_says_of_violations():
    (found,) = judged(world(SEED), (*W12, 41)).violations
    assert found == Violation(Code.MIN_BALANCE, "transfers[0].amount", 10, 9, "water")


# --- the world of the seed design -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("constraints", "transfers", "codes"),
    [
        (SEED, [(*W12, 40)], []),
        (SEED, [(*W12, 41)], ["min_balance"]),
        (SEED, [(*W12, 60)], ["max_transfer", "insufficient_balance"]),
        (SEED, [(*E12, 45), (*E12, 45)], []),
        ({**SEED, "epoch_quota": 50}, [(*E12, 45), (*E12, 45)], ["epoch_quota"]),
    ],
)
def test_judges_the_seed_world_as_it_was_designed(constraints, transfers, codes):
    engine = world(constraints)
    assert [found.partition(" ")[0] for found in violations(engine, *transfers)] == codes
    decision = engine.propose(Proposal("id", "planner", 1, tuple(Transfer(*t) for t in transfers), ""), 0)
    assert decision.outcome == ("rejected" if codes else "executed")
    moved = 0 if codes else sum(t[3] for t in transfers)
    resource = transfers[0][2]
    opening = {(actor, name): amount for actor, name, amount in OPENING}
    assert engine.state.balance("actor-1", resource) == opening["actor-1", resource] - moved
    assert engine.state.balance("actor-2", resource) == opening["actor-2", resource] + moved


# --- holds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("constraints", "transfers", "hold"),
    [
        ({"hold_above": 20}, [(*E12, 20)], False),
        ({"hold_above": 20}, [(*E12, 21)], True),
        ({"hold_above": 20}, [(*E12, 1), (*E12, 21), (*E12, 1)], True),
        ({"hold_above": 20}, [(*E12, 11), (*E12, 10)], False),
        ({"hold_above": 0}, [(*E12, 1)], True),
        ({"hold_above": {"water": 1}}, [(*E12, 50)], False),
        ({"hold_above": {"default": 1, "actors": {"actor-1": {"energy": 50}}}}, [(*E12, 50)], False),
        ({"hold_above": {"actors": {"actor-2": {"energy": 1}}}}, [(*E12, 50)], False),
        ({"hold_above": 20}, [], False),
        ({}, [(*E12, 100)], False),
    ],
)
def test_one_transfer_above_the_threshold_holds_the_whole(constraints, transfers, hold):
    engine = world(constraints)
    assert judged(engine, *transfers) == ((), hold)
    assert judged(engine, *transfers, settling=True) == ((), False)


def test_what_violates_is_not_held():
    verdict = judged(world({"hold_above": 20}), (*E12, 30), (*W12, 51))
    assert [violation.code for violation in verdict.violations] == ["insufficient_balance"]
    assert not verdict.hold


def test_settling_asks_neither_for_a_pause_nor_for_what_was_seen():
    engine = world({"hold_above": 20, "max_transfers_per_proposal": 1}, paused=True)
    assert violations(engine, (*E12, 30), seen=STALE, settling=True) == []
    too_many = violations(engine, (*E12, 30), (*E12, 1), seen=STALE, settling=True)
    assert too_many == ["too_many_transfers at transfers: 2, limit 1"]


def test_what_is_reserved_is_not_available():
    engine = world({"hold_above": 20, "min_balance": {"water": 5}})
    held = Proposal("held", "planner", 1, (Transfer(*W12, 30),), "")
    assert engine.propose(held, 0).outcome == "held"
    assert violations(engine, (*W12, 21)) == ["insufficient_balance at transfers[0].amount: 21, limit 20 water"]
    assert violations(engine, (*W12, 16)) == ["min_balance at transfers[0].amount: 4, limit 5 water"]
    assert violations(engine, (*W12, 15)) == []


# --- quota over an epoch ----------------------------------------------------------------------------------------------


def test_quota_counts_what_was_sent_in_the_open_epoch():
    engine = world({"epoch_quota": 50})
    assert engine.propose(Proposal("1", "planner", 1, (Transfer(*E12, 30),), ""), 0).outcome == "executed"
    assert violations(engine, (*E12, 21)) == ["epoch_quota at transfers[0].amount: 51, limit 50 energy"]
    assert violations(engine, (*W12, 50)) == [], "each resource has its own"
    assert violations(engine, ("actor-2", "actor-1", "energy", 50)) == [], "each sender has its own"
    engine.close(0)
    assert violations(engine, (*E12, 50)) == []


@pytest.mark.parametrize(
    ("registered", "given", "permitted"),
    [
        (None, None, True),
        (None, frozenset({"actor-1"}), True),
        (None, frozenset({"actor-2"}), False),
        (None, frozenset(), False),
        (("actor-1",), frozenset({"actor-2"}), False),
    ],
)
def test_a_shadow_brings_its_own_mandate(registered, given, permitted):
    engine = world(SEED, mandate=registered)
    proposal = Proposal("id", "planner", 1, (Transfer(*E12, 1),), "", mandate=given)
    found = validate(engine.state, engine.state.constraints, proposal).violations
    assert [violation.code for violation in found] == ([] if permitted else ["not_permitted"])


def test_judging_changes_nothing():
    engine = world({"hold_above": 20, "epoch_quota": 50})
    before = {name: repr(getattr(engine.state, name)) for name in type(engine.state).__slots__}
    for row in TABLE:
        judged(engine, *row.transfers, seen=row.seen)
    assert {name: repr(getattr(engine.state, name)) for name in type(engine.state).__slots__} == before
