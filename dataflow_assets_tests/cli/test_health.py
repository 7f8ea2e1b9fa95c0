"""`dataflow health`: the verdict once, and the service as a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

from dataflow_assets_tests.cli.conftest import Answer, ProjectFolder, environment

Call = Callable[..., Answer]


def test_the_verdict_once(call: Call, project: ProjectFolder):
    answer = call("health", "--once", "--project", project.root)
    assert answer.code == 0
    assert answer.out.splitlines()[0] == "OK    project: 3 pipelines"
    assert "WARN  daemon: no daemon was ever heard of" in answer.out
    assert answer.out.splitlines()[-2:] == ["Ready.", "Next: dataflow status"]
    answer = call("health", "--once", "--require-daemon", "--connections", "--json", "--project", project.root)
    assert (answer.code, answer.json["ready"], answer.json["checks"]["daemon"]["state"]) == (1, False, "failed")
    assert any(name.startswith("connection ") for name in answer.json["checks"])


def test_a_port_that_is_taken(call: Call, project: ProjectFolder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        answer = call("health", "--port", taken.getsockname()[1], "--project", project.root)
    assert answer.code == 2
    assert "cannot listen on 127.0.0.1:" in answer.err


def test_the_service_answers_and_ends_on_a_signal(project: ProjectFolder):
    words = [str(Path(sys.executable).with_name("dataflow")), "health", "--port", "0", "--refresh", "1", "--project", str(project.root)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split("/livez")[0]
        with urllib.request.urlopen(f"{url}/livez") as live:
            assert (live.status, live.read()) == (200, b"ok\n")
        with urllib.request.urlopen(f"{url}/metrics") as metrics:
            assert b"dataflow_build_info{" in metrics.read()
        os.kill(process.pid, signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
    finally:
        process.kill()
        process.communicate()
