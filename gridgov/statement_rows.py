"""A statement's document as rows and as CSV; nothing is summed here."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from gridgov.amounts import plain_decimal

Json = dict[str, Any]

RECEIVED, GIVEN = "received", "given"
"""What executed proposals moved, by the side that it is seen from."""

COLUMNS = ("actor", "resource", "unit", "since", "until", "line", "with", "transfers", "amount")
"""The columns of the CSV; `line` says what a row is, `with` names the counterparty of what was given or received."""


def lines_of(document: Json) -> Iterator[tuple[Any, ...]]:
    """The rows of a statement's document: for each resource opening, what came (above 0), what left (below 0), closing.

    Opening and what follows add up to closing. After it come what was announced, demanded, served and unmet, and cost.
    """
    for account in document["accounts"]:
        begin = (document["actor"], account["resource"], account["unit"], document["since"], document["until"])

        def row(line: str, amount: Any, other: str = "", count: Any = "", begin: tuple[Any, ...] = begin) -> Any:
            return (*begin, line, other, count, amount)

        yield row("opening", account["opening"])
        for side, split, listed in (("in", RECEIVED, "received"), ("out", GIVEN, "given")):
            for kind, amount in account[side].items():
                if kind != split:
                    yield row(kind, amount if side == "in" else _negative(amount))
            for party in account[listed]:
                amount = party["amount"] if side == "in" else _negative(party["amount"])
                yield row(split, amount, party["actor"], party["transfers"])
        yield row("closing", account["closing"])
        for line, amount in account["needs"].items():
            yield row(line, amount)
        if account["cost"] is not None:
            yield row("cost", account["cost"])


def _negative(amount: Any) -> Any:
    return f"-{amount}" if isinstance(amount, str) else -amount


def csv_of(document: Json) -> str:
    """A statement's document as CSV, with a header; see `lines_of`.

    A name that a spreadsheet would take for a formula gets an apostrophe before it, as spreadsheets themselves do.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\r\n")
    table.writerow(COLUMNS)
    for row in lines_of(document):
        table.writerow([_inert(cell) for cell in row])
    return text.getvalue()


def _inert(cell: Any) -> Any:
    if isinstance(cell, float | Decimal):
        return plain_decimal(Decimal(str(cell)))
    formula = isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{cell}" if formula and not _is_number(cell) else cell


def _is_number(text: str) -> bool:
    return text.removeprefix("-").replace(".", "", 1).isdecimal()
