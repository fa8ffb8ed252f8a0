"""HTTP/1.1 on loopback for the stubs, near enough to the wire to break it on purpose. Nothing of any API is in here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from gridgov.errors import BadInput

BODY_MAX = 20 * 2**20

_REASONS = {
    200: "OK", 302: "Found", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 429: "Too Many Requests", 500: "Internal Server Error", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip


class Asked(NamedTuple):
    """A request on the wire; the names of headers are in small letters."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


def packet(status: int, content: bytes, kind: str = "application/json", **headers: str) -> bytes:
    """A whole HTTP response, to be sent in one write; an underscore in a header's name stands for a hyphen."""
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}", f"Content-Type: {kind}; charset=UTF-8"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode("latin-1") + content


async def read(reader: asyncio.StreamReader) -> Asked | None:
    """The next request of a connection; None where it was closed. Raises ValueError where it is no HTTP."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as end:
        if not end.partial:
            return None
        raise
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        content = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            content += await reader.readexactly(min(size, BODY_MAX))
            await reader.readline()
        await reader.readline()
    else:
        content = await reader.readexactly(min(int(headers.get("content-length", "0")), BODY_MAX))
    return Asked(method, target, headers, content)


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection with a RST, without another byte."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def say_nothing(writer: asyncio.StreamWriter) -> None:
    """Waits until the client gives up or the stub ends."""
    while not writer.is_closing():
        await asyncio.sleep(0.05)


class Server(ABC):
    """Connections in an event loop; a stub is one with an `answer`."""

    def __init__(self) -> None:
        self._open: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def answer(self, asked: Asked, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; whether the connection can be used for another."""

    async def serve(self, port: int, ready: Callable[[int], None], stop: asyncio.Event) -> None:
        """Listens until it is told to stop, then drops every connection."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", port, backlog=1024)
        try:
            ready(server.sockets[0].getsockname()[1])
            await stop.wait()
        finally:
            server.close()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)
            await server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            while (asked := await read(reader)) is not None and await self.answer(asked, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass  # whoever asked went away, or sent what is no HTTP
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._open.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()


class Serves(Protocol):
    """What a thread can run."""

    async def serve(self, port: int, ready: Callable[[int], None], stop: asyncio.Event) -> None:
        """Listens until it is told to stop; `ready` is told the port."""
        ...


class Threaded:
    """A server in a thread that ends with the block; port 0 takes a free one."""

    path = ""
    """Where in `url` the API is."""

    def __init__(self, server: Serves, name: str, port: int = 0) -> None:
        self._serves = server
        self.port = port
        self.url = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name=name, daemon=True)

    def start(self) -> None:
        """Listens from here on."""
        self._thread.start()
        assert self._ready.wait(30), f"{self._thread.name} could not listen"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive(), f"{self._thread.name} does not end"

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        await self._serves.serve(self.port, self._listening, self._stop)

    def _listening(self, port: int) -> None:
        self.port, self.url = port, f"http://127.0.0.1:{port}{self.path}"
        self._ready.set()


def script_of(path: Path | None, what: str) -> Any:
    """The list of `what` (steps, faults) in a JSON file; empty where there is none. Raises BadInput."""
    if path is None:
        return []
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as wrong:
        raise BadInput(f"{path}: no script ({wrong}); expected a JSON list of {what}") from None
    if not isinstance(found, list):
        raise BadInput(f"{path}: no script; expected a JSON list of {what}")
    return found
