"""Column lineage: from which columns of which tables a query makes each of its own.

Here: what sqlglot can tell from the text and the columns of the inputs. Not here: lineage of tables (`plan.lineage`), how it is
shown (`assets`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dataflow_assets.plan.lineage import PLACEHOLDER, without_templates

Lineage = dict[str, list[tuple[str, str]]]


def column_lineage(sql: str, *, dialect: str | None, inputs: Mapping[str, Sequence[str]] | None = None) -> Lineage:
    """Output column -> the (table, column) pairs it is made from, sorted; columns that nothing is known of are left out.

    `inputs` maps each table, as the SQL names it, to its columns: without them `*` and bare columns of several tables stay
    unknown. A column made of constants alone has an empty list. SQL that sqlglot cannot read gives an empty answer.
    """
    from sqlglot.errors import SqlglotError

    try:
        return _lineage(without_templates(sql), dialect, inputs or {})
    except (SqlglotError, ValueError, KeyError, AttributeError, RecursionError):
        return {}


def _lineage(sql: str, dialect: str | None, inputs: Mapping[str, Sequence[str]]) -> Lineage:
    import sqlglot
    from sqlglot import exp, lineage
    from sqlglot.optimizer.qualify import qualify
    from sqlglot.optimizer.scope import build_scope

    query = sqlglot.parse_one(sql, dialect=dialect)
    for column in list(query.find_all(exp.Column)):
        if column.name == PLACEHOLDER and not column.table:
            column.replace(exp.Null())  # a value from outside: it has no column
    names = Names(inputs, flatten(query))
    written = [item.alias_or_name for item in query.selects] if isinstance(query, exp.Query) else []
    schema: dict[str, object] = {names.flat(table): dict.fromkeys(columns, "text") for table, columns in inputs.items()}
    query = qualify(query, dialect=dialect, schema=schema, validate_qualify_columns=False, identify=False)
    scope = build_scope(query)
    if scope is None or not isinstance(query, exp.Query):
        return {}
    found: Lineage = {}
    for name in (item.alias_or_name for item in query.selects):
        if name and name != "*":
            node = lineage.lineage(name, query, schema, dialect=dialect, scope=scope, trim_selects=False, copy=False)
            sources = _sources(node, names)
            if sources is not None:
                found[names.output(name, written)] = sources
    return found


def flatten(query: Any) -> dict[str, str]:
    """Turn each schema.table into one quoted name, so that tables with and without schema fit one lookup; flat name -> as written."""
    from sqlglot import exp

    written: dict[str, str] = {}
    for table in query.find_all(exp.Table):
        if table.db:
            flat = f"{table.db}.{table.name}".casefold()
            written[flat] = f"{table.db}.{table.name}"
            if not table.alias:
                table.set("alias", exp.TableAlias(this=table.this.copy()))
            table.set("db", None)
            table.set("catalog", None)
            table.set("this", exp.to_identifier(flat, quoted=True))
    return written


class Names:
    """The way back from folded names to those that were written."""

    def __init__(self, inputs: Mapping[str, Sequence[str]], written: Mapping[str, str]) -> None:
        self.tables = {**written, **{table.casefold(): table for table in inputs}}
        self.columns = {(table.casefold(), column.casefold()): column for table, columns in inputs.items() for column in columns}

    def flat(self, table: str) -> str:
        return f'"{table.casefold()}"' if "." in table else table

    def source(self, table: str, column: str) -> tuple[str, str]:
        folded = table.casefold(), column.casefold()
        return self.tables.get(folded[0], table), self.columns.get(folded, column)

    def output(self, name: str, written: Iterable[str]) -> str:
        """A column as the SELECT spells it, or as the input that a `*` takes it from does."""
        spellings = (*written, *(column for (_, folded), column in self.columns.items() if folded == name.casefold()))
        return next((item for item in spellings if item.casefold() == name.casefold()), name)


def _last_name(name: str) -> str:
    """The column of `table.column`, either of which may be quoted, and hold dots and quotes then."""
    if quoted := re.search(r'"((?:[^"]|"")*)"$', name):
        return quoted[1].replace('""', '"')
    return name.rpartition(".")[2]


def _sources(node: Any, names: Names) -> list[tuple[str, str]] | None:
    """The table columns at the leaves below a lineage node; None when a leaf cannot be placed."""
    from sqlglot import exp

    found: set[tuple[str, str]] = set()
    for leaf in node.walk():
        if leaf.downstream:
            continue
        if isinstance(leaf.expression, exp.Table):
            found.add(names.source(leaf.expression.name, _last_name(leaf.name)))
        elif leaf.expression.find(exp.Column, exp.Star, exp.Placeholder) is not None:
            return None
    return sorted(found)
