"""The states of a source's files: what a sensor compares, and what a run that takes exactly some files holds them to.

Here: marks, contents, markers of files that are written to their end. Not here: which files a source has (`_files`), what was seen
before (`operations.sensors`).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from dataflow_assets.errors import ReadFailed
from dataflow_assets.storage.objects import ObjectPath
from dataflow_assets.storage.places import FilePath
from dataflow_assets.tables import SourceFile

_HASHED_BYTES = 16 * 1024 * 1024
_BLOCK = 1024 * 1024

log = logging.getLogger(__name__)


def states_of(paths: Sequence[FilePath], *, marker: str | None) -> Iterator[tuple[FilePath, SourceFile]]:
    """The files as they are now, without those that vanish meanwhile."""
    marked = _Markers(marker)
    for path in paths:
        state = state_of(path, ready=marked.stands_for(path))
        if state is not None:
            yield path, state


def state_of(path: FilePath, *, ready: bool = True) -> SourceFile | None:
    """A file as it is now; None when there is none. An object appears whole, and a store's version is that of its content."""
    if isinstance(path, ObjectPath):
        info = path.state()
        return None if info is None else SourceFile(str(path), info.size, info.version, ready=ready)
    try:
        status = path.stat()
    except OSError:
        return None
    mark = f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
    # not st_mtime, which programs set as they like: ctime moves with every write, rename and touch
    return SourceFile(str(path), status.st_size, mark, changed_at=datetime.fromtimestamp(status.st_ctime, UTC), ready=ready)


class _Markers:
    """Whether the marker of a file is there: `.done` after its own name, or another name in its folder. A folder is listed once."""

    def __init__(self, marker: str | None) -> None:
        self._marker = marker
        self._listed: dict[str, Collection[str]] = {}

    def stands_for(self, path: FilePath) -> bool:
        if self._marker is None:
            return True
        name = f"{path.name}{self._marker}" if self._marker.startswith(".") else self._marker
        if isinstance(path, Path):
            return path.with_name(name).exists()
        folder = str(path.parent)
        if folder not in self._listed:
            prefix = f"{path.parent.key}/" if path.parent.key else ""
            self._listed[folder] = {info.key.removeprefix(prefix) for info in path.store.objects(prefix, deep=False)}
        return name in self._listed[folder]


def content_digest(path: FilePath, file: SourceFile) -> str:
    """The hash of a local file of at most 16 MB; empty for others: a store's version says enough, and large files take too long."""
    if isinstance(path, ObjectPath) or file.size > _HASHED_BYTES:
        return ""
    hashed = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as opened:
            while block := opened.read(_BLOCK):
                hashed.update(block)
    except OSError as error:
        raise ReadFailed(f"{path} cannot be opened: {error}", hint="see that it exists and may be read") from error
    return hashed.hexdigest()


def unchanged(files: Sequence[SourceFile], path_of: Callable[[str], FilePath]) -> list[FilePath]:
    """The paths of files that still are what they were. One that was written anew is left out, and named in the log: its new content
    is asked for by itself. Raises ReadFailed for one that is gone."""
    kept: list[FilePath] = []
    for file in files:
        path = path_of(file.name)
        now = state_of(path)
        if now is None:
            hint = "a run that takes exactly these files cannot do without it: put it back, or the sensor asks again without it"
            raise ReadFailed(f"{file.name} is gone since the sensor found it", hint=hint)
        if now.mark == file.mark or (file.digest and content_digest(path, now) == file.digest):
            kept.append(ObjectPath(path.store, path.key, path.state()) if isinstance(path, ObjectPath) else path)
        else:
            log.warning("%s was written anew since the sensor found it; its new content comes with a run of its own", file.name)
    if not kept:
        raise ReadFailed("every file that the sensor found was written anew since", hint="their new content comes with a run of its own")
    return kept
