"""Systems that can only be read: refused as endpoints, and named in the lineage without being files."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow_assets.plan.build import build_plan, build_plan_tolerant
from dataflow_assets.spec.json_schema import pipeline_schema
from dataflow_assets.spec.load import load

PROJECT = """\
project_name: desk
connections:
  api: {type: http, base_url: "https://example.com/v1", token: "{{ env_var('TOKEN', 'none') }}"}
  logs: {type: opensearch, url: "https://logs.example.com"}
  play: {type: google_play, bucket: pubsite_prod_rev_0123}
"""
READ = "  - {id: read, type: source, connection: api, config: {path: orders}}\n"
SEARCH = "  - {id: found, type: source, connection: logs, config: {index: orders, query: {term: {state: open}}}}\n"
WRITE = "  - {id: write, type: endpoint, endpoint_type: csv, depends_on: [read], config: {file_path: orders}}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "dataflow_project.yml").write_text(PROJECT)
    return tmp_path


def problems(project: Path, text: str) -> list[str]:
    """Each problem of a pipeline, as `line message -> hint`."""
    (project / "pipelines" / "p.yml").write_text(text)
    _, broken = build_plan_tolerant(load(project))
    return [f"{problem.place.line} {problem.message} -> {problem.hint}" for found in broken.values() for problem in found]


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ("endpoint_type: http, connection: api, config: {path: orders}", "http"),
        ("kind: http, connection: api", "http"),
        ("connection: api, config: {mode: append}", "http"),
        ("connection: logs, config: {index: orders}", "elasticsearch"),
        ("endpoint_type: opensearch, connection: logs", "elasticsearch"),
        ("connection: play, config: {report: sales}", "google_play"),
    ],
)
def test_an_endpoint_is_refused_in_one_clear_sentence(project: Path, step: str, kind: str) -> None:
    text = f"steps:\n{READ}  - {{id: write, type: endpoint, depends_on: [read], {step}}}\n"
    assert problems(project, text) == [
        f"3 step 'write' is an endpoint, but {kind} can only be read -> make it a source, or publish into a connection that can be written"
    ]


def test_what_is_read_has_a_name_and_is_no_file(project: Path) -> None:
    """A file of the same name is not taken for it, and a JSON query is not taken for SQL."""
    other = "  - {id: again, type: source, source_type: csv, config: {file_path: orders}}\n"
    write = WRITE.replace("read]", "again]").replace("orders}", "copy.csv}")
    (project / "pipelines" / "first.yml").write_text(f"steps:\n{READ}{WRITE}")
    (project / "pipelines" / "second.yml").write_text(f"steps:\n{SEARCH}{other}{write}")
    plan = build_plan(load(project))
    first, second = plan.by_name["first"], plan.by_name["second"]
    assert first.by_id["read"].reads == (("api", "orders"),)
    assert second.by_id["found"].reads == (("logs", "orders"),)
    assert second.upstream == ("first",), "the file is that of the first pipeline"
    assert first.upstream == ()


def test_a_window_in_parameters_needs_its_column(project: Path) -> None:
    windowed = "windows: {every: day, begin: 2024-01-01}\n"
    source = "  - {id: read, type: source, connection: api, config: {path: orders, window: {start: since}%s}}\n"
    write = WRITE.replace("file_path: orders", "file_path: orders, mode: append")
    (found,) = problems(project, f"{windowed}steps:\n{source % ''}{write}")
    assert "3 step 'read' tells the window in parameters, but no event_time_column says which rows it holds" in found
    assert problems(project, f"{windowed}steps:\n{source % ', event_time_column: at'}{write}") == []
    assert problems(project, f"{windowed}event_time_column: at\nsteps:\n{source % ''}{WRITE}") == []
    assert problems(project, f"steps:\n{source % ''}{WRITE}") == []


def test_editors_do_not_offer_them_as_endpoints() -> None:
    step = pipeline_schema()["$defs"]["StepModel"]["properties"]
    assert {"http", "elasticsearch", "opensearch", "google_play"} <= set(step["source_type"]["enum"])
    assert not {"http", "elasticsearch", "opensearch", "google_play"} & set(step["endpoint_type"]["enum"])


def test_addresses_may_come_from_the_environment(project: Path) -> None:
    text = PROJECT.replace("https://example.com/v1", "{{ env_var('API') }}").replace("https://logs.example.com", "${LOGS}")
    (project / "dataflow_project.yml").write_text(text)
    write = WRITE.replace("[read]", "[found]").replace("id: write", "id: more").replace("orders}", "more}")
    assert problems(project, f"steps:\n{READ}{SEARCH}{WRITE}{write}") == []


def test_a_query_with_the_window_in_it_gets_no_range(project: Path) -> None:
    query = "{range: {at: {gte: '{{ window.start }}'}}}"
    source = f"  - {{id: read, type: source, connection: logs, config: {{index: orders, query: {query}}}}}\n"
    head = "windows: {every: day, begin: 2024-01-01}\nevent_time_column: at\nsteps:\n"
    (project / "pipelines" / "p.yml").write_text(f"{head}{source}{WRITE}")
    (project / "pipelines" / "q.yml").write_text(f"{head}{SEARCH}{WRITE.replace('[read]', '[found]').replace('orders}', 'other}')}")
    plan = build_plan(load(project))
    assert plan.by_name["p"].by_id["read"].window_column is None
    assert plan.by_name["q"].by_id["found"].window_column == "at"
