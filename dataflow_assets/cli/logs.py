"""Log records of the package on standard error and in the project's log file, with secrets masked.

Here: handlers. Not here: what a run prints (`cli.report`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from dataflow_assets.secrets import mask

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
LOGGERS = ("dataflow_assets", "dagster")


class MaskedFormatter(logging.Formatter):
    """Formats a record and masks secrets in it, traceback included."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return mask(super().format(record))


def log_to_stderr(level: str) -> None:
    """Send the package's records of `level` and above to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(MaskedFormatter(FORMAT))
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(level.upper())
        logger.handlers = [handler]


@contextmanager
def log_to_file(folder: Path, *, level: str) -> Iterator[None]:
    """Append what the terminal prints, and tracebacks, to `dataflow_YYYYMMDD.log` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / f"dataflow_{date.today():%Y%m%d}.log", encoding="utf-8", delay=True)
    handler.setLevel(level)
    handler.setFormatter(MaskedFormatter(FORMAT))
    logger = logging.getLogger("dataflow_assets.cli")
    logger.addHandler(handler)
    logger.setLevel(min(logger.getEffectiveLevel(), logging.getLevelName(level)))
    logger.propagate = bool(logging.getLogger("dataflow_assets").handlers)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
