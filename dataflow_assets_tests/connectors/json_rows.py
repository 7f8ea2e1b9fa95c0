"""Tables as other people's JSON: what an API or an index of documents would hold.

Here: one JSON object per row, nested values as JSON has them. Not here: reading it (`test_http`, `test_elasticsearch`).
"""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pyarrow as pa

from dataflow_assets.connectors._json_format import JsonFormat
from dataflow_assets.storage.casts import is_bytes, plain


def json_rows(table: pa.Table, *, bytes_as_base64: bool = False) -> list[str]:
    """Each row as a JSON object; maps are objects, and bytes are refused unless they may be base64 text."""
    nested: dict[str, list[str]] = {}
    table = pa.table({name: plain(column.combine_chunks()) for name, column in zip(table.column_names, table.columns, strict=True)})
    for number, item in enumerate(table.schema):
        if pa.types.is_nested(item.type):
            nested[item.name] = json_texts(table.column(number), nulls="null")
        elif bytes_as_base64 and is_bytes(item.type):
            texts = [None if value is None else base64.b64encode(value).decode() for value in table.column(number).to_pylist()]
            table = table.set_column(number, item.name, pa.array(texts))
    text = io.BytesIO()
    flat = table.drop_columns(list(nested))
    writer = JsonFormat(lines=True).create(text, flat.schema, list)
    for batch in flat.to_batches():
        writer.write(batch)
    rows = text.getvalue().decode().split("\n")[:-1]
    for name, values in nested.items():
        rows = [f"{row[:-1]},{json.dumps(name)}:{value}}}" for row, value in zip(rows, values, strict=True)]
    return rows


def json_texts(column: Any, *, nulls: Any = None) -> list[Any]:
    """The JSON text of nested values, without spaces."""
    return [nulls if value is None else json.dumps(_plain(value, column.type), separators=(",", ":")) for value in column.to_pylist()]


def as_json_text(column: pa.Array) -> pa.Array:
    """What becomes of a nested column that is read as text."""
    return pa.array(json_texts(column), type=pa.string())


def _plain(value: Any, kind: pa.DataType) -> Any:
    return dict(value) if pa.types.is_map(kind) else value
