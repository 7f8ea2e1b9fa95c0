"""Files sensors over object stores: S3, Google Cloud Storage, Azure, and the reports of Google Play."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pyarrow.parquet as pq

from dataflow_assets.tables import utc_now
from dataflow_assets_tests.connectors import over_google_play as play
from dataflow_assets_tests.connectors.on_objects import at, put
from dataflow_assets_tests.operations.sensors.post import Post, windows_of
from dataflow_assets_tests.services.object_stores import StoreRoot

SENSOR = "orders_files_sensor"
PIPELINE = """\
pipeline_name: orders
connections:
  lake: {type: csv, root: "%(url)s", storage_options: %(options)s}
%(windows)s
sensors: [{type: files%(more)s}]
steps:
  - {id: read, type: source, connection: lake, config: {file_path: "landing/*.csv"}}
  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: lake/orders/%(mode)s}}
"""
WINDOWS = "event_time_column: at\nwindows: {every: day, begin: 2024-03-01, end: 2024-03-08}"


def _write(post: Post, root: StoreRoot, *, windows: str = "", more: str = "") -> None:
    options = json.dumps(root.options)
    mode = "" if windows else ", mode: append"
    post.write(orders=PIPELINE % {"url": root.url, "options": options, "windows": windows, "more": more, "mode": mode})
    post.now = utc_now()


def _land(root: StoreRoot, name: str, *rows: tuple[int, str]) -> None:
    put(at(root, f"landing/{name}"), ("id,at\n" + "".join(f"{number},{moment}\n" for number, moment in rows)).encode())


def _ids(post: Post) -> list[int]:
    files = (post.folder / "lake" / "orders").glob("*.parquet")
    return sorted(number for file in files for number in pq.read_table(file, columns=["id"]).column(0).to_pylist())


def test_objects_are_taken_once_for_each_content(post: Post, store_root: StoreRoot) -> None:
    _write(post, store_root, more=", marker: _SUCCESS")
    assert "no new file among 0" in post.skip(SENSOR)
    _land(store_root, "a.csv", (1, "2024-03-01"))
    assert "1 file without _SUCCESS" in post.skip(SENSOR)
    put(at(store_root, "landing/_SUCCESS"), b"done")
    assert len(post.load(SENSOR, "orders")) == 1, "an object needs no time to settle"
    assert "no new file among 1" in post.skip(SENSOR)
    _land(store_root, "a.csv", (11, "2024-03-01"))
    _land(store_root, "b.csv", (2, "2024-03-01"))
    assert len(post.load(SENSOR, "orders")) == 1
    assert _ids(post) == [1, 2, 11]
    _write(post, store_root, windows=WINDOWS)
    post.cursors.clear()
    assert windows_of(*post.tick(SENSOR)) == ["2024-03-01"]


def test_the_reports_of_google_play_ask_for_what_is_due(post: Post, gcs_root: StoreRoot) -> None:
    connection = {"type": "google_play", **play.connection_to(gcs_root).model_dump(exclude_defaults=True, mode="json")}
    text = (
        PIPELINE.replace("type: csv", "type: csv")
        .split("steps:")[0]
        .replace('{type: csv, root: "%(url)s", storage_options: %(options)s}', "%(options)s")
    )
    steps = """\
steps:
  - {id: read, type: source, connection: lake, config: {report: installs, missing: empty}}
  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: lake/orders/}}
"""
    windows = "event_time_column: date\nwindows: {every: day, begin: 2024-03-01, end: 2024-03-03}"
    post.write(orders=text % {"options": json.dumps(connection), "windows": windows, "more": ""} + steps)
    post.now = datetime.now(UTC)
    assert "no new file among 0" in post.skip(SENSOR)
    heading = f"Date,Package Name,{play.INSTALLS}"
    name = f"stats/installs/installs_{play.SHOP}_202403_overview.csv"
    play.write(gcs_root, name, heading, f"2024-03-01,{play.SHOP}," + ",".join("1" * len(play.INSTALLS.split(","))))
    assert windows_of(*post.load(SENSOR, "orders")) == ["2024-03-01", "2024-03-02"]
    assert "no new file among 1" in post.skip(SENSOR)
    play.write(gcs_root, name, heading, f"2024-03-01,{play.SHOP}," + ",".join("2" * len(play.INSTALLS.split(","))))
    assert "waits for a window to end" in post.skip(SENSOR), "nothing is due"
