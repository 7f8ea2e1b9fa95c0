"""`dataflow deps`: which pipeline needs which.

Here: the graph as a text tree and as data. Not here: finding the edges (`plan.build`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence

import click

from dataflow_assets.cli.choosing import choose, selection_options
from dataflow_assets.cli.terminal import Session, plural
from dataflow_assets.cli.variables import read_variables, variable_options
from dataflow_assets.cli.verb import VerbCommand
from dataflow_assets.plan.model import PipelinePlan

_UNICODE = ("├── ", "└── ", "│   ", "    ")
_ASCII = ("|-- ", "`-- ", "|   ", "    ")


@click.command("deps", cls=VerbCommand)
@selection_options
@variable_options
@click.pass_obj
def command(session: Session, select: tuple[str, ...], exclude: tuple[str, ...], several: tuple[str, ...], single: tuple[str, ...]) -> int:
    """Show pipelines in the order they run, each below what it needs.

    Edges come from `depends_on` and from the SQL: who reads a table needs the pipeline that publishes it.
    """
    chosen = choose(session, select, exclude, read_variables(several, single))
    names = {pipeline.name for pipeline in chosen.pipelines}
    children: dict[str, list[str]] = {name: [] for name in names}
    for pipeline in chosen.pipelines:
        for name in pipeline.upstream:
            if name in names:
                children[name].append(pipeline.name)
    roots = [pipeline.name for pipeline in chosen.pipelines if not names & set(pipeline.upstream)]
    tags = {pipeline.name: f"  [{', '.join(pipeline.tags)}]" if pipeline.tags else "" for pipeline in chosen.pipelines}
    for line in tree(roots, children, tags, glyphs=_glyphs()):
        session.say(line)
    session.say(f"\nOrder: {' > '.join(pipeline.name for pipeline in chosen.pipelines)}")
    session.say(f"{plural(len(names), 'pipeline')}, {plural(sum(map(len, children.values())), 'edge')}.")
    session.say(f"Next: dataflow show {chosen.pipelines[0].name}")
    session.emit(
        {
            "ok": True,
            "order": [pipeline.name for pipeline in chosen.pipelines],
            "pipelines": [_data(pipeline, names) for pipeline in chosen.pipelines],
            "edges": [{"from": name, "to": child} for name in sorted(children) for child in children[name]],
        }
    )
    return 0


def tree(
    names: Sequence[str],
    children: Mapping[str, Sequence[str]],
    notes: Mapping[str, str],
    *,
    glyphs: Sequence[str] = _ASCII,
    indent: str = "",
    top: bool = True,
) -> Iterator[str]:
    """Lines of a tree; what has several parents stands below each, its own children only below the first."""
    yield from _branches(names, children, notes, glyphs, indent, top, set())


def _branches(
    names: Sequence[str],
    children: Mapping[str, Sequence[str]],
    notes: Mapping[str, str],
    glyphs: Sequence[str],
    indent: str,
    top: bool,
    seen: set[str],
) -> Iterator[str]:
    fork, last, bar, blank = glyphs
    for position, name in enumerate(names):
        final = position == len(names) - 1
        repeated = name in seen and children[name]
        yield f"{indent}{'' if top else last if final else fork}{name}{notes.get(name, '')}{' (see above)' if repeated else ''}"
        if not repeated:
            seen.add(name)
            deeper = indent if top else indent + (blank if final else bar)
            yield from _branches(children[name], children, notes, glyphs, deeper, False, seen)


def _glyphs() -> tuple[str, ...]:
    try:
        "".join(_UNICODE).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return _ASCII
    return _UNICODE


def _data(pipeline: PipelinePlan, names: set[str]) -> dict[str, object]:
    return {
        "name": pipeline.name,
        "tags": list(pipeline.tags),
        "upstream": list(pipeline.upstream),
        "upstream_selected": [name for name in pipeline.upstream if name in names],
        "steps": [{"id": step.id, "role": step.role, "kind": step.kind, "inputs": list(step.inputs)} for step in pipeline.steps],
    }
