"""CSV: RFC 4180 text in, types found or declared; text out that reads back as the same values.

An unquoted empty field is null, a quoted one (`""`) is the empty text. Timestamps are ISO 8601, instants in UTC with a `Z`.
Here: options, reading, the connector. Not here: writing (`_csv_format`), types (`_text_types`), publishing (`storage.files`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from dataflow_assets.connectors._csv_format import CsvFormat
from dataflow_assets.connectors._csv_reading import Dialect, Plan, codec_of, read_rows
from dataflow_assets.connectors._files import FileConnector, reader_of, require, snapshot
from dataflow_assets.protocols import Capabilities
from dataflow_assets.spec.base import Names
from dataflow_assets.spec.models import EndpointOptions, SourceOptions
from dataflow_assets.storage.read_ahead import read_ahead
from dataflow_assets.storage.type_names import column_types
from dataflow_assets.tables import ReadRequest, WriteMode

Compression = Literal["infer", "none", "gzip", "bz2", "zstd", "lz4"]


class CsvSource(SourceOptions):
    """A file, a folder or a glob, and how its text is laid out."""

    file_path: str = Field(min_length=1, description="a file, a folder or a glob such as landing/*.csv, relative to the project")
    delimiter: str = Field(",", min_length=1, max_length=1, description="one character")
    encoding: str = Field("utf-8", description="any Python codec, e.g. utf-8-sig, cp1252, utf-16")
    has_header: bool = Field(True, description="whether the first line names the columns; otherwise they are f0, f1, ...")
    skip_rows: int = Field(0, ge=0, description="lines before the header to leave out")
    quote_char: str = Field('"', max_length=1, description="empty: quotes mean nothing")
    escape_char: str = Field("", max_length=1, description="what makes the next character plain; default: quotes are doubled")
    null_values: Names = Field(default_factory=lambda: [""], description="unquoted texts that mean null")
    column_types: dict[str, str] = Field(default_factory=dict, description="column -> int64, decimal(12,2), string, timestamp[UTC], ...")
    compression: Compression = Field("infer", description="infer goes by the ending: .gz .bz2 .zst .lz4")

    @property
    def dialect(self) -> Dialect:
        """How the text is laid out."""
        return Dialect(
            delimiter=self.delimiter,
            encoding=self.encoding,
            has_header=self.has_header,
            skip_rows=self.skip_rows,
            quote_char=self.quote_char,
            escape_char=self.escape_char,
            null_values=tuple(self.null_values),
            compression=self.compression,
        )


class CsvEndpoint(EndpointOptions):
    """One file; in DFT's contract a CSV is replaced unless the step says otherwise."""

    mode: WriteMode | None = Field(WriteMode.REPLACE, description="append, replace, replace_window or upsert; default: replace")
    file_path: str = Field(min_length=1, description="the file, relative to the project; its folder is created")
    delimiter: str = Field(",", min_length=1, max_length=1, description="one character")
    encoding: str = Field("utf-8", description="utf-8, or utf-8-sig for spreadsheets that want a mark")
    compression: Literal["infer", "none", "gzip", "zstd"] = Field("infer", description="infer goes by the ending: .gz .zst")


class Connector(FileConnector):
    """CSV files."""

    kind: ClassVar[str] = "csv"
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv", ".txt", ".csv.gz", ".csv.zst", ".csv.bz2", ".tsv.gz")
    capabilities: ClassVar[Capabilities] = Capabilities(
        modes=frozenset(WriteMode), single_file=True, exact_types=False, publishes_early=True
    )
    Source: ClassVar[type[CsvSource]] = CsvSource
    Endpoint: ClassVar[type[CsvEndpoint]] = CsvEndpoint
    example: ClassVar[str] = """
pipeline_name: orders_report
steps:
  - id: landed
    type: source
    source_type: csv
    config:
      file_path: landing/orders-*.csv
      null_values: ["", NA]
      column_types: {order_number: string, amount: "decimal(12,2)"}
  - id: report
    type: endpoint
    endpoint_type: csv
    depends_on: [landed]
    config: {file_path: output/orders.csv}
"""

    def format(self, options: Any) -> CsvFormat:
        return CsvFormat(options.delimiter, options.encoding, codec_of(self.path(options.file_path), options.compression))

    @contextmanager
    def read(self, request: ReadRequest) -> Iterator[pa.RecordBatchReader]:
        options: CsvSource = request.options
        with snapshot(self.wanted(request)) as files:
            plan = Plan.of(files, options.dialect, column_types(options.column_types))
            columns = request.columns or options.columns or plan.schema.names
            window = request.window
            require(plan.schema, [*columns, *([window.column] if window else [])])
            wanted = plan.only([name for name in plan.schema.names if name in columns or (window and name == window.column)])
            batches = (batch for file in files for batch in read_rows(file, wanted))
            with read_ahead(batches) as ahead:
                yield reader_of(wanted.schema, ahead, window=window, columns=columns, rows=request.batch_rows)
