"""Two processes killed in the middle of their work under one daemon: `python -m benchmarks.killed_worker.watched <folder> <patience>`.

Here: the project, the killing, the waiting. Not here: what it is compared with the figure to reach (`measure_killed_worker`).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import dagster as dg

from benchmarks.project import dataflow
from dataflow_assets.assets.instance import open_instance
from dataflow_assets.execution.drive import FAILED, RUNNING, open_drive
from dataflow_assets.spec.load import load

_PIPELINE = """\
pipeline_name: slow
steps:
  - {id: read, type: source, source_type: csv, config: {file_path: ten.csv}}
  - {id: wait, type: transform, kind: python, depends_on: [read], config: {file: wait.py, function: wait}}
  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [wait], config: {file_path: lake/slow.parquet, mode: replace}}
"""
_WAIT = """\
import time

import pyarrow as pa


def wait(read: pa.Table) -> pa.Table:
    time.sleep(3600)
    return read
"""
_PLAIN = """\
import time

import dagster as dg


@dg.asset
def plain():
    time.sleep(3600)


defs = dg.Definitions(assets=[plain], jobs=[dg.define_asset_job("plain_job", executor_def=dg.in_process_executor)])
"""
_ROWS = "id\n" + "".join(f"{number}\n" for number in range(10))


def main(folder: str, patience: str) -> None:
    """Print the seconds until each of the two was missed."""
    watch = _Watch(_write_project(Path(folder)), float(patience))
    daemon = watch.start(sys.executable, "-m", "dagster._daemon", "run", "-m", "dataflow_assets.definitions")
    try:
        ours = watch.seconds_after_kill(dataflow("--project", folder, "run"), begun=watch.at_work, missed=watch.ours_ended)
        command = (sys.executable, "-m", "dagster", "job", "execute", "-f", "plain.py", "-j", "plain_job")
        plain = watch.seconds_after_kill(command, begun=lambda: not watch.plain_ended(), missed=watch.plain_ended)
    finally:
        daemon.terminate()
        daemon.wait(60)
    print(json.dumps({"ours": ours, "plain": plain}))


class _Watch:
    """A project, its instance, and what its history shows."""

    def __init__(self, folder: Path, patience: float) -> None:
        self.folder, self.patience, self.project = folder, patience, load(folder)
        self.instance = open_instance(self.project)
        self.environment: Mapping[str, str] = {
            **os.environ,
            "DAGSTER_HOME": str(folder / ".dataflow" / "dagster"),
            "DATAFLOW_PROJECT": str(folder),
            "PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]),
        }

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log.txt").open("ab") as log:
            return subprocess.Popen(command, env=self.environment, cwd=self.folder, stdout=log, stderr=log)

    def seconds_after_kill(self, command: tuple[str, ...], *, begun: Callable[[], bool], missed: Callable[[], bool]) -> float:
        process = self.start(*command)
        self._seconds_until(begun)
        time.sleep(12)  # it has been seen at work
        process.send_signal(signal.SIGKILL)
        process.wait()
        return self._seconds_until(missed)

    def _seconds_until(self, true: Callable[[], bool]) -> float:
        begun = time.monotonic()
        while not true():
            if time.monotonic() - begun > self.patience:
                return self.patience
            time.sleep(0.5)
        return time.monotonic() - begun

    def at_work(self) -> bool:
        return self._has(RUNNING)

    def ours_ended(self) -> bool:
        return self._has(FAILED)

    def _has(self, status: str) -> bool:
        with closing(open_drive(self.project)) as drive:
            return bool(drive.rows(statuses=[status]))

    def plain_ended(self) -> bool:
        runs = self.instance.get_runs(dg.RunsFilter(job_name="plain_job"), limit=1)
        return not runs or runs[0].status is not dg.DagsterRunStatus.STARTED


def _write_project(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "pipelines").mkdir(parents=True)
    (folder / "dataflow_project.yml").write_text("project_name: killed\n")
    (folder / "pipelines" / "slow.yml").write_text(_PIPELINE)
    for name, text in {"wait.py": _WAIT, "plain.py": _PLAIN, "ten.csv": _ROWS}.items():
        (folder / name).write_text(text)
    return folder


if __name__ == "__main__":
    main(*sys.argv[1:])
