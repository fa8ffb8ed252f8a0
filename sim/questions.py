"""The questions that a history asked, each on the state as it was when its answer was judged; nobody is asked here."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from gridgov.decide import decide
from gridgov.errors import BadInput
from gridgov.journal import Decision, JournalRecord
from gridgov.model import Outcome, Proposal, Round
from gridgov.propose import Context
from gridgov.replay import follow
from gridgov.reply import load
from gridgov.source import GridSource, Source
from gridgov.state import State
from sim.onestep import Step, steps

HISTORY_IN_PRODUCTION = 3
"""How many of its last decisions a proposer is shown by the API, as `service.HISTORY`."""

HISTORY_MAX = 64

PROMPT, PROMPT_OF_ACTOR = "propose_transfer", "speak_for_actor"
"""The prompts of proposers that name none, as in a scenario."""

_DATA = re.compile(r"<data>\n?(.*?)\n?</data>", re.DOTALL)


class Recorded(NamedTuple):
    """What the recorded exchange of a round says of how it was asked; all absent where there is none."""

    model: str | None = None
    prompt: str | None = None
    origin: str | None = None
    digest: str = ""
    cost: Decimal | None = None
    data: Mapping[str, Any] | None = None
    """What the model was shown, from the data block of the request."""


@dataclass(frozen=True)
class Question:
    """One round of an active proposer: what it was shown, and what came of its answer.

    `context.state` is the working state: it is that of this question only until the next one is asked for. `prompt` and
    `model` are those of the old side (None: not known), `digest` is its prompt's, `cost` its answer's in USD. `key` is
    the same for the same question on the same state.
    """

    context: Context
    old: Decision
    prompt: str
    model: str | None
    origin: str | None
    digest: str
    cost: Decimal | None
    key: str
    rejudged: bool

    @property
    def who(self) -> str:
        """Who answered: model and prompt, or the proposer where there was no model."""
        if self.model is None:
            return f"{self.context.round.proposer.split('/')[0]}, no model"
        return f"{self.model}, prompt {self.prompt} {self.digest[:12]}".rstrip()

    @property
    def steps(self) -> dict[str, Step]:
        """How the old answer serves this epoch, by resource."""
        return steps(self.context.state, self.old, self.context.mandate)


def rounds(source: Source, proposer: str | None = None) -> int:
    """How many questions a history has, of one proposer (or group) or of all. Complexity: O(records)."""
    return sum(_asked(record, proposer) for record in source.records())


def questions(source: Source, proposer: str | None = None, last: int | None = None) -> Iterator[Question]:
    """The questions of a history in their order, or its last ones. Complexity: O(records).

    Each is asked on the state that its answer was judged on: after everything that the journal has before the record.
    Where it was asked before others of the same turn had moved (`simultaneous`), that is not quite what it was shown.
    """
    skipped = 0 if last is None else max(0, rounds(source, proposer) - last)
    said = _speakers(source)
    past: dict[str, deque[Decision]] = {}

    def all_of_them() -> Iterator[Question]:
        nonlocal skipped
        state = State()
        for record in source.records():
            decision = record.payload
            if not isinstance(decision, Decision) or not _asked(record, None):
                follow(state, record)
                continue
            own = past.setdefault(decision.proposer, deque(maxlen=HISTORY_MAX))
            if _asked(record, proposer):
                if skipped:
                    skipped -= 1
                else:
                    yield _question(source, said.get(decision.proposer, {}), state, record.epoch, decision, own)
            follow(state, record)
            own.append(decision)

    return all_of_them()


def question_of(source: Source, epoch: int, proposer: str | None = None) -> Question:
    """The first question of an epoch, with a state of its own. Raises BadInput where nobody was asked in it."""
    for found in questions(source, proposer):
        if found.context.round.epoch == epoch:
            return found
    whom = f" of {proposer}" if proposer else ""
    raise BadInput(f"{source.path}: there is no round{whom} in epoch {epoch}")


def _asked(record: JournalRecord, proposer: str | None) -> bool:
    """Whether a record is a round; what a client proposes under an id of its own is none."""
    found = record.payload
    if not isinstance(found, Decision) or proposer not in (None, found.proposer, found.proposer.split("/")[0]):
        return False
    return Round(record.epoch, found.proposer, found.n).proposal_id == found.proposal_id


def _speakers(source: Source) -> dict[str, Mapping[str, Any]]:
    """What a run says of its proposers, by name; nothing for a journal or a grid."""
    said = source.info.get("proposers") or []
    found = json.loads(said) if isinstance(said, str) else said
    return {one["name"]: one for one in found if isinstance(one, dict) and "name" in one}


def recorded(source: Source, proposal_id: str) -> Recorded:
    """What is kept of the exchange with a model for a round."""
    for row in source.named("interaction", proposal=proposal_id):
        data: Any = None
        with suppress(ValueError, TypeError, LookupError):
            block = _DATA.search(_text(json.loads(row["line"])))
            data = load(block[1]) if block else None
        shown = data if isinstance(data, dict) else None
        cost = row.get("cost")
        spent = None if cost is None else Decimal(str(cost))
        digest = row.get("prompt_digest") or ""
        return Recorded(row.get("model_asked"), row.get("prompt"), row.get("origin"), digest, spent, shown)
    return Recorded()


def _text(line: Mapping[str, Any]) -> str:
    """The text of a request with its data block, of a cassette's line or of what a grid keeps. Raises as `[]` does."""
    if "user" in line:
        return str(line["user"])
    return str(json.loads(line["request"])["contents"][0]["parts"][0]["text"])


def _question(
    source: Source,
    speaker: Mapping[str, Any],
    state: State,
    epoch: int,
    decision: Decision,
    past: deque[Decision],
) -> Question:
    round_ = Round(epoch, decision.proposer, decision.n)
    said = recorded(source, decision.proposal_id)
    data = said.data or {}
    actor = speaker.get("actor") or data.get("you") or _actor(state, decision.proposer)
    shown = tuple(past)[len(past) - min(len(past), _history(source, speaker, said)) :]
    context = Context(round_, state, actor, shown, _mandate(state, decision.proposer, data))
    active = state.active.get("active")
    usual = PROMPT if actor is None else PROMPT_OF_ACTOR
    rejudged = decision.granted is not None
    if rejudged:
        asked = Proposal(decision.proposal_id, decision.proposer, decision.n, decision.transfers, decision.reasoning)
        decision = decide(state, asked)
    return Question(
        context,
        decision,
        said.prompt or speaker.get("prompt") or (usual if active is None else active.prompt),
        said.model or speaker.get("model") or (None if active is None else active.model),
        said.origin,
        said.digest,
        said.cost,
        f"{state.digest.hex()}/{decision.proposal_id}",
        rejudged,
    )


def _history(source: Source, speaker: Mapping[str, Any], said: Recorded) -> int:
    """How many of its last decisions the proposer was shown: as recorded, else as its scenario says, else as usual."""
    if said.data is not None:
        listed = said.data.get("history", [])
        return len(listed) if isinstance(listed, list) else 0
    return int(speaker.get("history") or (HISTORY_IN_PRODUCTION if isinstance(source, GridSource) else 0))


def _actor(state: State, proposer: str) -> str | None:
    """Whom `<group>/<actor>` speaks for, where that is in its mandate; a history without its scenario says no more."""
    name = proposer.partition("/")[2]
    return name if name in state.actors and name in (state.mandates.get(proposer) or ()) else None


def _mandate(state: State, proposer: str, data: Mapping[str, Any]) -> frozenset[str] | None:
    """Whose balances it may move, where the journal does not say so but the recorded request does."""
    may_move = data.get("may_move")
    if state.mandates.get(proposer) is not None or not isinstance(may_move, list) or "left_out" in data:
        return None
    return frozenset(may_move) & frozenset(state.actors)


def accepted(decision: Decision) -> bool | None:
    """Whether it was accepted, as `acceptance_rate` counts; None for what it leaves out: noop and unavailable."""
    if decision.outcome is Outcome.NOOP or decision.outcome is Outcome.UNAVAILABLE:
        return None
    return decision.outcome is Outcome.EXECUTED


def codes(decision: Decision) -> tuple[str, ...]:
    """Why it was refused, or why there was no proposal: each code once, in order."""
    found = [violation.code.value for violation in decision.violations] or [decision.fault]
    return tuple(dict.fromkeys(code for code in found if code))
