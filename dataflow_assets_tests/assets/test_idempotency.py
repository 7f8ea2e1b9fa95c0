"""Idempotency keys of submitted runs, and of calls on several hosts: one works, the others end as it does."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import dagster as dg
import pytest

from dataflow_assets.assets import idempotency, recording
from dataflow_assets.assets.drivers import this_driver
from dataflow_assets.assets.execute import execute
from dataflow_assets.assets.idempotency import KeyedCall, checked_key, key_tags
from dataflow_assets.assets.instance import open_instance
from dataflow_assets.assets.names import BATCH_TAG, DRIVER_TAG, IDEMPOTENCY_TAG, job_name
from dataflow_assets.errors import SelectionError
from dataflow_assets.execution.events import WindowStarted
from dataflow_assets.tables import utc_now
from dataflow_assets_tests.assets import shop
from dataflow_assets_tests.assets.shop import DAYS, RANGE

TAGS = {**RANGE, **key_tags("night-1", "orders")}


def test_a_second_run_with_the_key_does_nothing_and_ends_like_the_first(project: Path, instance: dg.DagsterInstance) -> None:
    first = shop.run(project, instance, tags=TAGS)
    assert first.success
    before = shop.recorded(instance, "orders", "publish")
    for tags in (TAGS, {**key_tags("night-1", "orders"), "dagster/partition": DAYS[0]}):
        second = shop.run(project, instance, tags=tags)
        assert second.success
        assert any(first.run_id in record.user_message for record in instance.all_logs(second.run_id))
    assert shop.recorded(instance, "orders", "publish") == before == DAYS
    other = shop.run(project, instance, tags={**TAGS, IDEMPOTENCY_TAG: "night-2"})
    assert other.success
    assert len(shop.recorded(instance, "orders", "publish")) == 2 * len(DAYS)


def test_a_failed_run_is_the_outcome_too_and_may_be_re_executed(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    project = shop.write_shop(tmp_path / "shop", bad_days=DAYS)
    one = {"dagster/partition": DAYS[0], **key_tags("night-1", "orders")}
    first = shop.run(project, instance, tags=one)
    shop.write_orders(project)
    second = shop.run(project, instance, tags=one)
    assert not second.success
    failure = next(event for event in second.all_events if event.is_step_failure).step_failure_data.user_failure_data
    assert f"run {first.run_id}, which has the same idempotency key, did not succeed" in str(failure.description)  # type: ignore[union-attr]
    assert shop.published(project) == {}
    from dagster._core.definitions.job_base import InMemoryJob
    from dagster._core.execution.api import execute_run_iterator

    job = shop.definitions(project).resolve_job_def(job_name("orders"))
    again = instance.create_run_for_job(job, tags=one, parent_run_id=first.run_id, root_run_id=first.run_id)
    list(execute_run_iterator(InMemoryJob(job), again, instance))
    assert shop.published(project) == {DAYS[0]: 2}


def test_what_a_run_that_died_has_appended_is_not_appended_by_the_next_one_with_its_key(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    appends = "{file_path: lake/orders/, mode: append}"
    whole = shop.ORDERS.replace("windows: {every: day, begin: 2024-03-01, end: 2024-03-06}\n", "").replace(
        "{file_path: lake/orders}", appends
    )
    project, tags = shop.write_shop(tmp_path / "shop", orders=whole), key_tags("night-1", "orders")
    assert shop.run(project, instance, tags=tags).success
    once = shop.published(project)
    monkeypatch.setattr(idempotency, "has_outcome", lambda *_: False)  # as if its process had died after it had published
    second = shop.run(project, instance, tags=tags)
    assert second.success
    assert shop.published(project) == once
    assert shop.run(project, instance, tags={**tags, IDEMPOTENCY_TAG: "night-2"}).success
    assert shop.published(project) == {day: 2 * rows for day, rows in once.items()}


def keyed(project: Path, instance: dg.DagsterInstance) -> KeyedCall:
    return KeyedCall(instance, "shop", "night-1", "asked")


def call(project: Path, instance: dg.DagsterInstance, **more: object):
    plan, loaded = shop.planned(project)
    windows = [plan.by_name["orders"].windows.cadence.window(day) for day in DAYS[:2]]
    return execute(plan, loaded, windows={"orders": windows}, instance=instance, keyed=keyed(project, instance), **more)[0]


def test_two_hosts_with_one_key_make_one_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a lock file between them: the second finds the id of its run taken, and waits for the outcome."""
    monkeypatch.setattr(idempotency, "_POLL_SECONDS", 0.05)
    _, loaded = shop.planned(project)
    with open_instance(loaded) as mine, open_instance(loaded) as theirs:
        begun, results = threading.Event(), []

        def hear(_: str, event: object) -> None:
            begun.set()
            threading.Event().wait(0.2)

        def second() -> None:
            begun.wait(60)
            results.append(call(project, theirs))

        thread = threading.Thread(target=second)
        thread.start()
        first = call(project, mine, on_event=hear)
        thread.join(120)
        (other,) = results
        assert (first.status, other.status) == ("ok", "ok")
        assert first.run_id == other.run_id
        assert mine.get_runs_count() == 1
        assert shop.recorded(mine, "orders", "publish") == DAYS[:2]


def test_a_run_whose_process_died_has_no_outcome(project: Path) -> None:
    _, loaded = shop.planned(project)
    with open_instance(loaded) as instance:
        run_id = keyed(project, instance).run_id("orders", DAYS[0])
        dead = f"{this_driver(now=utc_now()).host}:999999999:1"
        job = shop.definitions(project).resolve_job_def(job_name("orders"))
        instance.create_run_for_job(job, run_id=run_id, tags={**TAGS, DRIVER_TAG: dead})
        result = call(project, instance)
        assert result.status == "ok"
        assert result.run_id == keyed(project, instance).run_id("orders", DAYS[0], deaths=1)
        assert instance.get_run_by_id(result.run_id).tags[BATCH_TAG] == run_id, "what the first has appended counts as done"  # type: ignore[union-attr]
        assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.FAILURE  # type: ignore[union-attr]


def test_a_long_run_is_heard_of_on_other_hosts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that cannot look at the process judges it by the time of its run's record."""
    monkeypatch.setattr(recording, "SIGN_SECONDS", 0.02)
    plan, loaded = shop.planned(project)
    window = plan.by_name["orders"].windows.cadence.window(DAYS[0])
    heard: list[bool] = []
    with open_instance(loaded) as instance:

        def hear(_: str, event: object) -> None:
            if isinstance(event, WindowStarted):
                before = instance.get_run_records()[0].update_timestamp
                deadline = time.monotonic() + 60
                while (same := instance.get_run_records()[0].update_timestamp == before) and time.monotonic() < deadline:
                    threading.Event().wait(0.02)
                heard.append(not same)

        assert execute(plan, loaded, windows={"orders": [window]}, instance=instance, on_event=hear)[0].status == "ok"
    assert heard == [True]


def test_the_record_of_a_large_outcome_leaves_its_windows_out(project: Path, instance: dg.DagsterInstance) -> None:
    document = {"exit_code": 0, "pipelines": [{"name": "orders", "windows": [{"key": "x" * 1000}] * 500}]}
    keyed(project, instance).keep(document)
    (kept,) = instance.run_storage.get_cursor_values({"dataflow/idempotency/shop/night-1"}).values()
    assert json.loads(kept)["document"]["pipelines"] == [{"name": "orders", "windows": []}]


@pytest.mark.parametrize("key", ["", "  ", "a\nb", "x" * 201, "\x1b[31m"])
def test_what_is_no_key(key: str) -> None:
    with pytest.raises(SelectionError, match="is no idempotency key"):
        checked_key(key)
