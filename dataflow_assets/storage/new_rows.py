"""SQL for a sensor that looks for new rows: the newest value of a column, and the rows between two values of it.

Here: text over a table or a query, for any dialect that sqlglot knows. Not here: what is done with the answers
(`operations.sensors.rows`).
"""

# ruff: noqa: S608 - identifiers are quoted by sqlglot, values are bound

from __future__ import annotations

from collections.abc import Sequence

from dataflow_assets.tables import Bind, Query, TableName

NEWEST = "newest"


def newest_value(source: TableName | Query, column: str, *, dialect: str) -> Query:
    """The largest value of a column, as `newest`; one row, null for no rows."""
    return Query((f"SELECT max({_quoted(column, dialect)}) AS {_quoted(NEWEST, dialect)} FROM ", *_from(source, dialect)))


def rows_between(source: TableName | Query, columns: Sequence[str], column: str, *, after: int, upto: int, dialect: str) -> Query:
    """Some columns of the rows whose `column` lies above `after` and at most at `upto`."""
    quoted = _quoted(column, dialect)
    chosen = ", ".join(_quoted(name, dialect) for name in columns)
    where = (f" WHERE {quoted} > ", Bind(after), f" AND {quoted} <= ", Bind(upto))
    return Query((f"SELECT {chosen} FROM ", *_from(source, dialect), *where))


def _quoted(name: str, dialect: str) -> str:
    from sqlglot import exp

    return exp.to_identifier(name, quoted=True).sql(dialect=dialect)


def _from(source: TableName | Query, dialect: str) -> tuple[str | Bind, ...]:
    if isinstance(source, TableName):
        return (".".join(_quoted(part, dialect) for part in (source.schema, source.name) if part),)
    *first, last = source.parts
    ending = last.rstrip().rstrip(";") if isinstance(last, str) else last
    return ("(\n", *first, ending, "\n) AS source_query")
