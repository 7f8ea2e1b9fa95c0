"""The part of the connector protocol that a system which is only read does not have.

Here: the refusals of whoever tries to write. Not here: reading; the plan refuses such an endpoint before anything runs
(`plan.kinds`), this is for callers in Python.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar

from dataflow_assets.errors import WriteFailed
from dataflow_assets.spec.models import EndpointOptions
from dataflow_assets.tables import Claim, LedgerEntry, Published, PublishRequest, TableName, Target, Unit, WindowFilter

if TYPE_CHECKING:
    import pyarrow as pa


class SourceOnly:
    """A connector that has no target: every method that needs one raises WriteFailed."""

    kind: ClassVar[str]
    Endpoint: ClassVar[type[EndpointOptions]] = EndpointOptions

    def target_table(self, options: Any) -> TableName:
        raise self._refusal()

    def claim(self, target: Target, unit: Unit, *, attempt: str) -> Claim:
        raise self._refusal()

    def publish(self, request: PublishRequest) -> Published:
        raise self._refusal()

    def ledger(self, target: Target, *, pipeline: str, step: str) -> list[LedgerEntry]:
        raise self._refusal()

    def read_target(self, target: Target, window: WindowFilter | None) -> AbstractContextManager[pa.RecordBatchReader]:
        raise self._refusal()

    def _refusal(self) -> WriteFailed:
        return WriteFailed(f"{self.kind} can only be read", hint="publish into a database or a file")
