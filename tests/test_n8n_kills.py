"""n8n is killed in mid-run and started again: one effect, one issue in its final state, acknowledged."""

import contextlib
import threading

import httpx
import pytest

from tests.n8n import until

pytest_plugins = ["tests.n8n"]

STEPS = (
    "app GET /v1/context",
    "gemini POST",
    "app POST /v1/proposals",
    "linear POST / Find",
    "linear POST / Create",
    "app POST /v1/outbox/",
    "app POST /v1/epochs/close",
)
"""Every call of a run of the loop, in order."""


def killed_at(world, step, when, path="governance-loop"):
    """Calls a workflow, kills n8n when a step's call comes (`before`) or is done (`after`), and starts it again."""
    dead = threading.Event()

    def kill():
        world.n8n.kill()
        dead.set()

    world.gate.fail(step, status=None, done=when == "after", **{when: kill})
    with contextlib.suppress(httpx.HTTPError):
        world.n8n.call(path)
    assert dead.wait(60), f"{step} did not come"
    world.n8n.start()
    until(world.n8n.is_quiet, "n8n to find out what it did not finish")


@pytest.mark.parametrize("step", STEPS)
def test_loop_that_is_killed_after_a_step_loses_and_doubles_nothing(world, step):
    killed_at(world, step, "after")
    assert world.sync() == (200, {"done": True})
    assert world.outbox == []
    if world.epoch == 1:  # the next run finishes the round, or decides it where it was not
        assert world.run()["outcome"] == "executed"
    world.check_one_effect()


def test_loop_that_is_killed_before_the_outcome_reaches_the_app_asks_again(world):
    killed_at(world, "app POST /v1/proposals", "before")
    assert world.decided() == []
    assert world.run()["outcome"] == "executed"
    assert world.gemini.count == 2
    world.check_one_effect()


def test_sync_that_is_killed_between_issue_and_acknowledgement_writes_one_issue(world):
    for amount in (1, 2, 3):
        world.app.propose(amount)
    world.gate.fail("linear POST / Create")
    killed_at(world, "linear POST / Create", "after", "outbox-sync")
    assert world.sync() == (200, {"done": True})
    world.check_written()
    assert len(world.issues) == 3


def test_sixteen_calls_and_a_kill_leave_one_effect(world):
    calls = [threading.Thread(target=quietly, args=(world,)) for _ in range(16)]
    dead = threading.Event()

    def kill():
        world.n8n.kill()
        dead.set()

    world.gate.fail("app POST /v1/proposals", after=kill, status=None)
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert dead.wait(60), "the kill comes before what those who called are told"
    world.gate.rules = []
    world.n8n.start()
    until(world.n8n.is_quiet, "n8n to find out what it did not finish")
    assert world.sync() == (200, {"done": True})
    assert world.run({"epoch": 1})["outcome"] == "executed"
    world.check_one_effect()


def quietly(world):
    with contextlib.suppress(httpx.HTTPError):
        world.n8n.call(told={"epoch": 1})
