"""The sides of a run that are figures and charts: overview, who gave to whom, metrics, the scenario."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import streamlit as st

from dashboard import charts, definitions, frame, text
from dashboard.run_tables import to_proposals
from dashboard.runs import PAGE_ROWS, About, Ref, Row, kept, kept_table, step

ACTORS_SHOWN = 8
"""So many lines can be told apart."""

TABLE_ROWS = 1_000
"""Rows of a table that is not paged."""

OUTCOMES_LINES = 6

CHOICES, PLAIN = 5, re.compile("[A-Za-z0-9_-]+")
"""So many resources are offered side by side, where no name could be read as Markdown."""


def resource_of(about: About) -> str:
    """The resource that is looked at, chosen by the reader."""
    names = list(about.units)
    if len(names) == 1:
        return names[0]
    if len(names) <= CHOICES and all(PLAIN.fullmatch(name) for name in names):
        found = st.segmented_control(
            "Resource", names, default=names[0], required=True, key="resource", bind="query-params"
        )
    else:
        found = st.selectbox("Resource", names, key="resource", bind="query-params")
    return found or names[0]


def plot(chart: charts.Chart, alt_text: str, **options: Any) -> None:
    """A chart, with what it shows in words."""
    st.altair_chart(chart, width="stretch", alt=alt_text, **options)


# --- overview ---------------------------------------------------------------------------------------------------------


def overview(ref: Ref, about: About) -> None:
    """Who had what and when, what came and went, and what became of proposals."""
    st.markdown("#### Who had what")
    _slider(ref, about)
    resource = resource_of(about)
    unit = about.units[resource]
    left, right = st.columns(2)
    with left:
        st.markdown("#### Balances over time")
        _lines(ref, about, resource)
    with right:
        st.markdown("#### What came, went and was given")
        wide = step(about.epochs, len(charts.FLOWS))
        flows = kept_table(ref, "flows_over", (("step", wide),), ("resource", resource))
        if flows.num_rows:
            plot(_flow_chart(ref, resource, unit, wide), f"Flows of {resource} in {unit}, by epoch")
            st.caption("Unmet is what was needed and not there. Given is what executed proposals moved.")
        else:
            st.caption(f"Nothing produces or consumes {text.safe(resource)}, and nobody gave any.")
    left, right = st.columns(2)
    with left:
        st.markdown("#### What became of proposals")
        _outcomes(ref, about)
    with right:
        st.markdown("#### Which rules were broken")
        _refusals(ref)


@st.fragment
def _slider(ref: Ref, about: About) -> None:
    """Balances at the close of any epoch: those that `gridgov replay RUN --epoch N` finds."""
    last = about.epochs
    epoch = last
    if last > 0:
        epoch = _epoch(last)
    [close] = kept(ref, "epoch", (), ("epoch", epoch))
    found = kept(ref, "balances_at", (), ("epoch", epoch))
    st.caption(
        f"Epoch {epoch:,} closed at {text.moment(close['ends_at'].isoformat())} with journal record {close['seq']:,} "
        f"and ledger entry {close['entries']:,}."
        + (" The commons had collapsed." if close["collapsed"] else "")
        + f" The same: {text.safe(f'gridgov replay {ref.name} --epoch {epoch}')}"
    )
    rows = balance_rows(found, about)
    columns: dict[str, Any] = {"actor": "Actor", "type": "Type"}
    for resource, unit in about.units.items():
        columns[resource] = st.column_config.NumberColumn(f"{resource}, {unit}", format=f"%.{about.scales[resource]}f")
    shown = rows[:TABLE_ROWS]
    frame.table(shown, "balances", columns=columns, height=min(38 + 35 * len(shown), 320) if shown else "auto")
    if len(rows) > len(shown):
        st.caption(f"The first {len(shown):,} of {len(rows):,} actors.")
    sums = {name: sum(row[name] for row in rows) for name in about.units}
    together = text.listed(f"{text.number(round(sums[name], 6))} {unit}" for name, unit in about.units.items())
    st.text(f"All actors together: {together}")


def _epoch(last: int) -> int:
    """The epoch that is looked at: the parameter `epoch`, by default the last one."""
    there = text.whole(frame.param("epoch"))
    st.session_state["field-epoch"] = last if there is None else min(there, last)

    def changed() -> None:
        chosen = st.session_state["field-epoch"]
        frame.set_param("epoch", None if chosen == last else chosen)

    return st.slider("At the close of epoch", 0, last, key="field-epoch", on_change=changed)


def balance_rows(found: list[Row], about: About) -> list[Row]:
    """A row for each actor but the boundary, with its balance of each resource in units."""
    made: dict[str, Row] = {}
    for row in found:
        if row["type"] != "boundary":
            own = made.setdefault(row["actor"], {"actor": row["actor"], "type": row["type"]})
            own[row["resource"]] = row["amount"]
    return [{**dict.fromkeys(about.units, 0.0), **row} for row in made.values()]


def _lines(ref: Ref, about: About, resource: str) -> None:
    """Balances over time of some actors: of those chosen, else of those that moved most."""
    most = [row["actor"] for row in kept(ref, "most_moved", (("most", ACTORS_SHOWN),), ("resource", resource))]
    options = most + [actor for actor in about.people if actor not in set(most)]
    chosen = st.multiselect(
        "Actors",
        options[:TABLE_ROWS],
        default=[],
        max_selections=ACTORS_SHOWN,
        key="actors",
        bind="query-params",
        placeholder=f"those that moved most ({len(most)} of {len(about.people)})",
    )
    actors = tuple(chosen or sorted(most, key=charts.natural))
    if not actors:
        st.caption("Nobody has any.")
        return
    wide = step(about.epochs, len(actors))
    plot(
        _balance_chart(ref, about.epochs, resource, about.units[resource], actors), f"Balances of {resource} over time"
    )
    st.caption("At the close of each epoch." if wide == 1 else f"At the close of every {wide}th epoch.")


@lru_cache(maxsize=64)
def _balance_chart(ref: Ref, last: int, resource: str, unit: str, actors: tuple[str, ...]) -> charts.Chart:
    fill = (("step", step(last, len(actors))),)
    found = kept_table(ref, "balances_over", fill, ("resource", resource), ("actors", actors), ("last", last))
    return charts.balances(found, actors, unit)


@lru_cache(maxsize=64)
def _flow_chart(ref: Ref, resource: str, unit: str, wide: int) -> charts.Chart:
    return charts.flows(kept_table(ref, "flows_over", (("step", wide),), ("resource", resource)), unit, wide)


@lru_cache(maxsize=64)
def _outcome_chart(ref: Ref, wide: int) -> charts.Chart:
    return charts.outcomes(kept_table(ref, "outcomes_over", (("step", wide),)), wide, text.DONE)


def _outcomes(ref: Ref, about: About) -> None:
    """Outcomes over time; a bar leads to its proposals."""
    wide = step(about.epochs, OUTCOMES_LINES)
    wide = max(wide, -(-about.epochs // 200))
    found = kept_table(ref, "outcomes_over", (("step", wide),))
    if not found.num_rows:
        st.caption("Nobody proposed anything.")
        return

    def picked() -> None:
        points = st.session_state["outcomes"]["selection"].get("picked") or []
        if points:
            first = int(points[0]["epoch"])
            to_proposals(outcome=str(points[0]["outcome"]), first=first, last=min(first + wide - 1, about.epochs))

    plot(_outcome_chart(ref, wide), "Outcomes of proposals over time", key="outcomes", on_select=picked)
    total: dict[str, int] = {}
    for row in found.to_pylist():
        total[row["outcome"]] = total.get(row["outcome"], 0) + row["count"]
    counts = text.listed(f"{total[name]:,} {text.DONE[name]}" for name in text.DONE if name in total)
    st.caption(f"{counts}. Click a bar to see its proposals.")


def _refusals(ref: Ref) -> None:
    """Which rules were broken; a bar leads to the proposals that did."""
    found = kept(ref, "refusals")
    if found:

        def picked() -> None:
            points = st.session_state["rules"]["selection"].get("picked") or []
            if points:
                to_proposals(rule=str(points[0]["code"]))

        plot(charts.refusals(found), "How often each rule was broken", key="rules", on_select=picked)
        st.caption("A proposal can break several rules. Click a bar to see who broke it.")
    else:
        st.caption("No rule was broken.")
    faults = kept(ref, "faults")
    if faults:
        rows = [{**row, "outcome": text.DONE.get(row["outcome"], row["outcome"])} for row in faults]
        frame.table(rows, "faults", columns={"outcome": "Outcome", "fault": "Fault", "count": "Times"})


# --- who gave to whom -------------------------------------------------------------------------------------------------


def giving(ref: Ref, about: About) -> None:
    """The strongest gifts as lines, all of them as squares, and the same as a table."""
    resource = resource_of(about)
    unit, last = about.units[resource], max(1, about.epochs)
    first = 1
    if last > 1:
        first, last = st.slider("Epochs", 1, last, (1, last), key="epochs", bind="query-params")
    found = kept(ref, "giving", (), ("resource", resource), ("first", first), ("last", last))
    if not found:
        st.info(f"No executed proposal moved {text.safe(resource)} in these epochs.")
        return
    moved = sum(row["amount"] for row in found)
    st.text(
        f"{text.many(sum(row['transfers'] for row in found), 'transfer')} moved "
        f"{text.amount(round(moved, 6), unit)} of {resource} between "
        f"{text.many(len(found), 'pair')} of actors."
    )
    left, right = st.columns(2)
    with left:
        shown = min(len(found), charts.EDGES_MAX)
        st.markdown("#### The strongest gifts")
        plot(charts.gifts(found, unit), f"Who gave {resource} to whom, the strongest {shown} pairs")
        st.caption(f"{shown} of {len(found):,} pairs. On the left who gave, on the right who received; wider is more.")
    with right:
        st.markdown("#### Everyone")
        plot(charts.gift_table(found, unit), f"How much {resource} each gave to each")
        st.caption(f"The {charts.CELLS_MAX} actors that moved most, where there are more.")
    st.markdown("#### The same as a table")
    rows = [{**row, "share": 100 * row["amount"] / moved} for row in found[:TABLE_ROWS]]
    columns = {
        "giver": "Gave",
        "taker": "Received",
        "amount": st.column_config.NumberColumn(f"amount, {unit}", format=f"%.{about.scales[resource]}f"),
        "transfers": "Transfers",
        "share": st.column_config.NumberColumn("Share of all, %", format="%.1f"),
    }

    def chosen(place: int) -> None:
        to_proposals(actor=rows[place]["giver"], first=first, last=last)

    st.caption("Click the box before a row to see the proposals that its giver has a part in.")
    frame.table(rows, "pairs", columns=columns, chosen=chosen, height=320 if len(rows) > 8 else "auto")
    if len(found) > TABLE_ROWS:
        st.caption(f"The first {TABLE_ROWS:,} of {len(found):,} pairs.")


# --- metrics, scenario ------------------------------------------------------------------------------------------------


def figure(row: Mapping[str, Any]) -> str:
    """A metric as it is read: a share in percent, an amount with its unit, what is undefined as such."""
    value, known = row["value"], definitions.of(row["metric"])
    if value is None:
        return "undefined"
    if known.share:
        return f"{100 * value:.1f} %"
    unit = row["unit"] if row["resource"] is not None and known.amount else ""
    return text.amount(float(f"{value:.6g}") if abs(value) < 1e6 else round(value, 2), unit or "")


def metrics(ref: Ref, about: About) -> None:
    """Every metric with what it means; then those of each actor."""
    with st.spinner("Working out the metrics of this run: some seconds, if it has millions of entries."):
        found = kept(ref, "metrics")
    rows = [
        {
            "metric": definitions.of(row["metric"]).title,
            "resource": row["resource"] or "",
            "value": figure(row),
            "better": definitions.of(row["metric"]).better,
            "means": definitions.of(row["metric"]).means,
            "name": row["metric"],
        }
        for row in found
        if row["value"] is not None
    ]
    columns = {
        "metric": "Metric",
        "resource": "Resource",
        "value": st.column_config.TextColumn("Value", alignment="right"),
        "better": "Better",
        "means": st.column_config.TextColumn("What it means", width="large"),
        "name": "Name in the tables",
    }
    frame.table(rows, "metrics", columns=columns, height=38 + 35 * len(rows))
    undefined = [definitions.of(row["metric"]).title for row in found if row["value"] is None]
    if undefined:
        st.caption(f"Undefined in this run: {', '.join(dict.fromkeys(undefined))}.")
    for row in kept(ref, "baselines"):
        alone, best = (text.amount(row[key], text.plain(row["unit"])) for key in ("none_served", "bound_served"))
        note = f" ({row['note']})" if row["note"] else ""
        st.text(f"{row['resource']}: {alone} would be served if nobody proposed anything, {best} at best{note}.")
    st.markdown("#### Of each actor")
    resource = resource_of(about)
    comments = {
        row["column_name"]: row["comment"] for row in kept(ref, "comments") if row["table_name"] == "metrics_actor"
    }
    own = kept(ref, "metrics_actor", (("limit", TABLE_ROWS),), ("resource", resource))
    names = [name for name in own[0] if name != "resource"] if own else []
    headings = {name: _heading(name, comments.get(name, ""), about.scales[resource]) for name in names}
    plain = [{name: row[name] if name == "actor" else _float(row[name]) for name in names} for row in own]
    frame.table(plain, "of-actors", columns=headings, height=320 if len(plain) > 8 else "auto")
    st.text(f"Amounts are in {about.units[resource]}.")
    st.caption("Hold the pointer over a heading to read what it is.")


def _heading(name: str, comment: str, scale: int) -> Any:
    title = name.replace("_", " ")
    if name == "actor":
        return st.column_config.TextColumn(title, help=text.safe(comment, 300))
    share = name in ("served_share", "loss_of_load_probability")
    return st.column_config.NumberColumn(
        title, help=text.safe(comment, 300), format="%.3f" if share else f"%.{min(scale, 3)}f"
    )


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def scenario(ref: Ref, about: About) -> None:
    """What was run: the file as it was written, what was overridden, who proposed, and the files that it took."""
    info = about.info
    overrides = json.loads(info["overrides"] or "[]")
    st.text("Overridden: " + (", ".join(overrides) if overrides else "nothing"))
    st.text(f"Run again, to the same digest: gridgov reproduce {ref.name}")
    st.markdown("#### Who proposed")
    proposers = json.loads(info["proposers"] or "[]")
    rows = [
        {
            **{key: str(one.get(key) or "") for key in ("name", "kind", "role", "actor")},
            "by": str(one.get("policy") or one.get("model") or one.get("file") or ""),
            "mandate": "everyone" if one.get("mandate") is None else ", ".join(map(str, one["mandate"])),
        }
        for one in proposers[:PAGE_ROWS]
    ]
    columns = {"name": "Name", "kind": "Kind", "by": "By", "role": "Role", "actor": "Speaks for", "mandate": "May move"}
    frame.table(rows, "proposers", columns=columns)
    found = kept(ref, "scenario")
    st.markdown("#### The scenario as it was written")
    frame.block(found[0]["content"] if found else None, "a grid in production has no scenario file", 100_000)
    files = kept(ref, "files")
    if files:
        st.markdown("#### Files that it was made from")
        names = {"name": "Name", "size": "Bytes", "digest": "sha256"}
        frame.table(files, "files", columns=names)
