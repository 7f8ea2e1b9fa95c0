"""A TCP proxy that loses connections on purpose.

Here: forwarding, and cutting off when the client sends a given word. Not here: any protocol.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Proxy:
    """Listens on `port`. `trigger` arms it: the next message that holds the word goes to the server, its answer is lost with the line."""

    upstream: tuple[str, int]
    port: int = 0
    cut: int = 0
    _trigger: bytes = b""
    _open: list[socket.socket] = field(default_factory=list)

    def trigger(self, word: bytes) -> None:
        """Arm the proxy."""
        self._trigger = word

    def serve(self, listener: socket.socket) -> None:
        """Accept until the listener is closed."""
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(self.upstream)
                self._open += [client, server]
                threading.Thread(target=self._up, args=(client, server), daemon=True).start()
                threading.Thread(target=self._down, args=(server, client), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65_536):
                if self._trigger and self._trigger in data:
                    self._trigger, self.cut = b"", self.cut + 1
                    client.shutdown(socket.SHUT_RDWR)
                    server.sendall(data)
                    server.shutdown(socket.SHUT_WR)
                    return
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    @staticmethod
    def _down(server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65_536):
                client.sendall(data)
            client.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close every line."""
        for line in self._open:
            line.close()


@contextmanager
def proxy_to(host: str, port: int, *, at: int = 0) -> Iterator[Proxy]:
    """A proxy in front of a server, at a free port unless one is named."""
    with socket.create_server(("127.0.0.1", at)) as listener:
        proxy = Proxy((host, port), listener.getsockname()[1])
        threading.Thread(target=proxy.serve, args=(listener,), daemon=True).start()
        try:
            yield proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            proxy.close()
