"""The ways that are measured: each module has `way(ground) -> Way`.

Here: the list, and the ground that the ways stand on. Not here: any one way.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.model import Contender, Part
from benchmarks.project import dataflow, pipeline_name
from benchmarks.server import Server


@dataclass(frozen=True)
class Ground:
    """What every way needs: where files go, the server, the project, and the peers' Python (None: no peers)."""

    folder: Path
    server: Server
    project: Path
    peer_python: Path | None = None

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
    """Delete the files and folders of one contender, and let the server write out what is left of earlier runs."""
    import shutil

    for path in ground.folder.glob(f"{stem}.*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    ground.server.checkpoint()


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
    return sum(_count_lines(file) - 1 for file in files)


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def ours(ground: Ground, read: str, write: str) -> Contender:
    """`dataflow run` of the pipeline that goes this way: ten rules checked, staged, audited, committed with the ledger."""
    argv = dataflow("--project", str(ground.project), "run", "--select", pipeline_name(read, write))
    env = {"BENCH_DSN": ground.server.dsn}
    place = f"from_{read}"
    clear = clear_table if write == "postgres" else clear_files
    count = {"postgres": count_table, "duckdb": count_duckdb, "csv": count_csv}[write]
    return Contender("dataflow", Part.OURS, argv, env, clear=partial(clear, ground, place), count=partial(count, ground, place))
