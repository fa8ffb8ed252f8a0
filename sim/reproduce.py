"""A run made again from its export alone, and what differs where it does not come out the same; nothing is kept.

The export holds the scenario with its overrides, every file that it names, the seed and the replies of models. A live
model is not asked again: it answers with what it said then. A fork begins with its parent's records, which are in its
own journal (see `fork`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from gridgov import __version__
from gridgov.cassette import Cassette, Exchange, read_lines
from gridgov.diff import Change, Parting, diff
from gridgov.errors import BadInput, Damaged, ProposerFailed
from gridgov.export import write_journal
from gridgov.ledger import Ledger, MemoryLedger
from gridgov.prompt import FOLDER, Request, load
from gridgov.propose import Context
from gridgov.source import Source, open_source
from sim.fork import FORK, forked, place, reopened
from sim.launch import SOLVER, Past, collector_off, seats, solver
from sim.live import Live
from sim.runner import Runner
from sim.scenario import Scenario
from sim.tape import Tape
from sim.world import World

_WHATIF = "whatif="


class Input(NamedTuple):
    """Something that the run was made with, and what it was then and is now; None where there is none."""

    name: str
    was: str | None
    now: str | None


@dataclass(frozen=True)
class Reproduced:
    """What making a run again came to.

    Attributes:
        recorded, found: the head digests, then and now; None where it came to no record at all.
        records: how many records the run has, and how many of the first are the same now.
        inputs: what is not now what it was, whether or not that made a difference.
        failed: why it could not be played to its end; None where it was.
        set_up: what the genesis and the resolved scenario say otherwise.
        parting: the first record that differs; None where there is none.
    """

    source: str
    run_id: str
    scenario: str
    seed: int
    epochs: int
    fork: str | None
    recorded: str
    found: str | None
    records: int
    same_records: int
    inputs: Sequence[Input]
    failed: str | None
    set_up: Sequence[Change] = ()
    parting: Parting | None = None

    @property
    def same(self) -> bool:
        """Whether every record came out the same."""
        return self.failed is None and self.found == self.recorded and self.same_records == self.records

    def document(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return {
            "same": self.same,
            **asdict(self),
            "inputs": [one._asdict() for one in self.inputs],
            "set_up": [one._asdict() for one in self.set_up],
            "parting": self.parting
            and {**self.parting._asdict(), "differs": [one._asdict() for one in self.parting.differs]},
        }

    def why(self) -> str:
        """The first reason, in a few words, why it is not the same."""
        said = [f"{one.name} was {one.was}, is {one.now}" for one in self.inputs]
        said += [self.failed] if self.failed is not None else []
        said += [f"{one.key} was {one.a}, is {one.b}" for one in self.set_up[:1]]
        if self.parting is not None:
            said.append(f"the first record that differs is {self.parting.seq}")
        return "; ".join(said) or "the recorded head is not that of the recorded journal"


def reproduce(source: Source, folder: Path) -> Reproduced:
    """Makes a run again, in an empty folder, and compares every record with the recorded one.

    Raises BadInput where the source is no run that could be played, Damaged where what is in it is not what it was.
    """
    overrides = _playable(source)
    fork = overrides[0].removeprefix(FORK) if overrides and overrides[0].startswith(FORK) else None
    ledger = MemoryLedger()
    failed = None
    source.files()  # Damaged is no reason why a run differs: it is none that can be compared
    try:
        with collector_off():
            _play(source, fork, folder, ledger)
    except (BadInput, ProposerFailed) as error:
        failed = str(error).replace(f"{folder}/", "")
    same = _alike(source.lines(), ((record.body, record.digest) for record in ledger.records()))
    head = None
    for record in ledger.records():
        head = record.digest.hex()
    info = source.info
    found = Reproduced(
        source=str(source.path),
        run_id=info["run_id"],
        scenario=info["scenario"],
        seed=int(info["seed"]),
        epochs=info["epochs"],
        fork=fork,
        recorded=info["head_digest"],
        found=head,
        records=info["records"],
        same_records=same,
        inputs=list(_inputs(source)),
        failed=failed,
    )
    return found if found.same else _parted(source, found, ledger, folder)


def _playable(source: Source) -> list[str]:
    """The overrides of a run that was played. Raises BadInput for any other source."""
    if source.connection is None:
        raise BadInput(f"{source.path}: only a run can be made again, from its .duckdb export: it has the scenario")
    overrides: list[str] = json.loads(source.info["overrides"])
    if any(text.startswith(_WHATIF) for text in overrides):
        raise BadInput(f"{source.path}: is what another run would have been, and was never played; name that run")
    if source.info["head_digest"] is None:
        raise BadInput(f"{source.path}: this run failed ({source.info['error']}); there is nothing to compare with")
    if not any(name.startswith("scenario:") for name, *_ in source.rows("files")):
        raise BadInput(f"{source.path}: holds no scenario, so nobody can play it again; `gridgov verify` checks it")
    return overrides


def _play(source: Source, fork: str | None, folder: Path, ledger: Ledger) -> None:
    """Plays the run into an empty ledger; what it came to until it fails is there."""
    past: Past | None = None
    if fork is None:
        scenario = reopened(source, folder)
    else:
        scenario, past = forked(source, place(fork)[1], folder)
    tape = _tape(scenario, source, folder)
    world = World(scenario)
    if past is not None:
        past.fill(ledger)
    with tape:
        runner = Runner(scenario, world, seats(scenario, world, tape), ledger, () if past is None else past.shadows)
        runner.run()


class _Recorded(Live):
    """Stands for a live model whose replies are all recorded: what is asked beyond them was never answered."""

    def __init__(self, known: Cassette) -> None:
        super().__init__(_unasked)
        self._known = known

    def __call__(self, request: Request, context: Context) -> Exchange:
        """Raises CassetteMiss, which says what of the request differs from what was recorded."""
        if not self._known.interactions:
            raise ProposerFailed(f"the export holds no reply of {request.model}, and this run asked for some")
        raise self._known.miss(request, context.round)


def _unasked(request: Request) -> Exchange:
    raise AssertionError(f"{request.model} is not asked again")


def _tape(scenario: Scenario, source: Source, folder: Path) -> Tape:
    """Gives live models, where the scenario has any, the replies that are in the export."""
    if not any(speaker.kind == "gemini" for speaker in scenario.speakers):
        return Tape(scenario)
    lines = [f"{line}\n".encode() for line in dict.fromkeys(row["line"] for row in source.named("interactions"))]
    known = read_lines(lines, f"the recording in {source.path}")
    record = folder / "replies.jsonl"
    record.write_bytes(b"".join(lines))
    return Tape(scenario, record, _Recorded(known))


def _alike(recorded: Iterable[tuple[str, bytes]], now: Iterable[tuple[str, bytes]]) -> int:
    """How many of the first lines are the same."""
    count = 0
    for one, other in zip_longest(recorded, now):
        if one != other:
            break
        count += 1
    return count


def _parted(source: Source, found: Reproduced, ledger: Ledger, folder: Path) -> Reproduced:
    """With where the two part; a journal that is not what it was is said to be Damaged."""
    if found.found is None:
        return found
    path = folder / "again.jsonl"
    write_journal(path, ledger.records())
    with open_source(str(path), folder) as again:
        told = diff(source, again)
    return Reproduced(**{**vars(found), "set_up": told.set_up, "parting": told.parting})


# --- what is not now what it was --------------------------------------------------------------------------------------


def _inputs(source: Source) -> Iterator[Input]:
    """The software that made the run, and the prompts that it asked with, where they are others now."""
    pairs: list[tuple[str, str | None, str | None]] = [("gridgov", source.info["version"], __version__)]
    solved = source.files().get(SOLVER)
    if solved is not None:
        pairs.append(("the solver (scipy)", solved.decode().strip(), solver()))
    asked = {row["prompt"]: row["prompt_digest"] for row in source.named("interactions")}
    pairs += [(f"prompt {name}", was, _digest(name)) for name, was in sorted(asked.items())]
    yield from (Input(*pair) for pair in pairs if pair[1] != pair[2])


def _digest(prompt: str) -> str | None:
    try:
        return load(prompt, FOLDER).digest
    except (BadInput, Damaged):
        return None
