"""`python -m dashboard.pictures`: the README's pictures, of a day of production that is played here, and of runs.

A composition root for this one purpose: an app with a clock of its own on a Postgres of its own, meters of a scenario's
homes, a stub in Gemini's place, `gridgov dashboard` in front, and a real browser. Pictures go beside this file.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

FOLDER = Path(__file__).parent / "pictures"
SCENARIO = Path("scenarios/community-week.yaml")
GRIDGOV = [sys.executable, "-c", "from gridgov.cli import main; main()"]
EPOCHS, EPOCH_US, MORNING = 30, 3_600_000_000, 11
"""So many hours of the scenario are played, from 9 in the morning on."""

WIDTH, HEIGHT, TALLEST = 1280, 900, 1_700
COLOURS = 96
PAGES = {
    "today": "/",
    "story": "/proposals?id={refused}",
    "operate": "/operate?act=held",
    "run": "/run?run={run}",
    "sweep": "/sweeps?file={sweep}&metric=self_sufficiency/energy",
}
"""Each picture and the page that it shows."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Clock:
    """Microseconds since 1970, of a day that has passed in seconds."""

    def __init__(self) -> None:
        self.at = time.time_ns() // 1_000 - EPOCHS * EPOCH_US + EPOCH_US // 2 - 5 * 60 * 1_000_000

    def __call__(self) -> int:
        return self.at


@contextmanager
def production(clock: Clock) -> Iterator[tuple[str, str]]:
    """An app in front of a new grid with the homes of the scenario: its address, and a key that may do everything."""
    from gridgov import api
    from gridgov.auth import Keys
    from gridgov.embedded import temporary
    from gridgov.operations import begin, genesis
    from gridgov.postgres import migrate
    from gridgov.serving import served

    with temporary() as postgres:
        migrate(postgres.url, "main")
        begin(postgres.url, "main", genesis(SCENARIO, clock()), clock())
        keys = Keys(postgres.url, "main")
        key = keys.create("mia", ["operate"], clock())
        keys.close()
        app = api.create(postgres.url, "main", "http://127.0.0.1:8501", clock=clock)
        with served(app) as address:
            yield address, key


def play(url: str, key: str, clock: Clock) -> dict[str, str]:
    """A day of production: meters, rounds, one proposal that is refused, one that waits. Gives their ids."""
    from sim.loading import load
    from sim.meters import Meters
    from sim.stubs.gemini import Stub
    from sim.world import World

    meters = Meters(World(load(SCENARIO)), MORNING)
    headers = {"Authorization": f"Bearer {key}"}
    with Stub() as stub, httpx.Client(base_url=url, headers=headers, timeout=60) as app:
        for epoch in range(1, EPOCHS + 1):
            _good(app.post("/v1/flows", json=meters.reading(epoch)))
            clock.at += EPOCH_US // 2
            context = _good(app.get("/v1/context"))
            reply = httpx.post(stub.url + context["request"]["path"], json=context["request"]["body"], timeout=60,
                               headers={"x-goog-api-key": "any"})  # fmt: skip
            _propose(app, context["proposal_id"], request_key=context["request_key"], model_response=reply.json(),
                     latency_ms=900 + 37 * epoch % 700)  # fmt: skip
            if epoch == EPOCHS - 4:
                refused = _by_hand(app, 7.5, "home-3 has more sun than it can store, home-9 charges a car at noon.")
            if epoch == EPOCHS:
                _act(app, "PUT", "/v1/constraints", {"constraints": {
                    **_good(app.get("/v1/constraints"))["constraints"], "hold_above": {"credits": 20}},
                    "reason": "large payments are looked at by a person"})  # fmt: skip
                held = _by_hand(app, 32, "home-3 pays back what it was lent on Monday.", "credits")
                break
            clock.at += EPOCH_US - EPOCH_US // 2
            _good(app.post("/v1/epochs/close", json={"epoch": epoch}))
        for outcome in _good(app.get("/v1/outbox", params={"limit": 1_000}))["items"]:
            _good(app.post(f"/v1/outbox/{outcome['seq']}/ack", json={"reference": f"GRID-{outcome['seq']}"}))
    clock.at = time.time_ns() // 1_000
    return {"refused": refused, "held": held}


def _by_hand(app: httpx.Client, amount: float, why: str, resource: str = "energy") -> str:
    id_ = str(uuid.uuid4())
    moved = {"from": "home-3", "to": "home-9", "resource": resource, "amount": amount}
    _propose(app, id_, proposal={"transfers": [moved], "reasoning": why})
    return id_


def _propose(app: httpx.Client, id_: str, **what: Any) -> None:
    _good(app.post("/v1/proposals", json={"proposal_id": id_, **what}))


def _act(app: httpx.Client, method: str, path: str, body: dict[str, Any]) -> None:
    _good(app.request(method, path, json=body, headers={"Idempotency-Key": secrets.token_hex(16)}))


def _good(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def run_of(store: Path) -> str:
    """A run of the scenario in a store: its id."""
    command = [*GRIDGOV, "run", str(SCENARIO), "--proposer", "policy:greedy", "--json"]
    done = subprocess.run(command, env={**os.environ, "GRIDGOV_RUNS": str(store)}, capture_output=True, check=True)
    return str(json.loads(done.stdout)["run_id"])


def sweep_of(store: Path) -> str:
    """A sweep of the scenario over what a home may send in an hour, in a store: its file's name."""
    varied = "constraints.epoch_quota.energy=0.1,0.25,0.5,1,2"
    speakers = ["--proposer", "policy:greedy", "--proposer", "policy:hasty", "--proposer", "policy:none"]
    command = [*GRIDGOV, "sweep", str(SCENARIO), "--epochs", "72", "--set", varied, *speakers, "--json"]
    done = subprocess.run(command, env={**os.environ, "GRIDGOV_RUNS": str(store)}, capture_output=True, check=True)
    return Path(json.loads(done.stdout)["export"]).name


@contextmanager
def pages(url: str, key: str, store: Path) -> Iterator[str]:
    """`gridgov dashboard` in front of all of it: its address."""
    own = {**os.environ, "GRIDGOV_API_URL": url, "GRIDGOV_API_KEY": key, "GRIDGOV_RUNS": str(store)}
    process = subprocess.Popen([*GRIDGOV, "dashboard", "--port", "0"], stdout=subprocess.PIPE, text=True, env=own)
    try:
        assert process.stdout is not None, "it is a pipe"
        yield process.stdout.readline().split()[1]
    finally:
        process.terminate()
        process.communicate()


def shoot(address: str, named: dict[str, str], folder: Path) -> None:
    """Takes a picture of each page, as high as the page is."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        sheet = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        for name, path in PAGES.items():
            sheet.set_viewport_size({"width": WIDTH, "height": HEIGHT})
            sheet.goto(address + path.format(**named))
            app = sheet.locator("[data-testid=stApp][data-test-script-state=notRunning]")
            app.wait_for(timeout=60_000)
            sheet.locator("h1").wait_for(timeout=60_000)
            sheet.wait_for_timeout(2_500)  # charts and tables are drawn after the script
            high = int(sheet.evaluate("() => document.querySelector('[data-testid=stMain]').scrollHeight"))
            sheet.set_viewport_size({"width": WIDTH, "height": max(HEIGHT, min(high, TALLEST))})
            sheet.wait_for_timeout(1_500)
            picture = Image.open(io.BytesIO(sheet.screenshot(scale="css")))
            picture.convert("RGB").quantize(COLOURS).save(folder / f"{name}.png", optimize=True)
        browser.close()


def main() -> None:
    """Makes all pictures."""
    FOLDER.mkdir(exist_ok=True)
    clock = Clock()
    with ExitStack() as parts:
        store = Path(parts.enter_context(tempfile.TemporaryDirectory()))
        url, key = parts.enter_context(production(clock))
        named = {**play(url, key, clock), "run": run_of(store), "sweep": sweep_of(store)}
        shoot(parts.enter_context(pages(url, key, store)), named, FOLDER)
    for picture in sorted(FOLDER.glob("*.png")):
        print(f"{picture.name}: {picture.stat().st_size // 1_000} kB")


if __name__ == "__main__":
    main()
