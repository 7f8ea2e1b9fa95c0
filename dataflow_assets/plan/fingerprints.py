"""Fingerprints of steps: short texts that change when what a step makes of its inputs is written differently.

Here: what counts as different, of a check step also the file that says what it checks. Not here: the content of a transform's file and
rendered values (`execution` adds those).

Descriptions, tags, asset keys, `checks:` and the schema policy do not count, so that a corrected check reuses the rows already
staged; and a check step changes its own fingerprint but not that of the steps after it, which get its input unchanged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from dataflow_assets.plan.steps import Draft
from dataflow_assets.plan.writes import Writing
from dataflow_assets.spec.models import PipelineModel


def fingerprints(pipeline: PipelineModel, drafts: Mapping[str, Draft], writings: Mapping[str, Writing]) -> dict[str, str]:
    """The fingerprint of every step, by id; `drafts` in run order."""
    own: dict[str, str] = {}
    passed_on: dict[str, str] = {}
    for name, draft in drafts.items():
        inputs = [passed_on[item] for item in draft.model.depends_on if item in passed_on]
        own[name] = _digest(_step(pipeline, draft, writings.get(name, Writing()), inputs))
        passes = draft.plugin.role == "check" and len(inputs) > 0
        passed_on[name] = inputs[0] if passes else own[name]
    return own


def _step(pipeline: PipelineModel, draft: Draft, writing: Writing, inputs: Iterable[str]) -> dict[str, Any]:
    windows = pipeline.windows
    return {
        "role": draft.plugin.role,
        "kind": draft.plugin.kind,
        "connection": draft.link.name if draft.link else None,
        "config": {key: value for key, value in draft.model.config.items() if key != "schema_policy"},
        "mode": writing.mode,
        "keys": writing.keys,
        "window_column": writing.window_column,
        "windows": [windows.cadence.cron, windows.cadence.timezone] if windows else None,
        "inputs": list(inputs),
        **({"code": code} if (code := [check.code for check in draft.checks if check.code]) and draft.plugin.role == "check" else {}),
    }


def _digest(value: Any) -> str:
    """sha256 of canonical JSON, 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
