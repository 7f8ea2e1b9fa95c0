"""What is shown beside an asset is legal, short and masked, whatever the data."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets.assets.metadata import code_reference, evaluated, markdown_table, materialized
from dataflow_assets.errors import Place
from dataflow_assets.execution.events import StepFinished
from dataflow_assets.protocols import CheckResult, Picture
from dataflow_assets.secrets import register_secret
from dataflow_assets.tables import Published, SchemaChange
from dataflow_assets_tests.assets.test_build import pipeline

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.decimals(), st.datetimes(), st.lists(st.integers())
)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.dictionaries(st.text(), VALUES, max_size=4), max_size=4))
def test_any_offending_row_can_be_shown(rows: list[dict[str, object]]) -> None:
    result = CheckResult(
        "c", False, checked=10, failed=len(rows), samples=tuple(rows), metadata={"rows": rows, "none": None, "nan": math.nan}
    )
    shown = evaluated(result, window=None)
    evaluation = dg.AssetCheckEvaluation(asset_key=dg.AssetKey("a"), check_name="c", passed=False, metadata=shown)
    assert dg.deserialize_value(dg.serialize_value(evaluation), dg.AssetCheckEvaluation) == evaluation


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.dictionaries(st.text(min_size=1), VALUES, min_size=1, max_size=4), min_size=1, max_size=5))
def test_a_preview_is_one_line_a_row(rows: list[dict[str, object]]) -> None:
    lines = markdown_table(rows).split("\n")
    assert len(lines) == len(rows) + 2
    assert all(line.startswith("|") and line.endswith("|") for line in lines)


def test_cells_are_escaped_and_cut() -> None:
    text = markdown_table([{"a|b": "x|y\nz <script>", "long": "q" * 500}])
    assert "a\\|b" in text
    assert "x\\|y z &lt;script>" in text
    assert "q" * 79 + "…" in text
    assert "q" * 80 not in text


def test_a_picture_is_an_image_and_rows_are_a_table_and_marks_are_not_shown() -> None:
    metadata = {"picture": Picture("<svg/>", "rows [x]"), "by_shop": [{"shop": "north", "score": 1.5}]}
    metrics = {"rows": 3.0, "rows!flagged": 1.0, "rows[north]": 2.0}
    shown = evaluated(CheckResult("c", True, metrics=metrics, metadata=metadata), window=None)
    assert shown["picture"] == dg.MetadataValue.md("![rows [x]](data:image/svg+xml;base64,PHN2Zy8+)")
    assert [record.data for record in shown["by_shop"].records] == [{"shop": "north", "score": 1.5}]
    assert [name for name in shown if name.startswith("metric/")] == ["metric/rows"]


def test_whole_numbers_too_large_for_a_browser_stay_exact() -> None:
    shown = evaluated(CheckResult("c", True, metrics={"big": 2**60, "inf": math.inf}), window=None)  # type: ignore[dict-item]
    assert shown["metric/big"] == str(2**60)
    assert shown["metric/inf"] == "inf"


def test_registered_secrets_are_masked() -> None:
    register_secret("s3cret-value-in-a-row")
    result = CheckResult("c", False, samples=({"note": "is s3cret-value-in-a-row"},), metadata={"m": "s3cret-value-in-a-row"})
    assert "s3cret-value-in-a-row" not in str(evaluated(result, window=None))
    assert "s3cret-value-in-a-row" not in markdown_table([{"a": "s3cret-value-in-a-row"}])


SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), ("price", pa.decimal128(10, 2))])


@pytest.mark.parametrize("published", [None, Published(2, 4, deleted=1, target_rows=2, already=True, note="done before")])
def test_a_materialization_shows_what_happened(published: Published | None) -> None:
    plan = pipeline("orders")
    event = StepFinished("all", "s2", 2, 64, 0.5, "2:ab", SCHEMA, True, published, ({"id": 1, "price": Decimal("1.50")},), {"share": 0.25})
    shown = materialized(event, plan.by_id["s2"], window=None, inputs=[dg.AssetKey(["orders", "s1"])])
    assert shown["resumed"] is True
    assert shown["metric/share"] == 0.25
    assert [(c.name, c.type, c.constraints.nullable) for c in shown["dagster/column_schema"].columns] == [
        ("id", "int64", False),
        ("price", "decimal128(10, 2)", True),
    ]
    lineage = shown["dagster/column_lineage"].deps_by_column
    assert lineage["id"] == [dg.TableColumnDep(asset_key=dg.AssetKey(["orders", "s1"]), column_name="id")]
    assert ("generation" in shown) == (published is not None)
    if published:
        assert (shown["generation"], shown["rows_replaced"], shown["note"]) == (4, 1, "done before")
    dg.AssetMaterialization("a", metadata=shown)


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_the_code_reference_is_absolute(tmp_path: Path) -> None:
    found = code_reference(Place("pipelines/a.yml", 0), tmp_path, "a.b")["dagster/code_references"].code_references[0]
    assert (found.file_path, found.line_number) == (str(tmp_path / "pipelines/a.yml"), 1)


def test_an_sql_transform_shows_from_which_columns_it_makes_its_own() -> None:
    from dataclasses import replace

    plan = pipeline("orders")
    query = "select a.id, b.name as who, a.price * {{ var('rate', 2) }} as total from s1 a join other b on a.id = b.id"
    step = replace(plan.by_id["s2"], role="transform", kind="sql", inputs=("s1", "other"), config={"query": query})
    keys = [dg.AssetKey(["orders", "s1"]), dg.AssetKey(["orders", "other"])]
    event = StepFinished("all", "s2", 2, 64, 0.5, "2:ab", SCHEMA)
    lineage = materialized(event, step, window=None, inputs=keys)["dagster/column_lineage"].deps_by_column
    assert {name: [(dep.asset_key.path[-1], dep.column_name) for dep in deps] for name, deps in lineage.items()} == {
        "id": [("s1", "id")],
        "who": [("other", "name")],
        "total": [("s1", "price")],
    }


def test_what_a_schema_policy_did_is_shown_and_the_columns_are_those_of_the_target() -> None:
    changes = (SchemaChange("discarded", "price", "mart.orders", "decimal"), SchemaChange("added", "co|upon", "mart.orders", after="text"))
    published = Published(2, 4, schema_changes=changes)
    event = StepFinished("all", "s2", 2, 64, 0.5, "2:ab", SCHEMA, False, published)
    shown = materialized(event, pipeline("orders").by_id["s2"], window=None, inputs=[])
    assert str(shown["schema_changes"].value).count("\n- ") == 1
    assert "'co\\|upon' (text) was added to mart.orders (evolve)" in str(shown["schema_changes"].value)
    assert [column.name for column in shown["dagster/column_schema"].columns] == ["id"]
