"""The JSON forms, in units: what is written can be read again, and what is wrong is refused with its place."""

import json
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridgov import wire
from gridgov.errors import BadInput
from gridgov.journal import Decision
from gridgov.model import (
    ActorView,
    AutoPause,
    Code,
    Constraints,
    Limit,
    Outcome,
    Resource,
    Transfer,
    Violation,
    WorldState,
)
from tests import strategies
from tests.oracle import Oracle
from tests.strategies import FOUNDERS, LATER, SCALES

RESOURCES = {"energy": Resource("energy", "kWh", 3), "water": Resource("water", "m3", 0)}
ACTORS = ("actor-1", "actor-2")


def read(value):
    return wire.constraints_from_json(value, RESOURCES, ACTORS)


def limits(energy, water, **actors):
    return Limit({"energy": energy, "water": water}, actors)


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_740_744_000_000_000, "2025-02-28T12:00:00Z"),
        (1_740_744_000_500_000, "2025-02-28T12:00:00.500000Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
    ],
)
def test_times_are_written_and_read_to_the_microsecond(at, text):
    assert wire.timestamp(at) == text
    assert wire.microseconds(text) == at


@given(st.integers(-(10**15), 10**17))
def test_every_time_comes_back(at):
    assert wire.microseconds(wire.timestamp(at)) == at


@pytest.mark.parametrize(
    "text",
    ["", "noon", "2025-02-28", "2025-02-28T12:00:00", "2025-02-30T12:00:00Z", "ZZ", "1e3", "2025-02-28T12:00:00+02:00"],
)
def test_what_is_no_time_in_utc_is_refused(text):
    with pytest.raises(BadInput, match=r"write it as 2025-02-28T12:00:00Z") as refused:
        wire.microseconds(text, ("start",))
    assert refused.value.path == ("start",)


# --- amounts, declared ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "minor"),
    [
        (0, 0),
        (12, 12_000),
        (Decimal("12.5"), 12_500),
        (Decimal("12.5000000"), 12_500),
        (Decimal("1E+3"), 1_000_000),
        (Decimal("-0.0"), 0),
        (Decimal("999999999999.999"), 10**15 - 1),
    ],
)
def test_declared_amounts_are_exact(value, minor):
    assert wire.declared(value, RESOURCES["energy"], ()) == minor


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("5", "expected a number of kWh, not '5'"),
        (True, "expected a number of kWh, not True"),
        (None, "expected a number of kWh, not None"),
        (5.0, r"expected a number of kWh, not 5\.0"),
        (-1, "-1 is below 0"),
        (Decimal("-0.5"), r"-0\.5 is below 0"),
        (Decimal("0.0001"), r"0\.0001 has more decimals than energy \(scale 3\)"),
        (Decimal("1E-400"), "1E-400 has more decimals"),
        (Decimal("1E+44"), "1E44 kWh is out of range"),
        (10**12, "1000000000000 kWh is out of range: 15 digits at most"),
        (Decimal("1E+12"), "1000000000000 kWh is out of range"),
        (Decimal("1E+50"), "1E50 kWh is out of range"),
    ],
)
def test_declared_amounts_that_do_not_fit_say_why(value, message):
    with pytest.raises(BadInput, match=f"^{message}") as refused:
        wire.declared(value, RESOURCES["energy"], ("actors", 0))
    assert refused.value.path == ("actors", 0)


# --- constraints ------------------------------------------------------------------------------------------------------


def test_constraints_of_nothing_are_a_minimum_of_0():
    assert read({}) == Constraints(min_balance=limits(0, 0))


@pytest.mark.parametrize(
    ("written", "limit"),
    [
        (50, limits(50_000, 50)),
        ({"default": 50}, limits(50_000, 50)),
        ({"energy": Decimal("0.5"), "default": 50}, limits(500, 50)),
        ({"default": Decimal("0.5"), "water": 50}, limits(500, 50)),
        ({"water": 7}, Limit({"water": 7}, {})),
        ({}, Limit({}, {})),
        ({"actors": {"actor-1": {"energy": 1}}}, Limit({}, {"actor-1": {"energy": 1_000}})),
        (
            {"default": 0, "actors": {"actor-2": {"energy": 1, "water": 2}}},
            limits(0, 0, **{"actor-2": {"energy": 1_000, "water": 2}}),
        ),
    ],
)
def test_limit_is_a_number_or_by_resource_and_actor(written, limit):
    for name in ("max_transfer", "epoch_quota", "hold_above"):
        assert getattr(read({name: written}), name) == limit


def test_minimum_is_0_where_it_is_not_said():
    assert read({"min_balance": {"water": 7}}).min_balance == limits(0, 7)
    own = {"actor-1": {"water": 3}}
    assert read({"min_balance": {"actors": own}}).min_balance == Limit({"energy": 0, "water": 0}, own)


def test_counts_and_automatic_pauses_are_read():
    found = read(
        {
            "max_transfers_per_proposal": 0,
            "hold_epochs": 3,
            "auto_pause": {"refused_in_a_row": 5, "moved_per_epoch": {"energy": Decimal("0.5")}},
        }
    )
    assert (found.max_transfers_per_proposal, found.hold_epochs) == (0, 3)
    assert found.auto_pause == AutoPause(5, None, {"energy": 500})
    assert read({"auto_pause": {"unavailable_in_a_row": 1, "moved_per_epoch": 2}}).auto_pause == AutoPause(
        None, 1, {"energy": 2_000, "water": 2}
    )


@pytest.mark.parametrize(
    ("written", "path", "message"),
    [
        ([], (), "expected a mapping"),
        ({"max_tranfer": 5}, ("max_tranfer",), "unknown constraint 'max_tranfer'; did you mean 'max_transfer'"),
        ({"xyz": 5}, ("xyz",), "unknown constraint 'xyz'; expected one of: max_transfer, "),
        ({3: 5}, (3,), "unknown constraint 3; "),
        ({"max_transfer": "5"}, ("max_transfer",), "expected a number"),
        ({"max_transfer": [5]}, ("max_transfer",), "expected a number"),
        ({"max_transfer": {"enrgy": 5}}, ("max_transfer", "enrgy"), "unknown resource 'enrgy'; did you mean 'energy'"),
        ({"max_transfer": {"energy": -5}}, ("max_transfer", "energy"), "-5 is below 0"),
        ({"max_transfer": {"default": True}}, ("max_transfer", "default"), "expected a number"),
        ({"max_transfer": {"default": "5", "energy": 1, "water": 2}}, ("max_transfer", "default"), "expected a number"),
        ({"max_transfer": {"default": -5, "energy": 1, "water": 2}}, ("max_transfer", "default"), "-5 is below 0"),
        ({"max_transfer": {"actors": 5}}, ("max_transfer", "actors"), "expected {<actor>: {<resource>: n}}, not 5"),
        (
            {"max_transfer": {"actors": {"x": {}}}},
            ("max_transfer", "actors", "x"),
            "unknown actor 'x'; expected one of",
        ),
        (
            {"max_transfer": {"actors": {"actor-1": 5}}},
            ("max_transfer", "actors", "actor-1"),
            "expected {<resource>: n}, not 5",
        ),
        (
            {"max_transfer": {"actors": {"actor-1": {"gold": 5}}}},
            ("max_transfer", "actors", "actor-1", "gold"),
            "unknown resource 'gold'",
        ),
        (
            {"max_transfer": {"actors": {"actor-1": {"water": Decimal("0.5")}}}},
            ("max_transfer", "actors", "actor-1", "water"),
            "0.5 has more decimals than water",
        ),
        ({"hold_epochs": 0}, ("hold_epochs",), "expected a whole number from 1, not 0"),
        ({"hold_epochs": True}, ("hold_epochs",), "expected a whole number from 1, not True"),
        ({"hold_epochs": Decimal(1)}, ("hold_epochs",), "expected a whole number from 1"),
        ({"hold_epochs": 10**9}, ("hold_epochs",), "expected a whole number from 1"),
        ({"max_transfers_per_proposal": -1}, ("max_transfers_per_proposal",), "expected a whole number from 0"),
        ({"auto_pause": 5}, ("auto_pause",), "expected a mapping"),
        ({"auto_pause": {"refused": 5}}, ("auto_pause", "refused"), "unknown key 'refused'"),
        ({"auto_pause": {"refused_in_a_row": 0}}, ("auto_pause", "refused_in_a_row"), "expected a whole number from 1"),
        (
            {"auto_pause": {"moved_per_epoch": {"gold": 0}}},
            ("auto_pause", "moved_per_epoch", "gold"),
            "unknown resource 'gold'",
        ),
    ],
)
def test_constraints_that_are_wrong_say_where_and_why(written, path, message):
    with pytest.raises(BadInput) as refused:
        read(written)
    assert refused.value.path == ("constraints", *path)
    assert str(refused.value).startswith(message)


def test_lists_some_of_many_names():
    with pytest.raises(BadInput, match=r"expected one of: n0, n1, n2, n3, n4, n5, n6, n7, \.\.\.$"):
        wire.known("other", [f"n{i}" for i in range(9)], "name", ())
    with pytest.raises(BadInput, match=r"expected one of: n0, .*, n7$"):
        wire.known("other", [f"n{i}" for i in range(8)], "name", ())


@given(strategies.constraints_in_units)
def test_constraints_bind_as_they_were_written_and_come_back(written):
    resources, actors = strategies.RESOURCES, (*FOUNDERS, LATER)
    found = wire.constraints_from_json(written, resources, actors)
    oracle = Oracle([], SCALES, written, [], 0)
    for actor in actors:
        for resource, scale in SCALES.items():
            for name in wire.LIMITS:
                limit = getattr(found, name)
                minor = None if limit is None else limit.of(actor, resource)
                expected = oracle.limit(name, actor, resource)
                assert minor == (None if expected is None else expected * 10**scale)
    shown = json.loads(json.dumps(wire.constraints_json(found, resources)), parse_float=Decimal)
    assert wire.constraints_from_json(shown, resources, actors) == found


def test_constraints_are_written_as_short_as_they_can_be():
    constraints = Constraints(
        max_transfer=limits(50_000, 50),
        min_balance=limits(500, 0),
        epoch_quota=Limit({"water": 7}, {}),
        hold_above=limits(1_500, 1, **{"actor-1": {"energy": 250}}),
        max_transfers_per_proposal=0,
        hold_epochs=3,
        auto_pause=AutoPause(refused_in_a_row=2, moved_per_epoch={"energy": 500}),
    )
    assert wire.constraints_json(constraints, RESOURCES) == {
        "max_transfer": 50,
        "min_balance": {"energy": 0.5, "water": 0},
        "epoch_quota": {"water": 7},
        "hold_above": {"energy": 1.5, "water": 1, "actors": {"actor-1": {"energy": 0.25}}},
        "max_transfers_per_proposal": 0,
        "hold_epochs": 3,
        "auto_pause": {"refused_in_a_row": 2, "moved_per_epoch": {"energy": 0.5}},
    }
    unpaused = Constraints(auto_pause=AutoPause(unavailable_in_a_row=4))
    assert wire.constraints_json(unpaused, RESOURCES) == {"auto_pause": {"unavailable_in_a_row": 4}}


# --- WorldState, transfers, violations, decisions ---------------------------------------------------------------------


def test_world_state_is_that_of_the_design():
    energy, water, credit = Resource("energy", "kWh", 0), Resource("water", "m3", 0), Resource("credits", "credit", 2)
    world = WorldState(
        42,
        1_740_744_000_000_000,
        (ActorView("actor-1", "node", {"energy": 100, "water": 50}, {}, False),),
        (energy, water, credit),
        Constraints(
            max_transfer=Limit({"energy": 50, "water": 50, "credits": 5_000}, {}),
            min_balance=Limit({"energy": 10, "water": 10, "credits": 1_000}, {}),
        ),
    )
    assert wire.world_state_json(world) == {
        "epoch": 42,
        "timestamp": "2025-02-28T12:00:00Z",
        "actors": [{"id": "actor-1", "type": "node", "balances": {"energy": 100, "water": 50}}],
        "resources": ["energy", "water", "credits"],
        "constraints": {"max_transfer": 50, "min_balance": 10},
    }


def test_world_state_has_more_only_where_there_is_more():
    view = ActorView("a", "node", {"energy": 1_500}, {"energy": 1}, True)
    world = WorldState(1, 0, (view,), tuple(RESOURCES.values()), Constraints(), True)
    found = wire.world_state_json(world)
    assert found["actors"] == [
        {"id": "a", "type": "node", "balances": {"energy": 1.5}, "needs": {"energy": 0.001}, "frozen": True}
    ]
    assert found["paused"] is True


@pytest.mark.parametrize(
    ("resource", "amount", "shown"),
    [
        ("energy", 12_500, 12.5),
        ("energy", -1, -0.001),
        ("water", 7, 7),
        ("energy", 10**15 - 1, 999999999999.999),
        ("energy", 10**15, "1000000000000"),
        ("energy", -(10**15) - 1, "-1000000000000.001"),
        ("energy", Decimal("0.00010"), "0.0001"),
        ("gold", Decimal("1.50"), "1.5"),
        ("gold", 3, 3),
    ],
)
def test_transfer_is_in_units_and_text_where_a_number_would_not_be_exact(resource, amount, shown):
    expected = {"from": "a", "to": "b", "resource": resource, "amount": shown}
    found = wire.transfer_json(Transfer("a", "b", resource, amount), RESOURCES)
    assert found == expected
    assert type(found["amount"]) is type(shown)
    if isinstance(amount, int) and resource == "energy":
        assert Fraction(Decimal(str(found["amount"]))) == Fraction(amount, 1000)


@pytest.mark.parametrize(
    ("violation", "shown"),
    [
        (Violation(Code.PAUSED, ""), {"code": "paused", "path": ""}),
        (
            Violation(Code.TOO_MANY_TRANSFERS, "transfers", 2, 3),
            {"code": "too_many_transfers", "path": "transfers", "limit": 2, "actual": 3},
        ),
        (
            Violation(Code.MIN_BALANCE, "transfers[0].amount", 0, 1_500, "energy"),
            {"code": "min_balance", "path": "transfers[0].amount", "limit": 0, "actual": 1.5},
        ),
        (
            Violation(Code.OUT_OF_RANGE, "transfers[0].amount", 10**15 - 1, 10**15, "energy"),
            {
                "code": "out_of_range",
                "path": "transfers[0].amount",
                "limit": 999999999999.999,
                "actual": "1000000000000",
            },
        ),
        (
            Violation(Code.PRECISION, "transfers[0].amount", 3, "0.0001"),
            {"code": "precision", "path": "transfers[0].amount", "limit": 3, "actual": "0.0001"},
        ),
        (
            Violation(Code.UNKNOWN_RESOURCE, "transfers[0].resource", None, "gold"),
            {"code": "unknown_resource", "path": "transfers[0].resource", "actual": "gold"},
        ),
        (
            Violation(Code.MAX_TRANSFER, "", 1, 2, "gone"),
            {"code": "max_transfer", "path": "", "limit": 1, "actual": 2},
        ),
    ],
)
def test_violation_is_in_units_where_it_speaks_of_amounts(violation, shown):
    assert wire.violation_json(violation, RESOURCES) == shown


def test_decision_tells_what_was_asked_and_what_became_of_it():
    asked = (Transfer("a", "b", "energy", 12_500),)
    decision = Decision("id", "planner", 2, "ab", asked, "because", Outcome.EXECUTED, entries=(7,))
    shown = {
        "proposal_id": "id",
        "proposer": "planner",
        "n": 2,
        "outcome": "executed",
        "transfers": [{"from": "a", "to": "b", "resource": "energy", "amount": 12.5}],
        "reasoning": "because",
        "violations": [],
        "entries": [7],
    }
    assert wire.decision_json(decision, RESOURCES) == shown
    more = decision._replace(
        outcome=Outcome.HELD,
        violations=(Violation(Code.PAUSED, ""),),
        granted=(250,),
        held_until=0,
        state_moved=True,
        fault="quota",
        detail="429",
    )
    assert wire.decision_json(more, RESOURCES) == shown | {
        "outcome": "held",
        "violations": [{"code": "paused", "path": ""}],
        "granted": [{"from": "a", "to": "b", "resource": "energy", "amount": 0.25}],
        "held_until": 0,
        "state_moved": True,
        "fault": {"code": "quota", "detail": "429"},
    }


@given(strategies.decisions())
def test_every_decision_can_be_written_as_json(decision):
    text = json.dumps(wire.decision_json(decision, RESOURCES), allow_nan=False)
    assert json.loads(text)["proposal_id"] == decision.proposal_id
