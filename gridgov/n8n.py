"""n8n on this machine: its workflows deployed into a user folder of it, run there, and compared; never the grid itself.

A home is a user folder of n8n: its database (SQLite), its key of encryption, its log. Workflows come from `n8n/*.json`,
keys go into n8n's credentials only.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from gridgov.errors import BadInput, GridgovError
from gridgov.wire import Json, known

VERSION = "2.41.1"
FOLDER = Path(__file__).parent.parent / "n8n"

GEMINI = "https://generativelanguage.googleapis.com"
LINEAR_API = "https://api.linear.app/graphql"

LINEAR = ("each", "exceptions", "daily")
"""What becomes an issue: every outcome, those that need a person, or one digest for each day."""

START_S = 120.0
"""How long n8n may take to come up; a few seconds on a machine that is not busy."""

STOP_S = 20.0
"""How long it may take to end by itself; then it is killed."""

COMMAND_S = 300.0
"""How long one of its commands may take."""

LOG = "n8n.log"

_ERRORS = "gridgovErrors"
"""The workflow that the others hand their failures to, published first."""

_SENSITIVE = {"token": {"nodeType": "n8n-nodes-base.webhook", "path": "headers.authorization"}}
"""What n8n takes out of a call before it writes the run down."""


class Target(NamedTuple):
    """What the workflows are deployed for: where they call, how often they run, and with which keys.

    Addresses are as n8n reaches them. `every_minutes` is how often the loop runs, `sync_minutes` the outbox.
    """

    app_url: str
    app_key: str
    webhook_token: str
    meter_secret: str
    gemini_key: str
    linear_key: str
    linear_team: str
    linear: str = "each"
    gemini_base_url: str = GEMINI
    linear_url: str = LINEAR_API
    every_minutes: int = 15
    sync_minutes: int = 5


class Server(NamedTuple):
    """An n8n that runs: where its webhooks are (`{url}/webhook/{path}`), its user folder, its process, its log."""

    url: str
    home: Path
    process: subprocess.Popen[bytes]
    log: Path


# --- the workflows ----------------------------------------------------------------------------------------------------


def workflows(folder: Path = FOLDER) -> dict[str, Json]:
    """The repository's workflows by id; the one that catches the failures of the others comes first."""
    found = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
    named = [one for one in found if isinstance(one.get("nodes"), list)]
    if not named:
        raise BadInput(f"{folder}: there are no workflows; run from a checkout of the project")
    return {one["id"]: one for one in sorted(named, key=lambda one: (one["id"] != _ERRORS, one["id"]))}


def patched(workflow: Json, target: Target) -> Json:
    """A workflow with the target's literals in its `Config` node and in its schedule; no key is in it.

    Raises BadInput where the target is none: a mode or a period that there is not.
    """
    known(target.linear, LINEAR, "way to write issues", ("linear",))
    own = {
        "app_url": target.app_url.rstrip("/"),
        "gemini_base_url": target.gemini_base_url.rstrip("/"),
        "linear_url": target.linear_url,
        "linear_team": target.linear_team,
        "linear": target.linear,
    }
    periods = {"gridgovLoop": target.every_minutes, "gridgovOutbox": target.sync_minutes}
    found: Json = json.loads(json.dumps(workflow))
    for node in found["nodes"]:
        parameters = node["parameters"]
        if node["name"] == "Config":
            for one in parameters["assignments"]["assignments"]:
                one["value"] = own[one["name"]]
        elif node["type"].endswith(".scheduleTrigger"):
            parameters["rule"] = {"interval": [_interval(periods[found["id"]])]}
    return found


def _interval(minutes: int) -> Json:
    """A period as the schedule trigger has it: minutes up to 59, or whole hours up to 23."""
    if 1 <= minutes <= 59:
        return {"field": "minutes", "minutesInterval": minutes}
    if minutes % 60 == 0 and 1 <= minutes // 60 <= 23:
        return {"field": "hours", "hoursInterval": minutes // 60}
    raise BadInput(f"a schedule cannot run every {minutes} minutes; choose 1 to 59, or whole hours up to 23 (60, 120)")


def credentials(target: Target) -> list[Json]:
    """The credentials that the workflows name, each locked to the host that it is for. Raises BadInput."""
    missing = [name for name in ("app_key", "webhook_token", "meter_secret", "gemini_key", "linear_key")
               if not getattr(target, name)]  # fmt: skip
    if missing:
        raise BadInput(f"n8n needs {', '.join(missing)}, and got nothing for it")
    bearer = {"name": "Authorization", "value": f"Bearer {target.app_key}", **_locked(target.app_url)}
    gemini = {"name": "x-goog-api-key", "value": target.gemini_key, **_locked(target.gemini_base_url)}
    linear = {"apiKey": target.linear_key, "signingSecret": "", **_locked(target.linear_url)}
    token = {"name": "Authorization", "value": f"Bearer {target.webhook_token}", "allowedHttpRequestDomains": "none"}
    return [
        _credential("gridgovApp", "gridgov: app", "httpHeaderAuth", bearer),
        _credential("gridgovGemini", "gridgov: Gemini", "httpHeaderAuth", gemini),
        _credential("gridgovLinear", "gridgov: Linear", "linearApi", linear),
        _credential("gridgovCallers", "gridgov: callers", "httpHeaderAuth", token),
        _credential("gridgovMeters", "gridgov: meters", "crypto", {"hmacSecret": target.meter_secret}),
    ]


def _credential(id_: str, name: str, kind: str, data: Json) -> Json:
    return {"id": id_, "name": name, "type": kind, "data": data}


def _locked(url: str) -> Json:
    """That n8n sends a credential to the host of this address only."""
    return {"allowedHttpRequestDomains": "domains", "allowedDomains": host_of(url)}


def host_of(url: str) -> str:
    """The host that n8n calls under this address. Raises BadInput where it is no address, or names somebody."""
    if "@" in url:  # not shown again, since a password is in it
        raise BadInput("an address with @ in it is written into every workflow: leave out the name and password")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise BadInput(f"{url!r} is no address; expected such as http://127.0.0.1:8080")
    return host


# --- n8n's command line -----------------------------------------------------------------------------------------------


def check_installed(prefix: Path) -> None:
    """Raises BadInput where this n8n is not in the folder."""
    manifest = prefix / "app" / "node_modules" / "n8n" / "package.json"
    try:
        version = json.loads(manifest.read_text("utf-8"))["version"]
    except (OSError, ValueError, KeyError):
        version = None
    if version != VERSION or not (prefix / "bin" / "n8n").exists():
        raise BadInput(f"n8n {VERSION} is not in {prefix}; run: make n8n")


def _environment(home: Path, prefix: Path, port: int, broker: int) -> dict[str, str]:
    """All that n8n is told; nothing of the caller's environment is passed on, since it may hold keys."""
    off = (
        "DIAGNOSTICS", "VERSION_NOTIFICATIONS", "VERSION_NOTIFICATIONS_WHATS_NEW", "TEMPLATES", "PERSONALIZATION",
        "HIRING_BANNER", "DYNAMIC_BANNERS", "LICENSE_AUTO_RENEW", "AI_GATEWAY", "COMMUNITY_PACKAGES",
        "UNVERIFIED_PACKAGES", "VERIFIED_PACKAGES", "PYTHON", "WORKFLOW_AUTODEACTIVATION", "AI",
    )  # fmt: skip
    return {
        "PATH": f"{prefix / 'bin'}{os.pathsep}{os.defpath}",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "N8N_USER_FOLDER": str(home),
        "N8N_ENCRYPTION_KEY": _encryption_key(home),
        "N8N_HOST": "127.0.0.1",
        "N8N_LISTEN_ADDRESS": "127.0.0.1",
        "N8N_PORT": str(port),
        "N8N_RUNNERS_BROKER_PORT": str(broker),
        "N8N_RUNNERS_BROKER_LISTEN_ADDRESS": "127.0.0.1",
        "N8N_WEBHOOK_URL": f"http://127.0.0.1:{port}/",
        "N8N_RUNNERS_MODE": "external",  # no workflow has code, so nothing is started to run it
        "N8N_RUNNERS_AUTH_TOKEN": _encryption_key(home),
        "N8N_DISABLE_UI": "true",
        "N8N_PUBLIC_API_DISABLED": "true",
        "N8N_DISABLED_MODULES": "mcp-registry,mcp,insights,community-packages,instance-ai,agents,chat-hub",
        "N8N_ENFORCE_SETTINGS_FILE_PERMISSIONS": "true",
        # The token of a call is taken out of the headers before the run is written down.
        "N8N_ENV_FEAT_RUNTIME_CREDENTIALS": "true",
        "N8N_SECURITY_SENSITIVE_FIELD_RULES": json.dumps(_SENSITIVE),
        "NODE_ENV": "production",
        "DB_TYPE": "sqlite",
        "GENERIC_TIMEZONE": "UTC",
        "TZ": "UTC",
        **{f"N8N_{name}_ENABLED": "false" for name in off},
    }


def _encryption_key(home: Path) -> str:
    """The key that n8n's credentials are encrypted with, made once for a home and readable by its owner only."""
    path = home / "encryption.key"
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(24))
    return path.read_text("utf-8")


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


# Run by Python, it asks to be killed at its parent's death and then becomes n8n, so that a killed parent leaves none.
_LAUNCH = """
import ctypes, os, sys
parent, program, *arguments = sys.argv[1:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(parent):
    sys.exit("the process that started it has ended")
os.execv(program, [program, *arguments])
"""


def _launch(prefix: Path, *arguments: str) -> list[str]:
    """The command that runs n8n with these arguments, and ends with this process."""
    script = prefix / "app" / "node_modules" / "n8n" / "bin" / "n8n"
    return [
        sys.executable,
        "-I",
        "-c",
        _LAUNCH,
        str(os.getpid()),
        str(prefix / "bin" / "node"),
        str(script),
        *arguments,
    ]


def _command(home: Path, prefix: Path, *arguments: str, given: str = "") -> str:
    """What a command of n8n prints; `given` is its input.

    Raises GridgovError with its last words where it fails, and where it does not end in COMMAND_S; it is killed then.
    """
    environment = _environment(home, prefix, free_port(), free_port())
    try:
        done = subprocess.run(
            _launch(prefix, *arguments), env=environment, cwd=home, capture_output=True, input=given,
            timeout=COMMAND_S, check=False, text=True, errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise GridgovError(
            f"n8n {arguments[0]} did not end in {COMMAND_S:g} s; try again when the machine is less busy"
        ) from None
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise GridgovError(f"n8n {arguments[0]} failed: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout


def prepare(home: Path, target: Target, prefix: Path, folder: Path = FOLDER) -> None:
    """Fills an n8n user folder: credentials, workflows, each published. Again, it replaces them.

    Raises BadInput where the target or the install is none, GridgovError where n8n fails.
    """
    check_installed(prefix)
    made = [patched(workflow, target) for workflow in workflows(folder).values()]
    put_credentials(home, target, prefix)
    ids = [workflow["id"] for workflow in made]
    before = _unpublish(home, ids)
    try:
        with tempfile.TemporaryDirectory(dir=home) as scratch:
            for workflow in made:
                (Path(scratch) / f"{workflow['id']}.json").write_text(json.dumps(workflow), "utf-8")
            _command(home, prefix, "import:workflow", "--separate", f"--input={scratch}")
    except BaseException:
        _publish_again(home, before)
        raise
    _publish(home, ids)


# Publishing is one change of one row. n8n's own commands make exactly this change, in this version of n8n, and take
# some seconds for each workflow: longer than all the rest.


def _publish(home: Path, ids: Sequence[str]) -> None:
    """Puts the imported versions in force. Raises GridgovError where one is not there."""
    with _rows(home) as rows:
        for id_ in ids:
            done = rows.execute(
                "UPDATE workflow_entity SET active = TRUE, activeVersionId = versionId WHERE id = ? AND versionId IN"
                " (SELECT versionId FROM workflow_history WHERE workflowId = workflow_entity.id)",
                (id_,),
            )
            if done.rowcount != 1:
                raise GridgovError(f"n8n did not take the workflow {id_}")


def _unpublish(home: Path, ids: Sequence[str]) -> list[tuple[str, str]]:
    """Takes workflows out of force, as n8n refuses to import over one that is; returns which version of each was."""
    found = []
    with _rows(home) as rows:
        for id_ in ids:
            asked = "SELECT id, activeVersionId FROM workflow_entity WHERE id = ? AND activeVersionId IS NOT NULL"
            found += rows.execute(asked, (id_,)).fetchall()
            rows.execute("UPDATE workflow_entity SET active = FALSE, activeVersionId = NULL WHERE id = ?", (id_,))
    return found


def _publish_again(home: Path, before: Sequence[tuple[str, str]]) -> None:
    """Puts what was in force back, after an import that failed."""
    with _rows(home) as rows:
        for id_, version in before:
            rows.execute("UPDATE workflow_entity SET active = TRUE, activeVersionId = ? WHERE id = ?", (version, id_))


@contextmanager
def _rows(home: Path) -> Iterator[sqlite3.Connection]:
    """The database of an n8n that does not run; what is changed in the block is changed together, or not at all.

    Raises GridgovError where it cannot be changed.
    """
    try:
        with closing(sqlite3.connect(home / ".n8n" / "database.sqlite", timeout=COMMAND_S)) as connection, connection:
            yield connection
    except sqlite3.Error as error:
        raise GridgovError(f"{home}: n8n's database cannot be changed ({error}); stop the n8n that uses it") from None


def put_credentials(home: Path, target: Target, prefix: Path) -> None:
    """Puts the target's keys into an n8n user folder in place of those that it has. Raises BadInput, GridgovError."""
    keys = credentials(target)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    _sweep(home)
    # Through a pipe: in a file, they would stay there in plain text if this process were killed.
    _command(home, prefix, "import:credentials", "--input=/dev/stdin", given=json.dumps(keys))


def _sweep(home: Path) -> None:
    """Removes keys in plain text, which a killed import of an earlier version left in the home."""
    for left in home.glob("tmp*/credentials.json"):
        shutil.rmtree(left.parent)


def exported(home: Path, prefix: Path) -> list[Json]:
    """The workflows that an n8n user folder holds. Raises BadInput, GridgovError."""
    check_installed(prefix)
    if not (home / ".n8n").is_dir():
        wrong = "is no user folder of n8n" if home.is_dir() else "there is no such folder"
        raise BadInput(f"{home}: {wrong}; `gridgov n8n import --home` fills one")
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        path = Path(scratch) / "workflows.json"
        _command(home, prefix, "export:workflow", "--all", f"--output={path}")
        found: list[Json] = json.loads(path.read_text("utf-8"))
    return found


# --- n8n, running -----------------------------------------------------------------------------------------------------


def start(home: Path, prefix: Path, port: int = 0) -> Server:
    """Starts n8n on a prepared folder; it may not answer yet, see `wait_for`. Raises BadInput."""
    check_installed(prefix)
    _sweep(home)
    port = port or free_port()
    log = home / LOG
    with log.open("ab") as file:
        process = subprocess.Popen(
            _launch(prefix, "start"),
            env=_environment(home, prefix, port, free_port()), cwd=home, stdin=subprocess.DEVNULL, stdout=file,
            stderr=file, start_new_session=True,
        )  # fmt: skip
    return Server(f"http://127.0.0.1:{port}", home, process, log)


def wait_for(server: Server, paths: Sequence[str]) -> None:
    """Waits until the webhooks of these paths live: without a token they say 404 before, and 403 or 401 then.

    Raises GridgovError with the last words of the log where n8n ends or does not come up.
    """
    deadline = time.monotonic() + START_S
    for path in paths:
        while _status(f"{server.url}/webhook/{path}") not in (401, 403):
            if server.process.poll() is not None or time.monotonic() > deadline:
                said = server.log.read_text("utf-8", "replace").strip().splitlines()[-1:]
                raise GridgovError(f"n8n did not come up: {''.join(said) or 'it said nothing'} (see {server.log})")
            time.sleep(0.05)


def _status(url: str) -> int:
    """The HTTP status of an empty POST; 0 where nobody answers."""
    asked = urllib.request.Request(url, b"", method="POST")
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def stop(server: Server, sig: int = signal.SIGTERM) -> None:
    """Ends n8n and all that it started, by this signal first; returns when it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.process.pid, sig)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.process.wait(STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait()


WEBHOOKS = ("governance-loop", "outbox-sync", "meter-readings")


@contextmanager
def running(home: Path, prefix: Path, port: int = 0) -> Iterator[Server]:
    """n8n on a prepared folder, until the end of the block; its webhooks live when the block begins."""
    server = start(home, prefix, port)
    try:
        wait_for(server, WEBHOOKS)
        yield server
    finally:
        stop(server)


# --- what runs, and what should ---------------------------------------------------------------------------------------

_OF_NODE = (
    "type", "typeVersion", "parameters", "credentials", "onError", "retryOnFail", "maxTries", "waitBetweenTries",
    "executeOnce", "alwaysOutputData", "disabled", "webhookId",
)  # fmt: skip


def differences(live: Iterable[Json], repo: Iterable[Json]) -> list[str]:
    """What differs between what runs and what is in the repository, a sentence for each, by workflow and node.

    Compared is what a run does: nodes, their connections, settings. The literals of `Config`, the schedule, positions
    and notes are each installation's own, and so are workflows that the repository does not have.
    """
    there = {workflow["id"]: workflow for workflow in live}
    found = []
    for wanted in repo:
        workflow = there.get(wanted["id"])
        if workflow is None:
            found.append(f"{wanted['name']}: is not in n8n")
            continue
        if not workflow.get("active"):
            found.append(f"{wanted['name']}: is in n8n, but not published, so it does not run")
        found += [f"{wanted['name']}: {said}" for said in _of_workflow(workflow, wanted)]
    return found


def check_workflow(found: Any) -> None:
    """Raises BadInput where `differences` could not read this as a workflow of n8n: its parts are not as n8n has them.

    The message says what is wrong, for whoever knows where it came from.
    """
    _has(found, "it", id=str, nodes=list, connections=dict)
    _has({"settings": {}, **found}, "it", settings=dict | None)
    for node in found["nodes"]:
        _has(node, "a node", name=str, type=str, parameters=dict)
        _has({"credentials": {}, **node}, f"node {node['name']}", credentials=dict)
        for one in node.get("credentials", {}).values():
            _has(one, f"a credential of node {node['name']}")
        if node["name"] == "Config":
            given = node["parameters"].get("assignments", {})
            _has({"assignments": [], **given} if isinstance(given, dict) else given, "Config", assignments=list)
            for one in given.get("assignments", []):
                _has(one, "an assignment of Config", name=str)
    for name, kinds in found["connections"].items():
        _has(kinds, f"the connection of {name}")
        for kind, outputs in kinds.items():
            _has(kinds, f"the connection of {name}", **{kind: list})
            for targets in outputs:
                _has({"output": targets}, f"the connection of {name}", output=list | None)
                for target in targets or ():
                    _has(target, f"the connection of {name}", node=str, index=int)


def _has(found: Any, what: str, /, **kinds: Any) -> None:
    """Raises BadInput where this is no JSON object, or where one of its fields is not of the kind that it must be."""
    if not isinstance(found, dict):
        raise BadInput(f"{what} is no JSON object")
    for field, kind in kinds.items():
        if not isinstance(found.get(field), kind):
            raise BadInput(f"{what} has no {field}, or not as n8n writes it")


def _of_workflow(live: Json, repo: Json) -> list[str]:
    has, wants = (_nodes(workflow) for workflow in (live, repo))
    found = [f"node {name} is missing" for name in wants if name not in has]
    found += [f"node {name} is not in the repository" for name in has if name not in wants]
    for name, wanted in wants.items():
        found += [f"node {name}: {said}" for said in _apart(has.get(name, wanted), wanted)]
    links, wanted_links = (_links(workflow) for workflow in (live, repo))
    found += [f"{said} is not connected" for said in sorted(wanted_links - links)]
    found += [f"{said} is connected, and not in the repository" for said in sorted(links - wanted_links)]
    settings = live.get("settings") or {}
    return found + [
        f"settings: {said}" for said in _apart({k: settings.get(k) for k in repo["settings"]}, repo["settings"])
    ]


def _nodes(workflow: Json) -> dict[str, Json]:
    """The nodes that do something by name, without what is each installation's own."""
    found = {}
    for node in workflow["nodes"]:
        if node["type"].endswith(".stickyNote"):
            continue
        own = {key: node[key] for key in _OF_NODE if key in node}
        own["credentials"] = {kind: one.get("name") for kind, one in node.get("credentials", {}).items()}
        if node["name"] == "Config":
            given = node["parameters"].get("assignments", {}).get("assignments", [])
            own["parameters"] = sorted(one["name"] for one in given)
        elif node["type"].endswith(".scheduleTrigger"):
            own["parameters"] = {}
        found[node["name"]] = own
    return found


def _links(workflow: Json) -> set[str]:
    """The connections, each in words."""
    found = set()
    for name, kinds in workflow["connections"].items():
        for kind, outputs in kinds.items():
            for output, targets in enumerate(outputs):
                for target in targets or ():
                    found.add(f"{name} ({kind} {output}) to {target['node']} ({target['index']})")
    return found


def _apart(live: Any, repo: Any, path: str = "") -> list[str]:
    """Where two JSON values differ, by path."""
    if isinstance(live, dict) and isinstance(repo, dict):
        found = []
        for key in sorted({*live, *repo}):
            found += _apart(live.get(key), repo.get(key), f"{path}.{key}" if path else key)
        return found
    return [] if live == repo else [f"{path or 'it'} is {_short(live)}, and in the repository {_short(repo)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
