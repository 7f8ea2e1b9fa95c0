"""What became of each Arrow type in each system: the results that the contract's tests found, kept beside them.

Here: one JSON file per system, written when `RECORD_TYPES` is set and compared with otherwise. Not here: the trying
(`contract_base`), the page made from the files (`docs.generate`, whose option `--types` runs the tests that write).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from dataflow_assets.protocols import Connector
from dataflow_assets_tests.connectors.arrow_types import COLUMNS

FOLDER = Path(__file__).with_name("type_results")
RECORDING = "RECORD_TYPES"
EMPTY = "no_rows"
"""The result of a table without rows, beside those of `COLUMNS`."""
CASES = (*COLUMNS, EMPTY)
AGAIN = "type: python -m dataflow_assets_tests.docs.generate --types"


@dataclass(frozen=True)
class Outcome:
    """What became of a column: `kept` with every value, `partly` (some values are refused), `changed` as declared, or `refused`."""

    became: Literal["kept", "partly", "changed", "refused"]
    read: str = ""
    """The Arrow type that a source gives it back as."""
    reason: str = ""


@dataclass(frozen=True)
class System:
    """A connector, with what it stands `over` where that decides about types."""

    kind: str
    over: str = ""

    def __str__(self) -> str:
        return f"{self.kind} ({self.over})" if self.over else self.kind

    @property
    def path(self) -> Path:
        """The file of its results."""
        return FOLDER / f"{'-'.join([self.kind, *self.over.lower().split()])}.json"

    def results(self) -> dict[str, Outcome]:
        """What is on file, by name of the column."""
        if not self.path.exists():
            return {}
        return {name: Outcome(**found) for name, found in json.loads(self.path.read_text(encoding="utf-8"))["types"].items()}

    def record(self, case: str, outcome: Outcome) -> None:
        """Put a result on file, in the order of `CASES`, and forget columns that are no more."""
        found = {**self.results(), case: outcome}
        types = {name: {key: value for key, value in asdict(found[name]).items() if value} for name in CASES if name in found}
        FOLDER.mkdir(exist_ok=True)
        text = json.dumps({"kind": self.kind, "over": self.over, "types": types}, indent=1, ensure_ascii=False)
        self.path.write_text(text + "\n", encoding="utf-8")


def systems() -> list[System]:
    """Every system with results."""
    return [System(document["kind"], document["over"]) for document in _documents() if document["types"]]


def not_tried() -> dict[str, str]:
    """Kind -> why it has no results, as a file says of a system whose columns are given: `{"kind": ..., "not_tried": why, "types": {}}`."""
    return {document["kind"]: document["not_tried"] for document in _documents() if "not_tried" in document}


def _documents() -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))]


def confirm(connector: Connector, over: str | None, case: str, outcome: Outcome) -> None:
    """Fail unless the result on file is this one; or record it. Connectors that are not this package's have no file."""
    if over is None or not type(connector).__module__.startswith("dataflow_assets.connectors."):
        return
    system = System(connector.kind, over)
    if os.environ.get(RECORDING):
        system.record(case, outcome)
    found = system.results().get(case)
    assert found == outcome, f"{system.path.name} says {found} of {case}; {AGAIN}"


def missing(kinds: Iterable[str]) -> list[str]:
    """What should be on file and is not, or is and should not be."""
    on_file = systems()
    lacking = [f"{kind}: no results" for kind in kinds if kind not in {*not_tried(), *(system.kind for system in on_file)}]
    for system in on_file:
        found = set(system.results())
        lacking += [f"{system.path.name}: {case}" for case in sorted(found.symmetric_difference(CASES))]
    return lacking
