"""Heartbeats: a thread that notes in the drive table that the attempts of this process go on.

Here: the thread. Not here: what silence means (`execution.liveness`), the table (`execution.drive`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from dataflow_assets.execution.drive import Drive
from dataflow_assets.tables import utc_now


class Heartbeat:
    """Beats for the attempts that `ids` names at the time, every so many seconds, from its beginning to its end."""

    def __init__(self, drive: Drive, ids: Callable[[], Sequence[str]], *, every: float) -> None:
        self._drive, self._ids, self._every = drive, ids, every
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
            self._drive.beat(self._ids(), at=utc_now())
