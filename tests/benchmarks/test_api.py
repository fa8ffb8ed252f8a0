"""Proposals over HTTP, beside the writer without HTTP and beside an answer that costs nothing, on the same machine."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from statistics import median
from urllib.parse import urlsplit

import pytest

from gridgov.auth import Keys
from gridgov.embedded import Embedded
from gridgov.postgres import Writer
from tests.benchmarks.test_engine import ACTORS
from tests.benchmarks.test_postgres import grid, in_flight, p99, server  # noqa: F401 - fixtures

CLIENTS = (1, 64, 256)
SECONDS = 5.0


async def _client(address: tuple[str, int], requests: Iterator[bytes], until: float, times: list[float]) -> int:
    """One connection, one request after the other; how many were not answered with 200."""
    reader, writer = await asyncio.open_connection(*address)
    wrong = 0
    try:
        while (start := time.perf_counter()) < until:
            writer.write(next(requests))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            times.append(time.perf_counter() - start)
            wrong += not head.startswith(b"HTTP/1.1 200")
    finally:
        writer.close()
    return wrong


def _requests(path: str, key: str) -> Iterator[bytes]:
    """Proposals of one transfer each under ids of their own; or GETs of another path."""
    start = f"Host: x\r\nAuthorization: Bearer {key}\r\n"
    if path != "/v1/proposals":
        while True:
            yield f"GET {path} HTTP/1.1\r\n{start}\r\n".encode()
    n = 0
    while True:
        n += 1
        pair = ACTORS[n % 100], ACTORS[(n + 1) % 100]
        transfer = {"from": pair[0], "to": pair[1], "resource": "energy", "amount": 0.001}
        body = json.dumps({"proposal_id": str(uuid.uuid4()), "proposal": {"transfers": [transfer], "reasoning": "x"}})
        length = f"Content-Type: application/json\r\nContent-Length: {len(body)}"
        yield f"POST {path} HTTP/1.1\r\n{start}{length}\r\n\r\n{body}".encode()


def _load(url: str, path: str, key: str, clients: int, seconds: float) -> tuple[float, list[float], int]:
    """In a process of its own: requests a second, the seconds of each, and how many failed."""
    parts = urlsplit(url)
    address = (str(parts.hostname), int(parts.port or 80))
    times: list[float] = []

    async def run() -> int:
        until = time.perf_counter() + seconds
        requests = _requests(path, key)
        return sum(await asyncio.gather(*(_client(address, requests, until, times) for _ in range(clients))))

    start = time.perf_counter()
    wrong = asyncio.run(run())
    return len(times) / (time.perf_counter() - start), times, wrong


@pytest.fixture
def app(grid: tuple[str, str]) -> Iterator[tuple[str, str]]:  # noqa: F811
    """The address of an app over the grid, in a process of its own, and a key."""
    store = Keys(*grid)
    key = store.create("bench", ["propose"], 1)
    store.close()
    environment = {**os.environ, "GRIDGOV_DATABASE_URL": grid[0], "GRIDGOV_GRID": grid[1]}
    process = subprocess.Popen(
        [sys.executable, "-c", "from gridgov.cli import main; main()", "serve", "--port", "0"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    yield process.stdout.readline().split()[-1], key
    process.terminate()
    process.communicate(timeout=30)


@pytest.mark.benchmark
def test_proposals_over_http(server: Embedded, grid: tuple[str, str], app: tuple[str, str]) -> None:  # noqa: F811
    url, key = app
    with multiprocessing.get_context("spawn").Pool(1) as pool:

        def load(path: str, clients: int, seconds: float = SECONDS) -> tuple[float, list[float]]:
            rate, times, wrong = pool.apply(_load, (url, path, key, clients, seconds))
            assert not wrong, f"{wrong} of {len(times)} were not answered with 200"
            return rate, times

        load("/v1/proposals", 64, 2)
        for clients in CLIENTS:
            rate, times = load("/v1/proposals", clients)
            floor, floors = load("/healthz", clients)
            with Writer(*grid) as writer:
                bare, _ = in_flight(writer, clients, max(500, int(rate * 3)))
            print(
                f"\n{clients} clients: {rate:,.0f} proposals/s, p50 {1000 * median(times):.1f} ms, "
                f"p99 {1000 * p99(times):.1f} ms; /healthz {floor:,.0f}/s, p50 {1000 * median(floors):.1f} ms; "
                f"the writer without HTTP {bare:,.0f}/s; "
                f"ratio to /healthz {rate / floor:.2f}, to the writer {rate / bare:.2f}"
            )
