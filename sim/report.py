"""What a run came to, in words and tables for a person; figures come from the metrics, nothing is computed anew."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gridgov.amounts import plain
from gridgov.model import Outcome, Resource
from gridgov.reply import printable
from sim.bound import Baseline

if TYPE_CHECKING:
    from gridgov.diff import Change, Diff
    from gridgov.verify import Report
    from sim.backtest import Report as Backtest

Metrics = Mapping[str, Any]

OUTCOMES = {
    Outcome.EXECUTED: "applied to the ledger",
    Outcome.HELD: "waiting for a person's approval",
    Outcome.REJECTED: "broke a rule; nothing moved",
    Outcome.MALFORMED: "the reply was no proposal; nothing moved",
    Outcome.NOOP: "proposed nothing, on purpose",
    Outcome.UNAVAILABLE: "no answer; not counted as a decision",
}


ENDS = {"approve": "approved", "reject": "rejected", "expire": "expired"}

MEANINGS = {
    "paused": "the grid was paused",
    "stale_world_state": "made for a state that had passed",
    "too_many_transfers": "more transfers than one proposal may have",
    "unknown_actor": "there is no such actor",
    "frozen_actor": "the actor is frozen",
    "boundary_actor": "the boundary is not for proposers",
    "not_permitted": "not the proposer's to move",
    "unknown_resource": "there is no such resource",
    "same_actor": "from an actor to itself",
    "non_positive_amount": "an amount of 0 or below",
    "precision": "more decimals than the resource has",
    "out_of_range": "beyond 15 digits",
    "max_transfer": "more than one transfer may move",
    "insufficient_balance": "more than the sender had",
    "min_balance": "would leave the sender below its minimum",
    "epoch_quota": "more than one actor may send in an epoch",
    "hold_rejected": "a person rejected it",
    "hold_expired": "nobody approved it in time",
}
"""What each violation means, in a few words."""


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
    faults: Mapping[str, Mapping[str, int]]
    settled: Mapping[str, int]
    example: str | None
    unused: int
    unplayed: int
    calls: Mapping[str, Any] | None
    head: str
    export: str
    seconds: float
    fork: Mapping[str, Any] | None = None
    other_models: Mapping[str, int] = {}

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
            **({} if self.calls is None else {"calls": dict(self.calls)}),
            **({"other_models": dict(self.other_models)} if self.other_models else {}),
            **({} if self.fork is None else {"fork": dict(self.fork)}),
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
            reasons = summary.violations if outcome is Outcome.REJECTED else summary.faults.get(outcome.value, {})
            for code, n in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
                table.add_row(*(Text(text, style="dim") for text in (f"  {code}", f"{n:,}", MEANINGS.get(code, ""))))
    if summary.settled:
        waited = sum(summary.settled.values()) + summary.outcomes.get(Outcome.HELD.value, 0)
        ends = ", ".join(f"{n:,} {ENDS[decision]}" for decision, n in summary.settled.items())
        table.add_row("", "", Text(f"of these, {waited:,} had waited for approval: {ends}", style="dim"))
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
        table.add_row("cost of what the grid gave", "", figure(cost), "")
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
    said = _origins(summary.interactions)
    if said:
        console.print(said, markup=False)
    _of_other_models(console, summary.other_models)
    if summary.calls is not None:
        console.print(_calls(summary.calls, bool(summary.interactions.get("synthetic"))), markup=False)
    if summary.fork is not None:
        same, new = (summary.fork[key] for key in ("same_requests", "new_requests"))
        about = f"; of its questions to a model {same:,} are those of {summary.fork['parent']}, {new:,} are new"
        where = f"a fork of {summary.fork['parent']} after epoch {summary.fork['epoch']}"
        console.print(where + (about if same or new else ""), markup=False)
    if summary.unused:
        console.print(f"{summary.unused:,} recorded replies were never asked for", markup=False)
    if summary.unplayed:
        lines = "line is" if summary.unplayed == 1 else "lines are"
        text = f"{summary.unplayed:,} {lines} of epochs after {summary.epochs:,}, the last that was played"
        console.print(f"of the fixture, {text}", markup=False)
    for text, held in summary.expectations:
        console.print(f"{'met   ' if held else 'FAILED'}  {text}", style="" if held else "bold red", markup=False)
    if summary.example is not None:
        console.print(f"look further: gridgov explain {summary.run_id} {summary.example}", markup=False)
    console.print(
        f"run {summary.run_id}, {summary.seconds:.1f} s, head {summary.head[:16]}..., in {summary.export}", markup=False
    )


def _origins(counted: Mapping[str, int]) -> str:
    """Who said the replies of a run; empty where it has none."""
    total, synthetic, edited = sum(counted.values()), counted.get("synthetic", 0), counted.get("edited", 0)
    if synthetic:
        return f"{synthetic:,} of {total:,} replies are synthetic: no model said them"
    by_hand = f", {edited:,} of them changed by a person since" if edited else ""
    return f"{total:,} recorded replies of a model{by_hand}" if total else ""


def _of_other_models(console: Console, counted: Mapping[str, int]) -> None:
    for pair, count in counted.items():
        asked, _, answered = pair.partition(" -> ")
        console.print(
            f"NOT THE MODEL THAT WAS ASKED: {count:,} replies are of {answered}, for {asked}", style="bold red"
        )


TOKENS = {
    "prompt": "in the prompts",
    "cached": "of these cached",
    "answer": "in the answers",
    "thoughts": "of thoughts",
}
"""Kinds of tokens, and how a person is told of them; the total is that of the others."""


def _tokens(tokens: Mapping[str, int]) -> str:
    """Tokens by kind; empty where none were counted."""
    return ", ".join(f"{tokens[kind]:,} {said}" for kind, said in TOKENS.items() if tokens.get(kind))


def _cost(found: Mapping[str, Any], synthetic: bool) -> str:
    """What replies cost, by which table of prices; what is synthetic would only have cost it."""
    if found["cost"] is None:
        return "cost: not known, no price is for this model; GRIDGOV_PRICES names a table of your own"
    what = "cost, had a model said them" if synthetic else "cost"
    return f"{what}: {dollars(found['cost'])}, by the prices {found['price_table']}"


def dollars(cost: str) -> str:
    """An amount of money to 4 decimals, or exactly where that would be nothing."""
    rounded = f"{Decimal(cost):.4f}"
    return f"{rounded if Decimal(rounded) or not Decimal(cost) else cost} USD"


def _calls(calls: Mapping[str, Any], synthetic: bool) -> str:
    """What the model's answers came to, in a few lines."""
    waited, attempts = calls["latency_ms"], calls["attempts"] - calls["made"] - calls["known"]
    again = f", {attempts:,} attempts more than that" if attempts else ""
    lines = [f"{calls['made']:,} calls now, {calls['known']:,} replies known from the recording{again}"]
    tokens = _tokens(calls["tokens"])
    lines += [f"tokens: {tokens}"] if tokens else []
    lines.append(_cost(calls, synthetic))
    if waited:
        lines.append(f"latency: {waited['median']:,} ms in the median, {waited['max']:,} ms at most")
    return "\n".join([*lines, f"recorded in {calls['recording']}"])


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
    needed = [name for name in world["resources"] if any(name in actor.get("needs", {}) for actor in world["actors"])]
    table = _table("actor", "type", *shown, *(f"needs {name}" for name in needed))
    for actor in world["actors"]:
        balances = [figure(actor["balances"].get(name), 6) for name in shown]
        needs = [figure(actor.get("needs", {}).get(name, 0), 6) for name in needed]
        name = actor["id"] + (" (frozen)" if actor.get("frozen") else "")
        table.add_row(Text(name), Text(actor["type"]), *balances, *needs)
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
        console.print(f"  cost: {dollars(overview['cost'])}", markup=False)
    _of_other_models(console, overview["other_models"])
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
        console.print(f"--- answered ({one.origin}), by {one.model_answered or one.model_asked}", style="bold")
        console.print(answered, markup=False)
    if changed:
        console.print("--- changed since the question before", style="bold")
        console.print(changed, markup=False)


def show_checks(console: Console, report: Report) -> None:
    """Prints what was checked and how much of it."""
    from gridgov.verify import CHECKS

    table = Table(box=None, pad_edge=False, show_header=False)
    for check in report.checks:
        result = "skipped" if check.skipped else "FAILED" if check.failure else "ok"
        style = {"FAILED": "bold red", "skipped": "dim"}.get(result, "")
        count = "" if check.skipped else f"{check.count:,}"
        table.add_row(check.name, Text(result, style=style), count, Text(CHECKS[check.name], style="dim"))
    console.print(table)
    console.print(f"head {report.seq}:{report.digest}", markup=False)
    if any(check.name == "head" and check.skipped for check in report.checks):
        console.print(
            "note it elsewhere: only --expect-head with it finds a tail that was cut off or rewritten", style="dim"
        )


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
        giver, taker, resource = (printable(transfer[key], 80) for key in ("from", "to", "resource"))
        console.print(f"  {giver} -> {taker}: {transfer['amount']} {resource}", markup=False)
    if said.get("reasoning"):
        console.print(f"  because: {said['reasoning']}", markup=False)
    if said.get("raw"):
        console.print(f"  as it came: {said['raw']}", style="dim", markup=False)


def _judged(console: Console, judged: Mapping[str, Any]) -> None:
    console.print(f"\nJudged: {judged['outcome']}", style="bold", markup=False)
    for violation in judged["violations"]:
        console.print(f"  {printable(violation['words'])} ({violation['code']})", markup=False)
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


def show_runs(console: Console, runs: Sequence[Mapping[str, Any]]) -> None:
    """Prints the runs of a store."""
    if not runs:
        console.print("no runs yet: gridgov run scenarios/seed.yaml makes one")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("run", "scenario", "seed", "proposers", "head"):
        table.add_column(column)
    for run in runs:
        if "error" in run:
            table.add_row(run["run_id"], Text(run["error"], style="red"))
            continue
        if "runs" in run:
            failures = f", {run['failed']:,} failed" if run["failed"] else ""
            table.add_row(run["run_id"], Text(run["scenario"]), "", f"{run['runs']:,} runs{failures}")
            continue
        said = run["proposers"]
        who = [_who(one) for one in (json.loads(said) if isinstance(said, str) else said)]
        cells = (run["scenario"], str(run["seed"]), ", ".join(_few(who)), run["head_digest"][:12])
        table.add_row(run["run_id"], *(Text(cell) for cell in cells))
    console.print(table)


# --- a backtest -------------------------------------------------------------------------------------------------------

_FLIPS_SHOWN = 6


def show_backtest(console: Console, report: Backtest) -> None:
    """Prints one page: who was asked what, what came of it on both sides, and whether to ship."""
    console.print()
    console.print(Text("backtest", style="bold"), Text(report.run_id or report.source, style="dim"), sep="  ")
    asked, samples = len(report.rows), f"{report.samples} time{'s' if report.samples > 1 else ''}"
    console.print(f"old: {'; '.join(report.old_names) or 'nobody'}", markup=False)
    console.print(f"new: {'; '.join(report.candidate) or 'nobody'}", markup=False)
    console.print(
        f"{asked:,} questions of this history, each asked {samples} and judged on the same state; not applied"
    )
    console.print()
    if asked:
        console.print(_sides(report))
        _flips(console, report)
    if report.cases:
        console.print("\nMust-pass cases", style="bold")
    for case in report.cases:
        came = ", ".join(f"{name} {n}" for name, n in _counted(case.came).items())
        console.print(
            f"{'passed' if case.passed else 'FAILED'}  {case.name}: {case.held} of {len(case.came)} came to "
            f"{' or '.join(case.expect)}, {case.needed} had to ({came})",
            style="" if case.passed else "bold red",
            markup=False,
        )
    if report.checked:
        console.print("\nRules", style="bold")
    for one in report.checked:
        found = "undefined, which fails" if one.found is None else f"{one.found:.6g}"
        how, style = ("FAILED", "bold red") if one.holds else ("passed", "")
        console.print(f"{how}  fail if {one.text}: {found}", style=style, markup=False)
    _backtest_notes(console, report)
    verdict, reason = report.verdict
    style = {"ship": "bold green", "don't ship": "bold red"}.get(verdict, "bold")
    console.print()
    console.print(Text.assemble((verdict, style), f": {reason}"))


def _sides(report: Backtest) -> Table:
    """Old beside new; counts of the new side are of all samples."""
    table = _table("", "old", "new")
    old, new = report.old, report.new
    for outcome in OUTCOMES:
        counts = [of.outcomes.get(outcome.value, 0) for of in (old, new)]
        if any(counts):
            table.add_row(outcome.value, *(f"{n:,}" for n in counts))
            for code in sorted({code for of in (old, new) for code in of.codes.get(outcome.value, {})}):
                cells = [f"{of.codes.get(outcome.value, {}).get(code, 0):,}" for of in (old, new)]
                table.add_row(*(Text(text, style="dim") for text in (f"  {code}", *cells)))
    table.add_row("accepted of what was proposed", *(percent(of.acceptance) for of in (old, new)))
    intervals = [of.interval for of in (old, new)]
    shown = ["-" if of is None else f"{100 * of.low:.1f} to {100 * of.high:.1f} %" for of in intervals]
    table.add_row(*(Text(text, style="dim") for text in ("  95 % (Wilson)", *shown)))
    table.add_row("regret in one step (0: the best)", *(figure(of.regret, 4) for of in (old, new)))
    nothing = figure(report.regret_of_nothing, 4)
    table.add_row(*(Text(text, style="dim") for text in ("  of proposing nothing", nothing, nothing)))
    if any(cost is not None for cost in report.costs):
        table.add_row("cost of an answer, USD", *(figure(cost, 6) for cost in report.costs))
    return table


def _flips(console: Console, report: Backtest) -> None:
    """What flipped, beside how much flips by itself, and what so many questions could have shown."""
    worse, better = report.flips["worse"], report.flips["better"]
    own = []
    for name, noise in (("old", report.old.noise), ("new", report.new.noise)):
        once = "each was asked once; --samples asks more often" if report.samples == 1 else "none was judged twice"
        if name == "old":
            once = "history asked once; --baseline FILE knows, where FILE is the old side's answers anew"
        why = f"not known ({once})"
        found = why if noise is None else f"{noise.flips:.1f} of {noise.questions:,} questions"
        own.append(f"{name} {found}")
    console.print(
        f"\nflips: {worse:,} accepted before and refused now, {better:,} the reverse; two answers of one side differ: "
        f"{'; '.join(own)}",
        markup=False,
    )
    if report.silent:
        console.print(f"silent at {report.silent:,} questions at which the old answer was applied", markup=False)
    for name, pairs in (("acceptance", report.acceptance), ("regret", report.regret)):
        if pairs.smallest is not None:
            console.print(
                f"{name}: {pairs.pairs:,} pairs; a difference below {pairs.smallest:.3g} would not have shown",
                markup=False,
            )
    flipped = [row for row in report.rows if row.flip is not None]
    for row in sorted(flipped, key=lambda row: row.flip != "worse")[:_FLIPS_SHOWN]:
        was, now = ("/".join([one.outcome, *one.codes[:1]]) for one in (row.old, row.first) if one is not None)
        where = f"epoch {row.round.epoch}, {row.round.proposer}, round {row.round.n}"
        console.print(f"  {row.flip}: {where}: {was} -> {now}  {row.round.proposal_id[:8]}", style="dim", markup=False)
    if len(flipped) > _FLIPS_SHOWN:
        console.print(f"  ... and {len(flipped) - _FLIPS_SHOWN:,} more; --json has them all", style="dim")


def _backtest_notes(console: Console, report: Backtest) -> None:
    console.print()
    spent, made = report.spent, report.origins
    total = sum(made.values())
    known = total - (spent["made"] or 0)
    calls = "" if spent["made"] is None else f": {spent['made']:,} asked for now, {known:,} known from the recording"
    tokens = _tokens(spent["tokens"])
    console.print(f"{total:,} replies{calls}", markup=False)
    console.print(f"{f'tokens: {tokens}; ' if tokens else ''}{_cost(spent, bool(made['synthetic']))}", markup=False)
    if spent["recording"] is not None:
        console.print(f"recorded in {spent['recording']}", markup=False)
    _of_other_models(console, spent["other_models"])
    for name, origins in (("new", made), ("old", report.old_origins)):
        if origins.get("synthetic"):
            console.print(
                f"{origins['synthetic']:,} of {sum(origins.values()):,} replies of the {name} side are synthetic: no "
                f"model said them",
                markup=False,
            )
    moved, rejudged = (sum(getattr(row, key) for row in report.rows) for key in ("moved", "rejudged"))
    if moved:
        console.print(f"{moved:,} old answers were made before others had moved; here all see what they were judged on")
    if rejudged:
        console.print(f"{rejudged:,} old answers had been scaled to what there was; here they are judged as asked")


def _counted(values: Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
