"""The export of a grid beside a bare COPY of its rows to nowhere, on the same server."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gridgov import postgres
from gridgov.embedded import Embedded
from gridgov.engine import Engine
from gridgov.grid_export import export_grid
from gridgov.journal import Genesis
from gridgov.model import BOUNDARY, Actor, Constraints, Limit, Resource
from gridgov.postgres import PostgresLedger, migrate
from gridgov.source import open_source
from gridgov.verify import Report, verify
from tests.benchmarks.side_by_side import compare, seconds
from tests.benchmarks.test_engine import ACTORS, RESOURCES, proposals

GRID = "exported"
EPOCHS = 10
PROPOSALS = 5_000
"""In each epoch."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server whose grid has fifty thousand proposals of 100 actors."""
    with tempfile.TemporaryDirectory(prefix="gridgov-bench-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o711)
        with Embedded(Path(folder) / "server", durable=False) as server:
            play(server.url)
            yield server.url


def play(url: str) -> None:
    migrate(url, GRID)
    actors = (Actor(BOUNDARY, "boundary"), *(Actor(actor, "node") for actor in ACTORS))
    resources = tuple(Resource(resource, "unit", 3) for resource in RESOURCES)
    limits = Constraints(max_transfer=Limit(dict.fromkeys(RESOURCES, 50_000), {}))
    opening = tuple((actor, resource, 10**12) for actor in ACTORS for resource in RESOURCES)
    ledger = PostgresLedger(url, GRID)
    engine = Engine(ledger)
    engine.append(Genesis(1, 0, 3_600_000_000, actors, resources, limits, opening, {}), 0)
    for epoch in range(1, EPOCHS + 1):
        for asked in proposals(PROPOSALS, epoch):
            engine.propose(asked, epoch)
        engine.close(epoch)
    ledger.close()


@pytest.mark.benchmark
def test_export_of_a_grid_beside_copy_to_nowhere(url: str, tmp_path: Path) -> None:
    connection, report = postgres.connect(url, GRID, postgres.READ), list[Report]()
    ((records,),) = connection.execute("SELECT count(*) FROM journal").fetchall()
    ((entries,),) = connection.execute("SELECT count(*) FROM ledger").fetchall()

    def nowhere() -> None:
        for table in (b"journal", b"ledger"):
            with connection.cursor() as cursor, cursor.copy(b"COPY " + table + b" TO STDOUT (FORMAT BINARY)") as copy:
                for _ in copy:
                    pass

    def exported() -> None:
        path = tmp_path / "grid.duckdb"
        path.unlink(missing_ok=True)
        export_grid(url, GRID, path)

    compare(f"{records:,} records and {entries:,} entries exported, beside COPY of both tables to nowhere",
                    exported, nowhere, times=3)  # fmt: skip
    ours, bare = seconds(exported), seconds(nowhere)
    print(f"exported {(records + entries) / ours:,.0f} rows/s, copied {(records + entries) / bare:,.0f} rows/s")
    with open_source(str(tmp_path / "grid.duckdb"), tmp_path) as source:
        taken = seconds(lambda: report.append(verify(source)))
    with open_source("postgres", tmp_path, (url, GRID)) as source:
        there = seconds(lambda: report.append(verify(source)))
    print(f"verified {records / taken:,.0f} records/s of the export, {records / there:,.0f} records/s of the grid")
    assert [one.first for one in report] == [None, None]
    connection.close()
