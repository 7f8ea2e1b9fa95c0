"""A multiset of 64-bit hashes of any size, in bounded memory: sorted runs, spilled to the step's scratch folder beyond a limit.

Here: gathering hashes and giving each back once, with its count, one 256th of their range after the other. Not here: what the hashes
are of, and what a repeated or a missing one means (`checks._unique`, `checks._lookup`, `checks._aggregates`).

About 24 MB at any number of hashes up to a thousand million.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from dataflow_assets.byte_hashes import Hashes

Counts = NDArray[np.uint64]
RUN_HASHES = 1 << 20
PARTITIONS = 256
_FIRST_HASHES = 1 << 16
_EDGES = np.arange(1, PARTITIONS, dtype=np.uint64) << np.uint64(56)


class HashRuns:
    """The hashes of one stream."""

    def __init__(self, scratch: Path, *, run_hashes: int = RUN_HASHES) -> None:
        self._scratch, self._run_hashes = scratch, run_hashes
        self._buffer: Hashes = np.empty(min(_FIRST_HASHES, run_hashes), dtype=np.uint64)
        self._held = 0
        self._file: IO[bytes] | None = None
        self._runs: list[_Run] = []

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
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._scratch, prefix="hashes-")  # noqa: SIM115 - lives as long as the run
        self._runs.append(_Run(self._file, *_reduced(self._buffer[: self._held], None)))
        self._held = 0

    def counted(self) -> tuple[int, int]:
        """How many different hashes there are, and how many in all. Closes the runs."""
        different = total = 0
        for hashes, counts in self.partitions():
            different += len(hashes)
            total += len(hashes) if counts is None else int(counts.sum())
        return different, total

    def partitions(self) -> Iterator[tuple[Hashes, Counts | None]]:
        """Always 256 times, in the order of the hashes: each hash once, sorted, and its counts (None: all 1). Closes the runs."""
        if self._file is None:
            hashes, counts = _reduced(self._buffer[: self._held], None)
            bounds = _bounds(hashes)
            for first, last in pairwise(bounds):
                yield hashes[first:last], None if counts is None else counts[first:last]
            return
        if self._held:
            self._spill()
        for number in range(PARTITIONS):
            yield _merged([run.partition(number) for run in self._runs])
        self._file.close()


class _Run:
    """One sorted run in a file: its hashes, and behind them its counts where some hash is there more than once."""

    def __init__(self, file: IO[bytes], hashes: Hashes, counts: Counts | None) -> None:
        self._file, self._bounds = file, _bounds(hashes)
        self._start = file.seek(0, 2)
        file.write(hashes.data)
        self._counts = self._start + hashes.nbytes if counts is not None else None
        if counts is not None:
            file.write(counts.data)

    def partition(self, number: int) -> tuple[Hashes, Counts | None]:
        first, last = int(self._bounds[number]), int(self._bounds[number + 1])
        hashes = self._read(self._start, first, last)
        return hashes, None if self._counts is None else self._read(self._counts, first, last)

    def _read(self, start: int, first: int, last: int) -> NDArray[np.uint64]:
        self._file.seek(start + 8 * first)
        return np.frombuffer(self._file.read(8 * (last - first)), dtype=np.uint64)


def _bounds(hashes: Hashes) -> NDArray[np.intp]:
    return np.concatenate(([0], np.searchsorted(hashes, _EDGES), [len(hashes)]))


def _merged(parts: list[tuple[Hashes, Counts | None]]) -> tuple[Hashes, Counts | None]:
    hashes = np.concatenate([found for found, _ in parts])
    if all(counts is None for _, counts in parts):
        return _reduced(hashes, None)
    return _reduced(hashes, np.concatenate([np.ones(len(found), np.uint64) if counts is None else counts for found, counts in parts]))


def _reduced(hashes: Hashes, counts: Counts | None) -> tuple[Hashes, Counts | None]:
    """Each hash once, sorted, with its count; without counts, sorted in place, which a skewed run cannot make large."""
    if counts is None:
        hashes.sort()
    else:
        order = np.argsort(hashes, kind="stable")
        hashes, counts = hashes[order], counts[order]
    again = hashes[1:] == hashes[:-1]
    if not again.any():
        return hashes, counts
    places = np.flatnonzero(np.concatenate(([True], ~again)))
    if counts is not None:
        return hashes[places], np.add.reduceat(counts, places)
    return hashes[places], np.diff(np.append(places, len(hashes))).astype(np.uint64)
