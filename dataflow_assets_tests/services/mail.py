"""A real SMTP server for tests, on a free port of the loopback: with STARTTLS or TLS from the first byte, with a login, with faults.

Here: the server (aiosmtpd in a thread), its certificate, the letters it took. Not here: what is expected of them.
"""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any, Literal

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

USER, PASSWORD = "loader", "planted pass/word@mail"


@dataclass
class MailServer:
    """The letters that were taken; `faults` are answers to the next ones in place of 250."""

    certificate: Path
    port: int = 0
    letters: list[EmailMessage] = field(default_factory=list)
    envelopes: list[Envelope] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    goodbye: str = "221 Bye"
    encrypted: list[bool] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)

    async def handle_RCPT(self, _server: Any, _session: Session, envelope: Envelope, address: str, _options: Any) -> str:  # noqa: N802
        """Refuse addresses that begin with `nobody`."""
        if address.startswith("nobody"):
            return "550 no such user here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keep the letter, or answer with the next fault."""
        if self.faults:
            return self.faults.pop(0)
        content = envelope.content
        assert isinstance(content, bytes)
        found = message_from_bytes(content, policy=default)
        assert isinstance(found, EmailMessage)
        self.letters.append(found)
        self.envelopes.append(envelope)
        self.encrypted.append(server.transport.get_extra_info("ssl_object") is not None)
        return "250 taken"

    async def handle_QUIT(self, _server: Any, _session: Session, _envelope: Envelope) -> str:  # noqa: N802
        """Say goodbye, friendly or not."""
        return self.goodbye

    def authenticate(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        """Let in whoever knows the password."""
        assert isinstance(data, LoginPassword)
        self.logins.append(data.login.decode())
        return AuthResult(success=(data.login.decode(), data.password.decode()) == (USER, PASSWORD), handled=False)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of localhost that signed itself, and its key, by openssl."""
    certificate, key = folder / "mail.crt", folder / "mail.key"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    made = ["openssl", "req", "-new", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2", *subject, "-keyout", key, "-out", certificate]
    subprocess.run(made, check=True, capture_output=True)
    return certificate, key


@contextmanager
def mail_server(
    certificate: tuple[Path, Path], *, tls: Literal["starttls", "ssl", "none"] = "none", login: bool = False
) -> Iterator[MailServer]:
    """A server that listens until the end of the block."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    server = MailServer(certificate[0])
    controller = _Controller(server, tls=tls, context=context, login=login)
    controller.start()
    server.port = controller.port
    try:
        yield server
    finally:
        controller.stop()


class _Controller(Controller):
    def __init__(self, handler: MailServer, *, tls: str, context: ssl.SSLContext, login: bool) -> None:
        self._settings: dict[str, Any] = {"enable_SMTPUTF8": True}
        if tls == "starttls":
            self._settings |= {"tls_context": context, "require_starttls": True}
        if login:
            # one that is TLS from the first byte does not know it, and would not offer a login
            required = tls == "starttls"
            self._settings |= {"auth_required": required, "auth_require_tls": required, "authenticator": handler.authenticate}
        super().__init__(handler, hostname="127.0.0.1", port=0, ssl_context=context if tls == "ssl" else None)

    def factory(self) -> SMTP:
        return SMTP(self.handler, **self._settings)

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]  # asked for port 0, it knows its own once it listens
        super()._trigger_server()
