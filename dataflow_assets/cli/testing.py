"""`dataflow test`: unit tests for data, in this process and without any connection of the project.

Here: which tests, their lines as they end, the totals, JSON and JUnit XML. Not here: running a test (`testing`), the checks of real data.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.cli import junit
from dataflow_assets.cli.choosing import selected, selection_options, survey
from dataflow_assets.cli.failures import FAILED, OK, UsageFailed
from dataflow_assets.cli.lean import collecting_garbage
from dataflow_assets.cli.terminal import Session, plural
from dataflow_assets.cli.variables import read_variables, variable_options
from dataflow_assets.cli.verb import VerbCommand

if TYPE_CHECKING:
    from dataflow_assets.spec.project import Project
    from dataflow_assets.testing.cases import Case
    from dataflow_assets.testing.outcomes import Outcome

_MARKS = {"passed": ("ok", "green"), "failed": ("FAILED", "red"), "error": ("ERROR", "red"), "skipped": ("skipped", "yellow")}


@click.command("test", cls=VerbCommand)
@click.argument("wanted", metavar="[NAME|PATH|SELECTOR]...", nargs=-1)
@selection_options
@click.option("-k", "part", metavar="TEXT", help="Only tests with this text in their name; upper and lower case are the same.")
@click.option("--seed", type=click.IntRange(min=0), help="Of the properties that draw rows; default: another one each time.")
@click.option("--fail-fast", "-x", is_flag=True, help="Stop at the first test that does not pass.")
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Write the outcomes into this file as JUnit XML too.")
@variable_options
@click.pass_obj
def command(session: Session, /, wanted: tuple[str, ...], **given: Any) -> int:
    """Run the unit tests for data: rows in, rows out, through the real steps of the pipelines.

    The tests are the files in the folder tests/ and the transformation files that say what they expect. No connection of the project
    is opened: sources give the rows of the test, endpoints publish into a database of its own. Exits with 1 when one does not pass, with
    2 when a test is not well written.
    """
    project = session.load(read_variables(given["several"], given["single"]))
    seed = random.randrange(2**32) if given["seed"] is None else given["seed"]
    cases = _chosen(project, wanted, given["select"], given["exclude"], given["part"] or "", seed)
    session.say(f"Running {plural(len(cases), 'test')} of {project.model.project_name} ({project.root})\n")
    started = time.perf_counter()
    outcomes = _run(session, cases, fail_fast=given["fail_fast"])
    seconds = time.perf_counter() - started
    if given["junit"] is not None:
        title = project.model.project_name
        junit.write_junit(given["junit"], _junit_cases(outcomes, suite=title), name=title)
    return _close(session, project, cases, outcomes, seed=seed, seconds=seconds)


def _chosen(project: Project, wanted: Sequence[str], select: tuple[str, ...], exclude: tuple[str, ...], part: str, seed: int) -> list[Case]:
    """The tests asked for. Raises UsageFailed when there are none, SelectionError for a word that is nothing."""
    from dataflow_assets.testing import data_tests

    paths = [path for word in wanted if (path := _path(project, word))]
    words = [word for word in wanted if not _path(project, word)]
    cases = data_tests(project, paths=paths, seed=seed) if paths else []
    if words or not paths:
        everything = data_tests(project, seed=seed)
        cases += _named(project, everything, words) if words else everything
    if not cases and not wanted:
        folder = project.root / project.model.tests_dir
        raise UsageFailed(
            f"the project has no tests: no .yml file in {folder}",
            hint="write one: a test, its pipeline, given rows and what to expect; or say where they are with `tests_dir:`",
        )
    if select or exclude:
        cases = _of_pipelines(project, cases, select, exclude)
    found = list({case.name: case for case in cases if part.casefold() in case.name.casefold()}.values())
    if not found:
        raise UsageFailed("no test is left by what was asked for", hint="`dataflow test` without anything runs them all")
    return found


def _path(project: Project, word: str) -> Path | None:
    """The file or folder that the word names, from here or from the project."""
    candidates = (Path(word).expanduser().absolute(), project.root / word)
    found = next((path for path in candidates if path.exists()), None)
    return found if found is not None and (found.is_dir() or found.suffix in {".py", ".yml", ".yaml"}) else None


def _named(project: Project, cases: list[Case], words: Sequence[str]) -> list[Case]:
    found: list[Case] = []
    selectors = []
    for word in words:
        matching = [case for case in cases if _matches(case, word)]
        found += matching
        selectors += [] if matching else [word]
    if selectors:
        _refuse_unknown(project, cases, selectors)
        found += _of_pipelines(project, cases, tuple(selectors), ())
    return found


def _matches(case: Case, word: str) -> bool:
    """By name, which stands for its properties too; * and ? as in a shell."""
    return word in {case.name, case.name.partition("[")[0]} or fnmatchcase(case.name.partition("[")[0], word)


def _refuse_unknown(project: Project, cases: list[Case], words: Sequence[str]) -> None:
    """A plain word that names neither a test nor a pipeline is likely a misspelt one of either."""
    from dataflow_assets.plan.names import suggest

    pipelines = {item.name for item in project.pipelines}
    for word in words:
        if word.replace("_", "").replace("-", "").isalnum() and word not in pipelines:
            names = {case.name.partition("[")[0] for case in cases}
            raise UsageFailed(
                f"there is no test, file or pipeline {word!r}", hint=suggest(word, names | pipelines, noun="tests and pipelines")
            )


def _of_pipelines(project: Project, cases: list[Case], select: tuple[str, ...], exclude: tuple[str, ...]) -> list[Case]:
    """The tests of steps that the selectors leave; those of transformation files belong to no pipeline."""
    steps = selected(survey(project), select, exclude)
    return [case for case in cases if _is_selected(case, steps)]


def _is_selected(case: Case, steps: dict[str, tuple[str, ...]]) -> bool:
    pipeline, _, step = case.step.rpartition(".")
    return pipeline in steps and (not step or step in steps[pipeline])


def _run(session: Session, cases: Sequence[Case], *, fail_fast: bool) -> list[Outcome]:
    outcomes: list[Outcome] = []
    with collecting_garbage():
        for case in cases:
            outcomes.append(case.run())
            _say(session, outcomes[-1])
            if fail_fast and not outcomes[-1].ok:
                break
    return outcomes


def _say(session: Session, outcome: Outcome) -> None:
    word, color = _MARKS[outcome.status]
    session.say(f"{click.style(word.ljust(7), fg=color)} {outcome.name}  {click.style(f'{outcome.seconds:.2f} s', dim=True)}")
    if not outcome.ok:
        _, *lines = outcome.text.splitlines()
        session.say("\n".join([f"    {outcome.place}", *(f"  {line}" for line in lines)]) + "\n")


def _junit_cases(outcomes: Sequence[Outcome], *, suite: str) -> Iterator[junit.Case]:
    kinds: dict[str, junit.Outcome] = {"failed": "failure", "error": "error", "skipped": "skipped"}
    for item in outcomes:
        kind, first = kinds.get(item.status, "passed"), next(iter(item.lines), item.status)
        yield junit.Case(
            suite, item.group, item.name, kind, first, item.text, item.seconds, item.output, item.place.shown_file, item.place.line
        )


def _close(session: Session, project: Project, cases: Sequence[Case], outcomes: Sequence[Outcome], *, seed: int, seconds: float) -> int:
    counts = {status: sum(item.status == status for item in outcomes) for status in _MARKS}
    code = OK if all(item.ok for item in outcomes) else FAILED
    said = [
        f"{number:,} {status if status != 'error' else plural(number, status).partition(' ')[2]}"
        for status, number in counts.items()
        if number
    ]
    left = len(cases) - len(outcomes)
    said += [f"{left:,} not run"] if left else []
    session.say(f"\n{click.style(', '.join(said), fg='red' if code else 'green')} in {seconds:.1f} s")
    session.emit(
        {
            "ok": code == OK,
            "exit_code": code,
            "project": project.model.project_name,
            "seed": seed,
            "seconds": round(seconds, 3),
            **{f"{status}": number for status, number in counts.items()},
            "not_run": left,
            "tests": [_data(item) for item in outcomes],
        }
    )
    return code


def _data(outcome: Outcome) -> dict[str, object]:
    return {
        "name": outcome.name,
        "group": outcome.group,
        "file": outcome.place.file,
        "line": outcome.place.line,
        "status": outcome.status,
        "seconds": round(outcome.seconds, 3),
        "lines": list(outcome.lines),
        "output": outcome.output,
    }
