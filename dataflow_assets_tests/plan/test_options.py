"""Options are checked as far as they are known before templates are rendered."""

from typing import Literal

import pytest
from pydantic import BaseModel, Field, field_validator, model_validator

from dataflow_assets.plan.options import check_options, has_template, known_keys, main_keys
from dataflow_assets.spec.base import Model
from dataflow_assets.tables import WriteMode


class Inner(Model):
    depth: int
    color: Literal["red", "blue"] = "red"


class Options(Model):
    count: int = 1
    mode: WriteMode | None = None
    color: Literal["red", "blue"] = "red"
    names: list[str] = Field(default_factory=list, validation_alias="names_of")
    inner: Inner | None = None
    items: list[Inner] = Field(default_factory=list)
    wait: str = "1h"

    @field_validator("wait")
    @classmethod
    def _wait_is_short(cls, value: str) -> str:
        if len(value) > 3:
            raise ValueError("too long")
        return value

    @model_validator(mode="after")
    def _not_both(self) -> "Options":
        if "count" in self.model_fields_set and "wait" in self.model_fields_set:
            raise ValueError("count or wait, not both")
        return self


def messages(raw: dict[str, object]) -> list[tuple[tuple[str | int, ...], str, str]]:
    return [(item.path, item.message, item.hint) for item in check_options(Options, raw).mistakes]


@pytest.mark.parametrize(
    "raw",
    [
        {"count": "{{ var('n') }}"},
        {"mode": "{{ var('m') }}", "color": "${COLOR}"},
        {"names_of": "{{ names }}"},
        {"names_of": ["a", "{{ x }}"]},
        {"inner": {"depth": "{{ d }}", "color": "{% if x %}red{% endif %}"}},
        {"items": [{"depth": 1}, {"depth": "{{ d }}"}]},
        {"wait": "{{ var('wait') }}"},
        {"inner": "{{ inner }}"},
    ],
)
def test_templates_are_never_refused(raw: dict[str, object]) -> None:
    checked = check_options(Options, raw)
    assert checked.mistakes == ()
    assert isinstance(checked.model, Options)


def test_what_is_not_a_template_is_refused_beside_one() -> None:
    assert messages({"count": "many", "color": "{{ c }}", "inner": {"depth": "x"}}) == [
        (("count",), "count: Input should be a valid integer, unable to parse string as an integer", ""),
        (("inner", "depth"), "inner.depth: Input should be a valid integer, unable to parse string as an integer", ""),
    ]


def test_unknown_keys_at_every_depth() -> None:
    assert messages({"cuont": 1}) == [(("cuont",), "unknown key 'cuont'", "did you mean 'count'?")]
    assert messages({"items": [{"depth": 1, "colour": "red"}]}) == [
        (("items", 0, "colour"), "unknown key 'colour'", "did you mean 'color'?")
    ]
    assert messages({"{{ x }}": 1})[0][1] == "unknown key '{{ x }}'"


def test_missing_keys_and_whole_models() -> None:
    assert messages({"inner": {}}) == [(("inner",), "'inner.depth' is missing", "")]
    assert messages({"count": 1, "wait": "2h"}) == [((), "count or wait, not both", "")]
    assert messages({"wait": "long"}) == [(("wait",), "wait: too long", "")]


def test_a_model_that_ignores_unknown_keys_is_strict_here() -> None:
    class Loose(BaseModel):
        a: int = 1

    class Open(BaseModel, extra="allow"):
        a: int = 1

    assert check_options(Loose, {"b": 1}).mistakes[0].message == "unknown key 'b'"
    assert check_options(Open, {"b": 1}).mistakes == ()


def test_keys() -> None:
    assert known_keys(Options)["names_of"] == "names"
    assert "names_of" in main_keys(Options)


def test_has_template_looks_inside() -> None:
    assert has_template({"a": [1, {"b": "x ${Y}"}]})
    assert not has_template({"a": [1, None, "plain { } $"]})
