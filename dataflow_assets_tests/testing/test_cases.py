"""Tests of pipelines: the real steps run, between given rows and a target of their own."""

from __future__ import annotations

import pytest

from dataflow_assets_tests.testing.yard import Yard

GIVEN = """
given:
  orders:
    rows:
      - {id: 2, sold: 2024-01-01 10:00:00Z, item: tea, quantity: 3}
      - {id: 1, sold: 2024-01-01 09:00:00Z, item: mug, quantity: 1}
      - {id: 3, sold: 2024-01-02 09:00:00Z, item: tea, quantity: 1}
  prices:
    csv: |
      item,price
      tea,4.50
      mug,8
"""
HEAD = """
test: priced_orders
pipeline: sales
step: priced
window: 2024-01-01
"""
ROWS = """
    - {id: 1, sold: 2024-01-01 09:00:00Z, item: mug, amount: "8.00"}
    - {id: 2, sold: 2024-01-01 10:00:00Z, item: tea, amount: 13.5}
"""


def test_a_transform_gives_the_rows_of_its_window_in_their_order(yard: Yard) -> None:
    columns = "{id: int64, sold: '', item: string, amount: 'decimal(29,2)'}"
    outcome = yard.outcome(HEAD + GIVEN + f"expect:\n  ordered: true\n  columns: {columns}\n  rows:" + ROWS)
    assert outcome.status == "passed", outcome.text
    assert not (yard.folder / ".dataflow").exists()


def test_the_difference_names_rows_cells_and_types(yard: Yard) -> None:
    outcome = yard.outcome(
        HEAD + GIVEN + "expect:\n  keys: [id]\n  rows:"
        """
    - {id: 1, sold: 2024-01-01 09:00:00Z, item: 8, amount: 8}
    - {id: 2, sold: 2024-01-01 11:00:00+01:00, item: tea, amount: 13.05}
    - {id: 4, sold: 2024-01-01 10:00:00Z, item: tea, amount: null}
"""
    )
    assert outcome.status == "failed"
    assert outcome.place.line == 2
    assert outcome.text.splitlines()[1:] == [
        "  1 row missing, 2 rows changed (expected 3, found 2)",
        "    changed {id: 1}",
        "        item: expected 8 (a whole number), found 'mug' (string)",
        "    changed {id: 2}",
        "        amount: expected 13.05, found 13.50",
        "    missing {id: 4, sold: 2024-01-01T10:00:00Z, item: 'tea', amount: null}",
    ]


def test_several_windows_get_each_their_own_rows(yard: Yard) -> None:
    head = "test: both\npipeline: sales\nstep: priced\nwindow: [2024-01-01, 2024-01-02]\n"
    outcome = yard.outcome(head + GIVEN + "expect: {ordered: true, columns: [id], rows: [{id: 1}, {id: 2}, {id: 3}]}\n")
    assert outcome.status == "passed", outcome.text


def test_a_range_of_windows_gives_an_anomaly_check_its_history(yard: Yard) -> None:
    anomaly = "{anomaly: {metric: row_count, direction: up, min_change: 0.1}}"
    text = (yard.folder / "pipelines/sales.yml").read_text()
    yard.write("pipelines/sales.yml", text.replace("checks: [{column", f"checks: [{anomaly}, {{column"))
    body = """
pipeline: sales
window: {start: 2024-01-01, end: 2024-01-13}
given:
  priced:
    sql: |
      select range as id, timestamptz '2024-01-01 00:00:00Z' + interval (least(range // 10, 11)) day as sold, 'tea' as item, 1.5 as amount
      from range(180)
expect:
"""
    outcome = yard.outcome("test: jump" + body + "  failed_checks: [row_count_anomaly]\n  row_count: 180\n")
    assert outcome.ok, outcome.text


def test_a_column_too_much_and_one_too_few_are_named(yard: Yard) -> None:
    outcome = yard.outcome(HEAD + GIVEN + "expect:\n  - {id: 1, sold: 2024-01-01 09:00:00Z, item: mug, price: 1}\n  - {id: 2}\n")
    assert "column 'price' is expected, but was not found" in outcome.text
    assert "column 'amount' was found, but is not expected" in outcome.text


def test_another_order_is_said_to_be_that(yard: Yard) -> None:
    outcome = yard.outcome(HEAD + GIVEN + "expect:\n  ordered: true\n  columns: [id]\n  rows: [{id: 2}, {id: 1}]\n")
    assert "the same rows in another order: row 1 is {id: 1}, expected {id: 2}" in outcome.text


MERGED = {
    "replace_window": [("2024-01-01", 9), ("2024-01-02", 3)],
    "upsert": [("2024-01-01", 9), ("2024-01-02", 8), ("2024-01-02", 3)],
    "append": [("2024-01-01", 9), ("2024-01-02", 3), ("2024-01-02", 8), ("2024-01-02", 3)],
    "replace": [("2024-01-02", 3)],
}


@pytest.mark.parametrize("mode", MERGED)
def test_the_table_is_merged_as_the_mode_says(yard: Yard, mode: str) -> None:
    yard.sales(mode=mode, keys="[id]" if mode == "upsert" else "[]")
    pipeline = (yard.folder / "pipelines/sales.yml").read_text()
    if mode == "append":  # beside the pipeline's event_time_column the endpoint would replace its window
        yard.write("pipelines/sales.yml", pipeline.replace("event_time_column: sold\n", ""))
    rows = "".join(f"\n    - {{id: {number}, sold: {day}T00:00:00Z, item: tea, amount: {number}}}" for day, number in MERGED[mode])
    outcome = yard.outcome(f"""
test: merged
pipeline: sales
window: 2024-01-02
given:
  priced: [{{id: 3, sold: 2024-01-02T00:00:00Z, item: tea, amount: 3}}]
existing:
  columns: {{amount: "decimal(10,2)"}}
  rows:
    - {{id: 9, sold: 2024-01-01T00:00:00Z, item: tea, amount: 9}}
    - {{id: 3, sold: 2024-01-02T00:00:00Z, item: tea, amount: 3}}
    - {{id: 8, sold: 2024-01-02T00:00:00Z, item: tea, amount: 8}}
expect:
  rows: {rows}
""")
    assert outcome.status == "passed", outcome.text


def test_a_failed_check_is_expected_and_the_target_is_as_it_was(yard: Yard) -> None:
    body = """
pipeline: sales
window: 2024-01-01
given:
  priced: [{id: 1, sold: 2024-01-01 09:00:00Z, item: tea, amount: -1.5}]
existing: [{id: 7, sold: 2024-01-01 08:00:00Z, item: mug, amount: 1.5}]
expect:
"""
    old = "\n  rows: [{id: 7, sold: 2024-01-01 08:00:00Z, item: mug, amount: 1.5}]\n"
    outcomes = yard.outcomes(
        "test: refused" + body + "  failed_checks: [amount_range]" + old,
        "test: said" + body + "  error: Data validation failed" + old,
        "test: not_foreseen" + body + "  row_count: 1\n",
        "test: other_error" + body + "  error: no such table\n",
        "test: no_failure" + body + "  failed_checks: []\n",
    )
    assert {name: outcome.status for name, outcome in outcomes.items()} == {
        "refused": "passed",
        "said": "passed",
        "not_foreseen": "failed",
        "other_error": "failed",
        "no_failure": "failed",
    }
    assert "      {id: 1, sold: '2024-01-01 09:00:00.000000Z', item: 'tea', amount: -1.5}" in outcomes["not_foreseen"].text.splitlines()
    assert "'no such table' was expected, and it was: sales.priced: Data validation failed" in outcomes["other_error"].text


def test_rows_come_from_csv_sql_and_parquet_and_words_from_vars_and_now(yard: Yard) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    yard.write("tests/rows/orders.csv", "id;at;code\n1;2024-01-01T09:00:00Z;007\n2;2024-01-01T10:00:00Z;NA\n")
    pq.write_table(pa.table({"code": ["007"], "name": ["Bond"]}), yard.folder / "tests/rows/names.parquet")
    yard.write(
        "pipelines/agents.yml",
        """
        steps:
          - {id: codes, type: source, source_type: csv, config: {file_path: "{{ env_var('NOWHERE') }}", delimiter: ";", null_values: [NA]}}
          - {id: names, type: source, source_type: parquet, config: {file_path: n.parquet}}
          - {id: ages, type: source, source_type: json, config: {file_path: n.json}}
          - id: joined
            type: transform
            kind: sql
            depends_on: [codes, names, ages]
            config:
              query: |
                select code, name, age, {{ greeting }} || '!' as greeting, {{ today() | as_date }} as today
                from codes left join names using (code) left join ages using (code)
          - {id: file, type: endpoint, endpoint_type: json, depends_on: [joined], config: {file_path: out.json}}
        """,
    )
    outcome = yard.outcome("""
test: agents
pipeline: agents
vars: {greeting: hello}
now: 2024-05-06T07:00:00Z
given:
  codes: {csv: rows/orders.csv}
  names: {parquet: rows/names.parquet}
  ages: {sql: "select '007' as code, 35 as age"}
expect:
  csv: |
    code,name,age,greeting,today
    007,Bond,35,hello!,2024-05-06
    ,,,hello!,2024-05-06
""")
    assert outcome.status == "passed", outcome.text


def test_what_the_code_prints_is_shown_when_it_fails_and_its_error_has_its_line(yard: Yard) -> None:
    code = "import sys\ndef f(df):\n    print('seen', len(df))\n    return sys.exit(3) if len(df) > 2 else df[df.id > 1 / (len(df) - 1)]\n"
    yard.write("code.py", code)
    yard.write(
        "pipelines/python.yml",
        """
        steps:
          - {id: read, type: source, source_type: csv, config: {file_path: a.csv}}
          - {id: called, type: transform, kind: python, depends_on: [read], config: {file: code.py, function: f}}
          - {id: file, type: endpoint, endpoint_type: csv, depends_on: [called], config: {file_path: b.csv}}
        """,
    )
    head = "pipeline: python\nstep: called\n"
    outcomes = yard.outcomes(
        "test: raises\n" + head + "given: {read: [{id: 1}]}\nexpect: []\nproperties: [permute]\n",
        "test: works\n" + head + "given: {read: [{id: 1}, {id: 2}]}\nexpect: [{id: 2}]\n",
        "test: fails\n" + head + "given: {read: [{id: 1}, {id: 2}]}\nexpect: []\n",
        "test: leaves\n" + head + "given: {read: [{id: 1}, {id: 2}, {id: 3}]}\nexpect: []\n",
    )
    assert [outcome.status for outcome in outcomes.values()] == ["failed", "skipped", "passed", "failed", "error"]
    assert "raised ZeroDivisionError at line 4" in outcomes["raises"].text
    assert "ended the process with exit code 3" in outcomes["leaves"].text
    assert "    seen 2" in outcomes["fails"].text


def test_a_broken_pipeline_is_the_outcome_of_its_own_tests_only(yard: Yard) -> None:
    yard.write("pipelines/broken.yml", "steps: [{id: a, type: source, source_type: csv, config: {}}]\n")
    outcomes = yard.outcomes("test: of_broken\npipeline: broken\nstep: a\nexpect: []\n", HEAD + GIVEN + "expect:\n  row_count: 2\n")
    assert outcomes["of_broken"].status == "error"
    assert "broken.yml:1" in outcomes["of_broken"].text
    assert outcomes["priced_orders"].status == "passed"


def test_mistakes_are_told_with_line_and_suggestion_before_anything_runs(yard: Yard) -> None:
    mistakes = yard.mistakes(
        "test: a\npipeline: salse\nexpect: []",
        "test: b\npipeline: sales\nstep: pricd\nexpect: []",
        "test: c\npipeline: sales\nstep: priced\ngiven: {orders: [], prices: []}\nexpect: []",
        "test: d\npipeline: sales\nwindow: 2024-01-01 05:00:00\ngiven: {orders: []}\nexpect: {failed_checks: [amount_rang]}",
        "test: e\npipeline: sales\nwindow: 2024-01-01\ngiven: {priced: [], prices: [], table: []}\nexpect: []",
        "test: f\npipeline: sales\nstep: priced\nwindow: 2024-01-01\ngiven: {orders: [], prices: {rows: [], columns: {a: intt}}}\n"
        "existing: []\nproperties: [late]\nexpect: []",
        *(
            f"test: w{number}\npipeline: sales\nwindow: {{start: {start}, end: {end}}}\ngiven: {{priced: []}}\nexpect: []"
            for number, (start, end) in enumerate(
                [("2024-01-01", "2024-01-01 12:00:00"), ("2024-01-02", "2024-01-01"), ("2024-01-01", "2204-01-01")]
            )
        ),
    )
    said = "\n".join(mistakes)
    for part in (
        "2:11 test 'a': there is no pipeline 'salse' -> did you mean 'sales'?",
        "test 'b': pipeline 'sales' has no step 'pricd' -> did you mean 'priced'?",
        "test 'c': pipeline 'sales' has windows of day, and the test does not say which one it runs -> add window: 2024-01-01",
        "no day window begins at 2024-01-01 05:00:00 in UTC -> the one that holds it begins at 2024-01-01",
        "source 'prices' of 'sales' has no rows -> add under given:  prices: {rows: [...]}",
        "pipeline 'sales' has no check 'amount_rang' -> did you mean 'amount_range'?",
        "step 'table' does not read 'prices' here",
        "'table' is an endpoint, it gives no rows",
        "'intt' is not a column type",
        "step 'priced' is a transform and has no target",
        "late rows are about a target",
        "no day window begins at 2024-01-01 12:00:00 in UTC",
        "2024-01-02 to 2024-01-01 holds no window",
        "2024-01-01 to 2204-01-01 is more than 1,000 windows",
    ):
        assert part in said, said


def test_mistakes_of_one_document_are_told_by_the_model(yard: Yard) -> None:
    mistakes = yard.mistakes(
        "test: a\npipelin: sales\nexpect: {row: []}",
        "test: b\npipeline: sales\ngiven: {orders: {rows: [], csv: x.csv}, prices: {column: {}}}\nexpect: {ordered: true}",
        "test: b\npipeline: sales\nproperties: [twice]\nexpect: []",
        "test: c\npipeline: sales\nproperties: [late]\nexpect: {error: x}",
    )
    said = "\n".join(mistakes)
    for part in (
        "unknown key 'pipelin' in a test -> did you mean 'pipeline'?",
        "unknown key 'row' in `expect` -> did you mean 'rows'?",
        "unknown key 'column' in `prices` -> did you mean 'columns'?",
        "rows are written in one way",
        "expects nothing",
        "'twice' is none of",
        "this run is expected to fail",
    ):
        assert part in said, said


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("[{id: 1, sold: x}]", "column 'sold' is not a date and time"),
        ("[{id: 1}, {id: one}]", "column 'id' holds a whole number and text"),
        ("{columns: {id: int8}, rows: [{id: 300}]}", "row 1, column 'id': 300 does not fit int8"),
        ("{csv: nowhere.csv}", "there is no file nowhere.csv"),
        ("[]", "there are no rows that would tell the columns"),
        ("{sql: select from}", "DuckDB refused the SQL"),
    ],
)
def test_given_rows_that_cannot_be_made_are_an_error_with_their_place(yard: Yard, rows: str, message: str) -> None:
    outcome = yard.outcome(f"test: t\npipeline: sales\nwindow: 2024-01-01\ngiven:\n  priced: {rows}\nexpect: []\n")
    assert outcome.status == "error"
    assert message in outcome.text
    assert "all.yml:5:" in outcome.text or "given.priced" in outcome.text


def test_a_disabled_pipeline_is_tested_all_the_same(yard: Yard) -> None:
    text = (yard.folder / "pipelines/sales.yml").read_text()
    yard.write("pipelines/sales.yml", "enabled: \"{{ env_var('X', '') != '' }}\"\n" + text)
    assert yard.outcome(HEAD + GIVEN + "expect: {row_count: 2}\n").status == "passed"
