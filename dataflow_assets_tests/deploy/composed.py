"""`deploy/compose.yaml` without Docker: its services as Docker Compose would see them, and as processes of this machine.

Here: reading, filling in variables, merging, and the places of a container by those of a folder. Not here: what is expected of it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<how>[-?])(?P<rest>[^}]*))?\}")


class Unset(Exception):
    """A variable that compose.yaml insists on."""


@dataclass(frozen=True)
class Service:
    """One service: what it runs, with what, and how its health is asked."""

    name: str
    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    health: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    after: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[str, ...] = ()


def services(variables: Mapping[str, str]) -> dict[str, Service]:
    """Every service of compose.yaml. Raises Unset."""
    document = yaml.safe_load(_filled((DEPLOY / "compose.yaml").read_text(encoding="utf-8"), variables))
    return {name: _service(name, block) for name, block in document["services"].items()}


def _filled(text: str, variables: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if found := variables.get(match["name"]):
            return found
        if match["how"] == "-":
            return str(match["rest"])
        raise Unset(match["name"])

    return "".join(line if line.lstrip().startswith("#") else _VARIABLE.sub(value, line) for line in text.splitlines(keepends=True))


def _service(name: str, block: Mapping[str, Any]) -> Service:
    test = [str(word) for word in block.get("healthcheck", {}).get("test", [])]
    return Service(
        name,
        block["image"],
        tuple(map(str, block.get("command", ()))),
        {key: str(value) for key, value in (block.get("environment") or {}).items()},
        tuple(test[1:]),
        tuple(block.get("profiles", ())),
        {other: how["condition"] for other, how in (block.get("depends_on") or {}).items()},
        tuple(block.get("volumes", ())),
    )


def here(words: Sequence[str], places: Mapping[str, str]) -> list[str]:
    """A command of a container as one of this machine: programs of this environment, `places` in place of the container's."""
    program = Path(sys.executable).with_name(words[0])
    first = sys.executable if words[0] == "python" else str(program) if program.exists() else words[0]
    return [first, *(moved(word, places) for word in words[1:])]


def moved(text: str, places: Mapping[str, str]) -> str:
    """The text with each place of a container by that of this machine, the longest first."""
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(place, places[place])
    return text
