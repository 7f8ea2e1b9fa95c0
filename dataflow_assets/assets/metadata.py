"""What Dagster shows beside an asset: from events and plans to metadata.

Here: values only, masked where they come from data or messages. Not here: when they are recorded (`assets.recording`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from dataflow_assets.protocols import Picture
from dataflow_assets.secrets import mask
from dataflow_assets.storage.sandbox import FIRST_INPUT

if TYPE_CHECKING:
    import pyarrow as pa

    from dataflow_assets.errors import Place
    from dataflow_assets.execution.events import StepFinished
    from dataflow_assets.plan.model import ContractPlan, PromisedColumn, StepPlan
    from dataflow_assets.protocols import CheckResult
    from dataflow_assets.tables import SchemaChange
    from dataflow_assets.windows import Window

_CELL = 80
_INTEGERS = range(-(2**53), 2**53)  # what survives the way through JSON into a browser


def code_reference(place: Place, root: Path, label: str) -> dict[str, Any]:
    """Static metadata: the file and line where a step is written."""
    reference = dg.LocalFileCodeReference(file_path=_resolved(root, place.file), line_number=max(place.line, 1), label=label)
    return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference])}


@lru_cache(maxsize=64)
def _resolved(root: Path, file: str) -> str:
    return str((root / file).resolve())


def materialized(event: StepFinished, step: StepPlan, *, window: Window | None, inputs: Sequence[dg.AssetKey]) -> dict[str, Any]:
    """Metadata of one materialization: the receipt, the columns, a preview, and how it went."""
    metadata: dict[str, Any] = {
        "dagster/row_count": event.rows,
        "dagster/column_schema": table_schema(_columns_of(event), step.contract),
        "receipt": dg.MetadataValue.json({"rows": event.rows, "bytes": event.bytes, "checksum": event.checksum}),
        "seconds": round(event.seconds, 3),
        "resumed": event.resumed,
    }
    if event.made_anew:
        metadata["stage_not_used"] = mask(event.made_anew)
    if window is not None:
        metadata["dagster/partition_row_count"] = event.rows
        metadata["window"] = str(window)
    if event.preview:
        metadata["preview"] = dg.MetadataValue.md(markdown_table(event.preview))
    if step.role in {"endpoint", "check"} and len(inputs) == 1:
        metadata["dagster/column_lineage"] = _passed_through(tuple(event.schema.names), inputs[0])
    elif step.role == "transform" and isinstance(query := step.config.get("query"), str):
        metadata["dagster/column_lineage"] = _made_by(query, tuple(zip(step.inputs, inputs, strict=False)))
    metadata |= {f"metric/{name}": _number(value) for name, value in event.metrics.items() if _is_shown(name)}
    return metadata | _published(event) | _quarantined(event)


def _quarantined(event: StepFinished) -> dict[str, Any]:
    """How many rows were set aside, and, where they are published, the table that holds them."""
    if not event.quarantined and not event.quarantine:
        return {}
    return {"quarantined": event.quarantined} | ({"quarantine_table": event.quarantine} if event.quarantine else {})


def _published(event: StepFinished) -> dict[str, Any]:
    published = event.published
    if published is None:
        return {}
    found: dict[str, Any] = {"generation": published.generation, "already_published": published.already}
    if published.deleted is not None:
        found["rows_replaced"] = published.deleted
    if published.target_rows is not None:
        found["rows_in_target"] = published.target_rows
    if published.note:
        found["note"] = mask(published.note)
    return found | schema_changes(published.schema_changes)


def schema_changes(changes: Sequence[SchemaChange]) -> dict[str, Any]:
    """What the schema policy did, a line each; nothing when it did nothing."""
    if not changes:
        return {}
    return {"schema_changes": dg.MetadataValue.md("\n".join(f"- {_escape(mask(str(change)))}" for change in changes))}


def _columns_of(event: StepFinished) -> pa.Schema:
    """The columns that are in the target; of a step that is no endpoint, those of its rows."""
    left_out = {change.column for change in (event.published.schema_changes if event.published else ()) if change.left_out}
    if not left_out:
        return event.schema
    import pyarrow as pa

    return pa.schema([item for item in event.schema if item.name not in left_out])


@lru_cache(maxsize=256)
def _passed_through(columns: tuple[str, ...], source: dg.AssetKey) -> dg.TableColumnLineage:
    return dg.TableColumnLineage({name: [dg.TableColumnDep(asset_key=source, column_name=name)] for name in columns})


@lru_cache(maxsize=256)
def _made_by(query: str, inputs: tuple[tuple[str, dg.AssetKey], ...]) -> dg.TableColumnLineage:
    """Which columns of its inputs an SQL transform makes each column from, where the text alone tells."""
    from dataflow_assets.plan.columns import column_lineage

    keys = {FIRST_INPUT: inputs[0][1], **dict(inputs)} if inputs else {}
    found = column_lineage(query, dialect="duckdb")
    return dg.TableColumnLineage(
        {
            name: [dg.TableColumnDep(asset_key=keys[table], column_name=column) for table, column in sources if table in keys]
            for name, sources in found.items()
        }
    )


@lru_cache(maxsize=256)
def table_schema(schema: pa.Schema, contract: ContractPlan | None = None) -> dg.TableSchema:
    """The columns of an Arrow schema with type and nullability, and with what a contract says of them."""
    promises = {column.name: column for column in contract.columns} if contract else {}
    return dg.TableSchema([table_column(item.name, str(item.type), item.nullable, promises.get(item.name)) for item in schema])


def table_column(name: str, kind: str, nullable: bool, promise: PromisedColumn | None) -> dg.TableColumn:
    """A column as Dagster shows it: `nullable` is what the rows say, unless a contract promises more."""
    if promise is None:
        return dg.TableColumn(name, type=kind, constraints=dg.TableColumnConstraints(nullable=nullable))
    constraints = dg.TableColumnConstraints(nullable=nullable and promise.nullable, unique=promise.unique, other=list(promise.rules))
    return dg.TableColumn(name, type=kind, description=promise.description or None, constraints=constraints)


def evaluated(result: CheckResult, *, window: Window | None, pipeline: str = "", key: str = "") -> dict[str, Any]:
    """Metadata of one check evaluation: the counts and a few offending rows; of rows set aside, how to see them."""
    metadata: dict[str, Any] = {"checked": result.checked, "failed": result.failed}
    if window is not None:
        metadata["window"] = str(window)
    metadata |= {f"metric/{name}": _number(value) for name, value in result.metrics.items() if _is_shown(name)}
    metadata |= {name: _shown(value) for name, value in result.metadata.items()}
    if result.quarantine and result.failed:
        windows = f" --window {key}" if window is not None else ""
        metadata["quarantined"] = result.failed
        metadata["quarantined_rows"] = f"dataflow quarantine show {pipeline} --rule {result.name}{windows}"
    if result.samples:
        metadata["offending_rows"] = _table(result.samples)
    return metadata


def _is_shown(metric: str) -> bool:
    """Not the marks beside numbers that were flagged, and not the many values of a dimension, which the check shows as a table."""
    return "!" not in metric and "[" not in metric


def picture(shown: Picture) -> dg.MarkdownMetadataValue:
    """A picture as Markdown: SVG in a data URI, which the UI shows as an image, without scripts."""
    import base64

    encoded = base64.b64encode(shown.svg.encode()).decode()
    return dg.MetadataValue.md(f"![{_escape(shown.title)}](data:image/svg+xml;base64,{encoded})")


def _table(rows: Sequence[Mapping[str, Any]]) -> Any:
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    records = [dg.TableRecord({name: _cell(row.get(name)) for name in names}) for row in rows]
    return dg.MetadataValue.table(records=records, schema=dg.TableSchema(columns=[dg.TableColumn(name) for name in names]))


def _shown(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return dg.MetadataValue.bool(value) if value is not None else dg.MetadataValue.null()
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Picture):
        return picture(value)
    if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
        return _table(value)
    return dg.MetadataValue.md(f"```json\n{mask(json.dumps(value, default=str, indent=1))}\n```")


def _number(value: float) -> Any:
    if isinstance(value, int):
        return value if value in _INTEGERS else str(value)
    return value if math.isfinite(value) else str(value)


def _cell(value: Any) -> str | int | float | bool | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        shown: str | int | float = _number(value)
        return shown
    text = mask(str(value))
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A few rows as a Markdown table; cells are cut at 80 characters."""
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    lines = ["| " + " | ".join(_escape(name) for name in names) + " |", "|" + " --- |" * len(names)]
    lines += [
        "| " + " | ".join(_escape("" if (cell := _cell(row.get(name))) is None else str(cell)) for name in names) + " |" for row in rows
    ]
    return "\n".join(lines)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\r", " ").replace("\n", " ").replace("<", "&lt;")
