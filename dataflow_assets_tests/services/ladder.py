"""Rungs: where a service for tests comes from, and what a test run says about it.

Here: the choice between skipping and failing, the closing line, starting a server as an unprivileged user. Not here: any one
service.
"""

from __future__ import annotations

import os
import pwd
import socket
from contextlib import suppress
from typing import Any, NoReturn

import pytest

USED: pytest.StashKey[dict[str, str]] = pytest.StashKey()


def note_rung(config: pytest.Config, service: str, rung: str) -> None:
    """Remember which rung served, for the closing line."""
    config.stash.setdefault(USED, {})[service] = rung


def absent(config: pytest.Config, service: str, reason: str) -> NoReturn:
    """Skip the test, or fail it when REQUIRE_SERVICES names the service."""
    note_rung(config, service, f"absent ({reason})")
    required = {name.strip() for name in os.environ.get("REQUIRE_SERVICES", "").split(",")}
    if service in required:
        pytest.fail(f"REQUIRE_SERVICES names {service}: {reason}", pytrace=False)
    pytest.skip(f"no {service}: {reason}")


def closing_line(config: pytest.Config) -> str:
    """`services: postgres = ...`, empty when no test asked for one."""
    used = config.stash.get(USED, {})
    return "services: " + ", ".join(f"{service} = {rung}" for service, rung in sorted(used.items())) if used else ""


def free_port() -> int:
    """A TCP port of the loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def servant(*names: str) -> pwd.struct_passwd | None:
    """The first of these users, when the tests run as root and the server refuses to; else None."""
    if os.geteuid() != 0:
        return None
    for name in (*names, "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    return None


def as_user(user: pwd.struct_passwd | None) -> dict[str, Any]:
    """Arguments of `subprocess` that run a program as `user`."""
    return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
