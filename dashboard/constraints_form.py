"""The form for constraints: a table of limits by resource, the rest as JSON, and what a change would have done."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from difflib import get_close_matches
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import frame, text
from gridgov.prompt import exact_json

Json = dict[str, Any]

LIMITS = {
    "max_transfer": "Most at once",
    "min_balance": "Least left",
    "epoch_quota": "Quota per epoch",
    "hold_above": "Held above",
}
"""The limits by resource."""

REST = ("max_transfers_per_proposal", "hold_epochs", "auto_pause", "actors")
"""What is written as JSON."""

DIGITS = 40
"""Numbers have no more places than so many before the point, or after it."""

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
        said = st.text_area("The rest", value=written(rest), height=200, key=f"rest-{once}",
                            label_visibility="collapsed")  # fmt: skip
        try:
            other = read(said)
        except ValueError as error:
            st.warning(f"This cannot be taken: {text.safe(error, 300)}. Nothing is tried until it can.")
            other = None
    if other is None:
        st.caption("The rest, as JSON, cannot be taken: what is wrong stands there.")
        return None
    return _made(now, edited, list(units), other)


# --- the rest, as JSON ------------------------------------------------------------------------------------------------


def written(value: Any, pad: str = "") -> str:
    """JSON in lines, every number plain and exact."""
    if isinstance(value, dict) and value:
        lines = [f"{pad}  {exact_json(name)}: {written(own, pad + '  ')}" for name, own in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{pad}}}"
    return exact_json(value)


def read(said: str) -> Json:
    """The rest as it is written. Raises ValueError with what is wrong: nothing that is written is left out."""
    try:
        found = json.loads(said.strip() or "{}", parse_float=_exact, parse_constant=_no_number, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON: {error}") from None
    except RecursionError:
        raise ValueError("it is no JSON of constraints: it is too deep") from None
    if not isinstance(found, dict):
        raise ValueError('it must be an object, as {"hold_epochs": 24}')
    for name in found:
        if name in LIMITS:
            raise ValueError(f"{name} is set in the table; limits of single actors go under actors")
        if name not in REST:
            raise ValueError(f"there is no {name}{_near(name, REST)}")
    if "actors" in found:
        _check_actors(found["actors"])
    return found


def _check_actors(own: Any) -> None:
    """Raises ValueError where limits of actors are not as they must be; names and amounts are the API's to check."""
    form = '{"max_transfer": {"home-1": {"energy": 5}}}'
    if not isinstance(own, dict):
        raise ValueError(f"actors must be an object, as {form}")
    for limit, actors in own.items():
        if limit not in LIMITS:
            raise ValueError(f"actors: there is no limit {limit}{_near(limit, tuple(LIMITS))}")
        if not isinstance(actors, dict) or not all(isinstance(each, dict) for each in actors.values()):
            raise ValueError(f"actors: {limit} must have an object for each actor, as {form}")


def _near(name: str, names: tuple[str, ...]) -> str:
    near = get_close_matches(name, names, 1)
    return f"; did you mean {near[0]}?" if near else f"; there are {text.listed(names)}"


def _exact(said: str) -> Decimal:
    found = Decimal(said)
    if abs(found.adjusted()) > DIGITS:
        raise ValueError(f"{text.plain(said, 40)} is no amount: it is out of range")
    return found


def _no_number(said: str) -> None:
    raise ValueError(f"{said} is no number")


def _once(pairs: list[tuple[str, Any]]) -> Json:
    """An object; raises ValueError where it says something twice, as the first of both would be left out."""
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise ValueError(f"{name} is there {count} times")
    return dict(pairs)


# --- together ---------------------------------------------------------------------------------------------------------


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
        st.caption(f"Those would have been refused for: {told}.")
    frame.table(
        [
            {
                "epoch": own["epoch"], "seq": own["seq"], "was": _fate(own["was"]),
                "would": _fate(own["would_be"]), "why": text.plain(own["why"], 300),
            }
            for own in found["changed"]
        ],
        "preview",
        columns={"epoch": "Epoch", "seq": "Record", "was": "Was", "would": "Would be", "why": "Why"},
        empty="No outcome would have been another one.",
    )  # fmt: skip


def _fate(said: str) -> str:
    """An outcome of a preview in words: `◐ held for a person, then executed`."""
    first, *last = said.split(", then ")
    return ", then ".join([text.outcome(first), *(text.DONE.get(name, text.plain(name)) for name in last)])
