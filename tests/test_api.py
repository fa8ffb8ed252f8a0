"""The app as its clients see it: what each endpoint answers, exactly once, within limits, and without its database."""

import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from gridgov import api, pages, postgres, queries, stored
from gridgov.auth import Caller, Keys
from gridgov.errors import BadInput
from gridgov.model import Round, uuid5
from gridgov.postgres import READ, migrate
from gridgov.replay import chain
from gridgov.service import Asked, Rounds
from tests.apps import ACTORS, KEYS, Client, fill, good, moving, running, served
from tests.test_postgres import LARGE

pytest_plugins = ["tests.databases"]

ROOT = Path(__file__).resolve().parent.parent
OTHER = "00000000-0000-4000-8000-000000000000"
MOVE = (
    b'{"proposal_id": "%%s", "proposal": {"transfers": '
    b'[{"from": "actor-1", "to": "actor-2", "resource": "energy", "amount": %s}]}}'
)
GEMINI = {"candidates": [{"content": {"parts": [{"text": json.dumps(moving(2))}]}, "finishReason": "STOP"}]}


@pytest.fixture(scope="module")
def template(server):
    return server.template("app", fill)


@pytest.fixture
def url(server, template):
    with server.database(template) as url:
        yield url


@pytest.fixture
def client(url):
    with running(url) as client:
        yield client


@pytest.fixture(scope="module")
def calm(server, template):
    """A client for those tests that change nothing."""
    with server.database(template) as url, running(url) as client:
        yield client


def problem(response, status, *parts):
    """What a problem says, which must be of this status and name these parts."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    told = response.json()
    assert told["status"] == status and told["instance"] == response.headers["x-request-id"]
    for part in parts:
        assert part in told["detail"]
    return told


def balance(client, actor="actor-1", resource="energy"):
    actors = client.get("/v1/world-state")["actors"]
    return next(one["balances"][resource] for one in actors if one["id"] == actor)


def head(client):
    return client.get("/v1/control")["seq"]


def at_once(count, call):
    """What so many threads get that call at the same moment."""
    barrier = threading.Barrier(count)

    def one(n):
        barrier.wait()
        return call(n)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def verify(url):
    """The journal is one chain."""
    connection = postgres.connect(url, "main", READ)
    try:
        return list(chain(stored.lines(connection)))
    finally:
        connection.close()


# --- keys and scopes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [None, "Bearer nonsense", "Basic eA==", f"Bearer gridgov_{'0' * 16}_{'x' * 43}"])
def test_refuses_a_caller_without_a_good_key(calm, header):
    response = calm.ask("GET", "/v1/world-state", key=False, headers={"Authorization": header} if header else {})
    problem(response, 401, "key")
    assert response.headers["www-authenticate"].startswith("Bearer")


def test_refuses_a_scope_that_the_key_lacks(client):
    body = {"proposal_id": OTHER, "proposal": moving()}
    problem(client.ask("POST", "/v1/proposals", body, key="read"), 403, "propose")
    problem(client.ask("GET", "/v1/outbox", key="read"), 403, "propose")
    problem(client.act("/v1/control", {"action": "pause"}, key="propose"), 403, "operate")
    good(client.ask("GET", "/v1/world-state", key="propose"))
    assert client.propose(key="propose")["proposer"] == "propose"


def test_asks_for_the_key_before_it_reads_a_body(calm):
    problem(calm.ask("POST", "/v1/proposals", content=b"{", key=False), 401)


def test_refuses_to_move_what_the_mandate_does_not_cover(client):
    assert client.propose(giver="actor-1", key="mandated")["outcome"] == "executed"
    refused = client.propose(giver="actor-2", taker="actor-1", key="mandated")
    assert [v["code"] for v in refused["violations"]] == ["not_permitted"]
    dry = client.propose(giver="actor-2", taker="actor-1", key="mandated", dry_run=True)
    assert [v["code"] for v in dry["violations"]] == ["not_permitted"]


# --- proposals, exactly once ------------------------------------------------------------------------------------------


def test_answers_an_outcome_with_all_that_its_readers_need(client):
    told = client.propose(12.5)
    assert told["outcome"] == "executed" and told["entries"] == [17] and told["violations"] == []
    assert told["balances"] == [
        {"actor": "actor-1", "resource": "energy", "before": 100000, "after": 99987.5},
        {"actor": "actor-2", "resource": "energy", "before": 100000, "after": 100012.5},
    ]
    assert told["url"].startswith("http://grid.example/") and told["epoch"] == 1
    assert set(told["linear"]) == {"issue_id", "title", "description", "priority"}
    assert f"{told['seq']}:{told['digest']}" in told["linear"]["description"]
    assert "error" not in told
    assert client.get(f"/v1/ledger/{told['entries'][0]}")["amount"] == 12.5


def test_says_which_rule_is_broken_in_words(client):
    (found,) = client.propose(60)["violations"]
    assert (found["code"], found["limit"], found["actual"]) == ("max_transfer", 50, 60)
    assert "60 kWh is above 50 kWh" in found["words"]


def test_reads_amounts_exactly(client):
    body = b'{"proposal_id": "%s", "proposal": {"transfers": [{"from": "actor-1", "to": "actor-2", ' % OTHER.encode()
    fits = client.ask("POST", "/v1/proposals", content=body + b'"resource": "energy", "amount": 1.2340}]}}')
    assert good(fits)["balances"][0]["after"] == 99998.766
    body = body.replace(OTHER.encode(), str(uuid.uuid4()).encode())
    body += b'"resource": "energy", "amount": 1.00000000000000001}]}}'
    (found,) = good(client.ask("POST", "/v1/proposals", content=body))["violations"]
    assert (found["code"], found["actual"]) == ("precision", "1.00000000000000001")


def test_decides_one_id_once_for_fifty_threads(client, url):
    told = at_once(50, lambda _: client.propose(3, id_=OTHER))
    assert all(one == told[0] for one in told) and told[0]["outcome"] == "executed"
    assert balance(client) == 99997
    assert sum(record.kind == "proposal" for record in verify(url)) == 1


def test_answers_a_lost_answer_on_retry(client):
    first = client.propose(3, id_=OTHER)
    client.propose(4, "actor-2", "actor-3")
    client.propose(5, "actor-2", "actor-1")
    assert client.propose(3, id_=OTHER) == first
    again = client.get(f"/v1/proposals/{OTHER}")
    assert {key: again[key] for key in first} == first
    assert again["proposal"]["transfers"] == moving(3)["transfers"]


def test_keeps_a_rejection_final(client):
    first = client.propose(60, id_=OTHER)
    good(client.act("/v1/constraints", {"constraints": {}}, method="PUT"))
    assert client.propose(60, id_=OTHER) == first


def test_refuses_other_input_under_the_same_id(client):
    first = client.propose(3, id_=OTHER)
    cases: list[tuple[dict, list]] = [
        ({"proposal": moving(4)}, ["transfers"]),
        ({"proposal": moving(3, reasoning="else")}, ["reasoning"]),
        ({"proposal": moving(4, reasoning="else")}, ["transfers", "reasoning"]),
        ({"unavailable": {"kind": "quota"}}, ["kind"]),
        ({"model_response": "nothing"}, ["kind"]),
    ]
    for given, differs in cases:
        told = problem(client.ask("POST", "/v1/proposals", {"proposal_id": OTHER, **given}), 409, OTHER)
        assert told["differs"] == differs and told["recorded"] == first
    failed = {"proposal_id": str(uuid.uuid4()), "unavailable": {"kind": "quota"}}
    client.post("/v1/proposals", failed)
    other = client.ask("POST", "/v1/proposals", {**failed, "unavailable": {"kind": "auth"}})
    assert problem(other, 409)["differs"] == ["unavailable"]


def test_id_of_a_request_blocks_no_request(client):
    """Whoever guesses the key of an operator's act cannot use up its id by a proposal."""
    taken = uuid5("request/7/operate/k")
    good(client.ask("POST", "/v1/proposals", {"proposal_id": taken, "proposal": moving()}))
    assert good(client.act("/v1/control", {"action": "pause"}, once="k"))["paused"] is True


def test_takes_the_id_in_capitals_for_the_same(client):
    id_ = "0000000a-0000-4000-8000-00000000000a"
    assert client.propose(3, id_=id_.upper()) == client.propose(3, id_=id_)


def test_takes_a_proposal_that_names_its_own_id(client):
    client.post("/v1/proposals", {"proposal_id": OTHER, "proposal": {**moving(), "proposal_id": OTHER.upper()}})
    body = {"proposal_id": OTHER, "proposal": {**moving(), "proposal_id": str(uuid.uuid4())}}
    assert problem(client.ask("POST", "/v1/proposals", body), 422)["path"] == ["proposal", "proposal_id"]


def test_records_what_a_model_replied(client, url):
    told = client.post("/v1/proposals", {"proposal_id": OTHER, "model_response": GEMINI})
    assert told["outcome"] == "executed" and told["balances"][0]["after"] == 99998
    for reply, outcome in (
        (json.dumps(GEMINI), "executed"),
        ("certainly! here it is", "unavailable"),
        ({"candidates": []}, "malformed"),
        ({"candidates": [{"content": {"parts": [{"text": "no"}]}, "finishReason": "STOP"}]}, "malformed"),
        ({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}, "unavailable"),
        ("x" * (2 << 20), "unavailable"),
        ({"candidates": [{"content": {"parts": [{"text": "x" * (2 << 20)}]}}]}, "malformed"),
        ({"a": "\ud800"}, "malformed"),
    ):
        content = json.dumps({"model_response": reply, "proposal_id": str(uuid.uuid4())})
        assert good(client.ask("POST", "/v1/proposals", content=content.encode()))["outcome"] in (outcome, "malformed")
    with psycopg.connect(url) as connection:
        kept = connection.execute("SELECT body FROM main.interactions ORDER BY id LIMIT 1").fetchone()
    assert json.loads(kept[0]) == GEMINI


def test_records_that_no_reply_came(client):
    body = {"proposal_id": OTHER, "unavailable": {"kind": "transport", "status": 503, "code": "ECONNRESET"}}
    told = client.post("/v1/proposals", body)
    assert told["outcome"] == "unavailable" and told["fault"]["detail"] == "HTTP 503 ECONNRESET"
    assert client.post("/v1/proposals", body) == told


def test_keeps_an_exchange_with_its_request_as_it_was_handed_out(client, url):
    context = client.get("/v1/context")
    body = {"proposal_id": context["proposal_id"], "request_key": context["request_key"], "model_response": GEMINI}
    client.post("/v1/proposals", body)
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT request_key, request, about FROM main.interactions").fetchone()
    assert row[0] == context["request_key"] and json.loads(row[1]) == context["request"]["body"]
    assert json.loads(row[2])["round"] == {"epoch": 1, "n": 1, "proposer": "planner"}


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        ({"amount": "5"}, ["amount"], "expected a number"),
        ({"amount": True}, ["amount"], "expected a number"),
        ({"from": 1}, ["from"], "expected text"),
        ({"to": None}, ["to"], "expected text"),
        ({"note": ""}, ["note"], "there is no such key here"),
    ],
)
def test_says_in_plain_words_what_is_wrong_and_where(calm, change, path, message):
    transfer = {"from": "actor-1", "to": "actor-2", "resource": "energy", "amount": 1, **change}
    body = {"proposal_id": OTHER, "proposal": {"transfers": [transfer]}}
    told = problem(calm.ask("POST", "/v1/proposals", body), 422)
    path = ["proposal", "transfers", 0, *path]
    assert told["errors"] == [{"path": path, "message": message}] and told["path"] == path
    assert told["detail"] == f"{'.'.join(map(str, path))}: {message}"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ([1], "expected text, or a whole number"),
        ("x" * 101, "String should have at most 100 characters, or expected a whole number"),
    ],
)
def test_says_all_that_is_allowed_in_one_place(calm, code, message):
    body = {"proposal_id": OTHER, "unavailable": {"kind": "quota", "code": code}}
    told = problem(calm.ask("POST", "/v1/proposals", body), 422)
    assert told["errors"] == [{"path": ["unavailable", "code"], "message": message}]


def test_says_what_is_missing_and_what_an_id_is(calm):
    told = problem(calm.ask("POST", "/v1/proposals", {"proposal_id": "x", "proposal": {}}), 422)
    assert told["errors"] == [
        {"path": ["proposal_id"], "message": "expected a UUID"},
        {"path": ["proposal", "transfers"], "message": "is missing"},
    ]
    assert "expected a UUID" in problem(calm.ask("GET", "/v1/proposals/x"), 422)["detail"]


@pytest.mark.parametrize(
    ("content", "status", "part"),
    [
        (b"", 400, "empty"),
        (b"{", 400, "ends where"),
        (b'{"proposal_id": 1} x', 400, "expected the end"),
        (b"[]", 422, "object"),
        (b'{"a": 1, "a": 2}', 422, "twice"),
        (b'{"a": NaN}', 422, "NaN"),
        (b'{"a": 1e999}', 422, "finite"),
        (b'{"a": "\\u0000"}', 422, "U+0000"),
        (b'{"a": "\\ud800"}', 422, "surrogate"),
        (b'{"a": "\xff"}', 422, "UTF-8"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", 422, "levels"),
        (b'{"proposal_id": "x"}', 422, "proposal_id"),
        (b'{"proposal_id": "%s"}', 422, "exactly one"),
        (b'{"proposal_id": "%s", "extra": 1}', 422, "extra"),
        (b'{"proposal_id": "%s", "proposal": 3}', 422, "proposal"),
        (b'{"proposal_id": "%s", "proposal": {"transfers": [{"from": "a"}]}}', 422, "transfers.0"),
        (MOVE % b"true", 422, "amount"),
        (MOVE % b'"1"', 422, "amount"),
        (MOVE % b"null", 422, "amount"),
        (MOVE % (b"1" * 65), 422, "digits"),
        (b'{"proposal_id": "%s", "proposal": {"transfers": []}, "model_response": {}}', 422, "exactly one"),
        (b'{"proposal_id": "%s", "model_response": 3}', 422, "model_response"),
        (b'{"proposal_id": "%s", "model_response": {"a": }}', 400, "model_response"),
        (b'{"proposal_id": "%s", "model_response": {}, "model_response": {}}', 422, "twice"),
        (b'{"proposal_id": "%s", "unavailable": {"kind": "tired"}}', 422, "kind"),
        (b'{"proposal_id": "%s", "proposal": {"transfers": []}, "world_state_digest": "x"}', 422, "digest"),
    ],
)
def test_refuses_a_body_that_is_no_submission(calm, content, status, part):
    content = content.replace(b"%s", OTHER.encode())
    problem(calm.ask("POST", "/v1/proposals", content=content), status, part)
    assert head(calm) == 2


def test_refuses_what_is_too_large(calm):
    problem(calm.act("/v1/control", {"reason": "x" * (1 << 20), "action": "pause"}), 413)
    body = {"proposal_id": OTHER, "proposal": moving(reasoning="x" * (1 << 20))}
    problem(calm.ask("POST", "/v1/proposals", body), 413, "beside model_response")
    problem(calm.ask("POST", "/v1/proposals", {"proposal_id": OTHER, "model_response": "x" * (10 << 20)}), 413)


def test_stops_reading_a_body_that_does_not_say_how_large_it_is(calm):
    sent = []

    def chunks():
        for _ in range(400):
            sent.append(1)
            yield b" " * (1 << 20)

    with suppress(httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadError):
        problem(calm.ask("POST", "/v1/proposals", content=chunks()), 413)
    assert len(sent) < 400, "it hangs up before all is sent"


def test_judges_what_was_seen(client):
    context = client.get("/v1/context")
    client.propose(1)
    body = {"proposal": moving(), "world_state_digest": context["world_state_digest"]}
    moved = client.post("/v1/proposals", {"proposal_id": str(uuid.uuid4()), **body})
    assert moved["outcome"] == "executed" and moved["state_moved"] is True
    client.post("/v1/epochs/close", {"epoch": 1})
    stale = client.post("/v1/proposals", {"proposal_id": str(uuid.uuid4()), **body})
    assert [v["code"] for v in stale["violations"]] == ["stale_world_state"]
    assert client.get("/v1/context")["world_state_digest"] != context["world_state_digest"]


# --- rounds -----------------------------------------------------------------------------------------------------------


def test_shows_the_open_round_and_its_request(client):
    told = client.get("/v1/context")
    assert told["round"] == {"epoch": 1, "proposer": "planner", "n": 1}
    assert told["proposal_id"] == Round(1, "planner", 1).proposal_id
    assert told["request"]["path"] == "/v1/models/gemini-3.8-flash:generateContent"
    assert set(told["request"]["body"]) == {"systemInstruction", "contents", "generationConfig"}
    assert told["world_state"] == client.get("/v1/world-state") and told["paused"] is False
    assert client.get("/v1/context") == told
    assert "decided" not in told


def test_repeats_the_round_until_it_has_an_outcome(client):
    context = client.get("/v1/context")
    outcome = client.post("/v1/proposals", {"proposal_id": context["proposal_id"], "model_response": GEMINI})
    assert (outcome["proposer"], outcome["n"]) == ("planner", 1)
    again = client.get("/v1/context")
    assert again["proposal_id"] == context["proposal_id"] and again["decided"] == outcome
    extra = client.get("/v1/context", extra=True)
    assert extra["round"]["n"] == 2 and "decided" not in extra
    client.post("/v1/epochs/close", {"epoch": 1})
    following = client.get("/v1/context")
    assert following["round"]["epoch"] == 2 and "decided" not in following
    assert "because" in json.dumps(following["request"]["body"]) and "history" in json.dumps(following["request"])


def test_decides_one_round_for_sixteen_loops_at_once(client, url):
    contexts = at_once(16, lambda _: client.get("/v1/context"))
    ids = {context["proposal_id"] for context in contexts}
    assert len(ids) == 1
    body = {"proposal_id": ids.pop(), "model_response": GEMINI}
    told = at_once(16, lambda n: client.ask("POST", "/v1/proposals", body, key=("propose", "operate")[n % 2]).json())
    assert all(one == told[0] for one in told)
    assert sum(record.kind == "proposal" for record in verify(url)) == 1


def test_gives_a_key_with_a_mandate_rounds_of_its_own(client):
    shared, own = client.get("/v1/context"), good(client.ask("GET", "/v1/context", key="mandated"))
    assert own["round"]["proposer"] == "mandated" and own["proposal_id"] != shared["proposal_id"]
    assert "may_move" in json.dumps(own["request"]["body"])
    body = {"proposal_id": shared["proposal_id"], "proposal": moving()}
    problem(client.ask("POST", "/v1/proposals", body, key="mandated"), 403, "planner")
    told = client.post("/v1/proposals", {**body, "proposal_id": own["proposal_id"]}, key="mandated")
    assert (told["proposer"], told["n"]) == ("mandated", 1)


def test_judges_a_round_that_has_closed_as_stale(client):
    context = client.get("/v1/context")
    client.post("/v1/epochs/close", {"epoch": 1})
    told = client.post("/v1/proposals", {"proposal_id": context["proposal_id"], "model_response": GEMINI})
    assert (told["outcome"], told["proposer"], told["n"]) == ("rejected", "planner", 1)
    assert [v["code"] for v in told["violations"]] == ["stale_world_state"]


def test_recognises_the_rounds_of_the_last_thousand_epochs():
    rounds = Rounds()
    for epoch, n, found in ((5, 16, True), (5, 17, False), (4, 16, True), (4, 17, False), (6, 1, False)):
        round_ = Round(epoch, "p", n)
        assert rounds.find(round_.proposal_id, "p", 5) == (round_ if found else None)
    old = Round(5, "p", 1).proposal_id
    assert rounds.find(old, "p", 1_005) is not None
    assert rounds.find(old, "p", 1_006) is None and rounds.find(old, "p", 9_000) is None
    ahead = Round(9_100, "p", 16)
    assert rounds.find(ahead.proposal_id, "p", 9_000, 100) == ahead
    assert rounds.find(ahead.proposal_id, "p", 9_000, 99) is None


# --- what an adversary tried ------------------------------------------------------------------------------------------


def test_round_of_an_epoch_to_come_is_kept_for_whoever_is_asked_then(client):
    later = Round(2, "planner", 1).proposal_id
    for key, status in (("mandated", 403), ("operate", 422)):
        told = client.ask("POST", "/v1/proposals", {"proposal_id": later, "proposal": moving()}, key=key)
        problem(told, status)
    good(client.ask("POST", "/v1/epochs/close", {"epoch": 1}))
    context = good(client.ask("GET", "/v1/context"))
    assert context["proposal_id"] == later and "decided" not in context


def test_round_whose_id_another_used_is_passed_over(client):
    mine = Round(1, "mandated", 1).proposal_id
    good(client.ask("POST", "/v1/proposals", {"proposal_id": mine, "proposal": moving()}, key="operate"))
    context = good(client.ask("GET", "/v1/context", key="mandated"))
    assert context["round"]["n"] == 2 and "decided" not in context
    told = client.ask(
        "POST", "/v1/proposals", {"proposal_id": context["proposal_id"], "proposal": moving()}, key="mandated"
    )
    assert good(told)["proposer"] == "mandated"
    assert good(client.ask("GET", "/v1/context", key="mandated"))["decided"]["outcome"] == "executed"


def test_reply_for_a_closed_round_is_stale_whatever_it_says_it_saw(client):
    asked = good(client.ask("GET", "/v1/context"))
    extra = Round(1, "planner", 9).proposal_id
    good(client.ask("POST", "/v1/epochs/close", {"epoch": 1}))
    seen = good(client.ask("GET", "/v1/context"))["world_state_digest"]
    for body in (
        {"proposal_id": asked["proposal_id"], "world_state_digest": seen},
        {"proposal_id": extra},
    ):
        found = good(client.ask("POST", "/v1/proposals", {**body, "proposal": moving()}))
        assert [v["code"] for v in found["violations"]] == ["stale_world_state"]


def test_mandate_binds_meters_and_what_is_of_the_whole_grid(client):
    def metered(actor):
        readings = [{"actor": actor, "resource": "energy", "kind": "produce", "amount": 1}]
        return client.ask("POST", "/v1/flows", {"reading_id": actor, "epoch": 1, "readings": readings}, key="mandated")

    good(metered("actor-1"))
    assert "actor-2" in problem(metered("actor-2"), 403)["detail"]
    problem(client.ask("POST", "/v1/epochs/close", {"epoch": 1}, key="mandated"), 403)
    problem(client.ask("GET", "/v1/outbox", key="mandated"), 403)


def test_misspelt_or_repeated_query_parameter_acts_on_nothing(client):
    before = good(client.ask("GET", "/v1/control"))["seq"]
    for query in ("dryrun=true", "dry_run=true&dry_run=false"):
        told = client.act(f"/v1/control?{query}", {"action": "pause"}, once=query[:3])
        assert "dry" in problem(told, 422)["detail"]
    assert good(client.ask("GET", "/v1/control"))["seq"] == before


def test_who_sends_slowly_holds_up_nobody(url):
    with running(url, max_in_flight=2) as client:
        key = KEYS["operate"]
        head = f"POST /v1/control HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 99\r\n\r\n{{"
        slow = [socket.create_connection((client.http.base_url.host, client.http.base_url.port)) for _ in range(8)]
        for one in slow:
            one.sendall(head.encode())
        assert good(client.ask("GET", "/v1/control"))["paused"] is False
        assert good(client.act("/v1/control", {"action": "pause"}, once="k"))["paused"] is True
        for one in slow:
            one.close()


def test_body_that_does_not_come_is_not_waited_for(url, monkeypatch):
    monkeypatch.setattr(api, "BODY_S", 0.2)
    with running(url) as client:
        where = client.http.base_url
        with socket.create_connection((where.host, where.port), timeout=20) as slow:
            slow.sendall(b"POST /v1/control HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
            assert slow.recv(10_000).startswith(b"HTTP/1.1 400 ")


def test_bodies_that_fill_the_memory_are_refused(url, monkeypatch):
    monkeypatch.setattr(api, "MEMORY_MAX", 1_000)
    with running(url) as client:
        told = problem(client.ask("POST", "/v1/control", content=b"x" * 2_000), 503)
        assert "too much" in told["detail"]
        assert good(client.act("/v1/control", {"action": "pause"}, once="k"))["paused"] is True


@pytest.mark.parametrize(
    "trouble",
    [
        "ALTER SCHEMA main RENAME TO elsewhere",
        "ALTER DATABASE {} SET default_transaction_read_only = on",
        "REVOKE INSERT ON main.journal FROM gridgov_app",
        "ALTER TABLE main.journal RENAME TO elsewhere",
    ],
)
def test_trouble_in_the_database_is_never_told_as_the_clients_fault(url, trouble):
    with running(url, deadline_s=3) as client:
        good(client.act("/v1/control", {"action": "resume"}, once="before"))
        with psycopg.connect(url, autocommit=True) as owner:
            owner.execute(sql.SQL(trouble).format(sql.Identifier(owner.info.dbname)))
            end = (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = %s"
            )
            owner.execute(end, [owner.info.dbname])
        asked = {"proposal_id": str(uuid.uuid4()), "proposal": moving()}
        for told in (
            client.ask("POST", "/v1/proposals", asked),
            client.act("/v1/control", {"action": "pause"}, once="after"),
            client.ask("GET", "/readyz"),
        ):
            assert told.status_code == 503, told.text
            assert "retry-after" in told.headers
        assert client.ask("GET", "/v1/world-state").status_code in (200, 503)


def test_acts_of_two_keys_are_two_whatever_their_names(client):
    ids = {Asked(key, "POST /v1/control", {}).once(Caller(name, frozenset())).request
           for name, key in (("a/b", "c"), ("a", "b/c"), ("a/b/c", ""))}  # fmt: skip
    assert len(ids) == 3


def test_needs_of_more_than_15_digits_are_refused(client):
    reading = {"actor": "actor-1", "resource": "energy", "kind": "need", "amount": 999_999_999_999}
    body = {"reading_id": "many", "epoch": 1, "readings": [reading] * 2_000}
    assert "15 digits" in problem(client.ask("POST", "/v1/flows", body), 422)["detail"]


def test_page_of_long_rows_is_cut_and_goes_on(client, monkeypatch):
    monkeypatch.setattr(pages, "PAGE_BYTES", 5_000)
    monkeypatch.setattr(pages, "CHUNK", 2)
    for _ in range(6):
        body = {"proposal_id": str(uuid.uuid4()), "proposal": moving(reasoning="x" * 2_000)}
        good(client.ask("POST", "/v1/proposals", body))
    found, after = [], 0
    while after is not None:
        page = good(client.ask("GET", f"/v1/proposals?limit=1000&after={after}"))
        assert len(page["items"]) <= 4
        found += [item["seq"] for item in page["items"]]
        after = page["next"]
    assert len(found) == len(set(found)) == 6


def test_asks_with_the_prompt_and_the_model_in_force(client):
    body = {"prompt": "speak_for_actor", "model": "gemini-next"}
    told = good(client.act("/v1/activations", body))
    assert told["kind"] == "activation" and told["model"] == "gemini-next" and len(told["prompt_digest"]) == 64
    assert client.get("/v1/control")["active"] == {"active": {"prompt": "speak_for_actor", "model": "gemini-next"}}
    assert client.get("/v1/context", prompt="propose_transfer")["request"]["model"] == "gemini-next"
    problem(client.ask("GET", "/v1/context", prompt="nothing"), 404, "nothing")
    problem(client.ask("GET", "/v1/context", prompt="../x.j2"), 422)
    problem(client.act("/v1/activations", {**body, "prompt": "nothing"}), 422, "nothing")


# --- dry runs ---------------------------------------------------------------------------------------------------------


def test_dry_runs_change_nothing(client):
    held = client.propose(45)["proposal_id"]
    done = client.propose(5)
    before = head(client)
    told = client.propose(60, dry_run=True)
    assert (told["outcome"], told["seq"], told["digest"], told["entries"]) == ("rejected", None, None, [])
    told = client.propose(7, dry_run=True)
    assert told["dry_run"] and told["balances"][0]["after"] == told["balances"][0]["before"] - 7
    body = {"proposal_id": OTHER, "unavailable": {"kind": "quota"}}
    assert client.post("/v1/proposals", body, dry_run=True)["outcome"] == "unavailable"
    acts: list[tuple[str, dict, str]] = [
        (f"/v1/proposals/{held}/approve", {}, "POST"),
        (f"/v1/proposals/{held}/reject", {}, "POST"),
        (f"/v1/proposals/{done['proposal_id']}/reverse", {}, "POST"),
        (f"/v1/ledger/{done['entries'][0]}/reverse", {}, "POST"),
        ("/v1/transfers", {"transfers": moving(99)["transfers"]}, "POST"),
        ("/v1/control", {"action": "pause"}, "POST"),
        ("/v1/constraints", {"constraints": {}}, "PUT"),
        ("/v1/actors", {"id": "new", "type": "node"}, "POST"),
        ("/v1/actors/actor-1", {"frozen": True}, "PATCH"),
        ("/v1/activations", {"prompt": "propose_transfer", "model": "m"}, "POST"),
    ]
    for path, asked, method in acts:
        told = good(client.act(path, asked, method=method, dry_run=True))
        assert told["dry_run"] is True and told["seq"] is None and told["digest"] is None
        assert all(b["before"] != b["after"] for b in told.get("balances", [])) or "reject" in path
    assert head(client) == before


def test_dry_run_of_an_id_that_was_decided_says_what_the_id_stands_for(client):
    body = {"proposal_id": OTHER, "proposal": moving(5)}
    done = client.post("/v1/proposals", body)
    assert client.post("/v1/proposals", body, dry_run=True) == done
    told = problem(client.ask("POST", "/v1/proposals", {**body, "proposal": moving(6)}, dry_run="true"), 409)
    assert told["recorded"] == done and told["differs"] == ["transfers"]


# --- what people do ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("act", "outcome"), [("approve", "executed"), ("reject", "rejected")])
def test_settles_a_hold_once(client, act, outcome):
    held = client.propose(45)
    path = f"/v1/proposals/{held['proposal_id']}"
    assert held["outcome"] == "held" and client.get("/v1/control")["holds"] == [held["proposal_id"]]
    told = at_once(8, lambda _: client.act(f"{path}/{act}", {}, once="mine").json())
    assert all(one == told[0] for one in told)
    assert (told[0]["outcome"], told[0]["operator"], told[0]["reason"]) == (outcome, "operate", "because")
    assert balance(client) == (99955 if act == "approve" else 100000)
    late = problem(client.act(f"{path}/approve", {}), 409, outcome)
    assert late["recorded"]["outcome"] == outcome
    final = client.get(path)
    assert (final["outcome"], final["seq"], final["decided"]["outcome"]) == (outcome, told[0]["seq"], "held")
    assert client.propose(45, id_=held["proposal_id"]) == held
    (listed,) = client.get("/v1/proposals")["items"]
    assert (listed["outcome"], listed["settlement"]) == (outcome, act)


def test_answers_a_repeated_act_in_a_rush_from_another_app(client, url):
    held = [client.propose(45, ACTORS[n], "actor-8")["proposal_id"] for n in range(4)]
    told = [good(client.act(f"/v1/proposals/{id_}/approve", {}, once=id_)) for id_ in held]
    told.append(good(client.act("/v1/actors", {"id": "new", "type": "node"}, once="new")))
    with running(url) as other:

        def call(n):
            if n % 4:
                return other.propose(1, "actor-7", "actor-8")
            if n == 0:
                return good(other.act("/v1/actors", {"id": "new", "type": "node"}, once="new"))
            id_ = held[n // 4 - 1]
            return good(other.act(f"/v1/proposals/{id_}/approve", {}, once=id_))

        found = at_once(20, call)
    assert [found[n] for n in (4, 8, 12, 16, 0)] == told


def test_settles_only_what_is_held(client):
    done = client.propose(1)
    told = problem(client.act(f"/v1/proposals/{done['proposal_id']}/reject", {}), 409, "executed")
    assert told["recorded"]["seq"] == done["seq"]
    problem(client.act(f"/v1/proposals/{OTHER}/approve", {}), 404, OTHER)
    problem(client.act("/v1/proposals/x/approve", {}), 422)
    problem(client.act(f"/v1/proposals/{OTHER}/approve", {}, dry_run=True), 404)


def test_expires_a_hold_with_its_epoch(client):
    good(client.act("/v1/constraints", {"constraints": {"hold_above": {"energy": 1}, "hold_epochs": 1}}, method="PUT"))
    held = client.propose(2)["proposal_id"]
    assert client.post("/v1/epochs/close", {"epoch": 1})["expired"] == []
    assert client.post("/v1/epochs/close", {"epoch": 2})["expired"] == [held]
    assert 'gridgov_outcomes_total{outcome="rejected"} 1.0' in client.ask("GET", "/metrics").text
    assert [v["code"] for v in client.get(f"/v1/proposals/{held}")["violations"]] == ["hold_expired"]


def test_overrides_whatever_the_constraints(client):
    body = {"transfers": moving(60)["transfers"]}
    told = good(client.act("/v1/transfers", body, once="one"))
    assert told["outcome"] == "executed" and told["proposal_id"] is None and told["kind"] == "override"
    assert good(client.act("/v1/transfers", body, once="one")) == told
    assert balance(client) == 99940
    other = {"transfers": moving(61)["transfers"]}
    assert problem(client.act("/v1/transfers", other, once="one"), 409)["recorded"] == told
    assert good(client.act("/v1/transfers", body, once="two"))["seq"] > told["seq"]
    assert good(client.act("/v1/transfers", {"transfers": moving(10**6)["transfers"]}))["outcome"] == "rejected"
    assert client.get(f"/v1/ledger/{told['entries'][0]}")["kind"] == "override"


@pytest.mark.parametrize(
    ("transfer", "where"),
    [
        ({"amount": 0}, "amount"),
        ({"giver": "nobody"}, "from"),
        ({"taker": "nobody"}, "to"),
        ({"giver": "grid"}, "from"),
        ({"resource": "gold"}, "resource"),
        ({"taker": "actor-1"}, "to"),
        ({"amount": 0.0001}, "amount"),
        ({"amount": 1e300}, "amount"),
        ({"amount": 1e-300}, "amount"),
    ],
)
def test_overrides_nothing_that_could_never_be(calm, transfer, where):
    told = problem(calm.act("/v1/transfers", {"transfers": moving(**transfer)["transfers"]}), 422)
    assert told["path"] == ["transfers", 0, where]
    problem(calm.act("/v1/transfers", {"transfers": []}), 422)


def test_reverses_an_entry_once(client):
    entry = client.propose(5)["entries"][0]
    told = good(client.act(f"/v1/ledger/{entry}/reverse", {}, once="back"))
    assert told["kind"] == "reversal" and balance(client) == 100000
    assert good(client.act(f"/v1/ledger/{entry}/reverse", {}, once="back")) == told
    problem(client.act(f"/v1/ledger/{entry}/reverse", {}), 409, "taken back")
    problem(client.act(f"/v1/ledger/{told['entries'][0]}/reverse", {}), 422)
    problem(client.act("/v1/ledger/999/reverse", {}), 404)
    problem(client.act("/v1/ledger/0/reverse", {}), 422)
    assert client.get(f"/v1/ledger/{entry}")["reversed_by"] == told["seq"]


def test_reverses_a_proposal_once(client):
    done = client.propose(5)["proposal_id"]
    told = good(client.act(f"/v1/proposals/{done}/reverse", {}))
    assert told["proposal_id"] == done and balance(client) == 100000
    problem(client.act(f"/v1/proposals/{done}/reverse", {}), 409, "taken back")
    refused = client.propose(60)
    found = problem(client.act(f"/v1/proposals/{refused['proposal_id']}/reverse", {}), 409, "moved nothing")
    assert found["recorded"]["seq"] == refused["seq"]
    problem(client.act(f"/v1/proposals/{OTHER}/reverse", {}), 404)


def test_a_reversal_may_fail_on_todays_balances(client):
    entry = client.propose(40, "actor-1", "actor-2")["entries"][0]
    everything = {"transfers": moving(100040, "actor-2", "actor-3")["transfers"]}
    good(client.act("/v1/transfers", everything))
    told = good(client.act(f"/v1/ledger/{entry}/reverse", {}))
    assert told["outcome"] == "rejected" and [v["code"] for v in told["violations"]] == ["insufficient_balance"]


def test_pauses_and_resumes(client):
    told = good(client.act("/v1/control", {"action": "pause"}, once="stop"))
    assert told["paused"] is True and told["operator"] == "operate"
    assert client.get("/v1/control")["paused"] is True and client.get("/v1/context")["paused"] is True
    assert [v["code"] for v in client.propose()["violations"]] == ["paused"]
    good(client.act("/v1/control", {"action": "resume"}))
    assert client.propose()["outcome"] == "executed"
    assert good(client.act("/v1/control", {"action": "pause"}, once="stop")) == told
    assert client.get("/v1/control")["paused"] is False
    assert problem(client.act("/v1/control", {"action": "resume"}, once="stop"), 409)["recorded"] == told


def test_changes_the_constraints_where_nobody_else_did(client):
    seq = client.get("/v1/constraints")["seq"]
    body = {"constraints": {"max_transfer": {"energy": 5}}, "expected_seq": seq}
    told = good(client.act("/v1/constraints", body, method="PUT"))
    assert told["constraints"]["max_transfer"] == {"energy": 5}
    assert client.get("/v1/constraints")["seq"] == told["seq"]
    problem(client.act("/v1/constraints", body, method="PUT"), 409, str(seq))
    wrong = {"constraints": {"max_transfer": {"enrgy": 5}}}
    told = problem(client.act("/v1/constraints", wrong, method="PUT"), 422, "energy")
    assert told["path"] == ["constraints", "max_transfer", "enrgy"]
    assert client.propose(6)["outcome"] == "rejected"


def test_registers_and_freezes_actors(client):
    told = good(client.act("/v1/actors", {"id": "a/b ü", "type": "node"}))
    assert told["actors"] == [{"id": "a/b ü", "type": "node"}]
    problem(client.act("/v1/actors", {"id": "a/b ü", "type": "node"}), 409, "already")
    for wrong in ({"id": " x"}, {"id": "a\tb"}, {"type": "boundary"}, {"id": ""}):
        problem(client.act("/v1/actors", {"id": "x", "type": "node", **wrong}), 422)
    assert client.propose(1, "actor-1", "a/b ü")["outcome"] == "executed"
    good(client.act("/v1/actors/a%2Fb%20%C3%BC", {"frozen": True}, method="PATCH"))
    assert [v["code"] for v in client.propose(1, "actor-1", "a/b ü")["violations"]] == ["frozen_actor"]
    good(client.act("/v1/actors/a/b ü", {"frozen": False}, method="PATCH"))
    assert client.propose(1, "actor-1", "a/b ü")["outcome"] == "executed"
    problem(client.act("/v1/actors/nobody", {"frozen": True}, method="PATCH"), 404)
    problem(client.act("/v1/actors/grid", {"frozen": True}, method="PATCH"), 404)
    assert [a["id"] for a in client.get("/v1/actors")["items"]] == [*ACTORS, "a/b ü"]


def test_needs_a_reason_and_a_key_that_counts_once(calm):
    problem(calm.ask("POST", "/v1/control", {"action": "pause", "reason": "x"}), 400, "Idempotency-Key")
    problem(calm.ask("POST", "/v1/control", {"action": "pause", "reason": "x"}, once="x" * 201), 400)
    problem(calm.ask("POST", "/v1/control", {"action": "pause"}, once="x"), 422, "reason")
    problem(calm.ask("POST", "/v1/control", {"action": "pause", "reason": " "}, once="x"), 422, "reason")
    assert head(calm) == 2


def test_one_key_counts_for_one_path(client):
    entries = client.propose(5)["entries"] + client.propose(6)["entries"]
    good(client.act(f"/v1/ledger/{entries[0]}/reverse", {}, once="k"))
    told = problem(client.act(f"/v1/ledger/{entries[1]}/reverse", {}, once="k"), 409)
    assert told["recorded"]["kind"] == "reversal"


# --- meters and epochs ------------------------------------------------------------------------------------------------


def reading(kind, amount, actor="actor-1", resource="energy"):
    return {"actor": actor, "resource": resource, "kind": kind, "amount": amount}


def test_counts_a_set_of_readings_once(client):
    readings = [reading("consume", 200000), reading("produce", 1.5), reading("need", 7)]
    readings.append(reading("produce", 2, "actor-2"))
    body = {"reading_id": "m-1", "epoch": 1, "readings": readings}
    told = client.post("/v1/flows", body)
    assert [(r["kind"], r["requested"], r["applied"]) for r in told["readings"]] == [
        ("consume", 200000, 100001.5), ("produce", 1.5, 1.5), ("need", 7, 0), ("produce", 2, 2),
    ]  # fmt: skip
    assert (told["late"], told["epoch"], told["reading_id"]) == (False, 1, "m-1")
    assert all(one == told for one in at_once(8, lambda _: client.post("/v1/flows", body)))
    assert balance(client) == 0
    found = problem(client.ask("POST", "/v1/flows", {**body, "readings": readings[:1]}), 409, "m-1")
    assert found["recorded"]["seq"] == told["seq"]


def test_takes_a_late_reading_into_the_open_epoch(client, url):
    client.post("/v1/epochs/close", {"epoch": 1})
    told = client.post("/v1/flows", {"reading_id": "m", "epoch": 1, "readings": [reading("produce", 1)]})
    assert (told["late"], told["epoch"]) == (True, 2)
    assert verify(url)[-1].payload.read_for == 1


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"actor": "nobody"}, ["readings", 0, "actor"]),
        ({"actor": "grid"}, ["readings", 0, "actor"]),
        ({"resource": "gold"}, ["readings", 0, "resource"]),
        ({"amount": -1}, ["readings", 0, "amount"]),
        ({"amount": 0.0001}, ["readings", 0, "amount"]),
        ({"amount": 10**13}, ["readings", 0, "amount"]),
        ({"kind": "spill"}, ["readings", 0, "kind"]),
    ],
)
def test_refuses_a_reading_that_cannot_be(calm, change, path):
    body = {"reading_id": "m", "epoch": 1, "readings": [{**reading("produce", 1), **change}]}
    assert problem(calm.ask("POST", "/v1/flows", body), 422)["path"] == path
    problem(calm.ask("POST", "/v1/flows", {**body, "readings": [reading("produce", 1)], "epoch": 2}), 422, "epoch 1")
    assert head(calm) == 2


def test_closes_the_expected_epoch_once(client):
    told = at_once(8, lambda _: client.post("/v1/epochs/close", {"epoch": 1}))
    assert sorted(one.pop("already") for one in told) == [False] + [True] * 7
    assert all(one == told[0] for one in told) and client.get("/v1/control")["epoch"] == 2
    problem(client.ask("POST", "/v1/epochs/close", {"epoch": 3}), 409, "epoch 2 is open")
    problem(client.ask("POST", "/v1/epochs/close", {"epoch": 0}), 422)


# --- reads ------------------------------------------------------------------------------------------------------------


def test_shows_the_world_as_it_was(client):
    client.propose(5)
    client.post("/v1/epochs/close", {"epoch": 1})
    client.propose(6)
    at_close = client.get("/v1/world-state", epoch=1)
    assert at_close["epoch"] == 1 and at_close["actors"][0]["balances"]["energy"] == 99995
    assert client.get("/v1/world-state", epoch=0)["actors"][0]["balances"]["energy"] == 100000
    assert balance(client) == 99989
    problem(client.ask("GET", "/v1/world-state", epoch=2), 404, "not closed")
    problem(client.ask("GET", "/v1/world-state", epoch=-1), 422)
    problem(client.ask("GET", "/v1/world-state", epoch="x"), 422)


def every(client, path, **query):
    """All items, page by page."""
    after, found = 0, []
    while after is not None:
        page = client.get(path, after=after, limit=3, **query)
        found += page["items"]
        after = page["next"]
    return found


def test_lists_in_pages_and_by_filters(client):
    made = [client.propose(n + 1, key=("propose", "operate")[n % 2]) for n in range(7)]
    refused = client.propose(60)
    assert [p["seq"] for p in every(client, "/v1/proposals")] == [one["seq"] for one in (*made, refused)]
    assert [p["proposal_id"] for p in every(client, "/v1/proposals", outcome="rejected")] == [refused["proposal_id"]]
    assert len(every(client, "/v1/proposals", proposer="propose")) == 4
    assert every(client, "/v1/proposals", epoch=2) == []
    assert [e["id"] for e in every(client, "/v1/ledger", kind="transfer")] == [one["entries"][0] for one in made]
    assert len(every(client, "/v1/ledger", actor="actor-1", resource="energy", epoch=1)) == 7
    records = every(client, "/v1/journal")
    assert [r["seq"] for r in records] == list(range(1, 11)) and records[0]["kind"] == "genesis"
    assert [r["payload"]["outcome"] for r in every(client, "/v1/journal", kind="proposal")][-1] == "rejected"
    for path in ("/v1/proposals", "/v1/ledger", "/v1/journal", "/v1/outbox"):
        problem(client.ask("GET", path, limit=0), 422)
        problem(client.ask("GET", path, limit=1001), 422)
        problem(client.ask("GET", path, after=-1), 422)
    problem(client.ask("GET", "/v1/ledger?actor=%00"), 422)
    problem(client.ask("GET", "/v1/proposals", outcome="maybe"), 422)
    problem(client.ask("GET", "/v1/ledger/999"), 404)
    problem(client.ask("GET", f"/v1/proposals/{OTHER}"), 404)
    problem(client.ask("GET", f"/v1/proposals/{uuid5('request/operate/none')}"), 404)


def test_lists_outcomes_until_they_are_acknowledged(client):
    made = [client.propose(n + 1) for n in range(4)]
    made.append(good(client.act("/v1/transfers", {"transfers": moving(99)["transfers"]})))
    held = client.propose(45)
    settled = good(client.act(f"/v1/proposals/{held['proposal_id']}/approve", {}))
    made += [held, settled]
    good(client.act("/v1/control", {"action": "pause"}))
    assert every(client, "/v1/outbox") == made
    first, second = made[0]["seq"], made[1]["seq"]
    for _ in range(2):
        assert client.post(f"/v1/outbox/{second}/ack", {"reference": "GRID-2"})["seq"] == second
    assert [one["seq"] for one in every(client, "/v1/outbox")] == [one["seq"] for one in made if one is not made[1]]
    client.post(f"/v1/outbox/{first}/ack", {"reference": "GRID-1"})
    assert every(client, "/v1/outbox") == made[2:]
    problem(client.ask("POST", "/v1/outbox/1/ack", {"reference": "x"}), 404, "no outcome")
    problem(client.ask("POST", "/v1/outbox/999/ack", {"reference": "x"}), 404)
    problem(client.ask("POST", f"/v1/outbox/{first}/ack", {"reference": ""}), 422)


def test_names_a_path_or_a_method_that_is_not(calm):
    problem(calm.ask("GET", "/v1/nothing"), 404)
    assert "GET" in calm.ask("DELETE", "/v1/world-state").headers["allow"]
    problem(calm.ask("DELETE", "/v1/world-state"), 405)


PLANNED: dict[str, dict] = {
    "decided": {"ids": "{00000000-0000-5000-8000-000000000001}", "limit": 67},
    "entry_before": {"seq": 29_990},
    "balances_as_of": {"actors": f"{{{OTHER}}}", "resources": "{energy}", "after": 29_990},
    "moved_between": {"actors": f"{{{OTHER}}}", "after": 29_980, "until": 29_990},
    "outbox_lag": {"most": 10_000},
    "outbox_page": {"after": 0, "limit": 100},
}


@pytest.fixture(scope="module")
def large(server, template):
    """A grid of thirty thousand records, by form alone; all but the last were handed on."""

    def make(url):
        with psycopg.connect(url, autocommit=True) as owner:
            owner.execute("SET search_path TO main")
            owner.execute("INSERT INTO outbox_acks VALUES (29999, 29999, 'x', now())")
            owner.execute(LARGE.replace("generate_series(2,", "generate_series(3,").encode())

    return server.url(server.template("large-app", make, template))


@pytest.mark.parametrize("name", PLANNED)
def test_asks_for_no_more_than_what_is_recent(large, name):
    with psycopg.connect(large) as connection:
        connection.execute("SET search_path TO main")
        plan = connection.execute(f"EXPLAIN {queries.query(name)}".encode(), PLANNED[name]).fetchall()
    text = "\n".join(row[0] for row in plan)
    assert "Seq Scan on journal" not in text and "Seq Scan on ledger" not in text, text


# --- limits, health, logs ---------------------------------------------------------------------------------------------


def test_gives_each_request_an_id(calm):
    assert calm.ask("GET", "/healthz", headers={"X-Request-Id": "my.id-1"}).headers["x-request-id"] == "my.id-1"
    made = calm.ask("GET", "/healthz", headers={"X-Request-Id": "no id"}).headers["x-request-id"]
    assert len(made) == 32
    assert calm.ask("GET", "/healthz").headers["x-request-id"] != made


def test_logs_one_line_for_a_request_and_never_a_key_or_a_body(client, caplog):
    caplog.set_level(logging.DEBUG)
    secret = KEYS["operate"].rpartition("_")[2]
    client.propose(1)
    client.ask("GET", "/v1/ledger", actor="actor-7", headers={"X-Request-Id": "mine"})
    client.ask("GET", f"/v1/proposals/{OTHER}")
    client.ask("GET", "/v1/world-state", key=False)
    lines = []
    within = time.monotonic() + 10  # an answer may arrive before its line is written
    while len(lines) < 4 and time.monotonic() < within:
        lines = [json.loads(r.getMessage()) for r in caplog.records if r.name == "gridgov.access"]
    assert [(one["method"], one["path"], one["status"], one["key"]) for one in lines] == [
        ("POST", "/v1/proposals", 200, "operate"),
        ("GET", "/v1/ledger", 200, "operate"),
        ("GET", "/v1/proposals/{proposal_id}", 404, "operate"),
        ("GET", "/v1/world-state", 401, None),
    ]
    assert lines[1]["request_id"] == "mine" and lines[1]["ms"] >= 0
    written = "\n".join(f"{r.getMessage()}{r.exc_text or ''}" for r in caplog.records if r.name.startswith("gridgov"))
    assert secret not in written and "because" not in written and "actor-7" not in written


def test_counts_what_it_does(client):
    client.propose(1)
    client.propose(60)
    client.propose(1, id_=OTHER)
    client.propose(1, id_=OTHER)
    text = client.ask("GET", "/metrics", key=False).text
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert found['gridgov_outcomes_total{outcome="executed"}'] == "2.0"
    assert found['gridgov_outcomes_total{outcome="rejected"}'] == "1.0"
    assert (found["gridgov_ledger_height"], found["gridgov_journal_height"]) == ("18.0", "5.0")
    assert found["gridgov_outbox_lag"] == "3.0" and 0 <= float(found["gridgov_loop_age_seconds"]) < 60
    assert float(found["gridgov_batch_size_count"]) >= 3 and float(found["gridgov_commit_seconds_count"]) >= 3
    assert found['gridgov_requests_total{method="POST",route="/v1/proposals",status="200"}'] == "4.0"
    assert 'gridgov_request_seconds_count{route="/v1/proposals"}' in found


def test_knows_how_old_the_last_outcome_is(url):
    now = [2_000_000_000_000_000]
    with running(url, clock=lambda: now[0]) as client:
        problem(client.ask("GET", "/healthz/loop"), 503, "no proposal")
        seq = client.propose()["seq"]
        now[0] += 100 * 10**6
        told = client.get("/healthz/loop", max_age="2m")
        assert told == {"status": "ok", "age_seconds": 100.0, "last_outcome": seq}
        found = problem(client.ask("GET", "/healthz/loop", max_age="90s", key=False), 503, "100 s ago")
        assert found["age_seconds"] == 100.0 and found["last_outcome"] == seq
        assert client.get("/healthz/loop")["status"] == "ok"
        problem(client.ask("GET", "/healthz/loop", max_age="soon"), 422)


def test_says_what_a_grid_without_a_genesis_needs(server):
    with server.database(server.template("migrated-app", lambda url: migrate(url, "main"))) as url:
        made = Keys(url, "main")
        keys = {"Authorization": f"Bearer {made.create('op', ['operate'], 1)}"}
        made.close()
        with running(url) as client:
            for method, path, body in (
                ("GET", "/v1/world-state", None),
                ("GET", "/v1/context", None),
                ("GET", "/v1/outbox", None),
                ("GET", "/v1/control", None),
                ("POST", "/v1/proposals", {"proposal_id": OTHER, "proposal": moving()}),
                ("POST", "/v1/epochs/close", {"epoch": 1}),
                ("POST", "/v1/control", {"action": "pause", "reason": "x"}),
            ):
                told = client.ask(method, path, body, key=False, headers={**keys, "Idempotency-Key": "x"})
                problem(told, 503, "has no genesis; run `gridgov up` or `gridgov migrate --scenario FILE`")
                assert told.headers["retry-after"]
            problem(client.ask("GET", "/readyz", key=False), 503, "genesis")
            assert client.ask("GET", "/metrics", key=False).status_code == 200


def test_says_what_a_database_without_a_grid_needs(database):
    with running(database) as client:
        problem(client.ask("GET", "/readyz", key=False), 503, "gridgov migrate")
        assert client.ask("GET", "/healthz", key=False).status_code == 200
        problem(client.ask("GET", "/v1/world-state"), 503, "gridgov migrate")


def test_is_not_ready_without_its_database():
    with running("postgresql://nobody@127.0.0.1:1/none") as client:
        told = problem(client.ask("GET", "/readyz", key=False), 503, "database")
        assert "127.0.0.1" not in json.dumps(told)
        assert client.ask("GET", "/readyz", key=False).headers["retry-after"]
        assert client.ask("GET", "/healthz", key=False).status_code == 200
        assert client.ask("GET", "/metrics", key=False).status_code == 200
        problem(client.ask("GET", "/healthz/loop", key=False), 503)
        problem(client.ask("GET", "/v1/world-state"), 503)


@contextmanager
def lock(url):
    """Holds the grid's lock, so that nothing can be written."""
    with psycopg.connect(url) as connection:
        connection.execute("SET search_path TO main")
        connection.execute("SELECT pg_advisory_xact_lock('journal'::regclass::oid::bigint)")
        yield


def test_refuses_more_than_it_can_answer_and_stays_healthy(url):
    with running(url, max_in_flight=4) as client, ThreadPoolExecutor(8) as pool:
        with lock(url):
            waiting = [pool.submit(client.propose, 1) for _ in range(4)]
            while client.app.state.desk.in_flight < 4:
                time.sleep(0.01)
            refused = client.ask("GET", "/v1/world-state")
            problem(refused, 503, "4 requests")
            assert refused.headers["retry-after"] == "2"
            assert client.ask("GET", "/healthz", key=False).status_code == 200
            assert client.ask("GET", "/readyz", key=False).status_code == 200
            assert client.ask("GET", "/metrics", key=False).status_code == 200
        assert [one.result()["outcome"] for one in waiting] == ["executed"] * 4
        assert balance(client) == 99996


def test_gives_up_waiting_in_time_and_answers_on_retry(url):
    with running(url, deadline_s=0.2) as client:
        with lock(url):
            body = {"proposal_id": OTHER, "proposal": moving(3)}
            told = client.ask("POST", "/v1/proposals", body)
            problem(told, 503, "ask again under the same id")
        while client.ask("GET", f"/v1/proposals/{OTHER}").status_code == 404:
            time.sleep(0.02)
        assert client.propose(3, id_=OTHER)["outcome"] == "executed" and balance(client) == 99997


def test_goes_on_when_its_sessions_were_cut(client, url):
    client.propose(1)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert client.propose(1)["outcome"] == "executed"
    assert balance(client) == 99998


def test_waits_for_a_database_that_went_away(server, url):
    name = conninfo_to_dict(url)["dbname"]
    with running(url, deadline_s=2) as client:
        client.propose(1)
        server.execute("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false", name)
        server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        told = problem(client.ask("GET", "/readyz", key=False), 503, "database")
        assert name not in told["detail"]
        problem(client.ask("GET", "/v1/world-state"), 503)
        problem(client.ask("GET", "/healthz/loop", key=False), 503)
        assert client.ask("GET", "/healthz", key=False).status_code == 200
        assert client.ask("GET", "/metrics", key=False).status_code == 200
        problem(client.ask("POST", "/v1/proposals", {"proposal_id": OTHER, "proposal": moving(2)}), 503, "same id")
        server.execute("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true", name)
        while client.ask("GET", f"/v1/proposals/{OTHER}").status_code != 200:
            time.sleep(0.02)
        assert client.propose(2, id_=OTHER)["outcome"] == "executed" and balance(client) == 99997
        assert client.ask("GET", "/readyz", key=False).status_code == 200


def test_finishes_what_it_took_on_when_it_shuts_down(url):
    app = api.create(url, "main", "http://grid.example")
    with ThreadPoolExecutor(8) as pool:
        with served(app) as base:
            client = Client(base)
            with lock(url):
                waiting = [pool.submit(client.propose, 1) for _ in range(8)]
                while app.state.desk.in_flight < 8:
                    time.sleep(0.01)
        assert [one.result()["outcome"] for one in waiting] == ["executed"] * 8
    client.http.close()
    assert sum(record.kind == "proposal" for record in verify(url)) == 8


def test_waits_on_as_many_threads_as_it_takes_requests(url):
    with running(url) as client, ThreadPoolExecutor(60) as pool:
        with lock(url):
            waiting = [pool.submit(client.propose, 1) for _ in range(60)]
            while client.app.state.desk.in_flight < 60:
                time.sleep(0.01)
            assert balance(client) == 100000
        assert [one.result()["outcome"] for one in waiting] == ["executed"] * 60


SERVING = """
import sys
from gridgov.api import serve
serve(sys.argv[1], "main", "127.0.0.1", 0, "http://grid.example", ready=lambda base: print(base, flush=True))
print("over", flush=True)
"""


def test_serves_until_it_is_told_to_stop(url):
    command = [sys.executable, "-c", SERVING, url]
    pipes: dict = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process, ThreadPoolExecutor(1) as pool:
        client = Client(process.stdout.readline().strip())
        response = client.ask("GET", "/readyz", key=False)
        assert good(response)["status"] == "ready" and "server" not in response.headers
        with lock(url):
            waiting = pool.submit(client.propose, 1)
            with psycopg.connect(url, autocommit=True) as watch:
                while not watch.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
                    time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        assert waiting.result()["outcome"] == "executed"
        client.http.close()
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "over\n")
    lines = [json.loads(line) for line in err.splitlines()]
    assert [one["path"] for one in lines if "path" in one] == ["/readyz", "/v1/proposals"]
    assert all(datetime.fromisoformat(one["time"]).utcoffset() == timedelta(0) for one in lines)
    assert KEYS["operate"].rpartition("_")[2] not in err


def test_starts_without_its_database_and_logs_nothing_but_json():
    command = [sys.executable, "-c", SERVING, "postgresql://nobody:hidden@127.0.0.1:1/nothing"]
    pipes: dict = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        client = Client(process.stdout.readline().strip())
        problem(client.ask("GET", "/readyz", key=False), 503, "GRIDGOV_DATABASE_URL")
        client.http.close()
        process.terminate()
        _, err = process.communicate(timeout=30)
    said = [one["message"] for one in map(json.loads, err.splitlines()) if one.get("level") == "WARNING"]
    assert len(said) == 1 and said[0].startswith("starting without the grid") and "hidden" not in err


def test_serves_no_grid_that_is_not_there(database):
    with pytest.raises(BadInput, match="gridgov migrate"):
        api.serve(database, "main", "127.0.0.1", 0, "http://grid.example")


def test_two_apps_share_one_order(client, url):
    with running(url) as other:
        told = at_once(16, lambda n: (client, other)[n % 2].propose(1, id_=OTHER if n < 8 else None))
        assert len({one["seq"] for one in told[:8]}) == 1
        assert balance(client) == balance(other) == 99991
        context = client.get("/v1/context")
        body = {"proposal_id": context["proposal_id"], "request_key": context["request_key"], "model_response": GEMINI}
        told = other.post("/v1/proposals", {**body, "world_state_digest": context["world_state_digest"]})
        assert (told["outcome"], told["proposer"]) == ("executed", "planner")
    verify(url)
