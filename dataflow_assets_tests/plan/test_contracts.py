"""Contracts at their steps: which step has which check, and what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow_assets.errors import SpecError
from dataflow_assets.plan.build import build_plan, build_plan_tolerant
from dataflow_assets.spec.load import load

SALES = """\
pipeline_name: sales
steps:
  - {id: read, type: source, connection: raw, config: {table: orders}}
  - id: out
    type: endpoint
    connection: mart
    depends_on: [read]
    checks: [{column: id, not_null: true}, {check: row_count, min_rows: 2}]
    config: {table: orders}
"""
ORDERS = """\
contract: orders
dataset: sales/out
owner: team:sales
columns:
  id: {type: bigint, nullable: false, description: the order, unique: true}
  note: varchar(50)
rules:
  - {check: row_count, min_rows: 1}
"""


def write(bench, *contracts: str, **pipelines: str):
    for name, text in {"sales": SALES, **pipelines}.items():
        bench.write(name, text)
    (bench.root / "contracts").mkdir(exist_ok=True)
    for number, text in enumerate(contracts):
        (bench.root / "contracts" / f"c{number}.yml").write_text(text)
    return load(bench.root)


def problems(project) -> list[str]:
    _, broken = build_plan_tolerant(project)
    every = [item for failure in project.failures for item in failure.problems] + [item for found in broken.values() for item in found]
    return [
        f"{Path(item.place.file).name}:{item.place.line}:{item.place.column} {item.message} -> {item.hint}" for item in dict.fromkeys(every)
    ]


def test_the_step_gets_a_check_beside_its_own(bench):
    step = build_plan(write(bench, ORDERS)).by_name["sales"].by_id["out"]
    names = [name for check in step.checks for name in check.names]
    assert names == ["id_not_null", "row_count", "contract", "contract_id_not_null", "id_unique", "note_length", "contract_row_count"]
    assert (step.contract.name, step.contract.version, step.contract.owner) == ("orders", 1, "team:sales")
    assert [(column.name, column.type, column.nullable, column.unique) for column in step.contract.columns] == [
        ("id", "bigint", False, True),
        ("note", "varchar(50)", True, False),
    ]
    assert "bigint" not in step.fingerprint
    assert build_plan(load(bench.root)).by_name["sales"].by_id["read"].contract is None


def test_a_contract_does_not_change_what_is_staged(bench):
    plain = build_plan(bench.project(sales=SALES)).by_name["sales"].by_id["out"].fingerprint
    assert build_plan(write(bench, ORDERS)).by_name["sales"].by_id["out"].fingerprint == plain


@pytest.mark.parametrize(
    ("dataset", "step"),
    [("dataset: sales", "out"), ("dataset: sales.out", "out"), ("dataset: sales/read", "read"), ("table: mart.orders", "out")],
)
def test_how_a_dataset_may_be_named(bench, dataset, step):
    plan = build_plan(write(bench, ORDERS.replace("dataset: sales/out", dataset))).by_name["sales"]
    assert [item.id for item in plan.steps if item.contract] == [step]


def test_the_contract_of_a_source_is_checked_where_it_is_read_whole(bench):
    chosen = SALES.replace("sales", "some").replace("config: {table: orders}}", "config: {table: orders, columns: [note]}}", 1)
    chosen = chosen.replace("{table: orders}\n", "{table: others}\n")
    external = ORDERS.replace("dataset: sales/out", "table: raw.public.orders") + "  - {check: unique, columns: [id, note]}\n"
    plan = build_plan(write(bench, external, some=chosen))
    whole, some = (plan.by_name[name].by_id["read"] for name in ("sales", "some"))
    assert [name for check in whole.checks for name in check.names][:2] == ["contract", "id_not_null"]
    assert [name for check in some.checks for name in check.names] == ["contract", "note_length", "row_count"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("sales/out", "slaes/out", "c0.yml:2:10 contract 'orders': there is no dataset 'slaes/out' -> did you mean 'sales'?"),
        ("sales/out", "sales/uot", "c0.yml:2:10 contract 'orders': pipeline 'sales' has no step 'uot' -> did you mean 'out'?"),
        ("dataset: sales/out", "table: mrt.orders", "c0.yml:2:8 contract 'orders': 'mrt.orders' begins with no connection of the project"),
        ("team:sales", "the sales team", "c0.yml:3:8 contract 'orders': 'the sales team' is not an owner"),
        ("bigint", "bigitn", "c0.yml:5:14 'bigitn' is not a column type: did you mean 'bigint'?"),
        ("nullable", "nulable", "c0.yml:5:31 contract 'orders': unknown key 'nulable' -> did you mean 'nullable'?"),
        ("unique: true", "uniqe: true", "c0.yml:5:70 contract 'orders': unknown key 'uniqe' -> did you mean 'unique'?"),
        ("unique: true", "regex: '('", "c0.yml:5:70 contract 'orders': regex: '(' is not a regular expression"),
        ("min_rows: 1", "min_rows: many", "c0.yml:8:34 contract 'orders': min_rows: Input should be a valid integer"),
        ("min_rows: 1", "min_rows: '{{ var(1) }}'", "c0.yml:8:5 contract 'orders': templates are not rendered in a contract"),
        ("owner", "ower", "c0.yml:3:1 unknown key 'ower' in a contract -> did you mean 'owner'?"),
        ("dataset: sales/out\n", "", "c0.yml:1:1 a contract is about one dataset"),
        ("contract: orders", "contract: a/b", "c0.yml:1:11 'a/b' is not the name of a contract"),
        ("contract: orders", "contract: orders\nversion: 0", "c0.yml:2:10"),
        (
            "contract: orders",
            "contract: orders\nmode: srict",
            "c0.yml:2:7 'srict' is none of 'strict' or 'lenient' -> did you mean 'strict'?",
        ),
    ],
)
def test_refusals(bench, old, new, expected):
    assert old in ORDERS
    found = problems(write(bench, ORDERS.replace(old, new, 1)))
    assert any(line.startswith(expected) for line in found), found


def test_a_pipeline_of_two_endpoints_needs_the_step(bench):
    two = SALES + "  - {id: copy, type: endpoint, connection: mart, depends_on: [read], config: {table: others}}\n"
    (found,) = problems(write(bench, ORDERS.replace("sales/out", "sales"), sales=two))
    assert "pipeline 'sales' has 2 endpoints -> write dataset: sales/" in found


def test_two_contracts_of_one_name_or_one_dataset(bench):
    found = problems(write(bench, ORDERS, ORDERS))
    assert len(found) == 2
    assert all("the contract name 'orders' is also used at" in line for line in found)
    (found,) = problems(write(bench, ORDERS, ORDERS.replace("contract: orders", "contract: others").replace("sales/out", "sales")))
    assert "is about the dataset of contract 'orders'" in found


def test_nothing_is_published_past_a_contract_that_cannot_be_read(bench):
    other = SALES.replace("sales", "other").replace("{table: orders}\n", "{table: others}\n")
    plan, broken = build_plan_tolerant(write(bench, ORDERS + "columns: {}\n  bad: [\n", other=other))
    assert [pipeline.name for pipeline in plan.pipelines] == ["other"]
    assert set(broken) == {"sales"}
    plan, broken = build_plan_tolerant(write(bench, ORDERS.replace("bigint", "bigitn"), other=other))
    assert set(broken) == {"sales"}
    assert [pipeline.name for pipeline in plan.pipelines] == ["other"]


def test_the_contract_of_a_disabled_pipeline_waits(bench):
    assert problems(write(bench, ORDERS, sales=SALES.replace("steps:", "enabled: false\nsteps:", 1))) == []


def test_contracts_may_lie_elsewhere(bench):
    project = write(bench, ORDERS)
    (bench.root / "contracts").rename(bench.root / "pipelines" / "promises")
    (bench.root / "dataflow_project.yml").write_text(
        (bench.root / "dataflow_project.yml").read_text() + "contracts_dir: pipelines/promises\n"
    )
    moved = load(bench.root)
    assert not moved.failures
    assert [contract.model for contract in moved.contracts] == [contract.model for contract in project.contracts]


def test_pipelines_and_contracts_may_not_share_a_folder(bench):
    file = bench.root / "dataflow_project.yml"
    text = file.read_text()
    for folder in ("pipelines", "."):
        file.write_text(f"{text}contracts_dir: {folder}\n")
        with pytest.raises(SpecError, match="lies in that of the contracts"):
            load(bench.root)
