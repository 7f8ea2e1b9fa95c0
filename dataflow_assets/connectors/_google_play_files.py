"""The files of a report: which there are, for which months, and their text as a stream.

UTF-16 and UTF-8 are told apart by the first bytes; a zip's members are unpacked as they are read. Here: listing and opening.
Not here: which months are wanted (`_google_play_months`), columns and values (`_google_play_read`).
"""

from __future__ import annotations

import codecs
import csv
import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dataflow_assets.connectors._csv_reading import Dialect
from dataflow_assets.connectors._files import OpenFile
from dataflow_assets.connectors._google_play_reports import Report
from dataflow_assets.errors import ReadFailed
from dataflow_assets.storage.objects import ObjectPath, RangeFile
from dataflow_assets.storage.places import mark_of

_HEAD_BYTES = 64 * 1024
_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class MonthFile(OpenFile):
    """One file of a report in the state that the listing found: an object, or with `archive` a member of that zip."""

    app: str = ""
    month: str = ""
    archive: ObjectPath | None = None

    def open(self) -> Any:
        """Its bytes from the start. Raises ReadFailed."""
        if self.archive is None:
            return super().open()
        return pa.PythonFile(_Unpacked(self.archive, str(self.path).removeprefix(f"{self.archive}/")), mode="r")

    def tail(self, length: int) -> bytes | None:
        """Its last bytes; None for a member, which would have to be unpacked."""
        return None if self.archive else super().tail(length)

    def _head(self) -> bytes:
        if isinstance(self.path, ObjectPath) and self.archive is None:
            return RangeFile.of(self.path).first(_HEAD_BYTES)
        with self.open() as stream:
            head: bytes = stream.read(_HEAD_BYTES)
        return head

    def layout(self) -> tuple[Dialect, list[str]]:
        """How its text is laid out, and the headings of its columns. Raises ReadFailed for a file that is no table."""
        head = self._head()
        encoding = _encoding_of(head)
        try:
            text = codecs.getincrementaldecoder(encoding)().decode(head).removeprefix("\ufeff")
        except UnicodeError as error:
            raise ReadFailed(f"{self.path} is not text in {encoding}: {error}", hint="it was damaged, or is no report") from error
        headings = next(csv.reader(io.StringIO(text, newline="")), [])
        if not headings:
            raise ReadFailed(f"{self.path} is empty: it has no heading", hint="Google may be writing it; run it again", transient=True)
        if twice := sorted({heading for heading in headings if headings.count(heading) > 1}):
            raise ReadFailed(f"{self.path} has two columns named {', '.join(map(repr, twice))}", hint="it is no report as Google writes it")
        return Dialect(encoding=encoding, compression="none").for_columns(headings), headings


def _encoding_of(head: bytes) -> str:
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    return "utf-16-le" if head[1:2] == b"\0" else "utf-8"


class _Unpacked(io.RawIOBase):
    """The bytes of one member of a zip in the store, unpacked as they are read; its checksum is held at the end."""

    def __init__(self, archive: ObjectPath, member: str) -> None:
        super().__init__()
        self._archive, self._member = archive, member
        with _zip_errors(archive):
            self._zip = zipfile.ZipFile(RangeFile.of(archive))
            self._stream = self._zip.open(member)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        with _zip_errors(self._archive):
            return self._stream.read(size)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
            self._zip.close()
        super().close()


@contextmanager
def _zip_errors(archive: ObjectPath) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, KeyError, RuntimeError) as error:
        raise ReadFailed(f"{archive} cannot be unpacked: {error}", hint="it was not written to its end; run it again later") from error


def listed(root: ObjectPath, report: Report, dimension: str, apps: Sequence[str]) -> list[MonthFile]:
    """The files of a report of these apps, of all when none is named, by app and month; a zip as the one file that it is."""
    folder = f"{root.key}/{report.folder}" if root.key else report.folder
    begin = f"{folder}/{report.stem}_"
    prefixes = [f"{begin}{app}_" for app in apps] if apps and not report.app_column else [begin]
    found = [file for prefix in prefixes for file in _matching(root, report, dimension, prefix) if report.app_column or _wanted(file, apps)]
    return sorted(found, key=lambda file: (file.app, file.month, str(file.path)))


def _wanted(file: MonthFile, apps: Sequence[str]) -> bool:
    """The prefix of com.shop also begins the names of com.shop_pro."""
    return not apps or file.app in apps


def _matching(root: ObjectPath, report: Report, dimension: str, prefix: str) -> Iterator[MonthFile]:
    for info in root.store.objects(prefix, deep=False):
        path = ObjectPath(root.store, info.key, info)
        name = report.files.fullmatch(path.name)
        if name and name.groupdict().get("dimension", "") == (f"_{dimension}" if dimension else ""):
            yield MonthFile(path, mark_of(path), app=name["app"], month=name["month"])


def opened(files: Iterable[MonthFile]) -> Iterator[MonthFile]:
    """The tables among the files: of a zip its CSV members, any other file itself. Raises ReadFailed for a zip that is none."""
    for file in files:
        if not isinstance(file.path, ObjectPath) or file.path.suffix != ".zip":
            yield file
            continue
        with _zip_errors(file.path), zipfile.ZipFile(RangeFile.of(file.path)) as archive:
            members = [name for name in archive.namelist() if name.lower().endswith(".csv")]
        if not members:
            raise ReadFailed(f"{file.path} has no CSV file in it", hint="it is no report as Google writes it")
        for member in members:
            yield MonthFile(file.path / member, file.mark, app=file.app, month=file.month, archive=file.path)
