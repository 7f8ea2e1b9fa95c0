"""Logging into BigQuery: the keys of a connection, and the clients that they become.

Here: names, secrets, credentials. Not here: jobs and their errors (`_bigquery_session`).
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any, Self

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from dataflow_assets.errors import ConnectionFailed, MissingDriver
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.secrets import register_secret
from dataflow_assets.spec.base import Model
from dataflow_assets.windows import parse_duration

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_HINT = (
    "give credentials (the JSON of a service account's key, with env_var) or credentials_path, "
    "or sign in with gcloud auth application-default login"
)


class BigQueryConnection(Model):
    """The keys of a BigQuery connection."""

    project: str = Field(validation_alias=AliasChoices("project", "project_id"), description="the project that runs and pays for the jobs")
    dataset: str | None = Field(
        None,
        validation_alias=AliasChoices("dataset", "database", "schema"),
        description="the dataset of tables whose step names none; other-project.dataset for one of another project",
    )
    location: str | None = Field(None, description="where datasets are made and jobs run: EU, US, europe-west3, ...; default: US")
    credentials: SecretStr | None = Field(
        None, description="the JSON text of a service account's key, best taken from the environment, with env_var"
    )
    key_file: str | None = Field(
        None,
        validation_alias=AliasChoices("credentials_path", "service_account_file", "key_file"),
        description="its file; relative to the project. Without either: Google's application default credentials",
    )
    maximum_bytes_billed: int | None = Field(None, gt=0, description="a job that would bill more bytes than these is refused")
    labels: dict[str, str] = Field(default_factory=dict, description="labels of every job, by which bills can be told apart")
    storage_api: bool | None = Field(
        None, description="read results over the Storage Read API; default: yes, unless its library is missing or endpoint is set"
    )
    statement_timeout: str = Field("1h", description="how long one job may take")
    lock_timeout: str = Field("10min", description="how long a publish is tried again that another one of the same dataset aborted")
    retry_timeout: str = Field("1min", description="how long a request is tried again when the network or the service fails")
    endpoint: str | None = Field(None, description="in place of https://bigquery.googleapis.com, as with an emulator")
    storage_endpoint: str | None = Field(None, description="host:port in place of the Storage Read API's own")

    @field_validator("statement_timeout", "lock_timeout", "retry_timeout")
    @classmethod
    def _timeouts_are_durations(cls, value: str) -> str:
        parse_duration(value)
        return value

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.credentials is not None and self.key_file is not None:
            raise ValueError("write either credentials or credentials_path")
        return self

    @property
    def plain(self) -> bool:
        """Whether the endpoint speaks without encryption, as an emulator does: then nobody logs in."""
        return self.endpoint is not None and self.endpoint.startswith("http://")

    def seconds(self, name: str) -> float:
        """One of the timeouts."""
        return max(parse_duration(getattr(self, name)).total_seconds(), 1.0)


def register_secrets(connection: BigQueryConnection) -> None:
    """Have the key masked wherever text is shown, whole and by its private part."""
    if connection.credentials is None:
        return
    text = connection.credentials.get_secret_value()
    register_secret(text)
    try:
        found = json.loads(text)
    except ValueError:
        return
    for name in ("private_key", "private_key_id"):
        if isinstance(found, dict) and isinstance(found.get(name), str):
            register_secret(found[name])


class Login:
    """The clients of one connection; credentials are read once, when the first client is made."""

    def __init__(self, connection: BigQueryConnection, context: ConnectionContext) -> None:
        self.connection, self.name = connection, context.name
        self._folder = context.project_dir
        self._credentials: Any = None
        self._lock = threading.Lock()

    def client(self) -> Any:
        """A client for jobs and tables."""
        from google.cloud import bigquery

        options = {"api_endpoint": self.connection.endpoint} if self.connection.endpoint else {}
        return bigquery.Client(
            project=self.connection.project,
            credentials=self._known(),
            location=self.connection.location,
            client_options=options,
        )

    def storage_client(self) -> Any | None:
        """A client of the Storage Read API, None where results are read over REST."""
        wanted = self.connection.storage_api
        if wanted is False or (wanted is None and self.connection.endpoint and not self.connection.storage_endpoint):
            return None
        try:
            import google.cloud.bigquery_storage as bigquery_storage
        except ModuleNotFoundError as error:
            if wanted:
                raise MissingDriver(kind="bigquery", module="google.cloud.bigquery_storage") from error
            return None
        if self.connection.plain and self.connection.storage_endpoint:
            return self._plain_storage_client(self.connection.storage_endpoint)
        options = {"api_endpoint": self.connection.storage_endpoint} if self.connection.storage_endpoint else {}
        return bigquery_storage.BigQueryReadClient(credentials=self._known(), client_options=options)

    @staticmethod
    def _plain_storage_client(address: str) -> Any:
        import grpc
        from google.cloud import bigquery_storage
        from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

        unlimited = [("grpc.max_receive_message_length", -1)]  # as Google's own channel is
        channel = grpc.insecure_channel(address, options=unlimited)
        return bigquery_storage.BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))

    def _known(self) -> Any:
        with self._lock:
            if self._credentials is None:
                self._credentials = self._read()
            return self._credentials

    def _read(self) -> Any:
        import google.auth
        import google.auth.credentials
        from google.auth.exceptions import GoogleAuthError
        from google.oauth2 import service_account

        try:
            if (key := self._key()) is not None:
                return service_account.Credentials.from_service_account_info(key, scopes=_SCOPES)
            if self.connection.plain:
                return google.auth.credentials.AnonymousCredentials()
            return google.auth.default(scopes=_SCOPES)[0]
        except (GoogleAuthError, ValueError) as error:
            said = f"connection {self.name!r}: there are no credentials that can be read ({type(error).__name__})"
            raise ConnectionFailed(said, hint=_HINT, transient=False) from None  # the cause may quote the key

    def _key(self) -> dict[str, Any] | None:
        """The key of a service account."""
        if self.connection.credentials is not None:
            text = self.connection.credentials.get_secret_value()
        elif self.connection.key_file is not None:
            try:
                text = (self._folder / Path(self.connection.key_file).expanduser()).read_text()
            except OSError as error:
                raise ConnectionFailed(f"connection {self.name!r}: {error}", hint="check credentials_path", transient=False) from error
        else:
            return None
        key = json.loads(text)
        if not isinstance(key, dict):
            raise ValueError("not an object")
        return key
