"""ClickHouse to CSV. Here: the limit, curl that fetches FORMAT CSV, and who stands beside it."""

from __future__ import annotations

from benchmarks.model import Contender, Part, Way
from benchmarks.peers import peer_contenders
from benchmarks.ways import Ground, clear_files, count_csv, count_lines, ours


def way(ground: Ground) -> Way:
    """The way with its contenders."""
    ground.servers.clickhouse.make_events(ground.csv)
    return Way("clickhouse-csv", "ClickHouse to CSV", (_limit(ground), ours(ground, "clickhouse", "csv"), *_peers(ground)), 1.5)


def _limit(ground: Ground) -> Contender:
    target = ground.folder / "limit.csv"
    return Contender(
        "curl SELECT FORMAT CSV",
        Part.LIMIT,
        ground.servers.clickhouse.select_csv("events", target),
        clear=lambda: clear_files(ground, "limit"),
        count=lambda: count_lines(target),
    )


def _peers(ground: Ground) -> tuple[Contender, ...]:
    return peer_contenders(
        ground.peer_python,
        source=ground.servers.clickhouse.sqlalchemy_url(),
        to="csv",
        target=lambda peer: f"{ground.folder}/{peer}.csv",
        clear=lambda peer: clear_files(ground, peer),
        count=lambda peer: count_csv(ground, peer),
    )
