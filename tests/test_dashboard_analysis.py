"""The pages of runs in a real browser, over real runs: links that stay, three clicks from a chart to its reason."""

import json
import shutil
from pathlib import Path

import pytest

from dashboard import runs
from dashboard.charts import OUTCOMES
from gridgov import progress
from tests.browser import CLICK_MS, PATIENCE_MS, TimeoutError, dashboard
from tests.stores import HOSTILE

pytest_plugins = ["tests.browser", "tests.stores"]


@pytest.fixture(scope="module")
def analysis(store):
    """A dashboard over the runs alone."""
    with dashboard(runs=store.folder) as found:
        yield found


def marked(sheet, name, row):
    """Marks a row of a table of runs; the link that opens it."""
    link = sheet.page.get_by_role("link", name="Open").first
    for _ in range(PATIENCE_MS // CLICK_MS):
        sheet.mark(name, row)
        try:
            link.wait_for(timeout=CLICK_MS)
        except TimeoutError:
            continue
        return link
    raise AssertionError(f"no click marks row {row} of {name}")


def view(sheet, name):
    """Turns to a side of a run."""
    sheet.page.locator("[data-testid=stMain]").get_by_role("radio", name=name, exact=True).click()
    return sheet.settle()


def ref(store, name):
    return runs.locate(store.folder, name)


# --- the list ---------------------------------------------------------------------------------------------------------


def test_list_of_runs_leads_to_a_run(store, analysis, browse):
    sheet = browse(analysis).open("/runs?find=cassette+planner")
    sheet.see("No run is like that.")
    sheet.open("/runs?scenario=seed")
    sheet.shoot("runs-filtered")
    sheet.open("/runs")
    sheet.see("Click the box before a row")
    sheet.shoot("runs")
    marked(sheet, "runs", 1).click()
    sheet.see("journal records")
    sheet.at("/run?run=")


def test_run_under_way_is_shown_until_it_is_in_the_list(store, tmp_path, browse):
    said = {"kind": "run", "scenario": "community-week", "seed": 1, "proposers": "planner", "what": "epochs"}
    clock = iter(range(1_800_000_000, 1_900_000_000)).__next__
    with dashboard(runs=tmp_path) as found:
        sheet = browse(found)
        with progress.Telling(tmp_path, store.week, 60, said, clock) as told:
            told.tell(20)
            sheet.open("/runs").see("20 of 60 epochs")
            sheet.shoot("under-way")
            told.tell(40)
            sheet.see("40 of 60 epochs")
            other = browse(found).open(f"/run?run={store.week}")
            other.see("as soon as it is complete")
            shutil.copy(store.folder / f"{store.week}.duckdb", tmp_path)
        sheet.see("Click the box before a row")
        other.see("journal records")


def test_empty_store_says_what_to_type(tmp_path, browse):
    with dashboard(runs=tmp_path) as found:
        sheet = browse(found).open("/runs").see("gridgov run scenarios/seed.yaml")
        sheet.shoot("empty")


# --- one run ----------------------------------------------------------------------------------------------------------


def test_slider_is_in_the_address_and_survives_reload_and_restart(store, browse):
    with dashboard(runs=store.folder) as found:
        sheet = browse(found).open(f"/run?run={store.week}&epoch=14")
        sheet.see("Epoch 14 closed")
        slider = sheet.page.get_by_role("slider").first
        slider.focus()
        slider.press("ArrowRight")
        sheet.see("Epoch 15 closed")
        sheet.at("epoch=15")
        path = sheet.page.url.removeprefix(found.url)
        sheet.page.reload()
        sheet.settle().see("Epoch 15 closed")
    with dashboard(runs=store.folder) as again:
        browse(again).open(path).see("Epoch 15 closed")


def test_from_a_chart_to_the_reason_in_two_clicks(store, analysis, browse):
    sheet = browse(analysis).open(f"/run?run={store.everything}")
    sheet.see("What became of proposals")
    sheet.bar(OUTCOMES["rejected"])
    sheet.at("view=Proposals", "outcome=rejected")
    sheet.see("Search reasons and ids")
    sheet.pick("proposal-rows").at("proposal=")
    sheet.see("How it was judged", "What it saw", "What it moved")
    sheet.shoot("story-refused")
    story = sheet.page.url.removeprefix(analysis.url)
    sheet.click("Back to the proposals").see("Search reasons and ids")
    browse(analysis).open(story).see("How it was judged")


def test_bar_of_a_rule_leads_to_who_broke_it(store, analysis, browse):
    sheet = browse(analysis).open(f"/run?run={store.seed}")
    sheet.page.get_by_text("Click a bar to see who broke it").wait_for()
    sheet.bar(OUTCOMES["rejected"], chart=-1).at("view=Proposals", "rule=")


@pytest.mark.parametrize("name", ["week", "fishery", "everything", "seed"])
def test_every_side_of_a_run_is_drawn(store, analysis, browse, name):
    sheet = browse(analysis).open(f"/run?run={getattr(store, name)}")
    sheet.see("Which rules were broken")
    sheet.page.locator("[data-testid=stVegaLiteChart] svg").first.wait_for()
    sheet.shoot(f"run-{name}")
    for side in ("Who gave to whom", "Proposals", "Ledger", "Journal", "Model calls", "Metrics", "Scenario"):
        view(sheet, side)
        assert "This cannot be shown" not in sheet.text, side
        assert "This page failed" not in sheet.text, side
        sheet.narrow()
        if name == "everything":
            sheet.shoot(f"run-{name}-{side.replace(' ', '-').lower()}")


def test_ledger_entry_leads_to_what_made_it(store, analysis, browse):
    sheet = browse(analysis).open(f"/run?run={store.week}&view=Ledger&kind=transfer")
    sheet.see("Click the box before a row")
    sheet.pick("ledger-rows").at("view=Proposals", "proposal=")
    sheet.see("What it moved")
    sheet.open(f"/run?run={store.week}&view=Ledger&kind=produce")
    sheet.pick("ledger-rows", 2).at("view=Journal", "record=")
    sheet.see("Back to the journal")


def test_pages_of_a_long_table_are_in_the_address(store, analysis, browse):
    sheet = browse(analysis).open(f"/run?run={store.week}&view=Ledger&page=3")
    sheet.see("201 to 300 of")
    sheet.fill("Search: an entry's number, or words of its origin", "7")
    sheet.see("1 to 1 of 1")


def test_hostile_reasons_are_text(store, analysis, browse):
    found = runs.rows(
        ref(store, store.evil), "proposals_page", fill={"limit": 9, "offset": 0},
        **dict.fromkeys(("outcome", "proposer", "first", "last", "code", "actor", "find")),
    )  # fmt: skip
    sheet = browse(analysis)
    sheet.page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    sheet.open(f"/run?run={store.evil}&view=Proposals")
    sheet.shoot("hostile-list")
    sheet.open(f"/run?run={store.evil}&view=Proposals&proposal={found[0]['proposal_id']}")
    sheet.see("What it saw")
    assert HOSTILE in sheet.text
    assert sheet.page.locator("[data-testid=stMain] strong").count() == 0
    assert sheet.page.locator("[data-testid=stMain] a[href*=evil]").count() == 0
    sheet.shoot("hostile-story")


# --- many -------------------------------------------------------------------------------------------------------------


def test_compare_shows_two_runs_beside_each_other(store, analysis, browse):
    sheet = browse(analysis).open(f"/compare?runs={store.week},{store.none}")
    sheet.see("Where two of them part", "They part at record", "Balances overlaid", "Could it be chance?")
    sheet.page.locator("[data-testid=stVegaLiteChart] svg").first.wait_for()
    sheet.shoot("compare")
    sheet.page.get_by_role("link", name="Read its story in").first.click()
    sheet.see("How it was judged")
    sheet.open(f"/compare?runs={store.sweep}").see("12 runs failed and are left out")
    sheet.shoot("compare-sweep")


def test_sweep_shows_its_curves_and_leads_to_its_runs(store, analysis, browse):
    sheet = browse(analysis).open("/sweeps")
    sheet.see("36 runs, 12 failed")
    sheet.click("36 runs", exact=False)
    sheet.at("/sweeps?file=")
    sheet.see("12 runs failed", "A point is a run")
    sheet.page.locator("[data-testid=stVegaLiteChart] svg").first.wait_for()
    sheet.shoot("sweep")
    marked(sheet, "sweep-rows", 0).click()
    sheet.at("/run?run=")
    sheet.see("journal records")


def test_point_of_a_curve_is_a_link_to_its_run(store, analysis, browse):
    sheet = browse(analysis).open(f"/sweeps?file={store.sweep}")
    sheet.see("A point is a run")
    points = sheet.page.locator("[data-testid=stVegaLiteChart] svg .mark-symbol path[fill='#D55E00']")
    points.first.wait_for()
    points.first.click(force=True)
    sheet.at("/run?run=")
    sheet.see("journal records")


def test_store_is_as_it_was(store, analysis, browse):
    before = {path: path.stat().st_mtime_ns for path in store.folder.rglob("*")}
    browse(analysis).open(f"/run?run={store.week}").see("Which rules were broken")
    assert {path: path.stat().st_mtime_ns for path in Path(store.folder).rglob("*")} == before
    assert json.dumps(sorted(path.name for path in before)) == json.dumps(
        sorted(p.name for p in store.folder.rglob("*"))
    )
