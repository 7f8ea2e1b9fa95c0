"""From two checksums that differ to the rows that do.

Here: cutting the rows of both sides into segments by their keys, level by level, fetching the small ones that differ, and telling which
rows are missing, extra or changed. Not here: the queries (`storage.digests`), who asks (`execution.reconciling`).

A segment is a range of the keys' MD5, not of the keys: so text, dates and compound keys need no order that two systems share, and
segments are of about one size whatever the keys are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dataflow_assets.canonical import CanonicalColumn, Tally, value_of
from dataflow_assets.execution.comparing import Pair

SEGMENT_ROWS = 1_000
"""A segment this small is fetched."""
FETCH_ROWS = 8_000
"""At most about so many rows of one side are fetched at a time."""
MOST_SEGMENTS = 64
"""At most so many segments are looked into."""
_DIGITS, _DEEPEST = 3, 15
"""Hexadecimal digits by which one level is finer: 4,096 segments in one answer. Deeper than the last level only equal keys lie together."""

Row = tuple[str | None, ...]
Segments = dict[str, tuple[Tally, Tally]]


@dataclass(frozen=True)
class RowDifference:
    """One row that differs. `cells`: column -> value on the left and on the right, where they differ; `row`: the only one there is."""

    kind: Literal["missing", "extra", "changed"]
    """Missing on the right, extra on the right, or there on both sides with other values."""
    key: Mapping[str, Any]
    cells: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    row: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Differences:
    """The differing rows that were looked for. `complete`: there are no others."""

    rows: tuple[RowDifference, ...]
    complete: bool
    queries: int
    fetched: int
    """Rows of both sides that were fetched."""

    def count(self, kind: str) -> int:
        """How many of a kind."""
        return sum(row.kind == kind for row in self.rows)


def find_differences(pair: Pair, totals: tuple[Tally, Tally], *, keys: Sequence[str] = (), limit: int) -> Differences:
    """The differing rows, at least `limit` where there are so many. Without `keys` rows are told apart by all their columns.

    Raises KeyError for a key that is not compared.
    """
    return _Search(pair, pair.agreed.named(keys), limit).run(totals)


class _Search:
    def __init__(self, pair: Pair, keys: tuple[int, ...], limit: int) -> None:
        self._pair, self._keys, self._limit = pair, keys, limit
        self._columns = pair.agreed.columns
        self._queries = self._fetched = 0

    def run(self, totals: tuple[Tally, Tally]) -> Differences:
        suspects, depth, complete = {"": totals}, 0, True
        while depth < _DEEPEST and (largest := max(map(_rows, suspects.values()), default=0)) > SEGMENT_ROWS:
            within, complete = self._chosen(suspects, complete)
            depth = min(depth + _digits(largest), _DEEPEST)
            suspects = self._cut(depth, [] if within == [""] else within)
        within, complete = self._chosen(suspects, complete)
        found: list[RowDifference] = []
        for group in _groups({name: suspects[name] for name in within}):
            if len(found) >= self._limit:
                return Differences(tuple(found), False, self._queries, self._fetched)
            if sum(_rows(suspects[name]) for name in group) > FETCH_ROWS:
                complete = False  # equal keys, or equal rows, that no cut tells apart
                continue
            found += self._compare(group)
        return Differences(tuple(found), complete, self._queries, self._fetched)

    def _chosen(self, suspects: Segments, complete: bool) -> tuple[list[str], bool]:
        most = max(MOST_SEGMENTS, self._limit)
        return sorted(suspects)[:most], complete and len(suspects) <= most

    def _cut(self, depth: int, within: Sequence[str]) -> Segments:
        left, right = (side.tallies(self._columns, keys=self._keys, depth=depth, within=within) for side in self._sides())
        pairs = {name: (left.get(name, Tally()), right.get(name, Tally())) for name in left.keys() | right.keys()}
        return {name: both for name, both in pairs.items() if both[0] != both[1]}

    def _sides(self) -> Iterator[Any]:
        for side in (self._pair.left, self._pair.right):
            self._queries += 1
            yield side

    def _compare(self, group: Sequence[str]) -> Iterator[RowDifference]:
        within = () if group == [""] else group
        left, right = (Counter(side.rows(self._columns, keys=self._keys, within=within)) for side in self._sides())
        self._fetched += left.total() + right.total()
        yield from compare_rows(self._columns, self._keys, left, right)


def _rows(both: tuple[Tally, Tally]) -> int:
    return max(both[0].rows, both[1].rows)


def _digits(rows: int) -> int:
    """How many further digits make segments small enough, within what one answer may hold."""
    return next((digits for digits in range(1, _DIGITS) if rows / 16**digits <= SEGMENT_ROWS), _DIGITS)


def _groups(suspects: Segments) -> Iterator[list[str]]:
    """Segments that are fetched together."""
    held: list[str] = []
    size = 0
    for name, both in suspects.items():
        if held and size + _rows(both) > FETCH_ROWS:
            yield held
            held, size = [], 0
        held.append(name)
        size += _rows(both)
    if held:
        yield held


def compare_rows(
    columns: Sequence[CanonicalColumn], keys: Sequence[int], left: Counter[Row], right: Counter[Row]
) -> Iterator[RowDifference]:
    """What differs between two bags of rows; rows of one key are paired as far as there are pairs, the rest is missing or extra."""
    missing, extra = _by_key(left - right, keys), _by_key(right - left, keys)
    for key in sorted(missing.keys() | extra.keys(), key=repr):
        gone, come = missing.get(key, []), extra.get(key, [])
        both = min(len(gone), len(come)) if keys else 0
        for old, new in zip(gone[:both], come[:both], strict=True):
            cells = {
                column.name: (value_of(column.family, one), value_of(column.family, two))
                for column, one, two in zip(columns, old, new, strict=True)
                if one != two
            }
            yield RowDifference("changed", _named(columns, old, keys), cells)
        for row in gone[both:]:
            yield RowDifference("missing", _named(columns, row, keys), row=_named(columns, row, range(len(columns))))
        for row in come[both:]:
            yield RowDifference("extra", _named(columns, row, keys), row=_named(columns, row, range(len(columns))))


def _by_key(rows: Counter[Row], keys: Sequence[int]) -> dict[Row, list[Row]]:
    groups: dict[Row, list[Row]] = {}
    for row in rows.elements():
        groups.setdefault(tuple(row[position] for position in keys) if keys else row, []).append(row)
    return groups


def _named(columns: Sequence[CanonicalColumn], row: Row, positions: Sequence[int]) -> dict[str, Any]:
    return {columns[position].name: value_of(columns[position].family, row[position]) for position in positions}
