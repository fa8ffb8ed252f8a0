"""The page Runs: which runs there are, what they came to, and what is under way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from dashboard import beside, frame, runs, text
from dashboard.pages.run import draw_progress
from gridgov import progress, settings

READ_MOST = 24
"""So many files are read for the first time before the page is shown; the rest follows."""

STATES = ("complete", "open", "failed", "cannot be read")


def show() -> None:
    """Draws the page."""
    if not frame.signed_in():
        st.info("Sign in to look at runs.")
        return
    folder = settings.load().runs
    st.caption(f"Files of runs in `{folder}`. They never change; this page changes nothing.")
    going = sorted(one.name for one in progress.read(folder, frame.now()))
    _under_way(going)
    listed, left = runs.listing(folder, READ_MOST)
    if left:
        _more(left)
    rows = [row for found in listed for row in _rows(found)]
    if not rows and not left:
        if going:
            return
        st.info(
            "No run is here yet. `gridgov run scenarios/seed.yaml` makes one in a second; "
            "`gridgov export postgres --out production.duckdb` makes one of production; "
            "`gridgov dashboard --runs DIR` looks somewhere else."
        )
        return
    _table(_filtered(rows))


@st.fragment(run_every=2)
def _under_way(known: Sequence[str]) -> None:
    """What goes on in other processes; once something has begun or ended, the list is read again."""
    found = progress.read(settings.load().runs, frame.now())
    for one in found:
        draw_progress(one)
    if sorted(one.name for one in found) != list(known):
        st.rerun()


@st.fragment(run_every=0.5)
def _more(left: int) -> None:
    """Reads the files that are left, some at a time."""
    st.caption(f"Reading {text.many(left, 'more file')} …")
    if st.session_state.get("reading") == left:
        st.session_state["reading"] = None
        st.rerun()
    st.session_state["reading"] = left


def _rows(found: runs.Found) -> list[dict[str, Any]]:
    """A row for the list: of a run, of a file of many, or of what cannot be read."""
    base = {"file": found.name, "written": text.moment(found.file.changed_at), "mb": found.file.bytes / 1e6}
    if found.error:
        return [{**base, "scenario": "", "state": "cannot be read", "about": found.error, "to": None}]
    if not found.runs:
        return [{**base, "scenario": "", "state": "cannot be read", "about": "it holds no run", "to": None}]
    if found.many:
        failed = sum(row["status"] == "failed" for row in found.runs)
        state = "failed" if failed == len(found.runs) else "complete"
        who = list(dict.fromkeys(row["who"] for row in found.runs if row["status"] != "failed"))
        about = f"{len(found.runs):,} runs" + (f", {failed:,} failed" if failed else "")
        scenario = text.plain(found.runs[0]["scenario"])
        proposers = text.plain("; ".join(who[:3]) + ("; …" if len(who) > 3 else ""))
        return [
            {
                **base,
                "scenario": scenario,
                "state": state,
                "who": proposers,
                "about": about,
                "to": ("sweeps", found.name),
            }
        ]
    return [_row(base, found, found.runs[0])]


def _row(base: dict[str, Any], found: runs.Found, row: runs.Row) -> dict[str, Any]:
    counts = row["counts"]
    share = runs.accepted(counts)
    replies = (row["recorded"] or 0) + (row["synthetic"] or 0)
    failed = row["status"] == "failed"
    return {
        **base,
        "scenario": text.plain(row["scenario"]),
        "state": row["status"],
        "seed": None if row["seed"] is None else str(row["seed"]),
        "who": text.plain(row["who"]),
        "changed": text.plain(beside.settings_of(row["overrides"]), 300),
        "epochs": row["epochs"],
        "proposals": sum(counts.values()),
        "accepted": None if share is None else 100 * share,
        "refused": counts.get("rejected", 0),
        "served": None if row["served"] is None else 100 * row["served"],
        "regret": row["regret"],
        "synthetic": 100 * (row["synthetic"] or 0) / replies if replies else None,
        "entries": row["entries"],
        "seconds": row["seconds"],
        "about": text.plain(row["error"], 300) if failed else "",
        "id": row["run_id"],
        "to": ("run", runs.named(found, row["run_id"])),
    }


def _filtered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that the reader wants to see."""
    one, two, three = st.columns([2, 1, 1])
    with one:
        find = st.text_input(
            "Search", key="find", bind="query-params", placeholder="scenario, what was changed, run id, file"
        )
    with two:
        names = sorted({row["scenario"] for row in rows if row["scenario"]})
        scenario = st.selectbox("Scenario", ["any", *names], key="scenario", bind="query-params")
    with three:
        state = st.selectbox("State", ["any", *STATES], key="state", bind="query-params")
    words = find.lower().split()
    found = []
    for row in rows:
        said = " ".join(
            str(row.get(key) or "") for key in ("scenario", "who", "changed", "id", "file", "seed", "about")
        ).lower()
        fits = scenario in ("any", row["scenario"]) and state in ("any", row["state"])
        if fits and all(word in said for word in words):
            found.append(row)
    return found


COLUMNS = {
    "scenario": "Scenario",
    "who": "Who proposes",
    "changed": "Changed in the scenario",
    "state": "State",
    "about": "What",
    "seed": "Seed",
    "accepted": ("Accepted, %", "%.1f"),
    "refused": "Refused",
    "served": ("Needs served, %", "%.1f"),
    "regret": ("Regret", "%.3f"),
    "synthetic": ("Synthetic replies, %", "%.0f"),
    "epochs": "Epochs",
    "entries": ("Ledger entries", "%,d"),
    "written": "Written",
    "mb": ("Size, MB", "%.1f"),
    "seconds": ("Took, s", "%.1f"),
    "id": "Run",
}


def _table(rows: list[dict[str, Any]]) -> None:
    shown = rows[:1_000]
    columns: dict[str, Any] = {
        key: name
        if isinstance(name, str)
        else st.column_config.NumberColumn(name[0], format=name[1].replace(",d", "d"))
        for key, name in COLUMNS.items()
        if any(row.get(key) not in (None, "") for row in shown)
    }
    if "about" in columns:
        columns["about"] = st.column_config.TextColumn("What", width=140)
    links = st.container()
    picked = st.dataframe(
        [{key: row.get(key) for key in columns} for row in shown] or None,
        hide_index=True,
        column_config=columns,
        column_order=list(columns),
        key="runs",
        on_select="rerun",
        selection_mode="multi-row",
        height=min(40 + 35 * max(1, len(shown)), 620),
        placeholder="",
    )
    places = [place for place in picked["selection"]["rows"] if place < len(shown)]
    if not shown:
        st.caption("No run is like that.")
    elif not places:
        st.caption("Click the box before a row to open it, or two and more to compare them.")
    with links:
        _actions([shown[place] for place in places])
    if len(rows) > len(shown):
        st.caption(f"The first {len(shown):,} of {len(rows):,}. Search to see the others.")


def _actions(chosen: list[dict[str, Any]]) -> None:
    """Where what is chosen leads to."""
    for row in chosen[:5]:
        if row["to"] is None:
            st.error(f"{text.safe(row['file'])}: {text.safe(row['about'], 500)}")
            continue
        page, name = row["to"]
        what = f"{text.safe(row['scenario'])} by {text.safe(row.get('who') or '?')}"
        what += f" with {text.safe(row['changed'], 200)}" if row.get("changed") else ""
        label = (
            f"Open {what}" if page == "run" else f"Open the {text.safe(row['about'])} of {text.safe(row['scenario'])}"
        )
        frame.link(page, label, **({"run": name} if page == "run" else {"file": name}))
    names = [row["to"][1] for row in chosen if row["to"] is not None]
    if len(names) > 1:
        frame.link("compare", f"Compare these {len(names)}", runs=",".join(names))
