"""The stub of Gemini: sensible answers to what it is shown, failures as scripted, and a true account of what came."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from click.testing import CliRunner

from gridgov.decide import outcome_of
from gridgov.errors import BadInput
from gridgov.gemini import Gemini
from gridgov.model import Constraints, Limit, Outcome, Proposal
from gridgov.prompt import render
from gridgov.propose import Answer
from gridgov.reply import about, parse_body
from gridgov.validate import validate
from sim import policies
from sim.loading import load as load_scenario
from sim.runner import Runner, Seat
from sim.stubs.gemini import FINISH_REASONS, SCENARIOS, Step, Stub, context_of, main, steps
from sim.world import World
from tests.plays import SCENARIOS as FOLDER
from tests.test_prompt import MODEL, PLANNER, SPEAKER, context, grid, of

KEY = "marked-key-4f1d9c27ab"
HEADERS = {"x-goog-api-key": KEY}
REQUEST = render(PLANNER, context(grid()), model=MODEL)


def post(url, body=REQUEST.body, path=REQUEST.path, **options):
    return httpx.post(f"{url}{path}", json=body, **{"headers": HEADERS, "trust_env": False, **options})


def judge_of(asked):
    """What the validator says of an answer, on the state as it is now."""

    def judged(answer):
        proposal = Proposal("x", asked.round.proposer, asked.round.n, answer.transfers, answer.reasoning)
        return outcome_of(validate(asked.state, asked.state.constraints, proposal), proposal)

    return judged


@contextmanager
def program(*options):
    """The stub as a user starts it; its URL."""
    command = [sys.executable, "-m", "sim.stubs.gemini", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=FOLDER.parent) as running:
        try:
            assert running.stdout.readline().startswith("a stub of Gemini answers on http")
            line = running.stdout.readline()
            assert line.startswith("export GRIDGOV_GEMINI_BASE_URL=") and line.endswith(
                "GEMINI_API_KEY=any-key-will-do\n"
            )
            yield line.partition("GRIDGOV_GEMINI_BASE_URL=")[2].partition(" ")[0]
        finally:
            running.send_signal(signal.SIGINT)
            try:
                assert running.wait(60) == 0
            finally:
                running.kill()


# --- sensible answers -------------------------------------------------------------------------------------------------


def test_program_answers_a_request_of_the_week_with_what_the_validator_accepts():
    class Asking:
        """Asks, and notes what the validator says at that moment."""

        def __init__(self, live):
            self.live = live
            self.noted = []

        def rounds(self, epoch):
            return None

        def propose(self, asked):
            exchange = self.live.ask(render(PLANNER, asked, model=MODEL))
            answer = parse_body(exchange.status, exchange.body, asked.state.resources, failure=exchange.failure)
            assert isinstance(answer, Answer), answer
            self.noted.append((len(answer.transfers), judge_of(asked)(answer), answer == policies.greedy(asked)))
            return answer

    scenario = load_scenario(FOLDER / "community-week.yaml", epochs=16)
    with program("--policy", "greedy") as url, Gemini(KEY, url) as live:
        asking = Asking(live)
        Runner(scenario, World(scenario), [Seat(scenario.speakers[0], asking)]).run()
        told = httpx.get(f"{url}/requests", trust_env=False).json()
    assert sum(transfers for transfers, _, _ in asking.noted) > 10
    assert {found for _, found, _ in asking.noted} <= {Outcome.EXECUTED, Outcome.NOOP}
    assert all(same for _, _, same in asking.noted)
    assert told["count"] == len(told["requests"]) == 16


def test_rebuilds_what_the_policy_needs_from_the_data_block():
    limits = Constraints(
        max_transfer=of(energy=5000, credits=5000),
        min_balance=Limit({"energy": 0, "credits": 0}, {"home-2": {"credits": 1}}),
        epoch_quota=of(energy=400),
    )
    asked = context(grid(constraints=limits), n=3)
    asked.state.frozen.add("home-1")
    found = context_of(render(PLANNER, asked, model=MODEL).user)
    assert (found.round.epoch, found.round.n, found.actor, found.mandate) == (1, 3, None, None)
    assert found.world_state == asked.world_state
    assert policies.greedy(found).transfers == policies.greedy(asked).transfers != ()


def test_answers_one_that_speaks_for_itself_within_its_mandate():
    asked = context(grid(), actor="home-3")
    asked.mandate = frozenset({"home-3"})
    found = context_of(render(SPEAKER, asked, model=MODEL).user)
    assert (found.actor, found.mandate) == ("home-3", {"home-3"})
    with Stub() as stub:
        reply = post(stub.url, render(SPEAKER, asked, model=MODEL).body)
    assert isinstance(parse_body(200, reply.content, asked.state.resources), Answer)


def test_answers_a_grid_too_large_to_be_shown_whole():
    actors = tuple(f"home-{n}" for n in range(400))
    own = Limit({"energy": 100, "credits": 100}, {name: {"energy": 90} for name in actors})
    asked = context(grid(actors, constraints=Constraints(max_transfer=own)))
    asked.mandate = frozenset(actors)
    found = context_of(render(PLANNER, asked, model=MODEL, budget=8_000).user)
    assert 1 < len(found.state.actors) < 400 and found.mandate < frozenset(actors)
    assert policies.greedy(found).transfers


@pytest.mark.parametrize("policy", ["greedy", "hasty", "none", "random"])
def test_wraps_the_answer_as_gemini_would(policy):
    with Stub(policy=policy) as stub:
        reply = post(stub.url).json()
        assert post(stub.url, path=REQUEST.path.replace("/v1/", "/v1beta/")).status_code == 200
    (candidate,) = reply["candidates"]
    assert (candidate["finishReason"], candidate["content"]["role"]) == ("STOP", "model")
    assert (reply["modelVersion"], reply["responseId"]) == (f"synthetic/{policy}", "stub-1")
    usage = about(json.dumps(reply).encode()).usage
    assert usage["total"] == usage["prompt"] + usage["answer"] + usage["thoughts"] and usage["thoughts"] > 0
    answer = parse_body(200, json.dumps(reply).encode(), grid().state.resources)
    assert isinstance(answer, Answer) and bool(answer.transfers) == (policy != "none")


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        "x",
        {"contents": [{"parts": [{"text": "Hello"}]}]},
        {"contents": [{"parts": [{"text": "<data>\n{}\n</data>"}]}]},
        {"contents": [{"parts": [{"text": '<data>\n{"world_state": {"actors": [{}], "resources": []}}\n</data>'}]}]},
        {"contents": 5},
        {"contents": [{"parts": [{"text": None}]}]},
    ],
)
def test_refuses_a_request_that_is_none_of_ours(body):
    with Stub() as stub:
        reply = post(stub.url, body)
    assert (reply.status_code, reply.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")


# --- an account of what came ------------------------------------------------------------------------------------------


def test_keeps_what_it_was_sent_but_no_key():
    with Stub(["503"]) as stub:
        post(stub.url, headers={**HEADERS, "Authorization": f"Bearer {KEY}", "X-Other": "yes"})
        post(stub.url, params={"key": KEY}, headers={})
        assert post(stub.url, headers={}).status_code == 403
        first, second, third = stub.requests
        assert stub.count == 3
        assert KEY not in json.dumps(stub.requests)
        assert KEY not in httpx.get(f"{stub.url}/", trust_env=False).text
    assert (first["n"], first["model"], first["path"], first["reply"]) == (1, MODEL, REQUEST.path, "503")
    assert first["body"] == REQUEST.body and first["headers"]["x-other"] == "yes"
    keys = [(one["key_in_header"], one["key_in_url"]) for one in (first, second, third)]
    assert keys == [(True, False), (False, True), (False, False)]


def test_shows_what_it_was_asked_as_a_page_and_as_json():
    with Stub() as stub:
        post(stub.url, {"contents": [{"parts": [{"text": "<script>alert(1)</script>"}]}]})
        page = httpx.get(f"{stub.url}/", trust_env=False)
        told = httpx.get(f"{stub.url}/requests", trust_env=False).json()
        assert httpx.get(f"{stub.url}/other", trust_env=False).status_code == 404
        assert told == {"count": 1, "requests": stub.requests}
    assert "Asked 1 times" in page.text and "<script>" not in page.text
    assert page.headers["content-type"].startswith("text/html")


def test_reads_a_body_in_chunks():
    content = json.dumps(REQUEST.body).encode()
    with Stub() as stub:
        pieces = (content[i : i + 1000] for i in range(0, len(content), 1000))
        reply = httpx.post(f"{stub.url}{REQUEST.path}", content=pieces, headers=HEADERS, trust_env=False)
        assert reply.status_code == 200 and stub.requests[0]["body"] == REQUEST.body


# --- scripts ----------------------------------------------------------------------------------------------------------


def test_plays_a_script_step_by_step_and_then_answers_well():
    with Stub(["429", {"reply": "503", "times": 2, "retry_after": "7"}, Step("good")]) as stub:
        replies = [post(stub.url) for _ in range(5)]
    assert [one.status_code for one in replies] == [429, 503, 503, 200, 200]
    assert [one.headers.get("retry-after") for one in replies] == [None, "7", "7", None, None]
    with Stub([{"reply": "404", "times": "ever"}, "good"]) as stub:
        assert {post(stub.url).status_code for _ in range(4)} == {404}


def test_script_of_the_program_comes_from_a_file(tmp_path):
    path = tmp_path / "script.json"
    path.write_text('["500", {"reply": "429", "retry_delay_s": 30}]')
    with program("--script", str(path), "--policy", "none") as url:
        assert post(url).json()["error"]["status"] == "INTERNAL"
        assert post(url).json()["error"]["details"][0]["retryDelay"] == "30s"
        assert '\\"transfers\\":[]' in post(url).text


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (["god"], "did you mean 'good'"),
        ([{}], "unknown reply ''"),
        ([{"reply": "good", "tims": 1}], "did you mean 'times'"),
        ([{"reply": "good", "times": "3"}], "times of a step can't be '3'"),
        ([{"reply": "good", "retry_after": 3}], "retry_after of a step can't be 3"),
    ],
)
def test_says_what_is_wrong_with_a_script(script, said):
    with pytest.raises(BadInput, match=said.replace("(", r"\(")):
        steps(script)


@pytest.mark.parametrize("text", ["{}", "[", '["god"]'])
def test_program_refuses_a_wrong_script_in_one_line(tmp_path, text):
    path = tmp_path / "script.json"
    path.write_text(text)
    command = [sys.executable, "-m", "sim.stubs.gemini", "--port", "0", "--script", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER.parent, check=False)
    assert done.returncode != 0 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_knows_every_finish_reason_of_the_sdk():
    from google.genai import types

    assert {*FINISH_REASONS, "STOP"} == {reason.value for reason in types.FinishReason}
    assert {f"finish {reason}" for reason in FINISH_REASONS} < set(SCENARIOS)


# --- the server -------------------------------------------------------------------------------------------------------


def test_sends_each_reply_in_one_write():
    with Stub() as stub:
        port = int(stub.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as client:
            content = json.dumps(REQUEST.body).encode()
            head = f"POST {REQUEST.path} HTTP/1.1\r\nx-goog-api-key: k\r\nContent-Length: {len(content)}\r\n\r\n"
            client.sendall(head.encode() + content)
            whole = client.recv(1 << 20)
    first, _, rest = whole.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(rest)}".encode() in first and isinstance(parse_body(200, rest, {}), Answer)


def test_resets_a_connection_instead_of_closing_it():
    with Stub(["reset", "close in mid-body"]) as stub:
        for told in ("reset", "close in mid-body"):
            with socket.create_connection(("127.0.0.1", int(stub.url.rpartition(":")[2]))) as client:
                client.sendall(f"POST {REQUEST.path} HTTP/1.1\r\nContent-Length: 0\r\n\r\n".encode())
                if told == "reset":
                    with pytest.raises(ConnectionResetError):
                        client.recv(1)
                else:
                    assert client.recv(1 << 20) and client.recv(1) == b""


def test_survives_many_at_once_and_leaves_no_thread():
    before = set(threading.enumerate())
    with Stub([Step("silent", times=5)]) as stub:

        def one(n):
            try:
                return post(stub.url, timeout=0.5 if n < 5 else 20).status_code
            except httpx.TimeoutException:
                return "timeout"

        with ThreadPoolExecutor(50) as pool, httpx.Client(trust_env=False) as kept:
            assert kept.get(f"{stub.url}/").status_code == 200
            for n in range(5):
                pool.submit(one, n)
            while stub.count < 5:
                time.sleep(0.01)
            found = list(pool.map(one, range(5, 105)))
        assert stub.count == 105 and set(found) == {200}
    assert set(threading.enumerate()) <= before


def test_program_lists_what_a_step_may_be():
    said = CliRunner().invoke(main, ["--list"])
    assert said.exit_code == 0 and said.output.splitlines()[3:] == list(SCENARIOS)
    assert '"retry_after": "5"' in said.output


def test_ends_though_connections_are_open():
    with Stub(["silent"]) as stub:
        port = int(stub.url.rpartition(":")[2])
        idle = socket.create_connection(("127.0.0.1", port))
        waiting = socket.create_connection(("127.0.0.1", port))
        waiting.sendall(f"POST {REQUEST.path} HTTP/1.1\r\nContent-Length: 0\r\n\r\n".encode())
        while not stub.count:
            time.sleep(0.01)
    for client in (idle, waiting):
        with client, contextlib.suppress(ConnectionResetError):
            client.settimeout(20)
            assert client.recv(1) == b"", "the stub has ended, and everything with it"


@pytest.mark.parametrize(
    "rubbish", [b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"]
)
def test_drops_what_is_no_http_and_goes_on(rubbish):
    with Stub() as stub:
        with socket.create_connection(("127.0.0.1", int(stub.url.rpartition(":")[2]))) as client:
            client.sendall(rubbish)
            assert client.recv(100) == b""
        assert post(stub.url).status_code == 200


def test_listens_on_loopback_only():
    with Stub() as stub:
        assert stub.url.startswith("http://127.0.0.1:")
        port = int(stub.url.rpartition(":")[2])
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", port), timeout=1)
