"""SQL text, built in one place from a small value that says how a database writes it.

Here: identifiers, predicates and statements as text with their values kept apart. Not here: connections, transactions and
their order (`connectors`), the columns of the ledger (`storage.ledger`).
"""

# ruff: noqa: S608 - identifiers pass Dialect.quote, values are placeholders

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from dataflow_assets.errors import ValueRefused
from dataflow_assets.tables import Query, TableName


@dataclass(frozen=True)
class Statement:
    """SQL text with the values for its placeholders, in their order."""

    text: str
    values: tuple[Any, ...] = ()


Conflict = Callable[["Dialect", Sequence[str], Mapping[str, str]], str]
"""What to append to an INSERT: the dialect, the key columns, and column -> new value (SQL) where the key is there already."""


def numbered(position: int) -> str:
    """`$1`, `$2`: the placeholders of Postgres and DuckDB."""
    return f"${position}"


def on_conflict(dialect: Dialect, keys: Sequence[str], assignments: Mapping[str, str]) -> str:
    """The form of Postgres, DuckDB and SQLite; `excluded` is the row that could not be inserted."""
    target = ", ".join(dialect.quote(key) for key in keys)
    if not assignments:
        return f" ON CONFLICT ({target}) DO NOTHING"
    return f" ON CONFLICT ({target}) DO UPDATE SET " + ", ".join(f"{dialect.quote(name)} = {value}" for name, value in assignments.items())


def on_duplicate_key(dialect: Dialect, keys: Sequence[str], assignments: Mapping[str, str]) -> str:
    """The form of MySQL and MariaDB, which name no keys: any unique index counts."""
    sets = assignments or {keys[0]: dialect.incoming(dialect.quote(keys[0]))}
    return " ON DUPLICATE KEY UPDATE " + ", ".join(f"{dialect.quote(name)} = {value}" for name, value in sets.items())


@dataclass(frozen=True)
class Dialect:
    """How one database writes SQL: data only, so that a new database is a new value and not a branch."""

    name: str
    placeholder: Callable[[int], str] = numbered
    quotes: tuple[str, str] = ('"', '"')
    escapes: bool = False
    """Whether a backslash inside a quoted identifier begins an escape."""
    max_identifier_bytes: int | None = None
    basic_plane: bool = False
    """Names hold only characters up to U+FFFF; the database would make `?` of others."""
    primary_keys: bool = True
    """Whether a primary key is enforced; where none is, none is declared."""
    text_type: str = "TEXT"
    key_text_type: str = "TEXT"
    """A text type that may be part of a primary key."""
    integer_type: str = "BIGINT"
    instant_type: str = "TIMESTAMP WITH TIME ZONE"
    instant: Callable[[datetime], Any] = lambda moment: moment
    """How an aware datetime is handed to the driver."""
    conflict: Conflict = on_conflict
    incoming: Callable[[str], str] = lambda quoted: f"excluded.{quoted}"
    """The new row's value of a quoted column, inside what `conflict` appends."""
    folds_case: bool = False
    """Whether two columns of one table may not differ in capitals only."""
    adding: str = "ADD COLUMN IF NOT EXISTS"
    retyping: str = "ALTER COLUMN {column} SET DATA TYPE {kind}"
    """How ALTER TABLE changes a type; `{null}` becomes NULL or NOT NULL."""

    def quote(self, name: str) -> str:
        """The identifier in quotes. Raises ValueRefused where the database would reject or silently shorten it."""
        size = len(name.encode())
        if not name or "\0" in name:
            raise ValueRefused(f"{name!r} cannot name a table or column in {self.name}", hint="rename it in the query")
        if self.max_identifier_bytes is not None and size > self.max_identifier_bytes:
            raise ValueRefused(
                f"the name {name!r} has {size} bytes; {self.name} keeps {self.max_identifier_bytes} and would cut it off",
                hint="rename it in the query",
            )
        if self.basic_plane and max(name) > "\uffff":
            raise ValueRefused(f"the name {name!r} has a character that {self.name} does not keep in names", hint="rename it in the query")
        opening, closing = self.quotes
        if self.escapes:
            name = name.replace("\\", "\\\\")
        return opening + name.replace(closing, closing * 2) + closing

    def table(self, name: TableName) -> str:
        """The table's quoted address."""
        return f"{self.quote(name.schema)}.{self.quote(name.name)}" if name.schema else self.quote(name.name)

    def names(self, columns: Sequence[str]) -> str:
        """A quoted, comma-separated list."""
        return ", ".join(self.quote(column) for column in columns)


def create_table(
    dialect: Dialect,
    table: TableName,
    columns: Mapping[str, str],
    *,
    primary_key: Sequence[str] = (),
    index: Sequence[str] = (),
    options: str = "",
) -> Statement:
    """CREATE TABLE IF NOT EXISTS; `columns` is name -> SQL type, which is taken as it stands, as are the `options` at the end.

    `index` makes an index within the statement, for databases whose DDL commits by itself and that have this form (MySQL).
    """
    lines = [f"{dialect.quote(name)} {kind}" for name, kind in columns.items()]
    if primary_key and dialect.primary_keys:
        lines.append(f"PRIMARY KEY ({dialect.names(primary_key)})")
    if index:
        lines.append(f"INDEX ({dialect.names(index)})")
    return Statement(f"CREATE TABLE IF NOT EXISTS {dialect.table(table)} ({', '.join(lines)}){options and ' ' + options}")


def add_column(dialect: Dialect, table: TableName, name: str, kind: str) -> Statement:
    """ALTER TABLE ... ADD COLUMN; `kind` is taken as it stands."""
    return Statement(f"ALTER TABLE {dialect.table(table)} {dialect.adding} {dialect.quote(name)} {kind}")


def change_type(dialect: Dialect, table: TableName, name: str, kind: str, *, null: bool) -> Statement:
    """ALTER TABLE that gives a column another type; `null` says whether it keeps nulls, for dialects that ask."""
    change = dialect.retyping.replace("{kind}", kind).replace("{null}", "NULL" if null else "NOT NULL")
    return Statement(f"ALTER TABLE {dialect.table(table)} {change.replace('{column}', dialect.quote(name))}")


def create_index(dialect: Dialect, table: TableName, columns: Sequence[str], *, name: str | None = None, unique: bool = False) -> Statement:
    """CREATE INDEX; the database picks the name unless one is given."""
    named = f" {dialect.quote(name)}" if name else ""
    return Statement(f"CREATE {'UNIQUE ' if unique else ''}INDEX{named} ON {dialect.table(table)} ({dialect.names(columns)})")


def window_predicate(dialect: Dialect, column: str, bounds: tuple[datetime | date, datetime | date], *, first: int = 1) -> Statement:
    """`column >= start AND column < end` with placeholders numbered from `first`; a null lies in no window."""
    quoted = dialect.quote(column)
    return Statement(f"{quoted} >= {dialect.placeholder(first)} AND {quoted} < {dialect.placeholder(first + 1)}", tuple(bounds))


def _where(predicate: Statement | None) -> tuple[str, tuple[Any, ...]]:
    return (f" WHERE {predicate.text}", predicate.values) if predicate else ("", ())


def delete_rows(dialect: Dialect, table: TableName, predicate: Statement | None = None) -> Statement:
    """DELETE the rows of `predicate`, or all."""
    where, values = _where(predicate)
    return Statement(f"DELETE FROM {dialect.table(table)}{where}", values)


def count_rows(dialect: Dialect, table: TableName, predicate: Statement | None = None) -> Statement:
    """Count the rows of `predicate`, or all."""
    where, values = _where(predicate)
    return Statement(f"SELECT count(*) FROM {dialect.table(table)}{where}", values)


def insert_select(dialect: Dialect, table: TableName, columns: Mapping[str, str], source: str, *, overriding: str = "") -> str:
    """INSERT ... SELECT: `columns` is target column -> expression over `source`, the text after FROM."""
    into = f"INSERT INTO {dialect.table(table)} ({dialect.names(list(columns))}){overriding}"
    return f"{into} SELECT {', '.join(columns.values())} FROM {source}"


def insert_rows(dialect: Dialect, table: TableName, columns: Sequence[str], *, rows: int, keys: Sequence[str] | None = None) -> str:
    """INSERT of `rows` rows at once, whose placeholders count through all of them; with `keys`, a row that is there is replaced."""
    width = len(columns)
    lines = (", ".join(dialect.placeholder(row * width + position) for position in range(1, width + 1)) for row in range(rows))
    text = f"INSERT INTO {dialect.table(table)} ({dialect.names(columns)}) VALUES " + ", ".join(f"({line})" for line in lines)
    if keys is None:
        return text
    return text + dialect.conflict(dialect, keys, {name: dialect.incoming(dialect.quote(name)) for name in columns if name not in keys})


def upsert_select(
    dialect: Dialect, table: TableName, columns: Mapping[str, str], source: str, *, keys: Sequence[str], overriding: str = ""
) -> str:
    """INSERT ... SELECT where a row whose keys are there already replaces every other column; `source` has each key once."""
    others = {name: dialect.incoming(dialect.quote(name)) for name in columns if name not in keys}
    return insert_select(dialect, table, columns, source, overriding=overriding) + dialect.conflict(dialect, keys, others)


def merge_rows(
    dialect: Dialect,
    table: TableName,
    columns: Sequence[str],
    source: str,
    *,
    keys: Sequence[str],
    assignments: Mapping[str, str] | None = None,
) -> str:
    """MERGE: a row of `source` is inserted, or updates the row that has its keys; `source` has these columns, and each key once.

    `assignments` is column -> new value (SQL over `target` and `incoming`); default: every column that is no key, from the new row.
    """
    new = {name: f"incoming.{dialect.quote(name)}" for name in columns}
    sets = assignments if assignments is not None else {name: value for name, value in new.items() if name not in keys}
    matched = " AND ".join(f"target.{dialect.quote(key)} = {new[key]}" for key in keys)
    update = ", ".join(f"{dialect.quote(name)} = {value}" for name, value in sets.items())
    return (
        f"MERGE INTO {dialect.table(table)} AS target USING {source} AS incoming ON {matched}"
        + (f" WHEN MATCHED THEN UPDATE SET {update}" if update else "")
        + f" WHEN NOT MATCHED THEN INSERT ({dialect.names(columns)}) VALUES ({', '.join(new.values())})"
    )


def delete_matching(dialect: Dialect, table: TableName, source: str, keys: Mapping[str, str]) -> Statement:
    """DELETE the rows whose keys stand in `source`; `keys` is key column -> expression over `source`."""
    matched = f"SELECT {', '.join(keys.values())} FROM {source}"
    return Statement(f"DELETE FROM {dialect.table(table)} WHERE ({dialect.names(list(keys))}) IN ({matched})")


def latest_rows(dialect: Dialect, source: str, *, keys: Sequence[str], order: str) -> str:
    """The text after FROM that gives, of the rows of `source` with equal `keys` (expressions), the one with the highest `order`."""
    rank = dialect.quote("_dataflow_rank")
    ranked = f"SELECT *, row_number() OVER (PARTITION BY {', '.join(keys)} ORDER BY {dialect.quote(order)} DESC) AS {rank} FROM {source}"
    return f"(SELECT * FROM ({ranked}) AS ranked WHERE {rank} = 1) AS latest"


def select(dialect: Dialect, columns: Mapping[str, str] | None, source: str, predicate: Statement | None = None) -> str:
    """SELECT: `columns` is name -> expression, None for all; `source` is the text after FROM."""
    chosen = "*" if columns is None else ", ".join(f"{expression} AS {dialect.quote(name)}" for name, expression in columns.items())
    return f"SELECT {chosen} FROM {source}" + (f" WHERE {predicate.text}" if predicate else "")


def derived_table(dialect: Dialect, query: Query) -> tuple[str, list[Any]]:
    """The query as text to stand after FROM, with its values bound.

    The parenthesis closes on a line of its own, so that a query may end in a comment.
    """
    text, values = query.render(dialect.placeholder)
    return f"(\n{text.rstrip().rstrip(';')}\n) AS source_query", values
