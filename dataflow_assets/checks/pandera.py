"""The check `pandera`: a pandera model of the user's, put to a dataset as it streams.

Here: the options, the promises, what can be said of the reference before anything runs. Not here: reading a model's source
(`checks._pandera_outline`), asking the model (`checks._pandera_model`), counting (`checks._pandera_run`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import pyarrow as pa
from pydantic import AliasChoices, Field, field_validator, model_validator

from dataflow_assets.checks._pandera_outline import Asked, Reference, promised
from dataflow_assets.protocols import CheckPromise, Mistake, Severity, StepContext
from dataflow_assets.spec.base import Model

if TYPE_CHECKING:
    from dataflow_assets.checks._pandera_run import PanderaRun

_SHARE = re.compile(r"^(\d+(?:\.\d+)?)\s*%$")


class PanderaOptions(Model):
    """Which model, and what a failure means."""

    model: str = Field(
        validation_alias=AliasChoices("schema", "model"),
        description="a model of pandera.pandas or pandera.polars: module:Model, or file.py:Model",
    )
    name: str = Field("schema", pattern=r"^[A-Za-z0-9_]+$", description="name of the asset check, and beginning of the names of its parts")
    severity: Severity = Field(Severity.ERROR, description="warn reports and goes on")
    blocking: bool = Field(True, description="whether a failure keeps the window from being published; never for severity warn")
    max_failed: int | str = Field(0, description="rows that may break one check: a number, or a share such as 0.5 %")
    on_failure: Literal["fail", "quarantine"] = Field("fail", description="quarantine sets offending rows aside and publishes the others")
    at_once: bool = Field(False, description="validate all rows in one frame, for checks that compare rows with each other")
    row_limit: int = Field(
        1_000_000, ge=1, description="most rows in one frame, for at_once and for checks that give one answer for all rows"
    )

    @field_validator("model")
    @classmethod
    def _names_a_model(cls, value: str) -> str:
        Reference.of(value)
        return value

    @field_validator("max_failed")
    @classmethod
    def _is_rows_or_share(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value >= 0:
            return value
        if isinstance(value, str) and (match := _SHARE.match(value.strip())) and float(match[1]) <= 100:
            return value.strip()
        raise ValueError(f"{value!r} is no number of rows: write a whole number, or a share such as 0.5 %")

    @model_validator(mode="after")
    def _quarantine_blocks(self) -> Self:
        if self.quarantines and (self.severity is Severity.WARN or not self.blocking):
            written = "severity: warn" if self.severity is Severity.WARN else "blocking: false"
            raise ValueError(
                f"`{written}` publishes the rows that break the model, `on_failure: quarantine` keeps them out: write one of them"
            )
        return self

    @property
    def reference(self) -> Reference:
        """Where the model stands."""
        return Reference.of(self.model)

    @property
    def quarantines(self) -> bool:
        """Whether offending rows are to be set aside."""
        return self.on_failure == "quarantine"

    def tolerated(self, rows: int) -> float:
        """How many of `rows` may break one check."""
        if isinstance(self.max_failed, int):
            return self.max_failed
        return rows * float(self.max_failed.rstrip("% ")) / 100


class Check:
    """See `protocols.Check`."""

    kind: ClassVar[str] = "pandera"
    Options: ClassVar[type[PanderaOptions]] = PanderaOptions
    example: ClassVar[str] = """\
pipeline_name: modelled_flights
steps:
  - id: flights
    type: source
    source_type: csv
    config:
      file_path: data/flights.csv
  - id: modelled
    type: check
    kind: pandera
    depends_on: [flights]
    config:
      schema: models/flights.py:Flights
      max_failed: 0.5 %
  - id: kept
    type: endpoint
    endpoint_type: parquet
    depends_on: [modelled]
    config: {file_path: output/modelled_flights.parquet}
"""

    def __init__(self, options: PanderaOptions) -> None:
        self._options = options

    @property
    def promises(self) -> Sequence[CheckPromise]:
        """The one result that is known without looking at the model's file."""
        return self._promised(())

    def promises_in(self, project_dir: Path) -> Sequence[CheckPromise]:
        """The results for a model of this project: one for the model, one for each check of a column that its source shows."""
        return self._promised(self._options.reference.asked(project_dir))

    def _promised(self, asked: Sequence[Asked]) -> list[CheckPromise]:
        options = self._options
        blocking = options.blocking and options.severity is Severity.ERROR
        return promised(options.name, asked, reference=options.model, blocking=blocking, aside=options.quarantines)

    def mistakes(self, project_dir: Path, inputs: Sequence[str]) -> list[Mistake]:
        """A file or model that is not there, and pandera itself. Nothing is imported."""
        if find_spec("pandera") is None:
            return [Mistake(("schema",), "pandera is not installed", 'pip install "dataflow-assets[pandera]"')]
        return self._options.reference.mistakes(project_dir, key="schema")

    def code_version(self, project_dir: Path) -> str:
        """A hash of the file that holds the model; what it imports in turn is not looked at."""
        path = self._options.reference.path(project_dir)
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""

    def begin(self, schema: pa.Schema, context: StepContext) -> PanderaRun:
        """Import the model and start. Raises CheckFailed, MissingDriver."""
        from dataflow_assets.checks._pandera_run import PanderaRun

        asked = self._options.reference.asked(context.project_dir)
        return PanderaRun(self._options, self._promised(asked), asked, schema=schema).begin(context)
