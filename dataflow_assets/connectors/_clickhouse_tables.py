"""A target table of ClickHouse: what it is, how it is made, and its staging tables.

Here: descriptions from the system tables, DDL, names of staging tables and their end. Not here: the order in which they are used
(`_clickhouse_publish`), types (`_clickhouse_types`).
"""

# ruff: noqa: S608 - identifiers pass Dialect.quote, values are placeholders

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from dataflow_assets.connectors._clickhouse_ledger import LOAD, STAGE
from dataflow_assets.connectors._clickhouse_session import CLICKHOUSE, Server, driver_errors
from dataflow_assets.connectors._clickhouse_types import holds_null, parse, sql_type, widened_kind
from dataflow_assets.errors import WriteFailed
from dataflow_assets.storage.agreement import HeldColumn, System
from dataflow_assets.tables import PublishRequest, TableName, Target, Unit, WriteMode

_ENGINES = {"MergeTree", "ReplacingMergeTree"}
"""Others change rows when they merge, also the column that marks a load, or share their parts with other servers."""
_COMPUTED = {"MATERIALIZED", "ALIAS"}


@dataclass(frozen=True)
class Column:
    """A column of an existing table."""

    type: str
    default: str
    """DEFAULT, MATERIALIZED, ALIAS, EPHEMERAL, or empty."""


@dataclass(frozen=True)
class Table:
    """An existing table."""

    engine: str
    engine_full: str
    partition_key: str
    sorting_key: str
    columns: Mapping[str, Column] = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """Whether a row that was inserted stays a row: merges of other engines, or a TTL, may make fewer of them."""
        return self.engine == "MergeTree" and " TTL " not in self.engine_full

    def replaces(self, keys: Sequence[str]) -> bool:
        """Whether the engine itself lets the last row of these keys win: a ReplacingMergeTree sorted by them, without a version."""
        sorted_by = {part.strip("()` ") for part in self.sorting_key.split(",")}
        partitioned_by = {name for name in self.columns if mentions(self.partition_key, name)}
        plain = bool(re.match(r"ReplacingMergeTree(\(\s*\))?(\s|$)", self.engine_full))
        return plain and sorted_by == set(keys) and partitioned_by <= set(keys)


def mentions(expression: str, column: str) -> bool:
    """Whether a key's expression names the column."""
    return CLICKHOUSE.quote(column) in expression or bool(re.search(rf"(?<![\w`]){re.escape(column)}(?![\w`])", expression))


def describe(server: Server, table: TableName) -> Table | None:
    """The table, None when there is none."""
    at = (table.schema or "", table.name)
    where = "database = {dataflow_1:String} AND table = {dataflow_2:String}"
    found = server.rows(
        "SELECT engine, engine_full, partition_key, sorting_key FROM system.tables "
        "WHERE database = {dataflow_1:String} AND name = {dataflow_2:String}",
        at,
    )
    if not found:
        return None
    columns = server.rows(f"SELECT name, type, default_kind FROM system.columns WHERE {where} ORDER BY position", at)
    if not columns:  # dropped in between
        return None
    engine, engine_full, partition_key, sorting_key = found[0]
    return Table(engine, engine_full, partition_key, sorting_key, {name: Column(kind, default) for name, kind, default in columns})


def exists(server: Server, *tables: TableName) -> bool:
    """Whether all of the tables, which share a database, are there."""
    names = [table.name for table in tables]
    text = "SELECT count() FROM system.tables WHERE database = {dataflow_1:String} AND has({dataflow_2:Array(String)}, name)"
    return bool(server.rows(text, (tables[0].schema or "", names))[0][0] == len(tables))


def require_engine(table: Table, name: TableName) -> None:
    """Raise WriteFailed for an engine whose parts cannot be swapped here."""
    if table.engine not in _ENGINES:
        hint = "publish into a table with ENGINE = MergeTree or ReplacingMergeTree, from which others may be fed"
        raise WriteFailed(f"table {name} has the engine {table.engine}, into which windows cannot be swapped exactly once", hint=hint)


def held_columns(table: Table) -> list[HeldColumn]:
    """The columns, as the agreement with the data wants them; those of a key, and those with a default, keep their type."""
    found = []
    for name, column in table.columns.items():
        if name == LOAD:
            continue
        fixed = bool(column.default) or mentions(f"{table.sorting_key} {table.partition_key}", name)
        kind = None if fixed else widened_kind(column.type)
        null, computed = holds_null(parse(column.type)), column.default in _COMPUTED
        found.append(HeldColumn(name, column.type, filled=bool(column.default), nullable=null, writable=not computed, kind=kind))
    return found


def changed_type(kind: pa.DataType, column: HeldColumn) -> str:
    """The type of a column that is added, or changed and keeps what it does with nulls."""
    return sql_type(kind, name=column.name, nullable=column.nullable)


SYSTEM = System(CLICKHOUSE, changed_type)


def create_statement(request: PublishRequest, name: TableName) -> str:
    """CREATE TABLE for a target that is missing, under `name`: from `schema` where given, else from the data."""
    target, options = request.target, request.target.options
    order, partition = _sorting(target), options.partition_by or ""
    keys = {item.name for item in request.schema if mentions(f"{order} {partition}", item.name)}
    given: Mapping[str, str] = options.columns
    inferred = {
        item.name: sql_type(item.type, name=item.name, nullable=item.name not in keys) for item in request.schema if item.name not in given
    }
    columns = [f"{CLICKHOUSE.quote(column)} {kind}" for column, kind in {**given, **inferred}.items()]
    columns.append(f"{CLICKHOUSE.quote(LOAD)} UInt64 MATERIALIZED 0")
    parted = f" PARTITION BY {partition}" if partition else ""
    return f"CREATE TABLE {CLICKHOUSE.table(name)} ({', '.join(columns)}) ENGINE = {options.engine}{parted} ORDER BY ({order})"


def _sorting(target: Target) -> str:
    """As written; else what the rows are found by."""
    if target.options.order_by:
        return ", ".join(target.options.order_by)
    if target.mode is WriteMode.UPSERT:
        return CLICKHOUSE.names(target.keys)
    if target.mode is WriteMode.REPLACE_WINDOW and target.window_column:
        return CLICKHOUSE.quote(target.window_column)
    return "tuple()"


def add_load_column(server: Server, name: TableName) -> None:
    """Give a table that was made by hand the column by which a load is recognised; `SELECT *` does not show it."""
    column = CLICKHOUSE.quote(LOAD)
    server.run(f"ALTER TABLE {CLICKHOUSE.table(name)} ADD COLUMN IF NOT EXISTS {column} UInt64 MATERIALIZED 0")


def mark_inserts(server: Server, name: TableName, load: int) -> None:
    """Let the server mark each row that comes in with the load; 0 ends it."""
    server.run(f"ALTER TABLE {CLICKHOUSE.table(name)} MODIFY COLUMN {CLICKHOUSE.quote(LOAD)} UInt64 MATERIALIZED {load}")


# -- staging tables


def stage_name(target: Target, unit: Unit, *, generation: int, load: int, role: str) -> TableName:
    """A staging table's name says its target, unit, generation and load; `role` is what it is for."""
    return TableName(
        f"{_prefix(target.table)}{_digest(unit.pipeline, unit.step, unit.key)}_{generation}_{load:016x}_{role}", target.table.schema
    )


def _prefix(table: TableName) -> str:
    return f"{STAGE}{_digest(str(table))}_"


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=5).hexdigest()


def drop_stages(server: Server, target: TableName, load: int, *, seconds: float) -> None:
    """Drop the staging tables of a load, and wait until no statement uses them any more: its owner can publish no longer."""
    mark = f"_{load:016x}_"
    at = (target.schema or "", _prefix(target), mark)
    where = "database = {dataflow_1:String} AND startsWith(name, {dataflow_2:String}) AND position(name, {dataflow_3:String}) > 0"
    for (name,) in server.rows(f"SELECT name FROM system.tables WHERE {where}", at):
        server.run(f"DROP TABLE IF EXISTS {CLICKHOUSE.table(TableName(name, target.schema))}")
    deadline = time.monotonic() + seconds
    # A statement that found a table before it was dropped is in this list until it is over. Not SYNC: that also waits eight
    # minutes for nothing when the table was dropped by somebody else.
    running = "SELECT 1 FROM system.processes WHERE position(query, {dataflow_1:String}) > 0 AND query_id != queryID() LIMIT 1"
    while server.rows(running, (mark,)):
        if time.monotonic() > deadline:
            raise WriteFailed(f"{target}: an older publish is still running on the server", hint="see SHOW PROCESSLIST", transient=True)
        time.sleep(0.1)


def sweep(server: Server, target: Target, unit: Unit, *, generation: int, busy: Sequence[int]) -> None:
    """Drop what older attempts at this unit left, and what is older than a day; the loads of open turns are left to their judges."""
    at = (target.table.schema or "", _prefix(target.table))
    old = "metadata_modification_time < now() - INTERVAL 1 DAY"
    text = f"SELECT name, {old} FROM system.tables WHERE database = {{dataflow_1:String}} AND startsWith(name, {{dataflow_2:String}})"
    mine = _digest(unit.pipeline, unit.step, unit.key)
    for name, is_old in server.rows(text, at):
        owner, number, load, _ = name.removeprefix(at[1]).split("_")
        if int(load, 16) not in busy and (is_old or (owner == mine and int(number) < generation)):
            server.run(f"DROP TABLE IF EXISTS {CLICKHOUSE.table(TableName(name, target.table.schema))}")


def drop_quietly(server: Server, tables: Sequence[TableName]) -> None:
    """Drop staging tables that are of no more use, without waiting for readers; what fails here is swept by the next attempt."""
    for table in tables:
        try:
            server.run(f"DROP TABLE IF EXISTS {CLICKHOUSE.table(table)}")
        except driver_errors():
            return
