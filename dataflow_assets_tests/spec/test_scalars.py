"""Plain scalars: what they become, and which are refused."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_assets.spec.scalars import Ambiguous, plain, tagged


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("yes", True),
        ("Off", False),
        ("0", 0),
        ("-17", -17),
        ("1_000", 1000),
        ("0x1f", 31),
        ("0o17", "0o17"),
        ("0b11", 3),
        ("007", "007"),
        ("1.5", 1.5),
        ("-.5", -0.5),
        ("1e3", "1e3"),
        ("1.5e+3", 1500.0),
        ("1.", 1.0),
        ("12:30", "12:30"),
        ("1.2.3", "1.2.3"),
        ("-", "-"),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("2024-02-29", date(2024, 2, 29)),
        ("2024-01-02T03:04:05Z", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2024-1-2 3:04:05.5 +02:00", datetime(2024, 1, 2, 3, 4, 5, 500_000, tzinfo=timezone(timedelta(hours=2)))),
        ("2024-01-02 03:04:05", datetime(2024, 1, 2, 3, 4, 5)),
        ("2024-01-02 03:04:05-0:30", datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(minutes=-30)))),
        ("hello", "hello"),
        ("+", "+"),
    ],
)
def test_plain(text, value):
    found = plain(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["NO", "ON", "YES", "OFF"])
def test_words_in_capitals_may_be_codes(text):
    with pytest.raises(Ambiguous, match=text):
        plain(text)


@pytest.mark.parametrize("text", ["no", "On", "yes"])
def test_switch_words_in_a_list_may_be_codes(text):
    with pytest.raises(Ambiguous):
        plain(text, in_list=True)


@pytest.mark.parametrize("text", ["2024-13-01", "2023-02-29", "2024-01-01T25:00:00Z", "9" * 5000])
def test_forms_without_a_value_are_refused(text):
    with pytest.raises(ValueError):
        plain(text)


def test_tagged():
    assert tagged("str", "1") == "1"
    assert tagged("float", "1") == 1.0
    assert tagged("int", "7") == 7
    for tag, text in [("int", "x"), ("int", "true"), ("binary", "aGk="), ("bool", "1"), ("timestamp", "x")]:
        with pytest.raises(ValueError):
            tagged(tag, text)


@given(st.text(), st.booleans())
def test_any_text_is_read_or_refused(text, in_list):
    try:
        value = plain(text, in_list=in_list)
    except ValueError:
        return
    assert value is None or isinstance(value, (str, bool, int, float, date))


@given(st.integers(min_value=-(10**30), max_value=10**30))
def test_integers_are_exact(number):
    assert plain(str(number)) == number
