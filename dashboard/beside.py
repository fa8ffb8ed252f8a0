"""Runs beside runs: what two of them share and where they part, and the figures of a sweep; nothing is drawn here.

All of it is worked out by `gridgov.diff` and `sim.compare`; here it is asked for files that never change, and kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dashboard.runs import File, Ref, Row
from gridgov.diff import Diff, diff
from gridgov.errors import GridgovError
from gridgov.source import open_source

if TYPE_CHECKING:
    from sim.compare import Comparison, Read, Sided

RECORDS_MAX = 100_000
"""Two runs of more records together are only read to the end when somebody asks for it: that takes a while."""

RECORDS_A_SECOND = 30_000
"""About so many are read; for a guess of how long it will take."""

SEED = "seed"


@lru_cache(maxsize=32)
def parted(a: Ref, b: Ref) -> Diff:
    """Where two runs part, and what differs after. Raises BadInput or Damaged. Complexity: O(records of both)."""
    with open_source(a.source, Path()) as one, open_source(b.source, Path()) as other:
        return diff(one, other)


@lru_cache(maxsize=32)
def read(sources: tuple[str, ...], stamps: tuple[File, ...]) -> Read:
    """The runs of files and of runs in files, with their metrics; `stamps` are the versions of the files.

    Raises BadInput or Damaged where none is complete.
    """
    from sim.compare import read as found

    return found(sources, Path())


class Compared(NamedTuple):
    """A paired comparison, or why there is none."""

    found: Comparison | None
    why: str


@lru_cache(maxsize=32)
def compared(sources: tuple[str, ...], stamps: tuple[File, ...], by: str | None, against: str | None) -> Compared:
    """The sides of some runs, compared in pairs of one scenario and seed."""
    from sim.compare import compare

    try:
        return Compared(compare(read(sources, stamps), by, against=against), "")
    except GridgovError as error:
        return Compared(None, str(error))


# --- sweeps -----------------------------------------------------------------------------------------------------------


class Swept(NamedTuple):
    """The runs of a sweep: what was varied, with its values in order, and one row for each complete run.

    Attributes:
        keys: keys of `--set` and `seed`, with more than one value.
        sides: who proposes, in short; two that differ never share a name.
        metrics: metrics that are defined in some run, as (name, resource or None).
        rows: run_id, side, seed, settings (by key) and values (by metric) of each run.
    """

    keys: Mapping[str, tuple[str, ...]]
    sides: tuple[str, ...]
    metrics: tuple[tuple[str, str | None], ...]
    rows: tuple[Row, ...]


@lru_cache(maxsize=16)
def swept(file: File) -> Swept:
    """The complete runs of a file. Raises BadInput where none is complete."""
    from sim.compare import AS_WRITTEN, HEADLINE, sided

    found = read((file.path,), (file,))
    _, all_sided = sided(found.runs, "proposers")
    keys: dict[str, dict[str, None]] = {}
    for one in all_sided:
        for key in (*one.run.settings, SEED):
            keys.setdefault(key, {})
    rows: list[Row] = []
    names: dict[tuple[str, str | None], None] = {}
    for one in all_sided:
        settings = {key: _setting(one, key, AS_WRITTEN) for key in keys}
        for key, value in settings.items():
            keys[key].setdefault(value)
        names.update(dict.fromkeys(one.run.metrics))
        rows.append(
            {
                "run_id": one.run.run_id,
                "side": one.side,
                "seed": one.run.seed,
                "settings": settings,
                "values": one.run.metrics,
                "synthetic": one.run.synthetic,
            }
        )
    varied = {key: tuple(sorted(values, key=_in_order)) for key, values in keys.items() if len(values) > 1}
    place = {name: i for i, name in enumerate(HEADLINE)}
    metrics = sorted(names, key=lambda name: (place.get(name[0], len(place)), name[0], name[1] or ""))
    return Swept(varied, tuple(dict.fromkeys(row["side"] for row in rows)), tuple(metrics), tuple(rows))


def _setting(one: Sided, key: str, absent: str) -> str:
    return str(one.run.seed) if key == SEED else one.run.settings.get(key, absent)


def number(text: str) -> float | None:
    """A setting as a number; None where it is none."""
    try:
        return float(text)
    except ValueError:
        return None


def _in_order(text: str) -> tuple[bool, float, str]:
    found = number(text)
    return found is None, found or 0.0, text


class Curves(NamedTuple):
    """What a chart of a sweep shows; see `charts.swept`."""

    points: list[Row]
    means: list[Row]
    numeric: bool
    left_out: int


@lru_cache(maxsize=64)
def curves(
    file: File, key: str, metric: tuple[str, str | None], held: tuple[tuple[str, str], ...], most: int
) -> Curves:
    """A metric over a parameter, for the runs that have the settings `held`: a mean for each side and value.

    The interval is that of the mean over these runs (BCa bootstrap), where there are enough that differ.
    At most so many points: of more, every k-th is shown; means are of all.
    """
    from sim.inference import alike
    from sim.paired import PAIRS_MIN, bootstrap

    found = swept(file)
    values = found.keys.get(key, ())
    numeric = bool(values) and all(number(value) is not None for value in values)
    points: list[Row] = []
    for row in found.rows:
        value = row["values"].get(metric)
        if value is not None and all(row["settings"].get(name) == wanted for name, wanted in held):
            text = row["settings"].get(key, "")
            x = number(text) if numeric else text
            points.append(
                {"x": x, "value": float(value), "side": row["side"], "seed": str(row["seed"]), "run": row["run_id"]}
            )
    points.sort(key=lambda point: (point["side"], values.index(_text(point["x"], values)) if values else 0))
    grouped: dict[tuple[str, Any], list[float]] = {}
    for point in points:
        grouped.setdefault((point["side"], point["x"]), []).append(point["value"])
    means = []
    for (side, x), some in grouped.items():
        interval = bootstrap(some) if len(some) >= PAIRS_MIN and not alike(some) else None
        low, high = (None, None) if interval is None else interval
        means.append({"x": x, "side": side, "mean": sum(some) / len(some), "low": low, "high": high, "n": len(some)})
    every = max(1, -(-len(points) // most))
    return Curves(points[::every], means, numeric, len(points) - len(points[::every]))


def _text(x: Any, values: Sequence[str]) -> str:
    """The setting that an x stands for."""
    return x if isinstance(x, str) else next(value for value in values if number(value) == x)


def settings_of(overrides: str | None) -> str:
    """Overrides in short."""
    return ", ".join(json.loads(overrides or "[]"))
