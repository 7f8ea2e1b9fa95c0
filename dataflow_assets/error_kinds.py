"""Whether trying again can help: the kinds of an error, and the codes by which a system tells them apart.

Here: which errno and which code is of which kind, as data that the documentation is made of. Not here: the errors themselves
(`errors`), what a driver calls its codes (each connector).

transient: the same attempt may succeed later without anybody changing anything. configuration: what a connection or the options name
is not there or not allowed (login, rights, host, database, table, file). permanent: the query, the rows or the step must change.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass

from dataflow_assets.errors import DataflowError, ErrorKind

Code = str | int
CodeOrRange = Code | range


@dataclass(frozen=True)
class Codes:
    """The codes of a system that are transient, and those of a wrong configuration; every other code is permanent.

    `told_by` says what they are, such as SQLSTATE. With `prefixes`, a text stands for all codes that begin with it. The words in
    `transient_also` and `configuration_also` tell of errors that have no code and are known by their class.
    """

    told_by: str
    transient: tuple[CodeOrRange, ...] = ()
    configuration: tuple[CodeOrRange, ...] = ()
    prefixes: bool = False
    transient_also: str = ""
    configuration_also: str = ""

    def kind(self, code: Code | None) -> ErrorKind:
        """The kind of an error with this code. The longer of two texts that it begins with decides."""
        if code is None or code == "":
            return "permanent"
        matches = [*self._matches(code, self.transient, "transient"), *self._matches(code, self.configuration, "configuration")]
        return max(matches)[1] if matches else "permanent"

    def _matches(self, code: Code, known: tuple[CodeOrRange, ...], kind: ErrorKind) -> Iterator[tuple[int, ErrorKind]]:
        for item in known:
            if isinstance(item, range):
                if isinstance(code, int) and code in item:
                    yield 0, kind
            elif item == code:
                yield len(str(item)) + 1, kind
            elif self.prefixes and isinstance(item, str) and str(code).startswith(item):
                yield len(item), kind


_TRANSIENT_ERRNO = (
    *("EAGAIN", "EINTR", "EIO", "EBUSY", "ETXTBSY", "ESTALE", "ENOLCK", "EDEADLK"),
    *("ENOSPC", "EDQUOT", "EMFILE", "ENFILE", "ENOMEM"),
    *("ETIMEDOUT", "ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "EPIPE", "ENOTCONN"),
    *("EHOSTUNREACH", "EHOSTDOWN", "ENETUNREACH", "ENETDOWN", "ENETRESET"),
)
_CONFIGURATION_ERRNO = ("ENOENT", "ENOTDIR", "EISDIR", "EACCES", "EPERM", "EROFS", "ENAMETOOLONG", "ELOOP", "EFBIG", "EADDRNOTAVAIL")

OS_CODES = Codes(
    "errno",
    transient=_TRANSIENT_ERRNO,
    configuration=_CONFIGURATION_ERRNO,
    transient_also="a disk that is full (ENOSPC, EDQUOT), a server that refuses or drops connections",
    configuration_also="a file or folder that is not there, or may not be read or written",
)
"""What the operating system says, by the names of its errors."""


STATUS_CODES = Codes(
    "HTTP status",
    transient=(408, 425, 429, 500, 502, 503, 504, 506, 507, 509, range(512, 600)),
    configuration=(401, 403, 404, 405, 407, 410, 511),
)
"""What a server says over HTTP; connectors whose errors have codes of their own ask these first."""


def status_kind(status: int) -> ErrorKind:
    """The kind of an answer with this HTTP status."""
    return STATUS_CODES.kind(status)


def os_kind(error: OSError, *, unnumbered: ErrorKind = "permanent") -> ErrorKind:
    """The kind of an operating system's error; `unnumbered` is that of one without errno, as libraries raise them."""
    if isinstance(error, TimeoutError | ConnectionError | BlockingIOError | InterruptedError):
        return "transient"
    if error.errno is None:
        return unnumbered
    return OS_CODES.kind(errno.errorcode.get(error.errno))


def stream_kind(error: BaseException) -> ErrorKind:
    """The kind of what breaks off a stream of rows: Arrow's OSError without errno is a lost connection, its other errors are not."""
    return os_kind(error, unnumbered="transient") if isinstance(error, OSError) else "permanent"


def kind_of(error: BaseException) -> ErrorKind:
    """The kind of any error; of one that is none of ours, only what the operating system says is known."""
    if isinstance(error, DataflowError):
        return error.kind
    return os_kind(error) if isinstance(error, OSError) else "permanent"
