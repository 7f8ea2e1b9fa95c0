"""Starting fast: no garbage is looked for until rows move.

Here: where it is looked for again. Not here: what else keeps a process small (`footprint`).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collecting_garbage() -> Iterator[None]:
    """Around the part of a verb that moves rows: garbage is looked for again, what has been imported by then is left out of it."""
    gc.freeze()
    gc.enable()
    try:
        yield
    finally:
        gc.unfreeze()
