"""The meters of a scenario's homes read what its flows come to: needs and production now, consumption once it was."""

import pytest

from sim.loading import load
from sim.meters import Meters
from sim.world import World
from tests.commands import ROOT


@pytest.fixture(scope="module")
def world():
    return World(load(ROOT / "scenarios" / "community-week.yaml"))


def read(meters, epoch, kind):
    return {one["actor"]: one["amount"] for one in meters.reading(epoch)["readings"] if one["kind"] == kind}


def test_what_was_needed_is_consumed_in_the_next_epoch(world):
    meters = Meters(world, 11)
    assert read(meters, 1, "consume") == {}
    for epoch in (1, 2, 30):
        assert read(meters, epoch + 1, "consume") == read(meters, epoch, "need")


def test_amounts_are_those_of_the_scenario_in_units(world):
    [load_of] = [series for series in world.series if series.flow.kind == "consume"]
    wanted = dict(zip(load_of.flow.actors, (load_of.amounts[11 - 1] / 1_000).tolist(), strict=True))
    assert read(Meters(world, 11), 1, "need") == {actor: amount for actor, amount in wanted.items() if amount}
    assert sum(read(Meters(world, 11), 3, "produce").values()) > 0


def test_rows_begin_where_they_are_told_to_and_come_again(world):
    meters = Meters(world, 160)
    assert [meters.row(epoch) for epoch in (1, 9, 10, 178)] == [160, 168, 1, 1]


def test_reading_of_an_epoch_is_the_same_whenever_it_is_asked_for(world):
    first, again = Meters(world, 3).reading(5), Meters(world, 3).reading(5)
    assert first == again and first["reading_id"] == "community-week/5" and first["epoch"] == 5
