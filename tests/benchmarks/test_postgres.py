"""The production ledger beside pgbench's TPC-B on the same durable server, and what size does to it."""

from __future__ import annotations

import gc
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import median

import psycopg
import pytest

from gridgov import postgres, replay
from gridgov.batch import Committed
from gridgov.embedded import Embedded, programs
from gridgov.engine import Engine
from gridgov.journal import Decision, Genesis
from gridgov.model import BOUNDARY, Actor, Constraints, Limit, Proposal, Resource
from gridgov.postgres import PostgresLedger, Reader, Writer, migrate
from gridgov.standing import load_state
from tests.benchmarks.side_by_side import compare, seconds
from tests.benchmarks.test_engine import ACTORS, RESOURCES, proposals

CLIENTS = (1, 8, 64)
SECONDS = 4
ROUNDS, TURNS = 3, 5
ENTRIES = 5_000_000

_epochs = count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[Embedded]:
    """A server on a disk, which waits for the disk at each commit."""
    with tempfile.TemporaryDirectory(prefix="gridgov-bench-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o711)
        with Embedded(Path(folder) / "server") as embedded:
            yield embedded


@pytest.fixture
def grid(server: Embedded, request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The server's URL and a fresh grid of 100 actors and 3 resources."""
    name = request.node.name.removeprefix("test_")[:60]
    migrate(server.url, name)
    actors = (Actor(BOUNDARY, "boundary"), *(Actor(actor, "node") for actor in ACTORS))
    resources = tuple(Resource(resource, "unit", 3) for resource in RESOURCES)
    limits = Constraints(max_transfer=Limit(dict.fromkeys(RESOURCES, 50_000), {}))
    opening = tuple((actor, resource, 10**12) for actor in ACTORS for resource in RESOURCES)
    ledger = PostgresLedger(server.url, name)
    Engine(ledger).append(Genesis(1, 0, 3_600_000_000, actors, resources, limits, opening, {}), 0)
    ledger.commit()
    ledger.close()
    yield server.url, name
    postgres.drop(server.url, name)


def pgbench(server: Embedded, folder: Path, clients: int) -> tuple[float, list[float]]:
    """TPC-B transactions a second, and the seconds of each."""
    binary, prefix = str(programs() / "pgbench"), str(folder / f"latency-{clients}")
    if not (folder / "filled").exists():
        subprocess.run([binary, "-i", "-q", "-s", "10", server.url], check=True, capture_output=True)
        (folder / "filled").touch()
    command = [binary, "-c", str(clients), "-j", str(min(clients, 2)), "-T", str(SECONDS), "-n", "-l",
               f"--log-prefix={prefix}", server.url]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    (tps,) = [float(line.split()[2]) for line in done.stdout.splitlines() if line.startswith("tps")]
    times = []
    for path in folder.glob(f"latency-{clients}.*"):
        times += [int(line.split()[2]) / 1e6 for line in path.read_text().splitlines()]
        path.unlink()
    return tps, times


@contextmanager
def no_collections() -> Iterator[None]:
    """As `side_by_side` measures: after a collection, and with none in between."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def asking(writer: Writer, asked: Proposal) -> Callable[[], Decision]:
    return lambda: writer.submit(lambda engine: engine.propose(asked, 1), asked.id)


def in_flight(writer: Writer, threads: int, total: int) -> tuple[float, list[float]]:
    """Proposals a second, each answered after its commit, and the seconds of each."""
    asks = iter([asking(writer, asked) for asked in proposals(total, next(_epochs))])
    entrance, times = threading.Lock(), list[float]()

    def run() -> None:
        while True:
            with entrance:
                ask = next(asks, None)
            if ask is None:
                return
            start = time.perf_counter()
            ask()
            times.append(time.perf_counter() - start)

    own = [threading.Thread(target=run) for _ in range(threads)]
    with no_collections():
        start = time.perf_counter()
        for thread in own:
            thread.start()
        for thread in own:
            thread.join()
        return total / (time.perf_counter() - start), times


def from_a_list(writer: Writer, total: int) -> float:
    """Proposals a second where one thread has them all at hand."""
    asked = proposals(total, next(_epochs))
    with no_collections():
        start = time.perf_counter()
        calls = [writer.enqueue(lambda engine, one=one: engine.propose(one, 1), one.id) for one in asked]
        for call in calls:
            call.result()
        return total / (time.perf_counter() - start)


def p99(times: list[float]) -> float:
    return sorted(times)[int(0.99 * len(times))]


@pytest.mark.benchmark
def test_group_commit_beside_pgbench(server: Embedded, grid: tuple[str, str], tmp_path: Path) -> None:
    batches: list[Committed] = []
    found: list[tuple[float, ...]] = []
    with Writer(*grid, on_commit=batches.append) as writer:
        in_flight(writer, 8, 1_000)
        for _ in range(ROUNDS):
            theirs = {clients: pgbench(server, tmp_path, clients) for clients in CLIENTS}
            best = max(tps for tps, _ in theirs.values())
            batches.clear()
            many, times = in_flight(writer, 256, 20_000)
            size = sum(batch.commands for batch in batches) / len(batches)
            listed = from_a_list(writer, 30_000)
            found.append((best, many, listed))
            print(f"\npgbench {', '.join(f'{c}: {tps:,.0f}' for c, (tps, _) in theirs.items())} tps; "
                  f"256 in flight {many:,.0f}/s, {size:.0f} to a commit, p50 {1000 * median(times):.1f} ms, "
                  f"p99 {1000 * p99(times):.1f} ms; from a list {listed:,.0f}/s")  # fmt: skip
    print(f"ratios to the best pgbench, median of {ROUNDS}: 256 in flight "
          f"{median(many / best for best, many, _ in found):.2f}, from a list "
          f"{median(listed / best for best, _, listed in found):.2f}")  # fmt: skip


@pytest.mark.benchmark
def test_one_client_beside_pgbench(server: Embedded, grid: tuple[str, str], tmp_path: Path) -> None:
    ratios: list[float] = []
    with Writer(*grid) as writer:
        in_flight(writer, 1, 300)
        for _ in range(TURNS):
            _, theirs = pgbench(server, tmp_path, 1)
            _, ours = in_flight(writer, 1, 1_500)
            ratios.append(p99(ours) / p99(theirs))
            print(f"\none client p50 {1000 * median(ours):.2f} ms, p99 {1000 * p99(ours):.2f} ms (pgbench "
                  f"{1000 * median(theirs):.2f} and {1000 * p99(theirs):.2f} ms)")  # fmt: skip
    print(f"p99 of one client to pgbench's, median of {TURNS} by turns: {median(ratios):.2f}")


LARGE = """
INSERT INTO journal SELECT (SELECT max(seq) FROM journal) + n, 2, 'proposal', 'epoch', gen_random_uuid(), 'executed',
    NULL,
    '{"at":0,"epoch":2,"kind":"control","payload":{"paused":false},"seq":' || (SELECT max(seq) FROM journal) + n || '}',
    sha256(n::text::bytea)
    FROM generate_series(1, %(entries)s) AS n;
INSERT INTO ledger SELECT (SELECT max(id) FROM ledger) + n, NULL, a[1 + mod(n, 100)], a[1 + mod(n + 1, 100)],
    CASE mod(n, 3) WHEN 0 THEN 'energy' WHEN 1 THEN 'water' ELSE 'credits' END, 0.001, 'epoch', '{}', 300 + n, n / 5000,
    'transfer'
    FROM generate_series(1, %(entries)s) AS n, (SELECT array_agg(id) AS a FROM actors WHERE key <> 'grid') AS nodes;
UPDATE balances AS b SET amount = s.amount FROM (
    SELECT m.actor, m.resource, sum(m.amount) AS amount FROM (
        SELECT actor_to AS actor, resource, amount FROM ledger
        UNION ALL SELECT actor_from, resource, -amount FROM ledger
    ) AS m GROUP BY m.actor, m.resource
) AS s WHERE b.actor = s.actor AND b.resource = s.resource;
"""


def milliseconds(work: Callable[[], object], times: int = 21) -> float:
    return 1000 * median(seconds(work) for _ in range(times))


def costs(grid: tuple[str, str]) -> dict[str, float]:
    """Milliseconds of what must not depend on the size of the ledger."""
    reader = Reader(*grid)
    reader.world_state()
    with Writer(*grid) as writer:
        asks = iter([asking(writer, asked) for asked in proposals(200, next(_epochs))])
        next(asks)()

        def look_after_one_more() -> None:
            next(asks)()
            reader.world_state()

        found = {
            "a proposal, and the WorldState that has it": milliseconds(look_after_one_more, 101),
            "the WorldState as it was": milliseconds(reader.world_state, 101),
            "a decision by its id": milliseconds(lambda: reader.answered("00000000-0000-5000-8000-000000000000"), 101),
            "a page of the outbox": milliseconds(lambda: reader.rows("outbox_page", after=0, limit=50)),
        }
    reader.close()
    return found


@pytest.mark.benchmark
def test_nothing_costs_more_at_five_million_entries(grid: tuple[str, str]) -> None:
    url, name = grid
    with Writer(*grid) as writer:
        in_flight(writer, 8, 5_000)
        writer.submit(lambda engine: engine.close(1))
    early = costs(grid)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT set_config('search_path', %s, false)", [name])
        for statement in LARGE.split(";")[:-1]:
            connection.execute(statement, {"entries": ENTRIES})
        connection.execute("VACUUM ANALYZE journal, ledger, balances")
        connection.execute("CHECKPOINT")
    start = time.perf_counter()
    with Writer(*grid) as writer:
        opened = time.perf_counter() - start
        writer.submit(lambda engine: engine.close(1))
    start = time.perf_counter()
    Writer(*grid).close()
    again = time.perf_counter() - start
    late = costs(grid)
    print(f"\na writer starts in {1000 * opened:,.0f} ms with {ENTRIES:,} entries in the open epoch, "
          f"in {1000 * again:,.0f} ms after its close")  # fmt: skip
    for what, cost in late.items():
        print(f"{what}: {early[what]:.2f} ms at 5 thousand entries, {cost:.2f} ms at 5 million, "
              f"ratio {cost / early[what]:.2f}")  # fmt: skip
    connection = postgres.connect(url, name, postgres.READ)
    state = load_state(connection)
    columns = postgres.columns(connection)
    balances = replay.balances_at(columns)
    assert {
        resource: {actor: int(balances[i][j]) for i, actor in enumerate(columns.actors)}
        for j, resource in enumerate(columns.resources)
    } == state.balances

    def nowhere() -> None:
        with connection.cursor() as cursor, cursor.copy("COPY ledger TO STDOUT (FORMAT BINARY)") as copy:
            for _ in copy:
                pass

    compare(f"{ENTRIES:,} entries as int64 columns, beside COPY of the table to nowhere",
            lambda: postgres.columns(connection), nowhere, times=3)  # fmt: skip
    connection.close()
