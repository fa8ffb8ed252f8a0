"""The recorded replies of one run: those it plays, and those it leaves; how they are kept is in `cassette`."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any

from gridgov.cassette import Cassette, CassetteProposer, Interaction, Recorder, Recording, read, recording
from gridgov.errors import BadInput, ProposerFailed
from gridgov.model import Malformed, Unavailable
from gridgov.prompt import FOLDER, MODEL, load
from gridgov.propose import Answer, Context, Proposer
from sim.fixture import Fixture
from sim.live import Live
from sim.scenario import Scenario, Speaker


class Unasked:
    """Stands for a live model where none is asked, as when a scenario is only checked."""

    def __init__(self, name: str) -> None:
        self._name = name

    def rounds(self, epoch: int) -> int | None:
        """As the scenario says."""
        return None

    def propose(self, context: Context) -> Answer | Malformed | Unavailable:
        """Raises ProposerFailed: there is nobody to ask."""
        raise ProposerFailed(f"proposer {self._name}: a live model is asked by `gridgov run` only")


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


class Tape:
    """Gives each proposer its cassette or its recorder; as a context manager it keeps a recording only when complete.

    Two proposers that play the same cassette share it, so that what nobody asked for is known.
    """

    def __init__(self, scenario: Scenario, record: Path | None = None, live: Live | None = None) -> None:
        self.scenario = scenario
        self.live = live
        if record is not None and not record.name:
            raise BadInput(f"--record {record}: expected the name of a file")
        if record is not None and any(_same(record, path) for path in scenario.files.values()):
            raise BadInput(f"--record {record}: the scenario reads this file; choose another name")
        self.recorder = None if record is None else Recorder(record, resume=live is not None)
        self.cassettes: dict[Path, Cassette] = {}
        self.fixtures: dict[Path, Fixture] = {}
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

    def fixture(self, speaker: Speaker) -> Fixture:
        """A proposer that plays the fixture of its speaker. Raises BadInput where the file is none."""
        assert speaker.path is not None
        if speaker.path not in self.fixtures:
            self.fixtures[speaker.path] = Fixture(speaker.path, {r.name: r for r in self.scenario.resources})
        return self.fixtures[speaker.path]

    def recorded(self, proposer: Proposer, speaker: Speaker) -> Proposer:
        """The proposer, with every answer recorded as a synthetic reply where a recording is asked for."""
        if self.recorder is None or self.live is not None:
            return proposer
        made = recording(proposer, speaker.policy or speaker.kind, load(speaker.prompt, FOLDER), self.recorder)
        self._used.append(made)
        return made

    def asked(self, speaker: Speaker) -> Proposer:
        """A proposer that asks a model what the recording does not know yet, and records what comes."""
        prompt = load(speaker.prompt, FOLDER)
        if self.live is None or self.recorder is None:
            return Unasked(speaker.name)
        made = Recording(
            self.live,
            prompt,
            self.recorder,
            model=speaker.model or MODEL,
            ask_again=speaker.on_unavailable == "stop",
        )
        self._used.append(made)
        return made

    def calls(self) -> dict[str, Any] | None:
        """What the calls of this run came to: how many, tokens by kind, cost, latency; None where there was none.

        `known` of the replies were recorded before, and cost nothing now; tokens and cost are those of all replies.
        """
        if self.live is None:
            return None
        used = self.used()
        tokens: Counter[str] = Counter()
        for one in used:
            tokens.update(one.usage)
        priced = [Decimal(one.cost) for one in used if one.cost is not None]
        waited = sorted(one.latency_ms for one in used if one.latency_ms is not None)
        return {
            "made": self.live.calls,
            "known": len(used) - self.live.calls,
            "attempts": sum(one.attempts for one in used),
            "tokens": dict(sorted(tokens.items())),
            "cost": str(sum(priced, Decimal(0))) if priced else None,
            "price_table": next((one.price_table for one in used if one.price_table is not None), None),
            "latency_ms": {"median": waited[len(waited) // 2], "max": waited[-1]} if waited else None,
            "recording": None if self.recorder is None else str(self.recorder.path),
        }

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

    def unplayed(self, epochs: int) -> int:
        """How many lines of fixtures are of later epochs than these."""
        return sum(fixture.after(epochs) for fixture in self.fixtures.values())

    def __enter__(self) -> Tape:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.recorder is not None:
            self.recorder.__exit__(kind, error, trace)
