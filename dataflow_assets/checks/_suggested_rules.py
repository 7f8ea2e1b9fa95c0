"""Rules written down in the project's own language: items of `checks:` in YAML.

Here: one item for each column that has a rule. Not here: which rules (`checks._suggestion`), what an item may say (`checks._rules`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
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
    found |= {"min_value": _scalar(suggestion.low)} if suggestion.low is not None else {}
    found |= {"max_value": _scalar(suggestion.high)} if suggestion.high is not None else {}
    found |= {"allowed_values": list(suggestion.values)} if suggestion.values else {}
    found |= {"min_length": suggestion.shortest} if suggestion.shortest is not None else {}
    found |= {"max_length": suggestion.longest} if suggestion.longest is not None else {}
    return found | ({"regex": suggestion.shape} if suggestion.shape else {})


def _scalar(value: Any) -> Any:
    """As YAML holds it exactly: decimals as text, a moment as its text, so that no loader moves it."""
    if isinstance(value, Decimal):
        return str(value)
    return value.isoformat() if isinstance(value, datetime) else value if not isinstance(value, date) else value.isoformat()
