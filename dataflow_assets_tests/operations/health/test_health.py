"""Liveness, readiness and metrics of a real instance with real runs, over a real socket."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import get_args

import dagster as dg
import promql_parser
import pytest
import yaml
from dagster._daemon.types import DaemonHeartbeat
from prometheus_client.parser import text_string_to_metric_families

from dataflow_assets.execution.drive import DriveRow, open_drive
from dataflow_assets.operations.alerts import Incident, report
from dataflow_assets.operations.alerts.sweep import sweep
from dataflow_assets.operations.alerts.watching import Runs
from dataflow_assets.operations.health import questions
from dataflow_assets.operations.health.figures import BUCKETS, Durations
from dataflow_assets.operations.health.service import HealthServer, Rhythm, Watch
from dataflow_assets.operations.health.verdict import examine
from dataflow_assets.plan.model import WindowState
from dataflow_assets.tables import utc_now
from dataflow_assets_tests.assets import shop
from dataflow_assets_tests.docs.pages import ROOT


@contextmanager
def serving(watch: Watch) -> Iterator[HealthServer]:
    server = HealthServer(("127.0.0.1", 0), watch)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def get(url: str, *, method: str = "GET", accept: str = "") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method, headers={"Accept": accept})) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def samples(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        assert family.name.startswith("dataflow_")
        assert family.documentation
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def watch_of(project: Path, instance: dg.DagsterInstance, **more: object) -> Watch:
    _, loaded = shop.planned(project)
    settings: dict = {"rhythm": Rhythm(15.0, 300.0), "require_daemon": False, "now": utc_now() - timedelta(seconds=1), **more}
    return Watch(loaded, instance, **settings)


def test_what_runs_did_is_counted_once_and_each_figure_is_what_it_says(project: Path, instance: dg.DagsterInstance):
    shop.run(project, instance, tags={"dagster/partition": "2024-03-01"})  # before the service began
    time.sleep(0.01)
    (project / "dataflow_project.yml").write_text(
        "project_name: shop\nalerts: {channels: {ops: {type: slack, url: 'http://127.0.0.1:1/x'}}}\n"
    )
    watch = watch_of(project, instance, now=utc_now())
    shop.write_orders(project, bad_days=["2024-03-02"])
    shop.run(
        project, instance, tags={"dagster/asset_partition_range_start": "2024-03-02", "dagster/asset_partition_range_end": "2024-03-03"}
    )
    drive = open_drive(shop.planned(project)[1])
    now = utc_now()
    ended = DriveRow("n1", "nightly", "SUCCESS", pipeline_start_timestamp=now - timedelta(seconds=70), pipeline_end_timestamp=now, rows=7)
    drive.begin(replace(ended, phases={"source_to_stage_transfer": {"stage_bytes": 1000}}))
    drive.begin(replace(ended, pipeline_id="n2", pipeline_status="FAILED", pipeline_retry_number=1, rows=None))
    old = now - timedelta(days=2)
    drive.begin(replace(ended, pipeline_id="n0", pipeline_end_timestamp=old, created_at=old))
    drive.begin(DriveRow("n3", "nightly", heartbeat_at=now - timedelta(seconds=30), pipeline_start_timestamp=now))
    report(instance, "shop", [Incident("gap", "orders", "a gap")])
    sweep(*shop.planned(project), instance, now=utc_now() - timedelta(hours=2))
    for _ in range(2):
        watch.refresh(now=utc_now())
    watch.refresh_slow(now=utc_now())
    with serving(watch) as server:
        status, text = get(f"{server.url}/metrics")
        found = samples(text)
        assert status == 200
        assert found["dataflow_build_info"]
        assert found["dataflow_ready"] == {(): 1.0}
        assert found["dataflow_health_check"][(("check", "instance"),)] == 1.0
        assert found["dataflow_runs_total"] == {(("pipeline", "orders"), ("status", "failure")): 1.0}
        check = (("check", "clean.amount_range"), ("kind", "check_failure"), ("pipeline", "orders"))
        assert found["dataflow_check_failures_total"] == {check: 1.0}
        nightly = ("pipeline", "nightly")
        assert found["dataflow_attempts_total"][(nightly, ("status", "success"))] == 1.0
        assert found["dataflow_attempts_total"][(nightly, ("status", "failed"))] == 1.0
        assert found["dataflow_rows_published_total"][(nightly,)] == 7.0
        assert found["dataflow_bytes_staged_total"][(nightly,)] == 1000.0
        assert found["dataflow_retries_total"][(nightly,)] == 1.0
        assert found["dataflow_attempts_total"][(("pipeline", "orders"), ("status", "failed"))] == 1.0
        assert found["dataflow_rows_published_total"][(("pipeline", "orders"),)] == 2.0
        assert found["dataflow_bytes_staged_total"][(("pipeline", "orders"),)] > 100.0
        assert found["dataflow_attempt_duration_seconds_bucket"][(("le", "60.0"), nightly)] == 0.0
        assert found["dataflow_attempt_duration_seconds_bucket"][(("le", "300.0"), nightly)] == 2.0
        assert found["dataflow_attempt_duration_seconds_count"][(nightly,)] == 2.0
        assert found["dataflow_attempt_duration_seconds_sum"][(nightly,)] == 140.0
        assert found["dataflow_attempts_running"][(nightly,)] == 1.0
        assert 30.0 <= found["dataflow_heartbeat_age_seconds"][(nightly,)] < 600.0
        assert found["dataflow_alerts_open"] == {(("event", name), ("pipeline", "orders")): 1.0 for name in ("check_failure", "gap")}
        assert found["dataflow_alerts_waiting"] == {(("channel", "ops"),): 2.0}
        lag = (utc_now() - shop.datetime.fromisoformat("2024-03-04T00:00+00:00")).total_seconds()
        ((key, value),) = found["dataflow_window_lag_seconds"].items()
        assert dict(key) == {"pipeline": "orders", "dataset": "lake/orders"}
        assert value == pytest.approx(lag, abs=60)
        states = {dict(key)["state"]: value for key, value in found["dataflow_windows"].items() if dict(key)["pipeline"] == "orders"}
        assert {state: count for state, count in states.items() if count} == {"published": 2.0, "failed": 1.0, "missing": 2.0}
        assert set(states) == set(get_args(WindowState))
        sources = ("runs", "drive", "daemons", "disk", "alerts", "ledgers")
        assert found["dataflow_source_up"] == {(("source", name),): 1.0 for name in sources}
        status, text = get(f"{server.url}/metrics", accept="application/openmetrics-text; version=1.0.0")
        assert (status, text.rstrip().endswith("# EOF")) == (200, True)
    drive.close()
    families = {family.name for family in text_string_to_metric_families(text.removesuffix("# EOF\n"))}
    named = set(re.findall(r"\bdataflow_(?!assets|project)[a-z_]+", (ROOT / "docs" / "health.md").read_text(encoding="utf-8")))
    known = families | {f"{name}{end}" for name in families for end in ("_total", "_bucket", "_sum", "_count")}
    assert named <= known, "the page names what is no metric"
    assert families <= named | {name.removesuffix("_total") for name in named}, "a metric that the page does not explain"
    for expression in expressions():
        asked = promql_parser.parse(expression)
        assert asked is not None
        assert set(re.findall(r"\bdataflow_[a-z_]+", expression)) <= known, expression


def expressions() -> list[str]:
    """Every expression in the dashboard and on the page."""
    board = json.loads((ROOT / "docs" / "grafana.json").read_text(encoding="utf-8"))
    found = [target["expr"].replace("$pipeline", ".*") for panel in board["panels"] for target in panel["targets"]]
    page = (ROOT / "docs" / "health.md").read_text(encoding="utf-8")
    (rules,) = re.findall(r"```yaml\n(# prometheus rules\n.*?)```", page, re.DOTALL)
    found += [rule["expr"] for group in yaml.safe_load(rules)["groups"] for rule in group["rules"]]
    (more,) = re.findall(r"```promql\n(.*?)```", page, re.DOTALL)
    return found + [line for line in more.splitlines() if not line.startswith("#")]


def test_ready_is_what_a_load_balancer_can_ask(project: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch):
    watch = watch_of(project, instance)
    with serving(watch) as server:
        assert get(f"{server.url}/livez") == (200, "ok\n")
        assert get(f"{server.url}/livez", method="HEAD") == (200, "")
        status, text = get(f"{server.url}/readyz")
        assert (status, json.loads(text)["reason"]) == (503, "the first look is under way")
        watch.refresh(now=utc_now())
        status, text = get(f"{server.url}/readyz?verbose")
        told = json.loads(text)
        assert (status, told["ready"]) == (200, True)
        assert told["checks"]["project"] == {"state": "ok", "said": "2 pipelines"}
        assert told["checks"]["daemon"]["state"] == "warning"

        (project / "pipelines" / "report.yml").write_text("pipeline_name: [")
        beat = DaemonHeartbeat(utc_now().timestamp() - 400, "SENSOR", "d", [])
        instance.add_daemon_heartbeat(beat)
        watch.refresh(now=utc_now())
        status, text = get(f"{server.url}/readyz")
        told = json.loads(text)["checks"]
        assert (status, told["project"]["state"]) == (503, "warning")
        assert "1 of 2 pipelines cannot be loaded: report" in told["project"]["said"]
        assert "not heard of for 400 s" in told["daemon"]["said"] or "not heard of for 401 s" in told["daemon"]["said"]
        for name in instance.get_required_daemon_types():
            instance.add_daemon_heartbeat(DaemonHeartbeat(utc_now().timestamp(), name, "d", []))
        (project / "dataflow_project.yml").write_text("projekt_name: x")
        watch.refresh(now=utc_now())
        status, text = get(f"{server.url}/readyz")
        assert (status, json.loads(text)["checks"]["daemon"]["state"]) == (503, "ok")
        assert "unknown key 'projekt_name'" in json.loads(text)["checks"]["project"]["said"]
        (project / "dataflow_project.yml").write_text("project_name: shop")
        watch.refresh(now=utc_now() - timedelta(minutes=5))
        status, text = get(f"{server.url}/readyz")
        assert (status, "does not answer" in json.loads(text)["reason"]) == (503, True)
        assert get(f"{server.url}/elsewhere")[0] == 404
        monkeypatch.setattr(questions, "LEAST_FREE", 1 << 62)
        assert watch.refresh(now=utc_now()).ready is False


def test_connections_and_a_storage_that_does_not_answer(project: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch):
    connection = "connections: {away: {type: postgres, host: 127.0.0.1, port: 1, user: u, password: planted-pw-13}}\n"
    (project / "dataflow_project.yml").write_text(f"project_name: shop\n{connection}drive: {{connection: away}}\n")
    step = "steps: [{id: read, type: source, connection: away, config: {table: t}}]\n"
    (project / "pipelines" / "report.yml").write_text(f"pipeline_name: report\n{step}")
    _, loaded = shop.planned(project)
    assert examine(loaded, instance, now=utc_now()).ready
    verdict = examine(loaded, instance, now=utc_now(), connections=None)
    states = {answer.question: answer.state for answer in verdict.answers}
    assert (verdict.ready, states["connection away"], states["drive"]) == (False, "failed", "warning")
    assert "planted-pw-13" not in str(verdict.data())
    assert examine(loaded, instance, now=utc_now(), require_daemon=True).ready is False

    def broken(*_: object, **__: object) -> int:
        raise OSError("the disk is gone")

    monkeypatch.setattr(instance, "get_runs_count", broken)
    watch = watch_of(project, instance)
    verdict = watch.refresh(now=utc_now())
    assert {answer.question: answer.said for answer in verdict.answers}["instance"] == "OSError: the disk is gone"
    assert watch.counting.figures.sources["runs"] is False
    watch.refresh_slow(now=utc_now())
    assert watch.counting.figures.sources["ledgers"] is True


def test_one_run_that_cannot_be_read_hides_no_other(project: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch):
    watch = watch_of(project, instance, now=utc_now())
    shop.run(project, instance, tags={"dagster/partition": "2024-03-01"})

    def broken(*_: object) -> object:
        raise ValueError("an event of another age")

    monkeypatch.setattr(Runs, "_read", broken)
    for _ in range(2):
        watch.refresh(now=utc_now())
    assert watch.counting.figures.sources["runs"]
    assert dict(watch.counting.figures.runs) == {("orders", "success"): 1}


def test_an_attempt_that_died_long_ago_is_not_waited_for(project: Path, instance: dg.DagsterInstance):
    watch = watch_of(project, instance, now=utc_now())
    long_ago = utc_now() - timedelta(days=30)
    with closing(open_drive(shop.planned(project)[1])) as drive:
        drive.begin(DriveRow("dead", "orders", "RUNNING", created_at=long_ago, heartbeat_at=long_ago))
    watch.refresh(now=utc_now())
    assert watch.counting.figures.running == {"orders": 1}
    assert watch.counting._since > utc_now() - timedelta(hours=1)


def test_the_threads_keep_it_up_to_date_and_stop(project: Path, instance: dg.DagsterInstance):
    watch = watch_of(project, instance, rhythm=Rhythm(0.05, None))
    watch.start()
    for _ in range(600):
        if watch.verdict is not None:
            break
        time.sleep(0.05)
    watch.stop()
    assert watch.verdict is not None
    assert not any(thread.is_alive() for thread in watch._threads)


def test_a_histogram_counts_each_duration_in_every_bucket_above_it():
    durations = Durations()
    for seconds in (0.0, 1.0, 1.5, 4 * 3600.0, 10**6):
        durations.add(seconds)
    assert durations.counts == [2, 1, 0, 0, 0, 0, 0, 1, 1]
    assert (len(durations.counts), durations.total) == (len(BUCKETS) + 1, 1002.5 + 14400.0 + 10**6 - 1000.0)
