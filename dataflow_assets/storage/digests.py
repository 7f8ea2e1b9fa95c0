"""Tallies of rows as SQL: the canonical form, digests and segments in the words of one database.

Here: what a database must say of itself (`DigestDialect`), and the queries made from that. Not here: the form itself (`canonical`), any one
database's words (`connectors`), rows without a database (`storage.local_digests`).
"""

# ruff: noqa: S608 - column expressions pass Dialect.quote, segments are hexadecimal digits made here

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dataflow_assets.canonical import NULL_MARK, SPELLED, CanonicalColumn, Family, Tally, family_of
from dataflow_assets.errors import ReadFailed
from dataflow_assets.storage.sql import Statement

DIGEST_DIGITS = 16
"""Hexadecimal digits of the MD5 that make a digest: 64 bits."""
Columns = Sequence[CanonicalColumn]
Text = Callable[[str, pa.DataType], str]
"""A value (SQL) and its Arrow type -> its canonical text (SQL), null for null."""


@dataclass(frozen=True)
class DigestDialect:
    """How one database makes canonical text and digests; families that it cannot make are left out of `texts`."""

    texts: Mapping[Family, Text]
    octets: Callable[[str], str]
    """Text -> how many bytes it has in UTF-8, as text."""
    md5: Callable[[str], str]
    """Text -> the MD5 of its UTF-8 bytes in lower-case hexadecimal."""
    total: Callable[[str], str]
    """16 hexadecimal digits -> the sum, over the rows, of the numbers they are, correct at least modulo 2^64."""
    concat: Callable[[Sequence[str]], str] = lambda parts: " || ".join(parts)
    whole: Callable[[str], str] = lambda text: f"CAST({text} AS BIGINT)"
    """The text of a whole number -> the number."""
    prefix: Callable[[str, int], str] = lambda text, digits: f"SUBSTR({text}, 1, {digits})"


def trimmed_decimal(text: str, kind: pa.DataType) -> str:
    """The text of a decimal of fixed scale without the zeros behind it."""
    return f"RTRIM(RTRIM({text}, '0'), '.')" if pa.types.is_decimal(kind) and kind.scale > 0 else text


def cell(position: int) -> str:
    """The name under which the canonical text of a column is known inside a query."""
    return f"dataflow_cell_{position}"


def canonical_rows(dialect: DigestDialect, columns: Columns, values: Sequence[tuple[str, pa.DataType]], source: str) -> str:
    """SELECT of the canonical texts; `values` are each column's SQL and Arrow type, `source` is the text after FROM."""
    texts = (dialect.texts[family_of(kind) or Family.NULL](expression, kind) for expression, kind in values)
    return f"SELECT {', '.join(f'{text} AS {cell(position)}' for position, text in enumerate(texts))} FROM {source}"


def _joined(dialect: DigestDialect, columns: Columns, positions: Sequence[int]) -> str:
    """Several texts as one that no other row has: what may hold anything has its length before it."""
    parts: list[str] = []
    for position in positions:
        text = cell(position)
        if columns[position].family in SPELLED:
            text = dialect.concat([dialect.octets(text), "':'", text])
        parts += ["','"] if parts else []
        parts.append(f"COALESCE({text}, '{NULL_MARK}')")
    return dialect.concat(parts) if len(parts) > 1 else parts[0]


def _narrowed(
    dialect: DigestDialect,
    inner: str,
    chosen: Sequence[str],
    columns: Columns,
    keys: Sequence[int],
    within: Sequence[str],
) -> str:
    """SELECT of expressions over the canonical texts, from the rows of some segments."""
    if not within:
        return f"SELECT {', '.join(chosen)} FROM ({inner}) AS dataflow_rows"
    found = dialect.prefix(dialect.md5(_joined(dialect, columns, keys)), len(within[0]))
    segments = ", ".join(f"'{segment}'" for segment in within)
    return f"SELECT {', '.join(chosen)} FROM ({inner}) AS dataflow_rows WHERE {found} IN ({segments})"


def tally_query(dialect: DigestDialect, inner: str, columns: Columns, *, keys: Sequence[int], depth: int, within: Sequence[str]) -> str:
    """Segment, rows, rows that have a digest, and the sum of these."""
    every = range(len(columns))
    chosen = [f"{dialect.md5(_joined(dialect, columns, every))} AS dataflow_digest"]
    if depth:
        chosen.append(f"{dialect.prefix(dialect.md5(_joined(dialect, columns, keys or every)), depth)} AS dataflow_segment")
    rows = _narrowed(dialect, inner, chosen, columns, keys or every, within)
    total = dialect.total(dialect.prefix("dataflow_digest", DIGEST_DIGITS))
    segment, grouped = ("dataflow_segment", " GROUP BY dataflow_segment") if depth else ("''", "")
    return f"SELECT {segment}, COUNT(*), COUNT(dataflow_digest), {total} FROM ({rows}) AS dataflow_digests{grouped}"


def between_query(dialect: DigestDialect, inner: str, columns: Columns, *, edges: Sequence[int], checksum: bool) -> str:
    """Interval, rows, rows that have a digest, and the sum of these; the last of `columns` is the one that the edges cut, and no more."""
    compared = range(len(columns) - 1) if checksum else ()
    digest = dialect.md5(_joined(dialect, columns, compared)) if compared else "''"
    place = _interval(dialect.whole(cell(len(columns) - 1)), edges, 0, len(edges) - 1)
    rows = f"SELECT {digest} AS dataflow_digest, {place} AS dataflow_segment FROM ({inner}) AS dataflow_rows"
    total = dialect.total(dialect.prefix("dataflow_digest", DIGEST_DIGITS)) if compared else "0"
    return (
        f"SELECT dataflow_segment, COUNT(*), COUNT(dataflow_digest), {total} FROM ({rows}) AS dataflow_digests"
        " WHERE dataflow_segment IS NOT NULL GROUP BY dataflow_segment"
    )


def _interval(value: str, edges: Sequence[int], first: int, last: int) -> str:
    """CASE that halves the edges, so that a row is compared with few of them, however many there are."""
    if last - first == 1:
        return f"CASE WHEN {value} >= {edges[first]} AND {value} < {edges[last]} THEN {first} END"
    middle = (first + last) // 2
    below, above = _interval(value, edges, first, middle), _interval(value, edges, middle, last)
    return f"CASE WHEN {value} < {edges[middle]} THEN {below} ELSE {above} END"


def rows_query(dialect: DigestDialect, inner: str, columns: Columns, *, keys: Sequence[int], within: Sequence[str]) -> str:
    """The canonical texts of the rows of some segments."""
    every = range(len(columns))
    return _narrowed(dialect, inner, [cell(position) for position in every], columns, keys or every, within)


@dataclass(frozen=True)
class SqlRows:
    """What a SELECT returns, compared by its database. Is a `Comparable`."""

    dialect: DigestDialect
    quote: Callable[[str], str]
    schema: pa.Schema
    """The columns that it returns, with the types that they are read as."""
    select: Statement
    fetch: Callable[[Statement], Sequence[Sequence[Any]]]
    """Runs one statement. Raises our own errors."""
    key: Callable[[], Sequence[str]] = tuple
    """Asks for the primary key."""

    def primary_key(self) -> Sequence[str]:
        """The table's primary key, as far as it is among the columns."""
        found = list(self.key())
        return found if set(found) <= set(self.schema.names) else []

    def digests(self, columns: Columns) -> bool:
        """Whether each column needs no cast and has a canonical text in this database."""
        own = [family_of(self.schema.field(column.name).type) for column in columns]
        return all(family in self.dialect.texts and column.fits(family) for column, family in zip(columns, own, strict=True))

    def _ask(self, columns: Columns, query: Callable[[str], str]) -> Sequence[Sequence[Any]]:
        values = [(self.quote(column.name), self.schema.field(column.name).type) for column in columns]
        inner = canonical_rows(self.dialect, columns, values, f"(\n{self.select.text}\n) AS dataflow_source")
        return self.fetch(Statement(query(inner), self.select.values))

    def tallies(self, columns: Columns, *, keys: Sequence[int] = (), depth: int = 0, within: Sequence[str] = ()) -> dict[str, Tally]:
        """Count and checksum of each segment."""
        return read_tallies(
            self._ask(columns, lambda inner: tally_query(self.dialect, inner, columns, keys=keys, depth=depth, within=within))
        )

    def tallies_between(self, columns: Columns, *, by: CanonicalColumn, edges: Sequence[int], checksum: bool = True) -> dict[int, Tally]:
        """Count and checksum of the rows in each interval."""
        wanted = (*(columns if checksum else ()), by)
        return read_intervals(self._ask(wanted, lambda inner: between_query(self.dialect, inner, wanted, edges=edges, checksum=checksum)))

    def rows(self, columns: Columns, *, keys: Sequence[int] = (), within: Sequence[str] = ()) -> list[tuple[str | None, ...]]:
        """The canonical texts of a few rows."""
        found = self._ask(columns, lambda inner: rows_query(self.dialect, inner, columns, keys=keys, within=within))
        return [tuple(_as_text(value) for value in row) for row in found]


def read_tallies(found: Sequence[Sequence[Any]]) -> dict[str, Tally]:
    """The answer to a `tally_query`. Raises ReadFailed when a row has no digest, since it would be left out of the sum."""
    tallies = {}
    for segment, rows, digests, total in found:
        if rows != digests:
            raise ReadFailed(
                f"{int(rows) - int(digests)} rows have no checksum: the database could not join their columns into one text",
                hint="a value is longer than it allows (max_allowed_packet): leave its column out with ignore",
            )
        if rows:
            tallies[_as_text(segment) or ""] = Tally(int(rows), int(total) % 2**64)
    return tallies


def read_intervals(found: Sequence[Sequence[Any]]) -> dict[int, Tally]:
    """The answer to a `between_query`. Raises ReadFailed as `read_tallies` does."""
    return {int(name): tally for name, tally in read_tallies(found).items()}


def _as_text(value: Any) -> str | None:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "replace")
    return None if value is None else str(value)
