"""The worked example of the documentation, run whole against a server that behaves as ServiceNow's Table API is documented to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from dataflow_assets.connectors.http import Connector
from dataflow_assets.execution.events import StepFinished, WindowFailed
from dataflow_assets_tests.docs.example_projects import run_pipeline
from dataflow_assets_tests.services.http_server import Answer, Asked, Server, served

FIRST = datetime(2024, 1, 1)
_CLAUSE = re.compile(r"(\w+)(>=|<|=)(.*)")


class TableApi:
    """Incidents, one every 7 minutes for two days, and a cap of 50 rows on every reply."""

    def __init__(self) -> None:
        self.server = Server(self.route)
        self.rows = [self.incident(number) for number in range(411)]

    @staticmethod
    def incident(number: int) -> dict[str, str]:
        moment = f"{FIRST + timedelta(minutes=7 * number):%Y-%m-%d %H:%M:%S}"
        closed = moment if number % 3 else ""
        return {
            "sys_id": f"{number * 7919 % 411:032x}",
            "number": f"INC{number:07}",
            "priority": str(number % 5 + 1),
            "closed_at": closed,
            "sys_updated_on": moment,
        }

    def route(self, asked: Asked) -> Answer:
        if asked.headers.get("authorization") != "Basic bG9hZGVyOmh1c2gtaHVzaA==":
            return Answer({"error": {"message": "User Not Authenticated", "detail": "Required to provide Auth information"}}, 401)
        if asked.path != "/api/now/table/incident":
            return Answer({"error": {"message": "Invalid table", "detail": None}, "status": "failure"}, 400)
        found = self.matching(asked.one("sysparm_query"))
        offset, size = int(asked.one("sysparm_offset", "0")), min(int(asked.one("sysparm_limit", "10000")), 50)
        fields = asked.one("sysparm_fields").split(",")
        rows = [{name: row[name] for name in fields} for row in found[offset : offset + size]]
        return Answer({"result": rows}, headers={"Link": self.links(asked, offset, size, len(found)), "X-Total-Count": str(len(found))})

    def matching(self, query: str) -> list[dict[str, str]]:
        rows, order = self.rows, ""
        for clause in query.split("^"):
            if clause.startswith("ORDERBY"):
                order = clause.removeprefix("ORDERBY")
                continue
            match = _CLAUSE.fullmatch(clause)
            assert match, f"an invalid part is ignored by ServiceNow: {clause}"
            tests: dict[str, Any] = {">=": str.__ge__, "<": str.__lt__, "=": str.__eq__}
            rows = [row for row in rows if tests[match[2]](row[match[1]], match[3])]
        return sorted(rows, key=lambda row: row[order]) if order else rows

    def links(self, asked: Asked, offset: int, size: int, total: int) -> str:
        def link(start: int, relation: str) -> str:
            others = "&".join(f"{name}={value}" for name, (value,) in asked.query.items() if name != "sysparm_offset")
            others = others.replace(" ", "%20").replace(">", "%3E").replace("<", "%3C").replace("^", "%5E")
            return f'<{self.server.url}{asked.path}?{others}&sysparm_offset={start}>;rel="{relation}"'

        return ",".join([link(0, "first"), *([link(offset + size, "next")] if offset + size < total else [])])


@pytest.fixture
def api() -> Iterator[TableApi]:
    api = TableApi()
    with served(api.route) as api.server:
        yield api


def test_the_example_runs(api: TableApi, tmp_path: Path) -> None:
    connection = {"type": "http", "base_url": f"{api.server.url}/api/now", "username": "loader", "password": "hush-hush"}
    (tmp_path / "pipelines").mkdir()
    project = {"project_name": "desk", "connections": {"servicenow": connection}}
    (tmp_path / "dataflow_project.yml").write_text(yaml.safe_dump(project))
    (tmp_path / "pipelines" / "incidents.yml").write_text(Connector.example)
    api.server.faults.append(Answer("busy", 429, {"Retry-After": "0"}))

    events = run_pipeline(tmp_path, windows=3)
    assert [event.error for event in events if isinstance(event, WindowFailed)] == []
    published = [event.published.rows for event in events if isinstance(event, StepFinished) and event.published]
    assert published == [206, 205, 0], "the third day has no incidents"
    found = pq.read_table(tmp_path / "lake" / "incidents").sort_by("number").to_pylist()
    assert len(found) == 411
    for row, given in zip(found, api.rows, strict=True):
        assert (row["number"], row["priority"]) == (given["number"], int(given["priority"]))
        assert str(row["sys_updated_on"]) == given["sys_updated_on"]
        assert str(row["closed_at"] or "") == given["closed_at"]
    queries = {asked.one("sysparm_query") for asked in api.server.log}
    assert queries == {
        f"sys_updated_on>=2024-01-0{day} 00:00:00^sys_updated_on<2024-01-0{day + 1} 00:00:00^ORDERBYsys_id" for day in (1, 2, 3)
    }
