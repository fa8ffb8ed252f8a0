"""An actor's statement as a table for a person; nothing is computed here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

NAMES = {
    "genesis": "opening balance of the grid",
    "produce": "produced",
    "grow": "grown",
    "consume": "consumed",
    "spill": "spilled",
    "override": "moved by hand",
    "reversal": "taken back",
}
"""Kinds of entries in words."""


def show_statement(console: Console, told: Mapping[str, Any]) -> None:
    """Prints a statement's document, see `statement.Statement`: for each resource, from opening to closing."""
    since, until = told["since"] or "the beginning", told["until"] or "the end"
    frozen = ", frozen" if told["frozen"] else ""
    console.print(f"{told['actor']} ({told['type']}{frozen})", style="bold", markup=False)
    console.print(f"{told['source']}, from {since} until {until}", markup=False)
    if told["head"] is not None:
        head = told["head"]
        console.print(f"as of record {head['seq']}:{head['digest'][:12]}, written {head['at']}", markup=False)
    for account in told["accounts"]:
        console.print()
        console.print(_table(account))
        _needs(console, account)
    for note in told["notes"]:
        console.print(note, markup=False)


def _table(account: Mapping[str, Any]) -> Table:
    table = Table(
        title=Text(f"{account['resource']}, {account['unit']}"), title_justify="left", box=None, pad_edge=False
    )
    table.add_column("")
    table.add_column("amount", justify="right")
    scale = account["scale"]

    def row(name: str, amount: Any, sign: str = "", style: str = "") -> None:
        table.add_row(Text(name, style), Text(sign + _amount(amount, scale), style))

    row("opening", account["opening"], style="bold")
    for side, sign, split, word in (("in", "+", "received", "received from"), ("out", "-", "given", "given to")):
        for kind, amount in account[side].items():
            if kind != split:
                row(NAMES.get(kind, kind), amount, sign)
        for party in account[split]:
            times = f" ({party['transfers']:,} transfers)" if party["transfers"] != 1 else ""
            row(f"{word} {party['actor']}{times}", party["amount"], sign)
    row("closing", account["closing"], style="bold")
    return table


def _needs(console: Console, account: Mapping[str, Any]) -> None:
    needs, scale, unit = account["needs"], account["scale"], account["unit"]
    if any(needs.values()):
        demanded, served, unmet, announced = (
            f"{_amount(needs[key], scale)} {unit}" for key in ("demanded", "served", "unmet", "announced")
        )
        said = f"needs: {announced} announced; of {demanded} to be consumed, {served} served and {unmet} unmet"
        console.print(said, markup=False)
    if account["cost"] is not None:
        console.print(f"cost of what was unmet: {account['cost']:,.2f}, in the currency of the prices", markup=False)


def _amount(amount: int | float | str, scale: int) -> str:
    """An amount with all its decimals, thousands apart."""
    return amount if isinstance(amount, str) else f"{amount:,.{scale}f}"
