"""The live call: raw in, raw out, one typed outcome for whatever comes, within its deadline, and the key nowhere."""

import gc
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import format_datetime
from pathlib import Path

import pytest

from gridgov import gemini
from gridgov.cassette import Recorder, Recording, read
from gridgov.errors import BadInput
from gridgov.gemini import SIZE_MAX, Gemini, price, prices
from gridgov.model import Malformed, Outcome, Resource, Unavailable
from gridgov.prompt import load, render
from gridgov.propose import Answer
from gridgov.reply import about, parse_body
from gridgov.wire import timestamp
from sim.loading import load as load_scenario
from sim.runner import Runner, Seat
from sim.stubs.gemini import FINISH_REASONS, SCENARIOS, Step, Stub
from sim.stubs.http import packet
from sim.stubs.replies import REPLIES
from sim.world import World
from tests.plays import SCENARIOS as FOLDER
from tests.plays import decisions, outcomes, play
from tests.test_prompt import MODEL, PLANNER, context, grid

KEY = "marked-key-4f1d9c27ab"
RESOURCES = {"energy": Resource("energy", "kWh", 3)}
AT = 1_780_000_000_000_000  # 2026-05-28T20:26:40Z
LATE = {"silent", "drip", "drip headers", "slow", "no response in time"}
"""What outlasts a short deadline."""


def request(**parameters):
    return render(PLANNER, context(grid()), model=MODEL, parameters=parameters)


class Time:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.at = 0.0
        self.slept = []

    def __call__(self):
        return self.at

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.at += seconds


def asked(script, *, deadline_s=20.0, attempts=1, **more):
    """What one question to a stub with this script comes to, and what the stub was asked."""
    with Stub(script) as stub, Gemini(KEY, stub.url, deadline_s=deadline_s, attempts=attempts, **more) as live:
        return live.ask(request()), stub.requests


def retried(script, *, deadline_s=120.0, attempts=4):
    """The same by a clock that only sleeping moves: the exchange and the waits."""
    clock = Time()
    exchange, requests = asked(
        script, deadline_s=deadline_s, attempts=attempts, clock=clock, sleep=clock.sleep, now=lambda: AT
    )
    assert exchange.attempts == len(requests)
    return exchange, clock.slept


def outcome(exchange):
    """The type of what it comes to, in a word, and its code."""
    found = parse_body(exchange.status, exchange.body, RESOURCES, failure=exchange.failure)
    if isinstance(found, Malformed):
        return "malformed", found.code
    if isinstance(found, Unavailable):
        return "unavailable", found.kind
    assert isinstance(found, Answer)
    return "answer", ""


@pytest.fixture
def raw():
    """A server that gives each connection one reply and keeps the bytes that came: (url, start, received)."""
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(5)
    received = []
    threads = []

    def serve(reply):
        def run():
            try:
                client = server.accept()[0]
            except TimeoutError:
                return  # the test fails for want of a request
            with client:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += client.recv(65536)
                received.append(data)
                client.sendall(reply)

        threads.append(threading.Thread(target=run))
        threads[-1].start()

    yield f"http://127.0.0.1:{server.getsockname()[1]}", serve, received
    for thread in threads:
        thread.join()
    server.close()


# --- every reply comes to one outcome ---------------------------------------------------------------------------------

EXPECTED = {
    "good": ("answer", ""),
    "blocked prompt": ("malformed", "no_answer"),
    "400": ("unavailable", "config"),
    "401": ("unavailable", "auth"),
    "403": ("unavailable", "auth"),
    "404": ("unavailable", "config"),
    "429": ("unavailable", "quota"),
    "500": ("unavailable", "transport"),
    "502": ("unavailable", "transport"),
    "503": ("unavailable", "transport"),
    "504": ("unavailable", "transport"),
    "html 200": ("unavailable", "transport"),
    "html 502": ("unavailable", "transport"),
    "empty 200": ("malformed", "no_answer"),
    "not UTF-8": ("malformed", "bad_unicode"),
    "truncated": ("unavailable", "transport"),
    "huge": ("malformed", "too_large"),
    "packed": ("unavailable", "transport"),
    "redirect": ("unavailable", "config"),
    "no HTTP": ("unavailable", "transport"),
    "reset": ("unavailable", "transport"),
    "close in mid-body": ("unavailable", "transport"),
    "drip": ("unavailable", "transport"),
    "drip headers": ("unavailable", "transport"),
    "silent": ("unavailable", "transport"),
    "slow": ("unavailable", "transport"),
}
EXPECTED |= {f"finish {reason}": ("malformed", "not_finished") for reason in FINISH_REASONS}
EXPECTED |= {
    reply.name: (reply.outcome.value, reply.code)
    if reply.outcome in (Outcome.MALFORMED, Outcome.UNAVAILABLE)
    else ("answer", "")
    for reply in REPLIES
}


def test_table_has_a_row_for_each_scenario_of_the_stub():
    assert set(EXPECTED) == set(SCENARIOS)


@pytest.mark.parametrize("name", EXPECTED)
def test_every_reply_comes_to_exactly_one_outcome(name):
    exchange, requests = asked([name], deadline_s=0.3 if name in LATE else 20)
    assert outcome(exchange) == EXPECTED[name]
    assert [one["reply"] for one in requests] == [name]
    assert (exchange.status is None) == bool(exchange.failure and name != "huge")


def test_reads_a_slow_reply_that_comes_in_time():
    exchange, _ = asked([Step("slow", delay_s=0.1), Step("drip", delay_s=0.0001)], attempts=1)
    assert outcome(exchange) == ("answer", "") and exchange.latency_ms >= 100


def test_reads_no_more_than_the_limit():
    exchange, _ = asked(["huge"])
    assert (exchange.status, len(exchange.body)) == (200, SIZE_MAX)
    assert exchange.failure == f"cut off after {SIZE_MAX} bytes"


def test_gives_the_bytes_as_they_came():
    reply = next(one for one in REPLIES if one.name == "a lone surrogate")
    assert asked([reply.name])[0].body == reply.body
    assert asked(["not UTF-8"])[0].body == b'{"candidates": [{"content": "\xff\xfe"}]}'


def test_says_nothing_was_sent_where_the_sdk_refuses_a_model():
    with Stub() as stub, Gemini(KEY, stub.url) as live:
        exchange = live.ask(render(PLANNER, context(grid()), model="a..b"))
        assert (exchange.status, exchange.failure, exchange.attempts, stub.count) == (None, "nothing was sent", 1, 0)


def test_is_unavailable_where_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with Gemini(KEY, f"http://127.0.0.1:{port}", attempts=1) as live:
        exchange = live.ask(request())
    assert (exchange.status, exchange.failure) == (None, "no connection could be made")


# --- what is on the wire ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"seed": 7, "maxOutputTokens": 4096, "thinkingConfig": {"thinkingLevel": "low", "includeThoughts": True}},
        {"max_output_tokens": 5, "x_unknown": {"response_mime_type": ["ü", None, True]}, "stopSequences": []},
    ],
)
def test_sends_the_body_of_the_request_and_nothing_else(parameters):
    told = request(**parameters)
    with Stub() as stub, Gemini(KEY, stub.url) as live:
        live.ask(told)
        (seen,) = stub.requests
    assert seen["body"] == told.body
    assert (seen["path"], seen["key_in_header"], seen["key_in_url"]) == (told.path, True, False)
    assert seen["headers"]["x-server-timeout"] == "60"


def test_tells_about_the_exchange():
    clock = Time()
    exchange, _ = asked(["good"], clock=clock, now=lambda: AT)
    assert exchange.at == timestamp(AT)
    assert (exchange.attempts, exchange.latency_ms, exchange.failure) == (1, 0, "")
    assert exchange.sdk == "google-genai 3.4.0"
    usage = about(exchange.body).usage
    assert (exchange.cost, exchange.price_table) == (None, None), "no price is known before the model was there"
    assert usage["thoughts"] == 64


def test_follows_no_redirect():
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0.2)
        exchange, _ = asked([Step("redirect", location=f"http://127.0.0.1:{other.getsockname()[1]}/v1/x")], attempts=4)
        with pytest.raises(TimeoutError):
            other.accept()
    assert (exchange.status, exchange.attempts) == (302, 1)


def test_asks_once_where_the_model_would_continue():
    reply = {"candidates": [{"finishReason": "CONTINUATION", "continuationToken": "YQ==", "content": {"parts": []}}]}
    exchange, requests = asked([Step("good", body=json.dumps(reply))])
    assert outcome(exchange) == ("malformed", "not_finished") and len(requests) == 1


ENVIRONMENT = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"), "http://127.0.0.1:9"),
    "GOOGLE_API_KEY": "stray-key",
    "GEMINI_API_KEY": "stray-key-2",
    "GOOGLE_GENAI_USE_VERTEXAI": "true",
    "GOOGLE_GENAI_USE_ENTERPRISE": "false",
    "GOOGLE_GENAI_CLIENT_MODE": "replay",
    "GOOGLE_GENAI_REPLAYS_DIRECTORY": "/nonexistent",
    "GOOGLE_GENAI_API_VERSION": "beta",
    "GOOGLE_GENAI_HTTP_CLIENT": "httpx",
    "GOOGLE_GEMINI_BASE_URL": "http://127.0.0.1:9",
    "GOOGLE_CLOUD_PROJECT": "stray",
    "GOOGLE_CLOUD_LOCATION": "stray",
    "SSL_CERT_FILE": "/nonexistent",
}


def sent(url, serve, received):
    serve(packet(200, b"{}", Connection="close"))
    with Gemini(KEY, url) as live:
        exchange = live.ask(request())
    assert exchange.status == 200, exchange.failure
    return received[-1].partition(b"\r\n\r\n")[0]


def test_environment_changes_nothing(raw, monkeypatch):
    before = sent(*raw)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    assert sent(*raw) == before
    assert before.count(KEY.encode()) == 1 and b"x-goog-api-key: " + KEY.encode() in before


def test_imports_the_sdk_when_it_asks_and_not_before():
    code = (
        "import sys, gridgov.gemini, gridgov.cli, sim.stubs.gemini; gridgov.gemini.Gemini('k');"
        "print([name for name in ('google.genai', 'httpx2', 'httpcore2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=FOLDER.parent)
    assert done.stdout.strip() == "[]"


def test_many_threads_ask_at_once():
    models = [f"gemini-{n}" for n in range(40)]
    with Stub() as stub, Gemini(KEY, stub.url) as live:

        def ask(model):
            return live.ask(render(PLANNER, context(grid()), model=model))

        with ThreadPoolExecutor(20) as pool:
            found = list(pool.map(ask, models))
        assert stub.count == 40
        asked = {one["n"]: one["model"] for one in stub.requests}
    numbers = [int(json.loads(one.body)["responseId"].removeprefix("stub-")) for one in found]
    assert [asked[number] for number in numbers] == models, "each has the reply to its own question"


def test_leaves_no_connection_and_no_thread():
    before = threading.active_count()
    asked(["good"])
    asked(["silent"], deadline_s=0.2)
    asked(["huge"])
    assert threading.active_count() == before
    gc.collect()  # a socket left open is a warning here, and a warning an error


# --- retries and the deadline -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["429", "500", "502", "503", "504", "reset", "close in mid-body", "no HTTP", "html 502"]
)
def test_tries_again_what_may_pass(name):
    exchange, slept = retried([Step(name, times=2)])
    assert (exchange.status, exchange.attempts, slept) == (200, 3, [1, 2])


@pytest.mark.parametrize("name", ["good", "400", "401", "403", "404", "redirect", "html 200", "empty 200", "truncated"])
def test_asks_once_where_another_attempt_would_come_to_the_same(name):
    exchange, slept = retried([Step(name, times=None)])
    assert (exchange.attempts, slept) == (1, [])


def test_gives_up_after_the_last_attempt_with_what_came():
    exchange, slept = retried([Step("503", times=None)])
    assert (exchange.status, exchange.attempts, slept) == (503, 4, [1, 2, 4])
    exchange, slept = retried([Step("reset", times=None)], attempts=2)
    assert (exchange.status, exchange.failure, slept) == (None, exchange.failure, [1])


def test_tries_again_after_an_attempt_that_took_too_long():
    exchange, requests = asked(["silent", "good"], deadline_s=0.4, attempts=2, sleep=lambda s: None)
    assert (exchange.status, exchange.attempts, len(requests)) == (None, 1, 1), "1 s to wait does not fit any more"
    clock = Time()
    exchange, requests = asked(["silent", "good"], deadline_s=2.2, attempts=2, sleep=clock.sleep)
    assert (exchange.status, exchange.attempts, clock.slept) == (200, 2, [1])


DATE = format_datetime(datetime.fromtimestamp(AT // 10**6 + 9, UTC), usegmt=True)


@pytest.mark.parametrize(
    ("step", "wait"),
    [
        (Step("429", retry_after="7"), 7),
        (Step("503", retry_after=DATE), 9),
        (Step("429", retry_after="0"), 1),
        (Step("429", retry_after="Thu, 01 Jan 1970 00:00:00 GMT"), 1),
        (Step("429", retry_after="soon"), 1),
        (Step("429", retry_after="-5"), 1),
        (Step("429", retry_delay_s=3.5), 3.5),
        (Step("429", retry_after="soon", retry_delay_s=3.5), 3.5),
        (Step("429", retry_after="1.5", retry_delay_s=8), 8),
    ],
)
def test_waits_as_long_as_the_server_asks(step, wait):
    exchange, slept = retried([step])
    assert (exchange.status, exchange.attempts) == (200, 2)
    assert slept == [pytest.approx(wait)]


@pytest.mark.parametrize("asks", [{"retry_after": "3600"}, {"retry_after": "9" * 400}, {"retry_delay_s": 3600}])
def test_gives_up_at_once_where_the_server_asks_for_more_than_the_deadline(asks):
    exchange, slept = retried([Step("429", **asks)])
    assert (exchange.status, exchange.attempts, slept) == (429, 1, [])


@pytest.mark.parametrize("name", ["drip", "drip headers", "silent"])
def test_deadline_holds_however_bytes_drip(name):
    """Each byte comes in time, and all of them would: only the deadline of the whole ends this without a status."""
    exchange, _ = asked([Step(name, times=None, delay_s=0.01)], deadline_s=0.6, attempts=4)
    assert (exchange.status, exchange.failure) == (None, "no complete response in time")


# --- the key ----------------------------------------------------------------------------------------------------------


def test_key_is_nowhere(caplog):
    caplog.set_level(logging.DEBUG)
    echo = [
        Step("403", body=f"Consumer 'api_key:{KEY}' has been suspended.", retry_after=KEY),
        Step("429", body=KEY, retry_after=KEY),
        Step("redirect", location=f"http://127.0.0.1:9/?key={KEY}"),
        Step("reset"),
        Step("good"),
    ]
    texts = []
    with Stub(echo) as stub, Gemini(KEY, stub.url, attempts=1) as live:
        for _ in echo:
            exchange = live.ask(request())
            texts += [repr(exchange), str(exchange), exchange.body.decode()]
        texts += [repr(live), str(live), json.dumps(stub.requests)]
        assert all(one["key_in_header"] and not one["key_in_url"] for one in stub.requests)
    assert "api_key:[key]" in texts[2]
    texts += [record.getMessage() for record in caplog.records]
    assert not [text for text in texts if KEY in text]


@pytest.mark.parametrize("key", [None, "", "  \n"])
def test_says_what_to_do_without_a_key(key):
    with pytest.raises(BadInput, match="set GEMINI_API_KEY"):
        Gemini(key)


@pytest.mark.parametrize("key", [f"{KEY} x", f"{KEY}\nx", f"{KEY}ü", f"auth_tokens/{KEY}"])
def test_refuses_what_is_no_key_without_saying_it(key):
    with pytest.raises(BadInput) as refused:
        Gemini(key)
    assert KEY not in f"{refused.value!r}{refused.value}"


@pytest.mark.parametrize(
    "url", ["x", "ftp://a", "http://", "http://a:x", "http://u:pw@a", "http://a?key=1", "http://a#b", "http://a b"]
)
def test_refuses_what_is_no_base_url(url):
    with pytest.raises(BadInput, match="GRIDGOV_GEMINI_BASE_URL") as refused:
        Gemini(KEY, url)
    assert "pw" not in str(refused.value)


def test_base_url_may_have_a_path_and_a_slash():
    assert Gemini(KEY).base_url == gemini.BASE_URL
    with Stub() as stub, Gemini(KEY, stub.url + "/") as live:
        assert live.ask(request()).status == 200
    with Stub() as stub, Gemini(KEY, stub.url + "/behind") as live:
        assert live.ask(request()).status == 404


# --- in a run ---------------------------------------------------------------------------------------------------------


def run(tmp_path, scenario, script):
    """A run in which the stub answers, recorded: the result, and the stub's count."""
    speaker = scenario.speakers[0]
    with Stub(script) as stub, Gemini(KEY, stub.url, attempts=1) as live, Recorder(tmp_path / "x.jsonl") as recorder:
        proposer = Recording(lambda asked, _: live.ask(asked), load("propose_transfer"), recorder, model=MODEL)
        result = Runner(scenario, World(scenario), [Seat(speaker, proposer)]).run()
        return result, stub.count


def test_an_outage_is_no_decision(tmp_path):
    scenario = load_scenario(FOLDER / "hostile.yaml", epochs=12, proposer="policy:none")
    script = [Step("deliberately nothing", times=4), Step("429", times=2), Step("a good proposal", times=6)]
    result, count = run(tmp_path, scenario, script)
    assert outcomes(result) == Counter(executed=6, noop=4, unavailable=2) and count == 12
    assert [one.fault for one in decisions(result) if one.outcome is Outcome.UNAVAILABLE] == ["quota", "quota"]
    kept = read(tmp_path / "x.jsonl").interactions
    assert len(kept) == 12 and KEY not in (tmp_path / "x.jsonl").read_text()
    assert {one.sdk for one in kept} == {"google-genai 3.4.0"}


def test_a_run_on_the_greedy_stub_ends_as_the_policy_does(tmp_path):
    scenario = load_scenario(FOLDER / "community-week.yaml", epochs=24)
    result, count = run(tmp_path, scenario, [])
    assert count == 24 and outcomes(result)["executed"] > 5
    assert result.head_digest == play("community-week", epochs=24, proposer="policy:greedy").head_digest


# --- prices -----------------------------------------------------------------------------------------------------------

USAGE = {"prompt": 1_000_000, "answer": 200_000, "thoughts": 300_000}


def test_thoughts_cost_what_the_answer_costs():
    assert price(MODEL, USAGE, "2026-11-22") == ("2.625", "gemini-2026-10-07")
    assert price(MODEL, {"prompt": 0, "thoughts": 1}, "2026-11-22") == ("0.00000375", "gemini-2026-10-07")
    assert price(MODEL, {**USAGE, "cached": 400_000}) == ("2.355", "gemini-2026-10-07")


def test_price_in_force_depends_on_the_day_and_the_prompt():
    assert price(MODEL, USAGE, "2027-01-01")[0] == "5.25"
    assert price(MODEL, USAGE, "2026-09-01") is None
    assert price("models/gemini-3.1-pro-preview-001", {"prompt": 200_000})[0] == "0.4"
    assert price("gemini-3.1-pro-preview", {"prompt": 200_001})[0] == "0.800004"


def test_unknown_models_and_uncounted_tokens_have_no_price():
    assert price("gemini-x", USAGE) is None
    assert price(MODEL, {}) is None


def test_every_price_says_where_it_comes_from():
    rows = json.loads(gemini.PRICES.read_text())["rows"]
    assert rows and all(row["source"] for row in rows)


def test_a_user_can_replace_the_table(tmp_path):
    path = tmp_path / "own.json"
    row = {"model": "m", "from": "2026-01-01", "input": 10, "output": 20.5}
    path.write_text(json.dumps({"table": "own", "currency": "USD", "per_tokens": 1_000_000, "rows": [row]}))
    own = prices(path)
    assert own.rows[0].cached == Decimal(10)
    with Stub() as stub, Gemini(KEY, stub.url, table=own) as live:
        exchange = live.ask(render(PLANNER, context(grid()), model="m"))
    usage = about(exchange.body).usage
    cost = (usage["prompt"] * 10 + (usage["answer"] + usage["thoughts"]) * Decimal("20.5")) / 1_000_000
    assert (Decimal(exchange.cost), exchange.price_table) == (cost, "own")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"currency": "EUR"}, "currency USD"),
        ({"rows": 1}, "rows is a list"),
        ({"rows": [{}]}, "row 1: expected model"),
        ({"input": -1}, "input can't be"),
        ({"input": "1"}, "input can't be"),
        ({"output": 0.0000001}, "output can't be"),
        ({"cashed": 1}, "cashed can't be"),
        ({"from": "2026-13-01"}, "from is a day"),
        ({"prompt_above": True}, "prompt_above can't be"),
    ],
)
def test_says_what_is_wrong_with_a_table(tmp_path: Path, change, said):
    row = {"model": "m", "from": "2026-01-01", "input": 1, "output": 2}
    whole = {"table": "t", "currency": "USD", "per_tokens": 1_000_000}
    rows = [{**row, **{key: value for key, value in change.items() if key not in (*whole, "rows")}}]
    path = tmp_path / "own.json"
    path.write_text(json.dumps({**whole, "rows": rows, **{k: v for k, v in change.items() if k in (*whole, "rows")}}))
    with pytest.raises(BadInput, match=said):
        prices(path)


def test_a_missing_table_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="cannot be read"):
        prices(tmp_path / "none.json")


def test_settings_name_the_key_and_the_url(monkeypatch):
    from gridgov import settings

    assert (settings.load().gemini_api_key, settings.load().gemini_base_url) == (None, None)
    monkeypatch.setitem(os.environ, "GEMINI_API_KEY", KEY)
    monkeypatch.setitem(os.environ, "GRIDGOV_GEMINI_BASE_URL", "http://127.0.0.1:8090")
    assert settings.load().gemini_api_key == KEY
    assert settings.load().gemini_base_url == "http://127.0.0.1:8090"
