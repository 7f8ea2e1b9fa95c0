"""`dataflow history`: attempts listed and explained, and old ones removed with Dagster's records of them."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from dataflow_assets.execution.drive import FAILED, GAP_DETECTED, PHASES, RUNNING, SUCCESS, DriveRow, open_drive
from dataflow_assets.spec.load import load
from dataflow_assets.tables import utc_now

TRANSFER = {"phase_name": "source_to_stage_transfer", "status": "COMPLETED", "actual_run_seconds": 1.5, "source_count": 1200}
AUDIT = {"phase_name": "audit", "status": "FAILED", "actual_run_seconds": 0.25, "expected_run_seconds": 0.2, "error_class": "AuditFailed"}


def fill(root, *rows):
    with closing(open_drive(load(root))) as drive:
        for row in rows:
            drive.begin(row)


def left(root):
    with closing(open_drive(load(root))) as drive:
        return [row.pipeline_id for row in drive.rows()]


def attempt(name, key, status=SUCCESS, *, hours=1.0, **more):
    start = utc_now() - timedelta(hours=hours)
    end = None if status == RUNNING else start + timedelta(seconds=2.5)
    row = DriveRow(f"{name}:{key}:{status}", name, status, pipeline_start_timestamp=start, pipeline_end_timestamp=end, created_at=start)
    return replace(row, **{"unit_key": key, "rows": 1200, "heartbeat_at": start, "phases_pending": PHASES, **more})


@pytest.fixture
def filled(project):
    phases = {"source_to_stage_transfer": TRANSFER, "audit": AUDIT}
    error = {"error_class": "AuditFailed", "error_message": "10 staged\x1b[31m, 9 published\n  -> look"}
    failed = {"phases": phases, "phase_failed": "audit", "phases_pending": ("stage_cleaning",), "pipeline_retry_number": 2, **error}
    gap = DriveRow("first:2023:gap", "first", GAP_DETECTED, unit_key="2023-12-31", error_message="older")
    fill(
        project.root,
        attempt("first", "2024-01-01", hours=50),
        attempt("first", "2024-01-02", FAILED, hours=3, **failed),
        attempt("first", "2024-01-02", RUNNING, hours=0.1, host="worker-7", process_id=42),
        attempt("third", "2024-01-01", hours=2),
        attempt("departed", "all", hours=24 * 40),
        replace(gap, created_at=utc_now() - timedelta(days=60)),
    )
    return project


def test_attempts_are_listed_newest_first(call, filled):
    answer = call("history", "--project", filled.root)
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert [line.split()[2:4] for line in lines[1:4]] == [["first", "2024-01-02"], ["third", "2024-01-01"], ["first", "2024-01-02"]]
    assert "on worker-7, last heard of" in lines[1]
    assert "3    1,200  2.5s  ..+.!..  audit: 10 staged [31m, 9 published" in lines[3]
    assert "\x1b[31m, 9" not in answer.out
    assert "Next: dataflow history show first:2024-01-02:FAILED" in answer.out


def test_attempts_are_chosen(call, filled):
    def ids(*words):
        return [row["pipeline_id"] for row in call("history", *words, "--json", "--project", filled.root).json["attempts"]]

    assert len(ids()) == 6
    assert ids("third") == ["third:2024-01-01:SUCCESS"]
    assert ids("tag:core", "--status", "failed", "--status", "GAP") == ["first:2024-01-02:FAILED", "first:2023:gap"]
    assert ids("--last", "1") == ["first:2024-01-02:RUNNING"]
    assert ids("--since", "12h") == ["first:2024-01-02:RUNNING", "third:2024-01-01:SUCCESS", "first:2024-01-02:FAILED"]
    assert len(ids("--since", "2020-01-01")) == 6
    assert ids("list", "first", "--window", "2024-01-02", "--status", "failed") == ["first:2024-01-02:FAILED"]
    assert ids("departed") == ["departed:all:SUCCESS"]  # no longer in the project


def test_one_attempt_is_explained(call, filled):
    answer = call("history", "show", "first:2024-01-02:FAILED", "--project", filled.root)
    assert answer.code == 0
    assert "source_to_stage_transfer  COMPLETED  1.500s            source_count 1,200" in answer.out
    assert "audit                     FAILED     0.250s  0.200s" in answer.out
    assert "stage_cleaning            pending" in answer.out
    assert "AuditFailed: 10 staged [31m, 9 published" in answer.out
    assert "try       3" in answer.out
    detailed = call("history", "first", "--window", "2024-01-02", "--project", filled.root)
    assert "worker    process 42 on worker-7" in detailed.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["frist"], "did you mean 'first'"),
        (["--since", "soon"], "--since 'soon' is no moment"),
        (["--since", "99999999d"], "--since '99999999d' is no moment"),
        (["show", "nothing"], "there is no attempt 'nothing'"),
        (["queries", "latest_rum"], "did you mean 'latest_run'"),
        (["clean", "--pipeline", "frist"], "did you mean 'first'"),
        (["--status", "done"], "is not one of"),
    ],
)
def test_what_is_asked_wrong_is_answered(call, filled, words, said):
    answer = call("history", *words, "--project", filled.root)
    assert answer.code == 2
    assert said in answer.err


def test_a_project_without_attempts_says_what_to_do(call, project):
    assert call("history", "--project", project.root).out == "Nothing was tried yet.\nNext: dataflow run\n"
    assert call("history", "--status", "failed", "--project", project.root).out == "No attempt fits.\n"
    assert "There is nothing older than 30 days." in call("history", "clean", "--project", project.root).out
    assert call("history", "clean", "--days-old", "1e12", "--project", project.root).code == 0


def test_queries_are_for_the_database_of_the_drive(call, project):
    text = call("history", "queries", "count_mismatch", "--project", project.root).out
    assert "json_extract(audit_phase, '$.source_count')" in text
    assert text.count(";") == 1
    file = project.root / "dataflow_project.yml"
    text = file.read_text().replace(
        "connections:", "drive: {connection: sf, schema: ops}\nconnections:\n  sf: {type: snowflake, account: a}"
    )
    file.write_text(text)
    found = call("history", "queries", "--json", "--project", project.root).json
    assert found["kind"] == "snowflake"
    assert "audit_phase:source_count::number" in found["queries"]["count_mismatch"]
    assert "FROM ops.pipeline_execution_drive" in found["queries"]["count_mismatch"]


def test_old_attempts_go_and_those_under_way_stay(call, filled):
    answer = call("history", "clean", "--days_old", "0", "--pipeline", "first", "--project", filled.root)
    assert "3 attempts and 0 runs can go" in answer.out
    assert "To stay: 1 attempt under way" in answer.out
    assert "Next: dataflow history clean --yes --days-old 0 --pipeline first" in answer.out
    assert len(left(filled.root)) == 6
    answer = call("history", "clean", "--days-old", "30", "--yes", "--json", "--project", filled.root)
    assert sorted(answer.json["attempts"]) == ["departed:all:SUCCESS", "first:2023:gap"]  # a gap never started, and has an age
    assert answer.json["removed"] is True
    assert len(left(filled.root)) == 4


def test_dagsters_records_go_with_them_but_for_what_the_ui_shows(call, project):
    for words in ([], ["--window", "2024-01-01"], ["--full-refresh"]):
        assert call("run", "--select", "first", *words, "--project", project.root).code == 0
    rows = call("history", "first", "--json", "--project", project.root).json["attempts"]
    assert len(rows) == 7
    assert {row["pipeline_status"] for row in rows} == {"SUCCESS"}
    (newest,) = {row["run_id"] for row in rows[:3]}
    found = call("history", "clean", "--days-old", "0", "--yes", "--json", "--project", project.root).json
    assert len(found["attempts"]) == 7
    assert [kept["run_id"] for kept in found["runs_kept"]] == [newest]
    assert "first/publish 2024-01-01" in found["runs_kept"][0]["needed_for"]
    assert len(found["runs"]) == 2
    assert left(project.root) == []
    again = call("history", "clean", "--days-old", "0", "--project", project.root).out
    assert "0 attempts and 0 runs can go" in again
    assert "To stay: 1 run that made the newest record" in again
    assert call("status", "--select", "first", "--json", "--project", project.root).json["pipelines"][0]["windows"]["published"] == 3
