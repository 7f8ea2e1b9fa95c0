"""`dataflow unpause`: end the pauses of pipelines.

Here: the verb. Not here: pausing (`cli.pause`), how a pause is kept (`assets.pauses`).
"""

from __future__ import annotations

import click

from dataflow_assets.cli.choosing import choose
from dataflow_assets.cli.terminal import Session, plural
from dataflow_assets.cli.verb import VerbCommand
from dataflow_assets.tables import utc_now


@click.command("unpause", cls=VerbCommand)
@click.argument("selectors", nargs=-1, required=True, metavar="PIPELINE...")
@click.pass_obj
def command(session: Session, selectors: tuple[str, ...]) -> int:
    """End the pauses of pipelines. The next tick asks for everything that became due meanwhile.

    A pause written in the YAML (paused_until) ends there only, and is shown.
    """
    chosen, now = choose(session, selectors, ()), utc_now()
    from dataflow_assets.assets.instance import open_instance
    from dataflow_assets.assets.pauses import keep_pause, kept_pauses, pause_of

    title, found = chosen.project.model.project_name, []
    with open_instance(chosen.project) as instance:
        kept = kept_pauses(instance, title, [pipeline.name for pipeline in chosen.pipelines])
        for pipeline in chosen.pipelines:
            before = kept.get(pipeline.name)
            if before:
                keep_pause(instance, title, pipeline.name, None)
            ended = bool(before and before.holds(now))
            still = pause_of(pipeline, None, now=now)
            session.say(
                f"{pipeline.name}: {'unpaused' if ended else 'was not paused'}" + (f", but {still.text(pipeline)}" if still else "")
            )
            found.append({"name": pipeline.name, "ended": ended, "still_paused_until": still.until if still else None})
    session.emit({"ok": True, "unpaused": found})
    session.say(f"\n{plural(sum(bool(item['ended']) for item in found), 'pause')} ended.")
    session.say(f"Next: dataflow plan --select {chosen.pipelines[0].name}")
    return 0
