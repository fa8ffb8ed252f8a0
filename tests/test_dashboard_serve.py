"""The dashboard as a process: started, found, ended; with production, with runs, with neither."""

import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.util import calc_hash
from websockets.sync.client import connect

from tests.browser import dashboard
from tests.commands import GRIDGOV, ROOT, one_line, up

pytest_plugins = ["tests.browser", "tests.commands"]


@pytest.fixture(scope="module")
def alone():
    """A dashboard with neither production nor runs."""
    with dashboard() as found:
        yield found


def children(pid):
    """The processes that this one started, and theirs (Linux)."""
    found = [int(one) for task in _tasks(pid) for one in _read(f"/proc/{pid}/task/{task}/children").split()]
    return found + [below for one in found for below in children(one)]


def _tasks(pid):
    try:
        return os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return []


def _read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def ended(pids, seconds=60):
    """Whether all of these end in time; a zombie has."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if all(_read(f"/proc/{pid}/stat").rpartition(")")[2][1:2] in ("", "Z") for pid in pids):
            return True
        time.sleep(0.05)
    return False


def test_up_starts_the_dashboard_says_where_and_ends_it_with_everything_else(home):
    with up("--dashboard-port", "0") as grid:
        line = next(line for line in grid.lines if line.startswith("dashboard"))
        assert [line.split()[0] for line in grid.lines] == ["grid", "database", "key", "dashboard", "app"]
        address = line.split()[1]
        assert httpx.get(address, timeout=60).status_code == 200
        assert httpx.get(f"{address}/_stcore/health", timeout=60).text == "ok"
        answer = grid.propose().json()
        assert answer["url"] == f"{address}/ledger?entry={answer['entries'][0]}"
        below = children(grid.process.pid)
        assert below
    assert ended(below)


def test_dashboard_ends_where_up_is_killed(home):
    with up("--dashboard-port", "0") as grid:
        address = next(line for line in grid.lines if line.startswith("dashboard")).split()[1]
        assert httpx.get(f"{address}/_stcore/health", timeout=60).text == "ok"
        below = children(grid.process.pid)
        grid.process.kill()
        grid.process.wait()
        assert ended(below)


def test_link_of_an_outcome_opens_its_entry_in_the_dashboard_of_up(home, browse):
    with up("--dashboard-port", "0") as grid:
        address = next(line for line in grid.lines if line.startswith("dashboard")).split()[1]
        url = grid.propose().json()["url"]
        sheet = browse(type("Found", (), {"url": address}))
        sheet.open(url.removeprefix(address)).see("Entry", "12.5 kWh", "actor-1 → actor-2", "Data as of")
        assert "operate" not in sheet.page.locator("[data-testid=stSidebar]").inner_text().split("key")[-1]


def test_key_of_the_dashboard_may_read_and_is_revoked_at_the_end(gridgov, home):
    with up("--dashboard-port", "0"):
        [view] = [view for view in _keys(gridgov) if view["name"].startswith("dashboard/up-")]
        assert (view["scopes"], view["revoked_at"]) == (["read"], None)
    [view] = [view for view in _keys(gridgov) if view["name"].startswith("dashboard/up-")]
    assert view["revoked_at"]


def test_dashboard_never_gets_the_key_of_the_environment_and_one_that_was_left_is_revoked(gridgov, home, monkeypatch):
    monkeypatch.setenv("GRIDGOV_API_KEY", "gridgov_may_operate")
    with up("--dashboard-port", "0") as grid:
        assert any("GRIDGOV_API_URL" in _environment(pid) for pid in children(grid.process.pid))
        for pid in children(grid.process.pid):
            if "GRIDGOV_API_URL" in (own := _environment(pid)):
                assert own["GRIDGOV_API_KEY"] != "gridgov_may_operate"
        below = children(grid.process.pid)
        grid.process.kill()
        grid.process.wait()
        assert ended(below)
    with up("--dashboard-port", "0"):
        views = [view for view in _keys(gridgov) if view["name"].startswith("dashboard/up-")]
        assert [(view["scopes"], bool(view["revoked_at"])) for view in views] == [(["read"], True), (["read"], False)]


def _environment(pid):
    return dict(pair.partition("=")[::2] for pair in _read(f"/proc/{pid}/environ").split("\0") if pair)


def _keys(gridgov):
    import json

    return json.loads(gridgov("keys", "list", "--json").out)


def test_port_that_is_taken_is_said_in_a_line(gridgov, home):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for command in (("dashboard", "--port", port), ("up", "--port", 0, "--dashboard-port", port)):
            assert "choose another port for the dashboard" in one_line(gridgov(*command), 2)
    assert not (home / "postgres").exists()


def test_neither_help_nor_an_offline_run_imports_streamlit(tmp_path):
    script = (
        "import sys; from gridgov.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('streamlit', 'dashboard', 'altair') if name in sys.modules])"
    )
    for args in (["--help"], ["dashboard", "--help"], ["run", "scenarios/seed.yaml", "--json"]):
        environment = {**os.environ, "GRIDGOV_RUNS": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", script, *args], capture_output=True, text=True, cwd=ROOT, env=environment, check=True
        )
        assert done.stdout.splitlines()[-1] == "[]", args


def test_dashboard_with_neither_production_nor_runs_says_what_to_type(alone, browse):
    sheet = browse(alone).open("/")
    sheet.see("No production can be seen here", "gridgov up", "gridgov dashboard --api http://HOST:PORT")
    sheet.shoot("nothing-production")
    sheet.open("/operate").see("No production can be seen here")
    sheet.open("/runs").see("gridgov run scenarios/seed.yaml")
    sheet.shoot("nothing-runs")


def test_part_of_a_page_that_was_left_is_not_drawn_over_the_next_one(alone):
    runs, sweeps = (calc_hash(name) for name in ("runs", "sweeps"))

    def ask(page, part=""):
        wanted = BackMsg()
        wanted.rerun_script.page_script_hash, wanted.rerun_script.fragment_id = page, part
        line.send(wanted.SerializeToString())

    def said(patience_s=60):
        """What the server says, until it says nothing for so long."""
        while True:
            message = ForwardMsg()
            try:
                message.ParseFromString(line.recv(timeout=patience_s))
            except TimeoutError:
                return
            yield message

    def wait(kind):
        return next(getattr(message, kind) for message in said() if message.WhichOneof("type") == kind)

    with connect(f"ws{alone.url.removeprefix('http')}/_stcore/stream", max_size=None) as line:
        ask(runs)
        part = wait("auto_rerun").fragment_id
        wait("script_finished")
        ask(sweeps)
        assert wait("new_session").page_script_hash == sweeps
        ask(runs, part)  # while the next page is drawn, as a second click or a timer does
        wait("script_finished")
        drawn = [one.new_session.page_script_hash for one in said(3) if one.WhichOneof("type") == "new_session"]
        assert drawn == []


def test_sigterm_ends_the_dashboard_as_ctrl_c_does():
    process = subprocess.Popen(
        [*GRIDGOV, "dashboard", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert process.stdout.readline().startswith("dashboard http://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0 and "Traceback" not in err
    finally:
        process.kill()
        process.communicate()


def test_answers_say_that_pages_load_nothing_from_elsewhere(alone):
    for path in ("/", "/ledger", "/operate", "/run"):
        answer = httpx.get(alone.url + path, timeout=60)
        assert answer.status_code == 200
        assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert httpx.post(f"{alone.url}/_stcore/agent/interact", json={}, timeout=60).status_code in (403, 404, 405)
