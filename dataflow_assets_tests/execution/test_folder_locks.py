"""Who lives, on a folder that several hosts share: processes with host names of their own, on a file system that shows no locks."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dataflow_assets.execution import folder_locks
from dataflow_assets.execution.attempts import Attempt, adopt_stage, dead_attempts, sweep_dead, sweep_old, unfinished, unit_folder
from dataflow_assets.execution.folder_locks import GONE_SECONDS, is_alive
from dataflow_assets_tests.execution.test_attempts import attempt_in

MADE = {"source": "f1"}
ELSEWHERE = """
import fcntl, sys, time
from pathlib import Path
if sys.argv[2] == "no locks":
    fcntl.flock = lambda *_: None
from dataflow_assets_tests.execution.test_attempts import attempt_in, stage
attempt = attempt_in(Path(sys.argv[1]), "other")
stage(attempt, "source", "f1")
print("held", flush=True)
sys.stdin.readline()
attempt.fail("target", "told to")
print("released", flush=True)
"""


@contextmanager
def _other_host(unit: Path, *, locks: bool) -> Iterator[subprocess.Popen[str]]:
    """A process with a host name of its own, that holds an attempt with a stage; `locks`: whether this host sees its lock."""
    words = ["unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$0" "$@"', sys.executable, "-c", ELSEWHERE]
    words += [str(unit), "locks" if locks else "no locks"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def _may_be_another_host() -> bool:
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run([unshare, "--uts", "hostname", "elsewhere"], capture_output=True).returncode == 0


def _age(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(folder / "lock", (then, then))


@pytest.mark.skipif(not _may_be_another_host(), reason="no other host name to be had: unshare --uts wants root")
@pytest.mark.parametrize("locks", [True, False])
def test_a_living_attempt_of_another_host_is_left_alone(tmp_path: Path, locks: bool) -> None:
    unit = unit_folder(tmp_path, "p", "k")
    with _other_host(unit, locks=locks) as other:
        mine = attempt_in(unit, "mine")
        assert dead_attempts(unit) == []
        assert adopt_stage(mine, "source", MADE).stage is None
        sweep_dead(unit)
        assert sweep_old(tmp_path, keep_seconds=-1) == 0
        assert unfinished(tmp_path, "p") == {}
        assert (unit / "other" / "source" / "receipt.json").exists()
        other.send_signal(signal.SIGSTOP)  # a zombie: its signs stop, its lock stays
        _age(unit / "other", GONE_SECONDS + 1)
        assert is_alive(unit / "other") is locks
        other.send_signal(signal.SIGCONT)
        if locks:
            other.kill()
            other.wait()
            assert dead_attempts(unit), "its lock fell and its signs have stopped"
        adopted = adopt_stage(mine, "source", MADE).stage
        assert adopted is not None
        assert adopted.receipt.rows == 3


@pytest.mark.skipif(not _may_be_another_host(), reason="no other host name to be had: unshare --uts wants root")
def test_what_another_host_has_let_go_of_is_taken_over_at_once(tmp_path: Path) -> None:
    unit = unit_folder(tmp_path, "p", "k")
    with _other_host(unit, locks=False) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == "released\n"
        assert [record.status for _, record in dead_attempts(unit)] == ["failed"]
        assert adopt_stage(attempt_in(unit, "mine"), "source", MADE).stage is not None


def test_on_its_own_host_a_lock_that_fell_tells_at_once(tmp_path: Path) -> None:
    attempt = attempt_in(tmp_path / "unit", "one")
    assert is_alive(attempt.folder)
    folder_locks.signs.end(attempt._lock)
    os.close(attempt._lock)  # as the end of its process does
    assert not is_alive(attempt.folder)


def test_who_looks_at_the_same_time_is_not_taken_for_its_holder(tmp_path: Path) -> None:
    attempt = attempt_in(tmp_path / "unit", "one")
    attempt.fail("target", "no room")
    with (attempt.folder / "lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        assert not is_alive(attempt.folder)


def test_an_attempt_whose_lock_may_not_be_opened_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of another user."""
    attempt = attempt_in(tmp_path / "unit", "one")

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        assert is_alive(attempt.folder)
    attempt.succeed()


def test_where_there_are_no_locks_at_all_signs_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    attempt = attempt_in(tmp_path / "unit", "one")
    assert is_alive(attempt.folder)
    _age(attempt.folder, GONE_SECONDS + 1)
    assert not is_alive(attempt.folder)
    folder_locks.signs.give()
    assert is_alive(attempt.folder)
    attempt.fail("target", "no room")
    assert not is_alive(attempt.folder)


def test_signs_end_with_the_last_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_locks, "signs", folder_locks.Signs())
    attempts: list[Attempt] = [attempt_in(tmp_path / "unit", name) for name in ("one", "two")]
    thread = folder_locks.signs._thread
    assert thread is not None
    assert thread.is_alive()
    for attempt in attempts:
        attempt.succeed()
    thread.join(10)
    assert not thread.is_alive()
    assert folder_locks.signs._thread is None
    assert not (tmp_path / "unit").exists()
    again = attempt_in(tmp_path / "unit", "three")
    assert folder_locks.signs._thread is not None
    again.succeed()


def test_a_folder_that_was_being_removed_is_swept_later(tmp_path: Path) -> None:
    unit = unit_folder(tmp_path, "p", "k")
    attempt = attempt_in(unit, "one")
    attempt.folder.rename(unit / ".one.123")
    assert sweep_old(tmp_path, keep_seconds=-1) == 0
    folder_locks.release(attempt._lock)
    assert sweep_old(tmp_path, keep_seconds=-1) == 1
    assert not (unit / ".one.123").exists()
