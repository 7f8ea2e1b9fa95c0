"""Postgres to CSV. Here: the limit, psql's \\copy to a file, and who stands beside it."""

from __future__ import annotations

from benchmarks.events import TABLE
from benchmarks.model import Contender, Part, Way
from benchmarks.peers import peer_contenders
from benchmarks.ways import Ground, clear_files, count_csv, ours


def way(ground: Ground) -> Way:
    """The way with its contenders."""
    return Way("postgres-csv", "Postgres to CSV", (_limit(ground), ours(ground, "postgres", "csv"), *_peers(ground)), 2.0, 1.7)


def _limit(ground: Ground) -> Contender:
    copy = f"\\copy {TABLE} TO '{ground.folder}/limit.csv' WITH (FORMAT csv, HEADER)"
    return Contender(
        "psql COPY csv to a file",
        Part.LIMIT,
        ("psql", "-X", "-q", "-d", ground.server.dsn, "-c", copy),
        clear=lambda: clear_files(ground, "limit"),
        count=lambda: count_csv(ground, "limit"),
    )


def _peers(ground: Ground) -> tuple[Contender, ...]:
    return peer_contenders(
        ground.peer_python,
        source=ground.server.dsn,
        to="csv",
        target=lambda peer: f"{ground.folder}/{peer}.csv",
        clear=lambda peer: clear_files(ground, peer),
        count=lambda peer: count_csv(ground, peer),
    )
