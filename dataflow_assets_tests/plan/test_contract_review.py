"""What `validate` says of contracts: who is broken by a change, with file and line, and who does not keep or know a contract."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dataflow_assets.plan.contract_review import Review, review
from dataflow_assets.spec.contract_files import read_accepted, write_accepted
from dataflow_assets.spec.contracts import ContractModel
from dataflow_assets.spec.load import load

CONTRACT = """\
contract: orders
dataset: sales/out
mode: strict
columns: {id: bigint, amount: "decimal(18,2)", note: text, at: timestamptz}
"""
PIPELINES = {
    "sales": """\
pipeline_name: sales
steps:
  - {id: read, type: source, connection: raw, config: {table: orders}}
  - {id: out, type: endpoint, connection: mart, depends_on: [read], config: {table: orders}}
""",
    "report": """\
pipeline_name: report
steps:
  - id: read
    type: source
    connection: mart
    config:
      query: |
        with recent as (
          select o.id, o.amount, o.note from public.orders as o where o.at > now()
        )
        select id, amount * 2 as double_amount, upper("note") as loud
        from recent
  - {id: out, type: endpoint, connection: mart, depends_on: [read], config: {table: report, schema: {id: int}}}
""",
    "board": """\
pipeline_name: board
steps:
  - {id: read, type: source, connection: mart, config: {table: report}}
  - id: top
    type: transform
    kind: sql
    depends_on: [read]
    checks: [{column: top, min_value: 0}]
    config: {query: "select max(double_amount) as top from read"}
  - {id: out, type: endpoint, connection: mart, depends_on: [top], config: {table: board}}
""",
    "model": """\
pipeline_name: model
steps:
  - {id: all, type: source, connection: mart, config: {query: select * from orders}}
  - {id: fit, type: transform, kind: python, depends_on: [all], config: {function: "m:f"}}
  - {id: out, type: endpoint, connection: mart, depends_on: [fit], config: {table: scores}}
""",
    "stranger": """\
pipeline_name: stranger
steps:
  - {id: read, type: source, connection: mart, config: {query: select k from elsewhere}}
  - {id: out, type: endpoint, connection: mart, depends_on: [read], config: {table: strange}}
""",
}


class Shop:
    """A project with a contract, its accepted version and those who read it."""

    def __init__(self, bench) -> None:
        self.root: Path = bench.root
        for name, text in PIPELINES.items():
            bench.write(name, text)
        self.bench = bench
        (bench.root / "contracts").mkdir()
        self.contract(CONTRACT)
        self.accept()

    def contract(self, text: str, name: str = "orders") -> None:
        (self.root / "contracts" / f"{name}.yml").write_text(text)

    def accept(self) -> None:
        for contract in load(self.root).contracts:
            write_accepted(self.root / "contracts", contract.model)

    def found(self) -> list[str]:
        """Each problem as `file:line:column message`, places within messages shortened too."""
        found = [problem for problems in review(load(self.root)).problems.values() for problem in problems]
        return [str(item).replace(f"{self.root}/pipelines/", "").replace(f"{self.root}/contracts/", "") for item in found]

    def notes(self) -> list[str]:
        return [note.replace(f"{self.root}/pipelines/", "") for note in review(load(self.root)).notes]

    def victims(self, text: str) -> list[str]:
        """The steps that the only breaking change breaks."""
        self.contract(text)
        (problem,) = self.found()
        return [line.strip() for line in problem.splitlines() if line.startswith("    ")]


@pytest.fixture
def shop(bench):
    return Shop(bench)


def test_nothing_is_said_of_contracts_that_are_kept(shop):
    assert shop.found() == []
    assert shop.notes() == []


def test_a_removed_column_names_every_step_that_it_breaks(shop):
    assert shop.victims(CONTRACT.replace('amount: "decimal(18,2)", ', "")) == [
        "breaks model.all (model.yml:3:63) takes every column",
        "breaks report.read (report.yml:9:26) names it",
        "breaks report.out (report.yml:13:5) publishes it as 'double_amount' of mart.public.report",
        "breaks board.read (board.yml:3:56) takes every column",
        "breaks board.top (board.yml:9:33) names it",
        "breaks board.out (board.yml:10:5) publishes it as 'top' of mart.public.board",
        "may break model.fit (model.yml:4:5) may use it (python)",
        "may break model.out (model.yml:5:5) may publish it",
    ]
    assert "breaking change of contract 'orders': column 'amount' (decimal(18,2)) is removed" in shop.found()[0]
    assert "raise version to 2" in shop.found()[0]


def test_a_filter_and_a_quoted_column_count_as_uses(shop):
    assert "breaks report.read (report.yml:9:73) names it" in shop.victims(CONTRACT.replace(", at: timestamptz", ""))
    assert "breaks report.read (report.yml:9:36) names it" in shop.victims(CONTRACT.replace(", note: text", ""))


def test_a_higher_version_alone_is_not_enough(shop):
    shop.contract(CONTRACT.replace(", note: text", "").replace("mode", "version: 2\nmode"))
    assert "dataflow contract accept orders" in shop.found()[0]
    assert "raise version" not in shop.found()[0]
    shop.accept()
    lines = shop.found()
    assert len(lines) == 1
    assert lines[0].startswith("report.yml:9:36: step report.read names 'note', which contract 'orders' does not have")
    shop.contract(CONTRACT)
    assert any("has version 1, accepted is 2" in line for line in shop.found())


def test_compatible_changes_are_said(shop):
    shop.contract(CONTRACT.replace("note: text", "note: {type: text, nullable: false}, more: int"))
    assert shop.found() == []
    assert shop.notes() == [
        "contract orders: column 'note' may no longer hold nulls; asks more of the pipeline that makes it",
        "contract orders: column 'more' (int) is added; asks more of the pipeline that makes it",
    ]


def test_a_wider_type_breaks_only_those_who_declare_a_narrower_one(shop):
    shop.bench.write(
        "report",
        PIPELINES["report"]
        .replace("schema: {id: int}", "schema: {amount: 'decimal(18,2)'}")
        .replace("amount * 2 as double_amount", "amount"),
    )
    shop.bench.write("board", PIPELINES["board"].replace("double_amount", "amount"))
    shop.contract(CONTRACT.replace("decimal(18,2)", "decimal(20,2)"))
    assert shop.found() == [], shop.found()[0]  # through a CTE it cannot be told
    assert "column 'amount' is widened from decimal(18,2) to decimal(20,2); breaks nobody" in shop.notes()[0]
    direct = PIPELINES["model"].replace("select * from orders", "select amount from orders").replace("kind: python", "kind: sql")
    direct = direct.replace('{function: "m:f"}', '{query: "select * from input"}').replace(
        "{table: scores}", "{table: scores, schema: {amount: 'decimal(18,2)'}}"
    )
    shop.bench.write("model", direct)
    assert any("may break model.out (model.yml:5:" in line and "declares it decimal(18,2)" in line for line in shop.found())


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("select amuont from orders", "names 'amuont', which contract 'orders' does not have"),
        ("select o.amuont from orders o join other x on x.k = o.id", "names 'amuont', which contract 'orders' does not have"),
        ("select id from orders where amuont > 1 order by id", "names 'amuont', which contract 'orders' does not have"),
        ("select amount as total from orders order by total", ""),
        ("select AMOUNT, Id from ORDERS", ""),
        ("select amuont from orders, other", ""),
        ("with orders as (select 1 as amuont) select amuont from orders", ""),
        ("select (select max(y.z) from y where y.k = amuont) from orders", ""),
        ("select x.amuont from other x", ""),
        ("select {{ var('c') }} from orders", ""),
        ("select this is no sql from orders (", ""),
    ],
)
def test_a_column_that_the_contract_does_not_have_is_an_error_at_its_place(shop, query, expected):
    shop.bench.write("stranger", PIPELINES["stranger"].replace("select k from elsewhere", json.dumps(query)))
    found = [line for line in shop.found() if "stranger.read" in line]
    assert len(found) == bool(expected), found
    if expected:
        column = PIPELINES["stranger"].splitlines()[2].index("select k") + 2 + query.index("amuont")
        assert found[0].startswith(f"stranger.yml:3:{column}: step stranger.read {expected}")
        assert "did you mean 'amount'?" in found[0]


def test_columns_chosen_of_a_table_are_looked_at_too(shop):
    shop.bench.write("stranger", PIPELINES["stranger"].replace("query: select k from elsewhere", "table: orders, columns: [id, nte]"))
    (found,) = shop.found()
    assert found.startswith("stranger.yml:3:86: step stranger.read names 'nte'")
    assert "did you mean 'note'?" in found


def test_beyond_a_lenient_contract_a_column_is_said_unless_it_cannot_be_there(shop):
    shop.contract(CONTRACT.replace("mode: strict\n", ""))
    shop.accept()
    shop.bench.write("stranger", PIPELINES["stranger"].replace("k from elsewhere", "amuont from orders"))
    assert shop.found() == []
    assert shop.notes() == [
        "stranger.yml:3:71: step stranger.read names 'amuont', which contract 'orders' does not promise; did you mean 'amount'?"
    ]
    known = PIPELINES["sales"].replace("{table: orders}}", "{table: orders, columns: [id, amount, note, at, extra]}}", 1)
    shop.bench.write("sales", known)
    assert [line.split(":")[0] for line in shop.found()] == ["stranger.yml"]
    shop.bench.write("stranger", PIPELINES["stranger"].replace("k from elsewhere", "extra from orders"))
    assert shop.found() == []


def test_a_step_that_cannot_keep_its_contract_is_found(shop):
    query = "select cast(id as text) as id, amount as amonut, note, at, 1 as more from raw_orders"
    shop.bench.write("sales", PIPELINES["sales"].replace("{table: orders}}", f"{{query: {json.dumps(query)}}}}}", 1))
    lines = [line.splitlines()[0] for line in shop.found()]
    assert lines == [
        "sales.yml:4:5: step sales.out does not make 'amount', which contract 'orders' promises (orders.yml:4:31)",
        "sales.yml:4:5: step sales.out makes 'amonut', 'more', which contract 'orders' (strict) does not have",
        "sales.yml:4:5: step sales.out makes 'id' text, contract 'orders' promises bigint (orders.yml:4:15)",
    ]
    assert "did you mean 'amonut'?" in shop.found()[0]


def test_a_contract_below_another_is_held_to_its_types(shop):
    shop.bench.write(
        "model", PIPELINES["model"].replace("kind: python", "kind: sql").replace('{function: "m:f"}', '{query: "select id, at from input"}')
    )
    shop.contract("contract: scores\ndataset: model\ncolumns: {id: int, at: timestamptz}\n", "scores")
    (found,) = shop.found()
    assert "step model.out makes 'id' bigint, contract 'scores' promises int" in found


def test_the_endpoint_s_own_schema_is_held_to_the_contract(shop):
    shop.bench.write(
        "sales",
        PIPELINES["sales"]
        .replace("config: {table: orders}}\n", "config: {table: orders, schema: {id: text}}}\n")
        .replace("raw, config: {table: orders, schema: {id: text}}}", "raw, config: {table: orders}}"),
    )
    (found,) = shop.found()
    assert found.startswith("sales.yml:4:")
    assert "makes 'id' text" in found


def test_an_external_table_has_readers_and_no_maker(shop):
    shop.contract("contract: outside\ntable: mart.elsewhere\nmode: strict\ncolumns: {k: int, j: int}\n", "outside")
    shop.accept()
    assert shop.found() == []
    shop.contract("contract: outside\ntable: mart.elsewhere\nmode: strict\ncolumns: {j: int}\n", "outside")
    (found,) = shop.found()
    assert "column 'k' (int) is removed" in found
    assert "breaks stranger.read (stranger.yml:3:71) names it" in found


def test_a_contract_that_is_gone_is_a_promise_withdrawn(shop):
    (shop.root / "contracts" / "orders.yml").unlink()
    (found,) = shop.found()
    assert "contract 'orders' is accepted, but no file in contracts has it any more" in found


def test_rubbish_in_an_accepted_file_is_a_problem_of_its_own(shop):
    file = shop.root / "contracts" / "accepted" / "orders.json"
    for text in ("", "<<<<<<< ours\n{}", "[1]", '{"contract": "orders", "columns": 3}', "\x00", "[" * 10_000):
        file.write_text(text)
        assert ["cannot be read" in line for line in shop.found()] == [True], text
    assert read_accepted(shop.root / "nowhere").problems == ()


def test_accepting_twice_writes_the_same_file(shop):
    file = shop.root / "contracts" / "accepted" / "orders.json"
    before = file.read_bytes()
    shop.accept()
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["orders.json"]
    assert ContractModel.model_validate_json(before) == load(shop.root).contracts[0].model


def test_who_uses_what_without_any_change(shop):
    work = Review(load(shop.root))
    assert {f"{use.pipeline}.{use.step}" for use in work.flows.uses_of("orders", "id")} == {
        "report.read", "report.out", "board.read", "model.all", "model.fit", "model.out",
    }  # fmt: skip
    assert not any(use.sure for use in work.flows.uses_of("orders", "id") if use.step == "fit")


def test_a_project_without_contracts_does_not_load_what_contracts_need(bench):
    bench.write("sales", PIPELINES["stranger"].replace("mart", "db").replace("query: select k from elsewhere", "table: t"))
    (bench.root / "dataflow_project.yml").write_text("connections: {db: {type: duckdb, path: d.duckdb}}\n")
    script = (
        "import sys\nfrom dataflow_assets.cli.app import app\n"
        "try: app(['validate'])\nexcept SystemExit as end: assert not end.code, end.code\n"
        "print([name for name in sys.modules if 'contract' in name or name == 'sqlglot'])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=bench.root, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_declared_column_may_be_wider_than_the_promise(shop):
    endpoint = "config: {table: orders, schema: {id: 'numeric(38,0)', amount: 'decimal(20,2)'}}}\n"
    shop.bench.write(
        "sales", PIPELINES["sales"].replace("depends_on: [read], config: {table: orders}}\n", f"depends_on: [read], {endpoint}")
    )
    assert shop.found() == []
