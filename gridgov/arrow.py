"""Columns of Arrow out of plain values, buffer by buffer; nothing here knows what the values mean.

`pyarrow.array` looks whether it was given something of pandas', and so imports that wherever it is installed (Streamlit
needs it): most of a second for each run that writes a file. What is built out of buffers does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

OFFSET_MAX = 2**31 - 1
"""Bytes of text in a column up to which its offsets have 32 bits."""


def table(columns: Mapping[str, Any]) -> pa.Table:
    """A table of columns, each an array of Arrow or of NumPy, all of one length."""
    arrays = [numbers(own) if isinstance(own, np.ndarray) else own for own in columns.values()]
    return pa.Table.from_arrays(arrays, names=list(columns))


def numbers(values: NDArray[Any]) -> pa.Array:
    """An array of int32, int64 or float64 as it is."""
    return _filled(pa.from_numpy_dtype(values.dtype), len(values), None, np.ascontiguousarray(values))


def ints(values: Iterable[int | None], kind: Any = None) -> pa.Array:
    """Whole numbers, None as NULL, of 64 bits or of the kind that is named."""
    found = list(values)
    kind = pa.int64() if kind is None else kind
    filled = np.array([value or 0 for value in found], np.int32 if kind.bit_width == 32 else np.int64)
    return _filled(kind, len(found), _valid(found), filled)


def floats(values: Iterable[float | None]) -> pa.Array:
    """Numbers of 64 bits, None as NULL."""
    found = list(values)
    return _filled(pa.float64(), len(found), _valid(found), np.array([value or 0.0 for value in found], np.float64))


def times(microseconds: Iterable[int | None]) -> pa.Array:
    """Microseconds since 1970 as timestamps, None as NULL."""
    return ints(microseconds, pa.timestamp("us"))


def flags(values: Iterable[bool]) -> pa.Array:
    """True or false."""
    found = np.fromiter(values, np.bool_)
    return _filled(pa.bool_(), len(found), None, np.packbits(found, bitorder="little"))


def texts(values: Iterable[str | None]) -> pa.Array:
    """Text, None as NULL. Raises UnicodeEncodeError where a text is none."""
    return _spelled([None if value is None else value.encode() for value in values], pa.string(), pa.large_string())


def blobs(values: Iterable[bytes | None]) -> pa.Array:
    """Bytes, None as NULL."""
    return _spelled(list(values), pa.binary(), pa.large_binary())


def coded(codes: NDArray[Any], names: Sequence[str]) -> pa.Array:
    """Text by its place in a list of names."""
    return pa.DictionaryArray.from_arrays(numbers(codes.astype(np.int32)), texts(names))


def _spelled(values: Sequence[bytes | None], kind: Any, larger: Any) -> pa.Array:
    ends = list(accumulate((0 if value is None else len(value) for value in values), initial=0))
    small = ends[-1] <= OFFSET_MAX
    offsets = np.array(ends, np.int32 if small else np.int64)
    data = b"".join(value for value in values if value is not None)
    return _filled(kind if small else larger, len(values), _valid(values), offsets, data)


def _valid(values: Sequence[Any]) -> NDArray[Any] | None:
    """Which values are there, a bit each; None where all are."""
    if not any(value is None for value in values):
        return None
    return np.packbits([value is not None for value in values], bitorder="little")


def _filled(kind: Any, length: int, *buffers: Any) -> pa.Array:
    own = [None if buffer is None else pa.py_buffer(buffer) for buffer in buffers]
    return pa.Array.from_buffers(kind, length, own)
