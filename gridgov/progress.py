"""How far a run or a sweep has come, in a small file beside the store, for whoever looks on; it decides nothing.

The file is there while the process works, and is taken away at its end. One that a killed process left says so by its
pid. Where it cannot be written, nothing else fails.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

ENDING = ".progress.json"

EVERY_S = 0.25
"""The file is written at most so often."""

ELSEWHERE_S = 600.0
"""A process of another machine cannot be asked; after so long without a word it is taken for gone."""

LARGEST = 65_536
"""A file of more bytes is none of ours."""


class Underway(NamedTuple):
    """What a file says, and whether its process still works.

    Attributes:
        name: the run id, or what the file is named after where there is none yet.
        kind: run or sweep.
        what: what is counted, as epochs or runs; `failed` of the `done` failed.
        proposers: who proposes, in short.
        started_at, updated_at: seconds since 1970.
        alive: False where the process was killed: it left the file.
    """

    name: str
    kind: str
    scenario: str
    seed: str
    proposers: str
    what: str
    done: int
    total: int
    failed: int
    started_at: float
    updated_at: float
    alive: bool

    @property
    def left_s(self) -> float | None:
        """About how many seconds are left, if it goes on as it did; None before there is anything to go by."""
        if not self.done or self.total < self.done:
            return None
        return (self.updated_at - self.started_at) / self.done * (self.total - self.done)


class Telling:
    """Keeps one file up to date, from here to the end of its block.

    A killed process leaves its file; the next one of the same name replaces it.
    """

    def __init__(
        self, folder: Path, name: str, total: int, said: Mapping[str, Any], clock: Callable[[], float]
    ) -> None:
        """`said` has kind, scenario, seed, proposers and what; `clock` gives seconds since 1970."""
        self.path = folder / f"{name}{ENDING}"
        self.said = {**said, "total": total, "pid": os.getpid(), "host": socket.gethostname()}
        self._clock = clock
        self._begun = clock()
        self._next = self._begun
        self._is_there = False

    def __enter__(self) -> Self:
        self.tell(0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_there:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)

    def tell(self, done: int, failed: int = 0) -> None:
        """So much is done, of which so many failed. Where the folder is not there yet, nothing is written."""
        now = self._clock()
        if now < self._next or not self.path.parent.is_dir():
            return
        self._next = now + EVERY_S
        found = {**self.said, "done": done, "failed": failed, "started_at": self._begun, "updated_at": now}
        part = self.path.with_name(f".writing-{self.path.name}.{os.getpid()}")
        with suppress(OSError):
            part.write_text(json.dumps(found), encoding="utf-8")
            part.replace(self.path)
            self._is_there = True


def read(folder: Path, now: float) -> list[Underway]:
    """What is under way in a folder, in order of name; what cannot be read is left out. `now`: seconds since 1970."""
    found = []
    for path in sorted(folder.glob(f"*{ENDING}")):
        with suppress(OSError, ValueError, TypeError, KeyError):
            if path.stat().st_size <= LARGEST:
                said = json.loads(path.read_text(encoding="utf-8"))
                if isinstance(said, dict):
                    found.append(_said(path.name.removesuffix(ENDING), said, now))
    return found


def _said(name: str, said: Mapping[str, Any], now: float) -> Underway:
    kind, scenario, seed, proposers, what = (
        str(said.get(key, ""))[:200] for key in ("kind", "scenario", "seed", "proposers", "what")
    )
    done, total, failed = (int(said.get(key, 0)) for key in ("done", "total", "failed"))
    begun, updated = float(said["started_at"]), float(said["updated_at"])
    works = _works(said, now - updated)
    return Underway(name, kind, scenario, seed, proposers, what, done, total, failed, begun, updated, works)


def _works(said: Mapping[str, Any], silent_s: float) -> bool:
    """Whether the process still works, given how long it has said nothing."""
    if said.get("host") != socket.gethostname():
        return silent_s < ELSEWHERE_S
    try:
        os.kill(int(said["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's, and there
        return True
    return True
