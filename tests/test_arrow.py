"""Columns built out of buffers are those that `pyarrow.array` makes."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridgov import arrow

WHOLE = st.integers(-(2**63), 2**63 - 1)
SMALL = st.integers(-(2**31), 2**31 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def some(values):
    return st.lists(st.none() | values)


@given(some(WHOLE), some(SMALL), some(st.floats(allow_nan=False)), st.lists(st.booleans()))
def test_numbers_and_flags(whole, small, real, true):
    assert arrow.ints(whole).equals(pa.array(whole, pa.int64()))
    assert arrow.ints(small, pa.int32()).equals(pa.array(small, pa.int32()))
    assert arrow.times(whole).equals(pa.array(whole, pa.timestamp("us")))
    assert arrow.floats(real).equals(pa.array(real, pa.float64()))
    assert arrow.flags(true).equals(pa.array(true, pa.bool_()))


@given(some(TEXTS), some(st.binary()))
def test_texts_and_bytes(texts, blobs):
    assert arrow.texts(texts).equals(pa.array(texts, pa.string()))
    assert arrow.blobs(blobs).equals(pa.array(blobs, pa.binary()))


@given(some(TEXTS))
def test_more_text_than_short_offsets_reach_has_long_ones(texts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrow, "OFFSET_MAX", -1)
        found = arrow.texts(texts)
    assert found.type == pa.large_string()
    found.validate(full=True)
    assert found.to_pylist() == texts


def test_half_a_surrogate_pair_is_no_text():
    with pytest.raises(UnicodeEncodeError):
        arrow.texts(["\ud800"])


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.float64])
def test_an_array_of_numpy_is_taken_as_it_is(kind):
    values = np.arange(10, dtype=kind)
    assert arrow.numbers(values[::3]).equals(pa.array(values[::3]))


def test_text_by_its_place_in_a_list_and_columns_of_both_kinds():
    found = arrow.table({"epoch": np.arange(3, dtype=np.int32), "actor": arrow.coded(np.array([1, 0, 1]), ["a", "b"])})
    assert found.to_pydict() == {"epoch": [0, 1, 2], "actor": ["b", "a", "b"]}
    assert found.schema.field("epoch").type == pa.int32()
