"""The page Sweeps: the figures of many runs over what was varied, and the way to each of them."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard import beside, charts, definitions, frame, runs, text
from dashboard.pages.run import draw_progress
from gridgov import progress, settings
from gridgov.errors import GridgovError

ROWS_MAX = 1_000

ANY = "all"


def show() -> None:
    """Draws the page."""
    if not frame.signed_in():
        st.info("Sign in to look at runs.")
        return
    name = frame.param("file")
    if not name:
        _offer()
        return
    try:
        found = runs.opened(settings.load().runs, name)
    except GridgovError as error:
        st.error(f"This sweep cannot be shown. {text.safe(error, 500)}")
        _offer()
        return
    _head(found)
    try:
        swept = beside.swept(found.file)
    except GridgovError as error:
        st.warning(f"There are no figures. {text.safe(error, 500)}")
    else:
        _curves(found, swept)
    _failed(found)


def _offer() -> None:
    """What sweeps there are, and those under way."""
    folder = settings.load().runs
    going = [one for one in progress.read(folder, frame.now()) if one.kind == "sweep"]
    if going:
        _watch()
    listed, _ = runs.listing(folder, 200)
    many = [found for found in listed if found.many]
    if not many and not going:
        st.info(
            f"No file in `{folder}` holds many runs. "
            "`gridgov sweep scenarios/drought.yaml --seeds 0:8 --proposer policy:greedy --proposer policy:none` makes "
            "one."
        )
    for found in many:
        failed = sum(row["status"] == "failed" for row in found.runs)
        label = f"{text.safe(found.runs[0]['scenario'])}: {len(found.runs):,} runs" + (
            f", {failed:,} failed" if failed else ""
        )
        when = text.moment(found.file.changed_at)
        choice = {"type": "tertiary", "on_click": frame.set_param, "args": ("file", found.name)}
        st.button(f"{label} ({when})", key=f"open-{found.name}", **choice)  # type: ignore[arg-type]


@st.fragment(run_every=2)
def _watch() -> None:
    going = [one for one in progress.read(settings.load().runs, frame.now()) if one.kind == "sweep"]
    if not going:
        st.rerun()
    for one in going:
        draw_progress(one)


def _head(found: runs.Found) -> None:
    st.subheader(text.safe(found.runs[0]["scenario"]))
    failed = sum(row["status"] == "failed" for row in found.runs)
    took = sum(row["seconds"] or 0.0 for row in found.runs)
    st.text(
        f"{text.many(len(found.runs), 'run')}, {failed:,} failed, {text.span(took)} of computing together, "
        f"written {text.when(found.file.changed_at, frame.now())}."
    )
    same = f"gridgov compare {found.file.path}"
    st.caption(f"File {text.safe(found.name)}. The statistics: {text.safe(same, 300)}")


def _title(metric: tuple[str, str | None]) -> str:
    known = definitions.of(metric[0])
    return known.title if metric[1] is None else f"{known.title}, {metric[1]}"


def _axis(found: runs.Found, metric: tuple[str, str | None]) -> str:
    """The title of the axis: with the unit, where the metric is an amount."""
    ended = next((row["run_id"] for row in found.runs if row["status"] != "failed"), None)
    if ended is None or metric[1] is None or not definitions.of(metric[0]).amount:
        return _title(metric)
    units = runs.about(runs.Ref(found.file, ended, runs.named(found, ended))).units
    return f"{_title(metric)}, {units.get(metric[1], '')}"


def _curves(found: runs.Found, swept: beside.Swept) -> None:
    """A metric over a parameter, then the runs as a table."""
    keys = list(swept.keys) or [beside.SEED]
    keys.sort(key=lambda key: key == beside.SEED)
    names = {f"{name}/{resource}" if resource else name: (name, resource) for name, resource in swept.metrics}
    left, right = st.columns(2)
    with left:
        picked = st.selectbox(
            "Metric", list(names), format_func=lambda key: _title(names[key]), key="metric", bind="query-params"
        )
    with right:
        key = st.selectbox("Over", keys, key="over", bind="query-params")
    metric = names[picked]
    held = _held(swept, key)
    known = definitions.of(metric[0])
    better = f" Better is {known.better}." if known.better else ""
    st.text(f"{known.means}{better}")
    shown = beside.curves(found.file, key, metric, held, runs.POINTS_MAX // 2)
    if not shown.points:
        st.info("No run has this metric under these settings.")
        return
    picked_points: Any = st.altair_chart(
        charts.swept(shown.points, shown.means, swept.sides, (key, _axis(found, metric)), shown.numeric, known.share),
        width="stretch",
        key="curves",
        on_select="rerun",
        selection_mode="picked",
        alt=f"{_title(metric)} over {key}",
    )
    chosen = picked_points["selection"].get("picked") or []
    st.caption(
        "A point is a run, a line the mean of each side; a bar is the 95 % interval of the mean, where at least 6 runs "
        "differ. Click a point to open its run."
        + (f" {shown.left_out:,} points are left out of the picture, not of the means." if shown.left_out else "")
    )
    if chosen:
        frame.go("run", run=runs.named(found, str(chosen[0]["run"])))
    _table(found, swept, key, metric, held)


def _held(swept: beside.Swept, key: str) -> tuple[tuple[str, str], ...]:
    """What else was varied: all of it together, or one value."""
    others = [name for name in swept.keys if name not in (key, beside.SEED)]
    held: list[tuple[str, str]] = []
    for name in others[:4]:
        value = st.selectbox(text.safe(name), [ANY, *swept.keys[name]], key=f"at.{name}", bind="query-params")
        if value not in (None, ANY):
            held.append((name, value))
    return tuple(held)


def _table(
    found: runs.Found,
    swept: beside.Swept,
    key: str,
    metric: tuple[str, str | None],
    held: tuple[tuple[str, str], ...],
) -> None:
    """A row for each run; one that is picked can be opened."""
    chosen = [row for row in swept.rows if all(row["settings"].get(name) == value for name, value in held)]
    others = [name for name in swept.metrics if name != metric][:5]
    titles = {_title(name): name for name in [metric, *others]}
    keys = [name for name in swept.keys if name != beside.SEED]
    rows = [
        {
            "who proposes": row["side"],
            **{name: row["settings"].get(name) for name in keys},
            "seed": str(row["seed"]),
            **{title: _plain(row["values"].get(name)) for title, name in titles.items()},
            "run": row["run_id"],
        }
        for row in chosen[:ROWS_MAX]
    ]
    links = st.container()
    picked: Any = st.dataframe(
        rows,
        hide_index=True,
        key="sweep-rows",
        on_select="rerun",
        selection_mode="multi-row",
        placeholder="",
        column_config={"who proposes": "Who proposes", "seed": "Seed", "run": "Run"}
        | {title: st.column_config.NumberColumn(title, format="%.4g") for title in titles},
        height=min(40 + 35 * max(1, len(rows)), 420),
    )
    places = [place for place in picked["selection"]["rows"] if place < len(rows)]
    with links:
        for place in places[:5]:
            row = rows[place]
            label = f"Open {text.safe(row['who proposes'])}, seed {row['seed']}"
            frame.link("run", label, run=runs.named(found, row["run"]))
        if len(places) > 1:
            some = ",".join(runs.named(found, rows[place]["run"]) for place in places[:6])
            frame.link("compare", f"Compare these {min(6, len(places))}", runs=some)
    if not places:
        st.caption("Click the box before a row to open its run, or two and more to compare them.")
    if len(chosen) > len(rows):
        st.caption(f"The first {len(rows):,} of {len(chosen):,} runs.")
    frame.link("compare", "Compare the sides, with statistics", runs=found.name)


def _plain(value: Any) -> float | None:
    return None if value is None else float(value)


def _failed(found: runs.Found) -> None:
    """The runs that failed, each with its error."""
    failed = [row for row in found.runs if row["status"] == "failed"]
    if not failed:
        return
    st.markdown(f"#### {text.many(len(failed), 'run')} failed")
    rows = [
        {
            "who": row["who"],
            "settings": beside.settings_of(row["overrides"]),
            "seed": str(row["seed"]),
            "error": text.plain(row["error"], 1_000),
        }
        for row in failed[:ROWS_MAX]
    ]
    columns = {
        "error": st.column_config.TextColumn("Error", width="large"),
        "who": "Who proposes",
        "settings": "Settings",
        "seed": "Seed",
    }
    frame.table(rows, "failed", columns=columns, height=min(40 + 35 * len(rows), 320))
