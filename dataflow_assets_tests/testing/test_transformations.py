"""Transformation files of the Dataflow system, validated as they are, by its rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow_assets.testing import data_tests, run_tests
from dataflow_assets.testing.outcomes import Outcome
from dataflow_assets.testing.transformations import transformation_case

PASSING = {
    "list of rows": """
expected_inputs = [{"name": "a", "n": 1}, {"name": "b", "n": 2}]
expected_output = [{"n": 2, "name": "b"}]
def run(df):
    return df[df.n > 1]
""",
    "list of lists of rows": """
expected_inputs = [[{"k": 1, "v": "a"}], [{"k": 1, "w": "b"}], [{"unused": 1}]]
expected_output = [{"k": 1, "v": "a", "w": "b"}]
def run(df, df2):
    return df.merge(df2, on="k")
""",
    "a frame": """
import pandas as pd
expected_inputs = pd.DataFrame({"x": [1.5, None]})
expected_output = [{"x": 3.0}, {"x": float("nan")}]
def run(df):
    return df * 2
""",
    "frames": """
import pandas as pd
expected_inputs = [pd.DataFrame({"x": [1]}), pd.DataFrame({"x": [2]})]
expected_output = pd.DataFrame({"x": [1, 2]})
def run(first, second, stream=None):
    assert stream is None
    return pd.concat([first, second])
""",
    "a stream": """
import pandas as pd
expected_inputs = [[{"x": 1}], [{"factor": 10}]]
stream = [{"x": 2}, {"x": 3}]
expected_output = [{"x": 1}, {"x": 20}, {"x": 30}]
def run(df, factors, stream=None):
    added = pd.DataFrame([stream]) * factors.factor[0]
    stream["x"] = factors.loc[0, "factor"] = 0  # copies: the next run is not troubled
    return pd.concat([df, added])
""",
    "no rows": """
expected_inputs = [{"x": 1}]
expected_output = []
def run(df):
    return df[df.x > 1]
""",
    "a module beside it": """
from beside import doubled
expected_inputs = [{"x": 1}]
expected_output = [{"x": 2}]
def run(df):
    df.x = doubled(df.x)
    return df
""",
}
X1 = "expected_inputs = [{'x': 1}]\n"
X2 = X1 + "expected_output = [{'x': 2}]\n"
FAILING = {
    "raises": (X2 + "def run(df):\n    return df.y\n", "1. run raised AttributeError at line 4"),
    "none": (X2 + "def run(df):\n    pass\n", "1. run returned None, not a table"),
    "no rows": (X2 + "def run(df):\n    return df[df.x > 1]\n", "1. run gave no rows, 1 were expected"),
    "other rows": (X2 + "def run(df):\n    return df + 2\n", "row 1, x: expected 2, found 3"),
    "another type": (X2 + "def run(df):\n    return df + 1.0\n", "row 1, x: expected 2 (a whole number), found 2.0 (a fraction)"),
    "text": (X2 + "def run(df):\n    return (df + 1).astype(str)\n", "expected 2 (a whole number), found '2' (text)"),
    "another column": (X2 + "def run(df):\n    return df.rename(columns={'x': 'y'}) + 1\n", "row 1: column 'x' is missing"),
    "more rows": (X2 + "def run(df):\n    return df.loc[[0, 0]] + 1\n", "row 2: not expected {x: 2}"),
    "order": (
        "expected_inputs = [{'x': 1}, {'x': 2}]\nexpected_output = [{'x': 3}, {'x': 2}]\ndef run(df):\n    return (4 - df)[::-1]\n",
        "row 1, x: expected 3, found 2",
    ),
    "no table": (X2 + "def run(df):\n    return 7\n", "what run returned is a whole number"),
    "nothing done": (X1 + "expected_output = [{'x': 1}]\ndef run(df):\n    return df\n", "1. expected_output is the same as the input"),
    "two mistakes": (X1 + "expected_output = [{'x': 1}]\ndef run(df):\n    return df + 1\n", "2. expected_output is the same as the input"),
}
UNUSABLE = {
    "syntax": (X2 + "def run(df)\n    return df\n", "cannot be imported: SyntaxError"),
    "import": (X2 + "import nothing_of_that_name\n", "cannot be imported: ModuleNotFoundError at line 3"),
    "no output": (X1 + "def run(df):\n    return df\n", "does not define expected_output"),
    "no function": (X2 + "run = 3\n", "run is int, not a function"),
    "inputs": ("expected_inputs = 'x'\nexpected_output = []\ndef run(df):\n    return df\n", "expected_inputs is text"),
    "stream first": (X2 + "stream = [1]\ndef run(stream, df):\n    return df\n", "stream must be the last parameter"),
    "stream missing": (X2 + "def run(df, stream):\n    return df\n", "run needs stream, and the file has no list"),
    "stream unwanted": (X2 + "stream = [1]\ndef run(df):\n    return df\n", "run has no parameter of that name"),
}


def _outcome(folder: Path, code: str) -> Outcome:
    (folder / "beside.py").write_text("def doubled(x):\n    return x * 2\n")
    path = folder / "file.py"
    path.write_text(code)
    return transformation_case(path, folder.parent).run()


@pytest.mark.parametrize("name", PASSING)
def test_a_file_that_does_what_it_says_passes(tmp_path: Path, name: str) -> None:
    outcome = _outcome(tmp_path, PASSING[name])
    assert outcome.status == "passed", outcome.text


@pytest.mark.parametrize("name", FAILING)
def test_a_file_that_does_something_else_fails_with_a_numbered_report(tmp_path: Path, name: str) -> None:
    code, message = FAILING[name]
    outcome = _outcome(tmp_path, code)
    assert outcome.status == "failed"
    assert message in outcome.text


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_file_that_cannot_be_asked_is_an_error(tmp_path: Path, name: str) -> None:
    code, message = UNUSABLE[name]
    outcome = _outcome(tmp_path, code)
    assert outcome.status == "error"
    assert message in outcome.text


def test_modules_of_one_name_beside_two_files_are_two(tmp_path: Path) -> None:
    for name, factor in (("a", 2), ("b", 3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "shared.py").write_text(f"FACTOR = {factor}\n")
        (tmp_path / name / "step.py").write_text(
            f"from shared import FACTOR\n{X1}expected_output = [{{'x': {factor}}}]\ndef run(df):\n    return df * FACTOR\n"
        )
        outcome = transformation_case(tmp_path / name / "step.py", tmp_path).run()
        assert outcome.ok, outcome.text


def test_files_are_found_in_the_pipelines_folder_and_in_python_transforms(tmp_path: Path) -> None:
    (tmp_path / "dataflow_project.yml").write_text("project_name: p\n")
    (tmp_path / "pipelines/clean").mkdir(parents=True)
    (tmp_path / "pipelines/clean/step.py").write_text(PASSING["list of rows"])
    (tmp_path / "pipelines/clean/shared.py").write_text("def help():\n    pass\n")
    (tmp_path / "elsewhere.py").write_text(PASSING["list of rows"])
    (tmp_path / "pipelines/p.yml").write_text(
        "steps:\n  - {id: a, type: source, source_type: csv, config: {file_path: a.csv}}\n"
        "  - {id: b, type: transform, kind: python, depends_on: [a], config: {file: elsewhere.py, function: run}}\n"
    )
    assert [str(case) for case in data_tests(tmp_path)] == ["elsewhere.py", "pipelines/clean/step.py"]
    assert all(outcome.ok for outcome in run_tests(tmp_path))
    assert [outcome.name for outcome in run_tests(tmp_path, paths=[tmp_path / "elsewhere.py"])] == ["elsewhere.py"]
