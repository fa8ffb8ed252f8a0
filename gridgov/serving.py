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


END_S = 60.0
"""How long a server in a thread may take to finish what it took on."""


@contextmanager
def served(app: Any) -> Iterator[str]:
    """An app on a free port of loopback, in a thread; gives its address. With the block it shuts down as it should."""
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", 0, log_config=None, access_log=False, lifespan="on"))
    thread = threading.Thread(target=server.run, name="the app", daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the app did not start"
        thread.join(0.01)
    try:
        yield address("127.0.0.1", server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(END_S)
        assert not thread.is_alive(), "the app does not end"
