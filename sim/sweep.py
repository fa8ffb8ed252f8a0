"""Many runs of one scenario: which they are, who plays them, and how they are gathered; a run itself is in `parts`.

A run has the same digest whoever plays it: this process, one of several, or Ray on many machines. What is done is
kept as it comes, so a sweep that ended before its time goes on where it was.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import product
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, NamedTuple

from gridgov import export
from gridgov.errors import BadInput, CheckFailed, ProposerFailed
from sim import collect
from sim.live import Live
from sim.parts import COMPLETE, FAILED, Cell, Done, Job, Report, is_live, runs_of, scenario_of, work

PARTS, RECORDINGS = ".parts", "recordings"
"""In the folder of a sweep: what is not gathered yet, and what live models said, which stays."""

CELLS_MAX = 1_000_000
"""More runs than this are taken for a mistake."""

_SHARE_MAX = 64
"""The most cells that a worker is given at once."""

_LATER = ("sim.optimal", "scipy.optimize", "pyarrow.compute", "pandas", "jinja2")
"""What a run imports when it comes to it; pyarrow takes pandas along where it is installed. Imported once for all."""

_OLD = 24 * 3600
"""Seconds after which an unfinished part is taken for one of a worker that was killed."""


# --- which runs -------------------------------------------------------------------------------------------------------


class Plan(NamedTuple):
    """What a sweep varies.

    Attributes:
        sets: keys with their values, each a YAML text.
        seeds: None is the scenario's own.
        proposers: SPECs; empty is the scenario's own.
        zipped: whether the lists are paired instead of multiplied.
        replicates: how often each run that asks a live model is made.
        shard: (which, of how many), from 1.
    """

    sets: Sequence[tuple[str, Sequence[str]]] = ()
    seeds: Sequence[int] | None = None
    proposers: Sequence[str] = ()
    zipped: bool = False
    replicates: int = 1
    shard: tuple[int, int] = (1, 1)

    def settings(self) -> list[tuple[str, ...]]:
        """The overrides of each setting. Raises BadInput where lists that are paired differ in length."""
        texts = [[f"{key}={value}" for value in values] for key, values in self.sets]
        if not self.zipped:
            return list(product(*texts))
        if len({len(values) for values in texts}) > 1:
            said = ", ".join(f"{key} has {len(values)}" for key, values in self.sets)
            raise BadInput(f"--zip pairs the lists, so they must be equally long: {said}")
        return list(zip(*texts, strict=True))

    def cells(self) -> list[Cell]:
        """Every run of this shard: settings x seeds x replicates x proposers, the last ones varying fastest."""
        seeds: Sequence[int | None] = self.seeds or [None]
        proposers: Sequence[str | None] = self.proposers or [None]
        settings = self.settings()
        count = len(settings) * len(seeds) * len(proposers) * self.replicates
        if count > CELLS_MAX:
            raise BadInput(f"these are {count:,} runs, and a sweep has at most {CELLS_MAX:,}; vary less")
        which, of = self.shard
        every = product(settings, seeds, range(1, self.replicates + 1), proposers)
        cells = (Cell(i, sets, seed, spec, n) for i, (sets, seed, n, spec) in enumerate(every))
        return [cell for cell in cells if cell.place % of == which - 1]


def varied(text: str) -> tuple[str, list[str]]:
    """The key and the values of `KEY=a,b,c`.

    Commas within quotes, brackets or braces separate nothing: `x="a,b",c` and `x={p: 1, q: 2},3` have two values, and
    `x=[1,2]` has one, a list. Raises BadInput.
    """
    key, equals, rest = text.partition("=")
    if not equals or not key.strip():
        raise BadInput(f"--set {text}: expected KEY=VALUE[,VALUE]...")
    values, depth, quote, start = [], 0, "", 0
    for place, sign in enumerate(rest):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign in "[{":
            depth += 1
        elif sign in "]}":
            depth -= 1
        elif sign == "," and depth == 0:
            values.append(rest[start:place].strip())
            start = place + 1
    values.append(rest[start:].strip())
    if quote or depth or "" in values:
        raise BadInput(f"--set {text}: a value is empty, or a quote or bracket is not closed; quote a comma in a value")
    if len(set(values)) < len(values):
        raise BadInput(f"--set {text}: a value is there twice; give each once")
    return key.strip(), values


def seeds_of(text: str) -> list[int]:
    """The seeds of `0:20` (0 to 19), `7`, or a list of both. Raises BadInput."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,18})(?::([0-9]{1,18}))?\s*", part)
        first, end = (int(match[1]), int(match[2] or int(match[1]) + 1)) if match else (0, 0)
        if end <= first or end - first > CELLS_MAX:
            raise BadInput(f"--seeds {text}: expected FIRST:END as 0:20 (which is 0 to 19), or numbers as 1,2,5")
        found += range(first, end)
    if len(set(found)) < len(found):
        raise BadInput(f"--seeds {text}: a seed is there twice; give each once")
    return found


def shard_of(text: str) -> tuple[int, int]:
    """The shard `3/20`. Raises BadInput."""
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    which, of = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= which <= of:
        raise BadInput(f"--shard {text}: expected WHICH/OF as 3/20, from 1/20 to 20/20")
    return which, of


def checked(job: Job, plan: Plan) -> bool:
    """Whether a live model is asked. Raises BadInput where nothing of the sweep could run, or a part says nothing."""
    if plan.zipped and len(plan.sets) < 2:
        raise BadInput("--zip pairs the lists of several --set; there is one at most")
    keys = [key for key, _ in plan.sets]
    if len(set(keys)) < len(keys):
        raise BadInput("--set: a key is there twice; give all of its values in one list")
    for key, given in (("seed", plan.seeds), ("epochs", job.epochs)):
        if key in keys and given is not None:
            raise BadInput(f"--set {key}: --{'seeds' if key == 'seed' else key} says so too; leave one out")
    scenario = scenario_of(job, Cell(0, (), None, None))
    every = plan._replace(shard=(1, 1)).cells()
    tried = {cell.proposer: cell for cell in (every[-1], *every[: len(plan.proposers) or 1])}
    live, problems = False, []
    for cell in tried.values():
        try:
            live = live or is_live(scenario_of(job, cell))
        except BadInput as error:
            problems.append(error)
    if len(problems) == len(tried):
        try:  # the first values may be what is wrong, and the last ones fine
            scenario_of(job, every[-1])
        except BadInput:
            raise problems[0] from None
    live = live or any("gemini" in value for _, values in plan.sets for value in values)
    if plan.replicates > 1 and not live:
        raise BadInput(
            f"--replicates {plan.replicates}: would make the same runs again, because no live model is asked, and the "
            f"seed controls all of {scenario.name}; leave it out, or vary --seeds"
        )
    return live


# --- who plays them ---------------------------------------------------------------------------------------------------


class Queue:
    """The cells that nobody plays yet, in their order."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._left = deque(cells)

    def __len__(self) -> int:
        return len(self._left)

    def take(self, workers: int) -> list[Cell]:
        """A worker's next share: large enough to be worth it, small enough to be fair at the end."""
        count = max(1, min(_SHARE_MAX, len(self._left) // (4 * workers)))
        return [self._left.popleft() for _ in range(min(count, len(self._left)))]

    def give_back(self, cells: Sequence[Cell]) -> None:
        """What a worker had no time for is next."""
        self._left.extendleft(reversed(cells))


def _here(job: Job, queue: Queue, live: Live | None) -> Iterator[Report]:
    """One worker: this process."""
    while queue:
        report = work(job, queue.take(1), live)
        queue.give_back(report.rest)
        yield report
        if report.spent is not None:
            return


_job: Job | None = None
"""What a worker process was begun with."""


def _begin(job: Job) -> None:
    """Readies a worker process: it ignores Ctrl-C, which is its parent's, and is gone as soon as its parent is."""
    global _job  # noqa: PLW0603 - a worker process has one job
    _job = job
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="watch", daemon=True).start()


def _turn(cells: Sequence[Cell]) -> Report:
    """One share, in a worker process."""
    assert _job is not None, "a worker was begun"
    return work(_job, cells)


def _context() -> BaseContext:
    """How workers are begun: copies of a process that has imported what they need, where there is such a thing.

    That process is begun here, and gets ready while this one goes on.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sim.parts", *_LATER])
    with _SigintIgnored():
        forkserver.ensure_running()
    return context


def _in_processes(job: Job, queue: Queue, jobs: int) -> Iterator[Report]:
    """So many workers on this machine; when this ends, for whatever reason, they are gone."""
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, _context(), _begin, (job,))
    waiting: set[Future[Report]] = set()

    def fill() -> None:
        while queue and len(waiting) < jobs:
            waiting.add(pool.submit(_turn, queue.take(jobs)))

    try:
        with _SigintIgnored():  # workers inherit that, from their first moment on
            fill()
        while waiting:
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            waiting.difference_update(done)
            reports = [future.result() for future in done]
            for report in reports:
                queue.give_back(report.rest)
            fill()
            yield from reports
        pool.shutdown()
    except BrokenProcessPool:
        raise CheckFailed(
            "a worker process was killed, perhaps for want of memory; what is done is kept: start again, with fewer "
            "--jobs, and the sweep goes on"
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()


class _SigintIgnored:
    """Ctrl-C is not heard within, where this is the main thread."""

    def __enter__(self) -> None:
        main = threading.current_thread() is threading.main_thread()
        self._was = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None

    def __exit__(self, *_: object) -> None:
        if self._was is not None:
            signal.signal(signal.SIGINT, self._was)


def _in_ray(job: Job, queue: Queue, address: str, jobs: int | None) -> Iterator[Report]:
    """As many workers as Ray has processors, or `jobs`. Scenario, its files and `--out` must be on a shared disk."""
    try:
        import ray
    except ImportError:
        raise BadInput("--ray: Ray is not installed; pip install gridgov[ray]") from None
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address=address or None, log_to_driver=False, include_dashboard=False if not address else None)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise BadInput(f"--ray {address}: there is no Ray ({' '.join(str(error).split())[:200]})") from None
    try:
        slots = jobs or max(1, int(ray.cluster_resources().get("CPU", 1)))
        shared, remote = ray.put(job), ray.remote(work)
        waiting: list[Any] = []
        while queue or waiting:
            while queue and len(waiting) < slots:
                waiting.append(remote.remote(shared, queue.take(slots)))
            done, waiting = ray.wait(waiting, num_returns=1)
            for report in ray.get(done):
                queue.give_back(report.rest)
                yield report
    finally:
        if ours:
            ray.shutdown()


# --- all of it --------------------------------------------------------------------------------------------------------


class Swept(NamedTuple):
    """What a sweep came to: its file, every run in the order of the cells, and how many were there already."""

    path: Path
    sweep_id: str
    runs: list[Done]
    known: int
    seconds: float

    @property
    def failed(self) -> list[Done]:
        """The runs that have no result."""
        return [one for one in self.runs if one.status == FAILED]

    @property
    def distinct(self) -> int:
        """How many runs there are: two cells that mean the same are one."""
        return len({one.run_id for one in self.runs})


class Workers(NamedTuple):
    """Who plays: so many processes (None: one for each processor), or Ray at an address ("" is one of our own)."""

    jobs: int | None = None
    ray: str | None = None
    live: Live | None = None


def sweep(
    job: Job, cells: Sequence[Cell], out: Path, workers: Workers, progress: Callable[[int, int], None] | None = None
) -> Swept:
    """Plays all cells and gathers them in `<sweep_id>.duckdb`, in a folder; what is there already is not played again.

    Args:
        job: `parts`, `recordings` and `known` are filled in here.
        progress: Is told how many runs are done, and how many of them failed.

    Raises:
        BadInput: Nothing can be written there, or Ray is not.
        ProposerFailed: The budget for live models is spent; what was done is kept.
        CheckFailed: A worker was killed; what was done is kept.
    """
    started = time.perf_counter()
    if _processes(workers, len(cells)) > 1:
        _context()
    with export.Store(out) as store, collect.Gathering(store) as made:
        parts = out / PARTS
        parts.mkdir(exist_ok=True)
        _clean(parts, store.scratch)
        sources: dict[str, Path] = collect.known(out)
        sources.update((run, part) for part in sorted(parts.glob("[!.]*")) for run in runs_of(part))
        job = job._replace(parts=str(parts), recordings=str(out / RECORDINGS), known=frozenset(sources))
        gathering = _Gathering(made, store, cells, sources, parts)
        for report in _reports(job, Queue(cells), workers):
            gathering.take(report)
            if progress is not None:
                progress(len(gathering.done), gathering.failures)
            if report.spent is not None:
                left = len(cells) - len(gathering.done)
                raise ProposerFailed(f"{report.spent}; {left} of {len(cells)} runs are left; start again to go on")
        runs = [gathering.done[cell.place] for cell in cells]
        name = collect.sweep_id({one.run_id for one in runs})
        path = gathering.finish(out / f"{name}.duckdb", runs)
    heads = {one.run_id: one.head for one in collect.ended(path)}
    runs = [one._replace(head=heads[one.run_id]) for one in runs]
    was_known = len({one.run_id for one in runs if one.status == COMPLETE and one.run_id in job.known})
    return Swept(path, name, runs, was_known, time.perf_counter() - started)


def _reports(job: Job, queue: Queue, workers: Workers) -> Iterator[Report]:
    if workers.ray is not None:
        return _in_ray(job, queue, workers.ray, workers.jobs)
    jobs = _processes(workers, len(queue))
    return _in_processes(job, queue, jobs) if jobs > 1 else _here(job, queue, workers.live)


def _processes(workers: Workers, cells: int) -> int:
    """How many worker processes there will be; 1 is this one."""
    if workers.live is not None or workers.ray is not None:
        return 1
    return min(workers.jobs or len(os.sched_getaffinity(0)), max(1, cells))


def _clean(parts: Path, own: Path) -> None:
    """Takes away what killed workers left, once it is a day older than what was made just now."""
    now = own.stat().st_mtime
    for left in parts.glob(".writing-*"):
        if left.exists() and now - left.stat().st_mtime > _OLD:
            shutil.rmtree(left, ignore_errors=True)


class _Gathering:
    """Gathers what workers report, about in the order of the cells, while they go on."""

    def __init__(
        self,
        made: collect.Gathering,
        store: export.Store,
        cells: Sequence[Cell],
        sources: dict[str, Path],
        parts: Path,
    ) -> None:
        self.made, self.store, self.sources, self.parts = made, store, sources, parts
        self.done: dict[int, Done] = {}
        self.failures = 0
        self._order = deque(cell.place for cell in cells)
        self._wanted: dict[Path, list[str]] = {}
        self._load: Future[None] | None = None

    def take(self, report: Report) -> None:
        """Takes what a worker did; rows are loaded in the background, once those before them are."""
        for one in report.done:
            self.done[one.place] = one
            self.failures += one.status == FAILED
            if one.part is not None:
                self.sources[one.run_id] = self.parts / one.part
        while self._order and self._order[0] in self.done:
            one = self.done[self._order.popleft()]
            source = self.sources.get(one.run_id)
            if source is not None and source.suffix != ".duckdb":
                self._wanted.setdefault(source, []).append(one.run_id)
        if self._load is None or self._load.done():
            self._load_all()

    def _load_all(self) -> None:
        """Waits for what is loading, and lets the store load what has come since then, all at once."""
        if self._load is not None:
            self._load.result()
            self._load = None
        if self._wanted:
            self._load = self.store.worker.submit(self.made.parts, self._wanted)
            self._wanted = {}

    def finish(self, path: Path, runs: Sequence[Done]) -> Path:
        """Waits for what is loading, adds the rest, and publishes the file; one that says the same is kept."""
        self._load_all()
        self._load_all()
        ends = {one.run_id: one.status for one in runs}
        if not (path.exists() and {one.run_id: one.status for one in collect.ended(path)} == ends):
            stored: dict[Path, list[str]] = {}
            for run, status in ends.items():
                if status == COMPLETE and self.sources[run].suffix == ".duckdb":
                    stored.setdefault(self.sources[run], []).append(run)
            for source, some in stored.items():
                self.made.file(source, some)
            self.made.failed([one.row for one in runs if one.row is not None])
            self.made.finish(path)
        for part in self.parts.glob("[!.]*"):
            if runs_of(part).keys() <= ends.keys():
                shutil.rmtree(part, ignore_errors=True)
        if not any(self.parts.iterdir()):
            self.parts.rmdir()
        return path
