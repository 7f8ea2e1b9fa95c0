"""SQL as a step: several inputs by name, exact values, empty inputs, bounded memory."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from pydantic import ValidationError

from dataflow_assets.errors import TransformFailed
from dataflow_assets.spec.models import PipelineModel
from dataflow_assets.tables import Bind, Query
from dataflow_assets.transforms.sql import SqlOptions, Transform
from dataflow_assets_tests.staged import context_in, staged


def select(text: str, folder: Path, **tables: pa.Table) -> pa.Table:
    inputs = {name: staged(table, folder, name) for name, table in tables.items()}
    with Transform(SqlOptions(query=text)).apply(inputs, context_in(folder)) as reader:
        return reader.read_all()


def test_several_inputs_by_name(tmp_path: Path) -> None:
    flights, airports = pa.table({"origin": ["EWR", "JFK", "EWR"]}), pa.table({"faa": ["EWR"], "name": ["Newark"]})
    text = 'select name, count(*) as n from "my-flights" join airports on faa = origin group by name'
    found = select(text, tmp_path, **{"my-flights": flights, "airports": airports})
    assert found.to_pylist() == [{"name": "Newark", "n": 2}]
    assert select("select count(*) as n from input", tmp_path, first=flights, second=airports).to_pylist() == [{"n": 3}]


def test_values_pass_through_exactly(tmp_path: Path) -> None:
    table = pa.table(
        {
            "n": pa.array([2**53 + 1, None], pa.int64()),
            "u": pa.array([2**64 - 1, None], pa.uint64()),
            "d": pa.array([Decimal("12345678901234567890.123456789"), None], pa.decimal128(38, 9)),
            "t": pa.array([datetime(2013, 2, 8, 5, tzinfo=UTC), None], pa.timestamp("us", "America/New_York")),
            "day": pa.array([date(2013, 2, 8), None]),
            "s": ["é", None],
            "l": pa.array([[1, None], None], pa.list_(pa.int32())),
        }
    )
    assert select("from x", tmp_path, x=table).to_pylist() == table.to_pylist()


def test_times_are_in_utc(tmp_path: Path) -> None:
    table = pa.table({"t": pa.array([datetime(2013, 2, 8, 2, tzinfo=UTC)], pa.timestamp("us", "America/New_York"))})
    assert select("select cast(t as date) as day, hour(t) as hour from x", tmp_path, x=table).to_pylist() == [
        {"day": date(2013, 2, 8), "hour": 2}
    ]


def test_an_input_without_rows_keeps_its_columns(tmp_path: Path) -> None:
    empty = pa.table({"a": pa.array([], pa.int64()), "t": pa.array([], pa.timestamp("us", "UTC"))})
    found = select("select a, t, count(*) as n from x group by all", tmp_path, x=empty)
    assert (found.num_rows, [str(kind) for kind in found.schema.types]) == (0, ["int64", "timestamp[us, tz=UTC]", "int64"])


def test_the_order_of_the_rows_is_kept(tmp_path: Path) -> None:
    table = pa.table({"a": list(range(300_000))})
    assert select("select a from x where a % 2 = 0", tmp_path, x=table)["a"].to_pylist() == list(range(0, 300_000, 2))


def test_the_bound_query_of_the_context_goes_first(tmp_path: Path) -> None:
    stage = staged(pa.table({"day": [date(2013, 2, 8), date(2013, 2, 9)]}), tmp_path)
    context = context_in(tmp_path, queries={"query": Query(("select * from rows where day >= ", Bind("2013-02-09")))})
    with Transform(SqlOptions(query="unused {{ template }}")).apply({"rows": stage}, context) as reader:
        assert reader.read_all().to_pylist() == [{"day": date(2013, 2, 9)}]


def test_errors_and_options(tmp_path: Path) -> None:
    with pytest.raises(TransformFailed, match=r"step under_test: DuckDB refused the SQL: .*nothing"):
        select("select * from nothing", tmp_path, x=pa.table({"a": [1]}))
    for options in ({"query": ""}, {"query": "x", "memory_limit": "lots"}, {}):
        with pytest.raises(ValidationError):
            SqlOptions.model_validate(options)


def test_the_example_is_valid() -> None:
    pipeline = PipelineModel.model_validate(yaml.safe_load(Transform.example))
    step = next(step for step in pipeline.steps if step.kind == Transform.kind)
    assert "SELECT" in SqlOptions.model_validate(step.config).query


_MEASURED = """
import sys
from pathlib import Path
import pyarrow as pa
from dataflow_assets.transforms.sql import SqlOptions, Transform
from dataflow_assets_tests.staged import context_in, staged
folder = Path(sys.argv[1])
stage = staged(pa.table({"a": [1]}), folder)
text = "select i, hash(i) as h, 'some text ' || i as s from rows, range(3000000) r(i) order by h"
rows = 0
with Transform(SqlOptions(query=text, memory_limit="60MB")).apply({"rows": stage}, context_in(folder)) as reader:
    for batch in reader:
        rows += batch.num_rows
assert rows == 3_000_000
status = Path("/proc/self/status").read_text()  # unlike ru_maxrss it does not begin with the size of the parent
print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_memory_is_bounded_by_the_limit(tmp_path: Path) -> None:
    """Sorting 3 million rows (about 150 MB) at a limit of 60 MB, which spills into the scratch folder."""
    done = subprocess.run([sys.executable, "-c", _MEASURED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 330, "resident megabytes, of which the libraries are about 150"
