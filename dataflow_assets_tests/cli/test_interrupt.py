"""Ctrl-C in a real run: finished windows stay, the exit code is 130, and the next run does the rest."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb

from dataflow_assets_tests.cli.conftest import ProjectFolder, environment, real

# what DuckDB and ADBC do with the signal: the interrupt is lost, an ordinary error is left
_DRIVER = """\
import time

def slow(read):
    print("waiting", flush=True)
    try:
        time.sleep(30)
    except BaseException:
        raise RuntimeError("Query interrupted") from None
"""
_SLOW = """\
pipeline_name: first
steps:
  - {id: read, type: source, source_type: csv, config: {file_path: rows.csv}}
  - {id: slow, type: transform, kind: python, depends_on: [read], config: {file: slow.py, function: slow}}
  - {id: write, type: endpoint, endpoint_type: csv, depends_on: [slow], config: {file_path: out.csv}}
"""


def _start(project: ProjectFolder, failpoints: str) -> subprocess.Popen[str]:
    words = [str(Path(sys.executable).with_name("dataflow")), "run", "--project", str(project.root), "-s", "first"]
    # a shell that runs a command in the background makes it ignore SIGINT; a terminal does not
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(DATAFLOW_FAILPOINTS=failpoints),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )


def _published(project: ProjectFolder) -> int:
    try:
        with duckdb.connect(str(project.root / "shop.duckdb"), read_only=True) as connection:
            return int(connection.execute("select count(*) from facts").fetchone()[0])  # type: ignore[index]
    except duckdb.Error:
        return 0


def test_an_interrupted_run_says_so_and_the_next_one_finishes(project: ProjectFolder) -> None:
    process = _start(project, "window.claimed=sleep:30@2")
    deadline = time.monotonic() + 30
    out = ""
    assert process.stdout is not None
    while "OK 2024-01-01" not in out and time.monotonic() < deadline:
        out += process.stdout.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=30)
    out += rest
    assert process.returncode == 130, out + err
    assert "Traceback" not in out + err
    assert "INTERRUPTED=1" in out
    assert "1 published" in out
    assert out.splitlines()[-1].startswith("Again: dataflow")
    assert _published(project) == 2
    again = real("run", "--project", project.root, "-s", "first")
    assert again.code == 0, again.out + again.err
    assert "2 published" in again.out
    assert _published(project) == 4


def test_an_interrupt_that_a_driver_makes_an_error_of_is_an_interrupt(project: ProjectFolder) -> None:
    for file in (project.root / "pipelines").iterdir():
        file.unlink()
    (project.root / "pipelines" / "first.yml").write_text(_SLOW)
    (project.root / "slow.py").write_text(_DRIVER)
    (project.root / "rows.csv").write_text("id\n1\n")
    process = _start(project, "")
    assert process.stdout is not None
    out = ""
    while "waiting" not in out and (line := process.stdout.readline()):
        out += line
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + rest + err
    assert "INTERRUPTED=1" in rest


def test_an_interrupt_before_anything_ran_is_a_document_too(project: ProjectFolder) -> None:
    code = (
        "import sys, dataflow_assets.cli.choosing as choosing\n"
        "def stop(project):\n    raise KeyboardInterrupt\n"
        "choosing.survey = stop\n"
        "from dataflow_assets.cli.app import app\n"
        f"app.main(['run', '--json', '--project', {str(project.root)!r}])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=60, check=False)
    assert done.returncode == 130
    assert json.loads(done.stdout)["error"]["type"] == "Interrupted"
