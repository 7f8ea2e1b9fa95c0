"""The order of rows: values that only rise, or only fall, over the whole stream or within each group.

Here: the test, which remembers the last value, of each group. Not here: counting and showing the rows (`checks._rows`).

Each row is compared with the one before it (of its group) that has a value: rows without one are left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dataflow_assets.batches import hash_column, hash_rows
from dataflow_assets.byte_hashes import Hashes
from dataflow_assets.checks._facts import Facts, plain_type
from dataflow_assets.checks._literals import Unfit, key_type
from dataflow_assets.checks._row_tests import Stateless
from dataflow_assets.checks._rules import Rule
from dataflow_assets.errors import DataflowError

MOST_GROUPS = 1_000_000
_WRONG = {
    "increasing": pc.less,
    "strictly_increasing": pc.less_equal,
    "decreasing": pc.greater,
    "strictly_decreasing": pc.greater_equal,
}


class Monotonic(Stateless):
    """Values in order."""

    def __init__(self, rule: Rule, kind: pa.DataType) -> None:
        self.column, self.order, self.groups = rule.columns[0], rule.pattern, rule.group_by
        key = key_type(plain_type(kind))
        if key is None:
            raise Unfit(f"values of type {kind} have no order")
        self.kind = key
        self.restart()

    def restart(self) -> None:
        """See RowTest."""
        self._known: Hashes = np.empty(0, dtype=np.uint64)
        self._last = pa.array([], self.kind)

    def failing(self, facts: Facts) -> pa.BooleanArray | None:
        """See RowTest."""
        values = facts.keys(self.column)
        places = np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False)) if values.null_count else np.arange(len(values))
        if not len(places):
            return None
        values = values.drop_null()
        if self.groups:
            hashes = self._hashes(facts)[places]
            order = np.argsort(hashes, kind="stable")
            wrong = np.empty(len(order), dtype=np.bool_)
            wrong[order] = self._wrong(values.take(pa.array(order)), hashes[order])
        else:
            wrong = self._wrong(values, np.zeros(len(values), dtype=np.uint64))
        if not wrong.any():
            return None
        mask = np.zeros(facts.rows, dtype=np.bool_)
        mask[places[wrong]] = True
        return pa.array(mask)

    def _wrong(self, values: pa.Array, groups: Hashes) -> NDArray[np.bool_]:
        """Which values are out of order after the one before; equal groups stand together, in the order of their rows."""
        wrong = np.zeros(len(values), dtype=np.bool_)
        wrong[1:] = self._compared(values.slice(1), values.slice(0, len(values) - 1))
        first = np.concatenate(([True], groups[1:] != groups[:-1]))
        wrong[first] = False
        starts = np.flatnonzero(first)
        found = groups[starts]
        numbers = np.searchsorted(self._known, found)
        known = numbers < len(self._known)
        known[known] = self._known[numbers[known]] == found[known]
        if known.any():
            before = self._last.take(pa.array(numbers[known]))
            wrong[starts[known]] = self._compared(values.take(pa.array(starts[known])), before)
        self._remember(found, values.take(pa.array(np.append(starts[1:], len(values)) - 1)), known)
        return wrong

    def _compared(self, values: pa.Array, before: pa.Array) -> NDArray[np.bool_]:
        compared: NDArray[np.bool_] = _WRONG[self.order](values, before).to_numpy(zero_copy_only=False)
        return compared

    def _remember(self, groups: Hashes, last: pa.Array, known: NDArray[np.bool_]) -> None:
        """Keep the last value of each group, sorted by the group's hash."""
        if not known.all() and len(self._known) + int((~known).sum()) > MOST_GROUPS:
            raise DataflowError(
                f"{self.column}: more than {MOST_GROUPS:,} groups of {', '.join(self.groups)}", hint="check the order in a sql step instead"
            )
        stays = ~np.isin(self._known, groups, assume_unique=True)
        hashes = np.concatenate((self._known[stays], groups))
        values = pa.concat_arrays([self._last.filter(pa.array(stays)), last])
        order = np.argsort(hashes, kind="stable")
        self._known, self._last = hashes[order], values.take(pa.array(order))

    def _hashes(self, facts: Facts) -> Hashes:
        columns = [facts.column(name) for name in self.groups]
        if len(columns) == 1:
            return hash_column(columns[0])
        return hash_rows(pa.record_batch(columns, names=[str(number) for number in range(len(columns))]))

    def observed(self) -> dict[str, Any]:
        """See RowTest."""
        return {"groups": len(self._known)} if self.groups else {}

    def _where(self) -> str:
        return f" within each {', '.join(self.groups)}" if self.groups else ""

    def complaint(self) -> str:
        """See RowTest."""
        return f"are not {self.order.replace('_', ' ')} after the row before{self._where()}"

    def praise(self) -> str:
        """See RowTest."""
        return f"{self.order.replace('_', ' ')}{self._where()}"
