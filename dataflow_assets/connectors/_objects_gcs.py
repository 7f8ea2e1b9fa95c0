"""Google Cloud Storage, by google-cloud-storage.

Here: the requests and what their failures mean; the version of an object is its generation. Not here: options and addresses
(`_object_stores`), publishing (`storage.places`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, ClassVar

from dataflow_assets.connectors._object_stores import TOKEN_KEY, LazyStore, needs
from dataflow_assets.error_kinds import status_kind
from dataflow_assets.errors import ConnectionFailed
from dataflow_assets.storage.objects import Changed, ObjectInfo

_CHUNK_BYTES = 16 * 1024 * 1024
_SECONDS = 60


class Store(LazyStore):
    """One bucket."""

    scheme: ClassVar[str] = "gs"

    def _make(self) -> Any:
        storage = needs("google.cloud.storage", extra="gcs")
        options = self.options
        with self._translated(""):
            where = {"client_options": {"api_endpoint": options.endpoint_url}} if options.endpoint_url else {}
            if options.anonymous:
                credentials = needs("google.auth.credentials", extra="gcs").AnonymousCredentials()
                return storage.Client(project=options.project or "anonymous", credentials=credentials, **where)
            if options.service_account_file:
                return storage.Client.from_service_account_json(options.service_account_file, project=options.project, **where)
            return storage.Client(project=options.project, **where)

    def _blob(self, key: str) -> Any:
        return self.client.bucket(self.bucket).blob(key)

    def head(self, key: str) -> ObjectInfo | None:
        with self._translated(key):
            blob = self.client.bucket(self.bucket).get_blob(key, timeout=_SECONDS)
            return None if blob is None else _info(blob)

    def objects(self, prefix: str, *, deep: bool) -> Iterator[ObjectInfo]:
        with self._translated(prefix, reading=False):
            delimiter = None if deep else "/"
            for blob in self.client.list_blobs(self.bucket, prefix=prefix or None, delimiter=delimiter, timeout=_SECONDS):
                yield _info(blob)

    def get(self, key: str) -> tuple[bytes, str] | None:
        while (info := self.head(key)) is not None:
            try:
                return self.read(info, 0, info.size), info.version
            except Changed:
                continue
        return None

    def read(self, info: ObjectInfo, start: int, length: int) -> bytes:
        if length == 0:
            return b""
        with self._translated(info.key):
            blob = self._blob(info.key)
            content: bytes = blob.download_as_bytes(
                start=start,
                end=start + length - 1,
                raw_download=True,
                if_generation_match=int(info.version),
                checksum=None,
                timeout=_SECONDS,
            )
        return content

    def put(self, key: str, file: BinaryIO, size: int, *, expected: str | None, token: str) -> None:
        with self._translated(key):
            blob = self._blob(key)
            blob.metadata = {TOKEN_KEY: token}
            blob.chunk_size = _CHUNK_BYTES if size > _CHUNK_BYTES else None
            blob.upload_from_file(file, size=size, if_generation_match=int(expected or 0), timeout=_SECONDS)

    @contextmanager
    def _translated(self, key: str, *, reading: bool = True) -> Iterator[None]:
        """Failures as ours. An object that is gone has changed; a bucket that is gone is told as such."""
        needs("google.cloud.storage", extra="gcs")
        from google.api_core import exceptions as failures
        from google.auth import exceptions as login
        from requests.exceptions import RequestException

        try:
            yield
        except failures.PreconditionFailed as error:
            raise Changed(key) from error
        except failures.NotFound as error:
            if reading:
                raise Changed(key) from error
            raise ConnectionFailed(f"{self.url} does not exist", hint="correct the bucket in root", transient=False) from error
        except failures.GoogleAPICallError as error:
            status = int(error.code or 503)
            hint = "give this account the role Storage Object Viewer, to write Storage Object User" if status in {401, 403} else ""
            raise ConnectionFailed(f"{self.url}/{key}: {error}", hint=hint, kind=status_kind(status)) from error
        except (login.DefaultCredentialsError, login.RefreshError, ValueError, FileNotFoundError) as error:
            raise ConnectionFailed(
                f"{self.url}: {error}", hint="give service_account_file in storage_options, or sign in with gcloud", transient=False
            ) from error
        except (failures.RetryError, login.TransportError, RequestException) as error:
            raise ConnectionFailed(f"{self.url} cannot be reached: {error}", hint="see endpoint_url and the network") from error


def _info(blob: Any) -> ObjectInfo:
    return ObjectInfo(blob.name, int(blob.size), str(blob.generation), (blob.metadata or {}).get(TOKEN_KEY, ""))
