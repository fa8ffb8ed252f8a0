"""What the scenarios of the repository show, each against figures that the test works out by itself."""

from __future__ import annotations

import csv
import gzip
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from gridgov import export
from gridgov.model import Outcome
from sim.launch import launch
from sim.loading import load
from sim.stubs.replies import REPLIES
from tests.plays import SCENARIOS, decisions, outcomes, play, served, settlements

HOMES = range(1, 18)
WEEK = 168
NO_STORAGE = "actors.home-{n}.storage.energy=0"
NO_QUOTA = "constraints.epoch_quota.energy=1000"


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with gzip.open(SCENARIOS / "data" / "citylearn_2022_17_homes.csv.gz", "rt") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.yaml")), ids=lambda path: path.stem)
def test_scenario_runs_and_meets_its_expectations(path: Path, tmp_path: Path) -> None:
    scenario = load(path, epochs=400 if path.stem == "community-year" else None)
    assert scenario.expect, "each says what it must come to"
    assert scenario.description, "each says what it shows"
    summary = launch(scenario, out=tmp_path).summary
    assert [text for text, held in summary.expectations if not held] == []


def test_without_storage_and_limits_none_serves_what_isolated_homes_serve(rows: list[dict[str, str]]) -> None:
    isolated = sum(min(int(row[f"pv_{i}_wh"]), int(row[f"load_{i}_wh"])) for row in rows[:WEEK] for i in HOMES)
    need = sum(int(row[f"load_{i}_wh"]) for row in rows[:WEEK] for i in HOMES)
    assert served(play("community-week", NO_STORAGE, NO_QUOTA, proposer="policy:none"), "energy") == (need, isolated)


def test_without_storage_and_limits_greedy_serves_what_hourly_pooling_serves(rows: list[dict[str, str]]) -> None:
    pooled = sum(
        min(sum(int(row[f"pv_{i}_wh"]) for i in HOMES), sum(int(row[f"load_{i}_wh"]) for i in HOMES))
        for row in rows[:WEEK]
    )
    assert served(play("community-week", NO_STORAGE, NO_QUOTA, proposer="policy:greedy"), "energy")[1] == pooled


@pytest.mark.parametrize("proposer", ["policy:none", "policy:greedy"])
def test_import_cost_is_exact_to_the_cent(rows: list[dict[str, str]], tmp_path: Path, proposer: str) -> None:
    cost = Decimal(0)
    for row in rows[:WEEK]:
        loads, pvs = [int(row[f"load_{i}_wh"]) for i in HOMES], [int(row[f"pv_{i}_wh"]) for i in HOMES]
        alone = sum(min(pv, load_) for pv, load_ in zip(pvs, loads, strict=True))
        met = alone if proposer == "policy:none" else min(sum(pvs), sum(loads))
        cost += Decimal(sum(loads) - met) / 1000 * Decimal(row["price_usd_per_kwh"])
    scenario = load(SCENARIOS / "community-week.yaml", [NO_STORAGE, NO_QUOTA], proposer=proposer)
    found = launch(scenario, out=tmp_path).summary.metrics["import_cost"]
    assert round(Decimal(str(found["energy"])), 2) == round(cost, 2)


def test_week_ranks_its_proposers_and_the_bound_is_reached() -> None:
    met = {
        p: served(play("community-week", proposer=f"policy:{p}"), "energy")[1] for p in ("none", "greedy", "optimal")
    }
    hasty = served(
        play("community-week", proposer=f"cassette:{SCENARIOS / 'cassettes/community-week.jsonl'}"), "energy"
    )
    assert met["none"] < hasty[1] < met["greedy"] < met["optimal"]


# --- the fishery ------------------------------------------------------------------------------------------------------

HORIZON, POOL, CAP, FISHERS, COLLAPSE = 12, 100, 100, 5, 5


def by_hand(ask: int | None) -> tuple[int, Fraction, Fraction, Fraction]:
    """Survival, efficiency, equality and over-usage of five fishers who ask the same; None: the sustainable share."""
    pool, gains, over, harvests, survival = POOL, [0] * FISHERS, 0, 0, HORIZON
    for month in range(1, HORIZON + 1):
        pool = min(CAP, pool * 2)
        fair = pool // 2 // FISHERS
        want = fair if ask is None else ask
        total = want * FISHERS
        shares = [want] * FISHERS if total <= pool else [pool // FISHERS + (i < pool % FISHERS) for i in range(FISHERS)]
        for i, share in enumerate(shares):
            gains[i] += share
            harvests += share > 0
            over += share > fair
        pool -= sum(shares)
        if pool < COLLAPSE:
            survival = month
            break
    total = sum(gains)
    most = HORIZON * (POOL // 2)
    unequal = sum(abs(a - b) for a in gains for b in gains)
    equality = 1 - Fraction(unequal, 2 * FISHERS * total)
    return survival, 1 - max(Fraction(0), Fraction(most - total, most)), equality, Fraction(over, harvests)


def fish(tmp_path: Path, ask: int | None) -> dict[str, object]:
    proposer = "policy:sustainable" if ask is None else None
    sets = [] if ask is None else ["proposers.0.policy=take", f"proposers.0.amount={ask}"]
    scenario = load(SCENARIOS / "commons-fishery.yaml", sets, proposer=proposer)
    return dict(launch(scenario, out=tmp_path).summary.metrics)


def test_sustainable_fishers_survive_with_all_there_is_to_gain(tmp_path: Path) -> None:
    metrics = fish(tmp_path, None)
    assert (metrics["survival_time"], metrics["equality"], metrics["efficiency"], metrics["over_usage"]) == (
        12,
        1,
        1,
        0,
    )


def test_five_that_take_20_collapse_in_the_first_month(tmp_path: Path) -> None:
    metrics = fish(tmp_path, 20)
    assert metrics["survival_time"] == 1
    assert metrics["efficiency"] == pytest.approx(1 / 6)


@pytest.mark.parametrize("ask", [None, 5, 9, 10, 11, 12, 13, 14, 15, 16, 19, 20, 30])
def test_fishery_agrees_with_figures_worked_out_by_hand(tmp_path: Path, ask: int | None) -> None:
    survival, efficiency, equality, over = by_hand(ask)
    metrics = fish(tmp_path, ask)
    assert metrics["survival_time"] == survival
    assert metrics["efficiency"] == pytest.approx(float(efficiency))
    assert metrics["equality"] == pytest.approx(float(equality))
    assert metrics["over_usage"] == pytest.approx(float(over))


def test_rationing_collapses_where_refusing_looks_like_restraint() -> None:
    ask = ("proposers.0.policy=take", "proposers.0.amount=15")
    assert play("commons-fishery", *ask).collapsed == 2
    refusing = play("commons-fishery", *ask, "decisions={order: sequential}")
    assert refusing.collapsed is None


# --- hostile replies, and the drought ---------------------------------------------------------------------------------


def test_every_hostile_reply_ends_in_its_own_outcome() -> None:
    result = play("hostile")
    found = [(d.outcome, d.fault or (d.violations[0].code.value if d.violations else "")) for d in decisions(result)]
    assert found == [(reply.outcome, reply.code) for reply in REPLIES]


def test_hostile_replies_move_nothing_but_what_is_executed() -> None:
    result = play("hostile")
    executed = [d for d in decisions(result) if d.outcome is Outcome.EXECUTED]
    assert [entry.amount for entry in result.engine.ledger.entries() if entry.kind == "transfer"] == [
        transfer.amount for d in executed for transfer in d.transfers
    ]


def test_hostile_cassette_is_what_its_module_writes(tmp_path: Path) -> None:
    from sim.stubs.replies import CASSETTE, write

    write(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == CASSETTE.read_bytes()


def test_week_cassette_is_what_its_command_writes(tmp_path: Path) -> None:
    scenario = load(SCENARIOS / "community-week.yaml", proposer="policy:hasty")
    launch(scenario, out=tmp_path, record=tmp_path / "again.jsonl")
    recorded = SCENARIOS / "cassettes" / "community-week.jsonl"
    assert (tmp_path / "again.jsonl").read_bytes() == recorded.read_bytes()


def test_waiting_for_approval_costs_the_towns_water() -> None:
    held = play("drought")
    free = play("drought", "changes.3.set={constraints.max_transfer: 110}")
    refused = play("drought", "holds=reject")
    assert outcomes(held)["held"] > 0 and outcomes(free)["held"] == 0
    assert served(refused, "water")[1] < served(held, "water")[1] < served(free, "water")[1]
    assert {s.decision for s in settlements(held)} == {"approve"}


def test_export_of_a_collapsed_run_ends_at_the_collapse(tmp_path: Path) -> None:
    scenario = load(SCENARIOS / "commons-fishery.yaml", ["proposers.0.policy=take_max"])
    summary = launch(scenario, out=tmp_path).summary
    assert (summary.epochs, summary.horizon) == (1, 12)
    assert export.metrics(Path(summary.export))["survival_rate"] == 0
