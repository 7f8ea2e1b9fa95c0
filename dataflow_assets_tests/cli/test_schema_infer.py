"""`dataflow schema infer`: what it writes can be used as it is, says from what it was made, and reads no more than it was allowed."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from dataflow_assets.execution.events import CheckEvaluated
from dataflow_assets.execution.run import RunRequest, run
from dataflow_assets.plan.build import build_plan
from dataflow_assets.plan.windows import expected_windows
from dataflow_assets.protocols import Connector
from dataflow_assets.spec.load import load
from dataflow_assets_tests.cli.conftest import ProjectFolder, windowed

Call = Callable[..., Any]
NOW = datetime(2024, 6, 1, tzinfo=UTC)


def ran(project: ProjectFolder, name: str) -> list[str]:
    """Run every window of a pipeline; the checks that failed."""
    loaded = load(project.root)
    pipeline = build_plan(loaded).by_name[name]
    windows = tuple(expected_windows(pipeline.windows, NOW)) if pipeline.windows else (None,)
    events = list(run(RunRequest(loaded, pipeline, windows, f"try-{time.time_ns()}", NOW)))
    return [event.result.name for event in events if isinstance(event, CheckEvaluated) and not event.result.passed]


def test_what_it_writes_can_be_used_as_it_is(call: Call, project: ProjectFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    where = ("--project", project.root)
    project.pipeline("first", windowed("first", table="facts"))
    assert ran(project, "first") == []
    _reads_no_more_than_it_may(call, project, monkeypatch)

    answer = call("schema", "infer", "first", "--as", "yaml", "--margin", "0.1", *where)
    assert answer.code == 0, answer.err
    assert answer.out.startswith("# main.facts as first.publish has published it: 4 rows")
    assert yaml.safe_load(answer.out) == {
        "checks": [
            {"column": "id", "not_null": True, "min_value": 0, "max_value": 5},
            {"column": "at", "not_null": True, "min_value": "2024-01-01T00:00:00+00:00"},
            {"column": "value", "not_null": True, "min_value": 7, "max_value": 43},
        ]
    }

    file = project.root / "models" / "facts.py"
    for backend in ("pandas", "polars"):
        file.unlink(missing_ok=True)
        answer = call("schema", "infer", "first", "--backend", backend, "-o", file, *where)
        assert answer.code == 0, answer.err
        assert "3 columns, from 4 rows, all of 3 published units (2024-01-01 to 2024-01-03)." in answer.out
        text = file.read_text()
        assert text.startswith('"""main.facts as first.publish has published it: 4 rows, all of 3 published units')
        assert "class Facts(pa.DataFrameModel):" in text
        assert call("schema", "infer", "first.publish", "--backend", backend, *where).out == text
    answer = call("schema", "infer", "first", "-o", file, *where)
    assert (answer.code, answer.err.startswith("Error: ")) == (2, True)

    named = "type: source\n    schema: models/facts.py:Facts"
    project.pipeline("first", windowed("first", table="facts").replace("type: source", named, 1))
    assert ran(project, "first") == []
    project.rows(lines=["id,at,value", "1,2024-01-01T10:00:00Z,1000"])
    assert ran(project, "first") == ["schema_value_le"]


def _reads_no_more_than_it_may(call: Call, project: ProjectFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataflow_assets.connectors.duckdb import Connector as DuckDB

    asked: list[Any] = []
    read: Callable[..., Any] = DuckDB.read_target

    def noted(self: Connector, target: Any, window: Any) -> Any:
        asked.append(window and str(window.window.start.date()))
        return read(self, target, window)

    monkeypatch.setattr(DuckDB, "read_target", noted)
    where = ("--project", project.root, "--json")
    document = call("schema", "infer", "first", "--rows", "2", *where).json
    assert (document["windows"], document["whole"], document["rows"]) == (["2024-01-01", "2024-01-03"], False, 2)
    assert "2 of 3 published windows spread evenly (2024-01-01 to 2024-01-03)" in document["text"]
    document = call("schema", "infer", "first", "--rows", "1", *where).json
    assert (document["windows"], document["rows"]) == (["2024-01-03"], 1)
    assert asked == ["2024-01-03", "2024-01-01", "2024-01-03"], "the newest first, and none that would not be read"
    document = call("schema", "infer", "first", "--rows", "4", *where).json
    assert (document["whole"], document["rows"], asked[3:]) == (True, 4, [None])


def test_what_cannot_be_read_back_is_said(call: Call, project: ProjectFolder) -> None:
    where = ("--project", project.root)
    project.pipeline("first", windowed("first", table="facts"))
    answer = call("schema", "infer", "first", *where)
    assert (answer.code, "has published no rows to learn from" in answer.err) == (1, True), answer.err
    answer = call("schema", "infer", "first.nowhere", *where)
    assert answer.code == 2
    assert "name one: first.publish" in answer.err
    assert call("schema", "infer", *where).code == 2
