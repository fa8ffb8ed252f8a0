"""A history opens from an export, the store or a journal in a file; what is none of them is refused in one line."""

import json
import shutil
import subprocess
import sys

import duckdb
import pytest

from gridgov.errors import BadInput, Damaged
from gridgov.export import export, write_journal
from gridgov.replay import replay
from gridgov.source import open_source
from gridgov.verify import verify
from tests import worlds

RUN = "0123456789abcdef"


@pytest.fixture(scope="module")
def played():
    return worlds.everything()


@pytest.fixture(scope="module")
def runs(played, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    export(played[1], folder)
    write_journal(folder / "journal.jsonl", played[1].records)
    return folder


@pytest.fixture
def copy(runs, tmp_path):
    """A copy of the export that may be spoilt."""
    return shutil.copyfile(runs / f"{RUN}.duckdb", tmp_path / f"{RUN}.duckdb")


def read_all(source):
    return list(source.records()), source.entries(), source.files()


def refused(text, runs, kind):
    with pytest.raises(kind) as found, open_source(str(text), runs) as source:
        read_all(source)
    assert "\n" not in str(found.value)
    return str(found.value)


# --- what opens -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["path", "run id", "chosen run", "journal"])
def test_gives_the_journal_back(played, runs, how):
    text = {
        "path": str(runs / f"{RUN}.duckdb"),
        "run id": RUN,
        "chosen run": f"{runs / RUN}.duckdb#{RUN}",
        "journal": str(runs / "journal.jsonl"),
    }[how]
    _, run = played
    with open_source(text, runs) as source:
        assert list(source.lines()) == [(r.body, r.digest) for r in run.records]
        assert list(source.records()) == run.records
        if how == "journal":
            assert source.entries() is None
            assert source.info == source.files() == source.metrics() == {}
        else:
            assert source.entries() == run.entries
            assert source.files() == run.files
            assert source.info["scenario"] == "by-hand"
            assert source.metrics()["acceptance_rate"] == 0.3


def test_gives_the_world_state_of_every_epoch(played, runs):
    _, run = played
    with open_source(RUN, runs) as source:
        found = list(source.world_states())
    assert found == [replay(run.records, epoch=epoch).world_state(epoch) for epoch in range(5)]
    assert [world.epoch for world in found] == [0, 1, 2, 3, 4]


def test_a_file_of_many_runs_says_which_there_are(played, tmp_path):
    _, run = played
    path = shutil.copyfile(export(run, tmp_path / "a"), tmp_path / "many.duckdb")
    other = export(worlds.homes().run(run_id="fedcba9876543210"), tmp_path / "b")
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"ATTACH '{other}' AS other (READ_ONLY)")
        for (table,) in connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = 'other'"
        ).fetchall():
            connection.execute(f"INSERT INTO {table} SELECT * FROM other.{table}")
    said = refused(path, tmp_path, BadInput)
    assert f"holds 2 runs; choose one as {path}#RUN_ID: {RUN}, fedcba9876543210" in said
    assert "holds no run x, but" in refused(f"{path}#x", tmp_path, BadInput)
    with open_source(f"{path}#fedcba9876543210", tmp_path) as source:
        assert source.metrics()["served"] == {"energy": 2.25, "credits": 0}
        assert len(list(source.records())) == 13
        assert len(source.entries()) == 10
    for run_id in (RUN, "fedcba9876543210"):
        with open_source(f"{path}#{run_id}", tmp_path) as source:
            assert verify(source).first is None


# --- what does not ----------------------------------------------------------------------------------------------------


def test_says_which_runs_there_are(runs, tmp_path):
    assert refused("0000", runs, BadInput) == f"0000: no such file, and no run in {runs}, which holds {RUN}"
    assert "which holds none; run a scenario first" in refused("0000", tmp_path, BadInput)
    assert refused("nowhere/x.duckdb", runs, BadInput) == "nowhere/x.duckdb: there is no such file"
    assert "set GRIDGOV_DATABASE_URL, or start one with `gridgov up`" in refused("postgres", runs, BadInput)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "valid DuckDB"), (b"hello\n" * 999, "valid DuckDB"), (4096, "damaged or cut off"), (0.4, "cut off")],
)
def test_refuses_what_is_no_database_or_cut_off(copy, runs, content, said):
    data = copy.read_bytes()
    size = content if isinstance(content, int) else int(len(data) * content) if isinstance(content, float) else 0
    copy.write_bytes(content if isinstance(content, bytes) else data[:size])
    assert said in refused(copy, runs, Damaged)


def test_refuses_a_block_that_was_changed(copy, runs):
    data = copy.read_bytes()
    with duckdb.connect(str(copy), read_only=True) as connection:
        [(digest,)] = connection.execute("SELECT digest FROM journal WHERE seq = 3").fetchall()
    place = data.index(digest.encode())
    copy.write_bytes(data[:place] + b"0" + data[place + 1 :])
    assert "checksum" in refused(copy, runs, Damaged)


def test_refuses_another_database_and_a_form_it_does_not_know(copy, runs, tmp_path):
    with duckdb.connect(str(tmp_path / "other.duckdb")) as connection:
        connection.execute("CREATE TABLE x (y INTEGER)")
    assert "no export of gridgov" in refused(tmp_path / "other.duckdb", runs, BadInput)
    with duckdb.connect(str(tmp_path / "other.duckdb")) as connection:
        connection.execute("CREATE TABLE runs (id INTEGER); INSERT INTO runs VALUES (1)")
    assert "no export of gridgov; its table runs is another" in refused(tmp_path / "other.duckdb", runs, BadInput)
    with duckdb.connect(str(copy)) as connection:
        connection.execute("UPDATE runs SET form = 9, version = '9.9'")
    said = refused(copy, runs, BadInput)
    assert "was written in form 9 by gridgov 9.9, and this version reads form 2" in said
    with duckdb.connect(str(copy)) as connection:
        connection.execute("DELETE FROM runs")
    assert "holds no run" in refused(copy, runs, Damaged)


def test_refuses_a_file_that_somebody_is_writing(copy, runs):
    code = "import sys, duckdb; c = duckdb.connect(sys.argv[1]); print('ready', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(copy)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        assert "somebody is writing it; try again" in refused(copy, runs, BadInput)
        process.stdin.close()
        process.wait()
    with duckdb.connect(str(copy)):
        assert "somebody is writing it; try again" in refused(copy, runs, BadInput)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE journal SET digest = 'zz' WHERE seq = 4", "journal record 4 has no body with a digest"),
        ("UPDATE journal SET body = NULL WHERE seq = 4", "journal record 4 has no body with a digest"),
        ("DELETE FROM journal WHERE seq = 4", "journal record 4: its digest does not follow"),
        ("DELETE FROM journal WHERE seq = 32", "the journal ends with record 31, which is not runs.head_digest"),
        ("DELETE FROM journal", "the journal has no record"),
        ("UPDATE ledger SET amount = 0.5 WHERE id = 6", "row 6 of ledger (id 6) is no ledger entry"),
        ("UPDATE ledger SET kind = 'gift' WHERE id = 6", "row 6 of ledger (id 6) is no ledger entry"),
        ("UPDATE ledger SET actor_to = NULL WHERE id = 6", "row 6 of ledger (id 6) is no ledger entry"),
        ("UPDATE ledger SET resource = 'gold' WHERE id = 6", "row 6 of ledger (id 6) is no ledger entry"),
        (
            "UPDATE files SET content = 'x' WHERE name = 'data/load.csv'",
            "the file data/load.csv in it is not what it was",
        ),
        ("DROP TABLE files", "files does not exist"),
    ],
)
def test_refuses_rows_that_were_changed(copy, runs, change, said):
    with duckdb.connect(str(copy)) as connection:
        connection.execute(change)
    found = refused(copy, runs, Damaged)
    assert str(copy) in found
    assert said in found


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: b"", "the journal has no record"),
        (lambda data: data[:-20], "line 32 is cut off: it has no end"),
        (lambda data: data.replace(b'"body"', b'"bodi"', 1), "line 1 is no journal record"),
        (lambda data: b"[]\n" + data, "line 1 is no journal record"),
        (lambda data: b"{\n" + data, "line 1 is no JSON"),
        (lambda data: b"[" * 100_000 + b"\n" + data, "line 1 is no JSON"),
        (lambda data: b"\xff\n" + data, "it is not UTF-8"),
        (lambda data: data.replace(b'"digest": "', b'"digest": "0', 1), "line 1 has no body with a digest"),
        (lambda data: data + data.splitlines(keepends=True)[0], "journal record 33: its digest"),
        (
            lambda data: json.dumps({"body": "{}", "digest": "0" * 64}).encode() + b"\n",
            "journal record 1: its digest does not follow",
        ),
    ],
)
def test_refuses_a_journal_that_is_none(runs, tmp_path, spoil, said):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(spoil((runs / "journal.jsonl").read_bytes()))
    found = refused(path, runs, Damaged)
    assert str(path) in found
    assert said in found
