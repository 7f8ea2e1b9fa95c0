"""The tables that SQL reads, and addresses that compare."""

from pathlib import Path

import pytest

from dataflow_assets.plan.lineage import TableRef, _guessed, _relative, _system, tables_in

CASES = [
    ("select 1", []),
    ("select * from orders", [(None, "orders")]),
    ('select * from "Raw"."My Orders" o', [("Raw", "My Orders")]),
    ("select * from a, b join s.c on true left join d using (x)", [(None, "a"), (None, "b"), ("s", "c"), (None, "d")]),
    ("with x as (select * from a), y as (select * from x) select * from y", [(None, "a")]),
    ("with a as (select * from a) select * from a", [(None, "a")]),
    ("with recursive t as (select 1 union all select n + 1 from t) select * from t", []),
    ("with x as (select * from a) select * from s.x", [(None, "a"), ("s", "x")]),
    ("select * from a where id in (select id from b) union all select * from c", [(None, "a"), (None, "b"), (None, "c")]),
    ("select * from (with z as (select * from q) select * from z) s join z on true", [(None, "q"), (None, "z")]),
    ("select * from generate_series(1, 3)", []),
    ("select * from a where at >= {{ window.start }} and b = '{{ var(\"x\") }}' limit {{ n }}", [(None, "a")]),
    ("select * from {{ var('schema') }}.orders join ${SCHEMA}.b on true", []),
    ("{% if x %} select * from a {% else %} select * from b {% endif %}", [(None, "a"), (None, "b")]),
    ("select * from a {# from c #} -- from d\n", [(None, "a")]),
    ("select 'from x' as y, extract(year from at) from a", [(None, "a")]),
]


@pytest.mark.parametrize(("sql", "tables"), CASES)
def test_tables_in_sql(sql: str, tables: list[tuple[str | None, str]]) -> None:
    assert sorted(tables_in(sql, "postgres"), key=str) == sorted(tables, key=str)


def test_duckdb_tables() -> None:
    assert tables_in("from events select count(*) where at > now() - interval 1 day", "duckdb") == ((None, "events"),)


@pytest.mark.parametrize("sql", ["select ((( from a", "selec * frm", "", "from"])
def test_sql_that_cannot_be_read_is_no_error(sql: str) -> None:
    tables_in(sql, "postgres")


def test_the_guess_finds_what_is_plain() -> None:
    text = 'WITH x AS (SELECT * FROM s.a), y as materialized (select 1) SELECT *** FROM x JOIN y /* from no */ join "B"."c d" from f(1)'
    assert _guessed(text) == [("s", "a"), ("B", "c d")]


def test_systems_are_told_apart_by_where_and_not_by_who() -> None:
    block = {"type": "postgres", "host": "h", "user": "a", "password": "x"}
    assert _system("postgres", block) == _system("postgres", {**block, "user": "b", "password": "y"})
    assert _system("postgres", block) != _system("postgres", {**block, "host": "i"})
    assert _system("postgres", {"dsn": "postgresql://a:b@h/d"}) == _system("postgres", {"dsn": "postgresql://c:d@h/d"})
    assert "x" not in _system("p", {"password": "x"}).removeprefix("p")


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a/b.csv", "a/b.csv"), ("./a/../b.csv", "b.csv"), ("/project/x.csv", "x.csv"), ("../x.csv", "/x.csv"), ("s3://b/./x", "s3://b/./x")],
)
def test_paths_are_relative_to_the_project(path: str, expected: str) -> None:
    assert _relative(path, Path("/project")) == expected


@pytest.mark.parametrize(
    ("read", "written", "expected"),
    [
        ("out/a.csv", "out/a.csv", True),
        ("out/*.csv", "out/a.csv", True),
        ("out/*.csv", "out/a.json", False),
        ("out/events/*.parquet", "out/events", True),
        ("out/eventsx", "out/events", False),
    ],
)
def test_reading_files_that_were_written(read: str, written: str, expected: bool) -> None:
    assert TableRef("", "c", None, read, True).is_read_from(TableRef("", "c", None, written, True)) is expected
