"""Windows and cadences: invariants over zones, and the same keys and bounds as Dagster's partitions."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets.windows import Cadence, Window, as_utc, merge_adjacent, parse_duration

NAMED = ["1min", "10min", "30 minutes", "hour", "day", "week", "month", "year"]
CRONS = [
    "0 6 * * *",
    "0 0 1 */3 *",
    "0 */6 * * *",
    "30 2 * * *",
    "30 1 * * *",
    "0 9,17 * * 1-5",
    "0 */2 * * *",
    "15 * * * *",
    "0 0 13 * 5",
    "*/7 * * * *",
]
UNUSUAL = ["0 0 * * 5#2", "0 12 L * *", "0 0 29 2 *"]
ZONES = [
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    "Asia/Kolkata",
    "America/St_Johns",
    "Asia/Kathmandu",
    "America/Santiago",
    "America/Havana",
    "Africa/Cairo",
    "America/Sao_Paulo",
    "Pacific/Chatham",
]
STRANGE_ZONES = ["Australia/Lord_Howe", "Pacific/Apia", "Antarctica/Troll", "Asia/Beirut", "Africa/Casablanca"]
CLOCK_CHANGES = [
    datetime(2013, 3, 10, 7, tzinfo=UTC),
    datetime(2013, 11, 3, 6, tzinfo=UTC),
    datetime(2023, 4, 28, tzinfo=UTC),
    datetime(2023, 9, 3, 4, tzinfo=UTC),
    datetime(2018, 11, 4, 3, tzinfo=UTC),
    datetime(2011, 12, 30, 10, tzinfo=UTC),
    datetime(2024, 10, 27, 1, tzinfo=UTC),
]
NEAR_CHANGES = st.builds(lambda base, minutes: base + timedelta(minutes=minutes), st.sampled_from(CLOCK_CHANGES), st.integers(-4000, 4000))
MOMENTS = NEAR_CHANGES | st.datetimes(datetime(1970, 1, 2), datetime(2080, 1, 1), timezones=st.just(UTC))


@settings(max_examples=250, deadline=None)
@given(every=st.sampled_from(NAMED + CRONS + UNUSUAL), zone=st.sampled_from(ZONES + STRANGE_ZONES), moment=MOMENTS)
def test_windows_tile_time(every: str, zone: str, moment: datetime) -> None:
    cadence = Cadence(every, zone)
    windows = []
    for window in cadence.between(moment, datetime(2200, 1, 1, tzinfo=UTC)):
        windows.append(window)
        if len(windows) == 12:
            break
    assert moment in windows[0]
    assert all(before.end == after.start for before, after in pairwise(windows))
    for window in windows:
        assert cadence.floor(window.start) == window.start
        assert cadence.floor(window.end - timedelta(microseconds=1)) == window.start
        assert cadence.next(window.start) == window.end
        assert cadence.window(cadence.key(window)) == window
    assert len({cadence.key(window) for window in windows}) == len(windows)


@settings(max_examples=60, deadline=None)
@given(
    every=st.sampled_from(["10min", "hour", "day", "week", "month", "0 6 * * *"]),
    zone=st.sampled_from(ZONES),
    start=MOMENTS,
    minutes=st.integers(0, 9000),
)
def test_between_covers_the_interval_and_no_more(every: str, zone: str, start: datetime, minutes: int) -> None:
    end = start + timedelta(minutes=minutes)
    windows = list(Cadence(every, zone).between(start, end))
    assert all(window.start < end and window.end > start for window in windows)
    if start < end:
        assert windows[0].start <= start
        assert windows[-1].end >= end
    else:
        assert len(windows) <= 1


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("every", NAMED[1:] + CRONS)
def test_the_same_keys_and_bounds_as_dagster(every: str, zone: str) -> None:
    cadence = Cadence(every, zone)
    long = every in {"month", "year", "week", "0 0 1 */3 *"}
    for change in CLOCK_CHANGES[:5]:
        begin = cadence.floor(change - (timedelta(days=800) if long else timedelta(days=2)))
        now = change + (timedelta(days=800) if long else timedelta(days=2))
        partitions = dg.TimeWindowPartitionsDefinition(
            cron_schedule=cadence.cron, start=begin.astimezone(cadence.zone), timezone=zone, fmt=cadence.key_format
        )
        ours = {cadence.key(window): window for window in cadence.between(begin, now) if window.end <= now}
        assert list(ours) == list(partitions.get_partition_keys(current_time=now))
        near = [key for key, window in ours.items() if abs(window.start - change) < timedelta(hours=5)][:20] + list(ours)[-1:]
        for key in near:
            theirs = partitions.time_window_for_partition_key(key)
            assert (theirs.start.timestamp(), theirs.end.timestamp()) == (ours[key].start.timestamp(), ours[key].end.timestamp())


def test_the_hours_of_the_autumn_change_are_four() -> None:
    cadence = Cadence("hour", "America/New_York")
    windows = list(cadence.between(datetime(2013, 11, 3, 4, tzinfo=UTC), datetime(2013, 11, 3, 8, tzinfo=UTC)))
    assert [cadence.key(window) for window in windows] == [
        "2013-11-03T00:00-0400",
        "2013-11-03T01:00-0400",
        "2013-11-03T01:00-0500",
        "2013-11-03T02:00-0500",
    ]
    assert all(window.end - window.start == timedelta(hours=1) for window in windows)


@pytest.mark.parametrize(("day", "hours"), [("2013-03-10", 23), ("2013-11-03", 25), ("2013-07-01", 24)])
def test_days_of_a_clock_change(day: str, hours: int) -> None:
    window = Cadence("day", "America/New_York").window(day)
    assert window.end - window.start == timedelta(hours=hours)


@pytest.mark.parametrize(
    ("every", "same"),
    [("daily", "day"), ("hourly", "hour"), ("60min", "hour"), ("0 * * * *", "hour"), ("*/10 * * * *", "10min"), (" 1d ", "day")],
)
def test_spellings(every: str, same: str) -> None:
    assert Cadence(every).cron == Cadence(same).cron
    moment = datetime(2024, 5, 5, 5, 5, tzinfo=UTC)
    assert Cadence(every).floor(moment) == Cadence(same).floor(moment)


@pytest.mark.parametrize(
    "every", ["7min", "0min", "90min", "fortnight", "* * * *", "0 0 * * * *", "61 * * * *", "0 0 30 2 *", "", "@daily"]
)
def test_what_is_no_cadence(every: str) -> None:
    with pytest.raises(ValueError, match=r"is not a cadence|must divide 60"):
        Cadence(every)


def test_what_is_no_timezone() -> None:
    for zone in ("Nowhere/Land", "../../etc/passwd", ""):
        with pytest.raises(ValueError, match="is not a timezone name"):
            Cadence("day", zone)


@pytest.mark.parametrize("key", ["2024-01-02", "2024-01-01T00:30+0000", "x"])
def test_keys_that_no_window_has(key: str) -> None:
    with pytest.raises(ValueError):
        Cadence("hour").window(key)
    with pytest.raises(ValueError, match="no month window starts at"):
        Cadence("month").window("2024-01-02")


def test_weeks_begin_on_monday() -> None:
    window = next(Cadence("week").between(datetime(2024, 1, 3, tzinfo=UTC), datetime(2024, 1, 4, tzinfo=UTC)))
    assert (window.start, window.end) == (datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 8, tzinfo=UTC))


def test_nothing_lies_beyond_the_calendar() -> None:
    cadence = Cadence("year")
    with pytest.raises(ValueError, match="no year window ends after"):
        cadence.next(datetime(9998, 6, 1, tzinfo=UTC))


class TestWindow:
    def test_it_refuses_nonsense(self) -> None:
        moment = datetime(2024, 1, 1, tzinfo=UTC)
        with pytest.raises(ValueError, match="is empty"):
            Window(moment, moment)
        with pytest.raises(ValueError, match="timezone-aware"):
            Window(datetime(2024, 1, 1), datetime(2024, 1, 2))

    def test_it_is_half_open_and_in_utc(self) -> None:
        zone = ZoneInfo("Asia/Tokyo")
        window = Window(datetime(2024, 1, 1, tzinfo=zone), datetime(2024, 1, 2, tzinfo=zone))
        assert str(window) == "[2023-12-31T15:00:00+00:00, 2024-01-01T15:00:00+00:00)"
        assert window.start in window
        assert window.end not in window
        assert window == Window(window.start, window.end)

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=12))
    def test_merging_keeps_every_instant(self, spans: list[tuple[int, int]]) -> None:
        base = datetime(2024, 1, 1, tzinfo=UTC)
        windows = [Window(base + timedelta(hours=start), base + timedelta(hours=start + length)) for start, length in spans]
        merged = merge_adjacent(windows)
        covered = {hour for start, length in spans for hour in range(start, start + length)}
        assert {hour for hour in range(80) if any(base + timedelta(hours=hour) in window for window in merged)} == covered
        assert all(before.end < after.start for before, after in pairwise(merged))
        assert all(any(window.overlaps(whole) for whole in merged) for window in windows)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15 min", 900), ("2h", 7200), ("1.5d", 129600), ("1 week", 604800), ("250ms", 0.25), ("3 minutes", 180)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "h", "-1h", "1 month", "1h30m", "ten min"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_a_duration_beyond_all_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="is longer than any duration can be"):
        parse_duration("9" * 40 + "d")


def test_as_utc_reads_naive_times_on_the_wall_clock() -> None:
    five = datetime(2024, 1, 1, 5, tzinfo=UTC)
    for moment in (date(2024, 1, 1), datetime(2024, 1, 1), "2024-01-01", "2024-01-01T00:00"):
        assert as_utc(moment, "America/New_York") == five
    assert as_utc("2024-01-01T05:00:00Z", "America/New_York") == five
