"""`schedule:` and `calendars:` as written: what they become, and every refusal at its place."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from dataflow_assets.errors import SpecError
from dataflow_assets.plan.model import SchedulePlan
from dataflow_assets_tests.plan.conftest import PROJECT, Workbench

Steps = Callable[..., str]
CALENDARS = """\
timezone: Europe/Berlin
calendars:
  holidays: [2026-12-25, 2026-12-24..2027-01-02]
  nights: {daily: "22:00-06:00"}
  weekends: {weekdays: [sat, sunday], timezone: UTC}
  week: {weekdays: [mon, tue, wed, thu, fri]}
"""
WINDOWS = "windows: {every: day, begin: 2024-01-01, timezone: America/New_York}\nevent_time_column: at\n"


@pytest.fixture
def steps() -> Steps:
    def text(head: str) -> str:
        return (
            f"{head}pipeline_name: p\nsteps:\n  - {{id: read, type: source, connection: raw, config: {{table: t}}}}\n"
            "  - {id: write, type: endpoint, connection: mart, depends_on: [read], config: {table: t}}\n"
        )

    return text


def _plan(bench: Workbench, text: str) -> SchedulePlan:
    (bench.root / "dataflow_project.yml").write_text(PROJECT + CALENDARS)
    found = bench.plan(p=text).by_name["p"].schedule
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ('schedule: "@daily"\n', {"text": "@daily", "crons": ("0 0 * * *",), "timezone": "Europe/Berlin", "running": False}),
        ("schedule: 15 6 * * 1-5\n", {"crons": ("15 6 * * 1-5",)}),
        ("schedule: ['0 6 * * *', '@monthly']\n", {"crons": ("0 6 * * *", "0 0 1 * *"), "text": "0 6 * * *, @monthly"}),
        ("schedule: Every  10 min\n", {"crons": ("*/10 * * * *",), "text": "every 10 min"}),
        ("schedule: every 3 days\n", {"crons": ("0 0 * * *",), "slot_minutes": 4320}),
        ("schedule: windows\n" + WINDOWS, {"after_windows": True, "crons": ("0 0 * * *",), "timezone": "America/New_York"}),
        (
            "schedule: {cron: '0 6 * * *', timezone: Asia/Tokyo, catch_up: latest, paused_until: 2026-12-01T06:00, status: running}\n"
            + WINDOWS,
            {"catch_up": "latest", "paused_until": datetime(2026, 11, 30, 21, tzinfo=UTC), "running": True, "timezone": "Asia/Tokyo"},
        ),
        ("schedule: {every: 2 hours, max_windows: 5, order: newest}\n", {"crons": ("0 */2 * * *",), "max_windows": 5, "order": "newest"}),
    ],
)
def test_what_a_schedule_becomes(bench: Workbench, steps: Steps, head: str, expected: dict[str, Any]) -> None:
    found = _plan(bench, steps(head))
    assert {name: getattr(found, name) for name in expected} == expected


def test_calendars_are_read_with_their_clocks(bench: Workbench, steps: Steps) -> None:
    found = _plan(bench, steps("schedule: {cron: '0 12 * * *', blackout: [holidays, nights, weekends]}\n"))
    assert [(item.name, item.zone.key) for item in found.blackout] == [
        ("holidays", "Europe/Berlin"),
        ("nights", "Europe/Berlin"),
        ("weekends", "UTC"),
    ]
    assert datetime(2026, 12, 31, 12, tzinfo=UTC) in found.blackout[0]


REFUSED = [
    ("schedule: '@dayly'\n", "p.yml:1 '@dayly' is not a schedule -> did you mean '@daily'?"),
    ("schedule: hourly\n", "p.yml:1 'hourly' is not a schedule -> did you mean '@hourly'?"),
    ("schedule: 30 6 * *\n", "'30 6 * *' is not a schedule: it has 4 fields -> did you mean '30 6 * * *'?"),
    ("schedule: 0 30 6 * * *\n", "a schedule has no seconds; did you mean '30 6 * * *'?"),
    ("schedule: 0 25 * * *\n", "'0 25 * * *' is not a schedule: hour 25 is not between 0 and 23"),
    ("schedule: every 5 months\n", "p.yml:1 'every 5 months': months must divide a year -> did you mean 'every 4 months'?"),
    ("schedule:\n  cron:\n    - '0 6 * * *'\n    - '0 6 * *'\n", "p.yml:4 '0 6 * *' is not a schedule"),
    ("schedule: {cron: '@daily', blackout: [holiday]}\n", "p.yml:1 there is no calendar 'holiday' -> did you mean 'holidays'?"),
    (
        "schedule: {cron: '0 23 * * *', blackout: [nights]}\n",
        "every tick of '0 23 * * *' (Europe/Berlin) lies in the blackout nights: it never ends",
    ),
    ("schedule: {every: hour, blackout: [weekends, week]}\n", "lies in the blackout weekends and week"),
]


@pytest.mark.parametrize(("head", "said"), REFUSED)
def test_what_is_refused(bench: Workbench, steps: Steps, head: str, said: str) -> None:
    calendars = CALENDARS.replace("weekends: {weekdays: [sat, sunday], timezone: UTC}", "weekends: {weekdays: [sat, sunday]}")
    (bench.root / "dataflow_project.yml").write_text(PROJECT + calendars)
    (problem,) = bench.problems(p=steps(head))
    assert said in problem


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("schedule: {cron: '@daily', every: day}\n", "a schedule has one of cron, every and windows, not cron and every"),
        ("schedule: {timezone: UTC}\n", "a schedule says when: write cron, every or windows: true"),
        ("schedule: {cron: '@daily', timezone: Europe/Berln}\n", "'Europe/Berln' is not a timezone name"),
        ("schedule: {cron: '@daily', catchup: all}\n", "unknown key 'catchup' in `schedule`"),
        ("schedule: {cron: '@daily', catch_up: none}\n", "'none' is none of 'all' or 'latest'"),
        ("schedule: {cron: '@daily', max_windows: 0}\n", "greater than or equal to 1"),
    ],
)
def test_what_no_schedule_looks_like(bench: Workbench, steps: Steps, head: str, said: str) -> None:
    project = bench.project(p=steps(head))
    (problem,) = [problem for failure in project.failures for problem in failure.problems]
    assert said in problem.message
    assert problem.place.line == 1
    assert problem.place.column > 1


def test_a_calendar_is_refused_where_it_is_written(bench: Workbench) -> None:
    text = "calendars:\n  holidays:\n    - 2026-12-25\n    - 2026-12-24..\n  nights: {daily: [22-6]}\n  free: {weekdays: [sat, sunnday]}\n"
    (bench.root / "dataflow_project.yml").write_text(text)
    with pytest.raises(SpecError) as caught:
        bench.project()
    assert [(problem.place.line, problem.place.column, problem.message, problem.hint) for problem in caught.value.problems] == [
        (4, 7, "'2026-12-24..' never ends", "write the last day too, as in 2026-12-24..2027-12-24"),
        (5, 20, "'22-6' are no hours of the day", 'write "22:00-06:00"'),
        (6, 26, "'sunnday' is not a weekday", "did you mean 'sunday'?"),
    ]
