"""CSV to Postgres. Here: the limit, psql's \\copy from a file, and ours beside it."""

from __future__ import annotations

from benchmarks.events import COLUMNS
from benchmarks.model import Contender, Part, Way
from benchmarks.ways import Ground, clear_table, count_table, ours


def way(ground: Ground) -> Way:
    """The way with its contenders."""

    def clear() -> None:
        clear_table(ground, "psql")
        ground.server.sql(f"CREATE TABLE psql.events ({COLUMNS})")

    copy = f"\\copy psql.events FROM '{ground.csv}' WITH (FORMAT csv, HEADER)"
    argv = ("psql", "-X", "-q", "-d", ground.server.dsn, "-c", copy)
    limit = Contender("psql \\copy from a file", Part.LIMIT, argv, clear=clear, count=lambda: count_table(ground, "psql"))
    return Way("csv-postgres", "CSV to Postgres", (limit, ours(ground, "csv", "postgres")), 1.5)
