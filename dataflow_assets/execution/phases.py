"""The phases of a window, timed as they happen.

Here: which phase was entered when, how long it took, whether it failed, what it counted. Not here: the work (`execution.window`,
`execution.publishing`), what is written of it (`execution.journal`).

The names are those of the Drive system; docs/history.md says which part of a window each of them is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from dataflow_assets.execution.events import Event
from dataflow_assets.storage.drive import PHASES
from dataflow_assets.tables import utc_now

CLAIM, CHECK, STAGE, PUBLISH, AUDIT, SWEEP, RETAIN = PHASES
Status = Literal["COMPLETED", "FAILED", "SKIPPED"]


@dataclass
class Phase:
    """What is known of one phase. `seconds`: time spent in it, which others may interrupt; `skipped`: why it did nothing."""

    name: str
    started_at: datetime | None = None
    ended_at: datetime | None = None
    seconds: float = 0.0
    counts: dict[str, Any] = field(default_factory=dict)
    skipped: str = ""
    error: BaseException | None = None

    @property
    def status(self) -> Status:
        """What became of it."""
        return "FAILED" if self.error is not None else "SKIPPED" if self.skipped else "COMPLETED"


@dataclass
class Phases:
    """The phases of one window that were entered, by name, in the order of their first entry."""

    found: dict[str, Phase] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Phase:
        return self.found.setdefault(name, Phase(name))

    @contextmanager
    def during(self, name: str) -> Iterator[Phase]:
        """Time what is done inside; an exception is the failure of the phase, and goes on."""
        phase = self[name]
        phase.started_at = phase.started_at or utc_now()
        started = time.perf_counter()
        try:
            yield phase
        except BaseException as error:
            phase.error = error
            raise
        finally:
            phase.seconds += time.perf_counter() - started
            phase.ended_at = utc_now()

    def follow(self, name: str, events: Iterator[Event]) -> Iterator[Event]:
        """Pass events on, and time what is done to make them, not what their listener does with them."""
        while True:
            with self.during(name):
                event = next(events, None)
            if event is None:
                return
            yield event

    def drop_untouched(self) -> None:
        """Forget the checks where none had its turn: a window that stops before them has them still to come."""
        check = self.found.get(CHECK)
        if check is not None and check.error is None and not check.counts.get("checks"):
            del self.found[CHECK]

    def settle(self, skipped: Mapping[str, str]) -> dict[str, Phase]:
        """The phases at the end of a window, in order: those that did nothing with the reason why. Others are still to come."""
        for name, reason in skipped.items():
            if name not in self.found or self.found[name].error is None:
                self[name].skipped = reason
        return {name: self.found[name] for name in PHASES if name in self.found}
