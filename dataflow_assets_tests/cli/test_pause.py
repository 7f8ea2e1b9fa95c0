"""`dataflow pause` and `unpause`, and what every other verb then says and does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dataflow_assets.assets.instance import open_instance
from dataflow_assets.assets.pauses import keep_pause, kept_pauses, paused_now
from dataflow_assets.assets.silence import reason_for_silence
from dataflow_assets.plan.build import build_plan
from dataflow_assets.spec.load import load
from dataflow_assets_tests.cli.conftest import Answer, ProjectFolder, windowed

NOW = datetime.now(UTC)


def _pipeline(answer: Answer, name: str = "first") -> Any:
    found = answer.json["pipelines"]
    return next(item for item in found if item["name"] == name)


def test_a_pause_from_beginning_to_end(call: Callable[..., Answer], project: ProjectFolder) -> None:
    at = ("--project", project.root)
    paused = call("pause", "first", "--for", "1d", "--reason", "the warehouse moves", *at)
    assert paused.code == 0, paused.err
    assert "first: paused until " in paused.out
    assert paused.out.rstrip().endswith("1 pipeline paused.\nNext: dataflow unpause first")
    run = call("run", "-s", "first third", *at)
    assert run.code == 0
    assert "the warehouse moves; --even-if-paused runs it all the same" in run.out
    assert _pipeline(call("run", "--json", "--window", "2024-01-01", *at, "-s", "first"))["windows"] == []
    plan = call("plan", "-s", "first", *at)
    assert "the warehouse moves; --even-if-paused runs it all the same" in plan.out
    assert "0 windows to run in 0 pipelines." in plan.out
    document = _pipeline(call("plan", "--json", *at))
    assert (document["to_run"], document["waiting"], bool(document["paused"])) == (0, 3, True)
    assert "first: paused until" in call("status", "-s", "first", *at).out
    assert "paused: paused until" in call("show", "first", "--limit", "0", *at).out
    loaded = load(project.root)
    first = build_plan(loaded).by_name["first"]
    with open_instance(loaded) as instance:
        said = reason_for_silence(instance, loaded, first, now=NOW)
        assert said.startswith("first is paused until ")
        assert said.endswith(": the warehouse moves; dataflow unpause first ends it")
        assert reason_for_silence(instance, loaded, first, now=NOW + timedelta(days=2)) == ""
        # what the terminal reads from the file is what Dagster reads
        assert kept_pauses(instance, "shop", ["first"])["first"] == paused_now(loaded, [first], now=NOW)["first"]
    forced = _pipeline(call("run", "--json", "--even-if-paused", "-s", "first", *at))
    assert [window["status"] for window in forced["windows"]] == ["published"] * 3
    downstream = call("run", "--json", "-s", "first second", *at).json["pipelines"]
    assert [(item["name"], item["status"], len(item["windows"])) for item in downstream] == [("first", "ok", 0), ("second", "ok", 1)]
    assert call("unpause", "first", "third", *at).out.startswith("first: unpaused\nthird: was not paused\n")
    assert paused_now(loaded, [first], now=NOW) == {}
    assert "paused" not in call("status", "-s", "first", *at).out


def test_until_further_notice_replaces_a_day_and_what_the_yaml_says_stays(call: Callable[..., Answer], project: ProjectFolder) -> None:
    text = windowed("first", table="facts", extra="schedule: {cron: '@daily', paused_until: 2999-01-01}")
    project.pipeline("first", text)
    at = ("--project", project.root)
    call("pause", "third", "--for", "1d", *at)
    call("pause", "third", *at)
    loaded = load(project.root)
    plans = build_plan(loaded).pipelines
    assert {name: pause.until and pause.until.year for name, pause in paused_now(loaded, plans, now=NOW).items()} == {
        "first": 2999,
        "third": None,
    }
    answer = call("unpause", "first", *at)
    assert "first: was not paused, but paused until 2999-01-01 00:00 UTC (paused_until in " in answer.out
    with open_instance(loaded) as instance:
        instance.run_storage.set_cursor_values({"dataflow/pause/shop/third": "rubbish"})
        assert kept_pauses(instance, "shop", ["third"]) == {}
        keep_pause(instance, "shop", "third", None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("first", "--for", "soon"), "is not a duration"),
        (("first", "--for", "0d"), "which is past"),
        (("first", "--until", "2020-01-01"), "first would be paused until 2020-01-01 00:00 UTC, which is past"),
        (("first", "--until", "2999-01-01", "--for", "1d"), "--for and --until say the same"),
        (("first", "--until", "christmas"), "is not a date or time"),
        (("frist",), "frist"),
        ((), "Missing argument"),
    ],
)
def test_what_is_no_pause(call: Callable[..., Answer], project: ProjectFolder, arguments: tuple[str, ...], said: str) -> None:
    answer = call("pause", *arguments, "--project", project.root)
    assert answer.code == 2
    assert said in answer.err
    assert paused_now(load(project.root), build_plan(load(project.root)).pipelines, now=NOW) == {}
