"""Columns of data files as exact amounts: CSV, gzipped CSV or Parquet in, int64 minor units out; it knows no scenarios.

What a file is, its first bytes say. A CSV cell is read as the decimal that it spells, never as a float; a float in
Parquet is read as the shortest decimal that means it (0.22 is 0.22), so both forms of a table give the same amounts.
Row `first + i` (from 0) belongs to epoch i + 1; what lies before and beyond is not used.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gridgov.amounts import LIMIT, exponent, plain, plain_decimal
from gridgov.errors import BadInput
from gridgov.wire import known

Ints = NDArray[np.int64]

PRICE_SCALE = 6
"""Decimal places of a price: it is kept in millionths of the currency for each unit."""

_UNITS: dict[str, tuple[str, Fraction]] = {
    "Wh": ("energy", Fraction(1)),
    "kWh": ("energy", Fraction(10**3)),
    "MWh": ("energy", Fraction(10**6)),
    "GWh": ("energy", Fraction(10**9)),
    "J": ("energy", Fraction(1, 3600)),
    "kJ": ("energy", Fraction(1000, 3600)),
    "MJ": ("energy", Fraction(10**6, 3600)),
    "GJ": ("energy", Fraction(10**9, 3600)),
    "ml": ("volume", Fraction(1, 1000)),
    "l": ("volume", Fraction(1)),
    "L": ("volume", Fraction(1)),
    "hl": ("volume", Fraction(100)),
    "m3": ("volume", Fraction(1000)),
    "Ml": ("volume", Fraction(10**6)),
    "ML": ("volume", Fraction(10**6)),
    "g": ("mass", Fraction(1)),
    "kg": ("mass", Fraction(1000)),
    "t": ("mass", Fraction(10**6)),
}

_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_WHOLE = re.compile(r"[0-9]{1,15}(?:\n[0-9]{1,15})*")
_NUMBER = re.compile(r"[+-]?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,3})?")
_DECIMALS_MAX = 400

LINE_MAX = 1 << 23
"""Most characters of a line: enough for some columns of each of as many actors as there may be. A gzipped file of
600 KB can hold a line that does not fit in memory."""

_BATCH = 1 << 16
"""Rows of a Parquet file that are in memory at once, beside those that are wanted."""


def ratio(unit: str, into: str) -> Fraction:
    """How many `into` one `unit` is, exactly. Raises BadInput where one does not convert into the other."""
    if unit == into:
        return Fraction(1)
    kind, size = _UNITS.get(unit, ("", Fraction(0)))
    kind_into, size_into = _UNITS.get(into, (None, Fraction(1)))
    if kind != kind_into:
        same = [name for name, (each, _) in _UNITS.items() if each == kind_into] or [into]
        raise BadInput(f"found {unit!r}, which does not convert into {into}; expected one of: {', '.join(same)}")
    return size / size_into


@dataclass(frozen=True, slots=True)
class Column:
    """Exact numbers, one for each epoch: `numbers[i]` is `whole[i] / 10**decimals`; `whole` is int64 or Python ints.

    The first of them stood in row `first` of its file.
    """

    where: str
    whole: NDArray[Any]
    decimals: int
    first: int = 0

    def minor(self, per_unit: Fraction, *, rounded: bool = False, signed: bool = False) -> Ints:
        """Minor units, shape (epochs,).

        Args:
            per_unit: Minor units for each 1 in the file.
            rounded: Whether what does not fit is rounded, once, half to even; else it is refused.
            signed: Whether numbers may be below 0.

        Raises:
            BadInput: With the epoch where a number does not fit.
        """
        factor = per_unit / 10**self.decimals
        up, down = factor.numerator, factor.denominator
        largest = max(abs(int(self.whole.max())), abs(int(self.whole.min())))
        whole = self.whole if largest * up < 2**62 and down < 2**62 else self.whole.astype(object)
        if not signed:
            self._refuse(whole < 0, "a number from 0")
        found = whole * up // down
        rest = whole * up - found * down
        if down > 1 and not rounded:
            self._refuse(rest != 0, f"whole steps of {self._step(per_unit)}, or round: half_even")
        if down > 1 and rounded:
            twice = rest * 2
            found = found + ((twice > down) | ((twice == down) & (found % 2 == 1)))
        self._refuse((found >= LIMIT) | (found <= -LIMIT), "at most 15 digits of minor units")
        return np.asarray(found, np.int64)

    def _refuse(self, wrong: NDArray[Any], expected: str) -> None:
        rows = np.flatnonzero(wrong)
        if rows.size:
            row = int(rows[0])
            number = plain(int(self.whole[row]), self.decimals)
            raise BadInput(f"{_at(self.where, row, self.first)}: found {number}; expected {expected}")

    @staticmethod
    def _step(per_unit: Fraction) -> str:
        step = 1 / per_unit
        exact = 10**12 % step.denominator == 0
        return plain_decimal(Decimal(step.numerator) / step.denominator) if exact else str(step)


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of one file as they were read, from row `first` on: CSV cells are text, Parquet's are arrays."""

    path: Path
    cells: dict[str, Sequence[str] | Ints]
    lines: bool
    first: int = 0

    def column(self, name: str) -> Column:
        """One column as exact numbers. Raises BadInput with the row of a cell that is none."""
        where = f"{self.path}{':{line}' if self.lines else ''}: column {name}, epoch {{epoch}}"
        cells = self.cells[name]
        if isinstance(cells, np.ndarray):
            return Column(where, cells, 0, self.first)
        text = "\n".join(cells)
        if text.count("\n") == len(cells) - 1 and _WHOLE.fullmatch(text):
            return Column(where, np.array(list(map(int, cells)), np.int64), 0, self.first)
        return _decimals(where, cells, self.first)


def _at(where: str, row: int, first: int) -> str:
    """The place of a row, counted from 0 at row `first` of the file; line 1 of a CSV file is its header."""
    return where.replace("{line}", str(first + row + 2)).replace("{epoch}", str(row + 1))


def _decimals(where: str, cells: Sequence[str], first: int) -> Column:
    """Cells that are not all whole numbers, brought to as many decimals as the longest has."""
    numbers: list[tuple[str, int]] = []
    for row, cell in enumerate(cells):
        match = _NUMBER.fullmatch(cell)
        if match is None:
            found = "an empty cell" if not cell.strip() else repr(cell[:40])
            raise BadInput(f"{_at(where, row, first)}: found {found}; expected a number")
        head, point, tail = cell.partition(".")
        if "e" in cell or "E" in cell:
            value = Decimal(cell)
            places = max(0, -exponent(value))
            numbers.append((str(int(Fraction(value) * 10**places)), places))
        else:
            tail = tail.rstrip("0") if point else ""
            numbers.append((head + tail, len(tail)))
    decimals = max(places for _, places in numbers)
    if decimals > _DECIMALS_MAX:
        row = next(row for row, (_, places) in enumerate(numbers) if places == decimals)
        raise BadInput(f"{_at(where, row, first)}: found {decimals} decimals; expected at most {_DECIMALS_MAX}")
    wholes = [int(digits + "0" * (decimals - places)) for digits, places in numbers]
    small = all(-LIMIT < whole < LIMIT for whole in wholes)
    return Column(where, np.array(wholes, np.int64 if small else object), decimals, first)


# --- files ------------------------------------------------------------------------------------------------------------


def header(path: Path) -> tuple[str, ...]:
    """The names of a file's columns, in order. Raises BadInput where it cannot be read."""
    try:
        with path.open("rb") as file:
            if file.read(4) == _PARQUET:
                return tuple(_parquet(path).schema_arrow.names)
            with _text(file) as text:
                return _csv_header(path, _reader(text))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, error) from None


def read(path: Path, columns: Collection[str], epochs: int, first: int = 0) -> Table:
    """`epochs` rows of these columns from row `first` on (counted from 0), read in one pass over the file.

    Raises:
        BadInput: Where the file cannot be read, has no such column, is ragged, or is shorter than the horizon.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) == _PARQUET:
                return _read_parquet(path, columns, epochs, first)
            with _text(file) as text:
                return _read_csv(path, text, columns, epochs, first)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, error) from None


def require(path: Path, column: str, names: Sequence[str]) -> None:
    """Raises BadInput where a file's columns do not hold this one exactly once."""
    try:
        known(column, names, "column", ())
    except BadInput as error:
        raise BadInput(f"{error} (in {path})") from None
    if names.count(column) > 1:
        raise BadInput(f"found {names.count(column)} columns named {column!r} in {path}; expected one")


def _unreadable(path: Path, error: Exception) -> BadInput:
    if isinstance(error, EOFError | zlib.error | gzip.BadGzipFile):
        return BadInput(f"{path}: found a damaged or truncated gzip file; expected a whole one")
    if isinstance(error, UnicodeDecodeError):
        return BadInput(f"{path}: found bytes that are no UTF-8; expected CSV or Parquet")
    if isinstance(error, OSError):
        return BadInput(f"{path}: {error.strerror or error}; expected a file to read")
    return BadInput(f"{path}: {error}; expected CSV or Parquet")


def _text(file: IO[bytes]) -> io.TextIOWrapper:
    """The text of a file, unzipped where it is zipped."""
    file.seek(0)
    zipped = file.read(2) == _GZIP
    file.seek(0)
    return io.TextIOWrapper(gzip.GzipFile(fileobj=file) if zipped else file, "utf-8-sig", newline="")


def _reader(text: io.TextIOWrapper) -> Any:
    return csv.reader(_lines(text), skipinitialspace=True)


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(LINE_MAX + 1):
        if len(line) > LINE_MAX:
            raise csv.Error(f"found a line of more than {LINE_MAX:,} characters")
        yield line


def _csv_header(path: Path, reader: Any) -> tuple[str, ...]:
    names = next(reader, None)
    if not names:
        raise BadInput(f"{path}: found no header; expected the names of the columns on the first line")
    return tuple(names)


def _read_csv(path: Path, text: io.TextIOWrapper, columns: Collection[str], epochs: int, first: int) -> Table:
    reader = _reader(text)
    names = _csv_header(path, reader)
    for column in columns:
        require(path, column, names)
    before = sum(1 for _ in islice(reader, first))
    rows = list(islice(reader, epochs))
    lines = reader.line_num == before + len(rows) + 1
    while rows and not rows[-1]:
        rows.pop()
    if set(map(len, rows)) - {len(names)}:
        row = next(row for row, cells in enumerate(rows) if len(cells) != len(names))
        where = f"{path}{':{line}' if lines else ''}: epoch {{epoch}}"
        raise BadInput(
            f"{_at(where, row, first)}: found {len(rows[row])} cells; expected {len(names)}, as in the header"
        )
    _long_enough(path, before + len(rows), epochs, first)
    by_column = list(zip(*rows, strict=True))
    return Table(path, {column: by_column[names.index(column)] for column in columns}, lines, first)


def _long_enough(path: Path, rows: int, epochs: int, first: int) -> None:
    if rows < first + epochs:
        after = f", after the {first:,} before first_row" if first else ""
        raise BadInput(f"{path}: found {rows:,} rows; expected {first + epochs:,}, one for each epoch{after}")


def _parquet(path: Path) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path)
    except (pa.ArrowException, OSError):
        raise BadInput(f"{path}: found a damaged or truncated Parquet file; expected a whole one") from None


def _read_parquet(path: Path, columns: Collection[str], epochs: int, first: int) -> Table:
    import pyarrow as pa

    file = _parquet(path)
    for column in columns:
        require(path, column, list(file.schema_arrow.names))
    _long_enough(path, file.metadata.num_rows, epochs, first)
    try:
        table = _stretch(file, sorted(columns), first, epochs)
    except (pa.ArrowException, OSError):
        raise BadInput(f"{path}: found a damaged or truncated Parquet file; expected a whole one") from None
    return Table(path, {column: _parquet_cells(path, column, table.column(column)) for column in columns}, False, first)


def _stretch(file: Any, columns: list[str], first: int, epochs: int) -> Any:
    """Rows of a Parquet file, without those after them and few of those before them in memory."""
    import pyarrow as pa

    kept: list[Any] = []
    at = 0
    for batch in file.iter_batches(_BATCH, columns=columns):
        if at >= first + epochs:
            break
        if at + batch.num_rows > first:
            kept.append(batch.slice(max(0, first - at), first + epochs - max(first, at)))
        at += batch.num_rows
    return pa.Table.from_batches(kept)


def _parquet_cells(path: Path, name: str, values: Any) -> Sequence[str] | Ints:
    """int64 where the column is whole numbers, else the text of each cell; an empty cell is empty text."""
    import pyarrow as pa

    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    whole, real = pa.types.is_integer(kind), pa.types.is_floating(kind)
    if whole and not pa.types.is_uint64(kind) and not values.null_count:
        return np.asarray(values.to_numpy(), np.int64)
    if real and not values.null_count:
        return [str(value) for value in values.to_numpy()]
    if not (whole or real or pa.types.is_decimal(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise BadInput(f"{path}: column {name}: found {kind}; expected numbers")
    return ["" if value is None else str(value) for value in values.to_pylist()]
