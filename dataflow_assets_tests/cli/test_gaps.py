"""`dataflow gaps`, and what plan, status and run say of windows that nobody asks for."""

from __future__ import annotations

from collections.abc import Callable

from dataflow_assets_tests.cli.conftest import Answer, ProjectFolder, windowed


def test_gaps_from_first_load_to_the_last_word(call: Callable[..., Answer], project: ProjectFolder) -> None:
    text = windowed("first", table="facts")
    assert call("run", "--project", project.root, "-s", "first", "--window", "2024-01-01").code == 0
    assert "No gaps." in call("gaps", "first", "--project", project.root).out
    project.pipeline("first", text.replace("end: 2024-01-04", "end: 2024-01-04, x_days_back: 7"))
    answer = call("gaps", "first", "--project", project.root)
    assert answer.code == 0
    assert "first     out of reach  [2024-01-02, 2024-01-04)  2 windows  not yet recorded" in answer.out
    assert "Next: dataflow run --select first --start 2024-01-02T00:00Z --end 2024-01-04T00:00Z" in answer.out
    plan = call("plan", "--project", project.root, "-s", "first")
    assert "skip  gap        [2024-01-02, 2024-01-04)  2 windows  out of reach (older than x_days_back) and never published" in plan.out
    status = call("status", "--project", project.root, "-s", "first")
    assert "first: 2 windows out of reach, never published: dataflow gaps first" in status.out
    run = call("run", "--project", project.root, "-s", "first")
    assert run.code == 0
    assert "2 new gaps in first: dataflow gaps first" in run.out
    assert "new gap" not in call("run", "--project", project.root, "-s", "first").out
    (found,) = call("gaps", "first", "--project", project.root, "--json").json["pipelines"]
    assert [(gap["kind"], gap["windows"], bool(gap["first_seen"])) for gap in found["gaps"]] == [("out of reach", 2, True)]
    filled = call("run", "--project", project.root, "-s", "first", "--start", "2024-01-02", "--end", "2024-01-04", "--json").json
    assert filled["totals"]["windows"]["published"] == 2
    assert "No gaps." in call("gaps", "first", "--project", project.root).out


def test_what_catch_up_latest_leaves_is_skipped_and_not_missing(call: Callable[..., Answer], project: ProjectFolder) -> None:
    project.pipeline("first", windowed("first", table="facts", extra="schedule: {windows: true, catch_up: latest}"))
    ran = call("run", "--project", project.root, "-s", "first", "--json").json["pipelines"][0]
    assert [window["key"] for window in ran["windows"]] == ["2024-01-03"]
    counts = call("status", "--project", project.root, "-s", "first", "--json").json["pipelines"][0]
    assert (counts["windows"]["skipped"], counts["windows"]["missing"], counts["gaps"]) == (2, 0, [])
    assert "first: 2 windows skipped on purpose" in call("status", "--project", project.root, "-s", "first").out
