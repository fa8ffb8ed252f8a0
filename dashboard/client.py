"""The one client of the API: what it answered last is kept, so that a page has something to show while it is away.

Nothing of Streamlit is known here. Numbers are read exactly, as Decimal where they are no integers.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from decimal import Decimal
from typing import Any, NamedTuple

import httpx

FRESH_S = 2.0
"""An answer is taken for what it was this long, so that one rerun asks each thing once."""

KEPT = 512
"""So many answers are kept."""

KEPT_BYTES = 64_000_000
"""So many bytes of answers, as they came, are kept."""

CONNECT_S, READ_S = 2.0, 30.0


class Away(Exception):
    """The API gives no answer."""


class Refused(Exception):
    """The API answers that this cannot be, and why: `status` and the problem's members, see RFC 9457."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(str(problem.get("detail") or f"the API answered {status}"))
        self.status = status
        self.problem = problem


class Answer(NamedTuple):
    """What the API answered: the body, when (seconds since 1970), and why nothing newer is known (empty: it is new)."""

    body: Any
    at: float
    stale: str = ""


class _Kept(NamedTuple):
    body: Any
    at: float
    asked: float
    size: int


class Api:
    """The API at an address, called with a key; for many threads."""

    def __init__(self, url: str, key: str | None, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(
            base_url=url, headers=headers, timeout=httpx.Timeout(READ_S, connect=CONNECT_S), transport=transport
        )
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Lets go of the connections."""
        self._http.close()

    def get(self, path: str, fresh_s: float = FRESH_S, keep: bool = True, **query: Any) -> Answer:
        """What the API answers; where it is away, what it answered last, if that was to be kept. None asks for nothing.

        Raises Away where there is no last answer either, Refused where the API says that this cannot be.
        """
        asked = {name: _text(value) for name, value in query.items() if value is not None and value != ""}
        name = f"{path}?{httpx.QueryParams(asked)}"
        with self._lock:
            kept = self._kept.get(name)
        if kept is not None and time.monotonic() - kept.asked < fresh_s:
            return Answer(kept.body, kept.at)
        try:
            body, size = self._asked("GET", path, params=asked)
        except Away as away:
            if kept is None:
                raise
            return Answer(kept.body, kept.at, str(away))
        found = _Kept(body, time.time(), time.monotonic(), size)
        if keep:
            self._keep(name, found)
        return Answer(found.body, found.at)

    def _keep(self, name: str, found: _Kept) -> None:
        """Keeps an answer, and lets go of the oldest ones where there are too many."""
        with self._lock:
            self._kept[name] = found
            self._kept.move_to_end(name)
            while len(self._kept) > KEPT or sum(kept.size for kept in self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)

    def act(self, method: str, path: str, body: dict[str, Any], once: str, dry_run: bool = False) -> Any:
        """What came of an act of a person; with the same `once` it counts once, however often it is asked.

        Raises Away where no answer came (it may have counted: the same again tells), and Refused.
        """
        from gridgov.prompt import exact_json

        params = {"dry_run": "true"} if dry_run else {}
        answered, _ = self._asked(
            method, path, params=params, content=exact_json(body).encode(),
            headers={"Idempotency-Key": once, "Content-Type": "application/json"},
        )  # fmt: skip
        if not dry_run:
            self.forget()
        return answered

    def forget(self) -> None:
        """What was answered before is asked again, as after an act; it stays at hand while the API is away."""
        with self._lock:
            for name, kept in self._kept.items():
                self._kept[name] = kept._replace(asked=float("-inf"))

    def _asked(self, method: str, path: str, **request: Any) -> tuple[Any, int]:
        try:
            response = self._http.request(method, path, **request)
        except httpx.TimeoutException:
            raise Away(f"nothing came from {self.url} in time") from None
        except httpx.HTTPError as error:
            raise Away(f"nothing answers at {self.url} ({plain_error(error)})") from None
        try:
            body = json.loads(response.content, parse_float=Decimal) if response.content else None
        except ValueError:
            raise Away(f"what answers at {self.url} is not the grid's API (HTTP {response.status_code})") from None
        if response.status_code >= 500:
            said = body.get("detail") if isinstance(body, dict) else None
            raise Away(said or f"the API at {self.url} answered {response.status_code}")
        if response.status_code >= 400:
            raise Refused(response.status_code, body if isinstance(body, dict) else {})
        return body, len(response.content)


def plain_error(error: Exception) -> str:
    """An error of the connection in a few words."""
    return str(error) or type(error).__name__


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
