"""One worker's share of a sweep: runs that are played one after the other, and their rows as Parquet.

A part is a folder with a Parquet file for each table of an export, and `runs.json`: which runs are in it. It appears
under its name when it is complete, or never. The same `work` is called in this process, in worker processes and by Ray.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from gridgov import __version__, arrow, export
from gridgov.engine import Engine
from gridgov.errors import BadInput, GridgovError
from gridgov.journal import canonical
from gridgov.ledger import MemoryLedger
from gridgov.tables import FORM, Builder, Run, Slice, names_of
from sim.bound import Baseline, baselines
from sim.launch import collector_off, exported, run_id, seats
from sim.live import BudgetSpent, Live
from sim.loading import loads
from sim.runner import Runner, genesis_of
from sim.scenario import Scenario
from sim.tape import Tape
from sim.world import World

COMPLETE, FAILED = "complete", "failed"
"""The `status` of a run in a sweep's file."""

MANIFEST = "runs.json"

TURN = 2.0
"""Seconds after which a worker writes down what it has and asks for more: that much is lost when it is killed."""

_ROWS = 1 << 16
"""Rows of a table that are kept before they are written."""

_WORLDS = 2
"""How many worlds a worker remembers: proposers are compared on the same one."""


class Cell(NamedTuple):
    """One run that is wanted; what is None is as the scenario says. `replicate` counts from 1."""

    place: int
    overrides: tuple[str, ...]
    seed: int | None
    proposer: str | None
    replicate: int = 1

    @property
    def key(self) -> str:
        """16 hex of what was asked for, whatever it resolves to."""
        said = {**self._asdict(), "overrides": list(self.overrides), "place": 0}
        return sha256(canonical(said).encode()).hexdigest()[:16]


class Job(NamedTuple):
    """What all runs of a sweep have in common.

    Attributes:
        text, file: the scenario as written, and its path, to which the paths in it are relative.
        epochs: the horizon instead of the scenario's.
        parts: the folder of the parts.
        recordings: the folder of what live models said.
        started_at: microseconds since 1970.
        known: the runs that are there already.
    """

    text: str
    file: str
    epochs: int | None
    parts: str
    recordings: str
    started_at: int
    known: frozenset[str] = frozenset()


class Done(NamedTuple):
    """What came of one run. `part` is where its rows are: None for one that failed, or that was there already."""

    place: int
    run_id: str
    status: str
    head: str | None = None
    error: str | None = None
    part: str | None = None
    row: Mapping[str, Any] | None = None


class Report(NamedTuple):
    """What a worker did of its share, and what is left of it; `spent` says why no more may be asked of a live model."""

    done: list[Done]
    rest: list[Cell]
    spent: str | None = None


def scenario_of(job: Job, cell: Cell) -> Scenario:
    """The scenario of one run. Raises BadInput."""
    folder = Path(job.file).parent
    return loads(job.text, job.file, lambda name: folder / name, cell.overrides, job.epochs, cell.seed, cell.proposer)


def is_live(scenario: Scenario) -> bool:
    """Whether a model is asked, which no seed controls."""
    return any(speaker.kind == "gemini" for speaker in scenario.speakers)


def work(job: Job, cells: Sequence[Cell], live: Live | None = None) -> Report:
    """Plays cells in their order until its turn is over, and writes down what came; at least one is played.

    A run that fails is told of, and stops no other. Raises OSError where a part cannot be written.
    """
    end = time.perf_counter() + TURN
    done: list[Done] = []
    with Part(Path(job.parts)) as part:
        for done_before, cell in enumerate(cells):
            try:
                done.append(_play(job, cell, part, live))
            except BudgetSpent as error:
                return Report(_placed(done, part.finish()), list(cells[done_before:]), str(error))
            if time.perf_counter() >= end:
                break
        name = part.finish()
    return Report(_placed(done, name), list(cells[len(done) :]))


def _placed(done: Sequence[Done], name: str | None) -> list[Done]:
    """Says of what was written where it is."""
    return [one._replace(part=name) if one.part is not None else one for one in done]


def _play(job: Job, cell: Cell, part: Part, live: Live | None) -> Done:
    """One run, or why there is none."""
    scenario, found = None, f"{sha256((cell.key + job.text).encode()).hexdigest()[:16]}"
    try:
        scenario = scenario_of(job, cell)
        started, record = _recording(job, cell) if is_live(scenario) else (None, None)
        found = run_id(scenario, _genesis(scenario), started)
        if found in job.known or found in part.runs:
            return Done(cell.place, found, COMPLETE)
        run = _run(job, scenario, live, started, record)
        assert run.run_id == found, "a run's id is known before it is played"
        part.add(run)
        return Done(cell.place, found, COMPLETE, run.head_digest, part="")
    except (BudgetSpent, OSError):
        raise
    except GridgovError as error:
        said = " ".join(str(error).split())
    except Exception as error:  # noqa: BLE001 - a bug in one run is told of, and stops no other
        said = f"this is a bug in gridgov, please report it: {type(error).__name__}: {error}"
    return Done(cell.place, found, FAILED, error=said, row=_failed(job, cell, scenario, found, said))


def _genesis(scenario: Scenario) -> str:
    """The body of the first record, without a run."""
    engine = Engine(MemoryLedger())
    engine.append(genesis_of(scenario), scenario.start_at)
    return next(iter(engine.ledger.records())).body


def _recording(job: Job, cell: Cell) -> tuple[datetime, Path]:
    """When a live run was begun at first, which names it, and where what the model said is kept."""
    folder = Path(job.recordings)
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / f"{cell.key}.started"
    if not mark.exists():
        mark.write_text(str(job.started_at + cell.replicate - 1), encoding="ascii")  # two replicates are two runs
    return _time(int(mark.read_text(encoding="ascii"))), folder / f"{cell.key}.jsonl"


def _time(at: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)


def _run(job: Job, scenario: Scenario, live: Live | None, started: datetime | None, record: Path | None) -> Run:
    """Plays a scenario. Raises GridgovError."""
    begun = time.perf_counter()
    if started is not None and live is None:
        raise BadInput("a live model needs a key; set GEMINI_API_KEY")
    world, known = _world(scenario)
    tape = Tape(scenario, record, live if started is not None else None)
    holding: AbstractContextManager[object] = tape if started is not None else nullcontext()
    with holding, collector_off():
        result = Runner(scenario, world, seats(scenario, world, tape)).run()
    return exported(result, tape, known, started or _time(job.started_at), time.perf_counter() - begun)


_REMEMBERED: OrderedDict[str, tuple[World, dict[str, Baseline]]] = OrderedDict()


def _world(scenario: Scenario) -> tuple[World, dict[str, Baseline]]:
    """The world of a scenario and its baselines; what determines them is all that is resolved."""
    key = canonical({**scenario.resolved(), "name": scenario.name})
    known = _REMEMBERED.pop(key, None)
    if known is None:
        world = World(scenario)
        known = world, baselines(world)
    _REMEMBERED[key] = known
    while len(_REMEMBERED) > _WORLDS:
        _REMEMBERED.popitem(last=False)
    return known


def _failed(job: Job, cell: Cell, scenario: Scenario | None, found: str, error: str) -> dict[str, Any]:
    """The row of `runs` of a run that failed: what was wanted, and why it is not there."""
    row: dict[str, Any] = {
        "run_id": found, "scenario": Path(job.file).stem, "description": None, "seed": cell.seed,
        "overrides": json.dumps(list(cell.overrides), ensure_ascii=False),
        "proposers": json.dumps([] if cell.proposer is None else [{"name": cell.proposer}], ensure_ascii=False),
        "status": FAILED, "error": error, "horizon": job.epochs, "started_at": _time(job.started_at),
        "version": __version__, "form": FORM,
    }  # fmt: skip
    if scenario is not None:
        row |= {"scenario": scenario.name, "description": scenario.description, "seed": scenario.seed}
        row |= {"horizon": scenario.epochs}
    return row


# --- the rows of a run ------------------------------------------------------------------------------------------------


def rows_of(run: Run) -> Iterator[Slice]:
    """Every table of an export of one run, its seals included, as `export.Writer` stores them."""
    builder, seals = Builder(names_of(run.records)), export.Seals()
    yield from run.slices(builder)
    yield from builder.finish()
    for table, rows in builder.shadows(run):
        for name in rows.column_names:
            seals.add(table, name, rows[name].to_pylist())
        yield table, rows
    for table, rows in builder.few(run):
        for name in export.SEALED.get(table, ()):
            seals.add(table, name, rows[name].to_pylist())
        yield table, rows
    yield "seals", seals.rows()


class Part:
    """A part on its way; as a context manager it leaves nothing behind that is not finished."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path: Path | None = None
        self.runs: dict[str, str] = {}
        self._waiting: dict[str, list[pa.Table]] = {}
        self._files: dict[str, parquet.ParquetWriter] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
        if self.path is not None:
            shutil.rmtree(self.path, ignore_errors=True)

    def add(self, run: Run) -> None:
        """Takes the rows of a finished run."""
        if self.path is None:
            self.path = Path(tempfile.mkdtemp(prefix=".writing-", dir=self.folder))
        for table, rows in rows_of(run):
            named = arrow.coded(np.zeros(rows.num_rows, np.int32), [run.run_id])
            waiting = self._waiting.setdefault(table, [])
            waiting.append(rows.append_column("run_id", named))
            if sum(one.num_rows for one in waiting) >= _ROWS:
                self._write(table)
        self.runs[run.run_id] = run.head_digest

    def _write(self, table: str) -> None:
        assert self.path is not None, "there are rows"
        rows = pa.concat_tables(self._waiting.pop(table))
        rows = rows.cast(pa.schema([(field.name, _plain(field.type)) for field in rows.schema]))
        if table not in self._files:
            self._files[table] = parquet.ParquetWriter(self.path / f"{table}.parquet", rows.schema, compression="lz4")
        self._files[table].write_table(rows)

    def finish(self) -> str | None:
        """Writes it all and returns the part's name; None where there is no run in it."""
        if self.path is None or not self.runs:
            return None
        for table in list(self._waiting):
            self._write(table)
        for file in self._files.values():
            file.close()
        self._files.clear()
        (self.path / MANIFEST).write_text(json.dumps(self.runs), encoding="ascii")
        name = next(iter(self.runs)) + "-" + self.path.name.removeprefix(".writing-")
        self.path.rename(self.folder / name)
        self.path = None
        return name


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def runs_of(part: Path) -> dict[str, str]:
    """The runs of a part with their heads."""
    found: dict[str, str] = json.loads((part / MANIFEST).read_text(encoding="ascii"))
    return found
