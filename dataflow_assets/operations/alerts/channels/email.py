"""Messages by e-mail, over SMTP: plain text, and the same as HTML.

Here: the letter and the conversation with the server. Not here: what it says (`operations.alerts.wording`).
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from hashlib import sha256
from html import escape
from pathlib import Path

from dataflow_assets.operations.alerts.channels import TIMEOUT_SECONDS, ChannelFailed
from dataflow_assets.operations.alerts.messages import Message
from dataflow_assets.secrets import mask
from dataflow_assets.spec.alerts import PORTS, bare_address, sender_of
from dataflow_assets.spec.alerts import EmailChannel as Options
from dataflow_assets.tables import utc_now

_COLORS = {"bad": "#b00020", "warning": "#9a6700", "good": "#1a7f37"}
_LATER = range(400, 500)


class EmailChannel:
    """A mail to every address of the channel, all of them in one letter."""

    def __init__(self, options: Options, *, root: Path) -> None:
        self._options, self._root = options, root
        self._security = options.security or "starttls"
        self._addresses = {bare_address(written): written for written in options.to}

    def send(self, message: Message) -> None:
        """Send one letter. Raises ChannelFailed; also where the server refuses some of the addresses, after the others got theirs."""
        letter = letter_of(message, sender=sender_of(self._options, self._options) or "", to=self._options.to)
        try:
            with self._server() as server:
                refused = server.send_message(letter, from_addr=bare_address(str(letter["From"])), to_addrs=list(self._addresses))
        except smtplib.SMTPRecipientsRefused as error:
            raise _refused(error.recipients) from None
        except smtplib.SMTPResponseException as error:
            said = error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else str(error.smtp_error)
            raise ChannelFailed(f"the mail server answers {error.smtp_code} {said}", transient=error.smtp_code in _LATER) from None
        except (OSError, smtplib.SMTPException, ValueError) as error:
            raise ChannelFailed(f"no mail could be sent: {type(error).__name__}: {mask(str(error))}", transient=_may_help(error)) from None
        if refused:
            failed = _refused(refused)
            failed.left = tuple(written for bare, written in self._addresses.items() if bare in refused)
            raise failed

    @contextmanager
    def _server(self) -> Iterator[smtplib.SMTP]:
        options, host = self._options, self._options.host or "localhost"
        port = int(options.port or PORTS[self._security])
        if self._security == "ssl":
            server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_SECONDS, context=self._trust())
        else:
            server = smtplib.SMTP(host, port, timeout=TIMEOUT_SECONDS)
        try:
            if self._security == "starttls":
                server.starttls(context=self._trust())
            if options.user is not None:
                server.login(options.user, options.password.get_secret_value() if options.password else "")
            yield server
            with suppress(OSError, smtplib.SMTPException):  # the letter is taken, however the server says goodbye
                server.quit()
        finally:
            server.close()

    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self._root / self._options.ca_file) if self._options.ca_file else None)


def letter_of(message: Message, *, sender: str, to: list[str]) -> EmailMessage:
    """The letter. Its Message-ID is made of the message's id, so that a mail server which is sent it twice can tell."""
    letter = EmailMessage(policy=SMTP)
    letter["From"] = _addressee(sender)
    letter["To"] = [_addressee(item) for item in to]
    letter["Subject"] = f"[{message.project}] {message.title}"
    letter["Date"] = format_datetime(message.at or utc_now())
    domain = bare_address(sender).rpartition("@")[2]
    letter["Message-ID"] = f"<{sha256(f'{message.id} {sorted(to)}'.encode()).hexdigest()[:32]}@{domain}>"
    letter["Auto-Submitted"] = "auto-generated"
    letter["X-Dataflow-Event"] = message.event
    letter.set_content(as_text(message))
    letter.add_alternative(as_html(message), subtype="html")
    return letter


def as_text(message: Message) -> str:
    """The message for a reader without HTML."""
    lines = [message.title, ""]
    lines += [f"{label}: {text}" for label, text in message.facts]
    lines += ["", *(f"- {title}" for title in message.more)] if message.more else []
    lines += ["", *(f"    {line}" for line in message.detail.splitlines())] if message.detail else []
    lines += ["", "Next:", *(f"    {command}" for command in message.commands)] if message.commands else []
    lines += ["", f"The run: {message.link}"] if message.link else []
    return "\n".join(lines) + "\n"


def as_html(message: Message) -> str:
    """The message as HTML in which nothing but our own is markup."""
    parts = [f'<h3 style="color:{_COLORS[message.tone]}">{escape(message.title)}</h3>']
    if message.facts:
        rows = (f'<tr><th align="left" valign="top">{escape(label)}</th><td>{escape(text)}</td></tr>' for label, text in message.facts)
        parts.append(f"<table>{''.join(rows)}</table>")
    if message.more:
        parts.append(f"<ul>{''.join(f'<li>{escape(title)}</li>' for title in message.more)}</ul>")
    if message.detail:
        parts.append(f"<pre>{escape(message.detail)}</pre>")
    if message.commands:
        listed = "\n".join(escape(command) for command in message.commands)
        parts.append(f"<p>Next:</p><pre>{listed}</pre>")
    if message.link:
        parts.append(f'<p><a href="{escape(message.link, quote=True)}">The run in the Dagster UI</a></p>')
    return f"<html><body>{''.join(parts)}</body></html>"


def _addressee(text: str) -> Address:
    return Address(display_name=text.rpartition("<")[0].strip().strip('"'), addr_spec=bare_address(text))


def _refused(recipients: dict[str, tuple[int, bytes]]) -> ChannelFailed:
    said = "; ".join(f"{address}: {code} {text.decode(errors='replace')}" for address, (code, text) in recipients.items())
    return ChannelFailed(f"the mail server refuses {said}", transient=any(code in _LATER for code, _ in recipients.values()))


def _may_help(error: Exception) -> bool:
    """A wrong certificate, a server without STARTTLS or an address that cannot be written stay as they are; a lost connection may not."""
    return not isinstance(error, ssl.SSLCertVerificationError | smtplib.SMTPNotSupportedError | ValueError)
