"""Places where a process can be made to die or fail on purpose.

Here: the hook that the code calls at each phase boundary, driven by the environment variable `DATAFLOW_FAILPOINTS`.
Not here: any decision about what happens next; recovery must not know that failpoints exist.

`DATAFLOW_FAILPOINTS="publish.before_commit=kill,extract.batch=error@3,publish.after_commit=sleep:5"`: at the named place,
`kill` ends the process with SIGKILL, `error` raises OSError, `sleep:S` waits S seconds; `@N` acts at the N-th visit only.
"""

from __future__ import annotations

import os
import signal
import time
from functools import lru_cache

VARIABLE = "DATAFLOW_FAILPOINTS"
_visits: dict[str, int] = {}


@lru_cache(maxsize=8)
def _parse(text: str) -> dict[str, tuple[str, int]]:
    actions: dict[str, tuple[str, int]] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, action = item.partition("=")
        action, _, nth = action.partition("@")
        actions[name] = (action, int(nth or 1))
    return actions


def failpoint(name: str) -> None:
    """Act on `DATAFLOW_FAILPOINTS` at this place; free when the variable is unset."""
    text = os.environ.get(VARIABLE)
    if not text or name not in (actions := _parse(text)):
        return
    action, nth = actions[name]
    _visits[name] = _visits.get(name, 0) + 1
    if _visits[name] != nth:
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action.startswith("sleep:"):
        time.sleep(float(action.removeprefix("sleep:")))
    elif action == "error":
        raise OSError(f"failpoint {name}")
    else:
        raise ValueError(f"{VARIABLE}: unknown action {action!r} at {name!r}; expected kill, error or sleep:SECONDS")
