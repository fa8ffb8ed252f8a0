"""The commands over a grid in Postgres as an operator meets them: started, asked, stopped, killed, mended."""

import json
import re
import signal
import subprocess
import time

import httpx
import pytest

from gridgov.embedded import running
from tests.commands import GRIDGOV, ID, ROOT, one_line, up
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
    assert gridgov("migrate").out == "grid main: applied 0001_grid\n"
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
        assert ".jsonl, or .duckdb" in refused
    for source in (out, lines):
        assert gridgov("verify", source, "--expect-head", f"{head['seq']}:{head['digest']}").code == 0
        assert json.loads(gridgov("replay", source, "--json").out)["actors"][0]["balances"]["energy"] == 87.5
    assert json.loads(gridgov("explain", out, ID, "--json").out)["outcome"] == "executed"
    assert "same" in gridgov("diff", out, lines).out
