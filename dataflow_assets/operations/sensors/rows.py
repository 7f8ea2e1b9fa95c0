"""Sensors of type rows: new rows of a source, told by a column that grows: a time, or an id.

A transaction that commits late brings rows that are older than others which were there before. So rows are taken only up to a ceiling
below which nothing can appear any more: for times the start of the oldest transaction that is open, for ids the largest one that was
there when every transaction now open had not begun.

Here: the ceiling, and the windows of the rows below it. Not here: which transactions are open (each connector's `horizon`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from dataflow_assets.errors import DataflowError, ReadFailed
from dataflow_assets.execution.sensing import Found, Memory
from dataflow_assets.execution.staging import read_request
from dataflow_assets.execution.touching import Edges
from dataflow_assets.operations.sensors.freshness import in_words
from dataflow_assets.operations.sensors.tick import Evaluation
from dataflow_assets.protocols import TellsHorizon
from dataflow_assets.storage import new_rows
from dataflow_assets.tables import Horizon, Query, ReadRequest, WindowFilter
from dataflow_assets.windows import Window, parse_duration

if TYPE_CHECKING:
    import pyarrow as pa


def look(evaluation: Evaluation, memory: Memory) -> Found:
    """Read the new rows' times, and tell which windows they lie in."""
    source = _Source.of(evaluation)
    position = dict(memory.position)
    if position.get("column") != source.cursor:  # none yet, or another one since the pipeline was written differently
        found = _begin(evaluation, source)
    elif position["kind"] == "id":
        found = _look_by_id(evaluation, source, position)
    else:
        found = _look_by_time(evaluation, source, position)
    return replace(found, position={**found.position, "column": source.cursor}) if found.position else found


@dataclass(frozen=True)
class _Source:
    """What is read: the connector, the source step's request, and which columns tell what."""

    connector: Any
    request: ReadRequest
    dialect: str
    """sqlglot's name; empty where there is no SQL, or where a URL says which."""
    cursor: str
    event: str | None

    @classmethod
    def of(cls, evaluation: Evaluation) -> _Source:
        session, step = evaluation.session, evaluation.step
        connector = session.connector(step)
        rendered = session.render(step, connector.Source, session.context(None))
        cursor = evaluation.sensor.cursor
        assert cursor is not None
        event = step.window_column if evaluation.pipeline.windows else None
        return cls(connector, read_request(session, step, None, rendered), connector.capabilities.dialect or "", cursor, event)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read of new rows: never more than two."""
        return tuple(dict.fromkeys([self.event or self.cursor, self.cursor]))

    @contextmanager
    def between(self, start: datetime, end: datetime, timezone: str) -> Iterator[pa.RecordBatchReader]:
        """The new rows by time."""
        window = WindowFilter(self.cursor, Window(start, end), timezone)
        with self.connector.read(
            ReadRequest(self.request.options, query=self.request.query, columns=self.columns, window=window)
        ) as reader:
            yield reader

    @contextmanager
    def asked(self, query: Query, columns: tuple[str, ...] = ()) -> Iterator[pa.RecordBatchReader]:
        """The rows of another query over the same connection; `columns` are those of the source that it has."""
        said = getattr(self.request.options, "column_types", {})
        types = {"column_types": {name: kind for name, kind in said.items() if name in columns}} if said else {}
        options = self.request.options.model_copy(update={"table": None, "query": str(query), "columns": None, **types})
        with self.connector.read(ReadRequest(options, query=query)) as reader:
            yield reader

    @property
    def table_or_query(self) -> Any:
        """What the source step reads."""
        return self.connector.source_table(self.request.options) or self.request.query

    def newest(self) -> Any:
        """The largest value of the cursor column; None for no rows."""
        with self.asked(new_rows.newest_value(self.table_or_query, self.cursor, dialect=self.dialect)) as reader:
            return reader.read_all().column(0).to_pylist()[0]


def _horizon(evaluation: Evaluation, source: _Source) -> Horizon:
    """What the source tells of open transactions; where it cannot, and `delay` is said, its clock is ours and nothing is open."""
    said = "delay" in evaluation.sensor.options.model_fields_set
    if not isinstance(source.connector, TellsHorizon):
        return Horizon(evaluation.now)
    try:
        return source.connector.horizon()
    except ReadFailed:
        if not said:
            raise
        return Horizon(evaluation.now)


def _delay(evaluation: Evaluation) -> timedelta:
    return parse_duration(evaluation.sensor.options.delay)


def _begin(evaluation: Evaluation, source: _Source) -> Found:
    """The first tick: what is there already is a matter of the windows that are due; from now on, new rows are."""
    kind = "time"
    newest: Any = None
    if source.dialect:
        newest = source.newest()
        if newest is None:
            return Found({}, f"{_name(evaluation)} has no rows yet")
        kind = _kind(newest, source)
    horizon = _horizon(evaluation, source)  # after the newest id: whoever drew a smaller one had begun by then
    if horizon.held:
        return Found({}, _why_none(evaluation, horizon))
    if kind == "id":
        return _look_by_id(evaluation, source, {"upto": None, "next": [int(newest), horizon.now.isoformat()]})
    ceiling = _ceiling(evaluation, horizon)
    with source.between(ceiling - timedelta(microseconds=1), ceiling, "UTC"):
        pass  # a column that is no time is refused now, and not when rows come
    return Found({"kind": "time", "upto": ceiling.isoformat()}, *_first(evaluation))


def _first(evaluation: Evaluation) -> tuple[str, dict[str, str]]:
    """What is due, and the windows that are not over: rows that are in them already are below the cursor from now on."""
    said, what = f"the first tick: what {_name(evaluation)} holds already is asked for where it is due", "first tick"
    open_windows = evaluation.unfinished()
    return said, {**evaluation.due_or_whole(what), **(evaluation.units_of(open_windows, what) if open_windows else {})}


def _kind(newest: Any, source: _Source) -> str:
    """Whether the cursor is an id or a time, by its largest value; whether a time can be compared is seen when it first is."""
    if (isinstance(newest, int) and not isinstance(newest, bool)) or (isinstance(newest, Decimal) and newest == newest.to_integral_value()):
        return "id"
    if isinstance(newest, date) and not isinstance(newest, datetime):
        message = f"column {source.cursor!r} holds days, which do not tell the rows of one day apart"
        raise DataflowError(message, hint="name a timestamp or a whole number with cursor:")
    return "time"


def _ceiling(evaluation: Evaluation, horizon: Horizon) -> datetime:
    return min(horizon.oldest or horizon.sure, horizon.sure) - _delay(evaluation)


def _look_by_time(evaluation: Evaluation, source: _Source, position: dict[str, Any]) -> Found:
    horizon = _horizon(evaluation, source)
    start, end = datetime.fromisoformat(position["upto"]), _ceiling(evaluation, horizon)
    if horizon.held or end <= start:
        return Found(position, _why_none(evaluation, horizon))
    timezone = evaluation.pipeline.windows.cadence.timezone if evaluation.pipeline.windows else evaluation.project.model.timezone
    with source.between(start, end, timezone) as reader:
        rows = _Rows.of(evaluation, source, reader)
    return _found(evaluation, horizon, {"kind": "time", "upto": end.isoformat()}, rows)


def _look_by_id(evaluation: Evaluation, source: _Source, position: dict[str, Any]) -> Found:
    """Take ids up to the largest one that was seen before each transaction that is open now had begun.

    An id up to that one was drawn before it was seen, so by a transaction that has ended by now.
    """
    after, seen = position["upto"], position.get("next")
    if seen is None:
        newest = source.newest()
        horizon = _horizon(evaluation, source)
        if newest is None or (after is not None and newest <= after):
            return Found(position, _why_none(evaluation, horizon) + _counted_anew(newest, after))
        seen = [int(newest), horizon.now.isoformat()]
    else:
        horizon = _horizon(evaluation, source)
    upto, moment = int(seen[0]), datetime.fromisoformat(seen[1])
    if horizon.held or not _all_ended(evaluation, horizon, moment):
        return Found({"kind": "id", "upto": after, "next": seen}, _why_none(evaluation, horizon))
    if after is None:
        return Found({"kind": "id", "upto": upto}, *_first(evaluation))
    query = new_rows.rows_between(source.table_or_query, source.columns, source.cursor, after=after, upto=upto, dialect=source.dialect)
    with source.asked(query, source.columns) as reader:
        rows = _Rows.of(evaluation, source, reader)
    return _found(evaluation, horizon, {"kind": "id", "upto": upto}, rows)


def _counted_anew(newest: Any, after: Any) -> str:
    """A word on ids that have gone back: nobody knows whether the newest rows were deleted, or ids begin anew."""
    if newest is None or newest >= after:
        return ""
    return f"; its largest id, {newest}, lies below {after}, which was seen: if ids are counted anew, reset the cursor of the sensor"


def _all_ended(evaluation: Evaluation, horizon: Horizon, moment: datetime) -> bool:
    """Whether every transaction that was open at a moment has ended, and the `delay` that is said has passed."""
    if horizon.oldest is not None and horizon.oldest <= moment:
        return False
    said = "delay" in evaluation.sensor.options.model_fields_set
    return horizon.sure - (_delay(evaluation) if said else timedelta()) >= moment


@dataclass
class _Rows:
    """New rows, as far as a sensor needs to know them."""

    count: int
    newest: str
    windows: list[Window]

    @classmethod
    def of(cls, evaluation: Evaluation, source: _Source, reader: pa.RecordBatchReader) -> _Rows:
        import pyarrow.compute as pc

        from dataflow_assets.batches import know_nanoseconds

        know_nanoseconds(reader.schema)
        count, newest, windows = 0, None, set[Window]()
        plan = evaluation.pipeline.windows
        edges = Edges(plan, evaluation.now) if plan is not None else None
        for batch in reader:
            if not batch.num_rows:
                continue
            count += batch.num_rows
            largest = pc.max(batch.column(source.cursor)).as_py()
            newest = largest if newest is None else max(newest, largest)
            if edges is not None and source.event is not None:
                windows |= edges.windows_of(batch.column(source.event))
        return cls(count, str(newest), sorted(windows))


def _found(evaluation: Evaluation, horizon: Horizon, position: dict[str, Any], rows: _Rows) -> Found:
    if not rows.count:
        return Found(position, _why_none(evaluation, horizon))
    said = f"{rows.count:,} new row{'s' * (rows.count != 1)} in {_name(evaluation)}, the newest at {rows.newest}"
    what = f"rows to {rows.newest}"
    if evaluation.pipeline.windows is None or evaluation.step.window_column is None:
        return Found(position, said, evaluation.due_or_whole(what))
    if not rows.windows:
        return Found(position, f"{said}, none of them in a window of {evaluation.pipeline.name}")
    return Found(position, said, evaluation.units_of(rows.windows, what))


def _why_none(evaluation: Evaluation, horizon: Horizon) -> str:
    if horizon.held:
        return f"no new row can be taken from {_name(evaluation)}: {horizon.held}"
    if horizon.oldest is not None:
        age = in_words(horizon.now - horizon.oldest)
        return f"no new row in {_name(evaluation)} below the oldest open transaction, open for {age} ({horizon.said})"
    return f"no new row in {_name(evaluation)}"


def _name(evaluation: Evaluation) -> str:
    return evaluation.step.table or f"{evaluation.pipeline.name}.{evaluation.step.id}"
