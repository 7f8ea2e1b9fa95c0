"""Whether Ctrl-C was pressed, also when a driver made an ordinary error of it.

Here: watching for the signal. Not here: what a run does about it (`cli.run`).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def watching_interrupts() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether SIGINT has come since; for the main thread only.

    DuckDB turns it into RuntimeError and ADBC into a cancelled statement, and Dagster puts a handler of its own in our place:
    the wake-up pipe is written to whichever handler is in force.
    """
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    seen = bytearray()

    def pressed() -> bool:
        with suppress(BlockingIOError):
            seen.extend(os.read(reading, 4096))
        return signal.SIGINT in seen

    try:
        yield pressed
    finally:
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)
