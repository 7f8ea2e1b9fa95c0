"""`dataflow reconcile` over real files: what it prints, its exit codes, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb
import pytest

from dataflow_assets.secrets import register_secret
from dataflow_assets_tests.cli.conftest import ProjectFolder, windowed

Call = Callable[..., Any]


def meddle(project: ProjectFolder, *statements: str) -> None:
    with duckdb.connect(str(project.root / "shop.duckdb")) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
def published(call: Call, project: ProjectFolder) -> ProjectFolder:
    project.pipeline("first", windowed("first", table="facts"))
    assert call("run", "--project", project.root, "-s", "first").code == 0
    return project


def test_a_row_changed_behind_ones_back_is_shown_and_the_exit_code_is_one(call: Call, published: ProjectFolder) -> None:
    where = ("--project", published.root)
    answer = call("reconcile", "first", *where)
    assert answer.code == 0, answer.out + answer.err
    assert answer.out.count("same: source and target have the same") == 3
    assert "3 comparisons, 0 different." in answer.out
    assert call("reconcile", "first.publish", "--against", "ledger", *where).code == 0

    meddle(published, "UPDATE main.facts SET value = 21 WHERE id = 2", "DELETE FROM main.facts WHERE id = 3")
    answer = call("reconcile", "first", "--key", "id", *where)
    assert answer.code == 1
    lines = [line.strip() for line in answer.out.splitlines()]
    assert "~ id=2  value: 20 -> 21" in lines
    assert "- id=3 at=2024-01-02 10:00:00+00:00 value=30" in lines
    assert "2024-01-02  DIFFERENT: source has 1 rows, target 0: 100 % are missing, 0 % are tolerated" in lines
    assert any(line.startswith("rows that differ, by id: 0 missing, 0 extra, 1 changed  (2 queries, 4 rows fetched)") for line in lines)
    assert "3 comparisons, 2 different." in lines

    answer = call("reconcile", "first", "--window", "2024-01-01", *where)
    assert "by all columns, as no keys are known (--key): 1 missing, 1 extra, 0 changed" in answer.out
    answer = call("reconcile", "first", "--start", "2024-01-03", *where)
    assert (answer.code, answer.out.count("same")) == (0, 2)
    assert call("reconcile", "first", "--ignore", "value,at", "--window", "2024-01-01", *where).code == 0
    answer = call("reconcile", "first", "--against", "ledger", "--window", "2024-01-01", *where)
    assert answer.code == 1
    assert "the ledger keeps no rows" in answer.out


def test_json_has_both_sides_and_every_value(call: Call, published: ProjectFolder) -> None:
    meddle(published, "UPDATE main.facts SET value = NULL WHERE id = 2")
    answer = call("reconcile", "first", "--key", "id", "--window", "2024-01-01", "--project", published.root, "--json")
    assert answer.code == 1
    (found,) = answer.json["compared"]
    assert answer.json["ok"] is False
    assert (found["step"], found["window"], found["against"], found["same"]) == ("first.publish", "2024-01-01", "source", False)
    assert [(side["side"], side["rows"], side["computed_in"]) for side in found["sides"]] == [
        ("source", 2, "here"),
        ("target", 2, "duckdb"),
    ]
    assert found["sides"][0]["checksum"] != found["sides"][1]["checksum"]
    assert found["differences"]["rows"] == [{"kind": "changed", "key": {"id": 2}, "cells": {"value": {"left": 20, "right": None}}}]
    assert found["differences"]["complete"] is True


def test_limit_ends_the_list_and_zero_looks_for_no_rows(call: Call, published: ProjectFolder) -> None:
    meddle(published, "UPDATE main.facts SET value = value + 1")
    where = ("--project", published.root, "--window", "2024-01-01", "--key", "id")
    answer = call("reconcile", "first", *where, "--limit", "1")
    assert answer.out.count("~ id=") == 1
    assert "and 1 more (--limit)" in answer.out
    answer = call("reconcile", "first", *where, "--limit", "0")
    assert answer.code == 1
    assert "rows that differ" not in answer.out


def test_no_secret_is_shown(call: Call, published: ProjectFolder) -> None:
    register_secret("hunter2-token")
    meddle(published, "ALTER TABLE main.facts ALTER value TYPE VARCHAR", "UPDATE main.facts SET value = 'hunter2-token' WHERE id = 1")
    for extra in ((), ("--json",)):
        answer = call("reconcile", "first", "--key", "id", "--project", published.root, *extra)
        assert answer.code == 1
        assert "?" in answer.out
        assert "hunter2" not in answer.out + answer.err


REFUSED = [
    (("nothing",), 2, "there is no pipeline 'nothing'"),
    (("first.pubilsh",), 2, "first has no step 'pubilsh'"),
    (("first.read",), 2, "step 'read' of first is no endpoint"),
    (("first", "--window", "2024-01-09"), 2, "first has no window '2024-01-09'"),
    (("first", "--start", "yesterday-ish"), 2, "is not a date or time"),
    (("first", "--key", "no_such"), 1, "there is no column 'no_such' on both sides"),
    (("first", "--against", "moon"), 2, "'moon' is not one of"),
]


def test_what_cannot_be_compared_is_refused(call: Call, published: ProjectFolder) -> None:
    for words, code, message in REFUSED:
        answer = call("reconcile", *words, "--project", published.root)
        assert answer.code == code, answer.out + answer.err
        assert message in answer.err


def test_before_the_first_run_there_is_nothing_to_compare(call: Call, project: ProjectFolder) -> None:
    project.pipeline("first", windowed("first", table="facts"))
    answer = call("reconcile", "first", "--project", project.root)
    assert answer.code == 0
    assert "Nothing is published yet." in answer.out
