"""A run that asks a model: recorded as it goes, never paid twice, within its budget, and replayed without a socket."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from gridgov import api
from gridgov.auth import Keys
from gridgov.cassette import RETIRED
from gridgov.engine import Engine
from gridgov.postgres import PostgresLedger, migrate
from sim.loading import load
from sim.runner import genesis_of
from sim.stubs.gemini import Stub
from sim.world import World
from tests.apps import served
from tests.plays import SCENARIOS

pytest_plugins = ["tests.commands"]

WEEK = str(SCENARIOS / "community-week.yaml")
KEY = "MARKED-0123456789-abcdefghijklmnop"
GRIDGOV = [sys.executable, "-c", "from gridgov.cli import main; main()"]
LIVE = ("run", WEEK, "--epochs", "12", "--proposer", "gemini:gemini-3.8-flash", "--json")


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Sets where the model is, with a key that is easily found again."""
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    monkeypatch.setenv("GRIDGOV_RUNS", str(tmp_path / "runs"))
    return lambda stub: monkeypatch.setenv("GRIDGOV_GEMINI_BASE_URL", stub.url)


class Gate(ThreadingHTTPServer):
    """Hands so many questions on to a stub; the next one it keeps, and says that it was reached."""

    daemon_threads = True

    def __init__(self, target, count):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.target, self.left = target, count
        self.reached, self.over = threading.Event(), threading.Event()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        gated = self.server
        assert isinstance(gated, Gate)
        body = self.rfile.read(int(self.headers["content-length"]))
        if not gated.left:
            gated.reached.set()
            gated.over.wait(120)
            self.close_connection = True
            return
        gated.left -= 1
        answer = httpx.post(gated.target + self.path, content=body, headers={"x-goog-api-key": KEY}, trust_env=False)
        head = f"HTTP/1.1 {answer.status_code} OK\r\nContent-Length: {len(answer.content)}\r\n\r\n"
        self.wfile.write(head.encode() + answer.content)


@contextmanager
def gate(target, count):
    """A gate that is there until the end of the block."""
    gated = Gate(target, count)
    thread = threading.Thread(target=gated.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield gated
    finally:
        gated.over.set()
        gated.shutdown()
        gated.server_close()
        thread.join(30)


def test_recording_replays_offline_to_the_same_head(gridgov, environment, tmp_path, monkeypatch):
    tape = tmp_path / "x.jsonl"
    with Stub() as stub:
        environment(stub)
        live = gridgov(*LIVE, "--record", tape).json
        assert live["calls"]["made"] == stub.count == 12
    assert live["calls"]["tokens"]["prompt"] > 10_000
    assert float(live["calls"]["cost"]) > 0
    assert live["calls"]["latency_ms"]["max"] >= live["calls"]["latency_ms"]["median"]

    def refused(*args, **kwargs):
        raise AssertionError("a replay opens no socket")

    monkeypatch.setattr(socket, "socket", refused)
    played = gridgov("run", WEEK, "--epochs", "12", "--proposer", f"cassette:{tape}", "--json").json
    assert played["head_digest"] == live["head_digest"]
    assert "calls" not in played
    assert gridgov("cassette", "check", tape).code == 0


def test_what_a_stub_says_is_called_synthetic(gridgov, environment, tmp_path):
    with Stub() as stub:
        environment(stub)
        live = gridgov(*LIVE, "--record", tmp_path / "x.jsonl").json
    assert live["interactions"] == {"recorded": 0, "edited": 0, "synthetic": 12}


def test_run_that_is_killed_goes_on_without_paying_twice(gridgov, environment, tmp_path):
    whole, tape = tmp_path / "whole.jsonl", tmp_path / "x.jsonl"
    with Stub() as stub:
        environment(stub)
        head = gridgov(*LIVE, "--record", whole).json["head_digest"]
    part = tmp_path / "x.jsonl.part"
    with Stub() as stub, gate(stub.url, 7) as gated:
        environment(gated)
        process = subprocess.Popen([*GRIDGOV, *LIVE, "--record", str(tape)], stdout=subprocess.DEVNULL)
        assert gated.reached.wait(120), "the eighth question never came"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (stub.count, part.read_bytes().count(b"\n"), tape.exists()) == (7, 7, False)
        environment(stub)
        again = gridgov(*LIVE, "--record", tape).json
        assert stub.count == 12
    assert again["head_digest"] == head
    assert (again["calls"]["made"], again["calls"]["known"]) == (5, 7)
    assert not part.exists()


def test_run_that_is_interrupted_says_how_to_go_on(gridgov, environment, tmp_path):
    tape = tmp_path / "x.jsonl"
    with Stub() as stub, gate(stub.url, 3) as gated:
        environment(gated)
        process = subprocess.Popen([*GRIDGOV, *LIVE, "--record", str(tape)], stderr=subprocess.PIPE, text=True)
        assert gated.reached.wait(120), "the fourth question never came"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert re.match(r"gridgov: 4 calls were made, priced at 0\.00\d\d USD; nothing is paid twice: ", said)
        assert f"run again with --record {tape}\n" in said
        environment(stub)
        assert gridgov(*LIVE, "--record", tape).json["calls"]["known"] == 3


def test_budget_stops_the_run_and_says_how_to_go_on(gridgov, environment, tmp_path):
    tape = tmp_path / "x.jsonl"
    with Stub() as stub:
        environment(stub)
        said = gridgov(*LIVE, "--record", tape, "--max-calls", 5)
        assert (said.code, stub.count, said.out) == (3, 5, "")
        assert f"run again with --record {tape}" in said.err
        said = gridgov(*LIVE, "--record", tape, "--max-cost", "0.002")
        assert said.code == 3
        assert "--max-cost 0.002" in said.err
        spent = stub.count
        assert 5 < spent < 12
        assert gridgov(*LIVE, "--record", tape).json["calls"] | {"tokens": 0, "latency_ms": 0} == {
            "made": 12 - spent, "known": spent, "attempts": 12, "tokens": 0, "latency_ms": 0, "recording": str(tape),
            "cost": gridgov(*LIVE, "--record", tape).json["calls"]["cost"], "price_table": "gemini-2026-10-07",
        }  # fmt: skip
        assert stub.count == 12, "a complete recording is not asked again"
    assert "above 0" in gridgov(*LIVE, "--max-cost", "-1").err
    with Stub() as stub:
        environment(stub)
        unpriced = (*LIVE[:4], "--proposer", "gemini:nosuch", "--record", tmp_path / "y.jsonl", "--max-cost", "1")
        said = gridgov(*unpriced)
        assert (said.code, stub.count) == (3, 1)
        assert "nothing says what nosuch costs" in said.err
    assert not list((tmp_path / "runs").glob("*.tmp*"))


def test_another_model_than_was_asked_is_told_with_the_run_and_with_each_replay(gridgov, environment, tmp_path):
    tape = tmp_path / "x.jsonl"
    text = json.dumps({"transfers": [], "reasoning": "all is well"})
    candidate = {"content": {"parts": [{"text": text}], "role": "model"}, "finishReason": "STOP"}
    reply = {"candidates": [candidate], "modelVersion": "gemini-3.5-flash-lite"}
    with Stub([{"reply": "good", "body": json.dumps(reply), "times": 2}]) as stub:
        environment(stub)
        run = gridgov(*LIVE[:-1], "--record", tape)
    said = "NOT THE MODEL THAT WAS ASKED: 2 replies are of gemini-3.5-flash-lite, for gemini-3.8-flash"
    played = gridgov("run", WEEK, "--epochs", "12", "--proposer", f"cassette:{tape}", "--json").json
    assert run.code == 0 and said in run.out and said in gridgov("cassette", "show", tape).out
    assert "10 of 12 replies are synthetic" in run.out and "USD, by the prices gemini-2026-10-07" in run.out
    assert played["other_models"] == {"gemini-3.8-flash -> gemini-3.5-flash-lite": 2}


def test_whoever_asks_a_retired_model_is_told_before_it_is_asked(gridgov, environment, monkeypatch):
    monkeypatch.setitem(RETIRED, "gemini-old", "2020-01-01")
    with Stub() as stub:
        environment(stub)
        said = gridgov(*LIVE[:-2], "gemini:gemini-old", "--max-calls", 1)
    assert said.code == 3 and stub.count == 1
    assert said.err.startswith("gridgov: gemini-old is retired since 2020-01-01: another model answers in its name\n")


def test_without_record_the_replies_are_kept_beside_the_run(gridgov, environment, tmp_path):
    with Stub() as stub:
        environment(stub)
        kept = gridgov(*LIVE).json["calls"]["recording"]
        again = gridgov(*LIVE).json
    assert stub.count == 24
    assert gridgov("run", WEEK, "--epochs", "12", "--proposer", f"cassette:{kept}", "--json").code == 0
    assert len(list((tmp_path / "runs").glob("*.duckdb"))) == 3, "two live runs are two, and a replay is one of its own"
    assert again["interactions"]["synthetic"] == 12


def test_outage_is_unavailable_and_never_a_decision(gridgov, environment, tmp_path):
    scenario = tmp_path / "outage.yaml"
    text = (SCENARIOS / "community-week.yaml").read_text().replace("data/", f"{SCENARIOS}/data/")
    text = text.replace(
        "{name: planner, kind: policy, policy: greedy}", "{name: planner, kind: gemini, on_unavailable: record}"
    )
    scenario.write_text(text.replace("epochs: 168", "epochs: 12").partition("expect:")[0])
    quota = {"reply": "429", "retry_after": "600"}
    with Stub([*["good"] * 4, quota, *["good"] * 3, quota], policy="random") as stub:
        environment(stub)
        found = gridgov("run", scenario, "--json").json
    outcomes = found["outcomes"]
    assert (outcomes["unavailable"], outcomes["noop"]) == (2, 0)
    assert outcomes["executed"] + outcomes["rejected"] == 10
    assert found["metrics"]["acceptance_rate"] == outcomes["executed"] / 10


def test_app_hands_out_what_a_run_sends(gridgov, environment, server, tmp_path):
    """The same state, asked about by a scenario's run through the SDK and by the app: one request on the wire."""
    scenario = load(SCENARIOS / "seed.yaml", epochs=1, proposer="gemini:gemini-3.8-flash")
    with Stub() as stub:
        environment(stub)
        assert gridgov(
            "run", scenario.file, "--epochs", "1", "--proposer", "gemini:gemini-3.8-flash", "--json"
        ).code in (0, 1)
        [sent] = stub.requests
    with server.database() as url:
        migrate(url, "main")
        ledger = PostgresLedger(url, "main")
        engine = Engine(ledger)
        engine.append(genesis_of(scenario, World(scenario)), scenario.start_at)
        ledger.commit()
        ledger.close()
        keys = Keys(url, "main")
        key = keys.create("n8n", ["propose"], 1)
        keys.close()
        with served(api.create(url, "main", "http://grid.example")) as base:
            handed = httpx.get(f"{base}/v1/context", headers={"Authorization": f"Bearer {key}"}).json()["request"]
    assert (handed["path"], handed["body"]) == (sent["path"], sent["body"])


def test_key_is_in_nothing_that_a_run_leaves(gridgov, environment, tmp_path):
    with Stub([{"reply": "401", "body": json.dumps({"error": {"message": f"bad key {KEY}"}})}, "500", "good"]) as stub:
        environment(stub)
        outs = [gridgov(*LIVE, "--record", tmp_path / f"{n}.jsonl") for n in range(2)]
        asked = stub.requests
    assert [said.code for said in outs] == [3, 0]
    for said in outs:
        assert KEY not in said.out + said.err
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert KEY.encode() not in path.read_bytes(), path
    assert asked and not any(one["key_in_url"] for one in asked)


def test_live_model_without_a_key_says_what_to_set(gridgov, tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDGOV_RUNS", str(tmp_path))
    said = gridgov(*LIVE)
    assert (said.code, "GEMINI_API_KEY" in said.err, said.err.count("\n")) == (2, True, 1)
    assert not os.listdir(tmp_path)


def test_changed_word_in_a_prompt_is_told_at_once(gridgov, environment, tmp_path, monkeypatch):
    from gridgov import prompt
    from sim import tape as tapes

    recorded = tmp_path / "x.jsonl"
    with Stub() as stub:
        environment(stub)
        assert gridgov(*LIVE, "--record", recorded).code == 0
    folder = tmp_path / "prompts"
    folder.mkdir()
    for path in prompt.FOLDER.glob("*.j2"):
        (folder / path.name).write_text(path.read_text().replace("few transfers", "fewer transfers"))
    monkeypatch.setattr(tapes, "FOLDER", folder)
    said = gridgov("run", WEEK, "--epochs", "12", "--proposer", f"cassette:{recorded}")
    assert said.code == 3 and said.out == ""
    first, *diff = said.err.splitlines()
    assert (
        f"{recorded} has no reply for epoch 1, planner, round 1: the prompt template propose_transfer changed" in first
    )
    assert "the nearest recording is line 1" in first
    line = next(line for line in prompt.load("propose_transfer").sources[0][1].splitlines() if "few transfers" in line)
    assert f"-{line}" in diff and f"+{line.replace('few transfers', 'fewer transfers')}" in diff
    assert diff[:2] == ["--- recorded (line 1)", "+++ asked now"]
