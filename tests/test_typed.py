"""A journal that anybody may have written: a right chain over wrong content is damage, to whatever command reads it."""

import json

import pytest

from gridgov.diff import diff
from gridgov.errors import Damaged
from gridgov.explain import explain
from gridgov.export import write_journal
from gridgov.journal import NOT_A_RECORD, START, Genesis, canonical, decode, digest
from gridgov.model import AutoPause, Constraints, Limit
from gridgov.replay import chain, replay
from gridgov.source import open_source
from gridgov.statement import ALWAYS, of_source
from gridgov.typed import check, unknown_resource
from gridgov.verify import verify
from tests import worlds

NOTHING = {"no": 1.5}
"""What is right nowhere: canonical JSON has no such number."""


@pytest.fixture(scope="module")
def bodies():
    """One record of each kind, and several of some."""
    return [json.loads(record.body) for record in worlds.everything()[1].records]


def chained(bodies):
    """Lines whose chain is right, whatever the bodies say."""
    previous, lines = START, []
    for body in bodies:
        text = body if isinstance(body, str) else json.dumps(body, sort_keys=True, separators=(",", ":"))
        previous = digest(previous, text)
        lines.append((text, previous))
    return lines


def leaves(value, path=()):
    """The paths of everything in a document."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for step, own in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(own, (*path, step))


def changed(body, path, value):
    body = json.loads(json.dumps(body))
    place = body
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return body


def first(bodies, kind, **said):
    """Where the first record of a kind stands that says this."""
    return next(i for i, b in enumerate(bodies) if b["kind"] == kind and said.items() <= b["payload"].items())


def test_every_kind_of_record_is_what_it_says(bodies):
    assert len({body["kind"] for body in bodies}) == 11
    assert len(list(chain(chained(map(canonical, bodies))))) == len(bodies)


def test_refuses_whatever_is_of_another_type_anywhere(bodies):
    tried = 0
    for index, body in enumerate(bodies):
        if body in bodies[:index]:
            continue
        for path in leaves(body):
            with pytest.raises(NOT_A_RECORD):
                check(decode(json.dumps(changed(body, path, NOTHING)), b""))
            tried += 1
    assert tried > 400


@pytest.mark.parametrize(
    ("kind", "path", "value", "why"),
    [
        ("genesis", ("at",), 10**18, "years 1 to 9999"),
        ("genesis", ("payload", "resources", 0, "scale"), 7, r"scale is 7; expected 0 to 6"),
        ("genesis", ("payload", "opening", 0, 2), "5", r"payload.opening\[0\]\[2\] is '5'; expected a whole number"),
        ("genesis", ("payload", "opening", 0, 2), 10**40, "at most 40 digits"),
        ("proposal", ("payload", "transfers", 1, "amount"), 10**40, r"transfers\[1\].amount is 1000"),
        ("genesis", ("payload", "opening", 0), ["actor-1", "energy"], "a list of 3"),
        ("genesis", ("payload", "epoch_length"), None, "payload.epoch_length is None; expected a whole number"),
        ("genesis", ("payload", "scenario"), {"storage": [["actor-1", "gold", 1]]}, r"scenario.storage\[0\]"),
        ("genesis", ("payload", "scenario"), {"opening": ["x"]}, r"scenario.opening\[0\]"),
        ("genesis", ("payload", "scenario"), {"opening": "x"}, r"scenario.opening is 'x'; expected a list"),
        ("genesis", ("payload", "scenario"), {"constraints": 5}, r"scenario.constraints\[0\]"),
        ("genesis", ("payload", "scenario"), {"constraints": [{"epoch": 1, "min_balance": 3}]}, "their epoch"),
        ("genesis", ("payload", "scenario"), {"constraints": [{"epoch": 1, "hold_epochs": "x"}]}, "hold_epochs"),
        ("genesis", ("payload", "scenario"), {"commons": {"actor": "nobody", "resource": "energy"}}, "commons"),
        ("proposal", ("payload", "reasoning"), ["x"], r"payload.reasoning is \['x'\]; expected text"),
        ("proposal", ("payload", "proposer"), "\ud800", "surrogate"),
        ("proposal", ("payload", "transfers", 0, "amount"), "NaN", "expected a number"),
        ("proposal", ("payload", "transfers", 0, "amount"), True, "amount is True"),
        ("proposal", ("payload", "n"), True, "payload.n is True; expected a whole number"),
        ("close", ("payload", "collapsed"), 0, "payload.collapsed is 0; expected true or false"),
        ("close", ("payload", "boundary"), [], "expected a mapping"),
    ],
)
def test_says_where_a_record_is_not_what_it_says(bodies, kind, path, value, why):
    index = first(bodies, kind)
    with pytest.raises(Damaged, match=why):
        list(chain(chained([*bodies[:index], changed(bodies[index], path, value)])))


def test_takes_text_that_only_looks_like_half_of_a_surrogate_pair(bodies):
    body = changed(bodies[0], ("payload", "resources", 0, "unit"), "\\ud800")
    [record] = chain(chained([body]))
    assert isinstance(record.payload, Genesis)
    assert record.payload.resources[0].unit == "\\ud800"


@pytest.mark.parametrize(
    "scenario",
    [
        {},
        {"commons": {"actor": "actor-1", "resource": "energy"}, "storage": [], "anything": ["else", 1, None]},
        {"opening": [["actor-1", "energy", 5]], "constraints": [{"epoch": 1, "hold_epochs": 2}], "commons": None},
    ],
)
def test_takes_a_genesis_that_says_little_of_its_scenario(bodies, scenario):
    [record] = chain(chained([changed(bodies[0], ("payload", "scenario"), scenario)]))
    assert isinstance(record.payload, Genesis)
    assert record.payload.scenario == scenario


ASTRAY = {
    "a settlement of nothing": ("settlement", ("payload", "proposal_id"), "nothing"),
    "an opening balance of nobody": ("genesis", ("payload", "opening", 0, 0), "nobody"),
    "an opening balance of gold": ("genesis", ("payload", "opening", 0, 1), "gold"),
    "a limit of gold": ("genesis", ("payload", "constraints", "max_transfer", "by_resource"), {"gold": 1}),
    "a limit of gold, later": ("constraints", ("payload", "constraints", "max_transfer", "by_resource"), {"gold": 1}),
    "a reading of nobody": ("flow", ("payload", "readings", 0, 0), "nobody"),
    "a transfer of gold": ("proposal", ("payload", "transfers", 0, "resource"), "gold"),
    "a transfer to nobody": ("proposal", ("payload", "transfers", 0, "to"), "nobody"),
    "too few entries": ("proposal", ("payload", "entries"), []),
    "a transfer of no whole amount": ("proposal", ("payload", "transfers", 0, "amount"), "1.5"),
}


@pytest.fixture(params=ASTRAY, ids=str)
def astray(request, bodies, tmp_path):
    """A journal whose chain and types are right, and in which one record cannot follow from those before."""
    kind, path, value = ASTRAY[request.param]
    index = first(bodies, kind)
    lines = chained([*bodies[:index], changed(bodies[index], path, value), *bodies[index + 1 :]])
    file = tmp_path / "astray.jsonl"
    file.write_text("".join(json.dumps({"body": b, "digest": d.hex()}) + "\n" for b, d in lines), encoding="utf-8")
    with open_source(str(file), tmp_path) as source:
        yield source


def test_what_cannot_follow_is_damage_to_whoever_reads_it(astray, bodies, tmp_path):
    write_journal(tmp_path / "right.jsonl", chain(chained(bodies)))
    last = [body["payload"]["proposal_id"] for body in bodies if body["kind"] == "proposal"][-1]
    with open_source(str(tmp_path / "right.jsonl"), tmp_path) as right:
        for read in (
            lambda: list(astray.world_states()),
            astray.world_state,
            lambda: replay(astray.records()),
            lambda: explain(astray, last),
            lambda: diff(right, astray),
            lambda: of_source(astray, "actor-1", ALWAYS),
        ):
            with pytest.raises(Damaged, match=r"journal record \d+ .*does not follow from the state before"):
                read()
    assert verify(astray).first is not None


@pytest.mark.parametrize(
    ("constraints", "place"),
    [
        (Constraints(), None),
        (Constraints(max_transfer=Limit({"energy": 1}, {"a": {"energy": 2}})), None),
        (Constraints(hold_above=Limit({"gold": 1}, {})), ".hold_above"),
        (Constraints(epoch_quota=Limit({}, {"a": {"gold": 2}})), ".epoch_quota.a"),
        (Constraints(auto_pause=AutoPause(moved_per_epoch={"gold": 2})), ".auto_pause"),
        (Constraints(auto_pause=AutoPause(refused_in_a_row=2)), None),
    ],
)
def test_finds_limits_of_resources_that_there_are_not(constraints, place):
    fault = unknown_resource(constraints, {"energy"})
    assert (None if fault is None else fault[0]) == place


def test_verify_finds_a_body_that_is_not_canonical(bodies, tmp_path):
    index = first(bodies, "close")
    for body in (
        json.dumps(bodies[index], sort_keys=True),
        json.dumps({**bodies[index], "payload": {"boundary": {}, "entries": 4}}, separators=(",", ":"), sort_keys=True),
    ):
        lines = chained([*map(canonical, bodies[:index]), body])
        file = tmp_path / "spaced.jsonl"
        file.write_text("".join(json.dumps({"body": b, "digest": d.hex()}) + "\n" for b, d in lines), encoding="utf-8")
        with open_source(str(file), tmp_path) as source:
            assert "is not the canonical text" in verify(source).first
