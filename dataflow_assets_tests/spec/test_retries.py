"""`retries:` as a block, a number or false, of a pipeline and of the project."""

from pathlib import Path

import pytest

from dataflow_assets.errors import SpecError
from dataflow_assets.plan.build import build_plan
from dataflow_assets.spec.builders import endpoint, pipeline, project, source
from dataflow_assets.spec.load import load
from dataflow_assets.spec.retries import RetryOptions, joined

STEPS = """\
steps:
  - {id: read, type: source, source_type: parquet, config: {file_path: a.parquet}}
  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: b.parquet}}
"""


def planned(folder: Path, *, project_says: str = "", pipeline_says: str = "") -> RetryOptions:
    (folder / "pipelines").mkdir(exist_ok=True)
    (folder / "dataflow_project.yml").write_text(f"project_name: p\n{project_says}\n")
    (folder / "pipelines" / "a.yml").write_text(f"{pipeline_says}\n{STEPS}")
    loaded = load(folder)
    for failure in loaded.failures:
        raise SpecError(list(failure.problems))
    return build_plan(loaded).by_name["a"].retries


def test_nothing_said_is_two_retries_within_half_an_hour(tmp_path: Path):
    assert planned(tmp_path) == RetryOptions(max_retries=2, delay="5s", max_delay="5min", budget="30min", backoff="exponential")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("retries: 4", {"max_retries": 4}),
        ("retries: false", {"max_retries": 0}),
        ("retries: 0", {"max_retries": 0}),
        ("retries: {backoff_strategy: linear, max_retries: 3}", {"backoff": "linear", "max_retries": 3}),
        ("retries: {budget: 2h, backoff: none}", {"budget": "2h", "backoff": "none"}),
    ],
)
def test_shorter_ways_to_say_it(tmp_path: Path, text: str, expected: dict[str, object]):
    assert planned(tmp_path, pipeline_says=text) == RetryOptions(**expected)
    assert planned(tmp_path, project_says=text) == RetryOptions(**expected)


def test_what_the_pipeline_does_not_say_the_project_says(tmp_path: Path):
    found = planned(tmp_path, project_says="retries: {max_retries: 7, delay: 1s, budget: 1h}", pipeline_says="retries: {delay: 2s}")
    assert found == RetryOptions(max_retries=7, delay="2s", budget="1h")
    assert joined(None, None) == RetryOptions()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("retries: {delay: soon}", "retries.delay: 'soon' is not a duration"),
        ("retries: {budget: 5 parsecs}", "retries.budget: '5 parsecs' is not a duration"),
        ("retries: {max_retries: -1}", "greater than or equal to 0"),
        ("retries: -1", "greater than or equal to 0"),
        ("retries: {backoff: quadratic}", "exponential"),
        ("retries: {budgets: 1h}", "did you mean 'budget'?"),
        ("retries: often", "retries"),
        ("retries: true", "retries"),
    ],
)
def test_nonsense_is_refused_where_it_stands(tmp_path: Path, text: str, told: str):
    with pytest.raises(SpecError) as caught:
        planned(tmp_path, pipeline_says=text)
    (problem,) = caught.value.problems
    assert told in f"{problem.message} {problem.hint}"
    assert problem.place.line == 1
    assert problem.place.column > 1
    with pytest.raises(SpecError, match=told.replace("?", r"\?")):
        planned(tmp_path, project_says=text)


def test_the_builders_take_the_same(tmp_path: Path):
    steps = [source("read", "parquet", file_path="a.parquet"), endpoint("write", "parquet", depends_on="read", file_path="b.parquet")]
    built = project("p", root=tmp_path, retries={"delay": "1s"}, pipelines=[pipeline("a", steps=steps, retries=5)])
    assert build_plan(built).by_name["a"].retries == RetryOptions(max_retries=5, delay="1s")
