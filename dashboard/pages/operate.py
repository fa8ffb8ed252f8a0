"""The page Operate: what a person does to production, each as one call of the API, shown first and done once.

A form begins with a new Idempotency-Key, which stands in the address from then on. So a double click, a reload in the
middle and a lost answer all come to the same record, and the page finds out from the journal whether there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import streamlit as st

from dashboard import constraints_form, frame, text
from dashboard.client import Away, Refused
from dashboard.pages import story
from gridgov.model import Code, uuid5

Json = dict[str, Any]

ACTS = {
    "held": "Held proposals",
    "control": "Pause or resume",
    "transfer": "Transfer by hand",
    "reverse": "Take back",
    "constraints": "Constraints",
    "freeze": "Freeze an actor",
    "register": "Register an actor",
    "activate": "Prompt and model",
}

LOOKED_FOR = ("id", "entry", "actor", "done")


class Act(NamedTuple):
    """One call of the API, but for its reason: how it is called, and what the button says."""

    method: str
    path: str
    body: Json
    label: str
    shortcut: str | None = None


def show() -> None:
    """Draws the page."""
    if not frame.may("operate"):
        own = frame.me()
        st.info(
            f"The key {text.safe(own.get('name', 'in use'))} may not operate. Sign in with one that may: `gridgov up` "
            "prints the first, `gridgov keys create NAME --scope operate` makes another."
        )
        with st.container(width=420):
            frame.sign_in("operate")
        return
    chosen = frame.picked("act", "What to do", ACTS, ("once", *LOOKED_FOR), across=True, label_visibility="collapsed")
    once = _once()
    if _done(once):
        return
    FORMS[chosen](once)


# --- once -------------------------------------------------------------------------------------------------------------


def _once() -> str:
    """The key of what is being done here; it stays in the address until something new is begun."""
    there = frame.param("once")
    if len(there) == 32 and there.isalnum():
        return there
    made = frame.fresh_key()
    frame.set_param("once", made)
    return made


def _done(once: str) -> bool:
    """Draws the record that this key came to already, if it did."""
    name = str(frame.me().get("name", ""))
    request = uuid5(f"request/{len(name)}/{name}/{once}")
    try:
        found = frame.ask(f"/v1/requests/{request}", 0).body
    except Refused as refused:
        if refused.status != 404:
            st.warning(f"The API refuses to look this up: {text.safe(refused, 300)}")
        return False
    except Away as away:
        st.error(f"The API is away, and nothing can be done: {text.safe(away, 300)}.")
        return True
    outcome = found["payload"].get("outcome")
    if outcome in (None, "executed"):
        st.success(f"Done, once. It is record {found['seq']}.")
    elif outcome == "rejected" and found["payload"].get("decision") == "reject":
        st.success(f"Rejected, once. It is record {found['seq']}; nothing was moved.")
    else:
        st.warning(f"It was {text.DONE.get(outcome, outcome)}, and is record {found['seq']}; nothing was moved.")
    story.record(found)
    if st.button("Do something else", type="primary", key="else"):
        for each in ("once", *LOOKED_FOR):
            frame.set_param(each, None)
        st.rerun()
    return True


def _perform(act: Act, once: str, reason: str, shown: Callable[[Json], None]) -> bool:
    """Draws the dry run of an act and its button; does it when that is pressed. Whether it could be done."""
    body = {**act.body, "reason": reason or "not said yet"}
    try:
        dry = frame.api().act(act.method, act.path, body, once, dry_run=True)
    except Refused as refused:
        st.error(f"This cannot be done: {text.safe(refused, 500)}.")
        return False
    except Away as away:
        st.error(f"The dry run got no answer: {text.safe(away, 300)}. Nothing was done.")
        return False
    with st.container(border=True):
        st.markdown("**Dry run: what it would come to**")
        shown(dry)
    pressed = st.button(
        act.label, type="primary", disabled=not reason, shortcut=act.shortcut, key=f"do-{act.path}-{act.label}",
        help=None if reason else "Say why first: the reason is journaled.",
    )  # fmt: skip
    if not reason:
        st.caption("Say why first: the reason is journaled with the name of your key.")
    if pressed:
        _call(act, body, once)
    return True


def _call(act: Act, body: Json, once: str) -> None:
    try:
        frame.api().act(act.method, act.path, body, once)
    except Refused as refused:
        frame.api().forget()
        st.error(f"It was not done: {text.safe(refused, 500)}.")
    except Away as away:
        st.error(
            f"No answer came ({text.safe(away, 300)}), so nobody knows yet whether it was done. Press the button "
            "again: it counts once."
        )
    else:
        st.rerun()


def _reason(of: str = "") -> str:
    """A field for a reason; what is typed for one thing (`of`) does not stay for another."""
    place = f"reason-{of}-{frame.param('once')}"
    return (st.text_input("Reason", key=place, max_chars=1_000, live=True) or "").strip()


def _outcome(dry: Json) -> None:
    """Draws an outcome that would be."""
    units = frame.units()
    st.write(f"Outcome: {text.outcome(dry['outcome'])}.")
    for violation in dry["violations"]:
        st.text(text.plain(violation["words"], 400))
    if dry["outcome"] != "executed":
        st.text("Nothing would be moved.")
        return
    for own in dry["balances"]:
        unit = units.get(own["resource"], "")
        before, after = (Decimal(str(own[name])) for name in ("before", "after"))
        st.text(
            f"{story.named(own['actor'])}: {text.number(before)} → "
            f"{text.quantity(after, unit, own['resource'])} ({text.change(after - before, unit)})"
        )


# --- held proposals ---------------------------------------------------------------------------------------------------


def _held(once: str) -> None:
    found = frame.summary(fresh_s=0) or {}
    held = found.get("held", {"count": 0, "items": []})
    items, named = held["items"], frame.param("id")
    ids = [item["proposal_id"] for item in items]
    wanted = text.id_of(named) or named
    at = ids.index(wanted) if wanted in ids else None if wanted else 0
    if items:
        _queue(held, ids, at)
    else:
        st.write("Nothing waits for a person.")
    if at is None:
        _other(wanted, once)
    elif items:
        _settle(items[at], once)


def _queue(held: Json, ids: list[str], at: int | None) -> None:
    """The oldest that wait, with a mark at the one that is shown, if it is one of them."""
    items, units = held["items"], frame.units()
    more = f"; the {len(items)} oldest are shown" if held["count"] > len(items) else ""
    st.caption(f"{text.many(held['count'], 'proposal')} {'waits' if held['count'] == 1 else 'wait'}{more}.")
    frame.table(
        [
            {
                "mark": "▶" if row == at else "", "age": text.span(item["age_seconds"]),
                "left": "without end" if item["epochs_left"] is None else text.many(item["epochs_left"], "epoch"),
                "what": text.transfers(item["transfers"], units), "proposer": text.plain(item["proposer"], 60),
                "why": text.plain(item["reasoning"], 200),
            }
            for row, item in enumerate(items)
        ],
        "held",
        columns={"mark": " ", "age": "Waits for", "left": "Expires after", "what": "Transfers", "proposer": "Proposer",
                 "why": "Reasoning"},
        chosen=lambda row: frame.set_param("id", ids[row]),
    )  # fmt: skip
    before, after, _ = st.columns([1, 1, 4])
    if before.button("Previous", shortcut="Alt+Up", disabled=not at) and at:
        _turn(ids[at - 1])
    following = 0 if at is None else at + 1
    if after.button("Next", shortcut="Alt+Down", disabled=following == len(ids)):
        _turn(ids[following])


def _other(id_: str, once: str) -> None:
    """The proposal that the address names and that is none of the oldest that wait: it, or what came of it."""
    own = text.id_of(id_)
    if own is None:
        st.warning(f"{text.safe(id_)} is no id of a proposal: those are UUIDs, of 36 characters.")
        return
    found = frame.read(f"/v1/proposals/{own}", 0)
    if found is None:
        return
    if found["outcome"] == "held" and found["seq"] is not None:
        _settle({**found["proposal"], "proposal_id": own, "epoch": found["epoch"]}, once)
        return
    if found["seq"] is None:
        st.info("This proposal is a shadow's: it was judged and never applied, so there is nothing to settle.")
    elif found["decided"]["outcome"] == "held":
        st.info(f"This proposal was settled already: {_settled_how(found)}.")
    else:
        st.info(f"This proposal was never held: it was {text.DONE.get(found['outcome'], found['outcome'])}.")
    frame.link("proposals", "Its whole story", id=own)


def _settled_how(found: Json) -> str:
    """How a hold ended, and what came of it, as Markdown."""
    codes = {violation["code"] for violation in found["violations"]}
    if Code.HOLD_EXPIRED.value in codes:
        return story.SETTLED["expire"]
    by = f" by {text.safe(found['operator'])}" if found.get("operator") else ""
    if Code.HOLD_REJECTED.value in codes:
        return f"rejected{by}"
    return f"approved{by}, and {text.DONE.get(found['outcome'], found['outcome'])}"


def _turn(id_: str) -> None:
    frame.set_param("id", id_)
    frame.set_param("once", None)
    st.rerun()


def _settle(item: Json, once: str) -> None:
    """One held proposal: what it said, and the two ways to settle it."""
    id_ = item["proposal_id"]
    st.markdown(f"#### Proposal of {text.safe(item['proposer'])} in epoch {item['epoch']}")
    for line in item["transfers"]:
        st.text(text.transfers([line], frame.units()))
    frame.block(item["reasoning"], "no reasoning")
    frame.link("proposals", "Its whole story", id=id_)
    reason = _reason(id_)
    approve, reject = st.columns(2)
    with approve:
        _perform(Act("POST", f"/v1/proposals/{id_}/approve", {}, "Approve", "Alt+A"), once, reason, _outcome)
    with reject:
        _perform(Act("POST", f"/v1/proposals/{id_}/reject", {}, "Reject", "Alt+X"), once, reason, _outcome)
    st.caption("Keys: Alt+A approves, Alt+X rejects, Alt+Up and Alt+Down go through the queue.")


# --- the other acts ---------------------------------------------------------------------------------------------------


def _control(once: str) -> None:
    found = frame.summary(fresh_s=0) or {}
    paused = bool(found.get("paused"))
    st.write(
        "The grid is paused: every proposal is refused. Resuming lets proposals be judged again."
        if paused
        else "The grid runs. While it is paused, every proposal is refused; people may still act by hand."
    )
    action = "resume" if paused else "pause"
    reason = _reason()
    _perform(
        Act("POST", "/v1/control", {"action": action}, action.capitalize()), once, reason,
        lambda dry: st.write("The grid would be paused." if dry["paused"] else "The grid would run."),
    )  # fmt: skip


def _decimal(said: str) -> Decimal | None:
    """An amount that somebody typed, exactly; None where it is none. A comma is none: 1,5 is 1.5 here and 15 there."""
    try:
        found = Decimal(said.strip()) if said.strip() else None
    except InvalidOperation:
        return None
    return found if found is not None and found.is_finite() else None


def _names() -> list[str]:
    """Everyone, the boundary last."""
    found = frame.read("/v1/actors", frame.FRAME_FRESH_S)
    return [item["id"] for item in found["items"]] if found is not None else []


def _transfer(once: str) -> None:
    st.write(
        "Moves amounts by hand, whatever the constraints. It must be possible, and it is journaled with your name."
    )
    names, units = [*_names(), story.BOUNDARY], frame.units()
    giver, taker, resource, amount = st.columns(4)
    given = giver.selectbox("From", names, index=None, format_func=story.named, key=f"from-{once}")
    taken = taker.selectbox("To", names, index=None, format_func=story.named, key=f"to-{once}")
    what = resource.selectbox("Resource", list(units), key=f"resource-{once}", format_func=text.plain)
    said = amount.text_input("Amount", key=f"amount-{once}", placeholder=f"in {units.get(what, 'units')}, as 12.5")
    reason = _reason()
    much = _decimal(said)
    if said and much is None:
        st.warning("This is no amount: write it as 12.5, with a point and without commas.")
    if given is None or taken is None or much is None:
        st.caption("Choose who gives, who gets, what and how much; the dry run is shown here.")
        return
    transfers = [{"from": given, "to": taken, "resource": what, "amount": much}]
    _perform(Act("POST", "/v1/transfers", {"transfers": transfers}, "Transfer"), once, reason, _outcome)


def _reverse(once: str) -> None:
    st.write("Takes back what an entry, or a whole proposal, moved: with new entries the other way. Nothing is erased.")
    left, right = st.columns(2)
    with left:
        entry = frame.written("entry", "Ledger entry", ("id",), placeholder="its number")
    with right:
        id_ = frame.written("id", "or proposal", ("entry",), placeholder="its id")
    number, own = text.whole(entry), text.id_of(id_)
    reason = _reason(f"{number}-{own}")
    if number is not None:
        path, label = f"/v1/ledger/{number}/reverse", f"Take entry {number} back"
        frame.link("ledger", f"Entry {number}", entry=number)
    elif own is not None and not entry:
        path, label = f"/v1/proposals/{own}/reverse", "Take the proposal back"
        frame.link("proposals", "The proposal's story", id=own)
    else:
        if entry or id_:
            st.warning(f"{text.safe(entry or id_)} is no {'number of an entry' if entry else 'id of a proposal'}.")
        st.caption("Say which; the dry run is shown here.")
        return
    _perform(Act("POST", path, {}, label), once, reason, _outcome)


def _constraints(once: str) -> None:
    found = frame.read("/v1/constraints", 0)
    if found is None:
        return
    made = constraints_form.draw(found["constraints"], frame.units(), once)
    reason = _reason()
    if made is None:
        return
    if made == found["constraints"]:
        st.caption("Change something; what it would have done over the last 7 days is shown here.")
        return
    body = {"constraints": made, "expected_seq": found["seq"]}
    _perform(Act("PUT", "/v1/constraints", body, "Put in force"), once, reason, constraints_form.preview)


def _freeze(once: str) -> None:
    found = frame.read("/v1/actors", 0)
    if found is None:
        return
    states = {item["id"]: bool(item["frozen"]) for item in found["items"]}
    st.write("A frozen actor can neither give nor get by a proposal. People may still act by hand.")
    names, there = list(states), frame.param("actor")
    chosen = st.selectbox(
        "Actor", names, index=names.index(there) if there in names else None, key=f"actor-{once}",
        format_func=lambda name: f"{text.plain(name)}{' (frozen)' if states[name] else ''}",
    )  # fmt: skip
    reason = _reason()
    if chosen is None:
        st.caption("Choose an actor; the dry run is shown here.")
        return
    frozen = not states[chosen]
    _perform(
        Act("PATCH", f"/v1/actors/{frame.quoted(chosen)}", {"frozen": frozen}, "Freeze" if frozen else "Thaw"),
        once, reason, lambda _: st.write(f"{text.safe(chosen)} would be {'frozen' if frozen else 'free again'}."),
    )  # fmt: skip


def _register(once: str) -> None:
    st.write("Adds an actor with balances of 0. Names are for ever: an actor can be frozen, not taken out.")
    left, right = st.columns(2)
    name = left.text_input("Name", key=f"name-{once}", max_chars=100, placeholder="home-18")
    kind = right.text_input("Type", value="node", key=f"type-{once}", max_chars=100)
    reason = _reason()
    if not name or not kind:
        st.caption("Name it; the dry run is shown here.")
        return
    _perform(
        Act("POST", "/v1/actors", {"id": name, "type": kind}, "Register"), once, reason,
        lambda _: st.write(f"{text.safe(name)} of the type {text.safe(kind)} would join with balances of 0."),
    )  # fmt: skip


def _activate(once: str) -> None:
    found = (frame.summary() or {}).get("prompts", {})
    active = found.get("active") or {}
    st.write("Puts a prompt and a model in force, from the next round on. A shadow is judged, and never applied.")
    one, two, three = st.columns(3)
    prompt = one.text_input("Prompt", value=active.get("prompt", "propose_transfer"), key=f"prompt-{once}",
                            help="A file of prompts/, without its ending.")  # fmt: skip
    ends = "Empty ends the role: no shadow any more, or the prompt and model from the beginning."
    model = two.text_input("Model", value=active.get("model", ""), key=f"model-{once}", help=ends)
    role = three.selectbox("Role", ["active", "shadow"], key=f"role-{once}")
    reason = _reason()
    if not prompt:
        st.caption("Name a prompt; the dry run is shown here.")
        return
    body = {"prompt": prompt.strip(), "model": (model or "").strip(), "role": role}
    _perform(
        Act("POST", "/v1/activations", body, "Put in force"), once, reason,
        lambda dry: st.write(
            f"{text.safe(dry['prompt'])} (digest {text.safe(dry['prompt_digest'][:12])}) with "
            f"{text.safe(dry['model'] or 'nothing')} would be {dry['role']}."
        ),
    )  # fmt: skip


FORMS: dict[str, Callable[[str], None]] = {
    "held": _held,
    "control": _control,
    "transfer": _transfer,
    "reverse": _reverse,
    "constraints": _constraints,
    "freeze": _freeze,
    "register": _register,
    "activate": _activate,
}
