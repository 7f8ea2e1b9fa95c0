"""`alerts:` of the project file and of a pipeline: who is told what, and how often.

Here: channels, the events that are told, Drive's and Dataflow's words for them. Not here: which of it holds for a pipeline
(`plan.alerts`), what happened and how it is told (`operations.alerts`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, field_validator, model_validator

from dataflow_assets.secrets import register_secret, register_written
from dataflow_assets.spec.base import NAME, Duration, Model, Names
from dataflow_assets.windows import parse_duration

AlertEvent = Literal[
    "failure", "check_failure", "check_warning", "anomaly", "late_window", "duration", "gap", "stale_run", "overdue", "recovery"
]
EVENTS: tuple[AlertEvent, ...] = get_args(AlertEvent)

Security = Literal["starttls", "ssl", "none"]
PORTS = {"starttls": 587, "ssl": 465, "none": 25}
_SHORTEST_SECRET = 8
_ADDRESS = re.compile(r"[^@\s,;<>\"]+@[^@\s,;<>\"]+\Z")
_NAMED = re.compile(r"[^<>\r\n]*<(?P<address>[^<>]+)>\Z")


def _is_template(text: str) -> bool:
    return "{{" in text or "${" in text


def bare_address(text: str) -> str:
    """`ann@example.org` of `Ann <ann@example.org>`. Raises ValueError for what is no address."""
    named = _NAMED.match(text.strip())
    address = named["address"].strip() if named else text.strip()
    if not _ADDRESS.match(address):
        raise ValueError(f"{text!r} is not an e-mail address")
    return address


def _address(value: Any) -> Any:
    if isinstance(value, str) and not _is_template(value):
        bare_address(value)
    return value


def _addresses(value: Any) -> Any:
    found = [value] if isinstance(value, str) else value
    return [_address(item) for item in found] if isinstance(found, list) else found


def _port(value: Any) -> Any:
    if isinstance(value, str) and not _is_template(value) and value.strip().isdigit():
        return int(value)
    return value


def _port_is_known(value: int | str | None) -> int | str | None:
    if isinstance(value, int) and not 0 < value < 65536:
        raise ValueError(f"{value} is not a port: write a number between 1 and 65535")
    if isinstance(value, str) and not _is_template(value):
        raise ValueError(f"{value!r} is not a port: write a number between 1 and 65535")
    return value


def _url_is_http(text: str) -> str:
    if not _is_template(text) and (urlsplit(text).scheme not in {"http", "https"} or not urlsplit(text).netloc):
        raise ValueError("this is not a URL: it begins with https:// or http://")
    return text


Addresses = Annotated[list[str], BeforeValidator(_addresses, json_schema_input_type=list[str] | str)]
Port = Annotated[int | str | None, BeforeValidator(_port, json_schema_input_type=int | str | None)]


class MailOptions(Model):
    """A mail server, and whom its messages are from. Texts may hold `{{ env_var(...) }}` and `${NAME}`."""

    host: str | None = Field(None, description="the mail server; default: localhost")
    port: Port = Field(None, description="its port; default: 587 with starttls, 465 with ssl, 25 with none")
    user: str | None = Field(None, description="for a server that wants a login")
    password: SecretStr | None = Field(None, description="for a server that wants a login")
    sender: str | None = Field(
        None, validation_alias=AliasChoices("from", "from_email", "sender"), description="whom messages are from; default: the user"
    )
    tls: Security | None = Field(
        None, description="starttls encrypts before the login, ssl from the first byte, none never; default: starttls"
    )
    ca_file: str | None = Field(None, description="certificates that the server's is checked against; default: the system's")

    use_tls: bool | None = Field(None, description="Drive's word: true is tls: starttls, false is tls: none")

    @property
    def security(self) -> Security | None:
        """What `tls`, or else `use_tls`, says."""
        return self.tls or (None if self.use_tls is None else "starttls" if self.use_tls else "none")

    @field_validator("port")
    @classmethod
    def _port_is_a_port(cls, value: int | str | None) -> int | str | None:
        return _port_is_known(value)

    @field_validator("sender")
    @classmethod
    def _sender_is_an_address(cls, value: str | None) -> str | None:
        return None if value is None else str(_address(value))


class EmailChannel(MailOptions):
    """Messages by e-mail; what it does not say of the server is as under `smtp:`."""

    noun: ClassVar[str] = "a channel of type email"

    type: Literal["email"] = Field(description="which kind of channel it is")
    to: Addresses = Field(min_length=1, description="who gets the messages: one address, or a list of them")


class SlackChannel(Model):
    """Messages into a Slack channel, by an incoming webhook."""

    noun: ClassVar[str] = "a channel of type slack"

    type: Literal["slack"] = Field(description="which kind of channel it is")
    webhook_url: SecretStr = Field(
        validation_alias=AliasChoices("webhook_url", "url"), description="the webhook's address, which is a secret: take it from env_var"
    )

    @field_validator("webhook_url")
    @classmethod
    def _url_is_a_url(cls, value: SecretStr) -> SecretStr:
        _url_is_http(value.get_secret_value())
        return value


class WebhookChannel(Model):
    """Messages as JSON to any address."""

    noun: ClassVar[str] = "a channel of type webhook"

    type: Literal["webhook"] = Field(description="which kind of channel it is")
    url: SecretStr = Field(description="where messages are sent with POST; may hold a secret")
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="further headers, such as Authorization")
    secret: SecretStr | None = Field(None, description="signs the body: X-Dataflow-Signature is sha256= and the HMAC in hexadecimal")
    body: dict[str, Any] = Field(
        default_factory=dict, description="keys that are added to the JSON document, such as a routing key; they may hold secrets"
    )

    @field_validator("url")
    @classmethod
    def _url_is_a_url(cls, value: SecretStr) -> SecretStr:
        _url_is_http(value.get_secret_value())
        return value

    @field_validator("headers")
    @classmethod
    def _headers_are_headers(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, text in value.items():
            if not re.fullmatch(r"[A-Za-z0-9-]+", name) or any(sign in text.get_secret_value() for sign in "\r\n"):
                raise ValueError(f"{name!r} is not the name of a header, or its value has more than one line")
        return value


Channel = Annotated[EmailChannel | SlackChannel | WebhookChannel, Field(discriminator="type")]


class _Rules(Model):
    """What is told of a pipeline, in both files: the pipeline's word wins over the project's."""

    events: list[AlertEvent] | None = Field(
        None,
        description="what is told: failure, check_failure, check_warning, anomaly, late_window, duration, gap, stale_run, overdue, "
        "recovery; default: all of them",
    )
    owners: bool | None = Field(None, description="whether those of a pipeline's owners that are e-mail addresses are told; default: no")
    alert_on_failure: bool | None = Field(None, description="false leaves out failure and stale_run; Drive's word")
    alert_on_duration_exceed: bool | None = Field(None, description="false leaves out duration; Drive's word")
    duration_multiplier: float | None = Field(
        None,
        gt=1,
        validation_alias=AliasChoices("duration_multiplier", "duration_multiplier_threshold"),
        description="a window that takes so many times as long as usual is told; default: 2.0",
    )
    duration_at_least: Duration | None = Field(None, description="a window that takes less than this is never too slow; default: 1min")
    overdue_after: Duration | None = Field(
        None, description="a window that is not published so long after it was due is told; default: never, since the schedule may be off"
    )
    repeat_after: Duration | None = Field(None, description="what still lasts is told again after so long; default: 24h")


class AlertsOptions(_Rules):
    """`alerts:` of the project file."""

    smtp: MailOptions | None = Field(
        None,
        validation_alias=AliasChoices("smtp", "smtp_config"),
        description="the mail server of all messages by e-mail, those to owners and to notify_email included",
    )
    channels: dict[str, Channel] = Field(default_factory=dict, description="name -> a channel; its type is email, slack or webhook")
    default: Names | None = Field(None, description="the channels of pipelines that name none; default: all of them")
    ui_url: str | None = Field(None, description="where the Dagster UI is, for links in messages, such as https://dagster.example.org")
    digest_above: int = Field(5, ge=1, description="more messages than this at a time become one, for each channel")
    check_every: Duration = Field("30s", description="how often the sensor looks; at least 5s")
    give_up_after: Duration = Field("24h", description="how long a message is tried again that a channel does not take")
    status: Literal["running", "stopped"] = Field("stopped", description="whether the sensor runs without being started in the UI")

    @field_validator("check_every")
    @classmethod
    def _not_too_often(cls, value: str) -> str:
        if parse_duration(value).total_seconds() < 5:
            raise ValueError(f"check_every: {value} is less than 5s")
        return value

    @field_validator("ui_url")
    @classmethod
    def _ui_is_a_url(cls, value: str | None) -> str | None:
        return None if value is None else _url_is_http(value)

    @field_validator("channels")
    @classmethod
    def _names_are_names(cls, value: dict[str, Channel]) -> dict[str, Channel]:
        for name in value:
            if not NAME.match(name):
                raise ValueError(f"{name!r} is not the name of a channel: use letters, digits, _ and -, not starting with a digit")
        return value

    @model_validator(mode="after")
    def _default_channels_are_there(self) -> Self:
        if unknown := [name for name in self.default or [] if name not in self.channels]:
            known = ", ".join(self.channels) or "none"
            raise ValueError(f"default: there is no channel {unknown[0]!r}; there are: {known}")
        return self

    @model_validator(mode="after")
    def _every_mail_has_a_sender(self) -> Self:
        server = self.smtp or MailOptions()
        for name, channel in self.channels.items():
            if isinstance(channel, EmailChannel) and sender_of(channel, server) is None:
                raise ValueError(f"the channel {name!r} does not say whom its messages are from: add from:, to it or to smtp:")
        if self.owners and sender_of(server, server) is None:
            raise ValueError("owners are written to, but smtp: does not say whom the messages are from: add from: to it")
        return self


def sender_of(channel: MailOptions, server: MailOptions) -> str | None:
    """Whom messages are from: as written, else the user whose name is an address; None when nobody says."""
    users = (channel.user or server.user or "",)
    return channel.sender or server.sender or next((user for user in users if "@" in user or _is_template(user)), None)


def register_alerts(block: Mapping[str, Any]) -> None:
    """Register the secrets that stand in an `alerts:` block itself: passwords, and the addresses of channels."""
    register_written(block)
    channels = block.get("channels")
    for channel in channels.values() if isinstance(channels, Mapping) else ():
        if isinstance(channel, Mapping):
            register_addresses(channel.values())


def register_addresses(values: Iterable[Any]) -> None:
    """Register what is behind the host of each address over HTTP: it is what a webhook knows its callers by."""
    for value in values:
        if isinstance(value, str) and value.startswith(("https://", "http://")) and not _is_template(value):
            told = urlsplit(value)
            for part in (told.path, told.query):
                if len(part) > _SHORTEST_SECRET:
                    register_secret(part.lstrip("/"))


def _short_forms(value: Any) -> Any:
    """`alerts: ops` and `alerts: [ops, pager]` name channels, `alerts: false` tells nobody."""
    if value is False:
        return {"channels": [], "owners": False}
    if value is True:
        return {}
    return {"channels": value} if isinstance(value, str | list) else value


class PipelineAlertOptions(_Rules):
    """`alerts:` of a pipeline."""

    channels: Names | None = Field(None, description="channels of the project; default: those that the project says")
    notify_email: Addresses = Field(default_factory=list, description="further addresses that get the messages; Dataflow's word")


PipelineAlerts = Annotated[
    PipelineAlertOptions | None, BeforeValidator(_short_forms, json_schema_input_type=PipelineAlertOptions | list[str] | str | bool | None)
]
