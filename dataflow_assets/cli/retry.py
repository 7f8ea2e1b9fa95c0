"""`dataflow retry`: run again what failed or was killed, from the step where it stopped.

Here: which windows, what is shown of each before it runs. Not here: what would be resumed (`execution.resuming`), what a run left undone
(`assets.unfinished`), running (`cli.run`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.cli.choosing import Chosen, choose, selection_options
from dataflow_assets.cli.due import Due, Wish
from dataflow_assets.cli.failures import FAILED, OK, UsageFailed, explain
from dataflow_assets.cli.run import Run
from dataflow_assets.cli.terminal import Session, plural, table
from dataflow_assets.cli.variables import read_variables, variable_options
from dataflow_assets.cli.verb import VerbCommand
from dataflow_assets.plan.model import PipelinePlan, WindowTodo
from dataflow_assets.tables import utc_now

if TYPE_CHECKING:
    from dataflow_assets.assets.unfinished import UnfinishedRun
    from dataflow_assets.execution.resuming import StepForecast, WindowForecast

_SHOWN = 10
_OPEN = {"missing", "failed"}


@click.command("retry", cls=VerbCommand)
@click.argument("selectors", nargs=-1, metavar="[SELECTOR]...")
@selection_options
@variable_options
@click.option(
    "--run", "run_id", metavar="ID", help="What this run left undone, with its variables and steps; the beginning of an id will do."
)
@click.option("--dry-run", is_flag=True, help="Show what would be resumed and what made anew, and stop.")
@click.option("--json-lines", is_flag=True, help="Print one JSON document per event as it happens; the last one is that of --json.")
@click.pass_obj
def command(session: Session, /, **given: Any) -> int:
    """Run again the windows that failed or were killed, and those that their run did not reach.

    Each begins at the step where it stopped, from the stages of the attempt before, once these are verified. Before it runs it is shown
    for each window what is resumed, what is made anew, and why. Other windows that are due are left to `dataflow run`.
    """
    session.json = session.json or given["json_lines"]
    variables = read_variables(given["several"], given["single"])
    if given["run_id"]:
        variables = {**_variables_of(session, given["run_id"]), **variables}
    chosen = choose(session, (*given["selectors"], *given["select"]), given["exclude"], variables)
    return Retry(session, chosen, run_id=given["run_id"] or "", stream=given["json_lines"]).retry(dry_run=given["dry_run"])


def _variables_of(session: Session, run_id: str) -> Mapping[str, Any]:
    from dataflow_assets.assets.instance import open_instance
    from dataflow_assets.assets.unfinished import variables_of

    with open_instance(session.load()) as instance:
        return variables_of(instance, run_id)


@dataclass(frozen=True)
class Left:
    """What is to be run again of one pipeline."""

    due: Due
    forecasts: tuple[WindowForecast, ...] = ()
    run: UnfinishedRun | None = None


class Retry(Run):
    """One call of `dataflow retry`."""

    def __init__(self, session: Session, chosen: Chosen, *, run_id: str, stream: bool) -> None:
        super().__init__(session, chosen, Wish(), now=utc_now(), stream=stream)
        self._run_id = run_id
        self._left: dict[str, Left] = {}

    def retry(self, *, dry_run: bool) -> int:
        """Look, show, and run; returns the exit code."""
        try:
            self._look()
            open_ones = {name: left for name, left in self._left.items() if left.due.now or left.due.error}
            self._show(open_ones)
            errors = [left for left in open_ones.values() if left.due.error]
            if dry_run or not open_ones:
                return self._end(open_ones, dry_run=dry_run, code=FAILED if errors else OK)
            pipelines = tuple(item for item in self.chosen.pipelines if item.name in open_ones)
            self.chosen = replace(self.chosen, pipelines=pipelines, parts=self._parts(open_ones))
            self.extra = {"retried": [_data(name, left) for name, left in open_ones.items()]}
            self.report.total = len(pipelines)
            return self.go()
        finally:
            self.close()

    def due_of(self, pipeline: PipelinePlan) -> Due:
        return self._left[pipeline.name].due

    def refreshes(self, pipeline: PipelinePlan) -> bool:
        """Of each pipeline, whether the run that it repeats did: to another one's target it would do harm."""
        run = self._left[pipeline.name].run
        return run is not None and run.full_refresh

    def tags_of(self, pipeline: PipelinePlan) -> Mapping[str, str]:
        run = self._left[pipeline.name].run
        return run.marks if run else {}

    def _look(self) -> None:
        for pipeline in self.chosen.pipelines:
            left = _left_of(self, pipeline, run_id=self._run_id)
            if left is not None:
                self._left[pipeline.name] = left
        if self._run_id and not self._left:
            raise UsageFailed(
                f"run {self._run_id} is of no selected pipeline, or did all it was asked to", hint="`dataflow status` shows what is due"
            )

    def _parts(self, open_ones: Mapping[str, Left]) -> dict[str, frozenset[str]]:
        """The steps of the run that is repeated, unless the selection names some."""
        repeated = {name: left.run.steps for name, left in open_ones.items() if self._run_id and left.run and left.run.steps}
        return {**repeated, **self.chosen.parts}

    def _show(self, open_ones: Mapping[str, Left]) -> None:
        for name, left in open_ones.items():
            self.session.say(click.style(name, bold=True) + (f"  (run {left.run.run_id[:8]})" if left.run else ""))
            if left.due.error:
                self.session.say("  cannot tell: " + explain(left.due.error).replace("\n", "\n  "))
            for forecast in left.forecasts[:_SHOWN]:
                _show_window(self.session, forecast)
            if len(left.forecasts) > _SHOWN:
                self.session.say(f"  ... and {plural(len(left.forecasts) - _SHOWN, 'window')} more; --json has each")
            self.session.say()

    def _end(self, open_ones: Mapping[str, Left], *, dry_run: bool, code: int) -> int:
        count = sum(len(left.due.now) for left in open_ones.values())
        if not open_ones:
            self.session.say("Nothing is left to do." if self._run_id else "Nothing failed, and no attempt was killed.")
        following = "dataflow retry" + (f" --run {self._run_id}" if self._run_id else "") if count else "dataflow status"
        self.session.say(f"Next: {following}")
        retried = [_data(name, left) for name, left in open_ones.items()]
        document = {"ok": code == OK, "exit_code": code, "dry_run": dry_run, "windows": count, "retried": retried, "next": following}
        self.report.finish(document)
        return code


def _left_of(call: Retry, pipeline: PipelinePlan, *, run_id: str) -> Left | None:
    """The windows whose last attempt failed or was killed, and those that their run, or the run asked for, did not reach."""
    from dataflow_assets.assets.unfinished import unfinished_run
    from dataflow_assets.execution.resuming import forecasts
    from dataflow_assets.execution.status import window_status

    run = unfinished_run(call.instance, call.chosen.project, pipeline, run_id=run_id)
    if run_id and run is None:
        return None
    try:
        todos = window_status(call.chosen.project, pipeline, now=call.now)
        chosen = [todo for todo in todos if _is_left(todo, run, only_run=bool(run_id))]
        windows = {todo.key: todo.window for todo in chosen}
        found = forecasts(call.chosen.project, pipeline, windows, now=call.now)
    except Exception as error:  # noqa: BLE001 - whatever a system answers stops this pipeline only
        return Left(Due(pipeline, error=error), run=run)
    now = tuple(replace(todo, run=True) for todo in chosen)
    return Left(Due(pipeline, tuple(todos), now), tuple(found), run)


def _is_left(todo: WindowTodo, run: UnfinishedRun | None, *, only_run: bool) -> bool:
    asked = run is not None and todo.window in run.windows
    if todo.window is None and run is None:
        return todo.state == "failed"
    unreached = run is not None and asked and (todo.state in _OPEN or run.full_refresh or todo.window is None)
    return unreached if only_run else todo.state == "failed" or unreached


def _show_window(session: Session, forecast: WindowForecast) -> None:
    error = forecast.attempt.error.splitlines()[0] if forecast.attempt and forecast.attempt.error else ""
    why = f": {error}" if error and error != "interrupted" else ""
    session.say(f"  {forecast.key}  {forecast.ended}{why}")
    for line in table([_row(step) for step in forecast.steps]):
        session.say(f"      {line}")


def _row(step: StepForecast) -> tuple[str, str, str]:
    words = {"resumed": "resumed", "anew": "made anew", "checked": "checked", "published": "published"}
    detail = f"{plural(step.rows, 'row')}, once verified" if step.rows is not None else step.reason
    return step.step, words[step.fate], detail


def _data(name: str, left: Left) -> dict[str, Any]:
    from dataflow_assets.cli.failures import describe

    return {
        "name": name,
        "run_id": left.run.run_id if left.run else None,
        "error": describe(left.due.error) if left.due.error else None,
        "windows": [
            {
                "key": forecast.key,
                "ended": forecast.ended,
                "error": (forecast.attempt.error or None) if forecast.attempt else None,
                "attempt": forecast.attempt.attempt if forecast.attempt else None,
                "begins_at": forecast.begins_at,
                "steps": _steps(forecast.steps),
            }
            for forecast in left.forecasts
        ],
    }


def _steps(steps: Sequence[StepForecast]) -> list[dict[str, Any]]:
    return [{"step": step.step, "fate": step.fate, "reason": step.reason, "rows": step.rows} for step in steps]
