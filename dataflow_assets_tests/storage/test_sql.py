"""SQL text: identifiers quoted or refused, values kept apart."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_assets.errors import ValueRefused
from dataflow_assets.storage import ledger, sql
from dataflow_assets.tables import Bind, Query, TableName, Target, Unit, WriteMode
from dataflow_assets.windows import Window

SQLITE = sql.Dialect("SQLite", placeholder=lambda position: f"?{position}", instant=lambda moment: moment.isoformat())
WINDOW = Window(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=40))
def test_a_quoted_name_is_that_name(name: str) -> None:
    with sqlite3.connect(":memory:") as connection:
        cursor = connection.execute(f"SELECT 1 AS {SQLITE.quote(name)}")
    connection.close()
    assert cursor.description[0][0] == name


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 64, "é" * 32])
def test_a_name_that_cannot_be_kept_is_refused(name: str) -> None:
    with pytest.raises(ValueRefused):
        sql.Dialect("Postgres", max_identifier_bytes=63).quote(name)


def test_a_name_beyond_the_basic_plane_is_refused_where_it_would_become_a_question_mark() -> None:
    dialect = sql.Dialect("MySQL", quotes=("`", "`"), basic_plane=True)
    assert dialect.quote("\u00e9\uffff`") == "`\u00e9\uffff```"
    with pytest.raises(ValueRefused, match="character"):
        dialect.quote("a\U0001f600")


def test_a_table_with_its_index_in_one_statement() -> None:
    text = sql.create_table(SQLITE, TableName("t"), {"a": "INT", "b": "INT"}, primary_key=["a"], index=["b"], options="ENGINE=InnoDB").text
    assert text == 'CREATE TABLE IF NOT EXISTS "t" ("a" INT, "b" INT, PRIMARY KEY ("a"), INDEX ("b")) ENGINE=InnoDB'


def test_values_stay_out_of_the_text() -> None:
    text, values = sql.derived_table(SQLITE, Query(("SELECT * FROM t WHERE a = ", Bind("x'); --"), " -- end;")))
    assert text == "(\nSELECT * FROM t WHERE a = ?1 -- end\n) AS source_query"
    assert values == ["x'); --"]


def test_the_ledger_serves_another_database_unchanged() -> None:
    """SQLite is no connector here: its ledger needs a dialect value and nothing else."""
    target = Target(TableName("things"), WriteMode.REPLACE_WINDOW, None)
    unit = Unit("p", "s", "2024-01-01", WINDOW)
    connection = sqlite3.connect(":memory:")
    connection.execute(ledger.create_ledger(SQLITE, ledger.ledger_table(target.table)).text)
    for generation in (1, 2):
        claim = ledger.claim_unit(SQLITE, target, unit, attempt=f"attempt {generation}")
        connection.execute(claim.text, claim.values)
        fetch = ledger.fetch_unit(SQLITE, target, unit)
        row = ledger.ledger_row(connection.execute(fetch.text, fetch.values).fetchone())
        assert (row.unit, row.generation, row.attempt, row.entry) == (unit, generation, f"attempt {generation}", None)
    connection.close()


@pytest.mark.parametrize("keys", [["a"], ["a", "b"]])
def test_the_latest_of_equal_keys(keys: list[str]) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (a, b, n)")
    connection.executemany("INSERT INTO t VALUES (?, ?, ?)", [(1, 1, 1), (1, 2, 2), (1, 1, 3), (2, 1, 4)])
    found = connection.execute(f"SELECT n FROM {sql.latest_rows(SQLITE, 't', keys=keys, order='n')} ORDER BY n").fetchall()
    connection.close()
    assert [n for (n,) in found] == ([3, 4] if keys == ["a"] else [2, 3, 4])


def test_the_ledger_serves_a_database_that_merges() -> None:
    import duckdb

    duck = sql.Dialect("DuckDB")
    target = Target(TableName("things", "main"), WriteMode.REPLACE_WINDOW, None)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(ledger.create_ledger(duck, ledger.ledger_table(target.table)).text)
    for unit in (Unit("p", "s", "2024-01-01", WINDOW), Unit("p", "s", "all")):
        for generation in (1, 2, 3):
            claim = ledger.merge_claim(duck, target, unit, attempt=f"attempt {generation}")
            connection.execute(claim.text, list(claim.values))
            fetch = ledger.fetch_unit(duck, target, unit)
            (found,) = connection.execute(fetch.text, list(fetch.values)).fetchall()
            row = ledger.ledger_row(found)
            assert (row.unit, row.generation, row.attempt, row.entry) == (unit, generation, f"attempt {generation}", None)
    connection.close()


@pytest.mark.parametrize(("columns", "expected"), [(["a", "b"], [(1, 9), (2, 5)]), (["a"], [(1, 4), (2, None)])])
def test_rows_are_merged_by_their_keys(columns: list[str], expected: list[tuple[int, int | None]]) -> None:
    import duckdb

    duck, table = sql.Dialect("DuckDB"), TableName("t")
    connection = duckdb.connect()
    connection.execute("CREATE TABLE t AS SELECT 1 AS a, 4 AS b")
    connection.execute(sql.merge_rows(duck, table, columns, "(SELECT * FROM (VALUES (1, 9), (2, 5)) AS v(a, b))", keys=["a"]))
    assert connection.execute("SELECT * FROM t ORDER BY a").fetchall() == expected
    connection.close()
