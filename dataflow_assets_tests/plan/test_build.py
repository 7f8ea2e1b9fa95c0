"""What a good project becomes: roles, kinds, modes, keys, edges, order, fingerprints."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets import discovery
from dataflow_assets.errors import PlanError
from dataflow_assets.plan.build import build_plan, build_plan_tolerant
from dataflow_assets.plan.graph import children, reachable
from dataflow_assets.plan.model import StepPlan
from dataflow_assets.plan.steps import run_order
from dataflow_assets.spec.load import load
from dataflow_assets.spec.models import PipelineModel, StepModel
from dataflow_assets.tables import WriteMode
from dataflow_assets_tests.plan.conftest import Workbench

Steps = Callable[..., str]
WINDOWED = "windows: {every: day, begin: 2024-01-01, timezone: America/New_York}\n"


def step_of(bench: Workbench, text: str, step: str) -> StepPlan:
    return bench.plan(p=text).by_name["p"].by_id[step]


def test_a_step_with_only_a_connection_takes_its_type(bench: Workbench, steps: Steps) -> None:
    found = step_of(bench, steps(), "read")
    assert (found.kind, found.role, found.connection) == ("tabledb", "source", "raw")
    assert found.table == "raw.public.orders"
    assert found.asset_key == ("p", "read")


def test_postgresql_is_postgres(bench: Workbench) -> None:
    text = (
        "connections: {pg: {type: postgresql, host: h, port: \"{{ env_var('PORT') }}\"}}\n"
        "steps:\n  - {id: read, type: source, source_type: postgres, connection: pg, config: {query: SELECT 1 AS a}}\n"
    )
    assert step_of(bench, text, "read").kind == "postgres"


def test_files_need_no_connection(bench: Workbench) -> None:
    text = "steps:\n  - {id: read, type: source, source_type: flatfile, config: {file_path: data/a.txt}}\n"
    found = step_of(bench, text, "read")
    assert (found.connection, found.table, found.reads) == (None, "data/a.txt", (("flatfile", "data", "a_txt"),))


def test_a_processor_is_a_transform_or_a_check_by_its_kind(bench: Workbench) -> None:
    text = (
        "steps:\n"
        "  - {id: read, type: source, connection: raw, config: {table: t}}\n"
        "  - {id: sums, type: processor, processor_type: sql, depends_on: [read], config: {query: select * from read}}\n"
        "  - {id: rules, type: processor, processor_type: validator, depends_on: [sums], config: {row_count_min: 1}}\n"
        "  - {id: odd, type: processor, processor_type: mad_anomaly_detector, depends_on: [rules]}\n"
    )
    plan = bench.plan(p=text).by_name["p"]
    assert [step.role for step in plan.steps] == ["source", "transform", "check", "transform"]
    (check,) = plan.by_id["rules"].checks
    assert check.kind == "validator"
    assert check.names


@pytest.mark.parametrize(
    ("head", "endpoint", "mode", "column"),
    [
        ("", "table: t", WriteMode.APPEND, None),
        ("", "table: t, mode: insert", WriteMode.APPEND, None),
        ("", "table: t, mode: replace", WriteMode.REPLACE, None),
        ("event_time_column: at\n", "table: t", WriteMode.APPEND, None),
        (WINDOWED, "table: t", WriteMode.APPEND, None),
        (WINDOWED, "table: t, event_time_column: at", WriteMode.REPLACE_WINDOW, "at"),
        (WINDOWED, "table: t, mode: append, event_time_column: at", WriteMode.REPLACE_WINDOW, "at"),
        (WINDOWED, "table: t, mode: upsert, upsert_keys: [id], event_time_column: at", WriteMode.UPSERT, "at"),
        (WINDOWED + "event_time_column: at\n", "table: t", WriteMode.REPLACE_WINDOW, "at"),
        (WINDOWED + "event_time_column: at\n", "table: t, mode: append", WriteMode.APPEND, "at"),
        (WINDOWED + "event_time_column: at\n", "table: t, event_time_column: own", WriteMode.REPLACE_WINDOW, "own"),
        (WINDOWED + "event_time_column: at\n", "table: t, mode: replace_window", WriteMode.REPLACE_WINDOW, "at"),
    ],
)
def test_the_effective_mode(bench: Workbench, steps: Steps, head: str, endpoint: str, mode: WriteMode, column: str | None) -> None:
    found = step_of(bench, steps(endpoint=endpoint, head=head), "write")
    assert (found.mode, found.window_column) == (mode, column)


def test_the_connectors_own_default_mode_counts_as_not_written(bench: Workbench) -> None:
    text = (
        "steps:\n"
        "  - {id: read, type: source, connection: raw, config: {table: t}}\n"
        "  - {id: write, type: endpoint, endpoint_type: flatfile, depends_on: read, config: {file_path: out.txt}}\n"
    )
    assert step_of(bench, text, "write").mode is WriteMode.REPLACE


def test_microbatch_with_an_endpoint_column_replaces_windows(bench: Workbench, steps: Steps) -> None:
    head = "variables: {microbatch: {event_time_column: at, batch_size: hour, begin: '2024-01-01'}}\n"
    plan = bench.plan(p=steps(endpoint="table: t, mode: append, event_time_column: at", head=head)).by_name["p"]
    assert plan.windows is not None
    assert (plan.windows.lookback, plan.by_id["write"].mode, plan.by_id["read"].window_column) == (1, WriteMode.REPLACE_WINDOW, "at")


@pytest.mark.parametrize(
    ("source", "column"),
    [
        ("table: t", "at"),
        ("table: t, event_time_column: own", "own"),
        ("table: t, event_time_column: null", None),
        ("query: 'select * from t'", "at"),
        ("query: 'select * from t where x >= {{ window.start }}'", None),
        ("query: 'select * from t where x >= {{ batch_start }}', event_time_column: x", "x"),
    ],
)
def test_a_source_is_filtered_once(bench: Workbench, steps: Steps, source: str, column: str | None) -> None:
    head = WINDOWED + "event_time_column: at\n"
    assert step_of(bench, steps(source=source, head=head), "read").window_column == column


def test_settled_templates_are_planned_with(bench: Workbench, steps: Steps) -> None:
    head = WINDOWED + "event_time_column: at\nvariables: {kind: upsert, name: '{{ var(\"prefix\") }}_orders', prefix: big, key: [id]}\n"
    endpoint = "table: '{{ name }}', mode: '{{ var(\"kind\") }}', upsert_keys: '{{ key }}', event_time_column: '{{ event_time_column }}'"
    found = step_of(bench, steps(endpoint=endpoint, head=head), "write")
    assert (found.table, found.mode, found.keys, found.window_column) == ("mart.public.big_orders", WriteMode.UPSERT, ("id",), "at")
    assert found.config["table"] == "{{ name }}"


def test_templates_of_the_clock_or_the_window_are_left_for_the_run(bench: Workbench, steps: Steps) -> None:
    head = WINDOWED + "variables: {day: '{{ today() }}'}\n"
    for table in ("{{ window.key }}", "{{ day }}", 't_{{ var("day") }}', '{{ env_var("UNSET_HERE") }}'):
        assert step_of(bench, steps(endpoint=f"table: '{table}'", head=head), "write").table is None


def test_window_bounds_move_out_to_the_edges(bench: Workbench, steps: Steps) -> None:
    head = "windows: {every: day, begin: 2024-01-01T07:00:00, end: 2024-01-03T01:00:00, timezone: America/New_York, lag: 2h}\n"
    windows = bench.plan(p=steps(head=head)).by_name["p"].windows
    assert windows is not None
    assert windows.begin == datetime(2024, 1, 1, 5, tzinfo=UTC)
    assert windows.end == datetime(2024, 1, 4, 5, tzinfo=UTC)
    assert windows.lag_seconds == 7200


def test_steps_run_after_their_inputs_with_endpoints_last(bench: Workbench) -> None:
    text = """\
steps:
  - {id: w1, type: endpoint, connection: mart, depends_on: [r1], config: {table: a}}
  - {id: r1, type: source, connection: raw, config: {table: x}}
  - {id: w2, type: endpoint, connection: mart, depends_on: [r1], config: {table: b}}
  - {id: r2, type: source, connection: raw, depends_on: [w2], config: {table: y}}
  - {id: t, type: processor, processor_type: sql, depends_on: [r1, r2], config: {query: select 1 as a}}
  - {id: w3, type: endpoint, connection: mart, depends_on: [t], config: {table: c}}
"""
    assert [step.id for step in bench.plan(p=text).by_name["p"].steps] == ["r1", "w2", "r2", "t", "w1", "w3"]


def test_edges_come_from_sql_and_from_depends_on(bench: Workbench, steps: Steps) -> None:
    query = "query: 'with o as (select * from orders_copy) select * from o join Public.Dim d using (id) where at > {{ var(\"x\", 1) }}'"
    plan = bench.plan(
        a_report=steps(source=query, endpoint="table: report").replace("connection: raw", "connection: mart"),
        b_copy=steps(head="depends_on: [c_first]\n"),
        c_first=steps(source="table: other", endpoint="table: dim, table_schema: public"),
    )
    assert [pipeline.name for pipeline in plan.pipelines] == ["c_first", "b_copy", "a_report"]
    assert set(plan.by_name["a_report"].upstream) == {"b_copy", "c_first"}
    assert set(plan.by_name["a_report"].by_id["read"].reads) == {("b_copy", "write"), ("c_first", "write")}
    assert set(plan.external) == {("raw", "public", "orders"), ("raw", "public", "other")}


def test_a_file_that_another_pipeline_writes_is_an_edge(bench: Workbench) -> None:
    write = "  - {id: write, type: endpoint, endpoint_type: flatfile, depends_on: read, config: {file_path: ./out/../out/a.txt}}\n"
    plan = bench.plan(
        reader="steps:\n  - {id: read, type: source, source_type: flatfile, config: {file_path: 'out/*.txt'}}\n",
        writer="steps:\n  - {id: read, type: source, connection: raw, config: {table: t}}\n" + write,
    )
    assert plan.by_name["reader"].by_id["read"].reads == (("writer", "write"),)
    assert [pipeline.name for pipeline in plan.pipelines] == ["writer", "reader"]


def test_reading_what_the_pipeline_itself_writes_is_no_edge(bench: Workbench, steps: Steps) -> None:
    plan = bench.plan(p=steps(source="table: orders_copy").replace("connection: raw", "connection: mart"))
    assert plan.by_name["p"].by_id["read"].reads == ()
    assert plan.by_name["p"].upstream == ()
    assert plan.external == ()


def test_two_connections_to_one_system_share_their_tables(bench: Workbench, steps: Steps) -> None:
    own = "connections: {reader: {type: tabledb, host: warehouse, password: other}}\n"
    plan = bench.plan(
        a=steps(), b=own + steps(source="table: orders_copy", endpoint="table: z").replace("connection: raw", "connection: reader")
    )
    assert plan.by_name["b"].upstream == ("a",)


def test_without_external_only_sql_that_mentions_a_published_table_counts(bench: Workbench, steps: Steps) -> None:
    project = bench.project(a=steps(), b=steps(source="query: 'select * from elsewhere'", endpoint="table: z"))
    plan = build_plan(project, external=False)
    assert plan.external == ()
    assert plan.by_name["b"].upstream == ()


def test_asset_keys_are_legal_and_can_be_overridden(bench: Workbench) -> None:
    text = (
        "pipeline_name: my-pipe.v2\nsteps:\n"
        "  - {id: read-it, type: source, connection: raw, config: {table: t}}\n"
        "  - {id: b, type: source, connection: raw, asset_key: shop/my orders, config: {table: t}}\n"
        "  - {id: c, type: source, connection: raw, asset_key: [x, y], config: {table: t}}\n"
    )
    plan = bench.plan(p=text).by_name["my-pipe.v2"]
    assert [step.asset_key for step in plan.steps] == [("my_pipe_v2", "read_it"), ("shop", "my_orders"), ("x", "y")]
    assert plan.group == "my_pipe_v2"


def test_places_point_into_the_file(bench: Workbench, steps: Steps) -> None:
    found = step_of(bench, steps(), "write")
    assert (Path(found.place.file).name, found.place.line) == ("p.yml", 3)


class TestFingerprints:
    def prints(self, bench: Workbench, text: str) -> dict[str, str]:
        return {step.id: step.fingerprint for step in bench.plan(p=text).by_name["p"].steps}

    def test_it_follows_the_step_and_what_is_upstream(self, bench: Workbench, steps: Steps) -> None:
        before = self.prints(bench, steps())
        assert before == self.prints(bench, steps())
        source = self.prints(bench, steps(source="table: orders, columns: [a]"))
        assert source["read"] != before["read"]
        assert source["write"] != before["write"]
        target = self.prints(bench, steps(endpoint="table: other"))
        assert target["read"] == before["read"]
        assert target["write"] != before["write"]

    def test_words_and_secrets_do_not_count(self, bench: Workbench, steps: Steps) -> None:
        before = self.prints(bench, steps())
        (bench.root / "dataflow_project.yml").write_text(
            "connections:\n  raw: {type: tabledb, host: db, password: new}\n  mart: {type: tabledb, host: warehouse}\n"
        )
        described = steps(head="description: words\ntags: [a]\n").replace("id: read,", "id: read, description: more, tags: [b],")
        assert self.prints(bench, described) == before

    def test_windows_count_but_not_their_bounds(self, bench: Workbench, steps: Steps) -> None:
        day = self.prints(bench, steps(head="windows: {every: day, begin: 2024-01-01}\n"))
        assert day == self.prints(bench, steps(head="windows: {every: day, begin: 2023-01-01, lookback: 3, lag: 1h}\n"))
        assert day["read"] != self.prints(bench, steps(head="windows: {every: hour, begin: 2024-01-01}\n"))["read"]
        assert day["read"] != self.prints(bench, steps(head="windows: {every: day, begin: 2024-01-01, timezone: Asia/Tokyo}\n"))["read"]

    def test_a_check_passes_its_inputs_fingerprint_on(self, bench: Workbench) -> None:
        def text(least: int) -> str:
            return (
                "steps:\n"
                "  - {id: read, type: source, connection: raw, config: {table: t}}\n"
                f"  - {{id: rules, type: check, kind: validator, depends_on: [read], config: {{row_count_min: {least}}}}}\n"
                "  - {id: write, type: endpoint, connection: mart, depends_on: [rules], config: {table: t}}\n"
            )

        one, two = self.prints(bench, text(1)), self.prints(bench, text(2))
        assert one["rules"] != two["rules"]
        assert one["write"] == two["write"]


class TestTolerant:
    def test_a_broken_pipeline_takes_only_its_dependents_with_it(self, bench: Workbench, steps: Steps) -> None:
        project = bench.project(
            a=steps(source="tabel: x"),
            b=steps(source="table: orders_copy", endpoint="table: b").replace("connection: raw", "connection: mart"),
            c=steps(head="depends_on: [b]\n", endpoint="table: c"),
            d=steps(endpoint="table: d"),
        )
        plan, broken = build_plan_tolerant(project)
        assert [pipeline.name for pipeline in plan.pipelines] == ["d"]
        assert set(broken) == {"a", "b", "c"}
        assert "left out because it depends on a" in broken["b"][0].message
        assert "left out because it depends on b" in broken["c"][0].message

    def test_a_sound_project_has_no_problems(self, bench: Workbench, steps: Steps) -> None:
        project = bench.project(a=steps())
        assert build_plan_tolerant(project) == (build_plan(project), {})

    def test_strict_planning_tells_of_files_that_could_not_be_loaded(self, bench: Workbench, steps: Steps) -> None:
        bench.write("broken", "steps: [")
        bench.write("late", steps(head="depends_on: [broken]\n"))
        with pytest.raises(PlanError) as caught:
            build_plan(load(bench.root))
        assert {Path(problem.place.file).name for problem in caught.value.problems} == {"broken.yml", "late.yml"}
        assert "mend it first" in str(caught.value)


STEPS = st.lists(
    st.tuples(st.sampled_from(["source", "processor", "endpoint"]), st.sets(st.integers(0, 9), max_size=3)), min_size=1, max_size=10
)


@settings(deadline=None)
@given(STEPS, st.randoms(use_true_random=False))
def test_run_order_of_random_pipelines(drawn: list[tuple[str, set[int]]], random: Random) -> None:
    steps = [
        StepModel(id=f"s{number}", type=role, depends_on=[f"s{parent}" for parent in parents if parent < number])
        for number, (role, parents) in enumerate(drawn)
    ]
    random.shuffle(steps)
    pipeline = PipelineModel.model_construct(steps=steps)
    order = run_order(pipeline)
    by_id = {step.id: step for step in steps}
    assert sorted(order) == sorted(by_id)
    assert all(order.index(parent) < order.index(step.id) for step in steps for parent in step.depends_on)
    below = children({step.id: step.depends_on for step in steps})
    others = [name for name in order if by_id[name].role != "endpoint"]
    for name in order:
        if by_id[name].role == "endpoint" and not any(by_id[child].role != "endpoint" for child in reachable(below, [name])):
            assert all(order.index(other) < order.index(name) for other in others)


PLUGINS = [(family, kind) for family in ("connectors", "transforms", "checks") for kind in discovery.kinds(family)]


@pytest.mark.parametrize(("family", "kind"), PLUGINS)
def test_every_plugins_example_can_be_planned(bench: Workbench, family: discovery.Family, kind: str) -> None:
    document = yaml.safe_load(discovery.find(family, kind).example)
    steps, declared = document["steps"], document.get("connections", {})
    connections = {step["connection"]: _any_block(step) for step in steps if step.get("connection", "") not in {"", *declared}}
    (bench.root / "dataflow_project.yml").write_text(yaml.safe_dump({"connections": connections}))
    assert bench.problems(p=yaml.safe_dump(document)) == []


def _any_block(step: dict[str, str]) -> dict[str, str]:
    """A connection for a step, with a template for every key that must be there."""
    kind = step.get("source_type") or step["endpoint_type"]
    model = discovery.find("connectors", kind).Connection
    return {"type": kind, **{name: "{{ env_var('X') }}" for name, info in model.model_fields.items() if info.is_required()}}
