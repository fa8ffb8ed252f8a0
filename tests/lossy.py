"""A proxy in front of the app that loses answers, or keeps them back, as a bad network does."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx


class Proxy(ThreadingHTTPServer):
    """Hands requests on to `target`. `lost` answers to acts are thrown away, once the app gave them; `away`: all."""

    daemon_threads = True

    def __init__(self, target):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = httpx.Client(base_url=target, timeout=60)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.acts = []
        self.lost = 0
        self.away = False
        self.let = threading.Event()
        self.let.set()

    def handle_error(self, request, client_address):
        """A client that went away is none of ours."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _hand_on(self):
        proxy = self.server
        assert isinstance(proxy, Proxy)
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        if proxy.away:
            self.close_connection = True
            return
        act = self.command != "GET" and "dry_run" not in self.path
        answer = proxy.target.request(self.command, self.path, content=body, headers=headers)
        if act:
            proxy.acts.append((self.path, self.headers.get("idempotency-key"), answer.status_code))
            proxy.let.wait(60)
            if proxy.lost:
                proxy.lost -= 1
                self.close_connection = True
                return
        self.send_response(answer.status_code)
        self.send_header("Content-Type", answer.headers["content-type"])
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_POST = do_PUT = do_PATCH = _hand_on


@contextmanager
def lossy(target):
    """A proxy that runs until the end of the block."""
    proxy = Proxy(target)
    thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.let.set()
        proxy.shutdown()
        proxy.server_close()
        proxy.target.close()
        thread.join(30)
