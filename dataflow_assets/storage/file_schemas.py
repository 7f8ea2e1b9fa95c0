"""The columns of a file that is about to be written, as the schema policy says, and the versions that a journal keeps of them.

Here: what a file has in common with a table, decided by the same agreement. Not here: rows (`file_rows`), the journal itself
(`file_ledger`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from dataflow_assets.storage.agreement import Agreement, HeldColumn, System, agree
from dataflow_assets.storage.registry import differences
from dataflow_assets.storage.sql import Dialect
from dataflow_assets.storage.widening import widened
from dataflow_assets.tables import ColumnVersion, LedgerEntry, PublishRequest, SchemaPolicy, SchemaVersion

_FILES = System(
    Dialect("files"),
    lambda kind, column: str(kind),
    noun="file",
    remedy="give the query the columns of the file, or write a new file (mode: replace)",
)


def agreed_schema(
    request: PublishRequest, base: pa.Schema | None, *, declared: pa.Schema | None, whole: bool
) -> tuple[pa.Schema, Agreement]:
    """The columns of the new file, and what was agreed on; `base` are those of the target so far, None when it is new.

    `whole`: the file is written anew, so its columns are those of the data unless the user has said a policy. `declared` are the
    columns that the endpoint's `schema` says. Raises WriteFailed where the policy refuses.
    """
    data, policy = request.schema, request.target.schema_policy
    if (whole and policy in {None, SchemaPolicy.EVOLVE}) or base is None:
        base = declared
    kinds = {item.name: item.type for item in declared or ()}
    wanted = pa.schema([(item.name, kinds.get(item.name, item.type)) for item in data])
    if base is None:
        return wanted, Agreement(data, {}, {})
    agreement = agree(request, [HeldColumn(item.name, str(item.type), kind=item.type) for item in base], _FILES)
    fields = [(item.name, _kind(item, wanted, agreement.widened)) for item in base]
    return pa.schema([*fields, *((name, wanted.field(name).type) for name in agreement.added)]), agreement


def _kind(item: pa.Field, data: pa.Schema, wider: Mapping[str, str]) -> pa.DataType:
    """A column without values takes the type of the first that come."""
    if item.name not in data.names:
        return item.type
    incoming = data.field(item.name).type
    if pa.types.is_null(item.type):
        return incoming
    return widened(item.type, incoming) or item.type if item.name in wider else item.type


def with_version(known: Sequence[SchemaVersion], columns: pa.Schema, entry: LedgerEntry) -> tuple[SchemaVersion, ...]:
    """The versions, with a new one where a publish has left other columns."""
    found = tuple(ColumnVersion(item.name, str(item.type)) for item in columns)
    last = known[-1] if known else None
    if last is not None and sorted(last.columns, key=str) == sorted(found, key=str):
        return tuple(known)
    changes = differences(last.columns, found) if last else ()
    number, unit = last.version + 1 if last else 1, entry.unit
    who = (unit.pipeline, unit.step, unit.key, entry.attempt)
    return (*known, SchemaVersion(entry.target, number, found, changes, entry.published_at, *who))
