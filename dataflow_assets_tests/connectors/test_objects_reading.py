"""Tests of reading files from object stores: what a path means, one state of each object, little memory, errors that say what to do."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataflow_assets.connectors._object_stores import StorageOptions, key_of, needs, object_path
from dataflow_assets.connectors.csv import Connector, CsvSource
from dataflow_assets.connectors.json import JsonSource
from dataflow_assets.connectors.parquet import ParquetSource
from dataflow_assets.errors import ConnectionFailed, MissingDriver, ReadFailed
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.storage import objects
from dataflow_assets.storage.objects import ObjectInfo, RangeFile
from dataflow_assets.tables import ReadRequest
from dataflow_assets_tests.connectors.contract_base import where
from dataflow_assets_tests.connectors.harness import assert_same_rows, day, events
from dataflow_assets_tests.connectors.on_objects import at, connector_at, put
from dataflow_assets_tests.services.http_server import Answer, served
from dataflow_assets_tests.services.object_stores import StoreRoot


def read(connector: Any, options: Any, **request: Any) -> pa.Table:
    """What a source step with these options reads."""
    with connector.read(ReadRequest(options, **request)) as reader:
        return reader.read_all()


def parquet_bytes(table: pa.Table, **options: Any) -> bytes:
    """The table as a Parquet file."""
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def test_files_folders_and_globs(store_root: StoreRoot, tmp_path: Path) -> None:
    objects_there = {
        "landing/1.csv": b"a,b\n1,x\n",
        "landing/2.csv": b"b,a\ny,2\n",
        "landing/.hidden.csv": b"q\n",
        "landing/_part.csv": b"q\n",
        "landing/notes.md": b"q\n",
        "landing/deep/3.csv": b"a,b\n3,z\n",
        "landing2/4.csv": b"a,b\n4,z\n",
        "lines.jsonl": b'{"a": 1}\n{"a": 2}\n',
        "events.parquet": parquet_bytes(events(day(0))),
    }
    for name, content in objects_there.items():
        put(at(store_root, name), content)
    connector = connector_at("csv", store_root, tmp_path)
    expected = {
        "landing/1.csv": [1],
        "landing": [1, 2],
        "landing/": [1, 2],
        "./landing//*.csv": [1, 2],
        "landing/[!2].csv": [1],
        "*/?.csv": [1, 2, 4],
        "landing/**/*.csv": [3, 1, 2],
        "**/3.csv": [3],
        f"{store_root.url}/landing2/*": [4],
    }
    for path, found in expected.items():
        assert sorted(read(connector, CsvSource(file_path=path))["a"].to_pylist()) == sorted(found), path
    assert read(connector_at("json", store_root, tmp_path), JsonSource(file_path="lines.jsonl"))["a"].to_pylist() == [1, 2]
    parquet = connector_at("parquet", store_root, tmp_path)
    assert_same_rows(events(day(0)), read(parquet, ParquetSource(file_path="*.parquet")))
    assert read(parquet, ParquetSource(file_path="events.parquet"), window=where(day(1)), columns=("id",)).num_rows == 0
    assert connector.probe() == f"csv files in {at(store_root).store.url}"
    for path in ("nowhere", "nowhere.csv", "landing/*.tsv"):
        with pytest.raises(ReadFailed) as caught:
            read(connector, CsvSource(file_path=path))
        assert path in str(caught.value)
        assert caught.value.hint
    connector.close()
    assert read(connector, CsvSource(file_path="landing/1.csv")).num_rows == 1


def test_the_version_of_a_source_is_that_of_its_objects(store_root: StoreRoot, tmp_path: Path) -> None:
    connector = connector_at("csv", store_root, tmp_path)
    put(at(store_root, "in/1.csv"), b"a\n1\n")
    first = connector.source_version(CsvSource(file_path="in"))
    assert connector.source_version(CsvSource(file_path="in")) == first
    put(at(store_root, "in/1.csv"), b"a\n2\n")
    second = connector.source_version(CsvSource(file_path="in"))
    put(at(store_root, "in/2.csv"), b"a\n2\n")
    assert len({first, second, connector.source_version(CsvSource(file_path="in"))}) == 3


def test_a_listing_of_many_pages(s3_root: StoreRoot, tmp_path: Path) -> None:
    many = at(s3_root, "many")
    for number in range(1005):
        many.store.put(f"{many.key}/{number:04}.csv", io.BytesIO(b"a\n"), 2, expected=None, token="")
    connector = connector_at("csv", s3_root, tmp_path)
    assert len(connector.sources("many/")) == len(connector.sources("many/*.csv")) == 1005


@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_an_object_that_is_replaced_while_it_is_read_is_refused(
    store_root: StoreRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(objects, "_WHOLE_BYTES", 0)
    rows = "".join(f"{n},{'x' * 90}\n" for n in range(60_000))
    put(at(store_root, "in/1.csv"), f"a,b\n{rows}".encode())
    put(at(store_root, "in/2.csv"), b"a,b\n1,x\n")
    connector = connector_at("csv", store_root, tmp_path)
    with connector.read(ReadRequest(CsvSource(file_path="in"), batch_rows=1000)) as reader:
        reader.read_next_batch()
        if change == "replaced":
            put(at(store_root, "in/2.csv"), b"a,b\n2,x\n")
        else:
            _delete(store_root, "in/2.csv")
        with pytest.raises(ReadFailed, match=r"2\.csv was replaced") as caught:
            reader.read_all()
    assert caught.value.transient


def _delete(root: StoreRoot, name: str) -> None:
    path = at(root, name)
    store: Any = path.store
    if store.scheme == "s3":
        store.client.delete_object(Bucket=store.bucket, Key=path.key)
    elif store.scheme == "gs":
        store.client.bucket(store.bucket).blob(path.key).delete()
    else:
        store.client.delete_blob(path.key)


@pytest.mark.parametrize("name", ["with space.csv", "a+b%20.csv", "😀/ü.csv", "quote's.csv", "semi;colon&.csv"])
def test_hostile_keys(store_root: StoreRoot, tmp_path: Path, name: str) -> None:
    put(at(store_root, name), b"a\n1\n")
    connector = connector_at("csv", store_root, tmp_path)
    assert read(connector, CsvSource(file_path=name))["a"].to_pylist() == [1]
    assert [path.key for path in connector.sources("**/*.csv")] == [at(store_root, name).key]


def test_compressed_text_and_other_encodings(s3_root: StoreRoot, tmp_path: Path) -> None:
    put(at(s3_root, "x.csv.gz"), gzip.compress(b"a\n1\n"))
    put(at(s3_root, "x.csv"), "ä\nü\n".encode("cp1252"))
    put(at(s3_root, "x.ndjson.gz"), gzip.compress(b'{"a": 1}\n'))
    connector = connector_at("csv", s3_root, tmp_path)
    assert read(connector, CsvSource(file_path="x.csv.gz"))["a"].to_pylist() == [1]
    assert read(connector, CsvSource(file_path="x.csv", encoding="cp1252"))["ä"].to_pylist() == ["ü"]
    assert read(connector_at("json", s3_root, tmp_path), JsonSource(file_path="x.ndjson.gz"))["a"].to_pylist() == [1]


def test_only_the_ranges_that_are_needed_are_fetched(s3_root: StoreRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    days = [events(day(number), rows=20_000) for number in range(4)]
    noise = pa.array([bytes([number % 251]) * 7 + number.to_bytes(8, "big") * 12 for number in range(80_000)])
    table = pa.concat_tables(days).append_column("noise", noise)
    content = parquet_bytes(table, row_group_size=20_000, compression="none", use_dictionary=False)
    put(at(s3_root, "x.parquet"), content)
    assert len(content) > objects._WHOLE_BYTES
    fetched = []
    connector = connector_at("parquet", s3_root, tmp_path)
    original = type(at(s3_root).store).read
    monkeypatch.setattr(type(at(s3_root).store), "read", lambda *asked: fetched.append(asked[3]) or original(*asked))
    found = read(connector, ParquetSource(file_path="x.parquet", columns=["id", "at", "note"]), window=where(day(2)))
    assert_same_rows(days[2], found)
    assert sum(fetched) < len(content) / 3


def test_a_range_file_reads_like_a_file() -> None:
    content = bytes(range(256)) * 40_000
    asked: list[tuple[int, int]] = []

    class Store:
        url = "s3://bucket"

        def read(self, info: ObjectInfo, start: int, length: int) -> bytes:
            asked.append((start, length))
            return content[start : start + length]

    info = ObjectInfo("x", len(content), "v")
    file, plain = RangeFile(objects.ObjectPath(Store(), "x", info), info), io.BytesIO(content)  # type: ignore[arg-type]
    steps: list[Callable[[Any], object]] = [
        *(lambda f: f.seek(-5, 2), lambda f: f.read(), lambda f: f.seek(1_000_000), lambda f: f.read(10), lambda f: f.read(3_000_000)),
        *(lambda f: f.seek(7, 1), lambda f: f.tell(), lambda f: f.read(1), lambda f: f.seek(0), lambda f: f.read(), lambda f: f.read(5)),
    ]
    for step in steps:
        assert step(file) == step(plain)
    assert max(length for _, length in asked) <= 8 * 1024 * 1024
    assert len(asked) < 20


def test_reading_a_large_object_holds_little(s3_root: StoreRoot, tmp_path: Path) -> None:
    """100 MB of text in at most 300 MB, interpreter, libraries and client included."""
    row = f"note {'x' * 70},2024-01-01T00:00:00\n"
    with io.BytesIO() as file:
        file.write(b"id,note,at\n")
        for start in range(0, 1_000_000, 10_000):
            file.write("".join(f"{n},{row}" for n in range(start, start + 10_000)).encode())
        path = at(s3_root, "in.csv")
        path.store.put(path.key, file, file.seek(0) or len(file.getbuffer()), expected=None, token="")
    program = (
        "import json, sys\nfrom pathlib import Path\nfrom dataflow_assets_tests.connectors.on_objects import *\n"
        "from dataflow_assets.connectors.csv import CsvSource\nfrom dataflow_assets.tables import ReadRequest\n"
        "before = int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) // 1024\n"
        "c = connector_at('csv', StoreRoot(sys.argv[1], json.loads(sys.argv[2])), Path('.'))\n"
        "with c.read(ReadRequest(CsvSource(file_path='in.csv'))) as r: print(sum(b.num_rows for b in r))\n"
        "print(int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) // 1024 - before)"
    )
    import json

    command = [sys.executable, "-c", program, s3_root.url, json.dumps(s3_root.options)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert int(out[0]) == 1_000_000
    assert int(out[1]) < 200


# errors


def _answer(status: int, code: str) -> Callable[[Any], Answer]:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
    return lambda _: Answer(body, status, {"Content-Type": "application/xml"})


@pytest.mark.parametrize(
    ("status", "code", "transient", "hint"),
    [
        (403, "AccessDenied", False, "s3:ListBucket"),
        (403, "InvalidAccessKeyId", False, "AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", False, "secret"),
        (400, "ExpiredToken", False, "token"),
        (404, "NoSuchBucket", False, "root"),
        (503, "SlowDown", True, ""),
        (500, "InternalError", True, ""),
    ],
)
def test_what_s3_refuses_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, code: str, transient: bool, hint: str
) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    secret = "planted-secret-key"
    with served(_answer(status, code)) as server:
        options = {"endpoint_url": server.url, "region": "us-east-1", "key": "k", "secret": secret}
        connector = connector_at("csv", StoreRoot("s3://bucket/x", options), tmp_path)
        for attempt in (connector.probe, lambda: read(connector, CsvSource(file_path="in/*.csv"))):
            with pytest.raises(ConnectionFailed, match="s3://bucket") as caught:
                attempt()
            assert caught.value.transient == transient
            assert hint in caught.value.hint
            assert secret not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r} {connector!r}"


@pytest.mark.parametrize("url", ["s3://bucket/x", "gs://bucket/x", "az://bucket/x"])
def test_a_store_that_is_away_is_told(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    if url.startswith("gs"):
        needs("google.cloud.storage", extra="gcs")
        monkeypatch.setattr("google.cloud.storage.retry.DEFAULT_RETRY._timeout", 0.1)
    options = {"endpoint_url": "http://127.0.0.1:9", "key": "k", "secret": "cGxhbnRlZA==", "region": "r", "anonymous": url.startswith("gs")}
    connector = connector_at("csv", StoreRoot(url, options), tmp_path)
    with pytest.raises(ConnectionFailed) as caught:
        connector.probe()
    assert caught.value.transient
    assert caught.value.hint


def test_a_bucket_that_is_not_there_is_told(store_root: StoreRoot, tmp_path: Path) -> None:
    scheme = store_root.url.partition("://")[0]
    connector = connector_at("csv", StoreRoot(f"{scheme}://no-such-bucket/x", store_root.options), tmp_path)
    for attempt in (connector.probe, lambda: read(connector, CsvSource(file_path="in/*.csv"))):
        with pytest.raises(ConnectionFailed, match="no-such-bucket") as caught:
            attempt()
        assert not caught.value.transient


def test_an_address_of_no_store_is_refused(tmp_path: Path) -> None:
    for url in ("ftp://host/x", "s3:///x", "://"):
        with pytest.raises(ConnectionFailed, match="no address"):
            connector_at("csv", StoreRoot(url), tmp_path)


def test_constructing_imports_no_driver() -> None:
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from dataflow_assets.connectors.csv import *\nfrom dataflow_assets.connectors._files import *\n"
        "for url in ('s3://b/x', 'gs://b/x', 'az://b/x'):\n"
        "    Connector(FileConnection(root=url), ConnectionContext('lake', Path('.')))\n"
        "print([name for name in ('botocore', 'google.cloud', 'azure') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(("url", "module"), [("s3://b", "botocore"), ("gs://b", "google.cloud.storage"), ("az://b", "azure.storage.blob")])
def test_a_missing_driver_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDriver, match=module):
        connector_at("csv", StoreRoot(url), tmp_path).probe()


def test_paths_stay_inside_the_bucket() -> None:
    assert key_of("a/./b//../c/") == "a/c"
    assert key_of("../../etc") == "etc"
    assert str(object_path("s3://bucket/a/b", StorageOptions()) / "c.csv") == "s3://bucket/a/b/c.csv"


def test_a_local_connection_may_read_an_address(s3_root: StoreRoot, tmp_path: Path) -> None:
    from dataflow_assets.connectors._files import FileConnection

    put(at(s3_root, "x.csv"), b"a\n1\n")
    connector = Connector(FileConnection(storage_options=s3_root.options), ConnectionContext("csv", tmp_path))  # type: ignore[arg-type]
    assert read(connector, CsvSource(file_path=f"{s3_root.url}/x.csv"))["a"].to_pylist() == [1]
