"""The rows of one unit of a quarantine, as they are changed after they were set aside.

Here: a claim, a look at what is there now, and one publish that puts the changed rows in its place; settling the marks of a replay that
was cut short. Not here: which rows leave, and what for (`execution.replaying`, `execution.discarding`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.errors import CheckFailed
from dataflow_assets.execution.attempts import Attempt, AttemptRecord, unit_folder
from dataflow_assets.execution.held import HeldUnit, held_rows
from dataflow_assets.execution.quarantine import DISCARDED, PUBLISHED_WITH, ledger_step, publish_rows, stage_of_rows
from dataflow_assets.execution.session import Session
from dataflow_assets.plan.model import StepPlan
from dataflow_assets.storage.quarantine import SCHEMA
from dataflow_assets.storage.stages import Stage
from dataflow_assets.tables import Claim, Unit

MARK = "released_as"
Change = Callable[[pa.RecordBatch], pa.RecordBatch]


class HeldRows:
    """The rows of one unit, with a folder of one's own to work in."""

    def __init__(self, session: Session, step: StepPlan, unit: HeldUnit, attempt: Attempt) -> None:
        self.session, self.step, self.unit, self.attempt = session, step, unit, attempt
        self.connector = session.connector(step)
        self._numbers = count(1)

    def number(self) -> int:
        """The next number, to tell names apart."""
        return next(self._numbers)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """What the quarantine holds of the unit now."""
        with held_rows(self.session, self.step, self.unit.aside, self.unit.key, self.unit.start) as reader:
            yield from reader

    def count(self) -> int:
        """How many rows that is."""
        return sum(batch.num_rows for batch in self.batches())

    def claim(self, key: str) -> Claim:
        """Claim a unit of the endpoint's target."""
        unit = Unit(self.session.pipeline.name, self.step.id, key)
        return self.connector.claim(self.unit.target, unit, attempt=self.session.request.attempt)

    def rewrite(self, change: Change, *, state: Callable[[Mapping[str, str]], Mapping[str, str]] = dict) -> None:
        """Claim the quarantine's unit, read what it holds now, and put the changed rows in its place.

        `state` makes what the ledger is to say out of what it says.
        """
        own = Unit(self.session.pipeline.name, ledger_step(self.step), self.unit.key, self.unit.window)
        held = self.connector.claim(self.unit.aside, own, attempt=self.session.request.attempt)
        known = held.published.state if held.published is not None else self.unit.entry.state
        stage = self.stage("quarantine", map(change, self.batches()), SCHEMA)
        kept = {name: known[name] for name in (PUBLISHED_WITH, DISCARDED) if name in known}
        publish_rows(self.session, self.step, self.unit.aside, held, stage, start=self.unit.start, state=state(kept))

    def stage(self, name: str, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Stage:
        """A stage in the folder."""
        return stage_of_rows(self.attempt.stage_folder(f"{name}.{self.number()}"), [batches], schema=schema)

    def mend(self) -> int:
        """Finish what an earlier replay has begun: rows whose unit is published are taken out, other marks found here are wiped.

        Returns how many were taken out. A mark that appears meanwhile is its owner's.
        """
        marks = self._marks()
        done = pa.array([mark for mark in marks if self.claim(mark).published is not None], pa.string())
        known = pa.array(marks, pa.string())
        gone = 0

        def settle(batch: pa.RecordBatch) -> pa.RecordBatch:
            nonlocal gone
            out = pc.is_in(batch.column(MARK), value_set=done)
            gone += out.true_count
            kept = batch.filter(pc.invert(out))
            wiped = pc.is_in(kept.column(MARK), value_set=known)
            return with_marks(kept, pc.if_else(wiped, pa.scalar(None, pa.string()), kept.column(MARK)))

        if marks:
            self.rewrite(settle)
        return gone

    def _marks(self) -> list[str]:
        found: dict[str, None] = {}
        for batch in self.batches():
            found |= dict.fromkeys(pc.unique(batch.column(MARK).drop_null()).to_pylist())
        return list(found)


@contextmanager
def held_for_change(session: Session, step: StepPlan, unit: HeldUnit) -> Iterator[HeldRows]:
    """The rows of a unit, to be changed; the folder is swept at the end. Raises CheckFailed when the unit is not published yet."""
    if unit.unfinished:
        raise CheckFailed(
            f"{session.pipeline.name}.{step.id} {unit.key}: an attempt died between the rows set aside and the others",
            hint="finish it first: dataflow run --select " + session.pipeline.name,
        )
    name, key = session.request.attempt, f"{unit.key}.replay"
    folder = unit_folder(session.project.stages_dir, session.pipeline.name, key)
    attempt = Attempt(folder / name, AttemptRecord(name, name, key))
    try:
        yield HeldRows(session, step, unit, attempt)
    except BaseException as error:
        attempt.fail(step.id, str(error))
        raise
    attempt.succeed()


def with_marks(batch: pa.RecordBatch, marks: pa.Array) -> pa.RecordBatch:
    """The rows of a quarantine with these values of `released_as`."""
    place = SCHEMA.get_field_index(MARK)
    columns = [marks.cast(pa.string()) if number == place else column for number, column in enumerate(batch.columns)]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
