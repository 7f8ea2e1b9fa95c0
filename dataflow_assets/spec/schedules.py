"""What the user may write about time: `schedule:` of a pipeline and `calendars:` of the project.

Here: the shapes, and the short forms that stand for them (a text, a list). Not here: what a cron expression or a calendar means
(`plan.schedules`, `calendars`), Dagster's schedules (`operations.schedules`).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from dataflow_assets.calendars import read_hours, read_span, read_weekday
from dataflow_assets.spec.base import Model, Names


def known_timezone(name: str) -> str:
    """The name of a timezone as it is written. Raises ValueError with the nearest known one."""
    from zoneinfo import ZoneInfo, available_timezones

    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        known = {item.lower(): item for item in available_timezones()}
        cities = {item.rpartition("/")[2].lower(): item for item in sorted(known.values())}
        wanted = name.strip().lower().replace(" ", "_")
        near = difflib.get_close_matches(wanted, [*known, *cities], n=1, cutoff=0.6)
        meant = f"; did you mean {known.get(near[0]) or cities[near[0]]!r}?" if near else ", such as 'Europe/Berlin'"
        raise ValueError(f"{name!r} is not a timezone name{meant}") from None
    return name


def _written_short(value: Any) -> Any:
    """`schedule: "@daily"`, `schedule: every 10 min`, `schedule: windows`, or a list of cron expressions."""
    if isinstance(value, str):
        text = " ".join(value.split())
        if not text:
            return None
        if text.lower() == "windows":
            return {"windows": True}
        return {"every": text[6:]} if text.lower().startswith("every ") else {"cron": [text]}
    return {"cron": value} if isinstance(value, list) else value


class ScheduleOptions(Model):
    """When a pipeline runs by itself. One of `cron`, `every` and `windows`."""

    cron: Names = Field(default_factory=list, description="five cron fields, @hourly, @daily, @weekly, @monthly or @yearly; or several")
    every: str | None = Field(None, description="10 min, 2 hours, 90 min, day, 2 weeks, month")
    windows: bool = Field(False, description="true: whenever a window has ended, and its lag has passed")
    timezone: str | None = Field(None, description="whose wall clock it follows; default: that of windows, else the project's")
    catch_up: Literal["all", "latest"] = Field(
        "all", description="what a tick asks for: every window that is due, or only the newest; the others then count as skipped"
    )
    paused_until: datetime | date | None = Field(None, description="no tick asks for anything before this moment")
    blackout: Names = Field(default_factory=list, description="calendars of the project in which no tick asks for anything")
    status: Literal["stopped", "running"] = Field("stopped", description="whether it ticks before somebody starts it in the UI")
    max_windows: int | None = Field(None, ge=1, description="most windows that one tick asks for; the others wait for the next")
    order: Literal["oldest", "newest"] = Field("oldest", description="which windows go first where max_windows puts some off")

    @model_validator(mode="after")
    def _one_of_three(self) -> ScheduleOptions:
        said = [name for name, value in (("cron", self.cron), ("every", self.every), ("windows", self.windows)) if value]
        if len(said) > 1:
            raise ValueError(f"a schedule has one of cron, every and windows, not {' and '.join(said)}")
        if not said:
            raise ValueError("a schedule says when: write cron, every or windows: true")
        return self

    @field_validator("timezone")
    @classmethod
    def _timezone_is_known(cls, value: str | None) -> str | None:
        return value if value is None else known_timezone(value)


_SHAPES = ScheduleOptions | list[str] | str | None
Schedule = Annotated[ScheduleOptions | None, BeforeValidator(_written_short, json_schema_input_type=_SHAPES)]


def _dates_only(value: Any) -> Any:
    return {"dates": value} if isinstance(value, list) else value


def _as_texts(value: Any) -> Any:
    items = value if isinstance(value, list) else [value]
    return [item.isoformat() if isinstance(item, date) else item for item in items]


def _read_by(read: Callable[[str], object]) -> AfterValidator:
    def check(text: str) -> str:
        read(text)
        return text

    return AfterValidator(check)


Days = Annotated[list[Annotated[str, _read_by(read_span)]], BeforeValidator(_as_texts, json_schema_input_type=list[str] | str)]
Weekdays = Annotated[list[Annotated[str, _read_by(read_weekday)]], BeforeValidator(_as_texts, json_schema_input_type=list[str] | str)]
DayHours = Annotated[list[Annotated[str, _read_by(read_hours)]], BeforeValidator(_as_texts, json_schema_input_type=list[str] | str)]


class CalendarOptions(Model):
    """Times in which nothing is to run: on these days (every day where none are said), in these hours (all day likewise)."""

    dates: Days = Field(default_factory=list, description="2026-12-25, or from..to with both days: 2026-12-24..2027-01-02")
    weekdays: Weekdays = Field(default_factory=list, description="monday to sunday, or mon to sun")
    daily: DayHours = Field(default_factory=list, description='hours, "22:00-06:00"; past midnight they belong to the day they began on')
    timezone: str | None = Field(None, description="whose wall clock it follows; default: the project's")

    @field_validator("timezone")
    @classmethod
    def _timezone_is_known(cls, value: str | None) -> str | None:
        return value if value is None else known_timezone(value)


Calendar = Annotated[CalendarOptions, BeforeValidator(_dates_only, json_schema_input_type=CalendarOptions | list[str])]
