"""`dataflow check`: the checks alone, on what is published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import dagster as dg
import duckdb
import pytest

from dataflow_assets.assets.instance import open_instance
from dataflow_assets.cli.junit import Case, write_junit
from dataflow_assets.plan.build import build_plan
from dataflow_assets.spec.load import load
from dataflow_assets_tests.cli.conftest import Answer, ProjectFolder, whole, windowed

Call = Callable[..., Answer]

CHECKED = """
pipeline_name: checked
event_time_column: at
windows: {every: day, begin: 2024-01-01, end: 2024-01-04}
steps:
  - id: read
    type: source
    source_type: csv
    config: {file_path: data/rows.csv}
  - id: publish
    type: endpoint
    endpoint_type: duckdb
    connection: db
    depends_on: [read]
    config: {table: checked}
    checks:
      - {column: value, min_value: 0}
      - {column: value, max_value: 1000, name: small}
      - {column: id, unique: true, severity: warn}
"""


@pytest.fixture
def published(project: ProjectFolder, call: Call) -> ProjectFolder:
    for name in ("first", "second", "third"):
        (project.root / "pipelines" / f"{name}.yml").unlink()
    project.pipeline("checked", CHECKED)
    assert call("run", "--project", project.root).code == 0
    return project


def _change(project: ProjectFolder, sql: str) -> None:
    with duckdb.connect(str(project.root / "shop.duckdb")) as connection:
        connection.execute(sql)


def _held(project: ProjectFolder) -> list[tuple[object, ...]]:
    with duckdb.connect(str(project.root / "shop.duckdb")) as connection:
        return connection.execute("SELECT * FROM checked ORDER BY ALL").fetchall()


def test_the_newest_window_is_looked_at_and_nothing_is_changed(published: ProjectFolder, call: Call) -> None:
    before = _held(published)
    answer = call("check", "--project", published.root)
    assert answer.code == 0, answer
    assert "PASS    checked.publish.value_range" in answer.out
    assert "Done. 3 passed, 1 window in" in answer.out
    assert answer.out.rstrip().endswith("status")
    document = call("check", "--project", published.root, "--json").json
    assert (document["ok"], document["exit_code"], document["totals"]["passed"]) == (True, 0, 3)
    assert {check["window"] for check in document["pipelines"][0]["checks"]} == {"2024-01-03"}
    assert call("check", "--project", published.root, "--all", "--json").json["totals"]["passed"] == 9
    assert _held(published) == before


def test_what_was_changed_behind_its_back_is_found_in_every_window(published: ProjectFolder, call: Call, tmp_path: Path) -> None:
    _change(published, "UPDATE checked SET value = -5 WHERE id IN (1, 4)")
    _change(published, "UPDATE checked SET value = 5000 WHERE id = 4")
    _change(published, "UPDATE checked SET id = 1 WHERE id = 2")
    junit = tmp_path / "reports" / "checks.xml"
    answer = call("check", "--project", published.root, "--all", "--junit", junit)
    assert answer.code == 1
    assert "FAIL  checked.publish.value_range 2024-01-01: " in answer.out
    assert "FAIL  checked.publish.small 2024-01-03: " in answer.out, "a failed check ends neither its window nor the others"
    assert "WARN  checked.publish.id_unique 2024-01-01: " in answer.out
    assert "Done. 6 passed, 1 warned, 2 failed, 3 windows" in answer.out
    assert "check --select checked --window 2024-01-01 --window 2024-01-03" in answer.out
    root = ElementTree.parse(junit).getroot()
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("9", "2", "0")
    bad = [case for case in root.iter("testcase") if case.find("failure") is not None]
    assert [(case.get("classname"), case.get("name")) for case in bad] == [
        ("checked.publish", "value_range[2024-01-01]"),
        ("checked.publish", "small[2024-01-03]"),
    ]
    assert '"id": 1' in (bad[0].findtext("failure") or "")
    assert call("check", "--project", published.root, "--window", "2024-01-02").code == 0
    assert call("plan", "--project", published.root, "--json").json["pipelines"][0]["to_run"] == 0, "a look reopens no window"


def test_warnings_can_be_made_errors(published: ProjectFolder, call: Call) -> None:
    _change(published, "INSERT INTO checked SELECT * FROM checked WHERE id = 4")
    assert call("check", "--project", published.root).code == 0
    assert call("check", "--project", published.root, "--warnings-as-errors").code == 1


def test_a_row_that_is_published_cannot_be_set_aside(published: ProjectFolder, call: Call) -> None:
    rule = "{column: value, min_value: 0, on_failure: quarantine}"
    published.pipeline("checked", CHECKED.replace("{column: value, min_value: 0}", rule))
    _change(published, "UPDATE checked SET value = -5 WHERE id = 4")
    answer = call("check", "--project", published.root)
    assert answer.code == 1
    assert "FAIL  checked.publish.value_range 2024-01-03" in answer.out


def test_more_rows_than_a_quarantine_takes_are_a_failure(project: ProjectFolder, call: Call) -> None:
    project.pipeline("first", windowed("first", table="facts").replace("min_value: 0", "min_value: 0, on_failure: quarantine"))
    assert call("run", "--project", project.root, "--select", "first").code == 0
    project.rows("5,2024-01-03T12:00:00Z,-7", "6,2024-01-03T13:00:00Z,-8")
    answer = call("check", "--project", project.root, "--select", "first")
    assert answer.code == 1
    assert "FAIL  first.check.value_range 2024-01-03" in answer.out


def test_a_source_is_read_again_and_a_range_can_be_asked_for(project: ProjectFolder, call: Call) -> None:
    assert call("run", "--project", project.root, "--select", "first").code == 0
    project.rows("5,2024-01-02T12:00:00Z,-7")
    assert call("check", "--project", project.root, "--select", "first").code == 0, "the newest window is sound"
    answer = call("check", "--project", project.root, "--select", "first", "--start", "2024-01-02", "--json")
    assert answer.code == 1
    assert [(check["window"], check["passed"]) for check in answer.json["pipelines"][0]["checks"]] == [
        ("2024-01-02", False),
        ("2024-01-03", True),
    ]


def test_the_run_is_in_the_history_as_one_of_checks(published: ProjectFolder, call: Call) -> None:
    run_id = call("check", "--project", published.root, "--json").json["pipelines"][0]["run_id"]
    project = load(published.root)
    build_plan(project)
    with open_instance(project) as instance:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        assert run.is_success
        key = dg.AssetKey(["checked", "publish"])
        assert run.asset_check_selection == {dg.AssetCheckKey(key, name) for name in ("value_range", "small", "id_unique")}
        assert not run.asset_selection


def test_nothing_published_is_no_success(project: ProjectFolder, call: Call, tmp_path: Path) -> None:
    answer = call("check", "--project", project.root, "--select", "first", "--junit", tmp_path / "checks.xml")
    assert answer.code == 1
    assert "first has published nothing that could be looked at" in answer.out
    assert answer.out.rstrip().endswith("run")
    assert ElementTree.parse(tmp_path / "checks.xml").getroot().get("skipped") == "1"


def test_what_makes_no_sense_is_refused(project: ProjectFolder, call: Call) -> None:
    project.pipeline("second", whole("second", table="facts"))
    answer = call("check", "--project", project.root, "--select", "second")
    assert (answer.code, "none of the selected steps has a check" in answer.err) == (2, True)
    answer = call("check", "--project", project.root, "--all", "--window", "2024-01-01")
    assert (answer.code, "--all looks at every published window" in answer.err) == (2, True)
    answer = call("check", "--project", project.root, "--window", "2030-01-01")
    assert (answer.code, "no selected pipeline has a complete window" in answer.err) == (2, True)


def test_a_system_that_cannot_be_reached_is_an_error_not_a_verdict(published: ProjectFolder, call: Call, tmp_path: Path) -> None:
    (published.root / "shop.duckdb").write_text("no database")
    answer = call("check", "--project", published.root, "--junit", tmp_path / "checks.xml")
    assert answer.code == 1
    assert "ERROR checked" in answer.out
    assert ElementTree.parse(tmp_path / "checks.xml").getroot().get("errors") == "1"


def test_xml_holds_whatever_text_there_is(tmp_path: Path) -> None:
    write_junit(tmp_path / "x.xml", [Case("s", "c", "<&>\x00\x1b[0m\U0001f600\ud800", "failure", '"quoted"', "a\nb")], name="p")
    (case,) = ElementTree.parse(tmp_path / "x.xml").getroot().iter("testcase")
    assert case.get("name") == "<&>\ufffd\ufffd[0m\U0001f600\ufffd"
    assert case.findtext("failure") == "a\nb"
