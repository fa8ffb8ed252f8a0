"""The commands over a grid in Postgres as an operator meets them: started, asked, stopped, killed, mended."""

import json
import re
import signal
import socket
import subprocess
import time

import httpx
import pytest

from gridgov.embedded import running
from tests.commands import GIFT, GRIDGOV, ID, ROOT, one_line, up
from tests.databases import processes_in
from tests.plays import SCENARIOS

pytest_plugins = ["tests.commands"]


def test_up_brings_up_a_grid_with_a_key_that_works_and_ctrl_c_ends_all_of_it(gridgov, home):
    with up() as first:
        assert [line.split()[0] for line in first.lines] == ["grid", "database", "key", "app"]
        with first.client() as client:
            world = client.get("/v1/world-state").json()
            assert [actor["balances"]["energy"] for actor in world["actors"]] == [100, 80]
        answer = first.propose()
        assert (answer.status_code, answer.json()["outcome"]) == (200, "executed")
        head = answer.json()
        assert json.loads(gridgov("replay", "postgres", "--json").out)["actors"][0]["balances"]["energy"] == 87.5
        noted = f"{head['seq']}:{head['digest']}"
        assert gridgov("verify", "postgres", "--expect-head", noted).code == 0
    assert running(home / "postgres") is None
    assert not processes_in(home)
    with up() as second:
        assert second.key is None
        assert second.propose(first.key).json() == head
    assert "as it was" in second.lines[0]
    assert gridgov("verify", "postgres", "--expect-head", noted).code == 0


def test_up_begins_a_grid_from_a_scenario_once(gridgov, home):
    fishery = str(SCENARIOS / "commons-fishery.yaml")
    with up("--scenario", fishery) as grid, grid.client() as client:
        assert client.get("/v1/world-state").json()["resources"] == ["fish"]
    said = gridgov("up", "--scenario", str(SCENARIOS / "drought.yaml"))
    assert "was made from something else" in one_line(said, 2)
    with up("--scenario", fishery):
        pass


def test_up_that_is_killed_leaves_no_process_and_loses_nothing(gridgov, home):
    with up() as grid:
        head = grid.propose().json()
        grid.process.kill()
        grid.process.wait()
    deadline = time.monotonic() + 10
    while processes_in(home) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes_in(home)
    with up() as again:
        assert again.propose(grid.key).json() == head


def test_keys_are_made_shown_once_listed_and_revoked(gridgov, home):
    with up() as grid:
        made = json.loads(
            gridgov("keys", "create", "home-key", "--scope", "propose", "--mandate", "actor-2", "--json").out
        )
        key = made["key"]
        assert key.split("_")[2] not in gridgov("keys", "list").out
        [listed] = [view for view in json.loads(gridgov("keys", "list", "--json").out) if view["name"] == "home-key"]
        assert (listed["scopes"], listed["mandate"], listed["revoked_at"]) == (["propose"], ["actor-2"], None)
        refused = grid.propose(key).json()
        assert [violation["code"] for violation in refused["violations"]] == ["not_permitted"]
        assert "home-key: propose; may move actor-2" in gridgov("keys", "list").out
        assert "revoked" in gridgov("keys", "revoke", "home-key").out
        deadline = time.monotonic() + 10
        while (status := grid.propose(key).status_code) == 200 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert status == 401
        assert "names are never used again" in one_line(gridgov("keys", "create", "home-key", "--scope", "read"), 2)
        assert "scope" in one_line(gridgov("keys", "create", "other", "--scope", "rule"), 2)
        assert "nobody" in one_line(gridgov("keys", "create", "x", "--scope", "read", "--mandate", "nobody"), 2)
        assert "no key" in one_line(gridgov("keys", "revoke", "nobody"), 2)


def test_migrate_makes_a_grid_and_then_changes_nothing(gridgov, home):
    seed = str(SCENARIOS / "seed.yaml")
    assert re.fullmatch(r"grid main: applied 0001_grid(, \w+)*\n", gridgov("migrate").out)
    assert "no first record" in gridgov("doctor").out
    assert gridgov("migrate", "--scenario", seed).out == "grid main: nothing to apply, begun\n"
    assert json.loads(gridgov("migrate", "--scenario", seed, "--json").out) == {
        "grid": "main",
        "applied": [],
        "begun": False,
    }
    assert "no scenario" not in gridgov("replay", "postgres").err
    assert gridgov("keys", "list").out.startswith("there is no key yet")


def test_serve_serves_the_database_that_is_set(gridgov, database, monkeypatch):
    monkeypatch.setenv("GRIDGOV_DATABASE_URL", database)
    monkeypatch.setenv("GRIDGOV_GRID", "north")
    assert gridgov("migrate", "--scenario", str(SCENARIOS / "seed.yaml")).code == 0
    key = gridgov("keys", "create", "reader", "--scope", "read").out.strip()
    process = subprocess.Popen([*GRIDGOV, "serve", "--port", "0"], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        line = process.stdout.readline()
        url = re.fullmatch(r"serving north at (\S+)\n", line)[1]
        assert httpx.get(f"{url}/readyz").status_code == 200
        assert httpx.get(f"{url}/v1/world-state", headers={"Authorization": f"Bearer {key}"}).json()["epoch"] == 1
        monkeypatch.setenv("GRIDGOV_API_URL", url)
        parts = {found["part"]: found for found in json.loads(gridgov("doctor", "--json").out)}
        assert {part: found["well"] for part, found in parts.items()} == {
            "database": True, "grid": True, "loop": False, "keys": False, "clock": True, "disk": True, "app": True,
        }  # fmt: skip
        assert "gridgov keys create" in parts["keys"]["text"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def test_doctor_says_what_to_do_without_a_database_and_where_it_is_away(gridgov, home, monkeypatch):
    said = gridgov("doctor")
    assert said.code == 1
    assert "gridgov up" in said.out
    monkeypatch.setenv("GRIDGOV_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    said = gridgov("doctor")
    assert (said.code, "GRIDGOV_DATABASE_URL" in said.out) == (1, True)
    assert "Traceback" not in said.err


def test_doctor_sees_a_pause_and_a_clock_behind_the_journal(gridgov, home, monkeypatch):
    assert gridgov("migrate", "--scenario", str(SCENARIOS / "seed.yaml")).code == 0
    from gridgov import operations
    from gridgov.postgres import Writer

    later = operations.clock() + 3_600_000_000
    with operations.database() as url, Writer(url, "main") as writer:
        writer.submit(lambda engine: engine.pause(later, "ann", "why"))
    parts = {found["part"]: found for found in json.loads(gridgov("doctor", "--json").out)}
    assert "paused" in parts["grid"]["text"]
    assert "behind the last record" in parts["clock"]["text"]
    assert not parts["grid"]["well"] and not parts["clock"]["well"]


def test_rebuild_mends_balances_that_somebody_changed(gridgov, home):
    import psycopg

    from gridgov import operations

    assert gridgov("migrate", "--scenario", str(SCENARIOS / "seed.yaml")).code == 0
    with operations.database() as url:
        with psycopg.connect(url, autocommit=True) as owner:
            owner.execute("UPDATE main.balances SET amount = amount + 1 WHERE resource = 'energy'")
        said = gridgov("verify", "postgres")
        assert (said.code, "balances" in said.err) == (1, True)
        assert gridgov("rebuild").out == "grid main: actors, resources and balances are those of record 1\n"
        assert gridgov("verify", "postgres").code == 0


@pytest.mark.parametrize("own", [True, False])
def test_run_on_postgres_ends_in_the_head_of_memory_and_leaves_nothing(gridgov, home, database, monkeypatch, own):
    import psycopg

    if not own:
        monkeypatch.setenv("GRIDGOV_DATABASE_URL", database)
    seed = str(SCENARIOS / "seed.yaml")
    there = json.loads(gridgov("run", seed, "--ledger", "postgres", "--json").out)
    here = json.loads(gridgov("run", seed, "--out", home / "other", "--json").out)
    assert there["head_digest"] == here["head_digest"]
    assert gridgov("verify", there["export"]).code == 0
    with psycopg.connect(database) as connection:
        left = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'run%'").fetchall()
    assert not left


def test_export_of_production_is_a_source_for_every_command(gridgov, home):
    with up() as grid:
        head = grid.propose().json()
        out = home / "production.duckdb"
        assert str(out) in gridgov("export", "postgres", "--out", out).out
        lines = home / "production.jsonl"
        assert gridgov("export", "postgres", "--out", lines).code == 0
        refused = one_line(gridgov("export", "postgres", "--out", home / "production.csv"), 2)
        assert "or .duckdb" in refused
    for source in (out, lines):
        assert gridgov("verify", source, "--expect-head", f"{head['seq']}:{head['digest']}").code == 0
        assert json.loads(gridgov("replay", source, "--json").out)["actors"][0]["balances"]["energy"] == 87.5
    assert json.loads(gridgov("explain", out, ID, "--json").out)["outcome"] == "executed"
    assert "same" in gridgov("diff", out, lines).out


def test_password_of_the_database_is_never_shown(gridgov, database, monkeypatch):
    from gridgov.postgres import session_variables
    from gridgov.up import without_password

    assert (
        without_password("postgresql://bob:hunter2@db/x?sslmode=require") == "postgresql://bob:***@db/x?sslmode=require"
    )
    assert without_password("host=db password=hunter2 user=bob") == "host=db password=*** user=bob"
    assert without_password("postgresql://bob@db/x") == "postgresql://bob@db/x"
    assert session_variables("postgresql://bob:hunter2@db:5433/x?connect_timeout=3") == {
        "PGUSER": "bob", "PGPASSWORD": "hunter2", "PGHOST": "db", "PGPORT": "5433", "PGDATABASE": "x",
        "PGCONNECTTIMEOUT": "3",
    }  # fmt: skip
    for url in ("postgres:/bob:hunter2@db/x", "postgresql://bob:hunter2@[bad/x", "postgresql://bob:hun ter2@db/x"):
        monkeypatch.setenv("GRIDGOV_DATABASE_URL", url)
        for command in (("migrate",), ("doctor",), ("verify", "postgres"), ("psql",)):
            said = gridgov(*command)
            assert "ter2" not in said.out + said.err, (url, command)


def test_psql_sees_the_grid_and_no_password_in_its_arguments(gridgov, database, monkeypatch):
    monkeypatch.setenv("GRIDGOV_DATABASE_URL", database)
    assert gridgov("migrate", "--scenario", SCENARIOS / "seed.yaml").code == 0
    assert gridgov("psql", "-Atc", "SELECT count(*) FROM ledger").code == 0
    assert gridgov("psql", "-c", "SELECT nothing").code == 1


def test_production_traffic_is_a_cassette(gridgov, home, tmp_path):
    out = tmp_path / "traffic.jsonl"
    with up() as grid, grid.client() as client:
        assert "no exchange" in one_line(gridgov("cassette", "export", "postgres", "--out", out), 1)
        context = client.get("/v1/context").json()
        reply = {"candidates": [{"content": {"parts": [{"text": json.dumps(GIFT)}]}, "finishReason": "STOP"}]}
        body = {"proposal_id": context["proposal_id"], "request_key": context["request_key"], "model_response": reply}
        assert client.post("/v1/proposals", json=body).json()["outcome"] == "executed"
        assert gridgov("cassette", "export", "postgres", "--out", out).out == f"{out}: 1 interactions\n"
        assert gridgov("cassette", "check", out).code == 0
        said = gridgov(
            "cassette", "export", "postgres", "--out", tmp_path / "none.jsonl", "--since", "2999-01-01T00:00:00Z"
        )
        assert said.code == 1
        assert "write it as" in one_line(gridgov("cassette", "export", "postgres", "--out", out, "--since", "noon"), 2)


def test_prompt_is_put_in_force_and_taken_back(gridgov, home):
    with up() as grid, grid.client() as client:
        assert "nothing was put in force" in one_line(gridgov("prompt", "back", "--reason", "x"), 2)
        default = client.get("/v1/context").json()["request"]["model"]
        for role, said in (("active", "what is so by default is active"), ("shadow", "nothing is shadow")):
            asked = ("--role", role, "--reason", "trying")
            assert gridgov("prompt", "activate", "speak_for_actor", "--model", "gemini-x", *asked).code == 0
            assert client.get("/v1/context", params={"role": role}).json()["request"]["model"] == "gemini-x"
            assert said in gridgov("prompt", "back", *asked).out
        assert client.get("/v1/context").json()["request"]["model"] == default
        assert client.get("/v1/context", params={"role": "shadow"}).status_code == 404
        for model in ("gemini-3.8-flash", "gemini-4-pro"):
            said = gridgov("prompt", "activate", "propose_transfer", "--model", model, "--reason", "trying")
            assert f"with {model} is active from record" in said.out
        assert client.get("/v1/context").json()["request"]["model"] == "gemini-4-pro"
        assert (
            gridgov("prompt", "activate", "propose_transfer", "--model", "gemini-4-pro", "--reason", "again").code == 0
        )
        assert "with gemini-3.8-flash is active" in gridgov("prompt", "back", "--reason", "it was better").out
        assert client.get("/v1/context").json()["request"]["model"] == "gemini-3.8-flash"
        assert "unknown prompt" in one_line(
            gridgov("prompt", "activate", "nothing", "--model", "m", "--reason", "x"), 2
        )
        assert "no model's name" in one_line(
            gridgov("prompt", "activate", "propose_transfer", "--model", "..", "--reason", "x"), 2
        )
    assert gridgov("verify", "postgres").code == 0
    assert "propose_transfer  version" in gridgov("prompt", "list").out
    assert [one["proposers"] for one in gridgov("prompt", "list", SCENARIOS / "seed.yaml", "--json").json] == [
        ["planner"]
    ]
    fishers = gridgov("prompt", "list", SCENARIOS / "fishery-shocks.yaml").out
    assert fishers.startswith("speak_for_fisher  version") and "[fisher/fisher-1, fisher/fisher-2" in fishers
    assert "are of a SCENARIO" in one_line(gridgov("prompt", "list", "--seed", "3"), 2)
    shown = gridgov("prompt", "show", SCENARIOS / "seed.yaml", "--json")
    assert json.loads(shown.out)[0]["body"]["contents"]


def test_port_that_is_taken_is_said_before_anything_else(gridgov, home):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for command in ("up", "serve"):
            said = one_line(gridgov(command, "--port", port), 2)
            assert "choose another with --port" in said
    assert not (home / "postgres").exists()


def test_link_of_an_outcome_says_where_to_look(gridgov, home):
    with up() as grid, grid.client() as client:
        url = client.post("/v1/proposals", json={"proposal_id": ID, "proposal": GIFT}).json()["url"]
        answer = client.get(url.partition("/ledger")[1] + url.partition("/ledger")[2])
        assert (answer.status_code, "GET /v1/ledger/" in answer.text) == (200, True)
