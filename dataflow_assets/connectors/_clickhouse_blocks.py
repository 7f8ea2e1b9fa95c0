"""The rows of an INSERT into ClickHouse as one Arrow stream, written block by block.

Here: the bytes. Not here: sending them (`_clickhouse_session`), fitting the rows (`storage.feed`).
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import pyarrow as pa


def blocks(reader: pa.RecordBatchReader) -> Iterator[bytes]:
    """The rows as one Arrow stream, block by block."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
            yield _taken(sink)
    yield _taken(sink)


def _taken(sink: io.BytesIO) -> bytes:
    written = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return written
