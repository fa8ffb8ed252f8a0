"""The page Journal: the hash-chained records, newest first; one of them, with all that it holds."""

from __future__ import annotations

import json
from typing import Any

import streamlit as st

from dashboard import frame, listing, text
from dashboard.pages import story

Json = dict[str, Any]

KINDS = {
    "": "any",
    "proposal": "proposal with its outcome",
    "settlement": "settlement of a hold",
    "override": "by hand",
    "reversal": "taken back",
    "control": "pause or resume",
    "constraints": "constraints",
    "activation": "prompt in force",
    "registration": "actors and keys",
    "flow": "meters",
    "close": "end of an epoch",
    "genesis": "the beginning",
}
FILTERS = ("kind", "epoch", "text", "since", "until")


def show() -> None:
    """Draws the page, or the record of `?seq=` or `?request=`."""
    seq, request = frame.param("seq"), frame.param("request")
    if seq or request:
        frame.link("journal", "← All records", **{name: frame.param(name) for name in FILTERS})
        found = story.fetched(seq, request)
        if found is not None:
            story.record(found)
        return
    filters = _filters()
    items = listing.page("journal", filters)
    frame.table(
        [_row(item) for item in items],
        "journal",
        columns={
            "seq": "Record",
            "when": "Recorded (UTC)",
            "age": "Age",
            "kind": "Kind",
            "what": "What",
            "epoch": "Epoch",
            "digest": "Digest",
        },
        chosen=lambda row: frame.set_param("seq", items[row]["seq"]),
        empty="No record is found here. Change the filters, or look at what is older.",
    )
    st.caption("Click the box at the left of a row to open it.")
    listing.export("journal", filters, _flat)


def _filters() -> Json:
    with st.expander("Filter and search", expanded=any(frame.param(name) for name in FILTERS)):
        one, two, three = st.columns(3)
        with one:
            kind = frame.picked("kind", "Kind", KINDS, listing.RESETS)
        with two:
            epoch = frame.written("epoch", "Epoch", listing.RESETS)
        with three:
            number = text.whole(frame.written("find", "Record number"))
            if number is not None:
                frame.go("journal", seq=number)
        said = frame.written("text", "Search", listing.RESETS, placeholder="anything that stands in a record")
        span = listing.times()
    return {"kind": kind, "epoch": text.whole(epoch), "text": said, **span}


def _row(item: Json) -> Json:
    return {
        "seq": item["seq"],
        "when": text.moment(item["at"]).removesuffix(" UTC"),
        "age": text.age(item["at"], frame.now()),
        "kind": KINDS.get(item["kind"], item["kind"]),
        "what": story.told(item["kind"], item["payload"]),
        "epoch": item["epoch"],
        "digest": item["digest"][:12],
    }


def _flat(item: Json) -> Json:
    """A record as a row of a file; the body is the text that its digest is over."""
    names = ("seq", "epoch", "at", "kind", "digest", "body")
    assert json.loads(item["body"])["seq"] == item["seq"], "a body is that of its record"
    return {name: item[name] for name in names}
