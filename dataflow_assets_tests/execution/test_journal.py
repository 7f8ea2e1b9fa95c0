"""What a run writes into the drive table: one row per attempt, whatever becomes of it."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from contextlib import closing
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_assets.errors import ConnectionFailed
from dataflow_assets.execution.drive import FAILED, PHASES, RUNNING, SKIPPED, SUCCESS, Drive, open_drive, open_drive_connector
from dataflow_assets.execution.journal import Journal, duration_text, record_skip, row_id
from dataflow_assets.execution.run import RunRequest, run
from dataflow_assets.failpoints import VARIABLE
from dataflow_assets.tables import TableName
from dataflow_assets_tests.execution.workshop import Workshop, days

PIPELINE = """\
pipeline_name: daily
event_time_column: ts
windows: {every: day, begin: 2024-01-01, timezone: Europe/Berlin}
phases: {audit: {expected_run_duration: 90s}}
steps:
  - id: read
    type: source
    source_type: parquet
    config: {file_path: rows.parquet}
    checks: [{column: value, min_value: 0}]
  - id: doubled
    type: transform
    kind: sql
    depends_on: [read]
    config: {query: "select * from read where id < 1000"}
  - id: publish
    type: endpoint
    endpoint_type: parquet
    depends_on: [doubled]
    config: {file_path: lake}
"""
NOW = datetime(2024, 1, 4, tzinfo=UTC)
_numbers = itertools.count()


@pytest.fixture
def workshop(tmp_path):
    made = Workshop(tmp_path, now=NOW)
    made.pipeline(PIPELINE)
    made.write("rows.parquet", days())
    return made


def journaled(workshop, **keys):
    """Run what is due with a journal; the rows, newest first."""
    project, plan = workshop.load()
    windows = tuple(todo.window for todo in workshop.status() if todo.run)
    request = RunRequest(project, plan, windows, f"run{next(_numbers)}-0", workshop.now, **keys)
    with closing(open_drive(project)) as drive, closing(Journal(drive, request, run_id="run")) as journal:
        for event in run(request):
            journal.hear(event)
    return rows(workshop)


def rows(workshop, **asked):
    project, _ = workshop.load()
    with closing(open_drive(project)) as drive:
        return drive.rows(**asked)


def broken(workshop, *, day=1):
    table = days()
    values = [-1 if number // 4 == day else number for number in range(table.num_rows)]
    workshop.write("rows.parquet", table.set_column(2, "value", pa.array(values)))


def test_a_window_that_is_loaded_leaves_a_row(workshop):
    found = journaled(workshop)
    assert [(row.unit_key, row.pipeline_status) for row in found] == [(f"2024-01-0{day}", SUCCESS) for day in (3, 2, 1)]
    row = found[-1]
    assert row.query_window_start == datetime(2023, 12, 31, 23, tzinfo=UTC)
    assert (row.target_date, row.query_window_duration) == (date(2024, 1, 1), "24h")
    assert (row.pipeline_retry_number, row.phase_failed, row.error_class, row.phases_pending) == (0, None, None, ())
    assert (row.process_id, row.run_id, row.rows) == (os.getpid(), "run", 4)
    assert (*row.phases_completed, *row.phases_skipped) == PHASES
    assert row.phases["source_to_stage_transfer"]["source_count"] == 4
    assert {row.phases["audit"][name] for name in ("source_count", "stage_count", "target_count")} == {4}
    assert row.phases["target_cleaning"]["reason"] == "the pipeline keeps its windows for ever"
    for name in row.phases_completed:
        phase = row.phases[name]
        assert phase["phase_name"] == name
        assert row.pipeline_start_timestamp <= datetime.fromisoformat(phase["start_timestamp"]) <= row.pipeline_end_timestamp
        assert 0 <= phase["actual_run_seconds"] <= (row.pipeline_end_timestamp - row.pipeline_start_timestamp).total_seconds()


def test_durations_stand_beside_what_is_usual_or_written(workshop):
    journaled(workshop)
    workshop.write("rows.parquet", days(count=4))
    workshop.now = datetime(2024, 1, 5, tzinfo=UTC)
    row = journaled(workshop)[0]
    assert row.phases["audit"]["expected_run_duration"] == "1m 30s"
    assert row.phases["source_to_stage_transfer"]["expected_run_seconds"] > 0
    assert row.phases["target_cleaning"]["expected_run_seconds"] is None


def test_a_failed_check_is_the_phase_that_failed(workshop):
    broken(workshop)
    found = {row.unit_key: row for row in journaled(workshop)}
    assert [found[f"2024-01-0{day}"].pipeline_status for day in (1, 2, 3)] == [SUCCESS, FAILED, SUCCESS]
    row = found["2024-01-02"]
    assert (row.phase_failed, row.error_class) == ("pre_validation", "CheckFailed")
    assert row.phases["pre_validation"]["checks_failed"] == 1
    assert "not at least 0" in row.phases["pre_validation"]["error_message"]
    assert row.phases_completed == ("stale_pipeline_handling", "source_to_stage_transfer")
    assert row.phases_pending == ("stage_to_target_transfer", "audit", "stage_cleaning", "target_cleaning")


def test_tries_are_counted_until_one_succeeds(workshop):
    broken(workshop)
    journaled(workshop)
    journaled(workshop)
    workshop.write("rows.parquet", days())
    journaled(workshop)
    tries = [(row.pipeline_retry_number, row.pipeline_status) for row in rows(workshop, keys=["2024-01-02"])]
    assert tries == [(2, SUCCESS), (1, FAILED), (0, FAILED)]
    assert {row.pipeline_retry_number for row in rows(workshop, keys=["2024-01-01", "2024-01-03"])} == {0}


def test_tries_within_a_run_are_attempts_of_their_own(workshop, monkeypatch):
    import dataflow_assets.execution.publishing as publishing

    workshop.pipeline("retries: {max_retries: 2, delay: 1ms}\n" + PIPELINE)
    left = [ConnectionFailed("the line is busy"), ConnectionFailed("the line is busy")]

    def audit(*_):
        if left:
            raise left.pop()

    monkeypatch.setattr(publishing, "_audit", audit)
    found = [row for row in journaled(workshop) if row.unit_key == "2024-01-01"]
    assert [(row.pipeline_retry_number, row.pipeline_status) for row in found] == [(2, SUCCESS), (1, FAILED), (0, FAILED)]
    assert len({row.attempt for row in found}) == 3
    assert (found[1].phases["audit"]["error_type"], found[1].phases["audit"]["error_class"]) == ("transient", "ConnectionFailed")


def test_what_is_resumed_is_shown_as_skipped(workshop, monkeypatch):
    import dataflow_assets.execution.publishing as publishing

    def fails(*_):
        raise RuntimeError("no room")

    monkeypatch.setattr(publishing, "_audit", fails)
    row = journaled(workshop)[0]
    assert (row.phase_failed, row.error_class, row.error_message) == ("audit", "RuntimeError", "no room")
    monkeypatch.undo()
    row = journaled(workshop)[-1]
    row = rows(workshop, keys=[row.unit_key])[0]
    assert "source_to_stage_transfer" in row.phases_skipped
    assert "earlier attempt" in row.phases["source_to_stage_transfer"]["reason"]
    assert row.phases["source_to_stage_transfer"]["resumed"] == ["read", "doubled"]


def test_checks_alone_are_no_attempt(workshop):
    found = journaled(workshop)
    project, plan = workshop.load()
    request = RunRequest(project, plan, (workshop.status()[0].window,), "checks-0", NOW, checks_only=True)
    assert list(run(request))
    assert rows(workshop) == found


def test_a_run_that_is_interrupted_says_so(workshop):
    project, plan = workshop.load()
    windows = tuple(todo.window for todo in workshop.status())
    request = RunRequest(project, plan, windows, "run-0", NOW)
    with closing(open_drive(project)) as drive, closing(Journal(drive, request)) as journal:
        for event in itertools.islice(run(request), 2):
            journal.hear(event)
        assert journal.open_ids == [row_id("daily", "2024-01-01", "run-0")]
    (row,) = rows(workshop)
    assert (row.pipeline_status, row.error_class, row.error_message) == (FAILED, "Interrupted", "interrupted at step read")
    assert (row.phases_completed, row.phases_pending) == (PHASES[:1], PHASES[1:])


def test_an_interrupt_fails_the_phase_that_it_falls_into(workshop, monkeypatch):
    import dataflow_assets.execution.publishing as publishing

    def stops(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(publishing, "_audit", stops)
    with pytest.raises(KeyboardInterrupt):
        journaled(workshop)
    (row,) = rows(workshop)
    assert (row.pipeline_status, row.phase_failed, row.error_class) == (FAILED, "audit", "Interrupted")
    assert row.phases["audit"]["error_class"] == "KeyboardInterrupt"
    assert row.phases_pending == ("stage_cleaning", "target_cleaning")


def test_a_drive_that_is_away_does_not_stop_the_load(workshop):
    (workshop.folder / ".dataflow" / "drive.sqlite").mkdir(parents=True)
    project, plan = workshop.load()
    windows = tuple(todo.window for todo in workshop.status())
    said: list[str] = []
    request = RunRequest(project, plan, windows, "run-0", NOW)
    with closing(open_drive(project, warn=said.append)) as drive, closing(Journal(drive, request)) as journal:
        for event in run(request):
            journal.hear(event)
    assert len(said) == 1
    assert len(workshop.rows("lake")) == 12
    (workshop.folder / ".dataflow" / "drive.sqlite").rmdir()
    workshop.write("rows.parquet", days(count=4))
    workshop.now = datetime(2024, 1, 5, tzinfo=UTC)
    assert {(row.unit_key, row.pipeline_status) for row in journaled(workshop)} == {(f"2024-01-0{day}", SUCCESS) for day in (1, 2, 3, 4)}


def test_a_connection_that_is_written_wrong_does_not_stop_the_load(workshop):
    workshop.write(
        "dataflow_project.yml",
        "connections: {ops: {type: postgres, dsn: '${NO_SUCH_VARIABLE_HERE}'}}\ndrive: {connection: ops}\n",
    )
    project, plan = workshop.load()
    said: list[str] = []
    request = RunRequest(project, plan, (workshop.status()[0].window,), "run-0", NOW)
    with closing(open_drive(project, warn=said.append)) as drive, closing(Journal(drive, request)) as journal:
        for event in run(request):
            journal.hear(event)
    assert len(workshop.rows("lake")) == 4
    assert len(said) == 1


VICTIM = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from dataflow_assets_tests.execution.test_journal import Workshop, journaled
journaled(Workshop(Path(sys.argv[1]), now=datetime(2024, 1, 4, tzinfo=UTC)))
"""


def test_a_killed_run_leaves_its_row_running(workshop):
    environment = {**os.environ, VARIABLE: "publish.ready=kill"}
    killed = subprocess.run([sys.executable, "-c", VICTIM, str(workshop.folder)], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    (row,) = rows(workshop, statuses=[RUNNING])
    assert (row.unit_key, row.phases, row.phases_pending) == ("2024-01-01", {}, PHASES)
    assert row.process_id not in {None, os.getpid()}
    assert row.heartbeat_at is not None
    again = [row for row in journaled(workshop) if row.unit_key == "2024-01-01"]
    assert [(row.pipeline_status, row.pipeline_retry_number) for row in again] == [(SUCCESS, 1), (RUNNING, 0)]


def test_a_pipeline_that_is_not_run_leaves_a_row_too(workshop):
    project, _ = workshop.load()
    record_skip(project, "daily", reason="upstream did not succeed")
    (row,) = rows(workshop)
    assert (row.pipeline_status, row.error_message, row.pipeline_start_timestamp) == (SKIPPED, "upstream did not succeed", None)
    assert {row.pipeline_retry_number for row in journaled(workshop)} == {0}


class _Counting:
    """A connector whose statements are counted."""

    def __init__(self, connector):
        self._connector, self.reads, self.writes = connector, 0, 0
        self.kind = connector.kind

    def record_forms(self):
        return self._connector.record_forms()

    def read_records(self, statement):
        self.reads += 1
        return self._connector.read_records(statement)

    def write_records(self, statements):
        self.writes += len(statements)
        self._connector.write_records(statements)

    def close(self):
        self._connector.close()


def test_an_attempt_costs_two_statements_and_a_run_three(workshop):
    journaled(workshop)  # the table is there
    project, plan = workshop.load()
    counting = _Counting(open_drive_connector(project))
    windows = tuple(todo.window for todo in workshop.status())
    request = RunRequest(project, plan, windows, "counted-0", NOW)
    drive = Drive(lambda: counting, TableName("pipeline_execution_drive"), spool=workshop.folder / "spool")
    with closing(drive), closing(Journal(drive, request)) as journal:
        for event in run(request):
            journal.hear(event)
    assert len(windows) == 3
    assert counting.writes == 2 * len(windows)
    assert counting.reads <= 3  # is the table there, tries so far, what is usual


@given(st.integers(0, 10**7))
def test_a_duration_says_its_seconds(seconds):
    units = {"h": 3600, "m": 60, "s": 1}
    text = duration_text(seconds)
    parts = [(int(part[:-1]), part[-1]) for part in text.split()]
    assert sum(number * units[unit] for number, unit in parts) == seconds
    assert all(number < 60 for number, unit in parts if unit != "h")


def test_durations_as_the_drive_system_writes_them():
    assert [duration_text(seconds) for seconds in (5445, 172_800, 0, 59.6)] == ["1h 30m 45s", "48h", "0s", "1m"]


@given(st.text(max_size=400), st.text(max_size=60))
def test_ids_fit_a_key_and_stay_apart(name, key):
    first, second = row_id(name, key, "run-0"), row_id(name, key, "run-1")
    assert first != second
    assert len(first.encode()) <= 180


def test_an_expected_duration_is_a_duration(workshop):
    workshop.pipeline(PIPELINE.replace("90s", "soon"))
    with pytest.raises(Exception, match=r"p.yml:4:41: 'soon' is not a duration"):
        workshop.load()
