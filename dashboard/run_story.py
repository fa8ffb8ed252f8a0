"""The story of one proposal of a run: what was seen, said, judged and moved; see `gridgov.explain`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from dashboard import frame, text
from dashboard.runs import About, Ref

Story = Mapping[str, Any]

ENDS = {"approve": "Approved", "reject": "Rejected", "expire": "Expired"}

ROWS = 200
"""Rows of a table in a story."""


def draw(ref: Ref, about: About, story: Story) -> None:
    """Draws a story."""
    shadow = ", a shadow: judged, never applied" if story["shadow"] else ""
    when = "" if story["at"] is None else f", decided at {text.moment(story['at'])}"
    record = "" if story["seq"] is None else f", journal record {story['seq']:,}"
    st.markdown(f"#### {text.outcome(story['outcome'])}")
    st.text(f"Epoch {story['epoch']:,}, {story['proposer']}, round {story['n']}{shadow}{when}{record}.")
    _said(story["said"], about)
    _judged(story["judged"], about)
    _moved(story["moved"], about)
    if story["settled"]:
        _settled(story["settled"], about)
    _seen(story["seen"], about)
    same = f"gridgov explain {ref.name} {story['proposal_id']}"
    st.caption(f"Proposal {text.safe(story['proposal_id'])}. The same: {text.safe(same, 200)}")


def _said(said: Mapping[str, Any], about: About) -> None:
    st.markdown("##### What it said")
    asked = said.get("transfers") or []
    _transfers(asked, "said", about)
    fault = said.get("fault")
    if fault:
        st.text(f"The reply was no proposal: {fault.get('code')}. {fault.get('detail') or ''}")
    elif not asked:
        st.caption("No transfers, on purpose.")
    st.caption("Its reasons:")
    frame.block(said.get("reasoning"), "it gave none")
    if said.get("raw"):
        with st.expander("The reply as it came"):
            frame.block(_pretty(said["raw"]))


def _transfers(asked: Sequence[Mapping[str, Any]], name: str, about: About) -> None:
    rows = [
        {
            "from": one["from"],
            "to": one["to"],
            "amount": text.amount(one["amount"], about.units.get(one["resource"], "")),
            "resource": one["resource"],
        }
        for one in asked[:ROWS]
    ]
    if rows:
        columns = {"from": "From", "to": "To", "amount": _right("Amount"), "resource": "Resource"}
        frame.table(rows, f"transfers-{name}", columns=columns)


def _right(title: str) -> Any:
    return st.column_config.TextColumn(title, alignment="right")


def _judged(judged: Mapping[str, Any], about: About) -> None:
    st.markdown("##### How it was judged")
    broken = judged["violations"]
    if not broken:
        st.caption(f"It broke no rule: {text.DONE.get(judged['outcome'], judged['outcome'])}.")
    else:
        rows = [
            {
                "words": one["words"],
                "code": one["code"],
                "path": one["path"],
                "limit": _figure(one.get("limit"), one, about),
                "actual": _figure(one.get("actual"), one, about),
            }
            for one in broken[:ROWS]
        ]
        columns = {
            "code": "Rule",
            "limit": _right("Limit"),
            "actual": _right("Actual"),
            "words": st.column_config.TextColumn("In words", width="large"),
            "path": "Where",
        }
        frame.table(rows, "violations", columns=columns)
    if judged.get("granted"):
        st.caption("An allocation granted less than was asked for:")
        _transfers(judged["granted"], "granted", about)
    if judged.get("held_until") is not None:
        st.caption(f"It was held for a person to approve, until the end of epoch {judged['held_until']:,}.")


def _figure(value: Any, violation: Mapping[str, Any], about: About) -> str:
    unit = about.units.get(violation.get("resource") or "", "")
    return text.amount(value, unit) if isinstance(value, int | float) else text.number(value)


def _moved(moved: Mapping[str, Any], about: About) -> None:
    st.markdown("##### What it moved")
    if not moved["entries"]:
        st.caption("Nothing.")
        return
    entries = [
        {**one, "amount": text.amount(one["amount"], about.units.get(one["resource"], ""))}
        for one in moved["entries"][:ROWS]
    ]
    columns = {"id": "Entry", "from": "From", "to": "To", "amount": _right("Amount"), "resource": "Resource"}
    frame.table(entries, "entries", columns=columns)
    balances = [
        {
            **{key: text.amount(one[key], about.units.get(one["resource"], "")) for key in ("before", "after")},
            "actor": one["actor"],
            "resource": one["resource"],
        }
        for one in moved["balances"][:ROWS]
    ]
    names = {"actor": "Actor", "resource": "Resource", "before": _right("Before"), "after": _right("After")}
    frame.table(balances, "before-after", columns=names)


def _settled(settled: Mapping[str, Any], about: About) -> None:
    st.markdown("##### How the hold ended")
    how = ENDS.get(settled["decision"], settled["decision"])
    by = settled["operator"] or "nobody: its time was over"
    st.text(f"{how} in epoch {settled['epoch']:,} by {by} (journal record {settled['seq']:,}).")
    if settled["reason"]:
        frame.block(settled["reason"])
    _judged(settled["judged"], about)
    _moved(settled["moved"], about)


def _seen(seen: Mapping[str, Any], about: About) -> None:
    st.markdown("##### What it saw")
    world = seen["world_state"]
    if seen["moved_since"]:
        st.caption("Balances had moved since the proposer looked; it was judged on these:")
    rows = []
    for actor in world["actors"][:1_000]:
        needs = {f"need {name}": amount for name, amount in actor.get("needs", {}).items()}
        frozen = " (frozen)" if actor.get("frozen") else ""
        rows.append({"actor": actor["id"] + frozen, **actor["balances"], **needs})
    headings: dict[str, Any] = {"actor": "Actor"}
    for key in dict.fromkeys(key for row in rows for key in row):
        if key != "actor":
            needed = key.startswith("need ")
            name = key.removeprefix("need ") if needed else key
            title = f"{'needs ' if needed else ''}{name}, {about.units.get(name, '')}"
            headings[key] = st.column_config.NumberColumn(title, format=f"%.{about.scales.get(name, 3)}f")
    frame.table(rows, "world", columns=headings, height=min(38 + 35 * len(rows), 300) if rows else "auto")
    with st.expander("The rules that were in force"):
        frame.block(json.dumps(world["constraints"], ensure_ascii=False, indent=2))
    with st.expander("The WorldState as JSON"):
        frame.block(json.dumps(world, ensure_ascii=False, indent=2), most=100_000)
    call = seen["interaction"]
    if call:
        _call(call)


def _call(call: Mapping[str, Any]) -> None:
    """The exchange with a model."""
    st.markdown("##### The exchange with the model")
    origin = {"synthetic": "synthetic: no model ever gave this reply", "edited": "edited by hand"}
    facts = [
        ("origin", origin.get(str(call.get("origin")), call.get("origin"))),
        ("model asked", call.get("model_asked")),
        ("model that answered", call.get("model_answered")),
        ("status", call.get("status")),
        ("finish reason", call.get("finish_reason")),
        *((f"tokens {kind}", call.get(f"tokens_{kind}")) for kind in ("in", "out", "thought")),
        ("cost", call.get("cost")),
        ("latency, ms", call.get("latency_ms")),
        ("attempts", call.get("attempts")),
        ("prompt", call.get("prompt")),
        ("request key", call.get("request_key")),
    ]
    rows = [{"what": what, "value": str(value)} for what, value in facts if value is not None]
    frame.table(rows, "exchange", columns={"what": "", "value": st.column_config.TextColumn("", width="large")})
    line = call.get("line")
    request = line.get("request") if isinstance(line, dict) else None
    if request:
        with st.expander("What it was asked"):
            frame.block(_asked(request), most=100_000)


def _asked(request: Any) -> str:
    """The texts of a request, else all of it as JSON."""
    found = _texts(request)
    return "\n\n".join(found) if found else json.dumps(request, ensure_ascii=False, indent=2)


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["text"]] if isinstance(value.get("text"), str) else []
        return own + [text for key, each in value.items() if key != "text" for text in _texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return []


def _pretty(raw: str) -> str:
    try:
        return json.dumps(json.loads(raw), ensure_ascii=False, indent=2)
    except ValueError:
        return raw
