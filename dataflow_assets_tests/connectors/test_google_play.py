"""The Google Play connector over a bucket: the contract of a source, its keys, logging in, the example."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from dataflow_assets.cli.app import app
from dataflow_assets.connectors._csv_format import CsvFormat
from dataflow_assets.connectors.google_play import Connector, GooglePlayConnection, GooglePlaySource
from dataflow_assets.errors import ConnectionFailed, ReadFailed
from dataflow_assets.execution.events import StepFinished, WindowFailed
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import ReadRequest, TableName
from dataflow_assets_tests.connectors.contract_reading import SourceContract, messages
from dataflow_assets_tests.connectors.harness import Lossy, SourceHarness, column_type
from dataflow_assets_tests.connectors.on_objects import at, put
from dataflow_assets_tests.connectors.over_google_play import SALES, SHOP, TILL, connect, connection_to, read, write, write_installs
from dataflow_assets_tests.connectors.test_csv import TestContract as _Csv
from dataflow_assets_tests.docs.example_projects import run_pipeline, write_project
from dataflow_assets_tests.services.http_server import Answer, served
from dataflow_assets_tests.services.object_stores import StoreRoot


def _stored(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """JSON as the text that it is."""
    return column.cast(column.type.storage_type) if isinstance(column.type, pa.BaseExtensionType) else column


@dataclass
class GooglePlayHarness(SourceHarness):
    """Each table is the review report of an app of that name, with columns of its own, which are declared."""

    root: StoreRoot = field(default_factory=lambda: StoreRoot(""))
    types: dict[str, str] = field(default_factory=dict)
    _connector: Connector | None = field(default=None, repr=False)

    @property
    def connector(self) -> Connector:
        if self._connector is None:
            self._connector = connect(self.root)
        return self._connector

    def fill(self, name: str, table: pa.Table) -> None:
        self.types = {item.name: column_type(item.type) for item in table.schema}
        table = pa.table({name: _stored(table[name]) for name in table.column_names})
        text = io.BytesIO()
        writer = CsvFormat().create(text, table.schema, list)
        for batch in table.to_batches():
            writer.write(batch)
        writer.close()
        put(at(self.root, f"reviews/reviews_{name}_202403.csv"), text.getvalue().decode().encode("utf-16"))

    def source_options(self, name: str) -> GooglePlaySource:
        return GooglePlaySource(report="reviews", package_name=[name], column_types=self.types, column_names="report")


class TestGooglePlay(SourceContract):
    """UTF-16, read as a stream; types declared."""

    over = None  # Google decides the columns of its reports
    lossy: ClassVar[dict[str, Lossy]] = _Csv.lossy

    @pytest.fixture
    def harness(self, gcs_root: StoreRoot, tmp_path: Path) -> Iterator[GooglePlayHarness]:
        harness = GooglePlayHarness(tmp_path, root=gcs_root)
        yield harness
        harness.connector.close()


# -- keys


@pytest.mark.parametrize(
    ("bucket", "address"),
    [
        ("pubsite_prod_rev_01234", "gs://pubsite_prod_rev_01234/"),
        ("gs://pubsite_prod_rev_01234", "gs://pubsite_prod_rev_01234/"),
        ("gs://pubsite_prod_rev_01234/stats/installs/", "gs://pubsite_prod_rev_01234/"),
        ("gs://pubsite_prod_rev_01234/earnings", "gs://pubsite_prod_rev_01234/"),
        ("gs://lake/play/reviews/", "gs://lake/play"),
    ],
)
def test_a_bucket_as_the_console_gives_it(bucket: str, address: str) -> None:
    connection = GooglePlayConnection(bucket=bucket)
    assert connection.address == address
    assert repr(Connector(connection, ConnectionContext("play", Path()))) == f"Google Play reports in {address}"


@pytest.mark.parametrize(
    ("given", "culprit"),
    [
        ({"report": "payouts"}, "installs"),
        ({"report": "installs", "report_type": "installs"}, "either report, or report_type"),
        ({"report_type": "downloads"}, "financial"),
        ({"report": "crashes", "dimension": "country"}, "report crashes is broken down by overview, device, os_version, app_version"),
        ({"report": "earnings", "dimension": "country"}, "report earnings has no dimension"),
        ({"report_type": "installs", "dimension": "device"}, "columns and types of its own"),
        ({"report": "installs", "start_date": "2024-01"}, "write a month as 202401"),
        ({"report": "installs", "end_date": 202413}, "write a month as 202401"),
        ({"report": "installs", "start_date": 202402, "end_date": 202401}, "start_date lies after end_date"),
    ],
)
def test_keys_refused(given: dict[str, Any], culprit: str) -> None:
    with pytest.raises(ValidationError, match=culprit):
        GooglePlaySource.model_validate(given)


def test_the_keys_of_dft_are_understood() -> None:
    known = {"package_name": "com.a", "report_type": "installs", "start_date": "202401", "end_date": "202403"}
    source = GooglePlaySource.model_validate(known)
    assert (source.package_name, source.documented.name, source.by) == (["com.a"], "installs", "country")
    assert GooglePlaySource().documented.name == "earnings"
    connection = {"bucket": "pubsite_prod_rev_1", "package_name": "com.a", "service_account_file": "keys/play.json"}
    connector = Connector(GooglePlayConnection.model_validate(connection), ConnectionContext("play", Path("/project")))
    assert connector._root.store.options.service_account_file == "/project/keys/play.json"  # type: ignore[attr-defined]


def test_what_is_read_has_a_name() -> None:
    connector = Connector(GooglePlayConnection(bucket="b"), ConnectionContext("play", Path()))
    assert connector.source_table(GooglePlaySource(report="ratings", dimension="device")) == TableName("ratings_device")
    assert connector.source_table(GooglePlaySource(report="sales")) == TableName("sales")
    assert connector.source_table(GooglePlaySource()) == TableName("earnings")


# -- the bucket


def test_the_probe_reaches_the_bucket(gcs_root: StoreRoot) -> None:
    connector = connect(gcs_root)
    assert connector.probe() == f"Google Play reports in {at(gcs_root).store.url}"
    connector.close()


def test_a_bucket_that_is_not_there_says_where_its_name_stands(gcs_root: StoreRoot) -> None:
    connector = Connector(connection_to(gcs_root, bucket="pubsite_prod_rev_nowhere"), ConnectionContext("play", Path()))
    for attempt in (connector.probe, lambda: connector.source_version(GooglePlaySource(report="reviews"))):
        with pytest.raises(ConnectionFailed, match=r"connection 'play': gs://pubsite_prod_rev_nowhere does not exist") as caught:
            attempt()
        assert "Play Console > Download reports" in caught.value.hint
        assert not caught.value.transient
    with (
        pytest.raises(ConnectionFailed, match="connection 'play'"),
        connector.read(ReadRequest(GooglePlaySource(report="reviews"))),
    ):
        raise AssertionError("it was read")
    connector.close()


def test_a_service_account_that_may_not_read_is_told_whom_to_ask(tmp_path: Path) -> None:
    """Nothing of the key file is shown."""
    key = subprocess.run(["openssl", "genrsa", "2048"], capture_output=True, text=True, check=True).stdout
    file = tmp_path / "play.json"

    def route(asked: Any) -> Answer:
        if asked.path == "/token":
            return Answer({"access_token": "planted-token", "expires_in": 3600, "token_type": "Bearer"})
        assert asked.headers["authorization"] == "Bearer planted-token"
        return Answer({"error": {"code": 403, "message": "loader has no storage.objects.list access", "errors": []}}, 403)

    with served(route) as server:
        said = {"type": "service_account", "private_key": key, "client_email": "loader@example.com", "token_uri": f"{server.url}/token"}
        file.write_text(json.dumps(said))
        connection = {"bucket": "pubsite_prod_rev_1", "service_account_file": "play.json", "endpoint_url": server.url, "project": "p"}
        connector = Connector(GooglePlayConnection.model_validate(connection), ConnectionContext("play", tmp_path))
        with pytest.raises(ConnectionFailed, match=r"no storage\.objects\.list access") as caught:
            connector.probe()
        connector.close()
    assert "invite the service account" in caught.value.hint
    assert not caught.value.transient
    secrets = ["planted-token", *key.splitlines()[1:-1]]
    shown = [*messages(caught.value), repr(connector), repr(vars(connector))]
    assert not [text for text in shown for secret in secrets if secret in text]


@pytest.mark.parametrize("content", [None, "{}", "no json"])
def test_a_key_file_that_is_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "play.json").write_text(content)
    connection = GooglePlayConnection(bucket="pubsite_prod_rev_1", service_account_file="play.json")
    with pytest.raises(ConnectionFailed, match="connection 'play'") as caught:
        Connector(connection, ConnectionContext("play", tmp_path)).probe()
    assert not caught.value.transient


def test_the_version_of_a_source_changes_with_its_files_alone(gcs_root: StoreRoot) -> None:
    write_installs(gcs_root, SHOP, "202401", [1])
    connector, source = connect(gcs_root), GooglePlaySource(report="installs", package_name=[SHOP])
    before = connector.source_version(source)
    write_installs(gcs_root, TILL, "202401", [1])
    write_installs(gcs_root, SHOP, "202401", [1], dimension="country", value="DE")
    assert connector.source_version(source) == before
    write_installs(gcs_root, SHOP, "202401", [1, 2])
    changed = connector.source_version(source)
    assert changed != before
    write_installs(gcs_root, SHOP, "202402", [1])
    assert connector.source_version(source) not in {before, changed}
    connector.close()


# -- pipelines


def test_the_example_runs_and_the_doctor_sees_its_bucket(gcs_root: StoreRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in (SHOP, TILL):
        write_installs(gcs_root, package, "202401", [1, 2, 3], dimension="country", value="DE")
    folder = write_project(tmp_path, Connector.example)
    project = {"project_name": "shown", "connections": {"play": {"type": "google_play", "bucket": gcs_root.url, **gcs_root.options}}}
    (folder / "dataflow_project.yml").write_text(json.dumps(project))
    events = run_pipeline(folder)
    assert [event.error for event in events if isinstance(event, WindowFailed)] == []
    assert sum(event.published.rows for event in events if isinstance(event, StepFinished) and event.published) == 4
    with pytest.raises(SystemExit) as stop:
        app.main(["--project", str(folder), "doctor"])
    assert not stop.value.code
    assert f"play (google_play): Google Play reports in {at(gcs_root).store.url}" in capsys.readouterr().out
    found = pq.read_table(folder / "lake" / "installs_by_country").sort_by([("date", "ascending"), ("package_name", "ascending")])
    assert found["daily_user_installs"].to_pylist() == [2, 2, 4, 4]
    assert found["package_name"].to_pylist() == [SHOP, TILL] * 2
    assert set(found["country"].to_pylist()) == {"DE"}


_READING = """\
import resource
from dataflow_assets.connectors.google_play import GooglePlaySource
from dataflow_assets.tables import ReadRequest
from dataflow_assets_tests.connectors.over_google_play import connect
from dataflow_assets_tests.services.object_stores import StoreRoot

def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

connector = connect({root!r})

def rows(**options):
    with connector.read(ReadRequest(GooglePlaySource(report="sales", **options))) as reader:
        return sum(batch.num_rows for batch in reader)

few, before = rows(end_date="202401"), memory()
print(few, rows(), before, memory())
"""


def test_much_is_read_in_little_memory(gcs_root: StoreRoot, tmp_path: Path) -> None:
    """130 MB of text in a zip, and 60 MB in UTF-16, in a process of its own."""
    texts = ["GPA.1", "2024-01-05", "1704450000", "Charged", "x" * 180, "y" * 200, SHOP, "inapp", "s", "EUR", "1.00", "0", "1.00", *"abcd"]
    lines = f"{','.join(texts)}\n" * 1000
    write(gcs_root, "sales/salesreport_202401.csv", SALES, *lines.splitlines())
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, archive.open("s.csv", "w") as member:
            member.write(f"{SALES}\n".encode())
            for _ in range(300):
                member.write(lines.encode())
        _put(gcs_root, "sales/salesreport_202402.zip", file)
    with tempfile.TemporaryFile() as file:
        file.write(f"{SALES}\n".encode("utf-16"))
        for _ in range(70):
            file.write(lines.encode("utf-16-le"))
        _put(gcs_root, "sales/salesreport_202403.csv", file)
    done = subprocess.run([sys.executable, "-c", _READING.format(root=gcs_root)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    few, rows, before, peak = map(int, done.stdout.split())
    assert (few, rows) == (1_000, 371_000)
    assert peak - before < 70, (before, peak)


def _put(root: StoreRoot, name: str, file: Any) -> None:
    path = at(root, name)
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    path.store.put(path.key, file, size, expected=None, token="")


def test_absent_reports_are_told_with_what_there_is(gcs_root: StoreRoot) -> None:
    with pytest.raises(ReadFailed, match="there is no ratings report by overview in gs://"):
        read(gcs_root, report="ratings")
    write(gcs_root, f"stats/ratings/ratings_{SHOP}_202401_overview.csv", "Date,Package Name,Daily Average Rating,Total Average Rating")
    with pytest.raises(ReadFailed, match=r"there is no ratings report by overview of com\.exmaple\.shop") as caught:
        read(gcs_root, report="ratings", package_name="com.exmaple.shop")
    assert SHOP in caught.value.hint
