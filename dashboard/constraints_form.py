"""The form for constraints: a table of limits by resource, the rest as JSON, and what a change would have done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import frame, text

Json = dict[str, Any]

LIMITS = {
    "max_transfer": "Most at once",
    "min_balance": "Least left",
    "epoch_quota": "Quota per epoch",
    "hold_above": "Held above",
}
"""The limits by resource."""

HELP = {
    "max_transfer": "The most that one transfer may move",
    "min_balance": "What a sender must have left",
    "epoch_quota": "The most that one actor may send in an epoch",
    "hold_above": "A transfer above this waits for a person",
}


def draw(now: Json, units: Mapping[str, str], once: str) -> Json | None:
    """Draws the constraints in force, to be changed; gives those that were made of them, None where they are none."""
    st.write("Limits by resource, for everyone. An empty cell is no limit; the least balance is then 0.")
    found = pd.DataFrame(
        [
            {"resource": f"{text.plain(name)} ({unit})", **{limit: _general(now, limit, name) for limit in LIMITS}}
            for name, unit in units.items()
        ]
    )
    config: dict[str, Any] = {"resource": st.column_config.TextColumn("Resource", disabled=True)}
    config |= {
        name: st.column_config.NumberColumn(title, min_value=0, help=HELP[name]) for name, title in LIMITS.items()
    }
    edited = st.data_editor(found, key=f"limits-{once}", hide_index=True, column_config=config, num_rows="fixed",
                            placeholder="no limit")  # fmt: skip
    rest = {name: value for name, value in now.items() if name not in LIMITS}
    own = {name: now[name]["actors"] for name in LIMITS if isinstance(now.get(name), dict) and "actors" in now[name]}
    if own:
        rest["actors"] = own
    with st.expander(
        "The rest, as JSON (max_transfers_per_proposal, hold_epochs, auto_pause, limits of single actors)"
    ):
        said = st.text_area("The rest", value=json.dumps(rest, indent=2, default=str), height=200, key=f"rest-{once}",
                            label_visibility="collapsed")  # fmt: skip
    try:
        other = json.loads(said or "{}", parse_float=Decimal)
        if not isinstance(other, dict):
            raise ValueError("it is no object")
    except ValueError as error:
        st.warning(f"The rest is no JSON: {text.safe(error, 200)}.")
        return None
    return _made(now, edited, list(units), other)


def _general(now: Json, limit: str, resource: str) -> float | None:
    """What a limit says of a resource for everyone."""
    value = now.get(limit)
    if isinstance(value, dict):
        value = value.get(resource, value.get("default"))
    return None if value is None else float(value)


def _made(now: Json, edited: pd.DataFrame, resources: list[str], rest: Json) -> Json:
    """The constraints that the form says; those of `now` where nothing was changed, in its own words."""
    actors = rest.pop("actors", {})
    made: Json = dict(rest)
    for limit in LIMITS:
        cells = [None if pd.isna(cell) else Decimal(repr(float(cell))) for cell in edited[limit]]
        amounts: Json = {name: _whole(cell) for name, cell in zip(resources, cells, strict=True) if cell is not None}
        before = {name: _general(now, limit, name) for name in resources}
        same = {name: float(cell) for name, cell in amounts.items()} == {
            n: v for n, v in before.items() if v is not None
        }
        there = now.get(limit)
        if same and (actors.get(limit) == (there.get("actors") if isinstance(there, dict) else None)):
            if limit in now:
                made[limit] = there
            continue
        if actors.get(limit):
            amounts["actors"] = actors[limit]
        if amounts:
            made[limit] = amounts
    return made


def _whole(amount: Decimal) -> int | Decimal:
    return int(amount) if amount == amount.to_integral_value() else amount


def preview(dry: Json) -> None:
    """Draws what a change would have done to the last days, as the API worked it out."""
    found = dry.get("preview")
    if not found:
        st.write("Nothing was proposed yet, so there is nothing to judge again.")
        return
    part = (
        "" if found["complete"] else f" (the last {found['records']:,} records, from {text.moment(found['since'])} on)"
    )
    st.write(
        f"Over the last {found['days']} days{part} this would have refused **{found['would_refuse']:,}** of "
        f"{text.many(found['proposals'], 'proposal')}, held {found['would_hold']:,} that were executed, and executed "
        f"{found['would_accept']:,} that were not."
    )
    if found["by_code"]:
        told = text.listed(f"`{code}` {text.many(count, 'time')}" for code, count in found["by_code"].items())
        st.caption(f"Refused for: {told}.")
    frame.table(
        [
            {
                "epoch": own["epoch"], "seq": own["seq"], "was": text.outcome(own["was"]),
                "would": text.outcome(own["would_be"]), "why": text.plain(own["why"], 300),
            }
            for own in found["changed"]
        ],
        "preview",
        columns={"epoch": "Epoch", "seq": "Record", "was": "Was", "would": "Would be", "why": "Why"},
        empty="No outcome would have been another one.",
    )  # fmt: skip
