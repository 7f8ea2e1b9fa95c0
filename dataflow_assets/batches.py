"""Rows as Arrow record batches: their size in motion, reading them from Parquet, and their order-free checksum.

Here: what is true of any stream of batches. Not here: where batches come from (`connectors`) or rest (`storage.stages`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataflow_assets.byte_hashes import Hashes, Mask, hash_bytes, mix
from dataflow_assets.errors import StageCorrupt, ValueRefused

BATCH_ROWS = 32_768
READ_ROWS = 16_384
TRIM_BATCHES = 8
DECAY_MS = 100
"""How long jemalloc keeps what is free; at 0 each batch would pay for its pages anew."""
BATCH_BYTES = 16 * 1024 * 1024
CHECKSUM_VERSION = 1
HASH_ROWS = 16_384
"""Rows hashed at a time: their intermediate results stay in the processor's cache."""
READ_BUFFER = 1 << 18

_K3 = np.uint64(0x9E3779B97F4A7C15)
_NULL = np.uint64(0x6E756C6C6E756C6C)
_BOOLEANS = mix(np.arange(2, dtype=np.uint64))
_DIGITS = 18
"""Decimals of so many digits fit 64 bits without their scale."""


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
    know_nanoseconds(wanted)
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


def know_nanoseconds(kind: object) -> None:
    """To be called before values of a type or schema go to Python: Arrow makes nanoseconds pandas' objects, or refuses them without pandas.

    Those who never imported pandas would get other values, and other checksums of nested ones, than those who did.
    """
    if "[ns" in str(kind):
        import pandas  # noqa: F401 - Arrow takes notice


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
    total = np.zeros(batch.num_rows, dtype=np.uint64)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        hashes = hash_column(column)
        hashes *= _salt(name)
        total += hashes
    return mix(total)


@lru_cache(maxsize=4096)
def _salt(name: str) -> np.uint64:
    return np.uint64(int(_hash_each([name.encode()])[0]) | 1)  # odd: multiplying by it loses nothing


def hash_column(column: pa.Array) -> Hashes:
    """A 64-bit hash of each value, shape (rows,); null has a hash of its own. Raises ValueRefused for a type without a canonical form."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if isinstance(column.type, pa.DictionaryType):
        return _hash_dictionary(column)
    if not len(column):  # its buffers may be missing
        return np.zeros(0, dtype=np.uint64)
    nulls = null_mask(column) if column.null_count else None
    hashes = _hash_values(column, nulls)
    if nulls is not None:
        hashes[nulls] = _NULL
    return hashes


def _hash_dictionary(column: pa.DictionaryArray) -> Hashes:
    """Each value of the dictionary hashed once, unless it holds more than the rows do."""
    if not 0 < len(column.dictionary) <= len(column):
        return hash_column(column.dictionary_decode())
    places = column.indices
    hashes: Hashes = hash_column(column.dictionary)[places.fill_null(0).to_numpy()]
    if places.null_count:
        hashes[null_mask(places)] = _NULL
    return hashes


def null_mask(column: pa.Array) -> Mask:
    """Which values are null, read from the bits that say which are not, where the type has them."""
    bits = column.buffers()[0]
    if bits is None:
        nulls: Mask = column.is_null().to_numpy(zero_copy_only=False)
        return nulls
    return _bits(~np.frombuffer(bits, dtype=np.uint8), column)


def _bits(packed: NDArray[np.uint8], column: pa.Array) -> Mask:
    """The bits that belong to the rows of `column`."""
    first, start = divmod(column.offset, 8)
    bits = np.unpackbits(packed[first : -(-(column.offset + len(column)) // 8)], bitorder="little")
    return bits[start : start + len(column)].view(np.bool_)


def _hash_values(column: pa.Array, nulls: Mask | None) -> Hashes:
    """The hash of each value; what it is for a null does not matter."""
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), _NULL, dtype=np.uint64)
    if pa.types.is_boolean(kind):
        return _BOOLEANS.take(_bits(np.frombuffer(column.buffers()[1], dtype=np.uint8), column).view(np.uint8))
    if pa.types.is_integer(kind):
        return mix(_integers(column))
    if pa.types.is_floating(kind):
        return _hash_floats(column)
    if pa.types.is_decimal(kind):
        return _hash_decimal(column, nulls)
    if pa.types.is_temporal(kind):
        return _hash_temporal(column)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return hash_bytes(column, nulls)
    if pa.types.is_fixed_size_binary(kind):
        return hash_bytes(column.cast(pa.binary()), nulls)
    if str(kind) in {"string_view", "binary_view"}:
        return hash_bytes(column.cast(pa.large_binary() if str(kind) == "binary_view" else pa.large_string()), nulls)
    if pa.types.is_nested(kind):
        know_nanoseconds(kind)
        return _hash_each([repr(value).encode() for value in column.to_pylist()])
    raise ValueRefused(f"rows with a column of type {kind} have no checksum", hint="cast the column in the query")


def _fixed(column: pa.Array, kind: str) -> NDArray[Any]:
    """The values of a fixed-width column as they lie in memory, as the numpy type `kind`; what stands under a null is arbitrary."""
    return np.frombuffer(column.buffers()[1], dtype=kind)[column.offset : column.offset + len(column)]


def _integers(column: pa.Array) -> Hashes:
    """The integers behind a column of integers or of moments, sign-extended to 64 bits."""
    sign = "u" if pa.types.is_unsigned_integer(column.type) else "i"
    return _fixed(column, f"{sign}{column.type.bit_width // 8}").astype(np.int64, copy=False).view(np.uint64)


def _hash_floats(column: pa.Array) -> Hashes:
    """By value as a double: one zero, one NaN."""
    with np.errstate(invalid="ignore"):  # a signalling NaN, of which one may stand under a null
        values = _fixed(column, f"f{column.type.bit_width // 8}").astype(np.float64, copy=False) + 0.0
    strange = np.isnan(values)
    if strange.any():
        values[strange] = np.nan
    return mix(values.view(np.uint64))


def _hash_temporal(column: pa.Array) -> Hashes:
    kind = column.type
    if pa.types.is_date(kind):
        return mix(_integers(column if kind == pa.date32() else column.cast(pa.date32())))
    if pa.types.is_timestamp(kind) or pa.types.is_time(kind) or pa.types.is_duration(kind):
        # wraps around for far dates, equally on both sides
        return mix(_integers(column) * np.uint64({"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[kind.unit]))
    return _hash_each([repr(value).encode() for value in column.to_pylist()])


def _hash_decimal(column: pa.Array, nulls: Mask | None) -> Hashes:
    """Hash by value: 1.5 and 1.500 are equal. Fast where every value fits 64 bits unscaled, one by one otherwise."""
    kind = column.type
    if kind.bit_width == 128 and (kind.precision <= _DIGITS or kind.scale >= 0):
        pairs = np.frombuffer(column.buffers()[1], dtype=np.int64)[2 * column.offset : 2 * (column.offset + len(column))]
        low = pairs[::2].copy()
        if kind.precision <= _DIGITS or _fits(low, pairs[1::2], nulls):
            return _hash_unscaled(low, kind.scale)
    return np.array([_NULL if value is None else _hash_one(*_unscaled(value)) for value in column.to_pylist()], dtype=np.uint64)


def _fits(low: NDArray[np.int64], high: NDArray[np.int64], nulls: Mask | None) -> bool:
    """Whether the upper half of each 128-bit value, unless it is null, says no more than its sign."""
    beyond = high != low >> 63
    return not (beyond if nulls is None else beyond & ~nulls).any()


def _hash_unscaled(low: NDArray[np.int64], scale: int) -> Hashes:
    """Values `low / 10^scale`. A whole number hashes as the integer it equals, so that a bigint kept as numeric compares equal.

    Trailing zeros are taken away one in a call; numpy's // by a constant is four times as fast as its %.
    """
    hashes = mix(low.view(np.uint64))
    if not scale:
        return hashes
    hashes += np.uint64(scale * int(_K3) % 2**64)
    hashes = mix(hashes)
    tenth = low // 10
    shorter = np.flatnonzero(tenth * 10 == low)
    if scale > 0 and len(shorter):
        hashes[shorter] = _hash_unscaled(tenth[shorter], scale - 1)
    return hashes


def _unscaled(value: Any) -> tuple[int, int]:
    sign, digits, exponent = value.normalize().as_tuple()
    number = int("".join(map(str, digits))) * (-1 if sign else 1)
    return (number * 10**exponent, 0) if exponent > 0 else (number, -exponent)


def _hash_one(low: int, scale: int) -> int:
    """The same for one value without trailing zeros, of any size."""
    if -(2**63) <= low < (2**64 if scale == 0 else 2**63):
        return int(_hash_unscaled(np.array([low % 2**64], dtype=np.uint64).view(np.int64), scale)[0])
    return int(_hash_each([f"{low}e-{scale}".encode()])[0])


def _hash_each(values: list[bytes]) -> Hashes:
    return hash_bytes(pa.array(values, type=pa.large_binary()))
