"""A database in a file that is not there yet.

Here: looking whether it could be made, without making it. Not here: making it (each connector, when it first publishes).
"""

from __future__ import annotations

import os
from pathlib import Path

from dataflow_assets.errors import ConnectionFailed

ANSWER = "no file yet, the first publish makes it"


def could_be_made(path: Path, *, name: str) -> str:
    """What a probe answers of a missing file. Raises ConnectionFailed, naming the connection, where no file can be made."""
    folder = next(above for above in path.parents if above.exists())
    if not folder.is_dir():
        problem = f"{folder} is no folder"
    elif not os.access(folder, os.W_OK | os.X_OK):
        problem = f"{folder} cannot be written"
    else:
        return ANSWER
    hint = "check `database` of the connection, and who may write there"
    raise ConnectionFailed(f"connection {name!r}: {path} cannot be made: {problem}", hint=hint, transient=False)
