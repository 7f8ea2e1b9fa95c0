"""Places where a target's files lie: a local folder, or a prefix of an object store.

Here: the few things that publishing needs of a place, and how each kind of place does them. A local folder has rename, fsync
and lock files; an object store has none of them, but writes an object whole, and on a condition. Not here: what is written
into the journal (`file_ledger`), the order of the steps (`files`).
"""

from __future__ import annotations

import glob
import hashlib
import io
import os
import secrets
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol

from dataflow_assets.storage.objects import Changed, ObjectInfo, ObjectPath

_BLOCK, _BLOCKS = 64 * 1024, 64
_FEW = 4
"""Up to so many objects are asked one by one, more are listed."""

FilePath = Path | ObjectPath
Mark = tuple[int, int | str, int]
"""What changes whenever somebody changes a file: size, time and inode; of an object size and version."""


def mark_of(path: FilePath) -> Mark | None:
    """The mark of a file; None while there is none."""
    if isinstance(path, ObjectPath):
        info = path.state()
        return (info.size, info.version, 0) if info else None
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


def is_filled(path: FilePath) -> bool:
    """Whether there is a file that holds something."""
    mark = mark_of(path)
    return mark is not None and mark[0] > 0 and (isinstance(path, ObjectPath) or path.is_file())


@dataclass(frozen=True)
class Identity:
    """What tells one content of a file from another: cheap marks first, then a digest of size and evenly spaced blocks.

    Of an object: its version, then the token that its publish left on it.
    """

    size: int
    mtime_ns: int
    inode: int
    digest: str
    version: str = ""

    @classmethod
    def of(cls, path: FilePath) -> Identity:
        """The identity of the file at `path`. Raises FileNotFoundError."""
        if isinstance(path, ObjectPath):
            info = path.store.head(path.key)
            if info is None:
                raise FileNotFoundError(str(path))
            return cls(info.size, 0, 0, info.token or f"version {info.version}", info.version)
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            digest = hashlib.sha256(str(status.st_size).encode())
            step = max(status.st_size - _BLOCK, 0) / (_BLOCKS - 1)
            for start in sorted({int(step * number) for number in range(_BLOCKS)}):
                file.seek(start)
                digest.update(file.read(_BLOCK))
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, digest.hexdigest())

    @property
    def mark(self) -> Mark:
        """The mark of the file in that state."""
        return (self.size, self.version, 0) if self.version else (self.size, self.mtime_ns, self.inode)


@dataclass(frozen=True)
class NewFile:
    """The new content of a file, not yet visible. `name` is that of a temporary file beside it, empty when there is none."""

    file: BinaryIO
    name: str
    token: str


class Place(Protocol):
    """A folder of files and how something is published there."""

    commits_late: ClassVar[bool]
    """Whether a commit that was begun may still arrive after others have gone on."""

    def make(self) -> None:
        """Create it."""
        ...

    def path(self, name: str, *, mark: Mark | None = None) -> FilePath:
        """The path of a file; of an object with this mark, in that state."""
        ...

    def names(self) -> list[str]:
        """The names of its files, sorted."""
        ...

    def marks(self, names: Collection[str]) -> dict[str, Mark]:
        """The marks of those of these files that are there."""
        ...

    def load(self, name: str, *, known: Mark | None) -> tuple[Mark, str] | None:
        """A small text and its mark; None when there is none, empty when the mark is the known one."""
        ...

    def save(self, name: str, text: str, *, expected: Mark | None) -> Mark | None:
        """Write a small text durably, at once; its mark, None when that is not told. Raises Changed, where others may come between."""
        ...

    def lock(self, name: str, *, seconds: float) -> Any:
        """A context that yields whether the lock was had in time."""
        ...

    def new_file(self, prefix: str) -> Any:
        """A context that yields a NewFile and removes what was not published."""
        ...

    def seal(self, new: NewFile) -> Identity:
        """Make the new content durable; the identity that the file will have."""
        ...

    def publish(self, new: NewFile, name: str, *, expected: Mark | None) -> None:
        """Put the new content in the file's place, at once. Raises Changed when the file is not as `expected`."""
        ...

    def moved(self, new: str) -> bool:
        """Whether the temporary file of this name is surely no longer there."""
        ...

    def sweep(self, prefix: str) -> None:
        """Remove what killed writers left; called while no other one is at work."""
        ...


def place_of(path: FilePath) -> Place:
    """The place that a folder is."""
    return ObjectPlace(path) if isinstance(path, ObjectPath) else LocalPlace(path)


@dataclass(frozen=True)
class LocalPlace:
    """A folder of a local file system. Who holds its lock comes between nobody's steps."""

    folder: Path
    commits_late: ClassVar[bool] = False

    def __str__(self) -> str:
        return str(self.folder)

    def make(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str, *, mark: Mark | None = None) -> Path:
        return self.folder / name

    def names(self) -> list[str]:
        try:
            return sorted(os.listdir(self.folder))  # noqa: PTH208 - a folder may hold thousands, and names sort faster than paths
        except (FileNotFoundError, NotADirectoryError):
            return []

    def marks(self, names: Collection[str]) -> dict[str, Mark]:
        found = ((name, mark_of(self.folder / name)) for name in names)
        return {name: mark for name, mark in found if mark}

    def load(self, name: str, *, known: Mark | None) -> tuple[Mark, str] | None:
        path = self.folder / name
        mark = mark_of(path)
        return (mark, "" if mark == known else path.read_text("utf-8")) if mark else None

    def save(self, name: str, text: str, *, expected: Mark | None) -> Mark:
        path = self.folder / name
        temporary = path.with_name(f"{name}.tmp")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            status = os.fstat(file.fileno())
        temporary.replace(path)
        return status.st_size, status.st_mtime_ns, status.st_ino

    @contextmanager
    def lock(self, name: str, *, seconds: float) -> Iterator[bool]:
        import fcntl

        handle = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            limit, pause, held = time.monotonic() + seconds, 0.001, False
            while not held:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    held = True
                except BlockingIOError:
                    if time.monotonic() > limit:
                        break
                    time.sleep(pause)
                    pause = min(pause * 1.5, 0.05)
            yield held
        finally:
            os.close(handle)

    @contextmanager
    def new_file(self, prefix: str) -> Iterator[NewFile]:
        temporary = self.folder / f"{prefix}.dataflow.data-{os.getpid()}-{secrets.token_hex(4)}.tmp"
        try:
            with temporary.open("w+b") as file:
                _take(file)  # which tells `sweep` that its writer lives
                yield NewFile(file, temporary.name, "")
        finally:
            temporary.unlink(missing_ok=True)

    def seal(self, new: NewFile) -> Identity:
        new.file.flush()
        os.fsync(new.file.fileno())
        return Identity.of(self.folder / new.name)

    def publish(self, new: NewFile, name: str, *, expected: Mark | None) -> None:
        (self.folder / new.name).replace(self.folder / name)
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def moved(self, new: str) -> bool:
        return not (self.folder / new).exists()

    def sweep(self, prefix: str) -> None:
        for path in self.folder.glob(f"{glob.escape(prefix)}.dataflow.data-*.tmp"):
            with suppress(OSError), path.open("rb") as file:
                if _take(file):
                    path.unlink(missing_ok=True)


def _take(file: BinaryIO) -> bool:
    """Lock a file unless somebody else holds it; where files cannot be locked, nobody does."""
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


_writers: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


@dataclass(frozen=True)
class ObjectPlace:
    """A prefix of an object store. Nothing is locked: each write says which state it replaces, and a later one fails."""

    folder: ObjectPath
    commits_late: ClassVar[bool] = True

    def __str__(self) -> str:
        return str(self.folder)

    def make(self) -> None:
        return None

    def path(self, name: str, *, mark: Mark | None = None) -> ObjectPath:
        path = self.folder / name
        return path if mark is None else replace(path, info=ObjectInfo(path.key, mark[0], str(mark[1])))

    def names(self) -> list[str]:
        return sorted(self._listed())

    def marks(self, names: Collection[str]) -> dict[str, Mark]:
        if len(names) > _FEW:
            return {name: mark for name, mark in self._listed().items() if name in names}
        found = ((name, mark_of(self.folder / name)) for name in names)
        return {name: mark for name, mark in found if mark}

    def _listed(self) -> dict[str, Mark]:
        prefix = f"{self.folder.key}/" if self.folder.key else ""
        return {
            info.key.removeprefix(prefix): (info.size, info.version, 0)
            for info in self.folder.store.objects(prefix, deep=False)
            if info.key != prefix
        }

    def load(self, name: str, *, known: Mark | None) -> tuple[Mark, str] | None:
        found = self.folder.store.get((self.folder / name).key)
        return ((len(found[0]), found[1], 0), found[0].decode("utf-8")) if found else None

    def save(self, name: str, text: str, *, expected: Mark | None) -> Mark | None:
        self._put(name, io.BytesIO(text.encode()), expected=expected, token=secrets.token_hex(16))
        return None

    @contextmanager
    def lock(self, name: str, *, seconds: float) -> Iterator[bool]:
        """Writers of one process wait for each other, to save work; nothing else has to be waited for."""
        if not name.endswith(".writer.lock"):
            yield True
            return
        lock = _writers[f"{self.folder}/{name}"]
        held = lock.acquire(timeout=seconds)
        try:
            yield held
        finally:
            if held:
                lock.release()

    @contextmanager
    def new_file(self, prefix: str) -> Iterator[NewFile]:
        with tempfile.TemporaryFile(prefix="dataflow-upload-") as file:
            yield NewFile(file, "", secrets.token_hex(16))

    def seal(self, new: NewFile) -> Identity:
        return Identity(new.file.seek(0, os.SEEK_END), 0, 0, new.token)

    def publish(self, new: NewFile, name: str, *, expected: Mark | None) -> None:
        self._put(name, new.file, expected=expected, token=new.token)

    def moved(self, new: str) -> bool:
        return False

    def sweep(self, prefix: str) -> None:
        return None

    def _put(self, name: str, file: BinaryIO, *, expected: Mark | None, token: str) -> None:
        """Write an object on a condition; a write that was repeated because its reply was lost has succeeded."""
        path = self.folder / name
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        try:
            path.store.put(path.key, file, size, expected=str(expected[1]) if expected else None, token=token)
        except Changed:
            info = path.store.head(path.key)
            if info is None or info.token != token:
                raise
