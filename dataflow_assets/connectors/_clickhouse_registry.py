"""The schema registry in ClickHouse: a table of versions, added to inside a turn, where nobody else changes the target.

Here: its statements. Not here: what a version is (`storage.registry`), turns (`_clickhouse_ledger`).
"""

# ruff: noqa: S608 - identifiers pass Dialect.quote, values are placeholders

from __future__ import annotations

from dataflow_assets.connectors._clickhouse_session import CLICKHOUSE, Server, placeholders
from dataflow_assets.storage import registry
from dataflow_assets.tables import SchemaVersion, TableName


def create_registry(table: TableName) -> str:
    """CREATE TABLE IF NOT EXISTS for the registry."""
    kinds = dict.fromkeys(registry.COLUMNS, "String") | {"version": "UInt32", "recorded_at": "DateTime64(6, 'UTC')"}
    columns = ", ".join(f"{CLICKHOUSE.quote(name)} {kind}" for name, kind in kinds.items())
    return f"CREATE TABLE IF NOT EXISTS {CLICKHOUSE.table(table)} ({columns}) ENGINE = MergeTree ORDER BY (target_table, version)"


def versions(server: Server, target: TableName) -> list[SchemaVersion]:
    """The versions of a table, oldest first."""
    names, table = CLICKHOUSE.names(registry.COLUMNS), CLICKHOUSE.table(registry.registry_table(target))
    text = f"SELECT {names} FROM {table} WHERE target_table = {{dataflow_1:String}} ORDER BY version LIMIT 1 BY version"
    return [registry.schema_version(row) for row in server.rows(text, (str(target),))]


def write(server: Server, target: TableName, version: SchemaVersion) -> None:
    """Add a version."""
    values = registry.version_values(CLICKHOUSE, version)
    table, names = CLICKHOUSE.table(registry.registry_table(target)), CLICKHOUSE.names(list(values))
    server.run(f"INSERT INTO {table} ({names}) VALUES ({placeholders(tuple(values.values()))})", tuple(values.values()))
