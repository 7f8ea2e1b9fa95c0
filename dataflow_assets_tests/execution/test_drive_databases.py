"""The drive table in each database: rows go out and come back, text stays text, and the monitoring queries find what they ask for."""

from __future__ import annotations

import json
import logging
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from dataflow_assets.execution.drive import FAILED, GAP_DETECTED, RUNNING, SUCCESS, DriveRow, open_drive, where_kept
from dataflow_assets.spec.load import load
from dataflow_assets.storage.drive_queries import FORMS, TITLES, queries
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import utc_now
from dataflow_assets_tests.execution.test_drive import HOSTILE, ROW
from dataflow_assets_tests.services.ladder import free_port
from dataflow_assets_tests.services.postgres import database_dsn
from dataflow_assets_tests.services.proxy import proxy_to

KINDS = ("postgres", "mysql", "duckdb", "sqlite", "snowflake", "bigquery", "sqlalchemy_sqlite", "sqlalchemy_postgres")
SCHEMA = {"postgres": "ops", "mysql": None, "duckdb": "ops", "snowflake": "ops", "bigquery": "dataflow_test"}


def _keys(kind, ask):
    if kind in {"postgres", "mysql"}:
        return {"dsn": ask(f"{kind}_dsn")}
    if kind in {"snowflake", "bigquery"}:
        return dict(ask(f"{kind}_keys"))
    if kind == "sqlalchemy_postgres":
        return {"type": "sqlalchemy", "url": ask("postgres_dsn").replace("postgresql://", "postgresql+psycopg://")}
    if kind == "sqlalchemy_sqlite":
        return {"type": "sqlalchemy", "url": "sqlite:///ops.sqlite"}
    return {"database": f"attempts.{kind}"}


@pytest.fixture(params=KINDS)
def project(request, tmp_path):
    kind = request.param
    keys = {"type": kind, **_keys(kind, request.getfixturevalue)}
    drive = {"connection": "ops", **({"schema": SCHEMA[kind]} if SCHEMA.get(kind) else {})}
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "dataflow_project.yml").write_text(json.dumps({"connections": {"ops": keys}, "drive": drive}))
    return load(tmp_path)


def attempts():
    """What a week left: fresh successes, one slow, one with rows missing, a failure that a second try mended, one still running, a gap."""
    now = utc_now().replace(microsecond=0)

    def row(number, status=SUCCESS, *, target=10, seconds=2.0, **more):
        transfer = {"actual_run_duration": "2s", "actual_run_seconds": seconds, "expected_run_duration": "2s", "expected_run_seconds": 2.0}
        phases = {
            "source_to_stage_transfer": {"status": "COMPLETED", **transfer},
            "audit": {"status": "COMPLETED", "source_count": 10, "stage_count": 10, "target_count": target},
        }
        window = {"query_window_start": now - timedelta(hours=30 - number), "query_window_end": now - timedelta(hours=29 - number)}
        made = DriveRow(f"orders:{number}", "orders", status, created_at=now - timedelta(hours=10 - number), unit_key=str(number), **window)
        return replace(made, phases=phases if status == SUCCESS else {}, **more)

    return [
        row(0),
        row(1, seconds=5.0),
        row(2, target=9),
        row(3, FAILED, phase_failed="audit", error_class="AuditFailed", error_message="9 of 10"),
        row(4, pipeline_retry_number=1),
        row(5, GAP_DETECTED),
        row(6, RUNNING),
    ]


def test_a_drive_in_this_database(project, caplog):
    with caplog.at_level(logging.WARNING), closing(open_drive(project)) as drive:
        assert drive.rows() == []
        drive.begin(ROW)
        assert drive.rows() == [ROW]
        _change(drive)
        _select(drive)
        _ask_as_people_do(drive, project)
    assert caplog.records == []
    with closing(open_drive(project)) as again:
        assert len(again.rows()) == 7  # what is there is never dropped


def _change(drive):
    later = ROW.created_at + timedelta(seconds=1, microseconds=123456)
    phases = {"audit": {"status": "FAILED", "error_message": HOSTILE, "source_count": 3}}
    drive.update(ROW.pipeline_id, pipeline_status=FAILED, phases=phases, phases_pending=(), error_message=HOSTILE, rows=3, updated_at=later)
    drive.beat([ROW.pipeline_id], at=later)
    (row,) = drive.rows()
    kept = HOSTILE.replace("\0", "\ufffd").replace("\ud800", "?")
    assert (row.error_message, row.phases["audit"]["error_message"]) == (kept, kept)
    assert (row.heartbeat_at, row.rows, row.phases["audit"]["source_count"], row.phases_pending) == (later, 3, 3, ())
    assert (row.target_date, row.query_window_start) == (date(2024, 1, 1), datetime(2024, 1, 1, 3, 4, 5, tzinfo=UTC))
    drive.begin(replace(ROW, pipeline_retry_number=7))  # told twice
    assert {row.pipeline_retry_number for row in drive.rows(limit=1)} <= {0, 7}
    assert drive.delete([ROW.pipeline_id]) in {1, 2}
    assert drive.rows() == []


def _select(drive):
    for row in attempts():
        drive.begin(row)
    assert [row.unit_key for row in drive.rows(limit=2)] == ["6", "5"]
    assert [row.unit_key for row in drive.rows(statuses=[FAILED, RUNNING], keys=["3", "6", "1"])] == ["6", "3"]
    assert [row.unit_key for row in drive.rows(since=utc_now() - timedelta(hours=6, minutes=30))] == ["6", "5", "4"]
    assert drive.failures("orders") == {"3": 1, "6": 1}
    assert drive.failures("other") == {}


def _ask_as_people_do(drive, project):
    """As a person with a client of the database would: names without quotes."""
    options = project.model.drive
    kind = str(project.model.connections["ops"]["type"])
    if kind not in FORMS:
        return
    table = f"{options.table_schema}.{options.table}" if options.table_schema else options.table
    found = {name: drive._keeper.read_records(Statement(text)) for name, text in queries(kind, table).items()}
    assert set(found) == set(TITLES)
    assert found["latest_run"][0][:3] == ("orders", "RUNNING", 0)
    assert [row[2:] for row in found["failed_24h"]] == [("audit", "AuditFailed", "9 of 10")]
    assert found["failing_phase"] == [("orders", "audit", 1, "9 of 10")]
    assert [row[2:] for row in found["actual_vs_expected"]] == [("2s", "2s")] * 4
    assert [[row[2], *map(int, row[3:])] for row in found["audit_trail"]] == [["COMPLETED", 10, 10, target] for target in (10, 10, 9, 10)]
    ((name, _, hours),) = found["freshness"]
    assert (name, round(float(hours))) == ("orders", 25)
    assert [float(row[-1]) for row in found["success_rate"]] == [80.0]
    assert [float(row[-1]) for row in found["phase_failure_rate"]] == [20.0]
    assert [round(float(row[-1]), 3) for row in found["duration_ratio"]] == [2.5]
    assert [tuple(map(int, row[2:])) for row in found["count_mismatch"]] == [(10, 9)]
    assert [float(row[-1]) for row in found["retry_success"]] == [100.0]


def test_a_server_that_goes_away_and_comes_back_has_every_row(tmp_path, postgres_dsn, monkeypatch):
    from psycopg.conninfo import conninfo_to_dict

    parts, port, said = conninfo_to_dict(postgres_dsn), free_port(), []
    server = (str(parts.get("host", "127.0.0.1")), int(parts.get("port", 5432)))
    dsn = database_dsn({**parts, "host": "127.0.0.1", "port": port}, str(parts["dbname"]))
    (tmp_path / "pipelines").mkdir()
    connections = {"ops": {"type": "postgres", "dsn": dsn}}
    (tmp_path / "dataflow_project.yml").write_text(json.dumps({"connections": connections, "drive": {"connection": "ops"}}))
    project = load(tmp_path)
    with closing(open_drive(project, warn=said.append)) as drive:
        drive.begin(ROW)  # nobody listens there yet
        assert where_kept(project).endswith("1 changes wait to be sent, by the next run that reaches it")
        with proxy_to(*server, at=port) as proxy:
            monkeypatch.setattr("dataflow_assets.execution.drive._PAUSE_SECONDS", 0.0)
            drive.update(ROW.pipeline_id, pipeline_status=FAILED)
            assert [row.pipeline_status for row in drive.rows()] == [FAILED]
            proxy.trigger(b"lost reply")  # the server has the change, and nobody hears of it
            drive.update(ROW.pipeline_id, error_message="lost reply")
        drive.update(ROW.pipeline_id, pipeline_retry_number=3)
        drive.begin(replace(ROW, pipeline_id="second"))
        with proxy_to(*server, at=port):
            drive.update("second", pipeline_status=SUCCESS)
            found = {row.pipeline_id: row for row in drive.rows()}
    assert len(said) == 2  # once for each time that it went
    first = found[ROW.pipeline_id]
    assert (first.pipeline_status, first.error_message, first.pipeline_retry_number) == (FAILED, "lost reply", 3)
    assert found["second"].pipeline_status == SUCCESS
