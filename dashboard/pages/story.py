"""The story of one proposal, entry or record: what was seen, said, judged and moved, for whoever asks why."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import streamlit as st

from dashboard import frame, text

Json = dict[str, Any]

BOUNDARY = "grid"
"""The one actor that stands for all that is outside."""

TOKENS = {"tokens_in": "prompt", "tokens_out": "answer", "tokens_thought": "thoughts"}

SETTLED = {"approve": "approved", "reject": "rejected", "expire": "expired: nobody decided in time"}


def named(actor: str | None) -> str:
    """An actor's name, as text."""
    return "outside (grid)" if actor == BOUNDARY else text.plain(actor or "nobody", 80)


def _kind(words: Mapping[str, str], kind: str) -> str:
    """A kind in words, as Markdown."""
    return words[kind] if kind in words else text.safe(kind)


def _json(value: Any) -> str:
    """JSON for reading, numbers as they are."""
    return json.dumps(value, ensure_ascii=False, indent=2, default=_number)


def _number(value: Any) -> Any:
    assert isinstance(value, Decimal), "all else is JSON"
    return int(value) if value == value.to_integral_value() else float(value)


# --- a proposal -------------------------------------------------------------------------------------------------------


def proposal(id_: str) -> None:
    """Draws a proposal's story, or says that there is none."""
    own = text.id_of(id_)
    if own is None:
        st.warning(f"{text.safe(id_)} is no id of a proposal: those are UUIDs, of 36 characters.")
        return
    found = frame.read(f"/v1/proposals/{own}/story")
    if found is None:
        return
    units = frame.units()
    who = f"proposed by {text.safe(found['proposer'])} in epoch {found['epoch']}"
    shadow = " This is a shadow's: it was judged and never applied." if found["shadow"] else ""
    st.subheader(f"{text.outcome(found['outcome'])}: {who}")
    st.caption(f"{text.when(found['at'], frame.now())}. Proposal `{found['proposal_id']}`.{shadow}")
    _reversed(found)
    _acts(found)
    _said(found, units)
    _judged(found, units)
    _moved(found["moved"], units)
    if found["settled"]:
        _settled(found["settled"], units, found["said"].get("transfers", []))
    _seen(found)
    _written(found)


def _reversed(found: Json) -> None:
    for back in found["reversed"]:
        word = "entry" if len(back["reverses"]) == 1 else "entries"
        entries = f"{word} {text.listed(map(str, back['reverses']))}"
        st.warning(
            f"**Taken back** {text.when(back['at'], frame.now())} by {text.safe(back['operator'])} "
            f"({text.safe(back['reason'], 300)}): {entries}, by record {back['seq']}."
        )


def _acts(found: Json) -> None:
    """What a person may do about it."""
    if not frame.may("operate") or found["shadow"]:
        return
    if found["outcome"] == "held":
        frame.link("operate", "Approve or reject it", act="held", id=found["proposal_id"])
    elif found["moved"]["entries"] or (found["settled"] and found["settled"]["moved"]["entries"]):
        frame.link("operate", "Take it back", act="reverse", id=found["proposal_id"])


def _said(found: Json, units: dict[str, str]) -> None:
    st.markdown("#### What it said")
    said = found["said"]
    rows = [
        {"from": named(t["from"]), "to": named(t["to"]), "resource": text.plain(t["resource"]),
         "amount": text.amount(t["amount"], units.get(t["resource"], ""))}
        for t in said.get("transfers", [])
    ]  # fmt: skip
    fault = said.get("fault")
    if fault:
        st.caption(f"It was no proposal: {text.safe(fault['code'])}.")
        frame.block(fault.get("detail"), "no detail was kept")
    else:
        frame.table(rows, "said", columns={"from": "From", "to": "To", "amount": "Amount", "resource": "Resource"},
                    empty="It proposed no transfers, on purpose.")  # fmt: skip
    if said.get("reasoning"):
        st.caption("Its reasoning, as it came:")
        frame.block(said["reasoning"])
    if said.get("raw"):
        with st.expander("The raw reply"):
            frame.block(said["raw"], most=100_000)


def violations(found: list[Json], units: dict[str, str], asked: list[Json]) -> None:
    """Draws the rules that were broken, each with its limit and what it was; `asked` are the transfers."""
    rows = [
        {
            "rule": violation["code"], "where": violation["path"], "words": text.plain(violation["words"], 400),
            "limit": _value(violation, "limit", units, asked), "actual": _value(violation, "actual", units, asked),
        }
        for violation in found
    ]  # fmt: skip
    frame.table(
        rows, "violations",
        columns={
            "rule": "Rule", "limit": "Limit", "actual": "Actual",
            "words": st.column_config.TextColumn("In words", width=460),
        },
    )  # fmt: skip


def _value(violation: Json, name: str, units: dict[str, str], asked: list[Json]) -> str:
    """A limit, or what it was, with the unit of the transfer that it is about."""
    value = violation.get(name)
    if isinstance(value, str):
        return text.plain(value)
    place = re.match(r"transfers\[(\d+)\]", violation["path"])
    about = asked[int(place[1])]["resource"] if place is not None and int(place[1]) < len(asked) else ""
    return text.amount(value, units.get(about, ""))


def _judged(found: Json, units: dict[str, str]) -> None:
    st.markdown("#### How it was judged")
    judged = found["judged"]
    if judged["violations"]:
        violations(judged["violations"], units, found["said"].get("transfers", []))
    elif judged["outcome"] == "held":
        until = judged.get("held_until")
        end = f" until the end of epoch {until}" if until is not None else ""
        st.write(f"No rule is broken; an amount is above what may move without a person. It waits for one{end}.")
    elif judged["outcome"] in ("malformed", "unavailable"):
        st.write("There was nothing to judge.")
    else:
        st.write("No rule is broken.")
    if judged.get("granted"):
        st.caption("An allocation granted:")
        st.text(text.transfers(judged["granted"], units, 50))
    if found["seen"].get("moved_since"):
        st.caption("Balances had moved since the proposer looked; it was judged on those of that moment.")


def _moved(moved: Json, units: dict[str, str], heading: str = "#### What it moved") -> None:
    st.markdown(heading)
    if not moved["entries"] and not moved["balances"]:
        st.write("Nothing.")
        return
    balances(moved["balances"], units)
    for entry in moved["entries"][:20]:
        frame.link("ledger", f"Ledger entry {entry['id']}", entry=entry["id"])


def balances(found: list[Json], units: dict[str, str]) -> None:
    """Draws balances before and after."""
    rows = []
    for own in found:
        unit = units.get(own["resource"], "")
        before, after = (Decimal(str(own[name])) for name in ("before", "after"))
        rows.append({
            "actor": named(own["actor"]), "resource": text.plain(own["resource"]), "before": text.amount(before, unit),
            "after": text.amount(after, unit), "change": text.change(after - before, unit),
        })  # fmt: skip
    frame.table(rows, "balances", columns={"actor": "Actor", "resource": "Resource", "before": "Before",
                                           "after": "After", "change": "Change"})  # fmt: skip


def _settled(settled: Json, units: dict[str, str], asked: list[Json]) -> None:
    st.markdown("#### How its hold ended")
    who = f" by {text.safe(settled['operator'])}: {text.safe(settled['reason'], 300)}" if settled["operator"] else ""
    st.write(
        f"{str(SETTLED.get(settled['decision'], settled['decision'])).capitalize()}{who}, "
        f"{text.when(settled['at'], frame.now())}, record {settled['seq']}: "
        f"{text.outcome(settled['judged']['outcome'])}."
    )
    if settled["judged"]["violations"]:
        violations(settled["judged"]["violations"], units, asked)
    _moved(settled["moved"], units, "##### What it moved then")


def _seen(found: Json) -> None:
    st.markdown("#### What it saw")
    seen = found["seen"]
    asked = seen.get("interaction") or {}
    prompt = seen.get("prompt") or {}
    parts = [
        ("Prompt", prompt.get("name")), ("digest", (prompt.get("digest") or "")[:12]),
        ("model asked", asked.get("model_asked")), ("model that answered", asked.get("model_answered")),
        ("latency", f"{asked['latency_ms']:,} ms" if asked.get("latency_ms") is not None else None),
        ("tokens", ", ".join(f"{word} {asked[name]:,}" for name, word in TOKENS.items() if asked.get(name))),
    ]  # fmt: skip
    told = [f"{name} {text.safe(value)}" for name, value in parts if value]
    st.caption("; ".join(told) + "." if told else "A client sent it: no exchange with a model was kept.")
    with st.expander("The WorldState on which it was judged"):
        frame.block(_json(seen["world_state"]), most=200_000)
    line = asked.get("line") or {}
    sent = line if isinstance(line, dict) else {}
    for name, heading in (("system", "What the model was told (system)"), ("user", "What the model was asked (user)")):
        if sent.get(name):
            with st.expander(heading):
                frame.block(str(sent[name]), most=200_000)


def _written(found: Json) -> None:
    st.markdown("#### Where it stands")
    if found.get("digest"):
        st.caption("Journal record, as `gridgov verify --expect-head` takes it:")
        st.code(f"{found['seq']}:{found['digest']}", language=None, wrap_lines=True)
        frame.link("journal", f"Record {found['seq']}", seq=found["seq"])
    issue = found.get("linear")
    if issue:
        acked = issue.get("acknowledged")
        state = f"handed on as {text.safe(acked['reference'])} {text.when(acked['at'], frame.now())}" if acked else (
            "not handed on yet"
        )  # fmt: skip
        with st.expander(f"Its Linear issue: {state}"):
            st.text(issue["title"])
            frame.block(issue["description"])


# --- an entry ---------------------------------------------------------------------------------------------------------


def entry(number: int) -> None:
    """Draws a ledger entry and what led to it."""
    found = frame.read(f"/v1/ledger/{number}")
    if found is None:
        return
    units = frame.units()
    unit = units.get(found["resource"], "")
    st.subheader(f"Entry {number}: {text.amount(found['amount'], unit)} of {text.safe(found['resource'])}")
    st.text(f"{named(found['actor_from'])} → {named(found['actor_to'])}")
    kind = _kind(text.ENTRIES, found["kind"]).capitalize()
    st.caption(
        f"{kind}. Executed {text.when(found['executed_at'], frame.now())}, in epoch {found['epoch']}, by record "
        f"{found['seq']}."
    )
    back = found.get("reversed_by")
    if back:
        st.warning(f"**Taken back** by record {back}.")
        frame.link("journal", f"Record {back}", seq=back)
    elif frame.may("operate") and found["kind"] in ("transfer", "override", "consume", "produce", "spill", "grow"):
        frame.link("operate", "Take this entry back", act="reverse", entry=number)
    if found["proposal_id"]:
        st.divider()
        proposal(found["proposal_id"])
        return
    record_ = fetched(str(found["seq"]), "")
    if record_ is not None:
        st.divider()
        record(record_)


# --- a record ---------------------------------------------------------------------------------------------------------


def fetched(seq: str, request: str) -> Json | None:
    """A journal record by its number, or by the request that it answers; None where there is none, and that is said."""
    if request:
        own = text.id_of(request)
        found = frame.read(f"/v1/requests/{own}") if own is not None else None
        if found is None:
            st.caption("No record answers this request: what it asked for was not recorded.")
        return found
    number = text.whole(seq)
    if not number:
        st.warning(f"{text.safe(seq)} is no number of a record.")
        return None
    page = frame.read("/v1/journal", after=number - 1, limit=1)
    if page is None:
        return None
    if not page["items"] or page["items"][0]["seq"] != number:
        st.info(f"There is no record {number:,} yet.")
        return None
    return dict(page["items"][0])


def told(kind: str, payload: Json) -> str:
    """A record in one line of text."""
    by = f" by {payload['operator']}" if payload.get("operator") else ""
    reason = f": {payload['reason']}" if payload.get("reason") else ""
    if kind == "control":
        return text.plain(f"{'paused' if payload.get('paused') else 'resumed'}{by}{reason}", 200)
    if kind == "settlement":
        return text.plain(f"{SETTLED.get(payload['decision'], payload['decision'])}{by}{reason}", 200)
    if kind == "activation":
        return text.plain(f"{payload.get('prompt')} with {payload.get('model') or 'nothing'}{by}{reason}", 200)
    if kind in ("override", "reversal", "proposal"):
        codes = ", ".join(violation["code"] for violation in payload.get("violations", []))
        said = text.DONE.get(payload.get("outcome", ""), payload.get("outcome", ""))
        who = payload.get("proposer") if kind == "proposal" else None
        return text.plain(f"{said}{f' ({codes})' if codes else ''}{f', {who}' if who else by}{reason}", 200)
    if kind == "flow":
        return text.many(len(payload.get("readings", [])), f"reading of kind {payload.get('kind')}", "readings")
    return text.plain(f"{kind}{by}{reason}", 200)


def record(found: Json) -> None:
    """Draws a journal record: what it says, what it made, and the text that its digest is over."""
    payload = found["payload"]
    st.subheader(f"Record {found['seq']}: {_kind(text.RECORDS, found['kind'])}")
    st.caption(f"{text.when(found['at'], frame.now())}, in epoch {found['epoch']}.")
    st.text(told(found["kind"], payload))
    broken = payload.get("violations") or []
    if broken:
        frame.table(
            [{"rule": v["code"], "where": v.get("path", ""), "limit": str(v.get("limit", "")),
              "actual": str(v.get("actual", ""))} for v in broken],
            "record-violations",
            columns={"rule": "Rule", "limit": "Limit", "actual": "Actual", "where": "Where"},
        )  # fmt: skip
    entries = [number for number in payload.get("entries") or [] if isinstance(number, int)]
    if entries:
        _entries(entries)
    if payload.get("proposal_id"):
        frame.link("proposals", "The proposal's story", id=payload["proposal_id"])
    st.caption("Journal record, as `gridgov verify --expect-head` takes it:")
    st.code(f"{found['seq']}:{found['digest']}", language=None, wrap_lines=True)
    with st.expander("The record as it is chained (amounts in minor units)"):
        frame.block(_json(json.loads(found["body"])), most=200_000)


def _entries(numbers: list[int]) -> None:
    """Draws the entries that a record made."""
    page = frame.read("/v1/ledger", after=numbers[0] - 1, limit=min(len(numbers), 100))
    if page is None:
        return
    units = frame.units()
    wanted = set(numbers)
    items = [item for item in page["items"] if item["id"] in wanted]
    frame.table(
        [{"id": item["id"], "from": named(item["actor_from"]), "to": named(item["actor_to"]),
          "amount": text.amount(item["amount"], units.get(item["resource"], "")),
          "resource": text.plain(item["resource"])} for item in items],
        "record-entries",
        columns={"id": "Entry", "from": "From", "to": "To", "amount": "Amount", "resource": "Resource"},
    )  # fmt: skip
    for number in numbers[:5]:
        frame.link("ledger", f"Ledger entry {number}", entry=number)
