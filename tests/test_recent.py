"""What the app answers to somebody who looks back: newest first, filtered, page by page, at any size."""

import uuid

import pytest

from gridgov import pages
from tests.apps import fill, good, moving, running

pytest_plugins = ["tests.databases"]


@pytest.fixture(scope="module")
def client(server):
    with server.database(server.template("app", fill)) as url, running(url) as client:
        for number in range(1, 8):
            client.propose(number, giver=f"actor-{number}", taker="actor-8")
        client.propose(60)  # above max_transfer
        client.propose(45)  # held
        good(client.ask("POST", "/v1/epochs/close", {"epoch": 1}))
        client.propose(2)
        client.act("/v1/control", {"action": "pause", "reason": "a Stromausfall"})
        client.propose(3)
        yield client


def walk(client, path, limit=2, **query):
    """All items of all pages."""
    items, before = [], 0
    while True:
        page = client.get(path, before=before, limit=limit, **query)
        items += page["items"]
        if page["next"] is None:
            return items
        before = page["next"]


@pytest.mark.parametrize(("path", "cursor"), [("proposals", "seq"), ("ledger", "id"), ("journal", "seq")])
def test_pages_back_hold_everything_once_newest_first(client, path, cursor):
    forth = client.get(f"/v1/{path}", limit=1000)["items"]
    back = walk(client, f"/v1/recent/{path}")
    assert [item[cursor] for item in back] == [item[cursor] for item in forth][::-1]
    assert back == forth[::-1]


def test_filters_find_what_they_say(client):
    def proposals(**query):
        return walk(client, "/v1/recent/proposals", **query)

    assert [item["outcome"] for item in proposals(outcome="held")] == ["held"]
    assert [item["outcome"] for item in proposals(code="max_transfer")] == ["rejected"]
    later = proposals(epoch=2)
    assert [[violation["code"] for violation in item["violations"]] for item in later] == [["paused"], []]
    assert {item["epoch"] for item in proposals(epoch=1)} == {1}
    assert len(proposals(text="ACTOR-7")) == 1
    assert proposals(text="' OR true --") == []
    assert {item["actor_from"] for item in walk(client, "/v1/recent/ledger", actor="actor-7", kind="transfer")} == {
        "actor-7"
    }
    assert [item["kind"] for item in walk(client, "/v1/recent/journal", text="stromausfall")] == ["control"]
    assert [item["kind"] for item in walk(client, "/v1/recent/journal", kind="close")] == ["close"]


def test_times_bound_what_is_found(client):
    held = walk(client, "/v1/recent/proposals", outcome="held")[0]
    since = walk(client, "/v1/recent/proposals", since=held["at"])
    until = walk(client, "/v1/recent/proposals", until=held["at"])
    assert since[-1]["proposal_id"] == held["proposal_id"]
    assert len(since) + len(until) == len(walk(client, "/v1/recent/proposals"))
    entries = walk(client, "/v1/recent/ledger")
    later = walk(client, "/v1/recent/ledger", since=held["at"])
    assert later == [entry for entry in entries if entry["executed_at"] >= held["at"]]
    assert client.ask("GET", "/v1/recent/ledger", since="2026-13-01T00:00:00Z").status_code == 422
    assert client.ask("GET", "/v1/recent/ledger", sinc="2026-11-01T00:00:00Z").status_code == 422


def test_page_ends_after_so_many_rows_and_says_how_far_it_looked(client, monkeypatch):
    monkeypatch.setitem(pages.LOOKED_AT, "proposals", 3)
    head = client.get("/v1/control")["seq"]
    page = client.get("/v1/recent/proposals", outcome="noop")
    assert page == {"items": [], "next": head - 2, "looked_back_to": head - 2}
    assert walk(client, "/v1/recent/proposals", outcome="noop") == []
    assert len(walk(client, "/v1/recent/proposals", code="max_transfer")) == 1


def test_record_is_found_by_the_request_of_its_link(client):
    done = client.act("/v1/transfers", {"transfers": moving(10**9)["transfers"]}, once="link").json()
    assert done["outcome"] == "rejected"
    request = done["url"].partition("/journal?request=")[2]
    assert client.get(f"/v1/requests/{request}")["seq"] == done["seq"]
    assert client.ask("GET", f"/v1/requests/{uuid.uuid4()}").status_code == 404
