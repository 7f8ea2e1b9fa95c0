"""Python functions as steps: every form in and out, exact values, parameters, errors with their place, clean imports."""

from __future__ import annotations

import sys
import textwrap
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from pydantic import ValidationError

from dataflow_assets.errors import TransformFailed
from dataflow_assets.protocols import StagedInput
from dataflow_assets.spec.models import PipelineModel
from dataflow_assets.transforms.python import PythonOptions, Transform
from dataflow_assets.windows import Window
from dataflow_assets_tests.staged import context_in, staged

HEADER = """
from collections.abc import Iterator
import pandas as pd
import polars as pl
import pyarrow as pa
"""

EXACT = pa.table(
    {
        "n": pa.array([2**53 + 1, None, -1], pa.int64()),
        "u": pa.array([2**64 - 1, None, 0], pa.uint64()),
        "f": pa.array([0.1, None, float("nan")], pa.float64()),
        "d": pa.array([Decimal("12345678901234567890.123456789"), None, Decimal("1")], pa.decimal128(38, 9)),
        "t": pa.array([datetime(2013, 2, 8, 5, 0, 0, 1, tzinfo=UTC), None, None], pa.timestamp("us", "America/New_York")),
        "naive": pa.array([datetime(9999, 1, 1), None, None], pa.timestamp("us")),
        "day": pa.array([date(1, 1, 1), None, date(2013, 2, 8)]),
        "clock": pa.array([time(12, 30), None, None], pa.time64("us")),
        "b": pa.array([True, None, False]),
        "s": pa.array(["é", None, ""]),
        "raw": pa.array([b"\xff", None, b""]),
        "list": pa.array([[1, None], None, []], pa.list_(pa.int64())),
        "struct": pa.array([{"x": 1}, None, {"x": None}], pa.struct([("x", pa.int64())])),
    }
)


def write(folder: Path, code: str, name: str = "steps.py") -> None:
    (folder / name).write_text(HEADER + textwrap.dedent(code))


def run(folder: Path, code: str, inputs: dict[str, StagedInput], *, context: dict[str, Any] | None = None, **options: Any) -> pa.Table:
    write(folder, code)
    transform = Transform(PythonOptions.model_validate({"file": "steps.py", **options}))
    with transform.apply(inputs, context_in(folder, **(context or {}))) as reader:
        return reader.read_all()


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, StagedInput]:
    return {"rows": staged(pa.table({"a": [1, 2, 3]}), tmp_path)}


@pytest.mark.parametrize(
    "form", ["pd.DataFrame", "pl.DataFrame", "pl.LazyFrame", "pa.Table", "pa.RecordBatchReader", "Iterator[pa.RecordBatch]"]
)
@pytest.mark.parametrize("quoted", [False, True], ids=["annotated", "annotated as text"])
def test_each_form_passes_values_through_exactly(form: str, quoted: bool, tmp_path: Path) -> None:
    written = f'"{form}"' if quoted else form
    found = run(tmp_path, f"def transform(x: {written}) -> {written}:\n    return x\n", {"rows": staged(EXACT, tmp_path)})
    for name in EXACT.column_names:
        assert repr(found[name].to_pylist()) == repr(EXACT[name].to_pylist()), name
        if (
            not pa.types.is_string(EXACT[name].type)
            and not pa.types.is_nested(EXACT[name].type)
            and not pa.types.is_binary(EXACT[name].type)
        ):
            assert pa.types.is_time(EXACT[name].type) or found[name].type == EXACT[name].type


@pytest.mark.parametrize("form", ["pd.DataFrame", "pl.DataFrame", "pl.LazyFrame", "pa.Table", "pa.RecordBatchReader"])
def test_no_rows_keep_their_columns(form: str, tmp_path: Path) -> None:
    stage = staged(EXACT.slice(0, 0), tmp_path)
    found = run(tmp_path, f"def transform(x: {form}):\n    return x\n", {"rows": stage})
    assert (found.num_rows, found.column_names) == (0, EXACT.column_names)
    assert found["d"].type == pa.decimal128(38, 9)


def test_the_form_is_what_the_annotation_says(tmp_path: Path, rows: dict[str, StagedInput]) -> None:
    code = """
        def transform(one: pd.DataFrame, two: "pl.DataFrame", three: pl.LazyFrame, four: pa.Table, five: pa.RecordBatchReader, six):
            kinds = [type(item).__module__.split(".")[0] + "." + type(item).__name__ for item in (one, two, three, four, five, six)]
            return pa.table({"kind": kinds, "type": [str(one["a"].dtype)] * 6})
    """
    inputs = {f"i{number}": rows["rows"] for number in range(6)}
    found = run(tmp_path, code, inputs)
    assert found["kind"].to_pylist() == [
        "pandas.DataFrame",
        "polars.DataFrame",
        "polars.LazyFrame",
        "pyarrow.Table",
        "pyarrow.RecordBatchReader",
        "pandas.DataFrame",
    ]
    assert found["type"][0].as_py() == "int64[pyarrow]"


def test_parameters_by_name_position_kwargs_context_and_window(tmp_path: Path) -> None:
    inputs = {name: staged(pa.table({"v": [name]}), tmp_path, name) for name in ("big-orders", "customers", "shops")}
    code = """
        def pick(first: pa.Table, customers: pa.Table, rate, context, window, last: pa.Table, unused=5):
            names = [table["v"][0].as_py() for table in (first, customers, last)]
            return pa.table({"v": [*names, str(rate), context.step, window.start.isoformat(), str(unused)]})
    """
    window = Window(datetime(2013, 2, 8, tzinfo=UTC), datetime(2013, 2, 9, tzinfo=UTC))
    found = run(tmp_path, code, inputs, context={"window": window}, function="pick", kwargs={"rate": 0.5})
    assert found["v"].to_pylist() == ["big-orders", "customers", "shops", "0.5", "under_test", "2013-02-08T00:00:00+00:00", "5"]
    by_name = run(
        tmp_path, "def transform(shops: pa.Table, big_orders: pa.Table):\n    return pa.concat_tables([shops, big_orders])\n", inputs
    )
    assert by_name["v"].to_pylist() == ["shops", "big-orders"]


def test_a_function_of_a_module_of_the_project(tmp_path: Path, rows: dict[str, StagedInput]) -> None:
    (tmp_path / "my_steps_pkg").mkdir()
    (tmp_path / "my_steps_pkg" / "__init__.py").write_text("")
    write(tmp_path / "my_steps_pkg", "def double(x: pa.Table) -> pa.Table:\n    return pa.concat_tables([x, x])\n", "inner.py")
    before = list(sys.path)
    with Transform(PythonOptions(function="my_steps_pkg.inner:double")).apply(rows, context_in(tmp_path)) as reader:
        assert reader.read_all().num_rows == 6
    assert sys.path == before


def test_a_file_can_import_its_neighbours_and_clashes_with_nothing(tmp_path: Path, rows: dict[str, StagedInput]) -> None:
    (tmp_path / "neighbour_of_steps.py").write_text("FACTOR = 3\n")
    code = """
        from dataclasses import dataclass

        @dataclass
        class Local:
            n: "int"

        def transform(x: pa.Table) -> "Iterator[pa.RecordBatch]":
            from neighbour_of_steps import FACTOR
            for _ in range(Local(FACTOR).n):
                yield from x.to_batches()
    """
    before, modules = list(sys.path), set(sys.modules)
    assert run(tmp_path, code, rows).num_rows == 9
    assert sys.path == before
    assert "steps" not in sys.modules
    assert {name for name in set(sys.modules) - modules if "steps" in name and name.startswith("_dataflow_file_")}
    assert run(tmp_path, "def transform(x: pa.Table):\n    return x\n# edited\n", rows).num_rows == 3


def test_streams_are_not_gathered(tmp_path: Path) -> None:
    stage = staged(pa.table({"a": range(300_000)}), tmp_path, batch_rows=50_000)
    code = """
        seen = []
        def transform(x: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in x:
                seen.append(batch.num_rows)
                yield batch
    """
    write(tmp_path, code)
    with Transform(PythonOptions(file="steps.py")).apply({"rows": stage}, context_in(tmp_path)) as reader:
        reader.read_next_batch()
        module = next(module for name, module in sys.modules.items() if name.startswith("_dataflow_file_steps") and hasattr(module, "seen"))
        assert sum(module.seen) < 300_000
        reader.read_all()
        assert sum(module.seen) == 300_000


@pytest.mark.parametrize(
    ("body", "names", "values"),
    [
        ("return x[x.a > 1]", ["a"], [[2, 3]]),
        ("return x.sort_values('a', ascending=False)", ["a"], [[3, 2, 1]]),
        ("return x.assign(g=['p', 'p', 'q']).groupby('g').sum()", ["g", "a"], [["p", "q"], [3, 3]]),
        ("return x.assign(z=[1.5, None, float('nan')])[['z', 'a']]", ["z", "a"], [[1.5, None, None], [1, 2, 3]]),
        ("return pd.DataFrame({'d': [pd.Timestamp('2013-02-08')], 'o': [None]})", ["d", "o"], [[datetime(2013, 2, 8)], [None]]),
        ("return pd.DataFrame({'a': []}, index=pd.Index([], dtype=object))", ["a"], [[]]),
    ],
)
def test_pandas_columns_and_index(
    body: str, names: list[str], values: list[list[Any]], tmp_path: Path, rows: dict[str, StagedInput]
) -> None:
    found = run(tmp_path, f"def transform(x: pd.DataFrame) -> pd.DataFrame:\n    {body}\n", rows)
    assert found.column_names == names
    assert [column.to_pylist() for column in found.columns] == values
    assert not found.schema.metadata


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("return 5", "returned an int, not a table"),
        ("return None", "returned None, not a table"),
        ("return [x]", "returned a list, not a table"),
        ("return x['a']", "returned a pandas Series, not a table"),
        ("return pl.Series([1])", "returned a polars Series, not a table"),
        ("return iter([5])", "returned an int, not a table"),
        ("return iter([])", "yielded nothing, so that its columns are unknown"),
        ("return iter([iter([])])", "yielded a list_iterator, not a table"),
        ("return iter([pa.table({'a': [1]}), pa.table({'a': ['x']})])", "different columns: first a int64, then a string"),
        ("return x.set_index(pd.Index(['p', 'q', 'r']))", "index holds values but has no name"),
        ("return x.set_index('a', drop=False)", "index is named like its column 'a'"),
        ("return pd.concat([x, x], axis=1)", "returned two columns named 'a'"),
        ("return x.rename(columns={'a': 1})", "column named 1, which is not text"),
        ("return pd.DataFrame({'m': [1, 'x']})", "a column 'm' whose values have no one type"),
        ("return pa.table([[1], [2]], names=['a', 'a'])", "returned two columns named 'a'"),
        ("raise ValueError('no good')", "raised ValueError at line 7: no good"),
        ("return x['nope']", "raised KeyError at line 7: 'nope'"),
    ],
)
def test_failures_name_the_function_and_its_place(code: str, message: str, tmp_path: Path, rows: dict[str, StagedInput]) -> None:
    with pytest.raises(TransformFailed) as failure:
        run(tmp_path, f"def transform(x: pd.DataFrame):\n    {code}\n", rows)
    assert f"step under_test: transform ({tmp_path / 'steps.py'}:6) " in str(failure.value)
    assert message in str(failure.value)
    assert failure.value.__cause__ is not None


def test_the_users_traceback_is_kept_also_from_a_generator(tmp_path: Path, rows: dict[str, StagedInput]) -> None:
    code = """
        def inner():
            raise RuntimeError("deep")

        def transform(x: pa.Table) -> Iterator[pa.RecordBatch]:
            yield from x.to_batches()
            inner()
    """
    with pytest.raises(TransformFailed, match="raised RuntimeError at line 8: deep") as failure:
        run(tmp_path, code, rows)
    cause = failure.value.__cause__
    assert isinstance(cause, RuntimeError)
    frames, trace = [], cause.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert frames[-2:] == ["transform", "inner"]


@pytest.mark.parametrize(
    ("code", "options", "message"),
    [
        ("def other(x): return x", {}, "steps.py has no function 'transform'\n  -> it has other"),
        ("import nothing_of_this_name", {}, "steps.py cannot be imported: ModuleNotFoundError"),
        ("def transform(x): return x", {"file": "absent.py"}, "there is no file absent.py"),
        ("def transform(x, y): return x", {}, "nothing fills parameter 'y' of transform"),
        ("def transform(x): return x", {"kwargs": {"z": 1}}, "has no parameter 'z'\n  -> it has x"),
        ("transform = 5", {}, "has no function 'transform'"),
    ],
)
def test_a_function_that_cannot_be_called(
    code: str, options: dict[str, Any], message: str, tmp_path: Path, rows: dict[str, StagedInput]
) -> None:
    with pytest.raises(TransformFailed) as failure:
        run(tmp_path, code + "\n", rows, **options)
    assert message in str(failure.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"function": "transform"}, "names no module"),
        ({}, "names no module"),
        ({"function": "m:f", "file": "x.py"}, "names a module beside `file`"),
        ({"function": "m:"}, "is not 'module:function'"),
        ({"function": "a b:c"}, "is not 'module:function'"),
        ({"file": "x.py", "func": "y"}, "Extra inputs"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PythonOptions.model_validate(options)


def test_the_example_is_valid() -> None:
    pipeline = PipelineModel.model_validate(yaml.safe_load(Transform.example))
    step = next(step for step in pipeline.steps if step.kind == Transform.kind)
    assert PythonOptions.model_validate(step.config).function == "clean"
