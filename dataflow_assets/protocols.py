"""The whole extension surface: what a connector, a transform and a check must offer.

Here: the three protocols and the plain data in their signatures. Not here: any implementation; `kind: postgres` in YAML is the
class `Connector` in `connectors/postgres.py`, `processor_type: sql` the class `Transform` in `transforms/sql.py`, and
`processor_type: validator` the class `Check` in `checks/validator.py`. Adding one touches one new file and its test.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel

from dataflow_assets.tables import (
    Claim,
    DatasetRef,
    LedgerEntry,
    Published,
    PublishRequest,
    Query,
    ReadRequest,
    SchemaVersion,
    TableName,
    Target,
    Unit,
    WindowFilter,
    WriteMode,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from dataflow_assets.anomalies.history import Measured
    from dataflow_assets.canonical import CanonicalColumn, Tally


@dataclass(frozen=True)
class Capabilities:
    """What a connector can do, compared with what a pipeline asks at plan time."""

    reads: bool = True
    modes: frozenset[WriteMode] = frozenset()
    dialect: str | None = None
    """sqlglot's name of the SQL dialect that `query` is written in; empty when a URL says it, None when there is no SQL."""
    single_file: bool = False
    """Two endpoint steps may not share one table or path."""
    exact_types: bool = True
    """Whether Arrow types survive a round trip (a CSV keeps text only)."""


@dataclass(frozen=True)
class ConnectionContext:
    """What a connector may know about its surroundings. `project_dir` anchors relative paths; `name` is the connection's."""

    name: str
    project_dir: Path


class Connector(Protocol):
    """One system, as source and target. Constructing one does no I/O; drivers are imported inside methods."""

    kind: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    Connection: ClassVar[type[BaseModel]]
    """The keys under `connections:`; secrets are `pydantic.SecretStr`."""
    Source: ClassVar[type[BaseModel]]
    """The keys of a source step's `config`."""
    Endpoint: ClassVar[type[BaseModel]]
    """The keys of an endpoint step's `config`, beside those of `spec.models.EndpointOptions`, which it extends."""
    example: ClassVar[str]
    """One pipeline document in YAML that a test runs and the docs show."""

    def __init__(self, connection: Any, context: ConnectionContext) -> None: ...

    def probe(self) -> str:
        """Reach the system and return its name and version. Raises ConnectionFailed or MissingDriver."""
        ...

    def read(self, request: ReadRequest) -> AbstractContextManager[pa.RecordBatchReader]:
        """Stream rows from one snapshot in bounded memory. Raises ReadFailed, ConnectionFailed, ValueRefused."""
        ...

    def source_table(self, options: Any) -> TableName | None:
        """The table that a source step with these options reads, None when it reads a query."""
        ...

    def target_table(self, options: Any) -> TableName:
        """The table that an endpoint step with these options writes."""
        ...

    def claim(self, target: Target, unit: Unit, *, attempt: str) -> Claim:
        """Take the next generation of `unit` in the target's ledger, fencing off every earlier attempt; creates the ledger."""
        ...

    def publish(self, request: PublishRequest) -> Published:
        """Make the staged rows visible in one atomic action with the ledger row.

        Raises Fenced when a newer generation was claimed, WriteFailed or ValueRefused with the target as it was.
        For append, a unit that the ledger shows as published is left alone and `already` is set.
        """
        ...

    def ledger(self, target: Target, *, pipeline: str, step: str) -> list[LedgerEntry]:
        """The published units of one endpoint step, oldest first; empty when the ledger or target does not exist."""
        ...

    def read_target(self, target: Target, window: WindowFilter | None) -> AbstractContextManager[pa.RecordBatchReader]:
        """Stream what the target now holds (of one window), to audit it, preview it, or hand it to an IO manager."""
        ...

    def close(self) -> None:
        """Let go of pooled connections; the connector may be used again afterwards."""
        ...


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


@runtime_checkable
class TellsSourceVersion(Protocol):
    """A connector that knows, without reading, whether a source has changed; a stage of an older version is not resumed."""

    def source_version(self, options: Any) -> str:
        """A text that differs when the source does, such as sizes and times of files."""
        ...


@runtime_checkable
class TellsCodeVersion(Protocol):
    """A transform or check whose meaning lies outside its options, in a file; a stage made by older code is not resumed."""

    def code_version(self, project_dir: Path) -> str:
        """A text that differs when the code does, such as a hash of the file."""
        ...


@runtime_checkable
class KeepsSchemas(Protocol):
    """A connector that keeps the versions of its targets' columns, written with the rows that were published into them."""

    def schemas(self, target: Target) -> list[SchemaVersion]:
        """The versions, oldest first; empty when none is known. Raises ReadFailed."""
        ...


class Comparable(Protocol):
    """The rows of a table or query as of one moment, which can be counted and summed up without being fetched."""

    @property
    def schema(self) -> pa.Schema:
        """The columns, with the types that reading them would give."""
        ...

    def primary_key(self) -> Sequence[str]:
        """The columns that its system says identify a row; none when it says nothing."""
        ...

    def digests(self, columns: Sequence[CanonicalColumn]) -> bool:
        """Whether it can make the canonical form of these columns."""
        ...

    def tallies(
        self, columns: Sequence[CanonicalColumn], *, keys: Sequence[int] = (), depth: int = 0, within: Sequence[str] = ()
    ) -> dict[str, Tally]:
        """Segment -> count and checksum of its rows, in one query; segments without rows are left out.

        A segment holds the rows whose keys' MD5 begins with its name, `depth` hexadecimal digits long; with depth 0 there is one, "".
        `keys` are positions in `columns`; without any, all of them. `within`: only these segments, of some smaller depth.
        """
        ...

    def rows(
        self, columns: Sequence[CanonicalColumn], *, keys: Sequence[int] = (), within: Sequence[str] = ()
    ) -> list[tuple[str | None, ...]]:
        """The rows of some segments, each value as its canonical text; for few rows."""
        ...


@runtime_checkable
class Reconciles(Protocol):
    """A connector whose system makes tallies by itself; the rows of others are streamed through here."""

    def compare_source(self, request: ReadRequest) -> AbstractContextManager[Comparable]:
        """What `read` would stream. Raises as it does."""
        ...

    def compare_target(self, target: Target, window: WindowFilter | None) -> AbstractContextManager[Comparable]:
        """What `read_target` would stream."""
        ...


@dataclass(frozen=True)
class Mistake:
    """What is wrong with the option at `path` of a step's `config`."""

    path: tuple[str | int, ...]
    message: str
    hint: str = ""


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


@runtime_checkable
class TellsMistakes(Protocol):
    """A transform or check that can be seen to be wrong without being run; `dataflow validate` asks."""

    def mistakes(self, project_dir: Path, inputs: Sequence[str]) -> Sequence[Mistake]:
        """What is wrong with the code that the options name; `inputs` are the step ids that it would be given. May read files."""
        ...
