"""What a record's text and digest are, recomputed here with hashlib and json alone; and that nothing is lost in it."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gridgov.engine import Engine
from gridgov.flows import Request
from gridgov.journal import (
    NOT_A_RECORD,
    START,
    Close,
    Control,
    Decision,
    Flow,
    Genesis,
    Reading,
    Registration,
    canonical,
    constraints_from,
    constraints_payload,
    decode,
    digest,
    encode,
    proposal_digest,
    seal,
    transfers_text,
)
from gridgov.ledger import MemoryLedger
from gridgov.model import Actor, Constraints, Kind, Limit, Outcome, Proposal, Resource, Transfer
from tests import strategies

ROOT = Path(__file__).resolve().parent.parent


def chained(previous, body):
    """The digest as section 7 of the design defines it."""
    return hashlib.sha256(b"gridgov/1\n" + previous + body.encode()).digest()


def plainly(value):
    """A decimal in plain text, without trailing zeros; with an exponent beyond 40 places."""
    if isinstance(value, int):
        return value
    sign, digits, power = value.as_tuple()
    while digits and digits[-1] == 0:
        digits, power = digits[:-1], power + 1
    if not digits:
        return "0"
    if power < -40 or len(digits) + power > 41:
        return ("-" if sign else "") + "".join(map(str, digits)) + f"E{power}"
    text = format(Decimal((sign, digits, power)), "f")
    return text


def sorted_json(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


# --- digests ----------------------------------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32), strategies.texts)
def test_digest_is_of_the_version_the_digest_before_and_the_body(previous, body):
    assert digest(previous, body) == chained(previous, body)


def test_chain_starts_from_32_zero_bytes():
    assert START == b"\0" * 32


def test_digest_of_a_tiny_journal_never_changes():
    genesis = Genesis(
        7,
        1_470_006_000_000_000,
        3_600_000_000,
        (Actor("grid", "boundary"), Actor("actor-1", "node")),
        (Resource("energy", "kWh", 3),),
        Constraints(
            max_transfer=Limit({"energy": 5000}, {"actor-1": {"energy": 1}}), min_balance=Limit({"energy": 0}, {})
        ),
        (("actor-1", "energy", 12_500),),
        {"name": "⚡"},
    )
    decision = Decision(
        "8698e6c0-5058-55c0-baba-fb8660dc9149",
        "planner",
        1,
        "ab" * 32,
        (Transfer("actor-1", "actor-2", "energy", 1), Transfer("actor-1", "actor-2", "gold", Decimal("0.50"))),
        'because "so"\n',
        Outcome.NOOP,
    )
    bodies = [
        '{"at":1470006000000000,"epoch":0,"kind":"genesis","payload":{"actors":[{"id":"grid","type":"boundary"},'
        '{"id":"actor-1","type":"node"}],"constraints":{"hold_epochs":24,"max_transfer":{"by_actor":{"actor-1":'
        '{"energy":1}},"by_resource":{"energy":5000}},"min_balance":{"by_actor":{},"by_resource":{"energy":0}}},'
        '"epoch_length":3600000000,"opening":[["actor-1","energy",12500]],"resources":[{"name":"energy","scale":3,'
        '"unit":"kWh"}],"scenario":{"name":"⚡"},"seed":7,"start":1470006000000000},"seq":1}',
        '{"at":1470006000000001,"epoch":1,"kind":"proposal","payload":{"entries":[],"input":"' + "ab" * 32 + '",'
        '"n":1,"outcome":"noop","proposal_id":"8698e6c0-5058-55c0-baba-fb8660dc9149","proposer":"planner",'
        '"reasoning":"because \\"so\\"\\n","transfers":[{"amount":1,"from":"actor-1",'
        '"resource":"energy","to":"actor-2"},'
        '{"amount":"0.5","from":"actor-1","resource":"gold","to":"actor-2"}],"violations":[]},"seq":2}',
        '{"at":1470009600000000,"epoch":1,"kind":"close","payload":{"boundary":{"energy":-12500},"collapsed":false,'
        '"entries":1},"seq":3}',
    ]
    first = seal(START, 1, 0, 1_470_006_000_000_000, genesis)
    second = seal(first.digest, 2, 1, 1_470_006_000_000_001, decision)
    third = seal(second.digest, 3, 1, 1_470_009_600_000_000, Close(1, {"energy": -12_500}))
    assert [record.body for record in (first, second, third)] == bodies
    assert third.digest == chained(chained(chained(START, bodies[0]), bodies[1]), bodies[2])
    assert third.digest.hex() == "d914f584e815aa10a2e9d72c28ce283e2baf30fb92e27d81c03bbe915b9d485f"


HASHED = """
from gridgov.engine import Engine
from tests.test_journal import story

engine = Engine(story())
print(engine.state.seq, engine.state.digest.hex(), repr(engine.state.world_state()))
"""


def story():
    """A ledger in which sets, dictionaries and repeated keys had their chance to come out in another order."""
    names = [f"actor-{n}" for n in range(20)]
    engine = Engine(MemoryLedger())
    limits = Limit({"energy": 30, "water": 40}, {name: {"water": 10, "energy": 15} for name in reversed(names)})
    genesis = Genesis(
        1,
        0,
        10,
        (Actor("grid", "boundary"), *(Actor(name, "node") for name in names)),
        (Resource("energy", "kWh", 0), Resource("water", "m3", 0)),
        Constraints(max_transfer=limits, hold_above=Limit({"energy": 12}, {})),
        tuple((name, resource, 50) for name in names for resource in ("water", "energy")),
        {"b": {"z": 1, "a": [None, True]}, "a": "⚡"},
    )
    engine.append(genesis, 0)
    for n, name in enumerate(names):
        to = names[n - 1]
        transfers = (
            Transfer(name, to, "energy", 9 + n),
            Transfer(name, to, "water", 5),
            Transfer(to, name, "energy", 1),
        )
        engine.propose(Proposal(f"id-{n}", f"proposer-{n % 3}", 1, transfers, "because"), n)
    engine.take("load", [Request(name, "water", n) for n, name in enumerate(names)], 30)
    engine.close(40)
    return engine.ledger


def test_digest_is_the_same_under_another_hash_seed():
    found = set()
    for seed in ("0", "1", "4242"):
        made = subprocess.run(
            [sys.executable, "-c", HASHED],
            cwd=ROOT,
            env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(made.stdout)
    assert len(found) == 1
    assert found.pop().startswith("23 ")


# --- canonical text ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [None, True, False]}, '{"a":[null,true,false],"b":1}'),
        ({"é": "⚡", "z": "\u2028"}, '{"z":"\u2028","é":"⚡"}'),
        ([Decimal("12.50"), Decimal("-0"), 10**20], '["12.5","0",100000000000000000000]'),
        ((1, ("x",)), '[1,["x"]]'),
        ("\x00\x1f\"\\/", '"\\u0000\\u001f\\"\\\\/"'),
        ({}, "{}"),
    ],
)  # fmt: skip
def test_canonical_text_is_sorted_and_has_no_spaces(value, text):
    assert canonical(value) == text


@pytest.mark.parametrize(
    "value", [1.5, 0.0, [1, 2.0], {"a": {"b": float("nan")}}, {1: 2}, {None: 1}, {"a": b"x"}, {"a"}, object()]
)
def test_canonical_text_refuses_what_has_more_than_one_form(value):
    with pytest.raises(TypeError):
        canonical(value)


@pytest.mark.parametrize("value", [1.5, {"deep": [0.1]}, {"x": {2: 3}}])
def test_scenario_in_the_genesis_has_one_form_as_well(value):
    genesis = Genesis(1, 0, 1, (), (), Constraints(), (), {"value": value})
    with pytest.raises(TypeError):
        encode(genesis)


@given(strategies.payloads)
def test_text_of_every_payload_is_canonical(payload):
    text = encode(payload)
    assert text == sorted_json(json.loads(text))


@given(strategies.decisions())
@example(Decision("id", "".join(strategies.NASTY), 1, "", (), "".join(strategies.NASTY), Outcome.NOOP))
def test_decision_written_by_hand_is_as_json_writes_it(decision):
    expected = {
        "proposal_id": decision.proposal_id,
        "proposer": decision.proposer,
        "n": decision.n,
        "input": decision.input,
        "transfers": [
            {"from": t.actor_from, "to": t.actor_to, "resource": t.resource, "amount": plainly(t.amount)}
            for t in decision.transfers
        ],
        "reasoning": decision.reasoning,
        "outcome": decision.outcome.value,
        "violations": [
            {"code": v.code.value, "path": v.path}
            | {key: found for key in ("limit", "actual", "resource") if (found := getattr(v, key)) is not None}
            for v in decision.violations
        ],
        "entries": list(decision.entries),
    }
    if decision.granted is not None:
        expected["granted"] = [plainly(amount) for amount in decision.granted]
    if decision.held_until is not None:
        expected["held_until"] = decision.held_until
    if decision.state_moved:
        expected["state_moved"] = True
    expected |= {key: found for key in ("fault", "detail") if (found := getattr(decision, key))}
    assert encode(decision) == sorted_json(expected)


@pytest.mark.parametrize("nasty", strategies.NASTY)
def test_no_text_breaks_out_of_where_it_stands(nasty):
    transfer = Transfer(nasty, nasty, nasty, 1)
    decision = Decision(nasty, nasty, 1, "", (transfer,), nasty, Outcome.MALFORMED, fault=nasty, detail=nasty)
    found = json.loads(encode(decision))
    assert {found[key] for key in ("proposal_id", "proposer", "reasoning")} == {nasty}
    assert found["transfers"] == [{"from": nasty, "to": nasty, "resource": nasty, "amount": 1}]
    assert {found.get("fault", ""), found.get("detail", "")} == {nasty}


def test_lone_surrogate_has_no_digest():
    with pytest.raises(UnicodeEncodeError):
        seal(START, 1, 1, 0, Control(True, "\ud800"))
    with pytest.raises(UnicodeEncodeError):
        proposal_digest((), "\udfff")


# --- there and back ---------------------------------------------------------------------------------------------------


@given(
    strategies.payloads,
    st.binary(min_size=32, max_size=32),
    st.integers(2),
    st.integers(0),
    st.integers(-(10**15), 10**18),
)
def test_record_comes_back_from_its_text(payload, previous, seq, epoch, at):
    record = seal(previous, 1 if isinstance(payload, Genesis) else seq, epoch, at, payload)
    again = decode(record.body, record.digest)
    assert again == record
    assert type(again.payload) is type(payload)
    assert seal(previous, again.seq, again.epoch, again.at, again.payload) == record


def test_records_can_go_to_another_process():
    for record in story().records():
        assert pickle.loads(pickle.dumps(record)) == record
    assert pickle.loads(pickle.dumps(Registration())) == Registration((), {}, {}, "", "")


@given(strategies.any_constraints)
def test_constraints_come_back_from_their_payload(constraints):
    assert constraints_from(json.loads(canonical(constraints_payload(constraints)))) == constraints


def test_kind_of_a_flow_is_one_of_entries_or_need():
    record = seal(START, 2, 1, 0, Flow(Kind.PRODUCE, "pv", (Reading("a", "energy", 5, 5, 1),)))
    assert record.kind == "flow"
    assert '"kind":"produce"' in record.body
    assert decode(record.body, record.digest) == record


# --- inputs -----------------------------------------------------------------------------------------------------------


@given(strategies.tuples_of(strategies.transfers, max_size=3), strategies.texts)
def test_input_is_what_was_asked_and_why(transfers, reasoning):
    plain = [
        {"from": t.actor_from, "to": t.actor_to, "resource": t.resource, "amount": plainly(t.amount)} for t in transfers
    ]
    text = sorted_json({"reasoning": reasoning, "transfers": plain})
    assert proposal_digest(transfers, reasoning) == hashlib.sha256(text.encode()).hexdigest()
    assert transfers_text(transfers) == sorted_json(plain)


ONE = Transfer("a", "b", "energy", 1)


@pytest.mark.parametrize(
    ("transfers", "reasoning"),
    [
        ((ONE._replace(amount=2),), "because"),
        ((ONE._replace(amount=Decimal(1)),), "because"),
        ((ONE._replace(resource="water"),), "because"),
        ((ONE._replace(actor_from="b", actor_to="a"),), "because"),
        ((ONE._replace(actor_from='a","to":"b'),), "because"),
        ((ONE, ONE), "because"),
        ((), "because"),
        ((ONE,), "Because"),
    ],
)
def test_other_inputs_have_other_digests(transfers, reasoning):
    assert proposal_digest(transfers, reasoning) != proposal_digest((ONE,), "because")


# --- what is no record ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "null",
        '"x"',
        "{}",
        '{"at":0,"epoch":1,"kind":"close","payload":{"entries":1,"boundary":{}}}',
        '{"at":0,"epoch":1,"kind":"nothing","payload":{},"seq":2}',
        '{"at":0,"epoch":1,"kind":[],"payload":{},"seq":2}',
        '{"at":0,"epoch":1,"kind":"close","payload":{"entries":1},"seq":2}',
        '{"at":0,"epoch":1,"kind":"close","payload":{"boundary":{},"entries":1,"more":1},"seq":2}',
        '{"at":0,"epoch":1,"kind":"control","payload":[],"seq":2}',
        '{"at":0,"epoch":1,"kind":"control","payload":{"paused":true},"seq":true}',
        '{"at":0.5,"epoch":1,"kind":"control","payload":{"paused":true},"seq":2}',
        '{"at":0,"epoch":"1","kind":"control","payload":{"paused":true},"seq":2}',
        '{"at":0,"epoch":1,"kind":"control","payload":{"paused":true},"seq":1}',
        '{"at":0,"epoch":1,"kind":"genesis","payload":{},"seq":2}',
        '{"at":0,"epoch":1,"kind":"registration","payload":{"actors":[],"mandates":[]},"seq":2}',
        '{"at":0,"epoch":1,"kind":"flow","payload":{"kind":"produce","name":"","readings":[[1]]},"seq":2}',
        '{"at":0,"epoch":1,"kind":"proposal","payload":{"transfers":[{"amount":"x","from":"","resource":"","to":""}]},"seq":2}',
        '{"at":0,"epoch":1,"kind":"settlement","payload":{"outcome":"maybe","violations":[],"entries":[]},"seq":2}',
        '{"at":0,"epoch":1,"kind":"settlement","payload":{"outcome":"rejected","violations":[{"code":"x"}],"entries":[]},"seq":2}',
        "[" * 100_000,
        "1" * 5_000,
    ],
)  # fmt: skip
def test_decoding_what_is_no_record_fails_in_a_known_way(body):
    with pytest.raises(NOT_A_RECORD):
        decode(body, START)
