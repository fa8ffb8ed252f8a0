"""`make demo`: 17 real homes share a week of sunshine under four proposers; it prints how they compare."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from gridgov import settings
from gridgov.errors import CassetteMiss, GridgovError
from gridgov.model import Outcome
from sim.bound import baselines
from sim.launch import launch
from sim.loading import load
from sim.report import Summary, figure, of, percent
from sim.world import World

ROOT = Path(__file__).parent.parent
SCENARIO = Path("scenarios") / "community-week.yaml"
CASSETTE = Path("scenarios") / "cassettes" / "community-week.jsonl"

PROPOSERS = (
    ("policy:none", "nobody shares"),
    ("policy:greedy", "largest surplus to largest need, hour by hour"),
    ("policy:optimal", "a linear programme that knows the whole week"),
    (f"cassette:{ROOT / CASSETTE}", "recorded replies (synthetic: no model said them)"),
)


def play() -> tuple[list[tuple[str, Summary]], list[tuple[str, GridgovError]]]:
    """The runs that worked; and those that an edit has made impossible, such as that of a stale cassette."""
    done: list[tuple[str, Summary]] = []
    left_out: list[tuple[str, GridgovError]] = []
    known = None
    shown = Console(stderr=True)
    columns = (TextColumn("{task.description:40}"), BarColumn(), MofNCompleteColumn(), TextColumn("epochs"))
    with Progress(*columns, console=shown, disable=not shown.is_terminal) as progress:
        for spec, what in PROPOSERS:
            scenario = load(ROOT / SCENARIO, proposer=spec)
            world = World(scenario)
            task = progress.add_task(spec.partition("/")[0].removesuffix(":"), total=scenario.epochs)

            def step(epoch: int, task: object = task) -> None:
                progress.update(task, completed=epoch)  # type: ignore[arg-type]

            known = baselines(world) if known is None else known
            try:
                out = settings.load().runs
                launched = launch(scenario, out=out, progress=step, now=datetime.now(UTC), world=world, known=known)
            except GridgovError as error:
                left_out.append((spec.partition("/")[0].removesuffix(":"), error))
                continue
            done.append((what, launched.summary))
    return done, left_out


def comparison(done: list[tuple[str, Summary]], resource: str) -> Table:
    """The runs side by side."""
    table = Table(box=None, pad_edge=False)
    table.add_column("who proposes", style="bold")
    for name in ("need served", "kWh from\nthe grid", "cost, USD", "proposals\napplied", "refused", "regret", "run"):
        table.add_column(name, justify="right")
    for _, summary in done:
        metrics = summary.metrics
        regret = of(metrics, "regret", resource)
        table.add_row(
            _name(summary),
            percent(of(metrics, "self_sufficiency", resource)),
            figure(of(metrics, "unmet", resource), 1),
            figure(of(metrics, "import_cost", resource), 2),
            figure(summary.outcomes.get(Outcome.EXECUTED.value, 0)),
            figure(sum(summary.outcomes.get(o.value, 0) for o in (Outcome.REJECTED, Outcome.MALFORMED))),
            "-" if regret is None else f"{regret:.2f}",
            summary.run_id,
        )
    return table


def _name(summary: Summary) -> str:
    first = summary.proposers[0]
    return str(first["policy"] or first["kind"])


def next_steps(console: Console, done: list[tuple[str, Summary]]) -> None:
    """Where to look further."""
    greedy = next((summary for _, summary in done if _name(summary) == "greedy"), done[-1][1])
    hour = min(40, greedy.epochs)
    console.print("\nWhere to look next:", style="bold")
    for command, why in (
        (".venv/bin/gridgov dashboard", f"all of it in a browser: http://127.0.0.1:8501/run?run={greedy.run_id}"),
        (f".venv/bin/gridgov replay {greedy.run_id} --epoch {hour}", f"what everyone had at the close of hour {hour}"),
        (f".venv/bin/gridgov explain {greedy.run_id} {greedy.example}", "one proposal: seen, said, judged, moved"),
        (f".venv/bin/gridgov verify {greedy.run_id}", "is every record, balance and verdict as it must be?"),
        (f".venv/bin/gridgov diff {done[0][1].run_id} {greedy.run_id}", "where sharing first made a difference"),
        (f".venv/bin/gridgov run {SCENARIO} --set constraints.epoch_quota.energy=0.3", "thinner feeders"),
    ):
        console.print(f"  {command}", markup=False)
        console.print(f"      {why}", style="dim", markup=False)
    console.print(
        f"\nOr change a number in {SCENARIO}, and make demo again. "
        f"The runs are DuckDB files in {Path(greedy.export).parent}/.",
        markup=False,
    )


def main() -> int:
    """Runs the demo; 0 where all runs worked, or where a cassette missed and said why."""
    started = time.perf_counter()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    try:
        done, left_out = play()
    except GridgovError as error:
        print(f"gridgov: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("gridgov: stopped; nothing half-done was published", file=sys.stderr)
        return 130
    if not done:
        print(f"gridgov: {left_out[0][1]}", file=sys.stderr)
        return left_out[0][1].exit_code
    first = done[0][1]
    console.print()
    console.print(Text(first.scenario, style="bold"), first.description, sep=": ", markup=False)
    console.print(
        f"\n{first.epochs} hours, {figure(of(first.metrics, 'demanded', 'energy'))} kWh needed. Each proposal was "
        "judged by the same validator and kept in the same ledger.\n",
        markup=False,
    )
    console.print(comparison(done, "energy"))
    console.print()
    for what, summary in done:
        console.print(f"  {_name(summary):9} {what}", style="dim", markup=False)
    bound = first.baselines["energy"]
    console.print("\nregret: 0 is the best that was possible, 1 is no better than not sharing at all.", style="dim")
    if bound.note:
        console.print(f"the best that was possible is unknown: {bound.note}", markup=False)
    for who, why in left_out:
        console.print(f"\n{who} was left out:", style="bold", markup=False)
        console.print(f"  {why}", markup=False)
        if isinstance(why, CassetteMiss):
            console.print(why.diff, style="dim", markup=False)
    next_steps(console, done)
    console.print(f"\nThat took {time.perf_counter() - started:.0f} s.", style="dim")
    return 0


if __name__ == "__main__":
    sys.exit(main())
