"""Log records of the package on standard error and in the project's log file.

Here: handlers. Not here: the form of a line (`logs`), what a run prints (`cli.report`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from dataflow_assets.logs import Format, formatter
from dataflow_assets.spec.models import LoggingOptions

LOGGERS = ("dataflow_assets", "dagster")


def log_to_stderr(level: str, *, kind: Format = "text") -> None:
    """Send the package's records of `level` and above to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(kind))
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(level.upper())
        logger.handlers = [handler]


@contextmanager
def log_to_file(root: Path, options: LoggingOptions) -> Iterator[None]:
    """Append to `dataflow_YYYYMMDD.log` in the project's folder for logs: as text what the terminal prints, and tracebacks; as JSON every
    record."""
    folder, level, kind = root / options.dir, options.level, options.format
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / f"dataflow_{date.today():%Y%m%d}.log", encoding="utf-8", delay=True)
    handler.setLevel(level)
    handler.setFormatter(formatter(kind))
    logger = logging.getLogger("dataflow_assets.cli" if kind == "text" else "dataflow_assets")
    logger.addHandler(handler)
    logger.setLevel(min(logger.getEffectiveLevel(), logging.getLevelName(level)))
    if kind == "text":
        logger.propagate = bool(logging.getLogger("dataflow_assets").handlers)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
