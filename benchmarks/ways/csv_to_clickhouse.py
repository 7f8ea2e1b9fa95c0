"""CSV to ClickHouse. Here: the limit, the file posted with curl, and who stands beside it."""

from __future__ import annotations

from benchmarks.clickhouse import CREATE
from benchmarks.model import Contender, Part, Way
from benchmarks.peers import peer_contenders
from benchmarks.ways import Ground, ours


def way(ground: Ground) -> Way:
    """The way with its contenders."""
    return Way("csv-clickhouse", "CSV to ClickHouse", (_limit(ground), ours(ground, "csv", "clickhouse"), *_peers(ground)), 2.0)


def _limit(ground: Ground) -> Contender:
    server = ground.servers.clickhouse

    def clear() -> None:
        server.clear("curl")
        server.sql(CREATE.format(table="curl.events"))

    argv = server.insert_csv(ground.csv, "curl.events")
    return Contender("curl INSERT FORMAT CSV", Part.LIMIT, argv, clear=clear, count=lambda: server.count("curl"))


def _peers(ground: Ground) -> tuple[Contender, ...]:
    server = ground.servers.clickhouse
    return peer_contenders(
        ground.peer_python,
        source=str(ground.csv),
        to="clickhouse",
        target=lambda peer: server.sqlalchemy_url(f"bench_{peer}"),
        clear=lambda peer: server.clear(f"bench_{peer}"),
        count=lambda peer: server.count(f"bench_{peer}"),
    )
