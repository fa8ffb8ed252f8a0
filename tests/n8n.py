"""A real n8n for a session of tests, and a world around it for each: `pytest_plugins = ["tests.n8n"]`.

n8n is prepared once: its workflows call one gate on loopback, which stays, and which hands on to the app and the stubs
of the test that runs. The gate sees every call that n8n makes, and can fail it, or end n8n with it.

PYTEST_DONT_REWRITE: a test module may import this one before pytest does.
"""

import fcntl
import hashlib
import hmac
import json
import os
import re
import shutil
import signal
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from gridgov import beside, n8n, postgres, settings
from gridgov.auth import Keys
from gridgov.beside import Key
from gridgov.errors import BadInput
from gridgov.postgres import Pool
from gridgov.wire import timestamp
from sim.stubs import gemini, linear
from sim.stubs.linear_workspace import TEAM
from sim.stubs.replies import body, said
from tests import apps

pytest_plugins = ["tests.databases"]

NOWHERE = "http://127.0.0.1:9"
"""Stands in the prepared folder for the gate, whose port is known later."""

SECRET = "MARKED" + "x" * 37
APP_KEY = f"gridgov_{'ab' * 8}_{SECRET}"
TOKEN = "MARKED-callers-0123456789"
METER_SECRET = "MARKED-meters-0123456789"
GEMINI_KEY = "MARKED-gemini-0123456789"
LINEAR_KEY = "lin_api_" + "MARKEDlinear0123456789"  # in two, so that nobody takes it for a key

TARGET = n8n.Target(
    app_url=f"{NOWHERE}/app",
    app_key=APP_KEY,
    webhook_token=TOKEN,
    meter_secret=METER_SECRET,
    gemini_key=GEMINI_KEY,
    linear_key=LINEAR_KEY,
    linear_team=TEAM["id"],
    gemini_base_url=f"{NOWHERE}/gemini",
    linear_url=f"{NOWHERE}/linear",
)

WAIT_S = 90.0


def until(condition: Callable[[], Any], what: str) -> Any:
    """What the condition comes to, once that is true."""
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)
    return found


# --- the gate ---------------------------------------------------------------------------------------------------------


class Call(NamedTuple):
    """A call that n8n made, without its headers."""

    to: str
    method: str
    path: str
    body: Any

    def __str__(self) -> str:
        """Such as `app POST /v1/proposals`; for Linear the name of the operation follows."""
        name = re.search(r"(?:query|mutation) (\w+)", str(self.body.get("query"))) if self.to == "linear" else None
        return f"{self.to} {self.method} {self.path}{f' {name[1]}' if name else ''}"


class Rule:
    """What happens to the next `times` calls that match: `before` and `after` are called when the backend has not, and
    has, done its part; a `status` is answered instead of what it said, and None there drops the connection."""

    def __init__(self, match, times=1, *, before=None, after=None, status=0, done=True):
        self.match, self.left = re.compile(match), times
        self.before, self.after, self.status, self.done = before, after, status, done


class Gate:
    """The one address that n8n's workflows call."""

    def __init__(self):
        self.backends: dict[str, str] = {}
        self.rules: list[Rule] = []
        self.calls: list[Call] = []
        self._lock = threading.Lock()
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                gate.handle(self)

            do_GET = do_POST = handle_any

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, request, client_address):
                pass  # n8n was killed in mid-call

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self._http = httpx.Client(timeout=60, limits=httpx.Limits(max_connections=300))

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self._http.close()

    def fail(self, match, times=1, **options):
        """A rule for the calls to come; 10,000 times is for ever."""
        with self._lock:
            self.rules.append(Rule(match, times, **options))

    def named(self, match):
        """The calls so far that match."""
        return [call for call in list(self.calls) if re.search(match, str(call))]

    def _rule(self, call):
        with self._lock:
            self.calls.append(call)
            for rule in self.rules:
                if rule.left > 0 and rule.match.search(str(call)):
                    rule.left -= 1
                    return rule
        return None

    def handle(self, handler):
        """Answers one call, by way of its backend."""
        content = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        _, to, rest = handler.path.split("/", 2) if handler.path.count("/") > 1 else ("", handler.path[1:], "")
        try:
            read = json.loads(content) if content else {}
        except ValueError:
            read = {}
        rule = self._rule(Call(to, handler.command, f"/{rest}", read))
        if rule is not None and rule.before is not None:
            rule.before()
        status, answer, kind = 503, b'{"title": "the gate was told so"}', "application/json"
        if rule is None or rule.done:
            headers = {name: value for name, value in handler.headers.items()
                       if name.lower() not in ("host", "connection", "content-length", "accept-encoding")}  # fmt: skip
            url = self.backends.get(to, NOWHERE) + (f"/{rest}" if rest else "")
            try:
                got = self._http.request(handler.command, url, content=content, headers=headers)
                status, answer, kind = got.status_code, got.content, got.headers.get("content-type", "text/plain")
            except httpx.HTTPError:
                return self._drop(handler)
        if rule is not None:
            if rule.after is not None:
                rule.after()
            if rule.status is None:
                return self._drop(handler)
            status = rule.status or status
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(answer)))
        handler.end_headers()
        handler.wfile.write(answer)
        return None

    def _drop(self, handler):
        """Ends the connection without an answer."""
        handler.close_connection = True
        handler.connection.close()


# --- n8n --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def prefix():
    """Where n8n is installed; a test that needs it is skipped where it is not, and fails in CI."""
    found = settings.load().n8n
    try:
        n8n.check_installed(found)
    except BadInput as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))
    return found


def hasty(folder):
    """The workflows as they are, but that nothing starts by itself and that retries come at once."""
    folder.mkdir()
    for id_, workflow in n8n.workflows().items():
        for node in workflow["nodes"]:
            if node["type"].endswith(".scheduleTrigger"):
                node["disabled"] = True
            if node["type"].endswith(".httpRequest") and "waitBetweenTries" in node:
                node["waitBetweenTries"] = 10
        (folder / f"{id_}.json").write_text(json.dumps(workflow))
    return folder


@pytest.fixture(scope="session")
def prepared(prefix, tmp_path_factory):
    """A user folder of n8n with workflows and credentials, made once for all workers of a session."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    with (base / "n8n.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (base / "n8n-prepared" / "done").exists():
            shutil.rmtree(base / "n8n-prepared", ignore_errors=True)
            shutil.rmtree(base / "n8n-workflows", ignore_errors=True)
            n8n.prepare(base / "n8n-prepared", TARGET, prefix, hasty(base / "n8n-workflows"))
            (base / "n8n-prepared" / "done").touch()
    return base / "n8n-prepared"


class N8n:
    """A running n8n, that can be called, looked into, ended and started again."""

    def __init__(self, home, prefix, gate):
        self.home, self.prefix, self.gate = home, prefix, gate
        self.port = n8n.free_port()
        self.rewrite(NOWHERE, gate.url)
        self.server = None
        self.http = httpx.Client(timeout=WAIT_S, limits=httpx.Limits(max_connections=100))

    def database(self):
        return sqlite3.connect(f"file:{self.home}/.n8n/database.sqlite", uri=True, timeout=30)

    def rewrite(self, before, after):
        """Changes a literal of the workflows where n8n keeps them."""
        with closing(self.database()) as connection, connection:
            for table in ("workflow_entity", "workflow_history"):
                connection.execute(f"UPDATE {table} SET nodes = replace(nodes, ?, ?)", (before, after))

    def start(self):
        self.server = n8n.start(self.home, self.prefix, self.port)
        n8n.wait_for(self.server, n8n.WEBHOOKS[:2])
        return self

    def kill(self):
        """As a power cut would."""
        os.killpg(self.server.process.pid, signal.SIGKILL)
        self.server.process.wait()

    def stop(self):
        if self.server is not None:
            n8n.stop(self.server)

    def call(self, path="governance-loop", told=None, token=TOKEN, **options):
        """The response of a webhook."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.http.post(f"{self.server.url}/webhook/{path}", json=told or {}, headers=headers, **options)

    def meter(self, content, secret=METER_SECRET, **headers):
        """The response to a signed reading; `content` is JSON, or bytes as they are."""
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        signature = hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
        headers = {"Content-Type": "application/json", "X-Gridgov-Signature": f"sha256={signature}", **headers}
        return self.http.post(f"{self.server.url}/webhook/meter-readings", content=raw, headers=headers)

    def runs(self):
        """The runs that n8n knows: (id, workflow, status)."""
        with closing(self.database()) as connection:
            return connection.execute(
                "SELECT id, workflowId, status FROM execution_entity WHERE deletedAt IS NULL ORDER BY id"
            ).fetchall()

    def is_quiet(self):
        """Nothing runs, and each run that failed was told to the error workflow."""
        caught, runs = self._caught(), self.runs()  # in this way round: who was caught is among the runs then
        told = {"gridgovLoop", "gridgovOutbox", "gridgovMeter"}
        failed = {id_ for id_, workflow, status in runs if status == "error" and workflow in told}
        return all(status not in ("new", "running", "waiting") for *_, status in runs) and failed <= caught

    def _caught(self):
        """The runs whose failure the error workflow has been told."""
        with closing(self.database()) as connection:
            rows = connection.execute(
                "SELECT d.data FROM execution_entity e JOIN execution_data d ON d.executionId = e.id "
                "WHERE e.workflowId = 'gridgovErrors'"
            ).fetchall()
        found = set()
        for (data,) in rows:
            values = json.loads(data)  # each value once, and its place in the list where it is meant
            parent = values[0].get("parentExecution")
            if parent is not None:
                found.add(int(values[int(values[int(parent)]["executionId"])]))
        return found


@pytest.fixture(scope="session")
def own_n8n(prefix, prepared, tmp_path_factory):
    """The n8n of this worker and its gate."""
    home = tmp_path_factory.mktemp("n8n") / "home"
    shutil.copytree(prepared, home)
    gate = Gate()
    running = N8n(home, prefix, gate)
    try:
        yield running.start()
    finally:
        running.stop()
        running.http.close()
        gate.close()


# --- a world for a test -----------------------------------------------------------------------------------------------


def fill(url):
    """The grid of `tests.apps`, with a key for n8n that is the same in every grid."""
    apps.fill(url)
    add_key(url)


def add_key(url):
    """Makes the key that n8n has, as `gridgov keys create n8n --scope propose` would."""
    pool = Pool(url, "main", postgres.APP, 1)
    digest = hashlib.sha256(SECRET.encode()).digest()
    assert pool.ask(lambda c: beside.add_key(c, Key("ab" * 8, "n8n", digest, ("propose",), None), timestamp(1_000)))
    pool.close()
    Keys(url, "main").close()


class World:
    """n8n, with an app, stubs and a database of this test's own."""

    def __init__(self, running, url, client, asked, issues):
        self.n8n, self.gate, self.url, self.app, self.gemini, self.linear = (
            running, running.gate, url, client, asked, issues,
        )  # fmt: skip

    def says(self, *steps):
        """What Gemini says next: a text of a proposal (see `said`), or a step of its stub; then 12.5 kWh again."""
        made = [
            {"reply": "good", "body": body(one).decode()} if isinstance(one, str) and one[:1] in "{[" else one
            for one in steps
        ]
        self.gemini._server.script = gemini.Script([*made, {"reply": "good", "body": GIFT, "times": "ever"}])

    def run(self, told=None):
        """The outcome that a call of the loop is answered with."""
        response = self.n8n.call(told=told)
        assert response.status_code == 200, response.text
        return response.json()

    def sync(self):
        response = self.n8n.call("outbox-sync")
        return response.status_code, response.json()

    @property
    def outbox(self):
        return self.app.get("/v1/outbox")["items"]

    @property
    def epoch(self):
        return self.app.get("/v1/control")["epoch"]

    @property
    def issues(self):
        return {id_: one for id_, one in self.linear.issues.items() if not one["title"].startswith("Incident")}

    @property
    def incidents(self):
        return [one for one in self.linear.issues.values() if one["title"].startswith("Incident")]

    def decided(self):
        """Every proposal and what became of it in the end."""
        listed = self.app.get("/v1/proposals", limit=1000)["items"]
        return [self.app.get(f"/v1/proposals/{one['proposal_id']}") for one in listed]

    def transfers(self):
        """How many entries proposals have made."""
        return len([one for one in self.app.get("/v1/ledger", limit=1000)["items"] if one["kind"] == "transfer"])

    def check_written(self):
        """Each proposal has one issue, which says what became of it in the end, and nothing waits in the outbox."""
        wanted = {one["linear"]["issue_id"]: one for one in self.decided()}
        assert set(self.issues) == set(wanted)
        for id_, issue in self.issues.items():
            told = wanted[id_]
            assert (issue["title"], issue["description"]) == (told["linear"]["title"], told["linear"]["description"])
            assert issue["priority"] == told["linear"]["priority"]
            assert told["url"] in [one["url"] for one in issue["attachments"]["nodes"]]
        assert self.outbox == []

    def check_one_effect(self, epoch=1):
        """One round was decided in this epoch and moved once, its issue is written, the epoch is closed."""
        assert [one["outcome"] for one in self.decided()] == ["executed"]
        assert self.transfers() == 1
        assert self.epoch == epoch + 1
        self.check_written()


GIFT = body(said("12.5")).decode()


BEGUN = time.time_ns() // 1_000, time.monotonic_ns() // 1_000
DAY = 86_400_000_000


def from_noon():
    """Microseconds since 1970, as if it had been noon when the tests began: no day ends while one of them runs."""
    return BEGUN[0] // DAY * DAY + DAY // 2 + time.monotonic_ns() // 1_000 - BEGUN[1]


@contextmanager
def around(running, url, **options):
    """A world over a database whose grid has n8n's key."""
    with (
        apps.running(url, **{"clock": from_noon, **options}) as client,
        gemini.Stub([{"reply": "good", "body": GIFT, "times": "ever"}]) as asked,
        linear.Stub(key=LINEAR_KEY) as issues,
    ):
        base = str(client.http.base_url).rstrip("/")
        running.gate.backends = {"app": base, "gemini": asked.url, "linear": issues.url}
        running.gate.rules, running.gate.calls = [], []
        yield World(running, url, client, asked, issues)
        running.gate.rules = []
        until(running.is_quiet, "the end of every run")


@pytest.fixture(scope="session")
def grid(server):
    """The template of a grid that n8n may call."""
    return server.template("n8n", fill)


@pytest.fixture
def world(own_n8n, server, grid):
    """n8n with an app, stubs and a database of this test's own."""
    with server.database(grid) as url, around(own_n8n, url) as found:
        yield found


def new_id():
    return str(uuid.uuid4())


def home_of(world) -> Path:
    return Path(world.n8n.home)
