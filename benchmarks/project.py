"""The project that our own contender runs: pipelines as a user would write them, started with `dataflow run`.

Here: its files. Not here: the ways they are used for (`ways`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.events import KINDS

PROJECT = """\
project_name: benchmark
connections:
  warehouse:
    type: postgres
    dsn: "{{{{ env_var('BENCH_DSN', '') }}}}"
  lake_of_postgres:
    type: duckdb
    database: {folder}/from_postgres.duckdb
  lake_of_csv:
    type: duckdb
    database: {folder}/from_csv.duckdb
  maria:
    type: mysql
    dsn: "{{{{ env_var('BENCH_MYSQL_DSN', '') }}}}"
  click:
    type: clickhouse
    dsn: "{{{{ env_var('BENCH_CLICKHOUSE_URL', '') }}}}"
  till:
    type: sqlite
    database: {folder}/events.sqlite
  till_of_csv:
    type: sqlite
    database: {folder}/from_csv.sqlite
"""

# Ten rules: two on the whole, not_null twice, unique, accepted values, two ranges, a pattern, a length.
RULES = f"""\
  - id: rules
    type: processor
    processor_type: validator
    depends_on: [read]
    config:
      required_columns: [id, ts, user_id, session, kind, url, amount, ratio, flag, day]
      row_count_min: 1
      checks:
        - {{column: id, not_null: true, unique: true}}
        - {{column: ts, not_null: true}}
        - {{column: kind, allowed_values: [{", ".join(KINDS)}]}}
        - {{column: amount, min_value: 0, max_value: 100000}}
        - {{column: ratio, min_value: 0, max_value: 1}}
        - {{column: url, regex: "^https?://[a-z.]+/"}}
        - {{column: session, min_length: 36, max_length: 36}}
"""

SOURCES = {
    "postgres": """\
    source_type: postgres
    connection: warehouse
    config:
      table: events
""",
    "mysql": """\
    source_type: mysql
    connection: maria
    config:
      table: events
""",
    "clickhouse": """\
    source_type: clickhouse
    connection: click
    config:
      table: events
""",
    "sqlite": """\
    source_type: sqlite
    connection: till
    config:
      table: events
""",
    "csv": """\
    source_type: csv
    config:
      file_path: {folder}/events.csv
      column_types: {{user_id: int32, amount: "decimal(12,2)"}}
""",
}

ENDPOINTS = {
    "postgres": """\
    endpoint_type: postgres
    connection: warehouse
    config:
      table: events
      pg_schema: from_{read}
      mode: replace
""",
    "duckdb": """\
    endpoint_type: duckdb
    connection: lake_of_{read}
    config:
      table: events
      mode: replace
""",
    "mysql": """\
    endpoint_type: mysql
    connection: maria
    config:
      table: events
      table_schema: from_{read}
      mode: replace
""",
    "clickhouse": """\
    endpoint_type: clickhouse
    connection: click
    config:
      table: events
      table_database: from_{read}
      mode: replace
""",
    "sqlite": """\
    endpoint_type: sqlite
    connection: till_of_{read}
    config:
      table: events
      mode: replace
""",
    "csv": """\
    endpoint_type: csv
    config:
      file_path: {folder}/from_{read}.csv
      mode: replace
""",
}

_STEPS = """\
steps:
  - id: read
    type: source
{source}{rules}  - id: write
    type: endpoint
    depends_on: [{last}]
{endpoint}"""


def write_project(folder: Path, ways: Iterable[tuple[str, str]], *, rules: bool = True) -> Path:
    """Write a pipeline for each way, given as what it reads and what it writes, into `folder/project`.

    Without the ten rules into a project of its own, `folder/unchecked`: two pipelines may not write one table.
    """
    project = folder / ("project" if rules else "unchecked")
    (project / "pipelines").mkdir(parents=True, exist_ok=True)
    (project / "dataflow_project.yml").write_text(PROJECT.format(folder=folder))
    for read, write in ways:
        name = pipeline_name(read, write)
        parts = {"source": SOURCES[read], "endpoint": ENDPOINTS[write], "rules": "{rules}", "last": "rules" if rules else "read"}
        filled = f"pipeline_name: {name}\n{_STEPS}".format(**parts).format(folder=folder, read=read, rules=RULES if rules else "")
        (project / "pipelines" / f"{name}.yml").write_text(filled)
    return project


def pipeline_name(read: str, write: str) -> str:
    """The name of the pipeline that goes this way."""
    return f"{read}_to_{write}"


def dataflow(*words: str) -> tuple[str, ...]:
    """The console script of this environment."""
    return (str(Path(sys.executable).with_name("dataflow")), *words)
