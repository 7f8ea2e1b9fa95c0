"""What goes wrong ends in one message and the right exit code."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from dataflow_assets.cli.app import VERBS
from dataflow_assets.cli.failures import exit_code, explain
from dataflow_assets.errors import CheckFailed, ConnectionFailed, DataflowError, Interrupted, MissingDriver, SelectionError, SpecError
from dataflow_assets.secrets import register_secret
from dataflow_assets_tests.cli.conftest import Answer, ProjectFolder, environment, real

Call = Callable[..., Answer]
NEEDING_A_PROJECT = ("run", "plan", "validate", "deps", "list", "status", "update-gitignore", "dev")


@pytest.mark.parametrize("verb", NEEDING_A_PROJECT)
def test_without_a_project_every_verb_says_what_to_do(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.chdir(tmp_path)
    answer = call(verb)
    assert answer.code == 2
    assert "dataflow init" in answer.err
    assert answer.out == ""


@pytest.mark.parametrize("verb", NEEDING_A_PROJECT)
def test_with_json_an_error_is_a_document_too(call: Call, tmp_path: Path, verb: str) -> None:
    answer = call(verb, "--project", tmp_path, "--json")
    assert answer.code == 2
    assert answer.json["ok"] is False
    assert answer.json["exit_code"] == 2
    assert "dataflow init" in answer.json["error"]["hint"]


def test_a_project_that_does_not_exist(call: Call, tmp_path: Path) -> None:
    answer = call("list", "--project", tmp_path / "nowhere")
    assert answer.code == 2
    assert "nowhere" in answer.err


def test_the_environment_names_the_project(call: Call, project: ProjectFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATAFLOW_PROJECT", str(project.root))
    assert call("list").code == 0
    monkeypatch.setenv("DATAFLOW_PROJECT", str(tmp_path / "gone"))
    answer = call("list")
    assert answer.code == 2
    assert "DATAFLOW_PROJECT" in answer.err


def test_a_project_is_found_from_a_folder_below(call: Call, project: ProjectFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root / "data")
    assert call("list").code == 0


def test_shared_options_stand_before_or_after_the_verb(call: Call, project: ProjectFolder) -> None:
    before = call("--project", project.root, "--json", "list")
    after = call("list", "--json", "--project", project.root)
    assert before.code == after.code == 0
    assert before.json == after.json


@pytest.mark.parametrize(
    "arguments", [("nope",), ("run", "--nope"), ("list", "nonsense"), ("run", "--max-windows", "0"), ("init",), ("show",)]
)
def test_wrong_usage_is_2(call: Call, arguments: tuple[str, ...]) -> None:
    assert call(*arguments).code == 2
    assert call(*arguments, "--json").json["exit_code"] == 2


def test_an_unknown_verb_gets_the_nearest_one(call: Call) -> None:
    assert "did you mean validate" in call("valdate").err


@pytest.mark.parametrize("verb", ["run", "plan", "validate", "deps", "list", "status"])
def test_nothing_selected_is_an_error_with_near_names(call: Call, project: ProjectFolder, verb: str) -> None:
    answer = call(verb, "--project", project.root, "--select", "frist")
    assert answer.code == 2
    assert "first" in answer.err


@pytest.mark.parametrize("verb", ["run", "plan", "deps", "list", "status"])
def test_a_selected_pipeline_with_problems_is_refused_whole(call: Call, project: ProjectFolder, verb: str) -> None:
    project.pipeline("bad", "pipeline_name: bad\nsteps:\n  - id: x\n    type: sourc\n    nonsense: 1\n")
    answer = call(verb, "--project", project.root)
    assert answer.code == 2
    assert "bad.yml:4" in answer.err
    assert "bad.yml:5" in answer.err
    assert "^" in answer.err


@pytest.mark.parametrize("verb", ["plan", "deps", "list", "status"])
def test_a_broken_pipeline_does_not_take_the_others_down(call: Call, project: ProjectFolder, verb: str) -> None:
    project.pipeline("bad", "pipeline_name: bad\nsteps: [\n")
    answer = call(verb, "--project", project.root, "--select", "first")
    assert answer.code == 0
    assert "dataflow validate" in answer.err


def test_a_project_without_pipelines(call: Call, project: ProjectFolder) -> None:
    for file in (project.root / "pipelines").iterdir():
        file.unlink()
    answer = call("run", "--project", project.root)
    assert answer.code == 2
    assert "no pipelines" in answer.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SpecError([]), 2),
        (SelectionError("x"), 2),
        (MissingDriver(kind="postgres", module="psycopg"), 2),
        (click.UsageError("x"), 2),
        (ConnectionFailed("x"), 1),
        (CheckFailed("x"), 1),
        (DataflowError("x"), 1),
        (ValueError("x"), 1),
        (Interrupted("x"), 130),
        (click.Abort(), 130),
    ],
)
def test_exit_codes(error: BaseException, code: int) -> None:
    assert exit_code(error) == code


def test_an_unforeseen_error_is_one_line_with_a_hint_and_no_secret() -> None:
    register_secret("hunter2hunter2")
    text = explain(RuntimeError("cannot log in with hunter2hunter2\nsecond line"))
    assert "hunter2" not in text
    assert text.splitlines()[0] == "RuntimeError: cannot log in with ****"
    assert "--log-level debug" in text
    assert len(text.splitlines()) == 2


def test_debug_shows_the_traceback(project: ProjectFolder) -> None:
    quiet = real("show", "nothing_like_it", "--project", project.root)
    loud = real("show", "nothing_like_it", "--project", project.root, "--log-level", "debug")
    assert quiet.code == loud.code == 2
    assert "Traceback" not in quiet.err
    assert "Traceback" in loud.err


def test_a_reader_that_went_away_is_no_error(project: ProjectFolder) -> None:
    words = [str(Path(sys.executable).with_name("dataflow")), "list", "steps", "--project", str(project.root)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    assert process.stdout is not None
    process.stdout.close()
    _, noise = b"", process.stderr.read() if process.stderr else b""
    assert process.wait(timeout=30) == 0
    assert noise == b""
    if process.stderr:
        process.stderr.close()


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_any_terminal_can_print_it(project: ProjectFolder, encoding: str) -> None:
    project.pipeline("first", (project.root / "pipelines" / "first.yml").read_text().replace("tags:", "description: Größe → 数\ntags:"))
    environment_of_terminal = {"PYTHONIOENCODING": encoding, "TERM": "dumb", "LC_ALL": "C"}
    words = [str(Path(sys.executable).with_name("dataflow"))]
    for arguments in (["deps"], ["show", "first", "--limit", "0"], ["list", "--json"]):
        done = subprocess.run(
            [*words, *arguments, "--project", str(project.root)],
            capture_output=True,
            env=environment(**environment_of_terminal),
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        done.stdout.decode(encoding)
    import json

    descriptions: Any = {item["name"]: item["description"] for item in json.loads(done.stdout.decode(encoding))["pipelines"]}
    assert descriptions["first"] == "Größe → 数"


def test_pipes_get_no_escape_codes(project: ProjectFolder) -> None:
    for arguments in (["deps"], ["plan"], ["nope"]):
        answer = real(*arguments, "--project", project.root) if arguments != ["nope"] else real(*arguments)
        assert "\x1b" not in answer.out + answer.err


def test_the_table_of_verbs_is_complete() -> None:
    assert {"init", "run", "plan", "validate", "deps", "list", "show", "status", "schema", "update-gitignore", "dev"} <= set(VERBS)
