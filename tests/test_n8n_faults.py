"""The production loop in real n8n while something fails: one effect, one issue in its final state, acknowledged."""

import json
import shutil
from pathlib import Path

import psycopg
import pytest

from sim.stubs.replies import said
from tests.n8n import APP_KEY, GEMINI_KEY, LINEAR_KEY, METER_SECRET, SECRET, TOKEN, until

pytest_plugins = ["tests.n8n"]

EVER = 10_000


# --- Gemini -----------------------------------------------------------------------------------------------------------


def test_gemini_that_fails_and_comes_back_is_asked_again(world):
    world.says("503", "429", "reset")
    assert world.run()["outcome"] == "executed"
    assert world.gemini.count == 4
    world.check_one_effect()


@pytest.mark.parametrize(
    ("reply", "kind", "detail"),
    [
        ("429", "quota", "HTTP 429"),
        ("401", "auth", "HTTP 401"),
        ("403", "auth", "HTTP 403"),
        ("400", "config", "HTTP 400"),
        ("404", "config", "HTTP 404"),
        ("redirect", "config", "HTTP 302"),
        ("503", "transport", "HTTP 503"),
        ("reset", "transport", "ECONNRESET"),
        ("close in mid-body", "transport", ""),
        ("no HTTP", "transport", ""),
    ],
)
def test_gemini_that_stays_down_is_unavailable(world, reply, kind, detail):
    world.says({"reply": reply, "times": "ever"})
    assert world.run()["outcome"] == "unavailable"
    [told] = world.decided()
    assert told["fault"]["code"] == kind
    assert detail in told["fault"]["detail"]
    assert (world.gemini.count, world.epoch, world.transfers()) == (4, 2, 0)
    world.check_written()
    world.says()
    assert world.run()["outcome"] == "executed", "the next round is asked again"


# --- the app ----------------------------------------------------------------------------------------------------------

CALLS = ("app GET /v1/context", "app POST /v1/proposals", "app POST /v1/outbox/", "app POST /v1/epochs/close")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("done", [True, False], ids=["after", "before"])
@pytest.mark.parametrize("status", [503, None], ids=["503", "dropped"])
def test_app_that_fails_and_comes_back_is_called_again(world, call, done, status):
    world.gate.fail(call, 2, status=status, done=done)
    assert world.run()["outcome"] == "executed"
    assert len(world.gate.named(call)) == 3
    world.check_one_effect()


def test_app_that_is_down_is_an_incident_and_costs_nothing(world):
    world.gate.fail("app GET /v1/context", EVER, status=503, done=False)
    for _ in range(2):
        assert world.n8n.call().status_code == 500
        until(world.n8n.is_quiet, "the incident")
    assert (world.gemini.count, world.decided(), world.epoch) == (0, [], 1)
    [incident] = world.incidents
    assert "governance loop failed at Get Context (503)" in incident["title"]
    world.gate.rules = []
    assert world.run()["outcome"] == "executed"
    world.check_one_effect()


def test_app_that_goes_down_after_the_model_was_asked_finishes_the_round_later(world):
    world.gate.fail("app POST /v1/proposals", EVER, status=503, done=False)
    assert world.n8n.call().status_code == 500
    until(world.n8n.is_quiet, "the incident")
    assert world.decided() == []
    assert "Get Recorded Outcome (404)" in world.incidents[0]["title"]
    world.gate.rules = []
    assert world.run()["outcome"] == "executed"
    world.check_one_effect()


def test_outcome_that_was_recorded_while_the_app_went_down_is_told_by_the_next_run(world):
    world.gate.fail("app POST /v1/proposals", EVER, status=503)
    world.gate.fail("app GET /v1/proposals/", EVER, status=503)
    assert world.n8n.call().status_code == 500
    until(world.n8n.is_quiet, "the incident")
    world.gate.rules = []
    assert world.run()["epoch"] == 1
    assert world.gemini.count == 1, "it was decided: nobody is asked again"
    world.check_one_effect()


# --- Linear -----------------------------------------------------------------------------------------------------------

FAULTS = ("503", "503 html", "429", "ratelimited", "400", "errors", "html 200", "empty 200", "dropped before",
          "dropped after", "503 after")  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("field", ["issues", "issueCreate"])
def test_linear_that_fails_once_ends_with_one_issue(world, fault, field):
    world.linear.fail({"reply": fault, "field": field})
    assert world.run()["outcome"] == "executed"
    until(world.n8n.is_quiet, "the end of every run")
    world.check_one_effect()
    assert world.incidents == []


@pytest.mark.parametrize("fault", ["503", "ratelimited", "errors", "dropped before"])
def test_linear_that_is_down_holds_up_nothing_but_its_issue(world, fault):
    world.linear.fail({"reply": fault, "times": "ever"})
    answer = world.run()
    assert (answer["outcome"], world.epoch, len(world.outbox)) == ("executed", 2, 1)
    assert world.n8n.call("outbox-sync").status_code == 502
    until(world.n8n.is_quiet, "the end of every run")
    world.linear.heal()
    assert world.sync() == (200, {"done": True})
    world.check_one_effect()


@pytest.mark.parametrize("refused", [200, 400])
def test_issue_that_is_there_already_is_updated(world, refused):
    world.linear._server._refused = refused

    def create():
        [held] = world.outbox
        told = held["linear"]
        query = "mutation M($i: IssueCreateInput!) { issueCreate(input: $i) { success } }"
        given = {"id": told["issue_id"], "teamId": world.linear.team, "title": "somebody was faster"}
        world.gate._http.post(world.linear.url, json={"query": query, "variables": {"i": given}},
                              headers={"Authorization": LINEAR_KEY}).raise_for_status()  # fmt: skip

    world.gate.fail("linear POST / Create", before=create)
    assert world.run()["outcome"] == "executed"
    assert world.gate.named("linear POST / Update")
    world.check_one_effect()


def test_one_broken_issue_does_not_stop_the_others(world):
    for amount in (1, 2, 3):
        world.app.propose(amount)
    world.linear.fail({"reply": "400", "text": "2 kWh energy", "times": "ever"})
    status, told = world.sync()
    broken = world.outbox
    assert (status, told["done"], len(broken), told["oldest"]) == (502, False, 1, broken[0]["seq"])
    assert len(world.issues) == 2
    [incident] = until(lambda: world.incidents, "the incident")
    assert "outbox sync failed at Stop Left Behind" in incident["title"]
    world.linear.heal()
    assert world.sync() == (200, {"done": True})
    world.check_written()


def test_issue_that_linear_refuses_is_an_incident_of_its_own_run(world):
    world.linear.fail({"reply": "400", "text": "12.5 kWh energy", "times": "ever"})
    answer = world.run()
    assert (answer["outcome"], world.epoch) == ("executed", 2), "the round is decided, closed and answered all the same"
    until(world.n8n.is_quiet, "the incident")
    [incident] = world.incidents
    assert "governance loop failed at Stop Unwritten" in incident["title"]
    what = f"The outcome of epoch 1 (record {answer['seq']}) is not in Linear yet. Linear refused the issue: "
    assert what in incident["description"]
    assert len(world.gate.named("Create")) == 3 + 1, "it was tried three times; the other one is the incident"
    world.linear.heal()
    assert world.sync() == (200, {"done": True})
    world.check_one_effect()


# --- incidents --------------------------------------------------------------------------------------------------------


def test_incident_is_one_for_each_cause(world):
    world.gate.fail("app GET /v1/context", 10, status=503, done=False)
    for _ in range(2):
        assert world.n8n.call().status_code == 500
    until(world.n8n.is_quiet, "the first incident")
    assert len(world.incidents) == 1
    world.gate.rules = []
    world.gate.fail("app POST /v1/epochs/close", EVER, status=500)
    assert world.n8n.call().status_code == 500
    until(world.n8n.is_quiet, "the second incident")
    first, second = world.incidents
    assert (first["priorityLabel"], "Get Context (503)" in first["title"]) == ("High", True)
    assert "Close Epoch (500)" in second["title"]
    assert "Last run: execution" in second["description"]


def test_incident_that_cannot_be_filed_is_not_tried_for_ever(world):
    world.gate.fail("app GET /v1/context", 5, status=503, done=False)
    world.linear.fail({"reply": "503", "times": "ever"})
    assert world.n8n.call().status_code == 500
    until(world.n8n.is_quiet, "the end of every run")
    runs = [workflow for _, workflow, _ in world.n8n.runs()][-3:]
    assert runs == ["gridgovLoop", "gridgovErrors", "gridgovWriteUp"]


# --- meters -----------------------------------------------------------------------------------------------------------

READING = {"reading_id": "meter-7/1", "epoch": 1, "readings": [
    {"actor": "actor-1", "resource": "energy", "kind": "produce", "amount": 3.2},
]}  # fmt: skip


def test_meter_whose_app_is_down_is_told_to_come_again(world):
    world.gate.fail("app POST /v1/flows", 3, status=503, done=False)
    refused = world.n8n.meter(READING)
    assert (refused.status_code, refused.json()["status"]) == (503, 503)
    assert world.n8n.meter(READING).status_code == 200


def test_reading_whose_answer_was_lost_counts_once(world):
    world.gate.fail("app POST /v1/flows", status=None)
    assert world.n8n.meter(READING).status_code == 200
    kinds = [one["kind"] for one in world.app.get("/v1/ledger", limit=100)["items"]]
    assert kinds.count("produce") == 1


# --- keys -------------------------------------------------------------------------------------------------------------

MARKED = {"app": SECRET, "callers": TOKEN, "meters": METER_SECRET, "gemini": GEMINI_KEY, "linear": LINEAR_KEY}


def test_no_key_is_in_what_is_kept(world, tmp_path):
    echo = json.dumps({"error": {"message": f"bad keys: {' '.join(MARKED.values())}"}})
    world.says({"reply": "401", "body": echo, "times": 4})
    assert world.run()["outcome"] == "unavailable"
    world.says(said("60"))
    assert world.run()["outcome"] == "rejected"
    world.gate.fail("app POST /v1/epochs/close", EVER, status=503)
    assert world.n8n.call().status_code == 500
    world.gate.rules = []
    world.linear.fail({"reply": "503", "times": 12}, {"reply": "401", "times": 6})
    world.run()
    world.sync()
    assert world.n8n.call(token="wrong").status_code == 403
    assert world.n8n.meter(READING).status_code == 200
    assert world.n8n.meter(READING, "wrong").status_code == 401
    until(world.n8n.is_quiet, "the end of every run")
    shutil.copytree(world.n8n.home, tmp_path / "home", ignore_dangling_symlinks=True)
    kept = {str(path): path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file()}
    with psycopg.connect(world.url) as connection:
        for (table,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'main'").fetchall():
            rows = connection.execute(f"SELECT t::text, t FROM main.{table} AS t").fetchall()
            raw = b"".join(bytes(cell) for row in connection.execute(f"SELECT * FROM main.{table}") for cell in row
                           if isinstance(cell, bytes | memoryview))  # fmt: skip
            kept[f"table {table}"] = "\n".join(row[0] for row in rows).encode() + raw
    kept["Linear"] = json.dumps([world.linear.issues, world.linear.sent]).encode()
    kept["Gemini"] = json.dumps(world.gemini.requests).encode()
    assert any("database.sqlite" in name for name in kept)
    assert any(b"governance-loop" in content for content in kept.values())
    for name, content in kept.items():
        for whose, secret in MARKED.items():
            assert secret.encode() not in content, f"the key of {whose} is in {Path(name).name}"
    assert APP_KEY.endswith(SECRET)
