"""Columns of an index: which fields its mapping has, how each becomes a column, and where its values lie in a document.

Here: mappings of several indices joined, names and dotted paths, lists and structs. Not here: single values
(`_elasticsearch_types`), searching (`_elasticsearch_read`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import pyarrow as pa

from dataflow_assets.connectors._elasticsearch_types import Kind, Unfit, declared, kind_of
from dataflow_assets.connectors._json_reading import as_json
from dataflow_assets.errors import ReadFailed, ValueRefused
from dataflow_assets.storage.type_names import column_types

META = ("_id", "_index")
_WIDTHS = ("byte", "short", "integer", "long")
_TELLING = ("type", "format", "scaling_factor", "value")
_NOT_IN_SOURCE = frozenset({"alias"})
Properties = Mapping[str, Any]


@dataclass(frozen=True)
class Shape:
    """What the user says of columns: their types, which hold lists, and whether objects become structs."""

    types: Mapping[str, str] = field(default_factory=dict)
    arrays: frozenset[str] = frozenset()
    structs: bool = False


@dataclass(frozen=True)
class Column:
    """One column: its place in a document and the conversion of what is there."""

    name: str
    kind: Kind
    mapped: str
    default: Any = None

    def values(self, hits: Sequence[Mapping[str, Any]], dotted: Sequence[bool], *, where: str) -> list[Any]:
        """The value of each hit; `dotted` tells which documents have names with dots. Raises ValueRefused."""
        if self.name in META:
            return [hit[self.name] for hit in hits]
        parts, kind, values = tuple(self.name.split(".")), self.kind, []
        for hit, has_dots in zip(hits, dotted, strict=True):
            source = hit["_source"]
            found = take(source, parts) if has_dots or len(parts) > 1 else source.get(self.name)
            try:
                values.append(self.default if found is None else one(found, kind))
            except Unfit as error:
                raise _refusal(hit, self, str(error), where=where) from None
        return values


def one(value: Any, kind: Kind) -> Any:
    """A value of a field that holds one: an empty list is none, a list of one is that. Raises Unfit."""
    if isinstance(value, list) and not kind.whole:
        present = [item for item in value if item is not None]
        if len(present) > 1:
            raise Unfit("there are several values; name the column in arrays")
        value = present[0] if present else None
    return None if value is None else kind.convert(value)


def merged(mappings: Iterable[Properties]) -> dict[str, Any]:
    """The properties of several indices as one; a field of two types in them keeps both names, and is refused when it is read."""
    result: dict[str, Any] = {}
    for properties in mappings:
        for name, entry in properties.items():
            result[name] = _joined(result[name], entry) if name in result else entry
    return result


def _joined(one: Mapping[str, Any], other: Mapping[str, Any]) -> Mapping[str, Any]:
    if "properties" in one and "properties" in other and one.get("type") == other.get("type"):
        return {**one, "properties": merged([one["properties"], other["properties"]])}
    kinds = (one.get("type", "object"), other.get("type", "object"))
    if kinds[0] in _WIDTHS and kinds[1] in _WIDTHS:
        return max(one, other, key=lambda entry: _WIDTHS.index(entry["type"]))
    if all(one.get(key) == other.get(key) for key in _TELLING):
        return one
    return {"type": "conflict", "types": sorted({*one.get("types", [kinds[0]]), *other.get("types", [kinds[1]])} - {"conflict"})}


def columns_of(properties: Properties, wanted: Sequence[str] | None, shape: Shape, *, where: str) -> list[Column]:
    """The wanted columns, or `_id` and every field of the top level. Raises ReadFailed naming one that is not there."""
    types = column_types(dict(shape.types))
    if wanted is None:
        mapped = [name for name, entry in properties.items() if entry.get("type") not in _NOT_IN_SOURCE]
        wanted = ["_id", *mapped, *(name for name in types if name not in properties and find(properties, name) is None)]
    return [_column(properties, name, types, shape, where=where) for name in wanted]


def _column(properties: Properties, name: str, types: Mapping[str, pa.DataType], shape: Shape, *, where: str) -> Column:
    if name in META:
        return Column(name, Kind(pa.string(), str), "keyword")
    entry = find(properties, name)
    if entry is None and name not in types:
        raise ReadFailed(f"{where} has no field {name!r}", hint=_nearest(name, properties))
    entry = entry or {"type": "not mapped"}
    mapped = str(entry.get("type", "object"))
    if mapped in _NOT_IN_SOURCE:
        raise ReadFailed(f"{where}: {name!r} is another name of {entry.get('path')!r}", hint="name that one")
    kind = _kind(entry, name, types, shape, where=where)
    return Column(name, _list_of(kind) if name in shape.arrays else kind, mapped, entry.get("value"))


def _kind(entry: Mapping[str, Any], name: str, types: Mapping[str, pa.DataType], shape: Shape, *, where: str) -> Kind:
    """What the user declared for a field, else what its mapping says."""
    if name not in types:
        return _mapped_kind(entry, name, types, shape, where=where)
    try:
        return declared(types[name], entry)
    except ValueError as error:
        raise ValueRefused(f"{where}: column {name!r}: {error}") from error


def _mapped_kind(entry: Mapping[str, Any], name: str, types: Mapping[str, pa.DataType], shape: Shape, *, where: str) -> Kind:
    if entry.get("type") == "conflict":
        raise ReadFailed(
            f"{where}: {name!r} is {' and '.join(entry['types'])} in different indices",
            hint=f"add to the source  column_types: {{{name}: string}}  or another type that fits all",
        )
    if shape.structs and entry.get("properties"):
        struct = _struct(entry["properties"], name, types, shape, where=where)
        return _list_of(struct) if entry.get("type") == "nested" and name not in shape.arrays else struct
    return kind_of(entry)


def _struct(properties: Properties, path: str, types: Mapping[str, pa.DataType], shape: Shape, *, where: str) -> Kind:
    """An object with the fields of the mapping. One that has others is refused: a struct would lose them."""
    fields: dict[str, Kind] = {}
    for name, entry in properties.items():
        inner = f"{path}.{name}"
        kind = _kind(entry, inner, types, shape, where=where)
        fields[name] = _list_of(kind) if inner in shape.arrays else kind

    def convert(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Unfit("it is no object")
        if unknown := {key.partition(".")[0] for key in value} - fields.keys():
            raise Unfit(f"it has {', '.join(sorted(unknown))}, which the mapping has not; take nested: text")
        found = {name: take(value, (name,)) for name in fields}
        return {name: None if item is None else one(item, fields[name]) for name, item in found.items()}

    return Kind(pa.struct([(name, kind.arrow) for name, kind in fields.items()]), convert)


def _list_of(kind: Kind) -> Kind:
    """A list of values of a kind; one value is a list of one."""

    def convert(value: Any) -> list[Any]:
        return [None if item is None else kind.convert(item) for item in (value if isinstance(value, list) else [value])]

    return Kind(pa.list_(kind.arrow), convert, whole=True)


def find(properties: Properties, name: str) -> Mapping[str, Any] | None:
    """The entry of a field by its dotted path, None when the mapping has none."""
    found: Any = properties.get(name)
    if found is not None:
        return dict(found)
    head, dot, rest = name.partition(".")
    while dot:
        if head in properties and (inner := find(properties[head].get("properties", {}), rest)) is not None:
            return inner
        more, dot, rest = rest.partition(".")
        head = f"{head}.{more}"
    return None


def _nearest(name: str, properties: Properties) -> str:
    known = [*META, *_paths(properties)]
    near = difflib.get_close_matches(name, known, n=1)
    listed = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return f"did you mean {near[0]!r}?" if near else f"it has {listed}; one that is not mapped needs a type in column_types"


def _paths(properties: Properties, above: str = "") -> Iterator[str]:
    for name, entry in properties.items():
        yield above + name
        yield from _paths(entry.get("properties", {}), f"{above}{name}.")


def take(document: Any, parts: tuple[str, ...]) -> Any:
    """What a document holds at a path, None for nothing. `{a: {b: 1}}` and `{"a.b": 1}` are the same to Elasticsearch.

    Values found in several objects of a list, or under several spellings, come as one list.
    """
    if isinstance(document, list):
        found = [value for item in document for value in [take(item, parts)] if value is not None]
        return _flat(found) if found else None
    if not isinstance(document, dict):
        return None
    name = ".".join(parts)
    if not any("." in key for key in document):
        inner = document.get(parts[0])
        return inner if len(parts) == 1 else take(inner, parts[1:])
    found = [document[name]] if document.get(name) is not None else []
    for size in range(1, len(parts)):
        inner = take(document.get(".".join(parts[:size])), parts[size:])
        found += [inner] if inner is not None else []
    below = {key[len(name) + 1 :]: value for key, value in document.items() if key.startswith(f"{name}.")}
    if below:
        found = [{**found[0], **below}] if found and isinstance(found[0], dict) else [*found, below]
    return found[0] if len(found) == 1 else _flat(found) or None


def _flat(values: Iterable[Any]) -> list[Any]:
    return [item for value in values for item in (value if isinstance(value, list) else [value])]


def refuse_lost_fields(mappings: Mapping[str, Any], columns: Iterable[Column], *, where: str) -> None:
    """Raises ReadFailed where documents are not kept as they came: their fields would be read as null."""
    for index, mapping in mappings.items():
        source = mapping.get("_source", {})
        if source.get("enabled") is False:
            raise ReadFailed(f"{where}: index {index!r} does not keep its documents (_source is off)", hint="it cannot be read")
        for column in columns:
            kept = not source.get("includes") or any(_covers(pattern, column.name) for pattern in source["includes"])
            if column.name not in META and (not kept or any(_covers(pattern, column.name) for pattern in source.get("excludes", ()))):
                raise ReadFailed(
                    f"{where}: index {index!r} does not keep {column.name!r} in its documents", hint="name the other columns in columns:"
                )


def _covers(pattern: str, name: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*") or pattern.startswith(f"{name}.")


def batch_of(hits: Sequence[Mapping[str, Any]], columns: Sequence[Column], *, where: str) -> pa.RecordBatch:
    """The hits as rows. Raises ValueRefused for a value that does not fit, naming document and column."""
    dotted = [any("." in name for name in hit.get("_source", ())) for hit in hits]
    arrays = [pa.array(column.values(hits, dotted, where=where), type=column.kind.arrow) for column in columns]
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])


def _refusal(hit: Mapping[str, Any], column: Column, why: str, *, where: str) -> ValueRefused:
    found = as_json(take(hit["_source"], tuple(column.name.split("."))))
    shown = found if len(found) <= 60 else f"{found[:60]}..."
    return ValueRefused(
        f"{where}: document {hit.get('_id')!r}: field {column.name!r} ({column.mapped}): {shown} cannot be kept as {column.kind.arrow}"
        + (f": {why}" if why else ""),
        hint=f"add to the source  arrays: [{column.name}]"
        if "several" in why
        else f"add to the source  column_types: {{{column.name}: string}}  or a type that fits",
    )
