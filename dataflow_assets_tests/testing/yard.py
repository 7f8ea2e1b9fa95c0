"""A project in a folder with one pipeline and tests for it, run as `dataflow test` runs them.

Here: from YAML text to outcomes. Not here: expectations.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path

from dataflow_assets.errors import SpecError
from dataflow_assets.testing import run_tests
from dataflow_assets.testing.outcomes import Outcome

SALES = """
pipeline_name: sales
event_time_column: sold
windows: {every: day, begin: 2024-01-01}
steps:
  - {id: orders, type: source, source_type: postgres, connection: shop, config: {table: orders}}
  - id: prices
    type: source
    source_type: csv
    config: {file_path: prices.csv, event_time_column: "", column_types: {price: "decimal(10,2)"}}
  - id: priced
    type: processor
    processor_type: sql
    depends_on: [orders, prices]
    config:
      query: select id, sold, item, quantity * price as amount from orders join prices using (item) order by id
    checks: [{column: amount, min_value: 0}]
  - id: table
    type: endpoint
    connection: shop
    depends_on: [priced]
    config: {table: "sales_{{ env_var('REGION') }}", mode: MODE, upsert_keys: KEYS}
"""


@dataclass
class Yard:
    """A project folder; its connection needs a secret that nobody has set."""

    folder: Path

    def write(self, name: str, text: str) -> None:
        """Put a file into the project."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")

    def sales(self, *, mode: str = "replace_window", keys: str = "[]", windows: bool = True, pipeline: str = SALES) -> None:
        """Write the pipeline `sales`, with an endpoint of this mode."""
        unset = "{unset: \"{{ env_var('NOBODY') }}\"}"
        connection = "{type: postgres, host: db.invalid, database: shop, user: me, password: \"{{ env_var('SHOP_PASSWORD') }}\"}"
        self.write(
            "dataflow_project.yml",
            f"project_name: yard\nvars: {unset}\nconnections:\n  shop: {connection}\n",
        )
        text = pipeline.replace("MODE", mode).replace("KEYS", keys)
        if not windows:
            text = text.replace("event_time_column: sold\nwindows: {every: day, begin: 2024-01-01}\n", "")
        self.write("pipelines/sales.yml", text)

    def outcomes(self, *tests: str, seed: int = 1) -> dict[str, Outcome]:
        """The outcomes of these tests, by name."""
        self.write("tests/all.yml", "\n---\n".join(textwrap.dedent(test) for test in tests))
        return {outcome.name: outcome for outcome in run_tests(self.folder, seed=seed)}

    def outcome(self, test: str) -> Outcome:
        """The outcome of one test."""
        (outcome,) = self.outcomes(test).values()
        return outcome

    def mistakes(self, *tests: str) -> list[str]:
        """What is wrong with tests that cannot be run, each with line and column."""
        try:
            self.outcomes(*tests)
        except SpecError as error:
            return [f"{item.place.line}:{item.place.column} {item.message} -> {item.hint}" for item in error.problems]
        return []
