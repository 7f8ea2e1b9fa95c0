"""Columns that change under a pipeline in YAML: what a run says, and `dataflow schema show` and `diff`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb
import pytest

from dataflow_assets.protocols import TellsCodeVersion
from dataflow_assets_tests.cli.conftest import ProjectFolder, windowed

Call = Callable[..., Any]
WIDER = ["id,at,value,coupon", "1,2024-01-01T10:00:00Z,10,a", "2,2024-01-02T11:00:00Z,20,b", "3,2024-01-03T10:00:00Z,30,c"]


def run_twice(call: Call, project: ProjectFolder, policy: str) -> Any:
    """Run `first` as it is, then one window with a column more; the second answer."""
    project.pipeline("first", windowed("first", table="facts", extra=f"schema_policy: {policy}"))
    assert call("run", "--project", project.root, "-s", "first").code == 0
    project.rows(lines=WIDER)
    return call("run", "--project", project.root, "-s", "first", "--window", "2024-01-02")


def columns(project: ProjectFolder) -> list[str]:
    with duckdb.connect(str(project.root / "shop.duckdb")) as connection:
        return [row[0] for row in connection.execute("select column_name from duckdb_columns() where table_name = 'facts'").fetchall()]


def test_evolve_adds_the_column_which_the_run_and_the_versions_tell(call: Call, project: ProjectFolder) -> None:
    where = ("--project", project.root)
    assert "nothing published yet" in call("schema", "show", "first", *where).out
    answer = run_twice(call, project, "evolve")
    assert answer.code == 0, answer.out + answer.err
    assert "column 'coupon' (VARCHAR) was added to main.facts (evolve)" in answer.out
    assert columns(project) == ["id", "at", "value", "coupon"]

    answer = call("schema", "diff", "first", *where)
    assert answer.code == 0, answer.err
    lines = [line.split() for line in answer.out.splitlines()]
    assert ["first.publish", "->", "main.facts"] in lines
    assert any(line[:1] == ["1"] and line[-2:] == ["3", "columns"] for line in lines)
    assert any(line[:1] == ["2"] and line[-3:] == ["added", "'coupon'", "VARCHAR"] for line in lines)
    (target,) = call("schema", "diff", "first.publish", *where, "--json").json["targets"]
    assert [(version["version"], version["unit"]) for version in target["versions"]] == [(1, "2024-01-01"), (2, "2024-01-02")]
    (target,) = call("schema", "diff", "first", "--from", "2", "--to", "1", *where, "--json").json["targets"]
    assert target["versions"] == [{"from": 2, "to": 1, "changes": ["removed 'coupon' VARCHAR"]}]

    answer = call("schema", "show", "-s", "first", *where)
    assert "version 2" in answer.out
    assert ["coupon", "VARCHAR"] in [line.split() for line in answer.out.splitlines()]

    answer = call("schema", "diff", "first", "--from", "7", *where)
    assert answer.code == 2
    assert "no version 7" in answer.err


def test_freeze_refuses_with_the_difference_and_discard_leaves_it_out(call: Call, project: ProjectFolder) -> None:
    answer = run_twice(call, project, "freeze")
    assert answer.code == 1
    assert "+ coupon  string  only in the data" in answer.out
    assert "schema_policy: evolve adds what is new" in answer.out
    project.pipeline("first", windowed("first", table="facts, audit: checksum, schema_policy: discard", extra="schema_policy: freeze"))
    answer = call("run", "--project", project.root, "-s", "first", "--window", "2024-01-02", "--json")
    assert answer.code == 0, answer.out + answer.err
    (window,) = answer.json["pipelines"][0]["windows"]
    (change,) = window["steps"][-1]["published"]["schema_changes"]
    assert change["text"] == "column 'coupon' (string) was left out: main.facts does not have it (discard)"
    assert columns(project) == ["id", "at", "value"]


@pytest.mark.parametrize("arguments", [("diff", "frist"), ("show", "frist"), ("diff", "first", "--to", "2")])
def test_a_wrong_question_is_told_what_there_is(call: Call, project: ProjectFolder, arguments: tuple[str, ...]) -> None:
    answer = call("schema", *arguments, "--project", project.root)
    assert answer.code == 2
    assert "first" in answer.err or "--from" in answer.err


def test_a_connector_that_keeps_no_versions_says_so(call: Call, project: ProjectFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataflow_assets.execution.schemas.KeepsSchemas", TellsCodeVersion)
    answer = call("schema", "diff", "first", "--project", project.root)
    assert answer.code == 0
    assert "keeps no versions" in answer.out


def test_an_unreachable_target_is_one_line_and_exit_code_1(call: Call, project: ProjectFolder) -> None:
    (project.root / "shop.duckdb").write_text("no database")
    answer = call("schema", "diff", "first", "--project", project.root)
    assert answer.code == 1
    assert "cannot tell" in answer.out
