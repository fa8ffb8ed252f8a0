"""The commands over a grid in Postgres: made, served, looked after; and the database that each of them opens.

Part of the composition root, as `cli`: here the clock, the environment and the parts are put together.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gridgov import settings
from gridgov.errors import BadInput, CheckFailed

if TYPE_CHECKING:
    from gridgov.journal import Activation, Genesis
    from gridgov.ledger import Ledger


def clock() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1_000


# --- the database -----------------------------------------------------------------------------------------------------


@contextmanager
def database(*, create: bool = False) -> Iterator[str]:
    """The URL of the database: the one that is set, one of our own that runs already, or that one, started for now.

    With `create`, one of our own is made where there is none; else that raises BadInput, saying what to do.
    """
    own = settings.load()
    if own.database_url is not None:
        yield own.database_url
        return
    from gridgov.embedded import Embedded, running

    folder = own.home / "postgres"
    url = running(folder)
    if url is not None:
        yield url
        return
    if not create and not (folder / "data").is_dir():
        raise BadInput(
            "no Postgres is known: set GRIDGOV_DATABASE_URL, or run `gridgov up`, which starts one of our own"
        )
    with Embedded(folder) as embedded:
        yield embedded.url


@contextmanager
def scratch() -> Iterator[Ledger]:
    """An empty ledger in a schema of its own, which is dropped at the end; never in the grid's."""
    from gridgov.embedded import temporary
    from gridgov.postgres import PostgresLedger, drop, migrate

    url, grid = settings.load().database_url, f"run_{secrets.token_hex(6)}"

    @contextmanager
    def over(address: str) -> Iterator[Ledger]:
        migrate(address, grid)
        try:
            ledger = PostgresLedger(address, grid)
            try:
                yield ledger
            finally:
                ledger.close()
        finally:
            drop(address, grid)

    if url is not None:
        with over(url) as ledger:
            yield ledger
    else:
        with temporary() as embedded, over(embedded.url) as ledger:
            yield ledger


def genesis(scenario: Path, at: int) -> Genesis:
    """The first record of a production grid: a scenario's actors, resources, constraints and opening balances.

    Its flows, prices and proposers belong to simulations; in production, meters and keys take their place.
    """
    from sim.loading import load
    from sim.runner import genesis_of
    from sim.world import World

    loaded = load(scenario)
    return genesis_of(loaded, World(loaded))._replace(start=at, scenario={})


def begin(url: str, grid: str, first: Genesis, at: int) -> bool:
    """Writes the first record where there is none yet; whether it did. Raises BadInput where there is another one."""
    from gridgov.engine import Engine
    from gridgov.postgres import PostgresLedger

    ledger = PostgresLedger(url, grid)
    try:
        known = next(ledger.records(), None)
        if known is None:
            Engine(ledger).append(first, at)
            ledger.commit()
        elif known.payload._replace(start=0) != first._replace(start=0):  # type: ignore[call-arg]
            raise BadInput(
                f"grid {grid} was made from something else; leave out --scenario, or choose another GRIDGOV_GRID"
            )
    finally:
        ledger.close()
    return known is None


# --- commands ---------------------------------------------------------------------------------------------------------

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")


def _document(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))


@click.command()
@click.option(
    "--scenario", type=click.Path(path_type=Path), help="Begin the grid with its actors, resources and rules."
)
@json_option
def migrate(scenario: Path | None, as_json: bool) -> None:
    """Make or update the tables of GRIDGOV_GRID; the second time changes nothing."""
    from gridgov.postgres import migrate as migrated

    grid, at = settings.load().grid, clock()
    first = None if scenario is None else genesis(scenario, at)
    with database(create=True) as url:
        taken = migrated(url, grid)
        begun = first is not None and begin(url, grid, first, at)
    if as_json:
        _document({"grid": grid, "applied": taken, "begun": begun})
        return
    done = f"applied {', '.join(taken)}" if taken else "nothing to apply"
    click.echo(f"grid {grid}: {done}{', begun' if begun else ''}")


@click.group()
def keys() -> None:
    """Who may call the app, and what for."""


@keys.command("create")
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, required=True, help="read, propose or operate; each includes those before."
)
@click.option("--mandate", metavar="ACTOR,...", help="Only the balances of these actors may be moved with it.")
@json_option
def keys_create(name: str, scopes: tuple[str, ...], mandate: str | None, as_json: bool) -> None:
    """Make a key called NAME and print it: nobody can ask for it again."""
    made = create_key(name, [part for scope in scopes for part in scope.split(",")], mandate)
    if as_json:
        _document({"name": name, "key": made})
    else:
        click.echo(made)
        click.echo("keep it now: it is not shown again", err=True)


def create_key(name: str, scopes: list[str], mandate: str | None = None) -> str:
    """Makes a key; with a mandate, that is journaled too."""
    from gridgov.auth import Keys
    from gridgov.postgres import Writer

    grid, actors = settings.load().grid, None if mandate is None else [part for part in mandate.split(",") if part]
    with database() as url:
        store = Keys(url, grid)
        try:
            if actors is None:
                return store.create(name, scopes, clock())
            with Writer(url, grid) as writer:
                return store.create(name, scopes, clock(), mandate=actors, writer=writer, operator="gridgov keys")
        finally:
            store.close()


@keys.command("list")
@json_option
def keys_list(as_json: bool) -> None:
    """List the keys that are and were; never their secrets."""
    from gridgov.auth import Keys

    with database() as url:
        store = Keys(url, settings.load().grid)
        try:
            found = store.listing()
        finally:
            store.close()
    if as_json:
        _document([view._asdict() for view in found])
        return
    for view in found:
        mandate = "everyone" if view.mandate is None else ", ".join(view.mandate)
        ended = f", revoked {view.revoked_at}" if view.revoked_at else ""
        click.echo(f"{view.name}: {', '.join(view.scopes)}; may move {mandate}; made {view.created_at}{ended}")
    if not found:
        click.echo("there is no key yet; `gridgov keys create NAME --scope propose` makes one")


@keys.command("revoke")
@click.argument("name")
def keys_revoke(name: str) -> None:
    """End the key called NAME, from within seconds on."""
    from gridgov.auth import Keys

    with database() as url:
        store = Keys(url, settings.load().grid)
        try:
            view = store.revoke(name, clock())
        finally:
            store.close()
    click.echo(f"{view.name}: revoked {view.revoked_at}")


@click.command()
@json_option
def rebuild(as_json: bool) -> None:
    """Make actors, resources and balances anew from the journal, which is checked first."""
    from gridgov.postgres import rebuild as rebuilt

    grid = settings.load().grid
    with database() as url:
        seq = rebuilt(url, grid)
    if as_json:
        _document({"grid": grid, "seq": seq})
    else:
        click.echo(f"grid {grid}: actors, resources and balances are those of record {seq}")


@contextmanager
def until_told() -> Iterator[None]:
    """Ctrl-C and SIGTERM are how what serves is ended: both end the block, and everything around it is put away."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        yield


def check_free(host: str, port: int) -> None:
    """Raises BadInput where somebody listens there already, or nobody could."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        said = str(error.strerror or error).partition(" (while ")[0]
        raise BadInput(f"{host}:{port}: {said}; choose another with --port or --host") from None


host_option = click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
port_option = click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any free one."
)


@click.command()
@host_option
@port_option
def serve(host: str, port: int) -> None:
    """Serve the app over HTTP, until Ctrl-C; what was acknowledged is finished first."""
    from gridgov import api, gemini
    from gridgov.serving import address

    own = settings.load()
    prices = gemini.prices(own.prices)
    public = own.public_url or address(host, port)
    check_free(host, port)
    with until_told(), database() as url:
        api.serve(
            url, own.grid, host, port, public, prices=prices,
            ready=lambda at: click.echo(f"serving {own.grid} at {at}"),
        )  # fmt: skip


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Look at the database, the loop, the keys, the clock and the disk, and say what to do."""
    from gridgov.doctor import examine

    own = settings.load()
    findings = examine(database, own, clock)
    if as_json:
        _document([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            click.echo(f"{'ok  ' if finding.well else 'BAD '} {finding.part:9} {finding.text}")
    bad = [finding.part for finding in findings if not finding.well]
    if bad:
        raise CheckFailed(f"not well: {', '.join(bad)}")


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(arguments: tuple[str, ...]) -> None:
    """Ask the grid's database in SQL, through psql: its tables and views are found by their names alone."""
    from gridgov.embedded import programs
    from gridgov.postgres import session_variables

    own = settings.load()
    found = shutil.which("psql") or str(programs() / "psql")
    with database() as url:
        # By the environment, since everybody may see the arguments of a process.
        environment = {**os.environ, **session_variables(url), "PGOPTIONS": f"-c search_path={own.grid}"}
        ended = subprocess.run([found, "-X", *arguments], env=environment, check=False)
    if ended.returncode:
        raise CheckFailed(f"psql ended with {ended.returncode}")


reason_option = click.option("--reason", required=True, help="Why; it is journaled.")
role_option = click.option(
    "--role",
    type=click.Choice(["active", "shadow"]),
    default="active",
    show_default=True,
    help="shadow is only judged.",
)


def warned(models: Iterable[str | None]) -> None:
    """Says on stderr in whose place another model answers by now, before anybody relies on it or pays for it."""
    from gridgov.cassette import retired
    from gridgov.wire import timestamp

    today = timestamp(clock())[:10]
    for said in dict.fromkeys(retired(model, today) for model in models if model is not None):
        if said is not None:
            click.echo(f"gridgov: {said}", err=True)


@click.command("activate")
@click.argument("name")
@click.option("--model", required=True, help="The model to ask.")
@role_option
@reason_option
def prompt_activate(name: str, model: str, role: str, reason: str) -> None:
    """Put the prompt NAME and a model in force in production, from the next round on."""
    from gridgov.journal import Activation
    from gridgov.prompt import check_model, load

    check_model(model)
    warned([model])
    template = load(name)
    _activate(Activation(template.name, model, template.digest, role, "gridgov prompt", reason))


@click.command("back")
@role_option
@reason_option
def prompt_back(role: str, reason: str) -> None:
    """Put the prompt and model in force again that were so before the present ones.

    Before the first that was activated, the default was active, and no shadow was.
    """
    from gridgov.journal import Activation, decode
    from gridgov.postgres import Reader
    from gridgov.prompt import load

    with database() as url:
        reader = Reader(url, settings.load().grid, 1)
        try:
            rows = reader.rows("activations")
        finally:
            reader.close()
        acts = [decode(row["body"], row["digest"]).payload for row in rows]
        past = [act for act in acts if isinstance(act, Activation) and act.role == role]
        others = [act for act in past if _of_activation(act) != _of_activation(past[-1])]
        if not past:
            raise BadInput(f"nothing was put in force in the role {role} yet; `gridgov prompt activate` does it")
        before = others[-1] if others else Activation("", "", "", role)
        if before.model and load(before.prompt).digest != before.digest:
            raise BadInput(
                f"prompts/{before.prompt}.j2 is not what it was then (digest {before.digest[:16]}); put that back first"
            )
        _activate(Activation(before.prompt, before.model, before.digest, role, "gridgov prompt", reason))


def _of_activation(activation: Activation) -> tuple[str, str, str]:
    return activation.prompt, activation.model, activation.digest


def _activate(activation: Activation) -> None:
    from gridgov.postgres import Writer

    grid, at = settings.load().grid, clock()
    with database() as url, Writer(url, grid) as writer:
        record = writer.submit(lambda engine: engine.activate(activation, at))
    shown = f"{activation.prompt} ({activation.digest[:16]}) with {activation.model}"
    if not activation.model:
        shown = "what is so by default" if activation.role == "active" else "nothing"
    click.echo(f"grid {grid}: {shown} is {activation.role} from record {record.seq} on")


PROMPT_COMMANDS: tuple[click.Command, ...] = (prompt_activate, prompt_back)

COMMANDS: tuple[click.Command, ...] = (migrate, keys, rebuild, serve, doctor, psql)
