"""Log records as lines of text or of JSON, secrets masked, each with what it is about.

Here: the two formatters, and the run, pipeline, step and window that records of this thread are about. Not here: who logs what, where lines
go in a terminal (`cli.logs`) and in Dagster's processes (`assets.process_logs`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

from dataflow_assets.secrets import mask, mask_values

Format = Literal["text", "json"]

TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
FIELDS = ("run_id", "pipeline", "step", "window", "attempt", "correlation_id")
"""What a record may be about, in the order in which a line says it."""
EXTRA = "dataflow"
"""The attribute of a record that holds further figures: `extra={EXTRA: {"rows": 3}}`."""

_about: ContextVar[Mapping[str, str]] = ContextVar("dataflow_log_fields", default={})  # noqa: B039 - never changed in place


@contextmanager
def about(**fields: str) -> Iterator[None]:
    """Records of this thread, and of what it calls, are about these as well; empty ones are left as they are."""
    before = _about.get()
    note(**fields)
    try:
        yield
    finally:
        _about.set(before)  # not by a token: a generator may be closed in another context than it was begun in


def note(**fields: str) -> None:
    """From here on, until the surrounding `about` ends, records are about these; an empty text takes a field away."""
    kept = {name: value for name, value in {**_about.get(), **fields}.items() if value}
    _about.set(kept)


def current() -> Mapping[str, str]:
    """What records of this thread are about now."""
    return _about.get()


class TextFormatter(logging.Formatter):
    """Formats a record and masks secrets in it, traceback included."""

    def __init__(self) -> None:
        super().__init__(TEXT)

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return mask(super().format(record))


class JsonFormatter(logging.Formatter):
    """One JSON object in one line: time, level, logger, message, what it is about, further figures, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line of JSON, in ASCII, so that any collector reads it."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in fields_of(record).items() if value}
        line |= {str(name): value for name, value in getattr(record, EXTRA, {}).items() if name not in line}
        line["process"] = record.process
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(mask_values(line), default=str)


def fields_of(record: logging.LogRecord) -> dict[str, str]:
    """What a record is about: what this thread has noted, and, of a record of Dagster's, the run that it names."""
    found = dict(_about.get())
    meta = getattr(record, "dagster_meta", None)
    if isinstance(meta, Mapping):
        tags = meta.get("job_tags") or {}
        said = {
            "run_id": meta.get("run_id"),
            "pipeline": tags.get("dataflow/pipeline") or meta.get("job_name"),
            "correlation_id": tags.get("dataflow/correlation_id") or meta.get("run_id"),
            "window": tags.get("dagster/partition"),
        }
        found = {**{name: str(value) for name, value in said.items() if value}, **found}
    return {name: found.get(name, "") for name in FIELDS}


def formatter(kind: Format) -> logging.Formatter:
    """The formatter of this name."""
    return JsonFormatter() if kind == "json" else TextFormatter()
