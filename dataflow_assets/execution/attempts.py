"""Attempts: who works on a window, what an earlier attempt left behind, and what is swept.

Here: the folder of one attempt at one window, adoption of a dead attempt's stages, and their removal. Not here: who lives
(`execution.folder_locks`), what a stage is (`storage.stages`), what is run (`execution.run`).

Layout: `<stages>/<pipeline>/<window key>/<attempt>/` with `lock`, `attempt.json` and one folder for each staged step. Two
attempts never share a folder, so a concurrent duplicate or a process that wakes up late harms nobody.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from dataflow_assets.execution.folder_locks import hold, is_alive, release
from dataflow_assets.execution.origins import MadeFrom, difference, fingerprint_of
from dataflow_assets.storage.stages import RECEIPT, Stage, load_stage

RECORD = "attempt.json"
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]")


@dataclass(frozen=True)
class AttemptRecord:
    """What an attempt says of itself. `batch` names the unit of a pipeline without windows.

    `status` is running, failed, or refused: a check did not pass, so its rows must be read again and not taken over.
    """

    attempt: str
    batch: str
    key: str
    status: str = "running"
    step: str = ""
    error: str = ""


class Attempt:
    """The folder of a living attempt; its lock is held until `release`, `succeed` or `fail`, or until the process dies."""

    def __init__(self, folder: Path, record: AttemptRecord) -> None:
        self.folder, self.record = folder, record
        # made and locked under a hidden name, so that no sweep can meet it unlocked
        making = folder.with_name(f".{folder.name}.{os.getpid()}")
        making.mkdir(parents=True)
        self._lock = hold(making)
        shutil.rmtree(folder, ignore_errors=True)
        making.rename(folder)
        self._write()

    def stage_folder(self, step: str) -> Path:
        """Where the stage of `step` lies."""
        return self.folder / step

    @property
    def scratch(self) -> Path:
        """A folder for temporary files, deleted with the attempt."""
        folder = self.folder / ".scratch"
        folder.mkdir(exist_ok=True)
        return folder

    def succeed(self) -> None:
        """Sweep everything the attempt left and let go of it."""
        leaving = self.folder.with_name(f".{self.folder.name}.{os.getpid()}")
        try:
            # out of sight before the lock falls; let go of before it is removed, since NFS keeps a file that is open
            self.folder.rename(leaving)
        except OSError:
            leaving = self.folder
        release(self._lock)
        shutil.rmtree(leaving, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()

    def fail(self, step: str, error: str, *, refused: bool = False) -> None:
        """Keep the stages for inspection and, unless a check refused them, for the next attempt."""
        shutil.rmtree(self.folder / ".scratch", ignore_errors=True)
        self.record = AttemptRecord(
            self.record.attempt, self.record.batch, self.record.key, "refused" if refused else "failed", step, error
        )
        self._write()
        release(self._lock)

    def _write(self) -> None:
        waiting = self.folder / f"{RECORD}.tmp"
        waiting.write_text(json.dumps(asdict(self.record)), encoding="utf-8")
        waiting.rename(self.folder / RECORD)


def folder_name(text: str) -> str:
    """`text` as a folder name that is safe and still tells what it is."""
    return _UNSAFE.sub("_", text)[:120] or "_"


def unit_folder(stages: Path, pipeline: str, key: str) -> Path:
    """The folder of all attempts at one window."""
    return stages / folder_name(pipeline) / folder_name(key)


def dead_attempts(unit: Path) -> list[tuple[Path, AttemptRecord]]:
    """Attempts at this window whose process is gone, newest first."""
    found = [(folder, record) for folder in _folders(unit) if not is_alive(folder) and (record := _record(folder))]
    return sorted(found, key=lambda item: item[0].stat().st_mtime, reverse=True)


@dataclass(frozen=True)
class LeftStage:
    """What dead attempts left of one step: the newest stage that can serve, or why there is none (empty: nothing was left)."""

    stage: Stage | None
    reason: str = ""


def left_stage(unit: Path, step: str, made: MadeFrom, *, max_age: float | None = None) -> LeftStage:
    """The newest stage of `step` at this window that was made from the same things. It is complete by its receipt, and not yet read.

    `max_age`: seconds after which a stage is too old to be taken over.
    """
    wanted, reasons = fingerprint_of(made), []
    for folder, record in dead_attempts(unit):
        stage = load_stage(folder / step) if (folder / step).is_dir() else None
        reason = _why_not(folder / step, record, stage, made if stage and stage.receipt.fingerprint != wanted else None, max_age)
        if stage is not None and not reason:
            return LeftStage(stage)
        reasons.append(reason)
    return LeftStage(None, next(filter(None, reasons), ""))


def _why_not(folder: Path, record: AttemptRecord, stage: Stage | None, made: MadeFrom | None, max_age: float | None) -> str:
    """Why this stage cannot serve; empty when it can, and when the attempt did not come so far."""
    if stage is None:
        return "it was not complete when the attempt ended" if folder.is_dir() else ""
    if record.status == "refused":
        return "a check refused what came of it, so the rows are read again"
    if made is not None:
        return difference(stage.receipt.made_from, made)
    age = time.time() - (folder / RECEIPT).stat().st_mtime
    if max_age is not None and age > max_age:
        return f"it is {age / 3600:.1f} hours old, and stages.max_age allows {max_age / 3600:.1f}"
    return ""


def adopt_stage(attempt: Attempt, step: str, made: MadeFrom, *, max_age: float | None = None) -> LeftStage:
    """Move the stage that `left_stage` finds into `attempt`; its content is still to be verified by reading it."""
    left = left_stage(attempt.folder.parent, step, made, max_age=max_age)
    if left.stage is None:
        return left
    try:
        shutil.rmtree(attempt.stage_folder(step), ignore_errors=True)
        left.stage.folder.rename(attempt.stage_folder(step))
    except OSError as error:
        return LeftStage(None, f"it cannot be moved: {error}")
    moved = load_stage(attempt.stage_folder(step))
    return LeftStage(moved, "" if moved else "it vanished meanwhile")


def sweep_dead(unit: Path) -> None:
    """Remove what dead attempts at this window left; called when a newer attempt has finished."""
    for folder in _folders(unit):
        if not is_alive(folder):
            shutil.rmtree(folder, ignore_errors=True)


def old_attempts(
    stages: Path, *, keep_seconds: float, ages: Mapping[str, float] | None = None, pipeline: str | None = None
) -> Iterator[Path]:
    """The folders of dead attempts that nobody touched for `keep_seconds`; `ages`: pipeline -> seconds, where it says others."""
    now, by_folder = time.time(), {folder_name(name): seconds for name, seconds in (ages or {}).items()}
    # hidden ones too, whose process was killed while it removed its folder
    for record in stages.glob(f"{folder_name(pipeline) if pipeline is not None else '*'}/*/*/{RECORD}"):
        keep = by_folder.get(record.parents[2].name, keep_seconds)
        with contextlib.suppress(OSError):
            if record.stat().st_mtime < now - keep and not is_alive(record.parent):
                yield record.parent


def sweep_old(stages: Path, *, keep_seconds: float, ages: Mapping[str, float] | None = None) -> int:
    """Remove what `old_attempts` finds; returns how many."""
    removed = 0
    for folder in list(old_attempts(stages, keep_seconds=keep_seconds, ages=ages)):
        shutil.rmtree(folder, ignore_errors=True)
        removed += 1
    return removed


def unfinished(stages: Path, pipeline: str) -> dict[str, AttemptRecord]:
    """The newest dead attempt of each window of a pipeline, by window key: windows that failed or were killed."""
    found: dict[str, AttemptRecord] = {}
    for unit in _folders(stages / folder_name(pipeline)):
        for _, record in dead_attempts(unit)[:1]:
            found[record.key] = record
    return found


def _folders(parent: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from (entry for entry in sorted(parent.iterdir()) if entry.is_dir() and not entry.name.startswith("."))


def _record(folder: Path) -> AttemptRecord | None:
    try:
        return AttemptRecord(**json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
