"""One window into a database that takes rows as parameters: delete, insert, count, ledger, within the caller's transaction.

Here: the order of the statements, and what is refused before the first of them. Not here: beginning and committing, and how one
database says what its columns are (`_sqlite_publish`, `_sqlalchemy_publish`).
"""

from __future__ import annotations

import abc
import itertools
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from dataflow_assets.errors import WriteFailed
from dataflow_assets.failpoints import failpoint
from dataflow_assets.storage import ledger, sql
from dataflow_assets.storage.agreement import Agreement, HeldColumn, System, agree
from dataflow_assets.storage.feed import Feed, Route, WindowBounds, require_replaced, require_target_rows, window_bounds
from dataflow_assets.storage.registry import Registry
from dataflow_assets.storage.sql import Dialect, Statement
from dataflow_assets.tables import Published, PublishRequest, TableName, Target, WriteMode

FEED_ROWS = 8_192
"""Rows that are Python objects at one time."""
Row = Sequence[Any]


@dataclass(frozen=True)
class TargetColumn:
    """A column of an existing table; `declared` is its type as the database tells it."""

    name: str
    declared: Any
    required: bool
    """Nothing fills it where the data lacks it."""
    writable: bool = True
    nullable: bool = True
    shown: str = ""
    """The declared type as text."""
    kind: pa.DataType | None = None
    """The Arrow type that it holds, where the database can give it a wider one."""
    longest: int | None = None
    """Characters that it holds, where the database can give it more."""

    @property
    def held(self) -> HeldColumn:
        """The column, as the agreement with the data wants it."""
        return HeldColumn(self.name, self.shown, not self.required, self.nullable, self.writable, self.kind, self.longest)


class RowPublication(abc.ABC):
    """One publish under way; its public methods are called in their order in this file, those of the subclass by them."""

    parameters: int = 32_000
    """Placeholders that one statement may have."""
    rows_at_once: int = 100
    """Rows of one statement; with SQLite 100 are 1.3 times as fast as one, and more gain nothing (measured)."""

    agreement: Agreement

    def __init__(self, dialect: Dialect, request: PublishRequest, registry: Registry) -> None:
        self.dialect, self.request, self.registry = dialect, request, registry
        self.created = False

    # -- what a database brings

    @abc.abstractmethod
    def fetch(self, statement: Statement) -> list[tuple[Any, ...]]:
        """Run a statement; its rows, none when it returns none."""

    @abc.abstractmethod
    def affected(self, statement: Statement) -> int:
        """Run a statement; how many rows it touched, negative when the driver does not tell."""

    @abc.abstractmethod
    def columns(self) -> dict[str, TargetColumn]:
        """The columns of the target table, none when it is missing."""

    @abc.abstractmethod
    def sql_type(self, kind: pa.DataType, *, name: str) -> str:
        """The column type in a table made from the data. Raises ValueRefused."""

    @abc.abstractmethod
    def route(self, kind: pa.DataType, column: TargetColumn) -> Route:
        """The way of a column of Arrow type `kind` into `column`. Raises ValueRefused."""

    @abc.abstractmethod
    def values(self, fitted: pa.Array, column: TargetColumn) -> list[Any]:
        """A fitted column as the driver's parameters. Raises ValueRefused for values that the column would change."""

    @abc.abstractmethod
    def window(self, bounds: WindowBounds) -> Statement:
        """The predicate of the window's rows in the target. Raises WriteFailed where it could not tell them for sure."""

    @abc.abstractmethod
    def unique_keys(self) -> list[set[str]]:
        """The column sets of the table's unique indexes."""

    # -- the publish

    @property
    def table(self) -> TableName:
        """The target table."""
        return self.request.target.table

    @property
    def _target(self) -> Target:
        return self.request.target

    def ledger_row(self) -> ledger.LedgerRow | None:
        """What the ledger says of the unit; a publish into a table that is gone counts for nothing."""
        rows = self.fetch(ledger.fetch_unit(self.dialect, self._target, self.request.claim.unit))
        row = ledger.ledger_row(rows[0]) if rows else None
        return replace(row, entry=None) if row and row.entry and not self.columns() else row

    def create(self) -> None:
        """Create the table, then forget what was published into an older one of its name. Fails when it is there by now."""
        statement = self.create_table()
        if not self._target.options.auto_create:
            raise WriteFailed(f"table {self.table} does not exist and auto_create is off", hint=f"{statement.text};")
        self.affected(statement)
        if self._target.mode is WriteMode.UPSERT:
            self.affected(self._index(self._target.keys, unique=True))
        if self._target.mode is WriteMode.REPLACE_WINDOW and self._target.window_column in self.request.schema.names:
            self.affected(self._index([str(self._target.window_column)]))
        self.affected(ledger.forget_publications(self.dialect, self.table))
        self.created = True

    def create_table(self) -> Statement:
        """CREATE TABLE from `schema` where given, else from the data."""
        given: Mapping[str, str] = self._target.options.columns
        inferred = {item.name: self.sql_type(item.type, name=item.name) for item in self.request.schema if item.name not in given}
        made = sql.create_table(self.dialect, self.table, {**given, **inferred})
        return Statement(made.text.replace(" IF NOT EXISTS", "", 1))

    def _index(self, columns: Sequence[str], *, unique: bool = False) -> Statement:
        """An index with a name of its own, since not every database picks one; a renamed table keeps the name that it had."""
        return sql.create_index(self.dialect, self.table, columns, name=f"dataflow_{uuid.uuid4().hex[:12]}", unique=unique)

    def agree(self) -> None:
        """Change the table where the schema policy says so, unless the ledger has decided already. Called once, when it is there."""
        system = System(self.dialect, lambda kind, column: self.sql_type(kind, name=column.name))
        held = [column.held for column in self._found.values()]
        self.agreement = agree(self.request, held, system)
        if self.agreement.alters and ledger.settled(self.ledger_row(), self.request) is None:
            for statement in self.agreement.statements(self.request, self.dialect):
                self.affected(statement)
            del self._found
            failpoint("publish.after_alter")
        self.request = self.agreement.request(self.request)

    def write(self) -> Published:
        """Delete, insert and count."""
        self._require_unique()
        predicate, mode, deleted = self._predicate, self._target.mode, None
        if mode in {WriteMode.REPLACE, WriteMode.REPLACE_WINDOW}:
            deleted = self._delete(predicate)
        require_replaced(deleted, self.request)
        failpoint("publish.after_delete")
        written = self._insert()
        if mode in {WriteMode.REPLACE, WriteMode.REPLACE_WINDOW}:
            ((written,),) = self.fetch(sql.count_rows(self.dialect, self.table, predicate))
        if mode is not WriteMode.UPSERT:
            require_target_rows(int(written), self.request)
        done = Published(self.request.rows, self.request.claim.generation, deleted=deleted, target_rows=int(written))
        return self.agreement.reported(done)

    def _delete(self, predicate: Statement | None) -> int:
        """Delete, and say how many rows; a driver that does not tell is asked before where that matters."""
        before = 0
        if self.request.replaces is not None:
            ((before,),) = self.fetch(sql.count_rows(self.dialect, self.table, predicate))
        deleted = self.affected(sql.delete_rows(self.dialect, self.table, predicate))
        return deleted if deleted >= 0 else int(before)

    def record(self) -> None:
        """Write the ledger row, unless a newer claim came meanwhile."""
        self.registry.keep(self.request, [column.held for column in self._found.values()], self.dialect, self.fetch)
        self.affected(ledger.publish_unit(self.dialect, self.request))
        ledger.confirm(self.ledger_row(), self.request)

    @cached_property
    def _found(self) -> dict[str, TargetColumn]:
        return self.columns()

    def _require_unique(self) -> None:
        keys = self._target.keys
        if self._target.mode is WriteMode.UPSERT and not any(found == set(keys) for found in self.unique_keys()):
            hint = f"{self._index(keys, unique=True).text};"
            raise WriteFailed(f"table {self.table} has no unique index on the upsert keys {', '.join(keys)}", hint=hint)

    @cached_property
    def _routes(self) -> dict[str, Route]:
        return {item.name: self.route(item.type, self._found[item.name]) for item in self.request.schema}

    @cached_property
    def _bounds(self) -> WindowBounds | None:
        return window_bounds(self.request, self._routes)

    @cached_property
    def _predicate(self) -> Statement | None:
        return self.window(self._bounds) if self._bounds is not None else None

    def _insert(self) -> int:
        """Insert the stage, or upsert it in its order; how many rows the database says it took."""
        feed = Feed(self.request, self._routes, self._bounds, batch_rows=FEED_ROWS, ordered=False)
        taken = 0
        try:
            with feed.reader() as reader:
                for batch in reader:
                    taken += sum(self.take(rows) for rows in self._chunks(batch))
        except Exception as error:
            feed.raise_own(error)
            raise
        feed.require_all()
        return taken

    def _chunks(self, batch: pa.RecordBatch) -> Iterator[Sequence[Row]]:
        """The rows of a batch, as many at a time as one statement takes; of rows with equal keys the last."""
        columns = [self.values(array, self._found[name]) for name, array in zip(self._routes, batch.columns, strict=True)]
        step = max(min(self.rows_at_once, self.parameters // len(columns)), 1)
        positions = [list(self._routes).index(key) for key in self._target.keys] if self._target.mode is WriteMode.UPSERT else []
        for start in range(0, batch.num_rows, step):
            piece = [column[start : start + step] for column in columns]
            rows = list(zip(*piece, strict=True))
            if positions:
                keys = zip(*(piece[position] for position in positions), strict=True)
                rows = list(dict(zip(keys, rows, strict=True)).values())
            yield rows

    def take(self, rows: Sequence[Row]) -> int:
        """Write rows with one statement; how many the database says it took."""
        values = tuple(itertools.chain.from_iterable(rows))
        done = self.affected(Statement(self.insert_text(len(rows)), values))
        return len(rows) if done < 0 else done

    def insert_text(self, rows: int) -> str:
        """The INSERT of so many rows, or the upsert."""
        if rows not in self._texts:
            keys = self._target.keys if self._target.mode is WriteMode.UPSERT else None
            self._texts[rows] = sql.insert_rows(self.dialect, self.table, list(self._routes), rows=rows, keys=keys)
        return self._texts[rows]

    @cached_property
    def _texts(self) -> dict[int, str]:
        """The INSERT by its number of rows: mostly two, of the full size and of the rest."""
        return {}
