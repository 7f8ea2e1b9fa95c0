"""Logging into BigQuery, what its jobs are sent with, and the errors of Google's client."""

from __future__ import annotations

import concurrent.futures
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.api_core import exceptions as failures
from google.auth import exceptions as logins
from pydantic import ValidationError
from requests import exceptions as lines

from dataflow_assets.connectors._bigquery_errors import failure
from dataflow_assets.connectors._bigquery_login import BigQueryConnection, Login
from dataflow_assets.connectors._bigquery_session import configured
from dataflow_assets.connectors.bigquery import BigQueryEndpoint, BigQuerySource
from dataflow_assets.errors import ConnectionFailed, DataflowError, MissingDriver, ReadFailed, ValueRefused, WriteFailed
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.secrets import mask
from dataflow_assets.tables import ReadRequest
from dataflow_assets_tests.connectors.test_bigquery import BigQueryHarness, connect
from dataflow_assets_tests.services.bigquery import run


@pytest.fixture
def harness(bigquery_keys: dict[str, Any], tmp_path: Path) -> Iterator[BigQueryHarness]:
    made = BigQueryHarness(tmp_path, keys=bigquery_keys)
    yield made
    made.connector.close()


# -- connections


def test_doctor_is_told_project_account_and_dataset(harness: BigQueryHarness) -> None:
    said = harness.connector.probe()
    assert f"project {harness.keys['project']} as " in said
    assert said.endswith(f"dataset {harness.keys['dataset']} does not exist yet")
    run(harness.keys, "SELECT 1")
    assert f"dataset {harness.keys['dataset']} in " in harness.connector.probe()


def test_a_table_without_a_dataset_is_refused(harness: BigQueryHarness, tmp_path: Path) -> None:
    keys = {name: value for name, value in harness.keys.items() if name != "dataset"}
    connector = connect(keys, tmp_path)
    with pytest.raises(ValueRefused, match="no saying") as caught, connector.read(ReadRequest(BigQuerySource(table="t"))):
        pass
    assert "dataset" in caught.value.hint


KEY = {"type": "service_account", "private_key_id": "c0ffee-key-id", "private_key": "planted secret", "client_email": "a@b.c"}


@pytest.mark.parametrize("text", [json.dumps(KEY), "{planted secret", '["planted secret"]'])
def test_no_credential_is_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / "key.json").write_text(text)
    for given in ({"credentials": text}, {"credentials_path": "key.json"}):
        connector = connect({"project": "p", **given}, tmp_path)
        with pytest.raises(ConnectionFailed, match="credentials that can be read") as caught:
            connector.probe()
        assert not caught.value.transient
        shown = [str(caught.value), repr(caught.value), repr(caught.value.__cause__), repr(connector)]
        assert not [said for said in shown if "planted secret" in said]
        assert caught.value.__cause__ is None
    assert "planted secret" not in mask(f"the key is {KEY['private_key']}") or text != json.dumps(KEY)


def test_a_driver_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.cloud.bigquery_storage", None)
    assert Login(BigQueryConnection(project="p"), ConnectionContext("w", tmp_path)).storage_client() is None
    with pytest.raises(MissingDriver, match="bigquery_storage"):
        Login(BigQueryConnection(project="p", storage_api=True), ConnectionContext("w", tmp_path)).storage_client()
    monkeypatch.setitem(sys.modules, "google.cloud.bigquery", None)
    with pytest.raises(MissingDriver, match=r"google\.cloud\.bigquery") as caught:
        connect({"project": "p"}, tmp_path).probe()
    assert caught.value.hint == 'pip install "dataflow-assets[bigquery]"'


def test_a_key_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailed, match=r"nowhere\.json"):
        connect({"project": "p", "credentials_path": "nowhere.json"}, tmp_path).probe()


@pytest.mark.parametrize(
    "keys",
    [
        {"project": "p", "credentials": "{}", "credentials_path": "key.json"},
        {"project": "p", "statement_timeout": "soon"},
        {"project": "p", "maximum_bytes_billed": 0},
        {"dataset": "d"},
    ],
)
def test_keys_that_make_no_sense_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BigQueryConnection.model_validate(keys)


def test_keys_of_older_projects_are_known() -> None:
    assert BigQueryConnection.model_validate({"project_id": "p", "database": "mart"}).dataset == "mart"
    assert BigQuerySource.model_validate({"table_name": "t", "table_schema": "mart"}).dataset == "mart"
    assert BigQueryEndpoint.model_validate({"table_name": "t", "dataset": "mart"}).table == "t"


def test_what_a_job_is_sent_with(tmp_path: Path) -> None:
    connection = BigQueryConnection(project="p", maximum_bytes_billed=10**9, labels={"team": "mart"}, statement_timeout="2min")
    config = configured(connection, {"a": 1, "b": None, "c": ["x"]})
    assert (config.maximum_bytes_billed, config.labels, int(config.job_timeout_ms)) == (10**9, {"team": "mart"}, 120_000)
    assert [(item.name, getattr(item, "type_", None) or item.array_type) for item in config.query_parameters] == [
        *(("a", "INT64"), ("b", "TIMESTAMP"), ("c", "STRING")),
    ]


# -- errors


def _error(kind: type[failures.GoogleAPICallError], reason: str, message: str = "no") -> Exception:
    return kind(message, errors=[{"reason": reason, "message": message}])


CONFLICT = "Transaction is aborted due to concurrent update against table p:d.t. Transaction ID: 1"


@pytest.mark.parametrize(
    ("error", "kind", "transient", "hint"),
    [
        (_error(failures.BadRequest, "invalidQuery", CONFLICT), WriteFailed, True, "tried again"),
        (_error(failures.BadRequest, "invalidQuery", "Could not serialize access due to concurrent update"), WriteFailed, True, ""),
        (_error(failures.BadRequest, "invalidQuery", "Bad double value"), WriteFailed, False, "fit its column"),
        (_error(failures.Forbidden, "accessDenied"), WriteFailed, False, "Data Editor"),
        (_error(failures.Forbidden, "rateLimitExceeded"), WriteFailed, True, ""),
        (_error(failures.Forbidden, "quotaExceeded"), WriteFailed, True, "Quotas"),
        (_error(failures.NotFound, "notFound"), WriteFailed, False, "location"),
        (_error(failures.BadRequest, "bytesBilledLimitExceeded"), WriteFailed, False, "maximum_bytes_billed"),
        (_error(failures.InternalServerError, "jobInternalError"), WriteFailed, True, ""),
        (_error(failures.ServiceUnavailable, "backendError"), ConnectionFailed, True, "status.cloud.google.com"),
        (failures.BadGateway("html"), ConnectionFailed, True, "status.cloud.google.com"),
        (failures.TooManyRequests("slow down"), WriteFailed, True, ""),
        (failures.Unauthorized("who"), ConnectionFailed, False, "credentials"),
        (failures.RetryError("gave up", cause=None), ConnectionFailed, True, "network"),
        (logins.RefreshError("revoked"), ConnectionFailed, False, "credentials"),
        (logins.TransportError("no route"), ConnectionFailed, True, "network"),
        (lines.ConnectionError("refused"), ConnectionFailed, True, "network"),
        (concurrent.futures.TimeoutError(), WriteFailed, True, "statement_timeout"),
    ],
    ids=lambda value: f"{type(value).__name__} {str(value)[:30]}" if isinstance(value, Exception) else "",
)
def test_errors_are_told_apart(error: Exception, kind: type[DataflowError], transient: bool, hint: str) -> None:
    found = failure(error, "publishing", WriteFailed)
    assert type(found) is kind
    assert found.transient is transient
    assert hint in found.hint
    assert "publishing" in found.message


def test_a_wrong_query_is_no_failed_write() -> None:
    assert type(failure(_error(failures.BadRequest, "invalidQuery", "Unrecognized name: x"), "reading", ReadFailed)) is ReadFailed
