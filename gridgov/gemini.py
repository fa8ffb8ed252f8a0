"""One question to Gemini through google-genai, and what it costs; nothing is parsed, judged or recorded here.

The SDK builds the request and sends it through a transport of ours, and that alone reads what comes back: raw, within
a deadline and a size. The SDK never sees a reply, so none can make it raise, follow a redirect with the key, retry, ask
on or fill in a value; `reply.parse_body` says what a reply comes to. Nothing of the SDK is imported before it is asked.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from gridgov.amounts import exponent, plain_decimal
from gridgov.cassette import Exchange
from gridgov.errors import BadInput
from gridgov.prompt import Request
from gridgov.reply import about, load
from gridgov.wire import Json, timestamp

if TYPE_CHECKING:
    import ssl

    import httpx2
    from google import genai

BASE_URL = "https://generativelanguage.googleapis.com"
"""Where Google answers."""

DEADLINE_S = 120.0
ATTEMPTS = 4

SIZE_MAX = 10 * 2**20
"""Most bytes that are read of a reply; what comes after is left unread."""

RETRIED = frozenset({429, 500, 502, 503, 504})
"""The statuses after which a question is asked again."""

DELAY_S = 1.0
"""The wait before the second attempt; it doubles from one attempt to the next, up to `DELAY_MAX_S`."""

DELAY_MAX_S = 30.0

KEY_MIN = 16
"""Fewer characters than this are no real key, and may stand in a reply for what they are: a word."""

PRICES = Path(__file__).parent / "prices.json"
"""The table of prices that comes with the project."""

_CONNECT_S = 10.0
_VISIBLE = re.compile(r"[!-~]+")


def _now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000  # noqa: TID251 - what stands in where no clock is given


# --- one attempt ------------------------------------------------------------------------------------------------------


@dataclass
class _Attempt:
    """One request on the wire and what came of it. `until` is when it must be over, by the clock in use."""

    until: float
    status: int | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    failure: str = "nothing was sent"
    again: bool = False
    """Whether what failed may succeed when it is tried once more."""

    def header(self, name: str) -> str | None:
        """The first header of this name."""
        wanted = name.lower().encode()
        found = (value for key, value in self.headers if key.lower() == wanted)
        return next((value.decode("latin-1").strip() for value in found), None)


class _Late(Exception):
    """The time of an attempt is over; never leaves this module."""


class _Stream:
    """A connection on which nothing waits longer than the attempt that uses it may take, however slowly bytes drip."""

    def __init__(self, inner: Any, left: Callable[[], float]) -> None:
        self._inner = inner
        self._left = left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data: bytes = self._inner.read(max_bytes, self._left())
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._left())

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> _Stream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, self._left()), self._left)

    def close(self) -> None:
        self._inner.close()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Network:
    """Opens connections; the name lookup alone is bounded by nothing but the system's resolver."""

    def __init__(self, left: Callable[[], float]) -> None:
        import httpcore2

        self._inner = httpcore2.SyncBackend()
        self._left = left

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> _Stream:
        return _Stream(self._inner.connect_tcp(host, port, min(_CONNECT_S, self._left()), **options), self._left)


class _Transport:
    """What the SDK sends through: it puts what comes into the attempt of its thread, and gives the SDK an empty object.

    No redirect is followed, no proxy used and no environment read, since nothing here knows of any.
    """

    def __init__(self, clock: Callable[[], float], trusted: ssl.SSLContext) -> None:
        import httpcore2

        # The one logs the headers of replies, in which a server may say the key again; the other that all were 200.
        for name in ("httpcore2", "httpx2"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._clock = clock
        self._mine = threading.local()
        self._pool = httpcore2.ConnectionPool(
            ssl_context=trusted,
            max_connections=None,
            network_backend=_Network(self._left),  # type: ignore[arg-type]  # it has what is called, and no import
        )

    @contextmanager
    def making(self, attempt: _Attempt) -> Iterator[None]:
        """What this thread sends in the block belongs to the attempt."""
        self._mine.attempt = attempt
        try:
            yield
        finally:
            del self._mine.attempt

    def _left(self) -> float:
        attempt: _Attempt = self._mine.attempt
        left = attempt.until - self._clock()
        if left <= 0:
            raise _Late
        return left

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Sends a request as httpx2 hands it over; whatever happens is written into the attempt, and nothing raised."""
        import httpcore2
        import httpx2

        attempt: _Attempt = self._mine.attempt
        attempt.again = True
        try:
            self._exchange(request, attempt)
        except (_Late, httpcore2.TimeoutException, TimeoutError):
            attempt.failure = "no complete response in time"
        except httpcore2.ConnectError:
            attempt.failure = "no connection could be made"
        except httpcore2.ProtocolError:
            attempt.failure = "the connection was closed early, or what came is no HTTP"
        except (httpcore2.NetworkError, OSError):
            attempt.failure = "the connection was reset"
        except (httpcore2.UnsupportedProtocol, UnicodeError):
            attempt.failure, attempt.again = "the host can't be reached under this URL", False
        return httpx2.Response(200, headers={"Content-Type": "application/json"}, content=b"{}")

    def _exchange(self, request: httpx2.Request, attempt: _Attempt) -> None:
        import httpcore2

        url = request.url
        sent = httpcore2.Request(
            request.method,
            httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.read(),
            extensions={"timeout": {"pool": self._left()}},
        )
        response = self._pool.handle_request(sent)
        with closing(response):
            headers = list(response.headers)
            body, cut = _limited(response.iter_stream())
        attempt.headers, attempt.failure = headers, ""
        if (attempt.header("content-encoding") or "identity") != "identity":
            attempt.failure = "the reply is packed, though that was not asked for"
            return
        attempt.status, attempt.body = response.status, body
        if cut:
            attempt.failure = f"cut off after {SIZE_MAX} bytes"

    def close(self) -> None:
        """Closes the connections."""
        self._pool.close()


def _limited(chunks: Iterator[bytes]) -> tuple[bytes, bool]:
    """The bytes up to `SIZE_MAX`, and whether there were more."""
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > SIZE_MAX:
            return bytes(body[:SIZE_MAX]), True
    return bytes(body), False


# --- a question with its retries --------------------------------------------------------------------------------------


class Gemini:
    """Asks Gemini: one question after another, or many at once from as many threads.

    `deadline_s` bounds a question with all its attempts, and half of it each attempt; Google is told the latter, so
    that it stops too. `clock` counts seconds, `now` microseconds since 1970. Raises BadInput where the key or the base
    URL is none.
    """

    def __init__(
        self,
        key: str | None,
        base_url: str | None = None,
        *,
        deadline_s: float = DEADLINE_S,
        attempts: int = ATTEMPTS,
        table: Prices | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], int] = _now,
    ) -> None:
        key = (key or "").strip()
        if not key:
            raise BadInput("there is no key for Gemini; set GEMINI_API_KEY")
        if not _VISIBLE.fullmatch(key) or key.startswith("auth_tokens/"):
            raise BadInput("what GEMINI_API_KEY holds is no key of Gemini's API; set it anew")
        self._key = key
        self.base_url = _checked(base_url or BASE_URL)
        self.deadline_s = deadline_s
        self.attempt_s = deadline_s / 2
        self.attempts = attempts
        self._table = table
        self._clock = clock
        self._sleep = sleep
        self._now = now
        self._lock = threading.Lock()
        self._opened: tuple[_Transport, genai.Client, str] | None = None

    def __repr__(self) -> str:
        return f"Gemini(base_url={self.base_url!r})"

    def __enter__(self) -> Gemini:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; it may be asked again."""
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened[0].close()

    def ask(self, request: Request) -> Exchange:
        """What came of a question, whatever a server does; `latency_ms` is of the whole, with retries and waits.

        A status in `RETRIED`, a timeout and a broken connection are tried again, after 1, 2, 4 s or what the server
        asks for, as long as that ends before the deadline; else what came last is given at once.
        """
        transport, client, sdk = self._open()
        at, start = timestamp(self._now()), self._clock()
        deadline = start + self.deadline_s
        made = 1
        while True:
            attempt = _Attempt(min(deadline, self._clock() + self.attempt_s))
            with transport.making(attempt):
                self._send(client, request)
            wait = self._wait(attempt, made)
            if wait is None or made >= self.attempts or self._clock() + wait >= deadline:
                break
            self._sleep(wait)
            made += 1
        body = self._without_key(attempt.body)
        cost, table = self._cost(request, body, at)
        latency_ms = round((self._clock() - start) * 1000)
        return Exchange(attempt.status, body, at, attempt.failure, latency_ms, made, cost, table, sdk)

    def _without_key(self, body: bytes) -> bytes:
        """A body in which the key does not stand, though the server said it (Google does, of a key that is blocked)."""
        return body.replace(self._key.encode(), b"[key]") if len(self._key) >= KEY_MIN else body

    def _open(self) -> tuple[_Transport, genai.Client, str]:
        """The SDK's client: made at the first question, of what is given here and nothing of the environment."""
        with self._lock:
            if self._opened is None:
                self._opened = _opened(self._key, self.base_url, self._clock)
            return self._opened

    def _send(self, client: genai.Client, request: Request) -> None:
        """Sends the body of a request as it is: what the SDK would make of the text is replaced by it."""
        from google.genai import types

        options = types.HttpOptions(extra_body=request.body, timeout=max(1, round(self.attempt_s * 1000)))
        config = types.GenerateContentConfig(
            http_options=options,
            automatic_continuation=False,
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
            should_return_http_response=True,
        )
        try:
            client.models.generate_content(model=request.model, contents=request.user, config=config)
        except ValueError:
            return  # a model's name that the SDK won't put into a URL: the attempt says that nothing was sent

    def _wait(self, attempt: _Attempt, made: int) -> float | None:
        """Seconds before the next attempt; None where another would come to the same."""
        if attempt.status not in RETRIED and (attempt.status is not None or not attempt.again):
            return None
        wait: float = min(DELAY_MAX_S, DELAY_S * 2 ** (made - 1))
        asked = _asked(attempt, self._now())
        return wait if asked is None else max(wait, asked)

    def _cost(self, request: Request, body: bytes, at: str) -> tuple[str, str] | tuple[None, None]:
        """By the model that answered, or else by the one that was asked."""
        said, table, day = about(body), self._table or prices(), at[:10]
        models = (said.model, request.model)
        priced = (table.price(model, said.usage, day) for model in models if model is not None)
        return next((cost for cost in priced if cost is not None), (None, None))


def _opened(key: str, base_url: str, clock: Callable[[], float]) -> tuple[_Transport, genai.Client, str]:
    """A client that sends through a transport of ours alone."""
    import httpx2
    from google import genai
    from google.genai import client, types

    trusted = httpx2.create_ssl_context(trust_env=False)
    transport = _Transport(clock, trusted)
    sender = httpx2.Client(
        transport=transport,  # type: ignore[arg-type]  # as with the network: what is called is there
        trust_env=False,
        follow_redirects=False,
        headers={"Accept-Encoding": "identity"},
    )
    options = types.HttpOptions(
        base_url=base_url,
        api_version="v1",
        httpx_client=sender,
        httpx_async_client=httpx2.AsyncClient(transport=httpx2.AsyncBaseTransport(), trust_env=False),
        async_client_args={"ssl": trusted},  # else the SDK reads a file that the environment names
    )
    own = client.DebugConfig(client_mode=None, replays_directory=None, replay_id=None)
    made = genai.Client(vertexai=False, api_key=key, http_options=options, debug_config=own)
    return transport, made, f"google-genai {genai.__version__}"


def _checked(base_url: str) -> str:
    """The base URL without a slash at its end; raises BadInput where it is none, or holds more than that."""
    try:
        parts = urlsplit(base_url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or not _VISIBLE.fullmatch(base_url):
        raise BadInput(f"GRIDGOV_GEMINI_BASE_URL is no URL; write one such as {BASE_URL}")
    if parts.username is not None or parts.query or parts.fragment:
        raise BadInput(f"GRIDGOV_GEMINI_BASE_URL has more than host and path; write one such as {BASE_URL}")
    return base_url.rstrip("/")


def _asked(attempt: _Attempt, now: int) -> float | None:
    """Seconds that the server asks to wait, in `Retry-After` (seconds or a date) or, as Google does, in the body."""
    said = attempt.header("retry-after")
    if said is not None and said.isascii() and said.isdigit():
        return float(said[:12])
    try:
        moment = parsedate_to_datetime(said or "")
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now / 1e6
    except (ValueError, TypeError, OverflowError, IndexError):
        return _retry_info(attempt.body)  # no header, or one that says nothing
    return max(0.0, seconds)


def _retry_info(body: bytes) -> float | None:
    """The `retryDelay` of a `google.rpc.RetryInfo` among the details of an error."""
    found = load(body)
    error = found.get("error") if isinstance(found, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str) and re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?s", delay, re.ASCII):
            return float(delay[:-1])
    return None


# --- prices -----------------------------------------------------------------------------------------------------------


class Price(NamedTuple):
    """What a model costs from a day on, in USD for a million tokens; for prompts above a number of tokens only."""

    model: str
    since: str
    prompt_above: int
    input: Decimal
    cached: Decimal
    output: Decimal


class Prices(NamedTuple):
    """A dated table of prices. `table` names it, and goes into each line that was priced by it."""

    table: str
    rows: tuple[Price, ...]

    def price(self, model: str, usage: Mapping[str, int], day: str) -> tuple[str, str] | None:
        """USD as plain decimal text, and the table's name; None where the model isn't in it or no tokens were counted.

        `usage` is tokens by kind, as `reply.about` gives it; thoughts cost what the answer costs, and prompt tokens
        that were cached what the table says of these.
        """
        prompt = usage.get("prompt")
        name = re.sub(r"-[0-9]{3}$", "", model.removeprefix("models/"))
        if prompt is None:
            return None
        rows = [row for row in self.rows if row.model in (model, name)]
        rows = [row for row in rows if row.since <= day and (row.prompt_above < prompt or not row.prompt_above)]
        if not rows:
            return None
        row = max(rows, key=lambda row: (row.since, row.prompt_above))
        cached = min(usage.get("cached", 0), prompt)
        said = usage.get("answer", 0) + usage.get("thoughts", 0)
        cost = ((prompt - cached) * row.input + cached * row.cached + said * row.output) / 1_000_000
        return (plain_decimal(cost), self.table) if cost < 10**12 else None


@lru_cache(maxsize=8)
def prices(path: Path | None = None) -> Prices:
    """The table in a file, by default the one that comes with the project. Raises BadInput where it is none."""
    path = path or PRICES
    try:
        found = load(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    table = found.get("table") if isinstance(found, dict) else None
    if not isinstance(table, str) or (found.get("currency"), found.get("per_tokens")) != ("USD", 1_000_000):
        raise BadInput(f"{path}: expected table (a name), currency USD, per_tokens 1000000 and rows; see {PRICES.name}")
    rows = found.get("rows")
    if not isinstance(rows, list):
        raise BadInput(f"{path}: rows is a list of prices; see {PRICES.name}")
    return Prices(table, tuple(_row(row, f"{path}: row {i}") for i, row in enumerate(rows, start=1)))


def price(model: str, usage: Mapping[str, int], day: str | None = None) -> tuple[str, str] | None:
    """What tokens cost by the project's own table, on a day such as 2026-11-30 (default: that of the table)."""
    own = prices()
    return own.price(model, usage, day or own.table[-10:])


def _row(row: Any, where: str) -> Price:
    """One price, checked."""
    kinds: Json = {"model": str, "from": str, "prompt_above": int, "source": str}
    if not isinstance(row, dict) or not {"model", "from", "input", "output"} <= set(row):
        raise BadInput(f"{where}: expected model, from, input and output")
    for key, value in row.items():
        if key in kinds:
            good = type(value) is kinds[key]
        else:
            good = key in ("input", "cached", "output") and type(value) in (int, Decimal)
            good = good and 0 <= value < 10**6 and exponent(Decimal(value)) >= -6
        if not good:
            raise BadInput(f"{where}: {key} can't be {value!r}; see {PRICES.name}")
    try:
        datetime.strptime(row["from"], "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise BadInput(f"{where}: from is a day such as 2026-11-30, not {row['from']!r}") from None
    prompt, said = Decimal(row["input"]), Decimal(row["output"])
    cached = Decimal(row.get("cached", prompt))
    return Price(row["model"], row["from"], row.get("prompt_above", 0), prompt, cached, said)
