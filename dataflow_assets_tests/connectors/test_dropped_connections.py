"""Connections that a server drops while they lie idle between two windows of one run: nobody notices.

Here: whole pipelines whose source and target are one server. Not here: connections that break in use (each connector's own tests).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pymysql
import pytest
import yaml

from dataflow_assets.execution.events import WindowFailed, WindowFinished
from dataflow_assets.execution.run import RunRequest, run
from dataflow_assets_tests.execution.workshop import Workshop
from dataflow_assets_tests.services.mysql import ask, connect

EVENTS = "CREATE TABLE events AS " + " UNION ALL ".join(
    f"SELECT {day} AS id, timestamp '2024-01-0{day} 12:00:00' AS at" for day in (1, 2, 3)
)
PIPELINE = """\
pipeline_name: p
event_time_column: at
windows: {every: day, begin: 2024-01-01}
steps:
  - {id: read, type: source, connection: app, config: {table: events}}
  - {id: write, type: endpoint, connection: app, depends_on: [read], config: {table: events_copy}}
"""


@dataclass(frozen=True)
class System:
    """A server with a table of events; `drop` ends the other sessions of its database, and tells how many."""

    connection: dict[str, str]
    drop: Callable[[], int]
    count: Callable[[], int]


def on_postgres(dsn: str) -> System:
    """The database of a DSN."""

    def asked(query: str) -> int:
        with psycopg.connect(dsn, autocommit=True) as admin:
            return len(admin.execute(query.encode()).fetchall())

    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(EVENTS.encode())
    mine = "datname = current_database() AND application_name = 'dataflow'"
    return System(
        {"type": "postgres", "dsn": dsn},
        lambda: asked(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {mine}"),
        lambda: asked("SELECT id FROM events_copy"),
    )


def on_mysql(dsn: str) -> System:
    """The database of a DSN."""

    def drop() -> int:
        with connect(dsn) as admin, admin.cursor() as cursor:
            cursor.execute("SELECT id FROM information_schema.processlist WHERE id <> connection_id() AND db = database()")
            found = cursor.fetchall()
            for (number,) in found:
                with suppress(pymysql.MySQLError):
                    cursor.execute(f"KILL {number}")
        return len(found)

    ask(dsn, EVENTS)
    return System({"type": "mysql", "dsn": dsn}, drop, lambda: len(ask(dsn, "SELECT id FROM events_copy")))


@pytest.mark.parametrize(("system", "database"), [(on_postgres, "postgres_dsn"), (on_mysql, "mysql_user_dsn")], ids=["postgres", "mysql"])
def test_the_next_window_finds_its_connections_dropped(
    request: pytest.FixtureRequest, tmp_path: Path, system: Callable[[str], System], database: str
) -> None:
    found = system(request.getfixturevalue(database))
    workshop = Workshop(tmp_path)
    workshop.write("dataflow_project.yml", yaml.safe_dump({"project_name": "dropped", "connections": {"app": found.connection}}))
    workshop.pipeline(PIPELINE)
    project, plan = workshop.load()
    windows = tuple(item.window for item in workshop.status() if item.run)
    dropped = []
    for event in run(RunRequest(project, plan, windows, "only", workshop.now)):
        assert not isinstance(event, WindowFailed), event.error
        if isinstance(event, WindowFinished):
            dropped.append(found.drop())
    assert len(dropped) == 3
    assert all(dropped), "no connection was kept between windows"
    assert found.count() == 3
