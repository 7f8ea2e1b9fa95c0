"""The terminal: the console script `dataflow`.

Here: the entry point, and how the process begins and ends. Each verb has a module of its own, imported when it is called, so that
`dataflow --help` starts in the time of Python itself. Not here: any work; verbs ask `spec`, `plan`, `assets` and `execution`, and print
what they answer.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import NoReturn

from dataflow_assets.footprint import start_lean


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: `arguments`, else the process's own, which then ends here.

    Exits with 0 (ok), 1 (a run or check failed), 2 (usage or configuration) or 130 (interrupted).
    """
    # Looking for garbage among what imports leave costs a run 0.25 s (measured); `run` takes it up again before rows move.
    gc.disable()
    start_lean()
    try:
        from dataflow_assets.cli.app import app

        app.main(arguments, prog_name="dataflow")
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except SystemExit as ending:
        if arguments is None and isinstance(ending.code, int):
            _leave(ending.code)
        raise
    finally:
        gc.enable()


def _leave(code: int) -> NoReturn:
    """End the process without taking the interpreter apart object by object, 0.5 s after a run (measured).

    What Python promises at an exit is done: threads are waited for, exit handlers run, streams are flushed.
    """
    import atexit
    import os
    import sys
    import threading

    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(code)
