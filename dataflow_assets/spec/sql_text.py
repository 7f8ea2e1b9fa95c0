"""From rendered pieces of SQL to a Query: which quotes, comment or code each value stands in, and what that means for it.

Here: a scanner that knows quotes, dollar quotes and comments, and nothing else of SQL. Not here: templates (`spec.templates`), SQL
that the package writes itself (`storage.sql`).

A value never becomes text of the statement: were a quote misread, the statement would fail, and no value would be executed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from dataflow_assets.errors import TemplateError
from dataflow_assets.spec.filters import Value
from dataflow_assets.spec.template_values import Day, Identifier, as_identifier, text_of
from dataflow_assets.tables import Bind, Query

Place = Literal["code", "string", "identifier", "line comment", "block comment", "dollar string"]

_CODE = re.compile(r"--|/\*|#|'|\"|`|(?<![\w$])\$(?:[A-Za-z_]\w*)?\$")
_BLOCK = re.compile(r"/\*|\*/")
_TYPED = re.compile(
    r"(?<![\w.$\"])(date|time|timestamp(?:tz)?|datetime|(?:timestamp|time)\s+with(?:out)?\s+time\s+zone|interval)\s*\Z", re.IGNORECASE
)
_UNIT = re.compile(r"\s*\b(microsecond|millisecond|second|minute|hour|day|week|month|quarter|year)s?\b", re.IGNORECASE)
_NAME_FOLLOWS = re.compile(r"\b(from|join|into|update|table|by)\s*\Z", re.IGNORECASE)
_IN = re.compile(r"\bin\s*\Z", re.IGNORECASE)
_WORD = re.compile(r"[\w$]")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "0": "\0", "Z": "\x1a"}
_BINDABLE = (str, int, float, Decimal, date, time, timedelta, bytes, UUID)


def query_of(parts: Sequence[str | Value], *, quote_identifier: Callable[[str], str]) -> Query:
    """The query made of text and values in order. Raises TemplateError for a value that cannot stand where it does."""
    scanner = _Scanner(quote_identifier)
    for part in parts:
        if isinstance(part, Value):
            scanner.value(part)
        else:
            scanner.text(part)
    return scanner.finish()


class _Scanner:
    """Reads pieces in order and keeps track of what the text is inside of."""

    def __init__(self, quote_identifier: Callable[[str], str]) -> None:
        self.quote = quote_identifier
        self.backticks = quote_identifier("a").startswith("`")
        self.out: list[str | Bind] = []
        self.code = ""
        """The code before this point without comments, to look back at."""
        self.place: Place = "code"
        self.depth = 0
        self.opening = self.prefix = ""
        self.raw = ""
        self.pieces: list[str | Value] = []
        self.bare: Value | None = None
        """The value that the code just ended with, bound and unquoted."""

    def text(self, text: str) -> None:
        """Read template text."""
        position = 0
        while position < len(text):
            position = self._step(text, position)

    def value(self, value: Value) -> None:
        """Read a value."""
        if self.place in {"line comment", "block comment"}:
            return
        if self.place == "code":
            self._value_in_code(value)
        else:
            self.pieces.append(value)

    def finish(self) -> Query:
        """The query; text that an open quote holds is kept as it is."""
        if self.pieces and any(isinstance(piece, Value) for piece in self.pieces):
            value = next(piece for piece in self.pieces if isinstance(piece, Value))
            raise TemplateError(f"{{{{ {value.label} }}}} stands in a quote that is never closed", hint=f"close the {self.opening}")
        self._emit(self.raw)
        return Query(tuple(self.out))

    def _step(self, text: str, position: int) -> int:
        if self.place == "code":
            return self._code(text, position)
        if self.place == "line comment":
            end = text.find("\n", position)
            stop = len(text) if end < 0 else end + 1
            self._emit(text[position:stop])
            self.place = "line comment" if end < 0 else "code"
            return stop
        if self.place == "block comment":
            return self._block_comment(text, position)
        return self._quoted(text, position)

    def _code(self, text: str, position: int) -> int:
        position = self._after_value(text, position)
        match = _CODE.search(text, position)
        while match and match[0] == "#" and not self.backticks:
            match = _CODE.search(text, match.end())
        stop = match.start() if match else len(text)
        self._emit(text[position:stop])
        self._remember(text[position:stop])
        if not match:
            return stop
        self._open(match[0])
        return match.end()

    def _after_value(self, text: str, position: int) -> int:
        """Refuse text that would grow onto a value, and give an interval the unit that follows it."""
        if self.bare is not None and (_WORD.match(text, position) or re.compile(r"\.\s*[\w\"`]").match(text, position)):
            raise _not_a_value(self.bare)
        self.bare = None
        return position

    def _open(self, token: str) -> None:
        self.opening = token
        if token in {"--", "#"}:
            self.place = "line comment"
            self._emit(token)
            self._remember(" ")
        elif token == "/*":
            self.place, self.depth = "block comment", 1
            self._emit(token)
            self._remember(" ")
        else:
            is_name = token == "`" or (token == '"' and not self.backticks)
            self.place = "dollar string" if token.startswith("$") else "identifier" if is_name else "string"
            prefix = re.search(r"(?<![\w$])[A-Za-z]\Z", self.code) if token == "'" else None
            self.prefix = prefix[0].lower() if prefix else ""
            self.raw, self.pieces = token, [""]

    def _block_comment(self, text: str, position: int) -> int:
        match = _BLOCK.search(text, position)
        stop = match.end() if match else len(text)
        self._emit(text[position:stop])
        if match and match[0] == "*/":
            self.depth -= 1
        elif match and not self.backticks:
            self.depth += 1
        if self.depth == 0:
            self.place = "code"
        return stop

    def _quoted(self, text: str, position: int) -> int:
        """Read inside quotes up to the next closing quote, or to the end of the text."""
        if self.place == "dollar string":
            end = text.find(self.opening, position)
            stop = len(text) if end < 0 else end
            self._piece(text[position:stop], text[position:stop])
            return stop if end < 0 else self._close(text, end + len(self.opening))
        char = text[position]
        if char == "\\" and self._backslash_escapes and position + 1 < len(text):
            following = text[position + 1]
            plain = _ESCAPES.get(following, "\\" + following if following in "%_" else following)
            self._piece(plain, text[position : position + 2])
            return position + 2
        if char != self.opening:
            stop = min((found for mark in (self.opening, "\\") if (found := text.find(mark, position + 1)) >= 0), default=len(text))
            self._piece(text[position:stop], text[position:stop])
            return stop
        if text[position + 1 : position + 2] == self.opening:
            self._piece(self.opening, self.opening * 2)
            return position + 2
        return self._close(text, position + 1)

    @property
    def _backslash_escapes(self) -> bool:
        return self.place == "string" and (self.backticks or self.prefix == "e")

    def _piece(self, plain: str, raw: str) -> None:
        self.raw += raw
        if isinstance(self.pieces[-1], str):
            self.pieces[-1] += plain
        else:
            self.pieces.append(plain)

    def _close(self, text: str, position: int) -> int:
        place, self.place = self.place, "code"
        pieces = [piece for piece in self.pieces if piece != ""]
        values = [piece for piece in pieces if isinstance(piece, Value)]
        if not values:
            self._emit(self.raw + self.opening)
            self._remember("''")
        elif place == "identifier":
            name = "".join(text_of(piece.value, label=piece.label) if isinstance(piece, Value) else piece for piece in pieces)
            self._emit(self.quote(as_identifier([name]).parts[0]))
            self._remember('""')
        else:
            position = self._literal(pieces, values[0], text, position)
        self.raw, self.pieces = "", []
        return position

    def _literal(self, pieces: list[str | Value], first: Value, text: str, position: int) -> int:
        """A string literal that holds values becomes one bound value; `date '...'` becomes a cast, for a bound value has no type."""
        typed = _TYPED.search(self.code)
        if self.prefix and not typed:
            raise TemplateError(f"{{{{ {first.label} }}}} stands in a {self.prefix.upper()}'...' string", hint="use plain quotes around it")
        value = self._whole(pieces, first)
        if not typed:
            self._bind(value)
            return position
        kind = " ".join(typed[1].upper().split())
        self._cut(typed[0])
        if kind == "INTERVAL":
            unit = _UNIT.match(text, position)
            value = text_of(value, label=first.label) + (f" {unit[1]}" if unit else "")
            position = unit.end() if unit else position
        self._emit("CAST(")
        self._bind(_without_zone(value, kind))
        self._emit(f" AS {kind})")
        self._remember(")")
        return position

    def _whole(self, pieces: list[str | Value], first: Value) -> Any:
        if len(pieces) == 1:
            if isinstance(first.value, (list, tuple, set, frozenset)):
                raise TemplateError(
                    f"{{{{ {first.label} }}}} is a list inside quotes", hint=f"write in ({{{{ {first.label} }}}}) without quotes"
                )
            return _plain(first)
        return "".join(text_of(_scalar(piece), label=piece.label) if isinstance(piece, Value) else piece for piece in pieces)

    def _value_in_code(self, value: Value) -> None:
        if isinstance(value.value, Identifier):
            self._emit(".".join(map(self.quote, value.value.parts)))
            self._remember('""')
            self.bare = None
            return
        if self.bare is not None or _WORD.match(self.code[-1:]) or self.code.endswith(".") or _NAME_FOLLOWS.search(self.code):
            raise _not_a_value(value)
        if isinstance(value.value, (list, tuple, set, frozenset)):
            self._list(value)
        else:
            self._bind(_plain(value))
        self.bare = value

    def _list(self, value: Value) -> None:
        items = list(value.value)
        if not items:
            raise TemplateError(
                f"the list {{{{ {value.label} }}}} is empty, and SQL has no empty list",
                hint=f"guard it: {{% if {value.label} %}} ... {{% endif %}}",
            )
        naked = bool(_IN.search(self.code))
        self._emit("(" if naked else "")
        for index, item in enumerate(items):
            self._emit(", " if index else "")
            self._bind(_plain(Value(item, value.label)))
        self._emit(")" if naked else "")

    def _bind(self, value: Any) -> None:
        self.out.append(Bind(value))
        self._remember("?")

    def _emit(self, text: str) -> None:
        if text and self.out and isinstance(self.out[-1], str):
            self.out[-1] += text
        elif text:
            self.out.append(text)

    def _remember(self, code: str) -> None:
        self.code = (self.code + code)[-200:]

    def _cut(self, tail: str) -> None:
        """Take the keyword of a typed literal back from the text."""
        last = self.out[-1] if self.out else ""
        if not isinstance(last, str) or not last.endswith(tail):
            raise TemplateError(f"a comment stands between {tail.strip()} and its literal", hint="remove the comment")
        self.out[-1] = last[: -len(tail)]
        self.code = self.code[: -len(tail)]


def _without_zone(value: Any, kind: str) -> Any:
    """What a cast of an aware moment must not leave to the session's timezone: its own day, or its time in UTC."""
    if isinstance(value, datetime) and kind == "DATE":
        return value.date()
    if isinstance(value, datetime) and value.tzinfo and kind in {"TIMESTAMP", "DATETIME", "TIMESTAMP WITHOUT TIME ZONE"}:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value


def _scalar(piece: Value) -> Any:
    if isinstance(piece.value, (list, tuple, set, frozenset, dict)):
        raise TemplateError(
            f"{{{{ {piece.label} }}}} is a {type(piece.value).__name__} inside quotes", hint="join it to text first: | join(', ')"
        )
    return piece.value


def _plain(value: Value) -> Any:
    """A value as drivers know it. Raises TemplateError for one that no column can hold."""
    plain = value.value
    if isinstance(plain, Identifier):
        return str(plain)
    if isinstance(plain, Day):
        return date(plain.year, plain.month, plain.day)
    if plain is None or isinstance(plain, (bool, datetime, *_BINDABLE)):
        return plain
    raise TemplateError(
        f"{{{{ {value.label} }}}} is a {type(plain).__name__}, which cannot be bound in SQL",
        hint="pass text, numbers, dates or lists of them",
    )


def _not_a_value(value: Value) -> TemplateError:
    return TemplateError(
        f"{{{{ {value.label} }}}} stands where SQL needs a name, and values are bound, not pasted",
        hint=f"write {{{{ {value.label} | identifier }}}}; build a longer name inside, as in {{{{ ('orders_' ~ suffix) | identifier }}}}",
    )
