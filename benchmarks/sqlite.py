"""SQLite's own shell, its bulk tool, and the events in a SQLite file.

Here: the shell, the events table. Not here: contenders. The shell's `.import` is one transaction, synced as SQLite does by default.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.server import NoServer

COLUMNS = """id INTEGER, ts TIMESTAMPTZ, user_id INTEGER, session TEXT, kind TEXT, url TEXT,
amount DECIMAL(12, 2), ratio DOUBLE, flag BOOLEAN, day DATE"""
NAMES = ("id", "ts", "user_id", "session", "kind", "url", "amount", "ratio", "flag", "day")

# `.import` makes empty texts of nulls and leaves `+00` and `true` as they are.
_EVENTS = """INSERT INTO events SELECT id, ts || ':00', nullif(user_id, ''), session, kind, nullif(url, ''), nullif(amount, ''),
nullif(ratio, ''), nullif(flag, '') = 'true', day FROM raw"""


@dataclass(frozen=True)
class SQLite:
    """The shell: `sqlite3`."""

    shell: str
    version: str
    settings: str

    def command(self, file: Path, *lines: str) -> tuple[str, ...]:
        """The command that has the shell do these lines."""
        return (self.shell, "-batch", "-bail", str(file), *lines)

    def import_csv(self, csv: Path, file: Path, table: str) -> tuple[str, ...]:
        """The command that reads the CSV file into a table that is there."""
        return self.command(file, f'.import --csv --skip 1 "{csv}" {table}')

    def make_events(self, csv: Path, file: Path) -> None:
        """A file with the events table, from the CSV file, with true nulls."""
        file.unlink(missing_ok=True)
        raw = file.with_suffix(".raw")
        raw.unlink(missing_ok=True)
        self._run(raw, f"CREATE TABLE raw ({', '.join(f'{name} TEXT' for name in NAMES)})")
        subprocess.run(self.import_csv(csv, raw, "raw"), check=True)
        self._run(file, f"CREATE TABLE events ({COLUMNS})", f"ATTACH '{raw}' AS other", _EVENTS)
        raw.unlink()

    def count(self, file: Path) -> int:
        """Rows of the events table in the file."""
        return int(self._run(file, "SELECT count(*) FROM events"))

    def _run(self, file: Path, *lines: str) -> str:
        return subprocess.run(self.command(file, *lines), check=True, capture_output=True, text=True).stdout.strip()


def found_sqlite() -> SQLite:
    """The shell on the path."""
    shell = shutil.which("sqlite3")
    if shell is None:
        raise NoServer("the shell of SQLite is wanted: install sqlite3")
    version = subprocess.run((shell, "--version"), check=True, capture_output=True, text=True).stdout.split()[0]
    return SQLite(shell, version, "files synced as SQLite does by default")
