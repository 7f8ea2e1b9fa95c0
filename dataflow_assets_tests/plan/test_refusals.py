"""Every refusal: its message, its place, its suggestion; and all of them in one pass."""

from collections.abc import Callable

import pytest

from dataflow_assets.errors import PlanError
from dataflow_assets_tests.plan.conftest import Workbench

Steps = Callable[..., str]
READ = "  - {id: read, type: source, connection: raw, config: {table: t}}\n"
WRITE = "  - {id: write, type: endpoint, connection: mart, depends_on: [read], config: {table: t}}\n"

ONE_STEP = [
    (
        "{id: s, type: source, source_type: tabldb, connection: raw}",
        ["p.yml:2 step 's': there is no connector of kind 'tabldb' -> did you mean 'tabledb'?"],
    ),
    ("{id: s, type: source, source_type: validator, config: {}}", ["is a check: change the step's type"]),
    (
        "{id: s, type: transform, processor_type: validator, depends_on: [s0]}",
        ["there is no transform of kind 'validator' -> validator is a check"],
    ),
    (
        "{id: s, type: source, connection: rwa, config: {table: t}}",
        ["p.yml:2 step 's': there is no connection 'rwa' -> did you mean 'raw'?"],
    ),
    ("{id: s, type: source, source_type: tabledb, config: {table: t}}", ["step 's' needs a connection to tabledb -> add connection: mart"]),
    (
        "{id: s, type: source, source_type: flatfile, connection: raw, config: {file_path: x}}",
        ["step 's' is flatfile, but connection 'raw' is tabledb -> leave source_type out"],
    ),
    ("{id: s, type: source, connection: raw, config: {tabel: t}}", ["p.yml:2 step 's': unknown key 'tabel' -> did you mean 'table'?"]),
    (
        "{id: s, type: source, connection: raw, config: {table: t, fetch_rows: many}}",
        ["step 's': fetch_rows: Input should be a valid integer"],
    ),
    ("{id: s, type: source, connection: raw, config: {table: t, host: db}}", ["unknown key 'host' -> 'host' belongs to a connection"]),
    ("{id: s, type: source, connection: raw}", ["p.yml:2 step 's' reads nothing: it has neither query nor table -> add table: or query:"]),
    (
        "{id: s, type: source, connection: raw, config: {table: t, query: select 1}}",
        ["step 's' has both query and table -> keep one of them"],
    ),
    (
        "{id: s, type: source, connection: raw, config: {table: t}, depends_on: [x]}",
        ["step 's' depends on 'x', which is not a step of pipeline 'p'"],
    ),
    (
        "{id: s, type: processor, processor_type: sql, config: {query: select 1}}",
        ["p.yml:2 step 's' is a processor without input -> add depends_on:"],
    ),
    ("{id: s, type: endpoint, connection: mart, config: {table: t}}", ["step 's' is an endpoint without input"]),
    ("{id: s, type: source, connection: raw, config: {table: t}, tags: [a b]}", ["'a b' is not a tag -> use letters"]),
    ("{id: s, type: source, connection: raw, config: {table: t}, checks: [{column: a, mni: 1}]}", ["step 's': unknown key 'mni'"]),
    (
        "{id: s, type: source, connection: raw, config: {table: t}, depends_on: [s]}",
        ["steps depend on each other in a circle: s -> s -> remove one"],
    ),
]


@pytest.mark.parametrize(("step", "expected"), ONE_STEP)
def test_one_step(bench: Workbench, step: str, expected: list[str]) -> None:
    problems = bench.problems(p=f"steps:\n  - {step}\n")
    for text in expected:
        assert any(text in problem for problem in problems), problems


ENDPOINTS = [
    ("", "table: t, mode: upsert", "step 'write' upserts without upsert_keys -> add upsert_keys:"),
    ("", "table: t, mode: replace_window", "step 'write' has mode replace_window, but its pipeline has no windows"),
    ("windows: {every: day, begin: 2024-01-01}\n", "table: t, mode: replace_window", "no event_time_column says which rows a window holds"),
    ("", "table: t, mode: sometimes", "step 'write': mode: Input should be 'append'"),
    (
        "windows: {every: day, begin: 2024-01-01}\n",
        "table: t, mode: '{{ window.key }}'",
        "mode cannot be a template, the plan depends on it",
    ),
    ("", "table: t, upsert_key: [a]", "unknown key 'upsert_key' -> did you mean 'upsert_keys'?"),
    ("", "mode: append", "step 'write': 'table' is missing"),
    ("", "table: t, reconcile: {sorce_to_stage: {}}", "unknown key 'sorce_to_stage' -> did you mean 'source_to_stage'?"),
    ("", "table: t, reconcile: {source_to_stage: {tolerence: 1}}", "unknown key 'tolerence' -> did you mean 'tolerance'?"),
    ("", "table: t, reconcile: {stage_to_target: {tolerance: 101%}}", "tolerance: Input should be less than or equal to 100"),
    (
        "windows: {every: day, begin: 2024-01-01}\n",
        "table: t, reconcile: {keys: '{{ window.key }}'}",
        "reconcile cannot be a template, the plan depends on it",
    ),
]


@pytest.mark.parametrize(("head", "endpoint", "expected"), ENDPOINTS)
def test_endpoints(bench: Workbench, steps: Steps, head: str, endpoint: str, expected: str) -> None:
    (problem,) = bench.problems(p=steps(endpoint=endpoint, head=head))
    assert expected in problem
    assert problem.startswith(f"p.yml:{3 + bool(head)} ")


def test_a_mode_that_the_connector_cannot_do(bench: Workbench) -> None:
    write = "  - id: write\n    type: endpoint\n    endpoint_type: flatfile\n    depends_on: read\n    config:\n"
    text = f"steps:\n{READ}{write}      file_path: x\n      mode: upsert\n"
    problems = bench.problems(p=text)
    assert any("step 'write' upserts without upsert_keys" in problem for problem in problems)
    assert "p.yml:9 step 'write': flatfile cannot write with mode upsert -> it can append or replace" in problems


HEADS = [
    ("windows: {every: day}\n", "p.yml:1 the windows of 'p' have no begin -> add begin:"),
    ("variables: {microbatch: {event_time_column: a, batch_size: day}}\n", "p.yml:1 the windows of 'p' have no begin"),
    (
        "windows: {every: day, begin: 2024-02-01, end: 2024-01-01}\n",
        "p.yml:1 windows of 'p' end (2024-01-01) before they begin (2024-02-01)",
    ),
    ("schedule: daily at six\n", "p.yml:1 'daily at six' is not a schedule: it has 3 fields -> write five cron fields"),
    ("schedule: 61 * * * *\n", "'61 * * * *' is not a schedule: minute 61 is not between 0 and 59"),
    ("schedule: 0 0 30 2 *\n", "the schedule '0 0 30 2 *' never comes"),
    ("schedule: windows\n", "schedule: windows needs windows"),
    ("tags: ['a,b']\n", "p.yml:1 'a,b' is not a tag"),
    ("owners: [bob]\n", "p.yml:1 'bob' is not an owner -> write an email address, or team:name"),
    ("pipeline_name: my pipeline\n", "p.yml:1 'my pipeline' is not a pipeline name"),
    ("depends_on: [q]\n", "p.yml:1 pipeline 'p' depends on 'q', which does not exist"),
    ("freshness: {fail_after: late}\n", "freshness.fail_after: 'late' is not a duration"),
]


@pytest.mark.parametrize(("head", "expected"), HEADS)
def test_heads(bench: Workbench, steps: Steps, head: str, expected: str) -> None:
    (problem,) = bench.problems(p=steps(head=head))
    assert expected in problem


def test_a_typing_error_in_the_type_of_a_connection_is_told_where_it_stands(bench: Workbench) -> None:
    head = "connections:\n  files: {type: tabeldb}\n"
    problems = bench.problems(
        p=f"{head}steps:\n  - {{id: s, type: source, source_type: tabledb, connection: files, config: {{table: t}}}}\n"
    )
    assert "p.yml:2 connection 'files': there is no connector of kind 'tabeldb' -> did you mean 'tabledb'?" in problems


def test_no_steps(bench: Workbench) -> None:
    assert bench.problems(p="description: nothing\n") == [
        "p.yml:1 pipeline 'p' has no steps -> add a source and an endpoint under `steps:`"
    ]


def test_duplicate_step_ids(bench: Workbench) -> None:
    (problem,) = bench.problems(p=f"steps:\n{READ}{READ}{WRITE}")
    assert problem.startswith("p.yml:3 step id 'read' is used twice, first at ")
    assert "p.yml:2:" in problem


def test_step_cycles_are_printed(bench: Workbench) -> None:
    text = "steps:\n" + "".join(
        f"  - {{id: {name}, type: transform, kind: sql, depends_on: [{parent}], config: {{query: select 1}}}}\n"
        for name, parent in ("ab", "bc", "ca")
    )
    (problem,) = bench.problems(p=text)
    assert "p.yml:2 steps depend on each other in a circle: a -> b -> c -> a" in problem


def test_an_endpoint_of_two_inputs_would_lose_one(bench: Workbench) -> None:
    more = READ.replace("id: read", "id: more")
    (problem,) = bench.problems(p=f"steps:\n{READ}{more}" + WRITE.replace("[read]", "[read, more]"))
    assert "step 'write' is an endpoint of one input, but depends on read, more" in problem


def test_an_endpoint_may_wait_for_another_endpoint(bench: Workbench) -> None:
    later = WRITE.replace("id: write", "id: later").replace("[read]", "[read, write]").replace("table: t", "table: u")
    assert bench.problems(p=f"steps:\n{READ}{WRITE}{later}") == []


def test_pipeline_cycles_are_printed(bench: Workbench, steps: Steps) -> None:
    problems = bench.problems(a=steps(head="depends_on: [b]\n"), b=steps(source="table: z", endpoint="table: z2", head="depends_on: [a]\n"))
    assert len(problems) == 2
    assert all("pipelines depend on each other in a circle: a -> b -> a -> remove one" in problem for problem in problems)


def test_pipeline_cycles_through_sql_say_so(bench: Workbench, steps: Steps) -> None:
    problems = bench.problems(
        a=steps(source="query: select * from b_table", endpoint="table: a_table").replace("connection: raw", "connection: mart"),
        b=steps(source="table: a_table", endpoint="table: b_table").replace("connection: raw", "connection: mart"),
    )
    assert any("a -> b -> a (a reads what b publishes; b reads what a publishes)" in problem for problem in problems)


def test_one_table_has_one_replacing_writer(bench: Workbench, steps: Steps) -> None:
    (problem,) = bench.problems(a=steps(endpoint="table: T"), b=steps(endpoint="table: t, table_schema: public, mode: replace"))
    assert "b.write writes mart.public.t, as a.write does (" in problem
    assert "mode replace of b.write deletes what a.write wrote -> write to another table" in problem


def test_one_file_has_one_writer(bench: Workbench) -> None:
    write = "  - {id: %s, type: endpoint, endpoint_type: flatfile, depends_on: read, config: {file_path: %s, mode: append}}\n"
    (problem,) = bench.problems(p=f"steps:\n{READ}{write % ('w1', 'out/a.txt')}{write % ('w2', './out//a.txt')}")
    assert "p.w2 writes out/a.txt, as p.w1 does" in problem
    assert "a single file has one writer" in problem


def test_two_pipelines_may_append_to_one_table(bench: Workbench, steps: Steps) -> None:
    assert bench.problems(a=steps(), b=steps(source="table: z")) == []


def test_windows_of_one_table_may_not_overlap(bench: Workbench, steps: Steps) -> None:
    def windowed(begin: str, end: str) -> str:
        return steps(endpoint="table: t, event_time_column: at", head=f"windows: {{every: day, begin: {begin}, end: {end}}}\n")

    assert bench.problems(a=windowed("2024-01-01", "2024-02-01"), b=windowed("2024-02-01", "2024-03-01")) == []
    (problem,) = bench.problems(b=windowed("2024-01-31", "2024-03-01"))
    assert "a window that one of them replaces holds rows of the other" in problem


def test_asset_keys_may_not_clash(bench: Workbench, steps: Steps) -> None:
    (problem,) = bench.problems(a=steps(), b=steps(source="table: z").replace("id: read,", "id: read, asset_key: a/read,"))
    assert "step b.read has the asset key a/read of a.read" in problem
    assert "set asset_key:" in problem


def test_names_that_become_one_in_dagster(bench: Workbench, steps: Steps) -> None:
    problems = bench.problems(a=steps(head="pipeline_name: x-y\n"), b=steps(head="pipeline_name: x_y\n", source="table: z"))
    assert any("pipeline name 'x_y' is the same as that at" in problem for problem in problems)


def test_a_pipeline_name_used_twice_names_both_places(bench: Workbench, steps: Steps) -> None:
    project = bench.project(a=steps(head="pipeline_name: x\n"), b=steps(head="pipeline_name: x\n"))
    text = "\n".join(str(problem) for failure in project.failures for problem in failure.problems)
    assert "a.yml:1:" in text
    assert "b.yml:1:" in text


def test_a_metric_check_needs_an_endpoint_downstream(bench: Workbench) -> None:
    read = READ.replace("config:", "checks: [{anomaly: {metric: row_count}}], config:")
    problems = bench.problems(p=f"steps:\n{read}")
    assert any("step 'read' has an anomaly check on a metric, but no endpoint follows it" in problem for problem in problems)
    assert not any("no endpoint follows" in problem for problem in bench.problems(p=f"steps:\n{read}{WRITE}"))


class TestConnections:
    def blocks(self, bench: Workbench, text: str) -> None:
        (bench.root / "dataflow_project.yml").write_text(f"connections:\n{text}")

    def test_an_unknown_key_is_shown_where_it_is_written(self, bench: Workbench, steps: Steps) -> None:
        self.blocks(bench, "  raw: {type: tabledb, host: db}\n  mart:\n    type: tabledb\n    hots: db\n    host: db\n")
        (problem,) = bench.problems(p=steps())
        assert problem == "dataflow_project.yml:5 connection 'mart': unknown key 'hots' -> did you mean 'host'?"

    def test_a_wrong_or_missing_value(self, bench: Workbench, steps: Steps) -> None:
        self.blocks(bench, "  raw: {type: tabledb}\n  mart: {type: tabledb, host: h, port: many}\n")
        problems = bench.problems(p=steps())
        assert any("dataflow_project.yml:2 connection 'raw': 'host' is missing" in problem for problem in problems)
        assert any("dataflow_project.yml:3 connection 'mart': port: Input should be a valid integer" in problem for problem in problems)

    def test_a_templated_value_is_not_type_checked(self, bench: Workbench, steps: Steps) -> None:
        self.blocks(
            bench,
            "  raw: {type: tabledb, host: '${HOST}', port: '${PORT}'}\n  mart: {type: tabledb, host: h, port: \"{{ env_var('P') }}\"}\n",
        )
        assert bench.problems(p=steps(source="table: t, fetch_rows: '{{ days_ago(1) }}'")) == []

    def test_without_a_type(self, bench: Workbench, steps: Steps) -> None:
        self.blocks(bench, "  raw: {host: h}\n  mart: {type: tabldb, host: h}\n")
        problems = bench.problems(p=steps())
        assert any("dataflow_project.yml:2 connection 'raw' has no type" in problem for problem in problems)
        assert any("dataflow_project.yml:3 step 'write': there is no connector of kind 'tabldb'" in problem for problem in problems)

    def test_a_step_option_in_a_connection(self, bench: Workbench, steps: Steps) -> None:
        self.blocks(bench, "  raw: {type: tabledb, host: h, table: t}\n  mart: {type: tabledb, host: h2}\n")
        (problem,) = bench.problems(p=steps())
        assert "unknown key 'table' -> 'table' belongs into the config of a step" in problem

    def test_an_unused_connection_may_be_of_any_type(self, bench: Workbench, steps: Steps) -> None:
        self.blocks(bench, "  raw: {type: tabledb, host: h}\n  mart: {type: tabledb, host: h2}\n  other: {type: crystal_ball}\n")
        assert bench.problems(p=steps()) == []

    def test_a_password_is_not_shown(self, bench: Workbench, steps: Steps) -> None:
        self.blocks(bench, "  raw: {type: tabledb, host: h, password: [hunter2-secret]}\n  mart: {type: tabledb, host: h2}\n")
        with pytest.raises(PlanError) as caught:
            bench.plan(p=steps())
        assert "hunter2-secret" not in "".join(problem.message + problem.hint for problem in caught.value.problems)


def test_all_problems_in_one_pass(bench: Workbench, steps: Steps) -> None:
    with pytest.raises(PlanError) as caught:
        bench.plan(
            a=steps(source="tabel: x", endpoint="table: t, mode: upsert", head="tags: ['a b']\ndepends_on: [nope]\n"), b="steps: []\n"
        )
    assert len(caught.value.problems) == 5
    assert caught.value.problems == sorted(caught.value.problems, key=lambda problem: problem.place)
    assert "^" in str(caught.value)


TEMPLATES = [
    ("", "table: '{{ vra(1) }}'", "step 'read': there is no variable or function 'vra' -> did you mean 'var'?"),
    ("variables: {schema: x}\n", "table: '{{ var(\"shema\") }}.t'", "there is no variable or function 'shema' -> did you mean 'schema'?"),
    (
        "",
        "query: 'select * from t where at > {{ window.start }}'",
        "'window' is known only in a pipeline with windows -> add a windows: block",
    ),
    ("", "query: 'select {{ 1 + }}'", "step 'read': "),
    ("", "query: 'select {{ event_time_column }} from t'", "the pipeline has no event_time_column"),
    ("variables: {a: '{{ nowhere }}'}\n", "table: t", "p.yml:1 variables: there is no variable or function 'nowhere'"),
]


@pytest.mark.parametrize(("head", "source", "expected"), TEMPLATES)
def test_templates(bench: Workbench, steps: Steps, head: str, source: str, expected: str) -> None:
    (problem,) = bench.problems(p=steps(source=source, head=head))
    assert expected in problem


@pytest.mark.parametrize(
    "query",
    [
        "{{ var('unset', 3) }}",
        "{{ days_ago(3) }}",
        "{{ state.get('last_processed_date', yesterday()) }}",
        "{% for i in range(3) %}{{ i }},{% endfor %}1",
    ],
)
def test_names_that_are_there(bench: Workbench, steps: Steps, query: str) -> None:
    assert bench.problems(p=steps(source=f'query: "select {query} as a"')) == []
