"""pandas. Here: how it is started, and where it is left out. Not here: what it does (`pandas_load.py`)."""

from __future__ import annotations

from pathlib import Path


def argv(python: Path, *, source: str, to: str, target: str) -> tuple[str, ...] | str:
    """The command, or why there is none."""
    if to == "postgres":
        return "to_sql needs 38 s to 155 s for one million rows: left out"
    if to == "clickhouse":
        return "to_sql makes no table there, since none is without an engine: left out"
    return (str(python), "-P", str(Path(__file__).with_name("pandas_load.py")), source, to, target)
