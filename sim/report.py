"""What a run came to, in words and tables for a person; figures come from the metrics, nothing is computed anew."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gridgov.amounts import plain
from gridgov.model import Outcome, Resource
from sim.bound import Baseline

if TYPE_CHECKING:
    from gridgov.diff import Change, Diff
    from gridgov.verify import Report

Metrics = Mapping[str, Any]

OUTCOMES = {
    Outcome.EXECUTED: "applied to the ledger",
    Outcome.HELD: "waiting for a person's approval",
    Outcome.REJECTED: "broke a rule; nothing moved",
    Outcome.MALFORMED: "the reply was no proposal; nothing moved",
    Outcome.NOOP: "proposed nothing, on purpose",
    Outcome.UNAVAILABLE: "no answer; not counted as a decision",
}


class Summary(NamedTuple):
    """All that is said of one run."""

    run_id: str
    scenario: str
    description: str
    seed: int
    proposers: Sequence[Mapping[str, Any]]
    epochs: int
    horizon: int
    entries: int
    outcomes: Mapping[str, int]
    violations: Mapping[str, int]
    metrics: Metrics
    baselines: Mapping[str, Baseline]
    resources: Mapping[str, Resource]
    interactions: Mapping[str, int]
    expectations: Sequence[tuple[str, bool]]
    unused: int
    head: str
    export: str
    seconds: float

    def document(self) -> dict[str, Any]:
        """What `run --json` prints: plain values, metrics unrounded."""
        return {
            "run_id": self.run_id,
            "scenario": self.scenario,
            "seed": self.seed,
            "proposers": list(self.proposers),
            "epochs": self.epochs,
            "entries": self.entries,
            "outcomes": {outcome.value: self.outcomes.get(outcome.value, 0) for outcome in Outcome},
            "violations": dict(sorted(self.violations.items())),
            "metrics": dict(self.metrics),
            "head_digest": self.head,
            "export": self.export,
            "interactions": dict(self.interactions),
            "expectations": [{"text": text, "held": held} for text, held in self.expectations],
            "seconds": self.seconds,
        }


def figure(value: float | int | None, digits: int = 2) -> str:
    """A number for a table: thousands apart, `-` where it is undefined."""
    if value is None:
        return "-"
    return f"{value:,.{digits}f}".rstrip("0").rstrip(".") if digits and value % 1 else f"{value:,.0f}"


def percent(value: float | None) -> str:
    """A share as a percentage, `-` where it is undefined."""
    return "-" if value is None else f"{100 * value:.1f} %"


def of(metrics: Metrics, name: str, resource: str | None = None) -> float | None:
    """One metric of one resource, or of the run."""
    found = metrics.get(name)
    return found.get(resource) if isinstance(found, Mapping) else found


def show(console: Console, summary: Summary) -> None:
    """Prints a summary that needs no manual."""
    console.print()
    console.print(Text(summary.scenario, style="bold"), Text(summary.description, style="dim"), sep="  ")
    ended = "" if summary.epochs == summary.horizon else f" of {summary.horizon:,}: the commons collapsed"
    console.print(
        f"seed {summary.seed}, {summary.epochs:,} epochs{ended}, {summary.entries:,} ledger entries, "
        f"proposer {', '.join(_few([_who(one) for one in summary.proposers]))}",
        markup=False,
    )
    console.print()
    console.print(_decisions(summary))
    for resource in summary.baselines:
        console.print(_served(summary, summary.resources[resource]))
    if of(summary.metrics, "survival_time") is not None:
        console.print(_commons(summary))
    _notes(console, summary)


def _who(proposer: Mapping[str, Any]) -> str:
    by = proposer["policy"] if proposer["kind"] == "policy" else proposer["kind"]
    shadow = ", shadow" if proposer["role"] == "shadow" else ""
    return f"{proposer['name']} ({by}{shadow})"


def _few(names: Sequence[str]) -> list[str]:
    return [*names[:4], f"and {len(names) - 4} more"] if len(names) > 5 else list(names)


def _decisions(summary: Summary) -> Table:
    total = sum(summary.outcomes.values())
    table = Table(title=f"What was asked: {total:,} proposals", title_justify="left", box=None, pad_edge=False)
    table.add_column("outcome")
    table.add_column("", justify="right")
    table.add_column("")
    for outcome, meaning in OUTCOMES.items():
        count = summary.outcomes.get(outcome.value, 0)
        if count:
            table.add_row(outcome.value, f"{count:,}", meaning)
            if outcome is Outcome.REJECTED:
                for code, n in sorted(summary.violations.items(), key=lambda item: -item[1]):
                    table.add_row(
                        Text(f"  {code}", style="dim"), Text(f"{n:,}", style="dim"), Text("times", style="dim")
                    )
    return table


def _served(summary: Summary, resource: Resource) -> Table:
    """How the community fared, beside what it manages alone and the best that was possible."""
    baseline, metrics, unit = summary.baselines[resource.name], summary.metrics, resource.unit
    table = Table(title=f"\nHow needs of {resource.name} were met", title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for name in ("alone (none)", "this run", "at best"):
        table.add_column(name, justify="right")
    demanded = of(metrics, "demanded", resource.name) or 0.0
    served = of(metrics, "served", resource.name)

    def shares(minor: int | None) -> tuple[float | None, float | None]:
        amount = None if minor is None else float(plain(minor, resource.scale))
        return amount, None if amount is None or not demanded else amount / demanded

    alone, best = shares(baseline.none), shares(baseline.bound)
    table.add_row(f"served, {unit}", figure(alone[0]), figure(served), figure(best[0]))
    table.add_row(
        f"of {figure(demanded)} {unit} needed",
        percent(alone[1]),
        percent(of(metrics, "self_sufficiency", resource.name)),
        percent(best[1]),
    )
    cost = of(metrics, "import_cost", resource.name)
    if cost is not None:
        table.add_row("cost of the rest", "", figure(cost), "")
    regret = of(metrics, "regret", resource.name)
    if regret is not None:
        table.add_row("regret (0: the best; 1: as none)", "", f"{regret:.3f}", "")
    if baseline.note:
        table.caption = f"at best: unknown, because {baseline.note}"
        table.caption_justify = "left"
    return table


def _commons(summary: Summary) -> Table:
    table = Table(title="\nHow the commons fared", title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    table.add_column("", justify="right")
    survived = of(summary.metrics, "survival_time")
    table.add_row("survived, epochs", f"{figure(survived)} of {summary.horizon}")
    for name in ("gain", "efficiency", "equality", "over_usage"):
        table.add_row(name.replace("_", " "), figure(of(summary.metrics, name), 3))
    return table


def _notes(console: Console, summary: Summary) -> None:
    console.print()
    synthetic, recorded = summary.interactions.get("synthetic", 0), summary.interactions.get("recorded", 0)
    if synthetic or recorded:
        share = f"{synthetic:,} of {synthetic + recorded:,} replies are synthetic: no model said them"
        console.print(share if synthetic else f"{recorded:,} recorded replies of a model", markup=False)
    if summary.unused:
        console.print(f"{summary.unused:,} recorded replies were never asked for", markup=False)
    for text, held in summary.expectations:
        console.print(f"{'held  ' if held else 'FAILED'}  {text}", style="" if held else "bold red", markup=False)
    console.print(
        f"run {summary.run_id}, {summary.seconds:.1f} s, head {summary.head[:16]}..., in {summary.export}", markup=False
    )


# --- other things that people look at ---------------------------------------------------------------------------------


def _table(*columns: str, title: str | None = None) -> Table:
    """A plain table: the first column to the left, figures to the right."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def show_world(console: Console, world: Mapping[str, Any]) -> None:
    """Prints a WorldState: who has what."""
    console.print(
        f"epoch {world['epoch']}, {world['timestamp']}{', paused' if world.get('paused') else ''}", markup=False
    )
    shown = [name for name in world["resources"] if any(name in actor["balances"] for actor in world["actors"])]
    table = _table("actor", "type", *shown)
    for actor in world["actors"]:
        balances = [figure(actor["balances"].get(name), 6) for name in shown]
        table.add_row(Text(actor["id"] + (" (frozen)" if actor.get("frozen") else "")), Text(actor["type"]), *balances)
    console.print(table)
    console.print("constraints: " + json.dumps(world["constraints"], ensure_ascii=False), markup=False)


def show_cassette(console: Console, overview: Mapping[str, Any], listing: Sequence[Mapping[str, Any]]) -> None:
    """Prints a cassette in figures, and one line for each reply."""
    console.print(f"{overview['file']}: {overview['interactions']:,} interactions", markup=False)
    for key in ("origins", "models", "prompts", "proposers", "results", "finish_reasons", "tokens"):
        if overview[key]:
            counts = ", ".join(f"{name} {count:,}" for name, count in overview[key].items())
            console.print(f"  {key.replace('_', ' ')}: {counts}", markup=False)
    if overview["cost"] is not None:
        console.print(f"  cost: {overview['cost']}", markup=False)
    table = _table("line", "epoch", "proposer", "n", "result", "origin", "model")
    for row in listing:
        cells = (row["line"], row["epoch"], row["proposer"], row["n"], row["result"], row["origin"], row["model"])
        table.add_row(*(Text(str(cell)) for cell in cells))
    console.print(table)


def show_exchange(console: Console, exchanges: Sequence[tuple[Any, str, str]], changed: str) -> None:
    """Prints what was asked and answered in one epoch, and what differs from the question before."""
    for one, asked, answered in exchanges:
        console.print(f"--- asked: epoch {one.round.epoch}, {one.round.proposer}, round {one.round.n}", style="bold")
        console.print(asked, markup=False)
        console.print(f"--- answered ({one.origin})", style="bold")
        console.print(answered, markup=False)
    if changed:
        console.print("--- changed since the question before", style="bold")
        console.print(changed, markup=False)


def show_checks(console: Console, report: Report) -> None:
    """Prints what was checked, how much of it, and the first thing that was wrong."""
    table = _table("check", "", "")
    for check in report.checks:
        result = "skipped" if check.skipped else "FAILED" if check.failure else "ok"
        style = {"FAILED": "bold red", "skipped": "dim"}.get(result, "")
        table.add_row(check.name, Text(result, style=style), Text("" if check.skipped else f"{check.count:,}"))
    console.print(table)
    console.print(f"head {report.seq}:{report.digest}", markup=False)


def show_diff(console: Console, found: Diff) -> None:
    """Prints where two runs part, and what differs after."""
    for name, side in (("A", found.a), ("B", found.b)):
        counts = ", ".join(f"{outcome} {n:,}" for outcome, n in side.outcomes.items() if n)
        console.print(
            f"{name}: {side.run_id or side.source}, {side.epochs:,} epochs, {side.records:,} records, {counts}",
            markup=False,
        )
    if found.identical:
        console.print("\nidentical: the same head, so every record is the same", style="bold")
        return
    _changes(console, "What was put in", found.set_up)
    if found.parting is None:
        console.print("\nWhat happened is the same throughout.", style="bold")
    else:
        said = found.parting.a or found.parting.b or {}
        where = f"record {found.parting.seq}, epoch {said.get('epoch')}, {said.get('kind')}"
        _changes(console, f"The first record at which they part: {where}", found.parting.differs)
    _changes(console, "Balances at the end", found.balances)
    _changes(console, "Metrics", found.metrics)


_SHOWN = 12


def _changes(console: Console, title: str, changes: Sequence[Change]) -> None:
    if not changes:
        return
    table = _table("", "A", "B", title=f"\n{title}")
    for change in changes[:_SHOWN]:
        table.add_row(Text(change.key), *(Text(_short(value)) for value in (change.a, change.b)))
    console.print(table)
    if len(changes) > _SHOWN:
        console.print(f"... and {len(changes) - _SHOWN:,} more; --json has them all", style="dim")


def _short(value: Any) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def show_story(console: Console, story: Mapping[str, Any]) -> None:
    """Prints the story of a proposal: seen, said, judged, moved, settled."""
    shadow = ", a shadow: judged, never applied" if story["shadow"] else ""
    console.print(
        f"{story['outcome']}: proposal {story['proposal_id']} of {story['proposer']}, epoch {story['epoch']}, "
        f"round {story['n']}{shadow}",
        style="bold",
        markup=False,
    )
    console.print("\nSeen", style="bold")
    show_world(console, story["seen"]["world_state"])
    if story["seen"]["moved_since"]:
        console.print("balances had moved since the proposer looked", markup=False)
    _said(console, story["said"])
    _judged(console, story["judged"])
    _moved(console, story["moved"])
    settled = story["settled"]
    if settled is not None:
        said = f"by {settled['operator'] or 'time'}, epoch {settled['epoch']}, {settled['reason'] or 'no reason given'}"
        console.print(f"\nSettled: {settled['decision']} ({said})", style="bold", markup=False)
        _judged(console, settled["judged"])
        _moved(console, settled["moved"])


def _said(console: Console, said: Mapping[str, Any]) -> None:
    console.print("\nSaid", style="bold")
    if said.get("fault"):
        console.print(f"no proposal: {said['fault']['code']}, {said['fault']['detail']}", markup=False)
    for transfer in said.get("transfers", ()):
        console.print(
            f"  {transfer['from']} -> {transfer['to']}: {transfer['amount']} {transfer['resource']}", markup=False
        )
    if said.get("reasoning"):
        console.print(f"  because: {said['reasoning']}", markup=False)
    if said.get("raw"):
        console.print(f"  as it came: {said['raw']}", style="dim", markup=False)


def _judged(console: Console, judged: Mapping[str, Any]) -> None:
    console.print(f"\nJudged: {judged['outcome']}", style="bold", markup=False)
    for violation in judged["violations"]:
        console.print(
            f"  {violation['path'] or 'the proposal'}: {violation['words']} ({violation['code']})", markup=False
        )
    if "held_until" in judged:
        console.print(f"  held for a person's approval until epoch {judged['held_until']}", markup=False)
    if "granted" in judged:
        granted = ", ".join(f"{t['amount']} {t['resource']}" for t in judged["granted"])
        console.print(f"  granted, because together more was asked than there is: {granted}", markup=False)


def _moved(console: Console, moved: Mapping[str, Any]) -> None:
    console.print("\nMoved" if moved["entries"] else "\nMoved: nothing", style="bold")
    if not moved["entries"]:
        return
    table = _table("actor", "resource", "before", "after")
    for line in moved["balances"]:
        table.add_row(Text(line["actor"]), line["resource"], figure(line["before"], 6), figure(line["after"], 6))
    console.print(table)
    console.print("ledger entries " + ", ".join(str(entry["id"]) for entry in moved["entries"]), markup=False)
