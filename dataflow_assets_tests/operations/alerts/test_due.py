"""A tick that cannot find out what is due is told, though no run shows it."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from dataflow_assets.operations.alerts.incidents import reported
from dataflow_assets.operations.alerts.sweep import sweep
from dataflow_assets.operations.load import load_project
from dataflow_assets.tables import utc_now
from dataflow_assets_tests.assets import shop
from dataflow_assets_tests.services.http_server import Answer, served


def test_a_schedule_whose_target_cannot_be_asked(project: Path, instance: dg.DagsterInstance):
    with served(lambda _: Answer("ok")) as slack:
        shop.write_shop(project, orders=shop.ORDERS.replace("group: sales", "group: sales\nschedule: '@daily'"))
        (project / "dataflow_project.yml").write_text(
            f"project_name: shop\nalerts: {{channels: {{ops: {{type: slack, url: '{slack.url}/x'}}}}}}\n"
        )
        (schedule,) = load_project(project).schedules or ()

        def tick() -> None:
            with dg.build_schedule_context(instance=instance, scheduled_execution_time=utc_now()) as context:
                schedule.evaluate_tick(context)

        ledger = project / "lake"
        ledger.write_text("no folder of a lake")
        for _ in range(2):
            with pytest.raises(Exception, match="lake"):
                tick()
        sweep(*shop.planned(project), instance, now=utc_now())
        (post,) = [asked.json["text"].replace("\u200b", "") for asked in slack.log]
        assert "failed: orders: what is due cannot be found out: " in post
        before = reported(instance, "shop", cursor=None)[0]
        with pytest.raises(Exception, match="lake"):
            tick()
        assert reported(instance, "shop", cursor=None)[0] == before, "noted a moment ago"
        ledger.unlink()
        for _ in range(2):
            tick()
        sweep(*shop.planned(project), instance, now=utc_now())
        assert "works again: orders (failed)" in slack.log[-1].json["text"]
        sweep(*shop.planned(project), instance, now=utc_now())
        assert len(slack.log) == 2
