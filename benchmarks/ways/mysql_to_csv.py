"""MySQL to CSV. Here: the limit, the client's rows in a file, and who stands beside it.

Not SELECT ... INTO OUTFILE, which takes three quarters of the time: it writes a file on the server's own disk and wants the right FILE,
so it serves few who move rows elsewhere. The client reads over the wire, as every contender does; it prints tabs and backslashes where
the others write CSV.
"""

from __future__ import annotations

import shlex

from benchmarks.model import Contender, Part, Way
from benchmarks.peers import peer_contenders
from benchmarks.ways import Ground, clear_files, count_csv, ours


def way(ground: Ground) -> Way:
    """The way with its contenders."""
    ground.servers.mysql.make_events(ground.csv)
    return Way("mysql-csv", "MySQL to CSV", (_limit(ground), ours(ground, "mysql", "csv"), *_peers(ground)), 1.5)


def _limit(ground: Ground) -> Contender:
    client = ground.servers.mysql.client("--quick", "--batch", "--execute=SELECT * FROM events")
    return Contender(
        "mariadb --quick --batch",
        Part.LIMIT,
        ("bash", "-c", f"{shlex.join(client)} > {ground.folder}/limit.csv"),
        clear=lambda: clear_files(ground, "limit"),
        count=lambda: count_csv(ground, "limit"),
    )


def _peers(ground: Ground) -> tuple[Contender, ...]:
    return peer_contenders(
        ground.peer_python,
        source=ground.servers.mysql.sqlalchemy_url(),
        to="csv",
        target=lambda peer: f"{ground.folder}/{peer}.csv",
        clear=lambda peer: clear_files(ground, peer),
        count=lambda peer: count_csv(ground, peer),
    )
