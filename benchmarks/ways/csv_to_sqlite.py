"""CSV to SQLite. Here: the limit, the shell's `.import`, and who stands beside it.

`.import` does less than the others: it puts each field in as text, and an empty text where a null is meant.
"""

from __future__ import annotations

import subprocess

from benchmarks.model import Contender, Part, Way
from benchmarks.peers import peer_contenders
from benchmarks.sqlite import COLUMNS
from benchmarks.ways import Ground, clear_files, ours


def way(ground: Ground) -> Way:
    """The way with its contenders."""
    return Way("csv-sqlite", "CSV to SQLite", (_limit(ground), ours(ground, "csv", "sqlite"), *_peers(ground)), 2.0)


def _limit(ground: Ground) -> Contender:
    shell, file = ground.servers.sqlite, ground.folder / "limit.sqlite"

    def clear() -> None:
        clear_files(ground, "limit")
        subprocess.run(shell.command(file, f"CREATE TABLE events ({COLUMNS})"), check=True)

    argv = shell.import_csv(ground.csv, file, "events")
    return Contender("sqlite3 .import", Part.LIMIT, argv, clear=clear, count=lambda: shell.count(file))


def _peers(ground: Ground) -> tuple[Contender, ...]:
    return peer_contenders(
        ground.peer_python,
        source=str(ground.csv),
        to="sqlite",
        target=lambda peer: f"sqlite:///{ground.folder}/{peer}.sqlite",
        clear=lambda peer: clear_files(ground, peer),
        count=lambda peer: ground.servers.sqlite.count(ground.folder / f"{peer}.sqlite"),
    )
