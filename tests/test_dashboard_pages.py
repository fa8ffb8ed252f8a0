"""What pages decide, without a browser: Streamlit's own harness, and an API that is played."""

import sys
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

    def get(self, path, fresh_s=0, **query):
        self.asked.append(path)
        found = self.answers.get(path.removeprefix("/v1/").replace("/", "_"), Refused(404, {"detail": "not there"}))
        if isinstance(found, Exception):
            raise found
        return Answer(found, 1_790_000_000.0)

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


@pytest.mark.skipif(sys.platform != "linux", reason="the folder of secrets is Linux's")
def test_without_secrets_there_is_no_sign_in(played):
    played(summary=Away("x"))
    assert "Sign in" not in [button.label for button in look().sidebar.button]
