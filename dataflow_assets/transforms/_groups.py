"""The rows of each group together, groups in order, rows of a group in the order they came.

Here: grouping a stage in bounded memory, through files in the step's scratch folder when it is large. Not here: what is done
with a group.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dataflow_assets.batches import BATCH_ROWS
from dataflow_assets.protocols import StagedInput

Places = NDArray[np.int64]
IN_MEMORY_ROWS = 200_000
_MOST_FILES = 200


@dataclass(frozen=True)
class Grouped:
    """Some rows, in the order of their groups: the end of one, whole ones, the beginning of another.

    `groups` has the number of each row's group, `names` the names by number, from `first` on.
    """

    rows: pa.RecordBatch
    groups: Places
    names: pa.Array
    first: int = 0

    def group_names(self) -> pa.Array:
        """The name of each row's group."""
        return self.names.take(pa.array(self.groups - self.first))


def by_group(stage: StagedInput, column: str, scratch: Path, *, in_memory_rows: int = IN_MEMORY_ROWS) -> Iterator[Grouped]:
    """All rows by the groups of `column`, in the order of its values, null last; their numbers never fall."""
    values, counts = _values(stage, column)
    share = max(in_memory_rows, -(-int(counts.sum()) // _MOST_FILES))
    file_of = (np.cumsum(counts) - counts) // share
    file_of = np.cumsum(np.concatenate(([0], np.diff(file_of) > 0))) if len(file_of) else file_of
    if len(file_of) == 0 or file_of[-1] == 0:
        with stage.open_reader() as reader:
            yield from _ordered(list(reader), column, values, first=0)
        return
    paths = _write(stage, column, values, file_of, scratch)
    for number, path in enumerate(paths):
        inside = np.flatnonzero(file_of == number)
        part, first = values[int(inside[0]) : int(inside[-1]) + 1], int(inside[0])
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
            if len(inside) == 1:
                for rows in reader:
                    yield Grouped(rows, np.full(rows.num_rows, first), _names(part), first)
            else:
                yield from _ordered(list(reader), column, part, first=first)
        path.unlink()


def _names(values: pa.Array) -> pa.Array:
    return pa.array(["null" if value is None else str(value) for value in values.to_pylist()], pa.string())


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if isinstance(column.type, pa.DictionaryType) else column


def _values(stage: StagedInput, column: str) -> tuple[pa.Array, Places]:
    """The distinct values, sorted, null last, and how many rows each has."""
    found: pa.Table | None = None
    with stage.open_reader([column]) as reader:
        for batch in reader:
            seen = pa.table({"value": _plain(batch.column(0)), "count": pa.repeat(pa.scalar(1, pa.int64()), batch.num_rows)})
            both = seen if found is None else pa.concat_tables([found, seen])
            found = both.group_by("value", use_threads=False).aggregate([("count", "sum")]).rename_columns(["value", "count"])
    if found is None:
        kind = stage.schema.field(column).type
        return pa.array([], type=kind.value_type if isinstance(kind, pa.DictionaryType) else kind), np.zeros(0, dtype=np.int64)
    found = found.sort_by("value").combine_chunks()
    return found["value"].combine_chunks(), found["count"].to_numpy()


def _codes(batch: pa.RecordBatch, column: str, values: pa.Array) -> pa.Array:
    return pc.index_in(_plain(batch.column(column)), value_set=values)


def _write(stage: StagedInput, column: str, values: pa.Array, file_of: Places, scratch: Path) -> list[Path]:
    """Spread the rows over files, each holding whole neighbouring groups."""
    paths = [scratch / f"group-{number}.arrows" for number in range(int(file_of[-1]) + 1)]
    with ExitStack() as stack, stage.open_reader() as reader:
        writers = [stack.enter_context(pa.ipc.new_stream(str(path), stage.schema)) for path in paths]
        for batch in reader:
            files = file_of[_codes(batch, column, values).to_numpy()]
            order = np.argsort(files, kind="stable")
            ordered = batch.take(pa.array(order))
            edges = np.searchsorted(files[order], np.arange(len(paths) + 1))
            for number in np.unique(files):
                writers[number].write_batch(ordered.slice(edges[number], edges[number + 1] - edges[number]))
    return paths


def _ordered(batches: list[pa.RecordBatch], column: str, values: pa.Array, *, first: int) -> Iterator[Grouped]:
    """Rows that fit into memory, sorted by group and handed out in pieces."""
    if not batches:
        return
    rows, names = pa.concat_batches(batches), _names(values)
    codes = _codes(rows, column, values).to_numpy().astype(np.int64)
    order = np.argsort(codes, kind="stable")
    for start in range(0, len(order), BATCH_ROWS):
        part = order[start : start + BATCH_ROWS]
        yield Grouped(rows.take(pa.array(part)), codes[part] + first, names, first)
