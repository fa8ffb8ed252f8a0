"""What the pages of proposals, entries and records share: filters, the newest, what was before, all of it in a file."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import frame, text
from dashboard.client import Api

Json = dict[str, Any]

ROWS = 100
"""Rows of a page."""

EXPORTED = 100_000
"""Most rows of a file; more are what `gridgov export postgres` is for."""

RESETS = ("before",)
"""A change of a filter begins at the newest again."""


def draw(
    what: str,
    filters: Mapping[str, Any],
    columns: Mapping[str, Any],
    row: Callable[[Json], Json],
    flat: Callable[[Json], Json],
    opens: tuple[str, str],
) -> None:
    """One page of `/v1/recent/<what>` as a table, newest first, and all of it as files.

    `row` and `flat` make of an item a row of the table and of a file. A row that is clicked puts what the item has
    under the second name of `opens` into the parameter of the first one.
    """
    items = page(what, filters)
    param, member = opens
    frame.table(
        [row(item) for item in items],
        what,
        columns=columns,
        chosen=lambda place: frame.set_param(param, items[place][member]),
        empty="Nothing is found here. Change the filters, or look at what is older.",
    )
    if items:
        st.caption("Click the box at the left of a row to open its story.")
    export(what, filters, flat)


def searching(names: Iterable[str]) -> Any:
    """Where the filters of a list stand: open where the address has one of these parameters."""
    return st.expander("Filter and search", expanded=any(frame.param(name) for name in names))


def back(page_name: str, label: str, names: Iterable[str]) -> None:
    """A link from one story back to the list, with the filters that it had."""
    frame.link(page_name, f"← {label}", **{name: frame.param(name) for name in names})


def numbered(page_name: str, label: str, param: str) -> None:
    """A field for the number of what somebody looks for, which leads there."""
    number = text.whole(frame.written("find", label))
    if number is not None:
        frame.go(page_name, **{param: number})


def times() -> dict[str, str | None]:
    """Two fields for a span of time; what is no time is said, and left out."""
    found: dict[str, str | None] = {}
    left, right = st.columns(2)
    for name, label, place in (("since", "From (UTC)", left), ("until", "Until (UTC)", right)):
        with place:
            said = frame.written(name, label, RESETS, placeholder="2026-11-22 12:00")
            found[name] = text.instant(said) if said else None
            if said and found[name] is None:
                st.caption("This is no time: write it as 2026-11-22 12:00.")
    return found


def page(what: str, filters: Mapping[str, Any]) -> list[Json]:
    """One page of what is looked for, newest first, and links to what was before."""
    before = frame.param("before")
    found = frame.read(f"/v1/recent/{what}", before=text.whole(before) or 0, limit=ROWS, **filters)
    if found is None:
        return []
    items: list[Json] = found["items"]
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button("Newest", disabled=not before, key=f"{what}-newest"):
            frame.set_param("before", None)
            st.rerun()
        if st.button("Older", disabled=found["next"] is None, key=f"{what}-older"):
            frame.set_param("before", found["next"])
            st.rerun()
        so_far = f"looked back to number {found['looked_back_to']:,}" if found["next"] is not None else "these are all"
        st.caption(f"{text.many(len(items), 'row')}; {so_far}.")
    return items


def export(what: str, filters: Mapping[str, Any], flat: Callable[[Json], Json]) -> None:
    """Files of all that is looked for, up to `EXPORTED` rows."""
    api = frame.api()
    with st.popover("Export"):
        st.caption(
            f"All rows that the filters find, the newest {EXPORTED:,} at most. For everything, use "
            "`gridgov export postgres --out production.duckdb`."
        )
        st.download_button(
            "CSV", data=lambda: csv(rows(api, what, filters, flat)), file_name=f"{what}.csv", mime="text/csv",
            key=f"{what}-csv", on_click="ignore",
        )  # fmt: skip
        st.download_button(
            "Parquet", data=lambda: parquet(rows(api, what, filters, flat)), file_name=f"{what}.parquet",
            mime="application/vnd.apache.parquet", key=f"{what}-parquet", on_click="ignore",
        )  # fmt: skip


def rows(api: Api, what: str, filters: Mapping[str, Any], flat: Callable[[Json], Json]) -> list[Json]:
    """What is looked for as flat rows, newest first, page by page. Raises Away, Refused."""

    def walked() -> Iterator[Json]:
        before, left = 0, EXPORTED
        while left > 0:
            found = api.get(f"/v1/recent/{what}", 0, False, before=before, limit=min(1_000, left), **filters).body
            yield from map(flat, found["items"])
            left -= len(found["items"])
            if found["next"] is None:
                return
            before = found["next"]

    return list(walked())


def csv(found: list[Json]) -> bytes:
    """Rows as CSV, in UTF-8. What a spreadsheet would take for a formula begins with an apostrophe."""

    def harmless(value: Any) -> Any:
        return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value

    safe = pd.DataFrame([{name: harmless(value) for name, value in row.items()} for row in found])
    return str(safe.to_csv(index=False)).encode()


def parquet(found: list[Json]) -> bytes:
    """Rows as Parquet; amounts are exact, as text where they would not be numbers of one type."""
    kept = io.BytesIO()
    pd.DataFrame(found).to_parquet(kept, index=False)
    return kept.getvalue()
