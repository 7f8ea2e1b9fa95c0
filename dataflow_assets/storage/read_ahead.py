"""Reading batches in a thread of its own, a little ahead of whoever uses them.

Here: a bounded queue between a driver and its consumer. Not here: what the batches hold.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa


@contextmanager
def read_ahead(
    batches: Iterable[pa.RecordBatch], *, depth: int = 2, cancel: Callable[[], object] | None = None
) -> Iterator[Iterator[pa.RecordBatch]]:
    """Iterate over `batches` while a thread fetches up to `depth` of them in advance.

    An error of the producer is raised where the consumer meets it. Leaving early calls `cancel`, which should make the
    producer's wait end, and returns only when the thread has: the driver is then free for other use.
    """
    ready: queue.Queue[Any] = queue.Queue(maxsize=depth)
    stopped = threading.Event()
    finished = threading.Event()

    def put(item: Any) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def produce() -> None:
        try:
            for batch in batches:
                if not put(batch):
                    return
            put(None)
        except BaseException as error:  # noqa: BLE001 - raised again in the consumer's thread
            put(error)
        finally:
            finished.set()

    thread = threading.Thread(target=produce, name="read-ahead", daemon=True)
    thread.start()
    try:
        yield _drain(ready)
    finally:
        stopped.set()
        if cancel is not None and not finished.is_set():
            cancel()
        thread.join()


def _drain(ready: queue.Queue[Any]) -> Iterator[pa.RecordBatch]:
    while (item := ready.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item
