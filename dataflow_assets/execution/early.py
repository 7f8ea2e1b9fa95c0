"""Publishing that begins while the rows are still being staged, and commits only when every check has passed.

Here: which windows do so, and handing the staged batches to a publish that waits in a thread of its own. Not here: the transaction
(each connector's `publish`), what a strict publish does after the checks (`execution.publishing`).

An early publish is the connector's own one, of rows that come as they are staged. Where it asks for what only a finished stage can
tell (rows, checksum, metrics, state), it waits for the verdict; where there will be none, its next wait or read raises `_GivenUp`, and
it rolls back as after any error. So whatever goes wrong with it costs time only: the strict publish follows.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from dataflow_assets.execution.work import Work, producer_of
from dataflow_assets.tables import Claim, Published, PublishRequest, Target, WriteMode

if TYPE_CHECKING:
    from dataflow_assets.execution.checking import RunningChecks
    from dataflow_assets.plan.model import StepPlan
    from dataflow_assets.protocols import Connector

BEGIN_BYTES = 8 << 20
"""Rows held in memory before an early publish begins; a smaller window is published after its checks."""
AHEAD_BYTES = 8 << 20
"""How far staging may be ahead of the target."""
SLOW_SECONDS = 10.0
"""A source that takes longer for the first `BEGIN_BYTES` would keep the target's locks for the sake of little."""
STALL_SECONDS = 30.0
"""How long one side may wait for the other, before its locks are let go of."""
VERDICT_SECONDS = 60.0
"""How long the target waits for checks that take their time when every row has been staged."""

_log = logging.getLogger(__name__)


class _GivenUp(Exception):
    """The early publish is not wanted any more."""


def early_publish(work: Work, producer: StepPlan, running: RunningChecks) -> EarlyPublish | None:
    """The early publish of what `producer` stages; None where the strict one must do.

    So it is where rows may still be set aside, another step is to be staged before the checks are complete, the unit is named by its
    stage, an upsert would keep others from the whole table, or the connector cannot.
    """
    wish = work.session.project.model.stages.publish_early
    if wish == "never" or work.session.request.checks_only or any(step.quarantines for step, _ in running.runs):
        return None
    if producer.id != [step.id for step in work.steps if step.role in {"source", "transform"}][-1]:
        return None
    endpoint = next((step for step in work.steps if step.role == "endpoint" and step.id in work.chosen), None)
    if endpoint is None or endpoint.id not in work.claims or producer_of(work.pipeline, endpoint).id != producer.id:
        return None
    connector, target = work.session.connector(endpoint), work.targets[endpoint.id]
    if not connector.capabilities.publishes_early or target.mode is WriteMode.UPSERT:
        return None
    begun = EarlyPublish(connector, target, work.claims[endpoint.id], eager=wish == "always")
    work.early[endpoint.id] = begun
    return begun


@dataclass(frozen=True)
class _Sealed:
    """What is known of a window once its checks have passed."""

    rows: int
    checksum: str
    metrics: Mapping[str, float]
    state: Mapping[str, str]


class _EarlyRequest(PublishRequest):
    """A request whose rows are still coming."""

    def __init__(self, early: EarlyPublish, schema: pa.Schema) -> None:
        values = {"target": early.target, "claim": early.claim, "schema": schema, "open_reader": early.open_reader, "paths": ()}
        for name, value in {**values, "published_at": None, "replaces": None, "_early": early}.items():
            object.__setattr__(self, name, value)

    @property
    def known_rows(self) -> int | None:
        return None

    def require_checked(self) -> None:
        self._sealed()

    def require_wanted(self) -> None:
        self._early.require_wanted()  # type: ignore[attr-defined]

    def with_schema(self, schema: pa.Schema) -> PublishRequest:
        return _EarlyRequest(self._early, schema)  # type: ignore[attr-defined]

    def _sealed(self) -> _Sealed:
        sealed: _Sealed = self._early.verdict()  # type: ignore[attr-defined]
        return sealed

    @property
    def rows(self) -> int:
        return self._sealed().rows

    @property
    def checksum(self) -> str:
        return self._sealed().checksum

    @property
    def metrics(self) -> dict[str, float]:
        return dict(self._sealed().metrics)

    @property
    def state(self) -> dict[str, str]:
        return dict(self._sealed().state)


class EarlyPublish:
    """One publish that follows a stage in the making; an observer of its batches. Its other methods are for the window's own thread."""

    def __init__(self, connector: Connector, target: Target, claim: Claim, *, eager: bool) -> None:
        self.target, self.claim = target, claim
        self._connector, self._begin_bytes = connector, 1 if eager else BEGIN_BYTES
        self._since = time.monotonic()
        self._changed = threading.Condition()
        self._waiting: deque[pa.RecordBatch] = deque()
        self._bytes = self._seen = 0
        self._schema: pa.Schema | None = None
        self._asked = self._complete = self._over = self._ended = False
        self._sealed: _Sealed | None = None
        self._published: Published | None = None
        self._thread: threading.Thread | None = None

    def update(self, batch: pa.RecordBatch) -> None:
        """Take the next staged batch; waits while the target is far behind."""
        with self._changed:
            self._seen += batch.nbytes
            if self._over or not self._has_room():
                return
            self._schema = batch.schema
            self._waiting.append(batch)
            self._bytes += batch.nbytes
            self._changed.notify_all()
            if self._thread is None and self._bytes >= self._begin_bytes:
                self._begin()

    def _begin(self) -> None:
        thread = threading.Thread(target=self._publish, name="early-publish", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads
            self._give_up(str(error))
        else:
            self._thread = thread

    def _has_room(self) -> bool:
        """Wait for the target, and say whether it takes more."""
        if self._seen < (time.monotonic() - self._since) / SLOW_SECONDS * BEGIN_BYTES - BEGIN_BYTES:
            self._give_up("the source is slow")
        until = time.monotonic() + STALL_SECONDS
        while self._thread is not None and not self._over and self._bytes >= AHEAD_BYTES:
            if not self._changed.wait(max(until - time.monotonic(), 0)):
                self._give_up("the target does not take rows")
        return not self._over

    def _give_up(self, reason: str) -> None:
        if not self._over:
            _log.debug("early publish of %s given up: %s", self.claim.unit, reason)
        self._over = True
        self._waiting.clear()
        self._bytes = 0
        self._changed.notify_all()

    def _publish(self) -> None:
        """The connector's publish, to its end."""
        try:
            published = self._connector.publish(_EarlyRequest(self, self._schema))
            with self._changed:
                self._published = published
        except BaseException as error:  # noqa: BLE001 - the strict publish will tell, unless it succeeds
            _log.debug("early publish of %s failed: %s", self.claim.unit, type(error).__name__)
        finally:
            with self._changed:
                self._ended = True
                self._give_up("it has ended")

    def open_reader(self) -> pa.RecordBatchReader:
        """The batches as they come; can be read once."""
        with self._changed:
            if self._asked:
                raise _GivenUp("an early publish reads once")
            self._asked = True
            self._changed.notify_all()
        return pa.RecordBatchReader.from_batches(self._schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        while (batch := self._next()) is not None:
            yield batch

    def _next(self) -> pa.RecordBatch | None:
        with self._changed:
            while not self._waiting and not self._complete and not self._over:
                if not self._changed.wait(STALL_SECONDS):
                    self._give_up("the source stands still")
            if self._over:
                raise _GivenUp
            if not self._waiting:
                return None
            batch = self._waiting.popleft()
            self._bytes -= batch.nbytes
            self._changed.notify_all()
            return batch

    def verdict(self) -> _Sealed:
        """What the checked stage holds, as soon as it is known. Who asks before the rows have been read would keep them waiting here."""
        with self._changed:
            if not self._asked:
                self._give_up("the target is not to be touched before the checks")
            while self._sealed is None and not self._over:
                if not self._changed.wait(VERDICT_SECONDS if self._complete else None):
                    self._give_up("the checks take long")
            if self._over or self._sealed is None:
                raise _GivenUp
            return self._sealed

    def require_wanted(self) -> None:
        """Raise unless the rows are still wanted, and have not been read."""
        with self._changed:
            if self._over or self._asked:
                raise _GivenUp

    def complete(self) -> None:
        """Every batch has been staged."""
        with self._changed:
            self._complete = True
            if self._thread is None:
                self._give_up("the window is small")
            self._changed.notify_all()

    def conclude(self, request: PublishRequest) -> Published | None:
        """Every check has passed: let it commit, and return what it published; None when it came to nothing.

        `request` is that of the strict publish, for the same unit.
        """
        with self._changed:
            if not self._complete or not request.schema.equals(self._schema or pa.schema([])):
                self._give_up("the stage is another one")
            if not self._over:
                self._sealed = _Sealed(request.rows, request.checksum, request.metrics, request.state)
            self._changed.notify_all()
        self._join()
        return self._published

    def abandon(self) -> None:
        """Have it roll back, and return when it has."""
        with self._changed:
            self._give_up("the window has ended")
        self._join()

    def _join(self) -> None:
        with self._changed:  # not Thread.join: Python 3.11 takes a living thread for a stopped one after an interrupt in it
            while self._thread is not None and not self._ended:
                self._changed.wait()
