"""A ledger from elsewhere, as CSV, is a history like any other; what it does not say is assumed aloud, or refused."""

import re

import duckdb
import pytest

from gridgov.errors import BadInput
from gridgov.foreign import journal
from gridgov.model import uuid5
from gridgov.replay import replay
from gridgov.source import LedgerSource, open_source
from gridgov.verify import verify
from tests.commands import one_line
from tests.plays import SCENARIOS

pytest_plugins = ["tests.commands"]

HEADER = "id,proposal_id,actor_from,actor_to,resource,amount,executed_at,metadata"
P1, P2, P3 = (f"{n}000000a-0000-4000-8000-000000000000" for n in (1, 2, 3))

WORKED = f"""{HEADER},epoch,kind
1,,grid,a1,energy,100,2025-03-01T00:00:00Z,{{}},0,genesis
2,,grid,a2,energy,80,2025-03-01T00:00:00Z,{{}},0,genesis
3,{P1},a1,a2,energy,50,2025-03-01T00:00:00Z,{{}},1,transfer
4,{P2},a2,a1,energy,45,2025-03-01T01:00:00Z,{{}},2,transfer
5,{P3},a2,a1,energy,45,2025-03-01T02:00:00Z,{{}},3,transfer
"""


def read(*rows, header=HEADER):
    return journal([f"{line}\n" for line in (header, *rows)], "x.csv")


def state(*rows, header=HEADER):
    return replay(read(*rows, header=header).records)


def test_worked_what_if_comes_out_of_a_csv(gridgov, tmp_path):
    """The example of the seed's world: P1 is refused by the rule, P2 stays, P3 follows from P1."""
    path = tmp_path / "x.csv"
    path.write_text(WORKED)
    world = gridgov("replay", path, "--json")
    assert world.err == ""
    assert {one["id"]: one["balances"]["energy"] for one in world.json["actors"]} == {"a1": 140, "a2": 40}
    same = gridgov("whatif", path, "--json").json
    assert same["identical"]
    told = gridgov("whatif", path, "--set", "constraints.max_transfer=45", "--json").json
    assert told["decisions"]["transitions"] == {"executed -> rejected": 2}
    assert told["first"]["proposal_id"] == P1
    changed = [(one["proposal_id"], one["cause"], one["codes"]) for one in told["changed"]]
    assert changed == [(P1, "direct", ["max_transfer"]), (P3, "knock_on", ["insufficient_balance"])]
    out = tmp_path / "y.duckdb"
    assert gridgov("whatif", path, "--set", "constraints.max_transfer=45", "--out", out).code == 0
    assert gridgov("verify", out).code == 0
    assert gridgov("verify", path).code == 0


def test_our_own_ledger_comes_back_as_it_was(gridgov, tmp_path):
    for name in ("seed", "drought", "commons-fishery", "hostile"):
        run = gridgov("run", SCENARIOS / f"{name}.yaml", "--json").json
        path = tmp_path / f"{name}.csv"
        with duckdb.connect(run["export"], read_only=True) as connection:
            connection.execute(f"COPY (SELECT * FROM ledger ORDER BY id) TO '{path}' (HEADER)")
        with open_source(run["export"], tmp_path) as was, open_source(str(path), tmp_path) as now:
            then, again = replay(was.records()), replay(now.records())
            assert isinstance(now, LedgerSource) and now.note == ""
            assert verify(now).passed
        assert again.entries == then.entries
        for resource, held in again.balances.items():
            scale, own = (10 ** one.resources[resource].scale for one in (then, again))
            for actor, amount in held.items():
                assert amount * scale == then.balance(actor, resource) * own


def test_opening_balances_are_the_least_that_is_possible(gridgov, tmp_path):
    rows = (
        "1,p,a,b,energy,2.5,2025-03-01T05:00:00Z,",
        "2,p,b,c,energy,3,2025-03-01T05:00:00Z,",
        "3,,grid,a,energy,1,2025-03-01T06:00:00Z,",
        "4,,a,grid,energy,4.25,2025-03-03T06:00:00Z,",
    )
    found = read(*rows)
    assert found.records[0].payload.opening == (("a", "energy", 575), ("b", "energy", 50))
    assert found.note == (
        "x.csv: opening balances are not in it; 2 are assumed, as little as makes the ledger possible"
    )
    last = replay(found.records)
    assert last.balances["energy"] == {"grid": -300, "a": 0, "b": 0, "c": 300}
    path = tmp_path / "x.csv"
    path.write_text("\n".join((HEADER, *rows)))
    said = gridgov("replay", path, "--json")
    assert said.code == 0 and said.err == f"gridgov: {found.note.replace('x.csv', str(path))}\n"


def test_days_are_epochs_and_rows_of_a_proposal_are_one():
    found = read(
        "7,,b,a,energy,1,2025-03-03 00:00:00,",
        "1,first,a,b,energy,1.5,2025-03-01 23:59:59.5,",
        f"2,{P1},a,b,water,1,2025-03-01T23:59:59.5Z,",
        f"3,{P1.upper()},b,a,water,1,2025-03-01T23:59:59.5+00:00,",
    )
    said = [(r.epoch, r.kind, getattr(r.payload, "proposal_id", "")) for r in found.records]
    assert said == [
        (0, "genesis", ""), (1, "proposal", uuid5("ledger/first")), (1, "proposal", P1),
        (1, "close", ""), (2, "close", ""), (3, "proposal", uuid5("ledger/entry 7")), (3, "close", ""),
    ]  # fmt: skip
    assert [len(r.payload.transfers) for r in found.records if r.kind == "proposal"] == [1, 2, 1]
    assert found.records[1].payload.reasoning == "proposal first"


def test_flows_keep_their_kind():
    made = read(
        "1,,grid,a,fish,5,2025-03-01T00:00:00Z,,grow",
        "2,,grid,a,fish,5,2025-03-01T00:00:00Z,,",
        "3,,a,grid,fish,2,2025-03-01T00:00:00Z,,spill",
        "4,,a,grid,fish,2,2025-03-01T00:00:00Z,,consume",
        header=f"{HEADER},kind",
    )
    assert [r.payload.kind for r in made.records if r.kind == "flow"] == ["grow", "produce", "spill", "consume"]
    assert made.note == ""


def test_boundary_is_known_by_its_uuid_too():
    """As `COPY ledger` in Postgres writes it."""
    grid, home = uuid5("grid"), uuid5("home-1")
    made = read(
        f"1,,{grid},{home},energy,5,2025-03-01T00:00:00Z,,0,genesis",
        f"2,,{home},{grid.upper()},energy,2,2025-03-01T00:00:00Z,,1,consume",
        header=f"{HEADER},epoch,kind",
    )
    assert replay(made.records).balances["energy"] == {"grid": -3, home: 3}


ROW = "1,p,a,b,energy,1,2025-03-01T00:00:00Z,"
AT = "2025-03-01T00:00:00Z"


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "x.csv: has no row"),
        (["1,p,a"], "x.csv: line 2: 3 cells; expected 8 as in line 1"),
        (['1,"p'], "x.csv: line 2: is no CSV"),
        ([ROW, f"x,p,a,b,energy,1,{AT},"], "x.csv: line 3, id: found 'x'; expected a whole number"),
        ([ROW, ROW], "x.csv: line 3, id: found 1 again (first on line 2)"),
        ([f"1,p,a b,b,energy,1,{AT},"], "line 2, actor_from: found 'a b'"),
        ([f"1,p,a,a,energy,1,{AT},"], "line 2, actor_to: found 'a'; expected another actor"),
        ([f"1,p,a,b,,1,{AT},"], "line 2, resource: found ''"),
        ([f"1,p,a,b,energy,-1,{AT},"], "line 2, amount: found '-1'; expected a number above 0"),
        ([f"1,p,a,b,energy,0,{AT},"], "line 2, amount: found '0'"),
        ([f"1,p,a,b,energy,nan,{AT},"], "line 2, amount: found 'nan'"),
        ([f"1,p,a,b,energy,0.0000001,{AT},"], "line 2, amount: found '0.0000001'; expected a number above 0"),
        ([f"1,p,a,b,energy,1e15,{AT},"], "line 2, amount: found '1e15'; expected a number of at most 15 digits"),
        ([f"1,p,a,b,energy,1e99,{AT},"], "line 2, amount: found '1e99'; expected a number of at most 15 digits"),
        ([f"1,p,a,b,energy,1e14,{AT},", f"2,q,a,b,energy,0.1,{AT},"], "line 2, amount: has more than 15 digits, with"),
        ([f"1,{P1.upper()},a,b,energy,1,{AT},", ROW.replace("1,", "2,", 1), f"3,{P1},a,b,energy,1,{AT},"],
         f"line 4, proposal_id: {P1} was ended"),
        ([f"1,p,a,b,energy,9e14,{AT},", f"2,q,a,b,energy,9e14,{AT},"], "a would begin with more than 15 digits"),
        (["1,p,a,b,energy,1,yesterday,"], "line 2, executed_at: found 'yesterday'; expected a time in UTC"),
        (["1,p,a,b,energy,1,2025-03-01T00:00:00+02:00,"], "line 2, executed_at"),
        ([f"2,p,a,b,energy,1,{AT},", "1,q,a,b,energy,1,2025-03-02T00:00:00Z,"], "line 2, executed_at: is before"),
        ([ROW, f"2,q,a,b,energy,1,{AT},", f"3,p,a,b,energy,1,{AT},"], "line 4, proposal_id: p was ended"),
        ([ROW, "2,q,a,b,energy,1,9999-03-01T00:00:00Z,"], "line 3, epoch or executed_at: is epoch"),
    ],
)  # fmt: skip
def test_row_that_is_no_entry_is_named(rows, says):
    with pytest.raises(BadInput, match=re.escape(says)):
        read(*rows)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (f"2,p,a,b,energy,6,{AT},,1,transfer", "line 3, amount: found 6; what the rows before it leave does not allow"),
        (f"2,,a,grid,energy,6,{AT},,1,consume", "line 3, amount: found 6; a has less energy by then"),
        (f"2,p,a,b,energy,6,{AT},,0,transfer", "line 3, epoch: found 0, which is the genesis"),
        (f"2,p,a,b,energy,6,{AT},,x,transfer", "line 3, epoch: found 'x'"),
        (f"2,p,a,b,energy,6,{AT},,1,gift", "line 3, kind: found 'gift'; expected one of: genesis, transfer"),
        (f"2,p,b,a,energy,6,{AT},,1,genesis", "line 3, actor_from: found 'b'; expected grid, because"),
        (f"2,p,b,a,energy,6,{AT},,1,grow", "line 3, actor_from: found 'b'; expected grid, because"),
        (f"2,p,b,a,energy,6,{AT},,1,consume", "line 3, actor_to: found 'a'; expected grid"),
        (f"2,p,grid,a,energy,6,{AT},,1,transfer", "line 3, kind: found 'transfer'; expected another kind"),
        (f"0,p,a,b,energy,1,{AT},,1,transfer", "line 2, epoch: is before that of line 3"),
    ],
)
def test_what_cannot_follow_known_opening_balances_is_named(row, says):
    with pytest.raises(BadInput, match=says):
        read(f"1,,grid,a,energy,5,{AT},,0,genesis", row, header=f"{HEADER},epoch,kind")


def test_header_says_what_is_missing_or_unknown(gridgov, tmp_path):
    with pytest.raises(BadInput, match="line 1: the header lacks amount; expected, between commas, id"):
        read(header=HEADER.replace(",amount", ""))
    with pytest.raises(BadInput, match="line 1: the header has epcoh; expected"):
        read(header=f"{HEADER},epcoh")
    with pytest.raises(BadInput, match="line 1: the header is one cell; expected, between commas, id"):
        read(header=HEADER.replace(",", ";"))
    with pytest.raises(BadInput, match="line 1: the header has a column twice"):
        read(header=f"{HEADER},id")
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xff\xfe")
    assert "is not UTF-8" in one_line(gridgov("replay", path), 2)
    assert "there is no such file" in one_line(gridgov("replay", tmp_path / "y.csv"), 2)
