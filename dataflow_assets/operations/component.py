"""A project as a Dagster Component, for who builds a code location with `dg`.

Here: the thin wrapper. Not here: loading (`operations.load`). The spec holds a path only: the YAML of pipelines is read by
`spec.load`, so Dagster renders none of its templates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from dataflow_assets.operations.load import load_project


class ProjectComponent(dg.Component, dg.Model, dg.Resolvable):
    """A dataflow project: `path` is its folder, relative to the folder of `defs.yaml`; `vars` override its variables."""

    path: str = "."
    vars: dict[str, Any] = Field(default_factory=dict)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The definitions of the project."""
        return load_project(Path(context.path) / self.path, overrides=self.vars)
