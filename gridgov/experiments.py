"""The commands for what could have been and what could be: history under other terms, many runs, runs compared.

Part of the composition root, as `cli`: here the clock, the environment and the parts are put together.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gridgov import operations, settings
from gridgov.errors import BadInput, CheckFailed, ProposerFailed

if TYPE_CHECKING:
    from rich.console import Console

    from gridgov.cassette import Exchange
    from gridgov.progress import Telling
    from gridgov.prompt import Request
    from gridgov.source import Source
    from gridgov.whatif import WhatIf
    from sim.launch import Past
    from sim.live import Live
    from sim.scenario import Scenario
    from sim.sweep import Plan

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")


def _document(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))


def console() -> Console:
    """Where tables are printed: as wide as the terminal; without one, as wide as a page of most editors."""
    from rich.console import Console

    on_terminal = sys.stdout.isatty()
    return Console(highlight=False, soft_wrap=not on_terminal, width=None if on_terminal else 120)


def source_of(text: str) -> Source:
    """A SOURCE as a command names it, open until the command ends. Raises BadInput, Damaged."""
    from gridgov.source import LedgerSource, open_source

    own, context = settings.load(), click.get_current_context()
    if text != "postgres":
        found = context.with_resource(open_source(text, own.runs))
        if isinstance(found, LedgerSource) and found.note:
            click.echo(f"gridgov: {found.note}", err=True)
        return found
    url = context.with_resource(operations.database())
    return context.with_resource(open_source(text, own.runs, database=(url, own.grid)))


def parquet(text: str, out: Path) -> int:
    """Writes the tables of a SOURCE, as a command names it, as Parquet; returns how many there are."""
    from gridgov.grid_export import export_grid
    from gridgov.source import open_source, write_parquet

    if text != "postgres":
        return write_parquet(source_of(text), out)
    if out.exists():
        raise BadInput(f"{out}: is there already; choose another folder")
    with tempfile.TemporaryDirectory() as folder, operations.database() as url:
        made = export_grid(url, settings.load().grid, Path(folder) / "postgres.duckdb")
        with open_source(str(made), Path(folder)) as source:
            return write_parquet(source, out)


# --- forks ------------------------------------------------------------------------------------------------------------


def loaded(
    scenario: Path | None,
    fork: str | None,
    overrides: tuple[str, ...],
    *,
    epochs: int | None,
    seed: int | None,
    proposer: str | None,
) -> tuple[Scenario, Past | None]:
    """What `gridgov run` plays: a scenario, or a fork with what it goes on from."""
    from sim.loading import load

    if fork is None:
        if scenario is None:
            raise BadInput("there is nothing to run; name a scenario, or a run with --fork RUN@EPOCH")
        return load(scenario, overrides, epochs=epochs, seed=seed, proposer=proposer), None
    if scenario is not None:
        raise BadInput(f"--fork {fork}: goes on with the scenario that is in the run; leave out {scenario}")
    if seed is not None:
        raise BadInput("--seed: a fork keeps the seed of its parent; leave it out, or run the scenario anew")
    from sim.fork import forked, place

    run, epoch = place(fork)
    folder = click.get_current_context().with_resource(tempfile.TemporaryDirectory())
    return forked(source_of(run), epoch, Path(folder), overrides, epochs=epochs, proposer=proposer)


def known(past: Past | None, record: Path) -> None:
    """Puts the replies that a fork's parent got into a new recording, so that nothing is asked twice."""
    from sim.fork import recording_of

    part = record.with_name(record.name + ".part")
    if past is not None and past.interactions and not record.exists() and not part.exists():
        record.write_text(recording_of(past), encoding="utf-8")


def answered(past: Past | None) -> Live | None:
    """Without a key, a fork is answered by its parent's replies alone; None where a model can be asked."""
    from sim.live import Live

    if past is None or settings.load().gemini_api_key:
        return None

    def ask(request: Request) -> Exchange:
        raise ProposerFailed(f"{request.model} was not asked this before the fork, and there is no key; "
                             f"set GEMINI_API_KEY")  # fmt: skip

    return Live(ask)


# --- how far it has come ----------------------------------------------------------------------------------------------


def run_progress(scenario: Scenario, past: Past | None, started: datetime | None, store: Path) -> Telling:
    """Where a run says how far it has come: `<run_id>.progress.json`; of a fork, named after its parent."""
    from gridgov.progress import Telling
    from sim.launch import foreseen

    name = foreseen(scenario, started) if past is None else f"{past.run_id}.fork-{os.getpid()}"
    who = ", ".join(speaker.name for speaker in scenario.speakers)
    said = {"kind": "run", "scenario": scenario.name, "seed": scenario.seed, "proposers": who, "what": "epochs"}
    return Telling(store, name, scenario.epochs, said, time.time)


def sweep_progress(scenario: Path, plan: Plan, store: Path, runs: int) -> Telling:
    """Where a sweep says how far it has come; its id is known only when it has ended."""
    from gridgov.progress import Telling

    seeds = "as written" if not plan.seeds else f"{len(plan.seeds):,} seeds"
    who = ", ".join(plan.proposers) or "as written"
    said = {"kind": "sweep", "scenario": scenario.stem, "seed": seeds, "proposers": who, "what": "runs"}
    return Telling(store, f"sweep-{os.getpid()}", runs, said, time.time)


# --- what if ----------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("source")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="A constraint, as constraints.max_transfer=45.")
@click.option("--from-epoch", type=click.IntRange(1), default=1, help="From this epoch on (default: from the genesis).")
@click.option("--drop", multiple=True, metavar="PROPOSAL_ID", help="Leave out this proposal.")
@click.option("--freeze", multiple=True, metavar="ACTOR", help="Freeze this actor: no proposal may move what it has.")
@click.option("--scale", multiple=True, metavar="FLOW=F", help="Multiply what this flow requests.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Keep the counterfactual: a .duckdb run, a .jsonl journal."
)
@json_option
def whatif(
    source: str,
    sets: tuple[str, ...],
    from_epoch: int,
    drop: tuple[str, ...],
    freeze: tuple[str, ...],
    scale: tuple[str, ...],
    out: Path | None,
    as_json: bool,
) -> None:
    """Judge SOURCE's history again under other terms: what would have been refused or accepted, and why.

    What was proposed and requested is held fixed, and so is what people decided. A change is direct where the terms
    themselves judge a proposal otherwise, else a knock-on of an earlier one.
    """
    from gridgov.rejudge import rejudge
    from sim.launch import collector_off
    from sim.whatif_page import show, terms

    if out is not None and out.suffix not in (".duckdb", ".jsonl"):
        raise BadInput(f"--out {out}: expected a file that ends in .duckdb or .jsonl")
    wanted = terms(sets, from_epoch, drop, freeze, scale)
    opened = source_of(source)
    with collector_off():
        found, kept = _measured(opened, rejudge(opened, wanted), out)
    if as_json:
        _document({**found.document(), "out": kept})
    else:
        show(console(), found, kept)


def _measured(source: Source, found: WhatIf, out: Path | None) -> tuple[WhatIf, str | None]:
    """With all metrics, where history is a run: those of its export beside those of the counterfactual's; and kept."""
    from gridgov.export import Store, Writer, write_journal
    from gridgov.whatif import compared, run_of

    if out is not None and out.suffix == ".jsonl":
        write_journal(out, found.engine.ledger.records())
    kept = out if out is not None and out.suffix == ".duckdb" else None
    if kept is not None or (source.connection is not None and found.records):
        with (
            tempfile.TemporaryDirectory() as folder,
            Store(kept.parent if kept is not None else Path(folder)) as store,
            Writer(store) as writer,
        ):
            path = writer.finish(run_of(source, found), kept)
            if source.connection is not None:
                found = found.with_metrics(compared(source.metrics(), store.metrics(path)))
    return found, None if out is None else str(out)


# --- many runs --------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("scenario", type=click.Path(path_type=Path))
@click.option("--set", "sets", multiple=True, metavar="KEY=A,B,C", help="Vary a key over values; lists are multiplied.")
@click.option("--seeds", metavar="FIRST:END", help="As 0:20, which is 0 to 19; or a list, as 1,2,5.")
@click.option("--proposer", "proposers", multiple=True, metavar="SPEC", help="Who proposes, as of `run`; several vary.")
@click.option("--epochs", type=click.IntRange(1), help="Run this many epochs instead of the scenario's.")
@click.option("--zip", "zipped", is_flag=True, help="Pair the lists of --set, first with first, instead.")
@click.option("--jobs", type=click.IntRange(1), help="So many workers (default: one for each processor).")
@click.option(
    "--ray", is_flag=False, flag_value="", metavar="[ADDRESS]", help="Let Ray play, here or where its head is."
)
@click.option("--out", type=click.Path(path_type=Path), help="The folder for the file (default: GRIDGOV_RUNS).")
@click.option("--shard", metavar="WHICH/OF", help="Only this part of the runs, as 3/20; `gridgov merge` joins them.")
@click.option("--replicates", type=click.IntRange(1), default=1, help="Make each run of a live model so often.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Ask a live model at most so often a minute.")
@click.option("--max-calls", type=click.IntRange(1), help="Stop before live models are asked more often than this.")
@click.option("--max-cost", metavar="AMOUNT", help="Stop once the live models' answers cost this much.")
@json_option
def sweep(  # noqa: PLR0913, PLR0917 - one for each option
    scenario: Path,
    sets: tuple[str, ...],
    seeds: str | None,
    proposers: tuple[str, ...],
    epochs: int | None,
    zipped: bool,
    jobs: int | None,
    ray: str | None,
    out: Path | None,
    shard: str | None,
    replicates: int,
    rate: float | None,
    max_calls: int | None,
    max_cost: str | None,
    as_json: bool,
) -> None:
    """Run SCENARIO under every combination of settings, seeds and proposers, into one file of many runs.

    A value with a comma is quoted ("a,b") or in brackets ([1,2] is one value, a list). What was done before, under the
    same --out, is not done again; Ctrl-C keeps what is done, and the same command goes on. A run that fails is a row in
    `runs` with its error, and ends with exit code 1. Live models are asked by one worker, within one budget.
    """
    from sim import sweep as made
    from sim.parts import Job
    from sim.report_experiments import show_sweep, sweep_document
    from sim.strict_yaml import read_text

    plan = made.Plan(
        [made.varied(text) for text in sets],
        None if seeds is None else made.seeds_of(seeds),
        list(dict.fromkeys(proposers)),
        zipped,
        replicates,
        (1, 1) if shard is None else made.shard_of(shard),
    )
    job = Job(read_text(scenario), str(scenario), epochs, "", "", operations.clock())
    live = None
    if made.checked(job, plan):
        if ray is not None or (jobs or 1) > 1:
            raise BadInput("a live model is asked by one worker, within one budget: leave out --ray and --jobs")
        live = live_model(max_calls, max_cost, rate)
    elif rate is not None or max_calls is not None or max_cost is not None:
        raise BadInput("--rate, --max-calls and --max-cost are of a live model, and none is asked")
    cells = plan.cells()
    if zipped:
        click.echo(f"gridgov: --zip pairs the lists: {len(plan.settings())} settings, not their product", err=True)
    beside = sweep_progress(scenario, plan, out or settings.load().runs, len(cells))
    with beside, _Counting(len(cells), beside) as progress:
        swept = made.sweep(job, cells, out or settings.load().runs, made.Workers(jobs, ray, live), progress)
    if as_json:
        _document({**sweep_document(swept, cells), "zip": zipped})
    else:
        show_sweep(console(), swept, cells)
    if swept.failed:
        raise CheckFailed(f"{len(swept.failed)} of {len(cells)} runs failed; runs.error of {swept.path} says why")


def live_model(max_calls: int | None, max_cost: str | None, rate: float | None = None) -> Live:
    """How models are asked: through the SDK, with the key, address and prices of the environment, at most so often."""
    from gridgov.gemini import Gemini, prices
    from sim.live import Live, paced

    try:
        most = None if max_cost is None else Decimal(max_cost)
    except ArithmeticError:
        most = Decimal("NaN")
    if most is not None and not (most.is_finite() and most > 0):
        raise BadInput(f"--max-cost {max_cost}: expected an amount above 0, such as 2.50")
    own = settings.load()
    model = Gemini(own.gemini_api_key, own.gemini_base_url, table=prices(own.prices))
    click.get_current_context().with_resource(model)
    ask = model.ask if rate is None else paced(model.ask, rate, time.monotonic, time.sleep)
    return Live(ask, max_calls=max_calls, max_cost=most)


class _Counting:
    """Runs that are done and failed, and an estimate of the rest: beside the store, and on a terminal's stderr."""

    def __init__(self, total: int, beside: Telling) -> None:
        self.total, self.done, self.beside = total, 0, beside
        self.bar: Any = None

    def __enter__(self) -> Callable[[int, int], None]:
        if not sys.stderr.isatty():
            return self._count
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self.bar.start()
        self.task = self.bar.add_task("runs", total=self.total)
        return self._count

    def _count(self, done: int, failed: int) -> None:
        self.done = done
        self.beside.tell(done, failed)
        if self.bar is not None:
            self.bar.update(self.task, completed=done, description=f"runs, {failed:,} failed" if failed else "runs")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()
        if kind is KeyboardInterrupt:
            click.echo(
                f"gridgov: {self.done:,} of {self.total:,} runs are done and kept; the same command goes on", err=True
            )


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The file for all of them, a .duckdb.")
@json_option
def merge(files: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Join the FILES of shards, sweeps or runs into one file of many runs.

    A run that is in several is taken once; if its digests differ, nothing is written.
    """
    from sim.collect import merge as merged
    from sim.parts import FAILED

    if out.suffix != ".duckdb":
        raise BadInput(f"--out {out}: expected a file that ends in .duckdb")
    ends = merged(files, out)
    failed = sum(status == FAILED for status in ends.values())
    if as_json:
        _document({"export": str(out), "files": len(files), "runs": len(ends), "failed": failed})
    else:
        failures = f", of which {failed:,} failed" if failed else ""
        click.echo(f"{out}: {len(ends):,} runs of {len(files)} files{failures}")


@click.command()
@click.argument("runs", nargs=-1, required=True)
@click.option(
    "--by", metavar="KEY", help="What is compared: proposers, a key of --set, or source: the RUNS themselves."
)
@click.option("--against", metavar="SIDE", help="The side that all are compared with (default: the first).")
@click.option("--metric", "metrics", multiple=True, metavar="M", help="Compare these metrics instead of the usual.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a page that needs nothing else.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown.")
@click.option("--fail-if", "fail_if", multiple=True, metavar="RULE", help="Fail if so, as acceptance_rate<0.9.")
@json_option
def compare(
    runs: tuple[str, ...],
    by: str | None,
    against: str | None,
    metrics: tuple[str, ...],
    html: Path | None,
    as_markdown: bool,
    fail_if: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compare RUNS (files of runs, all in each; PATH#RUN_ID; run ids) in pairs, with intervals.

    A pair is two runs of the same scenario, settings and seed that differ in what is compared: by default the
    proposers; if those are all the same, the key that varies, or the RUNS. A RULE is METRIC<NUMBER, also
    difference(METRIC)<NUMBER; decrease(METRIC) and increase(METRIC) hold where that is decisive. METRIC/RESOURCE where
    there are several.
    """
    from sim import compare as made
    from sim.compare_page import page
    from sim.report_experiments import markdown, show_comparison

    rules = [made.rule(text) for text in fail_if]
    wanted = [made.metric(name, f"--metric {name}") for name in metrics]
    found = made.compare(made.read(runs, settings.load().runs), by, wanted, rules, against)
    if html is not None:
        html.write_text(page(found), encoding="utf-8")
    if as_json:
        _document(found.document())
    elif as_markdown:
        click.echo(markdown(found))
    else:
        show_comparison(console(), found)
    if found.broken:
        raise CheckFailed("; ".join(found.broken))


# --- again ------------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("run")
@click.option("--bundle", type=click.Path(path_type=Path), help="Write a .zip with all that it takes, for a paper.")
@json_option
def reproduce(run: str, bundle: Path | None, as_json: bool) -> None:
    """Run RUN again from its export alone and compare the digests of all records.

    RUN is a .duckdb export, a run id in the store, PATH#RUN_ID of a file of many runs, or a .zip that --bundle wrote.
    A live model is not asked again: its replies are in the export. Where the digests differ it says what changed, and
    ends with exit code 1; no bundle is written then.
    """
    from sim import bundle as bundles
    from sim.report_experiments import show_reproduced
    from sim.reproduce import reproduce as made

    if bundle is not None and bundle.suffix != ".zip":
        raise BadInput(f"--bundle {bundle}: expected a file that ends in .zip")
    folder = Path(click.get_current_context().with_resource(tempfile.TemporaryDirectory()))
    (folder / "again").mkdir()
    packed = Path(run).suffix == ".zip" and Path(run).is_file()
    source = source_of(str(bundles.unpacked(Path(run), folder)) if packed else run)
    found = made(source, folder / "again")
    if packed:
        found = replace(found, source=run)
    if found.same and bundle is not None:
        bundles.bundle(source, found, bundle)
    if as_json:
        _document({**found.document(), "bundle": None if bundle is None or not found.same else str(bundle)})
    else:
        show_reproduced(console(), found)
        if found.same and bundle is not None:
            click.echo(f"{bundle}: all that it takes to make it again")
    if not found.same:
        raise CheckFailed(f"{run}: another head digest than recorded: {found.why()}")


COMMANDS: tuple[click.Command, ...] = (whatif, sweep, merge, compare, reproduce)
"""Top-level commands of the command line."""
