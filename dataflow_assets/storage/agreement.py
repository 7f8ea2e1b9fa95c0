"""The columns of the data and those of a target table, brought to agree as the schema policy says.

Here: the decision, before a row is written: what the table gets, what is left out, what is refused, and the statements for it. Not
here: what one system says of its columns, when the statements run (`connectors`), the values on their way (`storage.feed`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import pyarrow as pa

from dataflow_assets.errors import ValueRefused, WriteFailed
from dataflow_assets.storage.feed import longest_texts
from dataflow_assets.storage.sql import Dialect, Statement, add_column, change_type
from dataflow_assets.storage.widening import widened
from dataflow_assets.tables import Published, PublishRequest, SchemaAction, SchemaChange, SchemaPolicy, WriteMode


@dataclass(frozen=True)
class HeldColumn:
    """A column of an existing table, as every system can describe it."""

    name: str
    declared: str = ""
    """Its type, spelled as the system spells it."""
    filled: bool = False
    """Something fills it where the data lacks it: a default, a counter, an expression."""
    nullable: bool = True
    writable: bool = True
    """The data may bring values for it; a computed column takes none."""
    kind: pa.DataType | None = None
    """The Arrow type that it holds, where the system can give it a wider one; None: its type stays."""
    longest: int | None = None
    """Characters of text that it holds, where the system can give it more."""


@dataclass(frozen=True)
class System:
    """What a system calls a type, and what it can change."""

    dialect: Dialect
    sql_type: Callable[[pa.DataType, HeldColumn], str]
    """The type of a column that is to hold an Arrow type: of a new one, or of one that is there. Raises ValueRefused."""
    widens: Callable[[pa.DataType, pa.DataType], bool] = lambda old, new: True
    """Whether a column can be changed from one type into a wider one, in place."""
    noun: str = "table"
    remedy: str = ""
    """What else than a policy makes the columns agree; default: ALTER TABLE."""


@dataclass(frozen=True)
class Agreement:
    """What is to be done. `schema` has the data's columns that go in; `added` and `widened` are name -> SQL type."""

    schema: pa.Schema
    added: Mapping[str, str]
    widened: Mapping[str, str]
    changes: tuple[SchemaChange, ...] = ()
    nullable: frozenset[str] = frozenset()
    """Which of the widened columns keep nulls."""

    @property
    def alters(self) -> bool:
        """Whether the table changes."""
        return bool(self.added or self.widened)

    def request(self, request: PublishRequest) -> PublishRequest:
        """The request for the columns that go in; its stage still has all of them."""
        return request if self.schema is request.schema else request.with_schema(self.schema)

    def statements(self, request: PublishRequest, dialect: Dialect) -> list[Statement]:
        """The statements that make the table agree; running them twice does no harm where the dialect can say so."""
        table = request.target.table
        adding = [add_column(dialect, table, name, kind) for name, kind in self.added.items()]
        return adding + [change_type(dialect, table, name, kind, null=name in self.nullable) for name, kind in self.widened.items()]

    def reported(self, published: Published) -> Published:
        """The result, with what the policy did."""
        return published if published.already else replace(published, schema_changes=self.changes)


def agree(
    request: PublishRequest,
    columns: Iterable[HeldColumn],
    system: System,
    *,
    lengths: Callable[[PublishRequest, Sequence[str]], Mapping[str, int]] = longest_texts,
) -> Agreement:
    """Decide. Raises WriteFailed, with the difference, where the policy or the table does not allow it.

    `lengths` measures the longest texts of some columns; it is asked only about those whose target is short of characters.
    """
    found = _Meeting(request, {column.name: column for column in columns}, system)
    found.refuse_what_no_policy_allows()
    policy = request.target.policy
    if policy is SchemaPolicy.FREEZE or (policy is SchemaPolicy.DISCARD and found.lacking):
        found.refuse()
    agreement = found.evolved(lengths) if policy is SchemaPolicy.EVOLVE else found.discarded()
    _require_keys(request, agreement.schema)
    return agreement


class _Meeting:
    """Data and table, side by side."""

    def __init__(self, request: PublishRequest, there: Mapping[str, HeldColumn], system: System) -> None:
        self._request, self._there, self._system = request, there, system
        names = set(request.schema.names)
        self.new = [item for item in request.schema if item.name not in there]
        self.lacking = [column for name, column in there.items() if name not in names and not column.filled and column.writable]

    @property
    def _table(self) -> str:
        return str(self._request.target.table)

    def _change(self, action: SchemaAction, column: str, before: str = "", after: str = "") -> SchemaChange:
        return SchemaChange(action, column, self._table, before, after)

    def refuse_what_no_policy_allows(self) -> None:
        names = self._request.schema.names
        computed = [f"computes column {name!r} itself" for name in names if name in self._there and not self._there[name].writable]
        if computed:
            hint = "leave it out in the query"
            raise WriteFailed(f"{self._system.noun} {self._table} {', '.join(computed)}", hint=hint)

    def refuse(self) -> None:
        """Raise unless both have the same columns."""
        if self.new or self.lacking:
            self._raise()

    def _raise(self, *, hint: str = "") -> NoReturn:
        said = [f"has no column {item.name!r}" for item in self.new]
        alone = " without a default" if self._system.noun == "table" else ""
        said += [f"has column {column.name!r}{alone}, which the data lacks" for column in self.lacking]
        raise WriteFailed(f"{self._system.noun} {self._table} {', '.join(said)}{self._difference()}", hint=hint or self._ways_out())

    def _difference(self) -> str:
        """The columns that differ, one a line."""
        rows = [("+", item.name, str(item.type), "only in the data") for item in self.new]
        rows += [("-", column.name, column.declared, f"only in the {self._system.noun}") for column in self.lacking]
        widths = [max(len(row[position]) for row in rows) for position in (1, 2)]
        return "".join(f"\n  {sign} {name:<{widths[0]}}  {kind:<{widths[1]}}  {where}" for sign, name, kind, where in rows)

    def _ways_out(self) -> str:
        altering = f"make the columns agree: in the query, or with ALTER TABLE {self._system.dialect.table(self._request.target.table)}"
        ways = [self._system.remedy or altering]
        if self._request.target.policy is not SchemaPolicy.EVOLVE and not self._needed:
            does = [*(["adds what is new"] if self.new else []), *(["leaves null what is not in the data"] if self.lacking else [])]
            ways.append(f"schema_policy: evolve {' and '.join(does)}")
        if self._request.target.policy is SchemaPolicy.FREEZE and self.new and not self.lacking:
            ways.append("schema_policy: discard leaves the new ones out")
        return "; ".join(ways)

    def discarded(self) -> Agreement:
        """The table as it is; what is new in the data stays out."""
        if not self.new:
            return Agreement(self._request.schema, {}, {})
        kept = [item for item in self._request.schema if item.name in self._there]
        if not kept:
            self._raise(hint="nothing would be left: see that the endpoint names the right table")
        changes = tuple(self._change("discarded", item.name, str(item.type)) for item in self.new)
        return Agreement(pa.schema(kept), {}, {}, changes)

    def evolved(self, lengths: Callable[[PublishRequest, Sequence[str]], Mapping[str, int]]) -> Agreement:
        """The table with what is new, and wide enough."""
        self._refuse_needed()
        self._refuse_namesakes()
        waiting = [item.name for item in self.new if pa.types.is_null(item.type) and item.name not in self._given]
        added = {item.name: self._new_type(item) for item in self.new if item.name not in waiting}
        wider = self._widened(lengths)
        changes = [self._change("added", name, after=kind) for name, kind in added.items()]
        changes += [self._change("widened", name, self._there[name].declared, kind) for name, kind in wider.items()]
        changes += [self._change("absent", column.name) for column in self.lacking]
        changes += [self._change("waiting", name) for name in waiting]
        schema = self._request.schema
        if waiting:
            schema = pa.schema([item for item in schema if item.name not in waiting])
        return Agreement(schema, added, wider, tuple(changes), frozenset(name for name in wider if self._there[name].nullable))

    @property
    def _given(self) -> Mapping[str, str]:
        """The types that the endpoint's `schema` says, which are nobody else's to choose."""
        given: Mapping[str, str] = self._request.target.options.columns
        return given

    def _new_type(self, item: pa.Field) -> str:
        return self._given.get(item.name) or self._system.sql_type(item.type, HeldColumn(item.name))

    @property
    def _needed(self) -> list[HeldColumn]:
        """The columns that cannot be left null: those that allow none, and of an upsert all, for it meets rows that have a value there."""
        upserts = self._request.target.mode is WriteMode.UPSERT
        return [column for column in self.lacking if upserts or not column.nullable]

    def _refuse_needed(self) -> None:
        if needed := self._needed:
            self.lacking, self.new = needed, []
            self._raise()

    def _refuse_namesakes(self) -> None:
        """Raise for a new column that differs from one of the table in capitals only, where the system takes both for the same."""
        if not self._system.dialect.folds_case:
            return
        there = {name.lower(): name for name in self._there}
        for item in self.new:
            if item.name.lower() in there:
                both = f"column {item.name!r} of the data and column {there[item.name.lower()]!r} of table {self._table}"
                raise WriteFailed(f"{both} differ in capitals only", hint="rename it in the query")

    def _widened(self, lengths: Callable[[PublishRequest, Sequence[str]], Mapping[str, int]]) -> dict[str, str]:
        open_ = [(item, self._there[item.name]) for item in self._request.schema if item.name in self._there]
        open_ = [(item, column) for item, column in open_ if column.name not in self._given]
        found = {column.name: kind for item, column in open_ if (kind := self._wider(item.type, column))}
        short = {column.name: column.longest for _, column in open_ if column.longest is not None}
        measured = lengths(self._request, list(short)) if short else {}
        for name, longest in short.items():
            if longest is not None and measured.get(name, 0) > longest:
                found[name] = self._system.sql_type(pa.string(), self._there[name])
        return found

    def _wider(self, incoming: pa.DataType, column: HeldColumn) -> str | None:
        """The SQL type that the column needs; None when it stays as it is, and each value decides."""
        kind = widened(column.kind, incoming) if column.kind is not None else None
        if column.kind is None or kind is None or not self._system.widens(column.kind, kind):
            return None
        try:
            return self._system.sql_type(kind, column)
        except ValueRefused:  # more digits than the system has
            return None


def _require_keys(request: PublishRequest, schema: pa.Schema) -> None:
    if absent := [key for key in request.target.keys if key not in schema.names]:
        raise WriteFailed(f"upsert key {absent[0]!r} is not a column of the data", hint=f"the columns are {', '.join(schema.names)}")
