"""The results: a table on the terminal, and JSON and Markdown under `results/`.

Here: how measured rows are compared with their limit and shown. Not here: measuring.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.model import Figure, Part, Row, Settings, Way

RESULTS = Path(__file__).resolve().parent / "results"
HEADINGS = ("way", "who", "seconds", "x limit", "CPU s", "peak MB", "to reach")


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything that one call of the benchmark found out."""

    settings: Settings
    servers: Mapping[str, str]
    ways: tuple[Way, ...]
    rows: tuple[Row, ...]
    figures: tuple[Figure, ...]

    def lines(self) -> list[tuple[str, ...]]:
        """The table of ways, a line for each contender."""
        found: list[tuple[str, ...]] = []
        for way in self.ways:
            rows = [row for row in self.rows if row.way == way.key]
            limit = next((row.seconds for row in rows if row.part is Part.LIMIT and row.runs), None)
            found += [_line(way, row, limit) for row in rows]
        return found

    def figure_lines(self) -> list[tuple[str, ...]]:
        """The table of single figures."""
        return [(figure.title, f"{figure.value:.2f} {figure.unit}", _to_reach(figure), _verdict(figure)) for figure in self.figures]


def _to_reach(figure: Figure) -> str:
    if figure.reach is None:
        return ""
    return f"at least {figure.reach:g}" if figure.at_least else f"{figure.reach:g}"


def _line(way: Way, row: Row, limit: float | None) -> tuple[str, ...]:
    if not row.runs:
        return (way.title, row.contender, "-", "-", "-", "-", row.absent)
    ratio = row.seconds / limit if limit else None
    reach = ""
    if row.part is Part.OURS and way.reach is not None:
        aim = f", aim {way.aim}" if way.aim else ""
        reach = f"{way.reach}{aim}" + ("" if ratio is None else " reached" if ratio <= way.reach else " MISSED")
    times = f"{ratio:.2f}" if ratio is not None else "-"
    return (way.title, row.contender, f"{row.seconds:.2f}", times, f"{row.cpu_seconds:.2f}", f"{row.peak_mb:.0f}", reach)


def _verdict(figure: Figure) -> str:
    return {True: "reached", False: "MISSED", None: ""}[figure.reached] or figure.note


def show(report: Report) -> None:
    """Print the tables: with rich on a terminal, as Markdown in a pipe."""
    if not sys.stdout.isatty():
        print(markdown(report))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(_heading(report))
    for headings, lines in ((HEADINGS, report.lines()), (("figure", "measured", "to reach", ""), report.figure_lines())):
        table = Table(*headings)
        for line in lines:
            table.add_row(*line)
        if lines:
            console.print(table)


def markdown(report: Report) -> str:
    """The tables as Markdown."""
    parts = [_heading(report), *(f"{name}: {text}." for name, text in report.servers.items())]
    for headings, lines in ((HEADINGS, report.lines()), (("figure", "measured", "to reach", "verdict"), report.figure_lines())):
        if lines:
            table = [headings, tuple("---" for _ in headings), *lines]
            parts.append("\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in table))
    return "\n\n".join(parts) + "\n"


def _heading(report: Report) -> str:
    settings = report.settings
    return f"{settings.rows:,} rows, median of {settings.runs}; {_machine()}"


def _machine() -> str:
    import os

    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


def save(report: Report) -> Path:
    """Write the JSON and Markdown files and return the JSON file's path. A second run on one day gets a name of its own."""
    RESULTS.mkdir(exist_ok=True)
    stem = datetime.now(UTC).strftime("%Y-%m-%d")
    names = [stem, *(f"{stem}-{number}" for number in range(2, 1000))]
    path = next(RESULTS / f"{name}.json" for name in names if not (RESULTS / f"{name}.json").exists())
    path.write_text(json.dumps(_document(report), indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(report))
    return path


def _document(report: Report) -> dict[str, Any]:
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "rows": report.settings.rows,
        "runs": report.settings.runs,
        "servers": dict(report.servers),
        "ways": [_way_document(way, [row for row in report.rows if row.way == way.key]) for way in report.ways],
        "figures": [dataclasses.asdict(figure) | {"reached": figure.reached} for figure in report.figures],
    }


def _way_document(way: Way, rows: Sequence[Row]) -> dict[str, Any]:
    contenders = [dataclasses.asdict(row) for row in rows]
    return {"key": way.key, "title": way.title, "reach": way.reach, "aim": way.aim, "contenders": contenders}
