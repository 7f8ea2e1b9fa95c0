"""Logs of the processes that Dagster starts: code servers, run workers.

Here: what the project file's `logging: {format: json}` means there. Not here: the lines themselves (`logs`), the terminal (`cli.logs`), and
what Dagster logs itself, which its own settings decide (`python_logs:` of dagster.yaml, `--log-format` of the daemon and the webserver).
"""

from __future__ import annotations

import logging
from typing import TextIO

from dataflow_assets.logs import JsonFormatter
from dataflow_assets.spec.models import LoggingOptions


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that it is found again and not added twice."""


def set_up_process_logs(options: LoggingOptions) -> None:
    """Send the package's records to standard error as JSON, where the project wants it; may be called again."""
    logger = logging.getLogger("dataflow_assets")
    ours = [handler for handler in logger.handlers if isinstance(handler, _Handler)]
    if options.format != "json":
        for handler in ours:
            logger.removeHandler(handler)
        return
    if not ours:
        handler = _Handler()
        handler.setFormatter(JsonFormatter())
        logger.addHandler(handler)
    logger.setLevel(options.level)
