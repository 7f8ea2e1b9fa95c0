"""One batch with what several rules ask of it, each worked out once.

Here: columns in their plain types, keys, lengths, bounds, conditions in SQL, and the part of a batch that a `where` leaves.
Not here: which rows break a rule (`checks._rows`), how a condition is evaluated (`checks._conditions`).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.checks._bounds import bounds_of, lengths_of
from dataflow_assets.checks._literals import key_type


class Whole:
    """A whole batch: its columns in their plain types, and its conditions.

    Parts refer to this and it refers to none of them: a circle would keep batches until Python looks for garbage.
    """

    def __init__(self, batch: pa.RecordBatch, conditions: Evaluates | None) -> None:
        self.batch, self.rows, self._conditions = batch, batch.num_rows, conditions
        self._columns: dict[str, pa.Array] = {}
        self._held: dict[str, pa.BooleanArray] | None = None

    def column(self, name: str) -> pa.Array:
        """The column in its plain type, see `plain_type`."""
        if name not in self._columns:
            self._columns[name] = plain(self.batch.column(name))
        return self._columns[name]

    def holds(self, condition: str) -> pa.BooleanArray:
        """The value of a condition for each row; null where SQL says so."""
        if self._held is None:
            assert self._conditions is not None, "no conditions were bound to this stream"
            self._held = self._conditions.of(self)
        return self._held[condition]


class Evaluates(Protocol):
    """Evaluates conditions in SQL."""

    def of(self, whole: Whole) -> dict[str, pa.BooleanArray]:
        """Condition -> its value for each row, null where SQL says so."""
        ...


class Facts:
    """One batch, seen by every rule."""

    def __init__(self, batch: pa.RecordBatch, conditions: Evaluates | None = None) -> None:
        self.batch = batch
        self.rows = batch.num_rows
        self._whole = Whole(batch, conditions)
        self._lengths: dict[str, pa.Array] = {}
        self._bounds: dict[tuple[str, bool], tuple[Any, Any, bool]] = {}
        self._parts: dict[str, Part | None] = {}

    def column(self, name: str) -> pa.Array:
        """The column in its plain type, see `plain_type`."""
        return self._whole.column(name)

    def table(self) -> pa.Table:
        """All columns, as they are."""
        return pa.Table.from_batches([self.batch])

    def keys(self, name: str) -> pa.Array:
        """The column in the type in which it is compared."""
        column = self.column(name)
        kind = key_type(column.type)
        return column if kind is None or kind == column.type else column.view(kind)

    def lengths(self, name: str) -> pa.Array:
        """The lengths of a column of text (characters) or bytes."""
        if name not in self._lengths:
            self._lengths[name] = lengths_of(self.column(name))
        return self._lengths[name]

    def bounds(self, name: str, *, of_length: bool = False) -> tuple[Any, Any, bool]:
        """Smallest and largest key or length (None without any), and whether there is a NaN."""
        if (name, of_length) not in self._bounds:
            self._bounds[name, of_length] = bounds_of(self.lengths(name) if of_length else self.keys(name))
        return self._bounds[name, of_length]

    def holds(self, condition: str) -> pa.BooleanArray:
        """The value of a condition for each row; null where SQL says so."""
        return self._whole.holds(condition)

    def limited(self, where: str) -> Facts:
        """The rows for which `where` is true; all of them without one."""
        if not where:
            return self
        if where not in self._parts:
            keep = pc.fill_null(self.holds(where), False)
            self._parts[where] = None if keep.true_count == self.rows else Part(self._whole, keep)
        return self._parts[where] or self

    def spread(self, mask: pa.BooleanArray) -> pa.BooleanArray:
        """A mask over these rows as one over the rows of the whole batch."""
        return mask


class Part(Facts):
    """Some rows of a batch; their columns are cut out when a rule asks for them."""

    def __init__(self, whole: Whole, keep: pa.BooleanArray) -> None:
        super().__init__(whole.batch)
        self.rows = keep.true_count
        self._whole, self._keep = whole, keep
        self._columns: dict[str, pa.Array] = {}

    def column(self, name: str) -> pa.Array:
        """See Facts."""
        if name not in self._columns:
            self._columns[name] = self._whole.column(name).filter(self._keep)
        return self._columns[name]

    def table(self) -> pa.Table:
        """See Facts."""
        return pa.Table.from_batches([self.batch]).filter(self._keep)

    def holds(self, condition: str) -> pa.BooleanArray:
        """See Facts."""
        return self._whole.holds(condition).filter(self._keep)

    def spread(self, mask: pa.BooleanArray) -> pa.BooleanArray:
        """See Facts."""
        places = np.flatnonzero(self._keep.to_numpy(zero_copy_only=False))
        whole = np.zeros(self._whole.rows, dtype=np.bool_)
        whole[places] = mask.to_numpy(zero_copy_only=False)
        return pa.array(whole)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type without dictionary, extension or view."""
    if isinstance(kind, pa.ExtensionType):
        return plain_type(kind.storage_type)
    if isinstance(kind, pa.DictionaryType):
        return plain_type(kind.value_type)
    return {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary(), pa.float16(): pa.float32()}.get(kind, kind)


def plain(column: pa.Array) -> pa.Array:
    """The values of `column` in `plain_type`."""
    if isinstance(column, pa.ExtensionArray):
        return plain(column.storage)
    if isinstance(column.type, pa.DictionaryType):
        return plain(column.dictionary_decode())
    kind = plain_type(column.type)
    return column if kind == column.type else column.cast(kind)
