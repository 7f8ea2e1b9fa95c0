"""Names: the nearest known one for a hint, and the forms that Dagster accepts.

Here: text to text. Not here: which names exist (`plan.build`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

_ILLEGAL = re.compile(r"[^A-Za-z0-9_]")
_PIPELINE = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
_TAG = re.compile(r"^([A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}$")
_EMAIL = re.compile(r"^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}$")
_TEAM = re.compile(r"^team:[A-Za-z0-9_.-]+$")


def legal(text: str) -> str:
    """`text` as Dagster accepts it in asset keys, op and group names: letters, digits and underscores."""
    return _ILLEGAL.sub("_", text) or "_"


def suggest(name: str, known: Iterable[str], *, noun: str = "known") -> str:
    """A hint for an unknown `name`: the nearest of `known`, else all of them; empty when there are none."""
    names = sorted(set(known))
    if close := get_close_matches(name.lower(), [item.lower() for item in names], n=1, cutoff=0.6):
        return f"did you mean {next(item for item in names if item.lower() == close[0])!r}?"
    return f"{noun}: {', '.join(names)}" if names else ""


def is_pipeline_name(text: str) -> bool:
    """Whether selectors and Dagster can tell the name apart from their own signs."""
    return bool(_PIPELINE.match(text))


def is_tag(text: str) -> bool:
    """Whether Dagster accepts `text` as the key of an asset tag."""
    return bool(_TAG.match(text))


def is_owner(text: str) -> bool:
    """Whether Dagster accepts `text` as an owner: an email address or `team:name`."""
    return bool(_EMAIL.match(text) or _TEAM.match(text))
