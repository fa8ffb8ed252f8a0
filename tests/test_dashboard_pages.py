"""What pages decide, without a browser: Streamlit's own harness, and an API that is played."""

import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import frame
from dashboard.client import Answer, Away, Refused
from tests.test_dashboard_text import summary

SCRIPT = Path(frame.__file__).parent / "start" / "script.py"
SIGN_IN = {"redirect_uri": "http://127.0.0.1:8501/oauth2callback", "cookie_secret": "s" * 32, "client_id": "c",
           "client_secret": "x", "server_metadata_url": "http://127.0.0.1:9/none"}  # fmt: skip
HEAD = {"seq": 812, "digest": "9f" * 32, "at": "2026-11-22T12:00:00Z"}


class Played:
    """An API that answers by path; an exception is raised."""

    def __init__(self, **answers):
        self.answers, self.asked = answers, []
        self.at, self.stale = None, ""

    def get(self, path, fresh_s=0, **query):
        self.asked.append(path)
        found = self.answers.get(path.removeprefix("/v1/").replace("/", "_"), Refused(404, {"detail": "not there"}))
        if isinstance(found, Exception):
            raise found
        return Answer(found, self.at or time.time(), self.stale)

    def act(self, method, path, body, once, dry_run=False):
        self.asked.append(f"{method} {path}")
        raise Away("not here")

    def forget(self):
        pass


def whole(**changed):
    return summary(head=HEAD, epoch=42, entries=9, refused={"by_code": {}}, changes=[], as_of=HEAD["at"],
                   constraints={"seq": 1, "at": HEAD["at"], "constraints": {}},
                   prompts={"active": None, "shadow": None},
                   series={"step_seconds": 3600, "points": []}, **changed)  # fmt: skip


@pytest.fixture
def played(monkeypatch):
    monkeypatch.setenv("GRIDGOV_API_KEY", "gridgov_key")

    def play(**answers):
        api = Played(**answers)
        monkeypatch.setattr(frame, "_api", lambda url, key: api)
        return api

    return play


def look(query=None, **secrets):
    at = AppTest.from_file(SCRIPT, default_timeout=60)
    at.query_params.update(query or {})
    for name, value in secrets.items():
        at.secrets[name] = value
    return at.run()


def read(at):
    assert not at.exception, at.exception
    parts = [*at.markdown, *at.caption, *at.info, *at.warning, *at.error, *at.success, *at.text, *at.title]
    return "\n".join(str(part.value) for part in parts)


def test_page_says_that_the_grid_is_paused_by_whom_and_why(played):
    pause = {"since": HEAD["at"], "seq": 801, "operator": "mia **x**", "reason": "storm"}
    window = {**whole()["window"], "since": HEAD["at"], "reversals": 0, "overrides": 0}
    played(summary=whole(paused=pause, window=window), recent_proposals={"items": [], "next": None})
    said = read(look())
    assert "**Paused** since 2026-11-22 12:00:00 UTC" in said and "by `mia **x**`: `storm`" in said
    assert "The grid is paused; the last outcome came 1 min ago." in said


def test_ages_are_those_of_now_and_not_of_the_answer(played):
    window = {**whole()["window"], "since": HEAD["at"], "reversals": 0, "overrides": 0}
    api = played(summary=whole(window=window), recent_proposals={"items": [], "next": None})
    api.at = time.time() - 7_230
    assert "The loop is silent: the last outcome came 2 h 1 min ago." in read(look())
    api.stale = "nothing answers"
    said = read(look())
    assert "**The API is away:**" in said and "cannot be said while the API is away" in said
    assert "The loop lives" not in said and "the last known outcome came 2 h 1 min ago" in said
    assert "**What needs you:** an API that is away" in said and "a loop that is silent" not in said


def test_page_cries_where_the_sums_do_not_add_up(played):
    window = {**whole()["window"], "since": HEAD["at"], "reversals": 0, "overrides": 0}
    wrong = {"ok": False, "sums": {"energy": 3, "water": 0}}
    played(summary=whole(conservation=wrong, window=window), recent_proposals={"items": [], "next": None})
    said = read(look())
    assert "**The sums do not add up**: `energy`" in said and "do NOT add up" in said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Refused(401, {"detail": "no good"}), "this key may not read it"),
        (Refused(404, {"detail": "?"}), "of another version than this dashboard"),
        (Away("nothing answers"), "No production can be seen here"),
    ],
)
def test_page_without_an_answer_says_what_to_do(played, error, said):
    played(summary=error, me=error)
    assert said in read(look())


def test_nobody_sees_production_before_signing_in_where_sign_in_is_configured(played, monkeypatch):
    asked = played(summary=Refused(401, {"detail": "a key is needed"}))
    keys = []

    def called(url, key):
        keys.append(key)
        return asked

    monkeypatch.setattr(frame, "_api", called)
    at = look(auth=SIGN_IN)
    assert [button.label for button in at.sidebar.button][:1] == ["Sign in"]
    assert "A key is needed" in read(at)
    assert set(keys) == {None}  # not the environment's


@pytest.mark.parametrize(
    ("user", "own", "said"),
    [
        ({"email": "mia@example.org", "email_verified": True}, "gridgov_mia", ""),
        ({"email": "mia@example.org"}, "gridgov_mia", ""),
        ({"email": "mia@example.org", "email_verified": False}, None, "without an e-mail address that was checked"),
        ({"email": "eve@example.org"}, None, '`"eve@example.org" = "gridgov_..."` in `[keys]`'),
        ({}, None, "without an e-mail address that was checked"),
    ],
)
def test_who_signed_in_has_the_key_of_their_own_or_none(played, monkeypatch, user, own, said):
    asked = played(summary=Refused(401, {"detail": "a key is needed"}))
    keys = set()

    def called(url, key):
        keys.add(key)
        return asked

    monkeypatch.setattr(frame, "_api", called)
    monkeypatch.setattr("streamlit.user", {"is_logged_in": True, **user})
    shown = read(look(auth=SIGN_IN, keys={"mia@example.org": "gridgov_mia"}))
    assert keys == {own}  # never the environment's
    assert said in shown


# --- what an address says ---------------------------------------------------------------------------------------------

ID, OTHER = "9f1b7c1e-0000-4000-8000-000000000001", "9f1b7c1e-0000-4000-8000-000000000002"
AWAY_PATHS = ("../../v1/me?" + "a" * 24, "../ledger/5/reverse%23" + "a" * 14)


def opened(page, **query):
    at = AppTest.from_string(
        f"from dashboard import frame\nfrom dashboard.pages import {page}\n"
        f"import streamlit as st\nst.session_state.update(page={page!r}, links=0)\n{page}.show()",
        default_timeout=60,
    )
    at.query_params.update(query)
    return at.run()


def item(id_, taker):
    transfer = {"from": "home-1", "to": taker, "resource": "energy", "amount": 45}
    return {"proposal_id": id_, "seq": 9, "epoch": 3, "proposer": "planner", "at": HEAD["at"], "age_seconds": 60.0,
            "held_until": None, "epochs_left": None, "transfers": [transfer], "reasoning": "because"}  # fmt: skip


def operating(played, **answers):
    held = {"count": 1, "items": [item(OTHER, "home-9")]}
    return played(summary=whole(held=held), me={"name": "mia", "scopes": ["read", "operate"]}, **answers)


@pytest.mark.parametrize(("page", "name"), [("ledger", "entry"), ("journal", "seq"), ("proposals", "id")])
@pytest.mark.parametrize("said", ["²", "9" * 40, *AWAY_PATHS])
def test_address_of_nothing_says_so_and_asks_for_nothing_else(played, page, name, said):
    api = played(summary=whole())
    assert "is no " in read(opened(page, **{name: said}))
    assert {path for path in api.asked if "me" in path or "reverse" in path} == set()


@pytest.mark.parametrize("query", [{"id": AWAY_PATHS[1]}, {"entry": "²"}, {"id": AWAY_PATHS[0]}])
def test_nothing_is_taken_back_by_an_address_of_nothing(played, query):
    api = operating(played)
    assert "is no " in read(opened("operate", act="reverse", **query))
    assert not [path for path in api.asked if "reverse" in path]


def approvals(at):
    return [button.key for button in at.button if "approve" in (button.key or "")]


def test_held_proposal_that_an_address_names_is_shown_also_where_it_is_not_among_the_oldest(played, monkeypatch):
    own = item(ID, "home-2")
    told = {"proposal_id": ID, "outcome": "held", "seq": 8, "epoch": 3, "decided": {"outcome": "held"}, "proposal": own}
    api = operating(played, **{f"proposals_{ID}": told})
    monkeypatch.setattr(api, "act", lambda *_, **__: {"outcome": "executed", "violations": [], "balances": []})
    at = opened("operate", act="held", id=ID)
    assert approvals(at) == [f"do-/v1/proposals/{ID}/approve-Approve"] and "home-1 → home-2" in read(at)
    at.text_input[0].input("for this one").run()
    at.query_params["id"] = OTHER
    at.run()
    assert approvals(at) == [f"do-/v1/proposals/{OTHER}/approve-Approve"] and at.text_input[0].value == ""


@pytest.mark.parametrize(
    ("outcome", "codes", "said"),
    [
        ("executed", [], "settled already: approved by `mia`, and executed"),
        ("rejected", ["hold_rejected"], "settled already: rejected by `mia`"),
        ("rejected", ["hold_expired"], "settled already: expired"),
    ],
)
def test_no_other_proposal_is_put_in_place_of_one_that_was_settled(played, outcome, codes, said):
    told = {"proposal_id": ID, "outcome": outcome, "seq": 8, "epoch": 3, "decided": {"outcome": "held"},
            "operator": "mia", "violations": [{"code": code} for code in codes]}  # fmt: skip
    operating(played, **{f"proposals_{ID}": told})
    at = opened("operate", act="held", id=ID)
    assert said in read(at) and approvals(at) == []
    assert approvals(opened("operate", act="held", id=AWAY_PATHS[0])) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the folder of secrets is Linux's")
def test_without_secrets_there_is_no_sign_in(played):
    played(summary=Away("x"))
    assert "Sign in" not in [button.label for button in look().sidebar.button]


@pytest.mark.parametrize("said", ['{"actors": null}', '{"hold_epochs": NaN}', '{"actors": {"max_tranfer": {}}}'])
def test_form_of_constraints_says_what_it_cannot_take_and_asks_for_nothing(played, monkeypatch, said):
    now = {"max_transfer": {"energy": 50, "actors": {"home-1": {"energy": Decimal("0.5")}}}, "hold_epochs": 24}
    api = operating(played, constraints={"seq": 1, "constraints": now})
    monkeypatch.setattr(frame, "units", lambda: {"energy": "kWh"})
    at = opened("operate", act="constraints")
    assert '"energy": 0.5' in at.text_area[0].value and "Change something" in read(at)
    at.text_area[0].input(said).run()
    assert "This cannot be taken" in read(at)
    assert not [path for path in api.asked if path.startswith("PUT")]
