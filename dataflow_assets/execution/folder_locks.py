"""Whether the process behind an attempt's folder lives, also when it runs on another host.

Here: the lock of a folder, and signs of life beside it. Not here: what is done with a dead attempt (`execution.attempts`), the heartbeats
of workers in the drive table (`execution.liveness`).

On its own host a lock tells at once: it falls with the process. Whether another host sees it depends on the file system: NFS 4 shows it,
others keep it to themselves or have none, and a living attempt would seem dead there. So the lock's file also holds the host's name and
gets a new time every few seconds; another host takes an attempt for dead when that has stopped. Hosts' clocks must agree within a minute.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

LOCK = "lock"
SIGN_SECONDS = 15.0
GONE_SECONDS = 120.0
_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
_LONGEST_NAME = 256


class Signs:
    """Gives the lock files of this process's attempts a new time, in a thread that there is while there are any."""

    def __init__(self) -> None:
        self._files: set[int] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    def begin(self, file: int) -> None:
        """Give signs through this open file from now on."""
        with self._changed:
            if self._process != os.getpid():  # forked: the parent's files are not ours, and its thread is not here
                self._files, self._thread, self._process = set(), None, os.getpid()
            self._files.add(file)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dataflow-signs", daemon=True)
                self._thread.start()

    def end(self, file: int) -> None:
        """No more signs through it."""
        with self._changed:
            self._files.discard(file)
            self._changed.notify_all()

    def give(self) -> None:
        """Give one sign for each attempt."""
        for file in list(self._files):
            with suppress(OSError):
                os.utime(file)

    def _run(self) -> None:
        with self._changed:
            while self._files:
                self._changed.wait(SIGN_SECONDS)
                self.give()
            self._thread = None


signs = Signs()


def hold(folder: Path) -> int:
    """Lock a folder for this process. The open file that holds it; a file system without locks is held by signs alone."""
    file = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o644)
    os.write(file, socket.gethostname().encode())
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX)
    signs.begin(file)
    return file


def release(file: int) -> None:
    """Let go, so that every host sees at once that the attempt has ended."""
    signs.end(file)
    with suppress(OSError):
        os.utime(file, (0, 0))
    os.close(file)


def is_alive(folder: Path) -> bool:
    """Whether the process that holds the folder lives, as far as this host can tell. What may not be looked at is left alone."""
    try:
        file = os.open(folder / LOCK, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    try:
        # shared: two that look at once must not take each other for the holder
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _HELD or _gives_signs(file)
    else:
        return _is_of_another_host(file) and _gives_signs(file)
    finally:
        os.close(file)


def _is_of_another_host(file: int) -> bool:
    name = os.pread(file, _LONGEST_NAME, 0).decode(errors="replace")
    return bool(name) and name != socket.gethostname()


def _gives_signs(file: int) -> bool:
    return os.fstat(file).st_mtime > time.time() - GONE_SECONDS
