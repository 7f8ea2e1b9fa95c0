"""The filters that templates offer beside jinja's own harmless ones, each within the budget of its rendering.

Here: functions from values to values. Not here: the environment that offers them (`spec.sandbox`).
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, ValuesView
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.runtime import Context
from jinja2.utils import pass_context

from dataflow_assets.spec import template_values as values
from dataflow_assets.spec.budget import charge_value, checked, limit_text

BUDGET, TIMEZONE = "\0budget", "\0timezone"
OUTPUT, BOUNDED, MEASURED, JOINED = "output\0", "bounded\0", "measured\0", "joined\0"
"""Filters that no template can name: `spec.sandbox` puts them into the parsed template."""
_KEPT = (
    "abs capitalize count d default dictsort first float int items last length list lower map max min reject rejectattr reverse "
    "select selectattr sort title trim truncate unique upper"
)


@dataclass(frozen=True)
class Value:
    """What one `{{ label }}` of a template stands for."""

    value: Any
    label: str


def concatenated(parts: Iterable[Any]) -> str:
    """Text and values joined to one text."""
    texts = [values.text_of(part.value, label=part.label) if isinstance(part, Value) else str(part) for part in parts]
    limit_text(sum(map(len, texts)))
    return "".join(texts)


@pass_context
def _output(context: Context, value: Any, label: str) -> Value:
    value = list(value) if isinstance(value, (Iterator, KeysView, ValuesView, ItemsView)) else checked(value)
    charge_value(context.parent[BUDGET], value)
    if callable(value):
        raise SecurityError(f"{label} is a function: write {label}()")
    return Value(value, label)


@pass_context
def _bounded(context: Context, value: Any) -> Iterator[Any]:
    items: Iterable[Any] = checked(value)
    for item in items:
        context.parent[BUDGET].charge(1)
        yield item


@pass_context
def _measured(context: Context, value: Any) -> Any:
    charge_value(context.parent[BUDGET], value)
    return value


@pass_context
def _joined(context: Context, value: Any, separator: Any = "", attribute: Any = None) -> str:
    items = [checked(item) for item in _bounded(context, value)]
    if attribute is not None:
        items = [checked(context.environment.getitem(item, attribute)) for item in items]
    charge_value(context.parent[BUDGET], items)
    texts = [values.text_of(item, label="item") for item in items]
    length = sum(map(len, texts)) + len(str(separator)) * len(texts)
    context.parent[BUDGET].charge(length / 100)
    limit_text(length)
    return str(separator).join(texts)


@pass_context
def _replaced(context: Context, value: Any, old: Any, new: Any, count: int | None = None) -> str:
    text, old, new = (values.text_of(checked(item), label="value") for item in (value, old, new))
    length = len(text) + text.count(old) * max(len(new) - len(old), 0)
    context.parent[BUDGET].charge(length / 100)
    limit_text(length)
    return text.replace(old, new, -1 if count is None else count)


@pass_context
def _string(context: Context, value: Any) -> str:
    charge_value(context.parent[BUDGET], checked(value))
    return values.text_of(value, label="value")


@pass_context
def _summed(context: Context, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    total = start
    for item in _bounded(context, value):
        number = item if attribute is None else context.environment.getitem(item, attribute)
        if not isinstance(number, (int, float, timedelta)) or not isinstance(total, (int, float, timedelta)):
            raise TypeError("sum adds numbers")
        total = total + number  # type: ignore[operator]
    return total


def _rounded(value: float, precision: int = 0) -> float:
    number: float = checked(value)
    return round(number, max(-300, min(precision, 300)))


@pass_context
def _as_day(context: Context, value: Any) -> values.Day:
    return values.as_day(checked(value), timezone=context.parent[TIMEZONE])


@pass_context
def _as_moment(context: Context, value: Any) -> datetime:
    return values.as_moment(checked(value), timezone=context.parent[TIMEZONE])


def _as_identifier(value: Any) -> values.Identifier:
    return values.as_identifier(checked(value))


def offered() -> dict[str, Callable[..., Any]]:
    """Every filter by name."""
    own: dict[str, Callable[..., Any]] = {
        "as_date": _as_day,
        "as_datetime": _as_moment,
        "identifier": _as_identifier,
        "join": _joined,
        "replace": _replaced,
        "string": _string,
        "sum": _summed,
        "round": _rounded,
    }
    inserted = {OUTPUT: _output, BOUNDED: _bounded, MEASURED: _measured, JOINED: _joined}
    return {name: FILTERS[name] for name in _KEPT.split()} | own | inserted
