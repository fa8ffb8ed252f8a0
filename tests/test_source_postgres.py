"""A grid as a history: every change to it is found and named, and what reads a file reads it the same."""

import subprocess
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from gridgov.diff import diff
from gridgov.embedded import Embedded
from gridgov.errors import BadInput, Unreachable
from gridgov.explain import explain
from gridgov.export import write_journal
from gridgov.grid import Grid, exported
from gridgov.journal import Decision
from gridgov.postgres import APP, READ, Writer, migrate, rebuild
from gridgov.replay import replay
from gridgov.source import open_source
from gridgov.verify import verify
from tests import grids

pytest_plugins = ["tests.databases"]

NOWHERE = Path("nowhere")


@pytest.fixture(scope="module")
def played(server):
    """A database with a grid that has rows in every table; nobody may change it."""
    return server.url(server.template("played", grids.play))


@pytest.fixture(scope="module")
def spoilt(server, played):
    """One that is changed, and put right again after each change."""
    with server.database("played") as url:
        yield url


@pytest.fixture
def url(server, played):
    """One that a test may do with as it likes."""
    with server.database("played") as url:
        yield url


def opened(url):
    return open_source("postgres", NOWHERE, (url, grids.GRID))


def checked(url, expect_head=None):
    with opened(url) as source:
        return verify(source, expect_head)


def failed(report):
    return [check.name for check in report.checks if check.failure is not None]


def passes(url, expect_head=None):
    report = checked(url, expect_head)
    return report.first is None


def test_passes_what_was_written(played):
    report = checked(played)
    assert report.first is None
    assert [check.name for check in report.checks if check.skipped] == ["head", "views"]
    counts = {check.name: check.count for check in report.checks}
    with psycopg.connect(played) as connection:
        rows = {
            table: connection.execute(sql.SQL("SELECT count(*) FROM main.{}").format(sql.Identifier(table))).fetchone()[
                0
            ]
            for table in ("journal", "ledger", "actors", "resources", "balances", "interactions", "shadows", "requests")
        }
    assert counts["seals"] == rows.pop("interactions") + rows["shadows"] + rows.pop("requests") == 9 + 3 + 3
    assert counts["chain"] == rows["journal"]
    assert counts["tables"] == sum(rows.values())


def test_compares_page_by_page(played, monkeypatch):
    wanted = checked(played).checks
    monkeypatch.setattr("gridgov.grid_tables.PAGE", 4)
    monkeypatch.setattr("gridgov.grid.EXCHANGES", 2)
    report = checked(played)
    assert report.first is None
    assert report.checks == wanted


# --- each column of each table ----------------------------------------------------------------------------------------

OTHER = {
    "text": lambda value: "x" if value is None else value + "x",
    "uuid": lambda value: "00000000-0000-5000-8000-000000000000",
    "bytea": lambda value: value[:-1] + bytes([value[-1] ^ 1]),
    "timestamp with time zone": lambda value: "1999-12-31 23:59:59.000001+00",
    "jsonb": lambda value: '{"proposer": "x"}',
    "bigint": lambda value: value + 1000,
    "integer": lambda value: (value or 0) + 1,
    "smallint": lambda value: (value + 1) % 7,
    "numeric": lambda value: value + 1,
}
EXEMPT = {"keys": None, "outbox_acks": None, "interactions": {"usage", "latency_ms"}}
"""By table, the columns that follow from nothing; None: all of them."""


def columns(url):
    """Every column that must be found: (table, column, type)."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT c.table_name, c.column_name, c.data_type FROM information_schema.columns AS c "
            "JOIN information_schema.tables AS t USING (table_schema, table_name) "
            "WHERE t.table_schema = 'main' AND t.table_type = 'BASE TABLE' ORDER BY 1, c.ordinal_position"
        ).fetchall()
    exempt = {table: EXEMPT.get(table, set()) for table, _, _ in found}
    return [row for row in found if exempt[row[0]] is not None and row[1] not in exempt[row[0]]]


def middle(connection, table):
    """A row somewhere in the middle of a table: where it is, and its values by column."""
    order = {"balances": "amount", "actors": "seq", "resources": "name", "meta": "name"}.get(table, "1")
    cursor = connection.execute(
        sql.SQL("SELECT ctid::text, * FROM {} ORDER BY " + order.replace("1", "2")).format(sql.Identifier(table))
    )
    keys = [column.name for column in cursor.description]
    rows = cursor.fetchall()
    return dict(zip(keys, rows[len(rows) // 2], strict=True))


def put(connection, table, column, value, place):
    text = "UPDATE {} SET {} = %s WHERE ctid = %s::tid RETURNING ctid::text"
    (place,) = connection.execute(
        sql.SQL(text).format(sql.Identifier(table), sql.Identifier(column)), (value, place)
    ).fetchone()
    return place


def test_finds_a_change_to_any_column(spoilt):
    found = columns(spoilt)
    assert {table for table, _, _ in found} == {
        "journal", "ledger", "actors", "resources", "balances", "interactions", "meta", "shadows", "requests"
    }  # fmt: skip
    assert len(found) > 40
    for table, column, kind in found:
        with grids.tampering(spoilt) as connection:
            row = middle(connection, table)
            before = row[column]
            place = put(connection, table, column, OTHER[kind](before), row["ctid"])
        said = refused(spoilt) if table == "meta" else checked(spoilt).first
        with grids.tampering(spoilt) as connection:
            put(connection, table, column, Jsonb(before) if kind == "jsonb" else before, place)
        assert said is not None, f"{table}.{column}"
        if table == "journal" and column in ("seq", "body", "digest"):
            assert "journal record" in said, said
        elif table in ("interactions", "shadows", "requests"):
            assert f"main: {table}, " in said, said
        elif table == "meta":
            assert f"grid {grids.GRID}" in said
            assert "0002_shadows" in said
        else:
            assert f"{table}" in said, said
            assert column in said, f"{column}: {said}"
    assert passes(spoilt)


def test_finds_a_last_exchange_with_another_number(spoilt):
    with grids.tampering(spoilt) as connection:
        connection.execute("UPDATE interactions SET id = id + 1000 WHERE id = (SELECT max(id) FROM interactions)")
    said = checked(spoilt).first
    with grids.tampering(spoilt) as connection:
        connection.execute("UPDATE interactions SET id = id - 1000 WHERE id = (SELECT max(id) FROM interactions)")
    assert "interactions, id" in said and "the last that was given" in said
    assert passes(spoilt)


def refused(url):
    with pytest.raises(BadInput) as error:
        opened(url)
    return str(error.value)


@pytest.mark.parametrize("table", ["journal", "ledger", "actors", "resources", "balances", "meta", "shadows"])
def test_finds_a_row_too_few(url, table):
    with grids.tampering(url) as connection:
        row = middle(connection, table)
        connection.execute(sql.SQL("DELETE FROM {} WHERE ctid = %s::tid").format(sql.Identifier(table)), [row["ctid"]])
    said = refused(url) if table == "meta" else checked(url).first
    words = {"journal": "journal record", "meta": "lacks 0002_shadows", "shadows": "which was never decided about"}
    assert words.get(table, f"{table} lacks the row of") in said


LEDGER = "SELECT {}, proposal_id, actor_from, actor_to, resource, amount, executed_at, metadata, seq, epoch, kind"
JOURNAL = "SELECT {}, epoch, kind, at, NULL, NULL, NULL, body, digest FROM journal WHERE seq = 2"
MORE = {
    "a record after the last": (f"INSERT INTO journal {JOURNAL.format(999)}", "journal record"),
    "a record before the first": (f"INSERT INTO journal {JOURNAL.format(0)}", "journal has a row of seq 0"),
    "an entry after the last": (f"INSERT INTO ledger {LEDGER.format(999)} FROM ledger WHERE id = 7", "row of id 999"),
    "an entry before the first": (f"INSERT INTO ledger {LEDGER.format(-9)} FROM ledger WHERE id = 7", "row of id -9"),
    "an actor": ("INSERT INTO actors VALUES (gen_random_uuid(), 'x', 'node', 1)", "actors has a row of id"),
    "a resource": ("INSERT INTO resources VALUES ('gold', 'g', 0)", "resources has a row of name gold"),
    "a balance": (
        "INSERT INTO balances SELECT id, 'credits', 0 FROM actors WHERE key = 'actor-3'",
        "balances has a row of actor",
    ),
    "an interaction": (
        "INSERT INTO interactions OVERRIDING SYSTEM VALUE SELECT 99, proposal_id, request_key, at, request, status, "
        "body, about, usage, latency_ms, digest FROM interactions WHERE id = 2",
        "interactions, id 99: column id",
    ),
}


@pytest.mark.parametrize("what", MORE)
def test_finds_a_row_too_many(url, what):
    statement, words = MORE[what]
    with grids.tampering(url) as connection:
        connection.execute(statement)
    assert words in checked(url).first


@pytest.mark.parametrize(("table", "key"), [("ledger", "id"), ("journal", "seq")])
def test_finds_rows_that_changed_places(url, table, key):
    with grids.tampering(url) as connection:
        for one, other in ((6, -1), (7, 6), (-1, 7)):
            connection.execute(f"UPDATE {table} SET {key} = {other} WHERE {key} = {one}")
    said = checked(url).first
    assert ("journal record 6: its digest" if table == "journal" else "ledger, id 6: column") in said


def test_names_the_row_and_both_values(url):
    with grids.tampering(url) as connection:
        connection.execute("UPDATE ledger SET amount = amount + 1 WHERE id = 6")
    report = checked(url)
    assert failed(report) == ["tables"]
    assert report.first == "postgres:main: ledger, id 6: column amount is 31; the journal implies 30"


def test_goes_on_to_the_end_of_the_journal_after_a_row_that_differs(url, played):
    noted = head(played)
    with grids.tampering(url) as connection:
        connection.execute("UPDATE ledger SET amount = 1 WHERE id = 6")
        connection.execute("DELETE FROM journal WHERE seq = (SELECT max(seq) FROM journal)")
    assert failed(checked(url, noted)) == ["head", "seals", "tables"]


# --- the tail ---------------------------------------------------------------------------------------------------------


def head(url):
    report = checked(url)
    return f"{report.seq}:{report.digest}"


def cut(url, count=3):
    """Takes the last records away with all that followed from them, as one who owns the database can."""
    with grids.tampering(url) as connection:
        (first,) = connection.execute("SELECT max(seq) - %s FROM journal", [count - 1]).fetchone()
        for table in ("journal", "shadows"):
            connection.execute(f"DELETE FROM interactions AS i USING {table} AS j "
                               "WHERE j.proposal_id = i.proposal_id AND j.seq >= %s", [first])  # fmt: skip
        connection.execute("DELETE FROM shadows WHERE seq >= %s", [first])
        for table in ("ledger", "journal"):
            connection.execute(f"DELETE FROM {table} WHERE seq >= %s", [first])
    rebuild(url, grids.GRID)


def test_tail_that_was_cut_is_found_by_a_head_that_was_noted(url):
    noted = head(url)
    cut(url)
    assert passes(url)
    report = checked(url, noted)
    assert failed(report) == ["head"]
    assert "before the head that was noted" in report.first


def test_tail_that_was_written_anew_is_found_by_a_head_that_was_noted(url):
    noted = head(url)
    cut(url, 1)
    with Writer(url, grids.GRID) as writer:
        at = writer.submit(lambda engine: engine.state.at)
        grids.ask(writer, at, 1, amount=2)
    assert passes(url)
    assert head(url).split(":")[0] == noted.split(":")[0]
    report = checked(url, noted)
    assert failed(report) == ["head"]
    assert "its digest is not the one that was noted" in report.first


def test_journal_without_a_record_is_damaged(url):
    with grids.tampering(url) as connection:
        connection.execute("DELETE FROM journal")
    assert "the journal has no record" in checked(url).first


# --- triggers and privileges ------------------------------------------------------------------------------------------

UNGUARDED = {
    "DROP TRIGGER ledger_stays ON ledger": "ledger, trigger ledger_stays: is gone",
    "ALTER TABLE journal DISABLE TRIGGER journal_row_stays": "journal, trigger journal_row_stays: is disabled",
    "ALTER TABLE ledger ENABLE TRIGGER ledger_row_stays": "ledger, trigger ledger_row_stays: is disabled",
    "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'":
        "not what the migrations made",
    "CREATE OR REPLACE TRIGGER journal_row_stays BEFORE UPDATE OF seq ON journal "
    "FOR EACH ROW EXECUTE FUNCTION refuse_change()": "journal, trigger journal_row_stays: is disabled, or not what",
    "CREATE TRIGGER a BEFORE INSERT ON ledger FOR EACH ROW EXECUTE FUNCTION refuse_change()": "trigger a: is not",
    "GRANT UPDATE ON ledger TO gridgov_app": "ledger: gridgov_app may UPDATE, and must not",
    "GRANT UPDATE (body) ON journal TO gridgov_app": "journal: gridgov_app may UPDATE, and must not",
    "DROP TRIGGER shadows_stays ON shadows": "shadows, trigger shadows_stays: is gone",
    "ALTER TABLE requests DISABLE TRIGGER requests_row_stays": "requests, trigger requests_row_stays: is disabled",
    "GRANT UPDATE ON shadows TO gridgov_app": "shadows: gridgov_app may UPDATE, and must not",
    "REVOKE INSERT ON requests FROM gridgov_app": "requests: gridgov_app may not INSERT, and must",
    "GRANT DELETE ON journal TO PUBLIC": "may DELETE, and must not",
    "GRANT TRUNCATE ON interactions TO gridgov_app": "interactions: gridgov_app may TRUNCATE, and must not",
    "GRANT INSERT ON outbox_acks TO gridgov_read": "outbox_acks: gridgov_read may INSERT, and must not",
    "GRANT SELECT ON keys TO gridgov_read": "keys: gridgov_read may SELECT, and must not",
    "REVOKE INSERT ON ledger FROM gridgov_app": "ledger: gridgov_app may not INSERT, and must",
}  # fmt: skip


@pytest.mark.parametrize("change", UNGUARDED)
def test_finds_what_no_longer_keeps_it_from_being_changed(url, change):
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET search_path TO main")
        connection.execute(change)
    report = checked(url)
    assert failed(report) == ["guards"]
    assert UNGUARDED[change] in report.first


# --- what reads a file reads a grid -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def journal(played, tmp_path_factory):
    """The same history in a file."""
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    with opened(played) as source:
        write_journal(path, source.records())
    return path


def test_reads_the_same_as_the_journal_in_a_file(played, journal):
    with opened(played) as grid, open_source(str(journal), NOWHERE) as file:
        assert list(grid.lines()) == list(file.lines())
        assert list(grid.world_states()) == list(file.world_states())
        assert diff(grid, file).identical
        records = list(file.records())
        assert grid.entries() == grids.entries_of(played)
        assert grid.files() == grid.info == grid.metrics() == {}
        decisions = [record.payload for record in records if isinstance(record.payload, Decision)]
        for decision in decisions:
            here, there = (explain(source, decision.proposal_id) for source in (grid, file))
            kept, raw = here["seen"].pop("interaction"), here["said"].pop("raw")
            assert there["seen"].pop("interaction") is there["said"].pop("raw") is None
            assert here == there
            assert (kept is None) == (decision.proposer != "model")
            if kept is not None:
                assert kept["model_asked"] == kept["line"]["model_asked"] == "gemini"
                assert "what now?" in (kept["line"].get("user") or kept["line"]["request"])
                assert raw == (None if decision.n == 2 and decision.proposal_id == kept["proposal_id"] and
                               "body_base64" in kept["line"] else "{}")  # fmt: skip


def test_world_state_of_now_and_of_an_epoch_is_had_without_the_journal(played, journal, monkeypatch):
    with open_source(str(journal), NOWHERE) as file:
        records = list(file.records())
        wanted = [file.world_state(), *(file.world_state(epoch) for epoch in range(6)), file.world_state(entry=3)]
        for asked in ({"epoch": 99}, {"entry": 999}):
            with pytest.raises(BadInput, match="it has epochs 0 to 5 and entries 1 to"):
                file.world_state(**asked)
    assert wanted == [
        replay(records).world_state(),
        *(replay(records, epoch=epoch).world_state(epoch) for epoch in range(6)),
        replay(records, entry=3).world_state(),
    ]
    with opened(played) as source:
        assert source.world_state(entry=3) == wanted[-1]
        monkeypatch.setattr(type(source), "lines", None)
        assert source.world_state() == wanted[0]
        assert [source.world_state(epoch) for epoch in range(6)] == wanted[1:-1]
        with pytest.raises(BadInput, match="epoch 99 has not closed yet"):
            source.world_state(99)


def test_sees_one_moment_however_long_it_reads(url):
    with opened(url) as source:
        before = source.grid.head()
        with Writer(url, grids.GRID) as writer:
            grids.ask(writer, before.at, 2)
            writer.submit(lambda engine: engine.close(before.at))
        report = verify(source, f"{before.seq}:{before.digest.hex()}")
        assert report.passed
        assert report.seq == before.seq
    assert checked(url).seq == before.seq + 2


def test_interaction_whose_parts_are_no_json_is_kept_as_it_is(played):
    with Grid(played, grids.GRID) as grid:
        row = next(grid.exchanges())[1]
    found = exported({**row, "about": "[1]", "usage": "{", "decision": None, "at": "Infinity"})
    assert found["epoch"] is found["tokens_in"] is None
    assert found["at"].startswith("1970-01-01T00:00:00")
    assert '"body_base64":"' in found["line"]


def test_says_what_is_missing(server, played):
    with server.database() as url:
        with pytest.raises(BadInput, match="no grid main in this database; run `gridgov migrate`"):
            opened(url)
        migrate(url, "main")
        with opened(url) as source:
            with pytest.raises(BadInput, match="has no genesis"):
                source.world_state()
            assert "the journal has no record" in verify(source).first
    with pytest.raises(BadInput, match="set GRIDGOV_DATABASE_URL, or start one with `gridgov up`"):
        open_source("postgres", NOWHERE)
    with opened(played) as source:
        source.grid._connection.close()
        with pytest.raises(Unreachable, match="gave no answer"):
            list(source.records())


# --- rebuilt, and restored --------------------------------------------------------------------------------------------


def test_balance_that_was_changed_is_found_and_rebuilt(url):
    noted = head(url)
    with grids.tampering(url) as connection:
        connection.execute("UPDATE balances SET amount = amount + 1 WHERE amount > 0 AND resource = 'water'")
        connection.execute("UPDATE actors SET type = 'x' WHERE key = 'actor-2'")
    report = checked(url, noted)
    assert failed(report) == ["tables"]
    assert "column type is x; the journal implies node" in report.first
    assert rebuild(url, grids.GRID) == report.seq
    assert passes(url, noted)


def test_backup_that_is_restored_on_another_server_is_the_same_history_and_goes_on(postgres, url, place, tmp_path):
    noted, dump = head(url), tmp_path / "grid.dump"

    def run(program, *arguments):
        subprocess.run([str(postgres / program), *arguments], check=True, capture_output=True)

    run("pg_dump", "--format=custom", f"--file={dump}", url)
    with Embedded(place / "another", durable=False) as another:
        with psycopg.connect(another.url, autocommit=True) as connection:
            for role in (APP, READ):  # a dump of one database has no roles
                connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))
        run("pg_restore", "--exit-on-error", f"--dbname={another.url}", str(dump))
        report = checked(another.url, noted)
        assert report.first is None
        assert [check.name for check in report.checks if not check.count] == ["views"], "an export has those"
        assert migrate(another.url, grids.GRID) == []
        with Writer(another.url, grids.GRID) as writer:
            grids.ask(writer, writer.submit(lambda engine: engine.state.at), 2)
        assert passes(another.url, noted)
