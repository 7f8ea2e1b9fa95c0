"""Tables in the form that a Python function asks for, and back, without changing a value.

Here: the forms, conversion of a stage into one of them, conversion of a result into a stream of batches. Not here: finding and
calling the function (`transforms.python`).

pandas frames have `pd.ArrowDtype` columns, so whole numbers with nulls stay whole and decimals stay decimals. pandas, polars and
Arrow tables hold the whole input in memory; LazyFrame, RecordBatchReader and Iterator[RecordBatch] stream.
"""

from __future__ import annotations

import enum
import itertools
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from dataflow_assets.batches import BATCH_ROWS
from dataflow_assets.errors import ValueRefused
from dataflow_assets.protocols import StagedInput


class Form(enum.Enum):
    """How a function takes a table."""

    PANDAS = "pd.DataFrame"
    POLARS = "pl.DataFrame"
    LAZY = "pl.LazyFrame"
    ARROW = "pa.Table"
    READER = "pa.RecordBatchReader"
    BATCHES = "Iterator[pa.RecordBatch]"


_PACKAGES = {"pd": "pandas", "pl": "polars", "pa": "pyarrow"}
_FORMS = {
    ("pandas", "DataFrame"): Form.PANDAS,
    ("polars", "DataFrame"): Form.POLARS,
    ("polars", "LazyFrame"): Form.LAZY,
    ("pyarrow", "Table"): Form.ARROW,
    ("pyarrow", "RecordBatchReader"): Form.READER,
}
_STREAMS = ("Iterator", "Iterable", "Generator")


def form_of(annotation: Any) -> Form | None:
    """The form that an annotation (an object, or its text) names; None for any other."""
    if isinstance(annotation, str):
        package, _, name = annotation.strip("\"' ").partition("[")[0].rpartition(".")
        if name in _STREAMS and "RecordBatch" in annotation:
            return Form.BATCHES
        return _FORMS.get((_PACKAGES.get(package, package), name))
    origin = getattr(annotation, "__origin__", None)
    if origin is not None:
        streams = getattr(origin, "__name__", "") in _STREAMS and annotation.__args__ and annotation.__args__[0] is pa.RecordBatch
        return Form.BATCHES if streams else None
    module = str(getattr(annotation, "__module__", "")).partition(".")[0]
    return _FORMS.get((module, getattr(annotation, "__name__", "")))


def load(stage: StagedInput, form: Form) -> Any:
    """The rows of a stage in the form asked for."""
    if form is Form.LAZY:
        return _lazy(stage)
    reader = stage.open_reader()
    if form is Form.READER:
        return reader
    if form is Form.BATCHES:
        return iter(reader)
    with reader:
        table = reader.read_all()
    if form is Form.PANDAS:
        import pandas as pd

        return table.to_pandas(types_mapper=pd.ArrowDtype)
    if form is Form.POLARS:
        import polars as pl

        return pl.from_arrow(table)
    return table


def _lazy(stage: StagedInput) -> Any:
    import polars as pl

    if not stage.paths:
        empty = pl.from_arrow(stage.schema.empty_table())
        return empty.lazy() if isinstance(empty, pl.DataFrame) else empty
    return pl.scan_parquet(list(stage.paths))


def stream(result: Any) -> pa.RecordBatchReader:
    """The rows of what a function returned. Raises ValueRefused, also from the reader, for what is not a table."""
    if isinstance(result, pa.RecordBatchReader):
        return result
    if isinstance(result, pa.RecordBatch):
        result = pa.Table.from_batches([result])
    if isinstance(result, pa.Table):
        refuse_names(result.column_names)
        return result.to_reader(BATCH_ROWS)
    package = type(result).__module__.partition(".")[0]
    if package in {"pandas", "polars"} and package in sys.modules:
        return _from_pandas(result) if package == "pandas" else _from_polars(result)
    if isinstance(result, Iterator):
        return _from_pieces(result)
    raise ValueRefused(
        f"returned {_article(type(result).__name__)}, not a table",
        hint=f"return {', '.join(form.value for form in Form)}",
    )


def _article(name: str) -> str:
    return "None" if name == "NoneType" else f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _from_polars(frame: Any) -> pa.RecordBatchReader:
    import polars as pl

    if isinstance(frame, pl.LazyFrame):
        pieces = frame.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True)
        first = next(pieces, None)
        return _from_pieces(itertools.chain([pl.DataFrame(schema=frame.collect_schema()) if first is None else first], pieces))
    if not isinstance(frame, pl.DataFrame):
        raise ValueRefused(
            f"returned a polars {type(frame).__name__}, not a table", hint="return a DataFrame, for a Series with to_frame()"
        )
    table: pa.Table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    return table.to_reader(BATCH_ROWS)


def _from_pieces(pieces: Iterator[Any]) -> pa.RecordBatchReader:
    """One stream of an iterator of batches or tables; the first piece says the schema of all."""
    try:
        first = next(pieces)
    except StopIteration as error:
        raise ValueRefused(
            "yielded nothing, so that its columns are unknown", hint="yield one batch without rows when there are none"
        ) from error
    reader = stream(_whole(first))
    schema = reader.schema

    def batches() -> Iterator[pa.RecordBatch]:
        for piece in itertools.chain([reader], (stream(_whole(piece)) for piece in pieces)):
            if not piece.schema.equals(schema):
                raise ValueRefused(f"yielded tables of different columns: first {_columns(schema)}, then {_columns(piece.schema)}")
            yield from piece

    return pa.RecordBatchReader.from_batches(schema, batches())


def _whole(piece: Any) -> Any:
    if isinstance(piece, Iterator) and not isinstance(piece, pa.RecordBatchReader):
        raise ValueRefused(f"yielded {_article(type(piece).__name__)}, not a table")
    return piece


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{item.name} {item.type}" for item in schema)


def _from_pandas(frame: Any) -> pa.RecordBatchReader:
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise ValueRefused(
            f"returned a pandas {type(frame).__name__}, not a table", hint="return a DataFrame, for a Series with to_frame()"
        )
    frame = _without_index(frame)
    refuse_names(list(frame.columns))
    arrays = []
    for name in frame.columns:
        try:
            arrays.append(pa.array(frame[name], from_pandas=True))
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise ValueRefused(
                f"returned a column {name!r} whose values have no one type: {error}", hint="convert it with astype"
            ) from error
    columns = [array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array for array in arrays]
    return pa.Table.from_arrays(columns, names=list(frame.columns)).to_reader(BATCH_ROWS)


def _without_index(frame: Any) -> Any:
    """Row numbers are dropped, a named index becomes columns, labels without a name are refused."""
    import pandas as pd

    names = list(frame.index.names)
    if all(name is not None for name in names):
        if clash := [name for name in names if name in frame.columns]:
            raise ValueRefused(f"returned a frame whose index is named like its column {clash[0]!r}", hint="call reset_index(drop=True)")
        return frame.reset_index()
    if not isinstance(frame.index, pd.MultiIndex) and pd.api.types.is_integer_dtype(frame.index.dtype):
        return frame
    if len(frame) == 0 and len(names) == 1:
        return frame
    raise ValueRefused(
        "returned a frame whose index holds values but has no name", hint="call reset_index(), with drop=True if they are not needed"
    )


def refuse_names(names: list[Any]) -> None:
    """Raise ValueRefused for columns that are not named by distinct texts."""
    for name in names:
        if not isinstance(name, str):
            raise ValueRefused(
                f"returned a column named {name!r}, which is not text", hint="rename the columns, e.g. frame.columns = ['a', 'b']"
            )
        if names.count(name) > 1:
            raise ValueRefused(f"returned two columns named {name!r}", hint="rename or drop one")
