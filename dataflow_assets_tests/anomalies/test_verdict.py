"""The recipe: what it learns from, which season and trend it finds, how wide it expects, and what holds for any history."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets.anomalies.fit import Fit
from dataflow_assets.anomalies.history import Measured, Standing, learnable
from dataflow_assets.anomalies.robust import left_out, slope_within, spread
from dataflow_assets.anomalies.scales import Scale, Transform
from dataflow_assets.anomalies.seasons import Calendar, Clock, Season
from dataflow_assets.anomalies.settings import Direction, Settings, stricter_for
from dataflow_assets.anomalies.verdict import judge

MONDAY = datetime(2024, 1, 1, tzinfo=UTC)
COUNTS = Settings(transform=Transform.LOG1P)


def series(values: Any, *, every: timedelta = timedelta(days=1), first: datetime = MONDAY) -> list[Measured]:
    """Windows one after the other."""
    moments = [first + every * number for number in range(len(values))]
    return [Measured(moment.isoformat(), moment, float(value)) for moment, value in zip(moments, values, strict=True)]


def after(history: list[Measured], value: float, *, every: timedelta = timedelta(days=1)) -> Measured:
    """The window that follows."""
    start = history[-1].start + every
    return Measured(start.isoformat(), start, value)


def weeks(count: int, *, weekend: float = 300.0) -> list[float]:
    """Working days around 1000 and weekends, with a little noise that is the same everywhere."""
    random = np.random.default_rng(5)
    days = np.array([1000.0] * 5 + [weekend] * 2)
    return list(np.tile(days, count) * np.exp(random.normal(0, 0.05, 7 * count)))


def test_what_was_flagged_is_not_learned_from_until_it_is_acknowledged() -> None:
    items = series([1, 2, 3, 4, 5, 6])
    marked = [replace(item, standing=Standing.FLAGGED) if number in {1, 4} else item for number, item in enumerate(items)]
    assert [item.value for item in learnable(marked, before=items[5].start, newest=9)] == [1, 3, 4]
    marked[4] = replace(items[4], standing=Standing.EXPECTED)
    assert [item.value for item in learnable(reversed(marked), before=items[5].start, newest=3)] == [3, 4, 5]
    marked[3] = replace(items[3], standing=Standing.LEVEL_SHIFT)
    assert [item.value for item in learnable(marked, before=MONDAY + timedelta(days=99), newest=9)] == [4, 5, 6]


def test_a_flagged_value_does_not_widen_the_range_and_an_expected_one_does() -> None:
    history = series(np.random.default_rng(2).normal(1000, 20, 12))
    wild = [replace(item, value=9000.0) if number % 3 == 0 else item for number, item in enumerate(history)]
    tested = after(history, 3000)
    flagged = [replace(item, standing=Standing.FLAGGED) if item.value > 8000 else item for item in wild]
    assert judge(tested, flagged, COUNTS).flagged
    assert not judge(tested, [replace(item, standing=Standing.EXPECTED) for item in flagged], COUNTS).flagged


@pytest.mark.parametrize(("trained", "learning"), [(6, True), (7, False)])
def test_it_learns_until_it_has_enough(trained: int, learning: bool) -> None:
    history = series([100.0] * trained)
    verdict = judge(after(history, 1e6), history, COUNTS)
    assert (verdict.learning, verdict.flagged, verdict.trained) == (learning, not learning, trained)


def test_weekends_are_found_and_a_quiet_working_day_is_not_one() -> None:
    history = series(weeks(6))
    saturday = [*history, *series(weeks(1)[:5], first=MONDAY + timedelta(days=42))]
    verdict = judge(after(saturday, 300), saturday, COUNTS)
    assert verdict.fit is not None
    assert (verdict.fit.season, verdict.fit.unproven, verdict.flagged) == (Season.WEEKDAY, False, False)
    assert judge(after(saturday, 1000), saturday, COUNTS).flagged
    assert judge(after(history, 300), history, COUNTS).flagged, "on a Monday"


def test_two_days_of_the_weekend_that_differ_are_told_apart() -> None:
    values = [value * (2 if number % 7 == 6 else 1) for number, value in enumerate(weeks(8))]
    history = series(values)[:-1]
    verdict = judge(after(history, 600), history, COUNTS)
    assert verdict.fit is not None
    assert (verdict.fit.season, verdict.flagged) == (Season.DAY_OF_WEEK, False)
    assert judge(after(history, 300), history, COUNTS).flagged


def test_a_level_that_was_seen_is_not_flagged_while_no_season_is_proven() -> None:
    history = series([1000, 1010, 990, 1005, 300, 995, 1000, 290])  # not by the calendar
    verdict = judge(after(history, 305), history, COUNTS)
    assert verdict.fit is not None
    assert (verdict.fit.season, verdict.fit.unproven, verdict.flagged) == (Season.NONE, True, False)
    assert judge(after(history, 30), history, COUNTS).flagged
    assert judge(after(history, 305), history, replace(COUNTS, season=Season.NONE)).flagged, "written by the user is proven"


def test_hours_of_the_week_are_found_on_the_clock_of_the_pipeline() -> None:
    hours = [MONDAY + timedelta(hours=number) for number in range(24 * 7 * 4)]
    zone = "Europe/Berlin"
    local = [moment + timedelta(hours=1) for moment in hours]
    random = np.random.default_rng(1)
    values = [
        (1000 if 8 <= moment.hour < 20 else 50) * (0.2 if moment.weekday() >= 5 else 1) * math.exp(random.normal(0, 0.05))
        for moment in local
    ]
    history = series(values, every=timedelta(hours=1))
    chosen = replace(COUNTS, length=timedelta(hours=1), clock=Clock(zone))
    verdict = judge(after(history, 50, every=timedelta(hours=1)), history, chosen)
    assert verdict.fit is not None
    assert verdict.fit.season is Season.HOUR_OF_WEEK
    assert verdict.expected is not None
    assert verdict.expected.alike == 4
    assert verdict.expected.center == pytest.approx(50, rel=0.1)
    assert judge(after(history, 1000, every=timedelta(hours=1)), history, chosen).flagged


def test_a_trend_is_followed_only_when_it_is_certain() -> None:
    random = np.random.default_rng(3)
    rising = series(1000 * 1.02 ** np.arange(40) * np.exp(random.normal(0, 0.05, 40)))
    verdict = judge(after(rising, 1000 * 1.02**40), rising, COUNTS)
    assert verdict.fit is not None
    assert verdict.fit.layer.slope == pytest.approx(math.log(1.02), rel=0.15)
    assert not verdict.flagged
    assert judge(after(rising, 1000), rising, COUNTS).flagged, "a level of long ago is none that was seen"
    flat = series(1000 * np.exp(random.normal(0, 0.05, 40)))
    assert Fit(flat, COUNTS, at=after(flat, 1).start).layer.slope == 0


def test_days_of_a_calendar_are_compared_with_each_other() -> None:
    values = [1000.0 + number % 5 for number in range(60)]
    calendar = Calendar({(MONDAY + timedelta(days=number)).date(): "holiday" for number in (10, 25, 60)})
    for number in (10, 25):
        values[number] = 100.0
    history, chosen = series(values), replace(COUNTS, clock=Clock("UTC", calendar))
    assert not judge(after(history, 100), history, chosen).flagged
    assert judge(after(history, 1000), history, chosen).flagged
    first = judge(Measured("x", history[25].start, 100.0), history, chosen)
    assert (first.learning, first.flagged) == (True, False), "one earlier holiday is too few"


def test_a_season_in_which_the_tested_window_would_be_alone_is_not_chosen() -> None:
    values = [value * (2 if number % 7 == 6 else 1) for number, value in enumerate(weeks(8))]
    lonely = [item for number, item in enumerate(series(values)) if number % 7 != 6 or number == 6]
    verdict = judge(Measured("x", MONDAY + timedelta(days=62), 600.0), lonely, COUNTS)  # a Sunday; one other is known
    assert verdict.fit is not None
    assert (verdict.fit.season is Season.DAY_OF_WEEK, verdict.learning) == (False, False)
    alone = judge(Measured("x", MONDAY + timedelta(days=62), 600.0), lonely, replace(COUNTS, season=Season.DAY_OF_WEEK))
    assert (alone.learning, alone.flagged) == (True, False)


def test_the_width_is_that_of_the_recipe() -> None:
    history = series([1000.0, 1100.0, 1000.0, 900.0] * 3)
    fit = Fit(history, replace(COUNTS, season=Season.NONE), at=after(history, 1).start)
    residuals = np.abs(fit.layer.residuals)
    scale = 1.4826 * float(np.median(residuals))
    assert fit.spread == pytest.approx(scale)
    expected = fit.expect(after(history, 1).start)
    assert expected.width == pytest.approx(scale * math.sqrt(1 + math.pi / 24) * (1 + 3 / 12))
    constant = series([1000.0] * 12)
    floor = Fit(constant, replace(COUNTS, season=Season.NONE), at=after(history, 1).start).expect(after(history, 1).start).width
    assert floor == pytest.approx(1 / math.sqrt(1000) * math.sqrt(1 + math.pi / 24) * (1 + 3 / 12))


def test_the_scales_and_their_smallest_spread() -> None:
    counts, shares = Scale(Transform.LOG1P), Scale(Transform.LOGIT, rows=200)
    assert (counts.floor(math.log1p(1e6), rows=None), counts.floor(math.log1p(100), rows=None)) == (0.03, pytest.approx(0.1))
    assert float(shares.forward(0.25)) == pytest.approx(math.log(50.5 / 150.5))
    assert shares.floor(float(shares.forward(0.25)), rows=200) == pytest.approx(math.sqrt(1 / 50.5 + 1 / 150.5))
    for scale, values in ((counts, (-5.0, 0.0, 1e12)), (shares, (0.0, 0.3, 1.0)), (Scale(Transform.NONE), (-2.0, 7.0))):
        assert [scale.back(float(scale.forward(value))) for value in values] == pytest.approx(list(values))


def test_leave_one_out_and_theil_sen_against_their_definitions() -> None:
    random = np.random.default_rng(4)
    values, groups = random.normal(size=60), random.integers(0, 7, 60)
    times = np.arange(60.0)
    groups[-1] = 99
    wanted = [
        values[one] - np.median([values[other] for other in range(60) if other != one and groups[other] == groups[one]])
        if (groups == groups[one]).sum() > 1
        else math.nan
        for one in range(60)
    ]
    assert left_out(values, groups) == pytest.approx(wanted, nan_ok=True)
    pairs = [(values[b] - values[a]) / (b - a) for a in range(60) for b in range(a + 1, 60) if groups[a] == groups[b]]
    assert slope_within(values, times, groups)[0] == pytest.approx(float(np.median(pairs)))
    assert slope_within(2 * np.arange(400.0), np.arange(400.0), np.arange(400) % 7)[0] == pytest.approx(2), "also of many"
    assert spread(np.array([0.0, 0.0, 0.0, 3.0])) == pytest.approx(0.75 * math.sqrt(math.pi / 2)), "where the MAD is 0"


def test_many_values_side_by_side_have_a_stricter_limit() -> None:
    assert stricter_for(COUNTS, 1).sensitivity == pytest.approx(3.5)
    assert stricter_for(COUNTS, 10).sensitivity == pytest.approx(4.07, abs=0.01)
    assert stricter_for(replace(COUNTS, sensitivity=50.0), 10).sensitivity == 50


finite = st.floats(-1e9, 1e9, allow_nan=False)
shares = st.floats(0, 1)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(finite, min_size=2, max_size=40),
    tested=finite,
    transform=st.sampled_from([Transform.NONE, Transform.LOG1P]),
    hours=st.sampled_from([1, 24, 168]),
)
def test_every_history_has_a_verdict_in_finite_numbers(values: list[float], tested: float, transform: Transform, hours: int) -> None:
    every = timedelta(hours=hours)
    history = series(values, every=every)
    verdict = judge(after(history, tested, every=every), history, Settings(transform=transform, length=every, min_samples=2))
    if verdict.expected:
        numbers = (verdict.score, verdict.expected.low, verdict.expected.high, verdict.expected.center, verdict.expected.width)
        assert all(math.isfinite(number or 0.0) for number in numbers)
        assert (verdict.expected.low or 0) <= (verdict.expected.high or 0)
        assert verdict.flagged is not ((verdict.expected.low or 0) <= tested <= (verdict.expected.high or 0))


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(shares, min_size=7, max_size=30), tested=shares, later=st.lists(shares, max_size=5), wild=st.lists(shares, max_size=5)
)
def test_neither_the_tested_window_nor_later_nor_flagged_ones_change_a_verdict(
    values: list[float], tested: float, later: list[float], wild: list[float]
) -> None:
    history = series(values)
    one = after(history, tested)
    chosen = Settings(transform=Transform.LOGIT, direction=Direction.UP)
    flagged = [replace(item, value=value, standing=Standing.FLAGGED) for item, value in zip(history, wild, strict=False)]
    more = [*history, one, *series(later, first=one.start + timedelta(days=1)), *flagged]
    alone, together = judge(one, history, chosen), judge(one, more, chosen)
    assert (alone.flagged, alone.score, alone.trained) == (together.flagged, together.score, together.trained)
