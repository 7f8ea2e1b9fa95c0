"""What stands in for a pipeline that cannot be loaded: an asset that says so, and never takes the others down.

Here: the placeholder asset with its failing check. Not here: finding the problems (`spec`, `plan`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import dagster as dg

from dataflow_assets.assets.names import plain_name
from dataflow_assets.errors import Problem

FOLDER = "_load_errors"
GROUP = "load_errors"
CHECK = "loads"


@dataclass(frozen=True)
class Broken:
    """A file or a pipeline that cannot become assets. `name` is the file's stem or the pipeline's name."""

    name: str
    file: str
    problems: tuple[Problem, ...]


def placeholders(failures: Iterable[Broken]) -> list[dg.AssetSpec | dg.AssetChecksDefinition]:
    """An asset `_load_errors/<name>` and its check for each broken file or pipeline."""
    found: list[dg.AssetSpec | dg.AssetChecksDefinition] = []
    used: set[str] = set()
    for failure in failures:
        stem = name = plain_name(failure.name)
        number = 2
        while name in used:
            name, number = f"{stem}_{number}", number + 1
        used.add(name)
        found += _placeholder(name, failure)
    return found


def _placeholder(name: str, failure: Broken) -> Sequence[dg.AssetSpec | dg.AssetChecksDefinition]:
    key = dg.AssetKey([FOLDER, name])
    text = "\n\n".join(str(problem) for problem in failure.problems) or failure.file
    shown = dg.MetadataValue.md(f"```\n{text}\n```")
    first = _first_line(failure.problems, failure.file)

    @dg.asset_check(asset=key, name=CHECK, blocking=True, description=f"{failure.name} can be loaded from {failure.file}")
    def loads() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, description=first, metadata={"error": shown, "file": failure.file})

    spec = dg.AssetSpec(
        key,
        group_name=GROUP,
        description=f"{failure.name} could not be loaded from {failure.file}; its assets are missing.\n\n```\n{text}\n```",
        metadata={"error": shown, "file": failure.file},
        kinds={"error"},
    )
    return [spec, loads]


def _first_line(problems: Sequence[Problem], file: str) -> str:
    return f"{problems[0].place}: {problems[0].message}" if problems else file
