"""The schemas accept what the loader accepts and refuse what it refuses."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft7Validator

from dataflow_assets import discovery
from dataflow_assets.spec import yaml
from dataflow_assets.spec.json_schema import contract_schema, data_test_schema, pipeline_schema, project_schema

PIPELINE = """
pipeline_name: orders
tags:
depends_on: raw
windows: {batch_size: day, begin: 2024-01-01}
steps:
  - id: read
    type: source
    source_type: postgresql
    name: shop
    config: {query: "select {{ a }}", columns: "{{ columns }}"}
  - id: check
    type: check
    kind: validator
    depends_on: read
    config: {row_count_min: "{{ smallest }}", required_columns: [a]}
  - id: write
    type: endpoint
    endpoint_type: postgres
    connection: shop
    depends_on: [check]
    config:
      table: t
      mode: upsert
      upsert_keys: id
      auto_create: "{{ create }}"
      schema: {a: int}
"""


def plain(text):
    """As an editor sees it: dates are text."""
    return json.loads(json.dumps(yaml.parse(text, "p.yml").documents[0].data, default=str))


def errors(schema, value):
    return sorted(f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in Draft7Validator(schema).iter_errors(value))


@pytest.fixture(scope="module")
def pipeline():
    return pipeline_schema()


@pytest.fixture(scope="module")
def project():
    return project_schema()


def test_the_schemas_are_schemas(pipeline, project):
    Draft7Validator.check_schema(pipeline)
    Draft7Validator.check_schema(project)
    json.dumps([pipeline, project])


def test_a_good_pipeline_passes(pipeline):
    assert errors(pipeline, plain(PIPELINE)) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("tags:\n", "taggs: x\n", "'taggs' was unexpected"),
        ("type: check", "type: chek", "'chek' is not one of"),
        ("kind: validator\n", "processor_type: validatr\n", "'validatr' is not one of"),
        ("required_columns: [a]", "required_colums: [a]", "'required_colums' was unexpected"),
        ('"{{ smallest }}"', "many", "steps.1.config.row_count_min"),
        ("table: t\n", "tabel: t\n", "'tabel' was unexpected"),
        ("mode: upsert", "mode: upsrt", "steps.2.config.mode"),
        ("  - id: read\n    type", "  - type", "'id' is a required property"),
        ("batch_size: day, ", "", "windows: "),
    ],
)
def test_a_bad_pipeline_does_not(pipeline, old, new, expected):
    assert old in PIPELINE
    found = errors(pipeline, plain(PIPELINE.replace(old, new)))
    assert any(expected in error for error in found), found


def test_projects(project):
    good = (
        "name: shop\nvars:\nconnections:\n  pg: {type: postgresql, port: '${PORT:-5432}', password: \"{{ env_var('P') }}\"}\nsources: {}\n"
    )
    assert errors(project, plain(good)) == []
    assert "'hots' was unexpected" in errors(project, plain("connections:\n  pg: {type: postgres, hots: x}\n"))[0]
    assert errors(project, plain("connections:\n  pg: {host: x}\n")) == ["connections.pg: 'type' is a required property"]
    assert "'nam' was unexpected" in errors(project, {"nam": 1})[0]


@pytest.mark.parametrize("family", ["connectors", "transforms", "checks"])
def test_every_plugin_that_loads_is_in_the_schema(pipeline, family):
    text = json.dumps(pipeline)
    assert all(f'"{kind}"' in text for kind in discovery.kinds(family) if _loads(family, kind))


def _loads(family, kind):
    try:
        discovery.find(family, kind)
    except (ImportError, AttributeError):
        return False
    return True


def test_examples_of_plugins_pass(pipeline):
    for family in ("connectors", "transforms", "checks"):
        for kind in discovery.kinds(family):
            if _loads(family, kind) and (example := getattr(discovery.find(family, kind), "example", "")):
                for document in yaml.parse(example, kind).documents:
                    data = json.loads(json.dumps(document.data, default=str))
                    if "steps" in data:
                        assert errors(pipeline, data) == [], kind


def test_the_rules_of_a_step_are_those_of_a_validator(pipeline):
    rules = [
        {"column": "id", "not_null": True, "max_failed": "1%", "where": "{{ which }}"},
        {"column": "customer", "to": {"step": "customers", "column": "id"}},
        {"anomaly": {"metric": "row_count"}},
    ]
    document = {"steps": [{"id": "a", "type": "source", "source_type": "csv", "checks": rules}]}
    assert errors(pipeline, document) == []
    for wrong in ({"column": "id", "notnull": True}, {"column": "id", "monotonic": "up"}, {"column": "a", "to": {"stp": "b"}}):
        assert errors(pipeline, {"steps": [{"id": "a", "type": "source", "source_type": "csv", "checks": [wrong]}]}), wrong


@pytest.mark.parametrize(
    ("text", "ok"),
    [
        ("test: a\npipeline: p\nwindow: 2024-01-01\ngiven: {s: [{x: 1}]}\nexpect: [{x: 1}]", True),
        (
            "name: a\npipeline: p\nwindow: [2024-01-01]\ngiven: {s: {csv: a.csv, columns: {x: int64}}}\nexpect: {row_count: 0}",
            True,
        ),
        (
            "test: a\npipeline: p\nvars: {x: 1}\nexisting: {sql: select 1}\nexpect: {columns: [x], error: x}\nproperties: [late]",
            True,
        ),
        ("test: a\npipeline: p", False),
        ("test: a\npipeline: p\nexpect: {row: []}", False),
        ("test: a\npipeline: p\nexpect: []\nproperties: [never]", False),
        ("test: a\npipeline: p\ngiven: [1]\nexpect: []", False),
    ],
)
def test_a_test_is_accepted_as_the_loader_does(text, ok):
    assert (errors(data_test_schema(), plain(text)) == []) is ok


CONTRACT = """
contract: orders
dataset: sales/out
owner:
columns:
  id: {type: bigint, nullable: false, unique: true, rules: [{max_value: 9, severity: warn}]}
  note: text
  rest:
rules: [{check: row_count, min_rows: 1}]
"""


@pytest.mark.parametrize(
    ("old", "new", "is_good"),
    [
        ("note: text", "note: text", True),
        ("note: text", "note: {dtype: text, min_length: 1}", True),
        ("note: text", "note: {typ: text}", False),
        ("note: text", "note: {type: text, nullable: perhaps}", False),
        ("note: text", "note: 3", False),
        ("max_value: 9", "max_valu: 9", False),
        ("dataset: sales/out", "table: raw.orders", True),
        ("dataset: sales/out", "", False),
        ("dataset: sales/out", "dataset: sales/out\ntable: raw.orders", False),
        ("owner:", "mode: strcit", False),
        ("owner:", "ower: team:a", False),
        ("min_rows: 1", "min_rows: few", False),
    ],
)
def test_the_schema_of_contracts(old, new, is_good):
    assert (errors(contract_schema(), plain(CONTRACT.replace(old, new, 1))) == []) is is_good
