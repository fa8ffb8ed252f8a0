"""The page Journal: the hash-chained records, newest first; one of them, with all that it holds."""

from __future__ import annotations

import json
from typing import Any

import streamlit as st

from dashboard import frame, listing, text
from dashboard.pages import story

Json = dict[str, Any]

KINDS = {"": "any", **text.RECORDS}
FILTERS = ("kind", "epoch", "text", "since", "until")


def show() -> None:
    """Draws the page, or the record of `?seq=` or `?request=`."""
    seq, request = frame.param("seq"), frame.param("request")
    if seq or request:
        listing.back("journal", "All records", FILTERS)
        found = story.fetched(seq, request)
        if found is not None:
            story.record(found)
        return
    columns = {
        "seq": st.column_config.NumberColumn("Record", format="%d", width=65),
        "kind": st.column_config.TextColumn("Kind", width=170),
        "what": st.column_config.TextColumn("What", width=235),
        "age": st.column_config.TextColumn("Age", width=110),
        "when": st.column_config.TextColumn("Recorded (UTC)", width=145),
        "epoch": st.column_config.NumberColumn("Epoch", width=60),
        "digest": "Digest",
    }
    listing.draw("journal", _filters(), columns, _row, _flat, opens=("seq", "seq"))


def _filters() -> Json:
    with listing.searching(FILTERS):
        one, two, three = st.columns(3)
        with one:
            kind = frame.picked("kind", "Kind", KINDS, listing.RESETS)
        with two:
            epoch = frame.written("epoch", "Epoch", listing.RESETS)
        with three:
            listing.numbered("journal", "Record number", "seq")
        said = frame.written("text", "Search", listing.RESETS, placeholder="anything that stands in a record")
        span = listing.times()
    return {"kind": kind, "epoch": text.whole(epoch), "text": said, **span}


def _row(item: Json) -> Json:
    return {
        "seq": item["seq"],
        "when": text.moment(item["at"]).removesuffix(" UTC"),
        "age": text.age(item["at"], frame.now()),
        "kind": text.RECORDS.get(item["kind"], item["kind"]),
        "what": story.told(item["kind"], item["payload"]),
        "epoch": item["epoch"],
        "digest": item["digest"][:12],
    }


def _flat(item: Json) -> Json:
    """A record as a row of a file; the body is the text that its digest is over."""
    names = ("seq", "epoch", "at", "kind", "digest", "body")
    assert json.loads(item["body"])["seq"] == item["seq"], "a body is that of its record"
    return {name: item[name] for name in names}
