"""The page Actors: who has what; one of them: its balance over time, what it gave and got, its needs, its statement."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pandas as pd
import streamlit as st

from dashboard import frame, text
from gridgov.statement_rows import GIVEN, RECEIVED, csv_of

Json = dict[str, Any]

LISTED = 500
"""Most actors of a list."""

MONTHS = 60
"""So many months are offered; an address may name any other."""

ALWAYS = "all"
BEGINNING = "1970-01-01"

SETTLED_S = 3_600.0
"""What never changes is asked for again after so long."""

DOTS = 60
"""A line of so many points shows each as a dot."""

LINES = {
    "opening": "Opening balance", "genesis": "Opening balance of the grid", "produce": "Produced", "grow": "Grown",
    "received": "Received", "override": "Moved by hand", "reversal": "Taken back", "consume": "Consumed",
    "given": "Given", "spill": "Spilled", "closing": "Closing balance",
}  # fmt: skip
"""What the lines of a statement are called."""


def show() -> None:
    """Draws the list, or the actor of `?actor=`."""
    found = frame.read("/v1/actors")
    if found is None:
        return
    chosen = frame.param("actor")
    if not chosen:
        _list(found)
        return
    frame.link("actors", "← All actors", find=frame.param("find"))
    own = next((item for item in found["items"] if item["id"] == chosen), None)
    if own is None:
        st.warning(f"There is no actor {text.safe(chosen)}. Its name must be whole, and letters as they are.")
        return
    _actor(own, found["resources"])


# --- everyone ---------------------------------------------------------------------------------------------------------


def _list(found: Json) -> None:
    sought = frame.written("find", "Find an actor", placeholder="part of its name")
    items = [item for item in found["items"] if sought.lower() in item["id"].lower()]
    shown = items[:LISTED]
    frame.table(
        [_row(item, found["resources"]) for item in shown],
        "actors",
        columns=_columns(found),
        chosen=lambda row: frame.set_param("actor", shown[row]["id"]),
        empty=f"There is no actor whose name has {sought} in it." if sought else "There is no actor yet.",
    )
    more = f"; the first {LISTED:,} are shown, find others by their names" if len(items) > LISTED else ""
    st.caption(
        f"{text.many(len(items), 'actor')}{more}. Click the box at the left of a row to open its statement. "
        "Reserved is what held proposals keep back: it is part of the balance, and is not spent."
    )


def _row(item: Json, resources: Sequence[Json]) -> Json:
    row: Json = {"actor": text.plain(item["id"], 80), "type": text.plain(item["type"], 40)}
    row["state"] = "frozen" if item["frozen"] else "active"
    for place, resource in enumerate(resources):
        row[f"held {place}"] = float(item["balances"].get(resource["name"], 0))
        row[f"kept {place}"] = float(item["reserved"].get(resource["name"], 0))
    return row


def _columns(found: Json) -> Json:
    """A column of balances for each resource, and one of what is reserved of it, where anything is."""
    columns: Json = {"actor": st.column_config.TextColumn("Actor", width=150)}
    for place, resource in enumerate(found["resources"]):
        title = f"{text.plain(resource['name'], 40)}, {text.plain(resource['unit'], 20)}"
        columns[f"held {place}"] = st.column_config.NumberColumn(title, format="localized")
        if any(item["reserved"].get(resource["name"]) for item in found["items"]):
            columns[f"kept {place}"] = st.column_config.NumberColumn(
                f"reserved of it, {resource['unit']}", format="localized"
            )
    return {**columns, "type": "Type", "state": "State"}


# --- one of them ------------------------------------------------------------------------------------------------------


def _actor(own: Json, resources: Sequence[Json]) -> None:
    actor = own["id"]
    st.subheader(text.safe(actor))
    state = " It is frozen: it can neither give nor get by a proposal." if own["frozen"] else ""
    st.caption(f"Type {text.safe(own['type'])}. {_holds(own, resources)}{state}")
    names = {resource["name"]: resource for resource in resources}
    left, right = st.columns([3, 1])
    with left:
        resource = frame.picked("resource", "Resource", {name: text.safe(name) for name in names}, across=True)
    with right:
        month = frame.picked("month", "Time", _months())
    when: dict[str, Any] = {"from": BEGINNING} if month == ALWAYS else {"month": month}
    path = f"/v1/actors/{quote(actor, safe='')}"
    told = frame.read(f"{path}/statement", **when)
    line = frame.read(f"{path}/balances", resource=resource, **when)
    if told is None or line is None:
        return
    account = next(one for one in told["accounts"] if one["resource"] == resource)
    _figures(account)
    _over_time(line)
    _statement(told, account)
    _links(actor, resource, told)


def _holds(own: Json, resources: Sequence[Json]) -> str:
    """What an actor has of everything, as Markdown."""
    units = {resource["name"]: resource["unit"] for resource in resources}
    parts = []
    for name, held in own["balances"].items():
        kept = own["reserved"].get(name)
        reserved = f" ({text.amount(kept, text.safe(units[name]))} reserved by holds)" if kept else ""
        parts.append(f"{text.amount(held, text.safe(units[name]))} {text.safe(name)}{reserved}")
    return f"Now it has {text.listed(parts)}." if parts else "It never had anything."


def _months() -> dict[str, str]:
    """Months to choose from: this one, those before it back to the first record, and the one in the address."""
    last = text.moment(frame.now())[:7]
    first = _first() or last
    year, number = int(last[:4]), int(last[5:])
    found: dict[str, str] = {}
    while len(found) < MONTHS and (name := f"{year:04}-{number:02}") >= first:
        found[name] = name
        year, number = (year, number - 1) if number > 1 else (year - 1, 12)
    found = found or {last: last}
    named = frame.param("month")
    if re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", named):
        found.setdefault(named, named)
    return {**found, ALWAYS: "all that there is"}


def _first() -> str:
    """The month of the first record; empty where it is not known."""
    found = frame.read("/v1/journal", SETTLED_S, limit=1)
    items = found["items"] if found else []
    return str(items[0]["at"])[:7] if items else ""


def _figures(account: Json) -> None:
    unit, needs = text.plain(account["unit"], 20), account["needs"]
    tiles = {"Came": "in_total", "Left": "out_total", "Closing": "closing"}
    with st.container(horizontal=True):
        for label, key in tiles.items():
            st.metric(label, text.amount(account[key], unit), border=True, width="content")
        if account["cost"] is not None:
            st.metric("Cost of what was unmet", text.number(account["cost"]), border=True, width="content")
    if needs["demanded"] or needs["announced"]:
        said = {name: text.amount(needs[name], text.safe(account["unit"], 20)) for name in needs}
        share = f" ({float(needs['served']) / float(needs['demanded']):.0%})" if needs["demanded"] else ""
        st.markdown(
            f"**Needs:** of {said['demanded']} to be consumed, {said['served']} were served{share} and {said['unmet']} "
            f"were not; {said['announced']} were announced before."
        )


def _over_time(line: Json) -> None:
    st.markdown("#### Balance over time")
    if not line["points"]:
        held = text.amount(line["opening"], text.safe(line["unit"], 20))
        st.caption(f"Nothing moved in this time: it stayed at {held}.")
        return
    st.altair_chart(_chart(line), width="stretch", key=f"line-{line['resource']}-{line['since']}")
    step = text.span(line["step_seconds"])
    st.caption(f"The balance after each move; in between it stays as it is. Moves within {step} are drawn as one.")


def steps(line: Json) -> list[Json]:
    """The points of a step line, from what there was at first to what there is at the end. Keys: at, balance."""
    points = [(line["since"], line["opening"]), *((point["at"], point["balance"]) for point in line["points"])]
    points.append((line["until"], points[-1][1]))
    return [{"at": at, "balance": float(balance)} for at, balance in points]


def _chart(line: Json) -> Any:
    """A step line. Columns: at, balance."""
    import altair as alt

    from dashboard.charts import BLUE

    found = pd.DataFrame(steps(line))
    found["at"] = pd.to_datetime(found["at"], utc=True, format="ISO8601")
    title = f"{text.plain(line['resource'], 40)}, {text.plain(line['unit'], 20)}"
    dots: Any = {"color": BLUE} if len(found) <= DOTS else False
    return (
        alt.Chart(found)
        .mark_line(interpolate="step-after", color=BLUE, strokeWidth=2, point=dots)
        .encode(
            x=alt.X("at:T", title="UTC", scale=alt.Scale(type="utc"),
                    axis=alt.Axis(format=_labels(line), labelOverlap=True, tickCount=6)),
            y=alt.Y("balance:Q", title=title, scale=alt.Scale(zero=False)),
            tooltip=[alt.Tooltip("at:T", title="from (UTC)", format="%Y-%m-%d %H:%M:%S"),
                     alt.Tooltip("balance:Q", title=title, format=",.6~f")],
        )
        .properties(height=280)
    )  # fmt: skip


def _labels(line: Json) -> str:
    """How the times of a line are written, by how long it is."""
    begin, end = (text.parsed(line[name]) for name in ("since", "until"))
    days = (end - begin).days if begin is not None and end is not None else 0
    return "%Y" if days > 1_500 else "%b %Y" if days > 90 else "%d %b" if days > 5 else "%d %b %H:%M"


# --- its statement ----------------------------------------------------------------------------------------------------


def _statement(told: Json, account: Json) -> None:
    unit = account["unit"]
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("#### Statement")
        frame.table(
            [{"line": LINES.get(line, line), "amount": amount} for line, amount in lines(account)],
            "statement",
            columns={"line": "Line", "amount": "Amount"},
        )
        since, until = _day(told["since"], "the beginning"), _day(told["until"], "now")
        st.caption(f"From {since} until {until} (UTC), as of record {told['head']['seq']}." if told["head"] else "")
        file = "-".join(
            ("statement", re.sub(r"[^A-Za-z0-9-]+", "_", told["actor"])[:60], frame.param("month") or since[:7])
        )
        st.download_button(
            "Statement as CSV", csv_of(_plain(told)).encode(), f"{file}.csv", "text/csv", on_click="ignore"
        )
    with right:
        for name, title in ((GIVEN, "Given to"), (RECEIVED, "Received from")):
            st.markdown(f"#### {title}")
            frame.table(
                [
                    {"actor": text.plain(party["actor"], 80), "amount": text.amount(party["amount"], unit),
                     "transfers": party["transfers"]}
                    for party in account[name]
                ],
                name,
                columns={"actor": "Actor", "amount": "Amount", "transfers": "Transfers"},
                empty="Nothing by a proposal in this time.",
                height=250 if len(account[name]) > 6 else "auto",
            )  # fmt: skip


def lines(account: Json) -> list[tuple[str, str]]:
    """The lines of an account with amounts as text: opening, what came (+), what left (-), closing."""
    unit = text.plain(account["unit"], 20)
    found = [("opening", text.amount(account["opening"], unit))]
    found += [(kind, f"+{text.amount(amount, unit)}") for kind, amount in account["in"].items()]
    found += [(kind, f"-{text.amount(amount, unit)}") for kind, amount in account["out"].items()]
    return [*found, ("closing", text.amount(account["closing"], unit))]


def _day(at: str | None, never: str) -> str:
    if at is None or at.startswith(BEGINNING):
        return never
    return at.removesuffix("T00:00:00Z")


def _plain(value: Any) -> Any:
    """The same with numbers that may be negated and written."""
    if isinstance(value, dict):
        return {key: _plain(own) for key, own in value.items()}
    if isinstance(value, list):
        return [_plain(own) for own in value]
    return value if not isinstance(value, Decimal) or value % 1 else int(value)


def _links(actor: str, resource: str, told: Json) -> None:
    span = {"since": _utc(told["since"]), "until": _utc(told["until"])}
    with st.container(horizontal=True):
        frame.link("ledger", "Its entries in this time", actor=actor, resource=resource, **span)
        if frame.may("operate"):
            frame.link("operate", "Freeze or thaw it", act="freeze", actor=actor)


def _utc(at: str | None) -> str | None:
    """A time as the fields of other pages have it."""
    return None if at is None else at.replace("T", " ").removesuffix("Z")
