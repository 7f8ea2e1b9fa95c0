"""How much work a template may cause, and how much text it may make.

Here: the budget of one rendering and the checks made before an operation runs. Not here: which operations exist (`spec.sandbox`,
`spec.filters`). Imports jinja2: only `spec.sandbox` and its parts import this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Undefined
from jinja2.exceptions import SecurityError

MAX_TEXT = 1_000_000
MAX_STEPS = 200_000
MAX_BITS = 4_096


@dataclass
class Budget:
    """How much a rendering may still do; characters count a hundredth of a step."""

    steps: float = MAX_STEPS

    def charge(self, steps: float) -> None:
        """Take `steps` off. Raises SecurityError when none is left."""
        self.steps -= steps
        if self.steps < 0:
            raise SecurityError("the template does too much work")


def charge_value(budget: Budget, value: Any) -> None:
    """Take the size of `value`, with everything inside written out, off the budget, and refuse text that is too long."""
    stack = [value]
    while stack:
        item = stack.pop()
        budget.charge(1)
        checked(item)
        if isinstance(item, str):
            budget.charge(len(item) / 100)
            limit_text(len(item))
        elif isinstance(item, Mapping):
            stack += [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple, set, frozenset)):
            stack += item


def limit_text(length: int) -> None:
    """Raises SecurityError for a length that no rendered text may have."""
    if length > MAX_TEXT:
        raise SecurityError(f"the text is longer than {MAX_TEXT:,} characters")


def check_operands(operator: str, left: Any, right: Any) -> None:
    """Raises SecurityError for arithmetic whose result would be huge."""
    if operator == "%" and isinstance(left, (str, bytes)):
        raise SecurityError("% does not format text here; join with ~")
    if operator == "*" and any(isinstance(side, (str, bytes, list, tuple)) for side in (left, right)):
        text, times = (left, right) if isinstance(right, int) else (right, left)
        if isinstance(times, int) and len(text) * max(times, 0) > MAX_STEPS:
            raise SecurityError("the product is too long")
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length() if operator == "*" else 0
        if bits > MAX_BITS:
            raise SecurityError("the number is too large")


def checked(value: Any) -> Any:
    """`value`, if it exists. Raises jinja's error for a name that does not."""
    if isinstance(value, Undefined):
        value._fail_with_undefined_error()
    return value
