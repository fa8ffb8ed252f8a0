"""Prompts: a template and a context become the one request to a model; nothing is sent, decided or recorded here.

What is trusted (the template) and what is not (ids, types, units, earlier reasoning) never mix: everything from the
grid stands in one JSON block between <data> and </data>, in which `<`, `>`, `&` and whatever can't be seen are
escaped. The templates are given that block and a few names and flags of our own; they are rendered once, in a sandbox.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property, lru_cache
from json.encoder import encode_basestring
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jinja2
import yaml
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gridgov.amounts import plain_decimal
from gridgov.errors import BadInput
from gridgov.journal import Decision, canonical
from gridgov.model import Constraints, Limit, Outcome, Resource, Violation, WorldState
from gridgov.propose import Context
from gridgov.wire import LIMITS, Json, known, transfer_json, world_state_json
from gridgov.words import words

FOLDER = Path(__file__).resolve().parent.parent / "prompts"
"""Where the project's own prompts are."""

SUFFIX = ".j2"

MODEL = "gemini-3.8-flash"
"""The model that is asked where nobody says which."""

VARIABLES = {
    "data": "the JSON data block, to stand between <data> and </data>",
    "limits": "names of the constraints in force",
    "has_needs": "whether any actor announced a need for this epoch",
    "has_history": "whether the block says what the last proposals came to",
    "has_mandate": "whether the block says whose balances may be moved",
    "has_frozen": "whether any actor is frozen",
    "has_left_out": "whether the grid has more actors than the block shows",
}
"""What a template may use, and what each is."""

BUDGET = 60_000
"""Most tokens of a request, as estimated: above it, actors are left out, and the prompt says so."""

CHARACTERS_PER_TOKEN = 4
"""An estimate for English and JSON, as Google's documentation gives it; the reply counts what it really was."""

HISTORY_SHARE = 4
"""The part of the budget that earlier proposals may take: one in so many."""

REASONING_MAX = 500
"""Most characters that are shown of the reasoning of an earlier proposal."""

LISTED = 10
"""Most transfers and reasons that are shown of each earlier proposal, where all of them would take too much."""

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_RULES = (*LIMITS, "max_transfers_per_proposal")
_TAG = "gridgov-request/1\n"
_FRONT = ("name", "version", "purpose", "variables")


def digest(text: str) -> str:
    """64 hex of sha256 over the text."""
    return hashlib.sha256(text.encode()).hexdigest()


# --- exact JSON -------------------------------------------------------------------------------------------------------

_HIDDEN = re.compile(
    "[<>&\x7f-\xa0\xad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f"
    "\u2800\u3000\u3164\ud800-\uf8ff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U0010ffff]"
)
"""What could end the block, and what can't be seen or be told from a space: controls, directions, fillers, variation
selectors, tags, private use. Written out, so that no version of Unicode changes a request."""


def _hide(match: re.Match[str]) -> str:
    point = ord(match.group())
    if point < 0x10000:
        return f"\\u{point:04x}"
    point -= 0x10000
    return f"\\u{0xD800 + (point >> 10):04x}\\u{0xDC00 + (point & 0x3FF):04x}"


@lru_cache(maxsize=65536)
def _quoted(text: str) -> str:
    return _HIDDEN.sub(_hide, encode_basestring(text))


def exact_json(value: Any) -> str:
    """JSON with sorted keys and no spaces, in which every number is plain and exact and no text can hide anything.

    Floats are those that `amounts.to_json` made, of 15 digits at most, so that their shortest text is exact.
    """
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, dict):
        return "{" + ",".join([f"{_quoted(key)}:{exact_json(value[key])}" for key in sorted(value)]) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join([exact_json(own) for own in value]) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return plain_decimal(Decimal(repr(value)))
    assert isinstance(value, int | Decimal), f"{type(value).__name__} has no exact form"
    return plain_decimal(value)


# --- templates --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prompt:
    """A template with what its front matter says. `digest` is over the template and all that it includes."""

    name: str
    version: str
    purpose: str
    variables: tuple[str, ...]
    sources: tuple[tuple[str, str], ...]
    """Template and partials by file name, without front matter; the template comes first."""
    path: Path

    @cached_property
    def digest(self) -> str:
        """64 hex of sha256 over the texts; name, version and purpose are not in it."""
        (_, text), *included = self.sources
        return digest("gridgov-prompt/1\n" + canonical({"includes": dict(included), "template": text}))

    @property
    def template(self) -> jinja2.Template:
        """The compiled template."""
        return _compiled(self.sources)


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key may come only once."""


def _mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    pairs = loader.construct_pairs(node, deep=True)
    for i, (key, _) in enumerate(pairs):
        if key in [other for other, _ in pairs[:i]]:
            raise yaml.constructor.ConstructorError(None, None, f"{key!r} comes twice", node.start_mark)
    return dict(pairs)


_UniqueKeys.add_constructor("tag:yaml.org,2002:map", _mapping)


def names(folder: Path = FOLDER) -> list[str]:
    """The prompts of a folder; files that begin with `_` are partials."""
    return sorted(path.stem for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith("_"))


def load(name_or_path: str, folder: Path = FOLDER) -> Prompt:
    """A prompt by name, from the folder, or by the path of a `.j2` file, whose partials lie beside it.

    Raises BadInput where it is missing, its front matter is wrong, or it uses what no template is given.
    """
    if name_or_path.endswith(SUFFIX):
        path = Path(name_or_path)
        folder = path.parent
    else:
        known(name_or_path, names(folder), "prompt", ())
        path = folder / f"{name_or_path}{SUFFIX}"
    front, text = _split(_text_of(path), path)
    sources = ((path.name, text), *sorted(_included(path.name, text, folder).items()))
    prompt = Prompt(front["name"], front["version"], front["purpose"], front["variables"], sources, path)
    _check(prompt)
    return prompt


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise BadInput(f"{path}: cannot be read ({reason})") from None


def _split(text: str, path: Path) -> tuple[Json, str]:
    """The front matter, checked, and the template after it."""
    opening, _, rest = text.partition("---\n")
    head, found, body = rest.partition("\n---\n")
    if opening or not found:
        raise BadInput(f"{path}: expected a front matter first, between two lines of ---")
    try:
        front = yaml.load(head, _UniqueKeys)
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise BadInput(f"{path}: the front matter is no YAML ({' '.join(str(error).split())})") from None
    if not isinstance(front, dict) or set(front) != set(_FRONT):
        raise BadInput(f"{path}: the front matter says exactly {', '.join(_FRONT)}")
    for key in ("name", "version", "purpose"):
        if not isinstance(front[key], str) or not front[key].strip():
            raise BadInput(f"{path}: {key} of the front matter is text, not {front[key]!r}")
    if front["name"] != path.name.removesuffix(SUFFIX):
        raise BadInput(f"{path}: the front matter names it {front['name']!r}; the file's name is the prompt's")
    variables = front["variables"]
    if not isinstance(variables, list) or not all(isinstance(name, str) for name in variables):
        raise BadInput(f"{path}: variables of the front matter is a list of names")
    return {**front, "variables": tuple(variables)}, body


def _environment(sources: Iterable[tuple[str, str]] = ()) -> jinja2.Environment:
    environment = ImmutableSandboxedEnvironment(
        loader=jinja2.DictLoader(dict(sources)),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals.clear()  # some of them draw at random
    return environment


def _parsed(name: str, text: str) -> Any:
    try:
        return _environment().parse(text)
    except jinja2.TemplateSyntaxError as error:
        raise _no_template(name, error) from None


def _used(name: str, text: str) -> set[str]:
    """The variables that a template takes from its context."""
    try:
        return meta.find_undeclared_variables(_parsed(name, text))
    except jinja2.TemplateSyntaxError as error:
        raise _no_template(name, error) from None


def _no_template(name: str, error: jinja2.TemplateSyntaxError) -> BadInput:
    return BadInput(f"{name}, line {error.lineno} after the front matter: {error.message}")


def _included(name: str, text: str, folder: Path) -> dict[str, str]:
    """The partials that a template includes, and those that they include, by file name."""
    found: dict[str, str] = {}
    waiting = [(name, text)]
    while waiting:
        name, text = waiting.pop()
        for reference in meta.find_referenced_templates(_parsed(name, text)):
            if reference is None or "/" in reference or not reference.startswith("_"):
                raise BadInput(f"{name}: includes name a partial of the folder, such as '_data.j2'")
            if reference not in found:
                found[reference] = _text_of(folder / reference)
                waiting.append((reference, found[reference]))
    return found


def _check(prompt: Prompt) -> None:
    used: set[str] = set().union(*(_used(*source) for source in prompt.sources))
    for name in sorted(used | set(prompt.variables)):
        known(name, VARIABLES, f"variable in {prompt.path}", ())
    if used != set(prompt.variables):
        raise BadInput(f"{prompt.path}: it uses {sorted(used)}; its front matter says {sorted(prompt.variables)}")
    missing = {"system", "user"} - set(prompt.template.blocks)
    if missing:
        raise BadInput(f"{prompt.path}: expected the blocks system and user; {sorted(missing)[0]} is missing")


@lru_cache(maxsize=64)
def _compiled(sources: tuple[tuple[str, str], ...]) -> jinja2.Template:
    return _environment(sources).get_template(sources[0][0])


def _filled(prompt: Prompt, block: str, given: Mapping[str, Any]) -> str:
    template = prompt.template
    try:
        return "".join(template.blocks[block](template.new_context(dict(given)))).strip()
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise BadInput(f"{prompt.path}: the block {block} can't be rendered ({error})") from None


# --- what a model is shown --------------------------------------------------------------------------------------------


def in_words(violation: Violation, resources: Mapping[str, Resource]) -> str:
    """A broken rule as a model is told of it: where, what, and the rule's code."""
    return f"{words(violation, resources)} ({violation.code.value})"


def _past(decision: Decision, resources: Mapping[str, Resource]) -> Json:
    """An earlier proposal, and what it came to."""
    outcome = decision.outcome
    found: Json = {"outcome": outcome.value}
    if outcome is Outcome.MALFORMED:
        return {**found, "because": [f"the reply was no proposal: {decision.fault} ({decision.detail})"]}
    if outcome is Outcome.UNAVAILABLE:
        return {**found, "because": [f"no reply arrived ({decision.fault})"]}
    reasoning = decision.reasoning
    if len(reasoning) > REASONING_MAX:
        reasoning = reasoning[:REASONING_MAX] + "..."
    found |= {"reasoning": reasoning, "transfers": [transfer_json(t, resources) for t in decision.transfers]}
    if decision.granted is not None:
        found["granted"] = [transfer_json(t, resources) for t in decision.effective]
    if outcome is Outcome.HELD:
        found["because"] = ["a transfer above hold_above waits for a person's approval, and the others with it"]
    if decision.violations:
        found["because"] = [in_words(violation, resources) for violation in decision.violations]
    return found


def check_model(model: str) -> None:
    """Raises BadInput where this is no model's name: it becomes a part of a path."""
    if not _MODEL.fullmatch(model):
        raise BadInput(f"{model!r} is no model's name; expected one such as {MODEL}")


def _history(context: Context, most: int) -> tuple[list[Json], Json]:
    """What the last proposals came to, in at most so many characters, and what of it is left out, if anything.

    Where it is too long, each proposal keeps its first transfers and reasons, and the oldest proposals go.
    """
    found = [_past(decision, context.state.resources) for decision in context.history]
    if sum(map(_characters, found)) <= most:
        return found, {}
    found = [_shortened(past) for past in found]
    kept: list[Json] = []
    for past in reversed(found):
        most -= _characters(past)
        if most < 0:
            break
        kept.insert(0, past)
    return kept, {"older_proposals": len(found) - len(kept)} if len(kept) < len(found) else {}


def _shortened(past: Json) -> Json:
    """An earlier proposal with the first of each of its lists; it says how many more there were."""
    lists = {key: own for key, own in past.items() if isinstance(own, list) and len(own) > LISTED}
    more = {key: len(own) - LISTED for key, own in lists.items()}
    return {**past, **{key: own[:LISTED] for key, own in lists.items()}} | ({"left_out": more} if more else {})


class _View(NamedTuple):
    """What of the grid a proposer is shown, whose balances it may move (None: everyone's), and who may receive."""

    world: WorldState
    may_move: tuple[str, ...] | None
    receivers: tuple[str, ...]
    left_out: Mapping[str, int] = MappingProxyType({})
    """How many `actors` are left out, and how many `receivers` of those that are told by their names alone."""

    @property
    def names_alone(self) -> bool:
        """Whether more may receive than are shown."""
        return len(self.receivers) > len(self.world.actors)

    def among(self, kept: Collection[str], named: tuple[str, ...] = ()) -> _View:
        """The same with some of the actors; the others are left out, wherever they stand.

        Those that are shown may receive, or those `named` where names alone are told.
        """
        world = self.world
        actors = tuple(view for view in world.actors if view.id in kept)
        ids = tuple(view.id for view in actors)
        receivers = named if self.names_alone else ids
        left_out = {"actors": len(world.actors) - len(actors)}
        if self.names_alone:
            left_out["receivers"] = len(self.receivers) - len(receivers)
        world = world._replace(actors=actors, constraints=_constraints_of(world.constraints, kept))
        may_move = None if self.may_move is None else _both(ids, self.may_move)
        return _View(world, may_move, receivers, {what: count for what, count in left_out.items() if count})


def _both(ids: tuple[str, ...], others: Collection[str]) -> tuple[str, ...]:
    wanted = frozenset(others)
    return tuple(one for one in ids if one in wanted)


def _view(context: Context) -> _View:
    """The whole community, or, for a proposer that speaks for one actor, that actor and those in its mandate.

    Who speaks for one actor and shares something is shown nobody else, by name neither; who shares nothing could give
    to nobody then, so that it is told the others' names.
    """
    world, mandate = context.world_state, context.mandate
    everyone = receivers = tuple(view.id for view in world.actors)
    if context.actor is not None:
        mandate = (mandate or frozenset()) | {context.actor}
        actors = tuple(view for view in world.actors if view.id in mandate)
        world = world._replace(actors=actors, constraints=_constraints_of(world.constraints, mandate))
        if len(actors) > 1:
            receivers = tuple(view.id for view in actors)
    return _View(world, None if mandate is None else _both(everyone, mandate), receivers)


def _characters(value: Any) -> int:
    """How many characters a value and a comma have in the data block, as they are written in the body."""
    return len(encode_basestring(exact_json(value))) - 1


def _sizes(world: WorldState) -> dict[str, int]:
    """How many characters of the body each actor takes: in the data, in the limits, in the form of the reply."""
    written = world_state_json(world)
    limits = [of["actors"] for of in written["constraints"].values() if isinstance(of, dict) and "actors" in of]
    found = {}
    for actor in written["actors"]:
        id_ = actor["id"]
        own = [_characters({id_: of[id_]}) for of in limits if id_ in of]
        found[id_] = _characters(actor) + 3 * _characters(id_) + sum(own)
    return found


def _order(view: _View, you: str | None) -> list[str]:
    """Who is shown before whom: whom it speaks for, then those of its mandate, then the others.

    The others, and those of the mandate, by the largest surpluses and needs. A surplus is what an actor holds beyond
    its need and what it must keep; the ranks of all resources take turns.
    """
    mandate = frozenset(view.may_move or ())
    return sorted(dict.fromkeys(_by_interest(view.world)), key=lambda actor: (actor != you, actor not in mandate))


def _fitted(view: _View, order: Iterable[str], sizes: Mapping[str, int], room: int) -> _View:
    """The first actors that fit into so many characters, and then the names of receivers that do.

    Names alone come in the grid's order: any other would tell what those actors hold.
    """
    kept: set[str] = set()
    for actor in order:
        room -= sizes[actor]
        if room < 0:
            return view.among(kept)
        kept.add(actor)
    named: list[str] = []
    for name in view.receivers:
        room -= len(exact_json(name)) + 1
        if room < 0:
            break
        named.append(name)
    return view.among(kept, tuple(named))


def _by_interest(world: WorldState) -> Iterator[str]:
    """Actors by surplus and by what they lack, of each resource in turn; each comes again and again."""
    least = world.constraints.min_balance
    ranks: list[list[str]] = []
    for resource in world.resources:
        name = resource.name
        surplus = {
            view.id: view.balances.get(name, 0) - view.needs.get(name, 0) - ((least and least.of(view.id, name)) or 0)
            for view in world.actors
        }
        rich = sorted(surplus, key=surplus.__getitem__, reverse=True)
        ranks += [rich, rich[::-1]]
    for turn in zip(*ranks, strict=True):
        yield from turn


def _constraints_of(constraints: Constraints, actors: Collection[str]) -> Constraints:
    """The constraints without what they say of other actors."""

    def own(limit: Limit | None) -> Limit | None:
        if limit is None:
            return None
        return Limit(limit.by_resource, {actor: of for actor, of in limit.by_actor.items() if actor in actors})

    return constraints._replace(
        max_transfer=own(constraints.max_transfer),
        min_balance=own(constraints.min_balance),
        epoch_quota=own(constraints.epoch_quota),
        hold_above=own(constraints.hold_above),
    )


# --- the request ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _schema(senders: tuple[str, ...], receivers: tuple[str, ...], resources: tuple[str, ...]) -> Json:
    """The form of a reply: ids and names as enums, nothing optional and nothing else.

    Where nobody may send or nobody may receive, the list of transfers is empty: an enum must have values, and without
    one any text would do. No bound for the amount: `exclusiveMinimum` is not among what Gemini supports, and bounds are
    among what makes a form too complex for it. The prompt says that amounts are positive, and the validator sees to it.
    """

    def one_of(values: tuple[str, ...]) -> Json:
        return {"type": "string", "enum": list(values)} if values else {"type": "string"}

    fields = {
        "from": one_of(senders),
        "to": one_of(receivers),
        "resource": one_of(resources),
        "amount": {"type": "number"},
    }
    transfer = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    transfers = {"type": "array", "items": transfer} | ({} if senders and receivers else {"maxItems": 0})
    whole = {"transfers": transfers, "reasoning": {"type": "string"}}
    return {"type": "object", "properties": whole, "required": list(whole), "additionalProperties": False}


@lru_cache(maxsize=64)
def _schema_digest(senders: tuple[str, ...], receivers: tuple[str, ...], resources: tuple[str, ...]) -> str:
    return digest(canonical(_schema(senders, receivers, resources)))


@dataclass(frozen=True)
class Request:
    """One question to a model, as it is sent, handed out and recorded.

    `components` are digests (64 hex) of what the text was made of, so that a changed request can say what changed.
    `sample` counts the identical requests that came before it in this run.
    """

    prompt: str
    model: str
    system: str
    user: str
    schema: Json
    parameters: Json
    components: dict[str, str]
    sample: int = 0

    @property
    def path(self) -> str:
        """Where it is posted, below the base URL."""
        return f"/v1/models/{self.model}:generateContent"

    @property
    def body(self) -> Json:
        """Gemini's request, to be sent as it is."""
        return {
            "systemInstruction": {"parts": [{"text": self.system}]},
            "contents": [{"role": "user", "parts": [{"text": self.user}]}],
            "generationConfig": {**self.parameters, "responseJsonSchema": self.schema},
        }

    @property
    def _identity(self) -> Json:
        return {
            "model": self.model,
            "parameters": self.parameters,
            "schema": self.schema,
            "system": self.system,
            "user": [self.user],
        }

    @cached_property
    def content_key(self) -> str:
        """64 hex that identical requests share, whichever came first."""
        return digest(_TAG + canonical(self._identity))

    @cached_property
    def request_key(self) -> str:
        """64 hex that identify this request: model, texts, schema, parameters and sample; nothing of the transport."""
        return digest(_TAG + canonical({**self._identity, "sample": self.sample}))

    @cached_property
    def tokens(self) -> int:
        """How many tokens it has, as estimated from its characters."""
        return len(exact_json(self.body)) // CHARACTERS_PER_TOKEN

    def sampled(self, sample: int) -> Request:
        """The same request, asked once more."""
        return self if sample == self.sample else replace(self, sample=sample)


def render(
    prompt: Prompt,
    context: Context,
    *,
    model: str,
    sample: int = 0,
    parameters: Mapping[str, Any] | None = None,
    budget: int = BUDGET,
) -> Request:
    """The request that puts a context to a model. Pure: the same input gives the same request, in any process.

    `parameters` go into the generation config (whole numbers, text, objects; a float has no canonical form). A request
    of more than `budget` tokens, as estimated, leaves out actors that have least to give and to need, those outside of
    the mandate first, and says so; what the last proposals came to takes a quarter of the budget at most. An actor that
    is told the others' names alone is told as many as fit, and how many are left out.
    Raises BadInput where the template fails or the model's name is none. Complexity: O(actors and their limits).
    """
    check_model(model)
    whole, most = _view(context), CHARACTERS_PER_TOKEN * budget
    past = _history(context, most // HISTORY_SHARE)
    own = {"responseMimeType": "application/json", **(parameters or {})}

    def made(view: _View) -> Request:
        return _request(prompt, context, view, past, model, own, sample)

    found = made(whole)
    if found.tokens <= budget:
        return found
    sizes, order = _sizes(whole.world), _order(whole, context.actor)
    room = most - CHARACTERS_PER_TOKEN * made(whole.among(())).tokens
    while True:
        view = _fitted(whole, order, sizes, room)
        found = made(view)
        if found.tokens <= budget or not view.world.actors:
            return found
        room -= CHARACTERS_PER_TOKEN * (found.tokens - budget)


def _request(
    prompt: Prompt,
    context: Context,
    view: _View,
    past: tuple[list[Json], Json],
    model: str,
    parameters: Json,
    sample: int,
) -> Request:
    """The request that shows this view, and what these proposals came to."""
    history, left_out = past
    resources = context.state.resources
    world = world_state_json(view.world)
    asked: Json = {"round": {"epoch": context.round.epoch, "n": context.round.n}}
    if context.actor is not None:
        asked["you"] = context.actor
    if view.may_move is not None:
        asked["may_move"] = list(view.may_move)
    units = {name: {"decimals": resource.scale, "unit": resource.unit} for name, resource in resources.items()}
    data = {**asked, "resources": units, "world_state": world} | ({"history": history} if history else {})
    left_out = {**left_out, **view.left_out}
    if left_out:
        data["left_out"] = left_out
    given = {
        "data": exact_json(data),
        "limits": tuple(name for name in world["constraints"] if name in _RULES),
        "has_needs": any(actor.needs for actor in view.world.actors),
        "has_history": bool(history),
        "has_mandate": view.may_move is not None,
        "has_frozen": any(actor.frozen for actor in view.world.actors),
        "has_left_out": "actors" in view.left_out,
    }
    given = {name: given[name] for name in prompt.variables}
    system, user = _filled(prompt, "system", given), _filled(prompt, "user", given)
    ids = (view.receivers if view.may_move is None else view.may_move, view.receivers, tuple(resources))
    constraints = world.pop("constraints")
    components = {
        "asked": digest(exact_json(asked)),
        "constraints": digest(exact_json(constraints)),
        "history": digest(exact_json(history)),
        "parameters": digest(canonical(parameters)),
        "prompt": prompt.digest,
        "schema": _schema_digest(*ids),
        "system": digest(system),
        "text": digest(canonical([system, user])),
        "world_state": digest(exact_json([units, world])),
    }
    return Request(prompt.name, model, system, user, _schema(*ids), parameters, components, sample)
