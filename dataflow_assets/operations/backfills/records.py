"""What is kept of a backfill, where every host that shares the Dagster instance can read it.

Here: the request and the windows it was for, who drives it now, whether it was cancelled: values of the instance's key-value store
(`cursor values`, on SQLite and Postgres). Not here: what of it is done, which the ledgers and the runs say (`progress`).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

import dagster as dg

from dataflow_assets.assets.drivers import Driver
from dataflow_assets.assets.names import BACKFILL_TAG
from dataflow_assets.errors import SelectionError
from dataflow_assets.plan.backfills import UNFINISHED, Only, Order, Span
from dataflow_assets.plan.names import suggest

_PREFIX = "dataflow/backfill/"
_INDEX = "dataflow/backfills"
_KEPT = 500
_TRIES = 5


@dataclass(frozen=True)
class Request:
    """What was asked for, as the command line said it; two equal requests are the same backfill."""

    select: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    start: str | None = None
    end: str | None = None
    keys: tuple[str, ...] = ()
    last: int | None = None
    only: tuple[Only, ...] = UNFINISHED
    order: Order = "oldest"
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Backfill:
    """One backfill: its request, and the windows of each pipeline (upstream ones first) when it was begun."""

    id: str
    project: str
    created_at: datetime
    by: str
    host: str
    request: Request
    windows: Mapping[str, tuple[Span, ...]]
    counts: Mapping[str, int]
    cancelled_at: datetime | None = None
    steps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The steps of those pipelines of which only some were selected."""

    @property
    def again(self) -> bool:
        """Whether it is also about windows that were published when it began."""
        return not set(self.request.only) <= set(UNFINISHED)

    @property
    def total(self) -> int:
        """How many windows it is about."""
        return sum(self.counts.values())


def new_id() -> str:
    """A short name that no other backfill has."""
    return secrets.token_hex(4)


class Records:
    """The backfills of an instance."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance

    def add(self, backfill: Backfill) -> None:
        """Keep a new backfill; it can be listed from now on."""
        self.save(backfill)
        for _ in range(_TRIES):  # two hosts that add at the same moment may overwrite each other's index
            names = self._names()
            if backfill.id in names:
                return
            self._write(_INDEX, json.dumps([*names, backfill.id][-_KEPT:]))

    def save(self, backfill: Backfill) -> None:
        """Write it, in place of what was known of it."""
        self._write(_PREFIX + backfill.id, json.dumps(asdict(backfill), default=_moment))

    def cancel(self, backfill: Backfill, *, now: datetime) -> Backfill:
        """Mark it as cancelled; whoever drives it stops at its next look."""
        cancelled = replace(backfill, cancelled_at=now)
        self.save(cancelled)
        return cancelled

    def uncancel(self, backfill: Backfill) -> Backfill:
        """Take the mark away: somebody goes on with it."""
        again = replace(backfill, cancelled_at=None)
        self.save(again)
        return again

    def all(self) -> list[Backfill]:
        """Those that are known, newest first; also one that only its runs tell of, if its record is there."""
        names = dict.fromkeys([*self._names(), *self._tagged()])
        found = self._read([_PREFIX + name for name in names])
        return sorted((_backfill(text) for text in found.values()), key=lambda item: item.created_at, reverse=True)

    def get(self, name: str) -> Backfill:
        """The backfill of an id, or of the beginning of one. Raises SelectionError."""
        if text := self._read([_PREFIX + name]).get(_PREFIX + name):
            return _backfill(text)
        known = [item for item in self.all() if item.id.startswith(name)]
        if len(known) != 1:
            ids = [item.id for item in (known or self.all())]
            what = "several backfills begin with" if known else "there is no backfill"
            raise SelectionError(f"{what} {name!r}", hint=suggest(name, ids, noun="backfills") if ids else "`dataflow backfill list`")
        return known[0]

    def beat(self, backfill: Backfill, driver: Driver) -> None:
        """Say that `driver` works on it."""
        self._write(f"{_PREFIX}{backfill.id}/driver", json.dumps(asdict(driver), default=_moment))

    def leave(self, backfill: Backfill, driver: Driver, *, interrupted: bool) -> None:
        """Say that nobody works on it any more; of one that was interrupted, who did last."""
        if interrupted:
            self.beat(backfill, replace(driver, process_id=0))
        else:
            self._write(f"{_PREFIX}{backfill.id}/driver", "")

    def driver(self, backfill: Backfill) -> Driver | None:
        """Who said last that it works on it, alive or not."""
        key = f"{_PREFIX}{backfill.id}/driver"
        text = self._read([key]).get(key)
        if not text:
            return None
        known = json.loads(text)
        return Driver(**{**known, "at": datetime.fromisoformat(known["at"])})

    def _names(self) -> list[str]:
        found: list[str] = json.loads(self._read([_INDEX]).get(_INDEX) or "[]")
        return found

    def _tagged(self) -> Sequence[str]:
        found = self._instance.run_storage.get_run_tags(tag_keys=[BACKFILL_TAG])
        return sorted(value for _, values in found for value in values)

    def _read(self, keys: Sequence[str]) -> Mapping[str, str]:
        return self._instance.run_storage.get_cursor_values(set(keys)) if keys else {}

    def _write(self, key: str, text: str) -> None:
        self._instance.run_storage.set_cursor_values({key: text})


def _moment(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


def _backfill(text: str) -> Backfill:
    known = json.loads(text)
    request: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in known["request"].items()}
    windows = {name: tuple(Span(**span) for span in spans) for name, spans in known["windows"].items()}
    cancelled = known["cancelled_at"]
    return Backfill(
        **{
            **known,
            "created_at": datetime.fromisoformat(known["created_at"]),
            "cancelled_at": datetime.fromisoformat(cancelled) if cancelled else None,
            "request": Request(**request),
            "windows": windows,
            "steps": {name: tuple(steps) for name, steps in known["steps"].items()},
        }
    )
