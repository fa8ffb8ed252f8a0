"""The sides of a run that are long tables, paged in SQL: proposals, ledger, journal, exchanges with models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import streamlit as st

from dashboard import frame, history, run_story, text
from dashboard.runs import PAGE_ROWS, About, Ref, Row, kept
from gridgov.model import Code
from gridgov.words import WORDS

ANY = "any"

OPTIONS_MAX = 1_000
"""So many things are offered in a list; the rest is found by searching."""

KINDS = tuple(text.ENTRIES)


# --- filters and pages ------------------------------------------------------------------------------------------------


RESETS = ("page", "proposal", "record")
"""What a change of a filter, or of the side that is looked at, begins anew."""

FILTERS = ("outcome", "proposer", "rule", "actor", "first", "last", "find")
"""The parameters that say which proposals are looked at."""


def to_proposals(**filters: object) -> None:
    """Leads to the proposals that these filters let through; for callbacks."""
    for name in (*RESETS, *FILTERS):
        frame.set_param(name, filters.get(name))
    frame.set_param("view", "Proposals")


def _choice(label: str, name: str, options: Iterable[str], words: Mapping[str, str] | None = None) -> str | None:
    """One of some texts, which are shown by their words where they have some, or None for any."""
    shown = {option: (words or {}).get(option, option) for option in options}
    found = frame.picked(name, label, {"": ANY, **shown}, RESETS)
    return found or None


def _epochs(about: About) -> tuple[int | None, int | None]:
    """From which epoch to which; None is open."""
    left, right = st.columns(2)
    with left:
        first = frame.written("first", "From epoch", RESETS, placeholder="0")
    with right:
        last = frame.written("last", "To epoch", RESETS, placeholder=str(about.epochs))
    return (int(first) if _whole(first) else None), (int(last) if _whole(last) else None)


def _whole(said: str) -> bool:
    return said.isascii() and said.isdigit() and len(said) < 10


def _find(label: str) -> str | None:
    """What is searched for; None for nothing."""
    return frame.written("find", label, RESETS) or None


Values = Sequence[tuple[str, Any]]


def _page(ref: Ref, what: str, values: Values) -> tuple[list[Row], int]:
    """The rows of the page that is looked at, and how many there are on all pages; draws the way to the others."""
    [counted] = kept(ref, f"{what}_count", (), *values)
    count = counted["count"]
    pages = max(1, -(-count // PAGE_ROWS))
    page = _number(pages) if pages > 1 else 1
    start = (page - 1) * PAGE_ROWS
    rows = kept(ref, f"{what}_page", (("limit", PAGE_ROWS), ("offset", start)), *values)
    if count:
        st.caption(f"{start + 1:,} to {start + len(rows):,} of {count:,}")
    return rows, count


def _number(pages: int) -> int:
    """The page that is looked at: the parameter `page`."""
    there = frame.param("page")
    st.session_state["field-page"] = min(max(1, int(there)), pages) if _whole(there) else 1

    def changed() -> None:
        chosen = st.session_state["field-page"]
        frame.set_param("page", None if chosen == 1 else chosen)

    return st.pagination(pages, key="field-page", on_change=changed, max_visible_pages=5)


# --- proposals --------------------------------------------------------------------------------------------------------


def proposals(ref: Ref, about: About) -> None:
    """What was proposed, filtered; one that is clicked tells its story."""
    chosen = frame.param("proposal")
    if chosen:
        st.button("Back to the proposals", on_click=frame.set_param, args=("proposal", None), icon="⬅️")
        with st.spinner("Reading its story"):
            story = history.story(ref, chosen)
        run_story.draw(ref, about, story)
        return
    values = _proposal_filters(ref, about)
    rows, _ = _page(ref, "proposals", values)
    ids = tuple(row["proposal_id"] for row in rows)
    asked: dict[str, list[Row]] = {}
    for one in kept(ref, "asked", (), ("ids", ids)) if ids else []:
        asked.setdefault(one["proposal_id"], []).append(one)
    shown = [_proposal(row, asked.get(row["proposal_id"], []), about) for row in rows]
    columns = {
        "epoch": "Epoch",
        "proposer": "Proposer",
        "outcome": "Outcome",
        "transfers": st.column_config.TextColumn("Asked for", width="large"),
        "why": st.column_config.TextColumn("Why", width="large"),
    }
    frame.table(
        shown,
        "proposal-rows",
        columns=columns,
        chosen=lambda place: frame.set_param("proposal", ids[place]),
        empty="No proposal is like that.",
        height=_height(shown),
    )
    if shown:
        st.caption("Click the box before a row to read its story.")


def _height(rows: Sequence[object]) -> int | str:
    return min(40 + 35 * len(rows), 600) if rows else "auto"


def _proposal_filters(ref: Ref, about: About) -> Values:
    proposers = [row["proposer"] for row in kept(ref, "proposers")]
    codes = [row["code"] for row in kept(ref, "refusals")]
    one, two, three, four = st.columns(4)
    with one:
        outcome = _choice("Outcome", "outcome", text.DONE, {name: text.outcome(name) for name in text.DONE})
    with two:
        proposer = _choice("Proposer", "proposer", proposers[:OPTIONS_MAX])
    with three:
        rule = _choice("Broken rule", "rule", codes)
    with four:
        actor = _choice("Actor", "actor", about.people[:OPTIONS_MAX])
    left, right = st.columns(2)
    with left:
        first, last = _epochs(about)
    with right:
        find = _find("Search reasons and ids")
    return (
        ("outcome", outcome),
        ("proposer", proposer),
        ("code", rule),
        ("actor", actor),
        ("first", first),
        ("last", last),
        ("find", find),
    )


def _proposal(row: Row, asked: Sequence[Row], about: About) -> Row:
    transfers = [
        {
            "from": one["actor_from"],
            "to": one["actor_to"],
            "resource": one["resource"],
            "amount": one["amount"] if one["amount"] is not None else one["amount_text"],
        }
        for one in asked
    ]
    mark = " (shadow)" if row["role"] == "shadow" else ""
    return {
        "epoch": row["epoch"],
        "proposer": row["proposer"] + mark,
        "outcome": text.outcome(row["outcome"]),
        "transfers": text.transfers(transfers, about.units),
        "why": why(row, about.units),
    }


def why(row: Mapping[str, Any], units: Mapping[str, str]) -> str:
    """Why a proposal came to what it did, as text: the rules that it broke, its fault, or its reasons."""
    broken = json.loads(row["violations"] or "[]")
    if broken:
        said = [in_words(one, units) for one in broken[:3]]
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        return text.plain("; ".join(said) + more, 300)
    if row["fault"]:
        return text.plain(f"{row['fault']}: {row['detail'] or ''}", 300)
    settled = {"approve": "approved: ", "reject": "rejected by a person: ", "expire": "nobody approved it: "}
    return text.plain(settled.get(row["settlement"] or "", "") + (row["reasoning"] or ""), 300)


def in_words(violation: Mapping[str, Any], units: Mapping[str, str]) -> str:
    """A broken rule as an export has it, as a sentence."""
    unit = units.get(violation.get("resource") or "", "")
    limit, actual = (text.amount(violation.get(key), unit) for key in ("limit", "actual"))
    code = violation.get("code")
    if code not in [one.value for one in Code] or (code == "stale_world_state" and violation.get("path") != "epoch"):
        return str(code).replace("_", " ")
    return WORDS[Code(code)].format(limit=limit, actual=actual)


# --- ledger, journal --------------------------------------------------------------------------------------------------


def ledger(ref: Ref, about: About) -> None:
    """Every applied transfer, filtered; one that is clicked leads to the proposal or the record that made it."""
    one, two, three = st.columns(3)
    with one:
        kind = _choice("Kind", "kind", KINDS, text.ENTRIES)
    with two:
        resource = _choice("Resource", "of", list(about.units))
    with three:
        actor = _choice("Actor", "actor", list(about.actors)[:OPTIONS_MAX])
    left, right = st.columns(2)
    with left:
        first, last = _epochs(about)
    with right:
        find = _find("Search: an entry's number, or words of its origin")
    values = (
        ("kind", kind),
        ("resource", resource),
        ("actor", actor),
        ("first", first),
        ("last", last),
        ("find", find),
    )
    rows, _ = _page(ref, "ledger", values)
    shown = [
        {
            **{key: row[key] for key in ("id", "epoch", "actor_from", "actor_to", "resource")},
            "kind": text.ENTRIES.get(row["kind"], row["kind"]),
            "at": text.moment(row["executed_at"].isoformat()),
            "amount": text.amount(row["amount"], about.units.get(row["resource"], "")),
        }
        for row in rows
    ]
    columns = {
        "id": "Entry",
        "epoch": "Epoch",
        "kind": "Kind",
        "actor_from": "From",
        "actor_to": "To",
        "amount": st.column_config.TextColumn("Amount", alignment="right"),
        "resource": "Resource",
        "at": "At",
    }

    def chosen(place: int) -> None:
        row = rows[place]
        if row["proposal_id"]:
            _turn("Proposals", "proposal", row["proposal_id"])
        else:
            _turn("Journal", "record", row["seq"])

    frame.table(
        shown, "ledger-rows", columns=columns, chosen=chosen, empty="No entry is like that.", height=_height(shown)
    )
    if shown:
        st.caption("Click the box before a row to read what made it.")


def _turn(view: str, name: str, value: object) -> None:
    """Leads to one thing on another side of the run; for callbacks."""
    frame.set_param("view", view)
    frame.set_param(name, value)


def journal(ref: Ref, about: About) -> None:
    """Every record in its order, filtered; one that is clicked is shown whole."""
    chosen = text.whole(frame.param("record"))
    if chosen is not None:
        _record(ref, chosen)
        return
    one, two, three = st.columns(3)
    with one:
        kind = _choice(
            "Kind of record", "record_kind", [row["kind"] for row in kept(ref, "journal_kinds")], text.RECORDS
        )
    with two:
        first, last = _epochs(about)
    with three:
        find = _find("Search records and digests")
    rows, _ = _page(ref, "journal", (("kind", kind), ("first", first), ("last", last), ("find", find)))
    shown = [
        {
            **{key: row[key] for key in ("seq", "epoch")},
            "kind": text.RECORDS.get(row["kind"], row["kind"]),
            "at": text.moment(row["recorded_at"].isoformat()),
            "digest": row["digest"][:16],
            "body": text.plain(row["body"], 300),
        }
        for row in rows
    ]
    columns = {
        "seq": "Record",
        "epoch": "Epoch",
        "kind": "Kind",
        "at": "At",
        "digest": "Digest",
        "body": st.column_config.TextColumn("Body", width="large"),
    }
    frame.table(
        shown,
        "journal-rows",
        columns=columns,
        chosen=lambda place: frame.set_param("record", rows[place]["seq"]),
        empty="No record is like that.",
        height=_height(shown),
    )


def _record(ref: Ref, seq: int) -> None:
    st.button("Back to the journal", on_click=frame.set_param, args=("record", None), icon="⬅️")
    found = kept(ref, "record", (), ("seq", seq))
    if not found:
        st.info(f"There is no journal record {seq:,} in this run.")
        return
    [row] = found
    st.markdown(f"#### Record {seq:,}: {text.RECORDS.get(row['kind']) or text.safe(row['kind'])}")
    st.text(f"Epoch {row['epoch']:,}, {text.moment(row['recorded_at'].isoformat())}")
    st.caption(f"Its name outside: `{seq}:{row['digest']}`. Amounts in it are in minor units.")
    frame.block(json.dumps(json.loads(row["body"]), ensure_ascii=False, indent=2), most=100_000)


# --- exchanges with models --------------------------------------------------------------------------------------------


def calls(ref: Ref, about: About) -> None:
    """The exchanges with models: tokens, cost and time, all together and one by one."""
    totals = kept(ref, "interactions_total")
    if not totals:
        st.info("No model was asked in this run, and no recording was played.")
        return
    columns = {
        "model": "Model",
        "origin": "Origin",
        "calls": "Calls",
        "tokens_in": "Tokens in",
        "tokens_out": "Tokens out",
        "tokens_thought": "Tokens thought",
        "cost": st.column_config.NumberColumn("Cost", format="%.6f"),
        "latency_ms": st.column_config.NumberColumn("Latency (median), ms", format="%.0f"),
    }
    frame.table([_numbers(row) for row in totals], "call-totals", columns=columns)
    if any(row["origin"] == "synthetic" for row in totals):
        st.caption("Synthetic: no model ever gave these replies. They were made by a policy or by hand.")
    st.caption("Cost is in the currency of the price table; empty where the model has no price.")
    rows, _ = _page(ref, "interactions", ())
    one = {
        "epoch": "Epoch",
        "proposer": "Proposer",
        "n": "Round",
        "origin": "Origin",
        "model": "Model",
        "status": "Status",
        "finish_reason": "Finish reason",
        "tokens_in": "Tokens in",
        "tokens_out": "Tokens out",
        "cost": st.column_config.NumberColumn("Cost", format="%.6f"),
        "latency_ms": st.column_config.NumberColumn("Latency, ms", format="%.0f"),
    }

    def chosen(place: int) -> None:
        if rows[place]["proposal_id"]:
            _turn("Proposals", "proposal", rows[place]["proposal_id"])

    shown = [_numbers(row) for row in rows]
    frame.table(shown, "call-rows", columns=one, chosen=chosen, height=_height(shown))


def _numbers(row: Row) -> Row:
    """Sums come as whole numbers of any size: as those that a table can show."""

    def large(value: Any) -> Any:
        return float(value) if isinstance(value, int) and abs(value) > 2**53 else value

    return {key: large(value) for key, value in row.items()}
