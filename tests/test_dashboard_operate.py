"""What a person does by the dashboard: in a real browser, in front of a real app on a real Postgres."""

import re
import threading
import time
import uuid

import pytest

from tests import apps
from tests.apps import good, moving
from tests.browser import CLICK_MS, HEAD_PX, PATIENCE_MS, ROW_PX, TimeoutError, dashboard
from tests.lossy import lossy

pytest_plugins = ["tests.browser"]


def head(client):
    return client.get("/v1/control")["seq"]


def records(client, after):
    """The kinds of the records that came after this one."""
    return [item["kind"] for item in client.get("/v1/journal", after=after)["items"]]


def held(client, amount=45, giver="actor-3", taker="actor-4"):
    found = client.propose(amount, giver, taker)
    assert found["outcome"] == "held"
    return found["proposal_id"]


def outcome(client, id_):
    return client.get(f"/v1/proposals/{id_}")["outcome"]


def test_held_proposal_is_approved_by_keyboard_with_a_reason(production, operating, browse):
    id_ = held(production)
    sheet = browse(operating).open(f"/operate?act=held&id={id_}")
    sheet.see("Dry run: what it would come to", re.compile("actor-3: .* → .* kWh energy"))
    assert sheet.page.get_by_role("button", name="Approve").is_disabled()
    sheet.shoot("operate-held")
    sheet.page.get_by_label("Reason").fill("agreed by phone")
    sheet.page.get_by_role("button", name="Approve").and_(sheet.page.locator(":enabled")).wait_for()
    sheet.settle().press("Alt+a")
    sheet.see("Done, once.", "approved by operate: agreed by phone")
    sheet.shoot("operate-approved")
    assert outcome(production, id_) == "executed"
    story = production.get(f"/v1/proposals/{id_}/story")
    assert (story["settled"]["operator"], story["settled"]["reason"]) == ("operate", "agreed by phone")


def test_held_proposal_is_rejected_and_the_next_one_is_shown(production, operating, browse):
    first, second = held(production, 44), held(production, 43, "actor-5", "actor-6")
    sheet = browse(operating).open("/operate")
    sheet.see("2 proposals wait.")
    sheet.press("Alt+ArrowDown").page.get_by_test_id("stText").filter(has_text="actor-5 → actor-6 43 kWh").wait_for()
    sheet.fill("Reason", "too much at once").click("Reject", exact=False)
    sheet.see("Rejected, once.", "nothing was moved")
    assert (outcome(production, first), outcome(production, second)) == ("held", "rejected")
    sheet.click("Do something else").see("1 proposal waits.")
    sheet.fill("Reason", "this too").click("Reject", exact=False).see("Rejected, once.")
    sheet.click("Do something else").see("Nothing waits for a person.")


def test_grid_is_paused_and_resumed_and_every_page_says_so(production, operating, browse):
    sheet = browse(operating).open("/operate?act=control")
    sheet.fill("Reason", "a **storm**").click("Pause").see("Done, once.")
    assert production.get("/v1/control")["paused"]
    sheet.open("/ledger").see("Paused", "a **storm**", "Every proposal is refused.")
    sheet.shoot("paused")
    sheet.open("/operate?act=control").fill("Reason", "it is over").click("Resume").see("Done, once.")
    assert not production.get("/v1/control")["paused"]


def test_transfer_by_hand_is_shown_first_and_done_exactly(production, operating, browse):
    before = head(production)
    sheet = browse(operating).open("/operate?act=transfer")
    sheet.choose("From", "actor-1").choose("To", "actor-2").fill("Amount", "12.125")
    sheet.see(re.compile(r"actor-1: .* → .* kWh energy \(-12.125 kWh\)"))
    sheet.shoot("operate-transfer")
    assert head(production) == before
    sheet.fill("Reason", "a leak").click("Transfer").see("Done, once.", "Ledger entry")
    sheet.shoot("operate-transferred")
    entry = production.get("/v1/recent/ledger", limit=1)["items"][0]
    assert (entry["kind"], entry["amount"], entry["actor_from"]) == ("override", 12.125, "actor-1")
    assert records(production, before) == ["override"]


def test_transfer_that_cannot_be_is_refused_in_words(production, operating, browse):
    sheet = browse(operating).open("/operate?act=transfer")
    sheet.choose("From", "actor-1").choose("To", "actor-1").fill("Amount", "1.23456")
    sheet.see("This cannot be done:")
    sheet.choose("To", "actor-2").fill("Amount", "999999999")
    sheet.see("refused", re.compile("is more than the .* that the sender has available"))
    sheet.fill("Amount", "a lot").see("This is no amount")
    sheet.fill("Amount", "1").fill("Amount", "1,5").see("This is no amount")


def test_entry_is_taken_back_from_its_own_page(production, operating, browse):
    entry = production.propose(3)["entries"][0]
    sheet = browse(operating).open(f"/ledger?entry={entry}")
    sheet.page.get_by_role("link", name="Take this entry back").click()
    sheet.see("Dry run: what it would come to").settle()
    sheet.fill("Reason", "wrong meter").click(f"Take entry {entry} back").see("Done, once.")
    assert production.get(f"/v1/ledger/{entry}")["reversed_by"]
    sheet.open(f"/ledger?entry={entry}").see("Taken back")
    assert sheet.page.get_by_role("link", name="Take this entry back").count() == 0


def write_into_a_cell(sheet, said):
    """Writes into the first cell of numbers of a table: it takes keys once it is drawn."""
    table = sheet.page.locator("[data-testid=stDataFrame]").first
    table.locator("[role=gridcell]").first.wait_for(state="attached")
    field = sheet.page.locator("#portal input").first
    for _ in range(PATIENCE_MS // CLICK_MS):
        table.click(position={"x": 200, "y": HEAD_PX + ROW_PX // 2})
        sheet.page.keyboard.type(said)
        try:
            field.wait_for(timeout=CLICK_MS)
        except TimeoutError:
            continue
        field.fill(said)
        field.press("Enter")
        return
    raise AssertionError("no cell takes what is typed")


def test_constraints_are_changed_after_a_look_at_what_they_would_have_done(production, operating, browse):
    production.propose(3)
    sheet = browse(operating).open("/operate?act=constraints")
    write_into_a_cell(sheet, "2")
    sheet.see(re.compile("Over the last 7 days this would have refused"))
    sheet.shoot("operate-constraints")
    sheet.fill("Reason", "winter").click("Put in force").see("Done, once.")
    found = production.get("/v1/constraints")["constraints"]
    assert found["max_transfer"]["energy"] == 2 and found["hold_above"] == {"energy": 40}
    good(production.act("/v1/constraints", {"constraints": {**found, "max_transfer": {"energy": 50}}}, method="PUT"))


def test_actor_is_registered_frozen_and_thawed(production, operating, browse):
    sheet = browse(operating).open("/operate?act=register")
    sheet.fill("Name", "home **18**").fill("Reason", "moved in").click("Register").see("Done, once.")
    for label, frozen in (("Freeze", True), ("Thaw", False)):
        sheet.open("/operate?act=freeze").choose("Actor", "home **18**" + (" (frozen)" if not frozen else ""))
        sheet.fill("Reason", "a broken meter").click(label).see("Done, once.")
        [actor] = [item for item in production.get("/v1/actors")["items"] if item["id"] == "home **18**"]
        assert actor["frozen"] is frozen


def test_prompt_and_model_are_put_in_force(production, operating, browse):
    sheet = browse(operating).open("/operate?act=activate")
    sheet.fill("Prompt", "nothing").see("This cannot be done:")
    sheet.fill("Prompt", "propose_transfer").fill("Model", "gemini-4-pro").see("would be active")
    sheet.fill("Reason", "backtested").click("Put in force").see("Done, once.")
    assert production.get("/v1/control")["active"]["active"]["model"] == "gemini-4-pro"


# --- once -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network(production):
    with lossy(str(production.http.base_url)) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def afar(network):
    """A dashboard that reaches the app through a network that may lose answers."""
    with dashboard(network.url, apps.KEYS["operate"]) as found:
        yield found


def transfer_form(sheet, reason):
    sheet.open("/operate?act=transfer").choose("From", "actor-7").choose("To", "actor-8")
    sheet.fill("Amount", "1").fill("Reason", reason)
    return sheet


def test_double_click_acts_once(production, network, afar, browse):
    before, network.acts = head(production), []
    sheet = transfer_form(browse(afar), "twice")
    sheet.page.get_by_role("button", name="Transfer", exact=True).dblclick()
    sheet.see("Done, once.")
    assert records(production, before) == ["override"]
    assert len({key for _, key, _ in network.acts}) == 1


def test_answer_that_is_lost_is_said_and_the_same_press_again_acts_once(production, network, afar, browse):
    before, network.acts = head(production), []
    sheet = transfer_form(browse(afar), "lost")
    network.lost = 1
    sheet.click("Transfer").see("No answer came", "it counts once")
    sheet.shoot("lost-answer")
    assert records(production, before) == ["override"]
    sheet.click("Transfer").see("Done, once.")
    assert records(production, before) == ["override"]


def test_reload_in_the_middle_of_an_act_shows_what_was_done(production, network, afar, browse):
    before, network.acts = head(production), []
    sheet = transfer_form(browse(afar), "reloaded")
    network.let.clear()
    sheet.page.get_by_role("button", name="Transfer", exact=True).click()
    deadline = time.monotonic() + 60
    while not network.acts and time.monotonic() < deadline:
        sheet.page.wait_for_timeout(50)
    threading.Timer(2, network.let.set).start()
    sheet.page.reload()
    sheet.settle().see("Done, once.")
    assert records(production, before) == ["override"]


# --- who may ----------------------------------------------------------------------------------------------------------


def test_who_may_not_operate_is_asked_for_a_key_that_may_and_it_is_forgotten_with_the_session(
    production, reading, browse
):
    id_ = held(production)
    sheet = browse(reading).open("/operate")
    sheet.see("The key read may not operate.")
    assert sheet.page.get_by_role("button", name="Approve").count() == 0
    sheet.shoot("operate-read-only")
    main = sheet.page.locator("[data-testid=stMain]")
    main.get_by_label("Key").fill(apps.KEYS["operate"])
    main.get_by_role("button", name="Use it").click()
    sheet.see("waits.").settle()
    assert apps.KEYS["operate"] not in sheet.page.content() and apps.KEYS["operate"] not in sheet.page.url
    sheet.fill("Reason", "signed in").click("Reject", exact=False).see("Rejected, once.")
    assert outcome(production, id_) == "rejected"
    other = browse(reading).open("/operate")
    other.see("The key read may not operate.")


def test_key_that_is_none_is_said_to_be_none(production, browse):
    with dashboard(str(production.http.base_url), f"gridgov_{'0' * 16}_{'x' * 43}") as found:
        sheet = browse(found).open("/ledger").see("this key may not read it")
    with dashboard(str(production.http.base_url)) as found:
        sheet = browse(found).open("/ledger").see("A key is needed to look at it")
        sheet.shoot("no-key")
        main = sheet.page.locator("[data-testid=stMain]")
        main.get_by_label("Key").fill(apps.KEYS["read"])
        main.get_by_role("button", name="Use it").click()
        sheet.see("Data as of")


def test_everything_is_journaled_under_ids_that_were_never_used_before(production):
    keys = [item["payload"].get("request") for item in production.get("/v1/journal", limit=1000)["items"]]
    used = [key for key in keys if key]
    assert used and len(set(used)) == len(used) and all(uuid.UUID(key) for key in used)
    assert moving
