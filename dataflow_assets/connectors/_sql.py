"""What the connectors of databases share: which table a step names, and reading a table or a query.

Here: the part between a step's options and a stream. Not here: any one system's statements (`_<system>_read`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from dataflow_assets.errors import ReadFailed
from dataflow_assets.tables import Published, PublishRequest, Query, ReadRequest, TableName, Target, WindowFilter

if TYPE_CHECKING:
    import pyarrow as pa

    from dataflow_assets.storage.digests import SqlRows

_Column = TypeVar("_Column")


@dataclass(frozen=True)
class Wanted:
    """What of a source is read."""

    columns: Sequence[str] | None = None
    """None: all."""
    window: WindowFilter | None = None
    batch_rows: int = 65_536
    types: Mapping[str, pa.DataType] | None = None
    """Column -> type that the user says, where the system takes that."""


def chosen(described: Mapping[str, _Column], columns: Sequence[str] | None, *, doing: str) -> list[_Column]:
    """The columns asked for, in that order. Raises ReadFailed for one that the source has not."""
    if missing := [name for name in columns or () if name not in described]:
        raise ReadFailed(f"{doing}: there is no column {missing[0]!r}", hint=f"the columns are {', '.join(described)}")
    return [described[name] for name in columns or described]


class SqlConnector(ABC):
    """Inherit, set `_name` to that of the connection, and say how a source is streamed."""

    _name: str

    def _table(self, options: Any) -> TableName:
        """The table that a step's options name."""
        return TableName(options.table, options.table_schema)

    @abstractmethod
    def _stream(self, source: TableName | Query, doing: str, wanted: Wanted, options: Any) -> AbstractContextManager[pa.RecordBatchReader]:
        """Stream a source from one snapshot. `options` are those of the step; None when a target is read back."""

    def source_table(self, options: Any) -> TableName | None:
        """The table that a source's options name; None for a query."""
        return self._table(options) if options.table else None

    def target_table(self, options: Any) -> TableName:
        """The table that an endpoint's options name."""
        return self._table(options)

    def _asked(self, request: ReadRequest) -> tuple[TableName | Query, str, Wanted]:
        """The source, what is done with it in words, and what of it is wanted."""
        table = self.source_table(request.options)
        source = table or request.query or Query.of(request.options.query or "")
        doing = f"reading {table or 'the query'} of connection {self._name!r}"
        return source, doing, Wanted(request.columns, request.window, request.batch_rows)

    @contextmanager
    def read(self, request: ReadRequest) -> Iterator[pa.RecordBatchReader]:
        """Stream a query or table from one snapshot."""
        with self._stream(*self._asked(request), request.options) as reader:
            yield reader

    @contextmanager
    def read_target(self, target: Target, window: WindowFilter | None) -> Iterator[pa.RecordBatchReader]:
        """Stream the target table."""
        with self._stream(target.table, f"reading {target.table}", Wanted(window=window), None) as reader:
            yield reader

    @abstractmethod
    def publish(self, request: PublishRequest) -> Published:
        """Write a window and its ledger row in one transaction, which `PublishRequest.replaces` undoes."""

    def retire(self, request: PublishRequest, *, rows: int) -> Published:
        """Take a window out of a target in that transaction."""
        return self.publish(replace(request, replaces=rows))


class ComparingConnector(SqlConnector):
    """A connector whose database makes tallies (`protocols.Reconciles`): say how a source is opened for that."""

    @abstractmethod
    def _compare(self, source: TableName | Query, doing: str, wanted: Wanted, options: Any) -> AbstractContextManager[SqlRows]:
        """What `_stream` would read, in one snapshot for as long as it is open."""

    @contextmanager
    def compare_source(self, request: ReadRequest) -> Iterator[SqlRows]:
        """A query or table as its own database counts and sums it up."""
        with self._compare(*self._asked(request), request.options) as rows:
            yield rows

    @contextmanager
    def compare_target(self, target: Target, window: WindowFilter | None) -> Iterator[SqlRows]:
        """The target table as its own database counts and sums it up."""
        with self._compare(target.table, f"comparing {target.table}", Wanted(window=window), None) as rows:
            yield rows
