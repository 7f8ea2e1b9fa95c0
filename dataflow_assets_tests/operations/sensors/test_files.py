"""Sensors of type files: each file and content once, whatever happens between ticks."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dataflow_assets.errors import DataflowError, ReadFailed
from dataflow_assets_tests.operations.sensors.post import Post, windows_of

SENSOR = "orders_files_sensor"
APPENDING = """\
pipeline_name: orders
sensors: [{type: files, settle: 10s%(more)s}]
steps:
  - {id: read, type: source, source_type: csv, config: {file_path: "landing/*.csv"}}
  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: lake/orders/, mode: append}}
"""
WINDOWED = """\
pipeline_name: orders
event_time_column: at
windows: {every: day, begin: 2024-03-01}
sensors: [{type: files%(more)s}]
steps:
  - {id: read, type: source, source_type: csv, config: {file_path: "%(path)s"}}
  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: lake/orders/}}
"""


def land(post: Post, name: str, *rows: tuple[int, str]) -> Path:
    """Write a file of (id, time) at once, as a rename does."""
    path = post.folder / "landing" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("id,at\n" + "".join(f"{number},{at}\n" for number, at in rows))
    return path


def ids(post: Post) -> list[int]:
    """The ids that are published."""
    files = (post.folder / "lake" / "orders").glob("*.parquet")
    return sorted(number for file in files for number in pq.read_table(file, columns=["id"]).column(0).to_pylist())


def test_an_append_takes_exactly_the_new_files_each_content_once(post: Post) -> None:
    post.write(orders=APPENDING % {"more": ""})
    land(post, "a.csv", (1, "2024-03-01"))
    land(post, "b.csv", (2, "2024-03-01"))
    (request,) = post.tick(SENSOR)
    assert "2 new files: landing/a.csv, landing/b.csv" in request.tags["dataflow/why"]
    post.launch("orders", request)
    assert ids(post) == [1, 2]
    assert "no new file among 2" in post.skip(SENSOR)

    (post.folder / "landing" / "a.csv").touch()
    assert "no new file" in post.skip(SENSOR), "touched without a change"
    land(post, "c.csv", (3, "2024-03-01"))
    land(post, "b.csv", (22, "2024-03-01"))
    assert len(post.load(SENSOR, "orders")) == 1, "a new file, and one whose content changed"
    assert ids(post) == [1, 2, 3, 22]
    assert not post.tick(SENSOR)


def test_a_tick_that_was_lost_asks_for_the_same_run_again(post: Post) -> None:
    post.write(orders=APPENDING % {"more": ""})
    land(post, "a.csv", (1, "2024-03-01"))
    (lost,) = post.evaluate(SENSOR).run_requests
    (request,) = post.tick(SENSOR)
    assert request.run_key == lost.run_key
    post.launch("orders", request)
    post.launch("orders", request)
    assert ids(post) == [1], "the same files are one unit, however often they are run"
    post.cursors.clear()
    assert not post.evaluate(SENSOR).run_requests, "the ledger has these files, whatever became of the cursor"


def test_a_failed_run_is_asked_for_again_and_without_what_is_gone(post: Post) -> None:
    post.write(orders=APPENDING % {"more": ""})
    land(post, "a.csv", (1, "2024-03-01"))
    land(post, "b.csv", (2, "2024-03-01"))
    (request,) = post.tick(SENSOR)
    (post.folder / "landing" / "b.csv").unlink()
    failed = post.launch("orders", request, success=False)
    (failure,) = [event for event in failed.all_events if event.is_step_failure]
    assert "b.csv is gone since the sensor found it" in str(failure.event_specific_data)
    assert "1 waits to be asked for again" in post.skip(SENSOR)
    post.now += timedelta(minutes=1)
    (again,) = post.tick(SENSOR)
    assert again.run_key != request.run_key
    assert "asked for again" in again.tags["dataflow/why"]
    post.launch("orders", again)
    assert ids(post) == [1]
    post.now += timedelta(days=1)
    assert not post.tick(SENSOR)


def test_files_whose_folder_was_away_are_new_when_it_is_back(post: Post) -> None:
    post.write(orders=APPENDING % {"more": ""})
    land(post, "a.csv", (1, "2024-03-01"))
    (request,) = post.tick(SENSOR)
    (post.folder / "landing").rename(post.folder / "away")
    post.launch("orders", request, success=False)
    post.skip(SENSOR)
    post.skip(SENSOR)
    (post.folder / "away").rename(post.folder / "landing")
    assert not post.tick(SENSOR), "the run that failed was asked for by this key"
    post.now += timedelta(minutes=1)
    assert len(post.load(SENSOR, "orders")) == 1
    assert ids(post) == [1]

    (post.folder / "landing").rename(post.folder / "away")
    post.skip(SENSOR)
    (post.folder / "away").rename(post.folder / "landing")
    assert not post.tick(SENSOR), "what was loaded is known for longer than it is there"


def test_a_file_that_is_written_anew_before_its_run_is_loaded_once(post: Post) -> None:
    post.write(orders=APPENDING % {"more": ""})
    land(post, "a.csv", (1, "2024-03-01"))
    land(post, "b.csv", (2, "2024-03-01"))
    (request,) = post.tick(SENSOR)
    land(post, "b.csv", (22, "2024-03-01"))
    os.utime(post.folder / "landing" / "a.csv", (0, 0))
    post.launch("orders", request)
    assert ids(post) == [1]
    assert len(post.load(SENSOR, "orders")) == 1
    assert ids(post) == [1, 22]


def test_a_file_that_is_being_written_or_lacks_its_marker_is_not_taken(post: Post) -> None:
    post.write(orders=APPENDING % {"more": ", marker: .done"})
    path = land(post, "a.csv", (1, "2024-03-01"))
    assert "1 file without .done" in post.skip(SENSOR)
    Path(f"{path}.done").touch()
    post.now = datetime.now(UTC)
    os.utime(path, (0, 0))
    assert "may still be written to" in post.skip(SENSOR), "an old time set by a program does not hide a fresh write"
    post.now += timedelta(minutes=1)
    assert len(post.load(SENSOR, "orders")) == 1
    post.write(orders=APPENDING % {"more": ", marker: _SUCCESS"})
    land(post, "b.csv", (2, "2024-03-01"))
    assert "1 file without _SUCCESS" in post.skip(SENSOR)
    (path.parent / "_SUCCESS").touch()
    assert len(post.load(SENSOR, "orders")) == 1
    assert ids(post) == [1, 2]


def test_many_files_come_in_several_ticks_and_old_ones_may_be_left_alone(post: Post) -> None:
    post.write(orders=APPENDING % {"more": ", max_files: 40, existing: ignore"})
    land(post, "old.csv", (0, "2024-03-01"))
    assert "leaves alone what is there already: 1 file" in post.skip(SENSOR)
    for number in range(1, 101):
        land(post, f"{number:03d}.csv", (number, "2024-03-01"))
    loaded = []
    while requests := post.tick(SENSOR):
        post.launch("orders", requests[0])
        loaded.append(len(ids(post)))
    assert loaded == [40, 80, 100]
    assert ids(post) == list(range(1, 101))


def test_a_file_without_a_content_that_can_be_told_is_left_alone_like_the_others(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    post.write(orders=APPENDING % {"more": ", existing: ignore"})
    land(post, "old.csv", (0, "2024-03-01"))

    def refuse(path: object, file: object) -> str:
        raise ReadFailed("permission denied")

    with monkeypatch.context() as patched:
        patched.setattr("dataflow_assets.connectors._file_states.content_digest", refuse)
        assert "leaves alone what is there already: 1 file" in post.skip(SENSOR)
    assert not post.tick(SENSOR)


def test_files_are_asked_for_by_the_windows_of_their_rows(post: Post) -> None:
    post.write(orders=WINDOWED % {"path": "landing/*.csv", "more": ""})
    land(post, "a.csv", (1, "2024-03-01T08:00:00"), (2, "2024-03-03T08:00:00"), (9, "2023-12-31T00:00:00"))
    requests = post.load(SENSOR, "orders")
    assert windows_of(*requests) == ["2024-03-01", "2024-03-03"], "not the day between, nor the one before begin"
    assert ids(post) == [1, 2]
    land(post, "late.csv", (3, "2024-03-01T09:00:00"))
    (request,) = post.tick(SENSOR)
    assert windows_of(request) == ["2024-03-01"]
    post.launch("orders", request)
    assert ids(post) == [1, 2, 3], "the window is published whole"

    today = post.now.date()
    land(post, "today.csv", (4, f"{today}T00:00:01"))
    assert "waits for a window to end" in post.skip(SENSOR)
    post.now += timedelta(days=1)
    (request,) = post.tick(SENSOR)
    assert windows_of(request) == [today.isoformat()]


def test_a_file_that_cannot_be_read_keeps_no_other_one_back(post: Post) -> None:
    post.write(orders=WINDOWED % {"path": "landing/*.csv", "more": ""})
    (post.folder / "landing").mkdir()
    (post.folder / "landing" / "a.csv").write_text("id,when\n1,2024-03-01\n")
    land(post, "b.csv", (2, "2024-03-02T08:00:00"))
    (request,) = post.tick(SENSOR)
    assert windows_of(request) == ["2024-03-02"]
    assert "landing/a.csv cannot be read" in request.tags["dataflow/why"]
    land(post, "a.csv", (1, "2024-03-01T08:00:00"))
    (request,) = post.tick(SENSOR)
    assert windows_of(request) == ["2024-03-01"]


def test_large_files_that_cannot_be_read_keep_no_other_one_back(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataflow_assets.operations.sensors.files._READ_BYTES", 10)
    post.write(orders=WINDOWED % {"path": "landing/*.csv", "more": ""})
    (post.folder / "landing").mkdir()
    (post.folder / "landing" / "a.csv").write_text("id,when\n1,2024-03-01\n")
    land(post, "b.csv", (2, "2024-03-02T08:00:00"))
    assert windows_of(*post.tick(SENSOR)) == ["2024-03-02"]


def test_a_file_about_a_window_to_come_waits_for_it(post: Post) -> None:
    post.write(orders=WINDOWED % {"path": "landing/*.csv", "more": ""})
    day = post.now.date() + timedelta(days=3)
    land(post, "early.csv", (1, f"{day}T08:00:00"))
    assert "waits for a window to end" in post.skip(SENSOR)
    post.now += timedelta(days=4)
    assert windows_of(*post.tick(SENSOR)) == [day.isoformat()]


def test_a_window_out_of_reach_or_not_kept_is_left_whatever_comes_for_it(post: Post) -> None:
    text = WINDOWED % {"path": "landing/*.csv", "more": ""}
    post.write(orders=text.replace("begin: 2024-03-01}", "begin: 2024-03-01, x_days_back: 7d}"))
    near = post.now.date() - timedelta(days=3)
    land(post, "late.csv", (1, "2024-03-01T08:00:00"), (2, f"{near}T08:00:00"))
    (request,) = post.tick(SENSOR)
    assert windows_of(request) == [near.isoformat()]
    assert "left alone: 2024-03-01 (out of reach" in request.tags["dataflow/why"]
    post.write(orders=f"{text}retention: {{target: 30d}}\n")
    land(post, "later.csv", (3, "2024-03-02T08:00:00"))
    assert "left alone: 2024-03-02 (older than retention keeps)" in post.skip(SENSOR)


def test_what_waits_from_before_windows_were_cut_otherwise_becomes_what_is_due(post: Post) -> None:
    daily = (WINDOWED % {"path": "landing/*.csv", "more": ""}).replace("begin: 2024-03-01", "begin: 2024-03-01, end: 2024-03-02")
    post.write(orders=daily)
    land(post, "a.csv", (1, "2024-03-01T08:00:00"))
    assert windows_of(*post.tick(SENSOR)) == ["2024-03-01"], "and its run fails"
    post.write(orders=daily.replace("every: day", "every: hour"))
    ends = windows_of(*post.load(SENSOR, "orders"))
    assert ends == ["2024-03-01T00:00+0000", "2024-03-01T23:00+0000"]
    assert not post.tick(SENSOR)
    post.cursors[SENSOR] = str(post.cursors[SENSOR]).replace('"waiting":{}', '"waiting":{"2024-03-01":["x",1,0,[0]]}')
    whole = daily.replace("windows: {every: day, begin: 2024-03-01, end: 2024-03-02}\n", "")
    post.write(orders=whole)
    with pytest.raises(DataflowError, match="from before the pipeline appended without windows"):
        post.tick(SENSOR)
    post.write(orders=whole.replace("lake/orders/", "lake/whole.parquet, mode: replace"))
    assert len(post.load(SENSOR, "orders")) == 1, "the whole, once"
    post.now += timedelta(days=1)
    assert not post.tick(SENSOR)


def test_a_path_that_names_the_window_tells_it(post: Post) -> None:
    post.write(orders=WINDOWED % {"path": "landing/{{ window.start.date() }}-*.csv", "more": ", reach: 2000"})
    land(post, "2024-03-01-a.csv", (1, "2024-03-01T08:00:00"))
    land(post, "2024-03-03-a.csv", (3, "2024-03-03T08:00:00"))
    assert windows_of(*post.load(SENSOR, "orders")) == ["2024-03-01", "2024-03-03"]
    land(post, "2024-03-01-b.csv", (2, "2024-03-01T09:00:00"))
    (request,) = post.tick(SENSOR)
    assert windows_of(request) == ["2024-03-01"]
    post.launch("orders", request)
    assert ids(post) == [1, 2, 3]


def test_appended_windows_with_files_of_their_own_are_loaded_once(post: Post) -> None:
    text = WINDOWED.replace("file_path: lake/orders/", "file_path: lake/orders/, mode: append").replace("event_time_column: at\n", "")
    post.write(orders=text % {"path": "landing/{{ window.key }}*.csv", "more": ", reach: 2000"})
    land(post, "2024-03-01.csv", (1, "2024-03-01T08:00:00"))
    assert windows_of(*post.load(SENSOR, "orders")) == ["2024-03-01"]
    land(post, "2024-03-01-late.csv", (2, "2024-03-01T09:00:00"))
    assert "2024-03-01 is published, and is not appended to again" in post.skip(SENSOR)
    land(post, "2024-03-02.csv", (3, "2024-03-02T09:00:00"))
    assert windows_of(*post.load(SENSOR, "orders")) == ["2024-03-02"]
    assert ids(post) == [1, 3]
