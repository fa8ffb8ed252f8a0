"""Backtests: the same questions on the same state, judged and compared; figures against hand, figures against known."""

import itertools
import json
import re
import socket
import warnings
from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gridgov.cassette import Exchange, Recorder, Recording, read, synthetic_body
from gridgov.decide import decide
from gridgov.errors import BadInput, CassetteMiss, ProposerFailed
from gridgov.export import write_journal
from gridgov.journal import Registration
from gridgov.model import Constraints, Limit, Outcome, Proposal, Resource, Round, Transfer
from gridgov.prompt import exact_json, render
from gridgov.prompt import load as load_prompt
from gridgov.propose import Answer, Context
from gridgov.source import open_source
from sim import paired, policies
from sim.backtest import (
    Came,
    Candidate,
    Row,
    Wanted,
    asked,
    backtest,
    judged,
    noise,
    policed,
    record_answers,
    rule,
    taped,
)
from sim.cases import read as read_cases
from sim.launch import launch
from sim.live import Live
from sim.loading import load, loads
from sim.onestep import Step, regret, steps
from sim.questions import codes, question_of, questions
from tests.plays import SCENARIOS
from tests.worlds import World

pytest_plugins = ["tests.commands"]

EPOCHS = 60
HASTY, GREEDY, NONE = (policies.Policy(policies.PLAIN[name]) for name in ("hasty", "greedy", "none"))


class Folder:
    """Histories and cassettes of community-week, made once."""

    def __init__(self, path):
        self.path = path
        self.runs = path / "runs"
        recorded = path / "hasty.jsonl"
        week = SCENARIOS / "community-week.yaml"
        launch(load(week, epochs=EPOCHS, proposer="policy:hasty"), out=path / "first", record=recorded)
        self.hasty = self.made(load(week, epochs=EPOCHS, proposer=f"cassette:{recorded}"))
        self.greedy = self.made(load(week, epochs=EPOCHS, proposer="policy:greedy"))
        self.recorded = recorded
        self.greedy_on_hasty = self.answers(self.hasty, GREEDY, "greedy")
        self.hasty_on_greedy = self.answers(self.greedy, HASTY, "hasty")

    def made(self, scenario):
        return str(launch(scenario, out=self.runs).summary.export)

    def open(self, file):
        return open_source(str(file), self.runs)

    def answers(self, history, policy, name, samples=1):
        path = self.path / f"{name}-on-{len(list(self.path.iterdir()))}.jsonl"
        with self.open(history) as source:
            record_answers(source, policy, name, path, samples)
        return path

    def tested(self, history, cassette, wanted=None, **given):
        with self.open(history) as source:
            return backtest(source, taped(cassette, given.pop("samples", None)), wanted or Wanted(), **given)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return Folder(tmp_path_factory.mktemp("backtest"))


# --- the verdict ------------------------------------------------------------------------------------------------------


def test_finds_nothing_between_a_side_and_itself(folder):
    report = folder.tested(folder.hasty, folder.recorded)
    assert len(report.rows) == EPOCHS
    assert all((row.old,) == row.new for row in report.rows)
    assert report.flips.total() == 0 and report.silent == 0
    assert (report.acceptance.result, report.acceptance.p, report.acceptance.interval) == ("not decisive", 1.0, None)
    assert (report.regret.result, report.regret.interval) == ("not decisive", (0.0, 0.0))
    assert report.verdict[0] == "not decisive"
    assert Counter(row.old.outcome for row in report.rows)["rejected"] > 5, "or there is nothing to find"


def test_ships_what_is_decisively_better(folder):
    report = folder.tested(folder.hasty, folder.greedy_on_hasty)
    assert (report.verdict[0], report.failed) == ("ship", [])
    assert (report.acceptance.result, report.regret.result) == ("better", "better")
    assert report.new.regret == 0, "greedy is the best that one step can do"
    refused = sum(row.old.outcome == "rejected" for row in report.rows)
    assert report.flips == {"better": refused}
    assert report.old.codes == {"rejected": {"insufficient_balance": refused}}
    assert report.new.codes == {}


def test_does_not_ship_what_is_decisively_worse(folder):
    report = folder.tested(folder.greedy, folder.hasty_on_greedy)
    assert report.verdict[0] == "don't ship"
    assert report.regret.result == "worse" and report.regret.interval.low > 0
    assert report.acceptance.new < report.acceptance.old == 1
    assert report.verdict[1].startswith("regret went from 0.000 to 0.")


def test_does_not_ship_what_proposes_nothing(folder):
    report = folder.tested(folder.greedy, folder.answers(folder.greedy, NONE, "none"))
    assert report.verdict[0] == "don't ship"
    assert report.new.acceptance is None and report.acceptance.pairs == 0
    assert report.new.regret == report.regret_of_nothing > 0 == report.old.regret
    assert report.silent == sum(row.old.outcome == "executed" for row in report.rows)


def test_is_not_decisive_about_too_few_questions(folder):
    report = folder.tested(folder.greedy, folder.hasty_on_greedy, Wanted(last=5))
    assert [row.round.epoch for row in report.rows] == [56, 57, 58, 59, 60]
    assert (report.acceptance.interval, report.regret.interval) == (None, None)
    assert (report.acceptance.smallest, report.verdict[0]) == (None, "not decisive")
    assert "too few to say" in report.verdict[1]


def test_judges_without_moving_anything(folder):
    with folder.open(folder.hasty) as source:
        before = source.world_state()
        backtest(source, taped(folder.greedy_on_hasty, None))
        assert source.world_state() == before
        for question in itertools.islice(questions(source), 3):
            was = dict(question.context.state.balances["energy"]), question.context.state.entries
            assert judged(question.context, Answer((Transfer("home-1", "home-2", "energy", 1),), "")).n == 1
            assert (dict(question.context.state.balances["energy"]), question.context.state.entries) == was


# --- questions --------------------------------------------------------------------------------------------------------

VOICES = """
name: voices
seed: 3
epochs: 5
start: "2025-01-01T00:00:00Z"
epoch_length: 1h
resources: {water: {unit: l, scale: 1}}
constraints: {max_transfer: 4, epoch_quota: 6}
actors: [{id: "home-{n}", count: 3, type: node, balances: {water: 9}}]
flows:
  - {name: rain, kind: produce, actors: home-1, resource: water, amount: 5}
  - {name: use, kind: consume, actors: "home-{n}", resource: water, amount: 3}
proposers:
  - {name: voice, kind: policy, policy: random, actors: "home-{n}", context: {history: HISTORY}}
"""


@pytest.mark.parametrize("history", [0, 2])
def test_asks_exactly_what_was_asked(tmp_path, history):
    """A recording answers by the digest of the whole request: one other byte in a context would be a miss."""
    scenario = loads(VOICES.replace("HISTORY", str(history)), "voices.yaml", lambda file: tmp_path / file)
    path = tmp_path / "voices.jsonl"
    export = launch(scenario, out=tmp_path, record=path).summary.export
    with open_source(export, tmp_path) as source:
        report = backtest(source, taped(path, None))
        assert len(report.rows) == 15 and report.flips.total() == 0
        assert report.candidate == [
            "synthetic/random, prompt speak_for_actor " + load_prompt("speak_for_actor").digest[:12]
        ]
        only = [row.round.proposer for row in backtest(source, taped(path, None), Wanted("voice/home-2")).rows]
        assert only == ["voice/home-2"] * 5
        journal = tmp_path / "journal.jsonl"
        write_journal(journal, source.records())
    if history == 0:  # a journal does not say how much of its past a proposer was shown
        with open_source(str(journal), tmp_path) as source:
            assert backtest(source, taped(path, None)).flips.total() == 0


def tiny(**constraints):
    """Two givers and two takers of energy, kWh; b lacks 5, d lacks 2, a can spare 6, c 1."""
    rules = Constraints(**{"min_balance": Limit({"energy": 0}, {}), **constraints})
    opening = {name: {"energy": amount} for name, amount in {"a": 10, "b": 1, "c": 3, "d": 0}.items()}
    world = World(dict.fromkeys(opening, "node"), (Resource("energy", "kWh", 0),), rules, opening)
    world.need("energy", {"a": 4, "b": 6, "c": 2, "d": 2})
    return world


def test_leaves_out_what_a_client_proposed_by_itself(tmp_path):
    world = tiny()
    world.propose(("a", "b", "energy", 1))
    world.engine.propose(Proposal("11111111-1111-4111-8111-111111111111", "client", 1, (), ""), world.at)
    path = tmp_path / "x.jsonl"
    write_journal(path, world.ledger.records())
    with open_source(str(path), tmp_path) as source:
        assert [found.context.round for found in questions(source)] == [Round(1, "planner", 1)]


def test_judges_as_asked_what_an_allocation_had_scaled(tmp_path):
    world = tiny()
    world.propose(("c", "b", "energy", 3), asked=(("c", "b", "energy", 7),))
    path = tmp_path / "x.jsonl"
    write_journal(path, world.ledger.records())
    with open_source(str(path), tmp_path) as source:
        (row,) = (found for found in questions(source))
        assert (row.old.outcome, row.rejudged) == ("rejected", True)


@pytest.mark.parametrize("kept", ["line", "request"])
def test_asks_with_what_a_recorded_request_says(tmp_path, monkeypatch, kept):
    """In production neither a key's mandate nor how much of its past it was shown is in the journal."""
    world, mine = tiny(), frozenset("a")
    rounds_, past = [Round(1, "team", n) for n in (1, 2, 3)], []
    for round_ in rounds_:
        context = Context(round_, world.state, history=tuple(past[-1:]), mandate=mine)
        request = render(load_prompt("propose_transfer"), context, model="gemini-y")
        past.append(world.propose(("a", "b", "energy", 1), proposer="team"))
    path = tmp_path / "x.jsonl"
    write_journal(path, world.ledger.records())
    said = {"user": request.user} if kept == "line" else {"request": exact_json(request.body)}
    row = {"line": json.dumps(said), "model_asked": "gemini-y", "prompt": "propose_transfer", "origin": "recorded"}
    with open_source(str(path), tmp_path) as source:
        monkeypatch.setattr(
            source, "named", lambda _, proposal: iter([row] if proposal == rounds_[2].proposal_id else [])
        )
        for question in questions(source):
            context = question.context
        assert (context.round, context.mandate, context.history) == (rounds_[2], mine, (past[1],))
        assert (question.model, question.prompt, question.origin) == ("gemini-y", "propose_transfer", "recorded")
        assert (
            render(load_prompt("propose_transfer"), context, model="gemini-y").components["asked"]
            == request.components["asked"]
        )
        decision = judged(context, Answer((Transfer("c", "d", "energy", 1),), ""))
        assert codes(decision) == ("not_permitted",)


# --- one step ---------------------------------------------------------------------------------------------------------


def proposed(world, *transfers):
    given = tuple(Transfer(*one) for one in transfers)
    return decide(world.state, Proposal(Round(1, "planner", 1).proposal_id, "planner", 1, given, ""))


def step(world, *transfers, mandate=None):
    decision = proposed(world, *transfers)
    found = steps(world.state, decision, mandate)["energy"]
    return decision.outcome.value, found, regret([found])


def test_counts_one_step_as_by_hand():
    """Needed 14; alone 4 + 1 + 2 + 0 = 7; a and c can spare 6 + 1, b and d lack 5 + 2: at best all 14."""
    world = tiny()
    assert step(world) == ("noop", Step(14, 7, 7, 14), 7 / 14)
    assert step(world, ("a", "b", "energy", 5)) == ("executed", Step(14, 7, 12, 14), 2 / 14)
    assert step(world, ("a", "b", "energy", 5), ("a", "d", "energy", 1), ("c", "d", "energy", 1))[2] == 0
    assert step(world, ("a", "c", "energy", 10)) == ("executed", Step(14, 7, 3, 14), 11 / 14)
    assert step(world, ("a", "b", "energy", 11)) == ("rejected", Step(14, 7, 7, 14), 7 / 14)


@pytest.mark.parametrize(
    ("constraints", "best"),
    [
        ({"min_balance": Limit({"energy": 0}, {"a": {"energy": 8}})}, 7 + 2 + 1),
        ({"epoch_quota": Limit({"energy": 3}, {})}, 7 + 3 + 1),
        ({"max_transfer": Limit({"energy": 1}, {})}, 14),
        ({"max_transfer": Limit({}, {"a": {"energy": 0}})}, 7 + 1),
        ({"max_transfer": Limit({"energy": 2}, {}), "max_transfers_per_proposal": 2}, 7 + 4),
        ({"max_transfers_per_proposal": 1}, 7 + 5),
        ({"hold_above": Limit({"energy": 0}, {})}, 7),
    ],
)
def test_knows_the_best_within_each_limit(constraints, best):
    assert step(tiny(**constraints))[1].best == best


def test_what_is_held_is_kept_from_being_consumed():
    world = tiny(hold_above=Limit({"energy": 2}, {}))
    assert step(world, ("a", "b", "energy", 8)) == ("held", Step(14, 7, 5, 14), 9 / 14)


def test_nobody_can_do_better_while_paused_or_without_a_mandate():
    world = tiny()
    assert step(world, mandate=frozenset("c"))[1].best == 8
    world.engine.register(Registration((), {"a": True}, operator="ops", reason="frozen"), world.at)
    assert step(world)[1].best == 8
    world.engine.pause(world.at, "ops", "storm")
    assert step(world)[1].best == 7


def test_has_no_regret_where_nobody_announced_a_need():
    world = World({"a": "node"}, (Resource("energy", "kWh", 0),), Constraints(), {"a": {"energy": 1}})
    assert steps(world.state, proposed(world), None) == {}
    world.need("energy", {"a": 0})
    assert steps(world.state, proposed(world), None) == {}
    assert regret([]) is None


amounts = st.integers(0, 3)


@given(
    held=st.tuples(amounts, amounts, amounts),
    needs=st.tuples(amounts, amounts, amounts),
    least=st.integers(0, 2),
    quota=st.none() | st.integers(0, 3),
    most=st.none() | st.integers(0, 3),
)
def test_the_best_is_what_enumeration_finds(held, needs, least, quota, most):
    """Of all that could be sent between three homes, whatever `decide` executes."""
    constraints = Constraints(
        max_transfer=None if most is None else Limit({"energy": most}, {}),
        min_balance=Limit({"energy": least}, {}),
        epoch_quota=None if quota is None else Limit({"energy": quota}, {}),
    )
    opening = {name: {"energy": amount} for name, amount in zip("abc", held, strict=True)}
    world = World(dict.fromkeys("abc", "node"), (Resource("energy", "kWh", 0),), constraints, opening)
    world.need("energy", dict(zip("abc", needs, strict=True)))
    if not sum(needs):
        return
    ways = list(itertools.permutations("abc", 2))
    found = set()
    for sizes in itertools.product(range(4), repeat=len(ways)):
        if sum(sizes) > 6 or sum(map(bool, sizes)) > 2:  # at most two of three lack: two ways are enough
            continue
        units = [(*way, "energy", 1) for way, size in zip(ways, sizes, strict=True) for _ in range(size)]
        decision = proposed(world, *units)
        if decision.outcome in (Outcome.EXECUTED, Outcome.NOOP):
            found.add(steps(world.state, decision)["energy"].served)
    assert max(found) == steps(world.state, proposed(world))["energy"].best


# --- statistics -------------------------------------------------------------------------------------------------------


def test_knows_wilsons_interval():
    """Wilson's for 81 of 263, from Newcombe, Statistics in Medicine 17 (1998), table I: 0.2553 to 0.3662."""
    assert paired.wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    for k, n in ((0, 10), (10, 10), (3, 7)):
        known = stats.binomtest(k, n).proportion_ci(method="wilson")
        assert paired.wilson(k / n, n) == pytest.approx((known.low, known.high), abs=1e-12)
    assert paired.wilson(1, 10).high == 1 > paired.wilson(1, 10).low > 0.7
    assert paired.wilson(0.5, 0) is None


def test_knows_mcnemars_test():
    """By hand: 2 (1/2)^6 = 1/32; and 2 (1 + 10 + 45) / 1024 for 2 against 8."""
    assert paired.mcnemar(6, 0) == paired.mcnemar(0, 6) == 1 / 32
    assert paired.mcnemar(2, 8) == pytest.approx(112 / 1024)
    assert paired.mcnemar(0, 0) == 1


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 5))
def test_the_interval_spans_zero_exactly_where_the_test_is_not_decisive(worse, better, alike):
    found = paired.accepted([(True, False)] * worse + [(False, True)] * better + [(True, True)] * alike)
    assert (found.result == "not decisive") == (found.interval is None or found.interval.spans_zero)
    if worse == better or worse + better < 6:
        assert found.result == "not decisive"
    if found.result != "not decisive":
        assert abs(found.difference) >= found.smallest - 1e-12


def test_says_what_so_many_pairs_could_have_shown():
    assert paired.accepted([(True, True)] * 100).smallest == 6 / 100
    assert paired.accepted([(True, False), (False, True)] * 5 + [(True, True)] * 90).smallest == 8 / 100
    assert paired.accepted([(True, False)] * 5).smallest is None


def test_draws_the_same_interval_every_time():
    values = [0.1 * (i % 7) - 0.2 for i in range(40)]
    first = paired.bootstrap(values)
    assert first == paired.bootstrap(values)
    mean = sum(values) / 40
    half = 1.96 * stats.tstd(values) / 40**0.5
    assert first == pytest.approx((mean - half, mean + half), abs=0.01)
    assert paired.bootstrap(values[:5]) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert paired.bootstrap([0.25] * 6) == (0.25, 0.25)
        assert paired.bootstrap([0.0] * 6 + [1.0]).low == 0


def test_an_epoch_counts_once_however_many_were_asked_in_it():
    one = paired.differing({1: [0.5, 0.0], 2: [0.5]}, {1: [0.0, 0.0], 2: [0.25]})
    assert (one.pairs, one.old, one.new, one.difference) == (2, 0.375, 0.125, -0.25)
    assert one.interval is None and one.result == "not decisive"
    assert paired.differing({}, {}).difference is None
    same = {epoch: [0.5] for epoch in range(6)}
    assert paired.differing(same, {epoch: [0.25] for epoch in range(6)}).result == "better"
    assert paired.differing(same, same).result == "not decisive"


def one(accepted, outcome=None):
    return Came(outcome or ("executed" if accepted else "rejected"), (), accepted, None)


def test_measures_how_much_flips_by_itself():
    """Of four answers of which one is accepted, two that are drawn differ in 3 of 6 cases."""
    assert noise([[one(True), one(False), one(False), one(False)], [one(True), one(True)]]) == (2, 6, 0.5)
    assert noise([[one(True)], [one(None, "noop"), one(False)], []]) is None


def test_pairs_one_answer_with_one():
    def row(*new):
        return Row(Round(1, "planner", 1), one(True), new, None, False, False)

    assert row(one(False), one(True), one(True)).flip == "worse", "not what most of them say"
    assert row(one(None, "unavailable"), one(False)).pair == (True, False)
    assert row(one(None, "unavailable")).pair is None
    assert row(one(None, "noop"), one(False)).pair is None
    held = row(one(False, "held"))
    assert (held.pair, held.flip) == ((True, False), None), "not accepted, and not refused"


# --- outages, misses, samples -----------------------------------------------------------------------------------------


def live(answers, made=None, **budget):
    """Answers each request by what a function of its epoch and sample gives: an Exchange, or an Answer."""

    def ask(request):
        data = json.loads(request.user.partition("<data>\n")[2].partition("\n</data>")[0])
        found = answers(data["round"]["epoch"], request.sample)
        if made is not None:
            made.append((data["round"]["epoch"], request.sample))
        if isinstance(found, Exchange):
            return found
        body = synthetic_body(found, {}, request.model)[:-1]
        body += b',"usageMetadata":{"promptTokenCount":100,"candidatesTokenCount":20,"totalTokenCount":120}}'
        return Exchange(200, body, "2026-11-22T12:00:00Z", cost="0.01", price_table="test", latency_ms=5)

    return Live(ask, **budget)


BUSY = Exchange(429, b'{"error": {"code": 429}}', "2026-11-22T12:00:00Z")
NOTHING = Answer((), "all is well")
TOO_MUCH = Answer((Transfer("home-1", "home-2", "energy", 9_999),), "much")


def recorded_by(folder, path, answers, samples):
    """A cassette of what a model says to the history's questions, with its failures."""
    with Recorder(path) as recorder, folder.open(folder.hasty) as source:
        made = Recording(live(answers), load_prompt("propose_transfer"), recorder, model="gemini-x")
        candidate = Candidate(lambda *_: made, samples)
        for question in questions(source, last=12):
            candidate.ask(question.context, question.prompt, question.model, question.key)


def test_counts_an_outage_apart_and_never_as_a_decision(folder, tmp_path):
    path = tmp_path / "x.jsonl"
    recorded_by(folder, path, lambda epoch, sample: BUSY if epoch % 6 == 0 else NOTHING, 1)
    report = folder.tested(folder.hasty, path, Wanted(last=12))
    assert report.new.outcomes == {"noop": 10, "unavailable": 2}
    assert report.new.codes == {"unavailable": {"quota": 2}}
    assert report.regret.pairs == 10
    out = [row for row in report.rows if row.new[0].outcome == "unavailable"]
    assert [row.round.epoch for row in out] == [54, 60]
    assert all(row.pair is None and row.regret is None and row.flip is None for row in out)
    assert report.new.acceptance is None, "nothing was proposed, so nothing was accepted or refused"


def test_takes_another_sample_where_the_first_is_an_outage(folder, tmp_path):
    path = tmp_path / "x.jsonl"
    recorded_by(folder, path, lambda epoch, sample: BUSY if sample == 0 else TOO_MUCH, 3)
    report = folder.tested(folder.hasty, path, Wanted(last=12))
    assert report.samples == 3, "as many as were recorded"
    assert report.new.outcomes == {"unavailable": 12, "rejected": 24}
    assert report.new.acceptance == 0 and report.new.interval.low == 0
    assert report.new.interval == paired.wilson(0, 12), "questions are counted, not samples"
    assert report.acceptance.new == 0 and report.acceptance.pairs == sum(
        row.old.accepted is not None for row in report.rows
    )
    assert report.new.noise.flips == 0 and report.old.noise is None
    with pytest.raises(CassetteMiss, match="recorded 3 times"):
        folder.tested(folder.hasty, path, Wanted(last=12), samples=4)


def test_sets_the_noise_of_the_old_side_beside(folder, tmp_path):
    path = tmp_path / "x.jsonl"
    mixed = Answer((Transfer("home-1", "home-2", "energy", Decimal("0.001")),), "little")
    recorded_by(folder, path, lambda epoch, sample: mixed if sample == 0 else TOO_MUCH, 2)
    report = folder.tested(folder.hasty, folder.recorded, Wanted(last=12), baseline=taped(path, None))
    assert report.flips.total() == 0 and report.new.noise is None
    again = folder.tested(folder.hasty, path, Wanted(last=12)).new.outcomes
    assert again["executed"] > 0, "or there is nothing to tell apart"
    assert report.old.noise == (12, 24, again["executed"]), "where the first was executed, the second was not"


def test_a_miss_is_a_failure_and_not_a_call(folder, gridgov, monkeypatch):
    def refuse(*_):
        raise AssertionError("a cassette was to be played, and somebody opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    assert gridgov("backtest", folder.hasty, "--cassette", folder.recorded).code == 0
    said = gridgov("backtest", folder.hasty, "--cassette", folder.hasty_on_greedy)
    assert said.code == 3 and said.out == ""
    assert "the world state differs" in said.err.splitlines()[0] and "put back what changed" in said.err


def test_asks_a_live_model_within_its_budget_and_goes_on_from_there(folder, tmp_path):
    path, made = tmp_path / "new.jsonl", []

    def run(**budget):
        with Recorder(path, resume=True) as recorder, folder.open(folder.hasty) as source:
            model = live(lambda epoch, sample: NOTHING, made, **budget)
            return backtest(source, asked(model, recorder, 3, model="gemini-x"), Wanted(last=4))

    with pytest.raises(ProposerFailed, match="as many as --max-calls allows"):
        run(max_calls=7)
    assert not path.exists() and len(made) == 7
    report = run()
    assert made == [(epoch, sample) for epoch in (57, 58, 59, 60) for sample in range(3)], "none was asked twice"
    assert report.new.outcomes == {"noop": 12}
    assert report.spent["made"] == 5 and report.spent["replies"] == 12
    assert (report.spent["cost"], report.spent["tokens"]["prompt"]) == ("0.12", 1200)
    assert report.origins == {"recorded": 12, "edited": 0, "synthetic": 0}
    assert folder.tested(folder.hasty, path, Wanted(last=4)).rows == report.rows, "what was recorded says the same"


def test_stops_where_the_model_is_unavailable_and_asks_it_again_later(folder, tmp_path):
    path, made = tmp_path / "new.jsonl", []

    def run(answers):
        with Recorder(path, resume=True) as recorder, folder.open(folder.hasty) as source:
            return backtest(source, asked(live(answers, made), recorder, 2, model="gemini-x"), Wanted(last=3))

    with pytest.raises(ProposerFailed, match=r"epoch 59, planner: the model is unavailable \(quota"):
        run(lambda epoch, sample: BUSY if epoch == 59 else NOTHING)
    report = run(lambda epoch, sample: NOTHING)
    assert made == [(58, 0), (58, 1), (59, 0), (59, 0), (59, 1), (60, 0), (60, 1)]
    assert report.new.outcomes == {"noop": 6}
    assert len(read(path).interactions) == 7, "the failure stays, and is superseded"


def test_asks_with_what_was_not_changed(folder, tmp_path):
    """Synthetic replies are of no model: a changed prompt goes to the usual one."""
    with Recorder(tmp_path / "x.jsonl", resume=True) as recorder, folder.open(folder.hasty) as source:
        candidate = asked(live(lambda epoch, sample: NOTHING), recorder, 1, prompt="speak_for_actor")
        report = backtest(source, candidate, Wanted(last=1))
    assert report.candidate[0].startswith("gemini-3.8-flash, prompt speak_for_actor ")


# --- cases and rules --------------------------------------------------------------------------------------------------

CASES = """
- name: two homes
  state:
    epoch: 7
    actors:
      - {{id: home-1, balances: {{energy: 9}}}}
      - {{id: home-2, balances: {{energy: 0}}, needs: {{energy: 3}}}}
    resources: [energy]
    constraints: {{max_transfer: 2, min_balance: 0}}
  expect: {first}
- name: as it was
  state: {{epoch: 8}}
  expect: {second}
"""


def cases_of(folder, tmp_path, text, samples=1, name="cases.yaml"):
    path = tmp_path / name
    path.write_text(text)
    with folder.open(folder.hasty) as source:
        return read_cases(path, source, folder.open, samples)


def with_cases(folder, tmp_path, first, second, more=""):
    """A backtest of greedy with cases, and what came of them."""
    path = tmp_path / "greedy.jsonl"
    cases = cases_of(folder, tmp_path, CASES.format(first=first, second=second) + more)
    with Recorder(path) as recorder, folder.open(folder.hasty) as source:
        return backtest(source, policed(GREEDY, "greedy", recorder), Wanted(last=60, cases=cases)), path


def test_cases_hold_or_fail(folder, tmp_path):
    report, _ = with_cases(folder, tmp_path, "executed", "[noop, executed]")
    assert [(case.name, case.passed, case.came) for case in report.cases] == [
        ("two homes", True, ("executed",)),
        ("as it was", True, ("executed",)),
    ]
    assert report.verdict[0] == "ship"
    assert len(report.used) == EPOCHS + 1, "epoch 8 is a question of the history, and is not asked again"
    report, path = with_cases(folder, tmp_path, "rejected/max_transfer", "rejected/insufficient_balance")
    assert [case.passed for case in report.cases] == [False, False]
    assert report.verdict[0] == "don't ship" and "'two homes' held in 0 of 1" in report.verdict[1]
    with folder.open(folder.hasty) as source:
        cases = cases_of(folder, tmp_path, CASES.format(first="executed", second="executed"))
        assert all(one.passed for one in backtest(source, taped(path, None), Wanted(cases=cases)).cases)


def test_a_case_shows_needs_and_finds_the_first_round_of_its_epoch(folder, tmp_path):
    inline, found = cases_of(folder, tmp_path, CASES.format(first="executed", second="noop"))
    assert inline.context.state.needs == {"energy": {"home-2": 3_000_000}}
    with folder.open(folder.hasty) as source:
        own = question_of(source, 8)
        assert found.key == own.key and found.context.round == Round(8, "planner", 1)
        assert found.context.state.digest == own.context.state.digest != source.world_state(8)
    line = json.dumps({"state": {"source": folder.hasty, "epoch": 8}, "expect": ["noop", "executed"], "at_least": 1})
    (other,) = cases_of(folder, tmp_path, line + "\n", name="cases.jsonl")
    assert (other.key, other.expect, other.at_least) == (found.key, ("noop", "executed"), 1)


def test_a_case_may_fail_now_and_then(folder, tmp_path):
    def run(at_least, expect="noop"):
        text = CASES.split("- name: as it was", maxsplit=1)[0].format(first=expect) + f"  at_least: {at_least}\n"
        cases = cases_of(folder, tmp_path, text, samples=5)
        path = tmp_path / f"{at_least}-{expect.replace('/', '-')}.jsonl"
        with Recorder(path, resume=True) as recorder, folder.open(folder.hasty) as source:
            model = live(lambda epoch, sample: TOO_MUCH if (epoch, sample) == (7, 2) else NOTHING)
            return backtest(source, asked(model, recorder, 5, model="gemini-x"), Wanted(last=1, cases=cases)).cases[0]

    assert (run(4).held, run(4).passed) == (4, True)
    assert (run(5).held, run(5).passed) == (4, False)
    assert run(1, "rejected/max_transfer").held == 1 and not run(1, "rejected/min_balance").passed
    assert Counter(run(5).came) == {"noop": 4, "rejected/max_transfer": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "there is no case"),
        ("{}", "expected a list of cases"),
        ("- {expect: executed}", "case 1, state: expected a WorldState"),
        ("- {state: {epoch: 8}, expect: excuted}", "did you mean 'executed'"),
        ("- {state: {epoch: 8}, expect: rejected/max_transfers}", "did you mean 'max_transfer'"),
        ("- {state: {epoch: 8}, expect: noop/paused}", "unknown code of noop"),
        ("- {state: {epoch: 8}, expect: []}", "expected an outcome"),
        ("- {state: {epoch: 99}, expect: noop}", "there is no round in epoch 99"),
        ("- {state: {epoch: 8}, expect: noop, atleast: 1}", "did you mean 'at_least'"),
        ("- {state: {epoch: 8}, expect: noop, at_least: 6}", "samples from 1 to 5"),
        ("- {state: {actors: [{id: a}], resources: [x], constraint: {}}, expect: noop}", "did you mean 'constraints'"),
        ("- {state: {actors: [{id: a, needs: {y: 1}}], resources: [x]}, expect: noop}", "unknown resource 'y'"),
        ("- {state: {source: nowhere, epoch: 1}, expect: noop}", "nowhere"),
    ],
)
def test_refuses_a_wrong_case_and_says_where(folder, tmp_path, text, said):
    with pytest.raises(BadInput, match=r"cases\.yaml") as caught:
        cases_of(folder, tmp_path, text, samples=5)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("acceptance<0.99", True),
        ("acceptance < 0.5", False),
        ("regret>0", True),
        ("regret_difference>=0.5", False),
        ("flips>1", True),
        ("flips_worse>=2.5", False),
        ("malformed>0", False),
        ("rejected/insufficient_balance>0", True),
        ("rejected/max_transfer>0", False),
        ("cost>1", True),
    ],
)
def test_checks_rules(folder, text, holds):
    report = folder.tested(folder.greedy, folder.hasty_on_greedy, Wanted(rules=[rule(text)]))
    (checked,) = report.checked
    assert checked.holds is holds
    if text.startswith("cost"):
        assert checked.found is None, "what can't be seen is no reason to ship"


@pytest.mark.parametrize(
    "text", ["", "acceptance", "acceptance<", "regrets>1", "noise>1", "flips/x>1", "flips>nan", "flips>1>2"]
)
def test_refuses_what_is_no_rule(text):
    with pytest.raises(BadInput, match="--fail-if"):
        rule(text)


def by_hand(folder, asked_for, answer):
    """What a side is that answers as a function of the epoch, where the old one asked for so much in each; no needs."""
    opening = {"a": {"energy": 9}, "b": {"energy": 9}}
    world = World(dict.fromkeys("ab", "node"), (Resource("energy", "kWh", 0),), Constraints(), opening)
    for amount in asked_for:
        world.propose(("a", "b", "energy", amount))
        world.close()
    journal, path = folder / "x.jsonl", folder / "new.jsonl"
    write_journal(journal, world.ledger.records())

    def propose(context):
        amount = answer(context.round.epoch)
        return Answer((Transfer("a", "b", "energy", amount),) if amount else (), "")

    with open_source(str(journal), folder) as source:
        record_answers(source, policies.Policy(propose), "scripted", path)
        return backtest(source, taped(path, None))


def test_compares_seven_questions_as_by_hand(tmp_path):
    """Six of seven refused, all flips one way: p is 2 / 64, and the interval 6/7 of (2 (1/40)^(1/6) - 1) to 6/7."""
    report = by_hand(tmp_path, [1] * 7, lambda epoch: 1 if epoch == 7 else 99)
    assert report.flips == {"worse": 6}
    assert (report.acceptance.old, report.acceptance.p) == (1, 2 / 64)
    assert report.acceptance.new == pytest.approx(1 / 7)
    least = 2 * (1 / 40) ** (1 / 6) - 1
    assert report.acceptance.interval == pytest.approx((-6 / 7, -6 / 7 * least))
    assert report.verdict[0] == "don't ship" and report.verdict[1].startswith("acceptance went from 1.000 to 0.143")
    assert report.regret.pairs == 0 and report.new.regret is None
    five = by_hand(tmp_path, [1] * 7, lambda epoch: 1 if epoch > 5 else 99)
    assert (five.flips, five.verdict[0]) == ({"worse": 5}, "not decisive")


def test_does_not_ship_silence_where_no_need_is_known(tmp_path):
    """History: six refused, one applied. The new side says yes to the six, and nothing to the one."""
    report = by_hand(tmp_path, [99] * 6 + [1], lambda epoch: 0 if epoch == 7 else 1)
    assert (report.acceptance.result, report.silent, report.regret.pairs) == ("better", 1, 0)
    assert report.verdict[0] == "not decisive" and "proposes nothing" in report.verdict[1]
    report = by_hand(tmp_path, [99] * 6 + [1], lambda epoch: 1)
    assert (report.silent, report.verdict[0]) == (0, "ship")


# --- the command ------------------------------------------------------------------------------------------------------


def test_prints_one_page_that_ends_in_the_verdict(folder, gridgov):
    said = gridgov("backtest", folder.hasty, "--cassette", folder.greedy_on_hasty)
    assert said.code == 0
    assert said.out.splitlines()[-1].startswith("ship: acceptance went from ")
    assert "60 of 60 replies of the new side are synthetic: no model said them" in said.out
    assert "old not known (history asked once; --baseline FILE knows" in said.out
    assert f"old: synthetic/hasty, prompt propose_transfer {load_prompt('propose_transfer').digest[:12]}\n" in said.out
    assert "rejected/insufficient_balance -> executed" in said.out
    assert (
        gridgov("backtest", folder.hasty, "--cassette", folder.recorded).out.splitlines()[-1].startswith("not decisive")
    )


def test_prints_one_document(folder, gridgov, tmp_path):
    cases = tmp_path / "cases.yaml"
    cases.write_text("- {state: {epoch: 8}, expect: executed}\n")
    options = ("--cases", cases, "--fail-if", "flips>100", "--fail-if", "flips_worse>0", "--json")
    said = gridgov("backtest", folder.hasty, "--cassette", folder.greedy_on_hasty, *options)
    assert (said.code, said.err) == (0, "")
    found = json.loads(said.out, parse_constant=pytest.fail)
    assert (found["verdict"], found["asked"], found["samples"]) == ("ship", EPOCHS, 1)
    assert found["cases"][0]["passed"] is True and [one["holds"] for one in found["rules"]] == [False, False]
    assert sum(found["new"]["outcomes"].values()) == EPOCHS
    assert found["interactions"] == {"recorded": 0, "edited": 0, "synthetic": EPOCHS}
    assert sum(one["flip"] == "better" for one in found["questions"]) == found["flips"]["better"] > 5


def test_fails_where_a_rule_holds_or_a_case_fails(folder, gridgov, tmp_path):
    tape = ("--cassette", folder.greedy_on_hasty)
    said = gridgov("backtest", folder.hasty, *tape, "--fail-if", "flips>3")
    assert said.code == 1 and said.err.startswith("gridgov: flips>3: it is ")
    assert said.out.splitlines()[-1].startswith("don't ship: flips>3")
    cases = tmp_path / "cases.yaml"
    cases.write_text("- {state: {epoch: 8}, expect: noop}\n")
    said = gridgov("backtest", folder.hasty, *tape, "--cases", cases)
    assert said.code == 1 and "FAILED  case 1" in said.out


def test_refuses_what_makes_no_sense(folder, gridgov):
    assert gridgov("backtest", folder.hasty).code == 2
    assert gridgov("backtest", folder.hasty, "--cassette", folder.recorded, "--max-calls", 3).code == 2
    assert gridgov("backtest", folder.hasty, "--cassette", folder.recorded, "--fail-if", "x").code == 2
    assert gridgov("backtest", folder.hasty, "--cassette", folder.recorded, "--proposer", "nobody").code == 2
    assert "GEMINI_API_KEY" in gridgov("backtest", folder.hasty, "--model", "gemini-x").err


def test_says_how_to_go_on_where_the_budget_is_spent(folder, gridgov, monkeypatch, tmp_path):
    asked = lambda calls, cost: live(lambda epoch, sample: NOTHING, max_calls=calls)  # noqa: E731
    monkeypatch.setattr("gridgov.experiments.live_model", asked)
    path = tmp_path / "x.jsonl"
    options = ("--model", "gemini-x", "--record", path, "--samples", 2, "--last", 3)
    said = gridgov("backtest", folder.hasty, *options, "--max-calls", 4)
    assert said.code == 3 and f"run again with --record {path}" in said.err
    said = gridgov("backtest", folder.hasty, *options)
    assert said.code == 0 and "6 replies: 2 asked for now, 4 known from the recording" in said.out
    assert re.search(r"cost of an answer, USD +- +0\.01\n", said.out), "of the old side no cost is known"
    assert "cost: 0.0600 USD, by the prices test" in said.out and "of the new side are synthetic" not in said.out
