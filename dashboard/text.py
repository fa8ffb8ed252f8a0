"""How the pages write: amounts with units, times in UTC with their age, and what others wrote, as mere text.

What a page hands to `st.text`, `st.code` or a data frame is shown as it is. Everything that Streamlit reads as Markdown
(labels of buttons and metrics, titles of expanders, messages, `st.markdown`, cells of `st.table`) takes what others
wrote through `safe` only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

CUT = 120
"""Most characters of what others wrote in a label."""

DONE = {
    "executed": "executed",
    "rejected": "refused",
    "held": "held for a person",
    "noop": "nothing proposed",
    "malformed": "no proposal in the reply",
    "unavailable": "no reply",
}
"""Each outcome in words."""

MARKS = {"executed": "●", "rejected": "✕", "held": "◐", "noop": "○", "malformed": "?", "unavailable": "△"}
"""Each outcome as a sign beside its words, so that nobody has to tell colours apart."""

ENTRIES = {
    "transfer": "transfer of a proposal",
    "override": "by hand",
    "reversal": "taken back",
    "produce": "produced",
    "grow": "grown",
    "consume": "consumed",
    "spill": "spilled",
    "genesis": "opening balance",
}
"""Each kind of ledger entry in words."""

RECORDS = {
    "proposal": "proposal with its outcome",
    "settlement": "settlement of a hold",
    "override": "by hand",
    "reversal": "taken back",
    "control": "pause or resume",
    "constraints": "constraints",
    "activation": "prompt in force",
    "registration": "actors and keys",
    "flow": "flows",
    "close": "end of an epoch",
    "genesis": "the beginning",
}
"""Each kind of journal record in words."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")
_TURNING = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def plain(text: object, most: int = CUT) -> str:
    """Text on one line without what turns or hides other text, cut after so many characters."""
    line = " ".join(_CONTROL.sub(" ", str(text)).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def lines(text: str) -> str:
    """Text in lines of its own, where what would turn or hide what stands beside it is written out: `\\u202e`."""
    return _TURNING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def safe(text: object, most: int = CUT) -> str:
    """What others wrote as Markdown that shows it as it is: a code span that it cannot leave.

    No escape by character does it: emoji, icons and colours are found in the text after escapes are undone.
    """
    line = plain(text, most) or " "
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    pad = " " if line[0] == "`" or line[-1] == "`" else ""
    return f"{fence}{pad}{line}{pad}{fence}"


# --- amounts ----------------------------------------------------------------------------------------------------------


def number(value: int | float | Decimal | str | None) -> str:
    """A number with its thousands apart and no trailing zeros: `12,500.25`; `-` where there is none."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    exact = value if isinstance(value, Decimal) else Decimal(str(value))
    shown = f"{exact:,f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def amount(value: int | float | Decimal | str | None, unit: str = "") -> str:
    """An amount with its unit: `12.5 kWh`."""
    return f"{number(value)} {unit}".strip() if value is not None else "-"


def quantity(value: int | float | Decimal | str | None, unit: str, resource: str) -> str:
    """An amount of a resource: `12.5 kWh energy`, and `3 credits` where the unit says it all. As text, not Markdown."""
    name = plain(resource, 40)
    return f"{number(value)} {name}" if name.rstrip("s") == unit.rstrip("s") else f"{amount(value, unit)} {name}"


def change(value: int | float | Decimal | None, unit: str = "") -> str:
    """A change with its sign and unit: `+12.5 kWh`, `±0 kWh`."""
    if value is None:
        return "-"
    sign = "±" if value == 0 else "+" if value > 0 else "-"
    size = -value if value < 0 else value
    return f"{sign}{amount(size, unit)}"


def many(count: int, one: str, more: str | None = None) -> str:
    """A count with its noun: `1 proposal`, `14 proposals`."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def listed(parts: Iterable[str]) -> str:
    """Parts as a sentence has them: `a, b and c`."""
    some = list(parts)
    return some[0] if len(some) == 1 else f"{', '.join(some[:-1])} and {some[-1]}" if some else ""


# --- times ------------------------------------------------------------------------------------------------------------


def parsed(moment: str | float | None) -> datetime | None:
    """A time of the API (`2026-11-22T12:00:00Z`) or in seconds since 1970."""
    if moment is None or moment == "":
        return None
    if isinstance(moment, int | float):
        return datetime.fromtimestamp(moment, UTC)
    found = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def moment(at: str | float | None) -> str:
    """A time in UTC to the second: `2026-11-22 12:00:00 UTC`."""
    found = parsed(at)
    return "never" if found is None else f"{found:%Y-%m-%d %H:%M:%S} UTC"


def span(seconds: float) -> str:
    """A span of time in its largest unit, or two: `45 s`, `3 min`, `2 h 5 min`, `4 d 3 h`."""
    whole = int(abs(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min"
    large, small = (86_400, 3_600) if whole >= 86_400 else (3_600, 60)
    names = ("d", "h") if large == 86_400 else ("h", "min")
    rest = whole % large // small
    return f"{whole // large:,} {names[0]}" + (f" {rest} {names[1]}" if rest else "")


def age(at: str | float | None, now: float) -> str:
    """How long ago: `3 min ago`; `in 2 h` where it lies ahead."""
    found = parsed(at)
    if found is None:
        return "never"
    seconds = now - (found - _EPOCH).total_seconds()
    return f"{span(seconds)} ago" if seconds >= -1 else f"in {span(seconds)}"


def when(at: str | float | None, now: float) -> str:
    """A time with its age: `2026-11-22 12:00:00 UTC (3 min ago)`."""
    return "never" if parsed(at) is None else f"{moment(at)} ({age(at, now)})"


# --- sentences --------------------------------------------------------------------------------------------------------


def outcome(name: str) -> str:
    """An outcome with its sign and in words: `✕ refused`."""
    return f"{MARKS.get(name, '•')} {DONE.get(name, plain(name))}"


def transfers(asked: Sequence[dict[str, Any]], units: dict[str, str], most: int = 3) -> str:
    """Transfers in words, as text: `home-1 → home-2 12.5 kWh energy, and 2 more`; never as Markdown."""
    parts = [
        f"{plain(t['from'], 40)} → {plain(t['to'], 40)} "
        f"{quantity(t['amount'], units.get(t['resource'], ''), t['resource'])}"
        for t in asked[:most]
    ]
    more = f", and {len(asked) - most} more" if len(asked) > most else ""
    return "; ".join(parts) + more if parts else "no transfers"


def why(item: dict[str, Any], most: int = 200) -> str:
    """Why an outcome is what it is, in words and as text: the rules that it broke, the fault, or the reasoning."""
    broken = [violation["words"] for violation in item.get("violations", [])]
    if broken:
        return plain("; ".join(broken), most)
    fault = item.get("fault")
    if fault:
        code = fault.get("code") if isinstance(fault, dict) else fault
        detail = fault.get("detail") if isinstance(fault, dict) else item.get("detail")
        return plain(f"{code}: {detail}" if detail else code, most)
    said = item.get("reasoning") or item.get("proposal", {}).get("reasoning") or item.get("reason") or ""
    return plain(said, most)


# --- what an address or a field says ----------------------------------------------------------------------------------


def whole(written: str) -> int | None:
    """A number of 1 to 18 digits as it stands in an address; None where it is anything else."""
    return int(written) if written.isascii() and written.isdigit() and len(written) <= 18 else None


def id_of(written: str) -> str | None:
    """An id (a UUID) as the API writes it; None where it is none, so that nothing else gets into a path."""
    try:
        return str(UUID(written))
    except ValueError:
        return None


def instant(written: str) -> str | None:
    """A time in UTC that somebody wrote, as `2026-11-22 12:00`, in the form of the API; None where it is none."""
    said = written.strip().removesuffix("UTC").strip().replace("Z", "+00:00")
    try:
        found = datetime.fromisoformat(said)
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):  # the latter is before the year 1, or after 9999, in UTC
        return None
    return found.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
