"""The pages agree with the code: generated blocks, links, command lines, lists of names."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from dataflow_assets import discovery
from dataflow_assets.cli.app import VERBS, app
from dataflow_assets.cli.terminal import Session
from dataflow_assets.spec import filters
from dataflow_assets.spec.models import EndpointOptions, PipelineModel, ProjectModel, SourceOptions
from dataflow_assets.spec.template_context import TemplateContext
from dataflow_assets_tests.docs import generate
from dataflow_assets_tests.docs.example_projects import every_plugin
from dataflow_assets_tests.docs.generate import ROOT
from dataflow_assets_tests.docs.pages import anchors, commands, links

PAGES = generate.pages()
COMMANDS = dict(commands())


def _text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_generated_blocks_are_current(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert generate.fresh(text) == text, "type: python -m dataflow_assets_tests.docs.generate"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} does not exist"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("where", COMMANDS)
def test_command_lines_are_understood(where: str) -> None:
    words = COMMANDS[where]
    group = app.make_context("dataflow", list(words), obj=Session())
    name, *rest = [*group._protected_args, *group.args]
    command = app.get_command(group, name)
    assert command is not None, f"no verb {name}"
    try:
        command.make_context(name, rest, parent=group)
    except click.MissingParameter:
        assert not rest, "an argument is missing"  # the name of a verb alone stands for the verb


def _models() -> list[type[BaseModel]]:
    """Every model that a user may fill, blocks within blocks included."""
    waiting: list[type[BaseModel]] = [ProjectModel, PipelineModel, SourceOptions, EndpointOptions]
    for family, kind in every_plugin():
        plugin = discovery.find(family, kind)
        waiting += [getattr(plugin, name) for name in ("Connection", "Source", "Endpoint", "Options") if hasattr(plugin, name)]
    found: dict[type[BaseModel], None] = {}
    while waiting:
        model = waiting.pop()
        if model not in found:
            found[model] = None
            waiting += [inner for info in model.model_fields.values() for inner in generate.models_in(info.annotation)]
    return list(found)


@pytest.mark.parametrize("model", _models(), ids=lambda model: f"{model.__module__}.{model.__name__}")
def test_every_key_says_what_it_is_for(model: type[BaseModel]) -> None:
    said = {name: info.description for name, info in model.model_fields.items()}
    assert [name for name, description in said.items() if not description] == []
    assert [name for name, description in said.items() if re.search(r"`|\]\(", description or "")] == [], (
        "editors show the text as it stands"
    )


def test_a_block_links_to_its_section() -> None:
    table = generate.options("spec.models:PipelineModel")
    assert "| `windows` | [block](#windows) |" in table
    assert "| `steps` | [list](#steps) |" in table


def test_every_verb_has_its_section() -> None:
    assert set(VERBS) <= anchors(ROOT / "docs" / "cli.md")
    assert {f"verb {name}" for name in VERBS} - {"verb update-gitignore"} <= set(
        re.findall(r"generated: (verb [\w-]+)", _text("docs/cli.md"))
    )


def test_the_readme_names_every_page() -> None:
    named = {(ROOT / link).resolve() for link in links(ROOT / "README.md")}
    pages = [page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "decisions"]
    reachable = named | {(page.parent / link.partition("#")[0]).resolve() for page in pages for link in links(page)}
    assert [page for page in pages if page not in reachable] == []


def test_every_plugin_has_its_page() -> None:
    described = " ".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [plugin for plugin in every_plugin() if f"generated: example {' '.join(plugin)} " not in described] == []


def test_every_template_function_and_filter_is_described() -> None:
    section = _text("docs/language.md").partition("## Templates")[2].partition("\n## ")[0]
    names = set(TemplateContext(environment={}).names) | {"window", "batch_start", "batch_end", "batch_period", "event_time_column"}
    assert [name for name in sorted(names) if not re.search(rf"`{name}\b", section)] == []
    offered = {name for name in filters.offered() if "\0" not in name}
    listed = set(re.findall(r"`(\w+)`", section.partition("Filters:")[2]))
    assert offered == listed


def test_every_failpoint_is_described() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "dataflow_assets").rglob("*.py"))
    named = set(re.findall(r'failpoint\("([a-z_.]+)"\)', code)) | {"extract.begin", "transform.begin"}
    assert "failpoint(f\"{'extract' if" in code  # the two above
    assert named == set(re.findall(r"`([a-z]+\.[a-z_]+)`", _text("docs/failpoints.md").partition("| place")[2].partition("| after")[0]))


def _messages() -> list[str]:
    rows = [line for line in _text("docs/troubleshooting.md").splitlines() if line.startswith("| `")]
    return [message for row in rows for message in re.findall(r"`([^`]+)`", row.replace("\\|", "/").split(" | ")[0])]


@pytest.mark.parametrize("message", _messages())
def test_a_message_that_is_explained_is_one_of_ours(message: str) -> None:
    """Its longest part without places for names stands in the code."""
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "dataflow_assets").rglob("*.py"))
    part = max(re.split(r"\.\.\.|'x'|\{\{ x \}\}|\bX\b|\bY\b|\bN\b", message), key=len).strip(" ,'")
    assert part in code
