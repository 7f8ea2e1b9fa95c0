"""`dataflow alerts`, and `dataflow run --alerts` where no daemon looks."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dataflow_assets.cli.app import app
from dataflow_assets.cli.terminal import Session
from dataflow_assets.execution.drive import DriveRow
from dataflow_assets.operations.alerts import Incident, drive_watch
from dataflow_assets.operations.alerts.deciding import Telling
from dataflow_assets.operations.alerts.due import not_told
from dataflow_assets.operations.alerts.memory import Known
from dataflow_assets.operations.alerts.messages import digest
from dataflow_assets.operations.alerts.wording import message_of
from dataflow_assets.plan.build import build_plan
from dataflow_assets.spec.load import load
from dataflow_assets_tests.cli.conftest import LINES, Answer, ProjectFolder
from dataflow_assets_tests.services import http_server
from dataflow_assets_tests.services.http_server import Server, served

Call = Callable[..., Answer]
START = datetime(2024, 3, 1, tzinfo=UTC)


@pytest.fixture
def chat(project: ProjectFolder) -> Iterator[Server]:
    """A Slack that takes messages, in the project's file."""
    with served(lambda _: http_server.Answer("ok")) as server:
        file = project.root / "dataflow_project.yml"
        channels = f"chat: {{type: slack, url: {server.url}/T0/plantedhook9}}, pager: {{type: webhook, url: '{server.url}/p'}}"
        file.write_text(f"{file.read_text()}\nalerts: {{channels: {{{channels}}}, default: chat}}\n")
        yield server


def test_each_channel_is_tried(call: Call, project: ProjectFolder, chat: Server):
    answer = call("alerts", "test", "--project", project.root)
    assert (answer.code, answer.out.splitlines()) == (0, ["OK    chat", "OK    pager", "Next: dataflow alerts list"])
    assert "somebody typed dataflow alerts test" in chat.log[1].json["text"]
    chat.faults.append(http_server.Answer("no_service", 404))
    answer = call("alerts", "test", "chat", "ann@example.org", "nowhere", "--project", project.root, "--json")
    assert answer.code == 1
    said = {item["channel"]: item["error"]["message"] for item in answer.json["channels"]}
    assert said["chat"] == "the address answers 404: no_service"
    assert "the project has no channel 'nowhere'" in said["nowhere"]
    assert said["ann@example.org"] == "nobody says whom messages are from"
    assert "plantedhook9" not in answer.out + answer.err


def test_without_channels_it_says_what_to_write(call: Call, project: ProjectFolder):
    answer = call("alerts", "test", "--project", project.root)
    assert answer.code == 2
    assert "add alerts: {channels: {...}} to the project file" in answer.err


def test_a_run_tells_at_its_end_and_what_was_told_is_listed(call: Call, project: ProjectFolder, chat: Server):
    project.rows(lines=[*LINES[:2], LINES[2].replace("Z,20", "Z,-20"), *LINES[3:]])
    answer = call("run", "--select", "first", "--alerts", "--project", project.root)
    assert answer.code == 1
    assert "Alerts: sent to chat: check failed: first.check: " in answer.out
    assert len(chat.log) == 1
    answer = call("alerts", "list", "--project", project.root)
    assert "first     check_failure  " in answer.out
    assert answer.out.rstrip().endswith("Next: dataflow status --select first")
    (known,) = call("alerts", "list", "--json", "--project", project.root).json["open"]
    assert (known["pipeline"], known["times"], known["told"]) == ("first", 1, 1)

    assert call("alerts", "mute", "first", "--for", "2h", "--project", project.root).code == 0
    assert "first is muted until" in call("alerts", "list", "--project", project.root).out
    assert call("alerts", "mute", "first", "--for", "0s", "--project", project.root).out.startswith("first is heard again.")
    assert "muted" not in call("alerts", "list", "--project", project.root).out
    assert call("alerts", "mute", "frist", "--for", "2h", "--project", project.root).code == 2
    assert call("alerts", "mute", "first", "--for", "soon", "--project", project.root).code == 2

    project.rows()
    chat.faults.append(http_server.Answer("oh", 503))
    answer = call("run", "--select", "first", "--alerts", "--project", project.root)
    assert answer.code == 0
    assert "Alerts: 1 waiting for chat, tried 1 times" in answer.out
    answer = call("alerts", "list", "--project", project.root)
    assert "Nothing is open." in answer.out
    assert "waits for chat after 1 try: the address answers 503: oh: works again: first" in answer.out
    answer = call("alerts", "send", "--json", "--project", project.root)
    assert (answer.code, len(answer.json["waiting"]), answer.json["told"]) == (1, 1, [])


def test_a_pipeline_that_comes_to_no_run_is_told_too(call: Call, project: ProjectFolder, chat: Server):
    assert call("run", "--select", "first", "--alerts", "--project", project.root).code == 0
    (database,) = project.root.glob("**/*.duckdb")
    database.write_bytes(b"no database at all, only words" * 100)
    answer = call("run", "--select", "first", "--alerts", "--project", project.root)
    assert answer.code == 1
    assert "Alerts: sent to chat: failed: first: what is due cannot be found out: " in answer.out
    database.unlink()
    answer = call("run", "--select", "first", "--alerts", "--project", project.root)
    assert "works again: first (failed)" in answer.out


def test_what_is_open_is_closed_by_hand(call: Call, project: ProjectFolder, chat: Server):
    project.rows(lines=[*LINES[:3], LINES[3].replace("Z,30", "Z,-30"), *LINES[4:]])
    assert call("run", "--select", "first", "--alerts", "--project", project.root).code == 1
    assert call("alerts", "close", "first", "--event", "gap", "--json", "--project", project.root).json["closed"] == []
    answer = call("alerts", "close", "first", "--project", project.root)
    assert (answer.code, answer.out.splitlines()[-2:]) == (0, ["Closed 1.", "Next: dataflow alerts list"])
    assert "Nothing is open." in call("alerts", "list", "--project", project.root).out


def test_every_command_that_a_message_names_is_one(call: Call, project: ProjectFolder, chat: Server):
    project.rows(lines=[*LINES[:3], LINES[3].replace("Z,30", "Z,-30"), *LINES[4:]])
    call("run", "--select", "first", "--alerts", "--project", project.root)
    (project.root / "data" / "rows.csv").unlink()
    call("run", "--select", "first", "--full-refresh", "--alerts", "--project", project.root)
    call("alerts", "test", "--project", project.root)
    plan = build_plan(load(project.root))
    first = plan.by_name["first"]
    rows = [DriveRow("r", "first", "SUCCESS", pipeline_start_timestamp=START, pipeline_end_timestamp=START + timedelta(hours=1))]
    overdue = replace(first, alerts=replace(first.alerts, overdue_after=60.0), windows=replace(first.windows, end=None))
    found = [
        *drive_watch._too_slow(first, rows, 1.0, now=START),
        *drive_watch._overdue(overdue, [replace(rows[0], query_window_end=START)], now=START + timedelta(days=9)),
        not_told("first", OSError("away")),
        Incident("stale_run", "first", "gone"),
        Incident("late_window", "first", "late", windows=("2024-01-01",)),
    ]
    messages = [message_of(Telling("new", item, Known(item.event, "", 0, "")), first, load(project.root), now=START) for item in found]
    commands = {command for message in [*messages, digest(messages)] for command in message.commands}
    for asked in chat.log:
        if asked.path.startswith("/T0"):
            blocks = [block["text"]["text"] for block in asked.json["blocks"]]
            commands |= {line for text in blocks if text.startswith("```\ndataflow") for line in text.splitlines() if line != "```"}
    assert {"dataflow retry first", "dataflow doctor", "dataflow alerts list", "dataflow history first"} <= commands
    for line in commands:
        group = app.make_context("dataflow", shlex.split(line)[1:], obj=Session())
        name, *rest = [*group._protected_args, *group.args]
        command = app.get_command(group, name)
        assert command is not None, line
        command.make_context(name, rest, parent=group)
