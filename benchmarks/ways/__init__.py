"""The ways that are measured: each module has `way(ground) -> Way`.

Here: the list, and the ground that the ways stand on. Not here: any one way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.model import Contender, Part
from benchmarks.project import dataflow, pipeline_name
from benchmarks.server import Server
from benchmarks.servers import Servers


@dataclass(frozen=True)
class Ground:
    """What every way needs: where files go, the servers, the project, and the peers' Python (None: no peers)."""

    folder: Path
    servers: Servers
    project: Path
    peer_python: Path | None = None

    @property
    def server(self) -> Server:
        """Postgres."""
        return self.servers.postgres

    @property
    def csv(self) -> Path:
        """The events as a CSV file."""
        return self.folder / "events.csv"


def clear_table(ground: Ground, schema: str) -> None:
    """Drop everything in the schema, ledger and all, and write out what is left of it."""
    ground.server.sql(f"DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}")
    ground.server.checkpoint()


def count_table(ground: Ground, schema: str) -> int:
    """Rows of the events table in this schema."""
    return int(ground.server.sql(f"SELECT count(*) FROM {schema}.events"))


def clear_files(ground: Ground, stem: str) -> None:
    """Delete the files and folders of one contender, and let the servers write out what is left of earlier runs."""
    import shutil

    for path in ground.folder.glob(f"{stem}.*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    ground.servers.settle()


def count_duckdb(ground: Ground, stem: str) -> int:
    """Rows of the events table in a DuckDB file, counted by a child process."""
    import subprocess
    import sys

    code = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True); "
        "s = c.execute(\"select schema_name from duckdb_tables() where table_name = 'events'\").fetchone()[0]; "
        "print(c.execute(f'select count(*) from {s}.events').fetchone()[0])"
    )
    argv = [sys.executable, "-c", code, str(ground.folder / f"{stem}.duckdb")]
    return int(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)


def count_csv(ground: Ground, stem: str) -> int:
    """Lines of a CSV file, or of all CSV files of a folder, without the headers."""
    path = ground.folder / f"{stem}.csv"
    files = [file for file in path.rglob("*.csv") if "/_dlt" not in str(file)] if path.is_dir() else [path]
    return sum(count_lines(file) - 1 for file in files)


def count_lines(path: Path) -> int:
    """Lines of one file."""
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def ours(ground: Ground, read: str, write: str) -> Contender:
    """`dataflow run` of the pipeline that goes this way: ten rules checked, staged, audited, committed with the ledger."""
    argv = dataflow("--project", str(ground.project), "run", "--select", pipeline_name(read, write))
    place = f"from_{read}"
    clear, count = _target(ground, place)[write]
    return Contender("dataflow", Part.OURS, argv, _addresses(ground, read, write), clear=clear, count=count)


def _target(ground: Ground, place: str) -> dict[str, tuple[Callable[[], None], Callable[[], int]]]:
    """For each system, how our target there is emptied, and how its rows are counted."""
    files = partial(clear_files, ground, place)
    return {
        "postgres": (partial(clear_table, ground, place), partial(count_table, ground, place)),
        "mysql": (lambda: ground.servers.mysql.clear(place), lambda: ground.servers.mysql.count(place)),
        "clickhouse": (lambda: ground.servers.clickhouse.clear(place), lambda: ground.servers.clickhouse.count(place)),
        "sqlite": (files, lambda: ground.servers.sqlite.count(ground.folder / f"{place}.sqlite")),
        "duckdb": (files, partial(count_duckdb, ground, place)),
        "csv": (files, partial(count_csv, ground, place)),
    }


def _addresses(ground: Ground, read: str, write: str) -> dict[str, str]:
    """Where the servers of this way are; the others are not started for it."""
    names = {"postgres": "BENCH_DSN", "mysql": "BENCH_MYSQL_DSN", "clickhouse": "BENCH_CLICKHOUSE_URL"}
    address = {
        "postgres": lambda: ground.server.dsn,
        "mysql": lambda: ground.servers.mysql.dsn,
        "clickhouse": lambda: ground.servers.clickhouse.url,
    }
    return {names[system]: address[system]() for system in names if system in {read, write}}
