"""Which files a run takes, where it takes exactly those that a sensor found.

A tag could not hold a thousand names, so it holds the digest of a list that is kept in the instance, which all hosts share. The digest
is the unit that an append publishes, so the same files are never appended twice, by whatever run.

Here: the list as a value, and keeping it. Not here: finding files (`operations.sensors.files`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Sequence

import dagster as dg

from dataflow_assets.assets.values import Values, set_values
from dataflow_assets.errors import DataflowError
from dataflow_assets.tables import SourceFile

_PREFIX = "dataflow/files/"


def digest_of(step: str, files: Sequence[SourceFile]) -> str:
    """What names these files in these states, in whatever order they were found."""
    told = sorted([file.name, file.digest or file.mark] for file in files)
    return hashlib.sha256(json.dumps([step, told]).encode()).hexdigest()[:32]


def keep_files(values: Values, step: str, files: Sequence[SourceFile]) -> str:
    """Keep the list of files that a step takes; its digest. Keeping it twice is the same as once."""
    digest = digest_of(step, files)
    told = [[file.name, file.size, file.mark, file.digest] for file in files]
    packed = base64.b85encode(zlib.compress(json.dumps([step, told]).encode(), 9)).decode()
    set_values(values, {f"{_PREFIX}{digest}": packed})
    return digest


def kept_files(values: Values, digest: str) -> tuple[str, tuple[SourceFile, ...]] | None:
    """The step and the files of a list; None when there is no such list."""
    packed = values.get_cursor_values({f"{_PREFIX}{digest}"}).get(f"{_PREFIX}{digest}")
    if not packed:
        return None
    step, told = json.loads(zlib.decompress(base64.b85decode(packed)))
    return step, tuple(SourceFile(name, size, mark, content) for name, size, mark, content in told)


def files_of(instance: dg.DagsterInstance, digest: str) -> dict[str, tuple[SourceFile, ...]]:
    """The files that a run with this digest takes, by source step. Raises DataflowError when the instance no longer knows them."""
    found = kept_files(instance.run_storage, digest)
    if found is None:
        hint = "it was made with another Dagster instance: reset the cursor of the sensor, and it asks again"
        raise DataflowError(f"the list of files {digest} is not in this Dagster instance", hint=hint)
    return {found[0]: found[1]}
