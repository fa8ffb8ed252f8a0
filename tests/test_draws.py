from __future__ import annotations

import hashlib
from fractions import Fraction
from statistics import mean, stdev

from hypothesis import given
from hypothesis import strategies as st

from sim.draws import draw, normal, shuffled, uniform


def test_draw_depends_on_each_part_of_its_key() -> None:
    keys = [(1, 1, "a", "x"), (2, 1, "a", "x"), (1, 2, "a", "x"), (1, 1, "b", "x"), (1, 1, "a", "y")]
    assert len({draw(*key) for key in keys}) == len(keys)
    assert draw(1, 1, "a", "x") == draw(1, 1, "a", "x")


def test_draw_is_the_same_on_every_machine() -> None:
    key = b"gridgov/draw/1\n1\n7\nhome-1\nnoise/pv"
    assert draw(1, 7, "home-1", "noise/pv") == int(hashlib.sha512(key).hexdigest(), 16)


def test_parts_of_the_key_cannot_be_confused() -> None:
    assert draw(1, 11, "a", "x") != draw(11, 1, "a", "x")
    assert draw(1, 1, "ab", "c") != draw(1, 1, "a", "bc")


@given(st.integers(0, 2**512 - 1))
def test_uniform_is_strictly_between_0_and_1(bits: int) -> None:
    assert 0 < uniform(bits) < 1


def test_normal_has_mean_0_and_deviation_1() -> None:
    drawn = [float(normal(draw(1, epoch, "a", "test"))) for epoch in range(4000)]
    assert abs(mean(drawn)) < 0.05
    assert abs(stdev(drawn) - 1) < 0.05


def test_uniform_fills_the_interval_evenly() -> None:
    drawn = [uniform(draw(1, epoch, "a", "test")) for epoch in range(4000)]
    tenths = [sum(Fraction(i, 10) <= u < Fraction(i + 1, 10) for u in drawn) for i in range(10)]
    assert min(tenths) > 320 and max(tenths) < 480


def test_shuffled_keeps_every_name_and_its_place_does_not_depend_on_others() -> None:
    names = ["a", "b", "c", "d", "e"]
    order = shuffled(names, 1, 1, "order")
    assert sorted(order) == names
    without = shuffled([name for name in names if name != "c"], 1, 1, "order")
    assert without == [name for name in order if name != "c"]
