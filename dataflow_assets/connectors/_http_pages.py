"""One page after the other, until the API says that it was the last.

Here: the parameters and links that lead on, and the guards against pages that end early, repeat or move while they are read. Not
here: sending (`_http_session`), what rows become (`_http_rows`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from dataflow_assets.connectors._files import OpenFile
from dataflow_assets.connectors._http_errors import Reply
from dataflow_assets.connectors._http_options import HttpSource, Pagination
from dataflow_assets.connectors._http_session import Call, Session, shown
from dataflow_assets.connectors._json_path import Absent, JsonPath
from dataflow_assets.connectors._json_reading import Layout, Row, parse_json, rows_of
from dataflow_assets.errors import ReadFailed
from dataflow_assets.storage.places import mark_of

_MOVED = "rows were added or removed while they were read; sort by a column that does not change, and run it again"
_NO_TEXT = ("html", "xml", "image/", "pdf")


@dataclass(frozen=True)
class Page:
    """One reply: its rows, and what pagination looks at."""

    rows: Iterator[Row]
    document: Any
    reply: Reply
    digest: bytes
    size: int


@dataclass
class Progress:
    """How far the read has come."""

    rows: int = 0
    total: int | None = None
    number: int = 0
    seen: set[bytes] = field(default_factory=set)
    last: bytes = b""


def pages(session: Session, options: HttpSource, call: Call, scratch: Path) -> Iterator[Iterator[Row]]:
    """The rows of each page; the next one is fetched when those have been used up.

    Raises ReadFailed for a page that cannot be read, for more pages than `max_pages`, and where rows are missing or come twice.
    """
    pagination, progress = options.pagination, Progress()
    following: Call | None = _first(call, pagination)
    spool = scratch / "page" if options.format == "ndjson" else None
    for progress.number in count(1):
        if progress.number > options.max_pages:
            raise ReadFailed(
                f"{call.doing}: there are more than {options.max_pages} pages", hint="raise max_pages, or ask for larger pages or less"
            )
        assert following is not None
        page = session.fetch(following, lambda reply: read_page(reply, options, call.doing), spool=spool)
        before = progress.rows
        yield _counted(page.rows, progress)
        _follow_total(page, pagination, progress, call.doing)
        following = _NEXT[pagination.type](session, following, page, pagination, progress, progress.rows - before)
        if following is None:
            _refuse_shortage(progress, call.doing)
            return


def _first(call: Call, pagination: Pagination) -> Call:
    values: dict[str, Any] = {}
    if pagination.size_parameter is not None:
        values[pagination.size_parameter] = pagination.size
    if pagination.type in {"page", "offset"}:
        values[pagination.key] = _start(pagination)
    return _with(call, pagination, values)


def _start(pagination: Pagination) -> int:
    return pagination.first if pagination.first is not None else int(pagination.type == "page")


def _with(call: Call, pagination: Pagination, values: dict[str, Any]) -> Call:
    if pagination.place == "body":
        return call.with_body(values) if values else call
    return call.with_params({name: str(value) for name, value in values.items()})


def _counted(rows: Iterator[Row], progress: Progress) -> Iterator[Row]:
    for row in rows:
        progress.rows += 1
        yield row


# -- one reply


def read_page(reply: Reply, options: HttpSource, doing: str) -> Page:
    """The rows of a reply. Raises ReadFailed, transient when the text breaks off."""
    kind = reply.headers.get("content-type", "").lower()
    if any(word in kind for word in _NO_TEXT) and "json" not in kind:
        raise ReadFailed(
            f"{doing}: the server answered with {kind.partition(';')[0]}, not {options.format}",
            hint="is it a page to log in? check base_url, path and the credentials",
        )
    if reply.spool is not None:
        file = OpenFile(Path(reply.url.partition("://")[2]), mark_of(reply.spool), str(reply.spool))
        return Page(rows_of(file, Layout(lines=True)), None, reply, _digest_of(reply.spool), reply.spool.stat().st_size)
    digest = hashlib.sha256(reply.content).digest()
    if reply.status == 204:
        return Page(iter(()), {}, reply, digest, 0)
    document = decoded(reply.content, doing)
    try:
        rows = JsonPath.parse(options.rows).find_rows(document)
    except Absent as error:
        raise ReadFailed(
            f"{doing}: no rows at {options.rows or 'the top'!r}: {error}", hint="say where the list is, e.g. rows: data.items"
        ) from error
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ReadFailed(f"{doing}: row {number} is no object", hint="see rows: it must lead to a list of objects")
    return Page(iter(rows), document, reply, digest, len(reply.content))


def decoded(content: bytes, doing: str) -> Any:
    """The JSON document. Raises ReadFailed, transient when it breaks off before its end."""
    try:
        text = content.decode(json.detect_encoding(content))
        return parse_json(text.removeprefix("\ufeff"))
    except json.JSONDecodeError as error:
        cut = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string")
        how = "breaks off before its end" if cut else "is no JSON"
        error.doc = ""  # the whole reply: nothing that an error should carry about
        raise ReadFailed(f"{doing}: the reply {how}: {error}", hint=_JSON_HINT[cut], transient=cut) from error
    except (UnicodeError, RecursionError) as error:
        raise ReadFailed(f"{doing}: the reply is no JSON: {error}", hint=_JSON_HINT[False]) from error


_JSON_HINT = {True: "it was cut off on its way; it is tried again", False: "see format, and what the API answers"}


def _digest_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


# -- what comes next


def _end(session: Session, call: Call, page: Page, pagination: Pagination, progress: Progress, rows: int) -> None:
    """All rows were asked for at once; a link to more of them means that they did not all come."""
    if link(page.reply, "next"):
        raise ReadFailed(
            f"{call.doing}: the reply names a next page, but the source has no pagination", hint="add pagination: {type: link}"
        )


def _by_link(session: Session, call: Call, page: Page, pagination: Pagination, progress: Progress, rows: int) -> Call | None:
    return _at(session, call, link(page.reply, "next"), progress)


def _by_url(session: Session, call: Call, page: Page, pagination: Pagination, progress: Progress, rows: int) -> Call | None:
    return _at(session, call, _next_value(page, pagination, call.doing), progress)


def _at(session: Session, call: Call, url: str | None, progress: Progress) -> Call | None:
    """The call for a page's URL, which holds all parameters. Its host must be the API's: credentials go nowhere else."""
    if not url:
        return None
    url = urljoin(call.url, url)
    if not session.is_own(url):
        raise ReadFailed(
            f"{call.doing}: the next page lies on another host, {shown(url)}", hint="correct base_url, or use pagination: {type: offset}"
        )
    _refuse_repetition(call, progress, url)
    return Call(url, call.doing, call.method, (), call.body, call.headers)


def _by_cursor(session: Session, call: Call, page: Page, pagination: Pagination, progress: Progress, rows: int) -> Call | None:
    cursor = _next_value(page, pagination, call.doing)
    if not cursor:
        return None
    _refuse_repetition(call, progress, cursor)
    return _with(call, pagination, {pagination.key: cursor})


def _by_number(session: Session, call: Call, page: Page, pagination: Pagination, progress: Progress, rows: int) -> Call | None:
    """The next page or offset; the end is a page without rows, since a short one may only mean that the server gives fewer at a time."""
    if rows == 0 or (progress.total is not None and progress.rows >= progress.total):
        return None
    if page.digest == progress.last:
        raise ReadFailed(
            f"{call.doing}: page {progress.number} holds the same as the one before", hint=f"does the API know {pagination.key!r}?"
        )
    progress.last = page.digest
    moved = progress.number if pagination.type == "page" else progress.rows
    return _with(call, pagination, {pagination.key: _start(pagination) + moved})


_Step = Callable[[Session, Call, Page, Pagination, Progress, int], Call | None]
_NEXT: dict[str, _Step] = {
    "none": _end,
    "link": _by_link,
    "next_url": _by_url,
    "cursor": _by_cursor,
    "page": _by_number,
    "offset": _by_number,
}


def _next_value(page: Page, pagination: Pagination, doing: str) -> str | None:
    """The next URL or cursor. Its last key may be absent on the last page; what leads to it must be there."""
    path = JsonPath.parse(pagination.next or "")
    try:
        holder = JsonPath(path.text, path.steps[:-1]).find(page.document)
    except Absent as error:
        raise ReadFailed(f"{doing}: nothing at {path.text!r}: {error}", hint="correct next: of pagination") from error
    key = path.steps[-1] if path.steps else None
    if not isinstance(holder, dict) or not isinstance(key, str):
        raise ReadFailed(f"{doing}: {path.text!r} leads to no key of an object", hint="correct next: of pagination")
    value = holder.get(key)
    if isinstance(value, dict | list):
        raise ReadFailed(f"{doing}: {path.text!r} is no single value", hint="correct next: of pagination")
    return None if value is None or value is False else str(value)


def _refuse_repetition(call: Call, progress: Progress, place: str) -> None:
    mark = hashlib.sha256(place.encode()).digest()
    if mark in progress.seen:
        raise ReadFailed(f"{call.doing}: page {progress.number} leads back to an earlier one", hint="see pagination")
    progress.seen.add(mark)


def link(reply: Reply, relation: str) -> str | None:
    """The target of a Link header (RFC 8288) with this relation, None without one."""
    for part in _links(reply.headers.get("link", "")):
        target, _, rest = part.partition(">")
        names = [value.strip().strip('"') for item in rest.split(";") for name, _, value in [item.partition("=")] if name.strip() == "rel"]
        if any(relation in name.lower().split() for name in names):
            return target.strip().removeprefix("<")
    return None


def _links(header: str) -> Iterator[str]:
    """Its parts; a comma inside <> is one of the URL."""
    inside, start = False, 0
    for position, character in enumerate(header):
        inside = character == "<" or (inside and character != ">")
        if character == "," and not inside:
            yield header[start:position].strip()
            start = position + 1
    yield header[start:].strip()


# -- how many there are


def _follow_total(page: Page, pagination: Pagination, progress: Progress, doing: str) -> None:
    """Note how many rows the API says there are. Raises ReadFailed, transient, when that has changed."""
    if pagination.total is None:
        return
    found = _total_of(page, pagination, doing)
    if progress.total is not None and found != progress.total:
        raise ReadFailed(f"{doing}: there were {progress.total} rows in all, now there are {found}", hint=_MOVED, transient=True)
    progress.total = found


def _total_of(page: Page, pagination: Pagination, doing: str) -> int:
    name = pagination.total_header
    try:
        value = page.reply.headers[name] if name else JsonPath.parse(pagination.total or "").find(page.document)
        return int(str(value))
    except (Absent, KeyError, ValueError) as error:
        raise ReadFailed(f"{doing}: no number at {pagination.total!r}: {error}", hint="correct total: of pagination") from error


def _refuse_shortage(progress: Progress, doing: str) -> None:
    if progress.total is not None and progress.rows != progress.total:
        raise ReadFailed(f"{doing}: {progress.rows} rows came, of {progress.total}", hint=_MOVED, transient=True)
