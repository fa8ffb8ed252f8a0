"""The page Ledger: every entry, newest first; one of them, with what led to it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard import frame, listing, text
from dashboard.pages import story

Json = dict[str, Any]

KINDS = {
    "": "any", "transfer": "transfer of a proposal", "override": "by hand", "reversal": "taken back",
    "produce": "produced", "grow": "grown", "consume": "consumed", "spill": "spilled", "genesis": "opening balance",
}  # fmt: skip
FILTERS = ("actor", "resource", "kind", "epoch", "since", "until")


def show() -> None:
    """Draws the page, or the entry of `?entry=`."""
    chosen = frame.param("entry")
    if chosen:
        frame.link("ledger", "← All entries", **{name: frame.param(name) for name in FILTERS})
        number = text.whole(chosen)
        if number is not None:
            story.entry(number)
        else:
            st.warning(f"{text.safe(chosen)} is no number of an entry.")
        return
    units = frame.units()
    filters = _filters(units)
    items = listing.page("ledger", filters)
    frame.table(
        [_row(item, units) for item in items],
        "ledger",
        columns={
            "id": st.column_config.NumberColumn("Entry", format="%d", width=75),
            "when": st.column_config.TextColumn("Executed (UTC)", width=150),
            "giver": st.column_config.TextColumn("From", width=120),
            "taker": st.column_config.TextColumn("To", width=120),
            "amount": st.column_config.TextColumn("Amount", width=130),
            "resource": st.column_config.TextColumn("Resource", width=90),
            "kind": "Kind",
            "epoch": "Epoch",
            "seq": "Record",
        },
        chosen=lambda row: frame.set_param("entry", items[row]["id"]),
        empty="No entry is found here. Change the filters, or look at what is older.",
    )
    st.caption("Click the box at the left of a row to open its story.")
    listing.export("ledger", filters, _flat)


def _filters(units: dict[str, str]) -> Json:
    with st.expander("Filter and search", expanded=any(frame.param(name) for name in FILTERS)):
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
            number = text.whole(frame.written("find", "Entry number"))
            if number is not None:
                frame.go("ledger", entry=number)
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
        "kind": KINDS.get(item["kind"], item["kind"]),
        "epoch": item["epoch"],
        "seq": item["seq"],
    }


def _flat(item: Json) -> Json:
    """An entry as a row of a file."""
    names = ("id", "seq", "epoch", "executed_at", "kind", "actor_from", "actor_to", "resource")
    found = {name: item[name] for name in names}
    return {**found, "amount": str(item["amount"]), "proposal_id": item["proposal_id"] or ""}
