"""Other tools, in an environment of their own, and which of them stands beside which way.

Here: the environment `.venv-peers` made from `peers.txt`, and the list of peers. Not here: one peer (a module of its own), the
programs that run inside that environment (`*_load.py`).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.model import Contender, Part
from benchmarks.peers import dlt, ingestr, pandas, sling

HERE = Path(__file__).resolve().parent
PINS = HERE.parent / "peers.txt"
ENVIRONMENT = HERE.parent.parent / ".venv-peers"
PEERS = (dlt, ingestr, sling, pandas)


def peer_python() -> Path:
    """The Python of the peers' environment, which is made, or made anew when the pins have changed."""
    python, ready = ENVIRONMENT / "bin" / "python", ENVIRONMENT / ".pins"
    if not ready.exists() or ready.read_text() != PINS.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
        subprocess.run([python, "-m", "pip", "install", "-qq", "-r", PINS], check=True)
        subprocess.run([python, "-m", "compileall", "-q", ENVIRONMENT / "lib"], check=False, capture_output=True)
        ready.write_text(PINS.read_text())
    return python


def peer_contenders(
    python: Path | None, *, source: str, to: str, target: Callable[[str], str], clear: Callable[[str], None], count: Callable[[str], int]
) -> tuple[Contender, ...]:
    """Every peer on its way from `source`, SQLAlchemy's URL or a CSV file, to `to`; none without `python`.

    `target`, `clear` and `count` are asked with the peer's name, since each has a target of its own.
    """
    if python is None:
        return ()
    found: list[Contender] = []
    for peer in PEERS:
        name = peer.__name__.rpartition(".")[2]
        argv = peer.argv(python, source=source, to=to, target=target(name))
        if isinstance(argv, str):
            found.append(Contender(name, Part.PEER, absent=argv))
        else:
            found.append(Contender(name, Part.PEER, argv, clear=partial(clear, name), count=partial(count, name)))
    return tuple(found)
