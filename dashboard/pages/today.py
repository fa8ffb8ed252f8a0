"""The page Today: does the loop live, what did the AI do, what needs a person; then what stands behind the answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import frame, text
from dashboard.pages import story

Json = dict[str, Any]

EVERY_S = 10
"""The page draws itself anew this often."""

SILENT_S = 20 * 60
"""A loop without an outcome for so long is said to be silent, as `/healthz/loop` does by default."""

LAG = 20
"""So many outcomes waiting to be written up are worth a word."""

COUNTED = {
    "executed": "executed",
    "rejected": "refused",
    "held": "held for a person",
    "noop": "with nothing to do",
    "malformed": "malformed",
    "unavailable": "without a reply",
}
"""What so many proposals were, in a sentence."""

HOURS = {"24": "24 hours", "72": "3 days", "168": "7 days"}


def show() -> None:
    """Draws the page, and again every few seconds."""
    hours = frame.picked("hours", "Looking back", HOURS, across=True, label_visibility="collapsed")
    _live(int(hours))


@st.fragment(run_every=EVERY_S)
def _live(hours: int) -> None:
    answer = frame.begin(hours)
    if answer is None:
        return
    found = frame.aged(answer.body, frame.now() - answer.at)
    _sentences(found, away=bool(answer.stale))
    _exceptions(found)
    _outcomes(found)
    _series(found)
    _balances(found)
    _in_force(found)


# --- three sentences --------------------------------------------------------------------------------------------------


def _sentences(found: Json, away: bool) -> None:
    needed = needs(found, away)
    st.markdown(f"**{lives(found, away)}** {did(found)}")
    if needed:
        st.markdown(f"**What needs you:** {text.listed(needed)}.")
    else:
        st.markdown("**Nothing needs you.**")


def lives(found: Json, away: bool = False) -> str:
    """Whether the loop lives, in a sentence; while the API is away, nobody can say."""
    last = found["last_outcome"]
    if last is None:
        return "The loop has not had an outcome yet."
    ago = text.span(last["age_seconds"])
    if away:
        return f"Whether the loop lives cannot be said while the API is away; the last known outcome came {ago} ago."
    if found["paused"]:
        return f"The grid is paused; the last outcome came {ago} ago."
    if last["age_seconds"] > SILENT_S:
        return f"The loop is silent: the last outcome came {ago} ago."
    return f"The loop lives: the last outcome came {ago} ago."


def spoken(hours: int) -> str:
    """A span of hours as people say it: `24 hours`, `7 days`."""
    return HOURS.get(str(hours), text.span(hours * 3_600))


def did(found: Json) -> str:
    """What the AI did in the window, in a sentence."""
    window, before = found["window"], found["before"]
    span = spoken(window["hours"])
    if not window["total"]:
        return f"In the last {span} nothing was proposed."
    parts = [f"{count:,} {COUNTED[name]}" for name, count in window["outcomes"].items() if count]
    moved = [text.quantity(own["transferred"], own["unit"], own["resource"])
             for own in found["resources"] if own["transferred"]]  # fmt: skip
    sentence = f"In the last {span} there were {text.many(window['total'], 'proposal')}: {text.listed(parts)}"
    sentence += f"; {text.safe(text.listed(moved), 300)} moved" if moved else ""
    than = f" (in as long before: {before['total']:,})" if before is not None else ""
    return f"{sentence}{than}."


def needs(found: Json, away: bool = False) -> list[str]:
    """What a person has to do, each in a few words; empty where nothing. While the API is away, that comes first."""
    parts = ["an API that is away"] if away else []
    held = found["held"]
    if held["count"]:
        oldest = max(item["age_seconds"] for item in held["items"])
        count = text.many(held["count"], "held proposal")
        parts.append(f"{count} to approve or reject (the oldest waits for {text.span(oldest)})")
    if found["paused"]:
        parts.append("the pause, until somebody resumes")
    if not found["conservation"]["ok"]:
        parts.append("sums that do not add up")
    if found["in_a_row"]["unavailable"] >= 3:
        parts.append(f"a model that gave no answer {found['in_a_row']['unavailable']} times in a row")
    if found["in_a_row"]["refused"] >= 3:
        parts.append(f"{found['in_a_row']['refused']} refusals in a row")
    if found["outbox"]["lag"] >= LAG:
        parts.append(f"{text.many(found['outbox']['lag'], 'outcome')} that nobody wrote up")
    last = found["last_outcome"]
    if last is not None and last["age_seconds"] > SILENT_S and not found["paused"] and not away:
        parts.append("a loop that is silent")
    return parts


# --- exceptions -------------------------------------------------------------------------------------------------------


def _exceptions(found: Json) -> None:
    window = found["window"]
    since = window["since"]
    tiles = [
        ("Refused", window["outcomes"]["rejected"], "proposals", {"outcome": "rejected", "since": since}),
        ("Held now", found["held"]["count"], "operate", {"act": "held"}),
        ("Malformed", window["outcomes"]["malformed"], "proposals", {"outcome": "malformed", "since": since}),
        ("No reply", window["outcomes"]["unavailable"], "proposals", {"outcome": "unavailable", "since": since}),
        ("Acts by hand", window["reversals"] + window["overrides"], "journal", {"since": since}),
        ("To write up", found["outbox"]["lag"], None, {}),
    ]  # fmt: skip
    with st.container(horizontal=True):
        for label, count, page, params in tiles:
            with st.container(width=122, gap="small"):
                st.metric(label, f"{count:,}", border=True)
                if page is not None and count:
                    frame.link(page, "Look", **params)
    codes = found["refused"]["by_code"]
    if codes:
        st.caption(
            "Refused for: " + text.listed(f"`{code}` {text.many(count, 'time')}" for code, count in codes.items()) + "."
        )
    oldest = found["outbox"]["oldest"]
    if oldest is not None and oldest["age_seconds"] > SILENT_S:
        st.caption(
            f"Of the outcomes that nobody wrote up, the oldest is record {oldest['seq']}, "
            f"{text.span(oldest['age_seconds'])} old."
        )


# --- outcomes ---------------------------------------------------------------------------------------------------------


def _outcomes(found: Json) -> None:
    st.markdown("#### Last outcomes")
    page = frame.read("/v1/recent/proposals", frame.FRAME_FRESH_S, limit=10)
    if page is None:
        return
    units = frame.units()
    items = page["items"]
    frame.table(
        [
            {
                "age": text.age(item["at"], frame.now()), "outcome": text.outcome(item["outcome"]),
                "what": text.transfers(item["transfers"], units), "why": text.why(item),
            }
            for item in items
        ],
        "last",
        columns={
            "age": st.column_config.TextColumn("Age", width=110),
            "outcome": st.column_config.TextColumn("Outcome", width=165),
            "what": st.column_config.TextColumn("Transfers", width=235),
            "why": st.column_config.TextColumn("Why", width=270),
        },
        chosen=lambda row: st.session_state.update({"open": items[row]["proposal_id"]}),
        empty="No proposal came yet.",
    )  # fmt: skip
    chosen = st.session_state.pop("open", None)
    if chosen:
        frame.go("proposals", id=chosen)
    frame.link("proposals", "All proposals")


def _series(found: Json) -> None:
    step = found["series"]["step_seconds"]
    st.markdown(f"#### Outcomes over time, each bar {text.span(step)}")
    points = found["series"]["points"]
    rows = list(_counted(points, step))
    if not rows:
        st.caption("No proposal in this time.")
        return
    chart = _chart(pd.DataFrame(rows), [points[0]["at"], _end(points[-1]["at"], step)])
    event = st.altair_chart(chart, key="series", on_select="rerun", selection_mode="picked")
    picked = event.get("selection", {}).get("picked") if event else None
    if picked:
        st.session_state.pop("series", None)
        begun = text.parsed(picked[0]["at"] / 1000)
        assert begun is not None, "a bar has a time"
        ended = begun + timedelta(seconds=step)
        span = {name: at.strftime("%Y-%m-%d %H:%M:%S") for name, at in (("since", begun), ("until", ended))}
        frame.go("proposals", outcome=picked[0]["outcome"], **span)
    st.caption("Click a bar to see its proposals.")


def _end(at: str, step: int) -> str:
    begun = text.parsed(at)
    assert begun is not None, "a point has a time"
    return (begun + timedelta(seconds=step)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _counted(points: list[Json], step: int) -> Iterator[Json]:
    for point in points:
        low = 0
        for name, words in text.DONE.items():
            if point.get(name):
                high = low + int(point[name])
                yield {
                    "at": point["at"], "end": _end(point["at"], step), "outcome": name, "words": words,
                    "count": int(point[name]), "low": low, "high": high,
                }  # fmt: skip
                low = high


def _chart(found: pd.DataFrame, span: list[str]) -> Any:
    """Bars over time, an outcome on the other. Columns: at, end, outcome, words, count, low, high."""
    import altair as alt

    from dashboard.charts import OUTCOMES

    found = found.assign(**{name: pd.to_datetime(found[name], utc=True) for name in ("at", "end")})
    there = [name for name in text.DONE if name in set(found["outcome"])]
    scale = alt.Scale(domain=[text.DONE[name] for name in there], range=[OUTCOMES[name] for name in there])
    picked = alt.selection_point(name="picked", fields=["at", "outcome"], on="click", empty=True)
    return (
        alt.Chart(found)
        .mark_rect()
        .encode(
            x=alt.X("at:T", title="UTC", axis=alt.Axis(format="%d %b %H:%M", labelOverlap=True, tickCount=6),
                    scale=alt.Scale(type="utc", domain=span)),
            x2="end:T",
            y=alt.Y("low:Q", title="proposals", axis=alt.Axis(tickMinStep=1, format=",d")),
            y2="high:Q",
            color=alt.Color("words:N", scale=scale, legend=alt.Legend(orient="bottom", columns=3, title=None)),
            tooltip=[alt.Tooltip("at:T", title="from (UTC)", timeUnit="utcyearmonthdatehoursminutes"),
                     alt.Tooltip("words:N", title="outcome"), alt.Tooltip("count:Q", title="proposals")],
            opacity=alt.condition(picked, alt.value(1), alt.value(0.4)),
        )
        .add_params(picked)
        .properties(height=300)
    )  # fmt: skip


# --- balances and what is in force ------------------------------------------------------------------------------------


def _balances(found: Json) -> None:
    span = spoken(found["window"]["hours"])
    st.markdown(f"#### Balances, and what changed in {span}")
    frame.table(
        [
            {
                "resource": text.plain(own["resource"]), "total": text.amount(own["total"], own["unit"]),
                "change": text.change(own["change"], own["unit"]), "actors": own["actors"],
                "transferred": text.amount(own["transferred"], own["unit"]),
                "reserved": text.amount(own["reserved"], own["unit"]),
            }
            for own in found["resources"]
        ],
        "resources",
        columns={"resource": "Resource", "total": "All actors have", "change": "Change",
                 "transferred": "Transferred", "reserved": "Reserved by holds", "actors": "Actors"},
    )  # fmt: skip
    sums = "add up to 0 with the outside" if found["conservation"]["ok"] else "do NOT add up to 0 with the outside"
    st.caption(
        f"Conservation: the balances of each resource {sums}. That is all that is checked here; `gridgov verify "
        "postgres` checks them against the ledger and the journal."
    )
    units = {own["resource"]: own["unit"] for own in found["resources"]}
    frame.table(
        [
            {
                "actor": story.named(own["actor"]), "resource": text.plain(own["resource"]),
                "before": text.amount(own["before"], units[own["resource"]]),
                "after": text.amount(own["after"], units[own["resource"]]),
                "change": text.change(own["change"], units[own["resource"]]),
            }
            for own in found["changes"]
        ],
        "changes",
        columns={"actor": "Actor", "resource": "Resource", "before": f"{span} ago", "after": "Now",
                 "change": "Change"},
        empty=f"No balance changed in the last {span}.",
    )  # fmt: skip
    frame.link("actors", "All balances")


def _in_force(found: Json) -> None:
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("#### Constraints in force")
        own = found["constraints"]
        by = f" by {text.safe(own['operator'])}: {text.safe(own['reason'], 300)}" if own.get("operator") else ""
        units = {resource["resource"]: resource["unit"] for resource in found["resources"]}
        shown = {"limit": "Limit", "of": "Of", "value": "Value"}
        frame.table(limits(own["constraints"], units), "limits", columns=shown, empty="There is no limit.")
        st.caption(f"Set {text.when(own['at'], frame.now())}, by record {own['seq']}{by}.")
    with right:
        st.markdown("#### Prompt and model in force")
        for role, active in found["prompts"].items():
            if active is None:
                st.caption(f"No {role}." if role == "shadow" else "None.")
                continue
            since = (
                "from the beginning" if active.get("default") else f"since {text.when(active['since'], frame.now())}"
            )
            by = (
                f", by {text.safe(active['operator'])}: {text.safe(active['reason'], 300)}"
                if active.get("operator")
                else ""
            )
            digest = f" (digest `{active['prompt_digest'][:12]}`)" if active.get("prompt_digest") else ""
            st.markdown(
                f"**{role.capitalize()}**: {text.safe(active['prompt'])}{digest} with {text.safe(active['model'])}"
            )
            st.caption(f"In force {since}{by}.")
        frame.link("prompts", "How each version does")


def limits(constraints: Mapping[str, Any], units: Mapping[str, str]) -> list[Json]:
    """Constraints as rows of text: limit, of, value."""
    rows: list[Json] = []

    def add(limit: str, of: str, value: Any, unit: str = "") -> None:
        rows.append({"limit": limit, "of": text.plain(of), "value": text.amount(value, unit)})

    for name, value in constraints.items():
        if not isinstance(value, Mapping):
            add(name, "all", value)
            continue
        for key, own in value.items():
            if key != "actors":
                add(name, key, own, units.get(key, ""))
                continue
            for actor, amounts in own.items():
                for resource, most in amounts.items():
                    add(name, f"{actor}, {resource}", most, units.get(resource, ""))
    return rows
