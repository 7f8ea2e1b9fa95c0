"""A new user's first minutes, as real commands: init, run, run again, Dagster's own validation, a terminal."""

from __future__ import annotations

import csv
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from dataflow_assets_tests.cli.conftest import environment, real


def test_init_run_and_run_again(tmp_path: Path) -> None:
    assert real("init", "my_project", cwd=tmp_path).code == 0
    root = tmp_path / "my_project"
    first = real("run", cwd=root)
    assert first.code == 0, first.out + first.err
    assert "Done. OK=2 FAILED=0 SKIPPED=0 TOTAL=2" in first.out
    assert "\x1b" not in first.out + first.err
    assert first.err == ""
    with (root / "reports" / "revenue.csv").open() as file:
        report = list(csv.DictReader(file))
    assert sum(int(row["orders"]) for row in report) == 12
    assert {row["currency"] for row in report} == {"EUR"}
    second = real("run", "--json", cwd=root)
    assert second.code == 0, second.out + second.err
    windows = {item["name"]: item["windows"] for item in second.json["pipelines"]}
    assert windows["orders"] == []
    assert [window["rows"] for window in windows["revenue_report"]] == [len(report)]
    assert real("status", "--json", cwd=root).json["pipelines"][0]["windows"]["published"] == 5


def test_dagster_finds_the_new_project_by_itself(fresh: Path) -> None:
    words = [str(Path(sys.executable).with_name("dagster")), "definitions", "validate"]
    done = subprocess.run(words, cwd=fresh, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed validation" in done.stdout + done.stderr


def test_on_a_terminal_there_are_colours_and_a_bar_that_goes_away(fresh: Path) -> None:
    text = _on_a_terminal(["run", "-s", "orders"], fresh, TERM="xterm-256color")
    assert "\x1b[32m" in text
    assert "\x1b[?25l" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h"), "the cursor comes back"
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "\n").splitlines()
    assert any(line.startswith("Done. OK=1") for line in lines)


def test_colours_can_be_refused(fresh: Path) -> None:
    assert "\x1b[32m" in _on_a_terminal(["validate"], fresh, TERM="xterm-256color")
    assert "\x1b" not in _on_a_terminal(["validate", "--no-color"], fresh, TERM="xterm-256color")
    assert "\x1b" not in _on_a_terminal(["plan"], fresh, TERM="xterm-256color", NO_COLOR="1")


def _on_a_terminal(arguments: list[str], folder: Path, **extra: str) -> str:
    """What a command writes to a pseudo-terminal."""
    master, slave = pty.openpty()
    words = [str(Path(sys.executable).with_name("dataflow")), *arguments]
    process = subprocess.Popen(words, cwd=folder, stdin=slave, stdout=slave, stderr=slave, env=environment(**extra))
    os.close(slave)
    chunks = []
    try:
        while chunk := os.read(master, 65_536):
            chunks.append(chunk)
    except OSError:  # the other side is closed: Linux says so with EIO
        pass
    finally:
        os.close(master)
    assert process.wait(timeout=60) == 0, b"".join(chunks).decode()
    return b"".join(chunks).decode()
