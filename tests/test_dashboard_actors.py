"""The pages Actors and Prompts in a real browser, in front of a real app on a real Postgres."""

import csv
import io
import json
import time
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import quote

import pytest

from dashboard.pages import actors, prompts
from gridgov.journal import Activation
from gridgov.postgres import Writer
from gridgov.prompt import load
from tests import apps
from tests.apps import good, moving
from tests.browser import dashboard

pytest_plugins = ["tests.browser"]

EVIL = "=evil **b** <b>x</b> :smile: `c` /$x$"
"""The name of an actor."""

MODEL = "gemini-3.8-flash"


class Clock:
    """The real time less some days: microseconds since 1970."""

    def __init__(self):
        self.days = 0.0
        self.month = datetime.fromtimestamp(time.time(), UTC).strftime(
            "%Y-%m"
        )  # of all that follows, should it end now

    def __call__(self):
        return int((time.time() - self.days * 86_400) * 1_000_000)


def read(client, epoch, *readings):
    made = [{"actor": a, "resource": "energy", "kind": kind, "amount": n} for a, kind, n in readings]
    client.post("/v1/flows", {"reading_id": str(uuid.uuid4()), "epoch": epoch, "readings": made})


def reply(amount, giver="actor-1", taker="actor-2"):
    """A model's reply that moves so much."""
    part = {"text": json.dumps(moving(amount, giver, taker))}
    usage = {"promptTokenCount": 1_800, "candidatesTokenCount": 120, "thoughtsTokenCount": 300}
    said = {"content": {"parts": [part]}, "finishReason": "STOP"}
    return {"candidates": [said], "modelVersion": MODEL, "usageMetadata": usage}


def decide(client, own, beside):
    """A round that the active prompt and the shadow both answer."""
    both = [client.get("/v1/context", role=role, extra=True) for role in ("active", "shadow")]
    for context, amount in zip(both, (own, beside), strict=True):
        known = {key: context[key] for key in ("proposal_id", "request_key", "world_state_digest")}
        client.post("/v1/proposals", {**known, "model_response": reply(amount), "latency_ms": 1_500 + 10 * int(amount)})


@pytest.fixture(scope="module")
def clock():
    return Clock()


@pytest.fixture(scope="module")
def production(server, clock):
    """A client of an app over a grid with 40 days behind it."""
    name = server.template("app", apps.fill)
    with server.database(name) as url, apps.running(url, clock=clock) as client:
        clock.days = 40
        good(client.act("/v1/actors", {"id": EVIL, "type": "node <b>x</b>"}))
        client.propose(30, "actor-1", "actor-2")
        for day in range(12):
            clock.days = 11 - day  # the last day is now, so that this month has one on its first day too
            client.post("/v1/epochs/close", {"epoch": day + 1})
            read(client, day + 2, ("actor-1", "produce", 5 + day), ("actor-1", "need", 4), ("actor-1", "consume", 4))
            client.propose(2.5 + day, "actor-1", f"actor-{2 + day % 3}")
            client.propose(1.25, "actor-4", "actor-1")
        client.propose(7.5, "actor-1", EVIL)
        client.propose(45, "actor-1", "actor-5")  # is held
        good(client.act("/v1/activations", {"prompt": "propose_transfer", "model": MODEL, "reason": "backtested"}))
        good(client.act("/v1/activations", {"prompt": "propose_transfer", "model": "gemini-next", "role": "shadow"}))
        for own, beside in ((2, 2), (3, 2), (60, 2), (2, 60), (1, 1)):
            decide(client, own, beside)
        clock.days = 0
        yield client


# --- what is drawn ----------------------------------------------------------------------------------------------------


def test_a_step_line_begins_with_what_there_was_and_goes_on_to_the_end():
    line = {"since": "a", "until": "z", "opening": 7, "points": [{"at": "b", "balance": Decimal("6.5")}]}
    points = [(point["at"], point["balance"]) for point in actors.steps(line)]
    assert points == [("a", 7), ("b", 6.5), ("z", 6.5)]
    assert [point["balance"] for point in actors.steps({**line, "points": []})] == [7, 7]


def test_the_lines_of_an_account_lead_from_opening_to_closing():
    account = {"unit": "kWh", "opening": 1, "in": {"produce": Decimal("2.5")}, "out": {"given": 3}, "closing": 0.5}
    assert actors.lines(account) == [
        ("opening", "1 kWh"), ("produce", "+2.5 kWh"), ("given", "-3 kWh"), ("closing", "0.5 kWh")
    ]  # fmt: skip


def test_a_version_without_a_name_has_an_address_all_the_same():
    assert prompts.name({"role": "active", "prompt": None, "prompt_digest": None, "model": "m/1"}) == "active///m/1"
    assert prompts.share(None) == "-" and prompts.share(Decimal("0.9321")) == "93.2%"


# --- in a browser -----------------------------------------------------------------------------------------------------


def test_actors_are_listed_and_found_by_their_names(production, reading, browse):
    sheet = browse(reading).open("/actors")
    sheet.see("9 actors", "reserved")
    sheet.shoot("actors")
    sheet.fill("Find an actor", "EVIL")
    sheet.see("1 actor.")
    sheet.at("find=EVIL")
    sheet.fill("Find an actor", "nobody")
    sheet.see("There is no actor whose name has nobody in it.")
    sheet.narrow()


def written(amount):
    return f"{amount:,} kWh" if amount % 1 else f"{amount:,.0f} kWh"


def test_an_actors_statement_stands_at_its_address_and_survives_a_reload(production, reading, browse, clock):
    sheet = browse(reading).open(f"/actors?actor=actor-1&resource=energy&month={clock.month}")
    told = production.get("/v1/actors/actor-1/statement", month=clock.month)
    own = next(one for one in told["accounts"] if one["resource"] == "energy")
    sheet.see("actor-1", "Balance over time", "Given to", "Received from", "Statement as CSV")
    for amount in (own["opening"], own["closing"]):
        cell = sheet.page.get_by_role("gridcell", include_hidden=True).filter(has_text=written(amount))
        cell.first.wait_for(state="attached")
    for amount in (own["closing"], own["in_total"], own["out_total"]):
        sheet.see(written(amount))
    assert sheet.page.locator("[data-testid=stVegaLiteChart]").count() == 1
    sheet.shoot("actor")
    sheet.page.reload()
    sheet.settle().see("Balance over time")
    sheet.at(f"month={clock.month}").narrow()
    sheet.open("/actors?actor=actor-1&month=2001-01").see("Nothing moved in this time")
    sheet.open("/actors?actor=actor-1&month=all&resource=credits").see("credit")
    sheet.open("/actors?actor=nobody").see("There is no actor nobody")


def test_a_statement_is_downloaded_as_csv_that_adds_up(production, reading, browse, clock):
    sheet = browse(reading).open(f"/actors?actor={quote(EVIL, safe='')}&resource=energy&month=all")
    sheet.see("Statement as CSV")
    with sheet.page.expect_download() as waiting:
        sheet.page.get_by_role("button", name="Statement as CSV").click()
    rows = list(csv.DictReader(io.StringIO(waiting.value.path().read_text())))
    energy = {row["line"]: row["amount"] for row in rows if row["resource"] == "energy"}
    assert (energy["opening"], energy["received"], energy["closing"]) == ("0", "7.5", "7.5")
    assert {row["actor"] for row in rows} == {f"'{EVIL}"}


def test_a_hostile_name_is_shown_as_text(production, reading, browse):
    sheet = browse(reading).open(f"/actors?actor={quote(EVIL, safe='')}&month=all")
    sheet.see(EVIL, "node <b>x</b>")
    assert sheet.page.locator("[data-testid=stMain] b").count() == 0
    sheet.shoot("actor-hostile")


def test_its_links_lead_to_its_entries_and_to_freezing_it(production, operating, browse, clock):
    sheet = browse(operating).open(f"/actors?actor=actor-1&resource=energy&month={clock.month}")
    sheet.page.get_by_role("link", name="Its entries in this time").click()
    sheet.settle()
    sheet.at("/ledger?", "actor=actor-1")
    sheet.open("/actors?actor=actor-1").page.get_by_role("link", name="Freeze or thaw it").click()
    sheet.settle().see("Freeze an actor")


def test_prompts_are_compared_and_shown_with_their_text(production, reading, browse):
    sheet = browse(reading).open("/prompts")
    sheet.see("10 calls", "propose_transfer", "Shadow beside it", "What it says")
    own = load("propose_transfer")
    sheet.see(own.sources[0][0])
    sheet.shoot("prompts")
    item = next(one for one in production.get("/v1/prompts")["items"] if one["role"] == "shadow")
    version = "/".join(("shadow", "propose_transfer", item["prompt_digest"][:16], "gemini-next"))
    sheet.open("/prompts?version=" + quote(version, safe="")).see("It is a shadow", "Beside what was decided")
    sheet.page.reload()
    sheet.settle().see("It is a shadow")
    sheet.shoot("prompt-shadow")
    sheet.narrow()


def test_a_grid_that_asked_nobody_says_how_to_begin_and_a_changed_file_that_it_has(server, browse):
    name = server.template("app", apps.fill)
    with (
        server.database(name) as url,
        apps.running(url) as client,
        dashboard(str(client.http.base_url), apps.KEYS["read"]) as found,
    ):
        browse(found).open("/prompts").see("No model was asked yet")
        with Writer(url, "main") as writer:  # as if the file had been another one when it was put in force
            other = Activation("propose_transfer", MODEL, "ab" * 32, "active", "mia", "backtested")
            writer.submit(lambda engine: engine.activate(other, int(time.time() * 1_000_000)))
            gone = Activation("gone", MODEL, "cd" * 32, "shadow", "mia", "to compare")
            writer.submit(lambda engine: engine.activate(gone, int(time.time() * 1_000_000)))
        sheet = browse(found)
        for _ in range(30):  # what the API answered just before is shown for a moment
            if "has changed since" in sheet.open("/prompts").text:
                break
            sheet.page.wait_for_timeout(500)
        sheet.see("has changed since", "abababababab")
        sheet.open("/prompts?version=" + quote(f"shadow/gone/{'cd' * 8}/{MODEL}", safe="")).see("Its file is not here")
