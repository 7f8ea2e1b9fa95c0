"""The life of a window: order, resume, refusal, and what the ledger says afterwards."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from dataflow_assets import failpoints
from dataflow_assets.errors import CheckFailed, TransformFailed
from dataflow_assets.execution.events import CheckEvaluated, StepStarted
from dataflow_assets_tests.execution.workshop import Workshop, checks, days, failures, finished

WINDOWED = """
pipeline_name: load
event_time_column: ts
windows: {every: day, begin: 2024-01-01, end: 2024-01-04}
steps:
  - {id: source, type: source, source_type: parquet, config: {file_path: source.parquet}}
  - {id: valid, type: check, kind: validator, depends_on: [source], config: {checks: [{column: value, max_value: 1000}]}}
  - {id: target, type: endpoint, endpoint_type: parquet, depends_on: [valid], config: {file_path: out/}}
"""
TRANSFORMED = """
pipeline_name: load
steps:
  - {id: source, type: source, source_type: parquet, config: {file_path: source.parquet}}
  - id: doubled
    type: transform
    kind: python
    depends_on: [source]
    config: {file: double.py, function: double}
  - {id: target, type: endpoint, endpoint_type: parquet, depends_on: [doubled], config: {file_path: out.parquet, mode: replace}}
"""
DOUBLE = """
import pyarrow as pa
import pyarrow.compute as pc

def double(table: pa.Table) -> pa.Table:
    return table.set_column(2, "value", pc.multiply(table["value"], 2))
"""


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    shop = Workshop(tmp_path)
    shop.write("source.parquet", days())
    return shop


def test_every_window_is_published_once_with_its_ledger_row(shop: Workshop) -> None:
    shop.pipeline(WINDOWED)
    events = shop.run()
    assert failures(events) == []
    assert [row["id"] for row in shop.rows("out")] == list(range(12))
    entries = shop.ledger()["target"]
    assert [(entry.unit.key, entry.rows) for entry in entries] == [("2024-01-01", 4), ("2024-01-02", 4), ("2024-01-03", 4)]
    assert [todo.state for todo in shop.status()] == ["published"] * 3
    assert shop.run() == []


def test_a_rerun_replaces_its_own_window_only(shop: Workshop) -> None:
    shop.pipeline(WINDOWED)
    shop.run()
    changed = days().to_pylist()
    for row in changed:
        row["value"] += 1
    shop.write("source.parquet", pa.Table.from_pylist(changed, schema=days().schema))
    asked = shop.status(keys=["2024-01-02"])
    shop.run(todo=[todo for todo in asked if todo.key == "2024-01-02"])
    assert [row["value"] % 10 for row in shop.rows("out")] == [0] * 4 + [1] * 4 + [0] * 4
    assert {entry.unit.key[-1]: entry.generation for entry in shop.ledger()["target"]} == {"1": 1, "2": 2, "3": 1}


def test_a_failed_blocking_check_leaves_the_target_as_it_was_and_other_windows_go_on(shop: Workshop) -> None:
    shop.pipeline(WINDOWED)
    bad = days().to_pylist()
    bad[5]["value"] = 5000
    shop.write("source.parquet", pa.Table.from_pylist(bad, schema=days().schema))
    events = shop.run()
    (failure,) = failures(events)
    assert isinstance(failure.error, CheckFailed)
    assert (failure.key, failure.step) == ("2024-01-02", "valid")
    assert "Data validation failed" in str(failure.error)
    assert [row["id"] for row in shop.rows("out")] == [0, 1, 2, 3, 8, 9, 10, 11]
    assert {todo.key: todo.state for todo in shop.status()}["2024-01-02"] == "failed"


def test_the_mended_window_runs_again_and_only_that(shop: Workshop) -> None:
    test_a_failed_blocking_check_leaves_the_target_as_it_was_and_other_windows_go_on(shop)
    shop.write("source.parquet", days())
    events = shop.run()
    assert {event.key for event in events} == {"2024-01-02"}
    assert [row["id"] for row in shop.rows("out")] == list(range(12))


def test_checks_on_an_endpoint_run_before_any_endpoint_publishes(shop: Workshop) -> None:
    shop.pipeline("""
pipeline_name: load
steps:
  - {id: source, type: source, source_type: parquet, config: {file_path: source.parquet}}
  - {id: first, type: endpoint, endpoint_type: parquet, depends_on: [source], config: {file_path: first.parquet, mode: replace}}
  - id: second
    type: endpoint
    endpoint_type: parquet
    depends_on: [source]
    checks: [{column: value, max_value: 20}]
    config: {file_path: second.parquet, mode: replace}
""")
    (failure,) = failures(shop.run())
    assert isinstance(failure.error, CheckFailed)
    assert not (shop.folder / "first.parquet").exists()


def test_the_next_attempt_begins_from_the_verified_stage(shop: Workshop) -> None:
    shop.pipeline(TRANSFORMED)
    shop.write("double.py", "def double(table):\n    raise ValueError('not today')\n")
    (failure,) = failures(shop.run())
    assert isinstance(failure.error, TransformFailed)
    shop.write("double.py", DOUBLE)
    events = shop.run()
    assert failures(events) == []
    assert [report.resumed for report in finished(events, "source")] == [True]
    assert [row["value"] for row in shop.rows("out.parquet")] == [i * 20 for i in range(12)]
    assert list((shop.folder / ".dataflow" / "stages").rglob("*.parquet")) == []


def test_a_damaged_stage_is_made_anew(shop: Workshop) -> None:
    shop.pipeline(TRANSFORMED)
    shop.write("double.py", "def double(table):\n    raise ValueError('not today')\n")
    shop.run()
    (part,) = (shop.folder / ".dataflow" / "stages").rglob("source/*.parquet")
    data = bytearray(part.read_bytes())
    data[40] ^= 255
    part.write_bytes(bytes(data))
    shop.write("double.py", DOUBLE)
    events = shop.run()
    assert [report.resumed for report in finished(events, "source")] == [False]
    assert [row["value"] for row in shop.rows("out.parquet")] == [i * 20 for i in range(12)]


def test_a_changed_step_invalidates_its_stage(shop: Workshop) -> None:
    shop.pipeline(TRANSFORMED)
    shop.write("double.py", "def double(table):\n    raise ValueError('not today')\n")
    shop.run()
    shop.pipeline(TRANSFORMED.replace("{file_path: source.parquet}", "{file_path: source.parquet, columns: [id, ts, value]}"))
    shop.write("double.py", DOUBLE)
    assert [report.resumed for report in finished(shop.run(), "source")] == [False]


def test_an_append_without_windows_is_one_batch_for_a_run_and_its_retries(shop: Workshop) -> None:
    shop.pipeline("""
pipeline_name: load
steps:
  - {id: source, type: source, source_type: parquet, config: {file_path: source.parquet}}
  - {id: target, type: endpoint, endpoint_type: parquet, depends_on: [source], config: {file_path: out/, mode: append}}
""")
    shop.run(batch="run-1")
    events = shop.run(batch="run-1")
    (report,) = finished(events, "target")
    assert report.published is not None
    assert report.published.already
    assert len(shop.rows("out")) == 12
    shop.run(batch="run-2")
    assert len(shop.rows("out")) == 24


APPENDED_TWICE = """
pipeline_name: load
retries: false
steps:
  - {id: source, type: source, source_type: parquet, config: {file_path: source.parquet}}
  - {id: doubled, type: transform, kind: python, depends_on: [source], config: {file: double.py, function: double}}
  - {id: target, type: endpoint, endpoint_type: parquet, depends_on: [doubled], config: {file_path: out/, mode: append}}
  - {id: also, type: endpoint, endpoint_type: parquet, depends_on: [doubled], config: {file_path: also/, mode: append}}
"""


@pytest.fixture
def half_appended(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """Of two endpoints the first has appended its rows, and the second has failed."""
    shop.pipeline(APPENDED_TWICE)
    shop.write("double.py", DOUBLE)
    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "_visits", {})
        patch.setenv(failpoints.VARIABLE, "publish.ready=error@2")
        (failure,) = failures(shop.run())
    assert (failure.step, len(shop.rows("out"))) == ("also", 12)
    return shop


def test_rows_that_were_appended_are_not_appended_again_by_a_transform_that_was_mended(half_appended: Workshop) -> None:
    half_appended.write("double.py", DOUBLE.replace("2))", "3))"))
    events = half_appended.run()
    assert failures(events) == []
    assert [report.resumed for report in (*finished(events, "source"), *finished(events, "doubled"))] == [True, False]
    assert [len(half_appended.rows(name)) for name in ("out", "also")] == [12, 12]


def test_checks_alone_leave_the_stages_of_a_failed_attempt_to_the_next_one(half_appended: Workshop) -> None:
    assert failures(half_appended.run(checks_only=True, steps=frozenset({"doubled"}))) == []
    events = half_appended.run()
    assert failures(events) == []
    assert [report.resumed for report in (*finished(events, "source"), *finished(events, "doubled"))] == [True, True]
    assert [len(half_appended.rows(name)) for name in ("out", "also")] == [12, 12]


def test_state_advances_only_with_the_rows(shop: Workshop) -> None:
    shop.pipeline("""
pipeline_name: load
event_time_column: ts
steps:
  - {id: source, type: source, source_type: parquet, config: {file_path: source.parquet}}
  - id: fresh
    type: transform
    kind: sql
    depends_on: [source]
    config:
      query: select * from source where ts > cast('{{ state.get('last_processed_date', '2024-01-01') }}' as timestamptz)
  - {id: target, type: endpoint, endpoint_type: parquet, depends_on: [fresh], config: {file_path: out/, mode: append}}
""")
    assert failures(shop.run()) == []
    first = shop.rows("out")
    assert [row["id"] for row in first] == list(range(1, 12))
    assert shop.ledger()["target"][0].state["last_processed_date"].startswith("2024-01-03 15:00")
    assert failures(shop.run()) == []
    assert shop.rows("out") == first
    shop.write("source.parquet", days(count=4))
    assert failures(shop.run()) == []
    assert [row["id"] for row in shop.rows("out")] == list(range(1, 16))


def test_a_subset_of_steps_runs_what_it_needs_and_reports_what_was_asked(shop: Workshop) -> None:
    shop.pipeline(TRANSFORMED)
    shop.write("double.py", DOUBLE)
    events = shop.run(steps=frozenset({"doubled"}))
    assert {event.step for event in events if isinstance(event, StepStarted)} == {"doubled"}
    assert not (shop.folder / "out.parquet").exists()
    assert failures(shop.run(steps=frozenset({"target"}))) == []
    assert len(shop.rows("out.parquet")) == 12


def test_checks_alone_publish_nothing_and_look_at_what_is_published(shop: Workshop) -> None:
    shop.pipeline(WINDOWED.replace("file_path: out/}}", "file_path: out/}, checks: [{column: value, max_value: 1000, name: published}]}"))
    shop.run()
    before = {path: path.stat().st_mtime_ns for path in (shop.folder / "out").glob("*.parquet")}
    todo = [item for item in shop.status(keys=["2024-01-03"]) if item.key == "2024-01-03"]
    (shop.folder / "source.parquet").rename(shop.folder / "elsewhere.parquet")
    events = shop.run(todo=todo, checks_only=True, steps=frozenset({"target"}))
    assert failures(events) == []
    assert checks(events) == {"published": True}
    assert {path: path.stat().st_mtime_ns for path in (shop.folder / "out").glob("*.parquet")} == before


def test_a_metric_check_learns_from_the_ledger(shop: Workshop) -> None:
    source = pa.Table.from_pylist(
        [row | {"value": row["id"] % 2 if row["id"] // 8 != 13 else 500} for row in days(count=20, rows_a_day=4).to_pylist() * 2],
        schema=days().schema,
    )
    shop.write("source.parquet", source)
    shop.now = shop.now.replace(day=25)
    shop.pipeline(
        WINDOWED.replace("end: 2024-01-04", "end: 2024-01-21").replace(
            "checks: [{column: value, max_value: 1000}]", "checks: [{anomaly: {name: mean_value, metric: avg(value), min_window_size: 5}}]"
        )
    )
    events = shop.run()
    assert failures(events) == []
    entries = shop.ledger()["target"]
    assert len(entries) == 20
    assert all("valid.mean_value" in entry.metrics for entry in entries)


def test_the_audit_reads_the_target_back_when_asked(shop: Workshop) -> None:
    shop.pipeline(WINDOWED.replace("file_path: out/}", "file_path: out/, audit: checksum}"))
    assert failures(shop.run()) == []


def test_a_full_refresh_of_an_appended_table_without_windows_replaces_it(shop: Workshop) -> None:
    shop.pipeline("""
pipeline_name: load
steps:
  - {id: source, type: source, source_type: parquet, config: {file_path: source.parquet}}
  - {id: target, type: endpoint, endpoint_type: parquet, depends_on: [source], config: {file_path: out.parquet, mode: append}}
""")
    shop.run()
    shop.run()
    assert len(shop.rows("out.parquet")) == 24
    assert failures(shop.run(full_refresh=True)) == []
    assert len(shop.rows("out.parquet")) == 12


def test_a_stage_made_by_older_code_is_not_resumed(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.pipeline(TRANSFORMED)
    shop.write("double.py", DOUBLE)
    monkeypatch.setattr(failpoints, "_visits", {})
    monkeypatch.setenv(failpoints.VARIABLE, "publish.ready=error")
    (failure,) = failures(shop.run())
    assert failure.step == "target"
    monkeypatch.delenv(failpoints.VARIABLE)
    shop.write("double.py", DOUBLE.replace("2))", "3))"))
    events = shop.run()
    assert [report.resumed for report in finished(events, "source") + finished(events, "doubled")] == [True, False]
    assert [row["value"] for row in shop.rows("out.parquet")] == [i * 30 for i in range(12)]


def test_a_stage_of_an_older_source_file_is_not_resumed(shop: Workshop) -> None:
    shop.pipeline(TRANSFORMED)
    shop.write("double.py", "def double(table):\n    raise ValueError('not today')\n")
    shop.run()
    shop.write("source.parquet", days(count=5))
    shop.write("double.py", DOUBLE)
    events = shop.run()
    assert [report.resumed for report in finished(events, "source")] == [False]
    assert len(shop.rows("out.parquet")) == 20


def test_the_anomaly_of_a_metric_is_judged_by_the_windows_before(shop: Workshop) -> None:
    rows = days(count=20, rows_a_day=4).to_pylist()
    for row in rows:
        row["value"] = 500 if row["id"] // 4 == 13 else 100 + row["id"] % 4 + row["id"] // 4 % 3
    shop.write("source.parquet", pa.Table.from_pylist(rows, schema=days().schema))
    shop.now = shop.now.replace(day=25)
    shop.pipeline(
        WINDOWED.replace("end: 2024-01-04", "end: 2024-01-21").replace(
            "checks: [{column: value, max_value: 1000}]", "checks: [{anomaly: {name: mean_value, metric: avg(value), min_window_size: 5}}]"
        )
    )
    events = shop.run()
    flagged = [event.key for event in events if isinstance(event, CheckEvaluated) and not event.result.passed]
    assert flagged == ["2024-01-14"]
    assert len(shop.rows("out")) == 80  # it warns and does not block


def test_a_dft_connection_may_name_the_file_of_its_steps(shop: Workshop) -> None:
    shop.write(
        "dft_project.yml",
        "project_name: old\n"
        "sources: {raw: {type: csv, file_path: raw.csv, delimiter: ';'}}\n"
        "connections: {out: {type: csv, file_path: out.csv}}\n",
    )
    shop.write("raw.csv", "id;name\n1;a\n2;b\n")
    shop.write(
        "pipelines/p.yml",
        "pipeline_name: p\nsteps:\n"
        "  - {id: s, type: source, source_type: csv, name: raw}\n"
        "  - {id: e, type: endpoint, endpoint_type: csv, name: out, depends_on: [s], config: {mode: replace}}\n",
    )
    assert failures(shop.run()) == []
    assert (shop.folder / "out.csv").read_text() == "id,name\n1,a\n2,b\n"


def test_without_an_event_time_the_state_is_yesterday_where_the_project_lives(shop: Workshop) -> None:
    shop.write("dataflow_project.yml", "project_name: test\ntimezone: Pacific/Auckland\n")
    shop.pipeline("""
pipeline_name: load
steps:
  - {id: source, type: source, source_type: parquet, config: {file_path: source.parquet}}
  - {id: target, type: endpoint, endpoint_type: parquet, depends_on: [source], config: {file_path: out.parquet, mode: replace}}
""")
    assert failures(shop.run()) == []  # noon in UTC on the 4th is past midnight of the 5th there
    assert shop.ledger()["target"][0].state["last_processed_date"] == "2024-01-04"
