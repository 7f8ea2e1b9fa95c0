"""From the words of a step to its plugin: role, kind, class, connection.

Here: which family knows a kind, which connection a step uses, and the refusals of both. Not here: the plugin's options
(`plan.options`), how steps hang together (`plan.steps`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dataflow_assets import discovery
from dataflow_assets.discovery import Family
from dataflow_assets.plan.findings import Findings, step_path
from dataflow_assets.plan.model import Role
from dataflow_assets.plan.names import suggest
from dataflow_assets.plan.options import check_options, known_keys, split_block
from dataflow_assets.spec.models import StepModel

_FAMILIES: dict[str, tuple[Family, ...]] = {
    "source": ("connectors",),
    "endpoint": ("connectors",),
    "processor": ("transforms", "checks"),
    "transform": ("transforms",),
    "check": ("checks",),
}
_ROLE: dict[Family, Role] = {"transforms": "transform", "checks": "check"}


@dataclass(frozen=True)
class Plugin:
    """A step's plugin: its class, its kind by its own name, and the role it plays there."""

    implementation: Any
    kind: str
    role: Role


@dataclass(frozen=True)
class Link:
    """The connection of a step. `name` is None for a kind that needs none; `model` is None when the block is broken."""

    name: str | None
    block: Mapping[str, Any]
    model: Any = None


def find_plugin(step: StepModel, index: int, connections: Mapping[str, Mapping[str, Any]], findings: Findings) -> Plugin | None:
    """The plugin of a step; adds a problem and returns None when there is none."""
    kind = step.kind or _kind_of_connection(step, connections)
    if not kind:
        _refuse_missing_kind(step, index, connections, findings)
        return None
    families = _FAMILIES[step.type]
    for family in families:
        if implementation := _load(family, str(kind), index, findings):
            role = _ROLE.get(family) or ("source" if step.role == "source" else "endpoint")
            return None if _refuse_role(step, index, role, implementation, findings) else Plugin(implementation, implementation.kind, role)
    if not any(_knows(family, str(kind)) for family in families):
        _refuse_unknown_kind(step, index, str(kind), families, connections, findings)
    return None


def _refuse_role(step: StepModel, index: int, role: Role, implementation: Any, findings: Findings) -> bool:
    """Add the problem of an endpoint into a system that can only be read; its options need no looking at."""
    if role != "endpoint" or implementation.capabilities.modes:
        return False
    key = "plugin" if step.plugin else "endpoint_type" if step.endpoint_type else "connection"
    message = f"step {step.id!r} is an endpoint, but {implementation.kind} can only be read"
    findings.add(step_path(index, key), message, hint="make it a source, or publish into a connection that can be written")
    return True


def _kind_of_connection(step: StepModel, connections: Mapping[str, Mapping[str, Any]]) -> Any:
    return connections.get(step.connection, {}).get("type") if step.connection and step.role != "processor" else None


def kind_key(step: StepModel) -> str:
    """The key that names the kind of a step of this role."""
    return f"{step.role}_type"


def _refuse_missing_kind(step: StepModel, index: int, connections: Mapping[str, Mapping[str, Any]], findings: Findings) -> None:
    if step.connection and step.role != "processor":
        if step.connection in connections:
            findings.add_at_connection(step.connection, (), f"connection {step.connection!r} has no type", hint="add e.g. type: postgres")
        else:
            refuse_unknown_connection(step, index, connections, findings)
        return
    families = _FAMILIES[step.type]
    names = ", ".join(name for family in families for name in discovery.kinds(family))
    also = " or a connection" if step.role != "processor" else ""
    findings.add(
        step_path(index), f"step {step.id!r} does not say its {kind_key(step)}{also}", hint=f"write {kind_key(step)}: one of {names}"
    )


def _refuse_unknown_kind(
    step: StepModel, index: int, kind: str, families: tuple[Family, ...], connections: Mapping[str, Mapping[str, Any]], findings: Findings
) -> None:
    noun = "connector" if step.role != "processor" else step.type
    message = f"step {step.id!r}: there is no {noun} of kind {kind!r}"
    if step.kind is None and step.connection is not None:
        findings.add_at_connection(step.connection, ("type",), message, hint=_hint(kind, families))
        return
    key = "plugin" if step.plugin else kind_key(step)
    path = step_path(index, "kind") if step.plugin and step_path(index, "kind") in findings.places.known else step_path(index, key)
    findings.add(path, message, hint=_hint(kind, families))


def _hint(kind: str, families: tuple[Family, ...]) -> str:
    others: dict[Family, str] = {"connectors": "a source or endpoint", "transforms": "a transform", "checks": "a check"}
    for family, other in others.items():
        if family not in families and _knows(family, kind):
            return f"{kind} is {other}: change the step's type"
    return suggest(kind, [name for family in families for name in discovery.kinds(family)], noun="known kinds")


def _knows(family: Family, kind: str) -> bool:
    try:
        discovery.find(family, kind)
    except KeyError:
        return False
    except ImportError:
        return True
    return True


def _load(family: Family, kind: str, index: int, findings: Findings) -> Any:
    try:
        return discovery.find(family, kind)
    except KeyError:
        return None
    except (ImportError, AttributeError, SyntaxError) as error:
        findings.add(step_path(index), f"the plugin {kind!r} of {family} could not be loaded: {type(error).__name__}: {error}")
        return None


def find_link(step: StepModel, index: int, plugin: Plugin, connections: Mapping[str, Mapping[str, Any]], findings: Findings) -> Link | None:
    """The connection of a step with a connector; adds the problems of its block, and returns None when it has no usable one."""
    if step.connection is None:
        return _implicit(step, index, plugin, connections, findings)
    block = connections.get(step.connection)
    if block is None:
        refuse_unknown_connection(step, index, connections, findings)
        return None
    named = block.get("type", plugin.kind)
    if not _knows("connectors", str(named)):
        message = f"connection {step.connection!r}: there is no connector of kind {named!r}"
        findings.add_at_connection(step.connection, ("type",), message, hint=_hint(str(named), ("connectors",)))
        return None
    if step.kind is not None and not _same_kind(named, plugin):
        message = f"step {step.id!r} is {plugin.kind}, but connection {step.connection!r} is {block.get('type')}"
        findings.add(
            step_path(index, "connection"), message, hint=f"leave {kind_key(step)} out, or name a connection of type {plugin.kind}"
        )
        return None
    return Link(step.connection, block, _checked_block(step.connection, block, plugin, findings))


def _same_kind(kind: Any, plugin: Plugin) -> bool:
    try:
        return discovery.find("connectors", str(kind)) is plugin.implementation
    except (KeyError, ImportError):
        return False


def _implicit(step: StepModel, index: int, plugin: Plugin, connections: Mapping[str, Mapping[str, Any]], findings: Findings) -> Link | None:
    """Systems without a dialect and without a required key (files) need no connection."""
    model = plugin.implementation.Connection
    if plugin.implementation.capabilities.dialect is None and not any(info.is_required() for info in model.model_fields.values()):
        return Link(None, {}, check_options(model, {}).model)
    fitting = sorted(name for name, block in connections.items() if _same_kind(block.get("type", ""), plugin))
    hint = f"add connection: {fitting[0]}" if fitting else f"add a connection of type {plugin.kind} under `connections:` and name it here"
    findings.add(step_path(index), f"step {step.id!r} needs a connection to {plugin.kind}", hint=hint)
    return None


def _checked_block(name: str, block: Mapping[str, Any], plugin: Plugin, findings: Findings) -> Any:
    raw, _ = split_block(plugin.implementation, block)
    checked = check_options(plugin.implementation.Connection, raw)
    step_keys = {**known_keys(plugin.implementation.Source), **known_keys(plugin.implementation.Endpoint)}
    for mistake in checked.mistakes:
        moved = len(mistake.path) == 1 and mistake.path[0] in step_keys and mistake.message.startswith("unknown key")
        hint = f"{mistake.path[0]!r} belongs into the config of a step" if moved else mistake.hint
        findings.add_at_connection(name, mistake.path, f"connection {name!r}: {mistake.message}", hint=hint)
    return checked.model


def refuse_unknown_connection(step: StepModel, index: int, connections: Mapping[str, Mapping[str, Any]], findings: Findings) -> None:
    """Add the problem of a connection that nobody declared."""
    hint = (
        suggest(str(step.connection), connections, noun="connections")
        or f"declare it under `connections:` with its type, e.g. {step.connection}: {{type: postgres}}"
    )
    key = "connection" if step_path(index, "connection") in findings.places.known else "name"
    findings.add(step_path(index, key), f"step {step.id!r}: there is no connection {step.connection!r}", hint=hint)
