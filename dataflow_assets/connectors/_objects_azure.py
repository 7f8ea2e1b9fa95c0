"""Azure Blob Storage, by azure-storage-blob.

Here: the requests and what their failures mean. Not here: options and addresses (`_object_stores`), publishing
(`storage.places`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, ClassVar

from dataflow_assets.connectors._object_stores import TOKEN_KEY, LazyStore, needs
from dataflow_assets.error_kinds import status_kind
from dataflow_assets.errors import ConnectionFailed
from dataflow_assets.storage.objects import Changed, ObjectInfo

_BLOCK_BYTES = 16 * 1024 * 1024


class Store(LazyStore):
    """One container."""

    scheme: ClassVar[str] = "az"

    def _make(self) -> Any:
        blob = needs("azure.storage.blob", extra="azure")
        options = self.options
        sizes = {"max_single_put_size": _BLOCK_BYTES, "max_block_size": _BLOCK_BYTES}
        with self._translated(""):
            said = os.environ.get("AZURE_STORAGE_CONNECTION_STRING")
            if said and not (options.key or options.endpoint_url):
                return blob.ContainerClient.from_connection_string(said, self.bucket, **sizes)
            account = options.key or os.environ.get("AZURE_STORAGE_ACCOUNT")
            if not (account or options.endpoint_url):
                raise ConnectionFailed(
                    f"{self.url}: no storage account is named", hint="give key in storage_options: the account's name", transient=False
                )
            url = options.endpoint_url or f"https://{account}.blob.core.windows.net"
            return blob.ContainerClient(url, self.bucket, credential=self._credential(account), **sizes)

    def _credential(self, account: str | None) -> Any:
        options = self.options
        secret = options.secret.get_secret_value() if options.secret else os.environ.get("AZURE_STORAGE_KEY")
        if options.anonymous:
            return None
        if options.token:
            return needs("azure.core.credentials", extra="azure").AzureSasCredential(options.token.get_secret_value())
        if secret:
            return {"account_name": account, "account_key": secret}
        return needs("azure.identity", extra="azure").DefaultAzureCredential()

    def head(self, key: str) -> ObjectInfo | None:
        try:
            with self._translated(key):
                found = self.client.get_blob_client(key).get_blob_properties()
        except Changed:
            return None
        return ObjectInfo(key, found.size, found.etag, (found.metadata or {}).get(TOKEN_KEY, ""))

    def objects(self, prefix: str, *, deep: bool) -> Iterator[ObjectInfo]:
        with self._translated(prefix, reading=False):
            found = self.client.list_blobs(name_starts_with=prefix) if deep else self.client.walk_blobs(name_starts_with=prefix)
            for item in found:
                if getattr(item, "etag", None):  # a prefix has none
                    etag = item.etag if item.etag.startswith('"') else f'"{item.etag}"'  # listings leave out the quotes
                    yield ObjectInfo(item.name, item.size, etag)

    def get(self, key: str) -> tuple[bytes, str] | None:
        try:
            with self._translated(key):
                found = self.client.get_blob_client(key).download_blob()
                return found.readall(), found.properties.etag
        except Changed:
            return None

    def read(self, info: ObjectInfo, start: int, length: int) -> bytes:
        with self._translated(info.key):
            unchanged = needs("azure.core", extra="azure").MatchConditions.IfNotModified
            blob = self.client.get_blob_client(info.key)
            content: bytes = blob.download_blob(start, length, etag=info.version, match_condition=unchanged).readall()
        return content

    def put(self, key: str, file: BinaryIO, size: int, *, expected: str | None, token: str) -> None:
        with self._translated(key):
            conditions = needs("azure.core", extra="azure").MatchConditions
            state = {"etag": expected, "match_condition": conditions.IfNotModified} if expected else {}
            self.client.get_blob_client(key).upload_blob(
                file, length=size, overwrite=expected is not None, metadata={TOKEN_KEY: token}, **state
            )

    @contextmanager
    def _translated(self, key: str, *, reading: bool = True) -> Iterator[None]:
        """Failures as ours. A blob that is gone has changed; a container that is gone is told as such."""
        needs("azure.storage.blob", extra="azure")
        from azure.core import exceptions as failures

        try:
            yield
        except failures.ResourceNotFoundError as error:
            if reading and getattr(error, "error_code", "") != "ContainerNotFound":
                raise Changed(key) from error
            raise ConnectionFailed(f"{self.url} does not exist", hint="correct the container in root", transient=False) from error
        except (failures.ResourceModifiedError, failures.ResourceExistsError) as error:
            raise Changed(key) from error
        except failures.ClientAuthenticationError as error:
            hint = "see key and secret in storage_options, and that the account has the role Storage Blob Data Contributor"
            raise ConnectionFailed(f"{self.url}: {_first_line(error)}", hint=hint, transient=False) from error
        except failures.HttpResponseError as error:
            status = error.status_code or 503
            if status in {409, 412}:
                raise Changed(key) from error
            raise ConnectionFailed(f"{self.url}/{key}: {_first_line(error)}", kind=status_kind(status)) from error
        except failures.AzureError as error:
            raise ConnectionFailed(
                f"{self.url} cannot be reached: {_first_line(error)}", hint="see endpoint_url and the network"
            ) from error
        except ValueError as error:
            raise ConnectionFailed(f"{self.url}: {error}", hint="see storage_options", transient=False) from error


def _first_line(error: Exception) -> str:
    """What the service says; the rest names the request."""
    return str(error).partition("\n")[0]
