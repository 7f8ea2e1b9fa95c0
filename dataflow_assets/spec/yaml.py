"""Reading YAML from people who may be careless or hostile.

Here: bytes -> plain data with the place of every key and value, within limits on size, depth, nodes and aliases, with duplicate
keys, foreign tags and keys that are no text refused; every finding is a Problem with its line. Not here: what the data means
(`spec.models`, `spec.load`), what a scalar means (`spec.scalars`).

The C parser's events are composed here and not by PyYAML: its loader recurses without bound and expands merge keys without bound.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
)

from dataflow_assets.errors import Place, Problem
from dataflow_assets.spec.project import Path_, Places
from dataflow_assets.spec.scalars import Ambiguous, plain, tagged

try:
    from yaml._yaml import CParser as _Parser
except ImportError:  # PyYAML built without libyaml: the same events, ten times slower
    from yaml.loader import SafeLoader as _Parser  # type: ignore[assignment]

MAX_BYTES = 1_000_000
MAX_DEPTH = 50
MAX_NODES = 100_000
MAX_ALIASES = 1_000
MAX_PROBLEMS = 100

_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TEMPLATE = re.compile(r"(?:^|[:,\[-])\s*\{[{%]")
_CORE = "tag:yaml.org,2002:"
_QUOTE_TEMPLATE = "put quotes around a value that holds a template, as in key: \"{{ var('name') }}\""


@dataclass(frozen=True)
class Document:
    """One YAML document: its data and where each part of it stands."""

    data: Any
    places: Places


@dataclass(frozen=True)
class Parsed:
    """All documents of a file that are not empty, and everything wrong with the file. Documents with problems are included."""

    documents: tuple[Document, ...] = ()
    problems: tuple[Problem, ...] = ()


def read(path: Path) -> Parsed:
    """Parse the file at `path`. Never raises for what a file may hold or for one that cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        return Parsed(problems=(Problem(Place(str(path)), f"cannot be read: {error.strerror}"),))
    return parse(content, str(path))


def parse(content: bytes | str, file: str) -> Parsed:
    """Parse YAML text; `file` names it in every place. Never raises for what the text may hold."""
    if len(content) > MAX_BYTES:
        hint = "split it into several pipelines, or keep data in a file of its own"
        return Parsed(problems=(Problem(Place(file), f"is larger than {MAX_BYTES:,} bytes", hint),))
    text = content if isinstance(content, str) else _decode(content, file)
    if isinstance(text, Problem):
        return Parsed(problems=(text,))
    text = text.removeprefix("\ufeff")
    lines = tuple(_BREAK.split(text))
    if odd := _odd_characters(text, file, lines):
        return Parsed(problems=odd)
    return _Composer(text, file, lines).run()


def _decode(content: bytes, file: str) -> str | Problem:
    if content[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return Problem(Place(file, 1, 1), "is UTF-16 text", "save it as UTF-8")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = _BREAK.split(content[: error.start].decode("utf-8"))
        place = Place(file, len(before), len(before[-1].removeprefix("\ufeff")) + 1)
        rest = _BREAK.split(content[error.start : error.start + 200].decode("utf-8", errors="replace"))[0]
        message = f"byte 0x{content[error.start]:02x} is not UTF-8 text"
        return Places(file, lines=("",) * (place.line - 1) + (before[-1].removeprefix("\ufeff") + rest,)).problem_at(
            place, message, hint="save the file as UTF-8"
        )


def _odd_characters(text: str, file: str, lines: tuple[str, ...]) -> tuple[Problem, ...]:
    if not _FORBIDDEN.search(text):
        return ()
    places = Places(file, lines=lines)
    found = [(number, match) for number, line in enumerate(lines, 1) for match in _FORBIDDEN.finditer(line)]
    return tuple(
        places.problem_at(
            Place(file, number, match.start() + 1), f"the character U+{ord(match[0]):04X} may not stand in YAML", hint="remove it"
        )
        for number, match in found[:10]
    )


class _LimitReached(Exception):
    """Composing must stop; the problem is recorded."""


@dataclass
class _Anchor:
    value: Any = None
    size: int = 0
    open: bool = True


class _Composer:
    """Turns the events of one file into data, counting as it goes."""

    def __init__(self, text: str, file: str, lines: tuple[str, ...]) -> None:
        self.parser: Any = _Parser(text)
        self.file, self.lines, self.text = file, lines, text
        self.problems: list[Problem] = []
        self.documents: list[Document] = []
        self.nodes = self.aliases = 0
        self._start_document()

    def _start_document(self) -> None:
        self.anchors: dict[str, _Anchor] = {}
        self.known: dict[Path_, Place] = {}
        self.keys: dict[Path_, Place] = {}

    def run(self) -> Parsed:
        """Everything the file holds, up to the first syntax error or limit."""
        try:
            while not isinstance(event := self.parser.get_event(), StreamEndEvent):
                if isinstance(event, DocumentStartEvent):
                    self._document()
        except _LimitReached:
            pass
        except yaml.MarkedYAMLError as error:
            self.problems.append(self._syntax_problem(error))
        except yaml.YAMLError as error:
            self.problems.append(Problem(Place(self.file), f"is not YAML: {error}"))
        return Parsed(tuple(self.documents), tuple(self.problems))

    def _document(self) -> None:
        self._start_document()
        data = self._node(self.parser.get_event(), (), 0)
        if data is not None:
            self.documents.append(Document(data, Places(self.file, self.known, self.lines, self.keys)))

    def _node(self, event: Any, path: Path_, depth: int, *, in_list: bool = False) -> Any:
        mark = event.start_mark
        self.known[path] = Place(self.file, mark.line + 1, mark.column + 1)
        if isinstance(event, AliasEvent):
            return self._alias(event)
        self._count(1, event)
        if depth > MAX_DEPTH:
            self._stop(event, f"is nested deeper than {MAX_DEPTH} levels")
        before = self.nodes
        anchor = _Anchor()
        if event.anchor is not None:
            self.anchors[event.anchor] = anchor
        if isinstance(event, ScalarEvent):
            anchor.value = self._scalar(event, in_list=in_list)
        else:
            self._check_collection_tag(event)
            anchor.value = self._mapping(event, path, depth) if isinstance(event, MappingStartEvent) else self._sequence(path, depth)
        anchor.size, anchor.open = self.nodes - before + 1, False
        return anchor.value

    def _sequence(self, path: Path_, depth: int) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := self.parser.get_event(), SequenceEndEvent):
            items.append(self._node(event, (*path, len(items)), depth + 1, in_list=True))
        return items

    def _mapping(self, start: Any, path: Path_, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: list[Mapping[str, Any]] = []
        while not isinstance(event := self.parser.get_event(), MappingEndEvent):
            key = self._key(event, start, path, depth)
            value_event = self.parser.get_event()
            inside = (*path, key)
            if key == "<<" and event.implicit[0]:
                merged += self._merge_sources(value_event, inside, depth)
            elif key in found:
                first = self.keys[inside]
                self._report(event, f"the key {key!r} stands here a second time, first in line {first.line}", "keep one of the two")
                self._node(value_event, (*path, key, "again"), depth + 1)
            else:
                mark = event.start_mark
                self.keys[inside] = Place(self.file, mark.line + 1, mark.column + 1)
                found[key] = self._node(value_event, inside, depth + 1)
        for source in merged:
            found.update({key: value for key, value in source.items() if key not in found})
        return found

    def _key(self, event: Any, start: Any, path: Path_, depth: int) -> str:
        """The text of a key, as written: `on:` and `1:` are the keys "on" and "1"."""
        if isinstance(event, ScalarEvent):
            self._count(1, event)
            if event.anchor is not None:
                self.anchors[event.anchor] = _Anchor(event.value, 1, open=False)
            return str(event.value)
        braces = isinstance(event, MappingStartEvent) and self._is_brace_after(event.start_mark, start.start_mark)
        if isinstance(event, AliasEvent) and isinstance(value := self._alias(event), str):
            return value
        if not isinstance(event, AliasEvent):
            self._node(event, (*path, "?"), depth + 1)
        if braces:
            self._report(start, "an unquoted template is read as a mapping", _QUOTE_TEMPLATE)
        else:
            self._report(event, "a key must be text", "write key: value, with a word as the key")
        return f"?{event.start_mark.index}"

    @staticmethod
    def _is_brace_after(mark: Any, start: Any) -> bool:
        return bool(mark.index == start.index + 1)

    def _merge_sources(self, event: Any, path: Path_, depth: int) -> list[Mapping[str, Any]]:
        value = self._node(event, path, depth + 1)
        sources = value if isinstance(value, list) else [value]
        if not all(isinstance(source, dict) for source in sources):
            self._report(event, "<< merges mappings, and this is none", "write <<: *anchor, where &anchor stands at a mapping")
            return []
        return sources

    def _alias(self, event: Any) -> Any:
        self.aliases += 1
        if self.aliases > MAX_ALIASES:
            self._stop(event, f"uses more than {MAX_ALIASES:,} aliases")
        anchor = self.anchors.get(event.anchor)
        if anchor is None:
            near = difflib.get_close_matches(event.anchor, self.anchors, n=1)
            hint = f"did you mean *{near[0]}?" if near else "quote a value that begins with *"
            self._report(event, f"no anchor &{event.anchor} stands above this alias", hint)
            return None
        if anchor.open:
            self._report(event, f"the alias *{event.anchor} stands inside what it stands for", "repeat the part that is meant")
            return None
        self._count(anchor.size, event)
        return anchor.value

    def _scalar(self, event: Any, *, in_list: bool) -> Any:
        tag: str | None = event.tag
        try:
            if tag is None:
                return plain(event.value, in_list=in_list) if event.implicit[0] else event.value
            if tag == "!":
                return event.value
            if not tag.startswith(_CORE):
                raise ValueError(f"the tag {tag} is not supported")
            return tagged(tag.removeprefix(_CORE), event.value)
        except Ambiguous as error:
            self._report(event, str(error), f'write "{event.value}" for the text, or true or false')
        except (ValueError, OverflowError) as error:
            self._report(event, f"{_short(event.value)} cannot be read: {error}", "put quotes around it if text is meant")
        return event.value

    def _check_collection_tag(self, event: Any) -> None:
        if event.tag not in {None, "!", f"{_CORE}map" if isinstance(event, MappingStartEvent) else f"{_CORE}seq"}:
            self._report(event, f"the tag {event.tag.replace(_CORE, '!!')} is not supported", "remove it")

    def _count(self, nodes: int, event: Any) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            self._stop(event, f"holds more than {MAX_NODES:,} values, aliases and merge keys written out")

    def _report(self, event: Any, message: str, hint: str) -> None:
        mark = event.start_mark
        places = Places(self.file, lines=self.lines)
        self.problems.append(places.problem_at(Place(self.file, mark.line + 1, mark.column + 1), message, hint=hint))
        if len(self.problems) >= MAX_PROBLEMS:
            raise _LimitReached

    def _stop(self, event: Any, message: str) -> None:
        self._report(event, f"the document {message}", "write it flatter and shorter")
        raise _LimitReached

    def _syntax_problem(self, error: yaml.MarkedYAMLError) -> Problem:
        end = error.problem_mark is not None and error.problem_mark.line >= len(self.text.rstrip().splitlines())
        unclosed = error.context_mark is not None and (end or "end of stream" in str(error.problem)) and "block" not in str(error.context)
        mark = error.context_mark if unclosed else error.problem_mark or error.context_mark
        place = Place(self.file, mark.line + 1, mark.column + 1) if mark else Place(self.file)
        message, hint = _explain(error, self._line(place.line), place.column, unclosed=unclosed)
        return Places(self.file, lines=self.lines).problem_at(place, message, hint=hint)

    def _line(self, number: int) -> str:
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""


def _explain(error: yaml.MarkedYAMLError, line: str, column: int, *, unclosed: bool) -> tuple[str, str]:
    rest = line[column - 1 :]
    if unclosed:
        closing = {'"': '"', "'": "'", "[": "]", "{": "}"}.get(rest[:1])
        return f"what begins here with {rest[:1]} is never closed", f"add the missing {closing}" if closing else "check the quotes"
    if rest.startswith("\t"):
        return "a tab cannot indent YAML", "use spaces"
    if _TEMPLATE.search(line):
        return "an unquoted template is not YAML", _QUOTE_TEMPLATE
    if column > 1 and rest[:1] in {"@", "`", "%"}:
        return f"an unquoted value cannot begin with {rest[:1]}", "put quotes around the value"
    if "mapping values are not allowed" in str(error.problem):
        return "a second ': ' in one line", "put quotes around a value that holds ': ', or check the indentation"
    parts = [part for part in (error.context, error.problem) if part]
    return f"not YAML: {', '.join(parts)}", "check the indentation and the quotes of this line and the one above"


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
