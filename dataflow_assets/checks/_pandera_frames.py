"""A batch of rows as the frame that a pandera model judges, and the model's answer as a mask over the rows.

Here: one class each for pandas and polars, which hide from the rest what differs between them. Not here: what is asked
(`checks._pandera_model`), counting (`checks._pandera_run`).

A pandas column comes in the family of types that the model declares for it (numpy, nullable, Arrow), in the width that the data
has: nothing is widened or rounded on the way, and a null never turns whole numbers into floats.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Answer = Mask | bool
"""True where a row breaks the check; or, for a check of all rows together, whether it holds."""


@dataclass(frozen=True)
class Held:
    """A frame, the places of its rows in their batch (None: all of them, in order), and how many rows the batch has."""

    frame: Any
    rows: int
    places: NDArray[np.int64] | None = None

    def mask(self, broken: Mask) -> Mask:
        """A mask over the batch from one over the frame."""
        if self.places is None:
            return broken
        mask = np.zeros(self.rows, dtype=np.bool_)
        mask[self.places] = broken
        return mask

    def without(self, mask: Mask) -> tuple[NDArray[np.int64], Mask]:
        """The places that stay when those where `mask`, over the batch, is true are left out; and which of the frame's rows they are."""
        places = np.arange(self.rows) if self.places is None else self.places
        stays = ~mask[places]
        return places[stays], stays


class Frames(Protocol):
    """What of pandas and polars is needed."""

    def make(self, batch: pa.RecordBatch | pa.Table) -> Held:
        """The frame of a batch."""
        ...

    def without(self, held: Held, mask: Mask) -> Held:
        """The frame without the rows where `mask`, over the batch, is true."""
        ...

    def ask(self, check: Any, held: Held, column: str) -> Answer:
        """The answer of one check about a column, or (empty) about the frame."""
        ...

    def uncoerced(self, error: Any, held: Held) -> tuple[str, Mask] | None:
        """Of an error of coercion: the column, and which rows would not be coerced; None when it does not tell."""
        ...


class PandasFrames:
    """See Frames."""

    def __init__(self, schema: Any) -> None:
        whole = schema.dtype
        self._declared = {name: getattr(whole or column.dtype, "type", None) for name, column in schema.columns.items() if not column.regex}
        self._patterns = [(column, getattr(column.dtype, "type", None)) for column in schema.columns.values() if column.regex]

    def make(self, batch: pa.RecordBatch | pa.Table) -> Held:
        """See Frames."""
        import pandas as pd

        columns = {name: _series(batch.column(name), self._type_of(name)) for name in batch.schema.names}
        return Held(pd.DataFrame(columns, index=pd.RangeIndex(batch.num_rows), copy=False), batch.num_rows)

    def _type_of(self, name: str) -> Any:
        import re

        if name in self._declared:
            return self._declared[name]
        return next((kind for column, kind in self._patterns if re.match(column.name, name)), None)

    def without(self, held: Held, mask: Mask) -> Held:
        """See Frames."""
        places, stays = held.without(mask)
        return Held(held.frame[stays].reset_index(drop=True), held.rows, places)

    def ask(self, check: Any, held: Held, column: str) -> Answer:
        """See Frames."""
        import pandas as pd

        backend = _backend(check, held.frame)
        seen = backend.preprocess(held.frame, column or None)
        answer = backend.apply(seen)
        if not isinstance(answer, pd.Series | pd.DataFrame):
            return bool(answer)
        holds = answer.astype("boolean").fillna(check.ignore_na).to_numpy(dtype=bool)
        if isinstance(seen, dict) or len(answer) != len(seen):
            return bool(holds.all())
        broken = np.zeros(len(held.frame), dtype=np.bool_)
        broken[seen.index.to_numpy()] = ~(holds.all(axis=1) if holds.ndim == 2 else holds)
        return held.mask(broken)

    def uncoerced(self, error: Any, held: Held) -> tuple[str, Mask] | None:
        """See Frames."""
        import pandas as pd

        cases, name = error.failure_cases, getattr(error.schema, "name", None)
        if not isinstance(cases, pd.DataFrame) or "index" not in cases or not len(cases):
            return None
        broken = np.zeros(len(held.frame), dtype=np.bool_)
        broken[cases["index"].astype("int64").to_numpy()] = True
        return (str(name) if name in held.frame else ""), held.mask(broken)


def _backend(check: Any, frame: Any) -> Any:
    """What pandera runs a check with. A built-in one is looked up anew, as in `Check.__call__`: a model holds a copy made too early."""
    backend = check.get_backend(frame)
    name = getattr(check._check_fn, "__name__", None)
    if name is not None and check.is_builtin_check(name):
        check._check_fn = check.get_builtin_check_fn(name)
    return backend(check)


def _series(column: pa.Array | pa.ChunkedArray, declared: Any) -> Any:
    """The column as a series of the declared family of types; where that cannot be exact, as Arrow's own."""
    import pandas as pd

    encoded = isinstance(declared, pd.CategoricalDtype) or pa.types.is_dictionary(getattr(declared, "pyarrow_dtype", pa.null()))
    column = column if encoded else _decoded(column)
    kind = column.type
    if isinstance(declared, pd.ArrowDtype) and _is_text(declared.pyarrow_dtype) and _is_text(kind):
        column, kind = column.cast(declared.pyarrow_dtype), declared.pyarrow_dtype  # the same text, however long
    arrow = pd.Series(column, dtype=pd.ArrowDtype(kind))
    if declared is None or isinstance(declared, pd.ArrowDtype):
        return arrow
    if isinstance(declared, np.dtype):
        return _numpy_series(column, declared, arrow)
    if isinstance(declared, pd.DatetimeTZDtype):
        return _times(column, declared.unit, arrow)
    if isinstance(declared, pd.CategoricalDtype):
        return column.to_pandas() if isinstance(kind, pa.DictionaryType) else _objects(column)
    if isinstance(declared, pd.StringDtype):
        return arrow.astype(declared) if _is_text(kind) else arrow
    nullable = _nullable(kind)
    return arrow if nullable is None else arrow.astype(nullable)


def _decoded(column: Any) -> Any:
    """The values themselves: that text lies in a dictionary is no matter of its type."""
    return column.cast(column.type.value_type) if isinstance(column.type, pa.DictionaryType) else column


def _numpy_series(column: Any, declared: np.dtype[Any], arrow: Any) -> Any:
    kind = column.type
    if declared.kind in "OUS":
        return arrow if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) else _objects(column)
    if declared.kind in "mM":
        return _times(column, np.datetime_data(declared)[0], arrow)
    if declared.kind in "iufb" and (nullable := _nullable(kind)) is not None:
        return arrow.astype(nullable) if column.null_count and not pa.types.is_floating(kind) else column.to_pandas()
    return arrow


def _nullable(kind: pa.DataType) -> Any:
    """pandas' own nullable type of the same width; None for other than numbers and booleans."""
    import pandas as pd

    if pa.types.is_boolean(kind):
        return pd.BooleanDtype()
    if pa.types.is_integer(kind):
        return pd.array([], dtype=f"{'UInt' if pa.types.is_unsigned_integer(kind) else 'Int'}{kind.bit_width}").dtype
    return pd.array([], dtype=f"Float{kind.bit_width}").dtype if kind in {pa.float32(), pa.float64()} else None


def _objects(column: Any) -> Any:
    return column.to_pandas(integer_object_nulls=True, date_as_object=True, timestamp_as_object=True)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _times(column: Any, unit: str, arrow: Any) -> Any:
    """Moments and durations in the declared unit if each of them has a value there, else in their own."""
    kind = column.type
    if not (pa.types.is_timestamp(kind) or pa.types.is_duration(kind)):
        return arrow
    wanted = pa.timestamp(unit, kind.tz) if pa.types.is_timestamp(kind) else pa.duration(unit)
    with contextlib.suppress(pa.ArrowInvalid):
        column = pc.cast(column, wanted)
    return column.to_pandas()


class PolarsFrames:
    """See Frames."""

    def __init__(self, schema: Any) -> None:
        declared = {name: str(getattr(column.dtype, "type", "")) for name, column in schema.columns.items()}
        self._encoded = {name for name, kind in declared.items() if kind.startswith(("Categorical", "Enum"))}

    def make(self, batch: pa.RecordBatch | pa.Table) -> Held:
        """See Frames."""
        import polars as pl

        columns = {name: batch.column(name) for name in batch.schema.names}
        columns = {name: column if name in self._encoded else _decoded(column) for name, column in columns.items()}
        return Held(pl.from_arrow(pa.table(columns)), batch.num_rows)

    def without(self, held: Held, mask: Mask) -> Held:
        """See Frames."""
        places, stays = held.without(mask)
        return Held(held.frame.filter(stays), held.rows, places)

    def ask(self, check: Any, held: Held, column: str) -> Answer:
        """See Frames."""
        from pandera.api.polars.types import PolarsData
        from pandera.constants import CHECK_OUTPUT_KEY

        lazy = held.frame.lazy()
        answer = _backend(check, lazy).apply(PolarsData(lazy, column or "*"))
        if isinstance(answer, bool):
            return answer
        holds = answer.collect().get_column(CHECK_OUTPUT_KEY).fill_null(check.ignore_na).to_numpy()
        return bool(holds.all()) if len(holds) != held.frame.height else held.mask(~holds)

    def uncoerced(self, error: Any, held: Held) -> tuple[str, Mask] | None:
        """See Frames."""
        import polars as pl

        output, cases = error.check_output, error.failure_cases
        if not isinstance(output, pl.DataFrame) or output.height != held.frame.height or not isinstance(cases, pl.DataFrame):
            return None
        return cases.columns[0], held.mask(~output.to_series(0).to_numpy())
