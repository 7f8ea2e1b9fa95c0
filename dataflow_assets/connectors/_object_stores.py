"""From an address such as `s3://bucket/prefix` to the store, and what the modules of the stores share.

Here: the options, which scheme is which store, a client that is made at its first use, finding objects. Not here: the
requests of any one store (`_objects_s3`, `_objects_gcs`, `_objects_azure`), reading formats, publishing (`storage`).
"""

from __future__ import annotations

import abc
import glob
import importlib
import posixpath
import re
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from pydantic import Field, SecretStr

from dataflow_assets.errors import ConnectionFailed, MissingDriver, ReadFailed
from dataflow_assets.spec.base import Model
from dataflow_assets.storage.objects import ObjectPath, ObjectStore

_MODULES = {"s3": "_objects_s3", "s3a": "_objects_s3", "gs": "_objects_gcs", "gcs": "_objects_gcs", "az": "_objects_azure"}
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9]*)://(?P<bucket>[^/]+)(?:/(?P<key>.*))?", re.DOTALL)
TOKEN_KEY = "dataflow"
"""The name under which a publish leaves its token in an object's own metadata."""


class StorageOptions(Model):
    """How an object store is reached. What is not said here is taken from the environment, as the vendor's own tools do."""

    endpoint_url: str | None = Field(None, description="the store's address, where it is not the vendor's own: MinIO, an emulator")
    region: str | None = Field(None, description="S3: the bucket's region")
    key: str | None = Field(None, description="S3: the access key's id; Azure: the storage account's name")
    secret: SecretStr | None = Field(None, description="S3: the secret access key; Azure: the account's key")
    token: SecretStr | None = Field(None, description="S3: a session token; Azure: a SAS token")
    service_account_file: str | None = Field(None, description="GCS: a service account's JSON file, relative to the project")
    project: str | None = Field(None, description="GCS: the project that is billed")
    anonymous: bool = Field(False, description="ask without credentials: public buckets, emulators")


def is_url(path: str | None) -> bool:
    """Whether a path is an address in an object store."""
    return path is not None and "://" in path


def object_path(url: str, options: StorageOptions | None) -> ObjectPath:
    """The path of an address; nothing is imported or asked yet. Raises ConnectionFailed for an address that no store has."""
    found = _URL.fullmatch(url)
    if found is None or found["scheme"] not in _MODULES:
        raise ConnectionFailed(
            f"{url} is no address of an object store", hint="write s3://bucket/prefix, gs://bucket/prefix or az://container/prefix",
            transient=False,
        )  # fmt: skip
    module = importlib.import_module(f"dataflow_assets.connectors.{_MODULES[found['scheme']]}")
    store: ObjectStore = module.Store(found["bucket"], options or StorageOptions())
    return ObjectPath(store, key_of(found["key"] or ""))


def key_of(path: str) -> str:
    """A path inside a bucket as the beginning of keys, which know no `.`, `..` or doubled `/`."""
    return posixpath.normpath(f"/{path}").lstrip("/")


class LazyStore(abc.ABC):
    """What all stores have: a bucket, options, and a client that is made once, by whoever needs it first."""

    scheme: ClassVar[str]

    def __init__(self, bucket: str, options: StorageOptions) -> None:
        self.bucket, self.options = bucket, options
        self._made: Any = None
        self._making = threading.Lock()

    def __repr__(self) -> str:
        return self.url

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.bucket}"

    @property
    def client(self) -> Any:
        """The driver's client. Raises MissingDriver or ConnectionFailed."""
        with self._making:
            if self._made is None:
                self._made = self._make()
            return self._made

    @abc.abstractmethod
    def _make(self) -> Any:
        """The driver's client, made now."""

    def close(self) -> None:
        with self._making:
            made, self._made = self._made, None
        if made is not None:
            made.close()

    def probe(self) -> str:
        """List one object: what a reader needs to be allowed."""
        next(iter(self.objects("", deep=True)), None)  # type: ignore[attr-defined] # a store has it
        return self.url


def needs(module: str, *, extra: str) -> Any:
    """The driver's module; what it misses for parts that are not used here is no matter. Raises MissingDriver."""
    if (found := sys.modules.get(module)) is not None:
        return found
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImportWarning)
            return importlib.import_module(module)
    except ImportError as error:
        raise MissingDriver(kind=extra, module=module) from error


def sources(path: ObjectPath, suffixes: Sequence[str]) -> list[ObjectPath]:
    """The objects that a source reads: the object itself, those of a folder, or what a glob matches, by key.

    Raises ReadFailed when there is none.
    """
    if glob.has_magic(path.key):
        found = list(_matching(path))
    elif (info := path.store.head(path.key) if path.key else None) is not None:
        return [ObjectPath(path.store, path.key, info)]
    else:
        prefix = f"{path.key}/" if path.key else ""
        found = [item for item in _listed(path, prefix, deep=False) if item.name.endswith(tuple(suffixes))]
        if not found:
            raise ReadFailed(f"{path} does not exist, neither as an object nor as a folder of data", hint="look for a typing error")
    if not found:
        raise ReadFailed(f"no object matches {path}", hint="see what lies there; * stops at a /, ** does not")
    return found


def _matching(path: ObjectPath) -> Iterator[ObjectPath]:
    head = re.split(r"[*?\[]", path.key, maxsplit=1)[0]
    pattern = re.compile(_regex(path.key), re.DOTALL)
    deep = "/" in path.key[len(head) :]
    return (item for item in _listed(path, head, deep=deep) if pattern.fullmatch(item.key))


def _listed(path: ObjectPath, prefix: str, *, deep: bool) -> Iterator[ObjectPath]:
    for info in path.store.objects(prefix, deep=deep):
        item = ObjectPath(path.store, info.key, info)
        if item.name and item.name[0] not in "._":
            yield item


def _regex(pattern: str) -> str:
    """A glob as a regular expression: `*` and `?` stop at a `/`, `**/` goes through any number of folders."""
    parts = re.findall(r"\*\*/|\*\*|\*|\?|\[!?[^\]]+\]|.", pattern, re.DOTALL)
    plain = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(plain.get(part) or (_choice(part) if len(part) > 1 else re.escape(part)) for part in parts)


def _choice(part: str) -> str:
    inside = part[1:-1].replace("\\", "\\\\")
    return f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"
