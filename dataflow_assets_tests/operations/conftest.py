"""The fixtures of the Dagster edge, for what builds on it."""

from __future__ import annotations

from dataflow_assets_tests.assets.conftest import _quiet_machinery, empty_home, instance, project

__all__ = ["_quiet_machinery", "empty_home", "instance", "project"]
