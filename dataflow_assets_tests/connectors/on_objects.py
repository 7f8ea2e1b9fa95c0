"""The harnesses of csv, json and parquet with their files in an object store.

Here: one root, one format, one harness; objects as others see them. Not here: the stores (`services.object_stores`), the promises.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dataflow_assets.connectors import csv as csv_connector
from dataflow_assets.connectors import json as json_connector
from dataflow_assets.connectors import parquet as parquet_connector
from dataflow_assets.connectors._files import FileConnection
from dataflow_assets.connectors._object_stores import object_path
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.secrets import register_secret
from dataflow_assets.storage.objects import ObjectPath
from dataflow_assets_tests.connectors.harness import Harness
from dataflow_assets_tests.connectors.test_csv import CsvHarness
from dataflow_assets_tests.connectors.test_json import JsonHarness
from dataflow_assets_tests.connectors.test_parquet import ParquetHarness
from dataflow_assets_tests.services.object_stores import StoreRoot

CONNECTORS: dict[str, Any] = {
    "csv": csv_connector.Connector,
    "json": json_connector.Connector,
    "ndjson": json_connector.Connector,
    "parquet": parquet_connector.Connector,
    "folder": parquet_connector.Connector,
}


def connector_at(kind: str, root: StoreRoot, folder: Path) -> Any:
    """The connector whose paths are relative to `root`."""
    connector = CONNECTORS[kind]
    return connector(FileConnection(root=root.url, storage_options=root.options), ConnectionContext("lake", folder))


def harness_at(kind: str, root: StoreRoot, scratch: Path) -> Harness:
    """The harness of a format (`folder`: one Parquet file per window)."""
    harness: Any
    if kind == "csv":
        harness = CsvHarness(scratch)
    elif kind in {"json", "ndjson"}:
        harness = JsonHarness(scratch, ending=f".{kind}")
    else:
        harness = ParquetHarness(scratch, ending="/" if kind == "folder" else ".parquet")
    harness._connector = connector_at(kind, root, scratch)
    harness.secret = root.secret
    if root.secret:
        register_secret(root.secret)
    return harness


def place_of(kind: str, root: StoreRoot) -> str:
    """What a process of its own needs to find the same target."""
    return json.dumps({"kind": kind, "url": root.url, "options": root.options})


def harness_of(place: str, scratch: Path) -> Harness:
    """The harness that `place_of` describes."""
    said = json.loads(place)
    return harness_at(said["kind"], StoreRoot(said["url"], said["options"]), scratch)


def at(root: StoreRoot, name: str = "") -> ObjectPath:
    """An object below the root, as anybody may reach it."""
    path = object_path(root.url, FileConnection(storage_options=root.options).storage_options)
    return path / name if name else path


def put(path: ObjectPath, content: bytes) -> None:
    """Write an object as somebody else would: over whatever is there, without a token."""
    import io

    info = path.store.head(path.key)
    path.store.put(path.key, io.BytesIO(content), len(content), expected=info.version if info else None, token="")


def content(path: ObjectPath) -> bytes:
    """The bytes of an object."""
    found = path.store.get(path.key)
    assert found is not None, path
    return found[0]


def names(root: StoreRoot) -> list[str]:
    """The keys of all objects below the root, relative to it."""
    path = at(root)
    return [info.key.removeprefix(f"{path.key}/") for info in path.store.objects(f"{path.key}/", deep=True)]
