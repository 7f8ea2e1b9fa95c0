"""Driving the HTTP connector against a test server.

Here: making one, and what a source step reads. Not here: servers (`services.http_server`), tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from dataflow_assets.connectors._http_options import HttpConnection, HttpSource
from dataflow_assets.connectors.http import Connector
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import ReadRequest, WindowFilter
from dataflow_assets_tests.services.http_server import Answer, Server, served


def connect(server: Server, **keys: Any) -> Connector:
    """A connector for a test server."""
    keys = {"base_url": f"{server.url}/api", "verify": False, **keys}  # loading certificates takes time
    return Connector(HttpConnection.model_validate(keys), ConnectionContext("api", Path()))


def read(answer: Answer | Any, *, within: WindowFilter | None = None, columns: Sequence[str] | None = None, **options: Any) -> pa.Table:
    """What a source reads of an API that always answers the same; a callable answers for itself."""
    with served(answer if callable(answer) else lambda _: answer) as server:
        return read_from(connect(server), within=within, columns=columns, **options)


def read_from(
    connector: Connector, *, within: WindowFilter | None = None, columns: Sequence[str] | None = None, **options: Any
) -> pa.Table:
    """What a source step with these options reads."""
    request = ReadRequest(HttpSource.model_validate(options), columns=tuple(columns) if columns else None, window=within)
    try:
        with connector.read(request) as reader:
            return reader.read_all()
    finally:
        connector.close()
