"""64-bit hashes of text and bytes of any length, of many rows at a time, eight bytes in a round.

Here: the rounds, and the words they take. Not here: values of other types, whole rows (`batches`).

The hashes lie in receipts and ledgers: what a value's hash is may never change, only how fast it is found. A value is cut into
little-endian words of eight bytes, the last one filled up with zeros, and its length is mixed in first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Lengths = NDArray[np.int64]
Mask = NDArray[np.bool_]
_FACTOR, _ALL_BITS = 0xBF58476D1CE4E5B9, 2**64 - 1
_K1, _K2, _K3 = np.uint64(_FACTOR), np.uint64(0x94D049BB133111EB), np.uint64(0x9E3779B97F4A7C15)
_S27, _S29, _S30, _S31 = np.uint64(27), np.uint64(29), np.uint64(30), np.uint64(31)
_ONE, _THREE, _SEVEN, _LAST_BIT = np.uint64(1), np.uint64(3), np.uint64(7), np.uint64(63)
_WORD = 8
_KEPT = np.array([256**count - 1 for count in range(9)], dtype=np.uint64)
"""What leaves so many bytes of a word."""


def mix(values: Hashes) -> Hashes:
    """The finaliser of splitmix64, shape as given; overflow is wanted, and numpy silent about it in arrays."""
    mixed = values ^ (values >> _S30)
    mixed *= _K1
    mixed ^= mixed >> _S27
    mixed *= _K2
    mixed ^= mixed >> _S31
    return mixed


_SEEDS = mix(np.arange(257, dtype=np.uint64) + _K3)
"""What each length up to 256 begins with; values so short are padded to one width."""
_FEW = 32
"""A round of so few values costs in numpy as much as in Python."""


def hash_bytes(column: pa.Array, nulls: Mask | None = None) -> Hashes:
    """A hash of each value of an array of text or bytes with 32 or 64-bit offsets, shape (rows,); any hash for those in `nulls`."""
    width = np.int64 if pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type) else np.int32
    raw = column.buffers()[1]
    if len(column) == 0 or raw is None:
        return np.zeros(len(column), dtype=np.uint64)
    offsets = np.frombuffer(raw, dtype=width)[column.offset : column.offset + len(column) + 1].astype(np.int64, copy=False)
    lengths = np.diff(offsets)
    longest = int(lengths.max())
    if int(lengths.min()) == longest:
        hashes = np.full(len(column), _SEEDS[longest] if longest < len(_SEEDS) else mix(_seed(lengths[:1]))[0])
        _hash_even(hashes, column.buffers()[2], int(offsets[0]), length=longest)
        return mix(hashes)
    if nulls is not None:  # or they would be short values, which cost a round more
        lengths[nulls] = longest
    if longest < len(_SEEDS):
        hashes = _SEEDS.take(lengths)
        _hash_in_step(hashes, _padded(column, longest), lengths)
        return mix(hashes)
    if nulls is not None:
        lengths[nulls] = 0
    hashes = mix(_seed(lengths))
    _hash_ragged(hashes, *_words(column, offsets), lengths)
    return mix(hashes)


def _seed(lengths: Lengths) -> Hashes:
    return lengths.view(np.uint64) + _K3


def _round(hashes: Hashes, words: Hashes) -> None:
    hashes ^= words
    hashes *= _K1
    hashes ^= hashes >> _S29


def _hash_even(hashes: Hashes, data: pa.Buffer, first: int, *, length: int) -> None:
    """Values of one length, as uuids and codes have: their words lie at even distances and need no index."""
    if 0 < length < _WORD:
        codes = data.slice(first, length * len(hashes)).to_pybytes() + bytes(_WORD)
        _round(hashes, np.ndarray(hashes.shape, np.uint64, codes, 0, (length,)) & _KEPT[length])
        return
    for position in range(0, length, _WORD):
        begin = min(position, length - _WORD)  # the last word ends with its value, never behind the buffer
        words: Hashes = np.ndarray(hashes.shape, np.uint64, data, first + begin, (length,))
        _round(hashes, words >> np.uint64(8 * (position - begin)) if position > begin else words)


def _hash_in_step(hashes: Hashes, columns: Sequence[Hashes], lengths: Lengths) -> None:
    """Short values: the first words of all, then the second ones; values that have ended stay as they are."""
    shortest = int(lengths.min())
    for position, words in zip(range(0, _WORD * len(columns), _WORD), columns, strict=True):
        if shortest > position:
            _round(hashes, words)
        else:
            mixed = hashes.copy()
            _round(mixed, words)
            np.copyto(hashes, mixed, where=lengths > position)


def _padded(column: pa.Array, longest: int) -> Sequence[Hashes]:
    """The words of values that are padded with zeros to one width, so that they lie at even distances and need no index."""
    count = -(-longest // _WORD)
    text = pa.large_string() if pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type) else pa.string()
    # without its nulls, whose bytes do not matter: padding would leave them out
    bare = pa.Array.from_buffers(text, len(column), [None, *column.buffers()[1:]], offset=column.offset)
    padded = pc.ascii_rpad(bare, count * _WORD, "\0").buffers()[2]
    return list(np.frombuffer(padded, dtype=np.uint64, count=len(column) * count).reshape(len(column), count).T)


def _hash_ragged(hashes: Hashes, words: Hashes, starts: Lengths, lengths: Lengths) -> None:
    """Values of any length, each word put together from two aligned ones; a value that has ended is left out of the next round.

    Measured for 16384 texts: a word takes 25 us, and 80 us when it is fetched from where it begins.
    """
    places, low = starts >> 3, (starts.view(np.uint64) & _SEVEN) << _THREE
    high = _LAST_BIT - low
    here = words.take(places, mode="clip")  # clipped are words behind all values, of which nothing is kept
    rows, live, left, shortest = None, hashes, lengths, int(lengths.min())
    while True:
        if shortest <= 0:
            going = np.flatnonzero(left > 0)
            if rows is not None:
                hashes[rows] = live
            if not len(going):
                return
            rows = going if rows is None else rows[going]
            live, low, high, here = (part[going] for part in (live, low, high, here))
            left, places = left[going], places[going]
            if len(rows) <= _FEW:
                _hash_few(hashes, words, rows, 8 * places + (low >> _THREE).astype(np.int64), left)
                return
            shortest = int(left.min())
        places += 1
        after = words.take(places, mode="clip")
        here >>= low
        here |= (after << high) << _ONE
        if shortest < _WORD:
            here &= _KEPT.take(left, mode="clip")
        _round(live, here)
        here, shortest = after, shortest - _WORD
        left -= _WORD


def _hash_few(hashes: Hashes, words: Hashes, rows: NDArray[np.intp], starts: Lengths, left: Lengths) -> None:
    """The rest of a few long values, each on its own. Measured for a value of 1 MB: 30 ms, and 0.9 s in rounds of one row."""
    data = words.view(np.uint8)
    for row, start, length in zip(rows.tolist(), starts.tolist(), left.tolist(), strict=True):
        padded = data[start : start + length].tobytes() + bytes(-length % _WORD)
        found = int(hashes[row])
        for word in np.frombuffer(padded, dtype=np.uint64).tolist():
            found = (found ^ word) * _FACTOR & _ALL_BITS
            found ^= found >> 29
        hashes[row] = found


def _words(column: pa.Array, offsets: Lengths) -> tuple[Hashes, Lengths]:
    """The bytes of a column as aligned words, and where each value begins in them; copied where the buffer ends within a word."""
    data, first, last = column.buffers()[2], int(offsets[0]), int(offsets[-1])
    whole = data.size // _WORD
    if data.address % _WORD == 0 and last <= whole * _WORD:
        return np.frombuffer(data, dtype=np.uint64, count=whole), offsets[:-1]
    copied = np.zeros((last - first) // _WORD + 1, dtype=np.uint64)
    copied.view(np.uint8)[: last - first] = np.frombuffer(data, dtype=np.uint8, count=last - first, offset=first)
    return copied, offsets[:-1] - first
