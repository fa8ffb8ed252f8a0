"""`gridgov up`: all of production on one machine, each part put together here and ended with the others.

Part of the composition root, as `cli`: here the clock, the environment and the parts are put together.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from gridgov import loop, settings
from gridgov.errors import BadInput, GridgovError
from gridgov.operations import (
    begin,
    check_free,
    clock,
    database,
    genesis,
    host_option,
    port_option,
    until_told,
)

ROOT = Path(__file__).resolve().parent.parent
SCENARIO = Path("scenarios/seed.yaml")
"""The grid that `up` makes where nobody says which."""

FIRST_KEY = "operator"
"""The name of the key that `up` makes."""

OF_PART = "/up-"
"""What stands in the names of keys that parts of `up` have for as long as they run."""

PARTS = ("dashboard", "n8n")
"""The parts that have keys."""

END_S = 10.0
"""So long a part has to end by itself."""


@click.command()
@click.option("--scenario", type=click.Path(path_type=Path), help=f"What a new grid begins with (default: {SCENARIO}).")
@host_option
@port_option
@click.option(
    "--dashboard-port", type=click.IntRange(0, 65535), default=8501, show_default=True, help="0: any free one."
)
@click.option("--no-dashboard", is_flag=True, help="Leave the dashboard out.")
@click.option(
    "--n8n", "with_loop", is_flag=True, help="The whole loop: n8n, and stubs of Gemini and Linear where no key is set."
)
@click.option("--linear-team", metavar="ID", help="Where issues go, with --n8n and LINEAR_API_KEY.")
def up(
    scenario: Path | None, host: str, port: int, dashboard_port: int, no_dashboard: bool, with_loop: bool,
    linear_team: str | None,
) -> None:  # fmt: skip
    """Bring all of it up on this machine: a Postgres of our own, a grid, a first key, the app and the dashboard.

    Ctrl-C ends all of it.
    """
    from gridgov import api, gemini
    from gridgov.postgres import migrate as migrated
    from gridgov.serving import address

    own, at = settings.load(), clock()
    prices = gemini.prices(own.prices)
    check_free(host, port)
    if with_loop:
        loop.check(own, linear_team)
        scenario_of_new = scenario or _ours(loop.SCENARIO)
    else:
        scenario_of_new = scenario or _ours(SCENARIO)
    with until_told(), ExitStack() as parts:
        if with_loop:
            place = parts.enter_context(loop.taken(own.home / "n8n"))
        pages = None if no_dashboard else parts.enter_context(_listening(host, dashboard_port))
        url = parts.enter_context(database(create=True))
        migrated(url, own.grid)
        empty = _empty(url, own.grid)
        if scenario is not None or empty:
            begin(url, own.grid, genesis(scenario_of_new, at), at)
        click.echo(f"grid      {own.grid}" + (f", begun from {scenario_of_new}" if empty else ", as it was"))
        click.echo(f"database  {without_password(url)}")
        click.echo(f"key       {_first_key(url, own.grid)}")
        shown = None if pages is None else address(host, pages.getsockname()[1])
        public = own.public_url or shown or address(host, port)

        def ready(app: str) -> None:
            end_left_keys(url, own.grid)
            if pages is not None:  # never GRIDGOV_API_KEY: it may operate, and whoever opens the pages would, too
                key = parts.enter_context(key_for("dashboard", ["read"], url, own.grid))
                parts.enter_context(_pages(pages, app, key))
                click.echo(f"dashboard {shown}  (looks with a key that may read; sign in to operate)")
            click.echo(f"app       {app}  (Ctrl-C ends all of it)")
            if with_loop:
                click.echo(f"log       {place / 'app.log'}")
                parts.enter_context(loop.logged_to(place / "app.log"))
                key = parts.enter_context(key_for("n8n", ["read", "propose"], url, own.grid))
                meters = loop.meters_of(scenario_of_new, scenario is None)
                parts.enter_context(loop.Loop(loop.Parts(place, own, meters, linear_team, port == 0), app, key))

        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # that it starts and ends is said here
        api.serve(url, own.grid, host, port, public, ready=ready, prices=prices)
    click.echo("stopped")


# --- the dashboard ----------------------------------------------------------------------------------------------------


@click.command()
@click.option("--runs", type=click.Path(path_type=Path, file_okay=False), help="The run store (default: GRIDGOV_RUNS).")
@click.option("--api", "api_url", metavar="URL", help="The app to look at (default: GRIDGOV_API_URL).")
@host_option
@click.option("--port", type=click.IntRange(0, 65535), default=8501, show_default=True, help="0: any free one.")
def dashboard(runs: Path | None, api_url: str | None, host: str, port: int) -> None:
    """Show production and runs in a browser, until Ctrl-C.

    Production is read and changed through the app alone, with GRIDGOV_API_KEY or a key that is typed in. Whoever
    reaches the dashboard may do what GRIDGOV_API_KEY may: give it one that may read, where others reach it too.
    """
    for name, value in (("GRIDGOV_RUNS", runs), ("GRIDGOV_API_URL", api_url)):
        if value is not None:
            os.environ[name] = str(value)
    with until_told(), _listening(host, port) as pages:
        from dashboard.server import serve
        from gridgov.serving import address

        shown = address(host, pages.getsockname()[1])
        serve(pages, ready=lambda: click.echo(f"dashboard {shown}  (Ctrl-C ends it)"))


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket for the dashboard: who opens it before the pages are ready, waits. Raises BadInput where it is taken."""
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        said = os.strerror(error.errno) if error.errno else error
        raise BadInput(f"{host}:{port}: {said}; choose another port for the dashboard, or leave it out") from None
    with listening:
        yield listening


@contextmanager
def _pages(listening: socket.socket, api_url: str, key: str) -> Iterator[None]:
    """The dashboard as a child that serves on this socket; it ends with the block, and with this process."""
    descriptor = listening.fileno()
    child = subprocess.Popen(
        [sys.executable, "-m", "dashboard", str(descriptor), str(os.getpid())],
        env={**os.environ, "GRIDGOV_API_URL": api_url, "GRIDGOV_API_KEY": key},
        pass_fds=(descriptor,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        end(child)


def end(child: subprocess.Popen[Any]) -> None:
    """Asks a child to end, and ends it where it does not."""
    child.terminate()
    try:
        child.wait(END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


@contextmanager
def key_for(part: str, scopes: list[str], url: str, grid: str) -> Iterator[str]:
    """A key for a part of ours, for as long as it runs; only that part ever knows it."""
    from gridgov.auth import Keys

    store, name = Keys(url, grid), f"{part}{OF_PART}{secrets.token_hex(4)}"
    try:
        made = store.create(name, scopes, clock())
        try:
            yield made
        finally:
            with suppress(GridgovError):  # the database may be gone by now; nobody else knows this key
                store.revoke(name, clock())
    finally:
        store.close()


def end_left_keys(url: str, grid: str) -> None:
    """Revokes what keys of parts are left on a grid: those of an `up` that was killed before it could do so."""
    from gridgov.auth import Keys

    store = Keys(url, grid)
    try:
        for view in store.listing():
            if view.revoked_at is None and view.name.startswith(tuple(f"{part}{OF_PART}" for part in PARTS)):
                store.revoke(view.id, clock())
    finally:
        store.close()


# --- what there is already --------------------------------------------------------------------------------------------


def without_password(url: str) -> str:
    """An address as it may be shown."""
    return re.sub(r"(://[^:/@]*):[^@]*@|(password=)\S+", lambda m: f"{m[1]}:***@" if m[1] else f"{m[2]}***", url)


def _ours(scenario: Path) -> Path:
    """A scenario of the project, found from any folder."""
    return scenario if scenario.is_file() else ROOT / scenario


def _empty(url: str, grid: str) -> bool:
    from gridgov.postgres import Reader

    reader = Reader(url, grid, 1)
    try:
        return reader.record(1) is None
    finally:
        reader.close()


def _first_key(url: str, grid: str) -> str:
    """A key for whoever brings a grid up first; after that, those that there are."""
    from gridgov.auth import Keys

    store = Keys(url, grid)
    try:
        known = [view.name for view in store.listing() if OF_PART not in view.name]
        if known:
            return f"those that there are: {', '.join(known)} (`gridgov keys create` makes another)"
        return (
            f"{store.create(FIRST_KEY, ['operate'], clock())}  (named {FIRST_KEY}, may do everything; not shown again)"
        )
    finally:
        store.close()


COMMANDS: tuple[click.Command, ...] = (up, dashboard)
