"""Rules written down as a pandera model: the text of a Python file.

Here: types, fields, layout as a formatter leaves it. Not here: which rules (`checks._suggestion`).
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal

import pyarrow as pa

from dataflow_assets.checks._suggestion import Suggestion

Backend = Literal["pandas", "polars"]
_WIDTH = 88
_SIMPLE = {
    **{f"{sign}int{bits}": f"{sign}int{bits}()" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "halffloat": "float16()",
    "float": "float32()",
    "double": "float64()",
    "bool": "bool_()",
    "string": "string()",
    "large_string": "large_string()",
    "binary": "binary()",
    "large_binary": "large_binary()",
    "date32[day]": "date32()",
    "date64[ms]": "date64()",
    "null": "null()",
}
_RESERVED = {"Config", "validate", "to_schema", "pandera", "example", "strategy", "empty", "copy"}


def model_text(suggestions: Sequence[Suggestion], *, name: str, told: str, backend: Backend) -> str:
    """The file: a class `name` with one field for each column; `told` says from what it was made."""
    fields, used = [], set[str]()
    for suggestion in suggestions:
        attribute = _attribute(suggestion.name, used)
        used.add(attribute)
        fields.append(_field(suggestion, attribute, backend))
    body = "\n".join(fields) if fields else "    pass"
    imports = "\n".join(_imports(body, backend))
    told = told.strip().replace("\\", "\\\\").replace('"', "'") + ("\n" if "\n" in told.strip() else "")
    return f'"""{told}"""\n\n{imports}\n\n\nclass {name}(pa.DataFrameModel):\n{body}\n\n    class Config:\n        strict = True\n'


def class_name(text: str) -> str:
    """A class name from the name of a table or file: `main.nyc_flights` -> `NycFlights`."""
    last = re.split(r"[./\\]", text.removesuffix(".parquet").removesuffix(".csv").removesuffix(".json"))[-1]
    name = "".join(part[:1].upper() + part[1:] for part in re.findall(r"[A-Za-z0-9]+", last))
    return name if name and not name[0].isdigit() and not keyword.iskeyword(name) else f"Table{name}"


def _imports(body: str, backend: Backend) -> list[str]:
    names = [name for name in ("date", "datetime", "timezone") if re.search(rf"\b{name}[(.]", body)]
    found = [f"from datetime import {', '.join(names)}"] if names else []
    found += ["from decimal import Decimal"] if "Decimal(" in body.replace("pl.Decimal(", "") else []
    typing_names = [name for name in ("Annotated", "Any") if re.search(rf"\b{name}\b", body)]
    found += [f"from typing import {', '.join(typing_names)}"] if typing_names else []
    found += [""] if found else []
    if backend == "pandas":
        found += ["import pandas as pd"] if "pd." in body else []
        found += ["import pandera.pandas as pa"]
        return found + (["import pyarrow"] if "pyarrow." in body else [])
    return [*found, "import pandera.polars as pa", *(["import polars as pl"] if "pl." in body else [])]


def _attribute(name: str, used: set[str]) -> str:
    plain = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_") or "column"
    plain = f"c_{plain}" if plain[0].isdigit() or keyword.iskeyword(plain) or plain in _RESERVED else plain
    number, free = 1, plain
    while free in used:
        number += 1
        free = f"{plain}_{number}"
    return free


def _field(suggestion: Suggestion, attribute: str, backend: Backend) -> str:
    words = {key: _literal(value) for key, value in _words(suggestion).items()}
    if attribute != suggestion.name:
        words["alias"] = _literal(suggestion.name)
    start = f"    {attribute}: {_type(suggestion.type, backend)}"
    if not words:
        return start if len(start) <= _WIDTH else f"{start}  # fmt: skip"
    pairs = [f"{key}={value}" for key, value in words.items()]
    line = f"{start} = pa.Field({', '.join(pairs)})"
    if len(line) <= _WIDTH:
        return line
    if len(start) + len(" = pa.Field(") > _WIDTH:
        return f"{line}  # fmt: skip"
    inner = ", ".join(pairs)
    if len(inner) + 8 <= _WIDTH:
        return f"{start} = pa.Field(\n        {inner}\n    )"
    return f"{start} = pa.Field(\n{''.join(_laid_out(key, value) for key, value in words.items())}    )"


def _laid_out(key: str, value: str) -> str:
    line = f"        {key}={value},\n"
    if len(line) - 1 <= _WIDTH or not value.startswith("["):
        return line
    items = [item + "," for item in _ITEMS.findall(value)]
    return f"        {key}=[\n" + "".join(f"            {item}\n" for item in items) + "        ],\n"


_ITEMS = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'""")


def _words(suggestion: Suggestion) -> dict[str, Any]:
    found: dict[str, Any] = {"nullable": True} if suggestion.nullable else {}
    found |= {"unique": True} if suggestion.unique else {}
    found |= {"ge": suggestion.low} if suggestion.low is not None else {}
    found |= {"le": suggestion.high} if suggestion.high is not None else {}
    found |= {"isin": list(suggestion.values)} if suggestion.values else {}
    lengths = {"min_value": suggestion.shortest, "max_value": suggestion.longest}
    lengths = {key: value for key, value in lengths.items() if value is not None}
    found |= {"str_length": lengths} if lengths else {}
    return found | ({"str_matches": suggestion.shape} if suggestion.shape else {})


def _literal(value: Any) -> str:
    """The value as Python source, text in double quotes where that needs no escape."""
    if isinstance(value, str):
        text = repr(value)
        return f'"{text[1:-1]}"' if text.startswith("'") and '"' not in text and "\\'" not in text else text
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Decimal):
        return f'Decimal("{value}")'
    if isinstance(value, datetime):
        zone = ", tzinfo=timezone.utc" if value.tzinfo else ""
        return f"datetime({value.year}, {value.month}, {value.day}{zone})"
    return f"date({value.year}, {value.month}, {value.day})" if isinstance(value, date) else repr(value)


def _type(kind: pa.DataType, backend: Backend) -> str:
    """The annotation, exact or none: `Any` where the backend has no such type."""
    return _pandas_type(kind) if backend == "pandas" else _polars_type(kind)


def _pandas_type(kind: pa.DataType) -> str:
    import pandas as pd
    from pandera.engines.pandas_engine import Engine

    text = arrow_text(kind)
    try:
        known = text is not None and Engine.dtype(pd.ArrowDtype(kind)).type == pd.ArrowDtype(kind)
    except (TypeError, ValueError):
        known = False
    return f"Annotated[pd.ArrowDtype, {text}]" if known else "Any"


def _polars_type(kind: pa.DataType) -> str:
    import polars as pl

    try:
        frame = pl.from_arrow(pa.table({"x": pa.nulls(0, kind)}))
    except (TypeError, ValueError, NotImplementedError, pl.exceptions.PolarsError):
        return "Any"
    return "Any" if isinstance(frame, pl.Series) else _polars_text(frame.schema["x"])


def _polars_text(kind: Any) -> str:
    import polars as pl

    if isinstance(kind, pl.List):
        return f"pl.List({_polars_text(kind.inner)})"
    if isinstance(kind, pl.Array):
        return f"pl.Array({_polars_text(kind.inner)}, {kind.size})"
    if isinstance(kind, pl.Struct):
        return "pl.Struct({" + ", ".join(f"{_literal(item.name)}: {_polars_text(item.dtype)}" for item in kind.fields) + "})"
    if isinstance(kind, pl.Datetime):
        return f"pl.Datetime({_literal(kind.time_unit)}{f', {_literal(kind.time_zone)}' if kind.time_zone else ''})"
    if isinstance(kind, pl.Duration):
        return f"pl.Duration({_literal(kind.time_unit)})"
    if isinstance(kind, pl.Decimal):
        return f"pl.Decimal({kind.precision}, {kind.scale})"
    return f"pl.{type(kind).__name__}" if type(kind).__name__ in dir(pl) and not kind.is_nested() else "Any"


def arrow_text(kind: pa.DataType) -> str | None:
    """The type as an expression of pyarrow, None where there is no short one that means exactly it."""
    text = _arrow_text(kind)
    try:
        same = text is not None and eval(text, {"pyarrow": pa}) == kind
    except (pa.ArrowException, TypeError, ValueError):
        same = False
    return text if same else None


def _arrow_text(kind: pa.DataType) -> str | None:
    if (simple := _SIMPLE.get(str(kind))) is not None:
        return f"pyarrow.{simple}"
    if pa.types.is_timestamp(kind):
        return f"pyarrow.timestamp({_literal(kind.unit)}{f', {_literal(kind.tz)}' if kind.tz else ''})"
    if pa.types.is_time(kind) or pa.types.is_duration(kind):
        name = "duration" if pa.types.is_duration(kind) else f"time{kind.bit_width}"
        return f"pyarrow.{name}({_literal(kind.unit)})"
    if pa.types.is_decimal(kind):
        return f"pyarrow.decimal{kind.bit_width}({kind.precision}, {kind.scale})"
    if pa.types.is_fixed_size_binary(kind):
        return f"pyarrow.binary({kind.byte_width})"
    if pa.types.is_list(kind):
        inner = _arrow_text(kind.value_type)
        return None if inner is None else f"pyarrow.list_({inner})"
    if pa.types.is_dictionary(kind):
        index, value = _arrow_text(kind.index_type), _arrow_text(kind.value_type)
        return None if value is None else f"pyarrow.dictionary({index}, {value})"
    if pa.types.is_struct(kind):
        parts = [(item.name, _arrow_text(item.type)) for item in kind]
        inside = ", ".join(f"({_literal(name)}, {text})" for name, text in parts)
        return None if any(text is None for _, text in parts) else f"pyarrow.struct([{inside}])"
    return None
