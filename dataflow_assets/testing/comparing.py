"""Rows found beside rows expected: what is missing, unexpected, changed.

Here: comparing values strictly by kind, matching rows that differ, and the lines that show it. Not here: where the rows come from.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa

from dataflow_assets.storage.casts import plain_type
from dataflow_assets.testing.values import Unfit, as_kind, kind_in_words

SHOWN = 10
"""How many rows of each kind are shown."""
_MATCHED = 200
"""Up to so many rows on either side, the nearest are looked for."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Foreign:
    """An expected value that no value of the column's type can equal."""

    value: Any


@dataclass(frozen=True)
class Changed:
    """One row with cells that differ: column -> (expected, found). `label` says which row."""

    label: str
    cells: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Difference:
    """All that differs between the rows expected and those found; empty when `same`."""

    expected: int
    found: int
    columns: tuple[str, ...] = ()
    """Columns that only one side has, or of another type, a sentence each."""
    missing: tuple[Row, ...] = ()
    unexpected: tuple[Row, ...] = ()
    changed: tuple[Changed, ...] = ()
    order: str = ""
    """The first row that stands elsewhere, when that is all."""
    types: Mapping[str, pa.DataType] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.columns or self.missing or self.unexpected or self.changed or self.order)

    def lines(self) -> list[str]:
        """The difference for a reader."""
        counts = {"missing": len(self.missing), "unexpected": len(self.unexpected), "changed": len(self.changed)}
        said = [f"{count:,} {'row' if count == 1 else 'rows'} {kind}" for kind, count in counts.items() if count]
        lines = [f"{', '.join(said)} (expected {self.expected:,}, found {self.found:,})"] if said else []
        lines += [f"  {text}" for text in self.columns]
        lines += [f"  {self.order}"] if self.order else []
        for changed in self.changed[:SHOWN]:
            lines.append(f"  changed {changed.label}")
            lines += [f"      {name}: {self._cell(name, *cells)}" for name, cells in changed.cells.items()]
        lines += _more(self.changed)
        for title, rows in (("missing", self.missing), ("unexpected", self.unexpected)):
            lines += [f"  {title} {shown(row)}" for row in rows[:SHOWN]] + _more(rows)
        return lines

    def _cell(self, name: str, expected: Any, found: Any) -> str:
        if isinstance(expected, Foreign) and found is not None:
            kind = self.types.get(name)
            return f"expected {value_text(expected.value)} ({kind_in_words(expected.value)}), found {value_text(found)} ({kind})"
        return f"expected {value_text(expected)}, found {value_text(found)}"


def compare(
    found: pa.Table,
    expected: Sequence[Row],
    *,
    columns: Sequence[str] | None = None,
    keys: Sequence[str] = (),
    ordered: bool = False,
    approx: float = 0.0,
    from_text: bool = False,
) -> Difference:
    """Compare all rows, in their order only when `ordered`; `columns` alone when given.

    An expected value that can be of its column's type is taken as that: text for a date or decimal, a whole number for any number.
    Text is no whole number, float or boolean unless all values come `from_text`.
    """
    written = list(dict.fromkeys(name for row in expected for name in row))
    names = list(columns) if columns is not None else list(dict.fromkeys([*found.column_names, *written]))
    types = {name: plain_type(found.schema.field(name).type) for name in names if name in found.column_names}
    lost = (
        []
        if not expected and columns is None
        else [f"column {name!r} is expected, but was not found" for name in names if name not in types]
    )
    extra = [name for name in types if expected and columns is None and name not in written]
    odd = [f"column {name!r} was found, but is not expected" for name in extra]
    shared = [name for name in types if name not in extra]
    rows = found.select(shared).to_pylist() if found.num_rows else []
    wanted = [{name: _typed(row.get(name), types[name], from_text=from_text) for name in shared} for row in expected]
    base = Difference(len(expected), found.num_rows, columns=(*lost, *odd), types=types)
    if not shared:
        return _unmatched(base, wanted, rows) if len(wanted) != len(rows) else base
    usable = keys if keys and set(keys) <= set(shared) else ()
    return (
        _Matching(base, shared, usable, approx).ordered(wanted, rows)
        if ordered
        else _Matching(base, shared, usable, approx).free(wanted, rows)
    )


def _unmatched(base: Difference, expected: Sequence[Row], found: Sequence[Row]) -> Difference:
    return Difference(base.expected, base.found, base.columns, tuple(expected), tuple(found), types=base.types)


def _typed(value: Any, kind: pa.DataType, *, from_text: bool) -> Any:
    if isinstance(value, str) and not from_text and (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        return Foreign(value)
    try:
        return as_kind(value, kind)
    except Unfit:
        return Foreign(value)


@dataclass(frozen=True)
class _Matching:
    """How rows are matched."""

    base: Difference
    names: Sequence[str]
    keys: Sequence[str]
    approx: float

    def ordered(self, expected: list[dict[str, Any]], found: list[dict[str, Any]]) -> Difference:
        pairs = list(zip(expected, found, strict=False))
        different = [number for number, (want, got) in enumerate(pairs) if self._differing(want, got)]
        if not different and len(expected) == len(found):
            return self.base
        free = self.free(expected, found)
        if different and not (free.missing or free.unexpected or free.changed):
            number = different[0]
            order = f"the same rows in another order: row {number + 1} is {shown(found[number])}, expected {shown(expected[number])}"
            return Difference(self.base.expected, self.base.found, self.base.columns, order=order, types=self.base.types)
        return free

    def free(self, expected: list[dict[str, Any]], found: list[dict[str, Any]]) -> Difference:
        missing, unexpected = _without_equal(expected, found, self.names)
        changed = []
        for want, got in [*self._by_keys(missing, unexpected), *self._nearest(missing, unexpected)]:
            if cells := self._differing(want, got):
                changed.append(Changed(self._label(got, cells), cells))
        base = self.base
        return Difference(
            base.expected, base.found, base.columns, tuple(map(_bare, missing)), tuple(unexpected), tuple(changed), types=base.types
        )

    def _by_keys(self, missing: list[dict[str, Any]], unexpected: list[dict[str, Any]]) -> list[tuple[Row, Row]]:
        """Pairs of rows with equal keys, taken out of both lists."""
        if not self.keys:
            return []
        waiting = defaultdict(list)
        for row in unexpected:
            waiting[_canonical(row, self.keys)].append(row)
        pairs: list[tuple[Row, Row]] = []
        for row in missing:
            if same := waiting.get(_canonical(row, self.keys)):
                pairs.append((row, same.pop(0)))
        taken = {id(row) for pair in pairs for row in pair}
        missing[:] = [row for row in missing if id(row) not in taken]
        unexpected[:] = [row for row in unexpected if id(row) not in taken]
        return pairs

    def _nearest(self, missing: list[dict[str, Any]], unexpected: list[dict[str, Any]]) -> list[tuple[Row, Row]]:
        """Pairs of rows that share at least half of their cells, the nearest first, taken out of both lists."""
        if len(missing) > _MATCHED or len(unexpected) > _MATCHED or (self.keys and not self.approx):
            return []
        pairs_of = itertools.product(enumerate(missing), enumerate(unexpected))
        costs = [(self._distance(want, got), i, j) for (i, want), (j, got) in pairs_of]
        taken_i: set[int] = set()
        taken_j: set[int] = set()
        pairs: list[tuple[Row, Row]] = []
        for cost, i, j in sorted(costs):
            if cost * 2 <= len(self.names) and cost < len(self.names) and i not in taken_i and j not in taken_j:
                taken_i.add(i)
                taken_j.add(j)
                pairs.append((missing[i], unexpected[j]))
        missing[:] = [row for i, row in enumerate(missing) if i not in taken_i]
        unexpected[:] = [row for j, row in enumerate(unexpected) if j not in taken_j]
        return pairs

    def _distance(self, expected: Row, found: Row) -> float:
        """How many cells differ; one that differs by its type alone counts little."""
        return sum(0.25 if _looks_alike(*cells) else 1.0 for cells in self._differing(expected, found).values())

    def _differing(self, expected: Row, found: Row) -> dict[str, tuple[Any, Any]]:
        return {name: (expected[name], found[name]) for name in self.names if not equal(expected[name], found[name], approx=self.approx)}

    def _label(self, row: Row, cells: Mapping[str, Any]) -> str:
        """The keys of the row, else its first cells that do not differ."""
        named = list(self.keys) or [name for name in self.names if name not in cells][:4]
        return shown({name: row[name] for name in named})


def _looks_alike(expected: Any, found: Any) -> bool:
    return isinstance(expected, Foreign) and found is not None and (str(expected.value) == str(found) or bool(expected.value == found))


def equal(expected: Any, found: Any, *, approx: float = 0.0) -> bool:
    """Whether two values are the same: NaN equals NaN, numbers may be `approx` apart."""
    if isinstance(expected, Foreign) or expected is None or found is None:
        return expected is None and found is None
    if isinstance(expected, float) and isinstance(found, float) and math.isnan(expected) and math.isnan(found):
        return True
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(equal(a, b, approx=approx) for a, b in zip(expected, found, strict=True))
    if isinstance(expected, dict) and isinstance(found, dict):
        return expected.keys() == found.keys() and all(equal(expected[key], found[key], approx=approx) for key in expected)
    if approx and isinstance(expected, float | Decimal) and isinstance(found, float | Decimal):
        return math.isclose(expected, found, rel_tol=approx, abs_tol=approx)
    return bool(expected == found)


def _without_equal(
    expected: list[dict[str, Any]], found: list[dict[str, Any]], names: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Both sides without the rows that the other side has as well, each as often."""
    wanted, got = ([(_canonical(row, names), row) for row in rows] for rows in (expected, found))
    return _left(wanted, Counter(key for key, _ in got)), _left(got, Counter(key for key, _ in wanted))


def _left(rows: list[tuple[Any, dict[str, Any]]], others: Counter[Any]) -> list[dict[str, Any]]:
    left = []
    for key, row in rows:
        if others[key]:
            others[key] -= 1
        else:
            left.append(row)
    return left


def _canonical(row: Row, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(_hashable(row[name]) for name in names)


def _hashable(value: Any) -> Any:
    if isinstance(value, Foreign):
        return ("foreign", repr(value.value))
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    if isinstance(value, list | tuple):
        return tuple(map(_hashable, value))
    if isinstance(value, dict):
        return tuple((key, _hashable(item)) for key, item in sorted(value.items()))
    return (type(value).__name__ if isinstance(value, bool | str) else "", value)


def _bare(row: Row) -> Row:
    return {name: value.value if isinstance(value, Foreign) else value for name, value in row.items()}


def _more(rows: Sequence[Any]) -> list[str]:
    return [f"  ... and {len(rows) - SHOWN:,} more"] if len(rows) > SHOWN else []


def shown(row: Row) -> str:
    """A row in one line."""
    return "{" + ", ".join(f"{name}: {value_text(value)}" for name, value in row.items()) + "}"


def value_text(value: Any) -> str:
    """A value as one would write it in a test."""
    if isinstance(value, Foreign):
        return value_text(value.value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, datetime):
        return (value.astimezone(UTC) if value.tzinfo else value).isoformat().replace("+00:00", "Z")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, str):
        return repr(value if len(value) <= 200 else value[:197] + "...")
    return str(value) if isinstance(value, Decimal) else repr(value)
