"""What a source held when a window was read: the fingerprint that is kept with the window in the ledger.

Here: making it of the stage, which is what was read and nothing else, and its form in a ledger entry. Not here: asking the source
again and comparing (`execution.late_data`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa

from dataflow_assets.canonical import CanonicalColumn, Family, Tally, agree
from dataflow_assets.execution.work import Work, upstream_of
from dataflow_assets.plan.model import StepPlan
from dataflow_assets.storage.local_digests import Summing
from dataflow_assets.storage.stages import Stage
from dataflow_assets.tables import LedgerEntry

SOURCES = "sources"
"""Where a ledger entry's `state` keeps the fingerprints of the sources that its rows came from."""


@dataclass(frozen=True)
class Fingerprint:
    """Count and canonical checksum of a source's rows in one window. `columns` are those summed up; none where only rows were counted."""

    tally: Tally
    columns: Mapping[str, Family] = field(default_factory=dict)
    version: str = ""
    """Of a source that knows one: a text that changes whenever the source may have."""
    read_at: datetime | None = None
    """A moment before the rows were read."""

    def same_rows(self, other: Fingerprint) -> bool:
        """Whether both are of the same rows, as far as both can tell: by their checksums, or by counts where one has no checksum."""
        if self.columns and self.columns == other.columns:
            return self.tally == other.tally
        return self.tally.rows == other.tally.rows

    def data(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "rows": self.tally.rows,
            "checksum": f"{self.tally.checksum:016x}",
            "columns": dict(self.columns),
            "version": self.version,
            "read_at": self.read_at.isoformat() if self.read_at else "",
        }

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> Fingerprint:
        """From JSON. Raises KeyError or ValueError for what is none."""
        columns = {name: Family(family) for name, family in data["columns"].items()}
        moment = datetime.fromisoformat(data["read_at"]) if data["read_at"] else None
        return cls(Tally(int(data["rows"]), int(data["checksum"], 16)), columns, data["version"], moment)


def short_version(version: str) -> str:
    """A source's version in few characters, empty when it has none."""
    return hashlib.sha256(version.encode()).hexdigest()[:16] if version else ""


def canonical_columns(schema: pa.Schema, *, ignore: Sequence[str] = ()) -> tuple[CanonicalColumn, ...]:
    """The columns that are summed up."""
    return agree(schema, schema, names=("", ""), ignore=ignore).columns


def fingerprint_state(work: Work, step: StepPlan) -> dict[str, str]:
    """The fingerprints of the sources whose rows reach an endpoint, for its ledger entry; empty where nobody will look again."""
    options = work.pipeline.late_data
    if options is None:
        return {}
    within = upstream_of(work.pipeline, step)
    names = [name for name in options.sources if name in within and name in work.extracted]
    return {SOURCES: json.dumps({name: _of_stage(work, name).data() for name in names})} if names else {}


def _of_stage(work: Work, name: str) -> Fingerprint:
    """Made once for a window, whatever the number of its endpoints."""
    if name not in work.fingerprints:
        stage, options = work.extracted[name], work.pipeline.late_data
        read_at = datetime.fromisoformat(stage.receipt.begun) if stage.receipt.begun else None
        ignore = options.ignore if options else ()
        columns = canonical_columns(stage.schema, ignore=ignore) if options and options.compare == "checksum" else ()
        work.fingerprints[name] = Fingerprint(
            _tally(work, stage, columns), {column.name: column.family for column in columns}, stage.receipt.source_version, read_at
        )
    found: Fingerprint = work.fingerprints[name]
    return found


def _tally(work: Work, stage: Stage, columns: Sequence[CanonicalColumn]) -> Tally:
    if not columns or not stage.receipt.rows:
        return Tally(stage.receipt.rows)
    summing: Summing = work.session.shared("summing", Summing)
    return summing.tally(lambda: nullcontext(stage.open_reader()), columns)


def fingerprints_of(entry: LedgerEntry) -> dict[str, Fingerprint]:
    """Source step -> its fingerprint when this unit was published; empty for a publish before there were any."""
    try:
        return {name: Fingerprint.of_data(data) for name, data in json.loads(entry.state.get(SOURCES, "{}")).items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
