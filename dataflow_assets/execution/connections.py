"""Opening the connectors that a pipeline names.

Here: from a raw connection block to a connector, with templates rendered and secrets registered. Not here: pooling (each
connector keeps its own), which keys a system knows (its connector declares them).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr, ValidationError

from dataflow_assets import discovery
from dataflow_assets.errors import DataflowError
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.plan.options import split_block
from dataflow_assets.protocols import ConnectionContext, Connector
from dataflow_assets.secrets import looks_secret, mask, register_secret
from dataflow_assets.spec.project import Project
from dataflow_assets.spec.templates import TemplateContext, render_connection


def open_connector(project: Project, pipeline: PipelinePlan, name: str | None, *, kind: str, context: TemplateContext) -> Connector:
    """The connector of a connection, or of a kind that needs none (files). Constructing it does no I/O.

    Raises DataflowError when a key is missing, unknown or of the wrong type.
    """
    return open_block(project, pipeline.connections[name] if name else {}, name=name, kind=kind, context=context)


def open_block(project: Project, block: Mapping[str, Any], *, name: str | None, kind: str, context: TemplateContext) -> Connector:
    """The connector of a raw connection block."""
    connector_class, connection = _rendered(block, kind=kind, name=name, context=context)
    connector: Connector = connector_class(connection, ConnectionContext(name or kind, project.root))
    return connector


def mark_of(block: Mapping[str, Any], *, kind: str, name: str | None, context: TemplateContext) -> str:
    """A raw connection block, rendered, as a text without secrets; of an address that holds a password, what is left without it."""
    _, connection = _rendered(block, kind=kind, name=name, context=context)
    return repr(sorted(_open_values(connection)))


def _rendered(block: Mapping[str, Any], *, kind: str, name: str | None, context: TemplateContext) -> tuple[Any, BaseModel]:
    connector_class = discovery.find("connectors", str(block.get("type", kind)))
    values = render_connection(split_block(connector_class, block)[0], context)
    connection = validated(connector_class.Connection, values, where=f"connection {name!r}")
    _register_fields(connection)
    return connector_class, connection


def _open_values(connection: BaseModel) -> Iterator[tuple[str, str]]:
    for name in type(connection).model_fields:
        value = getattr(connection, name)
        if isinstance(value, BaseModel):
            yield from ((f"{name}.{inner}", text) for inner, text in _open_values(value))
        elif isinstance(value, SecretStr):
            address = urlsplit(value.get_secret_value()) if "://" in value.get_secret_value() else None
            yield name, f"{address.scheme}://{address.hostname}{address.path}" if address else ""
        elif not looks_secret(name):
            yield name, mask(repr(value))


def validated(model: type[BaseModel], values: Mapping[str, Any], *, where: str) -> Any:
    """`values` as an instance of `model`. Raises DataflowError naming `where`, the key and what was expected."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        details = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'value'}: {item['msg']}" for item in error.errors(include_input=False, include_url=False)
        )
        raise DataflowError(f"{where}: {details}", hint="these are the values after templates were rendered") from None


def _register_fields(connection: BaseModel) -> None:
    for name in type(connection).model_fields:
        value = getattr(connection, name)
        if isinstance(value, SecretStr):
            register_secret(value.get_secret_value())
        elif isinstance(value, BaseModel):
            _register_fields(value)
