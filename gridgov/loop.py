"""The whole loop on one machine, as `gridgov up --n8n` runs it: n8n, stubs where no key is set, meters.

n8n asks and hands on; what is here only starts it, plays the meters of a scenario's homes, and tells each outcome.
Part of the composition root, as `up`.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from gridgov import n8n
from gridgov.errors import BadInput, Damaged, GridgovError
from gridgov.settings import Settings

if TYPE_CHECKING:
    import httpx

    from sim.meters import Meters
    from sim.stubs.linear import Stub as LinearStub

Json = dict[str, Any]

SCENARIO = Path("scenarios/community-week.yaml")
"""Whose homes `up --n8n` begins a new grid with."""

MORNING = 11
"""The epoch of that scenario whose meters are read first: at 9 in the morning, there is sun from the first minute."""

GEMINI_PORT, LINEAR_PORT, N8N_PORT = 8090, 8091, 5678
"""Where the stubs and n8n listen, unless another process does; then anywhere."""

LOOK_S = 1.0
"""How often the app is looked at: for an epoch whose meters were not read yet, and for new outcomes."""

WRITTEN_S = 60.0
"""So long an outcome is not told, while it waits for its issue."""

EVERY_MINUTES = 1

STUB_KEY = "lin_api_stub"


class Parts(NamedTuple):
    """What the loop is put together from. `place` is its folder; `meters` is None where nobody's are played."""

    place: Path
    settings: Settings
    meters: Meters | None
    linear_team: str | None
    free_ports: bool
    say: Callable[[str], None] = click.echo


def meters_of(scenario: Path, ours: bool) -> Meters:
    """The meters of a scenario's actors, from its first epoch on, or from the morning where it is ours."""
    from sim.loading import load
    from sim.meters import Meters
    from sim.world import World

    return Meters(World(load(scenario)), MORNING if ours else 1)


def check(settings: Settings, linear_team: str | None) -> None:
    """Raises BadInput where the loop could not run here, before anything is started."""
    n8n.check_installed(settings.n8n)
    if settings.linear_api_key is not None and not linear_team:
        raise BadInput("LINEAR_API_KEY is set, so say in whose issues it writes: --linear-team ID (or unset the key)")


# --- the folder -------------------------------------------------------------------------------------------------------


@contextmanager
def taken(place: Path) -> Iterator[Path]:
    """The folder of the loop, for one `up` at a time. Raises BadInput where another one has it."""
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (place / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"{place}: another `gridgov up --n8n` runs; end it, or set another GRIDGOV_HOME") from None
        yield place


def _own_secrets(place: Path) -> dict[str, str]:
    """The token that starts the loop and the secret that meters sign with: made once for this folder.

    Raises Damaged where the file is not what was written.
    """
    path = place / "secrets.json"
    if not path.exists():
        made = {"webhook_token": secrets.token_urlsafe(32), "meter_secret": secrets.token_urlsafe(32)}
        _write(path, json.dumps(made))
    try:
        found = json.loads(path.read_text("utf-8"))
        return {name: str(found[name]) for name in ("webhook_token", "meter_secret")}
    except (ValueError, KeyError, TypeError):
        raise Damaged(
            f"{path}: is damaged; remove it and start again: new secrets are made, for you to hand on"
        ) from None


def _write(path: Path, text: str) -> None:
    """Writes a file that its owner alone can read, whole or not at all."""
    half = path.with_suffix(".half")
    half.unlink(missing_ok=True)
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    half.replace(path)


def _prepared(place: Path, target: n8n.Target, prefix: Path, say: Callable[[str], None]) -> Path:
    """n8n's user folder with these workflows and keys; made anew where the workflows, the target or n8n changed.

    Else only the keys are put into it, since the app's is another at each start.
    """
    home, mark = place / "home", place / "prepared"
    deployed = [n8n.patched(workflow, target) for workflow in n8n.workflows().values()]
    wanted = hashlib.sha256(json.dumps([n8n.VERSION, deployed], sort_keys=True).encode()).hexdigest()
    if mark.exists() and mark.read_text("utf-8") == wanted:
        n8n.put_credentials(home, target, prefix)
        return home
    say("n8n       is set up with the workflows, once: some seconds")
    mark.unlink(missing_ok=True)
    shutil.rmtree(home, ignore_errors=True)
    n8n.prepare(home, target, prefix)
    _write(mark, wanted)
    return home


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """The app's log lines go to this file, so that a terminal shows what comes of the loop."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every look would drown the others
    handlers = [one for one in logging.getLogger().handlers if isinstance(one, logging.StreamHandler)]
    with path.open("a", encoding="utf-8") as file:
        streams = [handler.setStream(file) for handler in handlers]
        try:
            yield
        finally:
            for handler, stream in zip(handlers, streams, strict=True):
                handler.setStream(stream)


# --- the loop ---------------------------------------------------------------------------------------------------------


class Loop:
    """The loop, in a thread of its own until the block ends; whatever goes wrong is said, and the app goes on."""

    def __init__(self, parts: Parts, app_url: str, app_key: str) -> None:
        self._parts, self._app_url, self._app_key = parts, app_url, app_key
        self._meters = parts.meters
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="the loop")
        self._linear: LinearStub | None = None

    def __enter__(self) -> Loop:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        say = self._parts.say
        try:
            with ExitStack() as started:
                target = self._target(started)
                home = _prepared(self._parts.place, target, self._parts.settings.n8n, say)
                port = 0 if self._parts.free_ports else _port(N8N_PORT)
                server = started.enter_context(n8n.running(home, self._parts.settings.n8n, port))
                say(f"n8n       {server.url}  (its pages are off; every minute it asks Gemini and writes to Linear)")
                self._go(server.url, target)
        except (GridgovError, OSError) as error:
            if not self._stop.is_set():
                say(f"n8n       the loop does not run: {error}")

    def _target(self, started: ExitStack) -> n8n.Target:
        """Where the loop calls; stubs are started for what has no key."""
        parts, own = self._parts, self._parts.settings
        gemini_key, gemini_url = own.gemini_api_key, own.gemini_base_url
        if gemini_key is None:
            from sim.stubs.gemini import Stub as GeminiStub

            gemini = started.enter_context(GeminiStub(policy="hasty", port=self._free(GEMINI_PORT)))
            gemini_key, gemini_url = "stub", gemini.url
            parts.say(f"gemini    {gemini_url}  (a stub, whose replies are synthetic: GEMINI_API_KEY is not set)")
        linear_key, linear_url, team = own.linear_api_key, own.linear_url, parts.linear_team
        if linear_key is None:
            from sim.stubs.linear import Stub

            stub = Stub(port=self._free(LINEAR_PORT), key=STUB_KEY, keep=parts.place / "linear.jsonl")
            self._linear = started.enter_context(stub)
            linear_key, linear_url, team = STUB_KEY, stub.url, stub.team
            parts.say(f"linear    {stub.page}  (a stub, which shows its issues: LINEAR_API_KEY is not set)")
        made = _own_secrets(parts.place)
        return n8n.Target(
            self._app_url, self._app_key, made["webhook_token"], made["meter_secret"], gemini_key, linear_key,
            team or "", gemini_base_url=gemini_url or n8n.GEMINI, linear_url=linear_url or n8n.LINEAR_API,
            every_minutes=EVERY_MINUTES, sync_minutes=EVERY_MINUTES,
        )  # fmt: skip

    def _free(self, port: int) -> int:
        return 0 if self._parts.free_ports else _port(port)

    def _go(self, n8n_url: str, target: n8n.Target) -> None:
        """Plays the meters of each epoch as it opens, starts the first round, and tells each outcome."""
        import httpx

        with httpx.Client(timeout=30) as client:
            told = _Told(client, self._app_url, self._app_key, self._linear, self._parts.say)
            played, begun = 0, False
            while not self._stop.wait(LOOK_S):
                with suppress(httpx.HTTPError):  # the app or n8n is busy or restarting: it is asked again
                    epoch = told.epoch()
                    told.pause()
                    if epoch > played and self._play(client, n8n_url, target, epoch):
                        played = epoch
                        if not begun:
                            begun = True
                            _begin(client, n8n_url, target)
                    told.look()

    def _play(self, client: httpx.Client, n8n_url: str, target: n8n.Target, epoch: int) -> bool:
        """Whether the meters of this epoch were taken, or never will be."""
        reading = None if self._meters is None else self._meters.reading(epoch)
        if reading is None or not reading["readings"]:
            return True
        content = json.dumps(reading).encode()
        answer = client.post(f"{n8n_url}/webhook/meter-readings", content=content, headers=signed(content, target))
        if 400 <= answer.status_code < 500:  # this grid was begun from another scenario: whose meters are not ours
            try:
                why = answer.json().get("detail", answer.status_code)
            except (ValueError, AttributeError):
                return False  # not the workflow's words: n8n is not ready, and is asked again
            self._parts.say(
                f"meters    are not played, since this grid was begun from another scenario: {why}; "
                "to begin one for them: GRIDGOV_GRID=homes gridgov up --n8n"
            )
            self._meters = None
        return answer.status_code < 500


def signed(content: bytes, target: n8n.Target) -> dict[str, str]:
    """The headers with which meters send readings."""
    signature = hmac.new(target.meter_secret.encode(), content, hashlib.sha256).hexdigest()
    return {"Content-Type": "application/json", "X-Gridgov-Signature": f"sha256={signature}"}


def _begin(client: httpx.Client, n8n_url: str, target: n8n.Target) -> None:
    """Starts a round now, not only when its minute comes."""
    client.post(f"{n8n_url}/webhook/governance-loop", headers={"Authorization": f"Bearer {target.webhook_token}"})


def _port(preferred: int) -> int:
    """This port where nobody listens on it, else 0: any free one."""
    import socket

    try:
        with socket.create_server(("127.0.0.1", preferred)):
            return preferred
    except OSError:
        return 0


class _Told:
    """The outcomes since the loop began, each told once: as soon as it has its issue."""

    def __init__(
        self, client: httpx.Client, app_url: str, app_key: str, linear: LinearStub | None, say: Callable[[str], None]
    ) -> None:
        self._client, self._app_url, self._linear, self._say = client, app_url, linear, say
        self._headers = {"Authorization": f"Bearer {app_key}"}
        self._after: int | None = None
        self._head = 0
        self._paused = self._was_paused = False
        self._waiting: dict[int, tuple[Json, float]] = {}

    def _get(self, path: str) -> Any:
        answer = self._client.get(f"{self._app_url}{path}", headers=self._headers)
        answer.raise_for_status()
        return answer.json()

    def epoch(self) -> int:
        """The open epoch."""
        found = self._get("/v1/control")
        self._head, self._paused = found["seq"], found["paused"]
        if self._after is None:
            self._after = self._head
        return int(found["epoch"])

    def pause(self) -> None:
        """Tells that the grid is paused, and that it goes on: each once, since nothing else is heard of it."""
        if self._paused != self._was_paused:
            self._was_paused = self._paused
            said = "Paused: nobody is asked" if self._paused else "Resumed: the next round is asked within a minute"
            self._say(f"{time.strftime('%H:%M:%S', time.gmtime())}  {said}")

    def look(self) -> None:
        """Tells what is new."""
        if self._head != self._after:
            for one in self._get(f"/v1/proposals?after={self._after}")["items"]:
                about = self._get(f"/v1/proposals/{one['proposal_id']}")
                self._waiting[one["seq"]] = (about, time.monotonic())
                self._after = one["seq"]
            self._after = max(self._after or 0, self._head)
        for seq, (outcome, since) in list(self._waiting.items()):
            issue = self._issue(outcome)
            if issue is not None or time.monotonic() > since + WRITTEN_S:
                del self._waiting[seq]
                at = outcome["at"][11:19]
                self._say(f"{at}  {outcome['linear']['title']} -> {issue or 'not in Linear yet, ' + outcome['url']}")

    def _issue(self, outcome: Json) -> str | None:
        """Where a person reads of an outcome; None while that is not written up."""
        if self._linear is None:
            waiting = {item["seq"] for item in self._get("/v1/outbox")["items"]}
            return None if outcome["seq"] in waiting else str(outcome["url"])
        issue = self._linear.issues.get(outcome["linear"]["issue_id"])
        return None if issue is None else f"{issue['identifier']} {issue['url']}"
