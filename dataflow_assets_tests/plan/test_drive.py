"""Where the drive table may be kept, and what is said where it may not."""

from __future__ import annotations

import pytest

from dataflow_assets.errors import PlanError
from dataflow_assets.plan.build import build_plan, build_plan_tolerant
from dataflow_assets.spec.load import load

CONNECTIONS = """\
connections:
  warehouse: {type: postgres, dsn: postgresql://localhost/warehouse}
  events: {type: clickhouse, host: localhost}
  shelf: {type: parquet, path: data}
  till: {type: sqlite, database: till.db}
drive:
"""


def plan(folder, *lines):
    (folder / "pipelines").mkdir(exist_ok=True)
    (folder / "dataflow_project.yml").write_text(CONNECTIONS + "".join(f"  {line}\n" for line in lines))
    project = load(folder)
    build_plan_tolerant(project)
    return build_plan(project)


def test_a_database_with_rows_that_change_is_taken(tmp_path):
    plan(tmp_path, "connection: warehouse", "schema: ops", "table: attempts")
    plan(tmp_path, "connection: till")
    plan(tmp_path, "table: attempts")


@pytest.mark.parametrize(
    ("lines", "place", "message", "hint"),
    [
        (["connection: warehose"], ":7:15", "'warehose' does not exist", "did you mean 'warehouse'?"),
        (["connection: events"], ":7:15", "clickhouse does not change single rows", "use a connection to Postgres"),
        (["connection: shelf"], ":7:15", "parquet does not change single rows", "leave `connection` out"),
        (["connection: till", "schema: ops"], ":8:11", "lie in no schema", "leave `schema` out"),
        (["schema: ops"], ":7:11", "has no schemas", "name a connection"),
    ],
)
def test_what_cannot_hold_it_is_refused_with_the_place_and_what_to_use(tmp_path, lines, place, message, hint):
    with pytest.raises(PlanError) as caught:
        plan(tmp_path, *lines)
    (problem,) = caught.value.problems
    assert str(problem.place).endswith(f"dataflow_project.yml{place}")
    assert message in problem.message
    assert hint in problem.hint
