"""The small tables of a test as Arrow tables.

Here: `rows`, `csv`, `sql` and `parquet` of `given` and `existing`, with the types that are said or that the values have; and the rows of
`expect`, whose types are those of what was found. Not here: one value (`testing.values`), comparing (`testing.comparing`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from dataflow_assets import discovery
from dataflow_assets.errors import DataflowError, Place
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.spec.data_tests import LoadedTest, TableModel
from dataflow_assets.spec.project import Path_
from dataflow_assets.storage.casts import cast_exactly
from dataflow_assets.storage.type_names import arrow_type
from dataflow_assets.tables import Query, ReadRequest
from dataflow_assets.testing.values import Unfit, as_kind, kind_of


class BadTable(DataflowError):
    """A table of a test cannot be made as it is written."""


@dataclass(frozen=True)
class Written:
    """A table as the test has it, with where it stands there."""

    test: LoadedTest
    model: TableModel
    path: Path_
    csv_options: Mapping[str, Any] = field(default_factory=dict)
    """How a CSV is read: the options of the source whose rows these are, when it reads CSV files."""

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self.test.places.at(self.path)

    def bad(self, message: str, *inside: str | int, hint: str = "") -> BadTable:
        """The error of a table that cannot be made."""
        return BadTable(f"{self.test.places.at((*self.path, *inside))}: {'.'.join(map(str, self.path))}: {message}", hint=hint)

    def file(self, name: str) -> Path:
        """The file that `csv` or `parquet` names, relative to the test's file. Raises BadTable when it is not there."""
        path = self.test.file.parent / Path(name).expanduser()
        if not path.is_file():
            raise self.bad(f"there is no file {name}", self.model.form, hint=f"it is relative to {self.test.file.parent}")
        return path

    @property
    def types(self) -> dict[str, pa.DataType]:
        """The types that the test says."""
        return {name: arrow_type(kind) for name, kind in self.model.columns.items() if kind}


def make_table(
    written: Written, *, scratch: Path, known: Mapping[str, pa.DataType] | None = None, moments: Collection[str] = ()
) -> pa.Table:
    """The table. Types are those that the test says, else the `known` ones, else those of the values; text in the columns `moments`
    is dates or times. Raises BadTable, or what the reader of a file raises."""
    model, types = written.model, {**(known or {}), **written.types}
    if model.rows is not None:
        return _from_rows(written, model.rows, types, moments)
    table = _read(written, types, scratch)
    missing = {name: types[name] for name in written.types if name not in table.column_names}
    columns = {name: _cast(table.column(name), types.get(name), name=name) for name in table.column_names}
    return pa.table({**columns, **{name: pa.nulls(table.num_rows, kind) for name, kind in missing.items()}})


def _read(written: Written, types: Mapping[str, pa.DataType], scratch: Path) -> pa.Table:
    model = written.model
    if model.sql is not None:
        from dataflow_assets.storage.sandbox import open_sandbox

        with open_sandbox({}, scratch=scratch, step=".".join(map(str, written.path))) as sandbox:
            return sandbox.select(Query.of(model.sql)).read_all()
    if model.parquet is not None:
        import pyarrow.parquet as pq

        return pq.read_table(written.file(model.parquet))
    return _from_csv(written, model.csv or "", types, scratch)


def _from_csv(written: Written, text: str, types: Mapping[str, pa.DataType], scratch: Path) -> pa.Table:
    """The rows as the connector of CSV files reads them, with the types it finds where none are said."""
    path = scratch / "given.csv"
    if "\n" in text.strip():
        path.write_text(text, encoding=str(written.csv_options.get("encoding", "utf-8")))
    else:
        path = written.file(text.strip())
    table = _read_csv(path, written.csv_options)
    said = {name: str(types[name]) for name in table.column_names if name in types}
    return _read_csv(path, {**written.csv_options, "column_types": said}) if said else table


def _read_csv(path: Path, options: Mapping[str, Any]) -> pa.Table:
    connector_class = discovery.find("connectors", "csv")
    connector = connector_class(connector_class.Connection(), ConnectionContext("csv", path.parent))
    with connector.read(ReadRequest(connector_class.Source(file_path=str(path), **options))) as reader:
        return reader.read_all()


def _from_rows(written: Written, rows: Sequence[Mapping[str, Any]], types: Mapping[str, pa.DataType], moments: Collection[str]) -> pa.Table:
    names = dict.fromkeys([*(name for row in rows for name in row), *written.types])
    columns = {name: _column(written, name, [row.get(name) for row in rows], types.get(name), name in moments) for name in names}
    return pa.table(columns)


def _column(written: Written, name: str, values: list[Any], kind: pa.DataType | None, moments: bool) -> pa.Array:
    try:
        kind = kind or kind_of(values, moments=moments)
    except (Unfit, pa.ArrowException) as error:
        raise written.bad(f"column {name!r} {error}", "columns") from error
    made = []
    for number, value in enumerate(values):
        try:
            made.append(as_kind(value, kind))
        except Unfit as error:
            raise written.bad(f"row {number + 1}, column {name!r}: {value!r} {error}", "rows", number, name) from error
    try:
        return pa.array(made, kind)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise written.bad(f"column {name!r} cannot be {kind}: {error}", "columns", name) from error


def _cast(column: pa.ChunkedArray, kind: pa.DataType | None, *, name: str) -> pa.Array:
    whole = column.combine_chunks()
    whole = pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole
    return whole if kind is None else cast_exactly(whole, kind, name=name)


def expected_rows(written: Written, *, scratch: Path) -> list[dict[str, Any]]:
    """The rows as written; their values get the types of what was found when they are compared. CSV is read as text, empty is null."""
    model = written.model
    if model.rows is not None:
        return model.rows
    if model.csv is None:
        rows: list[dict[str, Any]] = _read(written, {}, scratch).to_pylist()
        return rows
    inline = "\n" in model.csv.strip()
    text = model.csv if inline else written.file(model.csv.strip()).read_text(encoding="utf-8-sig")
    return [
        {name: value or None for name, value in row.items() if name is not None}
        for row in csv.DictReader(io.StringIO(text.strip("\n") + "\n"))
    ]
