"""What a sweep and a comparison came to, in words and tables for a person; nothing is computed here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sim.compare import HIGHER, LOWER, MCNEMAR, NOT_DECISIVE, Comparison
from sim.paired import LEVEL, PAIRS_MIN, Interval
from sim.parts import Cell
from sim.sweep import Swept

if TYPE_CHECKING:
    from sim.reproduce import Reproduced

TEXTS = ("metric", "side", "result", "note")
"""The columns of a comparison that hold words; the others hold figures."""

_FAILED_SHOWN = 8
_DIFFERENCES_SHOWN = 12


def sweep_document(swept: Swept, cells: Sequence[Cell]) -> dict[str, Any]:
    """What `sweep --json` prints."""
    runs = [
        {
            "run_id": one.run_id,
            "overrides": list(cell.overrides),
            "seed": cell.seed,
            "proposer": cell.proposer,
            "replicate": cell.replicate,
            "status": one.status,
            "error": one.error,
            "head_digest": one.head,
        }
        for cell, one in zip(cells, swept.runs, strict=True)
    ]
    return {
        "sweep_id": swept.sweep_id,
        "export": str(swept.path),
        "cells": len(runs),
        "distinct": swept.distinct,
        "known": swept.known,
        "failed": len(swept.failed),
        "runs": runs,
        "seconds": swept.seconds,
    }


def show_sweep(console: Console, swept: Swept, cells: Sequence[Cell]) -> None:
    """Says what was run, what was there already, and what failed."""
    made = swept.distinct - swept.known - len({one.run_id for one in swept.failed})
    told = f"{len(cells):,} runs wanted: {made:,} played in {swept.seconds:,.1f} s"
    if swept.known:
        told += f", {swept.known:,} there already"
    if swept.failed:
        told += f", {len(swept.failed):,} failed"
    console.print(told, markup=False)
    if swept.distinct < len(cells):
        same = len(cells) - swept.distinct
        console.print(f"{same:,} of them mean the same as another, and are one run with it", markup=False)
    reasons = Counter(one.error for one in swept.failed)
    for error, count in reasons.most_common(_FAILED_SHOWN):
        console.print(f"  failed {count:,} times: {error}", markup=False)
    if len(reasons) > _FAILED_SHOWN:
        console.print(f"  ... and for {len(reasons) - _FAILED_SHOWN:,} more reasons; --json has them all", markup=False)
    console.print(f"\n{swept.path}\n", markup=False)
    example = next((one.run_id for one in swept.runs if one.error is None), None)
    if example is not None:
        console.print(f"gridgov compare {swept.path}", style="dim", markup=False)
        console.print(f"gridgov replay {swept.path}#{example}", style="dim", markup=False)


# --- a comparison -----------------------------------------------------------------------------------------------------


def number(value: float | None) -> str:
    """A figure in four significant digits, `-` where there is none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def interval(found: Interval | None) -> str:
    """An interval in words."""
    return "-" if found is None else f"{number(found.low)} to {number(found.high)}"


def share(value: float | None, found: Interval | None) -> str:
    """A share with its interval."""
    return (
        "-"
        if value is None
        else f"{100 * value:.1f} %" + ("" if found is None else f" ({100 * found.low:.1f} to {100 * found.high:.1f})")
    )


def compared_table(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """The metrics as a heading and rows of text, the same for a terminal, Markdown and HTML."""
    percent = f"{LEVEL:.0%}".replace("%", " %")
    if found.against is None:
        return ["metric", "n", "mean", f"{percent} interval", "note"], [
            [row.metric, f"{row.n:,}", number(row.mean), interval(row.interval), row.note] for row in found.rows
        ]
    head = ["metric", "side", "n", str(found.against), "this side", "difference", f"{percent} interval"]
    head += ["p, corrected", "result", "could have shown", "note"]
    rows = [
        [
            *(row.metric, row.side, f"{row.n:,}", number(row.base), number(row.mean), number(row.difference)),
            *(interval(row.interval), number(row.corrected), row.result, number(row.smallest), row.note),
        ]
        for row in found.rows
    ]
    return head, rows


def sides_table(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """What each side comes to by itself."""
    head = ["side", "runs", "accepted (Wilson)", "survived (Wilson)", "synthetic replies"]
    rows = []
    for side in found.sides:
        replies = side.recorded + side.synthetic
        synthetic = "-" if not replies else f"{side.synthetic:,} of {replies:,}"
        accepted = share(side.accepted, side.accepted_interval)
        survived = share(side.survived, side.survived_interval)
        rows.append([side.name, f"{side.runs:,}", accepted, survived, synthetic])
    return head, rows


def compared_notes(found: Comparison) -> list[str]:
    """What must be known to read the tables."""
    notes = [f"Compared: {found.by}" + ("." if found.against is None else f", all with {found.against}.")]
    if found.against is None:
        notes.append("There is one side, and nothing to compare it with: these are its means.")
    notes.append(
        f"n counts scenarios x seeds (and stretches of data); below {PAIRS_MIN} there is no interval. Intervals: BCa "
        "bootstrap over n, wider where n is small. p: paired permutation test, corrected by Holm over all tests. "
        f"Decisive: the interval leaves out 0, and p is below {1 - LEVEL:.2f}. Could have shown: the difference that "
        "would have been decisive with a chance of 80 %, beside the other tests that are not."
    )
    if any(side.accepted is not None for side in found.sides):
        notes.append(
            "Wilson's interval of what was accepted takes decisions for independent of each other; those of one run "
            "are not, so it may be too narrow. The metric acceptance_rate counts scenarios x seeds."
        )
    if any(row.pairs > row.n > 1 for row in found.rows):
        notes.append(
            "Pairs of one scenario and seed under several settings are averaged first: they share their draws."
        )
    for side in found.sides:
        if side.synthetic:
            notes.append(
                f"{side.name}: {share(side.synthetic_share, None)} of the replies are synthetic: no model said them."
            )
    if found.unpaired:
        notes.append(f"{found.unpaired:,} runs have no partner on the other side, and are left out of differences.")
    if found.failed:
        notes.append(f"{found.failed:,} runs failed, and are left out.")
    notes.append(MCNEMAR[0].upper() + MCNEMAR[1:] + ".")
    return notes


def survival_rows(found: Comparison) -> list[list[str]]:
    """Each side's survival curve as text, a row each; none where there is no commons."""
    rows = []
    for side in found.sides:
        if side.curve is not None:
            steps = [
                f"{100 * p:.0f} % from epoch {q} on" for q, p in zip(side.curve.epochs, side.curve.shares, strict=True)
            ]
            gone = f"{side.curve.collapsed:,} of {side.curve.runs:,} runs collapsed"
            rows.append([side.name, gone, "; ".join(steps) or "100 % throughout"])
    return rows


def _narrow(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """The metrics as they fit on a terminal; the rest follows below, a line each."""
    if found.against is None:
        return ["metric", "n", "mean", "interval"], [row[:4] for row in compared_table(found)[1]]
    head = ["metric", "side", "n", str(found.against), "side's", "difference", "interval", "result"]
    return head, [[*row[:7], row[8]] for row in compared_table(found)[1]]


def show_comparison(console: Console, found: Comparison) -> None:
    """Prints a comparison that needs no manual."""
    for head, rows in (sides_table(found), _narrow(found)):
        table = Table(box=None, pad_edge=False)
        for name in head:
            free = name in ("metric", "side")
            table.add_column(name, justify="left" if name in TEXTS else "right", no_wrap=not free, overflow="fold")
        for row in rows:
            style = "bold" if any(cell in (HIGHER, LOWER) for cell in row) else ""
            table.add_row(*(Text(cell) for cell in row), style=style)
        console.print(table)
        console.print()
    for told, names in _told(found).items():
        who = f"{len(names):,} rows" if len(names) > 2 else " and ".join(names)
        console.print(f"{who}: {told}", markup=False)
    for name, gone, steps in survival_rows(found):
        console.print(f"survival of {name}: {gone}; {steps}", markup=False)
    for rule in found.checked:
        console.print(f"{'FAILED' if rule.holds else 'passed'}  fail if {rule.text}: {rule.found}", markup=False)
    for note in compared_notes(found):
        console.print(note, style="dim", markup=False)


def _told(found: Comparison) -> dict[str, list[str]]:
    """What is said of rows beside their figures, and of which."""
    told: dict[str, list[str]] = {}
    for one in found.rows:
        said = [one.note] if one.note else []
        if one.result == NOT_DECISIVE and one.smallest is not None:
            said.append(f"these runs could have shown a difference of {number(one.smallest)}")
        if said:
            told.setdefault("; ".join(said), []).append(f"{one.metric}, {one.side}")
    return told


def markdown(found: Comparison) -> str:
    """The same as Markdown."""
    parts = ["## Comparison", ""]
    for head, rows in (sides_table(found), compared_table(found)):
        parts += [_line(head), _line(["---" if name in TEXTS else "---:" for name in head]), *map(_line, rows), ""]
    survivals = survival_rows(found)
    if survivals:
        head = ["side", "runs", "survival"]
        parts += [_line(head), _line(["---"] * len(head)), *map(_line, survivals), ""]
    parts += [
        f"- {'**FAILED**' if one.holds else 'passed'}: fail if `{one.text}`: {one.found}" for one in found.checked
    ]
    parts += [f"- {note}" for note in compared_notes(found)]
    return "\n".join(parts)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def show_reproduced(console: Console, found: Reproduced) -> None:
    """Prints whether a run came out the same, and what is not what it was."""
    fork = f", a fork of {found.fork}" if found.fork else ""
    console.print(f"{found.run_id}: {found.scenario}, seed {found.seed}, {found.epochs:,} epochs{fork}", markup=False)
    if found.same:
        console.print(f"same head digest {found.recorded}: all {found.records:,} records are the same", style="bold")
    else:
        console.print(f"recorded {found.recorded}\nnow      {found.found or '-'}", style="bold")
        console.print(f"the first {found.same_records:,} of {found.records:,} records are the same")
    changed = [(one.name, one.was, one.now) for one in found.inputs]
    changed += [(one.key, one.a, one.b) for one in found.set_up]
    if found.parting is not None:
        said = found.parting.a or found.parting.b or {}
        where = f"record {found.parting.seq} (epoch {said.get('epoch')}, {said.get('kind')})"
        changed += [(f"{where}: {one.key}", one.a, one.b) for one in found.parting.differs]
    if changed:
        table = Table("", "recorded", "now", box=None, pad_edge=False)
        for key, was, now in changed[:_DIFFERENCES_SHOWN]:
            table.add_row(Text(key), *("-" if value is None else Text(str(value)[:80]) for value in (was, now)))
        console.print(table)
    if len(changed) > _DIFFERENCES_SHOWN:
        console.print(f"... and {len(changed) - _DIFFERENCES_SHOWN:,} more; --json has them all", style="dim")
    if found.failed is not None:
        console.print(found.failed, markup=False)
