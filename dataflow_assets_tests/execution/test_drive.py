"""The drive: rows written and found again, a database that goes away and comes back, several processes at once."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from dataflow_assets.execution.drive import FAILED, RUNNING, SUCCESS, DriveRow, open_drive
from dataflow_assets.spec.load import load

MOMENT = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
ROW = DriveRow(
    "orders:2024-01-01:run-0",
    "orders",
    pipeline_start_timestamp=MOMENT,
    query_window_start=MOMENT - timedelta(days=1),
    query_window_end=MOMENT,
    query_window_duration="24h",
    target_date=date(2024, 1, 1),
    phases_pending=("audit", "stage_cleaning"),
    created_at=MOMENT,
    updated_at=MOMENT,
    unit_key="2024-01-01",
    attempt="run-0",
    run_id="run",
    host="here",
    process_id=1,
    heartbeat_at=MOMENT,
)
HOSTILE = "'; DROP TABLE pipeline_execution_drive; -- \" \\ \0 \ud800 {}%s \u2028 ?1 $1 @p1"


@pytest.fixture
def project(tmp_path):
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "dataflow_project.yml").write_text("project_name: test\n")
    return load(tmp_path)


@pytest.fixture
def drive(project):
    opened = open_drive(project)
    yield opened
    opened.close()


def test_a_row_is_found_as_it_was_written(drive):
    assert drive.rows() == []
    drive.begin(ROW)
    assert drive.rows() == [ROW]
    phases = {"audit": {"status": "COMPLETED", "source_count": 3}}
    drive.update(ROW.pipeline_id, pipeline_status=SUCCESS, phases=phases, phases_completed=("audit",), rows=3, updated_at=MOMENT)
    assert drive.rows() == [
        replace(ROW, pipeline_status=SUCCESS, phases=phases, phases_completed=("audit",), rows=3),
    ]


def test_rows_are_chosen_and_ordered(drive):
    for number in range(6):
        moment = MOMENT + timedelta(minutes=number)
        name, status = ("orders", "stock")[number % 2], (SUCCESS, FAILED, RUNNING)[number % 3]
        row = replace(ROW, pipeline_id=str(number), unit_key=str(number), created_at=moment)
        drive.begin(replace(row, pipeline_name=name, pipeline_status=status))
    ids = lambda **asked: [row.pipeline_id for row in drive.rows(**asked)]  # noqa: E731
    assert ids() == ["5", "4", "3", "2", "1", "0"]
    assert ids(limit=2) == ["5", "4"]
    assert ids(pipeline="orders") == ["4", "2", "0"]
    assert ids(statuses=[FAILED, RUNNING], pipeline="stock") == ["5", "1"]
    assert ids(since=MOMENT + timedelta(minutes=4)) == ["5", "4"]
    assert ids(keys=["1", "3"]) == ["3", "1"]
    assert ids(keys=[]) == []
    assert ids(keys=[*map(str, range(2000))], limit=3) == ["5", "4", "3"]
    assert drive.delete(["0", "1", "none"]) == 2
    assert ids() == ["5", "4", "3", "2"]


def test_failures_are_counted_from_the_last_success(drive):
    statuses = [FAILED, FAILED, SUCCESS, FAILED, RUNNING, FAILED]
    for number, status in enumerate(statuses):
        moment = MOMENT + timedelta(minutes=number)
        drive.begin(replace(ROW, pipeline_id=f"a{number}", pipeline_status=status, created_at=moment))
        drive.begin(replace(ROW, pipeline_id=f"b{number}", pipeline_status=FAILED, created_at=moment, unit_key="never"))
        drive.begin(replace(ROW, pipeline_id=f"c{number}", pipeline_status=SUCCESS, created_at=moment, unit_key="always"))
    assert drive.failures("orders") == {"2024-01-01": 3, "never": 6}
    assert drive.failures("other") == {}


def test_text_that_would_break_a_statement_is_kept_as_text(drive):
    drive.begin(replace(ROW, unit_key=HOSTILE, error_message=HOSTILE, phases={"audit": {"error_message": HOSTILE}}))
    (row,) = drive.rows()
    kept = HOSTILE.replace("\0", "\ufffd").replace("\ud800", "?")
    assert (row.unit_key, row.error_message, row.phases["audit"]["error_message"]) == (kept, kept, kept)
    drive.update(ROW.pipeline_id, error_message="x" * 100_000)
    assert len(drive.rows()[0].error_message or "") == 8_000
    with pytest.raises(TypeError, match="no 'statsu'"):
        drive.update(ROW.pipeline_id, statsu="x")


def test_a_beat_touches_the_attempts_named(drive):
    drive.begin(ROW)
    drive.begin(replace(ROW, pipeline_id="other"))
    later = MOMENT + timedelta(seconds=10)
    drive.beat([ROW.pipeline_id], at=later)
    drive.beat([], at=later)
    assert {row.pipeline_id: row.heartbeat_at for row in drive.rows()} == {ROW.pipeline_id: later, "other": MOMENT}


def test_a_change_may_depend_on_the_status(drive):
    drive.begin(replace(ROW, pipeline_status=SUCCESS))
    drive.update(ROW.pipeline_id, only_if=RUNNING, pipeline_status=FAILED)
    assert drive.rows()[0].pipeline_status == SUCCESS
    drive.update(ROW.pipeline_id, only_if=SUCCESS, pipeline_status=FAILED)
    assert drive.rows()[0].pipeline_status == FAILED


def test_a_table_of_an_older_version_gains_columns_and_keeps_its_rows(project, drive):
    folder = project.root / ".dataflow"
    folder.mkdir()
    with sqlite3.connect(folder / "drive.sqlite") as connection:
        connection.execute("CREATE TABLE pipeline_execution_drive (pipeline_id TEXT PRIMARY KEY, pipeline_name TEXT, pipeline_status TEXT)")
        connection.execute("INSERT INTO pipeline_execution_drive VALUES ('old', 'orders', 'SUCCESS')")
    assert drive.rows() == [DriveRow("old", "orders", SUCCESS)]
    drive.begin(ROW)
    assert [row.pipeline_id for row in drive.rows()] == [ROW.pipeline_id, "old"]


def test_a_drive_that_is_away_is_said_once_and_is_sent_later(project, drive, caplog):
    blocked = project.root / ".dataflow"
    (blocked / "drive.sqlite").mkdir(parents=True)  # a folder where the file should be
    with caplog.at_level(logging.WARNING):
        drive.begin(ROW)
        drive.beat([ROW.pipeline_id], at=MOMENT)
        drive.update(ROW.pipeline_id, pipeline_status=FAILED, error_message=HOSTILE, phases={"audit": {"status": "FAILED"}})
        drive.begin(replace(ROW, pipeline_id="second"))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the load goes on" in caplog.text
    with pytest.raises(Exception, match="unable to open"):
        drive.rows()

    (blocked / "drive.sqlite").rmdir()
    other = open_drive(project)
    other.begin(replace(ROW, pipeline_id="third", created_at=MOMENT + timedelta(1)))
    assert [row.pipeline_id for row in other.rows()] == ["third"]  # the first drive lives, and its lines are its own
    drive.close()
    last = open_drive(project)
    last.begin(replace(ROW, pipeline_id="fourth", created_at=MOMENT + timedelta(2)))
    found = {row.pipeline_id: row for row in last.rows()}
    assert set(found) == {ROW.pipeline_id, "second", "third", "fourth"}
    first = found[ROW.pipeline_id]
    assert (first.pipeline_status, first.phases, first.target_date) == (FAILED, {"audit": {"status": "FAILED"}}, date(2024, 1, 1))
    assert not list((blocked / "drive-spool").iterdir())
    other.close()
    last.close()


def test_the_same_drive_sends_what_it_kept(project, drive, monkeypatch):
    blocked = project.root / ".dataflow" / "drive.sqlite"
    blocked.mkdir(parents=True)
    drive.begin(ROW)
    blocked.rmdir()
    monkeypatch.setattr("dataflow_assets.execution.drive._PAUSE_SECONDS", 0.0)
    drive.update(ROW.pipeline_id, pipeline_status=SUCCESS)
    (row,) = drive.rows()
    assert row.pipeline_status == SUCCESS
    assert row.created_at == MOMENT


def test_a_heartbeat_finds_the_drive_back_while_it_is_left_alone(project, drive):
    blocked = project.root / ".dataflow" / "drive.sqlite"
    blocked.mkdir(parents=True)
    drive.begin(ROW)
    drive.beat([ROW.pipeline_id], at=MOMENT)
    blocked.rmdir()
    later = MOMENT + timedelta(seconds=10)
    drive.beat([ROW.pipeline_id], at=later)
    (row,) = drive.rows()
    assert row.heartbeat_at == later
    drive.update(ROW.pipeline_id, pipeline_status=SUCCESS)
    assert drive.rows()[0].pipeline_status == SUCCESS
    assert not list((project.root / ".dataflow" / "drive-spool").iterdir())


def test_nobody_waits_for_a_heartbeat_that_tries_a_drive_that_is_away(project, drive):
    (project.root / ".dataflow" / "drive.sqlite").mkdir(parents=True)
    drive.begin(ROW)
    trying, over = threading.Event(), threading.Event()

    def try_long():
        with drive._lock:
            trying.set()
            over.wait(60)

    thread = threading.Thread(target=try_long)
    thread.start()
    trying.wait(60)
    drive.update(ROW.pipeline_id, pipeline_status=FAILED)
    assert thread.is_alive()
    over.set()
    thread.join()


def test_a_line_sent_twice_or_cut_short_does_no_harm(project, drive):
    spool = project.root / ".dataflow" / "drive-spool"
    spool.mkdir(parents=True)
    line = b'{"key": "a", "new": true, "only_if": null, "values": {"pipeline_id": "a", "pipeline_name": "n", "pipeline_status": "FAILED"}}'
    (spool / "1-gone.jsonl").write_bytes(line + b"\n" + line + b"\n" + line[:50])
    drive.begin(ROW)
    assert {row.pipeline_id for row in drive.rows()} == {"a", ROW.pipeline_id}


WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from dataflow_assets.execution.drive import DriveRow, open_drive
from dataflow_assets.spec.load import load
drive = open_drive(load(Path(sys.argv[1])))
for number in range(60):
    name = f"{sys.argv[2]}-{number}"
    drive.begin(DriveRow(name, "orders"))
    drive.update(name, pipeline_status="SUCCESS", rows=number)
drive.close()
"""


def test_two_processes_write_at_once_from_the_first_row_on(project):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(project.root), name]) for name in ("a", "b")]
    assert [writer.wait() for writer in writers] == [0, 0]
    drive = open_drive(project)
    rows = drive.rows(statuses=[SUCCESS])
    drive.close()
    assert sorted(row.pipeline_id for row in rows) == sorted(f"{name}-{number}" for name in "ab" for number in range(60))
    assert not list((project.root / ".dataflow" / "drive-spool").glob("*"))
