"""Object stores for tests: S3 by moto, Google Cloud Storage by gcp-storage-emulator, Azure Blob Storage by Azurite.

Here: the ladders, one server of each kind for the session, a fresh root for each test. Emulators are processes of their own
(`store_servers`). Not here: what is tested with them.

TEST_S3_ROOT, TEST_GCS_ROOT and TEST_AZURE_ROOT name a real bucket and a prefix in it, such as `s3://bucket/tests`; credentials come
from the environment. AZURITE names Azurite's program where it is not on the PATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import pytest

from dataflow_assets_tests.services.ladder import absent, free_port, note_rung

SECRET = "planted/Secret+Key0123456789abcdefghijkl"
_AZURITE_KEY = "cGxhbnRlZFNlY3JldEtleTAxMjM0NTY3ODlhYmNkZWY="


@dataclass(frozen=True)
class StoreRoot:
    """A place of one test in an object store: an address, and how it is reached."""

    url: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def secret(self) -> str | None:
        """A password planted in the options."""
        return self.options.get("secret")

    def fresh(self) -> StoreRoot:
        """A prefix that nobody else uses."""
        return StoreRoot(f"{self.url}/{uuid.uuid4().hex}", self.options)


@contextmanager
def _running(command: Sequence[str], port: int, *, environment: dict[str, str] | None = None) -> Iterator[str]:
    """A server that answers HTTP; yields its address."""
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, **(environment or {})}
        )
        try:
            _await(f"http://127.0.0.1:{port}", server, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _await(url: str, server: subprocess.Popen[bytes], log: Any) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except urllib.error.HTTPError as answer:
            answer.close()
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                raise RuntimeError(f"{url} did not start:\n{log.read().decode(errors='replace')}") from None
            time.sleep(0.05)
        else:
            return


def _emulated(kind: str, port: int) -> list[str]:
    return [sys.executable, "-m", "dataflow_assets_tests.services.store_servers", kind, str(port)]


def _missing(*modules: str) -> str:
    return ", ".join(module for module in modules if find_spec(module.partition(".")[0]) is None)


@pytest.fixture(scope="session")
def s3_bucket(pytestconfig: pytest.Config) -> Iterator[StoreRoot]:
    """A bucket of this session; a test asks for `s3_root`."""
    if root := os.environ.get("TEST_S3_ROOT"):
        note_rung(pytestconfig, "s3", "TEST_S3_ROOT")
        yield StoreRoot(root.rstrip("/"))
        return
    if missing := _missing("botocore", "moto", "flask", "flask_cors"):
        absent(pytestconfig, "s3", f"set TEST_S3_ROOT, or install {missing}")
    note_rung(pytestconfig, "s3", "moto")
    port = free_port()
    with _running(_emulated("s3", port), port) as url:
        yield StoreRoot("s3://lake", {"endpoint_url": url, "region": "us-east-1", "key": "tester", "secret": SECRET})


@pytest.fixture(scope="session")
def gcs_bucket(pytestconfig: pytest.Config) -> Iterator[StoreRoot]:
    """A bucket of this session; a test asks for `gcs_root`."""
    if root := os.environ.get("TEST_GCS_ROOT"):
        note_rung(pytestconfig, "gcs", "TEST_GCS_ROOT")
        yield StoreRoot(root.rstrip("/"))
        return
    if missing := _missing("gcp_storage_emulator") or ("" if _has("google.cloud.storage") else "google-cloud-storage"):
        absent(pytestconfig, "gcs", f"set TEST_GCS_ROOT, or install {missing}")
    note_rung(pytestconfig, "gcs", "gcp-storage-emulator")
    port = free_port()
    with _running(_emulated("gcs", port), port) as url:
        yield StoreRoot("gs://lake", {"endpoint_url": url, "anonymous": True})


@pytest.fixture(scope="session")
def azure_container(pytestconfig: pytest.Config) -> Iterator[StoreRoot]:
    """A container of this session; a test asks for `azure_root`."""
    if root := os.environ.get("TEST_AZURE_ROOT"):
        note_rung(pytestconfig, "azure", "TEST_AZURE_ROOT")
        yield StoreRoot(root.rstrip("/"))
        return
    program = os.environ.get("AZURITE") or shutil.which("azurite-blob") or shutil.which("azurite")
    if program is None or not _has("azure.storage.blob"):
        absent(pytestconfig, "azure", "set TEST_AZURE_ROOT, or npm install azurite and set AZURITE to its program azurite-blob")
    note_rung(pytestconfig, "azure", "Azurite")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="dataflow-azurite-") as folder:
        command = [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", folder, "--silent", "--skipApiVersionCheck"]
        with _running(command, port, environment={"AZURITE_ACCOUNTS": f"tester:{_AZURITE_KEY}"}) as url:
            options = {"endpoint_url": f"{url}/tester", "key": "tester", "secret": _AZURITE_KEY}
            _make_container(options)
            yield StoreRoot("az://lake", options)


def _make_container(options: dict[str, Any]) -> None:
    from azure.storage.blob import ContainerClient

    credential = {"account_name": options["key"], "account_key": options["secret"]}
    with ContainerClient(options["endpoint_url"], "lake", credential=credential) as container:
        container.create_container()


def _has(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@pytest.fixture
def s3_root(s3_bucket: StoreRoot) -> StoreRoot:
    """A root in S3 for this test alone."""
    return s3_bucket.fresh()


@pytest.fixture
def gcs_root(gcs_bucket: StoreRoot) -> StoreRoot:
    """A root in Google Cloud Storage for this test alone."""
    return gcs_bucket.fresh()


@pytest.fixture
def azure_root(azure_container: StoreRoot) -> StoreRoot:
    """A root in Azure Blob Storage for this test alone."""
    return azure_container.fresh()


@pytest.fixture(params=["s3", "gcs", "azure"])
def store_root(request: pytest.FixtureRequest) -> StoreRoot:
    """A root in each store in turn."""
    root: StoreRoot = request.getfixturevalue(f"{request.param}_root")
    return root
