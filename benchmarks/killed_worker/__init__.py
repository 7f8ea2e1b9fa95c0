"""How long it takes until somebody notices that a worker was killed, beside plain Dagster.

Here: the figures. Not here: the killing (`watched`), in a process of its own so that this one stays small.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.model import Figure

PATIENCE = 180.0
"""Seconds after which nobody is taken to notice: three looks of Dagster's run monitoring."""
REPOSITORY = Path(__file__).resolve().parent.parent.parent


def measure_killed_worker(folder: Path) -> list[Figure]:
    """Seconds from the kill to the end of the run, of ours and of plain Dagster's, each while a daemon with run monitoring looks."""
    command = (sys.executable, "-m", "benchmarks.killed_worker.watched", str(folder / "killed"), str(PATIENCE))
    done = subprocess.run(command, check=True, cwd=REPOSITORY, capture_output=True, text=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    never = f"for comparison; given up after {PATIENCE:.0f} s" if found["plain"] >= PATIENCE else "for comparison"
    return [
        Figure("a killed worker is noticed after", found["ours"], "s", 60.0),
        Figure("a killed run of plain Dagster, with run monitoring", found["plain"], "s", note=never),
    ]
