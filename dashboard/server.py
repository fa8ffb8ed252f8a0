"""The dashboard as a server of its own, on loopback unless told otherwise; a composition root, like `gridgov.up`."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import streamlit as st
import uvicorn
from streamlit import config
from streamlit.runtime.scriptrunner.script_runner import ScriptRunner
from streamlit.runtime.scriptrunner_utils.script_requests import RerunData

from gridgov.serving import Server

SCRIPT = Path(__file__).parent / "start" / "script.py"

SHUTDOWN_S = 3
"""So long open pages have to be let go of."""

OPTIONS: dict[str, Any] = {
    "browser.gatherUsageStats": False,
    "client.showErrorDetails": "none",
    "client.showErrorLinks": False,
    "client.toolbarMode": "minimal",
    "logger.level": "error",
    "server.enableAgentApi": False,
    "server.fileWatcherType": "none",
    "server.headless": True,
    "server.showEmailPrompt": False,
    "theme.light.primaryColor": "#0072B2",
    "theme.dark.primaryColor": "#56B4E9",
}
"""No request leaves the machine, nobody is asked for an address, and a fault shows no insides."""

# What pages load is theirs. Charts are compiled in the browser, hence eval; nothing else may come from elsewhere.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws: wss:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; frame-ancestors 'self'"
)

_reports = logging.getLogger(__name__)


def _on_fault(error: Exception) -> bool:
    """A fault of a page: the report says what, the page what to do."""
    _reports.error("a page failed", exc_info=error)
    st.error(
        "This page failed; nothing was changed by it. Load it again. If it fails again, the dashboard's output has the "
        "reason: please report it."
    )
    return True


class _Headers:
    """Every answer says what its page may load."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers one request."""

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = [(b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        await self.app(scope, receive, sending if scope["type"] == "http" else send)


def drop_what_is_gone() -> None:
    """Lets Streamlit drop what a page asks for after it was left.

    A page that draws itself anew, or a second click on it, may ask for a part of itself (a fragment) while the server
    turns to another page already. Streamlit looks for that part afterwards, finds none, but tells the browser that
    the page is the old one again, which then clears the new page and is left blank. A test shows it.
    """
    run = ScriptRunner._run_script
    if run.__name__ == "_checked":
        return

    def _checked(self: ScriptRunner, wanted: RerunData) -> None:
        parts = wanted.fragment_id_queue
        if not parts or any(self._fragment_storage.contains(part) for part in parts):
            run(self, wanted)

    ScriptRunner._run_script = _checked  # type: ignore[assignment, method-assign]


def _warm() -> None:
    """Loads what every page needs, so that who comes first does not wait for it."""
    for name in ("pandas", "pyarrow", "altair", "dashboard.frame", "dashboard.pages.today"):
        import_module(name)


def serve(listening: socket.socket, ready: Callable[[], None] = lambda: None) -> None:
    """Serves the pages on a socket until it is told to stop. `ready` is told when pages are answered."""
    from starlette.middleware import Middleware

    host, port = listening.getsockname()[:2]
    chosen = {**OPTIONS, "server.address": host, "server.port": port, "browser.serverAddress": host}
    for name, value in chosen.items():
        config.set_option(name, value)
    drop_what_is_gone()
    app = st.App(SCRIPT, middleware=[Middleware(_Headers)], on_script_error=_on_fault)
    settings = uvicorn.Config(
        app, log_config=None, log_level="error", access_log=False, server_header=False, lifespan="on",
        ws="websockets-sansio", ws_max_size=64 << 20, timeout_graceful_shutdown=SHUTDOWN_S,
    )  # fmt: skip
    threading.Thread(target=_warm, name="gridgov-dashboard-warm", daemon=True).start()
    Server(settings, lambda _: ready()).run(sockets=[listening])


def die_with(parent: int) -> None:
    """Ends this process when the one that started it ends, however that ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the process that started the dashboard has ended")
