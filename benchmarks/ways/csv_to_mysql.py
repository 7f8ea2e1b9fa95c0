"""CSV to MySQL. Here: the limit, the client's LOAD DATA LOCAL INFILE, and who stands beside it."""

from __future__ import annotations

from benchmarks.model import Contender, Part, Way
from benchmarks.mysql import COLUMNS, load_data
from benchmarks.peers import peer_contenders
from benchmarks.ways import Ground, ours


def way(ground: Ground) -> Way:
    """The way with its contenders."""
    return Way("csv-mysql", "CSV to MySQL", (_limit(ground), ours(ground, "csv", "mysql"), *_peers(ground)), 2.0)


def _limit(ground: Ground) -> Contender:
    server = ground.servers.mysql

    def clear() -> None:
        server.clear("client")
        server.sql(f"CREATE TABLE client.events ({COLUMNS})")

    argv = server.client("--local-infile=1", f"--execute={load_data(ground.csv, 'client.events')}")
    return Contender("mariadb LOAD DATA LOCAL", Part.LIMIT, argv, clear=clear, count=lambda: server.count("client"))


def _peers(ground: Ground) -> tuple[Contender, ...]:
    server = ground.servers.mysql
    return peer_contenders(
        ground.peer_python,
        source=str(ground.csv),
        to="mysql",
        target=lambda peer: server.sqlalchemy_url(f"bench_{peer}"),
        clear=lambda peer: server.clear(f"bench_{peer}"),
        count=lambda peer: server.count(f"bench_{peer}"),
    )
