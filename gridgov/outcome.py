"""An outcome as programs and people read it: its JSON, and the text of its Linear issue; nothing is looked up here.

What others wrote (names, reasoning) is shown as text: in code spans and fenced blocks that it cannot leave.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from gridgov.amounts import plain, plain_decimal, to_json
from gridgov.journal import Decision, JournalRecord, Override, Payload, Reversal, Settlement
from gridgov.model import BOUNDARY, Outcome, Resource, Transfer, Violation, uuid5
from gridgov.wire import Json, timestamp, violation_json
from gridgov.words import words

Outcomes = Decision | Settlement | Override | Reversal
"""The payloads that have an outcome."""

Pair = tuple[str, str]
"""An actor and a resource."""

Resources = Mapping[str, Resource]
Balances = Mapping[Pair, tuple[int, int]]
"""Before and after, in minor units."""


class Reply(NamedTuple):
    """Whose reply a proposal came of: the model that it names, and whether no model ever gave it (`SYNTHETIC`)."""

    model: str
    origin: str


SYNTHETIC = "synthetic"
"""The origin of a reply that a policy or a person made."""

PRIORITY = {
    Outcome.UNAVAILABLE: 2,
    Outcome.HELD: 2,
    Outcome.REJECTED: 3,
    Outcome.MALFORMED: 3,
    Outcome.EXECUTED: 4,
    Outcome.NOOP: 4,
}
"""Linear's: 2 is high, 3 is medium, 4 is low."""

SHOWN = 50
"""Most rows of a table in an issue."""

REASONING = 5_000
"""Most characters of a reasoning in an issue."""

TITLE = 120
"""Most characters of a title."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def transfers_of(payload: Payload, decision: Decision | None = None) -> tuple[Transfer, ...]:
    """The transfers that an outcome is about, as granted; `decision` is the held one, for a settlement."""
    if isinstance(payload, Decision):
        return payload.effective
    if isinstance(payload, Settlement):
        return () if decision is None else decision.effective
    return payload.transfers if isinstance(payload, Override | Reversal) else ()


def touched(payload: Payload, decision: Decision | None = None) -> list[Pair]:
    """Whose balances are shown with an outcome: of everyone that its transfers name, in their order."""
    transfers = transfers_of(payload, decision)
    return list(dict.fromkeys((actor, t.resource) for t in transfers for actor in (t.actor_from, t.actor_to)))


def outcome_json(
    record: JournalRecord,
    *,
    decision: Decision | None,
    balances: Balances,
    resources: Resources,
    public_url: str,
    held_in: int | None = None,
    reply: Reply | None = None,
    dry_run: bool = False,
) -> Json:
    """An outcome as the API answers it; of a dry run without number, digest and issue.

    `decision` is the held decision where the record settles a hold, else None, and `held_in` its epoch. `reply` says
    whose reply it came of, where an exchange with a model was kept. `balances` of pairs that are unknown to the grid
    are left out by whoever calls.
    """
    payload = record.payload
    assert isinstance(payload, Outcomes), "what has no outcome is not told"
    found: Json = {
        "proposal_id": payload.proposal_id if not isinstance(payload, Override) else None,
        "kind": record.kind,
        "outcome": payload.outcome.value,
        "violations": [{**violation_json(v, resources), "words": words(v, resources)} for v in payload.violations],
        "entries": [] if dry_run else list(payload.entries),
        "epoch": record.epoch,
        "seq": None if dry_run else record.seq,
        "digest": None if dry_run else record.digest.hex(),
        "at": timestamp(record.at),
        "balances": [
            {
                "actor": actor,
                "resource": name,
                "before": to_json(before, resources[name].scale),
                "after": to_json(after, resources[name].scale),
            }
            for (actor, name), (before, after) in balances.items()
        ],
    }
    about = decision if decision is not None else payload
    if isinstance(about, Decision):
        found |= {"proposer": about.proposer, "n": about.n}
        if about.state_moved:
            found["state_moved"] = True
        if about.fault:
            found["fault"] = {"code": about.fault, "detail": about.detail}
        if about.held_until is not None:
            found["held_until"] = about.held_until
    if reply is not None:
        found["reply"] = reply._asdict()
    if not isinstance(payload, Decision):
        found |= {"operator": payload.operator, "reason": payload.reason}
    if dry_run:
        return {**found, "dry_run": True}
    found["url"] = _url(payload, public_url)
    found["linear"] = {
        "issue_id": _issue_id(payload, record.seq),
        "title": _title(record, payload, decision, held_in, resources),
        "description": _description(record, payload, decision, held_in, reply, balances, resources, found["url"]),
        "priority": PRIORITY[payload.outcome],
    }
    return found


def _url(payload: Outcomes, public_url: str) -> str:
    """The page of the first entry, or of the proposal where it made none."""
    if payload.entries:
        return f"{public_url}/ledger?entry={payload.entries[0]}"
    if isinstance(payload, Override) or payload.proposal_id is None:
        return f"{public_url}/journal?request={payload.request}"
    return f"{public_url}/proposals?id={payload.proposal_id}"


def _issue_id(payload: Outcomes, seq: int) -> str:
    """One issue for each proposal, whatever becomes of it; what a person does by hand has one of its own."""
    return issue_id(str(payload.proposal_id if isinstance(payload, Decision | Settlement) else payload.request or seq))


def issue_id(about: str) -> str:
    """The id of the issue about something, always the same.

    Linear takes an id from a client as a UUID of version 4, so it says that it is one.
    """
    return str(UUID(bytes=UUID(uuid5(f"linear/{about}")).bytes, version=4))


# --- words ------------------------------------------------------------------------------------------------------------

_DONE = {
    Outcome.EXECUTED: "Executed",
    Outcome.REJECTED: "Rejected",
    Outcome.HELD: "Waits for approval",
    Outcome.NOOP: "Nothing proposed",
    Outcome.MALFORMED: "No proposal in the reply",
    Outcome.UNAVAILABLE: "No reply",
}

_SETTLED = {"approve": "approved", "reject": "rejected", "expire": "expired"}

_FAULT = {
    Outcome.MALFORMED: "The reply is no proposal, so nothing of it was applied.",
    Outcome.UNAVAILABLE: "Nobody answered, so nothing was decided.",
}

_PLACE = re.compile(r"^transfers\[(\d+)\]: ")
"""How `words` names a transfer, counted from 0; people count from 1, as the table does."""

_BY_HAND = {"override": "by hand", "reversal": "taken back"}


def _amount(transfer: Transfer, resources: Resources) -> str:
    amount, resource = transfer.amount, resources.get(transfer.resource)
    if resource is None:
        return f"{amount if isinstance(amount, int) else plain_decimal(amount)} {transfer.resource}"
    text = plain_decimal(amount) if isinstance(amount, Decimal) else plain(amount, resource.scale)
    return f"{text} {resource.unit} {resource.name}"


def _title(
    record: JournalRecord, payload: Outcomes, decision: Decision | None, held_in: int | None, resources: Resources
) -> str:
    """What became of what, in one line of plain text."""
    transfers = transfers_of(payload, decision)
    said = _DONE[payload.outcome]
    if not isinstance(payload, Decision | Settlement):
        said += f" ({_BY_HAND[record.kind]})"
    if payload.violations:
        said += f" ({', '.join(dict.fromkeys(v.code.value for v in payload.violations))})"
    if transfers:
        first = transfers[0]
        said += f": {first.actor_from} to {first.actor_to}, {_amount(first, resources)}"
        said += f", and {len(transfers) - 1} more" if len(transfers) > 1 else ""
    elif isinstance(payload, Decision) and payload.fault:
        said += f": {payload.fault}"
    end = f" (epoch {record.epoch})"
    if isinstance(payload, Settlement) and held_in is not None:
        later = f" in {record.epoch}" if record.epoch != held_in else ""
        end = f" (epoch {held_in}, {_SETTLED[payload.decision]}{later})"
    line = _CONTROL.sub(" ", said)
    return (line if len(line) + len(end) <= TITLE else f"{line[: TITLE - len(end) - 3]}...") + end


def code(text: str) -> str:
    """Text as a code span that it cannot leave, on one line and in a table as well."""
    line = _CONTROL.sub(" ", text).replace("|", "\\|").strip() or " "
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    pad = " " if line[0] == "`" or line[-1] == "`" else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def fenced(text: str) -> str:
    """Text as a fenced block that it cannot leave."""
    fence = "`" * max(3, max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence}text\n{text}\n{fence}"


def table(head: Sequence[str], rows: Sequence[Iterable[str]]) -> str:
    """A table in Markdown, of at most `SHOWN` rows; the cells are Markdown already."""
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join(' --- ' for _ in head)}|"]
    lines += [f"| {' | '.join(row)} |" for row in rows[:SHOWN]]
    more = f"\n\n... and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return "\n".join(lines) + more


def _description(
    record: JournalRecord,
    payload: Outcomes,
    decision: Decision | None,
    held_in: int | None,
    reply: Reply | None,
    balances: Balances,
    resources: Resources,
    url: str,
) -> str:
    """The Markdown of an issue: what was proposed and why, what was decided and why, and what it changed."""
    about = decision if decision is not None else payload
    parts = [_summary(record, payload, about, held_in, reply)]
    transfers = transfers_of(payload, decision)
    if transfers:
        parts += ["### Proposal" if isinstance(about, Decision) else "### Transfers"]
        parts += [_transfers(transfers, about, resources)]
    if isinstance(about, Decision) and about.reasoning:
        cut = about.reasoning[:REASONING]
        more = f"\n\n... and {len(about.reasoning) - REASONING} more characters" if cut != about.reasoning else ""
        parts += ["### Reasoning", fenced(cut) + more]
    parts += ["### Verdict", _verdict(payload, about, resources)]
    if balances:
        parts += _balances(balances, resources)
    parts += ["### Ledger", _ledger(record, payload, url)]
    return "\n\n".join(parts) + "\n"


def _transfers(transfers: Sequence[Transfer], about: Payload, resources: Resources) -> str:
    """The transfers, numbered, with what was asked for beside what an allocation granted."""
    rows = [
        [str(n), code(t.actor_from), code(t.actor_to), code(_amount(t, resources))] for n, t in enumerate(transfers, 1)
    ]
    if not isinstance(about, Decision) or about.granted is None:
        return table(("transfer", "from", "to", "amount"), rows)
    asked = [code(_amount(t, resources)) for t in about.transfers]
    head = ("transfer", "from", "to", "granted", "asked for")
    return table(head, [[*row, own] for row, own in zip(rows, asked, strict=True)])


def _summary(record: JournalRecord, payload: Outcomes, about: Payload, held_in: int | None, reply: Reply | None) -> str:
    who = f", proposed by {code(about.proposer)}" if isinstance(about, Decision) else ""
    at = timestamp(record.at)[:19].replace("T", " ")
    lines = [f"**{_DONE[payload.outcome]}** in epoch {record.epoch}, {at} UTC{who}."]
    if reply is not None:
        lines.append(_replied(reply))
    if isinstance(payload, Settlement):
        when = "" if held_in is None else f" in epoch {held_in}"
        who = f" by {code(payload.operator)}: {code(payload.reason)}" if payload.operator else ""
        late = "" if payload.decision != "expire" else ": nobody decided in time"
        lines.append(f"It was held{when}, and {_SETTLED[payload.decision]}{late}{who}.")
    elif isinstance(payload, Override | Reversal):
        lines.append(f"By hand, {code(payload.operator)}: {code(payload.reason)}.")
    elif payload.held_until is not None:
        lines.append(f"A person approves or rejects it until the end of epoch {payload.held_until}; then it expires.")
    return "\n".join(lines)


def _replied(reply: Reply) -> str:
    """Whose reply it was, in a sentence."""
    name = code(reply.model[:TITLE])
    if reply.origin == SYNTHETIC:
        return f"The reply is synthetic: {name} made it, and no model ever gave it."
    return f"The reply is that of the model {name}."


def _verdict(payload: Outcomes, about: Payload, resources: Resources) -> str:
    if isinstance(about, Decision) and about.fault:
        return f"{_FAULT[payload.outcome]}\n\n- {code(about.fault)}: {code(about.detail)}"
    if payload.violations:
        more = len(payload.violations) - SHOWN
        lines = [_violated(v, resources) for v in payload.violations[:SHOWN]]
        all_of_it = "\n".join([*lines, f"- ... and {more} more"] if more > 0 else lines)
        return f"Nothing of it was applied, because:\n\n{all_of_it}"
    if payload.outcome is Outcome.NOOP:
        return "- No transfers, on purpose."
    if payload.outcome is Outcome.HELD:
        return "- No rule is broken; an amount is above what may move without a person."
    return "- No rule is broken."


def _violated(violation: Violation, resources: Resources) -> str:
    said = _PLACE.sub(lambda found: f"transfer {int(found[1]) + 1}: ", words(violation, resources))
    return f"- {code(violation.code.value)}: {code(said)}"


def _balances(balances: Balances, resources: Resources) -> list[str]:
    """The heading and the table of what everyone has that is named: before and after, or once where nothing changed."""
    changed = any(before != after for before, after in balances.values())
    rows = []
    for (actor, name), both in balances.items():
        scale, unit = resources[name].scale, resources[name].unit
        amounts = [code(f"{plain(amount, scale)} {unit}") for amount in (both if changed else both[:1])]
        rows.append([code(actor if actor != BOUNDARY else "grid (boundary)"), code(name), *amounts])
    if changed:
        return ["### Balances", table(("actor", "resource", "before", "after"), rows)]
    return ["### Balances, unchanged", table(("actor", "resource", "balance"), rows)]


def _ledger(record: JournalRecord, payload: Outcomes, url: str) -> str:
    made = payload.entries
    if made:
        numbers = f"Entry {made[0]}" if len(made) == 1 else f"Entries {made[0]} to {made[-1]}"
        first = f"{numbers}: {url}"
    else:
        first = f"No entry. More about it: {url}"
    noted = code(f"{record.seq}:{record.digest.hex()}")
    return f"{first}\n\nJournal record {noted}, as `gridgov verify --expect-head` takes it"
