"""The command line of the benchmark: what to measure, in which order.

Here: options, preparation, the order of runs. Not here: one measurement (`measuring`), the ways (`ways`), the tables (`report`).
Contenders take turns, run by run, so that a slow minute of the machine hits all of them.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType

from benchmarks.events import make_events, write_csv
from benchmarks.killed_worker import measure_killed_worker
from benchmarks.many_pipelines import measure_many_pipelines
from benchmarks.many_windows import measure_many_windows
from benchmarks.measuring import RunFailed, measure
from benchmarks.model import Contender, Figure, Measurement, Part, Row, Settings, Way
from benchmarks.peers import peer_python
from benchmarks.project import write_project
from benchmarks.quality import detector_figures, quality_figures, quality_ways
from benchmarks.report import Report, save, show
from benchmarks.server import NoServer
from benchmarks.servers import Servers
from benchmarks.startup import measure_startup
from benchmarks.ways import (
    Ground,
    clickhouse_to_csv,
    csv_to_clickhouse,
    csv_to_duckdb,
    csv_to_mysql,
    csv_to_postgres,
    csv_to_sqlite,
    mysql_to_csv,
    postgres_to_csv,
    postgres_to_duckdb,
    postgres_to_postgres,
    sqlite_to_csv,
)

# Servers start with the first way that wants them: the engine that is never quite idle comes last.
WAYS = (
    *(postgres_to_postgres, postgres_to_duckdb, postgres_to_csv, csv_to_duckdb, csv_to_postgres),
    *(csv_to_sqlite, sqlite_to_csv, csv_to_mysql, mysql_to_csv, csv_to_clickhouse, clickhouse_to_csv),
)
KEYS = tuple(module.__name__.rpartition(".")[2].replace("_to_", "-") for module in WAYS)
OTHERS = ("memory", "startup", "windows", "pipelines", "killed", "quality")
ROWS = 5_000_000
MEMORY_FACTOR = 4
MEMORY_MB = 300.0


def main(argv: list[str] | None = None) -> int:
    """Measure what was asked for, print the tables, write the result files; 1 when a contender failed."""
    given = _parse(argv)
    only = tuple(given.only or (*KEYS, *OTHERS))
    folder = Path(tempfile.mkdtemp(prefix="dataflow-bench-", dir=given.folder))
    settings = Settings(given.rows, given.runs, folder, given.peers)
    try:
        report = _measure(settings, only)
    except (RunFailed, NoServer) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show(report)
    if given.save:
        _say(f"written: {save(report)}")
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the ways beside their limits and other tools.")
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of the events table (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each contender, of which the median counts (default: %(default)s)")
    parser.add_argument("--only", action="append", choices=(*KEYS, *OTHERS), help="measure this alone; may be given several times")
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True, help="measure other tools as well (default: yes)")
    parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True, help="write files under results/ (default: yes)")
    parser.add_argument(
        "--folder",
        type=Path,
        help="where the scratch folder goes; it needs about 2 GB per million rows, and the servers, in TMPDIR, as much",
    )
    return parser.parse_args(argv)


def _measure(settings: Settings, only: tuple[str, ...]) -> Report:
    figures: list[Figure] = []
    if "startup" in only:
        _say("startup")
        figures += measure_startup(settings.folder)
    if "windows" in only:
        _say("365 windows")
        figures += measure_many_windows(settings.folder, runs=settings.runs)
    if "pipelines" in only:
        _say("1,000 pipelines")
        figures += measure_many_pipelines(settings.folder, runs=settings.runs)
    if "killed" in only:
        _say("a killed worker")
        figures += measure_killed_worker(settings.folder)
    if not {*only} - {"startup", "windows", "pipelines", "killed"}:
        return Report(settings, {}, (), (), tuple(figures))
    with Servers() as servers:
        ground = _prepare(settings, servers, rows=settings.rows, peers=settings.with_peers)
        ways, rows = _measure_ways(settings, ground, only)
        if "quality" in only:
            more = quality_ways(ground, rows=settings.rows)
            found = [row for way in more for row in _measure_way(settings, way)]
            figures += [*detector_figures(settings.folder), *quality_figures(found, count=settings.rows)]
            ways, rows = (*ways, *more), (*rows, *found)
        if "memory" in only:
            figures += _measure_memory(settings, servers, only, rows)
        return Report(settings, servers.described, ways, rows, tuple(figures))


def _measure_ways(settings: Settings, ground: Ground, only: tuple[str, ...]) -> tuple[tuple[Way, ...], tuple[Row, ...]]:
    ways: list[Way] = []
    rows: list[Row] = []
    for module, key in _chosen(only):
        try:
            way = module.way(ground)
        except NoServer as error:
            ways.append(Way(key, key, ()))
            rows.append(Row(key, "nobody", Part.LIMIT, absent=str(error)))
            _say(f"{key}: not measured: {error}")
        else:
            ways.append(way)
            rows += _measure_way(settings, way)
    return tuple(ways), tuple(rows)


def _chosen(only: tuple[str, ...]) -> list[tuple[ModuleType, str]]:
    return [(module, key) for module, key in zip(WAYS, KEYS, strict=True) if key in only]


def _prepare(settings: Settings, servers: Servers, *, rows: int, peers: bool) -> Ground:
    _say(f"making {rows:,} rows")
    make_events(servers.postgres, rows=rows)
    project = write_project(settings.folder, [_pair(key) for key in KEYS])
    ground = Ground(settings.folder, servers, project, peer_python() if peers else None)
    write_csv(servers.postgres, ground.csv)
    return ground


def _measure_way(settings: Settings, way: Way) -> list[Row]:
    runs: dict[str, list[Measurement]] = {contender.name: [] for contender in way.contenders}
    absent = {contender.name: contender.absent for contender in way.contenders}
    for number in range(1, settings.runs + 1):
        for contender in way.contenders:
            if absent[contender.name]:
                continue
            try:
                found = _measure_one(settings, contender, rows=settings.rows)
            except RunFailed as error:
                # A peer that cannot do it is a result; a limit or we ourselves that cannot are none.
                if contender.part is not Part.PEER:
                    raise
                absent[contender.name] = f"failed: {str(error).strip().splitlines()[-1][:100]}"
                runs[contender.name].clear()
            else:
                runs[contender.name].append(found)
                _say(f"{way.title}: {contender.name}, run {number}: {found.seconds:.2f} s, {found.peak_mb:.0f} MB")
    return [Row(way.key, one.name, one.part, tuple(runs[one.name]), absent[one.name]) for one in way.contenders]


def _measure_one(settings: Settings, contender: Contender, *, rows: int) -> Measurement:
    found = measure(contender, rows=contender.rows or rows, log=settings.folder / f"{contender.part}.log", cwd=settings.folder)
    found = contender.scaled(found)
    contender.clear()
    return found


def _measure_memory(settings: Settings, servers: Servers, only: tuple[str, ...], rows: tuple[Row, ...]) -> list[Figure]:
    """Our own peak at the rows asked for and at four times as many."""
    measured = [row for row in rows if row.part is Part.OURS]
    figures = [Figure(f"peak at {settings.rows:,} rows, {row.way}", row.peak_mb, "MB", MEMORY_MB) for row in measured]
    many = settings.rows * MEMORY_FACTOR
    ground = _prepare(settings, servers, rows=many, peers=False)
    for module, key in _chosen(only) or _chosen(KEYS):
        try:
            ours = next(one for one in module.way(ground).contenders if one.part is Part.OURS)
        except NoServer:
            continue
        found = _measure_one(settings, ours, rows=many)
        _say(f"{key}: {many:,} rows, {found.seconds:.2f} s, {found.peak_mb:.0f} MB")
        figures.append(Figure(f"peak at {many:,} rows, {key}", found.peak_mb, "MB", MEMORY_MB))
    return figures


def _pair(key: str) -> tuple[str, str]:
    read, write = key.split("-")
    return read, write


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
