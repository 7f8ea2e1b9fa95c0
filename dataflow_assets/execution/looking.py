"""Asking a source again what it holds of several windows, as cheaply as its system can.

Here: windows that are read the same way share one query, or one pass over a stream; a source that knows its version is not read while that
stays. Not here: what follows from the answer (`execution.late_data`), the query (`storage.digests`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

import pyarrow as pa

from dataflow_assets.canonical import CanonicalColumn, Family, Tally, family_of
from dataflow_assets.errors import ReadFailed
from dataflow_assets.execution.comparing import Side, request_side
from dataflow_assets.execution.fingerprints import Fingerprint, canonical_columns, short_version
from dataflow_assets.execution.session import Rendered, Session
from dataflow_assets.execution.staging import read_request
from dataflow_assets.plan.model import StepPlan
from dataflow_assets.protocols import Comparable, TellsSourceVersion
from dataflow_assets.spec.late_data import LateDataOptions
from dataflow_assets.storage.local_digests import open_local
from dataflow_assets.tables import ReadRequest, WindowFilter
from dataflow_assets.windows import Window

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Asked:
    """One window to look at: what was published of it, and what the last look at that publish saw."""

    key: str
    window: Window | None
    published: Fingerprint | None
    last_seen: Fingerprint | None


@dataclass(frozen=True)
class _Group:
    """Windows that are read by the same request but for their time."""

    rendered: Rendered
    asked: tuple[Asked, ...]


def look(
    session: Session, source: StepPlan, asked: Sequence[Asked], *, options: LateDataOptions, now: datetime
) -> dict[str, Fingerprint | ReadFailed]:
    """Window key -> what the source holds of it, or why it could not be read. Raises ConnectionFailed."""
    found: dict[str, Fingerprint | ReadFailed] = {}
    for group in _groups(session, source, asked):
        try:
            found |= _of_group(session, source, group, options, now)
        except ReadFailed as error:
            found |= dict.fromkeys((item.key for item in group.asked), error)
    return found


def _groups(session: Session, source: StepPlan, asked: Sequence[Asked]) -> list[_Group]:
    """Windows whose options differ, and those that were summed up over other columns, are looked at on their own."""
    groups: dict[str, _Group] = {}
    connector = session.connector(source)
    for item in asked:
        rendered = session.render(source, connector.Source, session.context(item.window))
        queries = {name: str(query) for name, query in rendered.queries.items()}
        # a list: the digest of a row is made of its columns in their order, which a source may have changed between two publishes
        columns = list(item.published.columns.items()) if item.published else None
        name = json.dumps([rendered.raw.options, queries, columns], sort_keys=True, default=str)
        known = groups.get(name, _Group(rendered, ()))
        groups[name] = replace(known, asked=(*known.asked, item))
    return list(groups.values())


def _of_group(session: Session, source: StepPlan, group: _Group, options: LateDataOptions, now: datetime) -> dict[str, Fingerprint]:
    connector = session.connector(source)
    version = ""
    if isinstance(connector, TellsSourceVersion):
        version = short_version(connector.source_version(group.rendered.options))
    found = {item.key: known for item in group.asked if (known := _unchanged(item, version))}
    rest = [item for item in group.asked if item.key not in found]
    if rest:
        columns = rest[0].published.columns if rest[0].published else None
        tallies, summed = _tallies(session, source, group.rendered, rest, columns, options)
        found |= {item.key: Fingerprint(tallies.get(item.key, Tally()), summed, version, now) for item in rest}
    return found


def _unchanged(item: Asked, version: str) -> Fingerprint | None:
    """What is known of a window whose source has the version that it had."""
    known = (item.last_seen, item.published)
    return next((fingerprint for fingerprint in known if version and fingerprint and fingerprint.version == version), None)


def _tallies(
    session: Session,
    source: StepPlan,
    rendered: Rendered,
    asked: Sequence[Asked],
    columns: Mapping[str, Family] | None,
    options: LateDataOptions,
) -> tuple[dict[str, Tally], Mapping[str, Family]]:
    """The tally of each window, and the columns that were summed up; none where rows could only be counted."""
    request = read_request(session, source, asked[0].window, rendered)
    windows = [item.window for item in asked if item.window is not None]
    several = len(asked) > 1 and source.window_column is not None and request.window is not None
    if several and request.window is not None:
        span = Window(min(windows).start, max(window.end for window in windows))
        request = _with_column(replace(request, window=replace(request.window, window=span)), request.window.column)
    side = request_side(session.connector(source), source.kind, request)
    with _opened(side, columns, options, by=request.window if several else None) as (rows, wanted, by):
        summed = {column.name: column.family for column in wanted}
        if by is not None and request.window is not None:
            return _between(rows, wanted, by, request.window, asked), summed
        tally = rows.tallies(wanted or canonical_columns(rows.schema)[:1]).get("", Tally())
        return {item.key: tally for item in asked}, summed


def _with_column(request: ReadRequest, name: str) -> ReadRequest:
    """The window is told by its column, also where the rows are summed up without it."""
    if request.columns is None or name in request.columns:
        return request
    return replace(request, columns=(*request.columns, name))


@contextmanager
def _opened(
    side: Side, columns: Mapping[str, Family] | None, options: LateDataOptions, *, by: WindowFilter | None
) -> Iterator[tuple[Comparable, tuple[CanonicalColumn, ...], CanonicalColumn | None]]:
    """The source's rows, the columns to sum up, and the one that tells windows apart; streamed where its system cannot do these types."""
    if side.open_inside is not None:
        with side.open_inside() as rows:
            wanted, place = _wanted(rows.schema, columns, options), _column(rows.schema, by)
            needed = (*wanted, *((place,) if place else ()))
            if needed and rows.digests(needed):
                yield rows, wanted, place
                return
    with open_local(side.open_rows) as streamed:
        yield streamed, _wanted(streamed.schema, columns, options), _column(streamed.schema, by)


def _wanted(schema: pa.Schema, columns: Mapping[str, Family] | None, options: LateDataOptions) -> tuple[CanonicalColumn, ...]:
    """The columns of a fingerprint as they are now; none, for a count, where one of them is gone or of another family."""
    if columns is None and options.compare == "checksum":
        return canonical_columns(schema, ignore=options.ignore)
    found = []
    for name, family in (columns or {}).items():
        if name not in schema.names:
            return ()
        column = CanonicalColumn(name, family, schema.field(name).type)
        own = family_of(column.kind)
        if own is not Family.NULL and not column.fits(own):
            return ()
        found.append(column)
    return tuple(found)


def _column(schema: pa.Schema, by: WindowFilter | None) -> CanonicalColumn | None:
    if by is None:
        return None
    kind = schema.field(by.column).type
    return CanonicalColumn(by.column, family_of(kind) or Family.INSTANT, kind)


def _between(
    rows: Comparable, wanted: Sequence[CanonicalColumn], by: CanonicalColumn, window: WindowFilter, asked: Sequence[Asked]
) -> dict[str, Tally]:
    """All windows in one go; what lies between them is an interval as well, and left out."""
    bounds = {}
    for item in asked:
        if item.window is not None:
            first, last = replace(window, window=item.window).bounds(by.kind)
            bounds[_canonical(first), _canonical(last)] = item.key
    edges = sorted({edge for pair in bounds for edge in pair})
    found = rows.tallies_between(wanted, by=by, edges=edges, checksum=bool(wanted))
    keys = {pair[0]: key for pair, key in bounds.items()}
    return {keys[edges[place]]: tally for place, tally in found.items() if edges[place] in keys}


def _canonical(bound: datetime | date) -> int:
    """A bound as a canonical number: microseconds of an instant, days of a date."""
    if not isinstance(bound, datetime):
        return (bound - _EPOCH.date()).days
    moment = bound.replace(tzinfo=UTC) if bound.tzinfo is None else bound
    passed = moment - _EPOCH
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds
