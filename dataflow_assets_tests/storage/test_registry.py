"""The schema registry: what differs between two versions, and that nothing is asked or written without need."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from dataflow_assets.storage import registry
from dataflow_assets.storage.agreement import HeldColumn
from dataflow_assets.storage.sql import Dialect
from dataflow_assets.tables import ColumnVersion, SchemaVersion, TableName
from dataflow_assets_tests.storage.test_agreement import request

OLD = (ColumnVersion("id", "INTEGER"), ColumnVersion("note", "TEXT", nullable=False), ColumnVersion("gone", "DATE"))
NEW = (ColumnVersion("new \U0001f600", "TEXT"), ColumnVersion("note", "TEXT"), ColumnVersion("id", "BIGINT"))


def test_differences_are_told_in_words() -> None:
    assert registry.differences(OLD, NEW) == (
        "added 'new \U0001f600' TEXT",
        "removed 'gone' DATE",
        "changed 'note' to allow nulls",
        "changed 'id' from INTEGER to BIGINT",
    )
    assert registry.differences(OLD, reversed(OLD)) == ()
    assert registry.fingerprint(OLD) == registry.fingerprint(reversed(OLD)) != registry.fingerprint(NEW)


def test_a_version_comes_back_as_it_was_written() -> None:
    made = registry.next_version(request(pa.schema([]), None), None, NEW)
    values = registry.version_values(Dialect("test"), made)
    assert registry.schema_version(tuple(values.values())) == made
    assert registry.schema_version(tuple({**values, "recorded_at": made.recorded_at.isoformat()}.values())) == made
    assert registry.registry_table(TableName("orders", "mart")) == TableName("_dataflow_schemas", "mart")


def test_what_is_recorded_is_not_asked_for_again() -> None:
    kept: list[SchemaVersion] = []
    asked: list[int] = []
    known, publish = registry.Registry(), request(pa.schema([]), None)

    def keep(*columns: HeldColumn) -> None:
        def read() -> list[SchemaVersion]:
            asked.append(len(kept))
            return kept

        write: Any = kept.append
        known.keep_by(publish, columns, read=read, write=write)

    one, two = HeldColumn("id", "BIGINT"), HeldColumn("note", "TEXT")
    for _ in range(4):
        keep(one)
    assert (len(kept), len(asked)) == (1, 2), "written once, found once"
    for _ in range(3):
        keep(two, one)
    assert [version.changes for version in kept] == [(), ("added 'note' TEXT",)]
    assert len(asked) == 4
