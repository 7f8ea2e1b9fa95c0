"""Errors: one family that says what, where and what to do next, and knows whether a retry can help."""

import inspect
from pathlib import Path

import pytest

from dataflow_assets import errors
from dataflow_assets.errors import (
    ConnectionFailed,
    DataflowError,
    Fenced,
    MissingDriver,
    Place,
    PlanError,
    Problem,
    SpecError,
    WriteFailed,
)

FAMILY = [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, Exception)]


@pytest.mark.parametrize("error", FAMILY)
def test_one_family_with_a_docstring_each(error: type[Exception]) -> None:
    assert issubclass(error, DataflowError)
    assert (error.__doc__ or "").strip()


def test_a_message_with_its_hint() -> None:
    error = WriteFailed("table t is gone", hint="create it")
    assert (str(error), error.message, error.hint) == ("table t is gone\n  -> create it", "table t is gone", "create it")
    assert str(WriteFailed("table t is gone")) == "table t is gone"


def test_whether_a_retry_can_help() -> None:
    assert not WriteFailed("x").transient
    assert WriteFailed("x", transient=True).transient
    assert ConnectionFailed("x").transient
    assert not ConnectionFailed("x", transient=False).transient
    assert WriteFailed("x").kind == "permanent"
    assert ConnectionFailed("x", transient=False).kind == "configuration"
    assert ConnectionFailed("x", kind="permanent").kind == "permanent"
    assert SpecError([]).kind == "configuration"


def test_a_missing_driver_says_what_to_install() -> None:
    error = MissingDriver(kind="postgres", module="psycopg")
    assert (error.connector, error.module, error.kind) == ("postgres", "psycopg", "configuration")
    assert 'pip install "dataflow-assets[postgres]"' in str(error)


def test_a_fence_names_both_generations() -> None:
    error = Fenced(target="t", unit="p/write 2024-01-01", generation=3, newest=5)
    assert (error.generation, error.newest) == (3, 5)
    assert "generation 3 is fenced off by generation 5" in error.message


class TestProblem:
    def test_it_points_at_the_column(self) -> None:
        text = str(Problem(Place("a.yml", 3, 5), "unknown key 'x'", "did you mean 'y'?", "    x: 1"))
        lines = text.splitlines()
        assert lines[0] == "a.yml:3:5: unknown key 'x'"
        assert lines[1].index("x") == lines[2].index("^")
        assert lines[-1] == "  -> did you mean 'y'?"

    def test_without_a_line(self) -> None:
        assert str(Problem(Place("a.yml"), "is empty")) == "a.yml: is empty"

    def test_a_very_long_line_still_shows_the_caret_below_its_column(self) -> None:
        line = "x" * 500 + "HERE" + "y" * 500
        text = str(Problem(Place("a.yml", 1, 501), "m", "", line)).splitlines()
        assert text[1][text[2].index("^") :].startswith("HERE")

    def test_a_file_below_the_current_folder_is_shown_relative(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert str(Place(str(tmp_path / "pipelines" / "a.yml"), 1, 2)) == "pipelines/a.yml:1:2"
        assert str(Place("/elsewhere/a.yml", 1, 2)) == "/elsewhere/a.yml:1:2"


def test_several_problems_are_sorted_by_place() -> None:
    problems = [Problem(Place("b.yml", 1, 1), "one"), Problem(Place("a.yml", 10, 1), "two"), Problem(Place("a.yml", 9, 1), "three")]
    error = PlanError(problems)
    assert isinstance(error, SpecError)
    assert [problem.message for problem in error.problems] == ["three", "two", "one"]
    assert str(error).index("three") < str(error).index("two") < str(error).index("one")
