"""sling. Here: why it is not run."""

from __future__ import annotations

from pathlib import Path


def argv(python: Path, *, source: str, to: str, target: str) -> str:
    """The wheel holds a launcher; the program itself comes from GitHub when it is first imported."""
    return "its wheel fetches the program from GitHub at run time: not run"
