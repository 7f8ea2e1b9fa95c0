"""`dataflow health`: liveness, readiness and metrics over HTTP, or the verdict once.

Here: the options, printing the verdict, serving until a signal. Not here: what is asked (`operations.health`).
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.cli.failures import FAILED, OK, UsageFailed
from dataflow_assets.cli.terminal import Session
from dataflow_assets.cli.verb import VerbCommand
from dataflow_assets.tables import utc_now

if TYPE_CHECKING:
    from dataflow_assets.operations.health.questions import Answer
    from dataflow_assets.operations.health.verdict import Verdict

_MARKS = {"ok": ("OK   ", "green"), "warning": ("WARN ", "yellow"), "failed": ("FAIL ", "red")}


@click.command("health", cls=VerbCommand)
@click.option("--once", is_flag=True, help="Print the verdict and exit with 0 or 1, for a container's HEALTHCHECK.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on. There is no login.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="The port to listen on; 0: any that is free.")
@click.option("--refresh", default=15.0, show_default=True, type=click.FloatRange(min=1), help="How often to look, in seconds.")
@click.option(
    "--ledgers",
    default=300.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="How often to ask the ledgers in the targets for lag and missing windows, in seconds; 0: never.",
)
@click.option("--connections", is_flag=True, help="Ready only if every connection can be reached; asked every 5 minutes, with --once now.")
@click.option("--require-daemon", is_flag=True, help="Ready only if Dagster's daemon was heard of; else one that never was is a warning.")
@click.pass_obj
def command(session: Session, /, once: bool, host: str, port: int, **given: Any) -> int:
    """Answer /livez, /readyz and /metrics over HTTP until stopped; with --once print the verdict and exit.

    Ready is: the project loads, the instance's storage answers, Dagster's daemons were heard of lately, the stages' disk has room.
    """
    from dataflow_assets.assets.instance import open_instance

    project = session.load()
    with open_instance(project) as instance:
        if once:
            from dataflow_assets.operations.health.verdict import examine

            connections = None if given["connections"] else ()
            verdict = examine(project, instance, now=utc_now(), require_daemon=given["require_daemon"], connections=connections)
            return _print(session, verdict)
        from dataflow_assets.operations.health.service import Rhythm, Watch

        rhythm = Rhythm(given["refresh"], given["ledgers"] or None, 300.0 if given["connections"] else None)
        watch = Watch(project, instance, rhythm=rhythm, require_daemon=given["require_daemon"], now=utc_now())
        return _serve(session, watch, host, port)


def _serve(session: Session, watch: Any, host: str, port: int) -> int:
    """Answer until SIGTERM or Ctrl-C."""
    from dataflow_assets.operations.health.service import HealthServer

    try:
        server = HealthServer((host, port), watch)
    except OSError as error:
        raise UsageFailed(f"cannot listen on {host}:{port}: {error.strerror or error}", hint="name another --port") from error
    session.emit({"ok": True, "url": server.url})
    session.say(f"{server.url}/livez  {server.url}/readyz  {server.url}/metrics  (Ctrl-C stops it)")
    watch.start()
    # shutdown() waits for the loop that this thread runs, so it is asked for from another one
    stop = lambda *_: threading.Thread(target=server.shutdown, daemon=True).start()  # noqa: E731
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.serve_forever(poll_interval=0.2)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        server.server_close()
        watch.stop()
    return OK


def _print(session: Session, verdict: Verdict) -> int:
    code = OK if verdict.ready else FAILED
    session.emit({"ok": verdict.ready, "exit_code": code, **verdict.data()})
    for answer in verdict.answers:
        session.say(answer_line(answer))
    session.say("Ready." if verdict.ready else click.style("Not ready.", fg="red"))
    session.say("Next: dataflow status" if verdict.ready else "Next: dataflow doctor")
    return code


def answer_line(answer: Answer) -> str:
    """One answer as a line."""
    mark, color = _MARKS[answer.state]
    return f"{click.style(mark, fg=color)} {answer.question}: {answer.said}"
