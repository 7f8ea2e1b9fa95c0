"""`dataflow dev`: the project in the Dagster UI.

Here: starting `dagster dev` with the right folder, instance and project. Not here: what it shows (`definitions`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from dataflow_assets.cli.location import VARIABLE
from dataflow_assets.cli.terminal import Session
from dataflow_assets.cli.verb import VerbCommand

if TYPE_CHECKING:
    from dataflow_assets.spec.project import Project


@click.command("dev", cls=VerbCommand)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="The address to listen on. Dagster has no login: put a proxy with one in front."
)
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535), help="The port to listen on.")
@click.pass_obj
def command(session: Session, host: str, port: int) -> int:
    """Open the project in the Dagster UI, with the instance that `dataflow run` writes to.

    Runs from the terminal appear there, and what is materialized there counts for the terminal.
    """
    project = session.load()
    from dataflow_assets.assets.instance import dagster_home, share_environment

    home = dagster_home(project)
    share_environment(project)
    _provision(project)
    arguments = [sys.executable, "-m", "dagster", "dev", "-m", "dataflow_assets.definitions", "--host", host, "--port", str(port)]
    session.emit({"ok": True, "command": arguments, "dagster_home": str(home), "url": f"http://{host}:{port}"})
    session.say(f"{project.model.project_name}: http://{host}:{port} (instance {home}; Ctrl-C stops it)")
    if not session.json:
        _become(arguments, folder=project.root, home=home)
    return 0


def _provision(project: Project) -> None:
    """Give the pools their limits before the first runs wait for them."""
    from dataflow_assets.assets.instance import open_instance, provision_pools
    from dataflow_assets.plan.build import build_plan_tolerant
    from dataflow_assets.plan.pools import project_pools

    with open_instance(project) as instance:
        provision_pools(instance, project_pools(build_plan_tolerant(project, external=False)[0]).values())


def _become(arguments: list[str], *, folder: Path, home: Path) -> NoReturn:
    """Replace this process, so that signals reach Dagster itself."""
    os.chdir(folder)
    os.execve(sys.executable, arguments, {**os.environ, "DAGSTER_HOME": str(home), VARIABLE: str(folder)})
