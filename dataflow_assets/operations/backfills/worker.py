"""The process behind `workers`: it loads the project once, runs one piece after the other, and says what happens.

Here: the loop from standard input to standard output. Not here: the run (`pieces`). What users' functions print goes to standard error.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from datetime import datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from dataflow_assets.assets.instance import open_instance
from dataflow_assets.operations.backfills.pieces import Around, Done, Outcome, run_piece
from dataflow_assets.operations.backfills.records import Records
from dataflow_assets.plan.backfills import Piece
from dataflow_assets.plan.build import build_plan_tolerant
from dataflow_assets.secrets import mask
from dataflow_assets.spec.load import load
from dataflow_assets.windows import Window

Line = dict[str, Any]


def main() -> int:
    """Work until the input ends."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    told: SimpleQueue[Line | None] = SimpleQueue()
    busy = threading.Event()
    threading.Thread(target=_listen, args=(told, busy), daemon=True).start()
    first = told.get()
    if first is None:
        return 0
    project = load(Path(first["project"]), overrides=first["overrides"])
    plan, _ = build_plan_tolerant(project, external=False)
    with open_instance(project) as instance:
        backfill = Records(instance).get(first["backfill"])
        around = Around(project, plan, instance, backfill)
        while (line := told.get()) is not None:
            busy.set()
            outcome = _run(around, Piece(line["pipeline"], tuple(map(_window, line["windows"]))), out)
            busy.clear()
            _say(out, _ended(outcome))
            if outcome.status == "interrupted":
                return 130
    return 0


def _listen(told: SimpleQueue[Line | None], busy: threading.Event) -> None:
    """Pass on what is said; when nobody is there any more, interrupt what runs."""
    for line in sys.stdin.buffer:
        told.put(json.loads(line))
    told.put(None)
    if busy.is_set():
        os.kill(os.getpid(), signal.SIGINT)


def _run(around: Around, piece: Piece, out: Any) -> Outcome:
    def hear(event: Done) -> None:
        _say(out, {"event": "done", "window": _pair(event.window), "rows": event.rows, "seconds": event.seconds})

    try:
        return run_piece(around, piece, hear)
    except KeyboardInterrupt:
        return Outcome(piece, "interrupted")
    except Exception as error:  # noqa: BLE001 - whatever stops one piece, the worker is there for the next
        return Outcome(piece, "failed", message=mask(f"{type(error).__name__}: {error}"))


def _ended(outcome: Outcome) -> Line:
    failed = [[_pair(window), text] for window, text in outcome.failed.items()]
    return {"event": "ended", "status": outcome.status, "run_id": outcome.run_id, "message": outcome.message, "failed": failed}


def _say(out: Any, line: Line) -> None:
    try:
        out.write(json.dumps(line) + "\n")
        out.flush()
    except BrokenPipeError:
        raise KeyboardInterrupt from None


def _pair(window: Window | None) -> list[str] | None:
    return [window.start.isoformat(), window.end.isoformat()] if window else None


def _window(pair: list[str] | None) -> Window | None:
    return Window(*map(datetime.fromisoformat, pair)) if pair else None


if __name__ == "__main__":
    sys.exit(main())
