"""Giving up rows that were set aside: they leave the quarantine for good, and the ledger keeps who decided so, and why.

Here: taking them out and the record of it. Not here: rows that leave because they pass (`execution.replaying`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.execution.held import HeldUnit, breaking
from dataflow_assets.execution.quarantine import DISCARDED
from dataflow_assets.execution.rewriting import MARK, held_for_change
from dataflow_assets.execution.session import Session
from dataflow_assets.plan.model import StepPlan
from dataflow_assets.tables import utc_now


def discard_rows(session: Session, step: StepPlan, unit: HeldUnit, *, by: str, why: str, rule: str | None = None) -> int:
    """Take the rows of a unit out of its quarantine, with `rule` only those that broke it; returns how many.

    One publish replaces the unit's rows and records the decision. Raises CheckFailed when the unit is not published yet.
    """
    gone = 0

    def dropped(batch: pa.RecordBatch) -> pa.RecordBatch:
        nonlocal gone
        out = pc.and_(breaking(batch, rule), batch.column(MARK).is_null())
        gone += out.true_count
        return batch.filter(pc.invert(out))

    def noted(state: Mapping[str, str]) -> Mapping[str, str]:
        note = {"at": utc_now().isoformat(), "by": by, "why": why, "rule": rule, "rows": gone}
        return {**state, DISCARDED: json.dumps([*json.loads(state.get(DISCARDED, "[]")), note])}

    with held_for_change(session, step, unit) as rows:
        rows.mend()
        rows.rewrite(dropped, state=noted)
    return gone
