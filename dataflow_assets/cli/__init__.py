"""The terminal: the console script `dataflow`.

Here: the entry point. Each verb has a module of its own, imported when it is called, so that `dataflow --help` starts in the time of
Python itself. Not here: any work; verbs ask `spec`, `plan`, `assets` and `execution`, and print what they answer.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: `arguments`, else the process's own.

    Exits with 0 (ok), 1 (a run or check failed), 2 (usage or configuration) or 130 (interrupted).
    """
    # Looking for garbage among what imports leave costs a run 0.25 s (measured); `run` takes it up again before rows move.
    gc.disable()
    try:
        from dataflow_assets.cli.app import app

        app.main(arguments, prog_name="dataflow")
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    finally:
        gc.enable()
