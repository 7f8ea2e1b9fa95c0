"""What connectors, transforms and checks say to each other about tables.

Here: names, queries with their bound values, window filters, write modes, publishing requests: frozen data without I/O.
Not here: SQL text for a dialect (`storage.sql`), the rows themselves (`batches`).
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

from dataflow_assets.errors import ValueRefused
from dataflow_assets.windows import Window

if TYPE_CHECKING:
    import pyarrow as pa


class WriteMode(enum.StrEnum):
    """How the rows of a window meet the rows already in the target."""

    APPEND = "append"
    REPLACE = "replace"
    REPLACE_WINDOW = "replace_window"
    UPSERT = "upsert"


class SchemaPolicy(enum.StrEnum):
    """What becomes of a column that the data has and the target has not."""

    EVOLVE = "evolve"
    """The target gets it; a type is widened where every old value stays what it is; a column that the data lacks is null."""
    FREEZE = "freeze"
    """The publish is refused, with the difference."""
    DISCARD = "discard"
    """It is left out of this target, which is said."""


@dataclass(frozen=True)
class TableName:
    """A table's address inside its connection: optional schema (for files: the path stands in `name`)."""

    name: str
    schema: str | None = None

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


@dataclass(frozen=True)
class DatasetRef:
    """Some columns of another dataset: of a step of the same pipeline, of an endpoint of another one, or of a table of a connection."""

    columns: tuple[str, ...]
    step: str | None = None
    pipeline: str | None = None
    connection: str | None = None
    table: str | None = None

    def __str__(self) -> str:
        return ".".join(part for part in (self.pipeline, self.step, self.connection, self.table) if part)


@dataclass(frozen=True)
class Bind:
    """A value inside a query that must reach the database as a bound parameter or as the driver's own literal."""

    value: Any


@dataclass(frozen=True)
class Query:
    """SQL text with values kept apart: a sequence of text fragments and `Bind`s, so that no paramstyle can clash with the text."""

    parts: tuple[str | Bind, ...]

    @classmethod
    def of(cls, text: str) -> Query:
        """A query without values."""
        return cls((text,))

    def render(self, placeholder: Callable[[int], str]) -> tuple[str, list[Any]]:
        """Text with `placeholder(n)` (n from 1) where each value belongs, and the values in that order."""
        texts: list[str] = []
        values: list[Any] = []
        for part in self.parts:
            if isinstance(part, Bind):
                values.append(part.value)
                texts.append(placeholder(len(values)))
            else:
                texts.append(part)
        return "".join(texts), values

    def __str__(self) -> str:
        return "".join(part if isinstance(part, str) else repr(part.value) for part in self.parts)


@dataclass(frozen=True)
class WindowFilter:
    """Keep the rows whose `column` lies in `window`; `timezone` says whose midnight a date column means."""

    column: str
    window: Window
    timezone: str = "UTC"

    def bounds(self, kind: pa.DataType) -> tuple[datetime | date, datetime | date]:
        """The half-open bounds as values comparable with a column of Arrow type `kind`.

        Aware timestamps compare as instants; naive ones are read as UTC; dates as days of `timezone`.
        Raises ValueRefused for another type, and for a date column when the window does not begin and end at midnight.
        """
        import pyarrow as pa

        start, end = self.window.start, self.window.end
        if pa.types.is_timestamp(kind):
            return (start, end) if kind.tz else (start.replace(tzinfo=None), end.replace(tzinfo=None))
        if pa.types.is_date(kind):
            zone = ZoneInfo(self.timezone)
            local_start, local_end = start.astimezone(zone), end.astimezone(zone)
            if any(moment.timetz().replace(tzinfo=None) != datetime.min.time() for moment in (local_start, local_end)):
                raise ValueRefused(
                    f"column {self.column!r} is a date, but window {self.window} does not begin and end at midnight in {self.timezone}",
                    hint="use windows of a day or longer, or a timestamp column",
                )
            return local_start.date(), local_end.date()
        raise ValueRefused(
            f"column {self.column!r} of type {kind} cannot place a row in a window",
            hint="event_time_column must be a timestamp or a date; cast it in the query",
        )


@dataclass(frozen=True)
class SourceFile:
    """One file of a source in one state: `mark` changes whenever the file does, `digest` (where it is known) only with its content.

    `changed_at` is when a local file was last touched; None where files appear whole. `ready`: its marker is there.
    """

    name: str
    size: int
    mark: str
    digest: str = ""
    changed_at: datetime | None = None
    ready: bool = True


@dataclass(frozen=True)
class Horizon:
    """Up to when everything that was written in a system can be seen: no transaction is open that began before `oldest`.

    `now` is the system's clock. `oldest` is None where no transaction is open that may still write. `held` says why nothing can be
    told at present, `said` who keeps the oldest transaction open. `blind`: how long one may be open before the system tells of it.
    """

    now: datetime
    oldest: datetime | None = None
    held: str = ""
    said: str = ""
    blind: timedelta = timedelta()

    @property
    def sure(self) -> datetime:
        """Every transaction that began before this moment and is open is told of."""
        return self.now - self.blind


@dataclass(frozen=True)
class ReadRequest:
    """What a source step asks of its connector: `options` is the validated model that the connector declares as `Source`."""

    options: Any
    query: Query | None = None
    columns: tuple[str, ...] | None = None
    window: WindowFilter | None = None
    batch_rows: int = 65_536
    files: tuple[SourceFile, ...] | None = None
    """Of a source of files, just these, in these states; None: all that it has."""


@dataclass(frozen=True)
class Unit:
    """What is published exactly once: one window of one endpoint step, or one batch of a pipeline without windows.

    `key` is the window's key, `all` for a replace without windows, or the batch's id for an append or upsert without windows.
    """

    pipeline: str
    step: str
    key: str
    window: Window | None = None

    def __str__(self) -> str:
        return f"{self.pipeline}/{self.step} {self.window or self.key}"


@dataclass(frozen=True)
class Target:
    """Where and how an endpoint writes: `options` is the validated model that the connector declares as `Endpoint`."""

    table: TableName
    mode: WriteMode
    options: Any
    keys: tuple[str, ...] = ()
    window_column: str | None = None
    timezone: str = "UTC"
    schema_policy: SchemaPolicy | None = None
    """As written; None where nothing is, which means freeze for all that is not written anew as a whole."""

    @property
    def policy(self) -> SchemaPolicy:
        """The policy that counts for a table whose rows may stay."""
        return self.schema_policy or SchemaPolicy.FREEZE


@dataclass(frozen=True)
class Claim:
    """The right to publish a unit: its generation, and what the ledger already says of the unit."""

    unit: Unit
    generation: int
    attempt: str
    published: LedgerEntry | None = None


RETIRED, RESTORED = "retired", "restored"
"""Keys of the `state` of a ledger entry whose rows retention took away, or brought back, with what it says of that (JSON)."""


@dataclass(frozen=True)
class LedgerEntry:
    """What the ledger holds of one published unit; it committed together with the rows."""

    target: str
    unit: Unit
    mode: WriteMode
    generation: int
    attempt: str
    rows: int
    checksum: str
    schema_fingerprint: str
    published_at: datetime
    metrics: dict[str, float] = field(default_factory=dict)
    state: dict[str, str] = field(default_factory=dict)

    @property
    def retired(self) -> bool:
        """Whether retention took its rows away: they are no longer in the target."""
        return RETIRED in self.state

    @property
    def restored(self) -> bool:
        """Whether its rows were brought back from an archive."""
        return RESTORED in self.state


@dataclass(frozen=True)
class PublishRequest:
    """A checked stage on its way into a target. `open_reader()` streams the stage from its start, each time it is called."""

    target: Target
    claim: Claim
    schema: pa.Schema
    rows: int
    checksum: str
    open_reader: Callable[[], pa.RecordBatchReader]
    paths: tuple[str, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    state: dict[str, str] = field(default_factory=dict)
    published_at: datetime | None = None
    """What the ledger is to say of when it was published, where that is not now: rows that leave, or come back, are no news."""
    replaces: int | None = None
    """How many rows of the window must leave the target for it; with any other number nothing is changed. None: whatever is there."""

    @property
    def known_rows(self) -> int | None:
        """The rows of the stage; None while they are still being staged: `rows`, `checksum`, `metrics`, `state` then wait for the end."""
        return self.rows

    def require_checked(self) -> None:
        """Return when every check has passed, which is at once unless the rows are still being staged.

        To be called before a change that others would see or wait for, such as DDL on a table that they use.
        """

    def require_wanted(self) -> None:
        """To be called in long work before the rows are read: raises where they were still being staged and nobody waits any more."""

    def with_schema(self, schema: pa.Schema) -> PublishRequest:
        """The request for the columns that go in; its stage still has all of them."""
        return replace(self, schema=schema)


SchemaAction = Literal["added", "widened", "discarded", "absent", "waiting"]


@dataclass(frozen=True)
class SchemaChange:
    """What a schema policy did to one column: `added` or `widened` in the target, `discarded` from the data, or `absent` from it.

    `waiting`: a column without any value so far, which the target gets with the first one.
    """

    action: SchemaAction
    column: str
    table: str
    before: str = ""
    after: str = ""

    @property
    def left_out(self) -> bool:
        """Whether the data's column is not in the target."""
        return self.action in {"discarded", "waiting"}

    def __str__(self) -> str:
        return {
            "added": f"column {self.column!r} ({self.after}) was added to {self.table} (evolve)",
            "widened": f"column {self.column!r} of {self.table} was widened from {self.before} to {self.after} (evolve)",
            "discarded": f"column {self.column!r} ({self.before}) was left out: {self.table} does not have it (discard)",
            "absent": f"column {self.column!r} of {self.table} got no values: the data does not have it (evolve)",
            "waiting": f"column {self.column!r} was left out: it has no value yet that would tell its type (evolve)",
        }[self.action]


@dataclass(frozen=True)
class ColumnVersion:
    """One column of a table as it was; `type` is spelled as the system spells it."""

    name: str
    type: str
    nullable: bool = True


@dataclass(frozen=True)
class SchemaVersion:
    """The columns of a table from the moment on that a publish found or made them so. Versions count from 1 for each table."""

    target: str
    version: int
    columns: tuple[ColumnVersion, ...]
    changes: tuple[str, ...]
    """What differs from the version before, a sentence each."""
    recorded_at: datetime
    pipeline: str
    step: str
    unit_key: str
    attempt: str


@dataclass(frozen=True)
class Published:
    """What a publish did. `already` means the ledger showed it done before (a lost COMMIT reply, an append run twice)."""

    rows: int
    generation: int
    deleted: int | None = None
    target_rows: int | None = None
    already: bool = False
    note: str = ""
    schema_changes: tuple[SchemaChange, ...] = ()
    """What the schema policy did, column by column."""


def schema_fingerprint(schema: pa.Schema) -> str:
    """A short text that changes when a column's name, type or nullability does; order and metadata do not matter."""
    import hashlib

    columns = sorted(f"{item.name}\0{item.type}\0{item.nullable}" for item in schema)
    return hashlib.sha256("\n".join(columns).encode()).hexdigest()[:16]


def utc_now() -> datetime:
    """The current instant, aware, in UTC, to the microsecond."""
    return datetime.now(UTC)
