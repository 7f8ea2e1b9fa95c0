"""`dataflow validate`: every problem of the project in one pass.

Here: printing problems and the exit code. Not here: finding them (`spec`, `plan`, `plan.contract_review`, `execution.rehearsal`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import click

from dataflow_assets.cli.choosing import Surveyed, selected, selection_options, survey
from dataflow_assets.cli.failures import OK, USAGE, problem_data
from dataflow_assets.cli.terminal import Session, plural
from dataflow_assets.cli.variables import read_variables, variable_options
from dataflow_assets.cli.verb import VerbCommand
from dataflow_assets.errors import Problem
from dataflow_assets.execution.rehearsal import rehearse
from dataflow_assets.spec.project import Project


@click.command("validate", cls=VerbCommand)
@selection_options
@variable_options
@click.pass_obj
def command(session: Session, select: tuple[str, ...], exclude: tuple[str, ...], several: tuple[str, ...], single: tuple[str, ...]) -> int:
    """Check the project file, every pipeline and the unit tests for data: keys, names, plugins and their options, dependencies,
    templates, write modes, and the SQL and Python of transforms as far as it can be seen without running. Of contracts: changes
    that break somebody, and steps that do not keep or know the contract of a dataset.

    Nothing is connected to and nothing is run. Each problem shows its file, line and column. Exits with 2 when there is one.
    """
    surveyed = survey(session.load(read_variables(several, single)))
    names = selected(surveyed, select, exclude)
    rehearsed = rehearse(surveyed.project, surveyed.plan)
    reviewed, notes = _reviewed(surveyed.project)
    of = {name: (*surveyed.problems.get(name, ()), *rehearsed.get(name, ()), *reviewed.get(name, ())) for name in names}
    strays = {name: found for name, found in reviewed.items() if name not in surveyed.nodes and not (select or exclude)}
    found = {problem for several in (*of.values(), *strays.values()) for problem in several} | _in_tests(surveyed, names)
    problems = sorted(found, key=lambda problem: problem.place)
    wrong = sorted(name for name in names if of[name])
    for problem in problems:
        session.say(f"{problem}\n")
    for note in notes:
        session.say(click.style("note", fg="yellow") + f": {note}")
    files = plural(len({problem.place.file for problem in problems}), "file")
    if problems:
        session.say(
            click.style(f"{plural(len(problems), 'problem')} in {files}", fg="red")
            + f", {len(names) - len(wrong)} of {len(names)} pipelines are sound."
        )
        session.say("Next: mend the first one and type dataflow validate again")
    else:
        session.say(click.style(f"All sound: {plural(len(names), 'pipeline')} of {surveyed.project.model.project_name}.", fg="green"))
        session.say("Next: dataflow plan")
    session.emit(
        {
            "ok": not problems,
            "exit_code": USAGE if problems else OK,
            "project": surveyed.project.model.project_name,
            "root": Path(surveyed.project.root),
            "pipelines": [{"name": name, "ok": name not in wrong, "problems": len(of[name])} for name in sorted(names)],
            "problems": [problem_data(problem) for problem in problems],
            "notes": list(notes),
        }
    )
    return USAGE if problems else OK


def _in_tests(surveyed: Surveyed, names: Collection[str]) -> set[Problem]:
    """The mistakes in unit tests for data; of a part of the pipelines nothing is said of them."""
    from dataflow_assets.testing.cases import mistakes_in_tests

    return set(mistakes_in_tests(surveyed.project)) if set(names) == set(surveyed.nodes) else set()


def _reviewed(project: Project) -> tuple[Mapping[str, Sequence[Problem]], Sequence[str]]:
    """Problems of contracts by pipeline, and notes; a project that has and had no contract does not import how they are found."""
    if not project.contracts and not project.contracts_dir.is_dir():
        return {}, ()
    from dataflow_assets.plan.contract_review import review

    found = review(project)
    return found.problems, found.notes
