"""The numbers that a new one is compared with.

Here: one measured window, what was said of it, and which of them may be learned from. Not here: reading them from a ledger.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

FLAG = "!flagged"
"""What is added to a metric's name in the ledger to mark a number that was flagged."""
ROWS = "!rows"
"""What is added to it for the rows that a share was worked out from."""


def is_mark(name: str) -> bool:
    """Whether a name in the ledger stands beside a number, and is none itself."""
    return name.endswith((FLAG, ROWS))


class Standing(enum.StrEnum):
    """What is known of a window's number beside the number itself."""

    USUAL = "usual"
    """It was not flagged."""
    FLAGGED = "flagged"
    """It was flagged, and nobody has said anything since: nothing is learned from it."""
    EXPECTED = "expected"
    """It was acknowledged as a value that may come again."""
    LEVEL_SHIFT = "level_shift"
    """It was acknowledged as the first of a new level: nothing before it is learned from."""


@dataclass(frozen=True)
class Measured:
    """The number of one window (or batch): its key, the aware instant it starts at, and the rows it was worked out from."""

    key: str
    start: datetime
    value: float
    rows: int | None = None
    standing: Standing = Standing.USUAL


def learnable(history: Sequence[Measured], *, before: datetime, newest: int) -> list[Measured]:
    """The `newest` windows before an instant that may be learned from, oldest first: of the current level, and not flagged."""
    earlier = sorted((item for item in history if item.start < before), key=lambda item: item.start)
    shifts = [number for number, item in enumerate(earlier) if item.standing is Standing.LEVEL_SHIFT]
    level = earlier[shifts[-1] :] if shifts else earlier
    return [item for item in level if item.standing is not Standing.FLAGGED][-newest:]
