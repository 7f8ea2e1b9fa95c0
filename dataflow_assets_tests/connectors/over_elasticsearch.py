"""Driving the Elasticsearch connector against a test cluster.

Here: making one, and what a source step reads. Not here: clusters (`services.elasticsearch`), tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from dataflow_assets.connectors.elasticsearch import Connector, ElasticsearchConnection, ElasticsearchSource
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import ReadRequest, WindowFilter
from dataflow_assets_tests.services.elasticsearch import Cluster


def connect(cluster: Cluster, **keys: Any) -> Connector:
    """A connector for a test cluster."""
    options = {"url": cluster.url, "verify": cluster.stub is None, **cluster.keys, **keys}  # loading certificates takes time
    return Connector(ElasticsearchConnection.model_validate(options), ConnectionContext("search", Path()))


def read_from(
    connector: Connector, *, within: WindowFilter | None = None, columns: Sequence[str] | None = None, **options: Any
) -> pa.Table:
    """What a source step with these options reads."""
    request = ReadRequest(ElasticsearchSource.model_validate(options), columns=tuple(columns) if columns else None, window=within)
    try:
        with connector.read(request) as reader:
            return reader.read_all()
    finally:
        connector.close()


def read(cluster: Cluster, properties: dict[str, Any], *sources: str, **options: Any) -> pa.Table:
    """What a source reads of an index with this mapping and these documents, in their order."""
    index = cluster.put("things", {"properties": properties}, [(f"{number:04}", source) for number, source in enumerate(sources)])
    found = read_from(connect(cluster), index=index, **options)
    return found.sort_by("_id").drop_columns(["_id"]) if "_id" in found.column_names else found


def column(cluster: Cluster, mapping: dict[str, Any], *values: str, **options: Any) -> tuple[pa.DataType, list[Any]]:
    """The type and the values of one field, given as JSON text."""
    found = read(cluster, {"v": mapping}, *(f'{{"v": {value}}}' for value in values), **options)["v"]
    return found.type, found.to_pylist()


def stub_of(cluster: Cluster) -> Any:
    assert cluster.stub is not None
    return cluster.stub
