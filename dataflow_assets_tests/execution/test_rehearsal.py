"""What `dataflow validate` sees of the Python that checks name, with its place, and without importing it."""

from __future__ import annotations

from pathlib import Path

from dataflow_assets.execution.rehearsal import rehearse
from dataflow_assets.plan.build import build_plan
from dataflow_assets.spec.load import load
from dataflow_assets_tests.execution.workshop import Workshop

PIPELINE = """\
pipeline_name: load
variables: {condition: sum(a) > 1, type: text, few: 3, day: today}
steps:
  - id: source
    type: source
    source_type: parquet
    config: {file_path: source.parquet}
    checks:
      - {anomaly: {metric: row_count}}
      - {column: a, not_null: true}
      - {function: "rules.py:fiar"}
      - {function: "{{ var('which', 'rules.py:gone') }}"}
      - {sql: "{{ var('condition') }}"}
      - {column: a, type: "{{ var('type') }}", severity: warn}
      - {column: a, not_null: true, max_failed: "{{ var('few') }}", where: "day = '{{ var('day') }}'"}
  - id: valid
    type: check
    kind: validator
    depends_on: [source]
    config:
      checks:
        - {function: "absent.py:fair"}
        - {function: "rules.py:fair"}
        - {function: "rules:fair"}
        - {function: "elsewhere.module:fair"}
  - {id: out, type: endpoint, endpoint_type: parquet, depends_on: [valid], config: {file_path: out.parquet, mode: replace}}
"""


def test_functions_of_checks_are_looked_for(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    shop.write("rules.py", "raise RuntimeError('never imported')\n\ndef fair(rows):\n    return rows\n")
    shop.pipeline(PIPELINE)
    project = load(shop.folder)
    (problems,) = rehearse(project, build_plan(project)).values()
    assert [(problem.place.line, problem.message) for problem in problems] == [
        (11, "step 'source': rules.py has no function 'fiar'"),
        (22, "step 'valid': there is no file absent.py"),
    ]
    assert problems[0].hint == "did you mean fair?"
