"""The check of a contract against real stages: columns, types, nulls and rules, strict and lenient, enforced or only reported."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from dataflow_assets.checks.contract import Check, ContractOptions
from dataflow_assets.protocols import CheckResult, PicksRows, Severity
from dataflow_assets_tests.staged import context_in, staged

ROWS = pa.table(
    {
        "id": pa.array([1, 2, 2], pa.int32()),
        "amount": pa.array([Decimal("1.10"), None, Decimal("-3.00")], pa.decimal128(10, 2)),
        "note": pa.array(["a", None, "ccc"]),
    }
)


def results(folder: Path, table: pa.Table = ROWS, **terms: Any) -> dict[str, CheckResult]:
    check = Check(ContractOptions.model_validate({"contract": "orders", "version": 3, **terms}))
    stage = staged(table, folder)
    run = check.begin(stage.schema, context_in(folder))
    with stage.open_reader() as reader:
        for batch in reader:
            run.update(batch)
    found = run.finish(stage)
    assert [result.name for result in found] == [promise.name for promise in check.promises]
    blocking = [result.blocking and result.severity is Severity.ERROR for result in found]
    assert blocking == [promise.blocking for promise in check.promises]
    return {result.name: result for result in found}


def test_a_kept_contract(tmp_path):
    found = results(tmp_path, columns={"id": {"type": "bigint", "nullable": False}, "amount": "decimal(18,2)", "note": "varchar(5)"})
    assert {name: result.passed for name, result in found.items()} == {"contract": True, "id_not_null": True, "note_length": True}
    assert found["contract"].description == "contract orders version 3 is kept: 3 columns"
    assert found["contract"].checked == 3


def test_every_difference_of_columns_is_said_at_once(tmp_path):
    found = results(tmp_path, mode="strict", columns={"id": "smallint", "amuont": "double", "note": "text"})["contract"]
    assert not found.passed
    assert found.blocking
    assert found.description == (
        "contract orders version 3 is broken: column 'amuont' is missing (the rows have 'amount'); "
        "column 'id' is int, promised is smallint; column 'amount' is not in the contract"
    )
    assert found.metadata["missing"] == ["amuont"]
    assert found.metadata["wrong_types"] == {"id": "int"}
    assert found.metadata["beyond"] == ["amount"]


def test_lenient_allows_more_columns_and_any_type(tmp_path):
    found = results(tmp_path, columns={"note": None})["contract"]
    assert found.passed
    assert found.metadata["beyond"] == ["id", "amount"]


def test_nulls_and_rules_are_the_validator_s(tmp_path):
    columns = {
        "id": {"type": "int", "unique": True},
        "amount": {"nullable": False, "min_value": 0, "rules": [{"max_value": 1, "severity": "warn", "name": "dear"}]},
        "note": {"type": "varchar(2)"},
    }
    found = results(tmp_path, columns=columns, rules=[{"check": "row_count", "min_rows": 4}])
    assert {name: (result.passed, result.failed) for name, result in found.items()} == {
        "contract": (True, 0),
        "id_unique": (False, 1),
        "amount_not_null": (False, 1),
        "amount_range": (False, 1),
        "dear": (False, 1),
        "note_length": (False, 1),
        "row_count": (False, 0),
    }
    assert found["dear"].severity is Severity.WARN
    assert found["amount_range"].samples[0]["id"] == 2


def test_a_missing_column_fails_its_rules_too(tmp_path):
    found = results(tmp_path, columns={"gone": {"nullable": False}})
    assert not found["contract"].passed
    assert not found["gone_not_null"].passed


def test_enforce_warn_blocks_nothing(tmp_path):
    found = results(tmp_path, enforce="warn", columns={"id": {"type": "text", "unique": True}})
    assert all(not result.passed and not result.blocking and result.severity is Severity.WARN for result in found.values())


def test_names_that_are_taken_get_another(tmp_path):
    columns = {"id": {"unique": True, "rules": [{"max_value": 9, "name": "contract"}]}}
    found = results(tmp_path, columns=columns, taken=["id_unique", "contract_id_unique"])
    assert list(found) == ["contract", "contract_id_unique_2", "contract_contract"]


def test_a_stage_without_rows_has_its_columns(tmp_path):
    assert results(tmp_path, ROWS.slice(0, 0), columns={"id": "int", "amount": "decimal"})["contract"].passed


def test_a_column_without_any_value_is_no_wrong_type(tmp_path):
    assert results(tmp_path, pa.table({"a": pa.nulls(2)}), columns={"a": "bigint"})["contract"].passed


def test_rows_can_be_picked_where_the_validator_can():
    run = Check(ContractOptions.model_validate({"columns": {"id": {"unique": True}}})).begin(ROWS.schema, context_in(Path()))
    assert isinstance(run, PicksRows)


@pytest.mark.parametrize(
    "columns", [{}, {"a": {"min_value": 3, "max_value": 1}}, {"a": {"regex": "("}}, {"a": {"nonsense": 1}}, [{"b": 1}]]
)
def test_terms_that_make_no_sense_are_refused(columns):
    with pytest.raises(ValidationError):
        ContractOptions.model_validate({"columns": columns})
