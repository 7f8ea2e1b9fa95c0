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


def test_checks_alone_compare_a_copy_with_its_source(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    folder = shop.write_shop(tmp_path / "project")
    report = shop.REPORT.replace("mode: replace}", "mode: replace, reconcile: {keys: [id], severity: warn}}")
    (folder / "pipelines" / "report.yml").write_text(report)
    assert shop.run(folder, instance, pipeline="report").success
    shop.write_orders(folder, bad_days=[DAYS[1]])
    keys = [dg.AssetCheckKey(dg.AssetKey(["report", "write"]), name) for name in ("reconcile_source", "reconcile_target")]
    jobs = [dg.define_asset_job("checks", selection=dg.AssetSelection.checks(*keys))]
    definitions = dg.Definitions.merge(shop.definitions(folder), dg.Definitions(jobs=jobs))
    result = definitions.resolve_job_def("checks").execute_in_process(instance=instance)
    found = {item.check_name: item for item in result.get_asset_check_evaluations()}
    assert set(found) == {"reconcile_source", "reconcile_target"}
    for item in found.values():
        assert not item.passed
        assert item.severity is dg.AssetCheckSeverity.WARN
        assert "not the same ones" in str(item.description)
