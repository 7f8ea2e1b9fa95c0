"""`dataflow run`: load, check and publish what is missing, through Dagster.

Here: the options, the order of pipelines, exit codes. Not here: which windows are due (`cli.due`), the run itself
(`assets.execute`), the lines (`cli.report`), the closing words (`cli.closing`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext, redirect_stdout
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.cli.choosing import Chosen, choose, selection_options
from dataflow_assets.cli.closing import close
from dataflow_assets.cli.due import Due, Wish, find_due, paused_of, refuse_unknown_keys
from dataflow_assets.cli.interrupts import watching_interrupts
from dataflow_assets.cli.lean import collecting_garbage
from dataflow_assets.cli.outcome import PipelineOutcome
from dataflow_assets.cli.ranges import pause_option, range_options, retired_option
from dataflow_assets.cli.report import report_for
from dataflow_assets.cli.terminal import Session, plural
from dataflow_assets.cli.variables import read_variables, variable_options
from dataflow_assets.cli.verb import VerbCommand
from dataflow_assets.plan.gaps import gaps_of
from dataflow_assets.tables import utc_now

if TYPE_CHECKING:
    import dagster as dg

    from dataflow_assets.assets.idempotency import KeyedCall
    from dataflow_assets.plan.model import PipelinePlan


@click.command("run", cls=VerbCommand)
@selection_options
@variable_options
@range_options
@pause_option
@retired_option
@click.option("--max-windows", type=click.IntRange(min=1), help="At most this many windows per pipeline, the oldest ones.")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop; same as `dataflow plan`.")
@click.option(
    "--alerts", is_flag=True, help="Tell at the end what is to be told, as the sensor of alerts does where Dagster's daemon runs."
)
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="The first call with this key runs; every later one gives its outcome and starts nothing. For schedulers that may ask twice.",
)
@click.option("--json-lines", is_flag=True, help="Print one JSON document per event as it happens; the last one is that of --json.")
@click.pass_obj
def command(session: Session, /, **given: Any) -> int:
    """Run pipelines, upstream ones first.

    Without options, each pipeline publishes the windows that are missing, stale or failed, and leaves the others alone. When a pipeline
    fails, those that depend on it are skipped and the others go on. Press Ctrl-C to stop: finished windows stay published, and the next
    run resumes.
    """
    session.json = session.json or given["json_lines"]
    variables = read_variables(given["several"], given["single"])
    chosen = choose(session, given["select"], given["exclude"], variables, near=True)
    wish = Wish.of(given)
    now = utc_now()
    refuse_unknown_keys(chosen.pipelines, wish, now=now)
    if given["dry_run"]:
        from dataflow_assets.cli.plan import print_plan

        return print_plan(session, chosen, wish, now=now)
    run = Run(session, chosen, wish, now=now, stream=given["json_lines"], alerts=given["alerts"])
    return run.go() if given["idempotency_key"] is None else run.go_once(given["idempotency_key"], given)


class Run:
    """One call of `dataflow run`."""

    def __init__(self, session: Session, chosen: Chosen, wish: Wish, *, now: datetime, stream: bool, alerts: bool = False) -> None:
        self.session, self.chosen, self.wish, self.now, self._alerts = session, chosen, wish, now, alerts
        self.outcomes: list[PipelineOutcome] = []
        self._open = ExitStack()
        self.extra: Mapping[str, Any] = {}
        """What the closing document holds beside the outcomes."""
        self.keyed: KeyedCall | None = None
        self.report = report_for(session, total=len(chosen.pipelines), stream=stream)

    def go(self) -> int:
        """Run every selected pipeline and return the exit code."""
        from dataflow_assets.cli.logs import log_to_file

        project, started = self.chosen.project, time.perf_counter()
        self._open.enter_context(log_to_file(project.root, project.model.logging))
        self.session.say(f"Running {plural(len(self.chosen.pipelines), 'pipeline')} of {project.model.project_name} ({project.root})\n")
        try:
            for pipeline in self.chosen.pipelines:
                outcome = PipelineOutcome(pipeline.name)
                self.outcomes.append(outcome)
                self._run_one(pipeline, outcome)
        except KeyboardInterrupt:
            self._interrupted()
        finally:
            self.report.close()
            if self._alerts:
                from dataflow_assets.cli.alerting import tell_of_run

                tell_of_run(self.session, self.chosen.project, self.instance, self.outcomes)
            self._open.close()
        seconds = time.perf_counter() - started
        return close(self.session, self.chosen, self.wish, self.outcomes, report=self.report, seconds=seconds, extra=self.extra)

    def go_once(self, key: str, given: Mapping[str, Any]) -> int:
        """Run, unless a call with this key has done so already."""
        from dataflow_assets.cli.idempotency import run_once

        def run(call: KeyedCall) -> tuple[int, Mapping[str, Any]]:
            self.keyed, self.extra = call, {"idempotency_key": key, "repeated": False}
            return self.go(), self.report.document

        return run_once(self.session, self.chosen.project, self.instance, key, given=given, go=run)

    def _interrupted(self) -> None:
        """Mark the pipeline at work; those after it are not begun."""
        for last in self.outcomes[-1:]:
            if last.status != "interrupted":
                last.status = "interrupted"
                self.report.end(last)
        done = {outcome.name for outcome in self.outcomes}
        rest = [pipeline.name for pipeline in self.chosen.pipelines if pipeline.name not in done]
        self.outcomes += [PipelineOutcome(name, "skipped", "interrupted before it began") for name in rest]

    def _run_one(self, pipeline: PipelinePlan, outcome: PipelineOutcome) -> None:
        if culprit := self._failed_upstream(pipeline):
            from dataflow_assets.execution.journal import record_skip

            outcome.status, outcome.reason = "skipped", f"{culprit} did not succeed"
            record_skip(self.chosen.project, pipeline.name, reason=outcome.reason)
            return self.report.nothing(outcome)
        due = self.due_of(pipeline)
        outcome.waiting = due.waiting
        if due.error:
            outcome.status, outcome.error = "failed", due.error
            return self.report.nothing(outcome)
        self._note_gaps(due)
        if due.paused:
            outcome.reason = f"{due.paused}; --even-if-paused runs it all the same"
            return self.report.nothing(outcome)
        if not due.now:
            outcome.reason = "nothing to do" if due.todos or not self.wish.keys else "no such window"
            return self.report.nothing(outcome)
        return self._execute(due, outcome)

    def due_of(self, pipeline: PipelinePlan) -> Due:
        """What is to be run of a pipeline."""
        return find_due(self.chosen.project, pipeline, self.wish, now=self.now, paused=self._paused.get(pipeline.name, ""))

    def refreshes(self, pipeline: PipelinePlan) -> bool:
        """Whether a pipeline is run as a full refresh."""
        return self.wish.full_refresh

    def close(self) -> None:
        """Let go of the instance and the log file."""
        self._open.close()

    def _note_gaps(self, due: Due) -> None:
        """Record gaps that nobody has recorded yet, where every window was looked at."""
        if self.wish.start or self.wish.end or self.wish.keys or not gaps_of(due.todos):
            return
        from dataflow_assets.operations.gaps import note_gaps

        if new := note_gaps(self.instance, self.chosen.project, due.pipeline, due.todos, now=self.now):
            self.report.note(f"{plural(len(new), 'new gap')} in {due.pipeline.name}: dataflow gaps {due.pipeline.name}")

    def _failed_upstream(self, pipeline: PipelinePlan) -> str | None:
        return next((other.name for other in self.outcomes if other.name in pipeline.upstream and other.status != "ok"), None)

    def tags_of(self, pipeline: PipelinePlan) -> Mapping[str, str]:
        """Further tags of the pipeline's run."""
        return {}

    def _execute(self, due: Due, outcome: PipelineOutcome) -> None:
        from dataflow_assets.assets.execute import execute, was_interrupted

        outcome.planned = due.now
        self.report.begin(due.pipeline, due.now)
        if due.pipeline.windows is None and (self.wish.start or self.wish.end):
            self.report.note("has no windows: runs as a whole, whatever --start and --end say")
        started, instance = time.perf_counter(), self.instance
        quiet = redirect_stdout(sys.stderr) if self.session.json else nullcontext()
        with watching_interrupts() as pressed, collecting_garbage(), quiet:
            (result,) = execute(
                self.chosen.plan,
                self.chosen.project,
                windows={due.pipeline.name: [todo.window for todo in due.now]},
                steps=self.chosen.parts,
                instance=instance,
                on_event=lambda _name, event: self.report.event(event, outcome.add(event)),
                full_refresh=self.refreshes(due.pipeline),
                keyed=self.keyed,
                tags=self.tags_of(due.pipeline),
            )
            interrupted = was_interrupted(result) or (result.status == "failed" and pressed())
        outcome.seconds = time.perf_counter() - started
        outcome.status = "interrupted" if interrupted else result.status
        outcome.run_id, outcome.run_ids = result.run_id, result.run_ids
        if outcome.status == "failed" and not any(window.error for window in outcome.windows):
            outcome.error = result.error
        self.report.end(outcome)
        if interrupted:
            raise KeyboardInterrupt

    @cached_property
    def _paused(self) -> dict[str, str]:
        return paused_of(self.chosen.project, self.chosen.pipelines, self.wish, now=self.now)

    @cached_property
    def instance(self) -> dg.DagsterInstance:
        """The project's Dagster instance, opened when the first pipeline runs."""
        from dataflow_assets.assets.instance import open_instance

        return self._open.enter_context(open_instance(self.chosen.project))
