"""Which values were seen, and how often.

Here: counting equal rows of a few columns, and keeping the most frequent ones of a stream. Not here: which rows are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dataflow_assets.checks._facts import Facts
from dataflow_assets.checks._literals import jsonable

FREQUENT = 5
_HELD_VALUES, _KEPT_VALUES = 4_000, 1_000
COUNT = "n"


def tally(rows: pa.Table) -> pa.Table:
    """Each different row once, where it first stood, with the sum of its counts, which the last column holds.

    Through dictionaries: Arrow's own grouping takes 30 times as long on doubles of few digits, whose hashes collide (measured).
    """
    if rows.num_rows == 0:
        return rows
    codes, different = np.zeros(rows.num_rows, dtype=np.int64), 1
    for column in rows.columns[:-1]:
        encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
        found = encoded.indices.to_numpy(zero_copy_only=False)
        if different == 1:
            codes, different = found, len(encoded.dictionary)
        else:  # made small again, so that no number of columns is too large
            known, codes = np.unique(codes.astype(np.int64) * len(encoded.dictionary) + found, return_inverse=True)
            different = len(known)
    first = np.empty(different, dtype=np.int64)
    first[codes[::-1]] = np.arange(rows.num_rows)[::-1]  # of several writes to one place the last one stays
    counts = np.bincount(codes, weights=rows.columns[-1].to_numpy(), minlength=different).astype(np.int64)
    order = np.argsort(first)
    kept = rows.take(pa.array(first[order]))
    return kept.set_column(rows.num_columns - 1, rows.column_names[-1], pa.array(counts[order]))


class Frequent:
    """The values, of one column or of several together, that were seen most often; beyond some thousand different ones about so."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self._names = [*(str(number) for number in range(len(columns))), COUNT]
        self._held: pa.Table | None = None

    def add(self, facts: Facts, mask: pa.BooleanArray) -> None:
        """Count the values of the rows where `mask` is true."""
        arrays = [facts.column(name).filter(mask) for name in self.columns]
        if arrays and not any(pa.types.is_nested(array.type) or pa.types.is_null(array.type) for array in arrays):
            ones = pa.array(np.ones(len(arrays[0]), dtype=np.int64))
            self.count(pa.Table.from_arrays([*arrays, ones], names=self._names))

    def count(self, rows: pa.Table) -> None:
        """Add values with their counts in the last column."""
        held = tally(rows.rename_columns(self._names))
        if self._held is not None:
            held = tally(pa.concat_tables([self._held, held]))
        self._held = held if held.num_rows <= _HELD_VALUES else _top(held, _KEPT_VALUES)

    def shown(self) -> dict[str, Any]:
        """The first few, the most frequent first, as an entry of the metadata; none without any."""
        if self._held is None or not self._held.num_rows:
            return {}
        top, found = _top(self._held, FREQUENT), []
        for number in range(top.num_rows):
            values = {name: jsonable(top.column(place)[number]) for place, name in enumerate(self.columns)}
            found.append({"value": values if len(values) > 1 else next(iter(values.values())), "rows": top.column(COUNT)[number].as_py()})
        return {"frequent_values": found}


def _top(held: pa.Table, number: int) -> pa.Table:
    return held.take(pa.array(np.argsort(-held[COUNT].to_numpy(), kind="stable")[:number]))
