"""`dataflow worker`: a Celery worker of this project.

Here: starting it with the settings that let another one take up its work, and the same settings as a file. Not here: what it does
(`assets.celery_worker`), who is at work (`cli.workers`).
"""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING

import click

from dataflow_assets.cli.failures import UsageFailed
from dataflow_assets.cli.location import VARIABLE
from dataflow_assets.cli.terminal import Session
from dataflow_assets.cli.verb import VerbCommand, VerbGroup

if TYPE_CHECKING:
    from dataflow_assets.spec.project import Project

_NEEDED = ("celery", "dagster_celery")


@click.group("worker", cls=VerbGroup)
def command() -> None:
    """Start a Celery worker that takes runs and steps of this project from a broker.

    DATAFLOW_CELERY_BROKER says where the broker is, in the environment or in .env: redis://host:6379/0, or
    pyamqp://user:password@host:5672// for RabbitMQ. One broker address serves one project: another one has another number, or vhost.
    """


@command.command("start", cls=VerbCommand)
@click.option("--concurrency", type=click.IntRange(min=1), help="Runs or steps at once; default: celery.concurrency of the project.")
@click.option("--name", help="What the worker is called beside its host; default: its process id.")
@click.pass_obj
def start(session: Session, concurrency: int | None, name: str | None) -> int:
    """Take work until it is told to stop: Ctrl-C or SIGTERM waits for what is at work, SIGKILL leaves it to another worker."""
    project = session.load()
    words = [sys.executable, "-m", "celery", "-A", "dataflow_assets.assets.celery_worker", "worker", "-Q", "dagster"]
    words += ["--concurrency", str(concurrency or project.model.celery.concurrency)]
    words += [
        "-n",
        f"{name or f'dataflow-{os.getpid()}'}@{socket.gethostname()}",
        "--loglevel",
        "debug" if session.log_level == "debug" else "info",
    ]
    extra = environment_of(project)
    session.emit({"ok": True, "command": words, "dagster_home": extra["DAGSTER_HOME"]})
    session.say(f"{project.model.project_name}: worker on {socket.gethostname()} (instance {extra['DAGSTER_HOME']}; Ctrl-C stops it)")
    if not session.json:
        os.chdir(project.root)
        os.execve(sys.executable, words, {**os.environ, **extra})
    return 0


@command.command("ping", cls=VerbCommand)
@click.option("--everywhere", is_flag=True, help="Ask the workers of every host, not only those of this one.")
@click.option("--timeout", type=click.FloatRange(min=0.1), default=5.0, show_default=True, help="Seconds to wait for answers.")
@click.pass_obj
def ping(session: Session, everywhere: bool, timeout: float) -> int:
    """Ask the workers of this host whether they are there, and exit with 1 when none answers: for the health check of a container."""
    from dataflow_assets.assets.celery_app import answering

    environment_of(session.load())
    here = f"@{socket.gethostname()}"
    names = [name for name in answering(seconds=timeout) if everywhere or name.endswith(here)]
    for name in names:
        session.say(name)
    if not names:
        session.say(f"No worker of {'any host' if everywhere else here[1:]} answers. Next: dataflow worker start")
    session.emit({"ok": bool(names), "exit_code": 0 if names else 1, "workers": names})
    return 0 if names else 1


@command.command("config", cls=VerbCommand)
@click.pass_obj
def config(session: Session) -> int:
    """Print the settings as a file for `dagster-celery worker start -y`, nested as it wants them: of a flat file it takes nothing.

    Its workers do without the look at heartbeats: work whose worker only seems dead is then done twice, and published once.
    """
    import yaml

    from dataflow_assets.assets.celery_app import SETTINGS, transport_options
    from dataflow_assets.assets.instance_settings import BACKEND, BROKER

    project = session.load()
    options = transport_options(visibility_seconds=seconds_of(project))
    backend = BACKEND if os.environ.get(BACKEND) else BROKER if os.environ.get(BROKER, "redis").startswith("redis") else None
    inner = {"broker": {"env": BROKER}, "backend": {"env": backend} if backend else "rpc://"}
    settings = {"execution": {"config": {**inner, "config_source": {**SETTINGS, "broker_transport_options": options}}}}
    session.say(yaml.safe_dump(settings, sort_keys=False).rstrip())
    session.emit({"ok": True, "config": settings})
    return 0


def seconds_of(project: Project) -> float:
    """The visibility timeout. At least twice as long as work of a living worker is put off: what waits for its time is handed out again
    as well when the timeout is over, and each of the two would be put off again."""
    from dataflow_assets.windows import parse_duration

    written = parse_duration(project.model.celery.visibility_timeout).total_seconds()
    return max(written, 2 * project.model.stale_runs.after_seconds)


def environment_of(project: Project) -> dict[str, str]:
    """What a worker's process must know. Raises UsageFailed when the packages or the broker are missing."""
    from importlib.util import find_spec

    from dataflow_assets.assets.celery_app import MOST_RESUMES, VISIBILITY, required
    from dataflow_assets.assets.instance import dagster_home, share_environment
    from dataflow_assets.assets.instance_settings import BROKER

    if missing := [package for package in _NEEDED if find_spec(package) is None]:
        raise UsageFailed(f"{' and '.join(missing)} not installed", hint='pip install "dataflow-assets[celery]"')
    share_environment(project)
    required(BROKER)
    return {
        "DAGSTER_HOME": str(dagster_home(project)),
        VARIABLE: str(project.root),
        VISIBILITY: str(seconds_of(project)),
        MOST_RESUMES: str(project.model.celery.max_resumes),
    }
