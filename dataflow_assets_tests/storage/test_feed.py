"""A column on its way into a target: what fits is sent as it is, what the target would cut is refused."""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets.errors import ValueRefused
from dataflow_assets.storage.feed import Route


@settings(deadline=None)
@given(st.lists(st.none() | st.text(alphabet="aé\U0001f600", max_size=5), max_size=5), st.integers(0, 5))
def test_text_is_measured_in_characters(texts: list[str | None], longest: int) -> None:
    column, way = pa.array(texts, pa.string()), Route("note", pa.string(), longest=longest)
    if (pc.max(pc.utf8_length(column)).as_py() or 0) <= longest:
        assert way.fit(column).equals(column)
    else:
        with pytest.raises(ValueRefused, match=f"column 'note' holds text longer than the {longest} characters"):
            way.fit(column)


@pytest.mark.parametrize(("digits", "microseconds"), [(6, 1), (3, 1000), (0, 1_000_000)])
def test_finer_seconds_than_the_target_has_are_refused(digits: int, microseconds: int) -> None:
    way = Route("at", pa.timestamp("us"), fraction=digits)
    whole = pa.array([datetime(2024, 1, 1), None], pa.timestamp("us"))
    assert way.fit(whole).equals(whole)
    assert len(way.fit(pa.array([-microseconds, microseconds], pa.timestamp("us")))) == 2
    if microseconds > 1:
        with pytest.raises(ValueRefused, match=f"finer seconds than the {digits} digits"):
            way.fit(pa.array([microseconds + 1], pa.timestamp("us")))
