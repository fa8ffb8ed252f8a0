"""YAML read strictly, as JSON with comments: values, where each stands, and edits to them; it knows no scenarios.

A document is what JSON could say: mappings with text keys, lists, text, whole numbers (`int`), other numbers (exact
`Decimal`), true, false, null. A plain scalar that is none of JSON's words is text: `no`, `0x10` and dates stay text.
Duplicate keys, anchors, aliases, merge keys, tags, empty values and second documents are refused, each with its line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import yaml

from gridgov.errors import BadInput
from gridgov.wire import known

Path = tuple[str | int, ...]
"""The way to a value: keys and indexes, from the root."""

SIZE_MAX = 1_000_000
"""Most bytes that a document may have."""

DEPTH_MAX = 32
"""Most mappings and lists that may lie inside each other."""

NUMBER_MAX = 64
"""Most characters that a number may have."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_UNREADABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None}


class Mark(NamedTuple):
    """Where something stands in a file; both count from 1."""

    line: int
    column: int


# --- words of messages ------------------------------------------------------------------------------------------------


def shown(value: Any) -> str:
    """A value as a message shows it: on one line, and short."""
    if isinstance(value, str):
        text = repr(value)
        return text if len(text) <= 60 else text[:56] + "...'"
    for word, meaning in _WORDS.items():
        if value is meaning:
            return word
    if isinstance(value, int | Decimal):
        return str(value)
    return "a list" if isinstance(value, list) else "a mapping"


NAMED_BY = ("name", "id", "metric", "policy", "kind")
"""The keys whose text names an element of a list, the first that it has."""


def _element_name(element: Any) -> str | None:
    if isinstance(element, dict):
        for key in NAMED_BY:
            if isinstance(element.get(key), str):
                return str(element[key])
    return None


def dotted(root: Any, path: Path) -> str:
    """The path as people write it: elements of lists by name (see `NAMED_BY`), or by index where they have none."""
    parts = []
    here = root
    for step in path:
        try:
            below = here[step]
        except (KeyError, IndexError, TypeError):
            below = None
        named = _element_name(below) if isinstance(step, int) else None
        parts.append(str(step) if named is None else named)
        here = below
    return ".".join(parts)


# --- reading ----------------------------------------------------------------------------------------------------------


def _plain(text: str) -> Any:
    """What a plain scalar means; raises ValueError where it is a number that is absurd."""
    if text in _WORDS:
        return _WORDS[text]
    match = _NUMBER.fullmatch(text)
    if match is None:
        return text
    if len(text) > NUMBER_MAX:
        raise ValueError(f"found a number of {len(text)} characters; expected at most {NUMBER_MAX}")
    if match[1] is None and match[2] is None:
        return int(text)
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"found {text}; expected a number of sensible size") from None


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not come yet; `key` is the one that waits for its value."""

    value: Any
    path: Path
    key: str | None = None


class _Builder:
    """Turns parser events into values and marks, and refuses what JSON could not say."""

    def __init__(self, place: Callable[[int], str]) -> None:
        self.place = place
        self.value: Any = None
        self.marks: dict[Path, Mark] = {}
        self.documents = 0
        self.open: list[_Open] = []

    def refuse(self, message: str, path: Path, mark: Any) -> BadInput:
        where = f"{dotted(self.value, path)}: " if path else ""
        return BadInput(f"{self.place(mark.line + 1)}: {where}{message}", path)

    def build(self, events: Iterator[Any]) -> None:
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                self.documents += 1
                if self.documents > 1:
                    raise self.refuse("found a second document; expected one", (), event.start_mark)
            elif isinstance(event, yaml.NodeEvent):
                self.node(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self.open.pop()

    def node(self, event: Any) -> None:
        """A scalar, or the start of a mapping or list; an alias is refused."""
        inside = self.open[-1] if self.open else None
        path = self.next_path(inside)
        if isinstance(event, yaml.AliasEvent):
            raise self.refuse(f"found the alias *{event.anchor}; write it out", path, event.start_mark)
        if event.anchor is not None:
            raise self.refuse(f"found the anchor &{event.anchor}; write it out", path, event.start_mark)
        if event.tag is not None:
            raise self.refuse(f"found the tag {shown(event.tag)}; expected none", path, event.start_mark)
        if inside is not None and isinstance(inside.value, dict) and inside.key is None:
            self.take_key(inside, event)
        elif isinstance(event, yaml.ScalarEvent):
            self.put(inside, path, self.scalar(event, path), event.start_mark)
        else:
            if len(self.open) >= DEPTH_MAX:
                raise self.refuse(f"found more than {DEPTH_MAX} levels; expected fewer", (), event.start_mark)
            value: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
            self.put(inside, path, value, event.start_mark)
            self.open.append(_Open(value, path))

    @staticmethod
    def next_path(inside: _Open | None) -> Path:
        if inside is None:
            return ()
        if isinstance(inside.value, list):
            return (*inside.path, len(inside.value))
        return inside.path if inside.key is None else (*inside.path, inside.key)

    def scalar(self, event: Any, path: Path) -> Any:
        if _UNREADABLE.search(event.value):
            raise self.refuse("found a control character; expected text", path, event.start_mark)
        if event.style:
            return event.value
        if not event.value:
            raise self.refuse("found no value; expected one, or null, {}, [] or ''", path, event.start_mark)
        try:
            return _plain(event.value)
        except ValueError as error:
            raise self.refuse(str(error), path, event.start_mark) from None

    def take_key(self, inside: _Open, event: Any) -> None:
        mark = event.start_mark
        if not isinstance(event, yaml.ScalarEvent):
            raise self.refuse("found a key that is no text; expected text", inside.path, mark)
        key = self.scalar(event, inside.path) if event.value or event.style else ""
        if not isinstance(key, str):
            raise self.refuse(f"found the key {event.value}; expected text, in quotes", inside.path, mark)
        if key == "<<" and not event.style:
            raise self.refuse("found the merge key <<; write out what it merges", inside.path, mark)
        path = (*inside.path, key)
        if key in inside.value:
            first = self.marks[path].line
            raise self.refuse(f"key given twice (first on line {first}); expected once", path, mark)
        inside.key = key
        self.marks[path] = Mark(mark.line + 1, mark.column + 1)

    def put(self, inside: _Open | None, path: Path, value: Any, mark: Any) -> None:
        self.marks.setdefault(path, Mark(mark.line + 1, mark.column + 1))
        if inside is None:
            self.value = value
        elif isinstance(inside.value, list):
            inside.value.append(value)
        else:
            inside.value[inside.key] = value
            inside.key = None


def _syntax(text: str, error: yaml.MarkedYAMLError) -> str:
    """What is wrong with the YAML, and what to do."""
    mark = error.problem_mark or error.context_mark
    lines = text.splitlines()
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "found a tab; indent with spaces"
    if "{n}" in line:
        return f"{error.problem}; expected YAML: text with {{n}} needs quotes inside braces"
    return f"{error.problem}; expected YAML"


def _compose(text: str, place: Callable[[int], str]) -> _Builder:
    if len(text.encode(errors="surrogatepass")) > SIZE_MAX:
        raise BadInput(f"{place(1)}: found {len(text):,} characters; expected at most {SIZE_MAX:,} bytes")
    unreadable = _UNREADABLE.search(text)
    if unreadable is not None:
        line = text.count("\n", 0, unreadable.start()) + 1
        raise BadInput(f"{place(line)}: found the control character {unreadable[0]!r}; expected text")
    builder = _Builder(place)
    try:
        builder.build(yaml.parse(text, Loader=_LOADER))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadInput(f"{place(mark.line + 1 if mark else 1)}: {_syntax(text, error)}") from None
    except yaml.YAMLError as error:
        raise BadInput(f"{place(1)}: {' '.join(str(error).split())}; expected YAML") from None
    if not builder.documents:
        raise BadInput(f"{place(1)}: found nothing; expected a value")
    return builder


def parse(text: str, file: str) -> Document:
    """The document that this text says; `file` is what messages call it. Raises BadInput with the line."""
    builder = _compose(text, lambda line: f"{file}:{line}")
    return Document(file, text, builder.value, builder.marks)


def parse_value(text: str, label: str) -> Any:
    """One value of a command line, by the same rules; messages open with the label."""
    return _compose(text, lambda _: label).value


def read_text(path: FilePath) -> str:
    """The text of a file, UTF-8 and not too large. Raises BadInput."""
    try:
        with path.open("rb") as file:
            content = file.read(SIZE_MAX + 1)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}; expected a file to read") from None
    if len(content) > SIZE_MAX:
        raise BadInput(f"{path}: found more than {SIZE_MAX:,} bytes; expected a scenario, not data")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}:{line}: found bytes that are no UTF-8; expected UTF-8 text") from None


# --- editing ----------------------------------------------------------------------------------------------------------


def _step(here: Any, parts: list[str], path: Path, names: Collection[str]) -> tuple[str | int, int]:
    """The next step of a dotted key, and how many of its parts it takes: names may hold dots, the longest wins."""
    if isinstance(here, list):
        by_name: dict[str, int] = {}
        for index, each in enumerate(here):
            by_name.setdefault(_element_name(each) or str(index), index)
        indexes = {str(index): index for index in range(len(here))}
        for length in range(len(parts), 0, -1):
            found = {**indexes, **by_name}.get(".".join(parts[:length]))
            if found is not None:
                return found, length
        if not here:
            raise BadInput(f"found an empty list; expected an element {parts[0]!r}", path)
        known(parts[0], by_name, "element", path)
    for length in range(len(parts), 1, -1):
        name = ".".join(parts[:length])
        if name in here or name in names:
            return name, length
    return parts[0], 1


def assign(
    root: Any,
    key: str,
    value: Any,
    *,
    names: Collection[str] = (),
    shorthand: Callable[[Path], bool] = lambda path: False,
) -> Path:
    """Sets what a dotted key leads to, in place, and returns its path.

    Elements of lists are named as `NAMED_BY` says (the first of that name), or by index; mappings on the way are made
    where there are none. Where `shorthand` holds for a path, a number there is short for `{default: number}`.

    Args:
        root: A mapping, changed in place.
        key: For example `flows.pv.noise.normal`.
        value: What to put there.
        names: Names with dots in them that count as one step, though no key has them yet.
        shorthand: Tells where a number may become a mapping.

    Raises:
        BadInput: With the path where the key leads no further.
    """
    parts = key.split(".")
    if not all(parts):
        raise BadInput(f"found the key {key!r}; expected names with a dot between them")
    here: Any = root
    path: Path = ()
    while True:
        step, length = _step(here, parts, path, names)
        parts, path = parts[length:], (*path, step)
        if not parts:
            here[step] = value
            return path
        below = here.get(step) if isinstance(here, dict) else here[step]
        if below is None:
            below = here[step] = {}
        elif isinstance(below, int | Decimal) and not isinstance(below, bool) and shorthand(path):
            below = here[step] = {"default": below}
        elif not isinstance(below, dict | list):
            raise BadInput(f"found {shown(below)}; expected something that has a {parts[0]!r}", path)
        here = below


@dataclass(slots=True)
class Document:
    """A value read from a file, the mark of every path in it, and what was set since, each under its label."""

    file: str
    text: str
    value: Any
    marks: dict[Path, Mark]
    edits: dict[Path, str] = field(default_factory=dict)

    def edit(self, key: str, value: Any, label: str, shorthand: Callable[[Path], bool] = lambda path: False) -> None:
        """Sets what a dotted key leads to (see `assign`); errors there are told of the label, not of the file."""
        try:
            path = assign(self.value, key, value, shorthand=shorthand)
        except BadInput as error:
            where = f"{dotted(self.value, error.path)}: " if error.path else ""
            raise BadInput(f"{label}: {where}{error}", error.path) from None
        self.edits.pop(path, None)
        self.edits[path] = label

    def edited(self, path: Path) -> str | None:
        """The label of the latest edit that this path lies at or below, or that made what this path leads to."""
        made = path not in self.marks
        labels = [
            label
            for at, label in self.edits.items()
            if path[: len(at)] == at or (made and path and at[: len(path)] == path)
        ]
        return labels[-1] if labels else None

    def mark(self, path: Path) -> Mark:
        """Where the path stands in the file, or the nearest thing above it."""
        while path and path not in self.marks:
            path = path[:-1]
        return self.marks.get(path, Mark(1, 1))

    def place(self, path: Path) -> str:
        """`FILE:LINE` of the path, or the label of the edit that it comes from."""
        return self.edited(path) or f"{self.file}:{self.mark(path).line}"

    def bad(self, path: Path, message: str) -> BadInput:
        """The one-line error for this path."""
        where = f"{dotted(self.value, path)}: " if path else ""
        return BadInput(f"{self.place(path)}: {where}{message}", path)
