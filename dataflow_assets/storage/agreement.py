"""The columns of the data and those of a target table, held against each other.

Here: what every table has in common, decided before a row is written. Not here: what one system says of its columns
(`connectors`), the values on their way (`storage.feed`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dataflow_assets.errors import WriteFailed
from dataflow_assets.storage.sql import Dialect
from dataflow_assets.tables import PublishRequest


@dataclass(frozen=True)
class HeldColumn:
    """A column of an existing table, as every system can describe it."""

    name: str
    filled: bool = False
    """Something fills it where the data lacks it: a default, a counter, an expression."""
    writable: bool = True
    """The data may bring values for it; a computed column takes none."""


def require_agreement(request: PublishRequest, columns: Iterable[HeldColumn], dialect: Dialect) -> None:
    """Raise WriteFailed unless data and table have the same columns, but for those that fill themselves, and the upsert keys are there."""
    target, names = request.target, request.schema.names
    there = {column.name: column for column in columns}
    said = [f"has no column {name!r}" for name in names if name not in there]
    said += [f"computes column {name!r} itself" for name in names if name in there and not there[name].writable]
    said += [
        f"has column {name!r} without a default, which the data lacks"
        for name, column in there.items()
        if name not in names and not column.filled and column.writable
    ]
    if said:
        hint = f"make the columns agree: in the query, or with ALTER TABLE {dialect.table(target.table)}"
        raise WriteFailed(f"table {target.table} {', '.join(said)}", hint=hint)
    if absent := [key for key in target.keys if key not in names]:
        raise WriteFailed(f"upsert key {absent[0]!r} is not a column of the data", hint=f"the columns are {', '.join(names)}")
