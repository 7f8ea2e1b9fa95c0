"""IO managers: every form of table out and in, partitions, columns, a pipeline's table read by hand, and secrets kept."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from dataflow_assets.assets.io_managers import (
    ConnectorIOManager,
    CSVIOManager,
    DuckDBIOManager,
    JSONIOManager,
    ParquetIOManager,
    PostgresIOManager,
)
from dataflow_assets.errors import DataflowError
from dataflow_assets_tests.assets import shop
from dataflow_assets_tests.assets.shop import DAYS

TABLE = pa.table({"id": pa.array([1, 2, None], pa.int64()), "name": ["a", "b", None], "amount": [1.5, 2.5, 3.5]})
PARTITIONS = dg.DailyPartitionsDefinition("2024-03-01", end_date="2024-03-06")


def _duckdb(folder: Path) -> ConnectorIOManager:
    return DuckDBIOManager(path=str(folder / "warehouse.duckdb"))


def _parquet(folder: Path) -> ConnectorIOManager:
    return ParquetIOManager(project_dir=folder)


def _csv(folder: Path) -> ConnectorIOManager:
    return CSVIOManager(project_dir=folder)


def _json(folder: Path) -> ConnectorIOManager:
    return JSONIOManager(project_dir=folder)


EXACT = [_duckdb, _parquet]
ALL = [*EXACT, _csv, _json]
Make = Callable[[Path], ConnectorIOManager]


def _reader() -> pa.RecordBatchReader:
    return TABLE.to_reader(max_chunksize=1)


def _from_pandas(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False)


FORMS: dict[str, tuple[Callable[[], Any], Any, Callable[[Any], pa.Table]]] = {
    "pandas": (lambda: TABLE.to_pandas(types_mapper=pd.ArrowDtype), pd.DataFrame, _from_pandas),
    "polars": (lambda: pl.from_arrow(TABLE), pl.DataFrame, lambda frame: frame.to_arrow()),
    "lazy": (lambda: pl.from_arrow(TABLE).lazy(), pl.LazyFrame, lambda frame: frame.collect().to_arrow()),  # type: ignore[union-attr]
    "arrow": (lambda: TABLE, pa.Table, lambda table: table),
    "reader": (_reader, pa.RecordBatchReader, lambda reader: reader.read_all()),
    "batches": (lambda: iter(TABLE.to_batches()), pa.RecordBatchReader, lambda reader: reader.read_all()),
}


def _materialize(assets: list[Any], manager: ConnectorIOManager, instance: dg.DagsterInstance, **more: Any) -> dg.ExecuteInProcessResult:
    return dg.materialize(assets, instance=instance, resources={"io_manager": manager}, **more)


def _refused(assets: list[Any], manager: ConnectorIOManager, instance: dg.DagsterInstance, **more: Any) -> str:
    result = _materialize(assets, manager, instance, raise_on_error=False, **more)
    assert not result.success
    return str(next(event for event in result.all_events if event.is_step_failure).step_failure_data.error)


@pytest.mark.parametrize("make", EXACT)
@pytest.mark.parametrize("form", FORMS)
def test_a_table_goes_out_and_comes_in_unchanged(form: str, make: Make, tmp_path: Path, instance: dg.DagsterInstance) -> None:
    value, annotation, back = FORMS[form]
    seen: list[pa.Table] = []

    @dg.asset
    def orders() -> Any:
        return value()

    def reader(orders: Any) -> None:
        seen.append(back(orders))

    reader.__annotations__["orders"] = annotation
    result = _materialize([orders, dg.asset(reader)], make(tmp_path), instance)
    assert result.success
    (table,) = seen
    assert sorted(table.to_pylist(), key=str) == sorted(TABLE.to_pylist(), key=str)
    assert pa.types.is_int64(table.schema.field("id").type)  # a null among whole numbers does not make them floats


@pytest.mark.parametrize("make", ALL)
def test_every_system_round_trips_text(make: Make, tmp_path: Path, instance: dg.DagsterInstance) -> None:
    seen: list[pa.Table] = []

    @dg.asset(key=["mart", "names"])
    def names() -> pa.Table:
        return pa.table({"name": ["ä", "b,c", 'd"e'], "n": ["x", "y", "z"]})

    @dg.asset(ins={"names": dg.AssetIn(["mart", "names"], metadata={"columns": ["name"]})})
    def reader(names: pa.Table) -> None:
        seen.append(names)

    assert _materialize([names, reader], make(tmp_path), instance).success
    assert seen[0].column_names == ["name"]
    assert sorted(seen[0]["name"].to_pylist()) == sorted(["ä", "b,c", 'd"e'])


def _day_asset() -> dg.AssetsDefinition:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return _beta_day_asset()


def _beta_day_asset() -> dg.AssetsDefinition:
    @dg.asset(partitions_def=PARTITIONS, backfill_policy=dg.BackfillPolicy.single_run(), metadata={"window_column": "at"})
    def events(context) -> pl.DataFrame:  # type: ignore[no-untyped-def]
        start, end = context.partition_time_window
        days = [start + timedelta(days=number) for number in range((end - start).days)]
        return pl.DataFrame({"at": [day.replace(hour=12) for day in days], "n": [day.day for day in days]})

    return events


@pytest.mark.parametrize("make", [_duckdb, _parquet])
def test_partitions_replace_their_own_windows_only(make: Make, tmp_path: Path, instance: dg.DagsterInstance) -> None:
    manager, asset = make(tmp_path), _day_asset()
    seen: list[int] = []

    @dg.asset(partitions_def=PARTITIONS, ins={"events": dg.AssetIn("events", metadata={"window_column": "at"})})
    def one_day(events: pl.DataFrame) -> None:
        seen.append(events["n"].sum())

    @dg.asset(ins={"events": dg.AssetIn("events")})
    def every_day(events: pl.DataFrame) -> None:
        seen.append(events["n"].sum())

    span = {"dagster/asset_partition_range_start": DAYS[0], "dagster/asset_partition_range_end": DAYS[3]}
    assert _materialize([asset], manager, instance, tags=span).success
    assert _materialize([asset], manager, instance, partition_key=DAYS[1]).success
    assert _materialize([asset, one_day], manager, instance, partition_key=DAYS[2], selection=[one_day]).success
    assert _materialize([asset, every_day], manager, instance, selection=[every_day]).success
    assert seen == [3, 1 + 2 + 3 + 4]


def test_a_row_outside_its_partition_is_refused_and_nothing_is_published(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    @dg.asset(partitions_def=PARTITIONS, metadata={"window_column": "at"})
    def events() -> pa.Table:
        return pa.table({"at": [datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 3, 2, tzinfo=UTC)]})

    error = _refused([events], _parquet(tmp_path), instance, partition_key=DAYS[0])
    assert "1 of 2 rows have a 'at' outside the partitions" in error
    assert not list(tmp_path.glob("events*/*.parquet"))


def test_a_date_column_places_rows_too(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    @dg.asset(partitions_def=PARTITIONS, metadata={"partition_expr": "day"})
    def events() -> pa.Table:
        return pa.table({"day": [date(2024, 3, 1)]})

    assert _materialize([events], _duckdb(tmp_path), instance, partition_key=DAYS[0]).success


def test_partitions_without_a_window_column_are_refused(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    @dg.asset(partitions_def=PARTITIONS)
    def events() -> pa.Table:
        return TABLE

    assert "window_column" in _refused([events], _duckdb(tmp_path), instance, partition_key=DAYS[0])


def test_a_failed_rewrite_leaves_the_old_rows(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    """What Dagster's own DbIOManager loses: it deletes first, and has no transaction."""
    manager = _duckdb(tmp_path)

    @dg.asset(name="orders")
    def good() -> pa.Table:
        return TABLE

    @dg.asset(name="orders")
    def bad() -> pa.RecordBatchReader:
        def batches() -> Iterator[pa.RecordBatch]:
            yield TABLE.to_batches()[0]
            raise ValueError("the source broke")

        return pa.RecordBatchReader.from_batches(TABLE.schema, batches())

    assert _materialize([good], manager, instance).success
    assert "the source broke" in _refused([bad], manager, instance)
    assert _rows(manager, "orders") == 3


def _rows(manager: ConnectorIOManager, table: str) -> int:
    found: list[int] = []

    @dg.asset(ins={"given": dg.AssetIn(table)})
    def count(given: pa.Table) -> None:
        found.append(given.num_rows)

    assert dg.materialize([dg.AssetSpec(table), count], resources={"io_manager": manager}).success
    return found[0]


def test_a_reordered_frame_does_not_swap_columns(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    manager, order = _duckdb(tmp_path), [["a", "b"]]

    @dg.asset
    def pairs() -> pa.Table:
        return pa.table({"a": [1], "b": [2]}).select(order[0])

    seen: list[dict[str, int]] = []

    @dg.asset
    def reader(pairs: pa.Table) -> None:
        seen.extend(pairs.to_pylist())

    for names in (["a", "b"], ["b", "a"]):
        order[0] = names
        assert _materialize([pairs, reader], manager, instance).success
    assert seen == [{"a": 1, "b": 2}] * 2


@pytest.mark.parametrize("annotation", [pl.DataFrame, pa.Table])
def test_a_hand_written_asset_reads_a_pipelines_table_by_its_key(annotation: type, project: Path, instance: dg.DagsterInstance) -> None:
    shop.run(project, instance, tags=shop.RANGE)
    seen: list[Any] = []

    def by_day(orders: Any) -> None:
        seen.append(orders)

    by_day.__annotations__["orders"] = annotation
    mine = dg.asset(by_day, ins={"orders": dg.AssetIn(["orders", "publish"], input_manager_key="lake")})  # type: ignore[call-overload]
    together = dg.Definitions.merge(
        shop.definitions(project), dg.Definitions(assets=[mine], resources={"lake": ParquetIOManager(project_dir=project)})
    )
    job = together.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("by_day")]).success
    assert len(seen[0]) == 10


def test_a_hand_written_asset_of_the_same_windows_reads_one(project: Path, instance: dg.DagsterInstance) -> None:
    shop.run(project, instance, tags=shop.RANGE)
    partitions = shop.definitions(project).resolve_asset_graph().get(dg.AssetKey(["orders", "publish"])).partitions_def
    seen: list[pl.DataFrame] = []

    @dg.asset(ins={"orders": dg.AssetIn(["orders", "publish"], input_manager_key="lake")}, partitions_def=partitions)
    def one_day(orders: pl.DataFrame) -> None:
        seen.append(orders)

    together = dg.Definitions.merge(
        shop.definitions(project), dg.Definitions(assets=[one_day], resources={"lake": ParquetIOManager(project_dir=project)})
    )
    job = together.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("one_day")], partition_key=DAYS[3]).success
    assert {value.date().isoformat() for value in seen[0]["ordered_at"]} == {DAYS[3]}


def test_postgres_upserts_and_reads_windows(postgres_dsn: str, instance: dg.DagsterInstance) -> None:
    manager, rows = (
        PostgresIOManager(dsn=postgres_dsn),
        [[{"id": 1, "v": "a"}, {"id": 2, "v": "b"}], [{"id": 2, "v": "c"}, {"id": 3, "v": "d"}]],
    )
    seen: list[pl.DataFrame] = []

    @dg.asset(metadata={"mode": "upsert", "upsert_keys": ["id"], "table": "people"})
    def by_key() -> pa.Table:
        return pa.Table.from_pylist(rows.pop(0))

    @dg.asset
    def reader(by_key: pl.DataFrame) -> None:
        seen.append(by_key.sort("id"))

    for _ in range(2):
        assert _materialize([by_key, reader], manager, instance).success
    assert seen[-1].rows() == [(1, "a"), (2, "c"), (3, "d")]

    day, span = _day_asset(), {"dagster/asset_partition_range_start": DAYS[0], "dagster/asset_partition_range_end": DAYS[1]}
    assert _materialize([day], manager, instance, tags=span).success
    assert _materialize([day], manager, instance, partition_key=DAYS[1]).success
    assert _rows(manager, "events") == 2
    manager.connector.close()


# -- secrets


CANARY = "c4nary-Xq9!s@crt"


def test_a_password_is_in_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = PostgresIOManager(host="h", user="u", password=CANARY)
    assert CANARY not in repr(manager)
    assert "user='u'" in repr(manager)
    monkeypatch.setenv("PG_PASSWORD", CANARY)
    assert CANARY not in repr(PostgresIOManager(host="h", user="u", password=dg.EnvVar("PG_PASSWORD")))


def test_a_missing_variable_is_noticed_when_it_is_needed(instance: dg.DagsterInstance) -> None:
    manager = PostgresIOManager(host="h", database="d", password=dg.EnvVar("NO_SUCH_VARIABLE_HERE"))
    with pytest.raises(DataflowError, match="NO_SUCH_VARIABLE_HERE"):
        _ = manager.connector


INTROSPECTION = """{
  runsOrError { ... on Runs { results { runConfigYaml tags { key value } eventConnection { events {
    ... on MessageEvent { message }
    ... on ErrorEvent { error { message stack causes { message stack } } }
  } } } } }
  repositoriesOrError { ... on RepositoryConnection { nodes {
    allTopLevelResourceDetails { name configuredValues { key value } configFields { name defaultValueAsJson } }
    pipelines { name modes { resources { name configField { configType { key } defaultValueAsJson } } } }
  } } }
}"""

DEFINITIONS = """
import os, dagster as dg, pyarrow as pa
from dataflow_assets.assets.io_managers import PostgresIOManager
password = dg.EnvVar("PG_PASSWORD") if os.environ["LATE"] == "1" else os.environ["PG_PASSWORD"]

@dg.asset
def orders() -> pa.Table:
    return pa.table({"id": [1]})

warehouse = PostgresIOManager(host="127.0.0.1", port=1, database="d", user="u", password=password)
defs = dg.Definitions(assets=[orders], resources={"io_manager": warehouse}, jobs=[dg.define_asset_job("all_assets")])
"""


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_no_password_reaches_the_event_log_or_graphql(late: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster._core.test_utils import in_process_test_workspace
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
    from dagster_graphql.schema import create_schema

    monkeypatch.setenv("PG_PASSWORD", CANARY)
    monkeypatch.setenv("LATE", "1" if late else "0")
    file = tmp_path / "warehouse_defs.py"
    file.write_text(DEFINITIONS)
    names: dict[str, Any] = {}
    exec(file.read_text(), names)
    folder = tmp_path / "dagster"
    folder.mkdir()
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        job = names["defs"].resolve_job_def("all_assets")
        assert not job.execute_in_process(instance=instance, raise_on_error=False).success
        target = LoadableTargetOrigin(python_file=str(file), attribute="defs", working_directory=str(tmp_path))
        with in_process_test_workspace(instance, target) as workspace:
            answer = asyncio.run(create_schema().execute_async(INTROSPECTION, context_value=workspace))
    assert not answer.errors
    everything = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"ConnectionFailed" in everything  # the failure was recorded
    assert "ConnectionFailed" in str(answer.data)
    for shown in (everything.decode(errors="replace"), str(answer.data), str(answer.errors), dg.serialize_value(job.get_job_snapshot())):
        assert CANARY not in shown


def test_an_unknown_mode_is_refused(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    @dg.asset(metadata={"mode": "overwrite"})
    def orders() -> pa.Table:
        return TABLE

    assert "mode 'overwrite' is unknown" in _refused([orders], _duckdb(tmp_path), instance)
