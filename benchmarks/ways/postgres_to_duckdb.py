"""Postgres to DuckDB. Here: the limit, CSV piped from psql into DuckDB's own reader, and who stands beside it."""

from __future__ import annotations

import sys

from benchmarks.events import TABLE
from benchmarks.model import Contender, Part, Way
from benchmarks.peers import peer_contenders
from benchmarks.ways import Ground, clear_files, count_duckdb, ours

LOAD = (
    "import duckdb, sys; c = duckdb.connect(sys.argv[1]); "
    "c.execute(\"CREATE TABLE events AS SELECT * FROM read_csv('/dev/stdin', header = true)\"); c.close()"
)


def way(ground: Ground) -> Way:
    """The way with its contenders."""
    return Way("postgres-duckdb", "Postgres to DuckDB", (_limit(ground), ours(ground, "postgres", "duckdb"), *_peers(ground)), 0.8)


def _limit(ground: Ground) -> Contender:
    psql = f'psql -X -q -d {ground.server.dsn} -c "COPY {TABLE} TO STDOUT (FORMAT csv, HEADER)"'
    pipe = f'{psql} | {sys.executable} -c "$LOAD" {ground.folder}/limit.duckdb'
    return Contender(
        "psql COPY csv | duckdb",
        Part.LIMIT,
        ("bash", "-o", "pipefail", "-c", pipe),
        {"LOAD": LOAD},
        clear=lambda: clear_files(ground, "limit"),
        count=lambda: count_duckdb(ground, "limit"),
    )


def _peers(ground: Ground) -> tuple[Contender, ...]:
    return peer_contenders(
        ground.peer_python,
        source=ground.server.dsn,
        to="duckdb",
        target=lambda peer: f"{ground.folder}/{peer}.duckdb",
        clear=lambda peer: clear_files(ground, peer),
        count=lambda peer: count_duckdb(ground, peer),
    )
