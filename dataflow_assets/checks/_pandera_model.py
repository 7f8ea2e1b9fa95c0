"""A pandera model taken apart, so that a stream can be put to it batch by batch.

Here: importing the model, its demands as a list, and which rows of a batch break which of them. Not here: the frames
(`checks._pandera_frames`), counts and results (`checks._pandera_run`), its names before it is imported (`checks._pandera_outline`).

pandera's own checks are asked, one after the other, for their answers; the columns and their types are judged by pandera once, on a
frame without rows. Nothing that the model would do to a frame (coerce, default, strict="filter", drop_invalid_rows) reaches the rows
that are published: a coerced column is judged as coerced, a default does not fill a null before the null is found.
"""

from __future__ import annotations

import copy
import importlib
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.checks._pandera_frames import Answer, Frames, Held, Mask, PandasFrames, PolarsFrames
from dataflow_assets.checks._pandera_outline import NOT_NULLABLE, UNIQUE, Reference
from dataflow_assets.errors import CheckFailed, MissingDriver
from dataflow_assets.protocols import StepContext
from dataflow_assets.user_code import importable, load_file

COERCED = "coerced"
_HINT = "it must be a DataFrameModel or a DataFrameSchema of pandera.pandas or pandera.polars"


@dataclass(frozen=True, eq=False)
class Demand:
    """One thing that the model asks of the data. `column` is empty for one about whole rows, `columns` are those it is unique over."""

    column: str
    name: str
    check: Any = None
    columns: tuple[str, ...] = ()
    warns: bool = False
    missing: bool = False
    """Whether its column is not in the data."""
    optional: bool = False
    """Whether the model allows that."""

    @property
    def sentence(self) -> str:
        """What it asks, in the model's words."""
        if self.check is None:
            return {NOT_NULLABLE: "no nulls", UNIQUE: "unique", COERCED: "coercion to the model's type"}.get(self.name, "")
        return str(self.check.error or self.check.name or "check")


@dataclass(frozen=True)
class Verdict:
    """The answer of a demand for one batch: a mask over its rows, whether all rows together pass, or why it cannot be told."""

    demand: Demand
    answer: Answer | str


def load_schema(reference: Reference, context: StepContext) -> Any:
    """Import the model and return its schema object. Raises CheckFailed, MissingDriver."""
    try:
        importlib.import_module("pandera")
    except ImportError as error:
        raise MissingDriver(kind="pandera", module="pandera") from error
    where = f"step {context.step}: {reference.where}"
    with importable(context.project_dir):
        try:
            module = load_file(reference.path(context.project_dir)) if reference.is_file else importlib.import_module(reference.where)
        except FileNotFoundError as error:
            raise CheckFailed(f"{where} is not a file", hint=f"`schema` is relative to {context.project_dir}") from error
        except Exception as error:
            raise CheckFailed(f"{where} cannot be imported: {type(error).__name__}: {error}") from error
    model = getattr(module, reference.name, None)
    if model is None:
        raise CheckFailed(f"{where} has no model {reference.name!r}", hint=_HINT)
    try:
        found = model.to_schema() if isinstance(model, type) and hasattr(model, "to_schema") else model
    except Exception as error:
        raise CheckFailed(f"{where}:{reference.name} is no sound model: {type(error).__name__}: {error}") from error
    if type(found).__name__ != "DataFrameSchema" or _backend(found) not in {"pandas", "polars"}:
        raise CheckFailed(f"{where}:{reference.name} is a {type(found).__name__} of {type(found).__module__}", hint=_HINT)
    return found


def _backend(schema: Any) -> str:
    return next((part for part in type(schema).__module__.split(".")[2:3]), "")


class Model:
    """A model over data of one Arrow schema; `problems` are what the columns themselves break of it, for which no row need be seen."""

    def __init__(self, schema: Any, arrow: pa.Schema) -> None:
        self.frames: Frames = PandasFrames(schema) if _backend(schema) == "pandas" else PolarsFrames(schema)
        self.name = schema.name or ""
        self.demands = list(_demands(schema, arrow.names))
        self._parses = bool(
            schema.coerce or getattr(schema, "parsers", None) or any(column.coerce or column.parsers for column in schema.columns.values())
        )
        self._index = getattr(schema, "index", None) is not None
        self._bare = _without_demands(schema)
        self.as_a_whole = Demand("", "")
        self._together: set[Demand] = set()
        self._coercions: dict[str, Demand] = {}
        self.problems = self._judge_columns(arrow)
        self._judged = bool(self.problems)

    @property
    def undecided(self) -> list[Demand]:
        """The checks that are known to answer for all rows together, so that no batch can be put to them."""
        return [demand for demand in self.demands if demand in self._together]

    def look(self, batch: pa.RecordBatch) -> list[Verdict]:
        """The verdicts on one batch of more; a check that gives one answer for all rows is put aside, see `undecided`."""
        if not self._judged:
            self._judged = True
            self.problems += self._judge_values(batch)
        verdicts: list[Verdict] = []
        for verdict in self._verdicts(batch, [demand for demand in self.demands if demand not in self._together]):
            if isinstance(verdict.answer, bool):
                self._together.add(verdict.demand)
            else:
                verdicts.append(verdict)
        return verdicts

    def look_at_all(self, table: pa.Table, demands: list[Demand]) -> list[Verdict]:
        """The verdicts of `demands` on the whole data in one frame."""
        if not self._judged and table.num_rows:
            self._judged = True
            self.problems += self._judge_values(table)
        return list(self._verdicts(table, demands))

    def _verdicts(self, batch: pa.RecordBatch | pa.Table, demands: list[Demand]) -> Iterator[Verdict]:
        for demand in demands:
            if demand.name == NOT_NULLABLE and demand.check is None and not demand.missing:
                yield Verdict(demand, _nulls(batch.column(demand.column)))
        with _enabled():
            held = self.frames.make(batch)
            if self._parses:
                held, found = self._parsed(held)
                yield from found
            for demand in demands:
                if demand.check is not None and not demand.missing:
                    yield Verdict(demand, self._ask(demand, held))

    def _ask(self, demand: Demand, held: Held) -> Answer | str:
        try:
            return self.frames.ask(demand.check, held, demand.column)
        except Exception as error:  # noqa: BLE001 - a user's check may raise anything: that is its answer
            return f"{demand.sentence} raised {type(error).__name__}: {error}"

    def _parsed(self, held: Held) -> tuple[Held, list[Verdict]]:
        """The frame coerced and parsed, and what would not be coerced; rows that would not are left out of it."""
        found: list[Verdict] = []
        for _ in range(len(self._bare.columns) + 1):
            errors = self._errors(held.frame)
            if not isinstance(errors, list):
                return Held(errors, held.rows, held.places), found
            refused = [case for error in errors if _reason(error) == "dtype_coercion_error" if (case := self.frames.uncoerced(error, held))]
            if not refused:
                texts = [_told(error) for error in errors if _reason(error) not in _OF_COLUMNS]
                return held, found + [Verdict(self._coercion(""), text) for text in texts]
            for column, mask in refused:
                found.append(Verdict(self._coercion(column), mask))
                held = self.frames.without(held, mask)
        return held, found

    def _coercion(self, column: str) -> Demand:
        return self._coercions.setdefault(column, Demand(column, COERCED))

    def _errors(self, frame: Any) -> Any:
        """The frame as the bare model makes it, or the list of its errors."""
        from pandera.errors import SchemaError, SchemaErrors

        try:
            return self._bare.validate(frame, lazy=True)
        except SchemaErrors as error:
            return list(error.schema_errors)
        except SchemaError as error:
            return [error]

    def _judge_columns(self, arrow: pa.Schema) -> list[str]:
        if self._index:
            return ["the model describes an index, which rows of a dataset have not"]
        with _enabled():
            errors = self._errors(self.frames.make(arrow.empty_table()).frame)
        return [_told(error) for error in errors] if isinstance(errors, list) else []

    def _judge_values(self, batch: pa.RecordBatch | pa.Table) -> list[str]:
        """Types that pandera tells only by a value, such as text among Python's objects: one value of each column is enough."""
        columns = {name: batch.column(name).drop_null().slice(0, 1) for name in batch.schema.names}
        shown = [name for name, values in columns.items() if len(values) and not self._is_coerced(name)]
        row = [columns[name] if len(columns[name]) else pa.nulls(1, batch.schema.field(name).type) for name in batch.schema.names]
        with _enabled():
            errors = self._errors(self.frames.make(pa.Table.from_arrays(row, schema=batch.schema)).frame)
        found = errors if isinstance(errors, list) else []
        return [_told(error) for error in found if _reason(error) == "wrong_dtype" and error.schema.name in shown]

    def _is_coerced(self, name: str) -> bool:
        column = self._bare.columns.get(name)
        return bool(self._bare.coerce or column is None or column.coerce)


_OF_COLUMNS = frozenset(
    {
        "invalid_type",
        "column_not_in_schema",
        "column_not_ordered",
        "duplicate_dataframe_column_labels",
        "column_not_in_dataframe",
        "wrong_field_name",
        "wrong_dtype",
        "add_missing_column_no_default",
        "invalid_column_name",
        "mismatch_index",
    }
)
"""Reasons that say nothing of a row; pandera's names for them."""


def _reason(error: Any) -> str:
    return str(getattr(error.reason_code, "value", ""))


def _told(error: Any) -> str:
    """One sentence of an error about columns."""
    case = error.failure_cases
    name = getattr(error.schema, "name", None)
    if _reason(error) == "column_not_in_dataframe":
        return f"column {case!r} is not in the data"
    if _reason(error) == "column_not_in_schema":
        return f"column {case!r} is not in the model, which is strict"
    if _reason(error) == "column_not_ordered":
        return f"column {case!r} is not where the model has it"
    if _reason(error) == "wrong_dtype":
        return f"column {name!r}: the model wants {error.schema.dtype}, the data has {case if isinstance(case, str) else 'other values'}"
    return " ".join(str(error.args[0] if error.args else error).split())[:500]


def _enabled() -> AbstractContextManager[Any]:
    """pandera as its own defaults are, whatever its environment variables turn off."""
    from pandera.config import ValidationDepth, config_context

    return config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_AND_DATA, use_narwhals_backend=False)


def _demands(schema: Any, names: list[str]) -> Iterator[Demand]:
    """What the model asks of rows, column by column, then of whole rows; a pattern of columns becomes the columns it fits."""
    for key, column in schema.columns.items():
        found = [name for name in names if re.match(column.name, name)] if column.regex else [key]
        for name in found:
            missing, optional = name not in names, not column.required
            if not column.nullable:
                yield Demand(name, NOT_NULLABLE, missing=missing, optional=optional)
            if column.unique:
                yield Demand(name, UNIQUE, columns=(name,), missing=missing, optional=optional)
            for check in column.checks:
                yield Demand(name, check.name or "check", check, warns=bool(check.raise_warning), missing=missing, optional=optional)
    for check in schema.checks:
        yield Demand("", check.name or "check", check, warns=bool(check.raise_warning))
    if schema.unique:
        together = (schema.unique,) if isinstance(schema.unique, str) else tuple(schema.unique)
        yield Demand(",".join(together), UNIQUE, columns=together, missing=not set(together) <= set(names))


def _without_demands(schema: Any) -> Any:
    """The model with nothing left but its columns, their types, their order, and what it does to a frame before it looks."""
    bare = _copied(schema)
    bare.columns = {name: _copied(column) for name, column in schema.columns.items()}
    bare.checks, bare.unique, bare.drop_invalid_rows, bare.add_missing_columns = [], None, False, False
    bare.strict = False if bare.strict == "filter" else bare.strict
    for column in bare.columns.values():
        column.checks, column.nullable, column.unique, column.default, column.drop_invalid_rows = [], True, False, None, False
    return bare


def _copied(part: Any) -> Any:
    """Not deeply: a copy of a built-in check would lose what pandera registers with it later."""
    twin = copy.copy(part)
    twin.__dict__ = dict(part.__dict__)
    return twin


def _nulls(column: pa.Array | pa.ChunkedArray) -> Mask:
    """Where a column is null or, as pandera has it, not a number."""
    if isinstance(column.type, pa.DictionaryType):
        column = column.cast(column.type.value_type)
    mask = pc.is_null(column, nan_is_null=pa.types.is_floating(column.type))
    return np.asarray(mask.to_numpy() if isinstance(mask, pa.ChunkedArray) else mask.to_numpy(zero_copy_only=False), dtype=np.bool_)
