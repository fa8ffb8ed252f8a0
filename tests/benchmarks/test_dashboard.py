"""The dashboard in a real browser beside five million ledger entries, and beside a small run in the same minute.

BENCH_ENTRIES makes it smaller. Each figure is the median of some tries, after one that fills the caches; the
first look, which fills them, is told apart.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest

from dashboard import runs
from gridgov.auth import Keys
from gridgov.embedded import Embedded
from gridgov.engine import Engine
from gridgov.postgres import PostgresLedger, migrate
from sim.launch import launch
from sim.loading import load
from tests import apps
from tests.benchmarks.large_run import ENTRIES, EPOCHS, make, play
from tests.browser import dashboard
from tests.plays import SCENARIOS

pytest_plugins = ["tests.browser"]

WANTED = int(os.environ.get("BENCH_ENTRIES") or ENTRIES)
TRIES = 5

Work = Callable[[], object]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A small run and a large one."""
    folder = tmp_path_factory.mktemp("store")
    small = launch(load(SCENARIOS / "community-week.yaml"), out=folder).summary.run_id
    made = make(folder / "large.duckdb", WANTED)
    about = runs.about(runs.locate(folder, "large.duckdb"))
    print(f"\n{about.info['entries']:,} ledger entries, {made.stat().st_size / 1e6:,.0f} MB")
    return SimpleNamespace(folder=folder, small=small, large="large.duckdb", epochs=about.epochs)


@contextmanager
def watched(sheet: Any) -> Iterator[dict[str, list[float]]]:
    """Collects seconds by what was done, and prints them."""
    found: dict[str, list[float]] = {}
    yield found
    for what, all_of in found.items():
        later = f", then {1000 * median(all_of[1:]):,.0f} ms" if len(all_of) > 1 else ""
        print(f"{what:58} first {1000 * all_of[0]:,.0f} ms{later}")


def timed(found: dict[str, list[float]], what: str, work: Work) -> None:
    start = time.perf_counter()
    work()
    found.setdefault(what, []).append(time.perf_counter() - start)


def look(sheet: Any, found: dict[str, list[float]], what: str, path: str, first: str) -> None:
    """Loads a page: until its first words can be read, and until all of it is drawn."""
    page = sheet.page
    start = time.perf_counter()
    page.goto(sheet.base + path)
    page.locator("[data-testid=stMain]").get_by_text(first).first.wait_for()
    found.setdefault(f"{what}: first paint", []).append(time.perf_counter() - start)
    sheet.settle()
    found.setdefault(f"{what}: all drawn", []).append(time.perf_counter() - start)


def walk(sheet: Any, found: dict[str, list[float]], what: str, run: str, epochs: int) -> None:
    """A look at a run: its first paint, the slider, and each of its sides."""
    page = sheet.page
    for _ in range(TRIES):
        look(sheet, found, what, f"/run?run={run}", "Who had what")
        slider = page.get_by_role("slider").first
        slider.focus()

        def move(slider: Any = slider, to: int = epochs - 1) -> None:
            slider.press("ArrowLeft")
            page.get_by_text(f"Epoch {to:,} closed").wait_for()

        timed(found, f"{what}: slider moved", move)
        for side, seen in (
            ("Who gave to whom", "The same as a table"),
            ("Proposals", "Search reasons and ids"),
            ("Ledger", "Click the box before a row to read what made it"),
            ("Journal", "Search records and digests"),
            ("Metrics", "Of each actor"),
        ):

            def turn(side: str = side, seen: str = seen) -> None:
                page.locator("[data-testid=stMain]").get_by_role("radio", name=side, exact=True).click()
                page.get_by_text(seen).first.wait_for()
                sheet.settle()

            timed(found, f"{what}: turned to {side}", turn)


@pytest.mark.benchmark
def test_run_of_five_million_entries_beside_a_small_one(store: SimpleNamespace, browse: Any) -> None:
    with dashboard(runs=store.folder) as served:
        sheet = browse(served)
        sheet.open("/sweeps")  # what a browser loads once
        with watched(sheet) as found:
            walk(sheet, found, "small run", store.small, 168)
            walk(sheet, found, "large run", store.large, store.epochs)
            deep = f"/run?run={store.large}&view=Ledger&actor=home-7&kind=transfer"
            for n in range(TRIES):
                look(sheet, found, "large run, ledger of one actor", f"{deep}&page={100 * n + 1}", "of")
            one = runs.rows(
                runs.locate(store.folder, store.large), "proposals_page", fill={"limit": TRIES, "offset": WANTED // 10},
                **dict.fromkeys(("outcome", "proposer", "first", "last", "code", "actor", "find")),
            )  # fmt: skip
            for row in one:
                path = f"/run?run={store.large}&view=Proposals&proposal={row['proposal_id']}"
                look(sheet, found, "large run, story of a proposal", path, "What it saw")


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A grid in Postgres with as many entries, and a key that may read."""
    folder = Path("/var/tmp") / f"gridgov-bench-{os.getpid()}"
    folder.mkdir(mode=0o711)
    try:
        with Embedded(folder / "server", durable=False) as server:
            migrate(server.url, "main")
            ledger = PostgresLedger(server.url, "main")
            play(Engine(ledger), WANTED)
            ledger.close()
            keys = Keys(server.url, "main")
            key = keys.create("bench", ["read"], 1_000)
            keys.close()
            yield server.url, key
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.benchmark
def test_production_of_five_million_entries(grid: tuple[str, str], browse: Any) -> None:
    url, key = grid
    with apps.running(url) as client, dashboard(str(client.http.base_url), key) as served:
        sheet = browse(served)
        sheet.open("/sweeps")
        with watched(sheet) as found:
            for n in range(TRIES):
                look(sheet, found, "production, Today", "/today", "Data as of")
                look(sheet, found, "production, Ledger", "/ledger", "Data as of")
                look(sheet, found, "production, Ledger, one epoch", f"/ledger?epoch={EPOCHS // 2 + n}", "Data as of")
                look(sheet, found, "production, Proposals", "/proposals", "Data as of")
                look(sheet, found, "production, Journal", "/journal", "Data as of")
