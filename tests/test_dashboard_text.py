"""How the dashboard writes, and how it asks the API: no browser, no server."""

import json
import re
import time
from decimal import Decimal

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from dashboard import client, constraints_form, listing, text
from dashboard.client import Api, Away, Refused
from dashboard.pages import today

NOW = 1_700_000_000.0


@given(st.text())
def test_what_others_wrote_is_one_code_span_whatever_it_is(said):
    [block] = [token for token in MarkdownIt().parse(f"before {text.safe(said, 10_000)} after") if token.children]
    kinds = [child.type for child in block.children if child.content]
    assert kinds in (["text", "code_inline", "text"], ["text"])
    shown = [child.content for child in block.children if child.type == "code_inline"]
    assert shown == [text.plain(said, 10_000)] or not text.plain(said)


@pytest.mark.parametrize(
    "said", ["a `b` c", "``", "`", "a\nb", "x :smile: $y$ **z** <b>", "[a](b)", "| a |", "\u202eabc"]
)
def test_hostile_names_stay_text_in_labels(said):
    [block] = [token for token in MarkdownIt().parse(f"before {text.safe(said)} after") if token.children]
    assert [child.type for child in block.children] == ["text", "code_inline", "text"]
    assert "\u202e" not in text.safe(said) and "\n" not in text.safe(said)


def test_what_turns_or_hides_other_text_is_written_out_in_blocks():
    assert text.lines("a\u202eb\u2066c\x00\n\td \u05e9") == "a\\u202eb\\u2066c\\u0000\n\td \u05e9"


def test_long_text_is_cut_and_says_so():
    assert text.plain("x" * 500, 10) == "x" * 9 + "…"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Decimal("12.500"), "12.5 kWh"), (12_500, "12,500 kWh"), (0, "0 kWh"), (None, "-"), (0.1, "0.1 kWh"),
        (Decimal("999999999999.999"), "999,999,999,999.999 kWh"), ("12.5e3", "12.5e3 kWh"), (-3, "-3 kWh"),
    ],
)  # fmt: skip
def test_amounts_are_exact_and_have_their_unit(value, shown):
    assert text.amount(value, "kWh") == shown


def test_quantities_do_not_say_the_same_word_twice():
    assert text.quantity(Decimal("12.50"), "kWh", "energy") == "12.5 kWh energy"
    assert text.quantity(32, "credit", "credits") == "32 credits"


def test_changes_have_a_sign():
    assert [text.change(value, "l") for value in (3, -3, 0, Decimal("0.5"))] == ["+3 l", "-3 l", "±0 l", "+0.5 l"]


@pytest.mark.parametrize(
    ("ago", "said"),
    [(5, "5 s ago"), (59, "59 s ago"), (90, "1 min ago"), (3_900, "1 h 5 min ago"), (90_000, "1 d 1 h ago"),
     (-7_200, "in 2 h")],
)  # fmt: skip
def test_ages_are_in_their_largest_units(ago, said):
    assert text.age(NOW - ago, NOW) == said


def test_times_are_utc_to_the_second():
    assert text.moment("2026-11-22T12:00:00.123456Z") == "2026-11-22 12:00:00 UTC"
    assert text.when(None, NOW) == "never"
    assert text.instant("2026-11-22 12:00") == "2026-11-22T12:00:00Z"
    assert text.instant("2026-11-22T13:00:00+01:00") == "2026-11-22T12:00:00Z"
    assert text.instant("yesterday") is None


def test_cells_that_a_spreadsheet_would_run_are_written_as_text():
    written = listing.csv([{"reasoning": "=HYPERLINK(1)", "amount": -3}, {"reasoning": "@x", "amount": 2}]).decode()
    assert written.splitlines() == ["reasoning,amount", "'=HYPERLINK(1),-3", "'@x,2"]


# --- the three sentences ----------------------------------------------------------------------------------------------


def summary(**changed):
    outcomes = dict.fromkeys(text.DONE, 0)
    found = {
        "paused": None, "last_outcome": {"age_seconds": 60.0}, "held": {"count": 0, "items": []},
        "in_a_row": {"refused": 0, "unavailable": 0}, "outbox": {"lag": 0, "oldest": None},
        "conservation": {"ok": True, "sums": {}}, "before": None, "resources": [],
        "window": {"hours": 24, "total": 3, "outcomes": {**outcomes, "executed": 2, "noop": 1}},
    }  # fmt: skip
    return {**found, **changed}


def test_sentences_say_whether_the_loop_lives():
    assert today.lives(summary()) == "The loop lives: the last outcome came 1 min ago."
    assert (
        today.lives(summary(last_outcome={"age_seconds": 7_200}))
        == "The loop is silent: the last outcome came 2 h ago."
    )
    assert today.lives(summary(last_outcome=None)) == "The loop has not had an outcome yet."
    assert "is paused" in today.lives(summary(paused={"since": "2026-11-22T12:00:00Z"}))


def test_sentences_say_what_the_ai_did():
    assert today.did(summary()) == "In the last 24 hours there were 3 proposals: 2 executed and 1 with nothing to do."


def test_sentences_say_what_needs_a_person():
    assert today.needs(summary()) == []
    held = {"count": 21, "items": [{"age_seconds": 7_200}, {"age_seconds": 60}]}
    needed = today.needs(
        summary(held=held, in_a_row={"refused": 3, "unavailable": 4}, outbox={"lag": 40, "oldest": None},
                conservation={"ok": False, "sums": {"energy": 1}}, last_outcome={"age_seconds": 9_000})
    )  # fmt: skip
    assert [part.split(" (")[0] for part in needed] == [
        "21 held proposals to approve or reject", "sums that do not add up",
        "a model that gave no answer 4 times in a row", "3 refusals in a row", "40 outcomes that nobody wrote up",
        "a loop that is silent",
    ]  # fmt: skip


# --- constraints ------------------------------------------------------------------------------------------------------


def test_constraints_stay_in_their_own_words_where_nothing_was_changed():
    import pandas as pd

    now = {"max_transfer": {"default": 5, "energy": 50, "actors": {"a": {"energy": 1}}}, "min_balance": 0,
           "hold_epochs": 24}  # fmt: skip
    grid = pd.DataFrame({"max_transfer": [50.0, 5.0], "min_balance": [0.0, 0.0], "epoch_quota": [None, None],
                         "hold_above": [None, None]})  # fmt: skip
    rest = {"hold_epochs": 24, "actors": {"max_transfer": {"a": {"energy": 1}}}}
    made = constraints_form._made(now, grid, ["energy", "water"], dict(rest))
    assert made == now
    grid.loc[0, "max_transfer"] = 0.1
    made = constraints_form._made(now, grid, ["energy", "water"], dict(rest))
    assert made["max_transfer"] == {"energy": Decimal("0.1"), "water": 5, "actors": {"a": {"energy": 1}}}
    assert made["min_balance"] == 0


def test_limits_of_actors_are_written_as_exact_numbers_and_read_back_as_they_were():
    rest = {"hold_epochs": 24, "actors": {"max_transfer": {"home «1»": {"energy": Decimal("0.125"), "water": 3}}}}
    said = constraints_form.written(rest)
    assert '"energy": 0.125' in said and json.loads(said)["actors"]["max_transfer"]["home «1»"]["energy"] == 0.125
    assert constraints_form.read(said) == rest
    assert constraints_form.read("") == {} and constraints_form.written({}) == "{}"


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ('{"actors": {"max_tranfer": {"a": {"energy": 1}}}}', "no limit max_tranfer; did you mean max_transfer?"),
        ('{"actors": []}', "actors must be an object"), ('{"actors": null}', "actors must be an object"),
        ('{"actors": {"max_transfer": []}}', "max_transfer must have an object for each actor"),
        ('{"actors": {"max_transfer": {"a": 5}}}', "max_transfer must have an object for each actor"),
        ('{"hold_epochs": NaN}', "NaN is no number"), ('{"hold_epochs": 1e999999999}', "out of range"),
        ('{"hold_epoch": 3}', "did you mean hold_epochs?"), ('{"max_transfer": 3}', "is set in the table"),
        ('{"hold_epochs": 3, "hold_epochs": 4}', "is there 2 times"), ("[]", "must be an object"),
        ("{", "it is no JSON"), ("[" * 100_000, "too deep"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_of_the_rest_is_named(said, wrong):
    with pytest.raises(ValueError, match=re.escape(wrong)):
        constraints_form.read(said)


# --- what an address says ---------------------------------------------------------------------------------------------


def test_numbers_of_an_address_are_plain_digits():
    assert [text.whole(said) for said in ("7", "0", "9" * 18)] == [7, 0, 10**18 - 1]
    assert {text.whole(said) for said in ("²", "٣", "", "-1", "1_0", " 1", "9" * 19, "9" * 5_000)} == {None}


def test_ids_of_an_address_are_uuids_and_nothing_else():
    assert text.id_of("9F1B7C1E-0000-4000-8000-000000000001") == "9f1b7c1e-0000-4000-8000-000000000001"
    others = ("../../v1/me?" + "a" * 24, "../ledger/5/reverse%23" + "a" * 14, "", "x" * 36)
    assert {text.id_of(said) for said in others} == {None}


def test_times_that_are_none_in_utc_are_no_times():
    assert text.instant("2026-11-22 12:00+02:00") == "2026-11-22T10:00:00Z"
    assert {text.instant(said) for said in ("0001-01-01 00:00+14:00", "9999-12-31 23:59-14:00", "soon")} == {None}


# --- the client -------------------------------------------------------------------------------------------------------


class Wire:
    """Answers of the API, in order; an exception is raised."""

    def __init__(self, *answers):
        self.answers, self.requests = list(answers), []

    def __call__(self, request):
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def api(self):
        return Api("http://127.0.0.1:9", "k", httpx.MockTransport(self))


def test_client_keeps_the_last_answer_for_when_the_api_is_away():
    wire = Wire(
        httpx.Response(200, json={"n": 1}), httpx.ConnectError("refused"), httpx.Response(503, json={"detail": "busy"})
    )
    api = wire.api()
    first = api.get("/v1/x", 0)
    assert (first.body, first.stale) == ({"n": 1}, "")
    again = api.get("/v1/x", 0)
    assert again.body == {"n": 1} and again.at == first.at and "refused" in again.stale
    assert api.get("/v1/x", 0).stale == "busy"


def test_client_asks_once_while_an_answer_is_fresh_and_anew_after_an_act(monkeypatch):
    wire = Wire(*[httpx.Response(200, json={"n": n}) for n in range(4)])
    api = wire.api()
    assert [api.get("/v1/x", 60, a=None, b=True).body["n"] for _ in range(3)] == [0, 0, 0]
    assert wire.requests[0].url.query == b"b=true"
    assert api.act("POST", "/v1/y", {}, "once", dry_run=True) == {"n": 1}
    assert api.get("/v1/x", 60, b=True).body == {"n": 0}
    api.act("POST", "/v1/y", {}, "once")
    assert api.get("/v1/x", 60, b=True).body == {"n": 3}


def test_client_sends_amounts_and_reads_them_exactly():
    wire = Wire(httpx.Response(200, content=b'{"amount": 0.1234567890123456789}'))
    found = wire.api().act("POST", "/v1/transfers", {"amount": Decimal("999999999999.999")}, "k1", dry_run=True)
    assert found["amount"] == Decimal("0.1234567890123456789")
    request = wire.requests[0]
    assert request.content == b'{"amount":999999999999.999}'
    assert (request.headers["idempotency-key"], request.url.query) == ("k1", b"dry_run=true")


def test_client_tells_a_refusal_from_an_outage():
    problem = {"detail": "there is no entry 9", "status": 404}
    wire = Wire(httpx.Response(404, json=problem), httpx.Response(500, json={}), httpx.Response(200, text="<html>"),
                httpx.ReadTimeout("slow"))  # fmt: skip
    api = wire.api()
    with pytest.raises(Refused, match="no entry 9") as refused:
        api.get("/v1/ledger/9")
    assert refused.value.status == 404 and refused.value.problem == problem
    for said in ("answered 500", "is not the grid's API", "in time"):
        with pytest.raises(Away, match=said):
            api.act("POST", "/v1/x", {}, "k")


def test_client_keeps_no_more_than_so_many_answers(monkeypatch):
    monkeypatch.setattr(client, "KEPT", 2)
    api = Wire(*[httpx.Response(200, json=n) for n in range(5)]).api()
    for n in range(5):
        api.get("/v1/x", n=n)
    assert len(api._kept) == 2
    assert json.dumps([kept.body for kept in api._kept.values()]) == "[3, 4]" and time.monotonic() > 0
