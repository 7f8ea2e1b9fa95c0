"""A user's SQL over staged Parquet: DuckDB that can see the inputs of one step and nothing else.

Here: the locked-down connection, its views, running one SELECT as a stream. Not here: what the SQL is for
(`transforms.sql`, `checks._metric`, `checks._conditions`), the connector that reads and writes DuckDB files (`connectors.duckdb`).

The files of the inputs are the only paths allowed; then external access is switched off and the configuration locked. Statements
other than one SELECT are refused, because COPY could write over an input and into the spill folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dataflow_assets.batches import BATCH_ROWS
from dataflow_assets.errors import TransformFailed
from dataflow_assets.protocols import StagedInput
from dataflow_assets.tables import Query

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FIRST_INPUT = "input"
MEMORY_LIMIT = "512MB"
_CONFIG = {
    "threads": "2",
    "python_enable_replacements": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
_UNKEPT = frozenset({"uhugeint", "bignum", "bit", "time with time zone", "interval", "union"})


class Sandbox:
    """An open sandbox; see `open_sandbox`."""

    def __init__(self, connection: DuckDBPyConnection, names: list[str], *, step: str) -> None:
        self._connection, self._names, self._step = connection, names, step

    def select(self, query: Query, *, batch_rows: int = BATCH_ROWS) -> pa.RecordBatchReader:
        """Run one SELECT and stream its rows. Raises TransformFailed, also from the reader, with DuckDB's message."""
        import duckdb

        text, values = query.render(lambda number: f"${number}")
        try:
            relation = self._connection.sql(_one_select(self._connection, text, step=self._step), params=values)
            self._refuse_result(relation.columns, relation.types)
            reader = relation.to_arrow_reader(batch_rows)
        except (duckdb.BinderException, duckdb.CatalogException) as error:
            raise self._failed(self._placed(error, text, values)) from error
        except duckdb.Error as error:
            raise self._failed(error) from error
        return pa.RecordBatchReader.from_batches(reader.schema, self._batches(reader))

    def offer(self, name: str, rows: pa.Table | pa.RecordBatchReader) -> None:
        """Let SQL read `rows` as the table `name`, in place of what it last stood for; a reader can be read once.

        Raises TransformFailed when DuckDB cannot read a column exactly.
        """
        _refuse_inexact(rows.schema, name, step=self._step)
        self._connection.register(name, rows)

    def _placed(self, error: Exception, text: str, values: list[Any]) -> Exception:
        """The same error with the place in the SQL, which only `execute` tells; it fails before it runs anything."""
        import duckdb

        try:
            self._connection.execute(text, values)
        except duckdb.Error as placed:
            return placed
        return error

    def _batches(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        import duckdb

        try:
            yield from reader
        except (OSError, pa.ArrowException, duckdb.Error) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> TransformFailed:
        return TransformFailed(f"step {self._step}: DuckDB refused the SQL: {error}", hint=f"the tables here are {', '.join(self._names)}")

    def _refuse_result(self, names: list[str], types: list[Any]) -> None:
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise TransformFailed(f"step {self._step}: two columns of the result are named {twice[0]!r}", hint="give one an alias with AS")
        for name, kind in zip(names, types, strict=True):
            if found := _unkept(kind):
                raise TransformFailed(
                    f"step {self._step}: column {name!r} has type {found}, which has no exact form in Arrow", hint="cast it in the SQL"
                )


def parse_select(text: str, *, step: str) -> None:
    """Let DuckDB parse the text, without running it. Raises TransformFailed for what `Sandbox.select` would not take."""
    import duckdb

    with duckdb.connect(":memory:", config=dict(_CONFIG)) as connection:
        try:
            _one_select(connection, text, step=step)
        except duckdb.Error as error:
            raise TransformFailed(f"DuckDB cannot read the SQL: {error}") from error


def _one_select(connection: DuckDBPyConnection, text: str, *, step: str) -> Any:
    """The only statement of the text. Raises TransformFailed unless it is one SELECT."""
    import duckdb

    statements = connection.extract_statements(text)
    if len(statements) == 1 and statements[0].type == duckdb.StatementType.SELECT:
        return statements[0]
    kinds = [statement.type.name for statement in statements]
    where = f"step {step}: " if step else ""
    if not kinds:
        raise TransformFailed(f"{where}the SQL is empty", hint="write a SELECT")
    found = "a PIVOT without IN (...) list" if kinds == ["MULTI"] else f"{' and '.join(kinds)}"
    hint = "WITH, FROM and VALUES are fine; writing is the endpoints' work"
    raise TransformFailed(f"{where}the SQL must be one SELECT statement, but it is {found}", hint=hint)


@contextmanager
def open_sandbox(inputs: Mapping[str, StagedInput], *, scratch: Path, step: str, memory_limit: str = MEMORY_LIMIT) -> Iterator[Sandbox]:
    """DuckDB with one view per input, named by its key, and `input` for the first; readers end with it.

    Raises TransformFailed when an input has a column that DuckDB cannot read exactly.
    """
    import duckdb

    with tempfile.TemporaryDirectory(dir=scratch, prefix="duckdb-") as spill:
        connection = duckdb.connect(":memory:", config=dict(_CONFIG))
        try:
            names = _make_views(connection, inputs, step=step)
            _lock(connection, inputs, spill=spill, memory_limit=memory_limit)
            yield Sandbox(connection, names, step=step)
        finally:
            connection.close()


def _unkept(kind: Any) -> str:
    """The type, or the one inside it, that DuckDB would hand over changed; empty when there is none."""
    if kind.id in _UNKEPT:
        return str(kind.id).upper()
    children = kind.children if kind.id in {"list", "struct", "map", "array"} else []
    return next((found for _, child in children if hasattr(child, "id") and (found := _unkept(child))), "")


def _make_views(connection: DuckDBPyConnection, inputs: Mapping[str, StagedInput], *, step: str) -> list[str]:
    views: dict[str, StagedInput] = dict(inputs)
    if inputs:
        views.setdefault(FIRST_INPUT, next(iter(inputs.values())))
    folded = [name.lower() for name in views]
    if twice := sorted({name for name in views if folded.count(name.lower()) > 1}):
        raise TransformFailed(f"step {step}: SQL does not tell inputs {' and '.join(twice)} apart", hint="rename one of the steps")
    for name, stage in views.items():
        _refuse_inexact(stage.schema, stage.name, step=step)
        if stage.paths:
            paths = ", ".join(_text(path) for path in _absolute(stage))
            connection.execute(f"CREATE VIEW {_identifier(name)} AS SELECT * FROM read_parquet([{paths}])")  # noqa: S608
        else:
            connection.register(name, stage.schema.empty_table())
    return list(views)


def _lock(connection: DuckDBPyConnection, inputs: Mapping[str, StagedInput], *, spill: str, memory_limit: str) -> None:
    allowed = ", ".join(_text(path) for stage in inputs.values() for path in _absolute(stage))
    for setting in (
        "TimeZone = 'UTC'",
        "enable_progress_bar = false",
        f"memory_limit = {_text(memory_limit)}",
        f"temp_directory = {_text(spill)}",
        f"allowed_paths = [{allowed}]",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")


def _refuse_inexact(schema: pa.Schema, table: str, *, step: str) -> None:
    for item in schema:
        if _is_inexact(item.type):
            raise TransformFailed(
                f"step {step}: column {item.name!r} of {table} has type {item.type}, which DuckDB would change",
                hint="cast it in the source's query, or leave it out with `columns`",
            )


def _is_inexact(kind: Any) -> bool:
    if pa.types.is_nested(kind):
        return any(_is_inexact(kind.field(number).type) for number in range(kind.num_fields))
    return bool(pa.types.is_duration(kind) or pa.types.is_decimal256(kind) or pa.types.is_interval(kind))


def _absolute(stage: StagedInput) -> list[str]:
    return [str(Path(path).absolute()) for path in stage.paths]


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
