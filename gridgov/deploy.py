"""`gridgov n8n`: the workflows brought into an n8n, compared with what is there, and run without pages on this machine.

Part of the composition root, as `operations`. Keys come from the environment, never from arguments, and go into n8n's
credentials only.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from gridgov import n8n, settings
from gridgov.errors import BadInput, CheckFailed
from gridgov.operations import check_free, json_option, until_told
from gridgov.settings import Settings

Json = dict[str, Any]

home_option = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
    help="The user folder of an n8n on this machine.",
)
minutes = click.IntRange(1, 1380)


@click.group("n8n")
def n8n_group() -> None:
    """The production loop in n8n: bring the workflows in, compare, run."""


# --- import -----------------------------------------------------------------------------------------------------------


@n8n_group.command("import")
@click.option("--app", "app_url", metavar="URL", help="Where n8n calls the app (default: GRIDGOV_API_URL).")
@click.option("--linear-team", metavar="ID", required=True, help="The team that gets the issues: its id in Linear.")
@click.option(
    "--linear", type=click.Choice(n8n.LINEAR), default="each", show_default=True, help="Which outcomes become issues."
)
@click.option("--every", type=minutes, default=15, show_default=True, help="How often a round is started, in minutes.")
@click.option(
    "--sync", type=minutes, default=5, show_default=True, help="How often the outbox is looked at, in minutes."
)
@home_option
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Only write the files, for an n8n elsewhere."
)
def import_(
    app_url: str | None, linear_team: str, linear: str, every: int, sync: int, home: Path | None, out: Path | None
) -> None:
    """Fill in where the workflows call, bring them into an n8n with their credentials, and publish them.

    With --home, into an n8n on this machine (`make n8n`), which must not run meanwhile; again, it replaces them. With
    --out, into files without any key, for an n8n of yours.
    """
    if (home is None) == (out is None):
        raise BadInput("say where to: --home DIR for an n8n on this machine, --out DIR for files to import by hand")
    own = settings.load()
    made = {"webhook_token": own.webhook_token, "meter_secret": own.meter_secret}
    target = _target(own, app_url or own.api_url, linear_team, needs_keys=home is not None)
    target = target._replace(linear=linear, every_minutes=every, sync_minutes=sync)
    if out is not None:
        _write_files(out, target)
        return
    assert home is not None
    n8n.check_installed(own.n8n)
    _check_app(target)
    n8n.prepare(home, target, own.n8n)
    click.echo(f"{home}: {len(n8n.workflows())} workflows are in and published, calling {target.app_url}")
    for name, value in made.items():
        if value is None:
            click.echo(f"GRIDGOV_{name.upper()}={getattr(target, name)}")
    if None in made.values():
        click.echo("keep these: they are not shown again", err=True)
    click.echo(f"run it with: gridgov n8n run --home {home}")


def _target(own: Settings, app_url: str, linear_team: str, *, needs_keys: bool) -> n8n.Target:
    """What the workflows are deployed for, from the environment. Raises BadInput where a key or an address is none."""
    keys = {
        "GRIDGOV_API_KEY": own.api_key,
        "GEMINI_API_KEY": own.gemini_api_key,
        "LINEAR_API_KEY": own.linear_api_key,
    }
    missing = [name for name, value in keys.items() if not value]
    if missing and needs_keys:
        raise BadInput(f"n8n needs {', '.join(missing)}: set it in the environment (never as an argument)")
    gemini_url, linear_url = own.gemini_base_url or n8n.GEMINI, own.linear_url or n8n.LINEAR_API
    for url in (app_url, gemini_url, linear_url):
        n8n.host_of(url)
    return n8n.Target(
        app_url, own.api_key or "", own.webhook_token or secrets.token_urlsafe(32),
        own.meter_secret or secrets.token_urlsafe(32), own.gemini_api_key or "", own.linear_api_key or "", linear_team,
        gemini_base_url=gemini_url, linear_url=linear_url,
    )  # fmt: skip


def _check_app(target: n8n.Target) -> None:
    """Raises BadInput where the app is not reached, where the key may not propose, and where it may do more."""
    import httpx

    headers = {"Authorization": f"Bearer {target.app_key}"}
    try:
        with httpx.Client(base_url=target.app_url, headers=headers, timeout=20) as client:
            outbox = client.get("/v1/outbox", params={"limit": 1})
            may_operate = client.post("/v1/control", params={"dry_run": "true"}, json={})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise BadInput(f"{target.app_url}: the app was not reached ({error}); start it, or give --app URL") from None
    if outbox.status_code in (401, 403):
        wrong = "unknown or revoked" if outbox.status_code == 401 else "one that may not propose"
        raise BadInput(
            f"{target.app_url}: GRIDGOV_API_KEY is {wrong}; make one: gridgov keys create n8n --scope propose"
        )
    if outbox.status_code != 200 or may_operate.status_code >= 500:
        status = max(outbox.status_code, may_operate.status_code)
        raise BadInput(f"{target.app_url}: answered {status}, so it is not the app or it is not well")
    if may_operate.status_code not in (401, 403):
        raise BadInput(
            "GRIDGOV_API_KEY may operate, and n8n must not: it only reads and proposes; make it a key of its own: "
            "gridgov keys create n8n --scope propose"
        )


_CREDENTIALS = (
    ("gridgov: app", "Header Auth", "Authorization: Bearer <GRIDGOV_API_KEY>", "app_url"),
    ("gridgov: Gemini", "Header Auth", "x-goog-api-key: <GEMINI_API_KEY>", "gemini_base_url"),
    ("gridgov: Linear", "Linear API", "API key: <LINEAR_API_KEY>", "linear_url"),
    ("gridgov: callers", "Header Auth", "Authorization: Bearer <a long random token of yours>", None),
    ("gridgov: meters", "Crypto", "HMAC secret: <a long random secret, shared with the meters>", None),
)


def _write_files(out: Path, target: n8n.Target) -> None:
    """The workflows as files for another n8n, and what to do there."""
    out.mkdir(parents=True, exist_ok=True)
    named = {path.stem: json.loads(path.read_text("utf-8"))["id"] for path in n8n.FOLDER.glob("*.json")
             if path.stem not in ("package", "package-lock")}  # fmt: skip
    files = {id_: f"{stem}.json" for stem, id_ in named.items()}
    made = {id_: n8n.patched(workflow, target) for id_, workflow in n8n.workflows().items()}
    click.echo("In n8n, make these credentials under exactly these names; then import the files below from")
    click.echo(f"{out}, in this order, and publish each of them.")
    for name, kind, filled, url in _CREDENTIALS:
        where = f"; allowed domain {urlsplit(getattr(target, url)).hostname}" if url else ""
        click.echo(f"  credential  {name} ({kind}): {filled}{where}")
    for id_, workflow in made.items():
        path = out / files[id_]
        path.write_text(json.dumps(workflow, indent=2, ensure_ascii=False) + "\n", "utf-8")
        click.echo(f"  workflow    {path.name} ({workflow['name']}), id {id_}")


# --- check ------------------------------------------------------------------------------------------------------------


@n8n_group.command("check")
@home_option
@click.option(
    "--files", type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Workflows that were exported from an n8n elsewhere, as .json files.",
)  # fmt: skip
@json_option
def check(home: Path | None, files: Path | None, as_json: bool) -> None:
    """Is what runs the same as what is in the repository? Ends with 1 and what differs, by workflow and node.

    Where the workflows call and how often is not compared: that is yours.
    """
    if (home is None) == (files is None):
        raise BadInput(
            "say what to look at: --home DIR of an n8n on this machine, or --files DIR of exported workflows"
        )
    live = n8n.exported(home, settings.load().n8n) if home is not None else _exported_files(files or Path())
    found = n8n.differences(live, n8n.workflows().values())
    if as_json:
        click.echo(json.dumps({"same": not found, "differences": found}, ensure_ascii=False))
    else:
        for line in found:
            click.echo(line)
    if found:
        raise CheckFailed(f"{len(found)} differences from the repository; `gridgov n8n import` puts it in again")
    if not as_json:
        click.echo(f"{len(n8n.workflows())} workflows run as they are in the repository")


def _exported_files(folder: Path) -> list[Json]:
    """Exported workflows: one in a file, or a list of them. Raises BadInput, naming the file."""
    found: list[Json] = []
    for path in sorted(folder.glob("*.json")):
        try:
            read: Any = json.loads(path.read_text("utf-8"))
            for one in read if isinstance(read, list) else [read]:
                if isinstance(one, dict) and "nodes" in one:  # else it is something else, such as a package.json
                    n8n.check_workflow(one)
                    found.append(one)
        except (ValueError, BadInput) as wrong:
            raise BadInput(f"{path}: is no workflow of n8n: {wrong}") from None
    return found


# --- run --------------------------------------------------------------------------------------------------------------


@n8n_group.command("run")
@click.option(
    "--home", type=click.Path(path_type=Path, file_okay=False, exists=True, resolve_path=True), required=True,
    help="The user folder that `gridgov n8n import` filled.",
)  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=5678, show_default=True, help="0: any free one.")
def run(home: Path, port: int) -> None:
    """Run n8n on a folder that was filled by `import`, without its pages, until Ctrl-C; it listens on 127.0.0.1."""
    own = settings.load()
    n8n.check_installed(own.n8n)
    check_free("127.0.0.1", port)
    with until_told(), n8n.running(home, own.n8n, port) as server:
        click.echo(f"n8n       {server.url}  (its pages are off; Ctrl-C ends it)")
        code = server.process.wait()
        raise CheckFailed(f"n8n ended by itself, with code {code} (see {server.log})")
    click.echo("stopped")


COMMANDS: tuple[click.Command, ...] = (n8n_group,)
