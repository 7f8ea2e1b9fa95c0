"""The project that our own contender runs: pipelines as a user would write them, started with `dataflow run`.

Here: its files. Not here: the ways they are used for (`ways`).
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.events import COLUMNS, KINDS

SCHEMA = "ours"

PROJECT = """\
project_name: benchmark
connections:
  warehouse:
    type: postgres
    dsn: "{{{{ env_var('BENCH_DSN') }}}}"
  lake:
    type: duckdb
    database: {folder}/ours.duckdb
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
    "csv": """\
    source_type: csv
    config:
      file_path: {folder}/events.csv
""",
}

ENDPOINTS = {
    "postgres": """\
    endpoint_type: postgres
    connection: warehouse
    config:
      table: events
      pg_schema: {schema}
      mode: replace
      schema: {{{columns}}}
""",
    "duckdb": """\
    endpoint_type: duckdb
    connection: lake
    config:
      table: events
      mode: replace
      schema: {{{columns}}}
""",
    "csv": """\
    endpoint_type: csv
    config:
      file_path: {folder}/ours.csv
      mode: replace
""",
}

_STEPS = """\
steps:
  - id: read
    type: source
{source}{rules}  - id: write
    type: endpoint
    depends_on: [rules]
{endpoint}"""


def write_project(folder: Path) -> Path:
    """Write one pipeline for every way into `folder/project`."""
    project = folder / "project"
    (project / "pipelines").mkdir(parents=True, exist_ok=True)
    (project / "dataflow_project.yml").write_text(PROJECT.format(folder=folder))
    columns = ", ".join(_yaml_column(column) for column in _columns())
    for read, source in SOURCES.items():
        for write, endpoint in ENDPOINTS.items():
            name = pipeline_name(read, write)
            text = f"pipeline_name: {name}\n{_STEPS}".format(source=source, rules="{rules}", endpoint=endpoint)
            filled = text.format(folder=folder, schema=SCHEMA, columns=columns, rules=RULES)
            (project / "pipelines" / f"{name}.yml").write_text(filled)
    return project


def _columns() -> list[tuple[str, str]]:
    """Names and SQL types; the comma inside numeric(12, 2) is no separator."""
    flat = COLUMNS.replace("(12, 2)", "(12;2)").replace("\n", " ")
    pairs = [column.strip().partition(" ") for column in flat.split(",")]
    return [(name, kind.replace(";", ",")) for name, _, kind in pairs]


def _yaml_column(column: tuple[str, str]) -> str:
    return f'{column[0]}: "{column[1]}"'


def pipeline_name(read: str, write: str) -> str:
    """The name of the pipeline that goes this way."""
    return f"{read}_to_{write}"


def dataflow(*words: str) -> tuple[str, ...]:
    """The console script of this environment."""
    return (str(Path(sys.executable).with_name("dataflow")), *words)
