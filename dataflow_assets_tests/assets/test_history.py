"""The pooled SQLite history: Dagster's own files, faster."""

from __future__ import annotations

import threading
from pathlib import Path

import dagster as dg
import pytest
import yaml

from dataflow_assets.assets import history
from dataflow_assets.assets.history import PooledEventLog
from dataflow_assets.assets.instance import SETTINGS, STORAGE
from dataflow_assets_tests.calls import calls

ROOT = Path(__file__).parents[2]


def _instance(folder: Path, *, pooled: bool) -> dg.DagsterInstance:
    folder.mkdir(parents=True, exist_ok=True)
    storage = {"custom": {**STORAGE, "config": {"base_dir": str(folder)}}} if pooled else {"sqlite": {"base_dir": str(folder)}}
    (folder / "dagster.yaml").write_text(yaml.safe_dump({"storage": storage, "telemetry": {"enabled": False}}))
    return dg.DagsterInstance.from_config(str(folder))


@dg.asset
def thing() -> None: ...


def _record(instance: dg.DagsterInstance, count: int) -> None:
    for number in range(count):
        instance.report_runless_asset_event(dg.AssetMaterialization("thing", metadata={"number": number}))


@pytest.mark.parametrize("first", [True, False])
def test_either_storage_reads_what_the_other_wrote(first: bool, tmp_path: Path) -> None:
    with _instance(tmp_path, pooled=first) as writer:
        run_id = dg.materialize([thing], instance=writer).run_id
        logs = len(writer.all_logs(run_id))
    with _instance(tmp_path, pooled=not first) as reader:
        assert len(reader.all_logs(run_id)) == logs
        assert len(reader.fetch_materializations(dg.AssetKey("thing"), limit=5).records) == 1
        assert dg.materialize([thing], instance=reader).success
        assert len(reader.fetch_materializations(dg.AssetKey("thing"), limit=5).records) == 2


def test_it_keeps_few_files_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_OPEN_FILES", 3)
    log = PooledEventLog(str(tmp_path))
    for number in range(10):
        with log.run_connection(f"run-{number}"):
            pass
    assert len(log._engines) == 3
    log.dispose()
    assert not log._engines


def test_threads_take_turns(tmp_path: Path) -> None:
    with _instance(tmp_path, pooled=True) as instance:
        threads = [threading.Thread(target=_record, args=(instance, 20)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(instance.fetch_materializations(dg.AssetKey("thing"), limit=500).records) == 80


def test_it_costs_a_fraction(tmp_path: Path) -> None:
    """In calls of functions, which no slow machine changes."""
    cost = {}
    for pooled in (True, False):
        with _instance(tmp_path / str(pooled), pooled=pooled) as instance:
            _record(instance, 5)
            cost[pooled] = calls(lambda instance=instance: _record(instance, 30))
    assert cost[True] < 0.6 * cost[False], cost


def test_the_settings_files_can_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, text in enumerate([SETTINGS, (ROOT / "dagster.yaml").read_text()]):
        home = tmp_path / str(number)
        home.mkdir()
        (home / "dagster.yaml").write_text(text)
        monkeypatch.setenv("DAGSTER_HOME", str(home))
        with dg.DagsterInstance.get() as instance:
            assert isinstance(instance.event_log_storage, PooledEventLog)
            assert not instance.telemetry_enabled
            assert instance.run_monitoring_enabled
            assert instance.get_concurrency_config().pool_config.default_pool_limit == 1


def test_the_workspace_names_the_code_location_that_runs_point_to() -> None:
    from dataflow_assets.assets.execute import LOCATION

    (location,) = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    assert location["python_module"] == {"module_name": LOCATION, "location_name": LOCATION}
    assert f'code_location_name = "{LOCATION}"' in (ROOT / "pyproject.toml").read_text()
