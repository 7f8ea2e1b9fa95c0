"""Running a child process to its end and measuring it: wall time, CPU time, peak resident memory of its process tree.

Here: the measurement. Not here: what is run (`ways`), what it means (`report`). This process must stay small: Linux counts what
the parent had at the moment of the fork as the child's peak, so nothing heavy is imported here.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.model import Contender, Measurement

SAMPLE_SECONDS = 0.1
TAIL_CHARS = 2_000


class RunFailed(Exception):
    """A contender ended with an error, or without all the rows."""


def measure(contender: Contender, *, rows: int, log: Path, cwd: Path) -> Measurement:
    """Clear the contender's target, run it once, and make sure that `rows` rows arrived."""
    contender.clear()
    os.sync()  # nobody pays for what another one left to be written
    measurement = run_child(contender.argv, env=contender.env, log=log, cwd=cwd)
    if (arrived := contender.count()) != rows:
        raise RunFailed(f"{contender.name}: {arrived:,} of {rows:,} rows arrived; see {log}")
    return measurement


def run_child(argv: tuple[str, ...], *, env: Mapping[str, str], log: Path, cwd: Path) -> Measurement:
    """Run one command to its end, with its output in `log`. Raises RunFailed when it ends with an error."""
    with log.open("wb") as output:
        started = time.perf_counter()
        child = subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **env}, cwd=cwd)
        with TreeWatch(child.pid) as watch:
            _, status, usage = os.wait4(child.pid, 0)
            seconds = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise RunFailed(f"{' '.join(argv)[:200]} ended with {child.returncode}:\n{log.read_text(errors='replace')[-TAIL_CHARS:]}")
    inherited = resident_mb(os.getpid())
    own = usage.ru_maxrss / 1024
    peak = max(own if own > inherited * 1.2 else 0.0, watch.peak_mb)
    return Measurement(seconds, usage.ru_utime + usage.ru_stime, peak)


class TreeWatch:
    """Samples the resident memory of a process and all its descendants, added up, while it is entered."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_mb = 0.0

    def __enter__(self) -> TreeWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self.peak_mb = max(self.peak_mb, sum(resident_mb(pid) for pid in tree(self._pid)))


def tree(pid: int) -> list[int]:
    """The process and its descendants."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in children.read_text().split()]
            except (OSError, ValueError):
                continue
    return found


def resident_mb(pid: int) -> float:
    """The resident memory of a process, 0 when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * os.sysconf("SC_PAGESIZE") / 2**20
