"""A stub of Gemini's REST API on loopback: answers `generateContent` by a policy, or fails as a script says.

`python -m sim.stubs.gemini --policy greedy` answers real requests with sensible proposals, from the data block in them.
`GET /` shows what it was asked, `GET /requests` the same as JSON. A script is a list of steps, one for each request in
turn: a name (`SCENARIOS` lists them), or `{"reply": name, "times": n or "ever", ...}` with what `Step` has; after the
last step come good answers. Nothing here was ever said by a model.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import html
import json
import re
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

import click

from gridgov.cassette import SYNTHETIC, synthetic_body
from gridgov.errors import BadInput
from gridgov.judge import read_state
from gridgov.model import Resource, Round
from gridgov.prompt import exact_json
from gridgov.propose import Answer, Context
from gridgov.reply import load
from gridgov.wire import Json, declared, known
from sim import policies
from sim.stubs.http import Asked, Server, Threaded, packet, reset, say_nothing, script_of
from sim.stubs.replies import REPLIES, body, said

KEPT = 1_000
"""Most requests whose bodies are kept; all are counted."""

HUGE = 11 * 2**20

POLICIES = ("greedy", "hasty", "none", "random")

FINISH_REASONS = (
    "FINISH_REASON_UNSPECIFIED", "MAX_TOKENS", "SAFETY", "RECITATION", "LANGUAGE", "OTHER", "BLOCKLIST",
    "PROHIBITED_CONTENT", "SPII", "MALFORMED_FUNCTION_CALL", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_OTHER",
    "NO_IMAGE", "IMAGE_RECITATION", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE",
    "MALFORMED_RESPONSE", "ESCALATION", "PUP_LIMITED_DISABLED", "CONTINUATION", "MODEL_ARMOR",
)  # fmt: skip
"""Every finish reason that Gemini knows but STOP; a test compares them with the SDK's."""

STATUSES = {
    400: ("Bad Request", "INVALID_ARGUMENT"),
    401: ("Unauthorized", "UNAUTHENTICATED"),
    403: ("Forbidden", "PERMISSION_DENIED"),
    404: ("Not Found", "NOT_FOUND"),
    429: ("Too Many Requests", "RESOURCE_EXHAUSTED"),
    500: ("Internal Server Error", "INTERNAL"),
    502: ("Bad Gateway", "UNAVAILABLE"),
    503: ("Service Unavailable", "UNAVAILABLE"),
    504: ("Gateway Timeout", "DEADLINE_EXCEEDED"),
}

_SECRET = frozenset({"x-goog-api-key", "authorization", "cookie", "proxy-authorization"})
_PATH = re.compile(r"/v1(?:beta)?/models/(.+):generateContent")
_DATA = re.compile(r"<data>\n?(.*?)\n?</data>", re.DOTALL)


# --- what a good answer is --------------------------------------------------------------------------------------------


def context_of(text: str) -> Context:
    """What a rendered request shows, as a policy sees it. Raises BadInput where the text has no data block of ours."""
    found = _DATA.search(text)
    data = load(found[1]) if found else None
    if not isinstance(data, dict) or not isinstance(data.get("world_state"), dict):
        raise BadInput("there is no data block with a world_state between <data> and </data>")
    world, resources = data["world_state"], data.get("resources", {})
    if not isinstance(resources, dict) or not all(isinstance(about, dict) for about in resources.values()):
        raise BadInput("resources is an object of unit and decimals for each")
    scales = {name: about.get("decimals", 0) for name, about in resources.items()}
    limits = _of_shown(world["constraints"], {actor["id"] for actor in world["actors"]})
    state = read_state(exact_json({**world, "constraints": limits, "scales": scales}))
    for name, about in resources.items():
        state.resources[name] = Resource(name, str(about.get("unit", "units")), scales[name])
    for actor in world["actors"]:
        for name, need in actor.get("needs", {}).items():
            path = ("actors", actor["id"], "needs", name)
            known(name, state.resources, "resource", path)
            state.needs.setdefault(name, {})[actor["id"]] = declared(need, state.resources[name], path)
    may_move = data.get("may_move")
    mandate = None if may_move is None else frozenset(may_move)
    round_ = data.get("round", {})
    asked = Round(round_.get("epoch", state.epoch), "stub", round_.get("n", 1))
    return Context(asked, state, data.get("you"), mandate=mandate)


def _of_shown(constraints: Json, shown: set[str]) -> Json:
    """The constraints without what they say of actors that a large grid leaves out."""
    found = dict(constraints)
    for name, limit in constraints.items():
        if isinstance(limit, dict) and "actors" in limit:
            found[name] = {**limit, "actors": {actor: of for actor, of in limit["actors"].items() if actor in shown}}
    return found


def answer(policy: str, request: Json, n: int) -> bytes:
    """The body of `synthetic/<policy>` with what the policy proposes. Raises BadInput where a request is not ours."""
    parts = [part for content in request.get("contents", []) for part in content.get("parts", [])]
    text = "\n".join(part.get("text", "") for part in parts)
    context = context_of(text)
    propose: Callable[[Context], Answer]
    propose = policies.random(1) if policy == "random" else policies.PLAIN[policy]
    found = propose(context)
    whole = json.loads(synthetic_body(found, context.state.resources, f"{SYNTHETIC}{policy}"))
    system = sum(len(part.get("text", "")) for part in request.get("systemInstruction", {}).get("parts", []))
    used = {
        "promptTokenCount": (len(text) + system) // 4 + 1,
        "candidatesTokenCount": len(whole["candidates"][0]["content"]["parts"][0]["text"]) // 4 + 1,
        "thoughtsTokenCount": 64,
    }
    whole["usageMetadata"] = {**used, "totalTokenCount": sum(used.values())}
    return json.dumps({**whole, "responseId": f"stub-{n}"}).encode()


# --- scripts ----------------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """What one request gets, `times` in a row (None: for ever).

    `retry_after` is the header as it is sent, `retry_delay_s` Google's own in the body; `delay_s` is waited before the
    reply, or between two bytes of a drip; `location` is where a redirect leads; `body` stands in place of the reply's.
    """

    reply: str
    times: int | None = 1
    retry_after: str | None = None
    retry_delay_s: float | None = None
    delay_s: float = 0.0
    location: str = "http://127.0.0.1:9/"
    body: str | None = None


def error(status: int, message: str, delay_s: float | None = None) -> bytes:
    """An error as Google puts it."""
    told: Json = {"code": status, "message": message, "status": STATUSES[status][1]}
    if delay_s is not None:
        told["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{delay_s:g}s"}]
    return json.dumps({"error": told}).encode()


_Good = Callable[[], bytes]
_Play = Callable[[Step, _Good, asyncio.StreamWriter], Awaitable[bool]]


def _write(make: Callable[[Step, _Good], bytes]) -> _Play:
    """A reply in one write, after which the connection is kept."""

    async def play(step: Step, good: _Good, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(step.delay_s)
        writer.write(make(step, good))
        await writer.drain()
        return True

    return play


def _of_status(status: int) -> _Play:
    def make(step: Step, good: _Good) -> bytes:
        own = error(status, f"The stub was told to answer {status}.", step.retry_delay_s)
        headers = {} if step.retry_after is None else {"Retry_After": step.retry_after}
        return packet(status, own if step.body is None else step.body.encode(), **headers)

    return _write(make)


def _of_body(status: int, content: bytes, kind: str = "application/json") -> _Play:
    return _write(lambda step, good: packet(status, content if step.body is None else step.body.encode(), kind))


def _redirect(step: Step, good: _Good) -> bytes:
    return packet(302, b"", Location=step.location)


async def _reset(step: Step, good: _Good, writer: asyncio.StreamWriter) -> bool:
    """No reply but a RST."""
    await asyncio.sleep(step.delay_s)
    reset(writer)
    return False


async def _cut(step: Step, good: _Good, writer: asyncio.StreamWriter) -> bool:
    """Half a reply, and then the end of the connection."""
    whole = packet(200, good())
    writer.write(whole[: len(whole) - len(good()) // 2 - 1])
    await writer.drain()
    return False


async def _drip(step: Step, good: _Good, writer: asyncio.StreamWriter) -> bool:
    """The headers at once, and then a byte at a time."""
    whole = packet(200, good())
    return await _slowly(step, writer, whole, whole.index(b"\r\n\r\n") + 4)


async def _drip_headers(step: Step, good: _Good, writer: asyncio.StreamWriter) -> bool:
    """A byte at a time from the first."""
    return await _slowly(step, writer, packet(200, good()), 1)


async def _slowly(step: Step, writer: asyncio.StreamWriter, whole: bytes, first: int) -> bool:
    writer.write(whole[:first])
    for at in range(first, len(whole)):
        await writer.drain()
        await asyncio.sleep(step.delay_s or 0.05)
        writer.write(whole[at : at + 1])
    await writer.drain()
    return True


async def _silent(step: Step, good: _Good, writer: asyncio.StreamWriter) -> bool:
    """Nothing, until the client gives up or the stub ends."""
    await say_nothing(writer)
    return False


async def _slow(step: Step, good: _Good, writer: asyncio.StreamWriter) -> bool:
    """A good reply, late."""
    return await _write(lambda step, good: packet(200, good()))(
        step._replace(delay_s=step.delay_s or 2.0), good, writer
    )


def _scenarios() -> Iterator[tuple[str, _Play]]:
    yield "good", _write(lambda step, good: packet(200, good() if step.body is None else step.body.encode()))
    for reply in REPLIES:
        yield reply.name, _silent if reply.status is None else _of_body(reply.status, reply.body)
    for reason in FINISH_REASONS:
        yield f"finish {reason}", _of_body(200, body(said(), finish=reason))
    yield "blocked prompt", _of_body(200, b'{"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}')
    for status in STATUSES:
        yield str(status), _of_status(status)
    yield "html 200", _of_body(200, b"<!doctype html><title>Sign in</title>", "text/html")
    yield "html 502", _of_body(502, b"<html><h1>502 Bad Gateway</h1></html>", "text/html")
    yield "empty 200", _of_body(200, b"")
    yield "not UTF-8", _of_body(200, b'{"candidates": [{"content": "\xff\xfe"}]}')
    yield "truncated", _write(lambda step, good: packet(200, good()[: len(good()) // 2]))
    yield "huge", _write(lambda step, good: packet(200, body(said(reasoning="x" * HUGE))))
    yield "packed", _write(lambda step, good: packet(200, gzip.compress(good()), Content_Encoding="gzip"))
    yield "redirect", _write(_redirect)
    yield "no HTTP", _write(lambda step, good: b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    yield "reset", _reset
    yield "close in mid-body", _cut
    yield "drip", _drip
    yield "drip headers", _drip_headers
    yield "silent", _silent
    yield "slow", _slow


SCENARIOS: dict[str, _Play] = dict(_scenarios())
"""Everything that a step can be, by name."""


_KINDS: dict[str, tuple[type, ...]] = {"times": (int,), "retry_delay_s": (int, float), "delay_s": (int, float)}


def _step(one: str | Json | Step, i: int) -> Step:
    """A step as it is written; `i` is its place in the script."""
    if isinstance(one, Step):
        return one
    found: Json = {"reply": one} if isinstance(one, str) else dict(one)
    if found.get("times") == "ever":
        found["times"] = None
    for key, value in found.items():
        known(key, Step._fields, "key", (i, key))
        if value is not None and not isinstance(value, _KINDS.get(key, (str,))):
            raise BadInput(f"{key} of a step can't be {value!r}", (i, key))
    return Step(**{"reply": "", **found})


def steps(script: Iterable[str | Json | Step]) -> list[Step]:
    """A script's steps. Raises BadInput where one is none."""
    found = [_step(one, i) for i, one in enumerate(script)]
    for i, step in enumerate(found):
        known(step.reply, SCENARIOS, "reply", (i,))
    return found


class Script:
    """Steps, one for each request in turn."""

    def __init__(self, script: Iterable[str | Json | Step] = ()) -> None:
        self._left = deque(steps(script))
        self._played: Counter[int] = Counter()

    def add(self, script: Iterable[str | Json | Step]) -> None:
        """More steps, after those that are left."""
        self._left.extend(steps(script))

    def next(self) -> Step:
        """The step of the next request."""
        if not self._left:
            return Step("good")
        step = self._left[0]
        self._played[len(self._left)] += 1
        if step.times is not None and self._played[len(self._left)] >= step.times:
            self._left.popleft()
        return step


# --- the server -------------------------------------------------------------------------------------------------------


class GeminiServer(Server):
    """The stub in an event loop. `requests` are those that were made, oldest first, without any secret in them."""

    def __init__(self, script: Iterable[str | Json | Step] = (), policy: str = "greedy") -> None:
        super().__init__()
        known(policy, POLICIES, "policy", ())
        self.policy = policy
        self.script = Script(script)
        self.requests: deque[Json] = deque(maxlen=KEPT)
        self.count = 0

    async def answer(self, asked: Asked, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; whether the connection can be used for another."""
        url = urlsplit(asked.target)
        found = _PATH.fullmatch(url.path)
        if asked.method == "POST" and found:
            return await self._generate(asked, found[1], writer)
        content, kind, status = b"", "text/html", 404
        if asked.method == "GET" and url.path == "/":
            content, status = self._page().encode(), 200
        elif asked.method == "GET" and url.path == "/requests":
            content = json.dumps({"count": self.count, "requests": list(self.requests)}).encode()
            kind, status = "application/json", 200
        else:
            content, kind = (
                error(404, "There is nothing here but generateContent, / and /requests."),
                "application/json",
            )
        writer.write(packet(status, content, kind))
        await writer.drain()
        return True

    async def _generate(self, asked: Asked, model: str, writer: asyncio.StreamWriter) -> bool:
        self.count += 1
        n, url = self.count, urlsplit(asked.target)
        try:
            request = json.loads(asked.body)
        except (ValueError, RecursionError):
            request = None
        in_header = bool(asked.headers.get("x-goog-api-key"))
        in_url = any(name == "key" for name, _ in parse_qsl(url.query))
        step = self.script.next()
        told = {"n": n, "path": url.path, "model": model, "key_in_header": in_header, "key_in_url": in_url}
        told |= {"headers": {name: value for name, value in asked.headers.items() if name not in _SECRET}}
        self.requests.append({**told, "body": request, "reply": step.reply})
        if step.reply == "good" and not (in_header or in_url):
            writer.write(
                packet(403, error(403, "Requests without a key are refused, as Google does; any key will do."))
            )
            return True
        try:
            if not isinstance(request, dict):
                raise BadInput("the body is no JSON object")
            good = answer(self.policy, request, n)
        except (BadInput, AttributeError, KeyError, TypeError) as wrong:
            if step.reply == "good":
                writer.write(packet(400, error(400, f"{wrong}")))
                return True
            good = body(said())
        return await SCENARIOS[step.reply](step, lambda: good, writer)

    def _page(self) -> str:
        """What it was asked, for a person."""
        rows = "".join(
            f"<tr><td>{one['n']}<td>{html.escape(one['model'])}<td>{html.escape(one['reply'])}"
            f"<td><details><summary>{len(json.dumps(one['body']))} characters</summary>"
            f"<pre>{html.escape(json.dumps(one['body'], indent=1, ensure_ascii=False))}</pre></details>"
            for one in list(self.requests)[-20:][::-1]
        )
        return (
            "<!doctype html><meta charset=utf-8><title>Stub of Gemini</title><h1>Stub of Gemini</h1>"
            f"<p>Asked {self.count} times. No model is here: the policy <b>{self.policy}</b> answers.</p>"
            f"<table><tr><th>n<th>model<th>reply<th>asked</tr>{rows}</table>"
        )


class Stub(Threaded):
    """The stub, in a thread that ends with the block; port 0 takes a free one."""

    def __init__(self, script: Iterable[str | Json | Step] = (), policy: str = "greedy", port: int = 0) -> None:
        self._server = GeminiServer(script, policy)
        super().__init__(self._server, "the stub of Gemini", port)

    def __enter__(self) -> Stub:
        self.start()
        return self

    @property
    def count(self) -> int:
        """How many questions it was asked."""
        return self._server.count

    @property
    def requests(self) -> list[Json]:
        """The questions, oldest first."""
        return list(self._server.requests)

    def answer(self, *script: str | Json | Step) -> None:
        """More steps, for the questions from here on."""
        self._server.script.add(script)


@click.command()
@click.option("--port", default=8090, show_default=True, help="0 takes a free one.")
@click.option("--policy", type=click.Choice(POLICIES), default="greedy", show_default=True, help="who answers")
@click.option("--script", type=click.Path(path_type=Path), help='a JSON list of steps, as ["good", "429", "drip"]')
@click.option("--list", "listed", is_flag=True, help="print what a step may be, and end")
def main(port: int, policy: str, script: Path | None, listed: bool) -> None:
    """A stub of Gemini's REST API on loopback, until it is interrupted."""
    if listed:
        click.echo("a step is one of these names, or an object such as")
        click.echo('{"reply": "429", "times": 2, "retry_after": "5"}; keys: ' + ", ".join(Step._fields) + "\n")
        click.echo("\n".join(SCENARIOS))
        return

    def listening(found: int) -> None:
        url = f"http://127.0.0.1:{found}"
        click.echo(f"a stub of Gemini answers on {url}; in another terminal, so that it is asked:")
        click.echo(f"export GRIDGOV_GEMINI_BASE_URL={url} GEMINI_API_KEY=any-key-will-do")

    try:
        server = GeminiServer(script_of(script, "steps"), policy)
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(server.serve(port, listening, asyncio.Event()))
    except (BadInput, OSError) as wrong:
        raise SystemExit(f"the stub can't start: {wrong}; another --port may be free, 0 is any") from None


if __name__ == "__main__":
    main()
