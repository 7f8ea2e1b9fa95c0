"""Tests of the connectors; each inherits the contract suite."""

import pytest

for _name in ("contract", "contract_base", "contract_reading", "contract_retiring", "contract_writing", "harness"):
    pytest.register_assert_rewrite(f"dataflow_assets_tests.connectors.{_name}")
