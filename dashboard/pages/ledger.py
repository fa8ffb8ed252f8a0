"""The page Ledger: every entry, newest first; one of them, with what led to it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard import frame, listing, text
from dashboard.pages import story

Json = dict[str, Any]

KINDS = {"": "any", **text.ENTRIES}
FILTERS = ("actor", "resource", "kind", "epoch", "since", "until")


def show() -> None:
    """Draws the page, or the entry of `?entry=`."""
    chosen = frame.param("entry")
    if chosen:
        listing.back("ledger", "All entries", FILTERS)
        number = text.whole(chosen)
        if number is not None:
            story.entry(number)
        else:
            st.warning(f"{text.safe(chosen)} is no number of an entry.")
        return
    units = frame.units()
    columns = {  # who, whom and how much first: a telephone shows no more without scrolling
        "id": st.column_config.NumberColumn("Entry", format="%d", width=60),
        "giver": st.column_config.TextColumn("From", width=90),
        "taker": st.column_config.TextColumn("To", width=90),
        "amount": st.column_config.TextColumn("Amount", width=85),
        "resource": st.column_config.TextColumn("Resource", width=75),
        "kind": st.column_config.TextColumn("Kind", width=145),
        "when": st.column_config.TextColumn("Executed (UTC)", width=145),
        "epoch": st.column_config.NumberColumn("Epoch", width=60),
        "seq": st.column_config.NumberColumn("Record", format="%d", width=65),
    }
    listing.draw("ledger", _filters(units), columns, lambda item: _row(item, units), _flat, opens=("entry", "id"))


def _filters(units: dict[str, str]) -> Json:
    with listing.searching(FILTERS):
        one, two, three, four, five = st.columns(5)
        with one:
            actor = frame.written("actor", "Actor", listing.RESETS, placeholder="its whole name")
        with two:
            resource = frame.picked(
                "resource", "Resource", {"": "any", **{n: text.plain(n) for n in units}}, listing.RESETS
            )
        with three:
            kind = frame.picked("kind", "Kind", KINDS, listing.RESETS)
        with four:
            epoch = frame.written("epoch", "Epoch", listing.RESETS)
        with five:
            listing.numbered("ledger", "Entry number", "entry")
        span = listing.times()
    return {
        "actor": actor, "resource": resource, "kind": kind, "epoch": text.whole(epoch), **span
    }  # fmt: skip


def _row(item: Json, units: dict[str, str]) -> Json:
    return {
        "id": item["id"],
        "when": text.moment(item["executed_at"]).removesuffix(" UTC"),
        "giver": story.named(item["actor_from"]),
        "taker": story.named(item["actor_to"]),
        "amount": text.amount(item["amount"], units.get(item["resource"], "")),
        "resource": text.plain(item["resource"]),
        "kind": text.ENTRIES.get(item["kind"], item["kind"]),
        "epoch": item["epoch"],
        "seq": item["seq"],
    }


def _flat(item: Json) -> Json:
    """An entry as a row of a file."""
    names = ("id", "seq", "epoch", "executed_at", "kind", "actor_from", "actor_to", "resource")
    found = {name: item[name] for name in names}
    return {**found, "amount": str(item["amount"]), "proposal_id": item["proposal_id"] or ""}
