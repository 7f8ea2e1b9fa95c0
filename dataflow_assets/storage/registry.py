"""The schema registry: every version of a table's columns, kept beside the ledger and committed with the rows.

Here: the table `_dataflow_schemas`, its statements over a dialect, and what differs between two versions. Not here: which changes are
allowed (`storage.agreement`), transactions (`connectors`), the registry of files (`storage.file_ledger`).
"""

# ruff: noqa: S608 - identifiers pass Dialect.quote, values are placeholders

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dataflow_assets.storage.sql import Dialect, Statement, create_table, merge_rows
from dataflow_assets.tables import ColumnVersion, PublishRequest, SchemaVersion, TableName, utc_now

if TYPE_CHECKING:
    from dataflow_assets.storage.agreement import HeldColumn

REGISTRY = "_dataflow_schemas"
_KEY = ("target_table", "version")
COLUMNS = (*_KEY, "fingerprint", "columns_json", "changes_json", "recorded_at", "pipeline", "step", "unit_key", "attempt")


def registry_table(target: TableName) -> TableName:
    """The registry that stands beside `target`, in its schema."""
    return TableName(REGISTRY, target.schema)


def create_registry(dialect: Dialect, table: TableName, *, options: str = "") -> Statement:
    """CREATE TABLE IF NOT EXISTS for the registry; `options` stand at its end."""
    kinds = dict.fromkeys(COLUMNS, dialect.text_type)
    kinds |= {"target_table": dialect.key_text_type, "version": dialect.integer_type, "recorded_at": dialect.instant_type}
    return create_table(dialect, table, kinds, primary_key=_KEY, options=options)


def fetch_versions(dialect: Dialect, target: TableName) -> Statement:
    """Every version of a table, for `schema_version`."""
    where = f"{dialect.quote('target_table')} = {dialect.placeholder(1)} ORDER BY {dialect.quote('version')}"
    return Statement(f"SELECT {dialect.names(COLUMNS)} FROM {dialect.table(registry_table(target))} WHERE {where}", (str(target),))


def schema_version(values: Sequence[Any]) -> SchemaVersion:
    """A row of `COLUMNS` as data; the time may come as a datetime or ISO text, a naive one is in UTC."""
    row = dict(zip(COLUMNS, values, strict=True))
    moment = datetime.fromisoformat(row["recorded_at"]) if isinstance(row["recorded_at"], str) else row["recorded_at"]
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    columns = tuple(ColumnVersion(**item) for item in json.loads(row["columns_json"]))
    who = (row[name] for name in ("pipeline", "step", "unit_key", "attempt"))
    return SchemaVersion(row["target_table"], int(row["version"]), columns, tuple(json.loads(row["changes_json"])), moment, *who)


def version_values(dialect: Dialect, version: SchemaVersion) -> dict[str, Any]:
    """A version as the values of `COLUMNS`."""
    columns = [{"name": item.name, "type": item.type, "nullable": item.nullable} for item in version.columns]
    values = (
        *(version.target, version.version, fingerprint(version.columns), json.dumps(columns), json.dumps(version.changes)),
        *(dialect.instant(version.recorded_at), version.pipeline, version.step, version.unit_key, version.attempt),
    )
    return dict(zip(COLUMNS, values, strict=True))


def insert_version(dialect: Dialect, target: TableName, version: SchemaVersion) -> Statement:
    """Insert a version unless one of its number is there: of two publishes that make the same change at once, one has said it."""
    values = version_values(dialect, version)
    marks = ", ".join(dialect.placeholder(position) for position in range(1, len(values) + 1))
    text = f"INSERT INTO {dialect.table(registry_table(target))} ({dialect.names(list(values))}) VALUES ({marks})"
    return Statement(text + dialect.conflict(dialect, _KEY, {}), tuple(values.values()))


def merge_version(dialect: Dialect, target: TableName, version: SchemaVersion) -> Statement:
    """What `insert_version` does, for a database with MERGE and without ON CONFLICT."""
    values = version_values(dialect, version)
    marks = ", ".join(f"{dialect.placeholder(at)} AS {dialect.quote(name)}" for at, name in enumerate(values, start=1))
    text = merge_rows(dialect, registry_table(target), list(values), f"(SELECT {marks})", keys=_KEY, assignments={})
    return Statement(text, tuple(values.values()))


def fingerprint(columns: Iterable[ColumnVersion]) -> str:
    """A short text that changes when a column's name, type or nullability does; their order does not matter."""
    lines = sorted(f"{item.name}\0{item.type}\0{item.nullable}" for item in columns)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def versions_of(columns: Iterable[HeldColumn]) -> tuple[ColumnVersion, ...]:
    """The columns of a table as a version has them."""
    return tuple(ColumnVersion(column.name, column.declared, column.nullable) for column in columns)


def differences(old: Iterable[ColumnVersion], new: Iterable[ColumnVersion]) -> tuple[str, ...]:
    """What differs, a sentence each, added columns first."""
    before, after = {item.name: item for item in old}, {item.name: item for item in new}
    said = [f"added {item.name!r} {item.type}" for name, item in after.items() if name not in before]
    said += [f"removed {item.name!r} {item.type}" for name, item in before.items() if name not in after]
    for name, item in after.items():
        if name in before and before[name].type != item.type:
            said.append(f"changed {name!r} from {before[name].type} to {item.type}")
        if name in before and before[name].nullable != item.nullable:
            said.append(f"changed {name!r} to {'allow' if item.nullable else 'refuse'} nulls")
    return tuple(said)


def next_version(request: PublishRequest, last: SchemaVersion | None, columns: tuple[ColumnVersion, ...]) -> SchemaVersion:
    """The version after `last`, made by this publish."""
    claim, number = request.claim, last.version + 1 if last else 1
    changes = differences(last.columns, columns) if last else ()
    who = (claim.unit.pipeline, claim.unit.step, claim.unit.key, claim.attempt)
    return SchemaVersion(str(request.target.table), number, columns, changes, utc_now(), *who)


class Registry:
    """What a connector knows of the registries beside its targets: which exist, and which tables are in them as they are."""

    def __init__(self) -> None:
        self.made: set[TableName] = set()
        """The registries that this connector has found or made."""
        self._known: dict[TableName, str] = {}

    def keep(self, request: PublishRequest, columns: Iterable[HeldColumn], dialect: Dialect, run: Callable[[Statement], Any]) -> None:
        """Within the transaction of a publish: write down the columns of the target, unless its newest version has them."""
        table = request.target.table

        def read() -> list[SchemaVersion]:
            return [schema_version(row) for row in run(fetch_versions(dialect, table))]

        self.keep_by(request, columns, read=read, write=lambda version: run(insert_version(dialect, table, version)))

    def keep_by(
        self,
        request: PublishRequest,
        columns: Iterable[HeldColumn],
        *,
        read: Callable[[], Sequence[SchemaVersion]],
        write: Callable[[SchemaVersion], object],
    ) -> None:
        """The same by other statements. What was found in the registry once is not asked for again, so most publishes cost nothing."""
        table, found = request.target.table, versions_of(columns)
        mark = fingerprint(found)
        if self._known.get(table) == mark:
            return
        last = next(iter(read()[-1:]), None)
        if last is not None and fingerprint(last.columns) == mark:
            self._known[table] = mark
        else:
            write(next_version(request, last, found))
