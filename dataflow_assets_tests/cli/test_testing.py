"""`dataflow test`: which tests run, what is printed, and the exit codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from dataflow_assets_tests.cli.conftest import Answer, ProjectFolder

Call = Callable[..., Answer]
HEAD = "pipeline: first\nwindow: 2024-01-02\nstep: check\ngiven: {read: [{id: 3, at: 2024-01-02T10:00:00Z, value: 30}]}\n"
TESTS = f"""
test: passes
{HEAD}
expect: {{columns: [id], rows: [{{id: 3}}]}}
---
test: fails
{HEAD}
expect: {{columns: [id], rows: [{{id: "3"}}]}}
---
test: of_third
{HEAD.replace("first", "third").replace("step: check", "step: read")}
expect: {{row_count: 1}}
"""


@pytest.fixture
def shop(project: ProjectFolder) -> Path:
    """The project with three tests, one of which fails."""
    (project.root / "tests").mkdir()
    (project.root / "tests/first.yml").write_text(TESTS)
    return project.root


def names(answer: Answer) -> list[str]:
    return [test["name"] for test in answer.json["tests"]]


def test_lines_totals_and_files(call: Call, shop: Path) -> None:
    answer = call("test", "--project", shop, "--junit", shop / "out/junit.xml", "--no-color")
    assert answer.code == 1
    assert "ok      passes" in answer.out
    assert "FAILED  fails" in answer.out
    assert "first.yml:10:7" in answer.out
    assert "id: expected '3' (text), found 3 (int64)" in answer.out
    assert "2 passed, 1 failed in" in answer.out
    assert not (shop / "shop.duckdb").exists()
    suite = Xml.parse(shop / "out/junit.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "0")
    assert [(case.get("classname"), case.get("name"), len(case)) for case in suite] == [
        ("first", "passes", 0),
        ("first", "fails", 1),
        ("third", "of_third", 0),
    ]


def test_what_is_asked_for_is_run(call: Call, shop: Path) -> None:
    (shop / "pipelines/clean.py").write_text(
        "expected_inputs = [{'x': 1}]\nexpected_output = [{'x': 2}]\ndef run(df):\n    return df + 1\n"
    )

    def run(*words: object) -> list[str]:
        return names(call("test", "--project", shop, "--json", *words))

    assert run() == ["passes", "fails", "of_third", "pipelines/clean.py"]
    assert run("passes") == ["passes"]
    assert run("*s", "-k", "ASS") == ["passes"]
    assert run("third") == ["of_third"]
    assert run("tag:daily") == ["passes", "fails", "of_third"]
    assert run("first.check", "of_third") == ["of_third", "passes", "fails"]
    assert run("--exclude", "third") == ["passes", "fails"]
    assert run("tests/first.yml") == ["passes", "fails", "of_third"]
    assert run(shop / "pipelines/clean.py") == ["pipelines/clean.py"]
    stopped = call("test", "--project", shop, "--json", "-x")
    assert names(stopped) == ["passes", "fails"]
    assert stopped.json["not_run"] == 2
    assert stopped.code == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pases"], "did you mean 'passes'"),
        (["-k", "nothing"], "no test is left"),
        (["tag:none"], "none"),
    ],
)
def test_a_word_that_is_nothing_is_a_usage_error(call: Call, shop: Path, words: list[str], message: str) -> None:
    answer = call("test", "--project", shop, *words)
    assert answer.code == 2
    assert message in answer.err


def test_no_tests_and_tests_that_are_not_well_written_are_configuration(call: Call, project: ProjectFolder) -> None:
    answer = call("test", "--project", project.root)
    assert answer.code == 2
    assert "has no tests" in answer.err
    (project.root / "tests").mkdir()
    (project.root / "tests/a.yml").write_text("test: a\npipeline: frist\nexpect: []\n")
    answer = call("test", "--project", project.root, "--json")
    assert answer.code == 2
    (problem,) = answer.json["error"]["problems"]
    assert (problem["line"], problem["hint"]) == (2, "did you mean 'first'?")
    validated = call("validate", "--project", project.root, "--json")
    assert validated.code == 2
    assert validated.json["problems"] == [problem]
    assert call("validate", "--project", project.root, "--select", "first").code == 0


def test_the_folder_is_the_projects_to_choose(call: Call, shop: Path) -> None:
    (shop / "tests").rename(shop / "specs")
    file = shop / "dataflow_project.yml"
    file.write_text(file.read_text() + "tests_dir: specs\n")
    assert call("test", "--project", shop, "passes").code == 0
