"""The page Compare: runs side by side, where two of them part, and whether a difference could be chance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import streamlit as st

from dashboard import beside, charts, definitions, frame, run_views, runs, text
from gridgov import settings
from gridgov.errors import GridgovError

RUNS_MAX = 6
"""So many runs are shown side by side."""

ALL = "all actors together"


class Chosen(NamedTuple):
    """What the address names: single runs, and files of many runs; `label` is what each is called on this page."""

    refs: tuple[runs.Ref, ...]
    files: tuple[runs.Found, ...]
    labels: dict[str, str]


def show() -> None:
    """Draws the page."""
    if not frame.signed_in():
        st.info("Sign in to look at runs.")
        return
    names = [name for name in frame.param("runs").split(",") if name]
    _picker(names)
    chosen = _chosen(names)
    if len(chosen.refs) + len(chosen.files) < 1:
        return
    if len(chosen.refs) > 1:
        shown = chosen.refs[:RUNS_MAX]
        if len(chosen.refs) > RUNS_MAX:
            st.caption(f"The first {RUNS_MAX} of {len(chosen.refs)} runs side by side; the statistics are of all.")
        _guarded(_metrics, shown, chosen.labels)
        _guarded(_parting, shown, chosen.labels)
        _guarded(_overlaid, shown, chosen.labels)
    elif len(chosen.refs) == 1 and not chosen.files:
        st.info("Choose another run to compare it with.")
        return
    _guarded(_statistics, chosen)


def _guarded(draw: Any, *given: Any) -> None:
    """Draws a part of the page, or says why it cannot be."""
    try:
        draw(*given)
    except GridgovError as error:
        st.warning(f"This cannot be shown. {text.safe(error, 500)}")


def _picker(names: Sequence[str]) -> None:
    """Which runs: those in the address; any of the store can be added."""
    listed, _ = runs.listing(settings.load().runs, 200)
    options: dict[str, str] = {}
    for found in listed:
        if found.many:
            options[found.name] = f"{text.plain(found.runs[0]['scenario'])}: {len(found.runs):,} runs in {found.name}"
        elif found.runs:
            row = found.runs[0]
            name = runs.named(found, row["run_id"])
            options[name] = f"{text.plain(row['scenario'])}, {text.plain(row['who'])}, seed {row['seed']} ({name[:16]})"
    options.update({name: name for name in names if name not in options})
    if st.session_state.get("compared") is None or st.session_state.get("compared-of") != tuple(names):
        st.session_state["compared"] = list(names)
        st.session_state["compared-of"] = tuple(names)

    def changed() -> None:
        picked = st.session_state["compared"]
        st.session_state["compared-of"] = tuple(picked)
        frame.set_param("runs", ",".join(picked))

    st.multiselect(
        "Runs, and files of many runs",
        list(options),
        format_func=lambda name: options.get(name, name),
        key="compared",
        on_change=changed,
        placeholder="Choose two runs or more",
    )
    if not names:
        where = f"in `{settings.load().runs}`"
        st.info(
            f"Choose two runs or more {where}, or a file of many runs."
            if options
            else f"There is no run {where} yet. `gridgov run scenarios/seed.yaml` makes the first one."
        )


def _chosen(names: Sequence[str]) -> Chosen:
    folder = settings.load().runs
    refs: list[runs.Ref] = []
    files: list[runs.Found] = []
    for name in dict.fromkeys(names):
        try:
            if name.endswith(".duckdb"):
                found = runs.opened(folder, name)
                if found.many:
                    files.append(found)
                    continue
            ref = runs.locate(folder, name)
            if runs.about(ref).info["status"] == "failed":
                st.warning(f"{text.safe(name)} failed, and has nothing to compare.")
            elif all((ref.file, ref.run_id) != (other.file, other.run_id) for other in refs):
                refs.append(ref)
        except GridgovError as error:
            st.error(f"This run cannot be shown. {text.safe(error, 500)}")
    return Chosen(tuple(refs), tuple(files), _labels(refs))


def _labels(refs: Sequence[runs.Ref]) -> dict[str, str]:
    """What runs are called here, by name: no more than it takes to tell them apart."""
    infos = {ref.name: runs.about(ref).info for ref in refs}
    parts = {
        name: [
            text.plain(info["scenario"], 40),
            runs.who(info["proposers"]),
            f"seed {info['seed']}",
            *json.loads(info["overrides"] or "[]"),
        ]
        for name, info in infos.items()
    }
    found: dict[str, str] = {}
    for name, own in parts.items():
        others = [other for key, other in parts.items() if key != name]
        telling = [part for part in own if not all(part in other for other in others)]
        label = text.plain(", ".join(telling or own[:2]), 60)
        found[name] = label if label not in found.values() else f"{label} ({name[:8]})"
    return found


# --- side by side -----------------------------------------------------------------------------------------------------


def _metrics(refs: Sequence[runs.Ref], labels: dict[str, str]) -> None:
    """A row for each metric, a column for each run; those that differ first."""
    st.markdown("#### Metrics side by side")
    found: dict[tuple[str, str], dict[str, Any]] = {}
    values: dict[tuple[str, str], set[Any]] = {}
    for ref in refs:
        for row in runs.kept(ref, "metrics"):
            key = (row["metric"], row["resource"] or "")
            known = definitions.of(row["metric"])
            own = found.setdefault(
                key,
                {"metric": known.title, "resource": key[1], "better": known.better, "means": known.means},
            )
            own[ref.name] = run_views.figure(row)
            values.setdefault(key, set()).add(row["value"])
    best = {str([(row["resource"], row["bound_served"]) for row in runs.kept(ref, "baselines")]) for ref in refs}
    if len(best) > 1:  # each is measured against its own best, so the smaller one need not be the better
        for key, row in found.items():
            if key[0] == "regret":
                row.update({"better": "", "means": "Not comparable: what was possible differs between these runs."})
    differ = [key for key in found if len(values[key]) > 1]
    only = st.toggle("Only what differs", value=True, key="differ", bind="query-params")
    chosen = differ if only else differ + [key for key in found if key not in differ]
    columns: dict[str, Any] = {"metric": "Metric", "resource": "Resource"}
    columns |= {ref.name: st.column_config.TextColumn(labels[ref.name], alignment="right") for ref in refs}
    columns |= {"better": "Better", "means": st.column_config.TextColumn("What it means", width="large")}
    frame.table(
        [found[key] for key in chosen],
        "metrics-beside",
        columns=columns,
        empty="Every metric is the same in all of them.",
    )
    if only:
        st.caption(f"{len(differ)} of {len(found)} metrics differ.")
    for ref in refs:
        frame.link("run", f"Open {text.safe(labels[ref.name])}", run=ref.name)


def _parting(refs: Sequence[runs.Ref], labels: dict[str, str]) -> None:
    """The first record at which two runs part."""
    st.markdown("#### Where two of them part")
    a, b = refs[0], refs[1]
    if len(refs) > 2:
        pairs = {f"{labels[one.name]} | {labels[refs[0].name]}": one for one in refs[1:]}
        picked = st.selectbox("Which two", list(pairs), key="pair")
        b = pairs[picked]
    count = sum(runs.about(ref).info["records"] or 0 for ref in (a, b))
    if count > beside.RECORDS_MAX:
        about = text.span(count / beside.RECORDS_A_SECOND)
        if not st.toggle(f"Look for it: reads {count:,} records, about {about}", key="look", bind="query-params"):
            return
    with st.spinner("Reading both runs"):
        found = beside.parted(a, b)
    if found.identical:
        st.success("They are the same run: every record is the same.")
        return
    names = labels[a.name], labels[b.name]
    if found.set_up:
        st.text("What was put in:")
        _changes(found.set_up, "set-up", names)
    if found.parting is None:
        st.text("What happened is the same throughout.")
    else:
        said = found.parting.a or found.parting.b or {}
        st.text(
            f"They part at record {found.parting.seq:,}, epoch {said.get('epoch')}, of the kind {said.get('kind')}:"
        )
        _changes(found.parting.differs, "parting", names)
        for ref, side in ((a, found.parting.a), (b, found.parting.b)):
            if side is not None and side.get("proposal_id"):
                label = f"Read its story in {text.safe(labels[ref.name])}"
                frame.link("run", label, run=ref.name, view="Proposals", proposal=side["proposal_id"])
    if found.balances:
        st.text(f"{text.many(len(found.balances), 'final balance')} differ, the largest difference first:")
        _changes(found.balances[:20], "final", names)


def _changes(changes: Sequence[Any], name: str, names: tuple[str, str]) -> None:
    rows = [{"key": change.key, "a": _shown(change.a), "b": _shown(change.b)} for change in changes[:50]]
    columns = {
        "key": "What",
        "a": st.column_config.TextColumn(names[0], width="medium"),
        "b": st.column_config.TextColumn(names[1], width="medium"),
    }
    frame.table(rows, f"changes-{name}", columns=columns)
    if len(changes) > len(rows):
        st.caption(f"The first {len(rows)} of {len(changes):,} differences.")


def _shown(value: Any) -> str:
    if value is None:
        return "(not there)"
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.plain(said, 400)


def _overlaid(refs: Sequence[runs.Ref], labels: dict[str, str]) -> None:
    """One balance over time in all of them."""
    st.markdown("#### Balances overlaid")
    abouts = [runs.about(ref) for ref in refs]
    shared = [
        name for name in abouts[0].units if all(about.units.get(name) == abouts[0].units[name] for about in abouts)
    ]
    if not shared:
        st.caption("They have no resource in common.")
        return
    left, right = st.columns(2)
    with left:
        resource = st.selectbox("Resource", shared, key="resource", bind="query-params")
    with right:
        actors = [actor for actor in abouts[0].people if all(actor in about.actors for about in abouts)]
        actor = st.selectbox("Of", [ALL, *actors[:1_000]], key="actor", bind="query-params")
    tables = []
    for ref, about in zip(refs, abouts, strict=True):
        fill = (("step", runs.step(about.epochs, len(refs))),)
        given: list[tuple[str, Any]] = [("resource", resource), ("last", about.epochs)]
        name = "held_over" if actor == ALL else "one_over"
        found = runs.kept_table(ref, name, fill, *given, *([] if actor == ALL else [("actor", actor)]))
        tables.append(found.append_column("run", pa.array([labels[ref.name]] * found.num_rows, pa.string())))
    names = [labels[ref.name] for ref in refs]
    chart = charts.overlaid(pa.concat_tables(tables), names, abouts[0].units[resource])
    run_views.plot(chart, f"{resource} of {actor} in each run, at the close of epochs")


# --- statistics -------------------------------------------------------------------------------------------------------


def _statistics(chosen: Chosen) -> None:
    """The paired comparison, as `gridgov compare`."""
    st.markdown("#### Could it be chance?")
    sources = tuple([ref.source for ref in chosen.refs] + [found.file.path for found in chosen.files])
    stamps = tuple([ref.file for ref in chosen.refs] + [found.file for found in chosen.files])
    found = beside.read(sources, stamps)
    keys = sorted({key for run in found.runs for key in run.settings})
    by = st.selectbox("Compare", ["automatic", "proposers", *keys], key="by", bind="query-params")
    first = beside.compared(sources, stamps, None if by == "automatic" else by, None)
    if first.found is None:
        st.caption(f"There is no paired comparison: {text.safe(first.why, 400)}")
        return
    sides = [side.name for side in first.found.sides]
    against = first.found.against
    if len(sides) > 2:
        against = st.selectbox("With", sides, key="against", bind="query-params")
    result = beside.compared(sources, stamps, None if by == "automatic" else by, against)
    if result.found is None:
        st.caption(f"There is no paired comparison: {text.safe(result.why, 400)}")
        return
    _table(result.found)


def _figure(title: str) -> Any:
    return st.column_config.NumberColumn(title, format="%.4g")


def _table(found: Any) -> None:
    rows = [
        {
            "metric": row.metric,
            "side": text.plain(row.side, 60),
            "n": row.n,
            "base": row.base,
            "mean": row.mean,
            "difference": row.difference,
            "interval": "" if row.interval is None else f"{row.interval.low:.4g} to {row.interval.high:.4g}",
            "p": row.corrected,
            "result": "" if row.difference is None else row.result,
            "note": row.note,
        }
        for row in found.rows
    ]
    columns: dict[str, Any] = {"metric": "Metric", "side": "Side", "n": "n"}
    if found.against is not None:
        columns |= {"base": _figure(text.plain(found.against, 40)), "mean": _figure("This side")}
        columns |= {"difference": _figure("Difference"), "interval": "95 % interval", "p": _figure("p, corrected")}
        columns |= {"result": "Result"}
    else:
        columns |= {"mean": _figure("Mean"), "interval": "95 % interval"}
    columns |= {"note": st.column_config.TextColumn("Note", width="large")}
    frame.table(rows, "compared", columns=columns, empty="There is no metric that both sides have.")
    beside_all = "" if found.against is None else f", all with {text.safe(found.against)}"
    lost = f" {found.unpaired:,} runs have no partner and are left out." if found.unpaired else ""
    failed = f" {found.failed:,} runs failed and are left out." if found.failed else ""
    st.caption(
        f"Compared: {text.safe(found.by)}{beside_all}. n counts scenarios and seeds; below 6 there is no interval. "
        f"Decisive is what leaves out 0 and has a corrected p below 0.05.{lost}{failed} "
        "The same with rules to fail a check: `gridgov compare`."
    )
