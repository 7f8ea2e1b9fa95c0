"""How BigQuery writes SQL: names, values, and several statements in one script.

Here: text and typed values. Not here: running them (`_bigquery_session`).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from datetime import time as clock
from decimal import Decimal
from typing import Any

from dataflow_assets.connectors._bigquery_login import BigQueryConnection
from dataflow_assets.errors import ValueRefused
from dataflow_assets.storage.records import RecordForms
from dataflow_assets.storage.sql import Dialect, Statement, change_type
from dataflow_assets.tables import TableName

_LONGEST_COLUMN, _LONGEST_TABLE = 300, 1024
_LETTERS = ("L", "M", "N", "Pc", "Pd")
_MARKS = frozenset("&%=+:'<>#| \t")
"""What a column's name may hold beside letters, digits, dashes and underscores."""
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True)
class BigQueryDialect(Dialect):
    """How BigQuery writes SQL. Tables are named in full, for a job has no current dataset unless it is told one."""

    project: str = ""
    dataset: str | None = None

    def quote(self, name: str) -> str:
        """A column in backticks. Raises ValueRefused for what BigQuery would reject."""
        if not name or len(name) > _LONGEST_COLUMN or not all(_is_of(mark, _LETTERS) or mark in _MARKS for mark in name):
            hint = "rename it in the query: letters, digits, spaces, and any of & % = + : ' < > # | - _, at most 300 characters"
            raise ValueRefused(f"the name {name!r} is none that a column of BigQuery can have", hint=hint)
        return super().quote(name)

    def table(self, name: TableName) -> str:
        """The table's quoted address: project, dataset, table."""
        return ".".join(f"`{part}`" for part in self.path(name))

    def path(self, name: TableName) -> tuple[str, str, str]:
        """Project, dataset and table. Raises ValueRefused for names that BigQuery would reject, or when no dataset is known."""
        whole = name.schema or self.dataset
        if not whole:
            hint = "set dataset on the connection, or on the step"
            raise ValueRefused(f"table {name.name!r}: there is no saying in which dataset it is", hint=hint)
        project, _, dataset = whole.rpartition(".")
        if not dataset.replace("_", "a").isalnum() or not dataset.isascii():
            raise ValueRefused(
                f"{whole!r} cannot name a dataset", hint="letters, digits and underscores; project.dataset for another project"
            )
        if not name.name or len(name.name.encode()) > _LONGEST_TABLE or not all(_is_of(mark, (*_LETTERS, "Zs")) for mark in name.name):
            hint = "letters, digits, spaces, dashes and underscores, at most 1024 bytes"
            raise ValueRefused(f"{name.name!r} cannot name a table in BigQuery", hint=hint)
        return project or self.project, dataset, name.name


def _is_of(mark: str, categories: Sequence[str]) -> bool:
    return unicodedata.category(mark).startswith(tuple(categories))


def dialect(connection: BigQueryConnection) -> BigQueryDialect:
    """The dialect of a connection."""
    return BigQueryDialect(
        "BigQuery",
        placeholder=lambda position: f"@p{position}",
        quotes=("`", "`"),
        primary_keys=False,
        folds_case=True,
        text_type="STRING",
        key_text_type="STRING",
        integer_type="INT64",
        instant_type="TIMESTAMP",
        project=connection.project,
        dataset=connection.dataset,
    )


def records(dialect: BigQueryDialect) -> RecordForms:
    """How records are written."""
    parsed = "PARSE_JSON({})"
    return RecordForms(dialect, types={"json": "JSON", "list": "JSON"}, around={"json": parsed, "list": parsed}, indexes=False)


@dataclass
class Script:
    """Several statements in one job, each with names of its own for its values."""

    dialect: BigQueryDialect
    values: dict[str, Any] = field(default_factory=dict)
    _count: int = 0

    def bind(self, made: Callable[[Dialect], Statement]) -> str:
        """The text of a statement, whose values become those of the script."""
        self._count += 1
        prefix = f"s{self._count}p"
        statement = made(replace(self.dialect, placeholder=lambda position: f"@{prefix}{position}"))
        self.values |= {f"{prefix}{position}": value for position, value in enumerate(statement.values, start=1)}
        return statement.text


def alterations(dialect: BigQueryDialect, table: TableName, added: Mapping[str, str], widened: Mapping[str, str]) -> list[str]:
    """The statements that give a table columns and types, both name -> SQL type: all columns at once, and one for each type.

    BigQuery lets a table be changed five times in ten seconds, and takes one type a statement.
    """
    adding = ", ".join(f"{dialect.adding} {dialect.quote(name)} {kind}" for name, kind in added.items())
    texts = [f"ALTER TABLE {dialect.table(table)} {adding}"] if adding else []
    return texts + [change_type(dialect, table, name, kind, null=True).text for name, kind in widened.items()]


def parameter(name: str, value: Any) -> Any:
    """The value for the driver, with its type. None is an instant: only the ledger has such values, the bounds of no window."""
    from google.cloud import bigquery

    if isinstance(value, list):
        return bigquery.ArrayQueryParameter(name, "STRING", value)
    family = _family(value)
    return bigquery.ScalarQueryParameter(name, family, Decimal(value) if family == "BIGNUMERIC" else value)


def _family(value: Any) -> str:
    if isinstance(value, datetime):
        return "DATETIME" if value.tzinfo is None else "TIMESTAMP"
    if isinstance(value, int) and not isinstance(value, bool):
        return "INT64" if value in _INT64 else "BIGNUMERIC"
    for kind, family in _FAMILIES:
        if isinstance(value, kind):
            return family
    raise ValueRefused(f"a value of type {type(value).__name__} cannot be bound to a query of BigQuery", hint="write it into the query")


_FAMILIES: tuple[tuple[type, str], ...] = (
    (type(None), "TIMESTAMP"),
    (bool, "BOOL"),
    (float, "FLOAT64"),
    (Decimal, "BIGNUMERIC"),
    (str, "STRING"),
    (bytes, "BYTES"),
    (date, "DATE"),
    (clock, "TIME"),
)
