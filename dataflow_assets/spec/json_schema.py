"""JSON Schema for the files users write, so that an editor completes and checks them.

Here: the models' own schemas, joined with those of every plugin that can be found, with templates allowed where they are rendered.
Not here: the models (`spec.models`, the plugins), printing (`cli.schema`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import AliasChoices, BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from dataflow_assets import discovery
from dataflow_assets.spec.contracts import ContractModel
from dataflow_assets.spec.data_tests import DataTestModel
from dataflow_assets.spec.models import PipelineModel, ProjectModel, StepModel
from dataflow_assets.spec.pools import PoolOptions

DRAFT = "http://json-schema.org/draft-07/schema#"
_REF = "#/$defs/{model}"
_TEMPLATE = {"type": "string", "pattern": r"\{\{|\{%|\$\{", "description": "a template, rendered when the step runs"}
_ANNOTATIONS = ("title", "description", "default")
_OPTIONAL_WHEN_EMPTY = (PipelineModel, ProjectModel, StepModel, ContractModel, DataTestModel)
_OF_ANY_COLUMN = frozenset({"column", "columns", "check", "description"})
"""Keys of a rule that say nothing, or something else, under a column of a contract."""

RULES = "validator"
"""The check whose `checks` a step may have itself."""

Schema = dict[str, Any]


@dataclass(frozen=True)
class _Plugin:
    """The options of one kind in one role: `source`, `endpoint`, `processor` or `connection`."""

    role: str
    kind: str
    model: type[BaseModel]


def pipeline_schema() -> Schema:
    """The schema of a pipeline document; `config` depends on the step's plugin."""
    schema, refs = _schema_of(PipelineModel, [*_plugins("source"), *_plugins("endpoint"), *_plugins("processor"), *_plugins("connection")])
    step = schema["$defs"]["StepModel"]
    for role in ("source", "processor", "endpoint"):
        kinds = sorted({spelling for plugin in refs if plugin.role == role for spelling in discovery.spellings(plugin.kind)})
        step["properties"][f"{role}_type"] = {"enum": [*kinds, None], "description": f"the plugin of a {role} step"}
    step["allOf"] = [*step.get("allOf", []), *(_config_rule(plugin, ref) for plugin, ref in refs.items() if plugin.role != "connection")]
    for ref in (ref for plugin, ref in refs.items() if plugin.kind == RULES):
        rules = schema["$defs"][ref.rpartition("/")[2]]["properties"]["checks"]
        step["properties"]["checks"] = {**rules, "description": step["properties"]["checks"].get("description", "")}
    return schema


def project_schema() -> Schema:
    """The schema of a project file; a connection's keys depend on its `type`."""
    schema, _ = _schema_of(ProjectModel, _plugins("connection"))
    schema["properties"]["sources"] = {**schema["properties"]["connections"], "description": "an older name of `connections`"}
    return schema


def data_test_schema() -> Schema:
    """The schema of a file of unit tests for data."""
    made = DataTestModel.model_json_schema(schema_generator=_Generator, ref_template=_REF)
    return {"$schema": DRAFT, **made}


def contract_schema() -> Schema:
    """The schema of a contract document; a column takes the keys of a rule beside its own."""
    rule = discovery.find("checks", "validator").Options
    found, made = models_json_schema([(ContractModel, "validation"), (rule, "validation")], schema_generator=_Generator, ref_template=_REF)
    definitions: dict[str, Schema] = made["$defs"]
    column, item = definitions["ContractColumn"], definitions["RuleItem"]
    column["properties"] = {**_without(item["properties"], _OF_ANY_COLUMN), **column["properties"]}
    column["additionalProperties"] = False
    rules = {"type": "array", "items": {"$ref": _REF.format(model="RuleItem")}}
    for owner in (column, definitions["ContractModel"]):
        owner["properties"]["rules"] = {**_annotations(owner["properties"]["rules"]), **rules}
    name = str(found[(ContractModel, "validation")]["$ref"]).rpartition("/")[2]
    schema = {"$schema": DRAFT, **definitions.pop(name), "$defs": definitions}
    schema["$defs"] = {key: definitions[key] for key in _reachable(definitions, ["ContractColumn", "RuleItem"])}
    schema["oneOf"] = [{"required": ["dataset"]}, {"required": ["table"]}]
    return schema


def _without(properties: Mapping[str, Any], names: frozenset[str]) -> Schema:
    return {key: value for key, value in properties.items() if key not in names}


def _schema_of(root: type[BaseModel], plugins: list[_Plugin]) -> tuple[Schema, dict[_Plugin, str]]:
    """The schema of `root` with the models of `plugins` among its definitions, and where each of these is."""
    models = list(dict.fromkeys([root, *(plugin.model for plugin in plugins)]))
    found, made = models_json_schema([(model, "validation") for model in models], schema_generator=_Generator, ref_template=_REF)
    definitions: dict[str, Schema] = made["$defs"]
    refs = {plugin: str(found[(plugin.model, "validation")]["$ref"]) for plugin in plugins}
    for name in _reachable(definitions, [ref.rpartition("/")[2] for ref in refs.values()]):
        definitions[name] = _with_templates_inside(definitions[name])
    for plugin, ref in refs.items():
        own = definitions[ref.rpartition("/")[2]]
        own["type"] = ["object", "null"]
        if plugin.role == "connection":
            own["properties"] = {"type": {"type": "string"}, **own.get("properties", {}), **_of_any_connection()}
    name = str(found[(root, "validation")]["$ref"]).rpartition("/")[2]
    schema = {"$schema": DRAFT, **definitions.pop(name), "$defs": definitions}
    rules = [_connection_rule(plugin, ref) for plugin, ref in refs.items() if plugin.role == "connection"]
    schema["properties"]["connections"] = {
        "type": ["object", "null"],
        "description": "name -> a system with its credentials",
        "additionalProperties": {"type": "object", "properties": {"type": {"type": "string"}}, "required": ["type"], "allOf": rules},
    }
    return schema, refs


def _of_any_connection() -> Schema:
    """The keys that every kind of connection takes."""
    properties: Schema = PoolOptions.model_json_schema(schema_generator=_Generator)["properties"]
    return properties


def _plugins(role: str) -> list[_Plugin]:
    return list(_plugins_of(role))


def _plugins_of(role: str) -> Iterator[_Plugin]:
    families: tuple[discovery.Family, ...] = ("transforms", "checks") if role == "processor" else ("connectors",)
    attribute = "Options" if role == "processor" else role.capitalize()
    for family in families:
        for kind in discovery.kinds(family):
            try:
                plugin = discovery.find(family, kind)
                model = None if role == "endpoint" and not plugin.capabilities.modes else getattr(plugin, attribute, None)
            except (ImportError, AttributeError):  # another package's plugin that does not load must not take the schema down
                continue
            if model is not None:
                yield _Plugin(role, kind, model)


def _config_rule(plugin: _Plugin, ref: str) -> Schema:
    """When a step has this role and names this plugin, its `config` is the plugin's."""
    roles = ["processor", "transform", "check"] if plugin.role == "processor" else [plugin.role]
    named = {"enum": list(discovery.spellings(plugin.kind))}
    keys = (f"{plugin.role}_type", "kind", "plugin")
    condition = {
        "properties": {"type": {"enum": roles}},
        "required": ["type"],
        "anyOf": [{"properties": {key: named}, "required": [key]} for key in keys],
    }
    return {"if": condition, "then": {"properties": {"config": {"$ref": ref}}}}


def _connection_rule(plugin: _Plugin, ref: str) -> Schema:
    """A connection's own keys and `type`; the plugin says which."""
    named = {"enum": list(discovery.spellings(plugin.kind))}
    return {"if": {"properties": {"type": named}, "required": ["type"]}, "then": {"$ref": ref}}


class _Generator(GenerateJsonSchema):
    """Adds what pydantic's schema leaves out: every alias of a key, and keys that may stand empty."""

    def model_schema(self, schema: Any) -> Schema:
        """The schema of one model."""
        made = dict(super().model_schema(schema))
        model = schema["cls"]
        properties = dict(made.get("properties", {}))
        required = list(made.get("required", []))
        for choices in _aliases(model):
            written = next((key for key in choices if key in properties), None)
            if written is None:
                continue
            properties.update(dict.fromkeys(choices, properties[written]))
            if written in required:
                required.remove(written)
                made["allOf"] = [*made.get("allOf", []), {"anyOf": [{"required": [key]} for key in choices]}]
        if model in _OPTIONAL_WHEN_EMPTY:
            properties = {key: value if key in required else _or_null(value) for key, value in properties.items()}
        made["properties"] = properties
        made.pop("required", None)
        return made | ({"required": required} if required else {})


def _aliases(model: type[BaseModel]) -> list[list[str]]:
    found = []
    for name, field in model.model_fields.items():
        if isinstance(field.validation_alias, AliasChoices):
            found.append(list(dict.fromkeys([*(str(choice) for choice in field.validation_alias.choices), name])))
    return found


def _or_null(schema: Schema) -> Schema:
    if isinstance(kind := schema.get("type"), str) and "enum" not in schema:
        return {**schema, "type": [kind, "null"]}
    if {"type": "null"} in schema.get("anyOf", []):
        return schema
    return {**_annotations(schema), "anyOf": [schema, {"type": "null"}]}


def _reachable(definitions: Mapping[str, Schema], names: list[str]) -> list[str]:
    """`names` and every definition they refer to."""
    found: list[str] = []
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.append(name)
            waiting += [ref.rpartition("/")[2] for ref in _refs(definitions[name])]
    return found


def _refs(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for value in schema.values():
            yield from _refs(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _refs(value)


def _with_templates_inside(schema: Schema) -> Schema:
    """Allow a template for every property, item and value below `schema`."""
    made = dict(schema)
    if "properties" in made:
        made["properties"] = {key: _or_template(value) for key, value in made["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(made.get(key), Mapping):
            made[key] = _or_template(made[key])
    for key in ("anyOf", "oneOf", "allOf"):
        if key in made:
            made[key] = [_with_templates_inside(value) for value in made[key]]
    return made


def _or_template(schema: Schema) -> Schema:
    inside = _with_templates_inside(schema)
    is_free = not set(schema) - set(_ANNOTATIONS) or (
        schema.get("type") == "string" and not {"enum", "const", "pattern", "format"} & set(schema)
    )
    return inside if is_free else {**_annotations(schema), "anyOf": [inside, _TEMPLATE]}


def _annotations(schema: Schema) -> Schema:
    return {key: schema[key] for key in _ANNOTATIONS if key in schema}
