"""Reading an index: one point in time, pages by search_after, slices side by side.

Here: the search with columns and window pushed down, and the stream. Not here: the calls (`_elasticsearch_session`), what fields
become (`_elasticsearch_fields`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from dataflow_assets.batches import resize
from dataflow_assets.connectors import _elasticsearch_fields as fields
from dataflow_assets.connectors._elasticsearch_fields import META, Column, Shape
from dataflow_assets.connectors._elasticsearch_session import Cluster, IndexMissing, PointInTime
from dataflow_assets.errors import ReadFailed
from dataflow_assets.storage.read_ahead import read_ahead
from dataflow_assets.tables import ReadRequest, WindowFilter
from dataflow_assets.windows import parse_duration

_TIEBREAKER = {"elasticsearch": "_shard_doc", "opensearch": "_id"}


@dataclass(frozen=True)
class Search:
    """What every page of a read asks for; `columns` are those converted, `wanted` those handed out."""

    body: Mapping[str, Any]
    columns: Sequence[Column]
    wanted: Sequence[str]
    where: str

    @property
    def schema(self) -> pa.Schema:
        """The columns that are handed out."""
        kinds = {column.name: column.kind.arrow for column in self.columns}
        return pa.schema([(name, kinds[name]) for name in self.wanted])


@contextmanager
def stream(cluster: Cluster, request: ReadRequest) -> Iterator[pa.RecordBatchReader]:
    """Stream the documents of an index from one point in time."""
    options = request.options
    keep_alive = f"{int(parse_duration(options.keep_alive).total_seconds() * 1000)}ms"
    with cluster.point_in_time(options.index, keep_alive) as point:
        search = _search(cluster, request)
        stop = threading.Event()
        with ExitStack() as stack:
            parts = [
                stack.enter_context(read_ahead(_pages(cluster, point, search, part, stop), depth=2, cancel=stop.set))
                for part in _slices(options.slices)
            ]
            batches = resize(_in_turn(parts), rows=request.batch_rows)
            yield pa.RecordBatchReader.from_batches(search.schema, batches)


def _slices(count: int) -> list[dict[str, Any]]:
    return [{"slice": {"id": number, "max": count}} for number in range(count)] if count > 1 else [{}]


def _in_turn(parts: list[Iterator[pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
    """A batch of each in turn, until all are at their end."""
    waiting = list(parts)
    while waiting:
        for part in list(waiting):
            batch = next(part, None)
            if batch is None:
                waiting.remove(part)
            else:
                yield batch


def _search(cluster: Cluster, request: ReadRequest) -> Search:
    """The search of a source. The mapping is read after the snapshot was taken, so that it has every field of that."""
    options, window = request.options, request.window
    where = f"index {options.index!r}"
    try:
        mappings = cluster.mappings(options.index)
    except IndexMissing as error:
        raise cluster.missing(options.index) from error
    properties = fields.merged(mapping.get("properties", {}) for mapping in mappings.values())
    shape = Shape(options.column_types, frozenset(options.arrays), options.nested == "struct")
    columns = fields.columns_of(properties, request.columns or options.columns, shape, where=where)
    wanted = [column.name for column in columns]
    clauses = [options.query] if options.query else []
    if window is not None:
        columns += [] if window.column in wanted else fields.columns_of(properties, [window.column], shape, where=where)
        clauses.append(_range(next(column for column in columns if column.name == window.column), window, where=where))
    fields.refuse_lost_fields(mappings, columns, where=where)
    body = {
        "size": options.page_size,
        "query": {"bool": {"filter": clauses}} if clauses else {"match_all": {}},
        "sort": [{options.tiebreaker or _TIEBREAKER[cluster.system]: "asc"}],
        "_source": [column.name for column in columns if column.name not in META] or False,
    }
    return Search(body, columns, wanted, where)


def _range(column: Column, window: WindowFilter, *, where: str) -> dict[str, Any]:
    """The window as a range query on its field; bounds are written with their zone, whatever the field's own format."""
    if column.mapped not in {"date", "date_nanos"}:
        raise ReadFailed(
            f"{where}: {column.name!r} is {column.mapped}, so it cannot place a document in a window",
            hint="event_time_column must be mapped as date or date_nanos",
        )
    start, end = (_text(bound) for bound in window.bounds(column.kind.arrow))
    return {"range": {column.name: {"gte": start, "lt": end, "format": "strict_date_optional_time"}}}


def _text(bound: datetime | date) -> str:
    moment = bound if isinstance(bound, datetime) else datetime(bound.year, bound.month, bound.day)
    return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _pages(
    cluster: Cluster, point: PointInTime, search: Search, part: Mapping[str, Any], stop: threading.Event
) -> Iterator[pa.RecordBatch]:
    """The pages of one slice. Raises ReadFailed when fewer documents come than the first page has counted."""
    total, count, after = None, 0, None
    doing = f"reading {search.where}"
    while not stop.is_set():
        body = {**search.body, **part, "track_total_hits": total is None}
        if after is not None:
            body["search_after"] = after
        found = cluster.search(point, body, doing=doing, stop=stop)["hits"]
        hits = found["hits"]
        if total is None:
            total = int(found["total"]["value"])
        count += len(hits)
        if hits:
            _refuse_empty_sources(hits, search)
            yield fields.batch_of(hits, search.columns, where=search.where).select(list(search.wanted))
            after = hits[-1]["sort"]
        if count >= total:
            return
        if not hits:
            raise ReadFailed(
                f"{doing}: {count} documents came, of {total}", hint="set tiebreaker: to a field that is unique", transient=True
            )


def _refuse_empty_sources(hits: Sequence[Mapping[str, Any]], search: Search) -> None:
    if search.body["_source"] and any("_source" not in hit for hit in hits):
        raise ReadFailed(f"{search.where}: documents came without their source", hint="an index without _source cannot be read")
