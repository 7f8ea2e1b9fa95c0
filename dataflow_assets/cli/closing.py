"""The end of a run: failures in full, totals, and the command to type next.

Here: closing words, the document of `--json`, the exit code. Not here: the lines in between (`cli.report`).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from dataflow_assets.cli.choosing import Chosen
from dataflow_assets.cli.due import Wish
from dataflow_assets.cli.failures import FAILED, INTERRUPTED, OK
from dataflow_assets.cli.outcome import PipelineOutcome, totals
from dataflow_assets.cli.report import Report
from dataflow_assets.cli.terminal import Session, plural

_NAMED_WINDOWS = 3


def close(
    session: Session,
    chosen: Chosen,
    wish: Wish,
    outcomes: Sequence[PipelineOutcome],
    *,
    report: Report,
    seconds: float,
    extra: Mapping[str, Any] | None = None,
) -> int:
    """Print how it ended and return the exit code; `extra` goes into the document."""
    total = totals(list(outcomes), seconds=seconds)
    code = INTERRUPTED if total["interrupted"] else FAILED if total["failed"] or total["skipped"] else OK
    for outcome in outcomes:
        if outcome.status == "failed":
            report.failure(outcome, chosen.plan.by_name[outcome.name])
    following = next_command(session, chosen, wish, outcomes)
    session.say()
    for line in summary(total, seconds=seconds):
        session.say(line)
    if code == INTERRUPTED:
        session.say(click.style("Interrupted: what is published stays, the window at work resumes from what it had staged.", fg="yellow"))
    if code == FAILED:
        session.say(f"Log: {chosen.project.root / chosen.project.model.logging.dir}")
    session.say(f"{'Again' if code else 'Next'}: {following}")
    document = {
        "ok": code == OK,
        "exit_code": code,
        "project": chosen.project.model.project_name,
        "pipelines": [outcome.data() for outcome in outcomes],
        "totals": total,
        "next": following,
        **(extra or {}),
    }
    report.document = document
    report.finish(document)
    return code


def summary(total: Mapping[str, Any], *, seconds: float) -> list[str]:
    """Windows, checks where there were any, and the last line with totals."""
    rows: int = total["rows"]
    stopped = f" INTERRUPTED={total['interrupted']}" if total["interrupted"] else ""
    checks = _counted(total["checks"])
    return [
        f"Windows: {_counted(total['windows']) or 'none to run'}",
        *([f"Checks: {checks}"] if checks else []),
        f"Done. OK={total['ok']} FAILED={total['failed']} SKIPPED={total['skipped']}{stopped} TOTAL={total['total']}, "
        f"{plural(rows, 'row')} in {seconds:.1f}s",
    ]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {word.replace('_', ' ')}" for word, count in counts.items() if count)


def next_command(session: Session, chosen: Chosen, wish: Wish, outcomes: Sequence[PipelineOutcome]) -> str:
    """What to type next: the same run for what did not succeed, else the status."""
    place = ["--project", session.project] if session.project else []
    open_ones = [outcome for outcome in outcomes if outcome.status != "ok"]
    waiting = [outcome for outcome in outcomes if outcome.waiting]
    if not open_ones and not waiting:
        return shlex.join(["dataflow", *place, "status"])
    names = [word for outcome in (open_ones or waiting) for word in _selectors(chosen, outcome.name)]
    whole = len(open_ones or waiting) == len(chosen.plan.pipelines) and not chosen.parts
    words = ["dataflow", *place, "run", *([] if whole else ["--select", " ".join(names)])]
    return shlex.join([*words, *_windows(chosen, wish, open_ones), *_variables(chosen), *(_limit(wish) if not open_ones else [])])


def _selectors(chosen: Chosen, name: str) -> list[str]:
    return [f"{name}.{step}" for step in sorted(chosen.parts[name])] if name in chosen.parts else [name]


def _windows(chosen: Chosen, wish: Wish, outcomes: Sequence[PipelineOutcome]) -> list[str]:
    """Windows that a plain run would leave alone as published must be named again."""
    if not (wish.full_refresh or wish.start or wish.end or wish.keys):
        return []
    unreached = any(outcome.status == "skipped" or not outcome.planned for outcome in outcomes)
    left = [(outcome.name, todo.window) for outcome in outcomes for todo in outcome.unfinished()]
    windows = [(name, window) for name, window in left if window is not None]
    if unreached or not windows or len(windows) < len(left):
        return _as_given(wish)
    keys = dict.fromkeys(_key(chosen, name, window.start) for name, window in windows)
    if len(keys) <= _NAMED_WINDOWS:
        return [word for key in keys for word in ("--window", key)]
    first, last = min(windows, key=lambda item: item[1].start), max(windows, key=lambda item: item[1].end)
    return ["--start", _key(chosen, first[0], first[1].start), "--end", _key(chosen, last[0], last[1].end), *_retired(wish)]


def _as_given(wish: Wish) -> list[str]:
    words = ["--full-refresh"] if wish.full_refresh else []
    words += ["--start", wish.start] if wish.start else []
    words += ["--end", wish.end] if wish.end else []
    return words + [word for key in wish.keys for word in ("--window", key)] + _retired(wish)


def _retired(wish: Wish) -> list[str]:
    """A range would be refused without it."""
    return ["--even-if-retired"] if wish.even_if_retired else []


def _key(chosen: Chosen, pipeline: str, edge: datetime) -> str:
    """An edge as the pipeline's keys write it."""
    plan = chosen.plan.by_name[pipeline].windows
    return edge.astimezone(plan.cadence.zone).strftime(plan.cadence.key_format) if plan else edge.isoformat()


def _limit(wish: Wish) -> list[str]:
    return ["--max-windows", str(wish.max_windows)] if wish.max_windows is not None else []


def _variables(chosen: Chosen) -> list[str]:
    from dataflow_assets.cli.terminal import as_json
    from dataflow_assets.secrets import MASK

    if not chosen.project.overrides:
        return []
    text = as_json(dict(chosen.project.overrides))
    return ["--vars", text if MASK not in text else "..."]
