"""Uniqueness of one or several columns over a stream of any length, exactly and in bounded memory.

Here: hashes that occur twice are settled by a second pass that compares the values themselves. Not here: gathering the hashes
(`checks._hash_runs`), the other rules.

Rows with a null in one of the columns are left out, as in SQL; NaN equals NaN and 0.0 equals -0.0. Of the rows that share a value the
first one, in the order of the stage, is good, and every further one breaks the rule.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dataflow_assets.batches import hash_column, hash_rows
from dataflow_assets.byte_hashes import Hashes
from dataflow_assets.checks._conditions import Conditions
from dataflow_assets.checks._facts import Facts
from dataflow_assets.checks._frequent import COUNT, Frequent, tally
from dataflow_assets.checks._hash_runs import RUN_HASHES, HashRuns
from dataflow_assets.checks._rows import SAMPLES, Samples, outcome, sample_rows, share_of, tolerated
from dataflow_assets.checks._rules import Rule
from dataflow_assets.errors import DataflowError
from dataflow_assets.protocols import CheckResult, StagedInput

Mask = NDArray[np.bool_]
_KEPT = 100_000
_SHOWN_VALUES = 3


class UniqueRun:
    """A `unique` rule over one stream."""

    def __init__(self, rule: Rule, scratch: Path, conditions: Conditions | None = None, *, run_hashes: int = RUN_HASHES) -> None:
        self.rule, self._conditions = rule, conditions
        self.hashes = HashRuns(scratch, run_hashes=run_hashes)
        self.checked = self.nulls = 0
        self._repeated = _Repeated(rule, conditions)

    def update(self, facts: Facts) -> None:
        """See the next batch."""
        part = facts.limited(self.rule.where)
        hashes, _ = key_hashes([part.column(name) for name in self.rule.columns])
        self.checked += part.rows
        self.nulls += part.rows - len(hashes)
        self.hashes.add(hashes)

    def finish(self, stage: StagedInput) -> CheckResult:
        """The outcome; reads the stage again when hashes repeat."""
        values = self._repeated
        failed = values.find(self.hashes)
        metadata: dict[str, object] = {}
        samples: Samples = []
        if failed:
            values.gather(stage)
            metadata["repeated_values"] = values.count
            if values.dropped:
                metadata["counted"] = f"by 64-bit hash, as more than {_KEPT:,} values repeat"
            else:
                failed = values.extra
            samples = values.samples(stage) if failed else []
            metadata |= values.frequent.shown()
        result = self._result(failed, metadata=metadata, samples=samples)
        if result.quarantine and values.dropped:  # not all of the later copies could be found again
            return replace(result, quarantine=False, severity=self.rule.severity, blocking=self.rule.blocking)
        return result

    def pick(self, facts: Facts) -> pa.BooleanArray | None:
        """The rows of a batch that repeat the value of an earlier row; asked of every batch once more, in order, after `finish`."""
        return self._repeated.again(facts)

    def _result(self, failed: int, *, metadata: dict[str, object], samples: Samples) -> CheckResult:
        columns = ", ".join(self.rule.columns)
        if failed:
            sentence = f"{columns}: {share_of(failed, self.checked)} repeat the value of another row{tolerated(self.rule)}"
        else:
            sentence = f"{columns}: unique in {self.checked:,} rows"
        facts = {"columns": list(self.rule.columns), "rows_with_null": self.nulls, **metadata}
        return outcome(self.rule, sentence, checked=self.checked, failed=failed, samples=samples, metadata=facts)


def key_hashes(columns: list[pa.Array]) -> tuple[Hashes, Mask | None]:
    """Hashes of the rows without a null, and which rows those are (None: all)."""
    if len(columns) == 1:
        hashes = hash_column(columns[0])
    else:
        hashes = hash_rows(pa.record_batch(columns, names=[str(number) for number in range(len(columns))]))
    complete = None
    for column in columns:
        if column.null_count:
            valid = column.is_valid().to_numpy(zero_copy_only=False)
            complete = valid if complete is None else complete & valid
    return (hashes, None) if complete is None else (hashes[complete], complete)


def among(columns: list[pa.Array], wanted: Hashes) -> tuple[Mask, Hashes]:
    """Which rows have one of the sorted `wanted` hashes, and the hashes of those rows."""
    hashes, complete = key_hashes(columns)
    if not len(wanted):
        return np.zeros(len(columns[0]), dtype=np.bool_), hashes[:0]
    hit: Mask = wanted[np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)] == hashes
    if complete is None:
        return hit, hashes[hit]
    mask = np.zeros(len(complete), dtype=np.bool_)
    mask[complete] = hit
    return mask, hashes[hit]


def read_again(stage: StagedInput, rule: Rule, conditions: Conditions | None) -> pa.RecordBatchReader:
    """The columns of a stage that a rule needs for a second pass."""
    columns = [*rule.columns, *(conditions.columns if conditions is not None and rule.where else ())]
    return stage.open_reader(list(dict.fromkeys(columns)))


class _Repeated:
    """The values behind repeated hashes, counted by the values themselves."""

    def __init__(self, rule: Rule, conditions: Conditions | None) -> None:
        self.rule, self._conditions = rule, conditions
        self.columns = rule.columns
        self.names = [str(number) for number in range(len(rule.columns))]
        self.hashes: Hashes = np.empty(0, dtype=np.uint64)
        self._seen: Mask = np.empty(0, dtype=np.bool_)
        self.frequent = Frequent(rule.columns)
        self.groups: pa.Table | None = None
        self.count = self.extra = 0
        self._nested = False
        self.dropped = False
        """Whether more values repeat than are kept for the second pass."""

    def find(self, runs: HashRuns) -> int:
        """Keep the hashes that occur more than once; how many rows there are beyond the first of each."""
        extra, held, kept = 0, [self.hashes], 0
        for hashes, counts in runs.partitions():
            if counts is None:
                continue
            extra += int(counts.sum()) - len(counts)
            found = hashes[counts > 1]
            self.dropped = self.dropped or kept + len(found) > _KEPT
            held.append(found[: _KEPT - kept])
            kept += len(held[-1])
        self.hashes = np.concatenate(held)
        return extra

    def gather(self, stage: StagedInput) -> None:
        """Count each candidate value in one pass over the key columns."""
        held: list[pa.Table] = []
        with read_again(stage, self.rule, self._conditions) as reader:
            for batch in reader:
                part = Facts(batch, self._conditions).limited(self.rule.where)
                columns = [part.column(name) for name in self.columns]
                self._nested = self._nested or any(pa.types.is_nested(column.type) for column in columns)
                rows = pa.Table.from_arrays([_groupable(column) for column in columns], names=self.names)
                rows = rows.append_column(COUNT, pa.array(np.ones(part.rows, dtype=np.int64)))
                held.append(tally(rows.filter(pa.array(among(columns, self.hashes)[0]))))
                if sum(table.num_rows for table in held) > 4 * _KEPT:
                    held = [tally(pa.concat_tables(held))]
        groups = tally(pa.concat_tables(held))
        self.groups = groups.filter(pc.greater(groups[COUNT], 1))
        self.count = self.groups.num_rows
        self.extra = int(pc.sum(self.groups[COUNT]).as_py() or 0) - self.count
        self.frequent.count(self.groups)
        self._settle()

    def _settle(self) -> None:
        """Keep the hashes of values that truly repeat."""
        if self.groups is not None and not self._nested:  # nested values are grouped by their text, which hashes otherwise
            columns = [column.combine_chunks() for column in self.groups.select(self.names).columns]
            self.hashes = np.unique(key_hashes(columns)[0])
        self._seen = np.zeros(len(self.hashes), dtype=np.bool_)

    def again(self, facts: Facts) -> pa.BooleanArray | None:
        """Where a row of the next batch repeats a value that came before. Raises DataflowError when too many values do to tell."""
        if self.dropped:
            raise DataflowError(
                f"{', '.join(self.columns)}: more than {_KEPT:,} values repeat, too many to set their rows aside",
                hint="mend the source, or keep one row of each in a sql step",
            )
        if not self.count:
            return None
        part = facts.limited(self.rule.where)
        mask, hashes = among([part.column(name) for name in self.columns], self.hashes)
        if not len(hashes):
            return None
        places = np.flatnonzero(mask)
        known, first = np.unique(hashes, return_index=True)
        numbers = np.searchsorted(self.hashes, known)
        mask[places[first[~self._seen[numbers]]]] = False
        self._seen[numbers] = True
        return part.spread(pa.array(mask))

    def samples(self, stage: StagedInput) -> Samples:
        """The first rows that hold one of the first repeated values."""
        if self.groups is None or not self.count:
            return []
        shown = self.groups.slice(0, _SHOWN_VALUES).select(self.names)
        found: Samples = []
        with stage.open_reader() as reader:
            for batch in reader:
                part = Facts(batch, self._conditions).limited(self.rule.where)
                keys = pa.Table.from_arrays([_groupable(part.column(name)) for name in self.columns], names=self.names)
                found += sample_rows(batch, part.spread(_is_one_of(keys, shown)), limit=SAMPLES - len(found))
                if len(found) >= SAMPLES:
                    break
        return found


def _is_one_of(keys: pa.Table, shown: pa.Table) -> pa.BooleanArray:
    mask = pa.repeat(False, keys.num_rows)
    for number in range(shown.num_rows):
        same = pa.repeat(True, keys.num_rows)
        for name in shown.column_names:
            same = pc.and_(same, pc.is_in(keys[name], value_set=shown[name].slice(number, 1).combine_chunks()))
        mask = pc.or_(mask, same)
    return mask.combine_chunks() if isinstance(mask, pa.ChunkedArray) else mask


def _groupable(column: pa.Array) -> pa.Array:
    """Values that group as they compare: nested ones as text, one NaN, one zero."""
    if pa.types.is_nested(column.type):
        return pa.array([None if value is None else repr(value) for value in column.to_pylist()], type=pa.large_string())
    if pa.types.is_floating(column.type):
        values = pc.add(column, pa.scalar(0.0, column.type))
        return pc.if_else(pc.is_nan(values), pa.scalar(float("nan"), column.type), values)
    return column
