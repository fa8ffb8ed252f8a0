"""The scenario form: what its YAML may say, as pydantic models and JSON Schema; no names are looked up here.

Amounts are as written, in units. `read` makes a form of a document, or says file, line, key, what was found and what
was expected; what one part of it says of another is checked in `loading`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from gridgov import amounts
from gridgov.errors import BadInput
from gridgov.wire import known
from sim.strict_yaml import Document, shown
from sim.strict_yaml import Path as YamlPath

SEED = 1
"""The seed of a scenario that names none."""

ACTORS_MAX, EPOCHS_MAX = 100_000, 10_000_000

BALANCES_MAX = 100_000_000
"""Most balances (epochs x actors x resources) of a run: a machine of 16 GB holds the journal of not many more."""

Policy = Literal["none", "random", "greedy", "take", "take_max", "sustainable", "optimal", "hasty"]
POLICIES: tuple[str, ...] = Policy.__args__  # type: ignore[attr-defined]
COMMONS_POLICIES = ("take", "take_max", "sustainable")
"""The policies that take from the commons for their actor."""

RESOURCE_METRICS = (
    *("gini", "jain", "self_sufficiency", "self_consumption", "unmet", "import_cost", "served_share_min"),
    *("loss_of_load_probability", "loss_of_load_probability_max", "served", "demanded", "produced", "spilled"),
    *("grown", "transferred", "worse_off"),
)
"""The metrics that are one figure for each resource."""

RUN_METRICS = (
    *("acceptance_rate", "waited", "survival_time", "survival_rate", "gain", "efficiency", "equality", "over_usage"),
)
"""The metrics that are one figure for the run."""

METRICS = (*RESOURCE_METRICS, *RUN_METRICS, "regret")
"""All that `expect` may name; `regret` is of one resource where it names one, else of the run."""

# --- types ------------------------------------------------------------------------------------------------------------

_LETTERS = "letters, digits, - _ . and :, at most 64"
_WORD, _NAME = "^[A-Za-z0-9_.:-]{1,64}$", "^[A-Za-z0-9_-]{1,64}$"
_REF = r"^(?=.{1,64}$)[A-Za-z0-9_.:-]*(\{n\})?[A-Za-z0-9_.:-]*$"
_LENGTH = "^([1-9][0-9]{0,8})(s|m|h|d|w)$"
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True, eq=False)
class _As:
    """Says of a field how its value is read, and what its JSON Schema is."""

    read: Callable[[Any], Any]
    schema: dict[str, Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: Any) -> dict[str, Any]:
        return dict(self.schema)


def _refused(found: Any, expected: str) -> PydanticCustomError:
    return PydanticCustomError("form", "{text}", {"text": f"found {shown(found)}; expected {expected}"})


def _whole(least: int, most: int) -> _As:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise _refused(value, f"a whole number from {least} to {most}")
        return value

    return _As(read, {"type": "integer", "minimum": least, "maximum": most})


def _matching(pattern: str, expected: str) -> _As:
    compiled = re.compile(pattern[:-1])

    def read(value: Any) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise _refused(value, expected)
        return value

    return _As(read, {"type": "string", "pattern": pattern})


def _number(least: int | None = None) -> _As:
    """Any number of sensible size; whether it fits a resource is checked where it is known which."""

    def read(value: Any) -> int | Decimal:
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            raise _refused(value, "a number")
        if least is not None and value < least:
            raise _refused(value, f"{least} or more")
        if not -amounts.LIMIT < value < amounts.LIMIT:
            raise _refused(value, "a number below 1e15")
        if isinstance(value, Decimal) and amounts.exponent(value) < -20:
            raise _refused(value, "a number of at most 20 decimals")
        return value

    return _As(read, {"type": "number"} if least is None else {"type": "number", "minimum": least})


def _read_text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _refused(value, "text")
    return value


def _read_refs(value: Any) -> list[str]:
    found = value if isinstance(value, list) else [value]
    if not found:
        raise PydanticCustomError("form", "found an empty list; expected at least one actor")
    return [_REFERENCE.read(each) for each in found]


def _read_length(value: Any) -> int:
    match = re.fullmatch(_LENGTH[:-1], value) if isinstance(value, str) else None
    if match is None:
        raise _refused(value, "a length such as 30s, 15m, 1h, 1d or 1w")
    return int(match[1]) * _SECONDS[match[2]] * 1_000_000


_REFERENCE = _matching(_REF, f"the id of an actor, or a template such as home-{{n}}: {_LETTERS}")

Seed = Annotated[int, _whole(0, 2**53 - 1)]
Epoch = Annotated[int, _whole(1, EPOCHS_MAX)]
Row = Annotated[int, _whole(0, EPOCHS_MAX)]
Number = Annotated[int | Decimal, _number()]
Amount = Annotated[int | Decimal, _number(0)]
Text = Annotated[str, _As(_read_text, {"type": "string", "pattern": "\\S"})]
Word = Annotated[str, _matching(_WORD, f"a word: {_LETTERS}")]
Name = Annotated[str, _matching(_NAME, "a name: letters, digits, - and _, at most 64")]
Ref = Annotated[str, _REFERENCE]
Refs = Annotated[
    list[str],
    _As(
        _read_refs,
        {"anyOf": [_REFERENCE.schema, {"type": "array", "minItems": 1, "items": _REFERENCE.schema}]},
    ),
]
Length = Annotated[int, _As(_read_length, {"type": "string", "pattern": _LENGTH})]

_AMOUNT_SCHEMA = {"type": "number", "minimum": 0}
_BY_RESOURCE_SCHEMA = {"type": "object", "additionalProperties": _AMOUNT_SCHEMA}
_LIMIT_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "null"},
        _AMOUNT_SCHEMA,
        {
            "type": "object",
            "properties": {
                "default": {**_AMOUNT_SCHEMA, "description": "For every resource that is not named"},
                "actors": {
                    "type": "object",
                    "additionalProperties": _BY_RESOURCE_SCHEMA,
                    "description": "For an actor as the sender: {<actor>: {<resource>: n}}; wins over the rest",
                },
            },
            "additionalProperties": {**_AMOUNT_SCHEMA, "description": "For this resource"},
        },
    ]
}


def _count_schema(description: str, least: int = 1) -> dict[str, Any]:
    return {"anyOf": [{"type": "null"}, {"type": "integer", "minimum": least}], "description": description}


_CONSTRAINTS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "max_transfer": {**_LIMIT_SCHEMA, "description": "Most that one transfer may move"},
        "min_balance": {**_LIMIT_SCHEMA, "description": "Least that a transfer must leave its sender; 0 where absent"},
        "epoch_quota": {**_LIMIT_SCHEMA, "description": "Most that one actor may send of a resource in an epoch"},
        "hold_above": {**_LIMIT_SCHEMA, "description": "A transfer above this waits for approval"},
        "max_transfers_per_proposal": _count_schema("Most transfers that one proposal may have", 0),
        "hold_epochs": _count_schema("Epochs until a proposal on hold expires; 24 where absent"),
        "auto_pause": {
            "description": "When the grid pauses by itself",
            "anyOf": [
                {"type": "null"},
                {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "refused_in_a_row": _count_schema("After so many refused proposals in a row"),
                        "unavailable_in_a_row": _count_schema("After so many rounds without an answer"),
                        "moved_per_epoch": {**_LIMIT_SCHEMA, "description": "When more than this moves in one epoch"},
                    },
                },
            ],
        },
    },
}


def _read_mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _refused(value, "a mapping")
    return value


ConstraintsJson = Annotated[dict[str, Any], _As(_read_mapping, _CONSTRAINTS_SCHEMA)]
Sets = Annotated[
    dict[str, Any],
    _As(
        _read_mapping,
        {"type": "object", "minProperties": 1, "propertyNames": {"pattern": "^constraints\\.[^.]"}},
    ),
]

# --- models -----------------------------------------------------------------------------------------------------------


class _Form(BaseModel):
    """A mapping of the form. Unknown and missing keys are told by name, before anything else of it."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _keys(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        fields = {each.alias or name: each for name, each in cls.model_fields.items()}
        for key in value:
            if key not in fields:
                try:
                    known(key, fields, "key", ())
                except BadInput as error:
                    raise PydanticCustomError("key", "{text}", {"text": str(error), "key": key}) from None
        for key, each in fields.items():
            if each.is_required() and key not in value:
                text = f"found nothing; expected {key}: {each.description}"
                raise PydanticCustomError("key", "{text}", {"text": text, "key": key})
        return value


class ResourceForm(_Form):
    """Something that is shared."""

    unit: Text = Field(description="What it is counted in, such as kWh")
    scale: Annotated[int, _whole(0, amounts.SCALE_MAX)] = Field(3, description="Decimal places of its amounts")


class ActorForm(_Form):
    """A participant, or with `count` as many of them, numbered from 1."""

    id: Ref = Field(description="Its id; with count, a template such as home-{n}")
    count: Annotated[int, _whole(1, ACTORS_MAX)] | None = Field(None, description="How many: {n} counts from 1 to this")
    type: Word = Field("node", description="Any word but boundary")
    balances: dict[str, Amount] = Field({}, description="Opening balance of each resource, in units")
    storage: dict[str, Amount] = Field(
        {},
        description="Most it can hold of a resource at the close of an epoch; what is above spills. Absent: no limit",
    )


class ProfileForm(_Form):
    """A column of a data file: row by row, one epoch each."""

    file: Text = Field(description="CSV, gzipped CSV or Parquet, relative to the scenario's file")
    column: Text = Field(description="Its column; {n} stands for the number of the actor")
    unit: Text | None = Field(None, description="What the column is counted in, where not the resource's unit")
    round: Literal["half_even"] | None = Field(
        None, description="Round what does not fit the scale; else it is refused"
    )


class PriceProfileForm(_Form):
    """A column of prices: row by row, one epoch each."""

    file: Text = Field(description="CSV, gzipped CSV or Parquet, relative to the scenario's file")
    column: Text = Field(description="Its column, in currency for each unit of the resource")
    round: Literal["half_even"] | None = Field(None, description="Round to 6 decimals; else what has more is refused")


class NoiseForm(_Form):
    """Chance that is added to every amount; what comes out below 0 is 0."""

    normal: Amount | None = Field(None, description="Standard deviation of normal noise, in units of the resource")
    uniform: Amount | None = Field(None, description="Half width of uniform noise, in units of the resource")


class _FlowForm(_Form):
    name: Name = Field(description="Its name, unlike that of any other flow")
    actors: Refs = Field(description="Whom it concerns: an id, a template such as home-{n}, or a list of these")
    resource: str = Field(description="What flows")
    from_: Epoch = Field(1, alias="from", description="First epoch in which it runs")
    until: Epoch | None = Field(None, description="Last epoch in which it runs; absent: the last of all")
    every: Epoch = Field(1, description="Runs every so many epochs, from the first on")


class AmountFlowForm(_FlowForm):
    """What enters through actors (produce) or leaves through them (consume), each epoch."""

    kind: Literal["produce", "consume"] = Field(description="produce or consume")
    amount: Amount | None = Field(None, description="The same amount in every epoch, in units; or a profile")
    profile: ProfileForm | None = Field(None, description="An amount for each epoch, from a file; or an amount")
    noise: NoiseForm | None = Field(None, description="Chance that is added")


class GrowFlowForm(_FlowForm):
    """Growth of what there is: each balance times a factor, up to a cap."""

    kind: Literal["grow"] = Field(description="grow")
    factor: Annotated[int | Decimal, _number(1)] = Field(description="What the balance is multiplied by, 1 or more")
    cap: Amount | None = Field(None, description="Most that it grows to, in units; absent: no cap")


class PriceForm(_Form):
    """What a unit costs where need was not met."""

    amount: Number | None = Field(None, description="The same price in every epoch; or a profile")
    profile: PriceProfileForm | None = Field(None, description="A price for each epoch, from a file; or an amount")


class ScaleForm(_Form):
    """A flow times a factor."""

    flow: str = Field(description="The name of the flow")
    by: Amount = Field(description="What its amounts are multiplied by, 0 or more")


class ChangeForm(_Form):
    """What is otherwise from an epoch on: constraints that are set, or a flow that is scaled."""

    epoch: Epoch = Field(description="First epoch in which it holds")
    until: Epoch | None = Field(None, description="Last epoch in which it holds; absent: the last of all")
    set: Sets | None = Field(
        None, description="Constraints by dotted key, such as constraints.max_transfer.energy: 0.5"
    )
    scale: ScaleForm | None = Field(None, description="A flow and its factor")


class Decisions(_Form):
    """In which order proposers decide, and what they get where together they ask too much."""

    order: Literal["sequential", "simultaneous", "random"] = Field(
        default="sequential",
        description="One after the other as listed, all at once on the same state, or in a drawn order",
    )
    allocation: Literal["refuse", "proportional", "random"] = Field(
        default="refuse",
        description="With simultaneous, where they ask more of an actor than it has: refuse, share or draw",
    )


class CommonsForm(_Form):
    """A shared pool that may collapse."""

    actor: str = Field(description="The actor that holds it")
    resource: str = Field(description="What is in it")
    collapse_below: Amount | None = Field(
        None, description="Below this at a close it has collapsed: the run ends there"
    )


class ContextForm(_Form):
    """What a proposer is shown beside the WorldState."""

    history: Annotated[int, _whole(0, 1000)] = Field(
        default=0, description="How many of its last proposals, with what they came to"
    )


class _ProposerForm(_Form):
    name: Name | None = Field(None, description="Its name; absent: its policy or kind, with -2, -3 where taken")
    proposals_per_epoch: Annotated[int, _whole(1, 10_000)] = Field(1, description="How many rounds it has in an epoch")
    actors: Refs | None = Field(None, description="One proposer for each of these actors, which speaks for it")
    mandate: Refs | None = Field(
        None, description="Whose balances it may move: self, ids, templates; absent: self with actors, else all"
    )
    role: Literal["active", "shadow"] = Field(
        "active", description="A shadow proposes and is judged, but never applied"
    )
    context: ContextForm = Field(default=ContextForm(), description="What it is shown beside the WorldState")
    on_unavailable: Literal["stop", "record"] = Field("stop", description="What to do when it gives no answer")


class PolicyForm(_ProposerForm):
    """A proposer made of code."""

    kind: Literal["policy"] = Field(description="policy")
    policy: Policy = Field(description="Which policy")
    amount: Amount | None = Field(None, description="What take asks of the commons in each round, in units")
    prompt: Name | None = Field(
        None, description="The prompt that a model in its place is asked with; absent: as for cassette"
    )


class CassetteForm(_ProposerForm):
    """Recorded replies of a model, replayed strictly."""

    kind: Literal["cassette"] = Field(description="cassette")
    cassette: Text = Field(description="The cassette, relative to the scenario's file")
    prompt: Name | None = Field(
        None, description="The prompt; absent: propose_transfer, or speak_for_actor with actors"
    )
    model: Word | None = Field(None, description="The model that was asked; absent: the default one")


class FixtureForm(_ProposerForm):
    """Proposals written down in a file, one JSON line each."""

    kind: Literal["fixture"] = Field(description="fixture")
    file: Text = Field(description="The fixture file, relative to the scenario's file")


class GeminiForm(_ProposerForm):
    """A live model."""

    kind: Literal["gemini"] = Field(description="gemini")
    prompt: Name | None = Field(
        None, description="The prompt; absent: propose_transfer, or speak_for_actor with actors"
    )
    model: Word | None = Field(None, description="The model to ask; absent: the default one")


class ExpectForm(_Form):
    """What a run must come to, else `gridgov run` ends with exit code 1."""

    metric: str = Field(description=f"One of: {', '.join(METRICS)}", json_schema_extra={"enum": list(METRICS)})
    resource: str | None = Field(None, description="Of which resource; may be absent where there is only one")
    at_least: Number | None = Field(None, description="It is this or more")
    at_most: Number | None = Field(None, description="It is this or less")
    equals: Number | None = Field(None, description="It is this")


AnyProposerForm = PolicyForm | CassetteForm | FixtureForm | GeminiForm
AnyFlow = Annotated[AmountFlowForm | GrowFlowForm, Field(discriminator="kind")]
AnyProposer = Annotated[AnyProposerForm, Field(discriminator="kind")]
_KINDS = {"flows": ("produce", "grow", "consume"), "proposers": ("policy", "cassette", "fixture", "gemini")}


class ScenarioForm(_Form):
    """A scenario of the Grid Governance Engine: a community, what happens to it by itself, and who proposes."""

    name: Name = Field(description="Its name")
    description: Text | None = Field(None, description="What it shows, for people")
    seed: Seed = Field(SEED, description="What every draw by chance is derived from")
    epochs: Epoch = Field(description="How many epochs there are; they are numbered from 1")
    start: Text = Field(description="When epoch 1 begins, in quotes, such as 2016-07-31T23:00:00Z")
    epoch_length: Length = Field(description="How long an epoch is, such as 30s, 15m, 1h, 1d or 1w")
    first_row: Row = Field(0, description="The row of every profile, counted from 0, that epoch 1 reads")
    resources: dict[Name, ResourceForm] = Field(
        min_length=1,
        description="What is shared, in the order in which people and proposers see it",
        json_schema_extra={"additionalProperties": False},
    )
    constraints: ConstraintsJson = Field({}, description="The rules in force, in units; an absent limit is no limit")
    actors: list[ActorForm] = Field(min_length=1, description="Who takes part, in order")
    flows: list[AnyFlow] = Field([], description="What is produced, grows and is consumed")
    prices: dict[str, PriceForm] = Field({}, description="What a unit of a resource costs where need was not met")
    changes: list[ChangeForm] = Field([], description="What is otherwise from an epoch on")
    decisions: Decisions = Field(default=Decisions(), description="How proposers take turns")
    holds: Literal["approve", "reject", "expire"] = Field(
        "expire", description="What becomes of proposals on hold; the first two before the next epoch's proposals"
    )
    commons: CommonsForm | None = Field(None, description="A shared pool that may collapse")
    proposers: list[AnyProposer] = Field(min_length=1, description="Who proposes, in order")
    expect: list[ExpectForm] = Field([], description="What the run must come to")


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the form (draft 2020-12), for editors; it knows no names but keys, so `load` refuses more."""
    from pydantic.json_schema import GenerateJsonSchema

    class Untitled(GenerateJsonSchema):
        """Without a title for each field, which would only repeat its key."""

        def field_title_should_be_set(self, schema: Any) -> bool:
            return False

    return {"$schema": Untitled.schema_dialect, **ScenarioForm.model_json_schema(schema_generator=Untitled)}


# --- reading ----------------------------------------------------------------------------------------------------------


def read(document: Document) -> ScenarioForm:
    """The form that a document is. Raises BadInput: the first thing wrong with it, and where."""
    try:
        return ScenarioForm.model_validate(document.value)
    except ValidationError as error:
        raise _first(document, error) from None


def _first(document: Document, error: ValidationError) -> BadInput:
    """The first of all that pydantic found, in the order of the file; what an override broke goes first."""
    found = []
    for each in error.errors(include_url=False):
        path = _path(document.value, each["loc"])
        message = each["msg"]
        if each["type"] == "key":
            path = (*path, each["ctx"]["key"])
        elif each["type"] == "union_tag_invalid":
            path, message = (*path, "kind"), _message(each, path)
        elif each["type"] != "form":
            message = _message(each, path)
        found.append((document.edited(path) is None, document.mark(path), path, message))
    _, _, path, message = min(found, key=lambda each: each[:2])
    return document.bad(path, message)


def _path(value: Any, loc: YamlPath) -> YamlPath:
    """A location of pydantic as a path in the document: without the kind after an element, and the like."""
    path: YamlPath = ()
    for step in loc[:2] + loc[3:] if loc[:1] in {("flows",), ("proposers",)} else loc:
        if isinstance(value, list) or (isinstance(value, dict) and step in value):
            path, value = (*path, step), value[step]  # type: ignore[index]
    return path


def _message(error: ErrorDetails, path: YamlPath) -> str:
    context, found = error.get("ctx", {}), shown(error["input"])
    match error["type"]:
        case "literal_error":
            words = [word for word in re.split(r"'|, | or ", context["expected"]) if word]
            return _unknown(error["input"], words, str(path[-1]))
        case "union_tag_invalid":
            return _unknown(error["input"]["kind"], _KINDS[str(path[0])], "kind")
        case "union_tag_not_found":
            return f"found no kind; expected one of: {', '.join(_KINDS[str(path[0])])}"
        case "too_short":
            return "found none; expected at least one"
        case "list_type":
            return f"found {found}; expected a list"
        case "dict_type" | "model_type" | "model_attributes_type":
            return f"found {found}; expected a mapping"
        case "string_type":
            return f"found {found}; expected text"
    return f"found {found}; {error['msg'][:1].lower()}{error['msg'][1:]}"


def _unknown(found: Any, words: Sequence[str], what: str) -> str:
    if not isinstance(found, str):
        return f"found {shown(found)}; expected one of: {', '.join(words)}"
    try:
        known(found, words, what, ())
    except BadInput as error:
        return str(error)
    return f"found {shown(found)}"
