"""Columns of data files: exact in every form, and refused with file, row and column where they aren't amounts."""

import csv
import gzip
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pyarrow import parquet

from gridgov.amounts import LIMIT, round_half_even
from gridgov.errors import BadInput
from sim import profiles
from sim.profiles import header, ratio, read

DATA = Path(__file__).resolve().parent.parent / "scenarios/data/citylearn_2022_17_homes.csv.gz"


def column(path, cells, name="x"):
    path.write_text(f"hour,{name}\n" + "".join(f"{hour},{cell}\n" for hour, cell in enumerate(cells)))
    return read(path, [name], len(cells)).column(name)


def minor(path, cells, per_unit=1, **options):
    found = column(path, cells).minor(Fraction(per_unit), **options)
    assert found.dtype == np.int64
    return found.tolist()


def refusal(call, *arguments, **options):
    with pytest.raises(BadInput) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def csv_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Path("data.csv")


# --- units ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "into", "expected"),
    [
        ("kWh", "kWh", 1),
        ("credit", "credit", 1),
        ("Wh", "kWh", Fraction(1, 1000)),
        ("GWh", "kWh", 10**6),
        ("MJ", "kWh", Fraction(5, 18)),
        ("kWh", "GJ", Fraction(36, 10_000)),
        ("l", "m3", Fraction(1, 1000)),
        ("Ml", "m3", 1000),
        ("kg", "t", Fraction(1, 1000)),
    ],
)
def test_units_convert_exactly(unit, into, expected):
    assert ratio(unit, into) == expected


@pytest.mark.parametrize(
    ("unit", "into", "message"),
    [
        ("m3", "kg", "found 'm3', which does not convert into kg; expected one of: g, kg, t"),
        ("W", "kWh", "found 'W', which does not convert into kWh; expected one of: Wh, kWh, MWh, GWh, J, kJ, MJ, GJ"),
        ("Wh", "credit", "found 'Wh', which does not convert into credit; expected one of: credit"),
        ("coin", "credit", "found 'coin', which does not convert into credit; expected one of: credit"),
    ],
)
def test_units_of_other_things_do_not_convert(unit, into, message):
    assert refusal(ratio, unit, into) == message


# --- cells ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "per_unit", "expected"),
    [
        (["0", "12", "007"], 1, [0, 12, 7]),
        (["0.5", "12", "1.250"], 1000, [500, 12_000, 1_250]),
        (["1e3", "2.5E-1", "+4", "-0"], 100, [100_000, 25, 400, 0]),
        (["0.000", "0e-9"], 1, [0, 0]),
        (["3", "6"], Fraction(1, 3), [1, 2]),
        (["0.0000000000000000000000000000000000000001e40"], 1, [1]),
        ([str(LIMIT - 1)], 1, [LIMIT - 1]),
        (["0." + "1" * 15], 10**15, [int("1" * 15)]),
    ],
)
def test_reads_cells_exactly(csv_file, cells, per_unit, expected):
    assert minor(csv_file, cells, per_unit) == expected


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["0.0005", "0.0015", "0.0025", "0.00251"], [0, 2, 2, 3]),
        (["0.4999", "1e-300", "7"], [500, 0, 7000]),
    ],
)
def test_rounds_half_to_even_where_it_is_told_to(csv_file, cells, expected):
    assert minor(csv_file, cells, 1000, rounded=True) == expected


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("", "found an empty cell; expected a number"),
        ("  ", "found an empty cell; expected a number"),
        ("NaN", "found 'NaN'; expected a number"),
        ("inf", "found 'inf'; expected a number"),
        ("1_000", "found '1_000'; expected a number"),
        ("0x10", "found '0x10'; expected a number"),
        ("\u0661", "found '\u0661'; expected a number"),
        ("5 kWh", "found '5 kWh'; expected a number"),
        ('"1,5"', "found '1,5'; expected a number"),
        ("-1", "found -1; expected a number from 0"),
        ("-0.5", "found -0.5; expected a number from 0"),
        ("0.0005", "found 0.0005; expected whole steps of 0.001, or round: half_even"),
        ("1000000000000", "found 1000000000000; expected at most 15 digits of minor units"),
        ("1e30", "found 1000000000000000000000000000000; expected at most 15 digits of minor units"),
        ("1e-999", "found 999 decimals; expected at most 400"),
        ("1e9999", "found '1e9999'; expected a number"),
        ("9" * 50, f"found '{'9' * 40}'; expected a number"),
    ],
)
def test_refuses_a_cell(csv_file, cell, message):
    assert refusal(minor, csv_file, ["1", cell, "2"], 1000) == f"data.csv:3: column x, epoch 2: {message}"


def test_prices_may_be_negative(csv_file):
    assert minor(csv_file, ["-0.05", "0.22"], 10**6, signed=True) == [-50_000, 220_000]
    assert minor(csv_file, ["-0.0000005", "-0.0000015"], 10**6, signed=True, rounded=True) == [0, -2]
    assert refusal(minor, csv_file, ["-1e9"], 10**6, signed=True).endswith("expected at most 15 digits of minor units")


def test_names_a_step_that_is_no_decimal(csv_file):
    assert refusal(minor, csv_file, ["1"], Fraction(1000, 3)).endswith(
        "found 1; expected whole steps of 0.003, or round: half_even"
    )
    assert refusal(minor, csv_file, ["1"], Fraction(9, 7)).endswith("steps of 7/9, or round: half_even")


_cells = st.builds(Decimal, st.builds("{}e{}".format, st.integers(0, 10**12), st.integers(-25, 3)))
_forms = st.sampled_from(["{}", "{:f}", "{:E}", "+{:f}"])


@given(
    st.lists(st.tuples(_cells, _forms), min_size=1, max_size=8),
    st.sampled_from([Fraction(1), Fraction(1000), Fraction(1, 1000), Fraction(2500, 9), Fraction(10**6)]),
)
def test_agrees_with_fractions(tmp_path_factory, drawn, per_unit):
    path = tmp_path_factory.getbasetemp() / "drawn.csv"
    exact = [Fraction(value) * per_unit for value, _ in drawn]
    assume(max(exact) < LIMIT - 1)
    found = column(path, [form.format(value) for value, form in drawn])
    assert found.minor(per_unit, rounded=True).tolist() == [round_half_even(value) for value in exact]
    if all(value.denominator == 1 for value in exact):
        assert found.minor(per_unit).tolist() == exact
    else:
        first = next(i for i, value in enumerate(exact) if value.denominator != 1)
        assert f"column x, epoch {first + 1}: found " in refusal(found.minor, per_unit)


# --- files ------------------------------------------------------------------------------------------------------------


def test_reads_only_to_the_horizon(csv_file):
    csv_file.write_text("a,b\n1,2\n3,4\nbroken\n")
    table = read(csv_file, ["b"], 2)
    assert table.column("b").minor(Fraction(1)).tolist() == [2, 4]
    assert refusal(read, csv_file, ["b"], 3) == "data.csv:4: epoch 3: found 1 cells; expected 2, as in the header"


@pytest.mark.parametrize(
    "text", ["a,b\n1,2\n3,4\n", "a,b\r\n1,2\r\n3,4", "a, b\n1, 2\n3, 4\n\n", '\ufeffa,"b"\n1,"2"\n3,4\n']
)
def test_reads_csv_however_it_was_written(csv_file, text):
    csv_file.write_text(text, encoding="utf-8", newline="")
    assert header(csv_file) == ("a", "b")
    assert read(csv_file, ["b"], 2).column("b").minor(Fraction(1)).tolist() == [2, 4]


@pytest.mark.parametrize("name", ["data.csv.gz", "data.csv"])
def test_reads_gzipped_csv_whatever_its_name(csv_file, name):
    path = csv_file.with_name(name)
    path.write_bytes(gzip.compress(b"a,b\n1,2\n3,4\n"))
    assert header(path) == ("a", "b")
    assert read(path, ["a", "b"], 2).column("a").minor(Fraction(1)).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("content", "column", "message"),
    [
        (b"a,b\n1,2\n3,4\n", "b", "data.csv: found 2 rows; expected 3, one for each epoch"),
        (b"a,b\n", "b", "data.csv: found 0 rows; expected 3, one for each epoch"),
        (b"a,b\n1,2\n\n3,4\n5,6\n", "b", "data.csv:3: epoch 2: found 0 cells; expected 2, as in the header"),
        (b"a,b\n1,2,3\n", "b", "data.csv:2: epoch 1: found 3 cells; expected 2, as in the header"),
        (b"load_1,load_2\n", "laod_1", "unknown column 'laod_1'; did you mean 'load_1'? (in data.csv)"),
        (b"a,b\n", "zzz", "unknown column 'zzz'; expected one of: a, b (in data.csv)"),
        (b"a,b,b\n1,2,3\n", "b", "found 2 columns named 'b' in data.csv; expected one"),
        (b"", "b", "data.csv: found no header; expected the names of the columns on the first line"),
        (b"a,b\n1,\xff\n", "b", "data.csv: found bytes that are no UTF-8; expected CSV or Parquet"),
        (b"\x1f\x8b damaged", "b", "data.csv: found a damaged or truncated gzip file; expected a whole one"),
        (
            gzip.compress(b"a,b\n1,2\n")[:-8],
            "b",
            "data.csv: found a damaged or truncated gzip file; expected a whole one",
        ),
        (b"PAR1 damaged PAR1", "b", "data.csv: found a damaged or truncated Parquet file; expected a whole one"),
        (b"a,b\n1," + b"9" * 200_000, "b", "data.csv: field larger than field limit (131072); expected CSV or Parquet"),
    ],
    ids=range(13),
)
def test_refuses_a_file(csv_file, content, column, message):
    csv_file.write_bytes(content)
    assert refusal(read, csv_file, [column], 3) == message


def test_refuses_a_file_that_is_not_there(csv_file):
    message = "data.csv: No such file or directory; expected a file to read"
    assert refusal(read, csv_file, ["a"], 1) == refusal(header, csv_file) == message


def test_reads_from_a_row_on_and_names_its_line(csv_file):
    csv_file.write_text("a\n0\n10\n20\n?\n40\n")
    assert read(csv_file, ["a"], 2, 1).column("a").minor(Fraction(1)).tolist() == [10, 20]
    message = "data.csv:5: column a, epoch 2: found '?'; expected a number"
    assert refusal(read(csv_file, ["a"], 2, 2).column, "a") == message
    message = "data.csv: found 5 rows; expected 6, one for each epoch, after the 3 before first_row"
    assert refusal(read, csv_file, ["a"], 3, 3) == message
    path = csv_file.with_suffix(".parquet")
    parquet.write_table(pa.table({"a": [0, 10, 20, 30]}), path)
    assert read(path, ["a"], 2, 2).column("a").minor(Fraction(1)).tolist() == [20, 30]
    assert "expected 5" in refusal(read, path, ["a"], 2, 3)
    parquet.write_table(pa.table({"a": [0.5, 1.5, -2.0]}), path)
    found = read(path, ["a"], 2, 1).column("a")
    message = "data.parquet: column a, epoch 2: found -2; expected a number from 0"
    assert refusal(lambda: found.minor(Fraction(10))) == message


@pytest.mark.parametrize("first", range(8))
@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_reads_a_stretch_of_a_parquet_file_whatever_its_batches(csv_file, monkeypatch, first, batch):
    monkeypatch.setattr(profiles, "_BATCH", batch)
    parquet.write_table(pa.table({"a": range(10)}), csv_file, row_group_size=4)
    assert read(csv_file, ["a"], 3, first).column("a").minor(Fraction(1)).tolist() == [first, first + 1, first + 2]


@pytest.mark.parametrize("rows", ["a,b\n1,{}\n", "{},b\n1,2\n", "a,b\n1,2\n{},2\n"])
def test_refuses_a_line_that_memory_need_not_hold(csv_file, monkeypatch, rows):
    monkeypatch.setattr(profiles, "LINE_MAX", 1_000)
    csv_file.write_bytes(gzip.compress(rows.format("9," * 400).encode()))
    assert "characters" not in refusal(read, csv_file, ["a"], 2)
    csv_file.write_bytes(gzip.compress(rows.format("9" * 1_000_000).encode()))
    message = "data.csv: found a line of more than 1,000 characters; expected CSV or Parquet"
    assert refusal(read, csv_file, ["a"], 2) == message


def test_a_place_has_no_line_where_cells_span_lines(csv_file):
    csv_file.write_text('note,x\n"two\nlines",1\nplain,?\n')
    table = read(csv_file, ["x"], 2)
    assert refusal(table.column, "x") == "data.csv: column x, epoch 2: found '?'; expected a number"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([1, 2, 30], pa.int64()), [1000, 2000, 30_000]),
        (pa.array([1, 2, 30], pa.uint8()), [1000, 2000, 30_000]),
        (pa.array([1, 2, 30], pa.uint64()), [1000, 2000, 30_000]),
        (pa.array([0.22, 1.0, 2.5], pa.float64()), [220, 1000, 2500]),
        (pa.array([0.22, 1.0, 2.5], pa.float32()), [220, 1000, 2500]),
        (pa.array([Decimal("0.220"), Decimal("1.000"), Decimal("2.500")]), [220, 1000, 2500]),
        (pa.array(["0.22", "1", "2.5"]), [220, 1000, 2500]),
        (pa.array(["0.22", "1", "2.5"]).dictionary_encode(), [220, 1000, 2500]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array | pa.DictionaryArray) else "",
)
def test_reads_parquet_as_the_same_table_in_csv(csv_file, values, expected):
    path = csv_file.with_suffix(".parquet")
    parquet.write_table(pa.table({"hour": [0, 1, 2], "x": values}), path)
    assert header(path) == ("hour", "x")
    found = read(path, ["x"], 3).column("x").minor(Fraction(1000))
    assert found.dtype == np.int64
    assert found.tolist() == expected
    assert read(path, ["x"], 2).column("x").minor(Fraction(1000)).tolist() == expected[:2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, None, 3], "x.parquet: column x, epoch 2: found an empty cell; expected a number"),
        ([1.0, None, 3.0], "x.parquet: column x, epoch 2: found an empty cell; expected a number"),
        ([1.0, float("nan"), 3.0], "x.parquet: column x, epoch 2: found 'nan'; expected a number"),
        ([1, -2, 3], "x.parquet: column x, epoch 2: found -2; expected a number from 0"),
        ([1, 2**62, 3], f"x.parquet: column x, epoch 2: found {2**62}; expected at most 15 digits of minor units"),
        (
            [0.1, 0.1 + 0.2, 0.3],
            "x.parquet: column x, epoch 2: found 0.30000000000000004; "
            "expected whole steps of 0.001, or round: half_even",
        ),
        ([True, False, True], "x.parquet: column x: found bool; expected numbers"),
        ([1, 2], "x.parquet: found 2 rows; expected 3, one for each epoch"),
    ],
)
def test_refuses_parquet(csv_file, values, message):
    path = csv_file.with_name("x.parquet")
    parquet.write_table(pa.table({"x": values}), path)
    assert refusal(lambda: read(path, ["x"], 3).column("x").minor(Fraction(1000))) == message


def test_names_what_a_parquet_file_has(csv_file):
    path = csv_file.with_name("x.parquet")
    parquet.write_table(pa.table({"load": [1]}), path)
    assert refusal(read, path, ["laod"], 1) == "unknown column 'laod'; did you mean 'load'? (in x.parquet)"


def test_reads_a_year_of_seventeen_homes():
    names = [name for name in header(DATA) if name != "hour"]
    table = read(DATA, names, 8_760)
    with gzip.open(DATA, "rt") as file:
        rows = list(csv.DictReader(file))
    for name in names[:-1]:
        assert table.column(name).minor(Fraction(1)).tolist() == [int(row[name]) for row in rows]
    price = table.column("price_usd_per_kwh").minor(Fraction(10**6))
    assert price.tolist() == [int(Decimal(row["price_usd_per_kwh"]) * 10**6) for row in rows]
    assert refusal(read, DATA, names, 8_761) == f"{DATA}: found 8,760 rows; expected 8,761, one for each epoch"
