"""From the files of the months that a window touches to a stream of Arrow batches.

Here: one set of columns for all months, typing, rows of the apps asked for. Not here: files (`_google_play_files`), which months
(`_google_play_months`), values (`_google_play_values`), the columns of DFT's source (`_google_play_digests`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.connectors._csv_reading import Dialect, line_of, text_rows
from dataflow_assets.connectors._files import reader_of, require
from dataflow_assets.connectors._google_play_digests import DIGESTS
from dataflow_assets.connectors._google_play_files import MonthFile, listed, opened
from dataflow_assets.connectors._google_play_months import Choice, months_of
from dataflow_assets.connectors._google_play_reports import Column, columns_of, name_of
from dataflow_assets.connectors._google_play_values import NAMES, TYPES, values
from dataflow_assets.connectors._text_types import Unfit, parse
from dataflow_assets.errors import ReadFailed, ValueRefused
from dataflow_assets.storage.objects import ObjectPath
from dataflow_assets.storage.places import FilePath
from dataflow_assets.storage.read_ahead import read_ahead
from dataflow_assets.storage.type_names import column_types
from dataflow_assets.tables import ReadRequest

if TYPE_CHECKING:
    from dataflow_assets.connectors._google_play_reports import Kind
    from dataflow_assets.connectors.google_play import GooglePlaySource


@contextmanager
def stream(
    root: ObjectPath, request: ReadRequest, *, apps: tuple[str, ...], explained: Callable[[], AbstractContextManager[None]]
) -> Iterator[pa.RecordBatchReader]:
    """Stream the rows of a source step; `explained` tells of an error of the store what to do about it."""
    options: GooglePlaySource = request.options
    report, window = options.documented, request.window

    def found(*apps: str) -> list[MonthFile]:
        return listed(root, report, options.by, apps)

    choice = Choice(options, months_of(options, window), apps, str(root / report.folder), lambda: (file.app for file in found()))
    with explained():
        files = list(opened(choice.of(found(*apps))))
        table = Table.of(files, options, apps)
    digest = DIGESTS.get(options.digest or "")
    schema = digest.schema if digest else table.schema
    columns = request.columns or options.columns or schema.names
    require(schema, [*columns, *([window.column] if window else [])])
    wanted = digest.needs if digest else tuple(name for name in schema.names if name in columns or (window and name == window.column))

    def batches() -> Iterator[pa.RecordBatch]:
        with explained():
            rows = ((file, batch) for file in files for batch in table.rows(file, wanted))
            for batch in choice.complete(rows, window.column if window else ""):
                yield digest.made(batch) if digest else batch

    shown = digest.schema if digest else pa.schema([schema.field(name) for name in wanted])
    with read_ahead(batches(), depth=4) as ahead:
        yield reader_of(shown, ahead, window=window, columns=columns, rows=request.batch_rows)


@dataclass(frozen=True)
class Table:
    """The columns of a read: those that Google documents, then those that only the files have, which are text unless declared."""

    schema: pa.Schema
    kinds: dict[str, Kind]
    """Column -> what Google documents it to hold; not of columns that are declared."""
    layouts: dict[FilePath, tuple[Dialect, dict[str, str]]]
    """File -> how its text is laid out, and column -> its heading there."""
    app_column: str
    apps: tuple[str, ...]

    @classmethod
    def of(cls, files: Sequence[MonthFile], options: GooglePlaySource, apps: tuple[str, ...]) -> Table:
        """Look into the first line of every file. Raises ReadFailed for a declared column that no file has."""
        documented = columns_of(options.documented, options.by)
        naming = _naming(options)
        shown = {column.heading: naming(column.heading) for column in documented}
        layouts = {file.path: file.layout() for file in files}
        named = {path: (dialect, _named(headings, documented, naming, path)) for path, (dialect, headings) in layouts.items()}
        found = dict.fromkeys([*shown.values(), *(name for _, names in named.values() for name in names)])
        declared = column_types(options.column_types)
        require(pa.schema([(name, pa.null()) for name in found]), declared)
        kinds = {shown[column.heading]: column.kind for column in documented if shown[column.heading] not in declared}
        schema = pa.schema([(name, declared.get(name) or TYPES[kinds.get(name, "text")]) for name in found])
        app_column = shown.get(options.documented.app_column, "")
        return cls(schema, kinds, named, app_column, apps if app_column else ())

    def rows(self, file: MonthFile, wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The wanted columns of one file, typed; a column that it lacks is null. Raises ReadFailed, ValueRefused."""
        dialect, headings = self.layouts[file.path]
        if self.apps and self.app_column not in headings:
            raise ReadFailed(f"{file.path} has no column that names the app", hint="leave package_name out to read the rows of all apps")
        needed = {*wanted, *([self.app_column] if self.apps else [])}
        there = [name for name in headings if name in needed] or list(headings)[:1]  # without one, nothing tells how many rows there are
        schema, row = pa.schema([self.schema.field(name) for name in wanted]), 0
        for batch in text_rows(file, dialect, [headings[name] for name in there]):
            made = {name: self._typed(file, name, column, row) for name, column in zip(there, batch.columns, strict=True)}
            columns = [made[item.name] if item.name in made else pa.nulls(batch.num_rows, item.type) for item in schema]
            row += batch.num_rows
            typed = pa.RecordBatch.from_arrays(columns, schema=schema)
            yield typed.filter(pc.is_in(made[self.app_column], pa.array(self.apps))) if self.apps else typed

    def _typed(self, file: MonthFile, name: str, column: pa.Array, row: int) -> pa.Array:
        kind, item = self.kinds.get(name), self.schema.field(name)
        try:
            if kind is not None:
                return values(column, kind)
            return column if pa.types.is_string(item.type) else parse(column, item.type, strict=False)
        except Unfit as error:
            line = line_of(file, self.layouts[file.path][0], row + error.index)
            text = error.text if len(error.text) <= 60 else f"{error.text[:60]}..."
            what = NAMES[kind] if kind else f"{item.type}, as column_types says"
            raise ValueRefused(
                f"{file.path}:{line}: column {name!r}: {text!r} is not {what}",
                hint=f"where Google writes it so, take it as text: column_types: {{{name}: string}}",
            ) from None


def _naming(options: GooglePlaySource) -> Callable[[str], str]:
    return name_of if options.column_names == "snake_case" else str


def _named(headings: Sequence[str], documented: Sequence[Column], naming: Callable[[str], str], path: FilePath) -> dict[str, str]:
    """Column -> heading in a file. What was headed otherwise at other times has one name. Raises ReadFailed where two headings have."""
    spelled = {name_of(heading) for heading in headings}
    known = {name_of(column.heading): naming(column.heading) for column in documented}
    for column in documented:
        if name_of(column.heading) not in spelled:
            known |= {name_of(heading): naming(column.heading) for heading in column.also}
    names = {known.get(name_of(heading), naming(heading)): heading for heading in headings}
    if lost := [heading for heading in headings if heading not in names.values()]:
        raise ReadFailed(f"{path}: another column has the name of {', '.join(map(repr, lost))}", hint="write column_names: report")
    return names
