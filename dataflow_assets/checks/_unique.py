"""Uniqueness of one or several columns over a stream of any length, exactly and in bounded memory.

Here: 64-bit hashes gathered in sorted runs, spilled to the step's scratch folder beyond a limit, merged partition by partition;
hashes that occur twice are settled by a second pass that compares the values themselves. Not here: the other rules.

About 24 MB at any number of rows up to a thousand million. Rows with a null in one of the columns are left out, as in SQL;
NaN equals NaN and 0.0 equals -0.0.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dataflow_assets.batches import Hashes, hash_column, hash_rows
from dataflow_assets.checks._rows import SAMPLES, Facts, Samples, outcome, plain, sample_rows, share_of
from dataflow_assets.checks._rules import Rule
from dataflow_assets.protocols import CheckResult, StagedInput

Mask = NDArray[np.bool_]
RUN_HASHES = 1 << 20
_FIRST_HASHES = 1 << 16
_PARTITIONS = 256
_EDGES = np.arange(1, _PARTITIONS, dtype=np.uint64) << np.uint64(56)
_KEPT = 100_000
_SHOWN_VALUES = 3


class HashRuns:
    """A multiset of 64-bit hashes that tells which occur more than once. `extra` counts every occurrence beyond the first."""

    def __init__(self, scratch: Path, *, run_hashes: int = RUN_HASHES) -> None:
        self._scratch, self._run_hashes = scratch, run_hashes
        self._buffer: Hashes = np.empty(min(_FIRST_HASHES, run_hashes), dtype=np.uint64)
        self._held = 0
        self._file: IO[bytes] | None = None
        self._runs: list[tuple[int, NDArray[np.intp]]] = []
        self._repeated: Hashes = np.empty(0, dtype=np.uint64)
        self.extra = 0
        self.dropped = False
        """Whether more values repeat than are kept for the second pass."""

    def add(self, hashes: Hashes) -> None:
        """Take more hashes."""
        while len(hashes):
            room = self._run_hashes - self._held
            piece, hashes = hashes[:room], hashes[room:]
            self._reserve(self._held + len(piece))
            self._buffer[self._held : self._held + len(piece)] = piece
            self._held += len(piece)
            if self._held == self._run_hashes:
                self._spill()

    def _reserve(self, size: int) -> None:
        if size > len(self._buffer):
            grown = np.empty(min(max(size, 2 * len(self._buffer)), self._run_hashes), dtype=np.uint64)
            grown[: self._held] = self._buffer[: self._held]
            self._buffer = grown

    def _spill(self) -> None:
        run = self._without_repeats(self._buffer[: self._held])
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._scratch, prefix="unique-")  # noqa: SIM115 - lives as long as the run
        bounds = np.concatenate(([0], np.searchsorted(run, _EDGES), [len(run)]))
        self._runs.append((self._file.seek(0, 2), bounds))
        self._file.write(run.data)
        self._held = 0

    def _without_repeats(self, hashes: Hashes) -> Hashes:
        """Sort in place, count and keep what repeats, and return each hash once: so a skewed run cannot fill a partition."""
        hashes.sort()
        again = hashes[1:] == hashes[:-1]
        if not again.any():
            return hashes
        self.extra += int(np.count_nonzero(again))
        found = np.union1d(self._repeated, hashes[1:][again])
        self.dropped = self.dropped or len(found) > _KEPT
        self._repeated = found[:_KEPT]
        return hashes[np.concatenate(([True], ~again))]

    def repeated(self) -> Hashes:
        """Sorted hashes that occur more than once, at most as many as are kept; closes the runs."""
        if self._file is None:
            self._without_repeats(self._buffer[: self._held])
            return self._repeated
        if self._held:
            self._spill()
        for partition in range(_PARTITIONS):
            self._without_repeats(np.concatenate([self._slice(start, bounds, partition) for start, bounds in self._runs]))
        self._file.close()
        return self._repeated

    def _slice(self, start: int, bounds: NDArray[np.intp], partition: int) -> Hashes:
        assert self._file is not None
        first, last = int(bounds[partition]), int(bounds[partition + 1])
        self._file.seek(start + 8 * first)
        return np.frombuffer(self._file.read(8 * (last - first)), dtype=np.uint64)


class UniqueRun:
    """A `unique` rule over one stream."""

    def __init__(self, rule: Rule, scratch: Path, *, run_hashes: int = RUN_HASHES) -> None:
        self.rule = rule
        self.hashes = HashRuns(scratch, run_hashes=run_hashes)
        self.checked = self.nulls = 0
        self._repeated: Hashes = np.empty(0, dtype=np.uint64)
        self._seen: Mask = np.empty(0, dtype=np.bool_)

    def update(self, facts: Facts) -> None:
        """See the next batch."""
        hashes, _ = _hashes([facts.column(name) for name in self.rule.columns])
        self.checked += facts.rows
        self.nulls += facts.rows - len(hashes)
        self.hashes.add(hashes)

    def finish(self, stage: StagedInput) -> CheckResult:
        """The outcome; reads the stage again when hashes repeat."""
        repeated = self._repeated = self.hashes.repeated()
        self._seen = np.zeros(len(repeated), dtype=np.bool_)
        failed = self.hashes.extra
        metadata: dict[str, object] = {}
        samples: Samples = []
        if len(repeated):
            values = _Repeated(self.rule.columns, repeated)
            values.gather(stage)
            metadata["repeated_values"] = values.count
            if self.hashes.dropped:
                metadata["counted"] = f"by 64-bit hash, as more than {_KEPT:,} values repeat"
            else:
                failed = values.extra
            samples = values.samples(stage) if failed else []
        result = self._result(failed, metadata=metadata, samples=samples)
        if result.quarantine and self.hashes.dropped:  # not all of the later copies could be found again
            return replace(result, quarantine=False, severity=self.rule.severity, blocking=self.rule.blocking)
        return result

    def pick(self, facts: Facts) -> pa.BooleanArray | None:
        """The copies of a value after its first row; to be asked for every batch in order, after `finish`."""
        if not len(self._repeated):
            return None
        hashes, complete = _hashes([facts.column(name) for name in self.rule.columns])
        places = np.minimum(np.searchsorted(self._repeated, hashes), len(self._repeated) - 1)
        rows = np.flatnonzero(self._repeated[places] == hashes)
        values, first = np.unique(places[rows], return_index=True)
        new = first[~self._seen[values]]
        self._seen[values] = True
        later = np.ones(len(rows), dtype=np.bool_)
        later[new] = False
        if complete is not None:
            rows = np.flatnonzero(complete)[rows]
        mask = np.zeros(facts.rows, dtype=np.bool_)
        mask[rows[later]] = True
        return pa.array(mask)

    def _result(self, failed: int, *, metadata: dict[str, object], samples: Samples) -> CheckResult:
        columns = ", ".join(self.rule.columns)
        if failed:
            sentence = f"{columns}: {share_of(failed, self.checked)} repeat the value of another row"
        else:
            sentence = f"{columns}: unique in {self.checked:,} rows"
        facts = {"columns": list(self.rule.columns), "rows_with_null": self.nulls, **metadata}
        return outcome(self.rule, sentence, checked=self.checked, failed=failed, samples=samples, metadata=facts)


def _hashes(columns: list[pa.Array]) -> tuple[Hashes, Mask | None]:
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


class _Repeated:
    """The values behind repeated hashes, counted by the values themselves."""

    def __init__(self, columns: tuple[str, ...], hashes: Hashes) -> None:
        self.columns, self.hashes = columns, hashes
        self.names = [str(number) for number in range(len(columns))]
        self.groups: pa.Table | None = None
        self.count = self.extra = 0

    def gather(self, stage: StagedInput) -> None:
        """Count each candidate value in one pass over the key columns."""
        held: list[pa.Table] = []
        with stage.open_reader(self.columns) as reader:
            for batch in reader:
                columns = [plain(batch.column(name)) for name in self.columns]
                rows = pa.Table.from_arrays([_groupable(column) for column in columns], names=self.names)
                rows = rows.append_column("count", pa.repeat(pa.scalar(1, pa.int64()), batch.num_rows))
                held.append(self._sum(rows.filter(pa.array(self._candidates(columns)))))
                if sum(table.num_rows for table in held) > 4 * _KEPT:
                    held = [self._sum(pa.concat_tables(held))]
        groups = self._sum(pa.concat_tables(held))
        self.groups = groups.filter(pc.greater(groups["count"], 1))
        self.count = self.groups.num_rows
        self.extra = int(pc.sum(self.groups["count"]).as_py() or 0) - self.count

    def _sum(self, rows: pa.Table) -> pa.Table:
        grouped = rows.group_by(self.names, use_threads=False).aggregate([("count", "sum")])
        return grouped.rename_columns([name.removesuffix("_sum") for name in grouped.column_names])

    def _candidates(self, columns: list[pa.Array]) -> Mask:
        hashes, complete = _hashes(columns)
        places = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        hit: Mask = self.hashes[places] == hashes
        if complete is None:
            return hit
        mask = np.zeros(len(complete), dtype=np.bool_)
        mask[complete] = hit
        return mask

    def samples(self, stage: StagedInput) -> Samples:
        """The first rows that hold one of the first repeated values."""
        if self.groups is None or not self.count:
            return []
        shown = self.groups.slice(0, _SHOWN_VALUES).select(self.names)
        found: Samples = []
        with stage.open_reader() as reader:
            for batch in reader:
                keys = pa.Table.from_arrays([_groupable(plain(batch.column(name))) for name in self.columns], names=self.names)
                found += sample_rows(batch, _is_one_of(keys, shown), limit=SAMPLES - len(found))
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
