"""Postgres to Postgres. Here: the limit, COPY binary piped from psql into psql, and who stands beside it."""

from __future__ import annotations

from benchmarks.events import COLUMNS, TABLE
from benchmarks.model import Contender, Part, Way
from benchmarks.peers import peer_contenders
from benchmarks.ways import Ground, clear_table, count_table, ours


def way(ground: Ground) -> Way:
    """The way with its contenders."""
    return Way(
        "postgres-postgres", "Postgres to Postgres", (_limit(ground), ours(ground, "postgres", "postgres"), *_peers(ground)), 2.0, 1.5
    )


def _limit(ground: Ground) -> Contender:
    psql = f"psql -X -q -d {ground.server.dsn}"
    pipe = f'{psql} -c "COPY {TABLE} TO STDOUT (FORMAT binary)" | {psql} -c "COPY psql.events FROM STDIN (FORMAT binary)"'

    def clear() -> None:
        clear_table(ground, "psql")
        ground.server.sql(f"CREATE TABLE psql.events ({COLUMNS})")

    argv = ("bash", "-o", "pipefail", "-c", pipe)
    return Contender("psql COPY binary | psql COPY", Part.LIMIT, argv, clear=clear, count=lambda: count_table(ground, "psql"))


def _peers(ground: Ground) -> tuple[Contender, ...]:
    return peer_contenders(
        ground.peer_python,
        source=ground.server.dsn,
        to="postgres",
        target=lambda peer: f"peer_{peer}",
        clear=lambda peer: clear_table(ground, f"peer_{peer}"),
        count=lambda peer: count_table(ground, f"peer_{peer}"),
    )
