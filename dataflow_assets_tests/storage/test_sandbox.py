"""SQL of users in its sandbox: what it can see, and everything it must not reach."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataflow_assets.errors import TransformFailed
from dataflow_assets.storage.sandbox import open_sandbox
from dataflow_assets.tables import Bind, Query
from dataflow_assets_tests.staged import staged

in_python = pa.table({"secret": [1]})


def run(text: str, folder: Path, rows: pa.Table | None = None) -> pa.Table:
    stage = staged(pa.table({"a": [1, 2, 3]}) if rows is None else rows, folder)
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    with open_sandbox({"rows": stage}, scratch=scratch, step="s") as sandbox:
        found = sandbox.select(Query.of(text)).read_all()
    assert not list(scratch.iterdir())
    return found


@pytest.mark.parametrize(
    "text",
    [
        "select * from '{other}'",
        "select * from read_parquet('{other}')",
        "select * from read_parquet('{folder}/rows/../other.parquet')",
        "select * from read_csv('{folder}/*.csv')",
        "select * from read_text('/etc/passwd')",
        "select * from read_blob('/etc/*')",
        "select * from glob('/etc/*')",
        "select * from glob('{folder}/*')",
        "select * from sniff_csv('/etc/passwd')",
        "select * from read_json('/etc/passwd')",
        "select * from read_parquet('https://example.com/x.parquet')",
        "select * from in_python",
        "select * from query('select * from read_text(''/etc/passwd'')')",
        "select getenv('HOME')",
        "select * from query_table('{other}')",
    ],
)
def test_it_reads_nothing_but_its_inputs(text: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"secret": [1]}), tmp_path / "other.parquet")
    with pytest.raises(TransformFailed, match="DuckDB refused the SQL"):
        run(text.format(other=tmp_path / "other.parquet", folder=tmp_path), tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "attach '{folder}/x.duckdb'",
        "copy (select 1) to '{folder}/x.csv'",
        "copy rows to '{part}' (format parquet)",
        "export database '{folder}/x'",
        "import database '{folder}/x'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "set lock_configuration = false",
        "reset threads",
        "set variable x = 1",
        "pragma enable_profiling",
        "create table t as select 1",
        "create or replace view rows as select 1",
        "drop view rows",
        "insert into rows values (1)",
        "delete from rows",
        "call range(3)",
        "explain analyze select 1",
        "detach memory",
        "checkpoint",
        "create persistent secret (type s3)",
        "select 1; select 2",
        "select 1; drop view rows",
        "-- nothing",
        "",
    ],
)
def test_it_is_one_select_and_writes_nothing(text: str, tmp_path: Path) -> None:
    stage = staged(pa.table({"a": [1]}), tmp_path)
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    content = Path(stage.paths[0]).read_bytes()
    with open_sandbox({"rows": stage}, scratch=tmp_path, step="s") as sandbox, pytest.raises(TransformFailed):
        sandbox.select(Query.of(text.format(folder=tmp_path, part=stage.paths[0]))).read_all()
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before
    assert Path(stage.paths[0]).read_bytes() == content


@pytest.mark.parametrize(
    "text",
    [
        "select * from rows",
        "from rows",
        "with x as (select * from input) select * from x;",
        "values (1), (2), (3)",
        "select * from (pivot rows on a in (1, 2, 3) using count(*)) union all by name select * from range(2)",
        "select unnest([1, 2, 3])",
        "select a from rows order by a -- the end",
    ],
)
def test_every_way_to_write_a_select(text: str, tmp_path: Path) -> None:
    assert run(text, tmp_path).num_rows == 3


def test_values_are_bound(tmp_path: Path) -> None:
    stage = staged(pa.table({"t": ["x", "'; drop view rows; --", None]}), tmp_path)
    query = Query(("select count(*) as n from rows where t = ", Bind("'; drop view rows; --"), " and ", Bind(1), " = 1"))
    with open_sandbox({"rows": stage}, scratch=tmp_path, step="s") as sandbox:
        assert sandbox.select(query).read_all().to_pylist() == [{"n": 1}]


def test_an_error_says_where_in_the_sql_and_which_tables_there_are(tmp_path: Path) -> None:
    with pytest.raises(TransformFailed, match=r'step s: DuckDB refused the SQL: Binder Error: .*"nope"') as failure:
        run("select a,\n  nope\nfrom rows", tmp_path)
    assert "LINE 2" in str(failure.value)
    assert failure.value.hint == "the tables here are rows, input"
    with pytest.raises(TransformFailed, match="must be one SELECT statement, but it is SELECT and DROP"):
        run("select 1; drop view rows", tmp_path)
    with pytest.raises(TransformFailed, match="two columns of the result are named 'a'"):
        run("select 1 as a, 2 as a", tmp_path)


@pytest.mark.parametrize(
    "value",
    [
        "1::bignum",
        "1::uhugeint",
        "'101'::bit",
        "'10:00:00+01'::timetz",
        "interval 1 day",
        "[{'x': interval 1 day}]",
        "map {'x': 1::uhugeint}",
    ],
)
def test_a_result_that_arrow_would_change_is_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(TransformFailed, match=r"column 'v' has type [A-Z ]+, which has no exact form"):
        run(f"select {value} as v", tmp_path)


def test_an_error_while_rows_are_streamed_is_of_the_family_too(tmp_path: Path) -> None:
    with pytest.raises(TransformFailed, match=r"DuckDB refused the SQL: .*no such day"):
        run("select case when i = 1500000 then error('no such day') else i end from range(2000000) r(i)", tmp_path)


@pytest.mark.parametrize("kind", [pa.duration("us"), pa.decimal256(60, 2), pa.list_(pa.decimal256(60, 2))], ids=str)
def test_an_input_that_duckdb_would_change_is_refused(kind: pa.DataType, tmp_path: Path) -> None:
    stage = staged(pa.table({"x": pa.array([None], kind)}), tmp_path)
    with (
        pytest.raises(TransformFailed, match=r"column 'x' of rows has type .*, which DuckDB would change"),
        open_sandbox({"rows": stage}, scratch=tmp_path, step="s"),
    ):
        pass


def test_inputs_that_sql_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    stage = staged(pa.table({"x": [1]}), tmp_path)
    with (
        pytest.raises(TransformFailed, match="inputs ROWS and rows"),
        open_sandbox({"rows": stage, "ROWS": stage}, scratch=tmp_path, step="s"),
    ):
        pass


def test_hostile_names_of_steps_and_files(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s; "quoted"'
    folder.mkdir()
    stage = staged(pa.table({"x": [1]}), folder)
    with open_sandbox({'a"b; drop': stage, "input": stage}, scratch=folder, step="s") as sandbox:
        assert sandbox.select(Query.of('select i.x from "a""b; drop", "input" as i')).read_all().num_rows == 1
