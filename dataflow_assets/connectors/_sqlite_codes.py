"""Which of SQLite's result codes may pass by themselves. Here: their names alone, so that planning need not import the library."""

from __future__ import annotations

from dataflow_assets.error_kinds import Codes

ERROR_CODES = Codes(
    "result code",
    transient=("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR", "SQLITE_FULL", "SQLITE_PROTOCOL", "SQLITE_INTERRUPT"),
    configuration=("SQLITE_CANTOPEN", "SQLITE_NOTADB", "SQLITE_PERM", "SQLITE_READONLY", "SQLITE_AUTH"),
)
