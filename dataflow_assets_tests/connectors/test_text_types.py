"""Tests of text that becomes values: what is done for a column at once agrees with Python's own word on each text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataflow_assets.connectors._text_types import Unfit, parse

_SHORT = st.sampled_from(
    ["0", "-0", "00", "-05", "+5", "0x1F", "-0X1f", "-0x1f", "0.50", "00.5", "-00.5", "+0.5", "1e999", "1e-999", "0e0", "-7"]
)
_FLOATS = st.floats(allow_nan=False, allow_infinity=False).map(repr)
_LONG = st.one_of(
    st.floats(min_value=0, max_value=1).map(repr),
    st.tuples(st.floats(min_value=-1e6, max_value=1e6), st.integers(13, 19)).map(lambda pair: f"{pair[0]:.{pair[1]}f}"),
    st.tuples(st.floats(min_value=0, max_value=1e30), st.integers(14, 18)).map(lambda pair: f"{pair[0]:.{pair[1]}e}"),
)
_PADDED = re.compile(r"-?0[0-9]|\+")


def keeps(text: str) -> bool:
    """Whether a float gives this number back."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return False
    return not _PADDED.match(text) and abs(float(text)) < float("inf") and Decimal(repr(float(text))) == number


def first_refused(texts: Sequence[str | None], kind: pa.DataType, *, before: str | None = None) -> int | None:
    """Where parsing stops; the column begins after `before`, when there is one."""
    column = pa.array([before, *texts], pa.string()).slice(1) if before is not None else pa.array(texts, pa.string())
    try:
        parse(column, kind, strict=True)
    except Unfit as error:
        return error.index
    return None


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), _LONG, _FLOATS, st.integers().map(str), _SHORT), max_size=30), st.sampled_from([None, "0", "0x"]))
@example(["0.1", None, "0.12345678901234567890"], None)
@example([None, "0.12345678901234567", "0.15652738518851222", "00.1565273851885122"], "0")
@example(["7.826369259425611e-06", "0.000007826369259425611", "1.5652738518851222e-05", "1e999"], None)
def test_a_float_is_taken_when_it_gives_its_text_back(texts: list[str | None], before: str | None) -> None:
    """Mostly long texts take another way than mostly short ones."""
    fit = [text if text is None or text[:2].lower() not in {"0x", "-0"} or keeps(text) else "1" for text in texts]
    refused = [index for index, text in enumerate(fit) if text is not None and not keeps(text)]
    assert first_refused(fit, pa.float64(), before=before) == (refused[0] if refused else None)


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1).map(str), _SHORT), max_size=30), st.sampled_from([None, "0", "-"]))
@example(["0", "10", "-1", None, "-0"], "0")
@example(["5", "0x1F"], None)
def test_a_whole_number_is_taken_when_it_gives_its_text_back(texts: list[str | None], before: str | None) -> None:
    whole = [text for text in texts if text is None or re.fullmatch(r"-?[0-9]+|-?0[xX][0-9a-fA-F]+", text)]
    refused = [index for index, text in enumerate(whole) if text is not None and not re.fullmatch(r"0|-?[1-9][0-9]*", text)]
    found = first_refused(whole, pa.int64(), before=before)
    assert (found is None) == (not refused)
    if not any(text and "x" in text.lower() for text in whole):
        assert found == (refused[0] if refused else None)


@pytest.mark.parametrize(
    ("kind", "good", "short"),
    [
        (pa.bool_(), "true", "1"),
        (pa.timestamp("us"), "2024-02-29 12:30", "2024-02-29"),
        (pa.time64("us"), "12:30:15", "12:30"),
    ],
)
def test_text_that_says_less_than_its_type_is_refused(kind: pa.DataType, good: str, short: str) -> None:
    assert first_refused([None, good, None], kind) is None
    assert first_refused([None, good, short, short], kind, before="") == 2
    assert parse(pa.array([short]), kind, strict=False).null_count == 0
    assert first_refused([], kind) is None
