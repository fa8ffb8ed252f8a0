"""The strict reading of replies: bytes or text -> Answer | Malformed | Unavailable; no I/O, no rule of a grid.

A reply is taken as it is written or not at all: nothing is repaired, coerced, cut out or applied in part. Whatever
the bytes are, nothing is raised. Where more than one code would fit, the first in this order counts:

1. Was it the model at all? No response, any status but 200, HTML, an error object, a body that is no JSON or that
   ends early: `Unavailable` (quota, transport, auth, config), which is no decision.
2. Before anything is parsed, of the body and then of the text: `too_large` (bytes), `no_answer` (empty),
   `bad_unicode` (not UTF-8, U+0000, a lone surrogate as it stands), and then, by a linear scan from left to right,
   `too_deep` and `too_large` (digits).
3. The first fault of the JSON from left to right: `truncated`, `not_pure_json`, `multiple_values`, `duplicate_key`,
   `non_finite`, `bad_unicode` (escaped), `wrong_type` (a number in digits that are not ASCII).
4. Of the body: `no_answer` (no candidates), `multiple_values` (more than one), `not_finished` (its finish reason is
   not STOP), `no_answer` (no text), `not_pure_json` (something beside the text). Then the text, from step 2.
5. Of each object, outermost first: `wrong_type` (no object), `unknown_field`, `missing_field`, and `wrong_type` of its
   fields, in the order `transfers` (each: from, to, resource, amount), `reasoning`, `proposal_id`.

What is well-formed but wrong (an unknown actor, an amount of 0 or too precise) is for `validate` to refuse.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

from gridgov.amounts import LIMIT, plain_decimal, to_minor
from gridgov.model import Malformed, Resource, Transfer, Unavailable
from gridgov.propose import Answer

SIZE_MAX = 1 << 20
"""Most bytes of a body, and of the text in it."""

DEPTH_MAX = 64
"""Most objects and arrays inside each other."""

DIGITS_MAX = 64
"""Most digits of one number, its exponent included."""

DETAIL_MAX = 200
"""Most characters of what is said about a fault."""

_POWER_MIN = -10_000
"""Exponents below count as this one: over-precise either way, and a Decimal can't hold any."""

Resources = Mapping[str, Resource]


class Fault(StrEnum):
    """Every way in which a reply is no proposal."""

    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    BAD_UNICODE = "bad_unicode"
    TRUNCATED = "truncated"
    NOT_PURE_JSON = "not_pure_json"
    MULTIPLE_VALUES = "multiple_values"
    DUPLICATE_KEY = "duplicate_key"
    NON_FINITE = "non_finite"
    NO_ANSWER = "no_answer"
    NOT_FINISHED = "not_finished"
    WRONG_TYPE = "wrong_type"
    UNKNOWN_FIELD = "unknown_field"
    MISSING_FIELD = "missing_field"


class About(NamedTuple):
    """What a body says about itself: the model that answered, the finish reason, and tokens by kind."""

    model: str | None = None
    finish_reason: str | None = None
    usage: Mapping[str, int] = {}


_Path = tuple[str | int, ...]


class _Broken(Exception):
    """Ends the reading at the first fault; never leaves this module."""

    def __init__(self, code: Fault, path: _Path, found: str) -> None:
        super().__init__(code)
        where = _path(path)
        self.code = code
        self.detail = printable(f"{where}: {found}" if where else found)


# --- what people read ------------------------------------------------------------------------------------------------


def printable(text: str, most: int = DETAIL_MAX) -> str:
    """One line of at most `most` characters: what is cut is `...`, what can't be seen is written as an escape."""
    cut = text if len(text) <= most else text[:most]
    line = "".join(c if c.isprintable() else _escaped(c) for c in cut)
    return line if len(line) <= most and cut is text else line[: most - 3] + "..."


def _escaped(character: str) -> str:
    point = ord(character)
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def _path(path: _Path) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{printable(step, 40)}" for step in path)
    return "".join(steps).removeprefix(".")


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f'the text "{printable(value, 80)}"'
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, dict):
        return "an object"
    return "an array" if isinstance(value, list) else plain_decimal(value)


# --- strict JSON ------------------------------------------------------------------------------------------------------

_SCAN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]|[0-9][0-9.eE+-]*+', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACE = re.compile(r"[ \t\n\r]*+")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*+')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?")
_CUT_NUMBER = re.compile(r"(?:\.|[eE][+-]?)\Z")
_NON_FINITE = re.compile(r"(?:NaN|-?Infinity)\b")
_HEX = re.compile(r"[0-9a-fA-F]{4}")
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_LITERALS = {"true": True, "false": False, "null": None}


def _scan(text: str) -> None:
    """Refuses, in one pass and before parsing, what would cost too much to parse."""
    depth = 0
    for match in _SCAN.finditer(text):
        first = text[match.start()]
        if first in "[{":
            depth += 1
            if depth > DEPTH_MAX:
                raise _Broken(Fault.TOO_DEEP, (), f"more than {DEPTH_MAX} levels (character {match.start()})")
        elif first in "]}":
            depth -= 1
        elif first != '"' and match.end() - match.start() > DIGITS_MAX:
            digits = sum(c.isdigit() for c in match.group())
            if digits > DIGITS_MAX:
                raise _Broken(Fault.TOO_LARGE, (), f"a number of {digits} digits; {DIGITS_MAX} at most")


class _Reader:
    """Reads one JSON document from left to right and stops at the first fault; `_scan` came before it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def document(self) -> Any:
        """The one value of the text."""
        self._space()
        value = self._value(())
        self._space()
        if self.at == len(self.text):
            return value
        start = self.at
        if self.text[start] in "[{":
            try:
                self._value(())
            except _Broken:
                self.at = start
            else:
                raise _Broken(Fault.MULTIPLE_VALUES, (), f"another value after the first (character {start})")
        raise self._impure((), "the end")

    def _space(self) -> None:
        match = _SPACE.match(self.text, self.at)
        assert match is not None
        self.at = match.end()

    def _impure(self, path: _Path, expected: str) -> _Broken:
        """The fault at this place: the text ends early, or something stands here that can't."""
        if self.at >= len(self.text):
            return _Broken(Fault.TRUNCATED, path, f"the text ends where {expected} should come")
        found = printable(self.text[self.at : self.at + 20], 40)
        said = f'expected {expected}, found "{found}" (character {self.at})'
        return _Broken(Fault.NOT_PURE_JSON, path, said)

    def _value(self, path: _Path) -> Any:
        first = self.text[self.at : self.at + 1]
        if first == '"':
            self.at += 1
            return self._string(path)
        if first == "{":
            self.at += 1
            return self._object(path)
        if first == "[":
            self.at += 1
            return self._array(path)
        for literal, value in _LITERALS.items():
            if self.text.startswith(literal, self.at):
                self.at += len(literal)
                return value
        return self._number(path)

    def _object(self, path: _Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self._space()
        if self._take("}"):
            return found
        while True:
            if not self._take('"'):
                raise self._impure(path, "a key")
            key = self._string(path)
            if key in found:
                raise _Broken(Fault.DUPLICATE_KEY, (*path, key), "this key comes twice")
            self._space()
            if not self._take(":"):
                raise self._impure((*path, key), "a colon")
            self._space()
            found[key] = self._value((*path, key))
            self._space()
            if self._take("}"):
                return found
            if not self._take(","):
                raise self._impure(path, "a comma or the end of the object")
            self._space()

    def _array(self, path: _Path) -> list[Any]:
        found: list[Any] = []
        self._space()
        if self._take("]"):
            return found
        while True:
            found.append(self._value((*path, len(found))))
            self._space()
            if self._take("]"):
                return found
            if not self._take(","):
                raise self._impure(path, "a comma or the end of the array")
            self._space()

    def _take(self, character: str) -> bool:
        if self.text.startswith(character, self.at):
            self.at += 1
            return True
        return False

    def _string(self, path: _Path) -> str:
        """The rest of a string; its opening quote is behind."""
        parts = []
        while True:
            match = _PLAIN.match(self.text, self.at)
            assert match is not None
            parts.append(match.group())
            self.at = match.end()
            if self._take('"'):
                return "".join(parts)
            if not self._take("\\"):
                raise self._impure(path, "the rest of a text")
            parts.append(self._escape(path))

    def _escape(self, path: _Path) -> str:
        """One escape; its backslash is behind."""
        kind = self.text[self.at : self.at + 1]
        if kind != "u":
            if kind not in _ESCAPES or not kind:
                raise self._impure(path, "an escape")
            self.at += 1
            return _ESCAPES[kind]
        self.at += 1
        unit = self._unit(path)
        if 0xD800 <= unit < 0xDC00:
            rest = self.text[self.at : self.at + 2]
            if rest == "\\u":
                self.at += 2
                low = self._unit(path)
                if 0xDC00 <= low < 0xE000:
                    return chr(0x10000 + ((unit - 0xD800) << 10) + low - 0xDC00)
            elif self.at + len(rest) == len(self.text) and "\\u".startswith(rest):
                self.at = len(self.text)
                raise self._impure(path, "the rest of an escape")
        if 0xD800 <= unit < 0xE000:
            raise _Broken(Fault.BAD_UNICODE, path, f"the lone surrogate \\u{unit:04x}")
        if not unit:
            raise _Broken(Fault.BAD_UNICODE, path, "U+0000")
        return chr(unit)

    def _unit(self, path: _Path) -> int:
        match = _HEX.match(self.text, self.at)
        if match is None:
            rest = self.text[self.at :]
            if len(rest) < 4 and all(c in "0123456789abcdefABCDEF" for c in rest):
                self.at = len(self.text)
            raise self._impure(path, "four hexadecimal digits")
        self.at = match.end()
        return int(match.group(), 16)

    def _number(self, path: _Path) -> int | Decimal:
        match = _NUMBER.match(self.text, self.at)
        if match is None:
            raise self._no_value(path)
        self.at = match.end()
        if _CUT_NUMBER.match(self.text, self.at):
            self.at = len(self.text)
            raise self._impure(path, "the rest of a number")
        token = match.group()
        try:
            return int(token) if token.lstrip("-").isdigit() else _fraction(token)
        except OverflowError:
            raise _Broken(Fault.NON_FINITE, path, f"{token} is no finite number") from None

    def _no_value(self, path: _Path) -> _Broken:
        """Why no value begins here."""
        match = _NON_FINITE.match(self.text, self.at)
        if match is not None:
            return _Broken(Fault.NON_FINITE, path, f"{match.group()} is no finite number")
        rest = self.text[self.at : self.at + 10]
        cut = any(literal.startswith(rest) for literal in ("true", "false", "null", "-"))
        if rest and cut and self.at + len(rest) == len(self.text):
            self.at = len(self.text)
        elif rest[:1].isdigit() and not rest[:1].isascii():
            return _Broken(Fault.WRONG_TYPE, path, f'expected a number, found "{printable(rest)}"')
        return self._impure(path, "a value")


def _fraction(token: str) -> int | Decimal:
    """A number with a point or a power, exactly. Raises OverflowError where it is beyond what a double holds."""
    mantissa, _, power = token.lower().partition("e")
    if not mantissa.strip("-0."):
        return 0
    if math.isinf(float(token)):
        raise OverflowError(token)
    return Decimal(f"{mantissa}e{max(int(power), _POWER_MIN)}") if power else Decimal(mantissa)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(name)


_QUICK = json.JSONDecoder(object_pairs_hook=_once, parse_float=_fraction, parse_constant=_no_constant)
_LONG = re.compile(rf"[0-9.eE+-]{{{DIGITS_MAX + 1}}}")
_UNSURE = object()


def _quickly(text: str) -> Any:
    """The value, by the reader in C, where there is nothing that it reads otherwise than ours; else _UNSURE."""
    if "\\u" in text or text.count("{") + text.count("[") > DEPTH_MAX or _LONG.search(text):
        return _UNSURE
    try:
        return _QUICK.decode(text)
    except (ValueError, OverflowError):
        return _UNSURE


def _read(text: str) -> Any:
    if len(text) > SIZE_MAX or len(text.encode("utf-8", "surrogatepass")) > SIZE_MAX:
        raise _Broken(Fault.TOO_LARGE, (), f"more than {SIZE_MAX} bytes")
    if not text.strip():
        raise _Broken(Fault.NO_ANSWER, (), "empty")
    if "\0" in text:
        raise _Broken(Fault.BAD_UNICODE, (), f"U+0000 (character {text.index(chr(0))})")
    lone = _SURROGATE.search(text)
    if lone is not None:
        raise _Broken(Fault.BAD_UNICODE, (), f"a lone surrogate (character {lone.start()})")
    found = _quickly(text)
    if found is not _UNSURE:
        return found
    _scan(text)
    return _Reader(text).document()


def _decoded(data: bytes) -> str:
    if len(data) > SIZE_MAX:
        raise _Broken(Fault.TOO_LARGE, (), f"{len(data)} bytes; {SIZE_MAX} at most")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _Broken(Fault.BAD_UNICODE, (), f"byte {error.start} is not UTF-8") from None


def load(data: bytes | str) -> Any:
    """One JSON value, read strictly: numbers are int or Decimal, never float. Malformed where the text is none."""
    try:
        return _read(data if isinstance(data, str) else _decoded(data))
    except _Broken as broken:
        return _malformed(broken, data)


def _malformed(broken: _Broken, raw: bytes | str) -> Malformed:
    found = raw if isinstance(raw, bytes) else raw.encode("utf-8", "surrogatepass")
    return Malformed(broken.code.value, broken.detail, found)


# --- proposals --------------------------------------------------------------------------------------------------------

_ANSWER = ("transfers", "reasoning")
_TRANSFER = ("from", "to", "resource", "amount")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


def parse_text(text: str, resources: Resources) -> Answer | Malformed:
    """A proposal of exactly `{"transfers": [{"from", "to", "resource", "amount"}], "reasoning"}`, or why it is none.

    Amounts become minor units where the resource is known and its scale can express them; else they stay Decimal, in
    units, and the validator refuses them. `Malformed.raw` is the text's bytes. Complexity: O(characters).
    """
    try:
        return _answer(_read(text), resources, _ANSWER)
    except _Broken as broken:
        return _malformed(broken, text)


def parse_client(text: str, resources: Resources) -> tuple[str | None, Answer] | Malformed:
    """A proposal as a client sends it: as `parse_text`, with `reasoning` and `proposal_id` (a UUID) optional."""
    try:
        value = _read(text)
        answer = _answer(value, resources, ("transfers",), ("proposal_id", "reasoning"))
        if "proposal_id" not in value:
            return None, answer
        proposal_id = value["proposal_id"]
        if not isinstance(proposal_id, str) or not _UUID.fullmatch(proposal_id):
            raise _Broken(Fault.WRONG_TYPE, ("proposal_id",), f"expected a UUID, found {_shown(proposal_id)}")
    except _Broken as broken:
        return _malformed(broken, text)
    return proposal_id.lower(), answer


def answer_of(value: Any, resources: Resources, raw: bytes = b"") -> Answer | Malformed:
    """The proposal in a value that `load` read, where it is only a part of a larger document (a line, a request)."""
    try:
        return _answer(value, resources, ("transfers",), ("reasoning",))
    except _Broken as broken:
        return _malformed(broken, raw)


def _answer(value: Any, resources: Resources, required: Collection[str], optional: Collection[str] = ()) -> Answer:
    _fields(value, (), required, optional)
    transfers, reasoning = value["transfers"], value.get("reasoning", "")
    if not isinstance(transfers, list):
        raise _Broken(Fault.WRONG_TYPE, ("transfers",), f"expected an array, found {_shown(transfers)}")
    found = tuple(_transfer(one, resources, ("transfers", i)) for i, one in enumerate(transfers))
    if not isinstance(reasoning, str):
        raise _Broken(Fault.WRONG_TYPE, ("reasoning",), f"expected text, found {_shown(reasoning)}")
    return Answer(found, reasoning)


def _fields(value: Any, path: _Path, required: Collection[str], optional: Collection[str] = ()) -> None:
    if not isinstance(value, dict):
        raise _Broken(Fault.WRONG_TYPE, path, f"expected an object, found {_shown(value)}")
    for key in value:
        if key not in required and key not in optional:
            raise _Broken(Fault.UNKNOWN_FIELD, (*path, key), f"expected only {', '.join((*required, *optional))}")
    for key in required:
        if key not in value:
            raise _Broken(Fault.MISSING_FIELD, (*path, key), "this field is missing")


def _transfer(value: Any, resources: Resources, path: _Path) -> Transfer:
    _fields(value, path, _TRANSFER)
    for key in ("from", "to", "resource"):
        if not isinstance(value[key], str):
            raise _Broken(Fault.WRONG_TYPE, (*path, key), f"expected text, found {_shown(value[key])}")
    amount = value["amount"]
    if isinstance(amount, bool) or not isinstance(amount, int | Decimal):
        raise _Broken(Fault.WRONG_TYPE, (*path, "amount"), f"expected a number, found {_shown(amount)}")
    resource = resources.get(value["resource"])
    minor = to_minor(amount, resource.scale) if resource is not None else None
    return Transfer(value["from"], value["to"], value["resource"], Decimal(amount) if minor is None else minor)


# --- Gemini's generateContent -----------------------------------------------------------------------------------------

_STATUS_WORD = re.compile(r"[A-Z][A-Z_]{1,40}")
_USAGE = {
    "promptTokenCount": "prompt",
    "cachedContentTokenCount": "cached",
    "candidatesTokenCount": "answer",
    "thoughtsTokenCount": "thoughts",
    "totalTokenCount": "total",
}


def parse_body(
    status: int | None, body: bytes, resources: Resources, *, failure: str = ""
) -> Answer | Malformed | Unavailable:
    """What the HTTP answer of generateContent comes to. Nothing is raised, whatever the bytes are.

    `status` is None where no response came, and then `failure` says why (a timeout, a reset). `Malformed.raw` is the
    body. The module says which code wins where several fit.
    """
    if status is None:
        return Unavailable("transport", printable(failure or "no response"))
    if status != 200:
        return _refused(status, body)
    if body.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<":
        return Unavailable("transport", "HTTP 200 with HTML in place of JSON")
    try:
        envelope = _read(_decoded(body))
    except _Broken as broken:
        if broken.code in (Fault.NOT_PURE_JSON, Fault.TRUNCATED):
            return Unavailable("transport", printable(f"HTTP 200 with a broken body: {broken.detail}"))
        return _malformed(broken, body)
    if isinstance(envelope, dict) and isinstance(envelope.get("error"), dict) and "candidates" not in envelope:
        code = envelope["error"].get("code")
        return _refused(code if type(code) is int else 500, body)
    try:
        return _answer(_read(_text_of(envelope)), resources, _ANSWER)
    except _Broken as broken:
        return _malformed(broken, body)


def unavailable_kind(status: int) -> str:
    """Which kind of failure an HTTP status other than 200 is: quota, transport, auth or config."""
    if status == 429:
        return "quota"
    if status in (401, 403):
        return "auth"
    return "config" if 300 <= status < 500 and status not in (408, 499) else "transport"


def _refused(status: int, body: bytes) -> Unavailable:
    """The failure that a status stands for; of the body only its status word is kept, since texts may hold secrets."""
    kind, word = unavailable_kind(status), ""
    found = load(body[:SIZE_MAX])
    error = found.get("error") if isinstance(found, dict) else None
    if isinstance(error, dict) and isinstance(error.get("status"), str):
        word = error["status"] if _STATUS_WORD.fullmatch(error["status"]) else ""
    if kind == "config" and b"API_KEY_INVALID" in body[:SIZE_MAX]:
        kind, word = "auth", "API_KEY_INVALID"
    return Unavailable(kind, f"HTTP {status} {word}".rstrip())


def _text_of(envelope: Any) -> str:
    """The text of the one finished candidate."""
    if not isinstance(envelope, dict):
        raise _Broken(Fault.WRONG_TYPE, (), f"expected an object, found {_shown(envelope)}")
    candidates = envelope.get("candidates")
    if not candidates:
        feedback = envelope.get("promptFeedback")
        reason = feedback.get("blockReason") if isinstance(feedback, dict) else None
        said = f"the prompt was blocked: {reason}" if isinstance(reason, str) else "there are none"
        raise _Broken(Fault.NO_ANSWER, ("candidates",), said)
    if not isinstance(candidates, list):
        raise _Broken(Fault.WRONG_TYPE, ("candidates",), f"expected an array, found {_shown(candidates)}")
    if len(candidates) > 1:
        raise _Broken(Fault.MULTIPLE_VALUES, ("candidates",), f"{len(candidates)} candidates; expected one")
    candidate, path = candidates[0], ("candidates", 0)
    if not isinstance(candidate, dict):
        raise _Broken(Fault.WRONG_TYPE, path, f"expected an object, found {_shown(candidate)}")
    reason = candidate.get("finishReason")
    if reason != "STOP":
        said = reason if isinstance(reason, str) else f"expected STOP, found {_shown(reason)}"
        raise _Broken(Fault.NOT_FINISHED, (*path, "finishReason"), said)
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    return _joined(parts if isinstance(parts, list) else [], (*path, "content", "parts"))


def _joined(parts: list[Any], path: _Path) -> str:
    """The text parts, joined; thoughts are no part of the answer, and nothing may stand beside it."""
    texts: list[str] = []
    other: tuple[_Path, str] | None = None
    for i, part in enumerate(parts):
        if not isinstance(part, dict) or not isinstance(part.get("text", ""), str):
            raise _Broken(Fault.WRONG_TYPE, (*path, i), "expected a part with text")
        if part.get("thought") is True:
            continue
        beside = sorted(key for key in part if key not in ("text", "thought", "thoughtSignature"))
        if beside:
            other = other or ((*path, i), beside[0])
        texts.append(part.get("text", ""))
    text = "".join(texts)
    if not text.strip():
        raise _Broken(Fault.NO_ANSWER, path, f"no text, but {other[1]}" if other else "no text")
    if other is not None:
        raise _Broken(Fault.NOT_PURE_JSON, other[0], f"{other[1]} beside the text")
    return text


def about(body: bytes) -> About:
    """What a body says about itself, as far as it can be read; nothing is raised."""
    found = load(body)
    if not isinstance(found, dict):
        return About()
    candidates, usage = found.get("candidates"), found.get("usageMetadata")
    candidate = candidates[0] if isinstance(candidates, list) and candidates else None
    reason = candidate.get("finishReason") if isinstance(candidate, dict) else None
    model = found.get("modelVersion")
    counts = usage if isinstance(usage, dict) else {}
    return About(
        model if isinstance(model, str) else None,
        reason if isinstance(reason, str) else None,
        {
            name: counts[key]
            for key, name in _USAGE.items()
            if type(counts.get(key)) is int and 0 <= counts[key] < LIMIT
        },
    )
