"""Tests of moments as text: what the tables give is what Arrow writes of each."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataflow_assets.connectors._iso_text import moments_as_text

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_YEAR_1, _YEAR_10000 = -62_135_596_800, 253_402_300_800
_ANY = st.integers(_YEAR_1 * 10**9, _YEAR_10000 * 10**9 - 1)
_LATELY = st.integers(1_700_000_000 * 10**9, 1_700_200_000 * 10**9)


def as_arrow_writes(column: pa.Array) -> pa.Array:
    """The same by way of Arrow's cast."""
    shown = pc.binary_replace_slice(column.cast(pa.timestamp(column.type.unit)).cast(pa.string()), 10, 11, "T")
    return pc.binary_join_element_wise(shown, "Z", "") if column.type.tz else shown


@settings(deadline=None)
@given(
    st.one_of(st.lists(st.none() | _ANY, max_size=20), st.lists(st.none() | _LATELY, max_size=20)),
    st.sampled_from(sorted(_PER_SECOND)),
    st.sampled_from([None, "UTC", "America/New_York"]),
    st.integers(0, 3),
)
@example([], "us", "UTC", 0)
@example([None], "s", None, 0)
@example([_YEAR_1 * 10**9, _YEAR_10000 * 10**9 - 1, 0, -1], "us", "UTC", 0)
def test_moments(nanoseconds: list[int | None], unit: str, zone: str | None, start: int) -> None:
    counts = [None if count is None else count // (10**9 // _PER_SECOND[unit]) for count in nanoseconds]
    fit = [count if count is None or abs(count) < 2**63 - 86_400 * 10**9 else None for count in counts]
    column = pa.array(fit, pa.int64()).cast(pa.timestamp(unit, zone)).slice(start)
    text = moments_as_text(column)
    text.validate(full=True)
    assert text.equals(as_arrow_writes(column))


@pytest.mark.parametrize("days", [1, 400])
def test_a_moment_is_as_python_writes_it(days: int) -> None:
    moments = [datetime.fromtimestamp(1_700_000_000 + number * 86_400 * days + number, UTC).replace(microsecond=7) for number in range(30)]
    written = moments_as_text(pa.array(moments, pa.timestamp("us", "UTC"))).to_pylist()
    assert written == [moment.isoformat().replace("+00:00", "Z") for moment in moments]
