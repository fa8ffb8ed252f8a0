"""Every metric against figures worked out by hand, and against plain fractions over the records of a run."""

from collections import defaultdict
from dataclasses import replace
from fractions import Fraction

import duckdb
import numpy as np
import pytest

from gridgov.amounts import to_decimal
from gridgov.export import Store, export, metrics
from gridgov.journal import Decision, Flow, Settlement
from gridgov.model import BOUNDARY, Kind, Limit, Outcome
from gridgov.tables import Commons
from tests import worlds

BY_RESOURCE = {
    "produced", "grown", "demanded", "served", "unmet", "spilled", "transferred", "import_cost", "self_sufficiency",
    "self_consumption", "served_share_min", "loss_of_load_probability_max", "gini", "jain", "regret",
    "worse_off",
}  # fmt: skip
BY_RUN = {"acceptance_rate", "waited", "survival_time", "survival_rate", "gain", "efficiency", "equality", "over_usage"}


def exported(run, folder):
    path = export(run, folder)
    return path, metrics(path)


def rows(path, sql):
    with duckdb.connect(str(path), read_only=True) as connection:
        cursor = connection.execute(sql)
        keys = [column[0] for column in cursor.description]
        return [dict(zip(keys, row, strict=True)) for row in cursor.fetchall()]


# --- worked out by hand -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    """Energy: home-1 produces 2 and needs 0.7 twice; home-2 has 0.25, is given 1, and needs 1.5 and 1.3.

    Hour 1: home-1 2 - 1 = 1, serves 0.7, keeps 0.3, of which 0.1 is spilled above 0.2; home-2 1.25 of 1.5.
    Hour 2: home-1 0.2 + 0.1 = 0.3 of 0.7; home-2 nothing of 1.3.
    """
    run = worlds.homes().run(
        prices={"energy": np.array([200_000, 310_000])},
        baselines={"energy": (1_950, 2_350, "")},
        alone={"energy": (("home-1", 1_700), ("home-2", 250))},
    )
    return exported(run, tmp_path_factory.mktemp("homes"))


def test_homes_are_served_what_there_was(homes):
    _, found = homes
    energy = {name: found[name]["energy"] for name in BY_RESOURCE}
    assert energy["produced"] == 2.1
    assert energy["demanded"] == 4.2
    assert energy["served"] == 0.7 + 1.25 + 0.3 == 2.25
    assert energy["unmet"] == 1.95
    assert energy["spilled"] == 0.1
    assert energy["transferred"] == 1
    assert energy["self_sufficiency"] == 2.25 / 4.2
    assert energy["self_consumption"] == 2.25 / 2.1
    assert energy["served_share_min"] == 1.25 / 2.8
    assert energy["loss_of_load_probability_max"] == 1.0
    assert energy["import_cost"] == 0.577  # 0.25 x 0.2 + 1.7 x 0.31
    assert energy["regret"] == 0.25  # (2.35 - 2.25) / (2.35 - 1.95)
    assert energy["worse_off"] == 0.7  # home-1 would have 1.7, and has 1.0; what home-2 gained does not make up for it
    assert energy["gini"] is energy["jain"] is None
    assert found["acceptance_rate"] == 0.5  # one of two; that nothing was proposed once counts apart
    assert found["waited"] == 0


def test_credits_that_nobody_needs_have_no_ratios(homes):
    _, found = homes
    credits = {name: found[name]["credits"] for name in BY_RESOURCE}
    assert credits["gini"] == 0
    assert credits["jain"] == 1
    assert credits["demanded"] == credits["served"] == credits["transferred"] == 0
    for name in ("import_cost", "self_sufficiency", "self_consumption", "served_share_min", "regret", "worse_off"):
        assert credits[name] is None
    assert credits["loss_of_load_probability_max"] is None
    assert [found[name] for name in sorted(BY_RUN - {"acceptance_rate", "waited"})] == [None] * 6


def test_homes_one_by_one(homes):
    path, _ = homes
    one, two = rows(path, "SELECT * FROM metrics_actor WHERE resource = 'energy'")
    assert [str(one[key]) for key in ("demanded", "served", "unmet", "given", "received", "balance")] == [
        "1.400000", "1.000000", "0.400000", "1.000000", "0.000000", "0.000000",
    ]  # fmt: skip
    assert (one["served_share"], one["loss_of_load_probability"]) == (1 / 1.4, 0.5)
    assert (str(one["served_alone"]), str(two["served_alone"])) == ("1.700000", "0.250000")
    assert (two["served_share"], two["loss_of_load_probability"]) == (1.25 / 2.8, 1.0)
    assert [str(row["import_cost"]) for row in (one, two)] == ["0.124000000000", "0.453000000000"]
    assert one["gain"] is two["gain"] is None


def test_homes_hour_by_hour(homes):
    path, _ = homes
    opened, first, second = rows(path, "SELECT * FROM metrics_epoch WHERE resource = 'energy'")
    assert opened["gini"] == 0.5  # 0 and 0.25
    assert opened["jain"] == 0.5
    assert (opened["price"], opened["import_cost"]) == (None, None)
    assert [str(first[key]) for key in ("produced", "served", "unmet", "spilled", "transferred", "import_cost")] == [
        "2.000000", "1.950000", "0.250000", "0.100000", "1.000000", "0.050000000000",
    ]  # fmt: skip
    assert [first[key] for key in ("transfers", "proposals", "executed", "rejected", "noop")] == [1, 2, 1, 1, 0]
    assert [second[key] for key in ("transfers", "proposals", "executed", "rejected", "noop")] == [0, 1, 0, 0, 1]
    assert str(second["import_cost"]) == "0.527000000000"
    assert second["gini"] is None


@pytest.mark.parametrize(
    ("ask", "survival", "gain", "efficiency", "equality", "over_usage"),
    [
        # floor(floor(100 / 2) / 5) = 10 each: 50 a round, and it grows back to 100
        (lambda pool, n, epoch: pool // 2 // n, 12, 600, 1, 1, 0),
        # all 100 in round 1
        (20, 1, 100, Fraction(1, 6), 1, 1),
        # 75 of 100 leave 25, which grow to 50; of those 75 are asked, and 10 granted each
        (15, 2, 125, Fraction(125, 600), 1, 1),
        # 60 of 100 leave 40; 60 of 80 leave 20; of 40 each is granted 8
        (12, 3, 160, Fraction(160, 600), 1, 1),
        # one takes 50 each round: 12 x 50; all others nothing: sum of abs(R_i - R_j) is 2 x 4 x 600
        ((50, 0, 0, 0, 0), 12, 600, 1, 1 - Fraction(2 * 4 * 600, 2 * 5 * 600), Fraction(12, 60)),
        # 60 of 100, 60 of 80, then 40 for 60: 14, 14, 6, 6. In all 54, 54, 26, 26, 0; ranked -2 x 26 + 2 x 54 + 4 x 54
        # is 272 of 5 x 160. Above 10, 8 and 4 were 2, 4 and 4 of 15
        ((20, 20, 10, 10, 0), 3, 160, Fraction(160, 600), 1 - Fraction(272, 800), Fraction(10, 15)),
        # nobody takes anything
        (0, 12, 0, 0, None, 0),
    ],
)
def test_fishery(tmp_path, ask, survival, gain, efficiency, equality, over_usage):
    asked = ask if callable(ask) else lambda pool, n, epoch: ask
    _, run = worlds.fishery(asked)
    path, found = exported(run, tmp_path)
    assert found["survival_time"] == survival
    assert found["survival_rate"] == (1 if survival == 12 else 0)
    assert found["gain"] == gain
    assert found["efficiency"] == float(efficiency)
    assert found["equality"] == (None if equality is None else float(equality))
    assert found["over_usage"] == float(over_usage)
    assert found["acceptance_rate"] == (1 if gain else None)
    gains = rows(path, "SELECT actor, gain FROM metrics_actor ORDER BY actor")
    assert sum(row["gain"] or 0 for row in gains) == gain
    assert [row["gain"] for row in gains if row["actor"] == "pool"] == [None]


def test_a_commons_that_collapses_in_the_last_round_reached_the_horizon(tmp_path):
    _, run = worlds.fishery(lambda pool, n, epoch: 20 if epoch == 3 else 0, rounds=3)
    _, found = exported(run, tmp_path)
    assert (found["survival_time"], found["survival_rate"]) == (3, 1)
    assert found["over_usage"] == 5 / 15


def test_what_is_harvested_over_usage_counts_the_pool_after_growth(tmp_path):
    # 100 leave 70; they grow to 100, so that 10 each are no over-usage, 11 are
    _, run = worlds.fishery(lambda pool, n, epoch: 6 if epoch == 1 else (10, 10, 10, 10, 11), rounds=2)
    _, found = exported(run, tmp_path)
    assert found["over_usage"] == 1 / 10


# --- against plain fractions ------------------------------------------------------------------------------------------


def plain(run):
    """Every metric from the records and entries alone, in fractions; None where it is undefined."""
    genesis = run.records[0].payload
    unit = {r.name: Fraction(1, 10**r.scale) for r in genesis.resources}
    flows = [
        (record.epoch, flow.kind, r)
        for record in run.records
        if isinstance(flow := record.payload, Flow)
        for r in flow.readings
    ]
    epochs = sum(record.kind == "close" for record in run.records)
    actors = [a.id for a in genesis.actors if a.id != BOUNDARY]
    for record in run.records:
        if record.kind == "registration":
            actors += [a.id for a in record.payload.actors]
    found = defaultdict(dict)
    for name, one in unit.items():

        def total(kind, key, name=name, one=one, actor=None):
            return one * sum(
                getattr(r, key) for _, k, r in flows if k == kind and r.resource == name and actor in (None, r.actor)
            )

        demanded, served = total("consume", "requested"), total("consume", "applied")
        found["produced"][name] = produced = total("produce", "applied")
        found["grown"][name] = total("grow", "applied")
        found["spilled"][name] = total("spill", "applied")
        found["demanded"][name], found["served"][name], found["unmet"][name] = demanded, served, demanded - served
        found["self_sufficiency"][name] = served / demanded if demanded else None
        found["self_consumption"][name] = served / produced if produced else None
        found["transferred"][name] = one * sum(
            e.amount for e in run.entries if e.kind is Kind.TRANSFER and e.resource == name
        )
        shares, losses = [], []
        for actor in actors:
            wanted = total("consume", "requested", actor=actor)
            if wanted:
                shares.append(total("consume", "applied", actor=actor) / wanted)
                unmet = defaultdict(int)
                for epoch, kind, r in flows:
                    if kind == "consume" and r.actor == actor and r.resource == name:
                        unmet[epoch] += r.requested - r.applied
                losses.append(Fraction(sum(amount > 0 for amount in unmet.values()), epochs))
        found["served_share_min"][name] = min(shares, default=None)
        found["loss_of_load_probability_max"][name] = max(losses, default=None)
        found["import_cost"][name] = None
        if name in run.prices:
            found["import_cost"][name] = sum(
                one * (r.requested - r.applied) * Fraction(int(run.prices[name][epoch - 1]), 10**6)
                for epoch, kind, r in flows
                if kind == "consume" and r.resource == name
            )
        pool = run.commons.actor if run.commons else None
        held = sorted(one * amount for amount in finals(run, name, epochs, [a for a in actors if a != pool]))
        everything, n = sum(held), len(held)
        ranks = sum((2 * i - n - 1) * x for i, x in enumerate(held, 1))
        found["gini"][name] = ranks / (n * everything) if everything else None
        found["jain"][name] = everything**2 / (n * sum(x * x for x in held)) if everything else None
        none, bound, _ = run.baselines.get(name, (None, None, ""))
        found["regret"][name] = None
        if none is not None and bound is not None and none != bound:
            found["regret"][name] = 1 - (served - one * none) / (one * (bound - none))
        alone = dict(run.alone.get(name, ()))
        short = [max(0, one * had - total("consume", "applied", actor=actor)) for actor, had in alone.items()]
        found["worse_off"][name] = sum(short) if alone else None
    return {**found, **of_run(run, unit, epochs, flows)}


def finals(run, name, epochs, actors):
    balances = dict.fromkeys(actors, 0)
    for e in run.entries:
        if e.resource == name and e.epoch <= epochs:
            for actor, sign in ((e.actor_from, -1), (e.actor_to, 1)):
                if actor in balances:
                    balances[actor] += sign * e.amount
    return balances.values()


def of_run(run, unit, epochs, flows):
    final = {}
    for record in run.records:
        if isinstance(record.payload, Decision | Settlement):
            final[record.payload.proposal_id] = record.payload.outcome
    judged = [outcome for outcome in final.values() if outcome not in (Outcome.NOOP, Outcome.UNAVAILABLE)]
    found = dict.fromkeys(BY_RUN)
    found["acceptance_rate"] = Fraction(judged.count(Outcome.EXECUTED), len(judged)) if judged else None
    found["waited"] = sum(
        isinstance(record.payload, Decision) and record.payload.outcome is Outcome.HELD for record in run.records
    )
    if run.commons is None:
        return found
    pool, name, below, harvesters = run.commons
    one, n, horizon = unit[name], len(harvesters), run.horizon
    at = [finals(run, name, epoch, [pool]) for epoch in range(epochs + 1)]
    at = [next(iter(values)) for values in at]
    collapsed = [epoch for epoch in range(1, epochs + 1) if at[epoch] < below]
    found["survival_time"] = min(collapsed, default=horizon)
    found["survival_rate"] = int(found["survival_time"] >= horizon)
    taken = defaultdict(int)
    for e in run.entries:
        if e.kind is Kind.TRANSFER and e.actor_from == pool and e.resource == name:
            taken[e.epoch, e.actor_to] += e.amount
    gains = {h: one * sum(taken[t, h] for t in range(1, epochs + 1)) for h in harvesters}
    found["gain"] = total = sum(gains.values())
    sustainable = horizon * Fraction(at[0], 2) * one
    found["efficiency"] = 1 - max(Fraction(0), sustainable - total) / sustainable if sustainable else None
    apart = sum(abs(a - b) for a in gains.values() for b in gains.values())
    found["equality"] = 1 - apart / (2 * n * total) if total else None
    over = 0
    for t in range(1, epochs + 1):
        grown = sum(
            r.applied
            for epoch, kind, r in flows
            if epoch == t and kind in ("produce", "grow") and r.actor == pool and r.resource == name
        )
        over += sum(taken[t, h] > (at[t - 1] + grown) // 2 // n for h in harvesters)
    found["over_usage"] = Fraction(over, n * epochs) if epochs else None
    return found


def everything():
    return worlds.everything()[1]


def unequal_fishery():
    return worlds.fishery(lambda pool, n, epoch: (20, 3, 10, 17, 1 + epoch), n=5)[1]


def busy_homes():
    """Several flows of one home, prices with six decimals, large and odd amounts."""
    world = worlds.homes()
    for epoch in range(8):
        world.produce("energy", {"home-1": 333 * epoch, "home-2": 77_777_777_777}, name="pv")
        world.produce("energy", {"home-1": 1}, name="wind")
        world.propose(("home-2", "home-1", "energy", 7 + epoch), ("home-1", "home-2", "credits", 1))
        world.consume("energy", {"home-1": 1234 + epoch, "home-2": 99_999_999_999_999}, name="load")
        world.consume("energy", {"home-1": 3, "home-2": 5}, name="heat")
        world.close()
    run = world.run(prices={"energy": np.array([200_000, 310_001, *range(123_456, 123_464)])})
    return run


def credits_commons():
    """A commons with two decimals, from which one harvester was refused, and a hold was never settled."""
    world = worlds.seed_world(hold_above=Limit({"credits": 3_000}, {}), min_balance=None)
    world.produce("credits", {"actor-1": 10_001})
    world.propose(("actor-1", "actor-2", "credits", 2_501))
    world.close()
    world.grow("credits", {"actor-1": 7})
    world.propose(("actor-1", "actor-2", "credits", 3_001))
    world.propose(("actor-1", "actor-2", "credits", 9_999))
    world.propose(("actor-1", "actor-2", "credits", 2_000))
    world.close()
    return world.run(commons=Commons("actor-1", "credits", 5_400, ("actor-2",)), horizon=9)


@pytest.mark.parametrize("make", [everything, unequal_fishery, busy_homes, credits_commons])
def test_agrees_with_plain_fractions(tmp_path, make):
    run = make()
    path, found = exported(run, tmp_path)
    assert set(found) == BY_RESOURCE | BY_RUN
    for name, expected in plain(run).items():
        values = expected if isinstance(expected, dict) else {None: expected}
        for resource, value in values.items():
            actual = found[name] if resource is None else found[name][resource]
            if value is None:
                assert actual is None, (name, resource)
            else:
                assert actual == pytest.approx(float(value), rel=1e-15), (name, resource)
                if actual == int(actual) and name in ("served", "gain", "produced", "transferred"):
                    assert isinstance(actual, int)
    listed = rows(path, "SELECT metric, resource, value, exact FROM metrics_run")
    for row in listed:
        of = found[row["metric"]]
        of = of if row["resource"] is None else of[row["resource"]]
        assert (row["value"] is None) == (of is None)
        assert of is None or row["value"] == float(of)


@pytest.mark.parametrize("make", [everything, busy_homes, credits_commons])
def test_views_add_up(tmp_path, make):
    run = make()
    path, found = exported(run, tmp_path)
    scales = {r.name: r.scale for r in run.records[0].payload.resources}
    for name in scales:
        for view in ("metrics_epoch", "metrics_actor"):
            columns = ("produced", "grown", "demanded", "served", "unmet", "spilled", "import_cost")
            sums = ", ".join(f"sum({column}) AS {column}" for column in columns)
            [row] = rows(path, f"SELECT {sums} FROM {view} WHERE resource = '{name}'")
            for column in columns:
                exact = row[column]
                assert (None if exact is None else float(exact)) == found[column][name], (view, column)
    epochs = rows(path, "SELECT * FROM metrics_epoch ORDER BY epoch, resource")
    assert len(epochs) == len(scales) * (1 + sum(record.kind == "close" for record in run.records))
    for row in epochs:
        parts = ("executed", "rejected", "held", "noop", "malformed", "unavailable")
        assert row["proposals"] == sum(row[part] for part in parts)
    last = {row["resource"]: row for row in epochs if row["epoch"] == max(r["epoch"] for r in epochs)}
    for name in scales:
        assert last[name]["gini"] == found["gini"][name]
        assert last[name]["jain"] == found["jain"][name]


def test_sums_are_exact_where_floats_are_not(tmp_path):
    world = worlds.homes()
    for _ in range(10):
        world.consume("energy", {"home-1": 100})  # ten times 0.1
        world.close()
    run = world.run(prices={"energy": np.array([10**6] * 12)})
    path, found = exported(run, tmp_path)
    [row] = rows(path, "SELECT sum(unmet) AS unmet, sum(import_cost) AS cost FROM metrics_epoch WHERE epoch > 2")
    assert str(row["unmet"]) == "1.000000"
    assert str(row["cost"]) == "1.000000000000"
    assert found["import_cost"]["energy"] == 2.95
    assert (
        to_decimal(2_950, 3)
        == row["cost"] + rows(path, "SELECT sum(unmet) AS u FROM metrics_epoch WHERE epoch < 3")[0]["u"]
    )


def test_shadows_count_in_no_metric(tmp_path):
    run = everything()
    assert run.shadows
    _, with_shadows = exported(run, tmp_path / "with")
    _, without = exported(replace(run, shadows=()), tmp_path / "without")
    assert with_shadows == without


def test_a_store_tells_the_metrics_of_what_it_wrote(tmp_path):
    run = everything()
    with Store(tmp_path) as store:
        path = store.write(run)
        assert store.metrics(path) == metrics(path)


def test_a_commons_that_closes_at_its_limit_has_not_collapsed(tmp_path):
    _, run = worlds.fishery(lambda pool, n, epoch: 19 if epoch == 1 else 0, rounds=2)
    _, found = exported(run, tmp_path)
    assert (found["survival_time"], found["survival_rate"], found["gain"]) == (2, 1, 95)


def test_only_what_comes_from_the_commons_is_gain(tmp_path):
    world, _ = worlds.fishery(lambda pool, n, epoch: 4, rounds=1)
    world.propose(("fisher-1", "fisher-2", "fish", 3))
    world.close()
    run = world.run(horizon=2, commons=Commons("pool", "fish", 5, tuple(f"fisher-{i}" for i in range(1, 6))))
    path, found = exported(run, tmp_path)
    assert found["gain"] == 20
    assert found["equality"] == 1
    assert [row["gain"] for row in rows(path, "SELECT gain FROM metrics_actor WHERE gain IS NOT NULL")] == [4] * 5
