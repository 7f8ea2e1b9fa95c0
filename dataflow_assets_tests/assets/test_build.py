"""The static side: what Dagster shows of a project before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from dataflow_assets.assets.build import VALIDATING, build_definitions
from dataflow_assets.assets.placeholders import Broken
from dataflow_assets.errors import Place, PlanError, Problem
from dataflow_assets.plan.model import CheckPlan, PipelinePlan, PoolPlan, ProjectPlan, StepPlan, WindowPlan
from dataflow_assets.protocols import CheckPromise
from dataflow_assets.spec.models import FreshnessOptions, ProjectModel
from dataflow_assets.spec.project import Places, Project
from dataflow_assets.tables import WriteMode
from dataflow_assets.windows import Cadence
from dataflow_assets_tests.assets import shop
from dataflow_assets_tests.calls import calls

DAYS = WindowPlan(Cadence("day"), datetime(2024, 3, 1, tzinfo=UTC), None, 0, 0.0)
HOURS = replace(DAYS, cadence=Cadence("hour"))


def pipeline(name: str, *, steps: int = 3, checks: int = 1, windows: WindowPlan | None = None, **more: object) -> PipelinePlan:
    """A chain: one source, transforms, one endpoint; `checks` rules at each step."""
    roles = ["source", *["transform"] * (steps - 2), "endpoint"]
    kinds = {"source": "csv", "transform": "sql", "endpoint": "duckdb"}
    found = tuple(
        StepPlan(
            id=f"s{number}",
            role=role,  # type: ignore[arg-type]
            kind=kinds[role],
            inputs=(f"s{number - 1}",) if number else (),
            config={},
            asset_key=(name, f"s{number}"),
            place=Place(f"pipelines/{name}.yml", number + 3, 5),
            checks=(CheckPlan("validator", {}, tuple(CheckPromise(f"c{check}") for check in range(checks))),) if checks else (),
            mode=WriteMode.REPLACE_WINDOW if role == "endpoint" and windows else None,
            table=f"warehouse.main.{name}" if role == "endpoint" else None,
            connection="warehouse" if role == "endpoint" else None,
            fingerprint="f",
        )
        for number, role in enumerate(roles)
    )
    return PipelinePlan(name, found, Place(f"pipelines/{name}.yml", 1, 1), windows=windows, **more)  # type: ignore[arg-type]


def project(root: Path = Path("/nowhere")) -> Project:
    """A project of nothing but its folder."""
    return Project(root, ProjectModel(), Places("dataflow_project.yml"))


def spec_of(definitions: dg.Definitions, *key: str) -> dg.AssetSpec:
    """The spec of an asset."""
    return next(spec for spec in definitions.resolve_all_asset_specs() if list(spec.key.path) == list(key))


def test_an_asset_carries_what_the_plan_knows(tmp_path: Path) -> None:
    plan = pipeline(
        "orders",
        windows=DAYS,
        tags=("daily", "tier:gold"),
        owners=("ann@example.com", "team:data", "bob"),
        group="sales",
        description="The orders",
        freshness=FreshnessOptions(fail_after="2d", warn_after="1d"),
    )
    definitions = build_definitions(ProjectPlan("p", (plan,)), project(tmp_path))
    spec = spec_of(definitions, "orders", "s2")
    assert spec.group_name == "sales"
    assert list(spec.owners) == ["ann@example.com", "team:data", "team:bob"]
    assert spec.tags["daily"] == ""
    assert spec.tags["tier"] == "gold"
    assert spec.tags["dataflow/pipeline"] == "orders"
    assert spec.kinds == {"duckdb", "endpoint"}
    assert spec.metadata["dagster/table_name"] == "warehouse.main.orders"
    reference = spec.metadata["dagster/code_references"].code_references[0]
    assert (reference.file_path, reference.line_number) == (str(tmp_path / "pipelines" / "orders.yml"), 5)
    assert spec.freshness_policy is not None
    assert spec_of(definitions, "orders", "s0").freshness_policy is None
    assert spec.code_version == "f"
    assert isinstance(spec.partitions_def, dg.TimeWindowPartitionsDefinition)


def test_one_op_runs_a_pipeline_and_can_run_a_part_of_it() -> None:
    definitions = build_definitions(
        ProjectPlan("p", (pipeline("orders", windows=DAYS, pools=(PoolPlan("connection/warehouse"), PoolPlan("connection/shop", 9))),)),
        project(),
    )
    (assets,) = [item for item in definitions.assets or [] if isinstance(item, dg.AssetsDefinition)]
    assert assets.can_subset
    assert len(list(assets.keys)) == 3
    assert {spec.name for spec in assets.check_specs} == {"c0"}
    assert len(list(assets.check_specs)) == 3
    assert assets.backfill_policy == dg.BackfillPolicy.single_run()
    assert assets.op.pool == "connection/warehouse"


def test_edges_between_pipelines_map_their_windows() -> None:
    hourly = pipeline("hourly", windows=HOURS)
    daily = pipeline("daily", windows=DAYS)
    whole = pipeline("whole", upstream=("daily",))
    reader = replace(daily.steps[0], reads=(("hourly", "s2"), ("lake", "clicks")))
    daily = replace(daily, steps=(reader, *daily.steps[1:]), upstream=("hourly",))
    definitions = build_definitions(ProjectPlan("p", (hourly, daily, whole), (("lake", "clicks"),)), project())
    graph = definitions.resolve_asset_graph()
    assert graph.get(dg.AssetKey(["daily", "s0"])).parent_keys == {dg.AssetKey(["hourly", "s2"]), dg.AssetKey(["lake", "clicks"])}
    assert graph.get(dg.AssetKey(["whole", "s0"])).parent_keys == {dg.AssetKey(["daily", "s2"])}
    assert not graph.get(dg.AssetKey(["lake", "clicks"])).is_executable
    mapping = graph.get_partition_mapping(dg.AssetKey(["daily", "s0"]), dg.AssetKey(["hourly", "s2"]))
    assert isinstance(mapping, dg.TimeWindowPartitionMapping)
    definitions.get_repository_def().load_all_definitions()


def test_in_process_unless_the_project_says_otherwise() -> None:
    plan = ProjectPlan("p", (pipeline("orders"),))
    assert build_definitions(plan, project()).executor is dg.in_process_executor
    other = replace(project(), model=ProjectModel(executor="multiprocess"))
    assert build_definitions(plan, other).executor is dg.multiprocess_executor


# -- broken pipelines


BROKEN = Broken("orders", "pipelines/orders.yml", (Problem(Place("pipelines/orders.yml", 7, 3), "no such step 'raed'"),))


def test_a_broken_pipeline_becomes_a_placeholder_with_a_failing_check(instance: dg.DagsterInstance) -> None:
    definitions = build_definitions(ProjectPlan("p", (pipeline("good"),)), project(), failures=[BROKEN, BROKEN])
    keys = {"/".join(spec.key.path) for spec in definitions.resolve_all_asset_specs()}
    assert {"good/s0", "_load_errors/orders", "_load_errors/orders_2"} <= keys
    checks = dg.define_asset_job("checks", selection=dg.AssetSelection.checks_for_assets(dg.AssetKey(["_load_errors", "orders"])))
    job = dg.Definitions.merge(definitions, dg.Definitions(jobs=[checks])).resolve_job_def("checks")
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    (evaluation,) = result.get_asset_check_evaluations()
    assert not evaluation.passed
    assert evaluation.description == "pipelines/orders.yml:7:3: no such step 'raed'"
    assert not result.success


def test_what_dagster_refuses_becomes_a_placeholder_too() -> None:
    bad = pipeline("bad", freshness=FreshnessOptions(fail_after="1s"))
    definitions = build_definitions(ProjectPlan("p", (bad, pipeline("good"))), project())
    spec = spec_of(definitions, "_load_errors", "bad")
    assert "pipelines/bad.yml:1:1" in str(spec.description)
    assert "freshness" in str(spec.description)
    assert spec_of(definitions, "good", "s0")


def test_validation_raises_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VALIDATING, "1")
    with pytest.raises(PlanError, match=r"pipelines/orders\.yml:7:3: no such step"):
        build_definitions(ProjectPlan("p", ()), project(), failures=[BROKEN])


def test_hostile_names_are_made_legal() -> None:
    plan = pipeline("web-shop", tags=("a b", "x/y/z", "déjà", "k:v w"), group="No Group!", owners=("Ann Lee",))
    spec = spec_of(build_definitions(ProjectPlan("p", (plan,)), project()), "web-shop", "s0")
    assert spec.group_name == "No_Group_"
    assert list(spec.owners) == ["team:Ann Lee"]
    assert spec.tags["k"] == "v_w"


def test_the_example_of_the_shop_loads(tmp_path: Path) -> None:
    definitions = shop.definitions(shop.write_shop(tmp_path / "shop"))
    definitions.get_repository_def().load_all_definitions()
    assert {job.name for job in definitions.jobs or []} == {"orders", "report"}


# -- cost


def _bare(count: int, *, steps: int, checks: int) -> Iterator[object]:
    for number in range(count):
        name = f"p{number}"
        specs = [dg.AssetSpec([name, f"s{step}"], deps=[dg.AssetKey([name, f"s{step - 1}"])] if step else []) for step in range(steps)]
        rules = [dg.AssetCheckSpec(f"c{check}", asset=[name, f"s{step}"]) for step in range(steps) for check in range(checks)]

        @dg.multi_asset(name=f"{name}__steps", specs=specs, check_specs=rules, can_subset=True)
        def nothing():  # type: ignore[no-untyped-def]
            yield

        yield nothing
        yield dg.define_asset_job(name, selection=dg.AssetSelection.assets(*(spec.key for spec in specs)))


def _load(definitions: dg.Definitions) -> None:
    definitions.get_repository_def().get_all_jobs()


def test_loading_costs_about_what_dagsters_own_objects_cost() -> None:
    """In calls of functions, which no slow machine changes."""
    count, steps, checks = 30, 5, 3
    plan = ProjectPlan("p", tuple(pipeline(f"p{number}", steps=steps, checks=checks, windows=DAYS) for number in range(count)))

    def bare() -> None:
        items = list(_bare(count, steps=steps, checks=checks))
        _load(
            dg.Definitions(
                assets=[item for item in items if isinstance(item, dg.AssetsDefinition)],
                jobs=[item for item in items if not isinstance(item, dg.AssetsDefinition)],  # type: ignore[misc]
            )
        )

    def ours() -> None:
        _load(build_definitions(plan, project()))

    bare(), ours()  # whatever is loaded once
    assert calls(ours) < 2.5 * calls(bare)


def test_freshness_is_in_the_policy() -> None:
    plan = pipeline("orders", freshness=FreshnessOptions(fail_after="36h"))
    policy = spec_of(build_definitions(ProjectPlan("p", (plan,)), project()), "orders", "s2").freshness_policy
    assert policy == dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=36))
