"""What became of a test: passed or not, and why.

Here: the outcome as data, its lines. Not here: how it came about (`testing.judging`, `testing.transformations`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dataflow_assets.errors import Place
from dataflow_assets.secrets import mask

Status = Literal["passed", "failed", "error", "skipped"]


@dataclass(frozen=True)
class Outcome:
    """`failed`: what came is not what was expected. `error`: it could not be run. `group`: the pipeline, or the file's folder."""

    name: str
    group: str
    place: Place
    status: Status
    lines: tuple[str, ...] = ()
    seconds: float = 0.0
    output: str = ""
    """What the user's own code printed."""

    @property
    def ok(self) -> bool:
        """Whether it is no reason to worry."""
        return self.status in {"passed", "skipped"}

    @property
    def text(self) -> str:
        """Where and why, for a reader."""
        lines = [f"{self.name} ({self.place}): {self.status}", *(f"  {line}" for text in self.lines for line in text.splitlines())]
        if self.output.strip() and not self.ok:
            lines += ["  printed by the code under test:", *(f"    {line}" for line in self.output.strip().splitlines())]
        return mask("\n".join(lines))
