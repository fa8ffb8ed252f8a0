"""What leaves for other tools: Beancount's own checker confirms it, and sees one changed amount."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from gridgov.errors import BadInput
from gridgov.interchange import EPOCHS_MAX, beancount
from gridgov.journal import Registration
from gridgov.model import Actor, Resource
from tests import grids, worlds
from tests.commands import one_line
from tests.plays import SCENARIOS, play

pytest_plugins = ["tests.commands"]

BEAN_CHECK = shutil.which("bean-check", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


@pytest.fixture
def bean_check(tmp_path):
    """What bean-check says of lines; nothing where all is well."""
    assert BEAN_CHECK is not None, "bean-check comes with the tests' packages: make test"

    def check(text):
        path = tmp_path / "x.beancount"
        path.write_text(text, encoding="utf-8")
        command = [BEAN_CHECK, "--no-cache", str(path)]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert bool(said.returncode) == bool(said.stdout + said.stderr)
        return said.stdout + said.stderr

    return check


def text_of(ledger):
    return "".join(beancount(ledger.records()))


EPOCHS = {"seed": None, "drought": None, "hostile": None, "commons-fishery": None, "community-week": 24}


@pytest.mark.parametrize("name", EPOCHS)
def test_bean_check_confirms_every_epoch_of_a_scenario(bean_check, name):
    played = play(name, epochs=EPOCHS[name])
    text = text_of(played.engine.ledger)
    state = played.engine.state
    assert len(re.findall("^.* balance ", text, re.M)) == len(state.actors) * len(state.resources) * state.epoch
    assert text.count("    entry: ") == 2 * state.entries
    assert bean_check(text) == ""


def test_bean_check_confirms_all_kinds_of_records(bean_check):
    """Holds, overrides, reversals, late readings, somebody who joins, and an epoch that is still open."""
    world, _ = worlds.everything()
    world.propose(("actor-2", "actor-1", "water", 1))
    text = text_of(world.ledger)
    assert bean_check(text) == ""
    for kind in ("genesis", "override", "reversal", "approve", "produce", "consume", "spill"):
        assert f' "{kind}"\n' in text
    assert "2000-01-03 open Assets:Actors:Actor-3" in text
    last = [line for line in text.splitlines() if "balance Assets:Actors:Actor-1 " in line and "WATER" in line][-1]
    assert last == f"2000-01-{world.state.epoch + 2:02} balance Assets:Actors:Actor-1  {_water(world)} ~ 0 WATER"


def _water(world):
    return world.state.balance("actor-1", "water")


def test_bean_check_sees_the_smallest_changed_amount(bean_check):
    """One Wh in one posting breaks a transaction; in both, the balances of all epochs that follow."""
    text = text_of(worlds.homes().ledger)
    assert bean_check(text) == ""
    posting = "  Assets:Actors:Home-2  1.000 ENERGY\n"
    assert text.count(posting) == 1
    one = text.replace(posting, posting.replace("1.000", "1.001"))
    assert "does not balance" in bean_check(one)
    both = one.replace("  Assets:Actors:Home-1  -1.000 ENERGY\n", "  Assets:Actors:Home-1  -1.001 ENERGY\n")
    said = bean_check(both)
    assert "does not balance" not in said
    assert said.count("Balance failed for 'Assets:Actors:Home-2'") == 2
    line = next(line for line in text.splitlines() if "balance Assets:Actors:Home-1" in line and "CREDITS" in line)
    assert "Balance failed" in bean_check(text.replace(line, line.replace("100.00", "100.01")))


def test_names_are_other_for_each_and_can_be_found_again(bean_check):
    """Beancount knows fewer signs than we do; the metadata has the name as it is."""
    odd = ["a.b", "a-b", "A-b", "a:b", "-x", "9", "a" * 64, "_"]
    goods = ("true", "e", "e_", "x-y", "x" * 40, "x" * 41, "9", "null", "Ünits")
    resources = tuple(Resource(name, 'a "unit" \\', i % 7) for i, name in enumerate(goods))
    opening = {actor: dict.fromkeys(goods, 7) for actor in odd}
    world = worlds.World(dict.fromkeys(odd, "node"), resources, worlds.Constraints(), opening)
    world.close()
    text = text_of(world.ledger)
    assert bean_check(text) == ""
    accounts = dict(re.findall(r'open (\S+)\n  actor: "(.*)"', text))
    assert sorted(accounts.values()) == sorted([*odd, "grid"])
    commodities = dict(re.findall(r'commodity (\S+)\n  resource: "(.*)"', text))
    assert sorted(commodities.values()) == sorted(goods)
    assert all(len(name) <= 24 for name in commodities)


def test_more_epochs_than_days_are_refused():
    world = worlds.seed_world()
    record = world.engine.append(Registration((Actor("b", "node"),), {}), world.at)
    records = [*list(world.ledger.records())[:1], record._replace(epoch=EPOCHS_MAX + 1)]
    with pytest.raises(BadInput, match="has a day for each epoch"):
        list(beancount(records))


def test_command_writes_the_file_whole_or_not_at_all(gridgov, tmp_path):
    run = gridgov("run", SCENARIOS / "seed.yaml", "--json").json
    out = tmp_path / "seed.beancount"
    assert gridgov("export", run["run_id"], "--out", out).code == 0
    assert out.read_text().startswith("; A ledger of gridgov")
    journal = tmp_path / "seed.jsonl"
    assert gridgov("export", run["run_id"], "--out", journal).code == 0
    again = tmp_path / "again.beancount"
    assert gridgov("export", journal, "--out", again).code == 0
    assert again.read_bytes() == out.read_bytes()
    journal.write_text(journal.read_text().replace("50", "51", 1))
    again.unlink()
    one_line(gridgov("export", journal, "--out", again), 1)
    assert not again.exists() and not list(tmp_path.glob(".writing-*"))
    assert ".jsonl or .beancount" in one_line(gridgov("export", run["run_id"], "--out", tmp_path / "x.txt"), 2)


def test_tables_of_a_run_are_written_as_parquet(gridgov, tmp_path):
    swept = gridgov("sweep", SCENARIOS / "seed.yaml", "--seeds", "0:2", "--jobs", "1", "--json").json
    out = tmp_path / "x.parquet"
    one = swept["runs"][1]["run_id"]
    assert gridgov("export", f"{swept['export']}#{one}", "--out", out).code == 0
    with duckdb.connect(swept["export"], read_only=True) as connection:
        tables = [name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        assert sorted(tables) == sorted(path.stem for path in out.iterdir())
        for name in tables:
            stored = connection.execute(f"SELECT * FROM {name} WHERE run_id = ? ORDER BY rowid", [one]).fetchall()
            assert connection.execute(f"SELECT * FROM '{out / name}.parquet'").fetchall() == stored
    assert "is there already" in one_line(gridgov("export", f"{swept['export']}#{one}", "--out", out), 2)
    journal = tmp_path / "x.jsonl"
    assert gridgov("export", f"{swept['export']}#{one}", "--out", journal).code == 0
    assert "only a .duckdb export, and `postgres`" in one_line(
        gridgov("export", journal, "--out", tmp_path / "y.parquet"), 2
    )


def test_production_is_written_in_every_form(server, gridgov, bean_check, monkeypatch, tmp_path):
    monkeypatch.setenv("GRIDGOV_DATABASE_URL", server.url(server.template("interchanged", grids.play)))
    monkeypatch.setenv("GRIDGOV_GRID", grids.GRID)
    for name in ("grid.duckdb", "grid.parquet", "grid.jsonl", "grid.beancount"):
        said = gridgov("export", "postgres", "--out", tmp_path / name)
        assert said.code == 0, said
    with duckdb.connect(str(tmp_path / "grid.duckdb"), read_only=True) as connection:
        for table in ("ledger", "journal", "proposals", "balances"):
            stored = connection.execute(f"SELECT * FROM {table} ORDER BY ALL").fetchall()
            written = connection.execute(f"SELECT * FROM '{tmp_path}/grid.parquet/{table}.parquet' ORDER BY ALL")
            assert stored and written.fetchall() == stored
    assert bean_check((tmp_path / "grid.beancount").read_text("utf-8")) == ""
    assert gridgov("verify", tmp_path / "grid.jsonl").code == 0
    again = one_line(gridgov("export", "postgres", "--out", tmp_path / "grid.parquet"), 2)
    assert "is there already" in again
