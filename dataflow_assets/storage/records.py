"""Single rows in a table of an SQL database: what is said to make the table, to add, change, find and remove rows.

Here: statements over a dialect, with what a database writes differently for JSON and dates as data (`RecordForms`). Not here: which
columns a table has (`storage.drive`), running the statements (each connector).
"""

# ruff: noqa: S608 - identifiers pass Dialect.quote, values are placeholders

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Literal

from dataflow_assets.storage.sql import Dialect, Statement, add_column, create_index, create_table
from dataflow_assets.tables import TableName

Kind = Literal["name", "text", "integer", "instant", "date", "json", "list"]
"""`name` is a short text that may be a key; `json` an object and `list` an array, both handed over as JSON text."""


@dataclass(frozen=True)
class RecordForms:
    """How one database writes what only records need; `{}` stands for a placeholder, a name or a number."""

    dialect: Dialect
    types: Mapping[Kind, str] = field(default_factory=dict)
    """Kind -> SQL type, where it is not the dialect's."""
    around: Mapping[Kind, str] = field(default_factory=dict)
    """Kind -> the expression around its placeholder."""
    date: Callable[[date], Any] = lambda day: day
    """How a date is handed to the driver."""
    row: str = "VALUES ({})"
    """How the values of a new row stand in an INSERT."""
    first_rows: str = " LIMIT {}"
    make_schema: str = "CREATE SCHEMA IF NOT EXISTS {}"
    """Empty where schemas are not made with SQL."""
    indexes: bool = True
    """Whether a table may have an index beside its key at no harm to changes."""

    def type_of(self, kind: Kind) -> str:
        """The SQL type of a column."""
        dialect = self.dialect
        own = {"name": dialect.key_text_type, "integer": dialect.integer_type, "instant": dialect.instant_type, "date": "DATE"}
        return self.types.get(kind) or own.get(kind, dialect.text_type)

    def bound(self, kind: Kind, value: Any) -> Any:
        """The value for the driver."""
        if isinstance(value, datetime):
            return self.dialect.instant(value.astimezone(UTC))
        return self.date(value) if kind == "date" else value


@dataclass(frozen=True)
class RecordTable:
    """A table of records: its columns by name, one of them its key, and those by which rows are looked for."""

    name: TableName
    columns: Mapping[str, Kind]
    key: str
    searched: tuple[str, ...] = ()
    also_searched: tuple[tuple[str, ...], ...] = ()
    """The columns of further indexes."""


@dataclass(frozen=True)
class Asked:
    """Which rows: of these values in these columns, and from an instant on, or before one."""

    among: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    since: tuple[str, datetime] | None = None
    before: tuple[str, datetime] | None = None


class _Values:
    """Collects values while their statement is written; a null stands in the text, for it has no type of its own."""

    def __init__(self, forms: RecordForms, table: RecordTable) -> None:
        self._forms, self._table = forms, table
        self.values: list[Any] = []

    def mark(self, column: str, value: Any) -> str:
        """The expression that stands for a value of this column."""
        if value is None:
            return "NULL"
        kind = self._table.columns[column]
        self.values.append(self._forms.bound(kind, value))
        return self._forms.around.get(kind, "{}").replace("{}", self._forms.dialect.placeholder(len(self.values)))

    def equals(self, column: str, values: Sequence[Any]) -> str:
        """The condition that a column has one of these values."""
        marks = ", ".join(self.mark(column, value) for value in values)
        return f"{self._forms.dialect.quote(column)} IN ({marks})" if marks else "1 = 0"

    def where(self, asked: Asked) -> str:
        """The conditions, with WHERE in front when there are any."""
        conditions = [self.equals(column, values) for column, values in asked.among.items()]
        for sign, bound in ((">=", asked.since), ("<", asked.before)):
            if bound is not None:
                conditions.append(f"{self._forms.dialect.quote(bound[0])} {sign} {self.mark(*bound)}")
        return f" WHERE {' AND '.join(conditions)}" if conditions else ""

    def statement(self, text: str) -> Statement:
        """The text with the values."""
        return Statement(text, tuple(self.values))


def make_table(forms: RecordForms, table: RecordTable) -> list[Statement]:
    """The statements that make schema, table and indexes where they are missing, each to be run on its own."""
    made = []
    if table.name.schema and forms.make_schema:
        made.append(Statement(forms.make_schema.replace("{}", forms.dialect.quote(table.name.schema))))
    kinds = {name: forms.type_of(kind) for name, kind in table.columns.items()}
    made.append(create_table(forms.dialect, table.name, kinds, primary_key=(table.key,)))
    indexes = [columns for columns in (table.searched, *table.also_searched) if columns] if forms.indexes else []
    for columns in indexes:
        name = f"{table.name.name}_by_{columns[0]}"
        made.append(create_index(forms.dialect, table.name, columns, name=name))
    return made


def add_missing(forms: RecordForms, table: RecordTable, column: str) -> Statement:
    """Give a table that an older version made a column that it lacks."""
    return add_column(forms.dialect, table.name, column, forms.type_of(table.columns[column]))


def probe_columns(forms: RecordForms, table: RecordTable, columns: Sequence[str]) -> Statement:
    """A query of no rows, which fails where the table or one of these columns is missing."""
    # named by their table: SQLite takes a name in double quotes that it does not know for a text
    named = ", ".join(f"probed.{forms.dialect.quote(column)}" for column in columns)
    return Statement(f"SELECT {named} FROM {forms.dialect.table(table.name)} probed WHERE 1 = 0")


def insert_record(forms: RecordForms, table: RecordTable, values: Mapping[str, Any]) -> Statement:
    """Add a row; columns without a value are left out."""
    given = {name: value for name, value in values.items() if value is not None}
    binding = _Values(forms, table)
    row = forms.row.replace("{}", ", ".join(binding.mark(name, value) for name, value in given.items()))
    return binding.statement(f"INSERT INTO {forms.dialect.table(table.name)} ({forms.dialect.names(list(given))}) {row}")


def update_records(forms: RecordForms, table: RecordTable, values: Mapping[str, Any], asked: Asked) -> Statement:
    """Change columns of rows."""
    binding = _Values(forms, table)
    sets = ", ".join(f"{forms.dialect.quote(name)} = {binding.mark(name, value)}" for name, value in values.items())
    return binding.statement(f"UPDATE {forms.dialect.table(table.name)} SET {sets}{binding.where(asked)}")


def delete_records(forms: RecordForms, table: RecordTable, asked: Asked) -> Statement:
    """Remove rows."""
    binding = _Values(forms, table)
    return binding.statement(f"DELETE FROM {forms.dialect.table(table.name)}{binding.where(asked)}")


def select_records(
    forms: RecordForms, table: RecordTable, columns: Sequence[str], asked: Asked, *, newest: Sequence[str] = (), limit: int | None = None
) -> Statement:
    """Find rows, those first whose columns `newest` are highest."""
    binding, dialect = _Values(forms, table), forms.dialect
    order = f" ORDER BY {', '.join(f'{dialect.quote(name)} DESC' for name in newest)}" if newest else ""
    text = f"SELECT {dialect.names(columns)} FROM {dialect.table(table.name)}{binding.where(asked)}{order}"
    return binding.statement(text + (forms.first_rows.replace("{}", str(int(limit))) if limit is not None else ""))
