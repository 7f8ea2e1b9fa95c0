"""The ways to people: a message in the form of a mail, of Slack, of JSON, and off it goes.

Here: `Channel`, and making one from what is written. Not here: when a message is sent again (`operations.alerts.sending`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from pydantic import BaseModel, SecretStr, TypeAdapter, ValidationError

from dataflow_assets.errors import DataflowError
from dataflow_assets.operations.alerts.messages import Message
from dataflow_assets.secrets import register_secret, register_written
from dataflow_assets.spec import alerts as spec
from dataflow_assets.spec.project import Project
from dataflow_assets.spec.templates import TemplateContext, render_connection

TIMEOUT_SECONDS = 10.0
"""How long a server may take to answer, at each step of a conversation."""
MAIL = "mail:"
"""Begins the name of a channel that no project file names: addresses of owners, or those that a pipeline writes to."""


class Channel(Protocol):
    """One way to people."""

    def send(self, message: Message) -> None:
        """Deliver the message once. Raises ChannelFailed."""
        ...


class ChannelFailed(DataflowError):
    """A channel did not take a message; `transient`: it may take it later. `left`: of a mail, who did not get it while the others did."""

    left: tuple[str, ...] = ()


def mail_to(addresses: Collection[str]) -> str:
    """The name of the channel to these addresses. One to a line: a name such as `Doe, Ann <ann@example.org>` has commas of its own."""
    return MAIL + "\n".join(addresses)


def shown(channel: str) -> str:
    """A channel's name for readers."""
    return channel.removeprefix(MAIL).replace("\n", ", ")


def open_channel(project: Project, name: str, *, only: Collection[str] = ()) -> Channel:
    """The channel of this name, with templates rendered and secrets registered. Connects to nothing.

    A name of `mail_to` is a mail to these. `only`: of a mail's addresses those, where any is among them. Raises DataflowError when
    there is no such channel, or when its values cannot be used.
    """
    alerts = project.model.alerts
    if name.startswith(MAIL):
        written: spec.EmailChannel | spec.SlackChannel | spec.WebhookChannel = spec.EmailChannel(
            type="email", to=name[len(MAIL) :].split("\n")
        )
    elif name in alerts.channels:
        written = alerts.channels[name]
    else:
        raise DataflowError(f"the project has no channel {name!r} for alerts", hint="see alerts: channels: in the project file")
    options = _rendered(project, name, written)
    if isinstance(options, spec.EmailChannel) and (left := [address for address in options.to if address in only]):
        options = options.model_copy(update={"to": left})
    return _made(options, project)


def _made(options: Any, project: Project) -> Channel:
    if isinstance(options, spec.EmailChannel):
        from dataflow_assets.operations.alerts.channels.email import EmailChannel

        if spec.sender_of(options, options) is None:
            raise DataflowError("nobody says whom messages are from", hint="add alerts: {smtp: {host: ..., from: ...}} to the project file")
        return EmailChannel(options, root=project.root)
    if isinstance(options, spec.SlackChannel):
        from dataflow_assets.operations.alerts.channels.slack import SlackChannel

        return SlackChannel(options)
    from dataflow_assets.operations.alerts.channels.webhook import WebhookChannel

    return WebhookChannel(options)


def _rendered(project: Project, name: str, written: BaseModel) -> Any:
    """The channel with the environment's values in it; of a mail, with the server's where it says none itself."""
    values = _plain(written)
    if isinstance(written, spec.EmailChannel) and project.model.alerts.smtp is not None:
        values = {**_plain(project.model.alerts.smtp), **values}
    context = TemplateContext(
        project_variables=project.model.vars,
        overrides=project.overrides,
        environment=project.environment,
        timezone=project.model.timezone,
    )
    shown = render_connection(values, context)
    try:
        options = TypeAdapter(spec.Channel).validate_python(shown)
    except ValidationError as error:
        details = "; ".join(
            f"{'.'.join(map(str, item['loc'][1:])) or 'value'}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        )
        raise DataflowError(f"channel {name!r}: {details}", hint="these are the values after templates were rendered") from None
    _register(options)
    return options


def _plain(model: BaseModel) -> dict[str, Any]:
    """What was written, secrets as text."""
    return {name: _revealed(getattr(model, name)) for name in model.model_fields_set if getattr(model, name) is not None}


def _revealed(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Mapping):
        return {key: _revealed(item) for key, item in value.items()}
    return value


def _register(options: BaseModel) -> None:
    """What must not be shown of a channel: each secret whole, and of an address what is behind its host."""
    register_written(getattr(options, "body", {}))
    for name in options.model_fields_set:
        value = getattr(options, name)
        for item in value.values() if isinstance(value, Mapping) else [value]:
            if isinstance(item, SecretStr):
                register_secret(item.get_secret_value())
                spec.register_addresses([item.get_secret_value()])
