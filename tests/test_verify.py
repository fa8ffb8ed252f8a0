"""Every change to a history is found and named: to a record, and to each column of each table of an export."""

import json
import shutil
from decimal import Decimal

import duckdb
import pytest

from gridgov.errors import BadInput
from gridgov.export import export, write_journal
from gridgov.journal import START, seal
from gridgov.model import Code, Outcome, Proposal, Round, Transfer, Violation, uuid5
from gridgov.source import Source, open_source
from gridgov.verify import CHECKS, verify
from tests import worlds


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    _, run = worlds.everything()
    return export(run, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def writable(exported, tmp_path_factory):
    """A copy that may be changed, and is put right again after each change."""
    path = tmp_path_factory.mktemp("copy") / exported.name
    shutil.copyfile(exported, path)
    with duckdb.connect(str(path)) as connection:
        yield path, connection


def checked(path, connection):
    columns = connection.execute("SELECT * FROM runs")
    keys = [column[0] for column in columns.description]
    row = columns.fetchone()
    return verify(Source(path, connection.cursor(), dict(zip(keys, row, strict=True))))


def test_passes_what_was_written(exported):
    with open_source(str(exported), exported.parent) as source:
        report = verify(source)
    assert report.passed
    assert report.first is None
    counts = {check.name: check.count for check in report.checks}
    assert counts["chain"] == counts["conservation"] == report.seq == 32
    assert counts["idempotency"] == 12 + 2 + 1
    assert [check.name for check in report.checks if check.skipped] == ["head", "guards"]
    assert [check.name for check in report.checks] == list(CHECKS)
    assert json.loads(json.dumps(report.document()))["passed"] is True


# --- each column of each table ----------------------------------------------------------------------------------------

OTHER = {
    "VARCHAR": lambda value: "x" if value is None else value + "x",
    "UUID": lambda value: "00000000-0000-5000-8000-000000000000",
    "BOOLEAN": lambda value: not value,
    "BLOB": lambda value: value + b"x",
    "TIMESTAMP": lambda value: "1999-12-31 23:59:59.000001",
    "DOUBLE": lambda value: (value or 0) + 0.25,
}
TABLES = (
    "actors", "alone", "balances", "baselines", "epochs", "files", "flows", "interactions", "journal", "ledger",
    "prices", "proposals", "resources", "runs", "seals", "transfers",
)  # fmt: skip


def other(kind, value):
    if kind.startswith("DECIMAL"):
        return (value or Decimal(0)) + Decimal("0.000001")
    return OTHER[kind](value) if kind in OTHER else (value or 0) + 1


def test_lists_every_table(writable):
    _, connection = writable
    found = connection.execute("SELECT table_name FROM duckdb_tables() ORDER BY table_name").fetchall()
    assert tuple(name for (name,) in found) == TABLES


@pytest.mark.parametrize("table", TABLES)
def test_finds_a_change_to_any_column(writable, table):
    path, connection = writable
    described = connection.execute(f"DESCRIBE {table}").fetchall()
    rows = connection.execute(f"SELECT rowid, * FROM {table}").fetchall()
    assert rows
    for place, (column, kind, *_) in enumerate(described, start=1):
        rowid, before = rows[len(rows) // 2][0], rows[len(rows) // 2][place]
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", [other(kind, before), rowid])
        report = checked(path, connection)
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", [before, rowid])
        assert not report.passed, f"{table}.{column}"
        if table == "journal" and column in ("run_id", "body", "digest"):
            assert "journal record" in report.first
        elif table == "seals":
            assert "not what was written" in report.first or "run_id" in report.first or "gone" in report.first
        elif (table, column) != ("runs", "run_id"):
            assert table in report.first, report.first
            assert column in report.first, report.first
    assert checked(path, connection).passed


@pytest.mark.parametrize("table", TABLES)
def test_finds_a_row_too_few_or_too_many(writable, table):
    path, connection = writable
    connection.execute(f"CREATE OR REPLACE TEMP TABLE kept AS SELECT * FROM {table} ORDER BY rowid")
    for change in (
        f"DELETE FROM {table} WHERE rowid = (SELECT max(rowid) FROM {table})",
        f"INSERT INTO {table} SELECT * FROM kept LIMIT 1",
    ):
        connection.execute(change)
        try:
            report = checked(path, connection) if table != "runs" or "INSERT" in change else None
        finally:
            connection.execute(f"DELETE FROM {table}")
            connection.execute(f"INSERT INTO {table} SELECT * FROM kept")
        assert report is None or not report.passed, change
    assert checked(path, connection).passed


def test_finds_a_view_that_says_something_else(writable):
    path, connection = writable
    views = dict(connection.execute("SELECT view_name, sql FROM duckdb_views() WHERE NOT internal").fetchall())
    assert set(views) == {"violations", "metrics_epoch", "metrics_run", "metrics_actor"}
    for name, sql in views.items():
        connection.execute(f"DROP VIEW {name}")
        gone = checked(path, connection)
        connection.execute(f"CREATE VIEW {name} AS {sql.partition(' AS ')[2].rstrip(';')} LIMIT 3")
        changed = checked(path, connection)
        connection.execute(f"DROP VIEW {name}")
        connection.execute(sql)
        assert f"the view {name} is not the one" in gone.first
        assert f"the view {name} is not the one" in changed.first
    assert checked(path, connection).passed


def test_finds_shadows_that_were_made_active(writable):
    path, connection = writable
    connection.execute("UPDATE proposals SET role = 'active' WHERE role = 'shadow'")
    report = checked(path, connection)
    connection.execute("UPDATE proposals SET role = 'shadow' WHERE seq IS NULL")
    assert "proposals" in report.first
    assert checked(path, connection).passed


def test_names_the_row_and_both_values(writable):
    path, connection = writable
    connection.execute("UPDATE ledger SET amount = amount + 1 WHERE id = 6")
    report = checked(path, connection)
    connection.execute("UPDATE ledger SET amount = amount - 1 WHERE id = 6")
    assert "ledger, id 6: column amount is 31.000000; the journal implies 30.000000" in report.first


# --- the journal ------------------------------------------------------------------------------------------------------


@pytest.fixture
def journal(tmp_path):
    """A journal in a file as a list of lines, and a function that verifies what has become of it."""
    world, _ = worlds.everything()
    path = tmp_path / "journal.jsonl"
    write_journal(path, world.ledger.records())
    lines = [json.loads(line) for line in path.read_text().splitlines()]

    def verified(changed, expect_head=None):
        path.write_text("".join(json.dumps(line) + "\n" for line in changed))
        with open_source(str(path), tmp_path) as source:
            return verify(source, expect_head)

    return lines, verified


def failed(report):
    return [check.name for check in report.checks if check.failure is not None]


def test_passes_a_journal_in_a_file(journal):
    lines, verified = journal
    report = verified(lines)
    assert report.passed
    assert [check.name for check in report.checks if check.skipped] == ["head", "seals", "tables", "views", "guards"]


def test_names_the_first_record_that_was_changed_cut_out_put_in_or_moved(journal):
    lines, verified = journal
    changed = [*lines[:4], {**lines[4], "body": lines[4]["body"].replace("because", "becauze")}, *lines[5:]]
    for tampered, number in (
        (changed, 5),
        (lines[:6] + lines[7:], 7),
        ([*lines[:6], lines[5], *lines[6:]], 7),
        ([*lines[:6], lines[7], lines[6], *lines[8:]], 7),
    ):
        report = verified(tampered)
        assert failed(report) == ["chain"]
        assert f"journal record {number}: its digest" in report.first


def test_a_tail_that_is_missing_is_found_by_a_head_that_was_noted(journal):
    lines, verified = journal
    noted = f"32:{lines[-1]['digest']}"
    assert verified(lines, noted).passed
    assert verified(lines, f"5:{lines[4]['digest']}").passed
    assert verified(lines[:20]).passed
    report = verified(lines[:20], noted)
    assert failed(report) == ["head"]
    assert report.first == "the journal ends with record 20, before the head that was noted"
    report = verified(lines, f"5:{lines[5]['digest']}")
    assert "journal record 5: its digest is not the one that was noted" in report.first


@pytest.mark.parametrize("text", ["", "5", "5:abc", "x:" + "0" * 64, "0:" + "0" * 64, "5:" + "g" * 64])
def test_refuses_a_head_of_another_form(exported, text):
    with open_source(str(exported), exported.parent) as source, pytest.raises(BadInput, match="SEQ:DIGEST"):
        verify(source, text)


# --- records that are chained well, and say what cannot be ------------------------------------------------------------


def forged(records, seq, change):
    """The records with one payload changed and everything after it chained anew, as a forger would."""
    lines, previous = [], START
    for record in records:
        payload = change(record.payload) if record.seq == seq else record.payload
        sealed = seal(previous, record.seq, record.epoch, record.at, payload)
        previous = sealed.digest
        lines.append({"body": sealed.body, "digest": previous.hex()})
    return lines


def first_of(records, kind, wanted):
    return next(
        r for r in records if r.kind == kind and all(getattr(r.payload, key) == value for key, value in wanted.items())
    )


FORGERIES = {
    "verdicts: an execution that was none": (
        "proposal",
        {"outcome": Outcome.REJECTED},
        lambda d: d._replace(outcome=Outcome.EXECUTED, violations=(), entries=(99, 100)),
        "verdicts",
        "has outcome executed",
    ),
    "verdicts: a violation that is none": (
        "proposal",
        {"outcome": Outcome.NOOP},
        lambda d: d._replace(outcome=Outcome.REJECTED, violations=(Violation(Code.PAUSED, ""),)),
        "verdicts",
        "has outcome rejected; judged again it is noop",
    ),
    "verdicts: another limit": (
        "proposal",
        {"outcome": Outcome.REJECTED},
        lambda d: d._replace(violations=(d.violations[0]._replace(limit=49), *d.violations[1:])),
        "verdicts",
        "has violations",
    ),
    "verdicts: other transfers under the same input": (
        "proposal",
        {"outcome": Outcome.EXECUTED},
        lambda d: d._replace(transfers=(d.transfers[0]._replace(amount=29), *d.transfers[1:])),
        "verdicts",
        "has input",
    ),
    "verdicts: a fault with entries": (
        "proposal",
        {"outcome": Outcome.MALFORMED},
        lambda d: d._replace(entries=(7,)),
        "verdicts",
        "its fault",
    ),
    "verdicts: a hold that was approved in time": (
        "settlement",
        {"decision": "expire"},
        lambda s: s._replace(decision="approve"),
        "verdicts",
        "the hold of",
    ),
    "verdicts: a hold that another approved": (
        "settlement",
        {"decision": "approve"},
        lambda s: s._replace(decision="granted"),
        "verdicts",
        "'granted' settles nothing",
    ),
    "verdicts: more by hand than there was": (
        "override",
        {"outcome": Outcome.REJECTED},
        lambda o: o._replace(outcome=Outcome.EXECUTED, violations=(), entries=tuple(range(15, 15 + len(o.transfers)))),
        "verdicts",
        "has outcome executed; judged again it is rejected",
    ),
    "verdicts: by hand to nobody": (
        "override",
        {"outcome": Outcome.EXECUTED},
        lambda o: o._replace(transfers=(o.transfers[0]._replace(actor_to="nobody"), *o.transfers[1:])),
        "verdicts",
        "could not be done (transfers[0]: there is no actor nobody)",
    ),
    "verdicts: more taken back than was given": (
        "reversal",
        {},
        lambda r: r._replace(transfers=(r.transfers[0]._replace(amount=9), *r.transfers[1:])),
        "verdicts",
        "has transfers",
    ),
    "verdicts: taken back what was never there": (
        "reversal",
        {},
        lambda r: r._replace(reverses=(99, *r.reverses[1:])),
        "verdicts",
        "has reverses (99, ",
    ),
    "idempotency: a request answered twice": (
        "activation",
        {},
        lambda a: a._replace(request=uuid5("by hand"), input="ab" * 32),
        "idempotency",
        "was answered before, in record",
    ),
    "flows: late for an epoch to come": (
        "flow",
        {"name": "meter"},
        lambda f: f._replace(read_for=5),
        "flows",
        "is late for epoch 5, and epoch 4 is open",
    ),
    "flows: more served than there was": (
        "flow",
        {"kind": "consume"},
        lambda f: f._replace(readings=tuple(r._replace(applied=r.requested) for r in f.readings)),
        "flows",
        "consume load of actor-2 applied 200 energy",
    ),
    "closes: another boundary": (
        "close",
        {},
        lambda c: c._replace(boundary={**c.boundary, "energy": -1}),
        "closes",
        "the boundary has -1 energy",
    ),
    "closes: another count": ("close", {}, lambda c: c._replace(entries=1), "closes", "says 1 entries"),
    "conservation: an opening below zero": (
        "genesis",
        {},
        lambda g: g._replace(opening=(("actor-1", "energy", -5), *g.opening[1:])),
        "conservation",
        "moves -5 energy",
    ),
    "chain: an opening of nobody": (
        "genesis",
        {},
        lambda g: g._replace(opening=(("nobody", "energy", 5), *g.opening[1:])),
        "chain",
        "there is no actor nobody",
    ),
    "conservation: an opening beyond 15 digits": (
        "genesis",
        {},
        lambda g: g._replace(opening=(("actor-1", "energy", 6 * 10**14), ("actor-1", "energy", 6 * 10**14))),
        "conservation",
        "leaves actor-1 with 1200000000000000 kWh of energy, 0 of it reserved",
    ),
    "chain: a flow of what there is not": (
        "flow",
        {"kind": "consume"},
        lambda f: f._replace(readings=(f.readings[0]._replace(resource="gold"),)),
        "chain",
        "does not follow from the state before (KeyError: 'gold')",
    ),
    "chain: what cannot be folded": (
        "registration",
        {},
        lambda r: r._replace(mandates={"x": 5}),
        "chain",
        "its body is no record",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_finds_a_forgery(tmp_path, name):
    kind, wanted, change, check, words = FORGERIES[name]
    world, _ = worlds.everything()
    records = list(world.ledger.records())
    seq = first_of(records, kind, wanted).seq
    path = tmp_path / "forged.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in forged(records, seq, change)))
    with open_source(str(path), tmp_path) as source:
        report = verify(source)
    assert failed(report) == [check]
    assert f"journal record {seq}" in report.first
    assert words in report.first


def test_finds_a_record_of_another_epoch(tmp_path):
    world = worlds.seed_world()
    world.close()
    first, second = world.ledger.records()
    moved = seal(first.digest, 2, 5, second.at, second.payload)
    path = tmp_path / "moved.jsonl"
    write_journal(path, [first, moved])
    with open_source(str(path), tmp_path) as source:
        report = verify(source)
    assert failed(report) == ["chain"]
    assert report.first == "journal record 2 (close, epoch 5): the open epoch is 1"


def test_finds_a_proposal_that_was_decided_twice(tmp_path):
    world = worlds.seed_world()
    world.propose(("actor-1", "actor-2", "water", 1))
    world.close()
    records = list(world.ledger.records())
    again = [records[0], records[1], records[1]]
    lines, previous = [], START
    for seq, record in enumerate(again, start=1):
        payload = record.payload if seq < 3 else record.payload._replace(entries=(6,))
        sealed = seal(previous, seq, record.epoch, record.at, payload)
        previous = sealed.digest
        lines.append(json.dumps({"body": sealed.body, "digest": previous.hex()}) + "\n")
    path = tmp_path / "twice.jsonl"
    path.write_text("".join(lines))
    with open_source(str(path), tmp_path) as source:
        report = verify(source)
    assert failed(report) == ["idempotency"]
    assert "was decided before, in record 2" in report.first


def test_finds_a_hold_that_is_settled_twice(tmp_path):
    world, _ = worlds.everything()
    records = list(world.ledger.records())
    settled = first_of(records, "settlement", {"decision": "approve"})
    lines, previous, seq = [], START, 0
    for record in records:
        for payload in (record.payload, record.payload) if record is settled else (record.payload,):
            seq += 1
            sealed = seal(previous, seq, record.epoch, record.at, payload)
            previous = sealed.digest
            lines.append(json.dumps({"body": sealed.body, "digest": previous.hex()}) + "\n")
    path = tmp_path / "twice.jsonl"
    path.write_text("".join(lines))
    with open_source(str(path), tmp_path) as source:
        report = verify(source)
    assert failed(report) == ["idempotency"]
    assert f"journal record {settled.seq + 1}" in report.first


def test_takes_an_allocation_and_what_was_stale_at_its_word(tmp_path):
    world = worlds.seed_world()
    seen = world.state.seen
    world.propose(("actor-1", "actor-2", "water", 0), asked=(("actor-1", "actor-2", "water", 5),))
    world.propose(("actor-1", "actor-2", "water", 1))
    stale = [
        Proposal(Round(1, "late", n).proposal_id, "late", n, (Transfer("actor-1", "actor-2", "water", 1),), "", was)
        for n, was in enumerate((seen, seen._replace(epoch=0), seen._replace(constraints_seq=0)), start=1)
    ]
    decided = [world.engine.propose(one, world.at) for one in stale]
    assert decided[0].state_moved
    assert [d.violations[0].code for d in decided[1:]] == [Code.STALE_WORLD_STATE] * 2
    world.close()
    path = export(world.run(), tmp_path)
    with open_source(str(path), tmp_path) as source:
        assert verify(source).passed
