"""Objects of a store such as S3 as the files of a folder: their addresses, their states, their bytes by ranges.

Here: what a store offers, a path in it, a seekable file over its ranges. Not here: any one store (each has its module among the
connectors), how something is published there (`places`).
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO, Protocol

from dataflow_assets.errors import ConnectionFailed, ReadFailed

_WHOLE_BYTES = 4 * 1024 * 1024
"""Objects up to this size are fetched in one request, so that an open one keeps its content."""
_FIRST_BYTES, _MOST_BYTES = 64 * 1024, 8 * 1024 * 1024
_TRIES = 4


class Changed(Exception):
    """The object is no longer in the state that a request was made for."""


@dataclass(frozen=True)
class ObjectInfo:
    """One state of an object: `version` (ETag or generation) differs from that of any other content.

    `token` is the mark that a publish leaves on its object; a listing need not tell it.
    """

    key: str
    size: int
    version: str
    token: str = ""


class ObjectStore(Protocol):
    """One bucket. Its methods raise ConnectionFailed when the store cannot be reached or refuses."""

    @property
    def url(self) -> str:
        """Such as `s3://bucket`."""
        ...

    def probe(self) -> str:
        """Reach the bucket; what was found."""
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """The state of an object, with its token; None when there is none."""
        ...

    def objects(self, prefix: str, *, deep: bool) -> Iterator[ObjectInfo]:
        """All objects whose keys begin with `prefix`, by key, page by page; not those beyond a further `/` unless `deep`."""
        ...

    def get(self, key: str) -> tuple[bytes, str] | None:
        """A small object and its version."""
        ...

    def read(self, info: ObjectInfo, start: int, length: int) -> bytes:
        """A range of an object in this state. Raises Changed when it is in another one, or gone."""
        ...

    def put(self, key: str, file: BinaryIO, size: int, *, expected: str | None, token: str) -> None:
        """Write the whole object at once, if it is in the state `expected`, None: if there is none. Raises Changed."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


@dataclass(frozen=True)
class ObjectPath:
    """The address of an object, or of a prefix that is read as a folder; with `info`, in the state that a listing found."""

    store: ObjectStore
    key: str
    info: ObjectInfo | None = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:
        """What follows the last `/`."""
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The ending of the name."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> ObjectPath:
        """The folder that the object lies in."""
        return ObjectPath(self.store, self.key.rpartition("/")[0])

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(self.store, f"{self.key}/{name}" if self.key else name)

    def __str__(self) -> str:
        return f"{self.store.url}/{self.key}"

    def state(self) -> ObjectInfo | None:
        """The state that a listing found, else the present one; None when there is no object."""
        return self.info or self.store.head(self.key)

    def pinned(self) -> ObjectPath:
        """The same path in the state that it has now. Raises ReadFailed when there is no object."""
        info = self.state()
        if info is None:
            hint = "look for a typing error, and who may have deleted it"
            raise ReadFailed(f"{self} does not exist", hint=hint, kind="configuration")
        return ObjectPath(self.store, self.key, info)

    def open(self, mode: str = "rb") -> BinaryIO:
        """Its bytes in that state. Raises ReadFailed when there is no object."""
        return io.BufferedReader(RangeFile.of(self))


class RangeFile(io.RawIOBase):
    """A seekable file over the ranges of one state of an object; what is read in order is fetched in growing blocks."""

    def __init__(self, path: ObjectPath, info: ObjectInfo) -> None:
        super().__init__()
        self._path, self._info = path, info
        self._at, self._start, self._block, self._step = 0, 0, b"", _FIRST_BYTES

    @classmethod
    def of(cls, path: ObjectPath) -> RangeFile:
        """The bytes of an object. Raises ReadFailed when there is none."""
        pinned = path.pinned()
        assert pinned.info is not None
        return cls(pinned, pinned.info)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._info.size}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes, fewer only at the end."""
        end = self._info.size if size is None or size < 0 else min(self._at + size, self._info.size)
        parts = []
        while self._at < end:
            piece = self._piece(end - self._at)
            parts.append(piece)
            self._at += len(piece)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def first(self, length: int) -> bytes:
        """The first `length` bytes, by a request of their own."""
        return self._read(0, min(length, self._info.size))

    def last(self, length: int) -> bytes:
        """The last `length` bytes, by a request of their own."""
        length = min(length, self._info.size)
        return self._read(self._info.size - length, length)

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type] # what io gives is a buffer
        found = self.read(len(view))
        view[: len(found)] = found
        return len(found)

    def _piece(self, wanted: int) -> bytes:
        offset = self._at - self._start
        if not 0 <= offset < len(self._block):
            self._fetch(wanted)
            offset = self._at - self._start
        return self._block[offset : offset + wanted] if offset or wanted < len(self._block) else self._block

    def _fetch(self, wanted: int) -> None:
        size = self._info.size
        if size <= _WHOLE_BYTES:
            start, length = 0, size
        else:
            in_order = self._at == self._start + len(self._block)
            self._step = min(self._step * 2, _MOST_BYTES) if in_order else _FIRST_BYTES
            start, length = self._at, min(max(min(wanted, _MOST_BYTES), self._step), size - self._at)
        self._start, self._block = start, self._read(start, length)

    def _read(self, start: int, length: int) -> bytes:
        for attempt in range(1, _TRIES + 1):
            try:
                found = self._path.store.read(self._info, start, length)
            except Changed:
                raise ReadFailed(f"{self._path} was replaced while it was read", hint="run it again", transient=True) from None
            except ConnectionFailed as error:
                if attempt == _TRIES or not error.transient:
                    raise
                time.sleep(0.1 * 3**attempt)
            else:
                if len(found) == length:
                    return found
        raise ConnectionFailed(f"{self._path}: a range of {length} bytes arrived short", hint="run it again", transient=True)
