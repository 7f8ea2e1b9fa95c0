"""JSON: a document with an array of objects, or one object per line (NDJSON).

Numbers keep every digit: an integer beyond 64 bits and a decimal too long for a float become decimals. Text that is an ISO 8601
date or timestamp in every row becomes one. Nested values become JSON text. Here: options, reading, the connector. Not here:
parsing (`_json_reading`), writing (`_json_format`), publishing (`storage.files`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import AliasChoices, Field

from dataflow_assets.connectors._files import FileConnector, reader_of, require, snapshot
from dataflow_assets.connectors._json_format import JsonFormat
from dataflow_assets.connectors._json_reading import Layout, Plan, read_rows
from dataflow_assets.protocols import Capabilities
from dataflow_assets.spec.models import EndpointOptions, SourceOptions
from dataflow_assets.storage.file_writing import Format
from dataflow_assets.storage.type_names import column_types
from dataflow_assets.tables import ReadRequest, WriteMode

_LINES = {".ndjson", ".jsonl"}
Shape = Literal["document", "ndjson"]


class JsonSource(SourceOptions):
    """A file, a folder or a glob, and where its rows are."""

    file_path: str = Field(min_length=1, description="a file, a folder or a glob such as landing/*.jsonl, relative to the project")
    format: Shape | None = Field(None, description="document or ndjson; default: ndjson for .ndjson and .jsonl, else document")
    records_path: str = Field(
        "", validation_alias=AliasChoices("records_path", "json_path"), description="the keys to the rows in a document, e.g. data.items"
    )
    column_types: dict[str, str] = Field(default_factory=dict, description="column -> int64, decimal(12,2), string, timestamp[UTC], ...")
    encoding: str = Field("utf-8", description="any Python codec")


class JsonEndpoint(EndpointOptions):
    """One file."""

    mode: WriteMode | None = Field(WriteMode.REPLACE, description="append, replace, replace_window or upsert; default: replace")
    file_path: str = Field(min_length=1, description="the file, relative to the project; its folder is created")
    format: Shape | None = Field(None, description="document or ndjson; default: ndjson for .ndjson and .jsonl, else document")


class Connector(FileConnector):
    """JSON files."""

    kind: ClassVar[str] = "json"
    suffixes: ClassVar[tuple[str, ...]] = (".json", ".ndjson", ".jsonl", ".json.gz", ".ndjson.gz", ".jsonl.gz")
    capabilities: ClassVar[Capabilities] = Capabilities(
        modes=frozenset(WriteMode), single_file=True, exact_types=False, publishes_early=True
    )
    Source: ClassVar[type[JsonSource]] = JsonSource
    Endpoint: ClassVar[type[JsonEndpoint]] = JsonEndpoint
    example: ClassVar[str] = """
pipeline_name: orders_from_api_dump
steps:
  - id: dumped
    type: source
    source_type: json
    config: {file_path: landing/orders.json, records_path: data.orders}
  - id: lines
    type: endpoint
    endpoint_type: json
    depends_on: [dumped]
    config: {file_path: output/orders.ndjson, mode: upsert, upsert_keys: [order_id]}
"""

    def format(self, options: Any) -> Format:
        return JsonFormat(lines=is_lines(options))

    @contextmanager
    def read(self, request: ReadRequest) -> Iterator[pa.RecordBatchReader]:
        options: JsonSource = request.options
        layout = Layout(is_lines(options), tuple(filter(None, options.records_path.removeprefix("$").split("."))), options.encoding)
        with snapshot(self.wanted(request)) as files:
            plan = Plan.of(files, layout, column_types(options.column_types))
            columns = request.columns or options.columns or plan.schema.names
            window = request.window
            require(plan.schema, [*columns, *([window.column] if window else [])])
            wanted = plan.only([name for name in plan.schema.names if name in columns or (window and name == window.column)])
            batches = (batch for file in files for batch in read_rows(file, wanted))
            yield reader_of(wanted.schema, batches, window=window, columns=columns, rows=request.batch_rows)


def is_lines(options: JsonSource | JsonEndpoint) -> bool:
    """Whether the file has one object per line."""
    if options.format is not None:
        return options.format == "ndjson"
    return bool(_LINES & set(PurePosixPath(options.file_path).suffixes))
