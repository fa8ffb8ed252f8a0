"""What pages ask of the app: a summary, statements, balances over time, prompts, previews and stories."""

import csv
import io
import json
import re
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import NamedTuple

import psycopg
import pytest

from gridgov import overview, postgres, queries, standing, summary, views
from gridgov.engine import Engine
from gridgov.errors import Unreachable
from gridgov.explain import explain
from gridgov.gemini import Price, Prices
from gridgov.journal import Decision, Genesis, decode
from gridgov.model import Actor, Constraints, Limit, Resource
from gridgov.postgres import PostgresLedger, migrate
from gridgov.rejudge import rejudge
from gridgov.source import open_source
from gridgov.statement import period, statements_of
from gridgov.whatif import Terms
from gridgov.wire import constraints_from_json
from tests.apps import GENESIS, Client, fill, good, moving, running
from tests.test_api import problem
from tests.test_postgres import LARGE, session

pytest_plugins = ["tests.databases"]

RESOURCES = {resource.name: resource for resource in GENESIS.resources}
HOSTILE = "=cmd|'/c calc'!A1 <b>**x**</b>"
DAY = datetime(2026, 11, 20, 12, tzinfo=UTC)
"""When it is now in these tests."""


class Clock:
    """A clock that is set by hand; it gives microseconds since 1970."""

    def __init__(self, at):
        self.at = at

    def __call__(self):
        return round(self.at.timestamp()) * 1_000_000


@pytest.fixture(scope="module")
def template(server):
    return server.template("app", fill)


@pytest.fixture
def url(server, template):
    with server.database(template) as url:
        yield url


@pytest.fixture
def clock():
    return Clock(DAY)


@pytest.fixture
def client(url, clock):
    with running(url, clock=clock) as client:
        yield client


def gemini(amount=2, giver="actor-1", taker="actor-2", tokens=7):
    """A model's reply that moves so much."""
    said = {"content": {"parts": [{"text": json.dumps(moving(amount, giver, taker))}]}, "finishReason": "STOP"}
    return {"candidates": [said], "modelVersion": "gemini-3.8-flash", "usageMetadata": {"promptTokenCount": tokens}}


def answered(client, reply, role="active", **more):
    """Answers the open round with a model's reply."""
    context = client.get("/v1/context", role=role, extra=True)
    known = {key: context[key] for key in ("proposal_id", "request_key", "world_state_digest")}
    return client.post("/v1/proposals", {**known, "model_response": reply, **more})


def read(client, *readings, epoch=1):
    """Sends meter readings: (actor, kind, kWh)."""
    made = [{"actor": a, "resource": "energy", "kind": kind, "amount": n} for a, kind, n in readings]
    return client.post("/v1/flows", {"reading_id": str(uuid.uuid4()), "epoch": epoch, "readings": made})


def play(client, clock):
    """A month, a day and a morning; what it comes to is written down in the tests below."""
    clock.at = DAY - timedelta(days=25)  # 26 October
    client.propose(30, "actor-1", "actor-2")
    read(client, ("actor-1", "produce", 5), ("actor-2", "consume", 4))
    clock.at = DAY - timedelta(hours=40)
    client.propose(60)  # above max_transfer
    client.propose(10, "actor-2", "actor-1")
    clock.at = DAY - timedelta(hours=5)
    client.post("/v1/epochs/close", {"epoch": 1})
    read(client, ("actor-1", "produce", 7.5), ("actor-1", "need", 3), ("actor-1", "consume", 3), epoch=2)
    first = client.propose(12.5, "actor-1", "actor-2")
    client.propose(1, "actor-1", "actor-3")
    client.propose(60)
    client.propose(70, "actor-9", "actor-1")
    held = client.propose(45, "actor-4", "actor-5")
    other = client.propose(41, "actor-4", "actor-6")
    good(client.act(f"/v1/proposals/{other['proposal_id']}/approve", {}))
    clock.at = DAY - timedelta(hours=1)
    good(client.act(f"/v1/ledger/{first['entries'][0]}/reverse", {}))
    good(client.act("/v1/transfers", {"transfers": moving(99, "actor-1", "actor-2")["transfers"]}))
    clock.at = DAY
    return {"first": first, "held": held, "approved": other}


class Played(NamedTuple):
    client: Client
    done: dict
    now: int


@pytest.fixture(scope="module")
def played(server, template):
    """A grid with what `play` does, for tests that change nothing."""
    clock = Clock(DAY)
    with server.database(template) as url, running(url, clock=clock) as client:
        yield Played(client, play(client, clock), clock())


# --- who asks ---------------------------------------------------------------------------------------------------------


def test_says_whose_key_it_is_and_what_it_may_do(client):
    assert client.get("/v1/me") == {
        "name": "operate", "scopes": ["read", "propose", "operate"], "mandate": None, "grid": "main"
    }  # fmt: skip
    own = good(client.ask("GET", "/v1/me", key="mandated"))
    assert (own["scopes"], own["mandate"]) == (["read", "propose"], ["actor-1"])
    problem(client.ask("GET", "/v1/me", key=False), 401)


@pytest.mark.parametrize(
    "path",
    ["/v1/me", "/v1/summary", "/v1/prompts", "/v1/actors", "/v1/actors/actor-1/statement",
     "/v1/actors/actor-1/balances?resource=energy"],
)  # fmt: skip
def test_a_key_that_may_read_is_enough_and_needed(client, path):
    good(client.ask("GET", path, key="read"))
    problem(client.ask("GET", path, key=False), 401)


# --- what is documented -----------------------------------------------------------------------------------------------


def shape(value, path="$"):
    """The keys of a document, all the way down; of a list, those of its first item."""
    if isinstance(value, dict):
        found = {f"{path}.{key}" for key in value}
        return found.union(*(shape(own, f"{path}.{key}") for key, own in value.items()))
    return shape(value[0], f"{path}[]") if isinstance(value, list) and value else set()


NAMED = re.compile(r"\.(constraints|by_code|sums|in|out|usage|interaction|world_state)\..*")
"""What these hold depends on the grid."""


def test_the_examples_in_the_documentation_have_the_form_of_what_is_answered(client, clock):
    good(client.act("/v1/activations", {"prompt": "propose_transfer", "model": "gemini-next", "role": "shadow"}))
    good(client.act("/v1/activations", {"prompt": "propose_transfer", "model": "gemini-3.8-flash"}))
    done = play(client, clock)
    asked = answered(client, gemini(2), latency_ms=9)
    answered(client, gemini(2), "shadow", latency_ms=9)
    good(client.act(f"/v1/proposals/{asked['proposal_id']}/reverse", {}))
    client.post(f"/v1/outbox/{asked['seq']}/ack", {"reference": "GRID-1"})
    preview = good(tried(client, {"max_transfer": 5}))["preview"]
    good(client.act("/v1/control", {"action": "pause"}))
    for model, path in (
        (views.MeAnswer, "/v1/me"), (views.SummaryAnswer, "/v1/summary"), (views.PromptsAnswer, "/v1/prompts"),
        (views.StatementAnswer, "/v1/actors/actor-1/statement"),
        (views.BalancesAnswer, "/v1/actors/actor-1/balances?resource=energy"),
        (views.StoryAnswer, f"/v1/proposals/{asked['proposal_id']}/story"),
    ):  # fmt: skip
        (example,) = model.model_json_schema()["examples"]
        model.model_validate(example)
        told = client.get(path) if "?" not in path else good(client.ask("GET", path))
        model.model_validate(told)
        assert keys(told) == keys(example), path
    assert keys(preview) == keys(views.PREVIEW) and done


def keys(document):
    return {NAMED.sub(r".\1", path) for path in shape(document)} - {"$.before"}


# --- the summary ------------------------------------------------------------------------------------------------------


def test_summary_of_a_day_is_what_was_done_in_it(played):
    client = played.client
    done = played.done
    told = client.get("/v1/summary")
    assert told["as_of"] == "2026-11-20T12:00:00Z" and told["grid"] == "main" and told["epoch"] == 2
    window = told["window"]
    assert window["outcomes"] == {"executed": 3, "rejected": 2, "held": 1, "noop": 0, "malformed": 0, "unavailable": 0}
    assert (window["total"], window["overrides"], window["reversals"], window["complete"]) == (6, 1, 1, True)
    assert (window["since"], window["until"]) == ("2026-11-19T12:00:00Z", "2026-11-20T12:00:00Z")
    assert window["entries"] == 2 + 2 + 1 + 2  # flows, proposals, the approved one, reversal and override
    before = told["before"]
    assert (before["total"], before["outcomes"]["executed"], before["outcomes"]["rejected"]) == (2, 1, 1)
    assert (before["since"], before["until"]) == ("2026-11-18T12:00:00Z", "2026-11-19T12:00:00Z")
    assert told["refused"] == {"total": 2, "looked_at": 2, "by_code": {"max_transfer": 1, "unknown_actor": 1}}
    (held,) = told["held"]["items"]
    assert told["held"]["count"] == 1 and held["proposal_id"] == done["held"]["proposal_id"]
    assert (held["age_seconds"], held["epoch"], held["held_until"], held["epochs_left"]) == (18_000, 2, 26, 24)
    assert held["transfers"] == moving(45, "actor-4", "actor-5")["transfers"] and held["reasoning"] == "because"
    assert told["in_a_row"] == {"refused": 0, "unavailable": 0}
    assert told["last_outcome"]["proposal_id"] == done["approved"]["proposal_id"]
    assert told["last_outcome"]["age_seconds"] == 18_000
    control = client.get("/v1/control")
    assert told["head"]["seq"] == control["seq"] and told["head"]["digest"] == control["digest"]
    assert told["entries"] == control["entries"] and told["paused"] is None


def test_a_hold_refused_later_counts_by_when_it_was_proposed_in_outcomes_and_in_rules(client, clock):
    clock.at = DAY - timedelta(hours=30)
    held = client.propose(45)["proposal_id"]
    clock.at = DAY - timedelta(hours=1)
    good(client.act(f"/v1/proposals/{held}/reject", {}))
    clock.at = DAY
    for hours, count, codes in ((24, 0, {}), (48, 1, {"hold_rejected": 1})):
        told = client.get("/v1/summary", hours=hours)
        assert told["window"]["outcomes"]["rejected"] == count
        assert told["refused"] == {"total": count, "looked_at": count, "by_code": codes}


def test_summary_says_what_there_is_and_what_changed(played):
    client = played.client
    told = client.get("/v1/summary")
    assert told["conservation"] == {"ok": True, "sums": {"energy": 0, "credits": 0}}
    energy, credits = told["resources"]
    assert {key: energy[key] for key in ("resource", "unit", "scale", "actors")} == {
        "resource": "energy", "unit": "kWh", "scale": 3, "actors": 8
    }  # fmt: skip
    assert (energy["total"], energy["boundary"]) == (800_005.5, -800_005.5)
    assert (energy["change"], energy["reserved"], energy["transferred"]) == (4.5, 45, 54.5)
    assert (credits["change"], credits["transferred"]) == (0, 0)
    changes = {one["actor"]: (one["before"], one["after"], one["change"]) for one in told["changes"]}
    assert changes == {
        "actor-1": (99_985, 99_889.5, -95.5), "actor-2": (100_016, 100_115, 99), "actor-3": (100_000, 100_001, 1),
        "actor-4": (100_000, 99_959, -41), "actor-6": (100_000, 100_041, 41),
    }  # fmt: skip
    assert [one["actor"] for one in told["changes"]] == ["actor-2", "actor-1", "actor-4", "actor-6", "actor-3"]


def test_summary_says_what_is_in_force_since_when_and_why(client, clock):
    told = client.get("/v1/summary")
    assert told["constraints"]["constraints"] == client.get("/v1/constraints")["constraints"]
    assert (told["constraints"]["seq"], told["constraints"]["operator"]) == (1, "")
    active = told["prompts"]["active"]
    assert (active["prompt"], active["model"], active["default"], active["since"]) == (
        "propose_transfer", "gemini-3.8-flash", True, None
    )  # fmt: skip
    assert told["prompts"]["shadow"] is None
    clock.at += timedelta(minutes=1)
    good(client.act("/v1/constraints", {"constraints": {"max_transfer": 7}, "reason": HOSTILE}, method="PUT"))
    made = good(client.act("/v1/activations", {"prompt": "propose_transfer", "model": "gemini-next"}))
    good(client.act("/v1/activations", {"prompt": "propose_transfer", "model": "other", "role": "shadow"}))
    told = client.get("/v1/summary")
    assert (
        told["constraints"]["constraints"] == {"max_transfer": 7, "min_balance": 0} and told["constraints"]["seq"] > 1
    )
    assert (told["constraints"]["operator"], told["constraints"]["reason"]) == ("operate", HOSTILE)
    assert told["constraints"]["at"] == "2026-11-20T12:01:00Z"
    active, shadow = told["prompts"]["active"], told["prompts"]["shadow"]
    assert (active["model"], active["seq"], active["prompt_digest"], active["default"]) == (
        "gemini-next", made["seq"], made["prompt_digest"], False
    )  # fmt: skip
    assert shadow["model"] == "other" and active["since"] == shadow["since"] == "2026-11-20T12:01:00Z"
    for role in ("active", "shadow"):
        good(client.act("/v1/activations", {"prompt": "propose_transfer", "model": "", "role": role}))
    told = client.get("/v1/summary")["prompts"]
    assert told["active"]["default"] is True and told["shadow"] is None


def test_summary_says_since_when_it_is_paused_by_whom_and_why(client, clock):
    first = good(client.act("/v1/control", {"action": "pause", "reason": "storm"}))
    clock.at += timedelta(minutes=5)
    good(client.act("/v1/control", {"action": "pause", "reason": "again"}))
    told = client.get("/v1/summary")["paused"]
    assert told == {"since": "2026-11-20T12:00:00Z", "seq": first["seq"], "operator": "operate", "reason": "storm"}
    client.propose(1)
    assert client.get("/v1/summary")["in_a_row"]["refused"] == 1
    good(client.act("/v1/control", {"action": "resume"}))
    assert client.get("/v1/summary")["paused"] is None


def test_summary_counts_what_waits_to_be_handed_on_and_what_is_unavailable(client, clock):
    assert client.get("/v1/summary")["outbox"] == {"lag": 0, "capped": False, "oldest": None}
    assert client.get("/v1/summary")["last_outcome"] is None
    first = client.propose(1)
    clock.at += timedelta(minutes=2)
    for _ in range(2):
        context = client.get("/v1/context", extra=True)
        client.post("/v1/proposals", {"proposal_id": context["proposal_id"], "unavailable": {"kind": "quota"}})
    told = client.get("/v1/summary")
    assert told["outbox"]["lag"] == 3
    assert told["outbox"]["oldest"] == {"seq": first["seq"], "at": "2026-11-20T12:00:00Z", "age_seconds": 120}
    assert told["in_a_row"] == {"refused": 0, "unavailable": 2} and told["last_outcome"]["outcome"] == "unavailable"
    client.post(f"/v1/outbox/{first['seq']}/ack", {"reference": "GRID-1"})
    told = client.get("/v1/summary")["outbox"]
    assert told["lag"] == 2 and told["oldest"]["seq"] == first["seq"] + 1


def test_summary_counts_what_the_journal_has_whatever_the_window(played):
    client = played.client
    records = [decode(row["body"], b"") for row in client.get("/v1/journal", limit=1000)["items"]]
    now = played.now
    for hours in (1, 5, 16, 17, 24, 39, 40, 41, 200, 744):
        told = client.get("/v1/summary", hours=hours)
        since = now - hours * 3_600_000_000
        inside = [r for r in records if r.at >= since]
        proposals = [r for r in inside if type(r.payload) is Decision]
        assert (told["window"]["records"], told["window"]["total"]) == (len(inside), len(proposals)), hours
        points = told["series"]["points"]
        assert 2 <= len(points) <= 200 and told["window"]["complete"]
        steps = [datetime.fromisoformat(point["at"]).timestamp() for point in points]
        assert {b - a for a, b in pairwise(steps)} == {told["series"]["step_seconds"]}
        summed = Counter()
        for point in points:
            summed.update({key: count for key, count in point.items() if key != "at"})
        assert summed == told["window"]["outcomes"]
    for wrong in (0, 745, "x"):
        problem(client.ask("GET", "/v1/summary", hours=wrong), 422)


def test_summary_of_more_than_it_looks_at_says_from_when_on_it_is(played, monkeypatch):
    client = played.client
    monkeypatch.setattr(summary, "RECORDS", 3)
    monkeypatch.setattr(summary, "REFUSALS", 1)
    told = client.get("/v1/summary", hours=744)
    assert (told["window"]["complete"], told["window"]["records"], told["before"]) == (False, 3, None)
    assert told["window"]["since"] == "2026-11-20T07:00:00Z" and told["window"]["overrides"] == 1
    monkeypatch.setattr(summary, "RECORDS", 10_000)
    told = client.get("/v1/summary")
    assert told["refused"] == {"total": 2, "looked_at": 1, "by_code": {"unknown_actor": 1}}


# --- an actor ---------------------------------------------------------------------------------------------------------


def test_actors_are_listed_with_what_they_have_and_what_is_reserved(client):
    client.propose(45, "actor-4", "actor-5")
    client.propose(0.125, "actor-4", "actor-5")
    told = client.get("/v1/actors")
    assert told["resources"][0] == {"name": "energy", "unit": "kWh", "scale": 3}
    by_id = {one["id"]: one for one in told["items"]}
    assert by_id["actor-4"]["balances"] == {"energy": 99_999.875, "credits": 1_000_000}
    assert by_id["actor-4"]["reserved"] == {"energy": 45} and by_id["actor-5"]["reserved"] == {}
    assert "grid" not in by_id and by_id["actor-1"]["frozen"] is False


def account(told, resource="energy"):
    return next(one for one in told["accounts"] if one["resource"] == resource)


def test_statement_of_a_month_is_what_was_done_in_it(played):
    client = played.client
    told = client.get("/v1/actors/actor-1/statement", month="2026-11")
    assert (told["since"], told["until"]) == ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")
    assert (told["actor"], told["type"], told["source"], told["frozen"]) == ("actor-1", "node", "postgres:main", False)
    own = account(told)
    assert (own["opening"], own["closing"]) == (99_975, 99_889.5)
    assert own["in"] == {"produce": 7.5, "received": 10, "reversal": 12.5} and own["in_total"] == 30
    assert own["out"] == {"consume": 3, "given": 13.5, "override": 99} and own["out_total"] == 115.5
    assert own["given"] == [{"actor": "actor-2", "amount": 12.5, "transfers": 1},
                            {"actor": "actor-3", "amount": 1, "transfers": 1}]  # fmt: skip
    assert own["received"] == [{"actor": "actor-2", "amount": 10, "transfers": 1}]
    assert own["needs"] == {"announced": 3, "demanded": 3, "served": 3, "unmet": 0} and own["cost"] is None
    assert client.get("/v1/actors/actor-1/statement") == told  # this month
    october = account(client.get("/v1/actors/actor-1/statement", month="2026-10"))
    assert (october["opening"], october["closing"]) == (100_000, 99_975)
    assert (october["in"], october["out"]) == ({"produce": 5}, {"given": 30})
    whole = account(client.get("/v1/actors/actor-1/statement", **{"from": "1970-01-01"}))
    assert whole["opening"] == 0 and whole["in"]["genesis"] == 100_000 and whole["closing"] == 99_889.5
    nothing = account(client.get("/v1/actors/actor-1/statement", **{"from": "2026-11-02", "until": "2026-11-03"}))
    assert nothing["opening"] == nothing["closing"] == 99_975 and nothing["in"] == nothing["out"] == {}


def test_statements_from_sums_are_those_from_the_records(client, clock, url):
    play(client, clock)
    good(client.act("/v1/actors", {"id": HOSTILE, "type": "node"}))
    client.propose(3, "actor-1", HOSTILE)
    for when in (("1970-01-01", None), ("2026-11-01", None), ("2026-11-18T20:00:00Z", "2026-11-20T11:00:00Z"),
                 (None, "2026-11-20T07:00:00Z"), ("2026-12-01", None)):  # fmt: skip
        asked = {key: at for key, at in zip(("from", "until"), when, strict=True) if at is not None}
        with open_source("postgres", None, (url, "main")) as source:
            folded = {one.actor: one.document() for one in statements_of(source, None, period(None, *when))}
        for actor in ("actor-1", "actor-2", "actor-5", "grid", HOSTILE):
            path = "/v1/actors/" + "".join(f"%{byte:02X}" for byte in actor.encode()) + "/statement"
            told = client.get(path, **asked)
            assert told["accounts"] == folded[actor]["accounts"], (actor, when)
            assert told["head"] == folded[actor]["head"]


def test_statement_as_csv_adds_up_and_holds_no_formula(client, clock):
    play(client, clock)
    good(client.act("/v1/actors", {"id": HOSTILE, "type": "node"}))
    client.propose(3, "actor-1", HOSTILE)
    answer = client.ask("GET", "/v1/actors/actor-1/statement", month="2026-11", format="csv")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    energy = [row for row in rows if row["resource"] == "energy"]
    lines = [row["line"] for row in energy]
    assert lines[0] == "opening" and lines[-4:] == ["announced", "demanded", "served", "unmet"]
    end = lines.index("closing")
    assert sum(float(row["amount"]) for row in energy[:end]) == float(energy[end]["amount"]) == 99_886.5
    assert {row["with"] for row in rows} == {"", "actor-2", "actor-3", f"'{HOSTILE}"}
    assert {row["actor"] for row in rows} == {"actor-1"}


def test_what_is_no_time_no_actor_and_no_resource_is_refused(client):
    path = "/v1/actors/actor-1/statement"
    for query, part in (
        ({"month": "2026-13"}, "is no month"), ({"month": "2026-11", "from": "2026-11-01"}, "either a month"),
        ({"from": "yesterday"}, "is no time"), ({"from": "2026-11-02", "until": "2026-11-01"}, "ends before"),
        ({"from": "2026-11-02", "until": "2026-11-02"}, "ends before"), ({"month": "x"}, "month"),
    ):  # fmt: skip
        problem(client.ask("GET", path, **query), 422, part)
    for actor in ("nobody", "", "grid/grid"):
        problem(client.ask("GET", f"/v1/actors/{actor}/statement"), 404)
    problem(client.ask("GET", "/v1/actors/actor-1/balances", resource="gold"), 404, "no resource gold")
    problem(client.ask("GET", "/v1/actors/actor-1/balances"), 422)


def test_a_balance_over_time_is_a_step_line_of_what_moved(played, monkeypatch):
    client = played.client
    told = client.get("/v1/actors/actor-1/balances", resource="energy", **{"from": "2026-10-20"})
    assert (told["opening"], told["unit"], told["since"], told["until"]) == (
        100_000, "kWh", "2026-10-20T00:00:00Z", "2026-11-20T12:00:00Z"
    )  # fmt: skip
    assert [(p["at"], p["balance"]) for p in told["points"]] == [
        ("2026-10-26T12:00:00Z", 99_975), ("2026-11-18T20:00:00Z", 99_985), ("2026-11-20T07:00:00Z", 99_976),
        ("2026-11-20T11:00:00Z", 99_889.5),
    ]  # fmt: skip
    whole = client.get("/v1/actors/actor-1/balances", resource="energy", **{"from": "1970-01-01"})
    assert whole["opening"] == 0 and whole["points"][0]["balance"] == 100_000
    november = client.get("/v1/actors/actor-1/balances", resource="energy")
    assert november["opening"] == 99_975 and len(november["points"]) == 3
    monkeypatch.setattr(overview, "MOVES", 3)
    few = client.get("/v1/actors/actor-1/balances", resource="energy", **{"from": "2026-10-20"})["points"]
    assert len(few) <= 3 and few[-1]["balance"] == 99_889.5


# --- prompts ----------------------------------------------------------------------------------------------------------


def test_prompts_are_listed_with_what_came_of_them(client, clock):
    assert client.get("/v1/prompts") == {"items": [], "calls": 0, "looked_at": 0, "notes": []}
    answered(client, gemini(2, tokens=1_000_000), latency_ms=100)
    answered(client, gemini(60), latency_ms=300)
    context = client.get("/v1/context", extra=True)
    failed = {"proposal_id": context["proposal_id"], "request_key": context["request_key"]}
    client.post("/v1/proposals", {**failed, "unavailable": {"kind": "quota", "status": 429}})
    clock.at += timedelta(hours=1)
    made = good(client.act("/v1/activations", {"prompt": "propose_transfer", "model": "gemini-next"}))
    held = answered(client, gemini(45))
    told = client.get("/v1/prompts")
    assert (told["calls"], told["looked_at"]) == (4, 4) and "backtest" in told["notes"][0]
    new, old = told["items"]
    assert (new["model"], new["in_force"], new["prompt_digest"]) == ("gemini-next", True, made["prompt_digest"])
    assert new["activated"] == made["at"] == new["first"] and new["outcomes"]["held"] == 1 and new["acceptance"] == 0
    assert (old["model"], old["in_force"], old["activated"], old["calls"]) == ("gemini-3.8-flash", False, None, 3)
    assert old["prompt_digest"] == context["prompt"]["digest"] and old["role"] == "active"
    assert old["outcomes"] == {"executed": 1, "rejected": 1, "held": 0, "noop": 0, "malformed": 0, "unavailable": 1}
    assert old["acceptance"] == 0.5 and old["by_code"] == {"max_transfer": 1} and old["regret"] is None
    assert old["latency_ms"] == {"mean": 200, "median": 300, "p95": 300, "counted": 2}
    assert old["tokens"] == {"prompt": 500_003.5, "answer": 0, "thoughts": 0, "counted": 2}
    assert old["cost"]["counted"] == 2 and old["cost"]["total"] == 0.75 + 7 * 0.75 / 1e6
    assert (old["first"], old["last"], old["agreement"]) == ("2026-11-20T12:00:00Z", "2026-11-20T12:00:00Z", None)
    good(client.act(f"/v1/proposals/{held['proposal_id']}/approve", {}))
    assert client.get("/v1/prompts")["items"][0]["acceptance"] == 1


def test_an_exchange_that_came_twice_is_two_calls_and_one_decision(client, url):
    answered(client, gemini(60))
    columns = "proposal_id, request_key, at, request, status, body, about, usage, latency_ms, digest"
    with psycopg.connect(url) as owner:
        owner.execute(f"INSERT INTO main.interactions ({columns}) SELECT {columns} FROM main.interactions")
    (item,) = client.get("/v1/prompts")["items"]
    assert (item["calls"], item["outcomes"]["rejected"], item["by_code"]) == (2, 1, {"max_transfer": 1})


def test_another_model_than_was_asked_is_named(client):
    answered(client, gemini(1))
    answered(client, gemini(2) | {"modelVersion": "models/gemini-3.8-flash"})
    answered(client, gemini(3) | {"modelVersion": "gemini-3.5-flash-lite"})
    answered(client, gemini(3) | {"modelVersion": "synthetic/greedy"})
    (item,) = client.get("/v1/prompts")["items"]
    assert (item["other_models"], item["synthetic"]) == ({"gemini-3.5-flash-lite": 1}, 1)


def test_the_prices_that_an_app_is_given_count(url, clock):
    own = Prices("own", (Price("gemini-3.8-flash", "2020-01-01", 0, Decimal(2), Decimal(2), Decimal(2)),))
    with running(url, clock=clock, prices=own) as client:
        answered(client, gemini(1, tokens=500_000))
        assert client.get("/v1/prompts")["items"][0]["cost"]["total"] == 1


def test_a_shadow_is_compared_with_what_was_decided_in_its_rounds(client, clock):
    good(client.act("/v1/activations", {"prompt": "propose_transfer", "model": "gemini-next", "role": "shadow"}))
    for own, other in ((2, 2), (2, 3), (60, 2), (2, 60)):
        active, shadow = (client.get("/v1/context", role=role, extra=True) for role in ("active", "shadow"))
        for context, amount in ((active, own), (shadow, other)):
            known = {key: context[key] for key in ("proposal_id", "request_key", "world_state_digest")}
            client.post("/v1/proposals", {**known, "model_response": gemini(amount)})
    told = client.get("/v1/prompts")["items"]
    shadow = next(one for one in told if one["role"] == "shadow")
    assert (shadow["model"], shadow["in_force"], shadow["calls"]) == ("gemini-next", True, 4)
    assert shadow["outcomes"]["executed"] == 3 and shadow["by_code"] == {"max_transfer": 1}
    assert shadow["agreement"] == {
        "compared": 4, "same_outcome": 2, "same_transfers": 1, "only_active_accepted": 1, "only_shadow_accepted": 1,
        "on_same_state": 4,
    }  # fmt: skip


# --- constraints, tried on --------------------------------------------------------------------------------------------


def tried(client, constraints, **query):
    return client.act("/v1/constraints", {"constraints": constraints}, method="PUT", **{"dry_run": True, **query})


def test_a_dry_run_of_constraints_says_what_they_would_have_refused(client, clock):
    assert good(tried(client, {"max_transfer": 5}))["preview"] is None  # nothing was proposed yet
    done = play(client, clock)
    before = client.get("/v1/control")
    told = good(tried(client, {"max_transfer": {"energy": 11}, "hold_above": {"energy": 40}}))
    assert told["dry_run"] is True and told["constraints"]["max_transfer"] == {"energy": 11}
    preview = told["preview"]
    assert (preview["days"], preview["proposals"], preview["complete"]) == (7, 8, True)
    assert (preview["would_refuse"], preview["would_hold"], preview["would_accept"]) == (2, 0, 0)
    assert preview["by_code"] == {"max_transfer": 2}
    assert (preview["since"], preview["until"]) == ("2026-11-13T12:00:00Z", "2026-11-20T12:00:00Z")
    first = preview["first"]
    assert (first["proposal_id"], first["was"], first["would_be"]) == (
        done["first"]["proposal_id"], "executed", "rejected"
    )  # fmt: skip
    assert "11" in first["why"] and [one["would_be"] for one in preview["changed"]] == ["rejected"] * 3
    wide = good(tried(client, {}))["preview"]
    assert (wide["would_refuse"], wide["would_accept"]) == (0, 3)  # both of 60, and what is held now
    holding = good(tried(client, {"max_transfer": {"energy": 50}, "hold_above": {"energy": 12}}))["preview"]
    assert (holding["would_refuse"], holding["would_hold"]) == (0, 1)
    assert client.get("/v1/control") == before
    problem(tried(client, {"max_transfer": {"enrgy": 1}}), 422)
    assert "preview" not in good(tried(client, {"max_transfer": 5}, dry_run=False))


def test_a_preview_of_the_whole_history_is_the_what_if_of_it(client, clock, url):
    play(client, clock)
    clock.at = DAY - timedelta(days=20)
    told = good(tried(client, {"max_transfer": 9}))["preview"]
    with open_source("postgres", None, (url, "main")) as source:
        new = Constraints(max_transfer=Limit({"energy": 9_000, "credits": 900}, {}), min_balance=Limit({}, {}))
        found = rejudge(source, Terms(edit=lambda *_: new))
    assert found.decisions == told["proposals"]
    assert [one["proposal_id"] for one in told["changed"]] == [one.proposal_id for one in found.changed]
    assert [one["cause"] for one in told["changed"]] == [one.cause for one in found.changed]


def test_a_preview_says_of_each_what_it_would_be_and_counts_the_rules_of_the_refused_alone(client, clock, url):
    clock.at = DAY - timedelta(hours=2)
    approved = client.propose(45)["proposal_id"]
    good(client.act(f"/v1/proposals/{approved}/approve", {}))
    small, other = client.propose(12, "actor-3"), client.propose(39, "actor-4")
    clock.at = DAY
    ids = [approved, small["proposal_id"], other["proposal_id"]]

    def fates(constraints):
        preview = good(tried(client, constraints))["preview"]
        with open_source("postgres", None, (url, "main")) as source:
            new = constraints_from_json(constraints, RESOURCES, ())
            found = rejudge(source, Terms(edit=lambda *_: new))
        told = [(one.proposal_id, one.was.told, one.would_be.told, one.why) for one in found.changed]
        assert told == [tuple(one[key] for key in ("proposal_id", "was", "would_be", "why"))
                        for one in preview["changed"]]  # fmt: skip
        return preview, {id_: (was, would_be, why) for id_, was, would_be, why in told}

    preview, own = fates({"max_transfer": {"energy": 42}, "hold_above": {"energy": 10}})
    assert (preview["would_refuse"], preview["would_hold"], preview["by_code"]) == (1, 2, {"max_transfer": 1})
    assert own[ids[0]][:2] == ("held, then executed", "rejected") and "42" in own[ids[0]][2]
    assert own[ids[1]][:2] == ("executed", "held") and "waits for a person" in own[ids[1]][2]
    _, own = fates({"max_transfer": {"energy": 50}})
    assert own[ids[0]][:2] == ("held, then executed", "executed")
    pausing = {"hold_above": {"energy": 10}, "max_transfer": {"energy": 42}, "auto_pause": {"refused_in_a_row": 1}}
    preview, own = fates(pausing)
    assert preview["by_code"] == {"paused": 2, "max_transfer": 1} and preview["would_hold"] == 0
    assert own[ids[1]][:2] == ("executed", "rejected") and "waits" not in own[ids[1]][2]


def test_a_preview_takes_what_would_be_held_until_it_expires_for_held(client):
    id_ = client.propose(12)["proposal_id"]
    for epoch in (1, 2, 3):
        client.post("/v1/epochs/close", {"epoch": epoch})
    preview = good(tried(client, {"hold_above": {"energy": 10}, "hold_epochs": 1}))["preview"]
    assert (preview["would_refuse"], preview["would_hold"], preview["by_code"]) == (0, 1, {})
    (own,) = preview["changed"]
    assert (own["proposal_id"], own["was"], own["would_be"]) == (id_, "executed", "held, then rejected")
    assert own["why"].endswith("nobody decides, and the hold expires")


def test_a_preview_of_more_than_it_looks_at_says_from_when_on_it_is(played, monkeypatch):
    client = played.client
    monkeypatch.setattr(overview, "PREVIEW_RECORDS", 5)
    preview = good(tried(client, {"max_transfer": 0.5}))["preview"]
    assert (preview["complete"], preview["records"], preview["since"]) == (False, 5, "2026-11-20T07:00:00Z")
    assert preview["proposals"] == 2  # held, and approved; the reversal is of an entry from before
    assert not [note for note in preview["notes"] if "reversal" in note]


def test_a_preview_that_the_database_does_not_answer_leaves_the_dry_run(client, clock, monkeypatch):
    client.propose(1)

    def slow(*_):
        raise Unreachable("the database gave no answer")

    monkeypatch.setattr(standing, "history", slow)
    told = good(tried(client, {"max_transfer": 5}))
    assert told["preview"] is None and told["preview_failed"] == "the database gave no answer" and told["dry_run"]


# --- stories ----------------------------------------------------------------------------------------------------------


def test_a_story_is_what_explain_tells_and_what_came_of_it_since(client, clock, url):
    done = play(client, clock)
    asked = answered(client, gemini(2), latency_ms=123)
    ids = [done["first"], done["held"], done["approved"], asked, client.propose(60)]
    with open_source("postgres", None, (url, "main")) as source:
        for outcome in ids:
            story = client.get(f"/v1/proposals/{outcome['proposal_id']}/story")
            recorded = client.get(f"/v1/proposals/{outcome['proposal_id']}")
            assert {**story["linear"], "acknowledged": 0} == {**recorded["linear"], "acknowledged": 0}
            assert story["url"] == recorded["url"] and story["reversed"] == recorded["reversed"]
            explained = json.loads(json.dumps(explain(source, outcome["proposal_id"])))
            for key, value in explained.items():
                own = {k: v for k, v in story[key].items() if k in value} if key == "seen" else story[key]
                assert own == value, key
    story = client.get(f"/v1/proposals/{asked['proposal_id']}/story")
    assert story["seen"]["prompt"]["name"] == "propose_transfer" and len(story["seen"]["prompt"]["digest"]) == 64
    assert story["seen"]["world_state_digest"] and story["seen"]["interaction"]["latency_ms"] == 123
    assert json.loads(story["said"]["raw"]) == gemini(2) and story["reversed"] == []
    assert story["linear"]["title"] == asked["linear"]["title"] and story["linear"]["acknowledged"] is None
    assert (story["digest"], story["url"]) == (asked["digest"], asked["url"])
    client.post(f"/v1/outbox/{asked['seq']}/ack", {"reference": "GRID-9"})
    acked = client.get(f"/v1/proposals/{asked['proposal_id']}/story")["linear"]["acknowledged"]
    assert acked == {"reference": "GRID-9", "at": "2026-11-20T12:00:00Z"}
    problem(client.ask("GET", f"/v1/proposals/{uuid.uuid4()}/story"), 404, "there is no proposal")


def test_a_story_and_a_proposal_say_that_it_was_taken_back(played):
    client = played.client
    done = played.done
    (entry,) = done["first"]["entries"]
    for path in (
        f"/v1/proposals/{done['first']['proposal_id']}",
        f"/v1/proposals/{done['first']['proposal_id']}/story",
    ):
        (back,) = client.get(path)["reversed"]
        assert (back["reverses"], back["operator"], back["reason"]) == ([entry], "operate", "because")
        assert back["outcome"] == "executed" and client.get(f"/v1/ledger/{back['entries'][0]}")["kind"] == "reversal"


def test_a_shadows_story_is_told_on_what_it_was_shown(client, clock):
    good(client.act("/v1/activations", {"prompt": "propose_transfer", "model": "gemini-next", "role": "shadow"}))
    client.propose(5)
    context = client.get("/v1/context", role="shadow")
    client.propose(7)
    known = {key: context[key] for key in ("proposal_id", "request_key", "world_state_digest")}
    told = client.post("/v1/proposals", {**known, "model_response": gemini(60)})
    story = client.get(f"/v1/proposals/{told['proposal_id']}/story")
    assert story["shadow"] is True and story["outcome"] == "rejected" and story["seq"] is None
    assert story["seen"]["world_state"] == context["world_state"]
    assert story["seen"]["world_state_digest"] == context["world_state_digest"]
    assert story["judged"]["violations"][0]["code"] == "max_transfer" and story["linear"] is None
    assert story["moved"]["entries"] == [] and story["moved"]["balances"] == told["balances"]


# --- beside millions of entries ---------------------------------------------------------------------------------------

PLANNED = {
    "last_seq": {}, "record_before": {"at": "2026-11-20T12:00:00Z"}, "entry_before": {"seq": 29_990},
    "moment_of": {"seq": 7}, "tallied": {"after": 29_900, "until": 29_990, "step": 3600},
    "refused_codes": {"after": 29_000, "until": 29_990, "most": 9}, "held_now": {"most": 9}, "last_constraints": {},
    "paused_since": {}, "last_decision": {}, "oldest_waiting": {}, "changed_since": {"after": 29_900, "most": 9},
    "transferred_since": {"after": 29_900}, "reversals_of": {"seqs": [7]}, "acked": {"seq": 7}, "calls": {"most": 9},
    "moved_of": {"actor": "00000000-0000-5000-8000-000000000001", "after": 29_900, "until": 29_950},
    "readings_of": {"actor": "actor-1", "after": 29_900, "until": 29_950},
    "balance_steps": {"actor": "00000000-0000-5000-8000-000000000001", "resource": "energy", "after": 29_900,
                      "until": 29_950, "step": 60},
    "final_outcomes": {"ids": ["00000000-0000-5000-8000-000000000001"]},
}  # fmt: skip
"""What pages ask, with what it is asked about."""

GENESIS = Genesis(
    1, 1_000, 60_000_000, (Actor("grid", "boundary"), Actor("actor-1", "node")), (Resource("energy", "kWh", 3),),
    Constraints(), (("actor-1", "energy", 1_000),), {},
)  # fmt: skip


@pytest.fixture(scope="module")
def large(server):
    """A grid of thirty thousand records, by form alone."""

    def make(url):
        migrate(url, "main")
        ledger = PostgresLedger(url, "main")
        Engine(ledger).append(GENESIS, 1_000)
        ledger.commit()
        ledger.close()
        with session(url) as owner:
            owner.execute(LARGE.replace("generate_series(17,", "generate_series(2,"))

    return server.url(server.template("large overview", make))


@pytest.mark.parametrize("name", PLANNED)
def test_question_reads_no_more_than_it_must(large, name):
    with session(large) as connection:
        plan = connection.execute("EXPLAIN " + queries.query(name), PLANNED[name]).fetchall()
    text = "\n".join(row[0] for row in plan)
    assert "Seq Scan on journal" not in text and "Seq Scan on ledger" not in text, text


def test_the_last_record_before_a_time_is_found_by_halves(client, clock, url):
    play(client, clock)
    records = client.get("/v1/journal", limit=1000)["items"]
    reader = postgres.Reader(url, "main")
    try:
        times = [datetime.fromisoformat(row["at"]) for row in records]
        for at in [datetime(1969, 12, 31, tzinfo=UTC), *times, datetime(2027, 1, 1, tzinfo=UTC)]:
            (found,) = reader.rows("record_before", at=at.isoformat())
            assert found["seq"] == sum(one < at for one in times), at
        entries = client.get("/v1/ledger", limit=1000)["items"]
        for seq in range(len(records) + 2):
            (found,) = reader.rows("entry_before", seq=seq)
            assert found["id"] == max((e["id"] for e in entries if e["seq"] <= seq), default=0), seq
    finally:
        reader.close()
