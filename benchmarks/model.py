"""What is measured, as data: contenders, ways, measurements.

Here: frozen shapes without I/O. Not here: how a child process is measured (`measuring`), what the ways are (`ways`).
"""

from __future__ import annotations

import enum
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


class Part(enum.StrEnum):
    """Why a contender is in the table."""

    LIMIT = "limit"
    OURS = "ours"
    PEER = "peer"


@dataclass(frozen=True)
class Measurement:
    """One run: wall seconds, CPU seconds of the child and its children (not of the database server), peak resident megabytes."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


@dataclass(frozen=True)
class Contender:
    """One command that moves the rows. `clear` empties its target beforehand; `count` says how many rows arrived.

    `absent` is why it cannot be run here, empty when it can. One that is too slow for all rows is given the first `rows` of them, and
    `scaled` makes of its run what the whole would have taken.
    """

    name: str
    part: Part
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    clear: Callable[[], None] = lambda: None
    count: Callable[[], int] = lambda: 0
    absent: str = ""
    rows: int | None = None
    scaled: Callable[[Measurement], Measurement] = lambda run: run


@dataclass(frozen=True)
class Way:
    """From one system to another. `reach` and `aim` are multiples of the limit's median time; `reach` None: only reported."""

    key: str
    title: str
    contenders: tuple[Contender, ...]
    reach: float | None = None
    aim: float | None = None


@dataclass(frozen=True)
class Row:
    """The runs of one contender, or why there are none."""

    way: str
    contender: str
    part: Part
    runs: tuple[Measurement, ...] = ()
    absent: str = ""

    @property
    def seconds(self) -> float:
        """Median wall seconds."""
        return statistics.median(run.seconds for run in self.runs)

    @property
    def cpu_seconds(self) -> float:
        """Median CPU seconds."""
        return statistics.median(run.cpu_seconds for run in self.runs)

    @property
    def peak_mb(self) -> float:
        """Highest resident size of any run."""
        return max(run.peak_mb for run in self.runs)


@dataclass(frozen=True)
class Figure:
    """One number held against the figure to reach, which it may not be above, or with `at_least` not below."""

    title: str
    value: float
    unit: str
    reach: float | None = None
    note: str = ""
    at_least: bool = False

    @property
    def reached(self) -> bool | None:
        """Whether the figure is reached; None where there is none to reach."""
        if self.reach is None:
            return None
        return self.value >= self.reach if self.at_least else self.value <= self.reach


@dataclass(frozen=True)
class Settings:
    """What one call of the benchmark was asked for."""

    rows: int
    runs: int
    folder: Path
    with_peers: bool = True
