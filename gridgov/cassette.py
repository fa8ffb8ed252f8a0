"""Recorded exchanges with a model: written as they come, replayed strictly, checked and shown; nothing is sent here.

A cassette is a file of JSON lines, one interaction each, in canonical form and with a digest of its own. A replay
answers a request by its key alone: what was not recorded is a `CassetteMiss`, never a live call and never the next best
line. Each line holds what the model was shown, so that a miss can say what changed; the system text, the same for all
rounds of a prompt, stands only in the first line that has it.
"""

from __future__ import annotations

import base64
import difflib
import json
import os
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

from gridgov.amounts import LIMIT, plain_decimal, to_decimal
from gridgov.errors import BadInput, CassetteMiss, Damaged
from gridgov.journal import canonical
from gridgov.model import Malformed, Resource, Round, Unavailable
from gridgov.prompt import FOLDER, Prompt, Request, digest, exact_json, load, names, render
from gridgov.propose import Answer, Context, Proposer
from gridgov.reply import about, parse_body
from gridgov.wire import Json, known, timestamp

VERSION = 1
"""Of the form of a line."""

ORIGINS = ("recorded", "edited", "synthetic")
"""Who made a reply: a model; a model and then a person; a policy or a person, and no model ever gave it."""

SYNTHETIC = "synthetic/"
"""What the name of a model begins with that is none: a policy, or a stub."""

RETIRED = {"gemini-2.5-flash": "2026-12-01", "gemini-2.5-pro": "2026-12-01"}
"""Models and the day from which another one answers in their name. As published in November 2026."""


def retired(model: str, today: str) -> str | None:
    """A sentence where another model answers in the name of this one on a day such as 2026-11-30."""
    since = RETIRED.get(model.removeprefix("models/"))
    return f"{model} is retired since {since}: another model answers in its name" if since and since <= today else None


DIFF_LINES = 40
DIFF_WIDTH = 200

_TAG = "gridgov-interaction/1\n"


class Exchange(NamedTuple):
    """What came of one question to a model. `status` is None where no response came, and `failure` says why.

    `at` is when it was asked, as `wire.timestamp` writes it; `cost` is a plain decimal by the price table named.
    """

    status: int | None
    body: bytes
    at: str
    failure: str = ""
    latency_ms: int | None = None
    attempts: int = 1
    cost: str | None = None
    price_table: str | None = None
    sdk: str | None = None


@dataclass(frozen=True)
class Interaction:
    """One exchange with a model: what was asked, what came back, and all about it. One line of a cassette.

    `components` are the digests of `prompt.Request`; `user` is the text of the request with the data block, `system`
    its system text (None where an earlier line has it); `body` are the raw bytes of the reply. `supersedes` is the
    digest of an earlier line with the same key whose call had failed.
    """

    origin: str
    request_key: str
    sample: int
    components: dict[str, str]
    prompt: str
    model_asked: str
    parameters: Json
    round: Round
    user: str
    system: str | None
    status: int | None
    body: bytes
    at: str
    failure: str = ""
    model_answered: str | None = None
    finish_reason: str | None = None
    usage: Mapping[str, int] = field(default_factory=dict)
    latency_ms: int | None = None
    attempts: int = 1
    cost: str | None = None
    price_table: str | None = None
    sdk: str | None = None
    supersedes: str | None = None
    version: int = VERSION

    @cached_property
    def digest(self) -> str:
        """64 hex of sha256 over everything in the line but this."""
        return digest(_TAG + canonical(_plain(self)))

    @cached_property
    def line(self) -> str:
        """The interaction as one line, without its end."""
        return canonical({**_plain(self), "digest": self.digest})

    @property
    def prompt_digest(self) -> str:
        """The digest of the prompt with its includes."""
        return self.components.get("prompt", "")

    @property
    def other_model(self) -> bool:
        """Whether another model answered than the one that was asked."""
        return differs(self.model_asked, self.model_answered)

    def result(self, resources: Mapping[str, Resource]) -> Answer | Malformed | Unavailable:
        """What the recorded reply comes to."""
        return parse_body(self.status, self.body, resources, failure=self.failure)

    def row(self, round_: Round | None = None) -> Json:
        """What the export keeps of it, for the round of the run in which it was used."""
        epoch, proposer, n = used = round_ or self.round
        return {
            "epoch": epoch,
            "proposer": proposer,
            "n": n,
            "proposal_id": used.proposal_id,
            "origin": self.origin,
            "request_key": self.request_key,
            "model_asked": self.model_asked,
            "model_answered": self.model_answered,
            "status": None if self.status is None else str(self.status),
            "finish_reason": self.finish_reason,
            "prompt": self.prompt,
            "prompt_digest": self.prompt_digest,
            "tokens_in": self.usage.get("prompt"),
            "tokens_out": self.usage.get("answer"),
            "tokens_thought": self.usage.get("thoughts"),
            "cost": self.cost,
            "latency_ms": self.latency_ms,
            "attempts": self.attempts,
            "at": self.at,
            "line": self.line,
            "digest": self.digest,
        }


def differs(asked: str | None, answered: str | None) -> bool:
    """Whether another model answered than the one that was asked, as far as both are known."""
    return None not in (asked, answered) and str(answered).removeprefix("models/") != asked


def other_models(used: Iterable[Interaction]) -> dict[str, int]:
    """How many replies came from another model than was asked, as `asked -> answered`; synthetic ones are none's."""
    return _counts(
        f"{one.model_asked} -> {one.model_answered}" for one in used if one.other_model and one.origin != "synthetic"
    )


def interaction_of(
    request: Request, round_: Round, exchange: Exchange, origin: str, *, supersedes: str | None = None
) -> Interaction:
    """The interaction that an exchange makes; model, finish reason and tokens are read from its body.

    A reply that names a synthetic model is synthetic, whatever was asked.
    """
    said = about(exchange.body)
    return Interaction(
        origin="synthetic" if said.model is not None and said.model.startswith(SYNTHETIC) else origin,
        request_key=request.request_key,
        sample=request.sample,
        components=request.components,
        prompt=request.prompt,
        model_asked=request.model,
        parameters=request.parameters,
        round=round_,
        user=request.user,
        system=request.system,
        model_answered=said.model,
        finish_reason=said.finish_reason,
        usage=said.usage,
        supersedes=supersedes,
        **exchange._asdict(),
    )


def edited(interaction: Interaction, body: bytes) -> Interaction:
    """The interaction with another reply, made by a person; its line says so."""
    said = about(body)
    return replace(
        interaction,
        origin="synthetic" if interaction.origin == "synthetic" else "edited",
        body=body,
        model_answered=said.model,
        finish_reason=said.finish_reason,
        usage=said.usage,
    )


# --- lines ------------------------------------------------------------------------------------------------------------

_DEFAULTS = {"failure": "", "usage": {}, "attempts": 1}
_TYPES: dict[str, type] = {
    "origin": str, "request_key": str, "sample": int, "components": dict, "prompt": str, "model_asked": str,
    "parameters": dict, "round": dict, "user": str, "system": str, "status": int, "body": str, "body_base64": str,
    "at": str, "failure": str, "model_answered": str, "finish_reason": str, "usage": dict, "latency_ms": int,
    "attempts": int, "cost": str, "price_table": str, "sdk": str, "supersedes": str, "version": int, "digest": str,
}  # fmt: skip
_COST = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12})?")
_REQUIRED = (
    "at", "components", "digest", "model_asked", "origin", "parameters", "prompt", "request_key", "round", "sample",
    "user", "version",
)  # fmt: skip


def _plain(interaction: Interaction) -> Json:
    """The line's plain values, without the digest; what is absent is left out."""
    found = {name.name: getattr(interaction, name.name) for name in fields(interaction)}
    found["round"] = interaction.round._asdict()
    found["usage"] = dict(interaction.usage)
    try:
        found["body"] = interaction.body.decode()
    except UnicodeDecodeError:
        del found["body"]
        found["body_base64"] = base64.b64encode(interaction.body).decode()
    return {key: own for key, own in found.items() if own is not None and own != _DEFAULTS.get(key)}


class Finding(NamedTuple):
    """Something about a cassette: its code, what it is in words, the lines, and whether it is a problem or a note."""

    code: str
    text: str
    lines: tuple[int, ...] = ()
    problem: bool = True


class _Refused(Exception):
    """Why a line can't be taken; never leaves this module."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.finding = Finding(code, text)


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice")
    return found


def _interaction(line: bytes) -> Interaction:
    """The interaction that a line holds; raises _Refused where it isn't what was written."""
    if not line.endswith(b"\n"):
        raise _Refused("truncated", "the line is cut off: it has no end")
    try:
        found = json.loads(line, object_pairs_hook=_unique, parse_float=Decimal, parse_constant=str)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise _Refused("not_json", f"no JSON ({error})") from None
    if not isinstance(found, dict) or not isinstance(found.get("digest"), str):
        raise _Refused("not_an_interaction", "expected an object with a digest")
    stated = found.pop("digest")
    try:
        text = canonical(found)
        intact = digest(_TAG + text) == stated
    except (TypeError, UnicodeEncodeError):
        intact = False
    if not intact:
        raise _Refused("tampered", "the line was changed after it was written: its digest is not that of its content")
    found["digest"] = stated
    wrong = _wrong(found)
    if wrong:
        raise _Refused("not_an_interaction", wrong)
    return _built(found)


def _wrong(found: Json) -> str:
    """What keeps plain values from being an interaction of this version; empty where nothing does."""
    if found.get("version") != VERSION:
        return f"expected version {VERSION}, found {found.get('version')!r}"
    for key, own in found.items():
        if key not in _TYPES:
            return f"unknown field {key!r}"
        if type(own) is not _TYPES[key]:
            return f"{key} is {type(own).__name__}; expected {_TYPES[key].__name__}"
    for key in _REQUIRED:
        if key not in found:
            return f"the field {key!r} is missing"
    if ("body" in found) == ("body_base64" in found):
        return "expected a body, as text or in base64"
    if found["origin"] not in ORIGINS:
        return f"origin is {found['origin']!r}; expected one of: {', '.join(ORIGINS)}"
    types = {key: type(own) for key, own in found["round"].items()}
    if types != {"epoch": int, "proposer": str, "n": int}:
        return "expected a round of epoch, proposer and n"
    if not _COST.fullmatch(found.get("cost", "0")):
        return f"cost is {found['cost']!r}; expected a plain decimal"
    whole = [*found.get("usage", {}).values(), *(found.get(key, 0) for key in ("latency_ms", "attempts", "sample"))]
    if any(type(own) is int and not 0 <= own < LIMIT for own in whole):
        return "a count is below 0, or beyond 15 digits"
    texts = {type(own) for own in found["components"].values()}
    counts = {type(own) for own in found.get("usage", {}).values()}
    return "" if texts <= {str} and counts <= {int} else "components are digests, usage are counts"


def _built(found: Json) -> Interaction:
    stated = found.pop("digest")
    if "body_base64" in found:
        try:
            body = base64.b64decode(found.pop("body_base64"), validate=True)
        except ValueError:
            raise _Refused("not_an_interaction", "body_base64 is no base64") from None
    else:
        body = found.pop("body").encode()
    defaults = {"system": None, "status": None}
    interaction = Interaction(**{**defaults, **found, "round": Round(**found["round"]), "body": body})
    if interaction.digest != stated:
        raise _Refused("not_an_interaction", "not in the form in which lines are written")
    return interaction


def _lines(lines: Iterable[bytes]) -> Iterator[Interaction | Finding]:
    """Each line as an interaction, or what is wrong with it. A key comes twice only where the first call had failed."""
    seen: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            found = _interaction(line)
        except _Refused as refused:
            yield refused.finding._replace(lines=(number,))
            continue
        before = seen.get(found.request_key)
        if before is not None and found.supersedes != before[1]:
            yield Finding("duplicate", f"the same request as in line {before[0]}", (number,))
            continue
        seen[found.request_key] = (number, found.digest)
        yield found


# --- a cassette -------------------------------------------------------------------------------------------------------


class Samples:
    """Counts, in one run, how often each request was made before."""

    def __init__(self) -> None:
        self._made: Counter[str] = Counter()

    def next(self, request: Request) -> Request:
        """The request as the next of its kind."""
        made = self._made[request.content_key]
        self._made[request.content_key] += 1
        return request.sampled(made)


class Cassette:
    """Recorded interactions, and which of them were used: one object for one run."""

    def __init__(self, interactions: Sequence[Interaction], name: str = "the cassette") -> None:
        self.name = name
        self.interactions = tuple(interactions)
        self.samples = Samples()
        self._used: set[str] = set()
        self._by_key = {found.request_key: i for i, found in enumerate(self.interactions)}
        self._systems = {
            found.components.get("system"): found.system for found in self.interactions if found.system is not None
        }
        self._places: dict[str, list[tuple[int, int, int]]] = {}
        self._all_places: list[tuple[int, int, int]] = []
        for i in self._by_key.values():
            epoch, proposer, n = self.interactions[i].round
            self._all_places.append((epoch, n, i))
            self._places.setdefault(proposer, []).append((epoch, n, i))
        for places in (self._all_places, *self._places.values()):
            places.sort()

    def find(self, request: Request) -> Interaction | None:
        """The recorded interaction with exactly this request, or None."""
        found = self._by_key.get(request.request_key)
        if found is None:
            return None
        self._used.add(request.request_key)
        return self.interactions[found]

    def unused(self) -> tuple[Interaction, ...]:
        """What no request asked for, in order; not what a later line supersedes."""
        return tuple(
            found
            for i, found in enumerate(self.interactions)
            if self._by_key[found.request_key] == i and found.request_key not in self._used
        )

    def system_of(self, interaction: Interaction) -> str | None:
        """The system text of an interaction's request; None where the line that had it was taken out."""
        return interaction.system or self._systems.get(interaction.components.get("system"))

    def line_of(self, interaction: Interaction) -> int:
        """The number of the line, from 1, in which the reply to this request is."""
        return self._by_key[interaction.request_key] + 1

    def nearest(self, round_: Round) -> Interaction | None:
        """The interaction of this round, else of the last one before it: of this proposer, or of any if it has none."""
        places = self._places.get(round_.proposer, self._all_places)
        if not places:
            return None
        place = bisect_right(places, (round_.epoch, round_.n, len(self.interactions))) - 1
        return self.interactions[places[max(place, 0)][2]]

    # --- why a request was not found ------------------------------------------------------------------------------

    def miss(self, request: Request, round_: Round) -> CassetteMiss:
        """The error that says, in one line, why this request has no recorded reply, and shows the difference."""
        where = f"{self.name} has no reply for epoch {round_.epoch}, {round_.proposer}, round {round_.n}"
        near = self.nearest(round_)
        assert near is not None, "an empty cassette is no one's recording"
        cause, said = self._cause(request, round_, near)
        line = self.line_of(near)
        was = _text_lines(self.system_of(near) or request.system, near.user)
        now = _text_lines(request.system, request.user)
        message = f"{where}: {said}; the nearest recording is line {line}; put back what changed, or record anew"
        return CassetteMiss(message, cause=cause, diff=_diff(was, now, f"recorded (line {line})", "asked now"))

    def _cause(self, request: Request, round_: Round, near: Interaction) -> tuple[str, str]:
        """What differs from the nearest recording, most telling first: the component, and a sentence."""
        if (near.round.epoch, near.round.n) != (round_.epoch, round_.n):
            last = max(found.round.epoch for found in self.interactions)
            return "not_recorded", f"this round was not recorded (the last epoch that was is {last})"
        words = {
            "prompt": f"the prompt template {request.prompt} changed{self._made_before(near)}",
            "model": f"the model differs ({near.model_asked} was recorded, {request.model} is asked)",
            "parameters": "the generation parameters differ",
            "constraints": "the constraints differ",
            "schema": "the form of the reply differs: its actors, its resources, or how it is asked for",
            "world_state": f"the world state differs (first divergent epoch {round_.epoch})",
            "history": "what the last proposals came to differs",
            "asked": "whose turn it is, or whose balances may be moved, differs",
            "text": "the rendered text differs, though nothing that it is made of does",
        }
        if near.prompt != request.prompt:
            words["prompt"] = f"the prompt is {request.prompt}, and {near.prompt} was recorded"
        was, now = near.components | {"model": near.model_asked}, request.components | {"model": request.model}
        changed = [key for key in words if was.get(key) != now.get(key)]
        if not changed:
            times = "once" if request.sample == 1 else f"{request.sample} times"
            return "sample", f"the same request was recorded {times}, and is asked again"
        others = ", ".join(key.replace("_", " ") for key in changed[1:] if key != "text")
        return changed[0], words[changed[0]] + (f"; also different: {others}" if others else "")

    def _made_before(self, near: Interaction) -> str:
        """How many recordings a changed prompt leaves behind, and which."""
        alike = [i for i, one in enumerate(self.interactions, start=1) if one.prompt == near.prompt]
        before = [i for i in alike if self.interactions[i - 1].prompt_digest == near.prompt_digest]
        lines = f"line {before[0]}" if len(before) == 1 else f"lines {before[0]} to {before[-1]}"
        return f", and {len(before)} of its {len(alike)} recordings ({lines}) are of what it was"


_BREAK = re.compile(
    r'(?<=[\]}]),(?=\{)|(?<=\]),(?=")|(?<=\}),(?="(?:epoch|resources|round|world_state|you)")|(?<=\[)(?=\{)'
)


def _text_lines(system: str, user: str) -> list[str]:
    """A request in lines, its data in one line for each actor."""
    return f"{system}\n\n{_BREAK.sub(lambda match: match.group() + chr(10), user)}".splitlines()


def _diff(was: Sequence[str], now: Sequence[str], was_name: str, now_name: str) -> str:
    found = list(difflib.unified_diff(was, now, was_name, now_name, n=1, lineterm=""))
    cut = [line if len(line) <= DIFF_WIDTH else line[: DIFF_WIDTH - 3] + "..." for line in found[:DIFF_LINES]]
    if len(found) > DIFF_LINES:
        cut.append(f"... and {len(found) - DIFF_LINES} lines more")
    return "\n".join(cut)


def read_lines(lines: Iterable[bytes], name: str = "the cassette") -> Cassette:
    """A cassette from its lines, each with its end. `name` is what errors call it.

    Raises Damaged where a line is cut off, was changed or comes twice, BadInput where it is none; both say which line.
    """
    taken = []
    for found in _lines(lines):
        if isinstance(found, Finding):
            kind = Damaged if found.code in ("truncated", "tampered", "duplicate") else BadInput
            raise kind(f"{name}:{found.lines[0]}: {found.text}")
        taken.append(found)
    return Cassette(taken, name)


def read(path: Path) -> Cassette:
    """The cassette in a file. Raises as `read_lines` does, and BadInput where the file can't be read."""
    return read_lines(_raw(path), str(path))


def _raw(path: Path) -> list[bytes]:
    """The lines of a file, each with its end; only the last may have none."""
    try:
        *lines, rest = path.read_bytes().split(b"\n")
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); expected a file of JSON lines") from None
    return [line + b"\n" for line in lines] + ([rest] if rest else [])


# --- replay -----------------------------------------------------------------------------------------------------------


class CassetteProposer:
    """Answers each round with the recorded reply to exactly the request that the round makes; never with another.

    Prompt, model and parameters are those of the recording, unless others are given. `interactions` are those that
    were used, in order; `rows` the same as an export keeps them.
    """

    def __init__(
        self,
        cassette: Cassette,
        *,
        folder: Path = FOLDER,
        prompt: Prompt | None = None,
        model: str | None = None,
        parameters: Json | None = None,
    ) -> None:
        self.cassette = cassette
        self.interactions: list[Interaction] = []
        self.rows: list[Json] = []
        self._folder = folder
        self._prompt = prompt
        self._model = model
        self._parameters = parameters
        self._prompts: dict[str, Prompt] = {}

    def rounds(self, epoch: int) -> int | None:
        """What the scenario says."""
        return None

    def propose(self, context: Context) -> Answer | Malformed | Unavailable:
        """The recorded reply, read anew. Raises CassetteMiss, saying why, where there is none."""
        near = self.cassette.nearest(context.round)
        if near is None:
            raise CassetteMiss(f"{self.cassette.name} has no reply to anything: it is empty", cause="not_recorded")
        request = render(
            self._prompt or self._recorded(near.prompt),
            context,
            model=self._model or near.model_asked,
            parameters=near.parameters if self._parameters is None else self._parameters,
        )
        request = self.cassette.samples.next(request)
        found = self.cassette.find(request)
        if found is None:
            raise self.cassette.miss(request, context.round)
        self.interactions.append(found)
        self.rows.append(found.row(context.round))
        return found.result(context.state.resources)

    def _recorded(self, name: str) -> Prompt:
        """The prompt of this name as it is now."""
        if name not in self._prompts:
            known(name, names(self._folder), "prompt", ())
            self._prompts[name] = load(name, self._folder)
        return self._prompts[name]


# --- recording --------------------------------------------------------------------------------------------------------


class Recorder:
    """Writes interactions as they come, into `NAME.part`, and puts the file in its place when the run is complete.

    With `resume`, what an interrupted run left in `NAME.part` (or else the complete file) is known already, and an
    interruption keeps what came so far; without, it leaves nothing. As a context manager it finishes where the block
    does, and stops where it raises. One object for one run.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self.path = path
        self.part = path.with_name(path.name + ".part")
        self.resume = resume
        self.samples = Samples()
        self.known = Cassette(())
        self._systems: set[str] = set()
        try:
            self._file = self._claimed()
            try:
                if resume:
                    self._go_on()
                else:
                    self._refuse_to_replace()  # not before it is claimed: a run that had it may end meanwhile
                    self._file.truncate(0)
            except BaseException:
                if not os.fstat(self._file.fileno()).st_size:
                    self.part.unlink()
                self._file.close()
                raise
        except OSError as error:
            raise BadInput(f"{self.part}: cannot be written ({error.strerror})") from None

    def _claimed(self) -> BinaryIO:
        """The unfinished file, which no other process writes as long as it is open. Raises BadInput where one does."""
        import fcntl  # whoever only replays needs no POSIX

        while True:
            file = os.fdopen(os.open(self.part, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_part(file):
                    return file
            except BlockingIOError:
                file.close()
                said = "another run is recording into it; wait until it ends, or choose another name"
                raise BadInput(f"{self.part}: {said}") from None
            file.close()  # whoever had it has just put it in its place

    def _is_part(self, file: BinaryIO) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), self.part.stat())
        except FileNotFoundError:
            return False

    def _go_on(self) -> None:
        """Goes on with what an interrupted run left, without a line that was cut off, and with what was there before.

        The latter is what is in the complete file and not in the other: a run may have ended while it was copied.
        """
        lines = _raw(self.part)
        whole = lines if not lines or lines[-1].endswith(b"\n") else lines[:-1]
        left = list(read_lines(whole, str(self.part)).interactions)
        before = read(self.path).interactions if self.path.exists() else ()
        self._systems = {one.components.get("system", "") for one in left if one.system}
        self._file.truncate(sum(map(len, whole)))
        self._file.seek(0, os.SEEK_END)
        last = {one.request_key: one.digest for one in left}
        for one in before:
            if last.get(one.request_key) == one.supersedes:
                left.append(self.write(one))
                last[one.request_key] = left[-1].digest
        self.known = Cassette(left)

    def _refuse_to_replace(self) -> None:
        """What a model was paid for is not overwritten by what can be made again."""
        for path in (self.path, self.part):
            for found in _lines(_raw(path)) if path.exists() else ():
                other = path is self.path if isinstance(found, Finding) else found.origin != "synthetic"
                if other:
                    said = "exists, and is more than a synthetic cassette; move it away, or choose another name"
                    raise BadInput(f"{path}: {said}")

    def write(self, interaction: Interaction) -> Interaction:
        """Writes one line and returns it as written; it is there for a later run once this returns."""
        if interaction.system is not None:
            system = interaction.components.get("system", "")
            if system in self._systems:
                interaction = replace(interaction, system=None)
            self._systems.add(system)
        self._file.write(interaction.line.encode() + b"\n")
        self._file.flush()
        return interaction

    def finish(self) -> None:
        """Puts the complete file in its place; until it is there, no other run can claim it."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            os.replace(self.part, self.path)
        finally:
            self._file.close()

    def stop(self) -> None:
        """Ends without a cassette; with `resume`, what came so far is kept for the next run."""
        try:
            if not self.resume and not self._file.closed:  # once it is closed, the name may be another run's
                self.part.unlink(missing_ok=True)
        finally:
            self._file.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.stop()


Ask = Callable[[Request, Context], Exchange]
"""Puts a request to a model, or to what stands in for one."""


class Recording:
    """Asks, and records every exchange; what the recorder knows already is not asked again.

    The answer is what the recorded body is read as, so that a replay can't differ from the run that was recorded. With
    `ask_again`, a recorded failure is asked anew, and the new line supersedes it.
    """

    def __init__(
        self,
        ask: Ask,
        prompt: Prompt,
        recorder: Recorder,
        *,
        model: str,
        origin: str = "recorded",
        parameters: Json | None = None,
        ask_again: bool = False,
        rounds: Callable[[int], int | None] = lambda epoch: None,
    ) -> None:
        self.interactions: list[Interaction] = []
        self.rows: list[Json] = []
        self.rounds = rounds
        self._ask = ask
        self._prompt = prompt
        self._recorder = recorder
        self._model = model
        self._origin = origin
        self._parameters = parameters
        self._ask_again = ask_again

    def propose(self, context: Context) -> Answer | Malformed | Unavailable:
        """The answer to this round, and one line more in the recording."""
        resources = context.state.resources
        request = render(self._prompt, context, model=self._model, parameters=self._parameters)
        request = self._recorder.samples.next(request)
        found = self._recorder.known.find(request)
        failed = found is not None and isinstance(found.result(resources), Unavailable)
        if found is None or (failed and self._ask_again):
            exchange = self._ask(request, context)
            supersedes = found.digest if found is not None else None
            found = interaction_of(request, context.round, exchange, self._origin, supersedes=supersedes)
            found = self._recorder.write(found)
        self.interactions.append(found)
        self.rows.append(found.row(context.round))
        return found.result(resources)


def recording(policy: Proposer, name: str, prompt: Prompt, recorder: Recorder) -> Recording:
    """A policy whose answers are recorded as synthetic replies of a model `synthetic/<name>`.

    The time of a synthetic line is that of the grid, so that the same run gives the same file. Proposing raises
    BadInput where the policy's answer can't be put as a reply of a model.
    """
    model = f"{SYNTHETIC}{name}"

    def ask(request: Request, context: Context) -> Exchange:
        answer = policy.propose(context)
        resources = context.state.resources
        if not isinstance(answer, Answer):
            raise BadInput(f"only proposals can be recorded as synthetic replies; {name} gave {type(answer).__name__}")
        body = synthetic_body(answer, resources, model)
        if parse_body(200, body, resources) != answer:
            raise BadInput(f"epoch {context.round.epoch}: the answer of {name} can't be put as a reply of a model")
        return Exchange(200, body, timestamp(context.state.at))

    return Recording(ask, prompt, recorder, model=model, origin="synthetic", rounds=policy.rounds)


def synthetic_body(answer: Answer, resources: Mapping[str, Resource], model: str) -> bytes:
    """The body of a Gemini reply that says this; amounts are exact."""
    transfers = [
        {
            "from": t.actor_from,
            "to": t.actor_to,
            "resource": t.resource,
            "amount": _units(t.amount, resources.get(t.resource)),
        }
        for t in answer.transfers
    ]
    text = exact_json({"transfers": transfers, "reasoning": answer.reasoning})
    content = {"parts": [{"text": text}], "role": "model"}
    candidate = {"content": content, "finishReason": "STOP", "index": 0}
    return exact_json({"candidates": [candidate], "modelVersion": model}).encode()


def _units(amount: int | Decimal, resource: Resource | None) -> int | Decimal:
    if isinstance(amount, Decimal) or resource is None:
        return amount
    return to_decimal(amount, resource.scale)


# --- what people look at ----------------------------------------------------------------------------------------------


def check(path: Path, folder: Path = FOLDER, *, today: str, used: Iterable[Interaction] | None = None) -> list[Finding]:
    """What there is to say about a cassette: damaged lines, stale prompts, retired models, unused lines, its origin.

    `today` is a day such as 2026-11-30; `used` is what a run of its scenario asked for, where there was one. Raises
    BadInput where the file can't be read.
    """
    found = list(_lines(_raw(path)))
    problems = [one for one in found if isinstance(one, Finding)]
    lines = [(i, one) for i, one in enumerate(found, start=1) if isinstance(one, Interaction)]
    digests = {name: load(name, folder).digest for name in names(folder)}
    grouped: dict[Finding, list[int]] = {}
    for i, one in lines:
        for finding in _about(one, digests, today):
            grouped.setdefault(finding, []).append(i)
    if used is not None:
        keys = {one.request_key for one in used}
        left = [i for i, one in lines if one.request_key not in keys]
        if left:
            grouped[Finding("unused", "the run never asked for these")] = left
    findings = problems + [finding._replace(lines=tuple(at)) for finding, at in grouped.items()]
    if lines and all(one.origin == "synthetic" for _, one in lines):
        note = "every reply is synthetic: made by a policy or by hand, no model ever gave them"
        findings.append(Finding("synthetic", note, problem=False))
    if not found:
        findings.append(Finding("empty", "there is nothing in it"))
    return findings


def _about(interaction: Interaction, digests: Mapping[str, str], today: str) -> Iterator[Finding]:
    name, asked = interaction.prompt, interaction.model_asked
    if name not in digests:
        yield Finding("stale", f"the prompt {name} isn't there any more")
    elif digests[name] != interaction.prompt_digest:
        yield Finding("stale", f"the prompt {name} was changed since")
    gone = retired(asked, today)
    if gone is not None:
        yield Finding("retired_model", f"{gone}, so what it said can't be recorded again")
    if interaction.other_model:
        yield Finding("other_model", f"{interaction.model_answered} answered where {asked} was asked", problem=False)


def overview(cassette: Cassette) -> Json:
    """A cassette in figures, as plain values: counts by origin, model, prompt, proposer, result and finish reason.

    `tokens` by kind and `cost` (plain decimal text, None where no line has one) are sums; `epochs` is first and last.
    """
    found = cassette.interactions
    costs = [Decimal(one.cost) for one in found if one.cost is not None]
    tokens: Counter[str] = Counter()
    for one in found:
        tokens.update(one.usage)
    epochs = [one.round.epoch for one in found]
    return {
        "file": cassette.name,
        "interactions": len(found),
        "epochs": [min(epochs), max(epochs)] if epochs else None,
        "origins": _counts(one.origin for one in found),
        "models": _counts(one.model_asked for one in found),
        "prompts": _counts(f"{one.prompt} {one.prompt_digest[:12]}" for one in found),
        "proposers": _counts(one.round.proposer for one in found),
        "results": _counts(_result(one) for one in found),
        "finish_reasons": _counts(one.finish_reason or "none" for one in found),
        "other_model": sum(one.other_model for one in found),
        "other_models": other_models(found),
        "tokens": dict(sorted(tokens.items())),
        "cost": plain_decimal(sum(costs, Decimal(0))) if costs else None,
    }


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _result(interaction: Interaction) -> str:
    """What the reply is, in a word or two; a proposal has still to be judged."""
    found = interaction.result({})
    if isinstance(found, Answer):
        return "proposal" if found.transfers else "noop"
    return f"malformed {found.code}" if isinstance(found, Malformed) else f"unavailable {found.kind}"


def listing(cassette: Cassette) -> list[Json]:
    """One row of plain values for each interaction, in order of the lines."""
    return [
        {
            "line": number,
            **one.round._asdict(),
            "result": _result(one),
            "origin": one.origin,
            "model": one.model_answered or one.model_asked,
            "prompt": one.prompt,
            "tokens": one.usage.get("total"),
            "latency_ms": one.latency_ms,
            "cost": one.cost,
            "at": one.at,
            "request_key": one.request_key,
        }
        for number, one in enumerate(cassette.interactions, start=1)
    ]


def exchange_text(cassette: Cassette, interaction: Interaction) -> tuple[str, str]:
    """What was asked and what came back, as text for a person."""
    system = cassette.system_of(interaction) or "(the system text is in no line)"
    return f"{system}\n\n{interaction.user}", interaction.body.decode(
        "utf-8", "backslashreplace"
    ) or interaction.failure


def step(cassette: Cassette, epoch: int, proposer: str | None = None) -> str:
    """How the first request of an epoch differs from the one before it of the same proposer: a unified diff.

    Raises BadInput where that epoch was not recorded.
    """
    own = [one for one in cassette.interactions if proposer in (None, one.round.proposer)]
    at = next((i for i, one in enumerate(own) if one.round.epoch == epoch), None)
    if at is None:
        raise BadInput(f"{cassette.name}: epoch {epoch} was not recorded{f' for {proposer}' if proposer else ''}")
    now = own[at]
    before = [one for one in own[:at] if one.round.proposer == now.round.proposer]
    if not before:
        return ""
    was = before[-1]
    first, second = (_text_lines(cassette.system_of(one) or "", one.user) for one in (was, now))
    return _diff(first, second, f"epoch {was.round.epoch}", f"epoch {now.round.epoch}")
