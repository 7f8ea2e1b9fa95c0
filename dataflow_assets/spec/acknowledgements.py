"""`acknowledged.yml`: what people have said of anomalies, kept in the project so that it is reviewed and deployed like its code.

Here: its model, reading it with places, adding to it. Not here: what an acknowledgement leads to (`anomalies.history`), which
anomalies there are (`execution.anomalies`).
"""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError

from dataflow_assets.errors import Place, Problem, SpecError
from dataflow_assets.spec import yaml
from dataflow_assets.spec.base import Model
from dataflow_assets.spec.problems import problems_of

FILE = "acknowledged.yml"
_HEADER = (
    "# Anomalies that somebody has looked at; `dataflow anomalies ack` adds to it, every run reads it. The last word on a window counts.\n"
)


def _as_key(value: object) -> object:
    return value.isoformat() if isinstance(value, date) and not isinstance(value, datetime) else value


class Acknowledgement(Model):
    """What somebody said of one window's number."""

    pipeline: str = Field(description="the pipeline")
    step: str = Field(description="the step whose check flagged it")
    metric: str = Field(description="the metric's name")
    window: Annotated[str, BeforeValidator(_as_key)] = Field(description="the window's key")
    verdict: Literal["expected", "level_shift"] = Field(
        description="expected: such a value may come again, and is learned from; level_shift: a new level begins, and learning with it"
    )
    by: str = Field("", description="who says so")
    note: str = Field("", description="why")
    at: datetime | date | None = Field(None, description="when")


class AcknowledgedModel(Model):
    """The file."""

    acknowledged: list[Acknowledgement] = Field(default_factory=list, description="one entry for each window of a metric")


def read_acknowledgements(root: Path) -> tuple[Acknowledgement, ...]:
    """What the project's file says, in its order; nothing without one. Raises SpecError with every mistake in it."""
    file = root / FILE
    if not file.is_file():
        return ()
    parsed = yaml.read(file)
    problems = list(parsed.problems)
    if len(parsed.documents) > 1:
        problems.append(parsed.documents[1].places.problem((), f"{FILE} holds one document", hint="remove the line --- and join the lists"))
    if problems:
        raise SpecError(problems)
    if not parsed.documents or not parsed.documents[0].data:
        return ()
    document = parsed.documents[0]
    try:
        return tuple(AcknowledgedModel.model_validate({key: value or [] for key, value in document.data.items()}).acknowledged)
    except ValidationError as error:
        raise SpecError(problems_of(error, model=AcknowledgedModel, places=document.places, data=document.data)) from None


def add_acknowledgement(root: Path, item: Acknowledgement) -> Path:
    """Add an entry at the end of the file, which is left as it was when the result could not be read; returns the file.

    Raises SpecError when the file is broken, or is not written as a list of lines with a dash.
    """
    file = root / FILE
    before = file.read_text(encoding="utf-8") if file.is_file() else ""
    known = read_acknowledgements(root)
    text = before if before.endswith("\n") or not before else before + "\n"
    text = text or _HEADER
    if not known:
        text = text.replace("acknowledged: []\n", "") + ("" if text.rstrip().endswith("acknowledged:") else "acknowledged:\n")
    _write(file, text + _entry(item))
    try:
        if read_acknowledgements(root) == (*known, item):
            return file
    except SpecError:
        pass
    _write(file, before) if before else file.unlink()
    raise SpecError([Problem(Place(str(file)), "an entry could not be added at its end", "write the list in lines that begin with `  - `")])


def _entry(item: Acknowledgement) -> str:
    import json

    lines = []
    for key, value in item.model_dump(mode="json").items():
        if value not in ("", None):
            # JSON text is YAML text, whatever a note holds
            lines.append(f"{key}: {json.dumps(value, ensure_ascii=False) if key in {'note', 'window', 'by', 'at'} else value}")
    return "  - " + "\n    ".join(lines) + "\n"


def _write(file: Path, text: str) -> None:
    waiting = file.with_name(f".{file.name}.tmp")
    waiting.write_text(text, encoding="utf-8")
    waiting.replace(file)
