"""What a transform must offer, and what transforms and checks are given.

Here: `Transform`, the staged input, the context of a step, and what is said of wrong code. Not here: any implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel

from dataflow_assets.tables import (
    DatasetRef,
    Query,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from dataflow_assets.anomalies.history import Measured


@dataclass(frozen=True)
class StagedInput:
    """A verified stage as a transform or check sees it: Parquet files (possibly none when it has no rows) of one schema."""

    name: str
    schema: pa.Schema
    rows: int
    paths: tuple[str, ...]

    def open_reader(self, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """Stream the rows from the start, in the order they were staged."""
        from dataflow_assets.batches import open_parquet

        return open_parquet(self.paths, self.schema, columns=columns)


@dataclass(frozen=True)
class StepContext:
    """What a transform or check may know: the step, its window (None without windows), rendered variables, the project folder,
    a scratch folder that is deleted after the step, and for metric checks the history (oldest first, before this window)."""

    pipeline: str
    step: str
    project_dir: Path
    scratch: Path
    window: Any = None
    window_key: str = ""
    """The window's partition key, as in `history`."""
    variables: Mapping[str, Any] = field(default_factory=dict)
    timezone: str = "UTC"
    """Whose wall clock the windows follow."""
    history: Mapping[str, Sequence[Measured]] = field(default_factory=dict)
    """metric name -> its value in each earlier published window, with what is said of it; iterating gives the names known."""
    acknowledged: Mapping[str, str] = field(default_factory=dict)
    """metric name -> `expected` or `level_shift`: what somebody has said of this window's value."""
    shared: dict[str, Any] = field(default_factory=dict)
    """What the rules of one check hand to each other."""
    queries: Mapping[str, Query] = field(default_factory=dict)
    """The step's `SqlText` options with their values bound, by option name."""
    published: bool = False
    """Whether a check sees what a target holds, in the types that its system has, and not a stage."""
    now: datetime | None = None
    """When the run began; None outside of one."""
    open_dataset: Callable[[DatasetRef], AbstractContextManager[pa.RecordBatchReader]] | None = None
    """Streams the columns of another dataset that a check refers to; None where there is none to be had. Raises ReadFailed."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """What a transform wants shown with its output; complete when its stream has ended."""


class Transform(Protocol):
    """A step that makes one table out of one or more."""

    kind: ClassVar[str]
    Options: ClassVar[type[BaseModel]]
    example: ClassVar[str]

    def __init__(self, options: Any) -> None: ...

    def apply(self, inputs: Mapping[str, StagedInput], context: StepContext) -> AbstractContextManager[pa.RecordBatchReader]:
        """Stream the result in bounded memory. `inputs` is keyed by step id, in `depends_on` order. Raises TransformFailed."""
        ...


@runtime_checkable
class TellsCodeVersion(Protocol):
    """A transform or check whose meaning lies outside its options, in a file; a stage made by older code is not resumed."""

    def code_version(self, project_dir: Path) -> str:
        """A text that differs when the code does, such as a hash of the file."""
        ...


@dataclass(frozen=True)
class Mistake:
    """What is wrong with the option at `path` of a step's `config`."""

    path: tuple[str | int, ...]
    message: str
    hint: str = ""


@runtime_checkable
class TellsMistakes(Protocol):
    """A transform or check that can be seen to be wrong without being run; `dataflow validate` asks."""

    def mistakes(self, project_dir: Path, inputs: Sequence[str]) -> Sequence[Mistake]:
        """What is wrong with the code that the options name; `inputs` are the step ids that it would be given. May read files."""
        ...
