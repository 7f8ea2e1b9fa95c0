"""The runs that ended since the last sweep, each once, however many there are and whatever hosts' clocks say.

Here: the position in the history of runs and how it moves on. Not here: what a run shows (`watching`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg

from dataflow_assets.operations.alerts.memory import Position

ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
_OVERLAP = timedelta(minutes=2)
MOST_RUNS, MOST_SECONDS = 500, 20.0
"""What one sweep reads at most; the rest waits for the next. A sensor's tick may take 60 s, and one that takes longer has done nothing."""


class EndedRuns:
    """Those that ended after a position; the ones of the last two minutes before it are looked for again, as hosts' clocks differ."""

    def __init__(self, instance: dg.DagsterInstance, position: Position, *, since: datetime) -> None:
        self._position, self._after = position, position.runs_after or since
        filters = dg.RunsFilter(statuses=list(ENDED), updated_after=self._after - _OVERLAP)
        # those that were read before, and one more than is read now, so that it is known whether any are left
        most = len(position.seen) + MOST_RUNS + 1
        self._records = instance.get_run_records(filters, limit=most, order_by="update_timestamp", ascending=True)
        self._new = [record for record in self._records if position.seen.get(_id(record)) != _status(record)]
        self._taken = 0

    def __iter__(self) -> Iterator[dg.RunRecord]:
        """The new ones, oldest first, as many as one sweep reads."""
        until = time.monotonic() + MOST_SECONDS
        for record in self._new[:MOST_RUNS]:
            self._taken += 1
            yield record
            if time.monotonic() >= until:
                return

    @property
    def position(self) -> Position:
        """The position after those that were taken."""
        left = self._new[self._taken :]
        last: Sequence[dg.RunRecord] = self._new[: self._taken] if left else self._records
        if not last:
            return replace(self._position, runs_after=self._after)
        newest = max(_updated(last[-1]), self._after)
        waiting = {_id(record) for record in left}
        kept = (record for record in self._records if _id(record) not in waiting and _updated(record) > newest - 2 * _OVERLAP)
        return replace(self._position, runs_after=newest, seen={_id(record): _status(record) for record in kept})


def _id(record: dg.RunRecord) -> str:
    return record.dagster_run.run_id


def _status(record: dg.RunRecord) -> str:
    return record.dagster_run.status.value


def _updated(record: dg.RunRecord) -> datetime:
    moment = record.update_timestamp
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
