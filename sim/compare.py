"""Runs beside runs: which belong together, what differs, and whether that could be chance; nothing is printed here.

Two runs are a pair where everything but what is compared is the same: the scenario's content, its data, every other
setting, the seed. Pairs of one scenario and seed under several settings share their draws, so they are averaged first:
what is counted, and resampled, are scenarios x seeds. Where no seed of a scenario changes anything, it counts once.
Other stretches of the data (`--set first_row=0,672,...`) are other draws of the world, as long as they don't overlap:
each is counted, and those that overlap as one. Where no other stretch changes anything, a seed counts once.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from gridgov.errors import BadInput
from gridgov.export import do, query
from gridgov.journal import canonical
from gridgov.source import open_source, reading
from gridgov.tables import FORM
from gridgov.wire import known
from sim.fork import in_turn
from sim.form import METRICS
from sim.inference import Curve, alike, detectable, holm, sign_flip, spread, survival
from sim.paired import LEVEL, PAIRS_MIN, Interval, bootstrap, wilson
from sim.parts import COMPLETE

HEADLINE = (
    "self_sufficiency", "import_cost", "served_share_min", "loss_of_load_probability_max", "regret", "acceptance_rate",
    "survival_time", "survival_rate", "gain", "efficiency", "equality", "over_usage",
)  # fmt: skip
"""What is compared where nobody says: few, because each one more makes all of them harder to show."""

HIGHER, LOWER, NOT_DECISIVE = "higher", "lower", "not decisive"

FIRST_ROW = "first_row"
"""The key that chooses a stretch of the data."""

AS_WRITTEN = "as written"
"""The side of runs that do not set the key that is compared."""

MCNEMAR = (
    "there is no McNemar test between runs: it needs identical questions, and after the first decision that differs, "
    "two runs are asked different ones; `gridgov backtest` asks identical ones"
)

Name = tuple[str, str | None]
"""A metric, and its resource where it has one."""


def shown(name: Name) -> str:
    """`metric`, or `metric/resource`."""
    return name[0] if name[1] is None else f"{name[0]}/{name[1]}"


# --- runs -------------------------------------------------------------------------------------------------------------


class Run(NamedTuple):
    """One run as it is compared. `given` is the argument that named it; `files` are the digests of its files."""

    given: str
    run_id: str
    scenario: str
    seed: int
    overrides: tuple[str, ...]
    proposers: str
    horizon: int
    genesis: str
    files: tuple[tuple[str, str], ...]
    recorded: int
    synthetic: int
    metrics: Mapping[Name, float]
    outcomes: Mapping[str, int]

    @property
    def settings(self) -> dict[str, str]:
        """The overrides by key, but those that the seed and the horizon say too."""
        found = dict(text.partition("=")[::2] for text in self.overrides)
        return {key.strip(): value for key, value in found.items() if key.strip() not in ("seed", "epochs")}

    @property
    def since(self) -> list[tuple[int, list[str]]]:
        """What is set in forks on the way to it, each after which epoch: its genesis does not say it."""
        return [(after, sets) for after, sets in in_turn(self.overrides)[1] if sets]

    @property
    def begun(self) -> str | None:
        """The epoch that it goes on from, where it is a fork."""
        fork = self.settings.get("fork")
        return None if fork is None else fork.rpartition("@")[2]

    @property
    def source(self) -> str:
        """What tells one scenario from another, whatever is set in it."""
        return next((digest for name, digest in self.files if name.startswith("scenario:")), self.scenario)

    @property
    def first_row(self) -> int | None:
        """The row of the data that it was told to begin with; None where the scenario says."""
        found = self.settings.get(FIRST_ROW)
        return None if found is None else int(found)


class Read(NamedTuple):
    """The runs that were found, and how many were left out because they failed."""

    runs: list[Run]
    failed: int


def read(texts: Sequence[str], store: Path) -> Read:
    """The runs of files (all in each), of PATH#RUN_ID, and of run ids in the store. Raises BadInput, Damaged."""
    found: list[Run] = []
    failed = 0
    for text in dict.fromkeys(texts):
        path, only = Path(text), None
        if not path.is_file():
            with open_source(text, store) as source:
                path, only = source.path, source.run_id
        if path.suffix != ".duckdb":
            raise BadInput(f"{text}: a journal has no metrics; give runs, or files of runs (.duckdb)")
        runs, lost = _runs(text, path, only)
        found, failed = found + runs, failed + lost
    if not found:
        raise BadInput(f"{', '.join(texts)}: no run is complete, so there is nothing to compare")
    return Read(found, failed)


def _runs(given: str, path: Path, only: str | None) -> tuple[list[Run], int]:
    """The complete runs of a file, and how many are not; metrics are asked of all of them at once."""
    with reading(path), duckdb.connect(str(path), read_only=True) as connection:
        [(name,)] = do(connection, "SELECT current_database()")
        if ("runs",) not in do(connection, query("table_names"), {"database": name}):
            raise BadInput(f"{path}: is a DuckDB file, but no export of gridgov; it has no table runs")
        rows = do(connection, query("compared"))
        keys = [column[0] for column in connection.description or ()]
        files: dict[str, list[tuple[str, str]]] = {}
        for run, file, digest in do(connection, query("compared_files")):
            files.setdefault(run, []).append((file, digest))
        metrics: dict[str, dict[Name, float]] = {}
        for run, metric, resource, value in do(connection, query("compared_metrics")):
            metrics.setdefault(run, {})[metric, resource] = value
        outcomes: dict[str, dict[str, int]] = {}
        for run, outcome, count in do(connection, query("compared_outcomes")):
            outcomes.setdefault(run, {})[outcome] = count
    wanted = [row for row in (dict(zip(keys, row, strict=True)) for row in rows) if only in (None, row["run_id"])]
    if any(row["form"] != FORM for row in wanted):
        raise BadInput(f"{path}: was written by another version of gridgov; run it again with this one")
    complete = [row for row in wanted if row["status"] == COMPLETE]
    found = [
        Run(
            given, row["run_id"], row["scenario"], row["seed"], tuple(json.loads(row["overrides"] or "[]")),
            row["proposers"], row["horizon"], row["genesis"], tuple(files.get(row["run_id"], ())),
            row["recorded"] or 0, row["synthetic"] or 0, metrics.get(row["run_id"], {}),
            outcomes.get(row["run_id"], {}),
        )
        for row in complete
    ]  # fmt: skip
    return found, len(wanted) - len(complete)


# --- sides ------------------------------------------------------------------------------------------------------------


class Unit(NamedTuple):
    """What is drawn: a scenario, a stretch of its data, a seed."""

    source: str
    stretch: int
    seed: int


class Sided(NamedTuple):
    """A run with the side it is on, what it is paired by, and what of it is drawn."""

    run: Run
    side: str
    content: str
    unit: Unit


def sided(runs: Sequence[Run], by: str | None) -> tuple[str, list[Sided]]:
    """What is compared, and every run with its side.

    Where nobody says: proposers; if they are all the same, the one key that varies; else the arguments. Raises BadInput
    where that can't be told, or where no run sets the key.
    """
    by = by or _told(runs)
    if by in ("seed", "seeds"):
        raise BadInput("--by seed: seeds are what the runs of one side share; compare proposers, or a key of --set")
    if by not in ("proposers", "source") and not any(by in run.settings for run in runs):
        there = sorted({key for run in runs for key in run.settings})
        raise BadInput(f"--by {by}: no run sets it; there are proposers, source{''.join(f', {key}' for key in there)}")
    labels = _labels(runs)
    mixed = len({(run.given, run.proposers) for run in runs}) > len({run.given for run in runs})
    stretch = {} if by == FIRST_ROW else _stretches(runs)
    found = {}
    for run in runs:
        world = {"genesis": run.genesis, "since": run.since, "horizon": run.horizon}
        if by == "proposers":
            side, content = labels[run.proposers], canonical(world)
        elif by == "source":
            side, content = run.given, canonical({**world, "proposers": run.proposers if mixed else None})
        else:
            side, content = run.settings.get(by, AS_WRITTEN), _without(run, by)
        drawn = Unit(run.source, stretch.get((run.source, run.first_row), 0), run.seed)
        found[side, run.run_id] = Sided(run, side, sha256(content.encode()).hexdigest(), drawn)
    _check_forks(list(found.values()))
    return by, list(found.values())


def _check_forks(sides: Sequence[Sided]) -> None:
    """Raises BadInput where forks that begin at different epochs would count as the same run again."""
    known: dict[tuple[str, str], Run] = {}
    for one in sides:
        if one.run.begun is not None:
            other = known.setdefault((one.side, one.content), one.run)
            if other.begun != one.run.begun:
                raise BadInput(
                    f"runs {other.run_id} and {one.run.run_id} go on from epochs {other.begun} and {one.run.begun} "
                    f"with nothing set, and are no runs of the same; compare forks from one epoch, or --by fork"
                )


def _stretches(runs: Sequence[Run]) -> dict[tuple[str, int | None], int]:
    """By scenario and first row, the number of the stretch of data; those that overlap are one."""
    found: dict[tuple[str, int | None], int] = {}
    for source in {run.source for run in runs}:
        own = [run for run in runs if run.source == source]
        longest = max(run.horizon for run in own)
        end, number = 0, 0
        for first in sorted({run.first_row for run in own if run.first_row is not None}):
            number += first >= end
            end = first + longest
            found[source, first] = number
    return found


def _told(runs: Sequence[Run]) -> str:
    if len({run.proposers for run in runs}) > 1:
        return "proposers"
    keys = {key for run in runs for key in run.settings}
    varied = sorted(key for key in keys if len({run.settings.get(key) for run in runs}) > 1)
    if len(varied) > 1:
        raise BadInput(f"several keys vary, and one is compared at a time: give --by {' or --by '.join(varied)}")
    return varied[0] if varied else "source"


def _without(run: Run, key: str) -> str:
    """All that determines a run but one key; if that is of its proposers, without them."""
    free = key.partition(".")[0] == "proposers"
    files = [[name, digest] for name, digest in run.files if not free or name.startswith("scenario:")]
    settings = {name: value for name, value in run.settings.items() if name != key}
    said = {"files": files, "settings": settings, "seed": run.seed, "horizon": run.horizon}
    return canonical({**said, "proposers": None if free else run.proposers})


def _labels(runs: Sequence[Run]) -> dict[str, str]:
    """A short name for each way to propose: two that differ never share one."""
    found: dict[str, str] = {}
    for text in dict.fromkeys(run.proposers for run in runs):
        active = [one for one in json.loads(text) if one.get("role") != "shadow"]
        label = ", ".join(dict.fromkeys(_label(one) for one in active)) or "nobody"
        taken = list(found.values())
        n = 2
        while (label if n == 2 else f"{label} ({n - 1})") in taken:
            n += 1
        found[text] = label if n == 2 else f"{label} ({n - 1})"
    return found


def _label(one: Mapping[str, Any]) -> str:
    kind = str(one.get("kind"))
    if kind == "policy":
        return str(one["policy"]) if one.get("amount") is None else f"{one['policy']} {one['amount']}"
    if kind == "gemini":
        return f"gemini:{one.get('model') or 'default'}, {one.get('prompt')}"
    return f"{kind}:{str(one.get('file')).removeprefix('sha256:')[:8]}"


# --- one metric -------------------------------------------------------------------------------------------------------


@dataclass
class Row:
    """One metric of one side, beside the side that all are compared with; None where it is the only side.

    Attributes:
        pairs: how many pairs have it on both sides; `n` how many scenarios x seeds these are, see the module.
        mean, base, difference: over these n; difference is mean - base, of one side None.
        interval: of the difference (of the mean, for one side): BCa bootstrap over the n; None where `note` says why.
        p, corrected: of the paired permutation test, and after Holm's correction over all rows that have one.
        deviation: the standard deviation of the n differences; None where there is no interval.
        result: higher or lower where the interval leaves out 0 and `corrected` is below 1 - LEVEL; else not decisive.
        smallest: the smallest difference that so many would have shown with a chance of 80 %, beside the other tests
            that are not decisive; None where not even the largest would have been decisive.
    """

    metric: str
    side: str
    against: str | None
    pairs: int
    n: int
    mean: float
    base: float | None
    difference: float | None
    interval: Interval | None
    p: float | None
    deviation: float | None
    note: str
    corrected: float | None = None
    smallest: float | None = None
    result: str = NOT_DECISIVE

    def document(self) -> dict[str, Any]:
        """As plain JSON values."""
        interval = None if self.interval is None else list(self.interval)
        return {**self.__dict__, "interval": interval}


Values = Mapping[str, tuple[Unit, float]]
"""By content: its unit, and a figure; that of replicates is their mean."""


def _values(runs: Sequence[Sided], name: Name) -> dict[str, tuple[Unit, float]]:
    found: dict[str, tuple[Unit, list[float]]] = {}
    for one in runs:
        value = one.run.metrics.get(name)
        if value is not None:
            found.setdefault(one.content, (one.unit, []))[1].append(value)
    return {content: (unit, sum(values) / len(values)) for content, (unit, values) in found.items()}


Drawn = tuple[float, float]
"""The means of both sides over what shares a draw."""


def _drawn(pairs: Sequence[tuple[Unit, float, float]]) -> tuple[list[Drawn], bool]:
    """The figures of each draw, and whether a scenario was taken once because no seed changes anything."""
    shared: dict[Unit, list[Drawn]] = {}
    for unit, base, value in pairs:
        shared.setdefault(unit, []).append((base, value))
    by_source: dict[str, dict[Unit, Drawn]] = {}
    for unit, of in shared.items():
        by_source.setdefault(unit.source, {})[unit] = _mean([b for b, _ in of]), _mean([v for _, v in of])
    found: list[Drawn] = []
    constant = False
    for draws in by_source.values():
        seeds = _apart(draws, lambda unit: unit.stretch)
        constant |= len(seeds) < len(draws)
        found += _apart(seeds, lambda unit: unit.seed).values()
    return found, constant


def _apart(draws: Mapping[Unit, Drawn], shared: Callable[[Unit], int]) -> dict[Unit, Drawn]:
    """One of each group that shares this, where in every group all are alike: what differs in it changes nothing."""
    groups: dict[int, list[Unit]] = {}
    for unit in draws:
        groups.setdefault(shared(unit), []).append(unit)
    for units in groups.values():
        if not all(alike([draws[unit][side] for unit in units]) for side in (0, 1)):
            return dict(draws)
    return {units[0]: draws[units[0]] for units in groups.values()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _own_mean(runs: Sequence[Sided], name: Name) -> float | None:
    """The mean of a metric over the scenarios and seeds of one side; None where it is nowhere."""
    drawn, _ = _drawn([(unit, 0.0, value) for unit, value in _values(runs, name).values()])
    return _mean([value for _, value in drawn]) if drawn else None


def row(name: Name, side: str, values: Values, against: str | None, base: Values) -> Row | None:
    """Compares one metric of two sides, or says what one side comes to; None where it is nowhere on both."""
    # In an order of their own, or the workers' order in the file would show in what the bootstrap draws.
    both = sorted(content for content in values if against is None or content in base)
    if not both:
        return None
    pairs = [(values[c][0], base[c][1] if against is not None else 0.0, values[c][1]) for c in both]
    drawn, constant = _drawn(pairs)
    n = len(drawn)
    mean, other = _mean([v for _, v in drawn]), _mean([b for b, _ in drawn])
    differences = [v - b for b, v in drawn]
    interval = p = deviation = None
    what, one = ("pairs", "pair") if against is not None else ("scenarios x seeds", "scenario and seed")
    note = ""
    if n == 1 and constant:
        note = "no variation between seeds: n = 1"
    elif n < PAIRS_MIN:
        note = f"{n} {what if n > 1 else one}: an interval needs {PAIRS_MIN}"
    elif alike(differences):
        none = abs(differences[0]) <= 1e-12 * max(abs(mean), abs(other))
        note = f"no difference in any of {n} {what}" if none else f"all {n} {what} are alike: n = 1"
    else:
        interval, deviation = bootstrap(differences), spread(differences)
        p = sign_flip(differences) if against is not None else None
    if n > 1 and constant:
        note += f"{'; ' if note else ''}a scenario that no seed changes counts once"
    beside = other if against is not None else None
    difference = mean - other if against is not None else None
    return Row(shown(name), side, against, len(both), n, mean, beside, difference, interval, p, deviation, note)


def corrected(rows: Sequence[Row]) -> None:
    """Corrects all tests together, and says which of them are decisive, and what the others could have shown."""
    tested = [one for one in rows if one.p is not None]
    found = holm([one.p or 0.0 for one in tested])
    shown = sum(p < 1 - LEVEL for p in found)
    for one, p in zip(tested, found, strict=True):
        assert one.interval is not None and one.difference is not None and one.deviation is not None, "it is tested"
        one.corrected = p
        one.smallest = detectable(one.deviation, one.n, len(tested) - shown + (p < 1 - LEVEL))
        clear, notes = not one.interval.spans_zero, [one.note] if one.note else []
        if clear and p < 1 - LEVEL:
            one.result = HIGHER if one.difference > 0 else LOWER
        elif clear:
            notes.append(f"not after the correction for {len(tested)} tests (p {one.p:.3g}, corrected {p:.3g})")
        if one.smallest is None:
            notes.append(f"{one.n} pairs can show nothing among {len(tested)} tests: more seeds, or fewer metrics")
        one.note = "; ".join(notes)


# --- a side -----------------------------------------------------------------------------------------------------------


class Side(NamedTuple):
    """What a side comes to by itself.

    `accepted` is the share of decisions that were executed, all runs together (those that came to the same once), with
    Wilson's interval, as if decisions did not depend on each other: in truth it is no narrower. `survived` is that of
    runs, where there is a commons.
    """

    name: str
    runs: int
    decisions: int
    accepted: float | None
    accepted_interval: Interval | None
    survived: float | None
    survived_interval: Interval | None
    curve: Curve | None
    recorded: int
    synthetic: int

    @property
    def synthetic_share(self) -> float | None:
        """Of the replies that were used, the share that no model ever gave; None where there are none."""
        total = self.recorded + self.synthetic
        return self.synthetic / total if total else None

    def document(self) -> dict[str, Any]:
        """As plain JSON values."""
        found = {key: list(value) if isinstance(value, Interval) else value for key, value in self._asdict().items()}
        found["curve"] = None if self.curve is None else self.curve._asdict()
        return {**found, "synthetic_share": self.synthetic_share}


def _different(runs: Sequence[Run]) -> list[Run]:
    """One of each that came to the same: what no seed changes is no further evidence."""
    return list(
        {(run.source, *map(frozenset, (run.metrics.items(), run.outcomes.items()))): run for run in runs}.values()
    )


def side_of(name: str, members: Sequence[Sided]) -> Side:
    """Sums up the runs of a side."""
    counted: Counter[str] = Counter()
    different = _different([one.run for one in members])
    for run in different:
        counted.update(run.outcomes)
    decisions = sum(counted[outcome] for outcome in ("executed", "rejected", "held", "malformed"))
    accepted = counted["executed"] / decisions if decisions else None
    commons = [one.run for one in members if ("survival_time", None) in one.run.metrics]
    survived = curve = drawn = None
    if commons:
        curve = survival(
            [int(run.metrics["survival_time", None]) for run in commons],
            [run.metrics.get(("survival_rate", None)) == 0 for run in commons],
        )
        values = _values(members, ("survival_rate", None))
        # Seeds that change anything at all are so many draws, also where none of them changes who survives.
        apart = {run.run_id for run in different}
        drawn = len({one.unit for one in members if one.run.run_id in apart})
        survived = _mean([value for _, value in values.values()])
    return Side(
        name,
        len(members),
        decisions,
        accepted,
        None if accepted is None else wilson(accepted, decisions),
        survived,
        None if survived is None or not drawn else wilson(survived, drawn),
        curve,
        sum(one.run.recorded for one in members),
        sum(one.run.synthetic for one in members),
    )


# --- rules ------------------------------------------------------------------------------------------------------------

_CHANGE = re.compile(r"\s*(decrease|increase)\(\s*([a-z_]+)(?:/([^\s()<>=]+))?\s*\)\s*")
_LIMIT = re.compile(
    r"\s*(difference\()?\s*([a-z_]+)(?:/([^\s()<>=]+))?\s*(?(1)\))\s*(<=|>=|==|<|>)\s*([+-]?[0-9]+(?:\.[0-9]+)?)\s*"
)


class Rule(NamedTuple):
    """A gate. `what` is mean, difference, decrease or increase; the latter two take no number."""

    text: str
    what: str
    metric: str
    resource: str | None
    sign: str = ""
    number: Decimal = Decimal(0)


def rule(text: str) -> Rule:
    """Reads a rule: `METRIC<0.9`, `difference(METRIC)<-0.01`, `decrease(METRIC)`; METRIC/RESOURCE. Raises BadInput."""
    change, limit = _CHANGE.fullmatch(text), _LIMIT.fullmatch(text)
    if change is not None:
        found = Rule(text.strip(), change[1], change[2], change[3])
    elif limit is not None:
        what = "difference" if limit[1] else "mean"
        found = Rule(text.strip(), what, limit[2], limit[3], limit[4], Decimal(limit[5]))
    else:
        raise BadInput(
            f"--fail-if {text}: expected METRIC<NUMBER (or <= > >= ==), difference(METRIC)<NUMBER, decrease(METRIC) or "
            f"increase(METRIC), as acceptance_rate<0.9"
        )
    metric(found.metric, f"--fail-if {text}")
    return found


def metric(name: str, label: str) -> str:
    """The name of a metric, or METRIC/RESOURCE, which must be one. Raises BadInput."""
    if name in ("mcnemar", "flips"):
        raise BadInput(f"{label}: {MCNEMAR}")
    try:
        known(name.partition("/")[0], METRICS, "metric", ())
    except BadInput as error:
        raise BadInput(f"{label}: {error}") from None
    return name


class Checked(NamedTuple):
    """A rule with what was found: it `holds`, and fails the comparison, for some side."""

    text: str
    found: str
    holds: bool


Means = Mapping[Name, Mapping[str, float | None]]
"""By metric: the mean of each side but the one that is compared with, over its own scenarios x seeds."""


def check(one: Rule, rows: Sequence[Row], means: Means) -> Checked:
    """Checks a rule against every side but the one that is compared with.

    A rule on a figure that is undefined holds: what can't be seen passes no gate. `decrease` and `increase` hold where
    they are decisive, and say so where these runs could not have shown it.
    """
    values: list[tuple[str, float | None]]
    if one.what == "mean":
        named = [of for name, of in means.items() if name[0] == one.metric and one.resource in (None, name[1])]
        values = [pair for of in named for pair in of.items()]
    else:
        wanted = [of for of in rows if of.metric.partition("/")[0] == one.metric]
        wanted = [of for of in wanted if one.resource is None or of.metric == f"{one.metric}/{one.resource}"]
        if wanted and one.what != "difference":
            return _changed(one, wanted)
        values = [(of.side, of.difference) for of in wanted]
    if not values:
        return Checked(one.text, "undefined, which fails", True)
    for side, value in values:
        if value is None or _holds(Decimal(repr(value)), one.sign, one.number):
            return Checked(one.text, f"{side}: {'undefined, which fails' if value is None else f'{value:.6g}'}", True)
    return Checked(one.text, "; ".join(f"{side}: {value:.6g}" for side, value in values), False)


def _changed(one: Rule, rows: Sequence[Row]) -> Checked:
    """Checks `decrease` or `increase`."""
    word = LOWER if one.what == "decrease" else HIGHER
    hit = next((of for of in rows if of.result == word), None)
    if hit is not None:
        return Checked(one.text, f"{hit.side}: {hit.difference:+.6g}", True)
    blind = next((of for of in rows if of.smallest is None and of.note), None)
    return Checked(one.text, "not decisive" + (f" ({blind.note})" if blind is not None else ""), False)


def _holds(value: Decimal, sign: str, number: Decimal) -> bool:
    return {
        "<": value < number,
        "<=": value <= number,
        ">": value > number,
        ">=": value >= number,
        "==": value == number,
    }[sign]


# --- all of it --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """What a comparison came to: every figure that is shown. `against` None: there is one side, and nothing beside it.

    `unpaired` runs have no partner on the side that all are compared with; `failed` were never complete. `about` says
    in a sentence which runs these are.
    """

    about: str
    by: str
    against: str | None
    sides: Sequence[Side]
    rows: Sequence[Row]
    unpaired: int
    failed: int
    checked: Sequence[Checked] = field(default=())

    @property
    def broken(self) -> list[str]:
        """The rules that hold, and so fail it."""
        return [f"{one.text}: {one.found}" for one in self.checked if one.holds]

    def document(self) -> dict[str, Any]:
        """As plain JSON values, figures unrounded."""
        return {
            "about": self.about,
            "by": self.by,
            "against": self.against,
            "level": LEVEL,
            "sides": [side.document() for side in self.sides],
            "metrics": [one.document() for one in self.rows],
            "unpaired": self.unpaired,
            "failed": self.failed,
            "mcnemar": MCNEMAR,
            "checked": [one._asdict() for one in self.checked],
        }


def about(runs: Sequence[Run]) -> str:
    """Which runs these are, in a sentence."""
    names = list(dict.fromkeys(run.scenario for run in runs))
    seeds = sorted({run.seed for run in runs})
    spoken = f"seed {seeds[0]}"
    if len(seeds) > 1:
        whole = seeds == list(range(seeds[0], seeds[-1] + 1))
        spoken = f"{len(seeds):,} seeds, {seeds[0]} to {seeds[-1]}" + ("" if whole else ", not all between")
    return f"{len(runs):,} runs of {', '.join(names)}; {spoken}."


def compare(
    found: Read,
    by: str | None = None,
    metrics: Sequence[str] = (),
    rules: Sequence[Rule] = (),
    against: str | None = None,
) -> Comparison:
    """Compares every side with the first one, or the one that is named. Raises BadInput."""
    by, runs = sided(found.runs, by)
    sides: dict[str, list[Sided]] = {}
    for one in runs:
        sides.setdefault(one.side, []).append(one)
    if against is not None and against not in sides:
        raise BadInput(f"--against {against}: there is no such side; there are {', '.join(sides)}")
    base = (against or next(iter(sides))) if len(sides) > 1 else None
    wanted = list(dict.fromkeys([*(metrics or HEADLINE), *(one.metric for one in rules)]))
    names: dict[Name, None] = {}
    for name in sorted((name for one in runs for name in one.run.metrics), key=lambda name: name[1] or ""):
        names.setdefault(name)
    for text in wanted:
        if "/" in text and text not in map(shown, names):
            raise BadInput(f"--metric {text}: no run has it; there are {', '.join(map(shown, names))}")
    rows: list[Row] = []
    for name in (name for one in wanted for name in names if one in (name[0], shown(name))):
        of_base = {} if base is None else _values(sides[base], name)
        for side, members in sides.items():
            if side != base:
                made = row(name, side, _values(members, name), base, of_base)
                rows += [] if made is None else [made]
    corrected(rows)
    contents = {one.content for one in runs if one.side == base}
    unpaired = 0 if base is None else sum(one.content not in contents for one in runs if one.side != base)
    if base is not None and unpaired == sum(one.side != base for one in runs):
        raise BadInput(
            f"no run has a partner on the side {base}: pairs have the same scenario, seed and settings but {by}; "
            f"run both sides with the same seeds"
        )
    order = [name for name in sides if name == base] + [name for name in sides if name != base]
    others = {name: members for name, members in sides.items() if name != base}
    means = {name: {side: _own_mean(members, name) for side, members in others.items()} for name in names}
    checks = [check(one, rows, means) for one in rules]
    told = about(found.runs)
    return Comparison(
        told, by, base, [side_of(name, sides[name]) for name in order], rows, unpaired, found.failed, checks
    )
