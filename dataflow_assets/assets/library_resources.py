"""The resources of Dagster's own libraries, as the keys of a connection: for whoever has a `DuckDBResource` or `SnowflakeResource` already.

Here: which of their settings mean what. Not here: what is done with a connection (`assets.io_managers`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from dataflow_assets.errors import DataflowError

_SNOWFLAKE = {
    **{name: name for name in ("account", "user", "password", "database", "role", "warehouse", "authenticator", "private_key_path")},
    "schema_": "schema",
    "private_key": "private_key",
    "private_key_password": "private_key_passphrase",
    "login_timeout": "login_timeout",
    "network_timeout": "statement_timeout",
}
_SNOWFLAKE_MORE = ("host", "port", "protocol", "token")
_DUCKDB_SETTINGS = ("memory_limit", "threads")


def keys_of(kind: str, resource: Any) -> dict[str, Any]:
    """The connection's keys, with the values of the environment. Raises DataflowError for another resource, or a setting that would
    have to be left out."""
    named = type(resource).__name__
    expected, keys = _RESOURCES.get(kind, ("", None))
    if keys is None or expected not in {base.__name__ for base in type(resource).__mro__}:
        hint = f"give it a {expected}, or the keys of a connection" if expected else "give it the keys of a connection"
        raise DataflowError(f"an IO manager of kind {kind} takes no {named}", hint=hint)
    if isinstance(resource, dg.ConfigurableResource):
        resource = resource.process_config_and_initialize()
    return {name: value for name, value in keys(resource).items() if value is not None}


def _duckdb(resource: Any) -> dict[str, Any]:
    _refuse_others("connection_config", resource.connection_config, _DUCKDB_SETTINGS)
    return {"database": resource.database, **resource.connection_config}


def _snowflake(resource: Any) -> dict[str, Any]:
    more = resource.additional_snowflake_connection_args or {}
    _refuse_others("additional_snowflake_connection_args", more, _SNOWFLAKE_MORE)
    keys = {key: getattr(resource, name, None) for name, key in _SNOWFLAKE.items()}
    for key in ("login_timeout", "statement_timeout"):
        keys[key] = f"{keys[key]}s" if keys[key] else None
    return {**keys, "private_key": _pem(keys["private_key"]), **more}


def _pem(key: str | None) -> str | None:
    """The text of a private key, which that resource also takes as base64."""
    if not key or "-----BEGIN" in key:
        return key
    try:
        return base64.b64decode(key, validate=False).decode()
    except (binascii.Error, UnicodeDecodeError):
        return key


def _refuse_others(setting: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    if others := sorted(set(given) - set(known)):
        raise DataflowError(
            f"{setting} has {', '.join(others)}, which would be left out",
            hint=f"only {', '.join(known)} can be taken over; give the IO manager a resource of its own, or the keys of a connection",
        )


_RESOURCES: Mapping[str, tuple[str, Callable[[Any], dict[str, Any]]]] = {
    "duckdb": ("DuckDBResource", _duckdb),
    "snowflake": ("SnowflakeResource", _snowflake),
}
