"""What a model would be asked in an epoch of a scenario, exactly as it would be sent; nothing is sent."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from gridgov.errors import BadInput
from gridgov.model import Malformed, Unavailable
from gridgov.prompt import FOLDER, MODEL, Prompt, Request, load, render
from gridgov.propose import Answer, Context, Proposer
from sim.launch import seats
from sim.runner import Runner, Seat
from sim.scenario import Scenario, Speaker
from sim.world import World


class Asked(NamedTuple):
    """One request of one proposer."""

    proposer: str
    request: Request


class _Over(Exception):
    """The epoch has been asked for."""


class _Peeking:
    """Stands before a proposer, and notes what it would be asked in one epoch. A live model is taken to do nothing."""

    def __init__(self, proposer: Proposer, speaker: Speaker, epoch: int, found: list[Asked], prompt: Prompt) -> None:
        self.rounds = proposer.rounds
        self._proposer, self._speaker, self._epoch, self._found, self._prompt = proposer, speaker, epoch, found, prompt

    def propose(self, context: Context) -> Answer | Malformed | Unavailable:
        """Its answer before the epoch; in the epoch, that of nobody."""
        if context.round.epoch == self._epoch:
            model = self._speaker.model or MODEL
            self._found.append(Asked(context.round.proposer, render(self._prompt, context, model=model)))
        if self._speaker.kind == "gemini":
            return Answer((), "")
        return self._proposer.propose(context)


def requests(scenario: Scenario, epoch: int, prompt: str | None = None) -> list[Asked]:
    """What each proposer would be asked in this epoch, in order; `prompt` in place of the scenario's.

    The epochs before it are played with the scenario's policies, fixtures and cassettes; a live model is taken to have
    proposed nothing in them. Raises BadInput where the scenario has no such epoch, or the prompt is none.
    """
    if epoch > scenario.epochs:
        raise BadInput(f"{scenario.file} has {scenario.epochs} epochs; there is no epoch {epoch}")
    world, found = World(scenario), list[Asked]()

    def peeking(seat: Seat) -> Seat:
        own = load(prompt or seat.speaker.prompt, FOLDER)
        return Seat(seat.speaker, _Peeking(seat.proposer, seat.speaker, epoch, found, own))

    def closed(number: int) -> None:
        if number == epoch:
            raise _Over

    with suppress(_Over):
        Runner(scenario, world, [peeking(seat) for seat in seats(scenario, world)]).run(closed)
    return found
