"""SQLite to CSV. Here: the limit, the shell's own CSV, and who stands beside it."""

from __future__ import annotations

import shlex

from benchmarks.model import Contender, Part, Way
from benchmarks.peers import peer_contenders
from benchmarks.ways import Ground, clear_files, count_csv, ours


def way(ground: Ground) -> Way:
    """The way with its contenders."""
    file = ground.folder / "events.sqlite"
    ground.servers.sqlite.make_events(ground.csv, file)
    return Way("sqlite-csv", "SQLite to CSV", (_limit(ground), ours(ground, "sqlite", "csv"), *_peers(ground)), 1.5)


def _limit(ground: Ground) -> Contender:
    shell = ground.servers.sqlite.command(ground.folder / "events.sqlite", ".mode csv", ".headers on", "SELECT * FROM events")
    return Contender(
        "sqlite3 .mode csv",
        Part.LIMIT,
        ("bash", "-c", f"{shlex.join(shell)} > {ground.folder}/limit.csv"),
        clear=lambda: clear_files(ground, "limit"),
        count=lambda: count_csv(ground, "limit"),
    )


def _peers(ground: Ground) -> tuple[Contender, ...]:
    return peer_contenders(
        ground.peer_python,
        source=f"sqlite:///{ground.folder}/events.sqlite",
        to="csv",
        target=lambda peer: f"{ground.folder}/{peer}.csv",
        clear=lambda peer: clear_files(ground, peer),
        count=lambda peer: count_csv(ground, peer),
    )
