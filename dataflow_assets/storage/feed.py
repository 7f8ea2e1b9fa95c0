"""The stage on its way into a table: each column fitted to its target, each row held to its window, all rows counted.

Here: what is true of any table. Not here: the types of one database, the statement that takes the rows (`connectors`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.batches import open_parquet
from dataflow_assets.errors import AuditFailed, ValueRefused, WriteFailed
from dataflow_assets.failpoints import failpoint
from dataflow_assets.storage.casts import cast_exactly, is_text, plain, plain_type
from dataflow_assets.storage.read_ahead import read_ahead
from dataflow_assets.tables import PublishRequest, Unit, WindowFilter, WriteMode

_AHEAD_ROWS = 32_768
ORDER = "_dataflow_order"
"""The number of a row in its stage, by which the last of equal keys is known."""


@dataclass(frozen=True)
class Route:
    """How a column travels: `wire` is the Arrow type that is sent, `cast` the SQL type that the database makes of it, if another."""

    name: str
    wire: pa.DataType
    cast: str | None = None
    longest: int | None = None
    """Characters of a varchar(n)."""
    fraction: int | None = None
    """Digits of a second in a timestamp(n) or time(n)."""

    def fit(self, column: pa.Array) -> pa.Array:
        """The column as `wire`. Raises ValueRefused where a value would change."""
        fitted = cast_exactly(column, self.wire, name=self.name)
        if self.longest is not None and _is_longer(fitted, self.longest):
            self._refuse(f"holds text longer than the {self.longest} characters of its target column")
        if self.fraction is not None and not _is_whole(fitted, digits=self.fraction):
            self._refuse(f"has finer seconds than the {self.fraction} digits of its target column")
        return fitted

    def _refuse(self, reason: str) -> None:
        raise ValueRefused(f"column {self.name!r} {reason}", hint="widen the target column")


def _is_longer(column: pa.Array, longest: int) -> bool:
    """Whether a text has more characters; they are counted only where its bytes, never fewer and a tenth of the work, are more."""
    return all((pc.max(length(column)).as_py() or 0) > longest for length in (pc.binary_length, pc.utf8_length))


def _is_whole(column: pa.Array, *, digits: int) -> bool:
    if digits == 6:  # every number is a multiple of one
        return True
    numbers, step = column.cast(pa.int64()), pa.scalar(10 ** (6 - digits), pa.int64())
    return bool(pc.all(pc.equal(pc.multiply(pc.divide(numbers, step), step), numbers), min_count=0).as_py())


@dataclass(frozen=True)
class WindowBounds:
    """The window column with its half-open bounds, in the Arrow type in which the column travels."""

    column: str
    start: pa.Scalar
    end: pa.Scalar


def window_bounds(request: PublishRequest, routes: Mapping[str, Route]) -> WindowBounds | None:
    """The window in the type in which its column travels, None when the mode has no window. Raises WriteFailed without a column for it."""
    target, window, name = request.target, request.claim.unit.window, request.target.window_column
    if target.mode is not WriteMode.REPLACE_WINDOW:
        return None
    if name is None or window is None or name not in routes:
        hint = "set event_time_column on the step or its pipeline to a column of the data"
        raise WriteFailed(f"{target.table}: replace_window needs windows and an event_time_column", hint=hint)
    kind = routes[name].wire
    start, end = WindowFilter(name, window, target.timezone).bounds(kind)
    return WindowBounds(name, pa.scalar(start, kind), pa.scalar(end, kind))


class Feed:
    """One reading of a stage. After it, `rows` says how many there were, and `error` what broke it off.

    A driver reports whatever its stream raises as an error of its own; `raise_own` brings back the first one.
    """

    def __init__(
        self, request: PublishRequest, routes: Mapping[str, Route], bounds: WindowBounds | None, *, batch_rows: int, ordered: bool
    ) -> None:
        self._request, self._routes, self._bounds = request, routes, bounds
        self._batch_rows, self._ordered = batch_rows, ordered
        self.rows = 0
        self.error: BaseException | None = None

    def reader(self) -> pa.RecordBatchReader:
        """The fitted rows, prepared in a thread of their own; with the column `ORDER` when ordered."""
        fields = [pa.field(name, way.wire) for name, way in self._routes.items()]
        schema = pa.schema([*fields, pa.field(ORDER, pa.int64())] if self._ordered else fields)
        return pa.RecordBatchReader.from_batches(schema, self._guarded(schema))

    def raise_own(self, error: Exception) -> None:
        """Raise what broke the stage off, if anything did, in place of the driver's `error`."""
        if self.error is not None:
            raise self.error from error

    def require_all(self) -> None:
        """Raise AuditFailed unless the stage gave as many rows as its receipt says."""
        require_rows(self.rows, self._request)

    def _guarded(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        halfway = False
        try:
            with read_ahead(self._fitted(schema), depth=max(_AHEAD_ROWS // self._batch_rows, 2)) as batches:
                for batch in batches:
                    yield batch
                    self.rows += batch.num_rows
                    if not halfway and self.rows * 2 >= (self._request.known_rows or 0):
                        halfway = True
                        failpoint("publish.mid_copy")
        except GeneratorExit:
            raise
        except BaseException as error:
            self.error = error
            raise

    def _fitted(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        start = 0
        for whole in self._request.open_reader():
            for offset in range(0, whole.num_rows, self._batch_rows):
                batch = whole.slice(offset, self._batch_rows)
                columns = [way.fit(batch.column(name)) for name, way in self._routes.items()]
                self._check(dict(zip(self._routes, columns, strict=True)))
                if self._ordered:
                    columns.append(pa.array(range(start, start + batch.num_rows), type=pa.int64()))
                start += batch.num_rows
                yield pa.RecordBatch.from_arrays(columns, schema=schema)

    def _check(self, columns: Mapping[str, pa.Array]) -> None:
        target = self._request.target
        if target.mode is WriteMode.UPSERT:
            for key in target.keys:
                if columns[key].null_count:
                    raise null_key(key)
        if self._bounds is not None:
            self._check_window(columns[self._bounds.column], self._bounds)

    def _check_window(self, column: pa.Array, bounds: WindowBounds) -> None:
        outside = pc.or_(pc.less(column, bounds.start), pc.greater_equal(column, bounds.end))
        strays = pc.sum(pc.fill_null(outside, True), min_count=0).as_py()
        if strays:
            raise outside_window(bounds.column, strays, self._request.claim.unit)


def longest_texts(request: PublishRequest, names: Sequence[str]) -> dict[str, int]:
    """The characters of the longest value of some columns, by name; those that are no text are left out."""
    wanted = [name for name in names if is_text(plain_type(request.schema.field(name).type))]
    found = dict.fromkeys(wanted, 0)
    if not wanted:
        return found
    request.require_checked()
    with open_parquet(request.paths, request.schema, columns=wanted) if request.paths else request.open_reader() as reader:
        for batch in reader:
            for name in wanted:
                found[name] = max(found[name], pc.max(pc.utf8_length(plain(batch.column(name)))).as_py() or 0)
    return found


def null_key(key: str) -> ValueRefused:
    """Null equals nothing, so such a row would be inserted anew by each run."""
    return ValueRefused(
        f"upsert key {key!r} is null in some rows, and null equals nothing", hint="filter such rows out, or fill the key in"
    )


def outside_window(column: str, strays: int, unit: Unit) -> ValueRefused:
    """Publishing such rows would double those of a neighbour, or leave them behind at each rerun."""
    hint = "filter the source by the window, or change event_time_column"
    return ValueRefused(f"{unit}: column {column!r} is null or outside the window in {strays} rows", hint=hint)


def require_rows(found: int, request: PublishRequest) -> None:
    """Raise AuditFailed unless `found` is what the receipt says."""
    if found != request.rows:
        raise AuditFailed(f"{request.claim.unit}: the stage gave {found} rows, its receipt says {request.rows}; nothing was published")


def require_replaced(deleted: int | None, request: PublishRequest) -> None:
    """Raise AuditFailed when a publish that says how many rows it takes away takes others: somebody else has written into the window."""
    if request.replaces is not None and deleted != request.replaces:
        raise AuditFailed(
            f"{request.target.table}: {request.claim.unit} holds {'an unknown number of' if deleted is None else deleted} rows, "
            f"and {request.replaces} were to be taken away; nothing was changed",
            hint="see who else writes into the table; run it again",
        )


def require_target_rows(found: int, request: PublishRequest) -> None:
    """Raise AuditFailed unless the target, before the commit, holds as many rows as were sent."""
    if found != request.rows:
        text = f"{request.target.table} holds {found} rows of {request.claim.unit} after writing {request.rows}; nothing was published"
        raise AuditFailed(text, hint="look for triggers, rules and other writers on the table")
