"""Charts of runs: colours that a colour-blind reader tells apart, dashes and shapes where lines overlap; no query here.

Each takes a table of at most `runs.POINTS_MAX` rows. Tables hold what others wrote as text; a chart shows it as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pyarrow as pa

BLUE, ORANGE, GREEN, PINK, SKY, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C8C8C"
"""Okabe and Ito's colours, but for yellow and black, which are lost on a light and on a dark page."""

LINES = [BLUE, RED, GREEN, ORANGE, PINK, SKY, GREY, "#7B5EA7"]
DASHES = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [10, 4], [1, 3], [6, 2, 2, 2, 2, 2]]
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left"]

OUTCOMES = {
    "executed": GREEN,
    "rejected": RED,
    "held": ORANGE,
    "noop": SKY,
    "malformed": PINK,
    "unavailable": GREY,
}

FLOWS = {
    "produced": ORANGE,
    "grown": GREEN,
    "served": BLUE,
    "unmet": RED,
    "given": PINK,
    "spilled": GREY,
}

Chart = Any
"""A chart of Altair, whose own types say less than they claim: a layer may be a facet."""

PLOT, AXIS, LINE = 200, 60, 20
"""Pixels of a plot, of the axis below it, and of a line of its legend: a chart's height holds all of them."""
EDGES_MAX = 30
"""Strongest gifts that are drawn as lines."""

SIDES: tuple[tuple[str, Any, int], ...] = (("left", "right", -8), ("right", "left", 8))
"""The two ends of a gift: where a name is, how it is aligned, and how many pixels beside its dot."""

CELLS_MAX = 40
"""Actors on each side of the table of gifts that is drawn as squares."""


def _legend(columns: int = 2) -> alt.Legend:
    """Below the chart, in columns that fit a narrow screen."""
    return alt.Legend(orient="bottom", columns=columns, title=None, labelLimit=150, symbolLimit=20)


def _height(names: int, plot: int = PLOT) -> int:
    """Of a chart whose legend has so many names."""
    return plot + AXIS + LINE * (-(-names // 2) + 1)


def _epochs(title: str = "epoch") -> alt.X:
    return alt.X("epoch:Q", title=title, axis=alt.Axis(tickMinStep=1, format=",d"), scale=alt.Scale(nice=False))


def _lines(found: pa.Table, by: str, names: Sequence[str], colours: Sequence[str], unit: str, label: str) -> Chart:
    """One line for each of `names`, told apart by colour and dash."""
    domain = list(names)
    dashes = [DASHES[i % len(DASHES)] for i in range(len(domain))]
    encoded: dict[str, Any] = {
        "x": _epochs(),
        "y": alt.Y("amount:Q", title=f"{label}, {unit}"),
        "color": alt.Color(f"{by}:N", scale=alt.Scale(domain=domain, range=list(colours)), legend=_legend()),
        "strokeDash": alt.StrokeDash(f"{by}:N", scale=alt.Scale(domain=domain, range=dashes), legend=_legend()),
        "tooltip": [
            alt.Tooltip(f"{by}:N"),
            alt.Tooltip("epoch:Q", format=",d"),
            alt.Tooltip("amount:Q", title=f"{label}, {unit}", format=",.6~f"),
        ],
    }
    return alt.Chart(found).mark_line(strokeWidth=1.8).encode(**encoded).properties(height=_height(len(domain)))


def balances(found: pa.Table, actors: Sequence[str], unit: str) -> Chart:
    """Balances at the close of epochs, a line for each actor. Columns: epoch, actor, amount."""
    colours = [LINES[i % len(LINES)] for i in range(len(actors))]
    return _lines(found, "actor", actors, colours, unit, "balance")


def overlaid(found: pa.Table, names: Sequence[str], unit: str) -> Chart:
    """The same balance in several runs. Columns: epoch, run, amount."""
    colours = [LINES[i % len(LINES)] for i in range(len(names))]
    return _lines(found, "run", names, colours, unit, "balance")


def flows(found: pa.Table, unit: str, step: int) -> Chart:
    """What came, went and was given. Columns: epoch, what, amount (sums over `step` epochs)."""
    there = set(found["what"].to_pylist())
    names = [name for name in FLOWS if name in there]
    label = "in each epoch" if step == 1 else f"in {step} epochs each"
    return _lines(found, "what", names, [FLOWS[name] for name in names], unit, label)


def outcomes(found: pa.Table, step: int, words: Mapping[str, str]) -> Chart:
    """What came of proposals. Columns: epoch (the first of `step`), outcome, count. A bar can be picked: `picked`."""
    there = set(found["outcome"].to_pylist())
    names = [name for name in OUTCOMES if name in there]
    shown = found.append_column("words", pa.array([words[name] for name in found["outcome"].to_pylist()]))
    shown = shown.append_column("until", pa.array([epoch + step for epoch in found["epoch"].to_pylist()]))
    picked = alt.selection_point(name="picked", fields=["epoch", "outcome"], on="click", empty=True)
    scale = alt.Scale(domain=[words[name] for name in names], range=[OUTCOMES[name] for name in names])
    return (
        alt.Chart(shown)
        .mark_bar(stroke=None)
        .encode(
            x=_epochs("epoch" if step == 1 else f"epoch, {step} to a bar").bin("binned"),
            x2="until:Q",
            y=alt.Y("count:Q", title="proposals", stack="zero", axis=alt.Axis(tickMinStep=1)),
            color=alt.Color("words:N", scale=scale, legend=_legend()),
            opacity=alt.condition(picked, alt.value(1.0), alt.value(0.35)),
            order=alt.Order("outcome:N"),
            tooltip=[
                alt.Tooltip("epoch:Q", format=",d"),
                alt.Tooltip("words:N", title="outcome"),
                alt.Tooltip("count:Q", title="proposals", format=",d"),
            ],
        )
        .add_params(picked)
        .properties(height=_height(len(names)))
    )


def refusals(rows: Sequence[Mapping[str, Any]]) -> Chart:
    """How often each rule was broken. Keys: code, count. A bar can be picked: `code`."""
    found = pa.Table.from_pylist([{"code": row["code"], "count": row["count"]} for row in rows])
    picked = alt.selection_point(name="picked", fields=["code"], on="click", empty=True)
    base = alt.Chart(found).encode(
        y=alt.Y("code:N", sort="-x", title=None, axis=alt.Axis(labelLimit=180)),
        x=alt.X("count:Q", title="times broken", axis=alt.Axis(tickMinStep=1, format=",d", tickCount=5)),
        tooltip=[alt.Tooltip("code:N", title="rule"), alt.Tooltip("count:Q", title="times broken", format=",d")],
    )
    bars = base.mark_bar(color=RED).encode(opacity=alt.condition(picked, alt.value(1.0), alt.value(0.35)))
    return bars.add_params(picked).properties(height=max(80, 26 * len(rows) + 40))


def gifts(rows: Sequence[Mapping[str, Any]], unit: str) -> Chart:
    """The strongest gifts: givers on the left, takers on the right, the wider the line the more. Keys as `giving`."""
    strongest = list(rows[:EDGES_MAX])
    givers = sorted({row["giver"] for row in strongest}, key=natural)
    takers = sorted({row["taker"] for row in strongest}, key=natural)
    left, right = _spread(givers), _spread(takers)
    most = max(row["amount"] for row in strongest)
    edges = [
        {**row, "x": 0, "x2": 1, "y": left[row["giver"]], "y2": right[row["taker"]], "share": row["amount"] / most}
        for row in strongest
    ]
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[-0.35, 1.35]))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[-0.04, 1.04], reverse=True))
    lines = (
        alt.Chart(pa.Table.from_pylist(edges))
        .mark_rule(color=BLUE, opacity=0.55)
        .encode(
            x=x,
            x2="x2:Q",
            y=y,
            y2="y2:Q",
            strokeWidth=alt.StrokeWidth("share:Q", scale=alt.Scale(domain=[0, 1], range=[0.6, 9]), legend=None),
            tooltip=[
                alt.Tooltip("giver:N", title="gave"),
                alt.Tooltip("taker:N", title="received"),
                alt.Tooltip("amount:Q", title=f"amount, {unit}", format=",.6~f"),
                alt.Tooltip("transfers:Q", format=",d"),
            ],
        )
    )
    places = [("left", name, 0.0, place) for name, place in left.items()]
    places += [("right", name, 1.0, place) for name, place in right.items()]
    ends = pa.Table.from_pylist([{"side": s, "name": n, "x": x_, "y": y_} for s, n, x_, y_ in places])
    dots = alt.Chart(ends).mark_point(filled=True, size=50, color=GREY, opacity=1).encode(x=x, y=y)
    texts: list[Chart] = [
        alt.Chart(ends)
        .transform_filter(f"datum.side == '{side}'")
        .mark_text(align=align, dx=dx, color=GREY, fontSize=12, limit=110)
        .encode(x=x, y=y, text="name:N")
        for side, align, dx in SIDES
    ]
    height = max(160, 20 * max(len(givers), len(takers)))
    return alt.layer(lines, dots, *texts).properties(height=height)


def _spread(names: Sequence[str]) -> dict[str, float]:
    count = len(names)
    return {name: (i + 0.5) / count for i, name in enumerate(names)}


def natural(name: str) -> tuple[str, int, str]:
    """What names are sorted by: `home-2` comes before `home-10`."""
    head = name.rstrip("0123456789")
    digits = name[len(head) :]
    return head, int(digits) if digits and len(digits) < 18 else -1, name


def gift_table(rows: Sequence[Mapping[str, Any]], unit: str) -> Chart:
    """Who gave (rows) to whom (columns), the darker the more; of those who moved most. Keys as `giving`."""
    moved: dict[str, float] = {}
    for row in rows:
        for key in ("giver", "taker"):
            moved[row[key]] = moved.get(row[key], 0.0) + row["amount"]
    chosen = sorted(sorted(moved, key=lambda name: -moved[name])[:CELLS_MAX], key=natural)
    kept = set(chosen)
    cells = [row for row in rows if row["giver"] in kept and row["taker"] in kept]
    cells = sorted(cells, key=lambda row: -float(row["amount"]))[:2_000]
    size = 15 if len(chosen) > 20 else 20
    return (
        alt.Chart(pa.Table.from_pylist([dict(row) for row in cells]))
        .mark_rect()
        .encode(
            x=alt.X("taker:N", sort=chosen, title="received", axis=alt.Axis(labelAngle=-90, labelLimit=90)),
            y=alt.Y("giver:N", sort=chosen, title="gave", axis=alt.Axis(labelLimit=90)),
            color=alt.Color(
                "amount:Q",
                scale=alt.Scale(scheme="viridis"),
                legend=alt.Legend(orient="bottom", title=unit, gradientLength=180),
            ),
            tooltip=[
                alt.Tooltip("giver:N", title="gave"),
                alt.Tooltip("taker:N", title="received"),
                alt.Tooltip("amount:Q", title=f"amount, {unit}", format=",.6~f"),
                alt.Tooltip("transfers:Q", format=",d"),
            ],
        )
        .properties(height=size * len({row["giver"] for row in cells}) + 220)
    )


SPREAD = alt.Scale(zero=False, padding=16)
"""Of a figure that need not begin at 0; no point lies on the edge."""


def swept(
    points: Sequence[Mapping[str, Any]],
    means: Sequence[Mapping[str, Any]],
    order: Sequence[str],
    titles: tuple[str, str],
    numeric: bool,
    share: bool,
) -> Chart:
    """A figure over a parameter: a line for each side through its means, its interval, and a point for each run.

    Keys: of points x, value, side, seed, run; of means x, mean, low, high (None where there is none), side, n.
    """
    domain = list(order)
    legend = alt.Legend(orient="bottom", columns=2, title=None, labelLimit=150, symbolStrokeWidth=0, symbolOpacity=1)
    colours = alt.Scale(domain=domain, range=[LINES[i % len(LINES)] for i in range(len(domain))])
    colour = alt.Color("side:N", scale=colours, legend=legend)
    kind = "Q" if numeric else "N"
    steps = list(dict.fromkeys(row["x"] for row in points))
    x = alt.X(f"x:{kind}", title=titles[0], scale=SPREAD) if numeric else alt.X("x:N", title=titles[0], sort=steps)
    y_title, tip = titles[1], [alt.Tooltip("side:N"), alt.Tooltip(f"x:{kind}", title=titles[0])]
    base = alt.Chart(pa.Table.from_pylist([dict(row) for row in means]))
    shapes = alt.Scale(domain=domain, range=[SHAPES[i % len(SHAPES)] for i in range(len(domain))])
    dashes = alt.Scale(domain=domain, range=[DASHES[i % len(DASHES)] for i in range(len(domain))])
    lines = base.mark_line(strokeWidth=2).encode(
        x=x,
        y=alt.Y("mean:Q", title=y_title, scale=SPREAD, axis=alt.Axis(format=".1~%" if share else "~g")),
        color=colour,
        strokeDash=alt.StrokeDash("side:N", scale=dashes, legend=None),
        tooltip=[*tip, alt.Tooltip("mean:Q", format=",.4~f"), alt.Tooltip("n:Q", title="runs")],
    )
    spans = (
        base.transform_filter("datum.low != null")
        .mark_rule(strokeWidth=3, opacity=0.45)
        .encode(x=x, y=alt.Y("low:Q", title=y_title, scale=SPREAD), y2="high:Q", color=colour)
    )
    dots = (
        alt.Chart(pa.Table.from_pylist([dict(row) for row in points]))
        .mark_point(filled=True, size=55, opacity=0.75)
        .encode(
            x=x,
            y=alt.Y("value:Q", title=y_title, scale=SPREAD),
            color=colour,
            shape=alt.Shape("side:N", scale=shapes, legend=legend),
            tooltip=[
                *tip,
                alt.Tooltip("seed:N"),
                alt.Tooltip("value:Q", title=y_title, format=",.6~f"),
                alt.Tooltip("run:N"),
            ],
        )
    )
    picked = alt.selection_point(name="picked", fields=["run"], on="click", empty=True)
    return alt.layer(spans, lines, dots.add_params(picked)).properties(height=_height(len(domain), 280))
