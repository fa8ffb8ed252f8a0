"""The dashboard's pages over production, in a real browser, in front of a real app on a real Postgres."""

import json
import re
import uuid

import pandas as pd
import pytest

from dashboard.charts import OUTCOMES
from dashboard.frame import FRAME_FRESH_S
from tests.apps import KEYS, good, moving
from tests.browser import dashboard
from tests.lossy import lossy

pytest_plugins = ["tests.browser"]

HOSTILE = "<img src=x onerror=alert(1)> **bold** [link](http://evil.example) $x^2$ :red[red] :smile: `code`"
"""What an actor or a model may write."""

EVIL = "evil **b** <b>x</b> :smile: `c`"
"""The name of an actor."""


@pytest.fixture(scope="module")
def story(production):
    """A history that has one of everything: what came of each, by name."""
    client = production
    good(client.act("/v1/actors", {"id": EVIL, "type": "node", "reason": "it joins"}))
    found = {"executed": client.propose(12.5)}
    for number in range(2, 8):
        client.propose(number, giver=f"actor-{number}", taker="actor-8")
    found["refused"] = client.propose(60)
    held = {"proposal_id": str(uuid.uuid4()), "proposal": moving(45, "actor-3", EVIL, reasoning=HOSTILE)}
    found["held"] = good(client.ask("POST", "/v1/proposals", held))
    found["held-2"] = client.propose(44, "actor-4", "actor-5")
    context = client.get("/v1/context")
    said = json.dumps({"transfers": moving(3, "actor-2", EVIL)["transfers"], "reasoning": HOSTILE})
    reply = {
        "candidates": [{"content": {"parts": [{"text": said}]}, "finishReason": "STOP"}],
        "modelVersion": "gemini-3.8-flash",
        "usageMetadata": {"promptTokenCount": 812, "candidatesTokenCount": 96, "totalTokenCount": 908},
    }
    body = {"proposal_id": context["proposal_id"], "request_key": context["request_key"], "model_response": reply}
    found["asked"] = good(client.ask("POST", "/v1/proposals", {**body, "latency_ms": 1730}))
    found["malformed"] = good(
        client.ask("POST", "/v1/proposals", {"proposal_id": str(uuid.uuid4()), "model_response": {"candidates": []}})
    )
    found["by hand"] = good(
        client.act("/v1/transfers", {"transfers": moving(7, "actor-1", "actor-8")["transfers"], "reason": "a leak"})
    )
    back = client.propose(2, "actor-6", "actor-7")
    good(client.act(f"/v1/proposals/{back['proposal_id']}/reverse", {"reason": "wrong meter"}))
    found["back"] = back
    return found


def shown_as_text(sheet):
    """Nothing that others wrote became an element of the page."""
    main = sheet.page.locator("[data-testid=stApp]")
    assert main.locator("img[src=x]").count() == 0
    assert main.locator("a[href*='evil.example']").count() == 0
    assert main.locator("strong, b").filter(has_text="bold").count() == 0
    assert main.locator(".katex").count() == 0
    assert "\N{SMILING FACE WITH OPEN MOUTH AND SMILING EYES}" not in main.inner_text()


def test_today_says_how_it_stands(story, reading, browse):
    sheet = browse(reading).open("/")
    sheet.see("The loop lives", "What needs you:", "2 held proposals to approve or reject", "Data as of")
    sheet.see("9 executed, 1 refused, 2 held for a person and 1 malformed", "max_transfer")
    sheet.see("the balances of each resource add up to 0 with the outside. That is all that is checked here")
    sheet.shoot("today")
    shown_as_text(sheet)


def test_today_draws_itself_anew(production, story, reading, browse):
    sheet = browse(reading).open("/today")
    sheet.see("2 held proposals")
    id_ = production.propose(43, "actor-7", "actor-8")["proposal_id"]
    sheet.see("3 held proposals")
    good(production.act(f"/v1/proposals/{id_}/reject", {}))
    sheet.see("2 held proposals")


def test_from_the_chart_to_the_reason_in_three_clicks(story, reading, browse):
    sheet = browse(reading).open("/")
    sheet.bar(OUTCOMES["executed"], place=-1).at("/proposals?", "since=", "until=", "outcome=executed")
    sheet.pick("proposals").at("id=")
    sheet.see("How it was judged", "What it moved")


@pytest.mark.parametrize("name", ["asked", "refused", "back", "held", "malformed"])
def test_story_of_a_proposal_says_what_was_seen_said_judged_and_moved(story, reading, browse, name):
    sheet = browse(reading).open(f"/proposals?id={story[name]['proposal_id']}")
    sheet.see("What it said", "How it was judged", "What it moved", "What it saw", "Where it stands")
    expected = {
        "asked": [
            "gemini-3.8-flash",
            "1,730 ms",
            "prompt 812",
            "The raw reply",
            HOSTILE,
            "+3 kWh",
            "What the model was told",
            "What the model was asked",
        ],
        "refused": ["60 kWh is above 50 kWh", "max_transfer", "50 kWh", "Nothing."],
        "back": ["Taken back", "wrong meter", "-2 kWh"],
        "held": ["It waits for one until the end of epoch 25", HOSTILE],
        "malformed": ["It was no proposal:", "There was nothing to judge."],
    }
    sheet.see(*expected[name])
    sheet.see(re.compile(rf"^{story[name]['seq']}:{story[name]['digest']}$"))
    for expander in sheet.page.locator("[data-testid=stExpander] summary").all():
        expander.click()
    sheet.settle().see('"actors"')
    shown_as_text(sheet)
    sheet.shoot(f"story-{name}")


def test_list_of_proposals_is_filtered_by_its_address_and_opens_a_story(story, reading, browse):
    sheet = browse(reading).open("/proposals")
    sheet.see(re.compile(r"\d+ rows; these are all."))
    sheet.shoot("proposals")
    sheet.open("/proposals?outcome=rejected&code=max_transfer").see("1 row;")
    sheet.page.reload()
    sheet.settle().see("1 row;")
    assert "outcome=rejected" in sheet.page.url
    sheet.pick("proposals")
    sheet.see("60 kWh is above 50 kWh", "How it was judged")
    sheet.at(f"id={story['refused']['proposal_id']}")
    sheet.click("← All proposals").see("1 row;")
    sheet.at("outcome=rejected")
    assert "id=" not in sheet.page.url
    sheet.fill("Search", "ACTOR-7").see("these are all")
    sheet.page.wait_for_url(re.compile("text=ACTOR-7"))
    shown_as_text(sheet)


def test_ledger_pages_and_opens_an_entry(story, reading, browse):
    sheet = browse(reading).open("/ledger?kind=override").see("1 row;")
    sheet.pick("ledger")
    sheet.see("7 kWh", "executed by operate: a leak", "actor-1 → actor-8")
    sheet.at(f"entry={story['by hand']['entries'][0]}")
    sheet.shoot("entry-by-hand")
    sheet.open("/ledger?before=5").see("4 rows;")
    sheet.open("/ledger").see("these are all")
    sheet.shoot("ledger")
    sheet.open("/ledger?entry=999999").see("there is no ledger entry 999999")
    sheet.open("/ledger?entry=x").see("is no number of an entry")


def test_journal_opens_a_record_by_its_number_and_by_the_request_of_a_link(production, story, reading, browse):
    sheet = browse(reading).open("/journal")
    sheet.shoot("journal")
    sheet.open("/journal?kind=reversal").see("1 row;")
    sheet.pick("journal")
    sheet.see("executed by operate: wrong meter", "The proposal's story")
    sheet.shoot("record")
    refused = production.act("/v1/transfers", {"transfers": moving(10**9)["transfers"]}).json()
    request = refused["url"].partition("/journal")[2]
    sheet.open(f"/journal{request}").see(f"Record {refused['seq']}: by hand", "insufficient_balance")
    sheet.open("/journal?seq=1").see("Record 1: the beginning")
    sheet.open("/journal?seq=99999").see("There is no record 99,999 yet.")
    sheet.open(f"/journal?request={uuid.uuid4()}").see("No record answers this request")


@pytest.mark.parametrize("kind", ["CSV", "Parquet"])
def test_what_is_filtered_is_exported(story, reading, browse, tmp_path, kind):
    sheet = browse(reading).open("/ledger?kind=transfer")
    sheet.page.get_by_test_id("stPopover").get_by_role("button").click()
    with sheet.page.expect_download() as waiting:
        sheet.page.get_by_role("button", name=kind, exact=True).click()
    file = tmp_path / "export"
    waiting.value.save_as(file)
    found = pd.read_csv(file) if kind == "CSV" else pd.read_parquet(file)
    assert set(found["kind"]) == {"transfer"}
    assert len(found) == 9
    assert "12.5" in set(found["amount"].astype(str))


def test_same_address_shows_the_same_after_the_dashboard_was_started_again(production, story, browse):
    where = str(production.http.base_url)
    with dashboard(where, KEYS["read"]) as first:
        port = int(first.url.rpartition(":")[2])
        sheet = browse(first).open("/proposals?outcome=held").see("2 rows;")
    with dashboard(where, KEYS["read"], port=port):
        sheet.open("/proposals?outcome=held").see("2 rows;")


def test_while_the_api_is_away_the_last_answers_are_shown_with_their_time(production, story, browse):
    with lossy(str(production.http.base_url)) as network, dashboard(network.url, KEYS["operate"]) as found:
        sheet = browse(found).open("/").see("The loop lives")
        sheet.open("/ledger").see("these are all")
        network.away = True
        sheet.page.wait_for_timeout(1_000 * FRAME_FRESH_S + 500)  # until then, what was answered is new enough
        sheet.open("/ledger").see("The API is away:", "what it answered last", "these are all")
        sheet.shoot("away")
        sheet.open("/journal").see("The API is away:", "This cannot be shown now")
        sheet.open("/operate?act=transfer").see("The API is away, and nothing can be done")
        network.away = False
        sheet.open("/journal").see("these are all")
        assert sheet.page.get_by_text("The API is away").count() == 0
