"""The code location: load_project, the Component, `dataflow_assets.definitions`, and Dagster's own validation of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

import dataflow_assets
from dataflow_assets.errors import SpecError
from dataflow_assets.operations.component import ProjectComponent
from dataflow_assets.operations.load import load_project
from dataflow_assets.spec.builders import endpoint, pipeline, source, sql
from dataflow_assets.spec.builders import project as build_project
from dataflow_assets.spec.project import Project
from dataflow_assets_tests.assets import shop

BROKEN = "pipeline_name: broken\nsteps:\n  - id: read\n    type: source\n    source_tpye: csv\n"
UNPLANNABLE = "pipeline_name: lost\nsteps:\n  - id: read\n    type: source\n    source_type: no_such_kind\n"


def _keys(definitions: dg.Definitions) -> set[str]:
    return {"/".join(spec.key.path) for spec in definitions.resolve_all_asset_specs()}


def test_load_project_gives_everything(project: Path) -> None:
    text = shop.ORDERS + "schedule: windows\n"
    shop.write_shop(project, orders=text)
    definitions = load_project(project)
    assert _keys(definitions) >= {"orders/read", "orders/clean", "orders/publish", "report/write"}
    assert {job.name for job in definitions.jobs or []} == {"orders", "report"}
    assert {schedule.name for schedule in definitions.schedules or []} == {"orders_schedule"}
    definitions.get_repository_def().load_all_definitions()
    assert dataflow_assets.load_project is load_project


def _built(root: Path, *, below: str = "read") -> Project:
    """The same orders, written in Python."""
    steps = [
        source("read", "parquet", file_path="orders.parquet"),
        sql("clean", "select * from read where amount >= {{ var('least') }}", depends_on=below),
        endpoint("publish", "parquet", depends_on="clean", file_path="lake/orders"),
    ]
    windows = {"every": "day", "begin": "2024-03-01", "end": "2024-03-06"}
    orders = pipeline("orders", steps=steps, event_time_column="ordered_at", windows=windows, schedule="windows", variables={"least": 0})
    return build_project("shop", pipelines=[orders], root=root)


def test_a_project_built_in_python_runs_with_its_schedules(project: Path, instance: dg.DagsterInstance) -> None:
    definitions = load_project(_built(project), overrides={"least": 1_000_000})
    assert _keys(definitions) >= {"orders/read", "orders/clean", "orders/publish"}
    assert {schedule.name for schedule in definitions.schedules or []} == {"orders_schedule"}
    definitions.get_repository_def().load_all_definitions()
    result = definitions.resolve_job_def("orders").execute_in_process(instance=instance, tags=shop.RANGE)
    assert result.success
    assert _published(project) == 0, "the override is in effect"
    again = load_project(_built(project)).resolve_job_def("orders").execute_in_process(instance=instance, tags=shop.RANGE)
    assert again.success
    assert _published(project) > 0


def _published(root: Path) -> int:
    return sum(pq.read_metadata(path).num_rows for path in (root / "lake" / "orders").rglob("*.parquet"))


def test_a_wrong_pipeline_built_in_python_becomes_a_placeholder(project: Path) -> None:
    definitions = load_project(_built(project, below="raed"))
    spec = next(spec for spec in definitions.resolve_all_asset_specs() if spec.key.path == ["_load_errors", "orders"])
    assert Path(__file__).name in str(spec.description)
    assert "raed" in str(spec.description)


def test_a_broken_file_leaves_the_others_alone(project: Path) -> None:
    shop.write_shop(project, broken=BROKEN, lost=UNPLANNABLE)
    definitions = load_project(project)
    assert _keys(definitions) >= {"orders/read", "_load_errors/broken", "_load_errors/lost"}
    spec = next(spec for spec in definitions.resolve_all_asset_specs() if spec.key.path == ["_load_errors", "broken"])
    assert "broken.yml:5" in str(spec.description)
    definitions.get_repository_def().load_all_definitions()


def test_a_broken_project_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"dataflow_project\.yml"):
        load_project(tmp_path)


def test_sensors_are_part_of_the_code_location_and_stopped_unless_they_say_otherwise(project: Path) -> None:
    more = "sensors: [{type: files, status: running}, {type: freshness, max_age: 2h, every: 5min}]\n"
    shop.write_shop(project, orders=shop.ORDERS + more)
    repository = load_project(project).get_repository_def()
    files, freshness = (repository.get_sensor_def(f"orders_{kind}_sensor") for kind in ("files", "freshness"))
    assert (files.default_status, freshness.default_status) == (dg.DefaultSensorStatus.RUNNING, dg.DefaultSensorStatus.STOPPED)
    assert (files.minimum_interval_seconds, freshness.minimum_interval_seconds) == (30, 300)
    assert files.job_name == "orders"
    assert files.description == "New files of orders.read: asks for the windows concerned, at most every 30s."


def test_load_project_goes_together_with_other_definitions(project: Path, instance: dg.DagsterInstance) -> None:
    @dg.asset(deps=[dg.AssetKey(["orders", "publish"])])
    def mine() -> None: ...

    together = dg.Definitions.merge(load_project(project), dg.Definitions(assets=[mine]))
    assert together.resolve_asset_graph().get(dg.AssetKey("mine")).parent_keys == {dg.AssetKey(["orders", "publish"])}


# -- the Component


def test_the_component_is_a_project(project: Path) -> None:
    definitions = dg.build_defs_for_component(ProjectComponent(path=str(project)))
    assert _keys(definitions) >= {"orders/read", "report/write"}
    assert dataflow_assets.ProjectComponent is ProjectComponent


@pytest.mark.filterwarnings("ignore")  # the sandbox, and Dagster's own handling of defs.yaml, warn of themselves
def test_a_defs_yaml_finds_the_project_beside_it_and_renders_none_of_its_templates() -> None:
    from dagster.components.testing import create_defs_folder_sandbox

    templated = shop.ORDERS.replace("from read", "from read where id >= {{ var('smallest') }}") + "variables: {smallest: 0}\n"
    written = {"type": "dataflow_assets.ProjectComponent", "attributes": {"vars": {"smallest": 3}}}
    with create_defs_folder_sandbox() as sandbox:
        path = Path(sandbox.scaffold_component(component_cls=ProjectComponent, defs_path="shop", defs_yaml_contents=written))
        assert "type: dataflow_assets.ProjectComponent" in (path / "defs.yaml").read_text()
        shop.write_shop(path, orders=templated)
        with sandbox.load_component_and_build_defs(defs_path="shop") as (component, definitions):
            assert isinstance(component, ProjectComponent)
            assert component.vars == {"smallest": 3}
            assert _keys(definitions) >= {"orders/read", "report/write"}


# -- as Dagster loads it


def _dagster(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in {"DAGSTER_HOME", "DATAFLOW_PROJECT"}}
    command = [sys.executable, "-W", "ignore", "-m", *arguments]
    return subprocess.run(command, cwd=cwd, env={**inherited, **environment}, capture_output=True, text=True, check=False)


def test_validation_by_dagster_passes_and_fails_by_exit_code(project: Path) -> None:
    command = ["dagster", "definitions", "validate", "-m", "dataflow_assets.definitions"]
    good = _dagster(*command, cwd=project)
    assert good.returncode == 0, good.stderr
    shop.write_shop(project, broken=BROKEN)
    bad = _dagster(*command, cwd=project)
    assert bad.returncode == 1
    assert "broken.yml:5" in bad.stdout + bad.stderr


SHOW = """
from dataflow_assets.definitions import defs
print(sorted("/".join(spec.key.path) for spec in defs().resolve_all_asset_specs()))
"""


def test_the_project_is_named_by_the_environment_or_found_from_the_folder(project: Path, tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SHOW], cwd=project / "pipelines", capture_output=True, text=True, check=True
    ).stdout
    assert "orders/publish" in found
    environment = {**os.environ, "DATAFLOW_PROJECT": str(project)}
    named = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SHOW], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert named == found
