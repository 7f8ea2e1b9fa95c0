"""`dataflow contract`: from a published table to a contract, accepted, changed, refused, and accepted anew."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataflow_assets.cli.contract_infer import contract_text
from dataflow_assets.execution.contracts import PublishedColumns
from dataflow_assets.plan.contract_changes import published_changes
from dataflow_assets.spec import yaml
from dataflow_assets.spec.contract_files import read_accepted, write_accepted
from dataflow_assets.spec.contracts import ContractModel
from dataflow_assets.spec.load import load
from dataflow_assets.tables import ColumnVersion
from dataflow_assets_tests.cli.conftest import ProjectFolder

Call = Callable[..., Any]


def test_the_life_of_a_contract(call: Call, project: ProjectFolder) -> None:
    where, file = ("--project", project.root), project.root / "contracts" / "facts.yml"
    assert call("contract", "list", *where).out.startswith("No contracts")
    assert call("run", "-s", "first", *where).code == 0

    made = call("contract", "infer", "first", "--name", "facts", "--owner", "team:core", "--write", "--strict", *where)
    assert made.code == 0, made.err
    text = file.read_text()
    assert text == (
        "contract: facts\ndataset: first/publish\nversion: 1\nowner: team:core\nmode: strict\n"
        "columns:\n  id: bigint\n  at: timestamptz\n  value: bigint\n"
    )
    again = call("contract", "infer", "first", "--name", "facts", "--write", *where)
    assert (again.code, "is there already" in again.err) == (2, True)
    answer = call("validate", *where)
    assert (answer.code, "contract facts is not accepted yet" in answer.out) == (0, True)

    accepted = call("contract", "accept", *where)
    assert accepted.code == 0, accepted.err
    assert "facts: version 1 accepted" in accepted.out
    assert "accepted" in call("contract", "list", *where).out
    assert call("contract", "compare", "facts", *where).out.splitlines()[1].strip() == "no difference"
    published = call("contract", "compare", "facts", "--published", "--json", *where)
    assert (published.code, published.json["removed"], published.json["added"], published.json["version_to"]) == (0, [], [], 1)
    shown = call("contract", "show", "facts", *where)
    assert "second.read (" in shown.out
    assert "names it" in shown.out

    file.write_text(text.replace("  value: bigint\n", "  worth: bigint\n"))
    for arguments, code in ((("validate",), 2), (("contract", "compare", "facts"), 1)):
        refused = call(*arguments, *where)
        assert refused.code == code
        assert "column 'value' (bigint) is removed (renamed to 'worth'?" in refused.out
        assert "breaks second.read (" in refused.out
        assert "second.yml:9:" in refused.out
    problems = call("validate", "--json", *where).json["problems"]
    assert any(problem["file"].endswith("contracts/facts.yml") and problem["line"] == 6 for problem in problems)
    compared = call("contract", "compare", "facts", "--json", *where).json
    assert (compared["removed"], compared["added"], compared["ok"]) == (["value"], ["worth"], False)
    (uses,) = compared["uses"].values()
    assert {use["pipeline"] for use in uses} == {"second"}
    blocked = call("contract", "accept", "facts", *where)
    assert (blocked.code, "raise `version:`" in blocked.err) == (2, True)
    assert call("contract", "compare", "facts", "--published", *where).code == 1

    file.write_text(file.read_text().replace("version: 1", "version: 2"))
    assert call("contract", "accept", "facts", *where).code == 0
    assert "which contract 'facts' does not have" in call("validate", *where).out
    older = project.root / "old.yml"
    older.write_text(text)
    against = call("contract", "compare", "facts", "--with", older, "--json", *where).json
    assert (against["version_from"], against["version_to"]) == (1, 2)

    file.unlink()
    assert "no file in contracts has it any more" in call("validate", *where).out
    assert "facts: withdrawn" in call("contract", "accept", *where).out
    assert call("validate", *where).code == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("show", "nothing"), "there is no contract 'nothing'"),
        (("accept", "nothing"), "there is no contract 'nothing'"),
        (("compare", "facts"), "contract 'facts' has no accepted version"),
        (("compare", "facts", "--with", "nowhere.yml"), "cannot be read"),
        (("compare", "facts", "--with", "a.yml", "--published"), "are two comparisons"),
        (("infer", "nothing"), "there is no pipeline"),
        (("infer", "first.check"), "publishes nothing"),
        (("compare", "wrong"), "is not a column type"),
    ],
)
def test_what_is_refused(call: Call, project: ProjectFolder, arguments: tuple[str, ...], expected: str) -> None:
    (project.root / "contracts").mkdir()
    word = "bigitn" if "wrong" in arguments else "bigint"
    (project.root / "contracts" / "facts.yml").write_text(f"contract: facts\ndataset: first\ncolumns: {{id: {word}}}\n")
    answer = call("contract", *arguments, "--project", project.root)
    assert answer.code == (1 if "check" in arguments[1] else 2)
    assert expected in answer.err


def test_contracts_accepted_at_the_same_time_are_all_kept(call: Call, project: ProjectFolder) -> None:
    (project.root / "contracts").mkdir()
    names = {"one": "first", "two": "second", "three": "third"}
    for name, pipeline in names.items():
        (project.root / "contracts" / f"{name}.yml").write_text(f"contract: {name}\ndataset: {pipeline}\ncolumns: {{id: bigint}}\n")
    contracts = load(project.root).contracts
    threads = [threading.Thread(target=write_accepted, args=(project.root / "contracts", item.model)) for item in contracts * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    accepted = read_accepted(project.root / "contracts")
    assert set(accepted.contracts) == set(names)
    assert not accepted.problems
    assert len(list((project.root / "contracts" / "accepted").iterdir())) == 3


def test_infer_of_a_source_and_of_an_unpublished_table(call: Call, project: ProjectFolder) -> None:
    where = ("--project", project.root)
    missing = call("contract", "infer", "first", *where)
    assert missing.code in {1, 2}
    answer = call("contract", "infer", "third.read", "--owner", "team:core", *where)
    assert answer.code == 0, answer.err
    assert answer.out.startswith("contract: third\ndataset: third/read\nversion: 1\nowner: team:core\nmode: lenient\n")
    assert answer.out.endswith("columns:\n  id: bigint\n  at: timestamptz\n  value: bigint\n")


WORDS = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc", "Cn"]), min_size=1, max_size=12)


@given(
    st.lists(WORDS, min_size=1, max_size=4, unique=True), st.sampled_from(["BIGINT", "VARCHAR(9)", "inet", "NUMBER(38,0)"]), st.booleans()
)
@example(["\u2028"], "BIGINT", False)
@example(["a: \u2029b", "\u0085"], "BIGINT", True)
def test_a_contract_that_is_inferred_can_be_read_whatever_columns_are_called(names: list[str], kind: str, nullable: bool) -> None:
    held = PublishedColumns("t", tuple(ColumnVersion(name, kind, nullable) for name in names))
    text = contract_text("facts", "first/publish", held, owner=None, strict=False)
    parsed = yaml.parse(text, "facts.yml")
    assert not parsed.problems
    model = ContractModel.model_validate(parsed.documents[0].data)
    assert list(model.columns) == names
    assert {column.nullable for column in model.columns.values()} == {nullable}
    assert published_changes(model, held.columns) == []
