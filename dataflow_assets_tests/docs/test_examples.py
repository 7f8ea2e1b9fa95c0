"""What the pages show works: every pipeline can be planned, every example of an embedded plugin runs, Python code does what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from dataflow_assets import discovery
from dataflow_assets.cli.app import app
from dataflow_assets.execution.events import CheckEvaluated, StepFinished, WindowFailed
from dataflow_assets.plan.build import build_plan
from dataflow_assets.spec.load import load
from dataflow_assets.spec.models import ProjectModel
from dataflow_assets.spec.pools import PoolOptions
from dataflow_assets_tests.docs.example_projects import NOT_EMBEDDED, PREPARE, every_plugin, run_pipeline, write_project
from dataflow_assets_tests.docs.pages import Block, blocks


def _documents(block: Block) -> list[Any]:
    return [document for document in yaml.safe_load_all(block.text) if isinstance(document, dict)]


YAML_BLOCKS = blocks("yaml")
PIPELINES = [block for block in YAML_BLOCKS if any("steps" in document for document in _documents(block))]
PROJECTS = [block for block in YAML_BLOCKS if any("project_name" in document for document in _documents(block))]


@pytest.mark.parametrize("block", PIPELINES, ids=str)
def test_a_pipeline_that_is_shown_can_be_planned(block: Block, tmp_path: Path) -> None:
    folder = write_project(tmp_path, block.text)
    assert build_plan(load(folder)).pipelines


def test_most_pages_show_a_pipeline() -> None:
    assert len(PIPELINES) > 12
    assert len(PROJECTS) > 2


@pytest.mark.parametrize("block", PROJECTS, ids=str)
def test_a_project_file_that_is_shown_is_one(block: Block) -> None:
    for document in _documents(block):
        model = ProjectModel.model_validate(document)
        for connection in model.connections.values():
            values = {key: value for key, value in connection.items() if key not in {"type", *PoolOptions.model_fields}}
            if values.get("dsn"):
                values["dsn"] = "postgresql://host/database"
            if "env_var" in str(values.get("url")):
                values["url"] = "sqlite:///shop.sqlite"
            discovery.find("connectors", connection["type"]).Connection.model_validate(values)


@pytest.mark.parametrize("plugin", sorted(set(every_plugin()) - NOT_EMBEDDED), ids="/".join)
def test_the_example_of_a_plugin_runs(plugin: tuple[str, str], tmp_path: Path) -> None:
    family, kind = plugin
    folder = write_project(tmp_path, discovery.find(family, kind).example)
    PREPARE[plugin](folder)
    events = run_pipeline(folder)
    assert [event.error for event in events if isinstance(event, WindowFailed)] == []
    assert any(event.published and event.published.rows for event in events if isinstance(event, StepFinished))
    assert family != "checks" or any(isinstance(event, CheckEvaluated) for event in events)


def test_the_model_that_is_shown_fits_its_example(tmp_path: Path) -> None:
    folder = write_project(tmp_path, discovery.find("checks", "pandera").example)
    PREPARE["checks", "pandera"](folder)
    (model,) = blocks("python", page="docs/pandera.md")
    (folder / "models" / "flights.py").write_text(model.text)
    results = [event.result for event in run_pipeline(folder) if isinstance(event, CheckEvaluated)]
    assert [result.name for result in results if not result.passed] == []
    assert {"schema", "schema_origin_isin", "schema_flight_not_null", "schema_flight_time_hour_unique"} <= {item.name for item in results}


# -- docs/extending.md


def test_the_transform_of_one_file_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {}
    (code,) = (block for block in blocks("python", page="docs/extending.md") if "class Transform" in block.text)
    exec(compile(code.text, str(code), "exec", dont_inherit=True), names)
    found = discovery.find
    monkeypatch.setattr(discovery, "find", lambda family, kind: names["Transform"] if kind == "drop_duplicates" else found(family, kind))
    folder = write_project(tmp_path, names["Transform"].example)
    (folder / "data").mkdir()
    (folder / "data" / "orders.csv").write_text("id,n\n1,a\n2,b\n1,c\n")
    assert [event.error for event in run_pipeline(folder) if isinstance(event, WindowFailed)] == []
    assert (folder / "out.csv").read_text().splitlines() == ["id,n", "1,a", "2,b"]


# -- docs/python.md and docs/cli.md, in the project that `init` writes


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh project, run once."""
    folder = tmp_path_factory.mktemp("docs") / "shop"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DAGSTER_HOME", "DATAFLOW_PROJECT"):
            patch.delenv(name, raising=False)
        _dataflow("init", str(folder))
        _dataflow("--project", str(folder), "run", "--select", "orders")
    return folder


def _dataflow(*arguments: str) -> None:
    with pytest.raises(SystemExit) as stop:
        app.main(list(arguments))
    assert not stop.value.code


@pytest.fixture
def inside(shop: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project as the working directory."""
    monkeypatch.chdir(shop)
    for name in ("DAGSTER_HOME", "DATAFLOW_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    return shop


def test_the_python_that_is_shown_runs(inside: Path) -> None:
    names: dict[str, Any] = {"__name__": "shown"}
    made: list[dg.Definitions] = []
    for block in blocks("python", page="docs/python.md"):
        exec(compile(block.text, str(block), "exec", dont_inherit=True), names)
        if isinstance(defs := names.pop("defs", None), dg.Definitions):
            made.append(defs)
    assert len(made) == 3
    keys = [{spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()} for defs in made]
    assert "letter" in keys[0]
    assert keys[1] >= {"orders/read", "orders/tidy", "orders/rules", "orders/write"}
    assert [schedule.name for schedule in made[1].schedules or []] == ["orders_schedule"]
    assert "best_customers" in keys[2]
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            list(made[2].assets or []), instance=instance, resources=dict(made[2].resources or {}), selection=[names["best_customers"]]
        )
    assert result.success
    (made[2].resources or {})["warehouse"].connector.close()
    import duckdb

    with duckdb.connect(str(inside / "warehouse.duckdb"), read_only=True) as connection:
        assert connection.execute("select count(*) from best_customers").fetchall() == [(5,)]


def _keys_of_json() -> dict[str, set[str]]:
    import re

    from dataflow_assets_tests.docs.generate import ROOT

    section = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8").partition("## JSON")[2]
    rows = re.findall(r"^\| (`[^|]+`) \| ([^|]+) \|$", section, re.MULTILINE)
    return {verb: set(re.findall(r"`(\w+)`", keys)) for verbs, keys in rows for verb in re.findall(r"`([^`]+)`", verbs)}


@pytest.mark.parametrize("verb", sorted(set(_keys_of_json()) - {"init", "run"}))
def test_json_has_the_keys_that_are_told(verb: str, inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["orders"] if verb in {"show", "schema infer"} else []
    _dataflow(*verb.split(), *more, "--json")
    assert set(json.loads(capsys.readouterr().out)) == _keys_of_json()[verb]


def test_a_run_tells_its_keys(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _dataflow("run", "--select", "orders", "--json")
    assert set(json.loads(capsys.readouterr().out)) == _keys_of_json()["run"]
