"""The verbs that only look: plan, validate, list, deps, show, status, schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dataflow_assets.cli.deps import tree
from dataflow_assets_tests.cli.conftest import Answer, ProjectFolder, windowed

Call = Callable[..., Answer]


def _named(items: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in items}


def test_validate_finds_every_problem_in_one_pass(call: Call, project: ProjectFolder) -> None:
    assert call("validate", "--project", project.root).code == 0
    project.pipeline("bad", "pipeline_name: bad\nsteps:\n  - id: x\n    type: sourc\n    nonsense: 1\n")
    project.pipeline("worse", "pipeline_name: [\n")
    answer = call("validate", "--project", project.root)
    assert answer.code == 2
    for place in ("bad.yml:4:", "bad.yml:5:", "worse.yml:"):
        assert place in answer.out
    assert "3 of 5 pipelines are sound" in answer.out
    document = call("validate", "--project", project.root, "--json").json
    assert document["ok"] is False
    assert {(problem["file"].rsplit("/", 1)[1], problem["line"]) for problem in document["problems"]} >= {("bad.yml", 4), ("bad.yml", 5)}
    assert _named(document["pipelines"])["first"]["ok"] is True


CODE = """\
pipeline_name: coded
steps:
  - {id: read, type: source, source_type: csv, config: {file_path: landing/events.csv}}
  - id: selected
    type: processor
    processor_type: sql
    depends_on: [read]
    config:
      query: SELEC 1
  - {id: two, type: processor, processor_type: sql, depends_on: [read], config: {query: "SELECT 1 AS a; SELECT 2 AS a"}}
  - {id: gone, type: processor, processor_type: python, depends_on: [read], config: {file: gone.py, function: clean}}
  - {id: misspelt, type: processor, processor_type: python, depends_on: [read], config: {file: code.py, function: claen}}
  - {id: broken, type: processor, processor_type: python, depends_on: [read], config: {file: broken.py, function: clean}}
  - {id: later, type: processor, processor_type: sql, depends_on: [read], config: {query: "SELEC {{ var('x', 1) }}"}}
  - {id: fine, type: processor, processor_type: python, depends_on: [read], config: {file: code.py, function: clean}}
"""


def test_validate_looks_into_sql_and_python(call: Call, project: ProjectFolder) -> None:
    project.pipeline("coded", CODE)
    (project.root / "code.py").write_text("import json\n\n\ndef clean(rows):\n    return rows\n")
    (project.root / "broken.py").write_text("def clean(rows):\n    return (\n")
    answer = call("validate", "--project", project.root, "--select", "coded")
    assert answer.code == 2
    problems = call("validate", "--project", project.root, "--select", "coded", "--json").json["problems"]
    said = [(problem["line"], problem["message"]) for problem in problems]
    assert [line for line, _ in said] == [9, 10, 11, 12, 13]
    parts = ("SELEC", "SELECT and SELECT", "no file gone.py", "no function 'claen'", "broken.py:2")
    for (_, message), part in zip(said, parts, strict=True):
        assert part in message
    assert "did you mean clean?" in answer.out


def test_validate_select_really_selects(call: Call, project: ProjectFolder) -> None:
    project.pipeline("bad", "pipeline_name: bad\ntags: [core]\nsteps:\n  - id: x\n    type: source\n    source_type: nope\n")
    assert call("validate", "--project", project.root, "--select", "first").code == 0
    assert call("validate", "--project", project.root, "--exclude", "bad").code == 0
    assert call("validate", "--project", project.root, "--select", "bad").code == 2
    assert call("validate", "--project", project.root, "--select", "tag:core").code == 2


def test_validate_stops_at_a_wrong_project_file(call: Call, project: ProjectFolder) -> None:
    (project.root / "dataflow_project.yml").write_text("project_name: x\nvarz: {}\nstatee: 1\n")
    answer = call("validate", "--project", project.root)
    assert answer.code == 2
    assert "dataflow_project.yml:2" in answer.err
    assert "dataflow_project.yml:3" in answer.err
    problems = call("validate", "--project", project.root, "--json").json["error"]["problems"]
    assert [problem["line"] for problem in problems] == [2, 3]


def test_plan_shows_ranges_and_with_json_every_window(call: Call, project: ProjectFolder) -> None:
    answer = call("plan", "--project", project.root)
    assert answer.code == 0
    assert "[2024-01-01, 2024-01-04)" in answer.out
    assert "3 windows" in answer.out
    first = _named(call("plan", "--project", project.root, "--json").json["pipelines"])["first"]
    assert first["to_run"] == 3
    assert [window["key"] for window in first["windows"]] == ["2024-01-01", "2024-01-02", "2024-01-03"]
    assert first["endpoints"][0]["mode"] == "replace_window"
    assert call("run", "--project", project.root, "-s", "first", "--max-windows", "1").code == 0
    after = _named(call("plan", "--project", project.root, "--json").json["pipelines"])["first"]
    assert [(item["state"], item["range"]) for item in after["ranges"]] == [
        ("published", "[2024-01-01, 2024-01-02)"),
        ("missing", "[2024-01-02, 2024-01-04)"),
    ]


def test_list(call: Call, project: ProjectFolder) -> None:
    pipelines = _named(call("list", "--project", project.root, "--json").json["pipelines"])
    assert list(pipelines) == ["first", "second", "third"] or set(pipelines) == {"first", "second", "third"}
    assert pipelines["second"]["needs"] == ["first"]
    steps = call("list", "steps", "--project", project.root, "--select", "first", "--json").json["steps"]
    assert [step["step"] for step in steps] == ["first.read", "first.check", "first.publish"]
    tags = call("list", "tags", "--project", project.root, "--json").json["tags"]
    assert {item["tag"]: item["pipelines"] for item in tags}["daily"] == ["first", "third"]
    kinds = call("list", "kinds", "--json").json["kinds"]
    assert {"csv", "duckdb", "postgres"} <= set(kinds["connectors"])
    for what in ("pipelines", "steps", "tags", "kinds"):
        assert call("list", what, "--project", project.root).code == 0


def test_deps_find_the_edge_in_the_sql(call: Call, project: ProjectFolder) -> None:
    document = call("deps", "--project", project.root, "--json").json
    assert document["edges"] == [{"from": "first", "to": "second"}]
    assert document["order"].index("first") < document["order"].index("second")
    text = call("deps", "--project", project.root).out
    assert "second" in text.splitlines()[1]
    assert call("deps", "--project", project.root, "--select", "third", "--json").json["edges"] == []


def test_a_tree_ends_also_where_branches_meet() -> None:
    children = {"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": ["e"], "e": []}
    assert list(tree(["a"], children, {})) == [
        "a",
        "|-- b",
        "|   `-- d",
        "|       `-- e",
        "`-- c",
        "    `-- d (see above)",
    ]


def test_status_before_and_after(call: Call, project: ProjectFolder) -> None:
    before = _named(call("status", "--project", project.root, "--json").json["pipelines"])
    assert before["first"]["windows"]["missing"] == 3
    assert before["first"]["last_published"] is None
    assert "never published" in call("status", "--project", project.root).out
    assert call("run", "--project", project.root, "--end", "2024-01-03").code == 0
    after = _named(call("status", "--project", project.root, "--json").json["pipelines"])
    assert {state: count for state, count in after["first"]["windows"].items() if count} == {"published": 2, "missing": 1}
    assert after["first"]["last_published"] == "2024-01-02"
    assert after["first"]["endpoints"][0]["rows"] == 3
    assert after["first"]["endpoints"][0]["generation"] == 1
    assert after["second"]["endpoints"][0]["rows"] == 3
    text = call("status", "--project", project.root).out
    assert "not published [2024-01-03, 2024-01-04)" in text


def test_status_of_a_target_that_cannot_be_asked(call: Call, project: ProjectFolder) -> None:
    (project.root / "shop.duckdb").write_text("this is no database" * 100)
    answer = call("status", "--project", project.root)
    assert answer.code == 1
    assert "cannot tell" in answer.out
    assert call("status", "--project", project.root, "--json").json["ok"] is False


def test_show_a_pipeline_with_its_rows(call: Call, project: ProjectFolder) -> None:
    assert "nothing published yet" in call("show", "first", "--project", project.root).out
    assert call("run", "--project", project.root, "-s", "first").code == 0
    answer = call("show", "first", "--project", project.root, "--limit", "1")
    assert answer.code == 0
    assert "first.yml:" in answer.out
    assert "window 2024-01-03" in answer.out
    document = call("show", "first", "--project", project.root, "--json").json
    assert document["samples"][0]["rows"] == [{"id": 4, "at": "2024-01-03T10:00:00+00:00", "value": 40}]
    one = call("show", "first.check", "--project", project.root, "--json").json
    assert [step["id"] for step in one["steps"]] == ["check"]
    assert one["samples"] == []


@pytest.mark.parametrize("name", ["frist", "first.chek", "first.", ".check", "nope.nope"])
def test_show_suggests(call: Call, project: ProjectFolder, name: str) -> None:
    assert call("show", name, "--project", project.root).code == 2


def test_show_masks_secrets(call: Call, project: ProjectFolder) -> None:
    text = (project.root / "dataflow_project.yml").read_text()
    pg = "  pg: {type: postgres, host: h, database: d, user: u, password: hunter2hunter2}\n"
    (project.root / "dataflow_project.yml").write_text(text + pg)
    steps = "  - {id: read, type: source, source_type: postgres, connection: pg, config: {query: select 1 as id}}\n"
    steps += "  - {id: out, type: endpoint, endpoint_type: csv, depends_on: [read], config: {file_path: x.csv}}\n"
    project.pipeline("secretive", f"pipeline_name: secretive\nvariables: {{api_token: abcdefgh}}\nsteps:\n{steps}")
    for arguments in ((), ("--json",)):
        answer = call("show", "secretive", "--project", project.root, "--limit", "0", *arguments)
        assert answer.code == 0, answer.err
        assert "****" in answer.out
        assert "hunter2" not in answer.out
        assert "abcdefgh" not in answer.out


@pytest.mark.parametrize("kind", ["project", "pipeline"])
def test_schema_is_json_schema(call: Call, kind: str) -> None:
    import jsonschema

    answer = call("schema", "--kind", kind)
    assert answer.code == 0
    schema = json.loads(answer.out)
    jsonschema.validators.validator_for(schema).check_schema(schema)
    assert call("schema", "--kind", kind, "--json").out == answer.out


def test_dev_says_what_it_would_start(call: Call, project: ProjectFolder) -> None:
    document = call("dev", "--project", project.root, "--json", "--port", "3111").json
    assert document["command"][1:4] == ["-m", "dagster", "dev"]
    assert document["url"] == "http://127.0.0.1:3111"


def test_targets_named_by_a_variable_can_be_asked(call: Call, project: ProjectFolder) -> None:
    project.pipeline("third", windowed("third", table="\"t_{{ var('suffix') }}\""))
    assert call("run", "--project", project.root, "-s", "third", "--var", "suffix=x").code == 0
    for verb in ("validate", "list", "deps", "plan", "status"):
        assert call(verb, "--project", project.root, "-s", "third").code == 2
        assert call(verb, "--project", project.root, "-s", "third", "--var", "suffix=x").code == 0
    status = call("status", "--project", project.root, "-s", "third", "--var", "suffix=x", "--json")
    assert status.json["pipelines"][0]["windows"]["published"] == 3
    assert call("show", "third", "--project", project.root, "--var", "suffix=x", "--json").json["samples"][0]["rows"]
