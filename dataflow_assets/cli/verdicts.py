"""What `dataflow check` found: folded from events, printed as a table, written as JSON and JUnit XML.

Here: collecting and showing. Not here: which windows are looked at and the run itself (`cli.check`).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from dataflow_assets.cli.choosing import Chosen
from dataflow_assets.cli.failures import FAILED, INTERRUPTED, OK, describe, explain
from dataflow_assets.cli.junit import Case, write_junit
from dataflow_assets.cli.outcome import check_data
from dataflow_assets.cli.terminal import Session, as_json, plural, table
from dataflow_assets.errors import CheckFailed
from dataflow_assets.execution.events import CheckEvaluated, Event, WindowFailed, WindowStarted
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.protocols import CheckResult, Severity

_COLORS = {"PASS": "green", "WARN": "yellow", "FAIL": "red", "ERROR": "red", "NONE": "yellow"}
_SAMPLES = 3
_MESSAGE = 72


@dataclass
class PipelineVerdicts:
    """One pipeline: what each check said of each window, and the windows that something else stopped."""

    pipeline: PipelinePlan
    promised: tuple[tuple[str, str], ...]
    """Step and name of each check, in order."""
    evaluated: list[CheckEvaluated] = field(default_factory=list)
    stopped: list[WindowFailed] = field(default_factory=list)
    windows: int = 0
    seconds: float = 0.0
    run_id: str | None = None
    error: Exception | None = None
    interrupted: bool = False

    def add(self, event: Event) -> None:
        """Take in one event of the run."""
        if isinstance(event, CheckEvaluated):
            self.evaluated.append(event)
        elif isinstance(event, WindowStarted):
            self.windows += 1
        elif isinstance(event, WindowFailed) and not self._told(event):
            self.stopped.append(event)

    def _told(self, event: WindowFailed) -> bool:
        """Whether the window failed because of checks that say so themselves, unlike those whose rows go beyond a quarantine's budget."""
        return isinstance(event.error, CheckFailed) and any(one.key == event.key for one in self.failed)

    @property
    def failed(self) -> list[CheckEvaluated]:
        """The evaluations that would have kept a window from being published."""
        return [one for one in self.evaluated if word_of(one.result) == "FAIL"]

    @property
    def warned(self) -> list[CheckEvaluated]:
        """The evaluations that failed and would not have stopped anything."""
        return [one for one in self.evaluated if word_of(one.result) == "WARN"]

    def data(self) -> dict[str, Any]:
        """The pipeline for `--json`."""
        return {
            "name": self.pipeline.name,
            "run_id": self.run_id,
            "windows": self.windows,
            "seconds": round(self.seconds, 3),
            "checks": [{"window": one.key, **check_data(one), "metadata": dict(one.result.metadata)} for one in self.evaluated],
            "stopped": [{"window": one.key, "step": one.step, "error": describe(one.error)} for one in self.stopped],
            "error": describe(self.error) if self.error else None,
        }


def word_of(result: CheckResult) -> str:
    """PASS, WARN for a failure that stops nothing, or FAIL."""
    if result.passed:
        return "PASS"
    return "FAIL" if result.blocking and result.severity is Severity.ERROR else "WARN"


def tell(session: Session, verdicts: PipelineVerdicts, event: Event) -> None:
    """Take in an event, and print at once what did not pass."""
    verdicts.add(event)
    if isinstance(event, CheckEvaluated) and not event.result.passed:
        _say(session, word_of(event.result), f"{_where(verdicts, event)}: {event.result.description or 'did not pass'}")
        for sample in list(event.result.samples)[:_SAMPLES]:
            from dataflow_assets.secrets import mask

            session.say("      " + mask(", ".join(f"{key}={value!r}" for key, value in sample.items()))[:160])
    elif verdicts.stopped and verdicts.stopped[-1] is event:
        assert isinstance(event, WindowFailed)
        _say(session, "ERROR", f"{verdicts.pipeline.name}.{event.step} {event.key}: {explain(event.error)}")


def _where(verdicts: PipelineVerdicts, event: CheckEvaluated) -> str:
    window = f" {event.key}" if verdicts.pipeline.windows else ""
    return f"{verdicts.pipeline.name}.{event.step}.{event.result.name}{window}"


def _say(session: Session, word: str, text: str) -> None:
    session.say(f"{click.style(word.ljust(5), fg=_COLORS[word])} {text}")


def close(session: Session, chosen: Chosen, found: Sequence[PipelineVerdicts], *, junit: Path | None, strict: bool, seconds: float) -> int:
    """Print the table, the totals and what to type next; write JUnit XML where asked; return the exit code."""
    counts = {
        "passed": sum(one.result.passed for verdicts in found for one in verdicts.evaluated),
        "warned": sum(len(verdicts.warned) for verdicts in found),
        "failed": sum(len(verdicts.failed) for verdicts in found),
        "errors": sum(len(verdicts.stopped) + (verdicts.error is not None) for verdicts in found),
    }
    nothing = not any(verdicts.evaluated for verdicts in found)
    bad = counts["failed"] or counts["errors"] or nothing or (strict and counts["warned"])
    code = INTERRUPTED if any(verdicts.interrupted for verdicts in found) else FAILED if bad else OK
    if junit is not None:
        write_junit(junit, _cases(found, strict=strict), name=chosen.project.model.project_name)
    for line in _lines(found):
        session.say(line)
    following = _next(session, chosen, found, nothing=nothing)
    said = ", ".join(f"{count:,} {word}" for word, count in counts.items() if count) or "nothing was checked"
    session.say(f"\nDone. {said}, {plural(sum(item.windows for item in found), 'window')} in {seconds:.1f}s")
    if junit is not None:
        session.say(f"Written: {junit}")
    session.say(f"Next: {following}")
    session.emit(
        {
            "ok": code == OK,
            "exit_code": code,
            "project": chosen.project.model.project_name,
            "pipelines": [verdicts.data() for verdicts in found],
            "totals": {**counts, "windows": sum(item.windows for item in found), "seconds": round(seconds, 3)},
            "next": following,
        }
    )
    return code


def _lines(found: Sequence[PipelineVerdicts]) -> Iterator[str]:
    """A line for each check with its windows counted, then the pipelines of which nothing could be looked at."""
    rows = [row for verdicts in found for row in _rows(verdicts)]
    if rows:
        yield ""
        yield from table(rows, header=("RESULT", "CHECK", "WINDOWS", "PASSED", "WARNED", "FAILED", "LATEST"))
    for verdicts in found:
        if verdicts.error is not None:
            yield f"{click.style('ERROR', fg='red')} {verdicts.pipeline.name}: {explain(verdicts.error)}"
        elif not verdicts.windows:
            yield f"{click.style('NONE ', fg='yellow')} {verdicts.pipeline.name} has published nothing that could be looked at"


def _rows(verdicts: PipelineVerdicts) -> Iterator[tuple[str, ...]]:
    for step, name in verdicts.promised:
        mine = [one.result for one in verdicts.evaluated if (one.step, one.result.name) == (step, name)]
        if not mine:
            continue
        words = [word_of(result) for result in mine]
        worst = next(word for word in ("FAIL", "WARN", "PASS") if word in words)
        counts = tuple(f"{words.count(word):,}" for word in ("PASS", "WARN", "FAIL"))
        latest = mine[-1].description
        yield (
            worst,
            f"{verdicts.pipeline.name}.{step}.{name}",
            f"{len(mine):,}",
            *counts,
            latest if len(latest) <= _MESSAGE else latest[: _MESSAGE - 1] + "…",
        )


def _cases(found: Sequence[PipelineVerdicts], *, strict: bool) -> Iterator[Case]:
    for verdicts in found:
        name = verdicts.pipeline.name
        each = verdicts.seconds / max(len(verdicts.evaluated), 1)
        for one in verdicts.evaluated:
            word = word_of(one.result)
            bad = word == "FAIL" or (strict and word == "WARN")
            title = f"{one.result.name}[{one.key}]" if verdicts.pipeline.windows else one.result.name
            text = "\n".join(as_json(dict(sample)) for sample in one.result.samples)
            message = one.result.description
            warning = f"WARN {message}\n{text}" if word == "WARN" and not bad else ""
            yield Case(name, f"{name}.{one.step}", title, "failure" if bad else "passed", message, text, each, warning)
        for stop in verdicts.stopped:
            yield Case(name, f"{name}.{stop.step}", f"window[{stop.key}]", "error", explain(stop.error))
        if verdicts.error is not None:
            yield Case(name, name, "pipeline", "error", explain(verdicts.error))
        elif not verdicts.windows:
            yield Case(name, name, "pipeline", "skipped", "nothing is published that could be looked at")


def _next(session: Session, chosen: Chosen, found: Sequence[PipelineVerdicts], *, nothing: bool) -> str:
    place = ["--project", session.project] if session.project else []
    if nothing:
        return shlex.join(["dataflow", *place, "run"])
    bad = [verdicts for verdicts in found if verdicts.failed or verdicts.stopped or verdicts.error]
    if not bad:
        return shlex.join(["dataflow", *place, "status"])
    keys = dict.fromkeys(one.key for verdicts in bad for one in verdicts.failed if verdicts.pipeline.windows)
    windows = [word for key in list(keys)[:3] for word in ("--window", key)]
    return shlex.join(["dataflow", *place, "check", "--select", " ".join(verdicts.pipeline.name for verdicts in bad), *windows])
