"""The fixtures of tests about late data."""

from __future__ import annotations

from dataflow_assets_tests.execution.late_shop import bare, shop, templates

__all__ = ["bare", "shop", "templates"]
