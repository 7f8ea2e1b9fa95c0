"""Taking rows out of a quarantine where the window cannot be published anew: into an appended target, each row once.

Here: today's rules put to the rows of one unit, and the three publishes by which those that pass move. Not here: windows that are run
again from their source, which replaces both sides at once (an ordinary run).

Exactly once by the target's ledger. The rows that pass are first marked in the quarantine with the name of the unit that is to publish
them; that unit is claimed before. Then they are appended under that name, and then the marked ones are taken out. Whoever finds marks
asks the ledger: the unit is published, so they go; or it is not, so the marks count for nothing, and the claim made in asking fences off
whoever set them. Every write into the quarantine begins with a claim and a look at what is there now.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.errors import CheckFailed
from dataflow_assets.execution.checking import begin_checks_of
from dataflow_assets.execution.held import HeldUnit, breaking
from dataflow_assets.execution.quarantine import HELD, READ, TABLE
from dataflow_assets.execution.rewriting import MARK, HeldRows, held_for_change, with_marks
from dataflow_assets.execution.session import Session
from dataflow_assets.execution.shared_state import REPLAY_OF
from dataflow_assets.execution.work import Work, with_ancestors
from dataflow_assets.failpoints import failpoint
from dataflow_assets.plan.model import PipelinePlan, StepPlan
from dataflow_assets.protocols import PicksRows, Scope
from dataflow_assets.storage.quarantine import broken_rows, chosen_rows
from dataflow_assets.storage.row_text import rows_from_text, schema_from_text
from dataflow_assets.storage.stages import Stage, load_stage, write_stage
from dataflow_assets.tables import Claim, PublishRequest, WriteMode

RELEASED = "released"
"""A key of the `state` of a unit that was made by a replay: how many rows it took out; `REPLAY_OF`: of which unit."""
_OWN_STATE = frozenset({HELD, TABLE, READ, RELEASED, REPLAY_OF})


@dataclass(frozen=True)
class Replayed:
    """What a replay did with one unit. `mended`: rows that an earlier replay had published already, and that only were to be taken out."""

    key: str
    released: int
    left: int
    mended: int = 0


def replays_rows(pipeline: PipelinePlan, step: StepPlan) -> bool:
    """Whether the rows of an endpoint are replayed by themselves: what it has published cannot be published anew from the source."""
    return step.mode is WriteMode.APPEND or (step.mode is WriteMode.UPSERT and pipeline.windows is None)


def replay_rows(session: Session, step: StepPlan, unit: HeldUnit, *, rule: str | None = None) -> Replayed:
    """Publish the rows of a unit that pass today's rules and take them out; with `rule` only of those that broke it.

    Raises CheckFailed when a rule cannot be put to these rows alone or the unit is not published yet, Fenced when another replay
    of the unit overtakes.
    """
    with held_for_change(session, step, unit) as rows:
        mended, released = rows.mend(), 0
        for caught_at, schema in _groups(rows):
            released += _Group(rows, caught_at, schema, rule).run()
        return Replayed(unit.key, released, rows.count(), mended)


def _groups(rows: HeldRows) -> list[tuple[str, str]]:
    """Step and schema of the rows: those of one group can be published together."""
    found: dict[tuple[str, str], None] = {}
    for batch in rows.batches():
        pairs = pa.Table.from_batches([batch.select(["step", "row_schema"])])
        distinct = pairs.group_by(["step", "row_schema"], use_threads=False).aggregate([])
        found |= dict.fromkeys((row["step"], row["row_schema"]) for row in distinct.to_pylist())
    return list(found)


class _Group:
    """The rows of one unit that were caught at one step in one schema."""

    def __init__(self, rows: HeldRows, caught_at: str, schema: str, rule: str | None) -> None:
        self.held, self.caught_at, self.schema_text, self.rule = rows, caught_at, schema, rule
        self.schema = schema_from_text(schema)
        session, unit = rows.session, rows.unit
        self.path = path_to(session.pipeline, caught_at, rows.step)
        _refuse_unfit(session.pipeline, self.path)
        needed = with_ancestors(session.pipeline, frozenset({rows.step.id}))
        self.work = Work(session, unit.window, unit.key, rows.attempt, needed, needed)

    def run(self) -> int:
        """Mark, publish, take out; returns how many rows passed."""
        held = self.held
        runs = self._checked()
        if not self._passing(runs):
            return 0
        claim = held.claim(f"{held.unit.key}.replay-{held.session.request.attempt}-{held.number()}")
        mark = claim.unit.key
        waiting = held.attempt.scratch / f"{mark}.rows"
        with pa.OSFile(str(waiting), "wb") as file, pa.ipc.new_stream(file, self.schema) as writer:
            held.rewrite(lambda batch: self._marked(batch, runs, mark, writer))
        failpoint("quarantine.marked")
        with pa.memory_map(str(waiting)) as file, pa.ipc.open_stream(file) as reader:
            stage = held.stage("released", reader, self.schema)
        self._publish(stage, claim)
        failpoint("quarantine.released")
        held.rewrite(lambda batch: batch.filter(pc.fill_null(pc.not_equal(batch.column(MARK), mark), True)))
        failpoint("quarantine.replayed")
        return stage.receipt.rows

    def _checked(self) -> list[PicksRows]:
        """Put today's rules to the rows. Raises CheckFailed when one fails that does not quarantine, or cannot be put to them."""
        running = begin_checks_of(self.work, self.path, self.schema)
        candidates = self.held.attempt.stage_folder(f"candidates.{self.held.number()}")
        rows = pa.RecordBatchReader.from_batches(self.schema, (rows for _, rows in self._candidates()))
        for _ in write_stage(candidates, rows, step=self.caught_at, fingerprint="derived", observers=running.observers):
            pass
        stage = load_stage(candidates)
        assert stage is not None
        promises = {(step.id, promise.name): promise for step in self.path for check in step.checks for promise in check.promises}
        for step, run in running.runs:
            for result in run.finish(stage.as_input(step.id)):
                promise = promises.get((step.id, result.name))
                about_rows = result.failed > 0 or promise is None or promise.scope is not Scope.DATASET
                if not result.passed and result.blocking and not result.quarantine and about_rows:
                    raise CheckFailed(
                        f"{self.held.session.pipeline.name}.{step.id}: the rows cannot be replayed: {result.description or result.name}",
                        hint="rows that break a rule without on_failure: quarantine are never published; correct the rule or leave them",
                    )
        return [run for run in running.observers if isinstance(run, PicksRows)]

    def _candidates(self) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
        """Each batch of the quarantine with the rows of this group in it as they were."""
        for batch in self.held.batches():
            yield batch, self._rows(batch, self._mine(batch))

    def _mine(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        same = pc.and_(pc.equal(batch.column("step"), self.caught_at), pc.equal(batch.column("row_schema"), self.schema_text))
        return pc.and_(pc.and_(same, batch.column(MARK).is_null()), breaking(batch, self.rule))

    def _rows(self, batch: pa.RecordBatch, mine: pa.BooleanArray) -> pa.RecordBatch:
        return rows_from_text(batch.column("row_json").filter(mine), self.schema)

    def _good(self, rows: pa.RecordBatch, runs: Sequence[PicksRows]) -> pa.BooleanArray:
        broken = broken_rows([one for run in runs for one in run.pick(rows)]) if rows.num_rows else None
        return pa.repeat(True, rows.num_rows) if broken is None else pc.invert(broken)

    def _passing(self, runs: Sequence[PicksRows]) -> int:
        return sum(self._good(rows, runs).true_count for _, rows in self._candidates())

    def _marked(self, batch: pa.RecordBatch, runs: Sequence[PicksRows], mark: str, writer: Any) -> pa.RecordBatch:
        """The batch with the rows that pass marked; those go to the writer."""
        mine = self._mine(batch)
        rows = self._rows(batch, mine)
        good = self._good(rows, runs)
        writer.write_batch(chosen_rows(rows, good))
        passing = pc.replace_with_mask(pa.repeat(False, batch.num_rows), mine, good)
        return with_marks(batch, pc.if_else(passing, pa.scalar(mark, pa.string()), batch.column(MARK)))

    def _publish(self, stage: Stage, claim: Claim) -> None:
        held = self.held
        entries = held.session.ledger(held.step, window=held.unit.window)
        newest = max(entries, key=lambda entry: entry.published_at, default=None)
        state = {key: value for key, value in (newest.state if newest else {}).items() if key not in _OWN_STATE}
        held.connector.publish(
            PublishRequest(
                target=held.unit.target,
                claim=claim,
                schema=stage.schema,
                rows=stage.receipt.rows,
                checksum=stage.receipt.checksum,
                open_reader=stage.open_reader,
                paths=stage.paths,
                state={**state, RELEASED: str(stage.receipt.rows), REPLAY_OF: held.unit.key},
            )
        )


def path_to(pipeline: PipelinePlan, caught_at: str, endpoint: StepPlan) -> list[StepPlan]:
    """The steps that rows pass from where they were caught to an endpoint, in order. Raises CheckFailed when a transform lies between."""
    path = [endpoint]
    while path[0].id != caught_at:
        step = path[0]
        if step.role in {"source", "transform"}:
            where = f"after step {caught_at!r}" if caught_at in pipeline.by_id else f"at step {caught_at!r}, which is no longer there,"
            raise CheckFailed(
                f"{pipeline.name}.{endpoint.id}: rows caught {where} cannot be replayed alone: {step.id!r} makes other rows of them",
                hint="an appended window is not published anew; put the rule behind the transform, or let the endpoint replace its window",
            )
        path.insert(0, pipeline.by_id[step.inputs[0]])
    return path


def _refuse_unfit(pipeline: PipelinePlan, path: Sequence[StepPlan]) -> None:
    """A rule that compares rows with others cannot be put to the rows of a quarantine: what they would be compared with is published."""
    for step, check in [(item, found) for item in path for found in item.checks]:
        unsaid = check.quarantines and not any(promise.quarantine for promise in check.promises)
        for promise in check.promises:
            relative = promise.scope is Scope.ROWS or (promise.quarantine and promise.scope is not Scope.ROW)
            if unsaid or (relative and (promise.blocking or promise.quarantine)):
                raise CheckFailed(
                    f"{pipeline.name}.{step.id}: {promise.name} may compare rows with others: the quarantined ones cannot be judged alone",
                    hint="an appended window is not published anew; let the endpoint replace its window, or take the rule away meanwhile",
                )
