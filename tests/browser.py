"""The dashboard in a real, headless Chromium, in front of a real app on a real Postgres: `pytest_plugins`.

A test has a dashboard (`reading`, `operating`, or one of its own) and opens it: `browse(reading).open("/ledger")`.
What a page asks of another machine, and what it reports as an error, fails the test. Pictures of pages go to
GRIDGOV_SCREENSHOTS, which CI sets; without it `shoot` only looks whether a page fits its window, which takes no time.

A test waits for what it will look at, never for a while: pages are drawn when they are drawn, on a busy machine too.

PYTEST_DONT_REWRITE: a test module may import this one before pytest does.
"""

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests import apps

try:
    from playwright.sync_api import TimeoutError
except ModuleNotFoundError:  # then `chromium` says so, and no test comes as far as this
    TimeoutError = OSError

pytest_plugins = ["tests.databases"]

_reports = logging.getLogger(__name__)

ROOT = Path(__file__).parent.parent
GRIDGOV = [sys.executable, "-c", "from gridgov.cli import main; main()"]
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
PATIENCE_MS = 60_000
"""How long anything that must come may take: the machine is shared."""

CLICK_MS = 10_000
"""How long what a click leads to may take before it is done again."""

HEAD_PX, ROW_PX = 36, 35
"""How high the heading and a row of a table are."""

WIDTHS = {"1280": (1280, 900), "390": (390, 844)}


def missing(what):
    """Skips the test for want of something; fails it in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def chromium():
    """The browser of the session."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        missing("playwright is not installed: `make extras`")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        missing("there is no Chromium: install the system's package `chromium`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Dashboard:
    """A `gridgov dashboard` that runs: its address, and its process."""

    def __init__(self, process, url):
        self.process, self.url = process, url


@contextmanager
def dashboard(api_url="http://127.0.0.1:9", key=None, runs=None, port=0, home=None):
    """Runs `gridgov dashboard` until the end of the block, and then as Ctrl-C ends it. Port 9 answers nothing."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRIDGOV_")}
    environment |= {"GRIDGOV_API_URL": api_url, "GRIDGOV_RUNS": str(runs or "/nonexistent/runs")}
    environment |= {"HOME": str(home)} if home else {}
    environment |= {"GRIDGOV_API_KEY": key} if key else {}
    process = subprocess.Popen(
        [*GRIDGOV, "dashboard", "--port", str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        assert line.startswith("dashboard http://127.0.0.1:"), line + process.stderr.read()
        yield Dashboard(process, line.split()[1])
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
            assert "Traceback" not in err, err
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def production(server):
    """A client of an app over a grid of its own, shared by the tests of a module: as `tests.apps` makes it."""
    name = server.template("app", apps.fill)
    with server.database(name) as url, apps.running(url) as client:
        yield client


@pytest.fixture(scope="module")
def reading(production):
    """A dashboard that looks at `production` with a key that may read."""
    with dashboard(str(production.http.base_url), apps.KEYS["read"]) as found:
        yield found


@pytest.fixture(scope="module")
def operating(production):
    """A dashboard that looks at `production` with a key that may operate."""
    with dashboard(str(production.http.base_url), apps.KEYS["operate"]) as found:
        yield found


class Sheet:
    """One page of the browser: what tests do with it, and what it must not have done."""

    def __init__(self, page, base, folder, name):
        self.page, self.base, self._folder, self._name = page, base, folder, name
        self.foreign, self.errors = [], []
        page.on("request", self._requested)
        page.on("websocket", self._requested)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _requested(self, request):
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname not in ("127.0.0.1", "localhost"):
            self.foreign.append(request.url)

    def open(self, path="/"):
        """Loads a page of the dashboard and waits until it is drawn."""
        self.page.goto(self.base + path)
        return self.settle()

    def settle(self):
        """Waits until the script that draws the page has run to its end."""
        app = self.page.locator("[data-testid=stApp]")
        app.wait_for()
        self.page.wait_for_function(
            """() => { const app = document.querySelector('[data-testid=stApp]');
                       return app && app.dataset.testScriptState === 'notRunning'
                              && document.querySelector('h1') !== null
                              && document.querySelector('[data-testid=stSkeleton]') === null; }"""
        )
        return self

    @property
    def text(self):
        """All that can be read in the main part."""
        return self.page.locator("[data-testid=stMain]").inner_text()

    def see(self, *texts):
        """Waits until each text can be read somewhere on the page; of a table, what stands for its drawing."""
        for text in texts:
            written = self.page.get_by_text(text).filter(visible=True)
            drawn = self.page.locator("[role=gridcell]").filter(has_text=text)
            written.or_(drawn).first.wait_for(state="attached")
        return self

    def click(self, name, exact=True):
        """Presses the button with this label."""
        self.page.get_by_role("button", name=name, exact=exact).first.click()
        return self.settle()

    def fill(self, label, value):
        """Writes into a field, as somebody types and leaves it."""
        field = self.page.get_by_label(label, exact=True).first
        field.fill(value)
        field.press("Tab")
        return self.settle()

    def choose(self, label, option):
        """Picks an option of a select box, by typing it."""
        box = self.page.get_by_role("combobox", name=label).first
        box.click()
        box.fill(option)
        self.page.get_by_role("option", name=option, exact=True).first.click()
        return self.settle()

    def press(self, keys):
        """Presses keys, as `Alt+A`."""
        self.page.keyboard.press(keys)
        return self.settle()

    def table(self, name):
        """The table that the page calls so, once its rows are drawn; a page that was left may still have another."""
        found = self.page.locator(f"[class*='st-key-{name}'] [data-testid=stDataFrame]").first
        found.locator("[role=gridcell]").first.wait_for(state="attached")
        return found

    def _leads(self, click, what):
        """Clicks until the page has another address: whose click came to nothing clicks again, and says so."""
        before = self.page.url
        for _ in range(PATIENCE_MS // CLICK_MS):
            try:
                click()
                self.page.wait_for_function("url => window.location.href !== url", arg=before, timeout=CLICK_MS)
            except TimeoutError:
                _reports.warning("%s: a click came to nothing within %d ms", what, CLICK_MS)
                if self.page.url == before:
                    continue
            return self.settle()
        raise AssertionError(f"{what}: no click leads anywhere")

    def mark(self, name, row=0):
        """Clicks the box before a row of a table."""
        place = {"x": 16, "y": HEAD_PX + ROW_PX * row + ROW_PX // 2}
        self.table(name).click(position=place, timeout=CLICK_MS)
        return self

    def pick(self, name, row=0):
        """Opens a row of a table, by the box before it."""
        return self._leads(lambda: self.mark(name, row), f"row {row} of the table {name}")

    def bar(self, fill, place=0, chart=None):
        """Opens a bar, which is found by its colour: of a chart by its number, else of any."""
        charts = self.page.locator("[data-testid=stVegaLiteChart]")
        found = (charts if chart is None else charts.nth(chart)).locator(f"svg .role-mark path[fill='{fill}']")
        return self._leads(lambda: found.nth(place).click(timeout=CLICK_MS), f"bar {fill}")

    def at(self, *parts):
        """Waits until the address has each of these parts."""
        for part in parts:
            self.page.wait_for_function("part => window.location.href.includes(part)", arg=part)
        return self

    def narrow(self):
        """Nothing is wider than a telephone."""
        for size in WIDTHS["390"], WIDTHS["1280"]:
            self.page.set_viewport_size({"width": size[0], "height": size[1]})
            self.page.wait_for_function(
                """() => { const m = document.querySelector('[data-testid=stMain]');
                           return m.scrollWidth <= m.clientWidth; }"""
            )

    def shoot(self, name):
        """Keeps pictures of the whole page where they are wanted: 1280 and 390 pixels wide, light and dark."""
        self.narrow()
        if not os.environ.get("GRIDGOV_SCREENSHOTS"):
            return
        for theme in ("light", "dark"):
            self.page.emulate_media(color_scheme=theme)
            for width, size in WIDTHS.items():
                self.page.set_viewport_size({"width": size[0], "height": size[1]})
                height = self._still()
                self.page.set_viewport_size({"width": size[0], "height": min(max(height + 20, size[1]), 6_000)})
                self._still()
                self.page.screenshot(path=self._folder / f"{name}-{theme}-{width}.png")
        self.page.emulate_media(color_scheme="light")
        self.page.set_viewport_size({"width": 1280, "height": 900})

    def _still(self):
        """How high the page is, once that and the sizes of what is drawn on it have not changed for a moment."""
        with suppress(TimeoutError):  # a picture of what moves is one, too
            self.page.wait_for_function(
                """() => { const main = document.querySelector('[data-testid=stMain]');
                       const drawn = [...main.querySelectorAll('svg, canvas')].map(e => e.getBoundingClientRect());
                       const now = [main.scrollHeight, ...drawn.flatMap(e => [e.width, e.height])].join();
                       if (window.seen !== now) [window.seen, window.since] = [now, performance.now()];
                       return performance.now() - window.since > 250; }""",
                timeout=CLICK_MS,
            )
        return self.page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollHeight")


@pytest.fixture
def browse(chromium, tmp_path, request):
    """`browse(dashboard)` opens a page of a fresh profile; at the end, nothing left the machine and nothing broke."""
    folder = Path(os.environ.get("GRIDGOV_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    contexts, sheets = [], []

    def begin(found, **options):
        context = chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light", **options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        sheet = Sheet(context.new_page(), found.url, folder, re.sub(r"\W+", "-", request.node.name))
        sheets.append(sheet)
        return sheet

    yield begin
    for context in contexts:
        context.close()
    assert [sheet.foreign for sheet in sheets if sheet.foreign] == []
    assert [sheet.errors for sheet in sheets if sheet.errors] == []
