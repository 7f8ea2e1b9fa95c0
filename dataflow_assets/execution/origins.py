"""What a stage is made from, and what has changed since, in words.

Here: the parts that decide whether the stage of an earlier attempt can serve, each as a short digest. Not here: where such a stage lies
(`execution.attempts`), taking it over (`execution.staging`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from dataflow_assets.execution.session import Rendered, Session
from dataflow_assets.plan.model import StepPlan
from dataflow_assets.protocols import TellsCodeVersion, TellsSourceVersion
from dataflow_assets.storage.stages import Receipt
from dataflow_assets.windows import Window

_NOT_OF_THE_ROWS = {"schema_policy", "reconcile"}
_DIGITS = 8
"""Of a part: enough to tell that it changed, too few to guess a value from it."""

MadeFrom = Mapping[str, str]
"""Part -> digest. The parts are named as `_WORDS` has them; `written:x`, `value:x` and `input:x` are of an option or a step."""

_WORDS = {
    "kind": "the step is of another kind",
    "connection": "its connection is written differently",
    "source": "the source has changed",
    "code": "its code has changed",
    "window": "the window has other bounds",
    "step": "a step before it, or what its windows are, is written differently",
}


def made_from(
    session: Session, step: StepPlan, window: Window | None, *, rendered: Rendered, version: str, inputs: Mapping[str, Receipt]
) -> MadeFrom:
    """The parts of a source's or transform's stage. A source that has no `version` of its own is taken as the same."""
    parts: dict[str, Any] = {"kind": step.kind, "window": str(window), "step": step.fingerprint}
    parts |= {f"written:{name}": value for name, value in step.config.items() if name not in _NOT_OF_THE_ROWS}
    parts |= {f"value:{name}": value for name, value in rendered.raw.options.items() if name not in _NOT_OF_THE_ROWS}
    parts |= {f"value:{name}": str(query) for name, query in rendered.queries.items()}
    parts |= {f"input:{name}": (receipt.checksum, receipt.schema_fingerprint) for name, receipt in inputs.items()}
    if step.connection:
        parts["connection"] = session.connection_mark(step)
    if version:
        parts["source" if step.role == "source" else "code"] = version
    return {name: _digest(value) for name, value in parts.items()}


def version_of(session: Session, step: StepPlan, plugin: Any, rendered: Rendered) -> str:
    """What a source, or the code of a transform, says of itself; empty where nothing can."""
    if files := session.request.files.get(step.id):
        return repr(files)
    if isinstance(plugin, TellsSourceVersion):
        return plugin.source_version(rendered.options)
    return plugin.code_version(session.project.root) if isinstance(plugin, TellsCodeVersion) else ""


def fingerprint_of(made: MadeFrom) -> str:
    """One text for all parts; any difference means that an earlier attempt's stage cannot serve."""
    return _digest(dict(made), digits=64)


def difference(before: MadeFrom, now: MadeFrom) -> str:
    """What is different, in words: the nearest cause, since an option that is written differently has another value, too."""
    if not before:
        return "an older version of this software made it"
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    written = [name.partition(":")[2] for name in changed if name.startswith("written:")]
    values = [name.partition(":")[2] for name in changed if name.startswith("value:")]
    inputs = [name.partition(":")[2] for name in changed if name.startswith("input:")]
    if "kind" in changed:
        return _WORDS["kind"]
    if written:
        return " and ".join(f"the {_option(name)} changed" for name in written)
    if values:
        return f"the {_option(values[0])} has other values: a variable, a date or the state in it changed"
    for name in ("code", "source", "connection"):
        if name in changed:
            return _WORDS[name]
    if inputs:
        return f"step {', '.join(inputs)} before it gave other rows"
    return next((_WORDS[name] for name in ("window", "step") if name in changed), "it was made otherwise")


def _option(name: str) -> str:
    return name if name in {"query", "sql"} else f"option {name}"


def _digest(value: Any, *, digits: int = _DIGITS) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
