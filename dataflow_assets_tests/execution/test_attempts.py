"""Attempts: the living are left alone, the dead are inherited from and swept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa

from dataflow_assets.execution.attempts import (
    Attempt,
    AttemptRecord,
    adopt_stage,
    dead_attempts,
    sweep_dead,
    sweep_old,
    unfinished,
    unit_folder,
)
from dataflow_assets.storage.stages import write_stage

HOLD = """
import sys, time
from pathlib import Path
from dataflow_assets.execution.attempts import Attempt, AttemptRecord
attempt = Attempt(Path(sys.argv[1]), AttemptRecord("other", "other", "k"))
print("held", flush=True)
time.sleep(60)
"""


def attempt_in(unit: Path, name: str) -> Attempt:
    """A living attempt at the unit."""
    return Attempt(unit / name, AttemptRecord(name, name, "k"))


def stage(attempt: Attempt, step: str, fingerprint: str) -> None:
    """Stage three rows for a step of the attempt."""
    table = pa.table({"id": [1, 2, 3]})
    for _ in write_stage(attempt.stage_folder(step), table.to_reader(), step=step, fingerprint=fingerprint, batch=attempt.record.batch):
        pass


def test_the_stage_of_a_failed_attempt_is_adopted_with_its_batch(tmp_path: Path) -> None:
    unit = unit_folder(tmp_path, "p", "2013-01-01")
    first = attempt_in(unit, "one")
    stage(first, "source", "f1")
    first.fail("target", "no room")
    second = attempt_in(unit, "two")
    adopted = adopt_stage(second, "source", "f1")
    assert adopted is not None
    assert adopted.folder == unit / "two" / "source"
    assert adopted.receipt.batch == "one"
    assert adopted.open_reader().read_all().num_rows == 3


def test_another_fingerprint_is_not_adopted(tmp_path: Path) -> None:
    unit = unit_folder(tmp_path, "p", "k")
    first = attempt_in(unit, "one")
    stage(first, "source", "f1")
    first.fail("source", "x")
    assert adopt_stage(attempt_in(unit, "two"), "source", "f2") is None


def test_a_living_attempt_is_neither_adopted_from_nor_swept_until_its_process_dies(tmp_path: Path) -> None:
    unit = unit_folder(tmp_path, "p", "k")
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(unit / "other")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    sweep_dead(unit)
    assert (unit / "other").is_dir()
    assert dead_attempts(unit) == []
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert [record.attempt for _, record in dead_attempts(unit)] == ["other"]
    assert unfinished(tmp_path, "p")["k"].status == "running"
    sweep_dead(unit)
    assert not (unit / "other").exists()


def test_success_leaves_nothing(tmp_path: Path) -> None:
    unit = unit_folder(tmp_path, "p", "k")
    attempt = attempt_in(unit, "one")
    stage(attempt, "source", "f")
    attempt.succeed()
    assert not unit.exists()


def test_failed_attempts_are_listed_with_their_step_and_error_and_swept_when_old(tmp_path: Path) -> None:
    attempt = attempt_in(unit_folder(tmp_path, "p", "2013-01-01T00:00-0500"), "one")
    attempt.fail("target", "no room")
    (record,) = unfinished(tmp_path, "p").values()
    assert (record.status, record.step, record.error) == ("failed", "target", "no room")
    assert sweep_old(tmp_path, keep_seconds=3600) == 0
    os.utime(attempt.folder / "attempt.json", (time.time() - 7200,) * 2)
    assert sweep_old(tmp_path, keep_seconds=3600) == 1
