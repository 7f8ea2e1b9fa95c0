"""Rules written down in the project's own language: items of `checks:` in YAML.

Here: one item for each column that has a rule. Not here: which rules (`checks._suggestion`), what an item may say (`checks._rules`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from dataflow_assets.checks._suggestion import Suggestion


def rule_items(suggestions: Sequence[Suggestion]) -> list[dict[str, Any]]:
    """The items, as `checks:` takes them; a column of which nothing is asked has none."""
    items = [{"column": suggestion.name, **_keys(suggestion)} for suggestion in suggestions]
    return [item for item in items if len(item) > 1]


def rules_text(suggestions: Sequence[Suggestion], *, told: str) -> str:
    """The block `checks:` with a comment that says from what it was made."""
    import yaml

    lines = [f"# {line}".rstrip() for line in told.strip().splitlines()]
    items = rule_items(suggestions)
    if not items:
        return "\n".join([*lines, "checks: []", ""])
    dumped = [yaml.safe_dump(item, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6).strip() for item in items]
    return "\n".join([*lines, "checks:", *(f"  - {text}" for text in dumped), ""])


def _keys(suggestion: Suggestion) -> Mapping[str, Any]:
    found: dict[str, Any] = {} if suggestion.nullable else {"not_null": True}
    found |= {"unique": True} if suggestion.unique else {}
    found |= {"min_value": _scalar(suggestion.low, up=False)} if suggestion.low is not None else {}
    found |= {"max_value": _scalar(suggestion.high, up=True)} if suggestion.high is not None else {}
    found |= {"allowed_values": list(suggestion.values)} if suggestion.values else {}
    found |= {"min_length": suggestion.shortest} if suggestion.shortest is not None else {}
    found |= {"max_length": suggestion.longest} if suggestion.longest is not None else {}
    return found | ({"regex": suggestion.shape} if suggestion.shape else {})


def _scalar(value: Any, *, up: bool) -> Any:
    """As YAML holds it: a moment as its text, so that no loader moves it; a decimal as the number, or the whole number beyond it where a
    double cannot hold it. Never as text: two limits in text would be compared letter by letter."""
    if isinstance(value, Decimal):
        if value == value.to_integral_value():
            return int(value)
        return float(value) if Decimal(repr(float(value))) == value else (math.ceil if up else math.floor)(value)
    return value.isoformat() if isinstance(value, date) else value
