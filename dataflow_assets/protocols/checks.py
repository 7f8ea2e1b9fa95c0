"""What a check must offer, and what it may.

Here: `Check`, its promises, runs and results, and the further protocols that some checks have. Not here: any implementation.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel

from dataflow_assets.protocols.steps import StagedInput, StepContext
from dataflow_assets.tables import (
    DatasetRef,
)

if TYPE_CHECKING:
    import pyarrow as pa


class Severity(enum.StrEnum):
    """What a failed check means: `error` fails the window when the check is blocking, `warn` never does."""

    WARN = "warn"
    ERROR = "error"


class Scope(enum.StrEnum):
    """What a check must see to judge a row: the row alone, the other rows too (unique), or it judges no rows (a row count)."""

    ROW = "row"
    ROWS = "rows"
    DATASET = "dataset"


@dataclass(frozen=True)
class CheckPromise:
    """One asset check that a check makes: what is known of it before it runs."""

    name: str
    """Lower case words joined by `_`, unique within the step."""
    description: str = ""
    blocking: bool = True
    """Whether its failure keeps the window from being published."""
    quarantine: bool = False
    """Whether it sets offending rows aside; told before it runs, so that the place where they go is claimed in time."""
    scope: Scope = Scope.DATASET


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one rule. `failed` counts offending rows out of `checked`; `samples` are a few of them, as dictionaries."""

    name: str
    passed: bool
    description: str = ""
    severity: Severity = Severity.ERROR
    blocking: bool = True
    checked: int = 0
    failed: int = 0
    samples: tuple[Mapping[str, Any], ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Values to keep in the ledger of the endpoints downstream, as the history of later windows."""
    quarantine: bool = False
    """Whether the offending rows are to be set aside, so that the others can be published."""


@dataclass(frozen=True)
class Picture:
    """A small SVG in the metadata of a check, for whoever can show one; `title` for whoever cannot."""

    svg: str
    title: str

    def __str__(self) -> str:
        return self.title


class CheckRun(Protocol):
    """A check in progress over one stream."""

    def update(self, batch: pa.RecordBatch) -> None:
        """See the next batch; bounded memory, nothing per row in Python."""
        ...

    def finish(self, stage: StagedInput) -> list[CheckResult]:
        """The results, one per promise of `Check.promises`, in that order; `stage` may be read once more for samples."""
        ...


@dataclass(frozen=True)
class BrokenRows:
    """Where one batch breaks one rule: `rows` is true for each such row, and false, never null, for the others."""

    rule: str
    column: str
    """Empty for a rule about several columns or the whole row."""
    rows: pa.BooleanArray


@runtime_checkable
class PicksRows(Protocol):
    """A check in progress that can point at the rows to be quarantined."""

    def pick(self, batch: pa.RecordBatch) -> Sequence[BrokenRows]:
        """Asked after `finish`, for every batch of the stage once more, in order; only about rules whose result says `quarantine`."""
        ...


class Check(Protocol):
    """Rules about a staged dataset; several checks see one stream together."""

    kind: ClassVar[str]
    Options: ClassVar[type[BaseModel]]
    example: ClassVar[str]

    def __init__(self, options: Any) -> None: ...

    @property
    def promises(self) -> Sequence[CheckPromise]:
        """The Dagster asset checks this makes, in the order of the results."""
        ...

    def begin(self, schema: pa.Schema, context: StepContext) -> CheckRun:
        """Start over one stream of this schema."""
        ...


@runtime_checkable
class PromisesFromFiles(Protocol):
    """A check whose promises stand in a file of the project, which planning may read but not run; asked instead of `promises`."""

    def promises_in(self, project_dir: Path) -> Sequence[CheckPromise]:
        """As `Check.promises`; a file that cannot be read is `mistakes`' matter, not an error here."""
        ...


@dataclass(frozen=True)
class Reference:
    """Another dataset that the option at `path` of a check's options names."""

    path: tuple[str | int, ...]
    dataset: DatasetRef


@runtime_checkable
class RefersToDatasets(Protocol):
    """A check that looks at other datasets too, which `StepContext.open_dataset` opens for it."""

    @property
    def references(self) -> Sequence[Reference]:
        """The datasets; the plan refuses those that do not exist, and has them made first."""
        ...
