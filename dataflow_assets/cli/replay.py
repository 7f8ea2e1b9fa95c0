"""`dataflow quarantine replay`: publish rows that were set aside, after a rule or the source was mended.

Here: which way each unit goes, running windows again, what is said about it. Not here: taking rows out one by one (`execution.replaying`).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.cli.failures import FAILED, describe, explain
from dataflow_assets.cli.held import Asked, shown_key, unit_options
from dataflow_assets.cli.lean import collecting_garbage
from dataflow_assets.cli.outcome import PipelineOutcome
from dataflow_assets.cli.terminal import Session, plural
from dataflow_assets.cli.verb import VerbCommand

if TYPE_CHECKING:
    from dataflow_assets.execution.events import Event
    from dataflow_assets.execution.held import HeldUnit
    from dataflow_assets.execution.session import Session as RunSession
    from dataflow_assets.plan.model import PipelinePlan, StepPlan


@dataclass
class Outcome:
    """What became of one unit. `way`: window, when the window is run again from its source, or rows."""

    unit: HeldUnit
    way: str
    left: int | None = None
    mended: int = 0
    error: Exception | None = None

    @property
    def released(self) -> int:
        """How many rows left the quarantine."""
        return self.unit.rows - self.left if self.left is not None else 0

    def data(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "step": f"{self.unit.pipeline}.{self.unit.step}",
            "key": self.unit.key,
            "way": self.way,
            "before": self.unit.rows,
            "left": self.left,
            "released": self.released,
            "mended": self.mended,
            "error": describe(self.error) if self.error else None,
        }


@dataclass
class _Reruns:
    """The windows of one pipeline that are run again."""

    pipeline: PipelinePlan
    outcomes: list[Outcome] = field(default_factory=list)


@click.command("replay", cls=VerbCommand)
@unit_options
@click.pass_obj
@collecting_garbage()
def replay(session: Session, /, **given: Any) -> int:
    """Publish the rows that pass by now, and leave the others.

    Where an endpoint replaces what it published, its windows run again from their source with today's rules, which is right whatever comes
    after the rule; a window whose source holds fewer rows than it did is refused. Where an endpoint appends, the rows themselves are put to
    today's rules, and those that pass are appended, each once, whatever is killed.
    """
    from dataflow_assets.execution.replaying import replays_rows

    asked = Asked.of(session, given)
    outcomes: list[Outcome] = []
    reruns: dict[str, _Reruns] = {}
    for opened, step, unit in asked.units():
        if replays_rows(opened.pipeline, step):
            outcomes.append(_by_rows(asked, opened, step, unit))
            _say(session, outcomes[-1])
        else:
            reruns.setdefault(unit.pipeline, _Reruns(opened.pipeline)).outcomes.append(Outcome(unit, "window"))
    for rerun in reruns.values():
        _run_again(asked, rerun)
        outcomes += rerun.outcomes
        for outcome in rerun.outcomes:
            _say(session, outcome)
    released, left = (sum(getattr(outcome, name) or 0 for outcome in outcomes) for name in ("released", "left"))
    session.say(f"{plural(released, 'row')} left the quarantine, {plural(left, 'row')} stay." if outcomes else "Nothing is set aside.")
    code = asked.close({"released": released, "left": left, "units": [outcome.data() for outcome in outcomes]})
    return FAILED if any(outcome.error for outcome in outcomes) else code


def _by_rows(asked: Asked, opened: RunSession, step: StepPlan, unit: HeldUnit) -> Outcome:
    from dataflow_assets.execution.replaying import replay_rows
    from dataflow_assets.execution.session import Session as Opened

    outcome = Outcome(unit, "rows")
    session = Opened(replace(opened.request, attempt=uuid.uuid4().hex))
    try:
        done = replay_rows(session, step, unit, rule=asked.given["rule"])
        outcome.left, outcome.mended = done.left, done.mended
    except Exception as error:  # noqa: BLE001 - whatever happens to one unit, the others go on
        outcome.error = error
    finally:
        session.close()
    return outcome


def _run_again(asked: Asked, rerun: _Reruns) -> None:
    """Run the windows through Dagster, as `dataflow run` does, and see what is left in the quarantine."""
    from dataflow_assets.assets.execute import execute
    from dataflow_assets.execution.held import held_units, open_session

    pipeline, project = rerun.pipeline, asked.chosen.project
    windows = sorted({outcome.unit.window for outcome in rerun.outcomes if outcome.unit.window}, key=lambda window: window.start)
    seen = PipelineOutcome(pipeline.name)

    def listen(_name: str, event: Event) -> None:
        seen.add(event)

    (result,) = execute(
        asked.chosen.plan,
        project,
        windows={pipeline.name: windows if pipeline.windows else [None]},
        on_event=listen,
        replay=True,
    )
    failed = {window.key: window.error for window in seen.windows if window.error}
    opened = open_session(project, pipeline, now=asked.now)
    try:
        left = {(step.id, unit.key): unit.rows for step in pipeline.endpoints for unit in held_units(opened, step)}
    finally:
        opened.close()
    for outcome in rerun.outcomes:
        outcome.error = failed.get(outcome.unit.key) or (result.error if not failed else None)
        if outcome.error is None:
            outcome.left = left.get((outcome.unit.step, outcome.unit.key), 0)


def _say(session: Session, outcome: Outcome) -> None:
    name = f"{outcome.unit.pipeline}.{outcome.unit.step} {shown_key(outcome.unit)}"
    if outcome.error:
        session.say(click.style(f"{name}: ", fg="red") + explain(outcome.error).replace("\n", "\n  "))
        return
    how = "its window was run again from its source" if outcome.way == "window" else "by its rows"
    mended = f", {outcome.mended:,} of them published by an earlier replay that was cut short" if outcome.mended else ""
    session.say(f"{name}: {plural(outcome.released, 'row')} left the quarantine{mended}, {outcome.left:,} stay ({how})")
