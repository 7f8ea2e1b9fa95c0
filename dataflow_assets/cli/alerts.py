"""`dataflow alerts`: try the channels, see what was told and what is open, tell now, be silent for a while.

Here: the verbs and how they print. Not here: what is told (`operations.alerts`), who is told (`plan.alerts`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.cli.alerting import tell
from dataflow_assets.cli.choosing import find_pipeline, survey
from dataflow_assets.cli.failures import FAILED, OK, UsageFailed, describe, explain
from dataflow_assets.cli.terminal import Session, table
from dataflow_assets.cli.verb import VerbCommand, VerbGroup
from dataflow_assets.spec.alerts import EVENTS
from dataflow_assets.tables import utc_now
from dataflow_assets.windows import parse_duration

if TYPE_CHECKING:
    from dataflow_assets.operations.alerts.memory import Memory
    from dataflow_assets.operations.alerts.sweep import Swept
    from dataflow_assets.spec.project import Project

_NEVER = "-"
_SHOWN_SENT = 20


@click.group("alerts", cls=VerbGroup)
def command() -> None:
    """Try the channels of alerts, see what was told and what is open, tell what is new, be silent for a while, close."""


@command.command("test", cls=VerbCommand)
@click.argument("channels", metavar="[CHANNEL]...", nargs=-1)
@click.pass_obj
def test(session: Session, channels: tuple[str, ...]) -> int:
    """Send a message to each channel, or to those named, and say what became of it.

    An address with an @ is written to by the mail server of smtp:. Exits with 1 when a channel did not take its message.
    """
    from dataflow_assets.operations.alerts.channels import mail_to, open_channel

    project = session.load()
    names = list(channels) or list(project.model.alerts.channels)
    if not names:
        raise UsageFailed(
            "the project has no channel for alerts", hint="add alerts: {channels: {...}} to the project file; see docs/alerts.md"
        )
    results = []
    for name in names:
        error: Exception | None = None
        try:
            open_channel(project, mail_to([name]) if "@" in name else name).send(_trial(project))
        except Exception as failure:  # noqa: BLE001 - whatever one channel does, the others are tried too
            error = failure
        results.append({"channel": name, "ok": error is None, "error": describe(error) if error else None})
        mark = click.style("OK   ", fg="green") if error is None else click.style("FAIL ", fg="red")
        session.say(f"{mark} {name}" + (f": {explain(error)}" if error else ""))
    failed = [result for result in results if not result["ok"]]
    session.say(
        "Next: " + ("mend the channel in the project file and type dataflow alerts test again" if failed else "dataflow alerts list")
    )
    code = FAILED if failed else OK
    session.emit({"ok": not failed, "exit_code": code, "channels": results})
    return code


def _trial(project: Project) -> Any:
    from dataflow_assets.operations.alerts.messages import Message
    from dataflow_assets.operations.alerts.wording import line

    name = line(project.model.project_name)
    now = utc_now()
    return Message(
        id=f"test/{now.isoformat()}",
        event="test",
        tone="good",
        project=name,
        pipeline="",
        title=f"a test message of {name}",
        facts=(("What", "nothing has happened: somebody typed dataflow alerts test"), ("Where", str(project.root))),
        commands=("dataflow alerts list",),
        link=project.model.alerts.ui_url or "",
        at=now,
    )


@command.command("list", cls=VerbCommand)
@click.pass_obj
def show(session: Session) -> int:
    """Show what is open, what waits for a channel, what was told lately, and which pipelines are muted."""
    from dataflow_assets.operations.alerts.broken import WHOLE

    with _memory(session) as (project, memory):
        names = [WHOLE, *survey(project).plan.by_name]
        known = memory.pipelines(names)
        now = utc_now()
        document = {
            "ok": True,
            "open": [{"pipeline": name, **_known(item)} for name in names for item in known[name].known.values()],
            "waiting": [_waiting(channel, item) for channel in memory.channels() for item in memory.outbox(channel).values()],
            "sent": [vars(item) for item in reversed(memory.sent())],
            "muted": {name: until for name, until in memory.muted(names).items() if until > now},
        }
    session.emit(document)
    if not session.json:
        _print(session, document)
    return OK


def _known(item: Any) -> dict[str, Any]:
    shown = ("event", "summary", "step", "windows", "since", "last", "times", "told", "told_at", "run_id")
    return {name: getattr(item, name) for name in shown}


def _waiting(channel: str, item: Any) -> dict[str, Any]:
    from dataflow_assets.operations.alerts.channels import shown

    return {"channel": shown(channel), "title": item.message.title, "tries": item.tries, "next_try": item.next_try, "error": item.error}


def _print(session: Session, document: Mapping[str, Any]) -> None:
    from dataflow_assets.operations.alerts.broken import WHOLE
    from dataflow_assets.operations.alerts.channels import shown

    rows = [
        (item["pipeline"], item["event"], _moment(item["since"]), f"{item['times']:,}", _moment(item["told_at"]), item["summary"])
        for item in document["open"]
    ]
    for line in table(rows, header=("PIPELINE", "OPEN", "SINCE", "SEEN", "TOLD", "WHAT")) if rows else ["Nothing is open."]:
        session.say(line)
    for item in document["waiting"]:
        tries = "1 try" if item["tries"] == 1 else f"{item['tries']} tries"
        why = f" after {tries}: {item['error']}" if item["tries"] else ""
        session.say(f"waits for {item['channel']}{why}: {item['title']}")
    for name, until in document["muted"].items():
        session.say(f"{name} is muted until {_moment(until)} UTC: dataflow alerts mute {name} --for 0s ends it")
    sent = [(_moment(item["at"]), shown(item["channel"]), item["title"], item["error"]) for item in document["sent"][:_SHOWN_SENT]]
    if sent:
        session.say("")
        for line in table(sent, header=("SENT", "TO", "WHAT", "")):
            session.say(line)
    pipelines = [item["pipeline"] for item in document["open"] if item["pipeline"] != WHOLE]
    session.say(f"\nNext: {f'dataflow status --select {pipelines[0]}' if pipelines else 'dataflow status'}")


def _moment(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment else _NEVER


@command.command("send", cls=VerbCommand)
@click.pass_obj
def send(session: Session) -> int:
    """Look at what happened since the last time and tell it, as the sensor does: for cron, where no Dagster daemon runs.

    Exits with 1 when a channel did not take a message; it is kept, and tried again the next time.
    """
    from dataflow_assets.assets.instance import open_instance

    project = session.load()
    with open_instance(project) as instance:
        swept = tell(session, project, instance)
    waiting = dict(swept.delivered.waiting)
    code = FAILED if waiting else OK
    session.emit({"ok": not waiting, "exit_code": code, **swept_data(swept)})
    session.say("Next: dataflow alerts list")
    return code


def swept_data(swept: Swept) -> dict[str, Any]:
    """What a sweep did, for --json."""
    waiting: Mapping[str, Sequence[Any]] = dict(swept.delivered.waiting)
    return {
        "told": list(swept.told),
        "sent": [vars(item) for item in swept.delivered.sent],
        "waiting": [_waiting(channel, item) for channel, items in waiting.items() for item in items],
        "notes": list(swept.notes),
    }


@command.command("mute", cls=VerbCommand)
@click.argument("name", metavar="PIPELINE")
@click.option("--for", "duration", required=True, metavar="DURATION", help="How long, such as 2h or 3d; 0s ends it.")
@click.pass_obj
def mute(session: Session, name: str, duration: str) -> int:
    """Tell nothing of a pipeline for a while. What happens is noted, and told afterwards if it still lasts."""
    try:
        length = parse_duration(duration)
    except ValueError as error:
        raise UsageFailed(str(error), hint="such as --for 2h") from error
    with _memory(session) as (project, memory):
        pipeline, _ = find_pipeline(project, name)
        until = utc_now() + length if length.total_seconds() else None
        memory.mute(pipeline.name, until)
    session.emit({"ok": True, "pipeline": pipeline.name, "until": until})
    session.say(f"{pipeline.name} is muted until {_moment(until)} UTC." if until else f"{pipeline.name} is heard again.")
    session.say("Next: dataflow alerts list")
    return OK


@command.command("close", cls=VerbCommand)
@click.argument("name", metavar="PIPELINE")
@click.option("--event", "events", multiple=True, type=click.Choice(EVENTS), help="Only this event; may be repeated.")
@click.pass_obj
def close(session: Session, name: str, events: tuple[str, ...]) -> int:
    """Forget what is open of a pipeline: it is not told again unless it happens again."""
    with _memory(session) as (project, memory):
        pipeline, _ = find_pipeline(project, name)
        known = memory.pipelines([pipeline.name])[pipeline.name]
        closed = [item for item in known.known.values() if not events or item.event in events]
        for item in closed:
            known.without(item.identity)
        memory.keep_pipeline(pipeline.name, known)
    session.emit({"ok": True, "pipeline": pipeline.name, "closed": [_known(item) for item in closed]})
    for item in closed:
        session.say(f"{pipeline.name} {item.event}: {item.summary}")
    session.say(f"Closed {len(closed)}.\nNext: dataflow alerts list")
    return OK


@contextmanager
def _memory(session: Session) -> Iterator[tuple[Project, Memory]]:
    from dataflow_assets.assets.instance import open_instance
    from dataflow_assets.operations.alerts.memory import Memory

    project = session.load()
    with open_instance(project) as instance:
        yield project, Memory(instance, project.model.project_name)
