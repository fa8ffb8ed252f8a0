"""Fixture files: plain proposals, one JSON line each, played in order; a broken line is bad input, never an outcome."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gridgov.errors import BadInput
from gridgov.model import Malformed, Resource
from gridgov.propose import Answer, Context
from gridgov.reply import answer_of, load

NOTHING = Answer((), "")


class Fixture:
    """Answers each round with the file's next line of that epoch; an epoch without a line is answered with nothing."""

    def __init__(self, path: Path, resources: Mapping[str, Resource]) -> None:
        self.answers = read(path, resources)

    def rounds(self, epoch: int) -> int | None:
        """As many as the epoch has lines; without one, what the scenario says."""
        return len(self.answers[epoch]) if epoch in self.answers else None

    def propose(self, context: Context) -> Answer:
        """The line of this round."""
        lines = self.answers.get(context.round.epoch, [])
        return lines[context.round.n - 1] if context.round.n <= len(lines) else NOTHING

    def after(self, epoch: int) -> int:
        """How many lines are of later epochs than this one."""
        return sum(len(lines) for own, lines in self.answers.items() if own > epoch)


def read(path: Path, resources: Mapping[str, Resource]) -> dict[int, list[Answer]]:
    """The answers of a fixture by epoch, in order.

    A line is {"epoch": n, "transfers": [...], "reasoning": "..."}, epochs in order. Raises BadInput with file and line.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    found: dict[int, list[Answer]] = {}
    last = 1
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        value = load(line)
        if isinstance(value, Malformed):
            raise BadInput(f"{where}: {value.detail} ({value.code}); expected one JSON object on the line")
        epoch = value.pop("epoch", None) if isinstance(value, dict) else None
        if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < last:
            raise BadInput(
                f"{where}: epoch is {epoch!r}; expected a whole number from {last}, lines in order of epochs"
            )
        answer = answer_of(value, resources)
        if isinstance(answer, Malformed):
            raise BadInput(f"{where}: {answer.detail} ({answer.code}); expected epoch, transfers and reasoning")
        found.setdefault(epoch, []).append(answer)
        last = epoch
    return found
