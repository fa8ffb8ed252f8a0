"""Runs compared in pairs: what is decisive, what is not, and what cannot be said at all."""

import re
import warnings
from decimal import Decimal

import numpy as np
import pytest

from gridgov.errors import BadInput
from sim.compare import AS_WRITTEN, HIGHER, LOWER, NOT_DECISIVE, Read, Run, compare, read, rule
from sim.compare_page import _step, page
from sim.inference import alike, detectable, holm, sign_flip, spread, survival
from sim.paired import bootstrap
from sim.report_experiments import markdown
from tests.commands import one_line
from tests.plays import SCENARIOS

pytest_plugins = ["tests.commands"]

DROUGHT = SCENARIOS / "drought.yaml"
WEEK = SCENARIOS / "community-week.yaml"
FISHERY = SCENARIOS / "commons-fishery.yaml"


def run(side="a", seed=0, value=0.5, *, metric="acceptance_rate", overrides=(), genesis=None, given="x", **other):
    """A run of a scenario that has one metric."""
    found = {
        "given": given,
        "run_id": f"{side}-{seed}-{'-'.join(overrides)}-{genesis}",
        "scenario": "s",
        "seed": seed,
        "overrides": tuple(overrides),
        "proposers": f'[{{"name": "p", "kind": "policy", "policy": "{side}", "role": "active"}}]',
        "horizon": 10,
        "genesis": genesis or f"seed {seed}",
        "files": (("scenario:s.yaml", "digest"),),
        "recorded": 0,
        "synthetic": 0,
        "metrics": {(metric, None): value},
        "outcomes": {"executed": 9, "rejected": 1},
    }
    return Run(**{**found, **other})


def both(base, values, **given):
    """Runs of two sides, a pair for each seed."""
    runs = [run("a", seed, value, **given) for seed, value in enumerate(base)]
    return Read(runs + [run("b", seed, value, **given) for seed, value in enumerate(values)], 0)


def noise(n, seed=0):
    return np.random.default_rng(seed).normal(0, 1, n)


# --- the arithmetic ---------------------------------------------------------------------------------------------------


def test_holm_by_hand():
    # Holm (1979): 4 x 0.005, 3 x 0.01, 2 x 0.03, and the last not below the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_sign_flip_is_exact_for_few_pairs():
    assert sign_flip([1, 2, 3, 4, 5, 6]) == 2 / 2**6
    assert sign_flip([1, -1, 1, -1, 1, -1]) == 1


def test_detectable_by_hand():
    # n = 20: (t_19(0.975) + t_19(0.8)) / sqrt(20) = (2.0930 + 0.8610) / 4.4721, and with 0.05 / 5, t_19(0.995) = 2.8609
    assert detectable(3, 20) == pytest.approx(3 * (2.09302 + 0.86095) / 20**0.5, rel=1e-4)
    assert detectable(3, 20, tests=5) == pytest.approx(3 * (2.86093 + 0.86095) / 20**0.5, rel=1e-4)
    assert spread([1, 2, 3, 4, 5, 6]) == pytest.approx(3.5**0.5)


def test_detectable_of_few_pairs_is_what_all_of_them_going_one_way_needs():
    # Only all six of one sign are below 0.05: F(d)^6 = 0.8 has d = 1.794, where F is the normal distribution.
    assert detectable(1, 6) == pytest.approx(1.794, abs=0.03)
    assert detectable(1, 6, tests=2) is None, "2 / 2^6 x 2 is above 0.05"
    assert [detectable(1, n, tests=12) is None for n in (8, 9)] == [True, False]
    assert detectable(1, 30, tests=251) is None, "of 10,000 swaps, 2 are the least that can be"


def test_detectable_shows_in_four_of_five_samples():
    drawn = np.random.default_rng(1).normal(detectable(1, 8), 1, (300, 8))
    assert sum(sign_flip(list(sample)) < 0.05 for sample in drawn) / 300 == pytest.approx(0.8, abs=0.04)


def test_interval_of_six_has_the_mean_about_as_often_as_it_says():
    """The plain BCa interval, which is not widened, has it in 83 of 100."""
    drawn = np.random.default_rng(1).normal(0, 1, (150, 6))
    found = [bootstrap(list(sample)) for sample in drawn]
    assert sum(one.spans_zero for one in found) / 150 >= 0.9


def test_survival_by_hand():
    # two of four end at 2; one of the two left at 5; the last is still there at 12
    found = survival([2, 2, 12, 5], [True, True, False, True])
    assert (found.epochs, found.shares, found.runs, found.collapsed, found.until) == ((2, 5), (0.5, 0.25), 4, 3, 12)
    assert survival([12, 12], [False, False]).shares == ()


def test_floats_that_differ_in_their_last_digit_are_alike():
    assert alike([0.1 + 0.2, 0.3]) and alike([0, 0]) and not alike([0.3, 0.3001])


# --- what is decisive -------------------------------------------------------------------------------------------------


def test_a_clear_difference_is_decisive_and_has_its_sign():
    base = list(noise(12))
    found = compare(both(base, [value + 2 + 0.1 * extra for value, extra in zip(base, noise(12, 1), strict=True)]))
    [row] = found.rows
    assert (found.against, row.side, row.n, row.result) == ("a", "b", 12, HIGHER)
    assert row.interval.low < row.difference < row.interval.high
    assert compare(both(base, [value - 2 - 0.1 * i for i, value in enumerate(base)])).rows[0].result == LOWER


def test_a_is_never_decisive_against_a():
    for seed in range(20):
        values = list(noise(20, seed))
        [row] = compare(both(values, values)).rows
        assert row.result == NOT_DECISIVE and row.interval is None
        assert row.note == "no difference in any of 20 pairs"


def test_noise_against_noise_is_rarely_decisive():
    results = [compare(both(list(noise(12, s)), list(noise(12, 1000 + s)))).rows[0] for s in range(40)]
    assert sum(row.result != NOT_DECISIVE for row in results) <= 5  # 2 of 40 are expected
    assert all(row.smallest > 0 for row in results)


def test_identical_runs_have_no_interval_and_count_once():
    [row] = compare(both([0.5] * 20, [0.9] * 20)).rows
    assert (row.pairs, row.n, row.interval, row.p, row.result) == (20, 1, None, None, NOT_DECISIVE)
    assert row.note == "no variation between seeds: n = 1"
    [alone] = compare(Read([run("a", seed) for seed in range(20)], 0)).rows
    assert (alone.n, alone.interval, alone.against) == (1, None, None)


def test_intervals_do_not_depend_on_the_order_of_the_runs():
    found = both(noise(12), noise(12, 1) + 1)
    backwards = Read(found.runs[:12][::-1] + found.runs[12:][::-1], 0)
    assert compare(found).rows[0].interval == compare(backwards).rows[0].interval


def test_no_interval_below_six_pairs():
    [five] = compare(both([1, 2, 3, 4, 5], [11, 13, 12, 15, 16])).rows
    assert five.interval is None and five.note == "5 pairs: an interval needs 6"
    [six] = compare(both([1, 2, 3, 4, 5, 6], [11, 13, 12, 15, 16, 15])).rows
    assert six.interval is not None and six.result == HIGHER


def test_pairs_that_differ_by_the_same_have_no_interval():
    [row] = compare(both([0.25, 0.5, 1, 2, 3, 4, 5], [1.25, 1.5, 2, 3, 4, 5, 6])).rows
    assert row.interval is None and row.note == "all 7 pairs are alike: n = 1"


def test_settings_of_one_seed_are_no_more_evidence_than_one():
    runs = [
        run(side, seed, seed + (side == "b") * (1 + seed / 10) + k / 100, overrides=(f"k={k}",), genesis=f"{seed}/{k}")
        for side in "ab"
        for seed in range(3)
        for k in range(4)
    ]
    [row] = compare(Read(runs, 0)).rows
    assert (row.pairs, row.n, row.interval) == (12, 3, None)


def weeks(firsts, seeds=1, horizon=10):
    """Runs of two sides on stretches of data; on each, b has a little more, as much as the stretch says."""
    return [
        run(
            side, seed, first + (side == "b") * (1 + first / 100), overrides=(f"first_row={first}",),
            genesis=f"{seed}/{first}", horizon=horizon,
        )
        for side in "ab"
        for seed in range(seeds)
        for first in firsts
    ]  # fmt: skip


def test_a_commons_that_collapsed_under_every_seed_was_tried_that_often():
    runs = [
        run(side, seed, genesis=str(seed), metrics={
            ("survival_rate", None): float(side == "b"), ("survival_time", None): 3.0 if side == "a" else 12.0,
            ("gain", None): 100.0 + seed,
        })
        for side in "ab"
        for seed in range(20)
    ]  # fmt: skip
    low, high = compare(Read(runs, 0)).sides
    # Wilson (1927), 0 and 20 of 20
    assert low.survived_interval == pytest.approx((0, 0.1611), abs=1e-4)
    assert high.survived_interval == pytest.approx((0.8389, 1), abs=1e-4)


def test_stretches_of_data_count_as_draws():
    [row] = compare(Read(weeks(range(0, 80, 10)), 0)).rows
    assert (row.pairs, row.n, row.result) == (8, 8, HIGHER)


def test_seeds_that_change_nothing_count_once_on_each_stretch():
    [row] = compare(Read(weeks(range(0, 80, 10), seeds=5), 0)).rows
    assert (row.pairs, row.n) == (40, 8)
    assert row.note == "a scenario that no seed changes counts once"


def test_stretches_that_change_nothing_count_once_for_each_seed():
    runs = [
        run(
            side,
            seed,
            seed + (side == "b") * (1 + seed / 10),
            overrides=(f"first_row={first}",),
            genesis=f"{seed}/{first}",
        )
        for side in "ab"
        for seed in range(3)
        for first in range(0, 80, 10)
    ]
    [row] = compare(Read(runs, 0)).rows
    assert (row.pairs, row.n, row.result, row.note) == (24, 3, NOT_DECISIVE, "3 pairs: an interval needs 6")


def test_stretches_that_overlap_are_one():
    [row] = compare(Read(weeks([0, 5, 12, 30, 41], horizon=10), 0)).rows
    assert (row.pairs, row.n) == (5, 3)  # 0 to 21 is one piece


def test_stretches_can_be_what_is_compared():
    runs = [one._replace(proposers=weeks([0])[0].proposers) for one in weeks([0, 20], seeds=7)]
    found = compare(Read([one for one in runs if one.run_id.startswith("a")], 0), by="first_row")
    assert [row.side for row in found.rows] == ["20"] and found.rows[0].pairs == 7


def test_holm_takes_back_what_one_of_many_metrics_shows():
    def runs(side, seed, shift):
        metrics = {(name, None): float(noise(6, i)[seed]) for i, name in enumerate(("gain", "equality", "over_usage"))}
        metrics["efficiency", None] = seed / 10 + shift
        return run(side, seed, metrics=metrics)

    shifts = [0.1, 0.12, 0.15, 0.11, 0.13, 0.14]
    runs_of = [runs("a", s, 0) for s in range(6)]
    other = []
    for s in range(6):
        one = runs("b", s, shifts[s])
        moved = {
            k: v + float(noise(6, 50 + i)[s]) for i, (k, v) in enumerate(one.metrics.items()) if k[0] != "efficiency"
        }
        other.append(one._replace(metrics={**one.metrics, **moved}))
    found = {row.metric: row for row in compare(Read(runs_of + other, 0)).rows}
    row = found["efficiency"]
    assert not row.interval.spans_zero and row.p == 2 / 64 and row.corrected == 4 * 2 / 64
    assert row.result == NOT_DECISIVE and "not after the correction for 4 tests" in row.note
    assert row.smallest is None and row.note.endswith(
        "6 pairs can show nothing among 4 tests: more seeds, or fewer metrics"
    )
    [alone] = compare(Read(runs_of + other, 0), metrics=["efficiency"]).rows
    assert alone.result == HIGHER


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_runs_without_a_partner_are_left_out_and_counted():
    found = both([1, 2, 3, 4, 5, 6], [2, 3, 5, 5, 7, 7])
    more = Read([*found.runs, run("b", 99, 1000.0)], 2)
    made = compare(more)
    assert made.rows[0].n == 6 and made.unpaired == 1 and made.failed == 2
    with pytest.raises(BadInput, match="no run has a partner"):
        compare(Read([run("a", 1), run("b", 2)], 0))


def test_a_key_is_compared_between_runs_that_are_else_the_same():
    runs = [
        run("a", seed, seed + value, overrides=(f"k={value}", f"other={o}"), genesis=f"{seed} {value} {o}")
        for seed in range(3)
        for value in (1, 2)
        for o in (7, 8)
    ]
    with pytest.raises(BadInput, match="--by k or --by other"):
        compare(Read(runs, 0))
    found = compare(Read(runs, 0), by="k")
    assert (found.by, found.against, found.rows[0].side, found.rows[0].difference) == ("k", "1", "2", 1.0)
    plain = [run("a", seed, seed, genesis=f"{seed} plain") for seed in range(3)]
    only = Read([*plain, *(run("a", s, s + 1, overrides=("k=1",), genesis=f"{s} k") for s in range(3))], 0)
    assert compare(only).against == AS_WRITTEN
    for by in ("seed", "nothing"):
        with pytest.raises(BadInput, match="--by"):
            compare(Read(runs, 0), by=by)


def test_forks_are_pairs_where_the_same_is_set_since_the_same_epoch():
    """Their genesis is that of the parent, and says nothing of it."""

    def fork(side, epoch, *sets, value=1.0):
        overrides = (f"fork={side}@{epoch}", *([f"after={epoch}"] if sets or side == "b" else []), *sets)
        return run(side, 1, overrides=overrides, genesis="g", value=value)

    runs = [fork("a", 5, "k=1"), fork("a", 5, "k=2", value=2), fork("b", 5, "k=1", value=1.5), fork("b", 7, "k=2")]
    found = compare(Read(runs, 0))
    [row] = found.rows
    assert (row.pairs, row.base, row.mean, found.unpaired) == (1, 1, 1.5, 1)
    for first in (fork("a", 5), run("a", 1, value=1.0, genesis="g")):  # another proposer's fork, or the parent
        [row] = compare(Read([first, fork("b", 5, value=3)], 0)).rows
        assert (row.pairs, row.difference) == (1, 2)


def test_forks_of_other_horizons_epochs_or_settings_are_no_pairs():
    def fork(side, *overrides, value=1.0, horizon=12, given=None):
        made = run(side, 1, overrides=overrides, genesis="g", value=value)._replace(horizon=horizon)
        return made if given is None else made._replace(given=given, run_id=f"{given}{overrides}")

    far, near = fork("a", "fork=x@5"), fork("b", "fork=x@5", horizon=6)
    with pytest.raises(BadInput, match="no run has a partner"):
        compare(Read([far, near], 0))
    deep = ("fork=y@10", "after=10", "k=1")
    [row] = compare(Read([fork("a", *deep), fork("b", "fork=z@20", "after=10", "k=1", "after=20")], 0)).rows
    assert row.pairs == 1, "an epoch after which nothing is set says nothing"
    files = [
        fork("a", "fork=x@5", "after=5", f"k={k}", value=value, given=given)
        for given, values in (("one", (1, 9)), ("two", (2, 9)))
        for k, value in zip((1, 2), values, strict=True)
    ]
    [row] = compare(Read(files, 0), by="source").rows
    assert (row.pairs, row.base, row.mean) == (2, 5, 5.5)
    with pytest.raises(BadInput, match=r"go on from epochs 5 and 9 with nothing set.*--by fork"):
        compare(Read([fork("a", "fork=x@5"), fork("a", "fork=x@9")._replace(run_id="other"), fork("b")], 0))


def test_replicates_are_averaged_before_they_are_paired():
    twice = [run("b", seed, value)._replace(run_id=f"b{seed}{value}") for seed in range(3) for value in (1.0, 3.0)]
    found = compare(Read([run("a", seed, 1.0 + seed) for seed in range(3)] + twice, 0))
    assert found.rows[0].pairs == 3 and found.rows[0].mean == 2.0


def test_share_of_synthetic_replies_is_said():
    runs = both([1, 2], [2, 3]).runs
    runs[0] = runs[0]._replace(recorded=6, synthetic=2)
    found = compare(Read(runs, 0))
    assert found.sides[0].synthetic_share == 0.25 and found.sides[1].synthetic_share is None
    assert "25.0 % of the replies are synthetic" in markdown(found)


def test_identical_runs_narrow_no_share_of_accepted_decisions():
    one = compare(Read([run("a", 0)], 0)).sides[0]
    many = compare(Read([run("a", seed) for seed in range(20)], 0)).sides[0]
    assert many.accepted_interval == one.accepted_interval and many.runs == 20


# --- gates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("acceptance_rate<4.6", True),
        ("acceptance_rate<=4", False),
        ("difference(acceptance_rate)>0.5", True),
        ("increase(acceptance_rate)", True),
        ("decrease(acceptance_rate)", False),
        ("efficiency<0", True),  # undefined
        ("increase(efficiency)", True),
    ],
)
def test_gates(text, holds):
    found = compare(both([1, 2, 3, 4, 5, 6], [2.1, 3.0, 4.2, 5.1, 5.9, 7.0]), rules=[rule(text)])
    assert found.checked[0].holds is holds


def test_gate_that_so_few_could_not_fail_says_so():
    values = [[1, 2, 3, 4, 5, 6], [11, 13, 12, 15, 16, 15]]
    runs = [
        run(side, seed, metrics={("gain", None): -of[seed], ("equality", None): of[seed] + noise(6, 9)[seed]})
        for side, of in zip("ab", values, strict=True)
        for seed in range(6)
    ]
    [checked] = compare(Read(runs, 0), metrics=["gain", "equality"], rules=[rule("decrease(gain)")]).checked
    assert not checked.holds and "6 pairs can show nothing among 2 tests" in checked.found
    [alone] = compare(Read(runs, 0), metrics=["gain"], rules=[rule("decrease(gain)")]).checked
    assert alone.holds


@pytest.mark.parametrize(
    "text", ["", "acceptance", "acceptance_rate", "decrease(x)", "shrink(gain)", "gain<x", "flips>3"]
)
def test_refuses_a_gate_that_is_none(text):
    with pytest.raises(BadInput, match="--fail-if"):
        rule(text)


def test_gate_reads_resource_and_number():
    assert rule("import_cost/energy >= -1.50")[2:] == ("import_cost", "energy", ">=", Decimal("-1.50"))
    assert rule("decrease(self_sufficiency/water)")[1:4] == ("decrease", "self_sufficiency", "water")


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drought(tmp_path_factory):
    """Eight seeds under three proposers, one of them in two guises."""
    from sim.parts import Job
    from sim.sweep import Plan, Workers, sweep

    out = tmp_path_factory.mktemp("drought")
    job = Job(DROUGHT.read_text("utf-8"), str(DROUGHT), 30, "", "", 0)
    return sweep(job, Plan(seeds=range(8), proposers=["policy:greedy", "policy:none"]).cells(), out, Workers(1)).path


def test_compares_the_proposers_of_a_sweep(gridgov, drought, tmp_path):
    said = gridgov("compare", drought, "--json", "--html", tmp_path / "x.html").json
    rows = {row["metric"]: row for row in said["metrics"]}
    assert said["by"] == "proposers" and said["against"] == "greedy"
    assert rows["self_sufficiency/water"]["result"] == LOWER
    assert said["mcnemar"].startswith("there is no McNemar test")
    text = (tmp_path / "x.html").read_text("utf-8")
    assert "<svg" in text and "self_sufficiency/water" in text
    assert re.findall(r"https?://|<script|<link|url\(|src=|@import", text) == []
    assert said["about"] == "16 runs of drought; 8 seeds, 0 to 7." and said["about"] in text
    assert len(re.findall("<svg|<table", text)) == len(re.findall('<div class="wide"><(?:svg|table)', text)) == 3
    shown = gridgov("compare", drought).out
    assert "lower" in shown and "Holm" in shown
    assert gridgov("compare", drought, "--markdown").out.startswith("## Comparison")


def test_gate_ends_with_exit_code_1(gridgov, drought):
    said = gridgov("compare", drought, "--fail-if", "decrease(self_sufficiency)", "--json")
    assert said.code == 1 and "decrease(self_sufficiency)" in said.err and said.json["checked"][0]["holds"]
    assert gridgov("compare", drought, "--fail-if", "increase(self_sufficiency)").code == 0
    assert gridgov("compare", drought, "--fail-if", "acceptance_rate<0.5", "--against", "none").code == 0
    assert "undefined, which fails" in one_line(
        gridgov("compare", drought, "--fail-if", "acceptance_rate<0.5", "--json"), 1
    )


def test_two_files_of_the_same_runs_show_no_difference(gridgov, tmp_path, drought):
    import shutil

    other = tmp_path / "other.duckdb"
    shutil.copy(drought, other)
    said = gridgov("compare", drought, other, "--by", "source", "--json").json
    assert {row["result"] for row in said["metrics"]} == {NOT_DECISIVE}
    assert {row["interval"] for row in said["metrics"]} == {None}


def test_runs_of_the_store_and_of_files_are_named_alike(gridgov, drought):
    for policy in ("greedy", "none"):
        gridgov("run", WEEK, "--epochs", 12, "--proposer", f"policy:{policy}")
    ids = [one["run_id"] for one in gridgov("runs", "--json").json]
    said = gridgov("compare", *ids, "--json").json
    assert said["by"] == "proposers" and {row["n"] for row in said["metrics"]} == {1}
    assert "1 pair: an interval needs 6" in {row["note"] for row in said["metrics"]}
    few = sum(row["note"] == "1 pair: an interval needs 6" for row in said["metrics"])
    assert f"{few} rows: 1 pair: an interval needs 6\n" in gridgov("compare", *ids).out
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(read([str(drought)], drought.parent).runs) == 16


def test_survival_curves_of_a_commons(gridgov, tmp_path):
    for policy in ("sustainable", "take_max"):
        gridgov("run", FISHERY, "--proposer", f"policy:{policy}")
    ids = sorted(one["run_id"] for one in gridgov("runs", "--json").json)
    found = compare(read(ids, tmp_path / "runs"))
    curves = {side.name: side.curve for side in found.sides}
    assert (curves["take_max"].epochs, curves["take_max"].shares) == ((1,), (0.0,))
    assert curves["sustainable"].collapsed == 0
    assert "survival curves" in page(found) and "collapsed" in markdown(found)
    marks = re.findall(r'text-anchor="middle">(\d+)<', page(found))
    assert marks == [str(epoch) for epoch in range(13)], "an axis of 12 epochs"


@pytest.mark.parametrize(("until", "step"), [(1, 1), (12, 1), (13, 2), (30, 5), (168, 20), (8_760, 1_000)])
def test_an_axis_has_a_dozen_marks_at_most(until, step):
    assert _step(until) == step


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--metric", "mcnemar"), "identical questions"),
        (("--metric", "happiness"), "--metric happiness"),
        (("--against", "nobody"), "there is no such side"),
        (("--by", "seeds"), "--by seed"),
    ],
)
def test_refuses_in_one_line(gridgov, drought, options, words):
    assert words in one_line(gridgov("compare", drought, *options), 2)


def test_refuses_what_has_no_runs(gridgov, tmp_path):
    assert "no such file" in one_line(gridgov("compare", "abcd1234"), 2)
    (tmp_path / "x.jsonl").write_text("")
    assert "a journal has no metrics" in one_line(gridgov("compare", tmp_path / "x.jsonl"), 2)
