"""The windows of a project's only pipeline, run by the library in a loop without Dagster: `python -m benchmarks.plain_loop <folder>`.

Here: what `many_windows` compares with. Not here: any measurement.
"""

import sys
from pathlib import Path

from dataflow_assets.execution.events import WindowFailed, WindowFinished
from dataflow_assets.execution.run import RunRequest, run
from dataflow_assets.execution.status import window_status
from dataflow_assets.plan.build import build_plan
from dataflow_assets.spec.load import load
from dataflow_assets.tables import utc_now


def main(folder: str) -> None:
    now = utc_now()
    project = load(Path(folder), overrides={})
    (pipeline,) = build_plan(project).pipelines
    todos = [todo for todo in window_status(project, pipeline, now=now) if todo.run]
    finished = 0
    for event in run(RunRequest(project, pipeline, tuple(todo.window for todo in todos), attempt="plain", now=now)):
        if isinstance(event, WindowFailed):
            raise event.error
        finished += isinstance(event, WindowFinished)
    print(f"{finished} windows")


if __name__ == "__main__":
    main(*sys.argv[1:])
