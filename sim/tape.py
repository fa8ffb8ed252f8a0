"""The recorded replies of one run: those it plays, and those it leaves; how they are kept is in `cassette`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

from gridgov.cassette import Cassette, CassetteProposer, Interaction, Recorder, Recording, read, recording
from gridgov.errors import BadInput
from gridgov.prompt import FOLDER, load
from gridgov.propose import Proposer
from sim.scenario import Scenario, Speaker


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


class Tape:
    """Gives each proposer its cassette or its recorder; as a context manager it keeps a recording only when complete.

    Two proposers that play the same cassette share it, so that what nobody asked for is known.
    """

    def __init__(self, scenario: Scenario, record: Path | None = None) -> None:
        self.scenario = scenario
        if record is not None and any(_same(record, path) for path in scenario.files.values()):
            raise BadInput(f"--record {record}: the scenario reads this file; choose another name")
        self.recorder = None if record is None else Recorder(record)
        self.cassettes: dict[Path, Cassette] = {}
        self._used: list[CassetteProposer | Recording] = []

    def replayed(self, speaker: Speaker) -> CassetteProposer:
        """A proposer that plays the cassette of its speaker. Raises BadInput or Damaged where the file is none."""
        assert speaker.path is not None
        if self.recorder is not None:
            raise BadInput(f"--record: {speaker.name} plays {speaker.path}, where its replies are recorded already")
        if speaker.path not in self.cassettes:
            self.cassettes[speaker.path] = read(speaker.path)
        prompt = load(speaker.prompt, FOLDER)
        made = CassetteProposer(self.cassettes[speaker.path], prompt=prompt, model=speaker.model)
        self._used.append(made)
        return made

    def recorded(self, proposer: Proposer, speaker: Speaker) -> Proposer:
        """The proposer, with every answer recorded as a synthetic reply where a recording is asked for."""
        if self.recorder is None:
            return proposer
        made = recording(proposer, speaker.policy or speaker.kind, load(speaker.prompt, FOLDER), self.recorder)
        self._used.append(made)
        return made

    def rows(self) -> list[dict[str, Any]]:
        """The interactions that were used, as the export keeps them."""
        return [row for made in self._used for row in made.rows]

    def used(self) -> list[Interaction]:
        """The interactions that were used."""
        return [one for made in self._used for one in made.interactions]

    def counts(self) -> dict[str, int]:
        """How many of the interactions that were used a model gave, a person edited, or no model ever gave."""
        counted = Counter(one.origin for one in self.used())
        return {origin: counted[origin] for origin in ("recorded", "edited", "synthetic")}

    def unused(self) -> int:
        """How many recorded replies nobody asked for."""
        return sum(len(cassette.unused()) for cassette in self.cassettes.values())

    def __enter__(self) -> Tape:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.recorder is not None:
            self.recorder.__exit__(kind, error, trace)
