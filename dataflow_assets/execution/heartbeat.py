"""Heartbeats: a thread that says now and then that this process goes on.

Here: the thread. Not here: what is said where (`execution.drive`, `assets.drivers`), what silence means (`execution.liveness`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Heartbeat:
    """Calls `beat`, which raises nothing, every so many seconds from its beginning to its end."""

    def __init__(self, beat: Callable[[], object], *, every: float) -> None:
        self._say, self._every = beat, every
        self._over = threading.Event()
        # a daemon: a process that ends without a word must not wait for it
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(self._every):
            self._say()
