"""Variables on the command line: three ways to write them, nothing lost, nothing guessed wrong."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_assets.cli.failures import UsageFailed
from dataflow_assets.cli.variables import read_variables


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1,b=2", {"a": 1, "b": 2}),
        ("a=x,b=", {"a": "x", "b": ""}),
        ("a='1',b=\"x,y\"", {"a": "1", "b": "x,y"}),
        (r"a=x\,y,b=z", {"a": "x,y", "b": "z"}),
        (r"path=C:\data\new", {"path": r"C:\data\new"}),
        ("a=b=c", {"a": "b=c"}),
        ("day=2024-02-29,code=007,version=1.10,ratio=0.5", {"day": date(2024, 2, 29), "code": "007", "version": "1.10", "ratio": 0.5}),
        ("day=2024-02-30,flag=true,none=null,name=nan,big=1e5,big2=inf", {
            "day": "2024-02-30", "flag": True, "none": None, "name": "nan", "big": "1e5", "big2": "inf"
        }),
        ("{a: 1, b: [x, y]}", {"a": 1, "b": ["x", "y"]}),
        ('{"a": {"b": null}}', {"a": {"b": None}}),
        ("a: 1\nb: two", {"a": 1, "b": "two"}),
        ("it=don't", {"it": "don't"}),
        ("", {}),
        ("url=postgres://u:p@h/d?x=1", {"url": "postgres://u:p@h/d?x=1"}),
    ],
)  # fmt: skip
def test_each_way_to_write_them(text: str, expected: dict[str, Any]) -> None:
    assert read_variables((text,), ()) == expected


def test_a_single_variable_takes_everything_after_the_first_equals_sign() -> None:
    assert read_variables((), ("a=1,b=2", "b=x=y", "c=")) == {"a": "1,b=2", "b": "x=y", "c": ""}


def test_a_later_one_wins() -> None:
    assert read_variables(("a=1", "{a: 2, b: 3}"), ("b=4",)) == {"a": 2, "b": 4}


@pytest.mark.parametrize("text", ["a", "=1", "a=1,b", "1x=2", "a='x", "{a: ", "{a: 1", "a b=1"])
def test_what_is_neither_form_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageFailed, match="--var"):
        read_variables((text,), ())


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"]), max_size=30))
def test_every_text_can_be_given_by_quoting_it(value: str) -> None:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    assert read_variables((f'a="{quoted}",b=1',), ()) == {"a": value, "b": 1}


@given(st.text(max_size=12))
def test_a_bare_value_is_never_changed(value: str) -> None:
    """Whatever type it is given, its text comes back."""
    read = read_variables((), (f"a={value}",))["a"]
    words = {True: "true", False: "false", None: "null"}
    text = words[read] if read is None or isinstance(read, bool) else str(read)
    assert text == value or (text in words.values() and text == value.lower())
