"""Whether a failed window is tried again within its run, and after which wait.

Here: tries, waits with backoff and jitter, the budget of a run. Not here: which errors are transient (`error_kinds`, the connectors),
the loop over windows (`execution.run`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace

from dataflow_assets.error_kinds import kind_of
from dataflow_assets.execution.events import NextTry, WindowFailed
from dataflow_assets.spec.retries import RetryOptions
from dataflow_assets.windows import parse_duration

_LARGEST_POWER = 32


class Patience:
    """The tries that a window, and the time that a run, may still spend on transient failures.

    `clock` gives seconds, `sleep` waits for so many, `spread` a factor between two numbers.
    """

    def __init__(
        self,
        options: RetryOptions,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        spread: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._options, self._clock, self._sleep, self._spread = options, clock, sleep, spread
        self._left = parse_duration(options.budget).total_seconds()
        self._since: float | None = None
        self._tries = 0

    def begin(self) -> None:
        """A window begins: it has all its tries."""
        self._settle()
        self._tries, self._since = 0, None

    def judge(self, failed: WindowFailed) -> WindowFailed:
        """The failure with what follows from it: another try, or why there is none."""
        self._tries += 1
        self._settle()
        self._since = self._clock()
        again, why = self._next(failed.error)
        return replace(failed, tries=self._tries, again=again, given_up=why)

    def wait(self, again: NextTry) -> None:
        """Wait before the next try."""
        if again.wait > 0:
            self._sleep(again.wait)

    def _settle(self) -> None:
        """Take what has passed since the last failure of this window from the budget."""
        if self._since is not None:
            self._left = max(self._left - (self._clock() - self._since), 0.0)

    def _next(self, error: Exception) -> tuple[NextTry | None, str]:
        options = self._options
        if (kind := kind_of(error)) != "transient":
            return None, f"{kind}: another try would not help"
        if self._tries > options.max_retries:
            return None, f"tried {_times(self._tries)}, max_retries is {options.max_retries}"
        wait = delay_before(self._tries, options, spread=self._spread)
        if (asked := getattr(error, "retry_after", None)) is not None:
            wait = max(wait, float(asked))
        if wait > self._left:
            left = f"of the budget of {options.budget} {self._left:.0f}s are left, less than the next wait of {wait:.0f}s"
            return None, f"tried {_times(self._tries)}; {left}"
        return NextTry(self._tries, options.max_retries - self._tries + 1, wait, self._left), ""


def delay_before(retry: int, options: RetryOptions, *, spread: Callable[[float, float], float] = random.uniform) -> float:
    """Seconds to wait before the `retry`-th retry (from 1): grown by the backoff up to `max_delay`, then spread by half.

    The spread keeps many runs that failed together from coming back together ("equal jitter").
    """
    if options.backoff == "none":
        return 0.0
    base, longest = parse_duration(options.delay).total_seconds(), parse_duration(options.max_delay).total_seconds()
    factor = 2.0 ** min(retry - 1, _LARGEST_POWER) if options.backoff == "exponential" else float(retry)
    return min(base * factor, longest) * spread(0.5, 1.0)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
