"""Which months a read is about, and whether their files are there.

Google writes a month's file anew each day, some days behind: a window that the files do not reach is not empty, it is not there yet.
Here: months of a window, what must be there, what was reached. Not here: the files' content (`_google_play_read`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.connectors._google_play_files import MonthFile
from dataflow_assets.connectors._google_play_reports import Report, columns_of, name_of
from dataflow_assets.connectors._google_play_values import TYPES
from dataflow_assets.errors import ReadFailed
from dataflow_assets.tables import WindowFilter

if TYPE_CHECKING:
    from dataflow_assets.connectors.google_play import GooglePlaySource

_LATE = "Google writes some days late: give the windows a lag: of 4d or more; or say missing: empty, where there is nothing to report"
_OLDEST, _NEWEST = "", "9"


@dataclass(frozen=True)
class Months:
    """The months whose files must be there, and the first and the last one that may hold rows, each as 202401."""

    needed: tuple[str, ...] = ()
    first: str = _OLDEST
    last: str = _NEWEST
    last_day: date | None = None
    """The day that the files of a daily statistic have to reach."""


def months_of(options: GooglePlaySource, window: WindowFilter | None) -> Months:
    """The months that a read is about: of its window, else from start_date to end_date."""
    if window is None:
        first, last = options.start_date or _OLDEST, options.end_date or _NEWEST
        needed = _between(_day_of(first), _day_of(last)) if options.start_date and options.end_date else ()
        return Months(needed, first, last)
    if options.start_date or options.end_date:
        raise ReadFailed(
            "start_date and end_date are for reads without windows", hint="leave them out; begin: of the windows says where to start"
        )
    report = options.documented
    if options.digest is None and name_of(window.column) != name_of(report.moment):
        return Months()
    first_day, last_day = _days(report, options.by, window)
    needed = _between(first_day, last_day)
    if report.daily:
        return Months(needed, needed[0], needed[-1], last_day)
    # whose midnight ends a month is not told of these reports, so the neighbours of an edge are looked through as well
    around = _between(first_day - timedelta(days=1), last_day + timedelta(days=1))
    return Months(needed, around[0], around[-1])


def _days(report: Report, dimension: str, window: WindowFilter) -> tuple[date, date]:
    """The first and the last day of a window, on the clock of the report's own column."""
    kind = next(column.kind for column in columns_of(report, dimension) if column.heading == report.moment)
    start, end = window.bounds(TYPES[kind])
    last = end - (timedelta(microseconds=1) if isinstance(end, datetime) else timedelta(days=1))
    return _as_date(start), _as_date(last)


def _as_date(moment: date) -> date:
    return moment.date() if isinstance(moment, datetime) else moment


def _day_of(month: str) -> date:
    return date(int(month[:4]), int(month[4:]), 1)


def _between(first: date, last: date) -> tuple[str, ...]:
    start, end = first.year * 12 + first.month - 1, last.year * 12 + last.month - 1
    return tuple(f"{number // 12:04d}{number % 12 + 1:02d}" for number in range(start, end + 1))


@dataclass
class Choice:
    """The files of the months asked for, of the apps asked for: those that are named, else whichever there are."""

    options: GooglePlaySource
    months: Months
    apps: tuple[str, ...]
    where: str
    others: Callable[[], Iterable[str]]
    """Which apps have such a report, for whoever misspelled one."""
    _reached: dict[str, date | None] = field(default_factory=dict)
    """Name of an app, empty for all together -> the last day seen of it, where its files have to reach a day."""

    @property
    def _called(self) -> str:
        by = f" by {self.options.by}" if self.options.by else ""
        return f"{self.options.documented.name} report{by}"

    def _group(self, file: MonthFile) -> str:
        """Apps that are named are looked after one by one; of others nobody knows which should still report."""
        return file.app if self.apps else ""

    def of(self, files: Sequence[MonthFile]) -> list[MonthFile]:
        """The files to read. Before an app's first file there is nothing to report. Raises ReadFailed for one that is missing."""
        groups = self.apps if self.apps and not self.options.documented.app_column else ("",)
        for group in groups:
            months = {file.month for file in files if self._group(file) == group or group == ""}
            if not months:
                raise self._none_of(group)
            if self.options.missing == "error":
                self._require(group, months)
        return [file for file in files if self.months.first <= file.month <= self.months.last]

    def _none_of(self, app: str) -> ReadFailed:
        others = ", ".join(sorted(set(self.others()))[:20]) if app else ""
        hint = f"there are reports of {others}" if others else "see what lies in the bucket, and how package_name is spelled"
        return ReadFailed(f"there is no {self._called}{f' of {app}' if app else ''} in {self.where}", hint=hint)

    def _require(self, app: str, months: set[str]) -> None:
        if absent := [month for month in self.months.needed if min(months) <= month and month not in months]:
            raise ReadFailed(
                f"there is no {self._called}{f' of {app}' if app else ''} for {', '.join(absent)} in {self.where}; "
                f"the newest is for {max(months)}",
                hint=_LATE,
                transient=True,
            )
        if self.months.last_day is not None and max(months) == self.months.last:
            self._reached[app] = None

    def complete(self, rows: Iterable[tuple[MonthFile, pa.RecordBatch]], day: str) -> Iterator[pa.RecordBatch]:
        """The batches, whose column `day` tells their day. At their end raises ReadFailed when they do not reach the last one."""
        for file, batch in rows:
            group = self._group(file)
            if group in self._reached and (latest := pc.max(batch.column(day)).as_py()) is not None:
                self._reached[group] = max(latest, self._reached[group] or latest)
            yield batch
        for app, reached in self._reached.items():
            if self.months.last_day is not None and (reached is None or reached < self.months.last_day):
                raise ReadFailed(
                    f"the {self._called}{f' of {app}' if app else ''} in {self.where} ends with {reached or 'no day'}, "
                    f"and the window with {self.months.last_day}",
                    hint=_LATE,
                    transient=True,
                )
