"""Rows as Arrow record batches: their size in motion, reading them from Parquet, and their order-free checksum.

Here: what is true of any stream of batches. Not here: where batches come from (`connectors`) or rest (`storage.stages`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dataflow_assets.errors import StageCorrupt, ValueRefused

BATCH_ROWS = 32_768
READ_ROWS = 16_384
TRIM_BATCHES = 32
DECAY_MS = 100
"""How long jemalloc keeps what is free; at 0 each batch would pay for its pages anew."""
BATCH_BYTES = 16 * 1024 * 1024
CHECKSUM_VERSION = 1
HASH_ROWS = 16_384
"""Rows hashed at a time: their intermediate results stay in the processor's cache."""
READ_BUFFER = 1 << 18
_PADDED_BYTES = 256
"""Text up to this length is hashed in one width."""

Hashes = NDArray[np.uint64]
_K1, _K2, _K3 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB), np.uint64(0x9E3779B97F4A7C15)
_NULL = np.uint64(0x6E756C6C6E756C6C)
_S27, _S29, _S30, _S31 = np.uint64(27), np.uint64(29), np.uint64(30), np.uint64(31)


def resize(batches: Iterable[pa.RecordBatch], *, rows: int = BATCH_ROWS, bytes_: int = BATCH_BYTES) -> Iterator[pa.RecordBatch]:
    """Cut large batches and join small ones, so that each has at most `rows` rows and about `bytes_` bytes; none is empty."""
    held: list[pa.RecordBatch] = []
    held_rows = held_bytes = 0
    for piece in cut(batches, rows=rows, bytes_=bytes_):
        if held and (held_rows + piece.num_rows > rows or held_bytes + piece.nbytes > bytes_):
            yield _join(held)
            held, held_rows, held_bytes = [], 0, 0
        held.append(piece)
        held_rows += piece.num_rows
        held_bytes += piece.nbytes
        if held_rows >= rows // 2 or held_bytes >= bytes_ // 2:
            yield _join(held)
            held, held_rows, held_bytes = [], 0, 0
    if held:
        yield _join(held)


def cut(batches: Iterable[pa.RecordBatch], *, rows: int = BATCH_ROWS, bytes_: int = BATCH_BYTES) -> Iterator[pa.RecordBatch]:
    """Cut large batches, without copying, so that each has at most `rows` rows and about `bytes_` bytes; none is empty."""
    for batch in batches:
        if batch.num_rows == 0:
            continue
        per_row = max(batch.nbytes // batch.num_rows, 1)
        step = max(min(rows, bytes_ // per_row), 1)
        if step >= batch.num_rows:
            yield batch
        else:
            yield from (batch.slice(start, step) for start in range(0, batch.num_rows, step))


def _join(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def open_parquet(paths: Sequence[str], schema: pa.Schema, *, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
    """Stream Parquet files of one schema, one row group in memory at a time. Raises StageCorrupt on a damaged file."""
    wanted = pa.schema([schema.field(name) for name in columns]) if columns is not None else schema
    return pa.RecordBatchReader.from_batches(wanted, _read_batches(paths, wanted))


def _read_batches(paths: Sequence[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    for path in paths:
        try:
            with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False, buffer_size=READ_BUFFER) as file:
                for batch in trimmed(file.iter_batches(columns=schema.names, batch_size=READ_ROWS, use_threads=False)):
                    yield (
                        batch
                        if batch.schema.equals(schema)
                        else pa.RecordBatch.from_arrays(batch.select(schema.names).columns, schema=schema)
                    )
        except (OSError, pa.ArrowException) as error:
            raise StageCorrupt(f"stage file {path} cannot be read: {error}", hint="run the window again: it is extracted anew") from error


def choose_allocator() -> None:
    """Let this process's arrays come from jemalloc where Arrow has it, else from the C library, and not from mimalloc, its default.

    Measured at a peak of a CSV into DuckDB, the same seconds: mimalloc 360 MB, the C library 340, jemalloc 303.
    """
    try:
        pool = pa.jemalloc_memory_pool()
        pa.jemalloc_set_decay_ms(DECAY_MS)
    except (NotImplementedError, pa.ArrowException):
        pool = pa.system_memory_pool()
    pa.set_memory_pool(pool)


def release() -> None:
    """Give back to the system what Arrow's allocator and the C library, which drivers use, hold free."""
    pa.default_memory_pool().release_unused()
    pa.system_memory_pool().release_unused()


def trimmed(batches: Iterable[pa.RecordBatch], *, every: int = TRIM_BATCHES) -> Iterator[pa.RecordBatch]:
    """The same batches; now and then free memory goes back to the system: it fragments to 50 MB otherwise (measured)."""
    for number, batch in enumerate(batches):
        if number % every == 0:
            release()
        yield batch


@dataclass(frozen=True)
class Checksum:
    """Row count and order-free checksum of a set of rows.

    The sum, modulo 2^64, of a 64-bit hash of each row in canonical form: integers of any width, timestamps of any unit and
    decimals of any scale (whole ones like the integers they equal) hash by value, so a table read back from another system
    compares equal. Not XOR: equal pairs cancel.
    The string hash reads eight bytes at a time with a multiply-xorshift round; the finaliser is splitmix64
    (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
    """

    rows: int = 0
    value: int = 0

    def add(self, batch: pa.RecordBatch) -> Checksum:
        """The checksum of these rows and those of `batch`; column order does not matter, names do."""
        total = self.value
        for start in range(0, batch.num_rows, HASH_ROWS):
            total += int(np.add.reduce(hash_rows(batch.slice(start, HASH_ROWS)), dtype=np.uint64))
        return Checksum(self.rows + batch.num_rows, total % 2**64)

    def __str__(self) -> str:
        return f"{self.rows}:{self.value:016x}"


def hash_rows(batch: pa.RecordBatch) -> Hashes:
    """A 64-bit hash of each row, shape (rows,); depends on column names and values, not on column order or physical width."""
    with np.errstate(over="ignore"):
        total = np.zeros(batch.num_rows, dtype=np.uint64)
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            total += hash_column(column) * _salt(name)
        return _mix(total)


@lru_cache(maxsize=4096)
def _salt(name: str) -> np.uint64:
    return np.uint64(int(_hash_bytes([name.encode()])[0]) | 1)  # odd: multiplying by it loses nothing


def hash_column(column: pa.Array) -> Hashes:
    """A 64-bit hash of each value, shape (rows,); null has a hash of its own. Raises ValueRefused for a type without a canonical form."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if isinstance(column.type, pa.DictionaryType):
        column = column.dictionary_decode()
    with np.errstate(over="ignore"):
        hashes = _hash_values(column)
    if column.null_count:
        hashes = np.where(_is_null(column), _NULL, hashes)
    return hashes


def _is_null(column: pa.Array) -> NDArray[np.bool_]:
    nulls: NDArray[np.bool_] = column.is_null().to_numpy(zero_copy_only=False)
    return nulls


def _hash_values(column: pa.Array) -> Hashes:
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), _NULL, dtype=np.uint64)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        wide = pa.uint64() if kind == pa.uint64() else pa.int64()
        return _mix(_fixed(column.cast(wide)))
    if pa.types.is_floating(kind):
        values = column.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False) + 0.0
        return _mix(np.where(np.isnan(values), np.nan, values).view(np.uint64))
    if pa.types.is_decimal(kind):
        return _hash_decimal(column)
    if pa.types.is_temporal(kind):
        return _hash_temporal(column)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _hash_variable(column)
    if pa.types.is_fixed_size_binary(kind):
        return _hash_variable(column.cast(pa.binary()))
    if str(kind) in {"string_view", "binary_view"}:
        return _hash_variable(column.cast(pa.large_binary() if str(kind) == "binary_view" else pa.large_string()))
    if pa.types.is_nested(kind):
        return _hash_bytes([repr(value).encode() for value in column.to_pylist()])
    raise ValueRefused(f"rows with a column of type {kind} have no checksum", hint="cast the column in the query")


def _fixed(column: pa.Array) -> Hashes:
    """The 8-byte values of a fixed-width column as they lie in memory; what stands under a null is arbitrary."""
    buffer = column.buffers()[1]
    return np.frombuffer(buffer, dtype=np.uint64)[column.offset : column.offset + len(column)]


def _hash_temporal(column: pa.Array) -> Hashes:
    kind = column.type
    if pa.types.is_timestamp(kind):
        return _mix(_as_nanoseconds(column.cast(pa.timestamp(kind.unit)).cast(pa.int64()), kind.unit))
    if pa.types.is_date(kind):
        return _mix(_fixed(column.cast(pa.date32()).cast(pa.int32()).cast(pa.int64())))
    if pa.types.is_time(kind):
        integers = column.cast(pa.int32() if kind.bit_width == 32 else pa.int64()).cast(pa.int64())
        return _mix(_as_nanoseconds(integers, kind.unit))
    if pa.types.is_duration(kind):
        return _mix(_as_nanoseconds(column.cast(pa.int64()), kind.unit))
    return _hash_bytes([repr(value).encode() for value in column.to_pylist()])


def _as_nanoseconds(integers: pa.Array, unit: str) -> Hashes:
    factor = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
    return _fixed(integers) * np.uint64(factor)  # wraps around for far dates, equally on both sides


def _hash_decimal(column: pa.Array) -> Hashes:
    """Hash by value: 1.5 and 1.500 are equal. Fast where every value fits 64 bits unscaled, text otherwise."""
    kind = column.type
    if kind.bit_width == 128 and kind.precision <= 18:
        pairs = np.frombuffer(column.buffers()[1], dtype=np.int64)
        low = pairs[2 * column.offset : 2 * (column.offset + len(column)) : 2].copy()
        scale = np.full(len(column), kind.scale, dtype=np.int64)
        low[_is_null(column)] = 0
        _strip_zeros(low, scale)
        return _hash_scaled(low.view(np.uint64), scale.view(np.uint64))
    values = column.to_pylist()
    low_scale = [(0, 0) if value is None else _unscaled(value) for value in values]
    if all(-(2**63) <= low < 2**63 for low, _ in low_scale):
        low = np.array([pair[0] for pair in low_scale], dtype=np.int64)
        scale = np.array([pair[1] for pair in low_scale], dtype=np.int64)
        return _hash_scaled(low.view(np.uint64), scale.view(np.uint64))
    return np.array([_hash_unscaled(*pair) for pair in low_scale], dtype=np.uint64)


def _strip_zeros(low: NDArray[np.int64], scale: NDArray[np.int64]) -> None:
    """Take trailing zeros away while there is a scale, in place; numpy's // by a constant is four times as fast as its %."""
    tenth = low // 10
    live = np.flatnonzero((tenth * 10 == low) & (scale > 0))
    while len(live):
        low[live], scale[live] = tenth[live], scale[live] - 1
        tenth[live] = low[live] // 10
        live = live[(tenth[live] * 10 == low[live]) & (scale[live] > 0)]


def _hash_scaled(low: Hashes, scale: Hashes) -> Hashes:
    """A whole number hashes as the integer it equals, so that a bigint kept as numeric compares equal."""
    return np.where(scale == 0, _mix(low), _mix(_mix(low) + scale * _K3))


def _unscaled(value: object) -> tuple[int, int]:
    sign, digits, exponent = value.normalize().as_tuple()  # type: ignore[attr-defined]
    number = int("".join(map(str, digits))) * (-1 if sign else 1)
    return (number * 10**exponent, 0) if exponent > 0 else (number, -exponent)


def _hash_unscaled(low: int, scale: int) -> int:
    if -(2**63) <= low < (2**64 if scale == 0 else 2**63):
        return int(_hash_scaled(np.array([low % 2**64], dtype=np.uint64), np.array([scale], dtype=np.uint64))[0])
    return int(_hash_bytes([f"{low}e-{scale}".encode()])[0])


def _hash_bytes(values: list[bytes]) -> Hashes:
    return _hash_variable(pa.array(values, type=pa.large_binary()))


def _hash_variable(column: pa.Array) -> Hashes:
    """Hash variable-length values eight bytes at a time, all rows of a round together."""
    width = np.int64 if pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type) else np.int32
    raw = column.buffers()[1]
    if len(column) == 0 or raw is None:
        return np.zeros(len(column), dtype=np.uint64)
    offsets = np.frombuffer(raw, dtype=width)[column.offset : column.offset + len(column) + 1].astype(np.int64, copy=False)
    lengths = np.diff(offsets)
    longest = int(lengths.max())
    empty = _mix(lengths.astype(np.uint64) + _K3)
    if int(lengths.min()) == longest:
        return _mix(_hash_even(empty, _words(column, int(offsets[0]), int(offsets[-1]), beyond=longest), length=longest))
    if longest <= _PADDED_BYTES:
        return _mix(_hash_padded(empty, column, lengths, longest=longest))
    return _mix(_hash_long(empty, column, offsets, lengths))


def _hash_padded(hashes: Hashes, column: pa.Array, lengths: NDArray[np.int64], *, longest: int) -> Hashes:
    """Short values: padded with zeros to one width, so that their words lie at even distances and need no index."""
    width = -(-longest // 8) * 8
    text = pa.large_string() if pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type) else pa.string()
    # without its nulls, whose bytes do not matter: padding would leave them out
    bare = pa.Array.from_buffers(text, len(column), [None, *column.buffers()[1:]], offset=column.offset)
    padded = pc.ascii_rpad(bare, width, "\0").buffers()[2]
    words = np.frombuffer(padded, dtype=np.uint64, count=len(column) * width // 8).reshape(len(column), width // 8)
    shortest = int(lengths.min())
    for number in range(width // 8):
        mixed = _round(hashes, words[:, number])
        hashes = mixed if shortest > 8 * number else np.where(lengths > 8 * number, mixed, hashes)
    return hashes


def _hash_long(hashes: Hashes, column: pa.Array, offsets: NDArray[np.int64], lengths: NDArray[np.int64]) -> Hashes:
    """Values of any length; in each round only those that are long enough."""
    starts = offsets[:-1] - offsets[0]
    words = _words(column, int(offsets[0]), int(offsets[-1]), beyond=0)
    position, live = 0, np.flatnonzero(lengths)
    while len(live):
        shift = ((8 - np.minimum(lengths[live] - position, 8)) * 8).astype(np.uint64)
        hashes[live] = _round(hashes[live], (words[starts[live] + position] << shift) >> shift)
        position += 8
        live = live[lengths[live] > position]
    return hashes


def _hash_even(hashes: Hashes, words: Hashes, *, length: int) -> Hashes:
    """The same for values of one length, as uuids have: their words lie at even distances and need no index."""
    for position in range(0, length, 8):
        column = np.lib.stride_tricks.as_strided(words[position:], shape=hashes.shape, strides=(length,))
        shift = np.uint64(max(position + 8 - length, 0) * 8)
        hashes = _round(hashes, (column << shift) >> shift if shift else column)
    return hashes


def _words(column: pa.Array, first: int, last: int, *, beyond: int) -> Hashes:
    """The bytes from `first` to `last` as overlapping little-endian words, one beginning at each byte and at `beyond` zeros after."""
    padded = np.zeros(last - first + beyond + 8, dtype=np.uint8)
    if last > first:
        padded[: last - first] = np.frombuffer(column.buffers()[2], dtype=np.uint8)[first:last]
    return np.lib.stride_tricks.as_strided(padded[:8].view(np.uint64), shape=(len(padded) - 7,), strides=(1,))


def _round(hashes: Hashes, words: Hashes) -> Hashes:
    mixed = hashes ^ words
    mixed *= _K1
    mixed ^= mixed >> _S29
    return mixed


def _mix(values: Hashes) -> Hashes:
    mixed = values ^ (values >> _S30)
    mixed *= _K1
    mixed ^= mixed >> _S27
    mixed *= _K2
    mixed ^= mixed >> _S31
    return mixed
