"""Loads the events table with dlt, in the environment of the peers: `dlt_load.py <source dsn> <to> <target>`.

Here: the choices that proved fastest of those that dlt documents: connectorx reading, Arrow passed through, Parquet loaded with
ADBC into Postgres (12 % to 40 % faster than the pyarrow backend and than CSV). Not here: how it is started (`peers.dlt`).
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["NORMALIZE__DATA_WRITER__DISABLE_COMPRESSION"] = "true"

import dlt
from dlt.sources.sql_database import sql_table


def main(source: str, to: str, target: str) -> None:
    # connectorx does not know ClickHouse over HTTP
    backend = "pyarrow" if source.startswith("clickhousedb") else "connectorx"
    table = sql_table(credentials=source, table="events", backend=backend, chunk_size=100_000, reflection_level="full")
    with tempfile.TemporaryDirectory() as folder:
        destination, dataset, file_format = choose(to, target, source)
        pipeline = dlt.pipeline("bench", destination=destination, dataset_name=dataset, pipelines_dir=folder)
        print(pipeline.run(table, table_name="events", write_disposition="replace", loader_file_format=file_format))


def choose(to: str, target: str, source: str) -> tuple[Any, str, str]:
    if to == "postgres":
        return dlt.destinations.postgres(source), target, "parquet"
    if to == "duckdb":
        return dlt.destinations.duckdb(target), "loaded", "parquet"
    return dlt.destinations.filesystem(Path(target).absolute().as_uri()), "loaded", "csv"


if __name__ == "__main__":
    main(*sys.argv[1:])
