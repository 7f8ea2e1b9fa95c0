"""The archive of one endpoint: a folder of Parquet files, or a table, in which old windows are published exactly once.

Here: where it is, putting a window into it, and proof that it is there. Not here: taking the window out of its target
(`execution.retention`), bringing it back (`execution.restoring`).

An archive is a target like any other: a window in it is claimed, published in one atomic step with a ledger row that holds its count and
checksum, and read back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dataflow_assets.errors import AuditFailed, CheckFailed
from dataflow_assets.execution.attempts import folder_name
from dataflow_assets.execution.connections import open_block, validated
from dataflow_assets.execution.session import Session
from dataflow_assets.plan.model import ArchivePlan
from dataflow_assets.protocols import Connector
from dataflow_assets.storage.stages import Stage, checksum_of
from dataflow_assets.tables import LedgerEntry, PublishRequest, SchemaPolicy, Target, Unit, WindowFilter, WriteMode

if TYPE_CHECKING:
    from dataflow_assets.execution.retention import Doomed

GENERATION, SOURCE, COLUMNS, SINCE = "archived_generation", "archived_from", "columns", "published_at"
"""Keys of the `state` of an archived window: the generation of its publish in the target, the target, the names of its columns (JSON),
and when it was published there."""
_SCHEMA_KEYS = ("table_schema", "table_database", "dataset")
_SUFFIX = ".archive"


@dataclass(frozen=True)
class Kept:
    """A window in the archive: how many rows, their checksum, their columns; the archive may have got more columns since.

    `since`: when its rows were published in their target.
    """

    rows: int
    checksum: str
    columns: tuple[str, ...]
    since: datetime


def kept_by(entry: LedgerEntry) -> Kept:
    """What the archive's ledger says of a window."""
    return Kept(entry.rows, entry.checksum, tuple(json.loads(entry.state[COLUMNS])), datetime.fromisoformat(entry.state[SINCE]))


class Archive:
    """The archive of one ledger step (an endpoint, or its quarantine); close it."""

    def __init__(self, session: Session, plan: ArchivePlan, *, step: str, column: str, timezone: str) -> None:
        self._session, self._step = session, step
        self._connector, options = _opened(session, plan, step)
        table = self._connector.target_table(options)
        self._target = Target(
            table, WriteMode.REPLACE_WINDOW, options, window_column=column, timezone=timezone, schema_policy=SchemaPolicy.EVOLVE
        )

    def __str__(self) -> str:
        return str(self._target.table)

    def close(self) -> None:
        """Let go of its connection."""
        self._connector.close()

    def unit(self, unit: Unit) -> Unit:
        """The unit under which a window of the target stands in the archive's ledger."""
        return Unit(unit.pipeline, f"{self._step}{_SUFFIX}", unit.key, unit.window)

    def entries(self) -> dict[str, LedgerEntry]:
        """Window key -> what is archived of it."""
        found = self._connector.ledger(self._target, pipeline=self._session.pipeline.name, step=f"{self._step}{_SUFFIX}")
        return {entry.unit.key: entry for entry in found}

    def keep(self, doomed: Doomed, published: LedgerEntry, stage: Stage) -> Kept:
        """Put the rows of a stage in, unless they are there, and read them back. Raises AuditFailed, CheckFailed, WriteFailed.

        What is archived is never replaced by less: rows that have left the target before, or that its source no longer had, stay.
        """
        unit, receipt = self.unit(doomed.unit), stage.receipt
        claim = self._connector.claim(self._target, unit, attempt=self._session.request.attempt)
        known = claim.published
        if known is not None and known.rows and not receipt.rows:
            return self.verified(unit, kept_by(known))
        if known is not None and known.rows > receipt.rows:
            there = f"{known.rows:,} rows of it, the target only {receipt.rows:,}"
            raise CheckFailed(
                f"{doomed.target.table} {doomed.unit}: the archive {self} holds {there}",
                hint="it stays in the target; move away what the archive holds of it, and it is archived anew",
            )
        if known is None or (known.rows, known.checksum) != (receipt.rows, receipt.checksum):
            state = {
                GENERATION: str(published.generation),
                SOURCE: published.target,
                COLUMNS: json.dumps(stage.schema.names),
                SINCE: published.published_at.isoformat(),
            }
            rows = (stage.schema, receipt.rows, receipt.checksum, stage.open_reader, stage.paths)
            self._connector.publish(PublishRequest(self._target, claim, *rows, published.metrics, state))
        return self.verified(unit, Kept(receipt.rows, receipt.checksum, tuple(stage.schema.names), published.published_at))

    def verified(self, unit: Unit, kept: Kept) -> Kept:
        """`kept`, when the archive holds exactly that. Raises AuditFailed."""
        with self.read(unit, kept.columns) as reader:
            found = str(checksum_of(reader))
        if found != kept.checksum:
            raise AuditFailed(
                f"archive {self}: {unit} should hold rows:checksum {kept.checksum}, and holds {found}; nothing was removed",
                hint="a column type of the archive changes the values, or somebody else wrote there",
            )
        return kept

    @contextmanager
    def read(self, unit: Unit, columns: Sequence[str]) -> Iterator[pa.RecordBatchReader]:
        """The rows of a window, in these columns."""
        assert unit.window is not None
        assert self._target.window_column is not None
        only = WindowFilter(self._target.window_column, unit.window, self._target.timezone)
        with self._connector.read_target(self._target, only) as reader:
            schema = pa.schema([reader.schema.field(name) for name in columns])
            yield pa.RecordBatchReader.from_batches(schema, (batch.select(list(columns)) for batch in reader))


def _opened(session: Session, plan: ArchivePlan, step: str) -> tuple[Connector, Any]:
    """The connector of an archive, and its options as an endpoint's."""
    block: Mapping[str, Any] = {"type": "parquet"}
    if plan.connection is not None:
        block = session.pipeline.connections[plan.connection]
    connector = open_block(
        session.project, block, name=plan.connection or "archive", kind=str(block["type"]), context=session.context(None)
    )
    where = f"the archive of {session.pipeline.name}.{step}"
    if plan.table is not None:
        table = plan.table_of(session.pipeline.name, step)
        values: dict[str, Any] = {"table": table.name}
        if table.schema:
            values[next((key for key in _SCHEMA_KEYS if key in connector.Endpoint.model_fields), _SCHEMA_KEYS[0])] = table.schema
    else:
        values = {"file_path": plan.folder_of(folder_name(session.pipeline.name), folder_name(step))}
    return connector, validated(connector.Endpoint, values, where=where)
