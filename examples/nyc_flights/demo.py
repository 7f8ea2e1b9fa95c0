"""The demo: lay out the landing files, load the year, look at what came out.

`python examples/nyc_flights/demo.py`; it may be run again: only what is new or failed runs.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from prepare import prepare

HERE = Path(__file__).parent
LOOK = {
    "{dataflow} --project {here} status": "what is published, window by window",
    "{dataflow} --project {here} show flights": "one pipeline, resolved",
    "{dataflow} --project {here} dev": "the Dagster UI on http://127.0.0.1:3000  (make dev)",
    "{here}/reports/punctuality.csv": "what the reports say",
}


def main() -> int:
    """Run the whole example; returns its exit code."""
    from dataflow_assets.cli import main as dataflow

    print(f"{prepare():,} flights lie in {_relative(HERE / 'landing')}")
    try:
        dataflow(["--project", str(HERE), "run"])
    except SystemExit as stop:
        code = int(stop.code or 0) if not isinstance(stop.code, str) else 2
    else:
        code = 0
    if code == 0:
        print("\nLook at it:")
        lines = {typed.format(dataflow=_program(), here=_relative(HERE)): shown for typed, shown in LOOK.items()}
        for typed, shown in lines.items():
            print(f"  {typed:<{max(map(len, lines))}}  {shown}")
    return code


def _program() -> str:
    """What to type for `dataflow`: its path, where the environment is not active."""
    beside = Path(sys.executable).with_name("dataflow")
    found = shutil.which("dataflow")
    return _relative(beside) if beside.exists() and not (found and beside.samefile(found)) else "dataflow"


def _relative(path: Path) -> str:
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


if __name__ == "__main__":
    raise SystemExit(main())
