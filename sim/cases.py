"""Must-pass cases: a WorldState, and what the answer to it must come to; they are read here, and nobody is asked.

A file of cases is a YAML list, or JSON lines (`.jsonl`), of:

    - name: keeps to the limit                      # optional
      state: {epoch: 42, actors: [...], ...}        # a WorldState as `gridgov judge` takes it, with needs; or
      state: {source: RUN_OR_FILE, epoch: 42}       # as the first round of that epoch found it (source: default SOURCE)
      proposer: planner                             # whose turn it is; of a source: default the first
      actor: fisher-1                               # whom it speaks for; default everyone
      expect: executed                              # an outcome, outcome/code, or a list of which one must come
      at_least: 4                                   # how many samples; default all
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gridgov.errors import BadInput
from gridgov.journal import Decision
from gridgov.judge import JUDGE, read_state
from gridgov.model import Code, Outcome, Round
from gridgov.prompt import digest, exact_json
from gridgov.propose import Context
from gridgov.reply import Fault
from gridgov.source import Source
from gridgov.state import State
from gridgov.wire import Json, declared, known
from sim import strict_yaml
from sim.questions import PROMPT, PROMPT_OF_ACTOR, codes, question_of

KEYS = ("name", "state", "proposer", "actor", "expect", "at_least")
PROPOSER = "planner"

_CODES: Mapping[str, Sequence[str]] = {
    Outcome.REJECTED: [code.value for code in Code],
    Outcome.MALFORMED: [fault.value for fault in Fault],
    Outcome.UNAVAILABLE: ["quota", "transport", "auth", "config"],
}


class Case(NamedTuple):
    """A state, and what must come of the answer to it. `at_least` None is every sample."""

    name: str
    context: Context
    prompt: str
    model: str | None
    key: str
    expect: tuple[str, ...]
    at_least: int | None


class Tried(NamedTuple):
    """What came of a case: the outcomes of its samples, how many held, and how many had to."""

    name: str
    expect: tuple[str, ...]
    came: tuple[str, ...]
    held: int
    needed: int

    @property
    def passed(self) -> bool:
        """Whether as many as had to came to what was expected. A sample without any answer holds nothing."""
        return self.held >= self.needed


def tried(case: Case, decisions: Sequence[Decision]) -> Tried:
    """A case with the decisions that its samples came to."""
    held = sum(_holds(case.expect, decision) for decision in decisions)
    needed = len(decisions) if case.at_least is None else case.at_least
    return Tried(case.name, case.expect, tuple(map(told, decisions)), held, needed)


def told(decision: Decision) -> str:
    """An outcome with its first code, as `rejected/max_transfer`."""
    return "/".join([decision.outcome.value, *codes(decision)[:1]])


def _holds(expect: Sequence[str], decision: Decision) -> bool:
    outcome = decision.outcome.value
    return outcome in expect or any(f"{outcome}/{code}" in expect for code in codes(decision))


# --- reading ----------------------------------------------------------------------------------------------------------


def read(path: Path, source: Source, open_: Callable[[str], Source], samples: int) -> list[Case]:
    """The cases of a file. Raises BadInput, with the place, where it is none or a case can't be."""
    text = strict_yaml.read_text(path)
    if path.suffix == ".jsonl":
        lines = [(f"{path}:{i}", line) for i, line in enumerate(text.splitlines(), start=1) if line.strip()]
        found = [(where, strict_yaml.parse(line, where).value) for where, line in lines]
    else:
        root = strict_yaml.parse(text, str(path)).value
        if not isinstance(root, list):
            raise BadInput(f"{path}: expected a list of cases, each with state and expect")
        found = [(f"{path}: case {i}", one) for i, one in enumerate(root, start=1)]
    if not found:
        raise BadInput(f"{path}: there is no case in it")
    cases = []
    for number, (where, one) in enumerate(found, start=1):
        try:
            cases.append(_case(one, number, source, open_, samples))
        except BadInput as error:
            place = ".".join(map(str, error.path))
            raise BadInput(f"{where}{f', {place}' if place else ''}: {error}") from None
    return cases


def _case(found: Any, number: int, source: Source, open_: Callable[[str], Source], samples: int) -> Case:
    if not isinstance(found, dict):
        raise BadInput("expected a case: state and expect")
    for key in found:
        known(key, KEYS, "key", (key,))
    for key in ("name", "proposer", "actor"):
        if not isinstance(found.get(key, ""), str):
            raise BadInput("expected text", (key,))
    at_least = found.get("at_least")
    if at_least is not None and (type(at_least) is not int or not 1 <= at_least <= samples):
        raise BadInput(f"expected a number of samples from 1 to {samples}, not {at_least!r}", ("at_least",))
    name = found.get("name") or f"case {number}"
    state = found.get("state")
    if not isinstance(state, dict):
        raise BadInput("expected a WorldState, or {source, epoch}", ("state",))
    expect = _expected(found.get("expect"))
    if not set(state) <= {"source", "epoch"}:
        return _inline(found, name, state, expect, at_least)
    epoch = state.get("epoch")
    if type(epoch) is not int:
        raise BadInput("expected the number of an epoch", ("state", "epoch"))
    of = open_(str(state["source"])) if "source" in state else source
    asked = question_of(of, epoch, found.get("proposer"))
    if found.get("actor") not in (None, asked.context.actor):
        raise BadInput(f"{asked.context.round.proposer} does not speak for it", ("actor",))
    return Case(name, asked.context, asked.prompt, asked.model, asked.key, expect, at_least)


def _inline(found: Json, name: str, world: Json, expect: tuple[str, ...], at_least: int | None) -> Case:
    text = exact_json(world)
    state = read_state(text)
    _read_needs(state, world)
    proposer, actor = found.get("proposer", PROPOSER), found.get("actor")
    if JUDGE in state.mandates:
        state.mandates[proposer] = state.mandates.pop(JUDGE)
    if actor is not None:
        known(actor, state.actors, "actor", ("actor",))
        state.mandates.setdefault(proposer, frozenset({actor}))
    context = Context(Round(state.epoch, proposer, 1), state, actor)
    key = digest(exact_json([proposer, actor, text]))
    return Case(name, context, PROMPT if actor is None else PROMPT_OF_ACTOR, None, key, expect, at_least)


def _read_needs(state: State, world: Json) -> None:
    """What `judge` has no use for, and a proposer has."""
    for i, actor in enumerate(world["actors"]):
        needs = actor.get("needs", {})
        if not isinstance(needs, dict):
            raise BadInput(f"expected {{<resource>: n}}, not {needs!r}", ("state", "actors", i, "needs"))
        for name, need in needs.items():
            path = ("state", "actors", i, "needs", name)
            known(name, state.resources, "resource", path)
            state.needs.setdefault(name, {})[actor["id"]] = declared(need, state.resources[name], path)


def _expected(value: Any) -> tuple[str, ...]:
    wanted = value if isinstance(value, list) else [value]
    if not wanted:
        raise BadInput("expected an outcome, or outcome/code", ("expect",))
    for one in wanted:
        outcome, slash, code = one.partition("/") if isinstance(one, str) else (one, "", "")
        known(outcome, [each.value for each in Outcome], "outcome", ("expect",))
        if slash:
            known(code, _CODES.get(outcome, ()), f"code of {outcome}", ("expect",))
    return tuple(wanted)
