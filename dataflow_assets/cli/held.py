"""Which units of the quarantines a command is about: windows, or batches, of endpoints that have rows set aside.

Here: the options that say so, and finding them. Not here: what is done with them (`cli.quarantine`, `cli.replay`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dataflow_assets.cli.choosing import Chosen, choose, selection_options
from dataflow_assets.cli.failures import FAILED, OK, describe, explain
from dataflow_assets.cli.ranges import bounds, check_bound, window_of
from dataflow_assets.cli.terminal import Session
from dataflow_assets.cli.variables import read_variables, variable_options
from dataflow_assets.tables import utc_now

if TYPE_CHECKING:
    from dataflow_assets.execution.held import HeldUnit
    from dataflow_assets.execution.session import Session as RunSession
    from dataflow_assets.plan.model import PipelinePlan, StepPlan

F = TypeVar("F", bound=Callable[..., Any])
_BATCH = 12


def unit_options(function: F) -> F:
    """Add the selection and which windows and rules of it."""
    for option in (
        click.option("--rule", metavar="NAME", help="Only rows that broke this rule, by the name of its check."),
        click.option("--window", "keys", multiple=True, metavar="KEY", help="Only this window, or batch; may be repeated."),
        click.option("--end", metavar="TIME", callback=check_bound, help="Only windows before this moment; exclusive."),
        click.option("--start", metavar="TIME", callback=check_bound, help="Only windows from this moment on; inclusive."),
        variable_options,
        selection_options,
        click.argument("selectors", metavar="[SELECTOR]...", nargs=-1),
    ):
        function = option(function)
    return function


@dataclass
class Asked:
    """What one command is about: the chosen pipelines, and the filters on their units. `errors`: endpoints that could not be asked."""

    session: Session
    chosen: Chosen
    given: dict[str, Any]

    def __post_init__(self) -> None:
        self.now = utc_now()
        self.errors: dict[str, Exception] = {}

    @classmethod
    def of(cls, session: Session, given: dict[str, Any]) -> Asked:
        """From the options of the command."""
        variables = read_variables(given["several"], given["single"])
        return cls(session, choose(session, (*given["selectors"], *given["select"]), given["exclude"], variables), given)

    def endpoints(self, pipeline: PipelinePlan) -> Iterator[StepPlan]:
        """The chosen endpoints of a pipeline."""
        chosen = self.chosen.parts.get(pipeline.name)
        yield from (step for step in pipeline.endpoints if chosen is None or step.id in chosen)

    def units(self, *, empty: bool = False) -> Iterator[tuple[RunSession, StepPlan, HeldUnit]]:
        """Every unit with rows set aside that the command is about, each with an open session; `empty`: those that had some, too."""
        from dataflow_assets.execution.held import held_units, open_session

        for pipeline in self.chosen.pipelines:
            opened = open_session(self.chosen.project, pipeline, now=self.now)
            try:
                for step in self.endpoints(pipeline):
                    try:
                        found = [unit for unit in held_units(opened, step) if (unit.rows or empty) and self._covers(pipeline, unit)]
                    except Exception as error:  # noqa: BLE001 - whatever a system answers is this step's outcome
                        self.errors[f"{pipeline.name}.{step.id}"] = error
                        continue
                    yield from ((opened, step, unit) for unit in found)
            finally:
                opened.close()

    def _covers(self, pipeline: PipelinePlan, unit: HeldUnit) -> bool:
        since, until = bounds(pipeline, start=self.given["start"], end=self.given["end"])
        first, last = (unit.window.start, unit.window.end) if unit.window else (unit.start, unit.start)
        inside = (until is None or first < until) and (since is None or last > since or first >= since)
        keys, rule = self.given["keys"], self.given["rule"]
        named = not keys or any(self._names(pipeline, key, unit) for key in keys)
        return inside and named and (rule is None or rule in unit.rules)

    def _names(self, pipeline: PipelinePlan, key: str, unit: HeldUnit) -> bool:
        window = window_of(pipeline, key, now=self.now)
        by_start = window is not None and unit.window == window
        return by_start or unit.key == key or (pipeline.windows is None and len(key) >= _BATCH // 2 and unit.key.startswith(key))

    def close(self, document: dict[str, Any]) -> int:
        """Tell what could not be asked, print the document, and return the exit code."""
        for name, error in self.errors.items():
            self.session.say(click.style(f"{name}: cannot tell: ", fg="red") + explain(error))
        code = FAILED if self.errors else OK
        failed = [{"step": name, "error": describe(error)} for name, error in self.errors.items()]
        self.session.emit({"ok": code == OK, **document, "errors": failed})
        return code


def shown_key(unit: HeldUnit) -> str:
    """The window's key; the beginning of a batch's, which is long."""
    return unit.key if unit.window else unit.key[:_BATCH]


def unit_data(unit: HeldUnit) -> dict[str, Any]:
    """A unit for `--json`."""
    return {
        "step": f"{unit.pipeline}.{unit.step}",
        "key": unit.key,
        "start": unit.window.start if unit.window else None,
        "end": unit.window.end if unit.window else None,
        "rows": unit.rows,
        "rules": dict(unit.rules),
        "since": unit.entry.published_at,
        "target": str(unit.target.table),
        "quarantine": str(unit.aside.table),
        "unfinished": unit.unfinished,
        "discarded": unit.discarded,
    }
