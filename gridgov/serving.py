"""A server of HTTP that says when it listens, and ends by returning; what it answers is known elsewhere."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn


class Server(uvicorn.Server):
    """Says when it listens and where, and ends by returning, so that who called can stop what else there is."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[str], None] | None) -> None:
        super().__init__(config)
        self._ready = ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Shuts down on SIGINT and SIGTERM, which are not raised again; outside the main thread, somebody says so."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: Any = None) -> None:
        """Starts to listen."""
        await super().startup(sockets)
        if self.started and self._ready is not None:
            self._ready(address(self.config.host, self.servers[0].sockets[0].getsockname()[1]))


def address(host: str, port: int) -> str:
    """Where a person opens it."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
