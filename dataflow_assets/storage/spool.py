"""What could not be sent, kept in files until it can be.

Here: one file of JSON lines for each process, locked while that process lives, and taking over those of processes that are gone. Not
here: what the lines mean and when they are sent (`execution.drive`).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

Line = Mapping[str, Any]


class Spool:
    """The waiting lines of one process in `folder`; nothing is made before the first line."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._path: Path | None = None

    def keep(self, line: Line) -> None:
        """Add a line at the end. Raises OSError."""
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{os.getpid()}-{uuid.uuid4().hex}.jsonl"
            # locked under another name, so that nobody can take over what is not locked yet
            making = path.with_suffix(".new")
            file = making.open("a+b")
            fcntl.flock(file, fcntl.LOCK_EX)
            making.rename(path)
            self._file, self._path = file, path
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()

    def send(self, sending: Callable[[Sequence[Line]], None]) -> int:
        """Hand over the lines of this process and of those that are gone, file by file, and forget what was taken; how many lines.

        What `sending` raises goes through, and the file stays.
        """
        sent = 0
        for path in sorted(self._folder.glob("*.jsonl")) if self._folder.is_dir() else ():
            with self._taken(path) as file:
                if file is None:
                    continue
                file.seek(0)
                lines = _lines(file.read())
                sending(lines)
                path.unlink(missing_ok=True)
                sent += len(lines)
                if path == self._path:
                    self._let_go()
        return sent

    @contextlib.contextmanager
    def _taken(self, path: Path) -> Any:
        """The file of a process that is gone, or our own; None while its process lives."""
        if path == self._path:
            yield self._file
            return
        try:
            file = path.open("r+b")
        except OSError:
            yield None
            return
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield None
                return
            yield file if path.exists() else None  # somebody may have sent it before we had the lock

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._path = None

    def close(self) -> None:
        """Let go of the file, so that whoever comes next may send it."""
        self._let_go()


def _lines(content: bytes) -> list[Line]:
    """The whole lines; one that a killed process left half written is no line."""
    found: list[Line] = []
    for text in content.split(b"\n"):
        with contextlib.suppress(ValueError):
            if isinstance(line := json.loads(text), dict):
                found.append(line)
    return found


def waiting(folder: Path) -> int:
    """How many lines wait in a folder."""
    found = 0
    for path in folder.glob("*.jsonl") if folder.is_dir() else ():
        with contextlib.suppress(OSError):
            found += len(_lines(path.read_bytes()))
    return found
