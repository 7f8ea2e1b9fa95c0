"""The whole of compose.yaml without Docker: its commands as processes, one window loaded through GraphQL on a worker, limits of pools kept.

Five processes of Dagster and a dozen runs: 60 s of processor time. So it runs when TEST_DEPLOYMENT is set, and before a release.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from dataflow_assets_tests.assets import shop
from dataflow_assets_tests.assets.shop import DAYS
from dataflow_assets_tests.deploy.composed import DEPLOY, Service, here, moved, services
from dataflow_assets_tests.services.ladder import free_port

pytestmark = pytest.mark.skipif(not os.environ.get("TEST_DEPLOYMENT"), reason="60 s of processor time: set TEST_DEPLOYMENT=1")
_SECONDS = 180.0
_LIMITS = {"narrow": 1, "wide": 2}


class Rehearsal:
    """The services as processes, with a port and a folder in place of each host and volume."""

    def __init__(self, folder: Path, project: Path, *, history: str, broker: str) -> None:
        self.folder, self.ports = folder, {"4266": str(free_port()), "3000": str(free_port()), "8080": str(free_port())}
        variables = {"POSTGRES_PASSWORD": "p", "REDIS_PASSWORD": "r", "PROJECT_DIR": str(project)}
        self.services = services(variables)
        self.places = {
            "/opt/dagster": str(folder),
            "/srv/project": str(project),
            "postgresql://dagster:p@postgres:5432/dagster": history,
            "redis://:r@broker:6379/0": broker,
            "0.0.0.0": "127.0.0.1",
            **self.ports,
        }
        (folder / "dagster.yaml").write_text((DEPLOY / "dagster-workers.yaml").read_text())
        workspace = (DEPLOY / "workspace.yaml").read_text().replace("host: code", "host: 127.0.0.1")
        (folder / "workspace.yaml").write_text(moved(workspace, self.ports))

    def environment(self, service: Service) -> dict[str, str]:
        """What the service's process sees."""
        hidden = {"DAGSTER_HOME", "DATAFLOW_PROJECT", "DATAFLOW_FAILPOINTS"}
        outer = {key: value for key, value in os.environ.items() if key not in hidden}
        return {**outer, **{key: moved(value, self.places) for key, value in service.environment.items()}}

    def once(self, name: str) -> None:
        """Run a service to its end."""
        service = self.services[name]
        done = subprocess.run(
            here(service.command, self.places), env=self.environment(service), cwd=self.folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    @contextmanager
    def running(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """A service until the end, once its own health check finds it well."""
        service = self.services[name]
        with (self.folder / f"{name}.log").open("wb") as output:
            words = here(service.command, self.places)
            process = subprocess.Popen(
                words, stdout=output, stderr=output, env=self.environment(service), cwd=self.folder, start_new_session=True
            )
        try:
            self.wait(f"{name} to be healthy", lambda: self._is_well(service), process)
            yield process
        finally:
            process.send_signal(signal.SIGINT if name == "code" else signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _is_well(self, service: Service) -> bool:
        words = here(service.health, self.places)
        return subprocess.run(words, env=self.environment(service), cwd=self.folder, capture_output=True).returncode == 0

    def wait(self, what: str, until: Any, process: subprocess.Popen[bytes] | None = None) -> None:
        deadline = time.monotonic() + _SECONDS
        while not until():
            if time.monotonic() > deadline or (process is not None and process.poll() is not None):
                logs = "\n".join(f"== {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in self.folder.glob("*.log"))
                pytest.fail(f"waited for {what} in vain\n{logs}")
            time.sleep(0.5)

    def ask(self, query: str, **variables: Any) -> Any:
        """Ask the webserver."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports['3000']}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            answer = json.load(reply)
        assert "errors" not in answer, answer
        return answer["data"]

    def launch(self, job: str, tags: Mapping[str, str]) -> str:
        """Launch a run of a job, as the UI does."""
        data = self.ask(
            "mutation ($p: ExecutionParams!) { launchRun(executionParams: $p) { __typename ... on LaunchRunSuccess { run { runId } } "
            "... on PythonError { message } } }",
            p={
                "selector": {
                    "repositoryLocationName": "dataflow_assets.definitions",
                    "repositoryName": "__repository__",
                    "jobName": job,
                },
                "runConfigData": {},
                "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
            },
        )
        assert data["launchRun"]["__typename"] == "LaunchRunSuccess", data
        return str(data["launchRun"]["run"]["runId"])

    def run(self, run_id: str) -> dict[str, Any]:
        """What the UI knows of a run."""
        fields = "status startTime endTime assetMaterializations { partition assetKey { path } } tags { key value }"
        query = f"query ($id: ID!) {{ runOrError(runId: $id) {{ ... on Run {{ {fields} }} }} }}"
        found: dict[str, Any] = self.ask(query, id=run_id)["runOrError"]
        return found

    def start_schedule(self, name: str) -> None:
        """Start a schedule, as the UI does."""
        where = {"repositoryLocationName": "dataflow_assets.definitions", "repositoryName": "__repository__", "scheduleName": name}
        query = "mutation ($s: ScheduleSelector!) { startSchedule(scheduleSelector: $s) { __typename } }"
        assert self.ask(query, s=where)["startSchedule"]["__typename"] == "ScheduleStateResult"

    def ticked(self, name: str) -> list[str]:
        """The runs that a schedule has asked for."""
        query = "query ($f: RunsFilter!) { runsOrError(filter: $f) { ... on Runs { results { runId } } } }"
        tags = [{"key": "dagster/schedule_name", "value": name}]
        return [run["runId"] for run in self.ask(query, f={"tags": tags})["runsOrError"]["results"]]

    def ended(self, *run_ids: str) -> list[dict[str, Any]]:
        """The runs, when all have ended."""
        self.wait("runs to end", lambda: all(self.run(one)["status"] in {"SUCCESS", "FAILURE", "CANCELED"} for one in run_ids))
        return [self.run(one) for one in run_ids]


def _pipeline(name: str, connection: str) -> str:
    copy = shop.ORDERS.replace("pipeline_name: orders", f"pipeline_name: {name}").partition("  - id: publish")[0]
    target = f"type: endpoint, connection: {connection}, depends_on: [clean], config: {{table: {name}}}"
    return f"{copy}  - {{id: publish, {target}}}\n"


@pytest.fixture
def rehearsal(tmp_path: Path, postgres_dsn: str, redis_url: str) -> Rehearsal:
    """A project of six pipelines that write to two systems, and the deployment around it."""
    copies = {f"{connection}_{number}": _pipeline(f"{connection}_{number}", connection) for connection in _LIMITS for number in range(3)}
    scheduled = shop.ORDERS.replace("group: sales", 'schedule: "* * * * *"')
    project = shop.write_shop(tmp_path / "project", orders=scheduled, **copies)
    blocks = "".join(f"  {name}: {{type: sqlite, database: {name}.sqlite, max_concurrent: {limit}}}\n" for name, limit in _LIMITS.items())
    (project / "dataflow_project.yml").write_text(f"project_name: shop\ncelery: {{concurrency: 3}}\nconnections:\n{blocks}")
    (tmp_path / "dagster").mkdir()
    return Rehearsal(tmp_path / "dagster", project, history=postgres_dsn, broker=redis_url)


def test_the_deployment_of_compose_loads_windows_on_a_worker_and_keeps_limits(rehearsal: Rehearsal, tmp_path: Path) -> None:
    rehearsal.once("prepare")
    with ExitStack() as stack:
        for name in ("code", "webserver", "daemon", "worker"):
            stack.enter_context(rehearsal.running(name))
        stack.enter_context(rehearsal.running("health"))
        with urllib.request.urlopen(f"http://127.0.0.1:{rehearsal.ports['8080']}/readyz", timeout=60) as ready:
            assert ready.status == 200
        (run,) = rehearsal.ended(rehearsal.launch("orders", {"dagster/partition": DAYS[0]}))
        assert run["status"] == "SUCCESS"
        assert any(tag["key"] == "dagster-celery/task_id" for tag in run["tags"])
        assert {item["partition"] for item in run["assetMaterializations"]} == {DAYS[0]}
        assert shop.published(tmp_path / "project") == {DAYS[0]: 2}
        jobs = [f"{connection}_{number}" for connection in _LIMITS for number in range(3)]
        ids = [rehearsal.launch(job, {"dagster/partition": DAYS[0]}) for job in jobs]
        found = dict(zip(jobs, rehearsal.ended(*ids), strict=True))
        assert {run["status"] for run in found.values()} == {"SUCCESS"}
        for connection, limit in _LIMITS.items():
            spans = sorted((run["startTime"], run["endTime"]) for job, run in found.items() if job.startswith(connection))
            assert _most_at_once(spans) <= limit, (connection, spans)
        rehearsal.start_schedule("orders_schedule")
        rehearsal.wait("a tick", lambda: rehearsal.ticked("orders_schedule"))
        (run, *_) = rehearsal.ended(*rehearsal.ticked("orders_schedule"))
        assert run["status"] == "SUCCESS"
        assert shop.published(tmp_path / "project") == dict.fromkeys(DAYS, 2)


def _most_at_once(spans: list[tuple[float, float]]) -> int:
    """How many of these spans of time overlap at most."""
    return max(sum(start <= moment < end for start, end in spans) for moment, _ in spans)
