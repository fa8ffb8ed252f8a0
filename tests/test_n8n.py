"""The production loop in real n8n: every way through its workflows while everything works."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from gridgov.engine import Engine
from gridgov.postgres import PostgresLedger, migrate
from sim.loading import load
from sim.runner import genesis_of
from sim.stubs.gemini import Stub
from sim.stubs.replies import body, said
from sim.world import World
from tests.n8n import APP_KEY, add_key, around, until
from tests.plays import SCENARIOS

pytest_plugins = ["tests.n8n", "tests.commands"]


def test_proposal_becomes_an_entry_and_an_issue(world):
    answer = world.run()
    assert answer["outcome"] == "executed"
    assert len(answer["entries"]) == 1
    world.check_one_effect()
    [told] = world.decided()
    assert {key: answer[key] for key in ("proposal_id", "entries", "seq", "digest", "url", "epoch")} == {
        key: told[key] for key in ("proposal_id", "entries", "seq", "digest", "url", "epoch")
    }
    [issue] = world.issues.values()
    assert answer["linear"] == {"issue_id": issue["id"], "title": issue["title"]}
    assert issue["attachments"]["nodes"][0]["url"] == answer["url"]
    with psycopg.connect(world.url) as connection:
        [row] = connection.execute("SELECT seq, reference FROM main.outbox_acks").fetchall()
    assert row == (answer["seq"], issue["identifier"])


def test_next_run_is_the_next_round(world):
    first, second = world.run(), world.run()
    assert (first["epoch"], second["epoch"]) == (1, 2)
    assert world.transfers() == len(world.issues) == 2


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (said("60"), "rejected"),
        (said("45"), "held"),
        ('{"transfers": [], "reasoning": "all is well"}', "noop"),
        ("code fence", "malformed"),
        ("empty 200", "malformed"),
        ("not UTF-8", "malformed"),
        ("html 200", "unavailable"),
        ("finish SAFETY", "malformed"),
        ("huge", "malformed"),
    ],
)
def test_whatever_is_said_is_judged_by_the_app(world, reply, outcome):
    world.says(reply)
    assert world.run()["outcome"] == outcome
    assert world.transfers() == 0
    world.check_written()
    assert world.gemini.count == 1


def test_reply_is_kept_as_it_came(world):
    sent = json.loads(body(said("12.50", reasoning='é, \U0001f33b, "\\u00e9"')))
    sent |= {
        "usageMetadata": {"promptTokenCount": 7, "thoughtsTokenCount": 9},
        "avgLogprobs": -0.123456789,
        "x": [None],
    }
    world.says({"reply": "good", "body": json.dumps(sent)})
    assert world.run()["outcome"] == "executed"
    with psycopg.connect(world.url) as connection:
        [[kept]] = connection.execute("SELECT body FROM main.interactions").fetchall()
    assert json.loads(bytes(kept).decode("utf-8", "surrogatepass")) == sent


def test_request_on_the_wire_is_the_one_that_a_run_sends(own_n8n, server, gridgov, monkeypatch, tmp_path):
    scenario = load(SCENARIOS / "seed.yaml", epochs=1, proposer="gemini:gemini-3.8-flash")
    with Stub() as stub:
        monkeypatch.setenv("GEMINI_API_KEY", "any")
        monkeypatch.setenv("GRIDGOV_GEMINI_BASE_URL", stub.url)
        done = gridgov("run", scenario.file, "--epochs", "1", "--proposer", "gemini:gemini-3.8-flash", "--json")
        assert done.code in (0, 1), done.err
        [sent] = stub.requests
    with server.database() as url:
        migrate(url, "main")
        ledger = PostgresLedger(url, "main")
        Engine(ledger).append(genesis_of(scenario, World(scenario)), scenario.start_at)
        ledger.commit()
        ledger.close()
        add_key(url)
        with around(own_n8n, url) as world:
            handed = world.app.ask("GET", "/v1/context", headers={"Authorization": f"Bearer {APP_KEY}"}).json()
            world.run()
            [asked] = world.gemini.requests
    assert asked["body"] == sent["body"] == handed["request"]["body"]
    assert asked["path"] == sent["path"]
    assert asked["key_in_header"] and not asked["key_in_url"]


def test_nobody_is_asked_while_it_is_paused(world):
    assert world.app.act("/v1/control", {"action": "pause"}).status_code == 200
    assert world.run() == {"outcome": "paused", "paused": True, "epoch": 1}
    assert (world.gemini.count, world.linear.count, world.epoch) == (0, 0, 1)
    assert world.app.act("/v1/control", {"action": "resume"}).status_code == 200
    assert world.run()["outcome"] == "executed"


def test_round_that_was_decided_before_is_finished_without_asking(world):
    opened = world.app.get("/v1/context")
    world.app.propose(12.5, id_=opened["proposal_id"])
    answer = world.run()
    assert (answer["proposal_id"], answer["outcome"]) == (opened["proposal_id"], "executed")
    assert world.gemini.count == 0
    world.check_one_effect()


def test_who_comes_second_gets_what_was_recorded(world):
    opened = world.app.get("/v1/context")
    world.gate.fail("app POST /v1/proposals", before=lambda: world.app.propose(7, id_=opened["proposal_id"]))
    answer = world.run()
    assert world.gate.named("app GET /v1/proposals/"), "the submission was a 409"
    [told] = world.decided()
    assert (answer["seq"], answer["digest"]) == (told["seq"], told["digest"])
    assert told["proposal"]["transfers"][0]["amount"] == 7
    world.check_one_effect()


def test_call_for_a_closed_epoch_gets_what_was_decided_then(world):
    first = world.run({"epoch": 1})
    assert world.run({"epoch": 1}) == first
    assert world.app.act("/v1/control", {"action": "pause"}).status_code == 200
    assert world.run({"epoch": 1}) == first
    refused = world.n8n.call(told={"epoch": 7})
    assert (refused.status_code, refused.json()["outcome"]) == (409, "none")
    assert "epoch 2 is" in refused.json()["detail"]
    assert world.gemini.count == 1
    world.check_one_effect()


def test_epoch_of_a_call_is_a_whole_number_or_its_digits_or_none_at_all(world):
    for wrong in (True, "x", "", "1.5", -1, "-1", 1.5, [1], {}, 2**31):
        refused = world.n8n.call(told={"epoch": wrong})
        assert (refused.status_code, refused.json()["status"]) == (400, 400), wrong
        assert "no whole number" in refused.json()["detail"]
    assert (world.gate.calls, world.incidents) == ([], [])
    first = world.run({"epoch": "1"})
    assert (first["outcome"], first["epoch"]) == ("executed", 1)
    assert world.run({"epoch": 1}) == world.run({"epoch": "1"}) == first
    refused = world.n8n.call(told={"epoch": 0})
    assert (refused.status_code, refused.json()["detail"]) == (
        409, "epoch 0 has no outcome, and is not open: epoch 2 is",
    )  # fmt: skip
    assert world.run({"epoch": None})["epoch"] == 2


@pytest.mark.parametrize("token", [None, "wrong", ""])
@pytest.mark.parametrize("path", ["governance-loop", "outbox-sync"])
def test_without_the_token_nothing_runs(world, token, path):
    runs = world.n8n.runs()
    assert world.n8n.call(path, token=token).status_code == 403
    assert world.n8n.runs() == runs
    assert world.gate.calls == []


def test_sixteen_calls_at_once_decide_one_round(world):
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: world.n8n.call(told={"epoch": 1}), range(16)))
    assert [answer.status_code for answer in answers] == [200] * 16
    assert len({answer.text for answer in answers}) == 1
    until(world.n8n.is_quiet, "the end of every run")
    world.check_one_effect()


def test_held_proposal_has_one_issue_which_says_how_it_ended(world):
    world.says(said("45"))
    held = world.run()
    [issue] = world.issues.values()
    assert issue["title"].startswith("Waits for approval")
    assert world.app.act(f"/v1/proposals/{held['proposal_id']}/approve", {}).status_code == 200
    assert world.sync() == (200, {"done": True})
    [issue] = world.issues.values()
    assert issue["title"].startswith("Executed")
    world.check_written()


def test_hold_that_is_settled_while_it_is_written_up_ends_settled(world):
    world.says(said("45"))

    def settle():
        opened = world.app.get("/v1/control")["holds"]
        assert world.app.act(f"/v1/proposals/{opened[0]}/approve", {}).status_code == 200
        assert world.sync() == (200, {"done": True})  # the settlement is written before what came before it

    world.gate.fail("linear POST / Create", before=settle)
    assert world.run()["outcome"] == "held"
    [issue] = world.issues.values()
    assert issue["title"].startswith("Executed")
    world.check_written()


def test_what_people_do_by_hand_is_written_up_too(world):
    transfer = {"from": "actor-1", "to": "actor-2", "resource": "energy", "amount": 70}
    assert world.app.act("/v1/transfers", {"transfers": [transfer]}).status_code == 200
    assert world.sync() == (200, {"done": True})
    [issue] = world.issues.values()
    assert issue["title"].startswith("Executed (by hand)")
    assert world.outbox == []


def test_everything_that_waits_is_written_up_oldest_first(world):
    for _ in range(22):
        world.app.propose(1)
    world.app.propose(60)
    assert world.sync() == (200, {"done": True})
    world.check_written()
    assert len(world.issues) == 23
    assert [one["title"] for one in world.issues.values()] == [one["linear"]["title"] for one in world.decided()]
    assert world.sync() == (200, {"done": True})
    assert len(world.gate.named("Create")) == 23


@pytest.fixture
def mode(world):
    """Sets `Config.linear` where n8n keeps its workflows, for one test."""
    shown = '"name":"linear","value":"%s"'
    asked = []

    def put(name):
        asked.append(name)
        world.n8n.rewrite(shown % "each", shown % name)

    yield put
    for name in asked:
        world.n8n.rewrite(shown % name, shown % "each")


def test_exceptions_alone_become_issues_and_the_rest_is_acknowledged(world, mode):
    mode("exceptions")
    world.says(said("12.5"), said("60"), said("45"), "code fence", '{"transfers": [], "reasoning": ""}')
    outcomes = [world.run()["outcome"] for _ in range(5)]
    assert outcomes == ["executed", "rejected", "held", "malformed", "noop"]
    assert [one["title"].split(" (")[0].split(":")[0] for one in world.issues.values()] == [
        "Rejected", "Waits for approval", "No proposal in the reply",
    ]  # fmt: skip
    assert world.outbox == []
    [held] = world.app.get("/v1/control")["holds"]
    assert world.app.act(f"/v1/proposals/{held}/approve", {}).status_code == 200
    world.app.propose(1)
    assert world.sync() == (200, {"done": True})
    assert [one["title"].split(" (")[0].split(":")[0] for one in world.issues.values()] == [
        "Rejected", "Executed", "No proposal in the reply",
    ]  # fmt: skip
    assert world.outbox == []


def test_daily_digest_is_one_issue_for_a_day(world, mode):
    mode("daily")
    world.says(said("12.5"), said("60"))
    assert [world.run()["outcome"] for _ in range(2)] == ["executed", "rejected"]
    assert world.issues == {}
    assert world.sync() == (200, {"done": True})
    world.app.propose(60)
    assert world.sync() == (200, {"done": True})
    assert world.outbox == []
    [issue] = world.issues.values()
    assert re.fullmatch(r"20\d\d-\d\d-\d\d: 3 outcomes, 2 need a look", issue["title"])
    told = world.app.get(f"/v1/digests/{issue['title'][:10]}")
    assert told["linear"]["issue_id"] == issue["id"]
    assert told["linear"]["description"] == issue["description"]
    assert len(issue["attachments"]["nodes"]) == 1


def test_digest_that_grows_while_it_is_written_ends_whole(world, mode):
    mode("daily")
    world.app.propose(1)
    world.gate.fail("linear POST / Create", before=lambda: world.app.propose(60))
    assert world.sync() == (200, {"done": True})
    [issue] = world.issues.values()
    assert "2 outcomes, 1 needs a look" in issue["title"]
    assert world.outbox == []


READING: dict = {"reading_id": "meter-7/1", "epoch": 1, "readings": [
    {"actor": "actor-1", "resource": "energy", "kind": "produce", "amount": 3.2},
    {"actor": "actor-2", "resource": "energy", "kind": "consume", "amount": 1.25},
    {"actor": "actor-3", "resource": "energy", "kind": "need", "amount": 4},
]}  # fmt: skip


def flows(world):
    listed = world.app.get("/v1/ledger", limit=1000)["items"]
    return [(one["kind"], one["amount"]) for one in listed if one["kind"] in ("produce", "consume")]


def test_meter_reading_counts_once_however_often_it_comes(world):
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: world.n8n.meter(READING), range(4)))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len({answer.text for answer in answers}) == 1
    assert answers[0].json()["readings"][0] | {"entry": 0} == {
        "actor": "actor-1", "resource": "energy", "kind": "produce", "requested": 3.2, "applied": 3.2, "entry": 0,
    }  # fmt: skip
    assert sorted(flows(world)) == [("consume", 1.25), ("produce", 3.2)]


def test_body_of_a_reading_is_handed_on_byte_by_byte(world):
    twice = b'{"reading_id": "a", "reading_id": "b", "epoch": 1, "readings": []}'
    refused = world.n8n.meter(twice)
    assert refused.status_code == 422, "the app saw the duplicate key that a parser in between would have hidden"
    assert "comes twice" in refused.json()["detail"]


@pytest.mark.parametrize("headers", [{}, {"X-Gridgov-Signature": ""}, {"X-Gridgov-Signature": "sha256=00"}])
def test_forged_reading_is_refused(world, headers):
    refused = world.n8n.meter(READING, "another secret", **headers)
    assert refused.status_code == 401
    assert world.gate.calls == []
    assert flows(world) == []


def test_reading_that_was_signed_as_another_is_refused(world):
    signed = world.n8n.meter(READING)
    sent = dict(signed.request.headers)
    forged = json.dumps(READING | {"reading_id": "meter-7/2"}).encode()
    refused = world.n8n.meter(forged, **{"X-Gridgov-Signature": sent["x-gridgov-signature"]})
    assert refused.status_code == 401
    assert len(flows(world)) == 2


@pytest.mark.parametrize(
    ("change", "status", "detail"),
    [
        ({"readings": []}, 422, "readings"),
        ({"epoch": 9}, 422, "epoch"),
        ({"more": 1}, 422, "more"),
    ],
)
def test_reading_that_the_app_refuses_is_told_why(world, change, status, detail):
    refused = world.n8n.meter(READING | change)
    assert refused.status_code == refused.json()["status"] == status
    assert detail in refused.json()["detail"]


def test_same_reading_with_other_amounts_is_refused(world):
    assert world.n8n.meter(READING).status_code == 200
    refused = world.n8n.meter(READING | {"readings": READING["readings"][:1]})
    assert (refused.status_code, len(flows(world))) == (409, 2)


def test_key_of_n8n_cannot_do_what_an_operator_can(world):
    header = {"Authorization": f"Bearer {APP_KEY}"}

    def asked(method, path, told=None):
        return world.app.ask(method, path, told, headers=header, once="x").status_code

    why = {"reason": "because"}
    held = world.app.propose(45)["proposal_id"]
    transfer = {"from": "actor-1", "to": "actor-2", "resource": "energy", "amount": 1}
    assert asked("GET", "/v1/context") == 200
    for method, path, told in [
        ("POST", f"/v1/proposals/{held}/approve", why),
        ("POST", f"/v1/proposals/{held}/reject", why),
        ("POST", f"/v1/proposals/{held}/reverse", why),
        ("POST", "/v1/ledger/1/reverse", why),
        ("POST", "/v1/transfers", {"transfers": [transfer], **why}),
        ("POST", "/v1/control", {"action": "pause", **why}),
        ("PUT", "/v1/constraints", {"constraints": {}, **why}),
        ("POST", "/v1/actors", {"id": "actor-9", "type": "node", **why}),
        ("PATCH", "/v1/actors/actor-1", {"frozen": True, **why}),
        ("POST", "/v1/activations", {"prompt": "propose_transfer", "model": "x", **why}),
    ]:
        assert asked(method, path, told) == 403, path
