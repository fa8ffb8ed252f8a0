"""A statement adds up, equals sums by hand and the metrics of a run, and is the same from every kind of history."""

import csv
import io
import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridgov.errors import BadInput, Damaged
from gridgov.postgres import Reader
from gridgov.source import Source, open_source
from gridgov.statement import ALWAYS, Period, check, month, of_grid, of_source, period, statements_of
from gridgov.statement_rows import csv_of
from gridgov.wire import timestamp
from tests import grids
from tests.commands import one_line
from tests.plays import decisions, play, play_text

pytest_plugins = ["tests.commands"]

HOUR = 3_600_000_000


class Played(Source):
    """The history of a run in memory."""

    def __init__(self, result):
        super().__init__(Path("played"), None, {})
        self._records = list(result.engine.ledger.records())

    def lines(self):
        return ((record.body, record.digest) for record in self._records)


def account(document, resource="energy"):
    return next(one for one in document["accounts"] if one["resource"] == resource)


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_equals_the_sums_that_a_person_would_make():
    """The seed scenario: 100 kWh to begin with, and three proposals that are executed."""
    result = play("seed")
    told = of_source(Played(result), "actor-1").document()
    own = account(told)
    done = {decision.proposal_id for decision in decisions(result) if decision.outcome == "executed"}
    assert len(done) == 3
    gave, got = 0, 0
    for entry in result.engine.ledger.entries():
        if entry.proposal_id in done and entry.resource == "energy":
            gave += entry.amount * (entry.actor_from == "actor-1")
            got += entry.amount * (entry.actor_to == "actor-1")
    assert (own["opening"], own["in"]["genesis"]) == (0, 100)
    assert (own["out"].get("given", 0), own["in"].get("received", 0)) == (gave / 1000, got / 1000)
    assert own["closing"] == 100 + got / 1000 - gave / 1000 == result.engine.state.balance("actor-1", "energy") / 1000
    assert account(told, "water")["unit"] == "m3" and told["head"]["seq"] == result.engine.state.seq


WORLD = """
name: two
epochs: 3
start: "2026-10-31T22:00:00Z"
epoch_length: 1h
resources: {energy: {unit: kWh, scale: 3}}
actors:
  - {id: a, type: node, balances: {energy: 10}, storage: {energy: 12}}
  - {id: b, type: node, balances: {energy: 0}}
flows:
  - {name: sun, kind: produce, actors: a, resource: energy, amount: 4}
  - {name: load, kind: consume, actors: b, resource: energy, amount: 3.5}
prices: {energy: {profile: {file: prices.csv, column: usd}}}
proposers:
  - {name: p, kind: fixture, file: gifts.jsonl}
"""


@pytest.fixture
def two(tmp_path):
    """Two actors for three hours around midnight, as a scenario in a file."""
    gift = {"from": "a", "to": "b", "resource": "energy"}
    gifts = [{"epoch": epoch, "transfers": [{**gift, "amount": amount}], "reasoning": ""}
             for epoch, amount in ((1, 2), (2, 1), (3, 5))]  # fmt: skip
    (tmp_path / "gifts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in gifts))
    (tmp_path / "prices.csv").write_text("usd\n0.5\n0.25\n2\n")
    (tmp_path / "two.yaml").write_text(WORLD)
    return tmp_path / "two.yaml"


def test_a_month_of_a_run_is_its_epochs_that_begin_in_it(gridgov, two):
    """Epochs 1 and 2 begin on 31 October, 3 on 1 November. b needs 3.5 in each, and gets 2, 1 and 5."""
    run = gridgov("run", two, "--json").json["run_id"]
    october = gridgov("statement", "--source", run, "--actor", "b", "--month", "2026-10", "--json").json
    own = account(october)
    assert (own["opening"], own["in"], own["out"], own["closing"]) == (0, {"received": 3}, {"consume": 3}, 0)
    assert own["needs"] == {"announced": 7, "demanded": 7, "served": 3, "unmet": 4}
    assert own["cost"] == 1.5 * 0.5 + 2.5 * 0.25
    november = account(gridgov("statement", "--source", run, "--actor", "b", "--month", "2026-11", "--json").json)
    assert (november["opening"], november["in"], november["out"]) == (0, {"received": 5}, {"consume": 3.5})
    assert (november["closing"], november["cost"]) == (1.5, 0)
    a = account(gridgov("statement", "--source", run, "--actor", "a", "--json").json)
    assert a["in"] == {"genesis": 10, "produce": 12} and a["out"] == {"given": 8, "spill": 3} and a["closing"] == 11
    assert a["given"] == [{"actor": "b", "amount": 8, "transfers": 3}]
    text = gridgov("statement", "--source", run, "--actor", "b")
    assert "received from a (3 transfers)" in text.out and "+8.000" in text.out and "-6.500" in text.out
    assert "4.000 kWh unmet" in text.out and "cost of what was unmet: 1.38" in text.out


def test_a_statement_says_what_is_wrong_with_what_was_asked(gridgov, two):
    run = gridgov("run", two, "--json").json["run_id"]
    asked = ("statement", "--source", run)
    assert "did you mean" in one_line(gridgov(*asked, "--actor", "aa"), 2)
    assert "2026-13" in one_line(gridgov(*asked, "--actor", "a", "--month", "2026-13"), 2)
    assert "either a month" in one_line(
        gridgov(*asked, "--actor", "a", "--month", "2026-10", "--until", "2026-11-01"), 2
    )
    assert "choose one" in one_line(gridgov(*asked, "--actor", "a", "--json", "--csv"), 2)
    assert "Missing option '--actor'" in one_line(gridgov(*asked), 2)
    none = gridgov(*asked, "--actor", "a", "--month", "2031-01", "--json").json
    assert account(none)["opening"] == account(none)["closing"] == 11 and account(none)["in"] == {}
    before = gridgov(*asked, "--actor", "a", "--until", "2001-01-01", "--json").json
    assert account(before)["closing"] == 0 and before["head"] is None and before["until"] == "2001-01-01T00:00:00Z"


@pytest.mark.parametrize("scenario", ["community-week", "drought", "commons-fishery"])
def test_equals_the_metrics_of_a_run(gridgov, scenario):
    run = gridgov("run", f"scenarios/{scenario}.yaml", "--json").json
    with duckdb.connect(run["export"], read_only=True) as connection:
        names = [column[0] for column in connection.execute("DESCRIBE metrics_actor").fetchall()]
        rows = connection.execute("SELECT * FROM metrics_actor").fetchall()
    with open_source(run["export"], None) as source:
        told = {one.actor: one.document() for one in statements_of(source)}
    for row in (dict(zip(names, row, strict=True)) for row in rows):
        own = account(told[row["actor"]], row["resource"])
        assert own["in"].get("produce", 0) == float(row["produced"]) and own["in"].get("grow", 0) == float(row["grown"])
        assert own["out"].get("spill", 0) == float(row["spilled"])
        assert own["out"].get("given", 0) == float(row["given"]) and own["in"].get("received", 0) == float(
            row["received"]
        )
        needs = own["needs"]
        assert [needs[k] for k in ("demanded", "served", "unmet")] == [
            float(row[k]) for k in ("demanded", "served", "unmet")
        ]  # fmt: skip
        assert own["closing"] == float(row["balance"])
        cost = row["import_cost"]
        assert own["cost"] == (None if cost is None else float(cost)), (row["actor"], row["resource"])


# --- for any world ----------------------------------------------------------------------------------------------------

RANDOM = """
name: random
epochs: 6
start: "2026-11-01T00:00:00Z"
epoch_length: 1h
resources: {energy: {unit: kWh, scale: 2}, water: {unit: m3, scale: 0}}
constraints: {max_transfer: 6, hold_above: {energy: 4}}
holds: approve
actors:
  - {id: "n-{n}", count: 4, type: node, balances: {energy: 20, water: 9}, storage: {energy: 25}}
flows:
  - {name: sun, kind: produce, actors: "n-{n}", resource: energy, amount: 5, noise: {normal: 2}}
  - {name: load, kind: consume, actors: "n-{n}", resource: energy, amount: 6, noise: {normal: 3}}
  - {name: well, kind: grow, actors: n-1, resource: water, factor: 2, cap: 40}
proposers:
  - {name: p, kind: policy, policy: random, proposals_per_epoch: 3}
"""


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(-1, 7), min_size=1, max_size=3, unique=True))
def test_statements_of_any_world_add_up_over_time_and_over_everyone(seed, cuts):
    source = Played(play_text(f"seed: {seed}\n{RANDOM}"))
    begin = 1_793_491_200_000_000
    assert timestamp(begin) == "2026-11-01T00:00:00Z"
    times = [ALWAYS.since, *(begin + cut * HOUR for cut in sorted(cuts)), ALWAYS.until]
    whole = {one.actor: one for one in statements_of(source)}
    parts = [statements_of(source, None, Period(*each)) for each in pairwise(times)]
    for name in ("energy", "water"):
        for told in (list(whole.values()), *parts):
            own = [account for one in told for account in one.accounts if account.resource.name == name]
            assert sum(account.opening for account in own) == sum(account.closing for account in own) == 0
            assert sum((account.came for account in own), Counter()) == sum_renamed(own)
        for actor, one in whole.items():
            accounts = [
                a for told in parts for s in told if s.actor == actor for a in s.accounts if a.resource.name == name
            ]
            (all_of_it,) = [account for account in one.accounts if account.resource.name == name]
            for earlier, later in pairwise(accounts):
                assert earlier.closing == later.opening
            assert sum((a.came for a in accounts), Counter()) == +all_of_it.came
            assert sum((a.left for a in accounts), Counter()) == +all_of_it.left
            assert sum(a.demanded - a.served for a in accounts) == all_of_it.demanded - all_of_it.served


def sum_renamed(accounts):
    """What left everyone, by the names that it has where it comes to."""
    left = sum((account.left for account in accounts), Counter())
    return Counter({"received" if kind == "given" else kind: amount for kind, amount in left.items()})


def test_a_statement_that_does_not_add_up_is_refused():
    told = of_source(Played(play("seed")), "actor-1")
    wrong = replace(told.accounts[0], closing=told.accounts[0].closing + 1)
    with pytest.raises(Damaged, match="does not add up"):
        check(told._replace(accounts=[wrong]))
    below = replace(told.accounts[0], opening=-1, closing=told.accounts[0].closing - 1)
    with pytest.raises(Damaged, match="actor-1"):
        check(told._replace(accounts=[below]))
    check(told._replace(actor="grid", accounts=[below]))


# --- from a grid ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def played(server):
    return server.url(server.template("played", grids.play))


def test_a_grid_a_journal_and_sums_come_to_the_same(gridgov, played, monkeypatch, tmp_path):
    monkeypatch.setenv("GRIDGOV_DATABASE_URL", played)
    journal = tmp_path / "grid.jsonl"
    assert gridgov("export", "postgres", "--out", journal).code == 0
    with open_source("postgres", None, (played, grids.GRID)) as source:
        folded = {one.actor: one.document() for one in statements_of(source)}
    reader = Reader(played, grids.GRID, 1)
    try:
        for actor, document in folded.items():
            assert of_grid(reader, actor).document()["accounts"] == document["accounts"]
    finally:
        reader.close()
    for actor in ("actor-1", "actor-3"):
        from_grid = gridgov("statement", "--actor", actor, "--json").json
        from_file = gridgov("statement", "--actor", actor, "--source", journal, "--json").json
        assert from_grid["accounts"] == from_file["accounts"] == folded[actor]["accounts"]
        assert from_grid["head"] == from_file["head"] and from_grid["source"] == "postgres:main"
    said = gridgov("statement", "--actor", "actor-1", "--csv")
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert said.code == 0 and said.err == "" and {row["line"] for row in rows} >= {"opening", "override", "closing"}
    assert "actor-2" in one_line(gridgov("statement", "--actor", "actor-22"), 2)


# --- as CSV, and as people write times --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1x", "@sum(a1)", "\tx", '"quoted", and more', "a\r\nb"])
def test_a_hostile_name_stays_text_in_csv(name):
    party = {"actor": name, "amount": 0.000001, "transfers": 1}
    needs = dict.fromkeys(("announced", "demanded", "served", "unmet"), 0)
    one = {"resource": "energy", "unit": "kWh", "opening": 1, "in": {"received": 0.000001}, "out": {},
           "closing": 1.000001, "received": [party], "given": [], "needs": needs, "cost": None}  # fmt: skip
    told = {"actor": name, "since": None, "until": None, "accounts": [one]}
    rows = list(csv.DictReader(io.StringIO(csv_of(told), newline="")))
    assert {row["actor"] for row in rows} == {f"'{name}" if name[0] in "=+-@\t" else name}
    assert rows[1]["amount"] == "0.000001" and rows[2]["amount"] == "1.000001"


def test_times_are_read_as_people_write_them():
    assert [timestamp(at) for at in month("2026-12")] == ["2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"]
    assert [timestamp(at) for at in month("2028-02")] == ["2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"]
    assert month("9999-12").until == ALWAYS.until
    assert period(None, None, None) is None
    assert period(None, "2026-11-01", None) == Period(month("2026-11").since, ALWAYS.until)
    assert period(None, "2026-11-01T00:00:00Z", "2026-12-01") == month("2026-11")
    for wrong in (("2026-1x", None, None), ("0000-01", None, None), (None, "x", None), (None, "2026-02-30", None)):
        with pytest.raises(BadInput):
            period(*wrong)
