"""A day's outcomes as one text: what came of them, and which of them need a person; nothing is looked up here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gridgov.model import Outcome
from gridgov.outcome import PRIORITY, SHOWN, code, issue_id, table
from gridgov.wire import Json

NEED_A_LOOK = (Outcome.UNAVAILABLE, Outcome.HELD, Outcome.MALFORMED, Outcome.REJECTED)
"""Outcomes that a person should look at, the most urgent first."""


def digest_json(
    day: str, counts: Mapping[str, int], shown: Sequence[Json], waiting: Sequence[int], public_url: str,
    synthetic: int = 0,
) -> Json:  # fmt: skip
    """The digest of a day (UTC, such as 2026-11-23), with the issue that it becomes.

    `counts` are how many outcomes of each kind there were, `shown` some of them as the API answers them, and `waiting`
    the numbers of those that were not acknowledged yet: whoever writes the issue acknowledges them. `synthetic` is to
    how many proposals no model ever gave the reply.
    """
    found = {Outcome(name): n for name, n in counts.items() if n}
    look = sum(found.get(outcome, 0) for outcome in NEED_A_LOOK)
    total = sum(found.values())
    told = f"{total} {'outcome' if total == 1 else 'outcomes'}"
    more = f"{look} {'needs' if look == 1 else 'need'} a look" if look else "none needs a look"
    url = f"{public_url}/proposals"
    return {
        "kind": "digest",
        "day": day,
        "counts": {outcome.value: n for outcome, n in found.items()},
        "seqs": list(waiting),
        "url": url,
        "linear": {
            "issue_id": issue_id(f"digest/{day}"),
            "title": f"{day}: {told}, {more}",
            "description": _description(day, told, found, shown, look, synthetic),
            "priority": min((PRIORITY[outcome] for outcome in found), default=4),
        },
    }


def _description(
    day: str, told: str, counts: Mapping[Outcome, int], shown: Sequence[Json], look: int, synthetic: int
) -> str:
    parts = [f"**{told}** on {day} (UTC)."]
    if synthetic:
        parts[0] += f"\nReplies that are synthetic, which no model ever gave: {synthetic}."
    parts.append(table(("outcome", "how many"), [(code(o.value), str(counts[o])) for o in Outcome if o in counts]))
    for title, wanted, total in (
        ("To look at", True, look),
        ("The others", False, sum(counts.values()) - look),
    ):
        rows = [one for one in shown if (Outcome(one["outcome"]) in NEED_A_LOOK) == wanted]
        if rows:
            lines = [(one["at"][11:19], code(one["linear"]["title"]), one["url"]) for one in rows]
            cut = f"\n\n... and {total - len(rows)} more" if total > len(rows) else ""
            parts += [f"### {title}", table(("when", "what", "where"), lines) + cut]
    return "\n\n".join(parts) + "\n"


MOST = SHOWN
"""Most outcomes of a digest that are told one by one."""
