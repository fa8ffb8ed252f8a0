"""The page Proposals: what was proposed and what became of it, newest first; one of them, as its story."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard import frame, listing, text
from dashboard.pages import story
from gridgov.model import Code, Outcome

Json = dict[str, Any]

CODES = {"": "any", **{code.value: code.value for code in Code}}
OUTCOMES = {"": "any", **{outcome.value: text.outcome(outcome.value) for outcome in Outcome}}
FILTERS = ("outcome", "code", "proposer", "epoch", "text", "since", "until")


def show() -> None:
    """Draws the page, or the story of `?id=`."""
    chosen = frame.param("id")
    if chosen:
        listing.back("proposals", "All proposals", FILTERS)
        story.proposal(chosen)
        return
    filters, units = _filters(), frame.units()
    columns = {
        "age": st.column_config.TextColumn("Age", width=95),
        "outcome": st.column_config.TextColumn("Outcome", width=155),
        "what": st.column_config.TextColumn("Transfers", width=235),
        "why": st.column_config.TextColumn("Why", width=270),
        "proposer": "Proposer",
        "epoch": "Epoch",
        "when": "Decided (UTC)",
        "seq": "Record",
    }
    listing.draw(
        "proposals",
        filters,
        columns,
        row=lambda item: _row(item, units),
        flat=lambda item: _flat(item, units),
        opens=("id", "proposal_id"),
    )


def _filters() -> Json:
    with listing.searching(FILTERS):
        one, two, three, four = st.columns(4)
        with one:
            outcome = frame.picked("outcome", "Outcome", OUTCOMES, listing.RESETS)
        with two:
            code = frame.picked("code", "Broken rule", CODES, listing.RESETS)
        with three:
            proposer = frame.written("proposer", "Proposer", listing.RESETS)
        with four:
            epoch = frame.written("epoch", "Epoch", listing.RESETS)
        said = frame.written(
            "text", "Search", listing.RESETS, placeholder="an actor, a resource, words of the reasoning, an id"
        )
        span = listing.times()
    return {"outcome": outcome, "code": code, "proposer": proposer, "epoch": text.whole(epoch), "text": said, **span}


def _row(item: Json, units: dict[str, str]) -> Json:
    return {
        "when": text.moment(item["at"]).removesuffix(" UTC"),
        "age": text.age(item["at"], frame.now()),
        "outcome": text.outcome(item["outcome"]),
        "what": text.transfers(item["transfers"], units),
        "why": text.why(item),
        "proposer": text.plain(item["proposer"], 60),
        "epoch": item["epoch"],
        "seq": item["seq"],
    }


def _flat(item: Json, units: dict[str, str]) -> Json:
    """A proposal as a row of a file."""
    return {
        "seq": item["seq"], "epoch": item["epoch"], "at": item["at"], "proposal_id": item["proposal_id"],
        "proposer": item["proposer"], "outcome": item["outcome"],
        "codes": " ".join(violation["code"] for violation in item["violations"]),
        "transfers": text.transfers(item["transfers"], units, len(item["transfers"])),
        "entries": " ".join(map(str, item["entries"])), "why": text.why(item, 1_000),
        "reasoning": item.get("reasoning") or "", "digest": item["digest"],
    }  # fmt: skip
