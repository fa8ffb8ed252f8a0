"""Amounts are exact: between text, JSON and minor units nothing is lost, nor rounded but where it is said."""

import json
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridgov.amounts import (
    LIMIT,
    SCALE_MAX,
    exponent,
    json_number,
    plain,
    plain_decimal,
    round_half_even,
    to_decimal,
    to_json,
    to_minor,
)

scales = st.integers(0, SCALE_MAX)
within = st.integers(1 - LIMIT, LIMIT - 1)
decimals = st.decimals(allow_nan=False, allow_infinity=False)


def test_amounts_have_15_digits_and_up_to_6_decimals():
    assert (len(str(LIMIT - 1)), SCALE_MAX) == (15, 6)


@pytest.mark.parametrize(
    ("text", "last"),
    [("12.50", -1), ("300", 2), ("0", 0), ("0.000", 0), ("-0.1", -1), ("1E+5", 5), ("101", 0), ("1.0E-7", -7)],
)
def test_exponent_is_that_of_the_last_digit_that_counts(text, last):
    assert exponent(Decimal(text)) == last


@pytest.mark.parametrize(
    ("value", "scale", "minor"),
    [
        (Decimal("12.5"), 3, 12_500),
        (Decimal("12.500000"), 1, 125),
        (Decimal("1E+2"), 0, 100),
        (Decimal("1E+2"), 2, 10_000),
        (Decimal("-0.01"), 2, -1),
        (Decimal("-0.0"), 0, 0),
        (Decimal("0E-400"), 0, 0),
        (Decimal("0E+400"), 6, 0),
        (7, 0, 7),
        (-7, 6, -7_000_000),
        (Decimal("0.001"), 2, None),
        (Decimal("1E-400"), 6, None),
        (Decimal("1E+40"), 0, 10**40),
        (Decimal("1E+41"), 0, None),
        (Decimal("-1E+5000"), 0, None),
        (10**50, 1, 10**51),
    ],
)
def test_minor_units_are_exact_or_none(value, scale, minor):
    assert to_minor(value, scale) == minor


@given(decimals, scales)
def test_minor_units_are_the_value_times_its_scale(value, scale):
    minor = to_minor(value, scale)
    if minor is None:
        too_precise = (Fraction(value) * 10**scale).denominator != 1
        assert too_precise or abs(value) >= 10**41
    else:
        assert Fraction(minor, 10**scale) == Fraction(value)


@pytest.mark.parametrize(
    ("minor", "scale", "text"),
    [
        (12_500, 3, "12.5"),
        (-1, 3, "-0.001"),
        (0, 3, "0"),
        (100, 2, "1"),
        (-100, 2, "-1"),
        (1_000_000, 6, "1"),
        (100, 0, "100"),
        (-5, 0, "-5"),
        (1_050, 3, "1.05"),
        (10**15 - 1, 6, "999999999.999999"),
    ],
)
def test_text_has_no_exponent_and_no_trailing_zeros(minor, scale, text):
    assert plain(minor, scale) == text


@given(within, scales)
def test_text_and_decimal_come_back_as_they_were(minor, scale):
    assert to_minor(Decimal(plain(minor, scale)), scale) == minor
    assert to_minor(to_decimal(minor, scale), scale) == minor
    assert str(to_decimal(minor, scale)) == plain(minor, scale)


@given(within, scales)
def test_json_number_is_exact_even_where_a_client_has_only_doubles(minor, scale):
    text = json.dumps(to_json(minor, scale))
    assert Fraction(Decimal(text)) == Fraction(minor, 10**scale)
    assert to_minor(Decimal(repr(float(text))), scale) == minor


@pytest.mark.parametrize(
    ("minor", "scale", "number"), [(1_500, 3, 1.5), (-1_500, 3, -1.5), (2_000, 3, 2), (-2_000, 3, -2), (5, 0, 5)]
)
def test_json_number_is_whole_where_the_amount_is(minor, scale, number):
    found = to_json(minor, scale)
    assert (found, type(found)) == (number, type(number))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("12.50"), "12.5"),
        (Decimal("1E+2"), "100"),
        (Decimal("-0.00"), "0"),
        (Decimal("-1.10E-3"), "-0.0011"),
        (Decimal("1E+40"), "1" + "0" * 40),
        (Decimal("1E+41"), "1E41"),
        (Decimal("-12300E+50"), "-123E52"),
        (Decimal("1E-40"), "0." + "0" * 39 + "1"),
        (Decimal("1E-41"), "1E-41"),
        (Decimal("10.50E-400"), "105E-401"),
        (Decimal("1.0" + "0" * 41 + "1"), "10" + "0" * 41 + "1E-43"),
        (12, "12"),
        (-(10**50), "-1" + "0" * 50),
    ],
)
def test_decimal_text_is_plain_as_far_as_40_places(value, text):
    assert plain_decimal(value) == text


@given(decimals, st.integers(0, 5))
def test_decimal_text_says_the_value_and_the_same_for_equal_ones(value, zeros):
    text = plain_decimal(value)
    assert Decimal(text) == value
    sign, digits, power = value.as_tuple()
    padded = Decimal((sign, digits + (0,) * zeros, power - zeros))
    assert plain_decimal(padded) == text


@pytest.mark.parametrize(
    ("value", "rounded"),
    [("1/2", 0), ("3/2", 2), ("5/2", 2), ("-1/2", 0), ("-3/2", -2), ("7/3", 2), ("8/3", 3), ("4", 4)],
)
def test_generated_amounts_are_rounded_half_to_even(value, rounded):
    found = round_half_even(Fraction(value))
    assert (found, type(found)) == (rounded, int)


@given(within, scales)
def test_a_decimal_is_the_json_number_that_its_minor_units_are(minor, scale):
    found = json_number(to_decimal(minor, scale))
    assert found == to_json(minor, scale)
    assert type(found) is type(to_json(minor, scale))
    assert Decimal(str(found)) == to_decimal(minor, scale)
