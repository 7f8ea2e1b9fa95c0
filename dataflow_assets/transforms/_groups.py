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

from dataflow_assets.protocols import StagedInput

IN_MEMORY_ROWS = 200_000
_MOST_FILES = 200


@dataclass(frozen=True)
class Group:
    """One group: its value, its name as text, and its rows in pieces."""

    name: str
    rows: int
    batches: Iterator[pa.RecordBatch]


def by_group(stage: StagedInput, column: str, scratch: Path, *, in_memory_rows: int = IN_MEMORY_ROWS) -> Iterator[Group]:
    """The groups of `column` in the order of its values, null last; read each group's batches before the next group."""
    values, counts = _values(stage, column)
    names = ["null" if value is None else str(value) for value in values.to_pylist()]
    share = max(in_memory_rows, -(-int(counts.sum()) // _MOST_FILES))
    file_of = (np.cumsum(counts) - counts) // share
    file_of = np.cumsum(np.concatenate(([0], np.diff(file_of) > 0))) if len(file_of) else file_of
    if len(file_of) == 0 or file_of[-1] == 0:
        with stage.open_reader() as reader:
            yield from _groups_of(list(reader), column, values, names)
        return
    paths = _write(stage, column, values, file_of, scratch)
    for number, path in enumerate(paths):
        inside = np.flatnonzero(file_of == number)
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
            if len(inside) == 1:
                yield Group(names[inside[0]], int(counts[inside[0]]), iter(reader))
            else:
                part = slice(int(inside[0]), int(inside[-1]) + 1)
                yield from _groups_of(list(reader), column, values[part], names[part])
        path.unlink()


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if isinstance(column.type, pa.DictionaryType) else column


def _values(stage: StagedInput, column: str) -> tuple[pa.Array, np.ndarray[tuple[int], np.dtype[np.int64]]]:
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


def _write(stage: StagedInput, column: str, values: pa.Array, file_of: np.ndarray, scratch: Path) -> list[Path]:
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


def _groups_of(batches: list[pa.RecordBatch], column: str, values: pa.Array, names: list[str]) -> Iterator[Group]:
    """The groups of rows that fit into memory."""
    if not batches:
        return
    rows = pa.concat_batches(batches)
    codes = _codes(rows, column, values).to_numpy()
    order = np.argsort(codes, kind="stable")
    ordered = rows.take(pa.array(order))
    edges = np.searchsorted(codes[order], np.arange(len(values) + 1))
    for number, name in enumerate(names):
        count = int(edges[number + 1] - edges[number])
        yield Group(name, count, iter([ordered.slice(int(edges[number]), count)]))
