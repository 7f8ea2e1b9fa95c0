"""Pipelines in Python are the pipelines of YAML, and mistakes point at the call."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

import pytest

from dataflow_assets.errors import SpecError
from dataflow_assets.spec.builders import check, contract, endpoint, pipeline, project, source, sql, transform, validator
from dataflow_assets.spec.load import load

YAML = """
pipeline_name: orders
tags: [core]
description: Orders by day
depends_on: raw
variables: {a: 1}
event_time_column: created_at
windows: {every: day, begin: 2024-01-01}
schedule: {cron: ["@daily", 0 18 * * 1-5], timezone: Europe/Berlin, catch_up: latest, paused_until: 2026-12-01, blackout: holidays}
automation: on_missing
steps:
  - {id: read, type: source, source_type: postgres, connection: shop, config: {table: orders}, checks: [{column: id, not_null: true}]}
  - {id: joined, type: processor, processor_type: sql, depends_on: [read], config: {query: "select {{ a }}"}, description: d}
  - {id: tidy, type: processor, processor_type: python, depends_on: joined, config: {function: "m:f"}}
  - {id: rules, type: processor, processor_type: validator, depends_on: tidy, config: {checks: [{column: id, unique: true}]}}
  - {id: odd, type: processor, processor_type: mad_anomaly_detector, depends_on: rules, config: {n_sigma: 4}}
  - id: write
    type: endpoint
    endpoint_type: duckdb
    depends_on: [odd]
    connection: warehouse
    config: {table: orders, mode: upsert, upsert_keys: [id]}
    asset_key: [a, b]
    tags: [x]
"""


def built():
    return pipeline(
        "orders",
        tags=["core"],
        description="Orders by day",
        depends_on="raw",
        variables={"a": 1},
        event_time_column="created_at",
        windows={"every": "day", "begin": date(2024, 1, 1)},
        schedule={
            "cron": ["@daily", "0 18 * * 1-5"],
            "timezone": "Europe/Berlin",
            "catch_up": "latest",
            "paused_until": date(2026, 12, 1),
            "blackout": ["holidays"],
        },
        automation={"when": ["on_missing"]},
        steps=[
            source("read", "postgres", connection="shop", table="orders", checks=[{"column": "id", "not_null": True}]),
            sql("joined", "select {{ a }}", depends_on="read", description="d"),
            transform("tidy", "python", depends_on="joined", function="m:f"),
            validator("rules", depends_on="tidy", checks=[{"column": "id", "unique": True}]),
            check("odd", "mad_anomaly_detector", depends_on="rules", n_sigma=4),
            endpoint(
                "write",
                "duckdb",
                depends_on=["odd"],
                connection="warehouse",
                table="orders",
                mode="upsert",
                upsert_keys=["id"],
                asset_key=["a", "b"],
                tags=["x"],
            ),
        ],
    )


def test_both_languages_give_the_same_model(folder):
    folder.write("pipelines/orders.yml", YAML)
    loaded = load(folder.root)
    assert loaded.failures == ()
    assert loaded.pipelines[0].model == built().model


def test_places_are_those_of_the_calls():
    made = built()
    lines = Path(__file__).read_text().splitlines()
    assert made.places.at(()).file == __file__
    assert "pipeline(" in lines[made.places.at(()).line - 1]
    assert 'sql("joined"' in lines[made.places.at(("steps", 1)).line - 1]
    assert made.places.at(("steps", 1, "config", "query")).line == made.places.at(("steps", 1)).line


def test_a_project(tmp_path):
    (tmp_path / ".env").write_text("BUILDER_A=1\n")
    days = {"holidays": [date(2026, 12, 25), "2026-12-24..2027-01-02"], "nights": {"daily": "22:00-06:00"}}
    made = project("shop", pipelines=[built()], root=tmp_path, connections={"shop": {"type": "postgres"}}, vars={"x": 1}, calendars=days)
    assert made.model.calendars["holidays"].dates == ["2026-12-25", "2026-12-24..2027-01-02"]
    assert made.root == tmp_path
    assert made.model.project_name == "shop"
    assert made.environment["BUILDER_A"] == "1"
    assert project("here").root == Path(__file__).parent


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: source("1x", "csv"), "'1x' is not a step id"),
        (lambda: source("x"), None),
        (lambda: pipeline("p", steps=[source("x")]), "step 'x' does not say which source it is"),
        (lambda: pipeline("p", steps=[], tagz=["a"]), "unknown key 'tagz' in a pipeline"),
        (lambda: pipeline("p", steps=[], windows={"every": "dya"}), "'dya' is not a cadence"),
        (lambda: project("p", connection={}), "unknown key 'connection' in the project file"),
        (lambda: project("p", pipelines=[built(), built()]), "the pipeline name 'orders' is also used at"),
    ],
)
def test_mistakes_point_at_the_call(build, message):
    if message is None:
        build()
        return
    with pytest.raises(SpecError) as caught:
        build()
    shown = str(caught.value)
    assert message in shown
    assert Path(__file__).name in shown
    assert "\n  | " in shown


CONTRACT = """
contract: promise
dataset: orders/write
version: 2
owner: team:sales
mode: strict
columns:
  id: {type: bigint, nullable: false, unique: true}
  note: text
  rest:
rules: [{check: row_count, min_rows: 1}]
"""


def test_a_contract_in_python_is_that_of_yaml(tmp_path: Path):
    (tmp_path / "dataflow_project.yml").write_text("project_name: shop\n")
    for folder, text in (("pipelines", YAML), ("contracts", CONTRACT)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "orders.yml").write_text(text)
    promise = contract(
        "promise",
        dataset="orders/write",
        version=2,
        owner="team:sales",
        mode="strict",
        columns={"id": {"type": "bigint", "nullable": False, "unique": True}, "note": "text", "rest": None},
        rules=[{"check": "row_count", "min_rows": 1}],
    )
    made = project("shop", pipelines=[built()], contracts=[promise], root=tmp_path)
    assert [item.model for item in load(tmp_path).contracts] == [item.model for item in made.contracts]


def test_mistakes_of_a_contract_point_at_the_call():
    with pytest.raises(SpecError) as refused:
        contract("promise", dataset="orders", columns={"id": "bigitn"})
    (problem,) = refused.value.problems
    assert problem.place.file == __file__
    assert "did you mean 'bigint'?" in problem.message
    twice = [contract("promise", dataset="orders", columns={"id": "int"}) for _ in range(2)]
    with pytest.raises(SpecError, match="the contract name 'promise' is also used"):
        project("shop", contracts=twice)


def is_good(rows):
    return rows["id"] > 0


def test_a_rule_takes_a_function_itself():
    rules = [{"function": is_good, "kwargs": {}}, {"column": "id", "not_null": True}]
    named = [{"function": f"{__name__}:is_good", "kwargs": {}}, {"column": "id", "not_null": True}]
    assert source("read", "csv", checks=rules, file_path="x").model.checks == named
    assert validator("valid", depends_on="read", checks=rules).model.config == {"checks": named}
    assert rules[0]["function"] is is_good, "what was given is left alone"


def test_a_function_of_the_running_script_is_named_by_its_file(monkeypatch, tmp_path):
    main = type(sys)("__main__")
    main.__file__ = str(tmp_path / "script.py")
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(is_good, "__module__", "__main__")
    assert source("read", "csv", checks=[{"function": is_good}]).model.checks == [{"function": f"{tmp_path / 'script.py'}:is_good"}]


def test_a_rule_of_a_contract_stays_with_its_dataset():
    with pytest.raises(SpecError, match="the rule about shop looks at another dataset"):
        contract("promise", dataset="orders", columns={"shop": {"type": "int", "to": {"step": "shops", "column": "id"}}})
