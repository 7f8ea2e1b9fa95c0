"""From pages to a stream of Arrow batches: columns found or declared, the window kept, keys seen once.

Here: the sample that types are found from, and the parameters of a window. Not here: pages (`_http_pages`), how a value is typed
(`_json_reading`, `_csv_reading`).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from dataflow_assets.connectors import _csv_reading
from dataflow_assets.connectors._files import OpenFile, reader_of, require
from dataflow_assets.connectors._http_errors import Reply
from dataflow_assets.connectors._http_options import HttpSource, WindowParameters
from dataflow_assets.connectors._http_pages import pages, read_page
from dataflow_assets.connectors._http_session import Call, Session, shown
from dataflow_assets.connectors._json_reading import Plan, Row, as_json, typed
from dataflow_assets.errors import ReadFailed, ValueRefused
from dataflow_assets.storage.places import mark_of
from dataflow_assets.storage.type_names import column_types
from dataflow_assets.tables import ReadRequest, WindowFilter

_SAMPLE_ROWS = 10_000
_SAMPLE_BYTES = 16 * 1024 * 1024
_ACCEPT = {"json": "application/json", "ndjson": "application/x-ndjson, application/json", "csv": "text/csv"}


@contextmanager
def stream(session: Session, request: ReadRequest, *, name: str) -> Iterator[pa.RecordBatchReader]:
    """Stream the rows of a source; `name` is the connection's."""
    options: HttpSource = request.options
    call = _call(session, options, request.window, name)
    with tempfile.TemporaryDirectory(prefix="dataflow-http-") as scratch:
        if options.format == "csv":
            schema, batches = _csv(session, options, call, Path(scratch) / "reply.csv")
        else:
            schema, batches = _objects(session, request, call, Path(scratch))
        columns = request.columns or options.columns or schema.names
        yield reader_of(schema, batches, window=request.window, columns=columns, rows=request.batch_rows)


def _call(session: Session, options: HttpSource, window: WindowFilter | None, name: str) -> Call:
    url = session.address(options.path)
    doing = f"{options.method} {shown(url)} of connection {name!r}"
    if not session.is_own(url):
        raise ReadFailed(f"{doing}: path leads to another host than base_url", hint="give that host a connection of its own")
    params = tuple((key, _text(item)) for key, value in options.params.items() for item in (value if isinstance(value, list) else [value]))
    call = Call(url, doing, options.method, params, options.body, {"accept": _ACCEPT[options.format]})
    if options.window is None or window is None:
        return call
    values = window_values(options.window, window)
    return call.with_body(values) if options.window.place == "body" else call.with_params(values)


def _text(value: Any) -> str:
    """A parameter as JSON would write it, text as it is, nothing as nothing."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, default=str).strip('"')


def window_values(parameters: WindowParameters, window: WindowFilter) -> dict[str, str]:
    """The parameters that tell the API the window. Raises ValueRefused when their format cannot say where it ends."""
    start, end = (_moment(parameters, moment) for moment in (window.window.start, window.window.end))
    if (parameters.end or "{end}" in (parameters.text or "")) and _read_back(parameters, end) not in {None, window.window.end}:
        raise ValueRefused(
            f"the end of window {window.window} cannot be said as {parameters.format!r} in {parameters.timezone}: it would be {end}",
            hint="choose another format: in window:, or leave end out",
        )
    if parameters.parameter is not None and parameters.text is not None:
        return {parameters.parameter: parameters.text.replace("{start}", start).replace("{end}", end)}
    return {name: value for name, value in ((parameters.start, start), (parameters.end, end)) if name is not None}


def _moment(parameters: WindowParameters, moment: datetime) -> str:
    local = moment.astimezone(ZoneInfo(parameters.timezone))
    match parameters.format:
        case "iso":
            return local.isoformat().replace("+00:00", "Z")
        case "date":
            return local.date().isoformat()
        case "epoch":
            return str(int(moment.timestamp() // 1))
        case "epoch_ms":
            return str((moment - datetime(1970, 1, 1, tzinfo=UTC)) // _MILLISECOND)
        case pattern:
            return local.strftime(pattern)


_MILLISECOND = datetime(1, 1, 1, 0, 0, 0, 1000) - datetime(1, 1, 1)


def _read_back(parameters: WindowParameters, text: str) -> datetime | None:
    """The moment that a text means; None for a pattern that cannot be read."""
    zone = ZoneInfo(parameters.timezone)
    match parameters.format:
        case "iso":
            return datetime.fromisoformat(text)
        case "date":
            return datetime.fromisoformat(text).replace(tzinfo=zone).astimezone(UTC)
        case "epoch":
            return datetime.fromtimestamp(int(text), UTC)
        case "epoch_ms":
            return datetime(1970, 1, 1, tzinfo=UTC) + int(text) * _MILLISECOND
        case pattern:
            try:
                found = datetime.strptime(text, pattern)
            except ValueError:
                return None
            return (found if found.tzinfo else found.replace(tzinfo=zone)).astimezone(UTC)


def _objects(session: Session, request: ReadRequest, call: Call, scratch: Path) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    options: HttpSource = request.options
    coming: Iterator[Row] = chain.from_iterable(pages(session, options, call, scratch))
    if options.null_values:
        coming = _with_nulls(coming, frozenset(options.null_values))
    if options.key:
        coming = _once(coming, options.key, call.doing)
    sample, size = list[Row](), 0
    for row in coming:
        sample.append(row)
        size += len(as_json(row))
        if len(sample) >= _SAMPLE_ROWS or size >= _SAMPLE_BYTES:
            break
    plan = _plan(sample, request, call.doing)
    wanted = request.columns or options.columns or plan.schema.names
    window = request.window.column if request.window else None
    require(plan.schema, [*wanted, *([window] if window else [])])
    only = plan.only([name for name in plan.schema.names if name in wanted or name == window])
    return only.schema, typed(chain(_emptied(sample), coming), only, where=call.doing)


def _emptied(sample: list[Row]) -> Iterator[Row]:
    """The rows of the sample, which is let go of as they pass."""
    sample.reverse()
    while sample:
        yield sample.pop()


def _plan(sample: list[Row], request: ReadRequest, doing: str) -> Plan:
    """The columns of the sample. Without rows they are those that the source names. Raises ReadFailed when it names none."""
    options: HttpSource = request.options
    declared = column_types(options.column_types)
    plan = Plan.of_rows(sample, declared, size=max(len(sample), 1))
    if sample:
        return plan
    named = [*declared, *(name for name in request.columns or options.columns or () if name not in declared)]
    window = request.window
    if not named or (window is not None and window.column not in declared):
        raise ReadFailed(
            f"{doing}: no rows came, so nothing tells the columns and their types",
            hint="name them in column_types: {column: type, ...}; then a reply without rows has columns too",
        )
    return replace(plan, schema=pa.schema([(name, declared.get(name, pa.null())) for name in named]))


def _with_nulls(rows: Iterator[Row], nulls: frozenset[str]) -> Iterator[Row]:
    for row in rows:
        yield {name: None if type(value) is str and value in nulls else value for name, value in row.items()}


def _once(rows: Iterator[Row], key: Sequence[str], doing: str) -> Iterator[Row]:
    """The rows; one that came before is refused. Keeps 8 bytes of hash for each, in about 70 bytes of memory."""
    seen: set[int] = set()
    for number, row in enumerate(rows, 1):
        try:
            values = tuple(as_json(row[name]) for name in key)
        except KeyError as error:
            raise ReadFailed(f"{doing}: row {number} has no {error} of key", hint="correct key: of the source") from error
        mark = hash(values)
        if mark in seen:
            raise ReadFailed(
                f"{doing}: the row with {', '.join(key)} = {', '.join(values)} came twice",
                hint="rows moved between pages while they were read: sort by a column that does not change; or it is no key",
                transient=True,
            )
        seen.add(mark)
        yield row


def _csv(session: Session, options: HttpSource, call: Call, spool: Path) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    def complete(reply: Reply) -> Reply:
        read_page(replace(reply, spool=None, status=204), options, call.doing)  # its content type alone is looked at
        return reply

    reply = session.fetch(call, complete, spool=spool)
    file = OpenFile(Path(reply.url.partition("://")[2]), mark_of(spool), str(spool))
    dialect = _csv_reading.Dialect(
        delimiter=options.delimiter,
        encoding=_charset(reply) or "utf-8",
        compression="none",
        null_values=tuple(options.null_values) or ("",),
    )
    plan = _csv_reading.Plan.of([file], dialect, column_types(options.column_types))
    return plan.schema, _csv_reading.read_rows(file, plan)


def _charset(reply: Reply) -> str | None:
    for item in reply.headers.get("content-type", "").split(";")[1:]:
        name, _, value = item.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"')
    return None
