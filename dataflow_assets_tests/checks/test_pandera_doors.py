"""A pandera model through every door: the key `schema:` of a step, a check step, Python, `dataflow validate`, a run, Dagster."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dataflow_assets.errors import PlanError
from dataflow_assets.execution.events import CheckEvaluated, Event, StepFinished, WindowFailed
from dataflow_assets.execution.rehearsal import rehearse
from dataflow_assets.execution.run import RunRequest, run
from dataflow_assets.plan.build import build_plan
from dataflow_assets.spec.builders import check, endpoint, pipeline, project, source
from dataflow_assets.spec.load import load
from dataflow_assets.spec.project import Project

MODEL = """
import pandera.polars as pa


class Orders(pa.DataFrameModel):
    id: int = pa.Field(ge=0, unique=True)
    state: str = pa.Field(isin=["open", "closed"])
"""
PIPELINE = """
pipeline_name: orders
steps:
  - id: read
    type: source
    source_type: csv
    config: {file_path: orders.csv}
    schema: models.py:Orders
    checks:
      - {column: id, not_null: true}
  - id: strict
    type: check
    kind: pandera
    depends_on: [read]
    config: {schema: "models.py:Orders", severity: warn, name: again}
  - id: kept
    type: endpoint
    endpoint_type: parquet
    depends_on: [strict]
    config: {file_path: out.parquet}
    schema: {schema: "models.py:Orders", blocking: false}
"""
PARTS = ["", "_id_not_null", "_id_unique", "_id_ge", "_state_not_null", "_state_isin"]


def made(folder: Path, text: str = PIPELINE, model: str = MODEL, rows: str = "1,open\n2,lost\n") -> Path:
    (folder / "pipelines").mkdir(exist_ok=True)
    (folder / "dataflow_project.yml").write_text("project_name: shop\n")
    (folder / "pipelines" / "orders.yml").write_text(text)
    (folder / "models.py").write_text(model)
    (folder / "orders.csv").write_text("id,state\n" + rows)
    return folder


def ran(loaded: Project) -> list[Event]:
    (planned,) = build_plan(loaded).pipelines
    return list(run(RunRequest(loaded, planned, (None,), "try", datetime(2024, 1, 1, tzinfo=UTC))))


def failed(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.step, event.result.name) for event in events if isinstance(event, CheckEvaluated) and not event.result.passed]


def test_every_place_in_yaml_makes_its_asset_checks(tmp_path: Path) -> None:
    (planned,) = build_plan(load(made(tmp_path))).pipelines
    names = {step.id: [name for plan in step.checks for name in plan.names] for step in planned.steps}
    assert names == {
        "read": ["id_not_null", *(f"schema{part}" for part in PARTS)],
        "strict": [f"again{part}" for part in PARTS],
        "kept": [f"schema{part}" for part in PARTS],
    }
    blocking = {step.id: {promise.blocking for plan in step.checks for promise in plan.promises} for step in planned.steps}
    assert blocking == {"read": {True}, "strict": {False}, "kept": {False}}


def test_a_failed_row_keeps_the_window_from_being_published(tmp_path: Path) -> None:
    events = ran(load(made(tmp_path)))
    (lost,) = [event for event in events if isinstance(event, WindowFailed)]
    assert "state: 1 of 2 rows (50 %) break is_in" in str(lost.error).replace("isin", "is_in")
    assert failed(events) == [("read", "schema_state_isin")]
    assert not (tmp_path / "out.parquet").exists()
    (tmp_path / "models.py").write_text(MODEL.replace('"closed"', '"closed", "lost"'))
    again = ran(load(tmp_path))
    assert failed(again) == []
    assert any(event.published for event in again if isinstance(event, StepFinished))


def test_warnings_and_what_does_not_block_are_published(tmp_path: Path) -> None:
    text = PIPELINE.replace("    schema: models.py:Orders\n", "")
    events = ran(load(made(tmp_path, text)))
    assert failed(events) == [("strict", "again_state_isin"), ("kept", "schema_state_isin")]
    assert (tmp_path / "out.parquet").exists()


def test_mistakes_are_placed_where_they_are_written(tmp_path: Path) -> None:
    text = PIPELINE.replace("schema: models.py:Orders\n", "schema: model.py:Orders\n").replace('"models.py:Orders", s', '"models:Order", s')
    loaded = load(made(tmp_path, text.replace('"models.py:Orders", b', '"models.py:Other", b')))
    problems = rehearse(loaded, build_plan(loaded))["orders"]
    assert [(item.place.line, item.place.column, item.message, item.hint) for item in problems] == [
        (8, 13, "step 'read': there is no file model.py", f"it is relative to {tmp_path}"),
        (15, 22, "step 'strict': models.py has no model 'Order'", "did you mean Orders?"),
        (21, 22, "step 'kept': models.py has no model 'Other'", "it defines Orders, pa"),
    ]


@pytest.mark.parametrize(
    ("written", "line", "message"),
    [
        ("schema: models.py", 8, "'models.py' names no model"),
        ("schema: {schema: 'models.py:Orders', sverity: warn}", 8, "unknown key 'sverity'"),
        ("schema: {severity: warn}", 8, "'schema' is missing"),
        ("schema: {schema: 'models.py:Orders', max_failed: half}", 8, "'half' is no number of rows"),
        ("schema: '{{ nowhere }}'", 8, "nowhere"),
        ("schema: {schema: 'models.py:Orders', on_failure: quarantine, severity: warn}", 8, "`severity: warn` publishes the rows"),
    ],
)
def test_options_that_do_not_fit_are_refused(written: str, line: int, message: str, tmp_path: Path) -> None:
    text = PIPELINE.replace("schema: models.py:Orders\n    checks", f"{written}\n    checks")
    with pytest.raises(PlanError) as caught:
        build_plan(load(made(tmp_path, text)))
    (problem,) = caught.value.problems
    assert problem.place.line == line
    assert message in problem.message


def test_rows_that_break_a_model_are_kept_beside_the_others(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    text = """
pipeline_name: orders
steps:
  - id: read
    type: source
    source_type: csv
    config: {file_path: orders.csv}
    schema: {schema: "models.py:Orders", on_failure: quarantine}
    quarantine: {max_share: 60%}
  - id: kept
    type: endpoint
    endpoint_type: parquet
    depends_on: [read]
    config: {file_path: out.parquet}
"""
    events = ran(load(made(tmp_path, text, rows="1,open\n2,lost\n-3,open\n4,lost\n5,closed\n")))
    assert not [event for event in events if isinstance(event, WindowFailed)]
    assert pq.read_table(tmp_path / "out.parquet")["id"].to_pylist() == [1, 5]
    aside = pq.read_table(tmp_path / "out__quarantine.parquet").select(["rules", "column_name", "value"]).to_pylist()
    assert sorted(tuple(row.values()) for row in aside) == [
        ("schema_id_ge", "id", "-3"),
        ("schema_state_isin", "state", "lost"),
        ("schema_state_isin", "state", "lost"),
    ]


def test_a_changed_model_is_a_changed_check_step_and_no_other(tmp_path: Path) -> None:
    (before,) = build_plan(load(made(tmp_path))).pipelines
    (tmp_path / "models.py").write_text(MODEL + "# changed\n")
    (after,) = build_plan(load(tmp_path)).pipelines
    changed = [step.id for step in before.steps if step.fingerprint != after.by_id[step.id].fingerprint]
    assert changed == ["strict"]


def test_one_model_in_two_places_of_a_step_needs_two_names(tmp_path: Path) -> None:
    text = PIPELINE.replace(", name: again}\n", "}\n    schema: models.py:Orders\n")
    with pytest.raises(PlanError, match="step 'strict' has two checks named 'schema'"):
        build_plan(load(made(tmp_path, text)))


def test_the_name_of_a_model_may_be_a_variable(tmp_path: Path) -> None:
    text = PIPELINE.replace("schema: models.py:Orders\n", "schema: \"{{ var('model') }}\"\n") + "variables: {model: 'models.py:Orders'}\n"
    loaded = load(made(tmp_path, text))
    assert rehearse(loaded, build_plan(loaded)) == {}
    (planned,) = build_plan(loaded).pipelines
    assert "schema_state_isin" in planned.by_id["read"].checks[1].names
    assert failed(ran(loaded)) == [("read", "schema_state_isin")]


def test_the_builders_take_a_model_by_name_by_class_or_with_options(tmp_path: Path) -> None:
    made(tmp_path)
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(textwrap.dedent(MODEL), space)
    built = pipeline(
        "orders",
        steps=[
            source("read", "csv", file_path="orders.csv", schema="models.py:Orders"),
            check("strict", "pandera", depends_on="read", schema="models.py:Orders", severity="warn"),
            endpoint(
                "kept", "parquet", depends_on="strict", file_path="out.parquet", schema={"schema": "models.py:Orders", "name": "last"}
            ),
        ],
    )
    models = {step.id: (step.pandera, step.config.get("schema")) for step in built.model.steps}
    assert models == {
        "read": ("models.py:Orders", None),
        "strict": (None, "models.py:Orders"),
        "kept": ({"schema": "models.py:Orders", "name": "last"}, None),
    }
    assert failed(ran(project("shop", pipelines=[built], root=tmp_path))) == [("read", "schema_state_isin")]


def test_a_class_is_named_by_its_module_or_by_the_script_that_defines_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    from dataflow_assets_tests.checks import test_pandera_doors

    class Orders:
        to_schema = None

    Orders.__qualname__ = "Orders"
    assert source("a", "csv", schema=Orders).model.pandera == f"{__name__}:Orders"
    Orders.__module__ = "__main__"
    script = type(sys)("__main__")
    script.__file__ = str(tmp_path / "script.py")
    monkeypatch.setitem(sys.modules, "__main__", script)
    assert source("a", "csv", schema=Orders).model.pandera == f"{tmp_path / 'script.py'}:Orders"
    columns = endpoint("a", "duckdb", schema={"id": "BIGINT", "schema": "TEXT"}).model
    assert (columns.pandera, columns.config) == (None, {"schema": {"id": "BIGINT", "schema": "TEXT"}})
    assert test_pandera_doors.__name__ == __name__


def test_dagster_has_a_check_for_each_part(tmp_path: Path) -> None:
    from dataflow_assets.operations.load import load_project

    definitions = load_project(made(tmp_path))
    keys = definitions.resolve_asset_graph().asset_check_keys
    assert {key.name for key in keys if key.asset_key.path[-1] == "read"} == {"id_not_null", *(f"schema{part}" for part in PARTS)}


def test_planning_imports_no_pandera(tmp_path: Path) -> None:
    import subprocess
    import sys

    made(tmp_path)
    code = (
        "import sys; from pathlib import Path; from dataflow_assets.spec.load import load;"
        "from dataflow_assets.plan.build import build_plan;"
        "from dataflow_assets.execution.rehearsal import rehearse;"
        f"project = load(Path({str(tmp_path)!r})); rehearse(project, build_plan(project));"
        "print(sorted({'pandera', 'pandas', 'polars'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
