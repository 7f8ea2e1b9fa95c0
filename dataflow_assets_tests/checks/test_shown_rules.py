"""Every rule that `docs/checks.md` shows works as it stands there, on data that it suits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from dataflow_assets.checks._items import RuleItem
from dataflow_assets.checks._rules import RuleKind
from dataflow_assets.tables import DatasetRef
from dataflow_assets_tests.docs.generate import ROOT
from dataflow_assets_tests.docs.pages import blocks
from dataflow_assets_tests.staged import context_in, staged, verdicts

PAGE = ROOT / "docs" / "checks.md"
ROWS = {
    "id": pa.array([1, 2, 3], pa.int64()),
    "customer": [1, 2, 2],
    "boss": [None, 1, 1],
    "country": ["de", "de", "fr"],
    "zip": ["1", "2", "3"],
    "day": ["mon", "mon", "tue"],
    "shop": ["a", "b", "a"],
    "price": [1.5, 2.5, 3.5],
    "cost": [1.0, 2.0, 3.0],
    "paid": [1, 2, 3],
    "due": [3, 2, 1],
    "state": ["open", "closed", None],
    "code": ["AB", "CD", "EF"],
    "mail": ["m", None, "m"],
    "phone": [None, "p", None],
    "at": pa.array([datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3)], pa.timestamp("us", "UTC")),
}
OTHER = pa.table({"id": [1, 2, 3], "land": ["de", "de", "fr"], "code": ["1", "2", "3"]})


def shown() -> list[dict[str, Any]]:
    """The rules in the section, those in tables and in the text."""
    section = PAGE.read_text(encoding="utf-8").partition("## Rules")[2].partition("## Anomalies")[0]
    spans = re.findall(r"`(\{.*?\})`", re.sub(r"<!-- generated.*?<!-- end -->", "", section, flags=re.DOTALL))
    rules = [yaml.safe_load(text) for text in spans if "{{" not in text]
    return [rule for rule in rules if not {"step", "connection", "pipeline"} & set(rule)]


def test_each_rule_that_is_shown_holds_on_good_rows(tmp_path: Path) -> None:
    @contextmanager
    def open_dataset(dataset: DatasetRef) -> Iterator[pa.RecordBatchReader]:
        yield OTHER.to_reader()

    (code,) = (block for block in blocks("python", page="docs/checks.md") if "is_fair" in block.text)
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "prices.py").write_text(code.text)
    context = replace(context_in(tmp_path), open_dataset=open_dataset, now=datetime(2024, 1, 4, tzinfo=UTC))
    results = verdicts({"checks": shown()}, staged(pa.table(ROWS), tmp_path), context)
    assert {name: result.description for name, result in results.items() if not result.passed} == {}
    assert len(results) >= 30


def test_every_kind_is_shown() -> None:
    kinds = {kind for rule in shown() for kind in RuleItem.model_validate(rule).kinds}
    assert set(RuleKind) - kinds == {RuleKind.ANOMALY, RuleKind.SCHEMA}


def test_each_reference_that_is_shown_can_be_written() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("### Other datasets")[2]
    for span in re.findall(r"\| `(\{.*?\})` \|", text.partition("###")[0]):
        assert RuleItem.model_validate({"column": "a", "to": yaml.safe_load(span)}).to is not None
