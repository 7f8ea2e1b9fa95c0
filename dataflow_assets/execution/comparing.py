"""Two places that should hold the same rows, opened side by side.

Here: a side (a source, a stage, a target), who counts and sums it up, and which columns both have. Not here: what follows from a
difference (`execution.reconciling`), where it lies (`execution.bisecting`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from dataflow_assets.canonical import Agreed, Tally, agree
from dataflow_assets.errors import DataflowError
from dataflow_assets.execution.session import Session
from dataflow_assets.execution.staging import read_request
from dataflow_assets.plan.model import StepPlan
from dataflow_assets.protocols import Comparable, Connector, Reconciles
from dataflow_assets.storage.local_digests import OpenRows, open_local
from dataflow_assets.storage.stages import Stage
from dataflow_assets.tables import ReadRequest, Target, WindowFilter
from dataflow_assets.windows import Window

HERE = "here"


@dataclass(frozen=True)
class Side:
    """One of the two places. `system` is the kind of its connector; `open_inside` is None when its rows must be streamed."""

    name: str
    system: str
    open_rows: OpenRows
    open_inside: Callable[[], AbstractContextManager[Comparable]] | None = None


def source_side(session: Session, step: StepPlan, window: Window | None) -> Side:
    """What a source step reads for a window, asked anew."""
    connector = session.connector(step)
    request = read_request(session, step, window, session.render(step, connector.Source, session.context(window)))
    return request_side(connector, step.kind, request)


def request_side(connector: Connector, kind: str, request: ReadRequest) -> Side:
    """What a source answers to a request."""
    inside = None
    if isinstance(connector, Reconciles):
        found = connector
        inside = lambda: found.compare_source(request)  # noqa: E731 - the narrowed type would be lost in a def
    return Side("source", kind, lambda: connector.read(request), inside)


def target_side(session: Session, step: StepPlan, target: Target, window: WindowFilter | None) -> Side:
    """What the target of an endpoint step holds."""
    connector = session.connector(step)
    inside = None
    if isinstance(connector, Reconciles):
        found = connector
        inside = lambda: found.compare_target(target, window)  # noqa: E731 - as above
    return Side("target", step.kind, lambda: connector.read_target(target, window), inside)


def stage_side(stage: Stage) -> Side:
    """What is staged."""
    return Side("stage", HERE, lambda: nullcontext(stage.open_reader()))


@dataclass(frozen=True)
class Pair:
    """Two opened sides, and the columns by which they are compared. `made_in`: where each one's tallies are made."""

    left: Comparable
    right: Comparable
    agreed: Agreed
    names: tuple[str, str]
    made_in: tuple[str, str]

    def primary_key(self) -> tuple[str, ...]:
        """The primary key that one of the sides has and both compare; empty when there is none."""
        compared = {column.name for column in self.agreed.columns}
        return next((tuple(key) for side in (self.left, self.right) if (key := side.primary_key()) and set(key) <= compared), ())

    def totals(self, *, checksum: bool = True) -> tuple[Tally, Tally]:
        """Count and checksum of everything on either side; without `checksum` only the counts mean anything."""
        columns = self.agreed.columns if checksum else self.agreed.columns[:1]
        left, right = (side.tallies(columns).get("", Tally()) for side in (self.left, self.right))
        return left, right


@contextmanager
def opened(left: Side, right: Side, *, scratch: Path | None = None, ignore: Collection[str] = ()) -> Iterator[Pair]:
    """Open both; a side whose system cannot do a column's type is streamed instead.

    Raises DataflowError when they have no column in common, and whatever reading raises.
    """
    with ExitStack() as stack:
        first, second = (_first_look(stack, side, scratch) for side in (left, right))
        agreed = agree(first.schema, second.schema, names=(left.name, right.name), ignore=ignore)
        if not agreed.columns:
            raise DataflowError(
                f"{left.name} and {right.name} have no column in common that could be compared", hint="; ".join(agreed.left_out)
            )
        sides = [_able(stack, side, found, agreed, scratch) for side, found in ((left, first), (right, second))]
        yield Pair(sides[0][0], sides[1][0], agreed, (left.name, right.name), (sides[0][1], sides[1][1]))


def _first_look(stack: ExitStack, side: Side, scratch: Path | None) -> Comparable:
    return stack.enter_context(side.open_inside() if side.open_inside else open_local(side.open_rows, scratch=scratch))


def _able(stack: ExitStack, side: Side, found: Comparable, agreed: Agreed, scratch: Path | None) -> tuple[Comparable, str]:
    if side.open_inside is None:
        return found, HERE
    if found.digests(agreed.columns):
        return found, side.system
    return stack.enter_context(open_local(side.open_rows, scratch=scratch)), HERE
