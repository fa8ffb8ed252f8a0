"""The page Prompts: what came of each version of what models were asked, a shadow beside it, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from dashboard import frame, text
from gridgov.errors import GridgovError
from gridgov.prompt import load

Json = dict[str, Any]

FRESH_S = 10.0
"""What came of thousands of calls may be so old."""

AGREEMENT = {
    "same_outcome": "the same outcome",
    "same_transfers": "the same transfers",
    "only_shadow_accepted": "only the shadow's would have been executed",
    "only_active_accepted": "only the other's was executed",
    "on_same_state": "both were shown the same state",
}
"""What a shadow's agreement says, in words."""

ROLES = {"active": "proposes", "shadow": "shadow"}


def show() -> None:
    """Draws the table of versions, and the one of `?version=`."""
    found = frame.read("/v1/prompts", FRESH_S)
    if found is None:
        return
    items = found["items"]
    if not items:
        st.info(
            "No model was asked yet, and no prompt was put in force. `gridgov prompt activate propose_transfer "
            "--model MODEL --reason WHY` puts one in force; what the default asks is `prompts/propose_transfer.j2`."
        )
        return
    _table(items)
    _notes(found)
    chosen = next((item for item in items if name(item) == frame.param("version")), items[0])
    _version(chosen)
    _beside(chosen, items)
    _words(chosen)
    if frame.may("operate"):
        frame.link("operate", "Put another prompt or model in force", act="activate")


def name(item: Json) -> str:
    """A version as the address names it."""
    digest = str(item["prompt_digest"] or "")[:16]
    return "/".join(str(part or "") for part in (item["role"], item["prompt"], digest, item["model"]))


# --- all of them ------------------------------------------------------------------------------------------------------


def _table(items: Sequence[Json]) -> None:
    frame.table(
        [_row(item) for item in items],
        "versions",
        columns={
            "prompt": "Prompt", "digest": "Digest", "model": "Model", "role": "Role", "calls": "Calls",
            "acceptance": "Accepted", "refused": "Refused", "unavailable": "No reply", "last": "Last used",
        },
        chosen=lambda row: frame.set_param("version", name(items[row])),
    )  # fmt: skip


def _row(item: Json) -> Json:
    return {
        "prompt": text.plain(item["prompt"] or "not known", 60),
        "digest": str(item["prompt_digest"] or "-")[:12],
        "model": text.plain(item["model"] or "not known", 60),
        "role": ROLES[item["role"]] + (", in force" if item["in_force"] else ""),
        "calls": item["calls"],
        "acceptance": share(item["acceptance"]),
        "refused": item["outcomes"]["rejected"],
        "unavailable": item["outcomes"]["unavailable"],
        "last": "never" if item["last"] is None else text.age(item["last"], frame.now()),
    }


def share(part: Any) -> str:
    """A share in percent; `-` where there is none."""
    return "-" if part is None else f"{float(part):.1%}"


def refusals(item: Json) -> str:
    """The rules that were broken and how often, as Markdown."""
    return ", ".join(f"`{code}` {count:,}" for code, count in item["by_code"].items()) or "-"


def _notes(found: Json) -> None:
    some = (
        ""
        if found["looked_at"] >= found["calls"]
        else f"; of {found['calls']:,}, the last {found['looked_at']:,} count"
    )
    st.caption(
        f"{text.many(found['calls'], 'call')}{some}. Accepted is the share of executed among what was judged: nothing "
        "proposed and no reply do not count. Click the box at the left of a row to see more of it."
    )


# --- one of them ------------------------------------------------------------------------------------------------------


def _version(item: Json) -> None:
    st.subheader(f"{text.safe(item['prompt'] or 'not known')} with {text.safe(item['model'] or 'not known')}")
    state = "in force" if item["in_force"] else "not in force"
    since = f", put in force {text.when(item['activated'], frame.now())}" if item["activated"] else ""
    role = (
        "It is a shadow: judged on the same states, and never applied." if item["role"] == "shadow" else "It proposes."
    )
    digest = f" Digest `{item['prompt_digest']}`." if item["prompt_digest"] else ""
    st.caption(f"{role} It is {state}{since}.{digest}")
    counts = {key: item["outcomes"].get(key, 0) for key in text.DONE}
    tiles = [(text.DONE[key].capitalize(), f"{count:,}") for key, count in counts.items() if count]
    with st.container(horizontal=True):
        st.metric("Accepted", share(item["acceptance"]), border=True, width="content")
        for label, value in tiles:
            st.metric(label, value, border=True, width="content")
    _figures(item)


def _figures(item: Json) -> None:
    tokens, latency, cost = item["tokens"], item["latency_ms"], item["cost"]
    rows = {
        "Used": f"from {text.moment(item['first'])} until {text.moment(item['last'])}" if item["first"] else "never",
        "Calls": text.number(item["calls"]),
        "Refused for": refusals(item),
    }
    if item["other_models"]:
        said = ", ".join(f"{text.safe(model)} {count:,}" for model, count in item["other_models"].items())
        rows["Not the model that was asked"] = (
            f"{said}: what is said here of this version is of another model's replies"
        )
    if item["synthetic"]:
        rows["Synthetic replies"] = f"{item['synthetic']:,}: nobody was asked for these"
    if tokens is not None:
        said = f"prompt {float(tokens['prompt']):,.0f}, answer {float(tokens['answer']):,.0f}, "
        said += f"thoughts {float(tokens['thoughts']):,.0f} ({text.many(tokens['counted'], 'call')})"
        rows["Tokens of a call, on average"] = said
    if latency is not None:
        said = f"median {float(latency['median']):,.0f} ms, mean {float(latency['mean']):,.0f} ms, "
        said += f"95 of 100 below {float(latency['p95']):,.0f} ms ({text.many(latency['counted'], 'call')})"
        rows["Latency"] = said
    if cost is not None:
        said = f"{float(cost['total']):,.4f} {cost['currency']}, {float(cost['mean']):,.6f} for a call "
        said += f"({text.many(cost['counted'], 'call')} with a known price)"
        rows["Cost"] = said
    rows["Regret"] = "not known in production; `gridgov backtest postgres` works it out"
    st.markdown("\n".join(f"- **{figure}:** {value}" for figure, value in rows.items()))


def _beside(item: Json, items: Sequence[Json]) -> None:
    """Shadows that were judged in the same rounds, or, of a shadow, how it compares with what was decided."""
    shadows = [item] if item["role"] == "shadow" else [other for other in items if other["role"] == "shadow"]
    shadows = [other for other in shadows if other["agreement"] and other["agreement"]["compared"]]
    if not shadows:
        return
    st.markdown("#### Shadow beside it" if item["role"] != "shadow" else "#### Beside what was decided")
    for other in shadows:
        own, parts = other["agreement"], []
        for key, words in AGREEMENT.items():
            parts.append(f"{words} in {own[key]:,} ({own[key] / own['compared']:.0%})")
        asked = " with ".join(text.safe(other[key] or "not known") for key in ("prompt", "model"))
        rounds = text.many(own["compared"], "round")
        st.markdown(f"- **{asked}**, of {rounds} that both were asked in: {text.listed(parts)}.")


def _words(item: Json) -> None:
    """What the prompt says, where its file is still the one that was asked with."""
    st.markdown("#### What it says")
    if not item["prompt"]:
        st.caption("Which prompt this was, nobody said.")
        return
    try:
        template = load(item["prompt"])
    except GridgovError as error:
        st.caption(f"Its file is not here: {text.safe(error, 300)}")
        return
    if template.digest != item["prompt_digest"]:
        own = str(item["prompt_digest"] or "not known")[:12]
        st.warning(
            f"The file {text.safe(template.path.name)} has changed since: its digest is `{template.digest[:12]}`, and "
            f"that of this version is `{own}`. The version control of the prompts has it."
        )
        return
    for place, (file, said) in enumerate(template.sources):
        with st.expander(text.safe(file), expanded=place == 0):
            frame.block(said)
