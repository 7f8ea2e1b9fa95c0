"""The example of docs/contracts.md works, and prints what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from dataflow_assets.cli.app import app
from dataflow_assets_tests.docs.example_projects import write_project
from dataflow_assets_tests.docs.pages import blocks

PAGE = "docs/contracts.md"


def _call(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments), prog_name="dataflow")
    return done.exit_code, done.stdout


def test_the_example_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yaml = blocks("yaml", page=PAGE)
    (pipelines,) = (block for block in yaml if "pipeline_name: sales" in block.text)
    (contract,) = (block for block in yaml if block.text.startswith("contract: orders"))
    refusal, comparison = blocks("text", page=PAGE)
    folder = write_project(tmp_path, pipelines.text)
    (folder / "data").mkdir()
    (folder / "data" / "orders.csv").write_text("id,amount,note\n1,2.50,a\n2,4,a\n")
    (folder / "contracts").mkdir()
    file = folder / "contracts" / "orders.yml"
    file.write_text(contract.text)
    monkeypatch.chdir(folder)

    assert _call("contract", "accept")[0] == 0
    assert _call("validate")[0] == 0
    assert _call("run")[0] == 0
    assert _call("contract", "compare", "orders", "--published")[0] == 0

    file.write_text("".join(line for line in contract.text.splitlines(keepends=True) if "amount" not in line))
    code, said = _call("validate")
    assert code == 2
    assert refusal.text in said
    code, said = _call("contract", "compare", "orders")
    assert code == 1
    assert comparison.text == f"$ dataflow contract compare orders\n{said}"

    (folder / "data" / "orders.csv").write_text("id,amount,note\n1,2.50,a\n1,4,a\n")
    file.write_text(contract.text)
    assert _call("run", "--full-refresh")[0] == 1
