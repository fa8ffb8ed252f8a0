"""A grid exported is like a run: every tool works on it, and what was wrong in the grid is wrong in it, and found."""

import json

import duckdb
import psycopg
import pytest

from gridgov.cassette import read_lines
from gridgov.diff import diff
from gridgov.engine import Engine
from gridgov.errors import BadInput, Damaged, GridgovError, Unreachable
from gridgov.explain import explain
from gridgov.export import export, metrics
from gridgov.grid_export import export_grid
from gridgov.journal import Decision
from gridgov.model import Round
from gridgov.postgres import PostgresLedger, Writer, migrate
from gridgov.source import open_source
from gridgov.verify import verify
from tests import grids, worlds
from tests.plays import play
from tests.test_postgres import GENESIS

pytest_plugins = ["tests.databases"]


@pytest.fixture(scope="module")
def played(server):
    return server.url(server.template("played", grids.play))


@pytest.fixture
def url(server, played):
    with server.database("played") as url:
        yield url


@pytest.fixture(scope="module")
def exported(played, tmp_path_factory):
    told = []
    path = tmp_path_factory.mktemp("out") / "main.duckdb"
    assert export_grid(played, grids.GRID, path, lambda *done: told.append(done)) == path
    return path, told


@pytest.fixture(scope="module")
def tables(exported):
    with duckdb.connect(str(exported[0]), read_only=True) as connection:
        yield connection


def opened(path):
    return open_source(str(path), path.parent)


def grid_of(url):
    return open_source("postgres", None, (url, grids.GRID))


def test_export_verifies_and_is_the_same_history(played, exported):
    path, told = exported
    with opened(path) as source, grid_of(played) as grid:
        report = verify(source)
        assert report.first is None
        assert [check.name for check in report.checks if check.skipped] == ["head", "guards"]
        assert list(source.lines()) == list(grid.lines())
        assert source.entries() == grid.entries()
        found = diff(source, grid)
        assert found.identical
        assert found.a.run_id is not None
        assert list(source.world_states()) == list(grid.world_states())
        total = report.seq + len(grid.entries())
        assert told[-1] == (total, total)
        assert list(path.parent.iterdir()) == [path]


def test_run_says_what_it_is(played, tables):
    cursor = tables.execute("SELECT * FROM runs")
    keys = [column[0] for column in cursor.description]
    (run,) = [dict(zip(keys, row, strict=True)) for row in cursor.fetchall()]
    with grid_of(played) as grid:
        head = grid.grid.head()
    assert run["scenario"] == "main"
    assert run["description"] == f"grid main in Postgres, up to journal record {head.seq}"
    assert run["head_digest"] == head.digest.hex()
    assert run["status"] == "open"
    assert run["horizon"] == run["epochs"] == 5
    assert (run["recorded"], run["synthetic"]) == (9, 0)
    assert run["error"] is run["seconds"] is None
    assert len(run["run_id"]) == 16
    roles = {proposer["name"]: proposer["role"] for proposer in json.loads(run["proposers"])}
    assert list(roles) == ["planner", "second", "third", "idle", "model", "model/shadow"]
    assert roles.pop("model/shadow") == "shadow" and set(roles.values()) == {"active"}


def test_every_tool_reads_it(exported, tables):
    path, _ = exported
    for (view,) in tables.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall():
        tables.execute(f"SELECT * FROM {view}").fetchall()
    assert metrics(path)["acceptance_rate"] not in (None, 0)
    with opened(path) as source:
        decisions = [record.payload for record in source.records() if isinstance(record.payload, Decision)]
        for decision in decisions:
            story = explain(source, decision.proposal_id)
            assert (story["seen"]["interaction"] is not None) == (decision.proposer == "model")


def test_shadows_are_exported_with_their_exchanges_and_explained_alike(played, exported, tables):
    rows = tables.execute(
        "SELECT p.epoch, p.proposer, p.n, p.outcome, p.state_moved, p.seq, p.proposal_id::VARCHAR, t.amount, "
        "t.entry_id, i.model_asked FROM proposals AS p LEFT JOIN transfers AS t USING (proposal_id) "
        "JOIN interactions AS i USING (proposal_id) WHERE p.role = 'shadow' ORDER BY p.n"
    ).fetchall()
    told = [(6, "model/shadow", 1, "executed", False), (6, "model/shadow", 2, "executed", True),
            (6, "model/shadow", 3, "malformed", False)]  # fmt: skip
    assert [row[:5] for row in rows] == told
    assert [row[7] is None for row in rows] == [False, False, True]
    assert {row[5] for row in rows} == {row[8] for row in rows} == {None}
    assert {row[-1] for row in rows} == {"gemini-next"}
    with opened(exported[0]) as source, grid_of(played) as grid:
        for row in rows:
            here, there = (explain(each, row[6]) for each in (source, grid))
            assert here["shadow"] is True and here["outcome"] == row[3]
            assert here["seen"].pop("interaction")["line"] == there["seen"].pop("interaction")["line"] is not None
            assert here == there


def test_interactions_are_as_the_grid_kept_them(tables):
    rows = tables.execute(
        "SELECT epoch, proposer, n, origin, model_asked, prompt, status, tokens_in, tokens_out, latency_ms, attempts, "
        "called_at, line FROM interactions WHERE proposer = 'model' ORDER BY epoch, n"
    ).fetchall()
    assert [row[:3] for row in rows] == [*((5, "model", n) for n in range(1, 6)), (6, "model", 1)]
    assert {row[3:11] for row in rows} == {("recorded", "gemini", "plan", "200", 40, 7, 12.0, 1)}
    lines = [json.loads(row[-1]) for row in rows]
    assert lines[0]["body"] == "{}"
    assert lines[1]["body_base64"]
    assert all(len(line["digest"]) == 64 for line in lines)
    assert all("what now?" in line["request"] for line in lines if line != lines[3])
    cassette = read_lines([rows[3][-1].encode() + b"\n"])
    assert cassette.interactions[0].user == "what now?"
    assert cassette.interactions[0].round == Round(5, "model", 4)


@pytest.mark.parametrize("name", ["played by hand", "community-week", "hostile"])
def test_tables_are_those_of_a_run_in_memory(server, tmp_path, name):
    """What the journal implies is the same, row by row in their order, whichever way it came."""
    if name == "played by hand":
        world, run = worlds.everything()
        ledger = world.ledger
    else:
        ledger = play(name, epochs=12).engine.ledger
        run = worlds.seed_world().run(records=list(ledger.records()), entries=list(ledger.entries()))
    with server.database() as url:
        copy(ledger, url)
        path = export_grid(url, "main", tmp_path / "grid.duckdb")
    other = export(run, tmp_path)
    with duckdb.connect() as connection:
        for file, schema in ((path, "ours"), (other, "theirs")):
            connection.execute(f"ATTACH '{file}' AS {schema} (READ_ONLY)")
        for table in ("journal", "ledger", "flows", "proposals", "transfers", "balances", "epochs", "resources"):
            found = [
                connection.execute(f"SELECT * EXCLUDE (run_id{more}) FROM {schema}.{table} {where}").fetchall()
                for schema in ("ours", "theirs")
                for more in [", priced" if table == "resources" else ""]
                for where in [
                    f"WHERE proposal_id NOT IN (SELECT proposal_id FROM {schema}.proposals WHERE role = 'shadow')"
                    if table in ("proposals", "transfers")
                    else ""
                ]
            ]
            assert found[0] == found[1], table
            assert found[0] or table == "flows"


def copy(ledger, url):
    """Writes what a ledger in memory has to a grid."""
    migrate(url, "main")
    there = PostgresLedger(url, "main")
    entries = ledger.entries()
    for record in ledger.records():
        there.append(record, [entry for entry in entries if entry.seq == record.seq])
    there.commit()
    there.close()


def test_small_batches_come_to_the_same(played, exported, tmp_path, monkeypatch):
    monkeypatch.setattr("gridgov.grid_export.BATCH", 1)
    monkeypatch.setattr("gridgov.tables._LINES", 2)
    monkeypatch.setattr("gridgov.export._COMMITTED", 1)
    path = export_grid(played, grids.GRID, tmp_path / "small.duckdb")
    with opened(path) as source:
        assert verify(source).first is None
    with duckdb.connect() as connection:
        for file, schema in ((path, "ours"), (exported[0], "theirs")):
            connection.execute(f"ATTACH '{file}' AS {schema} (READ_ONLY)")
        for (table,) in connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = 'ours'"
        ).fetchall():
            ours, theirs = (connection.execute(f"SELECT * FROM {s}.{table}").fetchall() for s in ("ours", "theirs"))
            assert ours == theirs, table


def test_grid_that_was_only_begun_is_exported(server, tmp_path):
    with server.database() as url:
        migrate(url, "main")
        with pytest.raises(BadInput, match="has no genesis"):
            export_grid(url, "main", tmp_path / "none.duckdb")
        ledger = PostgresLedger(url, "main")
        Engine(ledger).append(GENESIS._replace(opening=()), 1_000)
        ledger.commit()
        ledger.close()
        path = export_grid(url, "main", tmp_path / "begun.duckdb")
    with opened(path) as source:
        assert verify(source).first is None
        assert source.world_state().epoch == 1
    assert [file.name for file in tmp_path.iterdir()] == ["begun.duckdb"]


def test_file_that_is_there_is_kept_if_it_is_this_history_and_refused_else(url, tmp_path):
    path = export_grid(url, grids.GRID, tmp_path / "main.duckdb")
    before = path.read_bytes()
    assert export_grid(url, grids.GRID, path) == path
    with Writer(url, grids.GRID) as writer:
        grids.ask(writer, writer.submit(lambda engine: engine.state.at), 2)
    with pytest.raises(BadInput, match="is there already, with another head"):
        export_grid(url, grids.GRID, path)
    assert path.read_bytes() == before
    path.write_bytes(b"hello")
    with pytest.raises(Damaged, match="is there already, and damaged"):
        export_grid(url, grids.GRID, path)
    with pytest.raises(BadInput, match=r"ends in \.duckdb"):
        export_grid(url, grids.GRID, tmp_path / "main.csv")
    later = export_grid(url, grids.GRID, tmp_path / "later.duckdb")
    with opened(later) as source:
        assert verify(source).first is None
    with duckdb.connect(str(later), read_only=True) as connection:
        assert connection.execute("SELECT run_id FROM runs").fetchone()[0] in before.decode("latin-1")


SPOILT = {
    "UPDATE ledger SET metadata = '{}' WHERE id = 6": "ledger, id 6: column metadata is {}",
    "UPDATE ledger SET amount = amount + 1 WHERE id = 6": "balances, epoch 1, actor actor-1, resource energy: column",
    "UPDATE ledger SET executed_at = executed_at + '1 day' WHERE id = 6": "ledger, id 6: column executed_at",
    "UPDATE journal SET kind = 'control' WHERE seq = 4": "journal, seq 4: column kind is control",
    "UPDATE journal SET at = at + '1 day' WHERE seq = 4": "journal, seq 4: column recorded_at",
}


@pytest.mark.parametrize("change", SPOILT)
def test_what_was_changed_in_the_grid_is_found_in_its_export(url, tmp_path, change):
    with grids.tampering(url) as connection:
        connection.execute(change)
    with opened(export_grid(url, grids.GRID, tmp_path / "main.duckdb")) as source:
        assert SPOILT[change] in verify(source).first


REFUSED = {
    "UPDATE ledger SET actor_to = gen_random_uuid() WHERE id = 6": "row 6 of ledger is no ledger entry",
    "UPDATE ledger SET resource = 'gold' WHERE id = 6": "row 6 of ledger is no ledger entry",
    "UPDATE ledger SET amount = 0.001 WHERE id = 6": "row 6 of ledger is no ledger entry",
    "DELETE FROM ledger WHERE id = 6": "rows up to id",
    "UPDATE journal SET body = body || ' ' WHERE seq = 6": "journal record 6: its digest does not follow",
    "DELETE FROM journal WHERE seq = 6": "journal record 6: its digest does not follow",
    "UPDATE journal SET body = '{}' WHERE seq = 1": "a body that is no record",
    "UPDATE resources SET scale = 3 WHERE name = 'water'": "resources are not those of the genesis",
}


@pytest.mark.parametrize("change", REFUSED)
def test_refuses_to_export_what_is_no_history_and_leaves_nothing(url, tmp_path, change):
    with grids.tampering(url) as connection:
        connection.execute(change)
    with pytest.raises(Damaged, match="postgres:main: ") as error:
        export_grid(url, grids.GRID, tmp_path / "main.duckdb")
    assert REFUSED[change] in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_database_that_goes_away_is_told_in_one_line(url, tmp_path, monkeypatch):
    def ended(self, builder, batches):
        next(batches)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                               "WHERE datname = current_database() AND pid <> pg_backend_pid()")  # fmt: skip
        yield from ()

    monkeypatch.setattr("gridgov.grid_export.GridRun._moved", ended)
    with pytest.raises((Unreachable, GridgovError), match="postgres:main: the database") as error:
        export_grid(url, grids.GRID, tmp_path / "main.duckdb")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
