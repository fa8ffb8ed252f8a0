"""The command line, and the composition root: here the clock, the environment and the parts are put together.

Commands read, call and print; what they print is made elsewhere. Nothing heavy is imported before it is needed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gridgov import __version__, deploy, experiments, operations, settings, up
from gridgov.errors import BadInput, CassetteMiss, CheckFailed, GridgovError, ProposerFailed

if TYPE_CHECKING:
    from gridgov.model import WorldState
    from gridgov.postgres import Reader
    from gridgov.progress import Telling
    from sim.live import Live

CRASHED = 70
"""The exit code of a bug: nobody's input should ever lead there."""

STOPPED = 130
"""The exit code after Ctrl-C."""


def main() -> None:
    """Runs one command; every failure is one line on stderr and an exit code."""
    try:
        _check_arguments(sys.argv[1:])
        gridgov.main(standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "gridgov"
        _say(f"{error.format_message()} See {path} --help.")
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _say("stopped; nothing half-done was published")
        sys.exit(STOPPED)
    except GridgovError as error:
        _say(str(error))
        if isinstance(error, CassetteMiss) and error.diff:
            click.echo(error.diff, err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            sys.stderr.close()
            sys.exit(1)
        _say(f"{error.filename or 'writing'}: {error.strerror or error}; make room, or choose another place")
        sys.exit(BadInput.exit_code)
    except Exception as error:  # noqa: BLE001 - a user gets a line, never a traceback
        _say(f"this is a bug in gridgov, please report it: {type(error).__name__}: {error}")
        sys.exit(CRASHED)


def _check_arguments(given: list[str]) -> None:
    """Raises BadInput where an argument is no text: DuckDB takes no other names of files, and JSON holds no other."""
    for argument in given:
        if not argument.isascii() and argument.encode(errors="replace").decode() != argument:
            raise BadInput(f"the argument {argument!r} is no UTF-8; rename the file, or write the text in UTF-8")


def _say(text: str) -> None:
    click.echo("gridgov: " + " ".join(text.split()), err=True)


def _document(value: Any) -> None:
    """Prints one JSON document on stdout."""
    click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))


def _reader() -> Reader:
    """The grid that is in production, to be asked for sums."""
    from gridgov.postgres import Reader

    context = click.get_current_context()
    reader = Reader(context.with_resource(operations.database()), settings.load().grid, 1)
    context.call_on_close(reader.close)
    return reader


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise BadInput(f"{path}: cannot be read ({reason})") from None


def _scenario_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every command that loads a scenario takes."""
    command = click.option("--epochs", type=click.IntRange(1), help="Run this many epochs instead of the scenario's.")(
        command
    )
    command = click.option("--seed", type=click.IntRange(0), help="Draw from this seed instead of the scenario's.")(
        command
    )
    return click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key, as constraints.max_transfer=45."
    )(command)


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="gridgov")
def gridgov() -> None:
    """Let an AI govern shared resources without ever being trusted.

    A SOURCE is a .duckdb export, a run id in the store (GRIDGOV_RUNS, default runs/), a .jsonl journal, a .csv ledger,
    or `postgres`: the grid that is in production (GRIDGOV_DATABASE_URL, GRIDGOV_GRID).
    """


for command in (*operations.COMMANDS, *up.COMMANDS, *deploy.COMMANDS, *experiments.COMMANDS):
    gridgov.add_command(command)


@gridgov.command()
@click.argument("scenario", type=click.Path(path_type=Path), required=False)
@click.option("--fork", metavar="RUN@EPOCH", help="Instead of SCENARIO: go on from a run, after the close of an epoch.")
@_scenario_options
@click.option(
    "--proposer", metavar="SPEC", help="Who proposes: policy:NAME, fixture:PATH, cassette:PATH, gemini:MODEL."
)
@click.option(
    "--record",
    type=click.Path(path_type=Path),
    help="Write the answers as a cassette (synthetic for a policy); of a live model, go on with one that is there.",
)
@click.option("--max-calls", type=click.IntRange(1), help="Stop before a live model is asked more often than this.")
@click.option("--max-cost", metavar="AMOUNT", help="Stop once what it answers now has cost this much, in USD.")
@click.option("--bound", is_flag=True, help="Find the best that was possible, however long that takes.")
@click.option("--ledger", type=click.Choice(["memory", "postgres"]), default="memory", help="Where the ledger lives.")
@click.option("--out", type=click.Path(path_type=Path), help="The folder for the export (default: GRIDGOV_RUNS).")
@json_option
def run(  # noqa: PLR0913, PLR0917 - one for each option
    scenario: Path | None,
    fork: str | None,
    overrides: tuple[str, ...],
    seed: int | None,
    epochs: int | None,
    proposer: str | None,
    record: Path | None,
    max_calls: int | None,
    max_cost: str | None,
    bound: bool,
    ledger: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Run SCENARIO, or a fork of a run, export the run and say what it came to."""
    from sim.launch import launch
    from sim.report import show

    loaded, past = experiments.loaded(scenario, fork, overrides, epochs=epochs, seed=seed, proposer=proposer)
    store = out or settings.load().runs
    live = None
    if any(speaker.kind == "gemini" for speaker in loaded.speakers):
        live = experiments.answered(past) or experiments.live_model(max_calls, max_cost)
        operations.warned(speaker.model for speaker in loaded.speakers if speaker.kind == "gemini")
        record = record or store / f"{loaded.name}.{_now():%Y%m%dT%H%M%S.%fZ}.jsonl"
        record.parent.mkdir(parents=True, exist_ok=True)
        experiments.known(past, record)
    kept = operations.scratch() if ledger == "postgres" else nullcontext()
    now = _now()
    told = experiments.run_progress(loaded, past, now if live is not None else None, store)
    with kept as place, Progress(loaded.name, loaded.epochs, beside=told) as progress, _told_how_to_go_on(live, record):
        given = {"out": store, "record": record, "bound": bound, "now": now, "live": live, "past": past}
        summary = launch(loaded, **given, ledger=place, progress=progress).summary
    if as_json:
        _document(summary.document())
    else:
        show(experiments.console(), summary)
    failed = [text for text, held in summary.expectations if not held]
    if failed:
        raise CheckFailed(f"{len(failed)} of {len(summary.expectations)} expectations failed: {'; '.join(failed)}")


@contextmanager
def _told_how_to_go_on(live: Live | None, record: Path | None) -> Iterator[None]:
    """Says where the replies are that a run was paid for, where it ends before its time."""

    def again(live: Live) -> str:
        made = "1 call was made" if live.calls == 1 else f"{live.calls} calls were made"
        cost = f", priced at {live.cost:.4f} USD" if live.cost else ""
        return f"{made}{cost}; nothing is paid twice: run again with --record {record}"

    try:
        yield
    except ProposerFailed as error:
        if live is None:
            raise
        raise ProposerFailed(f"{error}. {again(live)}") from None
    except KeyboardInterrupt:
        if live is not None:
            click.echo(f"gridgov: {again(live)}", err=True)
        raise


@gridgov.command()
@click.argument("source")
@click.option("--prompt", metavar="NAME", help="The changed prompt: its name, or a .j2 file.")
@click.option("--model", help="The changed model.")
@click.option("--cassette", "tape", type=click.Path(path_type=Path), help="Recorded answers to these questions.")
@click.option("--samples", type=click.IntRange(1), help="Ask each question so often (5; of a cassette: as it has).")
@click.option("--cases", type=click.Path(path_type=Path), help="Must-pass cases: a YAML list, or JSON lines.")
@click.option("--fail-if", "fail_if", multiple=True, metavar="RULE", help="Fail if so, as acceptance<0.9 or flips>3.")
@click.option("--record", type=click.Path(path_type=Path), help="Record the answers here, or go on with what is there.")
@click.option("--max-calls", type=click.IntRange(1), help="Stop before the model is asked more often than this.")
@click.option("--max-cost", metavar="AMOUNT", help="Stop once what it answers now has cost this much, in USD.")
@click.option(
    "--baseline", type=click.Path(path_type=Path), help="The old side asked again: a cassette, for its noise."
)
@click.option("--proposer", metavar="NAME", help="Only the questions of this proposer, or group of proposers.")
@click.option("--last", type=click.IntRange(1), help="Only the last so many questions.")
@json_option
def backtest(  # noqa: PLR0913, PLR0917 - one for each option
    source: str,
    prompt: str | None,
    model: str | None,
    tape: Path | None,
    samples: int | None,
    cases: Path | None,
    fail_if: tuple[str, ...],
    record: Path | None,
    max_calls: int | None,
    max_cost: str | None,
    baseline: Path | None,
    proposer: str | None,
    last: int | None,
    as_json: bool,
) -> None:
    """Ask a changed prompt or model what SOURCE's history asked, and say whether to ship it.

    Answers are judged on the state that the old ones were judged on, and never applied. Without --cassette a live
    model is asked; what is not named (prompt or model) stays as it was.
    """
    from sim import backtest as made
    from sim.cases import read as cases_of
    from sim.report import show_backtest

    rules, history = [made.rule(text) for text in fail_if], experiments.source_of(source)
    live = None
    if tape is None:
        if prompt is None and model is None:
            raise BadInput("there is nothing to ask: give --prompt, --model or --cassette")
        live = experiments.live_model(max_calls, max_cost)
        operations.warned([model])
        of = history.path.stem.replace(":", "-")
        record = record or settings.load().runs / f"backtest.{of}.{_now():%Y%m%dT%H%M%SZ}.jsonl"
    elif record is not None or max_calls is not None or max_cost is not None:
        raise BadInput("--cassette asks nobody: --record, --max-calls and --max-cost are of a live model")
    again = None if baseline is None else made.taped(baseline, None)
    count = made.rounds(history, proposer) if sys.stderr.isatty() else 0
    with (
        _told_how_to_go_on(live, record),
        made.opened(tape, live, record, samples, prompt, model) as new,
        Progress("backtest", min(count, last or count), "questions") as progress,
    ):
        tried = [] if cases is None else cases_of(cases, history, experiments.source_of, new.samples)
        which = made.Wanted(proposer, last, tried, rules)
        report = made.backtest(history, new, which, baseline=again, progress=progress)
    if as_json:
        _document(report.document())
    else:
        show_backtest(experiments.console(), report)
    if report.failed:
        raise CheckFailed("; ".join(report.failed))


@gridgov.command()
@json_option
def runs(as_json: bool) -> None:
    """List the runs in the store, the newest first."""
    from gridgov.source import stored
    from sim.report import show_runs

    found = stored(settings.load().runs)
    if as_json:
        _document(found)
    else:
        show_runs(experiments.console(), found)


@gridgov.command()
@click.argument("scenario", type=click.Path(path_type=Path))
@_scenario_options
@json_option
def check(scenario: Path, overrides: tuple[str, ...], seed: int | None, epochs: int | None, as_json: bool) -> None:
    """Say whether SCENARIO is valid, without running it."""
    from sim.launch import seats
    from sim.loading import load
    from sim.world import World

    loaded = load(scenario, overrides, epochs=epochs, seed=seed)
    found = seats(loaded, World(loaded))
    report = {
        "valid": True,
        "scenario": loaded.name,
        "epochs": loaded.epochs,
        "actors": len(loaded.actors),
        "resources": [resource.name for resource in loaded.resources],
        "flows": [flow.name for flow in loaded.flows],
        "proposers": [seat.name for seat in found],
    }
    if as_json:
        _document(report)
    else:
        click.echo(
            f"{scenario} is valid: {loaded.epochs:,} epochs, {len(loaded.actors)} actors, "
            f"resources {', '.join(resource.name for resource in loaded.resources)}, {len(found)} proposers"
        )


@gridgov.command()
@click.option("--state", type=click.Path(path_type=Path), required=True, help="A WorldState in JSON.")
@click.option("--proposal", type=click.Path(path_type=Path), required=True, help="A proposal in JSON.")
@json_option
def judge(state: Path, proposal: Path, as_json: bool) -> None:
    """Say what the validator would say of a proposal on a WorldState, as JSON.

    Amounts are at scale 6 unless the state has scales: {resource: n}, as that of `replay --json` has.
    """
    from gridgov.judge import judge as judged

    world, asked = _read(state), _read(proposal)
    try:
        _document(judged(world, asked))
    except BadInput as error:
        raise BadInput(f"{state}: {_place(error)}{error}") from None


def _place(error: BadInput) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.path).lstrip(".") + (
        ": " if error.path else ""
    )


@gridgov.command()
@click.argument("source")
@click.option("--epoch", type=click.IntRange(0), help="At the close of this epoch.")
@click.option("--entry", type=click.IntRange(1), help="After the record that made this ledger entry.")
@click.option("--every", is_flag=True, help="At the close of every epoch, one line each.")
@json_option
def replay(source: str, epoch: int | None, entry: int | None, every: bool, as_json: bool) -> None:
    """Fold SOURCE's journal and show the WorldState at a point; by default at the end."""
    from gridgov.wire import world_state_json

    if sum((epoch is not None, entry is not None, every)) > 1:
        raise BadInput("--epoch, --entry and --every exclude each other; give one of them")
    opened = experiments.source_of(source)
    if every:
        for world in opened.world_states():
            _document(_with_scales(world_state_json(world), world))
        return
    world = opened.world_state(epoch, entry)
    found = _with_scales(world_state_json(world), world)
    if as_json:
        _document(found)
    else:
        from sim.report import show_world

        show_world(experiments.console(), found)


def _with_scales(found: dict[str, Any], world: WorldState) -> dict[str, Any]:
    """The WorldState with its resources' decimal places, so that `judge` can be given it as it is."""
    return {**found, "scales": {resource.name: resource.scale for resource in world.resources}}


@gridgov.command()
@click.argument("source")
@click.argument("proposal_id")
@json_option
def explain(source: str, proposal_id: str, as_json: bool) -> None:
    """Tell a proposal's story: what was seen, said, judged and moved. The first characters of its id are enough."""
    from gridgov.explain import explain as explained
    from sim.report import show_story

    story = explained(experiments.source_of(source), proposal_id)
    if as_json:
        _document(story)
    else:
        show_story(experiments.console(), story)


@gridgov.command()
@click.option("--actor", required=True, help="Whose statement.")
@click.option("--month", metavar="YYYY-MM", help="Such as 2026-11, in UTC; default: all that there is.")
@click.option("--from", "since", metavar="TIME", help="Instead of a month: a day, or a time in UTC.")
@click.option("--until", metavar="TIME", help="As --from; what happened then is left out.")
@click.option("--source", default="postgres", show_default=True, help="The history.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV and nothing else.")
@json_option
def statement(
    actor: str, month: str | None, since: str | None, until: str | None, source: str, as_csv: bool, as_json: bool
) -> None:
    """An actor's statement of account: opening, what came and from whom, what left and to whom, closing."""
    from gridgov import statement as stated
    from gridgov.statement_rows import csv_of
    from sim.report_statement import show_statement

    if as_csv and as_json:
        raise click.UsageError("--csv and --json are two forms; choose one.")
    when = stated.period(month, since, until) or stated.ALWAYS
    if source == "postgres":
        found = stated.of_grid(_reader(), actor, when)
    else:
        found = stated.of_source(experiments.source_of(source), actor, when)
    if as_csv:
        click.echo(csv_of(found.document()), nl=False)
    elif as_json:
        _document(found.document())
    else:
        show_statement(experiments.console(), found.document())


@gridgov.command()
@click.argument("source")
@click.option("--expect-head", metavar="SEQ:DIGEST", help="A head noted elsewhere that the chain must contain.")
@json_option
def verify(source: str, expect_head: str | None, as_json: bool) -> None:
    """Check SOURCE's chain, conservation, balances and idempotency; name the first bad record."""
    from gridgov.verify import verify as verified
    from sim.report import show_checks

    opened = experiments.source_of(source)
    report = verified(opened, expect_head)
    if as_json:
        _document(report.document())
    else:
        show_checks(experiments.console(), report)
    if report.first is not None:
        where = "" if report.first.startswith(f"{opened.path}: ") else f"{source}: "
        raise CheckFailed(f"{where}{report.first}")


@gridgov.command()
@click.argument("a")
@click.argument("b")
@json_option
def diff(a: str, b: str, as_json: bool) -> None:
    """Show the first record at which two runs part, and what differs after."""
    from gridgov.diff import diff as compared
    from sim.report import show_diff

    found = compared(experiments.source_of(a), experiments.source_of(b))
    if as_json:
        _document(found.document())
    else:
        show_diff(experiments.console(), found)


@gridgov.command()
@click.argument("source")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="A .jsonl, .beancount or .duckdb file, or a .parquet folder.",
)
def export(source: str, out: Path) -> None:
    """Write SOURCE's journal as JSON lines, one record each, or `postgres` as a .duckdb file: a SOURCE again.

    A .beancount file is for `bean-check`, which confirms conservation and the balances at every epoch's close. A folder
    that ends in .parquet has each table of a run, or of `postgres`, as a Parquet file.
    """
    from gridgov.export import write_journal, write_texts

    if out.suffix == ".duckdb" and source == "postgres":
        from gridgov.grid_export import export_grid

        with operations.database() as url:
            click.echo(f"{export_grid(url, settings.load().grid, out)}: as a run, for every command")
        return
    if out.suffix == ".parquet":
        click.echo(f"{out}: {experiments.parquet(source, out)} tables")
        return
    if out.suffix == ".beancount":
        from gridgov.interchange import beancount

        write_texts(out, beancount(experiments.source_of(source).records()))
        click.echo(f"{out}: check it with bean-check")
        return
    if out.suffix != ".jsonl":
        also = ", or .duckdb" if source == "postgres" else ""
        raise BadInput(f"{out}: expected a file that ends in .jsonl or .beancount, a folder in .parquet{also}")
    count = write_journal(out, experiments.source_of(source).records())
    click.echo(f"{out}: {count:,} records")


@gridgov.command()
def schema() -> None:
    """Print the JSON Schema of the scenario form, for editors."""
    from sim.form import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@gridgov.group()
def cassette() -> None:
    """Look at recorded replies."""


@cassette.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--scenario", type=click.Path(path_type=Path), help="Play it in this scenario, to find unused replies.")
@json_option
def cassette_check(file: Path, scenario: Path | None, as_json: bool) -> None:
    """Find what is wrong with the cassette FILE: tampered, stale, unused, of a retired model."""
    from gridgov.cassette import check as checked
    from sim.launch import used_of

    used = None if scenario is None else used_of(scenario, file)
    findings = checked(file, today=_now().date().isoformat(), used=used)
    if as_json:
        _document([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            lines = ", ".join(map(str, finding.lines[:5])) + (", ..." if len(finding.lines) > 5 else "")
            click.echo(
                f"{'problem' if finding.problem else 'note'}: {finding.text}" + (f" (lines {lines})" if lines else "")
            )
        if not any(finding.problem for finding in findings):
            click.echo(f"{file}: no problem found")
    problems = sum(finding.problem for finding in findings)
    if problems:
        raise CheckFailed(f"{file}: {problems} problem{'s' if problems > 1 else ''}")


@cassette.command("export")
@click.argument("source", type=click.Choice(["postgres"]))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The cassette to write.")
@click.option("--since", metavar="TIME", help="From this moment on, as 2026-11-22T00:00:00Z.")
@click.option("--until", metavar="TIME", help="Until before this moment.")
def cassette_export(source: str, out: Path, since: str | None, until: str | None) -> None:
    """Write what models were asked and replied in production as a cassette: production traffic is a fixture."""
    from gridgov.tapes import export_cassette
    from gridgov.wire import microseconds

    first, end = (None if text is None else microseconds(text) for text in (since, until))
    left: list[str] = []

    def told(proposal_id: str, why: str) -> None:
        left.append(f"{proposal_id}: {why}")

    with operations.database() as url:
        grid = settings.load().grid
        count = export_cassette(url, grid, out, first, end, told)
    for text in left:
        click.echo(f"left out {text}", err=True)
    if not count:
        raise CheckFailed(f"{source}: no exchange with a model in that time{'' if not left else ' can be replayed'}")
    click.echo(f"{out}: {count:,} interactions")


@cassette.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--epoch", type=click.IntRange(1), help="Show what was asked and answered in this epoch, and what changed."
)
@json_option
def cassette_show(file: Path, epoch: int | None, as_json: bool) -> None:
    """Show what the cassette FILE holds: figures, one line for each reply, or one epoch in full."""
    from gridgov import cassette as tapes
    from sim.report import show_cassette, show_exchange

    opened = tapes.read(file)
    if epoch is not None:
        found = [one for one in opened.interactions if one.round.epoch == epoch]
        if not found:
            raise BadInput(f"{file}: epoch {epoch} was not recorded")
        texts = [(one, *tapes.exchange_text(opened, one)) for one in found]
        if as_json:
            _document([{**one.round._asdict(), "asked": asked, "answered": said} for one, asked, said in texts])
        else:
            show_exchange(experiments.console(), texts, tapes.step(opened, epoch))
    elif as_json:
        _document({**tapes.overview(opened), "lines": tapes.listing(opened)})
    else:
        show_cassette(experiments.console(), tapes.overview(opened), tapes.listing(opened))


@gridgov.group()
def prompt() -> None:
    """Look at prompts, and put them in force."""


for command in operations.PROMPT_COMMANDS:
    prompt.add_command(command)


@prompt.command("list")
@click.argument("scenario", type=click.Path(path_type=Path), required=False)
@_scenario_options
@json_option
def prompt_list(
    scenario: Path | None, overrides: tuple[str, ...], seed: int | None, epochs: int | None, as_json: bool
) -> None:
    """List the prompts that there are, or those of SCENARIO, with who is asked with each."""
    from gridgov.prompt import load, names

    whose: dict[str, list[str]] | None = None
    if scenario is not None:
        from sim.loading import load as scenario_of

        whose = {}
        for speaker in scenario_of(scenario, overrides, epochs=epochs, seed=seed).speakers:
            whose.setdefault(speaker.prompt, []).append(speaker.name)
    elif overrides or seed is not None or epochs is not None:
        raise BadInput("--set, --seed and --epochs are of a SCENARIO; name it, or leave them out")
    found = [load(name) for name in (names() if whose is None else whose)]
    if as_json:
        keys = ("name", "version", "purpose", "digest", "variables")
        _document([{**_of(one, keys), **({"proposers": whose[one.name]} if whose else {})} for one in found])
        return
    for one in found:
        asked = f" [{', '.join(whose[one.name])}]" if whose else ""
        click.echo(f"{one.name}  version {one.version}, {one.digest[:16]}: {one.purpose}{asked}")


def _of(value: object, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


@prompt.command("show")
@click.argument("scenario", type=click.Path(path_type=Path))
@click.option("--epoch", type=click.IntRange(1), default=1, show_default=True, help="As asked in this epoch.")
@click.option("--prompt", "name", metavar="NAME", help="This prompt instead of the scenario's.")
@_scenario_options
@json_option
def prompt_show(
    scenario: Path,
    epoch: int,
    name: str | None,
    overrides: tuple[str, ...],
    seed: int | None,
    epochs: int | None,
    as_json: bool,
) -> None:
    """Print exactly what a model would be sent in an epoch of SCENARIO, for each proposer, and about how long it is."""
    from sim.loading import load
    from sim.peek import requests

    found = requests(load(scenario, overrides, epochs=epochs, seed=seed), epoch, name)
    if as_json:
        keys = ("prompt", "model", "path", "body", "request_key", "components", "tokens")
        _document([{"proposer": one.proposer, **_of(one.request, keys)} for one in found])
        return
    for one in found:
        request = one.request
        click.echo(f"=== {one.proposer}: {request.prompt} to {request.model}, about {request.tokens:,} tokens")
        click.echo(f"POST {request.path}\nrequest_key {request.request_key}\n")
        click.echo(f"--- system ---\n{request.system}\n\n--- user ---\n{request.user}\n")
        click.echo(f"--- form of the reply ---\n{json.dumps(request.schema, ensure_ascii=False)}\n")
    if not found:
        click.echo(f"nobody is asked in epoch {epoch}")


def _now() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


class Progress:
    """A progress bar on a terminal's stderr; nothing anywhere else, but in the file `beside` the store."""

    def __init__(self, name: str, epochs: int, what: str = "epochs", beside: Telling | None = None) -> None:
        self.name, self.epochs, self.what, self.beside = name, epochs, what, beside
        self.bar: Any = None

    def __enter__(self) -> Callable[[int], None] | None:
        if self.beside is not None:
            self.beside.__enter__()
        if not sys.stderr.isatty():
            return None if self.beside is None else self.beside.tell
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self.bar.start()
        self.task = self.bar.add_task(f"{self.name}, {self.what}", total=self.epochs)
        return self._count

    def _count(self, epoch: int) -> None:
        if epoch % 8 == 0 or epoch == self.epochs:
            self.bar.update(self.task, completed=epoch)
        if self.beside is not None:
            self.beside.tell(epoch)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()
        if self.beside is not None:
            self.beside.__exit__()
