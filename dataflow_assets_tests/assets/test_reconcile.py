"""Reconciliation in Dagster: two asset checks at the endpoint, with counts and checksums, for each window."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from dataflow_assets_tests.assets import shop
from dataflow_assets_tests.assets.shop import DAYS
from dataflow_assets_tests.assets.test_execute import _go

COPY = shop.ORDERS.replace("config: {file_path: lake/orders}", "config: {file_path: lake/orders, reconcile: {keys: [id]}}")


def test_each_window_has_its_two_checks_with_counts_and_checksums(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    folder = shop.write_shop(tmp_path / "project")
    (folder / "pipelines" / "orders.yml").write_text(COPY)
    result = _go(folder, instance, DAYS[:2], report=False)["orders"]
    assert result.status == "ok"
    entries = instance.all_logs(str(result.run_id), of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    evaluations = [entry.dagster_event.asset_check_evaluation_data for entry in entries if entry.dagster_event]
    found = {(item.check_name, item.partition): item for item in evaluations}
    names = [(name, day) for name in ("reconcile_source", "reconcile_target") for day in DAYS[:2]]
    assert set(names) <= set(found)
    for name in names:
        assert found[name].passed
        assert found[name].asset_key == dg.AssetKey(["orders", "publish"])
        assert found[name].blocking
    metadata = {name: value.value for name, value in found["reconcile_target", DAYS[0]].metadata.items()}
    assert metadata["stage_rows"] == metadata["target_rows"] == 2
    assert metadata["stage_checksum"] == metadata["target_checksum"]
    assert metadata["loss_percent"] == 0

    result = _go(folder, instance, DAYS[2:3], report=False)["orders"]  # one partition, where Dagster wants an output for each check
    assert result.status == "ok"
    entries = instance.all_logs(str(result.run_id), of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    names = [entry.dagster_event.asset_check_evaluation_data.check_name for entry in entries if entry.dagster_event]
    assert sorted(name for name in set(names) if name.startswith("reconcile")) == ["reconcile_source", "reconcile_target"]
