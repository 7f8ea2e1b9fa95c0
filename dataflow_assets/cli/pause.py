"""`dataflow pause`: leave pipelines alone for a while.

Here: the options. Not here: how a pause is kept (`assets.pauses`), ending it (`cli.unpause`).
"""

from __future__ import annotations

import getpass
from datetime import datetime

import click

from dataflow_assets.cli.choosing import choose
from dataflow_assets.cli.failures import UsageFailed
from dataflow_assets.cli.ranges import check_bound
from dataflow_assets.cli.terminal import Session, plural
from dataflow_assets.cli.verb import VerbCommand
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.tables import utc_now
from dataflow_assets.windows import as_utc, parse_duration


@click.command("pause", cls=VerbCommand)
@click.argument("selectors", nargs=-1, required=True, metavar="PIPELINE...")
@click.option("--for", "length", metavar="DURATION", help="How long, e.g. 1d, 30d or 2h.")
@click.option("--until", metavar="TIME", callback=check_bound, help="Until this moment, on the pipeline's clock, e.g. 2026-12-01T06:00.")
@click.option("--reason", default="", metavar="TEXT", help="Why; shown wherever the pause is.")
@click.pass_obj
def command(session: Session, selectors: tuple[str, ...], length: str | None, until: str | None, reason: str) -> int:
    """Pause pipelines: no schedule, sensor or plain `dataflow run` loads anything for them until then.

    Without --for and --until, until `dataflow unpause`. A pause is kept in the Dagster instance, where every host sees it; runs that are
    under way go on. Pausing again replaces the pause. `dataflow run --even-if-paused` loads all the same.
    """
    now = utc_now()
    if length and until:
        raise UsageFailed("--for and --until say the same", hint="give one of them")
    chosen = choose(session, selectors, ())
    ends = {pipeline.name: _end(pipeline, length, until, now=now) for pipeline in chosen.pipelines}
    from dataflow_assets.assets.instance import open_instance
    from dataflow_assets.assets.pauses import Pause, keep_pause, pause_of

    title, found = chosen.project.model.project_name, []
    with open_instance(chosen.project) as instance:
        for pipeline in chosen.pipelines:
            pause = Pause(ends[pipeline.name], reason, _who(), now)
            keep_pause(instance, title, pipeline.name, pause)
            holds = pause_of(pipeline, pause, now=now) or pause
            session.say(f"{pipeline.name}: {holds.text(pipeline)}")
            found.append({"name": pipeline.name, "until": holds.until, "reason": holds.reason, "by": holds.by, "in_yaml": holds.written})
    session.emit({"ok": True, "paused": found})
    session.say(f"\n{plural(len(found), 'pipeline')} paused.\nNext: dataflow unpause {' '.join(selectors)}")
    return 0


def _end(pipeline: PipelinePlan, length: str | None, until: str | None, *, now: datetime) -> datetime | None:
    if length:
        try:
            end = now + parse_duration(length)
        except (ValueError, OverflowError) as error:
            raise UsageFailed(f"--for {length}: {error}", hint="write 1d, 30d or 2h") from error
    elif until:
        schedule, windows = pipeline.schedule, pipeline.windows
        end = as_utc(until.strip(), schedule.timezone if schedule else windows.cadence.timezone if windows else "UTC")
    else:
        return None
    if end <= now:
        raise UsageFailed(f"{pipeline.name} would be paused until {end:%Y-%m-%d %H:%M} UTC, which is past", hint="give a later time")
    return end


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container may have no name for its user
        return ""
