"""What a connector must offer, and what it may.

Here: `Connector`, the plain data in its signatures, and the further protocols that some connectors have. Not here: any implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel

from dataflow_assets.tables import (
    Claim,
    Horizon,
    LedgerEntry,
    Published,
    PublishRequest,
    ReadRequest,
    SchemaVersion,
    SourceFile,
    TableName,
    Target,
    Unit,
    WindowFilter,
    WriteMode,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from dataflow_assets.canonical import CanonicalColumn, Tally
    from dataflow_assets.storage.records import RecordForms
    from dataflow_assets.storage.sql import Statement


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
    costly_reads: bool = False
    """Whether reading costs a service that others use: then nothing reads again and again to compare content, unless somebody says so."""
    publishes_early: bool = False
    """Whether `publish` may begin while rows are still being staged: it reads them once, in order, and nobody waits for it meanwhile."""


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


@runtime_checkable
class TellsSourceVersion(Protocol):
    """A connector that knows, without reading, whether a source has changed; a stage of an older version is not resumed."""

    def source_version(self, options: Any) -> str:
        """A text that differs when the source does, such as sizes and times of files."""
        ...


@runtime_checkable
class KeepsSchemas(Protocol):
    """A connector that keeps the versions of its targets' columns, written with the rows that were published into them."""

    def schemas(self, target: Target) -> list[SchemaVersion]:
        """The versions, oldest first; empty when none is known. Raises ReadFailed."""
        ...


@runtime_checkable
class KeepsRecords(Protocol):
    """A connector whose system adds and changes single rows, so that attempts can be recorded in it. Safe to share between threads."""

    def record_forms(self) -> RecordForms:
        """How it writes statements about records."""
        ...

    def read_records(self, statement: Statement) -> list[tuple[Any, ...]]:
        """The rows of a query. Raises ReadFailed, also when the table is missing, or ConnectionFailed."""
        ...

    def write_records(self, statements: Sequence[Statement]) -> None:
        """Run the statements, all of them or none where the system can undo. Raises WriteFailed, ValueRefused or ConnectionFailed."""
        ...


@runtime_checkable
class Retires(Protocol):
    """A connector that can take the rows of a window out of a target for good."""

    def retire(self, request: PublishRequest, *, rows: int) -> Published:
        """What `publish` does with a stage without rows in mode replace_window: the window's rows and its ledger row in one atomic action,
        fenced by the claim. With any number of rows there but `rows` nothing is changed, and AuditFailed is raised.
        """
        ...


@runtime_checkable
class ListsFiles(Protocol):
    """A connector whose sources are files, which a sensor can look at one by one."""

    def list_files(self, options: Any, *, marker: str | None = None) -> list[SourceFile]:
        """The files of a source as they are now, by name; none is no error. `marker`: what must be there for a file to be ready."""
        ...


@runtime_checkable
class TakesFiles(ListsFiles, Protocol):
    """A connector of files that reads just those of `ReadRequest.files`."""

    def content_digest(self, file: SourceFile) -> str:
        """What changes only with the content of a file; empty where that is not cheap to tell."""
        ...


@runtime_checkable
class TellsHorizon(Protocol):
    """A connector whose system knows which transactions are open, so that no row that commits late is passed over."""

    def horizon(self) -> Horizon:
        """Up to when everything written can be seen. Raises ConnectionFailed, or ReadFailed for whoever may not see others' sessions."""
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

    def tallies_between(
        self, columns: Sequence[CanonicalColumn], *, by: CanonicalColumn, edges: Sequence[int], checksum: bool = True
    ) -> dict[int, Tally]:
        """Position of an interval -> count and checksum of the rows in it, in one query; intervals without rows are left out.

        `by` is an instant or a date, `edges` are ascending and in its canonical unit: interval i is [edges[i], edges[i + 1]). Without
        `checksum` only the counts mean anything.
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
