"""What a model would be asked: the same request as a recording of that epoch has."""

import pytest

from gridgov.cassette import read
from gridgov.errors import BadInput
from sim.loading import load
from sim.peek import requests
from tests.plays import SCENARIOS

WEEK = SCENARIOS / "community-week.yaml"


@pytest.mark.parametrize("epoch", [1, 40])
def test_request_is_the_one_that_was_recorded(epoch):
    recorded = read(SCENARIOS / "cassettes" / "community-week.jsonl")
    scenario = load(WEEK, proposer=f"cassette:{SCENARIOS / 'cassettes' / 'community-week.jsonl'}")
    [asked] = requests(scenario, epoch)
    [known] = [one for one in recorded.interactions if one.round.epoch == epoch]
    assert (asked.proposer, asked.request.user) == ("planner", known.user)


def test_each_proposer_has_a_request_of_its_own_and_nobody_is_asked_after():
    fishers = requests(load(SCENARIOS / "commons-fishery.yaml"), 2)
    assert len({one.request.request_key for one in fishers}) == len(fishers) == 5
    assert {one.request.prompt for one in fishers} == {"speak_for_actor"}


def test_live_model_is_taken_to_have_done_nothing_before():
    live = requests(load(WEEK, proposer="gemini:gemini-3.8-flash"), 20)
    idle = requests(load(WEEK, proposer="policy:none"), 20)
    assert live[0].request.request_key == idle[0].request.request_key


def test_another_prompt_is_rendered_on_request():
    [asked] = requests(load(WEEK), 1, "speak_for_actor")
    assert asked.request.prompt == "speak_for_actor"
    with pytest.raises(BadInput, match="unknown prompt"):
        requests(load(WEEK), 1, "nothing")
    with pytest.raises(BadInput, match="168 epochs"):
        requests(load(WEEK), 169)
