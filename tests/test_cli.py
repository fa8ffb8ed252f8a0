"""The command line as a user meets it: what it prints, where, and its exit code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from gridgov import cli, settings
from sim.form import METRICS
from tests.commands import Run, Said, one_line
from tests.plays import SCENARIOS, play

pytest_plugins = ["tests.commands"]

WEEK, SEED, FISHERY = (str(SCENARIOS / f"{name}.yaml") for name in ("community-week", "seed", "commons-fishery"))


# --- run --------------------------------------------------------------------------------------------------------------


def test_run_prints_one_document_with_the_promised_keys(gridgov: Run) -> None:
    said = gridgov("run", SEED, "--json")
    assert said.code == 0 and said.err == ""
    found = said.json
    assert {
        "run_id", "scenario", "seed", "proposers", "epochs", "entries", "outcomes", "violations", "metrics",
        "head_digest", "export", "interactions", "seconds",
    } <= found.keys()  # fmt: skip
    assert found["outcomes"] == {
        "executed": 3, "rejected": 5, "held": 0, "noop": 1, "malformed": 0, "unavailable": 0,
    }  # fmt: skip
    assert found["head_digest"] == play("seed").head_digest
    assert re.fullmatch("[0-9a-f]{16}", found["run_id"])
    assert Path(found["export"]).name == f"{found['run_id']}.duckdb"
    assert found["metrics"]["acceptance_rate"] == 0.375
    assert found["interactions"]["recorded"] == found["interactions"]["synthetic"] == 0


def test_run_says_in_words_what_happened(gridgov: Run) -> None:
    said = gridgov("run", WEEK)
    for words in ("What was asked: 168 proposals", "executed", "alone (none)", "at best", "regret", "met  "):
        assert words in said.out
    assert "synthetic" not in said.out


def test_run_takes_seed_epochs_and_overrides(gridgov: Run) -> None:
    found = gridgov(
        "run", WEEK, "--seed", 5, "--epochs", 24, "--set", "constraints.epoch_quota.energy=0.3", "--json"
    ).json
    assert (found["seed"], found["epochs"]) == (5, 24)
    again = gridgov(
        "run", WEEK, "--set", "seed=5", "--set", "epochs=24", "--set", "constraints.epoch_quota.energy=0.3", "--json"
    )
    assert again.json["head_digest"] == found["head_digest"]


def test_run_twice_keeps_the_file_it_made(gridgov: Run) -> None:
    first = gridgov("run", SEED, "--json").json
    before = Path(first["export"]).stat()
    second = gridgov("run", SEED, "--json").json
    assert second["run_id"] == first["run_id"]
    assert Path(first["export"]).stat().st_mtime_ns == before.st_mtime_ns


def test_recording_a_policy_makes_a_cassette_that_replays_to_the_same_head(gridgov: Run, tmp_path: Path) -> None:
    tape = tmp_path / "x.jsonl"
    recorded = gridgov("run", WEEK, "--epochs", 30, "--proposer", "policy:greedy", "--record", tape, "--json").json
    replayed = gridgov("run", WEEK, "--epochs", 30, "--proposer", f"cassette:{tape}", "--json").json
    assert replayed["head_digest"] == recorded["head_digest"]
    assert replayed["interactions"]["synthetic"] == 30 and replayed["interactions"]["recorded"] == 0
    said = gridgov("run", WEEK, "--epochs", 30, "--proposer", f"cassette:{tape}")
    assert "30 of 30 replies are synthetic" in said.out


def test_cassette_that_misses_fails_saying_why_and_exports_nothing(gridgov: Run, tmp_path: Path) -> None:
    tape = tmp_path / "x.jsonl"
    gridgov("run", WEEK, "--epochs", 10, "--proposer", "policy:greedy", "--record", tape)
    before = set((tmp_path / "runs").iterdir())
    said = gridgov(
        "run", WEEK, "--epochs", 10, "--set", "constraints.max_transfer.energy=0.4", "--proposer", f"cassette:{tape}"
    )
    assert said.code == 3
    assert "constraints" in said.err and "epoch 1" in said.err
    assert "-" in said.err and "+" in said.err, "the diff is shown"
    assert set((tmp_path / "runs").iterdir()) == before


def test_failed_expectation_ends_in_1_after_the_summary(gridgov: Run) -> None:
    said = gridgov("run", FISHERY, "--proposer", "policy:take_max", "--json")
    assert said.json["metrics"]["survival_time"] == 1
    assert "survival_time exactly 12: 1" in one_line(said, 1)


def test_proposer_that_fails_ends_in_3_and_exports_nothing(gridgov: Run, tmp_path: Path) -> None:
    hostile = SCENARIOS / "hostile.yaml"
    said = gridgov("run", hostile, "--set", "proposers.0.on_unavailable=stop")
    assert "unavailable (quota" in one_line(said, 3)
    assert not list((tmp_path / "runs").glob("*.duckdb"))


def test_interrupted_run_publishes_nothing(gridgov: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gridgov.engine import Engine

    closed = Engine.close

    def interrupted(self: Engine, *args: object, **kwargs: object) -> object:
        if self.state.epoch == 5:
            raise KeyboardInterrupt
        return closed(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Engine, "close", interrupted)
    said = gridgov("run", WEEK, "--record", tmp_path / "x.jsonl")
    assert said.code == 130 and "nothing half-done" in said.err
    assert not list(tmp_path.rglob("*.duckdb")) and not (tmp_path / "x.jsonl").exists()


def test_a_file_of_the_scenario_is_never_recorded_over(gridgov: Run, tmp_path: Path) -> None:
    tape = tmp_path / "x.jsonl"
    gridgov("run", WEEK, "--epochs", 5, "--proposer", "policy:greedy", "--record", tape)
    before = tape.read_bytes()
    said = gridgov("run", WEEK, "--epochs", 5, "--proposer", f"cassette:{tape}", "--record", tape)
    assert "reads this file" in one_line(said, 2)
    said = gridgov("run", WEEK, "--epochs", 5, "--proposer", f"cassette:{tape}", "--record", tmp_path / "y.jsonl")
    assert "recorded already" in one_line(said, 2)
    assert tape.read_bytes() == before and sorted(tmp_path.glob("*.jsonl*")) == [tape]


@pytest.mark.parametrize(
    "words", [("run", SEED, "--set", "\udcff=1"), ("run", SEED, "--out", "o\udcff"), ("replay", "\udcff")]
)
def test_an_argument_that_is_no_text_is_refused(gridgov: Run, words: tuple[str, ...]) -> None:
    assert "is no UTF-8" in one_line(gridgov(*words), 2)


def test_a_run_whose_boundary_no_file_holds_is_not_exported(
    gridgov: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gridgov.tables.BOUNDARY_MAX", 180_000 - 1)  # energy: 100 and 80, in thousandths
    assert "or more of energy, more than a run file holds" in one_line(gridgov("run", SEED), 2)
    assert not list(tmp_path.rglob("*.duckdb"))
    monkeypatch.setattr("gridgov.tables.BOUNDARY_MAX", 180_000)
    assert gridgov("run", SEED).code == 0


def test_lines_of_a_fixture_that_were_not_played_are_counted(gridgov: Run, tmp_path: Path) -> None:
    assert "of the fixture" not in gridgov("run", SEED).out
    said = gridgov("run", SEED, "--epochs", 7, "--set", "expect=[]").out
    assert "of the fixture, 2 lines are of epochs after 7, the last that was played" in said


def test_a_recording_needs_the_name_of_a_file(gridgov: Run) -> None:
    assert "expected the name of a file" in one_line(gridgov("run", SEED, "--record", "/"), 2)


def test_expectation_with_two_bounds_needs_both(gridgov: Run) -> None:
    both = "expect=[{metric: self_sufficiency, resource: energy, at_least: 0, at_most: 0.1}]"
    assert "at least 0 and at most 0.1" in one_line(gridgov("run", WEEK, "--epochs", 24, "--set", both, "--json"), 1)


def test_every_metric_that_may_be_expected_is_one_that_a_run_has(gridgov: Run) -> None:
    week = set(gridgov("run", WEEK, "--epochs", 5, "--json").json["metrics"])
    fish = set(gridgov("run", FISHERY, "--json").json["metrics"])
    assert set(METRICS) - {"loss_of_load_probability"} <= week | fish
    mean = "expect=[{metric: loss_of_load_probability, resource: energy, at_most: 1}, {metric: regret, at_most: 1}]"
    assert gridgov("run", WEEK, "--epochs", 24, "--set", mean).code == 0


def test_an_export_that_was_changed_is_not_kept(gridgov: Run) -> None:
    found = gridgov("run", SEED, "--json").json
    with duckdb.connect(found["export"]) as connection:
        connection.execute("UPDATE balances SET amount = 7 WHERE epoch = 3 AND actor = 'actor-1'")
    assert "not what it was" in one_line(gridgov("run", SEED), 1)


def test_an_export_may_be_copied_under_any_name(gridgov: Run, tmp_path: Path) -> None:
    found = gridgov("run", SEED, "--json").json
    for name in ("greedy-0.5.duckdb", "main.duckdb"):
        (tmp_path / name).write_bytes(Path(found["export"]).read_bytes())
        assert gridgov("verify", tmp_path / name).code == 0


def test_a_full_disk_is_said_in_one_line(gridgov: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr("gridgov.export.Store.write", full)
    assert "No space left" in one_line(gridgov("run", SEED), 2)


# --- bad input: exit 2, one line --------------------------------------------------------------------------------------

BAD = [
    (("run", WEEK, "--set", "constraints.max_transfr=1"), "did you mean 'max_transfer'"),
    (("run", WEEK, "--set", "epochs=9000"), "9,000"),
    (("run", WEEK, "--set", "flows.pv.profile.column=pv_{n}_w"), "column"),
    (("run", WEEK, "--set", "constraints.max_transfer.energy=0.12345"), "decimals"),
    (("run", WEEK, "--set", "constraints.max_transfer.energy=1e15"), "range"),
    (("run", WEEK, "--set", "actors.0.balances.energy=.nan"), "number"),
    (("run", WEEK, "--set", "flows.pv.actors=house-1"), "house-1"),
    (("run", SEED, "--set", "actors.1.id=actor-1"), "actor-1"),
    (("run", "nowhere.yaml"), "nowhere.yaml"),
    (("run", WEEK, "--proposer", "policy:gready"), "greedy"),
    (("run", WEEK, "--proposer", "magic:1"), "magic"),
    (("run", WEEK, "--proposer", "cassette:none.jsonl"), "none.jsonl"),
    (("replay", "0000000000000000"), "0000000000000000"),
    (("replay", "postgres"), "gridgov up"),
    (("replay", SEED), SEED),
    (("explain", "missing.duckdb", "x"), "missing.duckdb"),
    (("cassette", "show", "missing.jsonl"), "missing.jsonl"),
]


@pytest.mark.parametrize(
    ("args", "words"), BAD, ids=[" ".join(map(str, args[0::2])) + str(i) for i, (args, _) in enumerate(BAD)]
)
def test_bad_input_ends_in_2_with_one_line(gridgov: Run, tmp_path: Path, args: tuple[str, ...], words: str) -> None:
    assert words in one_line(gridgov(*args), 2)
    assert not list(tmp_path.rglob("*.duckdb"))


@pytest.mark.parametrize("args", [(), ("run",), ("run", WEEK, "--seed", "x"), ("nonsense",)])
def test_wrong_usage_ends_in_2(gridgov: Run, args: tuple[str, ...]) -> None:
    assert gridgov(*args).code == 2


# --- check, schema, judge ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.yaml")), ids=lambda path: path.stem)
def test_check_passes_every_scenario(gridgov: Run, path: Path) -> None:
    said = gridgov("check", path, "--json")
    assert said.code == 0 and said.json["valid"] is True


def test_check_finds_a_profile_that_is_too_short(gridgov: Run, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("a\n1\n2\n")
    text = Path(SEED).read_text().replace("proposers:", "flows: [{name: x, kind: produce, actors: actor-1, resource: "
           "energy, profile: {file: p.csv, column: a}}]\nproposers:")  # fmt: skip
    (tmp_path / "s.yaml").write_text(
        text.replace("{name: planner, kind: fixture, file: data/seed-proposals.jsonl}", "{kind: policy, policy: none}")
    )
    said = one_line(gridgov("check", tmp_path / "s.yaml"), 2)
    assert "p.csv" in said and "9" in said and "2" in said


def test_schema_is_what_the_repository_holds(gridgov: Run) -> None:
    assert gridgov("schema").json == json.loads((SCENARIOS / "scenario.schema.json").read_text())


WORLD: Any = {
    "epoch": 42,
    "timestamp": "2025-02-28T12:00:00Z",
    "actors": [
        {"id": "actor-1", "type": "node", "balances": {"energy": 100, "water": 50}},
        {"id": "actor-2", "type": "node", "balances": {"energy": 80, "water": 120}},
    ],
    "resources": ["energy", "water", "credits"],
    "constraints": {"max_transfer": 50, "min_balance": 10},
}


def judged(gridgov: Run, tmp_path: Path, world: Any, *transfers: tuple[str, str, str, object]) -> Said:
    asked = [{"from": a, "to": b, "resource": r, "amount": n} for a, b, r, n in transfers]
    (tmp_path / "state.json").write_text(json.dumps(world))
    (tmp_path / "proposal.json").write_text(json.dumps({"transfers": asked, "reasoning": "a test"}))
    return gridgov("judge", "--state", tmp_path / "state.json", "--proposal", tmp_path / "proposal.json")


WATER, ENERGY = ("actor-1", "actor-2", "water"), ("actor-1", "actor-2", "energy")


@pytest.mark.parametrize(
    ("extra", "transfers", "codes"),
    [
        ({}, [(*WATER, 40)], []),
        ({}, [(*WATER, 41)], ["min_balance"]),
        ({}, [(*WATER, 60)], ["max_transfer", "insufficient_balance"]),
        ({}, [(*ENERGY, 45), (*ENERGY, 45)], []),
        ({"epoch_quota": 50}, [(*ENERGY, 45), (*ENERGY, 45)], ["epoch_quota"]),
        ({}, [("grid", "actor-2", "energy", 1)], ["boundary_actor"]),
        ({}, [(*ENERGY, 0.1234567)], ["precision"]),
        ({"max_transfers_per_proposal": 1}, [(*ENERGY, 1), (*ENERGY, 1)], ["too_many_transfers"]),
    ],
)
def test_judge_says_what_the_validator_says(
    gridgov: Run, tmp_path: Path, extra: Any, transfers: list, codes: list[str]
) -> None:
    world = {**WORLD, "constraints": {**WORLD["constraints"], **extra}}
    said = judged(gridgov, tmp_path, world, *transfers)
    assert said.code == 0
    assert [violation["code"] for violation in said.json["violations"]] == codes
    assert said.json["outcome"] == ("rejected" if codes else "executed")


def test_judge_gives_limit_and_actual_in_units(gridgov: Run, tmp_path: Path) -> None:
    (violation,) = judged(gridgov, tmp_path, WORLD, (*WATER, 41)).json["violations"]
    assert violation == {"code": "min_balance", "path": "transfers[0].amount", "limit": 10, "actual": 9}


def test_judge_holds_pauses_freezes_and_knows_scales(gridgov: Run, tmp_path: Path) -> None:
    held = {**WORLD, "constraints": {"hold_above": 5}}
    assert judged(gridgov, tmp_path, held, (*ENERGY, 6)).json == {"outcome": "held", "violations": []}
    assert judged(gridgov, tmp_path, {**WORLD, "paused": True}, (*ENERGY, 6)).json["violations"][0]["code"] == "paused"
    frozen = {**WORLD, "actors": [{**WORLD["actors"][0], "frozen": True}, WORLD["actors"][1]]}
    assert judged(gridgov, tmp_path, frozen, (*ENERGY, 6)).json["violations"][0]["code"] == "frozen_actor"
    scaled = {**WORLD, "scales": {"energy": 0}}
    assert judged(gridgov, tmp_path, scaled, (*ENERGY, 6.5)).json["violations"][0]["code"] == "precision"


def test_judge_calls_what_is_no_proposal_malformed(gridgov: Run, tmp_path: Path) -> None:
    said = judged(gridgov, tmp_path, WORLD, (*ENERGY, "6"))
    assert (said.code, said.json["outcome"], said.json["fault"]["code"]) == (0, "malformed", "wrong_type")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"resources": None}, "resources"),
        ({"actors": [{"id": "a", "balance": {}}]}, "did you mean 'balances'"),
        ({"constraints": {"max_transfer": -1}}, "constraints.max_transfer"),
        ({"actors": [WORLD["actors"][0]] * 2}, "there twice"),
        ({"scales": {"gold": 1}}, "scales.gold"),
        ({"timestamp": "noon"}, "timestamp"),
        ({"timestamp": 5}, "timestamp"),
        ({"resources": ["energy", "energy", "water"]}, "there twice"),
        ({"actors": [{"id": "a", "balances": [1]}]}, "balances"),
        ({"actors": [{"id": "a", "type": 5}]}, "type"),
    ],
)
def test_judge_refuses_a_state_that_is_none(gridgov: Run, tmp_path: Path, change: Any, words: str) -> None:
    assert words in one_line(judged(gridgov, tmp_path, {**WORLD, **change}, (*ENERGY, 6)), 2)


# --- replay, explain, verify, diff, export ----------------------------------------------------------------------------


@pytest.fixture
def week(gridgov: Run) -> str:
    return gridgov("run", WEEK, "--epochs", 40, "--json").json["run_id"]


def test_replay_gives_the_world_at_the_end_an_epoch_and_an_entry(gridgov: Run, week: str) -> None:
    end, early = gridgov("replay", week, "--json").json, gridgov("replay", week, "--epoch", 7, "--json").json
    assert (end["epoch"], early["epoch"]) == (41, 7)
    assert early["timestamp"] == "2016-08-01T06:00:00Z"
    first = gridgov("replay", week, "--entry", 1, "--json").json
    assert first["actors"][0]["balances"]["credits"] == 100


def test_replay_of_every_epoch_is_one_line_each_and_agrees_with_each_alone(gridgov: Run, week: str) -> None:
    lines = gridgov("replay", week, "--every", "--json").out.splitlines()
    assert len(lines) == 41
    assert json.loads(lines[7]) == gridgov("replay", week, "--epoch", 7, "--json").json


def test_replay_beyond_the_end_says_what_there_is(gridgov: Run, week: str) -> None:
    assert "epochs 0 to 40" in one_line(gridgov("replay", week, "--epoch", 99), 2)
    assert "entries 1 to" in one_line(gridgov("replay", week, "--entry", 999999), 2)
    assert "exclude" in one_line(gridgov("replay", week, "--epoch", 1, "--every"), 2)


def test_replay_shows_a_table_to_a_person(gridgov: Run, week: str) -> None:
    said = gridgov("replay", week, "--epoch", 7)
    assert "home-17" in said.out and "epoch 7" in said.out


def test_journal_as_lines_is_a_source_again(gridgov: Run, week: str, tmp_path: Path) -> None:
    assert gridgov("export", week, "--out", tmp_path / "j.jsonl").code == 0
    assert gridgov("replay", tmp_path / "j.jsonl", "--json").json == gridgov("replay", week, "--json").json
    assert gridgov("verify", tmp_path / "j.jsonl").code == 0
    assert "jsonl" in one_line(gridgov("export", week, "--out", tmp_path / "j.csv"), 2)


def test_explain_tells_the_story_of_a_proposal(gridgov: Run) -> None:
    found = gridgov("run", SEED, "--json").json
    with duckdb.connect(found["export"], read_only=True) as connection:
        ids = [str(row[0]) for row in connection.execute("SELECT proposal_id FROM proposals ORDER BY epoch").fetchall()]
    said = gridgov("explain", found["run_id"], ids[0])
    assert said.code == 0
    assert "rejected" in said.out and "60" in said.out and "50" in said.out
    story = gridgov("explain", found["run_id"], ids[3], "--json").json
    assert {"seen", "said", "judged", "moved"} <= story.keys()
    assert "proposal" in one_line(gridgov("explain", found["run_id"], "x"), 2)


def test_verify_passes_a_run_and_its_head(gridgov: Run, week: str) -> None:
    assert gridgov("verify", week).code == 0
    found = gridgov("verify", week, "--json").json
    head = f"{found['head']['seq']}:{found['head']['digest']}"
    assert gridgov("verify", week, "--expect-head", head).code == 0
    wrong = head[:-1] + ("0" if head[-1] != "0" else "1")
    assert gridgov("verify", week, "--expect-head", wrong).code == 1


def test_verify_names_the_first_bad_record_of_a_tampered_export(gridgov: Run) -> None:
    found = gridgov("run", SEED, "--json").json
    with duckdb.connect(found["export"]) as connection:
        connection.execute("UPDATE ledger SET amount = amount + 1 WHERE id = 3")
    assert "3" in one_line(gridgov("verify", found["run_id"]), 1)


def test_truncated_export_is_damaged(gridgov: Run) -> None:
    found = gridgov("run", SEED, "--json").json
    path = Path(found["export"])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for command in ("verify", "replay"):
        one_line(gridgov(command, found["run_id"]), 1)


def test_diff_finds_the_first_record_at_which_two_runs_part(gridgov: Run) -> None:
    first = gridgov("run", SEED, "--json").json["run_id"]
    other = gridgov("run", SEED, "--set", "constraints.max_transfer=44", "--json")
    second = other.json["run_id"]
    said = gridgov("diff", first, second)
    assert said.code == 0
    assert "max_transfer" in said.out and "proposal" in said.out
    found = gridgov("diff", first, second, "--json").json
    assert found["identical"] is False
    assert "identical" in gridgov("diff", first, first).out


def test_runs_lists_the_store_and_short_ids_are_enough(gridgov: Run, week: str, tmp_path: Path) -> None:
    assert "community-week" in gridgov("runs").out and week in gridgov("runs").out
    (listed,) = gridgov("runs", "--json").json
    assert (listed["run_id"], listed["scenario"]) == (week, "community-week")
    assert gridgov("replay", week[:6], "--json").json == gridgov("replay", week, "--json").json
    (tmp_path / "runs" / "0000.duckdb").write_text("broken")
    assert "0000" in gridgov("runs").out


def test_explain_takes_the_first_characters_of_an_id_and_run_names_one(gridgov: Run) -> None:
    said = gridgov("run", SEED).out
    _, run_id, proposal_id = next(line for line in said.splitlines() if "look further" in line).rsplit(" ", 2)
    assert gridgov("explain", run_id, proposal_id[:8]).out == gridgov("explain", run_id, proposal_id).out


def test_judge_takes_what_replay_gives(gridgov: Run, tmp_path: Path) -> None:
    drought = gridgov("run", SCENARIOS / "drought.yaml", "--epochs", 5, "--json").json["run_id"]
    world = gridgov("replay", drought, "--json").json
    said = judged(gridgov, tmp_path, world, ("reservoir", "town-1", "water", 5.55)).json
    assert [violation["code"] for violation in said["violations"]] == ["precision"]


# --- cassettes --------------------------------------------------------------------------------------------------------

WEEK_TAPE, HOSTILE_TAPE = SCENARIOS / "cassettes" / "community-week.jsonl", SCENARIOS / "cassettes" / "hostile.jsonl"


def test_cassette_check_passes_what_the_repository_holds_and_says_it_is_synthetic(gridgov: Run) -> None:
    for path, scenario in ((WEEK_TAPE, WEEK), (HOSTILE_TAPE, SCENARIOS / "hostile.yaml")):
        said = gridgov("cassette", "check", path, "--scenario", scenario)
        assert said.code == 0 and "synthetic" in said.out and "no problem found" in said.out


@pytest.mark.parametrize(
    "proposers",
    [
        "{name: model, kind: policy, policy: greedy}, {name: other, kind: policy, policy: none}",
        "{name: model, kind: policy, policy: greedy}, {name: other, kind: policy, policy: random, role: shadow}",
        "{name: model, kind: cassette, cassette: x.jsonl}, {name: other, kind: policy, policy: none}",
        "{name: planner, kind: policy, policy: none}",
    ],
)
def test_cassette_check_plays_it_for_those_whose_replies_it_holds(gridgov: Run, tmp_path: Path, proposers: str) -> None:
    tape, scenario = tmp_path / "x.jsonl", tmp_path / "other.yaml"
    only = "proposers=[{name: model, kind: policy, policy: random}]"
    gridgov("run", SEED, "--set", only, "--set", "expect=[]", "--record", tape)
    assert len(tape.read_text().splitlines()) == 9
    scenario.write_text(Path(SEED).read_text().partition("proposers:")[0] + f"proposers: [{proposers}]\n")
    said = gridgov("cassette", "check", tape, "--scenario", scenario)
    assert said.code == 0 and "never asked" not in said.out, said


def test_cassette_check_misses_the_replies_of_a_model_that_it_does_not_hold(gridgov: Run, tmp_path: Path) -> None:
    tape, scenario = tmp_path / "x.jsonl", tmp_path / "other.yaml"
    only = "proposers=[{name: one, kind: policy, policy: random}]"
    gridgov("run", SEED, "--set", only, "--set", "expect=[]", "--record", tape)
    models = "proposers: [{name: one, kind: gemini}, {name: two, kind: gemini}]\n"
    scenario.write_text(Path(SEED).read_text().partition("proposers:")[0] + models)
    said = gridgov("cassette", "check", tape, "--scenario", scenario)
    assert said.code == 3 and "has no reply" in said.err and "two" in said.err and "live model" not in said.err, said
    assert "cannot be read" in one_line(gridgov("cassette", "check", tmp_path / "gone.jsonl", "--scenario", SEED), 2)


def test_cassette_check_names_a_tampered_line(gridgov: Run, tmp_path: Path) -> None:
    lines = HOSTILE_TAPE.read_text().splitlines(keepends=True)
    lines[4] = lines[4].replace("STOP", "STOQ")
    (tmp_path / "x.jsonl").write_text("".join(lines))
    said = gridgov("cassette", "check", tmp_path / "x.jsonl")
    assert said.code == 1 and "5" in said.out and "changed after" in said.out
    assert "x.jsonl:5" in one_line(gridgov("cassette", "show", tmp_path / "x.jsonl"), 1)


def test_cassette_show_gives_figures_a_list_and_one_epoch(gridgov: Run) -> None:
    said = gridgov("cassette", "show", HOSTILE_TAPE)
    assert "54" in said.out and "not_pure_json" in said.out
    found = gridgov("cassette", "show", HOSTILE_TAPE, "--json").json
    assert found["interactions"] == 54 and len(found["lines"]) == 54
    epoch = gridgov("cassette", "show", HOSTILE_TAPE, "--epoch", 3)
    assert "```json" in epoch.out
    assert "was not recorded" in one_line(gridgov("cassette", "show", HOSTILE_TAPE, "--epoch", 999), 2)


# --- what is not loaded -----------------------------------------------------------------------------------------------


def test_help_and_offline_runs_load_nothing_heavy(tmp_path: Path) -> None:
    code = """
import sys
from gridgov import cli
sys.argv = ["gridgov", *sys.argv[1:]]
try:
    cli.main()
except SystemExit:
    pass
heavy = {"google.genai", "streamlit", "fastapi", "ray", "psycopg", "httpx", "pandas"} & set(sys.modules)
assert not heavy, heavy
"""
    for args in (["--help"], ["run", SEED, "--out", str(tmp_path)]):
        subprocess.run([sys.executable, "-c", code, *args], check=True, capture_output=True, cwd=SCENARIOS.parent)


def test_bug_is_one_line_and_an_exit_code_of_its_own(gridgov: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(settings, "load", broken)
    assert "this is a bug" in one_line(gridgov("replay", "x"), cli.CRASHED)
