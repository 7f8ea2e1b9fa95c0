"""Rows set aside, as Dagster shows them: a warning, the counts, the table, and the command to see them."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from dataflow_assets_tests.assets import shop
from dataflow_assets_tests.assets.shop import DAYS

QUARANTINING = shop.ORDERS.replace("min_value: 0}", "min_value: 0, on_failure: quarantine}\n    quarantine: {max_share: SHARE}").replace(
    "\n    quarantine: {max_share: SHARE}\n      - {column: id, not_null: true}",
    "\n      - {column: id, not_null: true}\n    quarantine: {max_share: SHARE}",
)


def test_a_window_with_rows_set_aside_is_published_with_a_warning(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    project = shop.write_shop(tmp_path / "shop", orders=QUARANTINING.replace("SHARE", "50%"), bad_days=[DAYS[1]])
    assert shop.run(project, instance, tags={"dagster/partition": DAYS[1]}).success
    assert shop.published(project) == {DAYS[1]: 1}
    (record,) = instance.fetch_materializations(dg.AssetKey(["orders", "publish"]), limit=1).records
    metadata = record.asset_materialization.metadata  # type: ignore[union-attr]
    assert metadata["quarantined"].value == 1
    assert metadata["quarantine_table"].value == "lake/orders__quarantine.parquet"
    key = dg.AssetCheckKey(dg.AssetKey(["orders", "clean"]), "amount_range")
    (found,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=9)
    event = found.event.dagster_event.event_specific_data  # type: ignore[union-attr]
    assert isinstance(event, dg.AssetCheckEvaluation)
    assert (event.passed, event.severity, event.blocking) == (False, dg.AssetCheckSeverity.WARN, False)
    assert event.metadata["quarantined"].value == 1
    assert event.metadata["quarantined_rows"].value == f"dataflow quarantine show orders --rule amount_range --window {DAYS[1]}"
    (clean,) = instance.fetch_materializations(dg.AssetKey(["orders", "clean"]), limit=1).records
    assert clean.asset_materialization.metadata["quarantined"].value == 1  # type: ignore[union-attr]


def test_beyond_the_budget_the_check_fails_and_nothing_is_published(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    project = shop.write_shop(tmp_path / "shop", orders=QUARANTINING.replace("SHARE", "10%"), bad_days=[DAYS[1]])
    result = shop.run(project, instance, tags={"dagster/partition": DAYS[1]})
    assert not result.success
    assert shop.published(project) == {}
    assert shop.evaluations(instance, "amount_range", "orders", "clean") == [(DAYS[1], "FAILED")]
    failure = next(event for event in result.all_events if event.is_step_failure)
    assert "beyond the budget of max_share 10 %" in str(failure.step_failure_data.error)
