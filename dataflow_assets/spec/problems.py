"""From pydantic's errors to problems with a place, what was expected, and the nearest word that would have been right.

Here: the wording of every refusal that a model makes. Not here: the models (`spec.models`), the reading (`spec.load`).
"""

from __future__ import annotations

import difflib
import enum
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import AliasChoices, BaseModel, ValidationError

from dataflow_assets.errors import Problem
from dataflow_assets.spec.models import PipelineModel, ProjectModel, StepModel
from dataflow_assets.spec.project import Path_, Places
from dataflow_assets.spec.query_windows import WindowOptions

M = typing.TypeVar("M", bound=BaseModel)

_TITLES: dict[type[BaseModel], str] = {
    PipelineModel: "a pipeline",
    StepModel: "a step",
    ProjectModel: "the project file",
    WindowOptions: "`windows`",
}
_EXPECTED = {
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping of key: value",
    "model_type": "a mapping of key: value",
    "model_attributes_type": "a mapping of key: value",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "date_type": "a date",
    "datetime_type": "a date and time",
}
_MOVED: dict[type[BaseModel], dict[str, str]] = {
    StepModel: dict.fromkeys(
        (
            "query",
            "table",
            "file_path",
            "path",
            "mode",
            "auto_create",
            "upsert_keys",
            "schema",
            "columns",
            "event_time_column",
            "delimiter",
        ),
        "indent it under the step's `config:`",
    ),
    PipelineModel: dict.fromkeys(("every", "batch_size", "lookback", "begin", "end", "lag", "timezone"), "indent it under `windows:`"),
}


def problems_of(error: ValidationError, *, model: type[BaseModel], places: Places, at: Path_ = (), data: Any = None) -> list[Problem]:
    """Every mistake that pydantic found in the value at path `at`, in the words of the file. `data` is the value as written."""
    found: dict[tuple[Any, ...], Problem] = {}
    for item in error.errors(include_url=False):
        written = _as_written(item["loc"], data)
        message, hint, at_key = _describe(item, model, data)
        problem = places.problem((*at, *written), message, hint=hint, at_key=at_key)
        found.setdefault((problem.place, problem.message), problem)
    return list(found.values())


def validated(model: type[M], data: Any, places: Places, problems: list[Problem]) -> M | None:
    """The document as its model; None, with what is wrong added to `problems`, when it is none."""
    data = _without_empty(data)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems += problems_of(error, model=model, places=places, data=data)
        return None


def _without_empty(data: Any) -> Any:
    """A key with nothing after it counts as not written, in the document and in its steps."""
    if not isinstance(data, dict):
        return data
    kept = {key: value for key, value in data.items() if value is not None}
    if isinstance(steps := kept.get("steps"), list):
        kept["steps"] = [_without_empty(step) for step in steps]
    return kept


def keys_of(model: type[BaseModel]) -> list[str]:
    """Every key that the model accepts, aliases included."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        aliases = field.validation_alias
        keys += (
            [name]
            if aliases is None
            else [str(alias) for alias in aliases.choices]
            if isinstance(aliases, AliasChoices)
            else [str(aliases)]
        )
    return list(dict.fromkeys([*keys, *model.model_fields]))


def near(word: Any, known: Iterable[Any]) -> str:
    """`did you mean ...?` with the nearest known word, or an empty text."""
    close = difflib.get_close_matches(str(word), [str(item) for item in known], n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else ""


def missing_plugins(pipeline: PipelineModel, places: Places, *, at: Path_ = ()) -> list[Problem]:
    """Steps that name neither a plugin nor a connection, or name the plugin by another role's key."""
    problems = []
    for index, step in enumerate(pipeline.steps):
        path, wanted = (*at, "steps", index), f"{step.role}_type"
        others = [key for key in ("source_type", "processor_type", "endpoint_type") if key != wanted and getattr(step, key)]
        if others:
            hint = f"write {wanted}: {getattr(step, others[0])}, or change `type`"
            problems.append(
                places.problem((*path, others[0]), f"step {step.id!r} is of type {step.type} but has {others[0]}", hint=hint, at_key=True)
            )
        elif not step.kind and not (step.connection and step.role != "processor"):
            hint = f"add `{wanted}`, for example {wanted}: {'sql' if step.role == 'processor' else 'csv'}"
            hint += "" if step.role == "processor" else ", or `connection:` with a connection of the project"
            problems.append(places.problem(path, f"step {step.id!r} does not say which {step.role} it is", hint=hint))
    return problems


def _as_written(loc: tuple[str | int, ...], data: Any) -> Path_:
    """Undo what the models rearrange before they validate: DFT's `variables.microbatch` and `sources`, calendars that are lists."""
    if not isinstance(data, Mapping) or not loc:
        return loc
    loc = _without_tags(loc, data)
    if loc[0] in {"windows", "event_time_column"} and loc[0] not in data:
        return ("variables", "microbatch", *(loc[1:] if loc[0] == "windows" else loc))
    calendars = data.get("calendars")
    if loc[0] == "calendars" and loc[2:3] == ("dates",) and isinstance(calendars, Mapping) and isinstance(calendars.get(loc[1]), list):
        return (*loc[:2], *loc[3:])
    sources = data.get("sources")
    if loc[0] == "connections" and isinstance(sources, Mapping) and loc[1:2] and loc[1] in sources:
        return ("sources", *loc[1:])
    return loc


def _without_tags(loc: tuple[str | int, ...], data: Any) -> Path_:
    """Leave out what pydantic puts between the path to a mapping and its keys, where the mapping's `type` says which model it is."""
    kept, here = [], data
    for part in loc:
        if isinstance(here, Mapping) and part not in here and here.get("type") == part:
            continue
        kept.append(part)
        inside = isinstance(here, Mapping) or (isinstance(here, list) and isinstance(part, int) and part < len(here))
        here = (here.get(part) if isinstance(here, Mapping) else here[part]) if inside else None
    return tuple(kept)


def _describe(item: Any, model: type[BaseModel], data: Any) -> tuple[str, str, bool]:
    """Message, hint, and whether the key and not the value is at fault."""
    kind, loc, value = item["type"], item["loc"], item.get("input")
    owner = _model_at(model, loc[:-1])
    title = _title(owner, loc) if owner else "this mapping"
    if kind == "extra_forbidden":
        return *_unknown_key(str(loc[-1]), owner, title), True
    if kind == "missing":
        return f"{title} needs the key {loc[-1]!r}", f"add `{loc[-1]}:`", False
    if kind in {"literal_error", "enum"}:
        choices = item["ctx"]["expected"]
        return f"{_found(value)} is none of {choices}", near(value, _quoted_words(choices)), False
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        return _wrong_tag(item)
    if kind == "value_error":
        message, _, hint = str(item["ctx"]["error"]).partition("; ")
        return (message, hint, False) if hint.startswith(("did you mean", "write ")) else (str(item["ctx"]["error"]), "", False)
    if kind in _EXPECTED:
        name = f"{loc[-1]!r} " if loc and isinstance(loc[-1], str) else ""
        return f"{name}must be {_EXPECTED[kind]}, found {_found(value)}", _shape_hint(kind, value), False
    return f"{loc[-1]!r}: {item['msg']}" if loc else str(item["msg"]), _template_hint(value), False


def _wrong_tag(item: Any) -> tuple[str, str, bool]:
    """The `type` of a mapping is missing, or none of those that there are."""
    context = item["ctx"]
    key = context["discriminator"].strip("'")
    if item["type"] == "union_tag_not_found":
        return f"{item['loc'][-1]!r} needs the key {key!r}", f"add `{key}:`", False
    return f"{context['tag']!r} is none of {context['expected_tags']}", near(context["tag"], _quoted_words(context["expected_tags"])), False


def _title(owner: type[BaseModel], loc: Any) -> str:
    """What the owner of a key is called; a model that is no part of every project says so itself."""
    return _TITLES.get(owner) or getattr(owner, "noun", "") or (f"`{loc[-2]}`" if len(loc) > 1 else owner.__name__)


def _unknown_key(key: str, owner: type[BaseModel] | None, title: str) -> tuple[str, str]:
    if owner is None:
        return f"unknown key {key!r}", "remove it"
    known = keys_of(owner)
    if key in known:
        same = next(choices for choices in _alias_groups(owner) if key in choices)
        return f"{key!r} says the same as another key of {title}", f"keep one of {', '.join(same)}"
    moved = _MOVED.get(owner, {}).get(key)
    fallback = "plugin options belong under `config:`" if owner is StepModel else f"known keys: {', '.join(known)}"
    return f"unknown key {key!r} in {title}", moved or near(key, known) or fallback


def _alias_groups(model: type[BaseModel]) -> list[list[str]]:
    groups = []
    for name, field in model.model_fields.items():
        if isinstance(field.validation_alias, AliasChoices):
            groups.append(list(dict.fromkeys([*(str(alias) for alias in field.validation_alias.choices), name])))
    return groups


def _model_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> type[BaseModel] | None:
    """The model that owns the keys at `loc`, None when that is a free mapping."""
    current: Any = model
    named = False
    choices: list[type[BaseModel]] = []
    for part in loc:
        if isinstance(part, int):
            continue
        if named:  # the key of a mapping whose values are models
            named = False
            continue
        if current is None:
            return None
        if chosen := next((item for item in choices if part in _tags(item)), None):
            current, choices = chosen, []
            continue
        field = next((item for name, item in current.model_fields.items() if part in _names(name, item)), None)
        current = _inner_model(field.annotation) if field else None
        choices = list(_inner_models(field.annotation)) if field else []
        named = field is not None and current is not None and _is_mapping(field.annotation)
    return typing.cast("type[BaseModel] | None", current)


def _is_mapping(annotation: Any) -> bool:
    return typing.get_origin(annotation) is dict


def _names(name: str, field: Any) -> list[str]:
    alias = field.validation_alias
    return [name, *(str(choice) for choice in alias.choices)] if isinstance(alias, AliasChoices) else [name, str(alias)]


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    """The one model inside `X`, `X | None`, `list[X]`, `dict[str, X]`, the first where there are several."""
    return next(_inner_models(annotation), None)


def _inner_models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in {list, tuple, dict, typing.Union, types.UnionType, typing.Annotated}:
        for argument in typing.get_args(annotation):
            yield from _inner_models(argument)


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    """The words for `type` by which a model is chosen among several."""
    return typing.get_args(field.annotation) if (field := model.model_fields.get("type")) else ()


def _found(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list) else str(value.value if isinstance(value, enum.Enum) else value)


def _quoted_words(text: str) -> list[str]:
    return text.replace(" or ", ", ").replace("'", "").split(", ")


def _shape_hint(kind: str, value: Any) -> str:
    if hint := _template_hint(value):
        return hint
    if kind == "list_type":
        return "put each item on a line of its own after '- ', or write [a, b]"
    return "put quotes around it" if kind == "string_type" and not isinstance(value, (list, Mapping)) and value is not None else ""


def _template_hint(value: Any) -> str:
    if isinstance(value, str) and "{{" in value:
        return "templates are rendered in `config`, `connections`, `checks` and `variables` only; write the value here"
    return ""
