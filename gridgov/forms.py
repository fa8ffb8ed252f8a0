"""What is sent and answered over HTTP, as forms with examples; nothing is done here, and no endpoint known."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

SEQ_MAX = 2**63 - 1
EPOCH_MAX = 2**31 - 1
UUID = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"


class ProblemBody(BaseModel):
    """What went wrong, as RFC 9457 has it."""

    model_config = ConfigDict(title="Problem", extra="allow")

    type: str = Field(description="about:blank: the status says it all")
    title: str
    status: int
    detail: str
    instance: str | None = Field(None, description="The request id, as in the log")
    path: list[str | int] | None = Field(None, description="Where in the body, or in the query, it is")
    errors: list[dict[str, Any]] | None = Field(None, description="All places, where there are several")
    recorded: dict[str, Any] | None = Field(None, description="409: what stands under this id")
    differs: list[str] | None = Field(None, description="409: in what the two differ")


# --- what is sent -----------------------------------------------------------------------------------------------------

Reason = Annotated[str, StringConstraints(min_length=1, max_length=1_000, pattern=r"\S")]
Number = Annotated[int | Decimal, WithJsonSchema({"type": "number"})]
UuidText = Annotated[str, StringConstraints(pattern=UUID)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Epoch = Annotated[int, Field(ge=1, le=EPOCH_MAX)]
Latency = Annotated[int, Field(ge=0, le=10**12, description="From the request to the model's reply")]

_PROPOSED: dict[str, JsonValue] = {
    "transfers": [{"from": "actor-1", "to": "actor-2", "resource": "energy", "amount": 12.5}],
    "reasoning": "…",
}
ROUND_ID = "5b1f6f0e-3f38-5c5c-9a55-0d2f8f0d9f10"


_EITHER: list[JsonValue] = [{"required": [name]} for name in ("proposal", "model_response", "unavailable")]


class Body(BaseModel):
    """A JSON object that is taken as it stands: no other keys, no other types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TransferBody(Body):
    """An amount of one resource, in units, from one actor to another."""

    actor_from: str = Field(alias="from")
    to: str
    resource: str
    amount: Number


class ProposalBody(Body):
    """Zero or more transfers, all or nothing."""

    transfers: list[TransferBody]
    reasoning: str | SkipJsonSchema[None] = None
    proposal_id: UuidText | SkipJsonSchema[None] = None


class UnavailableBody(Body):
    """That no reply came, and why."""

    kind: Literal["quota", "transport", "auth", "config"]
    status: Annotated[int, Field(ge=100, le=999)] | None = None
    code: Annotated[str, StringConstraints(max_length=100)] | int | None = None


class SubmissionBody(Body):
    """What came of a round: exactly one of proposal, model_response and unavailable."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": _EITHER,
            "examples": [{"proposal_id": ROUND_ID, "proposal": _PROPOSED}],
        }
    )

    proposal_id: UuidText
    world_state_digest: Annotated[str, StringConstraints(max_length=100)] | SkipJsonSchema[None] = None
    request_key: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] | SkipJsonSchema[None] = None
    proposal: ProposalBody | SkipJsonSchema[None] = None
    model_response: Annotated[
        Any,
        WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "string"}], "description": "Gemini's body as it came"}),
    ] = None
    unavailable: UnavailableBody | SkipJsonSchema[None] = None
    latency_ms: Latency | SkipJsonSchema[None] = None


class ReasonBody(Body):
    """Why a person does this."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "agreed by phone"}]})

    reason: Reason


class TransfersBody(ReasonBody):
    """Transfers by hand."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"transfers": _PROPOSED["transfers"], "reason": "leak"}]})

    transfers: list[TransferBody]


class ControlBody(ReasonBody):
    """Pause or resume."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"action": "pause", "reason": "storm"}]})

    action: Literal["pause", "resume"]


class ConstraintsBody(ReasonBody):
    """The whole set of constraints, in units, as scenarios write them; what is left out is unlimited."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"constraints": {"max_transfer": {"energy": 50}}, "reason": "winter"}]}
    )

    constraints: dict[str, Any]
    expected_seq: Annotated[int, Field(ge=0, le=SEQ_MAX)] | None = None


class ActorBody(ReasonBody):
    """An actor that joins."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": "home-18", "type": "node", "reason": "moved in"}]})

    id: Word
    type: Word


class FreezeBody(ReasonBody):
    """Freeze or thaw."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"frozen": True, "reason": "broken meter"}]})

    frozen: bool


class ActivationBody(ReasonBody):
    """A prompt and a model to be put in force."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"prompt": "propose_transfer", "model": "gemini-3.8-flash", "reason": "backtested"}]
        }
    )

    prompt: Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9_]{0,63}$")]
    model: Annotated[
        str, StringConstraints(pattern="^([A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*)?$", max_length=200)
    ] = Field(description="Empty ends the role: no shadow any more, or the prompt and model that need no activation")
    role: Literal["active", "shadow"] = "active"


class ReadingBody(Body):
    """What a meter read of one actor, in units."""

    actor: str
    resource: str
    kind: Literal["produce", "consume", "need"]
    amount: Number


class FlowsBody(Body):
    """A set of readings of one epoch; it counts once, by its id."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "reading_id": "meter-7/2026-11-22T12:00",
                    "epoch": 42,
                    "readings": [{"actor": "actor-1", "resource": "energy", "kind": "produce", "amount": 3.2}],
                }
            ]
        }
    )

    reading_id: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    epoch: Epoch
    readings: Annotated[list[ReadingBody], Field(min_length=1, max_length=10_000)]


class CloseBody(Body):
    """The epoch that is expected to be open."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"epoch": 42}]})

    epoch: Epoch


class AckBody(Body):
    """What the outcome became where it was handed to."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reference": "GRID-17"}]})

    reference: Annotated[str, StringConstraints(min_length=1, max_length=500)]


# --- what is answered -------------------------------------------------------------------------------------------------


class ViolationAnswer(BaseModel):
    """One broken rule; limit and actual in units, where they are amounts."""

    code: str
    path: str
    limit: int | float | str | None = None
    actual: int | float | str | None = None
    words: str


class BalanceAnswer(BaseModel):
    """What an actor had before and has after it, in units."""

    actor: str
    resource: str
    before: float
    after: float


class LinearAnswer(BaseModel):
    """The issue to be written."""

    issue_id: str
    title: str
    description: str
    priority: int


class OutcomeAnswer(BaseModel):
    """What became of it."""

    model_config = ConfigDict(
        title="Outcome",
        json_schema_extra={
            "examples": [
                {
                    "proposal_id": ROUND_ID, "kind": "proposal", "outcome": "rejected", "entries": [], "epoch": 42,
                    "violations": [{"code": "max_transfer", "path": "transfers[0].amount", "limit": 50, "actual": 60,
                                    "words": "transfers[0]: 60 kWh is above 50 kWh, the most that …"}],
                    "seq": 812, "digest": "9f" * 32, "at": "2026-11-22T12:00:00Z",
                    "url": f"http://127.0.0.1:8080/proposals?id={ROUND_ID}",
                    "balances": [{"actor": "actor-1", "resource": "energy", "before": 100, "after": 100}],
                    "linear": {"issue_id": ROUND_ID, "title": "Rejected: …", "description": "…", "priority": 3},
                }
            ]
        },
    )  # fmt: skip

    proposal_id: str | None
    outcome: Literal["executed", "rejected", "held", "noop", "malformed", "unavailable"]
    violations: list[ViolationAnswer]
    entries: list[int]
    epoch: int
    seq: int | None = Field(description="The journal record; null in a dry run")
    digest: str | None
    at: str
    url: str | None = None
    balances: list[BalanceAnswer]
    linear: LinearAnswer | None = None
    dry_run: bool | None = None
    shadow: bool | dict[str, Any] | None = Field(
        None, description="true: it was judged and never applied; an object: what became of the shadow of this round"
    )
    reply: dict[str, Any] | None = Field(
        None, description="Whose reply it came of: model, origin (synthetic: no model ever gave it; or recorded)"
    )
    interaction: dict[str, Any] | None = Field(
        None, description="How a model was asked: prompt, prompt_digest, model_asked, model_answered, usage, latency_ms"
    )


class ActAnswer(BaseModel):
    """A record without an outcome, and what is in force from there on."""

    model_config = ConfigDict(
        title="Act",
        json_schema_extra={
            "examples": [
                {"kind": "control", "seq": 9, "digest": "9f" * 32, "epoch": 42, "at": "2026-11-22T12:00:00Z",
                 "paused": True, "operator": "mia", "reason": "storm"}
            ]
        },
    )  # fmt: skip

    kind: str
    seq: int | None
    digest: str | None
    epoch: int
    at: str
    operator: str
    reason: str
    dry_run: bool | None = None


class PageAnswer(BaseModel):
    """A page, and the `after` of the next one: null where this is the last."""

    model_config = ConfigDict(title="Page", json_schema_extra={"examples": [{"items": [], "next": None}]})

    items: list[dict[str, Any]]
    next: int | None


class DigestsAnswer(BaseModel):
    """A page of digests, and the `after` of the next one: null where this is the last."""

    model_config = ConfigDict(title="Digests", json_schema_extra={"examples": [{"items": [], "next": None}]})

    items: list[dict[str, Any]]
    next: str | None


class RecentAnswer(BaseModel):
    """A page, newest first, and the `before` of the next one: null where there is nothing before.

    It may have few items, or none: `looked_back_to` is the number down to which everything was looked at.
    """

    model_config = ConfigDict(
        title="Recent", json_schema_extra={"examples": [{"items": [], "next": None, "looked_back_to": 1}]}
    )

    items: list[dict[str, Any]]
    next: int | None
    looked_back_to: int


class AnyAnswer(BaseModel):
    """An object; the example shows it."""

    model_config = ConfigDict(title="Object", extra="allow")


class ContextAnswer(BaseModel):
    """The open round, and the request that puts it to a model: post `request.body` to `request.path`, as it is."""

    model_config = ConfigDict(
        title="Context",
        json_schema_extra={
            "examples": [
                {
                    "round": {"epoch": 42, "proposer": "planner", "n": 1}, "proposal_id": ROUND_ID, "paused": False,
                    "world_state": {"epoch": 42, "timestamp": "2026-11-22T12:00:00Z", "actors": [],
                                    "resources": ["energy"], "constraints": {"max_transfer": 50, "min_balance": 0}},
                    "world_state_digest": f"42-1-1200-{'9f' * 16}",
                    "request": {"model": "gemini-3.8-flash", "path": "/v1/models/gemini-3.8-flash:generateContent",
                                "body": {}},
                    "request_key": "9f" * 32,
                }
            ]
        },
    )  # fmt: skip

    round: dict[str, Any]
    proposal_id: str
    paused: bool
    decided: OutcomeAnswer | None = None
    world_state: dict[str, Any]
    world_state_digest: str
    request: dict[str, Any]
    request_key: str
    shadow: bool | None = None


BODIES = (
    SubmissionBody, ReasonBody, TransfersBody, ControlBody, ConstraintsBody, ActorBody, FreezeBody, ActivationBody,
    FlowsBody, CloseBody, AckBody, ProblemBody,
)  # fmt: skip
