"""The digest of a day: what it counts, what it shows, and what waits with it."""

import json

import pytest

from gridgov.daily import digest_json
from sim.stubs.replies import MODEL, body, said
from tests import apps

pytest_plugins = ["tests.databases"]

NOON = 1_795_521_600_000_000
"""2026-11-24T12:00:00Z in microseconds."""

DAY = 86_400_000_000


class Clock:
    def __init__(self):
        self.now = NOON

    def __call__(self):
        self.now += 1_000_000
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def client(server, clock):
    with server.database(server.template("app", apps.fill)) as url, apps.running(url, clock=clock) as client:
        yield client


def test_day_is_told_with_what_needs_a_look_first(client):
    seqs = [client.propose(amount)["seq"] for amount in (5, 60, 45, 6)]
    [digest] = client.get("/v1/digests")["items"]
    assert client.get("/v1/digests/2026-11-24") == digest
    assert (digest["day"], digest["seqs"]) == ("2026-11-24", seqs)
    assert digest["counts"] == {"executed": 2, "rejected": 1, "held": 1}
    linear = digest["linear"]
    assert (linear["title"], linear["priority"]) == ("2026-11-24: 4 outcomes, 2 need a look", 2)
    look, others = linear["description"].split("### The others")
    assert "Rejected (max_transfer)" in look and "Waits for approval" in look and "Executed" not in look
    assert others.count("Executed") == 2


def test_each_day_has_its_own_digest_and_issue(client, clock):
    client.propose(1)
    clock.now = NOON + DAY
    client.propose(60)
    clock.now = NOON + 3 * DAY
    client.propose(2)
    first = client.get("/v1/digests", limit=2)
    assert [one["day"] for one in first["items"]] == ["2026-11-24", "2026-11-25"]
    assert first["next"] == "2026-11-25"
    rest = client.get("/v1/digests", after=first["next"])
    assert ([one["day"] for one in rest["items"]], rest["next"]) == (["2026-11-27"], None)
    listed = [*first["items"], *rest["items"]]
    assert len({one["linear"]["issue_id"] for one in listed}) == 3
    assert [one["counts"] for one in listed] == [{"executed": 1}, {"rejected": 1}, {"executed": 1}]


def test_midnight_belongs_to_the_day_that_begins(client, clock):
    clock.now = NOON + DAY // 2 - 1_000_001
    client.propose(1)
    clock.now = NOON + DAY // 2 - 1_000_000
    client.propose(2)
    assert [one["day"] for one in client.get("/v1/digests")["items"]] == ["2026-11-24", "2026-11-25"]


def test_day_whose_outcomes_are_acknowledged_waits_no_more_and_can_still_be_read(client):
    seq = client.propose(1)["seq"]
    before = client.get("/v1/digests/2026-11-24")
    client.post(f"/v1/outbox/{seq}/ack", {"reference": "GRID-1"})
    assert client.get("/v1/digests") == {"items": [], "next": None}
    assert client.get("/v1/digests/2026-11-24") == before | {"seqs": []}


def test_long_day_is_cut_and_says_so(client):
    for _ in range(60):
        client.propose(1)
    told = client.get("/v1/digests/2026-11-24")["linear"]["description"]
    assert told.count("Executed") == 50
    assert "... and 10 more" in told


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/digests/2026-11-23", 404),
        ("/v1/digests/2026-13-01", 422),
        ("/v1/digests/9999-12-31", 422),
        ("/v1/digests/today", 422),
        ("/v1/digests?after=2026-02-30", 422),
        ("/v1/digests?after=x", 422),
        ("/v1/digests?limit=0", 422),
    ],
)
def test_what_is_no_day_is_refused(client, path, status):
    assert client.ask("GET", path).status_code == status


@pytest.mark.parametrize("key", ["read", "mandated"])
def test_key_that_hands_nothing_on_may_not_read_it(client, key):
    for path in ("/v1/digests", "/v1/digests/2026-11-24"):
        assert client.ask("GET", path, key=key).status_code == 403


def test_one_outcome_is_told_in_the_singular():
    assert digest_json("2026-11-24", {"noop": 1}, [], [], "http://x")["linear"]["title"] == (
        "2026-11-24: 1 outcome, none needs a look"
    )


def test_synthetic_reply_is_called_so_wherever_its_outcome_is_told(client):
    context = client.get("/v1/context")
    told = client.post("/v1/proposals", {"proposal_id": context["proposal_id"], "request_key": context["request_key"],
                                         "model_response": json.loads(body(said("45")))})  # fmt: skip
    assert (told["outcome"], told["reply"]) == ("held", {"model": MODEL, "origin": "synthetic"})
    assert f"The reply is synthetic: `{MODEL}` made it" in told["linear"]["description"]
    [waits] = client.get("/v1/outbox")["items"]
    assert (waits["reply"], waits["linear"]) == (told["reply"], told["linear"])
    path = f"/v1/proposals/{told['proposal_id']}"
    client.propose(1)
    settled = client.act(f"{path}/approve", {}).json()
    assert settled["reply"] == told["reply"]
    assert settled["linear"] == client.get(path)["linear"] == client.get("/v1/outbox")["items"][-1]["linear"]
    assert settled["linear"]["title"].endswith("(epoch 1, approved)")
    assert "The reply is synthetic" in settled["linear"]["description"]
    by_hand = client.get("/v1/outbox")["items"][1]
    assert "reply" not in by_hand and "synthetic" not in by_hand["linear"]["description"]
    [digest] = client.get("/v1/digests")["items"]
    assert "Replies that are synthetic, which no model ever gave: 1." in digest["linear"]["description"]
