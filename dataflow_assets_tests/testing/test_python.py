"""Tests from Python: `data_test`, `data_tests`, `run_tests`, and pytest itself."""

from __future__ import annotations

import os
import subprocess
import sys
from decimal import Decimal

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from dataflow_assets import DataflowError, data_test
from dataflow_assets.spec.builders import endpoint, pipeline, project, source, sql
from dataflow_assets.testing import data_tests, run_tests
from dataflow_assets_tests.testing.yard import Yard

TOTALS = pipeline(
    "totals",
    steps=[
        source("read", "csv", file_path="a.csv"),
        sql("summed", "select name, sum(amount) as amount from read group by name", depends_on="read"),
        endpoint("write", "csv", depends_on="summed", file_path="b.csv", mode="append"),
    ],
)
ROWS = [{"name": "a", "amount": Decimal("1.10")}, {"name": "a", "amount": Decimal("2.20")}]


@pytest.mark.parametrize("make", [list, pa.Table.from_pylist, lambda rows: pl.from_arrow(pa.Table.from_pylist(rows)), pd.DataFrame])
def test_a_test_is_built_of_rows_and_of_tables(make: object) -> None:
    built = data_test(
        "sums",
        pipeline="totals",
        step="summed",
        given={"read": make(ROWS)},
        expect=[{"name": "a", "amount": "3.3"}],
        properties=["permute"],
    )
    outcomes = run_tests(project("p", pipelines=[TOTALS]), tests=[built])
    assert [(outcome.name, outcome.status) for outcome in outcomes] == [("sums", "passed"), ("sums[permute]", "passed")]
    assert outcomes[0].place.file == __file__


def test_a_case_raises_what_differs_and_a_mistake_has_its_line() -> None:
    built = data_test("sums", pipeline="totals", step="summed", given={"read": ROWS}, expect=[{"name": "a", "amount": 3}])
    (case,) = data_tests(project("p", pipelines=[TOTALS]), tests=[built])
    assert str(case) == "sums"
    with pytest.raises(AssertionError, match=r"amount: expected 3\.00, found 3\.30"):
        case.check()
    with pytest.raises(DataflowError, match=r"test_python.py:\d+:\d+: unknown key 'stepp' in a test"):
        data_test("sums", pipeline="totals", stepp="summed", expect=[])


def test_pytest_collects_the_files_and_shows_the_difference(yard: Yard) -> None:
    head = "pipeline: sales\nwindow: 2024-01-01\ngiven: {priced: [{id: 1, sold: 2024-01-01, item: tea, amount: 1.5}]}\n"
    yard.write(
        "tests/sales.yml",
        f"test: good\n{head}expect: {{row_count: 1}}\n---\ntest: bad\n{head}expect: {{columns: [id], rows: [{{id: 2}}]}}\n",
    )
    yard.write("elsewhere/some.yml", "a: 1\n")
    yard.write("conftest.py", 'pytest_plugins = ["dataflow_assets.testing.pytest_plugin"]\n')
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(yard.folder), str(yard.folder)]
    done = subprocess.run(words, cwd=yard.folder, capture_output=True, text=True, env=dict(os.environ), timeout=120, check=False)
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "changed" not in done.stdout
    assert "missing {id: 2}" in done.stdout
    assert "unexpected {id: 1}" in done.stdout
    assert "Traceback" not in done.stdout
