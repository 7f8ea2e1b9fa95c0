"""Variables given on the command line.

Here: `--vars a=1,b=2`, `--vars '{a: 1}'` and `--var a=1`. Not here: where variables are used (`spec.templates`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any, TypeVar

import click

from dataflow_assets.cli.failures import UsageFailed

F = TypeVar("F", bound=Callable[..., Any])
_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_.-]*$")
_MAPPING = re.compile(r"^\s*(\{|[A-Za-z_][A-Za-z0-9_.-]*\s*:(\s|$))")
_INTEGER = re.compile(r"^-?(0|[1-9]\d*)$")
_DAY = re.compile(r"^\d{4}-\d{2}-\d{2}$")
_WORDS = {"true": True, "false": False, "null": None}
_HINT = "write --vars 'a=1,b=\"x,y\"', --vars '{a: 1, b: [x, y]}', or --var a=1 once for each"


def variable_options(function: F) -> F:
    """Add `--vars` and `--var`."""
    one = click.option(
        "--var", "single", multiple=True, metavar="NAME=VALUE", help="Set one variable; may be repeated, commas are part of the value."
    )
    many = click.option(
        "--vars",
        "several",
        multiple=True,
        metavar="TEXT",
        help="Set variables: a=1,b=2 (quote or \\-escape commas) or a YAML or JSON mapping.",
    )
    return many(one(function))


def read_variables(several: tuple[str, ...], single: tuple[str, ...]) -> dict[str, Any]:
    """All variables of the command line; a later one wins. Raises UsageFailed for text that is neither form."""
    variables: dict[str, Any] = {}
    for text in several:
        variables.update(_mapping(text) if _MAPPING.match(text) else dict(_pairs(text)))
    for text in single:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageFailed(f"--var {text!r} has no '='", hint=_HINT)
        variables[_name(name)] = _scalar(value)
    return variables


def _mapping(text: str) -> dict[str, Any]:
    import yaml

    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageFailed(f"--vars {text!r} is not readable as a mapping: {str(error).splitlines()[0]}", hint=_HINT) from error
    if not isinstance(loaded, dict):
        raise UsageFailed(f"--vars {text!r} is not a mapping", hint=_HINT)
    return {_name(str(name)): value for name, value in loaded.items()}


def _pairs(text: str) -> Iterator[tuple[str, Any]]:
    for item, quoted in _split(text):
        name, equals, value = item.partition("=")
        if not equals and not item.strip():
            continue
        if not equals:
            raise UsageFailed(f"--vars: {item!r} has no '='", hint=_HINT)
        yield _name(name), value if quoted else _scalar(value.strip())


def _split(text: str) -> Iterator[tuple[str, bool]]:
    """Cut at commas that are neither quoted nor escaped; the flag says whether the value was quoted, and so stays text."""
    part, quote, quoted, position = "", "", False, 0
    while position < len(text):
        char, following = text[position], text[position + 1 : position + 2]
        position += 1
        if char == "\\" and following and following in ",\\\"'=":
            part += following
            position += 1
        elif quote:
            quote, part = ("", part) if char == quote else (quote, part + char)
        elif char in "\"'" and part.rstrip().endswith("="):
            quote, quoted, part = char, True, part.rstrip()
        elif char == ",":
            yield part, quoted
            part, quoted = "", False
        else:
            part += char
    if quote:
        raise UsageFailed(f"--vars {text!r}: the quote {quote} is not closed", hint=_HINT)
    yield part, quoted


def _name(text: str) -> str:
    if not _NAME.match(text.strip()):
        raise UsageFailed(f"{text.strip()!r} is not a variable name", hint=_HINT)
    return text.strip()


def _scalar(text: str) -> Any:
    """The type that the text has in a YAML file, if it can be turned back into the same text; else the text (007, 1.10, 1e3)."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.match(text) and text != "-0":
        return int(text)
    if _DAY.match(text):
        try:
            return date.fromisoformat(text)
        except ValueError:
            return text
    try:
        number = float(text)
    except ValueError:
        return text
    return number if repr(number) == text and text.strip("-") not in {"inf", "nan"} else text
