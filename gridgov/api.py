"""The HTTP app: keys, limits, strict JSON, status codes, problem details, metrics, logs; what is done is in `service`.

Bodies are read strictly (`reply.load`): numbers stay exact, nothing is coerced. Endpoints run on threads; health and
metrics are answered on the event loop, so that they live when all threads are busy.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import anyio
import anyio.to_thread
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Header, Path, Query, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gridgov import postgres
from gridgov.auth import Caller, Keys
from gridgov.batch import Committed
from gridgov.errors import BadInput, Conflict, GridgovError, Misplaced, Unreachable
from gridgov.forms import (
    BODIES,
    EPOCH_MAX,
    ROUND_ID,
    SEQ_MAX,
    UUID,
    AckBody,
    ActAnswer,
    ActivationBody,
    ActorBody,
    AnyAnswer,
    Body,
    CloseBody,
    ConstraintsBody,
    ContextAnswer,
    ControlBody,
    DigestsAnswer,
    FlowsBody,
    FreezeBody,
    OutcomeAnswer,
    PageAnswer,
    ReasonBody,
    RecentAnswer,
    SubmissionBody,
    TransfersBody,
)
from gridgov.gemini import Prices
from gridgov.model import Malformed, Outcome, uuid5
from gridgov.overview import Overview
from gridgov.pages import NotReady, NotThere
from gridgov.postgres import Pool, Reader, Writer
from gridgov.reply import Fault, load
from gridgov.service import (
    DEADLINE_S,
    Asked,
    Failure,
    Forbidden,
    Recorded,
    Service,
    Submission,
)
from gridgov.serving import Server
from gridgov.statement_rows import COLUMNS, csv_of
from gridgov.summary import HOURS_MAX
from gridgov.views import (
    PREVIEW,
    BalancesAnswer,
    MeAnswer,
    PromptsAnswer,
    StatementAnswer,
    StoryAnswer,
    SummaryAnswer,
)
from gridgov.wire import Json, microseconds, timestamp

MAX_IN_FLIGHT = 256
"""Most requests at once; those beyond it are asked to come back."""

BODY_MAX = 1 << 20
REPLY_MAX = 10 << 20
"""Most bytes of a body, and of one that carries a model's reply."""

MEMORY_MAX = 128 << 20
"""Most bytes of bodies that are kept at once."""

BODY_S = 10.0
"""How long a body may take to come."""

LARGE = 1 << 15
"""Bodies above so many bytes are read on a thread."""

RETRY_AFTER_S = 2
HEALTH_S = 5.0
"""How long the database may take to answer a question about its health."""

REOPEN_S = 1.0
"""How long a failure to open the database stands before the next try."""

SHUTDOWN_S = 30
PROBLEMS = "application/problem+json"

_access = logging.getLogger("gridgov.access")
_reports = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_DURATION = r"^[1-9][0-9]{0,5}(s|m|h)$"
_DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_SECONDS = {"s": 1, "m": 60, "h": 3600}

T = TypeVar("T")

# --- problems ---------------------------------------------------------------------------------------------------------

TITLES = {
    400: "This cannot be read",
    401: "A key is needed",
    403: "This key may not do that",
    404: "There is no such thing",
    405: "This cannot be done here",
    409: "It stands for something else",
    413: "Too large",
    422: "What was sent is wrong",
    500: "Something went wrong here",
    503: "Not now",
}
DETAILS = {
    400: "expected a value, found the end (character 17)",
    401: "send a key that is good: Authorization: Bearer gridgov_...",
    403: "this needs a key with the scope operate",
    404: "there is no proposal 5b1f6f0e-3f38-5c5c-9a55-0d2f8f0d9f10",
    405: "Method Not Allowed",
    409: "proposal 5b1f6f0e-3f38-5c5c-9a55-0d2f8f0d9f10 was decided before with other input (executed)",
    413: "the body has more than 1048576 bytes",
    422: "unknown resource 'enrgy'; did you mean 'energy'?",
    500: "this is a fault of the app; the log has it under the request id",
    503: "the database gave no answer; try again",
}


class Problem(HTTPException):
    """A request that cannot be answered; `extra` are members beside those of RFC 9457."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        super().__init__(status, detail, dict(headers) if headers else None)
        self.extra = extra


class Answer(JSONResponse):
    """JSON as it is: exact numbers, UTF-8."""

    def render(self, content: Any) -> bytes:
        """The bytes."""
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _problem(request_id: str, status: int, detail: str, headers: Mapping[str, str] | None, extra: Json) -> Response:
    said = {"type": "about:blank", "title": TITLES.get(status, "Error"), "status": status, "detail": detail}
    own = dict(headers or {})
    if status == 503:
        own.setdefault("Retry-After", str(RETRY_AFTER_S))
    return Answer({**said, "instance": request_id, **extra}, status, own, PROBLEMS)


def _of(error: GridgovError) -> Problem:
    """What an error of ours is over HTTP."""
    said = str(error)
    if isinstance(error, Recorded):
        return Problem(409, said, recorded=error.recorded, differs=error.differs)
    if isinstance(error, Conflict):
        return Problem(409, said)
    if isinstance(error, Misplaced):
        return Problem(503, re.sub(r" \(.*\)", "", said, flags=re.DOTALL))
    if isinstance(error, BadInput):
        return Problem(422, said, path=list(error.path)) if error.path else Problem(422, said)
    if isinstance(error, NotThere | Forbidden):
        return Problem(404 if isinstance(error, NotThere) else 403, said)
    if isinstance(error, NotReady):
        return Problem(503, said)
    if isinstance(error, Unreachable):
        return Problem(503, re.sub(r" \(.*\)", "", said, flags=re.DOTALL))  # without the address of the database
    _reports.error("a request failed: %s", error, exc_info=error)
    return Problem(500, DETAILS[500])


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for these"
    extra = error.extra if isinstance(error, Problem) else {}
    return _problem(_id_of(request.scope), error.status_code, str(error.detail), error.headers, extra)


async def _on_ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, GridgovError), "registered for these"
    return await _on_http(request, _of(error))


async def _on_invalid(request: Request, error: Exception) -> Response:
    """What FastAPI finds wrong with a path, a query or a header: 400 for a header, 422 for the others."""
    assert isinstance(error, RequestValidationError), "registered for these"
    return await _on_http(request, _invalid(400 if error.errors()[0]["loc"][0] == "header" else 422, error.errors()))


_PLAINLY = {
    "bool_type": "expected true or false",
    "dict_type": "expected an object",
    "extra_forbidden": "there is no such key here",
    "int_type": "expected a whole number",
    "is_instance_of": "expected a number",
    "list_type": "expected a list",
    "missing": "is missing",
    "model_type": "expected an object",
    "string_type": "expected text",
}
_PATTERNS = {UUID: "expected a UUID", r"\S": "expected some words", r"^[^\x00]+$": "expected text without U+0000"}


def _invalid(status: int, errors: Any, body: Any = None) -> Problem:
    """What is wrong with a request, at each place in plain words. A form's alternatives are no places: all are said."""
    found: dict[tuple[str | int, ...], list[str]] = {}
    for error in errors[:20]:
        if error["type"] != "none_required":
            said = _PLAINLY.get(error["type"]) or _PATTERNS.get(error.get("ctx", {}).get("pattern")) or error["msg"]
            found.setdefault(_place(error, body), []).append(said)
    told = [{"path": list(path), "message": _either(said)} for path, said in found.items()]
    where = ".".join(str(step) for step in told[0]["path"])
    return Problem(status, f"{where}: {told[0]['message']}", path=told[0]["path"], errors=told)


def _either(alternatives: Iterable[str]) -> str:
    """Alternatives in one sentence, each once; whole numbers are not told apart from numbers."""
    said = dict.fromkeys(alternatives)
    if _PLAINLY["is_instance_of"] in said:
        said.pop(_PLAINLY["int_type"], None)
    expected = "expected "
    if all(one.startswith(expected) for one in said):
        return expected + ", or ".join(one.removeprefix(expected) for one in said)
    return ", or ".join(said)


def _place(error: Any, body: Any) -> tuple[str | int, ...]:
    """The place of an error in a body; all of it where there is no body."""
    if body is None:
        return tuple(error["loc"])
    steps: list[str | int] = []
    for number, step in enumerate(error["loc"], 1):
        if step in body if isinstance(body, dict) else isinstance(body, list) and type(step) is int:
            steps, body = [*steps, step], body[step]
        elif error["type"] == "missing" and number == len(error["loc"]):
            steps.append(step)
    return tuple(steps)


def _id_of(scope: Scope) -> str:
    return str(scope.get("gridgov.request_id", ""))


# --- bodies, read strictly --------------------------------------------------------------------------------------------

_UNREADABLE = {Fault.TRUNCATED, Fault.NOT_PURE_JSON, Fault.MULTIPLE_VALUES, Fault.NO_ANSWER, Fault.WRONG_TYPE}
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[{]|[\]}]|[,:]', re.DOTALL)


def _json(data: bytes | str) -> Any:
    """A body as JSON, exactly. Raises Problem."""
    value = load(data)
    if isinstance(value, Malformed):
        raise Problem(400 if value.code in _UNREADABLE else 422, f"the body is no JSON as it must be: {value.detail}",
                      code=value.code)  # fmt: skip
    return value


def _cut(text: str, name: str) -> tuple[str, str | None]:
    """The text of an object with null for the value of a key, and the text of that value; None where it has no such.

    Nothing is checked, and nothing is nested: what isn't JSON is found by whoever reads the two texts.
    """
    depth, start, key, last = 0, -1, "", ""
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token in ("]", "}"):
            depth -= 1
        if start >= 0 and ((token == "," and depth == 1) or (depth == 0 and token == "}")):
            return f"{text[:start]}null{text[match.start() :]}", text[start : match.start()].strip()
        if token in ("[", "{"):
            depth += 1
        elif depth == 1 and token == ":" and start < 0:
            if key == f'"{name}"' and last in ("{", ","):
                start = match.end()
        elif depth == 1 and token[0] == '"':
            key = token
            continue
        last = token
    return text, None


def _submission(data: bytes) -> Any:
    """The body of a submission; in place of a model's reply stand its bytes, as they came."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return _json(data[:BODY_MAX])
    rest, reply = _cut(text, "model_response") if '"model_response"' in text else (text, None)
    if len(rest) > BODY_MAX:
        raise Problem(413, f"the body has more than {BODY_MAX} bytes beside model_response")
    value = _json(rest)
    if reply is None or not isinstance(value, dict) or reply == "null":
        return value
    try:
        found = json.loads(reply)
    except ValueError as error:
        raise Problem(400, f"the body is no JSON: model_response: {error}") from None
    except RecursionError:
        found = {}
    if isinstance(found, str):
        raw = found.encode("utf-8", "surrogatepass")
    elif isinstance(found, dict):
        raw = reply.encode()
    else:
        raise Problem(422, "model_response: expected an object or text", path=["model_response"])
    return {**value, "model_response": raw}


async def _received(request: Request, most: int) -> bytes:
    """The bytes of a body. Raises Problem where there are too many."""
    too_large = Problem(413, f"the body has more than {most} bytes", {"Connection": "close"})
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > most:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise too_large
        parts.append(part)
    return b"".join(parts)


def _posted(model: type[Body]) -> Any:
    """The body of a request as a model, for an endpoint's parameter; the key was checked before."""
    read, most = (_submission, REPLY_MAX) if model is SubmissionBody else (_json, BODY_MAX)

    def parsed(data: bytes) -> Body:
        value = read(data)
        if not isinstance(value, dict):
            raise Problem(422, "expected an object")
        try:
            return model.model_validate(value)
        except ValidationError as error:
            raise _invalid(422, error.errors(include_url=False, include_input=False), value) from None

    async def body(request: Request) -> Body:
        data = await _received(request, most)
        return await anyio.to_thread.run_sync(parsed, data) if len(data) > LARGE else parsed(data)

    return Depends(body)


# --- the desk: what an app holds --------------------------------------------------------------------------------------


class Meters:
    """What Prometheus is told, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.outcomes = Counter("gridgov_outcomes", "Outcomes recorded by this app", ["outcome"], registry=registry)
        for outcome in Outcome:
            self.outcomes.labels(outcome.value)
        sizes = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
        self.batch = Histogram("gridgov_batch_size", "Commands in a commit", buckets=sizes, registry=registry)
        times = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]
        self.commit = Histogram("gridgov_commit_seconds", "From batch to commit", buckets=times, registry=registry)
        self.entries = Gauge("gridgov_ledger_height", "Entries in the ledger", registry=registry)
        self.records = Gauge("gridgov_journal_height", "Records in the journal", registry=registry)
        self.lag = Gauge("gridgov_outbox_lag", "Outcomes that nobody acknowledged yet", registry=registry)
        self.age = Gauge("gridgov_loop_age_seconds", "Since the last outcome; NaN without one", registry=registry)
        labels = ["method", "route", "status"]
        self.requests = Counter("gridgov_requests", "Requests answered", labels, registry=registry)
        self.seconds = Histogram("gridgov_request_seconds", "From request to answer", ["route"], registry=registry)

    def committed(self, batch: Committed) -> None:
        """A batch was committed."""
        self.batch.observe(batch.commands)
        if batch.records:
            self.commit.observe(batch.seconds)
            self.records.set(batch.seq)
            self.entries.set(batch.entries)


class Held(NamedTuple):
    """What is open while the app runs."""

    service: Service
    acks: Pool


class Desk:
    """What an app holds: its keys, its meters, and the service, which is opened when the database is there."""

    def __init__(
        self, url: str, grid: str, public_url: str, clock: Callable[[], int], max_in_flight: int, deadline_s: float
    ) -> None:
        self.max_in_flight, self.in_flight, self.in_memory = max_in_flight, 0, 0
        self.meters = Meters()
        self.keys = Keys(url, grid)
        self.health = anyio.CapacityLimiter(4)
        self._url, self._grid, self._public_url = url, grid, public_url
        self._clock, self._deadline_s = clock, deadline_s
        self._held: Held | None = None
        self._failure: tuple[float, GridgovError] | None = None
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether `service` is there at once."""
        return self._held is not None

    @property
    def service(self) -> Service:
        """The service. Raises Unreachable where the database is away or not migrated."""
        held = self._held
        if held is None:
            try:
                held = self.open()
            except BadInput as error:
                raise Unreachable(str(error)) from None
        return held.service

    def open(self) -> Held:
        """Opens the database, if it isn't open. Raises BadInput where there is no such grid, or Unreachable."""
        with self._lock:
            if self._held is None:
                if self._failure is not None and time.monotonic() < self._failure[0]:
                    raise self._failure[1]
                try:
                    writer = Writer(self._url, self._grid, on_commit=self.meters.committed)
                except GridgovError as error:
                    self._failure = (time.monotonic() + REOPEN_S, error)
                    raise
                acks = Pool(self._url, self._grid, postgres.APP, 2)
                service = Service(
                    writer, Reader(self._url, self._grid), acks, self._clock, self._public_url,
                    deadline_s=self._deadline_s,
                    on_outcome=lambda outcome: self.meters.outcomes.labels(outcome.value).inc(),
                )  # fmt: skip
                self._held = Held(service, acks)
            return self._held

    def close(self) -> None:
        """Finishes what was taken on, and lets go of the database."""
        with self._lock:
            held, self._held = self._held, None
            self._failure = (math.inf, Unreachable("the app is shutting down; ask again when it is back"))
        if held is not None:
            held.service.writer.close()
            held.service.reader.close()
            held.acks.close()
        self.keys.close()

    async def ask(self, question: Callable[[], T]) -> T:
        """What a question about health comes to, in good time. Raises Unreachable."""
        with anyio.move_on_after(HEALTH_S):
            return await anyio.to_thread.run_sync(question, abandon_on_cancel=True, limiter=self.health)
        raise Unreachable("the database gave no answer in time")


def _desk(request: Request) -> Desk:
    desk = request.app.state.desk
    assert isinstance(desk, Desk), "create puts it there"
    return desk


async def _service(request: Request) -> Service:
    desk = _desk(request)
    return desk.service if desk.is_open else await anyio.to_thread.run_sync(lambda: desk.service)


async def _overview(request: Request, service: Annotated[Service, Depends(_service)]) -> Overview:
    return Overview(service, request.app.state.prices)


_bearer = HTTPBearer(auto_error=False, description="A key of `gridgov keys create`")


def _asked_of(route: APIRoute) -> frozenset[str]:
    """The query parameters that an endpoint has."""
    parts = [route.dependant, *route.dependant.dependencies]
    return frozenset(str(field.alias) for part in parts for field in part.query_params)


def _check_query(request: Request) -> None:
    """Raises Problem for a query parameter that there is not, or that comes twice: a misspelt dry_run would act."""
    route, names = request.scope.get("route"), [name for name, _ in request.query_params.multi_items()]
    if names and isinstance(route, APIRoute):
        there = _asked_of(route)
        for name in names:
            if name not in there:
                raise Problem(
                    422, f"there is no query parameter {name!r} here, but {', '.join(sorted(there)) or 'none'}"
                )
            if names.count(name) > 1:
                raise Problem(422, f"the query parameter {name!r} comes more than once")


def _admitted(scope: str, whole: bool = False) -> Any:
    """Who calls, for an endpoint's parameter. 401 without a good key, 403 where it lacks the scope.

    `whole`: what it does is of the whole grid, so a key with a mandate may not.
    """

    async def caller(request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]) -> Caller:
        keys, header = _desk(request).keys, request.headers.get("authorization")
        try:
            known = keys.at_hand(header)
            found = keys.caller(header) if known else await anyio.to_thread.run_sync(keys.caller, header)
        except BadInput as error:
            raise Unreachable(str(error)) from None
        if found is None:
            raise Problem(401, DETAILS[401], {"WWW-Authenticate": 'Bearer realm="gridgov"'})
        request.scope["gridgov.key"] = found.name
        if scope not in found.scopes:
            raise Problem(403, f"this needs a key with the scope {scope}")
        if whole and found.mandate is not None:
            raise Problem(403, "this is of the whole grid, and the mandate of this key is not")
        _check_query(request)
        return found

    return Depends(caller)


MayRead = Annotated[Caller, _admitted("read")]
MayPropose = Annotated[Caller, _admitted("propose")]
MayRun = Annotated[Caller, _admitted("propose", whole=True)]
MayOperate = Annotated[Caller, _admitted("operate", whole=True)]
Desired = Annotated[Service, Depends(_service)]
Seen = Annotated[Overview, Depends(_overview)]
After = Annotated[int, Query(ge=0, le=SEQ_MAX, description="The cursor: what comes after this")]
Limit = Annotated[int, Query(ge=1, le=1_000)]
OfEpoch = Annotated[int | None, Query(ge=0, le=EPOCH_MAX)]
Text = Annotated[str | None, Query(pattern=r"^[^\x00]+$", max_length=200)]
Name = Annotated[str | None, Query(pattern="^[a-z][a-z0-9_]{0,63}$")]
Day = Annotated[str, Query(pattern=f"^({_DAY[1:-1]})?$", description="A day of UTC, such as 2026-11-22")]
DigestLimit = Annotated[int, Query(ge=1, le=100)]
Moment = Annotated[
    str | None, Query(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$", description="As 2026-11-22T12:00:00Z")
]
Role = Annotated[Literal["active", "shadow"], Query(description="A shadow is judged, and never applied")]
ProposalId = Annotated[str, Path(pattern=UUID)]
EntryId = Annotated[int, Path(ge=1, le=SEQ_MAX)]
DryRun = Annotated[bool, Query(description="Shows what would be recorded, and records nothing")]
Key = Annotated[
    str, Header(alias="Idempotency-Key", pattern="^[ -~]{1,200}$", description="The same again gets the same answer")
]


def _about(
    answer: type[BaseModel],
    *statuses: int,
    body: type[Body] | None = None,
    example: Any = None,
    other: Json | None = None,
) -> Json:
    """What OpenAPI says of an endpoint: what it answers, in which other types too, how it can fail, what it is sent."""
    found: dict[int | str, Any] = {200: {"model": answer}}
    if other is not None:
        found[200]["content"] = dict(other)
    if example is not None:
        found[200]["content"] = {"application/json": {"example": example}}
    for status in sorted({401, 403, 405, 422, 500, 503, *statuses, *((400, 413) if body else ())}):
        found[status] = _documented(status)
    about: Json = {"responses": found, "response_model": None}
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body.__name__}"}
        about["openapi_extra"] = {
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}
        }
    return about


def _documented(status: int) -> Json:
    said = {"type": "about:blank", "title": TITLES[status], "status": status, "detail": DETAILS[status]}
    content = {"schema": {"$ref": "#/components/schemas/ProblemBody"}, "example": {**said, "instance": "8c0e51d2"}}
    found: Json = {"description": TITLES[status], "content": {PROBLEMS: content}}
    if status == 503:
        found["headers"] = {"Retry-After": {"schema": {"type": "string"}, "description": "Seconds"}}
    if status == 401:
        found["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    return found


def _asked(request: Request, key: str, body: ReasonBody, dry_run: bool) -> Asked:
    """An act as it was asked for."""
    sent = body.model_dump(by_alias=True, exclude_unset=True)
    return Asked(key, f"{request.method} {request.scope['path']}", sent, dry_run)


# --- endpoints: what is -----------------------------------------------------------------------------------------------

v1 = APIRouter(prefix="/v1")

_WORLD = {
    "epoch": 42, "timestamp": "2025-02-28T12:00:00Z",
    "actors": [{"id": "actor-1", "type": "node", "balances": {"energy": 100, "water": 50}}],
    "resources": ["energy", "water", "credits"], "constraints": {"max_transfer": 50, "min_balance": 10},
}  # fmt: skip


@v1.get("/world-state", **_about(AnyAnswer, 404, example=_WORLD))
def get_world_state(_: MayRead, service: Desired, epoch: OfEpoch = None) -> Response:
    """The WorldState of now, or as it was at the close of an epoch."""
    return Answer(service.world_state(epoch))


@v1.get("/context", **_about(ContextAnswer, 404, 409))
def get_context(
    caller: MayRead, service: Desired, prompt: Name = None, extra: bool = False, role: Role = "active"
) -> Response:
    """The open round of this key, and the request that puts it to a model; repeats until the round has an outcome.

    `role=shadow`: that of the shadow beside it, where one is active. Ask for both before you answer either: then both
    are shown the same state. 409: the prompt in force is not on disk as it was activated.
    """
    return Answer(service.context(caller, prompt, extra, role))


@v1.get("/proposals", **_about(PageAnswer))
def get_proposals(
    _: MayRead,
    service: Desired,
    after: After = 0,
    limit: Limit = 100,
    outcome: Outcome | None = None,
    proposer: Text = None,
    epoch: OfEpoch = None,
    role: Role = "active",
) -> Response:
    """Proposals with their final outcomes, in order of seq; `role=shadow`: those of shadows, in order of id."""
    said = None if outcome is None else outcome.value
    listed = service.proposals if role == "active" else service.shadows
    return Answer(listed(after, limit, outcome=said, proposer=proposer, epoch=epoch))


@v1.get("/proposals/{proposal_id}", **_about(OutcomeAnswer, 404))
def get_proposal(_: MayRead, service: Desired, overview: Seen, proposal_id: ProposalId) -> Response:
    """What was proposed, and what became of it in the end; `reversed` are the records that took it back."""
    found = service.proposal(proposal_id.lower())
    return Answer(found if found.get("shadow") is True else {**found, "reversed": overview.reversed(found["entries"])})


@v1.get("/ledger", **_about(PageAnswer))
def get_ledger(
    _: MayRead,
    service: Desired,
    after: After = 0,
    limit: Limit = 100,
    actor: Text = None,
    resource: Text = None,
    kind: Name = None,
    epoch: OfEpoch = None,
) -> Response:
    """Ledger entries, in order of id; amounts in units."""
    return Answer(service.ledger(after, limit, actor, resource=resource, kind=kind, epoch=epoch))


_ENTRY = {
    "id": 1201, "proposal_id": ROUND_ID, "actor_from": "actor-1", "actor_to": "actor-2", "resource": "energy",
    "amount": 12.5, "executed_at": "2026-11-22T12:00:00Z", "metadata": {"proposer": "planner"}, "seq": 812,
    "epoch": 42, "kind": "transfer",
}  # fmt: skip


_RECORD = {
    "seq": 9, "epoch": 42, "kind": "control", "at": "2026-11-22T12:00:00Z", "digest": "9f" * 32, "body": "{…}",
    "payload": {"operator": "mia", "paused": True, "reason": "storm"},
}  # fmt: skip


@v1.get("/ledger/{id}", **_about(AnyAnswer, 404, example=_ENTRY))
def get_entry(_: MayRead, service: Desired, id: EntryId) -> Response:
    """One ledger entry."""
    return Answer(service.entry(id))


@v1.get("/journal", **_about(PageAnswer))
def get_journal(_: MayRead, service: Desired, after: After = 0, limit: Limit = 100, kind: Name = None) -> Response:
    """Journal records as they are chained, in order of seq; amounts are minor units."""
    return Answer(service.journal(after, limit, kind))


class Looking(NamedTuple):
    """Where somebody looks back from, and how far."""

    before: int
    limit: int
    since: str | None
    until: str | None


def _looking(
    before: Annotated[int, Query(ge=0, le=SEQ_MAX, description="The cursor: what came before this; 0: the newest")] = 0,
    limit: Limit = 100,
    since: Moment = None,
    until: Moment = None,
) -> Looking:
    """What the endpoints that look back have in common. Raises BadInput where a time is none."""
    times = [None if at is None else timestamp(microseconds(at, (name,))) for name, at in
             (("since", since), ("until", until))]  # fmt: skip
    return Looking(before, limit, *times)


Looked = Annotated[Looking, Depends(_looking)]


@v1.get("/recent/proposals", **_about(RecentAnswer))
def get_recent_proposals(
    _: MayRead,
    service: Desired,
    looked: Looked,
    outcome: Outcome | None = None,
    proposer: Text = None,
    epoch: OfEpoch = None,
    code: Name = None,
    text: Text = None,
) -> Response:
    """Proposals, newest first; `code`: those that broke this rule, `text`: those in which this is written."""
    said = None if outcome is None else outcome.value
    found: Json = {"outcome": said, "proposer": proposer, "epoch": epoch, "code": code, "text": text}
    return Answer(service.back("proposals", *looked, **found))


@v1.get("/recent/ledger", **_about(RecentAnswer))
def get_recent_entries(
    _: MayRead,
    service: Desired,
    looked: Looked,
    actor: Text = None,
    resource: Text = None,
    kind: Name = None,
    epoch: OfEpoch = None,
) -> Response:
    """Ledger entries, newest first; amounts in units."""
    found: Json = {"actor": None if actor is None else uuid5(actor), "resource": resource, "kind": kind, "epoch": epoch}
    return Answer(service.back("ledger", *looked, **found))


@v1.get("/recent/journal", **_about(RecentAnswer))
def get_recent_records(
    _: MayRead, service: Desired, looked: Looked, kind: Name = None, epoch: OfEpoch = None, text: Text = None
) -> Response:
    """Journal records, newest first; `text`: those in which this is written."""
    return Answer(service.back("journal", *looked, kind=kind, epoch=epoch, text=text))


@v1.get("/requests/{request}", **_about(AnyAnswer, 404, example=_RECORD))
def get_request(_: MayRead, service: Desired, request: Annotated[str, Path(pattern=UUID)]) -> Response:
    """The journal record that an act of a person came to, by the request in its link."""
    return Answer(service.requested(request.lower()))


@v1.get("/constraints", **_about(AnyAnswer, example={"seq": 1, "constraints": {"max_transfer": 50, "min_balance": 0}}))
def get_constraints(_: MayRead, service: Desired) -> Response:
    """The constraints in force, in units, and the record that set them."""
    return Answer(service.constraints())


@v1.get("/control", **_about(AnyAnswer, example={"paused": False, "epoch": 42, "holds": [], "active": {}}))
def get_control(_: MayRead, service: Desired) -> Response:
    """Whether the grid is paused, what is held, and which prompts and models are in force."""
    return Answer(service.controls())


_ACTORS = {
    "items": [{"id": "home-1", "uuid": ROUND_ID, "type": "node", "frozen": False, "balances": {"energy": 12.5},
               "reserved": {"energy": 2}}],
    "resources": [{"name": "energy", "unit": "kWh", "scale": 3}], "next": None,
}  # fmt: skip


@v1.get("/actors", **_about(PageAnswer, example=_ACTORS))
def get_actors(_: MayRead, overview: Seen) -> Response:
    """Everyone but the boundary, with what each has and what holds reserve of it; and the resources."""
    return Answer(overview.actors())


# --- endpoints: what a person looks at --------------------------------------------------------------------------------

Hours = Annotated[int, Query(ge=1, le=HOURS_MAX, description="How far back the window reaches, in hours")]
Month = Annotated[str | None, Query(pattern="^[0-9]{4}-[0-9]{2}$", description="Such as 2026-11; in UTC")]
Since = Annotated[
    str | None, Query(alias="from", max_length=40, description="A day, or a time in UTC such as 2026-11-30T12:00:00Z")
]
Until = Annotated[str | None, Query(max_length=40, description="As `from`; what happened then is left out")]
ActorId = Annotated[str, Path(max_length=200)]
Format = Annotated[Literal["json", "csv"], Query(alias="format")]


@v1.get("/me", **_about(MeAnswer))
def get_me(caller: MayRead, overview: Seen) -> Response:
    """Whose key this is, and what it may do."""
    return Answer(overview.me(caller))


@v1.get("/summary", **_about(SummaryAnswer))
def get_summary(_: MayRead, overview: Seen, hours: Hours = 24) -> Response:
    """What an operator needs to know of the last hours, as of one moment."""
    return Answer(overview.summary(hours))


_CSV: Json = {"text/csv": {"schema": {"type": "string"}, "example": f"{','.join(COLUMNS)}\r\n"}}


@v1.get("/actors/{id:path}/statement", **_about(StatementAnswer, 404, other=_CSV))
def get_statement(
    _: MayRead,
    overview: Seen,
    id: ActorId,
    month: Month = None,
    since: Since = None,
    until: Until = None,
    form: Format = "json",
) -> Response:
    """What an actor had, got, gave and has left in a month (default: this one), or from when until when."""
    found = overview.statement(id, month, since, until)
    return Answer(found) if form == "json" else Response(csv_of(found), media_type="text/csv")


@v1.get("/actors/{id:path}/balances", **_about(BalancesAnswer, 404))
def get_balances(
    _: MayRead,
    overview: Seen,
    id: ActorId,
    resource: Annotated[str, Query(pattern=r"^[^\x00]+$", max_length=200)],
    month: Month = None,
    since: Since = None,
    until: Until = None,
) -> Response:
    """A balance of an actor over time, as a step line of at most 2,000 points."""
    return Answer(overview.balances(id, resource, month, since, until))


@v1.get("/prompts", **_about(PromptsAnswer))
def get_prompts(_: MayRead, overview: Seen) -> Response:
    """What came of each version of prompt and model, shadows beside them."""
    return Answer(overview.prompts())


@v1.get("/proposals/{proposal_id}/story", **_about(StoryAnswer, 404))
def get_story(_: MayRead, overview: Seen, proposal_id: ProposalId) -> Response:
    """What was seen, said, judged, moved and settled, and what came of it since."""
    return Answer(overview.story(proposal_id.lower()))


# --- endpoints: what is proposed, metered, handed on ------------------------------------------------------------------


@v1.post("/proposals", **_about(OutcomeAnswer, 409, body=SubmissionBody))
def post_proposal(
    caller: MayPropose,
    service: Desired,
    body: Annotated[SubmissionBody, _posted(SubmissionBody)],
    dry_run: DryRun = False,
) -> Response:
    """Judges what came of a round and records it; an outcome is 200 whatever the verdict."""
    given = [name for name in ("proposal", "model_response", "unavailable") if getattr(body, name) is not None]
    if len(given) != 1:
        raise Problem(422, f"send exactly one of proposal, model_response and unavailable, not {given or 'none'}")
    failure = body.unavailable
    submission = Submission(
        body.proposal_id.lower(),
        body.world_state_digest,
        body.request_key,
        None if body.proposal is None else body.proposal.model_dump(by_alias=True, exclude_none=True),
        body.model_response,
        None if failure is None else Failure(failure.kind, failure.status, failure.code),
        body.latency_ms,
    )
    return Answer(service.propose(caller, submission, dry_run))


_FLOWS = {
    "reading_id": "meter-7/2026-11-22T12:00", "epoch": 42, "late": False, "seq": 813, "digest": "9f" * 32,
    "readings": [{"actor": "actor-1", "resource": "energy", "kind": "produce", "requested": 3.2, "applied": 3.2}],
}  # fmt: skip


@v1.post("/flows", **_about(AnyAnswer, 409, body=FlowsBody, example=_FLOWS))
def post_flows(caller: MayPropose, service: Desired, body: Annotated[FlowsBody, _posted(FlowsBody)]) -> Response:
    """Records a set of meter readings, once; late ones go into the open epoch, marked."""
    readings = [reading.model_dump() for reading in body.readings]
    return Answer(service.flows(caller, body.reading_id, body.epoch, readings))


_CLOSE = {"kind": "close", "epoch": 42, "at": "2026-11-22T12:00:00Z", "entries": 1201, "seq": 814,
          "digest": "9f" * 32, "already": False, "expired": []}  # fmt: skip


@v1.post("/epochs/close", **_about(AnyAnswer, 404, 409, body=CloseBody, example=_CLOSE))
def post_close(_: MayRun, service: Desired, body: Annotated[CloseBody, _posted(CloseBody)]) -> Response:
    """Closes the open epoch if it is this one; one that is closed answers with its close."""
    return Answer(service.close(body.epoch))


@v1.get("/outbox", **_about(PageAnswer))
def get_outbox(_: MayRun, service: Desired, after: After = 0, limit: Limit = 100) -> Response:
    """Outcomes that nobody acknowledged yet, in order of seq."""
    return Answer(service.outbox(after, limit))


_DIGEST = {
    "kind": "digest", "day": "2026-11-22", "counts": {"executed": 94, "rejected": 2}, "seqs": [811, 812],
    "url": "http://127.0.0.1:8080/proposals",
    "linear": {"issue_id": ROUND_ID, "title": "2026-11-22: 96 outcomes, 2 need a look", "description": "…",
               "priority": 3},
}  # fmt: skip


@v1.get("/digests", **_about(DigestsAnswer))
def get_digests(_: MayRun, service: Desired, after: Day = "", limit: DigestLimit = 10) -> Response:
    """Digests of the days with outcomes that nobody acknowledged yet, oldest first; `after` is a day."""
    return Answer(service.digests(after, limit))


@v1.get("/digests/{day}", **_about(AnyAnswer, 404, example=_DIGEST))
def get_digest(_: MayRun, service: Desired, day: Annotated[str, Path(pattern=_DAY)]) -> Response:
    """What came of everything on one day; `seqs` are the outcomes of it that nobody acknowledged yet."""
    return Answer(service.digest(day))


@v1.post("/outbox/{seq}/ack", **_about(AnyAnswer, 404, body=AckBody, example={"seq": 812, "acknowledged": True}))
def post_ack(
    _: MayRun,
    service: Desired,
    seq: Annotated[int, Path(ge=1, le=SEQ_MAX)],
    body: Annotated[AckBody, _posted(AckBody)],
) -> Response:
    """Notes that an outcome was handed on, and as what."""
    return Answer(service.acknowledge(seq, body.reference))


# --- endpoints: what people do ----------------------------------------------------------------------------------------


@v1.post("/proposals/{proposal_id}/approve", **_about(OutcomeAnswer, 404, 409, body=ReasonBody))
def post_approve(
    request: Request,
    caller: MayOperate,
    service: Desired,
    proposal_id: ProposalId,
    body: Annotated[ReasonBody, _posted(ReasonBody)],
    key: Key,
    dry_run: DryRun = False,
) -> Response:
    """Approves what is held: it is judged anew, as of today, and applied."""
    return Answer(service.settle(caller, _asked(request, key, body, dry_run), proposal_id.lower(), "approve"))


@v1.post("/proposals/{proposal_id}/reject", **_about(OutcomeAnswer, 404, 409, body=ReasonBody))
def post_reject(
    request: Request,
    caller: MayOperate,
    service: Desired,
    proposal_id: ProposalId,
    body: Annotated[ReasonBody, _posted(ReasonBody)],
    key: Key,
    dry_run: DryRun = False,
) -> Response:
    """Rejects what is held."""
    return Answer(service.settle(caller, _asked(request, key, body, dry_run), proposal_id.lower(), "reject"))


@v1.post("/proposals/{proposal_id}/reverse", **_about(OutcomeAnswer, 404, 409, body=ReasonBody))
def post_reverse_proposal(
    request: Request,
    caller: MayOperate,
    service: Desired,
    proposal_id: ProposalId,
    body: Annotated[ReasonBody, _posted(ReasonBody)],
    key: Key,
    dry_run: DryRun = False,
) -> Response:
    """Takes back all that a proposal moved, once, with new entries."""
    return Answer(service.reverse_proposal(caller, _asked(request, key, body, dry_run), proposal_id.lower()))


@v1.post("/ledger/{id}/reverse", **_about(OutcomeAnswer, 404, 409, body=ReasonBody))
def post_reverse_entry(
    request: Request,
    caller: MayOperate,
    service: Desired,
    id: EntryId,
    body: Annotated[ReasonBody, _posted(ReasonBody)],
    key: Key,
    dry_run: DryRun = False,
) -> Response:
    """Takes one ledger entry back, once, with a new one."""
    return Answer(service.reverse_entry(caller, _asked(request, key, body, dry_run), id))


@v1.post("/transfers", **_about(OutcomeAnswer, 409, body=TransfersBody))
def post_transfers(
    request: Request,
    caller: MayOperate,
    service: Desired,
    body: Annotated[TransfersBody, _posted(TransfersBody)],
    key: Key,
    dry_run: DryRun = False,
) -> Response:
    """Moves by hand, all or nothing, whatever the constraints."""
    return Answer(service.override(caller, _asked(request, key, body, dry_run)))


@v1.post("/control", **_about(ActAnswer, 409, body=ControlBody))
def post_control(
    request: Request,
    caller: MayOperate,
    service: Desired,
    body: Annotated[ControlBody, _posted(ControlBody)],
    key: Key,
    dry_run: DryRun = False,
) -> Response:
    """Pauses or resumes: while paused, every proposal is refused."""
    return Answer(service.control(caller, _asked(request, key, body, dry_run)))


_TRIED = {"kind": "constraints", "seq": None, "digest": None, "epoch": 42, "at": "2026-11-22T12:00:00Z",
          "constraints": {"max_transfer": 50}, "operator": "mia", "reason": "winter", "dry_run": True,
          "preview": PREVIEW}  # fmt: skip


@v1.put("/constraints", **_about(ActAnswer, 409, body=ConstraintsBody, example=_TRIED))
def put_constraints(
    request: Request,
    caller: MayOperate,
    service: Desired,
    overview: Seen,
    body: Annotated[ConstraintsBody, _posted(ConstraintsBody)],
    key: Key,
    dry_run: DryRun = False,
) -> Response:
    """Puts the whole set of constraints in force; a dry run adds `preview`: the last days judged again under them."""
    answer = service.constrain(caller, _asked(request, key, body, dry_run))
    return Answer({**answer, **overview.tried(body.constraints)} if dry_run else answer)


@v1.post("/actors", **_about(ActAnswer, 409, body=ActorBody))
def post_actor(
    request: Request,
    caller: MayOperate,
    service: Desired,
    body: Annotated[ActorBody, _posted(ActorBody)],
    key: Key,
    dry_run: DryRun = False,
) -> Response:
    """Registers an actor."""
    return Answer(service.register(caller, _asked(request, key, body, dry_run)))


@v1.patch("/actors/{id:path}", **_about(ActAnswer, 404, 409, body=FreezeBody))
def patch_actor(
    request: Request,
    caller: MayOperate,
    service: Desired,
    id: Annotated[str, Path(max_length=200)],
    body: Annotated[FreezeBody, _posted(FreezeBody)],
    key: Key,
    dry_run: DryRun = False,
) -> Response:
    """Freezes an actor, or thaws it."""
    return Answer(service.freeze(caller, _asked(request, key, body, dry_run), id))


@v1.post("/activations", **_about(ActAnswer, 409, body=ActivationBody))
def post_activation(
    request: Request,
    caller: MayOperate,
    service: Desired,
    body: Annotated[ActivationBody, _posted(ActivationBody)],
    key: Key,
    dry_run: DryRun = False,
) -> Response:
    """Puts a prompt and a model in force."""
    return Answer(service.activate(caller, _asked(request, key, body, dry_run)))


# --- endpoints: health and metrics ------------------------------------------------------------------------------------

health = APIRouter()


def _healthy(example: Any, *statuses: int, media: str = "application/json") -> Json:
    """What OpenAPI says of an endpoint that needs no key."""
    found: dict[int | str, Any] = {200: {"content": {media: {"example": example}}}}
    found |= {status: _documented(status) for status in sorted((405, 500, *statuses))}
    return {"responses": found, "response_model": None}


def _heights(desk: Desk) -> tuple[int, int]:
    return desk.service.heights()


def _warnings(desk: Desk) -> list[str]:
    return desk.service.warnings()


def _writable(desk: Desk) -> bool:
    return desk.service.writable()


def _last_outcome(desk: Desk) -> tuple[int, float] | None:
    return desk.service.last_outcome()


@health.get("/ledger", include_in_schema=False)
@health.get("/proposals", include_in_schema=False)
@health.get("/journal", include_in_schema=False)
async def get_page(request: Request) -> Response:
    """Where the links of outcomes lead while no dashboard is at GRIDGOV_PUBLIC_URL: how to look it up by hand."""
    path = request.url.path
    return PlainTextResponse(
        "This is where a page of the grid would be. Until GRIDGOV_PUBLIC_URL leads to one, ask the app with a key that "
        f"may read: GET /v1{path}/<the number or id in this address>, or `gridgov explain postgres <proposal id>`.\n"
    )


@health.get("/healthz", **_healthy({"status": "ok"}))
async def get_health() -> Response:
    """The process lives."""
    return Answer({"status": "ok"})


@health.get("/readyz", **_healthy({"status": "ready", "seq": 42, "entries": 17}, 503))
async def get_ready(request: Request) -> Response:
    """The database answers, is migrated and has a genesis; `warnings` say which prompts in force cannot be used."""
    desk = _desk(request)
    seq, entries = await desk.ask(partial(_heights, desk))
    if not seq:
        raise NotReady
    if not await desk.ask(partial(_writable, desk)):
        raise Unreachable("the database takes no writing; see `gridgov doctor`")
    warnings = await desk.ask(partial(_warnings, desk))
    ready: Json = {"status": "ready", "seq": seq, "entries": entries}
    return Answer({**ready, "warnings": warnings} if warnings else ready)


@health.get("/healthz/loop", **_healthy({"status": "ok", "age_seconds": 61.2, "last_outcome": 42}, 422, 503))
async def get_loop(
    request: Request, max_age: Annotated[str, Query(pattern=_DURATION, description="Such as 90s, 20m or 2h")] = "20m"
) -> Response:
    """An outcome of a proposal is younger than this."""
    desk, most = _desk(request), int(max_age[:-1]) * _SECONDS[max_age[-1]]
    last = await desk.ask(partial(_last_outcome, desk))
    if last is None:
        raise Problem(503, "no proposal has had an outcome yet", age_seconds=None, last_outcome=None)
    told: Json = {"age_seconds": round(last[1], 3), "last_outcome": last[0]}
    if last[1] > most:
        raise Problem(503, f"the last outcome is record {last[0]}, {last[1]:.0f} s ago", **told)
    return Answer({"status": "ok", **told})


@health.get(
    "/metrics",
    response_class=PlainTextResponse,
    **_healthy("gridgov_journal_height 42.0\n", media="text/plain"),
)
async def get_metrics(request: Request) -> Response:
    """Prometheus metrics; those of the database are as of the last time that it answered."""
    desk = _desk(request)
    meters = desk.meters

    def measure() -> None:
        service = desk.service
        records, entries = service.heights()
        last = service.last_outcome()
        meters.records.set(records)
        meters.entries.set(entries)
        meters.lag.set(service.lag())
        meters.age.set(math.nan if last is None else last[1])

    try:
        await desk.ask(measure)
    except GridgovError as error:
        _reports.warning("metrics without the database: %s", error)
    return PlainTextResponse(generate_latest(meters.registry), media_type="text/plain; version=0.0.4")


# --- the gate ---------------------------------------------------------------------------------------------------------


class _Body:
    """A request's body: taken before the request counts, so that who sends slowly holds up nobody else."""

    def __init__(self, receive: Receive, desk: Desk) -> None:
        self._receive, self._desk = receive, desk
        self._messages: deque[Message] = deque()
        self._size = 0

    async def received(self) -> None:
        """Takes what comes, up to the largest body there may be. Raises Problem where it is late, or memory is full."""
        with anyio.move_on_after(BODY_S) as limit:
            more = True
            while more and self._size <= REPLY_MAX:
                message = await self._receive()
                self._messages.append(message)
                more = bool(message.get("more_body"))
                size = len(message.get("body", b""))
                self._size += size
                self._desk.in_memory += size
                if self._desk.in_memory > MEMORY_MAX:
                    raise Problem(503, "too much is being received at once; come back in a moment")
        if limit.cancelled_caught:
            raise Problem(400, f"the body did not come within {BODY_S:.0f} s", {"Connection": "close"})

    async def __call__(self) -> Message:
        """The next message, as the server would have given it."""
        return self._messages.popleft() if self._messages else await self._receive()

    def let_go(self) -> None:
        """The body is no longer kept."""
        self._desk.in_memory -= self._size


class Gate:
    """Around every request: its id, how many there are at once, the log line, the metrics, and what nobody caught."""

    def __init__(self, app: ASGIApp, desk: Desk) -> None:
        self.app, self.desk = app, desk
        start = uuid.uuid4().hex[:16]
        self._ids = (f"{start}{n:016x}" for n in count(1))  # so that no request asks the system for randomness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else next(self._ids)
        scope["gridgov.request_id"] = request_id
        status, begun = 0, time.perf_counter()

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id.encode())]}
            await send(message)

        counted, inside, body = scope["path"].startswith("/v1/"), False, _Body(receive, self.desk)
        try:
            if counted and scope["method"] in ("POST", "PUT", "PATCH"):
                await body.received()
            inside = counted
            self.desk.in_flight += inside
            if inside and self.desk.in_flight > self.desk.max_in_flight:
                raise Problem(503, f"{self.desk.max_in_flight} requests are being answered; come back in a moment")
            await self.app(scope, body, sending)
        except Problem as problem:
            answer = _problem(request_id, problem.status_code, problem.detail, problem.headers, problem.extra)
            await answer(scope, receive, sending)
        except Exception:
            _reports.exception("request %s failed", request_id)
            if status:
                raise
            await _problem(request_id, 500, DETAILS[500], None, {})(scope, receive, sending)
        finally:
            self.desk.in_flight -= inside
            body.let_go()
            self._note(scope, status or 499, time.perf_counter() - begun)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        """The log line and the metrics of a request; never a query, a body or a key."""
        route = getattr(scope.get("route"), "path", "")
        meters, method = self.desk.meters, scope["method"] if route else ""
        meters.requests.labels(method, route, str(status)).inc()
        meters.seconds.labels(route).observe(seconds)
        line = {"time": _stamp(time.time()), "request_id": _id_of(scope), "method": scope["method"], "path": route}
        line |= {"status": status, "ms": round(seconds * 1000, 2), "key": scope.get("gridgov.key")}
        _access.info("%s", json.dumps(line, ensure_ascii=False))


# --- the app ----------------------------------------------------------------------------------------------------------


def _now() -> int:
    return time.time_ns() // 1000


def create(
    url: str,
    grid: str,
    public_url: str,
    *,
    clock: Callable[[], int] = _now,
    max_in_flight: int = MAX_IN_FLIGHT,
    deadline_s: float = DEADLINE_S,
    prices: Prices | None = None,
) -> FastAPI:
    """The app of one grid. Without its database it lives and says 503, until that is back.

    `prices` are in place of the project's, see `gemini.prices`.
    """
    desk = Desk(url, grid, public_url, clock, max_in_flight, deadline_s)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = max_in_flight
        try:
            await anyio.to_thread.run_sync(desk.open)
        except GridgovError as error:
            _reports.warning("starting without the grid: %s", error)
        try:
            yield
        finally:
            await anyio.to_thread.run_sync(desk.close)

    app = FastAPI(title="gridgov", lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.desk, app.state.prices = desk, prices
    busiest = [route for route in v1.routes if isinstance(route, APIRoute) and route.endpoint is post_proposal]
    # The routes are tried in this order; `include_router` would build them anew in the first request.
    app.router.routes += [*busiest, *(route for route in v1.routes if route not in busiest), *health.routes]
    app.add_middleware(Gate, desk=desk)
    for kind, handler in ((HTTPException, _on_http), (RequestValidationError, _on_invalid), (GridgovError, _on_ours)):
        app.add_exception_handler(kind, handler)
    app.openapi = partial(_openapi, app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> Json:
    """The OpenAPI document, with the schemas of what is sent."""
    if app.openapi_schema is None:
        about = "An AI proposes, deterministic code decides, an append-only ledger remembers."
        found = get_openapi(title=app.title, version="1", description=about, routes=app.routes)
        _, bodies = models_json_schema(
            [(model, "validation") for model in BODIES], ref_template="#/components/schemas/{model}"
        )
        found["components"]["schemas"] |= bodies["$defs"]
        app.openapi_schema = found
    return app.openapi_schema


def _stamp(seconds: float) -> str:
    """A time as log lines have it: UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


class _Lines(logging.Formatter):
    """A log record as one line of JSON; those of requests are that already."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        if record.name == _access.name:
            return record.getMessage()
        line = {"time": _stamp(record.created), "level": record.levelname, "logger": record.name}
        line["message"] = record.getMessage()
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def serve(
    url: str,
    grid: str,
    host: str,
    port: int,
    public_url: str,
    ready: Callable[[str], None] | None = None,
    prices: Prices | None = None,
) -> None:
    """Serves a grid until it is told to stop; then finishes what it took on. `ready` is told the address.

    Raises BadInput where there is no such grid; a database that is away is waited for. Log lines go to stderr.
    """
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(_Lines())
    logging.basicConfig(level=logging.INFO, handlers=[lines], force=True)
    app = create(url, grid, public_url, prices=prices)
    with suppress(Unreachable):  # the app says so itself, and goes on trying
        app.state.desk.open()
    config = uvicorn.Config(
        app,
        host,
        port,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=SHUTDOWN_S,
        timeout_keep_alive=75,
    )
    Server(config, ready).run()
