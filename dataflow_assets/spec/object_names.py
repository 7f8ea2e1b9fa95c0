"""Functions and classes given to a builder as objects, by the names that YAML would have.

Here: from a function to `module:function`, from a pandera model to `module:Model`. Not here: finding them again (`user_code`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def object_name(given: Any) -> str:
    """`module:name` of a function or class; of the script that is running, or of a file of the project, `file.py:name`."""
    file = getattr(sys.modules.get(given.__module__), "__file__", None)
    private = given.__module__ == "__main__" or given.__module__.startswith("_dataflow_file_")
    return f"{Path(file).absolute() if private and file else given.__module__}:{given.__qualname__}"


def model_named(given: Any) -> Any:
    """A pandera model as its `module:Model`, text and options of the check as they are; None for what is no model, as the columns of an
    endpoint's `schema`."""
    if isinstance(given, str):
        return given if ":" in given else None
    if isinstance(given, Mapping):
        model = model_named(given.get("schema"))
        return None if model is None else {**given, "schema": model}
    if not isinstance(given, type) or not hasattr(given, "to_schema"):
        return None
    return object_name(given)


def split_model(kind: Any, config: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The keys of a step and its config, when `schema` in the config names a model; in a check by `pandera` it belongs to the config."""
    model = model_named(config.get("schema"))
    if model is None:
        return {}, config
    if kind == "pandera":
        return {}, {**config, "schema": model}
    return {"schema": model}, {key: value for key, value in config.items() if key != "schema"}
