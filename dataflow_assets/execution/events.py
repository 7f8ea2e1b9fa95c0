"""What a run reports while it goes: one frozen event per thing that happened, in order.

Here: the events that the Dagster edge turns into materializations and check evaluations and the terminal into lines.
Not here: how the work is done (`execution.run`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dataflow_assets.protocols import CheckResult
from dataflow_assets.tables import Published
from dataflow_assets.windows import Window

if TYPE_CHECKING:
    import pyarrow as pa

    from dataflow_assets.execution.phases import Phase, Phases


@dataclass(frozen=True)
class WindowStarted:
    """A window (None: a pipeline without windows) begins. `key` is its partition key, `attempt` the name of this try.

    `phases` fills while the window is at work, for whoever must tell of one that is interrupted.
    """

    key: str
    window: Window | None
    attempt: str = ""
    phases: Phases | None = None


@dataclass(frozen=True)
class StepStarted:
    """A step begins."""

    key: str
    step: str
    number: int
    total: int


@dataclass(frozen=True)
class Progress:
    """Rows and bytes so far in the current phase (`extract`, `transform`, `check`, `publish`) of a step."""

    key: str
    step: str
    phase: str
    rows: int
    bytes: int


@dataclass(frozen=True)
class CheckEvaluated:
    """One asset check at a step has its result; a failed blocking one is followed by `WindowFailed`."""

    key: str
    step: str
    result: CheckResult


@dataclass(frozen=True)
class StageJudged:
    """The stage that an earlier attempt left of a step is used, or it is not, for this `reason`."""

    key: str
    step: str
    used: bool
    rows: int = 0
    reason: str = ""

    def __str__(self) -> str:
        found = f"{self.rows:,} rows, verified" if self.used else self.reason
        return f"stage of step {self.step} {'used' if self.used else 'not used'}: {found}"


@dataclass(frozen=True)
class StepFinished:
    """A step's output is durable (staged, or published for an endpoint).

    `resumed`: a verified stage of an earlier attempt was used. `preview`: at most five rows. `seconds`: wall time.
    """

    key: str
    step: str
    rows: int
    bytes: int
    seconds: float
    checksum: str
    schema: pa.Schema
    resumed: bool = False
    published: Published | None = None
    preview: tuple[Mapping[str, Any], ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What a transform wants shown beside its result."""
    quarantined: int = 0
    """Rows that the step's rules have set aside; for an endpoint, all that were kept from it on the way."""
    made_anew: str = ""
    """Why the stage that an earlier attempt left was not used; empty when there was none."""
    quarantine: str = ""
    """For an endpoint: the table or file where they are."""


@dataclass(frozen=True)
class WindowFinished:
    """Every selected step of the window is done."""

    key: str
    window: Window | None
    seconds: float
    phases: Mapping[str, Phase] = field(default_factory=dict)


@dataclass(frozen=True)
class NextTry:
    """A failed window is tried again in this run: as retry `number` (from 1), after `wait` seconds.

    `left`: retries that it has, this one included. `budget`: seconds that the run may still spend on trying again.
    """

    number: int
    left: int
    wait: float
    budget: float

    def __str__(self) -> str:
        left = "it is the last" if self.left == 1 else f"{self.left} are left"
        return f"retry {self.number} in {self.wait:.1f}s ({left}; {self.budget:.0f}s of the budget)"


@dataclass(frozen=True)
class WindowFailed:
    """The window stopped at `step`; what was published before stays, its stages wait for the next attempt.

    `tries`: how often this run has tried it. `again`: the next try, None when this was the last one, for the reason `given_up`.
    """

    key: str
    window: Window | None
    step: str
    error: Exception
    tries: int = 1
    again: NextTry | None = None
    given_up: str = ""
    phases: Mapping[str, Phase] = field(default_factory=dict)
    """Those that were entered; the others are still to come."""


Event = WindowStarted | StepStarted | Progress | StageJudged | CheckEvaluated | StepFinished | WindowFinished | WindowFailed
