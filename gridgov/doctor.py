"""What an operator looks at first: database, grid, loop, keys, clock, disk, app; each with what to do about it."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from gridgov.auth import Keys
from gridgov.errors import GridgovError
from gridgov.postgres import Reader
from gridgov.settings import Settings
from gridgov.wire import timestamp

LOOP_S = 20 * 60
"""A loop that decided nothing for so long has stopped."""

CLOCK_S = 5.0
"""Clocks that differ by more than this are wrong."""

ROOM = 1 << 30
"""Bytes that should be free."""

OLDEST = 15
"""The oldest major version of Postgres that the ledger runs on."""


class Finding(NamedTuple):
    """What was found of one part, in words that say what to do where it is not well."""

    part: str
    well: bool
    text: str


def examine(
    database: Callable[[], AbstractContextManager[str]], own: Settings, clock: Callable[[], int]
) -> list[Finding]:
    """Looks at everything once; a part that can't be looked at is not well."""
    findings = []
    try:
        with database() as url:
            reader = Reader(url, own.grid, 1)
            try:
                findings += [*_grid(reader, own), _loop(reader, clock()), _keys(url, own), _clock(reader, clock)]
            finally:
                reader.close()
    except GridgovError as error:
        findings.append(Finding("database", False, str(error)))
    return [*findings, _disk(own), _app(own)]


def _grid(reader: Reader, own: Settings) -> list[Finding]:
    [server] = reader.rows("server")
    version = server["version"]
    if version < OLDEST * 10_000:
        return [Finding("database", False, f"is Postgres {version // 10_000}; {OLDEST} is the oldest that will do")]
    if not reader.rows("writable")[0]["writable"]:
        text = "is read-only, or the role gridgov_app lacks its rights; run `gridgov migrate`, or write to the primary"
        return [Finding("database", False, text)]
    found = [Finding("database", True, f"Postgres {version // 10_000} answers, and grid {own.grid} is migrated")]
    if reader.record(1) is None:
        text = "has no first record; begin it with `gridgov migrate --scenario FILE`"
        return [*found, Finding("grid", False, text)]
    state = reader.look(lambda state: (state.epoch, state.seq, state.entries, state.paused, len(state.holds)))
    epoch, seq, entries, paused, holds = state
    text = f"epoch {epoch} is open; {seq:,} records, {entries:,} entries, {holds} held"
    if paused:
        return [*found, Finding("grid", False, f"{text}; it is paused: find out why in the journal, then resume it")]
    return [*found, Finding("grid", True, text)]


def _loop(reader: Reader, now: int) -> Finding:
    rows = reader.rows("last_outcome")
    if not rows:
        return Finding("loop", False, "nothing was ever proposed; start the loop, or ask GET /v1/context by hand")
    age = max(0, now // 1_000_000 - int(rows[0]["at"].timestamp()))
    text = f"the last outcome is {age // 60} min old (record {rows[0]['seq']})"
    if age > LOOP_S:
        return Finding("loop", False, f"{text}; see whether n8n runs, and what its last executions say")
    return Finding("loop", True, text)


def _keys(url: str, own: Settings) -> Finding:
    store = Keys(url, own.grid)
    try:
        good = [view for view in store.listing() if view.revoked_at is None]
    finally:
        store.close()
    for scope in ("operate", "propose"):
        if not any(scope in view.scopes or "operate" in view.scopes for view in good):
            return Finding("keys", False, f"none may {scope}; make one: gridgov keys create NAME --scope {scope}")
    return Finding("keys", True, f"{len(good)}: {', '.join(view.name for view in good)}")


def _clock(reader: Reader, clock: Callable[[], int]) -> Finding:
    before = clock()
    there = int(reader.rows("server")[0]["now"].timestamp() * 1_000_000)
    apart = max(before - there, there - clock(), 0) / 1_000_000
    ahead = (reader.look(lambda state: state.at) - clock()) / 1_000_000
    if apart > CLOCK_S:
        return Finding("clock", False, f"{apart:.0f} s from the database's; set both by NTP")
    if ahead > CLOCK_S:
        return Finding(
            "clock", False, f"{ahead:.0f} s behind the last record, as which new ones are dated; set it by NTP"
        )
    return Finding("clock", True, f"{timestamp(before)[:19]}Z, as the database's")


def _disk(own: Settings) -> Finding:
    folders = {folder: shutil.disk_usage(_there(folder)).free for folder in (own.runs, own.home)}
    folder, free = min(folders.items(), key=lambda item: item[1])
    text = f"{free / (1 << 30):.1f} GiB free in {folder}"
    return Finding("disk", free >= ROOM, text if free >= ROOM else f"{text}; make room, or move it")


def _there(folder: Path) -> Path:
    """The folder, or the nearest above it that there is."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())


def _app(own: Settings) -> Finding:
    try:
        with urllib.request.urlopen(f"{own.api_url}/readyz", timeout=5) as answer:
            warnings = json.load(answer).get("warnings")
        if warnings:
            return Finding("app", False, f"{own.api_url} is ready, but cannot ask: {'; '.join(map(str, warnings))}")
        return Finding("app", True, f"{own.api_url} is ready")
    except urllib.error.HTTPError as error:
        return Finding("app", False, f"{own.api_url} answers {error.code} to /readyz; see its log")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Finding(
            "app",
            False,
            f"{own.api_url} does not answer ({reason}); run `gridgov serve` or "
            "`gridgov up`, or say where it is: GRIDGOV_API_URL",
        )
