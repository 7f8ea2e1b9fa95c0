"""Which process works on a run that was started from a terminal, and whether it still lives.

Here: naming a process so that a later one with its number is not taken for it, and its signs of life for other hosts. Not here: runs of
Dagster's daemon, which its run monitoring looks after; heartbeats of windows (`execution`).
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg

from dataflow_assets.assets.names import DRIVER_TAG
from dataflow_assets.execution.liveness import process_exists

SILENCE = timedelta(minutes=5)
"""A process of another host that has not been heard of for so long is taken for dead."""
SIGN_SECONDS = 60.0
"""How often a process says in the instance that it works on its run."""
_STARTED = 19
"""The field of /proc/<pid>/stat behind the command that says when the process began."""


@dataclass(frozen=True)
class Driver:
    """A process that works on a run."""

    host: str
    process_id: int
    started: str
    """What tells it from a later process with its number."""
    at: datetime

    @property
    def tag(self) -> str:
        """The process, as a run's tag."""
        return f"{self.host}:{self.process_id}:{self.started}"

    def alive(self, *, now: datetime) -> bool:
        """Whether it still runs: asked of this host's processes, of another host's judged by its last word. None has the number 0."""
        if self.process_id == 0 or self.host == socket.gethostname():
            return self.process_id > 0 and _process_started(self.process_id) == self.started
        return now - self.at < SILENCE


def driver_of(run: dg.DagsterRun, *, at: datetime) -> Driver | None:
    """The process that a run's tag names, last heard of at `at`; None for a run that was launched otherwise.

    A re-execution takes its tags from the run that it repeats, and runs elsewhere.
    """
    host, _, rest = ("" if run.parent_run_id else run.tags.get(DRIVER_TAG, "")).partition(":")
    number, _, started = rest.partition(":")
    return Driver(host, int(number), started, at) if number.isdigit() else None


def say_alive(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Give the record of a run a new time, for hosts that cannot look at its process. Raises nothing: the next sign may come through."""
    with suppress(Exception):
        instance.add_run_tags(run.run_id, {DRIVER_TAG: run.tags[DRIVER_TAG]})


def this_driver(*, now: datetime) -> Driver:
    """This process."""
    return Driver(socket.gethostname(), os.getpid(), _process_started(os.getpid()), now)


def _process_started(process_id: int) -> str:
    """When a process began, in the kernel's ticks; empty when there is none, or the system does not tell."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[_STARTED]
    except (OSError, IndexError):
        return "unknown" if process_exists(process_id) else ""
