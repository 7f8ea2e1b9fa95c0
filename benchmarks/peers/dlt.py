"""dlt. Here: how it is started, and where it is left out. Not here: what it is told (`dlt_load.py`)."""

from __future__ import annotations

from pathlib import Path


def argv(python: Path, *, source: str, to: str, target: str) -> tuple[str, ...] | str:
    """The command, or why there is none. dlt insists on a password, also where the server trusts everybody."""
    if "://" not in source:
        return "a CSV file into a database is not its usual way: left out"
    address = source.replace("postgres@", "postgres:none@").replace("default@", "default:none@")
    return (str(python), "-P", str(Path(__file__).with_name("dlt_load.py")), address, to, target)
