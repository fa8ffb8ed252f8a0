"""What a proposer is: who is asked, what it is shown, what it may answer; how a model is asked is in `prompt`.

A proposer never moves anything. What it answers is judged by `validate` and applied by `engine`.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple, Protocol

from gridgov.journal import Decision
from gridgov.model import Malformed, Round, Transfer, Unavailable, WorldState
from gridgov.state import State


class Answer(NamedTuple):
    """What a proposer proposes; no transfers means that it deliberately does nothing."""

    transfers: tuple[Transfer, ...]
    reasoning: str


class Context:
    """What a proposer is shown in one round.

    `state` is the working state, to be read only; `actor` is whom the proposer speaks for (None: for everyone);
    `history` holds what its last proposals came to, oldest first, as many as the scenario says; `mandate` is whose
    balances it may move (None: everyone's), by default as the journal has it.
    """

    def __init__(
        self,
        round_: Round,
        state: State,
        actor: str | None = None,
        history: tuple[Decision, ...] = (),
        mandate: frozenset[str] | None = None,
    ) -> None:
        self.round = round_
        self.state = state
        self.actor = actor
        self.history = history
        self.mandate = state.mandates.get(round_.proposer) if mandate is None else mandate

    @cached_property
    def world_state(self) -> WorldState:
        """The snapshot of this moment."""
        return self.state.world_state()


class Proposer(Protocol):
    """Something that answers rounds: a policy, a fixture, a cassette, a model."""

    def rounds(self, epoch: int) -> int | None:
        """How many rounds it wants in this epoch; None leaves it to the scenario."""

    def propose(self, context: Context) -> Answer | Malformed | Unavailable:
        """Its answer. Raises ProposerFailed where it cannot go on at all (a cassette without the recording)."""
