"""Logging into Snowflake: the keys of a connection, and the arguments of the driver that they become.

Here: names, secrets, private keys, what every session is set to. Not here: the session itself (`_snowflake_session`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from dataflow_assets.errors import ConnectionFailed
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.secrets import register_secret
from dataflow_assets.spec.base import Model
from dataflow_assets.windows import parse_duration

_SECRETS = ("password", "private_key", "private_key_passphrase", "token")
_SESSION = {
    "TIMEZONE": "UTC",
    "PYTHON_CONNECTOR_QUERY_RESULT_FORMAT": "ARROW",
    "CLIENT_PREFETCH_THREADS": 2,
    "CLIENT_OUT_OF_BAND_TELEMETRY_ENABLED": False,
    "QUERY_TAG": "dataflow",
}


class SnowflakeConnection(Model):
    """The keys of a Snowflake connection."""

    account: str = Field(description="the account identifier, organization-account")
    user: str | None = Field(None, validation_alias=AliasChoices("user", "username"), description="the user")
    password: SecretStr | None = Field(None, description="best taken from the environment, with env_var")
    private_key: SecretStr | None = Field(None, description="the key of key-pair authentication, as PEM text")
    key_file: str | None = Field(
        None, validation_alias=AliasChoices("private_key_path", "private_key_file"), description="its file; relative to the project"
    )
    private_key_passphrase: SecretStr | None = Field(None, description="of an encrypted key")
    authenticator: str | None = Field(None, description="as the driver takes it: externalbrowser, oauth, an Okta URL, ...")
    token: SecretStr | None = Field(None, description="of authenticator oauth or programmatic_access_token")
    role: str | None = Field(None, description="default: the user's")
    warehouse: str | None = Field(None, description="default: the user's")
    database: str | None = Field(None, description="the current database")
    schema_name: str | None = Field(
        None, validation_alias="schema", description="the schema of tables whose step names none; default: PUBLIC"
    )
    host: str | None = Field(None, description="in place of the account's own, as with a private link")
    port: int | None = Field(None, description="its port")
    protocol: Literal["https", "http"] = Field("https", description="http for an emulator only")
    login_timeout: str = Field("1min", description="how long logging in may take")
    statement_timeout: str = Field("1h", description="how long one statement may take, with its waiting for locks and for the network")
    lock_timeout: str = Field("10min", description="how long a publish waits for another one of the same schema")

    @field_validator("login_timeout", "statement_timeout", "lock_timeout")
    @classmethod
    def _timeouts_are_durations(cls, value: str) -> str:
        parse_duration(value)
        return value

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.private_key is not None and self.key_file is not None:
            raise ValueError("write either private_key or private_key_path")
        return self


def register_secrets(connection: SnowflakeConnection) -> None:
    """Have the secrets masked wherever text is shown."""
    for name in _SECRETS:
        if (secret := getattr(connection, name)) is not None:
            register_secret(secret.get_secret_value())


def login(connection: SnowflakeConnection, context: ConnectionContext) -> dict[str, Any]:
    """The arguments of the driver's connect. Raises ConnectionFailed for a private key that cannot be read."""
    names = ("account", "user", "authenticator", "role", "warehouse", "database", "host", "port", "protocol")
    given = {name: getattr(connection, name) for name in names}
    given |= {"schema": connection.schema_name, "private_key": _private_key(connection, context)}
    given |= {name: secret.get_secret_value() for name in ("password", "token") if (secret := getattr(connection, name))}
    return {
        **{name: value for name, value in given.items() if value is not None},
        "login_timeout": _seconds(connection.login_timeout),
        "network_timeout": _seconds(connection.statement_timeout),  # when it is over, the driver cancels the statement
        "application": "dataflow_assets",
        "autocommit": False,
        "paramstyle": "qmark",
        "arrow_number_to_decimal": True,
        "platform_detection_timeout_seconds": 0.0,  # else six requests ask at each start which cloud this is, to tell Snowflake
        "session_parameters": {**_SESSION, "LOCK_TIMEOUT": _seconds(connection.lock_timeout)},
    }


def _seconds(duration: str) -> int:
    return max(int(parse_duration(duration).total_seconds()), 1)


def _private_key(connection: SnowflakeConnection, context: ConnectionContext) -> bytes | None:
    """The private key in the form that the driver takes."""
    text = _private_key_text(connection, context)
    if text is None:
        return None
    from cryptography.hazmat.primitives import serialization

    passphrase = connection.private_key_passphrase
    try:
        key = serialization.load_pem_private_key(text, passphrase.get_secret_value().encode() if passphrase else None)
    except (ValueError, TypeError) as error:
        hint = "give the PEM text of the private key, and private_key_passphrase if it is encrypted"
        said = f"connection {context.name!r}: the private key cannot be read ({type(error).__name__})"
        raise ConnectionFailed(said, hint=hint, transient=False) from None
    return key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _private_key_text(connection: SnowflakeConnection, context: ConnectionContext) -> bytes | None:
    if connection.private_key is not None:
        return connection.private_key.get_secret_value().encode()
    if connection.key_file is None:
        return None
    try:
        return (context.project_dir / Path(connection.key_file).expanduser()).read_bytes()
    except OSError as error:
        raise ConnectionFailed(f"connection {context.name!r}: {error}", hint="check private_key_path", transient=False) from error
