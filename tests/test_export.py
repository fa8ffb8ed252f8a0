"""An export holds the whole run, exactly, under its name only when it is complete."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from uuid import UUID

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridgov import tables as derived
from gridgov.amounts import to_decimal
from gridgov.errors import BadInput, Damaged
from gridgov.export import Store, export, write_journal
from gridgov.journal import Registration
from gridgov.model import BOUNDARY, Actor, Limit, uuid5
from gridgov.replay import replay
from gridgov.tables import decimals, exact_decimals, tables
from tests import worlds

CONTRACT = {
    "runs": "run_id scenario seed overrides proposers head_digest status error",
    "actors": "run_id actor uuid type",
    "resources": "run_id",
    "epochs": "run_id",
    "balances": "run_id epoch actor resource amount",
    "flows": "run_id epoch actor resource kind requested applied",
    "proposals": "run_id epoch proposal_id proposer outcome violations reasoning",
    "transfers": "run_id epoch proposal_id seq actor_from actor_to resource amount",
    "ledger": "run_id id proposal_id actor_from actor_to resource amount executed_at metadata epoch kind",
    "journal": "run_id seq epoch kind body digest",
    "interactions": "run_id",
    "metrics_epoch": "run_id",
    "metrics_run": "run_id metric resource value",
    "metrics_actor": "run_id actor resource",
}


@pytest.fixture(scope="module")
def played():
    return worlds.everything()


@pytest.fixture(scope="module")
def connection(played, tmp_path_factory):
    path = export(played[1], tmp_path_factory.mktemp("runs"))
    with duckdb.connect(str(path), read_only=True) as connection:
        yield connection


def rows(connection, sql):
    return connection.execute(sql).fetchall()


# --- what is in it ----------------------------------------------------------------------------------------------------


def test_has_every_table_and_column_of_the_contract(connection):
    for table, columns in CONTRACT.items():
        found = [name for name, *_ in rows(connection, f"DESCRIBE {table}")]
        assert found[: len(columns.split())] == columns.split() or set(columns.split()) <= set(found), table


def test_comments_every_table_view_and_column(connection):
    for kind in ("tables", "views"):
        bare = f"SELECT {kind[:-1]}_name FROM duckdb_{kind}() WHERE NOT internal AND comment IS NULL"
        assert rows(connection, bare) == []
    bare = "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND comment IS NULL"
    assert rows(connection, bare) == []


def test_amounts_are_exact_decimals_in_units_and_ids_are_uuids(connection):
    kinds = dict(rows(connection, "SELECT DISTINCT column_name, data_type FROM duckdb_columns() WHERE NOT internal"))
    for column in ("amount", "granted", "requested", "applied", "price", "served", "unmet", "balance"):
        assert kinds[column] == "DECIMAL(38,6)"
    assert kinds["import_cost"] == "DECIMAL(38,12)"
    assert kinds["proposal_id"] == kinds["uuid"] == "UUID"
    assert kinds["executed_at"] == "TIMESTAMP"


def test_balances_are_dense_and_those_of_the_replay(played, connection):
    world, run = played
    found = {
        (epoch, actor, name): amount
        for epoch, actor, name, amount in rows(
            connection, "SELECT epoch, actor, resource, amount FROM balances ORDER BY epoch"
        )
    }
    actors = [BOUNDARY, "actor-1", "actor-2", "actor-3"]
    assert len(found) == 5 * len(actors) * 3
    for epoch in range(5):
        state = replay(run.records, epoch=epoch)
        for resource in world.resources:
            column = [found[epoch, actor, resource.name] for actor in actors]
            expected = [state.balances[resource.name].get(actor, 0) for actor in actors]
            assert column == [to_decimal(minor, resource.scale) for minor in expected]
            assert sum(column) == 0


def test_ledger_is_the_entries(played, connection):
    world, run = played
    found = rows(
        connection,
        "SELECT id, proposal_id, actor_from, actor_to, resource, amount, epoch_us(executed_at), seq, epoch, kind "
        "FROM ledger ORDER BY id",
    )
    scales = {resource.name: resource.scale for resource in world.resources}
    expected = [
        (
            *(e.id, e.proposal_id and UUID(e.proposal_id), e.actor_from, e.actor_to, e.resource),
            *(to_decimal(e.amount, scales[e.resource]), e.at, e.seq, e.epoch, e.kind),
        )
        for e in run.entries
    ]
    assert found == expected
    origins = dict(rows(connection, "SELECT kind, any_value(metadata) FROM ledger GROUP BY kind"))
    assert json.loads(origins["produce"]) == {"flow": "pv"}
    assert json.loads(origins["genesis"]) == {}
    held = "SELECT metadata FROM ledger JOIN proposals USING (proposal_id) WHERE settlement = 'approve'"
    assert [json.loads(text) for (text,) in rows(connection, held)] == [{"proposer": "second"}]


def test_journal_is_the_records(played, connection):
    _, run = played
    found = rows(connection, "SELECT seq, epoch, kind, body, digest FROM journal ORDER BY seq")
    assert found == [(r.seq, r.epoch, r.kind, r.body, r.digest.hex()) for r in run.records]


def test_actors_carry_their_uuid_and_when_they_joined(connection):
    found = rows(connection, "SELECT actor, uuid, type, joined_epoch, frozen, harvester FROM actors ORDER BY actor_no")
    assert found == [
        ("grid", UUID(uuid5("grid")), "boundary", 0, False, False),
        ("actor-1", UUID(uuid5("actor-1")), "node", 0, False, False),
        ("actor-2", UUID(uuid5("actor-2")), "node", 0, False, True),
        ("actor-3", UUID(uuid5("actor-3")), "plant", 2, True, False),
    ]


def test_proposals_carry_their_final_outcome(connection):
    found = rows(
        connection,
        "SELECT epoch, proposer, n, outcome, held, settlement, settled_epoch, fault FROM proposals "
        "WHERE role = 'active' ORDER BY seq",
    )
    assert found == [
        (1, "planner", 1, "executed", False, None, None, None),
        (1, "second", 1, "executed", True, "approve", 2, None),
        (1, "third", 1, "rejected", True, "expire", 3, None),
        (1, "planner", 2, "rejected", False, None, None, None),
        (1, "planner", 3, "rejected", False, None, None, None),
        (1, "second", 2, "executed", False, None, None, None),
        (1, "idle", 1, "noop", False, None, None, None),
        (1, "planner", 4, "malformed", False, None, None, "not_pure_json"),
        (1, "planner", 5, "unavailable", False, None, None, "quota"),
        (3, "planner", 1, "rejected", False, None, None, None),
        (3, "planner", 2, "rejected", False, None, None, None),
        (4, "third", 1, "held", True, None, None, None),
    ]


def test_violations_are_json_in_units_and_rows(connection):
    [(text, pid)] = rows(
        connection, "SELECT violations, proposal_id FROM proposals WHERE proposer = 'planner' AND epoch = 1 AND n = 2"
    )
    assert json.loads(text) == [
        {"code": "max_transfer", "path": "transfers[0].amount", "limit": 50, "actual": 60}
        | {"resource": "energy", "unit": "kWh"},
        {"code": "unknown_actor", "path": "transfers[1].to", "actual": "nobody"},
    ]
    found = connection.execute(
        "SELECT seq, code, path, resource, limit_value, actual_value FROM violations WHERE proposal_id = ? ORDER BY 1",
        [pid],
    ).fetchall()
    assert found == [
        (0, "max_transfer", "transfers[0].amount", "energy", "50", "60"),
        (1, "unknown_actor", "transfers[1].to", None, None, "nobody"),
    ]
    assert rows(connection, "SELECT violations FROM proposals WHERE outcome = 'noop'") == [("[]",)]
    counts = "SELECT count(*) FROM violations WHERE code = 'hold_expired'"
    assert rows(connection, counts) == [(1,)]


def test_amounts_in_units_have_the_decimals_of_their_resource(tmp_path):
    world = worlds.seed_world(max_transfer=Limit({"credits": 125}, {}))
    world.propose(("actor-1", "actor-2", "credits", 130))
    world.close()
    path = export(world.run(), tmp_path)
    with duckdb.connect(str(path), read_only=True) as connection:
        [(text,)] = rows(connection, "SELECT violations FROM proposals")
        assert '"limit":1.25,"actual":1.3,"resource":"credits"' in text
        assert rows(connection, "SELECT amount FROM transfers") == [(Decimal("1.3"),)]


def test_violations_keep_every_digit(tmp_path):
    world = worlds.seed_world()
    world.propose(("actor-1", "actor-2", "credits", 12345678901234567890123))
    world.propose(("actor-1", "actor-2", "credits", Decimal("1E+400")))
    world.propose(("actor-1", "actor-2", "credits", 99_999_999_999_999))
    world.close()
    path = export(world.run(), tmp_path)
    with duckdb.connect(str(path), read_only=True) as connection:
        found = rows(connection, "SELECT code, limit_value, actual_value FROM violations")
    assert found == [
        ("out_of_range", "9999999999999.99", "123456789012345678901.23"),
        ("out_of_range", "9999999999999.99", "1E400"),
        ("max_transfer", "50", "999999999999.99"),
        ("insufficient_balance", "0", "999999999999.99"),
    ]


def test_transfers_are_what_was_asked_whatever_came_of_it(connection):
    found = rows(
        connection,
        "SELECT t.seq, actor_from, actor_to, resource, amount, granted, amount_text, entry_id FROM transfers AS t "
        "JOIN proposals AS p USING (proposal_id) WHERE p.epoch = 1 AND role = 'active' ORDER BY p.seq, t.seq",
    )
    assert found == [
        (0, "actor-1", "actor-2", "energy", Decimal(30), None, None, 6),
        (1, "actor-2", "actor-1", "energy", Decimal(1), None, None, 7),
        (0, "actor-2", "actor-1", "water", Decimal(35), None, None, 12),
        (0, "actor-2", "actor-1", "water", Decimal(31), None, None, None),
        (0, "actor-1", "actor-2", "energy", Decimal(60), None, None, None),
        (1, "actor-1", "nobody", "energy", Decimal(1), None, None, None),
        (0, "actor-1", "actor-2", "gold", Decimal("1.5"), None, None, None),
        (1, "actor-1", "actor-2", "water", None, None, "0.000000001", None),
        (0, "actor-1", "actor-2", "energy", Decimal(7), Decimal(3), None, 8),
    ]


@pytest.mark.parametrize(
    ("asked", "amount", "text"),
    [
        (Decimal("1E+400"), None, "1E400"),
        (10**33, None, str(10**33)),
        (10**31, Decimal(10**31), None),
        (-5, Decimal(-5), None),
        (Decimal("0.000001"), Decimal("0.000001"), None),
    ],
)
def test_keeps_amounts_that_no_decimal_holds_as_text(tmp_path, asked, amount, text):
    world = worlds.seed_world()
    world.propose(("actor-1", "actor-2", "energy", asked), ("actor-1", "actor-2", "water", 1))
    world.close()
    path = export(world.run(), tmp_path)
    with duckdb.connect(str(path), read_only=True) as connection:
        found = rows(connection, "SELECT amount, amount_text FROM transfers ORDER BY seq")
        assert found == [(amount, text), (Decimal(1), None)]


def test_shadows_are_marked_and_move_nothing(connection):
    found = rows(connection, "SELECT epoch, proposer, outcome, seq, decided_at FROM proposals WHERE role = 'shadow'")
    assert found == [(1, "shade", "rejected", None, None), (2, "shade", "malformed", None, None)]
    assert rows(connection, "SELECT count(*) FROM metrics_epoch WHERE proposals > 9") == [(0,)]


def test_flows_say_what_was_requested_and_applied(connection):
    found = rows(connection, "SELECT actor, kind, name, requested, applied, entry_id FROM flows ORDER BY seq, actor")
    assert found == [
        ("actor-1", "produce", "pv", Decimal(20), Decimal(20), 5),
        ("actor-1", "need", "load", Decimal(5), Decimal(0), None),
        ("actor-2", "need", "load", Decimal(200), Decimal(0), None),
        ("actor-1", "consume", "load", Decimal(5), Decimal(5), 9),
        ("actor-2", "consume", "load", Decimal(200), Decimal(112), 10),
        ("actor-1", "spill", "spill", Decimal(33), Decimal(33), 11),
        ("actor-1", "produce", "meter", Decimal(4), Decimal(4), 17),
    ]


def test_epochs_begin_where_the_one_before_ends(connection):
    found = rows(
        connection, "SELECT epoch, epoch_us(starts_at), epoch_us(ends_at), seq, entries FROM epochs ORDER BY 1"
    )
    hours = [worlds.START + n * worlds.HOUR for n in range(5)]
    assert [row[0] for row in found] == [0, 1, 2, 3, 4]
    assert [row[1] for row in found] == [hours[0], hours[0], *hours[1:4]]
    assert [row[2] for row in found] == hours
    assert [row[4] for row in found] == [4, 11, 12, 12, 17]


def test_keeps_what_was_put_in(played, connection):
    _, run = played
    assert dict(rows(connection, "SELECT name, content FROM files")) == run.files
    prices = rows(connection, "SELECT epoch, resource, price FROM prices ORDER BY epoch")
    assert prices[1] == (2, "energy", Decimal("0.300001"))
    assert len(prices) == 4
    found = rows(connection, "SELECT resource, none_served, bound_served, note FROM baselines ORDER BY resource")
    assert found == [("energy", Decimal(100), None, "too large"), ("water", Decimal(0), Decimal(35), "")]
    found = rows(connection, "SELECT actor, resource, served FROM alone ORDER BY actor")
    assert found == [("actor-1", "energy", Decimal(60)), ("actor-2", "energy", Decimal(0))]
    found = rows(connection, "SELECT status, cost, epoch_us(called_at), latency_ms, line FROM interactions")
    one, other = run.interactions
    assert found[0] == ("200", Decimal("0.0000125"), worlds.START + 1_500_000, 812.0, one["line"])
    assert found[1] == ("200", None, None, 812.0, other["line"])
    [row] = rows(connection, "SELECT scenario, seed, overrides, proposers, status, error, head_digest, form FROM runs")
    assert row[:2] == ("by-hand", 1)
    assert (json.loads(row[2]), json.loads(row[3])) == (run.overrides, run.proposers)
    assert row[4:] == ("complete", "none to speak of", run.head_digest, 2)
    found = rows(connection, "SELECT commons_actor, commons_resource, collapse_below FROM runs")
    assert found == [("actor-1", "energy", Decimal(5))]


def test_leaves_out_of_the_balances_what_an_open_epoch_moved(tmp_path):
    world = worlds.seed_world()
    world.propose(("actor-1", "actor-2", "water", 5))
    world.close()
    world.propose(("actor-1", "actor-2", "water", 7))
    path = export(world.run(), tmp_path)
    with duckdb.connect(str(path), read_only=True) as connection:
        found = rows(connection, "SELECT epoch, amount FROM balances WHERE actor = 'actor-1' AND resource = 'water'")
        assert found == [(0, Decimal(50)), (1, Decimal(45))]
        assert rows(connection, "SELECT count(*) FROM ledger") == [(6,)]


def test_a_world_that_was_only_opened_is_an_export_too(tmp_path):
    path = export(worlds.seed_world().run(), tmp_path)
    with duckdb.connect(str(path), read_only=True) as connection:
        assert rows(connection, "SELECT count(*) FROM balances") == [(9,)]
        assert rows(connection, "SELECT count(*) FROM metrics_run WHERE metric = 'gini' AND value IS NULL") == [(1,)]


# --- exact columns ----------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(
            st.integers(-(2**63) + 1, 2**63 - 1) | st.integers(-(10**6), 10**6), st.sampled_from([1, 10, 1000, 10**6])
        ),
        max_size=20,
    )
)
def test_decimals_are_exact_beyond_64_bits(pairs):
    minor, factor = np.array(pairs, np.int64).reshape(-1, 2).T
    assert decimals(minor, factor).to_pylist() == [Decimal(a * b).scaleb(-6) for a, b in pairs]


def test_decimals_broadcast_in_order():
    found = decimals(np.arange(6).reshape(2, 3), np.array([1, 1000, 10**6]))
    assert [int(value.scaleb(6)) for value in found.to_pylist()] == [0, 1000, 2 * 10**6, 3, 4000, 5 * 10**6]


@given(st.lists(st.none() | st.integers(-(10**39), 10**39), max_size=20))
def test_exact_decimals_hold_38_digits_and_no_more(values):
    expected = [None if v is None or abs(v) >= 10**38 else Decimal(v).scaleb(-6) for v in values]
    assert [v if v is None else v.normalize() for v in exact_decimals(values).to_pylist()] == [
        v if v is None else v.normalize() for v in expected
    ]


# --- the same, however it is fed --------------------------------------------------------------------------------------


def gathered(slices):
    found = {}
    for table, part in slices:
        found.setdefault(table, []).append(part)
    return {table: pa.concat_tables(parts).to_pylist() for table, parts in found.items()}


@pytest.mark.parametrize("size", [1, 2, 7])
def test_slices_add_up_to_the_same_tables(played, monkeypatch, size):
    whole = gathered(tables(played[1]))
    monkeypatch.setattr(derived, "ROWS", size)
    assert gathered(tables(played[1])) == whole


def test_somebody_who_joins_later_has_balances_from_the_start(monkeypatch):
    world = worlds.seed_world()
    world.propose(("actor-1", "actor-2", "energy", 1))
    world.close()
    world.engine.register(Registration((Actor("actor-3", "node"),)), world.at)
    world.close()
    run = world.run()
    whole = gathered(tables(run))
    monkeypatch.setattr(derived, "ROWS", 1)
    assert gathered(tables(run)) == whole
    balances = [row for row in whole["balances"] if row["actor"] == "actor-3"]
    assert {row["epoch"] for row in balances} == {0, 1, 2}
    assert {row["amount"] for row in balances} == {0}


def contents(path):
    with duckdb.connect(str(path), read_only=True) as connection:
        names = [name for (name,) in rows(connection, "SELECT table_name FROM duckdb_tables()")]
        return {name: rows(connection, f"SELECT * FROM {name}") for name in names}


# --- under its name only when it is complete --------------------------------------------------------------------------


def test_an_existing_complete_file_is_kept(tmp_path):
    run = worlds.homes().run()
    path = export(run, tmp_path)
    before = path.stat()
    assert export(replace(run, seconds=99.0), tmp_path) == path
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_refuses_a_damaged_file_in_the_way(tmp_path):
    run = worlds.homes().run()
    path = export(run, tmp_path)
    data = path.read_bytes()
    place = data.index(run.head_digest.encode())
    for broken in (b"", b"no database", data[: len(data) // 2], data[:place] + b"\xff" + data[place + 1 :]):
        path.write_bytes(broken)
        with pytest.raises(
            Damaged, match=r"0123456789abcdef\.duckdb: is there already, and damaged .*delete it"
        ) as found:
            export(run, tmp_path)
        assert "\n" not in str(found.value)
        assert path.read_bytes() == broken


def test_refuses_a_file_that_is_not_complete_or_holds_another_run(tmp_path):
    run = worlds.homes().run()
    path = export(run, tmp_path)
    with pytest.raises(BadInput, match="another head"):
        export(worlds.homes(seed=2).run(), tmp_path)
    with duckdb.connect(str(path)) as connection:
        connection.execute("DELETE FROM ledger WHERE id = 1")
    with pytest.raises(Damaged, match="not complete"):
        export(run, tmp_path)


def test_refuses_a_file_in_the_way_that_somebody_is_writing(tmp_path):
    run = worlds.homes().run()
    path = export(run, tmp_path)
    code = "import sys, duckdb; c = duckdb.connect(sys.argv[1]); print('ready', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(BadInput, match="another process is writing it; try again when it is done"):
            export(run, tmp_path)


def test_of_two_writers_of_one_run_the_slower_keeps_the_file_of_the_faster(tmp_path, monkeypatch):
    run = worlds.homes().run()
    complete = export(run, tmp_path / "faster")

    def link(_, path):
        shutil.copyfile(complete, path)
        raise FileExistsError

    monkeypatch.setattr(os, "link", link)
    assert contents(export(run, tmp_path / "slower")) == contents(complete)


def test_a_file_system_without_links_gets_the_complete_file_too(tmp_path, monkeypatch):
    def link(_, path):
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    path = export(worlds.homes().run(), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with duckdb.connect(str(path), read_only=True) as connection:
        assert rows(connection, "SELECT count(*) FROM runs") == [(1,)]


def test_nothing_half_done_is_left_when_it_is_interrupted(tmp_path, monkeypatch):
    run = worlds.homes().run()

    def interrupted(run, names):
        yield "prices", pa.table({"epoch": [1], "resource": ["energy"], "price": [1]})
        raise KeyboardInterrupt

    monkeypatch.setattr(derived, "_given", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(run, tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert export(run, tmp_path).is_file()


def test_a_store_goes_on_after_a_run_that_failed(tmp_path, monkeypatch):
    run = worlds.homes().run()
    with Store(tmp_path) as store:
        with pytest.raises(BadInput, match="no time"):
            store.write(replace(run, interactions=[{"at": "no time"}]))
        path = store.write(run)
        other = store.write(replace(run, run_id="other"))
    assert sorted(tmp_path.iterdir()) == sorted([path, other])


def test_a_killed_writer_leaves_nothing_under_the_name_and_its_remains_go_after_a_day(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from gridgov.export import Store\n"
        "store = Store(Path(sys.argv[1])); store.connection; print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
    [left] = tmp_path.iterdir()
    assert left.name.startswith(".writing-")
    run = worlds.homes().run()
    path = export(run, tmp_path)
    assert left.exists()
    assert path.is_file()
    yesterday = time.time() - 25 * 3600
    os.utime(left, (yesterday, yesterday))
    export(run, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_refuses_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="cannot be written to"):
        export(worlds.homes().run(), tmp_path / "file")


def test_a_folder_with_a_quote_in_its_name_is_a_folder(tmp_path):
    assert export(worlds.homes().run(), tmp_path / "it's here").is_file()


# --- the journal in a file --------------------------------------------------------------------------------------------


def test_writes_the_journal_as_lines(played, tmp_path):
    _, run = played
    path = tmp_path / "journal.jsonl"
    assert write_journal(path, iter(run.records)) == len(run.records)
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert lines == [{"body": r.body, "digest": r.digest.hex()} for r in run.records]
    assert Counter(json.loads(line["body"])["kind"] for line in lines)["close"] == 4
    assert path.stat().st_mode & 0o444 == 0o444


def test_a_journal_that_is_interrupted_is_not_there(tmp_path):
    def records():
        yield worlds.seed_world().run().records[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_journal(tmp_path / "journal.jsonl", records())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BadInput, match="cannot be written"):
        write_journal(tmp_path / "nowhere" / "journal.jsonl", [])
