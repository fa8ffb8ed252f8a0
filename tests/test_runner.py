"""The epoch: its phases and their times, who is asked when, and that a run is the same wherever it is played."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gridgov.engine import Engine
from gridgov.errors import BadInput, ProposerFailed
from gridgov.journal import Close, Decision, Flow, Genesis
from gridgov.model import Code, Malformed, Outcome, Transfer, Unavailable
from gridgov.propose import Answer, Context
from gridgov.replay import balances_every, columns
from sim.launch import seats
from sim.loading import load, loads
from sim.runner import Result, Runner, Seat
from sim.world import World
from tests.plays import SCENARIOS, decisions, flows, outcomes, play, play_text, settlements

HOUR = 3_600_000_000
HEAD = """
name: test
epochs: {epochs}
start: "2025-01-01T00:00:00Z"
epoch_length: 1h
resources: {{energy: {{unit: kWh, scale: 1}}}}
"""
TWO = "actors: [{id: a, balances: {energy: 100}}, {id: b, balances: {energy: 50}}]\n"


def world(body: str, epochs: int = 3, actors: str = TWO) -> str:
    return HEAD.format(epochs=epochs) + actors + body


class Script:
    """A proposer that says what a test wants, and notes what it was shown."""

    def __init__(self, *answers: Answer | Malformed | Unavailable) -> None:
        self.answers = list(answers)
        self.seen: list[Context] = []
        self.states: list[dict[str, int]] = []

    def rounds(self, epoch: int) -> int | None:
        return None

    def propose(self, context: Context) -> Answer | Malformed | Unavailable:
        self.seen.append(context)
        self.states.append(dict(context.state.balances["energy"]))
        return self.answers[(len(self.seen) - 1) % len(self.answers)]


def give(giver: str, taker: str, amount: int) -> Answer:
    return Answer((Transfer(giver, taker, "energy", amount),), "as the test says")


def scripted(text: str, *scripts: Script) -> Result:
    scenario = loads(text, "test.yaml", lambda file: SCENARIOS / file)
    made = [Seat(speaker, script) for speaker, script in zip(scenario.speakers, scripts, strict=True)]
    return Runner(scenario, World(scenario), made).run()


NONE = "proposers: [{kind: policy, policy: none}]\n"
TWO_PROPOSERS = "proposers: [{name: p, kind: policy, policy: none}, {name: q, kind: policy, policy: none}]\n"


# --- phases -----------------------------------------------------------------------------------------------------------


def test_records_carry_the_start_of_their_epoch_and_the_close_its_end() -> None:
    result = play_text(world(NONE))
    start = result.scenario.start_at
    for record in result.engine.ledger.records():
        if isinstance(record.payload, Close):
            assert record.at == start + record.epoch * HOUR
        elif record.epoch:
            assert record.at == start + (record.epoch - 1) * HOUR


def test_phases_come_in_their_order() -> None:
    body = """
flows:
  - {name: sun, kind: produce, actors: a, resource: energy, amount: 10}
  - {name: yeast, kind: grow, actors: a, resource: energy, factor: 2, cap: 500}
  - {name: load, kind: consume, actors: b, resource: energy, amount: 80}
"""
    text = world(body + NONE, 1, TWO.replace("100}", "100}, storage: {energy: 150}"))
    result = play_text(text)
    phases = [
        record.payload.kind if isinstance(record.payload, Flow) else record.kind
        for record in result.engine.ledger.records()
    ]
    assert phases == ["genesis", "produce", "grow", "need", "proposal", "consume", "spill", "close"]
    (_, consumed), (_, spilled) = flows(result, "consume")[0], flows(result, "spill")[0]
    assert [(r.requested, r.applied) for r in consumed.readings] == [(800, 500)]
    assert [r.applied for r in spilled.readings] == [2 * (1000 + 100) - 1500]


def test_profile_row_of_an_epoch_is_the_one_before_it(tmp_path: Path) -> None:
    (tmp_path / "sun.csv").write_text("hour,kwh\n0,1\n1,2\n2,3.5\n")
    body = "flows: [{name: sun, kind: produce, actors: a, resource: energy, profile: {file: sun.csv, column: kwh}}]\n"
    result = play_text(world(body + NONE), folder=tmp_path)
    assert [flow.readings[0].applied for _, flow in flows(result, "produce")] == [10, 20, 35]


def test_flow_runs_from_until_and_every() -> None:
    flow = "flows: [{name: x, kind: produce, actors: a, resource: energy, amount: 1, from: 2, until: 8, every: 3}]\n"
    assert [epoch for epoch, _ in flows(play_text(world(flow + NONE, 12)), "produce")] == [2, 5, 8]


def test_growth_is_rounded_half_to_even_and_capped() -> None:
    flow = "flows: [{name: x, kind: grow, actors: a, resource: energy, factor: 1.5, cap: 11}]\n"
    actors = "actors: [{id: a, balances: {energy: 0.5}}]\n"
    grown = [flow.readings[0].applied for _, flow in flows(play_text(world(flow + NONE, 9, actors)), "grow")]
    # 5 -> 7.5 -> 8 (even); 8 -> 12; 12 -> 18; 27; 40.5 -> 40; 60; 90; 110 (cap)
    assert grown == [3, 4, 6, 9, 13, 20, 30, 20]


def test_noise_is_drawn_for_each_actor_and_never_below_zero() -> None:
    flow = "flows: [{name: x, kind: produce, actors: [a, b], resource: energy, amount: 1, noise: {normal: 2}}]\n"
    readings = [r for _, f in flows(play_text(world(flow + NONE, 200)), "produce") for r in f.readings]
    assert all(r.applied > 0 for r in readings) and len({r.applied for r in readings}) > 30
    other = play_text(world(flow + NONE, 200), "seed=2")
    assert [r for _, f in flows(other, "produce") for r in f.readings] != readings


def test_decisions_do_not_shift_what_is_drawn() -> None:
    drawn = [flows(play("drought", proposer=f"policy:{p}"), "need") for p in ("none", "greedy")]
    assert drawn[0] == drawn[1]


def test_scaling_multiplies_and_ends() -> None:
    body = """
flows: [{name: x, kind: produce, actors: a, resource: energy, amount: 1.5}]
changes: [{epoch: 2, until: 3, scale: {flow: x, by: 0.5}}, {epoch: 3, scale: {flow: x, by: 3}}]
"""
    applied = [f.readings[0].applied for _, f in flows(play_text(world(body + NONE, 4)), "produce")]
    assert applied == [15, 8, 22, 45]  # 7.5 and 22.5 go to the even neighbour


def test_changes_of_constraints_are_records_and_end() -> None:
    body = "constraints: {max_transfer: 50}\nchanges: [{epoch: 2, until: 2, set: {constraints.max_transfer: 1}}]\n"
    result = scripted(world(body + "proposers: [{kind: policy, policy: none}]\n"), Script(give("a", "b", 20)))
    assert [d.outcome for d in decisions(result)] == ["executed", "rejected", "executed"]
    changed = [r.epoch for r in result.engine.ledger.records() if r.kind == "constraints"]
    assert changed == [2, 3]


def test_flow_that_outgrows_15_digits_is_refused_with_its_place() -> None:
    flow = "flows: [{name: flood, kind: produce, actors: a, resource: energy, amount: 90000000000000}]\n"
    with pytest.raises(BadInput, match=r"epoch 2, flow flood: .*a's balance"):
        play_text(world(flow + NONE))


# --- rounds -----------------------------------------------------------------------------------------------------------


def test_sequential_proposers_see_what_those_before_them_did() -> None:
    first, second = Script(give("a", "b", 10)), Script(Answer((), ""))
    scripted(world(TWO_PROPOSERS, 1), first, second)
    assert (first.states[0]["a"], second.states[0]["a"]) == (1000, 990)


def test_simultaneous_proposers_see_the_same_and_are_judged_one_by_one() -> None:
    first, second = Script(give("a", "b", 700)), Script(give("a", "b", 700))
    result = scripted(world("decisions: {order: simultaneous}\n" + TWO_PROPOSERS, 1), first, second)
    assert first.states == second.states
    made = decisions(result)
    assert [d.outcome for d in made] == ["executed", "rejected"]
    assert [d.state_moved for d in made] == [False, True]


def test_random_order_is_drawn_anew_each_epoch_and_by_seed() -> None:
    text = world("decisions: {order: random}\n" + TWO_PROPOSERS, 30)
    order = [d.proposer for d in decisions(play_text(text))]
    firsts = order[::2]
    assert {"p", "q"} == set(firsts) and 5 < firsts.count("p") < 25
    assert order != [d.proposer for d in decisions(play_text(text, "seed=2"))]


def test_random_allocation_serves_in_a_drawn_order() -> None:
    text = world("decisions: {order: simultaneous, allocation: random}\n" + TWO_PROPOSERS, 40)
    result = scripted(
        text.replace("energy: 100", "energy: 50"), Script(give("a", "b", 400)), Script(give("a", "b", 400))
    )
    first = [d for d in decisions(result) if d.proposer in "pq"][:2]
    assert sorted((d.granted or (400,))[0] for d in first) == [100, 400]


def test_proposer_has_as_many_rounds_as_the_scenario_says() -> None:
    text = world("proposers: [{kind: policy, policy: none, proposals_per_epoch: 3}]\n", 2)
    records = play_text(text).engine.ledger.records()
    assert [(d.n, r.epoch) for r in records if isinstance(d := r.payload, Decision)] == [
        (1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2),
    ]  # fmt: skip


def test_fixture_lines_of_one_epoch_are_rounds_and_an_epoch_without_a_line_is_noop(tmp_path: Path) -> None:
    transfer = '{{"from": "a", "to": "b", "resource": "energy", "amount": 1}}'
    line = '{{"epoch": {}, "transfers": [' + transfer + '], "reasoning": ""}}\n'
    (tmp_path / "f.jsonl").write_text(line.format(1) * 2 + line.format(3))
    result = play_text(world("proposers: [{kind: fixture, file: f.jsonl}]\n"), folder=tmp_path)
    assert [d.outcome for d in decisions(result)] == ["executed", "executed", "noop", "executed"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"epoch": 1, "transfers": []', "f.jsonl:1"),
        ('{"epoch": "1", "transfers": [], "reasoning": ""}', "whole number"),
        ('{"epoch": 1, "transfers": [{"from": "a"}], "reasoning": ""}', "missing_field"),
        ('{"epoch": 1, "transfers": [], "resoning": ""}', "unknown_field"),
        ('{"epoch": 2, "transfers": []}\n{"epoch": 1, "transfers": []}', "f.jsonl:2"),
    ],
)
def test_broken_fixture_is_refused_with_file_and_line(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "f.jsonl").write_text(line + "\n")
    with pytest.raises(BadInput, match=said):
        play_text(world("proposers: [{kind: fixture, file: f.jsonl}]\n"), folder=tmp_path)


def test_history_shows_what_the_last_proposals_came_to() -> None:
    text = world(
        "constraints: {max_transfer: 5}\nproposers: [{kind: policy, policy: none, context: {history: 2}}]\n", 4
    )
    script = Script(give("a", "b", 10), give("a", "b", 60))
    scripted(text, script)
    assert [[d.outcome for d in context.history] for context in script.seen] == [
        [], ["executed"], ["executed", "rejected"], ["rejected", "executed"],
    ]  # fmt: skip


# --- proposers that fail, shadows, mandates ---------------------------------------------------------------------------


def test_unavailable_stops_the_run_where_the_scenario_says_so() -> None:
    with pytest.raises(ProposerFailed, match="epoch 1: proposer none is unavailable"):
        scripted(world(NONE), Script(Unavailable("quota", "429")))


def test_unavailable_is_recorded_apart_and_never_as_doing_nothing() -> None:
    text = world("proposers: [{kind: policy, policy: none, on_unavailable: record}]\n", 12)
    answers = [give("a", "b", 1)] * 4 + [Unavailable("quota", "429")] + [give("a", "b", 1)] * 7
    counted = outcomes(scripted(text, Script(*answers)))
    assert counted == {"executed": 11, "unavailable": 1}


def test_malformed_is_a_decision_that_moves_nothing() -> None:
    result = scripted(world(NONE, 1), Script(Malformed("not_pure_json", "a code fence", b"```")))
    (decision,) = decisions(result)
    assert (decision.outcome, decision.fault, decision.entries) == (Outcome.MALFORMED, "not_pure_json", ())


def test_shadow_is_judged_and_never_applied_and_leaves_the_digest_alone() -> None:
    alone = "proposers: [{name: p, kind: policy, policy: none}]\n"
    both = "proposers: [{name: p, kind: policy, policy: none}, {name: s, kind: policy, policy: none, role: shadow}]\n"
    without = scripted(world(alone), Script(give("a", "b", 10)))
    with_one = scripted(world(both), Script(give("a", "b", 10)), Script(give("b", "a", 20), give("b", "a", 9000)))
    assert with_one.head_digest == without.head_digest
    assert [(epoch, d.outcome) for epoch, d in with_one.shadows] == [(1, "executed"), (2, "rejected"), (3, "executed")]


def test_shadow_has_its_mandate_although_the_journal_does_not_know_it() -> None:
    shadow_of_a = "{name: s, kind: policy, policy: none, role: shadow, actors: a}"
    each = f"proposers: [{{name: p, kind: policy, policy: none}}, {shadow_of_a}]\n"
    shadow = Script(give("b", "a", 1), give("a", "b", 1))
    result = scripted(world(each, 2), Script(Answer((), "")), shadow)
    assert [d.outcome for _, d in result.shadows] == ["rejected", "executed"]
    assert shadow.seen[0].mandate == {"a"} and result.engine.state.mandates == {}


def test_shadow_of_a_simultaneous_round_takes_no_share() -> None:
    both = "proposers: [{name: p, kind: policy, policy: none}, {name: s, kind: policy, policy: none, role: shadow}]\n"
    text = world("decisions: {order: simultaneous, allocation: proportional}\n" + both, 1)
    result = scripted(text, Script(give("a", "b", 900)), Script(give("a", "b", 900)))
    assert [d.granted for d in decisions(result)] == [None] and decisions(result)[0].outcome == "executed"


def test_proposer_moves_nobody_outside_its_mandate() -> None:
    each = "proposers: [{name: own, kind: policy, policy: none, actors: [a, b]}]\n"
    result = scripted(world(each, 1), Script(give("a", "b", 10)), Script(give("a", "b", 10)))
    made = decisions(result)
    assert [d.proposer for d in made] == ["own/a", "own/b"]
    assert [d.outcome for d in made] == ["executed", "rejected"]
    assert made[1].violations[0].code is Code.NOT_PERMITTED


# --- holds ------------------------------------------------------------------------------------------------------------

HOLDS = "constraints: {hold_above: 5, hold_epochs: 2}\nholds: HOW\nproposers: [{kind: policy, policy: none}]\n"


def held(how: str) -> Result:
    return scripted(world(HOLDS.replace("HOW", how), 4), Script(give("a", "b", 600), give("b", "a", 10)))


def test_hold_is_approved_before_the_next_epochs_proposals() -> None:
    result = held("approve")
    kinds = [(r.epoch, r.kind) for r in result.engine.ledger.records() if r.kind in ("proposal", "settlement")]
    assert kinds[:3] == [(1, "proposal"), (2, "settlement"), (2, "proposal")]
    assert [s.outcome for s in settlements(result)] == ["executed", "executed"][: len(settlements(result))]


def test_hold_is_rejected_or_expires_as_the_scenario_says() -> None:
    assert {v.code for s in settlements(held("reject")) for v in s.violations} == {Code.HOLD_REJECTED}
    expired = held("expire")
    assert [v.code for s in settlements(expired) for v in s.violations] == [Code.HOLD_EXPIRED]
    records = [r for r in expired.engine.ledger.records() if r.kind == "settlement"]
    assert [r.epoch for r in records] == [3], "held in epoch 1 for 2 epochs"


def test_what_is_reserved_is_neither_sent_consumed_nor_spilled() -> None:
    body = "flows: [{name: load, kind: consume, actors: a, resource: energy, amount: 100}]\n"
    text = world(body + HOLDS.replace("HOW", "expire"), 2, TWO.replace("100}", "100}, storage: {energy: 0}"))
    result = scripted(text, Script(give("a", "b", 600), give("a", "b", 50)))
    state = result.engine.state
    assert state.balance("a", "energy") == 600
    assert decisions(result)[1].violations[0].code is Code.INSUFFICIENT_BALANCE


# --- the same everywhere ----------------------------------------------------------------------------------------------

EVERY = sorted(path.stem for path in SCENARIOS.glob("*.yaml") if path.stem != "community-year")


@pytest.mark.parametrize("name", EVERY)
def test_sums_are_zero_and_nobody_is_below_zero_at_every_record(name: str) -> None:
    result = play(name)
    replayed = Engine.__new__(Engine)
    from gridgov.replay import fold
    from gridgov.state import State

    replayed.state = State()
    for record in result.engine.ledger.records():
        fold(replayed.state, record)
        for resource, balances in replayed.state.balances.items():
            assert sum(balances.values()) == 0
            assert min((b for actor, b in balances.items() if actor != "grid"), default=0) >= 0
            assert all(0 <= kept <= balances[a] for a, kept in replayed.state.reserved[resource].items())
    assert replayed.state.digest == result.engine.state.digest


@pytest.mark.parametrize("name", EVERY)
def test_replay_in_columns_equals_what_each_close_recorded(name: str) -> None:
    result = play(name)
    genesis = next(result.engine.ledger.records()).payload
    assert isinstance(genesis, Genesis)
    actors, resources = [a.id for a in genesis.actors], [r.name for r in genesis.resources]
    every = balances_every(columns(result.engine.ledger.entries(), actors, resources), result.epochs)
    for record in result.engine.ledger.records():
        if isinstance(record.payload, Close):
            row = every[record.epoch][actors.index("grid")]
            assert dict(zip(resources, row.tolist(), strict=True)) == record.payload.boundary
    for i, actor in enumerate(actors):
        for j, resource in enumerate(resources):
            assert every[-1][i][j] == result.engine.state.balance(actor, resource)


def test_digest_is_the_same_in_other_processes_whatever_the_hash_seed() -> None:
    code = "from tests.plays import play; print(play('drought').head_digest, play('commons-fishery').head_digest)"
    root = SCENARIOS.parent
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "12345")
    }
    assert found == {f"{play('drought').head_digest} {play('commons-fishery').head_digest}\n"}


def test_another_seed_gives_another_digest() -> None:
    heads = {play(name, f"seed={seed}").head_digest for name in ("seed", "drought") for seed in (1, 2, 3)}
    assert len(heads) == 6


def test_name_description_and_expectations_leave_the_digest_alone() -> None:
    plain = play("seed")
    other = play("seed", "name=other", "description=something else", "expect=[]")
    assert other.head_digest == plain.head_digest


def test_kind_of_a_proposer_leaves_the_digest_alone(tmp_path: Path) -> None:
    from sim.launch import launch

    scenario = load(SCENARIOS / "drought.yaml")
    recorded = launch(scenario, out=tmp_path, record=tmp_path / "x.jsonl").summary
    replayed = load(SCENARIOS / "drought.yaml", proposer=f"cassette:{tmp_path / 'x.jsonl'}")
    again = launch(replayed, out=tmp_path).summary
    assert again.head == recorded.head == play("drought").head_digest
    assert again.run_id != recorded.run_id
    assert again.interactions["synthetic"] == 90


def test_live_model_is_asked_by_a_run_alone() -> None:
    scenario = loads(world("proposers: [{kind: gemini}]\n"), "test.yaml", lambda file: SCENARIOS / file)
    world_ = World(scenario)
    with pytest.raises(ProposerFailed, match="asked by `gridgov run` only"):
        Runner(scenario, world_, seats(scenario, world_)).run()
