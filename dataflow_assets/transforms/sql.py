"""The transform `sql`: one SELECT of DuckDB over the step's inputs.

Here: the options. Not here: the locked-down engine (`storage.sandbox`), the values in the text, which arrive bound
(`StepContext.queries`).

Each input is a table named by its step id, and `input` is the first. Times are in UTC. DuckDB's sum of whole numbers is
decimal(38, 0): cast it to bigint where the target wants one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, ClassVar

import pyarrow as pa
from pydantic import Field, StringConstraints

from dataflow_assets.errors import TransformFailed
from dataflow_assets.protocols import Mistake, StagedInput, StepContext
from dataflow_assets.spec.base import Model, SqlText
from dataflow_assets.tables import Query


class SqlOptions(Model):
    """What to select."""

    query: SqlText = Field(min_length=1, description="one SELECT; the inputs are tables named by their step ids, input is the first")
    memory_limit: Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)?\s?([KMGT]i?B|%)$")] = Field(
        "512MB", description="beyond it DuckDB spills to disk"
    )


class Transform:
    """See `protocols.Transform`."""

    kind: ClassVar[str] = "sql"
    Options: ClassVar[type[SqlOptions]] = SqlOptions
    example: ClassVar[str] = """\
pipeline_name: delays_by_origin
steps:
  - id: flights
    type: source
    source_type: csv
    config:
      file_path: data/flights.csv
  - id: airports
    type: source
    source_type: csv
    config:
      file_path: data/airports.csv
  - id: delays
    type: processor
    processor_type: sql
    depends_on: [flights, airports]
    config:
      query: |
        SELECT a.name, count(*) AS flights, avg(f.dep_delay) AS mean_delay
        FROM flights AS f JOIN airports AS a ON a.faa = f.origin
        WHERE f.dep_delay > {{ var('smallest_delay', 0) }}
        GROUP BY ALL
        ORDER BY flights DESC
  - id: kept
    type: endpoint
    endpoint_type: parquet
    depends_on: [delays]
    config: {file_path: output/delays_by_origin.parquet}
"""

    def __init__(self, options: SqlOptions) -> None:
        self._options = options

    def mistakes(self, project_dir: Path, inputs: Sequence[str]) -> list[Mistake]:
        """What DuckDB's parser refuses, and more than one SELECT."""
        from dataflow_assets.storage.sandbox import parse_select

        try:
            parse_select(self._options.query, step="")
        except TransformFailed as error:
            return [Mistake(("query",), error.message, error.hint)]
        return []

    @contextmanager
    def apply(self, inputs: Mapping[str, StagedInput], context: StepContext) -> Iterator[pa.RecordBatchReader]:
        """Stream the result. Raises TransformFailed with DuckDB's message and the place in the SQL."""
        from dataflow_assets.storage.sandbox import open_sandbox

        query = context.queries.get("query") or Query.of(self._options.query)
        with open_sandbox(inputs, scratch=context.scratch, step=context.step, memory_limit=self._options.memory_limit) as sandbox:
            yield sandbox.select(query)
