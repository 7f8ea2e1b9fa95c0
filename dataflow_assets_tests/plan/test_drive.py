"""Where the drive table may be kept, and what is said where it may not."""

from __future__ import annotations

import pytest

from dataflow_assets.errors import PlanError
from dataflow_assets.plan.build import build_plan, build_plan_tolerant
from dataflow_assets.spec.builders import project
from dataflow_assets.spec.load import load

CONNECTIONS = """\
connections:
  warehouse: {type: postgres, dsn: postgresql://localhost/warehouse}
  events: {type: clickhouse, host: localhost}
  shelf: {type: parquet, path: data}
  till: {type: sqlite, database: till.db}
  any: {type: sqlalchemy, url: "clickhouse+http://localhost/default"}
  other: {type: sqlalchemy, url: "postgresql+psycopg://localhost/ops"}
drive:
"""


def plan(folder, *lines):
    (folder / "pipelines").mkdir(exist_ok=True)
    (folder / "dataflow_project.yml").write_text(CONNECTIONS + "".join(f"  {line}\n" for line in lines))
    loaded = load(folder)
    build_plan_tolerant(loaded)
    return build_plan(loaded)


def test_a_database_with_rows_that_change_is_taken(tmp_path):
    plan(tmp_path, "connection: warehouse", "schema: ops", "table: attempts")
    plan(tmp_path, "connection: till")
    plan(tmp_path, "connection: other", "schema: ops")
    plan(tmp_path, "table: attempts")


@pytest.mark.parametrize(
    ("lines", "place", "message", "hint"),
    [
        (["connection: warehose"], ":9:15", "'warehose' does not exist", "did you mean 'warehouse'?"),
        (["connection: events"], ":9:15", "clickhouse does not change single rows", "use a connection to Postgres"),
        (["connection: any"], ":9:15", "clickhouse does not change single rows", "use a connection to Postgres"),
        (["connection: shelf"], ":9:15", "parquet does not change single rows", "leave `connection` out"),
        (["connection: till", "schema: ops"], ":10:11", "lie in no schema", "leave `schema` out"),
        (["schema: ops"], ":9:11", "has no schemas", "name a connection"),
    ],
)
def test_what_cannot_hold_it_is_refused_with_the_place_and_what_to_use(tmp_path, lines, place, message, hint):
    with pytest.raises(PlanError) as caught:
        plan(tmp_path, *lines)
    (problem,) = caught.value.problems
    assert str(problem.place).endswith(f"dataflow_project.yml{place}")
    assert message in problem.message
    assert hint in problem.hint


def test_a_project_in_python_says_it_too(tmp_path):
    connections = {"ops": {"type": "postgres", "dsn": "postgresql://localhost/ops"}, "events": {"type": "clickhouse", "host": "h"}}
    made = project("shop", root=tmp_path, connections=connections, drive={"connection": "ops", "schema": "monitoring"})
    assert (made.model.drive.connection, made.model.drive.table_schema) == ("ops", "monitoring")
    assert build_plan(made).pipelines == ()
    with pytest.raises(PlanError, match=r"test_drive.py:\d+:\d+: the drive cannot be kept in connection 'events'"):
        build_plan(project("shop", root=tmp_path, connections=connections, drive={"connection": "events"}))
