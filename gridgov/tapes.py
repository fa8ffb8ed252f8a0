"""Production's exchanges with models become a cassette: read, numbered and written; nothing is asked or judged here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from gridgov.cassette import Interaction, Recorder, read_lines
from gridgov.errors import BadInput, Damaged
from gridgov.grid import Grid, kept, recorded, request_of
from gridgov.model import Round, Unavailable

LeftOut = Callable[[str, str], None]
"""Is told of an exchange that cannot be replayed: the id of its proposal, and why."""

SECRET = re.compile(rb"AIza[0-9A-Za-z_-]{35}|\bAQ\.[0-9A-Za-z_-]{30}|gridgov_[0-9a-f]{16}_[0-9A-Za-z_-]{43}|"
                    rb"lin_api_[0-9A-Za-z]{20}|(?i:\"(?:x-goog-api-key|authorization)\")")  # fmt: skip
"""What a key looks like (Google's in both of its forms), or a header that carries one.

No exchange in which it stands is written.
"""


class _Last(NamedTuple):
    """The last line with some content: its sample, its round, and its digest where its call had failed."""

    sample: int
    round: Round
    failed: str | None


def export_cassette(
    url: str,
    grid: str,
    out: Path,
    since: int | None = None,
    until: int | None = None,
    left_out: LeftOut | None = None,
) -> int:
    """Writes what models were asked and replied, from `since` until before `until`, as a cassette; returns its lines.

    Times are microseconds since 1970. Lines are in the order of the decisions; the same question of another round is
    its next sample, and of the same round it supersedes the call that failed. The file appears when it is complete;
    none does where there is no line. What cannot be replayed as it was decided is left out, and told. Raises BadInput
    where the file is there and is more than a synthetic cassette, or the grid is none. Memory: a page of exchanges.
    """
    lasts: dict[str, _Last] = {}
    count = 0
    recorder: Recorder | None = None
    with Grid(url, grid) as opened:
        try:
            for row in _chosen(opened, since, until):
                found = _line(row, lasts)
                if isinstance(found, str):
                    if left_out is not None:
                        left_out(row["proposal_id"], found)
                    continue
                recorder = recorder or Recorder(out)
                key, line = found[0], recorder.write(found[1])
                failed = line.digest if isinstance(line.result({}), Unavailable) else None
                lasts[key] = _Last(line.sample, line.round, failed)
                count += 1
        except BaseException:
            if recorder is not None:
                recorder.stop()
            raise
    if recorder is not None:
        recorder.finish()
    return count


def _chosen(grid: Grid, since: int | None, until: int | None) -> Iterator[dict[str, Any]]:
    """The exchanges from a time until before another, in order."""
    for page in grid.exchanges():
        for row in page:
            at = kept(row).at
            if (since is None or at >= since) and (until is None or at < until):
                yield row


def _line(row: dict[str, Any], lasts: dict[str, _Last]) -> tuple[str, Interaction] | str:
    """What identical requests share, and the line of an exchange; or why there can be none."""
    found, asked = recorded(row), request_of(row["request"], row["about"])
    if found is None or asked is None:
        return "it does not say what was asked: its request was not handed out by GET /v1/context"
    if asked.request_key != found.request_key:
        return "its request_key is not that of its request"
    if SECRET.search(found.body) or SECRET.search(row["request"]) or SECRET.search(row["about"].encode()):
        return "something in it looks like a key, or like a header that carries one"
    result = found.result({})
    if found.failure and not (isinstance(result, Unavailable) and result.kind == found.failure):
        return f"it was unavailable ({found.failure}) without a status that says so, and would be replayed as another"
    last = lasts.get(asked.content_key)
    sample, supersedes = 0, None
    if last is not None:
        again = last.failed is not None and last.round == found.round
        sample, supersedes = (last.sample, last.failed) if again else (last.sample + 1, None)
    key = asked.sampled(sample).request_key
    line = replace(found, request_key=key, sample=sample, supersedes=supersedes)
    try:
        read_lines([line.line.encode() + b"\n"])
    except (BadInput, Damaged, TypeError, UnicodeEncodeError) as error:
        return f"it makes no line of a cassette ({error})"
    return asked.content_key, line
