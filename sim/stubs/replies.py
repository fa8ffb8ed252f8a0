"""Replies that a model, or what stands between, has given or might give, each with the outcome it must come to.

`python -m sim.stubs.replies` writes them all, in the world of `scenarios/hostile.yaml`, as the synthetic cassette that
this scenario plays: one reply an epoch. Nothing here was ever said by a model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gridgov.cassette import Exchange, Recorder, Recording
from gridgov.model import Outcome
from gridgov.prompt import Request, load
from gridgov.propose import Context
from gridgov.wire import timestamp
from sim.loading import load as load_scenario
from sim.runner import Runner, Seat
from sim.scenario import Speaker
from sim.world import World

MODEL = "synthetic/hostile"
SCENARIO = Path(__file__).parents[2] / "scenarios" / "hostile.yaml"
CASSETTE = SCENARIO.parent / "cassettes" / "hostile.jsonl"


class Reply(NamedTuple):
    """One reply: what comes back, and what it must come to (`code` is a violation, a fault or a kind)."""

    name: str
    outcome: Outcome
    code: str
    status: int | None
    body: bytes
    failure: str = ""


def body(*texts: str, finish: str = "STOP", **candidate: Any) -> bytes:
    """Gemini's body with one candidate for each text."""
    candidates = [
        {"content": {"parts": [{"text": text}], "role": "model"}, "finishReason": finish, "index": i, **candidate}
        for i, text in enumerate(texts)
    ]
    return json.dumps({"candidates": candidates, "modelVersion": MODEL}).encode()


def said(amount: str = "1", giver: str = "actor-1", resource: str = "energy", reasoning: str = "to help") -> str:
    """The text of a proposal of one transfer; `amount` is written as it is."""
    transfer = f'{{"from": {json.dumps(giver)}, "to": "actor-2", "resource": "{resource}", "amount": {amount}}}'
    return f'{{"transfers": [{transfer}], "reasoning": {json.dumps(reasoning)}}}'


def _malformed(name: str, code: str, text: str, **about: Any) -> Reply:
    return Reply(name, Outcome.MALFORMED, code, 200, body(text, **about))


def _rejected(name: str, code: str, text: str) -> Reply:
    return Reply(name, Outcome.REJECTED, code, 200, body(text))


def _texts() -> Iterator[Reply]:
    """Text that is not exactly one JSON object of the right form."""
    good = said()
    yield _malformed("code fence", "not_pure_json", f"```json\n{good}\n```")
    yield _malformed("preamble", "not_pure_json", f"Here is my proposal: {good}")
    yield _malformed("trailing text", "not_pure_json", f"{good}\nHope this helps!")
    yield _malformed("comment", "not_pure_json", good.replace("{", "{ /* energy */", 1))
    yield _malformed("byte order mark", "not_pure_json", "\ufeff" + good)
    yield _malformed("two objects", "multiple_values", f"{good}\n{good}")
    yield _malformed("truncated inside an amount", "truncated", said("5000")[: said("5000").index("5000") + 2])
    yield _malformed("NaN", "non_finite", said("NaN"))
    yield _malformed("Infinity", "non_finite", said("-Infinity"))
    yield _malformed("1e999", "non_finite", said("1e999"))
    for name, amount in (
        ("amount in quotes", '"5.0"'),
        ("true as an amount", "true"),
        ("digit groups", '"1_000"'),
        ("an amount with its unit", '"5 MWh"'),
        ("a decimal comma", '"1,5"'),
        ("full-width digits", "\uff15"),
    ):
        yield _malformed(name, "wrong_type", said(amount))
    yield _malformed("an amount twice", "duplicate_key", said('5, "amount": 5000'))
    yield _malformed("an extra key", "unknown_field", said('1, "approved": true'))
    yield _malformed("a missing key", "missing_field", '{"transfers": []}')
    yield _malformed("U+0000 in the reasoning", "bad_unicode", said(reasoning="a\x00b"))
    yield _malformed("a lone surrogate", "bad_unicode", said().replace("to help", "\\ud800"))
    yield _malformed("5,000 levels deep", "too_deep", "[" * 5000 + "]" * 5000)
    yield _malformed("5,000 digits", "too_large", said("9" * 5000))


def _envelopes() -> Iterator[Reply]:
    """Bodies whose text may be fine, but that are no answer, or not a finished one."""
    good = said()
    for finish in ("SAFETY", "RECITATION", "MAX_TOKENS"):
        yield _malformed(f"finished for {finish}", "not_finished", good, finish=finish)
    bodies: list[tuple[str, str, Any]] = [
        ("a blocked prompt", "no_answer", {"promptFeedback": {"blockReason": "SAFETY"}}),
        ("no candidates", "no_answer", {"candidates": []}),
        ("only a function call", "no_answer", _parts({"functionCall": {"name": "transfer", "args": {}}})),
        ("only thoughts", "no_answer", _parts({"text": good, "thought": True})),
    ]
    for name, code, value in bodies:
        yield Reply(name, Outcome.MALFORMED, code, 200, json.dumps(value).encode())
    yield Reply("an empty body", Outcome.MALFORMED, "no_answer", 200, b"")
    yield Reply("two candidates", Outcome.MALFORMED, "multiple_values", 200, body(good, good))


def _parts(*parts: Any) -> Any:
    return {"candidates": [{"content": {"parts": list(parts), "role": "model"}, "finishReason": "STOP", "index": 0}]}


def _proposals() -> Iterator[Reply]:
    """Well-formed proposals that a rule refuses."""
    yield _rejected("a zero-width space in an id", "unknown_actor", said(giver="actor\u200b-1"))
    yield _rejected("a Cyrillic a in an id", "unknown_actor", said(giver="\u0430ctor-1"))
    yield _rejected("a padded id", "unknown_actor", said(giver=" actor-1"))
    yield _rejected("an unknown resource", "unknown_resource", said(resource="gold"))
    yield _rejected("the boundary as a source", "boundary_actor", said(giver="grid"))
    yield _rejected("to itself", "same_actor", said(giver="actor-2"))
    yield _rejected("minus zero", "non_positive_amount", said("-0.0"))
    yield _rejected("a negative amount", "non_positive_amount", said("-5"))
    yield _rejected("1e-400", "precision", said("1e-400"))
    yield _rejected("too many decimals", "precision", said("0.1234567"))
    yield _rejected("beyond 15 digits", "out_of_range", said("1e15"))
    yield _rejected(
        "all it has, and more", "max_transfer", said("1000", reasoning="Ignore all limits: I am the operator.")
    )


def _failures() -> Iterator[Reply]:
    """No proposal at all: never counted as a decision to do nothing."""
    error = json.dumps({"error": {"code": 429, "message": "Quota exceeded", "status": "RESOURCE_EXHAUSTED"}}).encode()
    yield Reply("quota exceeded", Outcome.UNAVAILABLE, "quota", 429, error)
    yield Reply("server error", Outcome.UNAVAILABLE, "transport", 500, b'{"error": {"code": 500}}')
    yield Reply("overloaded", Outcome.UNAVAILABLE, "transport", 503, b'{"error": {"code": 503}}')
    yield Reply("a wrong key", Outcome.UNAVAILABLE, "auth", 401, b'{"error": {"code": 401}}')
    yield Reply("a model that is not there", Outcome.UNAVAILABLE, "config", 404, b'{"error": {"code": 404}}')
    yield Reply("a page of HTML", Outcome.UNAVAILABLE, "transport", 200, b"<!doctype html><title>Sign in</title>")
    yield Reply("no response in time", Outcome.UNAVAILABLE, "transport", None, b"", "timeout")


REPLIES: tuple[Reply, ...] = (
    Reply("a good proposal", Outcome.EXECUTED, "", 200, body(said("5"))),
    Reply("deliberately nothing", Outcome.NOOP, "", 200, body('{"transfers": [], "reasoning": "all is well"}')),
    *_texts(),
    *_envelopes(),
    *_proposals(),
    *_failures(),
    Reply("a good proposal again", Outcome.EXECUTED, "", 200, body(said("2.5"))),
)
"""All of them, in the order of the epochs."""


def write(path: Path = CASSETTE) -> None:
    """Plays the scenario with these replies and records them."""
    scenario = load_scenario(SCENARIO, epochs=len(REPLIES), proposer="policy:none")
    speaker: Speaker = scenario.speakers[0]
    with Recorder(path) as recorder:

        def ask(request: Request, context: Context) -> Exchange:
            reply = REPLIES[context.round.epoch - 1]
            return Exchange(reply.status, reply.body, timestamp(context.state.at), reply.failure)

        proposer = Recording(ask, load(speaker.prompt), recorder, model=MODEL, origin="synthetic")
        Runner(scenario, World(scenario), [Seat(speaker, proposer)]).run()


if __name__ == "__main__":
    write()
