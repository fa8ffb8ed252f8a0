"""What all pages share: which there are, who looks, what the API answers, links, tables, and how stale data are said.

A page is a module of `dashboard/pages` with a function `show()`, named in `PAGES`. It

- reads the URL by `written` and `picked`, or by widgets with `bind="query-params"`, or with `param`, so that every view
  is a link and the address the one place where its state is; it leads elsewhere with `link` (shown) or `go` (at once),
  never with an address put together by hand;
- asks the API with `read`, which keeps answers, says what is wrong where there is none, and notes how old it is;
- writes amounts, times and what others wrote with `dashboard.text`: `safe` in all that is Markdown, `block` for long.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple
from urllib.parse import quote

import pandas as pd
import streamlit as st
from streamlit.errors import StreamlitSecretNotFoundError

from dashboard import text
from dashboard.client import Answer, Api, Away, Refused
from gridgov import settings

FRAME_FRESH_S = 5.0
"""What stands around every page may be so old."""


class Entry(NamedTuple):
    """A page in the navigation: its title, and whether it is of production."""

    title: str
    production: bool


PAGES = {
    "today": Entry("Today", True),
    "proposals": Entry("Proposals", True),
    "ledger": Entry("Ledger", True),
    "journal": Entry("Journal", True),
    "actors": Entry("Actors", True),
    "prompts": Entry("Prompts", True),
    "operate": Entry("Operate", True),
    "runs": Entry("Runs", False),
    "run": Entry("Run", False),
    "compare": Entry("Compare", False),
    "sweeps": Entry("Sweeps", False),
}
"""Every page by the last part of its address, in the order of the navigation; the first one is shown at `/`, too."""


ROWS_SEEN, ROW_PX, HEAD_PX = 20, 35, 38
"""A table shows so many rows before it is to be scrolled; how high they are."""

ALIVE = frozenset({"today"})
"""Pages that draw themselves anew, with what stands above them: they call `begin` themselves."""


def page(name: str) -> Any:
    """The page of this name, for `st.navigation` and links. Its module is loaded when it is shown."""
    entry = PAGES[name]
    return st.Page(partial(_show, name), title=entry.title, url_path=name)


def _show(name: str) -> None:
    entry = PAGES[name]
    st.session_state.update(page=name, links=0)
    st.title(entry.title)
    if entry.production and name not in ALIVE and not begin():
        return
    import_module(f"dashboard.pages.{name}").show()
    older = st.session_state.pop("stale", None)
    if older is not None:
        st.caption(f"Part of this page is what the API answered last, {text.when(older[0], now())}: it is away.")


def _home() -> None:
    _show("today")


def navigation() -> dict[str, list[Any]]:
    """The pages under their headings."""
    home = st.Page(_home, title="Today", default=True, url_path="home", visibility="hidden")
    return {
        "Production": [home, *(page(name) for name, entry in PAGES.items() if entry.production)],
        "Runs": [page(name) for name, entry in PAGES.items() if not entry.production],
    }


# --- links ------------------------------------------------------------------------------------------------------------


def param(name: str, default: str = "") -> str:
    """A parameter of this page's address."""
    return str(st.query_params.get(name, default))


def set_param(name: str, value: object | None) -> None:
    """Puts a parameter into this page's address; None and the empty text take it out."""
    if value is None or value == "":
        st.query_params.pop(name, None)
    elif st.query_params.get(name) != str(value):
        st.query_params[name] = str(value)


def _named(params: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in params.items() if value is not None and value != ""}


def link(name: str, label: str, **params: object) -> None:
    """A link to a page with these parameters. `label` is Markdown: what others wrote goes through `text.safe`."""
    if name != st.session_state.get("page"):
        st.page_link(page(name), label=label, query_params=_named(params))
        return
    # A link of Streamlit's to the page that is shown leaves the address as it was: so this is a button that changes it.
    number = st.session_state["links"] = st.session_state.get("links", 0) + 1
    st.button(
        label, key=f"link-{name}-{number}", type="tertiary", on_click=st.query_params.from_dict, args=(_named(params),)
    )


def go(name: str, **params: object) -> None:
    """Leads to a page with these parameters, at once."""
    if name == st.session_state.get("page"):
        st.query_params.from_dict(_named(params))
        st.rerun()
    st.switch_page(page(name), query_params=_named(params))


# --- who looks, and what the API answers ------------------------------------------------------------------------------


def now() -> float:
    """Seconds since 1970."""
    return time.time()


def secret(*path: str) -> Any:
    """What the deployment's Streamlit secrets hold under this path, or None."""
    try:
        found: Any = st.secrets
        for step in path:
            found = found[step]
    except (KeyError, StreamlitSecretNotFoundError):
        return None
    return found


def signed_in() -> bool:
    """Whether this person may look at all: always, unless sign-in is configured (`[auth]` in Streamlit's secrets)."""
    return secret("auth") is None or bool(st.user.get("is_logged_in"))


def email() -> str | None:
    """The address of who signed in; None where there is none, or whoever keeps it says that it was never checked."""
    found = st.user.get("email")
    checked = str(st.user.get("email_verified", True)).lower() != "false"
    return str(found) if found and checked else None


def key() -> str | None:
    """The key that this session calls the API with: typed in, that of who signed in, or that of the environment.

    Where sign-in is configured the environment's is nobody's: who has none in `[keys]` calls without one.
    """
    typed = st.session_state.get("key")
    if typed:
        return str(typed)
    if not signed_in():
        return None
    if secret("auth") is None:
        return settings.load().api_key
    who = email()
    own = secret("keys", who) if who is not None else None
    return str(own) if own else None


@st.cache_resource(max_entries=64, show_spinner=False)
def _api(url: str, own: str | None) -> Api:
    return Api(url, own)


def api() -> Api:
    """The API as this session calls it."""
    return _api(settings.load().api_url, key())


def ask(path: str, fresh_s: float = 2.0, **query: Any) -> Answer:
    """What the API answers, as `client.Api.get`; what is old is noted for the stamp. Raises Away, Refused."""
    found = api().get(path, fresh_s, **query)
    if found.stale:
        st.session_state["stale"] = (found.at, found.stale)
    return found


def read(path: str, fresh_s: float = 2.0, **query: Any) -> Any:
    """The body of what the API answers; None where there is none, and then the page says why."""
    try:
        return ask(path, fresh_s, **query).body
    except Refused as refused:
        st.warning(f"The API refuses this (HTTP {refused.status}): {text.safe(refused, 400)}")
    except Away as away:
        st.error(f"This cannot be shown now: {text.safe(away, 400)}. Load the page again in a moment.")
    return None


def me() -> dict[str, Any]:
    """Whose key this is: `name`, `scopes`, `mandate`; empty where nobody knows."""
    try:
        found = ask("/v1/me", FRAME_FRESH_S).body
    except (Refused, Away):
        return {}
    return found if isinstance(found, dict) else {}


def may(scope: str) -> bool:
    """Whether this session's key may do this; the API decides, the page merely leaves out what would be refused."""
    return scope in me().get("scopes", ())


def summary(hours: int = 24, fresh_s: float = FRAME_FRESH_S) -> dict[str, Any] | None:
    """What there is to say about now and the last hours, as `GET /v1/summary`; None where it cannot be had."""
    try:
        found = ask("/v1/summary", fresh_s, hours=hours)
    except (Refused, Away):
        return None
    return aged(found.body, now() - found.at) if isinstance(found.body, dict) else None


def aged(said: Any, seconds: float) -> Any:
    """What the API said so many seconds ago, as it is now: each `age_seconds` has grown by as much."""
    if isinstance(said, list):
        return [aged(one, seconds) for one in said]
    if not isinstance(said, dict):
        return said
    return {
        name: float(own) + max(0.0, seconds) if name == "age_seconds" else aged(own, seconds)
        for name, own in said.items()
    }


def units() -> dict[str, str]:
    """The unit of each resource."""
    found = summary() or {}
    return {own["resource"]: own["unit"] for own in found.get("resources", [])}


# --- the frame --------------------------------------------------------------------------------------------------------


def sidebar() -> None:
    """Whose key looks, and a form for another one."""
    with st.sidebar:
        if secret("auth") is not None:
            if signed_in():
                st.button("Sign out", on_click=st.logout, width="stretch")
            else:
                st.button("Sign in", on_click=st.login, type="primary", width="stretch")
        own = me() if key() else {}
        who = f"Looking with the key {text.safe(own['name'])} ({', '.join(own['scopes'])})." if own else ""
        st.caption(who or "No key is in use: runs can be looked at, production cannot.")
        with st.expander("Use another key" if own else "Sign in with a key", expanded=False):
            sign_in("sidebar")


def sign_in(place: str) -> None:
    """A form for a key, which stays in this session's memory and is gone with it."""
    with st.form(f"sign-in-{place}", border=False):
        typed = st.text_input("Key", type="password", placeholder="gridgov_…", autocomplete="off", key=f"typed-{place}")
        if st.form_submit_button("Use it", width="stretch"):
            st.session_state["key"] = typed.strip()
            st.rerun()
    if st.session_state.get("key") and st.button("Forget the key", key=f"forget-{place}", width="stretch"):
        del st.session_state["key"]
        st.rerun()


def begin(hours: int = 24) -> Answer | None:
    """What stands above every page of production: how old it is, whether it is paused, whether it adds up.

    The summary that says so; None where nothing can be shown, and then it has said what to do.
    """
    st.session_state.pop("stale", None)
    try:
        found = ask("/v1/summary", FRAME_FRESH_S, hours=hours)
    except Refused as refused:
        _refused(refused)
        return None
    except Away as away:
        _away(away)
        return None
    if found.stale:
        st.error(
            f"**The API is away:** {text.safe(found.stale, 300)}. What is shown here is what it answered last, "
            f"{text.when(found.at, now())}. `gridgov doctor` says what is wrong; `gridgov up` or `gridgov serve` "
            "starts it. Nothing can be changed until it is back."
        )
    st.session_state.pop("stale", None)
    stamp(found)
    banner(found.body)
    return found


def stamp(found: Answer) -> None:
    """The line that says how old the data are."""
    head = found.body["head"]
    st.caption(
        f"Data as of {text.moment(found.at)}. Head: record {head['seq']}, digest `{str(head['digest'])[:12]}`, "
        f"written {text.when(head['at'], now())}. Open epoch: {found.body['epoch']}."
    )


def banner(found: Mapping[str, Any]) -> None:
    """What nobody may overlook on any page."""
    pause = found["paused"]
    if pause:
        by = f" by {text.safe(pause['operator'])}: {text.safe(pause['reason'], 300)}" if pause.get("operator") else ""
        st.warning(f"**Paused** since {text.when(pause['since'], now())}{by}. Every proposal is refused.")
    if not found["conservation"]["ok"]:
        sums = found["conservation"]["sums"]
        names = text.listed(text.safe(name) for name, total in sums.items() if total != 0) or "the ledger"
        what = "Pause the grid, and run `gridgov verify postgres`."
        st.error(f"**The sums do not add up**: {names}. {what}")


def _refused(refused: Refused) -> None:
    where = settings.load().api_url
    if refused.status in (401, 403):
        st.info(
            f"Production is at `{where}`, and this key may not read it ({text.safe(refused, 200)})."
            if key()
            else f"Production is at `{where}`. {_unknown()}A key is needed to look at it: `gridgov up` prints the "
            "first one, `gridgov keys create NAME --scope read` makes another. Runs need no key."
        )
        with st.container(width=420):
            sign_in("page")
        return
    if refused.status == 404:
        st.info("The API is of another version than this dashboard: start both from the same one.")
        return
    st.warning(f"The API refuses this (HTTP {refused.status}): {text.safe(refused, 400)}")


def _unknown() -> str:
    """What somebody asks for who signed in and has no key; empty where nobody signed in."""
    if secret("auth") is None or not signed_in():
        return ""
    who = email()
    if who is None:
        return (
            "You are signed in without an e-mail address that was checked, so no key is yours: ask whoever runs your "
            "sign-in to have your address verified. "
        )
    line = f'"{who}" = "gridgov_..."'
    return (
        f"You are signed in as {text.safe(who)}, who has no key here: ask whoever runs this dashboard for a line "
        f"{text.safe(line, 400)} in `[keys]` of its secrets. "
    )


def _away(away: Away) -> None:
    st.info(
        f"No production can be seen here: {text.safe(away, 300)}.\n\n"
        "- `gridgov up` brings one up on this machine, with this dashboard beside it.\n"
        "- `gridgov dashboard --api http://HOST:PORT` shows one that runs elsewhere; `GRIDGOV_API_KEY` is its key.\n"
        "- `gridgov doctor` says what is wrong with one that should be here.\n"
        "- Runs need no production: `gridgov run scenarios/seed.yaml` makes the first one."
    )
    link("runs", "Look at the runs")


# --- what pages draw with ---------------------------------------------------------------------------------------------


def block(said: str | None, empty: str = "nothing", most: int = 20_000) -> None:
    """Text that others wrote, as it is, in lines of its own; what would turn or hide it is written out."""
    if not said:
        st.caption(f"({empty})")
        return
    more = len(said) - most
    st.code(
        text.lines(said[:most]) + (f"\n… and {more:,} more characters" if more > 0 else ""),
        language=None,
        wrap_lines=True,
    )


def table(
    rows: Iterable[Mapping[str, Any]],
    name: str,
    *,
    columns: Mapping[str, Any] | None = None,
    chosen: Callable[[int], None] | None = None,
    empty: str = "Nothing to show.",
    height: int | str | None = None,
) -> None:
    """A table of text and numbers as they are; `chosen(row)` is called when a row is clicked.

    The columns are those of `columns`, in its order: their headings, or what `st.column_config` has for them.
    """
    frame = pd.DataFrame(list(rows))
    if frame.empty:
        st.caption(empty)
        return
    order = list(columns) if columns else list(frame.columns)
    height = height or min(len(frame), ROWS_SEEN) * ROW_PX + HEAD_PX
    shown: dict[str, Any] = {"hide_index": True, "column_config": dict(columns or {}), "column_order": order}
    shown["placeholder"] = ""
    if chosen is None:
        st.dataframe(frame, height=height, **shown)  # type: ignore[arg-type]
        return

    # Each choice is made in a table of its own: one that comes back would bring the old choice with it.
    times = st.session_state.get(f"chosen-{name}", 0)
    place = f"{name}-{times}"

    def selected() -> None:
        rows_picked = st.session_state[place]["selection"]["rows"]
        if rows_picked:
            st.session_state[f"chosen-{name}"] = times + 1
            chosen(rows_picked[0])

    st.dataframe(frame, key=place, on_select=selected, selection_mode="single-row", height=height, **shown)  # type: ignore[arg-type]


# --- fields whose value is in the address -----------------------------------------------------------------------------


def _bound(name: str, value: str, resets: Iterable[str]) -> dict[str, Any]:
    """What makes a widget show a parameter of the address, and write it there; `resets` are taken out with a change."""
    place = f"field-{name}"
    if st.session_state.get(place) != value:  # else what somebody writes right now would be overwritten
        st.session_state[place] = value

    def changed() -> None:
        set_param(name, st.session_state[place])
        for other in resets:
            set_param(other, None)

    return {"key": place, "on_change": changed}


def written(name: str, label: str, resets: Iterable[str] = (), **options: Any) -> str:
    """A field for text whose value is the parameter `name`."""
    own = _bound(name, param(name), resets)
    return (st.text_input(label, **own, **options) or "").strip()


def picked(
    name: str,
    label: str,
    options: Mapping[str, str],
    resets: Iterable[str] = (),
    across: bool = False,
    **more: Any,
) -> str:
    """A choice whose value is the parameter `name`; the first option stands where the address has none of them.

    `options` are shown by their values, as Markdown where they stand across the page: then `text.safe` is needed.
    """
    names, there = list(options), param(name)
    own = _bound(name, there if there in options else names[0], resets)
    draw: Any = st.segmented_control if across else st.selectbox
    extra = {"required": True} if across else {}
    found = draw(label, names, format_func=lambda each: options.get(each, each), **own, **extra, **more)
    return str(found or names[0])


def fresh_key() -> str:
    """An Idempotency-Key that nobody had before."""
    return uuid.uuid4().hex


def quoted(name: str) -> str:
    """A name as a part of a path of the API."""
    return quote(name, safe="")
