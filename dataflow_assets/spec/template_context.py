"""What a template can name in one rendering: variables, state, window, functions.

Here: looking names up, lazily. Not here: rendering (`spec.templates`), the values' own behaviour (`spec.template_values`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

from dataflow_assets.errors import TemplateError
from dataflow_assets.secrets import looks_secret, register_secret
from dataflow_assets.spec.problems import near
from dataflow_assets.spec.template_values import Day, IncrementalNames, StateNames, WindowNames
from dataflow_assets.tables import utc_now
from dataflow_assets.windows import Window

MISSING = object()
MAX_RANGE = 10_000


@dataclass(frozen=True)
class TemplateContext:
    """Everything that a template can name. Variables: project below pipeline below overrides; they are rendered when first asked for.

    `steps` maps a step id to what is known of its result, as in {"load": {"row_count": 3}}. Overrides, state and the environment are
    data: braces in them are never evaluated.
    """

    project_variables: Mapping[str, Any] = field(default_factory=dict)
    pipeline_variables: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict, repr=False)
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    now: datetime = field(default_factory=utc_now)
    timezone: str = "UTC"
    window: Window | None = None
    window_key: str | None = None
    batch_period: str | None = None
    event_time_column: str | None = None
    state: Mapping[str, Any] = field(default_factory=dict)
    steps: Mapping[str, Any] = field(default_factory=dict)
    _rendered: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    _open: list[str] = field(default_factory=list, init=False, repr=False, compare=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False, compare=False)

    def lookup(self, name: str, default: Any = None) -> Any:
        """The value of a bare name: state and its like, then variables, then the window's names, then functions; else `default`."""
        if name in self._objects:
            return self._objects[name]
        if name in self._raw:
            return self.variable(name)
        return self._window_names.get(name, self._functions.get(name, default))

    def variable(self, name: str) -> Any:
        """A variable, rendered. Raises KeyError for an unknown one and TemplateError for one that refers to itself."""
        if name in self.overrides:
            return self.overrides[name]
        with self._lock:  # what is open is of one thread's chain
            if name not in self._rendered:
                self._rendered[name] = self._render(name)
        return self._rendered[name]

    def _render(self, name: str) -> Any:
        from dataflow_assets.spec.templates import render_at

        if name in self._open:
            chain = " -> ".join([*self._open[self._open.index(name) :], name])
            raise TemplateError(f"the variable {name!r} refers to itself: {chain}", hint="give one of them a plain value")
        self._open.append(name)
        try:
            return render_at(self._raw[name], self, (f"variable {name}",))
        finally:
            self._open.pop()

    @property
    def names(self) -> list[str]:
        """Every name that a template can use, for suggestions."""
        return sorted({*self._raw, *self._objects, *self._window_names, *self._functions})

    @property
    def variable_names(self) -> list[str]:
        """The names of all variables."""
        return list(self._raw)

    @cached_property
    def _raw(self) -> dict[str, Any]:
        return {**self.project_variables, **self.pipeline_variables, **self.overrides}

    @cached_property
    def _local_now(self) -> datetime:
        return self.now.astimezone(ZoneInfo(self.timezone))

    @cached_property
    def _objects(self) -> dict[str, Any]:
        state = StateNames(self.state)
        objects: dict[str, Any] = {"state": state, "incremental": IncrementalNames(state, Day.of(self._local_now)), "steps": self.steps}
        if self.window is not None:
            zone = ZoneInfo(self.timezone)
            objects["window"] = WindowNames(self.window.start.astimezone(zone), self.window.end.astimezone(zone), self.window_key)
        return objects

    @cached_property
    def _window_names(self) -> dict[str, Any]:
        found: dict[str, Any] = {"event_time_column": self.event_time_column, "batch_period": self.batch_period}
        if window := self._objects.get("window"):
            found |= {"batch_start": window.start, "batch_end": window.end}
        return {name: value for name, value in found.items() if value is not None}

    @cached_property
    def _functions(self) -> dict[str, Callable[..., Any]]:
        functions = {**_date_functions(self._local_now), "var": self._var, "env_var": self.environment_value}
        return {name: _offered(function) for name, function in functions.items()}

    def _var(self, key: str, default: Any = MISSING) -> Any:
        if key in self._raw:
            return self.variable(key)
        if key in self._window_names:
            return self._window_names[key]
        if default is not MISSING:
            return default
        hint = near(key, self._raw) or f"set it under `variables:`, or write var({key!r}, default)"
        raise TemplateError(f"no variable {key!r}", hint=hint)

    def environment_value(self, name: str, default: Any = MISSING) -> Any:
        """An environment variable; one whose name looks secret is masked from now on. Raises TemplateError when it is not set."""
        if name not in self.environment:
            if default is MISSING:
                hint = near(name, self.environment) or f"set it: put {name}=... into .env or export it; or write env_var({name!r}, default)"
                raise TemplateError(f"the environment variable {name} is not set", hint=hint)
            return default
        value = self.environment[name]
        if looks_secret(name):
            register_secret(value)
        return value


def _date_functions(now: datetime) -> dict[str, Callable[..., Any]]:
    today = Day.of(now)
    return {
        "now": lambda: now,
        "today": lambda: today,
        "yesterday": lambda: today - timedelta(days=1),
        "days_ago": lambda days: today - timedelta(days=days),
        "timedelta": lambda days=0, **parts: timedelta(days=days, **parts),
        "range": _range,
    }


def _range(*bounds: int) -> list[int]:
    numbers = range(*bounds)
    if len(numbers) > MAX_RANGE:
        raise TemplateError(f"range of {len(numbers):,} numbers: at most {MAX_RANGE:,} are offered")
    return list(numbers)


def _offered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `function` so that the sandbox knows it as one that templates may call."""

    def offered(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    offered.is_template_function = True  # type: ignore[attr-defined]
    return offered
