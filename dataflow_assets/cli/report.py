"""What a person reads while pipelines run: a line when something begins, a line when it ends, and what to do next.

Here: wording and layout of `dataflow run`. Not here: counting (`cli.outcome`), the progress bar (`cli.progress`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from dataflow_assets.cli.failures import explain
from dataflow_assets.cli.outcome import PipelineOutcome, WindowOutcome
from dataflow_assets.cli.ranges import collapse
from dataflow_assets.cli.terminal import Session, plural
from dataflow_assets.error_kinds import kind_of
from dataflow_assets.execution.events import CheckEvaluated, Event, StageJudged, StepFinished, WindowFailed, WindowFinished
from dataflow_assets.plan.model import PipelinePlan, WindowTodo
from dataflow_assets.protocols import Severity

_WIDTH = 84
_COLORS = {
    "OK": "green",
    "ERROR": "red",
    "FAIL": "red",
    "SKIP": "yellow",
    "WARN": "yellow",
    "START": None,
    "NONE": "green",
    "STOP": "yellow",
    "RETRY": "yellow",
    "RESUME": "cyan",
    "ANEW": "yellow",
}
_SAMPLES = 3
_REASON = 60
_RANGES = 3
_EACH, _GROUPS = 40, 20
"""Up to so many windows have a line each; more are shown in about so many groups."""


class Report:
    """Prints the course of a run, and logs the same lines."""

    def __init__(self, session: Session, *, total: int) -> None:
        import logging

        self.session = session
        self.total = total
        self._number = 0
        self._together = 1
        self._held: list[tuple[str, int, float]] = []
        self._log = logging.getLogger("dataflow_assets.cli")
        self.document: Mapping[str, Any] = {}
        """The closing document, once there is one."""

    def line(self, word: str, text: str, outcome: str = "", *, indent: int = 0) -> None:
        """One dbt-like line: time, status word, what, dots, outcome in brackets."""
        head = " " * indent or f"{self._number} of {self.total} "
        dots = "." * max(_WIDTH - len(f"{head}{word} {text} "), 3) if outcome else ""
        colored = click.style(word, fg=_COLORS[word]) if _COLORS.get(word) else word
        tail = f" {dots} [{outcome}]" if outcome else ""
        self._say(f"{datetime.now():%H:%M:%S}  {head}{colored} {text}{tail}")
        self._log.info("%s%s %s %s", head, word, text, outcome)

    def _say(self, text: str) -> None:
        self.session.say(text)

    def begin(self, pipeline: PipelinePlan, todos: Sequence[WindowTodo]) -> None:
        """A pipeline starts with these windows."""
        self._number += 1
        self._together = 1 if len(todos) <= _EACH else -(-len(todos) // _GROUPS)
        cadence = pipeline.windows.cadence if pipeline.windows else None
        joined = collapse([_same(todo) for todo in todos]) if cadence else []
        ranges = ", ".join(item.text(cadence) for item in joined[:_RANGES]) + (", ..." if len(joined) > _RANGES else "")
        self.line("START", f"{pipeline.name} {ranges}".rstrip(), plural(len(todos), "window") if cadence else "RUN")

    def note(self, text: str) -> None:
        """Something to know before a pipeline runs."""
        self.line("WARN", text, indent=4)

    def event(self, event: Event, outcome: WindowOutcome | None) -> None:
        """Something happened in a window."""
        if isinstance(event, CheckEvaluated):
            self._check(event)
        elif isinstance(event, StageJudged):
            self._flush()
            self.line("RESUME" if event.used else "ANEW", f"{event.key} {event}", indent=4)
        elif isinstance(event, StepFinished):
            self._log.debug("%s %s: %s rows in %.2fs", event.key, event.step, event.rows, event.seconds)
            if event.published and event.quarantined:
                aside = f"{_rows(event.quarantined)} quarantined in {event.quarantine}"
                self.line("WARN", f"{event.key} {event.step}: {aside}", indent=4)
            if event.published and event.published.note:
                self.line("WARN", f"{event.key} {event.step}: {event.published.note}", indent=4)
            for change in event.published.schema_changes if event.published else ():
                self.line("WARN", f"{event.key} {event.step}: {change}", indent=4)
        elif isinstance(event, WindowFinished) and outcome and event.window:
            self._window_done(event, outcome)
        elif isinstance(event, WindowFailed) and event.again:
            self._flush()
            where = f"{event.key} at {event.step}" if event.step else event.key
            self.line("RETRY", where, _first_line(event.error), indent=4)
            self._say(" " * 19 + str(event.again))
            self._log.warning("%s failed; %s", event.key, event.again, exc_info=event.error)
        elif isinstance(event, WindowFailed):
            self._flush()
            self.line("ERROR", f"{event.key} at {event.step}" if event.step else event.key, _first_line(event.error), indent=4)
            self._log.error("%s failed", event.key, exc_info=event.error)

    def _window_done(self, event: WindowFinished, outcome: WindowOutcome) -> None:
        """A line for each window, or for a group of them where there are many; the log file has each."""
        text = "published before" if outcome.fate == "already" else f"{_rows(outcome.rows)} in {event.seconds:.2f}s"
        if self._together == 1:
            self.line("OK", event.key, text, indent=4)
            return
        self._log.info("OK %s %s", event.key, text)
        self._held.append((event.key, outcome.rows, event.seconds))
        if len(self._held) >= self._together:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            keys, rows, seconds = zip(*self._held, strict=True)
            self._held = []
            self.line(
                "OK", f"{keys[0]} .. {keys[-1]}", f"{plural(len(keys), 'window')}, {_rows(sum(rows))} in {sum(seconds):.1f}s", indent=4
            )

    def _check(self, event: CheckEvaluated) -> None:
        result = event.result
        if result.passed:
            return
        self._flush()
        word = "FAIL" if result.severity is Severity.ERROR and result.blocking else "WARN"
        count = f"{result.failed:,} of {result.checked:,} rows" if result.failed else "did not pass"
        self.line(word, f"{event.key} {event.step}.{result.name}", count, indent=4)
        if result.description and not result.samples:
            self._say(" " * 19 + result.description)
        for sample in list(result.samples)[:_SAMPLES]:
            self._say_of(", ".join(f"{key}={value!r}" for key, value in sample.items()))
        if result.failed > len(result.samples) and (frequent := result.metadata.get("frequent_values")):
            self._say_of("most often: " + ", ".join(f"{item['value']!r} ({plural(item['rows'], 'row')})" for item in frequent))

    def _say_of(self, text: str) -> None:
        """A line about the rows of a check, which may hold anything."""
        from dataflow_assets.secrets import mask

        self._say(" " * 19 + mask(text)[:160])

    def end(self, outcome: PipelineOutcome) -> None:
        """A pipeline is done, or stopped."""
        self._flush()
        word = {"ok": "OK", "failed": "ERROR", "interrupted": "STOP", "skipped": "SKIP"}[outcome.status]
        text = f"{_rows(outcome.rows)} in {outcome.seconds:.2f}s"
        if outcome.status == "failed":
            text = f"{plural(outcome.count('failed'), 'window')} failed, {text}" if outcome.count("failed") else f"failed, {text}"
        self.line(word, outcome.name, text)
        if outcome.error:
            self._log.error("%s failed", outcome.name, exc_info=outcome.error)

    def nothing(self, outcome: PipelineOutcome) -> None:
        """A pipeline does not run: nothing is due, another one failed, or its target cannot be asked."""
        self._number += 1
        word = {"ok": "OK", "skipped": "SKIP"}.get(outcome.status, "ERROR")
        self.line(word, outcome.name, _first_line(outcome.error) if outcome.error else outcome.reason)
        if outcome.error:
            self._log.error("%s failed", outcome.name, exc_info=outcome.error)

    def failure(self, outcome: PipelineOutcome, pipeline: PipelinePlan) -> None:
        """What failed, where, why, and the error's own hint."""
        for window in (item for item in outcome.windows if item.error):
            step = pipeline.by_id.get(window.stopped_at)
            where = f"{outcome.name}.{window.stopped_at}" if window.stopped_at else outcome.name
            self._explain(
                f"{where}, window {window.key}" if window.window else where,
                str(step.place if step else pipeline.place),
                window.error,
                window.given_up,
            )
        if outcome.error:
            self._explain(outcome.name, str(pipeline.place), outcome.error)

    def _explain(self, where: str, place: str, error: BaseException | None, given_up: str = "") -> None:
        self.session.say(click.style(f"\nFailure in {where} ({place})", fg="red"))
        if error:
            self.session.say("  " + explain(error).replace("\n", "\n  "))
            kind = kind_of(error)
            self.session.say(f"  a {kind} error" + (f"; {given_up.removeprefix(f'{kind}: ')}" if given_up else ""))

    def close(self) -> None:
        """Give the terminal back."""

    def finish(self, document: Mapping[str, Any]) -> None:
        """Print the closing document, with `--json`."""
        self.session.emit(document)


def _same(todo: WindowTodo) -> WindowTodo:
    """Without the reason, so that neighbours are shown as one range."""
    return WindowTodo(todo.window, todo.key, "missing", True)


def _rows(count: int) -> str:
    return plural(count, "row")


def _first_line(error: BaseException) -> str:
    line = explain(error).splitlines()[0]
    return line if len(line) <= _REASON else line[: _REASON - 3] + "..."


def report_for(session: Session, *, total: int, stream: bool) -> Report:
    """Lines, lines with a bar where a person watches, or a stream of JSON."""
    if stream:
        from dataflow_assets.cli.stream import StreamReport

        return StreamReport(session, total=total)
    if session.interactive:
        from dataflow_assets.cli.progress import LiveReport

        return LiveReport(session, total=total)
    return Report(session, total=total)
