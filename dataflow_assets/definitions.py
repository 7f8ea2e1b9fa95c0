"""What Dagster loads: the definitions of one project.

Here: which project. `DATAFLOW_PROJECT` names it, else it is found from the working directory, else, in a checkout of this
repository, it is the example. Not here: anything about it (`operations.load`).
"""

from __future__ import annotations

import gc
import os
from pathlib import Path

import dagster as dg

from dataflow_assets.errors import SpecError
from dataflow_assets.footprint import start_lean
from dataflow_assets.spec.load import find_project_file

_EXAMPLE = Path(__file__).parent.parent / "examples" / "nyc_flights"


@dg.definitions
def defs() -> dg.Definitions:
    """The code location."""
    start_lean()  # before Arrow is imported
    from dataflow_assets.operations.load import load_project

    definitions = load_project(_project_file())
    gc.freeze()  # what a code server holds for good is not looked through for garbage again
    return definitions


def _project_file() -> Path:
    if named := os.environ.get("DATAFLOW_PROJECT"):
        return find_project_file(Path(named))
    try:
        return find_project_file(Path.cwd())
    except SpecError:
        if _EXAMPLE.is_dir():
            return find_project_file(_EXAMPLE)
        raise
