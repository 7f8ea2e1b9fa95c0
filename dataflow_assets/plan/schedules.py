"""`schedule:` of a pipeline, resolved: when it ticks, on whose clock, in which calendars it is silent; and what is refused.

Here: from what is written to a `SchedulePlan`, with a suggestion for every mistake. Not here: Dagster's schedules and what a tick
asks for (`operations.schedules`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from math import ceil
from zoneinfo import ZoneInfo

from dataflow_assets.calendars import Calendar, read_hours, read_span, read_weekday
from dataflow_assets.cron import parse_cron, ticks
from dataflow_assets.plan.findings import Findings
from dataflow_assets.plan.model import SchedulePlan, WindowPlan
from dataflow_assets.plan.names import suggest
from dataflow_assets.plan.periods import Period, read_period
from dataflow_assets.spec.models import PipelineModel
from dataflow_assets.spec.project import Project
from dataflow_assets.spec.schedules import CalendarOptions, ScheduleOptions
from dataflow_assets.windows import as_utc

_PLAIN_CRON = re.compile(r"(\*|[1-5]?\d|\*/([2-9]|[1-5]\d)) (\*|1?\d|2[0-3]) (\*|[1-9]|1\d|2[0-8]) \* (\*|[0-6])")
"""Surely sound, told without the import of a cron parser; anything else is parsed."""
NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 1",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_NUMBER = re.compile(r"\d+")
_MINUTE_FIELD = re.compile(r"^(?P<first>\d+)\Z|^\*/(?P<step>\d+)\Z")
_EVERY_DAY = ["*", "*", "*"]
_SHORTEST_MONTH = 28
_TRIED_TICKS, _TRIED_DAYS = 1000, 3700


def schedule_plan(model: PipelineModel, project: Project, windows: WindowPlan | None, findings: Findings) -> SchedulePlan | None:
    """The schedule of a pipeline; None where there is none, or where `findings` now say what is wrong with it."""
    options = model.schedule
    if options is None:
        return None
    before = len(findings.problems)
    zone = options.timezone or (windows.cadence.timezone if windows else project.model.timezone)
    period = _period(options, model, windows, findings)
    blackout = _blackout(options, project, findings)
    if len(findings.problems) > before:
        return None
    paused = as_utc(options.paused_until, zone) if options.paused_until is not None else None
    plan = SchedulePlan(
        text=_text(options),
        crons=period.crons,
        timezone=zone,
        slot_minutes=period.slot_minutes,
        after_windows=options.windows,
        catch_up=options.catch_up,
        paused_until=paused,
        blackout=blackout,
        running=options.status == "running",
        max_windows=options.max_windows,
        order=options.order,
    )
    _refuse_silence(plan, findings)
    return plan if len(findings.problems) == before else None


def _text(options: ScheduleOptions) -> str:
    """What is written, in its short form."""
    if options.windows:
        return "windows"
    return f"every {options.every}" if options.every else ", ".join(item.strip() for item in options.cron)


def _period(options: ScheduleOptions, model: PipelineModel, windows: WindowPlan | None, findings: Findings) -> Period:
    if options.windows:
        if model.windows is None:
            findings.add(("schedule",), "schedule: windows needs windows", hint="add a windows: block, or write a cron expression")
        return Period((after_each_window(windows),)) if windows else Period(())
    if options.every is None:
        return Period(tuple(_cron(text, number, findings) for number, text in enumerate(options.cron)))
    try:
        return read_period(options.every)
    except ValueError as error:
        message, _, hint = str(error).partition("; ")
        findings.add(("schedule", "every"), message, hint=hint)
        return Period(())


def _cron(written: str, number: int, findings: Findings) -> str:
    """Five fields; what is none is noted with its wrong field and a suggestion."""
    text = " ".join(written.split())
    if text in NICKNAMES:
        return NICKNAMES[text]
    if not _PLAIN_CRON.fullmatch(text):
        try:
            parse_cron(text)
        except ValueError as error:
            never = "never" in str(error)
            message = f"the schedule {text!r} never comes" if never else f"{text!r} is not a schedule{_wrong_field(text)}"
            findings.add(("schedule", "cron", number), message, hint=_suggestion(text, never=never))
    return text


def _wrong_field(text: str) -> str:
    fields = text.split()
    if len(fields) != len(_FIELDS):
        return "" if text.startswith("@") or len(fields) == 1 else f": it has {len(fields)} fields"
    for field, (name, least, most) in zip(fields, _FIELDS, strict=True):
        numbers = [int(item) for item in _NUMBER.findall(field.partition("/")[0])]
        if wrong := next((item for item in numbers if not least <= item <= most), None):
            return f": {name} {wrong} is not between {least} and {most}"
    return ""


def _suggestion(text: str, *, never: bool) -> str:
    fields = text.split()
    if len(fields) == 4:
        return f"did you mean '{text} *'?"
    if len(fields) == 6:
        return f"a schedule has no seconds; did you mean '{' '.join(fields[1:])}'?"
    words = [*NICKNAMES, *(name.removeprefix("@") for name in NICKNAMES), "windows"]
    near = suggest(text, words) if len(fields) == 1 and not never else ""
    if near.startswith("did you mean"):
        word = near.split("'")[1]
        return f"did you mean '{word if word == 'windows' or word.startswith('@') else '@' + word}'?"
    return "write five cron fields (minute hour day month weekday) like '30 6 * * *', or @hourly, @daily, @weekly, every 10 min, windows"


def after_each_window(windows: WindowPlan) -> str:
    """The cadence, moved by the lag in whole minutes, or by what of it a cron expression can say; windows due later wait for the next tick.

    Where days are limited and the lag is one or more of them, the day of the week or of the month moves, or it ticks every day.
    """
    minute, hour, *days = windows.cadence.cron.split()
    late = ceil(windows.lag_seconds / 60)
    match = _MINUTE_FIELD.match(minute)
    if not late or not match:
        return windows.cadence.cron
    if step := int(match["step"] or 0):
        return " ".join([f"{late % step}-59/{step}" if late % step else minute, hour, *days])
    total = int(minute) + late
    if not hour.isdigit():
        return " ".join([str(total % 60), _hours_later(hour, total // 60) if days == _EVERY_DAY else hour, *days])
    passed, at = divmod(int(hour) * 60 + total, 24 * 60)
    return " ".join([str(at % 60), str(at // 60), *_days_later(days, passed)])


def _hours_later(hour: str, passed: int) -> str:
    """An hour field that divides the day, some hours later; any other as it is."""
    step = int(hour.removeprefix("*/")) if hour.removeprefix("*/").isdigit() else 0
    return f"{passed % step}-23/{step}" if step and 24 % step == 0 and passed % step else hour


def _days_later(days: Sequence[str], passed: int) -> list[str]:
    """The day, month and weekday fields of a cron expression, some days later; every day where they cannot say it."""
    day, month, weekday = days
    if not passed or days == _EVERY_DAY:
        return list(days)
    if (day, month) == ("*", "*") and weekday.isdigit():
        return ["*", "*", str((int(weekday) + passed) % 7)]
    if day.isdigit() and weekday == "*" and int(day) + passed <= _SHORTEST_MONTH:
        return [str(int(day) + passed), month, "*"]
    return _EVERY_DAY


def _blackout(options: ScheduleOptions, project: Project, findings: Findings) -> tuple[Calendar, ...]:
    known = project.model.calendars
    found = []
    for number, name in enumerate(options.blackout):
        if name not in known:
            hint = suggest(name, known, noun="calendars") if known else "add it under calendars: in the project file"
            findings.add(("schedule", "blackout", number), f"there is no calendar {name!r}", hint=hint)
        else:
            found.append(read_calendar(name, known[name], project))
    return tuple(found)


def read_calendar(name: str, options: CalendarOptions, project: Project) -> Calendar:
    """A calendar of the project, on its own clock or the project's."""
    zone = ZoneInfo(options.timezone or project.model.timezone)
    spans = tuple(read_span(text) for text in options.dates)
    weekdays = frozenset(read_weekday(text) for text in options.weekdays)
    return Calendar(name, zone, spans, weekdays, tuple(read_hours(text) for text in options.daily))


def tick_times(plan: SchedulePlan, start: datetime, *, days: int = _TRIED_DAYS) -> Iterable[datetime]:
    """The ticks of a schedule after `start`, day by day, each once."""
    zone = ZoneInfo(plan.timezone)
    crons = [parse_cron(text) for text in plan.crons]
    first = start.astimezone(zone).date()
    for number in range(days):
        day: date = first + timedelta(days=number)
        yield from (tick for tick in sorted({tick for cron in crons for tick in ticks(cron, zone, day)}) if tick > start)


def _refuse_silence(plan: SchedulePlan, findings: Findings) -> None:
    """A blackout that never ends: every tick lies in what comes back for ever. Dates end by themselves."""
    returning = [calendar for calendar in plan.blackout if calendar.returns]
    if not returning:
        return
    tried = islice(tick_times(plan, datetime(2025, 12, 31, tzinfo=UTC)), _TRIED_TICKS)
    if all(any(tick in calendar for calendar in returning) for tick in tried):
        names = _listed([calendar.name for calendar in returning])
        message = f"every tick of {plan.text!r} ({plan.timezone}) lies in the blackout {names}: it never ends, and nothing would ever run"
        findings.add(("schedule", "blackout"), message, hint="move the schedule out of these hours, or take a calendar away")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
