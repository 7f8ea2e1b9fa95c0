"""`windows:` in the words of the Drive system beside ours."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from dataflow_assets.spec.query_windows import WindowOptions, cadence_of


@pytest.mark.parametrize(
    ("written", "cadence"),
    [
        ("1h", "hour"),
        ("60 min", "hour"),
        ("1 hour", "hour"),
        ("0.5h", "30min"),
        ("30 min", "30min"),
        ("15m", "15min"),
        ("2 hours", "0 */2 * * *"),
        ("24h", "day"),
        ("1 day", "day"),
        ("1.0 days", "day"),
        ("7 days", "week"),
        ("1 week", "week"),
        ("1 month", "month"),
        ("daily", "day"),
        ("day", "day"),
        ("0 6 * * *", "0 6 * * *"),
    ],
)
def test_granularity_in_many_words(written: str, cadence: str) -> None:
    assert WindowOptions(granularity=written).every == cadence
    assert cadence_of(cadence) == cadence


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"every": "90 min"}, "windows of 90 min do not divide a day; did you mean '1h'?"),
        ({"every": "7 min"}, "did you mean '6 min'?"),
        ({"every": "3 days"}, "did you mean '24h'?"),
        ({"every": "fortnight"}, "is not a cadence"),
        ({"every": "day", "x_days_back": "seven"}, "is not a duration"),
        ({"every": "day", "acceptable_start": "00:30"}, "is a time of day, and this is a moment"),
        ({"every": "day", "timezone": "Europe/Berln"}, "did you mean 'Europe/Berlin'?"),
    ],
)
def test_what_is_refused(keys: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        WindowOptions(**keys)
    assert said in str(caught.value)


def test_drives_own_keys_are_understood() -> None:
    options = WindowOptions(
        granularity="1h",
        x_days_back=7,
        acceptable_data_fetch_start_time="2026-01-01T00:00:00",
        acceptable_data_fetch_end_time="2026-02-01",
    )
    assert options.x_days_back == "7d"
    assert WindowOptions(every="day", x_days_back="1.5 months").x_days_back == "45d"
    assert options.acceptable_start is not None
    assert options.acceptable_end is not None
