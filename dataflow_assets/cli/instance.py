"""`dataflow instance`: where Dagster keeps its history, how it starts runs, and how much runs at once.

Here: showing an instance, the switch between SQLite and Postgres and between local runs and Celery, what a deployment does before it
starts. Not here: the settings (`assets.instance_settings`), the move (`assets.carrying`).
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.cli.failures import UsageFailed
from dataflow_assets.cli.terminal import Session, plural
from dataflow_assets.cli.verb import VerbCommand, VerbGroup
from dataflow_assets.errors import DataflowError

if TYPE_CHECKING:
    import dagster as dg

    from dataflow_assets.assets.carrying import Carried
    from dataflow_assets.plan.model import ProjectPlan
    from dataflow_assets.spec.project import Project

_WORDS = ("sqlite", "postgres", "local", "celery")
_STORED = {"sqlite": "SQLite in that folder, for one machine", "postgres": "Postgres", "own": "as its dagster.yaml says"}
_STARTED = {"local": "in processes of the code server's host", "celery": "on Celery workers", "own": "as its dagster.yaml says"}


@dataclass(frozen=True)
class Pool:
    """A pool as it is in the instance: `limit` None, none was set yet."""

    name: str
    limit: int | None
    wanted: int | None
    pipelines: tuple[str, ...]


@click.group("instance", cls=VerbGroup)
def command() -> None:
    """Show the Dagster instance, choose its storage, make it ready.

    The instance is the folder $DAGSTER_HOME, else .dataflow/dagster of the project. `dataflow run`, the UI, the daemon and the workers
    share what its dagster.yaml says.
    """


@command.command("show", cls=VerbCommand)
@click.pass_obj
def show(session: Session) -> int:
    """Show where history is kept, how runs are started, and the limits of pools."""
    project, plan = _planned(session)
    with _opened(project) as instance:
        facts = facts_of(project, instance)
        pools = pools_in(instance, plan)
    for label, value in facts.items():
        session.say(f"{label:<12} {value}")
    for line in pool_lines(plan, pools):
        session.say(line)
    session.say("Next: dataflow instance use postgres, when runs come from more than one machine" if "SQLite" in facts["history"] else "")
    session.emit({"ok": True, **facts, "pools": [asdict(pool) for pool in pools]})
    return 0


@command.command("use", cls=VerbCommand)
@click.argument("words", metavar="[sqlite|postgres] [local|celery]", nargs=-1, required=True, type=click.Choice(_WORDS))
@click.option("--history", is_flag=True, help="Copy the runs that have ended too, with their events.")
@click.option("--fresh", is_flag=True, help="Carry nothing over, not even which schedules and sensors run and where they are.")
@click.pass_obj
def use(session: Session, words: tuple[str, ...], history: bool, fresh: bool) -> int:
    """Choose where Dagster's history is kept, and how its daemon starts runs.

    postgres takes the address from the variable DATAFLOW_DAGSTER_URL, celery the broker from DATAFLOW_CELERY_BROKER: in the
    environment of every process, or in .env. Nothing of it is written into a file. States and cursors of schedules and sensors and the
    limits of pools are carried over; no run may be under way.
    """
    from dataflow_assets.assets.instance import dagster_home, settle, share_environment
    from dataflow_assets.assets.instance_settings import BROKER, URL, storage_of, switch

    if {"sqlite", "postgres"} <= set(words) or {"local", "celery"} <= set(words):
        raise UsageFailed("there is one storage and one way to start runs", hint="name one of sqlite and postgres, one of local and celery")
    project, plan = _planned(session)
    share_environment(project)
    for word, variable, example in (
        ("postgres", URL, "postgresql://dagster:PASSWORD@db:5432/dagster"),
        ("celery", BROKER, "redis://broker:6379/0"),
    ):
        if word in words and not os.environ.get(variable):
            raise UsageFailed(f"{variable} is not set", hint=f"set it in the environment or in .env, e.g. {variable}={example}")
    home = dagster_home(project)
    settle(home)
    old = _opened(project) if storage_of(home) != "own" else None
    kept = (home / "dagster.yaml").read_text(encoding="utf-8")
    try:
        _refuse_under_way(old)
        changed = [word for word in words if switch(home, word)]  # type: ignore[arg-type] # the words are those of Choice
        carried = _moved(project, plan, old if {"sqlite", "postgres"} & set(changed) and not fresh else None, history=history)
    except BaseException:
        (home / "dagster.yaml").write_text(kept, encoding="utf-8")
        raise
    finally:
        if old is not None:
            old.dispose()
    _say_used(session, home, changed, carried)
    return 0


def _refuse_under_way(instance: dg.DagsterInstance | None) -> None:
    from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES, RunsFilter

    if instance is not None and (running := instance.get_run_ids(RunsFilter(statuses=list(NOT_FINISHED_STATUSES)), limit=1)):
        raise UsageFailed(f"run {running[0]} has not ended", hint="wait for it, or cancel it in the UI; then switch")


def _moved(project: Project, plan: ProjectPlan, old: dg.DagsterInstance | None, *, history: bool) -> Carried | None:
    """Open the new storage, which makes its tables, and carry over what the old one holds."""
    from dataflow_assets.assets.carrying import carry

    with _opened(project) as new:
        carried = carry(old, new, history=history) if old is not None else None
        _provision(new, plan)
    return carried


def _say_used(session: Session, home: Path, changed: list[str], carried: Carried | None) -> None:
    session.say(f"{home / 'dagster.yaml'}: " + (f"now {', '.join(changed)}" if changed else "said so already"))
    if carried is not None:
        session.say(
            f"Carried over: {plural(carried.automations, 'state')} of schedules and sensors, {plural(carried.values, 'shared value')}, "
            f"{plural(carried.pools, 'limit')} of pools, {plural(carried.runs, 'run')}."
        )
    session.say("Restart the webserver, the daemon, the code server and the workers. Next: dataflow instance show")
    session.emit({"ok": True, "home": str(home), "changed": changed, "carried": asdict(carried) if carried else None})


@command.command("prepare", cls=VerbCommand)
@click.pass_obj
def prepare(session: Session) -> int:
    """Make the tables or bring them to this version of Dagster, and set the limits of pools: once, before the other processes start."""
    project, plan = _planned(session)
    with _opened(project) as instance:
        instance.upgrade(print_fn=lambda text: session.say(str(text)))
        changed = _provision(instance, plan)
        pools = pools_in(instance, plan)
        facts = facts_of(project, instance)
    for line in pool_lines(plan, pools):
        session.say(line)
    session.say(f"Ready: history in {facts['history']}.")
    session.say("Next: start the code server, the daemon and the webserver (docs/deployment.md), or dataflow dev")
    session.emit({"ok": True, **facts, "limits_set": changed, "pools": [asdict(pool) for pool in pools]})
    return 0


@dataclass(frozen=True)
class History:
    """What `dataflow doctor` says of the instance."""

    lines: tuple[str, ...]
    data: dict[str, Any]
    error: DataflowError | None = None


def look_at_instance(project: Project, plan: ProjectPlan) -> History:
    """Where the instance keeps its history, whether that can be reached, and the limits of pools. Makes nothing."""
    from dataflow_assets.assets.instance import home_of
    from dataflow_assets.assets.instance_settings import storage_of

    home = home_of(project)
    try:
        if storage_of(home) == "sqlite" and not (home / "history").exists():
            return History((f"OK    Dagster's history: none yet, will be in {home}",), {"home": str(home), "history": None})
        with _opened(project) as instance:
            facts, pools = facts_of(project, instance), pools_in(instance, plan)
    except DataflowError as error:
        lines = (f"FAIL  Dagster's history: {error.message}", f"    -> {error.hint}")
        return History(lines, {"home": str(home), "error": error.message}, error)
    first = f"OK    Dagster's history: {facts['history']}; runs start {facts['runs start']}"
    return History((first, *pool_lines(plan, pools)), {**facts, "pools": [asdict(pool) for pool in pools]})


def _planned(session: Session) -> tuple[Project, ProjectPlan]:
    from dataflow_assets.plan.build import build_plan_tolerant

    project = session.load()
    return project, build_plan_tolerant(project, external=False)[0]


def _opened(project: Project) -> dg.DagsterInstance:
    from dataflow_assets.assets.instance import open_instance

    return open_instance(project)


def _provision(instance: dg.DagsterInstance, plan: ProjectPlan) -> list[str]:
    from dataflow_assets.assets.instance import provision_pools
    from dataflow_assets.plan.pools import project_pools

    return provision_pools(instance, project_pools(plan).values())


def facts_of(project: Project, instance: dg.DagsterInstance) -> dict[str, Any]:
    """Where the instance is and what it is made of. Secrets are not shown."""
    from dataflow_assets.assets.instance import dagster_home
    from dataflow_assets.assets.instance_settings import launcher_of, storage_of

    home = dagster_home(project)
    return {
        "home": str(home),
        "history": f"{_STORED[storage_of(home)]}, {plural(instance.get_runs_count(), 'run')}",
        "runs start": _STARTED[launcher_of(home)],
    }


def pools_in(instance: dg.DagsterInstance, plan: ProjectPlan) -> list[Pool]:
    """The pools that the project's runs draw from, with their limits in the instance and in the project."""
    from dataflow_assets.plan.pools import project_pools

    limits = {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits() if not pool.from_default}
    users: dict[str, list[str]] = {}
    for pipeline in plan.pipelines:
        for pool in pipeline.pools[:1]:
            users.setdefault(pool.name, []).append(pipeline.name)
    return [Pool(name, limits.get(name), pool.limit, tuple(users.get(name, ()))) for name, pool in project_pools(plan).items()]


def pool_lines(plan: ProjectPlan, pools: list[Pool]) -> list[str]:
    """The pools for readers, and which limits they do not hold."""
    from dataflow_assets.plan.pools import undrawn

    lines = []
    for pool in pools:
        asked = f"; the project says {pool.wanted}: type dataflow instance prepare" if pool.wanted not in {None, pool.limit} else ""
        limit = f"{plural(pool.limit, 'run')} at once" if pool.limit is not None else "no limit set yet"
        lines.append(f"pool {pool.name}: {limit} ({', '.join(pool.pipelines) or 'no pipeline draws from it'}){asked}")
    for pipeline, other in undrawn(plan):
        lines.append(
            f"  {pipeline.name} draws from {pipeline.pools[0].name}, and is not counted by {other.name}: a run draws from one pool"
        )
    return lines
