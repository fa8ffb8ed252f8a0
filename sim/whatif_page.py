"""A what-if on the command line: its options, and what was found as a page for a person; nothing is judged here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gridgov.errors import BadInput
from gridgov.whatif import DIRECT, KNOCK_ON, First, Terms, WhatIf
from sim.loading import constraints_edit
from sim.strict_yaml import parse_value

_SHOWN = 10


def terms(
    sets: Sequence[str], from_epoch: int, drop: Sequence[str], freeze: Sequence[str], scale: Sequence[str]
) -> Terms:
    """What the options of `gridgov whatif` change. Raises BadInput where one is wrong, or none is given."""
    given = (("--set", sets), ("--drop", drop), ("--freeze", freeze), ("--scale", scale))
    said = [text if option == "--set" else f"{option[2:]}={text}" for option, texts in given for text in texts]
    factors: dict[str, Fraction] = {}
    for text in scale:
        flow, by = _factor(text)
        if flow in factors:
            raise BadInput(f"--scale {text}: {flow} is scaled twice; multiply the factors")
        factors[flow] = by
    edit = constraints_edit(sets) if sets else None
    return Terms(edit, from_epoch, tuple(drop), tuple(dict.fromkeys(freeze)), factors, tuple(said))


def _factor(text: str) -> tuple[str, Fraction]:
    label = f"--scale {text}"
    flow, _, factor = text.partition("=")
    by = parse_value(factor, label) if flow and factor else None
    if isinstance(by, bool) or not isinstance(by, int | Decimal) or not 0 <= by < 10**6:
        raise BadInput(f"{label}: expected FLOW=F, a factor of 0 or more, such as pv=0.5")
    return flow, Fraction(by)


def show(console: Console, found: WhatIf, out: str | None) -> None:
    """Prints what would have been decided otherwise, the first record that changes, and the end."""
    document = found.document()
    console.print()
    console.print(Text("what if", style="bold"), Text(found.run_id or found.source, style="dim"), sep="  ")
    since = f", from epoch {found.terms.from_epoch} on" if found.terms.from_epoch > 1 else ""
    said = [re.sub("^(drop|freeze|scale)=", r"\1 ", text) for text in found.terms.said]
    console.print(f"{'; '.join(said) or 'nothing is changed'}{since}", markup=False)
    console.print()
    if not found.records:
        console.print(f"nothing changes: all {found.decisions:,} decisions stand, and so does every balance")
    else:
        _counts(console, document["decisions"])
        if found.first is not None:
            _first(console, found.first)
        _proposals(console, found)
        _ends(console, found)
    for note in found.notes:
        console.print(f"note: {note}", markup=False)
    if out is not None:
        console.print(f"\nkept in {out}", markup=False)


def _counts(console: Console, decisions: dict[str, Any]) -> None:
    console.print(
        f"{decisions['changed']:,} of {decisions['total']:,} decisions change: {decisions['direct']:,} directly, "
        f"{decisions['knock_on']:,} as a knock-on"
    )
    console.print(
        f"{decisions['accepted_to_refused']:,} that were applied would not have been, "
        f"{decisions['refused_to_accepted']:,} that were not would have been"
    )
    if decisions["unreached"]:
        console.print(f"{decisions['unreached']:,} would never have been made")
    table = _table("decisions by rule", "direct", "knock-on")
    codes = decisions["by_code"]
    for code in {**codes[DIRECT], **codes[KNOCK_ON]}:
        table.add_row(code, *(f"{codes[cause].get(code, 0):,}" for cause in (DIRECT, KNOCK_ON)))
    if table.row_count:
        console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _first(console: Console, first: First) -> None:
    whose = f" {first.proposal_id[:8]}" if first.proposal_id else ""
    console.print("\nThe first record that changes", style="bold")
    console.print(f"record {first.seq}, epoch {first.epoch}: {first.kind}{whose}", markup=False)
    console.print(f"  was       {first.was}\n  would be  {first.would_be}\n  because   {first.why}", markup=False)


def _proposals(console: Console, found: WhatIf) -> None:
    if not found.changed:
        return
    console.print("\nDecisions that change", style="bold")
    for each in found.changed[:_SHOWN]:
        would_be = "left out" if each.would_be is None else _fate(each.would_be)
        console.print(
            f"record {each.seq}, epoch {each.epoch}, {each.proposer} {each.proposal_id[:8]}: {_fate(each.was)} -> "
            f"{would_be}  ({each.cause.replace('_', '-')})",
            markup=False,
        )
    if len(found.changed) > _SHOWN:
        console.print(f"... and {len(found.changed) - _SHOWN:,} more; --json has them all", style="dim")


def _fate(fate: Any) -> str:
    told: str = fate.told
    return told + (f" ({', '.join(fate.codes)})" if fate.codes else "")


def _ends(console: Console, found: WhatIf) -> None:
    units = {name: resource.unit for name, resource in found.engine.state.resources.items()}
    tables = (
        (
            "Balances at the end that differ",
            [(f"{m.actor} {m.resource}, {units[m.resource]}", m.was, m.would_be) for m in found.balances],
        ),
        (
            "Metrics that differ",
            [(f"{m.metric}{f' of {m.resource}' if m.resource else ''}", m.was, m.would_be) for m in found.metrics],
        ),
    )
    for title, rows in tables:
        if not rows:
            continue
        console.print(f"\n{title}", style="bold")
        table = _table("", "was", "would be")
        for name, was, would_be in rows[: 2 * _SHOWN]:
            table.add_row(Text(name), *(_figure(value) for value in (was, would_be)))
        console.print(table)
        if len(rows) > 2 * _SHOWN:
            console.print(f"... and {len(rows) - 2 * _SHOWN:,} more; --json has them all", style="dim")


def _figure(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.6g}" if abs(value) < 1 else f"{value:,}"
    return f"{value:,.0f}"
