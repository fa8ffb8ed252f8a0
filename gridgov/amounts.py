"""Fixed-point amounts: exact decimals in units at the edges, `int` minor units inside; nothing else lives here.

An amount of a resource with scale 3 is a whole number of thousandths: 12.5 kWh is 12500.
No function here ever rounds, but `round_half_even`, which says so.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

SCALE_MAX = 6
"""Most decimal places that a resource may have."""

LIMIT = 10**15
"""Amounts and all balances but the boundary's stay below this many minor units (15 digits: exact in a float64)."""

POWERS = tuple(int(10**scale) for scale in range(SCALE_MAX + 1))
"""Minor units in a unit, by scale."""

_EXPONENT_MAX = 40


def exponent(value: Decimal) -> int:
    """The power of ten of the last non-zero digit: -1 for 12.50, 2 for 300, 0 for 0."""
    digits, power = value.as_tuple().digits, value.as_tuple().exponent
    assert isinstance(power, int), "NaN and Infinity are refused before they come here"
    for place in range(len(digits) - 1, -1, -1):
        if digits[place]:
            return power + len(digits) - 1 - place
    return 0


def to_minor(value: int | Decimal, scale: int) -> int | None:
    """Minor units of an exact decimal; None where it has more decimals than the scale, or is absurdly large."""
    if isinstance(value, int):
        return value * POWERS[scale]
    if not value:
        return 0
    last = exponent(value)
    if last < -scale or value.adjusted() > _EXPONENT_MAX:
        return None
    sign, digits, power = value.as_tuple()
    assert isinstance(power, int)
    number = int("".join(map(str, digits)))
    shift = power + scale
    number = int(number * 10**shift) if shift >= 0 else int(number // 10**-shift)
    return -number if sign else number


def to_decimal(minor: int, scale: int) -> Decimal:
    """The amount in units as an exact Decimal, without trailing zeros."""
    return Decimal(plain(minor, scale))


def plain(minor: int, scale: int) -> str:
    """The amount in units as plain text: 12500 at scale 3 is `12.5`, -1 at scale 3 is `-0.001`."""
    if not scale:
        return str(minor)
    whole, fraction = divmod(abs(minor), 10**scale)
    text = f"{whole}.{fraction:0{scale}d}".rstrip("0").rstrip(".") if fraction else str(whole)
    return "-" + text if minor < 0 else text


def plain_decimal(value: int | Decimal) -> str:
    """A decimal as canonical text: no exponent and no trailing zeros (but `1E-400` beyond 40 places)."""
    if isinstance(value, int):
        return str(value)
    if not value:
        return "0"
    last = exponent(value)
    if last < -_EXPONENT_MAX or value.adjusted() > _EXPONENT_MAX:
        sign, digits, _ = value.as_tuple()
        text = "".join(map(str, digits)).strip("0")
        return f"{'-' if sign else ''}{text}E{last}"
    scale = max(0, -last)
    minor = to_minor(value, scale)
    assert minor is not None
    return plain(minor, scale)


def to_json(minor: int, scale: int) -> int | float:
    """The amount in units as a JSON number. Exact: below `LIMIT` a float64 holds its 15 digits."""
    whole, fraction = divmod(minor, 10**scale)
    return float(plain(minor, scale)) if fraction else whole


def json_number(value: Decimal) -> int | float:
    """A Decimal as the JSON number that means it: whole, or else a float64. Exact up to 15 digits."""
    return int(value) if value == value.to_integral_value() else float(value)


def round_half_even(value: Fraction) -> int:
    """A generated amount (noise, growth, scaling, unit conversion) in minor units, rounded once, half to even."""
    return round(value)
