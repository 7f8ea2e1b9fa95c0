"""Rules in Python: every form in which a function takes rows and answers, and what it can do wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dataflow_assets.checks.validator import Check, ValidatorOptions
from dataflow_assets.protocols import CheckResult
from dataflow_assets.secrets import register_secret
from dataflow_assets_tests.staged import context_in, staged, verdicts

TABLE = pa.table({"a": pa.array([1, None, 3, 4]), "t": ["x", "y", "z", "x"]})
CODE = """
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc


def plain(rows, limit=3):
    assert isinstance(rows, pd.DataFrame)
    return rows["a"] < limit

def numpy_mask(rows: pd.DataFrame):
    return np.array([True, True, False, False])[: len(rows)]

def listed(rows: "pd.DataFrame"):
    return [value != "x" for value in rows["t"]]

def frames(rows: pl.DataFrame):
    assert isinstance(rows, pl.DataFrame)
    return rows["a"] < 3

def arrow(rows: pa.Table):
    return pc.less(rows["a"], 3)

def batches(rows: pa.RecordBatch, context):
    assert rows.num_rows and context.step == "under_test"
    return pc.less(rows.column("a"), 3)

def all_at_once(rows: pa.Table, window):
    return pc.less(rows["a"], rows.num_rows)

def verdict(rows: pl.DataFrame):
    return bool(rows["a"].sum() == 8)

def numbers(rows):
    return rows["a"]

def short(rows: pl.DataFrame):
    return rows["a"][:1] < 3

def nothing(rows):
    return None

def wrong(rows):
    raise ValueError("password=hunter2secret")

def no_rows():
    return []

def odd(rows: int):
    return rows
"""


def one(rule: dict[str, Any], folder: Path, table: pa.Table = TABLE) -> CheckResult:
    (folder / "rules.py").write_text(CODE)
    stage = staged(table, folder)
    (result,) = verdicts({"checks": [rule]}, stage, context_in(folder), batches=table.to_batches(max_chunksize=3)).values()
    return result


@pytest.mark.parametrize(
    ("function", "more", "failed"),
    [
        ("plain", {}, 2),
        ("plain", {"kwargs": {"limit": 4}}, 1),
        ("plain", {"where": "t <> 'x'"}, 1),
        ("listed", {"max_failed": "50%"}, 2),
        ("frames", {}, 2),
        ("arrow", {"where": "a is not null"}, 2),
        ("batches", {}, 2),
        ("numpy_mask", {"whole": True}, 2),
        ("all_at_once", {"whole": True}, 1),
    ],
)
def test_every_form(function: str, more: dict[str, Any], failed: int, tmp_path: Path) -> None:
    result = one({"function": f"rules.py:{function}", **more}, tmp_path)
    assert result.name == f"{function}_function"
    assert (result.failed, len(result.samples)) == (failed, failed), result.description


def test_a_whole_dataset_may_have_one_answer(tmp_path: Path) -> None:
    result = one({"function": "rules.py:verdict", "whole": True}, tmp_path)
    assert (result.passed, result.description) == (True, "rules.py:verdict says that the 4 rows are good")
    assert not one({"function": "rules.py:verdict", "whole": True}, tmp_path, TABLE.slice(1)).passed


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("rules.py:numbers", "gave back values of type int64, not one boolean for each row"),
        ("rules.py:short", "gave back 1 values for 3 rows"),
        ("rules.py:nothing", "gave back NoneType, not one boolean for each row"),
        ("rules.py:no_rows", "takes no rows: give it a parameter"),
        ("rules.py:odd", "wants builtins.int: annotate its first parameter"),
        ("rules.py:missing", "rules.py has no function 'missing'"),
        ("other.py:missing", "there is no file other.py"),
        ("no_such_module:f", "no_such_module cannot be imported: ModuleNotFoundError"),
        ("rules.py:wrong", "raised ValueError at "),
    ],
)
def test_what_a_function_can_do_wrong(function: str, reason: str, tmp_path: Path) -> None:
    register_secret("hunter2secret")
    for whole in (False, True):
        result = one({"function": function, "whole": whole}, tmp_path)
        if function == "rules.py:short" and whole:
            reason = "gave back 1 values for 4 rows"
        assert not result.passed
        assert reason in result.description
        assert "hunter2secret" not in result.description


def test_the_second_pass_of_a_whole_function_points_at_its_rows(tmp_path: Path) -> None:
    (tmp_path / "rules.py").write_text(CODE)
    check = Check(ValidatorOptions.model_validate({"checks": [{"function": "rules.py:all_at_once", "whole": True}]}))
    run = check.begin(TABLE.schema, replace(context_in(tmp_path)))
    run.finish(staged(TABLE, tmp_path))
    masks = [run.runs[0].pick(run.facts(batch)) for batch in TABLE.to_batches(max_chunksize=3)]  # type: ignore[attr-defined]
    assert [mask.to_pylist() for mask in masks] == [[False, False, False], [True]]
