"""Names that Dagster accepts, from names that users write.

Here: text to text, and the tag keys that this package writes on runs. Not here: asset keys, which the plan decides.
"""

from __future__ import annotations

import re

PIPELINE_TAG = "dataflow/pipeline"
WINDOWS_TAG = "dataflow/windows"
FULL_REFRESH_TAG = "dataflow/full_refresh"
REPLAY_TAG = "dataflow/replay"
OVERRIDES_TAG = "dataflow/vars"
CORRELATION_TAG = "dataflow/correlation_id"
"""What a scheduler outside calls the run in its own logs."""
FILES_TAG = "dataflow/files"
WHY_TAG = "dataflow/why"
BACKFILL_TAG = "dataflow/backfill"
DRIVER_TAG = "dataflow/driver"
"""The process that runs it, when it was started from a terminal."""
FOLLOWS_TAG = "dataflow/follows"
"""The run key of the run that must have succeeded before this one."""
SLOT_TAG = "dataflow/slot"
WAITING_TAG = "dataflow/waiting"
"""How many due windows a tick left for the next one."""
BATCH_TAG = "dataflow/batch"
"""The run in whose place this one stands: what it has appended counts as done."""
STALE_RETRY_TAG = "dataflow/stale_retry"
"""How often in a row the windows were asked for again because a worker died."""
LATE_TAG = "dataflow/late"
"""What a run for late data replaces, in few characters."""
IDEMPOTENCY_TAG = "dataflow/idempotency_key"
NO_RUN_RETRY_TAG = "dagster/retry_on_asset_or_op_failure"
"""Dagster's own: "false" keeps its run retries to runs whose process died."""

_NOT_NAME = re.compile(r"[^A-Za-z0-9_]+")
_NOT_GROUP = re.compile(r"[^A-Za-z0-9_/]+")
_NOT_TAG = re.compile(r"[^A-Za-z0-9_.-]+")
_EMAIL = re.compile(r"^[^@\s]+@[^@\s]+\.[^@\s]+$")


def plain_name(text: str) -> str:
    """`text` as a job, op or schedule name: letters, digits and underscores."""
    return _NOT_NAME.sub("_", text) or "_"


def job_name(pipeline: str) -> str:
    """The job of a pipeline."""
    return plain_name(pipeline)


def op_name(pipeline: str) -> str:
    """The op of a pipeline; jobs and ops of one code location may not share a name."""
    return f"{plain_name(pipeline)}__steps"


def group_name(text: str) -> str:
    """`text` as an asset group; `/` keeps its meaning of a group within a group."""
    return re.sub(r"/+", "/", _NOT_GROUP.sub("_", text)).strip("/") or "default"


def tag_key(text: str) -> str:
    """`text` as a tag key: `a/b` keeps one namespace, each part at most 63 characters."""
    parts = [_NOT_TAG.sub("_", part)[:63] for part in text.split("/", 1) if part]
    return "/".join(parts) or "_"


def tag_value(text: str) -> str:
    """`text` as a tag value."""
    return _NOT_TAG.sub("_", text)[:63]


def tags_of(words: tuple[str, ...]) -> dict[str, str]:
    """The tags a user wrote, as `word` or `key:value`."""
    pairs = (word.partition(":") for word in words)
    return {tag_key(key): tag_value(value) for key, _, value in pairs}


def owner(text: str) -> str:
    """An owner as Dagster wants it: an e-mail address, or `team:name` for anything else."""
    return text if _EMAIL.match(text) or text.startswith("team:") else f"team:{text}"
