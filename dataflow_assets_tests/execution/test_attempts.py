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
    LeftStage,
    adopt_stage,
    dead_attempts,
    left_stage,
    sweep_dead,
    sweep_old,
    unfinished,
    unit_folder,
)
from dataflow_assets.execution.origins import fingerprint_of
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
    made = {"source": fingerprint}
    named = {"step": step, "fingerprint": fingerprint_of(made), "batch": attempt.record.batch}
    for _ in write_stage(attempt.stage_folder(step), table.to_reader(), **named, made_from=made):
        pass


def test_the_stage_of_a_failed_attempt_is_adopted_with_its_batch(tmp_path: Path) -> None:
    unit = unit_folder(tmp_path, "p", "2013-01-01")
    first = attempt_in(unit, "one")
    stage(first, "source", "f1")
    first.fail("target", "no room")
    second = attempt_in(unit, "two")
    adopted = adopt_stage(second, "source", {"source": "f1"}).stage
    assert adopted is not None
    assert adopted.folder == unit / "two" / "source"
    assert adopted.receipt.batch == "one"
    assert adopted.open_reader().read_all().num_rows == 3


def test_another_fingerprint_is_not_adopted(tmp_path: Path) -> None:
    unit = unit_folder(tmp_path, "p", "k")
    first = attempt_in(unit, "one")
    stage(first, "source", "f1")
    first.fail("source", "x")
    left = adopt_stage(attempt_in(unit, "two"), "source", {"source": "f2"})
    assert (left.stage, left.reason) == (None, "the source has changed")


def test_it_is_said_why_a_stage_cannot_serve(tmp_path: Path) -> None:
    unit, made = unit_folder(tmp_path, "p", "k"), {"source": "f1"}
    assert left_stage(unit, "source", made) == LeftStage(None)
    first = attempt_in(unit, "one")
    stage(first, "source", "f1")
    assert left_stage(unit, "source", made) == LeftStage(None), "the attempt lives"
    first.fail("source", "x")
    assert left_stage(unit, "source", made).stage is not None
    assert left_stage(unit, "other", made) == LeftStage(None)
    hours_ago = time.time() - 7200
    os.utime(first.stage_folder("source") / "receipt.json", (hours_ago, hours_ago))
    assert left_stage(unit, "source", made, max_age=3 * 3600).stage is not None
    assert left_stage(unit, "source", made, max_age=3600).reason == "it is 2.0 hours old, and stages.max_age allows 1.0"
    (first.stage_folder("source") / "receipt.json").unlink()
    assert left_stage(unit, "source", made).reason == "it was not complete when the attempt ended"
    refused = attempt_in(unit, "two")
    stage(refused, "source", "f1")
    refused.fail("check", "bad rows", refused=True)
    reasons = {left_stage(unit, "source", made).reason}
    assert reasons == {"a check refused what came of it, so the rows are read again"}


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
