"""IO managers: tables of pipelines and of hand-written assets, in and out of Python functions.

Here: one implementation over the connectors and the publish protocol (claim, generation, ledger), and a thin class for each
system. pandas, polars (eager and lazy), Arrow tables and record-batch streams; a window for each partition. Not here: which
table is meant (`assets.addresses`), Dagster's DbIOManager, which deletes and inserts without a transaction.

    warehouse = DuckDBIOManager(path="warehouse.duckdb")

    @dg.asset(ins={"orders": dg.AssetIn(["shop", "load_orders"], input_manager_key="warehouse")}, io_manager_key="warehouse")
    def daily(orders: pl.DataFrame) -> pl.DataFrame: ...
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import SecretStr

from dataflow_assets import discovery
from dataflow_assets.assets.addresses import Address, Partitions, input_address, output_address, partitions_of_input, partitions_of_output
from dataflow_assets.assets.library_resources import keys_of
from dataflow_assets.assets.metadata import markdown_table, schema_changes, table_schema
from dataflow_assets.assets.shown_errors import errors_masked
from dataflow_assets.errors import DataflowError, ReadFailed, ValueRefused
from dataflow_assets.execution.connections import validated
from dataflow_assets.protocols import ConnectionContext, Connector
from dataflow_assets.secrets import MASK, looks_secret, register_secret
from dataflow_assets.storage.stages import Stage, load_stage, write_stage
from dataflow_assets.tables import Published, PublishRequest, ReadRequest, Target, Unit, WindowFilter, WriteMode
from dataflow_assets.transforms._frames import Form, form_of, stream
from dataflow_assets.windows import merge_adjacent

_LEDGER_PIPELINE = "assets"


class ConnectorIOManager(dg.IOManager):
    """What every IO manager here does; `kind` names the connector.

    Keyword arguments are the keys of a connection of that kind, each a value or a `dg.EnvVar`, which is read when it is needed.
    `schema` is where tables go whose asset does not say, `project_dir` is what relative paths start from. `resource` is a
    `DuckDBResource` or `SnowflakeResource` of Dagster's libraries, in place of these keys or below them.

    Metadata on an asset or an `AssetIn`: `table` or `file_path` (default: the last part of the asset key), `schema`, `columns`
    (read only these), `mode` (default: replace, or replace_window with partitions), `upsert_keys`, `window_column` (the column
    that places a row in its partition; needed with partitions).
    """

    kind: ClassVar[str]
    suffix: ClassVar[str] = ""
    """The ending of files, for systems of files."""
    schema_key: ClassVar[str] = "table_schema"
    """The connector's option that names a table's schema."""

    def __init__(self, *, project_dir: str | Path = ".", schema: str | None = None, resource: Any = None, **connection: Any) -> None:
        self._project_dir, self._schema, self._connection, self._resource = Path(project_dir), schema, connection, resource
        for name, value in connection.items():
            if isinstance(value, str) and not isinstance(value, dg.EnvVar) and looks_secret(name):
                register_secret(value)

    def __repr__(self) -> str:
        shown = [f"{name}={_shown(name, value)}" for name, value in self._connection.items()]
        if self._resource is not None:
            shown.insert(0, f"resource={type(self._resource).__name__}")  # its own repr shows passwords
        return f"{type(self).__name__}({', '.join(shown)})"

    @cached_property
    def connector(self) -> Connector:
        """The connector, made when the first row is moved."""
        below = keys_of(self.kind, self._resource) if self._resource is not None else {}
        values = {**below, **{name: _resolved(name, value) for name, value in self._connection.items()}}
        found = discovery.find("connectors", self.kind)
        connection = validated(found.Connection, values, where=f"{type(self).__name__}")
        connector: Connector = found(connection, ConnectionContext(type(self).__name__, self._project_dir.resolve()))
        return connector

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "connector"}

    # -- in

    @errors_masked()
    def load_input(self, context: dg.InputContext) -> Any:
        """The rows of the upstream table in the form that the function's annotation names, else as an Arrow table."""
        address, partitions = input_address(context, is_file=bool(self.suffix)), partitions_of_input(context)
        form = form_of(context.dagster_type.typing_type) or Form.ARROW
        readers = [self._open(address, window) for window in _filters(address, partitions)]
        try:
            return _in_form(_one_reader(readers), form)
        finally:
            self._let_go()

    def _open(self, address: Address, window: WindowFilter | None) -> AbstractContextManager[pa.RecordBatchReader]:
        options = self._options(address)
        if self.connector.capabilities.dialect is not None:
            source = validated(self.connector.Source, options, where=_where(address))
            return self.connector.read(ReadRequest(source, columns=address.columns or None, window=window))
        target = self._target(address, Partitions({}), validated(self.connector.Endpoint, options, where=_where(address)))
        return _Selected(self.connector.read_target(target, window), address.columns)

    # -- out

    @errors_masked()
    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Publish the rows: one unit of the ledger for each partition. None publishes nothing."""
        if obj is None:
            return
        address, partitions = output_address(context), partitions_of_output(context)
        target = self._target(address, partitions, validated(self.connector.Endpoint, self._options(address), where=_where(address)))
        with tempfile.TemporaryDirectory(prefix="dataflow-") as scratch:
            stage = _stage(Path(scratch) / "whole", stream(obj))
            try:
                done = [self._publish(context, target, part) for part in _parts(context, target, partitions, stage, Path(scratch))]
            finally:
                self._let_go()
            context.add_output_metadata(_metadata(target, stage, done))

    def _let_go(self) -> None:
        """A file that a resource opens too must not stay open: DuckDB refuses a second way of opening it in one process."""
        if self._resource is not None:
            self.connector.close()

    def _publish(self, context: dg.OutputContext, target: Target, part: _Part) -> Published:
        claim = self.connector.claim(target, part.unit, attempt=f"{context.run_id}-{part.unit.key}")
        stage = part.stage
        return self.connector.publish(
            PublishRequest(target, claim, stage.schema, stage.receipt.rows, stage.receipt.checksum, stage.open_reader, stage.paths)
        )

    def _options(self, address: Address) -> dict[str, Any]:
        """The connector's options for a table or file."""
        if self.suffix:
            return {"file_path": address.name or f"{'/'.join(address.key)}{self.suffix}"}
        schema = address.schema or self._schema
        return {"table": address.name or address.key[-1], **({self.schema_key: schema} if schema else {})}

    def _target(self, address: Address, partitions: Partitions, options: Any) -> Target:
        mode = address.mode or (WriteMode.REPLACE_WINDOW if partitions.windows else WriteMode.REPLACE)
        if mode is WriteMode.REPLACE_WINDOW and not address.window_column:
            raise _no_window_column(address)
        if mode not in self.connector.capabilities.modes and mode is not WriteMode.REPLACE:
            raise DataflowError(f"{_where(address)}: the {self.kind} connector cannot {mode}", hint="choose another `mode` in its metadata")
        table, policy = self.connector.target_table(options), address.schema_policy
        return Target(table, mode, options, address.keys, address.window_column, partitions.timezone, policy)


class PostgresIOManager(ConnectorIOManager):
    """Tables in PostgreSQL: `host`, `port`, `database`, `user`, `password`, or `dsn`."""

    kind = "postgres"


class MySQLIOManager(ConnectorIOManager):
    """Tables in MySQL or MariaDB: `host`, `port`, `database`, `user`, `password`, or `dsn`; `schema` is a database."""

    kind = "mysql"


class ClickHouseIOManager(ConnectorIOManager):
    """Tables in ClickHouse: `host`, `port`, `database`, `user`, `password`, or `dsn`; `schema` is a database."""

    kind, schema_key = "clickhouse", "table_database"


class BigQueryIOManager(ConnectorIOManager):
    """Tables in BigQuery: `project`, `dataset`, `location`, `credentials` or `credentials_path`; `schema` is a dataset."""

    kind, schema_key = "bigquery", "dataset"


class SnowflakeIOManager(ConnectorIOManager):
    """Tables in Snowflake: `account`, `user`, `password` or `private_key`, `role`, `warehouse`, `database`; or `resource`."""

    kind = "snowflake"


class DuckDBIOManager(ConnectorIOManager):
    """Tables in a DuckDB file: `database`; or `resource`."""

    kind = "duckdb"


class SQLiteIOManager(ConnectorIOManager):
    """Tables in a SQLite file."""

    kind = "sqlite"


class SQLAlchemyIOManager(ConnectorIOManager):
    """Tables in any database that SQLAlchemy has a dialect for: `url`."""

    kind = "sqlalchemy"


class CSVIOManager(ConnectorIOManager):
    """CSV files below `root`."""

    kind, suffix = "csv", ".csv"


class JSONIOManager(ConnectorIOManager):
    """JSON files below `root`."""

    kind, suffix = "json", ".json"


class ParquetIOManager(ConnectorIOManager):
    """Parquet files below `root`."""

    kind, suffix = "parquet", ".parquet"


@dataclass(frozen=True)
class _Part:
    unit: Unit
    stage: Stage


class _Selected(AbstractContextManager[pa.RecordBatchReader]):
    """A stream with some of its columns."""

    def __init__(self, opened: AbstractContextManager[pa.RecordBatchReader], columns: tuple[str, ...]) -> None:
        self._opened, self._columns = opened, columns

    def __enter__(self) -> pa.RecordBatchReader:
        reader = self._opened.__enter__()
        if not self._columns:
            return reader
        missing = [name for name in self._columns if name not in reader.schema.names]
        if missing:
            raise ReadFailed(f"there is no column {missing[0]!r}", hint=f"there are {', '.join(reader.schema.names)}")
        schema = pa.schema([reader.schema.field(name) for name in self._columns])
        return pa.RecordBatchReader.from_batches(schema, (batch.select(list(self._columns)) for batch in reader))

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)


def _filters(address: Address, partitions: Partitions) -> list[WindowFilter | None]:
    if not partitions.windows:
        return [None]
    if not address.window_column:
        raise _no_window_column(address)
    merged = merge_adjacent(list(partitions.windows.values()))
    return [WindowFilter(address.window_column, window, partitions.timezone) for window in merged]


def _one_reader(opened: list[AbstractContextManager[pa.RecordBatchReader]]) -> pa.RecordBatchReader:
    """All streams as one, each opened when the one before has ended, and closed at its end."""
    first = opened[0].__enter__()

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from first
        finally:
            opened[0].__exit__(None, None, None)
        for other in opened[1:]:
            with other as reader:
                yield from reader

    return pa.RecordBatchReader.from_batches(first.schema, batches())


def _in_form(reader: pa.RecordBatchReader, form: Form) -> Any:
    if form is Form.READER:
        return reader
    table = reader.read_all()
    if form is Form.PANDAS:
        import pandas as pd

        return table.to_pandas(types_mapper=pd.ArrowDtype)
    if form in {Form.POLARS, Form.LAZY}:
        import polars as pl

        frame = pl.from_arrow(table)
        return frame.lazy() if form is Form.LAZY and isinstance(frame, pl.DataFrame) else frame
    return table


def _stage(folder: Path, reader: pa.RecordBatchReader) -> Stage:
    for _ in write_stage(folder, reader, step=folder.name, fingerprint=""):
        pass
    stage = load_stage(folder)
    if stage is None:
        raise ReadFailed(f"the rows staged in {folder} are gone", transient=True)
    return stage


def _parts(context: dg.OutputContext, target: Target, partitions: Partitions, stage: Stage, scratch: Path) -> Iterator[_Part]:
    """The rows of each partition. Raises ValueRefused, before anything is published, when a row belongs to none of them."""
    step = "/".join(context.asset_key.path)
    if not partitions.windows:
        key = "all" if target.mode is WriteMode.REPLACE else context.run_id
        return iter([_Part(Unit(_LEDGER_PIPELINE, step, key), stage)])
    if target.window_column is None:
        units = [Unit(_LEDGER_PIPELINE, step, key, window) for key, window in partitions.windows.items()]
        if len(units) > 1:
            raise _no_window_column(output_address(context))
        return iter([_Part(units[0], stage)])
    parts = []
    for number, (key, window) in enumerate(partitions.windows.items()):
        chosen = WindowFilter(target.window_column, window, partitions.timezone)
        rows = _stage(scratch / f"window-{number}", _within(stage.open_reader(), chosen))
        parts.append(_Part(Unit(_LEDGER_PIPELINE, step, key, window), rows))
    outside = stage.receipt.rows - sum(part.stage.receipt.rows for part in parts)
    if outside:
        raise ValueRefused(
            f"{step}: {outside} of {stage.receipt.rows} rows have a {target.window_column!r} outside the partitions of this run",
            hint="return the rows of the partitions asked for (context.partition_time_window) only",
        )
    return iter(parts)


def _within(reader: pa.RecordBatchReader, window: WindowFilter) -> pa.RecordBatchReader:
    if window.column not in reader.schema.names:
        raise ValueRefused(f"there is no column {window.column!r}", hint=f"`window_column` must be one of {', '.join(reader.schema.names)}")
    kind = reader.schema.field(window.column).type
    start, end = (pa.scalar(bound, kind) for bound in window.bounds(kind))

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            column = batch.column(window.column)
            yield batch.filter(pc.fill_null(pc.and_(pc.greater_equal(column, start), pc.less(column, end)), False))

    return pa.RecordBatchReader.from_batches(reader.schema, batches())


def _metadata(target: Target, stage: Stage, done: list[Published]) -> Mapping[str, Any]:
    shown: dict[str, Any] = {
        "dagster/table_name": str(target.table),
        "dagster/row_count": stage.receipt.rows,
        "dagster/column_schema": table_schema(stage.schema),
        "receipt": dg.MetadataValue.json({"rows": stage.receipt.rows, "checksum": stage.receipt.checksum}),
        "generation": max(published.generation for published in done),
    }
    shown |= schema_changes([change for published in done for change in published.schema_changes])
    if preview := stage.preview():
        shown["preview"] = dg.MetadataValue.md(markdown_table(preview))
    return shown


def _no_window_column(address: Address) -> DataflowError:
    return DataflowError(
        f"{_where(address)} has partitions, and nothing says which column places a row in one",
        hint='add metadata={"window_column": "..."} to the asset or its AssetIn',
    )


def _where(address: Address) -> str:
    return f"asset {'/'.join(address.key)}"


def _resolved(name: str, value: Any) -> Any:
    found = value.get_value() if isinstance(value, dg.EnvVar) else value
    if found is None and isinstance(value, dg.EnvVar):
        raise DataflowError(f"{name}: the environment variable {value.env_var_name} is not set", hint="set it where Dagster runs")
    if isinstance(found, SecretStr):
        found = found.get_secret_value()
    if isinstance(found, str) and looks_secret(name):
        register_secret(found)
    return found


def _shown(name: str, value: Any) -> str:
    return MASK if looks_secret(name) and not isinstance(value, dg.EnvVar) else repr(value)
