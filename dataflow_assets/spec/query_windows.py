"""`windows:` of a pipeline: how it is cut into windows, and which of them may be asked for.

Here: the keys, those of the Drive system beside ours, and the durations in which either is said. Not here: which windows are due
(`plan.windows`), which are out of reach (`plan.gaps`).
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field, field_validator

from dataflow_assets.spec.base import Duration, Model
from dataflow_assets.spec.schedules import known_timezone
from dataflow_assets.windows import Cadence

_WORDS = re.compile(r"^\s*(?P<n>\d+(\.\d+)?)?\s*(?P<unit>[a-z]+)\s*\Z")
_MINUTES = {
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 1),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours", "hourly"), 60),
    **dict.fromkeys(("d", "day", "days", "daily"), 1440),
    **dict.fromkeys(("w", "week", "weeks", "weekly"), 10080),
}
_MONTHS = re.compile(r"^\s*(?P<n>\d+(\.\d+)?)\s*months?\s*\Z")
_WHOLE = {60: "hour", 1440: "day", 10080: "week"}
_TIME_OF_DAY = re.compile(r"^\s*\d{1,2}:\d{2}(:\d{2})?\s*\Z")


def cadence_of(text: str) -> str:
    """`1h`, `30 min`, `0.5 hours`, `2 hours`, `1 day` as a cadence; what is none of these is left as it is.

    Raises ValueError for a length that does not divide a day into equal windows.
    """
    match = _WORDS.match(text.lower())
    unit = match["unit"].removesuffix("s") if match else ""
    if match is None or (match["unit"] not in _MINUTES and unit not in {"month", "year"}):
        return text
    number = float(match["n"] or 1)
    if unit in {"month", "year"}:
        return unit if number == 1 else text
    minutes = number * _MINUTES[match["unit"]]
    if minutes in _WHOLE:
        return _WHOLE[int(minutes)]
    if minutes >= 1 and minutes < 60 and minutes == int(minutes) and 60 % minutes == 0:
        return f"{int(minutes)}min"
    if minutes % 60 == 0 and minutes and 1440 % minutes == 0:
        return f"0 */{int(minutes // 60)} * * *"
    fitting = [f"{n} min" for n in (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30)] + [f"{n}h" for n in (1, 2, 3, 4, 6, 8, 12, 24)]
    lengths = [1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, *(60 * n for n in (1, 2, 3, 4, 6, 8, 12, 24))]
    nearest = min(range(len(lengths)), key=lambda index: abs(lengths[index] - minutes))
    raise ValueError(f"windows of {text.strip()} do not divide a day; did you mean '{fitting[nearest]}'?")


def _as_cadence(value: Any) -> Any:
    return cadence_of(value) if isinstance(value, str) else value


def _as_duration(value: Any) -> Any:
    """A duration as it is written; a bare number counts days, and a month is 30 of them, as in the Drive system."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value}d"
    months = _MONTHS.match(value) if isinstance(value, str) else None
    return f"{float(months['n']) * 30:g}d" if months else value


def _no_time_of_day(value: Any) -> Any:
    if isinstance(value, str) and _TIME_OF_DAY.match(value):
        raise ValueError(f"{value!r} is a time of day, and this is a moment; for hours in which nothing may run, use a calendar's `daily`")
    return value


Every = Annotated[str, BeforeValidator(_as_cadence, json_schema_input_type=str)]
DaysBack = Annotated[Duration | None, BeforeValidator(_as_duration, json_schema_input_type=str | float | None)]
Moment = Annotated[datetime | date | None, BeforeValidator(_no_time_of_day, json_schema_input_type=datetime | date | None)]


class WindowOptions(Model):
    """How a pipeline is cut into windows. DFT's `variables.microbatch` block becomes this."""

    every: Every = Field(
        validation_alias=AliasChoices("every", "batch_size", "granularity"),
        description="10min, 2 hours, hour, day, week, month, year or a cron expression",
    )
    timezone: str = Field("UTC", description="whose wall clock the window edges follow, e.g. America/New_York")
    begin: datetime | date | None = Field(
        None, description="the first window holds this moment; on the wall clock of timezone when it has no offset"
    )
    end: datetime | date | None = Field(None, description="no window starts at or after this moment; default: now")
    lookback: int = Field(0, ge=0, description="how many already published windows to run again, for rows that arrive late")
    lag: Duration = Field("0s", description="wait this long after a window's end before it runs, e.g. 2h")
    reads_back: Duration = Field(
        "0s", description="how long before its start a window reads what other pipelines publish, e.g. 6d for sums over a week"
    )
    x_days_back: DaysBack = Field(None, description="windows older than now less this much are out of reach; 7d, 36h, or a number of days")
    acceptable_start: Moment = Field(
        None,
        validation_alias=AliasChoices("acceptable_start", "acceptable_data_fetch_start_time"),
        description="windows that start before this moment are out of reach; where there is no begin, it is this",
    )
    acceptable_end: Moment = Field(
        None,
        validation_alias=AliasChoices("acceptable_end", "acceptable_data_fetch_end_time"),
        description="no window that ends after this moment is asked for",
    )

    @field_validator("every")
    @classmethod
    def _cadence_is_known(cls, value: str) -> str:
        Cadence(value)
        return value

    @field_validator("timezone")
    @classmethod
    def _timezone_is_known(cls, value: str) -> str:
        return known_timezone(value)

    @property
    def cadence(self) -> Cadence:
        """The validated cadence."""
        return Cadence(self.every, self.timezone)
