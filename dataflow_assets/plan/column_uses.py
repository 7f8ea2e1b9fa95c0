"""Which columns of which tables a query names, and what it makes of them.

Here: one query, as far as sqlglot can tell from the text and the columns of its inputs. Not here: from which columns each output is
made (`plan.columns`), steps and pipelines (`plan.contract_flow`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dataflow_assets.plan.columns import Names, column_lineage, flatten
from dataflow_assets.plan.lineage import PLACEHOLDER, without_templates

_USERS = ("user", "current_user", "session_user", "current_role", "current_schema", "current_catalog")
_CLOCKS = ("current_date", "current_time", "current_timestamp", "localtime", "localtimestamp", "sysdate", "systimestamp")
_ROWS = ("rowid", "rownum", "ctid", "xmin", "xmax", "cmin", "cmax", "tableoid", "oid", "level", "filename", "file_row_number")
_PSEUDO = frozenset({*_USERS, *_CLOCKS, *_ROWS})
"""Bare names that a system knows in any table. Those with a `$`, and those that begin with `_`, are taken for such too."""


@dataclass(frozen=True)
class Mention:
    """A column of a table, named in a query. `line` counts from 1 within the SQL; 0 where sqlglot does not tell."""

    table: str
    column: str
    line: int = 0
    sure: bool = True
    """False for a bare name that may belong to several tables."""


@dataclass(frozen=True)
class Reading:
    """What a query reads and makes. Tables are named as in `inputs`."""

    outputs: Mapping[str, tuple[tuple[str, str], ...]]
    """Column -> the (table, column) pairs that it is made of; empty for constants, and for those in `unplaced`."""
    unplaced: frozenset[str]
    """Columns of which sqlglot cannot tell what they are made of."""
    complete: bool
    """Whether `outputs` are all its columns."""
    plain: Mapping[str, tuple[str, str]]
    """Columns that are a column of a table, unchanged."""
    casts: Mapping[str, str]
    """Columns whose type the query says: `cast(x as bigint)`."""
    mentions: tuple[Mention, ...]
    strangers: tuple[Mention, ...]
    """Columns named of a table whose known columns do not have them."""
    whole: frozenset[str]
    """Tables of which `*` takes every column."""


def read_query(sql: str, *, dialect: str | None, inputs: Mapping[str, Sequence[str]]) -> Reading | None:
    """What the query does with its inputs; None when sqlglot cannot read it.

    `inputs` maps a table, as the SQL names it, to its known columns; tables that it does not name stay unknown.
    """
    from sqlglot.errors import SqlglotError

    try:
        return _Query(without_templates(sql), dialect, inputs).reading(sql)
    except (SqlglotError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None


class _Query:
    def __init__(self, text: str, dialect: str | None, inputs: Mapping[str, Sequence[str]]) -> None:
        import sqlglot
        from sqlglot import exp
        from sqlglot.optimizer.qualify import qualify

        query = sqlglot.parse_one(text, dialect=dialect)
        if not isinstance(query, exp.Query):
            raise ValueError("no SELECT")
        for column in list(query.find_all(exp.Column)):
            if column.name == PLACEHOLDER and not column.table:
                column.replace(exp.Null())  # a value from outside: it has no column
        self.dialect, self.inputs = dialect, inputs
        # what a system calls an expression without alias is its own affair
        self.named = all(isinstance(item, exp.Alias | exp.Column | exp.Star) for item in query.selects)
        self.aliases = {item.alias.casefold() for item in query.find_all(exp.Alias)}
        self.names = Names(inputs, flatten(query))
        self.known = {table.casefold(): {column.casefold() for column in columns} for table, columns in inputs.items()}
        self.excluded: dict[Mention, None] = {}
        self.whole = frozenset(self._whole(query))
        self.strangers = dict.fromkeys(self._strangers(query))
        schema: dict[str, object] = {self.names.flat(table): dict.fromkeys(columns, "text") for table, columns in inputs.items()}
        self.query: Any = qualify(query, dialect=dialect, schema=schema, validate_qualify_columns=False, identify=False)

    def reading(self, sql: str) -> Reading:
        mentions, strangers = self._mentions()
        selects = [item.alias_or_name for item in self.query.selects]
        complete = self.named and all(name and name != "*" for name in selects)
        lineage = column_lineage(sql, dialect=self.dialect, inputs=self.inputs)
        folded = {name.casefold(): name for name in lineage}
        spelled = [folded.get(name.casefold(), name) for name in selects if name != "*"]
        outputs = {name: tuple(lineage.get(name, ())) for name in spelled}
        unplaced = frozenset(name for name in outputs if name not in lineage)
        plain, casts = self._plain(outputs)
        return Reading(outputs, unplaced, complete, plain, casts, mentions, strangers, self.whole)

    def _table(self, table: Any) -> str:
        """The table as `inputs` names it."""
        name = str(table.name)
        return self.names.tables.get(name.casefold(), name)

    def _whole(self, query: Any) -> Iterator[str]:
        from sqlglot import exp
        from sqlglot.optimizer.scope import traverse_scope

        for scope in traverse_scope(query.copy()):
            sources = {name: source for name, source in scope.sources.items() if isinstance(source, exp.Table)}
            for item in getattr(scope.expression, "selects", ()):
                star = item.this if isinstance(item, exp.Column) else item
                if isinstance(star, exp.Star):
                    owners = [source for name, source in sources.items() if item is star or item.table == name]
                    yield from (self._table(source) for source in owners)
                    self._exclude(star, [self._table(source) for source in owners])

    def _exclude(self, star: Any, tables: Sequence[str]) -> None:
        """`* exclude (x)` names x: without that column the query fails."""
        for item in star.args.get("except_") or star.args.get("except") or ():
            for table in tables:
                if item.name.casefold() in self.known.get(table.casefold(), ()):
                    self.excluded[Mention(*self._spelled(table, item.name), _line(item))] = None

    def _strangers(self, query: Any) -> Iterator[Mention]:
        """Columns written `table.column` that the table does not have. They are taken out, because sqlglot would go no further."""
        from sqlglot import exp
        from sqlglot.optimizer.scope import traverse_scope

        for scope in traverse_scope(query):
            sources = {name.casefold(): source for name, source in scope.sources.items() if isinstance(source, exp.Table)}
            for column in list(scope.columns):
                source = sources.get(column.table.casefold()) if column.table and not column.args.get("db") else None
                table = self._table(source) if source is not None else ""
                known = self.known.get(table.casefold())
                if known is not None and isinstance(column.this, exp.Identifier) and column.name.casefold() not in known:
                    yield Mention(table, column.name, _line(column))
                    column.replace(exp.alias_(exp.Null(), column.name) if isinstance(column.parent, exp.Select) else exp.Null())

    def _mentions(self) -> tuple[tuple[Mention, ...], tuple[Mention, ...]]:
        from sqlglot import exp
        from sqlglot.optimizer.scope import traverse_scope

        found = dict(self.excluded)
        strangers = dict(self.strangers)
        for scope in traverse_scope(self.query):
            for column in scope.columns:
                line = _line(column)
                source = scope.sources.get(column.table) if column.table else None
                if isinstance(source, exp.Table):
                    table, name = self.names.source(source.name, column.name)
                    known = self.known.get(table.casefold())
                    stranger = known is not None and name.casefold() not in known
                    (strangers if stranger else found)[Mention(table, name, line)] = None
                elif not column.table and not column.find_ancestor(exp.Lambda):
                    self._bare(scope, column, line, found, strangers)
            for row in scope.expression.find_all(exp.TableColumn):
                self._row(scope, row.name, found)
        return tuple(found), tuple(strangers)

    def _row(self, scope: Any, name: str, found: dict[Mention, None]) -> None:
        """`select o from orders as o` hands on whole rows: any column may be meant."""
        from sqlglot import exp

        source = scope.sources.get(name)
        if isinstance(source, exp.Table):
            table = self._table(source)
            found.update(
                dict.fromkeys(Mention(*self._spelled(table, column), sure=False) for column in self.known.get(table.casefold(), ()))
            )

    def _bare(self, scope: Any, column: Any, line: int, found: dict[Mention, None], strangers: dict[Mention, None]) -> None:
        """A name without table: one that only one table could have, and does not, is a stranger; else any that has it may be meant."""
        from sqlglot import exp

        name = str(column.name)
        tables = [self._table(source) for source in scope.sources.values() if isinstance(source, exp.Table)]
        having = [table for table in tables if name.casefold() in self.known.get(table.casefold(), ())]
        own = column.find_ancestor(exp.Select) is scope.expression and not scope.is_subquery
        alone = own and len(scope.sources) == 1 and len(tables) == 1
        for table in having:
            found[Mention(*self._spelled(table, name), line, sure=alone)] = None
        if name.casefold() in _PSEUDO or name.startswith("_") or "$" in name:
            return
        if not having and alone and tables[0].casefold() in self.known and name.casefold() not in self.aliases:
            strangers[Mention(tables[0], name, line)] = None

    def _spelled(self, table: str, column: str) -> tuple[str, str]:
        return table, self.names.columns.get((table.casefold(), column.casefold()), column)

    def _plain(self, outputs: Mapping[str, Any]) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
        """What the outermost SELECT passes on unchanged, and what it casts."""
        from sqlglot import exp
        from sqlglot.optimizer.scope import build_scope

        scope = build_scope(self.query)
        plain: dict[str, tuple[str, str]] = {}
        casts: dict[str, str] = {}
        if scope is None or not isinstance(self.query, exp.Select):
            return plain, casts
        folded = {name.casefold(): name for name in outputs}
        for item in self.query.selects:
            made, name = item.unalias(), folded.get(item.alias_or_name.casefold(), item.alias_or_name)
            if isinstance(made, exp.Cast):
                casts[name] = made.to.sql(dialect=self.dialect)
            elif isinstance(made, exp.Column) and isinstance(source := scope.sources.get(made.table), exp.Table):
                plain[name] = self.names.source(source.name, made.name)
        return plain, casts


def _line(column: Any) -> int:
    """The line of the SQL on which a column stands; 0 for one that nobody wrote, as those of `*`."""
    return int(getattr(column.this, "meta", {}).get("line", 0))
