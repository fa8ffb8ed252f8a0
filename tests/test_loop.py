"""The production loop as a person runs it: a day with faults, `gridgov up --n8n`, `gridgov n8n import` and `check`.

All of it in real n8n. LOOPS_OF_DAY=96 plays the whole day.
"""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from gridgov import loop, n8n, settings
from gridgov.errors import CheckFailed
from gridgov.model import Outcome
from sim import day as days
from sim.stubs.gemini import Step
from sim.stubs.linear import Fault
from sim.stubs.linear_pages import issue_page
from sim.stubs.replies import body
from tests import apps
from tests.commands import GRIDGOV, ROOT, one_line
from tests.databases import processes_in
from tests.n8n import NOWHERE, TARGET, until

pytest_plugins = ["tests.commands", "tests.n8n"]

LOOPS = int(os.environ.get("LOOPS_OF_DAY", "10"))
GOLDEN = Path(__file__).parent / "golden" / "linear-issue.md"


# --- a day ------------------------------------------------------------------------------------------------------------


def giving(*transfers, why):
    """What Gemini says: a step of its stub."""
    told = [{"from": giver, "to": taker, "resource": "energy", "amount": amount} for giver, taker, amount in transfers]
    return Step("good", body=body(json.dumps({"transfers": told, "reasoning": why})).decode())


def scene(day):
    """The issues of the golden file, by what happens: in four loops, each of them after the other."""
    day.gemini.answer(
        giving(
            ("home-1", "home-12", 0.25), ("home-10", "home-9", 0.5), why="They have sun, and their neighbours don't."
        ),
        giving(("home-1", "home-2", 0.75), ("home-1", "home-99", 0.1), why="home-2 is short of 0.75 kWh | or so"),
        giving(("home-10", "home-2", 0.4), why="More than may move without a person."),
        giving(("home-10", "home-3", 0.125), why="A little for home-3."),
    )
    found = {"executed": day.loop(), "rejected": day.loop()}
    day.constrain({"hold_above": {"energy": 0.3}})
    found["held, then approved"] = held = day.loop()
    assert held["outcome"] == "held"
    day.act(f"/v1/proposals/{held['proposal_id']}/approve", {"reason": "the battery of home-10 is full"})
    day.constrain({"hold_above": None})
    day.linear.fail(Fault("400", times=None, text="0.125 kWh energy"))
    day.loop()
    left = httpx.post(f"{day.server.url}/webhook/outbox-sync", headers=day.token(), timeout=days.WAIT_S)
    assert left.status_code == 502, "what could not be written up is said"

    def incidents():
        return sorted(one["title"] for one in day.linear.issues.values() if one["title"].startswith("Incident"))

    until(lambda: len(incidents()) == 2, "an incident of the loop, and one of the sync")
    day.settle()
    issues = day.linear.issues
    told = {what: issues.pop(outcome["linear"]["issue_id"]) for what, outcome in found.items()}
    by_title = {one["title"]: one for one in issues.values()}
    return {**told, **{f"incident {n}": by_title[title] for n, title in enumerate(incidents(), 1)}}


@pytest.fixture(scope="module")
def played(prefix, prepared, postgres, tmp_path_factory):
    """A day that was played, the issues of the golden file, what was checked at its end, and where its files are."""
    place = tmp_path_factory.mktemp("day")

    def place_prepared(target, home):
        shutil.copytree(prepared, home)
        with closing(sqlite3.connect(home / ".n8n" / "database.sqlite")) as connection, connection:
            for table in ("workflow_entity", "workflow_history"):
                for name, url in (
                    ("app", target.app_url),
                    ("gemini", target.gemini_base_url),
                    ("linear", target.linear_url),
                ):
                    connection.execute(f"UPDATE {table} SET nodes = replace(nodes, ?, ?)", (f"{NOWHERE}/{name}", url))
        n8n.put_credentials(home, target, prefix)

    with days.standing(prefix, place, prepare=place_prepared) as day:
        issues = scene(day)
        day.play(LOOPS, lambda text: None)
        yield day, issues, days.check(day, place), place


def test_day_with_faults_ends_with_one_issue_for_each_outcome_and_replays_offline(played):
    day, _, report, _ = played
    assert report.loops == report.issues == LOOPS + 4
    assert sum(report.outcomes.values()) == report.loops
    assert {Outcome.EXECUTED, Outcome.REJECTED} <= set(report.outcomes)
    assert sum(report.faults.values()) >= 3, "a day without faults shows nothing"
    assert report.replayed >= report.loops - report.outcomes.get(Outcome.UNAVAILABLE, 0)
    assert report.verified > 100
    assert day.waiting() == []


def test_day_whose_issues_are_not_as_they_should_be_fails(played, tmp_path):
    day = played[0]
    issue = next(one for one in day.linear._server.workspace.issues.values() if not one["title"].startswith("Incident"))
    for key, wrong in (("description", "nothing happened"), ("title", "x"), ("priority", 0), ("attachments", [])):
        right, issue[key] = issue[key], wrong
        with pytest.raises(CheckFailed, match=issue["identifier"]):
            days.check(day, tmp_path)
        issue[key] = right


def test_issues_in_linear_read_as_they_did(played, tmp_path):
    shown = []
    for what, issue in played[1].items():
        links = [f"- {one['title']}: {one['url']}" for one in issue["attachments"]["nodes"]]
        text = f"# {issue['title']}\n\n[{what}; priority {issue['priorityLabel']}]\n\n{issue['description']}"
        shown.append("\n".join([text, *(["Attachments", "", *links] if links else [])]))
        assert "<table>" in issue_page(issue) or what.startswith("incident")
    text = "\n\n\n".join(shown) + "\n"
    for pattern, instead in (
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?( UTC|Z)", "TIME"), (r"\b[0-9a-f]{64}\b", "DIGEST"),
        (r"(executions?[ /])\d+", r"\1N"), (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
    ):  # fmt: skip
        text = re.sub(pattern, instead, text)
    now = tmp_path / GOLDEN.name
    now.write_text(text, "utf-8")
    assert text == GOLDEN.read_text("utf-8"), f"if it is meant: look at {now}, and copy it to tests/golden"


def test_no_key_is_in_what_the_day_left(played):
    day, *_, place = played
    keys = (day.target.app_key, day.target.webhook_token, day.target.meter_secret, days.KEY)
    for path in (place / "production.duckdb", place / "traffic.jsonl", place / "n8n" / n8n.LOG):
        assert not [key for key in keys if key.encode() in path.read_bytes()], path
    assert not [key for key in keys if key in json.dumps([*day.linear.sent, *day.gemini.requests])]


# --- gridgov n8n import, check, run -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def app(server):
    with server.database(server.template("app", apps.fill)) as url, apps.running(url) as client:
        yield client


@pytest.fixture
def keys(monkeypatch, app):
    """The environment of somebody who imports."""
    given = {
        "GRIDGOV_API_KEY": apps.KEYS["propose"], "GEMINI_API_KEY": "gemini-x", "LINEAR_API_KEY": "lin_api_x",
        "GRIDGOV_API_URL": str(app.http.base_url).rstrip("/"),
    }  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return given


def test_import_says_what_is_missing(gridgov, keys, monkeypatch, prefix, tmp_path):
    into = ("n8n", "import", "--linear-team", "T", "--home", tmp_path / "home")
    assert "--home" in one_line(gridgov("n8n", "import", "--linear-team", "T"), 2)
    monkeypatch.setenv("GRIDGOV_N8N", str(tmp_path))
    assert "make n8n" in one_line(gridgov(*into), 2)
    monkeypatch.delenv("GRIDGOV_N8N")
    monkeypatch.setenv("GRIDGOV_API_KEY", apps.KEYS["read"])
    assert "may not propose" in one_line(gridgov(*into), 2)
    monkeypatch.setenv("GRIDGOV_API_KEY", "gridgov_0000000000000000_" + "x" * 43)
    assert "unknown or revoked" in one_line(gridgov(*into), 2)
    assert "not reached" in one_line(gridgov(*into, "--app", "http://127.0.0.1:9"), 2)
    for name in ("GRIDGOV_API_KEY", "LINEAR_API_KEY"):
        monkeypatch.delenv(name)
    said = one_line(gridgov(*into), 2)
    assert "GRIDGOV_API_KEY, LINEAR_API_KEY" in said and "GEMINI_API_KEY" not in said
    assert "schedule cannot run" in one_line(
        gridgov("n8n", "import", "--linear-team", "T", "--every", 90, "--out", tmp_path), 2
    )
    assert not (tmp_path / "home").exists()


def test_files_for_an_n8n_elsewhere_are_filled_in_and_hold_no_key(gridgov, keys, tmp_path):
    told = ("--linear-team", "T-1", "--linear", "exceptions", "--every", 60, "--app", "https://grid.example")
    said = gridgov("n8n", "import", *told, "--out", tmp_path / "out")
    assert said.code == 0
    for name in ("gridgov: app", "gridgov: Gemini", "gridgov: Linear", "gridgov: callers", "gridgov: meters"):
        assert name in said.out
    written = {path.name: path.read_text() for path in (tmp_path / "out").glob("*.json")}
    assert len(written) == len(n8n.workflows())
    workflow = json.loads(written["governance-loop.json"])
    config = next(node for node in workflow["nodes"] if node["name"] == "Config")["parameters"]["assignments"][
        "assignments"
    ]
    assert {one["name"]: one["value"] for one in config}["app_url"] == "https://grid.example"
    assert '"hoursInterval": 1' in written["governance-loop.json"]
    assert not [key for key in (keys["GRIDGOV_API_KEY"], "gemini-x", "lin_api_x") if key in "".join(written.values())]
    same = gridgov("n8n", "check", "--files", tmp_path / "out")
    assert {line.split(": ", 2)[2] for line in same.out.splitlines()} == {
        "is in n8n, but not published, so it does not run"
    }


def test_key_that_may_operate_is_refused(gridgov, keys, monkeypatch, prefix, tmp_path):
    put = []
    monkeypatch.setattr(n8n, "prepare", lambda *given: put.append(given))
    into = ("n8n", "import", "--linear-team", "T", "--home", tmp_path)
    monkeypatch.setenv("GRIDGOV_API_KEY", apps.KEYS["operate"])
    assert "gridgov keys create n8n --scope propose" in one_line(gridgov(*into), 2)
    assert not put
    monkeypatch.setenv("GRIDGOV_API_KEY", apps.KEYS["propose"])
    assert gridgov(*into).code == 0 and put


@pytest.mark.parametrize("into", ["--home", "--out"])
@pytest.mark.parametrize("url", ["http://[::1", "foo", "ftp://h", "http://h:x", "http://u:hidden@h:1"])
def test_address_that_is_none_is_refused_before_anything_is_done(gridgov, keys, tmp_path, url, into):
    said = gridgov("n8n", "import", "--linear-team", "T", "--app", url, into, tmp_path / "made")
    assert "address" in one_line(said, 2)
    assert (said.out, "hidden" in said.err, (tmp_path / "made").exists()) == ("", False, False)


@pytest.mark.parametrize(
    "change",
    [
        {"id": None}, {"nodes": None}, {"nodes": [{"type": "x", "parameters": {}}]}, {"nodes": ["x"]},
        {"nodes": [{"name": "Config", "type": "x", "parameters": {"assignments": {"assignments": None}}}]},
        {"nodes": [{"name": "X", "type": "x", "parameters": {}, "credentials": {"a": None}}]},
        {"connections": None}, {"connections": {"X": None}}, {"connections": {"X": {"what": 1}}},
        {"connections": {"X": {"main": [[{"node": "Y"}]]}}}, {"settings": []},
    ],
)  # fmt: skip
def test_file_that_is_no_workflow_is_named(gridgov, tmp_path, change):
    path = tmp_path / "one.json"
    path.write_text(json.dumps(n8n.workflows()["gridgovLoop"] | change))
    assert f"{path}: is no workflow of n8n: " in one_line(gridgov("n8n", "check", "--files", tmp_path), 2)


def test_home_that_is_none_is_not_made_by_a_check(gridgov, prefix, tmp_path):
    assert "no such folder" in one_line(gridgov("n8n", "check", "--home", tmp_path / "none"), 2)
    assert "no user folder of n8n" in one_line(gridgov("n8n", "check", "--home", tmp_path), 2)
    assert list(tmp_path.iterdir()) == []


def test_keys_are_in_no_file_while_they_are_put_in_and_old_ones_are_removed(prefix, tmp_path, monkeypatch):
    left = tmp_path / "tmpabcd1234" / "credentials.json"
    left.parent.mkdir()
    left.write_text(json.dumps(n8n.credentials(TARGET)))
    run, seen = subprocess.run, []

    def looked(command, **options):
        seen.extend(path for path in tmp_path.rglob("*") if path.is_file() and b"MARKED" in path.read_bytes())
        assert "MARKED" not in str(command)
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", looked)
    n8n.put_credentials(tmp_path, TARGET, prefix)
    assert seen == [] and not left.parent.exists()
    assert "MARKED" in n8n._command(tmp_path, prefix, "export:credentials", "--all", "--decrypted", "--pretty",
                                    "--output=/dev/stdout")  # fmt: skip


def parts_of(place, prefix, lines):
    own = settings.load()._replace(n8n=prefix, gemini_api_key="x", linear_api_key="x")
    return loop.Parts(place, own, None, "T", True, lines.append)


def test_loop_whose_n8n_takes_too_long_says_so(prefix, tmp_path, monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(n8n, "COMMAND_S", 0.01)
    running = loop.Loop(parts_of(tmp_path, prefix, lines), "http://127.0.0.1:9", "key")
    running._run()
    assert "the loop does not run: n8n import:credentials did not end in 0.01 s; try again" in lines[-1]


@pytest.mark.parametrize("content", [b"{", b"\xff", b"{}", b"[]"])
def test_loop_whose_secrets_are_damaged_says_what_to_remove(prefix, tmp_path, content):
    lines: list[str] = []
    (tmp_path / "secrets.json").write_bytes(content)
    loop.Loop(parts_of(tmp_path, prefix, lines), "http://127.0.0.1:9", "key")._run()
    assert f"the loop does not run: {tmp_path / 'secrets.json'}: is damaged; remove it" in lines[-1]


def test_meters_are_played_again_where_what_answers_is_not_the_workflow(tmp_path):
    lines: list[str] = []
    played = loop.Loop(parts_of(tmp_path, tmp_path, lines), "http://127.0.0.1:9", "key")
    played._meters = loop.meters_of(ROOT / loop.SCENARIO, True)
    answers = [httpx.Response(404, text="<html>"), httpx.Response(404, json=[]), httpx.Response(200, json={})]
    with httpx.Client(transport=httpx.MockTransport(lambda _: answers.pop(0))) as client:
        assert [played._play(client, "http://n8n", TARGET, 1) for _ in range(3)] == [False, False, True]
    assert lines == []


def test_pause_is_told_once_and_so_is_its_end():
    lines: list[str] = []
    paused = [False, True, True, False, False]
    asked = [{"paused": one, "epoch": 3, "seq": 9} for one in paused]
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=asked.pop(0)))) as client:
        told = loop._Told(client, "http://app", "key", None, lines.append)
        for _ in paused:
            assert told.epoch() == 3
            told.pause()
    assert [line.split("  ", 1)[1].split(":")[0] for line in lines] == ["Paused", "Resumed"]


def test_what_was_imported_runs_and_is_the_same_until_somebody_changes_it(gridgov, keys, prefix, tmp_path):
    home = tmp_path / "home"
    said = gridgov("n8n", "import", "--linear-team", "T", "--home", home)
    assert said.code == 0, said
    assert re.search(r"^GRIDGOV_WEBHOOK_TOKEN=\S{40,}$", said.out, re.M)
    assert re.search(r"^GRIDGOV_METER_SECRET=\S{40,}$", said.out, re.M)
    assert "lin_api_x" not in said.out + said.err
    assert gridgov("n8n", "import", "--linear-team", "T-2", "--home", home).code == 0, "again, it replaces them"
    assert "run as they are in the repository" in gridgov("n8n", "check", "--home", home).out
    with running_command("n8n", "run", "--home", home, "--port", 0) as (process, lines):
        url = until(lambda: re.search(r"http://\S+", "".join(lines)), "the address of n8n")[0]
        assert httpx.post(f"{url}/webhook/governance-loop", timeout=60).status_code == 403
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    with closing(sqlite3.connect(home / ".n8n" / "database.sqlite")) as connection, connection:
        edit = "SET nodes = replace(nodes, 'continueErrorOutput', 'stopWorkflow')"  # as somebody publishes it
        connection.execute(f"UPDATE workflow_entity {edit} WHERE id = 'gridgovLoop'")
        connection.execute(f"UPDATE workflow_history {edit} WHERE workflowId = 'gridgovLoop'")
    said = gridgov("n8n", "check", "--home", home)
    assert said.code == 1
    assert "gridgov: governance loop: node Submit Reply: onError" in said.out
    told = json.loads(gridgov("n8n", "check", "--home", home, "--json").out)
    assert not told["same"] and len(told["differences"]) == len(said.out.splitlines())


@contextmanager
def running_command(*arguments):
    """A command of ours, as a process that is ended with the block, and the lines that it prints."""
    process = subprocess.Popen(
        [*GRIDGOV, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    )
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(iter(process.stdout.readline, "")))
    reader.start()
    try:
        yield process, lines
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()


# --- gridgov up --n8n -------------------------------------------------------------------------------------------------


def told(lines, count):
    """The lines of so many outcomes: their time, what came of it, and the address of the issue."""
    deadline = time.monotonic() + 400
    while sum("-> LIN-" in line for line in lines) < count:
        assert time.monotonic() < deadline, f"waited in vain for outcome {count}: {lines}"
        time.sleep(0.1)
    return [line for line in lines if "-> LIN-" in line]


def no_process_is_left_in(place):
    deadline = time.monotonic() + 60
    while processes_in(place) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not processes_in(place)


def test_up_with_n8n_shows_a_newcomer_a_proposal_becoming_an_entry_and_an_issue(prefix, home, gridgov):
    arguments = ("up", "--n8n", "--no-dashboard", "--port", 0)
    with running_command(*arguments) as (process, lines):
        [first] = told(lines, 1)
        assert re.match(r"\d\d:\d\d:\d\d  Executed: home-\d+ to home-\d+, \S+ kWh energy", first), first
        page = httpx.get(first.split()[-1])
        assert page.status_code == 200 and "<h3>Balances</h3>" in page.text
        text = "".join(lines)
        for part in ("app", "log", "gemini", "linear", "n8n"):
            assert re.search(rf"^{part} +\S+", text, re.M), text
        key = re.search(r"^key +(gridgov_\S+)", text, re.M)[1]
        app = re.search(r"^app +(\S+)", text, re.M)[1]
        ledger = httpx.get(f"{app}/v1/ledger", params={"kind": "transfer"}, headers={"Authorization": f"Bearer {key}"})
        assert ledger.json()["items"], "the proposal made entries"
        process.kill()
        process.wait()
    assert no_process_is_left_in(home), "whoever is killed takes n8n and Postgres along"
    with running_command(*arguments) as (process, lines):
        [second] = told(lines, 1)
        assert "LIN-1 " not in second, "it goes on where it was"
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 0
        until(lambda: lines[-1:] == ["stopped\n"], "its last word")
    assert no_process_is_left_in(home)
    live = [line for line in gridgov("keys", "list").out.splitlines() if "n8n/" in line and "revoked" not in line]
    assert live == [], "a key of a loop that was killed is revoked at the next start, one that ends, then"


def test_up_with_n8n_says_what_is_missing_before_anything_is_started(gridgov, home, prefix, monkeypatch):
    monkeypatch.setenv("LINEAR_API_KEY", "lin_api_x")
    assert "--linear-team" in one_line(gridgov("up", "--n8n", "--port", 0), 2)
    monkeypatch.setenv("GRIDGOV_N8N", str(home))
    assert "make n8n" in one_line(gridgov("up", "--n8n", "--port", 0), 2)
    assert not (home / "postgres").exists()


def test_second_loop_in_the_same_folder_is_refused(gridgov, home, prefix):
    with loop.taken(home / "n8n"):
        assert "another `gridgov up --n8n` runs" in one_line(gridgov("up", "--n8n", "--port", 0, "--no-dashboard"), 2)
