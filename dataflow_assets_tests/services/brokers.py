"""Real brokers for Celery: Redis and RabbitMQ, one server of each for the session, an empty place in it for each test.

Here: the ladders TEST_REDIS_URL and TEST_RABBITMQ_URL, then the system's programs (Debian: redis-server, rabbitmq-server). Not here:
what is tested with them.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from dataflow_assets_tests.services.ladder import absent, free_port, note_rung

_RABBIT = Path("/usr/lib/rabbitmq/lib")
_numbers = itertools.count(1)


@contextmanager
def _process(words: list[str | Path], *, log: Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A server of its own session, ended with everything that it started."""
    with log.open("wb") as output:
        server = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, env=env, start_new_session=True)
    try:
        yield server
    finally:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _await(port: int, server: subprocess.Popen[bytes], log: Path, *, seconds: float) -> None:
    """Wait until the port is listened to."""
    deadline = time.monotonic() + seconds
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{server.args!r} does not listen:\n{log.read_text(errors='replace')[-4000:]}")


@pytest.fixture(scope="session")
def redis_server(pytestconfig: pytest.Config) -> Iterator[str]:
    """The address of a Redis, without the number of a database."""
    if find_spec("redis") is None:
        absent(pytestconfig, "redis", "pip install redis")
    if url := os.environ.get("TEST_REDIS_URL"):
        note_rung(pytestconfig, "redis", "TEST_REDIS_URL")
        yield url.rstrip("/")
        return
    program = shutil.which("redis-server")
    if program is None:
        absent(pytestconfig, "redis", "set TEST_REDIS_URL, or install redis-server")
    note_rung(pytestconfig, "redis", "redis-server")
    with tempfile.TemporaryDirectory(prefix="dataflow-redis-") as folder:
        port, log = free_port(), Path(folder) / "log"
        words: list[str | Path] = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder, "--databases", "64"]
        with _process(words, log=log) as server:
            _await(port, server, log, seconds=30)
            yield f"redis://127.0.0.1:{port}"


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """A database of this test alone."""
    return f"{redis_server}/{next(_numbers)}"


@pytest.fixture(scope="session")
def rabbitmq_server(pytestconfig: pytest.Config) -> Iterator[str]:
    """The address of a RabbitMQ, without a vhost."""
    if url := os.environ.get("TEST_RABBITMQ_URL"):
        note_rung(pytestconfig, "rabbitmq", "TEST_RABBITMQ_URL")
        yield url.rstrip("/")
        return
    programs = sorted(_RABBIT.glob("rabbitmq_server-*/sbin/rabbitmq-server"))
    epmd = shutil.which("epmd")
    if not programs or epmd is None:
        absent(pytestconfig, "rabbitmq", "set TEST_RABBITMQ_URL, or install rabbitmq-server")
    note_rung(pytestconfig, "rabbitmq", programs[-1].parts[-3])
    with tempfile.TemporaryDirectory(prefix="dataflow-rabbitmq-") as folder, _rabbit(programs[-1], Path(epmd), Path(folder)) as url:
        yield url


@contextmanager
def _rabbit(program: Path, epmd: Path, folder: Path) -> Iterator[str]:
    """The server as its own script starts it, which needs no user rabbitmq, with a port mapper that ends with it."""
    port, mapper, distribution = free_port(), free_port(), free_port()
    (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\nlog.console = true\nlog.file = false\n")
    (folder / "advanced.config").write_text("[{kernel, [{inet_dist_use_interface, {127,0,0,1}}]}].\n")
    (folder / "enabled_plugins").write_text("[].\n")
    env = {
        **os.environ,
        "HOME": str(folder),
        "RABBITMQ_NODENAME": f"dataflow{port}@localhost",
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "logs"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_DIST_PORT": str(distribution),
        "ERL_EPMD_PORT": str(mapper),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1",
    }
    with (
        _process([epmd, "-port", str(mapper), "-address", "127.0.0.1"], log=folder / "epmd.log") as names,
        _process([program], log=folder / "log", env=env) as server,
    ):
        _await(mapper, names, folder / "epmd.log", seconds=20)
        _await(port, server, folder / "log", seconds=120)
        yield f"pyamqp://guest:guest@127.0.0.1:{port}"


@pytest.fixture
def rabbitmq_url(rabbitmq_server: str) -> Iterator[str]:
    """The server's first vhost, with the queue of workers emptied."""
    url = f"{rabbitmq_server}//"
    _purge(url)
    yield url
    _purge(url)


def _purge(url: str) -> None:
    from kombu import Connection

    with Connection(url) as connection, suppress(Exception):
        connection.default_channel.queue_purge("dagster")
