"""Checks and anomaly detection beside other ways to say the same: `measure_quality`.

Here: which contenders there are, and the figures made of their times. Not here: what a contender does (`detecting`, `checking`), the
rows (`rows`), how a child is measured (`benchmarks.measuring`).
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.measuring import run_child
from benchmarks.model import Contender, Figure, Measurement, Part, Row, Way
from benchmarks.project import dataflow, pipeline_name, write_project
from benchmarks.ways import Ground, ours

REPOSITORY = Path(__file__).resolve().parent.parent.parent
GROUPS = 1_000
FASTER = 50.0
ON_TOP = 1.25

# What DFT itself took for a row at its default window, on a machine like this one, where 10,000 rows took 1.48 s.
DFT_SECONDS = 148e-6
LOOP = "a lean loop as DFT's"
TITLE = f"MAD, {GROUPS:,} groups"
# Those that take a tenth of a millisecond for a row are given whole groups of about so many rows.
SAMPLE = 10_000
DETECTING = {
    TITLE: (
        ("dataflow", "ours", None),
        ("pandas formulation", "pandas", SAMPLE),
        ("polars formulation", "polars", SAMPLE),
        ("duckdb formulation", "duckdb", SAMPLE),
        (LOOP, "loop", SAMPLE),
    ),
    "MAD without weights": (("dataflow", "ours-equal", None), ("duckdb mad() OVER", "duckdb-equal", 10 * SAMPLE)),
    "MAD without numba": (("dataflow", "ours-numpy", None),),
}
CHECKING = (
    ("dataflow", "ours", ""),
    ("pandas formulation", "pandas", ""),
    ("polars formulation", "polars", ""),
    ("duckdb formulation", "duckdb", ""),
    ("pandera on pandas", "pandera-pandas", "pandera"),
    ("pandera on polars", "pandera-polars", "pandera"),
)
COPIES = (("csv", "duckdb"), ("postgres", "postgres"))


def quality_ways(ground: Ground, *, rows: int) -> list[Way]:
    """The ways to measure. Makes the rows and the pipelines."""
    data = ground.folder / "quality.parquet"
    argv = [sys.executable, "-m", "benchmarks.quality.rows", str(data), str(rows), str(GROUPS)]
    subprocess.run(argv, check=True, cwd=REPOSITORY)
    return [
        *(Way(title, title, tuple(_detecting(data, rows, *one) for one in those)) for title, those in DETECTING.items()),
        Way("ten rules", "ten rules", tuple(_checking(data, rows, *one) for one in CHECKING)),
        *(_on_top(ground, read, write) for read, write in COPIES),
    ]


def _detecting(data: Path, rows: int, name: str, how: str, sample: int | None) -> Contender:
    if sample is not None and sample < rows:
        groups = max(round(sample * GROUPS / rows), 1)
        given = sum(len(range(group, rows, GROUPS)) for group in range(groups))
        found = _program("detecting", data, how, groups, given, expected=None)
        return replace(found, name=f"{name}, from {given:,} rows", rows=given, scaled=lambda run: _scaled(run, data, how, rows / given))
    return replace(_program("detecting", data, how, GROUPS, rows, expected=None), name=name)


def _checking(data: Path, rows: int, name: str, how: str, module: str) -> Contender:
    found = replace(_program("checking", data, how, GROUPS, rows, expected=rows // 100_000), name=name)
    missing = module and importlib.util.find_spec(module) is None
    return replace(found, absent=f"{module} is not installed" if missing else "")


def _program(kind: str, data: Path, how: str, groups: int, rows: int, *, expected: int | None) -> Contender:
    result = data.with_name(f"{kind}-{how}.json")

    def count() -> int:
        outcome = json.loads(result.read_text())
        return int(outcome["rows"]) if expected is None or outcome["found"] == expected else -1

    argv = (sys.executable, "-m", f"benchmarks.quality.{kind}", how, str(data), str(groups), str(result))
    part = Part.OURS if how.startswith("ours") else Part.PEER
    return Contender(how, part, argv, {"PYTHONPATH": str(REPOSITORY)}, clear=lambda: result.unlink(missing_ok=True), count=count)


def _scaled(run: Measurement, data: Path, how: str, times: float) -> Measurement:
    """What the whole would take: start and reading once, the work, which is in proportion to the rows, as often as need be."""
    worked = float(json.loads(data.with_name(f"detecting-{how}.json").read_text())["seconds"])
    return Measurement(run.seconds + worked * (times - 1), run.cpu_seconds + worked * (times - 1), run.peak_mb)


def _on_top(ground: Ground, read: str, write: str) -> Way:
    """The same copy with the ten rules and without them: the copy is the limit."""
    unchecked = write_project(ground.folder, [(read, write)], rules=False)
    ruled = ours(ground, read, write)
    argv = dataflow("--project", str(unchecked), "run", "--select", pipeline_name(read, write))
    bare = replace(ruled, name="dataflow without rules", part=Part.LIMIT, argv=argv)
    return Way(f"rules-{read}-{write}", f"ten rules on {read} to {write}", (bare, replace(ruled, name="dataflow with ten rules")), ON_TOP)


def detector_figures(folder: Path) -> list[Figure]:
    """Milliseconds for 10,000 rows of one series at the default window, start apart."""
    result = folder / "compare.json"
    argv = (sys.executable, "-m", "benchmarks.quality.detecting", "compare", "", "0", str(result))
    run_child(argv, env={"PYTHONPATH": str(REPOSITORY)}, log=folder / "compare.log", cwd=folder)
    seconds = json.loads(result.read_text())
    title = f"MAD, 10,000 rows, start apart (DFT: {DFT_SECONDS * 10_000:.2f} s)"
    lean = Figure(f"{title}: {LOOP}", 1000 * seconds.pop("loop"), "ms", note="for comparison")
    reach = 1000 * DFT_SECONDS * 10_000 / FASTER
    ours_ = [Figure(f"{title}: weights {how}", 1000 * mine, "ms", reach if "expo" in how else None) for how, mine in seconds.items()]
    return [lean, *ours_]


def quality_figures(rows: list[Row], *, count: int) -> list[Figure]:
    """How many times as long as ours the others take."""
    figures = []
    for row in rows:
        mine = next((one for one in rows if one.way == row.way and one.part is Part.OURS and one.runs), None)
        if mine and row.part is Part.PEER and row.runs:
            figures.append(Figure(f"{row.way}: {row.contender}, over ours", row.seconds / mine.seconds, "times"))
    whole = next(row for row in rows if row.way == TITLE)
    times = DFT_SECONDS * count / whole.seconds
    return [*figures, Figure(f"{TITLE}: DFT at its own pace, over ours", times, "times", FASTER, at_least=True)]
