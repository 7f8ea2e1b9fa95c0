"""What the errors of Google's client mean: which family of ours, with which hint, and whether trying again may help.

Here: errors, told apart by class, HTTP status and BigQuery's reason. Not here: what was being done (`_bigquery_session`).
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dataflow_assets.error_kinds import Codes, stream_kind
from dataflow_assets.errors import ConnectionFailed, DataflowError, ErrorKind, MissingDriver, WriteFailed

_CONFLICT = "due to concurrent update"
"""BigQuery gives aborted transactions the reason of any bad query, invalidQuery; only this tells them apart."""
_RETRIES = {
    *("rateLimitExceeded", "quotaExceeded", "jobRateLimitExceeded", "tableUnavailable", "resourceInUse"),
    *("backendError", "internalError", "jobBackendError", "jobInternalError", "badGateway"),
}
ERROR_CODES = Codes(
    "reason",
    transient=tuple(sorted(_RETRIES)),
    configuration=("accessDenied", "billingNotEnabled", "billingTierLimitExceeded", "notFound", "required"),
    transient_also="no answer, HTTP 429 and 5xx, a time limit, a transaction that another one has overtaken",
    configuration_also="HTTP 401, 403 and 404, credentials that cannot be read or are refused",
)
_HINTS = {
    "accessDenied": "the account lacks a right: BigQuery Job User on the project, and Data Viewer (to write: Data Editor) on the dataset",
    "notFound": "check project, dataset, table and location, and the rights of the account",
    "invalidQuery": "run the query in the BigQuery console to see where it breaks off",
    "invalid": "check the options of the step, and that its columns are as the query says",
    "bytesBilledLimitExceeded": "the job would bill more than maximum_bytes_billed: narrow the query or raise the limit",
    "responseTooLarge": "a result holds 10 GB at most: read it by windows, or fewer columns",
    "resourcesExceeded": "the query needs more than BigQuery gives one job: read it by windows",
    "quotaExceeded": "a quota of the project is used up: see Quotas in the Google Cloud console",
    "stopped": "the job was cancelled",
}


@contextmanager
def translated(doing: str, kind: type[DataflowError]) -> Iterator[None]:
    """Turn the driver's errors, raised inside, into `kind` or a closer relative."""
    import pyarrow as pa

    errors = driver_errors()
    try:
        yield
    except errors as error:
        raise failure(error, doing, kind) from error
    except (pa.ArrowException, OSError) as error:
        raise kind(f"{doing}: {error}", kind=stream_kind(error)) from error


def driver_errors() -> tuple[type[Exception], ...]:
    """The client's errors. Raises MissingDriver when it is not installed."""
    try:
        import google.cloud.bigquery  # noqa: F401 - the errors below come with other clients of Google's, too
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from requests.exceptions import RequestException
    except ModuleNotFoundError as error:
        raise MissingDriver(kind="bigquery", module="google.cloud.bigquery") from error
    return (GoogleAPIError, GoogleAuthError, RequestException, concurrent.futures.TimeoutError)


def reason_of(error: Exception) -> str:
    """BigQuery's word for what went wrong, empty where the error has none."""
    for item in getattr(error, "errors", None) or ():
        if isinstance(item, dict) and item.get("reason"):
            return str(item["reason"])
    return ""


def is_missing(error: Exception) -> bool:
    """Whether a table, dataset or job does not exist."""
    from google.api_core.exceptions import NotFound

    return isinstance(error, NotFound)


def is_known(error: Exception) -> bool:
    """Whether a job of this id is there already."""
    from google.api_core.exceptions import Conflict

    return isinstance(error, Conflict)


def is_conflict(error: Exception) -> bool:
    """Whether BigQuery gave a transaction or statement up because another one changed the same table."""
    return reason_of(error) == "invalidQuery" and _CONFLICT in str(error)


def is_denied(error: Exception) -> bool:
    """Whether the account may not do it."""
    from google.api_core.exceptions import Forbidden

    return isinstance(error, Forbidden)


def failure(error: Exception, doing: str, kind: type[DataflowError]) -> DataflowError:
    """A driver's error as one of ours."""
    text = f"{doing}: {_sentence(error)}"
    if (lost := _unreached(error, text)) is not None:
        return lost
    if isinstance(error, concurrent.futures.TimeoutError):
        return kind(text, hint="raise statement_timeout on the connection", transient=True)
    if is_conflict(error):
        return kind(text, hint="other transactions change the same tables: it may be tried again", transient=True)
    reason = reason_of(error)
    hint = _HINTS.get(reason) or _HINTS.get("accessDenied" if is_denied(error) else "notFound" if is_missing(error) else "", "")
    if reason in {"invalidQuery", "invalid"} and kind is WriteFailed:
        hint = "a value may not fit its column: change it in the query, or the type of the target column"
    return kind(text, hint=hint, kind=_kind(error, reason))


def _sentence(error: Exception) -> str:
    """What happened, without the request's address and the job's id."""
    for item in getattr(error, "errors", None) or ():
        if isinstance(item, dict) and item.get("message"):
            return str(item["message"]).strip()
    return str(getattr(error, "message", "") or error).strip() or type(error).__name__


def _unreached(error: Exception, text: str) -> ConnectionFailed | None:
    """The error of a request that had no answer, or none of BigQuery's."""
    from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError, Unauthorized
    from google.auth.exceptions import GoogleAuthError, TransportError

    if isinstance(error, Unauthorized) or (isinstance(error, GoogleAuthError) and not isinstance(error, TransportError)):
        return ConnectionFailed(text, hint="check credentials or credentials_path, and that the key is still valid", transient=False)
    if isinstance(error, GoogleAPICallError):
        server = (error.code or 0) >= 500 and not _is_of_a_job(error)
        return ConnectionFailed(text, hint="https://status.cloud.google.com tells of outages") if server else None
    if isinstance(error, GoogleAPIError | TransportError) or _is_network(error):
        return ConnectionFailed(text, hint="check endpoint and the network; https://status.cloud.google.com tells of outages")
    return None


def _is_of_a_job(error: Any) -> bool:
    """Whether a job came to its end with this error: its reason then begins with the word."""
    return reason_of(error).startswith("job")


def _is_network(error: Exception) -> bool:
    from requests.exceptions import RequestException

    return isinstance(error, RequestException)


def _kind(error: Exception, reason: str) -> ErrorKind:
    from google.api_core.exceptions import TooManyRequests

    if (known := ERROR_CODES.kind(reason)) != "permanent":
        return known
    if isinstance(error, TooManyRequests):
        return "transient"
    return "configuration" if is_denied(error) or is_missing(error) else "permanent"
