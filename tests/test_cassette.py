"""Cassettes: what is recorded is what is replayed, a miss says why, and no line is taken that was not written."""

import json
import os
import re
import shutil
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridgov.cassette import (
    DIFF_LINES,
    RETIRED,
    Cassette,
    CassetteProposer,
    Exchange,
    Recorder,
    Recording,
    check,
    edited,
    exchange_text,
    interaction_of,
    listing,
    overview,
    read,
    read_lines,
    recording,
    retired,
    step,
    synthetic_body,
)
from gridgov.engine import Engine
from gridgov.errors import BadInput, CassetteMiss, Damaged
from gridgov.flows import Request as Flowing
from gridgov.journal import Genesis, Registration
from gridgov.ledger import MemoryLedger
from gridgov.model import (
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
)
from gridgov.prompt import FOLDER, digest, load, render
from gridgov.propose import Answer, Context

RESOURCES = (Resource("energy", "kWh", 3), Resource("credits", "credit", 2))
CONSTRAINTS = Constraints(max_transfer=Limit({"energy": 2000}, {}), min_balance=Limit({"energy": 0, "credits": 0}, {}))
HOUR = 3_600_000_000
EPOCHS = 4
PROMPT = load("propose_transfer")
MODEL = "gemini-3.8-flash"


class Even:
    """A toy policy: gives whoever has least the half of what whoever has most has more, in odd amounts."""

    def rounds(self, epoch):
        return 1 if epoch != 3 else 2

    def propose(self, context):
        energy = {actor: had for actor, had in context.state.balances["energy"].items() if actor != "grid"}
        rich, poor = max(energy, key=energy.get), min(energy, key=energy.get)
        if energy[rich] - energy[poor] < 100 or context.round.n == 2:
            return Answer((), "all <even> & fair")
        given = (energy[rich] - energy[poor]) // 2
        return Answer(
            (Transfer(rich, poor, "energy", given), Transfer(poor, rich, "credits", 1)), f"\u202e{rich} → {poor}"
        )


def played(proposer, *, epochs=EPOCHS, constraints=CONSTRAINTS, more=0, actors=("a", "b", "c"), name="planner"):
    """A small grid under a proposer: its engine, and every answer."""
    engine = Engine(MemoryLedger())
    opening = tuple((a, r.name, 10_000 + 1237 * i) for i, a in enumerate(actors) for r in RESOURCES)
    listed = (Actor("grid", "boundary"), *(Actor(actor, "node") for actor in actors))
    engine.append(Genesis(1, 0, HOUR, listed, RESOURCES, constraints, opening, {}), 0)
    answers = []
    for epoch in range(1, epochs + 1):
        at = (epoch - 1) * HOUR
        engine.give(Kind.PRODUCE, "pv", [Flowing("a", "energy", 3001 + (more if epoch == 3 else 0))], at)
        for n in range(1, (proposer.rounds(epoch) or Even().rounds(epoch)) + 1):
            round_ = Round(epoch, name, n)
            answer = proposer.propose(Context(round_, engine.state))
            answers.append(answer)
            if isinstance(answer, Answer):
                proposal = Proposal(round_.proposal_id, name, n, *answer, engine.state.seen)
                engine.propose(proposal, at)
            else:
                engine.fail(round_.proposal_id, name, n, answer, at)
        engine.close(at + HOUR)
    return engine, answers


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A cassette of the toy policy, and what the run came to."""
    path = tmp_path_factory.mktemp("cassette") / "even.jsonl"
    with Recorder(path) as recorder:
        proposer = recording(Even(), "even", PROMPT, recorder)
        engine, answers = played(proposer)
    return path, engine, answers, proposer


def context(epoch=1, n=1, name="planner", **world):
    engine, _ = played(Even(), epochs=epoch - 1, **world)
    engine.give(Kind.PRODUCE, "pv", [Flowing("a", "energy", 3001)], (epoch - 1) * HOUR)
    return Context(Round(epoch, name, n), engine.state)


def line_of(body, *, origin="recorded", status=200, model=MODEL, epoch=1, **exchange):
    """An interaction with a reply of one's own."""
    asked = context(epoch)
    request = render(PROMPT, asked, model=model)
    return interaction_of(request, asked.round, Exchange(status, body, "2026-11-22T12:00:00Z", **exchange), origin)


# --- record and replay ------------------------------------------------------------------------------------------------


def test_replays_what_was_recorded_to_the_same_head(recorded):
    path, engine, answers, recording_ = recorded
    proposer = CassetteProposer(read(path))
    replayed, again = played(proposer)
    assert again == answers
    assert any(answer.transfers for answer in answers)
    assert replayed.state.digest == engine.state.digest == played(Even())[0].state.digest
    assert proposer.cassette.unused() == ()
    assert proposer.interactions == recording_.interactions
    assert proposer.rows == recording_.rows
    assert [row["line"] for row in proposer.rows] == path.read_text("utf-8").splitlines()


def test_records_the_same_file_from_the_same_run(recorded, tmp_path):
    with Recorder(tmp_path / "again.jsonl") as recorder:
        played(recording(Even(), "even", PROMPT, recorder))
    assert (tmp_path / "again.jsonl").read_bytes() == recorded[0].read_bytes()


def test_writes_one_sorted_line_for_each_interaction(recorded):
    lines = recorded[0].read_text("utf-8").splitlines()
    assert len(lines) == EPOCHS + 1
    for i, line in enumerate(lines):
        found = json.loads(line)
        assert list(found) == sorted(found)
        assert (found["origin"], found["model_asked"]) == ("synthetic", "synthetic/even")
        assert ("system" in found) == (i == 0)
        assert found["at"] == f"1970-01-01T0{found['round']['epoch'] - 1}:00:00Z"


def test_replays_under_another_proposers_name(recorded):
    assert played(CassetteProposer(read(recorded[0])), name="other")[1] == recorded[2]


@pytest.mark.parametrize(
    "amount", [0, 1, -1, 12_500, 10**15, Decimal("0.0000001"), Decimal("1e-400"), Decimal("1e300")]
)
@pytest.mark.parametrize("resource", ["energy", "nothing"])
def test_keeps_amounts_exact_in_a_synthetic_body(amount, resource):
    resources = {one.name: one for one in RESOURCES}
    answer = Answer((Transfer("a", "b", resource, amount),), 'a "quote", <b> & \\ \n')
    interaction = line_of(synthetic_body(answer, resources, "synthetic/x"))
    assert interaction.result(resources) == answer
    assert interaction.finish_reason == "STOP"


class Odd:
    """Answers as told."""

    def __init__(self, answer):
        self.answer = answer

    def rounds(self, epoch):
        return None

    def propose(self, context):
        return self.answer


@pytest.mark.parametrize("answer", [Unavailable("quota", ""), Malformed("truncated", "", b""), Answer((), "\0")])
def test_records_of_a_policy_only_what_a_model_could_say(answer, tmp_path):
    with pytest.raises(BadInput, match="odd"), Recorder(tmp_path / "x.jsonl") as recorder:
        played(recording(Odd(answer), "odd", PROMPT, recorder))
    assert list(tmp_path.iterdir()) == []


# --- live -------------------------------------------------------------------------------------------------------------

NOTHING = synthetic_body(Answer((), "no"), {}, MODEL)


class Model:
    """Stands in for a model: counts its calls, and answers as told, by epoch."""

    def __init__(self, **told):
        self.calls = []
        self.told = told

    def __call__(self, request, context):
        self.calls.append(context.round.epoch)
        found = self.told.get(f"epoch_{context.round.epoch}", NOTHING)
        if isinstance(found, BaseException):
            raise found
        if isinstance(found, Exchange):
            return found
        return Exchange(
            200, found, "2026-11-22T12:00:00Z", latency_ms=700, cost="0.0001", price_table="2026-11", sdk="x 1"
        )


BUSY = Exchange(429, b'{"error": {"status": "RESOURCE_EXHAUSTED"}}', "2026-11-22T12:00:00Z", attempts=3)
GONE = Exchange(None, b"", "2026-11-22T12:00:00Z", failure="timeout after 30 s")


def live(path, model, **options):
    with Recorder(path, resume=True) as recorder:
        proposer = Recording(model, PROMPT, recorder, model=MODEL, **options)
        return *played(proposer), proposer


def test_records_failures_and_broken_replies_too(tmp_path):
    path = tmp_path / "x.jsonl"
    model = Model(epoch_1=BUSY, epoch_2=GONE, epoch_3=b"\xff\xfe", epoch_4=b'{"modelVersion": "other"}')
    engine, answers, _ = live(path, model)
    assert [answer[0] for answer in answers] == ["quota", "transport", "bad_unicode", "bad_unicode", "no_answer"]
    replayed, again = played(CassetteProposer(read(path)))
    assert again == answers
    assert replayed.state.digest == engine.state.digest
    found = read(path).interactions
    assert [one.status for one in found] == [429, None, 200, 200, 200]
    assert found[1].failure == "timeout after 30 s"
    assert found[2].body == b"\xff\xfe"
    assert found[4].other_model
    assert not found[0].other_model


def test_goes_on_where_it_was_interrupted(tmp_path):
    path, part = tmp_path / "x.jsonl", tmp_path / "x.jsonl.part"
    died = Model(epoch_3=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        live(path, died)
    assert not path.exists()
    with part.open("ab") as file:
        file.write(b'{"half a line')
    model = Model()
    engine, answers, proposer = live(path, model)
    assert (died.calls, model.calls) == ([1, 2, 3], [3, 3, 4])
    assert not part.exists()
    assert len(proposer.interactions) == len(answers) == 5
    whole = Model()
    uninterrupted, _, _ = live(tmp_path / "y.jsonl", whole)
    assert engine.state.digest == uninterrupted.state.digest
    assert path.read_bytes() == (tmp_path / "y.jsonl").read_bytes()


def test_asks_nothing_again_that_is_recorded(tmp_path):
    path = tmp_path / "x.jsonl"
    live(path, Model(epoch_2=BUSY))
    before = path.read_bytes()
    model = Model()
    live(path, model)
    assert model.calls == []
    assert path.read_bytes() == before


def test_asks_again_what_failed_and_lets_the_new_line_supersede_it(tmp_path):
    path = tmp_path / "x.jsonl"
    live(path, Model(epoch_2=BUSY))
    model = Model()
    live(path, model, ask_again=True)
    assert model.calls == [2]
    cassette = read(path)
    assert cassette.interactions[-1].supersedes == cassette.interactions[1].digest
    replayed = played(CassetteProposer(cassette))[1]
    assert [answer.reasoning for answer in replayed] == ["no"] * 5
    assert cassette.unused() == ()


def test_writes_each_line_as_it_comes(tmp_path):
    lines = []

    def ask(request, context):
        lines.append((tmp_path / "x.jsonl.part").read_bytes().count(b"\n"))
        return Exchange(200, NOTHING, "2026-11-22T12:00:00Z")

    live(tmp_path / "x.jsonl", ask)
    assert lines == [0, 1, 2, 3, 4]


def test_does_not_write_over_what_a_model_said(recorded, tmp_path):
    path = tmp_path / "x.jsonl"
    live(path, Model())
    with pytest.raises(BadInput, match="more than a synthetic cassette"):
        Recorder(path)
    path.rename(tmp_path / "y.jsonl.part")
    with pytest.raises(BadInput, match="more than a synthetic cassette"):
        Recorder(tmp_path / "y.jsonl")
    shutil.copy(recorded[0], path)
    Recorder(path).stop()
    assert path.read_bytes() == recorded[0].read_bytes()
    path.write_text("notes\n", "utf-8")
    with pytest.raises(BadInput, match="more than a synthetic cassette"):
        Recorder(path)


@pytest.mark.parametrize("resume", [False, True])
def test_two_runs_never_record_into_one_file(tmp_path, resume):
    path = tmp_path / "x.jsonl"
    with Recorder(path, resume=True) as first:
        first.write(line_of(NOTHING, origin="synthetic"))
        with pytest.raises(BadInput, match="another run is recording into it"):
            Recorder(path, resume=resume)
        first.write(line_of(NOTHING, origin="synthetic", epoch=2))
    assert len(read(path).interactions) == 2
    Recorder(path, resume=resume).stop()


@pytest.mark.parametrize("copied", [0, 1, 2, 3])
def test_run_that_ends_while_it_copies_what_was_known_loses_nothing(tmp_path, copied):
    path, part = tmp_path / "x.jsonl", tmp_path / "x.jsonl.part"
    failed = line_of(BUSY.body, status=429)
    again = replace(line_of(NOTHING), supersedes=failed.digest, system=None)
    written(path, failed, again, replace(line_of(NOTHING, epoch=2), system=None))
    lines = path.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join(lines[:copied]) + b'{"at": ')
    with Recorder(path, resume=True) as recorder:
        assert len(recorder.known.interactions) == 3
        found = recorder.known.find(render(PROMPT, context(1), model=MODEL))
        assert found.status == 200, "the call that was made again counts"
    assert path.read_bytes() == b"".join(lines)


def test_whoever_comes_as_a_recording_is_put_in_its_place_begins_anew(tmp_path, monkeypatch):
    path = tmp_path / "x.jsonl"
    opened, first = os.open, Recorder(path)
    first.write(line_of(NOTHING, origin="synthetic"))

    def late(*args):
        monkeypatch.undo()
        file = opened(*args)
        first.finish()
        return file

    monkeypatch.setattr(os, "open", late)
    with Recorder(path, resume=True) as second:
        assert len(second.known.interactions) == 1, "what was finished in between is known, and was not emptied"
    assert len(read(path).interactions) == 1


@pytest.mark.parametrize("resume", [False, True])
def test_recording_is_not_let_go_before_it_is_in_its_place(tmp_path, monkeypatch, resume):
    path, put = tmp_path / "x.jsonl", os.replace
    first = Recorder(path)
    first.write(line_of(NOTHING))

    def late(*args):
        monkeypatch.undo()
        with pytest.raises(BadInput, match="another run is recording into it"):
            Recorder(path, resume=resume)
        put(*args)

    monkeypatch.setattr(os, "replace", late)
    first.finish()
    assert len(read(path).interactions) == 1 and not first.part.exists()


def test_recording_that_stops_takes_away_nobody_elses(tmp_path, monkeypatch):
    path, unlink = tmp_path / "x.jsonl", Path.unlink
    first = Recorder(path)

    def late(*args, **options):
        monkeypatch.undo()
        with pytest.raises(BadInput, match="another run is recording into it"):
            Recorder(path)
        unlink(*args, **options)

    monkeypatch.setattr(Path, "unlink", late)
    first.stop()
    first.stop()
    assert not list(tmp_path.iterdir())


def test_does_not_write_over_what_a_model_said_to_a_run_that_just_ended(tmp_path, monkeypatch):
    path = tmp_path / "x.jsonl"
    opened, first = os.open, Recorder(path)

    def late(*args):
        monkeypatch.undo()
        first.write(line_of(NOTHING))
        first.finish()
        return opened(*args)

    monkeypatch.setattr(os, "open", late)
    with pytest.raises(BadInput, match="more than a synthetic cassette"):
        Recorder(path)
    assert len(read(path).interactions) == 1 and not first.part.exists()


def test_says_where_it_cannot_write(tmp_path):
    with pytest.raises(BadInput, match="cannot be written"):
        Recorder(tmp_path / "no" / "x.jsonl")


# --- misses -----------------------------------------------------------------------------------------------------------


def missed(proposer, **world):
    with pytest.raises(CassetteMiss) as caught:
        played(proposer, **world)
    message = str(caught.value)
    assert "\n" not in message
    return caught.value.cause, message, caught.value.diff


def test_says_that_the_prompt_changed(recorded, tmp_path):
    folder = tmp_path / "prompts"
    shutil.copytree(FOLDER, folder)
    rules = folder / "_rules.j2"
    rules.write_text(rules.read_text("utf-8").replace("nobody can talk it out", "no one can talk it out"), "utf-8")
    cause, message, diff = missed(CassetteProposer(read(recorded[0]), folder=folder))
    assert cause == "prompt"
    assert (
        "even.jsonl has no reply for epoch 1, planner, round 1: the prompt template propose_transfer changed, and 5 of "
        "its 5 recordings (lines 1 to 5) are of what it was;" in message
    )
    assert "\n-You propose; a validator decides, by these rules alone, and nobody can" in diff
    assert "\n+You propose; a validator decides, by these rules alone, and no one can" in diff


def test_says_that_it_is_another_prompt(recorded):
    cause, message, _ = missed(CassetteProposer(read(recorded[0]), prompt=load("speak_for_actor")))
    assert cause == "prompt"
    assert "the prompt is speak_for_actor, and propose_transfer was recorded" in message


def test_says_from_which_epoch_the_world_differs(recorded):
    cause, message, diff = missed(CassetteProposer(read(recorded[0])), more=1)
    assert cause == "world_state"
    assert "has no reply for epoch 3," in message
    assert "the world state differs (first divergent epoch 3);" in message
    assert "the nearest recording is line 3;" in message
    changed = [line for line in diff.splitlines()[2:] if line[0] in "+-"]
    assert len(changed) == 2
    assert all('"energy":' in line for line in changed)


def test_says_that_the_constraints_differ(recorded):
    tighter = CONSTRAINTS._replace(max_transfer=Limit({"energy": 1999}, {}))
    cause, message, diff = missed(CassetteProposer(read(recorded[0])), constraints=tighter)
    assert (cause, "the constraints differ" in message) == ("constraints", True)
    assert '"max_transfer":{"energy":1.999}' in diff


def test_says_that_the_actors_differ(recorded):
    cause, message, _ = missed(CassetteProposer(read(recorded[0])), actors=("a", "b", "d"))
    assert cause == "schema"
    assert "also different: world state" in message


def test_says_that_the_model_differs(recorded):
    cause, message, diff = missed(CassetteProposer(read(recorded[0]), model=MODEL))
    assert (cause, diff) == ("model", "")
    assert "synthetic/even was recorded, gemini-3.8-flash is asked" in message


def test_says_that_the_parameters_differ(recorded):
    cause, _, _ = missed(CassetteProposer(read(recorded[0]), parameters={"seed": 1}))
    assert cause == "parameters"


def test_says_that_the_history_differs(recorded):
    asked = context()
    past = Engine.propose(played(Even(), epochs=0)[0], Proposal("x", "planner", 1, (), ""), 0)
    with pytest.raises(CassetteMiss) as caught:
        CassetteProposer(read(recorded[0])).propose(Context(asked.round, asked.state, None, (past,)))
    assert caught.value.cause == "history"


def test_says_that_whose_turn_it_is_differs(recorded):
    asked = context()
    asked.mandate = frozenset({"a", "b", "c"})
    with pytest.raises(CassetteMiss) as caught:
        CassetteProposer(read(recorded[0])).propose(asked)
    assert caught.value.cause == "asked"


def test_says_that_a_round_was_not_recorded(recorded):
    cause, message, _ = missed(CassetteProposer(read(recorded[0])), epochs=EPOCHS + 1)
    assert cause == "not_recorded"
    assert "for epoch 5, planner, round 1: this round was not recorded (the last epoch that was is 4)" in message


def test_says_that_it_was_asked_more_often_than_recorded(recorded):
    proposer = CassetteProposer(read(recorded[0]))
    proposer.propose(context())
    with pytest.raises(CassetteMiss, match="the same request was recorded once, and is asked again") as caught:
        proposer.propose(context())
    assert caught.value.cause == "sample"


def test_says_that_it_is_empty():
    with pytest.raises(CassetteMiss, match="it is empty"):
        CassetteProposer(Cassette(())).propose(context())


def test_says_so_where_only_the_text_differs(recorded):
    cassette = read(recorded[0])
    first = cassette.interactions[0]
    odd = replace(first, request_key="0" * 64, components={**first.components, "text": ""})
    with pytest.raises(CassetteMiss, match="though nothing that it is made of does"):
        CassetteProposer(Cassette((odd,))).propose(context())


def test_cuts_a_long_difference(recorded):
    far = played(CassetteProposer(read(recorded[0])), epochs=0, actors=[f"home-{i}" for i in range(100)])[0]
    with pytest.raises(CassetteMiss) as caught:
        CassetteProposer(read(recorded[0])).propose(Context(Round(1, "planner", 1), far.state))
    lines = caught.value.diff.splitlines()
    assert len(lines) == DIFF_LINES + 1
    assert re.fullmatch(r"\.\.\. and \d+ lines more", lines[-1])


def test_names_the_prompts_there_are_where_the_recorded_one_is_gone(recorded):
    elsewhere = replace(line_of(NOTHING), prompt="../elsewhere.j2")
    with pytest.raises(BadInput, match="unknown prompt"):
        CassetteProposer(Cassette((elsewhere,))).propose(context())


def test_knows_what_nobody_asked_for(recorded):
    cassette = read(recorded[0])
    played(CassetteProposer(cassette), epochs=2)
    assert [(one.round.epoch, one.round.n) for one in cassette.unused()] == [(3, 1), (3, 2), (4, 1)]


# --- damage -----------------------------------------------------------------------------------------------------------


def resealed(line, **changed):
    """A line with changed fields and a digest that fits them."""
    found = {**json.loads(line), **changed}
    found = {key: own for key, own in found.items() if own is not ... and key != "digest"}
    text = json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    found["digest"] = digest("gridgov-interaction/1\n" + text)
    return json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"


DAMAGE = [
    # (what, what becomes of the second line, the error, what it says)
    ("cut off", lambda line: line[:-40], Damaged, "cut off"),
    ("cut off at its end", lambda line: line[:-1], Damaged, "cut off"),
    ("another amount", lambda line: line.replace(":2}", ":3}"), Damaged, "its digest is not that of its content"),
    ("a field more", lambda line: line.replace('"at"', '"as":1,"at"'), Damaged, "was changed"),
    ("a float", lambda line: line.replace('"sample":0', '"sample":0.0'), Damaged, "was changed"),
    ("another digest", lambda line: re.sub('"digest":"[0-9a-f]{4}', '"digest":"0123', line), Damaged, "was changed"),
    ("a lone surrogate", lambda line: line.replace('"at":"', '"at":"\\ud800'), Damaged, "was changed"),
    ("twice", lambda line: line + line, Damaged, "the same request as in line 2"),
    ("not JSON", lambda line: "hello\n", BadInput, "no JSON"),
    ("blank", lambda line: "\n" + line, BadInput, "no JSON"),
    ("too deep", lambda line: "[" * 100_000 + "\n", BadInput, "no JSON"),
    ("a key twice", lambda line: line.replace('"at":', '"at":"","at":'), BadInput, "a key comes twice"),
    ("no object", lambda line: "[]\n", BadInput, "an object with a digest"),
    ("no digest", lambda line: "{}\n", BadInput, "an object with a digest"),
    ("another version", lambda line: resealed(line, version=2), BadInput, "expected version 1, found 2"),
    ("an unknown field", lambda line: resealed(line, headers={}), BadInput, "unknown field 'headers'"),
    ("a missing field", lambda line: resealed(line, user=...), BadInput, "the field 'user' is missing"),
    ("a wrong type", lambda line: resealed(line, sample="0"), BadInput, "sample is str; expected int"),
    ("true as a number", lambda line: resealed(line, sample=True), BadInput, "sample is bool; expected int"),
    ("an unknown origin", lambda line: resealed(line, origin="live"), BadInput, "origin is 'live'"),
    ("two bodies", lambda line: resealed(line, body_base64=""), BadInput, "expected a body"),
    ("no body", lambda line: resealed(line, body=...), BadInput, "expected a body"),
    ("no base64", lambda line: resealed(line, body=..., body_base64="?"), BadInput, "no base64"),
    ("base64 of text", lambda line: resealed(line, body=..., body_base64="eA=="), BadInput, "not in the form"),
    ("a wrong round", lambda line: resealed(line, round={"epoch": 1}), BadInput, "expected a round"),
    ("a wrong usage", lambda line: resealed(line, usage={"total": "1"}), BadInput, "usage are counts"),
    ("a wrong cost", lambda line: resealed(line, cost="NaN"), BadInput, "cost is 'NaN'"),
    ("a number beyond all", lambda line: line.replace('":0', '":1e9999999999999999999'), BadInput, "no JSON"),
    ("a stated default", lambda line: resealed(line, attempts=1), BadInput, "not in the form"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "error", "said"), [row[1:] for row in DAMAGE], ids=[row[0] for row in DAMAGE])
def test_refuses_a_damaged_line_and_names_it(recorded, tmp_path, damage, error, said):
    first, second, *_ = recorded[0].read_text("utf-8").splitlines(keepends=True)
    path = tmp_path / "x.jsonl"
    path.write_bytes((first + damage(second)).encode("utf-8", "surrogatepass"))
    with pytest.raises(error, match=re.escape(said)) as caught:
        read(path)
    assert type(caught.value) is error
    assert re.match(rf"{re.escape(str(path))}:[23]: ", str(caught.value))
    problems = [finding for finding in check(path, today="2026-11-22") if finding.problem]
    assert problems[0].lines == ((3,) if said.startswith("the same") else (2,))
    assert problems[0].text in str(caught.value)


@given(st.binary(max_size=12), st.integers(0, 6000), st.integers(0, 12))
def test_refuses_any_damage_with_one_of_two_errors(recorded, scrap, at, cut):
    first, second, *_ = recorded[0].read_bytes().splitlines(keepends=True)
    for damaged in (scrap, second[:at] + scrap + second[at + cut :]):
        try:
            taken = read_lines([first, *re.findall(rb"[^\n]*\n|[^\n]+", damaged)])
        except (Damaged, BadInput):
            continue
        assert [one.line.encode() + b"\n" for one in taken.interactions] in ([first], [first, second])


def test_takes_lines_with_another_end(recorded):
    lines = recorded[0].read_bytes().replace(b"\n", b"\r\n").splitlines(keepends=True)
    assert read_lines(lines).interactions == read(recorded[0]).interactions


def test_reads_from_an_export(recorded):
    _, engine, answers, proposer = recorded
    lines = [row["line"].encode() + b"\n" for row in proposer.rows]
    replayed, again = played(CassetteProposer(read_lines(lines)))
    assert (again, replayed.state.digest) == (answers, engine.state.digest)


def test_says_that_a_file_cannot_be_read(tmp_path):
    for function in (read, lambda path: check(path, today="2026-11-22")):
        with pytest.raises(BadInput, match="cannot be read"):
            function(tmp_path / "no.jsonl")


def test_shows_a_difference_though_the_line_with_the_system_text_is_gone(recorded):
    lines = recorded[0].read_bytes().splitlines(keepends=True)[1:]
    cassette = read_lines(lines)
    assert cassette.system_of(cassette.interactions[0]) is None
    assert step(cassette, 3).startswith("--- epoch 2\n+++ epoch 3\n")
    assert "(the system text is in no line)" in exchange_text(cassette, cassette.interactions[0])[0]


# --- what people look at ----------------------------------------------------------------------------------------------


def written(path, *interactions):
    path.write_bytes(b"".join(one.line.encode() + b"\n" for one in interactions))
    return path


def test_finds_nothing_but_its_origin_in_a_fresh_cassette(recorded):
    findings = check(recorded[0], today="2026-11-22", used=recorded[3].interactions)
    assert [(finding.code, finding.problem) for finding in findings] == [("synthetic", False)]


def test_finds_stale_retired_and_unused_lines(recorded, tmp_path):
    retired = next(iter(RETIRED))
    path = written(tmp_path / "x.jsonl", line_of(NOTHING, model=retired), line_of(NOTHING, epoch=2))
    folder = tmp_path / "prompts"
    shutil.copytree(FOLDER, folder)

    def found(today="2026-11-22", **options):
        return [(one.code, one.lines) for one in check(path, folder, today=today, **options)]

    assert found() == [("other_model", (1,))]
    assert found(today=RETIRED[retired]) == [("retired_model", (1,)), ("other_model", (1,))]
    used = read(path).interactions[1:]
    assert found(used=used) == [("other_model", (1,)), ("unused", (1,))]
    (folder / "_data.j2").write_text("<data>\n{{ data }}\n</data>", "utf-8")
    assert found() == [("stale", (1, 2)), ("other_model", (1,))]
    (folder / "propose_transfer.j2").unlink()
    assert found() == [("stale", (1, 2)), ("other_model", (1,))]
    path.write_bytes(b"")
    assert found() == [("empty", ())]


@pytest.mark.parametrize("name", ["gemini-2.5-flash", "models/gemini-2.5-pro"])
def test_a_retired_model_is_named_from_its_day_on(name):
    assert retired(name, "2026-11-30") is None and retired("gemini-3.8-flash", "2999-01-01") is None
    assert retired(name, "2026-12-01") == f"{name} is retired since 2026-12-01: another model answers in its name"


def test_sums_up_what_a_cassette_holds(tmp_path):
    usage = b', "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 20, "totalTokenCount": 120}}'
    path = written(
        tmp_path / "x.jsonl",
        line_of(NOTHING[:-1] + usage, cost="0.0015", latency_ms=80),
        line_of(NOTHING[:-1] + usage, epoch=2, cost="0.0025"),
        line_of(BUSY.body, status=429, epoch=3),
        line_of(b"{}", epoch=4),
    )
    found = overview(read(path))
    assert found == {
        "file": str(path),
        "interactions": 4,
        "epochs": [1, 4],
        "origins": {"recorded": 4},
        "models": {MODEL: 4},
        "prompts": {f"propose_transfer {PROMPT.digest[:12]}": 4},
        "proposers": {"planner": 4},
        "results": {"malformed no_answer": 1, "noop": 2, "unavailable quota": 1},
        "finish_reasons": {"STOP": 2, "none": 2},
        "other_model": 0,
        "other_models": {},
        "tokens": {"answer": 40, "prompt": 200, "total": 240},
        "cost": "0.004",
    }
    rows = listing(read(path))
    assert [(row["line"], row["epoch"], row["result"], row["tokens"]) for row in rows] == [
        (1, 1, "noop", 120),
        (2, 2, "noop", 120),
        (3, 3, "unavailable quota", None),
        (4, 4, "malformed no_answer", None),
    ]
    json.dumps([found, rows])
    assert overview(Cassette(()))["epochs"] is None


def test_shows_how_one_request_differs_from_the_one_before(recorded):
    cassette = read(recorded[0])
    changed = step(cassette, 2)
    assert changed.startswith("--- epoch 1\n+++ epoch 2\n")
    assert '+{"balances":' in changed
    assert step(cassette, 1) == ""
    with pytest.raises(BadInput, match="epoch 9 was not recorded for nobody"):
        step(cassette, 9, "nobody")


def test_shows_what_was_asked_and_answered(recorded):
    cassette = read(recorded[0])
    asked, answered = exchange_text(cassette, cassette.interactions[1])
    assert asked.startswith("You plan for a community")
    assert "<data>" in asked
    assert answered.startswith('{"candidates":')


def test_marks_an_edited_reply():
    body = synthetic_body(Answer((), "changed"), {}, "other")
    assert (edited(line_of(NOTHING), body).origin, edited(line_of(NOTHING), body).other_model) == ("edited", True)
    assert edited(line_of(NOTHING, origin="synthetic"), body).origin == "synthetic"


def test_gives_the_export_what_it_keeps(recorded):
    row = line_of(NOTHING, latency_ms=5, cost="0.1").row(Round(7, "other", 2))
    assert (row["epoch"], row["proposer"], row["n"]) == (7, "other", 2)
    assert row["proposal_id"] == Round(7, "other", 2).proposal_id
    assert (row["status"], row["origin"], row["finish_reason"]) == ("200", "recorded", "STOP")
    assert json.loads(row["line"])["digest"] == row["digest"]
    assert line_of(b"", status=None, failure="reset").row()["status"] is None


def test_never_holds_a_header_or_a_key(recorded):
    assert not {"headers", "key", "api_key", "url"} & set(json.loads(recorded[0].read_text("utf-8").splitlines()[0]))
    assert os.fspath(FOLDER) not in recorded[0].read_text("utf-8")


def test_asks_for_an_actor_with_its_own_prompt(tmp_path):
    """One cassette for several proposers, each with the prompt that it was recorded with."""
    speaker = load("speak_for_actor")

    def rounds(planner, fisher):
        engine = played(Even(), epochs=0)[0]
        engine.register(Registration(mandates={"fisher": ("a",)}), 0)
        return [
            planner.propose(Context(Round(1, "planner", 1), engine.state)),
            fisher.propose(Context(Round(1, "fisher", 1), engine.state, "a")),
        ]

    path = tmp_path / "x.jsonl"
    with Recorder(path) as recorder:
        made = [recording(Even(), "even", prompt, recorder) for prompt in (PROMPT, speaker)]
        answers = rounds(*made)
    cassette = read(path)
    assert rounds(CassetteProposer(cassette), CassetteProposer(cassette)) == answers
    assert [one.prompt for one in cassette.interactions] == ["propose_transfer", "speak_for_actor"]
    assert all(one.system for one in cassette.interactions)
