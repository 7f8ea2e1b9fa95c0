"""From a kind in YAML to the module that implements it.

Here: look-up by file name, then by entry point (`dataflow_assets.connectors`, `.transforms`, `.checks`); never edited for a new
plugin. Not here: any list of kinds.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any, Literal

Family = Literal["connectors", "transforms", "checks"]
_CLASS = {"connectors": "Connector", "transforms": "Transform", "checks": "Check"}
_ALIASES = {"postgresql": "postgres", "mariadb": "mysql", "opensearch": "elasticsearch"}


@cache
def kinds(family: Family) -> tuple[str, ...]:
    """Every kind of the family that can be named, sorted; imports none of them."""
    package = importlib.import_module(f"dataflow_assets.{family}")
    found = {item.name for item in pkgutil.iter_modules(package.__path__) if not item.name.startswith("_")}
    return tuple(sorted(found | set(_entry_points(family))))


@cache
def _entry_points(family: Family) -> dict[str, Any]:
    """Kind -> entry point; kept, because looking through every installed distribution takes milliseconds."""
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=f"dataflow_assets.{family}")}


def spellings(kind: str) -> tuple[str, ...]:
    """Every name under which a kind can be written, its own first."""
    return (kind, *(alias for alias, meant in _ALIASES.items() if meant == kind))


@cache
def find(family: Family, kind: str) -> Any:
    """The class that implements `kind`. Raises KeyError when there is none (see `kinds`)."""
    kind = _ALIASES.get(kind, kind)
    package = importlib.import_module(f"dataflow_assets.{family}")
    if not kind.startswith("_") and any(item.name == kind for item in pkgutil.iter_modules(package.__path__)):
        return getattr(importlib.import_module(f"dataflow_assets.{family}.{kind}"), _CLASS[family])
    if entry := _entry_points(family).get(kind):
        return entry.load()
    raise KeyError(kind)
