"""Finding the project.

Here: `--project`, the environment variable and the search upwards, in that order. Not here: reading the project (`spec.load`).
"""

from __future__ import annotations

import os
from pathlib import Path

from dataflow_assets.cli.failures import UsageFailed

VARIABLE = "DATAFLOW_PROJECT"


def locate(given: str | None) -> Path:
    """The project file, absolute. Raises UsageFailed when there is none."""
    from dataflow_assets.errors import DataflowError
    from dataflow_assets.spec.load import find_project_file

    named = given or os.environ.get(VARIABLE)
    start = Path(named).expanduser() if named else Path.cwd()
    if named and not start.exists():
        raise UsageFailed(f"there is no {start}", hint=f"{'--project' if given else VARIABLE} must name a project's folder or file")
    try:
        return find_project_file(start).resolve()
    except (DataflowError, FileNotFoundError) as error:
        raise UsageFailed(
            f"no project at or above {start}" if not named else f"no project in {start}",
            hint="go into a project's folder, name it with --project or DATAFLOW_PROJECT, or begin one with `dataflow init my_project`",
        ) from error
