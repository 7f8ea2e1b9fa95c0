"""CSV to DuckDB. Here: the limit, DuckDB's own read_csv, and ours beside it."""

from __future__ import annotations

import sys

from benchmarks.model import Contender, Part, Way
from benchmarks.ways import Ground, clear_files, count_duckdb, ours

LOAD = (
    "import duckdb, sys; c = duckdb.connect(sys.argv[2]); "
    "c.execute('CREATE TABLE events AS SELECT * FROM read_csv($1, header = true)', [sys.argv[1]]); c.close()"
)


def way(ground: Ground) -> Way:
    """The way with its contenders."""
    limit = Contender(
        "duckdb read_csv",
        Part.LIMIT,
        (sys.executable, "-c", LOAD, str(ground.csv), f"{ground.folder}/limit.duckdb"),
        clear=lambda: clear_files(ground, "limit"),
        count=lambda: count_duckdb(ground, "limit"),
    )
    return Way("csv-duckdb", "CSV to DuckDB", (limit, ours(ground, "csv", "duckdb")), 1.5)
