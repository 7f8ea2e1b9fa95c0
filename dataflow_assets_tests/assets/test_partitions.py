"""Windows and Dagster's partitions are the same intervals under the same keys, clock changes included."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets.assets.partitions import mapping_between, partitions_of, range_tags, windows_of_run
from dataflow_assets.plan.model import WindowPlan
from dataflow_assets.windows import Cadence, Window

ZONES = ["UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Australia/Sydney"]
CADENCES = ["10min", "30min", "hour", "day", "week", "month", "year", "0 6 * * *", "30 4 * * 2"]


def _windows(every: str, zone: str = "UTC", *, begin: datetime, end: datetime | None = None, lag: float = 0.0) -> WindowPlan:
    return WindowPlan(Cadence(every, zone), begin, end, 0, lag)


def _partitions(definition: dg.TimeWindowPartitionsDefinition, now: datetime) -> list[tuple[str, Window]]:
    from dagster._core.definitions.partitions.context import partition_loading_context

    with partition_loading_context(effective_dt=now):
        keys = definition.get_partition_keys()
        found = [definition.time_window_for_partition_key(key) for key in keys]
    return [(key, Window(item.start, item.end)) for key, item in zip(keys, found, strict=True)]


@settings(deadline=None, max_examples=60)
@given(
    every=st.sampled_from(CADENCES),
    zone=st.sampled_from(ZONES),
    begin=st.datetimes(datetime(2012, 1, 1), datetime(2030, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC)),
)
def test_partitions_are_the_windows(every: str, zone: str, begin: datetime) -> None:
    plan = _windows(every, zone, begin=begin)
    width = {"week": 14, "month": 80, "year": 900, "30 4 * * 2": 16}.get(every, 3)
    now = begin + timedelta(days=width if every not in {"10min", "30min"} else 0.5)
    expected = [window for window in plan.cadence.between(begin, now) if window.end <= now]
    assert _partitions(partitions_of(plan), now) == [(plan.cadence.key(window), window) for window in expected]


@pytest.mark.parametrize("every", ["10min", "hour"])
@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("America/New_York", "2013-03-10", 23),
        ("America/New_York", "2013-11-03", 25),
        ("Europe/Berlin", "2024-10-27", 25),
        ("Australia/Sydney", "2024-04-07", 25),
    ],
)
def test_the_hours_of_a_clock_change(every: str, zone: str, day: str, hours: float) -> None:
    cadence = Cadence("day", zone)
    whole = cadence.window(day)
    assert (whole.end - whole.start) == timedelta(hours=hours)
    plan = _windows(every, zone, begin=whole.start, end=whole.end)
    found = _partitions(partitions_of(plan), whole.end + timedelta(days=1))
    expected = list(plan.cadence.between(whole.start, whole.end))
    assert [window for _, window in found] == expected
    assert len({key for key, _ in found}) == len(expected)


def test_the_last_window_is_the_one_that_starts_before_the_end() -> None:
    plan = _windows("day", begin=datetime(2024, 1, 1, tzinfo=UTC), end=datetime(2024, 1, 3, 12, tzinfo=UTC))
    assert [key for key, _ in _partitions(partitions_of(plan), datetime(2025, 1, 1, tzinfo=UTC))] == [
        "2024-01-01",
        "2024-01-02",
        "2024-01-03",
    ]


def test_a_lag_of_whole_windows_holds_partitions_back() -> None:
    begin, now = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 6, tzinfo=UTC)
    assert len(_partitions(partitions_of(_windows("day", begin=begin)), now)) == 5
    assert len(_partitions(partitions_of(_windows("day", begin=begin, lag=2 * 86400 + 3600)), now)) == 3
    assert len(_partitions(partitions_of(_windows("day", begin=begin, lag=7200)), now)) == 5


@settings(max_examples=40, deadline=None)
@given(chosen=st.sets(st.integers(0, 40), min_size=1))
def test_the_tags_of_a_run_give_back_its_windows(chosen: set[int]) -> None:
    plan = _windows("hour", "America/New_York", begin=datetime(2013, 11, 2, tzinfo=UTC))
    every = list(plan.cadence.between(plan.begin, plan.begin + timedelta(hours=41)))
    windows = [every[index] for index in sorted(chosen)]
    assert list(windows_of_run(plan, range_tags(plan, windows))) == windows


def test_a_run_without_partition_tags_names_no_window() -> None:
    assert windows_of_run(_windows("day", begin=datetime(2024, 1, 1, tzinfo=UTC)), {"other": "tag"}) == ()


BEGIN = datetime(2024, 1, 1, tzinfo=UTC)


def test_hours_into_days_by_overlap() -> None:
    hours, days = _windows("hour", begin=BEGIN), _windows("day", begin=BEGIN)
    mapping = mapping_between(hours, days)
    assert mapping is not None
    found = mapping.get_upstream_mapped_partitions_result_for_partitions(
        partitions_of(days).subset_with_partition_keys(["2024-01-02"]), partitions_of(days), partitions_of(hours)
    )
    keys = list(found.partitions_subset.get_partition_keys())
    assert len(keys) == 24
    assert keys[0] == "2024-01-02T00:00+0000"


def test_an_upstream_that_begins_later_is_no_error() -> None:
    days, later = _windows("day", begin=BEGIN), _windows("day", begin=BEGIN + timedelta(days=10))
    mapping = mapping_between(later, days)
    assert mapping is not None
    found = mapping.get_upstream_mapped_partitions_result_for_partitions(
        partitions_of(days).subset_with_partition_keys(["2024-01-02"]), partitions_of(days), partitions_of(later)
    )
    assert list(found.partitions_subset.get_partition_keys()) == []
    assert list(found.required_but_nonexistent_subset.get_partition_keys()) in ([], ["2024-01-02"])


def test_other_pairs() -> None:
    days, berlin = _windows("day", begin=BEGIN), _windows("day", "Europe/Berlin", begin=BEGIN)
    assert mapping_between(None, days) is None
    assert mapping_between(days, None) is None
    assert isinstance(mapping_between(berlin, days), dg.AllPartitionMapping)
