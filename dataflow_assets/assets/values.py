"""The table of keys and values that a Dagster instance has, which all hosts share.

Here: writing into it so that nothing is lost. Not here: what is kept there (`assets.manifests`, `operations.sensors.seen`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Values(Protocol):
    """What an instance's run storage offers: texts by key."""

    def get_cursor_values(self, keys: set[str]) -> Mapping[str, str]:
        """The values of those keys that are there."""
        ...

    def set_cursor_values(self, pairs: Mapping[str, str]) -> None:
        """Set them."""
        ...


def set_values(values: Values, pairs: Mapping[str, str]) -> None:
    """Set values, new keys and known ones.

    Dagster's SQLite storage inserts them all, and where one of them is there, updates that one and drops the new ones: so the two kinds
    go apart.
    """
    known = values.get_cursor_values(set(pairs))
    for part in ({key: text for key, text in pairs.items() if (key in known) == there} for there in (True, False)):
        if part:
            values.set_cursor_values(part)
