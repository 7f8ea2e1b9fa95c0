"""The fixtures of the Dagster edge, for what builds on it."""

from __future__ import annotations

from dataflow_assets_tests.assets.conftest import empty_home, instance, project

__all__ = ["empty_home", "instance", "project"]
