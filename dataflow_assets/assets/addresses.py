"""Which table, and which windows of it, an input or output of a hand-written asset means.

Here: reading Dagster's contexts and the metadata on assets. Not here: moving rows (`assets.io_managers`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from dataflow_assets.errors import DataflowError
from dataflow_assets.tables import SchemaPolicy, WriteMode
from dataflow_assets.windows import Window


@dataclass(frozen=True)
class Address:
    """What the metadata of an asset says of its table. `name` is a table or a path; empty: named after the asset key."""

    key: tuple[str, ...]
    name: str = ""
    schema: str | None = None
    columns: tuple[str, ...] = ()
    mode: WriteMode | None = None
    keys: tuple[str, ...] = ()
    window_column: str | None = None
    schema_policy: SchemaPolicy | None = None


@dataclass(frozen=True)
class Partitions:
    """The windows that an input or output is about, by partition key; none without partitions."""

    windows: Mapping[str, Window]
    timezone: str = "UTC"


def output_address(context: dg.OutputContext) -> Address:
    """The table that an output goes to."""
    return _address(context.asset_key, [context.definition_metadata, context.output_metadata], is_file=False)


def input_address(context: dg.InputContext, *, is_file: bool) -> Address:
    """The table, or file, that an input comes from: what the input says, then what its upstream asset says."""
    upstream = context.upstream_output.definition_metadata if context.upstream_output is not None else {}
    return _address(context.asset_key, [upstream or {}, context.definition_metadata], is_file=is_file)


def _address(key: dg.AssetKey, layers: Sequence[Mapping[str, Any] | None], *, is_file: bool) -> Address:
    said = {name: _plain(value) for layer in layers for name, value in (layer or {}).items()}
    unknown = said.get("mode")
    if unknown is not None and unknown not in {mode.value for mode in WriteMode} | {"insert"}:
        raise DataflowError(f"asset {key.to_user_string()}: mode {unknown!r} is unknown", hint=f"use {', '.join(WriteMode)}")
    policy = said.get("schema_policy")
    if policy is not None and policy not in set(SchemaPolicy):
        raise DataflowError(f"asset {key.to_user_string()}: schema_policy {policy!r} is unknown", hint=f"use {', '.join(SchemaPolicy)}")
    name, schema = _name(said, is_file=is_file)
    return Address(
        key=tuple(key.path),
        name=name,
        schema=said.get("schema") or schema,
        columns=_words(said.get("columns")),
        mode=WriteMode.APPEND if unknown == "insert" else WriteMode(unknown) if unknown else None,
        keys=_words(said.get("upsert_keys")),
        window_column=said.get("window_column") or said.get("partition_expr"),
        schema_policy=SchemaPolicy(policy) if policy else None,
    )


def _name(said: Mapping[str, Any], *, is_file: bool) -> tuple[str, str | None]:
    """The table and its schema, or a path: said by hand, or as a pipeline's endpoint says it."""
    if by_hand := said.get("table") or said.get("file_path"):
        return str(by_hand), None
    published = str(said.get("dagster/table_name") or "")
    if is_file:
        return published, None
    if connection := said.get("connection"):
        published = published.removeprefix(f"{connection}.")
    schema, dot, table = published.rpartition(".")
    return (table, schema) if dot else (published, None)


def _words(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, dg.MetadataValue) else value


def partitions_of_output(context: dg.OutputContext) -> Partitions:
    """The windows that an output holds."""
    if not context.has_asset_partitions:
        return Partitions({})
    return _partitions(context.asset_key, context.asset_partitions_def, context.asset_partition_keys)


def partitions_of_input(context: dg.InputContext) -> Partitions:
    """The windows that an input asks for."""
    if not context.has_asset_partitions:
        return Partitions({})
    return _partitions(context.asset_key, context.asset_partitions_def, context.asset_partition_keys)


def _partitions(key: dg.AssetKey, definition: dg.PartitionsDefinition[Any], keys: Sequence[str]) -> Partitions:
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        raise DataflowError(
            f"asset {key.to_user_string()}: its partitions are {type(definition).__name__}, and only time windows are supported",
            hint="use a TimeWindowPartitionsDefinition (daily, hourly, ...), or no partitions and a column in the table",
        )
    found = {name: definition.time_window_for_partition_key(name) for name in keys}
    return Partitions({name: Window(window.start, window.end) for name, window in found.items()}, definition.timezone)
