"""Rows as Parquet files for a warehouse that loads files into a staging table.

Here: writing them, a file at a time. Not here: how one warehouse's values are written (`_snowflake_types`, `_bigquery_types`), loading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def parquet_files(
    reader: pa.RecordBatchReader, schema: pa.Schema, staged: Callable[[pa.Array], pa.Array], folder: Path, *, file_bytes: int
) -> Iterator[Path]:
    """Write the rows into files of about `file_bytes` Arrow bytes each; the next is written when it is asked for.

    `staged` turns each column into that of the same place in `schema`.
    """
    batches = (pa.RecordBatch.from_arrays([staged(column) for column in batch.columns], schema=schema) for batch in reader)
    for number, first in enumerate(batches):
        path, size = folder / f"{number:06}.parquet", first.nbytes
        with pq.ParquetWriter(path, schema, store_schema=False) as writer:
            writer.write_batch(first)
            while size < file_bytes and (batch := next(batches, None)) is not None:
                writer.write_batch(batch)
                size += batch.nbytes
        yield path
