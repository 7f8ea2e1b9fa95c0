"""Failpoints: each action at its place and visit, and nothing anywhere else."""

import signal
import subprocess
import sys
import time

import pytest

from dataflow_assets import failpoints
from dataflow_assets.failpoints import VARIABLE, failpoint


@pytest.fixture(autouse=True)
def no_visits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "_visits", {})
    monkeypatch.delenv(VARIABLE, raising=False)


def test_without_the_variable_nothing_happens() -> None:
    failpoint("publish.before_commit")


def test_error_acts_at_its_place_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, " a.b=error , c=sleep:0")
    failpoint("a")
    failpoint("c")
    with pytest.raises(OSError, match=r"failpoint a\.b"):
        failpoint("a.b")


def test_it_acts_at_one_visit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "batch=error@3")
    failpoint("batch")
    failpoint("batch")
    with pytest.raises(OSError, match="batch"):
        failpoint("batch")
    failpoint("batch")


def test_without_a_number_it_acts_at_the_first_visit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "batch=error")
    with pytest.raises(OSError, match="batch"):
        failpoint("batch")
    failpoint("batch")


def test_sleep_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "slow=sleep:0.05")
    started = time.monotonic()
    failpoint("slow")
    assert time.monotonic() - started >= 0.05


def test_an_unknown_action_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "x=explode")
    with pytest.raises(ValueError, match="unknown action 'explode' at 'x'; expected kill, error or sleep:SECONDS"):
        failpoint("x")


def test_kill_ends_the_process_at_once() -> None:
    code = "from dataflow_assets.failpoints import failpoint\ntry:\n    failpoint('x')\nfinally:\n    print('alive')"
    done = subprocess.run([sys.executable, "-c", code], env={VARIABLE: "x=kill"}, capture_output=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == b""
