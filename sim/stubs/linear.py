"""A stub of Linear's GraphQL API on loopback: keeps issues as Linear would, or fails as a script says.

`python -m sim.stubs.linear` answers `POST /graphql` from a small part of Linear's schema. `GET /` lists the issues,
`GET /issue/LIN-1` shows one as a person reads it, `GET /requests` shows as JSON what it was sent, without any key.
A script is a list of faults: a name (`FAULTS` lists them), or `{"reply": name, "times": n or "ever", ...}` with what
`Fault` has. A request that no fault is for is answered well.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import uuid
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import click

from gridgov.errors import BadInput
from gridgov.wire import Json, known
from sim.stubs.http import Asked, Server, Threaded, packet, reset, say_nothing, script_of
from sim.stubs.linear_pages import issue_page, issues_page
from sim.stubs.linear_workspace import TEAM, Workspace, error, fields_of

KEPT = 20_000
"""Most requests that are kept; all are counted."""

KEY = "lin_api_stub"
"""A key that the stub takes; without `key` it takes any that begins as Linear's do."""

FAULTS = {
    "503": "503 with JSON, nothing done",
    "503 html": "503 with a page of a proxy, nothing done",
    "500": "500 with Linear's error, nothing done",
    "502": "502 with a page of a proxy, nothing done",
    "429": "429, nothing done",
    "ratelimited": "400 with the code RATELIMITED, as Linear throttles; nothing done",
    "400": "400 with a refused input, nothing done",
    "401": "401 as with a wrong key, nothing done",
    "errors": "200 with `errors` and no data, nothing done",
    "html 200": "200 with a page, nothing done",
    "empty 200": "200 without a body, nothing done",
    "slow": "done, and answered `delay_s` later",
    "late": "done `delay_s` later, and answered",
    "dropped before": "the connection reset, nothing done",
    "dropped after": "done, then the connection reset",
    "503 after": "done, then 503",
    "silent before": "nothing done, nothing answered",
    "silent after": "done, nothing answered",
}
"""Every way to fail, by name. What is done is what a good answer would have done."""


class Fault(NamedTuple):
    """How the next `times` requests that it is for are answered (None: for ever).

    It is for requests with the root field `field` (such as `issueCreate`) and `text` anywhere in their body (such as a
    title), once `skip` of them were let pass, from `from_s` to `until_s` seconds after the stub began. With `chance`
    below 1 a draw from the stub's seed and the request's number decides, so that the same seed gives the same faults.
    """

    reply: str
    times: int | None = 1
    field: str | None = None
    text: str | None = None
    skip: int = 0
    from_s: float = 0.0
    until_s: float | None = None
    chance: float = 1.0
    delay_s: float = 2.0


_KINDS: dict[str, tuple[type, ...]] = {
    "reply": (str,), "times": (int,), "field": (str,), "text": (str,), "skip": (int,), "from_s": (int, float),
    "until_s": (int, float), "chance": (int, float), "delay_s": (int, float),
}  # fmt: skip


def faults(script: Iterable[str | Json | Fault]) -> list[Fault]:
    """A script's faults. Raises BadInput where one is none."""
    found = []
    for i, one in enumerate(script):
        if not isinstance(one, Fault):
            told: Json = {"reply": one} if isinstance(one, str) else dict(one)
            if told.get("times") == "ever":
                told["times"] = None
            for key, value in told.items():
                known(key, Fault._fields, "key", (i, key))
                if value is not None and not isinstance(value, _KINDS[key]):
                    raise BadInput(f"{key} of a fault can't be {value!r}", (i, key))
            one = Fault(**{"reply": "", **told})  # noqa: PLW2901 - the same fault in its own form
        known(one.reply, FAULTS, "fault", (i,))
        found.append(one)
    return found


class _Left:
    """What is left of a fault."""

    def __init__(self, fault: Fault) -> None:
        self.fault, self.skip, self.times = fault, fault.skip, fault.times


class Script:
    """The faults that are left; the first that is for a request is the one that it gets."""

    def __init__(self, script: Iterable[str | Json | Fault], seed: int) -> None:
        self._left = [_Left(fault) for fault in faults(script)]
        self._seed = seed

    def add(self, script: Iterable[str | Json | Fault]) -> None:
        """More faults, after those that are left."""
        self._left += [_Left(fault) for fault in faults(script)]

    def clear(self) -> None:
        """No faults from here on."""
        self._left.clear()

    def next(self, n: int, fields: list[str], text: str, at_s: float) -> Fault | None:
        """The fault of the n-th request, or None."""
        for one in list(self._left):
            if not self._is_for(one.fault, n, fields, text, at_s):
                continue
            if one.skip:
                one.skip -= 1
                continue
            if one.times is not None:
                one.times -= 1
                if one.times <= 0:
                    self._left.remove(one)
            return one.fault
        return None

    def _is_for(self, fault: Fault, n: int, fields: list[str], text: str, at_s: float) -> bool:
        if fault.field is not None and fault.field not in fields:
            return False
        if fault.text is not None and fault.text not in text:
            return False
        if at_s < fault.from_s or (fault.until_s is not None and at_s > fault.until_s):
            return False
        drawn = int.from_bytes(hashlib.sha256(f"{self._seed}/{n}/{fault.reply}".encode()).digest()[:8], "big") / 2**64
        return fault.chance >= 1 or drawn < fault.chance


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _packed(status: int, body: Json, **headers: str) -> bytes:
    return packet(status, json.dumps(body).encode(), **headers)


_PROXY = b"<html><head><title>503 Service Temporarily Unavailable</title></head><body>nginx</body></html>"
_UNKNOWN = error(
    "Authentication required, not authenticated", "AUTHENTICATION_ERROR", "authentication error", 401,
    "You need to authenticate to access this operation.",
)  # fmt: skip
_BEARER = error(
    "It looks like you're trying to use an API key as a Bearer token. Remove the Bearer prefix from the Authorization "
    "header.", "AUTHENTICATION_ERROR", "authentication error", 401, "Remove the Bearer prefix.",
)  # fmt: skip
_THROTTLED = error(
    "Rate limit exceeded", "RATELIMITED", "Ratelimited", 429,
    "Rate limit exceeded. Only 5000 requests are allowed per 1 hour.",
)  # fmt: skip
_REFUSED = error("Argument Validation Error", "INVALID_INPUT", "invalid input", 400, "The stub was told to refuse.")
_INTERNAL = error("Internal server error", "INTERNAL_SERVER_ERROR", "internal error", 500, "Something went wrong.")

_INSTEAD = {
    "503": _packed(503, {"errors": [_INTERNAL]}),
    "503 html": packet(503, _PROXY, "text/html"),
    "500": _packed(500, {"errors": [_INTERNAL]}),
    "502": packet(502, _PROXY.replace(b"503 Service Temporarily Unavailable", b"502 Bad Gateway"), "text/html"),
    "429": _packed(429, {"errors": [_THROTTLED]}, Retry_After="1"),
    "ratelimited": _packed(400, {"errors": [_THROTTLED]}, X_RateLimit_Requests_Remaining="0"),
    "400": _packed(400, {"errors": [_REFUSED], "data": None}),
    "401": _packed(401, {"errors": [_UNKNOWN]}),
    "errors": _packed(200, {"errors": [_INTERNAL], "data": None}),
    "html 200": packet(200, b"<!doctype html><title>Sign in</title>", "text/html"),
    "empty 200": packet(200, b""),
}
"""What is answered in place of a good answer, with nothing done."""


class LinearServer(Server):
    """The stub in an event loop. `sent` are the requests, oldest first, each with the reply's status; never a key.

    `refused` is the status with which Linear's refusals of an input come (a duplicate id is one): it uses 200 and 400.
    With `keep`, issues and requests are also appended to that file as JSON lines, and issues in it are there again.
    """

    def __init__(
        self, script: Iterable[str | Json | Fault] = (), *, key: str | None = None, refused: int = 200, seed: int = 0,
        keep: Path | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        assert refused in (200, 400), "Linear refuses an input with 200 or 400"
        self.script = Script(script, seed)
        self.sent: deque[Json] = deque(maxlen=KEPT)
        self.count = 0
        self._key, self._refused, self._keep = key, refused, keep
        self._began: float | None = None
        self.workspace = Workspace(_now, lambda: str(uuid.uuid4()), self._changed)
        if keep is not None and keep.exists():
            self._restore(keep)

    def _restore(self, keep: Path) -> None:
        text = keep.read_text("utf-8")
        if text and not text.endswith("\n"):  # the stub was killed while it wrote its last line
            with keep.open("a") as file:
                file.write("\n")
        for i, line in enumerate(text.splitlines(), 1):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if not isinstance(found, dict):
                raise BadInput(f"{keep}, line {i}: not what the stub keeps; name another file")
            if "issue" in found:
                self.workspace.issues[found["issue"]["id"]] = found["issue"]

    def _changed(self, issue: Json) -> None:
        self._write({"issue": issue})

    def _write(self, line: Json) -> None:
        if self._keep is not None:
            self._keep.parent.mkdir(parents=True, exist_ok=True)
            with self._keep.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    async def answer(self, asked: Asked, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; whether the connection can be used for another."""
        path = urlsplit(asked.target).path
        if path == "/graphql" and asked.method == "POST":
            return await self._graphql(asked, writer)
        writer.write(self._look(asked.method, path))
        await writer.drain()
        return True

    def _look(self, method: str, path: str) -> bytes:
        """What a person, or a test, looks at."""
        shown = [self.workspace.shown(issue) for issue in reversed(self.workspace.issues.values())]
        if method != "GET":
            return _packed(405, {"errors": [{"message": "POST goes to /graphql"}]})
        if path == "/":
            return _html(200, issues_page(shown, self.count, _now()))
        if path == "/issues":
            return _packed(200, {"count": len(shown), "issues": shown})
        if path == "/requests":
            return _packed(200, {"count": self.count, "requests": list(self.sent)})
        for issue in shown:
            if path.removeprefix("/issue/") in (issue["identifier"], issue["id"]):
                return _html(200, issue_page(issue))
        return _html(404, issues_page(shown, self.count, _now()))

    async def _graphql(self, asked: Asked, writer: asyncio.StreamWriter) -> bool:
        self.count += 1
        n, text = self.count, asked.body.decode("utf-8", "replace")
        try:
            body = json.loads(asked.body)
        except (ValueError, RecursionError):
            body = None
        fields = fields_of(body["query"]) if isinstance(body, dict) and isinstance(body.get("query"), str) else []
        at_s = asyncio.get_running_loop().time()
        self._began = at_s if self._began is None else self._began
        fault = self.script.next(n, fields, text, at_s - self._began)
        headers = {name: value for name, value in asked.headers.items() if name not in ("authorization", "cookie")}
        kept: Json = {"n": n, "at": _now(), "fields": fields, "body": body, "headers": headers}
        kept |= {"reply": "good" if fault is None else fault.reply, "status": None}
        self.sent.append(kept)
        try:
            return await self._play(fault, asked, body, kept, writer)
        finally:
            self._write({"request": kept})

    async def _play(
        self, fault: Fault | None, asked: Asked, body: Any, kept: Json, writer: asyncio.StreamWriter
    ) -> bool:
        reply = "good" if fault is None else fault.reply
        if reply == "dropped before":
            reset(writer)
            return False
        if reply == "silent before":
            await say_nothing(writer)
            return False
        if reply in _INSTEAD:
            whole = _INSTEAD[reply]
        else:
            if fault is not None and reply == "late":
                await asyncio.sleep(fault.delay_s)
            whole = self._good(asked, body)
            if reply == "dropped after":
                reset(writer)
                return False
            if reply == "silent after":
                await say_nothing(writer)
                return False
            if fault is not None and reply == "slow":
                await asyncio.sleep(fault.delay_s)
            if reply == "503 after":
                whole = _INSTEAD["503"]
        kept["status"] = int(whole.split(b" ", 2)[1])
        writer.write(whole)
        await writer.drain()
        return True

    def _good(self, asked: Asked, body: Any) -> bytes:
        """What Linear would do and answer."""
        given = asked.headers.get("authorization", "")
        if given.startswith("Bearer lin_api_"):
            return _packed(400, {"errors": [_BEARER]})
        right = given == self._key if self._key else given.startswith(("lin_api_", "Bearer "))
        if not right:
            return _packed(401, {"errors": [_UNKNOWN]})
        variables = body.get("variables") if isinstance(body, dict) else None
        if not isinstance(body, dict) or not isinstance(body.get("query"), str):
            return _packed(400, {"errors": [{"message": "POST body missing, or no JSON object with a query."}]})
        status, told = self.workspace.execute(
            body["query"], variables if isinstance(variables, dict) else None, body.get("operationName")
        )
        refused = status == 200 and any(
            wrong["extensions"].get("statusCode") == 400 for wrong in told.get("errors", ())
        )
        return _packed(self._refused if refused else status, told)


def _html(status: int, content: str) -> bytes:
    """A page; whatever an issue says, a browser runs and loads nothing of it."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return packet(status, content.encode(), "text/html", Content_Security_Policy=policy)


class Stub(Threaded):
    """The stub, in a thread that ends with the block; port 0 takes a free one. `page` is where a person looks."""

    path = "/graphql"

    def __init__(
        self, script: Iterable[str | Json | Fault] = (), port: int = 0, *, key: str | None = None, refused: int = 200,
        seed: int = 0, keep: Path | None = None,
    ) -> None:  # fmt: skip
        self._server = LinearServer(script, key=key, refused=refused, seed=seed, keep=keep)
        self.team: str = TEAM["id"]
        self.page = ""
        super().__init__(self._server, "the stub of Linear", port)

    def __enter__(self) -> Stub:
        self.start()
        return self

    def _listening(self, port: int) -> None:
        self._server.workspace.address = self.page = f"http://127.0.0.1:{port}"
        super()._listening(port)

    @property
    def issues(self) -> dict[str, Json]:
        """The issues as the API shows them, by id, in the order in which they were made."""
        return {id_: self._server.workspace.shown(one) for id_, one in list(self._server.workspace.issues.items())}

    @property
    def sent(self) -> list[Json]:
        """The requests, oldest first: `{n, at, fields, body, headers, reply, status}`; a request is here on arrival."""
        return list(self._server.sent)

    @property
    def count(self) -> int:
        """How many requests came."""
        return self._server.count

    def fail(self, *script: str | Json | Fault) -> None:
        """More faults, for the requests from here on."""
        self._server.script.add(script)

    def heal(self) -> None:
        """No faults from here on; a request that is not yet answered keeps the one it has."""
        self._server.script.clear()


@click.command()
@click.option("--port", default=8091, show_default=True, help="0 takes a free one.")
@click.option("--script", type=click.Path(path_type=Path), help="a JSON list of faults")
@click.option("--seed", default=0, show_default=True, help="of faults that come by chance")
@click.option("--refused", type=click.Choice(["200", "400"]), default="200", show_default=True, help="how it refuses")
@click.option("--keep", type=click.Path(path_type=Path), help="a file that issues and requests are kept in")
def main(port: int, script: Path | None, seed: int, refused: str, keep: Path | None) -> None:
    """A stub of Linear's GraphQL API on loopback, until it is interrupted."""

    def listening(found: int) -> None:
        url = f"http://127.0.0.1:{found}"
        server.workspace.address = url
        click.echo(f"a stub of Linear answers on {url}/graphql, and shows its issues on {url}")
        click.echo(f"GRIDGOV_LINEAR_URL={url}/graphql LINEAR_API_KEY={KEY} team {TEAM['id']}")

    try:
        server = LinearServer(script_of(script, "faults"), refused=int(refused), seed=seed, keep=keep)
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(server.serve(port, listening, asyncio.Event()))
    except (BadInput, OSError) as wrong:
        raise SystemExit(f"the stub can't start: {wrong}") from None


if __name__ == "__main__":
    main()
