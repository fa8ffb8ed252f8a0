"""The production ledger: one order, nothing lost, nothing doubled, nothing changed; and what a restart must know."""

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import pytest
from hypothesis import settings
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from gridgov import batch, beside, postgres, queries, replay, standing, stored
from gridgov.batch import Committed
from gridgov.embedded import Embedded
from gridgov.engine import Engine
from gridgov.errors import BadInput, Conflict, Damaged, GridgovError, Misplaced, Unreachable
from gridgov.flows import Request
from gridgov.grid_export import export_grid
from gridgov.journal import Decision, Genesis, Registration, digest
from gridgov.ledger import MemoryLedger
from gridgov.model import (
    Actor,
    Constraints,
    Kind,
    LedgerEntry,
    Limit,
    Malformed,
    Outcome,
    Proposal,
    Resource,
    Transfer,
    uuid5,
)
from gridgov.postgres import APP, READ, PostgresLedger, Reader, Writer, migrate
from gridgov.source import open_source
from gridgov.standing import load_state
from gridgov.state import State
from gridgov.verify import verify
from sim.launch import seats
from sim.loading import load
from sim.runner import Runner
from sim.world import World
from tests.plays import SCENARIOS
from tests.strategies import FOUNDERS
from tests.test_engine import GridMachine, both, same_state
from tests.test_ledger import PostgresLedgers

pytest_plugins = ["tests.databases"]

ROOT = Path(__file__).parent.parent
ACTORS = tuple(f"actor-{n}" for n in range(1, 9))
GENESIS = Genesis(
    1,
    1_000,
    60_000_000,
    (Actor("grid", "boundary"), *(Actor(name, "node") for name in ACTORS)),
    (Resource("energy", "kWh", 3), Resource("credits", "credit", 2)),
    Constraints(max_transfer=Limit({"energy": 50_000}, {}), hold_above=Limit({"energy": 40_000}, {})),
    tuple((name, resource, 10**9) for name in ACTORS for resource in ("energy", "credits")),
    {},
)


@pytest.fixture(scope="module")
def migrated(server):
    return server.template("migrated", partial(migrate, grid="main"))


@pytest.fixture
def url(server, migrated):
    """A database with an empty grid `main`."""
    with server.database(migrated) as url:
        yield url


@pytest.fixture
def grid(url):
    """A grid with eight actors, each of whom has a million of two resources."""
    ledger = PostgresLedger(url, "main")
    Engine(ledger).append(GENESIS, 1_000)
    ledger.commit()
    ledger.close()
    return url


@pytest.fixture
def writer(grid):
    with Writer(grid, "main", patience_s=5) as writer:
        yield writer


@pytest.fixture
def reader(grid):
    reader = Reader(grid, "main", size=2)
    yield reader
    reader.close()


@contextmanager
def session(url, role=None, grid="main"):
    """A session of the superuser, or as a role, that sees the grid's tables."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(grid)))
        if role is not None:
            connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        yield connection


def proposal(name, giver="actor-1", taker="actor-2", amount=1_000, resource="energy", reasoning="because"):
    return Proposal(uuid5(name), "planner", 1, (Transfer(giver, taker, resource, amount),), reasoning)


def propose(writer, asked, at=2_000):
    return writer.submit(lambda engine: engine.propose(asked, at), asked.id)


def opened(url, patience_s=60):
    """A session that reads, waited for: where a server recovers on a busy machine, one try may not be enough."""
    until = time.monotonic() + patience_s
    while True:
        try:
            return postgres.connect(url, "main", READ)
        except Unreachable:
            if time.monotonic() >= until:
                raise
            time.sleep(0.1)


def journal(url):
    """The records as they are stored, their chain checked."""
    connection = opened(url)
    try:
        return list(replay.chain(stored.lines(connection)))
    finally:
        connection.close()


def check(url):
    """The journal is one chain, the tables follow from it, and what a restart would load is what it comes to."""
    records = journal(url)
    state, entries = State(), list[LedgerEntry]()
    for record in records:
        entries += replay.fold(state, record)
    connection = opened(url)
    try:
        same_state(load_state(connection), state)
        assert list(stored.entries_after(connection)) == entries
    finally:
        connection.close()
    return records


def decisions(records):
    return [record.payload for record in records if type(record.payload) is Decision]


@contextmanager
def standing_still(writer):
    """The writer is kept busy, so that what is submitted meanwhile shares a batch."""
    started, gate = threading.Event(), threading.Event()

    def wait(_):
        started.set()
        assert gate.wait(10)

    call = writer.enqueue(wait)
    assert started.wait(10)
    yield
    gate.set()
    call.result(10)


def in_threads(tasks, timeout_s=30):
    """What each task returned, all having begun at the same moment; one that raised is what it raised."""
    found: list[Any] = [None] * len(tasks)
    begin = threading.Barrier(len(tasks))

    def run(place, task):
        begin.wait()
        try:
            found[place] = task()
        except Exception as error:  # noqa: BLE001 - it is one of the results
            found[place] = error

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(tasks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout_s)
        assert not thread.is_alive()
    return found


# --- migrations, roles, immutability ----------------------------------------------------------------------------------


def test_migrating_again_changes_nothing(server):
    with server.database() as url:
        assert migrate(url, "main") == list(queries.migrations())
        with session(url) as connection:
            before = connection.execute("SELECT * FROM meta").fetchall()
        assert migrate(url, "main") == []
        with session(url) as connection:
            assert connection.execute("SELECT * FROM meta").fetchall() == before


def test_many_migrate_at_once_and_one_does_it(server):
    with server.database() as one, server.database() as other:
        targets = [(one, "main"), (one, "main"), (one, "town"), (other, "main"), (other, "main"), (other, "town")]
        taken = in_threads([partial(migrate, *target) for target in targets])
        done = Counter(target for target, names in zip(targets, taken, strict=True) if names)
        assert done == Counter(set(targets))


def test_grids_of_one_database_do_not_see_each_other(server):
    with server.database() as url:
        migrate(url, "main")
        migrate(url, "town-2")
        ledger = PostgresLedger(url, "town-2")
        Engine(ledger).append(GENESIS, 1_000)
        ledger.commit()
        ledger.close()
        assert journal(url) == []
        postgres.drop(url, "town-2")
        with pytest.raises(BadInput, match="no grid town-2"):
            postgres.connect(url, "town-2")


@pytest.mark.parametrize("name", ["", "Main", "1st", "pg_x", "information_schema", "a" * 64, 'x"; DROP SCHEMA y', "é"])
def test_refuses_a_grid_by_a_name_that_is_none(name):
    with pytest.raises(BadInput, match="is no name for a grid"):
        migrate("", name)


def test_says_where_to_migrate_and_where_the_schema_is_another(url, monkeypatch):
    with pytest.raises(BadInput, match="no grid town in this database; run `gridgov migrate`"):
        postgres.connect(url, "town")
    known = queries.migrations()
    monkeypatch.setattr(postgres, "migrations", lambda: {**known, "0009_more": "SELECT 1"})
    with pytest.raises(BadInput, match="lacks 0009_more; run `gridgov migrate`"):
        postgres.connect(url, "main")
    assert migrate(url, "main") == ["0009_more"]
    postgres.connect(url, "main").close()
    monkeypatch.setattr(postgres, "migrations", lambda: known)
    for attempt in (postgres.connect, migrate):
        with pytest.raises(BadInput, match="has 0009_more, which this version does not know"):
            attempt(url, "main")
    monkeypatch.setattr(postgres, "migrations", lambda: {**known, "0009_more": "SELECT 2"})
    with pytest.raises(BadInput, match="0009_more was applied with other content"):
        migrate(url, "main")


def test_migration_that_fails_leaves_nothing(url, monkeypatch):
    known = queries.migrations()
    monkeypatch.setattr(postgres, "migrations", lambda: {**known, "0009_more": "CREATE TABLE more (); SELECT 1 / 0"})
    with pytest.raises(GridgovError, match=r"migrating grid main: the database refuses it \(division by zero"):
        migrate(url, "main")
    with session(url) as connection:
        assert connection.execute("SELECT to_regclass('more')").fetchone() == (None,)


def test_says_that_the_database_cannot_be_reached(tmp_path):
    with pytest.raises(Unreachable, match="the database cannot be reached"):
        migrate(f"host={tmp_path} user=nobody", "main")
    with pytest.raises(BadInput, match="no address of a Postgres database"):
        migrate("what is this", "main")


def test_migrates_without_being_superuser(server):
    server.execute("CREATE ROLE keeper LOGIN CREATEROLE")
    try:
        with server.database() as url:
            with psycopg.connect(url, autocommit=True) as connection:
                for role in (APP, READ):  # whoever made them may hand them on: here a superuser did
                    connection.execute(sql.SQL("GRANT {} TO keeper").format(sql.Identifier(role)))
                database = sql.Identifier(connection.info.dbname)
                connection.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO keeper").format(database))
            theirs = make_conninfo(url, user="keeper")
            migrate(theirs, "main")
            with Writer(theirs, "main") as writer:
                writer.submit(lambda engine: engine.append(GENESIS, 1_000))
            assert len(check(theirs)) == 1
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(sql.SQL("REVOKE {} FROM keeper").format(sql.Identifier(APP)))
            with pytest.raises(BadInput, match="acting as gridgov_app: the database refuses it"):
                postgres.connect(theirs, "main")
    finally:
        server.execute("DROP ROLE keeper")


CHANGES = {
    "update": "UPDATE {} SET epoch = 7",
    "update of nothing": "UPDATE {} SET epoch = 7 WHERE false",
    "delete": "DELETE FROM {}",
    "delete of nothing": "DELETE FROM {} WHERE false",
    "truncate": "TRUNCATE {}",
    "truncate with what follows": "TRUNCATE {} CASCADE",
    "merge": "MERGE INTO {} AS t USING (SELECT 1) AS s ON true WHEN MATCHED THEN DELETE",
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("table", ["ledger", "journal"])
def test_refuses_every_change_of_what_is_recorded(grid, table, change):
    statement = sql.SQL(CHANGES[change]).format(sql.Identifier(table))
    with session(grid) as owner:
        before = owner.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))).fetchall()
        for mode in ("origin", "replica"):
            owner.execute(sql.SQL("SET session_replication_role TO {}").format(sql.Literal(mode)))
            with pytest.raises(psycopg.errors.RestrictViolation, match="what is recorded is never changed"):
                owner.execute(statement)
        assert owner.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))).fetchall() == before
    for role in (APP, READ):
        with session(grid, role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)


def test_refuses_an_insert_that_would_update(grid):
    with session(grid) as owner, pytest.raises(psycopg.errors.RestrictViolation):
        owner.execute("INSERT INTO ledger SELECT * FROM ledger ON CONFLICT (id) DO UPDATE SET amount = 7")


def test_each_role_may_do_just_this(url):
    with session(url) as connection:
        rows = connection.execute(
            "SELECT grantee, table_name, privilege_type FROM information_schema.role_table_grants "
            "WHERE table_schema = 'main' AND grantee <> current_user"
        ).fetchall()
    views = ["proposals", "holds", "epochs", "constraints", "outbox"]
    tables = ["journal", "ledger", "actors", "resources", "balances", "interactions", "outbox_acks", "meta", "keys"]
    tables += ["shadows", "requests"]
    added = ["journal", "ledger", "actors", "resources", "balances", "interactions", "outbox_acks", "keys"]
    added += ["shadows", "requests"]
    assert set(rows) == {
        *((APP, table, "SELECT") for table in (*tables, *views)),
        *((APP, table, "INSERT") for table in added),
        *((APP, table, "UPDATE") for table in ("actors", "balances", "keys")),
        *((READ, table, "SELECT") for table in (*tables, *views) if table != "keys"),
    }


# --- the same as in memory --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.yaml")), ids=lambda path: path.stem)
def test_scenario_ends_in_the_same_head_digest_as_in_memory(path, url):
    scenario = load(path, epochs=60 if path.stem == "community-year" else None)
    digests = []
    for ledger in (None, PostgresLedger(url, "main")):
        world = World(scenario)
        digests.append(Runner(scenario, world, seats(scenario, world), ledger).run().head_digest)
    ledger.close()
    assert digests[0] == digests[1]
    check(url)


def test_what_is_loaded_is_what_the_whole_fold_comes_to(server):
    """After every step of random histories: the state of now, and the WorldState at each close."""

    class Machine(GridMachine):
        ledgers = PostgresLedgers(server)
        met: ClassVar[Counter] = Counter()

        @precondition(lambda self: len(self.looks) % 2 == 0)
        @rule()
        def wait(self):
            """Nothing, and two proposals that only an approval stands in the way of: by chance, few come about."""
            (giver, taker), at = FOUNDERS[:2], self.now()
            self.resume()
            self.constrain({"hold_above": {"energy": 0}, "hold_epochs": 1})
            freed = dict.fromkeys((giver, taker), False)
            self.engine.register(Registration((), freed, {"planner": None}, "operator", "reason"), at)
            self.oracle.register([], freed, {"planner": None}, at)
            self.give(Kind.PRODUCE, [(giver, "energy", 20)])
            for pairs in ([], *[[both((giver, taker, "energy", 10))]] * 2):
                self._propose("planner", pairs, None, "")
            if self.oracle.holds():
                self.settle(0, "approve")
            if self.oracle.holds():
                self.close_until_a_hold_expires()

        @invariant()
        def agree(self):
            super().agree()
            if self.oracle is not None:
                loaded = load_state(self.ledger.connection)
                same_state(loaded, self.engine.state)
                assert loaded.world_state() == self.engine.state.world_state()
                assert list(loaded.holds) == list(self.engine.state.holds)

        def teardown(self):
            if self.oracle is not None:
                for epoch in (0, *self.closed):
                    shown = replay.replay(self.records, epoch=epoch).world_state(epoch)
                    assert standing.state_at(self.ledger.connection, epoch).world_state(epoch) == shown
            super().teardown()

    examples = max(30, settings.default.max_examples // 8)
    run_state_machine_as_test(Machine, settings=settings(stateful_step_count=40, max_examples=examples))
    wanted = {*(("", outcome.value) for outcome in Outcome), "approve", "expire"}
    unmet = wanted - Machine.met.keys() - {what[0] for what in Machine.met}
    assert not unmet


# --- group commit -----------------------------------------------------------------------------------------------------


def test_fifty_threads_with_one_id_get_one_outcome(grid, writer, reader):
    asked = proposal("the one")
    found = in_threads([partial(propose, writer, asked, 2_000 + n) for n in range(50)])
    assert len(set(map(id, found))) <= 50 and len(set(found)) == 1
    assert found[0].outcome is Outcome.EXECUTED
    assert [d.proposal_id for d in decisions(check(grid))] == [asked.id]
    assert reader.answered(asked.id).payload == found[0]


def test_fifty_threads_with_other_input_under_one_id_get_one_outcome_and_conflicts(grid, writer):
    asked = [proposal("the one", amount=1_000 + n) for n in range(50)]
    found = in_threads([partial(propose, writer, one) for one in asked])
    (made,) = [one for one in found if not isinstance(one, Exception)]
    assert sum(type(one) is Conflict for one in found) == 49
    assert decisions(check(grid)) == [made]


def test_concurrent_commands_share_commits_and_keep_the_order_of_each_thread(grid):
    seen: list[Committed] = []
    with Writer(grid, "main", on_commit=seen.append) as writer:

        def some(name):
            return [propose(writer, proposal(f"{name}/{n}", amount=1_000 + n)) for n in range(20)]

        found = in_threads([partial(some, n) for n in range(30)])
    made = decisions(check(grid))
    assert len(made) == 600
    for own in found:
        place = [made.index(decision) for decision in own]
        assert place == sorted(place)
    assert sum(batch.commands for batch in seen) == 600
    assert sum(batch.records for batch in seen) == 600
    assert (seen[-1].seq, seen[-1].entries) == (601, 616)
    assert max(batch.commands for batch in seen) > 1


def test_answers_only_what_another_session_can_see(grid, writer):
    with session(grid) as other:
        for n in range(20):
            asked = proposal(f"{n}")
            propose(writer, asked)
            row = other.execute("SELECT outcome FROM journal WHERE proposal_id = %s", [asked.id]).fetchone()
            assert row == ("executed",)


def test_rejected_id_stays_rejected(grid, writer):
    asked = proposal("too much", amount=60_000)
    assert propose(writer, asked).outcome is Outcome.REJECTED
    writer.submit(lambda engine: engine.constrain(Constraints(), 2_001))
    assert propose(writer, asked).outcome is Outcome.REJECTED
    writer.close()
    with Writer(grid, "main") as restarted:
        assert propose(restarted, asked).outcome is Outcome.REJECTED
        with pytest.raises(Conflict):
            propose(restarted, proposal("too much", amount=1))
    assert len(decisions(check(grid))) == 1


def test_what_a_command_raises_goes_to_its_caller_alone(grid, writer):
    propose(writer, proposal("before"))
    with standing_still(writer):
        calls = [
            writer.enqueue(
                lambda engine, n=n: engine.propose(proposal("before" if n == 3 else f"{n}", amount=7), 2_000)
            )
            for n in range(6)
        ]
    for n, call in enumerate(calls):
        if n == 3:
            with pytest.raises(Conflict):
                call.result()
        else:
            assert call.result().outcome is Outcome.EXECUTED
    assert len(decisions(check(grid))) == 6


@pytest.mark.parametrize("error", [BadInput("no"), ZeroDivisionError("a bug")])
def test_command_that_appends_and_then_raises_leaves_no_trace(grid, writer, error):
    def half(engine):
        engine.propose(proposal("half"), 2_000)
        raise error

    with standing_still(writer):
        before = writer.enqueue(lambda engine: engine.propose(proposal("before"), 2_000))
        spoilt = writer.enqueue(half)
        after = writer.enqueue(lambda engine: (engine.propose(proposal("after"), 2_000), engine.state.seq))
    with pytest.raises(type(error)):
        spoilt.result()
    assert before.result().entries == (17,)
    assert after.result()[0].entries == (18,)
    assert [d.proposal_id for d in decisions(check(grid))] == [proposal("before").id, proposal("after").id]
    assert propose(writer, proposal("half")).outcome is Outcome.EXECUTED


def test_command_whose_rows_the_database_refuses_spoils_no_other(grid, writer):
    with standing_still(writer):
        good = [writer.enqueue(lambda engine, n=n: engine.propose(proposal(f"{n}"), 2_000)) for n in range(3)]
        bad = writer.enqueue(lambda engine: engine.register(Registration((Actor("nul\0", "node"),)), 2_000))
        good += [writer.enqueue(lambda engine, n=n: engine.propose(proposal(f"{n}"), 2_000)) for n in range(3, 6)]
    with pytest.raises(GridgovError, match="the database refuses to record it"):
        bad.result()
    assert [call.result().outcome for call in good] == [Outcome.EXECUTED] * 6
    assert [record.kind for record in check(grid)] == ["genesis"] + ["proposal"] * 6


def test_texts_of_all_kinds_are_kept_as_they_are(grid, writer):
    nasty = "\\N \\. \t\r\n\\\t\"'{}%s$1 ⚡ \u2028 \x7f;--"
    actor = 'a\\b\t"c",{d}\n'
    writer.submit(lambda engine: engine.register(Registration((Actor(actor, nasty),), operator=nasty), 2_000))
    writer.submit(lambda engine: engine.give(Kind.PRODUCE, nasty, [Request(actor, "energy", 5_000)], 2_000))
    asked = proposal("nasty", actor, "actor-1", reasoning=nasty)
    assert propose(writer, asked).outcome is Outcome.EXECUTED
    check(grid)
    with session(grid) as connection:
        assert connection.execute("SELECT reasoning FROM proposals").fetchall() == [(nasty,)]
        assert connection.execute("SELECT type FROM actors WHERE key = %s", [actor]).fetchall() == [(nasty,)]
        (metadata,) = connection.execute("SELECT metadata FROM ledger WHERE kind = 'produce'").fetchone()
        assert metadata == {"flow": nasty}


def test_database_of_another_encoding_keeps_texts_as_they_are_or_refuses_them(server, tmp_path):
    server.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
    url = server.url("latin")
    migrate(url, "main")
    ledger = PostgresLedger(url, "main")
    Engine(ledger).append(GENESIS, 1_000)
    ledger.commit()
    ledger.close()
    with Writer(url, "main") as writer:
        assert propose(writer, proposal("kept", reasoning="café")).reasoning == "café"
        with pytest.raises(GridgovError, match="the database refuses to record it"):
            propose(writer, proposal("refused", reasoning="⚡"))
    assert [d.reasoning for d in decisions(check(url))] == ["café"]
    with open_source(str(export_grid(url, "main", tmp_path / "main.duckdb")), tmp_path) as source:
        assert [d.reasoning for d in decisions(source.records())] == ["café"]
        assert verify(source).first is None
    server.execute("DROP DATABASE latin WITH (FORCE)")


def test_interaction_is_kept_once_with_the_decision_that_it_led_to(grid, writer):
    raw = bytes(range(256)) * 3
    asked = proposal("asked")
    kept = beside.Interaction(asked.id, "key\\", 1_999, b"{}\\", 200, raw, '{"a":"\\\\ \t"}', None, 12)
    for _ in range(2):
        writer.submit(lambda engine: engine.propose(asked, 2_000), asked.id, kept)
    with session(grid) as connection:
        rows = connection.execute("SELECT proposal_id::text, request_key, request, status, body, about, usage, "
                                  "latency_ms, digest FROM interactions").fetchall()  # fmt: skip
    assert rows == [(*kept[:2], *kept[3:], kept.digest)]


def test_two_writers_make_one_order(grid):
    with Writer(grid, "main") as one, Writer(grid, "main") as other:

        def some(writer, name):
            return [propose(writer, proposal(f"{name}/{n}")) for n in range(40)]

        found = in_threads([partial(some, writer, n) for n, writer in enumerate((one, other) * 4)])
        assert one.submit(lambda engine: engine.state.digest) == other.submit(lambda engine: engine.state.digest)
    assert all(decision.outcome is Outcome.EXECUTED for own in found for decision in own)
    assert len(decisions(check(grid))) == 320


def test_id_that_another_writer_decided_about_is_known(grid):
    with Writer(grid, "main") as one, Writer(grid, "main") as other:
        made = propose(one, proposal("the one"))
        assert propose(other, proposal("the one")) == made
        with pytest.raises(Conflict):
            propose(other, proposal("the one", amount=7))
        held = propose(other, proposal("held", amount=45_000))
        assert held.outcome is Outcome.HELD
        assert one.submit(lambda engine: engine.settle(held.proposal_id, "approve", 2_000)).outcome is Outcome.EXECUTED
        with pytest.raises(BadInput, match="may have been settled already"):
            other.submit(lambda engine: engine.settle(held.proposal_id, "approve", 2_000))
    check(grid)


def test_writer_that_fell_far_behind_loads_anew(grid, monkeypatch):
    monkeypatch.setattr(standing, "MISSED", 5)
    with Writer(grid, "main") as one, Writer(grid, "main") as other:
        for n in range(12):
            propose(one, proposal(f"{n}"))
        assert propose(other, proposal("next")).entries == (29,)
        reader = Reader(grid, "main")
        reader.world_state()
        for n in range(12, 24):
            propose(one, proposal(f"{n}"))
        assert reader.look(lambda state: state.seq) == 26
        reader.close()
    check(grid)


def test_first_record_may_come_through_either_writer(url):
    with Writer(url, "main") as one, Writer(url, "main") as other:
        one.submit(lambda engine: engine.append(GENESIS, 1_000))
        assert propose(other, proposal("first")).outcome is Outcome.EXECUTED
    check(url)


def test_closing_finishes_what_was_taken_and_takes_no_more(grid):
    writer = Writer(grid, "main")
    with standing_still(writer):
        calls = [writer.enqueue(lambda engine, n=n: engine.propose(proposal(f"{n}"), 2_000)) for n in range(50)]
        closing = threading.Thread(target=writer.close)
        closing.start()
    closing.join(10)
    assert [call.result(0).outcome for call in calls] == [Outcome.EXECUTED] * 50
    with pytest.raises(Unreachable, match="the writer is closed, nothing was recorded"):
        writer.enqueue(lambda engine: None)
    writer.close()
    assert len(decisions(check(grid))) == 50


def test_answer_that_does_not_come_in_time_says_so(writer):
    with standing_still(writer):
        call = writer.enqueue(lambda engine: engine.propose(proposal("late"), 2_000))
        with pytest.raises(Unreachable, match="ask again under the same id"):
            call.result(0.01)
    assert call.result().outcome is Outcome.EXECUTED


def test_observer_that_fails_stops_nobody(grid, caplog):
    def fail(batch):
        raise ZeroDivisionError

    with Writer(grid, "main", on_commit=fail) as writer:
        assert propose(writer, proposal("one")).outcome is Outcome.EXECUTED
        assert propose(writer, proposal("two")).outcome is Outcome.EXECUTED
    assert "on_commit failed" in caplog.text


def test_ledger_for_one_engine_notices_another_writer(grid):
    ledger = PostgresLedger(grid, "main")
    engine = Engine(ledger)
    with Writer(grid, "main") as writer:
        propose(writer, proposal("by another"))
    engine.propose(proposal("mine"), 2_000)
    with pytest.raises(Damaged, match="somebody else writes to this grid"):
        ledger.commit()
    ledger.close()
    assert len(decisions(check(grid))) == 1


def test_ledger_for_one_engine_that_is_refused_lets_go_of_the_lock_and_goes_on(grid):
    ledger = PostgresLedger(grid, "main")
    engine = Engine(ledger)
    engine.propose(proposal("mine"), 2_000)
    with session(grid) as owner:
        owner.execute(sql.SQL("REVOKE INSERT ON journal FROM {}").format(sql.Identifier(APP)))
        with pytest.raises(Misplaced, match="permission denied for table journal"):
            ledger.commit()
        assert owner.execute("SELECT pg_try_advisory_xact_lock('journal'::regclass::oid::bigint)").fetchone() == (True,)
        assert len(list(ledger.records())) == 1
        owner.execute(sql.SQL("GRANT INSERT ON journal TO {}").format(sql.Identifier(APP)))
    engine.propose(proposal("next"), 2_000)
    ledger.commit()
    assert engine.propose(proposal("mine"), 2_001).outcome is Outcome.EXECUTED
    ledger.commit()
    ledger.close()
    assert [d.proposal_id for d in decisions(check(grid))] == [proposal("mine").id, proposal("next").id]


# --- what goes wrong with the database --------------------------------------------------------------------------------


class Proxy:
    """Stands between a writer and the server, and cuts its connections as it is told."""

    def __init__(self, url, folder):
        parts = conninfo_to_dict(url)
        self.server = f"{parts['host']}/.s.PGSQL.{parts.get('port', 5432)}"
        self.url = make_conninfo(url, host=str(folder), port=1)
        self.cut = None
        self.every = None
        self.refuse = False
        self.commits = 0
        self.cuts = 0
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(f"{folder}/.s.PGSQL.1")
        self.listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if self.refuse:
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX)
            server.connect(self.server)
            threading.Thread(target=self._carry, args=(client, server), daemon=True).start()
            threading.Thread(target=self._back, args=(server, client), daemon=True).start()

    def _carry(self, client, server):
        with client, server, suppress(OSError):
            while data := client.recv(1 << 16):
                self._count(data)
                if self.cut is not None and b"COMMIT\0" in data:
                    when, self.cut = self.cut, None
                    self.cuts += 1
                    client.shutdown(socket.SHUT_RDWR)
                    if when == "after":
                        server.sendall(data)
                        time.sleep(0.02)
                    break
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)

    def _count(self, data):
        """Cuts every so many commits, by turns before and after."""
        self.commits += b"COMMIT\0" in data
        if self.every is not None and b"COMMIT\0" in data and self.commits % self.every == 0:
            self.cut = "before" if self.commits // self.every % 2 else "after"

    def _back(self, server, client):
        with suppress(OSError):
            while data := server.recv(1 << 16):
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listener.close()


@pytest.fixture
def proxy(grid, place):
    proxy = Proxy(grid, place)
    yield proxy
    proxy.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_connection_lost_in_a_commit_neither_loses_nor_doubles(grid, proxy, when):
    with Writer(proxy.url, "main") as writer:
        propose(writer, proposal("warm"))
        for n in range(3):
            proxy.cut = when
            found = in_threads([partial(propose, writer, proposal(f"{n}/{k}")) for k in range(8)])
            assert [decision.outcome for decision in found] == [Outcome.EXECUTED] * 8
        assert proxy.cuts == 3
    assert len(decisions(check(grid))) == 25


@pytest.mark.parametrize("when", ["before", "after"])
def test_connection_lost_in_a_commit_while_another_writes(grid, proxy, when):
    with Writer(proxy.url, "main") as writer, Writer(grid, "main") as other:
        proxy.cut = when
        first, _ = in_threads([partial(propose, writer, proposal("one")), partial(propose, other, proposal("two"))])
        assert first.outcome is Outcome.EXECUTED
        assert propose(other, proposal("one")) == first
    assert len(decisions(check(grid))) == 2


@pytest.mark.parametrize("when", ["before", "after"])
def test_database_that_goes_away_in_a_commit_leaves_no_false_word(grid, proxy, when):
    with Writer(proxy.url, "main", patience_s=0.3) as writer:
        proxy.cut, proxy.refuse = when, True
        with pytest.raises(Unreachable, match="it may be recorded, so ask again under the same id"):
            propose(writer, proposal("one"))
        with pytest.raises(Unreachable, match="nothing was recorded"):
            propose(writer, proposal("two"))
        proxy.refuse = False
        assert propose(writer, proposal("one")).outcome is Outcome.EXECUTED
    assert len(decisions(check(grid))) == 1


def test_session_that_the_server_ends_is_made_anew(grid, writer, reader):
    with session(grid) as owner:
        for n in range(3):
            owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                          "WHERE datname = current_database() AND pid <> pg_backend_pid()")  # fmt: skip
            assert propose(writer, proposal(f"{n}")).outcome is Outcome.EXECUTED
            assert reader.look(lambda state: state.seq) == n + 2
    check(grid)


def test_writer_that_stops_in_mid_transaction_does_not_hold_up_the_others(grid, monkeypatch):
    monkeypatch.setattr(postgres, "IDLE_MS", 300)
    gate = threading.Event()
    with Writer(grid, "main") as stuck, Writer(grid, "main") as other:
        call = stuck.enqueue(lambda engine: gate.wait(10))
        begun = time.monotonic()
        assert propose(other, proposal("one")).outcome is Outcome.EXECUTED
        assert time.monotonic() - begun < 5
        gate.set()
        assert call.result(10)
    check(grid)


def test_balances_that_somebody_changed_are_noticed(grid, writer):
    propose(writer, proposal("before"))
    with session(grid) as owner:
        owner.execute("DELETE FROM balances WHERE resource = 'energy' AND actor = %s", [uuid5("actor-1")])
    with pytest.raises(Damaged, match="1 balances were moved instead of 2"):
        propose(writer, proposal("next"))
    with pytest.raises(Damaged, match="the balances of energy sum to"):
        propose(writer, proposal("next"))
    assert len(journal(grid)) == 2


def test_rebuilding_makes_all_tables_anew_that_follow_from_the_journal(grid, writer):
    for n in range(9):
        propose(writer, proposal(f"{n}", amount=1_000 + n))
    writer.submit(partial(join, "new \\ actor", 2_000))
    writer.submit(lambda engine: engine.register(Registration((Actor("actor-1", "town"),)), 2_000))
    writer.close()
    tables = ("actors", "resources", "balances")

    def shown():
        with session(grid) as owner:
            return [
                owner.execute(sql.SQL("SELECT * FROM {} ORDER BY 1, 2").format(sql.Identifier(table))).fetchall()
                for table in tables
            ]

    before = shown()
    with session(grid) as owner:
        owner.execute("UPDATE balances SET amount = amount + 1; UPDATE actors SET type = 'x'; DELETE FROM balances "
                      "WHERE resource = 'credits'; UPDATE resources SET unit = 'x', scale = 6")  # fmt: skip
    assert postgres.rebuild(grid, "main") == 13
    assert shown() == before
    check(grid)
    with session(grid) as owner:
        owner.execute("ALTER TABLE journal DISABLE TRIGGER ALL")
        owner.execute("UPDATE journal SET body = replace(body, 'because', 'Because') WHERE seq = 5")
        owner.execute("UPDATE balances SET amount = amount + 1")
    changed = shown()
    with pytest.raises(Damaged, match="journal record 5"):
        postgres.rebuild(grid, "main")
    assert shown() == changed


def test_record_that_is_rightly_chained_and_follows_from_nothing_is_damage_to_whoever_folds_it(grid, writer, reader):
    assert reader.look(lambda state: state.seq) == 1
    with Writer(grid, "main") as other:
        propose(other, proposal("one"))
    with session(grid) as owner:
        (start, _), (_, body) = owner.execute("SELECT digest, body FROM journal ORDER BY seq").fetchall()
        said = json.loads(body)
        body = json.dumps({**said, "payload": {**said["payload"], "entries": []}})
        owner.execute("ALTER TABLE journal DISABLE TRIGGER ALL")
        owner.execute("UPDATE journal SET body = %s, digest = %s WHERE seq = 2", (body, digest(start, body)))
    for folding in (
        lambda: postgres.rebuild(grid, "main"),
        lambda: reader.look(lambda state: state.seq),
        lambda: propose(writer, proposal("two")),
    ):
        with pytest.raises(Damaged, match=r"journal record 2 .*does not follow from the state before"):
            folding()


def test_rebuilding_reaches_whoever_holds_a_state(grid, writer, reader):
    propose(writer, proposal("one"))
    with session(grid) as owner:
        for actor, by in (("actor-1", "-85"), ("actor-2", "85")):
            change = "UPDATE balances SET amount = amount + %s WHERE actor = %s AND resource = 'energy'"
            owner.execute(change, [by, uuid5(actor)])
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = %s"
        owner.execute(end, [owner.info.dbname])
    with Writer(grid, "main") as other:
        propose(other, proposal("two"))
    assert postgres.rebuild(grid, "main") == 3
    right = {"actor-1": 10**9 - 2_000, "actor-2": 10**9 + 2_000}
    for actor, amount in right.items():
        assert writer.submit(lambda engine, actor=actor: engine.state.balance(actor, "energy")) == amount
        assert reader.look(lambda state, actor=actor: state.balance(actor, "energy")) == amount
    assert {view.id: view.balances["energy"] for view in reader.world_state().actors}.items() >= right.items()
    check(grid)


def test_balance_below_zero_is_refused_by_the_database_as_well(grid, writer):
    propose(writer, proposal("before"))
    with session(grid) as owner, pytest.raises(psycopg.errors.CheckViolation):
        owner.execute("UPDATE balances SET amount = -1 WHERE actor = %s", [uuid5("actor-1")])
    with session(grid) as owner:
        owner.execute("UPDATE balances SET amount = 0.5 WHERE resource = 'energy' AND actor = %s", [uuid5("actor-1")])
    with pytest.raises(GridgovError, match="nobody_below_zero"):
        propose(writer, proposal("next"))
    assert len(journal(grid)) == 2


def test_journal_that_was_rewritten_is_noticed(grid, writer, reader):
    propose(writer, proposal("one"))
    reader.world_state()
    with session(grid) as owner:
        owner.execute("ALTER TABLE journal DISABLE TRIGGER ALL")
        owner.execute("UPDATE journal SET digest = sha256('other') WHERE seq = 2")
    with pytest.raises(Damaged, match="journal record 2 is not what it was"):
        propose(writer, proposal("two"))
    with pytest.raises(Damaged, match="journal record 2 is not what it was"):
        reader.world_state()
    assert reader.look(lambda state: state.digest) == hashlib.sha256(b"other").digest()


def deal(rng, n, made):
    """One of many kinds of commands, the id that it is about, and what it raises, if anything."""
    kind = rng.choices(
        ("new", "again", "other", "join", "half", "bug", "refused", "close", "look", "big"),
        (70, 8, 4, 3, 3, 2, 1, 3, 4, 2),
    )[0]
    if kind in ("again", "other") and made:
        asked = rng.choice(made)
        if kind == "other":
            asked = asked._replace(reasoning="another")
        return lambda engine: engine.propose(asked, n), asked.id, Conflict if kind == "other" else None
    giver, taker = rng.sample(ACTORS, 2)
    asked = proposal(f"{n}", giver, taker, rng.randint(1, 60_000) if kind == "big" else rng.randint(1, 9_000))
    if kind == "join":
        return partial(join, f"new-{n}", n), None, None
    if kind == "half":
        return partial(half, asked, BadInput("no")), asked.id, BadInput
    if kind == "bug":
        return partial(half, asked, ZeroDivisionError()), asked.id, ZeroDivisionError
    if kind == "refused":
        return lambda engine: engine.register(Registration((Actor(f"nul\0{n}", "node"),)), n), None, GridgovError
    if kind == "close":
        return lambda engine: engine.close(n), None, None
    if kind == "look":
        return lambda engine: (engine.state.seq, engine.ledger.answered(asked.id)), None, None
    made.append(asked)
    return lambda engine: engine.propose(asked, n), asked.id if rng.random() < 0.9 else None, None


def join(name, n, engine):
    """An actor joins, and is given something: rows that were not there."""
    engine.register(Registration((Actor(name, "node"),)), n)
    return engine.give(Kind.PRODUCE, "gift", [Request(name, "credits", 700)], n)


def half(asked, error, engine):
    engine.propose(asked, 2_000)
    raise error


@pytest.mark.parametrize("every", [None, 4])
@pytest.mark.parametrize("recent", [0, batch.RECENT])
def test_rush_comes_to_the_same_as_one_after_the_other_in_memory(grid, proxy, monkeypatch, every, recent):
    """What is run ahead of the database, and run anew when something goes wrong, ends in the same head digest."""
    monkeypatch.setattr(batch, "RECENT", recent)
    rng, made = random.Random(7), list[Proposal]()
    commands = [deal(rng, n, made) for n in range(2_000, 2_700)]
    memory = Engine(MemoryLedger())
    memory.append(GENESIS, 1_000)
    expected = [command(memory) if error is None else error for command, _, error in commands]
    proxy.every = every
    with Writer(proxy.url, "main", batch=20) as writer:
        with standing_still(writer):
            calls = [writer.enqueue(command, id_) for command, id_, _ in commands]
        for call, wanted in zip(calls, expected, strict=True):
            if isinstance(wanted, type):
                with pytest.raises(wanted):
                    call.result(30)
            else:
                assert call.result(30) == wanted
    assert check(grid)[-1].digest == memory.state.digest
    assert proxy.commits > 20
    assert (proxy.cuts > 5) is (every is not None)


def test_rush_that_the_database_refuses_answers_everyone(grid):
    with Writer(grid, "main", batch=20) as writer:
        with standing_still(writer):
            calls = [
                writer.enqueue(
                    lambda engine, n=n: engine.propose(proposal(f"{n}"), 2_000),
                    None if n == 21 else proposal(f"{n}").id,
                )
                for n in range(200)
            ]
            with session(grid) as owner:
                owner.execute("DELETE FROM balances WHERE actor = %s", [uuid5("actor-1")])
        for call in calls:
            with pytest.raises(Damaged, match="run `gridgov verify postgres`"):
                call.result(10)
    assert len(journal(grid)) == 1


@pytest.mark.parametrize("every", [None, 5])
def test_two_rushes_make_one_order(grid, proxy, monkeypatch, every):
    monkeypatch.setattr(postgres, "SHARED_S", 0.01)
    proxy.every = every
    with Writer(proxy.url, "main", batch=20) as one, Writer(grid, "main", batch=20) as other:
        calls = []
        for n in range(400):
            for writer in (one, other):
                asked = proposal(f"{n % 370}/{writer is one}")
                calls.append(writer.enqueue(lambda engine, asked=asked: engine.propose(asked, 2_000), asked.id))
        found = {call.result(30) for call in calls}
    assert found == set(decisions(check(grid)))
    assert len(found) == 740


# --- processes that are killed ----------------------------------------------------------------------------------------

CHILD = """
import os, sys, threading
from gridgov.model import Proposal, Transfer, uuid5
from gridgov.postgres import Writer

url, name, threads, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
writer = Writer(url, "main")
os.write(1, b"ready\\n")
sys.stdin.readline()

def some(thread):
    for n in range(rounds):
        id_ = uuid5(f"{name}/{thread}/{n}")
        asked = Proposal(id_, name, 1, (Transfer("actor-1", "actor-2", "energy", 1),), "")
        decision = writer.submit(lambda engine: engine.propose(asked, 2_000), id_)
        os.write(1, f"{id_} {decision.entries[0]}\\n".encode())

own = [threading.Thread(target=some, args=[n]) for n in range(threads)]
[thread.start() for thread in own]
[thread.join() for thread in own]
writer.close()
"""


@contextmanager
def child(url, name, threads, rounds):
    """Another process that proposes from many threads, and says what was acknowledged."""
    command = [sys.executable, "-c", CHILD, url, name, str(threads), str(rounds)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_killed_at_any_moment_it_loses_nothing_acknowledged_and_doubles_nothing(grid):
    acknowledged: dict[str, int] = {}
    for after in (1, 40, 77, None):
        with child(grid, "same", 16, 40) as process:
            process.stdin.write("go\n")
            process.stdin.flush()
            for number, line in enumerate(process.stdout, start=1):
                id_, entry = line.split()
                assert acknowledged.setdefault(id_, int(entry)) == int(entry), "the same answer after a restart"
                if number == after:
                    process.send_signal(signal.SIGKILL)
        made = {decision.proposal_id: decision.entries[0] for decision in decisions(check(grid))}
        assert acknowledged.items() <= made.items()
    assert len(acknowledged) == 640
    assert len(decisions(journal(grid))) == 640


def test_two_processes_make_one_order_and_neither_starves(grid):
    with child(grid, "one", 6, 40) as one, child(grid, "other", 6, 40) as other:
        for process in (one, other):
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in (one, other):
            assert len(process.stdout.readlines()) == 240
    made = decisions(check(grid))
    assert len(made) == 480
    assert len({decision.proposal_id for decision in made}) == 480
    turns = [name for name, _ in groupby(decision.proposer for decision in made)]
    assert len(turns) > 10, "they take turns while both write"


def test_what_a_session_prepared_outlives_what_the_driver_would_prepare_and_a_rollback(grid):
    made = postgres._Session(grid, "main")
    for n in range(8):
        assert made.holds(1, b"no digest") is False
        assert made._search([proposal(f"{n}").id]) == []
    names = made.connection.execute("SELECT name FROM pg_prepared_statements ORDER BY name").fetchall()
    assert [name for (name,) in names] == sorted(postgres.PREPARED)
    made.connection.close()


def test_server_that_is_killed_loses_nothing_acknowledged_and_doubles_nothing(server, place):
    with Embedded(place / "server") as embedded:
        migrate(embedded.url, "main")
        with Writer(embedded.url, "main", patience_s=60) as writer:
            writer.submit(lambda engine: engine.append(GENESIS, 1_000))

            def some(name):
                found = []
                for n in range(60):
                    found.append(propose(writer, proposal(f"{name}/{n}")))
                    if (name, n) == (0, 20):
                        os.kill(embedded.pid, signal.SIGKILL)
                return found

            found = in_threads([partial(some, name) for name in range(8)], timeout_s=90)
        assert {decision for own in found for decision in own} == set(decisions(check(embedded.url)))
        assert sum(map(len, found)) == 480


# --- reading ----------------------------------------------------------------------------------------------------------


def test_reader_shows_what_is_committed_whoever_wrote_it(grid, writer, reader):
    assert reader.world_state().epoch == 1
    propose(writer, proposal("one"))
    assert reader.world_state().actors[1].balances == {"energy": 10**9 + 1_000, "credits": 10**9}
    assert reader.world_state() is reader.world_state(), "it is made once for each record"
    assert reader.look(lambda state: state.entries) == 17
    assert reader.answered(proposal("one").id).payload.outcome is Outcome.EXECUTED
    assert reader.answered(proposal("none").id) is None
    assert reader.answered("no id") is None


def test_reader_serves_more_threads_than_it_has_sessions(grid, writer, reader):
    def look(n):
        propose(writer, proposal(f"{n}"))
        return (
            reader.world_state().epoch,
            reader.answered(proposal(f"{n}").id).payload.outcome,
            len(reader.rows("epochs_page")),
        )

    assert in_threads([partial(look, n) for n in range(20)]) == [(1, Outcome.EXECUTED, 1)] * 20


def test_world_state_of_an_epoch_is_that_at_its_close(grid, writer, reader):
    shown = [reader.world_state()._replace(epoch=0)]
    for epoch in range(1, 4):
        propose(writer, proposal(f"{epoch}"))
        writer.submit(lambda engine: engine.need("load", [Request("actor-1", "energy", 5)], 2_000))
        writer.submit(lambda engine, e=epoch: engine.close(2_000 + e))
        shown.append(reader.world_state()._replace(epoch=epoch))
    assert [reader.world_state(epoch) for epoch in range(4)] == shown
    with pytest.raises(BadInput, match="epoch 4 has not closed yet"):
        reader.world_state(4)


def test_columns_are_those_of_the_entries(grid, writer, reader):
    for n in range(20):
        propose(writer, proposal(f"{n}", f"actor-{n % 8 + 1}", f"actor-{n % 3 + 4}", 1_000 + n))
    writer.submit(lambda engine: engine.close(2_000))
    found = reader.pool.ask(postgres.columns)
    entries = reader.pool.ask(lambda connection: list(stored.entries_after(connection)))
    wanted = replay.columns(entries, found.actors, found.resources)
    assert [list(column) for column in found[2:]] == [list(column) for column in wanted[2:]]
    assert set(found.actors) == {"grid", *ACTORS}


@pytest.mark.parametrize(
    "values",
    [
        ("gen_random_uuid()", "resource", "1"),
        ("actor_to", "'gold'", "1"),
        ("actor_to", "'energy'", "0.0005"),
        ("actor_to", "'energy'", "1.0001"),
    ],
)
def test_row_that_is_no_entry_is_noticed(grid, reader, values):
    with session(grid) as owner:
        owner.execute(
            "INSERT INTO ledger SELECT 99, NULL, actor_from, {}, {}, {}, executed_at, metadata, seq, epoch, kind "
            "FROM ledger LIMIT 1".format(*values)
        )
    for question in (postgres.columns, lambda connection: list(stored.entries_after(connection))):
        with pytest.raises(Damaged, match=r"ledger (is no ledger entry|has an unknown actor)"):
            reader.pool.ask(question)


def test_outbox_lists_each_outcome_until_it_is_handed_on(grid, writer):
    held = propose(writer, proposal("held", amount=45_000))
    for n in range(5):
        propose(writer, proposal(f"{n}"))
    writer.submit(lambda engine: engine.close(2_000))
    writer.submit(lambda engine: engine.settle(held.proposal_id, "reject", 2_000))
    pool = postgres.Pool(grid, "main", APP)

    def listed(after=0):
        rows = pool.ask(lambda c: c.execute(queries.query("outbox_page"), {"after": after, "limit": 9}).fetchall())
        return [row[0] for row in rows]

    def ack(*seqs):
        for seq in seqs:
            pool.ask(partial(beside.acknowledge, seq=seq, reference=f"GRID-{seq}", at=3_000))

    def low():
        return pool.ask(lambda c: c.execute("SELECT max(up_to) FROM outbox_acks").fetchone()[0])

    assert listed() == [2, 3, 4, 5, 6, 7, 9]
    assert listed(after=4) == [5, 6, 7, 9]
    ack(3, 5, 3)
    assert (listed(), low()) == ([2, 4, 6, 7, 9], 1)
    ack(2)
    assert (listed(), low()) == ([4, 6, 7, 9], 3)
    ack(4, 6, 7, 9)
    assert (listed(), low()) == ([], 9)
    propose(writer, proposal("more"))
    assert listed() == [10]
    for seq in (1, 8, 11):
        with pytest.raises(BadInput, match=f"journal record {seq} is no outcome"):
            ack(seq)
    pool.close()


def test_views_show_what_the_journal_says(grid, writer):
    propose(writer, proposal("one"))
    propose(writer, proposal("two", amount=60_000))
    held = propose(writer, proposal("held", amount=45_000))
    kept = propose(writer, proposal("kept", amount=45_000))
    writer.submit(lambda engine: engine.fail(uuid5("bad"), "planner", 2, Malformed("truncated", "at 7", b"{"), 2_000))
    writer.submit(lambda engine: engine.close(2_000))
    writer.submit(lambda engine: engine.constrain(Constraints(), 2_000, "ann", "no limits"))
    writer.submit(lambda engine: engine.settle(held.proposal_id, "approve", 2_000))
    with session(grid, READ) as connection:
        run = connection.execute
        rows = run("SELECT seq, outcome, held, settlement, settled_epoch, settled_seq, fault FROM proposals").fetchall()
        assert rows == [
            (2, "executed", False, None, None, None, None),
            (3, "rejected", False, None, None, None, None),
            (4, "executed", True, "approve", 2, 9, None),
            (5, "held", True, None, None, None, None),
            (6, "malformed", False, None, None, None, "truncated"),
        ]
        (violations,) = run("SELECT violations FROM proposals WHERE outcome = 'rejected'").fetchone()
        assert [one["code"] for one in violations] == ["max_transfer"]
        assert run("SELECT proposal_id::text FROM holds").fetchall() == [(kept.proposal_id,)]
        assert run("SELECT epoch, seq, entries, collapsed FROM epochs ORDER BY 1").fetchall() == [
            (0, 1, None, False),
            (1, 7, 17, False),
        ]
        assert run("SELECT seq, epoch, operator, reason FROM constraints ORDER BY 1").fetchall() == [
            (1, 0, "", ""),
            (8, 2, "ann", "no limits"),
        ]
        assert run("SELECT amount FROM ledger WHERE id = 17").fetchone()[0] == 1
    reader = Reader(grid, "main")
    assert [row["seq"] for row in reader.rows("proposals_page", after=0, limit=9, outcome="executed", proposer=None,
                                              epoch=None)] == [2, 4]  # fmt: skip
    page = {"after": 0, "limit": 9, "actor": uuid5("actor-2"), "resource": None, "kind": "transfer", "epoch": None}
    assert [row["id"] for row in reader.rows("ledger_page", **page)] == [17, 18]
    assert [row["seq"] for row in reader.rows("journal_page", after=1, limit=2, kind=None)] == [2, 3]
    assert reader.rows("proposal", proposal_id=held.proposal_id)[0]["settled_seq"] == 9
    assert reader.rows("last_outcome")[0]["seq"] == 6
    reader.close()


LARGE = """
INSERT INTO journal SELECT n, 1 + n / 1000, CASE n % 1000 WHEN 0 THEN 'close' WHEN 1 THEN 'flow' ELSE 'proposal' END,
    'epoch', CASE WHEN n % 1000 > 1 THEN gen_random_uuid() END,
    CASE WHEN n % 1000 > 1 THEN CASE n % 100 WHEN 2 THEN 'held' WHEN 3 THEN 'rejected' ELSE 'executed' END END,
    NULL, '{"payload":{"entries":' || n || '}}', sha256(n::text::bytea) FROM generate_series(2, 30000) AS n;
INSERT INTO ledger SELECT n, NULL, gen_random_uuid(), gen_random_uuid(), 'energy', 1, 'epoch', '{}', n, n / 1000,
    'transfer' FROM generate_series(17, 30000) AS n;
ANALYZE
"""

PLANNED = {
    "head": {}, "last_close": {}, "close_of": {"epoch": 7}, "genesis": {}, "last_entry": {},
    "standing": {"until": 30_000, "closed": 29_900, "holds": True}, "in_a_row": {}, "sent": {"after": 29_990},
    "answered": {"ids": "{00000000-0000-5000-8000-000000000001}"}, "digest_of": {"seq": 7}, "moved": {"after": 29_990},
    "settlement": {"id": "00000000-0000-5000-8000-000000000001"}, "record": {"seq": 7}, "some": {"ids": "{7}"},
    "records": {"after": 7, "limit": 9}, "since": {"seq": 29_990, "limit": 9}, "entries": {"after": 7, "limit": 9},
    "proposal": {"proposal_id": "00000000-0000-5000-8000-000000000001"}, "last_outcome": {},
    "outbox_page": {"after": 0, "limit": 9}, "is_outcome": {"seq": 7},
    "proposals_page": {"after": 7, "limit": 9, "outcome": None, "proposer": None, "epoch": None},
    "ledger_page": {"after": 7, "limit": 9, "actor": None, "resource": None, "kind": None, "epoch": None},
    "close_before": {"until": 29_990}, "last_shadow": {},
    "seq_shown": {"epoch": 7, "constraints_seq": 1, "entries": 29_990}, "holds_at": {"until": 29_990},
    "balances_then": {"after": 29_990}, "sent_between": {"after": 29_980, "until": 29_990},
    "journal_page": {"after": 7, "limit": 9, "kind": None},
    "proposals_back": {"before": 29_990, "after": 29_000, "limit": 9, "outcome": None, "proposer": None, "epoch": None,
                       "code": "max_transfer", "text": "x"},
    "ledger_back": {"before": 29_990, "after": 29_000, "limit": 9, "actor": None, "resource": None, "kind": None,
                    "epoch": None},
    "journal_back": {"before": 29_990, "after": 29_000, "limit": 9, "kind": None, "epoch": None, "text": "x"},
    "epoch_between": {"epoch": 7}, "by_request": {"request": "00000000-0000-5000-8000-000000000001"},
}  # fmt: skip
"""What is asked again and again, with what it is asked about."""


@pytest.fixture(scope="module")
def large(server, migrated):
    """A grid of thirty thousand records, by form alone."""

    def fill(url):
        ledger = PostgresLedger(url, "main")
        Engine(ledger).append(GENESIS, 1_000)
        ledger.commit()
        ledger.close()
        with session(url) as owner:
            owner.execute(LARGE)

    return server.url(server.template("large", fill, migrated))


@pytest.mark.parametrize("name", PLANNED)
def test_query_reads_no_more_than_it_must(large, name):
    with session(large) as connection:
        plan = connection.execute("EXPLAIN " + queries.query(name), PLANNED[name]).fetchall()
    text = "\n".join(row[0] for row in plan)
    assert not [line for line in text.splitlines() if "Seq Scan on journal" in line or "Seq Scan on ledger" in line], (
        text
    )
