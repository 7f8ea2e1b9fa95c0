"""Whole rows as JSON text, and back to the very same Arrow values.

Here: one JSON object for each row, made and read column by column. Whole numbers and booleans are JSON's own; every other value is
text that says it exactly: floats in their shortest form that reads back, decimals in all their digits, bytes in hexadecimal, dates and
times in ISO 8601 (instants in UTC, with a `Z`), a map as a list of keys and values. A moment that ISO text cannot say (the year 12345)
and a duration are `#` and the count of their unit. Not here: what the rows are kept for (`storage.quarantine`).
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dataflow_assets.errors import ValueRefused
from dataflow_assets.storage.casts import cast_exactly, is_bytes, is_text

TEXT = pa.large_string()
_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), dtype=np.uint16)
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_RARE = "[\\x00-\\x1f]"
_RAW = "#"
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_897
"""1 January of the year 1 and of 10000, in days from 1970."""
_VIEWS = {pa.string_view(): TEXT, pa.binary_view(): pa.large_binary()}


def rows_as_text(batch: pa.RecordBatch) -> pa.LargeStringArray:
    """A JSON object for each row. Raises ValueRefused for a type that no stage can hold either."""
    if batch.num_columns == 0:
        return pa.array(["{}"] * batch.num_rows, TEXT)
    return _object(batch.schema.names, [_fragments(_afresh(column)) for column in batch.columns])


def values_as_text(column: pa.Array) -> pa.LargeStringArray:
    """Each value as a person would write it, null where it is null; text as it is."""
    plain = _decoded(_afresh(column))
    if is_text(plain.type):
        return plain.cast(TEXT)
    shown = pc.replace_substring_regex(_fragments(plain), '^"(.*)"$', "\\1")
    return pc.if_else(plain.is_valid(), shown, pa.scalar(None, TEXT))


def rows_from_text(texts: pa.Array, schema: pa.Schema) -> pa.RecordBatch:
    """The rows that `rows_as_text` wrote, of this schema."""
    from pyarrow import json as arrow_json

    if not len(schema) or not len(texts):
        columns = [pa.nulls(len(texts), item.type) for item in schema]
        return pa.RecordBatch.from_arrays(columns, schema=schema) if columns else pa.RecordBatch.from_struct_array(_empty(len(texts)))
    lines = _joined(texts.cast(TEXT), np.array([0, len(texts)]), between="\n")[0].as_buffer()
    wire = pa.schema([pa.field(item.name, _wire(item.type)) for item in schema])
    parse = arrow_json.ParseOptions(explicit_schema=wire, unexpected_field_behavior="error")
    table = arrow_json.read_json(pa.BufferReader(lines), arrow_json.ReadOptions(use_threads=False, block_size=lines.size + 1), parse)
    table = table.combine_chunks()
    columns = [_restored(table.column(item.name).chunk(0), item.type) for item in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _empty(rows: int) -> pa.StructArray:
    return pa.StructArray.from_buffers(pa.struct([]), rows, [None])


def schema_as_text(schema: pa.Schema) -> str:
    """A schema as one line of text that `schema_from_text` reads."""
    return base64.b64encode(zlib.compress(schema.serialize().to_pybytes(), 9)).decode()


def schema_from_text(text: str) -> pa.Schema:
    """The schema that `schema_as_text` wrote."""
    return pa.ipc.read_schema(pa.py_buffer(zlib.decompress(base64.b64decode(text))))


def _afresh(column: pa.Array) -> pa.Array:
    """The values in buffers of their own, from offset 0; Arrow cannot take from views."""
    column = column.cast(_VIEWS.get(column.type, column.type))
    return column.take(pa.array(np.arange(len(column))))


def _decoded(column: pa.Array) -> pa.Array:
    """Without extension, dictionary, view or fixed layout: the few types that are left are written one by one."""
    if isinstance(column, pa.ExtensionArray):
        return _decoded(column.storage)
    if isinstance(column.type, pa.DictionaryType):
        return _decoded(column.dictionary_decode())
    if pa.types.is_fixed_size_list(column.type):
        return column.cast(pa.list_(column.type.value_field))
    if pa.types.is_float16(column.type):
        return column.cast(pa.float32())
    return column


def _fragments(column: pa.Array) -> pa.LargeStringArray:
    """The JSON of each value; `null` for null. `column` begins at offset 0."""
    column = _decoded(column)
    if pa.types.is_null(column.type):
        return pa.array(["null"] * len(column), TEXT)
    return pc.if_else(column.is_valid(), _writer(column.type)(column), pa.scalar("null", TEXT))


def _writer(kind: pa.DataType) -> Callable[[pa.Array], pa.LargeStringArray]:
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return lambda column: column.cast(TEXT)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return lambda column: _quoted(column.cast(TEXT))
    if is_text(kind):
        return lambda column: _quoted(_escaped(column.cast(TEXT)))
    if is_bytes(kind):
        return lambda column: _quoted(_hexadecimal(column.cast(pa.large_binary())))
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        return lambda column: _quoted(_moments(column))
    if pa.types.is_struct(kind):
        return lambda column: _object([item.name for item in kind], [_fragments(item) for item in column.flatten()])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        return _list
    raise ValueRefused(f"a value of type {kind} cannot be kept as text", hint="cast it in the step that makes it")


def _quoted(texts: pa.Array) -> pa.LargeStringArray:
    quote = pa.scalar('"', TEXT)
    return pc.binary_join_element_wise(quote, texts, quote, pa.scalar("", TEXT))


def _escaped(texts: pa.Array) -> pa.LargeStringArray:
    for sign, written in _ESCAPES.items():
        texts = pc.replace_substring(texts, sign, written)
    if pc.any(pc.match_substring_regex(texts, _RARE), min_count=0).as_py():
        for code in range(32):
            texts = pc.replace_substring(texts, chr(code), f"\\u{code:04x}")
    return texts


def _hexadecimal(column: pa.LargeBinaryArray) -> pa.LargeStringArray:
    column = pc.fill_null(column, b"")
    offsets = np.frombuffer(column.buffers()[1], dtype=np.int64)[column.offset : column.offset + len(column) + 1]
    data = column.buffers()[2]
    raw = np.frombuffer(data, dtype=np.uint8)[offsets[0] : offsets[-1]] if data is not None else np.empty(0, dtype=np.uint8)
    ends = pa.py_buffer(np.ascontiguousarray((offsets - offsets[0]) * 2))
    return pa.LargeStringArray.from_buffers(len(column), ends, pa.py_buffer(_HEX[raw]))


def _storage(kind: pa.DataType) -> pa.DataType:
    return pa.int32() if pa.types.is_date32(kind) or pa.types.is_time32(kind) else pa.int64()


def _naive(kind: pa.DataType) -> pa.DataType:
    """The type without timezone whose ISO text Arrow reads; a time is read as one of the first day."""
    if pa.types.is_timestamp(kind) or pa.types.is_time(kind):
        return pa.timestamp(kind.unit)
    return pa.timestamp("ms") if pa.types.is_date64(kind) else kind


def _counted(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    """ISO texts as counts of the unit of `kind`."""
    first = pa.scalar("1970-01-01 " if pa.types.is_time(kind) else "", pa.string())
    texts = pc.binary_join_element_wise(first, texts.cast(pa.string()), pa.scalar("", pa.string()))
    naive = _naive(kind)
    return texts.cast(naive).view(_storage(naive)).cast(_storage(kind))


def _moments(column: pa.Array) -> pa.LargeStringArray:
    """ISO text where it reads back as the same moment, else the count."""
    kind = column.type
    counts = pc.binary_join_element_wise(pa.scalar(_RAW, TEXT), column.view(_storage(kind)).cast(TEXT), pa.scalar("", TEXT))
    if pa.types.is_duration(kind):
        return counts
    shown = column.view(pa.int64()).view(_naive(kind)) if _is_instant(kind) or pa.types.is_date64(kind) else column
    shown = pc.if_else(_four_digit_year(column.view(_storage(kind)), _naive(kind)), shown, pa.scalar(None, shown.type))
    texts = shown.cast(TEXT)
    same = pc.equal(_counted(texts, kind), column.view(_storage(kind)))
    texts = pc.binary_join_element_wise(texts, pa.scalar("Z", TEXT), pa.scalar("", TEXT)) if _is_instant(kind) else texts
    return pc.if_else(pc.fill_null(same, False), texts, counts)


def _four_digit_year(counts: pa.Array, kind: pa.DataType) -> pa.BooleanArray:
    """Where the moment lies in the years 1 to 9999, whose text Arrow writes and reads."""
    a_day = 1 if pa.types.is_date32(kind) else 86_400 * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
    edge = 2**63 - a_day  # a day within what 64 bits hold: Arrow cannot read the last second of nanoseconds
    first, last = max(-edge, _FIRST_DAY * a_day), min(edge, _LAST_DAY * a_day - 1)
    wide = counts.cast(pa.int64())
    return pc.and_(pc.greater_equal(wide, first), pc.less_equal(wide, last))


def _is_instant(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) and kind.tz is not None


def _object(names: list[str], fragments: list[pa.LargeStringArray]) -> pa.LargeStringArray:
    pieces: list[pa.Array | pa.Scalar] = []
    for number, (name, values) in enumerate(zip(names, fragments, strict=True)):
        before = ("{" if number == 0 else ", ") + json.dumps(name, ensure_ascii=False) + ": "
        pieces += [pa.scalar(before, TEXT), values]
    return pc.binary_join_element_wise(*pieces, pa.scalar("}" if names else "{}", TEXT), pa.scalar("", TEXT))


def _list(column: pa.Array) -> pa.LargeStringArray:
    """The values of all lists at once, joined list by list."""
    if pa.types.is_map(column.type):
        column = _entries(column)
    lengths = pc.fill_null(pc.list_value_length(column).cast(pa.int64()), 0)
    ends = np.concatenate(([0], np.cumsum(lengths.to_numpy(zero_copy_only=False))))
    joined = _joined(_fragments(_afresh(column.flatten())), ends, between=", ")
    return pc.binary_join_element_wise(pa.scalar("[", TEXT), joined, pa.scalar("]", TEXT), pa.scalar("", TEXT))


def _joined(texts: pa.Array, ends: NDArray[np.int64], *, between: str) -> pa.LargeStringArray:
    return pc.binary_join(pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), texts), pa.scalar(between, TEXT))


def _entries(column: pa.MapArray) -> pa.ListArray:
    """A map as what it is stored as: a list of pairs."""
    pairs = pa.StructArray.from_arrays([column.keys, column.items], names=["key", "value"])
    mask = column.is_null() if column.null_count else None
    return pa.ListArray.from_arrays(column.offsets, pairs, mask=mask)


def _wire(kind: pa.DataType) -> pa.DataType:
    """What JSON's parser is told to expect."""
    if isinstance(kind, pa.BaseExtensionType):
        return _wire(kind.storage_type)
    if isinstance(kind, pa.DictionaryType):
        return _wire(kind.value_type)
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return kind
    if pa.types.is_integer(kind):
        return pa.uint64() if kind == pa.uint64() else pa.int64()
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(item.name, _wire(item.type)) for item in kind])
    if pa.types.is_map(kind):
        return pa.list_(pa.struct([pa.field("key", _wire(kind.key_type)), pa.field("value", _wire(kind.item_type))]))
    return pa.list_(_wire(kind.value_type)) if pa.types.is_nested(kind) else pa.string()


def _restored(wire: pa.Array, kind: pa.DataType) -> pa.Array:
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, _restored(wire, kind.storage_type))
    if isinstance(kind, pa.DictionaryType):
        encoded = _restored(wire, kind.value_type).dictionary_encode()
        return pa.DictionaryArray.from_arrays(encoded.indices.cast(kind.index_type), encoded.dictionary, ordered=kind.ordered)
    if pa.types.is_struct(kind):
        children = [_restored(wire.field(number), item.type) for number, item in enumerate(kind)]
        return pa.StructArray.from_arrays(children, fields=list(kind), mask=wire.is_null())
    if pa.types.is_nested(kind):
        return _restored_list(wire, kind)
    if is_bytes(kind):
        return _from_hexadecimal(wire).cast(kind)
    if pa.types.is_temporal(kind):
        return _from_moments(wire, kind)
    if pa.types.is_float16(kind):
        return wire.cast(pa.float32()).cast(kind)
    return cast_exactly(wire, kind, name="row") if pa.types.is_decimal(kind) else wire.cast(kind)


def _restored_list(wire: pa.Array, kind: pa.DataType) -> pa.Array:
    mask = wire.is_null() if wire.null_count else None
    if pa.types.is_map(kind):
        keys, items = (_restored(wire.values.field(number), one) for number, one in enumerate((kind.key_type, kind.item_type)))
        return pa.MapArray.from_arrays(wire.offsets, keys, items, type=kind, mask=mask)
    values = _restored(wire.values, kind.value_type)
    if pa.types.is_large_list(kind):
        return pa.LargeListArray.from_arrays(wire.offsets.cast(pa.int64()), values, type=kind, mask=mask)
    if pa.types.is_fixed_size_list(kind):
        places = np.zeros(len(wire) * kind.list_size, dtype=np.int64)
        places[np.repeat(wire.is_valid().to_numpy(zero_copy_only=False), kind.list_size)] = np.arange(len(values))
        padded = values.take(pa.array(places)) if len(values) else pa.nulls(len(places), kind.value_type)
        return pa.FixedSizeListArray.from_arrays(padded, type=kind, mask=mask)
    return pa.ListArray.from_arrays(wire.offsets, values, type=kind, mask=mask)


def _from_hexadecimal(wire: pa.StringArray) -> pa.LargeBinaryArray:
    texts = pc.fill_null(wire.cast(TEXT), "")
    texts = texts.take(pa.array(np.arange(len(texts))))
    offsets = np.frombuffer(texts.buffers()[1], dtype=np.int64)[: len(texts) + 1]
    data = texts.buffers()[2]
    digits = np.frombuffer(data, dtype=np.uint8)[offsets[0] : offsets[-1]] if data is not None else np.empty(0, dtype=np.uint8)
    nibbles = np.where(digits >= ord("a"), digits - ord("a") + 10, digits - ord("0")).astype(np.uint8)
    raw = (nibbles[0::2] << 4) | nibbles[1::2]
    ends = pa.py_buffer(np.ascontiguousarray((offsets - offsets[0]) // 2))
    found = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(texts), [None, ends, pa.py_buffer(raw)])
    return pc.if_else(wire.is_valid(), found, pa.scalar(None, pa.large_binary()))


def _from_moments(wire: pa.StringArray, kind: pa.DataType) -> pa.Array:
    raw = pc.fill_null(pc.starts_with(wire, _RAW), False)
    nothing = pa.scalar(None, pa.string())
    counts = pc.utf8_slice_codeunits(pc.if_else(raw, wire, nothing), 1).cast(_storage(kind))
    if pa.types.is_duration(kind):
        return counts.view(kind)
    texts = pc.if_else(raw, nothing, wire)
    texts = pc.replace_substring_regex(texts, "Z$", "") if _is_instant(kind) else texts
    return pc.coalesce(_counted(texts, kind), counts).view(kind)
