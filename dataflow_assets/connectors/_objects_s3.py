"""Amazon S3, and what speaks its language, by botocore.

Here: the requests and what their failures mean. Not here: options and addresses (`_object_stores`), publishing (`storage.places`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, BinaryIO, ClassVar

from dataflow_assets.connectors._object_stores import TOKEN_KEY, LazyStore, needs
from dataflow_assets.error_kinds import Codes, status_kind
from dataflow_assets.errors import ConnectionFailed, ErrorKind
from dataflow_assets.storage.objects import Changed, ObjectInfo

_PART_BYTES = 16 * 1024 * 1024
_MOST_PARTS = 10_000
_CHANGED = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_ABSENT = {"NoSuchKey", "404", "NotFound"}
_TRANSIENT = {
    *("InternalError", "OperationAborted", "RequestLimitExceeded", "RequestTimeout", "ServiceUnavailable"),
    *("SlowDown", "Throttling", "ThrottlingException"),
}
ERROR_CODES = Codes(
    "error code",
    transient=tuple(sorted(_TRANSIENT)),
    configuration=(
        *("AccessDenied", "AllAccessDisabled", "AuthorizationHeaderMalformed", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken"),
        *("NoSuchBucket", "PermanentRedirect", "SignatureDoesNotMatch"),
    ),
    transient_also="no answer, HTTP 429 and 5xx",
    configuration_also="missing credentials, HTTP 401, 403 and 404",
)
_HINTS = {
    "NoSuchBucket": "correct the bucket in root",
    "AccessDenied": "give these credentials s3:ListBucket, s3:GetObject and, to write, s3:PutObject",
    "InvalidAccessKeyId": "correct key in storage_options, or AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "correct secret in storage_options, or AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "sign in again, or renew token in storage_options",
    "PermanentRedirect": "set region in storage_options to that of the bucket",
    "AuthorizationHeaderMalformed": "set region in storage_options to that of the bucket",
}


@cache
def _loader() -> Any:
    """botocore's descriptions of S3, read once by a process: reading them is most of what a client costs (60 to 190 ms; then 9)."""
    return needs("botocore.loaders", extra="s3").Loader()


class Store(LazyStore):
    """One bucket."""

    scheme: ClassVar[str] = "s3"

    def _make(self) -> Any:
        botocore = needs("botocore.config", extra="s3")
        options = self.options
        with self._translated(""):
            session = needs("botocore.session", extra="s3").Session()
            session.register_component("data_loader", _loader())
            return session.create_client(
                "s3",
                endpoint_url=options.endpoint_url,
                region_name=options.region,
                aws_access_key_id=options.key,
                aws_secret_access_key=options.secret and options.secret.get_secret_value(),
                aws_session_token=options.token and options.token.get_secret_value(),
                config=botocore.Config(
                    retries={"mode": "standard", "max_attempts": 5},
                    connect_timeout=10,
                    max_pool_connections=16,
                    **({"signature_version": needs("botocore", extra="s3").UNSIGNED} if options.anonymous else {}),
                ),
            )

    def head(self, key: str) -> ObjectInfo | None:
        try:
            with self._translated(key):
                found = self.client.head_object(Bucket=self.bucket, Key=key)
        except Changed:
            return None
        return ObjectInfo(key, found["ContentLength"], found["ETag"], found["Metadata"].get(TOKEN_KEY, ""))

    def objects(self, prefix: str, *, deep: bool) -> Iterator[ObjectInfo]:
        limits: dict[str, str] = {} if deep else {"Delimiter": "/"}
        with self._translated(prefix):
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix, **limits):
                for item in page.get("Contents", ()):
                    yield ObjectInfo(item["Key"], item["Size"], item["ETag"])

    def get(self, key: str) -> tuple[bytes, str] | None:
        try:
            with self._translated(key):
                found = self.client.get_object(Bucket=self.bucket, Key=key)
                return found["Body"].read(), found["ETag"]
        except Changed:
            return None

    def read(self, info: ObjectInfo, start: int, length: int) -> bytes:
        with self._translated(info.key):
            found = self.client.get_object(
                Bucket=self.bucket, Key=info.key, Range=f"bytes={start}-{start + length - 1}", IfMatch=info.version
            )
            content: bytes = found["Body"].read()
        return content

    def put(self, key: str, file: BinaryIO, size: int, *, expected: str | None, token: str) -> None:
        condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected}
        where = {"Bucket": self.bucket, "Key": key}
        with self._translated(key):
            if size <= _PART_BYTES:
                self.client.put_object(**where, Body=file.read(), Metadata={TOKEN_KEY: token}, **condition)
                return
            where["UploadId"] = self.client.create_multipart_upload(**where, Metadata={TOKEN_KEY: token})["UploadId"]
            try:
                parts = self._upload(where, file, max(_PART_BYTES, -(-size // _MOST_PARTS)))
                self.client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts}, **condition)
            except BaseException:
                self._abort(where)
                raise

    def _upload(self, where: dict[str, str], file: BinaryIO, length: int) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = []
        while block := file.read(length):
            number = len(parts) + 1
            done = self.client.upload_part(**where, PartNumber=number, Body=block)
            parts.append({"PartNumber": number, "ETag": done["ETag"]})
        return parts

    def _abort(self, where: dict[str, str]) -> None:
        """Let go of the parts; where that fails too, the first error is the one to tell."""
        with suppress(Changed, ConnectionFailed), self._translated(where["Key"]):
            self.client.abort_multipart_upload(**where)

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        """Failures as ours. An object that is gone has changed."""
        needs("botocore", extra="s3")
        from botocore import exceptions as failures
        from urllib3.exceptions import HTTPError

        try:
            yield
        except failures.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            if code in _CHANGED | _ABSENT:
                raise Changed(key) from error
            raise ConnectionFailed(
                f"{self.url}/{key}: {error}", hint=_HINTS.get(code, _HINTS["AccessDenied"] if status == 403 else ""),
                kind=_kind(code, status),
            ) from error  # fmt: skip
        except (failures.NoCredentialsError, failures.PartialCredentialsError, failures.ProfileNotFound, ValueError) as error:
            raise ConnectionFailed(
                f"{self.url}: {error}",
                hint="give key and secret in storage_options, or sign in as for the AWS command line",
                transient=False,
            ) from error
        except (failures.ConnectionError, failures.HTTPClientError, failures.IncompleteReadError, HTTPError) as error:
            raise ConnectionFailed(f"{self.url} cannot be reached: {error}", hint="see endpoint_url and the network") from error
        except failures.BotoCoreError as error:
            raise ConnectionFailed(f"{self.url}: {error}", hint="see storage_options", transient=False) from error


def _kind(code: str, status: int) -> ErrorKind:
    """By Amazon's code; others that speak its language have codes of their own, but the same statuses."""
    known = ERROR_CODES.kind(code)
    return status_kind(status) if known == "permanent" else known
