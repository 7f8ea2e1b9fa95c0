"""Tests of whole pipelines over an object store: from YAML to objects, window by window, with the secret kept."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataflow_assets.operations.retention import remove_old
from dataflow_assets.plan.build import build_plan
from dataflow_assets.secrets import MASK, mask
from dataflow_assets.spec.load import load
from dataflow_assets_tests.connectors.on_objects import at, content, names, put
from dataflow_assets_tests.execution.workshop import Workshop, failures
from dataflow_assets_tests.services.object_stores import StoreRoot

PIPELINE = """
pipeline_name: p
event_time_column: at
windows: {every: day, begin: 2024-01-01}
steps:
  - {id: landed, type: source, source_type: csv, connection: landing, config: {file_path: "landing/*.csv"}}
  - {id: by_day, type: endpoint, endpoint_type: parquet, connection: lake, depends_on: [landed], config: {file_path: events/}}
  - {id: report, type: endpoint, endpoint_type: json, connection: reports, depends_on: [landed], config: {file_path: report.ndjson}}
"""


@pytest.fixture
def workshop(tmp_path: Path, s3_root: StoreRoot) -> Workshop:
    """A project with three connections into one bucket."""
    kinds = {"landing": "csv", "lake": "parquet", "reports": "json"}
    connections: dict[str, Any] = {
        name: {"type": kind, "root": s3_root.url, "storage_options": s3_root.options} for name, kind in kinds.items()
    }
    workshop = Workshop(tmp_path)
    workshop.write("dataflow_project.yml", yaml.safe_dump({"project_name": "lake", "connections": connections}))
    workshop.pipeline(PIPELINE)
    return workshop


def test_a_pipeline_from_objects_to_objects(workshop: Workshop, s3_root: StoreRoot) -> None:
    rows = "".join(f"{number},2024-01-0{1 + number % 3}T0{number}:00:00Z\n" for number in range(9))
    put(at(s3_root, "landing/1.csv"), f"id,at\n{rows}".encode())
    events = workshop.run()
    assert not failures(events)
    assert {step: len(entries) for step, entries in workshop.ledger().items()} == {"by_day": 3, "report": 3}
    assert len([name for name in names(s3_root) if name.endswith(".parquet")]) == 3
    found = [json.loads(line)["id"] for line in content(at(s3_root, "report.ndjson")).splitlines()]
    assert sorted(found) == list(range(9))
    assert not [item for item in workshop.status() if item.run]


def test_the_secret_of_a_block_is_masked(workshop: Workshop, s3_root: StoreRoot) -> None:
    if s3_root.secret is None:
        pytest.skip("no secret was planted")
    put(at(s3_root, "landing/1.csv"), b"id\n1\n")
    shown = repr(workshop.run())
    assert s3_root.secret not in shown
    assert mask(f"it is {s3_root.secret}") == f"it is {MASK}"


def test_old_windows_go_from_objects_into_an_archive_of_objects(workshop: Workshop, s3_root: StoreRoot) -> None:
    rows = "".join(f"{number},2024-01-0{1 + number % 3}T0{number}:00:00Z\n" for number in range(9))
    put(at(s3_root, "landing/1.csv"), f"id,at\n{rows}".encode())
    assert not failures(workshop.run())
    workshop.pipeline(f"{PIPELINE}retention: {{target: 1d, archive: {{connection: lake, to: old}}}}\n")
    project = load(workshop.folder)
    (pipeline,) = build_plan(project).pipelines
    done = remove_old(project, [pipeline], now=datetime(2025, 1, 1, tzinfo=UTC))
    assert [(old.step, old.key, old.rows, old.error) for old in done if old.step == "by_day"] == [
        ("by_day", f"2024-01-0{day}", 3, None) for day in (1, 2, 3)
    ]
    assert len(done) == 6
    assert content(at(s3_root, "report.ndjson")) == b""
    assert sum(name.startswith("old/p/by_day/") and name.endswith(".parquet") for name in names(s3_root)) == 3
