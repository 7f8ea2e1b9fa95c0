"""Seasons of rows: rows with the same values in the feature columns are compared with each other.

Here: numbering the seasons of batches, and which season speaks for a row. Not here: the comparison (`mad`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.errors import TransformFailed
from dataflow_assets.mad import Scores
from dataflow_assets.mad.formulas import Floats, Places

MOST_SEASONS = 10_000


class Seasons:
    """The seasons that some columns define together, numbered as they are met. A null is a season too."""

    def __init__(self, columns: Sequence[str], step: str) -> None:
        self._columns, self._step = columns, step
        self._known = pa.array([], pa.string())

    def number(self, rows: pa.RecordBatch) -> tuple[Places, pa.Array]:
        """The number and the name, such as "hour=8, weekday=6", of each row's season. Raises TransformFailed beyond MOST_SEASONS."""
        texts = [pc.binary_join_element_wise(f"{name}=", _text(rows.column(name)), "") for name in self._columns]
        names = pc.binary_join_element_wise(*texts, ", ")
        seen = names.unique()
        self._known = pa.concat_arrays([self._known, seen.filter(pc.invert(pc.is_in(seen, value_set=self._known)))])
        if len(self._known) > MOST_SEASONS:
            raise TransformFailed(
                f"step {self._step}: feature_columns {', '.join(self._columns)} have more than {MOST_SEASONS:,} different values",
                hint="a season must come back: use the hour, the weekday or the month of a time, not the time",
            )
        return pc.index_in(names, value_set=self._known).to_numpy().astype(np.int64), names


def _text(column: pa.Array) -> pa.Array:
    plain = column.dictionary_decode() if isinstance(column.type, pa.DictionaryType) else column
    return pc.fill_null(plain.cast(pa.string()), "null")


def least_unusual(found: Sequence[Scores], names: Sequence[pa.Array], values: Floats) -> tuple[Scores, pa.Array]:
    """For each row the season that finds it least unusual, and its name: what one season explains is no anomaly.

    A season that has too few rows yet might explain it, so the row is not judged. One of constant values cannot say how far another value
    is from them, and speaks only where there is no other.
    """
    best, which = found[0], np.zeros(len(values), dtype=np.int64)
    for number, other in enumerate(found[1:], 1):
        one_rank, best_rank = _rank(other, values), _rank(best, values)
        better = (one_rank < best_rank) | ((one_rank == best_rank) & (other.score < best.score))
        which[better] = number
        best = Scores(*(np.where(better, getattr(other, item.name), getattr(best, item.name)) for item in fields(Scores)))
    return best, pc.choose(pa.array(which), *names)


def _rank(scores: Scores, values: Floats) -> Places:
    can_say = (scores.std > 0) | (values == scores.mean)
    return np.where(scores.ready, np.where(can_say, 1, 2), 0)
