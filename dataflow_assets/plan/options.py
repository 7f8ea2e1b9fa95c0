"""Options as the plugin that takes them sees them, before any template is rendered.

Here: validation of a raw mapping against a pydantic model, tolerant of templates: a value that holds one may turn out to be
anything, an unknown key never becomes a known one. Not here: which model belongs to which step (`plan.steps`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, get_args

from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic.fields import FieldInfo

from dataflow_assets.plan.names import suggest
from dataflow_assets.protocols import Mistake
from dataflow_assets.spec.pools import POOL_KEYS

Path = tuple[str | int, ...]
_ALLOWED = re.compile(r"'([^']*)'")
_TEMPLATE_SIGNS = ("{{", "{%", "${")
_PROBES: tuple[Any, ...] = (1, "x", True, ["x"], {"x": "x"}, datetime(2000, 1, 1, tzinfo=UTC), "2000-01-01", "1h")
_PROBES += ("x:x", "count(*) > 0", "text")  # a function, a condition, a type
"""Values that stand in for a template until one of them has the type the field wants."""
_OF_ANY_CONNECTION = POOL_KEYS | {"type"}


@dataclass(frozen=True)
class Checked:
    """The outcome of `check_options`: a model to ask questions of (stand-ins where templates are), or what is wrong."""

    model: Any = None
    mistakes: tuple[Mistake, ...] = ()


def has_template(value: Any) -> bool:
    """Whether `value`, or anything inside it, is text that a template may change."""
    if isinstance(value, str):
        return any(sign in value for sign in _TEMPLATE_SIGNS)
    if isinstance(value, Mapping):
        return any(has_template(item) for item in value.values())
    return isinstance(value, list | tuple) and any(has_template(item) for item in value)


def check_options(model: type[BaseModel], raw: Mapping[str, Any]) -> Checked:
    """Validate `raw` against `model`; templates are never type-checked, everything else is."""
    strangers = tuple(_unknown_keys(model, raw))
    values = _copy({key: value for key, value in raw.items() if key in known_keys(model)} if strangers else raw)
    tried: dict[Path, int] = {}
    while True:
        try:
            found = model.model_validate(values)
        except ValidationError as error:
            details = error.errors(include_url=False)
            mistakes = tuple(_mistakes(model, raw, details, stood_in=bool(tried)))
            if mistakes or not _stand_in(values, details, tried):
                return Checked(None, strangers + mistakes)
        else:
            return Checked(found, strangers)


@cache
def known_keys(model: type[BaseModel]) -> Mapping[str, str]:
    """Every key the model takes, older names included, with the field each one fills."""
    keys: dict[str, str] = {}
    for name, info in model.model_fields.items():
        for key in _keys_of(model, name, info):
            keys[key] = name
    return keys


def split_block(implementation: Any, block: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A connection block without the keys of any connection, as the connection's own keys and those meant for the `config` of its steps.

    DFT names a file in its connection. Only connectors without SQL take that: a `table` in a database's connection is a mistake.
    """
    own = {key: value for key, value in block.items() if key not in _OF_ANY_CONNECTION}
    if implementation.capabilities.dialect is not None:
        return own, {}
    of_steps = {**known_keys(implementation.Source), **known_keys(implementation.Endpoint)}.keys() - known_keys(
        implementation.Connection
    ).keys()
    return {key: value for key, value in own.items() if key not in of_steps}, {key: own[key] for key in own if key in of_steps}


def main_keys(model: type[BaseModel]) -> list[str]:
    """One key for each field: the one to suggest."""
    return [_keys_of(model, name, info)[0] for name, info in model.model_fields.items()]


def written_key(model: type[BaseModel], raw: Mapping[str, Any], name: str) -> str:
    """The key of `raw` that fills field `name`, the main one when none does."""
    keys = _keys_of(model, name, model.model_fields[name])
    return next((key for key in keys if key in raw), keys[0])


def _keys_of(model: type[BaseModel], name: str, info: FieldInfo) -> list[str]:
    alias = info.validation_alias
    if alias is None:
        return [name]
    choices = [str(item) for item in alias.choices] if isinstance(alias, AliasChoices) else [str(alias)]
    if model.model_config.get("populate_by_name") or model.model_config.get("validate_by_name"):
        choices += [name] if name not in choices else []
    return choices


def _unknown_keys(model: type[BaseModel], raw: Mapping[str, Any]) -> Iterator[Mistake]:
    if model.model_config.get("extra") == "allow":
        return
    known = known_keys(model)
    for key in raw:
        if key not in known:
            yield Mistake((key,), f"unknown key {key!r}", suggest(str(key), main_keys(model), noun="known keys"))


def _mistakes(model: type[BaseModel], raw: Mapping[str, Any], details: Any, *, stood_in: bool) -> Iterator[Mistake]:
    for item in details:
        path = _path(raw, item["loc"])
        written = _at(raw, path)
        if isinstance(written, str) and has_template(written):
            continue
        if item["type"] == "extra_forbidden":
            inner = _model_at(model, path[:-1])
            yield Mistake(path, f"unknown key {path[-1]!r}", suggest(str(path[-1]), main_keys(inner), noun="known keys") if inner else "")
        elif item["type"] == "missing":
            yield Mistake(path[:-1], f"{'.'.join(map(str, path))!r} is missing")
        elif path and not has_template(written):
            yield Mistake(path, f"{'.'.join(map(str, path))}: {item['msg'].removeprefix('Value error, ')}")
        elif not path and not stood_in:  # a rule about the whole may only dislike the stand-ins
            yield Mistake(path, item["msg"].removeprefix("Value error, "))


def _path(raw: Any, loc: tuple[str | int, ...]) -> Path:
    """The part of `loc` that leads through what was written; pydantic appends names of union members and the like."""
    path: list[str | int] = []
    for part in loc:
        inside = _at(raw, tuple(path))
        if isinstance(inside, Mapping) or (isinstance(inside, list) and isinstance(part, int) and part < len(inside)):
            path.append(part)
        else:
            break
    return tuple(path)


def _at(raw: Any, path: Path) -> Any:
    for part in path:
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            return None
    return raw


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    """The nested model that describes what stands at `path`."""
    found: type[BaseModel] | None = model
    for part in path:
        if isinstance(part, str) and found is not None:
            name = known_keys(found).get(part)
            found = _model_in(found.model_fields[name].annotation) if name else None
    return found


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for item in get_args(annotation) if (found := _model_in(item))), None)


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _stand_in(values: Any, details: Any, tried: dict[Path, int]) -> bool:
    """Put the next stand-in where a template was refused, at last nothing; False when all were refused."""
    for item in details:
        path = _path(values, item["loc"])
        if not path or tried.get(path, 0) > len(_PROBES):
            return False
        attempt = tried.get(path, 0)
        inside = _at(values, path[:-1])
        if item["type"] in {"enum", "literal_error"} and (allowed := _ALLOWED.findall(item["ctx"]["expected"])):
            inside[path[-1]] = allowed[0]
        elif attempt < len(_PROBES):
            inside[path[-1]] = _PROBES[attempt]
        elif isinstance(inside, dict):
            del inside[path[-1]]
        tried[path] = attempt + 1
    return True
