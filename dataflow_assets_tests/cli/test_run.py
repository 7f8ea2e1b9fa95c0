"""`run` through Dagster: what is published, what is told, and what to type next."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from dataflow_assets_tests.cli.conftest import LINES, Answer, ProjectFolder, windowed

Call = Callable[..., Answer]
BAD = "5,2024-01-02T12:00:00Z,-1"


def _rows(project: ProjectFolder, table: str) -> list[Any]:
    with duckdb.connect(str(project.root / "shop.duckdb"), read_only=True) as connection:
        return connection.execute(f'select id, value from "{table}" order by id').fetchall()


def _run(call: Call, project: ProjectFolder, *arguments: object) -> Answer:
    return call("run", "--project", project.root, *arguments)


def _pipelines(answer: Answer) -> dict[str, Any]:
    return {item["name"]: item for item in answer.json["pipelines"]}


def test_a_first_run_publishes_everything_and_a_second_only_what_is_new(call: Call, project: ProjectFolder) -> None:
    first = _run(call, project)
    assert first.code == 0, first.out + first.err
    assert "1 of 3 START" in first.out
    assert "[2024-01-01, 2024-01-04)" in first.out
    assert "Done. OK=3 FAILED=0 SKIPPED=0 TOTAL=3, 12 rows in" in first.out
    assert first.out.splitlines()[-1].startswith("Next: dataflow")
    assert _rows(project, "facts") == [(1, 10), (2, 20), (3, 30), (4, 40)]
    assert (project.root / "out" / "second.csv").read_text().splitlines()[0].replace('"', "") == "id,value"
    second = _run(call, project, "--json")
    assert second.code == 0
    assert {name: item["reason"] for name, item in _pipelines(second).items()}["first"] == "nothing to do"
    assert second.json["totals"]["windows"]["published"] == 1, "only the pipeline without windows"
    assert _rows(project, "facts") == [(1, 10), (2, 20), (3, 30), (4, 40)]


def test_the_document_says_what_happened(call: Call, project: ProjectFolder) -> None:
    answer = _run(call, project, "--json", "--select", "first")
    document = answer.json
    assert document["ok"] is True
    assert document["totals"]["rows"] == 4
    first = _pipelines(answer)["first"]
    assert first["run_id"]
    assert [(window["key"], window["status"], window["rows"]) for window in first["windows"]] == [
        ("2024-01-01", "published", 2),
        ("2024-01-02", "published", 1),
        ("2024-01-03", "published", 1),
    ]
    steps = {step["step"]: step for step in first["windows"][0]["steps"]}
    assert steps["publish"]["published"]["generation"] == 1
    assert [check["passed"] for check in first["windows"][0]["checks"]] == [True]


def test_the_offending_values_seen_most_often_are_told(call: Call, project: ProjectFolder) -> None:
    project.rows(*(f"{number},2024-01-02T12:00:00Z,{-1 if number % 3 else -2}" for number in range(10, 19)))
    shown = _run(call, project, "--select", "first")
    assert "9 of 10 rows" in shown.out
    assert "most often: -1 (6 rows), -2 (3 rows)" in shown.out
    (check,) = (
        check for window in _pipelines(_run(call, project, "--json"))["first"]["windows"] for check in window["checks"] if check["failed"]
    )
    assert check["frequent_values"] == [{"value": -1, "rows": 6}, {"value": -2, "rows": 3}]


def test_a_failed_window_leaves_the_others_and_skips_what_depends_on_it(call: Call, project: ProjectFolder) -> None:
    project.rows(BAD)
    project.pipeline("third", windowed("third", table="other").replace("min_value: 0", "min_value: -5"))
    answer = _run(call, project)
    assert answer.code == 1
    assert "OK=1 FAILED=1 SKIPPED=1 TOTAL=3" in answer.out
    assert "Failure in first.check, window 2024-01-02" in answer.out
    assert "first.yml:" in answer.out
    assert re.search(r"SKIP second .*first did not succeed", answer.out)
    assert _rows(project, "facts") == [(1, 10), (2, 20), (4, 40)]
    assert _rows(project, "other")[-1] == (5, -1)
    again = answer.out.splitlines()[-1].removeprefix("Again: ")
    assert shlex.split(again) == ["dataflow", "--project", str(project.root), "run", "--select", "first second"]
    project.rows()
    second = call(*shlex.split(again)[1:])
    assert second.code == 0, second.out + second.err
    assert _rows(project, "facts") == [(1, 10), (2, 20), (3, 30), (4, 40)]


def test_what_to_type_again_names_windows_that_were_asked_for(call: Call, project: ProjectFolder) -> None:
    assert _run(call, project, "-s", "first").code == 0
    project.rows(BAD)
    answer = _run(call, project, "-s", "first", "--full-refresh", "--vars", "{note: 'a b'}")
    assert answer.code == 1
    words = shlex.split(answer.out.splitlines()[-1])
    assert words[words.index("--window") + 1] == "2024-01-02"
    assert json.loads(words[words.index("--vars") + 1]) == {"note": "a b"}
    assert "--full-refresh" not in words
    assert _rows(project, "facts") == [(1, 10), (2, 20), (3, 30), (4, 40)], "a failed replace leaves the old rows"


def test_selecting(call: Call, project: ProjectFolder) -> None:
    answer = _run(call, project, "--json", "--select", "tag:daily", "--exclude", "third")
    assert list(_pipelines(answer)) == ["first"]
    answer = _run(call, project, "--json", "--select", "+second")
    assert list(_pipelines(answer)) == ["first", "second"]


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (("--start", "2024-01-02"), ["2024-01-02", "2024-01-03"]),
        (("--end", "2024-01-02"), ["2024-01-01"]),
        (("--start", "2024-01-02", "--end", "2024-01-03"), ["2024-01-02"]),
        (("--window", "2024-01-03", "--window", "2024-01-01"), ["2024-01-01", "2024-01-03"]),
        (("--max-windows", "2"), ["2024-01-01", "2024-01-02"]),
        (("--full-refresh",), ["2024-01-01", "2024-01-02", "2024-01-03"]),
    ],
)
def test_which_windows_run(call: Call, project: ProjectFolder, arguments: tuple[str, ...], keys: list[str]) -> None:
    for verb in (("plan",), ("run", "--dry-run")):
        answer = call(*verb, "--project", project.root, "--json", "-s", "first", *arguments)
        assert answer.code == 0, answer.out
        assert [window["key"] for window in _pipelines(answer)["first"]["windows"] if window["run"]] == keys


def test_max_windows_tells_how_to_go_on(call: Call, project: ProjectFolder) -> None:
    answer = _run(call, project, "-s", "first", "--max-windows", "2")
    assert answer.code == 0
    assert "1 waiting" in answer.out
    assert answer.out.splitlines()[-1].startswith("Next: dataflow --project")
    following = shlex.split(answer.out.splitlines()[-1].removeprefix("Next: "))
    assert "--max-windows" in following
    assert call(*following[1:]).code == 0
    assert len(_rows(project, "facts")) == 4


def test_asking_for_a_published_window_runs_it_again(call: Call, project: ProjectFolder) -> None:
    assert _run(call, project, "-s", "first").code == 0
    project.rows(lines=[line.replace(",30", ",31") for line in LINES])
    answer = _run(call, project, "-s", "first", "--window", "2024-01-02", "--json")
    assert [(window["key"], window["status"]) for window in _pipelines(answer)["first"]["windows"]] == [("2024-01-02", "published")]
    assert _rows(project, "facts") == [(1, 10), (2, 20), (3, 31), (4, 40)]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--start", "yesteryear"),
        ("--start", "2024-01-03", "--end", "2024-01-02"),
        ("--window", "2024-02-01"),
        ("--window", "nonsense"),
        ("--vars", "a"),
        ("--select", "first,second"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(call: Call, project: ProjectFolder, arguments: tuple[str, ...]) -> None:
    answer = _run(call, project, *arguments)
    assert answer.code == 2, answer.out
    assert not (project.root / "shop.duckdb").exists()


def test_a_dry_run_runs_nothing(call: Call, project: ProjectFolder) -> None:
    answer = _run(call, project, "--dry-run")
    assert answer.code == 0
    assert "7 windows to run" in answer.out
    assert not (project.root / "shop.duckdb").exists()


def test_a_target_that_cannot_be_opened_fails_that_pipeline_only(call: Call, project: ProjectFolder) -> None:
    (project.root / "broken.duckdb").write_text("this is no database" * 100)
    text = windowed("third", table="other", extra="connections: {db: {type: duckdb, path: broken.duckdb}}")
    project.pipeline("third", text)
    answer = _run(call, project, "--json")
    assert answer.code == 1
    found = _pipelines(answer)
    assert (found["first"]["status"], found["second"]["status"], found["third"]["status"]) == ("ok", "ok", "failed")


def test_a_stream_of_events_ends_with_the_document(call: Call, project: ProjectFolder) -> None:
    answer = _run(call, project, "-s", "first", "--json-lines")
    lines = [json.loads(line) for line in answer.out.splitlines()]
    assert lines[0]["event"] == "pipeline_started"
    assert lines[-1]["event"] == "done"
    assert lines[-1]["totals"]["rows"] == 4
    assert [line["key"] for line in lines if line["event"] == "window_finished"] == ["2024-01-01", "2024-01-02", "2024-01-03"]


def test_variables_reach_the_templates(call: Call, project: ProjectFolder) -> None:
    text = (project.root / "pipelines" / "third.yml").read_text().replace("data/rows.csv", "\"data/{{ var('file') }}.csv\"")
    project.pipeline("third", text)
    assert _run(call, project, "-s", "third", "--var", "file=rows").code == 0
    assert len(_rows(project, "other")) == 4


def test_the_run_is_logged_with_its_traceback(call: Call, project: ProjectFolder) -> None:
    project.rows(BAD)
    answer = _run(call, project, "-s", "first")
    assert answer.code == 1
    (file,) = (project.root / ".dataflow" / "logs").glob("dataflow_*.log")
    text = file.read_text()
    assert "START first" in text
    assert "Traceback" in text
    assert f"Log: {file.parent}" in answer.out


def test_the_runs_are_in_the_dagster_instance_of_the_project(call: Call, project: ProjectFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    import dagster as dg

    answer = _run(call, project, "-s", "first", "--json")
    home = Path(call("dev", "--project", project.root, "--json").json["dagster_home"])
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.get() as instance:
        run = instance.get_run_by_id(_pipelines(answer)["first"]["run_id"])
        assert run is not None
        assert run.is_success
        keys = instance.get_materialized_partitions(dg.AssetKey(["first", "publish"]))
        assert keys == {"2024-01-01", "2024-01-02", "2024-01-03"}


def test_what_a_function_prints_does_not_get_into_the_document(call: Call, project: ProjectFolder) -> None:
    (project.root / "chatty.py").write_text(
        "import polars as pl\n\ndef chat(rows: pl.DataFrame) -> pl.DataFrame:\n    print('hello')\n    return rows\n"
    )
    text = windowed("third", table="other").replace("processor_type: validator", "processor_type: python")
    text = text.replace("checks: [{column: value, min_value: 0}]", "{file: chatty.py, function: chat}").replace(
        "config:\n      {", "config: {"
    )
    project.pipeline("third", text)
    answer = _run(call, project, "-s", "third", "--json")
    assert answer.code == 0, answer.out + answer.err
    assert answer.json["totals"]["rows"] == 4
    assert "hello" in answer.err


def test_an_error_in_a_stream_is_one_line(call: Call, project: ProjectFolder) -> None:
    answer = _run(call, project, "-s", "nope", "--json-lines")
    assert answer.code == 2
    (line,) = answer.out.splitlines()
    assert json.loads(line)["error"]["type"] == "SelectionError"


def test_some_steps_of_a_pipeline(call: Call, project: ProjectFolder) -> None:
    answer = _run(call, project, "-s", "first.check", "--max-windows", "1", "--json")
    assert answer.code == 0, answer.out
    (window,) = _pipelines(answer)["first"]["windows"]
    assert [step["step"] for step in window["steps"]] == ["check"]
    assert not (project.root / "shop.duckdb").exists() or _tables(project) == []


def _tables(project: ProjectFolder) -> list[Any]:
    with duckdb.connect(str(project.root / "shop.duckdb"), read_only=True) as connection:
        return connection.execute("select table_name from information_schema.tables where table_name = 'facts'").fetchall()


def test_windows_of_a_lookback_run_again_and_count_as_published(call: Call, project: ProjectFolder) -> None:
    text = (project.root / "pipelines" / "first.yml").read_text().replace("end: 2024-01-04", "end: 2024-01-04, lookback: 1")
    project.pipeline("first", text)
    assert _run(call, project, "-s", "first").code == 0
    answer = _run(call, project, "-s", "first", "--json")
    assert [window["key"] for window in _pipelines(answer)["first"]["windows"]] == ["2024-01-03"]
    status = call("status", "--project", project.root, "-s", "first")
    assert "0 windows missing or failed" in status.out
    assert "2024-01-03" in status.out


def test_bounds_do_not_apply_to_a_pipeline_without_windows(call: Call, project: ProjectFolder) -> None:
    answer = _run(call, project, "--start", "2024-01-02", "--select", "+second")
    assert answer.code == 0
    assert "has no windows" in answer.out
    assert [row[0] for row in _rows(project, "facts")] == [3, 4]
