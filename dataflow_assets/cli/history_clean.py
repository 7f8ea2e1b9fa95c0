"""`dataflow history clean`: remove old attempts from the drive table, and Dagster's records of the same runs with them.

Here: which pipelines and what age, the preview, the question. Not here: which rows and runs may go (`execution.pruning`,
`assets.pruning`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.cli.failures import UsageFailed
from dataflow_assets.cli.terminal import Session, plural, table
from dataflow_assets.cli.verb import VerbCommand
from dataflow_assets.tables import utc_now

if TYPE_CHECKING:
    from dataflow_assets.assets.pruning import OldRun
    from dataflow_assets.execution.pruning import OldAttempts
    from dataflow_assets.plan.model import PipelinePlan
    from dataflow_assets.spec.project import Project

_LONGEST_DAYS = 365_000
"""Nothing is older, and a calendar does not reach back much further."""
_HEADER = ("PIPELINE", "ATTEMPTS", "STILL RUNNING", "RUNS", "RUNS KEPT")


@dataclass(frozen=True)
class _Found:
    """What there is of an age."""

    attempts: OldAttempts
    gone: Sequence[OldRun]
    kept: Sequence[OldRun]

    def lines(self) -> list[tuple[str, ...]]:
        """Counts by pipeline."""
        counts = [
            Counter(row.pipeline_name for row in self.attempts.gone),
            Counter(row.pipeline_name for row in self.attempts.running),
            Counter(run.pipeline for run in self.gone),
            Counter(run.pipeline for run in self.kept),
        ]
        return [(name, *(f"{count[name]:,}" for count in counts)) for name in sorted(set().union(*counts))]

    def data(self) -> dict[str, Any]:
        """The same for `--json`."""
        return {
            "attempts": [row.pipeline_id for row in self.attempts.gone],
            "attempts_running": [row.pipeline_id for row in self.attempts.running],
            "runs": [run.run_id for run in self.gone],
            "runs_kept": [
                {"run_id": run.run_id, "needed_for": [f"{'/'.join(key.path)} {partition or ''}".strip() for key, partition in run.needed]}
                for run in self.kept
            ],
        }


@click.command("clean", cls=VerbCommand)
@click.option("--pipeline", "names", multiple=True, metavar="NAME", help="Only this pipeline's; may be repeated. Default: all.")
@click.option(
    "--days-old", "--days_old", "days", default=30.0, show_default=True, type=click.FloatRange(min=0), help="Only what is older than this."
)
@click.option("--yes", is_flag=True, help="Do it, without asking.")
@click.pass_obj
def clean(session: Session, /, names: tuple[str, ...], days: float, yes: bool) -> int:
    """Remove attempts from the drive table, and Dagster's runs with their events, of the same pipelines and age.

    First it shows what would go; without --yes nothing is removed unless you say so at a terminal. Dagster's newest record of each
    asset and window stays, however old, for the UI would show the window as missing without it. Targets and their ledgers are
    never touched. The age is that of an attempt's row; one that never started, such as a gap, counts from when it was written.
    """
    now = utc_now()
    project = session.load()
    found = _find(project, names, before=now - timedelta(days=min(days, _LONGEST_DAYS)), now=now)
    nothing = not (found.attempts.gone or found.gone)
    _preview(session, found, days=days)
    done = not nothing and (yes or (session.interactive and click.confirm("Remove them?")))
    if done:
        _remove(project, found)
        session.say(f"Removed {plural(len(found.attempts.gone), 'attempt')} and {plural(len(found.gone), 'run')}.")
    elif not nothing:
        rest = "".join(f" --pipeline {name}" for name in names)
        session.say(f"Nothing was removed.\nNext: dataflow history clean --yes --days-old {days:g}{rest}")
    session.emit({"ok": True, "exit_code": 0, "removed": done, **found.data()})
    return 0


def _find(project: Project, names: Sequence[str], *, before: datetime, now: datetime) -> _Found:
    from dataflow_assets.assets.instance import open_instance
    from dataflow_assets.assets.pruning import old_runs
    from dataflow_assets.execution.drive import open_drive
    from dataflow_assets.execution.pruning import old_attempts

    plans = _plans(project)
    with closing(open_drive(project)) as drive:
        unknown = [name for name in names if name not in plans and not drive.rows(pipeline=name, limit=1)]
        if unknown:
            from dataflow_assets.plan.names import suggest

            raise UsageFailed(f"there is no pipeline {unknown[0]!r}", hint=suggest(unknown[0], plans, noun="pipelines"))
        attempts = old_attempts(drive, pipelines=names or None, before=before, now=now)
    known = {**dict.fromkeys(row.pipeline_name for row in attempts.gone), **plans}  # also those that have left the project
    with open_instance(project) as instance:
        wanted = {name: known.get(name) for name in names or known}
        runs = old_runs(instance, wanted, before=before)
    return _Found(attempts, [run for run in runs if not run.needed], [run for run in runs if run.needed])


def _plans(project: Project) -> dict[str, PipelinePlan | None]:
    """The pipelines of the project, with their plans where they have one."""
    from dataflow_assets.plan.build import build_plan_tolerant

    plan, broken = build_plan_tolerant(project, external=False)
    return {**dict.fromkeys(broken), **plan.by_name}


def _preview(session: Session, found: _Found, *, days: float) -> None:
    lines = found.lines()
    if not lines:
        session.say(f"There is nothing older than {days:g} days.")
        return
    for line in table(lines, header=_HEADER):
        session.say(line)
    session.say(f"Older than {days:g} days: {plural(len(found.attempts.gone), 'attempt')} and {plural(len(found.gone), 'run')} can go.")
    if found.kept:
        said = "made the newest record of a window, which the UI would show as missing without it"
        session.say(f"To stay: {plural(len(found.kept), 'run')} that {said}.")
    if found.attempts.running:
        session.say(f"To stay: {plural(len(found.attempts.running), 'attempt')} under way.")


def _remove(project: Project, found: _Found) -> None:
    from dataflow_assets.assets.instance import open_instance
    from dataflow_assets.assets.pruning import delete_runs
    from dataflow_assets.execution.drive import open_drive

    with open_instance(project) as instance:
        delete_runs(instance, found.gone)
    with closing(open_drive(project)) as drive:
        drive.delete([row.pipeline_id for row in found.attempts.gone])
