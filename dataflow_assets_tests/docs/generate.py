"""Writes the blocks of `docs/` that come from the code: `python -m dataflow_assets_tests.docs.generate`.

Here: the tables of options, the plugins' examples, the support matrix, the matrix of types, the options of the verbs. A block stands
between `<!-- generated: WHAT -->` and `<!-- end -->`; a test compares. With `--types` the tests of types are run first, and what they
find is recorded. Not here: any prose.
"""

from __future__ import annotations

import enum
import functools
import importlib
import os
import re
import subprocess
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from dataflow_assets import discovery
from dataflow_assets.cli.app import VERBS, app
from dataflow_assets.cli.verb import shared_options
from dataflow_assets.connectors import _objects_s3
from dataflow_assets.error_kinds import OS_CODES, STATUS_CODES, CodeOrRange, Codes
from dataflow_assets.plan.options import known_keys
from dataflow_assets.spec.base import SqlMarker
from dataflow_assets.storage import drive_queries
from dataflow_assets.storage.drive import TABLE
from dataflow_assets.tables import WriteMode
from dataflow_assets_tests.connectors import type_results
from dataflow_assets_tests.connectors.arrow_types import COLUMNS, GROUPS, SPECIAL

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"(<!-- generated: (?P<what>[^>]+?) -->\n)(?P<body>.*?)(<!-- end -->)", re.DOTALL)
_HEADING = re.compile(r"#{1,6} (.*)")
_PLAIN = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    SecretStr: "text, secret",
    Any: "any value",
    datetime: "moment",
    date: "date",
}


def pages() -> list[Path]:
    """Every page of the documentation."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def fresh(text: str) -> str:
    """The text of a page with its generated blocks made anew."""
    return _BLOCK.sub(lambda match: f"{match[1]}\n{made(match['what']).strip()}\n\n{match[4]}", text)


def made(what: str) -> str:
    """The content of one block. Raises KeyError for an unknown kind of block."""
    kind, *arguments = what.split()
    return _KINDS[kind](*arguments)


def options(path: str) -> str:
    """A table of a model's keys; `path` is `module:Class` or `module:Class.Attribute` below dataflow_assets."""
    model = _model(path)
    own = [name for name in model.model_fields if name in vars(model).get("__annotations__", {})]
    rows = [_row(model, name, model.model_fields[name]) for name in dict.fromkeys([*own, *model.model_fields])]
    return _table(("key", "value", "default", "meaning"), rows)


def example(family: str, kind: str) -> str:
    """The example of a plugin, as a pipeline that can be run."""
    return f"```yaml\n{discovery.find(family, kind).example.strip()}\n```"


def matrix() -> str:
    """What each connector can do, from its capabilities."""
    rows = []
    for kind in discovery.kinds("connectors"):
        can = discovery.find("connectors", kind).capabilities
        modes = ["yes" if mode in can.modes else "-" for mode in WriteMode]
        types_kept = "all it can hold" if can.exact_types else "by their text" if can.dialect is None else "as its database can"
        one = "-" if not can.modes else "one step a file" if can.single_file else "many steps"
        sql = {None: "-", "": "any"}.get(can.dialect, can.dialect)
        rows.append((f"[{kind}]({kind}.md)", "yes" if can.reads else "-", *modes, sql, types_kept, one))
    return _table(("kind", "reads", *(f"`{mode}`" for mode in WriteMode), "SQL", "types kept", "writers of a target"), rows)


def types_kept() -> str:
    """What becomes of each Arrow type in each system."""
    systems = {system: system.results() for system in type_results.systems()}
    rows = [(_column_of(case), *(_cell(case, results.get(case)) for results in systems.values())) for case in type_results.CASES]
    return _table(("type", *map(str, systems)), rows)


def types_lost() -> str:
    """Which types are not kept by each system, and why."""
    rows = []
    for system in type_results.systems():
        groups: dict[tuple[str, str], list[str]] = {}
        for case, outcome in system.results().items():
            if outcome.became != "kept":
                groups.setdefault((_BECAME[outcome.became], outcome.reason), []).append(case)
        rows += [(f"{system}", ", ".join(_together(cases)), became, reason) for (became, reason), cases in groups.items()]
    rows += [(kind, "all", "not tried", reason) for kind, reason in type_results.not_tried().items()]
    return _table(("system", "types", "what happens", "why"), rows)


def error_kinds() -> str:
    """By which codes each system's errors are transient, or a matter of configuration."""
    groups: dict[Codes, list[str]] = {}
    for kind in discovery.kinds("connectors"):
        groups.setdefault(discovery.find("connectors", kind).error_codes, []).append(kind)
    groups.setdefault(_objects_s3.ERROR_CODES, []).append("files in S3")
    groups.setdefault(STATUS_CODES, []).extend(("files in GCS", "files in Azure"))
    groups.setdefault(OS_CODES, []).append("stages")
    rows = []
    for codes, systems in groups.items():
        transient = _said(codes, codes.transient, codes.transient_also)
        rows.append((", ".join(systems), codes.told_by, transient, _said(codes, codes.configuration, codes.configuration_also)))
    return _table(("system", "told by", "transient", "configuration"), rows)


def _said(codes: Codes, items: tuple[CodeOrRange, ...], also: str) -> str:
    listed = [f"{item.start}-{item.stop - 1}" if isinstance(item, range) else f"{item}{_rest(codes, item)}" for item in items]
    return "; ".join(filter(None, (", ".join(listed), also)))


def _rest(codes: Codes, item: CodeOrRange) -> str:
    """What shows that all longer codes are meant; a whole SQLSTATE has five characters."""
    return "..." if codes.prefixes and isinstance(item, str) and len(item) < 5 else ""


_BECAME = {"partly": "such values are refused", "changed": "changed", "refused": "refused"}


def _together(cases: list[str]) -> list[str]:
    """The names of groups that are complete, and of the columns that remain."""
    whole = {name: members for name, members in GROUPS.items() if set(members) <= set(cases)}
    grouped = set().union(*whole.values())
    return [*whole, *(_column_of(case) for case in cases if case not in grouped)]


def _type(name: str) -> str:
    """An Arrow type's name without what is not part of the type: the names of a list's elements, whether they may be null."""
    name = re.sub(r"(list|list_view)<(?:item|element|l): ", r"\1<", name.replace(" not null", "").replace(" ('v')", ""))
    name = re.sub(r"^dictionary<values=(\w+), .*$", r"dictionary of \1", name)
    plain = {"double": "float64", "float": "float32", "halffloat": "float16", "date32[day]": "date32", "date64[ms]": "date64"}
    return plain.get(name, name)


def _column_of(case: str) -> str:
    if case == type_results.EMPTY:
        return "a table without rows"
    kind = COLUMNS[case].type
    shown = kind.extension_name.removeprefix("arrow.") if isinstance(kind, pa.BaseExtensionType) else str(kind)
    return f"`{_type(shown)}`" + (f" {SPECIAL[case]}" if case in SPECIAL else "")


def _cell(case: str, outcome: type_results.Outcome | None) -> str:
    if outcome is None or outcome.became == "refused":
        return "?" if outcome is None else "-"
    same = case == type_results.EMPTY or _type(outcome.read) == _type(str(COLUMNS[case].type))
    mark = {"partly": " *", "changed": " **"}.get(outcome.became, "")
    return f"{'yes' if same else f'`{_type(outcome.read)}`'}{mark}"


def drive(kind: str) -> str:
    """The monitoring queries of the drive table in one system."""
    found = drive_queries.queries(kind, TABLE)
    return "\n\n".join(f"{drive_queries.TITLES[name]}:\n\n```sql\n{text}\n```" for name, text in found.items())


def verbs() -> str:
    """The verbs."""
    return _table(("verb", "what it does"), [(f"[`{name}`](#{name})", verb.summary) for name, verb in VERBS.items()])


def verb(name: str, inner: str = "") -> str:
    """The help and the options of a verb, or of one inside it; what all verbs share is left out."""
    command = app.get_command(click.Context(app), name)
    if inner:
        assert isinstance(command, click.Group)
        command, name = command.commands[inner], f"{name} {inner}"
    assert command is not None
    shared = {option.name for option in shared_options()}
    rows = [
        (_spelled(parameter), (parameter.help or "") + _default_of(parameter))
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name not in shared
    ]
    arguments = " ".join(
        parameter.make_metavar(click.Context(command)) for parameter in command.params if isinstance(parameter, click.Argument)
    )
    usage = f"`dataflow {name}{' ' + arguments if arguments else ''}`"
    return usage if not rows else f"{usage}\n\n{_table(('option', 'meaning'), rows)}"


def shared() -> str:
    """The options of every verb."""
    return _table(
        ("option", "meaning"), [(_spelled(option), option.help or "") for option in shared_options() if isinstance(option, click.Option)]
    )


_KINDS: Mapping[str, Callable[..., str]] = {
    "options": options,
    "example": example,
    "matrix": matrix,
    "types": types_kept,
    "errors": error_kinds,
    "losses": types_lost,
    "drive": drive,
    "verbs": verbs,
    "verb": verb,
    "shared": shared,
}


def _spelled(option: click.Parameter) -> str:
    assert isinstance(option, click.Option)
    value = "" if option.is_flag else f" {option.metavar or _metavar(option)}"
    return f"`{', '.join(sorted(option.opts, key=len, reverse=True))}{value}`"


def _metavar(option: click.Option) -> str:
    return "/".join(map(str, option.type.choices)) if isinstance(option.type, click.Choice) else option.type.name.upper().split()[0]


def _default_of(option: click.Option) -> str:
    return f" Default: {option.default}." if option.show_default else ""


def _model(path: str) -> type[BaseModel]:
    module, _, names = path.partition(":")
    found: Any = importlib.import_module(f"dataflow_assets.{module}")
    for name in names.split("."):
        found = getattr(found, name)
    assert issubclass(found, BaseModel)
    return found


def _row(model: type[BaseModel], name: str, info: FieldInfo) -> tuple[str, ...]:
    keys = [key for key, field in known_keys(model).items() if field == name]
    first, *others = keys
    shown = f"`{first}`" + (f" (or {', '.join(f'`{key}`' for key in others)})" if others else "")
    return shown, _linked(model, info), _default(info), info.description or ""


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a field of this type holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from models_in(argument)


def _linked(model: type[BaseModel], info: FieldInfo) -> str:
    """What a key of `model` takes, with a link to the section that holds the keys of a block."""
    places = [_sections()[inner] for inner in models_in(info.annotation) if inner in _sections()]
    if not places:
        return _value(info)
    page, anchor = places[0]
    own = _sections()[model][0] if model in _sections() else page
    path = "" if own == page else Path(os.path.relpath(page, own.parent)).as_posix()
    return f"[{_value(info)}]({path}#{anchor})"


@functools.cache
def _sections() -> dict[type[BaseModel], tuple[Path, str]]:
    """Where the table of each model stands: the page and the anchor of the heading above it."""
    found: dict[type[BaseModel], tuple[Path, str]] = {}
    for page in pages():
        anchor = ""
        for line in page.read_text(encoding="utf-8").splitlines():
            if title := _HEADING.match(line):
                anchor = slug(title[1])
            elif block := re.match(r"<!-- generated: options (\S+) -->", line):
                found[_model(block[1])] = page, anchor
    return found


def slug(title: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    if info.default_factory is not None:
        value: Any = info.default_factory() if not info.default_factory_takes_validated_data else None  # type: ignore[call-arg]
        if info.annotation is int:
            return "the machine"
    else:
        value = info.default
    if isinstance(value, BaseModel) or value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value.value if isinstance(value, enum.Enum) else value}`"


def _value(info: FieldInfo) -> str:
    if any(isinstance(mark, SqlMarker) for mark in info.metadata) or "SqlMarker" in repr(info.annotation):
        return "SQL"
    return _kind(info.annotation)


def _kind(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return "text or a list" if "_as_list" in repr(arguments) else _kind(arguments[0])
    if origin is typing.Literal:
        return " ".join(f"`{item}`" for item in arguments)
    if origin in {typing.Union, types.UnionType}:
        kinds = list(dict.fromkeys(_kind(item) for item in arguments if item is not type(None)))
        return " or ".join(kinds)
    if origin in {list, tuple}:
        return "list" if arguments and arguments[0] is not str else "text or a list"
    if origin is dict or annotation is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return " ".join(f"`{item.value}`" for item in annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "block"
    return _PLAIN.get(annotation) or getattr(annotation, "__name__", str(annotation))


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines)


def record_types() -> None:
    """Run the tests of types of every connector whose service is here, one after the other, and keep what they find."""
    tests = "comes_back_or_is_refused or is_read_or_refused or test_an_empty"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "-k", tests]
    environment = {**os.environ, type_results.RECORDING: "1"}
    subprocess.run([*command, str(type_results.FOLDER.parent)], cwd=ROOT, env=environment, check=True)


def main() -> int:
    """Rewrite the pages whose blocks have changed; returns how many."""
    if "--types" in sys.argv[1:]:
        record_types()
    changed = 0
    for page in pages():
        before = page.read_text(encoding="utf-8")
        if (after := fresh(before)) != before:
            page.write_text(after, encoding="utf-8")
            sys.stdout.write(f"{page.relative_to(ROOT)}\n")
            changed += 1
    return changed


if __name__ == "__main__":
    main()
