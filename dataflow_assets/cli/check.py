"""`dataflow check`: run the checks alone, on what is published, and tell a CI how it went.

Here: the options, which windows are looked at, the run of each pipeline. Not here: how a run goes (`assets.execute`), what is
printed and written (`cli.verdicts`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.cli.choosing import Chosen, choose, selection_options
from dataflow_assets.cli.due import Wish, refuse_unknown_keys
from dataflow_assets.cli.failures import UsageFailed
from dataflow_assets.cli.interrupts import watching_interrupts
from dataflow_assets.cli.lean import collecting_garbage
from dataflow_assets.cli.ranges import bounds, window_of, window_options
from dataflow_assets.cli.terminal import Session, plural
from dataflow_assets.cli.variables import read_variables, variable_options
from dataflow_assets.cli.verb import VerbCommand
from dataflow_assets.cli.verdicts import PipelineVerdicts, close, tell
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.tables import utc_now
from dataflow_assets.windows import Window

if TYPE_CHECKING:
    import dagster as dg


@click.command("check", cls=VerbCommand)
@selection_options
@variable_options
@window_options
@click.option("--all", "whole", is_flag=True, help="Look at every published window; default: the newest one of each pipeline.")
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write the results as JUnit XML too.")
@click.option("--warnings-as-errors", "strict", is_flag=True, help="Exit with 1 for warnings too.")
@click.pass_obj
def command(session: Session, /, **given: Any) -> int:
    """Run the checks of pipelines without loading anything.

    Checks of an endpoint look at what its target holds. Those of a source, a transform or a check step read the source again, for the
    same window. Nothing is published, and the results are in the Dagster UI like those of any run. Exits with 1 when a check fails that
    would keep a window from being published.
    """
    chosen = choose(session, given["select"], given["exclude"], read_variables(given["several"], given["single"]), near=True)
    wish = Wish(given["start"], given["end"], given["keys"])
    if given["whole"] and (wish.keys or wish.start or wish.end):
        raise UsageFailed("--all looks at every published window", hint="leave out --all, or --window, --start and --end")
    now, started = utc_now(), time.perf_counter()
    refuse_unknown_keys(chosen.pipelines, wish, now=now)
    found = Look(session, chosen, wish, whole=given["whole"], now=now).at_all()
    return close(session, chosen, found, junit=given["junit"], strict=given["strict"], seconds=time.perf_counter() - started)


@dataclass(frozen=True)
class Look:
    """One call of `dataflow check`."""

    session: Session
    chosen: Chosen
    wish: Wish
    whole: bool
    now: datetime
    opened: ExitStack = field(default_factory=ExitStack)

    def at_all(self) -> list[PipelineVerdicts]:
        """The verdicts on every selected pipeline with checks. Raises UsageFailed when none has any."""
        pipelines = [pipeline for pipeline in self.chosen.pipelines if self._checks(pipeline)]
        if not pipelines:
            raise UsageFailed("none of the selected steps has a check", hint="add `checks:` to a step; see docs/checks.md")
        project = self.chosen.project
        self.session.say(f"Checking {plural(len(pipelines), 'pipeline')} of {project.model.project_name} ({project.root})\n")
        found: list[PipelineVerdicts] = []
        with self.opened:
            for pipeline in pipelines:
                found.append(verdicts := PipelineVerdicts(pipeline, self._checks(pipeline)))
                self._look_at(verdicts)
                if verdicts.interrupted:
                    break
        return found

    @cached_property
    def instance(self) -> dg.DagsterInstance:
        """The project's Dagster instance, opened when the first pipeline is looked at."""
        from dataflow_assets.assets.instance import open_instance

        return self.opened.enter_context(open_instance(self.chosen.project))

    def _checks(self, pipeline: PipelinePlan) -> tuple[tuple[str, str], ...]:
        parts = self.chosen.parts.get(pipeline.name)
        steps = [step for step in pipeline.steps if parts is None or step.id in parts]
        return tuple((step.id, name) for step in steps for check in step.checks for name in check.names)

    def _look_at(self, verdicts: PipelineVerdicts) -> None:
        started = time.perf_counter()
        try:
            windows = self._windows(verdicts.pipeline)
        except UsageFailed:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a system answers stops this pipeline only
            verdicts.error = error
            return
        if windows:
            self._execute(verdicts, windows)
        verdicts.seconds = time.perf_counter() - started

    def _windows(self, pipeline: PipelinePlan) -> Sequence[Window | None]:
        """Those asked for, published or not; else all published ones, or the newest."""
        from dataflow_assets.execution.status import window_status

        start, end = bounds(pipeline, start=self.wish.start, end=self.wish.end)
        keys = [pipeline.windows.cadence.key(w) for k in self.wish.keys if pipeline.windows and (w := window_of(pipeline, k, now=self.now))]
        if self.wish.keys and not keys:
            return ()
        todos = window_status(self.chosen.project, pipeline, now=self.now, start=start, end=end, keys=keys or None)
        if start or end or keys:
            return [todo.window for todo in todos]
        published = [todo.window for todo in todos if todo.state in {"published", "stale", "reopened"}]
        return published if self.whole else published[-1:]

    def _execute(self, verdicts: PipelineVerdicts, windows: Sequence[Window | None]) -> None:
        from dataflow_assets.assets.execute import execute

        name, parts = verdicts.pipeline.name, self.chosen.parts
        quiet = redirect_stdout(sys.stderr) if self.session.json else nullcontext()
        instance = self.instance
        with watching_interrupts() as pressed, collecting_garbage(), quiet:
            (result,) = execute(
                self.chosen.plan,
                self.chosen.project,
                windows={name: windows},
                steps={name: parts[name]} if name in parts else None,
                instance=instance,
                on_event=lambda _, event: tell(self.session, verdicts, event),
                checks_only=True,
            )
            verdicts.interrupted = result.status == "interrupted" or (result.status == "failed" and pressed())
        verdicts.run_id = result.run_id
        if result.status == "failed" and not verdicts.stopped and not verdicts.failed:
            verdicts.error = result.error
