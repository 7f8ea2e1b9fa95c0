"""A pattern is found by a known beginning in the very texts in which RE2 finds it."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataflow_assets.checks import _patterns
from dataflow_assets.checks._patterns import Pattern

PATTERNS = [
    "^https?://[a-z.]+/",
    "a",
    "a+b",
    "^a|b",
    "(a)(b|é)?",
    "(?i)A.b",
    "(?P<part>ab)*",
    "[^a]b",
    "^(?:ab)+",
    "(?m)^b",
    "a$",
    r"a\b",
    r"\Ba",
    r"\Qa)",
    "a.*b",
    r"^\w+\n",
    "",
]
TEXTS = st.text(alphabet="aAbé \n/).", max_size=6) | st.sampled_from(["https://a.b/c", "https://a.b/d", "http://b/", "abab", "ab"])


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_it_finds_what_the_regular_expression_finds(pattern: str, kind: pa.DataType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_patterns, "_WORTH", 100)

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.lists(st.none() | TEXTS, max_size=8), min_size=1, max_size=6))
    def check(batches: list[list[str | None]]) -> None:
        search = Pattern(pattern)
        for texts in batches:
            column = pa.array(texts, kind)
            assert search.found(column).to_pylist() == pc.match_substring_regex(column, pattern).to_pylist(), search.beginnings

    check()


def test_a_beginning_that_many_share_is_remembered_and_one_of_few_is_not() -> None:
    search = Pattern("^https?://[a-z.]+/")
    urls = pa.array([f"https://shop.example/item/{number}" for number in range(50)])
    assert pc.all(search.found(urls)).as_py()
    assert search.beginnings == [b"https://shop.example/"]
    others = pa.array([f"http://{'x' * number}.example/" for number in range(50)])
    for _ in range(20):
        assert pc.all(search.found(others)).as_py()
    assert search.beginnings == [b"https://shop.example/"]


@pytest.mark.parametrize("pattern", ["^a$", r"a\b", r"a\z", r"\Qa"])
def test_a_pattern_that_looks_at_what_follows_is_put_to_each_text(pattern: str) -> None:
    search = Pattern(pattern)
    assert search.found(pa.array(["a"] * 9)).to_pylist() == [True] * 9
    assert search.beginnings == []


def test_text_that_is_no_utf8() -> None:
    data = pa.array([b"\xffab", b"\xffax", b"ab\xff", b"ab"] * 3)
    column = pa.Array.from_buffers(pa.string(), len(data), data.buffers())
    search = Pattern("a.?")
    for _ in range(3):
        assert search.found(column).to_pylist() == pc.match_substring_regex(column, "a.?").to_pylist()


def test_a_pattern_that_is_too_large_with_more_around_it_is_put_to_each_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise pa.ArrowInvalid("Invalid regular expression: pattern too large - compile failed")

    monkeypatch.setattr(Pattern, "_up_to_match", refused)
    search, texts = Pattern("^a"), pa.array(["abc", "b", None])
    for _ in range(2):
        assert search.found(texts).to_pylist() == [True, False, None]
    assert search.beginnings == []
