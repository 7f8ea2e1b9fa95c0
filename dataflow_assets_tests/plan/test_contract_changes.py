"""Which change of a contract breaks whom: the table in docs/contracts.md, row by row."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_assets.plan.contract_changes import Verdict, as_document, breaking, changes, published_changes
from dataflow_assets.spec.contract_files import canonical, read_accepted, write_accepted
from dataflow_assets.spec.contracts import ContractModel
from dataflow_assets.tables import ColumnVersion


def contract(columns=None, **keys):
    return ContractModel.model_validate({"contract": "orders", "dataset": "sales/out", "columns": columns or {"id": "bigint"}, **keys})


def verdicts(old, new):
    return [(change.topic, str(change.verdict), change.sentence) for change in changes(old, new)]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"columns": {"a": "int", "b": "text"}}, {"columns": {"a": "int"}}, ("removed", "breaking", "column 'b' (text) is removed")),
        ({"columns": {"a": "int"}}, {"columns": {"a": "int", "b": "text"}}, ("added", "stricter", "column 'b' (text) is added")),
        ({"columns": {"a": "int"}}, {"columns": {"a": "bigint"}}, ("type", "compatible", "column 'a' is widened from int to bigint")),
        ({"columns": {"a": "bigint"}}, {"columns": {"a": "int"}}, ("type", "breaking", "column 'a' is narrowed from bigint to int")),
        ({"columns": {"a": "int"}}, {"columns": {"a": "text"}}, ("type", "breaking", "column 'a' is changed from int to text")),
        ({"columns": {"a": "int"}}, {"columns": {"a": "any"}}, ("type", "breaking", "column 'a' is no longer promised from int to any")),
        (
            {"columns": {"a": "varchar(9)"}},
            {"columns": {"a": "text"}},
            ("type", "compatible", "column 'a' is widened from varchar(9) to text"),
        ),
        (
            {"columns": {"a": {"nullable": False}}},
            {"columns": {"a": None}},
            ("nullable", "breaking", "column 'a' may now hold nulls"),
        ),
        ({"columns": {"a": None}}, {"columns": {"a": {"not_null": True}}}, ("nullable", "stricter", "column 'a' may no longer hold nulls")),
        ({"columns": {"a": None}}, {"columns": {"a": {"unique": True}}}, ("rule", "stricter", "rule unique of a is added")),
        ({"columns": {"a": {"unique": True}}}, {"columns": {"a": None}}, ("rule", "breaking", "rule unique of a is removed")),
        (
            {"columns": {"a": {"min_value": 1}}},
            {"columns": {"a": {"min_value": 0}}},
            ("rule", "breaking", "rule min_value of a is loosened from 1 to 0"),
        ),
        (
            {"columns": {"a": {"max_value": 9}}},
            {"columns": {"a": {"max_value": 5}}},
            ("rule", "stricter", "rule max_value of a is tightened from 9 to 5"),
        ),
        (
            {"columns": {"a": {"allowed_values": ["x"]}}},
            {"columns": {"a": {"values": ["x", "y"]}}},
            ("rule", "breaking", "rule allowed_values of a is loosened from ['x'] to ['x', 'y']"),
        ),
        (
            {"columns": {"a": {"regex": "^x"}}},
            {"columns": {"a": {"regex": "^y"}}},
            ("rule", "breaking", "rule regex of a is changed from '^x' to '^y'"),
        ),
        (
            {"rules": [{"check": "unique", "columns": ["id"]}]},
            {"rules": []},
            ("rule", "breaking", "rule unique of id is removed"),
        ),
        (
            {"columns": {"a": {"unique": True}}},
            {"columns": {"a": {"unique": True, "severity": "warn"}}},
            ("rule", "breaking", "rule unique of a is loosened or changed by severity"),
        ),
        (
            {"columns": {"a": {"unique": True, "where": "b > 1"}}},
            {"columns": {"a": {"unique": True, "severity": "error"}}},
            ("rule", "stricter", "rule unique of a is tightened by where"),
        ),
        (
            {"columns": {"a": {"max_age": "9h"}}},
            {"columns": {"a": {"max_age": "10h"}}},
            ("rule", "breaking", "rule max_age of a is changed from '9h' to '10h'"),
        ),
        (
            {"columns": {"a": {"rejected_values": [1]}}},
            {"columns": {"a": {"forbidden_values": [1, 2]}}},
            ("rule", "stricter", "rule rejected_values of a is tightened from [1] to [1, 2]"),
        ),
        (
            {"columns": {"a": {"min_value": date(2024, 1, 1)}}},
            {"columns": {"a": {"min_value": date(2024, 2, 1)}}},
            ("rule", "stricter", "rule min_value of a is tightened from '2024-01-01' to '2024-02-01'"),
        ),
        ({"mode": "strict"}, {}, ("mode", "breaking", "columns beyond the contract are now allowed (lenient)")),
        ({}, {"mode": "strict"}, ("mode", "stricter", "columns beyond the contract are now refused (strict)")),
        ({}, {"enforce": "warn"}, ("enforce", "breaking", "what breaks the contract is only reported from now on")),
        ({}, {"dataset": "sales/other"}, ("dataset", "breaking", "the contract is about sales/other in place of sales/out")),
        ({"owner": "team:a"}, {"owner": "team:b"}, ("said", "compatible", "owner is 'team:b', was 'team:a'")),
    ],
)
def test_the_table_of_verdicts(old, new, expected):
    assert verdicts(contract(**old), contract(**new)) == [expected]


def test_a_rename_is_said_as_what_it_is_to_readers():
    found = verdicts(contract({"id": "int", "amount": "double"}), contract({"id": "int", "total": "double"}))
    assert [(topic, verdict) for topic, verdict, _ in found] == [("removed", "breaking"), ("added", "stricter")]
    assert "renamed to 'total'?" in found[0][2]


def test_names_of_rules_and_the_order_of_columns_do_not_count():
    old = contract({"a": {"rules": [{"min_value": 0, "name": "one"}]}, "b": "int"})
    new = contract({"b": "int", "a": {"min_value": 0}})
    assert verdicts(old, new) == []


def test_dates_in_rules_survive_the_accepted_file(tmp_path):
    limits = {"min_value": date(2024, 1, 1), "max_value": datetime(2024, 1, 1, 5, tzinfo=UTC), "allowed_values": [date(2024, 1, 1)]}
    model = contract({"a": limits, "b": {"rules": [{"min_value": date(2024, 1, 1), "where": "b > 1"}]}})
    write_accepted(tmp_path, model)
    accepted = read_accepted(tmp_path)
    assert not accepted.problems
    assert changes(accepted.contracts["orders"], model) == []


def test_columns_as_the_older_systems_list_them():
    listed = contract([{"name": "id", "dtype": "int", "nullable": False}, {"name": "note", "dtype": "str"}, {"name": "rest"}])
    assert verdicts(listed, contract({"id": {"type": "integer", "nullable": False}, "note": "text", "rest": None})) == []


def test_the_comparison_with_what_is_published():
    promised = contract({"id": {"type": "bigint", "nullable": False}, "amount": "decimal(18,2)", "gone": "text"})
    held = [ColumnVersion("ID", "BIGINT", True), ColumnVersion("amount", "DOUBLE"), ColumnVersion("extra", "TEXT")]
    found = published_changes(promised, held)
    document = as_document(found, version_from=1, version_to=7)
    assert document["removed"] == ["gone"]
    assert document["added"] == ["extra"]
    assert document["type_changes"]["amount"] == {"from": "decimal(18,2)", "to": "DOUBLE", "verdict": "breaking"}
    assert document["nullable_changes"]["id"]["verdict"] == "compatible"
    assert (document["version_from"], document["version_to"], len(document["breaking"])) == (1, 7, 2)
    strict = promised.model_copy(update={"mode": "strict"})
    assert any(change.topic == "added" for change in breaking(published_changes(strict, held)))


columns = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["int", "bigint", "text", "varchar(5)", "any", "timestamptz"]), "nullable": st.booleans()},
        optional={
            "unique": st.just(True),
            "min_value": st.integers(0, 3),
            "allowed_values": st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True),
            "rules": st.just([{"max_length": 4, "name": "short"}]),
        },
    ),
    min_size=1,
)


@given(columns, columns)
def test_a_change_and_its_way_back(old, new):
    """Nothing differs from itself; a promise that gets larger one way gets smaller the other way; JSON keeps a contract whole."""
    one, two = contract(old), contract(new)
    assert changes(one, one) == []
    assert ContractModel.model_validate(canonical(one)) == one
    there, back = changes(one, two), changes(two, one)
    assert bool(there) == bool(back)
    for change in there:
        if change.topic in {"added", "removed", "nullable"}:
            (other,) = [item for item in back if item.column == change.column and item.topic in {"added", "removed", "nullable"}]
            assert {change.verdict, other.verdict} == {Verdict.BREAKING, Verdict.STRICTER}
