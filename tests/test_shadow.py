"""Shadows in production, prompts in force, and production's exchanges as a cassette."""

import json
import uuid
from dataclasses import replace

import psycopg
import pytest

from gridgov import beside, cassette, postgres, queries, service, standing
from gridgov.auth import Keys
from gridgov.cassette import CassetteProposer, synthetic_body
from gridgov.errors import BadInput
from gridgov.explain import explain
from gridgov.journal import START
from gridgov.model import Round, Transfer, Unavailable
from gridgov.postgres import READ, Reader
from gridgov.prompt import load
from gridgov.propose import Answer, Context
from gridgov.replay import fold
from gridgov.shown import shown_by, state_shown
from gridgov.source import open_source
from gridgov.state import State, copied
from gridgov.stored import records_after
from gridgov.tapes import export_cassette
from gridgov.verify import verify
from tests import grids
from tests.apps import fill, good, moving, running
from tests.test_api import at_once, balance, head, problem

pytest_plugins = ["tests.databases"]

NEXT = {"prompt": "propose_transfer", "model": "gemini-next", "role": "shadow"}


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
        good(client.act("/v1/activations", NEXT))
        yield client


@pytest.fixture(scope="module")
def played(server):
    return server.url(server.template("played", grids.play))


def gemini(amount=2, giver="actor-1", taker="actor-2", **proposal):
    """A model's reply that moves so much."""
    said = saying(json.dumps(moving(amount, giver, taker, **proposal)))
    return said | {"modelVersion": "gemini-answers", "usageMetadata": {"promptTokenCount": 7}}


def saying(text):
    """A model's reply of this text."""
    return {"candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}]}


def answer(context, reply=None, **more):
    """What is sent for a context."""
    known = {key: context[key] for key in ("proposal_id", "request_key", "world_state_digest")}
    return {**known, "model_response": reply or gemini(), **more}


def checked(url):
    with open_source("postgres", None, (url, "main")) as source:
        return verify(source)


# --- a shadow's round -------------------------------------------------------------------------------------------------


def test_there_is_none_until_one_is_active_and_after_it_ended(url):
    with running(url) as client:
        problem(client.ask("GET", "/v1/context", role="shadow"), 404, "no shadow is active")
        good(client.act("/v1/activations", NEXT))
        assert client.get("/v1/context", role="shadow")["request"]["model"] == "gemini-next"
        good(client.act("/v1/activations", {**NEXT, "model": ""}))
        problem(client.ask("GET", "/v1/context", role="shadow"), 404, "no shadow is active")
        problem(client.ask("GET", "/v1/context", role="other"), 422)


def test_is_shown_the_same_state_in_a_round_of_its_own(client):
    active, shadow = client.get("/v1/context"), client.get("/v1/context", role="shadow")
    assert shadow["round"] == {"epoch": 1, "proposer": "planner/shadow", "n": 1} and shadow["shadow"] is True
    assert shadow["proposal_id"] == Round(1, "planner/shadow", 1).proposal_id != active["proposal_id"]
    for key in ("world_state", "world_state_digest", "paused"):
        assert shadow[key] == active[key]
    assert shadow["request_key"] != active["request_key"]
    assert client.get("/v1/context", role="shadow") == shadow
    own = good(client.ask("GET", "/v1/context", key="mandated", role="shadow"))
    assert own["round"]["proposer"] == "mandated/shadow" and "may_move" in json.dumps(own["request"])


def test_is_judged_on_what_it_was_shown_and_never_applied(client, url):
    active, shadow = client.get("/v1/context"), client.get("/v1/context", role="shadow")
    client.post("/v1/proposals", answer(active))
    good(client.act("/v1/transfers", {"transfers": moving(99_900, "actor-1", "actor-3")["transfers"]}))
    good(client.act("/v1/control", {"action": "pause"}))
    client.post("/v1/epochs/close", {"epoch": 1})
    before, had = head(client), balance(client)
    told = client.post("/v1/proposals", answer(shadow, gemini(30)))
    assert (told["outcome"], told["shadow"], told["entries"], told["digest"], told["seq"]) == (
        "executed", True, [], None, None
    )  # fmt: skip
    assert "state_moved" not in told and "dry_run" not in told
    assert (told["epoch"], told["proposer"], told["n"]) == (1, "planner/shadow", 1)
    assert told["balances"][0] == {"actor": "actor-1", "resource": "energy", "before": 100000, "after": 99970}
    assert (head(client), balance(client)) == (before, had)
    assert client.get("/v1/outbox")["items"][0]["proposal_id"] == active["proposal_id"]
    assert checked(url).first is None


@pytest.mark.parametrize(
    ("reply", "outcome", "code"),
    [
        (gemini(60), "rejected", "max_transfer"),
        (gemini(45), "held", None),
        (gemini(2, "actor-9"), "rejected", "unknown_actor"),
        ({"candidates": []}, "malformed", None),
        (saying('{"transfers":[],"reasoning":""}'), "noop", None),
        ({"error": {"code": 429}}, "unavailable", None),
    ],
)  # fmt: skip
def test_every_outcome_is_judged_as_an_active_one_would_be(client, url, reply, outcome, code):
    shadow = client.get("/v1/context", role="shadow")
    dry = client.post("/v1/proposals", answer(shadow, reply), dry_run=True)
    told = client.post("/v1/proposals", answer(shadow, reply))
    assert dry.pop("dry_run") is True and dry.pop("at") <= told["at"]
    assert dry == {key: said for key, said in told.items() if key != "at"}
    assert told["outcome"] == outcome and [v["code"] for v in told["violations"]] == ([code] if code else [])
    assert all("words" in v for v in told["violations"]) and client.get("/v1/control")["holds"] == []
    assert checked(url).first is None


def test_answers_the_same_again_and_refuses_other_input(client):
    shadow = client.get("/v1/context", role="shadow")
    first = client.post("/v1/proposals", answer(shadow))
    assert client.get("/v1/context", role="shadow")["decided"] == first
    client.propose(5)
    assert client.post("/v1/proposals", answer(shadow)) == first
    for reply, differs in ((gemini(3), ["transfers"]), (gemini(2, reasoning="else"), ["reasoning"]),
                           ({"candidates": []}, ["kind"])):  # fmt: skip
        told = problem(client.ask("POST", "/v1/proposals", answer(shadow, reply)), 409, shadow["proposal_id"])
        assert told["recorded"] == first and told["differs"] == differs
    failed = {"proposal_id": shadow["proposal_id"], "unavailable": {"kind": "quota"}}
    assert problem(client.ask("POST", "/v1/proposals", failed), 409)["differs"] == ["kind"]
    extra = client.get("/v1/context", role="shadow", extra=True)
    assert extra["round"]["n"] == 2 and "decided" not in extra
    client.post("/v1/epochs/close", {"epoch": 1})
    later = client.get("/v1/context", role="shadow")
    assert later["round"]["epoch"] == 2 and "history" in json.dumps(later["request"])


def test_decides_one_round_for_sixteen_loops_at_once(client, url):
    shadow = client.get("/v1/context", role="shadow")
    with running(url) as other:
        told = at_once(16, lambda n: (client, other)[n % 2].ask("POST", "/v1/proposals", answer(shadow)).json())
    assert all(one == told[0] for one in told) and told[0]["outcome"] == "executed"
    with psycopg.connect(url) as connection:
        for table in ("shadows", "interactions"):
            assert connection.execute(f"SELECT count(*) FROM main.{table}").fetchone() == (1,)


def test_rows_are_numbered_without_gaps_whoever_adds_them(client, url):
    client.post("/v1/proposals", answer(client.get("/v1/context", role="shadow")))

    def add(n):
        connection = postgres.connect(url, "main")
        try:
            (first, *_) = beside.shadows_page(connection, after=0, limit=1, outcome=None, proposer=None, epoch=None)
            row = first._replace(proposal_id=str(uuid.uuid4()), exchange=None)
            return [beside.add_shadow(connection, row._replace(n=n), None) for _ in range(2)]
        finally:
            connection.close()

    added = at_once(8, add)
    assert all(one == other for one, other in added)
    assert sorted(one.id for one, _ in added) == list(range(2, 10))


def test_a_key_with_a_mandate_answers_its_own_shadow_only(client, url):
    shared = client.get("/v1/context", role="shadow")
    own = good(client.ask("GET", "/v1/context", key="mandated", role="shadow"))
    problem(client.ask("POST", "/v1/proposals", answer(shared), key="mandated"), 403, "planner")
    told = client.post("/v1/proposals", answer(own, gemini(2, "actor-2", "actor-1")), key="mandated")
    assert [v["code"] for v in told["violations"]] == ["not_permitted"] and told["proposer"] == "mandated/shadow"
    assert checked(url).first is None
    with pytest.raises(BadInput, match="the grid's own name"):
        Keys(url, "main").create("x/shadow", ["read"], 1)


def test_is_listed_and_stands_beside_the_real_one(client):
    active, shadow = client.get("/v1/context"), client.get("/v1/context", role="shadow")
    client.post("/v1/proposals", answer(active))
    assert "shadow" not in client.get(f"/v1/proposals/{active['proposal_id']}")
    told = client.post("/v1/proposals", answer(shadow, gemini(60), latency_ms=1234))
    own = client.get(f"/v1/proposals/{shadow['proposal_id']}")
    assert {key: own[key] for key in told} == told
    assert own["proposal"]["transfers"] == moving(60)["transfers"]
    assert own["interaction"] == {
        "prompt": "propose_transfer", "prompt_digest": shadow["prompt"]["digest"], "model_asked": "gemini-next",
        "model_answered": "gemini-answers", "usage": {"prompt": 7}, "latency_ms": 1234,
    }  # fmt: skip
    real = client.get(f"/v1/proposals/{active['proposal_id']}")
    assert real["shadow"] == own and "latency_ms" not in real["interaction"]
    assert (real["interaction"]["model_asked"], real["interaction"]["prompt_digest"]) == (
        "gemini-3.8-flash", active["prompt"]["digest"]
    )  # fmt: skip
    (listed,) = client.get("/v1/proposals", role="shadow")["items"]
    assert (listed["proposal_id"], listed["outcome"], listed["model"]) == (
        own["proposal_id"], "rejected", "gemini-next"
    )  # fmt: skip
    assert listed["violations"] == own["violations"] and "entries" not in listed
    for query, count in (({"outcome": "rejected"}, 1), ({"outcome": "noop"}, 0), ({"epoch": 2}, 0), ({"after": 1}, 0),
                         ({"proposer": "planner/shadow"}, 1), ({"proposer": "planner"}, 0)):  # fmt: skip
        assert len(client.get("/v1/proposals", role="shadow", **query)["items"]) == count
    assert len(client.get("/v1/proposals")["items"]) == 1


def test_a_shadow_with_the_same_prompt_and_model_is_kept_apart(client, url):
    good(client.act("/v1/activations", {**NEXT, "model": "gemini-3.8-flash"}))
    active, shadow = client.get("/v1/context"), client.get("/v1/context", role="shadow")
    assert active["request_key"] == shadow["request_key"]
    client.post("/v1/proposals", answer(active))
    client.post("/v1/proposals", answer(shadow, gemini(3)))
    with psycopg.connect(url) as connection:
        kept = [json.loads(row[0])["round"]["proposer"] for row in
                connection.execute("SELECT about FROM main.interactions ORDER BY id")]  # fmt: skip
    assert kept == ["planner", "planner/shadow"]
    assert checked(url).first is None


# --- after a restart --------------------------------------------------------------------------------------------------


def test_another_app_judges_on_the_same_state_and_knows_the_request(client, url):
    client.propose(45, "actor-3", "actor-4")  # a hold, and one that is settled in between
    held = client.propose(41, "actor-1", "actor-4")["proposal_id"]
    client.propose(50, "actor-1", "actor-5")
    good(client.act("/v1/actors", {"id": "new", "type": "node"}))
    shadow = client.get("/v1/context", role="shadow")
    good(client.act(f"/v1/proposals/{held}/approve", {}))
    client.propose(7, "actor-2", "new")  # which had no balance when the shadow looked
    client.post("/v1/epochs/close", {"epoch": 1})
    good(client.act("/v1/constraints", {"constraints": {}}, method="PUT"))
    with running(url) as other:
        told = other.post("/v1/proposals", answer(shadow, gemini(60)))
        assert [(v["code"], v["limit"]) for v in told["violations"]] == [("max_transfer", 50)]
        assert "state_moved" not in told
        assert other.get(f"/v1/proposals/{shadow['proposal_id']}")["interaction"]["model_asked"] == "gemini-next"
    assert checked(url).first is None
    with psycopg.connect(url) as connection:
        (request, about) = connection.execute("SELECT request, about FROM main.interactions").fetchone()
    assert json.loads(request) == shadow["request"]["body"]
    assert json.loads(about)["seen"] == shadow["world_state_digest"]


def test_a_request_is_kept_once_however_often_it_is_asked_for(client, url):
    for _ in range(3):
        client.get("/v1/context")
    with running(url) as other:
        context = other.get("/v1/context")
        client.propose(1)
        client.get("/v1/context")
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT request_key, body FROM main.requests ORDER BY at").fetchall()
    assert len(rows) == 2
    assert rows[0][0] == context["request_key"] and json.loads(rows[0][1]) == context["request"]["body"]


@pytest.mark.parametrize("how", ["another digest", "no digest"])
def test_what_was_shown_and_cannot_be_found_is_judged_as_of_now_and_says_so(client, url, how):
    shadow = client.get("/v1/context", role="shadow")
    body = answer(shadow)
    del body["world_state_digest"], body["request_key"]
    if how == "another digest":
        body["world_state_digest"] = shadow["world_state_digest"][:-32] + "0" * 32
    told = client.post("/v1/proposals", body)
    assert (told["outcome"], told["state_moved"]) == ("executed", True)
    body = {**answer(shadow), "proposal_id": Round(1, "planner/shadow", 2).proposal_id}
    assert "state_moved" not in client.post("/v1/proposals", {**body, "request_key": "ab" * 32})
    client.post("/v1/epochs/close", {"epoch": 1})
    of_another_epoch = {**body, "proposal_id": Round(2, "planner/shadow", 1).proposal_id}
    assert [v["code"] for v in client.post("/v1/proposals", of_another_epoch)["violations"]] == ["stale_world_state"]
    assert checked(url).first is None


FIELDS = ("actors", "balances", "constraints", "constraints_seq", "entries", "epoch", "frozen", "mandates", "needs",
          "paused", "reserved", "resources", "sent", "seq", "at", "holds")  # fmt: skip


def test_the_state_after_any_record_is_had_without_the_journal_before_it(played):
    state, unsure = State(), list[int]()
    connection = postgres.connect(played, grids.GRID, READ)
    try:
        for record in list(records_after(connection)):
            fold(state, record)
            if record.kind == "genesis":
                continue  # nobody is shown anything before it is durable
            there = standing.state_after(connection, record.seq)
            for name in FIELDS:
                assert getattr(there, name) == getattr(state, name), (record.seq, name)
            found = state_shown(connection, shown_by(state))
            if found is None:
                unsure.append(record.seq)  # the clock stood still while something was held
            else:
                assert found.seq >= record.seq and (found.reserved, found.at) == (state.reserved, state.at)
        assert 0 < len(unsure) < state.seq // 2
    finally:
        connection.close()


# --- verify -----------------------------------------------------------------------------------------------------------

FORGED = {
    "UPDATE shadows SET body = replace(body, 'executed', 'rejected')": "shadows, proposal_id",
    "UPDATE shadows SET body = '{}'": "shadows, proposal_id",
    "UPDATE shadows SET seen = '1-1-1-' || repeat('0', 32)": "column seen",
    "UPDATE shadows SET seq = 3": "shadows, proposal_id",
    "UPDATE shadows SET seq = 999": "the journal has no such record",
    "UPDATE shadows SET n = 7": "column proposal_id is not that of",
}


@pytest.mark.parametrize("change", FORGED)
def test_a_forged_row_is_found_though_its_digests_were_made_anew(server, played, change):
    with server.database("played") as url:
        with grids.tampering(url) as connection:
            connection.execute(change + " WHERE id = 1")
            previous = START
            for row in beside.shadows_page(connection, after=0, limit=9, outcome=None, proposer=None, epoch=None):
                sealed = row.sealed(row.id, previous)
                connection.execute("UPDATE shadows SET digest = %s WHERE id = %s", (sealed.digest, row.id))
                previous = sealed.digest
        report = checked(url)
        assert [check.name for check in report.checks if check.failure is not None] == ["tables"]
        assert FORGED[change] in report.first


def test_a_forged_request_is_found_though_its_digest_was_made_anew(server, played):
    with server.database("played") as url:
        with grids.tampering(url) as connection:
            at, body, about = connection.execute(
                "SELECT (extract(epoch FROM at) * 1000000)::bigint, body, about FROM requests LIMIT 1"
            ).fetchone()
            forged = beside.Handed("0" * 64, at, body, about)
            connection.execute("UPDATE requests SET request_key = %s, digest = %s WHERE about = %s",
                               (forged.request_key, forged.digest, about))  # fmt: skip
        assert "is not the key of what its body and about ask" in checked(url).first


GONE = {
    "DELETE FROM interactions WHERE proposal_id = (SELECT proposal_id FROM shadows WHERE id = 3)": "that is gone",
    "DELETE FROM shadows WHERE id = 1": "shadows, id 2: column digest",
    "UPDATE requests SET request_key = repeat('0', 64) WHERE request_key = (SELECT min(request_key) FROM requests)":
        "column digest",
}  # fmt: skip


@pytest.mark.parametrize("change", GONE)
def test_what_was_taken_away_is_found(server, played, change):
    with server.database("played") as url:
        with grids.tampering(url) as connection:
            connection.execute(change)
        assert GONE[change] in checked(url).first


def test_an_exchange_that_a_shadow_never_had_is_found(client, url):
    id_ = client.get("/v1/context", role="shadow")["proposal_id"]
    client.post("/v1/proposals", {"proposal_id": id_, "unavailable": {"kind": "quota"}})
    assert checked(url).first is None
    put = beside.Interaction(id_, "", 1, b"", 200, b"{}", "{}")
    with grids.tampering(url) as connection, connection.cursor().copy(queries.query("copy_interactions")) as copy:
        copy.write(put.line())
    assert "is not the exchange that its row of shadows names" in checked(url).first


def test_nothing_in_them_is_ever_changed(server, played):
    with server.database("played") as url, psycopg.connect(url, autocommit=True) as connection:
        for table in ("shadows", "requests"):
            for change in (
                f"UPDATE main.{table} SET at = now()",
                f"DELETE FROM main.{table}",
                f"TRUNCATE main.{table}",
            ):
                with pytest.raises(psycopg.errors.RestrictViolation, match="never changed"):
                    connection.execute(change)


# --- prompts in force -------------------------------------------------------------------------------------------------


def test_another_prompt_on_disk_than_the_one_in_force_is_refused_and_told(client, monkeypatch):
    good(client.act("/v1/activations", {"prompt": "propose_transfer", "model": "m"}))
    assert "warnings" not in client.ask("GET", "/readyz").json()

    def changed(name):
        found = load(name)
        (first, text), *rest = found.sources
        return replace(found, sources=((first, text + "more"), *rest))

    monkeypatch.setattr(service, "load", changed)
    client.propose(1)  # what was rendered before may be asked for again
    for query in ({}, {"role": "shadow"}, {"prompt": "propose_transfer"}):
        told = problem(
            client.ask("GET", "/v1/context", **query), 409, "in force has the digest", "activate it as it is"
        )
    assert load("propose_transfer").digest[:12] in told["detail"]
    good(client.ask("GET", "/v1/context", prompt="speak_for_actor"))
    ready = good(client.ask("GET", "/readyz"))
    assert sorted(warning.partition(":")[0] for warning in ready["warnings"]) == ["active", "shadow"]
    good(client.act("/v1/activations", {"prompt": "propose_transfer", "model": "m"}))
    assert client.get("/v1/context")["prompt"]["digest"] == changed("propose_transfer").digest
    monkeypatch.setattr(service, "load", load)
    good(client.act("/v1/activations", {"prompt": "propose_transfer", "model": "m"}))
    assert client.get("/v1/context")["prompt"]["digest"] == load("propose_transfer").digest


# --- production's exchanges as a cassette -----------------------------------------------------------------------------


def test_what_was_exchanged_replays_to_the_same_answers(client, url, tmp_path):
    contexts, answers, reader = [], [], Reader(url, "main")
    for n in range(3):
        for role in ("active", "shadow"):
            told = client.get("/v1/context", role=role)
            state = reader.look(copied)
            round_ = Round(**told["round"])
            past = tuple(s.decision for s in reader.pool.ask(lambda c: beside.shadows_page(
                c, after=0, limit=9, outcome=None, proposer=None, epoch=None))) if role == "shadow" else tuple(
                r.payload for r in postgres_records(url) if r.kind == "proposal")  # fmt: skip
            contexts.append(Context(round_, state, history=past))
            answers.append(Answer((Transfer("actor-1", f"actor-{n + 2}", "energy", 1_500 + n),), f"{role} {n}"))
            body = synthetic_body(answers[-1], state.resources, told["request"]["model"])
            client.post("/v1/proposals", answer(told, json.loads(body)))
        client.post("/v1/epochs/close", {"epoch": n + 1})
    reader.close()
    out = tmp_path / "x.jsonl"
    assert export_cassette(url, "main", out) == 6
    tape = cassette.read(out)
    assert {one.origin for one in tape.interactions} == {"recorded"}
    assert sum(one.system is not None for one in tape.interactions) == 2  # with a history, and without
    assert cassette.check(out, today="2026-11-22") == []
    player = CassetteProposer(tape)
    assert [player.propose(context) for context in contexts] == answers
    assert tape.unused() == ()
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]
    with pytest.raises(BadInput, match="move it away"):
        export_cassette(url, "main", out)


def postgres_records(url):
    connection = postgres.connect(url, "main", READ)
    try:
        return list(records_after(connection))
    finally:
        connection.close()


def test_the_same_question_is_numbered_and_a_failure_of_the_same_round_superseded(client, url, tmp_path):
    good(client.act("/v1/activations", {**NEXT, "model": "gemini-3.8-flash"}))
    active, shadow = client.get("/v1/context"), client.get("/v1/context", role="shadow")
    failed = answer(active, unavailable={"kind": "quota", "status": 429})
    del failed["model_response"]
    client.post("/v1/proposals", failed)
    client.post("/v1/proposals", {**answer(active), "proposal_id": str(uuid.uuid4())})  # asked again by hand
    client.post("/v1/proposals", answer(shadow, gemini(3)))
    assert export_cassette(url, "main", tmp_path / "x.jsonl") == 3
    first, second, third = cassette.read(tmp_path / "x.jsonl").interactions
    assert isinstance(first.result({}), Unavailable) and first.failure == "quota"
    assert (first.sample, second.sample, third.sample) == (0, 0, 1)
    assert second.supersedes == first.digest and third.supersedes is None
    assert first.request_key == second.request_key == active["request_key"] != third.request_key
    assert third.round.proposer == "planner/shadow"


@pytest.mark.parametrize("key", ["AI" + "za" + "x" * 35, "AQ" + ".Ab8_" + "x" * 40])
def test_only_what_can_be_replayed_and_holds_no_key_is_written_from_a_time_until_another(client, url, tmp_path, key):
    told: list[tuple[str, str]] = []
    sent = []
    for reply, more in (
        (gemini(1), {}),
        (gemini(1), {"request_key": "ab" * 32}),
        (None, {"unavailable": {"kind": "config"}}),
        (gemini(2), {}),
        (gemini(1, reasoning=key), {}),
    ):
        context = client.get("/v1/context", extra=True)
        body = {**answer(context, reply), **more}
        if reply is None:
            del body["model_response"]
        sent.append(client.post("/v1/proposals", body))
    out = tmp_path / "x.jsonl"
    assert export_cassette(url, "main", out, left_out=lambda *why: told.append(why)) == 2
    assert key not in out.read_text()
    assert [id_ for id_, _ in told] == [sent[place]["proposal_id"] for place in (1, 2, 4)]
    for (_, why), part in zip(told, ("was not handed out", "as another", "looks like a key"), strict=True):
        assert part in why
    with psycopg.connect(url) as connection:
        (at,) = connection.execute(
            "SELECT (extract(epoch FROM at) * 1000000)::bigint FROM main.interactions WHERE id = 4"
        ).fetchone()
    for number, (since, until, count) in enumerate([(at, None, 1), (None, at, 1), (at + 1, None, 0), (0, at + 1, 2)]):
        other = tmp_path / f"{number}.jsonl"
        assert export_cassette(url, "main", other, since, until) == count
        assert other.exists() == bool(count)


def test_explains_a_shadow_of_a_grid(client, url):
    shadow = client.get("/v1/context", role="shadow")
    client.post("/v1/proposals", answer(shadow, gemini(60)))
    with open_source("postgres", None, (url, "main")) as source:
        story = explain(source, shadow["proposal_id"])
    assert (story["shadow"], story["outcome"], story["proposer"]) == (True, "rejected", "planner/shadow")
    assert [v["code"] for v in story["judged"]["violations"]] == ["max_transfer"]
    assert json.loads(story["said"]["raw"]) == gemini(60)
    assert story["seen"]["interaction"]["model_asked"] == "gemini-next"
