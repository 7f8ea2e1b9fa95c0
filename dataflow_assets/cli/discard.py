"""`dataflow quarantine discard`: give up rows that were set aside, with a reason that the ledger keeps.

Here: asking for it and saying what was done. Not here: doing it (`execution.discarding`).
"""

from __future__ import annotations

import getpass
import uuid
from contextlib import closing
from dataclasses import replace
from typing import Any

import click

from dataflow_assets.cli.failures import FAILED, describe, explain
from dataflow_assets.cli.held import Asked, shown_key, unit_options
from dataflow_assets.cli.terminal import Session, plural
from dataflow_assets.cli.verb import VerbCommand


@click.command("discard", cls=VerbCommand)
@unit_options
@click.option("--why", required=True, metavar="TEXT", help="The reason; it is kept in the ledger with your name and the number of rows.")
@click.pass_obj
def discard(session: Session, /, why: str, **given: Any) -> int:
    """Take rows out of the quarantine for good, after somebody has decided so.

    The rows are gone then, from here; the decision stays in the ledger and in `dataflow quarantine list`. Where an endpoint replaces
    its windows, the next run of a window sets aside again what the source still holds and the rule still catches.
    """
    from dataflow_assets.execution.discarding import discard_rows
    from dataflow_assets.execution.replaying import replays_rows
    from dataflow_assets.execution.session import Session as Opened

    asked, done, error_found = Asked.of(session, given), list[dict[str, Any]](), False
    for opened, step, unit in asked.units():
        name = f"{unit.pipeline}.{unit.step} {shown_key(unit)}"
        with closing(Opened(replace(opened.request, attempt=uuid.uuid4().hex))) as own:
            try:
                gone = discard_rows(own, step, unit, by=_who(), why=why, rule=given["rule"])
            except Exception as error:  # noqa: BLE001 - whatever happens to one unit, the others go on
                error_found = True
                done.append({"step": f"{unit.pipeline}.{unit.step}", "key": unit.key, "rows": 0, "error": describe(error)})
                session.say(click.style(f"{name}: ", fg="red") + explain(error))
                continue
        done.append({"step": f"{unit.pipeline}.{unit.step}", "key": unit.key, "rows": gone, "error": None})
        again = "" if replays_rows(opened.pipeline, step) else "; a run of the window sets them aside again if nothing has changed"
        session.say(f"{name}: {plural(gone, 'row')} discarded{again}")
    session.say("" if done else "Nothing is set aside.")
    code = asked.close({"units": done})
    return FAILED if error_found else code


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
