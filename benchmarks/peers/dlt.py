"""dlt. Here: how it is started. Not here: what it is told (`dlt_load.py`)."""

from __future__ import annotations

from pathlib import Path


def argv(python: Path, *, source: str, to: str, target: str) -> tuple[str, ...]:
    """The command. dlt insists on a password, also where the server trusts everybody."""
    return (str(python), "-P", str(Path(__file__).with_name("dlt_load.py")), source.replace("postgres@", "postgres:none@"), to, target)
