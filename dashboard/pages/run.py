"""The page Run: one run of the store, from all sides; every side, filter and choice is in the address."""

from __future__ import annotations

import streamlit as st

from dashboard import beside, frame, run_tables, run_views, runs, text
from gridgov import progress, settings
from gridgov.errors import GridgovError

VIEWS = {
    "Overview": run_views.overview,
    "Who gave to whom": run_views.giving,
    "Proposals": run_tables.proposals,
    "Ledger": run_tables.ledger,
    "Journal": run_tables.journal,
    "Model calls": run_tables.calls,
    "Metrics": run_views.metrics,
    "Scenario": run_views.scenario,
}
"""The sides of a run, by what they are called in the address."""

LATEST = 10
"""So many runs are offered where none is named."""


def show() -> None:
    """Draws the page."""
    name, folder = frame.param("run"), settings.load().runs
    if not frame.signed_in():
        st.info("Sign in to look at runs.")
        return
    if not name:
        _offer()
        return
    try:
        ref = runs.locate(folder, name)
        about = runs.about(ref)
    except GridgovError as error:
        if not _under_way(name):
            st.error(f"This run cannot be shown. {text.safe(error, 500)}")
            _offer()
        return
    _head(ref, about)
    if about.info["status"] == "failed":
        return
    view = frame.picked(
        "view",
        "What to look at",
        {name: name for name in VIEWS},
        run_tables.RESETS,
        across=True,
        label_visibility="collapsed",
    )
    try:
        VIEWS[view](ref, about)
    except GridgovError as error:
        st.error(f"This cannot be shown. {text.safe(error, 500)}")


def _offer() -> None:
    """The latest runs, where none is named."""
    folder = settings.load().runs
    listed, _ = runs.listing(folder, LATEST)
    single = [found for found in listed if found.runs and not found.many][:LATEST]
    if not single:
        st.info(f"There is no run in `{folder}` yet. `gridgov run scenarios/seed.yaml` makes the first one.")
    for found in single:
        row = found.runs[0]
        changed = beside.settings_of(row["overrides"])
        label = f"{text.safe(row['scenario'])}, seed {row['seed']}, {text.safe(row['who'])}"
        label += f", {text.safe(changed, 200)}" if changed else ""
        name = runs.named(found, row["run_id"])
        st.button(label, key=f"open-{name}", type="tertiary", on_click=frame.set_param, args=("run", name))
    frame.link("runs", "All runs")


def _under_way(name: str) -> bool:
    """How far a run has come that is not finished; False where there is no such run."""
    found = [one for one in progress.read(settings.load().runs, frame.now()) if one.name == name]
    if not found:
        return False
    one = found[0]
    if one.alive:
        _watch(name)
    else:
        st.warning(f"This run was stopped after {one.done:,} of {one.total:,} {one.what}: its process is gone.")
    return True


@st.fragment(run_every=2)
def _watch(name: str) -> None:
    found = [one for one in progress.read(settings.load().runs, frame.now()) if one.name == name]
    if not found:
        st.rerun()
    draw_progress(found[0])
    st.caption("This page shows the run as soon as it is complete.")


def draw_progress(one: progress.Underway) -> None:
    """A run or a sweep that goes on: what, how far, how long still."""
    left = "" if one.left_s is None else f", about {text.span(one.left_s)} left"
    failed = f", {one.failed:,} failed" if one.failed else ""
    said = f"{one.done:,} of {one.total:,} {one.what}{failed}{left}"
    what = f"{text.safe(one.scenario)}, seed {text.safe(one.seed)}, {text.safe(one.proposers)}"
    if one.alive:
        st.progress(min(1.0, one.done / max(1, one.total)), text=f"{one.kind.capitalize()} of {what}: {said}")
    else:
        st.warning(f"{one.kind.capitalize()} of {what}: stopped after {said}. Its process is gone.")


def _head(ref: runs.Ref, about: runs.About) -> None:
    """What was run, by whom, and how it ended."""
    info = about.info
    st.subheader(text.safe(info["scenario"]))
    if info["description"]:
        st.text(text.plain(info["description"], 600))
    if info["status"] == "failed":
        st.error(f"This run failed: {text.safe(info['error'], 1_000)}")
        changed = beside.settings_of(info["overrides"])
        st.text(f"{runs.who(info['proposers'])}, seed {info['seed']}, changed: {changed or 'nothing'}")
        return
    ended = f"{about.epochs:,} epochs"
    if about.epochs < (info["horizon"] or 0):
        ended += f" of {info['horizon']:,} (the commons collapsed)"
    when = "" if info["started_at"] is None else f", run {text.when(info['started_at'].isoformat(), frame.now())}"
    facts = (
        f"{runs.who(info['proposers'])}. Seed {info['seed']}, {ended}, {text.many(info['records'], 'journal record')}, "
        f"{text.many(info['entries'], 'ledger entry', 'ledger entries')}{when}."
    )
    st.text(facts)
    changed = beside.settings_of(info["overrides"])
    if changed:
        st.text(f"Changed in the scenario: {text.plain(changed, 600)}")
    synthetic, recorded = info["synthetic"] or 0, info["recorded"] or 0
    if synthetic:
        total = synthetic + recorded
        st.warning(f"{synthetic:,} of the {total:,} replies in this run are synthetic: no model ever gave them.")
    head = f"{info['records']}:{str(info['head_digest'])[:16]}…"
    st.caption(f"Run {text.safe(info['run_id'])}, head {text.safe(head)}, status {text.safe(info['status'])}")
