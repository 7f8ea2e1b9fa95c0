"""The one error family.

Here: every exception the package raises on purpose, each with its culprits as attributes and a sentence that says what
happened, where, and what to do next. Not here: driver errors (a connector turns them into these, with `raise ... from`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from dataflow_assets.secrets import mask, mask_line

ErrorKind = Literal["transient", "permanent", "configuration"]
"""What has to happen before another try can succeed: time has to pass, the query or the rows have to change, a setting has to change."""


class DataflowError(Exception):
    """Base of the family.

    Attributes:
        hint: what to type or change next; empty when the message already says it.
        kind: whether time, a change of the query or rows, or a change of settings can help.
        retry_after: seconds that the system asks to be left alone, None when it does not say.
    """

    kind: ErrorKind = "permanent"
    lasting: ErrorKind = "permanent"
    """The kind of an error of this class that is said not to be transient."""
    retry_after: float | None = None

    def __init__(self, message: str, *, hint: str = "", transient: bool | None = None, kind: ErrorKind | None = None) -> None:
        self.hint = mask(hint)
        if kind is None and transient is not None:
            kind = "transient" if transient else self.lasting
        if kind is not None:
            self.kind = kind
        super().__init__(mask(message))

    @property
    def transient(self) -> bool:
        """Whether the same attempt may succeed later without anybody changing anything."""
        return self.kind == "transient"

    @property
    def message(self) -> str:
        """The sentence without its hint."""
        return str(self.args[0])

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.hint}" if self.hint else self.message


@dataclass(frozen=True, order=True)
class Place:
    """A position in a file the user wrote; line and column count from 1, 0 means unknown."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.shown_file}:{self.line}:{self.column}" if self.line else self.shown_file

    @property
    def shown_file(self) -> str:
        """The file as a reader wants it: relative to the current folder when it lies inside."""
        inside = os.path.join(os.getcwd(), "")  # noqa: PTH109, PTH118 - pathlib would be imported for this alone
        return self.file.removeprefix(inside)


_SHOWN_COLUMNS = 120


@dataclass(frozen=True)
class Problem:
    """One mistake in what the user wrote."""

    place: Place
    message: str
    hint: str = ""
    source_line: str = ""

    def __str__(self) -> str:
        lines = [f"{self.place}: {mask(self.message)}"]
        if self.source_line:
            lines += self._excerpt()
        if self.hint:
            lines.append(f"  -> {mask(self.hint)}")
        return "\n".join(lines)

    def _excerpt(self) -> list[str]:
        """The source line and a caret below the column; of a long line, the part around the column."""
        line, column = mask_line(self.source_line), max(self.place.column - 1, 0)
        first = max(column - _SHOWN_COLUMNS // 2, 0) if len(line) > _SHOWN_COLUMNS else 0
        head, tail = "..." if first else "", "..." if len(line) > first + _SHOWN_COLUMNS else ""
        return [f"  | {head}{line[first : first + _SHOWN_COLUMNS]}{tail}", "  | " + " " * (column - first + len(head)) + "^"]


class SpecError(DataflowError):
    """What the user wrote cannot be used; carries every problem found in one pass."""

    kind = "configuration"

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: problem.place)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class PlanError(SpecError):
    """The spec is well formed but describes something that cannot or must not run."""


class SelectionError(DataflowError):
    """A selector is malformed or matches nothing."""

    kind = "configuration"


class TemplateError(DataflowError):
    """A template names something unknown or uses what the sandbox forbids."""

    kind = "configuration"


class MissingDriver(DataflowError):
    """A connector's driver is not installed."""

    kind = "configuration"

    def __init__(self, *, kind: str, module: str, package: str = "") -> None:
        self.connector, self.module = kind, module
        super().__init__(
            f"the {kind} connector needs the Python module {module!r}, which is not installed",
            hint=f'pip install "{package or f"dataflow-assets[{kind}]"}"',
        )


class ConnectionFailed(DataflowError):
    """The system could not be reached or refused the credentials."""

    kind = "transient"
    lasting = "configuration"


class ReadFailed(DataflowError):
    """The source could not deliver the rows asked for."""


class WriteFailed(DataflowError):
    """The target refused the rows; nothing of the window is visible in it."""


class ValueRefused(DataflowError):
    """A value or type would have to be changed to be kept, so it is refused."""


class TransformFailed(DataflowError):
    """A transform raised or returned something that is not a table."""


class CheckFailed(DataflowError):
    """A blocking check did not pass; nothing was published."""


class BatchUnclear(DataflowError):
    """Rows that one endpoint has appended, and another has not, cannot be told from newer ones; nothing was published."""


class StageCorrupt(DataflowError):
    """A stage does not match its receipt (it is discarded and made anew)."""

    kind = "transient"


class Fenced(DataflowError):
    """A newer attempt at the same window has claimed it; this one must not publish."""

    def __init__(self, *, target: str, unit: str, generation: int, newest: int) -> None:
        self.target, self.unit, self.generation, self.newest = target, unit, generation, newest
        super().__init__(
            f"{target} {unit}: generation {generation} is fenced off by generation {newest}",
            hint="another run of this window started later and owns it; nothing to do unless that one fails",
        )


class AuditFailed(DataflowError):
    """Source, stage and target do not agree; the publish was rolled back or is reported as broken."""


class RunFailed(DataflowError):
    """One or more windows of a run failed; the others are published."""


class Interrupted(DataflowError):
    """The user stopped the run; finished windows stay published, the current one resumes next time."""
