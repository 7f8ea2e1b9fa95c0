"""Comparing rows inside Snowflake: canonical text and digests in its words.

Here: the dialect, and opening a table or query to be compared. Not here: the queries (`storage.digests`). Floats and times are missing:
no function gives a float's bits. There is no snapshot over several queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from dataflow_assets.canonical import Family
from dataflow_assets.connectors import _snowflake_read
from dataflow_assets.connectors._snowflake_session import SNOWFLAKE, Sessions, translated
from dataflow_assets.connectors._sql import Wanted
from dataflow_assets.errors import ReadFailed
from dataflow_assets.storage.digests import DigestDialect, SqlRows
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import Query, TableName


def _decimal(value: str, kind: pa.DataType) -> str:
    text = f"CAST({value} AS VARCHAR)"
    return f"REGEXP_REPLACE({text}, '[.]?0+$', '')" if pa.types.is_decimal(kind) and kind.scale > 0 else text


def _half(digits: str, first: int) -> str:
    """Eight hexadecimal digits as a number; MD5_NUMBER_UPPER64 would be shorter, and no emulator has it."""
    parts = [f"(POSITION(SUBSTR({digits}, {first + place}, 1), '0123456789abcdef') - 1) * {16 ** (7 - place)}" for place in range(8)]
    return f"CAST(SUM({' + '.join(parts)}) AS NUMBER(38, 0))"


DIGESTS = DigestDialect(
    texts={
        Family.INTEGER: lambda value, _: f"CAST({value} AS VARCHAR)",
        Family.DECIMAL: _decimal,
        Family.BOOLEAN: lambda value, _: f"CASE WHEN {value} THEN '1' WHEN NOT {value} THEN '0' END",
        Family.INSTANT: lambda value, _: f"CAST(DATE_PART(EPOCH_MICROSECOND, {value}) AS VARCHAR)",
        Family.DATE: lambda value, _: f"CAST(DATEDIFF('day', CAST('1970-01-01' AS DATE), {value}) AS VARCHAR)",
        Family.TEXT: lambda value, _: f"CAST({value} AS VARCHAR)",
        Family.BYTES: lambda value, _: f"LOWER(HEX_ENCODE({value}))",
    },
    octets=lambda text: f"CAST(LENGTH(TO_BINARY({text}, 'UTF-8')) AS VARCHAR)",  # the emulator's OCTET_LENGTH takes no text
    md5=lambda text: f"MD5({text})",
    total=lambda digits: f"CAST({_half(digits, 1)} * 4294967296 + {_half(digits, 9)} AS VARCHAR)",
)


@contextmanager
def compare(sessions: Sessions, source: TableName | Query, doing: str, wanted: Wanted) -> Iterator[SqlRows]:
    """Open a table or query."""
    with sessions.use() as session:

        def ask(statement: Statement) -> Sequence[Sequence[Any]]:
            with translated(doing, ReadFailed):
                return session.fetch(statement)

        with translated(doing, ReadFailed):
            select, schema = _snowflake_read.select(session, source, doing, wanted)
        yield SqlRows(DIGESTS, SNOWFLAKE.quote, schema, select, ask)
